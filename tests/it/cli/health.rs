//! `health`: what a container engine asks, by exit code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::place;
use crate::binary::{Place, eventually, sandbox};

/// The same place, listening at a port that is known beforehand.
fn listening(place: &Place, address: &str) {
    let text = std::fs::read_to_string(place.path("config.toml")).unwrap();
    place.write("config.toml", &text.replace("127.0.0.1:0", address));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_by_its_exit_code_whether_the_daemon_works() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    // Nothing listens there yet.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    listening(&place, &free.to_string());
    place
        .run(&["health"])
        .await
        .exits(69)
        .tells(&["does not answer", &free.to_string()]);
    let daemon = place.daemon().await;
    let ran = place.run(&["health"]).await.exits(0).tells(&["ok"]);
    assert_eq!(ran.out, "");
    daemon.state("main", "connected").await;
    eventually("it is ready", async || {
        (place.run(&["health", "--ready"]).await.code == 0).then_some(())
    })
    .await;
    // What is wrong with the file by now is not wrong with the daemon.
    let text = std::fs::read_to_string(place.path("config.toml")).unwrap();
    for broken in [
        format!("{text}\nx\""),
        text.replace("[connectors.main]\n", "[connectors.main]\npoll_interval = \"3\"\n"),
    ] {
        place.write("config.toml", &broken);
        place.run(&["check", "--offline"]).await.exits(78);
        for asked in [["health"].as_slice(), &["health", "--ready"]] {
            place.run(asked).await.exits(0);
        }
    }
    daemon.stop().await;
    place.run(&["health"]).await.exits(78);
    place.write("config.toml", &text);
    place.run(&["health"]).await.exits(69);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_passes_on_what_is_wrong() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[crate::binary::Connector::new("main", &sandbox).with("torq.client_secret", "wrong")]);
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    listening(&place, &free.to_string());
    let daemon = place.daemon().await;
    daemon.state("main", "reconnect_required").await;
    // The process works; its connector does not.
    place.run(&["health"]).await.exits(0);
    place
        .run(&["health", "--ready"])
        .await
        .exits(1)
        .tells(&["main: reconnect_required"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_of_a_daemon_that_serves_nothing_is_that_it_answers() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    place
        .run(&["health"])
        .await
        .exits(69)
        .tells(&["none runs with this state_dir"]);
    // The port is chosen by the system here, so the socket is asked.
    let daemon = place.daemon().await;
    place.run(&["health"]).await.exits(0);
    place
        .run(&["health", "--ready"])
        .await
        .exits(69)
        .tells(&["torq-connector status"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_daemon_answers_is_not_taken_for_this_ones() {
    let sandbox = sandbox(3).await;
    let (place, other) = (self::place(&sandbox), self::place(&sandbox));
    let daemon = other.daemon().await;
    // It has the address that this one is to listen at, so this one never comes up.
    listening(&place, &daemon.address.to_string());
    for args in [&["health"][..], &["health", "--ready"]] {
        place
            .run(args)
            .await
            .exits(69)
            .tells(&["none runs with this state_dir", "is another one"]);
    }
    daemon.stop().await;
}
