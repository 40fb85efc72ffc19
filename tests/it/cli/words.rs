//! The words: advice that can be followed as it stands there, said once, by whoever it is true of.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Sandbox};

use super::{gone, place};
use crate::binary::{Connector, Place, bare, body, eventually, finish, get, sandbox};

/// A place whose JumpCloud refuses one of five people.
async fn one_is_refused() -> (Sandbox, Place) {
    let sandbox = sandbox(5).await;
    let refused = sandbox.world().people()[0].email.clone();
    sandbox
        .world()
        .behave(|behaviour| behaviour.refused_emails = vec![refused]);
    let place = place(&sandbox);
    (sandbox, place)
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_names_the_configuration_that_was_given() {
    let (_sandbox, place) = one_is_refused().await;
    let given = place.path("config.toml").display().to_string();
    for args in [["sync"].as_slice(), &["status"]] {
        let mut command = bare();
        command.arg("--config").arg(&given).args(args);
        let ran = finish(command).await;
        let said = format!("{}{}", ran.out, ran.err);
        assert!(
            said.contains(&format!("torq-connector --config {given} retry main")),
            "{said}"
        );
        assert_eq!(
            said.matches("retry main").count(),
            1,
            "what to do about those parked is said once:\n{said}"
        );
    }
    // What programs pass on to a person names it, too.
    let mut command = bare();
    command.arg("--config").arg(&given).args(["status", "--format", "json"]);
    let json = finish(command).await.json();
    let action = json["connectors"][0]["action"].as_str().unwrap();
    assert!(
        action.contains(&format!("torq-connector --config {given} retry main")),
        "{action}"
    );
    // Found by the environment, it is found by the advised command as well.
    let json = place.run(&["status", "--format", "json"]).await.json();
    assert_eq!(json["daemon"], false, "{json}");
    let action = json["connectors"][0]["action"].as_str().unwrap();
    assert!(action.contains("torq-connector retry main"), "{action}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_daemon_says_names_its_configuration() {
    let (_sandbox, place) = one_is_refused().await;
    let daemon = place
        .daemon_with(|command| {
            // From where it is, and not from where somebody else is.
            command
                .current_dir(place.path("."))
                .env_remove("TORQ_CONNECTOR_CONFIG")
                .args(["--config", "config.toml"]);
        })
        .await;
    let full = format!(
        "torq-connector --config {} retry main",
        place.path("config.toml").display()
    );
    eventually("JSON", async || {
        let (_, answer) = get(daemon.address, "/api/status").await;
        answer.contains(&full).then_some(())
    })
    .await;
    let (_, page) = get(daemon.address, "/").await;
    assert!(
        page.contains(&format!("<code class=\"command\">{full}</code>")),
        "{page}"
    );
    eventually("the log", async || daemon.said().contains(&full).then_some(())).await;
    let json = place.run(&["status", "--format", "json"]).await.json();
    let (_, answer) = get(daemon.address, "/api/status").await;
    let api: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(
        (&json["daemon"], &api["daemon"]),
        (&true.into(), &true.into()),
        "{json}"
    );
    // A command that asks the daemon says it as it is called itself.
    let mut command = bare();
    command
        .current_dir(place.path("."))
        .args(["--config", "config.toml", "status"]);
    finish(command)
        .await
        .shows(&["torq-connector --config config.toml retry main"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_installed_is_advised_by_its_path() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    let mut command = place.command(&["pause"]);
    command.env("PATH", "/nowhere");
    let program = env!("CARGO_BIN_EXE_torq-connector");
    finish(command)
        .await
        .exits(0)
        .tells(&[&format!("until: {program} resume main")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_for_the_configuration_is_one_that_is_not_set() {
    let mut command = bare();
    command.env("TORQ_CONNECTOR_CONFIG", "").arg("status");
    let ran = finish(command).await;
    assert!(
        !ran.err.contains("there is no configuration file ;") && ran.err.contains("/etc/torq-connector/config.toml"),
        "{}",
        ran.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_is_not_shown_as_waiting_for_approval() {
    let sandbox = sandbox(12).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    for person in sandbox.world().people() {
        sandbox.world().remove_person(&person.id);
    }
    place.run(&["sync"]).await;
    place.run(&["sync"]).await.exits(75);
    place.run(&["approve", "main"]).await.exits(0);
    let ran = place.run(&["status"]).await.exits(0);
    let ran = ran.shows(&["12 removals approved; the next run carries them out"]);
    assert!(!ran.out.contains("then: torq-connector approve"), "{}", ran.out);
    place.run(&["sync"]).await.exits(0);
    let status = place.run(&["status", "--format", "json"]).await.json();
    assert_eq!(status["connectors"][0]["state"], "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_on_several_connectors_goes_on_after_one_that_cannot() {
    let sandbox = sandbox(2).await;
    let place = Place::new(&[Connector::new("bad", &sandbox), Connector::new("two", &sandbox)]);
    std::fs::create_dir(place.state_dir()).unwrap();
    place.write("state/bad.db", "this is no database, this is some text");
    place
        .run(&["pause", "bad", "two"])
        .await
        .exits(1)
        .tells(&["bad: ", "bad.db is damaged", "two: paused"]);
    place.run(&["resume", "two"]).await.exits(0).tells(&["two: resumed"]);
    place.run(&["resume", "two"]).await.exits(0).tells(&["not paused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_shown_with_what_to_do() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    std::fs::create_dir(place.state_dir()).unwrap();
    place.write("state/main.db", "this is no database, this is some text");
    let json = place.run(&["status", "--format", "json"]).await.exits(1).json();
    let action = json["connectors"][0]["action"].as_str().unwrap();
    assert!(
        action.contains("restore a copy") && action.contains("move it away"),
        "{action}"
    );
    let ran = place.run(&["users"]).await.exits(1);
    assert_eq!(ran.out, "", "after an error, \"no users\" would be a claim");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_tried_again_by_itself_where_nothing_runs() {
    let place = Place::new(&[gone().await]);
    for args in [["check"].as_slice(), &["sync", "--dry-run"], &["sync"]] {
        let ran = place.run(args).await.exits(69);
        let said = format!("{}{}", ran.out, ran.err);
        let again = format!("torq-connector {} main", args.join(" "));
        assert!(
            said.contains(&again) && said.contains("firewall") && !said.contains("by itself"),
            "{said}"
        );
    }
    let ran = place.run(&["status"]).await.exits(0);
    assert!(!ran.out.contains("by itself"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_said_of_itself_is_not_said_when_it_is_gone() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    sandbox
        .world()
        .fault(FaultRule::always(Endpoint::Applications, Fault::status(503)));
    let daemon = place.daemon().await;
    daemon.state("main", "retrying").await;
    daemon.stop().await;
    let ran = place.run(&["status"]).await.exits(0);
    assert!(!ran.out.contains("by itself"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn help_tells_the_exit_codes_where_scripts_need_them() {
    for name in ["sync", "check", "run"] {
        let mut command = bare();
        command.args([name, "--help"]);
        finish(command)
            .await
            .exits(0)
            .shows(&["Exit codes: 0 done", "78 configuration"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_this_machine_has_not_is_not_taken_for_another_daemon() {
    let sandbox = sandbox(1).await;
    // Of a network for documentation, which is nobody's (RFC 5737).
    let sections = "[http]\nlisten = \"192.0.2.1:8686\"\n";
    let place = Place::with(sections, &[Connector::new("main", &sandbox)]);
    let ran = place.run(&["run"]).await.exits(1);
    let ran = ran.tells(&["cannot listen on 192.0.2.1:8686", "no such address", "http.listen"]);
    assert!(!ran.err.contains("another daemon"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_keep_quiet_and_a_proxy_that_is_none_is_told() {
    let sandbox = sandbox(1).await;
    let connector = Connector::new("main", &sandbox)
        .with("torq.token_url", "https://torq.invalid/token")
        .with("torq.api_url", "https://torq.invalid/public/v1alpha");
    let place = Place::new(&[connector]);
    for args in [["check"].as_slice(), &["sync"], &["run"]] {
        let mut command = place.command(args);
        command.env("HTTPS_PROXY", "garbage://user:s3cret@");
        let ran = finish(command).await.exits(78).tells(&["HTTPS_PROXY"]);
        assert!(!ran.err.contains("s3cret"), "{}", ran.err);
    }
    // A proxy in between is named, without its credentials.
    let mut command = place.command(&["check"]);
    command.env("HTTPS_PROXY", "http://user:s3cret@127.0.0.1:9");
    let ran = finish(command).await.exits(69);
    let ran = ran.shows(&["torq.invalid:443 through the proxy 127.0.0.1:9"]);
    assert!(
        !ran.out.contains("s3cret") && !ran.err.contains("s3cret"),
        "{}",
        ran.out
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_first_collection_shows_its_progress_and_elsewhere_it_says_how_it_ended() {
    let sandbox = sandbox(20).await;
    sandbox.world().behave(|behaviour| behaviour.torq_page_cap = 2);
    let slow = FaultRule::always(Endpoint::TorqUsers, Fault::Delay(Duration::from_millis(100)));
    sandbox.world().fault(slow);
    let place = Place::new(&[Connector::new("main", &sandbox), Connector::new("other", &sandbox)]);
    // util-linux' script gives it a terminal of its own.
    let mut command = tokio::process::Command::new("script");
    command
        .args([
            "-qec",
            &format!("{} sync main", env!("CARGO_BIN_EXE_torq-connector")),
            "/dev/null",
        ])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TERM", "xterm")
        .env("TORQ_CONNECTOR_CONFIG", place.path("config.toml"))
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let ran = finish(command).await.exits(0);
    let pages: BTreeSet<_> = ran
        .out
        .split("reading Torq: ")
        .skip(1)
        .map(|rest| rest.split_once(" pages").expect("the words end").0)
        .collect();
    assert!(pages.len() > 2, "it goes on: {:?}", ran.out);
    assert!(pages.iter().all(|words| words.contains("users on ")), "{pages:?}");
    let last = ran.out.trim_end().rsplit(['\r', '\n']).next().unwrap();
    assert!(
        last.contains("main: 20 users"),
        "the last words are what came of it: {:?}",
        ran.out
    );

    let ran = place.run(&["sync", "other"]).await.exits(0);
    assert!(
        !ran.err.contains("reading Torq") && !ran.err.contains('\r'),
        "{:?}",
        ran.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_as_elsewhere_means_what_it_means_elsewhere() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    // Standard output, and no file of that name.
    let mut command = place.command(&["report", "access", "--format", "csv", "-o", "-"]);
    command.current_dir(place.path("."));
    let ran = finish(command).await.exits(0);
    assert_eq!(ran.csv().len(), 3, "{}", ran.out);
    assert!(!place.path("-").exists());
    // Nothing ago is now.
    place
        .run(&["report", "access", "--at", "0s"])
        .await
        .exits(0)
        .tells(&["2 users, as of"]);
    place
        .run(&["events", "--kind", "user_appeared,"])
        .await
        .exits(64)
        .tells(&["before or after a comma"]);
    place
        .run(&["events", "--kind", "user_appeard"])
        .await
        .exits(64)
        .tells(&["'user_appeared'"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_writes_a_connector_in_one_way() {
    let sandbox = sandbox(2).await;
    let world = sandbox.world();
    world.fault(FaultRule::once(Endpoint::TorqUsers, Fault::status(503)));
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    let daemon = place
        .daemon_with(|command| {
            command.arg("-vv");
        })
        .await;
    daemon.state("main", "connected").await;
    world.add_people(1);
    place.run(&["sync"]).await.exits(0);
    world.revoke_torq_key();
    place.run(&["sync"]).await.exits(77);
    let said = daemon.said();
    for words in [
        "trying again",
        "answers again",
        "run ended",
        "run begins",
        "answered",
        "reconnect",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    for line in said.lines().filter(|line| line.contains("connector=")) {
        assert!(line.contains("connector=main"), "{line}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_with_an_old_poll_says_since_when() {
    let sandbox = sandbox(60).await;
    let world = sandbox.world();
    world.behave(|behaviour| behaviour.torq_page_cap = 5);
    let place = place(&sandbox);
    let refused = |skip| FaultRule::always(Endpoint::TorqUsers, Fault::status(403)).after(skip);
    let resumed = |err: &str| err.contains("main: going on with the poll that began at ");

    // Nothing of it was read, so nothing goes on.
    world.fault(refused(0));
    for _ in 0..2 {
        let ran = place.run(&["sync"]).await.exits(77);
        assert!(!resumed(&ran.err), "{}", ran.err);
    }
    world.clear_faults();
    world.fault(refused(6));
    place.run(&["sync"]).await.exits(77);
    world.clear_faults();
    let ran = place.run(&["sync"]).await.exits(0);
    assert!(resumed(&ran.err), "{}", ran.err);
    let ran = place.run(&["sync"]).await.exits(0);
    assert!(!resumed(&ran.err), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_a_reconnect_is_shown_as_what_it_is() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    sandbox.world().revoke_torq_key();
    place.run(&["sync"]).await.exits(77);
    sandbox.world().restore_torq_key();
    place.run(&["reconnect"]).await.exits(0);
    let shown = place.run(&["status"]).await.exits(0);
    shown.shows(&["starting", "a person asked to reconnect", "torq-connector sync main"]);
    place.run(&["sync"]).await.exits(0);
    let shown = place.run(&["status"]).await.exits(0);
    shown.shows(&["connected"]).hides(&["asked to reconnect"]);
}
