//! How fresh an answer is: as of when Torq is known, what happened in times in which nobody read it, and why it is not read now.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Kind, Question};
use crate::config::{PATIENCE, patience};
use crate::state::{About, Sql, Store};
use crate::view::ConnectorState;
use crate::wording::{self, moment};

/// Of so many times in which nobody read Torq is told when they were.
const TOLD: usize = 3;

/// As of when an answer is.
pub(super) fn as_of(question: &Question, read: Option<Timestamp>) -> Option<Timestamp> {
    let asked = match question.kind {
        Kind::Changes => question.until,
        _ => question.at,
    };
    match (asked, read) {
        (Some(asked), Some(read)) => Some(asked.min(read)),
        // Known before anybody noted when it was read, or not at all.
        (asked, read) => read.or(asked),
    }
}

/// What whoever reads an answer should know of its age. `interval`: how often the connector polls.
pub(super) fn notes(store: &Store, question: &Question, interval: Duration) -> Sql<Vec<String>> {
    let about = store.about()?;
    let mut notes = Vec::new();
    let (from, to) = match question.kind {
        Kind::Changes => {
            let to = question.until.unwrap_or(question.now);
            (question.since.unwrap_or(Timestamp::MIN), to)
        }
        _ => (question.moment(), question.moment()),
    };
    notes.extend(note_unread(&store.unread(from, to)?, question.kind, interval));
    let Some(read) = about.read_at else {
        notes.extend(stopped(&about, store.name()));
        return Ok(notes);
    };
    if to <= read {
        return Ok(notes);
    }
    if question.at.is_some() || question.until.is_some() {
        notes.push(format!(
            "Torq was last read to its end at {}, before the time that was asked for: what changed after that is not known",
            moment(read)
        ));
    }
    if let Some(begun) = store.half_read()? {
        notes.push(format!(
            "Torq is being read again since {}: what was read so far is in here, the rest is as of the last complete poll",
            moment(begun)
        ));
    }
    let name = store.name();
    notes.extend(stopped(&about, name).or_else(|| silent(&about, name, read, question.now, interval)));
    Ok(notes)
}

/// Times in which nobody read Torq, where they are longer than usual.
fn note_unread(times: &[(Timestamp, Timestamp)], kind: Kind, interval: Duration) -> Option<String> {
    let usual = SignedDuration::try_from(patience(interval)).unwrap_or(SignedDuration::MAX);
    let long: Vec<String> = times
        .iter()
        .filter(|(since, until)| until.duration_since(*since) > usual)
        .map(|(since, until)| format!("from {} to {}", moment(*since), moment(*until)))
        .collect();
    let (told, others) = (long.len().min(TOLD), long.len().saturating_sub(TOLD));
    let mut when = long[..told].join(", ");
    if others > 0 {
        when += &format!(", and {}", wording::counted(others as u64, "more time"));
    }
    let means = match kind {
        Kind::Changes => "what happened meanwhile was seen, and is told, at the end of that time",
        _ => "this is what was known then, and what changed meanwhile was seen at the end of that time",
    };
    (told > 0).then(|| format!("Torq was not read {when}: {means}"))
}

/// Why the connector does not go on, and what to do: since when a person, credentials or a licence is in the way.
fn stopped(about: &About, name: &impl std::fmt::Display) -> Option<String> {
    let since = |at: Option<Timestamp>| at.map(|at| format!(" since {}", moment(at))).unwrap_or_default();
    let because = || match (&about.reason, &about.action) {
        (Some(reason), Some(action)) => format!("{reason}. What to do: {action}"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => format!("see torq-connector status {name}"),
    };
    if about.paused {
        return Some(format!(
            "polling has stopped{}: a person paused it. What to do: torq-connector resume {name}",
            since(about.paused_at)
        ));
    }
    match about.state {
        ConnectorState::ReconnectRequired => Some(format!(
            "polling has stopped{}: {}",
            since(about.state_since),
            because()
        )),
        ConnectorState::NotLicensed => Some(format!(
            "JumpCloud takes nothing{}, and what is said of accounts and the directory is as of then: {}",
            since(about.state_since),
            because()
        )),
        _ => None,
    }
}

/// That Torq was not read, or nothing was delivered, for too long although nobody stopped it.
fn silent(
    about: &About,
    name: &impl std::fmt::Display,
    read: Timestamp,
    now: Timestamp,
    interval: Duration,
) -> Option<String> {
    let patience = SignedDuration::try_from(patience(interval)).unwrap_or(SignedDuration::MAX);
    let long_ago = |at: Timestamp| now.duration_since(at) > patience;
    let because = match (about.state, &about.reason) {
        (ConnectorState::Retrying, Some(reason)) => format!(": {reason}"),
        _ => String::new(),
    };
    let look = format!("What to do: torq-connector status {name}, torq-connector check {name}");
    if long_ago(read) {
        return Some(format!(
            "Torq was not read to its end for more than {PATIENCE} poll intervals of {}, the last time at {}{because}. {look}",
            wording::span(interval),
            moment(read)
        ));
    }
    let delivered = match about.last_success {
        Some(at) if !long_ago(at) => return None,
        Some(at) => format!("was last brought up to date at {}", moment(at)),
        None if about.state == ConnectorState::Retrying => "was not brought up to date yet".to_owned(),
        None => return None,
    };
    Some(format!(
        "JumpCloud {delivered}, and what is said of accounts and the directory is as of then{because}. {look}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MaxRemovals, Removals, UserFilter};
    use crate::model::Listing;
    use crate::state::{self, RemovalRules};
    use crate::torq::UsersPage;
    use crate::view::RunOutcome;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn question(kind: Kind, at: Option<Timestamp>) -> Question {
        Question {
            kind,
            at,
            since: None,
            until: None,
            days: 90,
            now: "2026-11-24T12:00:00Z".parse().unwrap(),
        }
    }

    const QUARTER: Duration = Duration::from_secs(15 * 60);

    /// Polls and runs that were complete at these moments, one after the other.
    fn store(runs: &[(&str, RunOutcome)]) -> Store {
        let mut store = state::tests::store();
        let (filter, rules) = (
            UserFilter::default(),
            RemovalRules {
                removals: Removals::Report,
                max: MaxRemovals::Users(5),
            },
        );
        for (moment, outcome) in runs {
            let now = at(moment);
            store.begin_run(now).unwrap();
            store.begin_poll(now, &filter).unwrap();
            for listing in Listing::BOTH {
                store.apply_page(now, listing, &UsersPage::default(), &filter).unwrap();
            }
            store.finish_poll(now, &rules).unwrap();
            store.end_run(now, *outcome, None).unwrap();
            let state = match outcome {
                RunOutcome::Failed => ConnectorState::Retrying,
                _ => ConnectorState::Connected,
            };
            store.note_state(now, state, Some("JumpCloud: 503"), None).unwrap();
        }
        store
    }

    fn told(store: &Store, question: &Question) -> String {
        notes(store, question, QUARTER).unwrap().join("\n")
    }

    fn asserts(told: &str, words: &[&str]) {
        for word in words {
            assert!(told.contains(word), "{word}: {told:?}");
        }
    }

    #[test]
    fn of_a_connector_that_is_read_on_schedule_there_is_nothing_to_say() {
        let store = store(&[
            ("2026-11-24T11:30:00Z", RunOutcome::Done),
            ("2026-11-24T11:45:00Z", RunOutcome::Done),
        ]);
        assert_eq!(told(&store, &question(Kind::Access, None)), "");
        assert_eq!(told(&store, &question(Kind::Changes, None)), "");
        assert_eq!(
            told(&store, &question(Kind::Access, Some(at("2026-11-24T11:40:00Z")))),
            ""
        );
    }

    #[test]
    fn what_nobody_can_know_yet_is_said_of_a_moment_after_the_last_complete_poll() {
        let store = store(&[("2026-11-21T08:00:00Z", RunOutcome::Done)]);
        let today = question(Kind::Access, Some(at("2026-11-24T12:00:00Z")));
        let told = told(&store, &today);
        let words = [
            "read to its end at 2026-11-21 08:00:00Z, before",
            "more than 3 poll intervals of 15 min",
            "torq-connector check main",
        ];
        asserts(&told, &words);
        assert_eq!(
            as_of(&today, store.about().unwrap().read_at),
            Some(at("2026-11-21T08:00:00Z"))
        );
    }

    #[test]
    fn a_poll_that_is_complete_counts_whatever_becomes_of_the_delivery() {
        let store = store(&[
            ("2026-11-24T10:00:00Z", RunOutcome::Done),
            ("2026-11-24T11:55:00Z", RunOutcome::Failed),
        ]);
        assert_eq!(store.about().unwrap().read_at, Some(at("2026-11-24T11:55:00Z")));
        let told = told(&store, &question(Kind::Unmatched, None));
        asserts(
            &told,
            &[
                "JumpCloud was last brought up to date at 2026-11-24 10:00:00Z",
                ": JumpCloud: 503. What to do",
            ],
        );
        assert!(!told.contains("Torq was not read to its end"), "{told}");
    }

    #[test]
    fn who_or_what_stopped_the_polling_is_said_and_what_to_do() {
        let mut store = store(&[("2026-11-24T11:50:00Z", RunOutcome::Done)]);
        let now = question(Kind::Access, None);
        let since = at("2026-11-24T11:52:00Z");
        store
            .note_state(
                since,
                ConnectorState::ReconnectRequired,
                Some("Torq: 401"),
                Some("make a new key"),
            )
            .unwrap();
        asserts(
            &told(&store, &now),
            &["polling has stopped since 2026-11-24 11:52:00Z: Torq: 401. What to do: make a new key"],
        );
        store
            .note_state(since, ConnectorState::NotLicensed, Some("JumpCloud: 402"), None)
            .unwrap();
        asserts(
            &told(&store, &now),
            &["JumpCloud takes nothing since 2026-11-24 11:52:00Z", "JumpCloud: 402"],
        );
        store.pause(at("2026-11-24T11:53:00Z"), true).unwrap();
        asserts(
            &told(&store, &now),
            &[
                "stopped since 2026-11-24 11:53:00Z: a person paused it",
                "torq-connector resume main",
            ],
        );
        // Of a day before, that is no matter.
        assert_eq!(
            told(&store, &question(Kind::Access, Some(at("2026-11-24T11:50:00Z")))),
            ""
        );
        store.pause(at("2026-11-24T11:54:00Z"), false).unwrap();
        assert!(!told(&store, &now).contains("paused"));
    }

    #[test]
    fn a_time_in_which_nobody_read_is_told_to_whoever_asks_for_it_and_to_nobody_else() {
        let store = store(&[
            ("2026-11-20T08:00:00Z", RunOutcome::Done),
            ("2026-11-23T08:00:00Z", RunOutcome::Done),
            ("2026-11-24T11:50:00Z", RunOutcome::Done),
        ]);
        let gap = "not read from 2026-11-20 08:00:00Z to 2026-11-23 08:00:00Z";
        asserts(
            &told(&store, &question(Kind::Access, Some(at("2026-11-22T00:00:00Z")))),
            &[gap, "what was known then"],
        );
        for moment in ["2026-11-20T08:00:00Z", "2026-11-23T08:00:00Z"] {
            assert_eq!(told(&store, &question(Kind::Access, Some(at(moment)))), "", "{moment}");
        }
        // A clock that is ahead for a while passes no time.
        let ahead = [
            ("2026-11-24T08:00:00Z", RunOutcome::Done),
            ("2027-11-24T08:00:00Z", RunOutcome::Done),
            ("2026-11-24T08:15:00Z", RunOutcome::Done),
        ];
        let question_then = question(Kind::Access, Some(at("2026-11-24T08:10:00Z")));
        assert_eq!(told(&self::store(&ahead), &question_then), "");
        let week = Question {
            since: Some(at("2026-11-17T12:00:00Z")),
            ..question(Kind::Changes, None)
        };
        asserts(
            &told(&store, &week),
            &[
                gap,
                "from 2026-11-23 08:00:00Z to 2026-11-24 11:50:00Z",
                "at the end of that time",
            ],
        );
    }

    #[test]
    fn what_a_poll_that_is_under_way_has_read_is_in_the_answer_and_said_to_be() {
        let mut store = store(&[("2026-11-24T11:50:00Z", RunOutcome::Done)]);
        let begun = at("2026-11-24T11:59:00Z");
        store.begin_poll(begun, &UserFilter::default()).unwrap();
        assert_eq!(told(&store, &question(Kind::Access, None)), "");
        store
            .apply_page(begun, Listing::Sso, &UsersPage::default(), &UserFilter::default())
            .unwrap();
        asserts(
            &told(&store, &question(Kind::Access, None)),
            &["being read again since 2026-11-24 11:59:00Z"],
        );
    }

    #[test]
    fn nothing_is_as_of_a_later_moment_than_torq_was_read() {
        let read = Some(at("2026-11-24T10:00:00Z"));
        let early = Some(at("2026-11-20T00:00:00Z"));
        let late = Some(at("2026-11-24T11:00:00Z"));
        assert_eq!(as_of(&question(Kind::Access, None), read), read);
        assert_eq!(as_of(&question(Kind::Access, early), read), early);
        assert_eq!(as_of(&question(Kind::Access, late), read), read);
        assert_eq!(as_of(&question(Kind::Access, None), None), None);
    }

    #[test]
    fn times_in_which_nobody_read_are_told_where_they_are_unusual() {
        let times = [
            (at("2026-11-01T00:00:00Z"), at("2026-11-01T01:00:00Z")),
            (at("2026-11-02T00:00:00Z"), at("2026-11-04T00:00:00Z")),
        ];
        let told = |minutes: u64| note_unread(&times, Kind::Access, Duration::from_secs(60 * minutes));
        let note = told(15).unwrap();
        assert!(
            note.contains("from 2026-11-01 00:00:00Z to 2026-11-01 01:00:00Z, from 2026-11-02"),
            "{note}"
        );
        assert!(!told(30).unwrap().contains("11-01"));
        assert_eq!(told(24 * 60), None);
        let many = note_unread(&times.repeat(4), Kind::Changes, Duration::from_secs(60)).unwrap();
        assert!(many.contains("and 5 more times"), "{many}");
    }
}
