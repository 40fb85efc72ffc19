//! `users`, `events`: what is known, from the states, which may be looked at beside whoever writes them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Args, Command};
use jiff::Timestamp;

use super::output::{self, Format, Look};
use super::pager::write_paged;
use super::reach;
use super::sync::removed_words;
use super::when::{in_order, parse_days, parse_since, parse_until};
use super::{CommandError, Context, Exit, ShowArgs, tell};
use crate::model::ConnectorName;
use crate::report::{Note, fresh};
use crate::state::{self, EventQuery, Store, UserSelection};
use crate::view::{AccountStanding, EventKind, EventsReport, UsersReport};
use crate::wording::{self, printable};

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
    #[arg(long, value_name = "DAYS", value_parser = parse_days, allow_hyphen_values = true)]
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
    #[arg(long, value_name = "WHEN", value_parser = parse_since, allow_hyphen_values = true)]
    since: Option<Timestamp>,
    /// Only what happened up to this: a time, a day (its end, UTC) or an age.
    #[arg(long, value_name = "WHEN", value_parser = parse_until, allow_hyphen_values = true)]
    until: Option<Timestamp>,
    /// Only about this user: an e-mail (or a part of one), or a Torq id.
    #[arg(long, value_name = "TEXT")]
    user: Option<String>,
    /// Only of this kind, such as user_appeared; several with commas between.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = Kind, hide_possible_values = true)]
    kind: Vec<EventKind>,
    /// Only the latest so many, from 1 on.
    #[arg(long, value_name = "N", value_parser = parse_limit, allow_hyphen_values = true)]
    limit: Option<u32>,
    /// Do not use a pager.
    #[arg(long)]
    no_pager: bool,
}

fn parse_limit(text: &str) -> Result<u32, String> {
    let limit = text.parse().ok().filter(|limit| *limit > 0);
    limit.ok_or_else(|| "give a number from 1 on; without --limit there are all of them".to_owned())
}

fn standing() -> impl TypedValueParser<Value = AccountStanding> {
    let names = PossibleValuesParser::new(AccountStanding::ALL.map(AccountStanding::as_str));
    names.map(|name| AccountStanding::parse(&name).unwrap_or(AccountStanding::Pending))
}

/// One kind of a list.
#[derive(Clone)]
struct Kind;

impl TypedValueParser for Kind {
    type Value = EventKind;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<EventKind, clap::Error> {
        if value.is_empty() {
            let words = "--kind: there is nothing before or after a comma, or no kind at all; give one or more, such as \
                         user_appeared,user_changed";
            return Err(command.clone().error(ErrorKind::InvalidValue, words));
        }
        kind().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values: Vec<_> = kind().possible_values()?.collect();
        Some(Box::new(values.into_iter()))
    }
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
    let seen = begin(&context, &args.show)?;
    let selection = args.selection(Timestamp::now());
    let everyone = selection == UserSelection::default();
    let mut stale = Stale::among(&seen.names);
    let mut report = UsersReport { users: Vec::new() };
    let mut among = Among::default();
    let exit = for_each(&seen, |store, interval| {
        stale.add(store, interval)?;
        if store.past_horizon()?.collected.is_none() {
            stale.note(store, fresh::NOT_COMPLETE.into());
        }
        if args.unmatched
            && let Some(note) = fresh::of_directory(store, true)?
        {
            stale.note(store, note);
        }
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
    stale.tell();
    Ok(exit)
}

/// Why what is shown may be old, connector by connector: told beside it, and never within.
struct Stale {
    several: bool,
    notes: Vec<String>,
}

impl Stale {
    fn among(names: &[ConnectorName]) -> Self {
        Self {
            several: names.len() > 1,
            notes: Vec::new(),
        }
    }

    fn add(&mut self, store: &Store, interval: Duration) -> state::Sql<()> {
        for note in fresh::now(store, Timestamp::now(), interval)? {
            self.note(store, note);
        }
        Ok(())
    }

    fn note(&mut self, store: &Store, note: Note) {
        let whose = if self.several {
            format!("{}: ", store.name())
        } else {
            String::new()
        };
        self.notes.push(format!("note: {whose}{}", printable(note.words())));
    }

    fn tell(&self) {
        for note in &self.notes {
            tell(note);
        }
    }
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
    let seen = begin(&context, &args.show)?;
    in_order(args.since, args.until)?;
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
    let mut stale = Stale::among(&seen.names);
    let exit = for_each(&seen, |store, interval| {
        stale.add(store, interval)?;
        let mut history = store.events(&query)?;
        wording::name_roles(&mut history, &store.roles()?);
        histories.push(history);
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
    stale.tell();
    Ok(exit)
}

/// Whether a table with nothing in it is not shown: after an error "no users" would be a claim.
fn is_silent(format: Format, exit: Exit) -> bool {
    format == Format::Table && exit != Exit::Done
}

fn begin(context: &Context, args: &ShowArgs) -> Result<reach::Sight, CommandError> {
    let seen = reach::Sight::at_and_tell(context, &args.names)?;
    reach::may_look(&seen.config.state_dir)?;
    Ok(seen)
}

/// Looks into the state of each connector that has one. What is wrong with one of them is told, and hides no other.
/// `look` gets how often the connector polls, too.
fn for_each(seen: &reach::Sight, mut look: impl FnMut(&mut Store, Duration) -> state::Sql<()>) -> Exit {
    let reach::Sight { config, names, .. } = seen;
    let mut exit = seen.exit;
    for name in names {
        let configured = config.connectors.iter().find(|connector| connector.name == *name);
        let interval = configured.map_or(Duration::MAX, |connector| connector.poll_interval);
        let looked = match state::read(&config.state_dir, name) {
            Ok(Some(mut store)) => look(&mut store, interval)
                .map_err(|error| state::classify(&state::database(&config.state_dir, name), error).to_string()),
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
            exit = exit.or(Exit::Unexpected);
        }
    }
    exit
}
