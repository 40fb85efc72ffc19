//! Deletions that take effect when nobody waits for them any more: because their process died, or a person thought better of them.

use std::time::Duration;

use jiff::Timestamp;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Person};
use torq_connector::view::EventKind;

use crate::world::{Scene, assert_in_step, times};

/// Twelve people under `delete`, of whom four were missing once.
async fn with_four_missing() -> (Scene, Vec<Person>) {
    let mut scene = Scene::with_people(12).await;
    scene.set("REMOVALS", "delete");
    scene.settling = Duration::MAX;
    let world = scene.world();
    scene.run_to_the_end().await;
    let gone = world.people()[..4].to_vec();
    for person in &gone {
        world.remove_person(&person.id);
    }
    scene.run_to_the_end().await;
    (scene, gone)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_takes_effect_after_its_process_was_killed_leaves_nobody_who_is_back_without_an_account() {
    let (mut scene, gone) = with_four_missing().await;
    scene.set_general("NETWORK__TIMEOUT", "5s");
    let world = scene.world();
    world.fault(FaultRule::always(
        Endpoint::AccountDelete,
        Fault::Delay(Duration::from_millis(3500)),
    ));
    scene.killed_at(Endpoint::AccountDelete, 4).await;
    for person in &gone {
        world.add_person(person.clone());
    }
    // Its list still has them.
    let end = scene.run_to_the_end().await;
    assert_eq!((end.status.users, end.status.accounts), (12, 12));
    assert_in_step(&scene);
    assert_eq!(scene.events(EventKind::AccountLost).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_under_way_that_is_taken_back_and_happens_all_the_same_is_noticed() {
    for back in [false, true] {
        let (mut scene, gone) = with_four_missing().await;
        scene.set("MAX_REMOVALS", "0");
        assert_eq!(scene.run().await.status.held, 4);
        scene.act(|store| store.approve(Timestamp::now())).await;
        scene.set_general("NETWORK__TIMEOUT", "2s");
        let world = scene.world();
        world.fault(times(
            4,
            Endpoint::AccountDelete,
            Fault::Delay(Duration::from_millis(3500)),
        ));
        let connector = scene.connector().await;
        let withdraw = async {
            world.seen(Endpoint::AccountDelete, 4).await;
            let withdrawn = connector
                .state()
                .call(|store| store.withdraw_approval(Timestamp::now()))
                .await
                .unwrap();
            assert_eq!((withdrawn.held, withdrawn.under_way), (4, 4));
        };
        let (end, ()) = tokio::join!(connector.run(), withdraw);
        end.unwrap();
        drop(connector);
        if back {
            for person in &gone {
                world.add_person(person.clone());
            }
        }
        let end = scene.run_to_the_end().await;
        assert_in_step(&scene);
        assert_eq!(end.status.held, 0, "nobody is asked about who is gone already");
        assert_eq!(world.count(Endpoint::AccountDelete), 4);
        assert_eq!(world.accounts().len(), if back { 12 } else { 8 });
    }
}
