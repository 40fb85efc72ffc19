//! `reconnect`, `pause`, `resume`, `approve`, `retry`: through the daemon where one runs; without one they take the lock and
//! change the state, and the next run carries it out.

use jiff::Timestamp;

use super::logging::{self, Who};
use super::sync::{ask_daemon, chosen, removed_words, state_error};
use super::{CommandError, Context, Exit, NameArgs, tell};
use crate::config::Config;
use crate::daemon::control::{Action, approved_words, paused_words, retried_words};
use crate::model::ConnectorName;
use crate::state::{self, State, StateError};
use crate::view::ConnectorState;

pub(super) async fn run(context: Context, args: NameArgs, action: Action) -> Result<Exit, CommandError> {
    let config = context.config_without_secrets()?;
    logging::start(&config.log, Who::Command, context.verbose);
    if args.names.is_empty() && config.connectors.len() > 1 {
        let known: Vec<_> = config
            .connectors
            .iter()
            .map(|connector| connector.name.as_str())
            .collect();
        let message = format!("which connector? There is {}", known.join(", "));
        return Err(CommandError::new(Exit::Usage, message));
    }
    let names = chosen(&config, &args.names)?;
    if let Some(exit) = ask_daemon(&config, &names, action, true).await? {
        return Ok(exit);
    }
    let mut exit = Exit::Done;
    for name in names {
        let words = match act(&config, &name, action).await.map_err(state_error)? {
            Some(words) => words,
            None => {
                exit = exit.or(Exit::Partial);
                removed_words(&name)
            }
        };
        tell(&format!("{name}: {words}"));
    }
    Ok(exit)
}

/// Changes the state. Returns what that means, and nothing for a connector that was removed.
async fn act(config: &Config, name: &ConnectorName, action: Action) -> Result<Option<String>, StateError> {
    if action == Action::Reconnect && state::removed(&config.state_dir, name).is_some() {
        state::set_up_again(&config.state_dir, name)?;
        return Ok(Some(
            "it is set up again, from the beginning; no daemon is running, so the next run collects".to_owned(),
        ));
    }
    let state = match State::open(&config.state_dir, name) {
        Err(StateError::Removed { .. }) => return Ok(None),
        other => other?,
    };
    let connector = name.clone();
    state
        .call(move |store| {
            let now = Timestamp::now();
            if action != Action::Reconnect && store.about()?.removing.is_some() {
                return Ok(None);
            }
            Ok(Some(match action {
                Action::Pause => {
                    store.pause(now, true)?;
                    paused_words(&connector)
                }
                Action::Resume => match store.pause(now, false)? {
                    true => "resumed; the next run polls and delivers".to_owned(),
                    false => "it was not paused".to_owned(),
                },
                Action::Approve => approved_words(store.approve(now)?),
                Action::Retry => {
                    store.forget_not_offered()?;
                    retried_words(store.retry()?)
                }
                Action::Reconnect | Action::Sync => {
                    store.forget_not_offered()?;
                    store.cancel_removal(now)?;
                    store.note_state(now, ConnectorState::Starting, None, None)?;
                    "no daemon is running; the next run, or torq-connector sync, tries the credentials".to_owned()
                }
                // Commands of their own.
                Action::PlanRemoval | Action::Remove(_) => return Ok(None),
            }))
        })
        .await
}
