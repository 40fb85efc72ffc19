//! Writes whose answers are lost: they took effect or they did not, and nobody gets a second account either way.

use std::time::Duration;

use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule};
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

/// A list with nobody in it, whatever there is.
fn nobody() -> Fault {
    Fault::Status {
        status: 200,
        retry_after: None,
        body: "[]".to_owned(),
    }
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
    let mut scene = Scene::with_people(16).await;
    // Until then what turns up is ours.
    scene.set_general("NETWORK__TIMEOUT", "5s");
    scene.settling = Duration::MAX;
    let world = scene.world();
    world.fault(times(4, Endpoint::AccountCreate, Fault::Delay(Duration::from_millis(700))).after(3));
    scene.killed_at(Endpoint::AccountCreate, 6).await;
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_all_are_ours(&scene, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_association_whose_answer_is_lost_is_made_once() {
    let scene = Scene::with_known_people(20).await;
    let world = scene.world();
    scene.give_accounts(&world.people());
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

/// A delivery under `delete` in which three accounts are to go.
async fn three_to_go() -> Scene {
    let mut scene = Scene::with_people(20).await;
    let world = scene.world();
    scene.set("REMOVALS", "delete");
    scene.run_to_the_end().await;
    for person in &world.people()[..3] {
        world.remove_person(&person.id);
    }
    scene.run_to_the_end().await;
    scene
}

/// Every way in which an answer to a write is lost or says nothing, with and without an effect.
fn losses() -> [Fault; 8] {
    [
        Fault::LostAnswer,
        Fault::CutShort,
        Fault::NotUtf8,
        Fault::WrongType,
        Fault::EffectThen(500),
        Fault::EffectThen(504),
        Fault::Html,
        Fault::Reset,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_believed_only_when_the_account_is_gone() {
    for fault in losses() {
        let scene = three_to_go().await;
        let world = scene.world();
        world.fault(times(2, Endpoint::AccountDelete, fault.clone()));
        let end = scene.run_to_the_end().await;
        assert_eq!(end.counts.deleted, 3, "{fault:?}");
        assert_eq!(world.accounts().len(), 17, "{fault:?}");
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_association_is_believed_only_when_jumpcloud_says_so() {
    for fault in losses() {
        let scene = Scene::with_known_people(12).await;
        let world = scene.world();
        scene.give_accounts(&world.people());
        world.fault(times(3, Endpoint::AccountAssociate, fault.clone()).after(2));
        let end = scene.run_to_the_end().await;
        assert_eq!(end.counts.associated, 12, "{fault:?}");
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_the_effect_makes_no_second_account_and_no_second_application() {
    for status in [500, 502, 503, 504] {
        let scene = Scene::with_people(12).await;
        let world = scene.world();
        scene.behave(|behaviour| {
            behaviour.accept_duplicates = true;
            behaviour.accept_duplicate_applications = true;
        });
        world.fault(FaultRule::once(Endpoint::ApplicationCreate, Fault::EffectThen(status)));
        world.fault(times(4, Endpoint::AccountCreate, Fault::EffectThen(status)).after(3));
        scene.run_to_the_end().await;
        assert_in_step(&scene);
        assert_all_are_ours(&scene, 12);
        assert_eq!(torq_applications(&scene), 1);
    }
}

fn torq_applications(scene: &Scene) -> usize {
    let applications = scene.world().applications().into_iter();
    applications.filter(|one| one.catalog_app_id == "torq").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_takes_effect_after_we_gave_up_and_looked_makes_no_second_account() {
    let mut scene = Scene::with_people(8).await;
    scene.set_general("NETWORK__TIMEOUT", "2s");
    scene.settling = Duration::MAX;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    // We give up after two seconds and look; it takes effect a second and a half later.
    world.fault(times(2, Endpoint::AccountCreate, Fault::Delay(Duration::from_millis(3500))).after(1));
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_all_are_ours(&scene, 8);
    assert_eq!(writes(&scene, Endpoint::AccountCreate).len(), 8, "none was sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_takes_effect_after_its_process_was_killed_and_the_next_one_looked_makes_no_second_account() {
    let mut scene = Scene::with_people(8).await;
    scene.set_general("NETWORK__TIMEOUT", "5s");
    scene.settling = Duration::MAX;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    world.fault(times(3, Endpoint::AccountCreate, Fault::Delay(Duration::from_millis(1000))).after(2));
    scene.killed_at(Endpoint::AccountCreate, 4).await;
    let end = scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_eq!(end.status.accounts, 8);
    assert_eq!(world.accounts().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_hangs_longer_than_a_command_waits_stays_pending_and_is_not_repeated() {
    let mut scene = Scene::with_people(6).await;
    scene.set_general("NETWORK__TIMEOUT", "40s");
    scene.settling = Duration::MAX;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    // A gateway gave up: the work behind it may go on for as long as we would have waited, and longer.
    world.fault(FaultRule::once(Endpoint::AccountCreate, Fault::status(504)));
    let end = scene.run().await;
    assert_eq!(
        (end.outcome, end.counts.created, end.status.pending),
        (RunOutcome::Partial, 5, 1)
    );
    let sent = world.count(Endpoint::AccountCreate);
    assert_eq!(scene.run().await.status.pending, 1, "not yet settled");
    assert_eq!(world.count(Endpoint::AccountCreate), sent);
    scene.settling = Duration::from_millis(100);
    // It did take effect in the end.
    let open = scene
        .users()
        .into_iter()
        .find(|user| user.account == AccountStanding::Pending);
    world.add_account(Account {
        email: Some(open.unwrap().email),
        ..Account::default()
    });
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_all_are_ours(&scene, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lags_behind_a_lost_create_makes_no_second_account() {
    let mut scene = Scene::with_people(8).await;
    scene.settling = Duration::from_secs(5);
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    world.fault(times(2, Endpoint::AccountCreate, Fault::LostAnswer).after(6));
    // The list as it was before: empty, right after the creates.
    world.fault(times(1, Endpoint::Accounts, nobody()).after(1));
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_all_are_ours(&scene, 8);
    assert_eq!(writes(&scene, Endpoint::AccountCreate).len(), 8, "none was sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_not_heard_of_a_create_makes_nobody_pending_again() {
    // However long its answer is under way: it tells of the moment when it was asked.
    for late in [Duration::ZERO, Duration::from_secs(3)] {
        behind_a_replica(late).await;
    }
}

async fn behind_a_replica(late: Duration) {
    let mut scene = Scene::with_people(8).await;
    scene.settling = Duration::from_secs(5);
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    // An answer that was lost lets the list be read right after the other creates, whose answers came. It is what it was before
    // them, and so is every account by itself.
    world.fault(times(1, Endpoint::AccountCreate, Fault::LostAnswer).after(7));
    world.fault(times(1, Endpoint::Accounts, nobody()).after(1));
    world.fault(times(8, Endpoint::AccountGet, Fault::LateStatus(404, late)));
    scene.run_to_the_end().await;
    assert_eq!(writes(&scene, Endpoint::AccountCreate).len(), 8, "none was sent twice");
    assert!(scene.events(EventKind::AccountLost).is_empty());
    assert_in_step(&scene);
    assert_all_are_ours(&scene, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lags_behind_a_409_parks_nobody() {
    let mut scene = Scene::with_people(6).await;
    scene.settling = Duration::MAX;
    let world = scene.world();
    // The last one to be made: the list is read right afterwards.
    let person = world
        .people()
        .into_iter()
        .max_by_key(|person| person.email.to_lowercase())
        .unwrap();
    // Another source is faster by a moment.
    world.before(Endpoint::AccountCreate, 0, move |world| {
        world.add_account(Account {
            email: Some(person.email.to_uppercase()),
            ..Account::default()
        });
    });
    world.fault(times(1, Endpoint::Accounts, nobody()).after(1));
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.created, end.counts.found, end.counts.refused), (5, 1, 0));
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_takes_effect_after_we_gave_up_is_made_once() {
    for killed in [false, true] {
        let mut scene = Scene::with_people(4).await;
        scene.set_general("NETWORK__TIMEOUT", if killed { "5s" } else { "2s" });
        scene.settling = Duration::MAX;
        let world = scene.world();
        scene.behave(|behaviour| behaviour.accept_duplicate_applications = true);
        let delay = Fault::Delay(Duration::from_millis(if killed { 1000 } else { 3500 }));
        world.fault(FaultRule::once(Endpoint::ApplicationCreate, delay));
        if killed {
            scene.killed_at(Endpoint::ApplicationCreate, 1).await;
        }
        scene.run_to_the_end().await;
        assert_in_step(&scene);
        assert_eq!(torq_applications(&scene), 1, "killed: {killed}");
        assert_eq!(world.count(Endpoint::ApplicationCreate), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_somebody_elses_account_is_not_believed() {
    let scene = Scene::with_people(6).await;
    let world = scene.world();
    let other = Fault::Status {
        status: 201,
        retry_after: None,
        body: r#"{"id":"66a1ffffffffffffffffffff","email":"somebody.else@example.net"}"#.to_owned(),
    };
    world.fault(times(2, Endpoint::AccountCreate, other));
    scene.run_to_the_end().await;
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_makes_the_account_of_another_email_is_not_sent_for_ever() {
    let scene = Scene::with_people(6).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    world.add_people(1);
    let other = Fault::Status {
        status: 201,
        retry_after: None,
        body: r#"{"id":"66a1ffffffffffffffffffff","email":"rewritten@example.net"}"#.to_owned(),
    };
    world.fault(FaultRule::always(Endpoint::AccountCreate, other));
    world.clear_requests();
    for _ in 0..4 {
        scene.run().await;
    }
    assert!(
        world.count(Endpoint::AccountCreate) <= 3,
        "{}",
        world.count(Endpoint::AccountCreate)
    );
    let status = scene.status();
    assert_eq!((status.parked, status.pending), (1, 0));
    let reason = scene.users().into_iter().find_map(|user| user.reason).unwrap();
    assert!(reason.contains("an account of another e-mail"), "{reason}");
    // It was mended there, and a person says so.
    world.clear_faults();
    scene.act(|store| store.retry()).await;
    scene.run_to_the_end().await;
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_another_directory_user_is_a_refusal_and_not_an_association() {
    let scene = Scene::with_known_people(3).await;
    let world = scene.world();
    scene.give_accounts(&world.people());
    let other = Fault::Status {
        status: 200,
        retry_after: None,
        body: r#"{"id":"x","user_id":"66a1eeeeeeeeeeeeeeeeeeee"}"#.to_owned(),
    };
    world.fault(FaultRule::once(Endpoint::AccountAssociate, other));
    let end = scene.run().await;
    assert_eq!((end.counts.associated, end.counts.refused), (2, 1));
    let reason = scene.users().into_iter().find_map(|user| user.reason).unwrap();
    assert!(reason.contains("another directory user"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_to_a_deletion_while_the_account_is_there_is_a_refusal() {
    for status in [404, 405, 501] {
        let scene = three_to_go().await;
        let world = scene.world();
        world.fault(FaultRule::always(Endpoint::AccountDelete, Fault::status(status)));
        let end = scene.run().await;
        assert_eq!((end.counts.deleted, end.counts.refused), (0, 3), "{status}");
        assert_eq!(world.accounts().len(), 20);
        assert!(scene.events(EventKind::AccountDeleted).is_empty());
        let refused = scene.events(EventKind::AccountRefused);
        assert!(refused[0].reason.as_ref().unwrap().contains("deleting"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_somebody_deleted_before_us_counts_as_deleted() {
    let scene = three_to_go().await;
    let world = scene.world();
    let gone = scene.accounts_of_others();
    world.delete_account(&gone[0].id);
    // And one in the very moment between our look and our deletion.
    let second = gone[1].id.clone();
    world.before(Endpoint::AccountDelete, 0, move |world| {
        drop(world.delete_account(&second))
    });
    let connector = scene.connector().await;
    let end = connector.run().await.unwrap();
    drop(connector);
    assert_eq!(end.outcome, RunOutcome::Done);
    assert_eq!(world.accounts().len(), 17);
    assert_in_step(&scene);
}
