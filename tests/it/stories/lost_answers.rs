//! Writes whose answers are lost: they took effect or they did not, and nobody gets a second account either way.

use std::time::Duration;

use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule, Options};
use torq_connector::view::{AccountStanding, EventKind, RunOutcome};

use crate::world::{Scene, assert_in_step, times, writes};

/// Everybody's account counts as ours, once.
fn assert_all_are_ours(scene: &Scene, people: usize) {
    let users = scene.users();
    assert_eq!(users.len(), people);
    for user in users {
        assert_eq!(user.account, AccountStanding::Created, "{}", user.email);
    }
    assert_eq!(scene.events(EventKind::AccountCreated).len(), people);
    assert!(scene.events(EventKind::AccountFound).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_answer_is_lost_makes_no_second_account_and_counts_as_ours() {
    for accept_duplicates in [false, true] {
        for fault in [Fault::LostAnswer, Fault::CutShort, Fault::NotUtf8, Fault::WrongType] {
            let scene = Scene::with_people(24).await;
            let world = scene.world();
            scene.behave(|behaviour| behaviour.accept_duplicates = accept_duplicates);
            world.fault(times(2, Endpoint::AccountCreate, fault.clone()).after(2));
            world.fault(times(2, Endpoint::AccountCreate, fault).after(15));
            let end = scene.run_to_the_end().await;
            assert_eq!((end.counts.created, end.counts.found), (24, 0));
            assert_in_step(&scene);
            assert_all_are_ours(&scene, 24);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn even_when_every_answer_to_a_create_is_lost_nobody_gets_two() {
    let scene = Scene::with_people(16).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    world.fault(FaultRule::always(Endpoint::AccountCreate, Fault::LostAnswer));
    for _ in 0..4 {
        scene.run().await;
    }
    let end = scene.run_to_the_end().await;
    assert_eq!(end.status.accounts, 16);
    assert_in_step(&scene);
    assert_all_are_ours(&scene, 16);
    assert_eq!(writes(&scene, Endpoint::AccountCreate).len(), 16, "none was sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_looked_for_by_the_next_process_when_this_one_cannot() {
    let scene = Scene::with_people(16).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    world.fault(times(3, Endpoint::AccountCreate, Fault::LostAnswer).after(4));
    // The list is read once to adopt (an empty page), and then not any more.
    world.fault(FaultRule::always(Endpoint::Accounts, Fault::status(503)).after(1));
    let end = scene.run().await;
    assert_eq!(end.outcome, RunOutcome::Failed);
    world.clear_faults();
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_all_are_ours(&scene, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_takes_effect_after_its_process_was_killed_makes_no_second_account() {
    let scene = Scene::with_people(16).await;
    let world = scene.world();
    world.fault(times(4, Endpoint::AccountCreate, Fault::Delay(Duration::from_millis(700))).after(3));
    scene.killed_at(Endpoint::AccountCreate, 6).await;
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_all_are_ours(&scene, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_association_whose_answer_is_lost_is_made_once() {
    let scene = Scene::new(Options {
        people: 20,
        directory_share: 1.0,
        ..Options::default()
    })
    .await;
    let world = scene.world();
    for person in world.people() {
        world.add_account(Account {
            email: Some(person.email),
            ..Account::default()
        });
    }
    world.fault(times(3, Endpoint::AccountAssociate, Fault::LostAnswer).after(5));
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.found, end.counts.associated), (20, 20));
    assert_in_step(&scene);
    world.clear_requests();
    assert_eq!(scene.run_to_the_end().await.counts, Default::default());
    assert!(world.writes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_whose_answer_is_lost_is_made_once() {
    for fault in [Fault::LostAnswer, Fault::WrongType, Fault::CutShort] {
        let scene = Scene::with_people(10).await;
        let world = scene.world();
        world.fault(FaultRule::once(Endpoint::ApplicationCreate, fault));
        scene.run_to_the_end().await;
        assert_in_step(&scene);
        let torq = |one: &torq_connector::sandbox::Application| one.catalog_app_id == "torq";
        assert_eq!(world.applications().into_iter().filter(torq).count(), 1);
        assert_eq!(writes(&scene, Endpoint::ApplicationCreate).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_whose_answer_is_lost_is_done() {
    let mut scene = Scene::with_people(20).await;
    let world = scene.world();
    scene.set("REMOVALS", "delete");
    scene.run_to_the_end().await;
    let gone = &world.people()[..3];
    for person in gone {
        world.remove_person(&person.id);
    }
    scene.run_to_the_end().await;
    world.fault(times(2, Endpoint::AccountDelete, Fault::LostAnswer));
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts.deleted, 3);
    assert_eq!(world.accounts().len(), 17);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_user_left_before_anybody_looked_is_ours_to_delete() {
    let mut scene = Scene::with_people(10).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    world.fault(FaultRule::once(Endpoint::AccountCreate, Fault::LostAnswer));
    world.fault(FaultRule::always(Endpoint::Accounts, Fault::status(503)).after(1));
    scene.run().await;
    world.clear_faults();
    let made = writes(&scene, Endpoint::AccountCreate).remove(0);
    let email = made.body.unwrap()["email"].as_str().unwrap().to_owned();
    let person = world.people().into_iter().find(|one| one.email == email).unwrap();
    world.remove_person(&person.id);
    assert!(scene.account(&email).is_some());
    for _ in 0..2 {
        scene.run_to_the_end().await;
    }
    assert!(scene.account(&email).is_none());
    assert_in_step(&scene);
    assert_eq!(world.accounts().len(), 9);
}
