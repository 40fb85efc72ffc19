//! What JumpCloud refuses for one user, and what it does not offer at all.

use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule};
use torq_connector::view::{AccountStanding, ConnectorState, EventKind, RunOutcome};

use crate::world::{Scene, assert_in_step, writes};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_user_is_parked_with_the_peers_words_and_the_others_go_on() {
    let scene = Scene::with_people(20).await;
    let world = scene.world();
    let people = world.people();
    let refused: Vec<_> = people[..3].iter().map(|one| one.email.clone()).collect();
    scene.behave(|behaviour| behaviour.refused_emails = refused);
    let end = scene.run().await;
    assert_eq!(end.outcome, RunOutcome::Partial);
    assert_eq!((end.counts.created, end.counts.refused, end.status.parked), (17, 3, 3));
    for person in &people[..3] {
        let user = scene.user(&person.id);
        assert_eq!(user.account, AccountStanding::Parked);
        let reason = user.reason.unwrap();
        assert!(reason.contains("the e-mail address is not acceptable"), "{reason}");
        assert!(reason.contains("422"), "{reason}");
    }
    assert_eq!(scene.events(EventKind::AccountRefused).len(), 3);

    // Not tried again by itself, but on demand.
    world.clear_requests();
    assert_eq!(scene.run().await.status.parked, 3);
    assert!(world.writes().is_empty());
    scene.behave(|behaviour| behaviour.refused_emails.clear());
    assert_eq!(scene.act(|store| store.retry()).await, 3);
    assert_eq!(scene.run_to_the_end().await.counts.created, 3);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_is_refused_with_its_directory_user_is_made_without() {
    for status in [400, 422] {
        let scene = Scene::with_known_people(6).await;
        let world = scene.world();
        world.fault(FaultRule::once(Endpoint::AccountCreate, Fault::status(status)).after(2));
        let end = scene.run_to_the_end().await;
        assert_eq!((end.counts.created, end.counts.refused), (6, 0));
        assert_eq!(writes(&scene, Endpoint::AccountCreate).len(), 7);
        let without = |account: &Account| account.user_id.is_none();
        assert_eq!(world.accounts().into_iter().filter(without).count(), 1);

        // The directory is asked again by the next process.
        world.clear_requests();
        scene.run_to_the_end().await;
        assert_eq!(writes(&scene, Endpoint::AccountAssociate).len(), 1);
        assert_eq!(world.writes().len(), 1);
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_creating_is_not_offered_everything_stays_pending_and_is_not_tried_again_for_a_day() {
    for status in [404, 405, 501] {
        let scene = Scene::with_an_application(20).await;
        let world = scene.world();
        scene.give_accounts(&world.people()[..1]);
        scene.behave(|behaviour| behaviour.account_create_refused = Some(status));
        let end = scene.run().await;
        assert_eq!(end.outcome, RunOutcome::Partial);
        assert_eq!((end.status.state, end.status.pending), (ConnectorState::ReportOnly, 19));
        // A 404 may also mean that the directory user has vanished, so those under way are sent once more without.
        let under_way = if status == 404 { 16 } else { 8 };
        assert!(
            world.count(Endpoint::AccountCreate) <= under_way,
            "only those under way"
        );
        assert_eq!(end.counts.associated, 1, "what is offered goes on");

        world.clear_requests();
        let end = scene.run().await;
        assert_eq!((end.status.state, end.status.pending), (ConnectorState::ReportOnly, 19));
        assert!(world.writes().is_empty());

        scene.behave(|behaviour| behaviour.account_create_refused = None);
        assert_eq!(scene.run().await.status.pending, 19, "within the day");
        assert!(world.writes().is_empty());
        scene.act(|store| store.forget_not_offered()).await;
        let end = scene.run_to_the_end().await;
        assert_eq!((end.counts.created, end.status.state), (19, ConnectorState::Connected));
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_associating_is_not_offered_creates_go_on() {
    for status in [404, 405, 501] {
        let scene = Scene::with_an_application(20).await;
        let world = scene.world();
        scene.give_accounts(&world.people()[..12]);
        scene.behave(|behaviour| behaviour.account_associate_refused = Some(status));
        let end = scene.run().await;
        assert_eq!(end.outcome, RunOutcome::Partial);
        assert_eq!((end.counts.found, end.counts.created), (12, 8));
        assert_eq!((end.status.pending, end.status.associations_pending), (0, 12));
        // One 404 may be about one directory user: enough are asked to tell, and no more.
        assert!(world.count(Endpoint::AccountAssociate) < 2 * 8);

        world.clear_requests();
        world.add_people(1);
        let end = scene.run().await;
        assert_eq!((end.counts.created, end.status.associations_pending), (1, 12));
        assert_eq!(world.writes().len(), 1);

        scene.behave(|behaviour| behaviour.account_associate_refused = None);
        scene.act(|store| store.forget_not_offered()).await;
        assert_eq!(scene.run_to_the_end().await.counts.associated, 12);
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_association_that_is_refused_stops_nobody() {
    let scene = Scene::with_an_application(10).await;
    let world = scene.world();
    scene.give_accounts(&world.people());
    world.fault(FaultRule::once(Endpoint::AccountAssociate, Fault::status(422)).after(4));
    let end = scene.run().await;
    assert_eq!((end.counts.associated, end.counts.refused), (9, 1));
    scene.act(|store| store.retry()).await;
    assert_eq!(scene.run_to_the_end().await.counts.associated, 1);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_on_writing_alone_is_missing_permission_and_says_so() {
    let scene = Scene::with_people(10).await;
    let world = scene.world();
    world.fault(FaultRule::always(Endpoint::AccountCreate, Fault::status(403)));
    let end = scene.run().await;
    assert_eq!(
        (end.outcome, end.status.state),
        (RunOutcome::Refused, ConnectorState::ReconnectRequired)
    );
    let text = end.halt.unwrap().to_string();
    assert!(text.contains("may read SaaS Management and not change it"), "{text}");
    assert_eq!(end.status.pending, 10);
    world.clear_faults();
    assert_eq!(scene.run_to_the_end().await.counts.created, 10);
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_user_whose_e_mail_changes_is_delivered() {
    let scene = Scene::with_people(10).await;
    let world = scene.world();
    let person = world.people().swap_remove(0);
    let refused = person.email.clone();
    scene.behave(|behaviour| behaviour.refused_emails = vec![refused]);
    assert_eq!(scene.run().await.status.parked, 1);
    world.update_person(&person.id, |one| one.email = "acceptable@example.com".to_owned());
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.created, end.status.parked), (1, 0));
    assert_in_step(&scene);
}

/// A scene in which everybody has an account already, and nobody's is associated.
async fn unassociated(people: usize) -> Scene {
    let scene = Scene::with_an_application(people).await;
    scene.give_accounts(&scene.world().people());
    scene
}

fn answers(status: u16, words: &str) -> Fault {
    Fault::Status {
        status,
        retry_after: None,
        body: serde_json::json!({ "message": words }).to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_association_that_finds_nobody_does_not_switch_associating_off() {
    for nth in [0, 3, 19] {
        let scene = unassociated(20).await;
        let world = scene.world();
        let fault = answers(404, "user not found");
        world.fault(FaultRule::once(Endpoint::AccountAssociate, fault).after(nth));
        let end = scene.run().await;
        assert_eq!((end.outcome, end.counts.associated), (RunOutcome::Partial, 19), "{nth}");
        let refused = scene.events(EventKind::AccountRefused);
        assert_eq!(refused.len(), 1);
        assert!(refused[0].reason.as_ref().unwrap().contains("user not found"));

        let new = world.add_people(10);
        for person in &new {
            world.add_to_directory(&person.email);
        }
        scene.give_accounts(&new);
        assert_eq!(scene.run().await.counts.associated, 10, "{nth}");
        scene.act(|store| store.retry()).await;
        scene.run_to_the_end().await;
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_on_one_create_parks_one_user_and_stops_nobody() {
    for nth in [0, 12, 29] {
        let scene = Scene::with_people(30).await;
        let world = scene.world();
        let fault = answers(403, "this user is protected");
        world.fault(FaultRule::once(Endpoint::AccountCreate, fault).after(nth));
        let end = scene.run().await;
        assert_eq!((end.outcome, end.counts.created), (RunOutcome::Partial, 29), "{nth}");
        assert_eq!((end.status.state, end.status.parked), (ConnectorState::Connected, 1));
        assert!(end.status.reason.unwrap().contains("parked"));
        scene.act(|store| store.retry()).await;
        scene.run_to_the_end().await;
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_is_tried_again_once_a_day_by_itself() {
    let scene = Scene::with_people(6).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.account_create_refused = Some(501));
    assert_eq!(scene.run().await.status.state, ConnectorState::ReportOnly);
    // A day goes by, and nothing has changed; another one, and it has.
    for offered in [false, true] {
        let yesterday = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(25);
        scene
            .act(move |store| store.note_accounts_offered(yesterday, false))
            .await;
        world.clear_requests();
        if offered {
            scene.behave(|behaviour| behaviour.account_create_refused = None);
            assert_eq!(scene.run_to_the_end().await.counts.created, 6);
        } else {
            assert_eq!(scene.run().await.status.pending, 6);
            assert!(!writes(&scene, Endpoint::AccountCreate).is_empty());
        }
    }
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nobody_gets_an_account_is_said_beside_removals_that_are_held() {
    let scene = Scene::with_people(20).await;
    scene.behave(|behaviour| behaviour.account_create_refused = Some(405));
    let world = scene.world();
    assert_eq!(scene.run().await.status.state, ConnectorState::ReportOnly);
    for person in &world.people()[..12] {
        world.remove_person(&person.id);
    }
    scene.run().await;
    let status = scene.run().await.status;
    assert_eq!((status.state, status.held), (ConnectorState::Held, 12));
    let (reason, action) = (status.reason.unwrap(), status.action.unwrap());
    assert!(
        reason.contains("12 removals are held: 12 at once are more than the 5 a day"),
        "{reason}"
    );
    assert!(reason.contains("does not offer writing accounts"), "{reason}");
    assert!(action.contains("torq-connector approve "), "{action}");
    assert!(action.contains("torq-connector retry "), "{action}");
}
