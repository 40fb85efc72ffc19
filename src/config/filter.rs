//! Questions that a checked configuration answers: who is delivered, how long the API key lasts, how long
//! nothing may succeed, and the fingerprints by which a changed filter, workspace or organisation is noticed.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use xxhash_rust::xxh3::Xxh3;

use super::{Connector, Torq, UserFilter};
use crate::model::EmailKey;

impl UserFilter {
    /// Whether a user is delivered.
    ///
    /// A user without an address is not filtered by address: delivery parks such a user, who stays visible as one
    /// that needs attention.
    ///
    /// # Errors
    /// Why the user is filtered, for people.
    pub fn admits(&self, email: &EmailKey, status: &str) -> Result<(), String> {
        if !email.is_empty() {
            let domain = email.domain();
            if !self.include_domains.is_empty() && !self.include_domains.iter().any(|known| known == domain) {
                return Err(format!("the domain {domain} is not among include_domains"));
            }
            let excluded = self
                .exclude_emails
                .iter()
                .find(|pattern| matches(pattern, email.as_str()));
            if let Some(pattern) = excluded {
                return Err(format!("excluded by {pattern} in exclude_emails"));
            }
        }
        if !self.statuses.is_empty() && !self.statuses.iter().any(|known| known == status) {
            let status = if status.is_empty() { "(none)" } else { status };
            return Err(format!("the status {status} is not among statuses"));
        }
        Ok(())
    }

    /// Changes when the filter may decide otherwise: equal for equal sets in any order, across versions and machines.
    pub fn fingerprint(&self) -> String {
        let mut fingerprint = Fingerprint::new();
        for list in [&self.include_domains, &self.exclude_emails, &self.statuses] {
            let mut list = list.clone();
            list.sort();
            list.dedup();
            fingerprint.add(&list.len().to_string());
            for item in &list {
                fingerprint.add(item);
            }
        }
        fingerprint.finish()
    }
}

/// So many poll intervals without a success are too many: a connector counts as silent then, and not as ready.
pub const PATIENCE: u32 = 3;

/// How long a connector may be without a success.
pub fn patience(poll_interval: Duration) -> Duration {
    poll_interval.saturating_mul(PATIENCE)
}

impl Torq {
    /// How many whole days the API key lasts from today on (UTC), as the configuration says; negative when it is over.
    pub fn key_days_left(&self, now: Timestamp) -> Option<i32> {
        days_left(self.key_expires?, now)
    }
}

/// How many days ahead the end of the API key is spoken of.
pub const KEY_SOON: i32 = 14;

/// How many whole days there are from today on (UTC) until this one; negative when it is over.
pub fn days_left(day: Date, now: Timestamp) -> Option<i32> {
    let today = now.to_zoned_datetime(TimeZone::UTC).date();
    Some(today.until(day).ok()?.get_days())
}

impl Connector {
    /// Changes with the Torq workspace: its API and the API key's client id (a key is valid for one workspace).
    pub fn torq_fingerprint(&self) -> String {
        let mut fingerprint = Fingerprint::new();
        fingerprint.add(self.torq.api_url.as_str());
        fingerprint.add(&self.torq.client_id);
        fingerprint.finish()
    }

    /// Changes with what is written to in JumpCloud: console, organisation and application. The credentials are not
    /// part of it; they are replaced while the accounts stay the same.
    pub fn jumpcloud_fingerprint(&self) -> String {
        let mut fingerprint = Fingerprint::new();
        fingerprint.add(self.jumpcloud.console_url.as_str());
        fingerprint.add(self.jumpcloud.org_id.as_deref().unwrap_or_default());
        fingerprint.add(&self.jumpcloud.application);
        fingerprint.finish()
    }
}

/// A hash over texts that keeps them apart (`ab`, `c` is not `a`, `bc`).
struct Fingerprint(Xxh3);

impl Fingerprint {
    fn new() -> Self {
        Self(Xxh3::new())
    }

    fn add(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn finish(self) -> String {
        format!("{:016x}", self.0.digest())
    }
}

/// Whether `text` fits `pattern`, where `*` stands for anything, also nothing.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = pattern.rsplit_once('*').map(|(_, last)| last) else {
        return rest.is_empty();
    };
    let middle = pattern.matches('*').count() - 1;
    for part in parts.take(middle) {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
