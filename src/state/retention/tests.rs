//! Tests: what is old goes, what is young stays, and what was asked of the state before is still answered.

use jiff::{SignedDuration, Timestamp};

use crate::config::{MaxRemovals, UserFilter};
use crate::model::Listing;
use crate::state::tests::{page, poll_at, rules, store, user};
use crate::state::{EventQuery, Sides, Store};
use crate::torq::User;
use crate::view::{EventKind, RunOutcome};

fn day(number: i64) -> Timestamp {
    let first: Timestamp = "2026-01-01T08:00:00Z".parse().unwrap();
    first + SignedDuration::from_hours(24 * number)
}

/// A run on this day that sees these users.
fn run(store: &mut Store, now: Timestamp, users: &[User]) {
    store.begin_run(now).unwrap();
    poll_at(store, now, &page(users, None), MaxRemovals::Users(1000));
    store.end_run(now, RunOutcome::Done, None).unwrap();
}

fn count(store: &Store, table: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store.db.query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// Prunes to the end.
fn prune(store: &mut Store, before: Timestamp) {
    for _ in 0..100 {
        if !store.prune(before).unwrap().is_full() {
            return;
        }
    }
    panic!("it never ends");
}

/// Three users come on day 0; the third leaves on day 1 and 2, the second on day 300; somebody comes on day 350.
fn a_year() -> Store {
    let mut store = store();
    let (one, two, three) = (user(1, 0), user(2, 0), user(3, 0));
    run(&mut store, day(0), &[one.clone(), two.clone(), three]);
    run(&mut store, day(1), &[one.clone(), two.clone()]);
    run(&mut store, day(2), &[one.clone(), two]);
    run(&mut store, day(299), std::slice::from_ref(&one));
    run(&mut store, day(300), std::slice::from_ref(&one));
    run(&mut store, day(350), &[one, user(4, 0)]);
    store
}

#[test]
fn what_is_old_goes_and_what_is_young_or_present_stays() {
    let mut store = a_year();
    assert_eq!(store.horizon().unwrap(), None);
    assert!(!store.is_to_be_pruned(day(0)).unwrap());
    prune(&mut store, day(100));
    let users: Vec<_> = store.users().unwrap().into_iter().map(|user| user.id).collect();
    assert_eq!(users, ["u1", "u4"]);
    let gone = store.user("u3").unwrap();
    assert!(gone.is_none(), "left long ago: {gone:?}");
    assert!(store.user("u2").unwrap().is_some(), "left lately");
    let kinds: Vec<_> = store.events(&EventQuery::default()).unwrap();
    let kinds: Vec<_> = kinds
        .into_iter()
        .map(|event| (event.kind, event.user_id.unwrap()))
        .collect();
    assert_eq!(
        kinds,
        [
            (EventKind::UserDisappeared, "u2".to_owned()),
            (EventKind::UserAppeared, "u4".to_owned())
        ]
    );
    assert_eq!(count(&store, "runs"), 3);
    assert_eq!(store.horizon().unwrap(), Some(day(100)));
    assert_eq!(store.status().unwrap().removed, 1);
    // Older than before: what is kept since a later moment is not kept since an earlier one.
    store.prune(day(50)).unwrap();
    assert_eq!(store.horizon().unwrap(), Some(day(100)));
}

#[test]
fn nothing_is_pruned_before_a_day_of_it_has_come_together() {
    let mut store = a_year();
    let hours = SignedDuration::from_hours;
    assert!(!store.is_to_be_pruned(day(0) + hours(23)).unwrap());
    assert!(store.is_to_be_pruned(day(0) + hours(25)).unwrap());
    prune(&mut store, day(0) + hours(25));
    assert!(!store.is_to_be_pruned(day(0) + hours(25)).unwrap());
    let changes = store.db.total_changes();
    assert!(!store.is_to_be_pruned(day(2)).unwrap(), "day 1 left no event but a run");
    assert_eq!(store.db.total_changes(), changes, "a look costs no write");
}

#[test]
fn it_goes_in_small_transactions() {
    let mut store = store();
    let many: Vec<_> = (0..1200).map(|number| user(number, 0)).collect();
    run(&mut store, day(0), &many);
    run(&mut store, day(1), &[user(5000, 0)]);
    run(&mut store, day(2), &[user(5000, 0)]);
    // The whole workspace went: held, so approved.
    store.approve(day(2)).unwrap();
    run(&mut store, day(3), &[user(5000, 0)]);
    let first = store.prune(day(10)).unwrap();
    assert!(first.is_full() && first.events == 500, "{first:?}");
    assert_eq!(store.horizon().unwrap(), Some(day(10)), "from the first one on");
    prune(&mut store, day(10));
    assert_eq!((count(&store, "users"), count(&store, "events")), (1, 0));
}

#[test]
fn an_account_that_we_made_stays_known_and_one_of_nobody_does_not() {
    let mut store = a_year();
    let sql = "INSERT INTO accounts (email_key, account_id, origin, release) VALUES
        ('user3@example.com', 'a3', 'created', 'reported'),
        ('stranger@example.com', 'a9', 'found', NULL),
        ('user1@example.com', 'a1', 'found', NULL),
        ('asked@example.com', NULL, NULL, NULL)";
    store.db.execute(sql, []).unwrap();
    prune(&mut store, day(100));
    let sql = "SELECT group_concat(email_key) FROM (SELECT email_key FROM accounts ORDER BY email_key)";
    let left: String = store.db.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(left, "user1@example.com,user3@example.com");
}

#[test]
fn whoever_gets_a_number_again_is_new_in_the_poll_that_is_under_way() {
    let mut store = store();
    let sides = Sides {
        torq: "here".to_owned(),
        jumpcloud: "there".to_owned(),
    };
    store.reconcile_sides(day(0), &sides).unwrap();
    run(&mut store, day(0), &[user(1, 0), user(2, 0)]);
    run(&mut store, day(1), &[user(1, 0)]);
    run(&mut store, day(2), &[user(1, 0)]);
    let filter = UserFilter::default();
    store.begin_poll(day(30), &filter).unwrap();
    prune(&mut store, day(20));
    // This poll sees nobody who was known: somebody new has the number of the one who was pruned.
    store
        .apply_page(day(30), Listing::Sso, &page(&[user(7, 0)], None), &filter)
        .unwrap();
    store
        .apply_page(day(30), Listing::Local, &page(&[], None), &filter)
        .unwrap();
    store.finish_poll(day(30), &rules(MaxRemovals::Users(1000))).unwrap();
    run(&mut store, day(31), &[user(7, 0)]);
    let status = store.status().unwrap();
    assert_eq!((status.held, status.removed), (1, 0), "{status:?}");
}

#[test]
fn an_account_whose_user_took_another_address_is_known_for_as_long_as_that_can_be_asked_for() {
    let mut store = store();
    run(&mut store, day(0), &[user(1, 0), user(2, 0)]);
    let address = |number: i64| format!("renamed{number}@example.com");
    let renamed = |version, number| User {
        email: address(number),
        ..user(1, version)
    };
    let sql = "INSERT INTO accounts (email_key, account_id, origin) VALUES ('user1@example.com', 'a1', 'found')";
    store.db.execute(sql, []).unwrap();
    let had = |store: &Store, at| -> (Option<String>, Option<String>) {
        let past = store.users_at(at).unwrap();
        let user = past.users.into_iter().find(|user| user.id == "u1").unwrap();
        (user.email, user.account.and_then(|account| account.id))
    };
    let before = (Some("User1@example.com".to_owned()), Some("a1".to_owned()));
    assert_eq!(had(&store, day(10)), before);
    run(&mut store, day(50), &[renamed(1, 1), user(2, 0)]);
    run(&mut store, day(51), &[renamed(1, 1), user(2, 0)]);
    prune(&mut store, day(40));
    assert_eq!(had(&store, day(45)), before, "day 45 is within what is kept");
    assert_eq!(had(&store, day(51)), (Some(address(1)), None));
    // Who leaves and comes back under another address gave it up, too.
    store
        .db
        .execute("UPDATE accounts SET email_key = ?1, left_at = NULL", [address(1)])
        .unwrap();
    for number in 60..62 {
        run(&mut store, day(number), &[user(2, 0)]);
    }
    run(&mut store, day(70), &[renamed(2, 2), user(2, 0)]);
    prune(&mut store, day(55));
    assert_eq!(had(&store, day(58)), (Some(address(1)), Some("a1".to_owned())));
    prune(&mut store, day(71));
    assert_eq!(count(&store, "accounts"), 0, "nobody can ask any more");
}
