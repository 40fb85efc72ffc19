//! Files as a process, a disk and a person may leave them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;

use super::*;
use crate::state::open::{MIGRATIONS, migrate};

#[tokio::test]
async fn a_long_log_begins_anew_and_is_short_then() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), &name()).unwrap();
    let log = dir.path().join("main.db-wal");
    let size = || std::fs::metadata(&log).map_or(0, |file| file.len());
    let users: Vec<_> = (0..2000).map(|number| user(number, 0)).collect();
    let run = async |users: Vec<User>| {
        let run = move |store: &mut Store| {
            store.begin_run(Timestamp::now())?;
            poll(store, &users, MaxRemovals::Users(5));
            store.end_run(Timestamp::now(), crate::view::RunOutcome::Done, None)
        };
        state.call(run).await.unwrap();
    };
    run(users.clone()).await;
    let long = size();
    assert!(long > 512 * 1024, "{long}");
    for _ in 0..50 {
        run(users.clone()).await;
        assert!(size() <= 256 * 1024, "{}", size());
    }
}

#[tokio::test]
async fn one_process_at_a_time_and_nobody_else_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    let state = State::open(&folder, &name()).unwrap();
    let second = State::open(&folder, &name()).err().unwrap().to_string();
    assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert!(read(&folder, &name()).unwrap().is_some(), "looking needs no lock");
    drop(state);
    State::open(&folder, &name()).unwrap();
}

#[test]
fn a_newer_a_damaged_and_a_foreign_file_are_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("main.db");
    drop(State::open(dir.path(), &name()).unwrap());
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = State::open(dir.path(), &name()).err().unwrap();
    assert!(matches!(error, StateError::Newer { found: 99, .. }), "{error}");
    assert!(matches!(read(dir.path(), &name()), Err(StateError::Newer { .. })));

    std::fs::remove_file(&path).unwrap();
    std::fs::write(
        &path,
        "not a database, but long enough to be looked at as one".repeat(100),
    )
    .unwrap();
    let error = State::open(dir.path(), &name()).err().unwrap();
    assert!(matches!(error, StateError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");

    std::fs::remove_file(&path).unwrap();
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (x);")
        .unwrap();
    let error = State::open(dir.path(), &name()).err().unwrap();
    assert!(matches!(error, StateError::NotOurs { .. }), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
    assert!(matches!(read(dir.path(), &name()), Err(StateError::NotOurs { .. })));
}

#[tokio::test]
async fn a_state_of_the_first_schema_is_taken_over_with_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let old = Connection::open(dir.path().join("main.db")).unwrap();
    old.execute_batch(include_str!("../schema/0001.sql")).unwrap();
    old.execute_batch(
        "PRAGMA user_version = 1; PRAGMA application_id = 0x746f7271;
         INSERT INTO connector (only, state_since, torq_side, hold_removals) VALUES (1, '2026-01-01T00:00:00.000Z', 'b', 1);
         INSERT INTO poll (only, started) VALUES (1, '2026-01-01T00:00:00.000Z');
         INSERT INTO users (id, email, email_key, status, sso, role_id, fingerprint, first_seen, absent_polls)
         VALUES ('u1', 'user1@example.com', 'user1@example.com', 'VERSION0', 0, '', 0, '2026-01-01T00:00:00.000Z', 1);",
    )
    .unwrap();
    drop(old);
    let mut looked_at = read(dir.path(), &name()).unwrap().unwrap();
    assert_eq!(looked_at.status().unwrap().users, 1, "before anybody migrates it");
    let state = State::open(dir.path(), &name()).unwrap();
    assert!(dir.path().join("main.db.schema-1").exists(), "a copy from before");
    let end = state
        .call(|store| Ok(poll(store, &[user(2, 0)], MaxRemovals::Users(5))))
        .await
        .unwrap();
    assert_eq!(
        (end.removed, end.held),
        (0, 1),
        "the doubt about another key is taken over"
    );
}

#[test]
fn what_the_sixth_schema_says_of_its_age_is_taken_over() {
    let mut db = Connection::open_in_memory().unwrap();
    migrate(&mut db, Path::new(""), &MIGRATIONS[..6]).unwrap();
    db.execute_batch(
        r#"UPDATE connector SET paused = 1, last_success = '2026-01-02T00:00:00.000Z', first_poll_at = '2026-01-01T00:00:00.000Z';
         INSERT INTO events (at, kind, after) VALUES
            ('2026-01-01T00:00:00.000Z', 'state_changed', '{"state":"paused"}'),
            ('2026-01-03T00:00:00.000Z', 'state_changed', '{"state":"paused"}'),
            ('2026-01-04T00:00:00.000Z', 'state_changed', NULL);
         INSERT INTO accounts (email_key, account_id, origin) VALUES ('gone@example.com', 'a1', 'found');"#,
    )
    .unwrap();
    migrate(&mut db, Path::new(""), &MIGRATIONS).unwrap();
    let left: Option<String> = db
        .query_row("SELECT left_at FROM accounts", [], |row| row.get(0))
        .unwrap();
    let about = Store::new(db, name()).about().unwrap();
    let told = |at: Option<Timestamp>| at.unwrap().to_string();
    assert_eq!(told(about.read_at), "2026-01-02T00:00:00Z");
    assert_eq!(told(about.paused_at), "2026-01-03T00:00:00Z");
    assert!(instant(left).is_some_and(|left| Timestamp::now().duration_since(left).as_secs() < 600));
}

#[tokio::test]
async fn a_scratch_copy_knows_everything_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), &name()).unwrap();
    state
        .call(|store| {
            poll(store, &[user(1, 0)], MaxRemovals::Users(5));
            Ok(())
        })
        .await
        .unwrap();
    let copy = State::scratch(dir.path(), &name()).unwrap();
    let (known, after) = copy
        .call(|store| {
            let known = store.users()?.len();
            poll(store, &[user(1, 0), user(2, 0)], MaxRemovals::Users(5));
            Ok((known, store.users()?.len()))
        })
        .await
        .unwrap();
    assert_eq!((known, after), (1, 2));
    let still = state.call(|store| Ok(store.users()?.len())).await.unwrap();
    assert_eq!(still, 1);
}
