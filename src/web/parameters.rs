//! The parameters of a query string. The API takes each at most once and only what it knows; a page forgives what it does not
//! know, says what it could not read, and shows the rest.

use jiff::Timestamp;
use jiff::civil::Date;
use url::form_urlencoded;

use crate::state::UserSelection;
use crate::view::AccountStanding;

/// What was asked, and what of it makes no sense.
pub(super) struct Parameters {
    given: Vec<(String, String)>,
    problems: Vec<String>,
}

impl Parameters {
    /// Each at most once, and only those that mean something.
    pub(super) fn strict(query: Option<String>, known: &[&str]) -> Self {
        let mut parameters = Self {
            given: Vec::new(),
            problems: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let problem = format!("{name}: no such parameter; there are {}", known.join(", "));
                parameters.problems.push(problem);
            } else if parameters.given.iter().any(|(other, _)| *other == name) {
                parameters.problems.push(format!("{name}: given more than once"));
            } else {
                parameters.given.push((name.into_owned(), value.into_owned()));
            }
        }
        parameters
    }

    /// What a form sends: fields that were left empty are not given, and of several the last counts.
    pub(super) fn of_form(query: Option<String>) -> Self {
        let mut given: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .map(|(name, value)| (name.into_owned(), value.trim().to_owned()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        // The first that fits is taken.
        given.reverse();
        Self {
            given,
            problems: Vec::new(),
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.given.iter().find(|(given, _)| given == name)?;
        Some(value)
    }

    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub(super) fn parsed<T>(&mut self, name: &str, allowed: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.text(name)?;
        let parsed = parse(value);
        if parsed.is_none() {
            let problem = format!("{name}: {value:?} is not {allowed}");
            self.problems.push(problem);
        }
        parsed
    }

    /// Which users are wanted.
    pub(super) fn selection(&mut self, now: Timestamp) -> UserSelection {
        let standings = AccountStanding::ALL.map(AccountStanding::as_str).join(", ");
        UserSelection {
            search: self.owned("search"),
            account: self.parsed("account", &format!("one of {standings}"), AccountStanding::parse),
            status: self.owned("status"),
            sso: self.parsed("sso", "true or false", |text| text.parse().ok()),
            unmatched: self
                .parsed("unmatched", "true or false", |text| text.parse().ok())
                .unwrap_or(false),
            dormant_since: self.parsed("dormant", "a number of days, such as 90", |text| {
                let days: u32 = text.strip_suffix('d').unwrap_or(text).parse().ok()?;
                (days > 0).then(|| UserSelection::days_before(now, days))
            }),
        }
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }
}

/// RFC 3339. A `+` that was not encoded arrives as a space, and an offset is what most people use it for.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| {
        let (before, after) = text.rsplit_once(' ')?;
        format!("{before}+{after}").parse().ok()
    })
}

/// A day (its beginning, UTC) or a moment.
pub(super) fn day_or_instant(text: &str) -> Option<Timestamp> {
    let day = |text: &str| {
        let date: Date = text.parse().ok()?;
        format!("{date}T00:00:00Z").parse().ok()
    };
    if text.len() == 10 { day(text) } else { instant(text) }
}
