//! People who leave Torq: believed after two polls, never too many at once, and only what is ours is deleted.

use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Options, Person};
use torq_connector::view::{AccountStanding, ConnectorState, EventKind, RunOutcome};

use crate::world::{Scene, assert_in_step, fold, times, writes};

/// A workspace in step, half of whose accounts were there before.
async fn workspace(people: usize, removals: &str) -> Scene {
    let mut scene = Scene::new(Options {
        people,
        existing_share: 0.5,
        ..Options::default()
    })
    .await;
    scene.set("REMOVALS", removals);
    scene.run_to_the_end().await;
    scene.world().clear_requests();
    scene
}

/// So many people with created or with adopted accounts.
fn some(scene: &Scene, count: usize, standing: AccountStanding) -> Vec<Person> {
    let users = scene.users().into_iter();
    let ids: Vec<_> = users
        .filter(|one| one.account == standing)
        .map(|one| one.id)
        .take(count)
        .collect();
    assert_eq!(ids.len(), count);
    let people = scene.world().people().into_iter();
    people.filter(|person| ids.contains(&person.id)).collect()
}

fn leave(scene: &Scene, people: &[Person]) {
    for person in people {
        scene.world().remove_person(&person.id).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_absent_once_is_still_a_user_and_whoever_is_absent_twice_is_not() {
    let scene = workspace(30, "report").await;
    let world = scene.world();
    let accounts = world.accounts();
    let mut gone = some(&scene, 2, AccountStanding::Created);
    gone.extend(some(&scene, 2, AccountStanding::Found));
    leave(&scene, &gone);
    let end = scene.run_to_the_end().await;
    assert_eq!(
        (end.counts.disappeared, end.status.users, end.status.removed),
        (0, 30, 0)
    );
    // One is back before the second poll.
    world.add_person(gone[0].clone());
    let end = scene.run_to_the_end().await;
    assert_eq!(
        (end.counts.disappeared, end.status.users, end.status.removed),
        (3, 27, 3)
    );
    assert_eq!(end.status.leftover, 3);
    assert_eq!(scene.events(EventKind::UserDisappeared).len(), 3);
    scene.run_to_the_end().await;
    assert!(world.writes().is_empty(), "report: every account stays");
    assert_eq!(world.accounts(), accounts);
    assert_in_step(&scene);

    // Whoever comes back later has their account still.
    world.add_person(gone[1].clone());
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.appeared, end.counts.created, end.status.removed), (1, 0, 2));
    assert_eq!(end.status.leftover, 2);
    assert!(world.writes().is_empty());

    // Whoever deletes one in JumpCloud sees that it is gone.
    world.delete_account(&scene.account(&gone[2].email).unwrap().id);
    assert_eq!(scene.run_to_the_end().await.status.leftover, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_delete_the_accounts_that_we_made_go_and_the_adopted_ones_stay() {
    let scene = workspace(30, "delete").await;
    let world = scene.world();
    let (ours, theirs) = (
        some(&scene, 2, AccountStanding::Created),
        some(&scene, 2, AccountStanding::Found),
    );
    leave(&scene, &ours);
    leave(&scene, &theirs);
    scene.run_to_the_end().await;
    assert!(world.writes().is_empty());
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.disappeared, end.counts.deleted), (4, 2));
    assert_eq!((end.status.leftover, end.status.deletions_pending), (2, 0));
    assert_eq!(world.writes().len(), 2);
    assert!(ours.iter().all(|one| scene.account(&one.email).is_none()));
    assert!(theirs.iter().all(|one| scene.account(&one.email).is_some()));
    assert_in_step(&scene);
    scene.run_to_the_end().await;
    assert_eq!(world.writes().len(), 2);

    // Whoever comes back gets a new one.
    world.add_person(ours[0].clone());
    assert_eq!(scene.run_to_the_end().await.counts.created, 1);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_removals_than_are_believed_are_held_until_they_are_approved() {
    let scene = workspace(30, "delete").await;
    let world = scene.world();
    let mut gone = some(&scene, 4, AccountStanding::Created);
    gone.extend(some(&scene, 4, AccountStanding::Found));
    leave(&scene, &gone);
    scene.run_to_the_end().await;
    for _ in 0..3 {
        let end = scene.run().await;
        assert_eq!(
            (end.outcome, end.status.state),
            (RunOutcome::Partial, ConnectorState::Held)
        );
        assert_eq!((end.status.held, end.status.users, end.counts.disappeared), (8, 30, 0));
    }
    assert!(world.writes().is_empty());
    assert_eq!(scene.events(EventKind::RemovalHeld).len(), 8);
    assert_eq!(scene.user(&gone[0].id).account, AccountStanding::Held);

    assert_eq!(scene.act(|store| store.approve(jiff::Timestamp::now())).await, 8);
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.disappeared, end.counts.deleted, end.status.held), (8, 4, 0));
    assert_eq!(end.status.state, ConnectorState::Connected);
    assert_eq!(scene.events(EventKind::RemovalApproved).len(), 8);
    assert_in_step(&scene);

    // What was approved does not use up what is believed unasked.
    leave(&scene, &some(&scene, 2, AccountStanding::Created));
    scene.run_to_the_end().await;
    assert_eq!(scene.run_to_the_end().await.counts.deleted, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_dropped_when_the_people_are_back() {
    let scene = workspace(30, "delete").await;
    let world = scene.world();
    let gone: Vec<_> = world.people()[..10].to_vec();
    leave(&scene, &gone);
    scene.run_to_the_end().await;
    assert_eq!(scene.run().await.status.held, 10);
    for person in &gone {
        world.add_person(person.clone());
    }
    let end = scene.run_to_the_end().await;
    assert_eq!((end.status.held, end.status.state), (0, ConnectorState::Connected));
    assert!(world.writes().is_empty());
    assert!(scene.events(EventKind::UserDisappeared).is_empty());

    // Approved and back all the same: nothing happens to them.
    leave(&scene, &gone);
    scene.run_to_the_end().await;
    assert_eq!(scene.run().await.status.held, 10);
    scene.act(|store| store.approve(jiff::Timestamp::now())).await;
    for person in &gone {
        world.add_person(person.clone());
    }
    for _ in 0..2 {
        assert_eq!(scene.run_to_the_end().await.counts.disappeared, 0);
    }
    assert!(world.writes().is_empty());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_of_removals_is_held_when_a_day_brings_too_many() {
    let mut scene = workspace(30, "delete").await;
    scene.set("MAX_REMOVALS", "4");
    let world = scene.world();
    leave(&scene, &some(&scene, 3, AccountStanding::Created));
    scene.run_to_the_end().await;
    assert_eq!(scene.run_to_the_end().await.counts.disappeared, 3);
    leave(&scene, &some(&scene, 2, AccountStanding::Created));
    scene.run_to_the_end().await;
    assert_eq!(scene.run().await.status.held, 2);
    assert_eq!(writes(&scene, Endpoint::AccountDelete).len(), 3);
    assert_eq!(world.accounts().len(), 27);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_removal_is_believed_unasked_each_one_waits_for_a_person() {
    let mut scene = workspace(20, "delete").await;
    scene.set("MAX_REMOVALS", "0");
    let world = scene.world();
    let [gone, renamed] = some(&scene, 2, AccountStanding::Created).try_into().unwrap();
    leave(&scene, &[gone]);
    world.update_person(&renamed.id, |one| one.email = "renamed@example.com".to_owned());
    scene.run_to_the_end().await;
    for _ in 0..3 {
        let end = scene.run().await;
        assert_eq!((end.status.held, end.status.state), (2, ConnectorState::Held));
    }
    assert_eq!(world.count(Endpoint::AccountDelete), 0);
    assert_eq!(scene.act(|store| store.approve(jiff::Timestamp::now())).await, 2);
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.disappeared, end.counts.deleted, end.status.held), (1, 2, 0));
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_there_at_every_other_poll_keeps_their_account() {
    let scene = workspace(20, "delete").await;
    let world = scene.world();
    let flickers = some(&scene, 3, AccountStanding::Created);
    for _ in 0..6 {
        leave(&scene, &flickers);
        assert_eq!(scene.run_to_the_end().await.status.users, 20);
        for person in &flickers {
            world.add_person(person.clone());
        }
        assert_eq!(scene.run_to_the_end().await.status.users, 20);
    }
    assert!(world.writes().is_empty());
    assert!(scene.events(EventKind::UserDisappeared).is_empty());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_gone_for_two_polls_and_back_again_and_again_loses_an_account_only_as_often_as_a_day_believes() {
    let scene = workspace(20, "delete").await;
    let world = scene.world();
    let flickers = some(&scene, 2, AccountStanding::Created);
    for round in 1..=5 {
        leave(&scene, &flickers);
        for _ in 0..2 {
            scene.run().await;
        }
        let deleted = writes(&scene, Endpoint::AccountDelete).len();
        assert_eq!(deleted, (2 * round).min(4), "five a day");
        for person in &flickers {
            world.add_person(person.clone());
        }
        let end = scene.run_to_the_end().await;
        assert_eq!((end.status.users, end.status.held), (20, 0), "what was held is dropped");
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_workspace_is_always_held() {
    let mut scene = workspace(4, "delete").await;
    scene.set("MAX_REMOVALS", "1000");
    let world = scene.world();
    let people = world.people();
    leave(&scene, &people);
    scene.run().await;
    for _ in 0..3 {
        let end = scene.run().await;
        assert_eq!((end.status.held, end.status.users), (4, 4));
    }
    assert!(world.writes().is_empty());
    for person in people {
        world.add_person(person);
    }
    scene.run_to_the_end().await;
    assert!(world.writes().is_empty());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_e_mail_is_a_new_account_and_the_old_one_goes_only_under_delete_and_only_if_ours() {
    for removals in ["report", "delete"] {
        let scene = workspace(20, removals).await;
        let world = scene.world();
        let ours = some(&scene, 1, AccountStanding::Created).remove(0);
        let theirs = some(&scene, 1, AccountStanding::Found).remove(0);
        for person in [&ours, &theirs] {
            world.update_person(&person.id, |one| one.email = format!("new.{}", one.email));
        }
        let end = scene.run_to_the_end().await;
        assert_eq!((end.counts.changed, end.counts.created, end.counts.deleted), (2, 2, 0));
        assert_in_step(&scene);
        for _ in 0..2 {
            scene.run_to_the_end().await;
        }
        let deleted = usize::from(removals == "delete");
        assert_eq!(world.writes().len(), 2 + deleted);
        assert_eq!(writes(&scene, Endpoint::AccountDelete).len(), deleted);
        assert_eq!(scene.account(&ours.email).is_none(), removals == "delete");
        assert!(scene.account(&theirs.email).is_some());
        assert!(scene.events(EventKind::UserDisappeared).is_empty());
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_e_mail_that_changes_and_changes_back_keeps_its_account() {
    let scene = workspace(20, "delete").await;
    let world = scene.world();
    let ours = some(&scene, 1, AccountStanding::Created).remove(0);
    let account = scene.account(&ours.email).unwrap();
    world.update_person(&ours.id, |one| one.email = "elsewhere@example.com".to_owned());
    scene.run_to_the_end().await;
    world.update_person(&ours.id, |one| one.email = ours.email.clone());
    for _ in 0..3 {
        scene.run_to_the_end().await;
    }
    assert_eq!(scene.account(&ours.email), Some(account));
    assert!(scene.account("elsewhere@example.com").is_none(), "ours, and nobody's");
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_e_mail_that_changes_only_its_case_changes_no_account() {
    let scene = workspace(20, "delete").await;
    let world = scene.world();
    let person = some(&scene, 1, AccountStanding::Created).remove(0);
    world.update_person(&person.id, |one| one.email = one.email.to_uppercase());
    for _ in 0..3 {
        scene.run_to_the_end().await;
    }
    assert!(world.writes().is_empty());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_with_the_same_e_mail_share_one_account_that_goes_with_the_last() {
    let mut scene = Scene::with_people(20).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    let first = Person::with_email("Shared.Box@Example.com");
    let mut second = Person::with_email("shared.box@example.com");
    second.sso_provision = true;
    world.add_person(first.clone());
    world.add_person(second.clone());
    let end = scene.run_to_the_end().await;
    assert_eq!((end.status.users, end.counts.created), (22, 21));
    assert_in_step(&scene);
    let account = scene.account("shared.box@example.com").unwrap();

    world.clear_requests();
    leave(&scene, std::slice::from_ref(&first));
    for _ in 0..3 {
        scene.run_to_the_end().await;
    }
    assert!(world.writes().is_empty());
    assert_eq!(scene.account(&fold(&first.email)), Some(account));
    leave(&scene, std::slice::from_ref(&second));
    for _ in 0..2 {
        scene.run_to_the_end().await;
    }
    assert_eq!(writes(&scene, Endpoint::AccountDelete).len(), 1);
    assert!(scene.account("shared.box@example.com").is_none());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_change_remove_nobody() {
    let mut scene = workspace(20, "delete").await;
    let world = scene.world();
    let person = some(&scene, 1, AccountStanding::Created).remove(0);
    scene.set("USERS__EXCLUDE_EMAILS", &person.email);
    for _ in 0..3 {
        let end = scene.run_to_the_end().await;
        assert_eq!((end.status.filtered, end.status.users), (1, 20));
    }
    assert!(world.writes().is_empty());
    scene.unset("USERS__EXCLUDE_EMAILS");
    scene.run_to_the_end().await;
    assert!(world.writes().is_empty());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_refused_is_parked_with_the_peers_words_and_retried_on_demand() {
    let mut scene = Scene::with_people(10).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    scene.run_to_the_end().await;
    let gone = world.people()[0].clone();
    world.remove_person(&gone.id);
    scene.run_to_the_end().await;
    world.fault(FaultRule::once(Endpoint::AccountDelete, Fault::status(400)));
    let end = scene.run().await;
    assert_eq!(
        (end.outcome, end.status.parked, end.counts.deleted),
        (RunOutcome::Partial, 1, 0)
    );
    // It is no user who is parked, and nobody is looked for among them.
    assert_eq!(end.status.deletions_parked, 1);
    assert_eq!(
        end.status.reason.as_deref(),
        Some("JumpCloud refuses to delete 1 account")
    );
    assert!(
        end.status
            .action
            .unwrap()
            .starts_with("see why (torq-connector events ")
    );
    world.clear_requests();
    assert_eq!(scene.run().await.outcome, RunOutcome::Partial);
    assert_eq!(world.count(Endpoint::AccountDelete), 0, "not before somebody says so");

    assert_eq!(scene.act(|store| store.retry()).await, 1);
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.deleted, end.status.parked), (1, 0));
    assert!(scene.account(&gone.email).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_that_nobody_answers_for_are_not_called_done_and_those_that_took_effect_count_as_ours() {
    let mut scene = Scene::with_people(10).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    scene.run_to_the_end().await;
    let gone = world.people()[0].clone();
    world.remove_person(&gone.id);
    scene.run_to_the_end().await;
    // The last look before the deletion finds it, the answer to the deletion is lost, and so is everything after.
    world.fault(times(1, Endpoint::AccountDelete, Fault::LostAnswer));
    world.fault(FaultRule::always(Endpoint::AccountGet, Fault::status(503)).after(1));
    let end = scene.run().await;
    assert!(
        matches!(end.outcome, RunOutcome::Partial | RunOutcome::Failed),
        "{end:?}"
    );
    assert_eq!(end.status.deletions_pending, 1);
    assert!(scene.account(&gone.email).is_none(), "it took effect");

    world.clear_faults();
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.deleted, end.status.deletions_pending), (1, 0));
    assert_eq!(scene.events(EventKind::AccountDeleted).len(), 1);
    assert!(scene.events(EventKind::AccountLost).is_empty());
}
