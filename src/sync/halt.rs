//! Why a run did not come to its end, what that means for the connector, and what a person should do about it.

use jiff::Timestamp;

use crate::http::{Failure, FailureKind};
use crate::model::Peer;
use crate::state::{Sql, StateError, Store};
use crate::view::{ConnectorState, RunOutcome};

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
        /// What to do.
        action: String,
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
            FailureKind::License => Halt::NotLicensed(failure),
            FailureKind::Credentials
            | FailureKind::Permission
            | FailureKind::NotOffered
            | FailureKind::NotFound
            | FailureKind::Conflict
            | FailureKind::Refused => Halt::Reconnect {
                action: action(&failure),
                failure,
            },
        }
    }

    /// The same with what the configuration knows of a key that is refused: since when it is over.
    pub(super) fn explained(self, key_is_over: Option<String>) -> Self {
        match (self, key_is_over) {
            (Halt::Reconnect { mut failure, action }, Some(over))
                if failure.peer == Peer::Torq && failure.kind == FailureKind::Credentials =>
            {
                failure.detail = if failure.detail.is_empty() {
                    over
                } else {
                    format!("{} ({over})", failure.detail)
                };
                Halt::Reconnect { failure, action }
            }
            (halt, _) => halt,
        }
    }

    /// How the run counts.
    pub fn outcome(&self) -> RunOutcome {
        match self {
            Halt::Stopped | Halt::Unavailable(_) | Halt::State(_) => RunOutcome::Failed,
            Halt::Reconnect { .. } | Halt::NotLicensed(_) => RunOutcome::Refused,
        }
    }

    /// What a person should do; `None` when nothing.
    pub fn action(&self) -> Option<String> {
        match self {
            Halt::Reconnect { action, .. } => Some(action.clone()),
            Halt::NotLicensed(_) => Some(
                "add SaaS Management to the JumpCloud organisation, or check jumpcloud.org_id; it is tried again with every poll"
                    .to_owned(),
            ),
            Halt::Unavailable(_) => Some("nothing: it is tried again by itself".to_owned()),
            Halt::Stopped | Halt::State(_) => None,
        }
    }

    /// Notes what the halt means as the connector's state.
    pub(super) fn note(&self, store: &mut Store, now: Timestamp) -> Sql<()> {
        let state = match self {
            // As it was: a later process goes on.
            Halt::Stopped | Halt::State(_) => return Ok(()),
            Halt::Unavailable(_) => ConnectorState::Retrying,
            Halt::Reconnect { .. } => ConnectorState::ReconnectRequired,
            Halt::NotLicensed(_) => ConnectorState::NotLicensed,
        };
        let reason = self.to_string();
        store.note_state(now, state, Some(&reason), self.action().as_deref())
    }
}

/// What a person can do about a refusal.
fn action(failure: &Failure) -> String {
    match (failure.peer, failure.kind) {
        (Peer::Torq, FailureKind::Credentials) => {
            "make a new API key in Torq (a service key, with the scope user.read) and put its \
             client id and secret into the configuration, or extend the old one there; then: torq-connector reconnect"
                .to_owned()
        }
        (Peer::Torq, FailureKind::Permission) => {
            "give the role of the API key the scope user.read in Torq, then: torq-connector reconnect".to_owned()
        }
        (Peer::Torq, _) => {
            "check torq.region (or torq.api_url) in the configuration; torq-connector check says more".to_owned()
        }
        (Peer::JumpCloud, FailureKind::Credentials) => {
            "make a new client secret for the JumpCloud service account (or a new API \
             key), put it into the configuration, then: torq-connector reconnect"
                .to_owned()
        }
        (Peer::JumpCloud, FailureKind::Permission) => {
            "give the JumpCloud service account (or the administrator of the API key) a \
             role that may read the directory and manage SaaS Management, then: torq-connector reconnect"
                .to_owned()
        }
        (Peer::JumpCloud, _) => {
            "check jumpcloud.region, jumpcloud.org_id and jumpcloud.application in the configuration; \
             torq-connector check says more"
                .to_owned()
        }
    }
}
