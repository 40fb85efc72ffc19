//! The crew: who is attended, and how a new configuration changes that. Connectors that are new in it start, those that are gone
//! from it end in good order (their state stays), changed ones go on with what changed, and the others do not notice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Origin;
use super::attend::Attendant;
use super::control::{Desks, Reload};
use crate::config::{self, Config, Network};
use crate::model::ConnectorName;
use crate::state;
use crate::sync::{self, Neighbourhood};
use crate::web::Board;

/// Between the starts of two connectors, so that a thousand of them do not start together.
const APART: Duration = Duration::from_millis(50);

/// What an attendant goes by.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) config: config::Connector,
    pub(super) network: Arc<Network>,
    pub(super) neighbourhood: Arc<Neighbourhood>,
    /// Grows with each configuration that was read.
    pub(super) generation: u64,
    /// Whether a connector that waits for a person tries again, also where nothing changed for it.
    pub(super) wakes: bool,
}

/// Sets the log's level as configured.
pub type Relog = Box<dyn Fn(&config::Log) + Send + Sync>;

struct Post {
    settings: watch::Sender<Settings>,
    /// The generation of those that its attendant goes by.
    taken: watch::Receiver<u64>,
    stop: CancellationToken,
}

/// Whom a configuration was given to, and what each of them says that it goes by.
#[derive(Debug)]
pub(super) struct InForce {
    generation: u64,
    taken: Vec<watch::Receiver<u64>>,
}

impl InForce {
    /// Waits until everybody goes by it, or has ended.
    pub(super) async fn everywhere(mut self) {
        for taken in &mut self.taken {
            let _ = taken.wait_for(|taken| *taken >= self.generation).await;
        }
    }

    /// One that was given to somebody who says with this sender what it goes by.
    #[cfg(test)]
    pub(super) fn for_one(generation: u64) -> (watch::Sender<u64>, Self) {
        let (take, taken) = watch::channel(0);
        let taken = vec![taken];
        (take, Self { generation, taken })
    }
}

/// How the task of a connector ended.
pub(super) enum Ended {
    /// As it was told to.
    Left(ConnectorName),
    /// Nobody asked it to; how.
    Fault(ConnectorName, String),
}

pub(super) struct Crew {
    /// The configuration that the process started with: what cannot change while it runs.
    started_with: Config,
    /// The last one that was read.
    config: Config,
    origin: Option<Origin>,
    relog: Option<Relog>,
    generation: u64,
    board: Board,
    desks: Desks,
    reloads: mpsc::Sender<Reload>,
    stop: CancellationToken,
    posts: BTreeMap<ConnectorName, Post>,
    /// Told to end, and not yet there.
    leaving: BTreeSet<ConnectorName>,
    tasks: JoinSet<()>,
    names: HashMap<Id, ConnectorName>,
}

impl Crew {
    /// Attends every configured connector.
    pub(super) fn start(
        config: Config,
        origin: Option<Origin>,
        relog: Option<Relog>,
        board: Board,
        desks: Desks,
        reloads: mpsc::Sender<Reload>,
        stop: CancellationToken,
    ) -> Self {
        let mut crew = Self {
            started_with: config.clone(),
            config,
            origin,
            relog,
            generation: 0,
            board,
            desks,
            reloads,
            stop,
            posts: BTreeMap::new(),
            leaving: BTreeSet::new(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
        };
        crew.fill_posts();
        crew
    }

    fn state_dir(&self) -> PathBuf {
        self.started_with.state_dir.clone()
    }

    /// How many connectors are attended.
    pub(super) fn len(&self) -> usize {
        self.posts.len()
    }

    /// How many tasks have not ended.
    pub(super) fn unfinished(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until the task of a connector ends; `None` when there is no task any more.
    pub(super) async fn next_ended(&mut self) -> Option<Ended> {
        let (id, fault) = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => (id, None),
            Err(error) if error.is_panic() => (error.id(), Some("it panicked".to_owned())),
            Err(error) => (error.id(), Some(error.to_string())),
        };
        let name = self.names.remove(&id)?;
        Some(match fault {
            None if self.leaving.contains(&name) => Ended::Left(name),
            None => Ended::Fault(name, "it returned".to_owned()),
            Some(how) => Ended::Fault(name, how),
        })
    }

    /// A connector that was told to end has ended. If it is in the configuration again by now, it starts again.
    pub(super) fn left(&mut self, name: &ConnectorName) {
        self.leaving.remove(name);
        self.board.remove(name);
        sync::forget_tenant(name);
        tracing::info!(connector = %name, "is not attended any more; its state stays");
        self.fill_posts();
    }

    /// Reads the configuration again. What is wrong with it leaves everything as it is. `asked_for`: connectors that are told by
    /// an order of their own, and need not be woken; `only_these`: whatever else is new waits for the next time.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, for a person.
    pub(super) async fn reload(&mut self, asked_for: &[String], only_these: bool) -> Result<(), String> {
        let Some(Origin { path, env }) = self.origin.clone() else {
            return Ok(());
        };
        let loaded = tokio::task::spawn_blocking(move || config::load_to_run(&path, &env)).await;
        match loaded {
            Ok(Ok(fresh)) => {
                if only_these {
                    self.take_over(&fresh, asked_for);
                } else {
                    self.take(fresh, asked_for);
                }
                Ok(())
            }
            Ok(Err(problems)) => {
                tracing::error!("the configuration is as before, for the file has problems: {problems}");
                Err(problems.to_string())
            }
            Err(_) => Err("the process is ending".to_owned()),
        }
    }

    /// The configuration that was read last, as its attendants take it.
    pub(super) fn in_force(&self) -> InForce {
        InForce {
            generation: self.generation,
            taken: self.posts.values().map(|post| post.taken.clone()).collect(),
        }
    }

    fn take(&mut self, mut fresh: Config, asked_for: &[String]) {
        for setting in needs_restart(&self.started_with, &fresh) {
            tracing::warn!("{setting} changed in the configuration: that needs a restart");
        }
        fresh.state_dir = self.state_dir();
        if fresh.log.level != self.config.log.level
            && let Some(relog) = &self.relog
        {
            relog(&fresh.log);
            tracing::info!(level = fresh.log.level, "the log's level changed");
        }
        let difference = Difference::between(&self.config, &fresh);
        self.config = fresh;
        self.generation += 1;
        for name in &difference.gone {
            if let Some(post) = self.posts.remove(name) {
                tracing::info!(connector = %name, "is not in the configuration any more: it ends, and its state stays");
                post.stop.cancel();
                self.desks.remove(name.as_str());
                self.board.remove(name);
                self.leaving.insert(name.clone());
            }
        }
        self.tell(asked_for);
        self.fill_posts();
        tracing::info!(
            added = difference.added,
            gone = difference.gone.len(),
            changed = difference.changed,
            unchanged = difference.unchanged,
            "the configuration was read again"
        );
    }

    /// Of a configuration that was read again, only what it says of these connectors.
    fn take_over(&mut self, fresh: &Config, names: &[String]) {
        for known in &mut self.config.connectors {
            let named = names.iter().any(|name| name == known.name.as_str());
            if let Some(one) = fresh.connectors.iter().find(|one| named && one.name == known.name) {
                known.clone_from(one);
            }
        }
        self.generation += 1;
        self.tell(names);
    }

    /// Tells each attendant what it goes by now. Those who are told by an order of their own find it when they carry that out.
    fn tell(&self, asked_for: &[String]) {
        let network = Arc::new(self.config.network.clone());
        let neighbourhood = Arc::new(Neighbourhood::of(&self.config));
        for config in &self.config.connectors {
            let Some(post) = self.posts.get(&config.name) else {
                continue;
            };
            let quietly = asked_for.iter().any(|name| name == config.name.as_str());
            let settings = Settings {
                config: config.clone(),
                network: Arc::clone(&network),
                neighbourhood: Arc::clone(&neighbourhood),
                generation: self.generation,
                wakes: asked_for.is_empty(),
            };
            post.settings.send_if_modified(|now| {
                *now = settings;
                !quietly
            });
        }
    }

    /// Attends whoever is configured and not attended.
    fn fill_posts(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        let state_dir = self.state_dir();
        let configured: BTreeSet<_> = self.config.connectors.iter().map(|one| one.name.clone()).collect();
        // Who is leaving may come back; and a connector that was removed has no further use for its mark once its section is gone.
        let known = |name: &ConnectorName| configured.contains(name) || self.leaving.contains(name);
        for name in state::drop_marks(&state_dir, known) {
            tracing::info!(connector = %name, "was removed, and is not in the configuration any more: nothing is left of it");
        }
        // Before any of the new ones runs.
        sync::note_tenants(&self.config);
        let new: Vec<_> = self
            .config
            .connectors
            .iter()
            .filter(|one| !self.posts.contains_key(&one.name) && !self.leaving.contains(&one.name))
            .cloned()
            .collect();
        let starting = new.len();
        let network = Arc::new(self.config.network.clone());
        let neighbourhood = Arc::new(Neighbourhood::of(&self.config));
        for config in new {
            let delay = start_delay(starting, config.poll_interval, fastrand::f64());
            let name = config.name.clone();
            let (settings, receiver) = watch::channel(Settings {
                config,
                network: Arc::clone(&network),
                neighbourhood: Arc::clone(&neighbourhood),
                generation: self.generation,
                wakes: false,
            });
            let stop = self.stop.child_token();
            let (board, reloads) = (self.board.clone(), self.reloads.clone());
            let (attendant, desk) = Attendant::new(receiver, state_dir.clone(), board, reloads, stop.clone());
            self.desks.add(name.as_str(), desk);
            let taken = attendant.taken();
            let task = self.tasks.spawn(attendant.attend(delay));
            self.names.insert(task.id(), name.clone());
            self.posts.insert(name, Post { settings, taken, stop });
        }
    }
}

/// How long one of so many connectors that start together waits. `roll` is a random number in 0..1.
fn start_delay(starting: usize, poll_interval: Duration, roll: f64) -> Duration {
    let others = u32::try_from(starting.saturating_sub(1)).unwrap_or(u32::MAX);
    APART.saturating_mul(others).min(poll_interval / 2).mul_f64(roll)
}

/// What changed that cannot change while the process runs.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    [
        ("state_dir", before.state_dir != after.state_dir),
        ("http.listen", before.http.listen != after.http.listen),
        ("http.password_file", before.http.password != after.http.password),
        ("http.hosts", before.http.hosts != after.http.hosts),
        ("log.format", before.log.format != after.log.format),
    ]
    .into_iter()
    .filter_map(|(setting, changed)| changed.then_some(setting))
    .collect()
}

/// How two configurations differ in their connectors.
#[derive(Debug, Default, PartialEq)]
struct Difference {
    added: usize,
    gone: Vec<ConnectorName>,
    changed: usize,
    unchanged: usize,
}

impl Difference {
    fn between(before: &Config, after: &Config) -> Self {
        let mut difference = Self::default();
        let old: BTreeMap<_, _> = before.connectors.iter().map(|one| (&one.name, one)).collect();
        for connector in &after.connectors {
            match old.get(&connector.name) {
                None => difference.added += 1,
                Some(old) if *old == connector && before.network == after.network => difference.unchanged += 1,
                Some(_) => difference.changed += 1,
            }
        }
        let stays = |name: &ConnectorName| after.connectors.iter().any(|one| one.name == *name);
        difference.gone = old.into_keys().filter(|name| !stays(name)).cloned().collect();
        difference
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        config::parse(text, Path::new("/"), Some(0o600), &BTreeMap::new()).unwrap()
    }

    fn connector(name: &str, settings: &str) -> String {
        format!(
            "[connectors.{name}]\n{settings}
             torq = {{ region = \"us\", client_id = \"a\", client_secret = \"bbbb\" }}
             jumpcloud = {{ region = \"us\", client_id = \"c\", client_secret = \"dddd\" }}\n"
        )
    }

    #[test]
    fn connectors_come_go_change_and_stay() {
        let before = config(&[connector("gone", ""), connector("same", ""), connector("other", "")].concat());
        let after = config(
            &[
                connector("new", ""),
                connector("same", ""),
                connector("other", "poll_interval = \"1h\""),
            ]
            .concat(),
        );
        let difference = Difference::between(&before, &after);
        assert_eq!(difference.gone, [ConnectorName::parse("gone").unwrap()]);
        assert_eq!((difference.added, difference.changed, difference.unchanged), (1, 1, 1));
        // A setting of the network is a setting of all.
        let slower = config(&["[network]\ntimeout = \"5m\"\n".to_owned(), connector("same", "")].concat());
        assert_eq!(Difference::between(&before, &slower).changed, 1);
    }

    #[test]
    fn a_thousand_connectors_do_not_start_together_and_one_does_not_wait() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert_eq!(start_delay(1, minutes(15), 0.9), Duration::ZERO);
        let of_thousand = |roll| start_delay(1000, minutes(15), roll).as_secs();
        assert_eq!((of_thousand(0.0), of_thousand(0.5), of_thousand(0.999)), (0, 24, 49));
        // Nobody misses half of an interval.
        assert_eq!(start_delay(1_000_000, minutes(1), 1.0), Duration::from_secs(30));
    }

    #[tokio::test]
    async fn the_task_of_a_connector_that_panics_or_returns_is_a_fault_and_one_that_was_told_to_end_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&connector("main", ""));
        config.state_dir = dir.path().to_owned();
        config.connectors.clear();
        let (reloads, _asked) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let mut crew = Crew::start(config, None, None, Board::new(), Desks::default(), reloads, stop);
        let ends = async |crew: &mut Crew, name: &str, task: fn()| {
            let task = crew.tasks.spawn(async move { task() });
            crew.names.insert(task.id(), ConnectorName::parse(name).unwrap());
            crew.next_ended().await.unwrap()
        };
        #[allow(clippy::panic)]
        let panicked = ends(&mut crew, "one", || panic!("a fault in a test")).await;
        assert!(matches!(panicked, Ended::Fault(name, how) if name.as_str() == "one" && how == "it panicked"));
        let returned = ends(&mut crew, "two", || {}).await;
        assert!(matches!(returned, Ended::Fault(name, how) if name.as_str() == "two" && how == "it returned"));
        crew.leaving.insert(ConnectorName::parse("three").unwrap());
        let left = ends(&mut crew, "three", || {}).await;
        assert!(matches!(left, Ended::Left(name) if name.as_str() == "three"));
    }

    #[test]
    fn a_secret_that_is_another_one_is_a_change() {
        let before = config(&connector("main", ""));
        let after = config(&connector("main", "").replace("bbbb", "BBBB"));
        assert_eq!(Difference::between(&before, &before).unchanged, 1);
        assert_eq!(Difference::between(&before, &after).changed, 1);
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let before = config(&connector("main", ""));
        let text = "state_dir = \"/elsewhere\"\n[http]\nlisten = \"off\"\nhosts = [\"a.example.com\"]\n[log]\nformat = \"json\"\nlevel = \"debug\"\n";
        let after = config(&[text.to_owned(), connector("main", "")].concat());
        assert_eq!(
            needs_restart(&before, &after),
            ["state_dir", "http.listen", "http.hosts", "log.format"]
        );
        assert!(needs_restart(&before, &before).is_empty());
    }
}
