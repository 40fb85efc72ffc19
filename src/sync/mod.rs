//! A run: one poll and the delivery that follows it. The story of a user, from Torq's pages to JumpCloud's accounts.
//!
//! ```text
//! run() ─▶ collect: both listings, page by page, into the state
//!       ─▶ finish_poll: who is missing, who is removed, what is held (state)
//!       ─▶ deliver: application, adoption, directory, creates, associations, deletions
//! ```
//!
//! What a run does is decided from the state alone, so it can be cut short anywhere: the next one goes on.

mod advice;
mod application;
mod associate;
mod collect;
mod delete;
mod deliver;
mod drift;
mod dry_run;
mod halt;
mod learn;
mod neighbours;
mod notice;
mod prune;
mod remove;
mod settle;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{self, JumpCloudCredentials, Network};
use crate::http::{self, ClientError, FailureKind, Lane, Patience, Trouble};
use crate::jumpcloud::{self, JumpCloud};
use crate::metrics;
use crate::model::{ConnectorName, Peer};
use crate::oauth::{Auth, Session, TokenManager};
use crate::state::{RemovalRules, Sides, State, StateError};
use crate::torq::{self, Torq};
use crate::view::{ConnectorStatus, RunCounts, RunOutcome};

pub use advice::{Again, about_cause, again_by_itself};
pub use application::{forget_tenant, note_readable, note_tenants};
pub use drift::{Listed, list_accounts};
pub use halt::{Halt, note_retrying};
pub use neighbours::Neighbourhood;
use notice::KeyEnd;
pub use remove::{ApplicationFate, Obstacle, Removal, RemovalOutcome, RemovalPlan, RemovalTerms};
use settle::Settling;

/// How long an operation that JumpCloud does not offer is not tried again.
const NOT_OFFERED_AGE: SignedDuration = SignedDuration::from_hours(24);
/// By how much this machine's clock and Torq's may differ before nobody is removed: how many removals are believed is a matter of
/// hours.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(15);
/// How old the names of roles may grow.
const ROLES_AGE: SignedDuration = SignedDuration::from_hours(24);

/// What a run is doing, for a progress bar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// Reading Torq.
    Collecting {
        /// Different users seen so far.
        users: u64,
        /// Pages applied so far.
        pages: u64,
    },
    /// Reading what JumpCloud has.
    Adopting {
        /// Accounts read so far.
        accounts: u64,
    },
    /// Asking the directory.
    Matching {
        /// E-mails asked for so far.
        users: u64,
    },
    /// Writing to JumpCloud.
    Delivering {
        /// Accounts created, associated and deleted so far.
        writes: u64,
    },
}

/// How much of a run there is to do.
#[derive(Clone, Copy, Debug)]
enum Extent {
    PollAndDelivery,
    Delivery,
}

/// How a run ended.
#[derive(Debug)]
pub struct RunEnd {
    /// How.
    pub outcome: RunOutcome,
    /// Why it did not come to its end, if it did not.
    pub halt: Option<Halt>,
    /// What a person should do about that.
    pub action: Option<String>,
    /// What it changed.
    pub counts: RunCounts,
    /// The status afterwards.
    pub status: ConnectorStatus,
    /// Its number.
    run: i64,
}

impl RunEnd {
    /// Logs it. A command tells the same in its own words instead. `again`: that it was halted so is known, and no news.
    pub fn log(&self, connector: &ConnectorName, again: bool) {
        let run = self.run;
        match &self.halt {
            Some(halt) if again => tracing::debug!(%connector, run, outcome = self.outcome.as_str(), "{halt}"),
            Some(Halt::Stopped) => tracing::info!(%connector, run, "stopped; the next run goes on here"),
            Some(halt) => {
                tracing::error!(
                    %connector,
                    run,
                    outcome = self.outcome.as_str(),
                    action = self.action,
                    "{halt}"
                );
            }
            None => {
                let changed = self.counts != RunCounts::default();
                let RunCounts {
                    appeared,
                    changed: changes,
                    disappeared,
                    created,
                    found,
                    associated,
                    deleted,
                    refused,
                } = self.counts;
                let (users, pending) = (self.status.users, self.status.pending);
                let outcome = self.outcome.as_str();
                if changed {
                    tracing::info!(
                        %connector,
                        run,
                        outcome,
                        users,
                        appeared,
                        changes,
                        disappeared,
                        created,
                        found,
                        associated,
                        deleted,
                        refused,
                        pending,
                        "run ended"
                    );
                } else {
                    tracing::debug!(%connector, run, outcome, users, pending, "run ended; nothing changed");
                }
            }
        }
    }
}

/// A connector, ready to run: its configuration, its two peers, its state.
pub struct Connector {
    config: Arc<config::Connector>,
    torq: Torq,
    jumpcloud: JumpCloud,
    state: State,
    stop: CancellationToken,
    phase: watch::Sender<Phase>,
    again: Again,
    /// Whether JumpCloud's accounts were read since this process began, or since a person asked for it: knowledge grows old while
    /// nobody looks.
    reconciled: AtomicBool,
    settling: Settling,
    /// Whether it was said that this machine's clock is wrong.
    clock_doubted: AtomicBool,
}

impl Connector {
    /// Puts a connector together. Nothing is sent yet.
    pub fn new(
        config: Arc<config::Connector>,
        network: &Network,
        state: State,
        patience: Patience,
        stop: CancellationToken,
    ) -> Result<Self, ClientError> {
        let (torq, jumpcloud) = peers(&config, network, patience, &stop)?;
        Ok(Self {
            config,
            torq,
            jumpcloud,
            state,
            stop,
            phase: watch::Sender::new(Phase::Idle),
            // A command's patience ends, and with it the command.
            again: match patience.attempts {
                None => Again::ByItself,
                Some(_) => Again::Command("sync"),
            },
            reconciled: AtomicBool::new(false),
            settling: Settling {
                timeout: network.timeout,
                most: Duration::MAX,
            },
            clock_doubted: AtomicBool::new(false),
        })
    }

    /// The same, where a write that was not answered is known to take effect within so long, or never.
    #[must_use]
    pub fn settling_within(mut self, most: Duration) -> Self {
        self.settling.most = most;
        self
    }

    /// The same at another rate, in requests a second: for peers of which it is known what they bear, as in tests and benches.
    #[must_use]
    pub fn at_rate(self, rate: f64) -> Self {
        self.torq.session().lane().set_rate(rate);
        self.jumpcloud.session().lane().set_rate(rate);
        self
    }

    /// The same with this pause after a first failure, and further ones in proportion: for tests that let much fail.
    #[must_use]
    pub fn with_first_pause(self, pause: Duration) -> Self {
        self.torq.session().lane().set_first_pause(pause);
        self.jumpcloud.session().lane().set_first_pause(pause);
        self
    }

    /// Its name.
    pub fn name(&self) -> &ConnectorName {
        &self.config.name
    }

    /// Its configuration.
    pub fn config(&self) -> &config::Connector {
        &self.config
    }

    /// Its state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the run is doing.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Ends the run between two steps; this connector does not run again.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Cancelled when it is told to stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks at once where nothing but our own pause after a failure keeps us from it.
    pub fn hurry(&self) {
        self.torq.session().lane().hurry();
        self.jumpcloud.session().lane().hurry();
    }

    /// Whether it was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// When a request last was let out or answered: a run that works shows it here.
    pub fn last_activity(&self) -> Instant {
        let lanes = [self.torq.session().lane(), self.jumpcloud.session().lane()];
        lanes
            .map(Lane::last_activity)
            .into_iter()
            .max()
            .unwrap_or_else(Instant::now)
    }

    /// The peer that does not answer as it should, if one does not.
    pub fn trouble(&self) -> Option<Trouble> {
        let troubles = [Peer::Torq, Peer::JumpCloud].map(|peer| self.trouble_of(peer));
        troubles.into_iter().flatten().min_by_key(|trouble| trouble.since)
    }

    fn trouble_of(&self, peer: Peer) -> Option<Trouble> {
        match peer {
            Peer::Torq => self.torq.session().lane().trouble(),
            Peer::JumpCloud => self.jumpcloud.session().lane().trouble(),
        }
    }

    /// Lets the next run read anew what JumpCloud has, as a new process does: a person asks for today's knowledge.
    pub fn look_again(&self) {
        self.reconciled.store(false, Ordering::Relaxed);
    }

    /// One run: a poll and the delivery that follows it. Notes the state, the run and its events; never fails by itself.
    ///
    /// # Errors
    /// Only when the state cannot be read or written at all.
    pub async fn run(&self) -> Result<RunEnd, StateError> {
        self.run_to(Extent::PollAndDelivery).await
    }

    /// The same without a poll, for what the last one found and JumpCloud could not be told: while it is away, Torq need not be
    /// asked more often than on schedule.
    ///
    /// # Errors
    /// Only when the state cannot be read or written at all.
    pub async fn repeat_delivery(&self) -> Result<RunEnd, StateError> {
        self.run_to(Extent::Delivery).await
    }

    async fn run_to(&self, extent: Extent) -> Result<RunEnd, StateError> {
        let began = Instant::now();
        let name = self.name().to_string();
        let run = self.begin().await?;
        tracing::debug!(connector = %name, run, "run begins");
        let result = match extent {
            Extent::PollAndDelivery => self.poll_and_deliver(run).await,
            Extent::Delivery => self.deliver().await,
        };
        self.phase.send_replace(Phase::Idle);
        let (outcome, halt) = match result {
            Ok(()) => (None, None),
            Err(Halt::State(error)) => return Err(error),
            Err(halt) => (Some(halt.outcome()), Some(halt)),
        };
        let end = self.end(run, outcome, halt).await?;
        metrics::run_ended(&name, end.outcome, began.elapsed().as_secs_f64(), &end.counts);
        Ok(end)
    }

    async fn begin(&self) -> Result<i64, StateError> {
        let sides = Sides {
            torq: self.config.torq_fingerprint(),
            jumpcloud: self.config.jumpcloud_fingerprint(),
        };
        self.state
            .call(move |store| {
                let now = Timestamp::now();
                let run = store.begin_run(now)?;
                store.reconcile_sides(now, &sides)?;
                Ok(run)
            })
            .await
    }

    async fn poll_and_deliver(&self, run: i64) -> Result<(), Halt> {
        self.has_secrets()?;
        let collected = collect::collect(self).await?;
        if collected.removed + collected.held > 0 {
            tracing::info!(
                connector = %self.name(),
                run,
                removed = collected.removed,
                held = collected.held,
                "users are gone from Torq"
            );
        }
        self.read_roles().await?;
        deliver::deliver(self).await?;
        prune::prune(self).await
    }

    async fn deliver(&self) -> Result<(), Halt> {
        self.has_secrets()?;
        deliver::deliver(self).await
    }

    /// Nothing is sent without a secret whose file could not be read.
    fn has_secrets(&self) -> Result<(), Halt> {
        Halt::of_secrets(&self.config).map_or(Ok(()), Err)
    }

    /// What a person should do about a halt of this connector.
    pub fn action(&self, halt: &Halt) -> Option<String> {
        halt.action(&self.config, self.again)
    }

    /// Reads the names of the roles once a day, if the key may: a convenience, so nothing fails without them.
    async fn read_roles(&self) -> Result<(), Halt> {
        let now = Timestamp::now();
        let about = self.state.call(|store| store.about()).await?;
        if about.roles_read_at.is_some_and(|at| is_younger(at, now, ROLES_AGE)) {
            return Ok(());
        }
        let roles = match self.torq.roles().await {
            Ok(roles) => roles,
            Err(failure) => {
                tracing::debug!(connector = %self.name(), "no names for roles: {failure}");
                // A key that may not read them is asked again in a day, a peer that failed with the next run.
                if failure.is_temporary() || failure.kind == FailureKind::Stopped {
                    return Ok(());
                }
                Default::default()
            }
        };
        self.state.call(move |store| store.note_roles(now, &roles)).await?;
        Ok(())
    }

    async fn end(&self, run: i64, outcome: Option<RunOutcome>, halt: Option<Halt>) -> Result<RunEnd, StateError> {
        let name = self.name().clone();
        let now = Timestamp::now();
        let key = KeyEnd::near(&self.config.torq, now);
        let why = key.as_ref().and_then(KeyEnd::explains);
        let halt = halt.map(|halt| halt.explained(why));
        let todo = halt.as_ref().and_then(|halt| self.action(halt));
        let clock = self.clock_ahead().map(notice::of_clock);
        let config = Arc::clone(&self.config);
        let trouble = halt
            .as_ref()
            .and_then(Halt::peer_away)
            .and_then(|peer| self.trouble_of(peer));
        self.state
            .call(move |store| {
                let status = store.status()?;
                let about = store.about()?;
                let report_only = application::report_only(&about);
                let approved = store.approved()?;
                let unfinished = approved
                    + status.pending
                    + status.parked
                    + status.held
                    + status.associations_pending
                    + status.deletions_pending
                    > 0;
                let outcome = outcome.unwrap_or(if unfinished || report_only.is_some() {
                    RunOutcome::Partial
                } else {
                    RunOutcome::Done
                });
                let reason = halt.as_ref().map(ToString::to_string);
                let counts = store.end_run(now, outcome, reason.as_deref())?;
                match &halt {
                    Some(halt) => halt.note(store, now, todo.as_deref(), trouble)?,
                    None => {
                        let undone = notice::Undone {
                            approved,
                            unseen: if status.pending > 0 { store.pending_unseen()? } else { 0 },
                        };
                        let tenancy = application::tenancy_of(&config, &about);
                        let (state, notice) =
                            notice::of_end(&status, &about, report_only, &undone, &tenancy, name.as_str(), now);
                        let key = key.map(|key| key.notice(&name));
                        let nameless = match about.nameless {
                            true => Some(notice::of_nameless(approved, &name)),
                            false => None,
                        };
                        let (reason, action) = clock
                            .into_iter()
                            .chain(nameless)
                            .chain(notice)
                            .chain(key)
                            .reduce(notice::both)
                            .unzip();
                        store.note_state(now, state, reason.as_deref(), action.as_deref())?;
                    }
                }
                let status = store.status()?;
                Ok(RunEnd {
                    outcome,
                    halt,
                    action: todo,
                    counts,
                    status,
                    run,
                })
            })
            .await
    }

    fn rules(&self) -> RemovalRules {
        RemovalRules {
            removals: self.config.removals,
            max: self.config.max_removals,
        }
    }

    /// How far this machine's clock is ahead of Torq's, where they differ by too much.
    fn clock_ahead(&self) -> Option<SignedDuration> {
        let ahead = self.torq.session().lane().clock_ahead();
        ahead.filter(|ahead| ahead.abs() > CLOCKS_DIFFER)
    }

    /// Whether this machine's clock is so wrong that nobody may be removed: what happened in the last 24 hours is then not known.
    fn doubts_clock(&self) -> bool {
        let ahead = self.clock_ahead();
        let doubted = self.clock_doubted.swap(ahead.is_some(), Ordering::Relaxed);
        match ahead {
            Some(ahead) if !doubted => tracing::warn!(connector = %self.name(), "{}", notice::of_clock(ahead).0),
            None if doubted => tracing::info!(connector = %self.name(), "this machine's clock is right again"),
            _ => {}
        }
        ahead.is_some()
    }

    /// Ends a run between two steps when the process is to stop.
    fn go_on(&self) -> Result<(), Halt> {
        if self.stop.is_cancelled() {
            Err(Halt::Stopped)
        } else {
            Ok(())
        }
    }

    fn note_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    fn is_reconciled(&self) -> bool {
        self.reconciled.load(Ordering::Relaxed)
    }

    fn note_reconciled(&self) {
        self.reconciled.store(true, Ordering::Relaxed);
    }
}

/// The clients of both peers of a connector.
pub fn peers(
    config: &config::Connector,
    network: &Network,
    patience: Patience,
    stop: &CancellationToken,
) -> Result<(Torq, JumpCloud), ClientError> {
    let urls = [
        &config.torq.api_url,
        &config.torq.token_url,
        &config.jumpcloud.console_url,
        &config.jumpcloud.token_url,
    ];
    let client = http::Client::new(network, &urls)?;
    let lane = |peer, base, rate| {
        Lane::new(
            config.name.as_str(),
            (peer, base),
            client.clone(),
            network.timeout,
            rate,
            patience,
            stop.clone(),
        )
    };

    let to_torq = lane(Peer::Torq, &config.torq.api_url, torq::RATE);
    let tokens = TokenManager::torq(
        to_torq.clone(),
        config.torq.token_url.clone(),
        &config.torq.client_id,
        config.torq.client_secret.value.clone(),
    );
    let torq = Torq::new(Session::torq(to_torq, config.torq.api_url.clone(), tokens));

    let to_jumpcloud = lane(Peer::JumpCloud, &config.jumpcloud.console_url, jumpcloud::RATE);
    let auth = match &config.jumpcloud.credentials {
        JumpCloudCredentials::ServiceAccount {
            client_id,
            client_secret,
        } => Auth::Token(Box::new(TokenManager::jumpcloud(
            to_jumpcloud.clone(),
            config.jumpcloud.token_url.clone(),
            client_id,
            client_secret.value.clone(),
        ))),
        JumpCloudCredentials::ApiKey(key) => Auth::ApiKey(key.value.clone()),
    };
    let session = Session::jumpcloud(
        to_jumpcloud,
        config.jumpcloud.console_url.clone(),
        auth,
        config.jumpcloud.org_id.as_deref(),
    );
    Ok((torq, JumpCloud::new(session)))
}

/// Whether something noted at `at` is younger than `age`. What is noted in the future, by a clock that was ahead, counts as old.
fn is_younger(at: Timestamp, now: Timestamp, age: SignedDuration) -> bool {
    at <= now && now.duration_since(at) < age
}
