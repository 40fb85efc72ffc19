//! The client of JumpCloud: SaaS Management (v2) and the directory (v1). One method for each request; what to do with the
//! answers is `sync::deliver`'s business.
//!
//! Facts: JumpCloud API reference (SaaS Management, system users, search) and published clients. **Writing accounts is not in
//! the public reference**; create and associate follow the resource model, and "not offered" is an outcome of its own.

mod pages;
mod reading;
mod rows;

use std::collections::{HashMap, HashSet};

use http::Method;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use crate::http::foreign::{Field, MAX_TEXT, read_record};
use crate::http::{Answer, Body, Failure, FailureKind, Request, decode, is_page};
use crate::model::{AccountId, ApplicationId, DirectoryUserId, EmailKey, Peer};
use crate::oauth::{Gate, Open, Session};

pub use pages::Pages;
use pages::Rows;
use rows::Row;
pub use rows::{Account, Application, DirectoryUser, Unread, account_print};

/// Requests a second at most. JumpCloud does not publish its limit, and blocks the address of who exceeds it.
pub const RATE: f64 = 40.0;

/// Addresses in one directory search.
pub const SEARCH_BATCH: usize = 100;

/// JumpCloud, for one organisation.
#[derive(Debug)]
pub struct JumpCloud {
    session: Session,
}

const SAAS: [&str; 4] = ["api", "v2", "saas-management", "applications"];

impl JumpCloud {
    /// A client that sends through `session`.
    pub fn new(session: Session) -> Self {
        Self { session }
    }

    /// The way to JumpCloud.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// All applications of the organisation, page by page.
    pub fn applications(&self) -> Pages<'_, Application> {
        Pages::new(&self.session, "list applications", self.session.url(SAAS))
    }

    /// One application; `None` when it is not there (any more).
    pub async fn application(&self, id: &ApplicationId) -> Result<Option<Application>, Failure> {
        let request = self.request("get application", Method::GET, &[id.as_str()], Body::Empty);
        let read = |answer: &Answer| match one::<Application>(&request, answer)? {
            Ok(application) if application.id == *id => Ok(application),
            Ok(_) => Err(strange(
                &request,
                answer,
                "it is another application than was asked for",
            )),
            Err(unread) => Err(strange(&request, answer, unread.reason)),
        };
        found(self.session.ask(&request, read).await)
    }

    /// Creates the application. One attempt: after a failure, look before you repeat it.
    pub async fn create_application(&self, catalog_app_id: &str) -> Result<Application, Failure> {
        let body = Body::Json(json!({ "catalog_app_id": catalog_app_id }));
        let request = self.request("create application", Method::POST, &[], body);
        let read = |answer: &Answer| one(&request, answer)?.map_err(|unread| strange(&request, answer, unread.reason));
        self.once(&request, read).await
    }

    /// All accounts of an application, page by page.
    pub fn accounts(&self, application: &ApplicationId) -> Pages<'_, Account> {
        let url = self
            .session
            .url(SAAS.into_iter().chain([application.as_str(), "accounts"]));
        Pages::new(&self.session, "list accounts", url)
    }

    /// One account, or what is known of one that cannot be read; `None` when it is not there (any more).
    pub async fn account(
        &self,
        application: &ApplicationId,
        id: &AccountId,
    ) -> Result<Option<Result<Account, Unread>>, Failure> {
        let path = [application.as_str(), "accounts", id.as_str()];
        let request = self.request("get account", Method::GET, &path, Body::Empty);
        let read = |answer: &Answer| match one::<Account>(&request, answer)? {
            Ok(account) if account.id != *id => {
                Err(strange(&request, answer, "it is another account than was asked for"))
            }
            // Without an id it may be anything.
            Err(unread) if unread.id.as_deref() != Some(id.as_str()) => Err(strange(&request, answer, unread.reason)),
            account => Ok(account),
        };
        found(self.session.ask(&request, read).await)
    }

    /// Creates an account. One attempt: after a failure whose effect is unknown, look before you repeat it. The gate is asked
    /// when the request's turn has come, right before it is sent.
    ///
    /// # Errors
    /// [`FailureKind::Conflict`] (409): the application has an account with that e-mail already. An answer that speaks of somebody
    /// else's account is [`FailureKind::Unintelligible`] and `astray`: the list must say what became of the create.
    /// [`FailureKind::Stopped`]: the gate was closed.
    pub async fn create_account(
        &self,
        application: &ApplicationId,
        email: &str,
        directory_user: Option<&DirectoryUserId>,
        gate: &mut impl Gate,
    ) -> Result<Account, Failure> {
        let mut body = json!({ "email": email });
        if let Some(user) = directory_user {
            body["user_id"] = json!(user.as_str());
        }
        let path = [application.as_str(), "accounts"];
        let request = self.request("create account", Method::POST, &path, Body::Json(body));
        let wanted = EmailKey::fold(email);
        let read = |answer: &Answer| match one::<Account>(&request, answer)? {
            Ok(account) if account.key().is_some() && !account.is_of(&wanted) => Err(Failure {
                astray: true,
                ..strange(&request, answer, "it is the account of another e-mail")
            }),
            Ok(account) => Ok(account),
            Err(unread) => Err(strange(&request, answer, unread.reason)),
        };
        self.once_if(&request, gate, read).await
    }

    /// Associates an account with a directory user. One attempt; repeating it does no harm.
    pub async fn associate(
        &self,
        application: &ApplicationId,
        account: &AccountId,
        user: &DirectoryUserId,
    ) -> Result<(), Failure> {
        let path = [application.as_str(), "accounts", account.as_str()];
        let body = Body::Json(json!({ "user_id": user.as_str() }));
        let request = self.request("associate account", Method::PUT, &path, body);
        let read = |answer: &Answer| {
            if is_page(&answer.body) {
                return Err(strange(&request, answer, "it is a page of HTML"));
            }
            // Not documented, so all that is believed of it is a contradiction.
            let mut fields = [Field::<MAX_TEXT>::Absent];
            let is_object = read_record(&answer.body, &["user_id"], &mut fields).unwrap_or_default();
            match fields {
                [Field::Text(other)] if is_object && other != user.as_str() => Err(Failure {
                    status: Some(answer.status),
                    ..Failure::new(
                        Peer::JumpCloud,
                        request.operation,
                        FailureKind::Refused,
                        "the answer is the account with another directory user than the one it was to have",
                    )
                }),
                _ => Ok(()),
            }
        };
        self.once(&request, read).await
    }

    /// Deletes an account. One attempt; repeating it does no harm. The gate is asked when the request's turn has come, right
    /// before it is sent.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`]: it is gone already, or accounts cannot be deleted here. [`FailureKind::Stopped`]: the gate was closed.
    pub async fn delete_account(
        &self,
        application: &ApplicationId,
        account: &AccountId,
        gate: &mut impl Gate,
    ) -> Result<(), Failure> {
        let path = [application.as_str(), "accounts", account.as_str()];
        let request = self.request("delete account", Method::DELETE, &path, Body::Empty);
        // Documented: 200 with the object, or 204. A page of HTML comes from somebody in between, who has deleted nothing.
        let read = |answer: &Answer| match is_page(&answer.body) {
            true => Err(strange(&request, answer, "it is a page of HTML")),
            false => Ok(()),
        };
        self.once_if(&request, gate, read).await
    }

    /// Deletes an application, and with it whatever is in it. One attempt; repeating it does no harm. `false`: JumpCloud
    /// says that it is not there. An earlier answer may have been lost; or it says so of what it does not offer, so ask for the
    /// application itself.
    pub async fn delete_application(&self, application: &ApplicationId) -> Result<bool, Failure> {
        let path = [application.as_str()];
        let request = self.request("delete application", Method::DELETE, &path, Body::Empty);
        Ok(found(self.once(&request, |_| Ok(())).await)?.is_some())
    }

    /// Directory users with one of these addresses: a batch of at most [`SEARCH_BATCH`].
    ///
    /// The filter compares exactly; the directory keeps addresses in lower case, so folded keys are asked for.
    pub async fn directory_users(&self, emails: &[EmailKey]) -> Result<HashMap<EmailKey, DirectoryUserId>, Failure> {
        const OPERATION: &str = "search directory users";
        let asked: Vec<_> = emails.iter().map(|email| json!({ "email": email.as_str() })).collect();
        let wanted: HashSet<&EmailKey> = emails.iter().collect();
        let mut found: HashMap<EmailKey, DirectoryUserId> = HashMap::new();
        let mut seen: HashSet<DirectoryUserId> = HashSet::new();
        loop {
            let request = Request {
                operation: OPERATION,
                method: Method::POST,
                url: self.session.url(["api", "search", "systemusers"]),
                query: Vec::new(),
                body: Body::Json(json!({
                    "filter": { "or": &asked },
                    "fields": "email",
                    "limit": SEARCH_BATCH,
                    "skip": seen.len(),
                })),
            };
            let page: Rows<DirectoryUser> = self.session.ask(&request, |answer| read(&request, answer)).await?;
            let before = seen.len();
            for user in page.0 {
                // A server that ignores the filter sends everybody.
                let key = user
                    .email
                    .as_deref()
                    .map(EmailKey::fold)
                    .filter(|key| wanted.contains(key));
                if let Some(key) = key {
                    // Of two with one address always the same, or the association would go to and fro.
                    let known = found.entry(key).or_insert_with(|| user.id.clone());
                    *known = std::cmp::min(&*known, &user.id).clone();
                }
                seen.insert(user.id);
            }
            // A server may cap the page below the limit, so only an empty page, or everybody found, ends the list. A page of
            // repetitions comes from a server that ignores `skip`: there is nothing more to be had.
            if seen.len() == before || found.len() >= emails.len() {
                return Ok(found);
            }
        }
    }

    /// Whether the directory answers these credentials: tells a missing licence from missing permission.
    pub async fn directory_answers(&self) -> Result<(), Failure> {
        let request = Request {
            operation: "list directory users",
            method: Method::GET,
            url: self.session.url(["api", "systemusers"]),
            query: [("limit", "1"), ("skip", "0"), ("sort", "_id"), ("fields", "email")]
                .map(|(name, value)| (name, value.to_owned()))
                .to_vec(),
            body: Body::Empty,
        };
        self.session
            .ask(&request, |answer| {
                read::<Rows<DirectoryUser>>(&request, answer).map(drop)
            })
            .await
    }

    fn request(&self, operation: &'static str, method: Method, path: &[&str], body: Body) -> Request {
        Request {
            operation,
            method,
            url: self.session.url(SAAS.into_iter().chain(path.iter().copied())),
            query: Vec::new(),
            body,
        }
    }

    async fn once<T>(&self, request: &Request, read: impl Fn(&Answer) -> Result<T, Failure>) -> Result<T, Failure> {
        self.once_if(request, &mut Open, read).await
    }

    /// One attempt, if the gate is open when its turn has come, and each time that it is about to be sent.
    async fn once_if<T>(
        &self,
        request: &Request,
        gate: &mut impl Gate,
        read: impl Fn(&Answer) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let attempt = async { read(&self.session.attempt_if(request, gate).await?) };
        self.session.lane().once(request.operation, attempt).await
    }
}

fn read<T: for<'a> Deserialize<'a>>(request: &Request, answer: &Answer) -> Result<T, Failure> {
    decode(Peer::JumpCloud, request.operation, answer)
}

/// Reads a page of a list, for fuzzing.
pub(crate) fn read_rows<T: Row>(answer: &Answer) -> Result<(Vec<T>, Vec<Unread>), Failure> {
    pages::read_page("list", answer)
}

/// Reads a row that stands alone, for fuzzing.
pub(crate) fn read_row<T: Row>(answer: &Answer) -> Result<Result<T, Unread>, Failure> {
    row_of("get", answer)
}

fn one<T: Row>(request: &Request, answer: &Answer) -> Result<Result<T, Unread>, Failure> {
    row_of(request.operation, answer)
}

/// Reads an answer that is one row, or what is known of it.
fn row_of<T: Row>(operation: &'static str, answer: &Answer) -> Result<Result<T, Unread>, Failure> {
    struct One<T>(Result<T, Unread>);

    impl<'de, T: Row> Deserialize<'de> for One<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            rows::row(deserializer).map(One)
        }
    }

    decode(Peer::JumpCloud, operation, answer).map(|One(row)| row)
}

/// The failure for an answer that is JSON and not what was asked for.
fn strange(request: &Request, answer: &Answer, what: &str) -> Failure {
    Failure {
        status: Some(answer.status),
        ..Failure::new(
            Peer::JumpCloud,
            request.operation,
            FailureKind::Unintelligible,
            format!("the answer is not what it should be: {what}"),
        )
    }
}

fn found<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        // Of a page that somebody in between may have made, nobody learns that something is gone.
        Err(failure) if failure.kind == FailureKind::NotFound && failure.page => Err(Failure {
            kind: FailureKind::Unintelligible,
            ..failure
        }),
        Err(failure) if failure.kind == FailureKind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}
