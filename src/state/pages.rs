//! Users and events a page at a time, for who looks at many of them. A page reads into memory what it shows and nothing else; what
//! walks over all users (how many have no match in the directory, which statuses there are) is counted again only when
//! something was written.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params_from_iter};

use super::shown::{read_event, read_user};
use super::{Sql, Store, instant, stored};
use crate::model::EmailKey;
use crate::view::{AccountStanding, Directory, EventKind, EventView, UserDetail, UserView};

/// By what users are sorted. The e-mail decides between equals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserOrder {
    /// The folded e-mail.
    #[default]
    Email,
    /// Torq's status.
    Status,
    /// Through SSO or local.
    Sso,
    /// The name of the role, or its id.
    Role,
    /// Where the account stands.
    Account,
    /// The last login; never comes first.
    LastLogin,
    /// Since when the user is known.
    FirstSeen,
}

/// Which users are wanted: all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSelection {
    /// Part of the e-mail, in any case, or of the id.
    pub search: Option<String>,
    /// Where the account stands.
    pub account: Option<AccountStanding>,
    /// Torq's status, in any case.
    pub status: Option<String>,
    /// Through SSO, or local.
    pub sso: Option<bool>,
    /// Only who was looked for in the directory and not found.
    pub unmatched: bool,
    /// Only who did not log in since; of whom never did, who was created before.
    pub dormant_since: Option<Timestamp>,
}

impl UserSelection {
    /// Users who are not known to be anybody of the JumpCloud directory.
    pub fn unmatched() -> Self {
        Self {
            unmatched: true,
            ..Self::default()
        }
    }

    /// Users who did not log in since.
    pub fn dormant(since: Timestamp) -> Self {
        Self {
            dormant_since: Some(since),
            ..Self::default()
        }
    }

    /// So many days before a moment.
    pub fn days_before(at: Timestamp, days: u32) -> Timestamp {
        let hours = SignedDuration::from_hours(24 * i64::from(days));
        at.checked_sub(hours).unwrap_or(Timestamp::MIN)
    }

    /// Users who were invited and have not accepted yet.
    pub fn invited() -> Self {
        Self {
            status: Some(INVITED.to_owned()),
            ..Self::default()
        }
    }
}

/// Torq's status of somebody who was invited and has not accepted yet.
pub const INVITED: &str = "INVITATION_SENT";

/// A page of users.
#[derive(Clone, Debug, Default)]
pub struct UserPageQuery {
    /// Which users.
    pub selection: UserSelection,
    /// By what they are sorted.
    pub order: UserOrder,
    /// The greatest first.
    pub descending: bool,
    /// How many come before the page.
    pub offset: u64,
    /// How many the page has at most.
    pub limit: u32,
}

/// What a page of users shows.
#[derive(Clone, Debug, Default)]
pub struct UserPage {
    /// The users of the page.
    pub users: Vec<PageUser>,
    /// How many there are on all pages.
    pub total: u64,
}

/// A user on a page.
#[derive(Clone, Debug)]
pub struct PageUser {
    /// The user.
    pub user: UserView,
    /// Whether the directory knows somebody with the user's e-mail.
    pub directory: Directory,
}

/// What is counted over all users besides the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Who was looked for in the directory and not found.
    pub unmatched: u64,
    /// Users through SSO.
    pub sso: u64,
    /// Users by Torq's status.
    pub statuses: BTreeMap<String, u64>,
}

/// Which events are wanted, newest first.
#[derive(Clone, Debug, Default)]
pub struct EventPageQuery {
    /// Only of this kind.
    pub kind: Option<EventKind>,
    /// Only about this Torq id, or an e-mail that contains this text.
    pub user: Option<String>,
    /// Only about this Torq id.
    pub user_id: Option<String>,
    /// Only from this moment on.
    pub since: Option<Timestamp>,
    /// Only those before the event with this number, by time.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// A page of events, newest first.
#[derive(Clone, Debug, Default)]
pub struct EventPage {
    /// The events.
    pub events: Vec<EventView>,
    /// The `before` of the next page; `None` on the last.
    pub next: Option<i64>,
}

/// Conditions and the values that belong to them.
#[derive(Default)]
struct Conditions {
    sql: Vec<&'static str>,
    values: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, sql: &'static str, values: impl IntoIterator<Item = Value>) {
        self.sql.push(sql);
        self.values.extend(values);
    }

    fn joined(&self) -> String {
        if self.sql.is_empty() {
            return "1".to_owned();
        }
        self.sql.join(" AND ")
    }
}

/// In the directory there is nobody with the user's e-mail, as far as it was asked.
const UNMATCHED: &str = "EXISTS (SELECT 1 FROM accounts m WHERE m.email_key = s.email_key AND m.matched_at IS NOT NULL
      AND m.match_id IS NULL AND m.directory_user_id IS NULL)";

/// The last sign of life is older than a moment: the last login; of whom never logged in, that they were made.
const DORMANT: &str = "unixepoch(coalesce(s.last_login, s.created, s.first_seen)) < ?";

/// Whether selecting looks at the account of each user, which takes ten times as long as looking at the user.
fn joins(selection: &UserSelection) -> bool {
    selection.account.is_some() || selection.unmatched
}

/// Kinds of which there are few: those of the index `events_by_kind`, word by word, or SQLite does not take it.
const RARE: &str =
    "kind NOT IN ('user_appeared', 'user_changed', 'account_created', 'account_found', 'account_associated')";

fn is_rare(kind: EventKind) -> bool {
    !matches!(
        kind,
        EventKind::UserAppeared
            | EventKind::UserChanged
            | EventKind::AccountCreated
            | EventKind::AccountFound
            | EventKind::AccountAssociated
    )
}

/// Whose page this is, and how many there are: users alone where that is enough, for joining costs more than reading.
fn selected(selection: &UserSelection) -> (&'static str, Conditions) {
    let mut conditions = Conditions::default();
    let from = match selection.account {
        Some(account) => {
            conditions.add("s.account = ?", [Value::from(account.as_str().to_owned())]);
            "standing s"
        }
        None => {
            conditions.add("s.removed_at IS NULL", []);
            "users s"
        }
    };
    if let Some(search) = &selection.search {
        let folded = EmailKey::fold(search).as_str().to_owned();
        conditions.add(
            "(instr(s.email_key, ?) > 0 OR instr(s.id, ?) > 0)",
            [folded.into(), search.trim().to_owned().into()],
        );
    }
    if let Some(status) = &selection.status {
        conditions.add("s.status = ? COLLATE NOCASE", [status.clone().into()]);
    }
    if let Some(sso) = selection.sso {
        conditions.add("s.sso = ?", [i64::from(sso).into()]);
    }
    if selection.unmatched {
        conditions.add(UNMATCHED, []);
    }
    if let Some(since) = selection.dormant_since {
        conditions.add(DORMANT, [since.as_second().into()]);
    }
    (from, conditions)
}

/// By e-mail, everybody is read from the index, as far as the page. Of selected ones it would lead to each user's row by itself,
/// which takes ten times as long as reading all rows in their order; the plus keeps SQLite from it.
fn order_by(order: UserOrder, descending: bool, everybody: bool) -> &'static str {
    match (order, descending) {
        (UserOrder::Email, false) if everybody => "s.email_key, s.no",
        (UserOrder::Email, true) if everybody => "s.email_key DESC, s.no DESC",
        (UserOrder::Email, false) => "+s.email_key, s.no",
        (UserOrder::Email, true) => "+s.email_key DESC, s.no DESC",
        (UserOrder::Status, false) => "s.status, s.email_key, s.no",
        (UserOrder::Status, true) => "s.status DESC, s.email_key, s.no",
        (UserOrder::Sso, false) => "s.sso, s.email_key, s.no",
        (UserOrder::Sso, true) => "s.sso DESC, s.email_key, s.no",
        (UserOrder::Role, false) => {
            "coalesce((SELECT name FROM roles r WHERE r.id = s.role_id), s.role_id), s.email_key, s.no"
        }
        (UserOrder::Role, true) => {
            "coalesce((SELECT name FROM roles r WHERE r.id = s.role_id), s.role_id) DESC, s.email_key, s.no"
        }
        (UserOrder::Account, false) => "s.account, s.email_key, s.no",
        (UserOrder::Account, true) => "s.account DESC, s.email_key, s.no",
        (UserOrder::LastLogin, false) => "s.last_login, s.email_key, s.no",
        (UserOrder::LastLogin, true) => "s.last_login DESC, s.email_key, s.no",
        (UserOrder::FirstSeen, false) => "s.first_seen, s.email_key, s.no",
        (UserOrder::FirstSeen, true) => "s.first_seen DESC, s.email_key, s.no",
    }
}

/// The same page counted from the end, where that is nearer; whether it then comes backwards. Only by e-mail, where the index
/// leads to it and what comes before is skipped one by one; the other orders read everybody in any case.
fn from_the_nearer_end(query: &UserPageQuery, total: u64) -> (UserPageQuery, bool) {
    let end = query.offset.saturating_add(query.limit.into()).min(total);
    if query.order != UserOrder::Email || query.offset <= total / 2 || query.offset >= total {
        return (query.clone(), false);
    }
    let turned = UserPageQuery {
        descending: !query.descending,
        offset: total - end,
        limit: u32::try_from(end - query.offset).unwrap_or(query.limit),
        ..query.clone()
    };
    (turned, true)
}

/// The statement that finds the numbers of a page's users.
fn page_sql(query: &UserPageQuery, columns: &str) -> (String, Vec<Value>) {
    let (mut from, conditions) = selected(&query.selection);
    if query.order == UserOrder::Account && query.selection.account.is_none() {
        from = "(SELECT *, NULL AS removed_at FROM standing) s";
    }
    let sql = format!(
        "SELECT {columns} FROM {from} WHERE {} ORDER BY {} LIMIT ? OFFSET ?",
        conditions.joined(),
        order_by(
            query.order,
            query.descending,
            query.selection == UserSelection::default()
        )
    );
    let mut values = conditions.values;
    let offset = i64::try_from(query.offset).unwrap_or(i64::MAX);
    values.extend([i64::from(query.limit).into(), offset.into()]);
    (sql, values)
}

/// The statement that finds a page's events, and one more to know whether there is a further page.
fn events_sql(query: &EventPageQuery) -> (String, Vec<Value>) {
    let mut conditions = Conditions::default();
    if let Some(kind) = query.kind {
        conditions.add("kind = ?", [kind.as_str().to_owned().into()]);
        if is_rare(kind) {
            conditions.add(RARE, []);
        }
    }
    if let Some(id) = &query.user_id {
        conditions.add("user_id = ?", [id.clone().into()]);
    }
    if let Some(user) = &query.user {
        let user = user.trim().to_owned();
        conditions.add(
            "(user_id = ? OR instr(lower(email), lower(?)) > 0)",
            [user.clone().into(), user.into()],
        );
    }
    if let Some(since) = query.since {
        conditions.add("at >= ?", [stored(since).into()]);
    }
    if let Some(before) = query.before {
        // The time alone finds the place in the index; the number decides among what happened at once.
        conditions.add(
            "at <= (SELECT at FROM events WHERE no = ?) AND (at < (SELECT at FROM events WHERE no = ?) OR no < ?)",
            [before.into(), before.into(), before.into()],
        );
    }
    let sql = format!(
        "SELECT at, run, kind, user_id, email, before, after, reason, no FROM events
         WHERE {} ORDER BY at DESC, no DESC LIMIT ?",
        conditions.joined()
    );
    let mut values = conditions.values;
    values.push((i64::from(query.limit) + 1).into());
    (sql, values)
}

impl Store {
    /// A page of the users who are not removed.
    pub fn user_page(&mut self, query: &UserPageQuery) -> Sql<UserPage> {
        let (total, numbers) = if joins(&query.selection) {
            self.counted_page(query)?
        } else {
            let total = self.total(&query.selection)?;
            let (turned, back) = from_the_nearer_end(query, total);
            let (sql, values) = page_sql(&turned, "s.no");
            let mut statement = self.db.prepare_cached(&sql)?;
            let numbers = statement.query_map(params_from_iter(values), |row| row.get(0))?;
            let mut numbers: Vec<i64> = numbers.collect::<Sql<_>>()?;
            if back {
                numbers.reverse();
            }
            (total, numbers)
        };
        let mut users = Vec::with_capacity(numbers.len());
        for no in numbers {
            users.push(self.page_user(no)?);
        }
        Ok(UserPage { users, total })
    }

    /// All who are selected, in the order of their e-mails.
    pub fn selected_users(&mut self, selection: UserSelection) -> Sql<Vec<PageUser>> {
        let query = UserPageQuery {
            selection,
            limit: u32::MAX,
            ..UserPageQuery::default()
        };
        Ok(self.user_page(&query)?.users)
    }

    /// Whether somebody with these times is dormant: the same that [`UserSelection::dormant`] selects, of people of the past, too.
    pub fn is_dormant(
        &self,
        (last_login, created, first_seen): (Option<&str>, Option<&str>, Option<Timestamp>),
        since: Timestamp,
    ) -> Sql<bool> {
        self.db
            .prepare_cached(&format!(
                "SELECT coalesce({DORMANT}, 0) FROM (SELECT ?2 AS last_login, ?3 AS created, ?4 AS first_seen) s"
            ))?
            .query_row(
                rusqlite::params![since.as_second(), last_login, created, first_seen.map(stored)],
                |row| row.get(0),
            )
    }

    /// How many are selected.
    fn total(&mut self, selection: &UserSelection) -> Sql<u64> {
        if *selection == UserSelection::default() {
            return Ok(self.counts()?.users);
        }
        let (from, conditions) = selected(selection);
        let sql = format!("SELECT count(*) FROM {from} WHERE {}", conditions.joined());
        let mut statement = self.db.prepare_cached(&sql)?;
        statement.query_row(params_from_iter(conditions.values), |row| row.get(0))
    }

    /// How many are selected, and the numbers of those on the page, in one walk over all users.
    fn counted_page(&mut self, query: &UserPageQuery) -> Sql<(u64, Vec<i64>)> {
        let (sql, values) = page_sql(query, "s.no, count(*) OVER ()");
        let found: Vec<(i64, u64)> = self
            .db
            .prepare_cached(&sql)?
            .query_map(params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Sql<_>>()?;
        let total = match found.first() {
            Some((_, total)) => *total,
            // Behind the last page there is no row to say it.
            None if query.offset > 0 => self.total(&query.selection)?,
            None => 0,
        };
        Ok((total, found.into_iter().map(|(no, _)| no).collect()))
    }

    fn page_user(&self, no: i64) -> Sql<PageUser> {
        self.db
            .prepare_cached(
                "SELECT s.id, s.email, s.status, s.sso, s.role_id, r.name, s.created, s.last_login, s.first_seen, s.account,
                        s.account_id, s.directory_user_id, s.reason, a.match_id, a.matched_at
                 FROM standing s LEFT JOIN roles r ON r.id = s.role_id LEFT JOIN accounts a ON a.email_key = s.email_key
                 WHERE s.no = ?1",
            )?
            .query_row([no], |row| {
                let user = read_user(&self.name, row)?;
                let directory = Directory::of(user.directory_user_id.clone(), row.get(13)?, instant(row.get(14)?));
                Ok(PageUser { user, directory })
            })
    }

    /// Everything known about one user, who may be removed; `None` for an id that no poll ever saw.
    pub fn user(&self, id: &str) -> Sql<Option<UserDetail>> {
        let known: Option<(i64, Option<String>)> = self
            .db
            .prepare_cached("SELECT no, removed_at FROM users WHERE id = ?1")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((no, removed_at)) = known else {
            return Ok(None);
        };
        if removed_at.is_none() {
            let PageUser { user, directory } = self.page_user(no)?;
            let sharing = self.sharing(no)?;
            return Ok(Some(UserDetail {
                user,
                directory,
                removed_at: None,
                sharing,
            }));
        }
        // Of a removed user the record stays; what JumpCloud has belongs to whoever has the e-mail now.
        let user = self.db.query_row(
            "SELECT u.id, u.email, u.status, u.sso, u.role_id, r.name, u.created, u.last_login, u.first_seen, 'pending',
                    NULL, NULL, NULL
             FROM users u LEFT JOIN roles r ON r.id = u.role_id WHERE u.no = ?1",
            [no],
            |row| read_user(&self.name, row),
        )?;
        Ok(Some(UserDetail {
            user,
            directory: Directory::Unasked,
            removed_at: instant(removed_at),
            sharing: Vec::new(),
        }))
    }

    /// The ids of the other users with the same e-mail, who share its account: the first few.
    fn sharing(&self, no: i64) -> Sql<Vec<String>> {
        self.db
            .prepare_cached(
                "SELECT o.id FROM users u JOIN users o ON o.email_key = u.email_key AND o.no <> u.no
                 WHERE u.no = ?1 AND u.email_key <> '' AND o.removed_at IS NULL ORDER BY o.no LIMIT 20",
            )?
            .query_map([no], |row| row.get(0))?
            .collect()
    }

    /// What is counted over all users besides the status.
    pub fn survey(&mut self) -> Sql<Survey> {
        let version = self.version();
        if let Some((at, survey)) = &self.surveyed
            && *at == version
            && !self.only_looks()?
        {
            return Ok(survey.clone());
        }
        let mut survey = Survey::default();
        {
            let mut statement = self.db.prepare_cached(&format!(
                "SELECT s.status, s.sso, {UNMATCHED} FROM users s WHERE s.removed_at IS NULL"
            ))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let status = row.get_ref(0)?.as_str()?;
                match survey.statuses.get_mut(status) {
                    Some(count) => *count += 1,
                    None => {
                        survey.statuses.insert(status.to_owned(), 1);
                    }
                }
                survey.sso += u64::from(row.get::<_, bool>(1)?);
                survey.unmatched += u64::from(row.get::<_, bool>(2)?);
            }
        }
        self.surveyed = Some((version, survey.clone()));
        Ok(survey)
    }

    /// A page of events, newest first.
    pub fn event_page(&self, query: &EventPageQuery) -> Sql<EventPage> {
        let (sql, values) = events_sql(query);
        let mut found: Vec<(EventView, i64)> = self
            .db
            .prepare_cached(&sql)?
            .query_map(params_from_iter(values), |row| {
                Ok((read_event(&self.name, row)?, row.get(8)?))
            })?
            .collect::<Sql<_>>()?;
        let more = found.len() > query.limit as usize;
        found.truncate(query.limit as usize);
        let next = found.last().map(|(_, no)| *no).filter(|_| more);
        let events = found.into_iter().map(|(event, _)| event).collect();
        Ok(EventPage { events, next })
    }

    /// The names of roles by their ids.
    pub fn roles(&self) -> Sql<BTreeMap<String, String>> {
        self.db
            .prepare_cached("SELECT id, name FROM roles")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    }
}

#[cfg(test)]
mod tests;
