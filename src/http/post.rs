//! One request to an address that is nobody's API: a webhook. The same connections, time-outs and caps as everywhere, and nothing
//! of the address in what is said about it but its host.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use url::Url;

use super::{Client, backoff, clean, outcome};

/// So much of an answer is read, in bytes: it is only to be shown.
const MAX_ANSWER: usize = 8 * 1024;

/// What a webhook answered.
#[derive(Debug)]
pub struct Posted {
    /// The status.
    pub status: StatusCode,
    /// The wait it asked for.
    pub retry_after: Option<Duration>,
    /// The beginning of its body, cleaned.
    pub words: String,
}

impl Client {
    /// Posts JSON, once. Redirects are not followed: what is sent is signed for one address.
    ///
    /// # Errors
    /// There was no complete answer; why, for a person.
    pub async fn post(&self, url: &Url, headers: HeaderMap, body: String, timeout: Duration) -> Result<Posted, String> {
        let client = self
            .to(url)
            .ok_or_else(|| format!("no request was made for {} addresses", url.scheme()))?;
        let broken = |error: reqwest::Error| outcome::describe_transport(&error, timeout);
        let mut response = client
            .post(url.clone())
            .timeout(timeout)
            .header(http::header::CONTENT_TYPE, "application/json")
            .headers(headers)
            .body(body)
            .send()
            .await
            .map_err(broken)?;
        let status = response.status();
        let retry_after = backoff::retry_after(response.headers(), std::time::SystemTime::now());
        let mut answer = Vec::new();
        // It took it, whatever becomes of the rest of its words.
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = MAX_ANSWER - answer.len();
            answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() >= room {
                break;
            }
        }
        Ok(Posted {
            status,
            retry_after,
            words: clean(&String::from_utf8_lossy(&answer)),
        })
    }
}
