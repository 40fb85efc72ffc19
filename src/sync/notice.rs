//! What a run that came to its end has to say to a person all the same: what it left undone, what waits, and that the API key ends
//! soon. It goes into the status as reason and action.

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use super::application::Tenancy;
use super::is_younger;
use crate::config;
use crate::model::ConnectorName;
use crate::state::{About, Offered};
use crate::view::{ConnectorState, ConnectorStatus};
use crate::wording;

/// How long the status speaks of a changed configuration.
const NOTICE_AGE: SignedDuration = SignedDuration::from_hours(24);

/// Why, and what to do.
pub(super) type Notice = (String, String);

/// Both of two notices.
pub(super) fn both(one: Notice, other: Notice) -> Notice {
    (
        format!("{}; {}", one.0, other.0),
        wording::both_actions(&one.1, &other.1),
    )
}

/// What a run left undone that the status does not count.
pub(super) struct Undone {
    /// Removals that are approved and not carried out yet.
    pub(super) approved: u64,
    /// Of those pending, whom the last poll did not see.
    pub(super) unseen: u64,
}

/// The state after a run that came to its end, and what is to be said about it.
pub(super) fn of_end(
    status: &ConnectorStatus,
    about: &About,
    report_only: Option<String>,
    undone: &Undone,
    tenancy: &Tenancy,
    name: &str,
    now: Timestamp,
) -> (ConnectorState, Option<Notice>) {
    let report_only = report_only.map(|reason| {
        let action = format!(
            "nothing is lost: users stay pending, and it is tried again once a day, and on: torq-connector retry {name}"
        );
        (reason, action)
    });
    let held = (status.held > 0).then(|| {
        let why = about.hold_reason.as_deref().unwrap_or("more than are believed unasked");
        let reason = match status.held {
            1 => format!("1 removal is held: {why}"),
            more => format!("{more} removals are held: {why}"),
        };
        (reason, wording::about_held(status))
    });
    // Approved after this run had looked at who is missing, or by a run that may not believe what it saw.
    let waiting = (undone.approved > 0 && !about.nameless).then(|| {
        let reason = match undone.approved {
            1 => "1 approved removal waits for the next run".to_owned(),
            more => format!("{more} approved removals wait for the next run"),
        };
        (reason, wording::about_approved(name))
    });
    if let Some(notice) = held.into_iter().chain(waiting).reduce(both) {
        // Why nobody gets an account is no less worth knowing.
        let notice = std::iter::once(notice).chain(report_only).reduce(both);
        return (ConnectorState::Held, notice);
    }
    if report_only.is_some() {
        return (ConnectorState::ReportOnly, report_only);
    }
    let notice = noticed(about, now, name)
        .into_iter()
        .chain(shortfall(status, about, undone.unseen, tenancy, name));
    (ConnectorState::Connected, notice.reduce(both))
}

/// What a finished delivery left undone, and what to do about it; `None` when there is nothing to say. `unseen`: how many of
/// those pending the last poll did not see.
fn shortfall(status: &ConnectorStatus, about: &About, unseen: u64, tenancy: &Tenancy, name: &str) -> Option<Notice> {
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
    let unanswered = status.pending.saturating_sub(unseen);
    if unanswered > 0 {
        let reason =
            format!("{unanswered} accounts are still to be created: JumpCloud did not answer, or asked for patience");
        return Some((reason, again));
    }
    if unseen > 0 {
        let reason = format!(
            "{unseen} users without an account were not seen by the last poll: they get none before they are seen again"
        );
        return Some((reason, "nothing: the next poll decides".to_owned()));
    }
    if status.associations_pending > 0 {
        let reason = format!(
            "{} accounts are without their directory user: JumpCloud did not answer, or refused it",
            status.associations_pending
        );
        let action = format!(
            "nothing: the next run tries again; what was refused (torq-connector users {name}), on: torq-connector retry {name}"
        );
        return Some((reason, action));
    }
    if let Tenancy::Unknown(other) = tenancy
        && status.deletions_pending > 0
    {
        let accounts = wording::counted(status.deletions_pending, "account");
        let reason = format!(
            "{accounts} still to be deleted: whether the connector {other} needs what would go is not known, for its state cannot be read"
        );
        let action =
            format!("put that right (torq-connector status {other}); a run after the next one of {other} deletes them");
        return Some((reason, action));
    }
    if status.deletions_pending > 0 {
        let reason = format!(
            "{} accounts are still to be deleted: JumpCloud did not answer, or asked for patience",
            status.deletions_pending
        );
        return Some((reason, again));
    }
    if status.parked > 0 {
        return Some((wording::parked(status), wording::about_parked(status)));
    }
    None
}

/// That this machine's clock and Torq's differ by too much.
pub(super) fn of_clock(ahead: SignedDuration) -> Notice {
    let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
    let reason = format!(
        "this machine's clock is {} {direction} Torq's: nobody is removed until it is right",
        wording::span(ahead.unsigned_abs())
    );
    (reason, "set this machine's clock (NTP)".to_owned())
}

/// That nobody is removed, because a record of Torq may be anybody. `approved`: how many removals a person approved wait for that.
pub(super) fn of_nameless(approved: u64, name: &ConnectorName) -> Notice {
    let waiting = match approved {
        0 => String::new(),
        1 => "; 1 approved removal waits".to_owned(),
        more => format!("; {more} approved removals wait"),
    };
    let reason = format!(
        "Torq lists a record whose id cannot be read, which may be anybody: nobody is removed as long as it does{waiting}"
    );
    (reason, wording::about_nameless(name))
}

/// What was lately found to be configured otherwise than before, as long as somebody may wonder about it.
fn noticed(about: &About, now: Timestamp, name: &str) -> Option<Notice> {
    let (notice, at) = about
        .notice
        .as_ref()
        .filter(|(_, at)| is_younger(*at, now, NOTICE_AGE))?;
    let action = format!("nothing, if that is meant; what came of it is in: torq-connector events {name}");
    Some((format!("{notice} (since {})", wording::moment(*at)), action))
}

/// The end of the API key, as the configuration says it; `None` when that is far, or unknown.
pub(super) struct KeyEnd {
    expires: Date,
    days: i32,
}

impl KeyEnd {
    pub(super) fn near(torq: &config::Torq, now: Timestamp) -> Option<Self> {
        let (expires, days) = (torq.key_expires?, torq.key_days_left(now)?);
        (days <= config::KEY_SOON).then_some(Self { expires, days })
    }

    pub(super) fn notice(&self, name: &ConnectorName) -> Notice {
        let Self { expires, days } = self;
        let action = format!(
            "extend the API key in Torq, or make a new one and put it into the configuration; set torq.key_expires to its new date; \
             then: torq-connector reconnect {name}"
        );
        let reason = match days {
            ..0 => self.over(),
            0 => "the Torq API key expires today".to_owned(),
            1 => format!("the Torq API key expires tomorrow, on {expires}"),
            days => format!("the Torq API key expires on {expires}, in {days} days"),
        };
        (reason, action)
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
        let main = ConnectorName::parse("main").unwrap();
        let told = |days| KeyEnd { expires, days }.notice(&main).0;
        assert!(told(14).ends_with("in 14 days"), "{}", told(14));
        assert!(told(1).contains("tomorrow"));
        assert!(told(0).contains("today"));
        assert!(told(-3).contains("expired on 2027-03-01"));
        assert!(KeyEnd { expires, days: 3 }.explains().is_none());
    }
}
