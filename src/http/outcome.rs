//! What an answer means: the one place where status codes, transport errors and bodies become a [`Failure`].
//!
//! What to do about a failure is decided elsewhere: repeating in [`super::Lane`], a user's fate in `sync::deliver`.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};

use super::foreign::{Field, read_record};
use super::proxy::{self, Proxy, Tunnel};
use crate::model::{Peer, steers};

/// The longest error body that is read for its words, in bytes.
const MAX_ERROR: usize = 64 * 1024;

/// The longest excerpt of a peer's own words that is kept, in characters.
const MAX_WORDS: usize = 300;

/// Why an exchange did not succeed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Who was asked.
    pub peer: Peer,
    /// What was being done, e.g. `list users`.
    pub operation: &'static str,
    /// What it means.
    pub kind: FailureKind,
    /// The status of the answer, when there was one.
    pub status: Option<StatusCode>,
    /// What happened, for a person: the peer's words or a description. Never a secret, never a whole body.
    pub detail: String,
    /// Whether the request may have left us. Where it surely did not, it cannot have taken effect.
    pub sent: bool,
    /// Whether it was we who stopped waiting: the peer may still be at work on it.
    pub gave_up: bool,
    /// Whether the answer was a page of HTML: the words of somebody in between, more likely than the peer's.
    pub page: bool,
    /// Whether the answer told of something else that was made than what was asked for.
    pub astray: bool,
}

/// What a failure means for the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No complete answer: name resolution, TLS, connection, time-out, reset, a body cut short.
    Unreachable,
    /// 429, 5xx, or a 403 that speaks of abuse: ask again, not before `after`.
    Later {
        /// How long the peer asked us to wait.
        after: Option<Duration>,
    },
    /// An answer that is not what it should be: HTML, not JSON, the wrong shape, a redirect, too large.
    Unintelligible,
    /// The credentials are refused: a person must act.
    Credentials,
    /// The credentials are good, and not allowed to do this: a person must act.
    Permission,
    /// 402: not part of what the organisation pays for.
    License,
    /// 405, 501: this peer has no such operation.
    NotOffered,
    /// 404, 410.
    NotFound,
    /// 409.
    Conflict,
    /// Any other 4xx: permanent for this item.
    Refused,
    /// We are shutting down.
    Stopped,
}

impl FailureKind {
    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Later { .. } => "later",
            Self::Unintelligible => "unintelligible",
            Self::Credentials => "credentials",
            Self::Permission => "permission",
            Self::License => "license",
            Self::NotOffered => "not_offered",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a peer could not be asked, as far as that tells a person what to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its name does not resolve.
    UnknownName,
    /// Its certificate is not trusted.
    Untrusted,
    /// Its certificate has expired or is not valid yet, by this machine's clock.
    NotValidNow,
    /// Its certificate is that of somebody else.
    OtherName,
    /// It speaks something else than TLS.
    NoTls,
    /// Nobody took the connection.
    NotConnected,
    /// The proxy cannot be reached itself.
    ProxyAway,
    /// The proxy's own certificate is not trusted.
    ProxyUntrusted,
    /// A proxy wants to know who we are, or does not believe it.
    ProxyAsks,
    /// The proxy did not connect us.
    ProxyRefused,
    /// There is no token endpoint where one should be.
    NoTokenEndpoint,
    /// Something else, or nothing that a person could look at.
    Other,
}

impl Cause {
    /// How the detail of a failure begins that has this cause; nothing else begins like this. The first that
    /// fits counts.
    pub const WORDS: [(Cause, &str); 17] = [
        (Cause::UnknownName, UNKNOWN_NAME),
        (Cause::NotValidNow, NOT_VALID_NOW),
        (Cause::OtherName, OF_ANOTHER_NAME),
        (Cause::Untrusted, NOT_TRUSTED),
        (Cause::NoTls, NO_TLS),
        (Cause::NotConnected, NOT_IN_TIME),
        (Cause::NotConnected, NOT_CONNECTED),
        (Cause::ProxyAway, PROXY_AWAY),
        (Cause::ProxyAway, PROXY_HAS_NO_NAME),
        (Cause::ProxyAway, PROXY_NOT_IN_TIME),
        (Cause::ProxyUntrusted, PROXY_NOT_TRUSTED),
        (Cause::ProxyAsks, PROXY_ASKS),
        (Cause::ProxyAsks, PROXY_WANTS_NAME),
        (Cause::ProxyAsks, PROXY_DISBELIEVES),
        (Cause::ProxyRefused, PROXY_REFUSED),
        (Cause::ProxyRefused, PROXY_TAKES_NO_SIX),
        (Cause::NoTokenEndpoint, NO_TOKEN_ENDPOINT),
    ];

    /// The cause that the detail of a failure tells.
    fn told_by(detail: &str) -> Self {
        let told = Self::WORDS.into_iter().find(|(_, words)| detail.starts_with(words));
        told.map_or(Self::Other, |(cause, _)| cause)
    }
}

/// What is said of a certificate, and of something else than TLS.
const NOT_TRUSTED: &str = "the TLS certificate is not trusted";
const NOT_VALID_NOW: &str = "the TLS certificate is not trusted at this time";
const OF_ANOTHER_NAME: &str = "the TLS certificate is not trusted for this name";
const NO_TLS: &str = "no TLS is spoken there";

/// What is said of names and connections.
const UNKNOWN_NAME: &str = "the host name does not resolve";
const NOT_IN_TIME: &str = "no connection within the connect time-out";
const NOT_CONNECTED: &str = "cannot connect";
const FELL_SILENT: &str = "the connection fell silent and was given up";

/// What is said of a 407 that comes instead of an answer.
pub(super) const PROXY_ASKS: &str = "a proxy asks for authentication";

/// What is said of the proxy that the environment names.
const PROXY_AWAY: &str = "the proxy does not answer";
const PROXY_HAS_NO_NAME: &str = "the name of the proxy does not resolve";
const PROXY_NOT_IN_TIME: &str = "no connection through the proxy within the connect time-out";
const PROXY_NOT_TRUSTED: &str = "the TLS certificate of the proxy is not trusted";
const PROXY_WANTS_NAME: &str = "the proxy wants a user name and a password";
const PROXY_DISBELIEVES: &str = "the proxy does not accept its user name and password";
const PROXY_TAKES_NO_SIX: &str =
    "an IPv6 address cannot be reached through a proxy: give a name, or list it in NO_PROXY";
const PROXY_REFUSED: &str = "the proxy did not connect us: it forbids this address, or cannot reach it";

/// What is said of a token endpoint that answers 404, 405 or 410.
pub const NO_TOKEN_ENDPOINT: &str = "there is no token endpoint at this address; check region and token_url";

impl Failure {
    /// Why the peer could not be asked.
    pub fn cause(&self) -> Cause {
        match self.kind {
            FailureKind::Unreachable => Cause::told_by(&self.detail),
            _ => Cause::Other,
        }
    }

    /// A failure without a status.
    pub fn new(peer: Peer, operation: &'static str, kind: FailureKind, detail: impl Into<String>) -> Self {
        Self {
            peer,
            operation,
            kind,
            status: None,
            detail: detail.into(),
            sent: true,
            gave_up: false,
            astray: false,
            page: false,
        }
    }

    /// Whether asking again later can help.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::Unreachable | FailureKind::Later { .. } | FailureKind::Unintelligible
        )
    }

    /// Whether a write that failed like this may have taken effect all the same. A 429 has not, and what was not sent; everything
    /// else that is temporary may have.
    pub fn effect_unknown(&self) -> bool {
        self.is_temporary() && self.sent && self.status != Some(StatusCode::TOO_MANY_REQUESTS)
    }

    /// Whether a person must act before anything goes on.
    pub fn needs_person(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::Credentials | FailureKind::Permission | FailureKind::License
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.peer, self.operation)?;
        match self.status {
            Some(status) if !self.detail.is_empty() => write!(f, "{} ({})", self.detail, status.as_u16()),
            Some(status) => write!(f, "answered {}", status.as_u16()),
            None => f.write_str(&self.detail),
        }
    }
}

impl StdError for Failure {}

/// What a status code means, as far as it means the same for both peers. `Ok` for 2xx.
///
/// `retry_after` is the wait the answer asked for; `abuse` whether the body of a 403 speaks of abuse.
pub(super) fn judge_status(status: StatusCode, retry_after: Option<Duration>, abuse: bool) -> Result<(), FailureKind> {
    let kind = match status.as_u16() {
        200..=299 => return Ok(()),
        // Redirects are never followed: the Location of a Torq 302 is a login page, and credentials would go along.
        300..=399 => FailureKind::Unintelligible,
        401 => FailureKind::Credentials,
        402 => FailureKind::License,
        // JumpCloud blocks an address that sends too much with a 403 that speaks of suspected abuse. What it asks for lengthens
        // the pause and never shortens it: a blocked address that asks again soon stays blocked.
        403 if abuse => FailureKind::Later {
            after: Some(retry_after.unwrap_or_default().max(super::ABUSE_PAUSE)),
        },
        403 => FailureKind::Permission,
        404 | 410 => FailureKind::NotFound,
        405 | 501 => FailureKind::NotOffered,
        // Of a proxy in between, not of the peer.
        407 => FailureKind::Unreachable,
        408 | 425 => FailureKind::Later { after: retry_after },
        409 => FailureKind::Conflict,
        429 => FailureKind::Later { after: retry_after },
        500..=599 => FailureKind::Later { after: retry_after },
        _ => FailureKind::Refused,
    };
    Err(kind)
}

/// Whether a body is a page of HTML, which no API of either peer sends.
pub fn is_page(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}

/// Whether an answer is the block of an address that sends too much: a 403 that speaks of abuse, in JSON of whatever shape, in a
/// page or in plain text. What stands in front of an API seldom speaks its language.
pub(super) fn is_block(status: StatusCode, body: &[u8]) -> bool {
    const WORD: &[u8] = b"abuse";
    let beginning = &body[..body.len().min(MAX_ERROR)];
    status == StatusCode::FORBIDDEN
        && beginning
            .windows(WORD.len())
            .any(|window| window.eq_ignore_ascii_case(WORD))
}

/// The peer's own words in an error body: `message` (both peers), `error_description` and `error` (RFC 6749), or what
/// kind of thing the body is. Without `secrets`, which a peer may repeat; short, without control characters.
pub fn words_of(body: &[u8], secrets: &[&SecretString]) -> String {
    if is_page(body) {
        return "an HTML page instead of JSON".to_owned();
    }
    let mut fields: [Field<MAX_ERROR>; 3] = Default::default();
    if body.len() > MAX_ERROR || read_record(body, &["message", "error_description", "error"], &mut fields).is_err() {
        return String::new();
    }
    let words = match fields.map(Field::into_text) {
        [Some(message), _, _] => message,
        [None, Some(description), Some(error)] => format!("{error}: {description}"),
        [None, description, error] => description.or(error).unwrap_or_default(),
    };
    // As it will be shown, or a secret with a space would come out of one with a tab. And before it is shortened: of a secret
    // that straddles the end, the beginning would stay.
    shortened(&scrub(on_one_line(&words), secrets))
}

/// Removes secrets that a peer's words repeat.
fn scrub(text: String, secrets: &[&SecretString]) -> String {
    secrets.iter().fold(text, |text, secret| {
        let secret = on_one_line(secret.expose_secret());
        if secret.len() < 4 {
            text
        } else {
            text.replace(&secret, "[redacted]")
        }
    })
}

/// Shortens foreign text and removes what could disturb a terminal or a log: control characters, and what turns the reading
/// direction around.
pub fn clean(text: &str) -> String {
    shortened(&on_one_line(text))
}

/// The same at its whole length: a text of our own, in which a peer's words may be.
pub fn clean_whole(text: &str) -> String {
    on_one_line(text).trim().to_owned()
}

/// With spaces in place of what could disturb a terminal or a log.
fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

/// Describes a transport error for a person: what failed, and on the way to where; not which secret went along.
pub(super) fn describe_transport(error: &reqwest::Error, timeout: Duration) -> String {
    let proxy = error.url().and_then(proxy::towards);
    let what = match proxy {
        Some(proxy) => describe_proxy(error, &proxy).unwrap_or_else(|| describe(error, timeout)),
        None => describe(error, timeout),
    };
    match error.url() {
        Some(url) => format!("{what} ({})", proxy::road(url)),
        None => what,
    }
}

/// What the proxy did to the connection; `None` when it made one.
fn describe_proxy(error: &reqwest::Error, proxy: &Proxy) -> Option<String> {
    let chain = chain(error);
    let deepest = chain.last().map(String::as_str).unwrap_or_default();
    let Some(tunnel) = Tunnel::of(&chain) else {
        // The HTTP client takes the brackets for a part of the name.
        if deepest == "Invalid Server Name" {
            return Some(PROXY_TAKES_NO_SIX.to_owned());
        }
        return (error.is_connect() && error.is_timeout()).then(|| PROXY_NOT_IN_TIME.to_owned());
    };
    Some(match tunnel {
        Tunnel::NoName => format!("{PROXY_HAS_NO_NAME}: {deepest}"),
        Tunnel::Away => format!("{PROXY_AWAY}: {}", deepest.trim_start_matches("tunnel error: ")),
        Tunnel::Untrusted => format!("{PROXY_NOT_TRUSTED}: {deepest}"),
        Tunnel::Asks if proxy.knows_us => PROXY_DISBELIEVES.to_owned(),
        Tunnel::Asks => PROXY_WANTS_NAME.to_owned(),
        Tunnel::Refused => PROXY_REFUSED.to_owned(),
    })
}

fn describe(error: &reqwest::Error, timeout: Duration) -> String {
    let chain = chain(error);
    let deepest = chain.last().cloned().unwrap_or_default();
    let has = |needle: &str| chain.iter().any(|link| link.contains(needle));
    // What to do about these is said by `sync::advice`.
    if has("certificate") {
        let words = if has("expired") || has("not valid yet") {
            NOT_VALID_NOW
        } else if has("not valid for name") {
            OF_ANOTHER_NAME
        } else {
            NOT_TRUSTED
        };
        return format!("{words}: {deepest}");
    }
    if has("InvalidContentType") || has("InvalidMessage") {
        return format!("{NO_TLS}: {deepest}");
    }
    if has("dns error") || has("failed to lookup address") {
        return format!("{UNKNOWN_NAME}: {deepest}");
    }
    if has("keep-alive timed out") {
        return FELL_SILENT.to_owned();
    }
    if error.is_timeout() {
        return if error.is_connect() {
            NOT_IN_TIME.to_owned()
        } else {
            format!("no complete answer within {} s", timeout.as_secs())
        };
    }
    if error.is_connect() {
        return format!("{NOT_CONNECTED}: {deepest}");
    }
    if error.is_decode() || error.is_body() {
        return format!("the answer was cut short: {deepest}");
    }
    format!("the connection broke: {deepest}")
}

fn chain(error: &dyn StdError) -> Vec<String> {
    let mut links = Vec::new();
    let mut current = Some(error);
    while let Some(link) = current {
        links.push(clean(&link.to_string()));
        current = link.source();
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, body: &str) -> Option<FailureKind> {
        let status = StatusCode::from_u16(status).unwrap();
        judge_status(status, None, is_block(status, body.as_bytes())).err()
    }

    #[test]
    fn every_documented_status_has_one_meaning() {
        for ok in [200, 201, 202, 204] {
            assert_eq!(kind(ok, ""), None, "{ok}");
        }
        for temporary in [429, 500, 502, 503, 504] {
            assert_eq!(
                kind(temporary, ""),
                Some(FailureKind::Later { after: None }),
                "{temporary}"
            );
        }
        for permanent in [400, 406, 412, 415, 422, 428] {
            assert_eq!(kind(permanent, ""), Some(FailureKind::Refused), "{permanent}");
        }
        for redirect in [302, 303, 304] {
            assert_eq!(kind(redirect, ""), Some(FailureKind::Unintelligible), "{redirect}");
        }
        assert_eq!(kind(401, ""), Some(FailureKind::Credentials));
        assert_eq!(kind(402, ""), Some(FailureKind::License));
        assert_eq!(kind(403, ""), Some(FailureKind::Permission));
        assert_eq!(kind(404, ""), Some(FailureKind::NotFound));
        assert_eq!(kind(409, ""), Some(FailureKind::Conflict));
        assert_eq!(kind(501, ""), Some(FailureKind::NotOffered));
    }

    #[test]
    fn a_403_that_speaks_of_abuse_is_a_long_pause_and_not_a_refusal() {
        let paused = Some(FailureKind::Later {
            after: Some(crate::http::ABUSE_PAUSE),
        });
        for body in [
            "Blocked: suspected Abuse",
            "<html><title>403</title><p>Your address was blocked for suspected <b>abuse</b>.</p></html>",
            r#"{"message":"Forbidden","error":"suspected abuse of this API"}"#,
            r#"{"error":{"message":"ABUSE"}}"#,
        ] {
            assert_eq!(kind(403, body), paused, "{body}");
        }
        for body in ["", "Forbidden", r#"{"message":"Forbidden"}"#] {
            assert_eq!(kind(403, body), Some(FailureKind::Permission), "{body}");
        }
        assert_eq!(kind(401, "abuse"), Some(FailureKind::Credentials));
    }

    #[test]
    fn a_block_is_waited_for_at_least_as_long_as_ever_whatever_it_asks_for() {
        let after = |retry_after| judge_status(StatusCode::FORBIDDEN, Some(retry_after), true).unwrap_err();
        let pause = crate::http::ABUSE_PAUSE;
        assert_eq!(after(Duration::ZERO), FailureKind::Later { after: Some(pause) });
        assert_eq!(after(pause * 2), FailureKind::Later { after: Some(pause * 2) });
    }

    #[test]
    fn words_are_the_peers_message_and_never_a_page() {
        let words_of = |body: &[u8]| super::words_of(body, &[]);
        assert_eq!(words_of(br#"{"code":7,"message":"no user.read\n"}"#), "no user.read");
        assert_eq!(
            words_of(br#"{"error":"invalid_client","error_description":"expired"}"#),
            "invalid_client: expired"
        );
        assert_eq!(words_of(b"  <html>secret</html>"), "an HTML page instead of JSON");
        assert_eq!(words_of(b"garbage"), "");
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(10_000));
        assert_eq!(words_of(long.as_bytes()).chars().count(), MAX_WORDS + 1);
    }

    #[test]
    fn a_secret_that_straddles_the_end_of_the_excerpt_is_removed_whole() {
        let secret: SecretString = "t".repeat(400).into();
        let body = serde_json::json!({ "message": format!("bad token: {}", secret.expose_secret()) }).to_string();
        assert_eq!(words_of(body.as_bytes(), &[&secret]), "bad token: [redacted]");
    }

    #[test]
    fn a_429_did_not_take_effect_and_a_503_may_have() {
        let mut failure = Failure::new(
            Peer::JumpCloud,
            "create account",
            FailureKind::Later { after: None },
            "",
        );
        failure.status = Some(StatusCode::TOO_MANY_REQUESTS);
        assert!(!failure.effect_unknown());
        failure.status = Some(StatusCode::SERVICE_UNAVAILABLE);
        assert!(failure.effect_unknown());
        failure.sent = false;
        assert!(!failure.effect_unknown(), "what never left us cannot have taken effect");
        failure.sent = true;
        failure.kind = FailureKind::Refused;
        assert!(!failure.effect_unknown());
    }
}
