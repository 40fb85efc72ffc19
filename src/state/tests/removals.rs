//! Removals, one story at a time: the ones that a model found, and the ones that an operator asks about.

use super::*;
use crate::model::{ApplicationId, EmailKey};

const MAX: MaxRemovals = MaxRemovals::Users(5);

fn people(numbers: std::ops::Range<u32>) -> Vec<User> {
    numbers.map(|number| user(number, 0)).collect()
}

fn sides(torq: &str, jumpcloud: &str) -> Sides {
    Sides {
        torq: torq.to_owned(),
        jumpcloud: jumpcloud.to_owned(),
    }
}

/// Makes the accounts that are missing, and says which.
fn deliver(store: &mut Store) -> Vec<String> {
    let now = Timestamp::now();
    let rows = store.to_create(&EmailKey::fold(""), 999).unwrap();
    for row in &rows {
        store.creating(now, &row.key, now).unwrap();
        let made = account(&format!("for {}", row.key), &row.email);
        store.created(now, row, &made).unwrap();
    }
    rows.into_iter().map(|row| row.key.to_string()).collect()
}

fn due(store: &Store) -> Vec<String> {
    let rows = store.to_delete(&EmailKey::fold(""), 999).unwrap();
    rows.into_iter().map(|row| row.key.to_string()).collect()
}

#[test]
fn an_e_mail_that_somebody_had_a_poll_ago_is_not_released_with_its_last_user() {
    let mut store = store();
    let mut users = people(0..10);
    // Two people share a mailbox.
    users[1].email = users[0].email.to_uppercase();
    poll(&mut store, &users, MAX);
    deliver(&mut store);
    // The first leaves; the second still has the e-mail in the first poll without them, and another one in the second.
    poll(&mut store, &users[1..], MAX);
    users[1].email = "elsewhere@example.com".to_owned();
    assert_eq!(poll(&mut store, &users[1..], MAX).removed, 1);
    assert!(
        due(&store).is_empty(),
        "one complete poll without the e-mail is an accident"
    );
    poll(&mut store, &users[1..], MAX);
    assert_eq!(due(&store), ["user0@example.com"]);
}

#[test]
fn an_e_mail_whose_second_user_changes_it_later_has_its_two_polls_all_the_same() {
    let mut store = store();
    let mut users = people(0..10);
    users[1].email = users[0].email.clone();
    poll(&mut store, &users, MAX);
    deliver(&mut store);
    poll(&mut store, &users[1..], MAX);
    assert_eq!(poll(&mut store, &users[1..], MAX).removed, 1);
    users[1].email = "elsewhere@example.com".to_owned();
    poll(&mut store, &users[1..], MAX);
    assert!(
        due(&store).is_empty(),
        "one complete poll without the e-mail is an accident"
    );
    poll(&mut store, &users[1..], MAX);
    assert_eq!(due(&store), ["user0@example.com"]);
}

#[test]
fn people_who_come_and_go_use_up_what_is_believed_in_a_day() {
    let mut store = store();
    let users = people(0..40);
    poll(&mut store, &users, MAX);
    let mut removed = 0;
    // A listing that shows a part of the workspace, then the whole of it, then the part again.
    for _ in 0..4 {
        poll(&mut store, &users[4..], MAX);
        removed += poll(&mut store, &users[4..], MAX).removed;
        poll(&mut store, &users, MAX);
    }
    assert_eq!(removed, 4, "five within a day, and the second time would make eight");
}

#[test]
fn people_who_come_and_go_for_weeks_leave_nothing_behind_but_their_events() {
    let mut store = store();
    let users = people(0..40);
    let mut now = Timestamp::now();
    let at = |store: &mut Store, users: &[User], now| poll_at(store, now, &page(users, None), MAX);
    at(&mut store, &users, now);
    for _ in 0..30 {
        for _ in 0..2 {
            at(&mut store, &users[4..], now);
        }
        at(&mut store, &users, now);
        now += jiff::SignedDuration::from_hours(25);
    }
    at(&mut store, &users, now);
    let releases: u64 = store
        .db
        .query_row("SELECT count(*) FROM releases", [], |row| row.get(0))
        .unwrap();
    assert_eq!(releases, 0);
    let gone = kinds(&store)
        .into_iter()
        .filter(|kind| *kind == EventKind::UserDisappeared);
    assert_eq!(gone.count(), 30 * 4);
}

#[test]
fn a_poll_that_began_under_another_key_does_not_end_the_doubt() {
    let now = Timestamp::now();
    let filter = UserFilter::default();
    let mut store = store();
    store.reconcile_sides(now, &sides("a", "j")).unwrap();
    let users = people(0..10);
    poll(&mut store, &users, MaxRemovals::Users(100));
    // One listing is read with the old key, the other one with a key that sees nobody of them.
    store.begin_poll(now, &filter).unwrap();
    store
        .apply_page(now, Listing::Sso, &page(&users, None), &filter)
        .unwrap();
    store.reconcile_sides(now, &sides("b", "j")).unwrap();
    store.begin_poll(now, &filter).unwrap();
    store
        .apply_page(now, Listing::Local, &page(&[], None), &filter)
        .unwrap();
    let end = store.finish_poll(now, &rules(MaxRemovals::Users(100))).unwrap();
    assert_eq!(end.missing, 0, "half of the poll is the old workspace's");
    let others = [users[0].clone(), user(90, 0)];
    poll(&mut store, &others, MaxRemovals::Users(100));
    let end = poll(&mut store, &others, MaxRemovals::Users(100));
    assert_eq!((end.removed, end.held), (0, 9));
}

#[test]
fn approving_older_removals_does_not_approve_what_another_key_does_not_see() {
    for early in [true, false] {
        let now = Timestamp::now();
        let mut store = store();
        store.reconcile_sides(now, &sides("a", "j")).unwrap();
        let users = people(0..30);
        poll(&mut store, &users, MAX);
        poll(&mut store, &users[8..], MAX);
        assert_eq!(poll(&mut store, &users[8..], MAX).held, 8);
        store.reconcile_sides(now, &sides("b", "j")).unwrap();
        // The other key sees three people less, whom nobody was shown yet.
        if early {
            assert_eq!(store.approve(now).unwrap(), 8);
            poll(&mut store, &users[11..], MAX);
        } else {
            poll(&mut store, &users[11..], MAX);
            assert_eq!(store.approve(now).unwrap(), 8);
        }
        poll(&mut store, &users[11..], MAX);
        poll(&mut store, &users[11..], MAX);
        let status = store.status().unwrap();
        assert_eq!((status.removed, status.held), (8, 3), "early: {early}");
        assert_eq!(store.approve(now).unwrap(), 3);
        poll(&mut store, &users[11..], MAX);
        assert_eq!(store.status().unwrap().removed, 11);
        // All that the key does not see was shown: from now on it is a workspace like any other.
        poll(&mut store, &users[12..], MAX);
        assert_eq!(poll(&mut store, &users[12..], MAX).removed, 1);
    }
}

#[test]
fn a_workspace_of_strangers_is_held_however_small_and_whatever_is_believed() {
    let mut store = store();
    let users = people(0..4);
    let max = MaxRemovals::Users(1000);
    poll(&mut store, &users, max);
    let strangers = people(10..13);
    for _ in 0..3 {
        poll(&mut store, &strangers, max);
    }
    let status = store.status().unwrap();
    assert_eq!((status.users, status.held, status.removed), (7, 4, 0));
    // One of them is back: it is the same workspace after all, and people come and go there as ever.
    let mut back = strangers.clone();
    back.push(users[0].clone());
    poll(&mut store, &back, max);
    poll(&mut store, &back[1..], max);
    assert_eq!(poll(&mut store, &back[1..], max).removed, 1);
    assert_eq!(store.approve(Timestamp::now()).unwrap(), 3);
    assert_eq!(poll(&mut store, &back[1..], max).removed, 3);
}

#[test]
fn an_empty_workspace_is_held_by_a_rule_of_its_own() {
    let max = MaxRemovals::Users(1000);
    let mut store = store();
    let users = people(0..4);
    poll(&mut store, &users, max);
    // Everybody is missing for one poll, and nothing is in doubt: as a version that knew nothing of strangers left a state behind.
    store.db.execute_batch("UPDATE users SET absent_polls = 1").unwrap();
    let end = poll(&mut store, &[], max);
    assert_eq!((end.removed, end.held), (0, 4));
    let events = store.events(&EventQuery::default()).unwrap();
    let held = events.iter().filter(|event| event.kind == EventKind::RemovalHeld);
    let reasons: Vec<_> = held.filter_map(|event| event.reason.as_deref()).collect();
    assert_eq!(reasons, ["the whole workspace came back empty"; 4]);
}

#[test]
fn somebody_who_is_held_for_months_costs_no_write() {
    let mut store = store();
    let users = people(0..20);
    poll(&mut store, &users, MAX);
    for _ in 0..3 {
        poll(&mut store, &users[6..], MAX);
    }
    assert_eq!(store.status().unwrap().held, 6);
    let version = store.version();
    poll(&mut store, &users[6..], MAX);
    assert_eq!(store.version(), version, "nothing about users or accounts was written");
}

#[test]
fn an_intent_does_not_follow_to_another_application() {
    let now = Timestamp::now();
    let mut store = store();
    store
        .note_application(now, &ApplicationId::new("one"), Origin::Found)
        .unwrap();
    poll(&mut store, &people(0..3), MAX);
    let first = EmailKey::fold(&user(0, 0).email);
    store.creating(now, &first, now).unwrap();
    // The application is deleted, or it is another organisation's: what was sent to the old one cannot have made what is here.
    store
        .note_application(now, &ApplicationId::new("two"), Origin::Found)
        .unwrap();
    store.adopt(now, &[account("theirs", first.as_str())]).unwrap();
    store.finish_adoption(now).unwrap();
    assert_eq!(store.users().unwrap()[0].account, AccountStanding::Found);
}

#[test]
fn what_we_made_in_an_organisation_is_ours_when_the_configuration_names_it_again() {
    let now = Timestamp::now();
    let mut store = store();
    store.reconcile_sides(now, &sides("t", "right")).unwrap();
    store
        .note_application(now, &ApplicationId::new("one"), Origin::Found)
        .unwrap();
    let users = people(0..4);
    poll(&mut store, &users, MAX);
    store.adopt(now, &[account("theirs", &users[3].email)]).unwrap();
    assert_eq!(deliver(&mut store).len(), 3);
    let list: Vec<Account> = users[..3]
        .iter()
        .map(|user| account(&format!("for {}", user.email.to_lowercase()), &user.email))
        .chain([account("theirs", &users[3].email)])
        .collect();

    // A slip of the pen, and back.
    store.reconcile_sides(now, &sides("t", "wrong")).unwrap();
    assert_eq!(store.status().unwrap().pending, 4);
    store.reconcile_sides(now, &sides("t", "right")).unwrap();
    store
        .note_application(now, &ApplicationId::new("one"), Origin::Found)
        .unwrap();
    store.adopt(now, &list).unwrap();
    store.finish_adoption(now).unwrap();
    let standings: Vec<_> = store.users().unwrap().into_iter().map(|user| user.account).collect();
    use AccountStanding::{Created, Found};
    assert_eq!(standings, [Created, Created, Created, Found]);

    // The same id in another application is not what we made.
    store.reconcile_sides(now, &sides("t", "wrong")).unwrap();
    store
        .note_application(now, &ApplicationId::new("two"), Origin::Found)
        .unwrap();
    store.adopt(now, &list[..1]).unwrap();
    assert_eq!(store.users().unwrap()[0].account, Found);
}

#[test]
fn a_change_of_filter_is_told_with_what_it_affects() {
    let mut store = store();
    poll(&mut store, &people(0..5), MAX);
    let filter = |patterns: &[&str]| UserFilter {
        exclude_emails: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..UserFilter::default()
    };
    let now = Timestamp::now();
    store.begin_poll(now, &filter(&["user1@*", "user2@*"])).unwrap();
    store.begin_poll(now, &filter(&["user2@*"])).unwrap();
    store.begin_poll(now, &filter(&["user2@*"])).unwrap();
    let events = store.events(&EventQuery::default()).unwrap();
    let told: Vec<_> = events
        .into_iter()
        .filter(|event| event.kind == EventKind::StateChanged)
        .filter_map(|event| event.reason)
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("2 users") && told[0].contains("left out"), "{told:?}");
    assert!(
        told[1].contains("1 user") && told[1].contains("delivered again"),
        "{told:?}"
    );
}

#[test]
fn an_approval_that_is_cut_short_approves_nobody_and_a_repeated_one_nobody_twice() {
    let now = Timestamp::now();
    let mut store = store();
    let users = people(0..20);
    poll(&mut store, &users, MAX);
    for _ in 0..2 {
        poll(&mut store, &users[8..], MAX);
    }
    store
        .db
        .execute_batch(
            "CREATE TEMP TRIGGER refusal BEFORE INSERT ON events WHEN new.user_id = 'u5' BEGIN SELECT raise(ABORT, 'no'); END",
        )
        .unwrap();
    store.approve(now).unwrap_err();
    assert_eq!(store.status().unwrap().held, 8);
    assert!(!kinds(&store).contains(&EventKind::RemovalApproved));
    store.db.execute_batch("DROP TRIGGER refusal").unwrap();
    assert_eq!((store.approve(now).unwrap(), store.approve(now).unwrap()), (8, 0));
    assert_eq!(poll(&mut store, &users[8..], MAX).removed, 8);
    assert_eq!(store.approve(now).unwrap(), 0);
}

#[test]
fn an_approval_that_is_withdrawn_leaves_every_other_trouble_and_every_doubt_as_it_was() {
    let now = Timestamp::now();
    let mut store = store();
    store.reconcile_sides(now, &sides("a", "j")).unwrap();
    let users = people(0..30);
    poll(&mut store, &users, MAX);
    store.reconcile_sides(now, &sides("b", "j")).unwrap();
    for _ in 0..3 {
        poll(&mut store, &users[2..], MAX);
    }
    assert_eq!(store.status().unwrap().held, 2, "another key, so two are not believed");
    store
        .note_state(
            now,
            ConnectorState::ReconnectRequired,
            Some("Torq: no"),
            Some("reconnect"),
        )
        .unwrap();
    assert_eq!(store.approve(now).unwrap(), 2);
    assert_eq!(store.withdraw_approval(now).unwrap().held, 2);
    assert_eq!(store.withdraw_approval(now).unwrap().held, 0);
    let status = store.status().unwrap();
    assert_eq!((status.held, status.state), (2, ConnectorState::ReconnectRequired));
    // One more would be believed of a workspace that nobody doubts.
    for _ in 0..3 {
        poll(&mut store, &users[3..], MAX);
    }
    assert_eq!((store.status().unwrap().held, store.status().unwrap().removed), (3, 0));
    // Everybody is back: there is nothing left to doubt.
    for _ in 0..2 {
        poll(&mut store, &users, MAX);
    }
    for _ in 0..2 {
        poll(&mut store, &users[1..], MAX);
    }
    assert_eq!(store.status().unwrap().removed, 1);
}

#[test]
fn an_approval_that_is_withdrawn_is_the_reason_of_nobody_else() {
    let now = Timestamp::now();
    let mut store = store();
    let users = people(0..30);
    poll(&mut store, &users, MAX);
    for _ in 0..2 {
        poll(&mut store, &users[8..], MAX);
    }
    assert_eq!(store.approve(now).unwrap(), 8);
    assert_eq!(store.withdraw_approval(now).unwrap().held, 8);
    // One more leaves, of whom nobody ever approved anything.
    for _ in 0..2 {
        poll(&mut store, &users[9..], MAX);
    }
    assert_eq!(store.status().unwrap().held, 9);
    let held = store
        .events(&EventQuery {
            kinds: vec![EventKind::RemovalHeld],
            user: Some(users[8].id.as_str().to_owned()),
            ..EventQuery::default()
        })
        .unwrap();
    let reasons: Vec<_> = held.into_iter().filter_map(|event| event.reason).collect();
    assert_eq!(reasons, ["8 removals are held already: later ones wait with them"]);
    // The eight are back, and then the ninth is one who may well have left.
    for _ in 0..2 {
        let there: Vec<_> = users.iter().filter(|user| user.id != users[8].id).cloned().collect();
        poll(&mut store, &there, MAX);
    }
    assert_eq!(store.status().unwrap().held, 1);
    assert_eq!(store.approve(now).unwrap(), 1);
}
