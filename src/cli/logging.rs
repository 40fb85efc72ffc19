//! Logs: to standard error, text or JSON. The daemon logs as configured; commands keep quiet unless asked.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

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
    let level = match (verbose, who) {
        (0, Who::Daemon) => log.level.as_str(),
        (0, Who::Command) if log.level == "info" => "warn",
        (0, Who::Command) => log.level.as_str(),
        (1, _) => "info",
        (2, _) => "debug",
        (_, _) => "trace",
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(BoxMakeWriter::new(std::io::stderr));
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
        LogFormat::Text => {
            let builder = builder
                .with_ansi(std::io::stderr().is_terminal())
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

fn filter(level: &str) -> EnvFilter {
    if level.contains(['=', ',']) {
        // A filter of the operator's own: nothing is added.
        EnvFilter::new(level)
    } else {
        EnvFilter::new(format!("{level},{QUIET}"))
    }
}
