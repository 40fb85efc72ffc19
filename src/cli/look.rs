//! `status`, `users`, `events`: what is known. From the daemon where one runs, else from the state, which may be looked at
//! beside whoever writes it.

use std::collections::BTreeMap;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::Timestamp;

use super::logging::{self, Who};
use super::output::{self, Format, Look};
use super::pager::write_paged;
use super::reach::{ask_quietly, in_spite_of, may_look};
use super::sync::{chosen, removed_words};
use super::when::{parse_days, parse_since, parse_until};
use super::{CommandError, Context, Exit, ShowArgs, addressed, tell, write_out};
use crate::config::Config;
use crate::daemon::control::{Request, Response};
use crate::model::ConnectorName;
use crate::state::{self, EventQuery, StateError, Store, UserSelection};
use crate::view::{
    AccountStanding, ConnectorState, ConnectorStatus, EventKind, EventsReport, StatusReport, UsersReport,
};
use crate::wording::{self, printable};

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

#[derive(Debug, Args)]
pub(super) struct UsersArgs {
    #[command(flatten)]
    show: ShowArgs,
    /// Only with this status in Torq, such as VERIFIED or INVITATION_SENT.
    #[arg(long)]
    status: Option<String>,
    /// Only whom the JumpCloud directory does not know.
    #[arg(long)]
    unmatched: bool,
    /// Only who did not log in for so many days (90d); of whom never did, who was made so long ago.
    #[arg(long, value_name = "DAYS", value_parser = parse_days)]
    dormant: Option<u32>,
    /// Only about this user: an e-mail (or a part of one), or a Torq id.
    #[arg(long, value_name = "TEXT")]
    user: Option<String>,
    /// Only whose account stands so.
    #[arg(long, value_name = "STANDING", value_parser = standing())]
    account: Option<AccountStanding>,
    /// Only who signs in through SSO.
    #[arg(long, conflicts_with = "local")]
    sso: bool,
    /// Only who does not sign in through SSO.
    #[arg(long)]
    local: bool,
    /// Do not use a pager.
    #[arg(long)]
    no_pager: bool,
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    show: ShowArgs,
    /// Only what happened after this: a time (2026-11-01T08:00:00Z), a day (2026-11-01) or an age (7d, 12h).
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Timestamp>,
    /// Only what happened up to this: a time, a day (its end, UTC) or an age.
    #[arg(long, value_name = "WHEN", value_parser = parse_until)]
    until: Option<Timestamp>,
    /// Only about this user: an e-mail (or a part of one), or a Torq id.
    #[arg(long, value_name = "TEXT")]
    user: Option<String>,
    /// Only of this kind, such as user_appeared; several with commas between.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind(), hide_possible_values = true)]
    kind: Vec<EventKind>,
    /// Only the latest so many.
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Do not use a pager.
    #[arg(long)]
    no_pager: bool,
}

fn standing() -> impl TypedValueParser<Value = AccountStanding> {
    let names = PossibleValuesParser::new(AccountStanding::ALL.map(AccountStanding::as_str));
    names.map(|name| AccountStanding::parse(&name).unwrap_or(AccountStanding::Pending))
}

fn kind() -> impl TypedValueParser<Value = EventKind> {
    let names = PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str));
    names.map(|name| EventKind::parse(&name).unwrap_or(EventKind::StateChanged))
}

impl UsersArgs {
    fn selection(&self, now: Timestamp) -> UserSelection {
        UserSelection {
            search: self.user.clone(),
            account: self.account,
            status: self.status.clone(),
            sso: (self.sso || self.local).then_some(self.sso),
            unmatched: self.unmatched,
            dormant_since: self.dormant.map(|days| UserSelection::days_before(now, days)),
        }
    }
}

pub(super) async fn users(context: Context, args: UsersArgs) -> Result<Exit, CommandError> {
    let (config, names) = begin(&context, &args.show)?;
    let selection = args.selection(Timestamp::now());
    let everyone = selection == UserSelection::default();
    let mut report = UsersReport { users: Vec::new() };
    let mut among = Among::default();
    let exit = for_each(&config, &names, |store| {
        if everyone {
            report.users.extend(store.users()?);
            return Ok(());
        }
        let found = store.selected_users(selection.clone())?;
        report.users.extend(found.into_iter().map(|row| row.user));
        among.add(store)
    });
    if report.users.is_empty() && is_silent(args.show.format, exit) {
        return Ok(exit);
    }
    let look = Look::of_stdout(args.show.format);
    write_paged(look, !args.no_pager, |out| output::users(out, &report, look))?;
    if report.users.is_empty() && !everyone {
        tell(&among.words(args.status.as_deref()));
    }
    Ok(exit)
}

/// Among whom was looked, for whoever finds nobody.
#[derive(Default)]
struct Among {
    statuses: BTreeMap<String, u64>,
    unasked: u64,
}

impl Among {
    fn add(&mut self, store: &mut Store) -> state::Sql<()> {
        for (status, count) in store.survey()?.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.unasked += store.unasked()?;
        Ok(())
    }

    fn words(&self, status: Option<&str>) -> String {
        let users = self.statuses.values().sum();
        let mut words = format!("none of {} is like that", wording::counted(users, "user"));
        let known = |status: &str| self.statuses.keys().any(|known| known.eq_ignore_ascii_case(status));
        if users > 0 && status.is_some_and(|status| !known(status)) {
            let statuses = self.statuses.iter().map(|(name, count)| format!("{name} ({count})"));
            words += &format!("; statuses are {}", statuses.collect::<Vec<_>>().join(", "));
        }
        if self.unasked > 0 {
            words += &format!(
                "; of {} the directory was not asked yet",
                wording::counted(self.unasked, "user")
            );
        }
        printable(&words)
    }
}

pub(super) async fn events(context: Context, args: EventsArgs) -> Result<Exit, CommandError> {
    let (config, names) = begin(&context, &args.show)?;
    if let (Some(since), Some(until)) = (args.since, args.until)
        && since > until
    {
        return Err(CommandError::new(
            Exit::Usage,
            format!("--since ({since}) is after --until ({until}): nothing can have happened"),
        ));
    }
    let query = EventQuery {
        since: args.since,
        until: args.until,
        user: args.user.clone(),
        kinds: args.kind.clone(),
        limit: args.limit,
        ..EventQuery::default()
    };
    let mut histories = Vec::new();
    let mut kept = None;
    let exit = for_each(&config, &names, |store| {
        histories.push(store.events(&query)?);
        kept = kept.max(store.past_horizon()?.kept);
        Ok(())
    });
    let report = EventsReport::merged(histories, args.limit);
    if report.events.is_empty() && is_silent(args.show.format, exit) {
        return Ok(exit);
    }
    let look = Look::of_stdout(args.show.format);
    write_paged(look, !args.no_pager, |out| output::events(out, &report, look))?;
    if let Some(kept) = kept.filter(|kept| args.since.is_none_or(|since| since < *kept)) {
        tell(&format!("events are kept since {}", wording::moment(kept)));
    }
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
