//! One case: two workspaces and two organisations, a connector between two of them, and a history that happens to all of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use torq_connector::config::{self, MaxRemovals, Removals};
use torq_connector::http::Patience;
use torq_connector::model::Peer;
use torq_connector::sandbox::{
    Behaviour, Endpoint, Fault, FaultRule, Options, Person, RequestLog, Sandbox, WorldHandle,
};
use torq_connector::state::{self, Lock, State, Store};
use torq_connector::sync::{Connector, Halt, RunEnd};
use torq_connector::view::{AccountStanding, ConnectorStatus, EventView, RunOutcome, UserView};

use super::filters::filter;
use super::history::{Act, Change, Door, End, History, JUMPCLOUD_SECRET, Max, Meanwhile, Run, Step, TORQ_SECRET, What};
use super::model::{By, Made, Past, Span, View};
use crate::binary::eventually_or;
use crate::world::{fold, key_of};

/// After this long a run has hung. An empty workspace whose pages never end is given up after ten thousand of each listing, which takes
/// a busy machine minutes.
const DEADLINE: Duration = Duration::from_secs(300);

/// A few repetitions, and no sitting out.
const PATIENCE: Patience = Patience {
    attempts: Some(4),
    within: Duration::from_millis(400),
};

/// What is configured.
#[derive(Clone, Debug)]
pub struct Settings {
    pub torq: Door,
    pub organisation: usize,
    pub delete: bool,
    pub max: Max,
    pub filter: usize,
}

/// How a run went, as far as it can be said.
#[derive(Debug)]
pub struct Ran {
    /// `None` for one that was killed.
    pub end: Option<RunEnd>,
    /// Nothing went wrong that anybody had ordered for this run.
    pub undisturbed: bool,
}

pub struct Trial {
    pub towns: [Sandbox; 2],
    side_door: Sandbox,
    dir: tempfile::TempDir,
    base: config::Connector,
    network: config::Network,
    pub settings: Settings,
    /// The filter that the state was last told of; `None` when that is uncertain.
    pub filter_told: Option<usize>,
    pub paused: bool,
    state: Option<State>,
    connector: Option<Connector>,
    /// The state as somebody looks at it from outside, and its file: opened once, for that is what takes the time.
    reader: Option<Store>,
    file: Option<rusqlite::Connection>,
    pub past: Past,
    /// Who left each workspace, for those who return.
    pub gone: [Vec<Person>; 2],
    pub arrivals: usize,
    /// How far the events were looked at.
    events: i64,
    /// What the status said before the step.
    pub before: Option<ConnectorStatus>,
    /// What happened to a run in this step.
    pub ran: Option<Ran>,
    /// Something happens while a run is under way, whose creates may not have been answered yet.
    pub under_way: bool,
    /// Something is changed in JumpCloud that a process which began before need not know.
    pub unnoticed: bool,
    /// Which e-mails are refused, or fail.
    pub refused: Vec<String>,
    /// Whether a peer is disposed so that no run can be expected to be exact.
    pub moody: bool,
}

/// The options of a world without anybody.
pub fn options(seed: u64) -> Options {
    Options {
        seed,
        people: 0,
        torq_client_secret: TORQ_SECRET.to_owned(),
        jumpcloud_client_secret: JUMPCLOUD_SECRET.to_owned(),
        torq_rate: 0,
        jumpcloud_rate: 0,
        behaviour: Behaviour {
            torq_page_cap: 2,
            list_cap: 3,
            ..Behaviour::default()
        },
        ..Options::default()
    }
}

pub fn person(town: usize, number: usize, email: String, sso: bool) -> Person {
    Person {
        // In the order of their arrival, so that a history chooses the same people each time.
        id: format!("{town}000{number:04}-0000-4000-8000-000000000000"),
        sso_provision: sso,
        ..Person::with_email(&email)
    }
}

/// A world that is served, with people who arrived in their order.
pub async fn town(seed: u64, number: usize, people: usize) -> Sandbox {
    let sandbox = Sandbox::start(options(seed)).await.unwrap();
    for one in 0..people {
        let email = format!("P{one}@example.com");
        sandbox.world().add_person(person(number, one, email, one % 3 != 0));
    }
    sandbox
}

fn in_memory() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() {
        return tempfile::tempdir_in(shared).unwrap();
    }
    tempfile::tempdir().unwrap()
}

pub fn connector_between(torq: &Sandbox, jumpcloud: &Sandbox, dir: &Path) -> (config::Connector, config::Network) {
    let text = torq.config_toml(dir.to_str().unwrap(), "1m");
    let config = config::parse(&text, dir, Some(0o600), &BTreeMap::new()).unwrap();
    let mut connector = config.connectors[0].clone();
    connector.jumpcloud.console_url = jumpcloud.console_url().parse().unwrap();
    connector.jumpcloud.token_url = jumpcloud.jumpcloud_token_url().parse().unwrap();
    (connector, config.network)
}

impl Trial {
    pub async fn new(history: &History) -> Self {
        let towns = [town(11, 1, 6).await, town(12, 2, 4).await];
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let side_door = Sandbox::resume(nowhere, towns[0].world()).await.unwrap();
        for (town, known) in [(0, [0, 1, 2, 3]), (1, [0, 1, 2, 5])] {
            for one in known {
                towns[town].world().add_to_directory(&format!("p{one}@example.com"));
            }
        }
        let dir = in_memory();
        let (base, network) = connector_between(&towns[0], &towns[0], dir.path());
        let mut trial = Self {
            towns,
            side_door,
            dir,
            base,
            network,
            settings: Settings {
                torq: Door::Front,
                organisation: 0,
                delete: history.delete,
                max: Max::Users(history.max),
                filter: 0,
            },
            filter_told: Some(0),
            paused: false,
            state: None,
            connector: None,
            reader: None,
            file: None,
            past: Past::default(),
            gone: Default::default(),
            arrivals: 100,
            events: 0,
            before: None,
            ran: None,
            under_way: false,
            unnoticed: false,
            refused: Vec::new(),
            moody: false,
        };
        for world in trial.worlds() {
            world.behave(|behaviour| behaviour.accept_duplicates = history.duplicates);
        }
        if history.existing {
            for who in [0, 4] {
                trial.change(&Change::MakeAccount(who));
            }
        }
        trial
    }

    pub fn worlds(&self) -> [WorldHandle; 2] {
        [self.towns[0].world(), self.towns[1].world()]
    }

    /// Which workspace is configured.
    pub fn town(&self) -> usize {
        usize::from(self.settings.torq == Door::Other)
    }

    pub fn workspace(&self) -> WorldHandle {
        self.towns[self.town()].world()
    }

    pub fn organisation(&self) -> WorldHandle {
        self.towns[self.settings.organisation].world()
    }

    pub fn state_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    pub fn config(&self) -> config::Connector {
        let mut config = self.base.clone();
        let settings = &self.settings;
        let torq = match settings.torq {
            Door::Front => &self.towns[0],
            Door::Side => &self.side_door,
            Door::Other => &self.towns[1],
        };
        config.torq.api_url = torq.torq_api_url().parse().unwrap();
        config.torq.token_url = torq.torq_token_url().parse().unwrap();
        let jumpcloud = &self.towns[settings.organisation];
        config.jumpcloud.console_url = jumpcloud.console_url().parse().unwrap();
        config.jumpcloud.token_url = jumpcloud.jumpcloud_token_url().parse().unwrap();
        config.removals = if settings.delete {
            Removals::Delete
        } else {
            Removals::Report
        };
        config.max_removals = match settings.max {
            Max::Users(users) => MaxRemovals::Users(users),
            Max::Percent(percent) => MaxRemovals::Percent(percent),
        };
        config.users = filter(settings.filter);
        config
    }

    /// The state, held open as the daemon holds it; and the connector, as long as its configuration lasts.
    async fn process(&mut self) -> Connector {
        let config = self.config();
        if self.state.is_none() {
            self.state = Some(State::open(&self.state_dir(), &config.name).unwrap());
        }
        let state = self.state.clone().unwrap();
        self.connector.take().unwrap_or_else(|| {
            Connector::new(config.into(), &self.network, state, PATIENCE, CancellationToken::new())
                .unwrap()
                .at_rate(1e6)
                .settling_within(std::time::Duration::from_millis(1))
                .with_first_pause(Duration::from_millis(1))
        })
    }

    /// The state that is held open, if one is.
    pub fn open_state(&self) -> Option<State> {
        self.state.clone()
    }

    pub fn store(&mut self) -> Option<&mut Store> {
        if self.reader.is_none() {
            self.reader = state::read(&self.state_dir(), &self.base.name).unwrap();
        }
        self.reader.as_mut()
    }

    pub fn status(&mut self) -> Option<ConnectorStatus> {
        self.store().map(|store| store.status().unwrap())
    }

    /// Facts about the state that only its file tells: whether a poll is under way …
    fn poll_is_under_way(&mut self) -> bool {
        self.asks_file("SELECT EXISTS (SELECT 1 FROM poll)", "")
    }

    /// … and whether a create for this e-mail is noted as sent and not answered.
    pub fn intends(&mut self, email: &str) -> bool {
        let noted = "SELECT EXISTS (SELECT 1 FROM accounts WHERE email_key = ?1 AND intent_at IS NOT NULL)";
        self.asks_file(noted, email)
    }

    fn asks_file(&mut self, query: &str, about: &str) -> bool {
        let path = self.state_dir().join(format!("{}.db", self.base.name));
        if self.file.is_none() && path.exists() {
            self.file = Some(rusqlite::Connection::open(path).unwrap());
        }
        let Some(db) = &self.file else { return false };
        let Ok(mut statement) = db.prepare(query) else {
            return false;
        };
        let answer = match statement.parameter_count() {
            0 => statement.query_row([], |row| row.get(0)),
            _ => statement.query_row([about], |row| row.get(0)),
        };
        answer.unwrap_or(false)
    }

    /// One step.
    pub async fn happen(&mut self, step: &Step) {
        self.past.step += 1;
        self.ran = None;
        self.before = self.status();
        for world in self.worlds() {
            world.clear_requests();
        }
        match step {
            Step::Change(change) => self.change(change),
            Step::Mood(mood) => self.mood(mood),
            Step::Act(act) => self.act(act).await,
            Step::Run(_) if self.paused => {}
            Step::Run(run) => {
                let deadline = tokio::time::timeout(DEADLINE, self.run(run));
                self.ran = Some(deadline.await.expect("the run ends"));
            }
        }
        self.take_note();
    }

    async fn act(&mut self, act: &Act) {
        let configured = self.settings.clone();
        match act {
            Act::Approve => {
                drop(self.process().await);
                let state = self.state.clone().unwrap();
                self.approve(&state).await;
            }
            Act::Retry => self.retry().await,
            Act::Pause(paused) => {
                drop(self.process().await);
                let (state, paused) = (self.state.clone().unwrap(), *paused);
                state
                    .call(move |store| store.pause(Timestamp::now(), paused))
                    .await
                    .unwrap();
                self.paused = paused;
            }
            Act::Filter(filter) => {
                self.settings.filter = *filter;
                self.filter_told = None;
            }
            Act::Delete(delete) => self.settings.delete = *delete,
            Act::Max(max) => self.settings.max = *max,
            Act::Torq(door) => {
                self.settings.torq = *door;
                let view = View::of(&self.workspace().people());
                self.past.goes_on(&view);
            }
            Act::Organisation(organisation) => {
                self.unnoticed |= *organisation != configured.organisation;
                self.settings.organisation = *organisation;
            }
            Act::Restart => {}
            Act::Lose => {
                self.end_process().await;
                self.reader = None;
                self.file = None;
                std::fs::remove_dir_all(self.state_dir()).ok();
                self.past.forget();
                self.events = 0;
                self.before = None;
                self.paused = false;
                self.filter_told = None;
            }
        }
        if matches!(act, Act::Restart) {
            self.end_process().await;
        }
        // The next run is by the new configuration, in the same process.
        self.connector = None;
    }

    pub async fn end_process(&mut self) {
        self.connector = None;
        self.state = None;
        self.settle().await;
    }

    /// Waits until everything that was sent has had its effect, and what was being written is written.
    async fn settle(&self) {
        if self.state.is_none() {
            let free = async || match Lock::take(&self.state_dir(), &self.base.name) {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            eventually_or(DEADLINE, "the state is let go of", free).await;
        }
        for door in self.towns.iter().chain([&self.side_door]) {
            tokio::time::timeout(DEADLINE, door.quiet())
                .await
                .expect("connections end");
        }
    }

    /// A person looks at who is held, and approves.
    pub async fn approve(&mut self, state: &State) {
        let shown = |store: &mut Store| {
            let shown = (store.users()?, store.status()?.held);
            store.approve(Timestamp::now())?;
            Ok(shown)
        };
        let (users, held) = state.call(shown).await.unwrap();
        let shown: Vec<_> = users
            .into_iter()
            .filter(|user| user.account == AccountStanding::Held)
            .collect();
        self.past.approved.extend(shown.iter().map(|user| user.id.clone()));
        self.past
            .approved_emails
            .extend(shown.iter().map(|user| fold(&user.email)));
        if held as usize > shown.len() {
            // Accounts by themselves are shown in events.
            let store = self.store().unwrap();
            let events = store.events(&Default::default()).unwrap().into_iter();
            let alone = events
                .filter(|event| event.kind == torq_connector::view::EventKind::RemovalHeld && event.user_id.is_none());
            self.past.approved_emails.extend(alone.filter_map(|event| event.email));
        }
        if held > 0 {
            self.past.doubt = false;
        }
    }

    pub async fn retry(&mut self) {
        drop(self.process().await);
        let state = self.state.clone().unwrap();
        let retry = |store: &mut Store| {
            store.forget_not_offered()?;
            store.retry()
        };
        state.call(retry).await.unwrap();
    }

    pub async fn run(&mut self, order: &Run) -> Ran {
        let (workspace, organisation) = (self.workspace(), self.organisation());
        for fault in &order.faults {
            let rule = FaultRule {
                skip: fault.skip,
                times: Some(fault.times),
                ..FaultRule::always(fault.endpoint, fault.fault.clone())
            };
            let torq = matches!(
                fault.endpoint,
                Endpoint::TorqToken | Endpoint::TorqUsers | Endpoint::TorqRoles
            );
            if torq { &workspace } else { &organisation }.fault(rule);
        }
        let first = self.connector.is_none();
        let connector = self.process().await;
        let people = View::of(&workspace.people());
        match &mut self.past.span {
            Some(span) => span.goes_on(&people),
            None => self.past.span = Some(Span::begin(people)),
        }
        let end = match order.end {
            End::Killed(polls) => self.drive(killed_after(connector.run(), polls), &order.meanwhile).await,
            End::ByItself => {
                self.drive(async { Some(connector.run().await) }, &order.meanwhile)
                    .await
            }
            End::Stopped(endpoint, count) => {
                let run = async {
                    let stop = async {
                        worlds_seen(&[workspace.clone(), organisation.clone()], endpoint, count).await;
                        connector.stop();
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        end = connector.run() => Some(end),
                        () = stop => None,
                    }
                };
                self.drive(run, &order.meanwhile).await
            }
        };
        for world in self.worlds() {
            world.clear_faults();
        }
        let end = end.map(|end| end.expect("the state is in order"));
        self.past.killed |= end.as_ref().is_none_or(|end| matches!(end.halt, Some(Halt::Stopped)));
        // What is configured is noticed by the run, whatever becomes of it; one that was killed may have noticed it, or not.
        let before = self.past.door.take();
        if end.is_some() {
            self.past.doubt |= before.is_some_and(|before| before != self.settings.torq);
            self.past.door = Some(self.settings.torq);
        } else {
            self.past.door = before.filter(|before| *before == self.settings.torq);
        }
        if end.is_some() && !connector.is_stopped() {
            self.connector = Some(connector);
        } else {
            drop(connector);
        }
        if end.is_none() {
            self.state = None;
        }
        if end.is_none() || self.connector.is_none() {
            self.settle().await;
        }
        self.note_poll(end.as_ref());
        let finished = end
            .as_ref()
            .is_some_and(|end| matches!(end.outcome, RunOutcome::Done | RunOutcome::Partial));
        // A refusal is believed, though an order of ours made it up.
        let lies = order
            .faults
            .iter()
            .any(|order| matches!(order.fault, Fault::Status { status: 400..=428, .. }));
        if lies {
            self.unnoticed = true;
        } else if finished && first && order.meanwhile.is_none() {
            self.unnoticed = false;
        }
        self.filter_told = end.as_ref().and(Some(self.settings.filter));
        Ran {
            end,
            undisturbed: order.faults.is_empty() && order.meanwhile.is_none() && matches!(order.end, End::ByItself),
        }
    }

    /// Lets the run go on, and something happen meanwhile.
    async fn drive<T>(&mut self, run: impl Future<Output = T>, meanwhile: &Option<Meanwhile>) -> T {
        let mut run = pin!(run);
        if let Some(Meanwhile { endpoint, count, what }) = meanwhile {
            let worlds = [self.workspace(), self.organisation()];
            tokio::select! {
                biased;
                end = &mut run => return end,
                () = worlds_seen(&worlds, *endpoint, *count) => {}
            }
            match what {
                What::Change(change) => {
                    self.under_way = true;
                    self.change(change);
                    self.under_way = false;
                }
                What::Approve => {
                    if let Some(state) = self.state.clone() {
                        self.approve(&state).await;
                    }
                }
            }
        }
        run.await
    }

    /// Whether the poll of this run came to its end.
    fn note_poll(&mut self, end: Option<&RunEnd>) {
        let under_way = self.poll_is_under_way();
        let by = |halt: &Halt| match halt {
            Halt::Unavailable(failure) | Halt::NotLicensed(failure) => Some(failure.peer),
            Halt::Reconnect { failure, .. } => Some(failure.peer),
            // Without a secret nothing is asked of anybody.
            Halt::NoSecret { .. } | Halt::Stopped | Halt::State(_) => None,
        };
        match end.map(|end| end.halt.as_ref().map(by)) {
            // To its end, or ended by JumpCloud, which is asked after the poll.
            Some(None | Some(Some(Peer::JumpCloud))) => {
                assert!(!under_way);
                self.past.polled(true);
            }
            // Torq ended it: it goes on with the next run, or was given up.
            Some(Some(Some(Peer::Torq))) => {
                if !under_way {
                    self.past.span = None;
                }
            }
            Some(Some(None)) | None => {
                if !under_way {
                    self.past.polled(false);
                }
            }
        }
    }

    /// What was made in this step.
    fn take_note(&mut self) {
        for (organisation, world) in self.worlds().iter().enumerate() {
            let journal = world.requests();
            let first_create = position(&journal, Endpoint::AccountCreate);
            let first_list = position(&journal, Endpoint::Accounts);
            let listed_first = first_list.is_some_and(|list| first_create.is_some_and(|create| list < create));
            let finished = self
                .ran
                .as_ref()
                .and_then(|ran| ran.end.as_ref())
                .is_some_and(|end| end.halt.is_none());
            if listed_first || first_list.is_some() && finished {
                self.past.listed[organisation] = self.past.step;
            }
            for entry in journal.iter().filter(|entry| entry.endpoint == Endpoint::AccountCreate) {
                let answered = entry.fault.is_none() && entry.status.is_some_and(|status| status < 500);
                let email = entry
                    .body
                    .as_ref()
                    .and_then(|body| body["email"].as_str())
                    .unwrap_or_default();
                let application = entry.path.rsplit('/').nth(1).unwrap_or_default();
                if !answered {
                    let intent = (organisation, application.to_owned(), fold(email));
                    self.past.unanswered.insert(intent);
                }
            }
        }
        self.note_accounts();
    }

    /// What was made since this was last asked, and not by others, was made by the connector.
    pub fn note_accounts(&mut self) {
        for (organisation, world) in self.worlds().iter().enumerate() {
            for account in world.accounts() {
                let made = Made {
                    email: key_of(&account),
                    by: By::Us,
                    step: self.past.step,
                };
                self.past.made.entry((organisation, account.id)).or_insert(made);
            }
        }
    }

    /// Events since they were last looked at.
    pub fn fresh_events(&mut self) -> Vec<EventView> {
        let after = self.events;
        let Some(store) = self.store() else { return Vec::new() };
        let (events, newest) = store.events_after(after).unwrap();
        self.events = newest;
        events
    }

    pub fn users(&mut self) -> Vec<UserView> {
        self.store().map(|store| store.users().unwrap()).unwrap_or_default()
    }

    pub fn journals(&self) -> [Vec<RequestLog>; 2] {
        [self.towns[0].world().requests(), self.towns[1].world().requests()]
    }
}

fn position(journal: &[RequestLog], endpoint: Endpoint) -> Option<usize> {
    let took_effect = |entry: &RequestLog| entry.handled.is_some_and(|status| status < 300);
    journal
        .iter()
        .position(|entry| entry.endpoint == endpoint && took_effect(entry))
}

/// Resolves when one of the worlds was asked so often.
async fn worlds_seen(worlds: &[WorldHandle; 2], endpoint: Endpoint, count: usize) {
    tokio::select! {
        () = worlds[0].seen(endpoint, count) => {}
        () = worlds[1].seen(endpoint, count) => {}
    }
}

/// A future that is dropped after so many of its steps.
async fn killed_after<F: Future>(future: F, mut steps: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        if steps == 0 {
            return Poll::Ready(None);
        }
        steps -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}
