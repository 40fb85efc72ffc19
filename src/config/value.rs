//! One value at a time: from what was written to the type it must be, or to a problem that says what is allowed.

use std::time::Duration;

use ::config::{Value, ValueKind};
use jiff::{Span, SpanRelativeTo};
use url::{Host, Url};

use super::secret::is_placeholder;
use super::{MaxRemovals, Problem, environment};

/// A value that is there, and its key.
pub(super) struct Given<'a> {
    /// The key, e.g. `connectors.main.torq.region`.
    pub(super) key: String,
    /// The value.
    pub(super) value: &'a Value,
}

impl<'a> Given<'a> {
    /// A problem with this value that does not show it.
    pub(super) fn wrong(&self, message: impl Into<String>) -> Problem {
        Problem::new(&self.key, message).at(self.value.origin())
    }

    /// A problem with this value that shows it.
    pub(super) fn refused(&self, message: impl Into<String>) -> Problem {
        self.wrong(message).found(shown(self.value))
    }

    /// A problem with this value that tells only of what type it is.
    pub(super) fn secretly_refused(&self, message: impl Into<String>) -> Problem {
        self.wrong(message).found(kind_of(self.value))
    }

    /// Whether it came from the environment.
    pub(super) fn is_from_environment(&self) -> bool {
        environment::is_origin_of(self.value)
    }

    /// Text that is not empty. `allowed` ends the sentence "must be …".
    pub(super) fn text(&self, allowed: &str) -> Result<&'a str, Problem> {
        match &self.value.kind {
            ValueKind::String(text) if text.trim().is_empty() => {
                Err(self.refused(format!("must be {allowed}")).found("an empty value"))
            }
            ValueKind::String(text) => Ok(text.as_str()),
            ValueKind::I64(_) | ValueKind::Float(_) | ValueKind::Boolean(_) => {
                Err(self.refused(format!("must be {allowed}, in quotes")))
            }
            _ => Err(self.refused(format!("must be {allowed}"))),
        }
    }

    /// One of these words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Problem> {
        let allowed: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let allowed = allowed.join(" or ");
        let text = self.text(&allowed)?;
        let word = words.iter().find(|(word, _)| *word == text.trim());
        word.map(|(_, meaning)| *meaning)
            .ok_or_else(|| self.refused(format!("must be {allowed}")))
    }

    /// An id: one word of printable ASCII, so that it can go into a header.
    pub(super) fn id(&self, what: &str) -> Result<String, Problem> {
        let text = self.text(what)?;
        if is_placeholder(text) {
            return Err(self.refused(format!("replace the placeholder with {what}")));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.wrong(format!("must be {what}: letters, digits and signs, without spaces")));
        }
        Ok(text.to_owned())
    }

    /// A duration within these bounds.
    pub(super) fn duration(&self, least: &str, most: &str) -> Result<Duration, Problem> {
        let allowed = format!("a duration such as \"90s\", \"15m\" or \"1h 30m\", from {least} to {most}");
        let text = self.text(&allowed)?;
        let wrong = || self.refused(format!("must be {allowed}"));
        let found = duration(text).ok_or_else(wrong)?;
        let fits =
            duration(least).is_none_or(|least| found >= least) && duration(most).is_none_or(|most| found <= most);
        if fits { Ok(found) } else { Err(wrong()) }
    }

    /// A duration within these bounds, or `off`.
    pub(super) fn duration_or_off(&self, least: &str, most: &str) -> Result<Option<Duration>, Problem> {
        let allowed = format!("a duration such as \"90d\", from {least} to {most}, or \"off\"");
        let text = self.text(&allowed)?;
        if text.trim() == "off" {
            return Ok(None);
        }
        let within = self.duration(least, most);
        within.map(Some).map_err(|_| self.refused(format!("must be {allowed}")))
    }

    /// A number of users, or percent of them.
    pub(super) fn max_removals(&self) -> Result<MaxRemovals, Problem> {
        let wrong =
            || self.refused("must be percent of the users, \"0%\" to \"100%\", or a number of users, 0 or more");
        match &self.value.kind {
            ValueKind::I64(number) => u64::try_from(*number).map(MaxRemovals::Users).map_err(|_| wrong()),
            ValueKind::String(text) => max_removals(text.trim()).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }

    /// A calendar date.
    pub(super) fn date(&self) -> Result<jiff::civil::Date, Problem> {
        let allowed = "a date such as 2027-03-01";
        let text = self.text(allowed)?.trim();
        // jiff also reads dates with a time, which would be dropped silently.
        let date = (text.len() == "2027-03-01".len()).then(|| text.parse().ok());
        date.flatten().ok_or_else(|| self.refused(format!("must be {allowed}")))
    }

    /// The URL of a peer: HTTPS, or HTTP to loopback; nothing in it that is secret or that a path cannot follow.
    pub(super) fn url(&self) -> Result<Url, Problem> {
        let allowed = "a URL that begins with https:// (http:// only for localhost, 127.0.0.0/8 and [::1])";
        let text = self.text(allowed)?;
        // What follows may hold a password or a token, so it is shown only when there is no place for one.
        let tell = |message: String| {
            if text.contains(['@', '?', '#']) {
                self.wrong(message)
            } else {
                self.refused(message)
            }
        };
        let wrong = || tell(format!("must be {allowed}"));
        let url = Url::parse(text.trim()).map_err(|_| wrong())?;
        let allowed_scheme = match url.scheme() {
            "https" => url.host().is_some(),
            "http" => is_loopback(&url),
            _ => false,
        };
        if !allowed_scheme || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(wrong());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.wrong("must not contain a user name or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(tell("must not contain a query (?…) or fragment (#…)".to_owned()));
        }
        Ok(url)
    }

    /// The same, without a slash at the end, so that paths can be appended. (A URL without a path keeps its one.)
    pub(super) fn base_url(&self) -> Result<Url, Problem> {
        let mut url = self.url()?;
        let trimmed = url.path().trim_end_matches('/').to_owned();
        url.set_path(&trimmed);
        Ok(url)
    }

    /// A path as written. Not shown when it is refused: where a file with a secret belongs, some write the secret.
    pub(super) fn path(&self) -> Result<&'a str, Problem> {
        match &self.value.kind {
            ValueKind::String(text) if text.is_empty() => Err(self.wrong("must be a path").found("an empty value")),
            ValueKind::String(text) if !text.contains('\0') => Ok(text),
            _ => Err(self.secretly_refused("must be a path, in quotes")),
        }
    }

    /// The items of a list: in the file a list of strings, in the environment separated by commas.
    pub(super) fn items(&self) -> Result<Vec<&'a str>, Problem> {
        match &self.value.kind {
            ValueKind::Array(items) => items
                .iter()
                .map(|item| match &item.kind {
                    ValueKind::String(text) => Ok(text.as_str()),
                    _ => Err(Problem::new(&self.key, "must be a list of strings: [\"…\", \"…\"]")
                        .at(item.origin())
                        .found(format!("{} in the list", shown(item)))),
                })
                .collect(),
            ValueKind::String(text) if self.is_from_environment() => {
                Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect())
            }
            _ => Err(self.refused("must be a list of strings: [\"…\", \"…\"]")),
        }
    }
}

/// What a value is, without showing anything of it.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match &value.kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "an integer",
        ValueKind::Float(_) => "a number",
        ValueKind::String(_) => "a string",
        ValueKind::Table(_) => "a section",
        ValueKind::Array(_) => "a list",
    }
}

/// A value as it can be shown on one line.
fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => shown_text(text),
        ValueKind::Boolean(truth) => truth.to_string(),
        ValueKind::I64(number) => number.to_string(),
        ValueKind::Float(number) if number.is_finite() => number.to_string(),
        _ => kind_of(value).to_owned(),
    }
}

/// Text in quotes, on one line, and not endless.
pub(super) fn shown_text(text: &str) -> String {
    const MOST: usize = 120;
    if text.chars().count() > MOST {
        let start: String = text.chars().take(MOST).collect();
        format!("{start:?} and so on")
    } else {
        format!("{text:?}")
    }
}

/// Reads "1h 30m"; a day has 24 hours, and months are too vague.
fn duration(text: &str) -> Option<Duration> {
    let span: Span = text.trim().parse().ok()?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(signed).ok()
}

fn max_removals(text: &str) -> Option<MaxRemovals> {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match text.strip_suffix('%').map(str::trim_end) {
        Some(number) => {
            let percent: f64 = plain(number).then(|| number.parse().ok())??;
            (0.0..=100.0)
                .contains(&percent)
                .then_some(MaxRemovals::Percent(percent))
        }
        None => plain(text).then(|| text.parse().ok().map(MaxRemovals::Users)).flatten(),
    }
}

/// Whether a URL leads to this machine and nowhere else.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
