//! `reconnect`, `pause`, `resume`, `approve`, `retry`: through the daemon where one runs; without one they take the lock and
//! change the state, and the next run carries it out.

use jiff::Timestamp;

use super::logging::{self, Who};
use super::sync::{ask_daemon, chosen, state_error};
use super::{CommandError, Context, Exit, NameArgs, tell};
use crate::daemon::control::{Action, approved_words, paused_words, retried_words};
use crate::state::State;
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
    for name in names {
        let state = State::open(&config.state_dir, &name).map_err(state_error)?;
        let connector = name.clone();
        let words = state
            .call(move |store| {
                let now = Timestamp::now();
                Ok(match action {
                    Action::Pause => {
                        store.pause(true)?;
                        paused_words(&connector)
                    }
                    Action::Resume => {
                        store.pause(false)?;
                        "resumed; the next run polls and delivers".to_owned()
                    }
                    Action::Approve => approved_words(store.approve(now)?),
                    Action::Retry => {
                        store.forget_not_offered()?;
                        retried_words(store.retry()?)
                    }
                    Action::Reconnect | Action::Sync => {
                        store.forget_not_offered()?;
                        store.note_state(now, ConnectorState::Starting, None, None)?;
                        "no daemon is running; the next run, or torq-connector sync, tries the credentials".to_owned()
                    }
                })
            })
            .await
            .map_err(state_error)?;
        tell(&format!("{name}: {words}"));
    }
    Ok(Exit::Done)
}
