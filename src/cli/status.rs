//! `status`: the state of connectors, once or watched. From the daemon where one runs, else as it was known last.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::output::{self, Format, Look};
use super::reach::{Sight, ask_quietly, in_spite_of, may_look};
use super::{CommandError, Context, Exit, ShowArgs, pager, tell, write_out};
use crate::config::{self, Config};
use crate::daemon::control::{Request, Response};
use crate::invocation::{address, addressed};
use crate::model::ConnectorName;
use crate::state::{self, StateError};
use crate::view::{ConnectorState, ConnectorStatus, StatusReport};
use crate::web::{Settings, todo};
use crate::wording::{self, Weight, moment};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    show: ShowArgs,
    /// Only connectors that need a look, and those that are paused or were removed.
    #[arg(long)]
    problems: bool,
    /// Show it again and again, every 2 s or as often as told, until Ctrl-C.
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    watch: Option<u64>,
}

/// What is known of connectors, and what is to be said about how it is known.
#[derive(Default)]
struct Known {
    connectors: Vec<Entry>,
    /// Whether a running daemon says so.
    daemon: bool,
    remarks: Vec<String>,
    exit: Option<Exit>,
}

/// A connector, and how much it asks of a person.
struct Entry {
    status: ConnectorStatus,
    weight: Weight,
    /// What needs a person and is not in the status: what is the matter, and what to do.
    besides: Vec<(String, Option<String>)>,
    /// When it last succeeded, where that is long ago and no daemon tries: it is only known how it was then.
    bygone: Option<Timestamp>,
}

impl Entry {
    /// By the same measure as the status page. That nothing succeeded lately is news only where a daemon tries (`attended`).
    fn of(status: ConnectorStatus, config: Option<&Config>, attended: bool) -> Self {
        let now = Timestamp::now();
        let connector = config.and_then(|config| {
            let mut connectors = config.connectors.iter();
            connectors.find(|connector| connector.name.as_str() == status.name)
        });
        let mut todos = match connector {
            Some(connector) => todo::of(&status, &Settings::of(connector), now),
            None => Vec::new(),
        };
        let silent = todos.iter().any(|todo| todo.topic == todo::Topic::Silence);
        let bygone = status.last_success.filter(|_| silent && !attended);
        todos.retain(|todo| attended || todo.topic != todo::Topic::Silence);
        let weight = todo::weight(&status, &todos);
        let mentions = |what: &str| status.reason.as_ref().is_some_and(|reason| reason.contains(what));
        let besides = todos
            .into_iter()
            .filter(|todo| match todo.topic {
                todo::Topic::Key => !mentions("Torq API key"),
                todo::Topic::Silence => true,
                todo::Topic::State | todo::Topic::Held | todo::Topic::Parked => false,
            })
            .map(|todo| {
                let action: Vec<String> = todo.advice.into_iter().chain(todo.command).collect();
                let action = (!action.is_empty()).then(|| wording::within(&action.join(" ")));
                (wording::within(&todo.what), action)
            })
            .collect();
        Self {
            status,
            weight,
            besides,
            bygone,
        }
    }

    /// Whether it needs a look, or was put aside by a person, who may have forgotten it.
    fn is_not_well(&self) -> bool {
        matches!(self.weight, Weight::Bad | Weight::Warning) || todo::is_aside(self.status.state)
    }
}

pub(super) async fn run(context: Context, args: StatusArgs) -> Result<Exit, CommandError> {
    if args.watch.is_some() && args.show.format != Format::Table {
        return Err(CommandError::new(
            Exit::Usage,
            "--watch is for people: programs ask again by themselves, or read /api/status",
        ));
    }
    match args.watch {
        None => {
            let known = known(&context, &args).await?;
            known.remarks.iter().for_each(|remark| tell(remark));
            let exit = known.exit.unwrap_or(Exit::Done);
            show(known, &args)?;
            Ok(exit)
        }
        Some(seconds) => watch(&context, &args, Duration::from_secs(seconds)).await,
    }
}

async fn known(context: &Context, args: &StatusArgs) -> Result<Known, CommandError> {
    let asked = &args.show.names;
    let seen = match context.config_without_secrets() {
        Ok(config) => Sight::of(config, context, asked)?,
        Err(problems) => match in_spite_of(context, problems).await {
            // A daemon knows all of them, by its former configuration.
            Ok((_, report)) => {
                let wanted = |status: &ConnectorStatus| asked.is_empty() || asked.contains(&status.name);
                let connectors = report.connectors.into_iter().filter(wanted);
                return Ok(Known {
                    connectors: connectors.map(|status| Entry::of(status, None, true)).collect(),
                    daemon: true,
                    ..Known::default()
                });
            }
            Err(_) => Sight::at(context, asked)?,
        },
    };
    may_look(&seen.config.state_dir)?;
    let Sight {
        config,
        names,
        mut exit,
        ..
    } = seen;
    let sound = seen.remark.is_none();
    let mut remarks = Vec::from_iter(seen.remark);
    let live = match ask_quietly(&config.state_dir, &Request::Status).await {
        Ok(Some(Response::Status(report))) => Some(report),
        Ok(None) => {
            remarks.push("no daemon is running with this state_dir; this is what was known last".to_owned());
            None
        }
        Ok(Some(Response::Error(error))) => {
            remarks.push(format!("the running daemon says: {error}; this is what was known last"));
            exit = Exit::Unexpected;
            None
        }
        Ok(Some(_)) => {
            return Err(CommandError::unexpected("the daemon answered another question"));
        }
        Err(error) if error.exit == Exit::Unavailable => {
            remarks.push(format!("{}; this is what was known last", error.message));
            exit = error.exit;
            None
        }
        Err(error) => return Err(error),
    };
    let mut connectors = Vec::new();
    for name in &names {
        let told = live
            .as_ref()
            .and_then(|report| report.connectors.iter().find(|status| status.name == name.as_str()));
        let status = match told {
            Some(status) => {
                // With a daemon as without one: what cannot be read is an error, though it is shown what is known of it.
                if args.watch.is_none()
                    && status.state == ConnectorState::Retrying
                    && state::read(&config.state_dir, name).is_err()
                {
                    exit = exit.or(Exit::Unexpected);
                }
                status.clone()
            }
            None => stored_status(&config, name).unwrap_or_else(|error| {
                // What is wrong with one state hides no other.
                exit = exit.or(Exit::Unexpected);
                ConnectorStatus {
                    action: Some(wording::about_state(&error).to_owned()),
                    ..ConnectorStatus::unknown(name.as_str(), ConnectorState::Retrying, Some(error.to_string()))
                }
            }),
        };
        connectors.push(Entry::of(status, Some(&config), told.is_some()));
    }
    if live.is_none() {
        remarks.extend(missing_secrets(context, &names, sound));
    }
    Ok(Known {
        connectors,
        daemon: live.is_some(),
        remarks,
        exit: Some(exit),
    })
}

/// What keeps these connectors from running that only shows when their secrets are read: no part of the state, and worth knowing where
/// no daemon runs. `sound`: nothing else is wrong with the configuration.
fn missing_secrets(context: &Context, names: &[ConnectorName], sound: bool) -> Vec<String> {
    let config = match config::load_to_run(&context.path, &context.env) {
        Ok(config) => config,
        Err(problems) if sound => {
            return vec![format!(
                "note: from here, nothing would run: {}",
                context.problems(&problems).message
            )];
        }
        // That was told.
        Err(_) => return Vec::new(),
    };
    let meant = config.connectors.iter().filter(|one| names.contains(&one.name));
    let problems = meant.flat_map(|connector| connector.secrets().map(|(_, _, secret)| secret.problem.clone()));
    problems
        .flatten()
        .map(|problem| format!("note: from here, this connector would not run: {problem}"))
        .collect()
}

fn stored_status(config: &Config, name: &ConnectorName) -> Result<ConnectorStatus, StateError> {
    if let Some(removed) = state::removed(&config.state_dir, name) {
        let reason = wording::removed_reason(removed.at);
        return Ok(ConnectorStatus {
            action: Some(wording::removed_action(name, !removed.left.is_empty())),
            ..ConnectorStatus::unknown(name.as_str(), ConnectorState::Removed, Some(reason))
        });
    }
    let failed = |source| state::classify(&state::database(&config.state_dir, name), source);
    match state::read(&config.state_dir, name)? {
        Some(mut store) => {
            let mut status = store.status().map_err(failed)?;
            // What the daemon said of itself holds while it runs.
            status.action = status.action.map(|action| wording::without_daemon(&action, name));
            Ok(status)
        }
        None => Ok(ConnectorStatus::unknown(
            name.as_str(),
            ConnectorState::Starting,
            Some("nothing is known yet; the first run will collect".to_owned()),
        )),
    }
}

/// Connectors that are not shown because they are well.
struct LeftOut {
    count: usize,
    /// When that was, of the one of which it was known last, where it is long ago.
    bygone: Option<Timestamp>,
}

/// What is shown, and what is not. People get what needs one of them first.
fn arranged(known: Known, args: &StatusArgs) -> (StatusReport, LeftOut) {
    let (mut entries, well): (Vec<Entry>, Vec<Entry>) = known
        .connectors
        .into_iter()
        .partition(|entry| !args.problems || entry.is_not_well());
    let left_out = LeftOut {
        count: well.len(),
        bygone: well.iter().filter_map(|entry| entry.bygone).min(),
    };
    if args.show.format == Format::Table {
        entries.sort_by_key(|entry| todo::rank(entry.weight));
        for Entry { status, besides, .. } in &mut entries {
            for (what, action) in besides {
                status.reason = Some(match status.reason.take() {
                    Some(reason) => format!("{reason}; {what}"),
                    None => what.clone(),
                });
                let actions = [status.action.take(), action.clone()].into_iter().flatten();
                status.action = actions.reduce(|one, other| wording::both_actions(&one, &other));
            }
        }
    }
    let connectors = entries.into_iter().map(|entry| address(entry.status)).collect();
    let daemon = known.daemon;
    (StatusReport { connectors, daemon }, left_out)
}

fn show(known: Known, args: &StatusArgs) -> Result<(), CommandError> {
    let (report, left_out) = arranged(known, args);
    let nothing = report.connectors.is_empty() && left_out.count > 0 && args.show.format == Format::Table;
    if !nothing {
        write_out(|out| output::status(out, &report, Look::of_stdout(args.show.format)))?;
    }
    if args.problems {
        tell(&well(report.connectors.len(), &left_out));
    }
    Ok(())
}

/// How the others are, where only problems are shown; or how they were, where nobody knows that any more.
fn well(shown: usize, left_out: &LeftOut) -> String {
    let who = match (shown, left_out.count) {
        (0, 0) => return "no connectors".to_owned(),
        (_, 0) => return "no other connector".to_owned(),
        (0, 1) => "the connector".to_owned(),
        (0, all) => format!("all {all} connectors"),
        (_, 1) => "the other connector".to_owned(),
        (_, others) => format!("the other {others} connectors"),
    };
    match (left_out.count, left_out.bygone) {
        (1, None) => format!("{who} is well"),
        (_, None) => format!("{who} are well"),
        (1, Some(at)) => format!("{who} was well when it last succeeded, at {}", moment(at)),
        (_, Some(at)) => format!(
            "{who} were well when they last succeeded, the first of them at {}",
            moment(at)
        ),
    }
}

/// Shows the status again and again until somebody has seen enough, which is no failure.
async fn watch(context: &Context, args: &StatusArgs, every: Duration) -> Result<Exit, CommandError> {
    let listen = |kind| signal(kind).map_err(CommandError::unexpected);
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut screen = Screen::new();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(Exit::Done),
            _ = terminate.recv() => return Ok(Exit::Done),
            _ = ticks.tick() => {}
        }
        let known = tokio::select! {
            _ = interrupt.recv() => return Ok(Exit::Done),
            _ = terminate.recv() => return Ok(Exit::Done),
            known = known(context, args) => known,
        };
        let text = frame(known?, args)?;
        if !screen.draw(&text)? {
            return Ok(Exit::Done);
        }
    }
}

fn frame(known: Known, args: &StatusArgs) -> Result<String, CommandError> {
    let remarks = known.remarks.clone();
    let (report, left_out) = arranged(known, args);
    let mut out = Vec::new();
    let written = (|| {
        writeln!(out, "{}", moment(Timestamp::now()))?;
        for remark in &remarks {
            writeln!(out, "{}", addressed(remark))?;
        }
        if !report.connectors.is_empty() || left_out.count == 0 {
            output::status(&mut out, &report, Look::of_stdout(Format::Table))?;
        }
        if args.problems {
            writeln!(out, "{}", well(report.connectors.len(), &left_out))?;
        }
        std::io::Result::Ok(())
    })();
    written.map_err(CommandError::unexpected)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Where what is watched is drawn: in the same place of a terminal, or one after the other elsewhere.
struct Screen {
    terminal: bool,
    drawn: bool,
}

impl Screen {
    fn new() -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
            drawn: false,
        }
    }

    /// Draws it; `false` when nobody is there any more to see it.
    fn draw(&mut self, text: &str) -> Result<bool, CommandError> {
        let mut frame = String::new();
        if self.terminal {
            // The first one on a clear screen; each into the place of the one before, line by line, so that nothing flickers.
            frame.push_str(if self.drawn { "\x1b[H" } else { "\x1b[?25l\x1b[H\x1b[2J" });
            let height = pager::height().unwrap_or(usize::MAX);
            let lines: Vec<&str> = text.lines().collect();
            let room = if lines.len() >= height {
                height.saturating_sub(2)
            } else {
                lines.len()
            };
            for line in &lines[..room] {
                frame.push_str(&format!("{line}\x1b[K\n"));
            }
            if room < lines.len() {
                frame.push_str(&format!(
                    "… {} more lines; --problems shows what needs a look\x1b[K",
                    lines.len() - room
                ));
            }
            frame.push_str("\x1b[J");
        } else {
            if self.drawn {
                frame.push('\n');
            }
            frame.push_str(text);
        }
        self.drawn = true;
        let mut out = std::io::stdout().lock();
        match out.write_all(frame.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(CommandError::unexpected(error)),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal && self.drawn {
            // The cursor comes back, below what was drawn last.
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(b"\x1b[?25h\n").and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_long_ago_is_not_said_of_now() {
        let at: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let told = |shown, count, bygone| well(shown, &LeftOut { count, bygone });
        assert_eq!(told(0, 1, None), "the connector is well");
        assert_eq!(
            told(0, 1, Some(at)),
            "the connector was well when it last succeeded, at 2026-11-21 08:00:00Z"
        );
        assert_eq!(
            told(2, 3, Some(at)),
            "the other 3 connectors were well when they last succeeded, the first of them at 2026-11-21 08:00:00Z"
        );
    }

    #[test]
    fn only_where_no_daemon_tries_an_old_success_is_bygone() {
        let text = "
            [connectors.main]
            torq = { region = \"eu\", client_id = \"id\", client_secret = \"secret\" }
            jumpcloud = { region = \"us\", client_id = \"id\", client_secret = \"secret\" }
        ";
        let config = crate::config::parse(text, std::path::Path::new("/"), Some(0o600), &Default::default()).unwrap();
        let of = |hours, attended| {
            let status = ConnectorStatus {
                last_success: Some(Timestamp::now() - jiff::SignedDuration::from_hours(hours)),
                ..ConnectorStatus::unknown("main", ConnectorState::Connected, None)
            };
            Entry::of(status, Some(&config), attended)
        };
        assert!(of(72, false).bygone.is_some() && !of(72, false).is_not_well());
        assert!(of(72, true).bygone.is_none() && of(72, true).is_not_well());
        assert!(of(0, false).bygone.is_none());
    }
}
