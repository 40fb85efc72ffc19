//! Secrets that are wrong, misplaced, or cannot be read: what the others do meanwhile, and what a person is told to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use torq_connector::sandbox::{Endpoint, Sandbox};

use crate::binary::{Connector, Place, body, finish, sandbox};

/// A connector whose Torq secret is in a file of this name.
fn with_file(name: &str, sandbox: &Sandbox, file: &'static str) -> Connector {
    Connector::new(name, sandbox).torq_secret_in(file)
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect_says_that_the_new_secret_could_not_be_read_and_exits_78() {
    let sandbox = sandbox(4).await;
    let place = Place::new(&[with_file("main", &sandbox, "torq_secret")]);
    place.write("torq_secret", "sandbox-torq-secret\n");
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;

    fs::set_permissions(place.path("torq_secret"), Permissions::from_mode(0o644)).unwrap();
    place.run(&["reconnect", "main"]).await.exits(78).tells(&[
        "main: 4 users; nothing changed",
        "not read again: the client secret for Torq",
        "chmod 600",
    ]);
    fs::remove_file(place.path("torq_secret")).unwrap();
    place.run(&["reconnect", "main"]).await.exits(78).tells(&[
        "main: 4 users; nothing changed",
        "not read again: the client secret for Torq",
        "torq_secret",
    ]);
    // It goes on with the secret that it has.
    daemon.state("main", "connected").await;
    place.write("torq_secret", "sandbox-torq-secret\n");
    place.run(&["reconnect", "main"]).await.exits(0);

    // The same for everything else that may be wrong with the file.
    place.configure(
        "[log]\nlevel = \"loud\"\n",
        &[with_file("main", &sandbox, "torq_secret")],
    );
    place
        .run(&["reconnect", "main"])
        .await
        .exits(78)
        .tells(&["goes on by its former configuration", "log.level"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_secret_that_cannot_be_read_stops_no_other_connector_and_heals_by_itself() {
    let sandbox = sandbox(4).await;
    let connectors = [
        with_file("broken", &sandbox, "not_there_yet"),
        Connector::new("good", &sandbox),
    ];
    let place = Place::new(&connectors);
    let daemon = place.daemon().await;
    daemon.state("good", "connected").await;
    let broken = daemon.state("broken", "reconnect_required").await;
    let reason = broken["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("Torq: the client secret cannot be read: ")
            && reason.contains(&place.path("not_there_yet").display().to_string()),
        "{reason}"
    );
    let action = broken["action"].as_str().unwrap();
    assert!(action.contains("tried again by itself"), "{action}");
    let (status, answer) = daemon.get("/readyz").await;
    assert_eq!((status, body(&answer)), (503, "broken: reconnect_required (Torq)\n"));
    assert_eq!(
        sandbox.world().count(Endpoint::TorqToken),
        1,
        "without a secret nobody is asked"
    );
    place.run(&["sync", "broken"]).await.exits(77).tells(&["not_there_yet"]);

    place.write("not_there_yet", "sandbox-torq-secret\n");
    daemon.state("broken", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_with_a_secret_that_is_gone_goes_on_with_the_one_in_hand() {
    let sandbox = sandbox(4).await;
    let connectors = |interval: &str| {
        [
            with_file("main", &sandbox, "torq_secret").with("poll_interval", interval),
            Connector::new("other", &sandbox).with("poll_interval", interval),
        ]
    };
    let place = Place::new(&connectors("5m"));
    place.write("torq_secret", "sandbox-torq-secret\n");
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    daemon.state("other", "connected").await;
    fs::remove_file(place.path("torq_secret")).unwrap();
    place.configure("", &connectors("6m"));
    daemon.signal("HUP");
    crate::binary::eventually("the daemon says which secret", async || {
        let said = daemon.said();
        (said.contains("the client secret cannot be read") && said.contains("the configuration was read again"))
            .then_some(())
    })
    .await;
    place.run(&["sync"]).await.exits(0);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_judges_the_secrets_of_the_connectors_that_it_is_about() {
    let sandbox = sandbox(3).await;
    let connectors = [
        with_file("broken", &sandbox, "nowhere"),
        Connector::new("good", &sandbox),
    ];
    let place = Place::with(
        "[http]\nlisten = \"off\"\npassword_file = \"no_password\"\n",
        &connectors,
    );
    for args in [
        ["sync", "good"].as_slice(),
        &["sync", "good", "--dry-run"],
        &["check", "good"],
    ] {
        place.run(args).await.exits(0);
    }
    for args in [
        ["sync"].as_slice(),
        &["check"],
        &["check", "broken"],
        &["sync", "broken"],
    ] {
        place
            .run(args)
            .await
            .exits(78)
            .tells(&["connectors.broken.torq.client_secret_file"]);
    }
    place.run(&["check"]).await.exits(78).tells(&["http.password_file"]);
    // The page's password is the daemon's own: without it there is no daemon.
    place.run(&["run"]).await.exits(78).tells(&["http.password_file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_about_refused_credentials_names_connector_and_source() {
    let sandbox = sandbox(2).await;
    let from_file = with_file("acme-eu", &sandbox, "torq_secret");
    let from_environment = Connector::new("Other.One", &sandbox).without("torq.client_secret");
    // A name with a dot is written in quotes.
    let from_environment = Connector {
        name: format!("{:?}", from_environment.name),
        ..from_environment
    };
    let place = Place::new(&[from_file, from_environment]);
    place.write("torq_secret", "wrong\n");
    let variable = "TORQ_CONNECTOR__CONNECTORS__OTHER_ONE__TORQ__CLIENT_SECRET";
    let daemon = place
        .daemon_with(|command| {
            command.env(variable, "wrong");
        })
        .await;
    let file = daemon.state("acme-eu", "reconnect_required").await;
    let action = file["action"].as_str().unwrap();
    let path = place.path("torq_secret").display().to_string();
    for words in [
        "sandbox-torq-id",
        "127.0.0.1",
        path.as_str(),
        "if the key is revoked or expired",
        &format!("then: {}", place.advised("reconnect acme-eu")),
    ] {
        assert!(action.contains(words), "{words:?} is not in {action}");
    }
    let environment = daemon.state("Other.One", "reconnect_required").await;
    let action = environment["action"].as_str().unwrap();
    assert!(
        action.contains(variable) && action.contains("restart the service") && !action.contains("torq-connector"),
        "{action}"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_from_the_credentials_folder_takes_a_restart() {
    let sandbox = sandbox(2).await;
    let place = Place::new(&[with_file("main", &sandbox, "torq_secret")]);
    fs::create_dir(place.path("credentials")).unwrap();
    place.write("credentials/torq_secret", "wrong\n");
    let folder = place.path("credentials");
    let daemon = place
        .daemon_with(|command| {
            command.env("CREDENTIALS_DIRECTORY", &folder);
        })
        .await;
    let status = daemon.state("main", "reconnect_required").await;
    let action = status["action"].as_str().unwrap();
    assert!(
        action.contains("credentials/torq_secret") && action.contains("restart the service"),
        "{action}"
    );
    daemon.stop().await;
    // A command reads it anew each time.
    let mut command = place.command(&["sync"]);
    command.env("CREDENTIALS_DIRECTORY", &folder);
    finish(command)
        .await
        .exits(77)
        .tells(&["then again: torq-connector sync main"]);
}
