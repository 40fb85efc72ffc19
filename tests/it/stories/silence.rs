//! Rows that nobody ever answers for, and a peer that answers reads and no writes.

use std::time::Duration;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule};

use torq_connector::sync::Halt;
use torq_connector::view::{ConnectorState, RunOutcome};

use crate::world::{Scene, assert_in_step};

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nobody_answers_for_starve_nobody_who_stands_behind_them() {
    let scene = Scene::with_people(50).await;
    let world = scene.world();
    let mut emails: Vec<_> = world.people().into_iter().map(|person| person.email).collect();
    emails.sort();
    // More in a row, at the front, than a pass waits for.
    let failing = emails[..24].to_vec();
    scene.behave(|behaviour| behaviour.failing_emails = failing.clone());
    let end = scene.run().await;
    assert_eq!(end.outcome, RunOutcome::Partial, "{end:?}");
    assert_eq!((end.counts.created, end.status.pending), (26, 24));
    let reason = end.status.reason.unwrap();
    assert!(reason.contains("24"), "{reason}");

    scene.behave(|behaviour| behaviour.failing_emails.clear());
    assert_eq!(scene.run_to_the_end().await.counts.created, 24);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_that_nobody_answers_for_does_not_make_the_connector_fail() {
    let scene = Scene::with_people(10).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    let odd = world.add_people(1).remove(0);
    scene.behave(|behaviour| behaviour.failing_emails = vec![odd.email.clone()]);
    world.clear_requests();
    let end = scene.run().await;
    assert_eq!((end.outcome, end.status.pending), (RunOutcome::Partial, 1), "{end:?}");
    assert_eq!(end.status.state, ConnectorState::Connected);
    assert!(world.count(Endpoint::AccountCreate) <= 3, "it is not hammered");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_association_that_nobody_answers_for_holds_up_no_other() {
    let scene = Scene::with_known_people(20).await;
    let world = scene.world();
    scene.give_accounts(&world.people());
    let odd = world.people()[0].email.clone();
    scene.behave(|behaviour| behaviour.failing_emails = vec![odd.clone()]);
    let end = scene.run().await;
    assert_eq!((end.counts.found, end.counts.associated), (20, 19));
    assert_eq!((end.outcome, end.status.associations_pending), (RunOutcome::Partial, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_create_is_ever_answered_the_run_fails_and_ends() {
    let scene = Scene::with_people(60).await;
    let world = scene.world();
    world.fault(FaultRule::always(Endpoint::AccountCreate, Fault::status(500)));
    let end = scene.run().await;
    assert_eq!(end.outcome, RunOutcome::Failed);
    assert!(matches!(end.halt, Some(Halt::Unavailable(_))), "{end:?}");
    assert_eq!(end.status.pending, 60, "nobody is forgotten");
    let sent = world.count(Endpoint::AccountCreate);
    assert!(sent <= 3 * 24, "{sent}");
    assert!(world.accounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_write_is_answered_a_run_is_no_success_though_everything_else_was_delivered_before() {
    for fault in [Fault::status(503), Fault::status(429)] {
        let scene = Scene::with_people(12).await;
        let world = scene.world();
        scene.run_to_the_end().await;
        let before = scene.status().last_success;
        world.add_people(3);
        world.fault(FaultRule::always(Endpoint::AccountCreate, fault));
        let connector = scene.impatient_connector(Duration::from_secs(3)).await;
        let end = connector.run().await.unwrap();
        drop(connector);
        assert_eq!(end.outcome, RunOutcome::Failed, "{end:?}");
        assert_eq!(end.status.last_success, before);
        assert_eq!(end.status.pending, 3, "nobody is forgotten");
        world.clear_faults();
        scene.run_to_the_end().await;
        assert_in_step(&scene);
    }
}
