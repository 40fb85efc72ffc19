//! Why a run did not come to its end, and what that means for the connector. What a person should do about it: `advice`.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::{self, Problem};
use crate::http::{Failure, FailureKind, Trouble};
use crate::model::Peer;
use crate::state::{Sql, StateError, Store};
use crate::view::{ConnectorState, RunOutcome};
use crate::wording;

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// The process is to stop.
    #[error("stopped")]
    Stopped,
    /// A peer is unreachable or fails; the next run tries again.
    #[error("{0}")]
    Unavailable(#[source] Failure),
    /// Credentials or permission are refused: polling stops until a person acts.
    #[error("{failure}")]
    Reconnect {
        /// What was refused.
        #[source]
        failure: Failure,
    },
    /// The file with a secret cannot be read, so nothing is sent: polling stops until it can be.
    #[error("{peer}: the {what} cannot be read: {problem}")]
    NoSecret {
        /// For whom it is.
        peer: Peer,
        /// What it is.
        what: &'static str,
        /// Why.
        #[source]
        problem: Problem,
    },
    /// The organisation has no SaaS Management licence.
    #[error("JumpCloud: the organisation has no licence for SaaS Management ({0})")]
    NotLicensed(#[source] Failure),
    /// The state cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Halt {
    /// What a failure means for the run, as far as the failure itself says it.
    pub fn of(failure: Failure) -> Self {
        match failure.kind {
            FailureKind::Stopped => Halt::Stopped,
            FailureKind::Unreachable | FailureKind::Later { .. } | FailureKind::Unintelligible => {
                Halt::Unavailable(failure)
            }
            FailureKind::License if failure.peer == Peer::JumpCloud => Halt::NotLicensed(failure),
            FailureKind::License
            | FailureKind::Credentials
            | FailureKind::Permission
            | FailureKind::NotOffered
            | FailureKind::NotFound
            | FailureKind::Conflict
            | FailureKind::Refused => Halt::Reconnect { failure },
        }
    }

    /// The same with what the configuration knows of a key that is refused: since when it is over.
    pub(super) fn explained(self, key_is_over: Option<String>) -> Self {
        match (self, key_is_over) {
            (Halt::Reconnect { mut failure }, Some(over))
                if failure.peer == Peer::Torq && failure.kind == FailureKind::Credentials =>
            {
                failure.detail = if failure.detail.is_empty() {
                    over
                } else {
                    format!("{} ({over})", failure.detail)
                };
                Halt::Reconnect { failure }
            }
            (halt, _) => halt,
        }
    }

    /// The peer that is unreachable or fails, if it is that.
    pub fn peer_away(&self) -> Option<Peer> {
        match self {
            Halt::Unavailable(failure) => Some(failure.peer),
            _ => None,
        }
    }

    /// For how long the peer that is away asked not to be asked, if it did.
    pub fn pause(&self) -> Option<Duration> {
        match self {
            Halt::Unavailable(failure) => match failure.kind {
                FailureKind::Later { after } => after,
                _ => None,
            },
            _ => None,
        }
    }

    /// How the run counts.
    pub fn outcome(&self) -> RunOutcome {
        match self {
            Halt::Stopped | Halt::Unavailable(_) | Halt::State(_) => RunOutcome::Failed,
            Halt::Reconnect { .. } | Halt::NoSecret { .. } | Halt::NotLicensed(_) => RunOutcome::Refused,
        }
    }

    /// Why nothing can be sent for a connector, if its configuration says so.
    pub(super) fn of_secrets(connector: &config::Connector) -> Option<Self> {
        connector.secrets().into_iter().find_map(|(peer, what, secret)| {
            let problem = secret.problem.clone()?;
            Some(Halt::NoSecret { peer, what, problem })
        })
    }

    /// Notes what the halt means as the connector's state. `trouble`: what is known of the peer that fails.
    pub(super) fn note(
        &self,
        store: &mut Store,
        now: Timestamp,
        action: Option<&str>,
        trouble: Option<Trouble>,
    ) -> Sql<()> {
        let state = match self {
            // As it was: a later process goes on.
            Halt::Stopped | Halt::State(_) => return Ok(()),
            Halt::Unavailable(_) => ConnectorState::Retrying,
            Halt::Reconnect { .. } | Halt::NoSecret { .. } => ConnectorState::ReconnectRequired,
            Halt::NotLicensed(_) => ConnectorState::NotLicensed,
        };
        let reason = self.to_string();
        if state == ConnectorState::Retrying {
            // What happened, and not that nobody was asked because of it.
            let (since, happened) = trouble.map_or((now, reason), |trouble| (trouble.since, trouble.reason));
            return note_retrying(store, now, happened, since, action);
        }
        store.note_state(now, state, Some(&reason), action)
    }
}

/// Notes that a peer does not answer as it should, since then at the latest: an earlier process may have met it before.
pub fn note_retrying(
    store: &mut Store,
    now: Timestamp,
    happened: String,
    since: Timestamp,
    action: Option<&str>,
) -> Sql<()> {
    let state = ConnectorState::Retrying;
    let since = store.state_since(state)?.map_or(since, |noted| noted.min(since));
    let reason = format!("{happened} (since {})", wording::moment(since));
    store.note_state(now, state, Some(&reason), action)
}
