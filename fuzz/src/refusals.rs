//! What a peer sends when it says no: any status with any body, and what is quoted of it.

use std::time::Duration;

use secrecy::SecretString;
use torq_connector::http::{ABUSE_PAUSE, FailureKind, is_page, judge, words_of};
use torq_connector::model::Peer;

use super::Gauge;
use super::foreign::{SECRET, assert_hides, assert_presentable, assert_readable, basic, measured, reply, secrets};

/// An answer is a success or a failure of one kind, by its status; the peer's words are short, on one line, and never repeat
/// what was sent along.
pub fn refusals(data: &[u8], gauge: Gauge) {
    let secrets = secrets();
    let secrets: Vec<&SecretString> = secrets.iter().collect();
    let mut answer = reply(data);
    answer.retry_after = Some(Duration::from_secs(7));
    let (status, body) = (answer.status, answer.body.clone());

    let words = measured(gauge, data.len(), || words_of(&body, &secrets));
    assert_readable(&words, 301);
    assert_hides(&words, &[SECRET, &basic()]);
    assert_eq!(words, words.trim());

    let failure = match measured(gauge, data.len(), || {
        judge(Peer::JumpCloud, "do something", answer, &secrets)
    }) {
        Ok(answer) => {
            assert!(status.is_success());
            assert_eq!(answer.body, body);
            return;
        }
        Err(failure) => failure,
    };
    assert!(!status.is_success());
    assert_eq!(failure.status, Some(status));
    assert_presentable(&failure, &[SECRET, &basic()]);
    let asked = Some(Duration::from_secs(7));
    let page = is_page(&body);
    let abuse = body.to_ascii_lowercase().windows(5).any(|window| window == b"abuse");
    let expected: &[FailureKind] = match status.as_u16() {
        300..=399 => &[FailureKind::Unintelligible],
        403 if abuse => &[
            // What was asked for is shorter, and a blocked address that asks again soon stays blocked.
            FailureKind::Later {
                after: Some(ABUSE_PAUSE),
            },
        ],
        400..=403 | 406 | 409 | 411..=424 | 426..=428 | 430..=499 if page => &[FailureKind::Unintelligible],
        401 => &[FailureKind::Credentials],
        402 => &[FailureKind::License],
        403 => &[FailureKind::Permission],
        404 | 410 => &[FailureKind::NotFound],
        405 | 501 => &[FailureKind::NotOffered],
        407 => &[FailureKind::Unreachable],
        409 => &[FailureKind::Conflict],
        408 | 425 | 429 | 500..=599 => &[FailureKind::Later { after: asked }],
        _ => &[FailureKind::Refused],
    };
    assert!(expected.contains(&failure.kind), "{status}: {failure:?}");
}
