//! Logs: to standard error, text or JSON. The daemon logs as configured; commands keep quiet unless asked.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use super::journal::{self, Journal};
use crate::config::{Log, LogFormat};

/// Our dependencies' own chatter: of use only when it is asked for by name.
const QUIET: &str = "hyper=warn,hyper_util=warn,h2=warn,reqwest=warn,rustls=warn,tower=warn,mio=warn";

/// Who logs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The daemon: at the configured level.
    Daemon,
    /// A command: warnings, unless more is configured than the default.
    Command,
}

/// Sets logging up. A second call does nothing.
pub(super) fn start(log: &Log, who: Who, verbose: u8) {
    let journal = journal::is_stderr();
    let level = match (verbose, who) {
        (0, Who::Daemon) => log.level.as_str(),
        (0, Who::Command) if log.level == "info" => "warn",
        (0, Who::Command) => log.level.as_str(),
        (1, _) => "info",
        (2, _) => "debug",
        (_, _) => "trace",
    };
    let filter = if level.contains(['=', ',']) {
        // A filter of the operator's own: nothing is added.
        EnvFilter::new(level)
    } else {
        EnvFilter::new(format!("{level},{QUIET}"))
    };
    let writer = if journal {
        BoxMakeWriter::new(Journal::to(io::stderr))
    } else {
        BoxMakeWriter::new(io::stderr)
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let result = match log.format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
        // The journal has times of its own, and shows how grave a line is in its own colours.
        LogFormat::Text if journal => builder.with_ansi(false).with_target(false).without_time().try_init(),
        LogFormat::Text => builder
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
    };
    // Only a second subscriber in the same process is refused.
    let _ = result;
}
