//! Opening: files and their modes, the lock that makes one process the writer, migrations.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::backup::Backup;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::whereabouts::Whereabouts;
use super::{State, StateError, Store, disk, removed, stored};
use crate::model::ConnectorName;

/// The numbered schema files, in order. `PRAGMA user_version` says how many of them a file has.
pub(super) const MIGRATIONS: [&str; 8] = [
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
    include_str!("schema/0007.sql"),
    include_str!("schema/0008.sql"),
];

/// Marks our files (`PRAGMA application_id`): "torq".
const APPLICATION_ID: i64 = 0x746f_7271;

/// What is said where a connector ran before and its state file is not there any more.
const GONE: &str = "the state file is gone, so everything begins anew: accounts that are there are found again by e-mail, none is \
made twice, and none of those is deleted later, since it is not known any more who made them";

/// Holding this makes a process the writer of a connector's state. Released when dropped, or when the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    /// Whether there was a state under this lock before.
    had_state: bool,
}

impl Lock {
    /// Takes the lock, without waiting.
    pub fn take(state_dir: &Path, name: &ConnectorName) -> Result<Self, StateError> {
        // Names begin with a letter or a digit, so the daemon's own lock below cannot be meant.
        Self::take_file(state_dir, &format!("{name}.lock"), name.as_str())
    }

    /// Whether it is still what another process would find.
    pub fn is_in_place(&self) -> bool {
        is_at(&self.file, &self.path)
    }

    /// Notes that there is a state, for whoever takes the lock later.
    fn note_state(&self) {
        self.write(true);
    }

    /// Notes that there is no state any more, and that this is how it should be.
    pub(super) fn note_no_state(&self) {
        self.write(false);
    }

    /// What the file says: which process has it, for the message to the one that comes second, and by a whole line that there was
    /// a state under this lock.
    fn write(&self, had_state: bool) {
        let mut file = &self.file;
        let end = if had_state { "\n" } else { "" };
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = write!(file, "{}{end}", std::process::id());
    }

    /// Takes the lock of the daemon that serves this folder's control socket.
    pub fn take_daemon(state_dir: &Path) -> Result<Self, StateError> {
        Self::take_file(state_dir, ".daemon.lock", "(all)")
    }

    /// Who holds the daemon's lock, or held it last, as they wrote into it.
    pub fn daemon_holder(state_dir: &Path) -> Option<String> {
        let holder = std::fs::read_to_string(state_dir.join(".daemon.lock")).ok()?;
        let holder = holder.trim();
        (!holder.is_empty()).then(|| format!("process {holder}"))
    }

    fn take_file(state_dir: &Path, name_of_file: &str, name: &str) -> Result<Self, StateError> {
        make_dir(state_dir)?;
        let path = state_dir.join(name_of_file);
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
        match try_for_a_moment(&file) {
            // Somebody deleted it in this very moment: then it is not what the next process will find.
            Ok(()) if !is_at(&file, &path) => return Self::take_file(state_dir, name_of_file, name),
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
        let mut before = String::new();
        let _ = file.read_to_string(&mut before);
        let had_state = before.ends_with('\n');
        let lock = Self { file, path, had_state };
        lock.write(had_state);
        Ok(lock)
    }
}

/// Takes a lock, and waits a moment for it: a process that is just being started by its holder has it, too, until it has become
/// another program.
fn try_for_a_moment(file: &File) -> Result<(), TryLockError> {
    const TRIES: u32 = 20;
    const APART: Duration = Duration::from_millis(10);
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(APART),
            tried => return tried,
        }
    }
    file.try_lock()
}

fn is_at(file: &File, path: &Path) -> bool {
    let id = |file: fs::Metadata| (file.dev(), file.ino());
    file.metadata().map(id).ok() == fs::metadata(path).map(id).ok()
}

/// Makes sure that a file is there which only its owner can read, also where somebody put a copy with another mode.
fn create_private(path: &Path) -> Result<(), StateError> {
    let failed = |source| StateError::File {
        doing: "open",
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0
        && let Err(error) = file.set_permissions(Permissions::from_mode(0o600))
    {
        tracing::warn!(state = %path.display(), %error, "the state names people, and others may read it");
    }
    Ok(())
}

pub(super) fn make_dir(state_dir: &Path) -> Result<(), StateError> {
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

/// The file of a connector's state.
pub fn database(state_dir: &Path, name: &ConnectorName) -> PathBuf {
    state_dir.join(format!("{name}.db"))
}

impl State {
    /// Opens the state for writing: takes the lock, creates or migrates the file. Not that of a connector that was removed.
    pub fn open(state_dir: &Path, name: &ConnectorName) -> Result<Self, StateError> {
        Self::open_by(&MIGRATIONS, state_dir, name, false)
    }

    /// The same, where this process had one a moment ago, and its files were taken away: that it begins anew is said even if its
    /// lock went with them.
    pub fn open_again(state_dir: &Path, name: &ConnectorName) -> Result<Self, StateError> {
        Self::open_by(&MIGRATIONS, state_dir, name, true)
    }

    pub(super) fn open_by(
        migrations: &[&str],
        state_dir: &Path,
        name: &ConnectorName,
        again: bool,
    ) -> Result<Self, StateError> {
        let lock = Lock::take(state_dir, name)?;
        if removed(state_dir, name).is_some() {
            let name = name.to_string();
            return Err(StateError::Removed { name });
        }
        let path = database(state_dir, name);
        // An empty file is a new database to SQLite, too.
        let fresh = fs::metadata(&path).map_or(true, |file| file.len() == 0);
        // It names people, so it is made private before SQLite puts anything into it; its companions follow its mode.
        create_private(&path)?;
        drop_foreign_companions(&path)?;
        let diagnose = |source| diagnose(&path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(&path, flags).map_err(diagnose)?;
        configure(&db).map_err(diagnose)?;
        migrate(&mut db, &path, migrations)?;
        let mut store = Store::new(db, name.clone());
        if fresh {
            // That there is a file must survive a loss of power, too.
            let _ = File::open(state_dir).and_then(|folder| folder.sync_all());
        }
        if fresh && (again || lock.had_state) {
            tracing::warn!(connector = %name, state = %path.display(), "{GONE}");
            store.note_gone(Timestamp::now(), GONE).map_err(diagnose)?;
        }
        if let Some(at) = store.settle_restored(Timestamp::now()).map_err(diagnose)? {
            tracing::warn!(connector = %name, %at, "this state was restored from a copy: what JumpCloud has is read again, and nobody is removed before two complete polls");
        }
        if store.note_cut_removal(Timestamp::now()).map_err(diagnose)? {
            tracing::warn!(connector = %name, "its removal was cut short; go on with it: torq-connector remove {name}");
        }
        lock.note_state();
        store.whereabouts = Some(Whereabouts::of(&path, &lock.path));
        Ok(Self::new(store, path, Some(lock)))
    }

    /// A copy in memory of what is known, for a dry run: everything works as ever, and nothing is written anywhere.
    pub fn scratch(state_dir: &Path, name: &ConnectorName) -> Result<Self, StateError> {
        let path = database(state_dir, name);
        let classify = |source| classify(&path, source);
        let mut db = copy(&path)?;
        configure(&db).map_err(classify)?;
        migrate_copy(&mut db, &path)?;
        let mut store = Store::new(db, name.clone());
        store.settle_restored(Timestamp::now()).map_err(classify)?;
        Ok(Self::new(store, path, None))
    }
}

/// Opens the state only to look at it, beside whichever process writes it; `None` when there is none yet, or none any more.
pub fn read(state_dir: &Path, name: &ConnectorName) -> Result<Option<Store>, StateError> {
    if removed(state_dir, name).is_some() {
        return Ok(None);
    }
    let path = database(state_dir, name);
    let Some(db) = open_read_only(&path)? else {
        return Ok(None);
    };
    let classify = |source| classify(&path, source);
    if version(&db).map_err(classify)? == MIGRATIONS.len() as i64 {
        return Ok(Some(Store::new(db, name.clone())));
    }
    // Of an earlier version, which may be writing it still: looked at in a copy.
    drop(db);
    let mut db = copy(&path)?;
    migrate_copy(&mut db, &path)?;
    Ok(Some(Store::new(db, name.clone())))
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

pub(super) fn open_read_only(path: &Path) -> Result<Option<Connection>, StateError> {
    // What may not be looked at may well be there.
    if !path.try_exists().map_err(|source| StateError::File {
        doing: "look at",
        path: path.to_owned(),
        source,
    })? {
        return Ok(None);
    }
    let classify = |source| classify(path, source);
    // Who opens a WAL file read-only and closes it last leaves its companions behind; who may write takes them away. So nothing
    // is written by a promise of ours. Where the file cannot be written, SQLite opens it read-only by itself.
    let immutable = |path: &Path| {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        look(Path::new(&format!("file:{}?immutable=1", encoded(path))), flags)
    };
    let (db, found) = match look_unless_foreign(path) {
        // Whoever opens it for writing takes the log of another state away; until then it is looked past.
        None => immutable(path),
        // On a disk that is read-only, SQLite cannot make the log's companions. Without a log it needs none.
        Some(Err(error)) if disk::is_about_disk(&error) && !has_log(path) => immutable(path),
        Some(looked) => looked,
    }
    .map_err(classify)?;
    judge(&db, path, found, &MIGRATIONS)?;
    // Made a moment ago by a process that has not filled it yet.
    Ok((found > 0).then_some(db))
}

/// A file beside a state, such as `NAME.db-wal`.
pub(super) fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether the write-ahead log beside a state belongs to another one. A state that was ever opened says in its header that it
/// has such a log, a copy that nobody opened yet says that it has none. So if there is one, it was left by a process that died, of
/// the state in whose place the copy was put, and SQLite would mix the two.
fn has_foreign_wal(path: &Path) -> bool {
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header.starts_with(b"SQLite format 3\0") && header[18] == 1 && companion(path, "-wal").exists()
}

fn drop_foreign_companions(path: &Path) -> Result<(), StateError> {
    if !has_foreign_wal(path) {
        return Ok(());
    }
    tracing::warn!(state = %path.display(), "the state was replaced by a copy, and a log of the old one was left beside it: it is deleted");
    for suffix in ["-wal", "-shm"] {
        let file = companion(path, suffix);
        match fs::remove_file(&file) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StateError::File {
                    doing: "delete",
                    path: file,
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// A connection that promises to write nothing, and the schema that it found.
fn look(path: &Path, flags: OpenFlags) -> rusqlite::Result<(Connection, i64)> {
    let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update(None, "query_only", true)?;
    let found = version(&db)?;
    Ok((db, found))
}

/// The same beside whoever writes it; `None` where a log lies beside it that is another state's.
fn look_unless_foreign(path: &Path) -> Option<rusqlite::Result<(Connection, i64)>> {
    (!has_foreign_wal(path)).then(|| look(path, OpenFlags::SQLITE_OPEN_READ_WRITE))
}

/// Whether something is in the write-ahead log of a state.
fn has_log(path: &Path) -> bool {
    fs::metadata(companion(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// A path as SQLite's URIs want it.
fn encoded(path: &Path) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes
        .map(|byte| match plain(byte) {
            true => char::from(*byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
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

pub(super) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Whether a database is a state, and one that this version understands.
fn judge(db: &Connection, path: &Path, found: i64, migrations: &[&str]) -> Result<(), StateError> {
    let classify = |source| classify(path, source);
    let path = path.to_owned();
    let application: i64 = db
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(classify)?;
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(classify)?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(StateError::NotOurs { path });
    }
    let known = migrations.len() as i64;
    if found > known {
        return Err(StateError::Newer { path, found, known });
    }
    Ok(())
}

/// Brings a state to the newest schema: a copy first, then one transaction for each step. Whatever a crash leaves of that, the next
/// opening goes on with it. `path` is empty for a state in memory.
pub(super) fn migrate(db: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), StateError> {
    let classify = |source| match path.as_os_str().is_empty() {
        true => classify(path, source),
        false => diagnose(path, source),
    };
    let found = version(db).map_err(classify)?;
    judge(db, path, found, migrations)?;
    let known = migrations.len() as i64;
    if found > 0 && found < known && !path.as_os_str().is_empty() {
        let copy = keep_copy(db, path, found)?;
        tracing::info!(copy = %copy.display(), from = found, to = known, "migrating the state; the copy can be deleted later");
    }
    for (number, statements) in (1..).zip(migrations).filter(|(number, _)| *number > found) {
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

/// Migrates what was copied from a file, which stays as it is; what is wrong with it is the file's.
pub(super) fn migrate_copy(db: &mut Connection, of: &Path) -> Result<(), StateError> {
    let path = of.to_owned();
    migrate(db, Path::new(""), &MIGRATIONS).map_err(|error| match error {
        StateError::Damaged { source, .. } => StateError::Damaged { path, source },
        StateError::NotOurs { .. } => StateError::NotOurs { path },
        StateError::Newer { found, known, .. } => StateError::Newer { path, found, known },
        StateError::Sql { source, system, .. } => StateError::Sql { path, source, system },
        other => other,
    })
}

/// Copies a state before it is migrated, for whoever goes back to the version before. What has the copy's name is a whole copy: it
/// gets the name last.
fn keep_copy(db: &Connection, path: &Path, schema: i64) -> Result<PathBuf, StateError> {
    let copy = path.with_extension(format!("db.schema-{schema}"));
    let part = path.with_extension(format!("db.schema-{schema}.part"));
    let failed = |doing| {
        let path = part.clone();
        move |source| StateError::File { doing, path, source }
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(failed("open"))?;
    let copied = db
        .backup("main", &part, None::<fn(rusqlite::backup::Progress)>)
        .map_err(|source| diagnose(path, source))
        .and_then(|()| file.sync_all().map_err(failed("copy the state to")))
        .and_then(|()| fs::rename(&part, &copy).map_err(failed("rename")));
    if copied.is_err() {
        // What was written of it may be what the disk lacks.
        let _ = fs::remove_file(&part);
    }
    copied.map(|()| copy)
}

/// What an error of SQLite means for the file.
pub fn classify(path: &Path, source: rusqlite::Error) -> StateError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StateError::Damaged { path, source },
        _ => StateError::Sql {
            path,
            source,
            system: None,
        },
    }
}

/// The same for whoever writes the state. What the disk says is asked of the disk, which blocks for a moment.
pub(super) fn diagnose(path: &Path, source: rusqlite::Error) -> StateError {
    let asks = disk::is_about_disk(&source);
    match classify(path, source) {
        StateError::Sql { path, source, .. } if asks => {
            let system = disk::probe(&path);
            StateError::Sql { path, source, system }
        }
        other => other,
    }
}
