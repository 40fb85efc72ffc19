//! `status`, `users`, `events`: what is known. From the daemon where one runs, else from the state, which may be looked at
//! beside whoever writes it.

use jiff::{SignedDuration, Timestamp};

use super::logging::{self, Who};
use super::output::{self, Format, Look};
use super::reach::{ask_quietly, in_spite_of, may_look};
use super::sync::{chosen, removed_words};
use super::{CommandError, Context, EventsArgs, Exit, ShowArgs, addressed, tell, write_out};
use crate::config::Config;
use crate::daemon::control::{Request, Response};
use crate::model::ConnectorName;
use crate::state::{self, EventQuery, StateError, Store};
use crate::view::{ConnectorState, ConnectorStatus, EventsReport, StatusReport, UsersReport};
use crate::wording;

pub(super) async fn status(context: Context, args: ShowArgs) -> Result<Exit, CommandError> {
    let (config, names) = match begin(&context, &args) {
        Err(problems) if problems.exit == Exit::Config => {
            let (_, report) = in_spite_of(&context, problems).await?;
            return show(report, &args, Exit::Done);
        }
        begun => begun?,
    };
    let mut exit = Exit::Done;
    let live = match ask_quietly(&config.state_dir, &Request::Status).await {
        Ok(Some(Response::Status(report))) => Some(report),
        Ok(None) => {
            tell("no daemon is running with this state_dir; this is what was known last");
            None
        }
        Ok(Some(Response::Error(error))) => {
            tell(&format!(
                "the running daemon says: {error}; this is what was known last"
            ));
            exit = Exit::Unexpected;
            None
        }
        Ok(Some(_)) => {
            return Err(CommandError::unexpected("the daemon answered another question"));
        }
        Err(error) if error.exit == Exit::Unavailable => {
            tell(&format!("{}; this is what was known last", error.message));
            exit = error.exit;
            None
        }
        Err(error) => return Err(error),
    };
    let mut connectors = Vec::new();
    for name in &names {
        let known = live
            .as_ref()
            .and_then(|report| report.connectors.iter().find(|status| status.name == name.as_str()));
        match known {
            Some(status) => {
                // With a daemon as without one: what cannot be read is an error, though it is shown what is known of it.
                if status.state == ConnectorState::Retrying && state::read(&config.state_dir, name).is_err() {
                    exit = exit.or(Exit::Unexpected);
                }
                connectors.push(status.clone());
            }
            None => connectors.push(stored_status(&config, name).unwrap_or_else(|error| {
                // What is wrong with one state hides no other.
                exit = exit.or(Exit::Unexpected);
                ConnectorStatus {
                    action: Some(wording::about_state(&error).to_owned()),
                    ..ConnectorStatus::unknown(name.as_str(), ConnectorState::Retrying, Some(error.to_string()))
                }
            })),
        }
    }
    show(StatusReport { connectors }, &args, exit)
}

fn show(mut report: StatusReport, args: &ShowArgs, exit: Exit) -> Result<Exit, CommandError> {
    if !args.names.is_empty() {
        report.connectors.retain(|status| args.names.contains(&status.name));
    }
    if args.format == Format::Table {
        for status in &mut report.connectors {
            status.action = status.action.as_deref().map(|action| addressed(action).into_owned());
            status.reason = status.reason.as_deref().map(|reason| addressed(reason).into_owned());
        }
    }
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
    if report.users.is_empty() && is_silent(args.format, exit) {
        return Ok(exit);
    }
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
    if report.events.is_empty() && is_silent(args.show.format, exit) {
        return Ok(exit);
    }
    write_out(|out| output::events(out, &report, Look::of_stdout(args.show.format)))?;
    Ok(exit)
}

/// Whether a table with nothing in it is not shown: after an error "no users" would be a claim.
fn is_silent(format: Format, exit: Exit) -> bool {
    format == Format::Table && exit != Exit::Done
}

fn begin(context: &Context, args: &ShowArgs) -> Result<(Config, Vec<ConnectorName>), CommandError> {
    let config = context.config_without_secrets()?;
    logging::start(&config.log, Who::Command, context.verbose);
    let names = chosen(&config, &args.names)?;
    may_look(&config.state_dir)?;
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

fn stored_status(config: &Config, name: &ConnectorName) -> Result<ConnectorStatus, StateError> {
    if let Some(removed) = state::removed(&config.state_dir, name) {
        let reason = wording::removed_reason(removed.at);
        return Ok(ConnectorStatus {
            action: Some(wording::removed_action(name, !removed.left.is_empty())),
            ..ConnectorStatus::unknown(name.as_str(), ConnectorState::Removed, Some(reason))
        });
    }
    let failed = |source| StateError::Sql {
        path: config.state_dir.join(format!("{name}.db")),
        source,
        system: None,
    };
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
