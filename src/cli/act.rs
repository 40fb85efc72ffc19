//! `reconnect`, `pause`, `resume`, `approve`, `retry`: through the daemon where one runs; without one they take the lock and
//! change the state, and the next run carries it out.

use clap::Args;
use jiff::Timestamp;

use super::logging::{self, Who};
use super::sync::{act_in_spite_of, ask_daemon, chosen, only_one, removed_words, state_error};
use super::{CommandError, Context, Exit, NameArgs, tell};
use crate::config::{Config, Removals};
use crate::daemon::control::{Action, ApprovalTerms};
use crate::daemon::deeds;
use crate::model::ConnectorName;
use crate::state::{self, State, StateError};
use crate::view::ConnectorState;

#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// Which connectors; may be left out when there is only one.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only if so many are held, as many as you looked at: who is held by now may be more.
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// Take back what was approved and is not carried out yet: it is held again.
    #[arg(long, conflicts_with = "count")]
    withdraw: bool,
}

pub(super) async fn approve(context: Context, args: ApproveArgs) -> Result<Exit, CommandError> {
    let ApproveArgs { names, count, withdraw } = args;
    let action = Action::Approve(ApprovalTerms { count, withdraw });
    run(context, NameArgs { names }, action).await
}

pub(super) async fn run(context: Context, args: NameArgs, action: Action) -> Result<Exit, CommandError> {
    let config = match context.config_without_secrets() {
        Ok(config) => config,
        Err(problems) => return act_in_spite_of(&context, problems, &args.names, action).await,
    };
    logging::start(&config.log, Who::Command, context.verbose);
    let names = chosen(&config, &args.names)?;
    if args.names.is_empty() {
        only_one(&names)?;
    }
    if let Some(exit) = ask_daemon(&config.state_dir, &names, action, true, None).await? {
        return Ok(exit);
    }
    let mut exit = Exit::Done;
    for name in names {
        let words = match act(&config, &name, action).await.map_err(state_error) {
            Ok(Some(Ok(words))) => words,
            Ok(None) => {
                exit = exit.or(Exit::Partial);
                removed_words(&name)
            }
            Ok(Some(Err(why))) => {
                exit = exit.or(Exit::Partial);
                why
            }
            // What is wrong with one of them keeps none of the others from it.
            Err(error) => {
                exit = exit.or(error.exit);
                error.message
            }
        };
        tell(&format!("{name}: {words}"));
    }
    Ok(exit)
}

/// Changes the state. Returns what that means, or why it was not done, and nothing for a connector that was removed.
async fn act(
    config: &Config,
    name: &ConnectorName,
    action: Action,
) -> Result<Option<Result<String, String>>, StateError> {
    if action == Action::Reconnect && state::removed(&config.state_dir, name).is_some() {
        state::set_up_again(&config.state_dir, name)?;
        return Ok(Some(Ok(deeds::set_up_again_words(name))));
    }
    let state = match State::open(&config.state_dir, name) {
        Err(StateError::Removed { .. }) => return Ok(None),
        other => other?,
    };
    let configured = config.connectors.iter().find(|connector| connector.name == *name);
    let removals = configured.map_or(Removals::Report, |connector| connector.removals);
    state
        .call(move |store| {
            let now = Timestamp::now();
            if action != Action::Reconnect && store.about()?.removing.is_some() {
                return Ok(None);
            }
            let words = match action {
                Action::Pause => deeds::pause(store, now)?,
                Action::Resume => deeds::resume(store, now, "the next run polls and delivers")?,
                Action::Approve(terms) => return deeds::approve(store, terms, removals, now).map(Some),
                Action::Retry => deeds::retry(store, now)?,
                Action::Reconnect | Action::Sync => {
                    store.forget_not_offered()?;
                    store.cancel_removal(now)?;
                    if store.about()?.paused {
                        return Ok(Some(Err(deeds::paused_words(store.name()))));
                    }
                    let reason = format!(
                        "a person asked to reconnect; the daemon tries it when it starts, and so does torq-connector sync {}",
                        store.name()
                    );
                    store.note_state(now, ConnectorState::Starting, Some(&reason), None)?;
                    "no daemon is running; the next run, or torq-connector sync, tries the credentials".to_owned()
                }
                // Commands of their own.
                Action::PlanRemoval | Action::Remove(_) => return Ok(None),
            };
            Ok(Some(Ok(words)))
        })
        .await
}
