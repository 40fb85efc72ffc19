//! What Torq sends: a page of users, the roles.

use std::collections::HashMap;

use http::StatusCode;
use serde_json::{Value, json};
use torq_connector::fuzzing::read_roles;
use torq_connector::torq::{User, UsersPage, read_page};

use super::foreign::{answer, assert_readable, assert_unintelligible, measured};
use super::{Gauge, oracle};

/// A page of users: nobody is lost silently, nobody is made up, and the listing goes on where Torq says it does.
pub fn torq_users(data: &[u8], gauge: Gauge) {
    let body = answer(StatusCode::OK, data);
    let result = measured(gauge, data.len(), || read_page(&body));
    if let Some(tree) = oracle::tree(data) {
        assert_eq!(result.is_ok(), is_page(&tree), "{result:?} of {tree}");
    }
    let page = match result {
        Ok(page) => page,
        Err(failure) => return assert_unintelligible(&failure),
    };
    for user in &page.users {
        assert!(oracle::is_id(&user.id), "{user:?}");
        assert_ne!(user.created.as_deref(), Some(""));
        assert_ne!(user.last_login.as_deref(), Some(""));
        let told = page.unreadable.iter().any(|told| told.id.as_ref() == Some(&user.id));
        assert!(user.unreadable.is_empty() || told, "told of nobody: {user:?}");
    }
    for unreadable in &page.unreadable {
        assert_readable(&unreadable.reason, 300);
        assert!(!unreadable.reason.is_empty());
    }
    assert!(
        oracle::occurrences(data, "users") <= 1,
        "users twice, and one of them was believed"
    );
    if let Some(tree) = oracle::tree(data) {
        compare(&page, &tree);
    }
    stays_the_same(&page);
    tells_apart(&page);
}

/// What a page is made of.
const PAGE: [&str; 3] = ["users", "next_page_token", "nextPageToken"];

/// The longest token of a next page that is taken.
const LONGEST_TOKEN: usize = 8 * 1024;
/// How many records without a readable id are named, of one page; the others are counted in one more line.
const NAMED: usize = 20;

/// Whether a body is a page of users, be it of nobody.
fn is_page(body: &Value) -> bool {
    let Some(fields) = body.as_object() else { return false };
    let list = match fields.get("users") {
        None | Some(Value::Null) => true,
        Some(Value::Array(_)) => true,
        Some(_) => false,
    };
    let tokens: Vec<&Value> = PAGE[1..].iter().filter_map(|name| fields.get(*name)).collect();
    let texts = tokens
        .iter()
        .all(|token| token.is_null() || token.as_str().is_some_and(|token| token.len() <= LONGEST_TOKEN));
    let mut there: Vec<&str> = tokens
        .iter()
        .filter_map(|token| token.as_str())
        .filter(|token| !token.is_empty())
        .collect();
    there.dedup();
    let about_users =
        fields.get("users").is_some_and(Value::is_array) || fields.keys().all(|key| PAGE.contains(&key.as_str()));
    list && texts && there.len() <= 1 && about_users
}

/// The page against what the body says.
fn compare(page: &UsersPage, tree: &Value) {
    let rows = tree["users"].as_array().map_or(&[][..], Vec::as_slice);
    let nameless = page.unreadable.iter().filter(|told| told.id.is_none()).count();
    let expected = rows.len() - page.users.len();
    let told = if expected > NAMED { NAMED + 1 } else { expected };
    assert_eq!(nameless, told, "every record is a user or told");
    let ids: Vec<&str> = rows.iter().filter_map(|row| oracle::id(row, &["id"])).collect();
    let users: Vec<&str> = page.users.iter().map(|user| user.id.as_str()).collect();
    assert_eq!(users, ids, "everybody with an id, in the order of the answer");
    let token = PAGE[1..]
        .iter()
        .filter_map(|name| tree[*name].as_str())
        .find(|token| !token.is_empty());
    assert_eq!(
        page.next.as_ref().map(|token| token.as_str()),
        token,
        "where the listing goes on"
    );
    for (user, row) in page
        .users
        .iter()
        .zip(rows.iter().filter(|row| oracle::id(row, &["id"]).is_some()))
    {
        let same = |name: &str, text: &str| match &row[name] {
            Value::Null => text.is_empty(),
            Value::String(sent) if oracle::is_short(sent) => sent == text,
            _ => text.is_empty() && user.unreadable.contains(&name),
        };
        // An enum, whose first value may be left out, and which may be sent as a number.
        let first = user.status == "STATUS_UNSPECIFIED";
        let same_status = match &row["status"] {
            Value::Null => first,
            Value::String(sent) if sent.is_empty() || sent == "0" => first,
            Value::String(sent) if oracle::is_short(sent) => *sent == user.status,
            Value::Number(_) => !user.status.is_empty() && user.status != "0",
            _ => first && user.unreadable.contains(&"status"),
        };
        assert!(same_status, "{user:?} of {row}");
        let texts = [
            ("email", user.email.as_str()),
            ("role_id", &user.role_id),
            ("created_time", user.created.as_deref().unwrap_or_default()),
            ("last_login_time", user.last_login.as_deref().unwrap_or_default()),
        ];
        assert!(texts.iter().all(|(name, text)| same(name, text)), "{user:?} of {row}");
        assert_eq!(user.sso, row["sso_provision"] == Value::Bool(true), "{user:?} of {row}");
    }
}

/// What was accepted, written down as Torq does, is read as the same.
fn stays_the_same(page: &UsersPage) {
    let users: Vec<Value> = page
        .users
        .iter()
        .map(|user| {
            json!({
                "id": user.id, "email": user.email, "role_id": user.role_id, "status": user.status,
                "sso_provision": user.sso, "created_time": user.created, "last_login_time": user.last_login,
            })
        })
        .collect();
    let token = page.next.as_ref().map_or("", |token| token.as_str());
    let body = json!({ "users": users, "next_page_token": token }).to_string();
    let again = read_page(&answer(StatusCode::OK, body.as_bytes())).unwrap();
    let expected: Vec<User> = page
        .users
        .iter()
        .map(|user| User {
            unreadable: Vec::new(),
            ..user.clone()
        })
        .collect();
    assert_eq!(
        again,
        UsersPage {
            users: expected,
            unreadable: Vec::new(),
            next: page.next.clone()
        }
    );
}

/// A change of a record is a change of its fingerprint, or it would never be noticed.
fn tells_apart(page: &UsersPage) {
    let mut scratch = Vec::new();
    let mut known: HashMap<u64, &User> = HashMap::new();
    for user in &page.users {
        let fingerprint = user.fingerprint(&mut scratch);
        assert_eq!(fingerprint, user.clone().fingerprint(&mut Vec::new()));
        let other = known.entry(fingerprint).or_insert(user);
        assert_eq!(*other, user, "one fingerprint for two");
    }
}

/// The roles: names for ids, as many as can be read, and no more than were sent.
pub fn torq_roles(data: &[u8], gauge: Gauge) {
    let body = answer(StatusCode::OK, data);
    let result = measured(gauge, data.len(), || read_roles(&body));
    let tree = oracle::tree(data);
    if let Some(tree) = &tree {
        let rows = tree.get("roles").unwrap_or(&Value::Null);
        let list = tree.is_object() && (rows.is_null() || rows.is_array());
        assert_eq!(result.is_ok(), list, "{result:?} of {tree}");
    }
    let roles = match result {
        Ok(roles) => roles,
        Err(failure) => return assert_unintelligible(&failure),
    };
    assert!(
        oracle::occurrences(data, "roles") <= 1,
        "roles twice, and one of them was believed"
    );
    for (id, name) in &roles {
        assert!(oracle::is_id(id), "{id:?}");
        assert!(!name.is_empty(), "a role without a name is no name for an id: {id:?}");
    }
    if let Some(tree) = tree {
        let rows = tree["roles"].as_array().map_or(&[][..], Vec::as_slice);
        let named = rows.iter().filter_map(|row| {
            let name = row["name"]
                .as_str()
                .filter(|name| !name.is_empty() && oracle::is_short(name))?;
            Some((oracle::id(row, &["id"])?.to_owned(), name.to_owned()))
        });
        assert_eq!(roles, named.collect(), "every good role, whatever the others are");
    }
    let rows: Vec<Value> = roles
        .iter()
        .map(|(id, name)| json!({ "id": id, "name": name }))
        .collect();
    let again = json!({ "roles": rows }).to_string();
    assert_eq!(read_roles(&answer(StatusCode::OK, again.as_bytes())).unwrap(), roles);
}
