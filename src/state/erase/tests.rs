//! Tests: after forgetting somebody, their name is in none of the files, and everybody else is as before.

use std::fs;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::config::{MaxRemovals, UserFilter};
use crate::model::{ConnectorName, Listing};
use crate::state::tests::{page, poll_at, rules, store, user};
use crate::state::{EventQuery, Store};
use crate::torq::User;
use crate::view::RunOutcome;

fn named() -> ConnectorName {
    ConnectorName::parse("main").unwrap()
}

fn someone(id: &str, email: &str) -> User {
    User {
        id: id.to_owned(),
        email: email.to_owned(),
        ..user(0, 0)
    }
}

fn run(store: &mut Store, now: Timestamp, users: &[User]) {
    store.begin_run(now).unwrap();
    poll_at(store, now, &page(users, None), MaxRemovals::Users(100));
    store
        .end_run(now, RunOutcome::Done, Some("it said: Zoe.Quux@Example.com is odd"))
        .unwrap();
}

/// Somebody came, got another e-mail, and left; somebody else is there all the time, and many were.
fn lived_in(store: &mut Store) {
    let now = Timestamp::now();
    let other = someone("11111111-aaaa", "amy@example.com");
    let many: Vec<_> = (0..200).map(|number| user(number, 0)).collect();
    let with = |more: &[User]| [&many, std::slice::from_ref(&other), more].concat();
    run(store, now, &with(&[someone("22222222-quux", "zoe.miller@example.com")]));
    run(store, now, &with(&[someone("22222222-quux", "Zoe.Quux@example.com")]));
    let sql = "INSERT INTO accounts (email_key, account_id, origin, release) VALUES
        ('zoe.quux@example.com', 'a-zoe', 'created', 'reported'), ('amy@example.com', 'a-amy', 'created', NULL)";
    store.db.execute(sql, []).unwrap();
    store
        .db
        .execute(
            "UPDATE connector SET application_id = 'app', hold_reason = 'because of ZOE.QUUX@example.com'",
            [],
        )
        .unwrap();
    let event = NewEvent {
        email: Some("zoe.quux@example.com"),
        reason: Some("deleted in JumpCloud"),
        ..NewEvent::default()
    };
    events::record(&store.db, now, None, EventKind::AccountDeleted, event).unwrap();
    run(store, now, &with(&[]));
    run(store, now, &with(&[]));
}

fn erase(store: &mut Store, person: &str) -> Erasure {
    store.erase(Timestamp::now(), person, true).unwrap()
}

/// In which files a text is, whatever its case.
fn found_in(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap().to_ascii_lowercase();
        if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

#[tokio::test]
async fn whoever_is_forgotten_is_in_no_file_any_more() {
    for person in ["ZOE.QUUX@example.com", "zoe.miller@example.com", "22222222-quux"] {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), &named()).unwrap();
        state
            .call(|store| {
                lived_in(store);
                Ok(())
            })
            .await
            .unwrap();
        fs::write(dir.path().join("main.db.schema-3"), "zoe.quux@example.com").unwrap();
        let names = ["zoe.quux", "zoe.miller", "22222222-quux"];
        for name in names {
            assert!(!found_in(dir.path(), name).is_empty(), "{name}");
        }
        let plan = state.erase(Timestamp::now(), person.to_owned(), false).await.unwrap();
        assert!(!found_in(dir.path(), "zoe.quux").is_empty(), "a plan erases nothing");
        let Erasure::Erased(erased) = state.erase(Timestamp::now(), person.to_owned(), true).await.unwrap() else {
            panic!("{person} is known");
        };
        assert_eq!(plan, Erasure::Erased(erased.clone()));
        assert_eq!(erased.ids, ["22222222-quux"]);
        assert_eq!(erased.accounts, ["a-zoe"]);
        assert_eq!(
            (erased.events, erased.copies, erased.lingering),
            (4, 1, false),
            "{erased:?}"
        );
        for name in names {
            assert_eq!(found_in(dir.path(), name), [""; 0], "{name} after {person}");
        }
        assert!(!found_in(dir.path(), "amy@example.com").is_empty());
        let (users, told) = state
            .call(|store| {
                let query = EventQuery {
                    kinds: vec![EventKind::StateChanged],
                    ..EventQuery::default()
                };
                Ok((store.status()?.users, store.events(&query)?))
            })
            .await
            .unwrap();
        assert_eq!(users, 201);
        let told = told.last().and_then(|event| event.reason.clone()).unwrap();
        assert!(told.contains("4 events"), "{told}");
        let again = state.erase(Timestamp::now(), person.to_owned(), true).await.unwrap();
        assert_eq!(again, Erasure::Unknown);
    }
}

#[test]
fn whoever_is_in_torq_is_not_forgotten() {
    let mut store = store();
    lived_in(&mut store);
    for person in ["11111111-aaaa", "amy@example.com", " AMY@EXAMPLE.COM "] {
        assert_eq!(erase(&mut store, person), Erasure::Present("11111111-aaaa".to_owned()));
    }
    // By an address that they do not have any more.
    run(
        &mut store,
        Timestamp::now(),
        &[someone("33333333-ben", "old@example.com")],
    );
    run(
        &mut store,
        Timestamp::now(),
        &[someone("33333333-ben", "new@example.com")],
    );
    assert_eq!(
        erase(&mut store, "old@example.com"),
        Erasure::Present("33333333-ben".to_owned())
    );
    for person in ["", "nobody@example.com", "zoe"] {
        assert_eq!(erase(&mut store, person), Erasure::Unknown, "{person}");
    }
}

#[test]
fn an_address_that_somebody_else_has_by_now_stays_theirs() {
    let mut store = store();
    let now = Timestamp::now();
    let role = "on.call@example.com";
    run(&mut store, now, &[user(1, 0), someone("first-person", role)]);
    run(&mut store, now, &[user(1, 0), someone("second-person", role)]);
    run(&mut store, now, &[user(1, 0), someone("second-person", role)]);
    assert_eq!(erase(&mut store, role), Erasure::Present("second-person".to_owned()));
    let Erasure::Erased(erased) = erase(&mut store, "first-person") else {
        panic!("left");
    };
    assert_eq!(erased.events, 2);
    let events = store.events(&EventQuery::default()).unwrap();
    let theirs: Vec<_> = events
        .iter()
        .filter(|event| event.email.as_deref() == Some(role))
        .collect();
    assert_eq!(theirs.len(), 1);
    assert_eq!(theirs[0].user_id.as_deref(), Some("second-person"));
}

#[test]
fn what_is_not_settled_about_an_account_is_waited_for() {
    for (columns, values) in [
        ("account_id, origin, release", "'a', 'created', 'due'"),
        ("account_id, origin, release", "'a', 'created', 'held'"),
        ("account_id, origin", "'a', 'created'"),
        ("intent_at, look", "'2026-11-24T10:00:00.000Z', 1"),
    ] {
        let mut store = store();
        let now = Timestamp::now();
        let left = someone("22222222-quux", "zoe@example.com");
        run(&mut store, now, &[left, user(1, 0)]);
        run(&mut store, now, &[user(1, 0)]);
        run(&mut store, now, &[user(1, 0)]);
        let sql = format!("INSERT INTO accounts (email_key, {columns}) VALUES ('zoe@example.com', {values})");
        store.db.execute(&sql, []).unwrap();
        let erasure = erase(&mut store, "zoe@example.com");
        assert!(matches!(erasure, Erasure::Unsettled(_)), "{values}: {erasure:?}");
    }
}

#[test]
fn a_removal_that_is_forgotten_counts_for_its_day_all_the_same() {
    let mut store = store();
    let now = Timestamp::now();
    let people: Vec<_> = (0..10).map(|number| user(number, 0)).collect();
    run(&mut store, now, &people);
    run(&mut store, now, &people[4..]);
    run(&mut store, now, &people[4..]);
    for number in 0..4 {
        assert!(matches!(erase(&mut store, &format!("u{number}")), Erasure::Erased(_)));
    }
    let filter = UserFilter::default();
    for _ in 0..2 {
        store.begin_poll(now, &filter).unwrap();
        store
            .apply_page(now, Listing::Sso, &page(&people[6..], None), &filter)
            .unwrap();
        store
            .apply_page(now, Listing::Local, &page(&[], None), &filter)
            .unwrap();
        store
            .finish_poll(now + SignedDuration::from_mins(5), &rules(MaxRemovals::Users(5)))
            .unwrap();
    }
    assert_eq!(store.status().unwrap().held, 2);
}

#[test]
fn names_are_found_whole_and_in_any_case() {
    let needles = [
        "zoe@example.com".chars().collect::<Vec<_>>(),
        "ærø@example.com".chars().collect(),
    ];
    let cleaned = |text| without(text, &needles);
    assert_eq!(
        cleaned("of ZOE@example.com, twice: zoe@EXAMPLE.com.").unwrap(),
        "of (forgotten), twice: (forgotten)."
    );
    assert_eq!(
        cleaned("{\"email\":\"Ærø@example.com\"}").unwrap(),
        "{\"email\":\"(forgotten)\"}"
    );
    for other in [
        "chloe.zoe@example.com",
        "zoe@example.community",
        "zoe",
        "",
        "x-zoe@example.com",
    ] {
        assert_eq!(cleaned(other), None, "{other}");
    }
}
