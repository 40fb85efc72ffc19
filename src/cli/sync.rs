//! `sync` and `sync --dry-run`: one run now, or what it would do.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::logging::{self, Who};
use super::reach::{ask, in_spite_of, may_look};
use super::{CommandError, Context, Exit, SyncArgs, check, output, serve, tell, write_out};
use crate::config::{self, Config};
use crate::daemon::GRACE;
use crate::daemon::control::{self, Action, Answer, Request, Response, RunReport};
use crate::daemon::deeds;
use crate::http::{ClientError, Patience};
use crate::invocation::addressed;
use crate::model::ConnectorName;
use crate::notify::{self, Brief};
use crate::state::{self, State, StateError};
use crate::sync::{Again, Connector, Halt, Phase};
use crate::view::{DryRun, DryRunReport, RunCounts, RunOutcome};
use crate::wording;

/// How many connectors run at a time: each has its own peers, and the machine has only so much of everything.
const SIDE_BY_SIDE: usize = 16;

pub(super) async fn run(context: Context, args: SyncArgs) -> Result<Exit, CommandError> {
    // The secrets may be there for the daemon alone, so they are read when it is known that none runs.
    let config = match context.config_without_secrets() {
        Ok(config) => config,
        Err(problems) => return act_in_spite_of(&context, problems, &args.names, Action::Sync).await,
    };
    logging::start(&config.log, Who::Command, context.verbose);
    let names = chosen(&config, &args.names)?;
    let explicit = !args.names.is_empty();
    if let Some(exit) = ask_daemon(&config.state_dir, &names, Action::Sync, explicit, None).await? {
        return Ok(exit);
    }
    let config = context.config_for(&args.names)?;
    crate::sync::note_tenants(&config);
    if let Some(words) = check::open_folder(&config.state_dir) {
        tracing::warn!("{words}");
    }
    let stop = CancellationToken::new();
    serve::stop_on_signals(stop.clone(), Some(serve::STOPPING))?;
    let bar = progress_bar(names.len());
    let exits = side_by_side(&config, &names, |connector| {
        let (config, stop, bar) = (&config, stop.clone(), bar.clone());
        async move { sync_one(config, connector, stop, bar).await }
    })
    .await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let mut gravest = Exit::Done;
    let mut answers = BTreeMap::new();
    for (name, result) in exits {
        match result {
            Ok(answer) => drop(answers.insert(name.to_string(), answer)),
            Err(error) => {
                tell(&format!("{name}: {}", error.message));
                gravest = gravest.or(error.exit);
            }
        }
    }
    let told = tell_answers(&answers, Action::Sync, explicit);
    Ok(gravest.or(told))
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
) -> Result<Answer, CommandError> {
    let state = match State::open(&config.state_dir, &connector.name) {
        Err(StateError::Removed { .. }) => return Ok(Answer::Removed),
        other => other.map_err(state_error)?,
    };
    let looked = state.call(|store| {
        // A poll of which nothing was read is no news.
        let half_read = store.half_read()?.and(store.resumable(Timestamp::now())?);
        Ok((store.about()?, half_read))
    });
    let (about, half_read) = looked.await.map_err(state_error)?;
    if about.removing.is_some() {
        return Ok(Answer::Removed);
    }
    if about.paused {
        return Ok(Answer::Paused);
    }
    if let Some(since) = half_read {
        let words = format!(
            "{}: going on with the poll that began at {} and was cut short",
            connector.name,
            wording::moment(since)
        );
        match &bar {
            Some(bar) => bar.suspend(|| tell(&words)),
            None => tell(&words),
        }
    }
    let connector = Connector::new(
        Arc::new(connector.clone()),
        &config.network,
        state,
        Patience::COMMAND,
        stop,
    )
    .map_err(client_error)?;
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
    if !connector.is_stopped() {
        let brief = Brief::of(connector.config(), &Arc::new(config.network.clone()), None);
        notify::tell_once(connector.name(), connector.state(), &brief).await;
    }
    Ok(Answer::Ran(Box::new(RunReport::of(end))))
}

/// An error of the state, for people, with the exit code it deserves.
pub(super) fn state_error(error: StateError) -> CommandError {
    let exit = match &error {
        // Somebody else is at work: try again later.
        StateError::InUse { .. } => Exit::Unavailable,
        _ => Exit::Unexpected,
    };
    CommandError::new(exit, state_words(&error))
}

/// An error of the state, with the setting that says where it is when it is the folder that cannot be used.
pub(super) fn state_words(error: &StateError) -> String {
    use std::io::ErrorKind;
    match error {
        StateError::File { source, .. }
            if matches!(
                source.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::NotADirectory
                    | ErrorKind::AlreadyExists
            ) =>
        {
            format!(
                "{error}. The folder is state_dir in the configuration: run as root or as the user of the service, or set state_dir"
            )
        }
        other => other.to_string(),
    }
}

/// An error of the connections, for people, with the exit code it deserves.
pub(super) fn client_error(error: ClientError) -> CommandError {
    let exit = match &error {
        ClientError::Proxy { .. } => Exit::Config,
        ClientError::Tls { .. } => Exit::Unexpected,
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

/// Passes an action on to the daemon, when one runs, and tells its answers. `None` when none runs. `told`: what was said already of a
/// configuration that has problems.
pub(super) async fn ask_daemon(
    state_dir: &Path,
    names: &[ConnectorName],
    action: Action,
    explicit: bool,
    told: Option<&str>,
) -> Result<Option<Exit>, CommandError> {
    let request = Request::Act {
        action,
        connectors: names.iter().map(ToString::to_string).collect(),
    };
    let response = ask(state_dir, &request).await?;
    match response {
        None => Ok(None),
        Some(Response::Answers { answers, problems }) => {
            let news = |problems: &&String| told.is_none_or(|told| !told.contains(problems.as_str()));
            if let Some(problems) = problems.as_ref().filter(news) {
                tell(&format!(
                    "the running daemon goes on by its former configuration, for the file has problems:\n{problems}"
                ));
            }
            // It was to be read again, and was not.
            let exit = if problems.is_some() { Exit::Config } else { Exit::Done };
            Ok(Some(exit.or(tell_answers(&answers, action, explicit))))
        }
        Some(Response::Error(error)) => Err(CommandError::new(Exit::Usage, error)),
        Some(_) => Err(CommandError::unexpected("the daemon answered another question")),
    }
}

/// Tells what became of each connector. Returns the exit code that it deserves.
fn tell_answers(answers: &BTreeMap<String, Answer>, action: Action, explicit: bool) -> Exit {
    let mut gravest = Exit::Done;
    for (name, answer) in answers {
        tell_run(name, answer);
        gravest = gravest.or(match answer {
            // Whoever is not named is not meant.
            Answer::Paused | Answer::Removed if !explicit => Exit::Done,
            answer => Exit::of_answer(answer),
        });
    }
    let idle = |answer: &Answer| matches!(answer, Answer::Paused | Answer::Removed);
    if action == Action::Sync && !explicit && !answers.is_empty() && answers.values().all(idle) {
        tell("nothing was done: every connector is paused or was removed");
    }
    gravest
}

/// The same where the configuration has problems, and a daemon runs.
pub(super) async fn act_in_spite_of(
    context: &Context,
    problems: CommandError,
    wanted: &[String],
    action: Action,
) -> Result<Exit, CommandError> {
    let told = problems.message.clone();
    let (state_dir, report) = in_spite_of(context, problems).await?;
    let names: Vec<_> = report
        .connectors
        .iter()
        .filter_map(|status| ConnectorName::parse(&status.name))
        .collect();
    let names = control::named(&names, wanted).map_err(|message| CommandError::new(Exit::Usage, message))?;
    if action != Action::Sync && wanted.is_empty() {
        only_one(&names)?;
    }
    let answered = ask_daemon(&state_dir, &names, action, !wanted.is_empty(), Some(&told)).await?;
    answered.ok_or_else(|| CommandError::new(Exit::Unavailable, "the daemon is stopping; try again"))
}

/// Refuses to guess which of several connectors is meant.
pub(super) fn only_one(names: &[ConnectorName]) -> Result<(), CommandError> {
    if names.len() < 2 {
        return Ok(());
    }
    let known: Vec<_> = names.iter().map(ConnectorName::as_str).collect();
    let message = format!("which connector? There is {}", known.join(", "));
    Err(CommandError::new(Exit::Usage, message))
}

fn tell_run(name: &impl std::fmt::Display, answer: &Answer) {
    let words = match answer {
        Answer::Ran(report) => run_words(report),
        Answer::Done(words) | Answer::Otherwise(words) | Answer::Refused(words) => words.clone(),
        Answer::Paused => deeds::paused_words(name),
        Answer::Removed => removed_words(name),
        Answer::Waits(reason) => {
            format!("not finished: {reason}; the daemon goes on trying\n  what to do: see torq-connector status {name}")
        }
        Answer::Stopping => "the daemon does not attend it any more, or is stopping; try again".to_owned(),
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
fn run_words(report: &RunReport) -> String {
    let RunReport {
        outcome,
        reason,
        action,
        counts,
        status,
        problems,
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
        (status.filtered, "filtered"),
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
        words.push_str(&format!("\n  {}: {reason}", wording::state(status.state)));
    }
    let mut actions: Vec<String> = action
        .as_ref()
        .or(status.action.as_ref())
        .cloned()
        .into_iter()
        .collect();
    if reason.is_none() && wording::leaves_out_parked(status, actions.first().map(String::as_str)) {
        actions.push(format!("about those parked: {}", wording::about_parked(status)));
    }
    if reason.is_none() && status.reason.is_none() && status.pending > 0 {
        actions.push(
            "nothing about those pending: JumpCloud did not confirm their accounts; the next run goes on".to_owned(),
        );
    }
    for action in actions {
        words.push_str(&format!("\n  what to do: {action}"));
    }
    for problem in problems {
        words.push_str(&format!("\n  not read again: {problem}"));
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
pub(super) fn counts_words(counts: &RunCounts) -> Option<String> {
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
        (appeared, "", "new"),
        (changed, "", "changed"),
        (disappeared, "", "gone"),
        (created, "account", "created"),
        (found, "account", "found"),
        (associated, "", "associated"),
        (deleted, "account", "deleted"),
        (refused, "", "refused"),
    ];
    let said: Vec<_> = all
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, what, done)| match what {
            "" => format!("{count} {done}"),
            what => format!("{} {done}", wording::counted(count, what)),
        })
        .collect();
    (!said.is_empty()).then(|| said.join(", "))
}

pub(super) async fn dry_run(context: Context, args: SyncArgs) -> Result<Exit, CommandError> {
    let config = context.config_for(&args.names)?;
    logging::start(&config.log, Who::Command, context.verbose);
    let names = chosen(&config, &args.names)?;
    may_look(&config.state_dir)?;
    // A signal simply ends the process: nothing is written, so there is nothing to finish.
    let stop = CancellationToken::new();
    let results = side_by_side(&config, &names, |connector| {
        let (config, stop) = (&config, stop.clone());
        async move { preview(config, connector, stop).await }
    })
    .await;
    let mut report = DryRunReport { connectors: Vec::new() };
    let mut gravest = Exit::Done;
    for (name, result) in results {
        report.connectors.push(match result {
            Ok(dry_run) => dry_run,
            Err(error) => {
                tell(&format!("{name}: {}", error.message));
                gravest = gravest.or(error.exit);
                DryRun::failed(name.as_str(), error.message)
            }
        });
    }
    for run in &mut report.connectors {
        for text in run.error.iter_mut().chain(&mut run.notes) {
            *text = addressed(text).into_owned();
        }
    }
    write_out(|out| output::dry_run(out, &report, output::Look::of_stdout(args.format)))?;
    Ok(gravest)
}

/// What a run of one connector would do.
async fn preview(
    config: &Config,
    connector: &config::Connector,
    stop: CancellationToken,
) -> Result<DryRun, CommandError> {
    if is_removed(config, &connector.name) {
        return Err(CommandError::new(Exit::Done, removed_words(&connector.name)));
    }
    let state = State::scratch(&config.state_dir, &connector.name).map_err(state_error)?;
    let shared = Arc::new(connector.clone());
    let preview = Connector::new(shared, &config.network, state, Patience::COMMAND, stop).map_err(client_error)?;
    let previewed = preview.dry_run().await;
    previewed.map_err(|halt| halted(connector, "sync --dry-run", &halt))
}

/// Why a command that only looks did not come to its end, and what to do before it is given `again`.
pub(super) fn halted(connector: &config::Connector, again: &'static str, halt: &Halt) -> CommandError {
    let todo = halt
        .action(connector, Again::Command(again))
        .map(|action| format!("\n  what to do: {action}"))
        .unwrap_or_default();
    CommandError::new(Exit::of_halt(halt), format!("{halt}{todo}"))
}

/// Whether a connector was removed, or is being removed.
pub(super) fn is_removed(config: &Config, name: &ConnectorName) -> bool {
    let removing = || {
        let store = state::read(&config.state_dir, name).ok().flatten();
        store.is_some_and(|store| store.about().is_ok_and(|about| about.removing.is_some()))
    };
    state::removed(&config.state_dir, name).is_some() || removing()
}
