//! What a run that came to its end has to say to a person all the same: what it left undone, what waits, and that the API key ends
//! soon. It goes into the status as reason and action.

use jiff::Timestamp;
use jiff::civil::Date;

use crate::config;
use crate::state::{About, Offered};
use crate::view::{ConnectorState, ConnectorStatus};

/// Days before the end of the API key from which on the status says so.
const KEY_DAYS: i32 = 14;

/// Why, and what to do.
pub(super) type Notice = (String, String);

/// Both of two notices.
pub(super) fn both(one: Notice, other: Notice) -> Notice {
    (
        format!("{}; {}", one.0, other.0),
        format!("{}; and: {}", one.1, other.1),
    )
}

/// The state after a run that came to its end, and what is to be said about it.
pub(super) fn of_end(
    status: &ConnectorStatus,
    about: &About,
    report_only: Option<String>,
    name: &str,
) -> (ConnectorState, Option<Notice>) {
    if status.held > 0 {
        let reason = format!("{} removals are too many to be believed unasked", status.held);
        let action = format!(
            "look at them (torq-connector users {name}), then: torq-connector approve {name}; they are dropped by themselves when the users are back"
        );
        return (ConnectorState::Held, Some((reason, action)));
    }
    if let Some(reason) = report_only {
        let action = format!(
            "nothing is lost: users stay pending, and it is tried again once a day, and on: torq-connector retry {name}"
        );
        return (ConnectorState::ReportOnly, Some((reason, action)));
    }
    (ConnectorState::Connected, shortfall(status, about, name))
}

/// What a finished delivery left undone, and what to do about it; `None` when there is nothing to say.
fn shortfall(status: &ConnectorStatus, about: &About, name: &str) -> Option<Notice> {
    let again = "nothing: the next run tries again".to_owned();
    if let Offered::No(_) = about.associations
        && status.associations_pending > 0
    {
        let reason = format!(
            "JumpCloud does not offer associating accounts to this organisation: {} are without their directory user",
            status.associations_pending
        );
        let action = format!("nothing: it is tried again once a day, and on: torq-connector retry {name}");
        return Some((reason, action));
    }
    if status.pending > 0 {
        let reason = format!(
            "JumpCloud did not answer the creates of {} accounts; they stay pending",
            status.pending
        );
        return Some((reason, again));
    }
    if status.parked > 0 {
        let reason = format!(
            "{} users are parked: JumpCloud refuses them, or they have no e-mail",
            status.parked
        );
        let action =
            format!("see why (torq-connector users {name}); when that is settled: torq-connector retry {name}");
        return Some((reason, action));
    }
    None
}

/// The end of the API key, as the configuration says it; `None` when that is far, or unknown.
pub(super) struct KeyEnd {
    expires: Date,
    days: i32,
}

impl KeyEnd {
    pub(super) fn near(torq: &config::Torq, now: Timestamp) -> Option<Self> {
        let (expires, days) = (torq.key_expires?, torq.key_days_left(now)?);
        (days <= KEY_DAYS).then_some(Self { expires, days })
    }

    pub(super) fn notice(&self) -> Notice {
        let Self { expires, days } = self;
        let action = "extend the API key in Torq, or make a new one and put it into the configuration; then set torq.key_expires to its new date";
        let reason = match days {
            ..0 => self.over(),
            0 => "the Torq API key expires today".to_owned(),
            1 => format!("the Torq API key expires tomorrow, on {expires}"),
            days => format!("the Torq API key expires on {expires}, in {days} days"),
        };
        (reason, action.to_owned())
    }

    /// What there is to say when the key is refused.
    pub(super) fn explains(&self) -> Option<String> {
        (self.days <= 0).then(|| self.over())
    }

    fn over(&self) -> String {
        format!("the Torq API key expired on {}, says the configuration", self.expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_key_is_told_from_two_weeks_ahead_on() {
        let expires: Date = "2027-03-01".parse().unwrap();
        let told = |days| KeyEnd { expires, days }.notice().0;
        assert!(told(14).ends_with("in 14 days"), "{}", told(14));
        assert!(told(1).contains("tomorrow"));
        assert!(told(0).contains("today"));
        assert!(told(-3).contains("expired on 2027-03-01"));
        assert!(KeyEnd { expires, days: 3 }.explains().is_none());
    }
}
