//! Logs: to standard error, text or JSON. The daemon logs as configured; commands keep quiet unless asked.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::journal::{self, Journal};
use crate::config::{Log, LogFormat};
use crate::invocation::Addressed;

/// Those of our dependencies that log. What they have to say we say in our own words, so it is of use only to whoever looks for more.
const LIBRARIES: [&str; 8] = [
    "hyper",
    "hyper_util",
    "h2",
    "reqwest",
    "rustls",
    "rustls_platform_verifier",
    "tower",
    "mio",
];

/// Who logs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The daemon: at the configured level.
    Daemon,
    /// A command: warnings, unless more is configured than the default.
    Command,
}

/// Sets the level while the process runs.
pub(super) struct Level(Box<dyn Fn(EnvFilter) + Send + Sync>);

impl Level {
    /// As configured.
    pub(super) fn set(&self, log: &Log) {
        (self.0)(filter(&log.level));
    }
}

/// Sets logging up. A second call does nothing. Returns how to change the level, unless the command line chose it.
pub(super) fn start(log: &Log, who: Who, verbose: u8) -> Option<Level> {
    let journal = journal::is_stderr();
    let level = match (verbose, who) {
        (0, Who::Daemon) => log.level.as_str(),
        (0, Who::Command) if log.level == "info" => "warn",
        (0, Who::Command) => log.level.as_str(),
        (1, _) => "info",
        (2, _) => "debug",
        (_, _) => "trace",
    };
    let writer = if journal {
        BoxMakeWriter::new(Addressed(Journal::to(io::stderr)))
    } else {
        BoxMakeWriter::new(Addressed(io::stderr))
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(writer);
    let (level, result) = match log.format {
        LogFormat::Json => {
            let builder = builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            (changing(move |filter| drop(handle.reload(filter))), builder.try_init())
        }
        // The journal has times of its own, and shows how grave a line is in its own colours.
        LogFormat::Text if journal => {
            let builder = builder
                .with_ansi(false)
                .with_target(false)
                .without_time()
                .with_filter_reloading();
            let handle = builder.reload_handle();
            (changing(move |filter| drop(handle.reload(filter))), builder.try_init())
        }
        LogFormat::Text => {
            let builder = builder
                .with_ansi(io::stderr().is_terminal())
                .with_target(false)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            (changing(move |filter| drop(handle.reload(filter))), builder.try_init())
        }
    };
    // Only a second subscriber in the same process is refused.
    (result.is_ok() && verbose == 0).then_some(level)
}

fn changing(set: impl Fn(EnvFilter) + Send + Sync + 'static) -> Level {
    Level(Box::new(set))
}

/// What the text says, as [`config`](crate::config) checked it: without regular expressions.
fn filter_of(text: &str) -> EnvFilter {
    EnvFilter::builder()
        .with_regex(false)
        .with_default_directive(LevelFilter::ERROR.into())
        .parse_lossy(text)
}

fn filter(level: &str) -> EnvFilter {
    if level.contains(['=', ',']) {
        // A filter of the operator's own: nothing is added.
        filter_of(level)
    } else {
        let theirs = if matches!(level, "debug" | "trace") {
            "warn"
        } else {
            "off"
        };
        let theirs = LIBRARIES.map(|library| format!("{library}={theirs}")).join(",");
        filter_of(&format!("{level},{theirs}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_heard_only_by_whoever_looks_for_more() {
        let text = |level| filter(level).to_string();
        assert!(text("info").contains("rustls_platform_verifier=off") && text("warn").contains("hyper=off"));
        assert!(text("debug").contains("rustls=warn"));
        assert_eq!(text("rustls=trace"), "rustls=trace", "a filter of the operator's own");
    }
}
