//! What a check finds, and how it is told: line by line to people as it goes on, at its end to programs.

use serde::Serialize;

use crate::invocation::addressed;
use crate::wording::printable;

/// How a test turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Verdict {
    /// It is as it must be.
    Ok,
    /// Nothing is wrong, and somebody may want to know.
    Note,
    /// It is not as it must be.
    Failed,
}

/// One test, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct Finding {
    /// The connector; null: it is about the installation.
    pub(in crate::cli) connector: Option<String>,
    /// What was tested.
    pub(in crate::cli) check: String,
    /// How it turned out.
    pub(in crate::cli) verdict: Verdict,
    /// What was found, if there is more to say.
    pub(in crate::cli) reason: Option<String>,
    /// What a person should do.
    pub(in crate::cli) action: Option<String>,
}

/// All that was tested, in this order.
#[derive(Debug, Default, Serialize)]
pub(in crate::cli) struct CheckReport {
    /// One for each test.
    pub(in crate::cli) checks: Vec<Finding>,
}

impl Finding {
    /// Of a test; `words` may be empty.
    pub(super) fn new(connector: Option<&str>, check: &str, verdict: Verdict, words: &str) -> Self {
        let told = |text: &str| addressed(text).into_owned();
        Self {
            connector: connector.map(str::to_owned),
            check: check.to_owned(),
            verdict,
            reason: (!words.is_empty()).then(|| told(words)),
            action: None,
        }
    }

    /// With what to do about it.
    pub(super) fn advising(mut self, action: Option<&str>) -> Self {
        self.action = action.map(|action| addressed(action).into_owned());
        self
    }

    /// For people: a line, and below it what to do.
    pub(in crate::cli) fn lines(&self) -> impl Iterator<Item = String> {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Failed => "FAILED",
        };
        let words = self.reason.as_deref().unwrap_or_default();
        let line = format!("{verdict:7} {:24} {}", self.check, printable(words));
        let action = self.action.as_deref();
        let action = action.map(|action| format!("{:32} what to do: {}", "", printable(action)));
        [line.trim_end().to_owned()].into_iter().chain(action)
    }
}
