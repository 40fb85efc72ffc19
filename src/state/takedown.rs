//! Taking a connector down, as its state sees it: which accounts are its own to delete, which of them another connector needs, and
//! what is left to do.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::{Sql, Store, stored};
use crate::jumpcloud::Account;
use crate::model::{AccountId, EmailKey};
use crate::view::ConnectorState;

/// Accounts of this connector that a removal has not deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Those that JumpCloud did not answer for.
    pub unanswered: u64,
    /// Those that it refused to delete.
    pub refused: u64,
    /// What it said last about one of these.
    pub words: Option<String>,
}

/// What the status says meanwhile.
const GOING_ON: &str = "it is being removed";

impl Store {
    /// The connector is being removed from now on, whatever becomes of this process: it neither polls nor delivers any more.
    pub fn begin_removal(&mut self, now: Timestamp) -> Sql<()> {
        let name = &self.name;
        let action = format!(
            "nothing, as long as that goes on; if it was cut short, go on with it: torq-connector remove {name}; to set it up again \
             instead: torq-connector reconnect {name}"
        );
        // Before the first account goes: after a loss of power none of them may be made again.
        self.durably(|store| {
            store.db.execute(
                "UPDATE connector SET removing_at = coalesce(removing_at, ?1)",
                [stored(now)],
            )?;
            store.note_state(now, ConnectorState::Removed, Some(GOING_ON), Some(&action))
        })
    }

    /// Nobody is removing the connector, for whoever calls this has its state: a removal that still shows as going on was cut
    /// short. Returns whether one was.
    pub fn note_cut_removal(&mut self, now: Timestamp) -> Sql<bool> {
        let about = self.about()?;
        if about.removing.is_none() || about.reason.as_deref() != Some(GOING_ON) {
            return Ok(false);
        }
        let name = &self.name;
        let action = format!(
            "go on with it: torq-connector remove {name}; to set it up again instead: torq-connector reconnect {name}"
        );
        let reason = "its removal was cut short, by the end of its process or by a state that could not be written";
        self.note_state(now, ConnectorState::Removed, Some(reason), Some(&action))?;
        Ok(true)
    }

    /// The connector is not to be removed after all. Returns whether it was about to be. What was to be deleted for that reason
    /// stays; of accounts without a user it is not known any more whether they were to be deleted anyway, so they stay, too.
    pub fn cancel_removal(&mut self, now: Timestamp) -> Sql<bool> {
        if self.about()?.removing.is_none() {
            return Ok(false);
        }
        let transaction = self.db.transaction()?;
        transaction.execute_batch(
            "UPDATE accounts SET absent_polls = 0,
                release = CASE WHEN EXISTS (SELECT 1 FROM users u WHERE u.email_key = accounts.email_key
                                            AND u.removed_at IS NULL) THEN NULL ELSE 'reported' END
             WHERE release = 'due';
             UPDATE connector SET removing_at = NULL;",
        )?;
        transaction.commit()?;
        self.note_state(now, ConnectorState::Starting, None, None)?;
        Ok(true)
    }

    /// With which JumpCloud side everything that is known of it was learnt; `None` when nothing is.
    pub fn jumpcloud_side(&self) -> Sql<Option<String>> {
        self.db
            .query_row("SELECT jumpcloud_side FROM connector", [], |row| row.get(0))
    }

    /// Which of these accounts this connector created, by their e-mails: also where the create was not answered (yet).
    pub fn ours_among(&self, accounts: &[Account]) -> Sql<Vec<EmailKey>> {
        let mut statement = self.db.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM accounts WHERE email_key = ?1
                            AND ((account_id = ?2 AND origin = 'created') OR (account_id IS NULL AND intent_at IS NOT NULL)))",
        )?;
        let mut ours = Vec::new();
        for account in accounts {
            let Some(key) = account.key() else { continue };
            if statement.query_row([key.as_str(), account.id.as_str()], |row| row.get(0))? {
                ours.push(key);
            }
        }
        Ok(ours)
    }

    /// How many of these accounts this connector created for somebody who is not known here any more. By their ids alone: whose they are
    /// by now is for a person to say.
    pub fn forgotten_among(&self, accounts: &[Account]) -> Sql<u64> {
        let mut statement = self.db.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM made m, connector c WHERE m.account_id = ?1 AND m.application_id = c.application_id)
                AND NOT EXISTS (SELECT 1 FROM accounts WHERE account_id = ?1)",
        )?;
        let mut forgotten = 0;
        for account in accounts {
            forgotten += u64::from(statement.query_row([account.id.as_str()], |row| row.get::<_, bool>(0))?);
        }
        Ok(forgotten)
    }

    /// All accounts that this connector created, with their folded e-mails.
    pub fn ours(&self) -> Sql<Vec<(AccountId, EmailKey)>> {
        self.db
            .prepare("SELECT account_id, email_key FROM accounts WHERE origin = 'created' AND account_id IS NOT NULL")?
            .query_map([], |row| {
                let key = EmailKey::fold(row.get_ref(1)?.as_str()?);
                Ok((AccountId::new(row.get::<_, String>(0)?), key))
            })?
            .collect()
    }

    /// Whether somebody with this e-mail is in this connector's workspace, as far as it knows, filtered or not.
    pub fn has_user(&self, key: &EmailKey) -> Sql<bool> {
        self.db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM users WHERE email_key = ?1 AND removed_at IS NULL)")?
            .query_row([key.as_str()], |row| row.get(0))
    }

    /// Every account that this connector created is to be deleted, `except` those that others need.
    pub fn release_ours(&mut self, except: &HashSet<EmailKey>) -> Sql<()> {
        let transaction = self.db.transaction()?;
        transaction.execute(
            "UPDATE accounts SET release = 'due', refused = NULL, refused_at = NULL
             WHERE origin = 'created' AND account_id IS NOT NULL",
            [],
        )?;
        for key in except {
            transaction
                .prepare_cached("UPDATE accounts SET release = 'reported' WHERE email_key = ?1")?
                .execute([key.as_str()])?;
        }
        transaction.commit()
    }

    /// What is left of them. `except` as in [`Self::release_ours`].
    pub fn remaining(&self, except: &HashSet<EmailKey>) -> Sql<Remaining> {
        let (unanswered, others): (u64, u64) = self.db.query_row(
            "SELECT count(*) FILTER (WHERE release = 'due' AND refused IS NULL),
                    count(*) FILTER (WHERE release IS NOT 'due' OR refused IS NOT NULL)
             FROM accounts WHERE origin = 'created' AND account_id IS NOT NULL",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let refused = others.saturating_sub(except.len() as u64);
        let words = match refused {
            0 => None,
            _ => self
                .db
                .query_row(
                    "SELECT reason FROM events WHERE kind = 'account_refused' ORDER BY no DESC LIMIT 1",
                    [],
                    |row| row.get(0),
                )
                .optional()?
                .flatten(),
        };
        Ok(Remaining {
            unanswered,
            refused,
            words,
        })
    }
}
