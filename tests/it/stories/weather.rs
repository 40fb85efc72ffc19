//! Bad weather: failures that pass. Each is met on every kind of request, and ends in the right result.

use std::time::{Duration, SystemTime};

use torq_connector::http::FailureKind;
use torq_connector::model::Peer;
use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule, Options};
use torq_connector::view::{EventKind, RunOutcome};

use crate::world::{Scene, assert_in_step, refusal, times};

/// Every kind of request that a first run makes.
const ENDPOINTS: [Endpoint; 9] = [
    Endpoint::TorqToken,
    Endpoint::TorqUsers,
    Endpoint::JumpCloudToken,
    Endpoint::Applications,
    Endpoint::ApplicationCreate,
    Endpoint::Accounts,
    Endpoint::DirectorySearch,
    Endpoint::AccountCreate,
    Endpoint::AccountAssociate,
];

/// A first run under a fault, `count` times on each endpoint; and a second one, which has nothing to write.
async fn survive(count: u64, fault: Fault) {
    let scene = Scene::with_people(20).await;
    let world = scene.world();
    for endpoint in ENDPOINTS {
        world.fault(times(count, endpoint, fault.clone()));
    }
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts.created + end.counts.found, 20, "{fault:?}");
    assert_in_step(&scene);

    world.clear_faults();
    world.clear_requests();
    for endpoint in [Endpoint::TorqUsers, Endpoint::Application, Endpoint::Accounts] {
        world.fault(times(count, endpoint, fault.clone()));
    }
    let end = scene.run_to_the_end().await;
    assert_eq!(end.counts, Default::default(), "{fault:?}");
    assert_in_step(&scene);
    assert!(world.writes().is_empty(), "{fault:?}");
    assert!(scene.events(EventKind::UserDisappeared).is_empty());
    assert!(scene.events(EventKind::AccountLost).is_empty());
}

fn busy(status: u16, retry_after: Option<String>) -> Fault {
    Fault::Status {
        status,
        retry_after,
        body: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_503_passes() {
    // A token and the page behind it fail in one request of the connector: four times, which is within its patience.
    survive(2, busy(503, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_500_and_a_502_pass() {
    survive(1, busy(500, None)).await;
    survive(1, busy(502, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_pass() {
    survive(2, Fault::Reset).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_with_seconds_is_waited_for() {
    survive(1, busy(429, Some("1".to_owned()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_with_a_date_is_waited_for() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3));
    survive(1, busy(429, Some(date))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_without_a_word_passes() {
    survive(1, busy(429, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_cut_short_pass() {
    survive(2, Fault::CutShort).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_html_with_200_pass() {
    survive(2, Fault::Html).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_utf8_pass() {
    survive(2, Fault::NotUtf8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_the_wrong_type_passes() {
    survive(2, Fault::WrongType).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_that_hit_whatever_is_asked_pass() {
    let scene = Scene::with_people(40).await;
    let world = scene.world();
    scene.behave(|behaviour| behaviour.torq_page_cap = 10);
    for (skip, fault) in [
        (3, busy(503, None)),
        (12, Fault::Reset),
        (25, Fault::LostAnswer),
        (40, busy(504, None)),
        (50, Fault::CutShort),
    ] {
        world.fault(FaultRule {
            endpoint: None,
            skip,
            times: Some(3),
            probability: 1.0,
            fault,
        });
    }
    scene.run_to_the_end().await;
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_an_error_with_200_is_not_an_empty_workspace() {
    let scene = Scene::with_people(20).await;
    let world = scene.world();
    scene.run_to_the_end().await;
    for body in [r#"{"code":13,"message":"internal"}"#, "[]", r#"{"users":{}}"#] {
        for _ in 0..2 {
            let fault = Fault::Status {
                status: 200,
                retry_after: None,
                body: body.to_owned(),
            };
            world.fault(FaultRule::always(Endpoint::TorqUsers, fault));
            let end = scene.run().await;
            assert_eq!(end.outcome, RunOutcome::Failed);
            assert_eq!(refusal(&end), (Peer::Torq, FailureKind::Unintelligible));
            assert_eq!(end.status.users, 20);
            world.clear_faults();
        }
    }
    assert_eq!(scene.run_to_the_end().await.counts, Default::default());
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_stays_down_ends_the_run_and_the_next_one_goes_on() {
    for (endpoint, peer) in [
        (Endpoint::TorqToken, Peer::Torq),
        (Endpoint::TorqUsers, Peer::Torq),
        (Endpoint::JumpCloudToken, Peer::JumpCloud),
        (Endpoint::Accounts, Peer::JumpCloud),
        (Endpoint::AccountCreate, Peer::JumpCloud),
    ] {
        let scene = Scene::new(Options {
            people: 12,
            application_exists: Some(true),
            ..Options::default()
        })
        .await;
        let world = scene.world();
        let stranger = Account {
            email: Some("stranger@example.net".to_owned()),
            ..Account::default()
        };
        world.add_account(stranger);
        world.fault(FaultRule::always(endpoint, busy(503, None)));
        let end = scene.run().await;
        if endpoint == Endpoint::AccountCreate {
            // The lists still answer, so the peer is not down: the rows wait.
            assert!(
                matches!(end.outcome, RunOutcome::Partial | RunOutcome::Failed),
                "{end:?}"
            );
            assert_eq!(end.status.pending, 12);
        } else {
            assert_eq!(end.outcome, RunOutcome::Failed, "{endpoint:?}");
            assert_eq!(refusal(&end).0, peer);
        }
        assert_eq!(world.accounts().len(), 1, "{endpoint:?}");
        world.clear_faults();
        let end = scene.run_to_the_end().await;
        assert_eq!(end.counts.created, 12);
        assert_in_step(&scene);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_comes_is_not_waited_for_for_ever() {
    let mut scene = Scene::with_people(10).await;
    scene.set_general("NETWORK__TIMEOUT", "1s");
    let world = scene.world();
    for endpoint in [Endpoint::TorqUsers, Endpoint::Accounts, Endpoint::AccountCreate] {
        world.fault(times(1, endpoint, Fault::Hang));
    }
    scene.run_to_the_end().await;
    assert_in_step(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_403_that_speaks_of_abuse_silences_the_run_and_is_no_refusal() {
    let fault = Fault::Status {
        status: 403,
        retry_after: None,
        body: r#"{"message":"blocked on suspicion of abuse"}"#.to_owned(),
    };
    // The address stays blocked for this process, whose connectors share the road there: no second run can show more.
    silenced_by(fault, Endpoint::AccountCreate, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_an_hour_ends_the_run_and_is_not_sat_out() {
    for (endpoint, skip) in [(Endpoint::ApplicationCreate, 0), (Endpoint::AccountCreate, 5)] {
        let scene = silenced_by(busy(429, Some("3600".to_owned())), endpoint, skip).await;
        scene.world().clear_faults();
        scene.run_to_the_end().await;
        assert_in_step(&scene);
    }
}

/// A write meets an answer that asks for a long silence: the run ends soon, with only what was under way sent.
async fn silenced_by(fault: Fault, endpoint: Endpoint, skip: u64) -> Scene {
    let scene = Scene::with_people(30).await;
    let world = scene.world();
    world.fault(FaultRule::always(endpoint, fault).after(skip));
    let end = tokio::time::timeout(Duration::from_secs(20), scene.run())
        .await
        .expect("a command does not wait that long");
    assert_eq!(end.outcome, RunOutcome::Failed, "{end:?}");
    assert_eq!(refusal(&end).0, Peer::JumpCloud);
    let sent = world.count(endpoint);
    assert!(sent <= 5 + 8, "{sent}");
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_again_at_once_to_everything_is_asked_ever_more_slowly() {
    let scene = Scene::with_people(5).await;
    let world = scene.world();
    let connector = scene.impatient_connector(Duration::from_secs(6)).await;
    world.fault(FaultRule::always(Endpoint::TorqUsers, busy(503, Some("0".to_owned()))));
    let end = connector.run().await.unwrap();
    assert_eq!(end.outcome, RunOutcome::Failed);
    // Two listings in step: 1 + 1/2 + 1 + 2 + 4 s of waiting, of which jitter takes half at most.
    let sent = world.count(Endpoint::TorqUsers);
    assert!(sent <= 14, "{sent} requests in six seconds");
}
