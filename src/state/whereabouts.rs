//! Whether the files of an open state are still where they were opened. SQLite goes on writing into a file that somebody deleted or
//! replaced, and whatever it writes there, nobody ever finds again: an intent that is stored like that protects nobody. And whoever
//! deletes the lock lets another process believe that it is the only one.
//!
//! Closing a state that is not in its place harms nobody: SQLite sees that its file has moved, and leaves the log at its path alone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files of an open state, as they were when it was opened.
pub(super) struct Whereabouts {
    database: Seen,
    /// The lock, the write-ahead log and its index.
    companions: [Seen; 3],
}

/// What is not where it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// The database itself: what is at its path, if anything is, is another state.
    Database,
    /// A file that belongs to it: what is at the path of the database is still what is open.
    Companion(PathBuf),
}

struct Seen {
    path: PathBuf,
    /// Device and number; `None` for a file that was not there, which is not missed then.
    file: Option<(u64, u64)>,
}

impl Seen {
    fn at(path: PathBuf) -> Self {
        let file = fs::metadata(&path).ok().map(|file| (file.dev(), file.ino()));
        Self { path, file }
    }

    /// A disk that does not say is not taken for a file that is gone.
    fn is_moved(&self) -> bool {
        let Some(file) = self.file else { return false };
        match fs::metadata(&self.path) {
            Ok(now) => (now.dev(), now.ino()) != file,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

impl Whereabouts {
    /// Those of a database that was just opened, under this lock.
    pub(super) fn of(database: &Path, lock: &Path) -> Self {
        let beside = |suffix| {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            Seen::at(path.into())
        };
        Self {
            companions: [Seen::at(lock.to_owned()), beside("-wal"), beside("-shm")],
            database: Seen::at(database.to_owned()),
        }
    }

    /// What is not where it was, the database first. A few looks into the folder, some microseconds.
    pub(super) fn moved(&self) -> Option<Moved> {
        if self.database.is_moved() {
            return Some(Moved::Database);
        }
        let moved = self.companions.iter().find(|companion| companion.is_moved())?;
        Some(Moved::Companion(moved.path.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_deleted_or_replaced_is_noticed_and_one_that_is_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a.db", "a.lock", "a.db-wal"] {
            fs::write(at(name), "x").unwrap();
        }
        let whereabouts = Whereabouts::of(&at("a.db"), &at("a.lock"));
        fs::write(at("a.db"), "y").unwrap();
        // Not there when it was opened, so not missed.
        fs::write(at("a.db-shm"), "x").unwrap();
        assert_eq!(whereabouts.moved(), None);
        fs::remove_file(at("a.lock")).unwrap();
        assert_eq!(whereabouts.moved(), Some(Moved::Companion(at("a.lock"))));
        fs::rename(at("a.db"), at("away")).unwrap();
        assert_eq!(whereabouts.moved(), Some(Moved::Database));
        fs::copy(at("away"), at("a.db")).unwrap();
        assert_eq!(whereabouts.moved(), Some(Moved::Database), "a copy is another file");
    }
}
