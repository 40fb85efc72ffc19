//! Attending one connector: when it runs, what it waits for, and what becomes of a run while people ask for something.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::carry_out::approve;
use super::control::{Action, Answer, Reload, RunReport};
use super::crew::Settings;
use super::obstacle::{lasts, note, overlay_of, trouble};
use super::open::Opened;
use super::orders::{Desk, Order, Turn, Waiting};
use super::said::Said;
use super::schedule::Schedule;
use crate::config::{self, Network};
use crate::http::Patience;
use crate::model::ConnectorName;
use crate::notify::{Brief, Herald};
use crate::state::{About, State, StateError};
use crate::sync::{self, Connector, Halt, Neighbourhood};
use crate::view::{ConnectorState, RunOutcome};
use crate::web::{self, Board, Live, Overlay, Seat};
use crate::wording::{BY_ITSELF, moment};

/// How often a waiting connector looks whether something changed, and shows that it is alive.
pub(super) const LOOK: Duration = Duration::from_secs(10);

/// The task of one connector.
pub(super) struct Attendant {
    pub(super) config: config::Connector,
    pub(super) state_dir: PathBuf,
    pub(super) network: Arc<Network>,
    pub(super) neighbourhood: Arc<Neighbourhood>,
    /// The configuration that was read last, for this connector.
    pub(super) settings: watch::Receiver<Settings>,
    /// Which of them is in force here.
    generation: watch::Sender<u64>,
    board: Board,
    /// The state as it is on the board.
    seated: Option<State>,
    pub(super) live: watch::Sender<Live>,
    /// What whoever tells people goes by.
    brief: watch::Sender<Brief>,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Orders that came while a run was going on.
    pub(super) waiting: Waiting,
    pub(super) stop: CancellationToken,
    pub(super) schedule: Schedule,
    reloads: mpsc::Sender<Reload>,
    /// What keeps the connector from running at all, until it runs: a full disk, no certificate authorities.
    obstacle: Option<Overlay>,
    pub(super) said: Said,
    /// Whether somebody took the files of its state away while it was open.
    pub(super) displaced: bool,
    /// When a run of this process last came to its end.
    succeeded: Option<std::time::Instant>,
    /// When a person last let it go on.
    pub(super) resumed: Option<std::time::Instant>,
}

impl Attendant {
    pub(super) fn new(
        mut settings: watch::Receiver<Settings>,
        state_dir: PathBuf,
        board: Board,
        reloads: mpsc::Sender<Reload>,
        stop: CancellationToken,
    ) -> (Self, Desk) {
        let (desk, orders) = Desk::new();
        let first = settings.borrow_and_update().clone();
        let brief = watch::Sender::new(Brief::of(&first.config, &first.network, None));
        let mut attendant = Self {
            config: first.config,
            state_dir,
            network: first.network,
            neighbourhood: first.neighbourhood,
            settings,
            generation: watch::Sender::new(first.generation),
            board,
            seated: None,
            live: watch::Sender::new(Live::default()),
            brief,
            orders,
            waiting: Waiting::default(),
            stop,
            schedule: Schedule::beginning(Duration::ZERO),
            reloads,
            obstacle: None,
            said: Said::default(),
            displaced: false,
            succeeded: None,
            resumed: None,
        };
        // Seen from the first moment on, or the process would count as ready without it.
        attendant.sit(None);
        (attendant, desk)
    }

    pub(super) fn name(&self) -> &ConnectorName {
        &self.config.name
    }

    /// Attends the connector until it is told to stop.
    pub(super) async fn attend(mut self, delay: Duration) {
        self.schedule = Schedule::beginning(delay);
        while !self.stop.is_cancelled() {
            // Until its state is open, and while it is opened again: nobody else may hold on to the old one.
            self.sit(None);
            match self.open_state().await {
                Opened::State(state) => {
                    if let Ok(about) = state.call(|store| store.about()).await {
                        sync::note_readable(&self.config, &about);
                    }
                    // Another one, maybe, which knows nothing of a poll.
                    self.schedule.poll_next();
                    self.sit(Some(state.clone()));
                    let brief = self.brief.subscribe();
                    let herald = Herald::start(self.name().clone(), state.clone(), brief, self.stop.clone());
                    self.work(state).await;
                    herald.end().await;
                }
                Opened::Removed => self.stay_removed().await,
                Opened::Stopped => return,
            }
        }
    }

    /// Says the generation of the settings that it goes by.
    pub(super) fn taken(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Runs the connector until it is told to stop, or removed, or its state must be opened again.
    async fn work(&mut self, state: State) {
        let mut connector: Option<Connector> = None;
        while !self.stop.is_cancelled() {
            match self.step(&state, &mut connector).await {
                Ok(()) => {}
                Err(StateError::Removed { .. }) => return,
                Err(error @ StateError::Displaced { .. }) => {
                    let again = !self.says(&error);
                    self.displaced = true;
                    self.obstacle = Some(trouble(&error));
                    self.show(self.obstacle.clone());
                    self.schedule.go_now();
                    if again {
                        // Not a single run since the last time: whatever does that, it is not raced with.
                        self.pause_for(LOOK, false).await;
                    }
                    return;
                }
                Err(error) => {
                    // A full disk, a file that cannot be read: said plainly, once, and tried again. Nothing is lost that is not in
                    // Torq. The state stays open, so that what is known can be shown.
                    self.says(&error);
                    self.obstacle = Some(trouble(&error));
                    self.show(self.obstacle.clone());
                    connector = None;
                    self.schedule.try_again(self.config.poll_interval);
                    self.pause_for(LOOK, false).await;
                }
            }
        }
    }

    /// Waits for the next thing to do, and does it.
    async fn step(&mut self, state: &State, connector: &mut Option<Connector>) -> Result<(), StateError> {
        let about = state.call(|store| store.about()).await?;
        let removing = about.removing.is_some();
        if removing {
            // Here nobody is at it.
            state.call(|store| store.note_cut_removal(Timestamp::now())).await?;
        }
        let asks_person = about.state == ConnectorState::ReconnectRequired && connector.is_some();
        let resting = about.paused || asks_person || removing;
        // Between runs the state has the truth: what the last run met is noted there.
        self.live.send_replace(Live {
            overlay: self.obstacle.clone().or_else(|| self.awaited(&about)),
            next_poll: (!resting).then(|| self.schedule.next_poll()),
            succeeded: self.succeeded,
            beat: std::time::Instant::now(),
        });

        let turn = match self.waiting.next() {
            Some(turn) => Some(turn),
            None => {
                let look = Instant::now() + LOOK;
                let wake = if resting { look } else { look.min(self.schedule.wakes()) };
                let order = tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Ok(()),
                    order = self.orders.recv() => order,
                    Ok(()) = self.settings.changed() => {
                        let wakes = self.settings.borrow().wakes;
                        let changed = self.take_settings();
                        if changed {
                            // The next run is by the new configuration.
                            *connector = None;
                        }
                        // Who waits for a person tries at once; the others do not notice a configuration that is the same for them.
                        let tries = asks_person && (wakes || changed) && !about.paused && !removing;
                        if tries {
                            *connector = None;
                            return self.run(state, connector).await.map(drop);
                        }
                        return Ok(());
                    }
                    () = tokio::time::sleep_until(wake) => None,
                };
                order.map(Turn::alone)
            }
        };
        match turn {
            Some(Turn {
                order:
                    Order {
                        action: Action::PlanRemoval,
                        reply,
                    },
                ..
            }) => {
                if self.take_settings() {
                    *connector = None;
                }
                self.plan_removal(state, reply);
                Ok(())
            }
            Some(turn) => self.take(turn, state, connector).await,
            None if about.paused || removing => Ok(()),
            None if asks_person => {
                if self.secrets_changed() {
                    tracing::info!(connector = %self.name(), "a secret changed; trying again");
                    *connector = None;
                    self.read_section_again().await;
                    self.run(state, connector).await.map(drop)
                } else {
                    Ok(())
                }
            }
            None if self.schedule.is_due() => self.run(state, connector).await.map(drop),
            None => Ok(()),
        }
    }

    /// One run, while which orders are taken and the connector shows that it works.
    pub(super) async fn run(&mut self, state: &State, slot: &mut Option<Connector>) -> Result<RunReport, StateError> {
        if self.take_settings() {
            // Of an order that was refused before it could be carried out.
            *slot = None;
        }
        if self.secrets_changed() {
            // Rotated ahead of time: the old one need not fail first.
            tracing::info!(connector = %self.name(), "a secret changed; going on with the new one");
            *slot = None;
            self.read_section_again().await;
        }
        let name = self.name().clone();
        self.said.of_key(&name, &self.config.torq, Timestamp::now());
        let stop = self.stop.child_token();
        let connector = match slot.take() {
            Some(connector) => connector,
            None => {
                let config = Arc::new(self.config.clone());
                match Connector::new(config, &self.network, state.clone(), Patience::DAEMON, stop.clone()) {
                    Ok(connector) => connector,
                    Err(error) => {
                        tracing::error!(connector = %self.name(), "{error}");
                        self.obstacle = Some(Overlay {
                            state: ConnectorState::Retrying,
                            reason: Some(error.to_string()),
                            action: Some(format!("see the reason; {BY_ITSELF}")),
                        });
                        let status = state.call(|store| store.status()).await?;
                        self.schedule.try_again(self.config.poll_interval);
                        return Ok(RunReport::failed(status, error.to_string()));
                    }
                }
            }
        };
        self.obstacle = None;
        let began = std::time::Instant::now();
        let (mut again, mut noted, mut approved) = (false, false, false);
        let repeats = self.schedule.repeats();
        let end = {
            let run = async {
                match repeats {
                    Some(_) => connector.repeat_delivery().await,
                    None => connector.run().await,
                }
            };
            tokio::pin!(run);
            let mut beat = tokio::time::interval(Duration::from_secs(1));
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    end = &mut run => break end?,
                    _ = beat.tick() => {
                        let lasting = |trouble| lasts(&trouble, self.config.poll_interval);
                        if !noted && connector.trouble().is_some_and(lasting) {
                            // Should the process die, whoever looks then sees what it saw.
                            noted = true;
                            note(state, &connector).await?;
                        }
                        let live = Live {
                            overlay: overlay_of(&connector),
                            // A run that only delivers is none.
                            next_poll: repeats.map(|_| self.schedule.next_poll()),
                            succeeded: self.succeeded,
                            beat: connector.last_activity().max(began),
                        };
                        self.live.send_replace(live);
                    }
                    Ok(()) = self.settings.changed() => {
                        if self.take_settings() {
                            // Between two pages, or two accounts: the next run goes on from there, by what changed.
                            connector.stop();
                            again = true;
                        }
                    }
                    Some(order) = self.orders.recv() => {
                        if order.action == Action::PlanRemoval {
                            if self.take_settings() {
                                connector.stop();
                                again = true;
                            }
                            self.plan_removal(state, order.reply);
                            continue;
                        }
                        if let Action::Approve(terms) = order.action {
                            // Now: what this run is about to hold was not shown to whoever approves.
                            let answer = approve(state, terms, self.config.removals).await;
                            let _ = order.reply.send(answer.unwrap_or_else(|error| Answer::Refused(error.to_string())));
                            approved |= !terms.withdraw;
                            continue;
                        }
                        if matches!(order.action, Action::Pause | Action::Reconnect | Action::Remove(_)) {
                            // Between two pages, or two accounts: a later run goes on from there.
                            connector.stop();
                        }
                        if order.action == Action::Sync {
                            // This run may be waiting for what is mended by now.
                            connector.hurry();
                        }
                        self.waiting.push(order);
                    }
                }
            }
        };
        let name = self.name().clone();
        self.said.of_run(&name, &end);
        self.schedule
            .ended(repeats, end.halt.as_ref(), self.config.poll_interval);
        if matches!(end.outcome, RunOutcome::Done | RunOutcome::Partial) {
            self.succeeded = Some(std::time::Instant::now());
        }
        self.tell_herald();
        if approved && state.call(|store| store.approved()).await? > 0 {
            // This run may have looked at who is missing before.
            self.schedule.poll_next();
            again |= matches!(end.halt, None | Some(Halt::NotLicensed(_)));
        }
        if again {
            self.schedule.poll_now();
        }
        // A connector that was told to stop does not start again: its successor is built when it is needed.
        if !connector.is_stopped() {
            *slot = Some(connector);
        }
        Ok(RunReport::of(end))
    }

    /// When JumpCloud is asked again: what people are told comes next is the poll, which may be later, or earlier and without it.
    fn awaited(&self, about: &About) -> Option<Overlay> {
        let attempt = self.schedule.next_attempt()?;
        let before = about.action.as_ref()?.strip_suffix(BY_ITSELF)?;
        (about.state == ConnectorState::Retrying).then(|| Overlay {
            state: about.state,
            reason: about.reason.clone(),
            action: Some(format!("{before}JumpCloud is asked again at {}", moment(attempt))),
        })
    }

    /// Lets whoever tells people look at once, and go by what is so now.
    pub(super) fn tell_herald(&self) {
        let brief = Brief::of(&self.config, &self.network, self.succeeded.max(self.resumed));
        self.brief.send_replace(brief);
    }

    /// Shows the connector on the board, with its state where that is open.
    pub(super) fn sit(&mut self, state: Option<State>) {
        self.tell_herald();
        self.seated.clone_from(&state);
        self.board.seat(Seat {
            name: self.name().clone(),
            state,
            poll_interval: self.config.poll_interval,
            key_expires: self.config.torq.key_expires.and_then(end_of_day),
            settings: Arc::new(web::Settings::of(&self.config)),
            live: self.live.subscribe(),
        });
    }

    pub(super) fn show(&self, overlay: Option<Overlay>) {
        self.live.send_replace(Live {
            overlay,
            next_poll: None,
            succeeded: self.succeeded,
            beat: std::time::Instant::now(),
        });
    }

    /// Takes over the configuration that was read last. Whether anything in it is another one for this connector.
    pub(super) fn take_settings(&mut self) -> bool {
        let mut fresh = self.settings.borrow_and_update().clone();
        if fresh.generation == *self.generation.borrow() {
            return false;
        }
        self.generation.send_replace(fresh.generation);
        self.neighbourhood = fresh.neighbourhood;
        let name = self.name().clone();
        self.said.of_secrets(&name, &fresh.config);
        fresh.config.keep_secrets_of(&self.config);
        if fresh.config.notify != self.config.notify {
            // No reason to end a run: only those who tell people go by it.
            self.config.notify.clone_from(&fresh.config.notify);
            self.sit(self.seated.clone());
            tracing::info!(connector = %self.name(), "people are told as the changed configuration says");
        }
        if fresh.config == self.config && fresh.network == self.network {
            return false;
        }
        self.config = fresh.config;
        self.network = fresh.network;
        self.schedule.follow(self.config.poll_interval);
        self.sit(self.seated.clone());
        tracing::info!(connector = %self.name(), "goes on by the changed configuration");
        true
    }

    /// Reads this connector's section of the configuration again: a new secret often comes with a new client id.
    async fn read_section_again(&mut self) {
        let (done, read) = oneshot::channel();
        let reload = Reload {
            asked_for: vec![self.name().to_string()],
            only_these: true,
            done,
        };
        // What is wrong with the configuration is logged there; then it goes on by the former one, with the new secret.
        if self.reloads.send(reload).await.is_ok() && read.await.is_ok() {
            self.take_settings();
        }
    }

    /// Reads the secrets' files again. Whether one of them changed.
    fn secrets_changed(&mut self) -> bool {
        let reread = self.config.read_secrets_again();
        for problem in &reread.problems {
            tracing::debug!(connector = %self.name(), "{problem}");
        }
        reread.changed
    }
}

/// The last moment of a day. A key that expires on a day is good until it ends, as far as anybody says.
fn end_of_day(day: jiff::civil::Date) -> Option<Timestamp> {
    let next = day.tomorrow().ok()?.to_zoned_datetime(jiff::tz::TimeZone::UTC).ok()?;
    Some(next.timestamp())
}
