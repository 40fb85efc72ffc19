//! The way to one peer: requests in their turn, repeated while that can help, and what is known of the peer's troubles.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::pace::Pace;
use super::{Cause, Client, Failure, FailureKind, backoff};
use crate::metrics;
use crate::model::Peer;

/// A trouble that comes and goes is said no more often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Failures in a row, with no answer in between, after which a peer counts as down.
const DOWN_AFTER: u32 = 5;

/// A peer that does not answer as it should, as long as that lasts.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Who.
    pub peer: Peer,
    /// Since the first failed request.
    pub since: Timestamp,
    /// When the next request goes out.
    pub next_attempt: Timestamp,
    /// What happened last, for a person.
    pub reason: String,
    /// Failures in a row.
    pub failures: u32,
    /// What that is, as far as it is known.
    pub cause: Cause,
    /// Whether it was said.
    said: bool,
}

/// How long to go on with a request that fails for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Attempts for each request, as long as nothing else gets through either; `None`: no limit.
    pub attempts: Option<u32>,
    /// Time for each request, its waits included.
    pub within: Duration,
}

impl Patience {
    /// What a command grants a request: then it ends, and says so.
    pub const COMMAND: Patience = Patience {
        attempts: Some(5),
        within: Duration::from_secs(60),
    };
    /// What the daemon grants a request before it goes back to its schedule, where it tries again.
    pub const DAEMON: Patience = Patience {
        attempts: None,
        within: Duration::from_secs(600),
    };
}

/// The way to one peer, for one connector: its pace, its pauses, its troubles. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Lane {
    pub(super) inner: Arc<LaneInner>,
}

pub(super) struct LaneInner {
    /// Whose way it is, for the log.
    pub(super) connector: String,
    pub(super) peer: Peer,
    pub(super) client: Client,
    pub(super) timeout: Duration,
    patience: Patience,
    pace: Mutex<Pace>,
    /// The pause after a first failure.
    first_pause: Mutex<Duration>,
    /// What all connectors of this process together may send to this address.
    road: Arc<Mutex<Pace>>,
    trouble: Mutex<Option<Trouble>>,
    /// When it was last said that a trouble began: one that comes and goes is said once a minute.
    said: Mutex<Option<Instant>>,
    stop: CancellationToken,
    /// How far our clock is ahead of the peer's, as its last answer said.
    pub(super) clock: Mutex<Option<SignedDuration>>,
    /// When a request was last let out, answered, or knowingly put off.
    activity: Mutex<std::time::Instant>,
    /// Wakes those who wait for the end of a pause that is over sooner.
    hurried: Notify,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane({})", self.inner.peer)
    }
}

impl Lane {
    /// A lane to `peer` at `base` that sends at most `rate` requests a second and gives up when `stop` is cancelled.
    ///
    /// `connector`: whose it is, for the log.
    ///
    /// JumpCloud blocks the *address* that sends too much, whichever organisation it is for, so lanes of one process to the same
    /// JumpCloud share the road. Torq's limit is the workspace's, so there each lane has a road of its own.
    pub fn new(
        connector: &str,
        (peer, base): (Peer, &Url),
        client: Client,
        timeout: Duration,
        rate: f64,
        patience: Patience,
        stop: CancellationToken,
    ) -> Self {
        Self {
            inner: Arc::new(LaneInner {
                connector: connector.to_owned(),
                peer,
                client,
                timeout,
                patience,
                pace: Mutex::new(Pace::new(rate, Instant::now())),
                first_pause: Mutex::new(backoff::FIRST),
                road: match peer {
                    Peer::JumpCloud => shared_road(base, rate),
                    Peer::Torq => Arc::new(Mutex::new(Pace::new(rate, Instant::now()))),
                },
                trouble: Mutex::new(None),
                said: Mutex::new(None),
                stop,
                clock: Mutex::new(None),
                activity: Mutex::new(std::time::Instant::now()),
                hurried: Notify::new(),
            }),
        }
    }

    /// Lets at most `rate` requests out a second from now on.
    pub fn set_rate(&self, rate: f64) {
        for pace in [&self.inner.pace, &*self.inner.road] {
            *lock(pace) = Pace::new(rate, Instant::now());
        }
    }

    /// How long it goes on with a request that fails for now.
    pub fn patience(&self) -> Patience {
        self.inner.patience
    }

    /// Pauses so long after a first failure from now on, and as much longer as ever after further ones.
    pub fn set_first_pause(&self, pause: Duration) {
        *lock(&self.inner.first_pause) = pause;
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.inner.peer
    }

    /// When a request was last let out, answered, or knowingly put off, or when it will be its turn: never long ago while
    /// somebody works here.
    pub fn last_activity(&self) -> std::time::Instant {
        let waits = self.paused_until() > Instant::now();
        if waits {
            std::time::Instant::now()
        } else {
            *lock(&self.inner.activity)
        }
    }

    fn note_activity(&self) {
        self.note_activity_at(Instant::now());
    }

    fn note_activity_at(&self, at: Instant) {
        let mut activity = lock(&self.inner.activity);
        *activity = at.into_std().max(*activity);
    }

    /// Asks at once where nothing but our own pause after a failure keeps us from it: somebody has mended it, maybe.
    pub fn hurry(&self) {
        let ended = lock(&self.inner.pace).hurry(Instant::now());
        if ended {
            self.inner.hurried.notify_waiters();
        }
    }

    /// How far our clock is ahead of the peer's, as its last answer that spoke of the time said.
    pub fn clock_ahead(&self) -> Option<SignedDuration> {
        *lock(&self.inner.clock)
    }

    /// The trouble with this peer, if there is any now.
    pub fn trouble(&self) -> Option<Trouble> {
        lock(&self.inner.trouble).clone()
    }

    /// Whether it is the peer that fails, and not one item: so many failures with no answer in between, or a pause that it
    /// asked for and that is longer than our patience.
    pub fn is_down(&self) -> bool {
        let pause = self.paused_until().saturating_duration_since(Instant::now());
        self.failures() >= DOWN_AFTER || pause > self.inner.patience.within
    }

    /// Failures in a row: above 0 while the peer does not answer as it should.
    pub fn failures(&self) -> u32 {
        lock(&self.inner.pace).failures()
    }

    /// Repeats `attempt` until it succeeds, fails for good, or patience ends. Only for what may be repeated.
    pub async fn persist<T, A, F>(&self, operation: &'static str, attempt: A) -> Result<T, Failure>
    where
        A: Fn() -> F,
        F: Future<Output = Result<T, Failure>>,
    {
        let began = Instant::now();
        let successes = lock(&self.inner.pace).successes();
        let mut attempts = 0;
        loop {
            let failure = match self.once(operation, attempt()).await {
                Err(failure) if failure.is_temporary() => failure,
                done => return done,
            };
            attempts += 1;
            let patience = self.inner.patience;
            let resumes = self.paused_until().saturating_duration_since(began);
            let pace = lock(&self.inner.pace);
            // While others get through, the peer is only busy: attempts are not counted, the time is.
            let alone = pace.successes() == successes;
            if resumes > patience.within || (alone && patience.attempts.is_some_and(|most| attempts >= most)) {
                return Err(failure);
            }
        }
    }

    /// Makes one attempt in its turn, and notes how it went. For what must be looked at before it is repeated.
    pub async fn once<T>(
        &self,
        operation: &'static str,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.turn(operation).await?;
        self.note_activity();
        let began = Instant::now();
        let result = attempt.await;
        self.note_activity();
        match &result {
            Err(failure) if failure.is_temporary() => self.faltered(failure, began),
            Err(failure) if failure.kind == FailureKind::Stopped => {}
            _ => self.answered(began),
        }
        result
    }

    /// Waits until a request may go out that [`Self::once`] is not to take note of.
    pub async fn await_turn(&self, operation: &'static str) -> Result<(), Failure> {
        self.turn(operation).await?;
        self.note_activity();
        Ok(())
    }

    /// Waits until this request may go out.
    async fn turn(&self, operation: &'static str) -> Result<(), Failure> {
        let began = Instant::now();
        let in_turn = async {
            loop {
                let hurried = self.inner.hurried.notified();
                let pause = self.paused_until().saturating_duration_since(Instant::now());
                if pause > self.inner.patience.within {
                    // Somebody else on this road was told so; nobody need wait for it to hear the same.
                    let seconds = pause.as_secs();
                    // A pause of the road may be another connector's trouble, whose words are not for this one.
                    let own = lock(&self.inner.pace).paused_until() >= lock(&self.inner.road).paused_until();
                    let detail = match self.trouble().filter(|_| own) {
                        Some(trouble) => format!("is not asked for another {seconds} s, after: {}", trouble.reason),
                        None if !own => {
                            format!("blocks this machine's address (403), and is not asked for another {seconds} s")
                        }
                        None => format!("asked for a pause of {seconds} s"),
                    };
                    return Err(Failure {
                        sent: false,
                        ..Failure::new(
                            self.inner.peer,
                            operation,
                            FailureKind::Later { after: Some(pause) },
                            detail,
                        )
                    });
                }
                let own = lock(&self.inner.pace).reserve(Instant::now());
                tokio::select! {
                    () = sleep_until(own) => {}
                    () = hurried => continue,
                }
                // Somebody else's failure may pause the lane or the road while we sleep.
                if self.paused_until() > Instant::now() {
                    continue;
                }
                // Only now: who waits for its own turn must not keep the others from the road.
                let road = lock(&self.inner.road).reserve(Instant::now());
                // Standing in a queue of a thousand connectors is no sign of death, however long it takes.
                self.note_activity_at(road);
                sleep_until(road).await;
                if self.paused_until() <= Instant::now() {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            biased;
            () = self.inner.stop.cancelled() => {
                Err(Failure::new(self.inner.peer, operation, FailureKind::Stopped, "stopped before it was asked"))
            }
            result = in_turn => {
                metrics::waited(self.inner.peer, began.elapsed());
                result
            }
        }
    }

    fn paused_until(&self) -> Instant {
        let own = lock(&self.inner.pace).paused_until();
        own.max(lock(&self.inner.road).paused_until())
    }

    fn answered(&self, began: Instant) {
        lock(&self.inner.pace).answered(began);
        let ended = {
            let mut trouble = lock(&self.inner.trouble);
            if lock(&self.inner.pace).failures() == 0 {
                trouble.take()
            } else {
                None
            }
        };
        let Some(Trouble { since, said, .. }) = ended else {
            return;
        };
        let (connector, peer) = (&self.inner.connector, self.inner.peer.as_str());
        if said {
            tracing::info!(%connector, peer, %since, "answers again");
        } else {
            tracing::debug!(%connector, peer, %since, "answers again");
        }
    }

    fn faltered(&self, failure: &Failure, began: Instant) {
        let now = Instant::now();
        let too_fast = failure.status == Some(StatusCode::TOO_MANY_REQUESTS);
        let asked = match failure.kind {
            FailureKind::Later { after } => after,
            _ => None,
        };
        let (failures, wait) = {
            let mut pace = lock(&self.inner.pace);
            let failures = pace.faltered(began, now, too_fast);
            let backoff = backoff::delay(*lock(&self.inner.first_pause), failures, fastrand::f64());
            // A moment more than was asked for: clocks differ, and everybody else was told the same. Never less than our own
            // growing pause: who answers every request with "again, at once" is not to be asked ever faster.
            let moment = Duration::from_millis(fastrand::u64(20..250));
            let wait = asked.map_or(backoff, |asked| (asked + moment).max(backoff));
            match asked {
                Some(_) => pace.pause_as_asked(now + wait),
                None => pace.pause(now + wait),
            }
            if failure.status == Some(StatusCode::FORBIDDEN) && matches!(failure.kind, FailureKind::Later { .. }) {
                // It speaks of abuse: the address is blocked, not this connector.
                lock(&self.inner.road).pause_as_asked(now + wait);
            }
            (failures, wait)
        };
        metrics::retry(self.inner.peer);
        let mut reason = failure.to_string();
        if let Some(pause) = asked.filter(|pause| *pause > self.inner.patience.within) {
            // So long that runs end without another request: nobody should wonder why nothing happens.
            reason = format!("{reason}; asked for a pause of {} s", pause.as_secs());
        }
        let at = Timestamp::now();
        let next_attempt = at + jiff::SignedDuration::try_from(wait).unwrap_or(jiff::SignedDuration::ZERO);
        let mut trouble = lock(&self.inner.trouble);
        let since = trouble.as_ref().map_or(at, |known| known.since);
        let known = trouble.as_ref().is_some_and(|known| known.said);
        // What comes and goes is said once a minute; what lasts, after a minute at the latest.
        let news = !known && lock(&self.inner.said).is_none_or(|said| now.duration_since(said) >= SAY_AGAIN);
        let said = known || news;
        let (connector, peer, wait_ms) = (&self.inner.connector, self.inner.peer.as_str(), wait.as_millis() as u64);
        if news {
            *lock(&self.inner.said) = Some(now);
            let operation = failure.operation;
            tracing::warn!(%connector, peer, operation, wait_ms, "{failure}; trying again");
        } else {
            tracing::debug!(%connector, peer, failures, wait_ms, "{failure}; trying again");
        }
        *trouble = Some(Trouble {
            peer: self.inner.peer,
            since,
            next_attempt,
            reason,
            failures,
            cause: failure.cause(),
            said,
        });
    }
}

/// Waits, if there is anything to wait for: a timer costs more than a look at the clock.
async fn sleep_until(at: Instant) {
    if at > Instant::now() {
        tokio::time::sleep_until(at).await;
    }
}

/// The road to an address: one for the process, however many connectors are on it.
fn shared_road(base: &Url, rate: f64) -> Arc<Mutex<Pace>> {
    static ROADS: Mutex<BTreeMap<String, Arc<Mutex<Pace>>>> = Mutex::new(BTreeMap::new());
    let address = base.origin().ascii_serialization();
    let mut roads = lock(&ROADS);
    let road = roads
        .entry(address)
        .or_insert_with(|| Arc::new(Mutex::new(Pace::new(rate, Instant::now()))));
    Arc::clone(road)
}

/// A poisoned lock holds plain numbers here: they are as good as before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::Network;

    /// Lanes of two connectors to the same JumpCloud address.
    fn lanes(address: &str, rate: f64) -> [Lane; 2] {
        let base: Url = address.parse().unwrap();
        let network = Network {
            ca_file: None,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        };
        let client = Client::new(&network, &[&base]).unwrap();
        let lane = || {
            let stop = CancellationToken::new();
            let (client, timeout) = (client.clone(), network.timeout);
            Lane::new(
                "main",
                (Peer::JumpCloud, &base),
                client,
                timeout,
                rate,
                Patience::DAEMON,
                stop,
            )
        };
        [lane(), lane()]
    }

    #[tokio::test]
    async fn a_busy_connector_gets_ahead_of_another_by_no_more_than_it_has_under_way() {
        const WORKERS: u32 = 8;
        const TURNS: u32 = 30;
        let [busy, quiet] = lanes("http://127.0.0.1:1", 2000.0);
        let done = AtomicU32::new(0);
        let work = async {
            let worker = || async {
                loop {
                    let _ = busy.once("work", async { Ok(()) }).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            };
            futures_util::future::join_all((0..WORKERS).map(|_| worker())).await
        };
        let wait = async {
            for _ in 0..TURNS {
                quiet.once("wait", async { Ok(()) }).await.unwrap();
            }
        };
        tokio::select! {
            _ = work => {}
            () = wait => {}
        }
        let done = done.into_inner();
        assert!(
            done <= (TURNS + 1) * (WORKERS + 1),
            "{done} turns before {TURNS} of the other one"
        );
    }

    #[tokio::test]
    async fn who_stands_in_a_long_queue_shows_that_it_is_alive() {
        let [first, second] = lanes("http://127.0.0.1:2", 0.01);
        first.once("first", async { Ok(()) }).await.unwrap();
        let turn = second.once("second", async { Ok(()) });
        assert!(tokio::time::timeout(Duration::from_millis(20), turn).await.is_err());
        let ahead = second
            .last_activity()
            .saturating_duration_since(std::time::Instant::now());
        assert!(ahead > Duration::from_secs(60), "its turn comes in 100 s: {ahead:?}");
    }
}
