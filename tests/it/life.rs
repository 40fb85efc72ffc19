//! The life of one connector in the real binary: between a sandbox and its state, through the shim that decides about its disk, its
//! clock and its death. Whatever comes of a run is judged by the state it left and by the sandbox's journal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rusqlite::Connection as Sqlite;
use serde_json::Value;
use torq_connector::model::ConnectorName;
use torq_connector::sandbox::{Account, Endpoint, Options, Person, RequestLog, Sandbox, WorldHandle};
use torq_connector::state::{self, State, Store};
use torq_connector::view::{AccountStanding, UserView};

use crate::binary::{Connector, Daemon, Place, Ran, eventually, finish};
use crate::interpose::Interpose;
use crate::world::{assert_world_in_step, fold, key_of, keys};

/// One connector's life between a sandbox and its state, with deaths in between.
pub struct Life {
    pub sandbox: Sandbox,
    pub place: Place,
    pub interpose: Interpose,
    /// Accounts that the connector did not make: those of nobody in Torq, and those that were there before.
    pub not_ours: BTreeSet<String>,
    /// Which account had which e-mail, as far as was ever seen.
    seen: BTreeMap<String, String>,
}

impl Life {
    /// So many people, of whom the first had an account before, and an account of somebody who is not in Torq. JumpCloud would
    /// accept a second account for an e-mail without complaint.
    pub async fn new(people: usize, configure: impl FnOnce(Connector) -> Connector) -> Self {
        let options = Options {
            people,
            torq_rate: 0,
            jumpcloud_rate: 0,
            ..Options::default()
        };
        let sandbox = Sandbox::start(options).await.unwrap();
        let world = sandbox.world();
        world.behave(|behaviour| behaviour.accept_duplicates = true);
        let mut not_ours = BTreeSet::new();
        let first = world.people()[0].email.clone();
        for email in [first, "stranger@example.net".to_owned()] {
            not_ours.insert(world.add_account(Account {
                email: Some(email),
                ..Account::default()
            }));
        }
        let connector = Connector::new("main", &sandbox)
            .with("removals", "delete")
            .with("max_removals", "1000");
        let place = Place::new(&[configure(connector)]);
        let interpose = Interpose::new(&place.state_dir());
        Self {
            sandbox,
            place,
            interpose,
            not_ours,
            seen: BTreeMap::new(),
        }
    }

    pub fn world(&self) -> WorldHandle {
        self.sandbox.world()
    }

    /// A command through the shim.
    pub fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = self.place.command(args);
        command
            .envs(self.interpose.env())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The daemon, through the shim.
    pub async fn daemon(&self) -> Daemon {
        self.place.daemon_by(self.command(&["run"])).await
    }

    /// One minute after another passes, until the connector's status is as wanted.
    pub async fn time_passes_until(&self, daemon: &Daemon, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually("it is as wanted in the end", async || {
            self.interpose.pass(Duration::from_secs(60));
            let status = daemon.json("/api/status").await["connectors"][0].clone();
            wanted(&status).then_some(status)
        })
        .await
    }

    /// One run, to its end or to its death.
    pub async fn sync(&mut self) -> Ran {
        let ran = finish(self.command(&["sync"])).await;
        self.judge(&ran);
        ran
    }

    /// A run that nothing disturbs, after which everything is in step.
    pub async fn recover(&mut self) {
        self.interpose.begin();
        self.sync().await.exits(0);
        self.assert_in_step();
    }

    /// What must hold after every run, however it ended.
    pub fn judge(&mut self, ran: &Ran) {
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        let accounts = self.world().accounts();
        let mut emails = BTreeSet::new();
        for account in &accounts {
            let Some(key) = key_of(account) else { continue };
            assert!(emails.insert(key.clone()), "{key} has two accounts\n{}", ran.err);
            self.seen.insert(account.id.clone(), key);
        }
        for id in &self.not_ours {
            assert!(
                accounts.iter().any(|account| account.id == *id),
                "{id} was not ours to delete"
            );
        }
        assert_none_was_made_twice(&self.world(), &self.seen);
        self.assert_state_is_whole();
    }

    /// The state as the process left it can be opened, and SQLite finds nothing wrong with it. Looked at in a copy: whoever
    /// opens the files themselves would mend what the next process is to find.
    fn assert_state_is_whole(&self) {
        let Some(copy) = copied(&self.place.state_dir()) else {
            return;
        };
        let verdict: String = Sqlite::open(copy.path().join("main.db"))
            .unwrap()
            .pragma_query_value(None, "integrity_check", |row| row.get(0))
            .unwrap();
        assert_eq!(verdict, "ok");
        let copy = copied(&self.place.state_dir()).unwrap();
        State::open(copy.path(), &main_name()).unwrap();
    }

    /// No create was sent whose intent is not in the state.
    pub fn assert_intents_are_known(&self) {
        let known = self.known_emails();
        for request in self.world().requests() {
            if request.endpoint == Endpoint::AccountCreate {
                let email = fold(request.body.unwrap()["email"].as_str().unwrap());
                assert!(
                    known.contains(&email),
                    "{email} was sent, and the state does not know it"
                );
            }
        }
    }

    /// The e-mails that the state knows something about in JumpCloud.
    fn known_emails(&self) -> BTreeSet<String> {
        let Some(copy) = copied(&self.place.state_dir()) else {
            return BTreeSet::new();
        };
        let db = Sqlite::open(copy.path().join("main.db")).unwrap();
        let Ok(mut statement) = db.prepare("SELECT email_key FROM accounts") else {
            return BTreeSet::new();
        };
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Whether the state, as the process left it, has a poll that was cut short.
    pub fn is_in_poll(&self) -> bool {
        let Some(copy) = copied(&self.place.state_dir()) else {
            return false;
        };
        let db = Sqlite::open(copy.path().join("main.db")).unwrap();
        db.query_row("SELECT count(*) FROM poll", [], |row| row.get(0))
            .unwrap_or(false)
    }

    pub fn assert_in_step(&self) {
        let users = self.users();
        for user in &users {
            let theirs = user.account_id.as_ref().is_some_and(|id| self.not_ours.contains(id));
            let expected = if theirs {
                AccountStanding::Found
            } else {
                AccountStanding::Created
            };
            assert_eq!(user.account, expected, "{}: who made their account", user.email);
        }
        assert_world_in_step(&self.world(), users);
        let present = keys(&self.world().people());
        let left: Vec<_> = self
            .world()
            .accounts()
            .into_iter()
            .filter(|one| !self.not_ours.contains(&one.id))
            .collect();
        for account in left {
            let key = key_of(&account).unwrap();
            assert!(
                present.contains(&key),
                "{key} left Torq, and their account is still there"
            );
        }
    }

    /// Everybody whom the state shows.
    pub fn users(&self) -> Vec<UserView> {
        let copy = copied(&self.place.state_dir()).expect("there is a state");
        store(copy.path()).users().unwrap()
    }

    /// Somebody whose account is ours to delete.
    pub fn somebody_of_ours(&self) -> Person {
        let theirs: BTreeSet<_> = self
            .world()
            .accounts()
            .into_iter()
            .filter(|one| self.not_ours.contains(&one.id))
            .filter_map(|one| key_of(&one))
            .collect();
        let mut people = self.world().people().into_iter();
        people
            .rfind(|person| !theirs.contains(&fold(&person.email)))
            .expect("somebody is there")
    }
}

pub fn main_name() -> ConnectorName {
    ConnectorName::parse("main").unwrap()
}

pub fn store(state_dir: &Path) -> Store {
    state::read(state_dir, &main_name()).unwrap().expect("there is a state")
}

/// A copy of the state; `None` where there is none yet.
pub fn copied(state_dir: &Path) -> Option<tempfile::TempDir> {
    let copy = tempfile::tempdir().unwrap();
    if !state_dir.join("main.db").exists() {
        return None;
    }
    for entry in std::fs::read_dir(state_dir).unwrap() {
        let entry = entry.unwrap();
        // The shared memory of a dead process says nothing.
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_file() && !name.ends_with("-shm") {
            std::fs::copy(entry.path(), copy.path().join(name)).unwrap();
        }
    }
    Some(copy)
}

/// For each e-mail one account more was made than was deleted, at most; and only accounts that were made were deleted.
fn assert_none_was_made_twice(world: &WorldHandle, seen: &BTreeMap<String, String>) {
    let mut balance: BTreeMap<String, i64> = BTreeMap::new();
    // Made and deleted while nobody looked, so nobody knows for whom; those that are not ours were all seen.
    let mut unseen = 0;
    for request in world.requests() {
        if !took_effect(&request) {
            continue;
        }
        let (key, change) = match request.endpoint {
            Endpoint::AccountCreate => (fold(request.body.as_ref().unwrap()["email"].as_str().unwrap()), 1),
            Endpoint::AccountDelete => match seen.get(request.path.rsplit('/').next().unwrap()) {
                Some(key) => (key.clone(), -1),
                None => {
                    unseen += 1;
                    continue;
                }
            },
            _ => continue,
        };
        let made = balance.entry(key.clone()).or_default();
        *made += change;
        if *made > 1 && unseen > 0 {
            unseen -= 1;
            *made -= 1;
        }
        assert!(*made <= 1, "{key} got a second account");
        assert!(*made >= 0, "{key} lost an account that we did not make");
    }
}

fn took_effect(request: &RequestLog) -> bool {
    matches!(request.handled, Some(200..=299))
}
