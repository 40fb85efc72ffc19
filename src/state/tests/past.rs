//! The past against what was noted when it was the present: arbitrary histories, at every moment of them.

use proptest::test_runner::FileFailurePersistence;

use super::laws::{EMAILS, Step, Trial, cases, step};
use super::*;

/// What happens next: a step of the laws, or something that matters to whoever looks back.
#[derive(Clone, Debug)]
enum Turn {
    Step(Step),
    /// Torq says something else of people.
    Mood(u8),
    /// Somebody is found in the directory.
    Associate(u8, u8),
    /// An account is lost.
    Lose(u8),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        12 => step().prop_map(Turn::Step),
        2 => (0..8_u8).prop_map(Turn::Mood),
        2 => (0..EMAILS, 0..3_u8).prop_map(|(email, user)| Turn::Associate(email, user)),
        1 => (0..EMAILS).prop_map(Turn::Lose),
    ]
}

/// Who is there now, said in another way than [`Store::users_at`] says it.
fn present(store: &Store) -> Vec<PastUser> {
    store
        .db
        .prepare(
            "SELECT u.id, u.email, u.status, u.sso, u.role_id, u.created, u.last_login, u.first_seen, a.account_id, a.origin,
                    a.directory_user_id
             FROM users u LEFT JOIN accounts a ON a.email_key = u.email_key AND a.account_id IS NOT NULL
             WHERE u.removed_at IS NULL ORDER BY u.email_key, u.id",
        )
        .unwrap()
        .query_map([], |row| {
            let origin: Option<String> = row.get(9)?;
            let account = origin.map(|origin| PastAccount {
                id: row.get(8).unwrap(),
                origin: Some(if origin == "created" { Origin::Created } else { Origin::Found }),
                directory_user_id: row.get(10).unwrap(),
            });
            Ok(PastUser {
                id: row.get(0)?,
                email: row.get(1)?,
                status: row.get(2)?,
                sso: row.get(3)?,
                role_id: row.get(4)?,
                created: row.get(5)?,
                last_login: row.get(6)?,
                first_seen: instant(row.get(7)?),
                account,
            })
        })
        .unwrap()
        .collect::<Sql<_>>()
        .unwrap()
}

/// Whose removals wait for approval now: all of them, or those whom no poll under way has seen to change since.
fn held(store: &Store, unseen: bool) -> BTreeSet<String> {
    let mut held = store
        .db
        .prepare(match unseen {
            false => "SELECT id FROM users WHERE removal = 'held' AND removed_at IS NULL",
            true => {
                "SELECT id FROM users WHERE removal = 'held' AND removed_at IS NULL
                   AND (SELECT kind FROM events WHERE user_id = id AND kind IN ('removal_held', 'user_changed')
                        ORDER BY no DESC LIMIT 1) = 'removal_held'"
            }
        })
        .unwrap();
    held.query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Sql<_>>()
        .unwrap()
}

/// What was at a moment.
struct Moment {
    users: Vec<PastUser>,
    held: BTreeSet<String>,
    held_unseen: BTreeSet<String>,
}

/// Plays a history, and notes who was there at each moment of it.
fn played(history: &[Turn]) -> (Trial, BTreeMap<Timestamp, Moment>) {
    let mut trial = Trial::new();
    let mut moments = BTreeMap::new();
    for turn in history {
        match turn {
            Turn::Step(step) => trial.happen(step),
            Turn::Mood(mood) => trial.mood = *mood,
            Turn::Associate(email, user) => trial.associate(*email, *user),
            Turn::Lose(email) => trial.lose(*email),
        }
        // What happens at one moment is over when the next one comes.
        let moment = Moment {
            users: present(&trial.store),
            held: held(&trial.store, false),
            held_unseen: held(&trial.store, true),
        };
        moments.insert(trial.now, moment);
        if matches!(turn, Turn::Associate(..) | Turn::Lose(_) | Turn::Step(Step::Deliver)) {
            trial.tick(1);
        }
    }
    (trial, moments)
}

fn agree(store: &Store, moments: &BTreeMap<Timestamp, Moment>) -> Result<(), TestCaseError> {
    for (at, moment) in moments {
        let past = store.users_at(*at).unwrap();
        prop_assert_eq!(&past.users, &moment.users, "at {}", at);
        prop_assert_eq!(past.unknown, 0);
        let held = store.held_at(*at).unwrap();
        prop_assert!(held.surely.is_subset(&moment.held), "at {}: {:?}", at, held);
        let anybody: BTreeSet<_> = held.surely.union(&held.perhaps).cloned().collect();
        prop_assert!(moment.held_unseen.is_subset(&anybody), "at {}: {:?}", at, held);
    }
    Ok(())
}

fn often() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/state/tests/past.regressions"
        )))),
        ..cases(60)
    }
}

proptest! {
    #![proptest_config(often())]

    /// Whatever happened, looking back to any moment shows what was noted then.
    #[test]
    fn every_moment_of_a_history_is_what_it_was(history in proptest::collection::vec(turn(), 1..60)) {
        let (trial, moments) = played(&history);
        agree(&trial.store, &moments)?;
    }

    /// Events of earlier versions say less; while all of them are kept, nothing is unknown for that.
    #[test]
    fn events_that_say_less_are_made_up_for_by_earlier_ones(history in proptest::collection::vec(turn(), 1..60)) {
        let (trial, moments) = played(&history);
        trial
            .store
            .db
            .execute_batch(
                "UPDATE events SET before = NULL WHERE kind = 'user_appeared';
                 UPDATE events SET before = json_object('account_id', json_extract(before, '$.account_id'))
                 WHERE kind IN ('account_lost', 'account_deleted')",
            )
            .unwrap();
        agree(&trial.store, &moments)?;
    }

    /// What was pruned is not needed for the time since.
    #[test]
    fn the_time_since_the_oldest_kept_event_is_what_it_was(
        history in proptest::collection::vec(turn(), 1..60), share in 0..100_usize,
    ) {
        let (mut trial, mut moments) = played(&history);
        let oldest = *moments.keys().nth(moments.len() * share / 100).unwrap();
        while trial.store.prune(oldest).unwrap().is_full() {}
        moments.retain(|at, _| *at >= oldest);
        for (at, moment) in &moments {
            let held = trial.store.held_at(*at).unwrap();
            prop_assert!(held.surely.is_subset(&moment.held), "at {}: {:?}", at, held);
            let past = trial.store.users_at(*at).unwrap();
            // Where everything known of JumpCloud was forgotten since, what was there before is told by older events alone.
            let whole = past.unknown == 0;
            let without = |users: &[PastUser]| -> Vec<PastUser> {
                let users = users.iter().cloned();
                users.map(|user| PastUser { account: user.account.filter(|_| whole), ..user }).collect()
            };
            prop_assert_eq!(without(&past.users), without(&moment.users), "at {}", at);
        }
    }
}

#[test]
fn who_was_held_is_known_where_what_came_after_says_so() {
    let mut store = store();
    let users: Vec<_> = (0..8).map(|number| user(number, 0)).collect();
    let at = |minute: i64| Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_mins(minute);
    let polled = |store: &mut Store, minute, users: &[User]| {
        poll_at(store, at(minute), &page(users, None), MaxRemovals::Users(0));
    };
    let ids = |numbers: &[u32]| -> BTreeSet<String> { numbers.iter().map(|number| format!("u{number}")).collect() };
    let held = |store: &Store, minute| {
        let held = store.held_at(at(minute)).unwrap();
        (held.surely, held.perhaps)
    };
    polled(&mut store, 0, &users);
    polled(&mut store, 2, &users[3..]);
    polled(&mut store, 4, &users[3..]);
    assert_eq!(held(&store, 3), (ids(&[]), ids(&[])));
    assert_eq!(held(&store, 5), (ids(&[0, 1, 2]), ids(&[])));
    // One is back; the others are approved, and removed.
    polled(&mut store, 6, &users[2..]);
    assert_eq!(held(&store, 5), (ids(&[0, 1, 2]), ids(&[])));
    assert_eq!(held(&store, 7), (ids(&[0, 1]), ids(&[])));
    assert_eq!(store.approve(at(8)).unwrap(), 2);
    assert_eq!(held(&store, 9), (ids(&[]), ids(&[])));
    polled(&mut store, 10, &users[2..]);
    assert_eq!(held(&store, 5), (ids(&[0, 1, 2]), ids(&[])));
    assert_eq!(held(&store, 7), (ids(&[0, 1]), ids(&[])));
    // An earlier version did not note that somebody was back.
    store
        .db
        .execute("DELETE FROM events WHERE kind = 'removal_dropped'", [])
        .unwrap();
    for minute in [5, 7] {
        assert_eq!(held(&store, minute), (ids(&[0, 1]), ids(&[2])), "{minute}");
    }
    assert_eq!(held(&store, 9), (ids(&[]), ids(&[2])));
    // Whoever was seen to change was back by then.
    let changed: Vec<_> = (2..8).map(|number| user(number, 1)).collect();
    polled(&mut store, 12, &changed);
    assert_eq!(held(&store, 13), (ids(&[]), ids(&[])));
    assert_eq!(held(&store, 1), (ids(&[]), ids(&[])));
}

#[test]
fn whoever_was_approved_and_is_back_was_not_held_in_between() {
    let mut store = store();
    let users: Vec<_> = (0..8).map(|number| user(number, 0)).collect();
    let at = |minute: i64| Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_mins(minute);
    for (minute, from) in [(0, 0), (2, 1), (4, 1)] {
        poll_at(
            &mut store,
            at(minute),
            &page(&users[from..], None),
            MaxRemovals::Users(0),
        );
    }
    assert_eq!(store.approve(at(6)).unwrap(), 1);
    poll_at(&mut store, at(8), &page(&users, None), MaxRemovals::Users(0));
    let events = store.events(&EventQuery::default()).unwrap();
    let dropped = events.iter().filter(|event| event.kind == EventKind::RemovalDropped);
    assert_eq!(dropped.count(), 1);
    for (minute, held) in [(5, 1), (7, 0), (9, 0)] {
        let then = store.held_at(at(minute)).unwrap();
        assert_eq!((then.surely.len(), then.perhaps.len()), (held, 0), "{minute}");
    }
}

#[test]
fn what_is_not_known_is_not_guessed() {
    let mut store = store();
    let users: Vec<_> = (0..4).map(|number| user(number, 0)).collect();
    let begun: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(store.past_horizon().unwrap().earliest(), None, "nothing was collected");
    poll(&mut store, &users, MaxRemovals::Users(5));
    let since = store.past_horizon().unwrap();
    assert!(since.earliest().unwrap() > begun);
    assert_eq!(since.kept, None);
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(1);
    store.prune(later).unwrap();
    assert_eq!(store.past_horizon().unwrap().kept, store.horizon().unwrap());
    assert!(store.past_horizon().unwrap().earliest() > since.earliest());
}
