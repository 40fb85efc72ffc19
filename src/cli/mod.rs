//! The command line: what people and scripts call. Each command is a room; this one has the arguments, the exit codes and
//! what all commands share.
//!
//! Output for people goes to standard error, data to standard output.

mod act;
mod check;
mod demo;
mod exit;
mod health;
mod journal;
mod logging;
mod look;
mod manual;
pub mod output;
mod sandbox;
mod serve;
mod sync;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config};
use crate::daemon::control::Action;

pub use exit::Exit;
use output::Format;

/// The JumpCloud SaaS Management connector for Torq.
///
/// Reads the users of Torq workspaces, compares them with the last snapshot, and keeps JumpCloud SaaS Management up to date
/// with new users and application associations.
#[derive(Debug, Parser)]
#[command(name = "torq-connector", version, long_version = LONG_VERSION, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// The configuration file.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "TORQ_CONNECTOR_CONFIG",
        default_value = "/etc/torq-connector/config.toml"
    )]
    config: PathBuf,
    /// Log more to standard error: -v for what happens, -vv for every request.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("BUILD_COMMIT"),
    "\ntarget: ",
    env!("BUILD_TARGET")
);

const EXIT_CODES: &str = "Exit codes: 0 done; 1 unexpected; 64 usage; 69 a peer is unreachable or fails (try again); 75 done in \
part (something is pending, parked, held or report-only, or a named connector is paused); 77 credentials or permission refused, \
or not licensed; 78 configuration. Over several connectors the gravest counts.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: poll and deliver on schedule, serve the status page.
    Run,
    /// Do one run now, then exit; asks the running daemon to do it where one runs.
    Sync(SyncArgs),
    /// Check the configuration, then each thing that can be wrong: network, credentials, permission, licence. Writes nothing.
    Check(CheckArgs),
    /// Show the state of connectors.
    Status(ShowArgs),
    /// Show who is in Torq, and what JumpCloud has for them.
    Users(ShowArgs),
    /// Show what happened.
    Events(EventsArgs),
    /// Try again after new credentials, permissions or a licence.
    Reconnect(NameArgs),
    /// Stop polling and delivering until `resume`.
    Pause(NameArgs),
    /// Go on after `pause`.
    Resume(NameArgs),
    /// Believe the removals that are held; the next run carries them out.
    Approve(NameArgs),
    /// Deliver again what was parked.
    Retry(NameArgs),
    /// Ask the running daemon whether it works; exits 0, 1 when it says that it does not, 69 when it does not answer.
    Health(health::HealthArgs),
    /// Serve both APIs on loopback, with invented people, arrivals and faults to choose.
    Sandbox(sandbox::SandboxArgs),
    /// See the whole thing work: sandbox, a connector and the status page, from one command.
    Demo(demo::DemoArgs),
    /// Write the completions of a shell to standard output.
    Completions(manual::CompletionsArgs),
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Manual(manual::ManualArgs),
}

#[derive(Debug, Args)]
struct NameArgs {
    /// Which connectors; all, when there is only one.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
struct SyncArgs {
    /// Which connectors; all of them without a name.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Poll, and show what a run would do. Writes nothing anywhere.
    #[arg(long)]
    dry_run: bool,
    /// How a dry run is shown.
    #[arg(long, value_enum, default_value_t = Format::Table, requires = "dry_run")]
    format: Format,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Which connectors; all of them without a name.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only judge the configuration; send nothing.
    #[arg(long)]
    offline: bool,
    /// Leave the files with secrets alone, which may be there for the daemon only.
    #[arg(long, requires = "offline")]
    without_secrets: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Which connectors; all of them without a name.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How it is shown.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Args)]
struct EventsArgs {
    #[command(flatten)]
    show: ShowArgs,
    /// Only what happened after this: a time (2026-11-01T08:00:00Z), a day (2026-11-01) or an age (7d, 12h).
    #[arg(long, value_parser = look::parse_since)]
    since: Option<jiff::Timestamp>,
    /// Only about this user: an e-mail (or a part of one), or a Torq id.
    #[arg(long)]
    user: Option<String>,
    /// Only the latest so many.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

/// Runs the command line and returns the exit code.
pub fn main() -> u8 {
    let env = environment();
    run(std::env::args_os(), env) as u8
}

/// The process environment, as far as it is text.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn run(args: impl IntoIterator<Item = OsString>, env: BTreeMap<String, String>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data, and no mistake.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let context = Context {
        path: cli.config,
        env,
        verbose: cli.verbose,
    };
    match dispatch(context, cli.command) {
        Ok(exit) => exit,
        Err(failure) => {
            if journal::is_stderr() {
                tell(&journal::failure(&failure.message));
            } else {
                tell(&failure.message);
            }
            failure.exit
        }
    }
}

/// A command could not do its work: what to say, and how to exit.
#[derive(Debug)]
struct CommandError {
    exit: Exit,
    message: String,
}

impl CommandError {
    fn new(exit: Exit, message: impl ToString) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }

    fn unexpected(error: impl std::fmt::Display) -> Self {
        Self::new(Exit::Unexpected, error)
    }
}

/// What every command gets.
struct Context {
    path: PathBuf,
    env: BTreeMap<String, String>,
    verbose: u8,
}

impl Context {
    fn config(&self) -> Result<Config, CommandError> {
        config::load(&self.path, &self.env).map_err(|problems| self.problems(&problems))
    }

    /// For commands that look at the state or talk to the daemon: the secrets may be there for the daemon alone.
    fn config_without_secrets(&self) -> Result<Config, CommandError> {
        config::load_without_secrets(&self.path, &self.env).map_err(|problems| self.problems(&problems))
    }

    fn problems(&self, problems: &config::Problems) -> CommandError {
        let count = problems.0.len();
        let what = if count == 1 { "a problem" } else { "problems" };
        CommandError::new(
            Exit::Config,
            format!("{what} in the configuration {}:\n{problems}", self.path.display()),
        )
    }
}

/// Threads that work. Everything here mostly waits, and on a machine with a hundred processors a thread for each of them would
/// only take memory.
const WORKERS: usize = 4;

fn dispatch(context: Context, command: Command) -> Result<Exit, CommandError> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.min(WORKERS))
        .enable_all()
        // For the state of many connectors and for name resolution; each blocks for a moment only.
        .max_blocking_threads(64)
        .build()
        .map_err(CommandError::unexpected)?;
    let exit = runtime.block_on(async {
        match command {
            Command::Run => serve::run(context).await,
            Command::Sync(args) if args.dry_run => sync::dry_run(context, args).await,
            Command::Sync(args) => sync::run(context, args).await,
            Command::Check(args) => check::run(context, args).await,
            Command::Status(args) => look::status(context, args).await,
            Command::Users(args) => look::users(context, args).await,
            Command::Events(args) => look::events(context, args).await,
            Command::Reconnect(args) => act::run(context, args, Action::Reconnect).await,
            Command::Pause(args) => act::run(context, args, Action::Pause).await,
            Command::Resume(args) => act::run(context, args, Action::Resume).await,
            Command::Approve(args) => act::run(context, args, Action::Approve).await,
            Command::Retry(args) => act::run(context, args, Action::Retry).await,
            Command::Sandbox(args) => sandbox::run(context, args).await,
            Command::Demo(args) => demo::run(context, args).await,
            Command::Health(args) => health::run(context, args).await,
            Command::Completions(args) => manual::completions(&args),
            Command::Manual(args) => manual::pages(&args),
        }
    });
    // What does not end by itself (a request to a peer that hangs) does not hold the process.
    runtime.shutdown_background();
    exit
}

/// Says something to the person at the terminal.
fn tell(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Writes data to standard output. A reader that went away (`| head`) is no error.
fn write_out(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), CommandError> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CommandError::unexpected(error)),
        _ => Ok(()),
    }
}
