//! What is known about one connector: one SQLite file, `<state_dir>/<name>.db`, and one process that writes it.
//!
//! [`State`] is the handle: it keeps blocking calls off the async threads. [`Store`] is what is behind it; its operations are
//! spread over the rooms below by what they are about. SQL lives here and nowhere else, each statement beside the function
//! that names it.
//!
//! | room | about |
//! | --- | --- |
//! | `open` | files, the lock, migrations, copies |
//! | `connector` | the one row about the connector itself |
//! | `poll` | pages, cursors, and the snapshot that comes of them |
//! | `seen` | what a running poll keeps in memory |
//! | `removal` | who counts as gone, what is believed, what is held |
//! | `accounts` | what JumpCloud is known to have, and what remains to be done |
//! | `adoption` | JumpCloud's list of accounts compared with that |
//! | `events` | events and runs |
//! | `shown` | status, users, events as people see them |
//! | `pages` | users and events a page at a time |
//! | `course` | the course of things: users over time, runs |

mod accounts;
mod adoption;
mod connector;
mod course;
mod events;
mod open;
mod pages;
mod poll;
mod removal;
mod seen;
mod shown;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rusqlite::Connection;

pub use accounts::{Association, Creation, Deletion};
pub use adoption::{Adopted, Unresolved};
pub use connector::{About, Offered, Sides};
pub use course::{Course, Point, Step};
pub use events::NewEvent;
pub use open::{Lock, has_state, read};
pub use pages::{EventPage, EventPageQuery, PageUser, Survey, UserOrder, UserPage, UserPageQuery, UserSelection};
pub use poll::{Applied, Cursor};
pub use removal::{PollEnd, RemovalRules};
pub use shown::EventQuery;

use crate::model::ConnectorName;

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
    /// The file system said no.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// SQLite said no.
    #[error("{path}: {source}{}", hint(source))]
    Sql {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The process is ending.
    #[error("the process is ending")]
    Ending,
}

fn hint(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "; the disk is full: make room, the connector goes on by itself",
        Some(ErrorCode::ReadOnly) => "; the state must be writable by the user that runs torq-connector",
        Some(ErrorCode::CannotOpen) => "; check the folder's owner and permissions",
        _ => "",
    }
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
    /// Held as long as the handle lives; `None` for a scratch copy.
    _lock: Option<Lock>,
}

impl State {
    fn new(store: Store, path: PathBuf, lock: Option<Lock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                store: Mutex::new(store),
                path,
                _lock: lock,
            }),
        }
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
            operation(&mut store)
        });
        match task.await {
            Ok(result) => result.map_err(|source| open::classify(&self.shared.path, source)),
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
            run: None,
            poll: None,
            bookkeeping: 0,
            counted: None,
            surveyed: None,
            settled: Settled::default(),
        }
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
