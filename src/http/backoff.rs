//! How long to wait before asking again: jittered exponential backoff, and `Retry-After` in both its forms.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

/// The wait after the first failure, before jitter, unless another is set.
pub(super) const FIRST: Duration = Duration::from_millis(500);
/// The longest wait that backoff alone asks for.
const CAP: Duration = Duration::from_secs(120);
/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The wait after `failures` failures in a row (1 for the first), between half and all of the exponential step, so that
/// many connectors do not come back at the same moment. `first` is the first step, `roll` a random number in 0..1.
pub(super) fn delay(first: Duration, failures: u32, roll: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let step = first.saturating_mul(1 << doublings).min(CAP);
    step.mul_f64(0.5 + roll.clamp(0.0, 1.0) / 2.0)
}

/// The wait that an answer asked for (RFC 9110, 10.2.3: seconds, or an HTTP date). `None` when it did not, or unreadably.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn delays_double_up_to_a_cap_and_are_jittered() {
        let delay = |failures, roll| delay(FIRST, failures, roll);
        assert_eq!(delay(1, 0.0), Duration::from_millis(250));
        assert_eq!(delay(1, 1.0), Duration::from_millis(500));
        assert_eq!(delay(3, 1.0), Duration::from_secs(2));
        assert_eq!(delay(50, 1.0), CAP);
        assert_eq!(delay(u32::MAX, 1.0), CAP);
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_str(text).unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        let date = httpdate::fmt_http_date(now + Duration::from_secs(30));
        assert_eq!(read(&date), Some(Duration::from_secs(30)));
        let past = httpdate::fmt_http_date(now - Duration::from_secs(30));
        assert_eq!(read(&past), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
        assert_eq!(read("99999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(read("99999999999999999999999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(read("-7"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
