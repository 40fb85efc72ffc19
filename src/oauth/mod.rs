//! Credentials on requests: the OAuth client-credentials token manager, an administrator's API key, and the [`Session`]
//! that puts either on a lane.
//!
//! The manager promises: one refresh in flight however many ask; renewal ahead of expiry; one forced renewal when an
//! answer says that the token is no good; a refusal that is told to everyone who waited for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::http::foreign::{Field, MAX_TEXT, read_record};
use crate::http::{Answer, Body, Failure, FailureKind, Lane, NO_TOKEN_ENDPOINT, Request, is_page, judge};
use crate::metrics;
use crate::model::Peer;

/// What is being done, for messages.
const OPERATION: &str = "get a token";
/// The lifetime of a token whose answer does not say it (RFC 6749 makes `expires_in` optional).
const UNSTATED_LIFETIME: Duration = Duration::from_secs(300);
/// The longest token that is taken, in bytes: servers limit their headers.
const MAX_TOKEN: usize = 16 * 1024;
/// The longest margin before expiry at which a token is renewed.
const MAX_MARGIN: Duration = Duration::from_secs(300);
/// The margin for clocks and latency that even a short-lived token gets, as far as half its life allows.
const MIN_MARGIN: Duration = Duration::from_secs(5);
/// How long a renewal ahead of expiry is put off when the token endpoint does not answer.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// A bearer token and when to replace it. `Debug` shows nothing of it.
#[derive(Debug)]
struct Token {
    value: SecretString,
    /// `Bearer …`, marked as sensitive.
    header: HeaderValue,
    renew_at: Instant,
    expires_at: Instant,
    /// Counts the tokens of this manager, so that whoever was refused can say which one was.
    generation: u64,
}

impl Token {
    /// The same token, to be renewed a moment later: its endpoint did not answer just now.
    fn renewed_later(&self) -> Self {
        Self {
            value: self.value.clone(),
            header: self.header.clone(),
            renew_at: (Instant::now() + RENEWAL_PAUSE).min(self.expires_at),
            expires_at: self.expires_at,
            generation: self.generation,
        }
    }
}

#[derive(Default)]
struct Slot {
    current: Option<Arc<Token>>,
    generation: u64,
    /// Refreshes that ended, and how the last one failed.
    refreshes: u64,
    last_failure: Option<Failure>,
}

/// Gets and renews the tokens of one pair of client credentials.
pub struct TokenManager {
    lane: Lane,
    endpoint: Url,
    client_id: String,
    client_secret: SecretString,
    form: &'static str,
    slot: Mutex<Slot>,
    /// Copies of `Slot::refreshes`, readable without waiting for a refresh in flight.
    refreshes: std::sync::atomic::AtomicU64,
}

impl fmt::Debug for TokenManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenManager({})", self.lane.peer())
    }
}

impl TokenManager {
    /// For Torq: `grant_type=client_credentials` over HTTP Basic (Torq reference, authentication).
    pub fn torq(lane: Lane, endpoint: Url, client_id: &str, client_secret: SecretString) -> Self {
        Self::new(
            lane,
            endpoint,
            client_id,
            client_secret,
            "grant_type=client_credentials",
        )
    }

    /// For a JumpCloud service account: the same with `scope=api` (JumpCloud documentation, service accounts).
    pub fn jumpcloud(lane: Lane, endpoint: Url, client_id: &str, client_secret: SecretString) -> Self {
        Self::new(
            lane,
            endpoint,
            client_id,
            client_secret,
            "grant_type=client_credentials&scope=api",
        )
    }

    fn new(lane: Lane, endpoint: Url, client_id: &str, client_secret: SecretString, form: &'static str) -> Self {
        Self {
            lane,
            endpoint,
            client_id: client_id.to_owned(),
            client_secret,
            form,
            slot: Mutex::new(Slot::default()),
            refreshes: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// A token that is good for now, refreshed if need be.
    async fn token(&self) -> Result<Arc<Token>, Failure> {
        self.token_newer_than(0).await
    }

    /// A token that is not the one of `refused`: the forced renewal. If somebody else renewed meanwhile, theirs.
    async fn token_newer_than(&self, refused: u64) -> Result<Arc<Token>, Failure> {
        use std::sync::atomic::Ordering;
        let refreshes_when_asked = self.refreshes.load(Ordering::Acquire);
        let mut slot = self.slot.lock().await;
        if let Some(token) = &slot.current
            && token.generation > refused
            && Instant::now() < token.renew_at
        {
            return Ok(Arc::clone(token));
        }
        // A refresh that ended while we waited in line speaks for us, too: a thousand waiters make one request.
        if slot.refreshes > refreshes_when_asked
            && let Some(failure) = &slot.last_failure
        {
            return Err(failure.clone());
        }
        let mut result = self.refresh(slot.generation + 1).await;
        if let Err(failure) = &mut result {
            // Whatever the token was for has not been sent.
            failure.sent = false;
        }
        slot.refreshes += 1;
        self.refreshes.store(slot.refreshes, Ordering::Release);
        metrics::token_renewed(self.lane.peer(), result.is_ok());
        match result {
            Ok(token) => {
                let token = Arc::new(token);
                slot.generation = token.generation;
                slot.last_failure = None;
                slot.current = Some(Arc::clone(&token));
                Ok(token)
            }
            Err(failure) => {
                // Ahead of expiry there is a token that still works: a token endpoint that is down for a moment stops nobody.
                if failure.is_temporary()
                    && let Some(old) = slot.current.take_if(|old| old.generation > refused)
                    && Instant::now() < old.expires_at
                {
                    tracing::debug!(
                        peer = self.lane.peer().as_str(),
                        "{failure}; the old token lasts a little longer"
                    );
                    let token = Arc::new(old.renewed_later());
                    slot.current = Some(Arc::clone(&token));
                    return Ok(token);
                }
                slot.last_failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    async fn refresh(&self, generation: u64) -> Result<Token, Failure> {
        let peer = self.lane.peer();
        let request = Request {
            operation: OPERATION,
            method: Method::POST,
            url: self.endpoint.clone(),
            query: Vec::new(),
            body: Body::Form(self.form),
        };
        let asked_at = Instant::now();
        let answer = self.lane.exchange(&request, self.basic()).await?;
        let secrets = self.secrets(None);
        let secrets: Vec<&SecretString> = secrets.iter().collect();
        let Granted {
            value,
            header,
            lifetime,
        } = read_grant(peer, answer, &secrets)?;
        tracing::debug!(peer = peer.as_str(), lifetime_s = lifetime.as_secs(), "new token");
        Ok(Token {
            value,
            header,
            // Counted from when we asked: the token cannot have been made before.
            renew_at: asked_at + lifetime - margin(lifetime),
            expires_at: asked_at + lifetime,
            generation,
        })
    }

    /// Id and secret as they go out.
    fn pair(&self) -> SecretString {
        use base64::Engine as _;
        let pair = format!("{}:{}", self.client_id, self.client_secret.expose_secret());
        base64::engine::general_purpose::STANDARD.encode(pair).into()
    }

    /// Everything that a peer was told and must not repeat to anybody.
    fn secrets(&self, token: Option<&Token>) -> Vec<SecretString> {
        let token = token.map(|token| token.value.clone());
        token
            .into_iter()
            .chain([self.client_secret.clone(), self.pair()])
            .collect()
    }

    fn basic(&self) -> HeaderMap {
        let text = format!("Basic {}", self.pair().expose_secret());
        let mut headers = HeaderMap::new();
        // Base64 text is always a valid header value.
        if let Ok(mut value) = HeaderValue::from_str(&text) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }
}

/// A token as it was granted. `Debug` shows nothing of it.
#[derive(Debug)]
pub struct Granted {
    /// The token.
    pub value: SecretString,
    /// `Bearer …`, marked as sensitive.
    pub header: HeaderValue,
    /// How long it lasts, as far as that is said and can be believed.
    pub lifetime: Duration,
}

/// Reads an answer of the token endpoint, of any status. `secrets` are what was sent along, which its words must not repeat.
pub(crate) fn read_grant(peer: Peer, answer: Answer, secrets: &[&SecretString]) -> Result<Granted, Failure> {
    if !answer.status.is_success() {
        return Err(refusal(peer, answer, secrets));
    }
    let unusable = |detail: &str| Failure::new(peer, OPERATION, FailureKind::Unintelligible, detail);
    // A struct would also be read from a list, by the order of its fields, which no peer means.
    if answer.body.trim_ascii_start().first() == Some(&b'[') {
        return Err(unusable("the token endpoint answered with a list"));
    }
    // Hand-picked messages: what serde_json would quote of a token answer may be the token.
    let grant: Grant = serde_json::from_slice(&answer.body)
        .map_err(|error| redacted(crate::http::unintelligible(peer, OPERATION, &answer, &error), &error))?;
    if !grant.token_type.is_none_or(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(unusable(
            "the token endpoint answered with a token that is not a bearer token",
        ));
    }
    if grant.access_token.is_empty() {
        return Err(unusable("the token endpoint answered with an empty token"));
    }
    if grant.access_token.len() > MAX_TOKEN {
        return Err(unusable(
            "the token endpoint answered with a token that is too long for a header",
        ));
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {}", grant.access_token))
        .map_err(|_| unusable("the token endpoint answered with a token that no header can carry"))?;
    header.set_sensitive(true);
    Ok(Granted {
        lifetime: lifetime(&grant.expires_in),
        value: grant.access_token.into(),
        header,
    })
}

/// What an answer of the token endpoint other than 2xx means. Wrong or expired credentials are a 400 or a 401 with an
/// `error` in JSON (RFC 6749, 5.2); the same status with anything else may be a proxy speaking, and not the peer.
fn refusal(peer: Peer, answer: Answer, secrets: &[&SecretString]) -> Failure {
    let status = answer.status.as_u16();
    let mut error = [Field::<MAX_TEXT>::Absent];
    let is_json = read_record(&answer.body, &["error"], &mut error).unwrap_or_default();
    let [error] = error.map(Field::into_text);
    let mut failure = match judge(peer, OPERATION, answer, secrets) {
        Err(failure) => failure,
        // Not reached: only called for other statuses than 2xx.
        Ok(_) => Failure::new(peer, OPERATION, FailureKind::Unintelligible, ""),
    };
    failure.kind = match (status, error.as_deref()) {
        (400 | 401, Some("temporarily_unavailable" | "server_error")) => FailureKind::Later { after: None },
        (404 | 405 | 410, _) => {
            failure.detail = NO_TOKEN_ENDPOINT.to_owned();
            FailureKind::Unreachable
        }
        _ if failure.is_temporary() => failure.kind,
        // A 401 says it all, with or without words.
        (401, _) => FailureKind::Credentials,
        (400..=499, _) if is_json => FailureKind::Credentials,
        (400..=499, _) => {
            failure.detail = "the token endpoint's answer is no JSON; is a proxy in between?".to_owned();
            FailureKind::Unintelligible
        }
        _ => failure.kind,
    };
    failure
}

/// A token endpoint's answer (RFC 6749, 5.1).
#[derive(Deserialize)]
struct Grant {
    access_token: String,
    #[serde(default)]
    expires_in: Field,
    #[serde(default)]
    token_type: Option<String>,
}

/// Replaces serde_json's message, which may quote the token, by the place of the error.
fn redacted(mut failure: Failure, error: &serde_json::Error) -> Failure {
    if error.is_data() {
        failure.detail = format!(
            "the token endpoint's answer is not what it should be (line {}, column {})",
            error.line(),
            error.column()
        );
    }
    failure
}

/// How long a token lasts: what the answer says, as a number or as text, or a cautious guess.
fn lifetime(expires_in: &Field) -> Duration {
    let seconds = match expires_in {
        Field::Number(text) | Field::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|lifetime| !lifetime.is_zero())
        .map_or(UNSTATED_LIFETIME, |lifetime| {
            lifetime.min(Duration::from_secs(24 * 3600))
        })
}

/// How long before its end a token is renewed: a tenth of its life, within bounds, and never more than half of it.
fn margin(lifetime: Duration) -> Duration {
    (lifetime / 10).clamp(MIN_MARGIN, MAX_MARGIN).min(lifetime / 2)
}

/// The two ways to authenticate.
#[derive(Debug)]
pub enum Auth {
    /// OAuth client credentials.
    Token(Box<TokenManager>),
    /// JumpCloud's `x-api-key`.
    ApiKey(SecretString),
}

/// What is asked whenever a request is about to go on the wire, when it has had its turn and its token, which can be long after it was
/// decided.
pub trait Gate: Send {
    /// Whether it may be sent (again).
    fn is_open(&mut self) -> impl Future<Output = bool> + Send;
}

/// A gate that is never closed.
pub struct Open;

impl Gate for Open {
    async fn is_open(&mut self) -> bool {
        true
    }
}

/// A lane with credentials: what a client of a peer's API sends its requests through.
#[derive(Debug)]
pub struct Session {
    lane: Lane,
    auth: Auth,
    /// Headers that go with every request, e.g. `x-org-id`.
    headers: HeaderMap,
    base: Url,
    /// Statuses that say the token is no good.
    refused_by: &'static [u16],
}

impl Session {
    /// Torq: 302 says that the token has expired, 401 that it is not valid (Torq reference, errors).
    pub fn torq(lane: Lane, base: Url, tokens: TokenManager) -> Self {
        Self {
            lane,
            auth: Auth::Token(Box::new(tokens)),
            headers: HeaderMap::new(),
            base,
            refused_by: &[302, 401],
        }
    }

    /// JumpCloud: 401. `org_id` goes out as `x-org-id` on every request.
    pub fn jumpcloud(lane: Lane, base: Url, auth: Auth, org_id: Option<&str>) -> Self {
        let mut headers = HeaderMap::new();
        if let Some(value) = org_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(HeaderName::from_static("x-org-id"), value);
        }
        Self {
            lane,
            auth,
            headers,
            base,
            refused_by: &[401],
        }
    }

    /// The lane that requests go through.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The URL of `path`, given as segments that are encoded one by one.
    pub fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Gets a token, or nothing for an API key: the check of the credentials alone.
    pub async fn authenticate(&self) -> Result<(), Failure> {
        match &self.auth {
            Auth::Token(tokens) => {
                self.lane
                    .persist(OPERATION, || async { tokens.token().await.map(drop) })
                    .await
            }
            Auth::ApiKey(_) => Ok(()),
        }
    }

    /// One attempt: sends with credentials; when the answer says that the token is no good, once more with a new one. Then
    /// the answer is judged.
    pub async fn attempt(&self, request: &Request) -> Result<Answer, Failure> {
        self.attempt_if(request, &mut Open).await
    }

    /// The same, as long as the gate is open.
    ///
    /// # Errors
    /// [`FailureKind::Stopped`]: it is not.
    pub async fn attempt_if(&self, request: &Request, gate: &mut impl Gate) -> Result<Answer, Failure> {
        let operation = request.operation;
        // What a peer's words must not repeat: what goes along now, and what it was had for.
        let (answer, secrets) = match &self.auth {
            Auth::ApiKey(key) => {
                let mut headers = self.headers.clone();
                headers.insert(
                    HeaderName::from_static("x-api-key"),
                    self.api_key_header(operation, key)?,
                );
                (self.send(request, headers, gate).await?, vec![key.clone()])
            }
            Auth::Token(tokens) => {
                let token = tokens.token().await?;
                let answer = self.send(request, self.bearer(&token), gate).await?;
                if self.refused_by.contains(&answer.status.as_u16()) {
                    tracing::debug!(
                        peer = self.lane.peer().as_str(),
                        operation,
                        status = answer.status.as_u16(),
                        "the token is no good any more; getting a new one"
                    );
                    let token = tokens.token_newer_than(token.generation).await?;
                    let answer = self.send(request, self.bearer(&token), gate).await?;
                    (answer, tokens.secrets(Some(&token)))
                } else {
                    (answer, tokens.secrets(Some(&token)))
                }
            }
        };
        let secrets: Vec<&SecretString> = secrets.iter().collect();
        if answer.status == http::StatusCode::UNAUTHORIZED && !is_page(&answer.body) {
            return Err(self.refused(operation, &answer, &secrets));
        }
        // A redirect says that the token has expired, and this one cannot have: whoever redirects us does so for another reason.
        judge(self.lane.peer(), operation, answer, &secrets)
    }

    /// [`Self::attempt`], repeated while that can help; `read` turns the answer into what was asked for. An answer that
    /// cannot be read is asked for again, like one that did not come. Only for what may be repeated.
    pub async fn ask<T>(&self, request: &Request, read: impl Fn(&Answer) -> Result<T, Failure>) -> Result<T, Failure> {
        self.lane
            .persist(request.operation, || async { read(&self.attempt(request).await?) })
            .await
    }

    async fn send(&self, request: &Request, headers: HeaderMap, gate: &mut impl Gate) -> Result<Answer, Failure> {
        if gate.is_open().await {
            return self.lane.exchange(request, headers).await;
        }
        let detail = "stopped before it was sent";
        Err(Failure::new(
            self.lane.peer(),
            request.operation,
            FailureKind::Stopped,
            detail,
        ))
    }

    fn bearer(&self, token: &Token) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(AUTHORIZATION, token.header.clone());
        headers
    }

    fn api_key_header(&self, operation: &'static str, key: &SecretString) -> Result<HeaderValue, Failure> {
        let mut value = HeaderValue::from_str(key.expose_secret()).map_err(|_| {
            let detail = "the API key holds characters that no header can carry";
            Failure::new(self.lane.peer(), operation, FailureKind::Credentials, detail)
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// A fresh token was refused, too: the key behind it is revoked or expired.
    fn refused(&self, operation: &'static str, answer: &Answer, secrets: &[&SecretString]) -> Failure {
        let words = crate::http::words_of(&answer.body, secrets);
        let what = match (&self.auth, self.lane.peer()) {
            (Auth::ApiKey(_), _) => "the API key was refused",
            (Auth::Token(_), Peer::Torq) => "a new token was refused, too: the API key is revoked or expired",
            (Auth::Token(_), Peer::JumpCloud) => {
                "a new token was refused, too: the service account is disabled or its secret expired"
            }
        };
        let detail = if words.is_empty() {
            what.to_owned()
        } else {
            format!("{what} (“{words}”)")
        };
        Failure {
            status: Some(answer.status),
            ..Failure::new(self.lane.peer(), operation, FailureKind::Credentials, detail)
        }
    }
}

#[cfg(test)]
mod tests;
