//! Polls over a state file, without the network: what is noted when, and what is asked again.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use torq_connector::config::{MaxRemovals, Removals, UserFilter};
use torq_connector::model::{ConnectorName, EmailKey, Listing};
use torq_connector::state::{Cursor, PollEnd, RemovalRules, State, Store};
use torq_connector::torq::{PageToken, User, UsersPage};

fn open(dir: &Path) -> State {
    State::open(dir, &ConnectorName::parse("main").unwrap()).unwrap()
}

fn user(no: usize) -> User {
    User {
        id: format!("id-{no}"),
        email: format!("user{no}@acme.example"),
        status: "VERIFIED".to_owned(),
        ..User::default()
    }
}

/// Page `no` of three users, with a next one.
fn page(no: usize) -> UsersPage {
    UsersPage {
        users: (no * 3..no * 3 + 3).map(user).collect(),
        next: PageToken::new(format!("after-{no}")),
        ..UsersPage::default()
    }
}

fn last(users: Vec<User>) -> UsersPage {
    UsersPage {
        users,
        ..UsersPage::default()
    }
}

fn begin(store: &mut Store) -> [Cursor; 2] {
    store.begin_poll(Timestamp::now(), &UserFilter::default()).unwrap().0
}

fn apply(store: &mut Store, listing: Listing, page: &UsersPage) {
    store
        .apply_page(Timestamp::now(), listing, page, &UserFilter::default())
        .unwrap();
}

fn finish(store: &mut Store) -> PollEnd {
    let rules = RemovalRules {
        removals: Removals::Report,
        max: MaxRemovals::Percent(10.0),
    };
    store.finish_poll(Timestamp::now(), &rules).unwrap()
}

/// A whole poll that sees ten pages and, in the other listing, `others`.
fn poll(store: &mut Store, others: Vec<User>) -> PollEnd {
    begin(store);
    (0..10).for_each(|no| apply(store, Listing::Sso, &page(no)));
    apply(store, Listing::Sso, &last(Vec::new()));
    apply(store, Listing::Local, &last(others));
    finish(store)
}

async fn with<R: Send + 'static>(state: &State, act: impl FnOnce(&mut Store) -> R + Send + 'static) -> R {
    state.call(|store| Ok(act(store))).await.unwrap()
}

#[tokio::test]
async fn a_poll_over_unchanged_users_that_is_interrupted_goes_on_with_the_very_next_page() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    with(&state, |store| {
        poll(store, vec![user(100)]);
        begin(store);
        (0..7).for_each(|no| apply(store, Listing::Sso, &page(no)));
    })
    .await;
    drop(state);
    let state = open(dir.path());
    with(&state, |store| {
        let [sso, _] = begin(store);
        assert_eq!((sso.pages, sso.next), (7, PageToken::new("after-6".to_owned())));
        (7..10).for_each(|no| apply(store, Listing::Sso, &page(no)));
        apply(store, Listing::Sso, &last(Vec::new()));
        apply(store, Listing::Local, &last(vec![user(100)]));
        assert_eq!(
            finish(store).missing,
            0,
            "whom the pages before the interruption showed was seen"
        );
    })
    .await;
}

#[tokio::test]
async fn a_poll_over_unchanged_users_that_is_killed_reads_no_page_again_and_misses_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    with(&state, |store| {
        begin(store);
        (0..50).for_each(|no| apply(store, Listing::Sso, &page(no)));
        apply(store, Listing::Sso, &last(Vec::new()));
        apply(store, Listing::Local, &last(Vec::new()));
        finish(store);
        begin(store);
        (0..45).for_each(|no| apply(store, Listing::Sso, &page(no)));
    })
    .await;
    drop(state);
    let state = open(dir.path());
    with(&state, |store| {
        let [sso, _] = begin(store);
        assert_eq!(sso.pages, 45);
        assert_eq!(sso.next, PageToken::new(format!("after-{}", sso.pages - 1)));
        (sso.pages as usize..50).for_each(|no| apply(store, Listing::Sso, &page(no)));
        apply(store, Listing::Sso, &last(Vec::new()));
        apply(store, Listing::Local, &last(Vec::new()));
        assert_eq!(finish(store).missing, 0);
    })
    .await;
}

#[tokio::test]
async fn what_was_settled_is_asked_again_when_anybody_comes_goes_or_changes_their_address() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let first = Arc::new(EmailKey::fold(""));
    let pending = |store: &mut Store| store.to_create(&EmailKey::fold(""), 1000).unwrap();
    with(&state, move |store| {
        poll(store, vec![user(100)]);
        for creation in pending(store) {
            store.create_refused(Timestamp::now(), &creation.key, "no").ok();
            store
                .creating(Timestamp::now(), &creation.key, Timestamp::now())
                .unwrap();
            store.create_refused(Timestamp::now(), &creation.key, "no").unwrap();
        }
        assert!(pending(store).is_empty());
        assert_eq!(store.status().unwrap().users, 31);

        poll(store, vec![user(100)]);
        assert!(pending(store).is_empty(), "nothing changed");

        let login = User {
            last_login: Some("2026-01-01T00:00:00Z".to_owned()),
            ..user(100)
        };
        poll(store, vec![login]);
        assert!(pending(store).is_empty(), "a login is no work");

        let moved = User {
            email: "new@acme.example".to_owned(),
            ..user(100)
        };
        poll(store, vec![moved.clone()]);
        assert_eq!(pending(store).len(), 1, "a changed address is a new account");
        assert!(
            store
                .to_match(&first, 10)
                .unwrap()
                .contains(&EmailKey::fold("new@acme.example"))
        );

        poll(store, vec![moved, user(200)]);
        assert_eq!(pending(store).len(), 2, "a new user");
        assert_eq!(store.status().unwrap().users, 32);
        // Absent once, absent twice.
        poll(store, Vec::new());
        assert_eq!(poll(store, Vec::new()).removed, 2);
        assert_eq!(store.status().unwrap().users, 30);
        assert!(pending(store).is_empty());
    })
    .await;
}
