//! The headers that are decoded: `Retry-After` of the peers; `Host` and `Authorization` of whoever looks at the status page.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use torq_connector::fuzzing::{answers_to, knows_password, retry_after};
use torq_connector::web::Access;

use super::Gauge;
use super::foreign::{SECRET, measured};

/// The longest pause that a peer can ask for.
const LONGEST: Duration = Duration::from_secs(3600);

/// Lines of `Name: value`.
pub fn headers(data: &[u8], gauge: Gauge) {
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let Ok(value) = HeaderValue::from_bytes(value) else {
            continue;
        };
        match name.to_ascii_lowercase().as_slice() {
            b"retry-after" => pause(&value, gauge),
            b"host" => host(&value, gauge),
            b"authorization" => password(&value, gauge),
            _ => {}
        }
    }
}

/// Seconds or a date, both bounded; anything else is no wish.
fn pause(value: &HeaderValue, gauge: Gauge) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, value.clone());
    let wait = measured(gauge, value.len(), || retry_after(&headers, now));
    assert!(wait.is_none_or(|wait| wait <= LONGEST), "{value:?}: {wait:?}");
    let Ok(text) = value.to_str() else {
        assert_eq!(wait, None);
        return;
    };
    let number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if number {
        let seconds = text.parse().unwrap_or(u64::MAX);
        assert_eq!(wait, Some(Duration::from_secs(seconds).min(LONGEST)), "{text}");
    }
    if let Ok(date) = httpdate::parse_http_date(text) {
        assert_eq!(
            wait,
            Some(date.duration_since(now).unwrap_or_default().min(LONGEST)),
            "{text}"
        );
    }
    if text.starts_with('-') {
        assert_eq!(wait, None);
    }
}

/// Only an address, which nobody can make lead elsewhere, or a name that is ours.
fn host(value: &HeaderValue, gauge: Gauge) {
    let access = Access {
        local: true,
        password: None,
        hosts: vec!["status.example.com".to_owned()],
    };
    let Ok(text) = value.to_str() else { return };
    if !measured(gauge, text.len(), || answers_to(&access, text)) {
        return;
    }
    let name = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap(),
        None => text.rsplit_once(':').map_or(text, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let ours = name.parse::<IpAddr>().is_ok() || name == "localhost" || name == "status.example.com";
    assert!(ours, "answered to {text:?}");
}

/// Only the password lets anybody in, whole, and with any user name.
fn password(value: &HeaderValue, gauge: Gauge) {
    let secret = SECRET.into();
    let access = Access::default();
    let knows = |value: HeaderValue| {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value);
        measured(gauge, 1024, || knows_password(&access, &headers, &secret))
    };
    let plain = |value: &HeaderValue| {
        let text = value.to_str().ok()?;
        let (scheme, encoded) = text.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case("basic ") {
            return None;
        }
        BASE64_STANDARD.decode(encoded.trim()).ok()
    };
    if value.len() <= 1024 && knows(value.clone()) {
        let plain = plain(value).expect("what was let in can be read");
        // The name may be in whatever encoding: nobody reads it.
        let colon = plain
            .iter()
            .position(|byte| *byte == b':')
            .expect("a user name and a password");
        assert_eq!(&plain[colon + 1..], SECRET.as_bytes());
    }
    // Whatever it is, it is a good user name, unless it ends one; and it is no good password.
    let text = String::from_utf8_lossy(value.as_bytes());
    let basic = |pair: String| HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(pair))).unwrap();
    let user: String = text.chars().filter(|c| *c != ':').take(50).collect();
    assert!(knows(basic(format!("{user}:{SECRET}"))));
    let wrong: String = text.chars().take(50).collect();
    assert!(
        wrong == SECRET || !knows(basic(format!("user:{wrong}"))),
        "let in with {wrong:?}"
    );
    assert!(!knows(basic(format!("user:{SECRET}{wrong}x"))));
}
