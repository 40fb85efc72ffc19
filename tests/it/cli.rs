//! The commands, by the real binary: what they do, what they say and where, and how they exit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod credentials;
mod health;
mod init;
mod look;
mod manual;
mod preview;
mod reach;
mod report;
mod sandbox;
mod watching;
mod words;

use std::process::Stdio;
use std::time::Duration;

use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Licence, Sandbox};
use torq_connector::view::DryRunReport;

pub use look::agree;

use crate::binary::{Connector, Place, account_emails, bare, finish, keys, people_emails, sandbox};

/// One connector, `main`, to this sandbox.
fn place(sandbox: &Sandbox) -> Place {
    Place::new(&[Connector::new("main", sandbox)])
}

/// A sandbox that is not there any more: nothing listens on its port.
async fn gone() -> Connector {
    let sandbox = sandbox(1).await;
    let connector = Connector::new("main", &sandbox);
    crate::binary::goes_away(sandbox).await;
    connector
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_delivers_says_what_it_did_and_then_that_nothing_changed() {
    let sandbox = sandbox(12).await;
    let place = place(&sandbox);
    let ran = place
        .run(&["sync"])
        .await
        .exits(0)
        .tells(&["main: 12 users", "12 new", "12 accounts created"]);
    assert_eq!(ran.out, "", "what is for people goes to standard error");
    assert_eq!(account_emails(&sandbox.world()), people_emails(&sandbox.world()));
    sandbox.world().clear_requests();
    let ran = place
        .run(&["sync"])
        .await
        .exits(0)
        .tells(&["main: 12 users; nothing changed"]);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert!(sandbox.world().writes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_exits_75_with_a_refused_user_and_names_what_to_do() {
    let sandbox = sandbox(5).await;
    let refused = sandbox.world().people()[0].email.clone();
    sandbox
        .world()
        .behave(|behaviour| behaviour.refused_emails = vec![refused.clone()]);
    let place = place(&sandbox);
    place
        .run(&["sync"])
        .await
        .exits(75)
        .tells(&["1 parked", "torq-connector retry main"]);
    let users = place.run(&["users", "--format", "json"]).await.exits(0).json();
    let parked: Vec<_> = users["users"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|user| user["account"] == "parked")
        .collect();
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0]["email"], refused.as_str());
    assert!(parked[0]["reason"].is_string());

    sandbox.world().behave(|behaviour| behaviour.refused_emails.clear());
    place
        .run(&["retry", "main"])
        .await
        .exits(0)
        .tells(&["1 user is pending again"]);
    place.run(&["sync"]).await.exits(0).tells(&["1 account created"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_exits_75_with_held_removals_until_they_are_approved() {
    let sandbox = sandbox(20).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    for person in sandbox.world().people() {
        sandbox.world().remove_person(&person.id);
    }
    place.run(&["sync"]).await;
    place
        .run(&["sync"])
        .await
        .exits(75)
        .tells(&["20 held", "torq-connector approve main"]);
    let users = place.run(&["users", "main", "--format", "csv"]).await.exits(0).csv();
    assert_eq!(users.len(), 21, "nobody is forgotten while the removal is held");
    place.run(&["approve"]).await.exits(0).tells(&["20 removals approved"]);
    place.run(&["sync"]).await.exits(0);
    let status = place.run(&["status", "--format", "json"]).await.json();
    assert_eq!(
        (&status["connectors"][0]["users"], &status["connectors"][0]["removed"]),
        (&0.into(), &20.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_exits_75_in_report_only() {
    let sandbox = sandbox(4).await;
    sandbox
        .world()
        .behave(|behaviour| behaviour.account_create_refused = Some(405));
    let place = place(&sandbox);
    place
        .run(&["sync"])
        .await
        .exits(75)
        .tells(&["4 pending", "report", "torq-connector retry main"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_exits_77_when_torq_refuses_and_names_torq() {
    let sandbox = sandbox(3).await;
    let wrong = Place::new(&[Connector::new("main", &sandbox).with("torq.client_secret", "wrong")]);
    let ran = wrong
        .run(&["sync"])
        .await
        .exits(77)
        .tells(&["main: refused: Torq: ", "(401)", "API key", "reconnect"]);
    assert!(!ran.err.contains("JumpCloud"), "{}", ran.err);

    let place = place(&sandbox);
    sandbox.world().set_torq_scope(false);
    place
        .run(&["sync"])
        .await
        .exits(77)
        .tells(&["Torq: list users: ", "(403)", "user.read"]);
    sandbox.world().set_torq_scope(true);
    place.run(&["sync"]).await.exits(0);
    sandbox.world().revoke_torq_key();
    place
        .run(&["sync"])
        .await
        .exits(77)
        .tells(&["Torq", "(401)", "new API key"]);
    sandbox.world().restore_torq_key();
    place.run(&["sync"]).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_exits_77_when_jumpcloud_refuses_and_names_jumpcloud() {
    let sandbox = sandbox(3).await;
    let wrong = Connector::new("main", &sandbox).with("jumpcloud.client_secret", "wrong");
    let ran = Place::new(&[wrong]).run(&["sync"]).await;
    ran.exits(77)
        .tells(&["main: refused: JumpCloud: ", "(401)", "service account", "reconnect"]);

    for licence in [Licence::PaymentRequired, Licence::Forbidden] {
        sandbox.world().behave(|behaviour| behaviour.licence = licence);
        let place = place(&sandbox);
        place
            .run(&["sync"])
            .await
            .exits(77)
            .tells(&["JumpCloud", "no licence for SaaS Management"]);
        let status = place.run(&["status", "--format", "json"]).await.json();
        assert_eq!(status["connectors"][0]["state"], "not_licensed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_exits_69_when_nobody_answers() {
    let ran = Place::new(&[gone().await]).run(&["sync"]).await.exits(69);
    let ran = ran.tells(&["main: not finished: Torq: ", "connect", "torq-connector sync"]);
    assert!(ran.took < Duration::from_secs(60), "{:?}", ran.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_exits_69_when_the_peer_fails_for_ever() {
    let sandbox = sandbox(3).await;
    let rule = FaultRule::always(Endpoint::TorqUsers, Fault::status(503));
    sandbox.world().fault(rule);
    let ran = place(&sandbox)
        .run(&["sync"])
        .await
        .exits(69)
        .tells(&["Torq: list users: ", "(503)"]);
    assert!(ran.took < Duration::from_secs(60), "{:?}", ran.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_goes_on_where_a_failed_one_stopped() {
    let sandbox = sandbox(6).await;
    let place = place(&sandbox);
    // Both peers are gone after two accounts; the one that is under way is answered to nobody.
    sandbox
        .world()
        .fault(FaultRule::once(Endpoint::AccountCreate, Fault::LostAnswer).after(2));
    let all = FaultRule::always(Endpoint::Accounts, Fault::status(503));
    sandbox.world().fault(all.after(2));
    sandbox
        .world()
        .fault(FaultRule::always(Endpoint::AccountCreate, Fault::status(503)).after(3));
    place
        .run(&["sync"])
        .await
        .exits(69)
        .tells(&["main: not finished: JumpCloud: ", "(503)", "accounts created"]);
    sandbox.world().clear_faults();
    place.run(&["sync"]).await.exits(0);
    assert_eq!(account_emails(&sandbox.world()), people_emails(&sandbox.world()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_problems_exits_78_and_tells_all_of_them_with_their_keys() {
    let sandbox = sandbox(1).await;
    let connector = Connector::new("main", &sandbox)
        .with("torq.region", "mars")
        .with("poll_interval", "soon")
        .with("torq.client_sekret", "x")
        .without("jumpcloud.client_id");
    let place = Place::new(&[connector]);
    for command in [
        ["sync"].as_slice(),
        &["check"],
        &["check", "--offline"],
        &["run"],
        &["status"],
        &["sync", "--dry-run"],
    ] {
        let ran = place.run(command).await.exits(78).tells(&[
            "problems in the configuration",
            "config.toml",
            "connectors.main.torq.region",
            "connectors.main.poll_interval",
            "connectors.main.torq.client_sekret",
            "connectors.main.jumpcloud.client_id",
        ]);
        assert_eq!(ran.out, "");
    }
    assert!(sandbox.world().requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_not_there_exits_78_and_names_the_file() {
    let mut command = bare();
    command.args(["--config", "/nowhere/config.toml", "sync"]);
    finish(command).await.exits(78).tells(&["/nowhere/config.toml"]);
    let mut command = bare();
    command
        .env("TORQ_CONNECTOR_CONFIG", "/elsewhere/config.toml")
        .arg("status");
    finish(command).await.exits(78).tells(&["/elsewhere/config.toml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_part_of_the_configuration() {
    let sandbox = sandbox(2).await;
    let place = Place::new(&[Connector::new("main", &sandbox).without("torq.client_secret")]);
    place
        .run(&["sync"])
        .await
        .exits(78)
        .tells(&["connectors.main.torq.client_secret"]);
    let mut command = place.command(&["sync"]);
    command.env(
        "TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET",
        "sandbox-torq-secret",
    );
    finish(command).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_exit_64() {
    let sandbox = sandbox(1).await;
    let place = Place::new(&[Connector::new("one", &sandbox), Connector::new("two", &sandbox)]);
    for args in [
        ["everything"].as_slice(),
        &[],
        &["sync", "--format", "json"],
        &["status", "--format", "xml"],
        &["events", "--since", "yesterday"],
        &["sync", "--dry-runn"],
        &["sandbox", "--fault", "boom"],
        &["sandbox", "--every", "never"],
        &["demo", "--for", "soon"],
    ] {
        let ran = place.run(args).await.exits(64);
        assert_eq!(ran.out, "", "{args:?}");
        assert!(!ran.err.is_empty(), "{args:?}");
    }
    for command in [
        "sync",
        "check",
        "status",
        "users",
        "events",
        "reconnect",
        "pause",
        "resume",
        "approve",
        "retry",
    ] {
        let ran = place.run(&[command, "three"]).await.exits(64);
        ran.tells(&["there is no connector three", "one, two"]);
    }
    for command in ["reconnect", "pause", "resume", "approve", "retry"] {
        place
            .run(&[command])
            .await
            .exits(64)
            .tells(&["which connector?", "one, two"]);
    }
    assert!(place.files().is_empty(), "nothing was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_several_connectors_the_gravest_counts_and_the_others_are_done() {
    let sandbox = sandbox(4).await;
    let other = self::sandbox(4).await;
    let refused = other.world().people()[0].email.clone();
    other
        .world()
        .behave(|behaviour| behaviour.refused_emails = vec![refused]);
    let mut away = gone().await;
    away.name = "away".to_owned();
    let connectors = [
        away,
        Connector::new("good", &sandbox),
        Connector::new("locked", &sandbox).with("torq.client_secret", "wrong"),
        Connector::new("part", &other),
    ];
    let place = Place::new(&connectors);
    place.run(&["sync", "good", "part"]).await.exits(75);
    place.run(&["sync", "away", "part"]).await.exits(69);
    let ran = place.run(&["sync"]).await.exits(77);
    let ran = ran.tells(&[
        "good: 4 users; nothing changed",
        "part: 4 users; nothing changed",
        "away: not finished",
        "locked: refused",
    ]);
    assert_eq!(ran.err.matches("away: ").count(), 1, "said once:\n{}", ran.err);
    assert_eq!(sandbox.world().accounts().len(), 4);
    assert_eq!(other.world().accounts().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_connector_is_left_alone_and_counts_as_done_in_part_only_when_named() {
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    place
        .run(&["pause", "main"])
        .await
        .exits(0)
        .tells(&["torq-connector resume main"]);
    place.run(&["sync"]).await.exits(0).tells(&[
        "main: is paused",
        "nothing was done: every connector is paused or was removed",
    ]);
    place
        .run(&["sync", "main"])
        .await
        .exits(75)
        .tells(&["main: is paused", "torq-connector resume main"]);
    assert!(sandbox.world().requests().is_empty());
    place
        .run(&["status"])
        .await
        .exits(0)
        .shows(&["paused", "torq-connector resume main"]);
    place.run(&["resume", "main"]).await.exits(0);
    place.run(&["sync", "main"]).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_in_use_by_another_command_exits_69_and_says_by_whom() {
    let sandbox = sandbox(3).await;
    sandbox
        .world()
        .fault(FaultRule::always(Endpoint::TorqUsers, Fault::Hang));
    let place = place(&sandbox);
    let mut first = place.command(&["sync"]).stderr(Stdio::null()).spawn().unwrap();
    sandbox.world().seen(Endpoint::TorqUsers, 1).await;
    let pid = first.id().unwrap().to_string();
    place.run(&["sync"]).await.exits(69).tells(&["in use", &pid]);
    place.run(&["status"]).await.exits(0).shows(&["collecting"]);
    first.kill().await.unwrap();
    sandbox.world().clear_faults();
    place.run(&["sync"]).await.exits(0);
}

// The dry run.

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_a_run_would_do_and_writes_nothing_anywhere() {
    let sandbox = sandbox(8).await;
    let place = place(&sandbox);
    let ran = place.run(&["sync", "--dry-run"]).await.exits(0);
    ran.shows(&[
        "main: a run would make",
        "8 new users",
        "8 accounts to create",
        "a run would create it first",
    ]);
    assert!(sandbox.world().writes().is_empty());
    assert!(!place.state_dir().exists(), "{:?}", place.files());

    place.run(&["sync"]).await.exits(0);
    let (gone, changed) = (sandbox.world().people()[0].clone(), sandbox.world().people()[1].clone());
    sandbox.world().remove_person(&gone.id);
    sandbox.world().update_person(&changed.id, |person| {
        person.email = "someone.new@example.com".to_owned()
    });
    sandbox.world().add_people(2);
    sandbox.world().clear_requests();
    let before = place.files();
    for format in ["table", "json", "csv"] {
        place.run(&["sync", "--dry-run", "--format", format]).await.exits(0);
        assert!(sandbox.world().writes().is_empty());
        assert_eq!(place.files(), before, "{format}");
    }
    let preview = place.run(&["sync", "--dry-run", "--format", "json"]).await.json();
    let counts = &preview["connectors"][0]["counts"];
    assert_eq!(
        (&counts["appeared"], &counts["changed"], &counts["created"]),
        (&2.into(), &1.into(), &3.into())
    );
    place
        .run(&["sync"])
        .await
        .exits(0)
        .tells(&["2 new", "1 changed", "3 accounts created"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_has_the_documented_fields() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    let ran = place.run(&["sync", "--dry-run", "--format", "json"]).await.exits(0);
    assert_eq!(ran.err, "");
    let typed: DryRunReport = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(typed.connectors[0].counts.run.created, 3);
    let report = ran.json();
    assert_eq!(keys(&report), ["connectors"]);
    let connector = &report["connectors"][0];
    assert_eq!(keys(connector), ["changes", "counts", "guard", "name", "notes"]);
    assert_eq!(connector["name"], "main");
    for change in connector["changes"].as_array().unwrap() {
        assert_eq!(keys(change), EVENT);
        assert!(change["at"].is_null() && change["run"].is_null(), "{change}");
    }
    assert_eq!(
        keys(&connector["counts"]),
        [
            "appeared",
            "associated",
            "changed",
            "created",
            "deleted",
            "disappeared",
            "found",
            "held",
            "parked",
            "pending",
            "refused"
        ]
    );
    assert_eq!(
        keys(&connector["guard"]),
        ["candidates", "held", "held_already", "limit", "removals_24h"]
    );
    let csv = place
        .run(&["sync", "--dry-run", "--format", "csv"])
        .await
        .exits(0)
        .csv();
    assert_eq!(
        csv[0].join(","),
        "at,connector,run,kind,user_id,email,before,after,reason"
    );
    assert_eq!(csv.len(), 1 + connector["changes"].as_array().unwrap().len());
}

/// The fields of an event, sorted.
const EVENT: [&str; 9] = [
    "after",
    "at",
    "before",
    "connector",
    "email",
    "kind",
    "reason",
    "run",
    "user_id",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_what_would_be_held_or_parked_is_a_dry_run_that_worked() {
    let sandbox = sandbox(10).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    for person in sandbox.world().people() {
        sandbox.world().remove_person(&person.id);
    }
    place.run(&["sync"]).await;
    sandbox.world().clear_requests();
    let ran = place.run(&["sync", "--dry-run"]).await.exits(0);
    ran.shows(&[
        "10 removals to hold",
        "torq-connector approve main",
        "afterwards: 10 held",
    ]);
    let preview = place.run(&["sync", "--dry-run", "--format", "json"]).await.json();
    let guard = &preview["connectors"][0]["guard"];
    assert_eq!((&guard["candidates"], &guard["held"]), (&10.into(), &true.into()));
    assert!(sandbox.world().writes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_that_fails_exits_like_a_run_and_keeps_standard_output_for_data() {
    let sandbox = sandbox(3).await;
    let connectors = [
        Connector::new("bad", &sandbox).with("torq.client_secret", "wrong"),
        Connector::new("good", &sandbox),
    ];
    let place = Place::new(&connectors);
    let ran = place
        .run(&["sync", "--dry-run", "--format", "json"])
        .await
        .exits(77)
        .tells(&["bad: ", "Torq", "(401)"]);
    let report = ran.json();
    let [bad, good] = report["connectors"].as_array().unwrap().as_slice() else {
        panic!("both are there: {report}");
    };
    assert_eq!((&bad["name"], &good["name"]), (&"bad".into(), &"good".into()));
    let error = bad["error"].as_str().unwrap();
    assert!(
        error.contains("(401)") && bad["changes"] == serde_json::json!([]),
        "{bad}"
    );
    assert!(good.get("error").is_none() && !good["changes"].as_array().unwrap().is_empty());
    let table = place.run(&["sync", "bad", "--dry-run"]).await.exits(77);
    assert_eq!(table.out, "", "there is nothing to show");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_never_goes_through_a_proxy_because_it_carries_credentials() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let mut command = place.command(&["sync"]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, &address);
    }
    finish(command).await.exits(0).tells(&["main: 3 users"]);
    assert!(proxy.accept().is_err(), "the proxy was asked");
}
