//! Removal, on disk: the mark of a removed connector, and the end of its files.
//!
//! The mark (`NAME.removed`, without anything personal in it) is there before the files go. So whoever dies in between leaves a
//! connector that is removed, never one that begins again by surprise because nothing is known of it.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use rusqlite::Connection;

use super::open::{companion, database, open_read_only};
use super::{Lock, State, StateError, Store, stored};
use crate::model::ConnectorName;

/// A connector that was removed by a person.
#[derive(Clone, Debug)]
pub struct Removed {
    /// When; `None` where the mark does not say.
    pub at: Option<Timestamp>,
    /// Files that should be gone and are not.
    pub left: Vec<PathBuf>,
}

fn mark(state_dir: &Path, name: &ConnectorName) -> PathBuf {
    state_dir.join(format!("{name}.removed"))
}

/// Whether the connector was removed.
pub fn removed(state_dir: &Path, name: &ConnectorName) -> Option<Removed> {
    let mark = mark(state_dir, name);
    let text = match fs::read_to_string(&mark) {
        Ok(text) => text,
        // There is one, whatever is in it.
        Err(_) if mark.symlink_metadata().is_ok() => String::new(),
        // None, or nobody may look: then whatever is asked next says so.
        Err(_) => return None,
    };
    Some(Removed {
        at: text.lines().next().and_then(|line| line.parse().ok()),
        left: files(state_dir, name),
    })
}

/// The files with what is known of a connector, as far as they are there: the state, its companions, and the copies that were made
/// before migrations.
pub fn files(state_dir: &Path, name: &ConnectorName) -> Vec<PathBuf> {
    let path = database(state_dir, name);
    let mut files: Vec<_> = ["", "-wal", "-shm", "-journal"]
        .iter()
        .map(|suffix| companion(&path, suffix))
        .filter(|file| file.exists())
        .collect();
    files.extend(copies(state_dir, name));
    files
}

/// The copies that were made before migrations.
pub(super) fn copies(state_dir: &Path, name: &ConnectorName) -> Vec<PathBuf> {
    let copies = format!("{name}.db.schema-");
    let entries = fs::read_dir(state_dir).into_iter().flatten().flatten();
    let mut older: Vec<_> = entries
        .filter(|entry| {
            // Exactly: the state of a connector "NAME.db.schema-x" would begin like this, too.
            let file = entry.file_name();
            let number = file.to_str().and_then(|file| file.strip_prefix(&copies));
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .map(|entry| entry.path())
        .collect();
    older.sort();
    older
}

/// Forgets a connector whose state need not be open, or cannot be. `marked`: it is in the configuration still, and must not begin
/// again by itself.
///
/// # Errors
/// Somebody works with the state, or a file cannot be deleted.
pub fn forget(state_dir: &Path, name: &ConnectorName, now: Timestamp, marked: bool) -> Result<(), StateError> {
    let lock = Lock::take(state_dir, name)?;
    if marked && removed(state_dir, name).is_none() {
        write_mark(state_dir, name, now)?;
    }
    delete_files(state_dir, name)?;
    if !marked {
        delete(&mark(state_dir, name))?;
        // While it is still held: whoever comes now makes a new one.
        delete(&state_dir.join(format!("{name}.lock")))?;
    }
    drop(lock);
    Ok(())
}

/// Sets a removed connector up again: from the beginning, or from a copy that was put in the place of its state meanwhile.
///
/// # Errors
/// Somebody works with the state, or a file cannot be deleted.
pub fn set_up_again(state_dir: &Path, name: &ConnectorName) -> Result<(), StateError> {
    let lock = Lock::take(state_dir, name)?;
    if is_remainder(state_dir, name) {
        delete_files(state_dir, name)?;
    }
    if !database(state_dir, name).exists() {
        lock.note_no_state();
    }
    delete(&mark(state_dir, name))?;
    sync_folder(state_dir)
}

/// Whether the state beside a mark is what the removal should have deleted. A copy that was restored is not.
fn is_remainder(state_dir: &Path, name: &ConnectorName) -> bool {
    let db = open_read_only(&database(state_dir, name)).ok().flatten();
    db.is_some_and(|db| {
        let about = Store::new(db, name.clone()).about();
        about.is_ok_and(|about| about.removing.is_some())
    })
}

/// Takes away the marks of removed connectors that are not in the configuration any more: they have served. Returns their names.
pub fn drop_marks(state_dir: &Path, configured: impl Fn(&ConnectorName) -> bool) -> Vec<ConnectorName> {
    let entries = fs::read_dir(state_dir).into_iter().flatten().flatten();
    let names: Vec<_> = entries
        .filter_map(|entry| ConnectorName::parse(entry.file_name().to_str()?.strip_suffix(".removed")?))
        .filter(|name| !configured(name) && files(state_dir, name).is_empty())
        .collect();
    names
        .into_iter()
        .filter(|name| forget(state_dir, name, Timestamp::now(), false).is_ok())
        .collect()
}

impl State {
    /// Closes the state and deletes it. The connector counts as removed from then on; this handle and its clones are of no use any
    /// more, and the lock is held as long as they live.
    ///
    /// # Errors
    /// The mark cannot be written: then nothing happened. Or a file cannot be deleted.
    pub async fn remove(&self, now: Timestamp) -> Result<(), StateError> {
        let shared = std::sync::Arc::clone(&self.shared);
        let task = tokio::task::spawn_blocking(move || {
            let mut store = shared.store.lock().unwrap_or_else(PoisonError::into_inner);
            let state_dir = shared.path.parent().unwrap_or(Path::new(""));
            write_mark(state_dir, &store.name, now)?;
            // Closed before its files go: SQLite deletes the log when it closes, by its name, and that would then be the log of
            // whatever state has this name by then.
            if let Ok(nothing) = Connection::open_in_memory() {
                shared.closed.store(true, Ordering::Relaxed);
                let name = store.name.clone();
                drop(std::mem::replace(&mut *store, Store::new(nothing, name)));
            }
            delete_files(state_dir, &store.name)
        });
        task.await.unwrap_or(Err(StateError::Ending))
    }
}

fn write_mark(state_dir: &Path, name: &ConnectorName, now: Timestamp) -> Result<(), StateError> {
    let path = mark(state_dir, name);
    let failed = |source| StateError::File {
        doing: "write",
        path: path.clone(),
        source,
    };
    let mut file = tempfile::Builder::new()
        .prefix(".removed-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(state_dir)
        .map_err(failed)?;
    writeln!(
        file,
        "{}\nThis connector was removed at that time. To set it up again: torq-connector reconnect {name}",
        stored(now)
    )
    .and_then(|()| file.as_file().sync_all())
    .map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    sync_folder(state_dir)
}

/// Deletes what is known of a connector: the state last, for it says that the removal has begun.
fn delete_files(state_dir: &Path, name: &ConnectorName) -> Result<(), StateError> {
    for file in files(state_dir, name).iter().rev() {
        delete(file)?;
    }
    sync_folder(state_dir)
}

pub(super) fn delete(file: &Path) -> Result<(), StateError> {
    match fs::remove_file(file) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(StateError::File {
            doing: "delete",
            path: file.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn sync_folder(state_dir: &Path) -> Result<(), StateError> {
    File::open(state_dir)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StateError::File {
            doing: "write",
            path: state_dir.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::read;

    fn named(name: &str) -> ConnectorName {
        ConnectorName::parse(name).unwrap()
    }

    #[tokio::test]
    async fn a_removed_connector_leaves_a_mark_and_nothing_that_is_known_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (main, other) = (named("main"), named("main.db"));
        let state = State::open(dir.path(), &main).unwrap();
        let neighbour = State::open(dir.path(), &other).unwrap();
        fs::write(dir.path().join("main.db.schema-1"), "an older copy").unwrap();
        fs::write(dir.path().join("main.db.schema-1.db"), "another connector's").unwrap();
        state.remove("2026-11-24T03:15:00Z".parse().unwrap()).await.unwrap();

        assert!(files(dir.path(), &main).is_empty());
        assert!(!files(dir.path(), &other).is_empty(), "a name that begins alike");
        assert!(dir.path().join("main.db.schema-1.db").exists());
        let removed = removed(dir.path(), &main).unwrap();
        assert_eq!(removed.at, Some("2026-11-24T03:15:00Z".parse().unwrap()));
        let mode = dir.path().join("main.removed").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let late = state.call(|store| store.about()).await.unwrap_err();
        assert!(matches!(late, StateError::Removed { .. }), "{late}");
        drop(state);
        assert!(matches!(
            State::open(dir.path(), &main),
            Err(StateError::Removed { .. })
        ));
        assert!(read(dir.path(), &main).unwrap().is_none());
        neighbour.call(|store| store.about()).await.unwrap();
    }

    #[tokio::test]
    async fn a_handle_that_outlives_the_removal_touches_no_successor() {
        let dir = tempfile::tempdir().unwrap();
        let main = named("main");
        let state = State::open(dir.path(), &main).unwrap();
        state.remove(Timestamp::now()).await.unwrap();
        delete(&mark(dir.path(), &main)).unwrap();
        // The lock is held as long as the old handle lives.
        assert!(matches!(State::open(dir.path(), &main), Err(StateError::InUse { .. })));
        fs::write(dir.path().join("main.db-wal"), "of a successor").unwrap();
        drop(state);
        assert!(dir.path().join("main.db-wal").exists());
    }

    #[tokio::test]
    async fn setting_up_again_begins_from_nothing_but_keeps_a_copy_that_was_restored() {
        let dir = tempfile::tempdir().unwrap();
        let main = named("main");
        let state = State::open(dir.path(), &main).unwrap();
        state.call(|store| store.begin_removal(Timestamp::now())).await.unwrap();
        // Died between the mark and the deletion of the files.
        write_mark(dir.path(), &main, Timestamp::now()).unwrap();
        drop(state);
        assert_eq!(removed(dir.path(), &main).unwrap().left.len(), 1);
        set_up_again(dir.path(), &main).unwrap();
        assert!(files(dir.path(), &main).is_empty());

        let state = State::open(dir.path(), &main).unwrap();
        state.call(|store| store.pause(Timestamp::now(), true)).await.unwrap();
        drop(state);
        write_mark(dir.path(), &main, Timestamp::now()).unwrap();
        set_up_again(dir.path(), &main).unwrap();
        let state = State::open(dir.path(), &main).unwrap();
        assert!(state.call(|store| store.about()).await.unwrap().paused);
    }

    #[tokio::test]
    async fn marks_of_connectors_that_are_not_configured_any_more_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["configured", "gone", "left-over"] {
            forget(dir.path(), &named(name), Timestamp::now(), true).unwrap();
        }
        fs::write(dir.path().join("left-over.db"), "").unwrap();
        let dropped = drop_marks(dir.path(), |name| name.as_str() == "configured");
        assert_eq!(dropped, [named("gone")]);
        let mut rest: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        rest.sort();
        assert_eq!(
            rest,
            [
                "configured.lock",
                "configured.removed",
                "left-over.db",
                "left-over.lock",
                "left-over.removed"
            ]
        );
    }
}
