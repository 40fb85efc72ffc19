//! Messages on their way: attempts, pauses between them, and giving up after a day. A way that is blocked blocks no other.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::decide::{self, Ground};
use super::message::Message;
use super::{Brief, command, webhook};
use crate::config::{self, Network, Occasion};
use crate::metrics;
use crate::model::ConnectorName;
use crate::state::{Outgoing, State, StateError};

/// How long a message is tried.
const PATIENCE: SignedDuration = SignedDuration::from_hours(24);
/// The pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause, but for one that was asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

const WEBHOOK: &str = "webhook";
const COMMAND: &str = "command";

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// Why, for a person.
    pub(super) words: String,
    /// The pause that was asked for.
    pub(super) after: Option<Duration>,
    /// What it is.
    pub(super) why: Why,
}

/// What kind of failure it is, for whoever tries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody answered, or with a failure of its own: it may go well later.
    Unavailable,
    /// It was refused.
    Refused,
    /// It cannot work as it is configured.
    Misfit,
}

/// One of the two ways, and how it goes there.
struct Way {
    channel: &'static str,
    failures: u32,
    not_before: Instant,
}

impl Way {
    fn new(channel: &'static str) -> Self {
        Self {
            channel,
            failures: 0,
            not_before: Instant::now(),
        }
    }

    /// Sends what is on this way, oldest first, up to the first that fails. Returns which have arrived.
    async fn send(&mut self, name: &ConnectorName, brief: &Brief, waiting: &[Outgoing]) -> Vec<String> {
        let mut arrived = Vec::new();
        for one in waiting.iter().filter(|one| one.channel == self.channel) {
            if Instant::now() < self.not_before {
                break;
            }
            let Ok(message) = serde_json::from_str::<Message>(&one.body) else {
                // Of another version, which has other messages.
                arrived.push(one.id.clone());
                continue;
            };
            match deliver(self.channel, brief, &message).await {
                Ok(_) => {
                    metrics::notification(name.as_str(), "delivered");
                    tracing::info!(connector = %name, event = message.event.as_str(), way = self.channel, "a person was told");
                    self.failures = 0;
                    arrived.push(one.id.clone());
                }
                Err(failed) => {
                    metrics::notification(name.as_str(), "failed");
                    self.falter(name, &failed);
                    break;
                }
            }
        }
        arrived
    }

    /// Said once, until something arrives again.
    fn falter(&mut self, name: &ConnectorName, failed: &Failed) {
        let (way, words) = (self.channel, &failed.words);
        if self.failures == 0 {
            tracing::warn!(connector = %name, way, "nobody could be told: {words}; it is tried again for a day");
        } else {
            tracing::debug!(connector = %name, way, failures = self.failures, "nobody could be told: {words}");
        }
        let doubled = FIRST_PAUSE * 2_u32.pow(self.failures.min(10));
        let pause = doubled.min(LONGEST_PAUSE).mul_f64(0.75 + fastrand::f64() / 2.0);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + failed.after.map_or(pause, |after| after.max(pause));
    }
}

/// What is told for one connector, from pass to pass.
pub(super) struct Errand {
    name: ConnectorName,
    webhook: Way,
    command: Way,
}

impl Errand {
    pub(super) fn new(name: ConnectorName) -> Self {
        Self {
            name,
            webhook: Way::new(WEBHOOK),
            command: Way::new(COMMAND),
        }
    }

    /// Decides what is news, and sends what is on its way. Returns how long the next attempt is off. `quiet`: for how long nothing
    /// succeeded, by the monotonic clock.
    pub(super) async fn pass(&mut self, state: &State, brief: &Brief, quiet: Duration) -> Result<Duration, StateError> {
        let Some(notify) = &brief.notify else {
            return Ok(Duration::MAX);
        };
        metrics::notifications_begin(self.name.as_str());
        let waiting = decide_all(&self.name, state, brief, notify, quiet).await?;
        let mut kept = Vec::new();
        for one in waiting {
            let known = match one.channel.as_str() {
                WEBHOOK => notify.webhook.is_some(),
                _ => notify.command.is_some(),
            };
            let old = Timestamp::now().duration_since(one.at) > PATIENCE;
            if known && !old {
                kept.push(one);
                continue;
            }
            if known {
                metrics::notification(self.name.as_str(), "given_up");
                tracing::warn!(connector = %self.name, way = one.channel, "a message could not be delivered for a day, and is given up");
            }
            state
                .call(move |store| store.drop_message(&one.id, &one.channel))
                .await?;
        }
        let (name, webhook, command) = (&self.name, &mut self.webhook, &mut self.command);
        let (by_webhook, by_command) = tokio::join!(webhook.send(name, brief, &kept), command.send(name, brief, &kept));
        let mut left = kept;
        for (channel, ids) in [(WEBHOOK, by_webhook), (COMMAND, by_command)] {
            left.retain(|one| one.channel != channel || !ids.contains(&one.id));
            for id in ids {
                state.call(move |store| store.drop_message(&id, channel)).await?;
            }
        }
        let next = [&self.webhook, &self.command]
            .into_iter()
            .filter(|way| left.iter().any(|one| one.channel == way.channel))
            .map(|way| way.not_before.saturating_duration_since(Instant::now()))
            .min();
        Ok(next.unwrap_or(Duration::MAX))
    }
}

/// Notes what is told from now on. Returns all that is on its way.
async fn decide_all(
    name: &ConnectorName,
    state: &State,
    brief: &Brief,
    notify: &config::Notify,
    quiet: Duration,
) -> Result<Vec<Outgoing>, StateError> {
    let (name, interval, key_expires) = (name.clone(), brief.poll_interval, brief.key_expires);
    let occasions = notify.occasions.clone();
    let mut channels = Vec::new();
    channels.extend(notify.webhook.as_ref().map(|_| WEBHOOK));
    channels.extend(notify.command.as_ref().map(|_| COMMAND));
    state
        .call(move |store| {
            let now = Timestamp::now();
            let bearing = store.bearing()?;
            let key = key_expires.and_then(|day| Some((day, config::days_left(day, now)?)));
            let ground = Ground {
                now,
                name: name.as_str(),
                occasions: &occasions,
                bearing: &bearing,
                key,
                silence: decide::silence(&bearing, now, interval, quiet),
            };
            if let Some((told, messages)) = decide::decide(&ground, &store.told()?) {
                let outgoing: Vec<_> = messages
                    .iter()
                    .flat_map(|message| channels.iter().map(move |channel| (message, channel)))
                    .map(|(message, channel)| Outgoing {
                        id: message.id.clone(),
                        channel: (*channel).to_owned(),
                        at: now,
                        body: message.json(),
                    })
                    .collect();
                store.note_told(&told, &outgoing)?;
            }
            store.outgoing()
        })
        .await
}

/// One attempt. Returns what came back.
async fn deliver(channel: &str, brief: &Brief, message: &Message) -> Result<String, Failed> {
    let misfit = |words: &str| Failed {
        words: words.to_owned(),
        after: None,
        why: Why::Misfit,
    };
    let notify = brief.notify.as_ref().ok_or_else(|| misfit("nobody is to be told"))?;
    match channel {
        WEBHOOK => {
            let webhook = notify.webhook.as_ref().ok_or_else(|| misfit("there is no webhook"))?;
            webhook::post(webhook, &brief.network, message).await
        }
        _ => {
            let argv = notify.command.as_ref().ok_or_else(|| misfit("there is no command"))?;
            command::run(argv, message, command::PATIENCE).await
        }
    }
}

/// What came of trying out a way.
#[derive(Debug)]
pub struct Tried {
    /// Where to, for a person.
    pub to: String,
    /// What came back, or why nothing was told.
    pub result: Result<String, String>,
    /// Whether it may go well later.
    pub temporary: bool,
    /// Whether it cannot work as it is configured.
    pub misfit: bool,
}

/// Sends a test message by each way, once.
pub async fn try_out(connector: &config::Connector, network: &Arc<Network>) -> Vec<Tried> {
    let brief = Brief::of(connector, network, None);
    let Some(notify) = &brief.notify else {
        return Vec::new();
    };
    let text = "this is a test";
    let message = Message::new(connector.name.as_str(), Occasion::Test, Timestamp::now(), text)
        .because(Some("somebody tries out whether messages arrive"))
        .advising(Some("nothing"));
    let mut ways = Vec::new();
    if let Some(webhook) = &notify.webhook {
        ways.push((WEBHOOK, format!("webhook at {}", webhook.url.host())));
    }
    if let Some(program) = notify.command.as_ref().and_then(|argv| argv.first()) {
        ways.push((COMMAND, format!("command {}", Path::new(program).display())));
    }
    let mut tried = Vec::new();
    for (channel, to) in ways {
        let result = deliver(channel, &brief, &message).await;
        let why = result.as_ref().err().map(|failed| failed.why);
        tried.push(Tried {
            to,
            temporary: why == Some(Why::Unavailable),
            misfit: why == Some(Why::Misfit),
            result: result.map_err(|failed| failed.words),
        });
    }
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_quarter_of_an_hour_and_longer_only_where_that_is_asked_for() {
        let name = ConnectorName::parse("main").unwrap();
        let mut way = Way::new(WEBHOOK);
        let mut pauses = Vec::new();
        for after in [None, None, None, Some(Duration::from_secs(3600)), None] {
            let failed = Failed {
                words: String::new(),
                after,
                why: Why::Unavailable,
            };
            way.falter(&name, &failed);
            pauses.push(way.not_before.saturating_duration_since(Instant::now()).as_secs());
        }
        for _ in 0..100 {
            let failed = Failed {
                words: String::new(),
                after: None,
                why: Why::Refused,
            };
            way.falter(&name, &failed);
        }
        pauses.push(way.not_before.saturating_duration_since(Instant::now()).as_secs());
        let within = [3..=7, 7..=13, 14..=25, 3500..=3600, 59..=100, 670..=1125];
        for (pause, within) in pauses.iter().zip(&within) {
            assert!(within.contains(pause), "{pauses:?}");
        }
    }
}
