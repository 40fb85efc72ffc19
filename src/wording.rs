//! How times, states and foreign text are put before people: the same words in the terminal and on the status page.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::invocation::addressed;
use crate::model::{ConnectorName, steers};
use crate::state::StateError;
use crate::view::{ConnectorState, ConnectorStatus, EventKind, EventView, RunOutcome};

/// What is said of a failure that the daemon gets over without anybody.
pub const BY_ITSELF: &str = "it is tried again by itself";

/// How long ago something was, or how far ahead it is: `3 min ago`, `in 12 min`, `just now`, `in a moment`.
pub fn relative(now: Timestamp, at: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    match seconds {
        0..=9 => "just now".to_owned(),
        -9..0 => "in a moment".to_owned(),
        10.. => format!("{} ago", span(Duration::from_secs(seconds.unsigned_abs()))),
        _ => format!("in {}", span(Duration::from_secs(seconds.unsigned_abs()))),
    }
}

/// A length of time in its largest unit: `45 s`, `3 min`, `2 h`, `5 days`.
pub fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A time in full, to the second: `2026-11-24 10:00:03Z`.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A number and its noun: `1 user`, `3 users`.
pub fn counted(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// That JumpCloud refuses something: users, and deletions of accounts.
pub fn parked(status: &ConnectorStatus) -> String {
    let deletions = status.deletions_parked;
    let users = status.parked.saturating_sub(deletions);
    let of_users = (users > 0).then(|| {
        let are = if users == 1 { "is" } else { "are" };
        format!(
            "{} {are} parked: JumpCloud refuses them, or they have no e-mail",
            counted(users, "user")
        )
    });
    let of_deletions =
        (deletions > 0).then(|| format!("JumpCloud refuses to delete {}", counted(deletions, "account")));
    Vec::from_iter([of_users, of_deletions].into_iter().flatten()).join("; ")
}

/// The commands that show why.
pub fn why_parked(status: &ConnectorStatus) -> String {
    let name = &status.name;
    let users = format!("torq-connector users {name} --account parked");
    let deletions = format!("torq-connector events {name} --kind account_refused");
    match status.deletions_parked {
        0 => users,
        all if all == status.parked => deletions,
        _ => format!("{users}, {deletions}"),
    }
}

/// What to do about it. The one text, so that it can be recognised where it was said already.
pub fn about_parked(status: &ConnectorStatus) -> String {
    format!(
        "see why ({}); when that is settled: torq-connector retry {}",
        why_parked(status),
        status.name
    )
}

/// Whether there are such users, and what is said to be done is something else.
pub fn leaves_out_parked(status: &ConnectorStatus, said: Option<&str>) -> bool {
    let about = about_parked(status);
    let told = said.is_some_and(|said| said.contains(&about) || said.contains(&*addressed(&about)));
    status.parked > 0 && !told
}

/// What to do about a state that cannot be used.
pub fn about_state(error: &StateError) -> &'static str {
    match error {
        StateError::Damaged { .. } => {
            "restore a copy of the file, or move it away: without it, accounts are found again by e-mail, and none is made twice"
        }
        StateError::NotOurs { .. } => "move the file away, or let state_dir name another folder",
        StateError::Displaced { .. } => {
            "nothing, if that was meant; otherwise find out what deletes or replaces files in state_dir"
        }
        StateError::Newer { .. } => "install the newer version, or restore a copy that this one made",
        StateError::InUse { .. } => "let the other process do the work, or stop it",
        StateError::File { .. } | StateError::Sql { .. } => {
            "check the folder: its owner, its permissions, room on the disk"
        }
        StateError::Removed { .. } | StateError::Ending => "see the reason",
    }
}

/// What a person should do about a connector when nothing tries again by itself, where the daemon left word that it would.
pub fn without_daemon(action: &str, name: &impl std::fmt::Display) -> String {
    let again = format!("no daemon is running: start it, or torq-connector sync {name}");
    match action.split_once(BY_ITSELF) {
        Some(("nothing: ", after)) => format!("{again}{after}"),
        Some((before, after)) => format!("{before}{again}{after}"),
        None => action.to_owned(),
    }
}

/// What to do about removals that are held: the command carries how many were shown.
pub fn about_held(status: &ConnectorStatus) -> String {
    let ConnectorStatus { name, held, .. } = status;
    format!(
        "look at them ({}), then: torq-connector approve {name} --count {held}; they are dropped by themselves when the users are back",
        where_held(status)
    )
}

/// Where to look at what is held.
pub fn where_held(status: &ConnectorStatus) -> String {
    let ConnectorStatus { name, held, .. } = status;
    let users = format!("torq-connector users {name} --account held");
    let accounts = format!("torq-connector events {name} --kind removal_held");
    match status.accounts_held {
        0 => users,
        alone if alone == *held => format!("accounts whose e-mail nobody has any more: {accounts}"),
        alone => format!(
            "{users}; {} whose e-mail nobody has any more: {accounts}",
            counted(alone, "account")
        ),
    }
}

/// What to do about removals that are approved and not carried out yet.
pub fn about_approved(name: &(impl std::fmt::Display + ?Sized)) -> String {
    format!(
        "nothing: the next run does it; until then the users may still come back, and it can be taken back: torq-connector approve {name} \
         --withdraw"
    )
}

/// What to do about a record of Torq without an id.
pub fn about_nameless(name: &(impl std::fmt::Display + ?Sized)) -> String {
    format!(
        "see where it is (torq-connector events {name} --kind record_unreadable), and have that user mended or deleted in Torq"
    )
}

/// Whether what is to be done is to wait, or to look at most.
pub fn asks_nothing(action: &str) -> bool {
    ["nothing:", "nothing,"].iter().any(|words| action.starts_with(words))
}

/// What to do about two matters. Where there is nothing to do about one of them, what is to be done about the other.
pub fn both_actions(one: &str, other: &str) -> String {
    match (asks_nothing(one), asks_nothing(other)) {
        (true, false) => other.to_owned(),
        (false, true) => one.to_owned(),
        _ => format!("{one}; and: {other}"),
    }
}

/// A sentence as a part of a longer one.
pub fn within(sentence: &str) -> String {
    let mut chars = sentence.chars();
    match (chars.next(), chars.clone().next()) {
        // An abbreviation or a name keeps its capitals.
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => sentence.to_owned(),
    }
}

/// Why a connector is `paused`.
pub fn paused_reason(at: Option<Timestamp>) -> String {
    match at {
        Some(at) => format!("paused by a person on {}", moment(at)),
        None => "paused by a person".to_owned(),
    }
}

/// Why a connector is `removed`.
pub fn removed_reason(at: Option<Timestamp>) -> String {
    match at {
        Some(at) => format!("removed by a person on {}", moment(at)),
        None => "removed by a person".to_owned(),
    }
}

/// What to do about a connector that was removed. `left`: files of it are there still.
pub fn removed_action(name: &ConnectorName, left: bool) -> String {
    let finish = if left {
        format!("its files are not all deleted: torq-connector remove {name}; then ")
    } else {
        String::new()
    };
    format!(
        "{finish}take the section [{}] out of the configuration, and delete its API key in Torq; to set it up again: \
         torq-connector reconnect {name}",
        name.table()
    )
}

/// A connector's state in words.
pub fn state(state: ConnectorState) -> &'static str {
    match state {
        ConnectorState::Starting => "starting",
        ConnectorState::Collecting => "collecting",
        ConnectorState::Connected => "connected",
        ConnectorState::Syncing => "syncing",
        ConnectorState::Retrying => "retrying",
        ConnectorState::ReconnectRequired => "reconnect required",
        ConnectorState::NotLicensed => "not licensed",
        ConnectorState::ReportOnly => "report only",
        ConnectorState::Held => "held",
        ConnectorState::Paused => "paused",
        ConnectorState::Removed => "removed",
    }
}

/// How much a state asks of whoever looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// All is well.
    Good,
    /// Something is going on, or was put aside by a person.
    Neutral,
    /// Not all is well; it may pass by itself or wants a decision.
    Warning,
    /// A person must act.
    Bad,
}

/// How much a connector's state asks of whoever looks.
pub fn weight(state: ConnectorState) -> Weight {
    match state {
        ConnectorState::Connected | ConnectorState::Syncing => Weight::Good,
        ConnectorState::Starting | ConnectorState::Collecting | ConnectorState::Paused | ConnectorState::Removed => {
            Weight::Neutral
        }
        ConnectorState::Retrying | ConnectorState::ReportOnly | ConnectorState::Held => Weight::Warning,
        ConnectorState::ReconnectRequired | ConnectorState::NotLicensed => Weight::Bad,
    }
}

/// How a run ended, in words.
pub fn outcome(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Done => "done",
        RunOutcome::Partial => "done in part",
        RunOutcome::Failed => "failed",
        RunOutcome::Refused => "refused",
    }
}

/// What an event says happened, in words.
pub fn event(kind: EventKind) -> &'static str {
    match kind {
        EventKind::UserAppeared => "user appeared",
        EventKind::UserChanged => "user changed",
        EventKind::UserDisappeared => "user removed",
        EventKind::AccountCreated => "account created",
        EventKind::AccountFound => "account found",
        EventKind::AccountAssociated => "account associated",
        EventKind::AccountDeleted => "account deleted",
        EventKind::AccountLost => "account lost",
        EventKind::AccountRefused => "account refused",
        EventKind::RemovalHeld => "removal held",
        EventKind::RemovalApproved => "removal approved",
        EventKind::RemovalDropped => "removal dropped",
        EventKind::StateChanged => "state changed",
        EventKind::RecordUnreadable => "record unreadable",
    }
}

/// Adds the names of roles, by which people know them, to the ids of which events speak.
pub fn name_roles(events: &mut [EventView], names: &BTreeMap<String, String>) {
    for event in events {
        let named = |side: &Option<Value>| match side.as_ref().and_then(|side| side.get("role_id")) {
            Some(id) => id.as_str().and_then(|id| names.get(id)).cloned().map(Some),
            None => Some(None),
        };
        // Both or neither: half of a change would be none.
        let (Some(before), Some(after)) = (named(&event.before), named(&event.after)) else {
            continue;
        };
        for (side, name) in [(&mut event.before, before), (&mut event.after, after)] {
            if let (Some(Value::Object(side)), Some(name)) = (side, name) {
                side.insert("role".to_owned(), name.into());
            }
        }
    }
}

/// What changed, and why: `status: INVITED → VERIFIED; reason`.
pub fn details(event: &EventView) -> String {
    let field = |side: &Option<Value>, name: &str| {
        side.as_ref()
            .and_then(|side| side.get(name))
            .filter(|value| !value.is_null())
            .map(|value| in_words(name, value))
    };
    let names: BTreeSet<&String> = [&event.before, &event.after]
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .flat_map(|side| side.keys())
        .collect();
    let names_role = names.iter().any(|name| *name == "role");
    let changes = names.into_iter().filter_map(|name| {
        let before = field(&event.before, name);
        let after = field(&event.after, name);
        match (before, after) {
            (None, None) => None,
            // People know roles by their names.
            _ if name == "role_id" && names_role => None,
            // The line says already whom it is about.
            (None, after) if name == "email" && after == event.email => None,
            // Of somebody new it matters what they may do; of an account, that is what it is about.
            _ if event.kind == EventKind::UserAppeared && (name == "created" || name == "last_login") => None,
            _ if name == "origin" => None,
            (Some(before), None) if name == "first_seen" => Some(format!("was here before, since {before}")),
            (Some(before), Some(after)) if before == after => None,
            (Some(before), Some(after)) => Some(format!("{}: {before} → {after}", label(name))),
            (Some(before), None) => Some(format!("{}: was {before}", label(name))),
            (None, Some(after)) => Some(format!("{}: {after}", label(name))),
        }
    });
    let words: Vec<String> = changes.chain(event.reason.clone()).collect();
    printable(&words.join("; "))
}

/// What people call a field of an event.
fn label(name: &str) -> &str {
    match name {
        "email" => "e-mail",
        "sso" => "sign-in",
        "role_id" => "role",
        "last_login" => "last login",
        "account_id" => "account",
        "directory_user_id" => "directory user",
        other => other,
    }
}

/// The value of a field of an event, as people read it: times to the second.
fn in_words(name: &str, value: &Value) -> String {
    match (name, value.as_str()) {
        ("sso", None) => if value == true { "SSO" } else { "local" }.to_owned(),
        ("created" | "last_login" | "first_seen", Some(text)) => text.parse().map_or_else(|_| text.to_owned(), moment),
        (_, Some(text)) => text.to_owned(),
        (_, None) => value.to_string(),
    }
}

/// The e-mail, or the id of someone who has none.
pub fn named(email: Option<&str>, id: Option<&str>) -> String {
    printable(email.filter(|email| !email.is_empty()).or(id).unwrap_or("–"))
}

/// Foreign text on one line, without anything that could steer a terminal or turn the reading direction around.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if steers(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Foreign text on the lines that it has: the same, but ends of lines and tabs stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    let keeps = |c: char| matches!(c, '\n' | '\t') || !steers(c);
    match text.chars().all(keeps) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.chars().map(|c| if keeps(c) { c } else { '\u{fffd}' }).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_matters_the_one_that_asks_for_something_is_told() {
        let (wait, extend, look) = ("nothing: the next run tries again", "extend the key", "look at them");
        assert_eq!(both_actions(wait, extend), extend);
        assert_eq!(both_actions(extend, "nothing, if that is meant"), extend);
        assert_eq!(both_actions(look, extend), "look at them; and: extend the key");
        assert!(both_actions(wait, wait).contains(wait));
        let lasting = "nothing is lost: it is tried again";
        assert!(both_actions(look, lasting).contains(lasting));
    }

    #[test]
    fn times_are_told_in_their_largest_unit() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let told = |at: &str| relative(now, at.parse().unwrap());
        assert_eq!(told("2026-11-24T09:59:55Z"), "just now");
        assert_eq!(told("2026-11-24T09:59:30Z"), "30 s ago");
        assert_eq!(told("2026-11-24T09:57:00Z"), "3 min ago");
        assert_eq!(told("2026-11-23T12:00:00Z"), "22 h ago");
        assert_eq!(told("2026-11-20T10:00:00Z"), "4 days ago");
        assert_eq!(told("2026-11-24T10:12:30Z"), "in 12 min");
    }

    #[test]
    fn what_changed_is_told_in_the_words_of_people() {
        let event = |kind, before: Value, after: Value| EventView {
            at: None,
            connector: "main".to_owned(),
            run: None,
            kind,
            user_id: Some("u1".to_owned()),
            email: Some("ada@example.com".to_owned()),
            before: Some(before),
            after: Some(after),
            reason: None,
        };
        let (old, new) = (
            serde_json::json!({"sso": false, "role_id": "r1", "last_login": null}),
            serde_json::json!({"sso": true, "role_id": "r2", "last_login": "2026-11-24T10:00:00.5Z"}),
        );
        let mut events = [event(EventKind::UserChanged, old, new)];
        assert_eq!(
            details(&events[0]),
            "last login: 2026-11-24 10:00:00Z; role: r1 → r2; sign-in: local → SSO"
        );
        let mut names = BTreeMap::from([("r1".to_owned(), "Viewer".to_owned())]);
        name_roles(&mut events, &names);
        assert!(
            details(&events[0]).contains("role: r1 → r2"),
            "half of a change would be none"
        );
        names.insert("r2".to_owned(), "Operator".to_owned());
        name_roles(&mut events, &names);
        assert!(details(&events[0]).contains("role: Viewer → Operator"));
        assert_eq!(events[0].after.as_ref().unwrap()["role_id"], "r2", "the data stays");
    }

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        assert_eq!(
            printable("a\u{1b}[31mb\nc\td\u{9b}e\u{202e}f"),
            "a\u{fffd}[31mb c d\u{fffd}e\u{fffd}f"
        );
        assert_eq!(printable("Ægir – ✓"), "Ægir – ✓");
    }
}
