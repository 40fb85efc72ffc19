//! What all properties share: answers made of bytes, secrets that must not come out again, messages that people can read.

use std::fmt::{Debug, Display};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use secrecy::SecretString;
use torq_connector::http::{Answer, Failure, FailureKind};

use super::Gauge;

/// A client secret as it was sent. Corpora and dictionaries hold it, so that answers repeat it in every way there is.
pub const SECRET: &str = "s3cret Zk91/qpw+oei=";
/// A token that an answer grants.
pub const TOKEN: &str = "tok3n-Vv72-mnbzxcas";

/// What decoding may ask for, freed again or not.
#[derive(Clone, Copy)]
pub struct Allowance {
    /// Whatever the input is, in bytes.
    pub fixed: usize,
    /// Besides, for each byte of input.
    pub each: usize,
}

/// An answer's: messages, the first room for rows. The dearest input is a list of the shortest rows: a few bytes each, which
/// become a struct of a few texts, or an error that is told and forgotten.
const ANSWER: Allowance = Allowance {
    fixed: 8 * 1024,
    each: 200,
};

/// The pair of client id and secret as HTTP Basic sends it.
pub fn basic() -> String {
    BASE64_STANDARD.encode(format!("client:{SECRET}"))
}

/// What was sent along with a request, so that no message may repeat it.
pub fn secrets() -> Vec<SecretString> {
    vec![SECRET.into(), basic().into()]
}

/// An answer with this body.
pub fn answer(status: StatusCode, body: &[u8]) -> Answer {
    Answer {
        status,
        body: body.to_vec().into(),
        retry_after: None,
    }
}

/// An answer as the corpora write it: a line with nothing but a status in front of the body, or a body alone, with 200.
pub fn reply(data: &[u8]) -> Answer {
    let split = data.iter().position(|byte| *byte == b'\n');
    let status = split.and_then(|at| StatusCode::from_bytes(&data[..at]).ok());
    match (split, status) {
        (Some(at), Some(status)) => answer(status, &data[at + 1..]),
        _ => answer(StatusCode::OK, data),
    }
}

/// Decodes an answer, and has the memory measured that this takes.
pub fn measured<T>(gauge: Gauge, input: usize, decode: impl FnOnce() -> T) -> T {
    within(ANSWER, gauge, input, decode)
}

/// Decodes, and has the memory measured that this takes.
pub fn within<T>(allowance: Allowance, gauge: Gauge, input: usize, decode: impl FnOnce() -> T) -> T {
    let mut decode = Some(decode);
    let mut result = None;
    gauge(allowance.fixed + allowance.each * input, &mut || {
        result = decode.take().map(|decode| decode());
    });
    result.unwrap()
}

/// Text for a person: one line, bounded, nothing that steers a terminal or turns the reading direction around.
#[track_caller]
pub fn assert_readable(text: &str, most: usize) {
    assert!(text.chars().count() <= most, "longer than {most}: {text:?}");
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200e}' | '\u{200f}')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(steers), "steers a terminal: {text:?}");
}

/// Whatever is shown or logged of it, these are not in it.
#[track_caller]
pub fn assert_hides(shown: &(impl Display + Debug), secrets: &[&str]) {
    for text in [shown.to_string(), format!("{shown:?}")] {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret:?} is in {text:?}");
        }
    }
}

/// A failure can be shown to anybody, and kept.
#[track_caller]
pub fn assert_presentable(failure: &Failure, secrets: &[&str]) {
    assert_readable(&failure.detail, 500);
    assert_readable(&failure.to_string(), 600);
    assert_hides(failure, secrets);
}

/// The failure of a 2xx that is not what it should be: to be asked again, nothing of it believed. Such a body was meant for
/// nobody's eyes, so nothing of it is quoted that could be a secret.
#[track_caller]
pub fn assert_unintelligible(failure: &Failure) {
    assert_eq!(failure.kind, FailureKind::Unintelligible, "{failure}");
    assert!(failure.is_temporary());
    assert!(!failure.detail.is_empty());
    assert_presentable(failure, &[SECRET, &basic(), TOKEN]);
}
