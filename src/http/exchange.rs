//! One exchange: a request goes out, and the whole answer is read, within bounds that no peer can stretch.

use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::lane::{Lane, lock};
use super::{Answer, Body, Failure, FailureKind, Request, backoff, clock, outcome};
use crate::metrics;

/// The largest body that is read, decompressed, in bytes. A page of 10,000 users is about 5 MB.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// A body beyond so many bytes counts as large; room for less is made in advance. A page of 100 users has about 46 KB.
const LARGE: usize = 128 * 1024;

/// So many large bodies are held at a time in the whole process, however many connectors ask: each with what it is read into.
static LARGE_BODIES: Semaphore = Semaphore::const_new(2);

impl Lane {
    /// Sends one request and reads the whole answer. The status is not judged: see [`super::judge`].
    pub async fn exchange(&self, request: &Request, headers: http::HeaderMap) -> Result<Answer, Failure> {
        let began = Instant::now();
        let result = self.send(request, headers).await;
        let outcome = match &result {
            Ok(answer) => {
                match outcome::judge_status(answer.status, None, outcome::is_block(answer.status, &answer.body)) {
                    Ok(()) => "success",
                    Err(kind) => kind.as_str(),
                }
            }
            Err(failure) => failure.kind.as_str(),
        };
        metrics::request(self.inner.peer, outcome, began.elapsed());
        if let Ok(answer) = &result {
            tracing::debug!(
                connector = %self.inner.connector,
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
        let now = SystemTime::now();
        if let Some(ahead) = clock::ahead(response.headers(), now) {
            *lock(&self.inner.clock) = Some(ahead);
        }
        // A date is compared with the peer's own: our clock may be wrong.
        let said_at = clock::made_at(response.headers()).unwrap_or(now);
        let retry_after = backoff::retry_after(response.headers(), said_at);
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
