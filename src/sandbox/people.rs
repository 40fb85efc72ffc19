//! The inhabitants: invented people, roles, directory users and accounts, as plain data.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

/// A member of the Torq workspace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Person {
    /// Torq's id, a UUID.
    pub id: String,
    /// The e-mail address, as Torq sends it.
    pub email: String,
    /// An invented name. Torq does not send it.
    pub name: String,
    /// The id of one of [`roles`].
    pub role_id: String,
    /// `VERIFIED`, `INVITATION_SENT`, `STATUS_UNSPECIFIED`, or anything that Torq may add one day.
    pub status: String,
    /// Whether the SSO identity provider provisioned them, and so in which listing they are.
    pub sso_provision: bool,
    /// RFC 3339, with nanoseconds.
    pub created_time: String,
    /// RFC 3339; `None` for somebody who never logged in.
    pub last_login_time: Option<String>,
    /// What is sent instead of the record made of the fields above, for records that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<Value>,
}

impl Person {
    /// A verified, locally provisioned viewer with this e-mail, who never logged in, with a new random id.
    pub fn with_email(email: &str) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            email: email.to_owned(),
            name: email.split('@').next().unwrap_or_default().to_owned(),
            role_id: VIEWER.to_owned(),
            status: "VERIFIED".to_owned(),
            sso_provision: false,
            created_time: nanos(Timestamp::now()),
            last_login_time: None,
            raw: None,
        }
    }
}

/// A person in the JumpCloud directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DirectoryUser {
    /// JumpCloud's id, 24 hexadecimal digits.
    pub id: String,
    /// The e-mail address, in lower case, as the directory keeps it.
    pub email: String,
    /// An invented name.
    pub name: String,
}

/// An application of JumpCloud SaaS Management.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Application {
    /// JumpCloud's id, 24 hexadecimal digits.
    pub id: String,
    /// Which entry of the catalogue it is.
    pub catalog_app_id: String,
    /// `APPROVED`, `UNAPPROVED`, `IGNORED`.
    pub status: String,
    /// `DEFAULT_ACTION`, `NO_ACTION`, `BLOCK`, `DISMISSIBLE_WARNING`.
    pub access_restriction: String,
    /// RFC 3339.
    pub discovered_at: String,
    /// The directory user who owns it.
    pub owner_user_id: Option<String>,
}

/// A record of somebody under an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// JumpCloud's id, 24 hexadecimal digits. Empty for [`add_account`](super::WorldHandle::add_account): one is made.
    pub id: String,
    /// The e-mail address, as it was sent.
    pub email: Option<String>,
    /// The user name.
    pub username: Option<String>,
    /// The directory user whom it belongs to.
    pub user_id: Option<String>,
}

/// A role of the Torq workspace.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Torq's id, a UUID.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it is for; empty, and so left out on the wire, for a role somebody made in a hurry.
    pub description: &'static str,
    /// What it allows.
    pub scope_names: &'static [&'static str],
    /// Whether the workspace made it.
    pub is_custom: bool,
}

const VIEWER: &str = "7a0f8d1e-52c3-4b6e-9d04-1c9e5b7f2a13";

/// The roles of the workspace.
pub fn roles() -> &'static [Role] {
    &[
        Role {
            id: "1f6c2d9a-0b7e-4c58-8f21-6d3a9e4b5c10",
            name: "Owner",
            description: "Everything, including the workspace itself",
            scope_names: &[
                "user.read",
                "user.write",
                "role.read",
                "workflow.write",
                "api_key.write",
            ],
            is_custom: false,
        },
        Role {
            id: "3c8b5e7d-9a14-4f02-b6d3-2e7f1a8c4b11",
            name: "Contributor",
            description: "Builds workflows",
            scope_names: &["role.read", "workflow.read", "workflow.write"],
            is_custom: false,
        },
        Role {
            id: "5d2e9f4b-7c36-4a81-a2e5-8b4d6c1f3a12",
            name: "Operator",
            description: "Runs workflows",
            scope_names: &["workflow.read", "workflow.execute"],
            is_custom: false,
        },
        Role {
            id: VIEWER,
            name: "Viewer",
            description: "Looks at workflows",
            scope_names: &["workflow.read"],
            is_custom: false,
        },
        Role {
            id: "9e4d1c6b-3f58-4d27-8a90-5f2b7e6d1c14",
            name: "User directory reader",
            description: "",
            scope_names: &["user.read"],
            is_custom: true,
        },
    ]
}

/// RFC 3339 with nine digits, as Torq writes timestamps.
pub(super) fn nanos(at: Timestamp) -> String {
    format!("{at:.9}")
}

const GIVEN: [&str; 36] = [
    "Amara", "Anouk", "Bruno", "Cato", "Chiara", "Dario", "Edda", "Emeka", "Farida", "Gustav", "Hana", "Idris", "Ilse",
    "Jonas", "Kaito", "Kirsten", "Leila", "Lorenz", "Mabel", "Mateo", "Nadia", "Nils", "Odile", "Omar", "Petra",
    "Quentin", "Rosa", "Ruben", "Selma", "Tariq", "Ute", "Vera", "Wendel", "Xenia", "Yusuf", "Zora",
];
const FAMILY_START: [&str; 14] = [
    "Al", "Bren", "Cor", "Dun", "Ettel", "Far", "Gor", "Hask", "Ingel", "Jor", "Kell", "Lorn", "Mossel", "Tann",
];
const FAMILY_END: [&str; 12] = [
    "ander", "bruck", "combe", "dalen", "esker", "fjell", "gard", "holt", "inga", "mere", "stad", "wick",
];

/// Makes people up: the same seed, the same people.
#[derive(Debug)]
pub(super) struct Inventor {
    random: fastrand::Rng,
    /// How often each name was used, so that no two people have the same e-mail.
    used: HashMap<String, u32>,
    /// How many people were made, for exact shares.
    made: u64,
    mixed_case_share: f64,
    sso_share: f64,
}

impl Inventor {
    pub(super) fn new(seed: u64, sso_share: f64, mixed_case_share: f64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            used: HashMap::new(),
            made: 0,
            mixed_case_share,
            sso_share,
        }
    }

    pub(super) fn random(&mut self) -> &mut fastrand::Rng {
        &mut self.random
    }

    /// The number of the next person.
    pub(super) fn number(&self) -> u64 {
        self.made
    }

    /// A name and an e-mail that nobody has.
    pub(super) fn name(&mut self) -> (String, String) {
        let given = GIVEN[self.random.usize(..GIVEN.len())];
        let start = FAMILY_START[self.random.usize(..FAMILY_START.len())];
        let end = FAMILY_END[self.random.usize(..FAMILY_END.len())];
        let name = format!("{given} {start}{end}");
        let plain = format!("{given}.{start}{end}").to_lowercase();
        let used = self.used.entry(plain.clone()).or_default();
        *used += 1;
        let suffix = if *used == 1 { String::new() } else { used.to_string() };
        let domain = if self.random.u8(..4) == 0 {
            "example.org"
        } else {
            "example.com"
        };
        (name, format!("{plain}{suffix}@{domain}"))
    }

    /// Somebody new, who joined at `joined`.
    pub(super) fn person(&mut self, joined: Timestamp) -> Person {
        let (name, mut email) = self.name();
        if falls_in(self.made, self.mixed_case_share) {
            email = email.split('.').map(capitalised).collect::<Vec<_>>().join(".");
        }
        let verified = self.random.f64() < 0.9;
        // Nine in ten who accepted the invitation logged in since.
        let last_login_time = (verified && self.random.f64() < 0.9).then(|| {
            let later = SignedDuration::from_nanos(self.random.i64(1..86_400_000_000_000));
            // Nobody logged in tomorrow.
            nanos(
                joined
                    .saturating_add(later)
                    .unwrap_or(joined)
                    .min(Timestamp::now().max(joined)),
            )
        });
        let person = Person {
            id: uuid::Builder::from_random_bytes(self.random.u128(..).to_be_bytes())
                .into_uuid()
                .to_string(),
            email,
            name,
            role_id: self.role_id().to_owned(),
            status: if verified { "VERIFIED" } else { "INVITATION_SENT" }.to_owned(),
            sso_provision: falls_in(self.made, self.sso_share),
            created_time: nanos(joined),
            last_login_time,
            raw: None,
        };
        self.made += 1;
        person
    }

    /// One of the roles, the humbler the likelier.
    pub(super) fn role_id(&mut self) -> &'static str {
        let index = match self.random.u8(..100) {
            0..5 => 0,
            5..30 => 1,
            30..60 => 2,
            60..97 => 3,
            _ => 4,
        };
        roles().get(index).map_or(VIEWER, |role| role.id)
    }
}

/// Whether number `n` of a row falls in a share of it, so that the share is exact for every length of the row.
pub(super) fn falls_in(n: u64, share: f64) -> bool {
    let upto = |count: u64| (count as f64 * share - 1e-9).ceil();
    upto(n + 1) > upto(n)
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_invents_the_same_people() {
        let epoch = Timestamp::UNIX_EPOCH;
        let people = |seed| {
            let mut inventor = Inventor::new(seed, 0.7, 0.0);
            (0..50).map(|_| inventor.person(epoch)).collect::<Vec<_>>()
        };
        assert_eq!(people(7), people(7));
        assert_ne!(people(7), people(8));
    }

    #[test]
    fn nobody_shares_an_address_and_all_are_at_example_domains() {
        let mut inventor = Inventor::new(3, 0.7, 0.1);
        let people: Vec<_> = (0..20_000).map(|_| inventor.person(Timestamp::UNIX_EPOCH)).collect();
        let emails: std::collections::HashSet<_> = people.iter().map(|person| person.email.to_lowercase()).collect();
        assert_eq!(emails.len(), people.len());
        assert!(
            emails
                .iter()
                .all(|email| email.ends_with("@example.com") || email.ends_with("@example.org"))
        );
        let mixed = people
            .iter()
            .filter(|person| person.email != person.email.to_lowercase());
        assert_eq!(mixed.count(), 2_000);
    }

    #[test]
    fn shares_are_exact() {
        let count = |total: u64, share| (0..total).filter(|n| falls_in(*n, share)).count();
        assert_eq!(count(10, 0.7), 7);
        assert_eq!(count(1000, 0.8), 800);
        assert_eq!(count(1000, 0.0), 0);
        assert_eq!(count(1000, 1.0), 1000);
    }

    #[test]
    fn timestamps_carry_nanoseconds() {
        assert_eq!(nanos(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000000000Z");
    }
}
