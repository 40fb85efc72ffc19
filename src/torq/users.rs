//! A page of users as Torq sends it, read without believing too much: proto3 JSON leaves out default values, new fields and
//! statuses may appear, and one bad record must not hide the others.

use serde::Deserialize;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::PageToken;
use crate::http::{Answer, Failure, FailureKind, clean, unintelligible};
use crate::model::{Email, Peer, UserId};

const OPERATION: &str = "list users";

/// The longest id that is believed, in bytes.
const MAX_ID: usize = 200;

/// A user's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The identity; never empty.
    pub id: String,
    /// The e-mail as sent; empty when there is none.
    pub email: String,
    /// The id of the role.
    pub role_id: String,
    /// The status, also one that is not known today.
    pub status: String,
    /// Provisioned by the SSO identity provider.
    pub sso: bool,
    /// RFC 3339, as sent.
    pub created: Option<String>,
    /// RFC 3339, as sent; `None` for a user who never logged in.
    pub last_login: Option<String>,
    /// Names of fields that were there and could not be read. What is known of them stays as it is.
    pub unreadable: Vec<&'static str>,
}

impl User {
    /// The id as its own type.
    pub fn user_id(&self) -> UserId {
        UserId::new(self.id.as_str())
    }

    /// The e-mail as its own type.
    pub fn address(&self) -> Email {
        Email::new(&self.email)
    }

    /// A number that stands for the whole record: equal for equal records, stored with the snapshot, so that an unchanged
    /// user is recognised without reading a row. `scratch` is reused from call to call.
    pub fn fingerprint(&self, scratch: &mut Vec<u8>) -> u64 {
        scratch.clear();
        let absent = |text: &Option<String>| text.is_none() as u8;
        for text in [&self.id, &self.email, &self.role_id, &self.status] {
            scratch.extend_from_slice(text.as_bytes());
            scratch.push(0);
        }
        for text in [&self.created, &self.last_login] {
            scratch.extend_from_slice(text.as_deref().unwrap_or_default().as_bytes());
            scratch.push(0);
        }
        scratch.push(self.sso as u8 | absent(&self.created) << 1 | absent(&self.last_login) << 2);
        for field in &self.unreadable {
            scratch.extend_from_slice(field.as_bytes());
            scratch.push(0);
        }
        xxh3_64(scratch)
    }
}

/// A record that has no readable id, or fields that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its id, when that could be read.
    pub id: Option<String>,
    /// What was wrong, for a person.
    pub reason: String,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsersPage {
    /// The users, in the order of the answer.
    pub users: Vec<User>,
    /// What could not be read.
    pub unreadable: Vec<Unreadable>,
    /// The token of the next page; `None` on the last. The token is the truth, not the length of the page.
    pub next: Option<PageToken>,
}

/// The answer of `GET users`. Every field may be missing or null (proto3 JSON).
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    users: Option<Vec<Record>>,
    #[serde(default, alias = "nextPageToken")]
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    role_id: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    sso_provision: Option<bool>,
    #[serde(default)]
    created_time: Option<String>,
    #[serde(default)]
    last_login_time: Option<String>,
}

/// Reads a page. Structs first, which is twice as fast as [`Value`]; record by record when that fails.
///
/// # Errors
/// [`FailureKind::Unintelligible`] when the body is not a page of users at all.
pub fn read_page(answer: &Answer) -> Result<UsersPage, Failure> {
    match serde_json::from_slice::<Page>(&answer.body) {
        Ok(Page {
            users: Some(records),
            next_page_token,
        }) if records.iter().all(|record| readable_id(&record.id)) => Ok(UsersPage {
            users: records.into_iter().map(User::from).collect(),
            unreadable: Vec::new(),
            next: next_page_token.and_then(PageToken::new),
        }),
        Err(error) if !error.is_data() => Err(unintelligible(Peer::Torq, OPERATION, answer, &error)),
        _ => read_carefully(answer),
    }
}

fn readable_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID && !id.chars().any(char::is_control)
}

impl From<Record> for User {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            email: record.email.unwrap_or_default(),
            role_id: record.role_id.unwrap_or_default(),
            status: record.status.unwrap_or_default(),
            sso: record.sso_provision.unwrap_or_default(),
            created: record.created_time.filter(|text| !text.is_empty()),
            last_login: record.last_login_time.filter(|text| !text.is_empty()),
            unreadable: Vec::new(),
        }
    }
}

fn read_carefully(answer: &Answer) -> Result<UsersPage, Failure> {
    let wrong = |what: String| Failure {
        status: Some(answer.status),
        ..Failure::new(Peer::Torq, OPERATION, FailureKind::Unintelligible, what)
    };
    let body: Value =
        serde_json::from_slice(&answer.body).map_err(|error| unintelligible(Peer::Torq, OPERATION, answer, &error))?;
    let Value::Object(body) = body else {
        return Err(wrong("the body is not a JSON object with users".to_owned()));
    };
    let mut page = UsersPage::default();
    let token = body.get("next_page_token").or_else(|| body.get("nextPageToken"));
    page.next = match token {
        None | Some(Value::Null) => None,
        Some(Value::String(token)) => PageToken::new(token.clone()),
        Some(_) => return Err(wrong("next_page_token is not a text".to_owned())),
    };
    match body.get("users") {
        Some(Value::Array(records)) => {
            for (index, record) in records.iter().enumerate() {
                match read_record(record, index) {
                    Ok((user, None)) => page.users.push(user),
                    Ok((user, Some(unreadable))) => {
                        page.users.push(user);
                        page.unreadable.push(unreadable);
                    }
                    Err(unreadable) => page.unreadable.push(unreadable),
                }
            }
        }
        // An empty list is left out in proto3 JSON. An object that speaks of something else is not an empty page.
        None | Some(Value::Null) => {
            let known = ["users", "next_page_token", "nextPageToken"];
            if let Some(other) = body.keys().find(|key| !known.contains(&key.as_str())) {
                return Err(wrong(format!("the body has no users, but “{}”", clean(other))));
            }
        }
        Some(_) => return Err(wrong("users is not a list".to_owned())),
    }
    Ok(page)
}

fn read_record(record: &Value, index: usize) -> Result<(User, Option<Unreadable>), Unreadable> {
    let nameless = |what: &str| Unreadable {
        id: None,
        reason: format!("record {} of the page {what}", index + 1),
    };
    let Value::Object(record) = record else {
        return Err(nameless("is not an object"));
    };
    let id = match record.get("id") {
        Some(Value::String(id)) if readable_id(id) => id.clone(),
        Some(Value::String(_)) => return Err(nameless("has an id that is empty, too long or not printable")),
        None | Some(Value::Null) => return Err(nameless("has no id")),
        Some(_) => return Err(nameless("has an id that is not a text")),
    };
    let mut user = User { id, ..User::default() };
    let mut text = |name: &'static str| match record.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        // An enum value that the server's JSON has no name for comes as a number (proto3 JSON).
        Some(Value::Number(number)) if name == "status" => number.to_string(),
        Some(_) => {
            user.unreadable.push(name);
            String::new()
        }
    };
    let optional = |text: String| (!text.is_empty()).then_some(text);
    let (email, role_id, status) = (text("email"), text("role_id"), text("status"));
    let (created, last_login) = (optional(text("created_time")), optional(text("last_login_time")));
    (user.email, user.role_id, user.status) = (email, role_id, status);
    (user.created, user.last_login) = (created, last_login);
    match record.get("sso_provision") {
        None | Some(Value::Null) => {}
        Some(Value::Bool(sso)) => user.sso = *sso,
        Some(_) => user.unreadable.push("sso_provision"),
    }
    let unreadable = (!user.unreadable.is_empty()).then(|| Unreadable {
        id: Some(user.id.clone()),
        reason: format!("cannot read {}; what was known of it stays", user.unreadable.join(", ")),
    });
    Ok((user, unreadable))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status: http::StatusCode::OK,
            body: body.into().into(),
            retry_after: None,
        }
    }

    fn read(body: &str) -> UsersPage {
        read_page(&answer(body)).unwrap()
    }

    fn refused(body: &[u8]) -> String {
        let failure = read_page(&answer(body)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unintelligible);
        failure.to_string()
    }

    #[test]
    fn a_full_record_and_one_with_defaults_left_out() {
        let page = read(
            r#"{"users":[
              {"id":"u1","email":"Ada@Example.com","role_id":"r","status":"VERIFIED","sso_provision":true,
               "created_time":"2022-03-09T08:40:18.490771179Z","last_login_time":"2023-01-01T00:00:00Z","new_field":[1]},
              {"id":"u2","email":null}
            ],"next_page_token":"a+/=="}"#,
        );
        assert_eq!(page.users[0].email, "Ada@Example.com");
        assert!(page.users[0].sso);
        assert_eq!(page.users[0].created.as_deref(), Some("2022-03-09T08:40:18.490771179Z"));
        let bare = User {
            id: "u2".into(),
            ..User::default()
        };
        assert_eq!(page.users[1], bare);
        assert_eq!(page.next.unwrap().as_str(), "a+/==");
        assert!(page.unreadable.is_empty());
    }

    #[test]
    fn an_empty_page_is_one_and_an_error_body_with_200_is_not() {
        for empty in ["{}", r#"{"users":[]}"#, r#"{"users":null,"next_page_token":""}"#] {
            assert_eq!(read(empty), UsersPage::default());
        }
        assert_eq!(read(r#"{"nextPageToken":"t"}"#).next, PageToken::new("t".into()));
        for wrong in [
            r#"{"code":7,"message":"denied"}"#,
            "[]",
            "null",
            r#"{"users":{}}"#,
            r#"{"users":[],"next_page_token":5}"#,
            r#"{"data":[]}"#,
        ] {
            refused(wrong.as_bytes());
        }
    }

    #[test]
    fn what_is_wrong_with_a_body_is_named() {
        assert!(refused(b"<!DOCTYPE html><html>").contains("HTML page"));
        assert!(refused(br#"{"users":[{"id":"u1""#).contains("cut short"));
        assert!(refused(b"").contains("empty body"));
        assert!(refused(b"{\"users\":[{\"id\":\"\xff\"}]}").contains("not UTF-8"));
        let deep = format!("{{\"users\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        refused(deep.as_bytes());
    }

    #[test]
    fn one_bad_record_does_not_hide_the_others() {
        let page = read(
            r#"{"users":[{"id":"u1"},{"email":"x@example.com"},{"id":7},{"id":""},"text",
               {"id":"u2","email":5,"status":7,"sso_provision":"yes","role_id":"r"},{"id":"u3"}]}"#,
        );
        let ids: Vec<_> = page.users.iter().map(|user| user.id.as_str()).collect();
        assert_eq!(ids, ["u1", "u2", "u3"]);
        assert_eq!(page.unreadable.len(), 5);
        assert_eq!(page.unreadable.iter().filter(|record| record.id.is_none()).count(), 4);
        let odd = &page.users[1];
        assert_eq!(odd.unreadable, ["email", "sso_provision"]);
        assert_eq!((odd.status.as_str(), odd.role_id.as_str()), ("7", "r"));
    }

    #[test]
    fn a_fingerprint_tells_every_field() {
        let base = read(
            r#"{"users":[{"id":"u","email":"e","role_id":"r","status":"s","sso_provision":true,"created_time":"c","last_login_time":"l"}]}"#,
        )
        .users
        .remove(0);
        let changes: [fn(&mut User); 8] = [
            |u| u.id.push('x'),
            |u| u.email.push('x'),
            |u| u.role_id.push('x'),
            |u| u.status.push('x'),
            |u| u.sso = false,
            |u| u.created = None,
            |u| u.last_login = None,
            |u| u.unreadable.push("email"),
        ];
        let mut scratch = Vec::new();
        let mut seen = std::collections::HashSet::from([base.fingerprint(&mut scratch)]);
        for change in changes {
            let mut user = base.clone();
            change(&mut user);
            assert!(seen.insert(user.fingerprint(&mut scratch)), "{user:?}");
        }
        assert!(!seen.insert(base.fingerprint(&mut scratch)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_page(&answer(body));
        }

        #[test]
        fn both_ways_of_reading_agree(ids in proptest::collection::vec("[a-z]{1,8}", 0..20), sso: bool, token in "[a-zA-Z+/=]{0,20}") {
            let users: Vec<_> = ids.iter().map(|id| serde_json::json!({"id": id, "email": format!("{id}@example.com"), "sso_provision": sso})).collect();
            let body = serde_json::json!({"users": users, "next_page_token": token}).to_string();
            prop_assert_eq!(read_page(&answer(body.clone())).unwrap(), read_carefully(&answer(body)).unwrap());
        }
    }
}
