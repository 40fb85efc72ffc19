//! `backup`, and what comes of a copy that is put in the place of the state.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule, Sandbox};

use crate::binary::{Connector, DEADLINE, Place, Ran, account_emails, finish, people_emails, sandbox};

fn main(sandbox: &Sandbox) -> Connector {
    Connector::new("main", sandbox)
}

/// Makes copies, and returns the files, in the order of their names.
async fn copies(place: &Place) -> (Ran, Vec<PathBuf>) {
    let to = place.path("copies");
    let ran = place.run(&["backup", "--to", to.to_str().unwrap()]).await;
    let mut files: Vec<_> = std::fs::read_dir(to)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    files.sort();
    (ran, files)
}

/// The one copy.
async fn copy(place: &Place) -> PathBuf {
    let (ran, files) = copies(place).await;
    ran.exits(0);
    assert_eq!(files.len(), 1);
    files[0].clone()
}

/// Puts a copy in the place of the state, as the documentation says: nobody works with it, and nothing of it is left.
fn restore(place: &Place, copy: &PathBuf) {
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(place.path(&format!("state/main.db{suffix}")));
    }
    std::fs::copy(copy, place.path("state/main.db")).unwrap();
}

async fn users(place: &Place) -> Vec<Value> {
    let report = place.run(&["users", "--format", "json"]).await.exits(0).json();
    report["users"].as_array().unwrap().clone()
}

async fn status(place: &Place) -> Value {
    let report = place.run(&["status", "--format", "json"]).await.exits(0).json();
    report["connectors"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_made_while_the_daemon_works_and_is_whole() {
    let sandbox = sandbox(120).await;
    let world = sandbox.world();
    // In the middle of a delivery that takes its time.
    let slow = FaultRule::always(Endpoint::AccountCreate, Fault::Delay(Duration::from_millis(300)));
    world.fault(slow);
    let place = Place::new(&[main(&sandbox)]);
    let daemon = place.daemon().await;
    tokio::time::timeout(DEADLINE, world.seen(Endpoint::AccountCreate, 20))
        .await
        .expect("it delivers");
    let (ran, files) = copies(&place).await;
    let ran = ran.exits(0);
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let size = file.metadata().unwrap().len();
    ran.shows(&[
        &format!("main: {}", file.display()),
        "120 users",
        &format!("{size} bytes"),
        "checked",
    ]);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let folder = place.path("copies").metadata().unwrap().permissions().mode();
    assert_eq!(folder & 0o777, 0o700);
    assert!(world.accounts().len() < 120, "it was in the middle");
    world.clear_faults();
    daemon
        .status("main", |status| {
            status["accounts"] == 120 && status["state"] == "connected"
        })
        .await;
    daemon.stop().await;

    // Restored, it goes on: creates that were under way are looked for, and nobody gets two accounts.
    world.behave(|behaviour| behaviour.accept_duplicates = true);
    restore(&place, file);
    world.clear_requests();
    place.run(&["sync"]).await.exits(0);
    assert!(world.writes().is_empty(), "everybody had an account");
    assert_eq!(account_emails(&world), people_emails(&world));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_one_state_keeps_no_other_from_being_copied() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[
        Connector::new("bad", &sandbox),
        Connector::new("good", &sandbox),
        Connector::new("new", &sandbox),
    ]);
    place.run(&["sync", "good"]).await.exits(0);
    place.write(
        "state/bad.db",
        "this is no database, but some text that somebody put here",
    );
    let (ran, files) = copies(&place).await;
    ran.exits(1).shows(&["good: ", "3 users"]).tells(&[
        "bad: not copied: ",
        "bad.db is damaged",
        "new: nothing is known yet",
    ]);
    assert_eq!(files.len(), 1);
    let to = place.path("copies");
    let named = place.run(&["backup", "new", "--to", to.to_str().unwrap()]).await;
    named.exits(75).tells(&["new: nothing is known yet"]);

    let state_dir = place.state_dir();
    let ran = place
        .run(&["backup", "good", "--to", state_dir.to_str().unwrap()])
        .await;
    ran.exits(64).tells(&["the folder of the states themselves"]);
    let mut full = place.command(&["backup", "good", "--to", "/proc/nowhere"]);
    full.stdin(std::process::Stdio::null());
    finish(full)
        .await
        .exits(1)
        .tells(&["good: not copied: cannot", "give another folder with --to"]);
}

/// A connector that deletes, a copy of its state, and what happened since: people came, people left and their accounts with them,
/// one person left and came back, and somebody else made an account.
async fn an_older_copy() -> (Sandbox, Place, PathBuf, Vec<String>) {
    let sandbox = sandbox(30).await;
    let world = sandbox.world();
    world.behave(|behaviour| behaviour.accept_duplicates = true);
    let place = Place::new(&[main(&sandbox).with("removals", "delete")]);
    place.run(&["sync"]).await.exits(0);
    let copy = copy(&place).await;

    let left: Vec<_> = world.people()[..3].to_vec();
    for person in &left {
        world.remove_person(&person.id);
    }
    world.add_people(4);
    for _ in 0..2 {
        place.run(&["sync"]).await.exits(0);
    }
    assert_eq!(world.count(Endpoint::AccountDelete), 3);
    let newcomer = world.add_people(1).remove(0);
    world.add_account(Account {
        email: Some(newcomer.email),
        ..Account::default()
    });
    place.run(&["sync"]).await.exits(0);
    assert_eq!(account_emails(&world), people_emails(&world));
    let gone = left.into_iter().map(|person| person.email.to_lowercase()).collect();
    (sandbox, place, copy, gone)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_makes_neither_duplicates_nor_removals_by_surprise() {
    for with_daemon in [false, true] {
        let (sandbox, place, copy, gone) = an_older_copy().await;
        let world = sandbox.world();
        restore(&place, &copy);
        world.clear_requests();
        let daemon = match with_daemon {
            true => {
                let daemon = place.daemon().await;
                daemon.status("main", |status| status["users"] == 35).await;
                Some(daemon)
            }
            false => {
                let ran = place.run(&["sync"]).await.exits(75);
                ran.tells(&[
                    "restored from a copy",
                    "5 new",
                    "3 users without an account were not seen",
                ]);
                None
            }
        };
        if let Some(daemon) = &daemon {
            daemon.status("main", |status| status["pending"] == 3).await;
        }
        // Nothing is made for those who left since, nothing is deleted, and whoever came since was found.
        assert!(world.writes().is_empty(), "{:?}", world.writes());
        let known = users(&place).await;
        let standing = |email: &str| {
            let user = known
                .iter()
                .find(|user| user["email"].as_str().unwrap().to_lowercase() == email);
            user.unwrap_or_else(|| panic!("{email} is not known"))["account"].clone()
        };
        for email in &gone {
            assert_eq!(standing(email), "pending", "{email}");
        }
        for email in &people_emails(&world)[..] {
            assert!(
                ["created", "found"].contains(&standing(email).as_str().unwrap()),
                "{email}"
            );
        }
        assert_eq!(known.iter().filter(|user| user["account"] == "found").count(), 5);
        assert_eq!(status(&place).await["removed"], 0);

        // Missing from a second complete poll, they are gone; they have no account to go with them.
        place.run(&["sync"]).await.exits(0);
        assert_eq!(status(&place).await["removed"], 3);
        assert!(world.writes().is_empty());
        // Whoever came since the copy was made is found, so their accounts are nobody's to delete.
        let found = known.iter().find(|user| user["account"] == "found").unwrap();
        world.remove_person(found["id"].as_str().unwrap());
        for _ in 0..3 {
            place.run(&["sync"]).await.exits(0);
        }
        assert_eq!(world.count(Endpoint::AccountDelete), 0);
        assert_eq!(status(&place).await["removed"], 4);
        if let Some(daemon) = daemon {
            daemon.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_restored_copy_says_the_same_and_leaves_it_as_it_is() {
    let (sandbox, place, copy, _) = an_older_copy().await;
    restore(&place, &copy);
    let before = place.files();
    let preview = place
        .run(&["sync", "--dry-run", "--format", "json"])
        .await
        .exits(0)
        .json();
    let counts = &preview["connectors"][0]["counts"];
    assert_eq!(
        (&counts["created"], &counts["deleted"], &counts["found"]),
        (&0.into(), &0.into(), &5.into())
    );
    assert_eq!(place.files(), before);
    assert_eq!(account_emails(&sandbox.world()), people_emails(&sandbox.world()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_over_the_state_of_a_daemon_that_was_killed_is_not_mixed_with_what_that_left() {
    let sandbox = sandbox(10).await;
    let world = sandbox.world();
    let place = Place::new(&[main(&sandbox)]);
    let mut daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    let copy = copy(&place).await;
    world.add_people(30);
    place.run(&["sync"]).await.exits(0);
    daemon.signal("KILL");
    daemon.ended().await;
    let log = place.path("state/main.db-wal");
    assert!(log.metadata().unwrap().len() > 0, "the kill left it");
    // In a hurry: only the state itself is replaced.
    std::fs::copy(&copy, place.path("state/main.db")).unwrap();
    assert_eq!(status(&place).await["users"], 10);
    place
        .run(&["sync"])
        .await
        .exits(0)
        .tells(&["30 new, 30 accounts found", "a log of the old one was left beside it"]);
    assert_eq!(account_emails(&world), people_emails(&world));
    assert_eq!(users(&place).await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_moves_a_connector_to_another_machine() {
    let sandbox = sandbox(8).await;
    let world = sandbox.world();
    let here = Place::new(&[main(&sandbox)]);
    here.run(&["sync"]).await.exits(0);
    let copy = copy(&here).await;
    let there = Place::new(&[main(&sandbox)]);
    std::fs::create_dir(there.state_dir()).unwrap();
    restore(&there, &copy);
    world.clear_requests();
    there.run(&["sync"]).await.exits(0).tells(&["8 users; nothing changed"]);
    assert!(world.writes().is_empty());
    let owned = users(&there).await;
    assert!(owned.iter().all(|user| user["account"] == "created"), "still its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_restored_over_a_removed_connector_is_kept_and_taken_up_on_reconnect() {
    let sandbox = sandbox(5).await;
    let place = Place::new(&[main(&sandbox)]);
    place.run(&["sync"]).await.exits(0);
    let copy = copy(&place).await;
    place
        .run(&["remove", "main", "--yes", "--keep-accounts"])
        .await
        .exits(0);
    restore(&place, &copy);
    let daemon = place.daemon().await;
    daemon.state("main", "removed").await;
    assert!(place.path("state/main.db").exists());
    place
        .run(&["reconnect", "main"])
        .await
        .exits(0)
        .tells(&["5 users; nothing changed"]);
    assert!(users(&place).await.iter().all(|user| user["account"] == "created"));
    daemon.stop().await;
}
