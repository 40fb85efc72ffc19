//! A table that does not fit into the window goes through a pager: `$PAGER`, or `less`. Data that is not a table never does, nor does
//! anything that does not go to a terminal. Whatever becomes of the pager, the command ends as it would have without.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};

use super::output::{Format, Look};
use super::{CommandError, tell, write_out};

/// What `less` is told where the environment does not say it: keep colours, leave a short text on the screen.
const LESS: &str = "FRX";

/// What begins a line of shell and is no program.
const BUILT_IN: [&str; 4] = ["exec", "exit", "command", "env"];

/// Writes a table through a pager where that is wanted and helps, everything else as it is.
pub(super) fn write_paged(
    look: Look,
    wanted: bool,
    write: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> Result<(), CommandError> {
    let height = (wanted && look.format == Format::Table && io::stdout().is_terminal())
        .then(height)
        .flatten();
    let variable = std::env::var_os("PAGER");
    let is_named = variable.is_some();
    let pager = pager(variable);
    if let (Some(height), Some(pager)) = (height, pager) {
        let mut text = Vec::new();
        write(&mut text).map_err(CommandError::unexpected)?;
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        // The prompt takes a line, too.
        if lines >= height {
            if !is_missing(&pager, std::env::var_os("PATH").as_deref()) {
                if paged(&pager, &text) {
                    return Ok(());
                }
            } else if is_named {
                let pager = pager.display();
                tell(&format!(
                    "there is no pager {pager} (the environment variable PAGER); without one:"
                ));
            }
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

/// Whether there is no such program, as far as that can be said: a line of shell is the shell's to judge.
fn is_missing(pager: &OsStr, search: Option<&OsStr>) -> bool {
    let Some(program) = pager.to_str().and_then(|line| line.split_whitespace().next()) else {
        return false;
    };
    let is_plain = |c: char| c.is_alphanumeric() || "/._+-".contains(c);
    if !program.chars().all(is_plain) || BUILT_IN.contains(&program) {
        return false;
    }
    if program.contains('/') {
        return !Path::new(program).exists();
    }
    let folders = search.map(std::env::split_paths);
    !folders.is_some_and(|mut folders| folders.any(|folder| folder.join(program).exists()))
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
    fn only_what_is_surely_not_there_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("more"), "").unwrap();
        let search = Some(folder.path().as_os_str());
        let is_missing = |pager: &str| is_missing(OsStr::new(pager), search);
        for there in ["more", "more -s", "exit 3", "LESS=F less", "(cat)", "/bin/sh -c cat"] {
            assert!(!is_missing(there), "{there}");
        }
        for missing in ["most", "most -s", "/nowhere/more"] {
            assert!(is_missing(missing), "{missing}");
        }
    }

    #[test]
    fn an_empty_pager_is_none() {
        assert_eq!(pager(None), Some("less".into()));
        assert_eq!(pager(Some("more -s".into())), Some("more -s".into()));
        for none in ["", "  ", "cat"] {
            assert_eq!(pager(Some(none.into())), None);
        }
    }
}
