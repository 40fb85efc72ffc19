//! Tests: a migration to a schema that only these tests know, killed and refused at any of its writes. This test binary is its own
//! victim: it starts itself again, behind the shim of the stories, to do nothing but migrate.

#[allow(dead_code)]
#[path = "../../tests/it/interpose/mod.rs"]
mod interpose;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use rusqlite::Connection;

use super::open::MIGRATIONS;
use super::*;
use crate::view::EventKind;
use interpose::{Death, Interpose, Refusal};

/// What later versions might do: something to every row, and then something that is not undone with it.
const LATER: [&str; 2] = [
    "CREATE TABLE people (id TEXT PRIMARY KEY, greeting TEXT NOT NULL) WITHOUT ROWID;
     INSERT INTO people SELECT id, 'hello ' || email FROM users;
     ALTER TABLE users ADD COLUMN nickname TEXT;
     UPDATE users SET nickname = 'nick-' || no;",
    "CREATE INDEX users_by_nickname ON users (nickname);
     UPDATE people SET greeting = upper(greeting);
     DELETE FROM events WHERE kind = 'user_changed';",
];

fn later() -> Vec<&'static str> {
    MIGRATIONS.into_iter().chain(LATER).collect()
}

fn name() -> ConnectorName {
    ConnectorName::parse("main").unwrap()
}

/// In the ordinary suite one write of so many is tried, beginning anywhere.
fn steps() -> impl Iterator<Item = u64> {
    let stride = if std::env::var_os("DEATHS").is_some() { 1 } else { 7 };
    (1 + fastrand::u64(0..stride)..).step_by(stride as usize)
}

/// A state of today, with something in it.
fn state_of_today(dir: &Path) {
    let state = State::open(dir, &name()).unwrap();
    let shared = Arc::into_inner(state.shared).unwrap();
    let store = shared.store.into_inner().unwrap();
    for number in 0..40 {
        store
            .db
            .execute(
                "INSERT INTO users (id, email, email_key, status, sso, role_id, fingerprint, first_seen)
                 VALUES ('u' || ?1, ?1 || '@example.com', ?1 || '@example.com', 'VERIFIED', 1, 'r', ?1, '2026-01-01T00:00:00.000Z')",
                [number],
            )
            .unwrap();
        let event = NewEvent {
            reason: Some(
                "long enough to fill some pages of a file, so that a copy takes more than one write: it does, it does, it does",
            ),
            ..NewEvent::default()
        };
        events::record(&store.db, Timestamp::now(), None, EventKind::UserAppeared, event).unwrap();
    }
}

fn copy_of(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// Not a test: what the other process does.
#[test]
#[ignore = "the others start it in a process of its own"]
fn migrates() {
    let Some(dir) = std::env::var_os("MIGRATES") else {
        return;
    };
    if let Err(error) = State::open_by(&later(), Path::new(&dir), &name(), false) {
        std::fs::write(Path::new(&dir).with_extension("said"), error.to_string()).unwrap();
        std::process::exit(3);
    }
}

fn migrate_in_another_process(dir: &Path, interpose: &Interpose) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "state::migrating::migrates", "--ignored", "--nocapture"])
        .env("MIGRATES", dir)
        .envs(interpose.env())
        .output()
        .unwrap()
}

/// Everything that a person could miss, as text.
fn content(file: &Path) -> String {
    let db = Connection::open(file).unwrap();
    let verdict: String = db
        .pragma_query_value(None, "integrity_check", |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok", "{}", file.display());
    let text = "SELECT (SELECT group_concat(id || email || fingerprint) FROM users) || (SELECT group_concat(no || kind) FROM events)";
    db.query_row(text, [], |row| row.get(0)).unwrap()
}

fn schema(file: &Path) -> i64 {
    let db = Connection::open(file).unwrap();
    db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// Whatever became of the migration: what has the name of a copy is a whole one, and the next process ends what was begun.
fn assert_goes_on(dir: &Path, before: &str, interpose: &Interpose) {
    let (old, new) = (MIGRATIONS.len() as i64, later().len() as i64);
    let copy = dir.join(format!("main.db.schema-{old}"));
    let looked_at = copy_of(dir);
    let found = schema(&looked_at.path().join("main.db"));
    assert!((old..=new).contains(&found), "{found}");
    assert_eq!(content(&looked_at.path().join("main.db")), before);
    if found > old {
        assert!(copy.exists(), "migrated, and no copy");
    }
    if copy.exists() {
        assert_eq!((schema(&copy), content(&copy).as_str()), (old, before));
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    interpose.begin();
    let output = migrate_in_another_process(dir, interpose);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(schema(&dir.join("main.db")), new);
    assert_eq!(content(&dir.join("main.db")), before);
    let db = Connection::open(dir.join("main.db")).unwrap();
    let greeted: i64 = db
        .query_row(
            "SELECT count(*) FROM people WHERE greeting = upper(greeting)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(greeted, 40, "each step was taken once");
}

#[test]
fn a_migration_that_is_killed_at_any_write_is_begun_again_and_ended() {
    let began = Instant::now();
    let today = tempfile::tempdir().unwrap();
    state_of_today(today.path());
    let before = content(&today.path().join("main.db"));
    let mut deaths = 0;
    for how in [Death::Before, Death::Torn, Death::Power(0), Death::Power(3)] {
        for step in steps() {
            let dir = copy_of(today.path());
            let interpose = Interpose::new(dir.path());
            interpose.kill_at(step, how);
            let output = migrate_in_another_process(dir.path(), &interpose);
            let died = interpose.deaths() == 1;
            assert_eq!(died, output.status.code().is_none(), "{output:?}");
            assert_goes_on(dir.path(), &before, &interpose);
            if !died {
                assert!(step > 20, "a migration has more steps than {step}");
                break;
            }
            deaths += 1;
        }
    }
    println!(
        "deaths: migration: {deaths} deaths in {:.1} s",
        began.elapsed().as_secs_f64()
    );
}

#[test]
fn a_migration_that_the_disk_refuses_at_any_write_says_so_and_is_ended_later() {
    let today = tempfile::tempdir().unwrap();
    state_of_today(today.path());
    let before = content(&today.path().join("main.db"));
    for (refusal, words) in [
        (Refusal::Full, "make room"),
        (Refusal::ReadOnly, "make it writable"),
        (Refusal::Broken, "system's log"),
    ] {
        let mut ended = 0;
        for step in steps() {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("state");
            fs::rename(copy_of(today.path()).keep(), &dir).unwrap();
            let interpose = Interpose::new(&dir);
            interpose.refuse_from(step, refusal);
            let output = migrate_in_another_process(&dir, &interpose);
            if interpose.refusals() == 0 {
                break;
            }
            if !output.status.success() {
                ended += 1;
                assert_eq!(output.status.code(), Some(3), "{output:?}");
                let said = fs::read_to_string(dir.with_extension("said")).unwrap();
                assert!(said.contains(words) && said.contains("main."), "{refusal:?}: {said}");
            }
            let left = fs::read_dir(&dir)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let left: Vec<_> = left.filter(|name| name.ends_with(".part")).collect();
            assert!(
                left.is_empty() || refusal != Refusal::Full,
                "half a copy takes the room that is missing: {left:?}"
            );
            interpose.relent();
            assert_goes_on(&dir, &before, &interpose);
        }
        assert!(ended > 3, "{refusal:?}: {ended}");
    }
}

#[test]
fn whoever_goes_back_to_the_version_before_finds_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    state_of_today(dir.path());
    let before = content(&dir.path().join("main.db"));
    drop(State::open_by(&later(), dir.path(), &name(), false).unwrap());
    let Err(error) = State::open(dir.path(), &name()) else {
        panic!("a newer schema was opened")
    };
    assert!(matches!(error, StateError::Newer { .. }), "{error}");
    let copy = dir.path().join(format!("main.db.schema-{}", MIGRATIONS.len()));
    fs::rename(copy, dir.path().join("main.db")).unwrap();
    drop(State::open(dir.path(), &name()).unwrap());
    assert_eq!(content(&dir.path().join("main.db")), before);
}
