//! Completions for shells and manual pages, made from the command line's own definition.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CommandError, Exit, write_out};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManualArgs {
    /// The folder to write the pages into; it is made if it is not there.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes a shell's completions to standard output.
pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut for_people(), "torq-connector", &mut script);
    if args.shell == Shell::Bash {
        // Its generator names a program with a hyphen in two ways, so that nothing after a command would be completed.
        let text = String::from_utf8_lossy(&script);
        script = text.replace("torq__subcmd__connector", "torq__connector").into_bytes();
    }
    write_out(|out| out.write_all(&script))?;
    Ok(Exit::Done)
}

/// The command line without the commands that are hidden: completions would offer them.
fn for_people() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set());
    Command::new("torq-connector")
        .version(env!("CARGO_PKG_VERSION"))
        .args(all.get_arguments())
        .subcommands(shown)
}

/// Writes `torq-connector.1` and a page for each command into a folder. They bear no date, so that the same source makes the
/// same pages.
pub(super) fn pages(args: &ManualArgs) -> Result<Exit, CommandError> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|error| CommandError::unexpected(format!("cannot write into {}: {error}", folder.display())))?;
    Ok(Exit::Done)
}
