//! Credentials go where the configuration says and nowhere else, wherever an answer points.

use torq_connector::sandbox::{Endpoint, Fault, FaultRule};
use wiremock::MockServer;

use crate::world::{Scene, assert_in_step, times};

/// A scene with something to do on every road: two to be found, created, associated and deleted, with a role to be read.
async fn busy() -> Scene {
    let mut scene = Scene::with_known_people(8).await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    scene.run_to_the_end().await;
    let people = world.people();
    for person in &people[..2] {
        world.remove_person(&person.id);
    }
    scene.run_to_the_end().await;
    world.add_people(2);
    // Their accounts lost their owner, and are to be associated with the new one.
    for person in &people[2..4] {
        world.remove_from_directory(&person.email);
        world.add_to_directory(&person.email);
    }
    // One is not in the list when it is read, and is asked for by itself.
    let account = scene.account(&people[5].email).unwrap();
    world.delete_account(&account.id);
    scene
}

const ENDPOINTS: [Endpoint; 11] = [
    Endpoint::TorqToken,
    Endpoint::TorqUsers,
    Endpoint::JumpCloudToken,
    Endpoint::Application,
    Endpoint::Applications,
    Endpoint::Accounts,
    Endpoint::AccountGet,
    Endpoint::DirectorySearch,
    Endpoint::AccountCreate,
    Endpoint::AccountAssociate,
    Endpoint::AccountDelete,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_on_any_road_is_never_followed() {
    let mut scenes = tokio::task::JoinSet::new();
    for endpoint in ENDPOINTS {
        scenes.spawn(async move {
            let trap = MockServer::start().await;
            let scene = busy().await;
            let world = scene.world();
            if endpoint == Endpoint::Applications {
                // The list is read only where the application is not known.
                world.delete_application();
            }
            let elsewhere = Fault::Redirect(format!("{}/steal", trap.uri()));
            world.clear_requests();
            world.fault(times(2, endpoint, elsewhere));
            scene.run_to_the_end().await;
            assert!(world.count(endpoint) >= 2, "{endpoint:?} was redirected");
            assert_in_step(&scene);
            assert!(trap.received_requests().await.unwrap().is_empty(), "{endpoint:?}");
        });
    }
    scenes.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_of_a_convenience_is_never_followed_either() {
    let trap = MockServer::start().await;
    let scene = Scene::with_people(3).await;
    let world = scene.world();
    let elsewhere = || Fault::Redirect(format!("{}/steal", trap.uri()));
    world.fault(FaultRule::always(Endpoint::TorqRoles, elsewhere()));
    // A redirect of what tells permission from licence, on the way to the answer.
    scene.run_to_the_end().await;
    scene.behave(|behaviour| behaviour.licence = torq_connector::sandbox::Licence::Forbidden);
    world.fault(times(2, Endpoint::DirectoryList, elsewhere()));
    scene.run().await;
    assert!(world.count(Endpoint::DirectoryList) >= 2 && world.count(Endpoint::TorqRoles) >= 1);
    assert!(trap.received_requests().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn next_links_and_next_fields_that_lead_elsewhere_are_never_followed() {
    let trap = MockServer::start().await;
    let scene = Scene::with_people(30).await;
    let world = scene.world();
    scene.behave(|behaviour| {
        behaviour.next_link = Some(format!("{}/next", trap.uri()));
        behaviour.list_cap = 3;
    });
    scene.run_to_the_end().await;
    // The same in the body, under every name that it might have.
    let rows: Vec<_> = world
        .accounts()
        .into_iter()
        .map(|one| serde_json::json!({"id": one.id, "email": one.email}))
        .collect();
    let next = format!("{}/next", trap.uri());
    let body = serde_json::json!({
        "results": rows, "next": next, "next_page": next, "links": {"next": next}, "totalCount": 10_000,
    });
    let body = Fault::Status {
        status: 200,
        retry_after: None,
        body: body.to_string(),
    };
    world.fault(FaultRule::once(Endpoint::Accounts, body));
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert!(trap.received_requests().await.unwrap().is_empty());
}
