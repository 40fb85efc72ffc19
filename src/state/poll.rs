//! Polls: pages applied with their cursors, and the snapshot that comes of them. A page is one transaction: changed rows, events,
//! whom it saw, and where it goes on. What a complete poll means for those who were not seen is the business of `removal`.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value, json};

use super::connector::notice;
use super::later::{put_off, take_put_off};
use super::seen::{Memory, Worth, pack};
use super::{NewEvent, Sql, Store, events, instant, stored};
use crate::config::UserFilter;
use crate::model::{Email, EmailKey, Listing};
use crate::torq::{PageToken, User, UsersPage};
use crate::view::{EventKind, RunCounts};

/// A poll that was cut short longer ago than this is started afresh: its page tokens are surely stale.
const RESUMABLE: jiff::SignedDuration = jiff::SignedDuration::from_hours(6);

/// Where a listing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The token of the page to be read next; `None` for the first.
    pub next: Option<PageToken>,
    /// Pages applied so far.
    pub pages: u64,
    /// Whether the last page was applied.
    pub done: bool,
}

/// What applying a page did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Users on the page who were not seen before in this pass over the listing.
    pub fresh: usize,
    /// Users new in the snapshot.
    pub appeared: u64,
    /// Users whose record changed.
    pub changed: u64,
    /// Different users seen so far in this poll.
    pub seen: u64,
    /// Users of the snapshot now.
    pub present: u64,
}

impl Store {
    /// Begins a poll, or resumes the one that was cut short. Returns where both listings stand and since when it runs.
    pub fn begin_poll(&mut self, now: Timestamp, filter: &UserFilter) -> Sql<([Cursor; 2], Timestamp)> {
        self.apply_filter(now, filter)?;
        self.keep_books(|store| store.open_poll(now))
    }

    /// Since when the poll runs that was cut short and would be resumed; `None`: the next one begins anew.
    pub fn resumable(&self, now: Timestamp) -> Sql<Option<Timestamp>> {
        let known: Option<(String, String)> = self
            .db
            .query_row(
                "SELECT started, coalesce((SELECT max(at) FROM poll_pages), started) FROM poll",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        Ok(known.and_then(|(started, touched)| {
            let age = now.duration_since(instant(Some(touched))?);
            // By a clock that was ahead, a page may have been noted in what is the future now.
            (age.abs() < RESUMABLE).then(|| instant(Some(started))).flatten()
        }))
    }

    fn open_poll(&mut self, now: Timestamp) -> Sql<([Cursor; 2], Timestamp)> {
        let started = match self.resumable(now)? {
            Some(started) => started,
            None => {
                let transaction = self.db.transaction()?;
                clear_poll(&transaction)?;
                transaction.execute(
                    "INSERT INTO poll (only, started, newest) VALUES (1, ?1, (SELECT coalesce(max(no), 0) FROM users))",
                    [stored(now)],
                )?;
                transaction.commit()?;
                now
            }
        };
        self.poll = Some(Memory::load(&self.db)?);
        Ok((
            [cursor(&self.db, Listing::BOTH[0])?, cursor(&self.db, Listing::BOTH[1])?],
            started,
        ))
    }

    /// Applies a page of a listing: one transaction for its users, its events and its cursor.
    pub fn apply_page(
        &mut self,
        now: Timestamp,
        listing: Listing,
        page: &UsersPage,
        filter: &UserFilter,
    ) -> Sql<Applied> {
        let run = self.run;
        let mut memory = match self.poll.take() {
            Some(memory) => memory,
            None => Memory::load(&self.db)?,
        };
        let changes = self.db.total_changes();
        let transaction = self.db.transaction()?;
        let mut applied = Applied::default();
        let mut moved = false;
        let mut saw = Vec::with_capacity(page.users.len());
        for user in &page.users {
            let fingerprint = user.fingerprint(&mut memory.scratch);
            let no = match memory.unchanged(fingerprint) {
                Some(no) => no,
                None => {
                    let worth = |no, sso| match memory.worth(listing, no, sso) {
                        // Of which something is not known, nothing is kept.
                        Worth::Later if !user.unreadable.is_empty() => Worth::Everything,
                        worth => worth,
                    };
                    let record = Record { user, fingerprint };
                    let taken = apply_user(&transaction, now, run, record, filter, worth, &mut applied)?;
                    match taken.worth {
                        Worth::Everything => _ = memory.written.insert(taken.no),
                        Worth::Later => put_off(&transaction, taken.no, user)?,
                        Worth::Nothing => {}
                    }
                    moved |= taken.moved;
                    taken.no
                }
            };
            saw.push(no);
        }
        if listing == Listing::Sso && page.next.is_none() {
            let here: HashSet<u32> = saw.iter().copied().collect();
            for (no, user) in take_put_off(&transaction)? {
                if here.contains(&no) || memory.worth(Listing::Local, no, false) == Worth::Nothing {
                    continue;
                }
                // They are in the other listing alone.
                let record = Record {
                    user: &user,
                    fingerprint: user.fingerprint(&mut memory.scratch),
                };
                let taken = apply_user(
                    &transaction,
                    now,
                    run,
                    record,
                    filter,
                    |_, _| Worth::Everything,
                    &mut applied,
                )?;
                memory.written.insert(no);
                moved |= taken.moved;
            }
        }
        for record in &page.unreadable {
            note_unreadable(&transaction, now, run, record.id.as_deref(), &record.reason)?;
            if record.id.is_none() {
                transaction.execute("UPDATE poll SET clean = 0, nameless = 1", [])?;
            }
        }
        let counts = RunCounts {
            appeared: applied.appeared,
            changed: applied.changed,
            ..RunCounts::default()
        };
        events::count(&transaction, run, counts)?;
        transaction
            .prepare_cached("INSERT INTO poll_pages (listing, at, next_token, seen) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                listing.as_str(),
                stored(now),
                page.next.as_ref().map(PageToken::as_str),
                pack(&saw)
            ])?;
        transaction.commit()?;
        if !moved {
            self.bookkeeping += self.db.total_changes() - changes;
        }
        memory.note(listing, &saw, page.next.is_none(), &mut applied);
        self.poll = Some(memory);
        Ok(applied)
    }

    /// Starts a listing again from its first page, e.g. when its page token went stale. Whoever was seen stays seen.
    pub fn restart_listing(&mut self, listing: Listing) -> Sql<()> {
        if let Some(memory) = &mut self.poll {
            memory.restart(listing);
        }
        // Seen in this poll, but not in the pass that begins now.
        self.db.execute(
            "UPDATE poll_pages SET listing = '' WHERE listing = ?1",
            [listing.as_str()],
        )?;
        Ok(())
    }

    /// Nothing is to be concluded from whom this poll does not see.
    pub fn doubt_poll(&mut self) -> Sql<()> {
        self.keep_books(|store| {
            store.db.execute("UPDATE poll SET clean = 0", [])?;
            Ok(())
        })
    }

    /// Gives the poll up; the next one starts afresh.
    pub fn abandon_poll(&mut self) -> Sql<()> {
        self.poll = None;
        let transaction = self.db.transaction()?;
        clear_poll(&transaction)?;
        transaction.commit()
    }

    /// Marks whom the filters leave out, when they are other filters than before. Changing a filter removes nobody; what it
    /// affects is told.
    pub fn apply_filter(&mut self, now: Timestamp, filter: &UserFilter) -> Sql<()> {
        let fingerprint = filter.fingerprint();
        let known: Option<String> = self
            .db
            .query_row("SELECT filters FROM connector", [], |row| row.get(0))?;
        if known.as_ref() == Some(&fingerprint) {
            return Ok(());
        }
        let transaction = self.db.transaction()?;
        let changes: Vec<(i64, Option<String>, Option<String>)> = {
            let mut statement =
                transaction.prepare("SELECT no, email_key, status, filtered FROM users WHERE removed_at IS NULL")?;
            let mut rows = statement.query([])?;
            let mut changes = Vec::new();
            while let Some(row) = rows.next()? {
                let key = EmailKey::fold(row.get_ref(1)?.as_str()?);
                let filtered = filter.admits(&key, row.get_ref(2)?.as_str()?).err();
                let was: Option<String> = row.get(3)?;
                if filtered != was {
                    changes.push((row.get(0)?, was, filtered));
                }
            }
            changes
        };
        let (mut out, mut again) = (0, 0);
        for (no, was, filtered) in changes {
            match (&was, &filtered) {
                (None, Some(_)) => out += 1,
                (Some(_), None) => again += 1,
                _ => {}
            }
            transaction.execute("UPDATE users SET filtered = ?2 WHERE no = ?1", params![no, filtered])?;
        }
        transaction.execute("UPDATE connector SET filters = ?1", [fingerprint])?;
        if known.is_some() {
            let users = |count: u64| format!("{count} user{}", if count == 1 { "" } else { "s" });
            let text = format!(
                "the filters are others than before: {} left out now, {} delivered again; nobody is removed, and accounts stay",
                users(out),
                users(again)
            );
            tracing::warn!(connector = %self.name, "{text}");
            notice(&transaction, now, self.run, &text)?;
        }
        transaction.commit()
    }
}

/// Forgets the poll that was running.
pub(super) fn clear_poll(db: &Connection) -> Sql<()> {
    db.execute_batch("DELETE FROM poll; DELETE FROM poll_pages; DELETE FROM poll_later;")
}

/// Where a listing stands: behind the last of its pages.
pub(super) fn cursor(db: &Connection, listing: Listing) -> Sql<Cursor> {
    let pages = db.query_row(
        "SELECT count(*) FROM poll_pages WHERE listing = ?1",
        [listing.as_str()],
        |row| row.get(0),
    )?;
    let last: Option<Option<String>> = db
        .query_row(
            "SELECT next_token FROM poll_pages WHERE listing = ?1 ORDER BY no DESC LIMIT 1",
            [listing.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    Ok(Cursor {
        done: last == Some(None),
        next: last.flatten().and_then(PageToken::new),
        pages,
    })
}

/// A user's row, as far as a page can change it.
struct Row {
    no: u32,
    email: String,
    status: String,
    sso: bool,
    role_id: String,
    created: Option<String>,
    last_login: Option<String>,
    filtered: Option<String>,
    removed: bool,
    first_seen: String,
}

/// What became of a record that is not known in just this form.
struct Taken {
    /// The user's number.
    no: u32,
    /// What it was worth.
    worth: Worth,
    /// Whether it changes who is there, by which e-mail, or who is delivered. A new time of login does not.
    moved: bool,
}

/// A user's record with the number that stands for it.
struct Record<'a> {
    user: &'a User,
    fingerprint: u64,
}

/// Applies one record that is not known in just this form: a new user, one who is back, a changed one, or one whose known
/// fields stay because the record's could not be read. `worth`: what it is worth, of whom it is about, who was
/// known as provisioned or not.
fn apply_user(
    db: &Connection,
    now: Timestamp,
    run: Option<i64>,
    record: Record<'_>,
    filter: &UserFilter,
    worth: impl Fn(u32, bool) -> Worth,
    applied: &mut Applied,
) -> Sql<Taken> {
    let Record { user, fingerprint } = record;
    let known = db
        .prepare_cached(
            "SELECT no, email, status, sso, role_id, created, last_login, filtered, removed_at IS NOT NULL, first_seen
             FROM users WHERE id = ?1",
        )?
        .query_row([&user.id], |row| {
            Ok(Row {
                no: row.get(0)?,
                email: row.get(1)?,
                status: row.get(2)?,
                sso: row.get(3)?,
                role_id: row.get(4)?,
                created: row.get(5)?,
                last_login: row.get(6)?,
                filtered: row.get(7)?,
                removed: row.get(8)?,
                first_seen: row.get(9)?,
            })
        })
        .optional()?;
    let email = Email::new(&user.email);
    let Some(known) = known else {
        let filtered = filter.admits(&email.key(), &user.status).err();
        db.prepare_cached(
            "INSERT INTO users (id, email, email_key, status, sso, role_id, created, last_login, fingerprint, first_seen, filtered)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            user.id,
            email.as_str(),
            email.key().as_str(),
            user.status,
            user.sso,
            user.role_id,
            user.created,
            user.last_login,
            fingerprint as i64,
            stored(now),
            filtered,
        ])?;
        applied.appeared += 1;
        // Rows are numbered from 1; 4 billion users would be refused by SQLite's integer conversion below.
        let no = u32::try_from(db.last_insert_rowid())
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        record_appeared(db, now, run, no, None)?;
        return Ok(Taken {
            no,
            worth: Worth::Everything,
            moved: true,
        });
    };

    // Whoever had left is known by nothing that could count more.
    let worth = worth(known.no, known.sso && !known.removed);
    if worth != Worth::Everything {
        return Ok(Taken {
            no: known.no,
            worth,
            moved: false,
        });
    }

    // What could not be read stays as it is known. An e-mail that is suddenly missing counts as unreadable, too: it would
    // turn a person's account into nobody's.
    let keep = |field: &str| user.unreadable.contains(&field);
    let email = if keep("email") || email.is_empty() {
        Email::new(&known.email)
    } else {
        email
    };
    let status = if keep("status") { &known.status } else { &user.status };
    let role_id = if keep("role_id") { &known.role_id } else { &user.role_id };
    let sso = if keep("sso_provision") { known.sso } else { user.sso };
    let created = if keep("created_time") {
        &known.created
    } else {
        &user.created
    };
    let last_login = if keep("last_login_time") {
        &known.last_login
    } else {
        &user.last_login
    };

    let (mut before, mut after) = (Map::new(), Map::new());
    let mut differ = |name: &str, old: Value, new: Value| {
        if old != new {
            before.insert(name.to_owned(), old);
            after.insert(name.to_owned(), new);
        }
    };
    differ("email", json!(known.email), json!(email.as_str()));
    differ("status", json!(known.status), json!(status));
    differ("sso", json!(known.sso), json!(sso));
    differ("role_id", json!(known.role_id), json!(role_id));
    differ("created", json!(known.created), json!(created));
    differ("last_login", json!(known.last_login), json!(last_login));

    if EmailKey::fold(&known.email) != email.key() {
        db.execute(
            "UPDATE accounts SET left_at = ?2 WHERE email_key = ?1",
            params![EmailKey::fold(&known.email).as_str(), stored(now)],
        )?;
    }
    let filtered = filter.admits(&email.key(), status).err();
    db.prepare_cached(
        "UPDATE users SET email = ?2, email_key = ?3, status = ?4, sso = ?5, role_id = ?6, created = ?7, last_login = ?8,
            fingerprint = ?9, filtered = ?10
         WHERE no = ?1",
    )?
    .execute(params![
        known.no,
        email.as_str(),
        email.key().as_str(),
        status,
        sso,
        role_id,
        created,
        last_login,
        fingerprint as i64,
        filtered,
    ])?;
    if known.removed {
        // Their removal was believed on its day, and goes on counting for it: a listing that shows a part of the workspace
        // now and then must not slip under the guard.
        db.prepare_cached(
            "INSERT INTO releases (at, email_key) SELECT removed_at, email_key FROM users WHERE no = ?1 AND removal IS NULL",
        )?
        .execute([known.no])?;
        db.prepare_cached(
            "UPDATE users SET removed_at = NULL, removal = NULL, absent_polls = 0, first_seen = ?2 WHERE no = ?1",
        )?
        .execute(params![known.no, stored(now)])?;
        applied.appeared += 1;
        // What they were when they left is not in the row any more, and is asked for whenever somebody looks back.
        before.insert("first_seen".to_owned(), json!(known.first_seen));
        record_appeared(db, now, run, known.no, Some(before))?;
    } else if !before.is_empty() {
        applied.changed += 1;
        let event = NewEvent {
            user_id: Some(&user.id),
            email: Some(email.as_str()),
            before: Some(before.into()),
            after: Some(after.into()),
            reason: None,
        };
        events::record(db, now, run, EventKind::UserChanged, event)?;
        if EmailKey::fold(&known.email) != email.key() {
            // A changed e-mail is a new account: what was refused for the old one says nothing about it, and a refusal that
            // the new one met earlier is worth another try.
            db.execute(
                "UPDATE accounts SET refused = NULL, refused_at = NULL WHERE email_key = ?1",
                [email.key().as_str()],
            )?;
        }
    }
    let moved = known.removed || known.email != email.as_str() || known.filtered != filtered;
    Ok(Taken {
        no: known.no,
        worth,
        moved,
    })
}

/// Somebody is new, or is back: `before` is what was otherwise when they left. Told is what was taken over, which is not always
/// what the record says.
fn record_appeared(
    db: &Connection,
    now: Timestamp,
    run: Option<i64>,
    no: u32,
    before: Option<Map<String, Value>>,
) -> Sql<()> {
    let (id, email, after) = db
        .prepare_cached("SELECT id, email, status, sso, role_id, created, last_login FROM users WHERE no = ?1")?
        .query_row([no], |row| {
            let (id, email): (String, String) = (row.get(0)?, row.get(1)?);
            let after = json!({
                "email": email, "status": row.get::<_, String>(2)?, "sso": row.get::<_, bool>(3)?,
                "role_id": row.get::<_, String>(4)?, "created": row.get::<_, Option<String>>(5)?,
                "last_login": row.get::<_, Option<String>>(6)?,
            });
            Ok((id, email, after))
        })?;
    let event = NewEvent {
        user_id: Some(&id),
        email: Some(&email),
        before: before.map(Value::from),
        after: Some(after),
        ..NewEvent::default()
    };
    events::record(db, now, run, EventKind::UserAppeared, event)
}

/// Names an unreadable record in an event, once a day and not at every poll.
fn note_unreadable(db: &Connection, now: Timestamp, run: Option<i64>, id: Option<&str>, reason: &str) -> Sql<()> {
    let yesterday = stored(now - jiff::SignedDuration::from_hours(24));
    let said: bool = db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM events WHERE kind = 'record_unreadable' AND at > ?1 AND at <= ?4
                            AND user_id IS ?2 AND reason = ?3)",
        )?
        .query_row(params![yesterday, id, reason, stored(now)], |row| row.get(0))?;
    if said {
        return Ok(());
    }
    let event = NewEvent {
        user_id: id,
        reason: Some(reason),
        ..NewEvent::default()
    };
    events::record(db, now, run, EventKind::RecordUnreadable, event)
}
