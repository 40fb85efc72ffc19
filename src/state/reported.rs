//! Small questions of reports.

use jiff::Timestamp;

use super::connector::Origin;
use super::{Sql, Store, instant};
use crate::model::{AccountId, EmailKey};

impl Store {
    /// Of how many users the directory was not asked yet.
    pub fn unasked(&self) -> Sql<u64> {
        self.db.query_row(
            "SELECT count(*) FROM users u LEFT JOIN accounts a ON a.email_key = u.email_key
             WHERE u.removed_at IS NULL AND a.matched_at IS NULL AND a.match_id IS NULL AND a.directory_user_id IS NULL",
            [],
            |row| row.get(0),
        )
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
