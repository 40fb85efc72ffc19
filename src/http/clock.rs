//! What a peer's answers say about the time: every server with a clock puts `Date` on its answers (RFC 9110, 6.6.1). A machine's own
//! clock may be wrong by years, and nobody notices where ages are compared with ages.

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{AGE, DATE};
use jiff::SignedDuration;

/// When an answer was made, by the clock of who made it; `None` when that is not said, or when it lay in a cache since.
pub(super) fn made_at(headers: &HeaderMap) -> Option<SystemTime> {
    if headers.contains_key(AGE) {
        return None;
    }
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok()
}

/// How far our clock, which says `now`, is ahead of the one of whoever made an answer.
pub(super) fn ahead(headers: &HeaderMap, now: SystemTime) -> Option<SignedDuration> {
    let made = made_at(headers)?;
    match now.duration_since(made) {
        Ok(ahead) => SignedDuration::try_from(ahead).ok(),
        Err(behind) => SignedDuration::try_from(behind.duration()).ok().map(|behind| -behind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::time::Duration;

    #[test]
    fn a_date_tells_how_far_our_clock_is_ahead_or_behind() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let hour = Duration::from_secs(3600);
        let said = |at: SystemTime| {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, HeaderValue::from_str(&httpdate::fmt_http_date(at)).unwrap());
            headers
        };
        assert_eq!(ahead(&said(now - hour), now), Some(SignedDuration::from_hours(1)));
        assert_eq!(ahead(&said(now + hour), now), Some(SignedDuration::from_hours(-1)));
        assert_eq!(ahead(&HeaderMap::new(), now), None);
        let mut cached = said(now - hour);
        cached.insert(AGE, HeaderValue::from_static("3600"));
        assert_eq!(ahead(&cached, now), None, "what lay in a cache says nothing");
        let mut odd = HeaderMap::new();
        odd.insert(DATE, HeaderValue::from_static("yesterday"));
        assert_eq!(ahead(&odd, now), None);
    }
}
