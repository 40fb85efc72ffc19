//! Approval: what a person decides about removals that are held, and how they take it back.

use jiff::Timestamp;
use rusqlite::params;

use super::doubt::Doubt;
use super::removal::{are, hold_account, hold_user, numbers};
use super::{NewEvent, Sql, Store, events};
use crate::view::{ConnectorState, EventKind};
use crate::wording;

/// Why what is held again is held.
const WITHDRAWN: &str = "the approval was withdrawn";

/// What became of an approval that was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// How many removals are held again.
    pub held: u64,
    /// Of how many of them the account may be gone by now: its deletion was sent, and not answered yet.
    pub under_way: u64,
}

impl Store {
    /// How many removals are approved and not carried out yet.
    pub fn approved(&mut self) -> Sql<u64> {
        Ok(self.counts()?.approved)
    }

    /// How many accounts that we created go with the removals that are held now.
    pub fn held_accounts(&self) -> Sql<u64> {
        self.db.query_row(
            "SELECT count(*) FROM accounts a WHERE a.origin = 'created' AND a.account_id IS NOT NULL AND (a.release = 'held'
                OR (a.release IS NULL
                    AND EXISTS (SELECT 1 FROM users u
                                WHERE u.email_key = a.email_key AND u.removal = 'held' AND u.removed_at IS NULL)
                    AND NOT EXISTS (SELECT 1 FROM users u
                                    WHERE u.email_key = a.email_key AND u.removal IS NOT 'held' AND u.removed_at IS NULL)))",
            [],
            |row| row.get(0),
        )
    }

    /// Approves the removals that are held now: the next run carries them out, unless the users are back by then.
    pub fn approve(&mut self, now: Timestamp) -> Sql<u64> {
        // A person was told that it is so.
        self.durably(|store| store.approve_held(now))
    }

    /// Holds again what was approved and is not carried out yet, and every account that is to be deleted and is not: of those it is
    /// not known any more which of them a person approved.
    pub fn withdraw_approval(&mut self, now: Timestamp) -> Sql<Withdrawn> {
        self.durably(|store| store.hold_again(now))
    }

    fn hold_again(&mut self, now: Timestamp) -> Sql<Withdrawn> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        let held_before: bool = transaction.query_row(
            "SELECT EXISTS (SELECT 1 FROM users WHERE removal = 'held' AND removed_at IS NULL)
                 OR EXISTS (SELECT 1 FROM accounts WHERE release = 'held')",
            [],
            |row| row.get(0),
        )?;
        let under_way = transaction.query_row(
            "SELECT count(*) FROM accounts WHERE release = 'due' AND look = 1",
            [],
            |row| row.get(0),
        )?;
        let users = numbers(&transaction, "removal = 'approved'")?;
        for no in &users {
            hold_user(&transaction, now, run, *no, WITHDRAWN)?;
        }
        let keys: Vec<String> = transaction
            .prepare("SELECT email_key FROM accounts WHERE release IN ('approved', 'due')")?
            .query_map([], |row| row.get(0))?
            .collect::<Sql<_>>()?;
        for key in &keys {
            hold_account(&transaction, now, run, key, WITHDRAWN)?;
            // What JumpCloud refused to delete is no longer asked of it.
            transaction.execute(
                "UPDATE accounts SET refused = NULL, refused_at = NULL WHERE email_key = ?1",
                [key],
            )?;
        }
        let withdrawn = Withdrawn {
            held: (users.len() + keys.len()) as u64,
            under_way,
        };
        if withdrawn.held > 0 {
            // The reason of those who were held already is theirs, too; that of a former time is nobody's.
            transaction.execute(
                "UPDATE connector SET hold_reason = ?1 WHERE NOT ?2 OR hold_reason IS NULL",
                params![WITHDRAWN, held_before],
            )?;
            Doubt::reinstate(&transaction)?;
        }
        transaction.commit()?;
        let about = self.about()?;
        // Whatever else is the matter is not less so for it; then the next run that comes to its end says it.
        let tells = matches!(
            about.state,
            ConnectorState::Held | ConnectorState::Connected | ConnectorState::Starting
        );
        if withdrawn.held > 0 && tells {
            let status = self.status()?;
            let held = status.held;
            let why = about.hold_reason.unwrap_or_default();
            let action = wording::about_held(&status);
            let reason = format!("{} held: {why}", are(held));
            self.note_state(now, ConnectorState::Held, Some(&reason), Some(&action))?;
        }
        Ok(withdrawn)
    }

    fn approve_held(&mut self, now: Timestamp) -> Sql<u64> {
        let transaction = self.db.transaction()?;
        let mut approved = 0;
        {
            let mut held =
                transaction.prepare("SELECT id, email FROM users WHERE removal = 'held' AND removed_at IS NULL")?;
            let mut rows = held.query([])?;
            while let Some(row) = rows.next()? {
                let (id, email): (String, String) = (row.get(0)?, row.get(1)?);
                let event = NewEvent {
                    user_id: Some(&id),
                    email: Some(&email),
                    ..NewEvent::default()
                };
                events::record(&transaction, now, None, EventKind::RemovalApproved, event)?;
                approved += 1;
            }
            let mut held = transaction.prepare("SELECT email_key FROM accounts WHERE release = 'held'")?;
            let mut rows = held.query([])?;
            while let Some(row) = rows.next()? {
                let email: String = row.get(0)?;
                let event = NewEvent {
                    email: Some(&email),
                    ..NewEvent::default()
                };
                events::record(&transaction, now, None, EventKind::RemovalApproved, event)?;
                approved += 1;
            }
        }
        transaction.execute_batch(
            "UPDATE users SET removal = 'approved' WHERE removal = 'held' AND removed_at IS NULL;
             UPDATE accounts SET release = 'approved' WHERE release = 'held';",
        )?;
        if approved > 0 {
            // Whoever approves has seen what was shown; who has been missing for one poll was not shown yet.
            let unshown: bool = transaction.query_row(
                "SELECT EXISTS (SELECT 1 FROM users WHERE absent_polls > 0 AND removed_at IS NULL AND removal IS NULL)",
                [],
                |row| row.get(0),
            )?;
            let doubt = Doubt::read(&transaction)?;
            doubt.overrule(&transaction)?;
            doubt.after_approval(unshown).write(&transaction)?;
        }
        transaction.commit()?;
        Ok(approved)
    }
}
