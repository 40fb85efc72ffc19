//! The state against a model: arbitrary polls, cut short anywhere.

mod files;
mod guard;
mod laws;
mod listings;
mod past;
mod removals;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::{MaxRemovals, Removals, UserFilter};
use crate::jumpcloud::Account;
use crate::model::{AccountId, ApplicationId, EmailKey, Listing};
use crate::torq::{PageToken, User, UsersPage};
use crate::view::{AccountStanding, ConnectorState, EventKind, RunOutcome};

fn name() -> ConnectorName {
    ConnectorName::parse("main").unwrap()
}

/// A store in memory.
pub(crate) fn store() -> Store {
    let nowhere = Path::new("/nonexistent");
    let state = State::scratch(nowhere, &name()).unwrap();
    let shared = Arc::into_inner(state.shared).unwrap();
    let mut store = shared.store.into_inner().unwrap();
    // Here days pass in no time.
    store.day = day::Day::by(|now| std::time::Duration::from_secs(now.as_second().unsigned_abs()));
    store
}

pub(super) fn user(number: u32, version: u32) -> User {
    User {
        id: format!("u{number}"),
        email: format!("User{number}@example.com"),
        status: format!("VERSION{version}"),
        ..User::default()
    }
}

pub(super) fn page(users: &[User], next: Option<&str>) -> UsersPage {
    UsersPage {
        users: users.to_vec(),
        unreadable: Vec::new(),
        next: next.and_then(|token| PageToken::new(token.to_owned())),
    }
}

pub(super) fn rules(max: MaxRemovals) -> RemovalRules {
    RemovalRules {
        removals: Removals::Delete,
        max,
    }
}

fn all(store: &Store) -> BTreeMap<String, String> {
    let users = store.users().unwrap();
    users.into_iter().map(|user| (user.id, user.status)).collect()
}

fn kinds(store: &Store) -> Vec<EventKind> {
    let events = store.events(&EventQuery::default()).unwrap();
    events.into_iter().map(|event| event.kind).collect()
}

/// A whole poll with everybody on one page of the SSO listing.
fn poll(store: &mut Store, users: &[User], max: MaxRemovals) -> PollEnd {
    poll_at(store, Timestamp::now(), &page(users, None), max)
}

/// The same at this time, of this page.
pub(super) fn poll_at(store: &mut Store, now: Timestamp, page: &UsersPage, max: MaxRemovals) -> PollEnd {
    let filter = UserFilter::default();
    store.begin_poll(now, &filter).unwrap();
    store.apply_page(now, Listing::Sso, page, &filter).unwrap();
    store
        .apply_page(now, Listing::Local, &UsersPage::default(), &filter)
        .unwrap();
    store.finish_poll(now, &rules(max)).unwrap()
}

fn account(id: &str, email: &str) -> Account {
    Account {
        id: AccountId::new(id),
        email: Some(email.to_owned()),
        username: None,
        user_id: None,
    }
}

/// One poll of an arbitrary history: who answers in which listing, with which version, how the pages are cut, and after how
/// many pages the process dies.
#[derive(Clone, Debug)]
struct ArbitraryPoll {
    present: BTreeMap<u32, u32>,
    in_both: BTreeSet<u32>,
    page_size: usize,
    dies_after: Option<usize>,
}

fn arbitrary_poll() -> impl Strategy<Value = ArbitraryPoll> {
    (
        proptest::collection::btree_map(0_u32..30, 0_u32..3, 0..30),
        proptest::collection::btree_set(0_u32..30, 0..5),
        1_usize..8,
        proptest::option::of(0_usize..8),
    )
        .prop_map(|(present, in_both, page_size, dies_after)| ArbitraryPoll {
            present,
            in_both,
            page_size,
            dies_after,
        })
}

/// Sends one poll's pages, dying and resuming where it says so. Returns how many pages were applied more than once.
fn play(store: &mut Store, poll: &ArbitraryPoll) -> PollEnd {
    let now = Timestamp::now();
    let filter = UserFilter::default();
    let listing_of = |number: u32| {
        if number.is_multiple_of(2) {
            Listing::Sso
        } else {
            Listing::Local
        }
    };
    let mut pages: Vec<(Listing, UsersPage)> = Vec::new();
    for listing in Listing::BOTH {
        let users: Vec<User> = poll
            .present
            .iter()
            .filter(|(number, _)| listing_of(**number) == listing || poll.in_both.contains(number))
            .map(|(number, version)| user(*number, *version))
            .collect();
        let chunks: Vec<&[User]> = users.chunks(poll.page_size).collect();
        for (index, chunk) in chunks.iter().enumerate() {
            let token = format!("{listing}{index}");
            let next = (index + 1 < chunks.len()).then_some(token.as_str());
            pages.push((listing, page(chunk, next)));
        }
        if chunks.is_empty() {
            pages.push((listing, page(&[], None)));
        }
    }
    store.begin_poll(now, &filter).unwrap();
    for (index, (listing, page)) in pages.iter().enumerate() {
        if poll.dies_after == Some(index) {
            // A new process has the file and no memory; its cursors say where to go on.
            store.poll = None;
            let (cursors, _) = store.begin_poll(now, &filter).unwrap();
            let done = pages[..index].iter().filter(|(done, _)| done == listing).count();
            let cursor = &cursors[Listing::BOTH.iter().position(|known| known == listing).unwrap()];
            assert_eq!(
                cursor.pages as usize, done,
                "pages before the kill are not asked for again"
            );
        }
        store.apply_page(now, *listing, page, &filter).unwrap();
    }
    store.finish_poll(now, &rules(MaxRemovals::Users(1000))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// After each poll the snapshot is what the model says: whoever answered is there as they answered; whoever did not is
    /// removed after the second complete poll without them, and not before; an emptied workspace removes nobody, nor does one of
    /// strangers.
    #[test]
    fn arbitrary_polls_agree_with_the_model(history in proptest::collection::vec(arbitrary_poll(), 1..8)) {
        let mut store = store();
        let mut model: BTreeMap<String, (String, u32)> = BTreeMap::new();
        let mut held: BTreeSet<String> = BTreeSet::new();
        let mut ever: BTreeSet<String> = BTreeSet::new();
        let mut strangers = false;
        for poll in &history {
            play(&mut store, poll);
            let answered: BTreeMap<String, String> = poll
                .present
                .iter()
                .map(|(number, version)| (user(*number, 0).id, user(*number, *version).status))
                .collect();
            // A poll that sees nobody who was known raises a doubt, until somebody who is missing is back, or nobody is missing.
            if answered.keys().any(|id| model.get(id).is_some_and(|(_, absent)| *absent > 0)) {
                strangers = false;
            }
            let newly = model.iter().any(|(id, (_, absent))| *absent == 0 && !answered.contains_key(id));
            strangers |= newly && !answered.keys().any(|id| ever.contains(id));
            ever.extend(answered.keys().cloned());
            for (id, status) in &answered {
                model.insert(id.clone(), (status.clone(), 0));
                held.remove(id);
            }
            let empty = answered.is_empty();
            for (id, (_, absent)) in model.iter_mut() {
                if !answered.contains_key(id) {
                    *absent += 1;
                    if *absent >= 2 && (empty || strangers) {
                        held.insert(id.clone());
                    }
                }
            }
            model.retain(|id, (_, absent)| *absent < 2 || held.contains(id));
            strangers &= model.values().any(|(_, absent)| *absent > 0);
            let expected: BTreeMap<_, _> = model.iter().map(|(id, (status, _))| (id.clone(), status.clone())).collect();
            prop_assert_eq!(all(&store), expected);
            let status = store.status().unwrap();
            prop_assert_eq!(status.held, held.len() as u64);
            prop_assert_eq!(status.users, model.len() as u64);
        }
    }
}

#[test]
fn an_unchanged_user_costs_no_write() {
    let mut store = store();
    let users: Vec<_> = (0..500).map(|number| user(number, 0)).collect();
    poll(&mut store, &users, MaxRemovals::Users(5));
    let events = kinds(&store).len();
    let before = store.db.total_changes();
    poll(&mut store, &users, MaxRemovals::Users(5));
    // The poll itself: begun, two pages with their cursors, ended. Nothing that grows with the users.
    let writes = store.db.total_changes() - before;
    assert!(writes < 20, "{writes} rows written for 500 unchanged users");
    assert_eq!(kinds(&store).len(), events);
}

#[test]
fn a_page_is_kept_with_its_cursor_or_not_at_all() {
    let filter = UserFilter::default();
    let now = Timestamp::now();
    // Whichever statement of a page fails, the ones before it are undone, also when the cursor came first.
    for refused in [
        "INSERT ON poll_pages",
        "INSERT ON users WHEN new.id = 'u2'",
        "INSERT ON events WHEN new.user_id = 'u2'",
        "UPDATE ON poll",
    ] {
        let mut store = store();
        poll(&mut store, &[user(0, 0)], MaxRemovals::Users(5));
        let (users, events) = (all(&store), kinds(&store));
        store.begin_poll(now, &filter).unwrap();
        store
            .apply_page(now, Listing::Sso, &page(&[user(0, 0)], Some("second")), &filter)
            .unwrap();
        let (cursors, _) = store.begin_poll(now, &filter).unwrap();
        let trigger = format!("CREATE TEMP TRIGGER refusal BEFORE {refused} BEGIN SELECT raise(ABORT, 'no'); END");
        store.db.execute_batch(&trigger).unwrap();
        let mut second = page(&[user(0, 1), user(1, 0), user(2, 0)], Some("third"));
        second.unreadable.push(crate::torq::Unreadable {
            id: None,
            reason: "record 4 of the page has no id".to_owned(),
        });
        store.apply_page(now, Listing::Sso, &second, &filter).unwrap_err();
        assert_eq!((all(&store), kinds(&store)), (users, events), "{refused}");
        assert_eq!(store.begin_poll(now, &filter).unwrap().0, cursors, "{refused}");

        // The page comes again, and counts once.
        store.db.execute_batch("DROP TRIGGER refusal").unwrap();
        let applied = store.apply_page(now, Listing::Sso, &second, &filter).unwrap();
        assert_eq!(
            (applied.appeared, applied.changed, applied.seen),
            (2, 1, 3),
            "{refused}"
        );
        let ([sso, _], _) = store.begin_poll(now, &filter).unwrap();
        assert_eq!(
            (sso.pages, sso.next),
            (2, PageToken::new("third".to_owned())),
            "{refused}"
        );
    }
}

#[test]
fn another_jumpcloud_side_forgets_what_was_known_there() {
    let side = |jumpcloud: &str| Sides {
        torq: "t".to_owned(),
        jumpcloud: jumpcloud.to_owned(),
    };
    let now = Timestamp::now();
    let mut store = store();
    store.reconcile_sides(now, &side("a")).unwrap();
    poll(&mut store, &[user(1, 0)], MaxRemovals::Users(5));
    store.adopt(now, &[account("a1", "user1@example.com")]).unwrap();
    store.finish_adoption(now).unwrap();
    assert_eq!(store.users().unwrap()[0].account, AccountStanding::Found);
    store.reconcile_sides(now, &side("b")).unwrap();
    assert_eq!(store.users().unwrap()[0].account, AccountStanding::Pending);
    assert!(
        store.about().unwrap().known_at.is_none(),
        "its accounts are read before anything is created"
    );
}

#[test]
fn a_create_without_an_answer_is_looked_for_and_ours_when_found() {
    let now = Timestamp::now();
    let mut store = store();
    poll(&mut store, &[user(1, 0), user(2, 0), user(3, 0)], MaxRemovals::Users(5));
    let key = |number: u32| EmailKey::fold(&user(number, 0).email);
    assert!(!store.creating(now, &key(1), now).unwrap());
    assert!(!store.creating(now, &key(2), now).unwrap());
    let first = EmailKey::fold("");
    let open: Vec<_> = store
        .to_create(&first, 9)
        .unwrap()
        .into_iter()
        .map(|row| row.key)
        .collect();
    assert_eq!(open, [key(3)], "nothing more is sent before the list was looked into");
    store.adopt(now, &[account("a1", "USER1@example.com")]).unwrap();
    store.finish_adoption(now).unwrap();
    let users = store.users().unwrap();
    assert_eq!(users[0].account, AccountStanding::Created);
    assert_eq!(users[1].account, AccountStanding::Pending);
    assert!(
        !store.creating(now, &key(2), now).unwrap(),
        "the one before was looked for, and took no effect"
    );
    // 409 beside a create of which nothing is known yet: the account is ours; without one, it is somebody else's.
    assert!(store.creating(now, &key(2), now).unwrap());
    store.create_conflicted(&key(2), true, now).unwrap();
    store.creating(now, &key(3), now).unwrap();
    store.create_conflicted(&key(3), false, now).unwrap();
    store
        .adopt(
            now,
            &[account("a2", "user2@example.com"), account("a3", "user3@example.com")],
        )
        .unwrap();
    store.finish_adoption(now).unwrap();
    let standings: Vec<_> = store.users().unwrap().into_iter().map(|user| user.account).collect();
    assert_eq!(
        standings,
        [
            AccountStanding::Created,
            AccountStanding::Created,
            AccountStanding::Found
        ]
    );
}

#[test]
fn an_account_that_turns_up_after_a_create_was_looked_for_in_vain_is_somebody_elses() {
    let now = Timestamp::now();
    let mut store = store();
    poll(&mut store, &[user(1, 0)], MaxRemovals::Users(5));
    let key = EmailKey::fold(&user(1, 0).email);
    // JumpCloud fails for this one, again and again, and each time the list has nothing of it.
    for _ in 0..3 {
        assert!(!store.creating(now, &key, now).unwrap());
        store.finish_adoption(now).unwrap();
    }
    // So somebody makes it by hand.
    store.adopt(now, &[account("a1", &user(1, 0).email)]).unwrap();
    assert_eq!(store.users().unwrap()[0].account, AccountStanding::Found);
}

#[test]
fn an_account_that_was_said_to_be_gone_and_is_not_is_still_ours() {
    let now = Timestamp::now();
    let mut store = store();
    poll(&mut store, &[user(1, 0)], MaxRemovals::Users(5));
    store
        .note_application(now, &ApplicationId::new("app"), Origin::Created)
        .unwrap();
    let key = EmailKey::fold(&user(1, 0).email);
    store.creating(now, &key, now).unwrap();
    let ours = account("a1", &user(1, 0).email);
    store.adopt(now, std::slice::from_ref(&ours)).unwrap();
    store.finish_adoption(now).unwrap();
    let lost = Unresolved {
        key,
        account: ours.id.clone(),
    };
    assert!(store.account_lost(now, &lost, Lost::Gone).unwrap());
    assert_eq!(store.users().unwrap()[0].account, AccountStanding::Pending);
    store.adopt(now, &[ours]).unwrap();
    assert_eq!(store.users().unwrap()[0].account, AccountStanding::Created);
}

#[test]
fn an_account_that_was_forgotten_while_it_was_asked_for_leaves_no_trace() {
    let mut store = store();
    poll(&mut store, &[user(1, 0)], MaxRemovals::Users(5));
    let lost = Unresolved {
        key: EmailKey::fold("gone@example.com"),
        account: AccountId::new("a1"),
    };
    for why in [Lost::Gone, Lost::Renamed, Lost::WithItsApplication] {
        assert!(!store.account_lost(Timestamp::now(), &lost, why).unwrap());
    }
    let events = store.events(&EventQuery::default()).unwrap();
    assert!(events.iter().all(|event| event.kind != EventKind::AccountLost));
}

#[test]
fn a_deletion_that_is_repeated_leaves_the_mark_of_an_earlier_one_that_is_not_settled() {
    let now = Timestamp::now();
    let ahead = |seconds| now + jiff::SignedDuration::from_secs(seconds);
    let mut store = store();
    store.adopt(now, &[]).unwrap();
    store
        .db
        .execute(
            "INSERT INTO accounts (email_key, account_id, origin, release) VALUES ('gone@example.com', 'a1', 'created', 'due')",
            [],
        )
        .unwrap();
    let deletion = Deletion {
        key: EmailKey::fold("gone@example.com"),
        account: AccountId::new("a1"),
    };
    assert_eq!(store.deleting(now, &deletion, ahead(10)).unwrap(), Some(false));
    store.deletion_settles(&deletion, ahead(60), false).unwrap();
    // Sent again, and this one is answered soon.
    assert_eq!(store.deleting(now, &deletion, ahead(10)).unwrap(), Some(true));
    store.deletion_settles(&deletion, ahead(2), true).unwrap();
    assert_eq!(
        (store.to_look_for().unwrap(), store.settles_at().unwrap()),
        (0, None),
        "it is repeated anyway"
    );
    let withdrawn = store.withdraw_approval(now).unwrap();
    assert_eq!((withdrawn.held, withdrawn.under_way), (1, 1));
    let settles = store.settles_at().unwrap().unwrap();
    assert_eq!(
        (store.to_look_for().unwrap(), settles.as_second()),
        (1, ahead(60).as_second())
    );
    assert_eq!(store.deleting(now, &deletion, ahead(10)).unwrap(), None);
    // A refusal that comes now is none of what is held.
    store.delete_refused(now, &deletion, "no").unwrap();
    assert_eq!((store.status().unwrap().held, store.status().unwrap().parked), (1, 0));
    assert_eq!(store.retry().unwrap(), 0);
    store.not_deleted(&deletion).unwrap();
    assert_eq!(store.to_look_for().unwrap(), 0);
}

#[test]
fn a_conflict_that_the_list_does_not_bear_out_is_parked_and_comes_back_on_retry() {
    let now = Timestamp::now();
    let mut store = store();
    poll(&mut store, &[user(1, 0)], MaxRemovals::Users(5));
    let key = EmailKey::fold(&user(1, 0).email);
    store.creating(now, &key, now).unwrap();
    store.create_conflicted(&key, false, now).unwrap();
    store.finish_adoption(now).unwrap();
    let parked = &store.users().unwrap()[0];
    assert_eq!(parked.account, AccountStanding::Parked);
    assert!(parked.reason.as_ref().unwrap().contains("409"));
    assert_eq!(store.retry().unwrap(), 1);
    assert_eq!(store.users().unwrap()[0].account, AccountStanding::Pending);
}

#[test]
fn a_changed_email_is_a_new_account_and_the_old_one_goes_only_after_two_polls_and_only_if_ours() {
    let now = Timestamp::now();
    let max = MaxRemovals::Users(5);
    for ours in [true, false] {
        let mut store = store();
        let mut person = user(1, 0);
        poll(&mut store, std::slice::from_ref(&person), max);
        let key = EmailKey::fold(&person.email);
        if ours {
            let row = store.to_create(&EmailKey::fold(""), 1).unwrap().remove(0);
            store.creating(now, &key, now).unwrap();
            store.created(now, &row, &account("old", &person.email)).unwrap();
        } else {
            store.adopt(now, &[account("old", &person.email)]).unwrap();
        }
        person.email = "new@example.com".to_owned();
        poll(&mut store, std::slice::from_ref(&person), max);
        assert_eq!(store.users().unwrap()[0].account, AccountStanding::Pending);
        let first = EmailKey::fold("");
        assert!(store.to_delete(&first, 9).unwrap().is_empty(), "not after one poll");
        poll(&mut store, std::slice::from_ref(&person), max);
        let deletions = store.to_delete(&first, 9).unwrap().len();
        assert_eq!(deletions, usize::from(ours));
    }
}

#[test]
fn an_email_that_is_suddenly_missing_does_not_turn_a_person_into_nobody() {
    let mut store = store();
    poll(&mut store, &[user(1, 0)], MaxRemovals::Users(5));
    let mut odd = user(1, 0);
    odd.email.clear();
    poll(&mut store, &[odd], MaxRemovals::Users(5));
    assert_eq!(store.users().unwrap()[0].email, "User1@example.com");
    assert!(!kinds(&store).contains(&EventKind::UserChanged));
}

#[test]
fn a_run_covers_up_no_state_and_leaves_no_event_and_a_change_of_state_does() {
    let mut store = store();
    let now = Timestamp::now();
    assert_eq!(store.status().unwrap().state, ConnectorState::Starting);
    store.begin_run(now).unwrap();
    assert_eq!(store.status().unwrap().state, ConnectorState::Collecting);
    poll(&mut store, &[user(1, 0)], MaxRemovals::Users(5));
    store.note_state(now, ConnectorState::Connected, None, None).unwrap();
    store.end_run(now, crate::view::RunOutcome::Done, None).unwrap();
    let events = kinds(&store).len();
    for _ in 0..3 {
        assert_eq!(store.status().unwrap().state, ConnectorState::Connected);
        store.begin_run(now).unwrap();
        assert_eq!(store.status().unwrap().state, ConnectorState::Syncing);
        store.note_state(now, ConnectorState::Connected, None, None).unwrap();
        store.end_run(now, crate::view::RunOutcome::Done, None).unwrap();
    }
    assert_eq!(kinds(&store).len(), events);
    store
        .note_state(now, ConnectorState::NotLicensed, Some("no licence"), None)
        .unwrap();
    store.begin_run(now).unwrap();
    assert_eq!(store.status().unwrap().state, ConnectorState::NotLicensed);
    assert_eq!(kinds(&store).len(), events + 1);
    // What was waited for is over with the run that was.
    store.end_run(now, crate::view::RunOutcome::Refused, None).unwrap();
    let waits = Some("asked to reconnect");
    store.note_state(now, ConnectorState::Starting, waits, None).unwrap();
    assert_eq!(store.status().unwrap().reason.as_deref(), waits);
    store.begin_run(now).unwrap();
    assert_eq!(store.status().unwrap().reason, None);
}

#[test]
fn of_runs_that_change_nothing_the_last_thousand_stay_however_they_end() {
    let mut store = store();
    let now = Timestamp::now();
    store.begin_run(now).unwrap();
    poll(&mut store, &[user(1, 0)], MaxRemovals::Users(5));
    store.end_run(now, crate::view::RunOutcome::Done, None).unwrap();
    use crate::view::RunOutcome::{Done, Failed, Partial, Refused};
    for outcome in [Done, Failed, Partial, Refused].into_iter().cycle().take(1500) {
        store.begin_run(now).unwrap();
        store.end_run(now, outcome, Some("why")).unwrap();
    }
    let kept = |store: &Store| -> (i64, i64) {
        let query = "SELECT min(no), count(*) FROM runs";
        store
            .db
            .query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
    };
    assert_eq!(kept(&store), (1, 1001), "the first one saw somebody appear");
}

#[test]
fn a_refused_association_is_shown_and_is_not_done() {
    let now = Timestamp::now();
    let mut store = store();
    poll(&mut store, &[user(1, 0)], MaxRemovals::Users(5));
    let key = EmailKey::fold(&user(1, 0).email);
    store.adopt(now, &[account("a1", key.as_str())]).unwrap();
    store
        .matched(now, &[(key.clone(), Some(crate::model::DirectoryUserId::new("d1")))])
        .unwrap();
    let first = EmailKey::fold("");
    let row = store.to_associate(&first, 9).unwrap().remove(0);
    store.association_refused(now, &row, "no such user (400)").unwrap();
    assert!(store.to_associate(&first, 9).unwrap().is_empty(), "not again and again");
    let shown = store.users().unwrap().remove(0);
    assert_eq!(
        shown.reason.as_deref(),
        Some("associating was refused: no such user (400)")
    );
    assert_eq!(store.status().unwrap().associations_pending, 1);
}
