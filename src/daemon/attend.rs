//! Attending one connector: when it runs, what it waits for, and what a person asks of it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Origin;
use super::control::{Action, Answer, RunReport};
use super::due::Due;
use crate::config::{self, JumpCloudCredentials, Network, Secret};
use crate::http::Patience;
use crate::model::ConnectorName;
use crate::state::{State, StateError};
use crate::sync::{Connector, Halt};
use crate::view::{ConnectorState, RunOutcome};
use crate::web::{Board, Live, Overlay, Seat};

/// How often a waiting connector looks whether something changed, and shows that it is alive.
const LOOK: Duration = Duration::from_secs(10);
/// How long after a run that failed the next one starts at the earliest; the schedule if that is sooner.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Days before the end of the API key at which its administrator is warned.
const KEY_WARNINGS: [i32; 4] = [14, 7, 3, 1];

/// Something asked of a connector, and where the answer goes.
pub(super) struct Order {
    pub(super) action: Action,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// Where orders for a connector are taken.
#[derive(Clone)]
pub(super) struct Desk(mpsc::Sender<Order>);

impl Desk {
    /// Passes an order on and waits for its answer; `None` when the daemon is stopping.
    pub(super) async fn ask(&self, action: Action) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Order { action, reply }).await.ok()?;
        answer.await.ok()
    }
}

/// The task of one connector.
pub(super) struct Attendant {
    config: config::Connector,
    state_dir: PathBuf,
    network: Arc<Network>,
    origin: Option<Origin>,
    board: Board,
    live: watch::Sender<Live>,
    orders: mpsc::Receiver<Order>,
    /// Orders that came while a run was going on.
    waiting: VecDeque<Order>,
    /// Changes when the operator asks for a reload (SIGHUP).
    reload: watch::Receiver<u64>,
    stop: CancellationToken,
    due: Due,
    /// What keeps the connector from running at all, until it runs: a full disk, no certificate authorities.
    obstacle: Option<Overlay>,
    /// What was said last about a state that cannot be used: it is not said again as long as it stays the same.
    said: String,
    warned_days: Option<i32>,
    /// When a run of this process last came to its end.
    succeeded: Option<std::time::Instant>,
}

impl Attendant {
    pub(super) fn new(
        config: config::Connector,
        state_dir: PathBuf,
        network: Arc<Network>,
        origin: Option<Origin>,
        board: Board,
        reload: watch::Receiver<u64>,
        stop: CancellationToken,
    ) -> (Self, Desk) {
        let (desk, orders) = mpsc::channel(16);
        let attendant = Self {
            config,
            state_dir,
            network,
            origin,
            board,
            live: watch::Sender::new(Live::default()),
            orders,
            waiting: VecDeque::new(),
            reload,
            stop,
            due: Due::after(Duration::ZERO),
            obstacle: None,
            said: String::new(),
            warned_days: None,
            succeeded: None,
        };
        (attendant, Desk(desk))
    }

    fn name(&self) -> &ConnectorName {
        &self.config.name
    }

    /// Attends the connector until the daemon stops.
    pub(super) async fn attend(mut self, delay: Duration) {
        self.due = Due::after(delay);
        while !self.stop.is_cancelled() {
            // Until its state is open, and while it is opened again: nobody else may hold on to the old one.
            self.sit(None);
            let Some(state) = self.open_state().await else { return };
            self.sit(Some(state.clone()));
            self.work(state).await;
        }
    }

    /// Runs the connector until the daemon stops, or its state must be opened again.
    async fn work(&mut self, state: State) {
        let mut connector: Option<Connector> = None;
        while !self.stop.is_cancelled() {
            match self.step(&state, &mut connector).await {
                Ok(()) => {}
                Err(error @ StateError::Displaced { .. }) => {
                    let again = !self.says(&error);
                    self.obstacle = Some(trouble(&error));
                    self.show(self.obstacle.clone());
                    self.due = Due::after(Duration::ZERO);
                    if again {
                        // Not a single run since the last time: whatever does that, it is not raced with.
                        self.pause_for(LOOK).await;
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
                    self.due = Due::after(AFTER_FAILURE);
                    self.pause_for(LOOK).await;
                }
            }
        }
    }

    /// Waits for the next thing to do, and does it.
    async fn step(&mut self, state: &State, connector: &mut Option<Connector>) -> Result<(), StateError> {
        let about = state.call(|store| store.about()).await?;
        let asks_person = about.state == ConnectorState::ReconnectRequired && connector.is_some();
        let resting = about.paused || asks_person;
        // Between runs the state has the truth: what the last run met is noted there.
        self.live.send_replace(Live {
            overlay: self.obstacle.clone(),
            next_poll: (!resting).then(|| self.due.told()),
            succeeded: self.succeeded,
            beat: std::time::Instant::now(),
        });

        let order = match self.waiting.pop_front() {
            Some(order) => Some(order),
            None => {
                let look = Instant::now() + LOOK;
                let wake = if resting { look } else { look.min(self.due.at) };
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Ok(()),
                    order = self.orders.recv() => order,
                    Ok(()) = self.reload.changed() => {
                        // The next run is by the new configuration; who waits for a person tries at once.
                        self.reload();
                        *connector = None;
                        self.sit(Some(state.clone()));
                        let sooner = Due::after(self.config.poll_interval);
                        if sooner.at < self.due.at {
                            self.due = sooner;
                        }
                        return if asks_person && !about.paused { self.run(state, connector).await.map(drop) } else { Ok(()) };
                    }
                    () = tokio::time::sleep_until(wake) => None,
                }
            }
        };
        match order {
            Some(Order { action, reply }) => {
                let result = self.carry_out(action, state, connector).await;
                let answer = match &result {
                    Ok(answer) => answer.clone(),
                    Err(error) => Answer::Refused(error.to_string()),
                };
                let _ = reply.send(answer);
                result.map(drop)
            }
            None if about.paused => Ok(()),
            None if asks_person => {
                if self.secrets_changed() {
                    tracing::info!(connector = %self.name(), "a secret changed; trying again");
                    *connector = None;
                    self.run(state, connector).await.map(drop)
                } else {
                    Ok(())
                }
            }
            None if self.due.is_now() => self.run(state, connector).await.map(drop),
            None => Ok(()),
        }
    }

    async fn carry_out(
        &mut self,
        action: Action,
        state: &State,
        connector: &mut Option<Connector>,
    ) -> Result<Answer, StateError> {
        if action == Action::Reconnect {
            self.reload();
            self.sit(Some(state.clone()));
            *connector = None;
            state.call(|store| store.forget_not_offered()).await?;
        }
        Ok(match action {
            Action::Sync | Action::Reconnect => {
                let about = state.call(|store| store.about()).await?;
                if about.paused {
                    Answer::Paused
                } else {
                    Answer::Ran(Box::new(self.run(state, connector).await?))
                }
            }
            Action::Pause => {
                state.call(|store| store.pause(true)).await?;
                Answer::Done(paused_words(self.name()))
            }
            Action::Resume => {
                state.call(|store| store.pause(false)).await?;
                self.due = Due::after(Duration::ZERO);
                Answer::Done("resumed; a run starts now".to_owned())
            }
            Action::Approve => {
                self.due = Due::after(Duration::ZERO);
                approve(state).await?
            }
            Action::Retry => {
                let retried = state
                    .call(|store| {
                        store.forget_not_offered()?;
                        store.retry()
                    })
                    .await?;
                self.due = Due::after(Duration::ZERO);
                Answer::Done(retried_words(retried))
            }
        })
    }

    /// One run, while which orders are taken and the connector shows that it works.
    async fn run(&mut self, state: &State, slot: &mut Option<Connector>) -> Result<RunReport, StateError> {
        self.warn_of_key();
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
                            action: Some("see the reason; it is tried again by itself".to_owned()),
                        });
                        let status = state.call(|store| store.status()).await?;
                        self.due = Due::after(AFTER_FAILURE.min(self.config.poll_interval));
                        return Ok(RunReport::failed(status, error.to_string()));
                    }
                }
            }
        };
        self.obstacle = None;
        let began = std::time::Instant::now();
        let end = {
            let run = connector.run();
            tokio::pin!(run);
            let mut beat = tokio::time::interval(Duration::from_secs(1));
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    end = &mut run => break end?,
                    _ = beat.tick() => {
                        let live = Live {
                            overlay: overlay_of(&connector),
                            next_poll: None,
                            succeeded: self.succeeded,
                            beat: connector.last_activity().max(began),
                        };
                        self.live.send_replace(live);
                    }
                    Some(order) = self.orders.recv() => {
                        if order.action == Action::Approve {
                            // Now: what this run is about to hold was not shown to whoever approves.
                            let answer = approve(state).await;
                            let _ = order.reply.send(answer.unwrap_or_else(|error| Answer::Refused(error.to_string())));
                            continue;
                        }
                        if matches!(order.action, Action::Pause | Action::Reconnect) {
                            // Between two pages, or two accounts: a later run goes on from there.
                            connector.stop();
                            // Before whatever waits already: that would be another run.
                            self.waiting.push_front(order);
                            continue;
                        }
                        self.waiting.push_back(order);
                    }
                }
            }
        };
        end.log(self.name());
        self.said.clear();
        if matches!(end.outcome, RunOutcome::Done | RunOutcome::Partial) {
            self.succeeded = Some(std::time::Instant::now());
        }
        self.due = self.next_due(&end.halt);
        // A connector that was told to stop does not start again: its successor is built when it is needed.
        if !connector.is_stopped() {
            *slot = Some(connector);
        }
        Ok(RunReport::of(end))
    }

    fn next_due(&self, halt: &Option<Halt>) -> Due {
        let interval = self.config.poll_interval;
        let wait = match halt {
            Some(Halt::Unavailable(_)) => interval.min(AFTER_FAILURE),
            _ => interval,
        };
        // A twentieth either way keeps a thousand connectors from falling into step.
        Due::after(wait.mul_f64(0.95 + fastrand::f64() / 10.0))
    }

    /// Opens the state. Until that succeeds the connector is shown as failing; everybody else goes on.
    async fn open_state(&mut self) -> Option<State> {
        loop {
            let (dir, name) = (self.state_dir.clone(), self.name().clone());
            let error = match tokio::task::spawn_blocking(move || State::open(&dir, &name)).await {
                Ok(Ok(state)) => return Some(state),
                Ok(Err(error)) => error,
                Err(_) => StateError::Ending,
            };
            self.says(&error);
            self.show(Some(trouble(&error)));
            self.pause_for(LOOK).await;
            if self.stop.is_cancelled() {
                return None;
            }
        }
    }

    /// Says what is wrong with the state, unless that was said last. Whether it was said now.
    fn says(&mut self, error: &StateError) -> bool {
        let words = error.to_string();
        let news = self.said != words;
        if news {
            tracing::error!(connector = %self.name(), "{words}");
            self.said = words;
        }
        news
    }

    /// Waits, answering whoever asks meanwhile that the connector cannot be worked with.
    async fn pause_for(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                Some(order) = self.orders.recv() => {
                    let reason = self.live.borrow().overlay.as_ref().and_then(|overlay| overlay.reason.clone());
                    let _ = order.reply.send(Answer::Refused(reason.unwrap_or_else(|| "its state cannot be used".to_owned())));
                }
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }

    fn sit(&self, state: Option<State>) {
        self.board.seat(Seat {
            name: self.name().clone(),
            state,
            poll_interval: self.config.poll_interval,
            live: self.live.subscribe(),
        });
    }

    fn show(&self, overlay: Option<Overlay>) {
        self.live.send_replace(Live {
            overlay,
            next_poll: None,
            succeeded: self.succeeded,
            beat: std::time::Instant::now(),
        });
    }

    /// Reads this connector's part of the configuration again; what cannot be read leaves everything as it is.
    fn reload(&mut self) {
        let Some(origin) = &self.origin else {
            self.secrets_changed();
            return;
        };
        match config::load(&origin.path, &origin.env) {
            Ok(fresh) => match fresh
                .connectors
                .into_iter()
                .find(|connector| connector.name == *self.name())
            {
                Some(fresh) => self.config = fresh,
                None => {
                    tracing::warn!(connector = %self.name(), "is not in the configuration file any more; going on as before")
                }
            },
            Err(problems) => {
                tracing::error!(connector = %self.name(), "the configuration is as before, for the file has problems: {problems}");
                self.secrets_changed();
            }
        }
    }

    /// Reads the secrets' files again. Whether one of them changed.
    fn secrets_changed(&mut self) -> bool {
        let mut changed = false;
        let mut look = |secret: &mut Secret| match secret.reload() {
            Ok(Some(fresh)) => {
                *secret = fresh;
                changed = true;
            }
            Ok(None) => {}
            Err(problem) => tracing::debug!("{problem}"),
        };
        look(&mut self.config.torq.client_secret);
        match &mut self.config.jumpcloud.credentials {
            JumpCloudCredentials::ServiceAccount { client_secret, .. } => look(client_secret),
            JumpCloudCredentials::ApiKey(key) => look(key),
        }
        changed
    }

    /// Warns of the end of the API key, once for each of the days at which that is due.
    fn warn_of_key(&mut self) {
        let Some(expires) = self.config.torq.key_expires else {
            return;
        };
        let today = Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
        let Ok(days) = today.until(expires).map(|span| span.get_days()) else {
            return;
        };
        let Some(step) = key_warning(days) else { return };
        if self.warned_days == Some(step) {
            return;
        }
        self.warned_days = Some(step);
        if days < 0 {
            tracing::warn!(connector = %self.name(), %expires, "the Torq API key has expired, says the configuration; make a new one, or extend it, and set key_expires");
        } else {
            tracing::warn!(connector = %self.name(), %expires, days, "the Torq API key expires soon; extend it in Torq, or make a new one");
        }
    }
}

/// Approves what is held at this moment.
async fn approve(state: &State) -> Result<Answer, StateError> {
    let approved = state.call(|store| store.approve(Timestamp::now())).await?;
    Ok(Answer::Done(approved_words(approved)))
}

/// The step of [`KEY_WARNINGS`] that so many days belong to; `None` when there is time.
fn key_warning(days: i32) -> Option<i32> {
    if days < 0 {
        return Some(-1);
    }
    KEY_WARNINGS.into_iter().rev().find(|step| days <= *step)
}

fn overlay_of(connector: &Connector) -> Option<Overlay> {
    let trouble = connector.trouble()?;
    Some(Overlay {
        state: ConnectorState::Retrying,
        reason: Some(format!("{} (since {:.0})", trouble.reason, trouble.since)),
        action: Some(format!(
            "nothing: {} is asked again at {:.0}",
            trouble.peer, trouble.next_attempt
        )),
    })
}

fn trouble(error: &StateError) -> Overlay {
    Overlay {
        state: ConnectorState::Retrying,
        reason: Some(error.to_string()),
        action: Some("see the reason; it is tried again by itself".to_owned()),
    }
}

/// What `pause` says.
pub fn paused_words(name: &ConnectorName) -> String {
    format!("paused; nothing is polled or delivered until: torq-connector resume {name}")
}

/// What `approve` says.
pub fn approved_words(approved: u64) -> String {
    match approved {
        0 => "nothing is held".to_owned(),
        1 => "1 removal approved; the next run carries it out".to_owned(),
        more => format!("{more} removals approved; the next run carries them out"),
    }
}

/// What `retry` says.
pub fn retried_words(retried: u64) -> String {
    match retried {
        0 => "nothing was parked; what JumpCloud does not offer is tried again by the next run".to_owned(),
        1 => "1 user is pending again; the next run delivers".to_owned(),
        more => format!("{more} users are pending again; the next run delivers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_warned_of_at_14_7_3_and_1_days_and_when_it_is_over() {
        assert_eq!(key_warning(15), None);
        assert_eq!(key_warning(14), Some(14));
        assert_eq!(key_warning(8), Some(14));
        assert_eq!(key_warning(7), Some(7));
        assert_eq!(key_warning(2), Some(3));
        assert_eq!(key_warning(0), Some(1));
        assert_eq!(key_warning(-4), Some(-1));
    }
}
