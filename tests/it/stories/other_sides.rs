//! What is configured is something else than before: another key, workspace, region, organisation, filter, another rule for
//! removals. It is noticed and told, and nobody is removed by it.

use jiff::Timestamp;
use torq_connector::model::{ApplicationId, EmailKey};
use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule, Options, Sandbox};
use torq_connector::state::Sides;
use torq_connector::view::{AccountStanding, ConnectorState, EventKind, RunOutcome};

use crate::world::{Scene, assert_in_step, writes};

/// A workspace in step, whose accounts are all ours.
async fn workspace(people: usize) -> Scene {
    let mut scene = Scene::with_people(people).await;
    scene.set("REMOVALS", "delete");
    scene.run_to_the_end().await;
    scene.world().clear_requests();
    scene
}

/// Another sandbox: its people, its organisation, its ids are others.
async fn elsewhere(people: usize) -> Sandbox {
    let options = Options {
        seed: 77,
        people,
        ..Options::default()
    };
    Sandbox::start(options).await.unwrap()
}

fn to_organisation(scene: &mut Scene, sandbox: &Sandbox) {
    scene.set("JUMPCLOUD__CONSOLE_URL", &sandbox.console_url());
    scene.set("JUMPCLOUD__TOKEN_URL", &sandbox.jumpcloud_token_url());
}

fn to_workspace(scene: &mut Scene, sandbox: &Sandbox) {
    scene.set("TORQ__API_URL", &sandbox.torq_api_url());
    scene.set("TORQ__TOKEN_URL", &sandbox.torq_token_url());
}

fn back(scene: &mut Scene) {
    for key in [
        "JUMPCLOUD__CONSOLE_URL",
        "JUMPCLOUD__TOKEN_URL",
        "TORQ__API_URL",
        "TORQ__TOKEN_URL",
    ] {
        scene.unset(key);
    }
}

/// What the events say of changes of the configuration.
fn told(scene: &Scene) -> Vec<String> {
    let events = scene.events(EventKind::StateChanged).into_iter();
    events
        .filter(|event| event.before.as_ref().is_none_or(|before| before.get("state").is_none()))
        .filter_map(|event| event.reason)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organisation_is_brought_in_step_and_the_old_one_is_left_alone() {
    let mut scene = workspace(12).await;
    let other = elsewhere(0).await;
    let old = scene.world().accounts();
    to_organisation(&mut scene, &other);
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.created, end.counts.deleted), (12, 0));
    let reason = end.status.reason.unwrap();
    assert!(
        reason.contains("the JumpCloud organisation") && reason.contains("12 accounts"),
        "{reason}"
    );
    assert_eq!(told(&scene).len(), 1);
    assert_eq!(other.world().accounts().len(), 12);
    assert!(
        scene.events(EventKind::AccountLost).is_empty(),
        "nothing was lost: it is elsewhere"
    );

    // Somebody leaves meanwhile: their account here goes, and the one in the old organisation is none of our business now.
    let gone = scene.world().remove_person(&scene.world().people()[0].id).unwrap();
    scene.run_to_the_end().await;
    assert_eq!(scene.run_to_the_end().await.counts.deleted, 1);
    assert_eq!(scene.world().accounts(), old);
    assert!(scene.world().writes().is_empty());

    // Back: what we made there is ours as before, and goes with its user as before.
    back(&mut scene);
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.created, end.counts.found), (0, 11));
    assert!(
        scene
            .users()
            .iter()
            .all(|user| user.account == AccountStanding::Created)
    );
    assert!(scene.world().writes().is_empty());
    assert_eq!(told(&scene).len(), 2);
    let next = scene.world().remove_person(&scene.world().people()[0].id).unwrap();
    scene.run_to_the_end().await;
    assert_eq!(scene.run_to_the_end().await.counts.deleted, 1);
    assert!(scene.account(&next.email).is_none());
    // Whoever left while we were away was removed then; nothing is deleted here for them that nobody decided here.
    assert!(scene.account(&gone.email).is_some());
    assert_eq!(other.world().accounts().len(), 11);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_in_the_organisation_costs_nothing() {
    let mut scene = workspace(8).await;
    scene.world().set_org_id(Some("5f0c"));
    scene.set("JUMPCLOUD__ORG_ID", "5f0d");
    let end = scene.run().await;
    assert_eq!(end.status.state, ConnectorState::ReconnectRequired);
    // An organisation has to be named now, and it is the same one.
    scene.set("JUMPCLOUD__ORG_ID", "5f0c");
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.created, end.counts.found), (0, 8));
    assert!(scene.world().writes().is_empty());
    assert!(
        scene
            .users()
            .iter()
            .all(|user| user.account == AccountStanding::Created)
    );
    let gone = scene.world().remove_person(&scene.world().people()[0].id).unwrap();
    scene.run_to_the_end().await;
    assert_eq!(scene.run_to_the_end().await.counts.deleted, 1, "ours, as before");
    assert!(scene.account(&gone.email).is_none());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credentials_of_another_organisation_under_the_same_settings_are_noticed() {
    let mut scene = workspace(6).await;
    let old = scene.world().accounts();
    // A create that was not answered must not make somebody else's account ours over there.
    let newcomer = scene.world().add_people(1).remove(0);
    let key = EmailKey::fold(&newcomer.email);
    scene
        .act(move |store| store.creating(Timestamp::now(), &key, Timestamp::now()))
        .await;
    let other = elsewhere(0).await;
    other.world().add_account(Account {
        email: Some(newcomer.email.clone()),
        ..Default::default()
    });
    // Without org_id nothing in the configuration tells two organisations apart: only what is there does. (The address is another
    // one here because the sandbox has one organisation; the state is made to believe that it is not.)
    to_organisation(&mut scene, &other);
    let sides = Sides {
        torq: scene.config().connectors[0].torq_fingerprint(),
        jumpcloud: scene.config().connectors[0].jumpcloud_fingerprint(),
    };
    let application = scene.world().application().unwrap().id;
    scene
        .act(move |store| {
            store.reconcile_sides(Timestamp::now(), &sides)?;
            let application = ApplicationId::new(application);
            store.note_application(Timestamp::now(), &application, torq_connector::state::Origin::Found)
        })
        .await;
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.created, end.counts.found), (6, 1));
    let reason = end.status.reason.unwrap();
    assert!(
        reason.contains("the application in JumpCloud is another one"),
        "{reason}"
    );
    assert_eq!(scene.user(&newcomer.id).account, AccountStanding::Found, "theirs");
    assert_eq!(scene.world().accounts(), old);
    assert!(scene.world().writes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_workspace_removes_nobody_unasked_and_says_why() {
    let mut scene = workspace(10).await;
    scene.set("MAX_REMOVALS", "1000");
    let other = elsewhere(4).await;
    to_workspace(&mut scene, &other);
    for _ in 0..3 {
        let end = scene.run().await;
        assert_eq!((end.counts.disappeared, end.counts.deleted), (0, 0));
    }
    let status = scene.status();
    assert_eq!(
        (status.state, status.held, status.users),
        (ConnectorState::Held, 10, 14)
    );
    let reason = status.reason.unwrap();
    assert!(
        reason.contains("the Torq API key, region or address is another one than before"),
        "{reason}"
    );
    assert!(told(&scene)[0].contains("the Torq API key, region or address"));
    // That was a mistake.
    back(&mut scene);
    let end = scene.run().await;
    assert_eq!((end.status.held, end.counts.disappeared), (0, 0), "they are back");
    // Those of the other workspace are in doubt now, and wait for a person.
    for _ in 0..2 {
        assert_eq!(scene.run().await.counts.disappeared, 0);
    }
    assert_eq!(scene.status().held, 4);
    assert_eq!(scene.act(|store| store.approve(Timestamp::now())).await, 4);
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.disappeared, end.counts.deleted), (4, 4));
    assert_in_step(&scene);
    assert_eq!(scene.world().accounts().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_is_replaced_behind_the_same_key_is_noticed() {
    let mut scene = workspace(3).await;
    scene.set("MAX_REMOVALS", "1000");
    let world = scene.world();
    for person in world.people() {
        world.remove_person(&person.id);
    }
    world.add_people(3);
    for _ in 0..3 {
        assert_eq!(scene.run().await.counts.disappeared, 0);
    }
    let status = scene.status();
    assert_eq!((status.state, status.held, status.users), (ConnectorState::Held, 3, 6));
    assert!(status.reason.unwrap().contains("nobody who was known came back"));
    assert_eq!(writes(&scene, Endpoint::AccountDelete).len(), 0);
    scene.act(|store| store.approve(Timestamp::now())).await;
    assert_eq!(scene.run_to_the_end().await.counts.deleted, 3);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_changes_is_told_and_removes_nobody() {
    let mut scene = workspace(12).await;
    let person = scene.world().people().remove(0);
    scene.set("USERS__EXCLUDE_EMAILS", &person.email);
    for _ in 0..3 {
        let end = scene.run_to_the_end().await;
        assert_eq!((end.status.users, end.status.filtered), (12, 1));
        assert!(end.status.reason.unwrap().contains("1 user left out now"));
    }
    assert_eq!(told(&scene).len(), 1);
    assert_eq!(scene.user(&person.id).account, AccountStanding::Filtered);
    scene.unset("USERS__EXCLUDE_EMAILS");
    scene.run_to_the_end().await;
    assert!(told(&scene)[1].contains("1 user delivered again"));
    assert!(scene.world().writes().is_empty());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_deleted_is_not_deleted_later_when_report_was_set_in_between() {
    let mut scene = workspace(12).await;
    let gone = scene.world().remove_person(&scene.world().people()[0].id).unwrap();
    scene.run_to_the_end().await;
    scene
        .world()
        .fault(FaultRule::always(Endpoint::AccountDelete, Fault::status(503)));
    let end = scene.run().await;
    assert_eq!((end.counts.disappeared, end.counts.deleted), (1, 0));
    scene.world().clear_faults();
    // Somebody takes fright.
    scene.set("REMOVALS", "report");
    scene.run_to_the_end().await;
    scene.set("REMOVALS", "delete");
    for _ in 0..2 {
        assert_eq!(scene.run_to_the_end().await.counts.deleted, 0);
    }
    assert!(scene.account(&gone.email).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenth_is_believed_and_one_more_is_held() {
    for (leave, held) in [(10, 0), (11, 11)] {
        let scene = workspace(100).await;
        for person in &scene.world().people()[..leave] {
            scene.world().remove_person(&person.id);
        }
        scene.run_to_the_end().await;
        let end = scene.run().await;
        assert_eq!((end.counts.deleted, end.status.held), (leave as u64 - held, held));
        let expected = if held > 0 {
            RunOutcome::Partial
        } else {
            RunOutcome::Done
        };
        assert_eq!(end.outcome, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn approving_while_a_run_is_under_way_approves_what_was_shown_then() {
    let mut scene = workspace(20).await;
    scene.set("MAX_REMOVALS", "2");
    let world = scene.world();
    let people = world.people();
    for person in &people[..3] {
        world.remove_person(&person.id);
    }
    scene.run_to_the_end().await;
    // The second run holds these three; and four more leave before it looks.
    for person in &people[3..7] {
        world.remove_person(&person.id);
    }
    assert_eq!(scene.run().await.status.held, 3);
    // The third run is about to hold the four when somebody approves the three, and one of the three is back by then.
    world.add_person(people[0].clone());
    world.clear_requests();
    let connector = scene.connector().await;
    let approve = async {
        world.seen(Endpoint::TorqUsers, 1).await;
        let approved = connector.state().call(|store| store.approve(Timestamp::now())).await;
        assert_eq!(approved.unwrap(), 3);
    };
    let (end, ()) = tokio::join!(connector.run(), approve);
    drop(connector);
    let end = end.unwrap();
    assert_eq!((end.counts.disappeared, end.counts.deleted, end.status.held), (2, 2, 4));
    for person in &people[3..7] {
        assert_eq!(scene.user(&person.id).account, AccountStanding::Held);
    }
    // The one who came back leaves again: that was not approved.
    world.remove_person(&people[0].id);
    for _ in 0..3 {
        let end = scene.run().await;
        assert_eq!(end.counts.disappeared, 0);
    }
    assert_eq!(scene.status().held, 5);
}
