//! The plain case, at the size of a real organisation.

use torq_connector::sandbox::{Endpoint, Options};

use crate::world::{Scene, assert_in_step, fold, writes};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_users_get_one_account_each_and_later_runs_write_what_is_new_and_nothing_else() {
    let scene = Scene::new(Options {
        people: 1000,
        sso_share: 0.7,
        directory_share: 0.8,
        ..Options::default()
    })
    .await;
    let world = scene.world();

    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.created, end.counts.associated), (1000, 800));
    assert_eq!(world.accounts().len(), 1000);
    assert_in_step(&scene);
    assert_eq!(writes(&scene, Endpoint::ApplicationCreate).len(), 1);
    assert_eq!(world.writes().len(), 1001, "a create for each, and nothing else");

    world.clear_requests();
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts, Default::default());
    assert!(world.writes().is_empty());

    // Five who were not in the directory are now, and seven people join.
    let directory = world.directory();
    let known = |email: &str| directory.iter().any(|user| user.email == fold(email));
    let unmatched: Vec<_> = world
        .people()
        .into_iter()
        .filter(|one| !known(&one.email))
        .take(5)
        .collect();
    for person in &unmatched {
        world.add_to_directory(&person.email);
    }
    let new = world.add_people(7);
    world.clear_requests();
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts.appeared, 7);
    assert_in_step(&scene);

    let creates = writes(&scene, Endpoint::AccountCreate);
    let mut created: Vec<_> = creates
        .iter()
        .map(|one| one.body.as_ref().unwrap()["email"].clone())
        .collect();
    let mut expected: Vec<_> = new.iter().map(|one| serde_json::json!(one.email)).collect();
    created.sort_by_key(|email| email.to_string());
    expected.sort_by_key(|email| email.to_string());
    assert_eq!(created, expected);
    // The association goes with the create, where there is one.
    for create in &creates {
        let body = create.body.as_ref().unwrap();
        let email = fold(body["email"].as_str().unwrap());
        let matched = world.directory().into_iter().find(|user| user.email == email);
        assert_eq!(
            body.get("user_id").and_then(|id| id.as_str()),
            matched.map(|user| user.id).as_deref()
        );
    }
    let associated = writes(&scene, Endpoint::AccountAssociate);
    assert_eq!(associated.len(), 5);
    for person in &unmatched {
        let id = scene.account(&person.email).unwrap().id;
        assert_eq!(associated.iter().filter(|one| one.path.ends_with(&id)).count(), 1);
    }
    assert_eq!(world.writes().len(), 12);

    world.clear_requests();
    scene.run_to_the_end().await;
    assert!(world.writes().is_empty());
}
