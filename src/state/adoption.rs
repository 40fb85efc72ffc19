//! Adoption: JumpCloud's list of accounts compared with what is known of them. Accounts of users are adopted by e-mail, lost ones
//! noticed, creates that were not answered resolved.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::accounts::{park, set_account, user_of};
use super::{NewEvent, Sql, Store, events, stored};
use crate::jumpcloud::Account;
use crate::model::{AccountId, DirectoryUserId, EmailKey};
use crate::view::{EventKind, RunCounts};

/// What adopting a page of JumpCloud's list did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Accounts that were not known before.
    pub found: u64,
    /// Accounts with the e-mail of one that is known under another id: of use only if that one is gone.
    pub others: Vec<Account>,
}

/// An account that was known and was not in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// The folded e-mail.
    pub key: EmailKey,
    /// The account.
    pub account: AccountId,
}

impl Store {
    /// Adopts a page of the application's accounts: whoever of them has the e-mail of a user, or is known already, is noted.
    /// Accounts of nobody in Torq, and those with neither e-mail nor user name, are left alone.
    pub fn adopt(&mut self, now: Timestamp, accounts: &[Account]) -> Sql<Adopted> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        let mut adopted = Adopted::default();
        for account in accounts {
            let Some(key) = account.key() else { continue };
            adopt_one(&transaction, now, run, &key, account, &mut adopted)?;
        }
        transaction.commit()?;
        Ok(adopted)
    }

    /// Accounts that are known and whose id is not in `seen` (hashes of the ids that JumpCloud listed).
    pub fn accounts_not_in(&self, seen: &HashSet<u64>) -> Sql<Vec<Unresolved>> {
        let mut statement = self
            .db
            .prepare("SELECT email_key, account_id FROM accounts WHERE account_id IS NOT NULL")?;
        let mut rows = statement.query([])?;
        let mut gone = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get_ref(1)?.as_str()?;
            if !seen.contains(&xxh3_64(id.as_bytes())) {
                gone.push(Unresolved {
                    key: EmailKey::fold(row.get_ref(0)?.as_str()?),
                    account: AccountId::new(id),
                });
            }
        }
        Ok(gone)
    }

    /// An account is gone from JumpCloud: what was known of it is forgotten, and its user is pending again.
    pub fn account_lost(&mut self, now: Timestamp, lost: &Unresolved) -> Sql<()> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        transaction.execute(
            "UPDATE accounts SET account_id = NULL, origin = NULL, directory_user_id = NULL, intent_at = NULL, release = NULL,
                association_refused = NULL
             WHERE email_key = ?1 AND account_id = ?2",
            [lost.key.as_str(), lost.account.as_str()],
        )?;
        let user = user_of(&transaction, &lost.key)?;
        let event = NewEvent {
            user_id: user.as_deref(),
            email: Some(lost.key.as_str()),
            before: Some(json!({ "account_id": lost.account.as_str() })),
            reason: Some("it is not in JumpCloud any more"),
            ..NewEvent::default()
        };
        events::record(&transaction, now, run, EventKind::AccountLost, event)?;
        transaction.commit()
    }

    /// JumpCloud's list was read to its end. What was looked for and is not there may be sent again; a 409 that the list does
    /// not bear out is parked.
    pub fn finish_adoption(&mut self, now: Timestamp) -> Sql<()> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        let conflicts: Vec<String> = transaction
            .prepare("SELECT email_key FROM accounts WHERE look = 1 AND conflict AND account_id IS NULL")?
            .query_map([], |row| row.get(0))?
            .collect::<Sql<_>>()?;
        for key in conflicts {
            let reason =
                "JumpCloud says that the application has an account with this e-mail (409), and does not list it";
            park(&transaction, now, run, &EmailKey::fold(&key), reason)?;
        }
        transaction.execute("UPDATE accounts SET look = 0, conflict = 0 WHERE look = 1", [])?;
        transaction.execute("UPDATE connector SET known_at = ?1", [stored(now)])?;
        transaction.commit()
    }
}

fn adopt_one(
    db: &Connection,
    now: Timestamp,
    run: Option<i64>,
    key: &EmailKey,
    account: &Account,
    adopted: &mut Adopted,
) -> Sql<()> {
    struct Known {
        account_id: Option<String>,
        directory_user_id: Option<String>,
        unanswered: bool,
    }
    let known = db
        .prepare_cached(
            "SELECT account_id, directory_user_id, intent_at IS NOT NULL FROM accounts WHERE email_key = ?1",
        )?
        .query_row([key.as_str()], |row| {
            Ok(Known {
                account_id: row.get(0)?,
                directory_user_id: row.get(1)?,
                unanswered: row.get(2)?,
            })
        })
        .optional()?;
    let directory_user = account.directory_user();
    match &known {
        Some(known) if known.account_id.as_deref() == Some(account.id.as_str()) => {
            let now_with = directory_user.as_ref().map(DirectoryUserId::as_str);
            if known.directory_user_id.as_deref() != now_with {
                // Somebody else changed it, or the directory user was deleted.
                db.execute(
                    "UPDATE accounts SET directory_user_id = ?2, association_refused = NULL WHERE email_key = ?1",
                    params![key.as_str(), now_with],
                )?;
                let user = user_of(db, key)?;
                let event = NewEvent {
                    user_id: user.as_deref(),
                    email: Some(key.as_str()),
                    before: Some(json!({ "directory_user_id": known.directory_user_id })),
                    after: Some(json!({ "directory_user_id": now_with })),
                    reason: Some("changed in JumpCloud"),
                };
                events::record(db, now, run, EventKind::AccountAssociated, event)?;
            }
            return Ok(());
        }
        Some(Known {
            account_id: Some(_), ..
        }) => {
            adopted.others.push(account.clone());
            return Ok(());
        }
        _ => {}
    }
    let Some(user) = user_of(db, key)? else {
        // Nobody in Torq has this e-mail; unless we asked for it ourselves, the account is none of our business.
        if known.is_none_or(|known| !known.unanswered) {
            return Ok(());
        }
        return set_account(db, key, &account.id, "created", directory_user.as_ref());
    };
    // It was not there before a create of ours that was not answered, and is now: it is ours.
    let ours = known.is_some_and(|known| known.unanswered);
    // Or we made it before something else was configured for a while.
    let again = !ours
        && db
            .prepare_cached(
                "DELETE FROM made WHERE account_id = ?1 AND application_id = (SELECT application_id FROM connector)",
            )?
            .execute([account.id.as_str()])?
            > 0;
    let (origin, kind, counts) = if ours {
        let counts = RunCounts {
            created: 1,
            associated: u64::from(directory_user.is_some()),
            ..RunCounts::default()
        };
        ("created", EventKind::AccountCreated, counts)
    } else {
        let counts = RunCounts {
            found: 1,
            ..RunCounts::default()
        };
        let origin = if again { "created" } else { "found" };
        (origin, EventKind::AccountFound, counts)
    };
    let reason = match (ours, again) {
        (true, _) => Some("found after a create that was not answered"),
        (false, true) => Some("made by this connector before another organisation was configured, or found gone"),
        (false, false) => None,
    };
    set_account(db, key, &account.id, origin, directory_user.as_ref())?;
    events::count(db, run, counts)?;
    let event = NewEvent {
        user_id: Some(&user),
        email: account.email.as_deref().or(account.username.as_deref()),
        after: Some(json!({ "account_id": account.id, "directory_user_id": directory_user })),
        reason,
        ..NewEvent::default()
    };
    events::record(db, now, run, kind, event)?;
    adopted.found += u64::from(!ours);
    Ok(())
}
