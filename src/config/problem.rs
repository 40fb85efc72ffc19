//! What is wrong with a configuration, in words for the person who wrote it. Everything that is wrong is
//! collected and told at once; nothing here ever holds a secret.

use std::fmt;

use crate::model::steers;

/// The longest key or origin that is shown whole, in characters.
const LONGEST_NAME: usize = 200;
/// The longest message.
const LONGEST_MESSAGE: usize = 1000;

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, e.g. `connectors.main.torq.region`; empty for the file itself.
    pub key: String,
    /// Where the value was given, e.g. `line 12` or `the environment variable TORQ_CONNECTOR__LOG__LEVEL`.
    pub origin: Option<String>,
    /// What was found, where that helps and is not a secret.
    pub found: Option<String>,
    /// What is allowed, or what to do.
    pub message: String,
}

impl Problem {
    /// A problem with this key; [`Problem::at`] and [`Problem::found`] add what is known besides.
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: line(key.into(), LONGEST_NAME),
            origin: None,
            found: None,
            message: line(message.into(), LONGEST_MESSAGE),
        }
    }

    /// The same, with where the value was given.
    pub(super) fn at(mut self, origin: Option<&str>) -> Self {
        self.origin = origin.map(|origin| line(origin.to_owned(), LONGEST_NAME));
        self
    }

    /// The same, with what was found there.
    pub(super) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }
}

/// Text on one line that is not endless: names of keys and variables are whatever somebody wrote.
fn line(text: String, most: usize) -> String {
    if !text.contains(steers) && text.chars().nth(most).is_none() {
        return text;
    }
    let shown: String = text
        .chars()
        .take(most)
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect();
    let more = if text.chars().nth(most).is_some() { "…" } else { "" };
    format!("{shown}{more}")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), &self.origin) {
            ("", None) => {}
            ("", Some(origin)) => write!(f, "{origin}: ")?,
            (key, None) => write!(f, "{key}: ")?,
            (key, Some(origin)) => write!(f, "{key} ({origin}): ")?,
        }
        if let Some(found) = &self.found {
            write!(f, "found {found}; ")?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
impl std::error::Error for Problems {}
