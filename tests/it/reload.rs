//! SIGHUP and `reconnect`: the running daemon follows its configuration. Connectors come, go and change, and whoever did not change
//! does not notice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Options, Sandbox};

use crate::binary::{Connector, DEADLINE, Daemon, Place, account_emails, body, eventually, people_emails, sandbox};

/// Waits until the daemon has said so, so many times.
async fn says(daemon: &Daemon, words: &str, times: usize) {
    eventually(&format!("the daemon says: {words}"), async || {
        (daemon.said().matches(words).count() >= times).then_some(())
    })
    .await;
}

fn connectors(daemon_status: &serde_json::Value) -> Vec<String> {
    let all = daemon_status["connectors"].as_array().unwrap();
    all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn connectors_come_and_go_and_those_who_did_not_change_do_not_notice() {
    let (same, gone, new) = (sandbox(3).await, sandbox(4).await, sandbox(5).await);
    let place = Place::new(&[Connector::new("gone", &gone), Connector::new("same", &same)]);
    let daemon = place.daemon().await;
    daemon.state("gone", "connected").await;
    daemon.state("same", "connected").await;
    let accounts = account_emails(&gone.world());
    for sandbox in [&same, &gone] {
        sandbox.world().clear_requests();
    }

    place.configure("", &[Connector::new("new", &new), Connector::new("same", &same)]);
    daemon.signal("HUP");
    daemon.state("new", "connected").await;
    assert_eq!(account_emails(&new.world()), people_emails(&new.world()));
    says(&daemon, "is not attended any more; its state stays", 1).await;
    assert_eq!(connectors(&daemon.json("/api/status").await), ["new", "same"]);
    assert_eq!(body(&daemon.get("/readyz").await.1), "ready\n");
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert_eq!(daemon.get("/api/users?connector=gone").await.0, 404);
    assert!(same.world().requests().is_empty(), "no poll, no token");
    assert!(gone.world().requests().is_empty());
    assert!(place.path("state/gone.db").exists(), "that is no removal");
    assert_eq!(account_emails(&gone.world()), accounts);
    assert!(
        daemon.said().contains("added=1 gone=1 changed=0 unchanged=1"),
        "{}",
        daemon.said()
    );
    place.run(&["sync", "same"]).await.exits(0);
    assert_eq!(same.world().count(Endpoint::TorqToken), 0, "its tokens are good still");
    // Its state is nobody's any more.
    place.configure("", &[Connector::new("gone", &gone)]);
    let names = place.run(&["status", "--format", "json"]).await.exits(0).json();
    assert_eq!(names["connectors"][0]["users"], 4);
    place
        .run(&["sync", "gone"])
        .await
        .exits(64)
        .tells(&["the running daemon has no connector gone", "SIGHUP"]);

    // Back again it goes on where it was.
    place.configure("", &[Connector::new("gone", &gone), Connector::new("same", &same)]);
    daemon.signal("HUP");
    daemon.state("gone", "connected").await;
    says(&daemon, "the configuration was read again", 2).await;
    assert!(gone.world().writes().is_empty());
    assert_eq!(connectors(&daemon.json("/api/status").await), ["gone", "same"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect_starts_a_connector_that_is_new_in_the_configuration() {
    let (main, new) = (sandbox(2).await, sandbox(3).await);
    let place = Place::new(&[Connector::new("main", &main)]);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    place.configure("", &[Connector::new("main", &main), Connector::new("new", &new)]);
    main.world().clear_requests();
    place
        .run(&["reconnect", "new"])
        .await
        .exits(0)
        .tells(&["new: 3 users; 3 new, 3 accounts created"]);
    assert!(main.world().requests().is_empty());
    daemon.state("new", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_connector_goes_on_between_two_steps_of_its_run() {
    let options = Options {
        people: 300,
        torq_rate: 0,
        jumpcloud_rate: 0,
        ..Options::default()
    };
    let sandbox = Sandbox::start(options).await.unwrap();
    let world = sandbox.world();
    let excluded = world.people()[0].email.to_lowercase();
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    // A delivery that takes its time.
    let slow = FaultRule::always(Endpoint::AccountCreate, Fault::Delay(Duration::from_millis(400)));
    world.fault(slow);
    let daemon = place.daemon().await;
    tokio::time::timeout(DEADLINE, world.seen(Endpoint::AccountCreate, 4))
        .await
        .expect("it delivers");
    let before = world.accounts().len();
    let filtered = Connector::new("main", &sandbox).with("removals", "delete");
    place.configure(
        &format!("[connectors.main.users]\nexclude_emails = [\"{excluded}\"]\n"),
        &[filtered],
    );
    daemon.signal("HUP");
    says(&daemon, "goes on by the changed configuration", 1).await;
    world.clear_faults();
    let status = daemon.status("main", |status| status["filtered"] == 1).await;
    assert_eq!(status["users"], 300);
    daemon
        .status("main", |status| {
            status["pending"] == 0 && status["state"] == "connected"
        })
        .await;
    let pages = world.count(Endpoint::TorqUsers);
    assert!(before < 300, "it was in the middle of the run: {before}, {pages} pages");
    let emails = account_emails(&world);
    assert!(emails.len() >= 299 && emails.windows(2).all(|pair| pair[0] != pair[1]));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_connector_that_did_not_change_is_not_cut_short() {
    let (sandbox, other) = (sandbox(3).await, sandbox(1).await);
    let world = sandbox.world();
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    world.fault(FaultRule::always(
        Endpoint::AccountCreate,
        Fault::Delay(Duration::from_secs(2)),
    ));
    let daemon = place.daemon().await;
    tokio::time::timeout(DEADLINE, world.seen(Endpoint::AccountCreate, 1))
        .await
        .expect("it delivers");
    place.configure("", &[Connector::new("main", &sandbox), Connector::new("other", &other)]);
    daemon.signal("HUP");
    daemon.state("other", "connected").await;
    let status = daemon.state("main", "connected").await;
    assert_eq!(
        (&status["last_run"]["created"], &status["last_run"]["outcome"]),
        (&3.into(), &"done".into())
    );
    assert_eq!(world.count(Endpoint::TorqUsers), 2, "one poll");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_interval_takes_effect_at_once() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[Connector::new("main", &sandbox).with("poll_interval", "1h")]);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    let newcomer = sandbox.world().add_people(1).remove(0).email.to_lowercase();
    place.configure("", &[Connector::new("main", &sandbox).with("poll_interval", "1s")]);
    daemon.signal("HUP");
    eventually("the newcomer has an account", async || {
        account_emails(&sandbox.world()).contains(&newcomer).then_some(())
    })
    .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_every_problem_is_said() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    sandbox.world().clear_requests();
    let bad = Connector::new("new", &sandbox)
        .with("poll_interval", "soon")
        .with("torq.client_sekret", "x")
        .without("jumpcloud.client_id");
    place.configure("", &[bad]);
    daemon.signal("HUP");
    says(&daemon, "the configuration is as before", 1).await;
    for problem in [
        "connectors.new.poll_interval",
        "connectors.new.torq.client_sekret",
        "connectors.new.jumpcloud.client_id",
    ] {
        assert!(daemon.said().contains(problem), "{problem}: {}", daemon.said());
    }
    assert_eq!(connectors(&daemon.json("/api/status").await), ["main"]);
    daemon.state("main", "connected").await;
    assert!(sandbox.world().requests().is_empty());

    // A secret whose file is not there keeps nobody but its own connector from going on, and is told.
    let missing = Connector::new("new", &sandbox).torq_secret_in("gone");
    place.configure("", &[Connector::new("main", &sandbox), missing]);
    place
        .run(&["reconnect", "main"])
        .await
        .exits(0)
        .tells(&["main: 3 users"]);
    let status = daemon.state("new", "reconnect_required").await;
    assert!(status["reason"].as_str().unwrap().contains("gone"), "{status}");
    place.run(&["reconnect", "new"]).await.exits(78).tells(&["gone"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_half_written_or_empty_when_it_is_read_changes_nothing() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    sandbox.world().clear_requests();
    let whole = std::fs::read_to_string(place.path("config.toml")).unwrap();
    // Cut off anywhere before the last value: within a word, and between two lines.
    let lines = whole.match_indices('\n').map(|(at, _)| at + 1);
    let last = lines.clone().rev().nth(1).unwrap();
    let cuts = [0, 5]
        .into_iter()
        .chain(lines.filter(|at| *at < last))
        .chain([last, last + 3]);
    for (times, cut) in (1..).zip(cuts) {
        place.write("config.toml", &whole[..cut]);
        daemon.signal("HUP");
        says(&daemon, "the configuration is as before", times).await;
    }
    assert_eq!(connectors(&daemon.json("/api/status").await), ["main"]);
    daemon.state("main", "connected").await;
    assert!(sandbox.world().requests().is_empty(), "no poll, and no token");
    place.write("config.toml", &whole);
    daemon.signal("HUP");
    says(&daemon, "the configuration was read again", 1).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_the_log_changes_and_what_needs_a_restart_is_said() {
    let sandbox = sandbox(2).await;
    let main = || [Connector::new("main", &sandbox)];
    let place = Place::with("[http]\nlisten = \"127.0.0.1:0\"\n", &main());
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    assert!(!daemon.said().contains("DEBUG"));
    place.configure(
        "[http]\nlisten = \"127.0.0.1:1\"\nhosts = [\"a.example.com\"]\n[log]\nlevel = \"debug\"\n",
        &main(),
    );
    daemon.signal("HUP");
    says(
        &daemon,
        "http.listen changed in the configuration: that needs a restart",
        1,
    )
    .await;
    says(
        &daemon,
        "http.hosts changed in the configuration: that needs a restart",
        1,
    )
    .await;
    place.run(&["sync"]).await.exits(0);
    says(&daemon, "DEBUG", 1).await;
    assert_eq!(daemon.get("/readyz").await.0, 200, "it listens where it did");

    place.configure("[log]\nlevel = \"info\"\n", &main());
    daemon.signal("HUP");
    says(&daemon, "the log's level changed", 2).await;
    let debug = daemon.said().matches("DEBUG").count();
    place.run(&["sync"]).await.exits(0);
    assert_eq!(daemon.said().matches("DEBUG").count(), debug);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_person_tries_again_on_sighup_and_the_others_do_not_poll() {
    let (broken, good) = (sandbox(3).await, sandbox(3).await);
    let place = Place::new(&[Connector::new("broken", &broken), Connector::new("good", &good)]);
    broken.world().revoke_torq_key();
    let daemon = place.daemon().await;
    daemon.state("broken", "reconnect_required").await;
    daemon.state("good", "connected").await;
    good.world().clear_requests();
    // The key was extended in Torq: nothing changes here.
    broken.world().restore_torq_key();
    daemon.signal("HUP");
    daemon.state("broken", "connected").await;
    assert!(good.world().requests().is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_comes_back_while_it_is_still_ending_is_attended_again() {
    let (main, slow) = (sandbox(2).await, sandbox(3).await);
    let both = [Connector::new("main", &main), Connector::new("slow", &slow)];
    let place = Place::new(&both);
    slow.world().fault(FaultRule::always(
        Endpoint::TorqUsers,
        Fault::Delay(Duration::from_secs(3)),
    ));
    let daemon = place.daemon().await;
    tokio::time::timeout(DEADLINE, slow.world().seen(Endpoint::TorqUsers, 2))
        .await
        .expect("it polls");
    place.configure("", &both[..1]);
    daemon.signal("HUP");
    says(&daemon, "is not in the configuration any more", 1).await;
    place.configure("", &both);
    daemon.signal("HUP");
    says(&daemon, "is not attended any more", 1).await;
    slow.world().clear_faults();
    daemon.state("slow", "connected").await;
    assert_eq!(account_emails(&slow.world()), people_emails(&slow.world()));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_application_it_is_follows_the_configuration() {
    let sandbox = sandbox(8).await;
    let world = sandbox.world();
    let connector = |name: &str| Connector::new(name, &sandbox).with("removals", "delete");
    let place = Place::new(&[connector("one")]);
    let daemon = place.daemon().await;
    daemon.state("one", "connected").await;
    let leaves = async |names: &[&str]| {
        let gone = world.people()[0].clone();
        world.remove_person(&gone.id);
        for _ in 0..2 {
            for name in names {
                place.run(&["sync", name]).await.exits(0);
            }
        }
        account_emails(&world).contains(&gone.email.to_lowercase())
    };
    assert!(!leaves(&["one"]).await, "an account of its own is deleted");

    place.configure("", &[connector("one"), connector("two")]);
    daemon.signal("HUP");
    daemon.state("two", "connected").await;
    assert!(leaves(&["one"]).await, "the other one may have that user");

    place.configure("", &[connector("one")]);
    daemon.signal("HUP");
    says(&daemon, "is not attended any more", 1).await;
    assert!(!leaves(&["one"]).await, "alone again");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_delivers_elsewhere_from_now_on_leaves_the_application_to_the_others() {
    let (sandbox, elsewhere) = (sandbox(8).await, sandbox(2).await);
    let world = sandbox.world();
    let connector = |name: &str, sandbox: &Sandbox| Connector::new(name, sandbox).with("removals", "delete");
    // By mistake, two workspaces deliver to the same organisation.
    let place = Place::new(&[connector("one", &sandbox), connector("two", &sandbox)]);
    let daemon = place.daemon().await;
    daemon.state("one", "connected").await;
    daemon.state("two", "connected").await;
    place.configure(
        "",
        &[
            connector("one", &sandbox),
            connector("two", &elsewhere).with("poll_interval", "1s"),
        ],
    );
    daemon.signal("HUP");
    eventually("two delivers elsewhere", async || {
        (account_emails(&elsewhere.world()).len() == 2).then_some(())
    })
    .await;
    daemon.state("two", "held").await;
    // Adopted or made: whoever comes now is the one connector's alone.
    let newcomer = world.add_people(1).remove(0);
    place.run(&["sync", "one"]).await.exits(0);
    world.remove_person(&newcomer.id);
    for _ in 0..2 {
        place.run(&["sync", "one"]).await.exits(0);
    }
    assert!(!account_emails(&world).contains(&newcomer.email.to_lowercase()));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_connector_whose_section_is_gone_leaves_nothing_behind() {
    let (main, other) = (sandbox(2).await, sandbox(2).await);
    let place = Place::new(&[Connector::new("main", &main), Connector::new("other", &other)]);
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    daemon.state("other", "connected").await;
    place.run(&["remove", "main", "--yes"]).await.exits(0);
    daemon.state("main", "removed").await;
    place.configure("", &[Connector::new("other", &other)]);
    daemon.signal("HUP");
    says(&daemon, "nothing is left of it", 1).await;
    assert!(!place.path("state/main.removed").exists() && !place.path("state/main.lock").exists());
    assert_eq!(connectors(&daemon.json("/api/status").await), ["other"]);
    // A new connector of that name is a new connector.
    place.configure("", &[Connector::new("main", &main), Connector::new("other", &other)]);
    daemon.signal("HUP");
    daemon.state("main", "connected").await;
    assert_eq!(account_emails(&main.world()), people_emails(&main.world()));
    daemon.stop().await;
}

/// Whether the process takes SIGHUP, and does not end by it.
fn takes_hangup(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_comes_while_the_daemon_begins_does_not_end_it() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = sandbox(2).await;
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    // So that it says something as soon as it has read its configuration, which takes a while.
    std::fs::create_dir_all(place.state_dir()).unwrap();
    std::fs::set_permissions(place.state_dir(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let config = std::fs::read_to_string(place.path("config.toml")).unwrap();
    place.write(
        "config.toml",
        &format!("{config}{}", "# A line that says nothing.\n".repeat(100_000)),
    );
    let said = place.path("said");
    // That the signal comes early enough is not certain on a busy machine.
    let mut early = false;
    for _ in 0..20 {
        let mut child = place
            .command(&["run"])
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let pid = child.id().unwrap();
        while !takes_hangup(pid) {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            std::thread::yield_now();
        }
        early |= std::fs::metadata(&said).unwrap().len() == 0;
        let sent = std::process::Command::new("kill")
            .args(["-s", "HUP", &pid.to_string()])
            .status();
        assert!(sent.unwrap().success());
        eventually("it has begun", async || {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            std::fs::read_to_string(&said)
                .unwrap()
                .contains("started")
                .then_some(())
        })
        .await;
        child.kill().await.unwrap();
        if early {
            return;
        }
    }
    panic!("SIGHUP is taken only after the configuration was read");
}
