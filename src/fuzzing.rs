//! The decoders of foreign bytes that nobody outside of the library needs, for the properties in `fuzz/`: thin functions over the
//! private ones, and no interface to rely on.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use secrecy::SecretString;

use crate::daemon::control::Request;
use crate::http::{Answer, Failure};
use crate::jumpcloud::{Account, Application, DirectoryUser, Unread};
use crate::model::Peer;
use crate::oauth::Granted;
use crate::web::Access;

/// A page of a list: the rows that can be read, and what is known of the others.
pub type Page<T> = Result<(Vec<T>, Vec<Unread>), Failure>;
/// A row that stands alone, or what is known of it.
pub type One<T> = Result<Result<T, Unread>, Failure>;

/// A token endpoint's answer, of any status.
pub fn read_grant(peer: Peer, answer: Answer, secrets: &[&SecretString]) -> Result<Granted, Failure> {
    crate::oauth::read_grant(peer, answer, secrets)
}

/// Torq's roles.
pub fn read_roles(answer: &Answer) -> Result<BTreeMap<String, String>, Failure> {
    crate::torq::read_roles(answer)
}

/// A page of JumpCloud's applications.
pub fn read_applications(answer: &Answer) -> Page<Application> {
    crate::jumpcloud::read_rows(answer)
}

/// A page of JumpCloud's accounts.
pub fn read_accounts(answer: &Answer) -> Page<Account> {
    crate::jumpcloud::read_rows(answer)
}

/// A page of JumpCloud's directory users.
pub fn read_directory_users(answer: &Answer) -> Page<DirectoryUser> {
    crate::jumpcloud::read_rows(answer)
}

/// One of JumpCloud's applications.
pub fn read_application(answer: &Answer) -> One<Application> {
    crate::jumpcloud::read_row(answer)
}

/// One of JumpCloud's accounts.
pub fn read_account(answer: &Answer) -> One<Account> {
    crate::jumpcloud::read_row(answer)
}

/// One of JumpCloud's directory users.
pub fn read_directory_user(answer: &Answer) -> One<DirectoryUser> {
    crate::jumpcloud::read_row(answer)
}

/// The wait that an answer's headers ask for.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    crate::http::retry_after(headers, now)
}

/// Whether the page answers to this value of a `Host` header.
pub fn answers_to(access: &Access, host: &str) -> bool {
    access.answers_to(host)
}

/// Whether these headers carry the password.
pub fn knows_password(access: &Access, headers: &HeaderMap, password: &SecretString) -> bool {
    access.knows_password(headers, password)
}

/// A line on the control socket.
pub fn read_request(line: &[u8]) -> Result<Request, String> {
    crate::daemon::control::read_request(line)
}
