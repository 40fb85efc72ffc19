//! What each refusal means on each road of JumpCloud: licence, permission, not there, not offered. Whatever it is, it ends soon, says
//! what it is, and costs nobody an account.

use torq_connector::http::FailureKind;
use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule};
use torq_connector::sync::Halt;
use torq_connector::view::{ConnectorState, RunOutcome};

use crate::world::{Scene, assert_in_step, refusal, times};

/// Some have accounts, which are to be associated; some are to be created.
async fn begun() -> Scene {
    let scene = Scene::with_an_application(8).await;
    let world = scene.world();
    scene.give_accounts(&world.people()[..4]);
    scene
}

async fn refused(endpoint: Endpoint, status: u16) -> (Scene, torq_connector::sync::RunEnd) {
    let scene = begun().await;
    let world = scene.world();
    if endpoint == Endpoint::ApplicationCreate {
        world.delete_application();
    }
    if endpoint == Endpoint::Application {
        scene.run_to_the_end().await;
        world.add_people(1);
    }
    world.fault(FaultRule::always(endpoint, Fault::status(status)));
    let end = scene.run().await;
    (scene, end)
}

/// Once the refusal is over, all is delivered.
async fn mended(scene: &Scene) {
    scene.world().clear_faults();
    scene.act(|store| store.forget_not_offered()).await;
    scene.act(|store| store.retry()).await;
    scene.run_to_the_end().await;
    assert_in_step(scene);
}

const SAAS: [Endpoint; 6] = [
    Endpoint::Applications,
    Endpoint::Application,
    Endpoint::ApplicationCreate,
    Endpoint::Accounts,
    Endpoint::AccountCreate,
    Endpoint::AccountAssociate,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_402_on_any_road_of_saas_management_is_a_missing_licence() {
    for endpoint in SAAS {
        let (scene, end) = refused(endpoint, 402).await;
        assert!(matches!(end.halt, Some(Halt::NotLicensed(_))), "{endpoint:?}: {end:?}");
        assert_eq!(end.status.state, ConnectorState::NotLicensed);
        mended(&scene).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_means_the_licence_where_nothing_is_readable_and_permission_where_writing_alone_is_refused() {
    for endpoint in SAAS {
        let (scene, end) = refused(endpoint, 403).await;
        let writes = [
            Endpoint::ApplicationCreate,
            Endpoint::AccountCreate,
            Endpoint::AccountAssociate,
        ];
        if writes.contains(&endpoint) {
            assert_eq!(refusal(&end).1, FailureKind::Permission, "{endpoint:?}");
            assert_eq!(end.status.state, ConnectorState::ReconnectRequired);
            assert!(end.halt.unwrap().to_string().contains("and not change it"));
        } else {
            assert!(matches!(end.halt, Some(Halt::NotLicensed(_))), "{endpoint:?}: {end:?}");
        }
        mended(&scene).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_of_the_directory_is_missing_permission_and_not_a_missing_licence() {
    let (scene, end) = refused(Endpoint::DirectorySearch, 403).await;
    assert_eq!(refusal(&end).1, FailureKind::Permission);
    assert_eq!(end.status.state, ConnectorState::ReconnectRequired);
    assert!(end.halt.unwrap().to_string().contains("search directory users"));
    mended(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_offered_on_any_road_creates_nothing_twice_and_says_so() {
    for status in [404, 405, 501] {
        for endpoint in [
            Endpoint::Applications,
            Endpoint::Application,
            Endpoint::ApplicationCreate,
            Endpoint::Accounts,
            Endpoint::DirectorySearch,
            Endpoint::AccountCreate,
            Endpoint::AccountAssociate,
        ] {
            let (scene, end) = refused(endpoint, status).await;
            match (endpoint, status) {
                (Endpoint::ApplicationCreate | Endpoint::AccountCreate, _) => {
                    assert_eq!(end.status.state, ConnectorState::ReportOnly, "{endpoint:?} {status}");
                }
                (Endpoint::AccountAssociate, _) => {
                    assert_eq!((end.outcome, end.counts.created), (RunOutcome::Partial, 4), "{status}");
                    let reason = end.status.reason.unwrap();
                    assert!(reason.contains("does not offer associating"), "{reason}");
                }
                // The application that was known is gone, and is found again in the list.
                (Endpoint::Application, 404) => {}
                // The list of an application that is there is not: that passes, or somebody looks into it.
                (Endpoint::Accounts, 404) => assert_eq!(end.outcome, RunOutcome::Failed, "{end:?}"),
                _ => {
                    assert_eq!(
                        end.status.state,
                        ConnectorState::ReconnectRequired,
                        "{endpoint:?} {status}"
                    );
                    let action = end.status.action.unwrap();
                    assert!(action.contains("jumpcloud.region"), "{action}");
                }
            }
            mended(&scene).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_somebody_deletes_at_any_step_is_made_again_with_its_accounts() {
    let steps = [
        (Endpoint::Application, 0),
        (Endpoint::Accounts, 0),
        (Endpoint::Accounts, 1),
        (Endpoint::DirectorySearch, 0),
        (Endpoint::AccountCreate, 0),
        (Endpoint::AccountCreate, 2),
        (Endpoint::AccountAssociate, 0),
        (Endpoint::AccountAssociate, 2),
        (Endpoint::AccountGet, 0),
    ];
    for (endpoint, after) in steps {
        let scene = begun().await;
        let world = scene.world();
        if matches!(endpoint, Endpoint::Application | Endpoint::AccountGet) {
            scene.run_to_the_end().await;
            world.add_people(1);
        }
        if endpoint == Endpoint::AccountGet {
            let account = world.accounts().swap_remove(0);
            world.delete_account(&account.id);
        }
        world.before(endpoint, after, |world| world.delete_application());
        scene.run().await;
        scene.run_to_the_end().await;
        assert_in_step(&scene);
        let torq = world
            .applications()
            .into_iter()
            .filter(|one| one.catalog_app_id == "torq");
        assert_eq!(torq.count(), 1, "{endpoint:?} {after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_another_source_makes_in_the_meantime_is_adopted_and_never_ours() {
    let mut scene = begun().await;
    scene.set("REMOVALS", "delete");
    let world = scene.world();
    let person = world.people().pop().unwrap();
    let email = person.email.clone();
    world.before(Endpoint::AccountCreate, 0, move |world| {
        world.add_account(Account {
            email: Some(email.to_uppercase()),
            ..Account::default()
        });
    });
    let end = scene.run_to_the_end().await;
    assert_eq!((end.counts.found, end.counts.created, end.counts.refused), (5, 3, 0));
    assert_eq!(
        scene.user(&person.id).account,
        torq_connector::view::AccountStanding::Found
    );
    assert_in_step(&scene);
    world.remove_person(&person.id);
    for _ in 0..3 {
        scene.run_to_the_end().await;
    }
    assert!(scene.account(&person.email).is_some(), "it was never ours to delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peers_words_are_kept_short_and_clean_and_the_others_go_on() {
    let scene = begun().await;
    let world = scene.world();
    let nasty = format!("no\u{1b}[31m such\r\nthing\t\u{202e}{}", "x".repeat(5000));
    let fault = Fault::Status {
        status: 422,
        retry_after: None,
        body: serde_json::json!({ "message": nasty }).to_string(),
    };
    // Once with the directory user, once without.
    world.fault(times(16, Endpoint::AccountCreate, fault));
    let end = scene.run().await;
    assert_eq!(
        (end.outcome, end.status.parked, end.counts.found),
        (RunOutcome::Partial, 4, 4)
    );
    for user in scene.users().into_iter().filter_map(|user| user.reason) {
        assert!(user.chars().count() < 320, "{} characters", user.chars().count());
        assert!(
            !user.contains(char::is_control) && !user.contains('\u{202e}'),
            "{user:?}"
        );
        assert!(user.starts_with("no") && user.ends_with("(422)"), "{user}");
    }
    mended(&scene).await;
}
