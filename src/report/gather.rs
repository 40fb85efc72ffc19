//! What a state says to a question.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::{Difference, InDirectory, Kind, OnlyIn, Part, Question, ReportUser, Rows, fresh, idle_since};
use crate::model::EmailKey;
use crate::state::{EventQuery, Horizon, INVITED, Origin, PastUser, Sql, Store, UserSelection};
use crate::sync::Listed;
use crate::view::{AccountStanding, EventKind, EventView};
use crate::wording::{self, counted, moment};

/// What is reported of a change: everything that happened to people and accounts.
const CHANGES: [EventKind; 12] = [
    EventKind::UserAppeared,
    EventKind::UserChanged,
    EventKind::UserDisappeared,
    EventKind::AccountCreated,
    EventKind::AccountFound,
    EventKind::AccountAssociated,
    EventKind::AccountDeleted,
    EventKind::AccountLost,
    EventKind::AccountRefused,
    EventKind::RemovalHeld,
    EventKind::RemovalApproved,
    EventKind::RemovalDropped,
];

/// Who of the users the question is about, as of now or of the past. `interval`: how often the connector polls.
pub fn people(store: &mut Store, question: &Question, interval: Duration) -> Sql<(Part, Rows)> {
    let (mut part, _) = begun(store, question, interval)?;
    if part.error.is_some() {
        return Ok((part, Rows::none(question.kind)));
    }
    let users = match question.at {
        Some(at) => past(store, question, at, &mut part)?,
        None => present(store, question, &mut part)?,
    };
    note_roles(&users, &mut part);
    Ok((part, Rows::Users(in_order(question.kind, users))))
}

fn begun(store: &Store, question: &Question, interval: Duration) -> Sql<(Part, Horizon)> {
    let about = store.about()?;
    let horizon = store.past_horizon()?;
    let mut part = Part {
        name: store.name().to_string(),
        as_of: fresh::as_of(question, about.read_at),
        last_read: about.read_at,
        directory_asked: None,
        rows: 0,
        users: None,
        error: None,
        notes: Vec::new(),
    };
    match (question.at, horizon.earliest()) {
        (Some(at), earliest) if earliest.is_none_or(|earliest| at < earliest) => {
            part.error = Some(not_known(at, &horizon).into());
        }
        (None, None) => {
            part.notes.push(fresh::NOT_COMPLETE.into());
        }
        _ => {}
    }
    if part.error.is_none() {
        part.notes.extend(fresh::notes(store, question, interval)?);
    }
    Ok((part, horizon))
}

/// Why nobody knows how it was at a moment, and what can be asked instead.
fn not_known(at: Timestamp, horizon: &Horizon) -> String {
    let asked = moment(at);
    match (horizon.collected, horizon.kept) {
        (None, _) => "nothing is known of the past yet: the first collection is not complete".to_owned(),
        (Some(collected), kept) if kept.is_none_or(|kept| kept <= collected) => format!(
            "who had access at {asked} is not known: the first collection was complete at {}; ask for that time or a later one",
            moment(collected)
        ),
        (_, kept) => format!(
            "who had access at {asked} is not known any more: events are kept since {}; ask for a later time, and export reports \
             that must outlive the retention",
            kept.map(moment).unwrap_or_default()
        ),
    }
}

fn note_roles(users: &[ReportUser], part: &mut Part) {
    let nameless: HashSet<&str> = users
        .iter()
        .filter(|user| user.role.is_none())
        .filter_map(|user| user.role_id.as_deref().filter(|id| !id.is_empty()))
        .collect();
    if !nameless.is_empty() {
        part.note(format!(
            "of {} only the id is known: the role of the API key may not list roles, or they were made since the names were last read, \
             which is done once a day",
            counted(nameless.len() as u64, "role")
        ));
    }
}

fn present(store: &mut Store, question: &Question, part: &mut Part) -> Sql<Vec<ReportUser>> {
    let since = UserSelection::days_before(question.now, question.days);
    let selection = match question.kind {
        Kind::Unmatched => UserSelection::unmatched(),
        Kind::Dormant => UserSelection::dormant(since),
        Kind::PendingInvitations => UserSelection::invited(),
        // Everybody.
        _ => UserSelection::default(),
    };
    let rows = store.selected_users(selection)?;
    let status = store.status()?;
    part.users = Some(status.users);
    part.directory_asked = store.directory_asked()?;
    part.notes
        .extend(fresh::of_directory(store, question.kind == Kind::Unmatched)?);
    if status.held > 0 {
        part.note(format!(
            "{} waiting for approval: their users count until then",
            counted(status.held, "removal")
        ));
    }
    if question.kind == Kind::Unmatched {
        let unasked = store.unasked()?;
        if unasked > 0 {
            part.note(format!(
                "of {} the directory was not asked yet; they are not listed",
                counted(unasked, "user")
            ));
        }
    }
    let rows = rows
        .into_iter()
        .map(|row| ReportUser::present(row.user, &row.directory));
    Ok(rows.collect())
}

fn past(store: &mut Store, question: &Question, at: Timestamp, part: &mut Part) -> Sql<Vec<ReportUser>> {
    let roles = store.roles()?;
    let past = store.users_at(at)?;
    part.users = Some(past.users.len() as u64);
    if past.unknown > 0 {
        part.note(format!(
            "of {} not everything is known any more, and what is not is left empty",
            counted(past.unknown, "user")
        ));
    }
    let held = store.held_at(at)?;
    if !held.surely.is_empty() {
        part.note(format!(
            "{} waiting for approval at that time: their users count",
            counted(held.surely.len() as u64, "removal")
        ));
    }
    if !held.perhaps.is_empty() {
        part.note(format!(
            "of {} whose removal had been held, it is not known whether they were back by then: they count",
            counted(held.perhaps.len() as u64, "user")
        ));
    }
    let erased = store.erased_since(at)?;
    if erased > 0 {
        part.note(format!(
            "{} forgotten since, as somebody asked for: whether they were there is not known",
            if erased == 1 {
                "1 person was".to_owned()
            } else {
                format!("{erased} people were")
            }
        ));
    }
    let since = UserSelection::days_before(at, question.days);
    let mut rows = Vec::new();
    for user in past.users {
        let wanted = match question.kind {
            Kind::Dormant => {
                let times = (user.last_login.as_deref(), user.created.as_deref(), user.first_seen);
                store.is_dormant(times, since)?
            }
            Kind::PendingInvitations => user
                .status
                .as_ref()
                .is_some_and(|status| status.eq_ignore_ascii_case(INVITED)),
            _ => true,
        };
        if wanted {
            rows.push(past_user(&part.name, user, &roles));
        }
    }
    Ok(rows)
}

fn past_user(connector: &str, user: PastUser, roles: &BTreeMap<String, String>) -> ReportUser {
    let account = user.account.unwrap_or_default();
    let standing = |origin| match origin {
        Origin::Created => AccountStanding::Created,
        Origin::Found => AccountStanding::Found,
    };
    ReportUser {
        connector: connector.to_owned(),
        idle_since: idle_since(user.last_login.as_deref(), user.created.as_deref(), user.first_seen),
        id: user.id,
        email: user.email,
        status: user.status,
        sso: user.sso,
        role: user.role_id.as_ref().and_then(|id| roles.get(id)).cloned(),
        role_id: user.role_id,
        created: user.created,
        last_login: user.last_login,
        first_seen: user.first_seen,
        account: account.origin.map(standing),
        directory: account.directory_user_id.as_ref().map(|_| InDirectory::Associated),
        account_id: account.id,
        directory_user_id: account.directory_user_id,
        reason: None,
    }
}

/// Whoever has waited longest comes first, where waiting is what the report is about.
fn in_order(kind: Kind, mut users: Vec<ReportUser>) -> Vec<ReportUser> {
    if matches!(kind, Kind::Dormant | Kind::PendingInvitations) {
        users.sort_by_cached_key(|user| {
            let idle = user.idle_since.as_deref();
            idle.and_then(|idle| idle.parse::<Timestamp>().ok())
                .unwrap_or(Timestamp::MIN)
        });
    }
    users
}

/// What happened to users and accounts within a time.
pub fn changes(store: &mut Store, question: &Question, interval: Duration) -> Sql<(Part, Rows)> {
    let (mut part, horizon) = begun(store, question, interval)?;
    let query = EventQuery {
        since: question.since,
        until: question.until,
        kinds: CHANGES.to_vec(),
        ..EventQuery::default()
    };
    if let Some(kept) = horizon.kept
        && question.since.is_none_or(|since| since < kept)
    {
        part.note(format!(
            "events are kept since {}: what changed before is not told",
            moment(kept)
        ));
    }
    let all = store.events(&query)?;
    let found = all.len();
    let mut events: Vec<EventView> = all.into_iter().filter(|event| !is_login(event)).collect();
    if found > events.len() {
        part.note(format!(
            "{} left out: torq-connector events {} --kind user_changed has them",
            counted((found - events.len()) as u64, "login"),
            part.name
        ));
    }
    wording::name_roles(&mut events, &store.roles()?);
    Ok((part, Rows::Changes(events)))
}

/// Whether all that changed is when somebody last logged in.
fn is_login(event: &EventView) -> bool {
    let fields = event.after.as_ref().and_then(Value::as_object);
    event.kind == EventKind::UserChanged && fields.is_some_and(|fields| fields.keys().all(|name| name == "last_login"))
}

/// What JumpCloud has and Torq has not, and the reverse: its accounts as they have just been read, and the users as they are known.
pub fn differences(store: &mut Store, question: &Question, interval: Duration, there: Listed) -> Sql<(Part, Rows)> {
    let (mut part, _) = begun(store, question, interval)?;
    let users = store.users()?;
    part.users = Some(users.len() as u64);
    let accounts = match there.accounts {
        Some(accounts) => accounts,
        None => {
            part.note("JumpCloud has no such application yet; the first delivery creates it");
            Vec::new()
        }
    };
    if there.unread > 0 {
        part.note(format!(
            "{} in JumpCloud cannot be read, and may be anybody's",
            counted(there.unread, "account")
        ));
    }
    let connector = part.name.clone();
    let here: HashSet<EmailKey> = users.iter().map(|user| EmailKey::fold(&user.email)).collect();
    let known: HashMap<_, _> = store.known_accounts()?.into_iter().collect();
    let removed: HashMap<EmailKey, Timestamp> = store.removed_emails()?.into_iter().collect();
    let mut rows = Vec::new();
    let mut has_account: HashSet<EmailKey> = HashSet::new();
    for account in accounts {
        let names = [&account.email, &account.username].into_iter().flatten();
        let keys: Vec<EmailKey> = names
            .map(|name| EmailKey::fold(name))
            .filter(|key| !key.is_empty())
            .collect();
        has_account.extend(keys.iter().cloned());
        if keys.iter().any(|key| here.contains(key)) {
            continue;
        }
        let removed_at = keys.iter().find_map(|key| removed.get(key)).copied();
        rows.push(Difference {
            connector: connector.clone(),
            only_in: OnlyIn::Jumpcloud,
            email: account.email.clone().or(account.username.clone()),
            user_id: None,
            account: None,
            directory_user_id: account.directory_user().map(|id| id.to_string()),
            origin: known.get(&account.id).copied(),
            account_id: Some(account.id.to_string()),
            removed_at,
            reason: Some(match removed_at {
                Some(at) => format!("removed from Torq on {}", moment(at)),
                None => "nobody in Torq has this e-mail".to_owned(),
            }),
        });
    }
    rows.sort_by_cached_key(|row| row.email.as_deref().map(EmailKey::fold));
    for user in users {
        if has_account.contains(&EmailKey::fold(&user.email)) {
            continue;
        }
        let reason = user.reason.or(match user.account {
            AccountStanding::Pending => Some("the account is still to be created".to_owned()),
            AccountStanding::Created | AccountStanding::Found => {
                Some("the account is not there any more; the next run creates it again".to_owned())
            }
            _ => None,
        });
        rows.push(Difference {
            connector: connector.clone(),
            only_in: OnlyIn::Torq,
            email: Some(user.email),
            user_id: Some(user.id),
            account: Some(user.account),
            account_id: None,
            directory_user_id: None,
            origin: None,
            removed_at: None,
            reason,
        });
    }
    Ok((part, Rows::Differences(rows)))
}
