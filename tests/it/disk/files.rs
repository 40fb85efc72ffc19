//! State files that somebody deleted, replaced, truncated, overwrote or locked, between runs and under the running daemon.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule};
use torq_connector::state::Lock;
use torq_connector::view::AccountStanding;

use crate::binary::{Connector, DEADLINE, Daemon, eventually, finish};
use crate::life::{Life, main_name};
use crate::world::{assert_world_in_step, key_of};

/// A life in step, whose daemon has ended.
async fn in_step(people: usize) -> Life {
    let mut life = Life::new(people, |connector| connector).await;
    life.recover().await;
    life.world().clear_requests();
    life
}

impl Life {
    fn state(&self, name: &str) -> PathBuf {
        self.place.state_dir().join(name)
    }

    /// After a state was lost nothing was made, nothing was deleted, and everybody's account counts as found.
    fn assert_adopted(&self) {
        for endpoint in [
            Endpoint::AccountCreate,
            Endpoint::AccountDelete,
            Endpoint::ApplicationCreate,
        ] {
            assert_eq!(self.world().count(endpoint), 0, "{endpoint:?}");
        }
        let users = self.users();
        assert!(
            users.iter().all(|user| user.account == AccountStanding::Found),
            "{users:#?}"
        );
        assert_world_in_step(&self.world(), users);
    }
}

/// Time goes on, so that the daemon looks.
fn a_moment_passes(life: &Life) {
    life.interpose.pass(std::time::Duration::from_secs(11));
}

/// Waits until the daemon has said something. It is asked meanwhile, so that it wakes and sees what time it is.
async fn says(daemon: &Daemon, words: &str) {
    eventually(&format!("the daemon says {words:?}"), async || {
        daemon.get("/healthz").await;
        daemon.said().contains(words).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_deleted_between_runs_makes_nothing_twice_and_removes_nobody() {
    let mut life = in_step(8).await;
    let world = life.world();
    // Somebody left before: whose account it was is not known any more, so it stays.
    let gone = life.somebody_of_ours();
    world.remove_person(&gone.id);
    fs::remove_file(life.state("main.db")).unwrap();
    for said in ["the state file is gone, so everything begins anew", ""] {
        let ran = life.sync().await.exits(0);
        assert!(ran.err.contains(said), "{}", ran.err);
    }
    life.sync().await.exits(0);
    life.assert_adopted();
    assert_eq!(world.accounts().len(), 9);
    let events = life.place.run(&["events"]).await.exits(0);
    assert!(events.out.contains("the state file is gone"), "{}", events.out);
    // It goes on as ever: whoever comes now is ours again.
    world.add_people(1);
    life.sync().await.exits(0);
    assert_eq!(world.count(Endpoint::AccountCreate), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_deleted_under_the_daemon_is_noticed_and_begun_anew() {
    let life = in_step(8).await;
    let daemon = life.daemon().await;
    daemon.state("main", "connected").await;
    fs::remove_file(life.state("main.db")).unwrap();
    a_moment_passes(&life);
    says(&daemon, "main.db was deleted or replaced while it was in use").await;
    says(&daemon, "the state file is gone, so everything begins anew").await;
    let status = daemon.state("main", "connected").await;
    assert_eq!((&status["users"], &status["accounts"]), (&8.into(), &8.into()));
    assert!(
        status["reason"].as_str().unwrap().contains("the state file is gone"),
        "{status}"
    );
    assert!(life.state("main.db").exists());
    daemon.stop().await;
    life.assert_adopted();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_deleted_during_a_delivery_lets_nothing_be_sent_that_it_would_not_know_of() {
    let life = Life::new(40, |connector| connector).await;
    let world = life.world();
    let daemon = life.daemon().await;
    tokio::time::timeout(DEADLINE, world.seen(Endpoint::AccountCreate, 5))
        .await
        .unwrap();
    for name in ["main.db", "main.db-wal", "main.db-shm"] {
        fs::remove_file(life.state(name)).unwrap();
    }
    says(&daemon, "main.db was deleted or replaced while it was in use").await;
    let status = daemon.state("main", "connected").await;
    assert_eq!(status["accounts"], 40);
    assert_eq!(world.count(Endpoint::AccountCreate), 39, "each was sent once");
    daemon.stop().await;
    assert_world_in_step(&world, life.users());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_folder_may_vanish_under_the_daemon() {
    let life = in_step(5).await;
    let daemon = life.daemon().await;
    daemon.state("main", "connected").await;
    fs::remove_dir_all(life.place.state_dir()).unwrap();
    a_moment_passes(&life);
    says(&daemon, "the control socket was deleted; it is there again").await;
    let status = daemon
        .status("main", |status| {
            status["state"] == "connected" && status["accounts"] == 5
        })
        .await;
    // Its lock went with it, and that there was a state is said all the same.
    assert!(
        status["reason"].as_str().unwrap().contains("the state file is gone"),
        "{status}"
    );
    // Commands reach it again, and no second daemon begins.
    let ran = finish(life.place.command(&["sync"])).await.exits(0);
    let _ = ran.tells(&["main: 5 users; nothing changed"]);
    life.place.run(&["run"]).await.exits(1).tells(&["another daemon"]);
    daemon.stop().await;
    life.assert_adopted();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_deletes_the_lock_lets_nobody_write_beside_the_daemon_for_long() {
    let life = in_step(5).await;
    let daemon = life.daemon().await;
    daemon.state("main", "connected").await;
    fs::remove_file(life.state("main.lock")).unwrap();
    // Another process takes it for nobody's.
    let lock = Lock::take(&life.place.state_dir(), &main_name()).unwrap();
    a_moment_passes(&life);
    let in_use = |status: &Value| {
        status["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("in use by process"))
    };
    assert_eq!(life.time_passes_until(&daemon, in_use).await["state"], "retrying");
    let asked = life.world().requests().len();
    let ran = finish(life.place.command(&["sync"])).await.exits(1);
    let _ = ran.tells(&["in use by process"]);
    assert_eq!(
        life.world().requests().len(),
        asked,
        "nothing is done beside somebody else"
    );
    drop(lock);
    life.time_passes_until(&daemon, |status| status["state"] == "connected")
        .await;
    daemon.stop().await;
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_deleted_under_the_daemon_takes_nothing_with_it() {
    let life = Life::new(5, |connector| connector).await;
    let daemon = life.daemon().await;
    daemon.state("main", "connected").await;
    assert!(
        fs::metadata(life.state("main.db-wal")).unwrap().len() > 0,
        "it is all in there"
    );
    for name in ["main.db-wal", "main.db-shm"] {
        fs::remove_file(life.state(name)).unwrap();
    }
    a_moment_passes(&life);
    says(&daemon, "main.db-wal was deleted or replaced while it was in use").await;
    daemon.state("main", "connected").await;
    daemon.stop().await;
    // Who made which account is known still.
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_put_in_the_place_of_the_state_under_the_daemon_counts_from_then_on() {
    let life = in_step(6).await;
    let world = life.world();
    fs::copy(life.state("main.db"), life.place.path("copy")).unwrap();
    let daemon = life.daemon().await;
    daemon.state("main", "connected").await;
    world.add_people(2);
    finish(life.place.command(&["sync"])).await.exits(0);
    fs::rename(life.place.path("copy"), life.state("main.db")).unwrap();
    a_moment_passes(&life);
    says(&daemon, "main.db was deleted or replaced while it was in use").await;
    let status = daemon
        .status("main", |status| {
            status["state"] == "connected" && status["accounts"] == 8
        })
        .await;
    assert_eq!(status["users"], 8);
    daemon.stop().await;
    assert_eq!(world.count(Endpoint::AccountCreate), 2);
    assert_world_in_step(&world, life.users());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_put_in_the_place_of_another_keeps_its_own_log() {
    let life = Life::new(6, |connector| connector).await;
    let daemon = life.daemon().await;
    daemon.state("main", "connected").await;
    // Nothing of it is in the database yet, all is in the log.
    let files = ["main.db", "main.db-wal"];
    for name in files {
        fs::copy(life.state(name), life.place.path(name)).unwrap();
    }
    for name in files {
        fs::rename(life.place.path(name), life.state(name)).unwrap();
    }
    a_moment_passes(&life);
    says(&daemon, "main.db was deleted or replaced while it was in use").await;
    daemon.state("main", "connected").await;
    daemon.stop().await;
    // With its log the new state knows who made which account.
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_truncated_under_the_daemon_costs_no_more_than_a_death() {
    let mut life = Life::new(6, |connector| connector.with("poll_interval", "1s")).await;
    let mut daemon = life.daemon().await;
    daemon.state("main", "connected").await;
    truncate(&life, "main.db-shm", 0.0);
    life.world().add_people(1);
    // It is memory that the process shares with others: without it, the system ends the process (SIGBUS).
    let (code, _) = daemon.ended().await;
    assert_eq!(code, 128 + 7, "{}", daemon.said());
    life.recover().await;
}

/// Something that was done to the files of a state.
struct Damage {
    what: &'static str,
    done: fn(&Life),
    /// Whether the state is then of no use to anybody.
    fatal: bool,
}

fn overwrite(life: &Life, name: &str, from: u64, bytes: usize) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(life.state(name)).unwrap();
    let garbage: Vec<u8> = (0..bytes).map(|number| (number * 7 % 251) as u8).collect();
    file.write_all_at(&garbage, from).unwrap();
}

fn truncate(life: &Life, name: &str, keeps: f64) {
    let file = fs::OpenOptions::new().write(true).open(life.state(name)).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len((length as f64 * keeps) as u64).unwrap();
}

const DAMAGES: [Damage; 9] = [
    Damage {
        what: "truncated to nothing",
        done: |life| truncate(life, "main.db", 0.0),
        fatal: false,
    },
    Damage {
        what: "truncated to half",
        done: |life| truncate(life, "main.db", 0.5),
        fatal: true,
    },
    Damage {
        what: "truncated to a piece of its first page",
        done: |life| truncate(life, "main.db", 0.004),
        fatal: true,
    },
    Damage {
        what: "overwritten by text",
        done: |life| fs::write(life.state("main.db"), "not a database\n".repeat(500)).unwrap(),
        fatal: true,
    },
    Damage {
        what: "overwritten by zeroes",
        done: |life| fs::write(life.state("main.db"), [0; 65_536]).unwrap(),
        fatal: true,
    },
    Damage {
        what: "garbage at the head",
        done: |life| overwrite(life, "main.db", 20, 200),
        fatal: true,
    },
    Damage {
        what: "garbage from the second page on",
        done: |life| overwrite(life, "main.db", 4096, 40_000),
        fatal: true,
    },
    Damage {
        what: "somebody else's database",
        done: |life| {
            fs::remove_file(life.state("main.db")).unwrap();
            let db = rusqlite::Connection::open(life.state("main.db")).unwrap();
            db.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
                .unwrap();
        },
        fatal: true,
    },
    Damage {
        what: "a folder in its place",
        done: |life| {
            fs::remove_file(life.state("main.db")).unwrap();
            fs::create_dir(life.state("main.db")).unwrap();
        },
        fatal: true,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_damaged_between_runs_says_so_and_is_begun_anew_when_it_is_moved_away() {
    let stories = DAMAGES.map(|damage| {
        tokio::spawn(async move {
            let mut life = in_step(30).await;
            (damage.done)(&life);
            let ran = finish(life.command(&["sync"])).await;
            assert!(!ran.err.contains("panicked"), "{}", ran.err);
            println!("disk: {}: {}", damage.what, ran.err.trim());
            if damage.fatal {
                let ran = ran.exits(1);
                let path = life.state("main.db").display().to_string();
                let _ = ran.tells(&[&path, "move it away"]);
                for command in ["users", "events"] {
                    let ran = life.place.run(&[command]).await.exits(1);
                    assert!((ran.out + &ran.err).contains(&path));
                }
                fs::rename(life.state("main.db"), life.place.path("away")).unwrap();
                life.sync().await.exits(0);
            } else {
                let _ = ran.exits(0);
            }
            life.sync().await.exits(0);
            life.assert_adopted();
        })
    });
    for story in stories {
        story.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_garbage_in_it_costs_no_more_than_its_last_moments() {
    for from in [0, 3, 40, 5000, 60_000] {
        let mut life = Life::new(10, |connector| connector).await;
        // Killed, so that everything is in the log.
        life.interpose.kill_at(180, crate::interpose::Death::Before);
        let _ = life.sync().await;
        assert_eq!(life.interpose.deaths(), 1);
        let length = fs::metadata(life.state("main.db-wal")).unwrap().len();
        assert!(length > 70_000, "{length}");
        overwrite(&life, "main.db-wal", from, 3000);
        life.interpose.begin();
        let ran = life.sync().await;
        assert!(ran.code == 0 || ran.err.contains("is damaged"), "{}", ran.err);
        if ran.code != 0 {
            for name in ["main.db", "main.db-wal"] {
                let _ = fs::rename(life.state(name), life.place.path(name));
            }
            life.sync().await.exits(0);
        }
        life.sync().await.exits(0);
        assert_world_in_step(&life.world(), life.users());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_damaged_under_the_daemon_stops_no_other_connector() {
    futures_util::future::join_all(DAMAGES.map(damage_under_the_daemon)).await;
}

async fn damage_under_the_daemon(damage: Damage) {
    let life = in_step(12).await;
    let world = life.world();
    world.behave(|behaviour| behaviour.accept_duplicates = false);
    let main = Connector::new("main", &life.sandbox).with("poll_interval", "1s");
    let other = Connector::new("other", &life.sandbox).with("poll_interval", "1s");
    life.place.configure("", &[main, other]);
    let daemon = life.daemon().await;
    daemon.state("main", "connected").await;
    daemon.state("other", "connected").await;
    (damage.done)(&life);
    world.add_people(2);
    let all_done = |status: &Value| status["users"] == 14 && status["pending"] == 0 && status["state"] == "connected";
    daemon.status("other", all_done).await;
    // Whatever became of it, somebody who moves it away gets a new one.
    let _ = fs::rename(life.state("main.db"), life.place.path("away"));
    a_moment_passes(&life);
    let main = daemon.status("main", all_done).await;
    let reason = main["reason"].as_str();
    assert!(
        reason.is_none_or(|reason| reason.starts_with("the state file is gone")),
        "{}: {main}",
        damage.what
    );
    assert_eq!(world.accounts().len(), 12 + 1 + 2, "{}", damage.what);
    let said = daemon.said();
    assert!(!said.contains("panicked"), "{}: {said}", damage.what);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_a_newer_version_is_refused_and_left_as_it_is() {
    let life = in_step(3).await;
    let newer = 99;
    {
        let db = rusqlite::Connection::open(life.state("main.db")).unwrap();
        db.pragma_update(None, "user_version", newer).unwrap();
    }
    let before = fs::read(life.state("main.db")).unwrap();
    for command in [
        &["sync"][..],
        &["users"],
        &["events"],
        &["status"],
        &["pause", "main"],
        &["sync", "--dry-run"],
    ] {
        let ran = life.place.run(command).await.exits(1);
        let said = ran.out + &ran.err;
        for words in [
            "main.db was written by a newer torq-connector (schema 99",
            "install the newer version, or restore an older copy",
        ] {
            // A table breaks the lines.
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(said.contains(words) || command == ["status"], "{command:?}: {said}");
        }
    }
    let daemon = life.daemon().await;
    let status = daemon.status("main", |status| status["reason"].is_string()).await;
    assert!(
        status["reason"].as_str().unwrap().contains("newer torq-connector"),
        "{status}"
    );
    assert_eq!(daemon.get("/readyz").await.0, 503);
    daemon.stop().await;
    assert_eq!(fs::read(life.state("main.db")).unwrap(), before);
    assert!(life.world().requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_another_program_has_locked_is_waited_for_and_then_said_to_be_locked() {
    let life = in_step(4).await;
    let db = rusqlite::Connection::open(life.state("main.db")).unwrap();
    db.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let ran = finish(life.place.command(&["sync"])).await.exits(1);
    let path = life.state("main.db").display().to_string();
    let _ = ran.tells(&[&path, "another program has it open and locked", "nothing is lost"]);
    db.execute_batch("COMMIT").unwrap();
    drop(db);

    let daemon = life.daemon().await;
    daemon.state("main", "connected").await;
    let db = rusqlite::Connection::open(life.state("main.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ran = finish(life.place.command(&["sync"])).await.exits(1);
    let _ = ran.tells(&["another program has it open and locked"]);
    let status = daemon.state("main", "retrying").await;
    assert_eq!(status["users"], 4, "what is known is shown: {status}");
    db.execute_batch("COMMIT").unwrap();
    life.time_passes_until(&daemon, |status| status["state"] == "connected")
        .await;
    daemon.stop().await;
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_a_state_that_others_can_look_at() {
    let mut life = Life::new(12, |connector| connector).await;
    life.world()
        .fault(FaultRule::always(Endpoint::AccountCreate, Fault::Hang).after(4));
    let mut daemon = life.daemon().await;
    tokio::time::timeout(DEADLINE, life.world().seen(Endpoint::AccountCreate, 6))
        .await
        .unwrap();
    daemon.signal("KILL");
    daemon.ended().await;
    life.world().clear_faults();
    let status: Value = life.place.run(&["status", "--format", "json"]).await.exits(0).json();
    let status = &status["connectors"][0];
    assert_eq!(status["users"], 12, "{status}");
    let made = life
        .world()
        .accounts()
        .iter()
        .filter(|one| key_of(one).is_some())
        .count();
    assert!(status["accounts"].as_u64().unwrap() <= made as u64, "{status}");
    life.recover().await;
}
