//! Opening: files and their modes, the lock that makes one process the writer, migrations, copies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::backup::Backup;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{State, StateError, Store, stored};
use crate::model::ConnectorName;

/// The numbered schema files, in order. `PRAGMA user_version` says how many of them a file has.
const MIGRATIONS: [&str; 2] = [include_str!("schema/0001.sql"), include_str!("schema/0002.sql")];

/// Marks our files (`PRAGMA application_id`): "torq".
const APPLICATION_ID: i64 = 0x746f_7271;

/// Holding this makes a process the writer of a connector's state. Released when dropped, or when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, without waiting.
    pub fn take(state_dir: &Path, name: &ConnectorName) -> Result<Self, StateError> {
        // Names begin with a letter or a digit, so the daemon's own lock below cannot be meant.
        Self::take_file(state_dir, &format!("{name}.lock"), name.as_str())
    }

    /// Takes the lock of the daemon that serves this folder's control socket.
    pub fn take_daemon(state_dir: &Path) -> Result<Self, StateError> {
        Self::take_file(state_dir, ".daemon.lock", "(all)")
    }

    fn take_file(state_dir: &Path, file: &str, name: &str) -> Result<Self, StateError> {
        make_dir(state_dir)?;
        let path = state_dir.join(file);
        let failed = |doing| {
            let path = path.clone();
            move |source| StateError::File { doing, path, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(StateError::InUse {
                    name: name.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        // For the message above, in the process that comes second.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = write!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}

fn make_dir(state_dir: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(|source| StateError::File {
            doing: "create the folder",
            path: state_dir.to_owned(),
            source,
        })
}

fn database(state_dir: &Path, name: &ConnectorName) -> PathBuf {
    state_dir.join(format!("{name}.db"))
}

/// Whether this connector has a state file.
pub fn has_state(state_dir: &Path, name: &ConnectorName) -> bool {
    database(state_dir, name).exists()
}

impl State {
    /// Opens the state for writing: takes the lock, creates or migrates the file.
    pub fn open(state_dir: &Path, name: &ConnectorName) -> Result<Self, StateError> {
        let lock = Lock::take(state_dir, name)?;
        let path = database(state_dir, name);
        // It names people, so it is made private before SQLite puts anything into it; its companions follow its mode.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| StateError::File {
                doing: "open",
                path: path.clone(),
                source,
            })?;
        let classify = |source| classify(&path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(&path, flags).map_err(classify)?;
        configure(&db).map_err(classify)?;
        migrate(&mut db, &path)?;
        Ok(Self::new(Store::new(db, name.clone()), path, Some(lock)))
    }

    /// A copy in memory of what is known, for a dry run: everything works as ever, and nothing is written anywhere.
    pub fn scratch(state_dir: &Path, name: &ConnectorName) -> Result<Self, StateError> {
        let path = database(state_dir, name);
        let classify = |source| classify(&path, source);
        let mut db = copy(&path)?;
        configure(&db).map_err(classify)?;
        migrate(&mut db, Path::new(""))?;
        Ok(Self::new(Store::new(db, name.clone()), path, None))
    }
}

/// Opens the state only to look at it, beside whichever process writes it; `None` when there is none yet.
pub fn read(state_dir: &Path, name: &ConnectorName) -> Result<Option<Store>, StateError> {
    let path = database(state_dir, name);
    Ok(open_read_only(&path)?.map(|db| Store::new(db, name.clone())))
}

/// A copy in memory; an empty one when there is no state yet.
fn copy(path: &Path) -> Result<Connection, StateError> {
    let classify = |source| classify(path, source);
    let mut db = Connection::open_in_memory().map_err(classify)?;
    if let Some(source) = open_read_only(path)? {
        let copy = Backup::new(&source, &mut db).map_err(classify)?;
        copy.run_to_completion(1000, Duration::ZERO, None).map_err(classify)?;
    }
    Ok(db)
}

fn open_read_only(path: &Path) -> Result<Option<Connection>, StateError> {
    if !path.exists() {
        return Ok(None);
    }
    let classify = |source| classify(path, source);
    // Who opens a WAL file read-only and closes it last leaves its companions behind; who may write takes them away. So nothing
    // is written by a promise of ours. Where the file cannot be written, SQLite opens it read-only by itself.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(classify)?;
    db.busy_timeout(Duration::from_secs(5)).map_err(classify)?;
    db.pragma_update(None, "query_only", true).map_err(classify)?;
    let found = version(&db).map_err(classify)?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StateError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    // Made a moment ago by a process that has not filled it yet.
    Ok((found > 0).then_some(db))
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // A crash of the machine may lose the last transactions, never consistency; what was lost is found again, because
    // JumpCloud's accounts are read at every start before anything is created.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    // In bytes: what the log keeps of its size when it begins anew. A first collection can make it long.
    db.pragma_update(None, "journal_size_limit", 256 * 1024)?;
    db.pragma_update(None, "foreign_keys", true)?;
    // In KiB. Lookups are by key; a thousand connectors in one process must not take 2 MB each.
    db.pragma_update(None, "cache_size", -1000)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn migrate(db: &mut Connection, path: &Path) -> Result<(), StateError> {
    let classify = |source| classify(path, source);
    let found = version(db).map_err(classify)?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StateError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    let application: i64 = db
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(classify)?;
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(classify)?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(StateError::Damaged {
            path: path.to_owned(),
            source: rusqlite::Error::InvalidQuery,
        });
    }
    if found > 0 && found < known && !path.as_os_str().is_empty() {
        let copy = path.with_extension(format!("db.schema-{found}"));
        db.backup("main", &copy, None::<fn(rusqlite::backup::Progress)>)
            .map_err(classify)?;
        tracing::info!(copy = %copy.display(), from = found, to = known, "migrating the state; the copy can be deleted later");
    }
    for (number, statements) in (1..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        let transaction = db.transaction().map_err(classify)?;
        transaction.execute_batch(statements).map_err(classify)?;
        transaction
            .pragma_update(None, "user_version", number)
            .map_err(classify)?;
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(classify)?;
        transaction.commit().map_err(classify)?;
    }
    db.execute(
        "INSERT INTO connector (only, state_since) VALUES (1, ?1) ON CONFLICT DO NOTHING",
        [stored(Timestamp::now())],
    )
    .map_err(classify)?;
    Ok(())
}

/// What an error of SQLite means for the file.
pub(super) fn classify(path: &Path, source: rusqlite::Error) -> StateError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StateError::Damaged { path, source },
        _ => StateError::Sql { path, source },
    }
}
