//! Somebody leaves, and everything of theirs is deleted on the same day, by whoever does that.

use torq_connector::view::{AccountStanding, RunOutcome};

use crate::world::{Scene, assert_in_step};

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_deleted_with_its_user_is_not_made_again() {
    let scene = Scene::with_known_people(20).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    let gone = world.people()[0].clone();
    world.remove_person(&gone.id);
    world.remove_from_directory(&gone.email);
    world.delete_account(&scene.account(&gone.email).unwrap().id);
    world.clear_requests();

    // Missing once, they count as a user still. But nothing is made for them.
    let end = scene.run().await;
    assert_eq!((end.outcome, end.status.pending), (RunOutcome::Partial, 1));
    assert!(end.status.reason.unwrap().contains("not seen by the last poll"));
    assert!(world.writes().is_empty());
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts.disappeared, 1);
    assert!(world.writes().is_empty());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_without_an_account_who_was_missed_once_gets_it_when_they_are_seen_again() {
    let scene = Scene::with_people(10).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    let away = world.people()[0].clone();
    world.remove_person(&away.id);
    world.delete_account(&scene.account(&away.email).unwrap().id);
    scene.run().await;
    assert_eq!(scene.user(&away.id).account, AccountStanding::Pending);
    world.add_person(away);
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts.created, 1);
    assert_in_step(&scene);
}
