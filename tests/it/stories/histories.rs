//! Arbitrary histories: people come, go and change, peers fail, runs are refused or killed. Whatever happens, nobody ever has
//! two accounts or loses theirs while they are in Torq, and once the weather is fine two runs bring everything in step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule, Options, PageTokens, Peer};
use torq_connector::view::EventKind;

use crate::world::{Scene, assert_in_step, fold, key_of, keys};

/// Something that happens. Numbers choose among those who are there.
#[derive(Clone, Debug)]
enum Step {
    Arrive(usize),
    Leave(usize),
    Rename(usize),
    /// Takes the e-mail of somebody else, in another case.
    Share(usize, usize),
    ChangeListing(usize),
    JoinDirectory(usize),
    LeaveDirectory(usize),
    LoseAccount(usize),
    LoseApplication,
    ExpireTokens(bool),
    Run,
    /// A run that a fault meets so often.
    RunUnder(Fault, Endpoint, u64, u64),
    /// A run that is killed when an endpoint was asked so often.
    Killed(Endpoint, usize),
    /// A run whose page tokens lead nowhere.
    RunInCircles(bool),
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    prop::sample::select(vec![
        Endpoint::TorqToken,
        Endpoint::TorqUsers,
        Endpoint::JumpCloudToken,
        Endpoint::Applications,
        Endpoint::Application,
        Endpoint::ApplicationCreate,
        Endpoint::Accounts,
        Endpoint::AccountCreate,
        Endpoint::AccountAssociate,
        Endpoint::AccountDelete,
        Endpoint::AccountGet,
        Endpoint::DirectorySearch,
    ])
}

fn fault() -> impl Strategy<Value = Fault> {
    prop::sample::select(vec![
        Fault::status(401),
        Fault::status(403),
        Fault::status(429),
        Fault::status(500),
        Fault::status(503),
        Fault::Reset,
        Fault::LostAnswer,
        Fault::LostAnswer,
        Fault::CutShort,
        Fault::Html,
        Fault::NotUtf8,
        Fault::WrongType,
        Fault::ExpireTokensFirst,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..32_usize;
    prop_oneof![
        2 => (1..4_usize).prop_map(Step::Arrive),
        2 => who().prop_map(Step::Leave),
        2 => who().prop_map(Step::Rename),
        1 => (who(), who()).prop_map(|(who, whose)| Step::Share(who, whose)),
        1 => who().prop_map(Step::ChangeListing),
        1 => who().prop_map(Step::JoinDirectory),
        1 => who().prop_map(Step::LeaveDirectory),
        1 => who().prop_map(Step::LoseAccount),
        1 => Just(Step::LoseApplication),
        1 => any::<bool>().prop_map(Step::ExpireTokens),
        3 => Just(Step::Run),
        6 => (fault(), endpoint(), 0..4_u64, 1..4_u64).prop_map(|(f, e, skip, times)| Step::RunUnder(f, e, skip, times)),
        3 => (endpoint(), 1..6_usize).prop_map(|(endpoint, count)| Step::Killed(endpoint, count)),
        1 => any::<bool>().prop_map(Step::RunInCircles),
    ]
}

/// The accounts of the people in Torq, by folded e-mail.
fn accounts_of_people(scene: &Scene) -> BTreeMap<String, Account> {
    let present = keys(&scene.world().people());
    let accounts = scene.world().accounts().into_iter();
    accounts
        .filter_map(|account| Some((key_of(&account)?, account)))
        .filter(|(key, _)| present.contains(key))
        .collect()
}

async fn happen(scene: &Scene, step: &Step, number: usize) {
    let world = scene.world();
    let people = world.people();
    let who = |n: usize| people.get(n % people.len().max(1));
    match step {
        Step::Arrive(count) => drop(world.add_people(*count)),
        Step::Leave(n) => drop(who(*n).and_then(|person| world.remove_person(&person.id))),
        Step::Rename(n) => {
            if let Some(person) = who(*n) {
                world.update_person(&person.id, |one| one.email = format!("renamed.{number}@example.com"));
            }
        }
        Step::Share(n, m) => {
            if let (Some(person), Some(other)) = (who(*n), who(*m)) {
                world.update_person(&person.id, |one| one.email = other.email.to_uppercase());
            }
        }
        Step::ChangeListing(n) => {
            if let Some(person) = who(*n) {
                world.update_person(&person.id, |one| one.sso_provision = !one.sso_provision);
            }
        }
        Step::JoinDirectory(n) => {
            if let Some(person) = who(*n) {
                world.add_to_directory(&person.email);
            }
        }
        Step::LeaveDirectory(n) => {
            if let Some(person) = who(*n) {
                world.remove_from_directory(&person.email);
            }
        }
        Step::LoseAccount(n) => {
            let accounts = world.accounts();
            if let Some(account) = accounts.get(n % accounts.len().max(1)) {
                world.delete_account(&account.id);
            }
        }
        Step::LoseApplication => world.delete_application(),
        Step::ExpireTokens(torq) => world.expire_tokens(if *torq { Peer::Torq } else { Peer::JumpCloud }),
        Step::Run => run(scene).await,
        Step::RunUnder(fault, endpoint, skip, times) => {
            world.fault(FaultRule {
                endpoint: Some(*endpoint),
                skip: *skip,
                times: Some(*times),
                probability: 1.0,
                fault: fault.clone(),
            });
            run(scene).await;
            world.clear_faults();
        }
        Step::Killed(endpoint, count) => {
            let before = accounts_of_people(scene);
            world.clear_requests();
            scene.killed_at(*endpoint, *count).await;
            assert_kept(scene, &before);
        }
        Step::RunInCircles(fresh) => {
            let tokens = if *fresh {
                PageTokens::FreshForSamePage
            } else {
                PageTokens::Alternate
            };
            scene.behave(|behaviour| behaviour.page_tokens = tokens);
            run(scene).await;
            scene.behave(|behaviour| behaviour.page_tokens = PageTokens::Honest);
        }
    }
}

async fn run(scene: &Scene) {
    let before = accounts_of_people(scene);
    scene.run().await;
    assert_kept(scene, &before);
}

/// Nobody who is in Torq lost their account to a run, and nobody who is in Torq was said to have left since.
fn assert_kept(scene: &Scene, before: &BTreeMap<String, Account>) {
    let after = accounts_of_people(scene);
    for (key, account) in before {
        assert_eq!(
            after.get(key).map(|one| &one.id),
            Some(&account.id),
            "{key} lost their account"
        );
    }
    let present: BTreeSet<_> = scene.world().people().into_iter().map(|person| person.id).collect();
    if scene.files().is_empty() {
        return;
    }
    for event in scene.events(EventKind::UserDisappeared) {
        let id = event.user_id.unwrap();
        assert!(!present.contains(&id), "{id} is in Torq and was removed");
    }
}

async fn live(steps: Vec<Step>, accept_duplicates: bool, existing: f64) {
    let mut scene = Scene::new(Options {
        people: 8,
        existing_share: existing,
        directory_share: 0.6,
        ..Options::default()
    })
    .await;
    scene.set("REMOVALS", "delete");
    scene.set("MAX_REMOVALS", "1000");
    scene.behave(|behaviour| {
        behaviour.accept_duplicates = accept_duplicates;
        behaviour.torq_page_cap = 3;
    });
    let strangers = scene.world().add_account(Account {
        email: Some("stranger@example.net".to_owned()),
        ..Account::default()
    });
    for (number, step) in steps.iter().enumerate() {
        let gone = matches!(step, Step::LoseApplication | Step::LoseAccount(_));
        let before = scene.world().accounts().iter().any(|account| account.id == strangers);
        happen(&scene, step, number).await;
        let after = scene.world().accounts().iter().any(|account| account.id == strangers);
        assert!(after || gone || !before, "the account of a stranger is gone");
    }
    // Somebody is there at the end, or the workspace would rightly be held.
    scene.world().add_people(1);
    for _ in 0..2 {
        let before = accounts_of_people(&scene);
        scene.run().await;
        assert_kept(&scene, &before);
    }
    // A 403 on one write parks one user, until somebody says that it is settled.
    scene.act(|store| store.retry()).await;
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    scene.world().clear_requests();
    scene.run_to_the_end().await;
    assert!(scene.world().writes().is_empty(), "in step, and still writing");
    let left = scene.accounts_of_others();
    let adopted = left
        .iter()
        .all(|account| key_of(account).is_none_or(|key| fold(&key) == key));
    assert!(adopted);
}

fn histories(cases: u32, accept_duplicates: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    // More of them on demand: PROPTEST_CASES=500.
    let wanted = std::env::var("PROPTEST_CASES").ok();
    let mut runner = TestRunner::new(Config {
        cases: wanted.and_then(|number| number.parse().ok()).unwrap_or(cases),
        max_shrink_iters: 12,
        failure_persistence: None,
        ..Config::default()
    });
    let history = (
        prop::collection::vec(step(), 3..9),
        prop::sample::select(vec![0.0, 0.5]),
    );
    let result = runner.run(&history, |(steps, existing)| {
        let task = live(steps, accept_duplicates, existing);
        let outcome = runtime.block_on(async { tokio::spawn(task).await });
        outcome.map_err(|error| {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<String>().cloned();
            TestCaseError::fail(text.unwrap_or_else(|| "it panicked".to_owned()))
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn whatever_happens_all_is_in_step_in_the_end_where_jumpcloud_refuses_duplicates() {
    histories(8, false);
}

#[test]
fn whatever_happens_all_is_in_step_in_the_end_where_jumpcloud_would_make_duplicates() {
    histories(8, true);
}

#[test]
fn whatever_happens_once_more_all_is_in_step_in_the_end() {
    histories(8, true);
}
