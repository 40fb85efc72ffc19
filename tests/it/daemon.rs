//! The daemon, by the real binary: it starts, answers, is acted on, and ends in good order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Sandbox};

use crate::binary::{
    Away, Connector, DEADLINE, Place, account_emails, body, eventually, finish, keys, people_emails, sandbox,
};
use crate::cli::agree;

fn place(sandbox: &Sandbox) -> Place {
    Place::new(&[Connector::new("main", sandbox)])
}

/// Waits for so many requests of an endpoint.
async fn seen(sandbox: &Sandbox, endpoint: Endpoint, count: usize) {
    let world = sandbox.world();
    tokio::time::timeout(DEADLINE, world.seen(endpoint, count))
        .await
        .expect("it is asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_is_healthy_at_once_and_ready_after_its_first_success() {
    let sandbox = sandbox(6).await;
    sandbox
        .world()
        .fault(FaultRule::always(Endpoint::TorqUsers, Fault::Hang));
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    seen(&sandbox, Endpoint::TorqUsers, 1).await;
    assert_eq!(daemon.get("/healthz").await.0, 200);
    let (status, answer) = daemon.get("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body(&answer), "main: collecting, no success yet\n");
    // A hanging peer keeps nobody from looking, nor the daemon from stopping.
    assert_eq!(daemon.state("main", "collecting").await["users"], 0);
    place.run(&["status"]).await.exits(0).shows(&["collecting"]);
    sandbox.world().clear_faults();
    let mut daemon = daemon;
    daemon.signal("KILL");
    daemon.ended().await;

    let daemon = place.daemon().await;
    eventually("it is ready", async || {
        (daemon.get("/readyz").await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(account_emails(&sandbox.world()), people_emails(&sandbox.world()));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_tells_the_same_as_the_commands() {
    let sandbox = sandbox(6).await;
    let place = Place::new(&[Connector::new("main", &sandbox), Connector::new("other", &sandbox)]);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    daemon.state("other", "connected").await;
    for (path, command) in [
        ("/api/users?connector=main", ["users", "main"]),
        ("/api/events?connector=other", ["events", "other"]),
    ] {
        let told = place
            .run(&[command[0], command[1], "--format", "json"])
            .await
            .exits(0)
            .json();
        assert_eq!(daemon.json(path).await, told, "{path}");
    }
    let ran = place.run(&["status", "--format", "json"]).await.exits(0);
    assert_eq!(ran.err, "", "a daemon is running");
    let (told, status) = (ran.json(), daemon.json("/api/status").await);
    assert_eq!(told, status);
    let main = &status["connectors"][0];
    assert!(main["next_poll"].is_string());
    agree(main, &daemon.json("/api/users?connector=main").await);
    assert_eq!(daemon.json("/api/users").await["users"].as_array().unwrap().len(), 12);
    assert_eq!(daemon.get("/api/users?connector=nobody").await.0, 404);
    assert_eq!(daemon.get("/api/nothing").await.0, 404);
    let (status, page) = daemon.get("/").await;
    assert!(status == 200 && page.contains("main") && page.contains("other"));
    place.run(&["status"]).await.exits(0).shows(&["connected", "in "]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_help_and_type_and_name_nobody() {
    let sandbox = sandbox(6).await;
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    let (status, answer) = daemon.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    let mut families = 0;
    for line in body(&answer)
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let name = line.split(['{', ' ']).next().unwrap();
        let known = ["torq_connector_", "process_"];
        assert!(known.iter().any(|prefix| name.starts_with(prefix)), "{line}");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part).filter(|family| family.ends_with("_seconds")))
            .unwrap_or(name);
        for kind in ["HELP", "TYPE"] {
            assert!(answer.contains(&format!("# {kind} {family} ")), "{kind} of {family}");
        }
        families += 1;
    }
    assert!(families > 10, "{answer}");
    for family in [
        "requests_total",
        "runs_total",
        "last_success_timestamp_seconds",
        "state",
        "users",
        "build_info",
    ] {
        assert!(answer.contains(&format!("# HELP torq_connector_{family} ")), "{family}");
    }
    assert!(
        answer.contains("torq_connector_users{connector=\"main\",standing=\"present\"} 6"),
        "{answer}"
    );
    for path in ["/metrics", "/healthz", "/readyz"] {
        let (_, answer) = daemon.get(path).await;
        assert!(!answer.contains('@'), "{path}: {answer}");
        for person in sandbox.world().people() {
            assert!(
                !answer.contains(&person.id) && !answer.contains(&person.email),
                "{path}"
            );
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_act_through_the_daemon() {
    let sandbox = sandbox(6).await;
    let world = sandbox.world();
    let refused = world.people()[0].email.clone();
    world.behave(|behaviour| behaviour.refused_emails = vec![refused]);
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    daemon.status("main", |status| status["parked"] == 1).await;

    world.add_people(2);
    place
        .run(&["sync"])
        .await
        .exits(75)
        .tells(&["main: 8 users; 2 new, 2 accounts created", "1 parked"]);
    world.behave(|behaviour| behaviour.refused_emails.clear());
    place
        .run(&["retry", "main"])
        .await
        .exits(0)
        .tells(&["main: 1 user is pending again"]);
    daemon
        .status("main", |status| status["parked"] == 0 && status["pending"] == 0)
        .await;
    place
        .run(&["sync", "main"])
        .await
        .exits(0)
        .tells(&["main: 8 users; nothing changed"]);

    place
        .run(&["pause", "main"])
        .await
        .exits(0)
        .tells(&["torq-connector resume main"]);
    let paused = daemon.state("main", "paused").await;
    assert!(paused["next_poll"].is_null());
    assert_eq!(
        daemon.get("/readyz").await.0,
        200,
        "who is paused keeps nobody from being ready"
    );
    world.clear_requests();
    place.run(&["sync", "main"]).await.exits(75).tells(&["main: is paused"]);
    place.run(&["sync"]).await.exits(0);
    assert!(world.requests().is_empty());
    place
        .run(&["resume", "main"])
        .await
        .exits(0)
        .tells(&["a run starts now"]);
    seen(&sandbox, Endpoint::TorqUsers, 2).await;
    daemon.state("main", "connected").await;

    place
        .run(&["reconnect", "main"])
        .await
        .exits(0)
        .tells(&["main: 8 users; nothing changed"]);
    place
        .run(&["approve", "main"])
        .await
        .exits(0)
        .tells(&["main: nothing is held"]);
    for person in world.people() {
        world.remove_person(&person.id);
    }
    place.run(&["sync"]).await;
    place
        .run(&["sync"])
        .await
        .exits(75)
        .tells(&["8 held", "torq-connector approve main"]);
    daemon.state("main", "held").await;
    place
        .run(&["approve", "main"])
        .await
        .exits(0)
        .tells(&["8 removals approved"]);
    daemon
        .status("main", |status| {
            status["removed"] == 8 && status["state"] == "connected"
        })
        .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_daemon_keeps_is_private() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.state_dir()), 0o700);
    assert!(place.path("state/control.sock").exists() && place.path("state/main.db").exists());
    for path in place.files().keys() {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    daemon.stop().await;
    assert!(!place.path("state/control.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_state_is_refused() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    let daemon = place.daemon().await;
    let ran = place.run(&["run"]).await.exits(1);
    ran.tells(&[
        "another daemon",
        "state_dir",
        &place.state_dir().display().to_string(),
        "process ",
    ]);
    // The same address, too: what matters is still that another daemon is at work.
    place.configure(
        &format!("[http]\nlisten = \"{}\"\n", daemon.address),
        &[Connector::new("main", &sandbox)],
    );
    place.run(&["run"]).await.exits(1).tells(&["another daemon"]);
    let elsewhere = Place::with(
        &format!("[http]\nlisten = \"{}\"\n", daemon.address),
        &[Connector::new("main", &sandbox)],
    );
    let ran = elsewhere.run(&["run"]).await.exits(1);
    ran.tells(&["cannot listen on", &daemon.address.to_string(), "http.listen"]);
    daemon.state("main", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_daemon_in_good_order_and_the_next_one_goes_on() {
    for signal in ["TERM", "INT"] {
        let sandbox = sandbox(12).await;
        // Somewhere in the middle of the delivery there is no answer.
        sandbox
            .world()
            .fault(FaultRule::always(Endpoint::AccountCreate, Fault::Delay(Duration::from_secs(2))).after(4));
        let place = place(&sandbox);
        let mut daemon = place.daemon().await;
        seen(&sandbox, Endpoint::AccountCreate, 5).await;
        daemon.signal(signal);
        let (code, took) = daemon.ended().await;
        assert_eq!(code, 0, "{}", daemon.said());
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!(daemon.said().contains("stopped"), "{}", daemon.said());
        let made = sandbox.world().accounts().len();
        assert!(made < 12, "it was in the middle: {made}");
        sandbox.world().clear_faults();
        let status = &place.run(&["status", "--format", "json"]).await.exits(0).json()["connectors"][0];
        assert_eq!(status["accounts"], made, "what was answered is known: {status}");
        place.run(&["sync"]).await.exits(0);
        assert_eq!(account_emails(&sandbox.world()), people_emails(&sandbox.world()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_answers_does_not_keep_the_daemon_from_ending() {
    for endpoint in [Endpoint::TorqUsers, Endpoint::AccountCreate] {
        let sandbox = sandbox(3).await;
        sandbox.world().fault(FaultRule::always(endpoint, Fault::Hang));
        let place = place(&sandbox);
        let mut daemon = place.daemon().await;
        seen(&sandbox, endpoint, 2).await;
        daemon.signal("TERM");
        let (code, took) = daemon.ended().await;
        assert_eq!(code, 0, "{}", daemon.said());
        assert!(took < Duration::from_secs(10), "docker stop waits for 10 s: {took:?}");
        sandbox.world().clear_faults();
        place.run(&["sync"]).await.exits(0);
        assert_eq!(account_emails(&sandbox.world()), people_emails(&sandbox.world()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_daemon_at_once() {
    let sandbox = sandbox(3).await;
    // A write that is under way may finish, so that its answer is not lost.
    let hang = FaultRule::always(Endpoint::AccountCreate, Fault::Hang);
    sandbox.world().fault(hang);
    let place = place(&sandbox);
    let mut daemon = place.daemon().await;
    seen(&sandbox, Endpoint::AccountCreate, 1).await;
    daemon.signal("TERM");
    eventually("it stops", async || daemon.said().contains("stopping").then_some(())).await;
    daemon.signal("TERM");
    let (code, took) = daemon.ended().await;
    assert_eq!(code, 143, "{}", daemon.said());
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_the_first_collection_costs_nothing() {
    let sandbox = sandbox(250).await;
    sandbox
        .world()
        .fault(FaultRule::always(Endpoint::TorqUsers, Fault::Hang).after(2));
    let place = place(&sandbox);
    let mut daemon = place.daemon().await;
    let collecting = daemon
        .status("main", |status| status["users"].as_u64() >= Some(100))
        .await;
    assert_eq!(collecting["state"], "collecting");
    assert_eq!(keys(&collecting["progress"]), ["pages", "started", "users"]);
    daemon.signal("KILL");
    assert_eq!(daemon.ended().await.0, 137);
    sandbox.world().clear_faults();
    sandbox.world().clear_requests();

    let daemon = place.daemon().await;
    let status = daemon.state("main", "connected").await;
    assert_eq!((&status["users"], &status["accounts"]), (&250.into(), &250.into()));
    assert_eq!(account_emails(&sandbox.world()), people_emails(&sandbox.world()));
    let pages = sandbox.world().requests();
    let pages: Vec<_> = pages.iter().filter(|one| one.endpoint == Endpoint::TorqUsers).collect();
    assert!(
        pages.iter().any(|page| page.parameter("page_token").is_some()) && pages.len() < 4,
        "it goes on where it was: {} pages",
        pages.len()
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broken_connector_stops_no_other() {
    let sandbox = sandbox(4).await;
    let connectors = [
        Connector::new("alpha", &sandbox),
        Connector::new("broken", &sandbox).with("torq.client_secret", "wrong"),
        Connector::new("gamma", &sandbox),
    ];
    let place = Place::new(&connectors);
    let daemon = place.daemon().await;
    daemon.state("alpha", "connected").await;
    daemon.state("gamma", "connected").await;
    let broken = daemon.state("broken", "reconnect_required").await;
    assert!(broken["reason"].as_str().unwrap().contains("Torq"), "{broken}");
    assert!(
        broken["action"]
            .as_str()
            .unwrap()
            .contains(&place.advised("reconnect broken")),
        "{broken}"
    );
    assert!(broken["next_poll"].is_null());
    let (status, answer) = daemon.get("/readyz").await;
    assert_eq!((status, body(&answer)), (503, "broken: reconnect_required (Torq)\n"));
    assert_eq!(daemon.get("/healthz").await.0, 200);
    place
        .run(&["sync"])
        .await
        .exits(77)
        .tells(&["alpha: 4 users", "gamma: 4 users", "broken: refused: Torq"]);
    place.run(&["pause", "broken"]).await.exits(0);
    assert_eq!(daemon.get("/readyz").await.0, 200);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_file_that_is_garbage_stops_no_other_connector() {
    let sandbox = sandbox(4).await;
    let place = Place::new(&[Connector::new("bad", &sandbox), Connector::new("good", &sandbox)]);
    std::fs::create_dir(place.state_dir()).unwrap();
    place.write(
        "state/bad.db",
        "this is no database, this is some text that somebody put here",
    );
    let daemon = place.daemon().await;
    daemon.state("good", "connected").await;
    let bad = daemon.status("bad", |status| status["reason"].is_string()).await;
    assert!(bad["reason"].as_str().unwrap().contains("bad.db is damaged"), "{bad}");
    let (status, answer) = daemon.get("/readyz").await;
    assert!(
        status == 503 && body(&answer).starts_with("bad: ") && !body(&answer).contains("good"),
        "{answer}"
    );
    assert_eq!(daemon.get("/healthz").await.0, 200);
    place
        .run(&["status"])
        .await
        .exits(1)
        .shows(&["good", "connected", "bad.db is damaged"]);
    place.run(&["sync", "good"]).await.exits(0);
    place.run(&["sync", "bad"]).await.exits(1).tells(&["bad.db is damaged"]);

    // Moved away, as the message says: it comes by itself.
    std::fs::rename(place.path("state/bad.db"), place.path("bad.db.away")).unwrap();
    daemon.state("bad", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_for_an_order_that_was_refused_counts_all_the_same() {
    let sandbox = sandbox(4).await;
    let polling = |interval: &str| Connector::new("main", &sandbox).with("poll_interval", interval);
    let place = Place::new(&[polling("12h")]);
    std::fs::create_dir(place.state_dir()).unwrap();
    place.write("state/main.db", "this is no database");
    let daemon = place.daemon().await;
    daemon.status("main", |status| status["reason"].is_string()).await;
    place.configure("", &[polling("1h")]);
    place
        .run(&["reconnect", "main"])
        .await
        .exits(1)
        .tells(&["main.db is damaged"]);
    std::fs::rename(place.path("state/main.db"), place.path("main.db.away")).unwrap();
    let status = daemon
        .status("main", |status| {
            status["state"] == "connected" && !status["next_poll"].is_null()
        })
        .await;
    let next: jiff::Timestamp = status["next_poll"].as_str().unwrap().parse().unwrap();
    let ahead = next.duration_since(jiff::Timestamp::now());
    assert!(ahead < jiff::SignedDuration::from_hours(2), "{ahead}");
    daemon.stop().await;
}

/// A place whose Torq secret is in a file, with the wrong secret in it, and its daemon, which asks to be reconnected.
async fn waiting(sandbox: &Sandbox) -> (Place, crate::binary::Daemon) {
    let connector = Connector::new("main", sandbox).torq_secret_in("torq_secret");
    let place = Place::new(&[connector]);
    place.write("torq_secret", "wrong\n");
    let daemon = place.daemon().await;
    daemon.state("main", "reconnect_required").await;
    (place, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_in_the_file_brings_the_connector_back_by_itself() {
    let sandbox = sandbox(4).await;
    let (place, daemon) = waiting(&sandbox).await;
    let asked = sandbox.world().count(Endpoint::TorqToken);
    place.write("torq_secret", "sandbox-torq-secret\n");
    let began = std::time::Instant::now();
    daemon.state("main", "connected").await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(
        sandbox.world().count(Endpoint::TorqToken),
        asked + 1,
        "nobody is asked with a secret that is known to be wrong"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect_brings_the_connector_back_at_once() {
    let sandbox = sandbox(4).await;
    let (place, daemon) = waiting(&sandbox).await;
    place
        .run(&["reconnect", "main"])
        .await
        .exits(77)
        .tells(&["main: refused: Torq"]);
    place.write("torq_secret", "sandbox-torq-secret\n");
    place
        .run(&["reconnect"])
        .await
        .exits(0)
        .tells(&["main: 4 users; 4 new, 4 accounts created"]);
    daemon.state("main", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect_reads_the_configuration_again() {
    let sandbox = sandbox(3).await;
    let wrong = Connector::new("main", &sandbox).with("torq.client_id", "somebody-else");
    let place = Place::new(&[wrong]);
    let daemon = place.daemon().await;
    daemon.state("main", "reconnect_required").await;
    place.configure("", &[Connector::new("main", &sandbox)]);
    place.run(&["reconnect", "main"]).await.exits(0);
    daemon.state("main", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_away_for_a_while_is_waited_for() {
    let sandbox = sandbox(5).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    let away = Away::of(sandbox).await;
    let daemon = place.daemon().await;
    let status = daemon.state("main", "retrying").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("Torq") && reason.contains("since "), "{reason}");
    assert!(status["action"].as_str().unwrap().contains("asked again"), "{status}");
    place.run(&["status"]).await.exits(0).shows(&["retrying", "since "]);
    let _back = away.back().await;
    daemon.state("main", "connected").await;
    assert_eq!(world.accounts().len(), 5);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_polls_by_itself_and_a_quiet_poll_says_nothing() {
    let sandbox = sandbox(5).await;
    let place = Place::new(&[Connector::new("main", &sandbox).with("poll_interval", "1s")]);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    // What the first run did is said after its end, which is what the state shows.
    eventually("the first run is told", async || {
        daemon.said().contains("run ended").then_some(())
    })
    .await;
    let polls = sandbox.world().count(Endpoint::TorqUsers);
    let said = daemon.said();
    seen(&sandbox, Endpoint::TorqUsers, polls + 6).await;
    assert_eq!(daemon.said(), said, "a poll that finds nothing new is not worth a line");
    let newcomer = sandbox.world().add_people(1).remove(0).email.to_lowercase();
    eventually("the newcomer has an account", async || {
        account_emails(&sandbox.world()).contains(&newcomer).then_some(())
    })
    .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_status_page_the_daemon_works_all_the_same() {
    let sandbox = sandbox(3).await;
    let place = Place::with("[http]\nlisten = \"off\"\n", &[Connector::new("main", &sandbox)]);
    let mut child = place
        .command(&["run"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = eventually("the daemon has delivered", async || {
        let ran = finish(place.command(&["status", "--format", "json"])).await;
        let status = serde_json::from_str::<Value>(&ran.out).ok()?["connectors"][0].clone();
        (status["state"] == "connected" && ran.err.is_empty()).then_some(status)
    })
    .await;
    assert_eq!(status["accounts"], 3);
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_a_connectors_section_again_and_a_bad_file_changes_nothing() {
    let sandbox = sandbox(4).await;
    let connector = |secret: &str| Connector::new("main", &sandbox).with("torq.client_secret", secret);
    let place = Place::new(&[connector("wrong")]);
    let daemon = place.daemon().await;
    daemon.state("main", "reconnect_required").await;

    place.write("config.toml", "[connectors.main");
    daemon.signal("HUP");
    eventually("the daemon says what is wrong with the file", async || {
        daemon.said().contains("this is not TOML").then_some(())
    })
    .await;
    daemon.state("main", "reconnect_required").await;

    place.configure("", &[connector("sandbox-torq-secret")]);
    daemon.signal("HUP");
    daemon.state("main", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connectors_to_one_application_delete_none_of_its_accounts() {
    let sandbox = sandbox(6).await;
    let world = sandbox.world();
    let connector = |name: &str| Connector::new(name, &sandbox).with("removals", "delete");
    let place = Place::new(&[connector("one"), connector("two")]);
    let daemon = place.daemon().await;
    daemon.state("one", "connected").await;
    daemon.state("two", "connected").await;
    let gone = world.people()[0].clone();
    world.remove_person(&gone.id);
    for _ in 0..2 {
        place.run(&["sync"]).await.exits(0);
    }
    for name in ["one", "two"] {
        daemon.status(name, |status| status["removed"] == 1).await;
    }
    assert!(account_emails(&world).contains(&gone.email.to_lowercase()));
    assert_eq!(world.count(Endpoint::AccountDelete), 0);
    assert!(
        daemon
            .said()
            .contains("another connector delivers to the same application")
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_as_long_as_the_state_of_a_neighbour_cannot_be_read() {
    let sandbox = sandbox(6).await;
    let world = sandbox.world();
    let connector = |name: &str| Connector::new(name, &sandbox).with("removals", "delete");
    let place = Place::new(&[connector("one"), connector("two")]);
    for name in ["one", "two"] {
        place.run(&["sync", name]).await.exits(0);
    }
    let file = place.path("state/two.db");
    let state = std::fs::read(&file).unwrap();
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(place.path(&format!("state/two.db{end}")));
    }
    std::fs::write(&file, "x".repeat(5000)).unwrap();
    let gone = world.people()[0].clone();
    world.remove_person(&gone.id);
    place.run(&["sync", "one"]).await;
    place
        .run(&["sync", "one"])
        .await
        .exits(75)
        .tells(&["1 account still to be deleted", "whether the connector two needs"]);
    assert_eq!(world.count(Endpoint::AccountDelete), 0);
    assert!(account_emails(&world).contains(&gone.email.to_lowercase()));
    // Known again, and a neighbour.
    std::fs::write(&file, state).unwrap();
    place.run(&["sync", "one"]).await.exits(0);
    assert_eq!(world.count(Endpoint::AccountDelete), 0);
    // Alone, it goes.
    place.configure("", &[connector("one")]);
    let gone = world.people()[0].clone();
    world.remove_person(&gone.id);
    for _ in 0..2 {
        place.run(&["sync", "one"]).await.exits(0);
    }
    assert_eq!(world.count(Endpoint::AccountDelete), 1);
}
