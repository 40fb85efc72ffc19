//! The daemon removes a connector, goes on with the others, and does not begin again.

use super::*;
use crate::binary::{body, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_removes_a_connector_and_attends_the_others() {
    let (sandbox, other) = (lived_in(12).await, sandbox(3).await);
    let world = sandbox.world();
    let before = ids(&world);
    let place = Place::new(&[Connector::new("main", &sandbox), Connector::new("other", &other)]);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    daemon.state("other", "connected").await;
    let made = world.accounts().len() - before.len();
    let ran = place.run(&["remove", "main", "--yes"]).await.exits(0);
    ran.tells(&[&format!("main: {made} accounts deleted"), "sandbox-torq-id"]);
    assert_eq!(ids(&world), before);
    assert_eq!(
        kept(&place),
        ["main.removed", "other.db", "other.db-shm", "other.db-wal"]
    );

    let status = daemon.state("main", "removed").await;
    assert!(status["reason"].as_str().unwrap().starts_with("removed by a person on"));
    assert!(
        status["action"]
            .as_str()
            .unwrap()
            .contains(&place.advised("reconnect main")),
        "{status}"
    );
    assert!(status["next_poll"].is_null() && status["last_success"].is_null());
    assert_eq!(status["users"], 0);
    let (code, answer) = daemon.get("/readyz").await;
    assert_eq!((code, body(&answer)), (200, "ready\n"));
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert!(daemon.get("/").await.1.contains("removed by a person"));
    for path in ["/api/users?connector=main", "/api/users", "/api/events"] {
        let told = daemon.json(path).await.to_string();
        assert!(!told.contains("\"main\""), "{path}: {told}");
    }
    let (_, metrics) = daemon.get("/metrics").await;
    assert!(metrics.contains("torq_connector_state{connector=\"main\",state=\"removed\"} 1"));
    assert!(metrics.contains("torq_connector_users{connector=\"main\",standing=\"present\"} 0"));

    world.clear_requests();
    for command in ["sync", "pause", "resume", "approve", "retry"] {
        place
            .run(&[command, "main"])
            .await
            .exits(75)
            .tells(&["main: was removed", "torq-connector reconnect main"]);
    }
    place.run(&["remove", "main", "--yes"]).await.exits(0);
    place
        .run(&["sync"])
        .await
        .exits(0)
        .tells(&["other: 3 users", "main: was removed"]);
    assert!(world.requests().is_empty());
    daemon.stop().await;

    // Nor does the next daemon begin again.
    let daemon = place.daemon().await;
    daemon.state("main", "removed").await;
    daemon.state("other", "connected").await;
    assert_eq!(daemon.get("/readyz").await.0, 200);
    assert!(world.requests().is_empty());

    place
        .run(&["reconnect", "main"])
        .await
        .exits(0)
        .tells(&["12 new", &format!("{made} accounts created")]);
    daemon.state("main", "connected").await;
    let emails = account_emails(&world);
    for email in people_emails(&world) {
        assert_eq!(emails.iter().filter(|one| **one == email).count(), 1, "{email}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_yes_the_daemon_shows_and_does_nothing() {
    let sandbox = sandbox(5).await;
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    sandbox.world().clear_requests();
    place.run(&["remove", "main"]).await.exits(64).tells(&[
        "5 accounts that this connector created are deleted",
        "is deleted: this connector made it",
        "--yes",
    ]);
    assert!(sandbox.world().writes().is_empty());
    daemon.state("main", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_shown_and_done_while_a_run_is_going_on() {
    let sandbox = sandbox(40).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    // A run that takes its time, page by page of newcomers.
    world.add_people(30);
    let slow = FaultRule::always(
        Endpoint::AccountCreate,
        Fault::Delay(std::time::Duration::from_millis(300)),
    );
    world.fault(slow);
    let running = place.command(&["sync"]).stderr(Stdio::null()).spawn().unwrap();
    eventually("accounts are being created", async || {
        (world.accounts().len() > 44).then_some(())
    })
    .await;
    place
        .run(&["remove", "main"])
        .await
        .exits(64)
        .tells(&["accounts that this connector created are deleted"]);
    place.run(&["remove", "main", "--yes"]).await.exits(0);
    assert!(
        world.application().is_none(),
        "nothing is left, also of what was under way"
    );
    daemon.state("main", "removed").await;
    drop(running);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wanted_it_set_up_before_it_was_removed_does_not_undo_that() {
    let sandbox = lived_in(12).await;
    let world = sandbox.world();
    let before = ids(&world);
    let place = Place::new(&[Connector::new("main", &sandbox).with("poll_interval", "1h")]);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    world.clear_requests();
    // A run that somebody ends with a `reconnect`: a create that is under way is waited for.
    world.add_people(1);
    world.fault(FaultRule::once(
        Endpoint::AccountCreate,
        Fault::Delay(Duration::from_secs(8)),
    ));
    let run = place.run(&["sync"]);
    let others = async {
        world.seen(Endpoint::AccountCreate, 1).await;
        let reconnect = place.run(&["reconnect", "main"]);
        let remove = async {
            eventually("it is heard", async || {
                daemon.said().contains("the configuration was read again").then_some(())
            })
            .await;
            place.run(&["remove", "main", "--yes"]).await.exits(0)
        };
        tokio::join!(reconnect, remove)
    };
    tokio::join!(run, others);
    daemon.state("main", "removed").await;
    assert_eq!(ids(&world), before);
    assert_eq!(kept(&place), ["main.removed"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemons_removal_that_fails_can_be_repeated_with_better_credentials() {
    let sandbox = sandbox(6).await;
    let world = sandbox.world();
    let connector = Connector::new("main", &sandbox)
        .without("jumpcloud.client_secret")
        .with("jumpcloud.client_secret_file", "jumpcloud_secret");
    let place = Place::new(&[connector]);
    place.write("jumpcloud_secret", "sandbox-jumpcloud-secret\n");
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    world.set_jumpcloud_secret("another");
    world.forget_tokens(Peer::JumpCloud);
    place
        .run(&["remove", "main", "--yes"])
        .await
        .exits(77)
        .tells(&["nothing is removed: JumpCloud", "(401)"]);
    // The plan works, and in the middle of the removal the credentials end.
    place.write("jumpcloud_secret", "another\n");
    world.fault(FaultRule::always(Endpoint::AccountDelete, Fault::status(401)).after(3));
    place.run(&["remove", "main", "--yes"]).await.exits(77).tells(&[
        "main: 3 accounts deleted",
        "not finished",
        "(401)",
        "its state stays",
    ]);
    let status = daemon.state("main", "removed").await;
    assert!(
        status["reason"].as_str().unwrap().contains("did not come to its end"),
        "{status}"
    );
    assert_eq!(daemon.get("/readyz").await.0, 503, "somebody has to go on with it");
    world.clear_faults();
    place
        .run(&["remove", "main", "--yes"])
        .await
        .exits(0)
        .tells(&["main: 3 accounts deleted in JumpCloud, and the application"]);
    eventually("ready", async || (daemon.get("/readyz").await.0 == 200).then_some(())).await;
    assert_eq!(kept(&place), ["main.removed"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_new_in_the_configuration_are_used_and_nothing_else_of_it() {
    let (sandbox, new) = (sandbox(3).await, sandbox(2).await);
    let world = sandbox.world();
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    world.set_jumpcloud_secret("another");
    world.forget_tokens(Peer::JumpCloud);
    let main = Connector::new("main", &sandbox).with("jumpcloud.client_secret", "another");
    place.configure("", &[main, Connector::new("new", &new)]);
    place
        .run(&["remove", "main"])
        .await
        .exits(64)
        .tells(&["3 accounts that this connector created are deleted"]);
    place.run(&["remove", "main", "--yes"]).await.exits(0);
    assert!(world.application().is_none());
    assert!(new.world().requests().is_empty(), "who removes one starts no other");
    let status = daemon.json("/api/status").await;
    assert_eq!(status["connectors"].as_array().unwrap().len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_forgets_a_connector_and_leaves_jumpcloud_as_it_is() {
    let sandbox = sandbox(4).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    world.clear_requests();
    place
        .run(&["remove", "main", "--yes", "--keep-accounts"])
        .await
        .exits(0)
        .tells(&["4 accounts that this connector created stay"]);
    assert!(world.requests().is_empty());
    daemon.state("main", "removed").await;
    assert_eq!(kept(&place), ["main.removed"]);
    // Back again they are found, and nobody's to delete.
    place
        .run(&["reconnect", "main"])
        .await
        .exits(0)
        .tells(&["4 accounts found"]);
    place
        .run(&["remove", "main", "--yes"])
        .await
        .exits(0)
        .tells(&["none is there that this connector created"]);
    assert_eq!(world.accounts().len(), 4);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_stopped_in_the_middle_of_a_removal_leaves_the_rest_for_a_repetition() {
    let sandbox = sandbox(12).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    let mut daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    world.fault(FaultRule::always(Endpoint::AccountDelete, Fault::Delay(std::time::Duration::from_secs(2))).after(4));
    let removing = tokio::spawn(finish(place.command(&["remove", "main", "--yes"])));
    tokio::time::timeout(crate::binary::DEADLINE, world.seen(Endpoint::AccountDelete, 5))
        .await
        .expect("it deletes");
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await.0, 0, "{}", daemon.said());
    removing.await.unwrap().exits(69);
    world.clear_faults();
    let left = world.accounts().len();
    assert!(left > 0 && left < 12, "it was in the middle: {left}");

    let daemon = place.daemon().await;
    daemon.state("main", "removed").await;
    assert_eq!(world.accounts().len(), left, "nobody is made anew");
    place
        .run(&["remove", "main", "--yes"])
        .await
        .exits(0)
        .tells(&[&format!("main: {left} accounts deleted")]);
    assert!(world.application().is_none());
    daemon.stop().await;
}
