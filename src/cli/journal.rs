//! systemd's journal as the reader of standard error: each line begins with its priority in angle brackets, which the journal
//! takes off again, whether lines are text or JSON.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Whether standard error is the journal.
pub(super) fn is_stderr() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|told| is_named(&told))
}

/// Whether standard error is this file, by device and inode: systemd names the journal's so, and who redirects standard error
/// elsewhere has another one.
fn is_named(told: &str) -> bool {
    let found = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|stderr| File::from(stderr).metadata());
    found.is_ok_and(|found| told == format!("{}:{}", found.dev(), found.ino()))
}

/// Writes for the journal.
pub(super) struct Journal<M>(M);

impl<M> Journal<M> {
    /// To what the journal reads.
    pub(super) fn to(writer: M) -> Self {
        Self(writer)
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Journal<M> {
    type Writer = Prefixed<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        self.prefixed(Level::INFO)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        self.prefixed(*meta.level())
    }
}

impl<'a, M: MakeWriter<'a>> Journal<M> {
    fn prefixed(&'a self, level: Level) -> Prefixed<M::Writer> {
        Prefixed {
            writer: self.0.make_writer(),
            prefix: priority(level),
        }
    }
}

/// A failure that ends the process, as the journal is to hear of it.
pub(super) fn failure(message: &str) -> String {
    let prefix = priority(Level::ERROR);
    let lines: Vec<_> = message.lines().map(|line| format!("{prefix}{line}")).collect();
    lines.join("\n")
}

/// The priority of syslog's that a level is.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Puts the priority before every line.
pub(super) struct Prefixed<W> {
    writer: W,
    prefix: &'static str,
}

impl<W: Write> Write for Prefixed<W> {
    /// An event comes in one piece, and leaves in one.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut lines = Vec::with_capacity(event.len() + self.prefix.len());
        for line in event.split_inclusive(|byte| *byte == b'\n') {
            lines.extend_from_slice(self.prefix.as_bytes());
            lines.extend_from_slice(line);
        }
        self.writer.write_all(&lines)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_journal_hears_how_grave_each_line_is() {
        let mut file = tempfile::tempfile().unwrap();
        let written = Arc::new(file.try_clone().unwrap());
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Journal::to(written))
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("over\ntwo lines");
            tracing::warn!(connector = "main", "careful");
            tracing::info!("well");
            tracing::debug!("details");
            tracing::trace!("more");
        });
        file.rewind().unwrap();
        let mut written = String::new();
        file.read_to_string(&mut written).unwrap();
        assert_eq!(
            written.lines().collect::<Vec<_>>(),
            [
                "<3>ERROR over",
                "<3>two lines",
                "<4> WARN careful connector=\"main\"",
                "<6> INFO well",
                "<7>DEBUG details",
                "<7>TRACE more",
            ]
        );
    }

    #[test]
    fn a_failure_is_one_on_every_line() {
        assert_eq!(failure("problems:\n- one"), "<3>problems:\n<3>- one");
    }

    #[test]
    fn the_journal_is_where_systemd_says_it_is() {
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned().unwrap());
        let found = stderr.metadata().unwrap();
        assert!(is_named(&format!("{}:{}", found.dev(), found.ino())));
        assert!(!is_named(&format!("{}:{}", found.dev(), found.ino() + 1)));
        assert!(!is_named("nonsense"));
    }
}
