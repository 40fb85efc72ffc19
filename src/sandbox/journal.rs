//! What the sandbox was asked: endpoints by name, and a bounded journal of requests for tests to look at.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use serde_json::Value;

/// One of the two services that the sandbox plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Torq's API and token endpoint.
    Torq,
    /// JumpCloud's console API and token endpoint.
    JumpCloud,
}

impl Peer {
    /// Lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Torq => "torq",
            Self::JumpCloud => "jumpcloud",
        }
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `POST` of client credentials to Torq.
    TorqToken,
    /// `GET …/users` of Torq.
    TorqUsers,
    /// `GET …/roles` of Torq.
    TorqRoles,
    /// `POST` of client credentials to JumpCloud.
    JumpCloudToken,
    /// The list of applications.
    Applications,
    /// One application: `GET`, `PUT`, `DELETE`.
    Application,
    /// `POST` of an application.
    ApplicationCreate,
    /// The list of an application's accounts.
    Accounts,
    /// `POST` of an account.
    AccountCreate,
    /// `PUT` of an account: its directory user.
    AccountAssociate,
    /// `DELETE` of an account.
    AccountDelete,
    /// `GET` of one account.
    AccountGet,
    /// `GET` of the directory users.
    DirectoryList,
    /// `POST` of a search for directory users.
    DirectorySearch,
    /// Everything else, on either API.
    Other,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 15] = [
        Self::TorqToken,
        Self::TorqUsers,
        Self::TorqRoles,
        Self::JumpCloudToken,
        Self::Applications,
        Self::Application,
        Self::ApplicationCreate,
        Self::Accounts,
        Self::AccountCreate,
        Self::AccountAssociate,
        Self::AccountDelete,
        Self::AccountGet,
        Self::DirectoryList,
        Self::DirectorySearch,
        Self::Other,
    ];

    /// The name on the command line and in the control API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TorqToken => "torq-token",
            Self::TorqUsers => "users",
            Self::TorqRoles => "roles",
            Self::JumpCloudToken => "jumpcloud-token",
            Self::Applications => "applications",
            Self::Application => "application",
            Self::ApplicationCreate => "application-create",
            Self::Accounts => "accounts",
            Self::AccountCreate => "account-create",
            Self::AccountAssociate => "account-associate",
            Self::AccountDelete => "account-delete",
            Self::AccountGet => "account-get",
            Self::DirectoryList => "directory-list",
            Self::DirectorySearch => "directory-search",
            Self::Other => "other",
        }
    }

    /// Reads [`Self::as_str`] back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.as_str() == text)
    }
}

/// How a request identified itself. The secret itself is never kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationKind {
    /// Not at all.
    None,
    /// `Authorization: Basic`.
    Basic,
    /// `Authorization: Bearer`.
    Bearer,
    /// `x-api-key`.
    ApiKey,
    /// Another scheme.
    Other,
}

/// One request that a peer received.
#[derive(Clone, Debug)]
pub struct RequestLog {
    /// When it arrived.
    pub at: Timestamp,
    /// Which peer it was for.
    pub peer: Peer,
    /// Its method.
    pub method: String,
    /// Its path, with the peer's prefix.
    pub path: String,
    /// Its decoded query.
    pub query: Vec<(String, String)>,
    /// What it was for.
    pub endpoint: Endpoint,
    /// The status that went out; `None` while there is no answer, and for ever when the connection was closed instead.
    pub status: Option<u16>,
    /// The status that the API came to, whether it went out or not; `None` when a fault kept the request from it, so
    /// that it had no effect.
    pub handled: Option<u16>,
    /// The fault that hit it, by name.
    pub fault: Option<&'static str>,
    /// The JSON that it carried.
    pub body: Option<Value>,
    /// How it identified itself.
    pub authorization: AuthorizationKind,
    /// Its `x-org-id`.
    pub org_id: Option<String>,
}

impl RequestLog {
    /// Whether it would change something in JumpCloud.
    pub fn is_write(&self) -> bool {
        self.peer == Peer::JumpCloud
            && match self.endpoint {
                Endpoint::ApplicationCreate
                | Endpoint::AccountCreate
                | Endpoint::AccountAssociate
                | Endpoint::AccountDelete => true,
                Endpoint::JumpCloudToken | Endpoint::DirectorySearch => false,
                _ => matches!(self.method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE"),
            }
    }

    /// The value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The journal: the newest requests in full, and counts of all of them.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<RequestLog>,
    /// The number of the first entry; entries before it were dropped.
    first: u64,
    by_endpoint: HashMap<Endpoint, usize>,
    by_method: HashMap<(String, Endpoint), usize>,
}

impl Journal {
    /// More requests than this are not kept: a demo may run for weeks.
    const KEPT: usize = 200_000;

    /// Notes an arrival; the number is for [`Self::close`].
    pub(super) fn open(&mut self, entry: RequestLog) -> u64 {
        *self.by_endpoint.entry(entry.endpoint).or_default() += 1;
        *self
            .by_method
            .entry((entry.method.clone(), entry.endpoint))
            .or_default() += 1;
        if self.entries.len() == Self::KEPT {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(entry);
        self.first + self.entries.len() as u64 - 1
    }

    /// Notes what came of an arrival, unless it was dropped meanwhile.
    pub(super) fn close(&mut self, number: u64, status: Option<u16>, handled: Option<u16>) {
        let index = number
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.status = status;
            entry.handled = handled;
        }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &RequestLog> {
        self.entries.iter()
    }

    pub(super) fn count(&self, endpoint: Endpoint) -> usize {
        self.by_endpoint.get(&endpoint).copied().unwrap_or(0)
    }

    /// Counts by method and endpoint, in the order of the endpoints.
    pub(super) fn counts(&self) -> Vec<(String, Endpoint, usize)> {
        let mut counts: Vec<_> = self
            .by_method
            .iter()
            .map(|((method, endpoint), count)| (method.clone(), *endpoint, *count))
            .collect();
        counts.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        counts
    }

    pub(super) fn clear(&mut self) {
        self.first += self.entries.len() as u64;
        self.entries.clear();
        self.by_endpoint.clear();
        self.by_method.clear();
    }
}
