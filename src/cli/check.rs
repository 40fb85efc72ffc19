//! `check`: the configuration; then each thing that can be wrong, tested apart, so that the answer names the one that is.
//! It writes nothing, anywhere.

mod finding;
mod folder;
mod peers;

use jiff::Timestamp;

use super::logging::{self, Who};
use super::output::{self, Format, Look};
use super::sync::chosen;
use super::{CheckArgs, CommandError, Context, Exit, tell, write_out};
use crate::config::{self, Config};
use crate::model::{ApplicationId, ConnectorName, Peer};
use crate::state;
use crate::sync::{Again, Halt};
use crate::wording;
use finding::Verdict;
pub(super) use finding::{CheckReport, Finding};
pub(super) use folder::open_folder;
use folder::{Folder, Unusable, state_folder};
use peers::online;

pub(super) async fn run(context: Context, args: CheckArgs) -> Result<Exit, CommandError> {
    let show = &args.show;
    let config = if args.without_secrets {
        context.config_without_secrets()?
    } else {
        context.config_for(&show.names)?
    };
    logging::start(&config.log, Who::Command, context.verbose);
    let names = chosen(&config, &show.names)?;
    let mut found = Found::new(show.format);
    let mut gravest = Exit::Done;

    let connectors = wording::counted(config.connectors.len() as u64, "connector");
    let words = format!("{}: {connectors}", context.path.display());
    let mut general = vec![Finding::new(None, "configuration", Verdict::Ok, &words)];
    let folder = state_folder(&config.state_dir);
    match &folder {
        Ok(Folder { words, notes }) => {
            general.push(Finding::new(None, STATE_FOLDER, Verdict::Ok, words));
            let notes = notes.iter();
            general.extend(notes.map(|note| Finding::new(None, STATE_FOLDER, Verdict::Note, note)));
        }
        Err(Unusable { words, action }) => {
            general.push(Finding::new(None, STATE_FOLDER, Verdict::Failed, words).advising(Some(action)));
            gravest = Exit::Unexpected;
        }
    }
    if let Some(listen) = config.http.listen
        && !listen.ip().is_loopback()
        && config.http.password.is_none()
    {
        let words = format!(
            "other machines reach {listen}, so without http.password_file the page and the API, which name people, are refused there; \
             health and metrics are served"
        );
        general.push(Finding::new(None, "status page", Verdict::Note, &words));
    }
    found.add(None, general)?;

    for connector in config.connectors.iter().filter(|one| names.contains(&one.name)) {
        let mut checked = Checked::new(connector, Again::Command("check"));
        key(connector, &mut checked);
        if folder.is_ok() {
            known(&config, connector, &mut checked);
        }
        if args.offline {
            checked.ok("Torq", connector.torq.api_url.as_str());
            checked.ok("JumpCloud", connector.jumpcloud.console_url.as_str());
        } else {
            online(&config, connector, &mut checked).await?;
        }
        gravest = gravest.or(checked.exit);
        found.add(Some(&connector.name), checked.findings)?;
    }
    found.end()?;
    Ok(gravest)
}

const STATE_FOLDER: &str = "state folder";

/// What was found so far. People see it at once, programs get it whole.
struct Found {
    format: Format,
    report: CheckReport,
}

impl Found {
    fn new(format: Format) -> Self {
        Self {
            format,
            report: CheckReport::default(),
        }
    }

    /// What was found about a connector, or about the installation.
    fn add(&mut self, connector: Option<&ConnectorName>, findings: Vec<Finding>) -> Result<(), CommandError> {
        let part = CheckReport { checks: findings };
        if self.format == Format::Table {
            write_out(|out| {
                if let Some(name) = connector {
                    writeln!(out, "\n{name}")?;
                }
                output::checks(out, &part, Look::of_stdout(self.format))
            })?;
        }
        tell_failed(connector, &part.checks);
        self.report.checks.extend(part.checks);
        Ok(())
    }

    fn end(self) -> Result<(), CommandError> {
        match self.format {
            Format::Table => Ok(()),
            format => write_out(|out| output::checks(out, &self.report, Look::of_stdout(format))),
        }
    }
}

/// Names what failed, once more and where errors are told.
fn tell_failed(connector: Option<&ConnectorName>, findings: &[Finding]) {
    let failed: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Failed)
        .map(|finding| finding.check.as_str())
        .collect();
    if failed.is_empty() {
        return;
    }
    let whose = connector.map(|name| format!("{name}: ")).unwrap_or_default();
    tell(&format!("{whose}failed: {}", failed.join(", ")));
}

/// What came of a test of the connection.
pub(super) struct Connected {
    pub(super) exit: Exit,
    /// On whose side something failed.
    pub(super) failed: Vec<Peer>,
    /// Torq's entry in SaaS Management, where there is one.
    pub(super) application: Option<ApplicationId>,
}

/// *Connect*: tests one connector, and tells what comes of it. Its configuration was judged already.
pub(super) async fn connect(config: &Config, name: &ConnectorName) -> Result<Connected, CommandError> {
    let Some(connector) = config.connectors.iter().find(|connector| connector.name == *name) else {
        return Err(CommandError::unexpected(format!("{name} is not configured")));
    };
    let mut checked = Checked::new(connector, Again::SettingUp);
    key(connector, &mut checked);
    online(config, connector, &mut checked).await?;
    for line in checked.findings.iter().flat_map(Finding::lines) {
        tell(&line);
    }
    tell_failed(Some(name), &checked.findings);
    let on_side = |peer: &Peer| {
        let mut failed = checked.findings.iter().filter(|one| one.verdict == Verdict::Failed);
        failed.any(|one| one.check.starts_with(&peer.to_string()))
    };
    Ok(Connected {
        failed: [Peer::Torq, Peer::JumpCloud].into_iter().filter(on_side).collect(),
        exit: checked.exit,
        application: checked.application,
    })
}

/// What was found about one connector.
struct Checked<'a> {
    connector: &'a config::Connector,
    /// How it is tried again.
    again: Again,
    findings: Vec<Finding>,
    exit: Exit,
    application: Option<ApplicationId>,
}

impl<'a> Checked<'a> {
    fn new(connector: &'a config::Connector, again: Again) -> Self {
        Self {
            connector,
            again,
            findings: Vec::new(),
            exit: Exit::Done,
            application: None,
        }
    }

    fn find(&mut self, what: &str, verdict: Verdict, words: &str, action: Option<&str>) {
        let name = Some(self.connector.name.as_str());
        self.findings
            .push(Finding::new(name, what, verdict, words).advising(action));
    }

    fn ok(&mut self, what: &str, words: &str) {
        self.find(what, Verdict::Ok, words, None);
    }

    fn note(&mut self, what: &str, words: &str) {
        self.find(what, Verdict::Note, words, None);
    }

    fn fail(&mut self, what: &str, halt: &Halt) {
        let action = halt.action(self.connector, self.again);
        self.failed(what, &halt.to_string(), action.as_deref(), Exit::of_halt(halt));
    }

    fn failed(&mut self, what: &str, words: &str, action: Option<&str>, exit: Exit) {
        self.find(what, Verdict::Failed, words, action);
        self.exit = self.exit.or(exit);
    }
}

/// Whether what is known of the connector can be read.
fn known(config: &Config, connector: &config::Connector, checked: &mut Checked<'_>) {
    if let Err(error) = state::read(&config.state_dir, &connector.name) {
        checked.failed(
            "state",
            &error.to_string(),
            Some(wording::about_state(&error)),
            Exit::Unexpected,
        );
    }
}

fn key(connector: &config::Connector, checked: &mut Checked<'_>) {
    let left = connector.torq.key_days_left(Timestamp::now());
    let Some((expires, days)) = connector.torq.key_expires.zip(left) else {
        return;
    };
    let (source, then) = match checked.again {
        Again::SettingUp => ("as you said", "give its day"),
        Again::ByItself | Again::Command(_) => ("says the configuration", "set key_expires"),
    };
    match days {
        ..0 => checked.note(
            "Torq API key",
            &format!("expired on {expires}, {source}: make a new one or extend it, and {then}"),
        ),
        0..=config::KEY_SOON => checked.note(
            "Torq API key",
            &format!(
                "expires on {expires}, {source}, in {}: extend it in Torq, or make a new one",
                wording::counted(days.unsigned_abs().into(), "day")
            ),
        ),
        _ => checked.ok("Torq API key", &format!("expires on {expires}, {source}")),
    }
}
