//! Adoption: JumpCloud's list of accounts compared with what is known of them. Accounts of users are adopted by e-mail, lost ones
//! noticed, creates that were not answered resolved.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::accounts::{Deletion, known_account, park, set_account, user_of};
use super::connector::keep_made;
use super::{NewEvent, Sql, Store, events, instant, stored};
use crate::jumpcloud::{Account, account_print};
use crate::model::{AccountId, DirectoryUserId, EmailKey};
use crate::view::{EventKind, RunCounts};

/// No create takes longer to settle.
const MAX_SETTLING: SignedDuration = SignedDuration::from_hours(1);

/// What adopting a page of JumpCloud's list did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Accounts that were not known before.
    pub found: u64,
    /// Those of creates that were not answered, and took effect all the same.
    pub recovered: u64,
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

/// What became of an account that was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It is not there any more.
    Gone,
    /// Nor is its application.
    WithItsApplication,
    /// It is there, as that of another e-mail.
    Renamed,
}

/// Why a user is parked whose account is said to be there, and is not.
const UNLISTED: &str =
    "JumpCloud says that the application has an account with this e-mail (409), and does not list it";
/// Why a user is parked in whose place JumpCloud makes somebody else.
const ASTRAY: &str = "JumpCloud answers the create with an account of another e-mail, and lists none with this one: look there for what it made instead";

/// Why a user is parked whose account is in JumpCloud's list and cannot be read.
const UNREADABLE: &str = "JumpCloud lists an account with this e-mail that cannot be read (its id is missing or no text); none is made beside it";

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

    /// Accounts that are known and that JumpCloud did not list as those of their e-mails (`seen`: [`account_print`]s).
    pub fn accounts_not_in(&self, seen: &HashSet<u64>) -> Sql<Vec<Unresolved>> {
        let mut statement = self
            .db
            .prepare("SELECT email_key, account_id FROM accounts WHERE account_id IS NOT NULL")?;
        let mut rows = statement.query([])?;
        let mut gone = Vec::new();
        while let Some(row) = rows.next()? {
            let key = EmailKey::fold(row.get_ref(0)?.as_str()?);
            let id = row.get_ref(1)?.as_str()?;
            if !seen.contains(&account_print(id, &key)) {
                let account = AccountId::new(id);
                gone.push(Unresolved { key, account });
            }
        }
        Ok(gone)
    }

    /// An account is gone from JumpCloud, or somebody else's now: what was known of it is forgotten, and its user is pending again.
    /// One that was to be deleted and is gone, was deleted: by a request whose answer was lost, or by somebody else. Whether it is
    /// lost: one that was made a moment ago is not, for it may be a replica that says so and has not heard of it yet. That is looked
    /// into when it must have.
    pub fn account_lost(&mut self, now: Timestamp, lost: &Unresolved, why: Lost) -> Sql<bool> {
        let due: bool = self
            .db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM accounts WHERE email_key = ?1 AND account_id = ?2 AND release = 'due')",
            )?
            .query_row([lost.key.as_str(), lost.account.as_str()], |row| row.get(0))?;
        if due && why == Lost::Gone {
            let deletion = Deletion {
                key: lost.key.clone(),
                account: lost.account.clone(),
            };
            self.deleted(now, &deletion)?;
            return Ok(true);
        }
        if why == Lost::Gone {
            let just_made = self.db.execute(
                &format!(
                    "UPDATE accounts SET look = 1 WHERE email_key = ?1 AND account_id = ?2 AND NOT {}",
                    settled(now)
                ),
                [lost.key.as_str(), lost.account.as_str()],
            )?;
            if just_made > 0 {
                return Ok(false);
            }
        }
        let run = self.run;
        let transaction = self.db.transaction()?;
        let was = known_account(&transaction, &lost.key, &lost.account)?;
        if why != Lost::Renamed {
            // Whoever said so may have been wrong: by its id alone it is ours again, should it turn up.
            keep_made(&transaction, Some(lost.key.as_str()))?;
        }
        let known = transaction.execute(
            "UPDATE accounts SET account_id = NULL, origin = NULL, directory_user_id = NULL, intent_at = NULL, release = NULL,
                refused = NULL, refused_at = NULL, association_refused = NULL
             WHERE email_key = ?1 AND account_id = ?2",
            [lost.key.as_str(), lost.account.as_str()],
        )?;
        if known == 0 {
            // While it was asked for, somebody had it forgotten: then nothing is to be noted of it.
            return Ok(false);
        }
        let user = user_of(&transaction, &lost.key)?;
        let event = NewEvent {
            user_id: user.as_deref(),
            email: Some(lost.key.as_str()),
            before: Some(was),
            reason: Some(match why {
                Lost::Gone | Lost::WithItsApplication => "it is not in JumpCloud any more",
                Lost::Renamed => "it has another e-mail in JumpCloud now",
            }),
            ..NewEvent::default()
        };
        events::record(&transaction, now, run, EventKind::AccountLost, event)?;
        transaction.commit()?;
        Ok(true)
    }

    /// JumpCloud's list has accounts that cannot be read, and these e-mails are theirs: their users are parked.
    pub fn park_unreadable(&mut self, now: Timestamp, keys: &[EmailKey]) -> Sql<()> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        for key in keys {
            let is_open: bool = transaction.query_row(
                "SELECT NOT EXISTS (SELECT 1 FROM accounts WHERE email_key = ?1 AND (account_id IS NOT NULL OR refused IS NOT NULL))",
                [key.as_str()],
                |row| row.get(0),
            )?;
            if is_open && user_of(&transaction, key)?.is_some() {
                transaction.execute(
                    "INSERT INTO accounts (email_key) VALUES (?1) ON CONFLICT DO NOTHING",
                    [key.as_str()],
                )?;
                park(&transaction, now, run, key, UNREADABLE)?;
            }
        }
        transaction.commit()
    }

    /// JumpCloud's list was read to its end, from `began` on. What was looked for and is not there may be sent again, unless it may
    /// still take effect; a 409 that the list does not bear out is parked.
    pub fn finish_adoption(&mut self, began: Timestamp) -> Sql<()> {
        let run = self.run;
        let transaction = self.db.transaction()?;
        let settled = format!("look = 1 AND {}", settled(began));
        let conflicts: Vec<(String, u8)> = transaction
            .prepare(&format!(
                "SELECT email_key, conflict FROM accounts WHERE {settled} AND conflict AND account_id IS NULL"
            ))?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Sql<_>>()?;
        for (key, conflict) in conflicts {
            let reason = if conflict == 2 { ASTRAY } else { UNLISTED };
            park(&transaction, began, run, &EmailKey::fold(&key), reason)?;
        }
        transaction.execute(
            &format!("UPDATE accounts SET look = 0, conflict = 0, settles_at = NULL WHERE {settled}"),
            [],
        )?;
        // What a create without an answer has not brought about by now, somebody else has, whenever it turns up: it is not ours.
        transaction.execute(
            "UPDATE accounts SET intent_at = NULL WHERE account_id IS NULL AND look = 0 AND intent_at IS NOT NULL",
            [],
        )?;
        transaction.execute("UPDATE connector SET known_at = ?1", [stored(began)])?;
        transaction.commit()
    }

    /// When the last of the writes is settled that are to be looked for: until then, not to be in the list is not yet not to be there.
    /// Deletions that are repeated anyway are not waited for.
    pub fn settles_at(&self) -> Sql<Option<Timestamp>> {
        self.db
            .query_row(
                "SELECT max(settles_at) FROM accounts WHERE look = 1 AND release IS NOT 'due'",
                [],
                |row| row.get(0),
            )
            .map(instant)
    }
}

/// Whether what a create or a deletion brings about shows in whatever is read from this moment on.
pub(super) fn settled(at: Timestamp) -> String {
    // What is settled only far in the future was noted by a clock that was ahead.
    format!(
        "(settles_at IS NULL OR settles_at <= '{}' OR settles_at > '{}')",
        stored(at),
        stored(at + MAX_SETTLING)
    )
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
    let user = user_of(db, key)?;
    if user.is_none() && known.as_ref().is_none_or(|known| !known.unanswered) {
        // Nobody in Torq has this e-mail; unless we asked for it ourselves, the account is none of our business.
        return Ok(());
    }
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
    let mut after = json!({ "account_id": account.id, "directory_user_id": directory_user });
    if again {
        after["origin"] = json!(origin);
    }
    let names = [&account.email, &account.username].into_iter().flatten();
    let event = NewEvent {
        user_id: user.as_deref(),
        // The one that it was recognised by.
        email: names.map(String::as_str).find(|name| EmailKey::fold(name) == *key),
        after: Some(after),
        reason,
        ..NewEvent::default()
    };
    events::record(db, now, run, kind, event)?;
    adopted.found += u64::from(!ours);
    adopted.recovered += u64::from(ours);
    Ok(())
}
