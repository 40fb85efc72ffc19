//! A table that does not fit into the window goes through a pager: `$PAGER`, or `less`. Data that is not a table never does, nor does
//! anything that does not go to a terminal. Whatever becomes of the pager, the command ends as it would have without.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};

use super::output::{Format, Look};
use super::{CommandError, write_out};

/// What `less` is told where the environment does not say it: keep colours, leave a short text on the screen.
const LESS: &str = "FRX";

/// Writes a table through a pager where that is wanted and helps, everything else as it is.
pub(super) fn write_paged(
    look: Look,
    wanted: bool,
    write: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> Result<(), CommandError> {
    let height = (wanted && look.format == Format::Table && io::stdout().is_terminal())
        .then(height)
        .flatten();
    let pager = pager(std::env::var_os("PAGER"));
    if let (Some(height), Some(pager)) = (height, pager) {
        let mut text = Vec::new();
        write(&mut text).map_err(CommandError::unexpected)?;
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        // The prompt takes a line, too.
        if lines >= height && paged(&pager, &text) {
            return Ok(());
        }
        return write_out(|out| out.write_all(&text));
    }
    write_out(|out| write(out))
}

/// How many lines the window has.
pub(super) fn height() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0).then_some(size.ws_row.into())
}

/// Which pager. An empty one is none, and so is `cat`.
fn pager(variable: Option<OsString>) -> Option<OsString> {
    match variable {
        None => Some("less".into()),
        Some(pager) if pager.as_encoded_bytes().trim_ascii().is_empty() || pager == "cat" => None,
        pager => pager,
    }
}

/// Whether the pager showed it. It did not when there is no such program; whoever leaves it early has seen enough.
fn paged(pager: &OsString, text: &[u8]) -> bool {
    // Ctrl-C is the pager's business while it runs.
    let _signals = signal(SignalKind::interrupt());
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(pager).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", LESS);
    }
    let Ok(mut child) = command.spawn() else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // A reader that went away is no error.
        let _ = stdin.write_all(text);
    }
    // 126, 127: the shell could not run it.
    !matches!(child.wait().ok().and_then(|status| status.code()), Some(126 | 127))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pager_is_none() {
        assert_eq!(pager(None), Some("less".into()));
        assert_eq!(pager(Some("more -s".into())), Some("more -s".into()));
        for none in ["", "  ", "cat"] {
            assert_eq!(pager(Some(none.into())), None);
        }
    }
}
