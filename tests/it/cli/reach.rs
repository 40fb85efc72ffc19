//! Reaching what a command is about: a state folder that is another user's, a daemon that waits, a configuration that has problems
//! while a daemon runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Sandbox};

use super::place;
use crate::binary::{Away, Connector, Place, finish, sandbox};

const SECRETS: [(&str, &str); 2] = [
    (
        "TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET",
        "sandbox-torq-secret",
    ),
    (
        "TORQ_CONNECTOR__CONNECTORS__MAIN__JUMPCLOUD__CLIENT_SECRET",
        "sandbox-jumpcloud-secret",
    ),
];

/// A place whose configuration everybody may read, for there is no secret in it, and whose state nobody else may look into.
fn shown_place(sandbox: &Sandbox) -> Place {
    let connector = Connector::new("main", sandbox)
        .without("torq.client_secret")
        .without("jumpcloud.client_secret");
    Place::new(&[connector])
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The command as somebody runs it who has no right to the state folder: another user, where we may become one; else ourselves, locked
/// out.
fn as_somebody_else(place: &Place, args: &[&str]) -> Command {
    let root = fs::metadata(place.path("")).unwrap().uid() == 0;
    let mut command = if root {
        set_mode(&place.path(""), 0o755);
        set_mode(&place.path("config.toml"), 0o644);
        let binary = place.path("torq-connector");
        if !binary.exists() {
            // Where it was built, nobody else may be.
            fs::copy(env!("CARGO_BIN_EXE_torq-connector"), &binary).unwrap();
            set_mode(&binary, 0o755);
        }
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(binary);
        command
    } else {
        set_mode(&place.state_dir(), 0o000);
        Command::new(env!("CARGO_BIN_EXE_torq-connector"))
    };
    command
        .args(args)
        .env("TORQ_CONNECTOR_CONFIG", place.path("config.toml"))
        .envs(SECRETS);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_looked_into_is_not_told_as_nothing_known() {
    let sandbox = sandbox(3).await;
    let place = shown_place(&sandbox);
    let mut sync = place.command(&["sync"]);
    sync.envs(SECRETS);
    finish(sync).await.exits(0);
    let denied = format!(
        "cannot look into {}: permission denied; run it as root or as the user of the service",
        place.state_dir().display()
    );
    for args in [
        ["status"].as_slice(),
        &["status", "--format", "json"],
        &["users", "--format", "csv"],
        &["events", "--format", "json"],
        &["sync", "--dry-run"],
        &["sync"],
        &["pause", "main"],
        &["backup", "--to", "/tmp/nowhere"],
        &["remove", "main", "--yes", "--keep-accounts"],
    ] {
        let ran = finish(as_somebody_else(&place, args)).await.exits(1).tells(&[&denied]);
        assert_eq!(ran.out, "", "{args:?}: an empty list would be a claim");
        assert!(
            !ran.err.contains("nothing is known") && !ran.err.contains("no daemon"),
            "{args:?}: {}",
            ran.err
        );
    }
    set_mode(&place.state_dir(), 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_on_a_folder_that_cannot_be_used_names_the_setting_and_the_way_out() {
    let sandbox = sandbox(1).await;
    let place = Place::with("", &[Connector::new("main", &sandbox)]);
    place.write("state", "a file where the folder should be");
    for args in [["sync"].as_slice(), &["run"]] {
        let ran = place.run(args).await.exits(1);
        ran.tells(&["state_dir", "set state_dir"]);
    }
    place
        .run(&["status"])
        .await
        .exits(1)
        .tells(&["cannot look into", "state_dir"]);
    assert!(sandbox.world().requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_may_not_be_read_says_how_it_may() {
    let sandbox = sandbox(1).await;
    let place = shown_place(&sandbox);
    fs::create_dir(place.state_dir()).unwrap();
    let command = as_somebody_else(&place, &["run"]);
    let root = fs::metadata(place.path("")).unwrap().uid() == 0;
    set_mode(&place.path("config.toml"), if root { 0o600 } else { 0o000 });
    finish(command)
        .await
        .exits(78)
        .tells(&["config.toml", "`chmod 644`", "`chown`"]);
    set_mode(&place.state_dir(), 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_needs_no_secret_that_only_the_daemon_has() {
    let sandbox = sandbox(3).await;
    let place = shown_place(&sandbox);
    let daemon = place
        .daemon_with(|command| {
            command.envs(SECRETS);
        })
        .await;
    daemon.state("main", "connected").await;
    place.run(&["sync"]).await.exits(0).tells(&["main: 3 users"]);
    daemon.stop().await;
    place
        .run(&["sync"])
        .await
        .exits(78)
        .tells(&["connectors.main.torq.client_secret", "missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_a_minute_for_a_peer_that_refuses_connections_and_the_daemon_goes_on() {
    let sandbox = sandbox(3).await;
    let (world, port) = (sandbox.world(), sandbox.addr().port().to_string());
    let place = place(&sandbox);
    let away = Away::of(sandbox).await;
    let daemon = place.daemon().await;
    daemon.state("main", "retrying").await;
    let ran = place.run(&["sync"]).await.exits(69);
    let ran = ran.tells(&[
        "main: not finished: Torq: ",
        &port,
        "the daemon goes on trying",
        "torq-connector status main",
    ]);
    assert!(ran.took >= Duration::from_secs(50), "{:?}", ran.took);
    let _back = away.back().await;
    daemon.state("main", "connected").await;
    assert_eq!(world.accounts().len(), 3);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_file_has_a_problem_a_running_daemon_is_looked_at_and_acted_on() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    place.configure("[log]\nlevel = \"loud\"\n", &[Connector::new("main", &sandbox)]);
    place
        .run(&["status"])
        .await
        .exits(0)
        .shows(&["main", "connected"])
        .tells(&["log.level", "goes on by its former configuration"]);
    let ran = place.run(&["reconnect", "main"]).await.exits(78);
    assert_eq!(ran.err.matches("log.level").count(), 1, "said once:\n{}", ran.err);
    place
        .run(&["pause", "main"])
        .await
        .exits(0)
        .tells(&["log.level", "main: paused"]);
    daemon.state("main", "paused").await;
    // Also while it is no TOML at all.
    let good = std::fs::read_to_string(place.path("config.toml")).unwrap();
    place.write("config.toml", &format!("{good}\n[connectors.other"));
    for args in [&["status"][..], &["resume", "main"]] {
        place
            .run(args)
            .await
            .exits(0)
            .tells(&["this is not TOML", "goes on by its former configuration"]);
    }
    place.write("config.toml", &good);
    place
        .run(&["pause", "nobody"])
        .await
        .exits(64)
        .tells(&["there is no connector nobody"]);
    daemon.stop().await;
    // Without a daemon there is nobody to ask.
    place.run(&["status"]).await.exits(78).tells(&["log.level"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_ends_a_dry_run_for_there_is_nothing_to_finish() {
    for signal in ["TERM", "INT"] {
        let sandbox = sandbox(2).await;
        sandbox
            .world()
            .fault(FaultRule::always(Endpoint::TorqUsers, Fault::Hang));
        let place = place(&sandbox);
        let mut child = place.command(&["sync", "--dry-run"]).spawn().unwrap();
        sandbox.world().seen(Endpoint::TorqUsers, 1).await;
        let began = std::time::Instant::now();
        send(&child, signal);
        let status = child.wait().await.unwrap();
        assert!(!status.success());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_to_a_run_is_heard_and_the_second_quits_at_once() {
    let sandbox = sandbox(2).await;
    sandbox
        .world()
        .fault(FaultRule::always(Endpoint::TorqUsers, Fault::Hang));
    let place = place(&sandbox);
    let log = place.path("sync.log");
    let mut command = place.command(&["sync"]);
    command.stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    // Both listings: one that has not been asked for yet ends the run at once.
    sandbox.world().seen(Endpoint::TorqUsers, 2).await;
    send(&child, "INT");
    crate::binary::eventually("it says what it does", async || {
        let said = fs::read_to_string(&log).unwrap();
        said.contains("stopping; once more to quit at once").then_some(())
    })
    .await;
    send(&child, "INT");
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_answer_is_told_to_be_so_and_is_asked_nothing_that_it_does_later() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    daemon.signal("STOP");
    let process = format!("process {}", daemon.pid());
    let ran = place.run(&["status"]).await.exits(69);
    ran.tells(&["does not answer", &process, "what was known last"])
        .shows(&["connected"]);
    let ran = place.run(&["pause", "main"]).await.exits(69);
    ran.tells(&["does not answer", &process]);
    daemon.signal("CONT");
    place.run(&["sync"]).await.exits(0);
    assert_eq!(daemon.state("main", "connected").await["users"], 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_cannot_listen_leaves_no_socket_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let sandbox = sandbox(1).await;
    let place = Place::with(
        &format!("[http]\nlisten = \"{address}\"\n"),
        &[Connector::new("main", &sandbox)],
    );
    place
        .run(&["run"])
        .await
        .exits(1)
        .tells(&["is another daemon running?"]);
    assert!(!place.state_dir().join("control.sock").exists());
}

fn send(child: &tokio::process::Child, signal: &str) {
    let pid = child.id().unwrap().to_string();
    let sent = std::process::Command::new("kill").args(["-s", signal, &pid]).status();
    assert!(sent.unwrap().success());
}
