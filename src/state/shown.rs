//! Status, users and events as people see them: queries that fill the shapes of [`crate::view`].

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{Sql, Store, events, instant};
use crate::model::ConnectorName;
use crate::view::{
    AccountStanding, ConnectorState, ConnectorStatus, EventKind, EventView, Progress, RunOutcome, RunSummary, UserView,
};
use crate::wording;

/// What is counted over all users.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) users: u64,
    accounts: u64,
    associated: u64,
    pending: u64,
    parked: u64,
    deletions_parked: u64,
    held: u64,
    accounts_held: u64,
    removed: u64,
    filtered: u64,
    associations_pending: u64,
    deletions_pending: u64,
    leftover: u64,
    /// Removals that are approved and not carried out yet.
    pub(super) approved: u64,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// Only after this moment.
    pub since: Option<Timestamp>,
    /// Only up to this moment.
    pub until: Option<Timestamp>,
    /// Only about users or e-mails that contain this text.
    pub user: Option<String>,
    /// Only these kinds; empty: all.
    pub kinds: Vec<EventKind>,
    /// Only of this run.
    pub run: Option<i64>,
    /// At most so many, the latest.
    pub limit: Option<u32>,
}

impl Store {
    /// The status, as far as the state knows it. `next_poll` is the daemon's to add.
    pub fn status(&mut self) -> Sql<ConnectorStatus> {
        let about = self.about()?;
        let counts = self.counts()?;
        let running = self.run.is_some();
        let progress = self.progress()?;
        // A removal that was begun goes before everything else: nothing is polled or delivered, whatever else was decided.
        let paused = about.paused && about.removing.is_none();
        let state = match about.state {
            _ if about.removing.is_some() => ConnectorState::Removed,
            _ if paused => ConnectorState::Paused,
            ConnectorState::Starting if about.collected && running => ConnectorState::Syncing,
            ConnectorState::Starting if running || progress.is_some() && !about.collected => ConnectorState::Collecting,
            ConnectorState::Connected if running => ConnectorState::Syncing,
            // The run that is going on has got past it; what it meets itself is told by the process that runs.
            ConnectorState::Retrying if running && about.collected => ConnectorState::Syncing,
            ConnectorState::Retrying if running => ConnectorState::Collecting,
            stored => stored,
        };
        let over = match about.state {
            ConnectorState::Retrying => state != ConnectorState::Retrying,
            ConnectorState::Starting => running,
            _ => false,
        };
        let progress = progress.filter(|_| running || state == ConnectorState::Collecting);
        // What happens as soon as it goes on is not to be forgotten over that it rests.
        let approved = match state {
            ConnectorState::Paused => counts.approved + counts.deletions_pending,
            ConnectorState::ReconnectRequired
            | ConnectorState::NotLicensed
            | ConnectorState::Retrying
            | ConnectorState::Starting => counts.approved,
            // There the run that ended has told it.
            _ => 0,
        };
        let reason = match paused {
            true => Some(wording::paused_reason(about.paused_at)),
            false => about.reason.filter(|_| !over),
        };
        let action = match paused {
            true => Some(format!("to go on: torq-connector resume {}", self.name)),
            false => about.action.filter(|_| !over),
        };
        let (reason, action) = if approved > 0 {
            let waits = format!(
                "{} to be carried out when it goes on",
                wording::counted(approved, "removal")
            );
            let withdraw = format!(
                "to take back the approval: torq-connector approve {} --withdraw",
                self.name
            );
            // Whoever lets it go on should know before.
            let (first, then) = match state {
                ConnectorState::Paused | ConnectorState::ReconnectRequired => (Some(withdraw), action),
                _ => (action, Some(withdraw)),
            };
            let joined = |parts: [Option<String>; 2]| Some(parts.into_iter().flatten().collect::<Vec<_>>().join("; "));
            (joined([reason, Some(waits)]), joined([first, then]))
        } else {
            (reason, action)
        };
        Ok(ConnectorStatus {
            name: self.name.to_string(),
            state,
            reason,
            action,
            last_success: about.last_success,
            next_poll: None,
            users: counts.users,
            accounts: counts.accounts,
            associated: counts.associated,
            pending: counts.pending,
            parked: counts.parked,
            deletions_parked: counts.deletions_parked,
            held: counts.held,
            accounts_held: counts.accounts_held,
            removed: counts.removed,
            filtered: counts.filtered,
            associations_pending: counts.associations_pending,
            deletions_pending: counts.deletions_pending,
            leftover: counts.leftover,
            progress,
            last_run: self.last_run()?,
        })
    }

    /// Whether this connection promised to write nothing: then others do, and it does not notice.
    pub(super) fn only_looks(&self) -> Sql<bool> {
        self.db.pragma_query_value(None, "query_only", |row| row.get(0))
    }

    /// Counting walks the snapshot, so it is done again only when something was written.
    pub(super) fn counts(&mut self) -> Sql<Counts> {
        let version = self.version();
        if let Some((at, counts)) = self.counted
            && at == version
            && !self.only_looks()?
        {
            return Ok(counts);
        }
        let mut counts = Counts::default();
        {
            // Added up here: GROUP BY would sort all rows, through a file.
            let mut statement = self
                .db
                .prepare_cached("SELECT account, association_pending FROM standing")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                counts.users += 1;
                counts.associations_pending += u64::from(row.get::<_, bool>(1)?);
                match row.get_ref(0)?.as_str()? {
                    "pending" => counts.pending += 1,
                    "parked" => counts.parked += 1,
                    "held" => counts.held += 1,
                    "filtered" => counts.filtered += 1,
                    _ => {}
                }
            }
        }
        (counts.accounts, counts.associated) = self.db.query_row(
            "SELECT count(account_id), count(directory_user_id) FROM accounts a
             WHERE account_id IS NOT NULL
               AND EXISTS (SELECT 1 FROM users u WHERE u.email_key = a.email_key AND u.removed_at IS NULL)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        counts.removed = self
            .db
            .query_row("SELECT count(*) FROM users WHERE removed_at IS NOT NULL", [], |row| {
                row.get(0)
            })?;
        (counts.accounts_held, counts.approved) = self.db.query_row(
            "SELECT count(*) FILTER (WHERE release = 'held'),
                    count(*) FILTER (WHERE release = 'approved')
                      + (SELECT count(*) FROM users WHERE absent_polls > 0 AND removal = 'approved' AND removed_at IS NULL)
             FROM accounts WHERE release IN ('held', 'approved')",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        counts.held += counts.accounts_held;
        (counts.deletions_pending, counts.deletions_parked) = self.db.query_row(
            "SELECT count(*) FILTER (WHERE refused IS NULL), count(refused) FROM accounts WHERE release = 'due'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        counts.parked += counts.deletions_parked;
        counts.leftover = self.db.query_row(
            "SELECT count(*) FROM accounts a
             WHERE account_id IS NOT NULL AND (release = 'reported' OR (release IS NULL AND origin = 'found'))
               AND NOT EXISTS (SELECT 1 FROM users u WHERE u.email_key = a.email_key AND u.removed_at IS NULL)",
            [],
            |row| row.get(0),
        )?;
        self.counted = Some((version, counts));
        Ok(counts)
    }

    fn progress(&self) -> Sql<Option<Progress>> {
        let poll = self
            .db
            .query_row(
                "SELECT started, (SELECT count(*) FROM poll_pages) FROM poll",
                [],
                |row| Ok((instant(row.get(0)?), row.get(1)?)),
            )
            .optional()?;
        let Some((Some(started), pages)) = poll else {
            return Ok(None);
        };
        let users = match &self.poll {
            Some(memory) => memory.seen_users(),
            // Seen by another process: an upper bound is the snapshot, which during a first collection is what was seen.
            None => self
                .db
                .query_row("SELECT count(*) FROM users WHERE removed_at IS NULL", [], |row| {
                    row.get(0)
                })?,
        };
        Ok(Some(Progress { users, pages, started }))
    }

    fn last_run(&self) -> Sql<Option<RunSummary>> {
        self.db
            .prepare_cached(
                "SELECT started, finished, outcome, appeared, changed, disappeared, created, found, associated, deleted, refused
                 FROM runs WHERE finished IS NOT NULL ORDER BY no DESC LIMIT 1",
            )?
            .query_row([], |row| {
                let outcome: Option<String> = row.get(2)?;
                Ok(RunSummary {
                    started: instant(row.get(0)?).unwrap_or(Timestamp::UNIX_EPOCH),
                    finished: instant(row.get(1)?),
                    outcome: outcome.and_then(|text| RunOutcome::parse(&text)),
                    counts: events::read_counts(row, 3)?,
                })
            })
            .optional()
    }

    /// Everyone who is not removed, in the order of their e-mails.
    pub fn users(&self) -> Sql<Vec<UserView>> {
        self.db
            .prepare_cached(
                "SELECT s.id, s.email, s.status, s.sso, s.role_id, r.name, s.created, s.last_login, s.first_seen, s.account,
                        s.account_id, s.directory_user_id, s.reason
                 FROM standing s LEFT JOIN roles r ON r.id = s.role_id
                 ORDER BY s.email_key, s.no",
            )?
            .query_map([], |row| read_user(&self.name, row))?
            .collect()
    }

    /// Events after the one with this number, oldest first, and the number of the newest.
    pub fn events_after(&self, after: i64) -> Sql<(Vec<EventView>, i64)> {
        let newest: i64 = self
            .db
            .query_row("SELECT coalesce(max(no), 0) FROM events", [], |row| row.get(0))?;
        let mut events = self.events(&EventQuery {
            limit: u32::try_from(newest - after).ok(),
            ..EventQuery::default()
        })?;
        let fresh = usize::try_from(newest - after).unwrap_or_default();
        events.drain(..events.len().saturating_sub(fresh));
        Ok((events, newest))
    }

    /// Events, oldest first; with a limit, the latest of them.
    pub fn events(&self, query: &EventQuery) -> Sql<Vec<EventView>> {
        let kinds = query
            .kinds
            .iter()
            .map(|kind| kind.as_str())
            .collect::<Vec<_>>()
            .join(",");
        let mut found: Vec<EventView> = self
            .db
            .prepare_cached(
                "SELECT at, run, kind, user_id, email, before, after, reason FROM events
                 WHERE (?1 IS NULL OR at > ?1)
                   AND (?6 IS NULL OR at <= ?6)
                   AND (?2 IS NULL OR user_id = ?2 OR instr(lower(email), lower(?2)) > 0)
                   AND (?3 = '' OR instr(',' || ?3 || ',', ',' || kind || ',') > 0)
                   AND (?4 IS NULL OR run = ?4)
                 ORDER BY no DESC LIMIT coalesce(?5, -1)",
            )?
            .query_map(
                params![
                    query.since.map(super::stored),
                    query.user,
                    kinds,
                    query.run,
                    query.limit,
                    query.until.map(super::stored)
                ],
                |row| read_event(&self.name, row),
            )?
            .collect::<Sql<_>>()?;
        found.reverse();
        Ok(found)
    }
}

/// Reads a user: the columns of [`Store::users`].
pub(super) fn read_user(name: &ConnectorName, row: &Row<'_>) -> Sql<UserView> {
    Ok(UserView {
        connector: name.to_string(),
        id: row.get(0)?,
        email: row.get(1)?,
        status: row.get(2)?,
        sso: row.get(3)?,
        role_id: row.get(4)?,
        role: row.get(5)?,
        created: row.get(6)?,
        last_login: row.get(7)?,
        first_seen: instant(row.get(8)?).unwrap_or(Timestamp::UNIX_EPOCH),
        account: AccountStanding::parse(row.get_ref(9)?.as_str()?).unwrap_or(AccountStanding::Pending),
        account_id: row.get(10)?,
        directory_user_id: row.get(11)?,
        reason: row.get(12)?,
    })
}

/// Reads an event: the columns of [`Store::events`].
pub(super) fn read_event(name: &ConnectorName, row: &Row<'_>) -> Sql<EventView> {
    let json = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
    Ok(EventView {
        at: instant(row.get(0)?),
        connector: name.to_string(),
        run: row.get(1)?,
        kind: EventKind::parse(row.get_ref(2)?.as_str()?).unwrap_or(EventKind::StateChanged),
        user_id: row.get(3)?,
        email: row.get(4)?,
        before: json(row.get(5)?),
        after: json(row.get(6)?),
        reason: row.get(7)?,
    })
}
