//! The way to one peer: requests in their turn, repeated while that can help, and what is known of the peer's troubles.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::pace::Pace;
use super::{Answer, Body, Client, Failure, FailureKind, Request, backoff, outcome};
use crate::metrics;
use crate::model::Peer;

/// The largest body that is read, decompressed, in bytes. A page of 10,000 users is about 5 MB.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// A body beyond so many bytes counts as large; room for less is made in advance. A page of 100 users has about 46 KB.
const LARGE: usize = 128 * 1024;

/// So many large bodies are held at a time in the whole process, however many connectors ask: each with what it is read into.
static LARGE_BODIES: Semaphore = Semaphore::const_new(2);

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
    inner: Arc<LaneInner>,
}

struct LaneInner {
    peer: Peer,
    client: Client,
    timeout: Duration,
    patience: Patience,
    pace: Mutex<Pace>,
    /// What all connectors of this process together may send to this address.
    road: Arc<Mutex<Pace>>,
    trouble: Mutex<Option<Trouble>>,
    stop: CancellationToken,
    /// When a request was last let out, answered, or knowingly put off.
    activity: Mutex<std::time::Instant>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane({})", self.inner.peer)
    }
}

impl Lane {
    /// A lane to `peer` at `base` that sends at most `rate` requests a second and gives up when `stop` is cancelled.
    ///
    /// JumpCloud blocks the *address* that sends too much, whichever organisation it is for, so lanes of one process to the same
    /// JumpCloud share the road. Torq's limit is the workspace's, so there each lane has a road of its own.
    pub fn new(
        peer: Peer,
        base: &Url,
        client: Client,
        timeout: Duration,
        rate: f64,
        patience: Patience,
        stop: CancellationToken,
    ) -> Self {
        Self {
            inner: Arc::new(LaneInner {
                peer,
                client,
                timeout,
                patience,
                pace: Mutex::new(Pace::new(rate, Instant::now())),
                road: match peer {
                    Peer::JumpCloud => shared_road(base, rate),
                    Peer::Torq => Arc::new(Mutex::new(Pace::new(rate, Instant::now()))),
                },
                trouble: Mutex::new(None),
                stop,
                activity: Mutex::new(std::time::Instant::now()),
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

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.inner.peer
    }

    /// When a request was last let out, answered, or knowingly put off: never long ago while somebody works here.
    pub fn last_activity(&self) -> std::time::Instant {
        let waits = self.paused_until() > Instant::now();
        if waits {
            std::time::Instant::now()
        } else {
            *lock(&self.inner.activity)
        }
    }

    fn note_activity(&self) {
        *lock(&self.inner.activity) = std::time::Instant::now();
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

    /// Sends one request and reads the whole answer. The status is not judged: see [`super::judge`].
    pub async fn exchange(&self, request: &Request, headers: http::HeaderMap) -> Result<Answer, Failure> {
        let result = self.send(request, headers).await;
        let outcome = match &result {
            Ok(answer) => match outcome::judge_status(answer.status, None, false) {
                Ok(()) => "success",
                Err(kind) => kind.as_str(),
            },
            Err(failure) => failure.kind.as_str(),
        };
        metrics::request(self.inner.peer, outcome);
        if let Ok(answer) = &result {
            tracing::debug!(
                peer = self.inner.peer.as_str(),
                operation = request.operation,
                status = answer.status.as_u16(),
                bytes = answer.body.len(),
                "answered"
            );
        }
        result
    }

    async fn send(&self, request: &Request, headers: http::HeaderMap) -> Result<Answer, Failure> {
        let Some(client) = self.inner.client.to(&request.url) else {
            let detail = format!("no request was made for {} addresses", request.url.scheme());
            return Err(Failure::new(
                self.inner.peer,
                request.operation,
                FailureKind::Unreachable,
                detail,
            ));
        };
        let mut builder = client
            .request(request.method.clone(), request.url.clone())
            .header(http::header::ACCEPT, "application/json")
            .headers(headers);
        if !request.query.is_empty() {
            builder = builder.query(&request.query);
        }
        builder = match &request.body {
            Body::Empty => builder,
            Body::Json(value) => builder.json(value),
            Body::Form(text) => builder
                .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(*text),
        };
        let broken = |error: reqwest::Error| Failure {
            sent: !error.is_connect(),
            gave_up: error.is_timeout() && !error.is_connect(),
            detail: outcome::describe_transport(&error, self.inner.timeout),
            ..Failure::new(self.inner.peer, request.operation, FailureKind::Unreachable, "")
        };
        let mut response = builder.send().await.map_err(broken)?;
        let status = response.status();
        let retry_after = backoff::retry_after(response.headers(), SystemTime::now());
        // Room for all of it at once, as far as a page goes; beyond that a peer's word is not taken for it.
        let announced = response.content_length().unwrap_or_default().min(LARGE as u64);
        let mut body = Vec::with_capacity(announced as usize);
        let mut place = None;
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > MAX_BODY {
                let detail = format!("the answer is larger than {} MiB", MAX_BODY / 1024 / 1024);
                return Err(Failure {
                    status: Some(status),
                    ..Failure::new(self.inner.peer, request.operation, FailureKind::Unintelligible, detail)
                });
            }
            if body.len() + chunk.len() > LARGE && place.is_none() {
                // Who waits here is not read from meanwhile: its answer stays where it is.
                let waited = tokio::time::timeout(self.inner.timeout, LARGE_BODIES.acquire()).await;
                place = waited.ok().and_then(Result::ok);
                if place.is_none() {
                    let detail =
                        "the answer is large, and there was no room for it: too many large ones are being read";
                    return Err(Failure {
                        status: Some(status),
                        ..Failure::new(self.inner.peer, request.operation, FailureKind::Unreachable, detail)
                    });
                }
            }
            make_room(&mut body, chunk.len());
            body.extend_from_slice(&chunk);
        }
        let body = match place {
            None => body.into(),
            Some(place) => Bytes::from_owner(Large { body, _place: place }),
        };
        Ok(Answer {
            status,
            body,
            retry_after,
        })
    }

    /// Waits until this request may go out.
    async fn turn(&self, operation: &'static str) -> Result<(), Failure> {
        let in_turn = async {
            loop {
                let pause = self.paused_until().saturating_duration_since(Instant::now());
                if pause > self.inner.patience.within {
                    // Somebody else on this road was told so; nobody need wait for it to hear the same.
                    let detail = format!("asked for a pause of {} s", pause.as_secs());
                    return Err(Failure {
                        sent: false,
                        ..Failure::new(self.inner.peer, operation, FailureKind::Later { after: None }, detail)
                    });
                }
                let own = lock(&self.inner.pace).reserve(Instant::now());
                sleep_until(own).await;
                // Somebody else's failure may pause the lane or the road while we sleep.
                if self.paused_until() > Instant::now() {
                    continue;
                }
                // Only now: who waits for its own turn must not keep the others from the road.
                let road = lock(&self.inner.road).reserve(Instant::now());
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
            result = in_turn => result,
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
        if let Some(ended) = ended {
            tracing::info!(peer = self.inner.peer.as_str(), since = %ended.since, "answers again");
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
            let backoff = backoff::delay(failures, fastrand::f64());
            // A moment more than was asked for: clocks differ, and everybody else was told the same.
            let wait = asked.map_or(backoff, |asked| asked + Duration::from_millis(fastrand::u64(20..250)));
            pace.pause(now + wait);
            if failure.status == Some(StatusCode::FORBIDDEN) && matches!(failure.kind, FailureKind::Later { .. }) {
                // It speaks of abuse: the address is blocked, not this connector.
                lock(&self.inner.road).pause(now + wait);
            }
            (failures, wait)
        };
        metrics::retry(self.inner.peer);
        let at = Timestamp::now();
        let next_attempt = at + jiff::SignedDuration::try_from(wait).unwrap_or(jiff::SignedDuration::ZERO);
        let mut trouble = lock(&self.inner.trouble);
        let since = trouble.as_ref().map_or(at, |known| known.since);
        if trouble.is_none() {
            tracing::warn!(
                peer = self.inner.peer.as_str(),
                operation = failure.operation,
                wait_ms = wait.as_millis() as u64,
                "{failure}; trying again"
            );
        } else {
            tracing::debug!(
                peer = self.inner.peer.as_str(),
                failures,
                wait_ms = wait.as_millis() as u64,
                "{failure}; trying again"
            );
        }
        *trouble = Some(Trouble {
            peer: self.inner.peer,
            since,
            next_attempt,
            reason: failure.to_string(),
            failures,
        });
    }
}

/// A large body, and its place among those that are held.
struct Large {
    body: Vec<u8>,
    _place: SemaphorePermit<'static>,
}

/// Doubles the room, and not beyond the largest body.
fn make_room(body: &mut Vec<u8>, more: usize) {
    let needed = body.len() + more;
    if needed > body.capacity() {
        let room = needed.max(body.capacity() * 2).min(MAX_BODY);
        body.reserve_exact(room - body.len());
    }
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.body
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
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
