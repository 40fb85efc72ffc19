//! `remove`, by the real binary: what it takes away and what stays, what is asked and said, and what becomes of it when peers,
//! disks and people do their worst.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod daemon;
mod shared;
mod trouble;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule, Options, Peer, Sandbox, WorldHandle};

use crate::binary::{Connector, Place, Ran, account_emails, finish, people_emails, sandbox};

fn place(sandbox: &Sandbox) -> Place {
    Place::new(&[Connector::new("main", sandbox)])
}

/// A world in which some people have accounts already, and the application accounts of its own: a stranger's, and one that nobody
/// can say anything about.
async fn lived_in(people: usize) -> Sandbox {
    let options = Options {
        people,
        existing_share: 0.3,
        torq_rate: 0,
        jumpcloud_rate: 0,
        ..Options::default()
    };
    let sandbox = Sandbox::start(options).await.unwrap();
    sandbox.world().add_account(Account {
        email: Some("stranger@elsewhere.example".to_owned()),
        ..Account::default()
    });
    sandbox.world().add_account(Account::default());
    sandbox
}

/// The accounts by id: who is there, whatever became of their association.
fn ids(world: &WorldHandle) -> BTreeSet<String> {
    world.accounts().into_iter().map(|account| account.id).collect()
}

/// The files of the state folder, but for locks.
fn kept(place: &Place) -> Vec<String> {
    let names = place.files().into_keys().map(|path| {
        let name = path.file_name().unwrap();
        name.to_str().unwrap().to_owned()
    });
    names
        .filter(|name| !name.ends_with(".lock") && name != "control.sock")
        .collect()
}

async fn state_of(place: &Place) -> String {
    let status = place.run(&["status", "--format", "json"]).await.exits(0).json();
    status["connectors"][0]["state"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_away_what_the_connector_created_and_nothing_else() {
    let sandbox = lived_in(20).await;
    let world = sandbox.world();
    let before = ids(&world);
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    assert!(world.accounts().len() > before.len());
    let associated = |world: &WorldHandle| -> Vec<_> {
        let accounts = world.accounts().into_iter();
        accounts
            .filter(|account| before.contains(&account.id))
            .map(|account| (account.id, account.user_id))
            .collect()
    };
    let associations = associated(&world);
    world.clear_requests();

    let ran = place.run(&["remove", "main", "--yes"]).await.exits(0);
    let made = 20 - (before.len() - 2);
    let ran = ran.tells(&[
        &format!("{made} accounts that this connector created are deleted"),
        "stays: it was there before this connector",
        &format!("{} accounts that this connector did not create stay", before.len()),
        "main.db",
        &format!("main: {made} accounts deleted in JumpCloud"),
        "In Torq (127.0.0.1), delete the API key with the client id sandbox-torq-id",
        "[connectors.main]",
        "config.toml",
        "torq-connector reconnect main",
    ]);
    assert_eq!(ran.out, "");
    for secret in ["sandbox-torq-secret", "sandbox-jumpcloud-secret"] {
        assert!(!ran.err.contains(secret), "{}", ran.err);
    }
    assert_eq!(ids(&world), before);
    assert_eq!(associated(&world), associations, "associations say whose they are");
    let asked = world.requests();
    assert!(
        asked.iter().all(|one| one.peer == Peer::JumpCloud),
        "Torq is not even asked"
    );

    assert_eq!(kept(&place), ["main.removed"]);
    let mark = place.path("state/main.removed");
    assert_eq!(mark.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(mark).unwrap();
    assert!(!text.contains('@') && !text.contains("sandbox"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_connector_is_left_alone_until_it_is_set_up_again() {
    let sandbox = sandbox(6).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    place.run(&["remove", "main", "--yes"]).await.exits(0);
    world.clear_requests();

    place.run(&["status"]).await.exits(0).shows(&[
        "removed by a person on",
        "take the section [connectors.main] out",
        "reconnect main",
    ]);
    for command in ["sync", "pause", "resume", "approve", "retry"] {
        let ran = place.run(&[command, "main"]).await.exits(75);
        ran.tells(&["main: was removed", "torq-connector reconnect main"]);
    }
    place.run(&["sync"]).await.exits(0).tells(&["main: was removed"]);
    place
        .run(&["sync", "--dry-run"])
        .await
        .exits(0)
        .tells(&["main: was removed"]);
    for command in ["users", "events", "backup"] {
        let mut args = vec![command];
        let to = place.path("copies");
        if command == "backup" {
            args.extend(["--to", to.to_str().unwrap()]);
        }
        place.run(&args).await.exits(0).tells(&["main: was removed"]);
    }
    place
        .run(&["remove", "main", "--yes"])
        .await
        .exits(0)
        .tells(&["removed by a person on", "sandbox-torq-id"]);
    assert!(world.requests().is_empty());
    assert_eq!(kept(&place), ["main.removed"]);

    place
        .run(&["reconnect", "main"])
        .await
        .exits(0)
        .tells(&["set up again, from the beginning"]);
    assert_eq!(state_of(&place).await, "starting");
    place
        .run(&["sync"])
        .await
        .exits(0)
        .tells(&["6 new, 6 accounts created"]);
    assert_eq!(account_emails(&world), people_emails(&world));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_goes_if_the_connector_made_it_and_nobody_else_is_in_it() {
    for (answer_lost, stranger) in [(false, false), (true, false), (false, true)] {
        let sandbox = sandbox(5).await;
        let world = sandbox.world();
        if answer_lost {
            let fault = FaultRule::once(Endpoint::ApplicationCreate, Fault::LostAnswer);
            world.fault(fault);
        }
        let place = place(&sandbox);
        place.run(&["sync"]).await.exits(0);
        if stranger {
            world.add_account(Account::default());
        }
        let ran = place.run(&["remove", "main", "--yes"]).await.exits(0);
        assert_eq!(world.application().is_some(), stranger, "{answer_lost}");
        if stranger {
            ran.tells(&["stays: 1 account that this connector did not create is in it"]);
            assert_eq!(world.accounts().len(), 1);
        } else {
            ran.tells(&[
                "is deleted: this connector made it",
                "5 accounts deleted in JumpCloud, and the application",
            ]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_read_is_somebodys_all_the_same() {
    let sandbox = sandbox(1).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let ours = world.accounts().remove(0).id;
    world.fault(FaultRule::once(
        Endpoint::Accounts,
        Fault::Status {
            status: 200,
            retry_after: None,
            body: format!(r#"[{{"id": "{ours}"}}, {{"email": "without.an.id@example.com"}}]"#),
        },
    ));
    place
        .run(&["remove", "main", "--yes"])
        .await
        .exits(0)
        .tells(&["stays: 1 account that this connector did not create is in it"]);
    assert!(world.application().is_some() && world.accounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_ours_to_which_somebody_gave_another_e_mail_stays_and_so_does_the_application() {
    let sandbox = sandbox(3).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let account = world.accounts().remove(0);
    world.delete_account(&account.id);
    world.add_account(Account {
        email: Some("renamed@example.com".to_owned()),
        ..account
    });
    place.run(&["remove", "main", "--yes"]).await.exits(0).tells(&[
        "2 accounts that this connector created are deleted",
        "main: 2 accounts deleted",
        "the application stays",
    ]);
    let left = world.accounts();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].email.as_deref(), Some("renamed@example.com"));
    assert!(world.application().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_create_was_never_answered_is_taken_away_too() {
    let sandbox = lived_in(10).await;
    let world = sandbox.world();
    let before = ids(&world);
    world.fault(FaultRule::once(Endpoint::AccountCreate, Fault::LostAnswer).after(2));
    // And the list that would tell is out of order from then on.
    world.fault(FaultRule::always(Endpoint::Accounts, Fault::status(503)).after(2));
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(69);
    world.clear_faults();
    let made = world.accounts().len() - before.len();
    place
        .run(&["remove", "main", "--yes"])
        .await
        .exits(0)
        .tells(&[&format!("{made} accounts deleted in JumpCloud")]);
    assert_eq!(ids(&world), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_any_run_there_is_nothing_to_take_away() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    let ran = place.run(&["remove", "main", "--yes"]).await.exits(0);
    ran.tells(&["none is there that this connector created", "It has no state here"]);
    assert!(sandbox.world().writes().is_empty());
    assert_eq!(state_of(&place).await, "removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_and_without_yes_it_shows_and_ends_with_64() {
    let sandbox = sandbox(4).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let (accounts, files) = (ids(&world), place.files());
    world.clear_requests();
    let ran = place.run(&["remove", "main"]).await.exits(64);
    ran.tells(&["4 accounts that this connector created are deleted", "main.db", "--yes"]);
    assert!(world.writes().is_empty());
    assert_eq!(ids(&world), accounts);
    assert_eq!(place.files(), files);
    place.run(&["remove"]).await.exits(64);
    place
        .run(&["remove", "three", "--yes"])
        .await
        .exits(64)
        .tells(&["there is no connector three", "main"]);
}

/// Runs a command on a terminal of its own, on which this is typed.
async fn on_a_terminal(place: &Place, args: &[&str], typed: &str) -> Ran {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::io::Write;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut keyboard = std::fs::File::from(master);
    writeln!(keyboard, "{typed}").unwrap();
    let mut command = place.command(args);
    command.stdin(Stdio::from(slave));
    finish(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_asks_and_takes_only_a_yes_for_one() {
    let sandbox = sandbox(4).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    for typed in ["n", "", "yesterday"] {
        let ran = on_a_terminal(&place, &["remove", "main"], typed).await.exits(64);
        ran.tells(&["Remove main? [y/N]", "Nothing is removed."]);
        assert_eq!(world.accounts().len(), 4);
        assert_eq!(state_of(&place).await, "connected");
    }
    let ran = on_a_terminal(&place, &["remove", "main"], "y").await.exits(0);
    ran.tells(&["Remove main? [y/N]", "4 accounts deleted"]);
    assert!(world.accounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_without_a_section_can_be_forgotten() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[Connector::new("main", &sandbox), Connector::new("other", &sandbox)]);
    place.run(&["sync"]).await.exits(0);
    place.configure("", &[Connector::new("other", &sandbox)]);
    sandbox.world().clear_requests();
    place.run(&["remove", "main", "--yes"]).await.exits(64).tells(&[
        "there is no connector main",
        "Its state is still there",
        "--keep-accounts",
    ]);
    place
        .run(&["remove", "main", "--yes", "--keep-accounts"])
        .await
        .exits(0)
        .tells(&["main.db", "main: forgotten"]);
    assert_eq!(kept(&place), ["other.db"]);
    assert!(!place.path("state/main.lock").exists());
    assert!(sandbox.world().requests().is_empty());
}
