//! Tokens that end at a bad moment, and where they never go.

use torq_connector::http::FailureKind;
use torq_connector::sandbox::{AuthorizationKind, Endpoint, Fault, FaultRule, Options, Peer};
use wiremock::MockServer;

use crate::world::{Scene, assert_in_step, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn a_torq_token_that_expires_between_two_pages_is_renewed_once() {
    let scene = Scene::with_people(60).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.torq_page_cap = 7);
    world.fault(FaultRule::once(Endpoint::TorqUsers, Fault::ExpireTokensFirst).after(3));
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_eq!(world.count(Endpoint::TorqToken), 2);
    assert!(world.requests().iter().any(|one| one.status == Some(302)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torq_token_that_is_forgotten_between_two_pages_is_renewed_once() {
    let scene = Scene::with_people(60).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.torq_page_cap = 7);
    let connector = scene.connector().await;
    let forget = async {
        world.seen(Endpoint::TorqUsers, 4).await;
        world.forget_tokens(Peer::Torq);
    };
    let (end, ()) = tokio::join!(connector.run(), forget);
    assert!(end.unwrap().halt.is_none());
    assert_in_step(&scene);
    assert_eq!(world.count(Endpoint::TorqToken), 2);
    let refused = |one: &torq_connector::sandbox::RequestLog| one.status == Some(401);
    assert!(world.requests().iter().any(refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jumpcloud_token_that_ends_in_the_middle_of_a_delivery_costs_nobody_an_account() {
    for forget in [false, true] {
        let scene = Scene::with_people(40).await;
        let world = scene.world();
        let connector = scene.connector().await;
        let end_it = async {
            world.seen(Endpoint::AccountCreate, 15).await;
            if forget {
                world.forget_tokens(Peer::JumpCloud);
            } else {
                world.expire_tokens(Peer::JumpCloud);
            }
        };
        let (end, ()) = tokio::join!(connector.run(), end_it);
        assert_eq!(end.unwrap().counts.created, 40);
        assert_in_step(&scene);
        assert_eq!(world.count(Endpoint::JumpCloudToken), 2, "one renewal for all who wait");
        assert!(world.requests().iter().any(|one| one.status == Some(401)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torq_redirect_and_a_next_link_to_another_host_are_never_followed() {
    let trap = MockServer::start().await;
    let scene = Scene::with_people(30).await;
    let world = scene.world();
    scene.behave(|behaviour| {
        behaviour.login_url = Some(trap.uri());
        behaviour.next_link = Some(format!("{}/next", trap.uri()));
        behaviour.list_cap = 3;
    });
    world.fault(FaultRule::once(Endpoint::TorqUsers, Fault::ExpireTokensFirst));
    scene.run_to_the_end().await;
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert!(trap.received_requests().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrators_api_key_does_what_a_service_account_does() {
    let mut scene = Scene::with_people(20).await;
    let world = scene.world();
    scene.edit(|file| {
        let (torq, jumpcloud) = file.split_once("[connectors.demo.jumpcloud]").unwrap();
        let kept = jumpcloud.lines().filter(|line| !line.starts_with("client_"));
        let jumpcloud = kept.collect::<Vec<_>>().join("\n");
        format!("{torq}[connectors.demo.jumpcloud]{jumpcloud}\napi_key = \"sandbox-jumpcloud-key\"\n")
    });
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_eq!(world.count(Endpoint::JumpCloudToken), 0);
    let requests = world.requests().into_iter().filter(|one| one.peer == Peer::JumpCloud);
    assert!(
        requests
            .map(|one| one.authorization)
            .all(|kind| kind == AuthorizationKind::ApiKey)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_organisation_goes_with_every_request_to_jumpcloud_and_with_none_to_torq() {
    let organisation = "66a1aaaaaaaaaaaaaaaaaaaa";
    let scene = Scene::new(Options {
        people: 20,
        org_id: Some(organisation.to_owned()),
        ..Options::default()
    })
    .await;
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    for request in scene.world().requests() {
        let named = request.org_id.as_deref();
        match (request.peer, request.endpoint) {
            (Peer::Torq, _) => assert_eq!(named, None),
            (Peer::JumpCloud, Endpoint::JumpCloudToken) => {}
            (Peer::JumpCloud, _) => assert_eq!(named, Some(organisation), "{}", request.path),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_that_is_revoked_in_the_middle_of_a_delivery_costs_nobody_a_second_account() {
    let scene = Scene::with_people(40).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    let connector = scene.connector().await;
    let revoke = async {
        world.seen(Endpoint::AccountCreate, 15).await;
        world.revoke_jumpcloud_key();
    };
    let (end, ()) = tokio::join!(connector.run(), revoke);
    drop(connector);
    assert_eq!(
        refusal(&end.unwrap()),
        (torq_connector::model::Peer::JumpCloud, FailureKind::Credentials)
    );
    world.restore_jumpcloud_key();
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_eq!(world.accounts().len(), 40);
}
