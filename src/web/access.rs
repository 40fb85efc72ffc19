//! Who may look at what names people: the page and the API. And the headers that every answer carries.
//!
//! A page elsewhere must not read these through somebody's browser. Their answers carry no CORS headers, so it would have to
//! pretend to be us under a name of its own (DNS rebinding); that is what the check of the `Host` header is for. A name must
//! be configured, while an IP address cannot be rebound.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

/// Who may look. `Debug` shows nothing of the password.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Whether the listener can be reached from this machine only. Elsewhere the page and the API need a password.
    pub local: bool,
    /// The password of the page and the API; any user name goes with it.
    pub password: Option<SecretString>,
    /// Names, besides IP addresses and `localhost`, by which browsers may call the page.
    pub hosts: Vec<String>,
}

impl Access {
    pub(super) fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }

    /// Whether this value of a `Host` header is a name (or address) of ours. The port does not matter: it is not part of what can
    /// be rebound.
    pub(crate) fn answers_to(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host();
        let port = authority.as_str().strip_prefix(host).unwrap_or("?");
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return false;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        address.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|name| host.eq_ignore_ascii_case(name))
    }

    fn named_rightly(&self, request: &Request) -> bool {
        let mut hosts = request.headers().get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        // A request line with a whole URL overrides the header (RFC 9112, 3.2.2).
        let overridden = request.uri().authority();
        host.to_str().is_ok_and(|host| self.answers_to(host))
            && overridden.is_none_or(|authority| self.answers_to(authority.as_str()))
    }

    /// Whether these headers carry the password (HTTP Basic). Any user name goes with it.
    pub(crate) fn knows_password(&self, headers: &HeaderMap, password: &SecretString) -> bool {
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
            .and_then(|(_, encoded)| BASE64_STANDARD.decode(encoded.trim()).ok());
        let Some(given) = given else {
            return false;
        };
        let Some(colon) = given.iter().position(|byte| *byte == b':') else {
            return false;
        };
        same(&given[colon + 1..], password.expose_secret().as_bytes())
    }
}

/// Compares in a time that depends on the length of what was given, and on nothing of the secret but its length.
fn same(given: &[u8], secret: &[u8]) -> bool {
    if secret.is_empty() {
        return false;
    }
    let mut difference = given.len() ^ secret.len();
    for (number, byte) in given.iter().enumerate() {
        difference |= usize::from(byte ^ secret[number % secret.len()]);
        // Keeps the compiler from leaving the loop early.
        difference = std::hint::black_box(difference);
    }
    difference == 0
}

/// Lets a request to the page or the API through, or says why not.
pub(super) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let refuse = |status, explanation| refuse(request.uri().path(), status, explanation);
    if !access.local && access.password.is_none() {
        return refuse(
            StatusCode::FORBIDDEN,
            "The page and the API name people. On an address that other machines can reach they are served only behind a \
             password: set http.password_file, or listen on a loopback address.",
        );
    }
    if !access.named_rightly(&request) {
        return refuse(
            StatusCode::MISDIRECTED_REQUEST,
            "The Host header names none of the names of this page. Use an IP address or localhost, or list the name under \
             http.hosts.",
        );
    }
    if let Some(password) = &access.password
        && !access.knows_password(request.headers(), password)
    {
        let mut response = refuse(
            StatusCode::UNAUTHORIZED,
            "The page and the API need the password of http.password_file; any user name will do.",
        );
        let challenge = HeaderValue::from_static("Basic realm=\"torq-connector\", charset=\"UTF-8\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return response;
    }
    next.run(request).await
}

/// Whether programs ask for this.
pub(super) fn is_api(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// Programs, who ask below `/api`, are told as programs.
fn refuse(path: &str, status: StatusCode, explanation: &str) -> Response {
    if is_api(path) {
        return (status, Json(json!({ "error": explanation }))).into_response();
    }
    (status, format!("{explanation}\n")).into_response()
}

/// Adds the headers that every answer carries.
pub(super) async fn headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
             form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        ),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert(
        "permissions-policy",
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), clipboard-write=(self)"),
    );
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_answered_to() {
        let access = Access {
            local: true,
            password: None,
            hosts: vec!["Status.example.com".to_owned()],
        };
        for ours in [
            "127.0.0.1",
            "127.0.0.1:8686",
            "10.1.2.3:80",
            "[::1]:8686",
            "[::1]",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "status.example.com",
            "status.EXAMPLE.com:8443",
        ] {
            assert!(access.answers_to(ours), "{ours}");
        }
        for foreign in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example@localhost",
            "localhost@evil.example",
            "status.example.com.evil.example",
            "127.1",
            "2130706433",
            "localhost:8686, evil.example",
            "localhost:[::1]:evil",
            "localhost:evil",
            "local host",
        ] {
            assert!(!access.answers_to(foreign), "{foreign}");
        }
    }

    #[test]
    fn passwords_are_compared_whole() {
        assert!(same(b"secret", b"secret"));
        for wrong in ["", "secre", "secrets", "Secret", "secretsecret", "terces"] {
            assert!(!same(wrong.as_bytes(), b"secret"), "{wrong}");
        }
        assert!(!same(b"", b""));
        assert!(!same(b"x", b""));
    }
}
