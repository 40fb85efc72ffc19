//! The client of JumpCloud: SaaS Management (v2) and the directory (v1). One method for each request; what to do with the
//! answers is `sync::deliver`'s business.
//!
//! Facts: JumpCloud API reference (SaaS Management, system users, search) and published clients. **Writing accounts is not in
//! the public reference**; create and associate follow the resource model, and "not offered" is an outcome of its own.

mod pages;

use http::Method;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use crate::http::{Answer, Body, Failure, FailureKind, Request, decode};
use crate::model::{AccountId, ApplicationId, DirectoryUserId, EmailKey, Peer};
use crate::oauth::Session;

pub use pages::Pages;

/// Requests a second at most. JumpCloud does not publish its limit, and blocks the address of who exceeds it.
pub const RATE: f64 = 40.0;

/// Addresses in one directory search.
pub const SEARCH_BATCH: usize = 100;

/// Torq's entry in SaaS Management.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Application {
    /// 24 hex digits.
    pub id: ApplicationId,
    /// Which application of the catalog it is.
    #[serde(default)]
    pub catalog_app_id: Option<String>,
}

/// A user's record under an application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// May be missing.
    #[serde(default, deserialize_with = "text")]
    pub email: Option<String>,
    /// May be missing, also together with the e-mail.
    #[serde(default, deserialize_with = "text")]
    pub username: Option<String>,
    /// The directory user whom it belongs to; missing when nobody matches.
    #[serde(default, deserialize_with = "text")]
    pub user_id: Option<String>,
}

impl Account {
    /// By what the account is recognised: its e-mail, or the user name where there is no e-mail; `None` with neither.
    pub fn key(&self) -> Option<EmailKey> {
        [&self.email, &self.username]
            .into_iter()
            .flatten()
            .map(|text| EmailKey::fold(text))
            .find(|key| !key.is_empty())
    }

    /// The directory user whom it is associated with.
    pub fn directory_user(&self) -> Option<DirectoryUserId> {
        let id = self.user_id.as_deref().filter(|id| !id.is_empty())?;
        Some(DirectoryUserId::new(id))
    }
}

/// A person in the JumpCloud directory (v1 says `_id`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DirectoryUser {
    /// The id.
    #[serde(rename = "_id", alias = "id")]
    pub id: DirectoryUserId,
    /// The e-mail.
    #[serde(default, deserialize_with = "text")]
    pub email: Option<String>,
}

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
        found(self.session.ask(&request, |answer| read(&request, answer)).await)
    }

    /// Creates the application. One attempt: after a failure, look before you repeat it.
    pub async fn create_application(&self, catalog_app_id: &str) -> Result<Application, Failure> {
        let body = Body::Json(json!({ "catalog_app_id": catalog_app_id }));
        let request = self.request("create application", Method::POST, &[], body);
        self.once(&request, |answer| read(&request, answer)).await
    }

    /// All accounts of an application, page by page.
    pub fn accounts(&self, application: &ApplicationId) -> Pages<'_, Account> {
        let url = self
            .session
            .url(SAAS.into_iter().chain([application.as_str(), "accounts"]));
        Pages::new(&self.session, "list accounts", url)
    }

    /// One account; `None` when it is not there (any more).
    pub async fn account(&self, application: &ApplicationId, id: &AccountId) -> Result<Option<Account>, Failure> {
        let path = [application.as_str(), "accounts", id.as_str()];
        let request = self.request("get account", Method::GET, &path, Body::Empty);
        found(self.session.ask(&request, |answer| read(&request, answer)).await)
    }

    /// Creates an account. One attempt: after a failure whose effect is unknown, look before you repeat it.
    ///
    /// # Errors
    /// [`FailureKind::Conflict`] (409): the application has an account with that e-mail already.
    pub async fn create_account(
        &self,
        application: &ApplicationId,
        email: &str,
        directory_user: Option<&DirectoryUserId>,
    ) -> Result<Account, Failure> {
        let mut body = json!({ "email": email });
        if let Some(user) = directory_user {
            body["user_id"] = json!(user.as_str());
        }
        let path = [application.as_str(), "accounts"];
        let request = self.request("create account", Method::POST, &path, Body::Json(body));
        self.once(&request, |answer| read(&request, answer)).await
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
        self.once(&request, |_| Ok(())).await
    }

    /// Deletes an account. One attempt; repeating it does no harm. `false`: JumpCloud says that it is not there. An earlier answer may
    /// have been lost; or it says so of what it does not offer, so ask for the account itself.
    pub async fn delete_account(&self, application: &ApplicationId, account: &AccountId) -> Result<bool, Failure> {
        let path = [application.as_str(), "accounts", account.as_str()];
        let request = self.request("delete account", Method::DELETE, &path, Body::Empty);
        Ok(found(self.once(&request, |_| Ok(())).await)?.is_some())
    }

    /// Deletes an application, and with it whatever is in it. One attempt, as [`Self::delete_account`].
    pub async fn delete_application(&self, application: &ApplicationId) -> Result<bool, Failure> {
        let path = [application.as_str()];
        let request = self.request("delete application", Method::DELETE, &path, Body::Empty);
        Ok(found(self.once(&request, |_| Ok(())).await)?.is_some())
    }

    /// Directory users with one of these addresses: a batch of at most [`SEARCH_BATCH`].
    ///
    /// The filter compares exactly; the directory keeps addresses in lower case, so folded keys are asked for.
    pub async fn directory_users(&self, emails: &[EmailKey]) -> Result<Vec<DirectoryUser>, Failure> {
        const OPERATION: &str = "search directory users";
        let wanted: Vec<_> = emails.iter().map(|email| json!({ "email": email.as_str() })).collect();
        let mut users: Vec<DirectoryUser> = Vec::new();
        loop {
            let request = Request {
                operation: OPERATION,
                method: Method::POST,
                url: self.session.url(["api", "search", "systemusers"]),
                query: Vec::new(),
                body: Body::Json(json!({
                    "filter": { "or": &wanted },
                    "fields": "email",
                    "limit": SEARCH_BATCH,
                    "skip": users.len(),
                })),
            };
            let page: pages::Rows<DirectoryUser> = self.session.ask(&request, |answer| read(&request, answer)).await?;
            let before = users.len();
            for user in page.0 {
                if !users.iter().any(|known| known.id == user.id) {
                    users.push(user);
                }
            }
            // A server may cap the page below the limit, so only an empty page, or everybody found, ends the list. A page of
            // repetitions comes from a server that ignores `skip`: there is nothing more to be had.
            if users.len() == before || users.len() >= emails.len() {
                return Ok(users);
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
                read::<pages::Rows<DirectoryUser>>(&request, answer).map(drop)
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
        let attempt = async { read(&self.session.attempt(request).await?) };
        self.session.lane().once(request.operation, attempt).await
    }
}

fn read<T: for<'a> Deserialize<'a>>(request: &Request, answer: &Answer) -> Result<T, Failure> {
    decode(Peer::JumpCloud, request.operation, answer)
}

/// A text, or nothing where something else is: one odd field must not hide the account that has it.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().map(str::to_owned))
}

fn found<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.kind == FailureKind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}
