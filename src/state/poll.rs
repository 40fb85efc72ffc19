//! Polls: pages applied with their cursors, who was seen, and what a complete poll means for those who were not.
//!
//! A page is one transaction: changed rows, events, whom it saw, and the cursor. In memory a poll keeps a fingerprint and a
//! number for each user of the snapshot and two bits for "seen": that is how an unchanged user costs neither a read nor a write.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value, json};

use super::{NewEvent, Sql, Store, events, instant, stored};
use crate::config::{MaxRemovals, Removals, UserFilter};
use crate::model::{Email, EmailKey, Listing};
use crate::torq::{PageToken, User, UsersPage};
use crate::view::{EventKind, Guard, RunCounts};

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
}

/// When removals are believed, and what they entail.
#[derive(Clone, Copy, Debug)]
pub struct RemovalRules {
    /// Whether accounts that we created go, too.
    pub removals: Removals,
    /// How many are believed within 24 hours.
    pub max: MaxRemovals,
}

impl RemovalRules {
    /// How many removals within 24 hours are believed for a snapshot of `users`.
    pub fn limit(&self, users: u64) -> u64 {
        match self.max {
            MaxRemovals::Users(users) => users,
            // At least 5, or a small workspace could never lose anybody unasked.
            MaxRemovals::Percent(percent) => ((users as f64 * percent / 100.0).floor() as u64).max(5),
        }
    }
}

/// What a complete poll meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollEnd {
    /// Users of the snapshot who were not seen.
    pub missing: u64,
    /// Users removed now.
    pub removed: u64,
    /// Removals held now.
    pub held: u64,
    /// What the guard said.
    pub guard: Guard,
}

/// What the running poll keeps in memory.
pub(super) struct Memory {
    /// Fingerprints of the snapshot's records with the numbers of their users, sorted.
    known: Vec<(u64, u32)>,
    /// Who was seen in this poll.
    seen: Bits,
    /// Who was seen in this pass over each listing, in the order of [`Listing::BOTH`].
    pass: [Bits; 2],
    /// Reused for fingerprints.
    scratch: Vec<u8>,
}

/// A set of small numbers, one bit each.
#[derive(Default)]
struct Bits {
    words: Vec<u64>,
    count: u64,
}

impl Bits {
    /// Adds a number; whether it was not there before.
    fn insert(&mut self, no: u32) -> bool {
        let (word, bit) = (no as usize / 64, 1_u64 << (no % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(fresh);
        fresh
    }

    fn contains(&self, no: u32) -> bool {
        self.words
            .get(no as usize / 64)
            .is_some_and(|word| word & (1 << (no % 64)) != 0)
    }
}

impl Memory {
    fn load(db: &Connection) -> Sql<Self> {
        let mut known = Vec::new();
        let mut statement = db.prepare("SELECT fingerprint, no FROM users WHERE removed_at IS NULL")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            known.push((row.get::<_, i64>(0)? as u64, row.get(1)?));
        }
        known.sort_unstable();
        let mut memory = Self {
            known,
            seen: Bits::default(),
            pass: [Bits::default(), Bits::default()],
            scratch: Vec::with_capacity(512),
        };
        // A poll that is resumed: whom its pages saw before.
        let mut statement = db.prepare("SELECT listing, seen FROM poll_pages")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let listing: String = row.get(0)?;
            for no in unpack(row.get_ref(1)?.as_blob()?) {
                memory.seen.insert(no);
                if let Some(index) = Listing::BOTH.iter().position(|known| known.as_str() == listing) {
                    memory.pass[index].insert(no);
                }
            }
        }
        Ok(memory)
    }

    /// Different users seen so far.
    pub(super) fn seen_users(&self) -> u64 {
        self.seen.count
    }

    fn unchanged(&self, fingerprint: u64) -> Option<u32> {
        let at = self
            .known
            .binary_search_by_key(&fingerprint, |(known, _)| *known)
            .ok()?;
        Some(self.known[at].1)
    }
}

fn index(listing: Listing) -> usize {
    match listing {
        Listing::Sso => 0,
        Listing::Local => 1,
    }
}

impl Store {
    /// Begins a poll, or resumes the one that was cut short. Returns where both listings stand and since when it runs.
    pub fn begin_poll(&mut self, now: Timestamp, filter: &UserFilter) -> Sql<([Cursor; 2], Timestamp)> {
        self.apply_filter(filter)?;
        let touched: Option<(String, String)> = self
            .db
            .query_row("SELECT started, touched FROM poll", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let resumed = touched.and_then(|(started, touched)| {
            let age = now.duration_since(instant(Some(touched))?);
            (age < RESUMABLE).then(|| instant(Some(started))).flatten()
        });
        let started = match resumed {
            Some(started) => started,
            None => {
                let transaction = self.db.transaction()?;
                clear_poll(&transaction)?;
                transaction.execute(
                    "INSERT INTO poll (only, started, touched) VALUES (1, ?1, ?1)",
                    [stored(now)],
                )?;
                for listing in Listing::BOTH {
                    transaction.execute("INSERT INTO poll_listings (listing) VALUES (?1)", [listing.as_str()])?;
                }
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
        if self.poll.is_none() {
            self.poll = Some(Memory::load(&self.db)?);
        }
        let Some(memory) = self.poll.as_mut() else {
            return Ok(Applied::default());
        };
        let transaction = self.db.transaction()?;
        let mut applied = Applied::default();
        let mut saw = Vec::with_capacity(page.users.len());
        for user in &page.users {
            let fingerprint = user.fingerprint(&mut memory.scratch);
            let no = match memory.unchanged(fingerprint) {
                Some(no) => no,
                None => apply_user(&transaction, now, run, user, fingerprint, filter, &mut applied)?,
            };
            saw.push(no);
        }
        for record in &page.unreadable {
            note_unreadable(&transaction, now, run, record.id.as_deref(), &record.reason)?;
            if record.id.is_none() {
                transaction.execute("UPDATE poll SET clean = 0", [])?;
            }
        }
        let counts = RunCounts {
            appeared: applied.appeared,
            changed: applied.changed,
            ..RunCounts::default()
        };
        events::count(&transaction, run, counts)?;
        transaction
            .prepare_cached("INSERT INTO poll_pages (listing, seen) VALUES (?1, ?2)")?
            .execute(params![listing.as_str(), pack(&saw)])?;
        transaction
            .prepare_cached(
                "UPDATE poll_listings SET page_token = ?2, pages = pages + 1, done = ?3 WHERE listing = ?1",
            )?
            .execute(params![
                listing.as_str(),
                page.next.as_ref().map(PageToken::as_str),
                page.next.is_none()
            ])?;
        transaction
            .prepare_cached("UPDATE poll SET touched = ?1")?
            .execute([stored(now)])?;
        transaction.commit()?;
        for no in saw {
            memory.seen.insert(no);
            applied.fresh += usize::from(memory.pass[index(listing)].insert(no));
        }
        applied.seen = memory.seen.count;
        Ok(applied)
    }

    /// Starts a listing again from its first page, e.g. when its page token went stale. Whoever was seen stays seen.
    pub fn restart_listing(&mut self, listing: Listing) -> Sql<()> {
        if let Some(memory) = &mut self.poll {
            memory.pass[index(listing)] = Bits::default();
        }
        let transaction = self.db.transaction()?;
        transaction.execute(
            "UPDATE poll_listings SET page_token = NULL, pages = 0, done = 0 WHERE listing = ?1",
            [listing.as_str()],
        )?;
        // Seen in this poll, but not in the pass that begins now.
        transaction.execute(
            "UPDATE poll_pages SET listing = '' WHERE listing = ?1",
            [listing.as_str()],
        )?;
        transaction.commit()
    }

    /// Gives the poll up; the next one starts afresh.
    pub fn abandon_poll(&mut self) -> Sql<()> {
        self.poll = None;
        let transaction = self.db.transaction()?;
        clear_poll(&transaction)?;
        transaction.commit()
    }

    /// Ends a poll whose both listings reached their last page: decides who is missing, who is removed, what is held.
    pub fn finish_poll(&mut self, now: Timestamp, rules: &RemovalRules) -> Sql<PollEnd> {
        let memory = match self.poll.take() {
            Some(memory) => memory,
            None => Memory::load(&self.db)?,
        };
        let run = self.run;
        let transaction = self.db.transaction()?;
        let db = &transaction;
        forgive_returned(db, &memory.seen)?;
        let clean: bool = db
            .query_row("SELECT clean FROM poll", [], |row| row.get(0))
            .optional()?
            .unwrap_or(false);
        let mut end = PollEnd::default();
        // A record without a readable id may be anybody, so such a poll says nothing about who is missing.
        if clean {
            end = judge_missing(db, now, run, &memory.seen, rules)?;
        }
        db.execute(
            "UPDATE connector SET first_poll_at = ?1 WHERE first_poll_at IS NULL",
            [stored(now)],
        )?;
        clear_poll(db)?;
        transaction.commit()?;
        Ok(end)
    }

    /// Approves the removals that are held now: the next run carries them out, unless the users are back by then.
    pub fn approve(&mut self, now: Timestamp) -> Sql<u64> {
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
             UPDATE accounts SET release = 'approved' WHERE release = 'held';
             UPDATE connector SET hold_removals = 0;",
        )?;
        transaction.commit()?;
        Ok(approved)
    }

    /// Marks whom the filters leave out, when they are other filters than before. Changing a filter removes nobody.
    pub fn apply_filter(&mut self, filter: &UserFilter) -> Sql<()> {
        let fingerprint = filter.fingerprint();
        let known: Option<String> = self
            .db
            .query_row("SELECT filters FROM connector", [], |row| row.get(0))?;
        if known.as_ref() == Some(&fingerprint) {
            return Ok(());
        }
        let transaction = self.db.transaction()?;
        let changes: Vec<(i64, Option<String>)> = {
            let mut statement =
                transaction.prepare("SELECT no, email_key, status, filtered FROM users WHERE removed_at IS NULL")?;
            let mut rows = statement.query([])?;
            let mut changes = Vec::new();
            while let Some(row) = rows.next()? {
                let key = EmailKey::fold(row.get_ref(1)?.as_str()?);
                let filtered = filter.admits(&key, row.get_ref(2)?.as_str()?).err();
                if filtered != row.get::<_, Option<String>>(3)? {
                    changes.push((row.get(0)?, filtered));
                }
            }
            changes
        };
        for (no, filtered) in changes {
            transaction.execute("UPDATE users SET filtered = ?2 WHERE no = ?1", params![no, filtered])?;
        }
        transaction.execute("UPDATE connector SET filters = ?1", [fingerprint])?;
        transaction.commit()
    }
}

fn clear_poll(db: &Connection) -> Sql<()> {
    db.execute_batch("DELETE FROM poll; DELETE FROM poll_listings; DELETE FROM poll_pages;")
}

fn cursor(db: &Connection, listing: Listing) -> Sql<Cursor> {
    db.query_row(
        "SELECT page_token, pages, done FROM poll_listings WHERE listing = ?1",
        [listing.as_str()],
        |row| {
            Ok(Cursor {
                next: row.get::<_, Option<String>>(0)?.and_then(PageToken::new),
                pages: row.get(1)?,
                done: row.get(2)?,
            })
        },
    )
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
    removed: bool,
}

/// Applies one record that is not known in just this form: a new user, one who is back, a changed one, or one whose known
/// fields stay because the record's could not be read. Returns the user's number.
fn apply_user(
    db: &Connection,
    now: Timestamp,
    run: Option<i64>,
    user: &User,
    fingerprint: u64,
    filter: &UserFilter,
    applied: &mut Applied,
) -> Sql<u32> {
    let known = db
        .prepare_cached(
            "SELECT no, email, status, sso, role_id, created, last_login, removed_at IS NOT NULL FROM users WHERE id = ?1",
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
                removed: row.get(7)?,
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
        // Rows are numbered from 1 and never deleted; 4 billion users would be refused by SQLite's integer conversion below.
        let no = u32::try_from(db.last_insert_rowid())
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        record_appeared(db, now, run, user)?;
        return Ok(no);
    };

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
        db.prepare_cached(
            "UPDATE users SET removed_at = NULL, removal = NULL, absent_polls = 0, first_seen = ?2 WHERE no = ?1",
        )?
        .execute(params![known.no, stored(now)])?;
        applied.appeared += 1;
        record_appeared(db, now, run, user)?;
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
    Ok(known.no)
}

fn record_appeared(db: &Connection, now: Timestamp, run: Option<i64>, user: &User) -> Sql<()> {
    let after = json!({
        "email": user.email, "status": user.status, "sso": user.sso, "role_id": user.role_id,
        "created": user.created, "last_login": user.last_login,
    });
    let event = NewEvent {
        user_id: Some(&user.id),
        email: Some(user.email.trim()),
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
            "SELECT EXISTS (SELECT 1 FROM events WHERE kind = 'record_unreadable' AND at > ?1 AND user_id IS ?2 AND reason = ?3)",
        )?
        .query_row(params![yesterday, id, reason], |row| row.get(0))?;
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

/// Whoever was absent and is seen again counts as never absent: nothing is held or approved for them any more.
fn forgive_returned(db: &Connection, seen: &Bits) -> Sql<()> {
    let returned: Vec<u32> = {
        let mut statement = db.prepare("SELECT no FROM users WHERE absent_polls > 0 AND removed_at IS NULL")?;
        let numbers = statement.query_map([], |row| row.get(0))?;
        numbers
            .filter(|no| no.as_ref().map_or(true, |no| seen.contains(*no)))
            .collect::<Sql<_>>()?
    };
    for no in returned {
        db.execute("UPDATE users SET absent_polls = 0, removal = NULL WHERE no = ?1", [no])?;
    }
    // An account whose e-mail somebody has again is nobody's to release.
    db.execute(
        "UPDATE accounts SET absent_polls = 0, release = NULL
         WHERE (absent_polls > 0 OR release IS NOT NULL)
           AND EXISTS (SELECT 1 FROM users u WHERE u.email_key = accounts.email_key AND u.removed_at IS NULL)",
        [],
    )?;
    Ok(())
}

/// Accounts that we created and that no user of the snapshot has the e-mail of (any more), undecided as yet.
const ORPHANS: &str = "origin = 'created' AND account_id IS NOT NULL AND release IS NULL
    AND NOT EXISTS (SELECT 1 FROM users u WHERE u.email_key = accounts.email_key AND u.removed_at IS NULL)";

fn judge_missing(db: &Connection, now: Timestamp, run: Option<i64>, seen: &Bits, rules: &RemovalRules) -> Sql<PollEnd> {
    let present: u64 = db.query_row("SELECT count(*) FROM users WHERE removed_at IS NULL", [], |row| {
        row.get(0)
    })?;
    let mut missing = Vec::new();
    if seen.count < present {
        let mut statement = db.prepare("SELECT no FROM users WHERE removed_at IS NULL")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let no: u32 = row.get(0)?;
            if !seen.contains(no) {
                missing.push(no);
            }
        }
    }
    for no in &missing {
        db.prepare_cached("UPDATE users SET absent_polls = absent_polls + 1 WHERE no = ?1")?
            .execute([no])?;
    }
    db.execute(
        &format!("UPDATE accounts SET absent_polls = absent_polls + 1 WHERE {ORPHANS}"),
        [],
    )?;

    // Once is an accident: a user can change listing while a poll runs. Twice in a row is gone.
    let candidates: Vec<u32> = numbers(db, "absent_polls >= 2 AND removal IS NULL AND removed_at IS NULL")?;
    let approved: Vec<u32> = numbers(db, "absent_polls >= 2 AND removal = 'approved' AND removed_at IS NULL")?;
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, u64>(0));
    let orphans = count(&format!(
        "SELECT count(*) FROM accounts WHERE absent_polls >= 2 AND {ORPHANS}"
    ))?;
    let held_already = count("SELECT count(*) FROM users WHERE removal = 'held' AND removed_at IS NULL")?
        + count("SELECT count(*) FROM accounts WHERE release = 'held'")?;
    let day_ago = stored(now - jiff::SignedDuration::from_hours(24));
    let removals_24h: u64 = db.query_row(
        // What a person approved does not use up what is believed unasked.
        "SELECT count(*) FROM users WHERE removed_at > ?1 AND removal IS NULL",
        [day_ago],
        |row| row.get(0),
    )?;
    let side_changed: bool = db.query_row("SELECT hold_removals FROM connector", [], |row| row.get(0))?;
    let total = candidates.len() as u64 + orphans;
    let limit = rules.limit(present);
    let too_many = removals_24h + held_already + total > limit;
    let empty = seen.count == 0 && present > 0;
    let guard = Guard {
        limit,
        removals_24h,
        candidates: total,
        held: total > 0 && (too_many || empty || side_changed),
    };
    let mut end = PollEnd {
        missing: missing.len() as u64,
        guard,
        ..PollEnd::default()
    };
    if guard.held {
        let reason = if empty {
            "the whole workspace came back empty".to_owned()
        } else if side_changed {
            "the Torq API key or region is another one than before".to_owned()
        } else {
            format!(
                "{total} removals, and {removals_24h} in the last 24 hours, are more than the {limit} that are believed unasked"
            )
        };
        for no in &candidates {
            hold_user(db, now, run, *no, &reason)?;
        }
        hold_orphans(db, now, run, &reason)?;
        end.held = total;
    } else {
        for no in &candidates {
            remove_user(db, now, run, *no)?;
        }
        release_orphans(db, rules.removals)?;
        end.removed += candidates.len() as u64;
    }
    for no in &approved {
        remove_user(db, now, run, *no)?;
    }
    end.removed += approved.len() as u64;
    release_approved(db, rules.removals)?;
    if missing.is_empty() && side_changed {
        // Everybody is still there: the new key opens the same workspace.
        db.execute("UPDATE connector SET hold_removals = 0", [])?;
    }
    Ok(end)
}

fn numbers(db: &Connection, which: &str) -> Sql<Vec<u32>> {
    db.prepare(&format!("SELECT no FROM users WHERE {which}"))?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn named(db: &Connection, no: u32) -> Sql<(String, String)> {
    db.prepare_cached("SELECT id, email FROM users WHERE no = ?1")?
        .query_row([no], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn hold_user(db: &Connection, now: Timestamp, run: Option<i64>, no: u32, reason: &str) -> Sql<()> {
    db.execute("UPDATE users SET removal = 'held' WHERE no = ?1", [no])?;
    let (id, email) = named(db, no)?;
    let event = NewEvent {
        user_id: Some(&id),
        email: Some(&email),
        reason: Some(reason),
        ..NewEvent::default()
    };
    events::record(db, now, run, EventKind::RemovalHeld, event)
}

fn hold_orphans(db: &Connection, now: Timestamp, run: Option<i64>, reason: &str) -> Sql<()> {
    let keys: Vec<String> = db
        .prepare(&format!(
            "SELECT email_key FROM accounts WHERE absent_polls >= 2 AND {ORPHANS}"
        ))?
        .query_map([], |row| row.get(0))?
        .collect::<Sql<_>>()?;
    for key in keys {
        db.execute("UPDATE accounts SET release = 'held' WHERE email_key = ?1", [&key])?;
        let event = NewEvent {
            email: Some(&key),
            reason: Some(reason),
            ..NewEvent::default()
        };
        events::record(db, now, run, EventKind::RemovalHeld, event)?;
    }
    Ok(())
}

fn remove_user(db: &Connection, now: Timestamp, run: Option<i64>, no: u32) -> Sql<()> {
    let (id, email) = named(db, no)?;
    db.execute(
        "UPDATE users SET removed_at = ?2 WHERE no = ?1",
        params![no, stored(now)],
    )?;
    // The account is undecided no longer than its last user: it need not be absent twice more.
    db.execute(
        "UPDATE accounts SET absent_polls = 2 WHERE email_key = ?1 AND release IS NULL",
        [crate::model::EmailKey::fold(&email).as_str()],
    )?;
    events::count(
        db,
        run,
        RunCounts {
            disappeared: 1,
            ..RunCounts::default()
        },
    )?;
    let event = NewEvent {
        user_id: Some(&id),
        email: Some(&email),
        reason: Some("absent from two complete polls in a row"),
        ..NewEvent::default()
    };
    events::record(db, now, run, EventKind::UserDisappeared, event)
}

/// Decides about accounts without a user: under `report` they are only shown, and stay so should the setting change later.
fn release_orphans(db: &Connection, removals: Removals) -> Sql<()> {
    db.execute(
        &format!("UPDATE accounts SET release = ?1 WHERE absent_polls >= 2 AND {ORPHANS}"),
        [released(removals)],
    )?;
    Ok(())
}

fn release_approved(db: &Connection, removals: Removals) -> Sql<()> {
    // Those whose user a person has just approved to remove, and those who were held by themselves.
    db.execute(
        "UPDATE accounts SET release = ?1
         WHERE (release = 'approved'
                OR (release IS NULL AND absent_polls >= 2 AND origin = 'created' AND account_id IS NOT NULL
                    AND EXISTS (SELECT 1 FROM users r WHERE r.email_key = accounts.email_key AND r.removal = 'approved')))
           AND NOT EXISTS (SELECT 1 FROM users u WHERE u.email_key = accounts.email_key AND u.removed_at IS NULL)",
        [released(removals)],
    )?;
    Ok(())
}

fn released(removals: Removals) -> &'static str {
    match removals {
        Removals::Report => "reported",
        Removals::Delete => "due",
    }
}

/// Packs user numbers as differences, 7 bits a byte: pages come in much the same order each time, so it is a byte or two a user.
fn pack(numbers: &[u32]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(numbers.len() * 2);
    let mut last = 0_i64;
    for no in numbers {
        let difference = i64::from(*no) - last;
        last = i64::from(*no);
        // Zigzag: small differences of either sign become small numbers.
        let mut rest = ((difference << 1) ^ (difference >> 63)) as u64;
        while rest >= 0x80 {
            packed.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        packed.push(rest as u8);
    }
    packed
}

fn unpack(packed: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::with_capacity(packed.len());
    let (mut last, mut value, mut shift) = (0_i64, 0_u64, 0);
    for byte in packed {
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            last += (value >> 1) as i64 ^ -((value & 1) as i64);
            if let Ok(no) = u32::try_from(last) {
                numbers.push(no);
            }
            (value, shift) = (0, 0);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packed_numbers_come_back(numbers in proptest::collection::vec(any::<u32>(), 0..200)) {
            prop_assert_eq!(unpack(&pack(&numbers)), numbers);
        }
    }

    #[test]
    fn a_page_in_order_takes_a_byte_a_user() {
        let numbers: Vec<u32> = (5_000..5_100).collect();
        assert!(pack(&numbers).len() <= 102);
    }

    #[test]
    fn the_guard_believes_a_tenth_and_at_least_five() {
        let rules = |max| RemovalRules {
            removals: Removals::Report,
            max,
        };
        assert_eq!(rules(MaxRemovals::Percent(10.0)).limit(1000), 100);
        assert_eq!(rules(MaxRemovals::Percent(10.0)).limit(3), 5);
        assert_eq!(rules(MaxRemovals::Users(0)).limit(1000), 0);
    }
}
