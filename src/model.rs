//! The words of the domain as types: names, e-mails, ids, users. Parsed at the edge, trusted afterwards.
//!
//! What is shown to people lives in [`crate::view`]; what is stored, in [`crate::state`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a connector: 1 to 64 of `A–Z a–z 0–9 . _ -`, starting with a letter or a digit, so that it is a safe
/// file name (`<state_dir>/<name>.db`) and a safe metric label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ConnectorName(String);

impl ConnectorName {
    /// What is allowed, for messages.
    pub const ALLOWED: &'static str = "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or a digit";

    /// Parses a name; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = text.bytes();
        let first = bytes.next()?;
        let fits = text.len() <= 64
            && first.is_ascii_alphanumeric()
            && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        fits.then(|| Self(text.to_owned()))
    }

    /// The name as written in the configuration.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The table of the connector in the configuration, as TOML wants it: `connectors.main`, `connectors."main.eu"`.
    pub fn table(&self) -> String {
        if self.0.contains('.') {
            format!("connectors.\"{self}\"")
        } else {
            format!("connectors.{self}")
        }
    }
}

impl fmt::Display for ConnectorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An e-mail address as a peer sent it. Kept as sent, compared through [`Email::key`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Email(String);

impl Email {
    /// Wraps what a peer sent, without surrounding white space. May be empty: Torq leaves empty fields out.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Whether there is no address at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The address as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folded form, by which addresses are compared.
    pub fn key(&self) -> EmailKey {
        EmailKey::fold(&self.0)
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A folded e-mail address: two addresses are the same account when their keys are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EmailKey(String);

impl EmailKey {
    /// Folds an address: white space around it is dropped, letters become lower case.
    pub fn fold(text: &str) -> Self {
        Self(text.trim().to_lowercase())
    }

    /// Whether there is no address at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The folded text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the last `@`; empty when there is none.
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

impl fmt::Display for EmailKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a character of foreign text could steer a terminal, end a line of a log, or turn the reading direction around: control
/// characters; separators of lines and paragraphs; marks, embeddings, overrides and isolates of direction.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The longest id that is believed, in bytes.
const MAX_ID: usize = 200;

/// Whether a text that a peer sent can be the id of something: there, not endless, printable; and one segment of a path, for ids
/// go into the addresses of requests, deletions among them, where `.` and `..` are no names.
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ID && !text.chars().any(char::is_control) && !matches!(text, "." | "..")
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps an id as the peer sent it.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The id as the peer sent it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A Torq user's id: stable, the identity of a user (a UUID today; treated as opaque).
    UserId
);
text_id!(
    /// The id of an application in JumpCloud SaaS Management (24 hex digits; treated as opaque).
    ApplicationId
);
text_id!(
    /// The id of an account under an application in JumpCloud SaaS Management.
    AccountId
);
text_id!(
    /// The `_id` of a person in the JumpCloud directory.
    DirectoryUserId
);

/// One of the two user lists a poll reads. A call without `sso_provision` returns local users only
/// (observed in published Torq clients), so the full list is these two, merged by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listing {
    /// `sso_provision=true`: provisioned by the SSO identity provider.
    Sso,
    /// `sso_provision=false`: everyone else.
    Local,
}

impl Listing {
    /// Both listings, in the order in which they are reported.
    pub const BOTH: [Listing; 2] = [Listing::Sso, Listing::Local];

    /// The value of the `sso_provision` query parameter.
    pub fn sso_provision(self) -> bool {
        matches!(self, Listing::Sso)
    }

    /// The name used in the state and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Listing::Sso => "sso",
            Listing::Local => "local",
        }
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One of the two services a connector talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// The Torq API and its token endpoint.
    Torq,
    /// The JumpCloud console API and its token endpoint.
    JumpCloud,
}

impl Peer {
    /// Lower-case name for metrics and state.
    pub fn as_str(self) -> &'static str {
        match self {
            Peer::Torq => "torq",
            Peer::JumpCloud => "jumpcloud",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Peer::Torq => "Torq",
            Peer::JumpCloud => "JumpCloud",
        })
    }
}
