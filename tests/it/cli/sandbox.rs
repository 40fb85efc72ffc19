//! `sandbox`, `demo`, `--help`, `--version`: trying things out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::Value;

use crate::binary::{bare, body, eventually, exchange, finish, get, search};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_the_whole_thing_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = bare();
    command
        .env("TMPDIR", temp.path())
        .args(["demo", "--for", "8s", "--people", "20", "--listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = {
        use tokio::io::{AsyncBufReadExt, BufReader};
        BufReader::new(child.stderr.take().unwrap()).lines()
    };
    let mut said = Vec::new();
    let mut page = None;
    let mut advised = None;
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(rest) = line.strip_prefix("Status page:  http://") {
            let address = rest.trim_end_matches('/').parse().unwrap();
            page = Some(
                eventually("the status page says connected", async || {
                    let (status, answer) = get(address, "/").await;
                    (status == 200 && answer.contains("connected")).then_some(answer)
                })
                .await,
            );
        }
        // What it says can be typed as it stands there.
        if line.contains("torq-connector --config ") && line.ends_with(" status") {
            let mut words = line.split_whitespace();
            let mut command = tokio::process::Command::new(words.next().unwrap());
            command
                .args(words)
                .env("PATH", search())
                .env_remove("TORQ_CONNECTOR_CONFIG");
            advised = Some(finish(command).await.exits(0).shows(&["demo"]));
        }
        said.push(line);
    }
    let status = child.wait().await.unwrap();
    let said = said.join("\n");
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(page.is_some() && advised.is_some(), "{said}");
    for words in [
        "An invented Torq workspace with 20 people",
        "/api/status",
        "new in Torq",
        "At the end: ",
    ] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    assert_eq!(
        std::fs::read_dir(temp.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

/// A demo of three people, whose words go into `said`, and whose folder into `tmp`.
fn small_demo(more: &[&str]) -> (tempfile::TempDir, tokio::process::Child) {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("tmp");
    std::fs::create_dir(&folder).unwrap();
    let mut command = bare();
    command
        .env("TMPDIR", &folder)
        .args(["demo", "--people", "3", "--listen", "127.0.0.1:0"])
        .args(more)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(temp.path().join("said")).unwrap());
    let child = command.spawn().unwrap();
    (temp, child)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_whose_terminal_is_closed_leaves_nothing_behind() {
    let (temp, mut child) = small_demo(&[]);
    let (log, folder) = (temp.path().join("said"), temp.path().join("tmp"));
    eventually("it is on its way", async || {
        std::fs::read_to_string(&log)
            .unwrap()
            .contains("Ctrl-C ends")
            .then_some(())
    })
    .await;
    let pid = child.id().unwrap().to_string();
    // Until the signal is listened for, it ends whoever gets it.
    eventually("it works", async || {
        let mut folders = std::fs::read_dir(&folder).unwrap().flatten();
        let has_socket = |entry: std::fs::DirEntry| entry.path().join("control.sock").exists();
        folders.any(has_socket).then_some(())
    })
    .await;
    let hung_up = std::process::Command::new("kill").args(["-s", "HUP", &pid]).status();
    assert!(hung_up.unwrap().success());
    assert!(child.wait().await.unwrap().code().is_some(), "it ended by itself");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_quit_at_once_leaves_nothing_behind_either() {
    let (temp, mut child) = small_demo(&["--interval", "1s"]);
    let (log, folder) = (temp.path().join("said"), temp.path().join("tmp"));
    let said = || std::fs::read_to_string(&log).unwrap();
    let control = eventually("it says where the sandbox is", async || {
        let said = said();
        let line = said.lines().find_map(|line| line.strip_prefix("Sandbox:"))?;
        line.split_whitespace().next().map(str::to_owned)
    })
    .await;
    let address = control
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix("/sandbox"));
    let address = address.unwrap().parse().unwrap();
    let post = async |path: &str, json: &str| assert_eq!(exchange(address, "POST", path, json).await.0, 200, "{path}");
    let creates = async || {
        let (_, answer) = get(address, "/sandbox/requests").await;
        let requests: Value = serde_json::from_str(body(&answer)).unwrap();
        let mut requests = requests["requests"].as_array().unwrap().iter();
        let creates = requests.find(|one| one["endpoint"] == "account-create");
        creates.map_or(0, |one| one["count"].as_u64().unwrap())
    };
    // A write that is under way is waited for.
    post("/sandbox/faults", r#"{"rule": "delay=120s:account-create"}"#).await;
    let before = creates().await;
    post("/sandbox/arrive", r#"{"count": 3}"#).await;
    eventually("an account is being made", async || {
        (creates().await > before).then_some(())
    })
    .await;
    let interrupt = || {
        let pid = child.id().unwrap().to_string();
        std::process::Command::new("kill")
            .args(["-s", "INT", &pid])
            .status()
            .unwrap();
    };
    interrupt();
    eventually("it is stopping", async || {
        said().contains("stopping; once more to quit at once").then_some(())
    })
    .await;
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "{}", said());
    interrupt();
    assert_eq!(child.wait().await.unwrap().code(), Some(130), "{}", said());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{}", said());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mistyped_gets_advice_that_helps() {
    for args in [
        ["demo", "--for", "-5d"].as_slice(),
        &["report", "dormant", "--for", "-5d"],
        &["users", "--dormant", "-5d"],
        &["events", "--since", "-5d"],
        &["events", "--since", "-5h"],
        &["events", "--limit", "-5"],
        &["sandbox", "--every", "-5s"],
    ] {
        let mut command = bare();
        command.args(args);
        let ran = finish(command).await.exits(64);
        assert!(
            ran.err.contains("invalid value '-5") && !ran.err.contains("tip:"),
            "{}",
            ran.err
        );
    }
    let mut command = bare();
    command.arg("manuel");
    let ran = finish(command)
        .await
        .exits(64)
        .tells(&["unrecognized subcommand 'manuel'", "'pause'"]);
    assert!(!ran.err.contains("'manual'"), "hidden is hidden: {}", ran.err);
    let mut command = bare();
    command.args(["init", "--help"]);
    finish(command).await.exits(0).shows(&[
        "Another address of Torq's tokens",
        "Another address of JumpCloud's tokens",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_writes_a_configuration_that_works() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("try.toml");
    let mut command = bare();
    command
        .args([
            "sandbox",
            "--listen",
            "127.0.0.1:0",
            "--people",
            "7",
            "--every",
            "off",
            "--write-config",
        ])
        .arg(&config)
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    eventually("the configuration is written", async || config.exists().then_some(())).await;
    let run = async |args: &[&str]| {
        let mut command = bare();
        command.arg("--config").arg(&config).args(args);
        finish(command).await
    };
    eventually("the configuration is complete", async || {
        (run(&["check", "--offline"]).await.code == 0).then_some(())
    })
    .await;
    run(&["check"]).await.exits(0);
    run(&["sync"])
        .await
        .exits(0)
        .tells(&["demo: 7 users; 7 new, 7 accounts created"]);
    run(&["status"]).await.exits(0).shows(&["demo", "connected"]);
    let pid = child.id().unwrap().to_string();
    std::process::Command::new("kill")
        .args(["-s", "INT", &pid])
        .status()
        .unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = bare();
    command.args(["sandbox", "--listen", &address]);
    let ran = finish(command).await.exits(1);
    ran.tells(&[&address, "in use", "--listen 127.0.0.1:PORT"]);
    let mut command = bare();
    command.args(["sandbox", "--listen", "0.0.0.0:0"]);
    finish(command).await.exits(64).tells(&["loopback"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_help_and_the_version_is_told() {
    let mut command = bare();
    // The long one says more, and has a test of its own.
    command.arg("-V");
    let ran = finish(command).await.exits(0);
    assert_eq!(ran.out, format!("torq-connector {}\n", env!("CARGO_PKG_VERSION")));
    let mut command = bare();
    command.arg("--help");
    let ran = finish(command)
        .await
        .exits(0)
        .shows(&["Exit codes: 0 done", "--config"]);
    let listed = ran
        .out
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let commands: Vec<_> = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for known in [
        "run",
        "sync",
        "check",
        "status",
        "users",
        "events",
        "reconnect",
        "pause",
        "resume",
        "approve",
        "retry",
        "sandbox",
        "demo",
    ] {
        assert!(commands.contains(&known), "{known} is not in {commands:?}");
    }
    for name in commands {
        let mut command = bare();
        command.args([name, "--help"].iter().filter(|word| name != "help" || **word == name));
        let ran = finish(command).await.exits(0);
        assert!(
            ran.out.contains("Usage: torq-connector") && ran.err.is_empty(),
            "{name}: {}",
            ran.out
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_writes_over_no_file_but_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("try.toml");
    let sandbox = async || {
        let mut command = bare();
        command.args([
            "sandbox",
            "--listen",
            "127.0.0.1:0",
            "--people",
            "1",
            "--every",
            "off",
            "--write-config",
        ]);
        command.arg(&config);
        command
    };
    std::fs::write(&config, "[connectors.mine]\n").unwrap();
    finish(sandbox().await)
        .await
        .exits(64)
        .tells(&["try.toml is there already"]);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "[connectors.mine]\n");

    // One that a sandbox wrote is written over, whatever its ports were, and nobody else can read it, whoever could before.
    std::fs::remove_file(&config).unwrap();
    let mut ports = Vec::new();
    for _ in 0..2 {
        let mut child = sandbox().await.stderr(Stdio::null()).spawn().unwrap();
        let text = eventually("the configuration is written", async || {
            let text = std::fs::read_to_string(&config).unwrap_or_default();
            (text.contains("[connectors.demo]") && !ports.contains(&text)).then_some(text)
        })
        .await;
        assert_eq!(std::fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
        ports.push(text);
        child.kill().await.unwrap();
    }

    // One that somebody changed since is theirs.
    let theirs = ports.pop().unwrap().replace("[connectors.demo]", "[connectors.mine]");
    std::fs::write(&config, &theirs).unwrap();
    finish(sandbox().await)
        .await
        .exits(64)
        .tells(&["try.toml was changed since a sandbox wrote it"]);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), theirs);
}
