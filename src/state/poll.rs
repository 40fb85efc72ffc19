//! Polls: pages applied with their cursors, who was seen, and what a complete poll means for those who were not.
//!
//! A page is one transaction: changed rows, events, whom it saw, and the cursor. In memory a poll keeps a fingerprint and a
//! number for each user of the snapshot and two bits for "seen": that is how an unchanged user costs neither a read nor a write.
//! Pages on which nobody changed are noted several at a time; a process that is killed in between reads those again.

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

/// Pages of one listing on which nobody changed that are noted together: their cursors are worth a transaction each only to
/// who is killed, and repeating them changes nothing.
const NOTED_TOGETHER: u64 = 20;

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
    /// Who is known by which record.
    known: Known,
    /// Users of the snapshot, those who appeared in this poll included.
    present: u64,
    /// Who was seen in this poll.
    seen: Bits,
    /// Who was seen in this pass over each listing, in the order of [`Listing::BOTH`].
    pass: [Bits; 2],
    /// What is not written yet, in the same order.
    unwritten: [Unwritten; 2],
    /// Reused for fingerprints.
    scratch: Vec<u8>,
}

/// The numbers of users by the fingerprints of their records, sorted; 17 bytes a user.
struct Known {
    prints: Vec<(u64, u32)>,
    /// Where each drawer of `prints` begins. Fingerprints are spread evenly, so their first bits choose a drawer of about
    /// eight: one look into memory instead of the seventeen of a binary search over 100,000.
    drawers: Vec<u32>,
    /// How far a fingerprint is shifted to give its drawer.
    shift: u32,
}

impl Known {
    fn new(mut prints: Vec<(u64, u32)>) -> Self {
        prints.sort_unstable();
        let bits = (prints.len() / 8).max(2).ilog2();
        let shift = u64::BITS - bits;
        let mut drawers = Vec::with_capacity((1 << bits) + 1);
        for (at, (print, _)) in (0..).zip(&prints) {
            while drawers.len() <= (print >> shift) as usize {
                drawers.push(at);
            }
        }
        drawers.resize((1 << bits) + 1, prints.len() as u32);
        Self { prints, drawers, shift }
    }

    fn get(&self, fingerprint: u64) -> Option<u32> {
        let drawer = (fingerprint >> self.shift) as usize;
        let (from, to) = (self.drawers[drawer] as usize, self.drawers[drawer + 1] as usize);
        let mut drawer = self.prints[from..to].iter();
        drawer.find(|(print, _)| *print == fingerprint).map(|(_, no)| *no)
    }
}

/// Pages of a listing on which nobody changed, and that the state file does not know of yet.
#[derive(Default)]
struct Unwritten {
    pages: u64,
    /// Whom they showed.
    saw: Vec<u32>,
    /// The cursor behind the last of them.
    next: Option<PageToken>,
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
        // Room at once: a vector that grows is there twice while it does. Rows are never deleted, so the last number is the most
        // there can be.
        let last: u32 = db.query_row("SELECT coalesce(max(no), 0) FROM users", [], |row| row.get(0))?;
        let mut prints = Vec::with_capacity(last as usize);
        let mut statement = db.prepare("SELECT fingerprint, no FROM users WHERE removed_at IS NULL")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            prints.push((row.get::<_, i64>(0)? as u64, row.get(1)?));
        }
        let mut memory = Self {
            present: prints.len() as u64,
            known: Known::new(prints),
            seen: Bits::default(),
            pass: [Bits::default(), Bits::default()],
            unwritten: [Unwritten::default(), Unwritten::default()],
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

    /// Notes whom a page showed.
    fn note(&mut self, listing: Listing, saw: &[u32], applied: &mut Applied) {
        self.present += applied.appeared;
        for no in saw {
            self.seen.insert(*no);
            applied.fresh += usize::from(self.pass[index(listing)].insert(*no));
        }
        applied.seen = self.seen.count;
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
        self.keep_books(|store| store.open_poll(now))
    }

    fn open_poll(&mut self, now: Timestamp) -> Sql<([Cursor; 2], Timestamp)> {
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
        let mut applied = Applied::default();
        let known: Vec<(u64, Option<u32>)> = page
            .users
            .iter()
            .map(|user| {
                let fingerprint = user.fingerprint(&mut memory.scratch);
                (fingerprint, memory.known.get(fingerprint))
            })
            .collect();
        let unwritten = &mut memory.unwritten[index(listing)];
        let all_known: Option<Vec<u32>> = known.iter().map(|(_, no)| *no).collect();
        if let Some(saw) = all_known
            && let Some(next) = &page.next
            && page.unreadable.is_empty()
            && unwritten.pages + 1 < NOTED_TOGETHER
        {
            unwritten.pages += 1;
            unwritten.saw.extend_from_slice(&saw);
            unwritten.next = Some(next.clone());
            memory.note(listing, &saw, &mut applied);
            return Ok(applied);
        }

        let changes = self.db.total_changes();
        let transaction = self.db.transaction()?;
        let mut moved = false;
        let before = unwritten.saw.len();
        let mut saw = unwritten.saw.clone();
        for (user, (fingerprint, no)) in page.users.iter().zip(known) {
            let no = match no {
                Some(no) => no,
                None => {
                    let taken = apply_user(&transaction, now, run, user, fingerprint, filter, &mut applied)?;
                    moved |= taken.moved;
                    taken.no
                }
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
        note_pages(
            &transaction,
            now,
            listing,
            unwritten.pages + 1,
            page.next.as_ref(),
            &saw,
        )?;
        transaction.commit()?;
        *unwritten = Unwritten::default();
        if !moved {
            self.bookkeeping += self.db.total_changes() - changes;
        }
        memory.note(listing, &saw[before..], &mut applied);
        Ok(applied)
    }

    /// Writes down which pages were read, where that waits for more of them: a run that ends before its poll calls this, so
    /// that the next one goes on with the very next page.
    pub fn interrupt_poll(&mut self, now: Timestamp) -> Sql<()> {
        self.keep_books(|store| {
            let Some(memory) = &mut store.poll else { return Ok(()) };
            let transaction = store.db.transaction()?;
            for listing in Listing::BOTH {
                let Unwritten { pages, saw, next } = &memory.unwritten[index(listing)];
                if *pages > 0 {
                    note_pages(&transaction, now, listing, *pages, next.as_ref(), saw)?;
                }
            }
            transaction.commit()?;
            memory.unwritten = Default::default();
            Ok(())
        })
    }

    /// Starts a listing again from its first page, e.g. when its page token went stale. Whoever was seen stays seen.
    pub fn restart_listing(&mut self, now: Timestamp, listing: Listing) -> Sql<()> {
        self.interrupt_poll(now)?;
        if let Some(memory) = &mut self.poll {
            memory.pass[index(listing)] = Bits::default();
        }
        self.db.execute(
            "UPDATE poll_listings SET page_token = NULL, pages = 0, done = 0 WHERE listing = ?1",
            [listing.as_str()],
        )?;
        Ok(())
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
        let version = self.version();
        let changes = self.db.total_changes();
        let settled = self.settled.releases == Some(version);
        let transaction = self.db.transaction()?;
        let db = &transaction;
        forgive_returned(db, &memory.seen, settled)?;
        let clean: bool = db
            .query_row("SELECT clean FROM poll", [], |row| row.get(0))
            .optional()?
            .unwrap_or(false);
        let mut end = PollEnd::default();
        // A record without a readable id may be anybody, so such a poll says nothing about who is missing.
        if clean {
            end = judge_missing(db, now, run, &memory, rules, settled)?;
        }
        let nothing = db.total_changes() == changes;
        db.execute(
            "UPDATE connector SET first_poll_at = ?1 WHERE first_poll_at IS NULL",
            [stored(now)],
        )?;
        clear_poll(db)?;
        transaction.commit()?;
        if nothing {
            self.bookkeeping += self.db.total_changes() - changes;
        }
        if nothing && clean {
            self.settled.releases = Some(version);
        }
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

/// Notes pages with whom they showed, and the cursor behind the last of them.
fn note_pages(
    db: &Connection,
    now: Timestamp,
    listing: Listing,
    pages: u64,
    next: Option<&PageToken>,
    saw: &[u32],
) -> Sql<()> {
    db.prepare_cached("INSERT INTO poll_pages (listing, seen) VALUES (?1, ?2)")?
        .execute(params![listing.as_str(), pack(saw)])?;
    db.prepare_cached("UPDATE poll_listings SET page_token = ?2, pages = pages + ?4, done = ?3 WHERE listing = ?1")?
        .execute(params![
            listing.as_str(),
            next.map(PageToken::as_str),
            next.is_none(),
            pages
        ])?;
    db.prepare_cached("UPDATE poll SET touched = ?1")?
        .execute([stored(now)])?;
    Ok(())
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
    filtered: Option<String>,
    removed: bool,
}

/// What became of a record that is not known in just this form.
struct Taken {
    /// The user's number.
    no: u32,
    /// Whether it changes who is there, by which e-mail, or who is delivered. A new time of login does not.
    moved: bool,
}

/// Applies one record that is not known in just this form: a new user, one who is back, a changed one, or one whose known
/// fields stay because the record's could not be read.
fn apply_user(
    db: &Connection,
    now: Timestamp,
    run: Option<i64>,
    user: &User,
    fingerprint: u64,
    filter: &UserFilter,
    applied: &mut Applied,
) -> Sql<Taken> {
    let known = db
        .prepare_cached(
            "SELECT no, email, status, sso, role_id, created, last_login, filtered, removed_at IS NOT NULL
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
        return Ok(Taken { no, moved: true });
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
    let moved = known.removed || known.email != email.as_str() || known.filtered != filtered;
    Ok(Taken { no: known.no, moved })
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
fn forgive_returned(db: &Connection, seen: &Bits, settled: bool) -> Sql<()> {
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
    if settled {
        return Ok(());
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

/// Decides about users who were not seen, and accounts without a user. `settled`: no account has lost its user since the last
/// poll found that none had, so only users are looked at.
fn judge_missing(
    db: &Connection,
    now: Timestamp,
    run: Option<i64>,
    memory: &Memory,
    rules: &RemovalRules,
    settled: bool,
) -> Sql<PollEnd> {
    let (seen, present) = (&memory.seen, memory.present);
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
    if !settled {
        db.execute(
            &format!("UPDATE accounts SET absent_polls = absent_polls + 1 WHERE {ORPHANS}"),
            [],
        )?;
    }

    // Once is an accident: a user can change listing while a poll runs. Twice in a row is gone.
    let candidates: Vec<u32> = numbers(db, "absent_polls >= 2 AND removal IS NULL")?;
    let approved: Vec<u32> = numbers(db, "absent_polls >= 2 AND removal = 'approved'")?;
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, u64>(0));
    let orphans = match settled {
        true => 0,
        false => count(&format!(
            "SELECT count(*) FROM accounts WHERE absent_polls >= 2 AND {ORPHANS}"
        ))?,
    };
    let total = candidates.len() as u64 + orphans;
    let held_already = match total {
        0 => 0,
        _ => {
            count("SELECT count(*) FROM users WHERE absent_polls > 0 AND removal = 'held' AND removed_at IS NULL")?
                + count("SELECT count(*) FROM accounts WHERE release = 'held'")?
        }
    };
    let day_ago = stored(now - jiff::SignedDuration::from_hours(24));
    let removals_24h: u64 = db.query_row(
        // What a person approved does not use up what is believed unasked.
        "SELECT count(*) FROM users WHERE removed_at > ?1 AND removal IS NULL",
        [day_ago],
        |row| row.get(0),
    )?;
    let side_changed: bool = db.query_row("SELECT hold_removals FROM connector", [], |row| row.get(0))?;
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
        if !settled || !candidates.is_empty() {
            release_orphans(db, rules.removals)?;
        }
        end.removed += candidates.len() as u64;
    }
    for no in &approved {
        remove_user(db, now, run, *no)?;
    }
    end.removed += approved.len() as u64;
    if !settled || end.removed > 0 {
        release_approved(db, rules.removals)?;
    }
    if missing.is_empty() && side_changed {
        // Everybody is still there: the new key opens the same workspace.
        db.execute("UPDATE connector SET hold_removals = 0", [])?;
    }
    Ok(end)
}

/// Users who were absent from the last poll, and more. The first terms are those of the index `users_absent`.
fn numbers(db: &Connection, which: &str) -> Sql<Vec<u32>> {
    db.prepare(&format!(
        "SELECT no FROM users WHERE absent_polls > 0 AND removed_at IS NULL AND {which}"
    ))?
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
        fn whoever_is_known_is_found_by_fingerprint_and_nobody_else(
            prints in proptest::collection::btree_map(any::<u64>(), any::<u32>(), 0..300),
            other in any::<u64>(),
        ) {
            let known = Known::new(prints.clone().into_iter().collect());
            for (print, no) in &prints {
                prop_assert_eq!(known.get(*print), Some(*no));
            }
            for print in [other, 0, u64::MAX] {
                prop_assert_eq!(known.get(print), prints.get(&print).copied());
            }
        }

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
