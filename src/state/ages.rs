//! Tests: what a clock that was ahead has noted lies in the future when the clock is right again, and is believed no longer for it.

use jiff::SignedDuration;

use super::tests::{page, rules, store, user};
use super::*;
use crate::config::{MaxRemovals, UserFilter};
use crate::model::Listing;
use crate::torq::{Unreadable, User, UsersPage};
use crate::view::EventKind;

const YEAR: SignedDuration = SignedDuration::from_hours(24 * 365);
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A whole poll at a moment, with everybody on one page.
fn poll_at(store: &mut Store, now: Timestamp, users: &[User]) -> PollEnd {
    poll_page_at(store, now, &page(users, None))
}

fn poll_page_at(store: &mut Store, now: Timestamp, users: &UsersPage) -> PollEnd {
    tests::poll_at(store, now, users, MaxRemovals::Users(3))
}

#[test]
fn removals_of_the_future_count_for_a_day_and_not_until_that_future_comes() {
    let mut store = store();
    let everybody: Vec<User> = (0..30).map(|number| user(number, 0)).collect();
    let now = Timestamp::now();
    let ahead = now + YEAR;
    poll_at(&mut store, ahead, &everybody);
    poll_at(&mut store, ahead, &everybody[3..]);
    assert_eq!(
        poll_at(&mut store, ahead, &everybody[3..]).removed,
        3,
        "as many as are believed in a day"
    );
    // The clock is right again. The day of those three is today.
    poll_at(&mut store, now, &everybody[4..]);
    let end = poll_at(&mut store, now + HOUR, &everybody[4..]);
    assert_eq!((end.removed, end.held, end.guard.removals_24h), (0, 1, 3));
    poll_at(&mut store, now + HOUR, &everybody[3..]);
    // And tomorrow is another.
    let tomorrow = now + HOUR * 25;
    poll_at(&mut store, tomorrow, &everybody[4..]);
    let end = poll_at(&mut store, tomorrow, &everybody[4..]);
    assert_eq!((end.removed, end.guard.removals_24h), (1, 0));
}

#[test]
fn a_clock_that_jumps_ahead_by_a_day_begins_no_new_day_for_removals() {
    let mut store = store();
    // On this machine no time passes, whatever its clock says.
    store.day = day::Day::by(|_| std::time::Duration::from_secs(60));
    let everybody: Vec<User> = (0..30).map(|number| user(number, 0)).collect();
    let now = Timestamp::now();
    poll_at(&mut store, now, &everybody);
    poll_at(&mut store, now, &everybody[2..]);
    assert_eq!(poll_at(&mut store, now, &everybody[2..]).removed, 2);
    for days in 1..5 {
        let later = now + HOUR * 25 * days;
        poll_at(&mut store, later, &everybody[4..]);
        let end = poll_at(&mut store, later, &everybody[4..]);
        assert_eq!(
            (end.removed, end.guard.removals_24h),
            (0, 2),
            "{days} days later by the clock"
        );
    }
    assert_eq!(store.status().unwrap().held, 2);
    let why = store.about().unwrap().hold_reason.unwrap();
    assert!(
        why.contains("2 at once and 2 carried out in the last 24 hours"),
        "{why}"
    );
    // By both clocks, a day is over.
    store.day = day::Day::default();
    let later = now + HOUR * 25 * 9;
    poll_at(&mut store, later, &everybody[2..]);
    poll_at(&mut store, later, &everybody[4..]);
    assert_eq!(poll_at(&mut store, later, &everybody[4..]).removed, 2);
}

#[test]
fn an_unreadable_record_is_named_once_a_day_whatever_the_clock_said_before() {
    let mut store = store();
    let now = Timestamp::now();
    let unreadable = UsersPage {
        unreadable: vec![Unreadable {
            id: None,
            reason: "record 1 of the page has no id".to_owned(),
        }],
        ..UsersPage::default()
    };
    let named = |store: &Store| {
        let events = store.events(&EventQuery::default()).unwrap();
        events
            .iter()
            .filter(|event| event.kind == EventKind::RecordUnreadable)
            .count()
    };
    for (at, times) in [
        (now + YEAR, 1),
        (now + YEAR + HOUR, 1),
        (now, 2),
        (now + HOUR, 2),
        (now + HOUR * 26, 3),
    ] {
        poll_page_at(&mut store, at, &unreadable);
        assert_eq!(named(&store), times, "at {at}");
    }
}

#[test]
fn a_match_of_the_future_is_asked_again() {
    let mut store = store();
    let now = Timestamp::now();
    poll_at(&mut store, now + YEAR, &[user(1, 0)]);
    let first = crate::model::EmailKey::fold("");
    let key = store.to_match(&first, 9).unwrap().remove(0);
    store.begin_reconciliation(now + YEAR).unwrap();
    store.matched(now + YEAR, &[(key.clone(), None)]).unwrap();
    assert!(store.to_match(&first, 9).unwrap().is_empty());
    store.begin_reconciliation(now).unwrap();
    assert_eq!(store.to_match(&first, 9).unwrap(), std::slice::from_ref(&key));
    store.matched(now, &[(key, None)]).unwrap();
    assert!(store.to_match(&first, 9).unwrap().is_empty(), "once");
}

#[test]
fn nothing_is_concluded_from_a_poll_that_is_doubted() {
    let mut store = store();
    let now = Timestamp::now();
    let everybody: Vec<User> = (0..5).map(|number| user(number, 0)).collect();
    let filter = UserFilter::default();
    poll_at(&mut store, now, &everybody);
    for _ in 0..4 {
        store.begin_poll(now, &filter).unwrap();
        for listing in Listing::BOTH {
            store.apply_page(now, listing, &page(&[], None), &filter).unwrap();
        }
        store.doubt_poll().unwrap();
        let end = store.finish_poll(now, &rules(MaxRemovals::Users(3))).unwrap();
        assert_eq!(end, PollEnd::default());
    }
    poll_at(&mut store, now, &everybody[1..]);
    assert_eq!(
        poll_at(&mut store, now, &everybody[1..]).removed,
        1,
        "two polls that are not doubted"
    );
}
