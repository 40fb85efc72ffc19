//! The guard: how many removals are believed, and what is held.

use super::*;

#[test]
fn nobody_is_removed_by_a_poll_with_a_record_that_has_no_readable_id() {
    let mut store = store();
    let users: Vec<_> = (0..20).map(|number| user(number, 0)).collect();
    poll(&mut store, &users, MaxRemovals::Users(5));
    let filter = UserFilter::default();
    for _ in 0..3 {
        let now = Timestamp::now();
        store.begin_poll(now, &filter).unwrap();
        let mut odd = page(&users[1..], None);
        odd.unreadable.push(crate::torq::Unreadable {
            id: None,
            reason: "record 1 of the page has no id".to_owned(),
        });
        store.apply_page(now, Listing::Sso, &odd, &filter).unwrap();
        store
            .apply_page(now, Listing::Local, &page(&[], None), &filter)
            .unwrap();
        store.finish_poll(now, &rules(MaxRemovals::Users(5))).unwrap();
    }
    assert_eq!(all(&store).len(), 20);
    let unreadable = kinds(&store)
        .into_iter()
        .filter(|kind| *kind == EventKind::RecordUnreadable);
    assert_eq!(unreadable.count(), 1, "named once a day, not at every poll");
}

#[test]
fn too_many_removals_are_held_until_approved_and_dropped_when_the_users_are_back() {
    let mut store = store();
    let users: Vec<_> = (0..20).map(|number| user(number, 0)).collect();
    let max = MaxRemovals::Users(5);
    poll(&mut store, &users, max);
    poll(&mut store, &users[6..], max);
    let end = poll(&mut store, &users[6..], max);
    assert_eq!((end.held, end.removed), (6, 0));
    assert!(end.guard.held);
    assert_eq!(store.status().unwrap().held, 6);
    assert_eq!(all(&store).len(), 20, "held users are users");
    let why = |store: &Store| store.about().unwrap().hold_reason.unwrap();
    let at_once = "6 at once are more than the 5 a day that are believed unasked";
    assert_eq!(why(&store), at_once);

    // One more would be believed, were it not for those.
    poll(&mut store, &users[7..], max);
    let end = poll(&mut store, &users[7..], max);
    assert_eq!((end.held, end.guard.held_already), (1, 6));
    assert_eq!(why(&store), format!("{at_once}; later ones wait with them"));
    poll(&mut store, &users[8..], max);
    poll(&mut store, &users[8..], max);
    assert_eq!(
        why(&store),
        format!("{at_once}; later ones wait with them"),
        "said once"
    );
    let held = EventQuery {
        kinds: vec![EventKind::RemovalHeld],
        ..EventQuery::default()
    };
    let reasons: Vec<_> = store
        .events(&held)
        .unwrap()
        .into_iter()
        .filter_map(|event| event.reason)
        .collect();
    assert_eq!(reasons[..6], [at_once; 6]);
    assert_eq!(
        reasons[6..],
        [
            "6 removals are held already: later ones wait with them",
            "7 removals are held already: later ones wait with them"
        ]
    );

    // Back: nothing is held any more.
    poll(&mut store, &users, max);
    assert_eq!(store.status().unwrap().held, 0);

    poll(&mut store, &users[6..], max);
    poll(&mut store, &users[6..], max);
    assert_eq!(store.approve(Timestamp::now()).unwrap(), 6);
    // One of the six is back in time: what was approved is not carried out against what is there.
    let end = poll(&mut store, &users[5..], max);
    assert_eq!(end.removed, 5);
    assert_eq!(all(&store).len(), 15);
}

#[test]
fn small_removals_one_after_another_do_not_slip_under_the_guard() {
    let mut store = store();
    let users: Vec<_> = (0..40).map(|number| user(number, 0)).collect();
    let max = MaxRemovals::Users(5);
    poll(&mut store, &users, max);
    let mut removed = 0;
    for gone in 1..=20 {
        poll(&mut store, &users[gone..], max);
        removed += poll(&mut store, &users[gone..], max).removed;
    }
    assert_eq!(removed, 5, "no more than five within a day");
}

#[test]
fn another_torq_side_removes_nobody_unasked_and_a_new_key_of_the_same_workspace_is_harmless() {
    let side = |torq: &str| Sides {
        torq: torq.to_owned(),
        jumpcloud: "j".to_owned(),
    };
    let now = Timestamp::now();
    let mut store = store();
    let users: Vec<_> = (0..20).map(|number| user(number, 0)).collect();
    let max = MaxRemovals::Users(5);
    assert!(store.reconcile_sides(now, &side("a")).unwrap().is_empty());
    poll(&mut store, &users, max);

    assert_eq!(
        store.reconcile_sides(now, &side("b")).unwrap().len(),
        1,
        "it is explained"
    );
    poll(&mut store, &users[2..], max);
    let end = poll(&mut store, &users[2..], max);
    assert_eq!(
        (end.removed, end.held),
        (0, 2),
        "two would be believed, were the side the same"
    );

    poll(&mut store, &users, max);
    poll(&mut store, &users[1..], max);
    assert_eq!(
        poll(&mut store, &users[1..], max).removed,
        1,
        "everybody was there once with the new key"
    );
}

#[test]
fn a_migration_of_addresses_step_by_step_does_not_slip_under_the_guard() {
    let now = Timestamp::now();
    let mut store = store();
    let mut users: Vec<_> = (0..20).map(|number| user(number, 0)).collect();
    let max = MaxRemovals::Users(5);
    poll(&mut store, &users, max);
    let first = EmailKey::fold("");
    for row in store.to_create(&first, 99).unwrap() {
        store.creating(now, &row.key, now).unwrap();
        store.created(now, &row, &account(&row.user_id, &row.email)).unwrap();
    }
    let mut deleted = 0;
    for step in 0..5 {
        for user in &mut users[step * 4..step * 4 + 4] {
            user.email = user.email.replace("example.com", "example.org");
        }
        poll(&mut store, &users, max);
        poll(&mut store, &users, max);
        for deletion in store.to_delete(&first, 99).unwrap() {
            store.deleted(now, &deletion).unwrap();
            deleted += 1;
        }
    }
    assert_eq!(deleted, 4, "five within a day, and the second step would make eight");
    assert_eq!(store.status().unwrap().held, 16);
}
