//! A page of users as Torq sends it, read without believing too much: proto3 JSON leaves out default values, new fields and
//! statuses may appear, and one bad record must not hide the others.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use xxhash_rust::xxh3::xxh3_64;

use super::PageToken;
use crate::http::foreign::{Field, Found, Records, Skipped};
use crate::http::{Answer, Failure, FailureKind, unintelligible};
use crate::model::{Email, Peer, UserId, is_id};

const OPERATION: &str = "list users";

/// The first value of the enum: what a status is that is not there.
const UNSPECIFIED: &str = "STATUS_UNSPECIFIED";
/// The longest page token that is taken, in bytes: it goes into a URL.
const MAX_TOKEN: usize = 8 * 1024;
/// How many records without a readable id are named, of one page.
const MAX_NAMELESS: usize = 20;

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
        let optional = [&self.created, &self.last_login].map(|text| text.as_deref().unwrap_or_default());
        for text in [&*self.id, &self.email, &self.role_id, &self.status]
            .into_iter()
            .chain(optional)
        {
            // A zero ends a text. One within is written as a byte that no text has.
            scratch.extend(text.bytes().map(|byte| if byte == 0 { 0xff } else { byte }));
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

/// What is read of a record, in this order.
const FIELDS: [&str; 7] = [
    "id",
    "email",
    "role_id",
    "status",
    "created_time",
    "last_login_time",
    "sso_provision",
];

/// Reads a page, record by record: what is not understood of one hides no other.
///
/// # Errors
/// [`FailureKind::Unintelligible`] when the body is not a page of users at all.
pub fn read_page(answer: &Answer) -> Result<UsersPage, Failure> {
    let wrong = |what: String| Failure {
        status: Some(answer.status),
        ..Failure::new(Peer::Torq, OPERATION, FailureKind::Unintelligible, what)
    };
    let mut page = UsersPage::default();
    let mut deserializer = serde_json::Deserializer::from_slice(&answer.body);
    let top = deserializer
        .deserialize_any(Body { page: &mut page })
        .and_then(|top| deserializer.end().map(|()| top))
        .map_err(|error| unintelligible(Peer::Torq, OPERATION, answer, &error))?;
    match top.users {
        Found::List(_) => {}
        // An empty list is left out in proto3 JSON. An object that speaks of something else is not an empty page.
        Found::Nothing => {
            if let Some(other) = top.other {
                return Err(wrong(format!("the body has no users, but {other}")));
            }
        }
        Found::Other => return Err(wrong("users is not a list".to_owned())),
    }
    page.next = match top.next {
        Field::Absent => None,
        Field::Text(token) => PageToken::new(token),
        _ => {
            return Err(wrong(format!(
                "next_page_token is not a text of at most {MAX_TOKEN} bytes"
            )));
        }
    };
    Ok(page)
}

/// What a body without users is about. The name is shown if it looks like one: it is foreign, and might be anything.
fn about(name: &str) -> String {
    let plain = name.len() <= 24 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if plain {
        format!("“{name}”")
    } else {
        "something else".to_owned()
    }
}

/// What stands around the users.
#[derive(Default)]
struct Top {
    users: Found,
    next: Field<MAX_TOKEN>,
    /// The first name that is not known.
    other: Option<String>,
}

/// Reads the answer of `GET users`. Every field may be missing or null (proto3 JSON).
struct Body<'a> {
    page: &'a mut UsersPage,
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Top;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with users")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Top, A::Error> {
        let mut top = Top::default();
        while let Some(name) = object.next_key::<String>()? {
            match name.as_str() {
                "users" => {
                    if top.users != Found::Nothing {
                        return Err(A::Error::duplicate_field("users"));
                    }
                    let mut records = Reading {
                        page: &mut *self.page,
                        number: 0,
                        nameless: 0,
                    };
                    top.users = object.next_value_seed(Records {
                        names: &FIELDS,
                        show: &mut |fields| records.take(fields),
                    })?;
                    records.finish();
                }
                "next_page_token" | "nextPageToken" => match object.next_value()? {
                    // The empty one says no more than none.
                    Field::Absent => {}
                    Field::Text(token) if token.is_empty() => {}
                    next if top.next == Field::Absent || top.next == next => top.next = next,
                    _ => return Err(A::Error::custom("two different tokens of a next page")),
                },
                other => {
                    top.other.get_or_insert_with(|| about(other));
                    object.next_value::<Skipped>()?;
                }
            }
        }
        Ok(top)
    }
}

/// The records of a page, as they are read.
struct Reading<'a> {
    page: &'a mut UsersPage,
    /// Records so far.
    number: usize,
    /// Those of them that have no readable id.
    nameless: usize,
}

impl Reading<'_> {
    fn take(&mut self, fields: Option<&mut [Field]>) {
        self.number += 1;
        let Some([id, email, role_id, status, created, last_login, sso]) = fields else {
            return self.nameless("is not an object");
        };
        let id = match std::mem::take(id) {
            Field::Text(id) if is_id(&id) => id,
            Field::Text(_) => return self.nameless("has an id that is empty, too long or not printable"),
            Field::Absent => return self.nameless("has no id"),
            _ => return self.nameless("has an id that is not a text"),
        };
        let mut unreadable = Vec::new();
        let mut text = |name: &'static str, field: &mut Field| match std::mem::take(field) {
            Field::Absent => String::new(),
            Field::Text(text) => text,
            // An enum value that the server's JSON has no name for comes as a number (proto3 JSON).
            Field::Number(number) if name == "status" => number,
            _ => {
                unreadable.push(name);
                String::new()
            }
        };
        let optional = |text: String| (!text.is_empty()).then_some(text);
        let mut user = User {
            id,
            email: text("email", email),
            role_id: text("role_id", role_id),
            status: text("status", status),
            sso: false,
            created: optional(text("created_time", created)),
            last_login: optional(text("last_login_time", last_login)),
            unreadable,
        };
        if matches!(user.status.as_str(), "" | "0") {
            // proto3 JSON may leave out what is an enum's first value: that is what it means then.
            user.status = UNSPECIFIED.to_owned();
        }
        match sso {
            Field::Absent => {}
            Field::Bool(sso) => user.sso = *sso,
            _ => user.unreadable.push("sso_provision"),
        }
        if !user.unreadable.is_empty() {
            self.page.unreadable.push(Unreadable {
                id: Some(user.id.clone()),
                reason: format!("cannot read {}; what was known of it stays", user.unreadable.join(", ")),
            });
        }
        self.page.users.push(user);
    }

    /// A record that has no readable id. The first ones are named; a page full of them needs no event for each.
    fn nameless(&mut self, what: &str) {
        self.nameless += 1;
        if self.nameless <= MAX_NAMELESS {
            self.unreadable(format!("record {} of the page {what}", self.number));
        }
    }

    fn finish(mut self) {
        if self.nameless > MAX_NAMELESS {
            let more = self.nameless - MAX_NAMELESS;
            self.unreadable(format!("{more} more records of the page have no readable id"));
        }
    }

    fn unreadable(&mut self, reason: String) {
        self.page.unreadable.push(Unreadable { id: None, reason });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

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
            status: UNSPECIFIED.into(),
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
    fn a_status_that_is_left_out_is_the_unspecified_one() {
        let page = read(
            r#"{"users":[{"id":"u1"},{"id":"u2","status":null},{"id":"u3","status":""},{"id":"u4","status":0},
               {"id":"u5","status":"STATUS_UNSPECIFIED"},{"id":"u6","status":3},{"id":"u7","status":"VERIFIED"}]}"#,
        );
        let statuses: Vec<_> = page.users.iter().map(|user| user.status.as_str()).collect();
        assert_eq!(statuses[..5], [UNSPECIFIED; 5]);
        assert_eq!(statuses[5..], ["3", "VERIFIED"]);
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
    fn a_page_full_of_records_without_an_id_is_named_in_a_few_words() {
        let page = read(&json!({"users": vec![json!({}); 10_000]}).to_string());
        assert_eq!((page.users.len(), page.unreadable.len()), (0, 21));
        let last = &page.unreadable[20];
        assert_eq!(last.reason, "9980 more records of the page have no readable id");
        assert!(page.unreadable.iter().all(|record| record.id.is_none()));
    }

    #[test]
    fn a_text_too_long_to_be_one_is_unreadable_and_a_token_too_long_is_refused() {
        let long = "x".repeat(15 * 1024 * 1024);
        let page = read(&json!({"users": [{"id": "u1", "email": long}, {"id": long}, {"id": "u2"}]}).to_string());
        assert_eq!(page.users.len(), 2);
        assert_eq!(page.users[0].unreadable, ["email"]);
        assert_eq!(page.unreadable[1].id, None);
        let words = refused(json!({"users": [], "next_page_token": long}).to_string().as_bytes());
        assert!(words.contains("next_page_token") && words.len() < 400, "{words}");
        let token = "t".repeat(MAX_TOKEN);
        assert_eq!(
            read(&json!({ "next_page_token": token }).to_string()).next,
            PageToken::new(token)
        );
    }

    #[test]
    fn ten_thousand_users_are_a_page_and_more_than_a_hundred_thousand_are_not() {
        let users = |count: usize| {
            let users: Vec<_> = (0..count).map(|number| format!(r#"{{"id":"u{number}"}}"#)).collect();
            format!(r#"{{"users":[{}]}}"#, users.join(","))
        };
        assert_eq!(read(&users(10_000)).users.len(), 10_000);
        assert_eq!(read(&users(100_000)).users.len(), 100_000);
        assert!(refused(users(100_001).as_bytes()).contains("more than 100000 records"));
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
        fn records_are_read_as_a_tree_of_values_says(
            records in proptest::collection::vec(arbitrary_record(), 0..20),
            token in "[a-zA-Z+/=]{0,20}",
        ) {
            let body = json!({"users": records, "next_page_token": token}).to_string();
            prop_assert_eq!(read_page(&answer(body.clone())).unwrap(), by_value(&body));
        }
    }

    fn arbitrary_record() -> impl Strategy<Value = Value> {
        let field = prop::sample::select(vec![
            json!(null),
            json!(""),
            json!("text"),
            json!(7),
            json!(-1),
            json!(true),
            json!([1]),
            json!({"a": {}}),
            json!("x".repeat(1001)),
        ]);
        let names = FIELDS.into_iter().chain(["unknown"]).collect::<Vec<_>>();
        let object = proptest::collection::btree_map(prop::sample::select(names), field.clone(), 0..8);
        prop_oneof![
            1 => field,
            8 => (object, "[a-z]{1,8}").prop_map(|(mut object, id)| {
                // Most of them have an id.
                object.entry("id").or_insert(json!(id));
                json!(object)
            }),
        ]
    }

    /// The same, by a tree of values: simple, and greedy for memory.
    fn by_value(body: &str) -> UsersPage {
        let body: Value = serde_json::from_str(body).unwrap();
        let mut page = UsersPage {
            next: PageToken::new(body["next_page_token"].as_str().unwrap().to_owned()),
            ..UsersPage::default()
        };
        for (index, record) in body["users"].as_array().unwrap().iter().enumerate() {
            let nameless = |what: &str| Unreadable {
                id: None,
                reason: format!("record {} of the page {what}", index + 1),
            };
            let id = match record.get("id") {
                _ if !record.is_object() => Err("is not an object"),
                Some(Value::String(id)) if !id.is_empty() && id.len() <= 200 => Ok(id.clone()),
                // A text far too long is no text at all.
                Some(Value::String(id)) if id.len() <= 1000 => {
                    Err("has an id that is empty, too long or not printable")
                }
                None | Some(Value::Null) => Err("has no id"),
                Some(_) => Err("has an id that is not a text"),
            };
            let id = match id {
                Ok(id) => id,
                Err(what) => {
                    page.unreadable.push(nameless(what));
                    continue;
                }
            };
            let mut unreadable = Vec::new();
            let mut text = |name: &'static str| match record.get(name) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) if text.len() <= 1000 => text.clone(),
                Some(Value::Number(number)) if name == "status" => number.to_string(),
                Some(_) => {
                    unreadable.push(name);
                    String::new()
                }
            };
            let [email, role_id, mut status] = ["email", "role_id", "status"].map(&mut text);
            if status.is_empty() || status == "0" {
                status = "STATUS_UNSPECIFIED".to_owned();
            }
            let [created, last_login] = ["created_time", "last_login_time"].map(text);
            let sso = match record.get("sso_provision") {
                None | Some(Value::Null) => false,
                Some(Value::Bool(sso)) => *sso,
                Some(_) => {
                    unreadable.push("sso_provision");
                    false
                }
            };
            if !unreadable.is_empty() {
                page.unreadable.push(Unreadable {
                    id: Some(id.clone()),
                    reason: format!("cannot read {}; what was known of it stays", unreadable.join(", ")),
                });
            }
            let optional = |text: String| (!text.is_empty()).then_some(text);
            page.users.push(User {
                id,
                email,
                role_id,
                status,
                sso,
                created: optional(created),
                last_login: optional(last_login),
                unreadable,
            });
        }
        page
    }
}
