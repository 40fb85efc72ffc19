//! `status`, `users`, `events`: what is known. From the daemon where one runs, else from the state, which may be looked at
//! beside whoever writes it.

use jiff::{SignedDuration, Timestamp};

use super::logging::{self, Who};
use super::output::{self, Look};
use super::sync::{chosen, removed_words};
use super::{CommandError, Context, EventsArgs, Exit, ShowArgs, tell, write_out};
use crate::config::Config;
use crate::daemon::control::{self, Request, Response};
use crate::model::ConnectorName;
use crate::state::{self, EventQuery, Store};
use crate::view::{ConnectorState, ConnectorStatus, EventsReport, StatusReport, UsersReport};
use crate::wording;

pub(super) async fn status(context: Context, args: ShowArgs) -> Result<Exit, CommandError> {
    let (config, names) = begin(&context, &args)?;
    let live = match control::ask(&config.state_dir, &Request::Status).await {
        Ok(Some(Response::Status(report))) => Some(report),
        Ok(Some(Response::Error(error))) => {
            tell(&format!("the running daemon says: {error}"));
            None
        }
        Ok(_) => None,
        Err(error) => {
            tell(&format!("cannot ask the running daemon: {error}"));
            None
        }
    };
    if live.is_none() {
        tell("no daemon is running with this state_dir; this is what was known last");
    }
    let mut connectors = Vec::new();
    let mut exit = Exit::Done;
    for name in &names {
        let known = live
            .as_ref()
            .and_then(|report| report.connectors.iter().find(|status| status.name == name.as_str()));
        match known {
            Some(status) => connectors.push(status.clone()),
            None => connectors.push(stored_status(&config, name).unwrap_or_else(|error| {
                // What is wrong with one state hides no other.
                exit = Exit::Unexpected;
                ConnectorStatus::unknown(name.as_str(), ConnectorState::Retrying, Some(error))
            })),
        }
    }
    let report = StatusReport { connectors };
    write_out(|out| output::status(out, &report, Look::of_stdout(args.format)))?;
    Ok(exit)
}

pub(super) async fn users(context: Context, args: ShowArgs) -> Result<Exit, CommandError> {
    let (config, names) = begin(&context, &args)?;
    let mut report = UsersReport { users: Vec::new() };
    let exit = for_each(&config, &names, |store| {
        report.users.extend(store.users()?);
        Ok(())
    });
    write_out(|out| output::users(out, &report, Look::of_stdout(args.format)))?;
    Ok(exit)
}

pub(super) async fn events(context: Context, args: EventsArgs) -> Result<Exit, CommandError> {
    let (config, names) = begin(&context, &args.show)?;
    let query = EventQuery {
        since: args.since,
        user: args.user,
        limit: args.limit,
        ..EventQuery::default()
    };
    let mut histories = Vec::new();
    let exit = for_each(&config, &names, |store| {
        histories.push(store.events(&query)?);
        Ok(())
    });
    let report = EventsReport::merged(histories, args.limit);
    write_out(|out| output::events(out, &report, Look::of_stdout(args.show.format)))?;
    Ok(exit)
}

fn begin(context: &Context, args: &ShowArgs) -> Result<(Config, Vec<ConnectorName>), CommandError> {
    let config = context.config_without_secrets()?;
    logging::start(&config.log, Who::Command, context.verbose);
    let names = chosen(&config, &args.names)?;
    Ok((config, names))
}

/// Looks into the state of each connector that has one. What is wrong with one of them is told, and hides no other.
fn for_each(config: &Config, names: &[ConnectorName], mut look: impl FnMut(&mut Store) -> state::Sql<()>) -> Exit {
    let mut exit = Exit::Done;
    for name in names {
        let looked = match state::read(&config.state_dir, name) {
            Ok(Some(mut store)) => look(&mut store).map_err(|error| error.to_string()),
            Ok(None) => {
                let words = match state::removed(&config.state_dir, name) {
                    Some(_) => removed_words(name),
                    None => "nothing is known yet; the first run will collect".to_owned(),
                };
                tell(&format!("{name}: {words}"));
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = looked {
            tell(&format!("{name}: {error}"));
            exit = Exit::Unexpected;
        }
    }
    exit
}

fn stored_status(config: &Config, name: &ConnectorName) -> Result<ConnectorStatus, String> {
    if let Some(removed) = state::removed(&config.state_dir, name) {
        let reason = wording::removed_reason(removed.at);
        return Ok(ConnectorStatus {
            action: Some(wording::removed_action(name, !removed.left.is_empty())),
            ..ConnectorStatus::unknown(name.as_str(), ConnectorState::Removed, Some(reason))
        });
    }
    match state::read(&config.state_dir, name).map_err(|error| error.to_string())? {
        Some(mut store) => store.status().map_err(|error| error.to_string()),
        None => Ok(ConnectorStatus::unknown(
            name.as_str(),
            ConnectorState::Starting,
            Some("nothing is known yet; the first run will collect".to_owned()),
        )),
    }
}

/// Reads a time, a day, or an age.
pub(super) fn parse_since(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(day) = text.parse::<jiff::civil::Date>() {
        return day
            .to_zoned_datetime(jiff::tz::TimeZone::UTC)
            .map(|midnight| midnight.timestamp())
            .map_err(|error| error.to_string());
    }
    let age = match text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()) {
        Some(days) => Some(SignedDuration::from_hours(24 * days.clamp(0, 100_000))),
        None => text.parse::<SignedDuration>().ok(),
    };
    let age = age.ok_or("give a time (2026-11-01T08:00:00Z), a day (2026-11-01) or an age (7d, 12h)")?;
    Timestamp::now().checked_sub(age).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_a_day_or_an_age() {
        assert_eq!(
            parse_since("2026-11-01T08:00:00Z").unwrap().to_string(),
            "2026-11-01T08:00:00Z"
        );
        assert_eq!(parse_since("2026-11-01").unwrap().to_string(), "2026-11-01T00:00:00Z");
        let hours = |text| {
            let since = parse_since(text).unwrap();
            Timestamp::now().duration_since(since).as_hours()
        };
        assert_eq!(hours("7d"), 7 * 24);
        assert_eq!(hours("12h"), 12);
        assert!(parse_since("yesterday").is_err());
    }
}
