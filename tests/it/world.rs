//! The harness of the stories: a [`Scene`] is a sandbox, a connector's configuration and its state, and every run opens the
//! state like a new process. Here is also what "in step" means.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use torq_connector::config::{self, Config};
use torq_connector::http::{FailureKind, Patience};
use torq_connector::model::Peer;
use torq_connector::sandbox::{
    Account, Application, Behaviour, Endpoint, Fault, FaultRule, Options, Person, RequestLog, Sandbox, WorldHandle,
};
use torq_connector::state::{self, EventQuery, Sql, State, StateError, Store};
use torq_connector::sync::{Connector, Halt, RunEnd};
use torq_connector::view::{ConnectorStatus, DryRun, EventKind, EventView, RunOutcome, UserView};

/// How long a story waits for something that should happen at once.
const DEADLINE: Duration = Duration::from_secs(30);

/// A world, a connector's configuration and its state.
pub struct Scene {
    pub sandbox: Sandbox,
    dir: tempfile::TempDir,
    /// The configuration file, as it was written when all was well.
    file: String,
    environment: BTreeMap<String, String>,
    /// The applications besides Torq as they were: nobody may touch them.
    others: Vec<Application>,
    /// How long a write without an answer may still take effect.
    pub settling: Duration,
}

impl Scene {
    pub async fn new(options: Options) -> Self {
        let sandbox = Sandbox::start(options).await.unwrap();
        let others = other_applications(&sandbox.world());
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        Self {
            file: sandbox.config_toml(state_dir.to_str().unwrap(), "1m"),
            sandbox,
            dir,
            environment: BTreeMap::new(),
            others,
            settling: Duration::from_millis(100),
        }
    }

    /// So many people, the other options as they are by default.
    pub async fn with_people(people: usize) -> Self {
        Self::new(Options {
            people,
            ..Options::default()
        })
        .await
    }

    /// So many people, all of whom the directory knows.
    pub async fn with_known_people(people: usize) -> Self {
        Self::new(Options {
            people,
            directory_share: 1.0,
            ..Options::default()
        })
        .await
    }

    /// The same, and JumpCloud has the application already.
    pub async fn with_an_application(people: usize) -> Self {
        Self::new(Options {
            people,
            directory_share: 1.0,
            application_exists: Some(true),
            ..Options::default()
        })
        .await
    }

    /// Somebody else made accounts for these people.
    pub fn give_accounts(&self, people: &[Person]) {
        for person in people {
            self.world().add_account(Account {
                email: Some(person.email.clone()),
                ..Account::default()
            });
        }
    }

    /// Sets a key of the connector's configuration, as an administrator does in the environment: `REMOVALS`,
    /// `TORQ__CLIENT_SECRET`, …
    pub fn set(&mut self, key: &str, value: &str) {
        self.environment
            .insert(format!("TORQ_CONNECTOR__CONNECTORS__DEMO__{key}"), value.to_owned());
    }

    pub fn unset(&mut self, key: &str) {
        self.environment
            .remove(&format!("TORQ_CONNECTOR__CONNECTORS__DEMO__{key}"));
    }

    /// Sets a key outside of the connector: `NETWORK__TIMEOUT`, …
    pub fn set_general(&mut self, key: &str, value: &str) {
        self.environment
            .insert(format!("TORQ_CONNECTOR__{key}"), value.to_owned());
    }

    /// Changes the configuration file.
    pub fn edit(&mut self, edit: impl FnOnce(&str) -> String) {
        self.file = edit(&self.file);
    }

    pub fn world(&self) -> WorldHandle {
        self.sandbox.world()
    }

    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        self.world().behave(change);
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn config(&self) -> Config {
        config::parse(&self.file, self.dir.path(), Some(0o600), &self.environment).unwrap()
    }

    fn assemble(&self, state: State) -> Connector {
        let config = self.config();
        let connector = Arc::new(config.connectors[0].clone());
        Connector::new(
            connector,
            &config.network,
            state,
            Patience::COMMAND,
            CancellationToken::new(),
        )
        .unwrap()
        // The sandbox acts on a request at once, or when a fault says so.
        .settling_within(self.settling)
    }

    /// The connector, as a new process opens it. A run that was dropped may hold the state for a moment longer.
    pub async fn connector(&self) -> Connector {
        let config = self.config();
        let since = Instant::now();
        // Not by `eventually`, whose closures cannot move between threads, as some scenes do.
        loop {
            match State::open(&config.state_dir, &config.connectors[0].name) {
                Ok(state) => return self.assemble(state),
                Err(StateError::InUse { .. }) if since.elapsed() < DEADLINE => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The connector with a daemon's patience, but for no longer than this.
    pub async fn impatient_connector(&self, within: Duration) -> Connector {
        let connector = self.connector().await;
        let config = self.config();
        let patience = Patience { attempts: None, within };
        let state = connector.state().clone();
        drop(connector);
        Connector::new(
            Arc::new(config.connectors[0].clone()),
            &config.network,
            state,
            patience,
            CancellationToken::new(),
        )
        .unwrap()
    }

    /// One run in a new process. Whatever comes of it, nobody has two accounts and nothing else was touched.
    pub async fn run(&self) -> RunEnd {
        let end = self.connector().await.run().await.unwrap();
        self.assert_sane();
        end
    }

    /// A run that must come to its end with everything delivered.
    pub async fn run_to_the_end(&self) -> RunEnd {
        let end = self.run().await;
        assert_eq!(end.outcome, RunOutcome::Done, "{end:?}");
        end
    }

    /// Runs, and kills the run as soon as an endpoint has received so many requests.
    pub async fn killed_at(&self, endpoint: Endpoint, requests: usize) {
        let connector = self.connector().await;
        let world = self.world();
        tokio::select! {
            _ = connector.run() => {}
            () = world.seen(endpoint, requests) => {}
        }
        drop(connector);
        self.assert_sane();
    }

    /// Runs, and tells the run to stop as soon as an endpoint has received so many requests.
    pub async fn stopped_at(&self, endpoint: Endpoint, requests: usize) -> RunEnd {
        let connector = self.connector().await;
        let world = self.world();
        let stop = async {
            tokio::time::timeout(DEADLINE, world.seen(endpoint, requests))
                .await
                .expect("the run asks that often");
            connector.stop();
        };
        let (end, ()) = tokio::join!(connector.run(), stop);
        drop(connector);
        // A page of the listing that was not waited for any more is still written: whoever has the state next comes after it.
        drop(self.connector().await);
        self.assert_sane();
        end.unwrap()
    }

    pub async fn dry_run(&self) -> DryRun {
        let config = self.config();
        let state = State::scratch(&config.state_dir, &config.connectors[0].name).unwrap();
        self.assemble(state).dry_run().await.unwrap()
    }

    /// Acts on the state like a command without a daemon.
    pub async fn act<R: Send + 'static>(&self, act: impl FnOnce(&mut Store) -> Sql<R> + Send + 'static) -> R {
        let connector = self.connector().await;
        connector.state().call(act).await.unwrap()
    }

    fn store(&self) -> Store {
        let config = self.config();
        state::read(&config.state_dir, &config.connectors[0].name)
            .unwrap()
            .expect("there is a state")
    }

    pub fn users(&self) -> Vec<UserView> {
        self.store().users().unwrap()
    }

    pub fn user(&self, id: &str) -> UserView {
        let found = self.users().into_iter().find(|user| user.id == id);
        found.unwrap_or_else(|| panic!("{id} is not known"))
    }

    pub fn status(&self) -> ConnectorStatus {
        self.store().status().unwrap()
    }

    pub fn events(&self, kind: EventKind) -> Vec<EventView> {
        let query = EventQuery {
            kinds: vec![kind],
            ..EventQuery::default()
        };
        self.store().events(&query).unwrap()
    }

    /// The files of the state, byte by byte.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(self.state_dir()) else {
            return BTreeMap::new();
        };
        entries
            .map(|entry| {
                let path = entry.unwrap().path();
                let content = std::fs::read(&path).unwrap();
                (path, content)
            })
            .collect()
    }

    /// What holds after every run, however it ended: no e-mail has two accounts, and no other application was touched.
    pub fn assert_sane(&self) {
        let mut seen = BTreeSet::new();
        for account in self.world().accounts() {
            let Some(key) = key_of(&account) else { continue };
            assert!(seen.insert(key.clone()), "{key} has two accounts");
        }
        assert_eq!(other_applications(&self.world()), self.others);
    }

    /// The accounts of nobody in Torq.
    pub fn accounts_of_others(&self) -> Vec<Account> {
        let keys = keys(&self.world().people());
        let accounts = self.world().accounts().into_iter();
        accounts
            .filter(|account| key_of(account).is_none_or(|key| !keys.contains(&key)))
            .collect()
    }

    /// The account with this e-mail (or user name).
    pub fn account(&self, email: &str) -> Option<Account> {
        let key = fold(email);
        let mut accounts = self.world().accounts().into_iter();
        accounts.find(|account| key_of(account).as_ref() == Some(&key))
    }
}

/// One account for each e-mail of the people in Torq, associated with the directory user who has this e-mail; and what the
/// connector shows is what is there.
pub fn assert_in_step(scene: &Scene) {
    scene.assert_sane();
    assert_world_in_step(&scene.world(), scene.users());
}

/// The same, for whoever has no scene: a world, and the users that the connector shows.
pub fn assert_world_in_step(world: &WorldHandle, shown: Vec<UserView>) {
    let accounts: BTreeMap<String, Account> = world
        .accounts()
        .into_iter()
        .filter_map(|account| Some((key_of(&account)?, account)))
        .collect();
    let directory: BTreeMap<String, String> = world
        .directory()
        .into_iter()
        .map(|user| (fold(&user.email), user.id))
        .collect();
    let people = world.people();
    for key in keys(&people) {
        let account = accounts.get(&key).unwrap_or_else(|| panic!("{key} has no account"));
        assert_eq!(account.user_id.as_ref(), directory.get(&key), "association of {key}");
    }
    let shown: BTreeMap<String, UserView> = shown.into_iter().map(|user| (user.id.clone(), user)).collect();
    for person in people
        .iter()
        .filter(|person| person.raw.is_none() && !person.email.is_empty())
    {
        let user = shown
            .get(&person.id)
            .unwrap_or_else(|| panic!("{} is not shown", person.email));
        assert_eq!(user.email, person.email);
        let account = &accounts[&fold(&person.email)];
        assert_eq!(user.account_id.as_ref(), Some(&account.id), "{}", person.email);
        assert_eq!(user.directory_user_id, account.user_id, "{}", person.email);
    }
}

/// The peer and the meaning of what a run was refused for.
pub fn refusal(end: &RunEnd) -> (Peer, FailureKind) {
    match &end.halt {
        Some(Halt::Reconnect { failure, .. } | Halt::NotLicensed(failure) | Halt::Unavailable(failure)) => {
            (failure.peer, failure.kind)
        }
        other => panic!("no refusal: {other:?}"),
    }
}

/// A fault for the next so many requests of an endpoint.
pub fn times(count: u64, endpoint: Endpoint, fault: Fault) -> FaultRule {
    FaultRule {
        times: Some(count),
        ..FaultRule::always(endpoint, fault)
    }
}

/// The writes to one endpoint.
pub fn writes(scene: &Scene, endpoint: Endpoint) -> Vec<RequestLog> {
    let writes = scene.world().writes().into_iter();
    writes.filter(|write| write.endpoint == endpoint).collect()
}

/// The folded e-mails of people who have one.
pub fn keys(people: &[Person]) -> BTreeSet<String> {
    let emails = people.iter().map(|person| fold(&person.email));
    emails.filter(|email| !email.is_empty()).collect()
}

pub fn fold(email: &str) -> String {
    email.trim().to_lowercase()
}

/// By what an account is recognised: its e-mail, or its user name.
pub fn key_of(account: &Account) -> Option<String> {
    let text = account.email.as_ref().or(account.username.as_ref())?;
    Some(fold(text)).filter(|key| !key.is_empty())
}

fn other_applications(world: &WorldHandle) -> Vec<Application> {
    let applications = world.applications().into_iter();
    applications.filter(|one| one.catalog_app_id != "torq").collect()
}

/// Whether a folder holds nothing at all, or is not there.
pub fn is_untouched(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(!dir.exists(), |mut entries| entries.next().is_none())
}
