//! What the log was told of a connector, so that what lasts is said once.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::config;
use crate::model::{ConnectorName, Peer};
use crate::notify::key_step;
use crate::state::StateError;
use crate::sync::{Halt, RunEnd};
use crate::view::ConnectorState;

/// After so long it is said again that a peer is away.
const AGAIN: Duration = Duration::from_secs(3600);

/// What was said last.
#[derive(Default)]
pub(super) struct Said {
    /// Of a state that cannot be used; empty when it can.
    state: String,
    /// Which peer is away, and when that was said.
    away: Option<(Peer, Instant)>,
    /// What waits for a person: the state, and how many are held and parked.
    waits: Option<(ConnectorState, u64, u64)>,
    /// Which secrets cannot be read, and why.
    secrets: Vec<String>,
    /// At which of the days before its end the API key was warned of.
    key: Option<i32>,
}

impl Said {
    /// Says what is wrong with the state. Whether that is news.
    pub(super) fn of_state(&mut self, name: &ConnectorName, error: &StateError) -> bool {
        let words = error.to_string();
        let news = self.state != words;
        if news {
            tracing::error!(connector = %name, "{words}");
            self.state = words;
        }
        news
    }

    /// Says which secrets of a configuration that was read again cannot be read, unless that was said last.
    pub(super) fn of_secrets(&mut self, name: &ConnectorName, config: &config::Connector) {
        let problems = config.secrets().into_iter().filter_map(|(peer, what, secret)| {
            let problem = secret.problem.as_ref()?;
            Some(format!("{peer}: the {what} cannot be read: {problem}"))
        });
        let problems: Vec<_> = problems.collect();
        if self.secrets != problems {
            for problem in &problems {
                tracing::error!(connector = %name, "{problem}");
            }
            self.secrets = problems;
        }
    }

    /// Says how a run ended, and what it left for a person. That a peer is away is said once, and once an hour as long as that lasts.
    pub(super) fn of_run(&mut self, name: &ConnectorName, end: &RunEnd) {
        self.state.clear();
        let away = end.halt.as_ref().and_then(Halt::peer_away);
        let said = self.away.take();
        let again = said.filter(|(peer, at)| away == Some(*peer) && at.elapsed() < AGAIN);
        end.log(name, again.is_some());
        self.away = again.or_else(|| away.map(|peer| (peer, Instant::now())));
        if end.halt.is_none() {
            self.of_what_waits(name, end);
        }
    }

    /// Says what a run that came to its end left for a person to do, and when there is nothing any more.
    fn of_what_waits(&mut self, name: &ConnectorName, end: &RunEnd) {
        let status = &end.status;
        let asks = matches!(status.state, ConnectorState::Held | ConnectorState::ReportOnly) || status.parked > 0;
        let waits = asks.then_some((status.state, status.held, status.parked));
        if waits == self.waits {
            return;
        }
        match &waits {
            Some(_) => tracing::warn!(
                connector = %name,
                state = status.state.as_str(),
                action = status.action,
                "{}",
                status.reason.as_deref().unwrap_or("something waits for a person")
            ),
            None => tracing::info!(connector = %name, "nothing waits for a person any more"),
        }
        self.waits = waits;
    }

    /// Warns of the end of the API key, at each of the days at which that is due.
    pub(super) fn of_key(&mut self, name: &ConnectorName, torq: &config::Torq, now: Timestamp) {
        let (Some(expires), Some(days)) = (torq.key_expires, torq.key_days_left(now)) else {
            return;
        };
        let Some(step) = key_step(days).filter(|step| self.key != Some(*step)) else {
            return;
        };
        self.key = Some(step);
        if days < 0 {
            tracing::warn!(connector = %name, %expires, "the Torq API key has expired, says the configuration; make a new one, or extend it, and set key_expires");
        } else {
            tracing::warn!(connector = %name, %expires, days, "the Torq API key expires soon; extend it in Torq, or make a new one");
        }
    }
}
