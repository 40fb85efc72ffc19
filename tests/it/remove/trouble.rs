//! Peers that answer badly, credentials that are no good, kills, states that cannot be opened.

use std::process::Stdio;
use std::time::Duration;

use super::*;
use crate::binary::{body, eventually};

/// After a removal that did not come to its end: the state is there, nothing is polled, and it can be repeated or taken back.
async fn is_stopped(place: &Place, world: &WorldHandle) {
    world.clear_requests();
    assert_eq!(state_of(place).await, "removed");
    place
        .run(&["status"])
        .await
        .exits(0)
        .shows(&["torq-connector remove main", "torq-connector reconnect main"]);
    place
        .run(&["sync", "main"])
        .await
        .exits(75)
        .tells(&["main: was removed"]);
    place.run(&["pause", "main"]).await.exits(75);
    assert!(world.requests().is_empty(), "neither polled nor delivered");
    assert!(place.path("state/main.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_are_looked_after() {
    for fault in [Fault::LostAnswer, Fault::CutShort, Fault::status(503), Fault::Reset] {
        let sandbox = sandbox(12).await;
        let world = sandbox.world();
        let place = place(&sandbox);
        place.run(&["sync"]).await.exits(0);
        for (endpoint, after) in [(Endpoint::AccountDelete, 2), (Endpoint::AccountDelete, 9)] {
            world.fault(FaultRule::once(endpoint, fault.clone()).after(after));
        }
        // The application is asked for in between; its deletion is the one of these requests that changes something.
        world.fault(FaultRule::once(Endpoint::Application, fault.clone()).after(4));
        let ran = place.run(&["remove", "main", "--yes"]).await.exits(0);
        ran.tells(&["main: 12 accounts deleted in JumpCloud, and the application"]);
        assert!(world.application().is_none(), "{fault:?}");
        assert_eq!(kept(&place), ["main.removed"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_whose_deletion_is_not_answered_is_deleted_once() {
    for fault in [Fault::LostAnswer, Fault::status(500)] {
        let sandbox = sandbox(0).await;
        let world = sandbox.world();
        let place = place(&sandbox);
        place.run(&["sync"]).await.exits(0);
        assert!(world.application().is_some());
        // Without accounts these are: one for the plan, one for the removal, the deletion.
        world.fault(FaultRule::once(Endpoint::Application, fault.clone()).after(2));
        place.run(&["remove", "main", "--yes"]).await.exits(0);
        assert!(world.application().is_none());
        let deletions = world.writes().into_iter().filter(|one| one.method == "DELETE").count();
        let sent = if fault == Fault::LostAnswer { 1 } else { 2 };
        assert_eq!(deletions, sent, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_fails_leaves_the_rest_for_a_repetition() {
    let sandbox = sandbox(3).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    // From the third deletion on nothing of JumpCloud works.
    world.fault(FaultRule::always(Endpoint::AccountDelete, Fault::status(503)).after(2));
    world.fault(FaultRule::always(Endpoint::Application, Fault::status(503)).after(2));
    let ran = place.run(&["remove", "main", "--yes"]).await.exits(69);
    ran.tells(&[
        "main: 2 accounts deleted",
        "not finished: JumpCloud: ",
        "(503)",
        "torq-connector remove main",
    ]);
    world.clear_faults();
    is_stopped(&place, &world).await;
    place.run(&["remove", "main", "--yes"]).await.exits(0);
    assert!(world.application().is_none());
    assert_eq!(kept(&place), ["main.removed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jumpcloud_refuses_to_delete_is_said_and_can_be_tried_again() {
    for status in [405, 409, 422] {
        let sandbox = lived_in(10).await;
        let world = sandbox.world();
        let before = ids(&world);
        let place = place(&sandbox);
        place.run(&["sync"]).await.exits(0);
        let made = world.accounts().len() - before.len();
        world.fault(FaultRule {
            times: Some(2),
            ..FaultRule::always(Endpoint::AccountDelete, Fault::status(status))
        });
        let ran = place.run(&["remove", "main", "--yes"]).await.exits(75);
        ran.tells(&[
            &format!("main: {} accounts deleted", made - 2),
            "2 accounts could not be deleted: deleting: ordered by a fault rule",
            "delete them in JumpCloud",
            "--keep-accounts",
        ]);
        is_stopped(&place, &world).await;
        place
            .run(&["remove", "main", "--yes"])
            .await
            .exits(0)
            .tells(&["main: 2 accounts deleted"]);
        assert_eq!(ids(&world), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_said_to_find_nothing_is_not_believed() {
    let sandbox = sandbox(4).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    world.fault(FaultRule::always(Endpoint::AccountDelete, Fault::status(404)));
    let ran = place.run(&["remove", "main", "--yes"]).await.exits(75);
    ran.tells(&["4 accounts could not be deleted", "has the account all the same"]);
    assert_eq!(world.accounts().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_credentials_that_are_no_good_it_ends_with_77_and_what_is_known_can_still_be_forgotten() {
    let sandbox = sandbox(4).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    world.revoke_jumpcloud_key();
    let ran = place.run(&["remove", "main", "--yes"]).await.exits(77);
    ran.tells(&[
        "main: nothing is removed: JumpCloud: ",
        "(401)",
        "torq-connector remove main --keep-accounts",
    ]);
    assert_eq!(state_of(&place).await, "connected", "nothing was begun");
    assert_eq!(world.accounts().len(), 4);
    world.clear_requests();
    let ran = place
        .run(&["remove", "main", "--yes", "--keep-accounts"])
        .await
        .exits(0);
    ran.tells(&[
        "JumpCloud is left as it is: 4 accounts that this connector created stay",
        "main: JumpCloud is as it was; its state is deleted",
        "sandbox-torq-id",
    ]);
    assert!(world.requests().is_empty());
    assert_eq!(world.accounts().len(), 4);
    assert_eq!(kept(&place), ["main.removed"]);

    // Secrets that are not even there.
    let missing = Connector::new("main", &sandbox)
        .without("jumpcloud.client_secret")
        .with("jumpcloud.client_secret_file", "gone");
    place.configure("", &[missing]);
    place.run(&["reconnect", "main"]).await.exits(0);
    place
        .run(&["remove", "main", "--yes"])
        .await
        .exits(78)
        .tells(&["connectors.main.jumpcloud.client_secret_file", "--keep-accounts"]);
    place
        .run(&["remove", "main", "--yes", "--keep-accounts"])
        .await
        .exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_licence_it_ends_with_77_and_without_an_answer_with_69() {
    use torq_connector::sandbox::Licence;
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    sandbox
        .world()
        .behave(|behaviour| behaviour.licence = Licence::PaymentRequired);
    place
        .run(&["remove", "main", "--yes"])
        .await
        .exits(77)
        .tells(&["no licence for SaaS Management", "--keep-accounts"]);
    crate::binary::goes_away(sandbox).await;
    place
        .run(&["remove", "main", "--yes"])
        .await
        .exits(69)
        .tells(&["cannot connect", "--keep-accounts"]);
    assert_eq!(state_of(&place).await, "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_jumpcloud_side_than_the_one_that_was_delivered_to_is_not_asked_to_delete_anything() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let elsewhere = Connector::new("main", &sandbox).with("jumpcloud.org_id", "5f1b1d2e3c4b5a6978877665");
    place.configure("", &[elsewhere]);
    sandbox.world().clear_requests();
    place.run(&["remove", "main", "--yes"]).await.exits(78).tells(&[
        "another JumpCloud organisation",
        "former one",
        "--keep-accounts",
    ]);
    assert!(sandbox.world().writes().is_empty());
    assert_eq!(sandbox.world().accounts().len(), 2);
}

/// Runs a removal and kills it as soon as so many deletions have arrived, the last of which is not answered.
async fn killed_at(place: &Place, world: &WorldHandle, deletions: usize) {
    let hang = FaultRule::always(Endpoint::AccountDelete, Fault::Hang).after(deletions as u64 - 1);
    world.fault(hang);
    let mut child = place
        .command(&["remove", "main", "--yes"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    tokio::time::timeout(Duration::from_secs(60), world.seen(Endpoint::AccountDelete, deletions))
        .await
        .expect("it deletes");
    child.kill().await.unwrap();
    world.clear_faults();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_does_not_begin_again_and_goes_on_when_repeated() {
    let sandbox = lived_in(30).await;
    let world = sandbox.world();
    let before = ids(&world);
    let busy = self::sandbox(1).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    killed_at(&place, &world, 7).await;
    assert!(world.accounts().len() > before.len(), "it was in the middle");
    is_stopped(&place, &world).await;
    // Beside a connector that polls all the time, for long enough to poll a dozen times.
    let main = Connector::new("main", &sandbox).with("poll_interval", "1s");
    place.configure("", &[Connector::new("busy", &busy).with("poll_interval", "1s"), main]);
    let daemon = place.daemon().await;
    let status = daemon.state("main", "removed").await;
    assert!(
        status["action"]
            .as_str()
            .unwrap()
            .contains(&place.advised("remove main")),
        "{status}"
    );
    daemon.state("busy", "connected").await;
    let (code, words) = daemon.get("/readyz").await;
    assert_eq!((code, body(&words)), (503, "main: removed, and not to the end\n"));
    place.run(&["sync", "main"]).await.exits(75);
    let polls = busy.world();
    tokio::time::timeout(Duration::from_secs(60), polls.seen(Endpoint::TorqUsers, 2 * 14))
        .await
        .expect("the other one polls");
    assert!(
        world.requests().is_empty(),
        "the daemon does not begin again by surprise"
    );
    place.run(&["remove", "main", "--yes"]).await.exits(0);
    assert_eq!(ids(&world), before);
    assert!(!kept(&place).contains(&"main.db".to_owned()));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_can_be_taken_back() {
    for with_daemon in [false, true] {
        let sandbox = sandbox(20).await;
        let world = sandbox.world();
        world.behave(|behaviour| behaviour.accept_duplicates = true);
        let place = Place::new(&[Connector::new("main", &sandbox).with("removals", "delete")]);
        place.run(&["sync"]).await.exits(0);
        killed_at(&place, &world, 5).await;
        let daemon = match with_daemon {
            true => Some(place.daemon().await),
            false => None,
        };
        place.run(&["reconnect", "main"]).await.exits(0);
        place.run(&["sync", "main"]).await.exits(0);
        assert_eq!(
            account_emails(&world),
            people_emails(&world),
            "everybody has one account, and nobody two"
        );
        place.run(&["sync", "main"]).await.exits(0);
        assert_eq!(account_emails(&world), people_emails(&world));
        if let Some(daemon) = daemon {
            daemon.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_cannot_be_opened_can_be_forgotten() {
    for with_daemon in [false, true] {
        let sandbox = sandbox(3).await;
        let place = place(&sandbox);
        std::fs::create_dir(place.state_dir()).unwrap();
        place.write("state/main.db", "this is some text that somebody put here");
        let daemon = match with_daemon {
            true => {
                let daemon = place.daemon().await;
                daemon.status("main", |status| status["reason"].is_string()).await;
                Some(daemon)
            }
            false => None,
        };
        place
            .run(&["remove", "main", "--yes"])
            .await
            .exits(1)
            .tells(&["main.db is damaged", "--keep-accounts"]);
        place
            .run(&["remove", "main", "--yes", "--keep-accounts"])
            .await
            .exits(0);
        assert_eq!(kept(&place), ["main.removed"]);
        if let Some(daemon) = daemon {
            daemon.state("main", "removed").await;
            place
                .run(&["reconnect", "main"])
                .await
                .exits(0)
                .tells(&["3 accounts created"]);
            daemon.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_of_its_requests_it_takes_away_the_same_in_the_end() {
    let sandbox = sandbox(6).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let mut kills = 0;
    loop {
        // So many requests are answered, the next one never is.
        world.fault(FaultRule {
            endpoint: None,
            ..FaultRule::always(Endpoint::Other, Fault::Hang).after(kills)
        });
        world.clear_requests();
        let mut child = place
            .command(&["remove", "main", "--yes"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let hangs = tokio::select! {
            ended = child.wait() => {
                assert_eq!(ended.unwrap().code(), Some(0));
                false
            }
            () = world.until(|world| world.requests().len() as u64 > kills) => true,
        };
        child.kill().await.unwrap();
        world.clear_faults();
        if !hangs {
            break;
        }
        kills += 1;
        assert!(kills < 100, "it comes to its end");
        let state = state_of(&place).await;
        assert!(["connected", "removed"].contains(&state.as_str()), "{state}");
    }
    assert!(kills > 8, "the token, the plan, the removal: {kills}");
    assert!(world.application().is_none());
    assert_eq!(kept(&place), ["main.removed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_shows_a_removal_that_was_cut_short_for_what_it_is() {
    let sandbox = sandbox(4).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    world.fault(FaultRule::always(Endpoint::AccountDelete, Fault::Hang));
    let mut child = place
        .command(&["remove", "main", "--yes"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.until(|world| world.count(Endpoint::AccountDelete) > 0).await;
    child.kill().await.unwrap();
    world.clear_faults();
    let daemon = place.daemon().await;
    let status = daemon.status("main", |status| status["state"] == "removed").await;
    assert!(status["reason"].as_str().unwrap().contains("was cut short"), "{status}");
    let action = status["action"].as_str().unwrap();
    assert!(
        action.starts_with("go on with it: ") && action.contains("remove main") && action.contains("reconnect main"),
        "{status}"
    );
    let (code, words) = daemon.get("/readyz").await;
    assert_eq!((code, body(&words)), (503, "main: removed, and not to the end\n"));
    let ran = place.run(&["status", "--problems"]).await.exits(0);
    ran.shows(&["was cut short"]);
    place.run(&["remove", "main", "--yes"]).await.exits(0);
    eventually("ready", async || (daemon.get("/readyz").await.0 == 200).then_some(())).await;
    assert_eq!(
        world.count(Endpoint::AccountDelete),
        5,
        "the one that hung, and all four"
    );
    daemon.stop().await;
}
