//! Invented users, the same at every run, rendered as both peers send them: about 460 bytes each from Torq.

use torq_connector::torq::PAGE_SIZE;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// How many of so many users SSO provisioned; they come first.
fn sso(users: usize) -> usize {
    users * 7 / 10
}

/// Numbers of the users of one listing.
pub fn listing(users: usize, sso_provision: bool) -> std::ops::Range<usize> {
    if sso_provision {
        0..sso(users)
    } else {
        sso(users)..users
    }
}

fn scattered(no: usize) -> u128 {
    xxh3_128(&no.to_le_bytes())
}

fn uuid(number: u128) -> String {
    uuid::Uuid::from_u128(number).to_string()
}

/// In no order, as people are: an index is not filled from one end.
pub fn email(no: usize) -> String {
    format!("{:010x}.employee@subsidiary.example", scattered(no) as u64 >> 24)
}

fn directory_user(email: &str) -> String {
    format!("{:024x}", xxh3_64(email.as_bytes()))
}

/// A page of a listing of Torq, from the user at `at` of the listing.
pub fn torq_page(users: usize, sso_provision: bool, at: usize) -> String {
    let of = listing(users, sso_provision);
    let (from, to) = (of.start + at, of.end.min(of.start + at + PAGE_SIZE));
    let records: Vec<String> = (from..to).map(|no| torq_record(no, sso_provision)).collect();
    let next = if to < of.end {
        format!("{}==", to - of.start)
    } else {
        String::new()
    };
    format!(r#"{{"users":[{}],"next_page_token":"{next}"}}"#, records.join(","))
}

fn torq_record(no: usize, sso_provision: bool) -> String {
    let (id, email, role) = (uuid(scattered(no)), email(no), uuid(no as u128 % 5));
    let (minute, second) = (no / 60 % 60, no % 60);
    // Who never logged in has no time of it.
    let login = if no.is_multiple_of(9) {
        String::new()
    } else {
        format!(r#","last_login_time":"2026-06-01T08:{minute:02}:{second:02}.987654321Z""#)
    };
    format!(
        r#"{{"id":"{id}","email":"{email}","role_id":"{role}","status":"VERIFIED","sso_provision":{sso_provision},"created_time":"2025-01-31T10:{minute:02}:{second:02}.123456789Z"{login}}}"#
    )
}

/// A page of JumpCloud's accounts: everybody has one, associated with their directory user.
pub fn accounts_page(users: usize, from: usize) -> String {
    let accounts: Vec<String> = (from..users.min(from + 100))
        .map(|no| {
            let (id, email) = (no + 1, email(no));
            let user = directory_user(&email);
            format!(r#"{{"id":"{id:024x}","email":"{email}","username":"{email}","user_id":"{user}"}}"#)
        })
        .collect();
    format!(r#"{{"results":[{}],"totalCount":{users}}}"#, accounts.join(","))
}

/// The directory's answer to a search: it knows everybody.
pub fn directory_page<'a>(emails: impl Iterator<Item = &'a str>) -> String {
    let users: Vec<String> = emails
        .map(|email| format!(r#"{{"_id":"{}","email":"{email}"}}"#, directory_user(email)))
        .collect();
    format!(r#"{{"results":[{}],"totalCount":{}}}"#, users.join(","), users.len())
}
