//! The client of the Torq REST API: one page of users, the roles. How pages become a snapshot is `sync::collect`'s business.
//!
//! Facts: Torq developer reference (authentication, pagination, errors, list-users, list-roles).

mod roles;
mod users;

use std::collections::BTreeMap;

use http::Method;
use url::Url;

use crate::http::{Body, Failure, FailureKind, Request};
use crate::model::Listing;
use crate::oauth::Session;

pub(crate) use roles::read_roles;
pub use users::{Unreadable, User, UsersPage, read_page};

/// The page size asked for: the documented maximum (the default is 50).
pub const PAGE_SIZE: usize = 100;

/// Requests a second at most: below the 50 that Torq allows.
pub const RATE: f64 = 40.0;

/// The token of a next page: opaque, may contain `+`, `/` and `=`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PageToken(String);

impl PageToken {
    /// Wraps a token as Torq sent it; `None` for the empty one, which means that there is no next page.
    pub fn new(text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self(text))
    }

    /// The token as Torq sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The Torq API of one workspace.
#[derive(Debug)]
pub struct Torq {
    session: Session,
}

impl Torq {
    /// A client that sends through `session`.
    pub fn new(session: Session) -> Self {
        Self { session }
    }

    /// The way to Torq.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// One page of a listing: the first without a token, the next ones with the token of the page before.
    ///
    /// # Errors
    /// A stale page token is a [`FailureKind::Refused`] (400) or [`FailureKind::NotFound`] (404). Without the scope
    /// `user.read`: [`FailureKind::Permission`] (403).
    pub async fn users_page(&self, listing: Listing, token: Option<&PageToken>) -> Result<UsersPage, Failure> {
        // On the wire parameters are snake case, as the resource fields are (observed), though the reference prints camel case.
        let mut query = vec![
            ("sso_provision", listing.sso_provision().to_string()),
            ("page_size", PAGE_SIZE.to_string()),
        ];
        if let Some(token) = token {
            query.push(("page_token", token.as_str().to_owned()));
        }
        let request = Request {
            operation: "list users",
            method: Method::GET,
            url: self.session.url(["users"]),
            query,
            body: Body::Empty,
        };
        let page = self.session.ask(&request, read_page).await;
        page.map_err(explain)
    }

    /// Whether there is a users list below another base, for the check of the configuration.
    pub async fn has_users_at(&self, base: &Url) -> bool {
        let mut url = base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("users");
        }
        let request = Request {
            operation: "list users",
            method: Method::GET,
            url,
            query: vec![("page_size", "1".to_owned())],
            body: Body::Empty,
        };
        self.session.attempt(&request).await.is_ok()
    }

    /// The names of the roles by id. Older clients use `users/roles`, which is asked when `roles` is not there.
    pub async fn roles(&self) -> Result<BTreeMap<String, String>, Failure> {
        match self.roles_at(&["roles"]).await {
            Err(failure) if failure.kind == FailureKind::NotFound => self.roles_at(&["users", "roles"]).await,
            result => result,
        }
    }

    async fn roles_at(&self, path: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
        const OPERATION: &str = roles::OPERATION;
        let request = Request {
            operation: OPERATION,
            method: Method::GET,
            url: self.session.url(path.iter().copied()),
            query: Vec::new(),
            body: Body::Empty,
        };
        // Once, and past the lane's own account of the peer: names are a convenience, nobody should wait for them, and that they
        // are not to be had says nothing about the users.
        self.session.lane().await_turn(OPERATION).await?;
        let answer = self.session.attempt(&request).await?;
        read_roles(&answer)
    }
}

/// Adds what a person can do to a failure of listing users.
fn explain(mut failure: Failure) -> Failure {
    if failure.kind == FailureKind::Permission {
        let words = if failure.detail.is_empty() {
            String::new()
        } else {
            format!(" (“{}”)", failure.detail)
        };
        failure.detail = format!("the role of the API key lacks the scope user.read{words}");
    }
    failure
}
