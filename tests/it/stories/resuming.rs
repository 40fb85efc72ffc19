//! Runs that are cut short, and the ones that go on where they were.

use std::collections::BTreeSet;

use torq_connector::sandbox::{Endpoint, Fault, FaultRule, RequestLog, WorldHandle};
use torq_connector::sync::Halt;
use torq_connector::view::EventKind;

use crate::world::{Scene, assert_in_step, writes};

/// The pages that Torq handed out: listing and page token.
fn pages(world: &WorldHandle) -> BTreeSet<(String, String)> {
    let name = |one: &RequestLog, parameter| one.parameter(parameter).unwrap_or_default().to_owned();
    let requests = world.requests().into_iter();
    requests
        .filter(|one| one.endpoint == Endpoint::TorqUsers && one.handled == Some(200))
        .map(|one| (name(&one, "sso_provision"), name(&one, "page_token")))
        .collect()
}

/// Completes a poll that was cut short, and compares what was asked before with what was asked after.
async fn completes(scene: &Scene) {
    let world = scene.world();
    let before = pages(&world);
    assert!(before.len() >= 5, "{before:?}");
    assert!(writes(scene, Endpoint::AccountCreate).is_empty());
    world.clear_faults();
    world.clear_requests();
    scene.run_to_the_end().await;
    assert_in_step(scene);
    let after = pages(&world);
    for listing in ["true", "false"] {
        let again = before.intersection(&after).filter(|(one, _)| one == listing);
        assert!(
            again.count() <= 1,
            "only the page that was under way is asked for again"
        );
    }
    assert_eq!(before.union(&after).count(), 9 + 4);
    assert_eq!(scene.events(EventKind::UserAppeared).len(), 60);
}

async fn in_small_pages() -> Scene {
    let scene = Scene::with_people(60).await;
    scene.behave(|behaviour| behaviour.torq_page_cap = 5);
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_was_stopped_goes_on_and_asks_for_no_page_again() {
    let scene = in_small_pages().await;
    let end = scene.stopped_at(Endpoint::TorqUsers, 7).await;
    assert!(matches!(end.halt, Some(Halt::Stopped)), "{end:?}");
    assert!(end.status.progress.is_some());
    completes(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_was_killed_goes_on_and_asks_for_no_page_again() {
    let scene = in_small_pages().await;
    scene.killed_at(Endpoint::TorqUsers, 7).await;
    completes(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_was_killed_while_torq_hangs_goes_on_and_asks_for_no_page_again() {
    let scene = in_small_pages().await;
    scene
        .world()
        .fault(FaultRule::always(Endpoint::TorqUsers, Fault::Hang).after(6));
    scene.killed_at(Endpoint::TorqUsers, 8).await;
    completes(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_failed_goes_on_and_asks_for_no_page_again() {
    let scene = in_small_pages().await;
    let world = scene.world();
    world.fault(FaultRule::always(Endpoint::TorqUsers, Fault::status(502)).after(6));
    scene.run().await;
    completes(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_cut_short_again_and_again_makes_one_account_each() {
    for kill in [false, true] {
        let scene = Scene::with_people(40).await;
        let world = scene.world();
        scene.behave(|behaviour| behaviour.accept_duplicates = true);
        for creates in [1, 9, 8, 7] {
            world.clear_requests();
            if kill {
                scene.killed_at(Endpoint::AccountCreate, creates).await;
            } else {
                let end = scene.stopped_at(Endpoint::AccountCreate, creates).await;
                assert!(matches!(end.halt, Some(Halt::Stopped)), "{end:?}");
            }
        }
        scene.run_to_the_end().await;
        assert_in_step(&scene);
        assert_eq!(world.accounts().len(), 40);
        assert_eq!(scene.events(EventKind::AccountCreated).len(), 40);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_can_be_killed_at_any_of_its_steps() {
    for endpoint in [
        Endpoint::TorqToken,
        Endpoint::TorqRoles,
        Endpoint::JumpCloudToken,
        Endpoint::Applications,
        Endpoint::ApplicationCreate,
        Endpoint::Accounts,
        Endpoint::DirectorySearch,
    ] {
        let scene = Scene::with_people(10).await;
        scene.killed_at(endpoint, 1).await;
        scene.run_to_the_end().await;
        assert_in_step(&scene);
        let torq = |one: &torq_connector::sandbox::Application| one.catalog_app_id == "torq";
        assert_eq!(scene.world().applications().into_iter().filter(torq).count(), 1);
    }
}
