//! `sync` and `sync --dry-run`: one run now, or what it would do.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::logging::{self, Who};
use super::{CommandError, Context, Exit, SyncArgs, output, serve, tell, write_out};
use crate::config::{self, Config};
use crate::daemon::GRACE;
use crate::daemon::control::{self, Action, Answer, Request, Response, RunReport};
use crate::http::Patience;
use crate::model::ConnectorName;
use crate::state::{self, State, StateError};
use crate::sync::{Connector, Halt, Phase};
use crate::view::{DryRunReport, RunCounts, RunOutcome};
use crate::wording;

/// How long a daemon may take before a person is told what is being waited for.
const SAYS_NOTHING: Duration = Duration::from_secs(2);
/// How many connectors run at a time: each has its own peers, and the machine has only so much of everything.
const SIDE_BY_SIDE: usize = 16;

pub(super) async fn run(context: Context, args: SyncArgs) -> Result<Exit, CommandError> {
    let config = context.config()?;
    logging::start(&config.log, Who::Command, context.verbose);
    let names = chosen(&config, &args.names)?;
    if let Some(exit) = ask_daemon(&config, &names, Action::Sync, !args.names.is_empty()).await? {
        return Ok(exit);
    }
    crate::sync::note_tenants(&config);
    let stop = CancellationToken::new();
    serve::stop_on_signals(stop.clone())?;
    let bar = progress_bar(names.len());
    let explicit = !args.names.is_empty();
    let exits = side_by_side(&config, &names, |connector| {
        let (config, stop, bar) = (&config, stop.clone(), bar.clone());
        async move { sync_one(config, connector, stop, bar, explicit).await }
    })
    .await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let mut gravest = Exit::Done;
    for (name, result) in exits {
        match result {
            Ok(report) => {
                tell_run(&name, &report);
                gravest = gravest.or(Exit::of_answer(&report));
            }
            Err(error) => {
                tell(&format!("{name}: {}", error.message));
                gravest = gravest.or(error.exit);
            }
        }
    }
    Ok(gravest)
}

/// The connectors that are meant.
pub(super) fn chosen(config: &Config, names: &[String]) -> Result<Vec<ConnectorName>, CommandError> {
    let all: Vec<_> = config
        .connectors
        .iter()
        .map(|connector| connector.name.clone())
        .collect();
    control::named(&all, names).map_err(|message| CommandError::new(Exit::Usage, message))
}

async fn side_by_side<'a, T, F: Future<Output = T>>(
    config: &'a Config,
    names: &[ConnectorName],
    work: impl Fn(&'a config::Connector) -> F,
) -> Vec<(ConnectorName, T)> {
    use futures_util::StreamExt;
    let wanted = config
        .connectors
        .iter()
        .filter(|connector| names.contains(&connector.name));
    let work = &work;
    let mut done: Vec<_> = futures_util::stream::iter(wanted)
        .map(|connector| async move { (connector.name.clone(), work(connector).await) })
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    done.sort_by(|a, b| a.0.cmp(&b.0));
    done
}

async fn sync_one(
    config: &Config,
    connector: &config::Connector,
    stop: CancellationToken,
    bar: Option<ProgressBar>,
    explicit: bool,
) -> Result<Answer, CommandError> {
    let state = match State::open(&config.state_dir, &connector.name) {
        Err(StateError::Removed { .. }) => return Ok(left_removed(explicit)),
        other => other.map_err(state_error)?,
    };
    let about = state.call(|store| store.about()).await.map_err(state_error)?;
    if about.removing.is_some() {
        return Ok(left_removed(explicit));
    }
    if about.paused {
        // Without a name, whoever is paused is not meant.
        let said = "paused; it is left alone".to_owned();
        return Ok(if explicit { Answer::Paused } else { Answer::Done(said) });
    }
    let connector = Connector::new(
        Arc::new(connector.clone()),
        &config.network,
        state,
        Patience::COMMAND,
        stop,
    )
    .map_err(CommandError::unexpected)?;
    let run = connector.run();
    tokio::pin!(run);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stopping = connector.stop_token();
    let overdue = async {
        stopping.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::pin!(overdue);
    let end = loop {
        tokio::select! {
            end = &mut run => break end,
            () = &mut overdue => {
                let message = "stopped, with a request still unanswered; the next run goes on there";
                return Err(CommandError::new(Exit::Unavailable, message));
            }
            _ = tick.tick() => if let Some(bar) = &bar {
                bar.set_message(progress_words(&connector));
            },
        }
    };
    let end = end.map_err(state_error)?;
    let unavailable = matches!(end.halt, Some(Halt::Unavailable(_)));
    let mut report = RunReport::of(end);
    if unavailable {
        // The daemon would try again by itself; a command is over.
        report.action = Some(format!("later, again: torq-connector sync {}", connector.name()));
    }
    Ok(Answer::Ran(Box::new(report)))
}

/// The answer of a connector that was removed: without a name it is not meant.
fn left_removed(explicit: bool) -> Answer {
    match explicit {
        true => Answer::Removed,
        false => Answer::Done("was removed; it is left alone".to_owned()),
    }
}

/// An error of the state, for people, with the exit code it deserves.
pub(super) fn state_error(error: StateError) -> CommandError {
    let exit = match &error {
        // Somebody else is at work: try again later.
        StateError::InUse { .. } => Exit::Unavailable,
        _ => Exit::Unexpected,
    };
    CommandError::new(exit, error)
}

pub(super) fn progress_bar(connectors: usize) -> Option<ProgressBar> {
    if connectors != 1 || !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    Some(bar)
}

pub(super) fn progress_words(connector: &Connector) -> String {
    let doing = match connector.phase() {
        Phase::Idle => "starting".to_owned(),
        Phase::Collecting { users, pages } => format!("reading Torq: {users} users on {pages} pages"),
        Phase::Adopting { accounts } => format!("reading JumpCloud: {accounts} accounts"),
        Phase::Matching { users } => format!("asking the JumpCloud directory: {users} addresses"),
        Phase::Delivering { writes } => format!("writing to JumpCloud: {writes} accounts"),
    };
    match connector.trouble() {
        Some(trouble) => format!("{doing}; {}: waiting to try again", trouble.reason),
        None => doing,
    }
}

/// Passes an action on to the daemon, when one runs, and tells its answers. `None` when none runs.
pub(super) async fn ask_daemon(
    config: &Config,
    names: &[ConnectorName],
    action: Action,
    explicit: bool,
) -> Result<Option<Exit>, CommandError> {
    let request = Request::Act {
        action,
        connectors: names.iter().map(ToString::to_string).collect(),
    };
    let response = ask(config, &request).await?;
    match response {
        None => Ok(None),
        Some(Response::Answers { answers, problems }) => {
            if let Some(problems) = problems {
                tell(&format!(
                    "the running daemon goes on by its former configuration, for the file has problems:\n{problems}"
                ));
            }
            let mut gravest = Exit::Done;
            for (name, answer) in &answers {
                tell_run(name, answer);
                let exit = match answer {
                    // Whoever is not named is not meant.
                    Answer::Paused | Answer::Removed if !explicit => Exit::Done,
                    answer => Exit::of_answer(answer),
                };
                gravest = gravest.or(exit);
            }
            Ok(Some(gravest))
        }
        Some(Response::Error(error)) => Err(CommandError::new(Exit::Usage, error)),
        Some(Response::Status(_)) => Err(CommandError::unexpected("the daemon answered another question")),
    }
}

/// Asks the daemon, when one runs. Where that takes a while, a person hears what is being waited for.
pub(super) async fn ask(config: &Config, request: &Request) -> Result<Option<Response>, CommandError> {
    let asked = control::ask(&config.state_dir, request);
    tokio::pin!(asked);
    let answered = tokio::select! {
        biased;
        response = &mut asked => response,
        () = tokio::time::sleep(SAYS_NOTHING) => {
            tell("the running daemon does it; waiting for it (Ctrl-C ends the waiting, not what the daemon does; torq-connector status shows how it goes)");
            asked.await
        }
    };
    answered.map_err(|error| CommandError::new(Exit::Unavailable, format!("cannot ask the running daemon: {error}")))
}

fn tell_run(name: &impl std::fmt::Display, answer: &Answer) {
    let words = match answer {
        Answer::Ran(report) => run_words(name, report),
        Answer::Done(words) | Answer::Refused(words) => words.clone(),
        Answer::Paused => format!("is paused; to go on: torq-connector resume {name}"),
        Answer::Removed => removed_words(name),
        // Of a command that tells it in its own words.
        Answer::Plan(_) | Answer::Removal(_) => return,
    };
    tell(&format!("{name}: {words}"));
}

/// What there is to say about a connector that was removed.
pub(super) fn removed_words(name: &impl std::fmt::Display) -> String {
    format!("was removed, and is left alone; to set it up again: torq-connector reconnect {name}")
}

/// What a run did, in a line or three.
fn run_words(name: &impl std::fmt::Display, report: &RunReport) -> String {
    let RunReport {
        outcome,
        reason,
        action,
        counts,
        status,
    } = report;
    let mut words = match (reason, counts_words(counts)) {
        (Some(reason), Some(done)) => format!("{}; before that: {done}", failure_words(*outcome, reason)),
        (Some(reason), None) => failure_words(*outcome, reason),
        (None, done) => {
            let users = wording::counted(status.users, "user");
            format!("{users}; {}", done.as_deref().unwrap_or("nothing changed"))
        }
    };
    let left = [
        (status.pending, "pending"),
        (status.parked, "parked"),
        (status.held, "held for approval"),
        (status.associations_pending, "associations pending"),
        (status.deletions_pending, "deletions pending"),
    ];
    let left: Vec<_> = left
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !left.is_empty() {
        words.push_str(&format!("; {}", left.join(", ")));
    }
    if reason.is_none()
        && let Some(reason) = &status.reason
    {
        words.push_str(&format!("\n  {}: {reason}", status.state.as_str()));
    }
    let mut actions: Vec<String> = action
        .as_ref()
        .or(status.action.as_ref())
        .cloned()
        .into_iter()
        .collect();
    if reason.is_none() && status.parked > 0 {
        actions.push(format!("about those parked, {}", wording::about_parked(name)));
    }
    if reason.is_none() && status.reason.is_none() && status.pending > 0 {
        actions.push(
            "nothing about those pending: JumpCloud did not confirm their accounts; the next run goes on".to_owned(),
        );
    }
    for action in actions {
        words.push_str(&format!("\n  what to do: {action}"));
    }
    words
}

fn failure_words(outcome: RunOutcome, reason: &str) -> String {
    match outcome {
        RunOutcome::Refused => format!("refused: {reason}"),
        _ => format!("not finished: {reason}"),
    }
}

/// What was changed; `None` for nothing.
fn counts_words(counts: &RunCounts) -> Option<String> {
    let RunCounts {
        appeared,
        changed,
        disappeared,
        created,
        found,
        associated,
        deleted,
        refused,
    } = *counts;
    let all = [
        (appeared, "new"),
        (changed, "changed"),
        (disappeared, "gone"),
        (created, "accounts created"),
        (found, "accounts found"),
        (associated, "associated"),
        (deleted, "accounts deleted"),
        (refused, "refused"),
    ];
    let said: Vec<_> = all
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!said.is_empty()).then(|| said.join(", "))
}

pub(super) async fn dry_run(context: Context, args: SyncArgs) -> Result<Exit, CommandError> {
    let config = context.config()?;
    logging::start(&config.log, Who::Command, context.verbose);
    let names = chosen(&config, &args.names)?;
    let stop = CancellationToken::new();
    serve::stop_on_signals(stop.clone())?;
    let results = side_by_side(&config, &names, |connector| {
        let (config, stop) = (&config, stop.clone());
        async move {
            if is_removed(config, &connector.name) {
                return Ok(None);
            }
            let state = State::scratch(&config.state_dir, &connector.name)?;
            let connector = Connector::new(
                Arc::new(connector.clone()),
                &config.network,
                state,
                Patience::COMMAND,
                stop,
            );
            match connector {
                Ok(connector) => connector.dry_run().await.map(|preview| Some(Ok(preview))),
                Err(error) => Ok(Some(Err(error))),
            }
        }
    })
    .await;
    let mut report = DryRunReport { connectors: Vec::new() };
    let mut gravest = Exit::Done;
    for (name, result) in results {
        match result {
            Ok(None) => tell(&format!("{name}: {}", removed_words(&name))),
            Ok(Some(Ok(dry_run))) => report.connectors.push(dry_run),
            Ok(Some(Err(error))) => {
                tell(&format!("{name}: {error}"));
                gravest = gravest.or(Exit::Unexpected);
            }
            Err(halt) => {
                tell(&format!("{name}: {}", halt_words(&halt)));
                gravest = gravest.or(Exit::of_halt(&halt));
            }
        }
    }
    write_out(|out| output::dry_run(out, &report, output::Look::of_stdout(args.format)))?;
    Ok(gravest)
}

/// Whether a connector was removed, or is being removed.
pub(super) fn is_removed(config: &Config, name: &ConnectorName) -> bool {
    let removing = || {
        let store = state::read(&config.state_dir, name).ok().flatten();
        store.is_some_and(|store| store.about().is_ok_and(|about| about.removing.is_some()))
    };
    state::removed(&config.state_dir, name).is_some() || removing()
}

fn halt_words(halt: &Halt) -> String {
    match halt.action() {
        Some(action) => format!("{halt}\n  what to do: {action}"),
        None => halt.to_string(),
    }
}
