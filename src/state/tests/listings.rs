//! The two listings of a poll, read side by side: who is in both, and who moves from one to the other.

use super::*;

/// Reads a page of each listing, in this order, as complete polls do. Returns what changed.
fn poll_in(store: &mut Store, pages: [(Listing, &[User], Option<&str>); 3]) -> u64 {
    let filter = UserFilter::default();
    let now = Timestamp::now();
    store.begin_run(now).unwrap();
    store.begin_poll(now, &filter).unwrap();
    for (listing, users, next) in pages {
        store.apply_page(now, listing, &page(users, next), &filter).unwrap();
    }
    store.finish_poll(now, &rules(MaxRemovals::Users(5))).unwrap();
    store.end_run(now, RunOutcome::Done, None).unwrap().changed
}

/// The local listing comes first, whole; then two pages of the other one.
fn local_first(store: &mut Store, local: &[User], sso: [&[User]; 2]) -> u64 {
    poll_in(
        store,
        [
            (Listing::Local, local, None),
            (Listing::Sso, sso[0], Some("second")),
            (Listing::Sso, sso[1], None),
        ],
    )
}

fn provisioned(number: u32, version: u32) -> User {
    User {
        sso: true,
        ..user(number, version)
    }
}

/// Two people whom the identity provider provisions, known from a complete poll.
fn two_provisioned() -> (Store, [User; 2]) {
    let mut store = store();
    let known = [provisioned(0, 0), provisioned(1, 0)];
    local_first(&mut store, &[], [&known[..1], &known[1..]]);
    (store, known)
}

#[test]
fn whoever_is_in_both_listings_changes_nothing_whichever_is_read_first() {
    let (mut store, known) = two_provisioned();
    let double = user(1, 7);
    for _ in 0..4 {
        let changed = local_first(&mut store, std::slice::from_ref(&double), [&known[..1], &known[1..]]);
        assert_eq!(changed, 0);
        assert_eq!(all(&store)["u1"], "VERSION0");
    }
    let sso_first = [
        (Listing::Sso, &known[..1], Some("second")),
        (Listing::Sso, &known[1..], None),
        (Listing::Local, std::slice::from_ref(&double), None),
    ];
    assert_eq!(poll_in(&mut store, sso_first), 0);
    assert_eq!(store.status().unwrap().users, 2);
}

#[test]
fn whoever_moves_to_the_local_listing_is_known_as_they_are_there_with_the_same_poll() {
    let (mut store, known) = two_provisioned();
    let moved = user(1, 7);
    let is_sso = |store: &Store| {
        store
            .users()
            .unwrap()
            .into_iter()
            .find(|user| user.id == "u1")
            .unwrap()
            .sso
    };

    // The local listing was read before it could be known that they are not in the other one.
    assert_eq!(
        local_first(&mut store, std::slice::from_ref(&moved), [&known[..1], &[]]),
        1
    );
    assert!(!is_sso(&store));
    assert_eq!(all(&store)["u1"], "VERSION7");
    assert_eq!(
        local_first(&mut store, std::slice::from_ref(&moved), [&known[..1], &[]]),
        0
    );

    // And back.
    assert_eq!(local_first(&mut store, &[], [&known[..1], &known[1..]]), 1);
    assert!(is_sso(&store));
    // Where the other listing was read first, nothing is left to be waited for.
    let sso_first = [
        (Listing::Sso, &known[..1], Some("second")),
        (Listing::Sso, &[], None),
        (Listing::Local, std::slice::from_ref(&moved), None),
    ];
    assert_eq!(poll_in(&mut store, sso_first), 1);
    assert_eq!(all(&store)["u1"], "VERSION7");
    assert!(!is_sso(&store));
    assert_eq!(store.status().unwrap().removed, 0);
}

#[test]
fn whoever_left_as_provisioned_and_is_back_as_local_is_back_at_once() {
    let (mut store, known) = two_provisioned();
    for _ in 0..2 {
        local_first(&mut store, &[], [&known[..1], &[]]);
    }
    assert_eq!(store.status().unwrap().users, 1);
    local_first(&mut store, &[user(1, 7)], [&known[..1], &[]]);
    assert_eq!(all(&store)["u1"], "VERSION7");
    local_first(&mut store, &[user(1, 7)], [&known[..1], &[]]);
    assert_eq!((store.status().unwrap().users, store.status().unwrap().removed), (2, 0));
}

#[test]
fn a_record_that_waits_for_the_other_listing_outlives_the_process_and_not_the_poll() {
    let (mut store, known) = two_provisioned();
    let filter = UserFilter::default();
    let now = Timestamp::now();
    store.begin_poll(now, &filter).unwrap();
    let local = |version| page(&[user(1, version)], None);
    store.apply_page(now, Listing::Local, &local(7), &filter).unwrap();
    assert_eq!(all(&store)["u1"], "VERSION0");
    // As another process goes on with it.
    store.begin_poll(now, &filter).unwrap();
    store
        .apply_page(now, Listing::Sso, &page(&known[..1], None), &filter)
        .unwrap();
    store.finish_poll(now, &rules(MaxRemovals::Users(5))).unwrap();
    assert_eq!(all(&store)["u1"], "VERSION7");

    local_first(&mut store, &[], [&known[..1], &known[1..]]);
    store.begin_poll(now, &filter).unwrap();
    store.apply_page(now, Listing::Local, &local(8), &filter).unwrap();
    let kept = |store: &Store| -> u64 {
        store
            .db
            .query_row("SELECT count(*) FROM poll_later", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(kept(&store), 1);
    store.abandon_poll().unwrap();
    assert_eq!(kept(&store), 0);
}

#[test]
fn a_poll_that_is_resumed_knows_that_the_other_listing_was_read() {
    let (mut store, known) = two_provisioned();
    let filter = UserFilter::default();
    let now = Timestamp::now();
    store.begin_poll(now, &filter).unwrap();
    store
        .apply_page(now, Listing::Sso, &page(&known[..1], None), &filter)
        .unwrap();
    // As another process goes on with it.
    store.begin_poll(now, &filter).unwrap();
    store
        .apply_page(now, Listing::Local, &page(&[user(1, 7)], None), &filter)
        .unwrap();
    store.finish_poll(now, &rules(MaxRemovals::Users(5))).unwrap();
    assert_eq!(all(&store)["u1"], "VERSION7");
}
