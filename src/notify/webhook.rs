//! Posting a message, signed so that the receiver can tell that it is from here and of now.
//!
//! The headers and the signature are those of Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`, which is
//! `v1,` and the HMAC-SHA256 over `ID.TIMESTAMP.BODY` in Base64.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};

use super::errand::{Failed, Why};
use super::message::Message;
use crate::config::{HookFormat, Network, Webhook};
use crate::http::Client;

/// How long a webhook may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a secret begins with whose key is the rest of it, in Base64.
const ENCODED: &str = "whsec_";

/// Posts a message, once. Returns what came back.
pub(super) async fn post(webhook: &Webhook, network: &Network, message: &Message) -> Result<String, Failed> {
    let failed = |why, words: String| Failed {
        words,
        after: None,
        why,
    };
    let secret = secret_now(webhook).map_err(|words| failed(Why::Misfit, words))?;
    let url = webhook.url.expose();
    let client = Client::new(network, &[url]).map_err(|error| failed(Why::Misfit, error.to_string()))?;
    let body = match webhook.format {
        HookFormat::Json => message.json(),
        HookFormat::Slack => message.slack(),
    };
    let headers = headers(&message.id, Timestamp::now().as_second(), &body, secret.as_ref());
    let patience = PATIENCE.min(network.timeout);
    let posted = match client.post(url, headers, body, patience).await {
        Ok(posted) => posted,
        Err(words) => return Err(failed(Why::Unavailable, words)),
    };
    let words = without_secrets(&posted.words, webhook, secret.as_ref());
    let answer = match words.is_empty() {
        true => format!("{} answered {}", webhook.url.host(), posted.status),
        false => format!("{} answered {}: {words}", webhook.url.host(), posted.status),
    };
    let status = posted.status;
    if status.is_success() {
        return Ok(answer);
    }
    let temporary = status.is_server_error()
        || [
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_EARLY,
            StatusCode::TOO_MANY_REQUESTS,
        ]
        .contains(&status);
    Err(Failed {
        words: match status.is_redirection() {
            true => format!("{answer} (a redirect, which is not followed)"),
            false => answer,
        },
        after: posted.retry_after,
        why: match temporary {
            true => Why::Unavailable,
            false => Why::Refused,
        },
    })
}

/// The secret as it is in its file now: it may have been rotated. Where that cannot be read, the one in hand may still be good.
fn secret_now(webhook: &Webhook) -> Result<Option<SecretString>, String> {
    let Some(secret) = &webhook.secret else {
        return Ok(None);
    };
    match (secret.reload(), &secret.problem) {
        (Ok(Some(fresh)), _) => Ok(Some(fresh.value)),
        (_, None) => Ok(Some(secret.value.clone())),
        (_, Some(problem)) => Err(format!("the secret that signs cannot be read: {problem}")),
    }
}

fn headers(id: &str, at: i64, body: &str, secret: Option<&SecretString>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    put("webhook-id", id.to_owned());
    put("webhook-timestamp", at.to_string());
    if let Some(secret) = secret {
        put("webhook-signature", signature(id, at, body, secret));
    }
    headers
}

fn signature(id: &str, at: i64, body: &str, secret: &SecretString) -> String {
    let secret = secret.expose_secret();
    let decoded = secret.strip_prefix(ENCODED).and_then(|rest| STANDARD.decode(rest).ok());
    let key = decoded.unwrap_or_else(|| secret.as_bytes().to_vec());
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, &key),
        format!("{id}.{at}.{body}").as_bytes(),
    );
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

/// An answer may repeat what was sent to it.
fn without_secrets(words: &str, webhook: &Webhook, secret: Option<&SecretString>) -> String {
    let url = webhook.url.expose();
    let whole = [url.as_str(), url.path(), url.query().unwrap_or_default()];
    let secret = secret.map(ExposeSecret::expose_secret).unwrap_or_default();
    // Any part of the address may be the one that matters.
    let parts = url.as_str().split(['/', '?', '&', '=']).skip(3);
    let hidden = whole.into_iter().chain([secret]).chain(parts);
    hidden
        .filter(|hidden| hidden.len() >= 4)
        .fold(words.to_owned(), |words, hidden| words.replace(hidden, "[redacted]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = include_str!("../../docs/notify.md");

    /// What the page shows as `name = value` in its example.
    fn shown(name: &str) -> &'static str {
        let line = DOCS
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix("= "));
        line.unwrap_or_else(|| panic!("docs/notify.md shows no {name}"))
            .trim_matches('\'')
    }

    #[test]
    fn the_signature_is_the_one_that_the_page_shows() {
        let secret: SecretString = shown("secret").into();
        let (id, at, body) = (shown("id"), shown("timestamp").parse().unwrap(), shown("body"));
        assert_eq!(signature(id, at, body, &secret), shown("signature"));
        let encoded: SecretString = format!("{ENCODED}{}", STANDARD.encode(shown("secret"))).into();
        assert_eq!(signature(id, at, body, &encoded), shown("signature"));
        let other: SecretString = "another".into();
        assert_ne!(signature(id, at, body, &other), shown("signature"));
        assert_ne!(signature(id, at + 1, body, &secret), shown("signature"));
    }

    #[test]
    fn without_a_secret_nothing_is_signed() {
        let headers = headers("a", 1, "{}", None);
        assert_eq!(headers.len(), 2);
        assert!(!headers.contains_key("webhook-signature"));
    }
}
