//! The one way to send: time-outs, no redirects, a cap on bodies, one classified outcome for every exchange, pacing, and
//! repeating with backoff. Which credentials go along is [`crate::oauth`]'s business; what a body says is the clients'.
//!
//! ```text
//! Lane::persist ── waits for its turn ──▶ one attempt ──▶ exchange() ──▶ Answer | Failure
//!      ▲                                                                     │
//!      └──────────── temporary: slow down, pause, again (within patience) ◀──┘
//! ```

mod backoff;
mod client;
mod clock;
mod exchange;
pub mod foreign;
mod lane;
mod outcome;
mod pace;
mod post;
mod proxy;
mod trust;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use secrecy::SecretString;
use url::Url;

pub(crate) use backoff::retry_after;
pub use client::{Client, ClientError, USER_AGENT};
pub use exchange::MAX_BODY;
pub use lane::{Lane, Patience, Trouble};
pub use outcome::{Cause, Failure, FailureKind, NO_TOKEN_ENDPOINT, clean, clean_whole, is_page, words_of};
pub use post::Posted;
pub use proxy::{address, check_environment, road};
pub use trust::read_authorities_anew;

use crate::model::Peer;

/// How long nothing is sent after a 403 that speaks of abuse.
pub const ABUSE_PAUSE: Duration = Duration::from_secs(15 * 60);

/// One request, ready to be sent any number of times. `Debug` shows no header.
pub struct Request {
    /// What it does, for messages, e.g. `list users`.
    pub operation: &'static str,
    /// The method.
    pub method: http::Method,
    /// Where to.
    pub url: Url,
    /// Query parameters; encoded when sent.
    pub query: Vec<(&'static str, String)>,
    /// The body.
    pub body: Body,
}

/// A request's body.
#[derive(Clone)]
pub enum Body {
    /// None.
    Empty,
    /// `application/json`.
    Json(serde_json::Value),
    /// `application/x-www-form-urlencoded`, encoded already.
    Form(&'static str),
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.method, self.url.path(), self.operation)
    }
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its whole body, decompressed.
    pub body: Bytes,
    /// The wait it asked for.
    pub retry_after: Option<Duration>,
}

/// What an answer means: itself when it is a success, otherwise the failure it stands for.
///
/// `secrets` are what the peer's words must not repeat.
pub fn judge(
    peer: Peer,
    operation: &'static str,
    answer: Answer,
    secrets: &[&SecretString],
) -> Result<Answer, Failure> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let page = is_page(&answer.body);
    let words = words_of(&answer.body, secrets);
    let abuse = outcome::is_block(answer.status, &answer.body);
    let Err(kind) = outcome::judge_status(answer.status, answer.retry_after, abuse) else {
        return Ok(answer);
    };
    let status = answer.status.as_u16();
    let kind = match status {
        // What every web server says with a page of its own, when it knows no such path or method.
        404 | 405 | 410 => kind,
        // Neither API refuses anything with a page of HTML: a proxy or a login page in between does.
        400..=499 if page && !matches!(kind, FailureKind::Later { .. } | FailureKind::Unreachable) => {
            FailureKind::Unintelligible
        }
        _ => kind,
    };
    let detail = match status {
        300..=399 => "answered with a redirect, which is never followed".to_owned(),
        407 => outcome::PROXY_ASKS.to_owned(),
        _ if page && kind == FailureKind::Unintelligible => BETWEEN.to_owned(),
        _ => words,
    };
    Err(Failure {
        status: Some(answer.status),
        page,
        ..Failure::new(peer, operation, kind, detail)
    })
}

/// What a page of HTML is taken for.
const BETWEEN: &str = "an HTML page instead of JSON; is a proxy or a login page in between?";

/// Reads a JSON body, or says what it was instead. Slices, never `from_reader`: measured at a quarter of the speed.
pub fn decode<'a, T: serde::Deserialize<'a>>(
    peer: Peer,
    operation: &'static str,
    answer: &'a Answer,
) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| unintelligible(peer, operation, answer, &error))
}

/// The failure for a 2xx whose body is not what it should be.
pub fn unintelligible(peer: Peer, operation: &'static str, answer: &Answer, error: &serde_json::Error) -> Failure {
    let body = &answer.body;
    let detail = if body.is_empty() {
        "an empty body instead of JSON".to_owned()
    } else if is_page(body) {
        BETWEEN.to_owned()
    } else if std::str::from_utf8(body).is_err() {
        format!("the body of {} bytes is not UTF-8", body.len())
    } else if error.is_eof() {
        format!("the JSON was cut short after {} bytes", body.len())
    } else {
        format!("the body is not what it should be: {}", foreign::complaint(error))
    };
    Failure {
        status: Some(answer.status),
        page: is_page(body),
        ..Failure::new(peer, operation, FailureKind::Unintelligible, detail)
    }
}
