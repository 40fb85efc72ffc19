//! Copies: a consistent copy of a state while somebody works with it, and what a state may still believe that was restored
//! from one.
//!
//! A copy knows that it is one (`connector.copied_at`), so whoever opens it for writing knows that time has passed of which it
//! tells nothing: accounts were made, people left and came back.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ffi};

use super::doubt::Doubt;
use super::open::{classify, database, make_dir, migrate_copy, open_read_only, version};
use super::poll::clear_poll;
use super::{NewEvent, Sql, StateError, Store, events, instant, stored};
use crate::model::ConnectorName;
use crate::view::EventKind;

/// How often a copy is tried while another process keeps the state to itself, and how long to wait in between.
const TRIES: u32 = 100;
const WAIT: Duration = Duration::from_millis(100);

/// So many copies of one second, and somebody is making them by mistake.
const MOST: u32 = 1000;

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
/// and checked before it has that name. Nothing is overwritten: another one of the same second is `NAME-TIME-2.db`. `None` when there is
/// no state.
///
/// # Errors
/// The state is damaged or newer, or the folder cannot be written.
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
    migrate_copy(&mut db, &source_path)?;
    let (users, schema) = seal(&db, now).map_err(|source| classify(&source_path, source))?;
    db.close().map_err(|(_, source)| classify(&path, source))?;
    part.as_file().sync_all().map_err(failed)?;
    let bytes = part.as_file().metadata().map_err(failed)?.len();
    let path = persist(part, &path).map_err(failed)?;
    File::open(to).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(Some(Copied {
        path,
        bytes,
        users,
        schema,
    }))
}

/// Gives the file this name, or the next one that is free. Returns which it was.
fn persist(mut part: tempfile::NamedTempFile, wanted: &Path) -> std::io::Result<PathBuf> {
    let stem = wanted.file_stem().unwrap_or_default().to_string_lossy();
    let mut path = wanted.to_path_buf();
    let mut number = 1;
    loop {
        match part.persist_noclobber(&path) {
            Ok(_) => return Ok(path),
            Err(taken) if taken.error.kind() == ErrorKind::AlreadyExists && number < MOST => part = taken.file,
            Err(error) => return Err(error.error),
        }
        number += 1;
        path.set_file_name(format!("{stem}-{number}.db"));
    }
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
        Doubt::reinstate(&transaction)?;
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

#[cfg(test)]
mod tests {
    use super::super::open::MIGRATIONS;
    use rusqlite::params;

    use super::*;
    use crate::config::{MaxRemovals, Removals, UserFilter};
    use crate::jumpcloud::Account;
    use crate::model::{AccountId, EmailKey, Listing};
    use crate::state::{RemovalRules, State, read};
    use crate::torq::{User, UsersPage};
    use crate::view::AccountStanding;

    fn name() -> ConnectorName {
        ConnectorName::parse("main").unwrap()
    }

    fn account(id: &str, email: &str) -> Account {
        Account {
            id: AccountId::new(id),
            email: Some(email.to_owned()),
            username: None,
            user_id: None,
        }
    }

    /// A poll that sees these people; how many it removed.
    fn poll(store: &mut Store, ids: &[&str]) -> u64 {
        let now = Timestamp::now();
        let users = ids.iter().map(|id| User {
            id: (*id).to_owned(),
            email: format!("{id}@example.com"),
            status: "VERIFIED".to_owned(),
            ..User::default()
        });
        let page = UsersPage {
            users: users.collect(),
            ..UsersPage::default()
        };
        let filter = UserFilter::default();
        store.begin_poll(now, &filter).unwrap();
        store.apply_page(now, Listing::Sso, &page, &filter).unwrap();
        store
            .apply_page(now, Listing::Local, &UsersPage::default(), &filter)
            .unwrap();
        let rules = RemovalRules {
            removals: Removals::Delete,
            max: MaxRemovals::Users(1),
        };
        store.finish_poll(now, &rules).unwrap().removed
    }

    fn standing(store: &Store, id: &str) -> AccountStanding {
        let users = store.users().unwrap();
        users.into_iter().find(|user| user.id == id).unwrap().account
    }

    /// A state folder in which somebody works with this state.
    async fn worked_with(work: impl FnOnce(&mut Store) + Send + 'static) -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), &name()).unwrap();
        state
            .call(|store| {
                work(store);
                Ok(())
            })
            .await
            .unwrap();
        (dir, state)
    }

    /// A copy of the state.
    fn copied(dir: &tempfile::TempDir) -> PathBuf {
        let copied = backup(dir.path(), &name(), dir.path(), Timestamp::now());
        copied.unwrap().unwrap().path
    }

    /// A copy, in the place of the state.
    fn restored(dir: &tempfile::TempDir, state: State, copy: &Path) -> State {
        drop(state);
        fs::copy(copy, dir.path().join("main.db")).unwrap();
        State::open(dir.path(), &name()).unwrap()
    }

    #[tokio::test]
    async fn a_copy_is_whole_private_and_leaves_the_state_as_it_is() {
        let (dir, state) = worked_with(|store| {
            poll(store, &["a", "b"]);
        })
        .await;
        // Beside somebody who is in the middle of writing.
        let mut writer = Connection::open(dir.path().join("main.db")).unwrap();
        let writing = writer.transaction().unwrap();
        writing.execute("DELETE FROM users", []).unwrap();
        let to = dir.path().join("copies");
        let now = "2026-11-24T03:15:00Z".parse().unwrap();
        let copied = backup(dir.path(), &name(), &to, now).unwrap().unwrap();
        assert_eq!((copied.users, copied.schema), (2, MIGRATIONS.len() as i64));
        assert_eq!(copied.path, to.join("main-20261124T031500Z.db"));
        let file = copied.path.metadata().unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert_eq!(file.len(), copied.bytes);
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1, "nothing else is left there");
        drop(writing);
        assert_eq!(read(dir.path(), &name()).unwrap().unwrap().users().unwrap().len(), 2);
        let copied_at: Option<String> = writer
            .query_row("SELECT copied_at FROM connector", [], |row| row.get(0))
            .unwrap();
        assert_eq!(copied_at, None, "the state itself is no copy");

        let bytes = fs::read(&copied.path).unwrap();
        for number in 2..4 {
            let again = backup(dir.path(), &name(), &to, now).unwrap().unwrap();
            assert_eq!(again.path, to.join(format!("main-20261124T031500Z-{number}.db")));
        }
        assert_eq!(fs::read(&copied.path).unwrap(), bytes, "nothing is overwritten");
        drop(state);
    }

    #[tokio::test]
    async fn a_damaged_state_makes_no_copy() {
        let (dir, state) = worked_with(|store| {
            for number in 0..40 {
                poll(store, &[&format!("somebody-{number}")]);
            }
        })
        .await;
        drop(state);
        // A page in the middle, as a dying disk leaves it.
        let path = dir.path().join("main.db");
        let mut bytes = fs::read(&path).unwrap();
        for page in 2..8 {
            bytes[page * 4096..page * 4096 + 2048].fill(0x5a);
        }
        fs::write(&path, bytes).unwrap();
        let to = dir.path().join("copies");
        let error = backup(dir.path(), &name(), &to, Timestamp::now()).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn whoever_was_missing_must_be_missing_twice_again() {
        let (dir, state) = worked_with(|store| {
            poll(store, &["a", "b", "c"]);
            poll(store, &["a", "b"]);
        })
        .await;
        let state = restored(&dir, state, &copied(&dir));
        state
            .call(|store| {
                assert_eq!(poll(store, &["a", "b"]), 0);
                assert_eq!(poll(store, &["a", "b"]), 1);
                Ok(())
            })
            .await
            .unwrap();
        // Only once: the next process does not begin to count again.
        drop(state);
        let state = State::open(dir.path(), &name()).unwrap();
        let copied_at = state
            .call(|store| {
                store.db.query_row("SELECT copied_at FROM connector", [], |row| {
                    row.get::<_, Option<String>>(0)
                })
            })
            .await
            .unwrap();
        assert_eq!(copied_at, None);
    }

    #[tokio::test]
    async fn what_was_approved_before_the_copy_is_asked_for_again_and_those_who_are_back_are_let_go() {
        let (dir, state) = worked_with(|store| {
            poll(store, &["a", "b", "c", "d"]);
            poll(store, &["a"]);
            assert_eq!(poll(store, &["a"]), 0, "three are too many");
            assert_eq!(store.approve(Timestamp::now()).unwrap(), 3);
        })
        .await;
        let state = restored(&dir, state, &copied(&dir));
        state
            .call(|store| {
                assert_eq!(standing(store, "b"), AccountStanding::Held);
                for _ in 0..3 {
                    assert_eq!(poll(store, &["a", "d"]), 0, "an old approval is none");
                }
                assert_eq!(standing(store, "b"), AccountStanding::Held);
                assert_ne!(standing(store, "d"), AccountStanding::Held);
                assert_eq!(store.approve(Timestamp::now()).unwrap(), 2);
                assert_eq!(poll(store, &["a", "d"]), 2);
                Ok(())
            })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn an_account_that_was_under_way_when_the_copy_was_made_is_found_and_never_ours() {
        let (dir, state) = worked_with(|store| {
            poll(store, &["a"]);
            store
                .creating(Timestamp::now(), &EmailKey::fold("a@example.com"), Timestamp::now())
                .unwrap();
        })
        .await;
        let state = restored(&dir, state, &copied(&dir));
        state
            .call(|store| {
                let now = Timestamp::now();
                assert!(
                    store.to_create(&EmailKey::fold(""), 9)?.is_empty(),
                    "it is looked for before anything is sent"
                );
                store.adopt(now, &[account("1", "a@example.com")])?;
                store.finish_adoption(now)?;
                assert_eq!(standing(store, "a"), AccountStanding::Found);
                Ok(())
            })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn an_account_that_was_due_to_be_deleted_is_decided_about_again() {
        let (dir, state) = worked_with(|store| {
            poll(store, &["a", "b"]);
            let creation = store.to_create(&EmailKey::fold("a@example.com"), 9).unwrap().remove(0);
            store
                .created(Timestamp::now(), &creation, &account("1", "b@example.com"))
                .unwrap();
            poll(store, &["a"]);
            assert_eq!(poll(store, &["a"]), 1);
            assert_eq!(store.to_delete(&EmailKey::fold(""), 9).unwrap().len(), 1);
        })
        .await;
        let state = restored(&dir, state, &copied(&dir));
        state
            .call(|store| {
                assert!(store.to_delete(&EmailKey::fold(""), 9)?.is_empty());
                poll(store, &["a", "b"]);
                poll(store, &["a", "b"]);
                assert!(
                    store.to_delete(&EmailKey::fold(""), 9)?.is_empty(),
                    "its user is back since the copy was made"
                );
                Ok(())
            })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn the_log_of_a_process_that_died_does_not_mix_with_the_copy() {
        let (dir, state) = worked_with(|store| {
            poll(store, &["a"]);
        })
        .await;
        let copy = copied(&dir);
        state
            .call(|store| {
                poll(store, &["a", "b", "c"]);
                Ok(())
            })
            .await
            .unwrap();
        // As a kill leaves it: the log is there, and the next who opens the state would replay it.
        let log = fs::read(dir.path().join("main.db-wal")).unwrap();
        assert!(!log.is_empty());
        drop(state);
        fs::copy(&copy, dir.path().join("main.db")).unwrap();
        fs::write(dir.path().join("main.db-wal"), &log).unwrap();

        let seen = |store: Store| store.users().unwrap().len();
        assert_eq!(
            seen(read(dir.path(), &name()).unwrap().unwrap()),
            1,
            "who only looks, looks past it"
        );
        assert_eq!(fs::read(dir.path().join("main.db-wal")).unwrap(), log);
        let state = State::open(dir.path(), &name()).unwrap();
        let (users, verdict) = state
            .call(|store| {
                let verdict: String = store.db.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
                Ok((store.users()?.len(), verdict))
            })
            .await
            .unwrap();
        assert_eq!((users, verdict.as_str()), (1, "ok"));
    }

    #[tokio::test]
    async fn a_copy_that_others_could_read_is_made_private_when_it_is_opened() {
        let (dir, state) = worked_with(|_| {}).await;
        let copy = copied(&dir);
        fs::set_permissions(&copy, Permissions::from_mode(0o644)).unwrap();
        let state = restored(&dir, state, &copy);
        let mode = dir.path().join("main.db").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(state);
    }

    #[tokio::test]
    async fn a_state_of_the_first_schema_is_migrated_and_its_copy_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join("main.db")).unwrap();
        db.execute_batch(include_str!("schema/0001.sql")).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        db.pragma_update(None, "application_id", 0x746f_7271).unwrap();
        db.execute(
            "INSERT INTO connector (only, state_since, application_id) VALUES (1, ?1, ?2)",
            params!["2026-11-01T00:00:00.000Z", "abc"],
        )
        .unwrap();
        drop(db);
        let state = State::open(dir.path(), &name()).unwrap();
        let about = state.call(|store| store.about()).await.unwrap();
        assert_eq!(about.application.unwrap().as_str(), "abc");
        assert_eq!(
            about.application_origin, None,
            "who made it is not known, so it is not ours"
        );
        let older = dir.path().join("main.db.schema-1");
        assert_eq!(older.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(crate::state::files(dir.path(), &name()).contains(&older));
    }
}
