//! What JumpCloud is known to have, by folded e-mail, and what remains to be done: queries over it, never a second record.
//!
//! A create is noted before it is sent (`intent_at`, `look`). Until its outcome is known nothing more is sent for that e-mail:
//! first JumpCloud's list is looked into ([`Store::adopt`]).

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::adoption::settled;
use super::{NewEvent, Sql, Store, events, stored};
use crate::jumpcloud::Account;
use crate::model::{AccountId, DirectoryUserId, EmailKey};
use crate::view::{EventKind, RunCounts};

/// An account that is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// The folded e-mail.
    pub key: EmailKey,
    /// The e-mail as Torq sent it.
    pub email: String,
    /// Torq's id of (the first of) its users.
    pub user_id: String,
    /// The directory user with this e-mail.
    pub directory_user: Option<DirectoryUserId>,
}

/// An account that is to be associated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// The folded e-mail.
    pub key: EmailKey,
    /// The account.
    pub account: AccountId,
    /// The directory user whom it belongs to by e-mail.
    pub directory_user: DirectoryUserId,
    /// The directory user with whom it is associated now.
    pub before: Option<DirectoryUserId>,
}

/// An account of ours that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The folded e-mail.
    pub key: EmailKey,
    /// The account.
    pub account: AccountId,
}

impl Store {
    /// Begins to read again what JumpCloud has: matches with the directory from before `now` are to be asked again.
    pub fn begin_reconciliation(&mut self, now: Timestamp) -> Sql<()> {
        let now = stored(now);
        self.db.execute("UPDATE connector SET directory_since = ?1", [&now])?;
        // Noted by a clock that was ahead, a match would count as fresh until that moment comes.
        self.db
            .execute("UPDATE accounts SET matched_at = NULL WHERE matched_at > ?1", [&now])?;
        Ok(())
    }

    /// For how many e-mails JumpCloud's list is to be looked into: creates with an unknown outcome, accounts that were just made and are
    /// missing, and those whose deletion was sent and is not to be repeated.
    pub fn to_look_for(&self) -> Sql<u64> {
        self.db.query_row(
            "SELECT count(*) FROM accounts WHERE look = 1 AND release IS NOT 'due'",
            [],
            |row| row.get(0),
        )
    }

    /// Folded e-mails whose directory user is to be asked for, in order, after `after`.
    pub fn to_match(&mut self, after: &EmailKey, limit: usize) -> Sql<Vec<EmailKey>> {
        let version = self.version();
        if self.settled.matches == Some(version) {
            return Ok(Vec::new());
        }
        let found: Vec<EmailKey> = self
            .db
            .prepare_cached(
                "SELECT DISTINCT u.email_key FROM users u
                 LEFT JOIN accounts a ON a.email_key = u.email_key, connector c
                 WHERE u.email_key > ?1 AND u.removed_at IS NULL AND u.filtered IS NULL AND u.removal IS NULL
                   AND (a.matched_at IS NULL OR a.matched_at < c.directory_since)
                 ORDER BY u.email_key LIMIT ?2",
            )?
            .query_map(params![after.as_str(), limit], |row| {
                Ok(EmailKey::fold(row.get_ref(0)?.as_str()?))
            })?
            .collect::<Sql<_>>()?;
        if found.is_empty() && after.is_empty() {
            self.settled.matches = Some(version);
        }
        Ok(found)
    }

    /// Notes what the directory said about a batch of e-mails.
    pub fn matched(&mut self, now: Timestamp, matches: &[(EmailKey, Option<DirectoryUserId>)]) -> Sql<()> {
        let transaction = self.db.transaction()?;
        {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO accounts (email_key, match_id, matched_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (email_key) DO UPDATE SET match_id = ?2, matched_at = ?3",
            )?;
            for (key, user) in matches {
                statement.execute(params![
                    key.as_str(),
                    user.as_ref().map(DirectoryUserId::as_str),
                    stored(now)
                ])?;
            }
        }
        transaction.commit()
    }

    /// The directory user of an account turned out not to be there.
    pub fn match_vanished(&mut self, now: Timestamp, key: &EmailKey) -> Sql<()> {
        self.matched(now, &[(key.clone(), None)])
    }

    /// Accounts to be created, in the order of their e-mails, after `after`. One for each folded e-mail. Nobody gets one whom
    /// the last poll did not see: they may just have left, and their account been deleted for that very reason. If they are
    /// seen again, they get one then.
    pub fn to_create(&mut self, after: &EmailKey, limit: usize) -> Sql<Vec<Creation>> {
        let version = self.version();
        if self.settled.creations == Some(version) {
            return Ok(Vec::new());
        }
        let found: Vec<Creation> = self
            .db
            .prepare_cached(
                "SELECT u.email_key, u.email, u.id, a.match_id, min(u.no) FROM users u
                 LEFT JOIN accounts a ON a.email_key = u.email_key
                 WHERE u.email_key > ?1 AND u.removed_at IS NULL AND u.filtered IS NULL AND u.removal IS NULL
                   AND u.absent_polls = 0
                   AND a.account_id IS NULL AND a.refused IS NULL AND coalesce(a.look, 0) = 0
                 GROUP BY u.email_key ORDER BY u.email_key LIMIT ?2",
            )?
            .query_map(params![after.as_str(), limit], |row| {
                Ok(Creation {
                    key: EmailKey::fold(row.get_ref(0)?.as_str()?),
                    email: row.get(1)?,
                    user_id: row.get(2)?,
                    directory_user: row.get::<_, Option<String>>(3)?.map(DirectoryUserId::new),
                })
            })?
            .collect::<Sql<_>>()?;
        if found.is_empty() && after.is_empty() {
            self.settled.creations = Some(version);
        }
        Ok(found)
    }

    /// How many users are pending whom the last poll did not see, so that nothing is created for them.
    pub fn pending_unseen(&self) -> Sql<u64> {
        self.db.query_row(
            "SELECT count(*) FROM standing s JOIN users u ON u.no = s.no WHERE s.account = 'pending' AND u.absent_polls > 0",
            [],
            |row| row.get(0),
        )
    }

    /// A create is about to be sent, and may take effect until `settles`, whatever becomes of us. Whether an earlier one for the
    /// same e-mail was not answered.
    ///
    /// This survives a loss of power: without the intent, an account of ours would count as found when it is seen again.
    pub fn creating(&mut self, now: Timestamp, key: &EmailKey, settles: Timestamp) -> Sql<bool> {
        self.durably(|store| store.note_intent(now, key, settles))
    }

    fn note_intent(&mut self, now: Timestamp, key: &EmailKey, settles: Timestamp) -> Sql<bool> {
        let unanswered: Option<bool> = self
            .db
            .prepare_cached("SELECT intent_at IS NOT NULL FROM accounts WHERE email_key = ?1")?
            .query_row([key.as_str()], |row| row.get(0))
            .optional()?;
        self.db
            .prepare_cached(
                "INSERT INTO accounts (email_key, intent_at, look, settles_at) VALUES (?1, ?2, 1, ?3)
                 ON CONFLICT (email_key) DO UPDATE SET intent_at = coalesce(intent_at, ?2), look = 1, settles_at = ?3",
            )?
            .execute(params![key.as_str(), stored(now), stored(settles)])?;
        Ok(unanswered.unwrap_or(false))
    }

    /// The create was not answered, and may take effect until `settles`; or it was, and may be missing in what is read until then.
    pub fn create_settles(&mut self, key: &EmailKey, settles: Timestamp) -> Sql<()> {
        self.db
            .prepare_cached("UPDATE accounts SET settles_at = ?2 WHERE email_key = ?1 AND look = 1")?
            .execute([key.as_str(), &stored(settles)])?;
        Ok(())
    }

    /// The create was answered with the account.
    pub fn created(&mut self, now: Timestamp, creation: &Creation, account: &Account) -> Sql<()> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        let directory_user = account.directory_user();
        set_account(
            &transaction,
            &creation.key,
            &account.id,
            "created",
            directory_user.as_ref(),
        )?;
        events::count(
            &transaction,
            run,
            RunCounts {
                created: 1,
                associated: u64::from(directory_user.is_some()),
                ..RunCounts::default()
            },
        )?;
        let event = NewEvent {
            user_id: Some(&creation.user_id),
            email: Some(&creation.email),
            after: Some(json!({ "account_id": account.id.as_str(), "directory_user_id": directory_user })),
            ..NewEvent::default()
        };
        events::record(&transaction, now, run, EventKind::AccountCreated, event)?;
        transaction.commit()
    }

    /// The create did not take effect, and may be sent again without looking. `unanswered` as [`Self::creating`] said.
    pub fn not_created(&mut self, key: &EmailKey, unanswered: bool) -> Sql<()> {
        self.db
            .prepare_cached(
                "UPDATE accounts SET look = 0, intent_at = CASE WHEN ?2 THEN intent_at END WHERE email_key = ?1",
            )?
            .execute(params![key.as_str(), unanswered])?;
        Ok(())
    }

    /// The create was answered with 409: there is one, and the list will say which, at `settles` at the latest. It is ours only if
    /// an earlier create of ours was not answered.
    pub fn create_conflicted(&mut self, key: &EmailKey, unanswered: bool, settles: Timestamp) -> Sql<()> {
        self.db.execute(
            "UPDATE accounts SET look = 1, conflict = 1, settles_at = ?3, intent_at = CASE WHEN ?2 THEN intent_at END
             WHERE email_key = ?1",
            params![key.as_str(), unanswered, stored(settles)],
        )?;
        Ok(())
    }

    /// The create was answered with the account of another e-mail, and not for the first time. Where the list has none with this
    /// e-mail at `settles` either, the user is parked: who knows how many there would be.
    pub fn create_astray(&mut self, key: &EmailKey, settles: Timestamp) -> Sql<()> {
        self.db.execute(
            "UPDATE accounts SET look = 1, conflict = 2, settles_at = ?2 WHERE email_key = ?1",
            [key.as_str(), &stored(settles)],
        )?;
        Ok(())
    }

    /// The create was refused for good: the user is parked with the peer's words.
    pub fn create_refused(&mut self, now: Timestamp, key: &EmailKey, reason: &str) -> Sql<()> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        park(&transaction, now, run, key, reason)?;
        transaction.commit()
    }

    /// Accounts to be associated, in the order of their e-mails, after `after`.
    pub fn to_associate(&mut self, after: &EmailKey, limit: usize) -> Sql<Vec<Association>> {
        let version = self.version();
        if self.settled.associations == Some(version) {
            return Ok(Vec::new());
        }
        let found: Vec<Association> = self
            .db
            .prepare_cached(
                "SELECT a.email_key, a.account_id, a.match_id, a.directory_user_id FROM accounts a
                 WHERE a.email_key > ?1 AND a.account_id IS NOT NULL AND a.match_id IS NOT NULL
                   AND a.match_id IS NOT a.directory_user_id AND a.association_refused IS NOT a.match_id
                   AND EXISTS (SELECT 1 FROM users u WHERE u.email_key = a.email_key AND u.removed_at IS NULL
                               AND u.filtered IS NULL AND u.removal IS NULL)
                 ORDER BY a.email_key LIMIT ?2",
            )?
            .query_map(params![after.as_str(), limit], |row| {
                Ok(Association {
                    key: EmailKey::fold(row.get_ref(0)?.as_str()?),
                    account: AccountId::new(row.get::<_, String>(1)?),
                    directory_user: DirectoryUserId::new(row.get::<_, String>(2)?),
                    before: row.get::<_, Option<String>>(3)?.map(DirectoryUserId::new),
                })
            })?
            .collect::<Sql<_>>()?;
        if found.is_empty() && after.is_empty() {
            self.settled.associations = Some(version);
        }
        Ok(found)
    }

    /// An account was associated.
    pub fn associated(&mut self, now: Timestamp, association: &Association) -> Sql<()> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        transaction.execute(
            "UPDATE accounts SET directory_user_id = ?2, association_refused = NULL WHERE email_key = ?1",
            [association.key.as_str(), association.directory_user.as_str()],
        )?;
        events::count(
            &transaction,
            run,
            RunCounts {
                associated: 1,
                ..RunCounts::default()
            },
        )?;
        let user = user_of(&transaction, &association.key)?;
        let event = NewEvent {
            user_id: user.as_deref(),
            email: Some(association.key.as_str()),
            before: Some(json!({ "directory_user_id": association.before })),
            after: Some(json!({ "directory_user_id": association.directory_user })),
            ..NewEvent::default()
        };
        events::record(&transaction, now, run, EventKind::AccountAssociated, event)?;
        transaction.commit()
    }

    /// Associating was refused for good; it is tried again when another directory user matches, and on `retry`.
    pub fn association_refused(&mut self, now: Timestamp, association: &Association, reason: &str) -> Sql<()> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        transaction.execute(
            "UPDATE accounts SET association_refused = ?2, association_words = ?3 WHERE email_key = ?1",
            [association.key.as_str(), association.directory_user.as_str(), reason],
        )?;
        let reason = format!("associating: {reason}");
        refusal(&transaction, now, run, &association.key, &reason)?;
        transaction.commit()
    }

    /// Accounts of ours that are to be deleted. That nobody has the e-mail was decided when they were released; it is asked
    /// again here, for nothing brings a deleted account back. Where the connector is being removed, its users do not count.
    pub fn to_delete(&self, after: &EmailKey, limit: usize) -> Sql<Vec<Deletion>> {
        self.db
            .prepare_cached(
                "SELECT email_key, account_id FROM accounts
                 WHERE release = 'due' AND refused IS NULL AND origin = 'created' AND account_id IS NOT NULL AND email_key > ?1
                   AND (EXISTS (SELECT 1 FROM connector WHERE removing_at IS NOT NULL)
                        OR NOT EXISTS (SELECT 1 FROM users u WHERE u.email_key = accounts.email_key AND u.removed_at IS NULL))
                 ORDER BY email_key LIMIT ?2",
            )?
            .query_map(params![after.as_str(), limit], |row| {
                Ok(Deletion {
                    key: EmailKey::fold(row.get_ref(0)?.as_str()?),
                    account: AccountId::new(row.get::<_, String>(1)?),
                })
            })?
            .collect()
    }

    /// A deletion is about to be sent: until it is answered, or settled, the account may be gone, whatever becomes of its user or of
    /// the decision. Whether an earlier one may still take effect; `None`: it is not to be sent any more, for somebody thought better of
    /// it since it was listed.
    pub fn deleting(&mut self, now: Timestamp, deletion: &Deletion, settles: Timestamp) -> Sql<Option<bool>> {
        self.durably(|store| {
            let row = [deletion.key.as_str(), deletion.account.as_str()];
            let earlier: Option<bool> = store
                .db
                .prepare(&format!(
                    "SELECT look = 1 AND NOT {} FROM accounts WHERE email_key = ?1 AND account_id = ?2 AND release = 'due'",
                    settled(now)
                ))?
                .query_row(row, |row| row.get(0))
                .optional()?;
            if let Some(earlier) = earlier {
                store.deletion_settles(deletion, settles, earlier)?;
            }
            Ok(earlier)
        })
    }

    /// The deletion was not answered, and may take effect until `settles`; or until an `earlier` one is settled, if that is later.
    pub fn deletion_settles(&mut self, deletion: &Deletion, settles: Timestamp, earlier: bool) -> Sql<()> {
        self.db
            .prepare_cached(
                "UPDATE accounts SET look = 1, settles_at = CASE WHEN ?4 THEN max(coalesce(settles_at, ?3), ?3) ELSE ?3 END
                 WHERE email_key = ?1 AND account_id = ?2",
            )?
            .execute(params![
                deletion.key.as_str(),
                deletion.account.as_str(),
                stored(settles),
                earlier
            ])?;
        Ok(())
    }

    /// The deletion did not take effect, and will not; nor will an earlier one.
    pub fn not_deleted(&mut self, deletion: &Deletion) -> Sql<()> {
        self.db
            .prepare_cached(
                "UPDATE accounts SET look = 0, settles_at = NULL WHERE email_key = ?1 AND account_id = ?2 AND look = 1",
            )?
            .execute([deletion.key.as_str(), deletion.account.as_str()])?;
        Ok(())
    }

    /// Accounts that were to be deleted are only reported after all. Returns how many.
    pub fn report_due(&mut self) -> Sql<u64> {
        let kept = self.db.execute(
            "UPDATE accounts SET release = 'reported', refused = NULL, refused_at = NULL WHERE release = 'due'",
            [],
        )?;
        Ok(kept as u64)
    }

    /// An account of ours was deleted.
    pub fn deleted(&mut self, now: Timestamp, deletion: &Deletion) -> Sql<()> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        let user = user_of(&transaction, &deletion.key)?;
        let was = known_account(&transaction, &deletion.key, &deletion.account)?;
        transaction.execute("DELETE FROM accounts WHERE email_key = ?1", [deletion.key.as_str()])?;
        events::count(
            &transaction,
            run,
            RunCounts {
                deleted: 1,
                ..RunCounts::default()
            },
        )?;
        let event = NewEvent {
            user_id: user.as_deref(),
            email: Some(deletion.key.as_str()),
            before: Some(was),
            ..NewEvent::default()
        };
        events::record(&transaction, now, run, EventKind::AccountDeleted, event)?;
        transaction.commit()
    }

    /// Deleting was refused for good: the account stays, is shown with the peer's words, and is tried again on `retry`.
    pub fn delete_refused(&mut self, now: Timestamp, deletion: &Deletion, reason: &str) -> Sql<()> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        let parked = transaction.execute(
            "UPDATE accounts SET refused = ?2, refused_at = ?3 WHERE email_key = ?1 AND account_id = ?4 AND release = 'due'",
            [
                deletion.key.as_str(),
                reason,
                &stored(now),
                deletion.account.as_str(),
            ],
        )?;
        if parked == 0 {
            // Nobody wants it deleted any more.
            return Ok(());
        }
        let reason = format!("deleting: {reason}");
        refusal(&transaction, now, run, &deletion.key, &reason)?;
        transaction.commit()
    }

    /// Brings everything that was refused back into the work. Returns how many users that concerns.
    pub fn retry(&mut self) -> Sql<u64> {
        let transaction = self.db.transaction()?;
        let parked = transaction.execute(
            "UPDATE accounts SET refused = NULL, refused_at = NULL, association_refused = NULL
             WHERE refused IS NOT NULL OR association_refused IS NOT NULL",
            [],
        )?;
        transaction.commit()?;
        Ok(parked as u64)
    }
}

/// What is known of an account that is about to be forgotten, for the event that says so.
pub(super) fn known_account(db: &Connection, key: &EmailKey, account: &AccountId) -> Sql<serde_json::Value> {
    let known = db
        .prepare_cached("SELECT origin, directory_user_id FROM accounts WHERE email_key = ?1 AND account_id = ?2")?
        .query_row([key.as_str(), account.as_str()], |row| {
            let (origin, directory_user): (Option<String>, Option<String>) = (row.get(0)?, row.get(1)?);
            Ok(json!({ "account_id": account, "origin": origin, "directory_user_id": directory_user }))
        })
        .optional()?;
    Ok(known.unwrap_or_else(|| json!({ "account_id": account })))
}

pub(super) fn set_account(
    db: &Connection,
    key: &EmailKey,
    account: &AccountId,
    origin: &str,
    directory_user: Option<&DirectoryUserId>,
) -> Sql<()> {
    db.prepare_cached(
        // It is absent for as long as its users are.
        "INSERT INTO accounts (email_key, account_id, origin, directory_user_id, absent_polls)
         VALUES (?1, ?2, ?3, ?4, coalesce((SELECT min(absent_polls) FROM users WHERE email_key = ?1 AND removed_at IS NULL), 0))
         ON CONFLICT (email_key) DO UPDATE SET account_id = ?2, origin = ?3, directory_user_id = ?4, intent_at = NULL,
            look = 0, conflict = 0, refused = NULL, refused_at = NULL, association_refused = NULL, release = NULL,
            absent_polls = excluded.absent_polls",
    )?
    .execute(params![
        key.as_str(),
        account.as_str(),
        origin,
        directory_user.map(DirectoryUserId::as_str)
    ])?;
    Ok(())
}

/// Torq's id of (the first of) the users with this e-mail; of a removed one when nobody present has it is no use here.
pub(super) fn user_of(db: &Connection, key: &EmailKey) -> Sql<Option<String>> {
    db.prepare_cached("SELECT id FROM users WHERE email_key = ?1 AND removed_at IS NULL ORDER BY no LIMIT 1")?
        .query_row([key.as_str()], |row| row.get(0))
        .optional()
}

pub(super) fn park(db: &Connection, now: Timestamp, run: Option<i64>, key: &EmailKey, reason: &str) -> Sql<()> {
    db.execute(
        "UPDATE accounts SET refused = ?2, refused_at = ?3, intent_at = NULL, look = 0, conflict = 0 WHERE email_key = ?1",
        params![key.as_str(), reason, stored(now)],
    )?;
    refusal(db, now, run, key, reason)
}

fn refusal(db: &Connection, now: Timestamp, run: Option<i64>, key: &EmailKey, reason: &str) -> Sql<()> {
    events::count(
        db,
        run,
        RunCounts {
            refused: 1,
            ..RunCounts::default()
        },
    )?;
    let user = user_of(db, key)?;
    let event = NewEvent {
        user_id: user.as_deref(),
        email: Some(key.as_str()),
        reason: Some(reason),
        ..NewEvent::default()
    };
    events::record(db, now, run, EventKind::AccountRefused, event)
}
