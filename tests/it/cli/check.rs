//! `check`: each thing that can be wrong is tested apart, and the answer names the one that is. It writes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Licence, Sandbox};

use super::{gone, place};
use crate::binary::{Connector, Place, Ran, keys, sandbox};

/// Runs `check`, which must write nothing, whatever it finds.
async fn check(place: &Place, sandbox: &Sandbox) -> Ran {
    let before = place.files();
    let ran = place.run(&["check"]).await;
    assert!(sandbox.world().writes().is_empty(), "check writes nothing in JumpCloud");
    assert_eq!(place.files(), before, "check writes nothing in the state folder");
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_every_step_and_writes_nothing() {
    let sandbox = sandbox(3).await;
    let place = place(&sandbox);
    let ran = check(&place, &sandbox).await.exits(0);
    assert_eq!(ran.err, "");
    let steps = [
        "ok      configuration",
        "ok      Torq connection",
        "ok      Torq credentials",
        "ok      Torq user.read",
        "ok      JumpCloud connection",
        "ok      JumpCloud credentials",
        "ok      JumpCloud directory",
        "ok      JumpCloud licence",
        "note    JumpCloud application",
        "note    JumpCloud account writes",
    ];
    let ran = ran
        .shows(&steps)
        .shows(&["1 connector\n", "not there yet", "not tried yet"]);
    let order: Vec<_> = steps.iter().map(|step| ran.out.find(step)).collect();
    assert!(order.is_sorted(), "{}", ran.out);
    assert!(!place.state_dir().exists());

    place.run(&["sync"]).await.exits(0);
    sandbox.world().clear_requests();
    let ran = check(&place, &sandbox).await.exits(0);
    ran.shows(&[
        "ok      JumpCloud application",
        "torq is there",
        "the last delivery created accounts",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_offline_without_secrets_judges_all_but_them() {
    let sandbox = sandbox(1).await;
    let connector = |key, value: &str| {
        Connector::new("main", &sandbox)
            .torq_secret_in("for_the_daemon_only")
            .with(key, value)
    };
    let place = Place::new(&[connector("poll_interval", "1m")]);
    place
        .run(&["check", "--offline"])
        .await
        .exits(78)
        .tells(&["for_the_daemon_only"]);
    let judge = ["check", "--offline", "--without-secrets"];
    place.run(&judge).await.exits(0).shows(&["ok      configuration"]);
    let place = Place::new(&[connector("poll_interval", "never")]);
    place
        .run(&judge)
        .await
        .exits(78)
        .tells(&["connectors.main.poll_interval"]);
    place.run(&["check", "--without-secrets"]).await.exits(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_offline_sends_nothing() {
    let sandbox = sandbox(1).await;
    let connector = Connector::new("main", &sandbox).with("torq.client_secret", "wrong");
    let place = Place::new(&[connector]);
    let ran = place.run(&["check", "--offline"]).await.exits(0);
    ran.shows(&[
        "ok      configuration",
        "main",
        &sandbox.torq_api_url(),
        &sandbox.console_url(),
    ]);
    assert!(sandbox.world().requests().is_empty());
    assert!(!place.state_dir().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_a_peer_that_cannot_be_reached() {
    let sandbox = sandbox(1).await;
    let away = gone().await.settings;
    let setting = |key| away.iter().find(|(known, _)| *known == key).unwrap().1.clone();
    let torq = Connector::new("main", &sandbox)
        .with("torq.api_url", setting("torq.api_url"))
        .with("torq.token_url", setting("torq.token_url"));
    let ran = check(&Place::new(&[torq]), &sandbox).await.exits(69);
    ran.tells(&["main: failed: Torq connection"]).shows(&[
        "FAILED  Torq connection",
        "cannot connect",
        "ok      JumpCloud licence",
    ]);

    let jumpcloud = Connector::new("main", &sandbox)
        .with("jumpcloud.console_url", setting("jumpcloud.console_url"))
        .with("jumpcloud.token_url", setting("jumpcloud.token_url"));
    let ran = check(&Place::new(&[jumpcloud]), &sandbox).await.exits(69);
    ran.tells(&["main: failed: JumpCloud connection"])
        .shows(&["ok      Torq user.read", "FAILED  JumpCloud connection"]);

    let nobody = Connector::new("main", &sandbox)
        .with("torq.token_url", "https://torq.invalid/token")
        .with("torq.api_url", "https://torq.invalid/public/v1alpha");
    let ran = check(&Place::new(&[nobody]), &sandbox).await.exits(69);
    ran.shows(&["FAILED  Torq connection"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_wrong_credentials() {
    let sandbox = sandbox(1).await;
    let torq = Connector::new("main", &sandbox).with("torq.client_secret", "wrong");
    let ran = check(&Place::new(&[torq]), &sandbox).await.exits(77);
    ran.tells(&["main: failed: Torq credentials"]).shows(&[
        "ok      Torq connection",
        "FAILED  Torq credentials",
        "(401)",
        &format!(
            "what to do: check the client id (sandbox-torq-id), the address ({}) and the client secret (written in the configuration)",
            sandbox.torq_token_url()
        ),
        "if the key is revoked or expired, make a new API key in Torq",
        "then again: torq-connector check main",
        "ok      JumpCloud licence",
    ]);

    let jumpcloud = Connector::new("main", &sandbox).with("jumpcloud.client_secret", "wrong");
    let ran = check(&Place::new(&[jumpcloud]), &sandbox).await.exits(77);
    ran.tells(&["main: failed: JumpCloud credentials"]).shows(&[
        "ok      Torq user.read",
        "ok      JumpCloud connection",
        "FAILED  JumpCloud credentials",
        "(401)",
    ]);

    let key = Connector::new("main", &sandbox)
        .without("jumpcloud.client_id")
        .without("jumpcloud.client_secret");
    let good = key.with("jumpcloud.api_key", "sandbox-jumpcloud-key");
    check(&Place::new(&[good]), &sandbox).await.exits(0);
    let key = Connector::new("main", &sandbox)
        .without("jumpcloud.client_id")
        .without("jumpcloud.client_secret");
    let wrong = key.with("jumpcloud.api_key", "wrong");
    let ran = check(&Place::new(&[wrong]), &sandbox).await.exits(77);
    ran.shows(&["FAILED  JumpCloud credentials"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_a_missing_scope() {
    let sandbox = sandbox(1).await;
    sandbox.world().set_torq_scope(false);
    let ran = check(&place(&sandbox), &sandbox).await.exits(77);
    ran.tells(&["main: failed: Torq user.read"]).shows(&[
        "ok      Torq credentials",
        "FAILED  Torq user.read",
        "(403)",
        "what to do: give the role of the API key the scope user.read",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_which_api_url_answers() {
    let sandbox = sandbox(1).await;
    let without = sandbox.torq_api_url().replace("/public", "");
    let place = Place::new(&[Connector::new("main", &sandbox).with("torq.api_url", without.clone())]);
    let ran = check(&place, &sandbox).await.exits(77);
    let there = format!(
        "but there is one below {}: set torq.api_url to it",
        sandbox.torq_api_url()
    );
    ran.shows(&["FAILED  Torq user.read", &there]);

    sandbox.world().behave(|behaviour| behaviour.torq_without_public = true);
    check(&place, &sandbox).await.exits(0);
    let place = super::place(&sandbox);
    let ran = check(&place, &sandbox).await.exits(77);
    ran.shows(&[
        "FAILED  Torq user.read",
        &format!("but there is one below {without}: set torq.api_url to it"),
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_a_wrong_or_missing_organisation() {
    let sandbox = sandbox(1).await;
    sandbox.world().set_org_id(Some("5f1b1d2e3c4b5a6978877665"));
    let ran = check(&place(&sandbox), &sandbox).await.exits(77);
    ran.tells(&["main: failed: JumpCloud directory"]).shows(&[
        "ok      JumpCloud credentials",
        "FAILED  JumpCloud directory",
        "x-org-id header is required",
        "jumpcloud.org_id",
    ]);
    let with = |id| Place::new(&[Connector::new("main", &sandbox).with("jumpcloud.org_id", id)]);
    let ran = check(&with("000000000000000000000000"), &sandbox).await.exits(77);
    ran.shows(&[
        "FAILED  JumpCloud directory",
        "no such organization",
        "jumpcloud.org_id",
    ]);
    let ran = check(&with("5f1b1d2e3c4b5a6978877665"), &sandbox).await.exits(0);
    ran.shows(&["ok      JumpCloud directory", "organisation 5f1b1d2e3c4b5a6978877665"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_a_missing_licence() {
    let sandbox = sandbox(1).await;
    for licence in [Licence::PaymentRequired, Licence::Forbidden] {
        sandbox.world().behave(|behaviour| behaviour.licence = licence);
        let ran = check(&place(&sandbox), &sandbox).await.exits(77);
        ran.tells(&["main: failed: JumpCloud licence"]).shows(&[
            "ok      JumpCloud directory",
            "FAILED  JumpCloud licence",
            "no licence for SaaS Management",
        ]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_of_a_peer_that_fails_ends_soon_with_69() {
    let sandbox = sandbox(1).await;
    sandbox
        .world()
        .fault(FaultRule::always(Endpoint::TorqUsers, Fault::status(503)));
    let ran = check(&place(&sandbox), &sandbox).await.exits(69);
    ran.shows(&["FAILED  Torq user.read", "(503)", "ok      JumpCloud licence"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_of_several_goes_through_all_of_them() {
    let sandbox = sandbox(1).await;
    let connectors = [
        Connector::new("bad", &sandbox).with("torq.client_secret", "wrong"),
        Connector::new("good", &sandbox),
    ];
    let place = Place::new(&connectors);
    let ran = check(&place, &sandbox)
        .await
        .exits(77)
        .shows(&["2 connectors", "\nbad\n", "\ngood\n"]);
    assert_eq!(ran.err, "bad: failed: Torq credentials\n");

    // The same for programs.
    let ran = place.run(&["check", "--format", "json"]).await.exits(77);
    assert_eq!(ran.err, "bad: failed: Torq credentials\n");
    let report = ran.json();
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(keys(&checks[0]), ["action", "check", "connector", "reason", "verdict"]);
    assert_eq!(
        (&checks[0]["check"], &checks[0]["connector"]),
        (&"configuration".into(), &Value::Null)
    );
    let failed: Vec<_> = checks.iter().filter(|check| check["verdict"] == "failed").collect();
    let [failed] = failed[..] else { panic!("{failed:?}") };
    assert_eq!(
        (&failed["connector"], &failed["check"]),
        (&"bad".into(), &"Torq credentials".into())
    );
    assert!(failed["reason"].as_str().unwrap().contains("401"), "{failed}");
    assert!(failed["action"].as_str().unwrap().contains("key"), "{failed}");
    assert!(
        checks
            .iter()
            .any(|check| check["connector"] == "good" && check["verdict"] == "ok")
    );
    let rows = place.run(&["check", "--format", "csv"]).await.exits(77).csv();
    assert_eq!(rows[0], ["connector", "check", "verdict", "reason", "action"]);
    assert_eq!(rows.len(), checks.len() + 1);
    place.run(&["check", "good"]).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_looks_at_what_a_run_needs_of_accounts_and_directory() {
    let refusals = [
        (Endpoint::Accounts, Fault::status(403), "JumpCloud accounts", 77),
        (Endpoint::Accounts, Fault::status(401), "JumpCloud accounts", 77),
        (Endpoint::Accounts, Fault::Html, "JumpCloud accounts", 69),
        (Endpoint::DirectorySearch, Fault::status(403), "JumpCloud search", 77),
        (Endpoint::DirectorySearch, Fault::status(400), "JumpCloud search", 77),
    ];
    let sandbox = sandbox(2).await;
    let place = place(&sandbox);
    place.run(&["sync"]).await.exits(0);
    sandbox.world().clear_requests();
    check(&place, &sandbox)
        .await
        .exits(0)
        .shows(&["ok      JumpCloud accounts", "ok      JumpCloud search"]);
    for (endpoint, fault, step, code) in refusals {
        sandbox.world().fault(FaultRule::always(endpoint, fault));
        let ran = check(&place, &sandbox).await.exits(code);
        ran.tells(&[&format!("main: failed: {step}")])
            .shows(&[&format!("FAILED  {step}"), "what to do: "]);
        sandbox.world().clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_takes_no_other_refusal_for_a_missing_licence() {
    let sandbox = sandbox(1).await;
    for status in [400, 404, 503] {
        sandbox
            .world()
            .fault(FaultRule::always(Endpoint::Applications, Fault::status(status)));
        let ran = check(&place(&sandbox), &sandbox).await;
        assert!(ran.code == 77 || ran.code == 69);
        let ran = ran.shows(&["FAILED  JumpCloud applications"]);
        assert!(!ran.out.contains("licence"), "{}", ran.out);
        sandbox.world().clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_looks_at_the_state_folder_and_what_is_in_it() {
    let sandbox = sandbox(1).await;
    let place = place(&sandbox);
    for args in [["check"].as_slice(), &["check", "--offline"]] {
        place
            .run(args)
            .await
            .exits(0)
            .shows(&["ok      state folder", "(the first run makes it)"]);
    }
    assert!(!place.state_dir().exists());
    std::fs::create_dir(place.state_dir()).unwrap();
    place.write("state/main.db", "this is no database, this is some text");
    place
        .run(&["check", "--offline"])
        .await
        .exits(1)
        .tells(&["main: failed: state"])
        .shows(&[
            "ok      state folder",
            "FAILED  state ",
            "main.db is damaged",
            "restore a copy",
        ]);
    // As an image has it, for whichever user it runs as; then as nobody should have it.
    let hint = format!("chmod 700 {}", place.state_dir().display());
    for (mode, told) in [(0o1777, false), (0o777, true)] {
        std::fs::set_permissions(place.state_dir(), Permissions::from_mode(mode)).unwrap();
        let ran = place.run(&["check", "--offline"]).await;
        assert_eq!(ran.out.contains(&hint), told, "{mode:o}: {}", ran.out);
    }
    place.run(&["sync"]).await.tells(&[&hint]);
    std::fs::remove_dir_all(place.state_dir()).unwrap();
    place.write("state", "a file where the folder should be");
    place
        .run(&["check"])
        .await
        .exits(1)
        .tells(&["failed: state folder"])
        .shows(&["FAILED  state folder", "set state_dir", "ok      JumpCloud licence"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_where_it_connected_to_and_where_not() {
    let sandbox = sandbox(1).await;
    let address = sandbox.addr().to_string();
    check(&place(&sandbox), &sandbox).await.exits(0).shows(&[
        &format!("ok      Torq connection          {address}: answers"),
        &format!("ok      JumpCloud connection     {address}: answers"),
    ]);
    let nobody = Connector::new("main", &sandbox)
        .with("torq.token_url", "https://torq.invalid/token")
        .with("torq.api_url", "https://torq.invalid/public/v1alpha");
    check(&Place::new(&[nobody]), &sandbox).await.exits(69).shows(&[
        "(torq.invalid:443)",
        "check torq.region (or torq.api_url and torq.token_url)",
        "DNS",
    ]);
    let nowhere = Connector::new("main", &sandbox).with(
        "torq.token_url",
        sandbox.torq_token_url().replace("/auth/token", "/nothing"),
    );
    check(&Place::new(&[nowhere]), &sandbox).await.exits(69).shows(&[
        "there is no token endpoint",
        "what to do: check torq.region (or torq.token_url)",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_notes_a_key_that_ends_soon_or_has_ended() {
    let sandbox = sandbox(1).await;
    let today = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
    for (days, verdict) in [
        (-1, "note    Torq API key"),
        (10, "note    Torq API key"),
        (40, "ok      Torq API key"),
    ] {
        let expires = today.checked_add(jiff::ToSpan::days(days)).unwrap().to_string();
        let connector = Connector::new("main", &sandbox).with("torq.key_expires", expires.as_str());
        let ran = Place::new(&[connector]).run(&["check", "--offline"]).await.exits(0);
        ran.shows(&[verdict, &expires]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_others_reach_and_nobody_may_see_is_noted() {
    let sandbox = sandbox(1).await;
    let place = place(&sandbox);
    for (listen, noted) in [("0.0.0.0:8686", true), ("127.0.0.1:8686", false)] {
        let general = format!("[http]\nlisten = \"{listen}\"\n");
        place.configure(&general, &[Connector::new("main", &sandbox)]);
        let ran = place.run(&["check", "--offline"]).await.exits(0);
        let words = "note    status page";
        assert_eq!(
            ran.out.contains(words) && ran.out.contains("http.password_file"),
            noted,
            "{}",
            ran.out
        );
    }
}
