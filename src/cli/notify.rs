//! `notify --test`: sends a test message by each way that is configured, and says what came back.

use std::sync::Arc;

use super::logging::{self, Who};
use super::sync::{chosen, only_one};
use super::{CommandError, Context, Exit, NotifyArgs, tell};
use crate::notify::{Tried, try_out};
use crate::wording::printable;

pub(super) async fn run(context: Context, args: NotifyArgs) -> Result<Exit, CommandError> {
    debug_assert!(args.test, "there is nothing else to do");
    let wanted: Vec<String> = args.name.into_iter().collect();
    let config = context.config_for(&wanted)?;
    logging::start(&config.log, Who::Command, context.verbose);
    let names = chosen(&config, &wanted)?;
    only_one(&names)?;
    let connector = config.connectors.iter().find(|one| names.contains(&one.name));
    let Some(connector) = connector.filter(|one| one.notify.is_some()) else {
        let name = names.first().map_or("NAME", |name| name.as_str());
        let message = format!(
            "{name}: nobody is to be told: there is no url and no command in [connectors.{name}.notify]; see docs/notify.md"
        );
        return Err(CommandError::new(Exit::Config, message));
    };
    let mut gravest = Exit::Done;
    for tried in try_out(connector, &Arc::new(config.network.clone())).await {
        gravest = gravest.or(exit_of(&tried));
        let (done, words) = match &tried.result {
            Ok(words) => ("a test message was sent", words),
            Err(words) => ("NOT told", words),
        };
        let line = format!("{}: {}: {done}: {words}", connector.name, tried.to);
        tell(&printable(&line));
    }
    Ok(gravest)
}

fn exit_of(tried: &Tried) -> Exit {
    match &tried.result {
        Ok(_) => Exit::Done,
        Err(_) if tried.misfit => Exit::Config,
        Err(_) if tried.temporary => Exit::Unavailable,
        Err(_) => Exit::Refused,
    }
}
