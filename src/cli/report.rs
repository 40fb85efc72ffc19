//! `report`: who has access to Torq, and what about them is to be looked at; as of now, or of a day that is past. From the states,
//! which may be looked at beside whoever writes them; only `drift` asks JumpCloud.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::output::{self, Format, Look};
use super::pager::write_paged;
use super::reach::{Sight, may_look};
use super::sync::{client_error, halted, is_removed, removed_words, state_error};
use super::when::{in_order, parse_days, parse_past, parse_until};
use super::{CommandError, Context, Exit, tell, write_out};
use crate::config::{self, Config};
use crate::http::Patience;
use crate::model::ConnectorName;
use crate::report::{Kind, Note, Part, Question, Report, Rows, gather, html};
use crate::state::{self, Store};
use crate::sync;
use crate::wording::{counted, printable};

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(subcommand)]
    kind: ReportKind,
}

#[derive(Debug, Subcommand)]
enum ReportKind {
    /// Who has access to Torq: role, sign-in, status, last login, who it is in JumpCloud, when they were made and first seen.
    Access(AtArgs),
    /// Users of Torq whom the JumpCloud directory does not know.
    Unmatched(CommonArgs),
    /// Users of Torq who did not log in for long, the longest first.
    Dormant(DormantArgs),
    /// Who was invited to Torq and has not accepted yet, the oldest first.
    PendingInvitations(AtArgs),
    /// What is in JumpCloud's application and not in Torq, and the reverse. Asks JumpCloud; writes nothing.
    Drift(CommonArgs),
    /// Who came, went and changed within a time, and what became of their accounts. Logins alone are left out.
    Changes(ChangesArgs),
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// Which connectors; all of them without a name.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How it is written; html is one file, fit for printing. Without it, as the ending of FILE says (.html, .csv, .json, .txt), and without one
    /// as a table.
    #[arg(long, value_enum)]
    format: Option<ReportFormat>,
    /// Write it into this new file, which only its owner can read. A file that is there is never overwritten.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Do not use a pager.
    #[arg(long)]
    no_pager: bool,
}

impl CommonArgs {
    /// The file that is written; `None` for standard output, which `-` is, too.
    fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| path.as_os_str() != "-")
    }

    /// How it is written, as is said or as the file's ending says.
    fn format(&self) -> Result<ReportFormat, CommandError> {
        match (self.format, self.file()) {
            (Some(format), _) => Ok(format),
            (None, None) => Ok(ReportFormat::Table),
            (None, Some(path)) => ReportFormat::of_file(path).ok_or_else(|| {
                let words = format!(
                    "how is {} to be written? Let it end in .html, .csv, .json or .txt, or say --format",
                    path.display()
                );
                CommandError::new(Exit::Usage, words)
            }),
        }
    }
}

#[derive(Debug, Args)]
struct AtArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// As of a time that is past: a time (2026-11-01T08:00:00Z), a day (its end, UTC) or an age (30d).
    #[arg(long, value_name = "WHEN", value_parser = parse_until, allow_hyphen_values = true)]
    at: Option<Timestamp>,
}

#[derive(Debug, Args)]
struct DormantArgs {
    #[command(flatten)]
    at: AtArgs,
    /// Without a login for so many days; of whom never logged in, made so long ago.
    #[arg(long = "for", value_name = "DAYS", default_value = "90d", value_parser = parse_days, visible_alias = "days", allow_hyphen_values = true)]
    days: u32,
}

#[derive(Debug, Args)]
struct ChangesArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// After this: a time (2026-11-01T08:00:00Z), a day (2026-11-01) or an age (7d, 12h).
    #[arg(long, value_name = "WHEN", default_value = "7d", value_parser = parse_past, allow_hyphen_values = true)]
    since: Timestamp,
    /// Up to this: a time, a day (its end, UTC) or an age; up to now without it.
    #[arg(long, value_name = "WHEN", value_parser = parse_until, allow_hyphen_values = true)]
    until: Option<Timestamp>,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// For people.
    Table,
    /// One JSON object.
    Json,
    /// One header line, then one line for each row.
    Csv,
    /// One file with everything in it, fit for printing.
    Html,
}

impl ReportFormat {
    /// As the ending of a file says: `None` where it says something else.
    fn of_file(path: &Path) -> Option<Self> {
        let Some(ending) = path.extension() else {
            return Some(Self::Table);
        };
        let ending = ending.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "html" | "htm" => Some(Self::Html),
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "txt" => Some(Self::Table),
            _ => None,
        }
    }
}

/// Says which reports there are to whoever asks for another one.
pub(super) fn name_kinds(error: &mut clap::Error) {
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    if error.kind() != clap::error::ErrorKind::InvalidSubcommand
        || !usage.is_some_and(|usage| usage.contains(" report "))
    {
        return;
    }
    let reports = ReportKind::augment_subcommands(clap::Command::new("report"));
    let kinds: Vec<&str> = reports.get_subcommands().map(clap::Command::get_name).collect();
    let told = format!("the reports are {}", kinds.join(", "));
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![told.into()]));
}

impl ReportKind {
    fn question(&self, now: Timestamp) -> (Question, &CommonArgs) {
        let question = |kind| Question {
            kind,
            at: None,
            since: None,
            until: None,
            days: 90,
            now,
        };
        match self {
            Self::Access(args) => (
                Question {
                    at: args.at,
                    ..question(Kind::Access)
                },
                &args.common,
            ),
            Self::Unmatched(args) => (question(Kind::Unmatched), args),
            Self::Dormant(args) => (
                Question {
                    at: args.at.at,
                    days: args.days,
                    ..question(Kind::Dormant)
                },
                &args.at.common,
            ),
            Self::PendingInvitations(args) => (
                Question {
                    at: args.at,
                    ..question(Kind::PendingInvitations)
                },
                &args.common,
            ),
            Self::Drift(args) => (question(Kind::Drift), args),
            Self::Changes(args) => (
                Question {
                    since: Some(args.since),
                    until: args.until,
                    ..question(Kind::Changes)
                },
                &args.common,
            ),
        }
    }
}

pub(super) async fn run(context: Context, args: ReportArgs) -> Result<Exit, CommandError> {
    let (question, common) = args.kind.question(Timestamp::now());
    in_order(question.since, question.until)?;
    let format = common.format()?;
    if let Some(path) = common.file()
        && path.symlink_metadata().is_ok()
    {
        return Err(is_there(path));
    }
    let drift = question.kind == Kind::Drift;
    let Sight {
        config,
        names,
        missing,
        exit,
        ..
    } = match drift {
        true => Sight::of(context.config_for(&common.names)?, &context, &common.names)?,
        false => Sight::at_and_tell(&context, &common.names)?,
    };
    may_look(&config.state_dir)?;
    if !common.names.is_empty()
        && let Some(name) = names.iter().find(|name| is_removed(&config, name))
    {
        return Err(CommandError::new(
            Exit::Partial,
            format!("{name}: {}", removed_words(name)),
        ));
    }
    let mut report = Report::begun(&question);
    let mut gravest = exit;
    for name in missing {
        let words = "its section in the configuration has a problem".to_owned();
        report.add(Part::failed(&name, words.into()), Rows::none(question.kind));
    }
    for name in &names {
        if is_removed(&config, name) {
            // Nothing is known of it any more, as a person wanted.
            tell(&format!("{name}: {}", removed_words(name)));
            continue;
        }
        let told = match drift {
            true => differences(&config, name, &question).await,
            false => known(&config, name, &question),
        };
        match told {
            Ok((part, rows)) => {
                // Who is not known yet has access, too.
                if part.error.is_some() || part.last_read.is_none() {
                    gravest = gravest.or(Exit::Partial);
                }
                report.add(part, rows);
            }
            Err(failure) => {
                gravest = gravest.or(failure.exit);
                report.add(
                    Part::failed(name.as_str(), unsaid(failure, name)),
                    Rows::none(question.kind),
                );
            }
        }
    }
    let report = report.addressed();
    let told = report.connectors.iter().any(|part| part.error.is_none());
    // Programs read from JSON, too, why nothing can be said.
    if told || (format == ReportFormat::Json && common.file().is_none()) {
        write(&report, format, common)?;
    }
    tell_about(&report, common);
    Ok(gravest)
}

fn is_there(path: &Path) -> CommandError {
    let path = path.display();
    CommandError::new(
        Exit::Usage,
        format!("{path} is there already, and reports overwrite nothing: name another file, or delete it first"),
    )
}

/// What people are told beside the rows.
fn tell_about(report: &Report, common: &CommonArgs) {
    for part in &report.connectors {
        tell(&format!("{}: {}", part.name, report.found(part)));
        for note in &part.notes {
            tell(&format!("  note: {}", printable(note.words())));
        }
    }
    if let Some(path) = common.file()
        && path.exists()
    {
        let rows = counted(report.rows.len() as u64, "row");
        tell(&format!("{} written to {}", rows, path.display()));
    }
}

/// Why nothing can be said of a connector. A peer's words and the machine's paths are nobody's who reads the paper.
fn unsaid(failure: CommandError, name: &ConnectorName) -> Note {
    match failure.exit {
        Exit::Partial => failure.message.into(),
        _ => Note::with_paper(
            failure.message,
            format!("nothing can be said of it now; its administrator should look at: torq-connector status {name}"),
        ),
    }
}

fn open(config: &Config, name: &ConnectorName) -> Result<Store, CommandError> {
    let store = state::read(&config.state_dir, name).map_err(state_error)?;
    store.ok_or_else(|| CommandError::new(Exit::Partial, "nothing is known yet; the first run will collect"))
}

fn configured<'a>(config: &'a Config, name: &ConnectorName) -> Result<&'a config::Connector, CommandError> {
    let connector = config.connectors.iter().find(|connector| connector.name == *name);
    connector.ok_or_else(|| CommandError::unexpected("it is not configured"))
}

/// Answers from the state.
fn known(config: &Config, name: &ConnectorName, question: &Question) -> Result<(Part, Rows), CommandError> {
    let interval = configured(config, name)?.poll_interval;
    let mut store = open(config, name)?;
    let answered = match question.kind {
        Kind::Changes => gather::changes(&mut store, question, interval),
        _ => gather::people(&mut store, question, interval),
    };
    answered.map_err(CommandError::unexpected)
}

/// Reads what JumpCloud has, and compares.
async fn differences(config: &Config, name: &ConnectorName, question: &Question) -> Result<(Part, Rows), CommandError> {
    let connector = configured(config, name)?;
    let mut store = open(config, name)?;
    let application = store.about().map_err(CommandError::unexpected)?.application;
    let stop = CancellationToken::new();
    let (_, jumpcloud) = sync::peers(connector, &config.network, Patience::COMMAND, &stop).map_err(client_error)?;
    let there = sync::list_accounts(connector, &jumpcloud, application)
        .await
        .map_err(|halt| halted(connector, "report drift", &halt))?;
    gather::differences(&mut store, question, connector.poll_interval, there).map_err(CommandError::unexpected)
}

fn write(report: &Report, format: ReportFormat, common: &CommonArgs) -> Result<(), CommandError> {
    let format = match format {
        ReportFormat::Table => Format::Table,
        ReportFormat::Json => Format::Json,
        ReportFormat::Csv => Format::Csv,
        ReportFormat::Html => {
            let page = html::page(report);
            return match common.file() {
                Some(path) => into_file(path, |out| out.write_all(page.as_bytes())),
                None => write_out(|out| out.write_all(page.as_bytes())),
            };
        }
    };
    match common.file() {
        // A file is read elsewhere.
        Some(path) => into_file(path, |out| {
            output::report(out, &report.clone().printed(), Look::of_file(format))
        }),
        None => write_paged(Look::of_stdout(format), !common.no_pager, |out| {
            output::report(out, report, Look::of_stdout(format))
        }),
    }
}

/// Writes a new file that only its owner can read. One that cannot be written to its end is taken away again.
fn into_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => is_there(path),
        _ => CommandError::unexpected(format!("cannot write {}: {error}", path.display())),
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut out = std::io::BufWriter::new(file.map_err(failed)?);
    let written = write(&mut out)
        .and_then(|()| out.flush())
        .and_then(|()| out.get_ref().sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written.map_err(failed)
}
