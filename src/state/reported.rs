//! Small questions of reports.

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::connector::Origin;
use super::{Sql, Store, instant, stored};
use crate::model::{AccountId, EmailKey};

impl Store {
    /// In which times of an hour or more between `from` and `to` no poll was complete, though one was before and after, the oldest
    /// first. What changed in them was seen at their end.
    pub fn unread(&self, from: Timestamp, to: Timestamp) -> Sql<Vec<(Timestamp, Timestamp)>> {
        let times: Vec<(Option<Timestamp>, Option<Timestamp>)> = self
            .db
            .prepare_cached("SELECT since, until FROM unread WHERE since < ?2 AND until > ?1 ORDER BY since")?
            .query_map([stored(from), stored(to)], |row| {
                Ok((instant(row.get(0)?), instant(row.get(1)?)))
            })?
            .collect::<Sql<_>>()?;
        Ok(times
            .into_iter()
            .filter_map(|(since, until)| since.zip(until))
            .collect())
    }

    /// Since when Torq is being read again, where some of it is in the snapshot already.
    pub fn half_read(&self) -> Sql<Option<Timestamp>> {
        let mut begun = self
            .db
            .prepare_cached("SELECT started FROM poll WHERE EXISTS (SELECT 1 FROM poll_pages)")?;
        let begun = begun.query_row([], |row| row.get(0)).optional()?;
        Ok(instant(begun))
    }

    /// Of how many users the directory was not asked yet.
    pub fn unasked(&self) -> Sql<u64> {
        self.db.query_row(
            "SELECT count(*) FROM users u LEFT JOIN accounts a ON a.email_key = u.email_key
             WHERE u.removed_at IS NULL AND a.matched_at IS NULL AND a.match_id IS NULL AND a.directory_user_id IS NULL",
            [],
            |row| row.get(0),
        )
    }

    /// Since when at the latest the directory's answers are: when it was asked about whom that is longest ago. `None`: it was not asked.
    pub fn directory_asked(&self) -> Sql<Option<Timestamp>> {
        // Of those who are asked for at all, as in `to_match`.
        let oldest = self.db.query_row(
            "SELECT min(a.matched_at) FROM users u JOIN accounts a ON a.email_key = u.email_key
             WHERE u.removed_at IS NULL AND u.filtered IS NULL AND u.removal IS NULL",
            [],
            |row| row.get(0),
        )?;
        Ok(instant(oldest))
    }

    /// The accounts that are known, and who made them.
    pub fn known_accounts(&self) -> Sql<Vec<(AccountId, Origin)>> {
        let known: Vec<(AccountId, Option<Origin>)> = self
            .db
            .prepare_cached("SELECT account_id, origin FROM accounts WHERE account_id IS NOT NULL")?
            .query_map([], |row| {
                let origin: Option<String> = row.get(1)?;
                let id = AccountId::new(row.get::<_, String>(0)?);
                Ok((id, origin.as_deref().and_then(Origin::parse)))
            })?
            .collect::<Sql<_>>()?;
        Ok(known
            .into_iter()
            .filter_map(|(id, origin)| Some((id, origin?)))
            .collect())
    }

    /// The e-mails of users who were removed, and when that was last.
    pub fn removed_emails(&self) -> Sql<Vec<(EmailKey, Timestamp)>> {
        let removed: Vec<(EmailKey, Option<Timestamp>)> = self
            .db
            .prepare_cached(
                "SELECT email_key, max(removed_at) FROM users WHERE removed_at IS NOT NULL GROUP BY email_key",
            )?
            .query_map([], |row| {
                Ok((EmailKey::fold(row.get_ref(0)?.as_str()?), instant(row.get(1)?)))
            })?
            .collect::<Sql<_>>()?;
        Ok(removed.into_iter().filter_map(|(key, at)| Some((key, at?))).collect())
    }
}
