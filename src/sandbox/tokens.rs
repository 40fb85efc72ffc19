//! Client credentials and the tokens issued for them, and the rate limit: what a peer checks before it looks at a
//! request.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::exchange::{Asked, Reply};

/// What a bearer token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Valid,
    /// Issued once, and too old now.
    Expired,
    /// Never issued, or revoked.
    Unknown,
}

/// One peer's token endpoint.
#[derive(Debug)]
pub(super) struct TokenDesk {
    pub(super) client_id: String,
    pub(super) client_secret: String,
    /// Whether the credentials were revoked or have expired.
    pub(super) revoked: bool,
    lifetime: Duration,
    token_type: &'static str,
    scope: Option<&'static str>,
    issued: HashMap<String, Instant>,
    /// The newest [`Self::REMEMBERED`] tokens, whatever became of them.
    history: VecDeque<String>,
    random: fastrand::Rng,
}

impl TokenDesk {
    /// Expired tokens beyond so many are forgotten: a demo may run for weeks.
    const REMEMBERED: usize = 10_000;

    pub(super) fn new(
        client_id: String,
        client_secret: String,
        lifetime: Duration,
        token_type: &'static str,
        scope: Option<&'static str>,
        seed: u64,
    ) -> Self {
        Self {
            client_id,
            client_secret,
            revoked: false,
            lifetime,
            token_type,
            scope,
            issued: HashMap::new(),
            history: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    pub(super) fn standing(&self, token: &str, now: Instant) -> Standing {
        match self.issued.get(token) {
            None => Standing::Unknown,
            Some(expires) if *expires <= now => Standing::Expired,
            Some(_) => Standing::Valid,
        }
    }

    pub(super) fn expire_all(&mut self, now: Instant) {
        for expires in self.issued.values_mut() {
            *expires = now;
        }
    }

    pub(super) fn ever_issued(&self) -> impl Iterator<Item = String> {
        self.history.iter().cloned()
    }

    pub(super) fn forget_all(&mut self) {
        self.issued.clear();
    }

    /// Answers a request for a token, by RFC 6749 sections 4.4 and 5.2.
    pub(super) fn answer(&mut self, asked: &Asked, advertised: Option<Duration>) -> Reply {
        if asked.method != "POST" {
            return refuse(405, "invalid_request", "use POST");
        }
        let form = asked
            .header("content-type")
            .is_some_and(|kind| kind.split(';').next() == Some("application/x-www-form-urlencoded"));
        if !form {
            return refuse(400, "invalid_request", "the body must be a form");
        }
        if self.revoked || !self.credentials_match(asked) {
            return refuse(401, "invalid_client", "client authentication failed")
                .with_header("www-authenticate", "Basic");
        }
        let mut fields: Vec<_> = url::form_urlencoded::parse(&asked.body)
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect();
        fields.sort();
        let Some((_, grant)) = fields.iter().find(|(key, _)| key == "grant_type") else {
            return refuse(400, "invalid_request", "grant_type is missing");
        };
        if grant != "client_credentials" {
            return refuse(400, "unsupported_grant_type", "use client_credentials");
        }
        let scope = fields.iter().find(|(key, _)| key == "scope");
        if scope.map(|(_, value)| value.as_str()) != self.scope {
            return refuse(400, "invalid_scope", "the scope is missing or unknown");
        }
        if fields.len() != 1 + usize::from(self.scope.is_some()) {
            return refuse(400, "invalid_request", "unknown or repeated parameters");
        }

        let now = Instant::now();
        if self.issued.len() >= Self::REMEMBERED {
            self.issued.retain(|_, expires| *expires > now);
        }
        let token = format!("sandbox-{:032x}", self.random.u128(..));
        self.issued.insert(token.clone(), now + self.lifetime);
        if self.history.len() >= Self::REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(token.clone());
        let expires_in = advertised.unwrap_or(self.lifetime).as_secs();
        Reply::json(
            200,
            &json!({"access_token": token, "expires_in": expires_in, "token_type": self.token_type}),
        )
        .with_header("cache-control", "no-store")
    }

    fn credentials_match(&self, asked: &Asked) -> bool {
        asked
            .header("authorization")
            .and_then(|value| value.strip_prefix("Basic "))
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .is_some_and(|pair| pair == format!("{}:{}", self.client_id, self.client_secret).as_bytes())
    }
}

fn refuse(status: u16, error: &str, description: &str) -> Reply {
    Reply::json(status, &json!({"error": error, "error_description": description}))
}

/// A limit on the requests of any one second.
#[derive(Debug, Default)]
pub(super) struct Meter {
    recent: VecDeque<Instant>,
}

impl Meter {
    /// Whether one more request is too many. One that is refused does not count. A limit of 0 is none.
    pub(super) fn refuses(&mut self, now: Instant, limit: u32) -> bool {
        while self
            .recent
            .front()
            .is_some_and(|at| now.saturating_duration_since(*at) >= Duration::from_secs(1))
        {
            self.recent.pop_front();
        }
        if limit == 0 {
            return false;
        }
        if self.recent.len() >= limit as usize {
            return true;
        }
        self.recent.push_back(now);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meter_allows_so_many_in_any_second() {
        let mut meter = Meter::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!meter.refuses(at(0), 2));
        assert!(!meter.refuses(at(900), 2));
        assert!(meter.refuses(at(950), 2));
        assert!(!meter.refuses(at(1000), 2), "the first is a second ago");
        assert!(meter.refuses(at(1800), 2));
        assert!(!meter.refuses(at(1800), 0), "0 is no limit");
    }
}
