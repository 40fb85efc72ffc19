//! How long the past is kept: events, users who left, runs. What is older than the configured time is pruned a little at a time.

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

use super::{Sql, Store, instant, stored};

/// How much goes in one transaction, of each sort.
const BATCH: u32 = 500;
/// Nothing is pruned before something is older by so much than it need be kept: so it is done once a day, and not with every run.
const SLACK: SignedDuration = SignedDuration::from_hours(24);

/// What was older than what is to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Events.
    pub events: usize,
    /// Users who left.
    pub users: usize,
    /// What was known of JumpCloud about e-mails that are nobody's any more, and is no account of ours.
    pub accounts: usize,
    /// Runs.
    pub runs: usize,
}

impl Pruned {
    /// Whether there may be more of the same.
    pub fn is_full(&self) -> bool {
        [self.events, self.users, self.accounts, self.runs]
            .into_iter()
            .any(|pruned| pruned >= BATCH as usize)
    }
}

impl std::ops::AddAssign for Pruned {
    fn add_assign(&mut self, more: Self) {
        self.events += more.events;
        self.users += more.users;
        self.accounts += more.accounts;
        self.runs += more.runs;
    }
}

impl Store {
    /// Since when everything that happened is kept; `None` when nothing was ever pruned. What the events say of a time before is
    /// not the whole story.
    pub fn horizon(&self) -> Sql<Option<Timestamp>> {
        self.db
            .query_row("SELECT events_since FROM connector", [], |row| row.get(0))
            .map(instant)
    }

    /// Whether there is something to prune, of what need not be kept from before `before`.
    pub fn is_to_be_pruned(&self, before: Timestamp) -> Sql<bool> {
        self.db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM events WHERE at < ?1)
                     OR EXISTS (SELECT 1 FROM users WHERE removed_at IS NOT NULL AND removed_at < ?1)
                     OR (SELECT started FROM runs ORDER BY no LIMIT 1) < ?1",
            )?
            .query_row([stored(before - SLACK)], |row| row.get::<_, Option<bool>>(0))
            .map(Option::unwrap_or_default)
    }

    /// Prunes some of what is from before `before`, in one small transaction, so that nobody waits for it.
    ///
    /// An account that this connector made stays known for as long as JumpCloud has it: otherwise nobody could say any more that it
    /// is ours to delete. One that was found stays for as long as somebody had its e-mail within the time that is kept.
    pub fn prune(&mut self, before: Timestamp) -> Sql<Pruned> {
        self.thoroughly(|store| store.prune_some(before))
    }

    fn prune_some(&mut self, before: Timestamp) -> Sql<Pruned> {
        let before = stored(before);
        let transaction = self.db.transaction()?;
        let some = |sql: &str| transaction.prepare_cached(sql)?.execute(params![before, BATCH]);
        let pruned = Pruned {
            events: some("DELETE FROM events WHERE no IN (SELECT no FROM events WHERE at < ?1 ORDER BY at LIMIT ?2)")?,
            users: some(
                "DELETE FROM users WHERE no IN (SELECT no FROM users WHERE removed_at IS NOT NULL AND removed_at < ?1
                                                ORDER BY removed_at LIMIT ?2)",
            )?,
            accounts: some(
                "DELETE FROM accounts WHERE email_key IN
                    (SELECT a.email_key FROM accounts a
                     WHERE (a.account_id IS NULL OR a.origin = 'found') AND a.intent_at IS NULL AND a.look = 0
                       AND (a.release IS NULL OR a.release = 'reported') AND (a.matched_at IS NULL OR a.matched_at < ?1)
                       AND (a.left_at IS NULL OR a.left_at < ?1)
                       AND NOT EXISTS (SELECT 1 FROM users u WHERE u.email_key = a.email_key)
                     LIMIT ?2)",
            )?,
            runs: some(
                "DELETE FROM runs WHERE no IN (SELECT no FROM runs WHERE started < ?1 AND finished IS NOT NULL ORDER BY no LIMIT ?2)",
            )?,
        };
        if pruned.events > 0 {
            transaction.execute(
                "UPDATE connector SET events_since = ?1 WHERE events_since IS NULL OR events_since < ?1",
                [&before],
            )?;
        }
        transaction.execute("DELETE FROM unread WHERE until < ?1", [&before])?;
        if pruned.users > 0 {
            renumber_poll(&transaction)?;
        }
        transaction.commit()?;
        Ok(pruned)
    }

    /// Runs an operation after which nothing of what it deletes is left in the file: SQLite would only mark it as free.
    pub(super) fn thoroughly<R>(&mut self, operation: impl FnOnce(&mut Self) -> Sql<R>) -> Sql<R> {
        self.db.pragma_update(None, "secure_delete", "ON")?;
        let result = operation(self);
        self.db.pragma_update(None, "secure_delete", "OFF")?;
        result
    }
}

/// After rows of users were deleted: their numbers may be given again, and whoever gets one is new in the poll that is under way.
pub(super) fn renumber_poll(db: &rusqlite::Connection) -> Sql<()> {
    db.execute(
        "UPDATE poll SET newest = (SELECT coalesce(max(no), 0) FROM users)
         WHERE newest > (SELECT coalesce(max(no), 0) FROM users)",
        [],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
