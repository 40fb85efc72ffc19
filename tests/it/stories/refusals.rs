//! Credentials, permission and licence that are refused: the run says which side and why, and touches nothing.

use torq_connector::http::FailureKind;
use torq_connector::model::Peer;
use torq_connector::sandbox::{Endpoint, Licence};
use torq_connector::sync::{Halt, RunEnd};
use torq_connector::view::{ConnectorState, EventKind, RunOutcome};

use crate::world::{Scene, assert_in_step, refusal};

fn shown(scene: &Scene) -> String {
    serde_json::to_string(&scene.users()).unwrap()
}

/// A workspace in step, then a change in Torq that a refused run must not see.
async fn changed_workspace() -> Scene {
    let scene = Scene::with_people(20).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    for person in &world.people()[..3] {
        world.remove_person(&person.id);
    }
    world.add_people(2);
    scene
}

/// Two runs are refused by Torq with nothing written and nothing forgotten; `mend` brings the connector back.
async fn refused_by_torq(kind: FailureKind, spoil: fn(&mut Scene), mend: fn(&mut Scene)) -> RunEnd {
    let mut scene = changed_workspace().await;
    let (users, accounts) = (shown(&scene), scene.world().accounts());
    spoil(&mut scene);
    scene.world().clear_requests();
    scene.run().await;
    let end = scene.run().await;
    assert_eq!(end.outcome, RunOutcome::Refused);
    assert_eq!(refusal(&end), (Peer::Torq, kind));
    assert_eq!(scene.status().state, ConnectorState::ReconnectRequired);
    assert!(scene.world().writes().is_empty());
    assert_eq!(shown(&scene), users);
    assert_eq!(scene.world().accounts(), accounts);

    mend(&mut scene);
    let end_of_mended = scene.run_to_the_end().await;
    assert_eq!(end_of_mended.counts.created, 2, "back where it was");
    assert_eq!(scene.status().state, ConnectorState::Connected);
    assert!(
        scene.events(EventKind::UserDisappeared).is_empty(),
        "absent from one poll only"
    );
    assert_in_step(&scene);
    end
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_torq_secret_stops_the_connector_and_nothing_else() {
    let end = refused_by_torq(
        FailureKind::Credentials,
        |scene| scene.set("TORQ__CLIENT_SECRET", "not-the-secret"),
        |scene| scene.unset("TORQ__CLIENT_SECRET"),
    )
    .await;
    let text = format!("{:?} {}", end.halt, end.status.action.unwrap());
    assert!(text.contains("API key") && !text.contains("not-the-secret"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_torq_key_stops_the_connector_and_nothing_else() {
    let end = refused_by_torq(
        FailureKind::Credentials,
        |scene| scene.world().revoke_torq_key(),
        |scene| scene.world().restore_torq_key(),
    )
    .await;
    assert!(end.status.action.unwrap().contains("new API key in Torq"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_user_read_is_told_so() {
    let end = refused_by_torq(
        FailureKind::Permission,
        |scene| scene.world().set_torq_scope(false),
        |scene| scene.world().set_torq_scope(true),
    )
    .await;
    assert!(end.halt.unwrap().to_string().contains("user.read"));
    assert!(end.status.action.unwrap().contains("user.read"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_between_two_pages_forgets_nobody() {
    let scene = Scene::with_people(60).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    scene.behave(|behaviour| behaviour.torq_page_cap = 5);
    let (users, accounts) = (shown(&scene), world.accounts());
    for _ in 0..3 {
        world.clear_requests();
        let connector = scene.connector().await;
        let revoke = async {
            world.seen(Endpoint::TorqUsers, 3).await;
            world.revoke_torq_key();
        };
        let (end, ()) = tokio::join!(connector.run(), revoke);
        assert_eq!(refusal(&end.unwrap()), (Peer::Torq, FailureKind::Credentials));
        assert!(world.writes().is_empty());
        world.restore_torq_key();
    }
    assert_eq!((shown(&scene), world.accounts()), (users, accounts));
    scene.run_to_the_end().await;
    assert_in_step(&scene);
}

/// A run is refused by JumpCloud with nothing written; whoever is new waits, and nobody is forgotten.
async fn refused_by_jumpcloud(spoil: fn(&mut Scene), mend: fn(&mut Scene)) -> RunEnd {
    let mut scene = changed_workspace().await;
    let accounts = scene.world().accounts();
    spoil(&mut scene);
    scene.world().clear_requests();
    let end = scene.run().await;
    assert_eq!(end.outcome, RunOutcome::Refused);
    assert_eq!(refusal(&end).0, Peer::JumpCloud);
    assert!(scene.world().writes().is_empty());
    assert_eq!(scene.world().accounts(), accounts);
    assert_eq!((end.status.users, end.status.accounts, end.status.pending), (22, 20, 2));

    mend(&mut scene);
    assert_eq!(scene.run_to_the_end().await.counts.created, 2);
    assert_eq!(scene.status().state, ConnectorState::Connected);
    assert_in_step(&scene);
    end
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_jumpcloud_secret_stops_the_connector_and_nothing_else() {
    let end = refused_by_jumpcloud(
        |scene| scene.set("JUMPCLOUD__CLIENT_SECRET", "not-the-secret"),
        |scene| scene.unset("JUMPCLOUD__CLIENT_SECRET"),
    )
    .await;
    assert_eq!(refusal(&end).1, FailureKind::Credentials);
    assert_eq!(end.status.state, ConnectorState::ReconnectRequired);
    let action = end.status.action.unwrap();
    assert!(action.contains("JumpCloud service account"), "{action}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_service_account_stops_the_connector_and_nothing_else() {
    let end = refused_by_jumpcloud(
        |scene| scene.world().revoke_jumpcloud_key(),
        |scene| scene.world().restore_jumpcloud_key(),
    )
    .await;
    assert_eq!(refusal(&end).1, FailureKind::Credentials);
    assert_eq!(end.status.state, ConnectorState::ReconnectRequired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_organisation_is_told_in_the_peers_words() {
    let end = refused_by_jumpcloud(
        |scene| scene.world().set_org_id(Some("66a1ffffffffffffffffffff")),
        |scene| scene.world().set_org_id(None),
    )
    .await;
    assert_eq!(end.status.state, ConnectorState::ReconnectRequired);
    assert!(end.halt.unwrap().to_string().contains("x-org-id header is required"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_on_everything_is_missing_permission() {
    let end = refused_by_jumpcloud(
        |scene| scene.behave(|behaviour| behaviour.jumpcloud_forbidden = true),
        |scene| scene.behave(|behaviour| behaviour.jumpcloud_forbidden = false),
    )
    .await;
    assert!(matches!(end.halt, Some(Halt::Reconnect { .. })));
    assert_eq!(refusal(&end).1, FailureKind::Permission);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_402_is_a_missing_licence() {
    let end = refused_by_jumpcloud(
        |scene| scene.behave(|behaviour| behaviour.licence = Licence::PaymentRequired),
        |scene| scene.behave(|behaviour| behaviour.licence = Licence::Valid),
    )
    .await;
    assert!(matches!(end.halt, Some(Halt::NotLicensed(_))));
    assert_eq!(end.status.state, ConnectorState::NotLicensed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_of_saas_management_alone_is_a_missing_licence() {
    let end = refused_by_jumpcloud(
        |scene| scene.behave(|behaviour| behaviour.licence = Licence::Forbidden),
        |scene| scene.behave(|behaviour| behaviour.licence = Licence::Valid),
    )
    .await;
    assert!(matches!(end.halt, Some(Halt::NotLicensed(_))));
    assert_eq!(end.status.state, ConnectorState::NotLicensed);
}
