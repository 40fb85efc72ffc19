//! `remove`: shows what it would take away, asks, and takes it away. Through the daemon where one runs, which then does not attend
//! the connector any more; without one under the lock.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::confirm::confirmed;
use super::logging::{self, Who};
use super::reach::{ask, may_look};
use super::sync::{progress_bar, progress_words, removed_words, state_error};
use super::{CommandError, Context, Exit, RemoveArgs, serve, tell};
use crate::config::{self, Config, JumpCloudCredentials};
use crate::daemon::control::{Action, Answer, Request, Response};
use crate::http::Patience;
use crate::model::ConnectorName;
use crate::state::{self, State, StateError};
use crate::sync::{ApplicationFate, Connector, Neighbourhood, Obstacle, Removal, RemovalPlan, RemovalTerms};
use crate::wording;

pub(super) async fn run(context: Context, args: RemoveArgs) -> Result<Exit, CommandError> {
    let config = context.config_without_secrets()?;
    logging::start(&config.log, Who::Command, context.verbose);
    may_look(&config.state_dir)?;
    let Some(connector) = config.connectors.iter().find(|one| one.name.as_str() == args.name) else {
        return without_section(&config, &args);
    };
    let name = &connector.name;
    if let Some(removed) = state::removed(&config.state_dir, name)
        && removed.left.is_empty()
    {
        tell(&format!("{name}: {}", wording::removed_reason(removed.at)));
        tell(&epilogue(&context, connector));
        return Ok(Exit::Done);
    }
    let plan = if args.keep_accounts {
        None
    } else {
        match plan(&context, &config, name).await? {
            Ok(plan) => Some(plan),
            Err(obstacle) => {
                tell(&format!("{name}: nothing is removed: {}", obstacle_words(&obstacle)));
                return Ok(Exit::of_removal(obstacle.outcome));
            }
        }
    };
    tell(&what_goes(&config, connector, plan.as_ref()));
    if !confirmed("Remove", "removed", name.as_str(), args.yes)? {
        return Ok(Exit::Usage);
    }
    let terms = RemovalTerms {
        keep_accounts: args.keep_accounts,
        keep_application: plan.is_some_and(|plan| matches!(plan.application, ApplicationFate::Stays(..))),
    };
    let removal = remove(&context, &config, name, terms).await?;
    tell(&format!("{name}: {}", what_went(&removal, args.keep_accounts)));
    if removal.is_complete() {
        tell(&epilogue(&context, connector));
    }
    Ok(Exit::of_removal(removal.outcome()))
}

/// A connector that is not in the configuration: without its section nothing can be asked of JumpCloud, but what is known of it
/// can be forgotten.
fn without_section(config: &Config, args: &RemoveArgs) -> Result<Exit, CommandError> {
    let unknown = |hint: &str| {
        let known: Vec<_> = config.connectors.iter().map(|one| one.name.as_str()).collect();
        let message = format!(
            "there is no connector {} in the configuration; there is {}{hint}",
            args.name,
            known.join(", ")
        );
        CommandError::new(Exit::Usage, message)
    };
    let Some(name) = ConnectorName::parse(&args.name) else {
        return Err(unknown(""));
    };
    let files = state::files(&config.state_dir, &name);
    if files.is_empty() {
        return Err(unknown(""));
    }
    if !args.keep_accounts {
        return Err(unknown(&format!(
            "\nIts state is still there. To take away what it made in JumpCloud, put its section into the configuration again; to \
             forget it and leave JumpCloud as it is: torq-connector remove {name} --keep-accounts"
        )));
    }
    tell(&format!(
        "{name} is not in the configuration. This is deleted:\n{}\nJumpCloud is left as it is.",
        listed(&files)
    ));
    if !confirmed("Remove", "removed", name.as_str(), args.yes)? {
        return Ok(Exit::Usage);
    }
    state::forget(&config.state_dir, &name, Timestamp::now(), false).map_err(state_error)?;
    tell(&format!(
        "{name}: forgotten; delete its API key in Torq if that is still there"
    ));
    Ok(Exit::Done)
}

/// What the daemon answers; `None` when none runs.
async fn ask_daemon(config: &Config, name: &ConnectorName, action: Action) -> Result<Option<Answer>, CommandError> {
    let request = Request::Act {
        action,
        connectors: vec![name.to_string()],
    };
    match ask(&config.state_dir, &request).await? {
        None => Ok(None),
        Some(Response::Answers { mut answers, .. }) => Ok(answers.remove(name.as_str())),
        Some(Response::Error(error)) => Err(CommandError::new(Exit::Usage, error)),
        Some(_) => Err(CommandError::unexpected("the daemon answered another question")),
    }
}

fn refused(name: &ConnectorName, words: &str) -> CommandError {
    let message = format!(
        "{name}: nothing is removed: {words}\n  what to do: put that right, and repeat; or leave JumpCloud as it is: torq-connector \
         remove {name} --keep-accounts"
    );
    CommandError::new(Exit::Unexpected, message)
}

fn stopping() -> CommandError {
    CommandError::new(Exit::Unavailable, "the daemon is stopping; try again")
}

/// With the secrets, which are needed to ask JumpCloud. Where they cannot be read, a person hears what is possible without them.
fn with_secrets(context: &Context, name: &ConnectorName) -> Result<Config, CommandError> {
    context.config_for(&[name.to_string()]).map_err(|mut error| {
        error.message.push_str(&format!(
            "\nTo forget the connector without them, and leave JumpCloud as it is: torq-connector remove {name} --keep-accounts"
        ));
        error
    })
}

fn find<'a>(config: &'a Config, name: &ConnectorName) -> Result<&'a config::Connector, CommandError> {
    let found = config.connectors.iter().find(|one| one.name == *name);
    found.ok_or_else(|| CommandError::unexpected("the configuration changed meanwhile"))
}

/// The connector for somebody who waits for an answer.
fn assemble(
    config: &Config,
    name: &ConnectorName,
    state: State,
    stop: CancellationToken,
) -> Result<Connector, CommandError> {
    let connector = Arc::new(find(config, name)?.clone());
    Connector::new(connector, &config.network, state, Patience::COMMAND, stop).map_err(CommandError::unexpected)
}

async fn plan(
    context: &Context,
    config: &Config,
    name: &ConnectorName,
) -> Result<Result<RemovalPlan, Obstacle>, CommandError> {
    match ask_daemon(config, name, Action::PlanRemoval).await? {
        None => {}
        Some(Answer::Plan(plan)) => return Ok(*plan),
        Some(Answer::Refused(words)) => return Err(refused(name, &words)),
        Some(Answer::Removed) => {
            let message = format!("{name}: {}", removed_words(name));
            return Err(CommandError::new(Exit::Partial, message));
        }
        Some(Answer::Stopping) => return Err(stopping()),
        Some(_) => return Err(CommandError::unexpected("the daemon answered another question")),
    }
    let config = with_secrets(context, name)?;
    // On a copy in memory: nothing is held while a person thinks about it.
    let state = State::scratch(&config.state_dir, name).map_err(|error| refused(name, &error.to_string()))?;
    // A signal simply ends the process, for nothing is written; also while a person is asked.
    let connector = assemble(&config, name, state, CancellationToken::new())?;
    connector
        .plan_removal(&Neighbourhood::of(&config))
        .await
        .map_err(state_error)
}

async fn remove(
    context: &Context,
    config: &Config,
    name: &ConnectorName,
    terms: RemovalTerms,
) -> Result<Removal, CommandError> {
    match ask_daemon(config, name, Action::Remove(terms)).await? {
        None => {}
        Some(Answer::Removal(removal)) => return Ok(*removal),
        Some(Answer::Refused(words)) => return Err(refused(name, &words)),
        Some(Answer::Stopping) => return Err(stopping()),
        Some(_) => return Err(CommandError::unexpected("the daemon answered another question")),
    }
    let now = Timestamp::now();
    let left = state::removed(&config.state_dir, name).is_some();
    if terms.keep_accounts || left {
        // It need not be possible to open the state.
        state::forget(&config.state_dir, name, now, true).map_err(state_error)?;
        return Ok(Removal::untouched());
    }
    let config = with_secrets(context, name)?;
    let state = State::open(&config.state_dir, name).map_err(state_error)?;
    let stop = CancellationToken::new();
    serve::stop_on_signals(stop.clone(), Some(serve::STOPPING))?;
    let connector = assemble(&config, name, state.clone(), stop)?;
    let removal = watched(&connector, terms, &Neighbourhood::of(&config))
        .await
        .map_err(state_error)?;
    if removal.is_complete() {
        state.remove(now).await.map_err(state_error)?;
    }
    Ok(removal)
}

/// The removal, with its progress on a terminal.
async fn watched(
    connector: &Connector,
    terms: RemovalTerms,
    neighbourhood: &Neighbourhood,
) -> Result<Removal, StateError> {
    let bar = progress_bar(1);
    let removal = connector.remove(terms, neighbourhood);
    tokio::pin!(removal);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let removal = loop {
        tokio::select! {
            removal = &mut removal => break removal,
            _ = tick.tick() => if let Some(bar) = &bar {
                bar.set_message(progress_words(connector));
            },
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    removal
}

fn listed(files: &[std::path::PathBuf]) -> String {
    let lines: Vec<_> = files.iter().map(|file| format!("  {}", file.display())).collect();
    lines.join("\n")
}

/// `1 account`, `3 accounts`, and what they do.
fn accounts(number: u64, one: &str, more: &str) -> String {
    let verb = if number == 1 { one } else { more };
    format!("{} {verb}", wording::counted(number, "account"))
}

/// What is shown before anything is done.
fn what_goes(config: &Config, connector: &config::Connector, plan: Option<&RemovalPlan>) -> String {
    let name = &connector.name;
    let mut lines = vec![format!("Removing the connector {name} means:")];
    match plan {
        None => {
            let known = state::read(&config.state_dir, name).ok().flatten();
            let ours = known.and_then(|store| store.ours().ok());
            let which = ours.map_or_else(
                || "what this connector created there stays".to_owned(),
                |ours| {
                    accounts(
                        ours.len() as u64,
                        "that this connector created stays",
                        "that this connector created stay",
                    )
                },
            );
            lines.push(format!(
                "- JumpCloud is left as it is: {which}, and nobody knows any more whose they are."
            ));
        }
        Some(plan) => {
            lines.push(match plan.accounts {
                0 => "- In JumpCloud, no account is deleted: none is there that this connector created.".to_owned(),
                number => format!(
                    "- In JumpCloud, {}.",
                    accounts(
                        number,
                        "that this connector created is deleted",
                        "that this connector created are deleted"
                    )
                ),
            });
            lines.push(match &plan.application {
                ApplicationFate::Absent => format!(
                    "- The application {} is not there (any more).",
                    connector.jumpcloud.application
                ),
                ApplicationFate::Goes(id) => format!(
                    "- The application {} ({id}) is deleted: this connector made it, and nothing else is in it.",
                    connector.jumpcloud.application
                ),
                ApplicationFate::Stays(id, why) => format!(
                    "- The application {} ({id}) stays: {why}.",
                    connector.jumpcloud.application
                ),
            });
            if plan.needed > 0 {
                lines.push(format!(
                    "- {}: the users of {} have them, too.",
                    accounts(
                        plan.needed,
                        "that this connector created stays",
                        "that this connector created stay"
                    ),
                    plan.neighbours.join(", ")
                ));
            }
            if plan.forgotten > 0 {
                lines.push(format!(
                    "- {}: who they are for is not known any more. Delete them in JumpCloud, if they are to go.",
                    accounts(
                        plan.forgotten,
                        "that this connector created for somebody who is not known any more stays",
                        "that this connector created for people who are not known any more stay"
                    )
                ));
            }
            let others = plan.others.saturating_sub(plan.forgotten);
            if others > 0 {
                lines.push(format!(
                    "- {}, with the person in the directory whom they are associated with.",
                    accounts(
                        others,
                        "that this connector did not create stays",
                        "that this connector did not create stay"
                    )
                ));
            }
        }
    }
    let files = state::files(&config.state_dir, name);
    if files.is_empty() {
        lines.push("- It has no state here.".to_owned());
    } else {
        lines.push(format!("- What is known of it is deleted:\n{}", listed(&files)));
    }
    lines.push("- It does not start again by itself.".to_owned());
    lines.join("\n")
}

fn obstacle_words(obstacle: &Obstacle) -> String {
    format!("{}\n  what to do: {}", obstacle.reason, obstacle.action)
}

/// What was done.
fn what_went(removal: &Removal, kept: bool) -> String {
    let mut words = if kept {
        "JumpCloud is as it was".to_owned()
    } else {
        accounts(removal.deleted, "deleted in JumpCloud", "deleted in JumpCloud")
    };
    match &removal.application {
        Some(ApplicationFate::Goes(_)) => words.push_str(", and the application"),
        Some(ApplicationFate::Stays(_, why)) => words.push_str(&format!("; the application stays: {why}")),
        Some(ApplicationFate::Absent) | None => {}
    }
    if removal.needed > 0 {
        words.push_str(&format!(
            "; {}, for users of other connectors have them, too",
            accounts(removal.needed, "stays", "stay")
        ));
    }
    match &removal.obstacle {
        None => words.push_str("; its state is deleted"),
        Some(obstacle) => words.push_str(&format!(
            "; not finished: {}\n  the connector is stopped, and its state stays, so that this can be repeated",
            obstacle_words(obstacle)
        )),
    }
    words
}

/// What is left to a person.
fn epilogue(context: &Context, connector: &config::Connector) -> String {
    let name = &connector.name;
    let mut lines = vec![
        "What is left for you to do:".to_owned(),
        format!(
            "- In Torq ({}), delete the API key with the client id {}, in the workspace's settings: that revokes its permission.",
            connector.torq.api_url.host_str().unwrap_or("its workspace"),
            connector.torq.client_id
        ),
    ];
    lines.push(match &connector.jumpcloud.credentials {
        JumpCloudCredentials::ServiceAccount { client_id, .. } => format!(
            "- In JumpCloud, delete the service account with the client id {client_id}, unless something else uses it."
        ),
        JumpCloudCredentials::ApiKey(_) => {
            "- In JumpCloud, delete the administrator's API key, unless something else uses it.".to_owned()
        }
    });
    lines.push(format!(
        "- Take the section [{}] out of {}, delete the files of its secrets, and copies of its state that you made.",
        name.table(),
        context.path.display()
    ));
    lines.push(format!("To set it up again instead: torq-connector reconnect {name}"));
    lines.join("\n")
}
