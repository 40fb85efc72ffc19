//! `report`: who has access, now and on days that are past; what about them is to be looked at; on paper and in files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;
use serde_json::Value;
use torq_connector::sandbox::{Account, Endpoint, Fault, FaultRule, Person};

use super::place;
use crate::binary::{Connector, Place, bare, finish, keys, people_emails, sandbox};

const USER: [&str; 16] = [
    "account",
    "account_id",
    "connector",
    "created",
    "directory",
    "directory_user_id",
    "email",
    "first_seen",
    "id",
    "idle_since",
    "last_login",
    "reason",
    "role",
    "role_id",
    "sso",
    "status",
];

async fn report(place: &Place, args: &[&str]) -> Value {
    let args: Vec<&str> = ["report"]
        .iter()
        .chain(args)
        .chain(&["--format", "json"])
        .copied()
        .collect();
    place.run(&args).await.exits(0).json()
}

fn emails(report: &Value, rows: &str) -> Vec<String> {
    let rows = report[rows].as_array().unwrap().iter();
    rows.map(|row| row["email"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn sorted(mut emails: Vec<String>) -> Vec<String> {
    emails.sort();
    emails
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_with_access_is_reported_with_the_documented_fields() {
    let sandbox = sandbox(12).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let access = report(&place, &["access"]).await;
    assert_eq!(
        keys(&access),
        [
            "at",
            "connectors",
            "days",
            "generated",
            "report",
            "since",
            "until",
            "users"
        ]
    );
    assert_eq!(
        keys(&access["connectors"][0]),
        [
            "as_of",
            "directory_asked",
            "error",
            "last_read",
            "name",
            "notes",
            "rows",
            "users"
        ]
    );
    assert_eq!((&access["report"], &access["at"]), (&"access".into(), &Value::Null));
    assert_eq!(access["connectors"][0]["rows"], 12);
    let users = access["users"].as_array().unwrap();
    assert_eq!(users.len(), 12);
    for user in users {
        assert_eq!(keys(user), USER);
        assert!(user["role"].is_string(), "roles by their names: {user}");
    }
    assert_eq!(
        sorted(emails(&access, "users")),
        sorted(people_emails(&sandbox.world()))
    );
    let csv = place.run(&["report", "access", "--format", "csv"]).await.exits(0).csv();
    assert_eq!((csv.len(), csv[0].len()), (13, USER.len()));
    let ran = place.run(&["report", "access", "main"]).await.exits(0);
    ran.shows(&["USER", "ROLE", "SIGN-IN", "LAST LOGIN", "CREATED", "KNOWN SINCE"])
        .tells(&["main: 12 users, as of the last complete poll, "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_the_past_is_the_report_that_was_made_then() {
    let sandbox = sandbox(10).await;
    let world = sandbox.world();
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    let before = Timestamp::now();
    place.run(&["sync"]).await.exits(0);
    let then = report(&place, &["access"]).await;
    let moment = Timestamp::now().to_string();

    let people = world.people();
    world.remove_person(&people[0].id);
    world.update_person(&people[1].id, |person| person.status = "SUSPENDED".to_owned());
    world.add_person(Person::with_email("late@example.com"));
    place.run(&["sync"]).await.exits(0);
    place.run(&["sync"]).await.exits(0);
    let now = report(&place, &["access"]).await;
    assert_eq!(emails(&now, "users").len(), 10);
    assert!(emails(&now, "users").contains(&"late@example.com".to_owned()));
    assert!(!emails(&now, "users").contains(&people[0].email));

    let past = report(&place, &["access", "--at", &moment]).await;
    assert!(past["at"].is_string());
    let told = |report: &Value| -> Vec<Value> {
        let fields = [
            "id",
            "email",
            "status",
            "sso",
            "role",
            "last_login",
            "first_seen",
            "account",
            "account_id",
            "directory_user_id",
        ];
        let rows = report["users"].as_array().unwrap().iter();
        rows.map(|row| fields.iter().map(|field| row[*field].clone()).collect())
            .collect()
    };
    assert_eq!(told(&past), told(&then));

    // Of the time before the first collection nobody knows anything, and nothing is made up.
    let ran = place
        .run(&["report", "access", "--at", &before.to_string()])
        .await
        .exits(75);
    assert_eq!(ran.out, "");
    ran.tells(&[
        "is not known: the first collection was complete at",
        "ask for that time or a later one",
    ]);
    let ran = place.run(&["report", "access", "--at", "2999-01-01"]).await.exits(64);
    ran.tells(&["still to come"]);

    let changes = report(&place, &["changes", "--since", "1h"]).await;
    let of = |kind: &str| -> Vec<&Value> {
        let rows = changes["changes"].as_array().unwrap().iter();
        rows.filter(|row| row["kind"] == kind).collect()
    };
    assert_eq!(of("user_disappeared").len(), 1);
    assert_eq!(of("user_changed").len(), 1);
    assert_eq!(of("user_changed")[0]["after"]["status"], "SUSPENDED");
    let since = report(&place, &["changes", "--since", &moment, "--until", &moment]).await;
    assert_eq!(since["changes"], Value::Array(Vec::new()));
    place
        .run(&["report", "changes", "--since", "1h", "--until", "2h"])
        .await
        .exits(64)
        .tells(&["is after --until"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_the_past_says_whose_removal_was_held_then() {
    let sandbox = sandbox(12).await;
    let world = sandbox.world();
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    place.run(&["sync"]).await.exits(0);
    let before = Timestamp::now().to_string();
    let people = world.people();
    for person in &people[..8] {
        world.remove_person(&person.id);
    }
    place.run(&["sync"]).await;
    place.run(&["sync"]).await.exits(75);
    let now = report(&place, &["access"]).await;
    let notes = now["connectors"][0]["notes"].to_string();
    assert!(notes.contains("8 removals waiting for approval: "), "{notes}");
    let then = Timestamp::now().to_string();
    // One is back, and the others are approved.
    world.add_person(people[0].clone());
    place.run(&["sync"]).await.exits(75);
    place.run(&["approve"]).await.exits(0);
    place.run(&["sync"]).await.exits(0);
    for (moment, rows, words) in [
        (
            &then,
            12,
            &["8 removals waiting for approval at that time: their users count"][..],
        ),
        (&before, 12, &[]),
    ] {
        let past = report(&place, &["access", "--at", moment]).await;
        let part = &past["connectors"][0];
        assert_eq!(part["rows"], rows);
        let notes = part["notes"].to_string();
        for word in words {
            assert!(notes.contains(word), "{word}: {notes}");
        }
        assert_eq!(
            notes.contains("held") || notes.contains("approval"),
            !words.is_empty(),
            "{notes}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_to_be_looked_at_is_the_same_in_reports_and_users() {
    let sandbox = sandbox(30).await;
    let world = sandbox.world();
    world.add_person(Person::with_email("nobody@elsewhere.example"));
    let people = world.people();
    world.update_person(&people[2].id, |person| person.status = "INVITATION_SENT".to_owned());
    world.update_person(&people[3].id, |person| person.last_login_time = None);
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    for (kind, filter) in [
        (&["unmatched"][..], &["--unmatched"][..]),
        (&["dormant"], &["--dormant", "90d"]),
        (&["dormant", "--for", "30"], &["--dormant", "30d"]),
        (&["pending-invitations"], &["--status", "invitation_sent"]),
    ] {
        let reported = report(&place, kind).await;
        let args: Vec<&str> = ["users", "--format", "json"].iter().chain(filter).copied().collect();
        let users = place.run(&args).await.exits(0).json();
        let listed = sorted(emails(&reported, "users"));
        assert_eq!(listed, sorted(emails(&users, "users")), "{kind:?}");
        assert!(!listed.is_empty() && listed.len() < 31, "{kind:?}");
        if kind[0] != "unmatched" {
            // As of this very moment, reconstructed from the events.
            let now = Timestamp::now().to_string();
            let args: Vec<&str> = kind.iter().copied().chain(["--at", &now]).collect();
            let past = report(&place, &args).await;
            assert_eq!(sorted(emails(&past, "users")), listed, "{kind:?}");
        }
    }
    assert!(emails(&report(&place, &["unmatched"]).await, "users").contains(&"nobody@elsewhere.example".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_one_side_only_is_read_from_jumpcloud() {
    let sandbox = sandbox(8).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let same = report(&place, &["drift"]).await;
    assert_eq!(same["differences"], Value::Array(Vec::new()));

    let people = world.people();
    world.add_account(Account {
        id: String::new(),
        email: Some("stranger@example.com".to_owned()),
        username: None,
        user_id: None,
    });
    world.remove_person(&people[0].id);
    place.run(&["sync"]).await.exits(0);
    place.run(&["sync"]).await.exits(0);
    let lost = world
        .accounts()
        .into_iter()
        .find(|account| account.email.as_deref() == Some(people[1].email.as_str()));
    world.delete_account(&lost.unwrap().id);
    let before = world.requests().len();
    let drift = report(&place, &["drift"]).await;
    let rows = drift["differences"].as_array().unwrap();
    assert_eq!(rows.len(), 3, "{drift}");
    let of = |email: &str| rows.iter().find(|row| row["email"] == email).unwrap();
    assert_eq!(of("stranger@example.com")["only_in"], "jumpcloud");
    assert!(of("stranger@example.com")["removed_at"].is_null());
    let leaver = of(&people[0].email);
    assert_eq!(
        (&leaver["only_in"], &leaver["origin"]),
        (&"jumpcloud".into(), &"created".into())
    );
    assert!(leaver["removed_at"].is_string(), "{leaver}");
    assert_eq!(of(&people[1].email)["only_in"], "torq");
    let requests = world.requests();
    assert!(
        requests[before..]
            .iter()
            .all(|request| request.method == "GET" || request.path.contains("token"))
    );

    world.revoke_jumpcloud_key();
    let ran = place.run(&["report", "drift"]).await.exits(77);
    assert_eq!(ran.out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_on_paper_is_one_private_file_and_overwrites_nothing() {
    let sandbox = sandbox(5).await;
    sandbox
        .world()
        .add_person(Person::with_email("<script>alert(1)</script>@example.com"));
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let file = place.path("access.html");
    let path = file.to_str().unwrap();
    let args = ["report", "access", "--format", "html", "--output", path];
    let ran = place.run(&args).await.exits(0).tells(&["6 rows written to"]);
    assert_eq!(ran.out, "");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let page = std::fs::read_to_string(&file).unwrap();
    for part in [
        "<title>Who has access to Torq – main</title>",
        "Reviewed by",
        "Generated",
        "&lt;script&gt;alert(1)",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for foreign in ["<script", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    place
        .run(&args)
        .await
        .exits(64)
        .tells(&["is there already, and reports overwrite nothing"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), page);
    for kind in ["unmatched", "dormant", "pending-invitations", "drift", "changes"] {
        let ran = place.run(&["report", kind, "--format", "html"]).await.exits(0);
        assert!(
            ran.out.starts_with("<!DOCTYPE html>") && ran.out.contains("Signature"),
            "{kind}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paper_and_table_answer_with_the_same_columns() {
    let sandbox = sandbox(6).await;
    let world = sandbox.world();
    world.update_person(&world.people()[0].id, |person| {
        person.status = "INVITATION_SENT".to_owned();
    });
    world.add_person(Person::with_email("nobody@elsewhere.example"));
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    for (kind, only_on_paper) in [
        (&["access"][..], "JUMPCLOUD USER"),
        (&["dormant", "--for", "1"], "JUMPCLOUD USER"),
        (&["unmatched"], ""),
        (&["pending-invitations"], ""),
    ] {
        let args: Vec<&str> = ["report"].iter().chain(kind).copied().collect();
        let table = place.run(&args).await.exits(0).out;
        let args: Vec<&str> = args.iter().chain(&["--format", "html"]).copied().collect();
        let page = place.run(&args).await.exits(0).out;
        let names = page.split("<th class=").skip(1);
        let names = names.map(|rest| rest.split(['>', '<']).nth(1).unwrap().to_uppercase());
        let names: Vec<String> = names.filter(|name| name != only_on_paper).collect();
        let header: Vec<&str> = table.lines().next().unwrap().split("  ").map(str::trim).collect();
        let header: Vec<&str> = header.into_iter().filter(|name| !name.is_empty()).collect();
        assert_eq!(header, names, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_as_of_the_last_complete_poll_and_says_why_there_is_none_since() {
    let sandbox = sandbox(4).await;
    let world = sandbox.world();
    let place = place(&sandbox);
    // Of a list without anybody in it, nobody must think that nobody has access.
    world.fault(FaultRule::always(Endpoint::TorqUsers, Fault::status(400)));
    place.run(&["sync"]).await;
    let access = place
        .run(&["report", "access", "--format", "json"])
        .await
        .exits(75)
        .json();
    let part = &access["connectors"][0];
    assert!(part["last_read"].is_null() && part["rows"] == 0, "{part}");
    world.clear_faults();
    // Read to its end, and nothing delivered.
    world.revoke_jumpcloud_key();
    place.run(&["sync"]).await.exits(77);
    let status = place.run(&["status", "--format", "json"]).await.exits(0).json();
    assert!(status["connectors"][0]["last_success"].is_null());
    let access = report(&place, &["access"]).await;
    let part = &access["connectors"][0];
    assert!(
        part["last_read"].is_string() && part["as_of"] == part["last_read"],
        "{part}"
    );
    assert_eq!(part["rows"], 4);
    let notes = part["notes"].to_string();
    assert!(
        notes.contains("polling has stopped since ") && notes.contains("What to do: "),
        "{notes}"
    );

    // Of a later moment nobody knows anything, whatever is asked for.
    world.restore_jumpcloud_key();
    place.run(&["reconnect"]).await;
    place.run(&["sync"]).await.exits(0);
    let read = report(&place, &["access"]).await["connectors"][0]["last_read"].clone();
    world.revoke_torq_key();
    place.run(&["sync"]).await.exits(77);
    let now = Timestamp::now().to_string();
    let past = report(&place, &["access", "--at", &now]).await;
    let part = &past["connectors"][0];
    assert_eq!((&part["as_of"], &part["last_read"]), (&read, &read));
    assert!(past["at"].as_str() > read.as_str());
    let ran = place.run(&["report", "access", "--at", &now]).await.exits(0);
    let said = [
        "as of the last complete poll, ",
        "what changed after that is not known",
        "polling has stopped since ",
    ];
    ran.tells(&said);
    let page = place
        .run(&["report", "access", "--at", &now, "--format", "html"])
        .await
        .exits(0);
    page.shows(&said);

    place.run(&["pause"]).await.exits(0);
    let ran = place.run(&["report", "changes"]).await.exits(0);
    ran.tells(&["a person paused it", "torq-connector resume main"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_asked_a_while_ago_is_said_to_be_and_how_to_ask_it_now() {
    let sandbox = sandbox(3).await;
    sandbox
        .world()
        .add_person(Person::with_email("nobody@elsewhere.example"));
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let asked = async || report(&place, &["unmatched"]).await["connectors"][0]["directory_asked"].clone();
    let first = asked().await;
    assert!(first.is_string(), "{first}");
    let said = ["the JumpCloud directory was last asked", "torq-connector sync main"];
    let questions = [
        &["report", "unmatched"][..],
        &["report", "access"],
        &["users", "--unmatched"],
    ];
    for question in questions {
        let ran = place.run(question).await.exits(0);
        assert!(!ran.err.contains(said[0]), "{question:?}: {}", ran.err);
    }
    let state = rusqlite::Connection::open(place.path("state/main.db")).unwrap();
    state
        .execute_batch("UPDATE accounts SET matched_at = '2026-01-02T03:04:05Z'")
        .unwrap();
    drop(state);
    for question in questions {
        let ran = place.run(question).await.exits(0);
        ran.tells(&said).tells(&["at 2026-01-02 03:04:05Z"]).hides(&said);
    }
    assert_eq!(asked().await, "2026-01-02T03:04:05Z");
    // It has nothing to do with what is asked otherwise.
    for question in [
        &["users"][..],
        &["report", "access", "--at", "0s"],
        &["report", "changes"],
    ] {
        let ran = place.run(question).await.exits(0);
        assert!(!ran.err.contains(said[0]), "{question:?}: {}", ran.err);
    }
    let past = report(&place, &["access", "--at", "0s"]).await;
    assert!(past["connectors"][0]["directory_asked"].is_null());
    // As it says, that asks it.
    place.run(&["sync", "main"]).await.exits(0);
    assert!(asked().await.as_str() > first.as_str());
    let ran = place.run(&["report", "unmatched"]).await.exits(0);
    assert!(!ran.err.contains(said[0]), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_what_does() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let refused = async |args: &[&str], words: &[&str]| {
        let ran = place.run(args).await.exits(64).tells(words);
        assert_eq!(ran.out, "", "{args:?}");
    };
    refused(
        &["report", "changes", "--since", "2999-01-01"],
        &["--since", "still to come", "give a time or a day that is past"],
    )
    .await;
    refused(
        &["report", "nonsense"],
        &[
            "'nonsense'",
            "the reports are access, unmatched, dormant, pending-invitations, drift, changes",
        ],
    )
    .await;
    for limit in ["0", "-1", "many"] {
        let limit = format!("--limit={limit}");
        refused(&["events", &limit], &["--limit", "give a number from 1 on"]).await;
    }
    // To the second, as people type.
    for args in [
        &["events", "--since", "1h", "--until", "2h"][..],
        &["report", "changes", "--since", "1h", "--until", "2h"],
    ] {
        let told = place.run(args).await.exits(64).err;
        assert!(told.contains("is after --until") && !told.contains('.'), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_written_as_its_ending_says() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let csv = &["--format", "csv"][..];
    for (name, format, begins) in [
        ("a.html", &[][..], "<!DOCTYPE html>"),
        ("b.HTM", &[], "<!DOCTYPE html>"),
        ("c.csv", &[], "connector,id,"),
        ("d.json", &[], "{"),
        ("e.txt", &[], "USER"),
        ("f", &[], "USER"),
        ("g.html", csv, "connector,id,"),
    ] {
        let path = place.path(name);
        let args = ["report", "access", "--output", path.to_str().unwrap()];
        let args: Vec<&str> = args.iter().chain(format).copied().collect();
        place.run(&args).await.exits(0).tells(&["2 rows written to"]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(begins), "{name}: {text}");
    }
    // What nobody could open is not written.
    let pdf = place.path("h.pdf");
    let args = ["report", "access", "--output", pdf.to_str().unwrap()];
    place
        .run(&args)
        .await
        .exits(64)
        .tells(&["h.pdf to be written?", "--format"]);
    assert!(!pdf.exists());
}

/// Whoever reviews access on paper is no administrator of the connector.
#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_the_machine_says_nothing_of_how_it_is_set_up() {
    let sandbox = sandbox(3).await;
    let connector = Connector::new("main", &sandbox).torq_secret_in("torq_secret");
    let place = Place::new(&[connector]);
    place.write("torq_secret", "sandbox-torq-secret\n");
    place.run(&["sync"]).await.exits(0);
    let config = place.path("config.toml");
    let private = [
        "sandbox-torq-id",
        "torq_secret",
        "What to do",
        "reconnect main",
        "resume main",
        config.to_str().unwrap(),
    ];
    let stopped = [
        "polling has stopped since ",
        "administrator should look at: torq-connector status main",
    ];
    let harmless = |text: &str, what: &str| {
        for part in stopped {
            assert!(text.contains(part), "{what}: {part}: {text}");
        }
        for part in private {
            assert!(!text.contains(part), "{what}: {part}: {text}");
        }
    };
    let refused = async || {
        let args = ["--config", config.to_str().unwrap(), "report", "access"];
        let told = {
            let mut command = bare();
            command.args(args);
            finish(command).await.exits(0)
        };
        told.tells(&["polling has stopped since "]).err
    };
    for trouble in ["secret", "key", "pause"] {
        match trouble {
            "secret" => {
                sandbox.world().revoke_torq_key();
                place.run(&["sync"]).await.exits(77);
            }
            "key" => {
                std::fs::remove_file(place.path("torq_secret")).unwrap();
                // As the daemon notes it, which starts without that file.
                let daemon = place.daemon().await;
                daemon.state("main", "reconnect_required").await;
                daemon
                    .status("main", |status| {
                        status["reason"]
                            .as_str()
                            .is_some_and(|reason| reason.contains("torq_secret"))
                    })
                    .await;
                daemon.stop().await;
            }
            _ => drop(place.run(&["pause"]).await.exits(0)),
        }
        // Whoever works at the machine is told everything.
        let told = refused().await;
        assert!(told.contains("What to do"), "{trouble}: {told}");
        let ran = place.run(&["report", "access", "--format", "html"]).await.exits(0);
        harmless(&ran.out, trouble);
        for (format, with_notes) in [("html", true), ("json", true), ("csv", false), ("table", false)] {
            let file = place.path(&format!("{trouble}.{format}"));
            let path = file.to_str().unwrap();
            place
                .run(&["report", "access", "--format", format, "--output", path])
                .await
                .exits(0)
                .tells(&["What to do"]);
            let text = std::fs::read_to_string(&file).unwrap();
            match with_notes {
                true => harmless(&text, format),
                false => assert!(!text.contains("stopped"), "{format}: {text}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_nothing_can_be_said_of_a_connector_is_nobodys_who_reads_the_paper() {
    let sandbox = sandbox(3).await;
    let connectors = ["main", "other"].map(|name| Connector::new(name, &sandbox));
    let place = Place::new(&connectors);
    place.run(&["sync"]).await.exits(0);
    let [main, other] = connectors;
    place.configure("", &[main, other.with("jumpcloud.client_secret", "wrong")]);
    let ran = place.run(&["report", "drift", "--format", "html"]).await.exits(77);
    ran.tells(&["other: ", "what to do: check the client id (sandbox-jumpcloud-id)"])
        .shows(&["nothing can be said of it now", "torq-connector status other"])
        .hides(&["sandbox-jumpcloud-id", "what to do"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_day_on_which_somebody_was_first_seen_is_not_taken_for_that_of_their_access() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let created = sandbox.world().people()[0].created_time.clone();
    let day = created[..10].to_owned();
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    assert_ne!(day, today);
    for kind in [&["access"][..], &["dormant", "--for", "1"], &["unmatched"]] {
        let args: Vec<&str> = ["report"].iter().chain(kind).copied().collect();
        sandbox
            .world()
            .add_person(Person::with_email("nobody@elsewhere.example"));
        place.run(&["sync"]).await.exits(0);
        let table = place.run(&args).await.exits(0);
        let table = table.shows(&[
            "CREATED",
            "KNOWN SINCE",
            "Known since: when this connector first saw the user",
        ]);
        assert!(!table.out.contains("  SINCE"), "{}", table.out);
        let args: Vec<&str> = args.iter().chain(&["--format", "html"]).copied().collect();
        let page = place.run(&args).await.exits(0);
        page.shows(&[
            ">Created<",
            ">Known since<",
            "Created: when Torq says",
            "Known since: when this",
        ]);
    }
    let csv = place.run(&["report", "access", "--format", "csv"]).await.exits(0);
    let csv = csv.shows(&[&created]).csv();
    assert!(csv[0].contains(&"created".to_owned()) && csv[0].contains(&"first_seen".to_owned()));
    place.run(&["report", "access"]).await.exits(0).shows(&[&day, &today]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_of_one_connector_hides_no_other() {
    let sandbox = sandbox(4).await;
    let place = Place::new(&[Connector::new("main", &sandbox), Connector::new("new", &sandbox)]);
    place.run(&["sync", "main"]).await.exits(0);
    let ran = place.run(&["report", "access", "--format", "json"]).await.exits(75);
    let ran = ran.tells(&["new: nothing is known yet", "main: 4 users"]);
    let told = ran.json();
    assert_eq!(told["users"].as_array().unwrap().len(), 4);
    assert_eq!(
        told["connectors"][1]["error"],
        "nothing is known yet; the first run will collect"
    );
    let ran = place.run(&["report", "access", "new"]).await.exits(75);
    assert_eq!(ran.out, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_events_are_filtered_and_say_among_whom_nobody_is_like_that() {
    let sandbox = sandbox(10).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    let count = async |args: &[&str], rows: &str| {
        let args: Vec<&str> = args.iter().chain(&["--format", "json"]).copied().collect();
        place.run(&args).await.exits(0).json()[rows].as_array().unwrap().len()
    };
    let sso = count(&["users", "--sso"], "users").await;
    assert_eq!(sso + count(&["users", "--local"], "users").await, 10);
    assert_eq!(count(&["users", "--account", "created"], "users").await, 10);
    let email = people_emails(&sandbox.world())[0].to_uppercase();
    assert_eq!(count(&["users", "--user", &email], "users").await, 1);
    let ran = place
        .run(&["users", "--status", "SUSPENDED"])
        .await
        .exits(0)
        .shows(&["no users"]);
    ran.tells(&["none of 10 users is like that; statuses are", "VERIFIED ("]);
    place.run(&["users", "--sso", "--local"]).await.exits(64);

    assert_eq!(count(&["events", "--kind", "user_appeared"], "events").await, 10);
    let both = ["events", "--kind", "user_appeared,account_created"];
    assert_eq!(count(&both, "events").await, 20);
    assert_eq!(count(&["events", "--until", "1h"], "events").await, 0);
    place
        .run(&["events", "--kind", "user_vanished"])
        .await
        .exits(64)
        .tells(&["user_appeared"]);
}
