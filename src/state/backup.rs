//! Copies: a consistent copy of a state while somebody works with it, and what a state may still believe that was restored
//! from one.
//!
//! A copy knows that it is one (`connector.copied_at`), so whoever opens it for writing knows that time has passed of which it
//! tells nothing: accounts were made, people left and came back.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ffi};

use super::open::{MIGRATIONS, classify, database, make_dir, migrate, open_read_only, version};
use super::poll::clear_poll;
use super::{NewEvent, Sql, StateError, Store, events, instant, stored};
use crate::model::ConnectorName;
use crate::view::EventKind;

/// How often a copy is tried while another process keeps the state to itself, and how long to wait in between.
const TRIES: u32 = 100;
const WAIT: Duration = Duration::from_millis(100);

/// A copy that was made.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Users of its snapshot.
    pub users: u64,
    /// Its schema.
    pub schema: i64,
}

/// Copies a connector's state into a folder, beside whichever process works with it: as `NAME-TIME.db`, of mode 0600, complete
/// and checked before it has that name. `None` when there is no state.
///
/// # Errors
/// The state is damaged or newer, the folder cannot be written, or there is a file of that name: nothing is overwritten.
pub fn backup(state_dir: &Path, name: &ConnectorName, to: &Path, now: Timestamp) -> Result<Option<Copied>, StateError> {
    let source_path = database(state_dir, name);
    let Some(source) = open_read_only(&source_path)? else {
        return Ok(None);
    };
    make_dir(to)?;
    let path = to.join(format!("{name}-{}.db", now.strftime("%Y%m%dT%H%M%SZ")));
    let failed = |source| StateError::File {
        doing: "write the copy",
        path: path.clone(),
        source,
    };
    if path.exists() {
        return Err(failed(std::io::Error::new(
            std::io::ErrorKind::AlreadyExists,
            "there is a file of that name, and nothing is overwritten",
        )));
    }
    let part = tempfile::Builder::new()
        .prefix(&format!(".{name}-"))
        .suffix(".part")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(to)
        .map_err(failed)?;
    let mut db = Connection::open(part.path()).map_err(|source| classify(&path, source))?;
    copy_into(&source, &mut db).map_err(|source| classify(&source_path, source))?;
    drop(source);
    // The copy of a state that an older version is still at work with is good for this version, which made it.
    migrate(&mut db, Path::new(""), &MIGRATIONS)?;
    let (users, schema) = seal(&db, now).map_err(|source| classify(&source_path, source))?;
    db.close().map_err(|(_, source)| classify(&path, source))?;
    part.as_file().sync_all().map_err(failed)?;
    let bytes = part.as_file().metadata().map_err(failed)?.len();
    part.persist_noclobber(&path).map_err(|error| failed(error.error))?;
    File::open(to).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(Some(Copied {
        path,
        bytes,
        users,
        schema,
    }))
}

/// All pages in one step, which is one look at the state: nothing that is written meanwhile makes it start again.
fn copy_into(source: &Connection, db: &mut Connection) -> Sql<()> {
    let copy = Backup::new(source, db)?;
    for _ in 0..TRIES {
        match copy.step(-1)? {
            StepResult::Done => return Ok(()),
            _ => std::thread::sleep(WAIT),
        }
    }
    Err(failure(
        ffi::SQLITE_BUSY,
        "another process keeps the state to itself".to_owned(),
    ))
}

/// Makes a file of its own of the copy, notes that it is one, and checks it. Returns the users of its snapshot and its schema.
fn seal(db: &Connection, now: Timestamp) -> Sql<(u64, i64)> {
    // One file, without companions: also the mark of a state that nobody has opened yet (see `open`).
    db.pragma_update(None, "journal_mode", "DELETE")?;
    db.execute("UPDATE connector SET copied_at = ?1", [stored(now)])?;
    let verdict: String = db.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict != "ok" {
        return Err(failure(ffi::SQLITE_CORRUPT, verdict));
    }
    let users = db.query_row("SELECT count(*) FROM users WHERE removed_at IS NULL", [], |row| {
        row.get(0)
    })?;
    Ok((users, version(db)?))
}

fn failure(code: std::ffi::c_int, words: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(words))
}

/// Whether `dir` is the folder of the states themselves, where a copy would pass for the state of another connector.
pub fn is_state_dir(state_dir: &Path, dir: &Path) -> bool {
    match (fs::canonicalize(state_dir), fs::canonicalize(dir)) {
        (Ok(states), Ok(dir)) => states == dir,
        _ => state_dir == dir,
    }
}

impl Store {
    /// If this state was restored from a copy: what it believes of the time since is put right. Returns when the copy was made.
    ///
    /// - Who was missing must be missing from two complete polls again, and what was approved is asked for again.
    /// - Nothing that exists by now counts as ours because a create was under way when the copy was made.
    /// - What JumpCloud has is read before anything is done about it.
    pub(super) fn settle_restored(&mut self, now: Timestamp) -> Sql<Option<Timestamp>> {
        let copied_at: Option<String> = self
            .db
            .query_row("SELECT copied_at FROM connector", [], |row| row.get(0))?;
        let Some(copied_at) = copied_at else { return Ok(None) };
        let transaction = self.db.transaction()?;
        transaction.execute_batch(
            // Somebody who is held counts as missing, or their return would not be noticed.
            "UPDATE users SET absent_polls = removal IS NOT NULL, removal = CASE WHEN removal IS NOT NULL THEN 'held' END
             WHERE removed_at IS NULL AND (absent_polls > 0 OR removal IS NOT NULL);
             UPDATE accounts SET absent_polls = 0,
                release = CASE release WHEN 'due' THEN NULL WHEN 'approved' THEN 'held' ELSE release END;
             UPDATE accounts SET intent_at = NULL, look = 1 WHERE intent_at IS NOT NULL AND account_id IS NULL;
             UPDATE connector SET application_intent_at = NULL, known_at = NULL, copied_at = NULL;",
        )?;
        // Its page tokens are as old as the copy.
        clear_poll(&transaction)?;
        let reason = format!("restored from a copy of {copied_at}");
        let event = NewEvent {
            reason: Some(&reason),
            ..NewEvent::default()
        };
        events::record(&transaction, now, None, EventKind::StateChanged, event)?;
        transaction.commit()?;
        Ok(Some(instant(Some(copied_at)).unwrap_or(now)))
    }
}
