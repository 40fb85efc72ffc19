//! Telling a person what concerns them: a webhook, or a program of theirs. Once for each change, also across restarts; never a flood;
//! and never in the way of the work.
//!
//! ```text
//! state ──bearing──▶ decide ──▶ told + messages (state) ──▶ errand ──▶ webhook, command
//! ```
//!
//! | room | about |
//! | --- | --- |
//! | `decide` | what is news, and what was told already |
//! | `message` | what is said: it names nobody |
//! | `errand` | messages on their way: attempts, pauses, giving up |
//! | `webhook` | posting, signed |
//! | `command` | running a program |

mod command;
mod decide;
mod errand;
mod message;
mod webhook;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{self, Network};
use crate::model::ConnectorName;
use crate::state::{State, StateError};
use errand::Errand;

pub use decide::key_step;
pub use errand::{Tried, try_out};
pub use message::Message;

/// How often it is looked whether something is to be told: what changes with a run is looked at when the run ends.
const LOOK: Duration = Duration::from_secs(30);

/// What telling goes by.
#[derive(Clone, Debug)]
pub struct Brief {
    /// Where a person is told; `None`: nowhere.
    pub notify: Option<config::Notify>,
    /// How connections are made.
    pub network: Arc<Network>,
    /// Time from one poll to the next.
    pub poll_interval: Duration,
    /// When the Torq API key ends, as configured.
    pub key_expires: Option<Date>,
    /// Since when it may count that nothing succeeds: when a run of this process last did, or a person let it go on.
    pub quiet_since: Option<Instant>,
}

impl Brief {
    /// What the configuration says.
    pub fn of(config: &config::Connector, network: &Arc<Network>, quiet_since: Option<Instant>) -> Self {
        Self {
            notify: config.notify.clone(),
            network: Arc::clone(network),
            poll_interval: config.poll_interval,
            key_expires: config.torq.key_expires,
            quiet_since,
        }
    }
}

/// Who tells, for one connector, as long as its state is open. A change of the brief lets it look at once.
pub struct Herald {
    task: AbortOnDropHandle<()>,
}

impl Herald {
    /// Begins to tell.
    pub fn start(name: ConnectorName, state: State, brief: watch::Receiver<Brief>, stop: CancellationToken) -> Self {
        let task = tokio::spawn(attend(name, state, brief, stop));
        Self {
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Ends at once. What was on its way is sent again by whoever comes after it. Nothing holds on to the state any more then.
    pub async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn attend(name: ConnectorName, state: State, mut brief: watch::Receiver<Brief>, stop: CancellationToken) {
    let began = Instant::now();
    let mut errand = Errand::new(name.clone());
    let mut forgotten = false;
    loop {
        let now = brief.borrow_and_update().clone();
        let pass = async {
            if now.notify.is_none() {
                if !forgotten {
                    state.call(|store| store.forget_told()).await?;
                }
                return Ok(None);
            }
            let quiet = now.quiet_since.unwrap_or(began).elapsed();
            errand.pass(&state, &now, quiet).await.map(Some)
        };
        let passed = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            passed = pass => passed,
        };
        forgotten = now.notify.is_none();
        let wait = match passed {
            Ok(wait) => wait.map(|wait| wait.min(LOOK).min(now.poll_interval)),
            // Whoever opens the state again begins anew.
            Err(StateError::Removed { .. } | StateError::Displaced { .. } | StateError::Ending) => return,
            Err(error) => {
                tracing::debug!(connector = %name, %error, "nobody can be told anything for now");
                Some(LOOK)
            }
        };
        let pause = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = brief.changed() => if changed.is_err() { return },
            () = pause => {}
        }
    }
}

/// Tells what there is to be told after a command's run, once; what does not arrive is sent with the next one.
pub async fn tell_once(name: &ConnectorName, state: &State, brief: &Brief) {
    if brief.notify.is_none() {
        return;
    }
    let told = Errand::new(name.clone()).pass(state, brief, Duration::ZERO).await;
    if let Err(error) = told {
        tracing::warn!(connector = %name, %error, "nobody could be told anything");
    }
}
