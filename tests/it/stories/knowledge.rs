//! Knowledge grows old: what others change in JumpCloud is noticed by the next process.

use jiff::{SignedDuration, Timestamp};
use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule, Peer};
use torq_connector::view::{EventKind, RunOutcome};

use crate::world::{Scene, assert_in_step, times, writes};

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_somebody_deleted_is_made_again() {
    let scene = Scene::with_people(30).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    for account in &world.accounts()[..4] {
        world.delete_account(&account.id);
    }
    world.clear_requests();
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts.created, 4);
    assert_eq!(world.writes().len(), 4);
    assert_eq!(scene.events(EventKind::AccountLost).len(), 4);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_somebody_replaced_is_adopted() {
    let scene = Scene::with_people(10).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    scene.run_to_the_end().await;
    let old = world.accounts().swap_remove(0);
    world.delete_account(&old.id);
    let new = world.add_account(Account {
        id: String::new(),
        ..old
    });
    world.clear_requests();
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.found, end.counts.created), (1, 0));
    assert!(world.writes().is_empty());
    assert!(scene.users().iter().any(|user| user.account_id.as_ref() == Some(&new)));
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_was_deleted_is_made_again_with_its_accounts() {
    let scene = Scene::with_people(20).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    world.delete_application();
    world.clear_requests();
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts.created, 20);
    assert_eq!(writes(&scene, Endpoint::ApplicationCreate).len(), 1);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_disappears_in_the_middle_of_a_delivery_is_made_again() {
    let scene = Scene::with_people(40).await;
    let world = scene.world();
    let connector = scene.connector().await;
    let delete = async {
        world.seen(Endpoint::AccountCreate, 12).await;
        world.delete_application();
    };
    let (end, ()) = tokio::join!(connector.run(), delete);
    drop(connector);
    assert!(end.unwrap().halt.is_none());
    scene.run_to_the_end().await;
    assert_in_step(&scene);
    assert_eq!(world.accounts().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_association_follows_a_directory_user_who_is_made_anew() {
    let scene = Scene::with_known_people(20).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    let people = world.people();
    // One is gone for good, one is there again under another id before anybody looked.
    world.remove_from_directory(&people[0].email);
    world.remove_from_directory(&people[1].email);
    world.add_to_directory(&people[1].email);
    world.clear_requests();
    scene.run_to_the_end().await;
    assert_eq!(world.writes().len(), 1);
    assert_eq!(writes(&scene, Endpoint::AccountAssociate).len(), 1);
    assert_in_step(&scene);
    assert_eq!(scene.user(&people[0].id).directory_user_id, None);

    world.add_to_directory(&people[0].email);
    scene.run_to_the_end().await;
    assert_eq!(world.writes().len(), 2);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_lost_costs_nobody_a_second_account() {
    let scene = Scene::with_people(20).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.accept_duplicates = true);
    scene.run_to_the_end().await;
    std::fs::remove_dir_all(scene.state_dir()).unwrap();
    world.clear_requests();
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.found, end.counts.created), (20, 0));
    assert!(world.writes().is_empty());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_api_key_of_the_same_workspace_removes_nobody() {
    let mut scene = Scene::with_people(20).await;
    let world = scene.world();
    scene.set("REMOVALS", "delete");
    scene.run_to_the_end().await;
    // The key of another workspace by mistake: everybody is missing, somebody else is there.
    let people = world.people();
    for person in &people[..3] {
        world.remove_person(&person.id);
    }
    scene.set(
        "TORQ__API_URL",
        &scene.sandbox.torq_api_url().replace("127.0.0.1", "localhost"),
    );
    scene.run_to_the_end().await;
    world.clear_requests();
    let end = scene.run().await;
    assert_eq!(
        (end.status.held, end.counts.disappeared),
        (3, 0),
        "three would be believed, were it the same key"
    );
    assert!(world.writes().is_empty());
    for person in &people[..3] {
        world.add_person(person.clone());
    }
    scene.run_to_the_end().await;
    assert!(world.writes().is_empty());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_knows_asks_jumpcloud_for_its_application_and_nothing_more() {
    let scene = Scene::with_people(30).await;
    let world = scene.world();
    let connector = scene.connector().await;
    connector.run().await.unwrap();
    world.clear_requests();
    for _ in 0..3 {
        connector.run().await.unwrap();
    }
    let jumpcloud = world.requests().into_iter().filter(|one| one.peer == Peer::JumpCloud);
    let asked: Vec<_> = jumpcloud.map(|one| one.endpoint).collect();
    assert_eq!(asked, [Endpoint::Application; 3]);
    assert_eq!(world.count(Endpoint::TorqUsers), 3 * 2);
    assert_eq!(world.count(Endpoint::TorqToken), 0);

    // Somebody new: the directory is asked for them alone.
    let new = world.add_people(1);
    connector.run().await.unwrap();
    drop(connector);
    let search = world
        .requests()
        .into_iter()
        .rfind(|one| one.endpoint == Endpoint::DirectorySearch);
    let asked = search.unwrap().body.unwrap()["filter"]["or"].clone();
    assert_eq!(asked, serde_json::json!([{ "email": new[0].email.to_lowercase() }]));
    assert_eq!(world.writes().len(), 1);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_workspace_is_a_fine_workspace_to_begin_with() {
    let scene = Scene::with_people(0).await;
    scene.run_to_the_end().await;
    scene.world().add_people(3);
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.created, end.status.users), (3, 3));
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daily_look_that_failed_is_still_due() {
    let scene = Scene::with_people(10).await;
    let world = scene.world();
    let connector = scene.connector().await;
    assert_eq!(connector.run().await.unwrap().outcome, RunOutcome::Done);
    let two_days_ago = Timestamp::now() - SignedDuration::from_hours(48);
    connector
        .state()
        .call(move |store| {
            store.begin_reconciliation(two_days_ago)?;
            store.finish_adoption(two_days_ago)
        })
        .await
        .unwrap();
    world.delete_account(&world.accounts()[0].id);
    world.fault(times(5, Endpoint::Accounts, Fault::status(503)));
    assert_eq!(connector.run().await.unwrap().outcome, RunOutcome::Failed);
    world.clear_faults();

    let end = connector.run().await.unwrap();
    assert_eq!((end.outcome, end.counts.created), (RunOutcome::Done, 1));
    assert_eq!(scene.events(EventKind::AccountLost).len(), 1);
    assert_in_step(&scene);
    world.clear_requests();
    connector.run().await.unwrap();
    assert_eq!(world.count(Endpoint::Accounts), 0, "and then not before another day");
}

#[tokio::test(flavor = "multi_thread")]
async fn role_names_that_cannot_be_had_now_are_asked_for_by_the_next_run_and_trouble_nobody() {
    let scene = Scene::with_people(5).await;
    let world = scene.world();
    world.fault(FaultRule::once(Endpoint::TorqRoles, Fault::status(503)));
    let connector = scene.connector().await;
    let watch = async {
        world.seen(Endpoint::AccountCreate, 1).await;
        connector.trouble()
    };
    let (end, trouble) = tokio::join!(connector.run(), watch);
    assert_eq!(end.unwrap().outcome, RunOutcome::Done);
    assert!(trouble.is_none(), "{trouble:?}");
    assert!(scene.users().iter().all(|user| user.role.is_none()));

    connector.run().await.unwrap();
    assert!(scene.users().iter().all(|user| user.role.is_some()));
    world.clear_requests();
    connector.run().await.unwrap();
    assert_eq!(world.count(Endpoint::TorqRoles), 0, "known for a day");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_a_name_hides_no_other() {
    let scene = Scene::with_people(5).await;
    let world = scene.world();
    let known = world.people()[0].role_id.clone();
    let body =
        format!(r#"{{"roles":[{{"id":"{known}","name":"Owner"}},{{"id":"x","name":null}},{{"name":"nobody's"}}]}}"#);
    world.fault(FaultRule::once(
        Endpoint::TorqRoles,
        Fault::Status {
            status: 200,
            retry_after: None,
            body,
        },
    ));
    scene.run_to_the_end().await;
    let named = |user: &torq_connector::view::UserView| user.role_id == known;
    assert!(
        scene
            .users()
            .iter()
            .filter(|user| named(user))
            .all(|user| user.role.as_deref() == Some("Owner"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_somebody_deleted_is_made_again_within_a_day_by_a_process_that_goes_on() {
    let scene = Scene::with_people(10).await;
    let world = scene.world();
    let connector = scene.connector().await;
    connector.run().await.unwrap();
    let gone = world.accounts().swap_remove(3);
    world.delete_account(&gone.id);
    world.clear_requests();
    connector.run().await.unwrap();
    assert!(world.writes().is_empty(), "what was read today is believed");
    // A day goes by.
    let yesterday = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(25);
    let age = connector
        .state()
        .call(move |store| store.begin_reconciliation(yesterday));
    age.await.unwrap();
    let end = connector.run().await.unwrap();
    drop(connector);
    assert_eq!(end.counts.created, 1);
    assert_eq!(scene.events(EventKind::AccountLost).len(), 1);
    assert_in_step(&scene);
}
