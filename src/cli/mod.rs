//! The command line: what people and scripts call. Each command is a room; this one has the arguments, the exit codes and
//! what all commands share.
//!
//! Output for people goes to standard error, data to standard output.

mod act;
mod backup;
mod check;
mod confirm;
mod demo;
mod exit;
mod forget;
mod health;
mod init;
mod journal;
mod limits;
mod logging;
mod look;
mod manual;
mod notify;
pub mod output;
mod pager;
mod reach;
mod remove;
mod report;
mod sandbox;
mod serve;
mod status;
mod sync;
mod when;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{self, Config};
use crate::daemon::control::Action;
use crate::invocation::{self, Invocation, Reader, addressed};
use crate::wording::printable_lines;

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
        env = CONFIG_VARIABLE,
        default_value = DEFAULT_CONFIG,
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    config: PathBuf,
    /// Log more to standard error: -v for what happens, -vv for every request.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

const DEFAULT_CONFIG: &str = "/etc/torq-connector/config.toml";
const CONFIG_VARIABLE: &str = "TORQ_CONNECTOR_CONFIG";
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("BUILD_COMMIT"),
    "\ntarget: ",
    env!("BUILD_TARGET")
);

const EXIT_CODES: &str = "Exit codes: 0 done; 1 unexpected; 64 usage; 69 a peer is unreachable or fails (try again); 70 a part of \
the daemon died (start it again); 75 done in part (something is pending, parked, held or report-only, or a named connector is paused or was removed); 77 credentials or permission refused, \
or not licensed; 78 configuration. Over several connectors the gravest counts.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Set a connector up: ask what it needs (or take it from flags), test it, save it.
    #[command(after_help = EXIT_CODES)]
    Init(Box<init::InitArgs>),
    /// Run the daemon: poll and deliver on schedule, serve the status page.
    #[command(after_help = EXIT_CODES)]
    Run,
    /// Do one run now, then exit; asks the running daemon to do it where one runs.
    #[command(after_help = EXIT_CODES)]
    Sync(SyncArgs),
    /// Check the configuration, then each thing that can be wrong: network, credentials, permission, licence. Writes nothing.
    #[command(after_help = EXIT_CODES)]
    Check(CheckArgs),
    /// Show the state of connectors.
    Status(status::StatusArgs),
    /// Show who is in Torq, and what JumpCloud has for them.
    Users(look::UsersArgs),
    /// Show what happened.
    Events(look::EventsArgs),
    /// Account for who has access to Torq, now or on a day that is past; as a table, CSV, JSON, or a page to print.
    Report(report::ReportArgs),
    /// Try again after new credentials, permissions or a licence.
    Reconnect(NameArgs),
    /// Stop polling and delivering until `resume`.
    Pause(NameArgs),
    /// Go on after `pause`.
    Resume(NameArgs),
    /// Believe the removals that are held; the next run carries them out.
    Approve(act::ApproveArgs),
    /// Deliver again what was parked.
    Retry(NameArgs),
    /// Delete what a connector created in JumpCloud, and its state; say what to revoke in Torq. Shows and asks first.
    Remove(RemoveArgs),
    /// Erase somebody who is no longer in Torq from what is known here. Shows and asks first.
    #[command(after_help = EXIT_CODES)]
    Forget(ForgetArgs),
    /// Try out whether a person is told of what concerns them.
    #[command(after_help = EXIT_CODES)]
    Notify(NotifyArgs),
    /// Copy what is known of connectors into a folder, consistently, also while the daemon works.
    Backup(BackupArgs),
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
    /// Which connectors; may be left out when there is only one.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    /// Which connector.
    #[arg(value_name = "NAME")]
    name: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Leave JumpCloud as it is, and delete only what is known here: for a connector whose credentials are no good any more.
    #[arg(long)]
    keep_accounts: bool,
}

#[derive(Debug, Args)]
struct ForgetArgs {
    /// Of which connector.
    #[arg(value_name = "NAME")]
    name: String,
    /// Who: an e-mail, or a Torq id.
    #[arg(value_name = "EMAIL|ID")]
    person: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct NotifyArgs {
    /// Which connector; may be left out when there is only one.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Send a test message by each way that is configured, and say what came back.
    #[arg(long, required = true)]
    test: bool,
}

#[derive(Debug, Args)]
struct BackupArgs {
    /// Which connectors; all of them without a name.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The folder for the copies; made where it is not there. Each copy is a file of its own, NAME-TIME.db; none is overwritten.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
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
    #[command(flatten)]
    show: ShowArgs,
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
    let args: Vec<OsString> = args.into_iter().collect();
    let program = args.first().cloned();
    let parsed = Cli::command().try_get_matches_from(args).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, matches.value_source("config")))
    });
    let (cli, source) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let mut error = without_hidden(error);
            report::name_kinds(&mut error);
            // Help and version are data, and no mistake.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let unset = cli.config.as_os_str().is_empty();
    let context = Context {
        // An empty variable is one that is not set.
        path: if unset {
            PathBuf::from(DEFAULT_CONFIG)
        } else {
            cli.config
        },
        program,
        env,
        verbose: cli.verbose,
    };
    match cli.command {
        // It makes a configuration of its own.
        Command::Demo(_) => {}
        Command::Run => {
            // Whoever reads what the daemon says has nothing of its environment.
            let named = Some(context.path.as_path()).filter(|path| *path != Path::new(DEFAULT_CONFIG));
            context.is_called(named, Reader::Anywhere, named);
        }
        _ => {
            let elsewhere = Some(context.path.as_path()).filter(|path| *path != Path::new(DEFAULT_CONFIG));
            let unasked = context.env.get(CONFIG_VARIABLE).filter(|path| !path.is_empty());
            let unasked = Path::new(unasked.map_or(DEFAULT_CONFIG, String::as_str));
            let named = source == Some(ValueSource::CommandLine) && context.path != unasked;
            context.is_called(named.then_some(context.path.as_path()), Reader::Here, elsewhere);
        }
    }
    limits::raise_files();
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

/// The same mistake, without advice to use a command that is nobody's to use.
fn without_hidden(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::Strings(names)) = error.get(ContextKind::SuggestedSubcommand) {
        let commands = Cli::command();
        let is_shown = |name: &&String| commands.find_subcommand(name).is_some_and(|one| !one.is_hide_set());
        let shown: Vec<String> = names.iter().filter(is_shown).cloned().collect();
        if shown.is_empty() {
            error.remove(ContextKind::SuggestedSubcommand);
        } else {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(shown));
        }
    }
    error
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
    /// What the process was started as.
    program: Option<OsString>,
    env: BTreeMap<String, String>,
    verbose: u8,
}

impl Context {
    /// From now on, commands that are advised are those that can be typed: by whoever this process works for, with this configuration
    /// where it has to be named, and elsewhere.
    fn is_called(&self, config: Option<&Path>, reader: Reader, elsewhere: Option<&Path>) {
        let commands = Cli::command();
        let commands = commands.get_subcommands().map(|one| one.get_name().to_owned());
        let commands: Vec<_> = commands.collect();
        let search = std::env::var_os("PATH");
        let (program, search) = (self.program.as_deref(), search.as_deref());
        let called = |config, reader| Invocation::new(program, search, config, reader, commands.clone());
        invocation::remember(called(config, reader), called(elsewhere, Reader::Anywhere));
    }

    /// For commands that work with these connectors, or with all of them where none is named: only their secrets are read.
    fn config_for(&self, names: &[String]) -> Result<Config, CommandError> {
        config::load_for(&self.path, &self.env, names).map_err(|problems| self.problems(&problems))
    }

    /// For the daemon: one connector's secret that cannot be read keeps no other from running.
    fn config_to_run(&self) -> Result<Config, CommandError> {
        config::load_to_run(&self.path, &self.env).map_err(|problems| self.problems(&problems))
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
            Command::Init(args) => init::run(context, *args).await,
            Command::Run => serve::run(context).await,
            Command::Sync(args) if args.dry_run => sync::dry_run(context, args).await,
            Command::Sync(args) => sync::run(context, args).await,
            Command::Check(args) => check::run(context, args).await,
            Command::Status(args) => status::run(context, args).await,
            Command::Users(args) => look::users(context, args).await,
            Command::Events(args) => look::events(context, args).await,
            Command::Report(args) => report::run(context, args).await,
            Command::Reconnect(args) => act::run(context, args, Action::Reconnect).await,
            Command::Pause(args) => act::run(context, args, Action::Pause).await,
            Command::Resume(args) => act::run(context, args, Action::Resume).await,
            Command::Approve(args) => act::approve(context, args).await,
            Command::Retry(args) => act::run(context, args, Action::Retry).await,
            Command::Remove(args) => remove::run(context, args).await,
            Command::Forget(args) => forget::run(context, args).await,
            Command::Notify(args) => notify::run(context, args).await,
            Command::Backup(args) => backup::run(context, args).await,
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

/// Says something to the person at the terminal, whoever's words are in it.
fn tell(message: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable_lines(&addressed(message)));
}

/// Writes data to standard output. A reader that went away (`| head`) is no error.
fn write_out(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), CommandError> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CommandError::unexpected(error)),
        _ => Ok(()),
    }
}
