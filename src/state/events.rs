//! Events and runs: what happened, in the transaction that made it happen.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::{Sql, Store, stored};
use crate::view::{EventKind, RunCounts, RunOutcome};

/// An event to be written.
#[derive(Clone, Debug, Default)]
pub struct NewEvent<'a> {
    /// Torq's id of the user concerned.
    pub user_id: Option<&'a str>,
    /// The e-mail concerned.
    pub email: Option<&'a str>,
    /// What was there before: the fields that changed.
    pub before: Option<Value>,
    /// What is there now.
    pub after: Option<Value>,
    /// Why, for a person.
    pub reason: Option<&'a str>,
}

/// Writes an event. Called inside the transaction that makes the change.
pub(super) fn record(
    db: &Connection,
    at: Timestamp,
    run: Option<i64>,
    kind: EventKind,
    event: NewEvent<'_>,
) -> Sql<()> {
    db.prepare_cached(
        "INSERT INTO events (at, run, kind, user_id, email, before, after, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        stored(at),
        run,
        kind.as_str(),
        event.user_id,
        event.email,
        event.before.map(|value| value.to_string()),
        event.after.map(|value| value.to_string()),
        event.reason,
    ])?;
    Ok(())
}

/// Adds to the counters of a run. Called inside the transaction that makes the change.
pub(super) fn count(db: &Connection, run: Option<i64>, counts: RunCounts) -> Sql<()> {
    if counts == RunCounts::default() {
        return Ok(());
    }
    db.prepare_cached(
        "UPDATE runs SET appeared = appeared + ?2, changed = changed + ?3, disappeared = disappeared + ?4,
            created = created + ?5, found = found + ?6, associated = associated + ?7, deleted = deleted + ?8,
            refused = refused + ?9
         WHERE no = ?1",
    )?
    .execute(params![
        run,
        counts.appeared,
        counts.changed,
        counts.disappeared,
        counts.created,
        counts.found,
        counts.associated,
        counts.deleted,
        counts.refused,
    ])?;
    Ok(())
}

impl Store {
    /// Begins a run. A run that a kill cut short is ended as failed, and one that its successor continues keeps its number.
    pub fn begin_run(&mut self, now: Timestamp) -> Sql<i64> {
        self.keep_books(|store| store.open_run(now))
    }

    fn open_run(&mut self, now: Timestamp) -> Sql<i64> {
        let unfinished: Option<i64> = self
            .db
            .query_row(
                "SELECT no FROM runs WHERE finished IS NULL ORDER BY no DESC LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()?;
        let continues: bool = self.db.query_row("SELECT count(*) FROM poll", [], |row| row.get(0))?;
        let run = match unfinished {
            Some(run) if continues => run,
            _ => {
                let transaction = self.db.transaction()?;
                transaction.execute(
                    "UPDATE runs SET finished = ?1, outcome = 'failed', reason = 'it was cut short' WHERE finished IS NULL",
                    [stored(now)],
                )?;
                transaction.execute("INSERT INTO runs (started) VALUES (?1)", [stored(now)])?;
                let run = transaction.last_insert_rowid();
                transaction.commit()?;
                run
            }
        };
        self.run = Some(run);
        Ok(run)
    }

    /// Ends the run. Returns what it counted.
    pub fn end_run(&mut self, now: Timestamp, outcome: RunOutcome, reason: Option<&str>) -> Sql<RunCounts> {
        let Some(run) = self.run.take() else {
            return Ok(RunCounts::default());
        };
        self.keep_books(|store| store.close_run(run, now, outcome, reason))
    }

    fn close_run(&mut self, run: i64, now: Timestamp, outcome: RunOutcome, reason: Option<&str>) -> Sql<RunCounts> {
        let transaction = self.db.transaction()?;
        transaction.execute(
            "UPDATE runs SET finished = ?2, outcome = ?3, reason = ?4 WHERE no = ?1",
            params![run, stored(now), outcome.as_str(), reason],
        )?;
        if matches!(outcome, RunOutcome::Done | RunOutcome::Partial) {
            transaction.execute("UPDATE connector SET last_success = ?1", [stored(now)])?;
        }
        // Of runs that changed nothing the last thousand stay, however they ended: what they met is in the events. Looked at are
        // only those that have just come of age, a few at a time should some have been missed.
        transaction.execute(
            "DELETE FROM runs WHERE no BETWEEN ?1 - 1100 AND ?1 - 1000 AND finished IS NOT NULL
               AND appeared + changed + disappeared + created + found + associated + deleted + refused = 0",
            [run],
        )?;
        let counts = counts_of(&transaction, run)?;
        transaction.commit()?;
        self.empty_log();
        Ok(counts)
    }

    /// Takes SQLite's log into the database, so that it begins anew: otherwise the logs of a thousand connectors that hardly
    /// write would each keep the 4 MB after which SQLite does so by itself. Waits for nobody who is reading just then; what is
    /// not done now is done after the next run.
    fn empty_log(&self) {
        let done = self.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::debug!(connector = %self.name, %error, "SQLite's log stays as it is for now");
        }
    }
}

fn counts_of(db: &Connection, run: i64) -> Sql<RunCounts> {
    db.query_row(
        "SELECT appeared, changed, disappeared, created, found, associated, deleted, refused FROM runs WHERE no = ?1",
        [run],
        |row| read_counts(row, 0),
    )
}

/// Reads the eight counters from column `first` on.
pub(super) fn read_counts(row: &rusqlite::Row<'_>, first: usize) -> Sql<RunCounts> {
    Ok(RunCounts {
        appeared: row.get(first)?,
        changed: row.get(first + 1)?,
        disappeared: row.get(first + 2)?,
        created: row.get(first + 3)?,
        found: row.get(first + 4)?,
        associated: row.get(first + 5)?,
        deleted: row.get(first + 6)?,
        refused: row.get(first + 7)?,
    })
}
