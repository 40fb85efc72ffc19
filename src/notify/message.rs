//! What is said. It names nobody: counts, states and reasons, and in a reason no address.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::config::Occasion;
use crate::http::clean_whole;
use crate::invocation::{Reader, addressed_to};
use crate::view::{ConnectorState, ConnectorStatus};

/// The version of the shape; it grows when a field changes its meaning or goes, not when one is added.
const VERSION: u32 = 1;

/// How much it asks of whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// A decision is wanted, or something may become serious.
    Warning,
    /// A person must act.
    Critical,
}

/// A message: `docs/notify.schema.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The version of this shape.
    pub version: u32,
    /// The same in every attempt to deliver it.
    pub id: String,
    /// When it was noticed.
    pub at: Timestamp,
    /// The connector.
    pub connector: String,
    /// What it is about.
    pub event: Occasion,
    /// How much it asks of whoever reads it.
    pub severity: Severity,
    /// In a line.
    pub title: String,
    /// Why.
    pub reason: Option<String>,
    /// What to do.
    pub action: Option<String>,
    /// With `back_to_normal`: what is over.
    pub ended: Vec<Occasion>,
    /// With `key_expires_soon`: the last day of the key.
    pub key_expires: Option<Date>,
    /// Where the connector stands; null where that is not known at this moment.
    pub status: Option<Standing>,
}

/// Where the connector stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Its state.
    pub state: ConnectorState,
    /// When a poll and its delivery last finished.
    pub last_success: Option<Timestamp>,
    /// Users in Torq.
    pub users: u64,
    /// Accounts in JumpCloud.
    pub accounts: u64,
    /// Users without an account.
    pub pending: u64,
    /// Users whom JumpCloud refuses.
    pub parked: u64,
    /// Removals that wait.
    pub held: u64,
}

impl From<&ConnectorStatus> for Standing {
    fn from(status: &ConnectorStatus) -> Self {
        Self {
            state: status.state,
            last_success: status.last_success,
            users: status.users,
            accounts: status.accounts,
            pending: status.pending,
            parked: status.parked,
            held: status.held,
        }
    }
}

impl Message {
    /// A message about a connector, with nothing in it but its title.
    pub(super) fn new(connector: &str, event: Occasion, at: Timestamp, title: &str) -> Self {
        let severity = match event {
            Occasion::ReconnectRequired => Severity::Critical,
            Occasion::NotLicensed
            | Occasion::Held
            | Occasion::ReportOnly
            | Occasion::KeyExpiresSoon
            | Occasion::Silent => Severity::Warning,
            Occasion::Parked | Occasion::BackToNormal | Occasion::FirstCollection | Occasion::Test => Severity::Info,
        };
        Self {
            version: VERSION,
            id: uuid::Uuid::new_v4().to_string(),
            at,
            connector: connector.to_owned(),
            event,
            severity,
            title: nameless(&format!("{connector}: {title}")),
            reason: None,
            action: None,
            ended: Vec::new(),
            key_expires: None,
            status: None,
        }
    }

    pub(super) fn because(mut self, reason: Option<&str>) -> Self {
        self.reason = reason.map(told_elsewhere);
        self
    }

    pub(super) fn advising(mut self, action: Option<&str>) -> Self {
        self.action = action.map(told_elsewhere);
        self
    }

    pub(super) fn standing(mut self, status: Option<&ConnectorStatus>) -> Self {
        self.status = status.map(Standing::from);
        self
    }

    /// The whole of it, as JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As Slack and whatever is compatible with it takes it.
    pub(super) fn slack(&self) -> String {
        let sign = match self.severity {
            Severity::Critical => ":red_circle: ",
            Severity::Warning => ":large_yellow_circle: ",
            Severity::Info => "",
        };
        let mut text = format!("{sign}*{}*", escaped(&self.title));
        if let Some(reason) = &self.reason {
            text.push_str(&format!("\n{}", escaped(reason)));
        }
        if let Some(action) = &self.action {
            text.push_str(&format!("\nWhat to do: {}", escaped(action)));
        }
        serde_json::json!({ "text": text }).to_string()
    }
}

/// Slack's three signs that mean something.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A text that names nobody, with commands for whoever reads it on another machine or another day.
fn told_elsewhere(text: &str) -> String {
    addressed_to(Reader::Anywhere, &nameless(text)).into_owned()
}

/// A text on one line, without e-mail addresses: a peer's words may have some.
fn nameless(text: &str) -> String {
    // Whole: what is to be typed stands at the end.
    let words = clean_whole(text);
    let is_address = |word: &str| {
        let at = word.find('@');
        at.is_some_and(|at| at > 0 && at + 1 < word.len())
    };
    let hidden: Vec<_> = words
        .split(' ')
        .map(|word| if is_address(word) { "(an address)" } else { word })
        .collect();
    hidden.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_in_a_message() {
        let at = Timestamp::UNIX_EPOCH;
        let message = Message::new("main", Occasion::Parked, at, "2 users are parked")
            .because(Some(
                "JumpCloud: \"zoe@example.com\" is taken,\nsays <amy@example.com>; 3 @ 5",
            ))
            .advising(Some("ask it@example.com"));
        let json = message.json();
        assert!(!json.contains("example.com"), "{json}");
        assert_eq!(
            message.reason.as_deref(),
            Some("JumpCloud: (an address) is taken, says (an address) 3 @ 5")
        );
    }

    #[test]
    fn an_advice_is_told_to_its_end_where_the_command_is() {
        let advice = format!("{} torq-connector reconnect main", "check this and that; ".repeat(40));
        let message =
            Message::new("main", Occasion::Parked, Timestamp::UNIX_EPOCH, "2 users are parked").advising(Some(&advice));
        let action = message.action.unwrap();
        assert!(action.ends_with("reconnect main"), "{action}");
    }

    #[test]
    fn slack_gets_a_text_in_which_nothing_is_markup() {
        let at = Timestamp::UNIX_EPOCH;
        let message = Message::new("main", Occasion::Held, at, "12 removals wait")
            .because(Some("<!channel> & <https://elsewhere.example|here>"))
            .advising(Some("look"));
        let slack: serde_json::Value = serde_json::from_str(&message.slack()).unwrap();
        assert_eq!(
            slack["text"],
            ":large_yellow_circle: *main: 12 removals wait*\n&lt;!channel&gt; &amp; &lt;https://elsewhere.example|here&gt;\nWhat \
             to do: look"
        );
        assert_eq!(slack.as_object().unwrap().len(), 1);
    }
}
