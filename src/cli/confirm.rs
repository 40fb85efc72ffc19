//! Asking a person before something is taken away.

use std::io::{BufRead, IsTerminal, Write};

use super::{CommandError, tell};

/// Asks, where there is somebody to ask. `verb`, `past` and `whom`: *Remove*, *removed*, *main*.
pub(super) fn confirmed(verb: &str, past: &str, whom: &str, yes: bool) -> Result<bool, CommandError> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        tell(&format!(
            "Nothing is {past}: there is no terminal to ask on. To {} without being asked, add --yes.",
            verb.to_lowercase()
        ));
        return Ok(false);
    }
    let mut terminal = std::io::stderr();
    let _ = write!(terminal, "{verb} {whom}? [y/N] ").and_then(|()| terminal.flush());
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(CommandError::unexpected)?;
    let yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !yes {
        tell(&format!("Nothing is {past}."));
    }
    Ok(yes)
}
