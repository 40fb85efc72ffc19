//! Times, days and ages as people type them.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{CommandError, Exit};
use crate::wording::moment;

/// Reads a time, a day (its beginning, UTC) or an age.
pub(super) fn parse_since(text: &str) -> Result<Timestamp, String> {
    parse(text, Timestamp::now(), |day| {
        day.to_zoned_datetime(TimeZone::UTC)
            .map(|midnight| midnight.timestamp())
    })
}

/// The same, where nothing is known of what is still to come.
pub(super) fn parse_past(text: &str) -> Result<Timestamp, String> {
    not_to_come(parse_since(text)?, Timestamp::now())
}

fn not_to_come(at: Timestamp, now: Timestamp) -> Result<Timestamp, String> {
    match at > now {
        true => Err("that is still to come; give a time or a day that is past, or an age (7d, 12h)".to_owned()),
        false => Ok(at),
    }
}

/// Reads a time, a day (its end, UTC; of today, now) or an age. What is still to come is refused.
pub(super) fn parse_until(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    let at = parse(text, now, |day| {
        let next = day.tomorrow()?.to_zoned_datetime(TimeZone::UTC)?.timestamp();
        let today = now.to_zoned_datetime(TimeZone::UTC).date();
        Ok(if day == today {
            now
        } else {
            next - SignedDuration::from_millis(1)
        })
    })?;
    not_to_come(at, now)
}

fn parse(
    text: &str,
    now: Timestamp,
    of_day: impl FnOnce(Date) -> Result<Timestamp, jiff::Error>,
) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    // A day and nothing else: a time without its offset would be read as the day that it is in.
    if text.len() == "2026-11-01".len()
        && let Ok(day) = text.parse::<Date>()
    {
        return of_day(day).map_err(|error| error.to_string());
    }
    let age = match days(text) {
        Some(days) => Some(SignedDuration::from_hours(24 * i64::from(days))),
        None => text.parse::<SignedDuration>().ok().filter(|age| !age.is_negative()),
    };
    let age = age.ok_or("give a time (2026-11-01T08:00:00Z), a day (2026-11-01) or an age (7d, 12h)")?;
    now.checked_sub(age).map_err(|error| error.to_string())
}

/// `90d`, as far as a calendar reaches.
fn days(text: &str) -> Option<u32> {
    let days = text.strip_suffix('d')?.parse().ok()?;
    (days <= 100_000).then_some(days)
}

/// Refuses a time that ends before it begins.
pub(super) fn in_order(since: Option<Timestamp>, until: Option<Timestamp>) -> Result<(), CommandError> {
    match (since, until) {
        (Some(since), Some(until)) if since > until => Err(CommandError::new(
            Exit::Usage,
            format!(
                "--since ({}) is after --until ({}): nothing can have happened",
                moment(since),
                moment(until)
            ),
        )),
        _ => Ok(()),
    }
}

/// Reads a number of days: `90d` or `90`.
pub(super) fn parse_days(text: &str) -> Result<u32, String> {
    let read = days(text).or_else(|| days(&format!("{text}d")));
    read.filter(|days| *days > 0)
        .ok_or_else(|| "give a number of days, such as 90d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_a_day_or_an_age() {
        assert_eq!(
            parse_since("2026-11-01T08:00:00Z").unwrap().to_string(),
            "2026-11-01T08:00:00Z"
        );
        assert_eq!(parse_since("2026-11-01").unwrap().to_string(), "2026-11-01T00:00:00Z");
        let hours = |text| {
            let since = parse_since(text).unwrap();
            Timestamp::now().duration_since(since).as_hours()
        };
        assert_eq!(hours("7d"), 7 * 24);
        assert_eq!(hours("12h"), 12);
        assert!(parse_since("yesterday").is_err());
        for without_offset in ["2026-11-01T08:00:00", "2026-11-01 08:00", "2026-11-01T08:00"] {
            let error = parse_since(without_offset).unwrap_err();
            assert!(error.contains("2026-11-01T08:00:00Z"), "{error}");
            assert!(parse_until(without_offset).is_err());
        }
        assert!(parse_since("99999999999d").is_err());
    }

    #[test]
    fn until_is_the_end_of_a_day_and_not_in_the_future() {
        let told = |text| parse_until(text).unwrap().to_string();
        assert_eq!(told("2026-11-01"), "2026-11-01T23:59:59.999Z");
        assert_eq!(told("2026-11-01T08:00:00+02:00"), "2026-11-01T06:00:00Z");
        let today = Timestamp::now().to_zoned_datetime(TimeZone::UTC).date().to_string();
        let age = Timestamp::now().duration_since(parse_until(&today).unwrap());
        assert!((0..60).contains(&age.as_secs()), "{age}");
        assert!(parse_until("9000-01-01").unwrap_err().contains("still to come; give"));
        for now in ["0s", "0d"] {
            assert!(parse_until(now).is_ok(), "{now} ago is now");
        }
    }

    #[test]
    fn what_is_past_is_none_of_what_is_to_come() {
        assert_eq!(parse_past("2026-11-01").unwrap().to_string(), "2026-11-01T00:00:00Z");
        for now in [
            "0s",
            "0d",
            &Timestamp::now().to_zoned_datetime(TimeZone::UTC).date().to_string(),
        ] {
            assert!(parse_past(now).is_ok(), "{now}");
        }
        let error = parse_past("9000-01-01").unwrap_err();
        assert!(error.contains("still to come; give a time"), "{error}");
        assert!(parse_past("-1h").is_err());
    }

    #[test]
    fn times_in_messages_are_told_to_the_second() {
        let at = |text: &str| text.parse().ok();
        let order = in_order(
            at("2026-11-24T09:00:00.123456789Z"),
            at("2026-11-24T08:00:00.987654321Z"),
        );
        let message = order.unwrap_err().message;
        let times = "--since (2026-11-24 09:00:00Z) is after --until (2026-11-24 08:00:00Z)";
        assert!(message.starts_with(times), "{message}");
    }

    #[test]
    fn days_are_a_number_with_or_without_a_unit() {
        assert_eq!((parse_days("90d"), parse_days("30")), (Ok(90), Ok(30)));
        for bad in ["0", "-1", "d", "90h", "many", "4294967296"] {
            assert!(parse_days(bad).is_err(), "{bad}");
        }
    }
}
