//! A request as the two APIs see it, the reply they make, and which endpoint a path is. Nothing here knows the network.

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::journal::{AuthorizationKind, Endpoint, Peer};

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn segments(&self) -> Vec<&str> {
        self.path.trim_start_matches('/').split('/').collect()
    }

    /// The first value of a query parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A query parameter that counts something: its default where it is absent, `None` where it is no number.
    pub(super) fn number(&self, name: &str, default: usize) -> Option<usize> {
        match self.parameter(name) {
            None | Some("") => Some(default),
            Some(text) => text.parse().ok(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        self.header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
    }

    pub(super) fn authorization(&self) -> AuthorizationKind {
        match self.header("authorization") {
            Some(value) if value.starts_with("Basic ") => AuthorizationKind::Basic,
            Some(value) if value.starts_with("Bearer ") => AuthorizationKind::Bearer,
            Some(_) => AuthorizationKind::Other,
            None if self.headers.contains_key("x-api-key") => AuthorizationKind::ApiKey,
            None => AuthorizationKind::None,
        }
    }

    /// Whether the body says that it is JSON.
    pub(super) fn says_json(&self) -> bool {
        self.header("content-type")
            .is_some_and(|kind| kind.split(';').next() == Some("application/json"))
    }

    /// The body, where it is JSON.
    pub(super) fn json(&self) -> Option<Value> {
        self.says_json()
            .then(|| serde_json::from_slice(&self.body).ok())
            .flatten()
    }

    /// Which peer is asked for what; `None` for paths that belong to neither.
    pub(super) fn endpoint(&self) -> Option<(Peer, Endpoint)> {
        let segments = self.segments();
        let method = self.method.as_str();
        let endpoint = match segments.as_slice() {
            ["torq", rest @ ..] => {
                let endpoint = match rest {
                    ["v1", "auth", "token"] => Endpoint::TorqToken,
                    [.., "v1alpha", "users"] => Endpoint::TorqUsers,
                    [.., "v1alpha", "roles"] | [.., "v1alpha", "users", "roles"] => Endpoint::TorqRoles,
                    _ => Endpoint::Other,
                };
                return Some((Peer::Torq, endpoint));
            }
            ["jumpcloud", "oauth2", "token"] => Endpoint::JumpCloudToken,
            ["jumpcloud", "api", "systemusers"] => Endpoint::DirectoryList,
            ["jumpcloud", "api", "search", "systemusers"] => Endpoint::DirectorySearch,
            ["jumpcloud", "api", "v2", "saas-management", "applications", rest @ ..] => match (method, rest) {
                ("GET", []) => Endpoint::Applications,
                ("POST", []) => Endpoint::ApplicationCreate,
                (_, [_]) => Endpoint::Application,
                ("GET", [_, "accounts"]) => Endpoint::Accounts,
                ("POST", [_, "accounts"]) => Endpoint::AccountCreate,
                ("GET", [_, "accounts", _]) => Endpoint::AccountGet,
                ("PUT", [_, "accounts", _]) => Endpoint::AccountAssociate,
                ("DELETE", [_, "accounts", _]) => Endpoint::AccountDelete,
                _ => Endpoint::Other,
            },
            ["jumpcloud", ..] => Endpoint::Other,
            _ => return None,
        };
        Some((Peer::JumpCloud, endpoint))
    }
}

/// A reply.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self::raw_json(status, &value.to_string())
    }

    /// A body that is JSON already, or claims to be.
    pub(super) fn raw_json(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.as_bytes().to_vec(),
        }
    }

    pub(super) fn html(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: vec![("content-type", "text/html; charset=utf-8".to_owned())],
            body: body.as_bytes().to_vec(),
        }
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: vec![("content-type", "text/plain; charset=utf-8".to_owned())],
            body: body.as_bytes().to_vec(),
        }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// An error in the shape of the peer.
    pub(super) fn error(peer: Peer, status: u16, message: &str) -> Self {
        match peer {
            Peer::Torq => {
                let code = match status {
                    400 => 3,
                    401 => 16,
                    403 => 7,
                    404 => 5,
                    405 | 501 => 12,
                    429 => 8,
                    502..=504 => 14,
                    _ => 13,
                };
                Self::json(status, &json!({"code": code, "message": message, "details": []}))
            }
            Peer::JumpCloud => Self::json(status, &json!({"message": message})),
        }
    }
}
