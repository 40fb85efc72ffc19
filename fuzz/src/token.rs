//! What a token endpoint sends: a token, or a refusal.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use torq_connector::fuzzing::read_grant;
use torq_connector::http::FailureKind;
use torq_connector::model::Peer;

use super::Gauge;
use super::foreign::{SECRET, TOKEN, assert_presentable, assert_unintelligible, basic, measured, reply, secrets};

/// A token is one that a request can carry and that ends some day. Wrong credentials are only what says so.
pub fn token_answer(data: &[u8], gauge: Gauge) {
    let secrets = secrets();
    let secrets: Vec<&SecretString> = secrets.iter().collect();
    for peer in [Peer::Torq, Peer::JumpCloud] {
        let answer = reply(data);
        let (status, body) = (answer.status, answer.body.clone());
        let failure = match measured(gauge, data.len(), || read_grant(peer, answer, &secrets)) {
            Ok(grant) => {
                assert!(status.is_success());
                let token = grant.value.expose_secret();
                assert!(!token.is_empty());
                assert_eq!(grant.header.as_bytes(), format!("Bearer {token}").as_bytes());
                assert!(grant.lifetime > Duration::ZERO && grant.lifetime <= Duration::from_secs(24 * 3600));
                let shown = format!("{grant:?}");
                let expected = format!(
                    "Granted {{ value: {:?}, header: Sensitive, lifetime: {:?} }}",
                    SecretString::from("another"),
                    grant.lifetime
                );
                assert_eq!(shown, expected, "nothing of a token is shown");
                continue;
            }
            Err(failure) => failure,
        };
        if status.is_success() {
            assert_unintelligible(&failure);
            assert_presentable(&failure, &[TOKEN]);
            continue;
        }
        assert_presentable(&failure, &[SECRET, &basic()]);
        assert_eq!(failure.status, Some(status));
        let page = body.trim_ascii_start().first() == Some(&b'<');
        // A 4xx in JSON says that they are refused, unless its status says something else; a 401 says so in any words.
        let elsewhere = matches!(status.as_u16(), 404 | 405 | 407 | 408 | 410 | 425 | 429);
        let spoken = status.as_u16() == 401 || body.trim_ascii_start().first() == Some(&b'{');
        let may_be_credentials = status.is_client_error() && spoken && !elsewhere;
        if failure.kind == FailureKind::Credentials {
            assert!(may_be_credentials, "{failure} is taken for wrong credentials");
        } else if status.as_u16() == 401 && !page {
            assert!(
                failure.is_temporary(),
                "{failure}: neither refused nor to be tried again"
            );
        }
        assert!(!matches!(failure.kind, FailureKind::Permission | FailureKind::License));
    }
}
