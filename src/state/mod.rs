//! What is known about one connector: one SQLite file, `<state_dir>/<name>.db`, and one process that writes it.
//!
//! [`State`] is the handle: it keeps blocking calls off the async threads. [`Store`] is what is behind it; its operations are
//! spread over the rooms below by what they are about. SQL lives here and nowhere else, each statement beside the function
//! that names it.
//!
//! | room | about |
//! | --- | --- |
//! | `open` | files, the lock, migrations |
//! | `backup` | copies, and what a state that was restored from one may believe |
//! | `whereabouts` | whether the files are still those that were opened |
//! | `disk` | what a full, read-only or broken disk means for a person |
//! | `connector` | the one row about the connector itself |
//! | `poll` | pages, cursors, and the snapshot that comes of them |
//! | `seen` | what a running poll keeps in memory |
//! | `later` | what of it waits for the other listing |
//! | `removal` | which users count as gone, what is believed, what is held |
//! | `doubt` | why people who are missing are held, however few they are |
//! | `removed` | connectors that a person removed: the mark, and the end of the files |
//! | `accounts` | what JumpCloud is known to have, and what remains to be done |
//! | `adoption` | JumpCloud's list of accounts compared with that |
//! | `events` | events and runs |
//! | `erase` | forgetting a person who left |
//! | `retention` | what is kept for how long |
//! | `takedown` | which accounts go when the connector is removed, and what is left of that |
//! | `told` | what a person was told, and messages on their way |
//! | `shown` | status, users, events as people see them |
//! | `pages` | users and events a page at a time |
//! | `past` | who was there at a moment, reconstructed from the events |
//! | `reported` | small questions of reports |
//! | `course` | the course of things: users over time, runs |

mod accounts;
mod adoption;
#[cfg(test)]
mod ages;
mod approval;
mod backup;
mod connector;
mod course;
mod day;
mod disk;
mod doubt;
mod erase;
mod events;
mod held;
mod later;
#[cfg(test)]
mod migrating;
mod open;
mod pages;
mod past;
mod poll;
mod removal;
mod removed;
mod reported;
mod retention;
mod seen;
mod shown;
mod takedown;
#[cfg(test)]
pub(crate) mod tests;
mod told;
mod whereabouts;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::Connection;

pub use accounts::{Association, Creation, Deletion};
pub use adoption::{Adopted, Lost, Unresolved};
pub use approval::Withdrawn;
pub use backup::{Copied, backup, is_state_dir};
pub use connector::{About, Offered, Origin, Sides};
pub use course::{Course, Point, Step};
pub use disk::{Room, open_to_everybody, room};
pub use erase::{Erased, Erasure};
pub use events::NewEvent;
pub use held::HeldThen;
pub use open::{Lock, classify, database, read};
pub use pages::{
    EventPage, EventPageQuery, INVITED, PageUser, Survey, UserOrder, UserPage, UserPageQuery, UserSelection,
};
pub use past::{Horizon, Past, PastAccount, PastUser};
pub use poll::{Applied, Cursor};
pub use removal::{PollEnd, RemovalRules};
pub use removed::{Removed, drop_marks, files, forget, removed, set_up_again};
pub use retention::Pruned;
pub use shown::EventQuery;
pub use takedown::Remaining;
pub use told::{Bearing, Outgoing, Stage, Told};

use crate::model::ConnectorName;
use whereabouts::{Moved, Whereabouts};

/// The state could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process holds the lock.
    #[error(
        "the state of connector {name} is in use by {holder}; one process at a time may write it. Stop that one, or let it do the work"
    )]
    InUse {
        /// The connector.
        name: String,
        /// Which process, as far as known.
        holder: String,
    },
    /// A newer version of this program wrote it.
    #[error(
        "{path} was written by a newer torq-connector (schema {found}; this one knows up to {known}): install the newer version, or restore an older copy"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// It is another program's database.
    #[error(
        "{path} is a database of another program and not a state file: move it away, or let state_dir name another folder"
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// It is not a state file, or it is damaged.
    #[error(
        "{path} is damaged or not a state file ({source}): restore a copy, or move it away; without it, accounts are found again by e-mail, and none is made twice"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Somebody took its files away, or put others in their place, while it was open.
    #[error(
        "{path} was deleted or replaced while it was in use: the state is opened again as it is there now; what it does not know any more is found again, accounts by e-mail, and none is made twice"
    )]
    Displaced {
        /// The file.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("cannot {doing} {path}: {source}{}", disk::advice_of_system(source))]
    File {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// SQLite said no.
    #[error("{path}: {source}{}", disk::advice(source, system.as_ref()))]
    Sql {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
        /// What the system said when something small was written beside the file.
        system: Option<std::io::Error>,
    },
    /// The connector was removed.
    #[error("the connector {name} was removed; to set it up again: torq-connector reconnect {name}")]
    Removed {
        /// The connector.
        name: String,
    },
    /// The process is ending.
    #[error("the process is ending")]
    Ending,
}

/// Result of the operations of [`Store`]: SQLite's errors, to which [`State::call`] adds the file.
pub type Sql<T> = Result<T, rusqlite::Error>;

/// The handle to the state of one connector. Clones share it.
#[derive(Clone)]
pub struct State {
    shared: Arc<Shared>,
}

struct Shared {
    store: Mutex<Store>,
    path: PathBuf,
    /// Whether the connector was removed through this handle or a clone of it.
    closed: AtomicBool,
    /// Held as long as the handle lives; `None` for a scratch copy.
    _lock: Option<Lock>,
}

impl State {
    fn new(store: Store, path: PathBuf, lock: Option<Lock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                store: Mutex::new(store),
                path,
                closed: AtomicBool::new(false),
                _lock: lock,
            }),
        }
    }

    /// How large its files are, in bytes.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub async fn size(&self) -> Result<u64, StateError> {
        let path = self.shared.path.clone();
        let look = move || {
            let size = |path: &std::path::Path| std::fs::metadata(path).map(|file| file.len());
            // The log is only there while something was written.
            let log = size(&path.with_extension("db-wal")).unwrap_or_default();
            let doing = "look at";
            match size(&path) {
                Ok(file) => Ok(file + log),
                Err(source) => Err(StateError::File { doing, path, source }),
            }
        };
        tokio::task::spawn_blocking(look)
            .await
            .map_err(|_| StateError::Ending)?
    }

    /// Runs an operation off the async threads. It completes even if the caller is dropped meanwhile, so that a transaction is
    /// all or nothing for the one who asked, too.
    pub async fn call<R: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Store) -> Sql<R> + Send + 'static,
    ) -> Result<R, StateError> {
        let shared = Arc::clone(&self.shared);
        let task = tokio::task::spawn_blocking(move || {
            // A panic inside leaves no half transaction behind: SQLite rolls back when the transaction is dropped.
            let mut store = shared.store.lock().unwrap_or_else(PoisonError::into_inner);
            if shared.closed.load(Ordering::Relaxed) {
                let name = store.name.to_string();
                return Err(StateError::Removed { name });
            }
            store.is_in_place(&shared.path)?;
            operation(&mut store).map_err(|source| match &store.whereabouts {
                Some(_) => open::diagnose(&shared.path, source),
                None => open::classify(&shared.path, source),
            })
        });
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StateError::Ending),
            },
        }
    }
}

/// One connector's database, for the thread that has it.
pub struct Store {
    db: Connection,
    name: ConnectorName,
    /// Where its files were when it was opened; `None` for one that is only looked at, or only in memory.
    whereabouts: Option<Whereabouts>,
    /// The run that is going on.
    run: Option<i64>,
    /// What the running poll keeps in memory: a few bytes a user.
    poll: Option<seen::Memory>,
    /// Changes so far that say nothing about users and accounts: cursors, runs, states. See [`Store::version`].
    bookkeeping: u64,
    /// The last counted status, and the version it was counted at.
    counted: Option<(u64, shown::Counts)>,
    /// The last survey of all users, and the version it was made at.
    surveyed: Option<(u64, pages::Survey)>,
    settled: Settled,
    /// What was removed within a day.
    day: day::Day,
}

/// Questions whose answer walks over all users or accounts, each with the version at which the answer was "nobody". As long as
/// that is the version, the answer is the same: a run over unchanged users does not walk at all.
#[derive(Default)]
struct Settled {
    /// Whom to look for in the directory.
    matches: Option<u64>,
    /// Which accounts to create.
    creations: Option<u64>,
    /// Which accounts to associate.
    associations: Option<u64>,
    /// Which accounts have lost their user, or have one again.
    releases: Option<u64>,
}

impl Store {
    fn new(db: Connection, name: ConnectorName) -> Self {
        Self {
            db,
            name,
            whereabouts: None,
            run: None,
            poll: None,
            bookkeeping: 0,
            counted: None,
            surveyed: None,
            settled: Settled::default(),
            day: day::Day::default(),
        }
    }

    /// Nothing is read from files, nor written into them, that are not there any more for anybody else.
    fn is_in_place(&self, database: &Path) -> Result<(), StateError> {
        let path = match self.whereabouts.as_ref().and_then(Whereabouts::moved) {
            None => return Ok(()),
            Some(Moved::Database) => database.to_owned(),
            Some(Moved::Companion(path)) => path,
        };
        Err(StateError::Displaced { path })
    }

    /// A number that changes with everything written through this handle, bookkeeping excepted. What is forgotten to be
    /// counted as bookkeeping makes a difference too many, never one too few.
    fn version(&self) -> u64 {
        self.db.total_changes() - self.bookkeeping
    }

    /// Runs an operation that writes nothing about users and accounts.
    fn keep_books<R>(&mut self, operation: impl FnOnce(&mut Self) -> Sql<R>) -> Sql<R> {
        let before = self.version();
        let result = operation(self);
        self.bookkeeping += self.version() - before;
        result
    }

    /// Runs an operation whose transactions survive even a loss of power: a promise to a person, or an intent that is about to
    /// be acted upon. Others may be lost with the last moments before one, and are found again.
    fn durably<R>(&mut self, operation: impl FnOnce(&mut Self) -> Sql<R>) -> Sql<R> {
        self.db.pragma_update(None, "synchronous", "FULL")?;
        let result = operation(self);
        self.db.pragma_update(None, "synchronous", "NORMAL")?;
        result
    }

    /// The name of the connector.
    pub fn name(&self) -> &ConnectorName {
        &self.name
    }
}

/// A time as it is stored: UTC, milliseconds, sorts as text.
fn stored(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Reads [`stored`] back; a text that is not one counts as absent.
fn instant(text: Option<String>) -> Option<Timestamp> {
    text?.parse().ok()
}
