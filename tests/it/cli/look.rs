//! `status`, `users`, `events`: what is known, as a table, as JSON and as CSV, before any run and after.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use serde_json::Value;
use torq_connector::sandbox::Person;
use torq_connector::view::{EventsReport, StatusReport, UsersReport};

use super::{EVENT, place};
use crate::binary::{Connector, Place, finish, keys, sandbox};

/// The fields of a status by the design, sorted; `associations_pending` and `filtered` are additions, so that the numbers
/// of users add up, and so is `leftover`.
const STATUS: [&str; 21] = [
    "accounts",
    "accounts_held",
    "action",
    "associated",
    "associations_pending",
    "deletions_parked",
    "deletions_pending",
    "filtered",
    "held",
    "last_run",
    "last_success",
    "leftover",
    "name",
    "next_poll",
    "parked",
    "pending",
    "progress",
    "reason",
    "removed",
    "state",
    "users",
];

const USER: [&str; 14] = [
    "account",
    "account_id",
    "connector",
    "created",
    "directory_user_id",
    "email",
    "first_seen",
    "id",
    "last_login",
    "reason",
    "role",
    "role_id",
    "sso",
    "status",
];

const LAST_RUN: [&str; 11] = [
    "appeared",
    "associated",
    "changed",
    "created",
    "deleted",
    "disappeared",
    "finished",
    "found",
    "outcome",
    "refused",
    "started",
];

/// The numbers of a status, counted from the users.
pub fn counted(users: &Value) -> BTreeMap<&'static str, u64> {
    let users = users["users"].as_array().unwrap();
    let count = |test: &dyn Fn(&Value) -> bool| users.iter().filter(|user| test(user)).count() as u64;
    BTreeMap::from([
        ("users", users.len() as u64),
        ("accounts", count(&|user| user["account_id"].is_string())),
        ("associated", count(&|user| user["directory_user_id"].is_string())),
        ("pending", count(&|user| user["account"] == "pending")),
        ("parked", count(&|user| user["account"] == "parked")),
        ("held", count(&|user| user["account"] == "held")),
        ("filtered", count(&|user| user["account"] == "filtered")),
    ])
}

/// Asserts that the numbers of a status are those of its users.
pub fn agree(status: &Value, users: &Value) {
    for (name, number) in counted(users) {
        assert_eq!(status[name], number, "{name}: {status}");
    }
}

async fn json(place: &Place, command: &str) -> Value {
    let ran = place.run(&[command, "--format", "json"]).await.exits(0);
    let value = ran.json();
    match command {
        "status" => drop(serde_json::from_str::<StatusReport>(&ran.out).unwrap()),
        "users" => drop(serde_json::from_str::<UsersReport>(&ran.out).unwrap()),
        _ => drop(serde_json::from_str::<EventsReport>(&ran.out).unwrap()),
    }
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn before_any_run_everything_can_be_asked_and_nothing_is_made() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    let ran = place.run(&["status"]).await.exits(0).tells(&["no daemon is running"]);
    ran.shows(&["main", "starting", "never", "the first run will collect"]);
    place
        .run(&["users"])
        .await
        .exits(0)
        .shows(&["no users"])
        .tells(&["main: nothing is known yet"]);
    place.run(&["events"]).await.exits(0).shows(&["no events"]);
    let status = json(&place, "status").await;
    assert_eq!(keys(&status), ["connectors", "daemon"]);
    assert_eq!(status["daemon"], false);
    assert_eq!(keys(&status["connectors"][0]), STATUS);
    for field in ["last_success", "next_poll", "progress", "last_run"] {
        assert!(status["connectors"][0][field].is_null(), "{field}");
    }
    assert_eq!(json(&place, "users").await, serde_json::json!({"users": []}));
    assert_eq!(json(&place, "events").await, serde_json::json!({"events": []}));
    for (command, lines) in [("status", 2), ("users", 1), ("events", 1)] {
        let csv = place.run(&[command, "--format", "csv"]).await.exits(0).csv();
        assert_eq!(csv.len(), lines, "{command}");
    }
    assert!(!place.state_dir().exists());
    assert!(sandbox.world().requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_run_json_has_the_documented_fields_and_the_numbers_agree() {
    let sandbox = sandbox(12).await;
    let world = sandbox.world();
    let people = world.people();
    world.behave(|behaviour| behaviour.refused_emails = vec![people[0].email.clone()]);
    world.add_person(Person::with_email("temp@contractor.example"));
    let connector = Connector::new("main", &sandbox);
    let sections = "[connectors.main.users]\nexclude_emails = [\"*@contractor.example\"]\n";
    let place = Place::with(sections, &[connector]);
    place.run(&["sync"]).await.exits(75);

    let status = json(&place, "status").await;
    let status = &status["connectors"][0];
    assert_eq!(keys(status), STATUS);
    assert_eq!(keys(&status["last_run"]), LAST_RUN);
    assert_eq!(status["last_run"]["outcome"], "partial");
    assert_eq!(
        (&status["users"], &status["parked"], &status["filtered"]),
        (&13.into(), &1.into(), &1.into())
    );
    let users = json(&place, "users").await;
    assert_eq!(keys(&users), ["users"]);
    for user in users["users"].as_array().unwrap() {
        assert_eq!(keys(user), USER);
        let role = people.iter().any(|person| person.id == user["id"]);
        assert!(!role || user["role"].is_string(), "roles have names: {user}");
    }
    agree(status, &users);
    let events = json(&place, "events").await;
    assert_eq!(keys(&events), ["events"]);
    for event in events["events"].as_array().unwrap() {
        assert_eq!(keys(event), EVENT);
        assert!(event["at"].is_string() && event["connector"] == "main", "{event}");
    }
    let of_kind = |kind: &str| {
        events["events"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["kind"] == kind)
            .count()
    };
    assert_eq!(
        (
            of_kind("user_appeared"),
            of_kind("account_created"),
            of_kind("account_refused")
        ),
        (13, 11, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_has_the_fields_of_json_and_one_header_line() {
    let sandbox = sandbox(4).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let users = place.run(&["users", "--format", "csv"]).await.exits(0).csv();
    let mut header: Vec<_> = users[0].iter().map(String::as_str).collect();
    assert_eq!(users.len(), 5);
    header.sort_unstable();
    assert_eq!(header, USER);
    let events = place.run(&["events", "--format", "csv"]).await.exits(0).csv();
    let mut header: Vec<_> = events[0].iter().map(String::as_str).collect();
    header.sort_unstable();
    assert_eq!(header, EVENT);
    let status = place.run(&["status", "--format", "csv"]).await.exits(0).csv();
    assert_eq!(status.len(), 2);
    for field in STATUS.iter().filter(|field| !["progress", "last_run"].contains(field)) {
        assert!(status[0].iter().any(|column| column == field), "{field}");
    }
    for field in LAST_RUN {
        assert!(status[0].contains(&format!("last_run_{field}")), "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_can_be_narrowed_down() {
    let sandbox = sandbox(4).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let email = sandbox.world().people()[0].email.clone();
    let about = place
        .run(&["events", "--user", &email, "--format", "json"])
        .await
        .exits(0)
        .json();
    let kinds: Vec<_> = about["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["kind"].clone())
        .collect();
    assert_eq!(kinds, ["user_appeared", "account_created"]);
    let latest = place
        .run(&["events", "--limit", "1", "--format", "csv"])
        .await
        .exits(0)
        .csv();
    assert_eq!(latest.len(), 2);
    let none = place.run(&["events", "--since", "2100-01-01"]).await.exits(0);
    none.shows(&["no events"]);
    place
        .run(&["events", "--since", "1h"])
        .await
        .exits(0)
        .shows(&["user appeared"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_of_a_connector_that_has_stopped_is_said_to_be_old() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    for command in ["users", "events"] {
        let ran = place.run(&[command]).await.exits(0);
        assert_eq!(ran.err, "", "{command}: there is nothing to say");
    }
    let old = async |words: &[&str]| {
        for command in ["users", "events"] {
            for format in ["table", "csv", "json"] {
                let ran = place.run(&[command, "--format", format]).await.exits(0);
                ran.tells(words).hides(words);
            }
        }
    };
    sandbox.world().revoke_torq_key();
    place.run(&["sync"]).await.exits(77);
    old(&["note: polling has stopped since ", "torq-connector reconnect main"]).await;
    place.run(&["pause"]).await.exits(0);
    old(&["note: polling has stopped since ", "torq-connector resume main"]).await;

    // Of several, it is said whose.
    let connectors = [Connector::new("main", &sandbox), Connector::new("other", &sandbox)];
    place.configure("", &connectors);
    place.run(&["sync", "other"]).await.exits(77);
    let ran = place.run(&["users"]).await.exits(0);
    ran.tells(&[
        "note: main: polling has stopped since ",
        "note: other: polling has stopped since ",
        "note: other: the first collection is not complete",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_name_the_roles_whose_ids_they_keep() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let users = json(&place, "users").await;
    let events = json(&place, "events").await;
    for user in users["users"].as_array().unwrap() {
        let mut events = events["events"].as_array().unwrap().iter();
        let came = events.find(|event| event["kind"] == "user_appeared" && event["user_id"] == user["id"]);
        let after = &came.unwrap()["after"];
        assert!(user["role"].is_string());
        assert_eq!((&after["role_id"], &after["role"]), (&user["role_id"], &user["role"]));
        let ran = place
            .run(&["events", "--user", user["id"].as_str().unwrap()])
            .await
            .exits(0);
        ran.shows(&[&format!("role: {}", user["role"].as_str().unwrap())])
            .hides(&[user["role_id"].as_str().unwrap()]);
    }
    let daemon = place.daemon().await;
    // It listens before the state is open.
    daemon.state("main", "connected").await;
    let told = daemon.json("/api/events").await;
    assert_eq!(told["events"][0], events["events"][0]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_table_fits_into_80_columns() {
    let sandbox = sandbox(3).await;
    let connectors = [
        Connector::new("customer-one", &sandbox),
        Connector::new("customer-two", &sandbox).with("torq.client_secret", "wrong"),
    ];
    let place = Place::new(&connectors);
    place.run(&["sync"]).await.exits(77);
    let ran = place.run(&["status"]).await.exits(0);
    let table: Vec<_> = ran.out.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(table.len(), 3, "one line for each connector:\n{}", ran.out);
    for line in table {
        assert!(line.chars().count() <= 80, "{line}");
    }
    ran.shows(&[
        "connected",
        "reconnect required",
        "customer-two: Torq: ",
        "to do: check the client id (sandbox-torq-id), the address",
        "then: torq-connector reconnect customer-two",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_cannot_be_read_does_not_hide_the_others() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[Connector::new("bad", &sandbox), Connector::new("good", &sandbox)]);
    std::fs::create_dir(place.state_dir()).unwrap();
    place.write(
        "state/bad.db",
        "this is no database, this is some text that somebody put here",
    );
    let ran = place
        .run(&["sync"])
        .await
        .exits(1)
        .tells(&["good: 3 users", "bad: ", "bad.db is damaged"]);
    assert_eq!(ran.err.matches("is damaged").count(), 1, "{}", ran.err);
    let ran = place
        .run(&["status"])
        .await
        .exits(1)
        .shows(&["good", "connected", "bad.db is damaged"]);
    assert!(!ran.err.contains("good"), "{}", ran.err);
    for command in ["users", "events"] {
        let ran = place
            .run(&[command, "--format", "json"])
            .await
            .exits(1)
            .tells(&["bad.db is damaged"]);
        assert!(ran.json()[command].as_array().unwrap().len() >= 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_one_section_hides_no_other_connector() {
    let sandbox = sandbox(3).await;
    let good = || Connector::new("good", &sandbox);
    let place = Place::new(&[good(), Connector::new("bad", &sandbox)]);
    place.run(&["sync"]).await.exits(0);
    place.configure(
        "",
        &[good(), Connector::new("bad", &sandbox).with("torq.region", "mars")],
    );
    let copies = place.path("copies");
    let to = copies.to_str().unwrap();
    let looks: [&[&str]; 5] = [
        &["status"],
        &["users"],
        &["events"],
        &["report", "access"],
        &["backup", "--to", to],
    ];
    for command in looks {
        let run = async |names: &[&str]| place.run(&[command, names].concat()).await;
        let told = ["connectors.bad.torq.region", "The other connectors are not concerned"];
        for (names, code) in [(&[] as &[&str], 78), (&["good"], 0), (&["good", "bad"], 78)] {
            let ran = run(names).await.exits(code).tells(&told).hides(&["bad"]);
            assert!(!ran.out.is_empty(), "{command:?} {names:?}");
        }
        let ran = run(&["bad"]).await.exits(78).tells(&told[..1]);
        assert_eq!(ran.out, "");
        run(&["good", "nobody"]).await.exits(64);
    }
    let report = place
        .run(&["report", "access", "--format", "json"])
        .await
        .exits(78)
        .json();
    let error = report["connectors"][0]["error"].as_str().unwrap();
    assert!(error.contains("its section in the configuration"), "{report}");

    // What concerns all of them is no single connector's.
    place.configure("[log]\nlevel = 5\n", &[good()]);
    let ran = place.run(&["users"]).await.exits(78).tells(&["log.level"]);
    assert_eq!(ran.out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_without_a_daemon_says_which_secret_a_run_would_miss_and_does_not_fail() {
    let sandbox = sandbox(1).await;
    let connector = |secret: &str| Connector::new("main", &sandbox).torq_secret_in(secret);
    let place = Place::new(&[connector("secret")]);
    place.write("secret", "sandbox-torq-secret");
    place.run(&["sync"]).await.exits(0);
    let ran = place.run(&["status"]).await.exits(0);
    assert!(!ran.err.contains("note:"), "{}", ran.err);
    place.configure("", &[connector("gone")]);
    let ran = place.run(&["status", "--format", "json"]).await.exits(0);
    assert_eq!(ran.json()["connectors"][0]["state"], "connected");
    ran.tells(&[
        "note: from here, this connector would not run: connectors.main.torq.client_secret_file",
        "gone",
    ]);
    place.configure("", &[Connector::new("main", &sandbox).without("torq.client_secret")]);
    place.run(&["status"]).await.exits(0).tells(&[
        "note: from here, nothing would run:",
        "connectors.main.torq.client_secret",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_needs_no_secret() {
    let sandbox = sandbox(2).await;
    let connector = Connector::new("main", &sandbox).torq_secret_in("torq_secret");
    let place = Place::new(&[connector]);
    place.write("torq_secret", "sandbox-torq-secret\n");
    place.run(&["sync"]).await.exits(0);
    std::fs::remove_file(place.path("torq_secret")).unwrap();
    place
        .run(&["sync"])
        .await
        .exits(78)
        .tells(&["connectors.main.torq.client_secret_file"]);
    for command in ["status", "users", "events", "pause", "resume", "retry"] {
        place.run(&[command]).await.exits(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_error() {
    let sandbox = sandbox(30).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let binary = env!("CARGO_BIN_EXE_torq-connector");
    for command in [
        "users",
        "events --format csv",
        "events --format json",
        "sync --dry-run --format csv",
        "--help",
    ] {
        let mut shell = tokio::process::Command::new("bash");
        let config = place.path("config.toml");
        let line = format!(
            "set -o pipefail; {binary} --config {} {command} | head -1",
            config.display()
        );
        shell.arg("-c").arg(line).env_remove("TORQ_CONNECTOR_CONFIG");
        let ran = finish(shell).await.exits(0);
        assert_eq!(ran.out.lines().count(), 1, "{command}");
        assert!(
            !ran.err.contains("pipe") && !ran.err.contains("panic"),
            "{command}: {}",
            ran.err
        );
    }
}
