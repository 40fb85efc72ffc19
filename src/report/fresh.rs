//! How fresh an answer is: as of when Torq and the directory are known, what happened in times in which nobody read Torq, and why it
//! is not read now.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Kind, Note, Question};
use crate::config::{PATIENCE, patience};
use crate::state::{About, Sql, Store};
use crate::view::ConnectorState;
use crate::wording::{self, moment};

/// What is said of a connector whose users are not all known yet.
pub const NOT_COMPLETE: &str = "the first collection is not complete: there may be more people than these";

/// The directory is asked right after a poll, by a run that asks it at all: what is older than the poll by more than this, is of a run
/// before. Whoever asks who is not in it is told.
const BEHIND: SignedDuration = SignedDuration::from_mins(5);

/// It is asked once a day. To whoever asks for something else, only what is older than that is worth a word.
const LONG_BEHIND: SignedDuration = SignedDuration::from_hours(25);

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
pub(super) fn notes(store: &Store, question: &Question, interval: Duration) -> Sql<Vec<Note>> {
    let about = store.about()?;
    let mut notes: Vec<Note> = Vec::new();
    let (from, to) = match question.kind {
        Kind::Changes => {
            let to = question.until.unwrap_or(question.now);
            (question.since.unwrap_or(Timestamp::MIN), to)
        }
        _ => (question.moment(), question.moment()),
    };
    notes.extend(note_unread(&store.unread(from, to)?, question.kind, interval).map(Note::from));
    let Some(read) = about.read_at else {
        notes.extend(stopped(&about, store.name()));
        return Ok(notes);
    };
    if to <= read {
        return Ok(notes);
    }
    if question.at.is_some() || question.until.is_some() {
        let note = format!(
            "Torq was last read to its end at {}, before the time that was asked for: what changed after that is not known",
            moment(read)
        );
        notes.push(note.into());
    }
    if let Some(begun) = store.half_read()? {
        let note = format!(
            "Torq is being read again since {}: what was read so far is in here, the rest is as of the last complete poll",
            moment(begun)
        );
        notes.push(note.into());
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

/// The same for whoever asks what is known now. `interval`: how often the connector polls.
pub fn now(store: &Store, now: Timestamp, interval: Duration) -> Sql<Vec<Note>> {
    let question = Question {
        kind: Kind::Access,
        at: None,
        since: None,
        until: None,
        days: 0,
        now,
    };
    notes(store, &question, interval)
}

/// As of when the directory is known, where Torq is known as of later, and how to ask it now. `asked_for`: the answer is about who is in it.
pub fn of_directory(store: &Store, asked_for: bool) -> Sql<Option<Note>> {
    let (Some(read), Some(asked)) = (store.about()?.read_at, store.directory_asked()?) else {
        return Ok(None);
    };
    if read.duration_since(asked) <= if asked_for { BEHIND } else { LONG_BEHIND } {
        return Ok(None);
    }
    let known = format!(
        "the JumpCloud directory was last asked about everybody at {}: who came into it or left it since is shown as they were then",
        moment(asked)
    );
    let now = format!("{known}. To ask it now: torq-connector sync {}", store.name());
    Ok(Some(Note::with_paper(now, known)))
}

/// Where whoever has only the paper is sent.
fn administrator(name: &impl std::fmt::Display) -> String {
    format!("The connector's administrator should look at: torq-connector status {name}")
}

/// Why the connector does not go on, and what to do: since when a person, credentials or a licence is in the way.
fn stopped(about: &About, name: &impl std::fmt::Display) -> Option<Note> {
    let since = |at: Option<Timestamp>| at.map(|at| format!(" since {}", moment(at))).unwrap_or_default();
    let because = || match (&about.reason, &about.action) {
        (Some(reason), Some(action)) => format!("{reason}. What to do: {action}"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => format!("see torq-connector status {name}"),
    };
    if about.paused {
        let stopped = format!("polling has stopped{}: a person paused it", since(about.paused_at));
        return Some(Note::with_paper(
            format!("{stopped}. What to do: torq-connector resume {name}"),
            format!("{stopped}. {}", administrator(name)),
        ));
    }
    let (state, since) = (wording::state(about.state), since(about.state_since));
    let stopped = match about.state {
        ConnectorState::ReconnectRequired => format!("polling has stopped{since}"),
        ConnectorState::NotLicensed => {
            format!("JumpCloud takes nothing{since}, and what is said of accounts and the directory is as of then")
        }
        _ => return None,
    };
    Some(Note::with_paper(
        format!("{stopped}: {}", because()),
        format!("{stopped} ({state}). {}", administrator(name)),
    ))
}

/// That Torq was not read, or nothing was delivered, for too long although nobody stopped it.
fn silent(
    about: &About,
    name: &impl std::fmt::Display,
    read: Timestamp,
    now: Timestamp,
    interval: Duration,
) -> Option<Note> {
    let patience = SignedDuration::try_from(patience(interval)).unwrap_or(SignedDuration::MAX);
    let long_ago = |at: Timestamp| now.duration_since(at) > patience;
    let because = match (about.state, &about.reason) {
        (ConnectorState::Retrying, Some(reason)) => format!(": {reason}"),
        _ => String::new(),
    };
    let told = |happened: String| {
        Note::with_paper(
            format!("{happened}{because}. What to do: torq-connector status {name}, torq-connector check {name}"),
            format!("{happened}. {}", administrator(name)),
        )
    };
    if long_ago(read) {
        return Some(told(format!(
            "Torq was not read to its end for more than {PATIENCE} poll intervals of {}, the last time at {}",
            wording::span(interval),
            moment(read)
        )));
    }
    let delivered = match about.last_success {
        Some(at) if !long_ago(at) => return None,
        Some(at) => format!("was last brought up to date at {}", moment(at)),
        None if about.state == ConnectorState::Retrying => "was not brought up to date yet".to_owned(),
        None => return None,
    };
    Some(told(format!(
        "JumpCloud {delivered}, and what is said of accounts and the directory is as of then"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MaxRemovals, Removals, UserFilter};
    use crate::model::{EmailKey, Listing};
    use crate::state::{self, RemovalRules};
    use crate::torq::{User, UsersPage};
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

    fn usual() -> (UserFilter, RemovalRules) {
        let rules = RemovalRules {
            removals: Removals::Report,
            max: MaxRemovals::Users(5),
        };
        (UserFilter::default(), rules)
    }

    /// Polls and runs that were complete at these moments, one after the other.
    fn store(runs: &[(&str, RunOutcome)]) -> Store {
        let mut store = state::tests::store();
        let (filter, rules) = usual();
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
        let notes = notes(store, question, QUARTER).unwrap();
        notes.iter().map(Note::words).collect::<Vec<_>>().join("\n")
    }

    /// The same on paper.
    fn printed(store: &Store, question: &Question) -> String {
        let notes = notes(store, question, QUARTER).unwrap();
        notes.iter().map(Note::on_paper).collect::<Vec<_>>().join("\n")
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
    fn on_paper_there_is_no_reason_and_nothing_to_type_but_the_status() {
        let mut store = store(&[("2026-11-24T11:50:00Z", RunOutcome::Done)]);
        let now = question(Kind::Access, None);
        let since = at("2026-11-24T11:52:00Z");
        let (reason, action) = (
            "Torq: the secret /etc/secret cannot be read",
            "check the client id (abc)",
        );
        let paper = |store: &Store, now| {
            let paper = printed(store, now);
            asserts(&paper, &["administrator should look at: torq-connector status main"]);
            for private in ["/etc", "abc", "What to do", "resume", "check"] {
                assert!(!paper.contains(private), "{private}: {paper}");
            }
            paper
        };
        for (state, words) in [
            (
                ConnectorState::ReconnectRequired,
                "polling has stopped since 2026-11-24 11:52:00Z (reconnect required). ",
            ),
            (
                ConnectorState::NotLicensed,
                "JumpCloud takes nothing since 2026-11-24 11:52:00Z",
            ),
        ] {
            store.note_state(since, state, Some(reason), Some(action)).unwrap();
            asserts(&told(&store, &now), &[reason, action]);
            asserts(&paper(&store, &now), &[words]);
        }
        store
            .note_state(since, ConnectorState::Retrying, Some(reason), Some(action))
            .unwrap();
        let late = Question {
            now: at("2026-11-25T12:00:00Z"),
            ..now
        };
        asserts(&told(&store, &late), &[reason]);
        asserts(&paper(&store, &late), &["the last time at 2026-11-24 11:50:00Z. "]);
        store.pause(since, true).unwrap();
        asserts(&paper(&store, &now), &["a person paused it. "]);
    }

    #[test]
    fn a_directory_that_was_asked_long_before_the_last_poll_is_said_to_be_and_how_to_ask_it() {
        let mut store = store(&[]);
        let (filter, rules) = usual();
        let ada = User {
            id: "ada".to_owned(),
            email: "ada@example.com".to_owned(),
            ..User::default()
        };
        let somebody = UsersPage {
            users: vec![ada],
            ..UsersPage::default()
        };
        let told = |store: &Store| of_directory(store, true).unwrap();
        let poll = |store: &mut Store, now: &str, asks: bool| {
            let now = at(now);
            store.begin_run(now).unwrap();
            store.begin_poll(now, &filter).unwrap();
            for listing in Listing::BOTH {
                let page = match listing {
                    Listing::Sso => &somebody,
                    _ => &UsersPage::default(),
                };
                store.apply_page(now, listing, page, &filter).unwrap();
            }
            store.finish_poll(now, &rules).unwrap();
            if asks {
                store.begin_reconciliation(now).unwrap();
                store
                    .matched(now, &[(EmailKey::fold("ada@example.com"), None)])
                    .unwrap();
            }
        };
        poll(&mut store, "2026-11-24T10:00:00Z", false);
        assert_eq!((told(&store), store.directory_asked().unwrap()), (None, None));
        poll(&mut store, "2026-11-24T10:15:00Z", true);
        assert_eq!(told(&store), None);
        assert_eq!(store.directory_asked().unwrap(), Some(at("2026-11-24T10:15:00Z")));
        poll(&mut store, "2026-11-24T10:20:00Z", false);
        assert_eq!(told(&store), None, "a few minutes are none");
        poll(&mut store, "2026-11-24T10:30:00Z", false);
        let note = told(&store).unwrap();
        asserts(note.words(), &["at 2026-11-24 10:15:00Z", "torq-connector sync main"]);
        asserts(note.on_paper(), &["at 2026-11-24 10:15:00Z"]);
        assert!(!note.on_paper().contains("torq-connector"), "{note:?}");
        let elsewhere = |store: &Store| of_directory(store, false).unwrap();
        poll(&mut store, "2026-11-25T10:30:00Z", false);
        assert_eq!(elsewhere(&store), None, "that is as old as it gets");
        poll(&mut store, "2026-11-25T11:30:00Z", false);
        assert!(elsewhere(&store).is_some());
        poll(&mut store, "2026-11-25T11:45:00Z", true);
        assert_eq!((told(&store), elsewhere(&store)), (None, None));
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
