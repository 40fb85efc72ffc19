//! Erasing a person who left: rows, events, whatever names them, and the bytes in the files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use super::connector::keep_made;
use super::removed::{copies, delete};
use super::retention::renumber_poll;
use super::{NewEvent, Sql, State, StateError, Store, events, stored};
use crate::model::EmailKey;
use crate::view::EventKind;

/// What is left where a person was named.
const ERASED: &str = "(forgotten)";

/// With what an event begins that says so. It is in the states that are out there, and found by these words: they never change.
pub(super) const FORGOTTEN: &str = "somebody who left Torq was forgotten";

/// What became of a wish to erase somebody, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Erasure {
    /// Nothing is known of such a person.
    Unknown,
    /// The person is in Torq still; with this id.
    Present(String),
    /// Something about their account is not settled yet: what.
    Unsettled(String),
    /// Erased, or to be erased.
    Erased(Erased),
}

/// What is known of a person, and goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Torq ids.
    pub ids: Vec<String>,
    /// Events.
    pub events: u64,
    /// Places elsewhere, such as reasons, that named them.
    pub mentions: u64,
    /// Accounts that JumpCloud has for them, as far as it is known, and that stay there.
    pub accounts: Vec<String>,
    /// Older copies of the state beside it, which name everybody.
    pub copies: u64,
    /// Somebody was reading the state, so bytes may be left in its log until nobody does.
    pub lingering: bool,
}

/// A person, by everything that they are known by.
struct Person {
    /// Torq ids.
    ids: BTreeSet<String>,
    /// Folded e-mails that are nobody else's.
    keys: BTreeSet<String>,
}

impl State {
    /// Erases somebody who left, or says what that would erase (`really` is false). By a Torq id, or by an e-mail.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub async fn erase(&self, now: Timestamp, person: String, really: bool) -> Result<Erasure, StateError> {
        let copies = self.copies();
        if really {
            // First: who is cut short finds the person still known when it is repeated.
            let wanted = person.clone();
            let goes = self.call(move |store| Ok(store.find_person(&wanted)?.is_ok())).await?;
            if goes {
                copies.iter().try_for_each(|copy| delete(copy))?;
            }
        }
        let mut erasure = self.call(move |store| store.erase(now, &person, really)).await?;
        if let Erasure::Erased(erased) = &mut erasure {
            erased.copies = copies.len() as u64;
        }
        if really && matches!(erasure, Erasure::Erased(_) | Erasure::Unknown) {
            // Also where nothing is known any more: an earlier time may have been cut short before this.
            let clean = self.call(|store| store.rewrite()).await?;
            if let Erasure::Erased(erased) = &mut erasure {
                erased.lingering = !clean;
            }
        }
        Ok(erasure)
    }

    /// The copies that were made before migrations.
    fn copies(&self) -> Vec<PathBuf> {
        let path = &self.shared.path;
        let folder = path.parent().unwrap_or(path);
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.and_then(crate::model::ConnectorName::parse);
        name.map(|name| copies(folder, &name)).unwrap_or_default()
    }
}

impl Store {
    fn erase(&mut self, now: Timestamp, person: &str, really: bool) -> Sql<Erasure> {
        let found = match self.find_person(person)? {
            Ok(found) => found,
            Err(erasure) => return Ok(erasure),
        };
        let erase = |store: &mut Self| {
            let transaction = store.db.transaction()?;
            let erased = erase_person(&transaction, now, &found)?;
            if really {
                let text = format!(
                    "{FORGOTTEN}, as a person asked: {} events and {} mentions are gone",
                    erased.events, erased.mentions
                );
                let event = NewEvent {
                    reason: Some(&text),
                    ..NewEvent::default()
                };
                events::record(&transaction, now, None, EventKind::StateChanged, event)?;
                transaction.commit()?;
            }
            // Otherwise it is rolled back: what would go was counted by letting it go.
            Ok(erased)
        };
        // A person is told that it is so.
        let erased = self.durably(|store| store.thoroughly(erase))?;
        Ok(Erasure::Erased(erased))
    }

    /// Who is meant, or why nobody can be erased.
    fn find_person(&self, person: &str) -> Sql<Result<Person, Erasure>> {
        let person = person.trim();
        let key = EmailKey::fold(person);
        let db = &self.db;
        let known: bool = db.query_row(
            "SELECT EXISTS (SELECT 1 FROM users WHERE id = ?1) OR EXISTS (SELECT 1 FROM events WHERE user_id = ?1)",
            [person],
            |row| row.get(0),
        )?;
        let mut ids = BTreeSet::new();
        let mut keys = BTreeSet::new();
        if known {
            ids.insert(person.to_owned());
        } else if !key.is_empty() {
            keys.insert(key.as_str().to_owned());
            let mut statement = db.prepare("SELECT id FROM users WHERE email_key = ?1")?;
            let rows = statement.query_map([key.as_str()], |row| row.get(0))?;
            ids.extend(rows.collect::<Sql<Vec<String>>>()?);
            // Whoever had the address once is who is meant, too.
            walk(db, |event| {
                if let Some(id) = event.user_id
                    && event.keys.contains(&key)
                {
                    ids.insert(id);
                }
            })?;
        }
        for id in &ids {
            let present: bool = db.query_row(
                "SELECT EXISTS (SELECT 1 FROM users WHERE id = ?1 AND removed_at IS NULL)",
                [id],
                |row| row.get(0),
            )?;
            if present {
                return Ok(Err(Erasure::Present(id.clone())));
            }
        }
        for id in &ids {
            let own: Option<String> = db
                .query_row("SELECT email_key FROM users WHERE id = ?1", [id], |row| row.get(0))
                .optional()?;
            keys.extend(own.filter(|key| !key.is_empty()));
        }
        let mut named = false;
        walk(db, |event| {
            if event.user_id.as_ref().is_some_and(|id| ids.contains(id)) {
                keys.extend(event.keys.iter().map(|key| key.as_str().to_owned()));
            }
            named |= event.keys.iter().any(|key| keys.contains(key.as_str()));
        })?;
        // An address that is somebody else's by now is not theirs any more.
        let mut own = BTreeSet::new();
        for key in keys {
            let mut statement = db.prepare_cached("SELECT id FROM users WHERE email_key = ?1")?;
            let holders: Vec<String> = statement.query_map([&key], |row| row.get(0))?.collect::<Sql<_>>()?;
            if holders.iter().all(|id| ids.contains(id)) {
                own.insert(key);
            }
        }
        let mut account = false;
        for key in &own {
            account |= db.query_row(
                "SELECT EXISTS (SELECT 1 FROM accounts WHERE email_key = ?1)",
                [key],
                |row| row.get::<_, bool>(0),
            )?;
            if let Some(what) = unsettled(db, key)? {
                return Ok(Err(Erasure::Unsettled(what.to_owned())));
            }
        }
        if ids.is_empty() && !account && !named {
            return Ok(Err(Erasure::Unknown));
        }
        Ok(Ok(Person { ids, keys: own }))
    }

    /// Writes the file anew, without what was deleted, and empties its log. Whether that was done: somebody who reads keeps the log.
    fn rewrite(&mut self) -> Sql<bool> {
        // A copy in a file somewhere else would leave there what is erased here.
        self.db.pragma_update(None, "temp_store", "MEMORY")?;
        let rewritten = self.db.execute_batch("VACUUM");
        self.db.pragma_update(None, "temp_store", "DEFAULT")?;
        rewritten?;
        self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok(row.get::<_, i64>(0)? == 0)
        })
    }
}

/// What keeps an account from being forgotten; `None` when nothing does.
fn unsettled(db: &Connection, key: &str) -> Sql<Option<&'static str>> {
    let found: Option<(Option<String>, bool, bool)> = db
        .query_row(
            "SELECT release, intent_at IS NOT NULL OR look <> 0, origin = 'created' AND account_id IS NOT NULL
             FROM accounts WHERE email_key = ?1",
            [key],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get::<_, Option<bool>>(2)?.unwrap_or_default(),
                ))
            },
        )
        .optional()?;
    Ok(found.and_then(|(release, under_way, ours)| match release.as_deref() {
        Some("held") => Some("whether their account goes waits for approval"),
        Some("due" | "approved") => Some("their account is about to be deleted in JumpCloud"),
        _ if under_way => {
            Some("their account was made just now, or may still be made by a create that was not answered")
        }
        None if ours => Some("what becomes of their account is decided by the next polls"),
        _ => None,
    }))
}

/// An event, as far as it names somebody.
struct Named {
    user_id: Option<String>,
    keys: Vec<EmailKey>,
}

/// Walks over all events.
fn walk(db: &Connection, mut see: impl FnMut(Named)) -> Sql<()> {
    let mut statement = db.prepare("SELECT user_id, email, before, after FROM events")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let email: Option<String> = row.get(1)?;
        let mut keys: Vec<_> = email.as_deref().map(EmailKey::fold).into_iter().collect();
        for column in [2, 3] {
            let Some(text) = row.get_ref(column)?.as_str_or_null()? else {
                continue;
            };
            if text.contains("\"email\"")
                && let Ok(fields) = serde_json::from_str::<serde_json::Value>(text)
                && let Some(email) = fields["email"].as_str()
            {
                keys.push(EmailKey::fold(email));
            }
        }
        keys.retain(|key| !key.is_empty());
        let user_id = row.get(0)?;
        see(Named { user_id, keys });
    }
    Ok(())
}

fn erase_person(db: &Transaction<'_>, now: Timestamp, person: &Person) -> Sql<Erased> {
    let mut erased = Erased {
        ids: person.ids.iter().cloned().collect(),
        ..Erased::default()
    };
    for key in &person.keys {
        let account: Option<Option<String>> = db
            .query_row("SELECT account_id FROM accounts WHERE email_key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()?;
        erased.accounts.extend(account.flatten());
        // By its id alone it is ours again, should its user come back.
        keep_made(db, Some(key))?;
        db.execute("DELETE FROM accounts WHERE email_key = ?1", [key])?;
        db.execute("UPDATE releases SET email_key = '' WHERE email_key = ?1", [key])?;
        erased.events += erase_nameless(db, key)?;
    }
    for id in &person.ids {
        // What is forgotten was a removal all the same: the guard counts those of a day.
        db.execute(
            "INSERT INTO releases (at, email_key) SELECT removed_at, '' FROM users
             WHERE id = ?1 AND removal IS NULL AND removed_at > ?2",
            params![id, stored(now - SignedDuration::from_hours(24))],
        )?;
        db.execute("DELETE FROM users WHERE id = ?1", [id])?;
        erased.events += db.execute("DELETE FROM events WHERE user_id = ?1", [id])? as u64;
    }
    renumber_poll(db)?;
    // Short ids would be found in words that mean somebody else.
    let names = person.keys.iter().chain(&person.ids);
    let needles: Vec<Vec<char>> = names
        .map(|name| name.chars().collect::<Vec<_>>())
        .filter(|name| name.len() >= 6)
        .collect();
    for (table, column) in [
        ("events", "email"),
        ("events", "before"),
        ("events", "after"),
        ("events", "reason"),
        ("runs", "reason"),
        ("connector", "reason"),
        ("connector", "action"),
        ("connector", "hold_reason"),
        ("connector", "notice"),
        ("accounts", "refused"),
        ("accounts", "association_words"),
    ] {
        erased.mentions += scrub(db, table, column, &needles)?;
    }
    Ok(erased)
}

/// Deletes the events about an e-mail that are about no user; how many there were. Folded here: SQLite knows only the case of ASCII.
fn erase_nameless(db: &Connection, key: &str) -> Sql<u64> {
    let about = {
        let mut statement = db.prepare("SELECT no, email FROM events WHERE user_id IS NULL AND email IS NOT NULL")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        rows.collect::<Sql<Vec<_>>>()?
    };
    let about: Vec<_> = about
        .into_iter()
        .filter(|(_, email)| EmailKey::fold(email).as_str() == key)
        .collect();
    for (no, _) in &about {
        db.execute("DELETE FROM events WHERE no = ?1", [no])?;
    }
    Ok(about.len() as u64)
}

/// Takes names out of a column of texts; how many there were.
fn scrub(db: &Connection, table: &str, column: &str, needles: &[Vec<char>]) -> Sql<u64> {
    let key = match table {
        "connector" => "only",
        "accounts" => "email_key",
        _ => "no",
    };
    let mut changed = Vec::new();
    {
        let mut statement = db.prepare(&format!(
            "SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL"
        ))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(text) = without(row.get_ref(1)?.as_str()?, needles) {
                changed.push((row.get::<_, rusqlite::types::Value>(0)?, text));
            }
        }
    }
    for (row, text) in &changed {
        db.execute(
            &format!("UPDATE {table} SET {column} = ?2 WHERE {key} = ?1"),
            params![row, text],
        )?;
    }
    Ok(changed.len() as u64)
}

/// A text without these folded names, whatever their case; `None` when none of them is in it.
fn without(text: &str, needles: &[Vec<char>]) -> Option<String> {
    let mut rest: Vec<char> = text.chars().collect();
    let mut found = false;
    for needle in needles {
        let mut at = 0;
        while at + needle.len() <= rest.len() {
            let end = at + needle.len();
            if is_name(&rest, at, end, needle) {
                rest.splice(at..end, ERASED.chars());
                found = true;
                at += ERASED.len();
            } else {
                at += 1;
            }
        }
    }
    found.then(|| rest.into_iter().collect())
}

/// Whether this part of a text is the name, and no part of a longer one.
fn is_name(text: &[char], at: usize, end: usize, name: &[char]) -> bool {
    let goes_on = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+');
    let folded = |c: &char| c.to_lowercase().next();
    let begins = at == 0 || !(goes_on(&text[at - 1]) || text[at - 1] == '.');
    begins && text[at..end].iter().map(folded).eq(name.iter().map(folded)) && !text.get(end).is_some_and(goes_on)
}

#[cfg(test)]
mod tests;
