//! The whole life of credentials, with the real daemon and real files: refused on either side in every way, noticed, told, waited
//! for without a request, and brought back where it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Sandbox, WorldHandle};

use crate::binary::{Connector, DEADLINE, Daemon, Place, body, eventually, sandbox};

/// A connector `main` whose secrets are in files, and one called `clock` to another sandbox, whose polls show that time passes.
struct Life {
    sandbox: Sandbox,
    clock: Sandbox,
    place: Place,
    daemon: Daemon,
}

const TORQ: &str = "torq_secret";
const JUMPCLOUD: &str = "jumpcloud_secret";

impl Life {
    async fn new(people: usize, change: impl FnOnce(Connector) -> Connector) -> Self {
        Self::in_a_world(people, |_| {}, change).await
    }

    async fn in_a_world(
        people: usize,
        arrange: impl FnOnce(&WorldHandle),
        change: impl FnOnce(Connector) -> Connector,
    ) -> Self {
        let (sandbox, clock) = (sandbox(people).await, sandbox(1).await);
        arrange(&sandbox.world());
        let main = Connector::new("main", &sandbox)
            .torq_secret_in(TORQ)
            .without("jumpcloud.client_secret")
            .with("jumpcloud.client_secret_file", JUMPCLOUD)
            .with("poll_interval", "1s");
        let connectors = [
            change(main),
            Connector::new("clock", &clock).with("poll_interval", "1s"),
        ];
        let place = Place::new(&connectors);
        place.write(TORQ, "sandbox-torq-secret\n");
        place.write(JUMPCLOUD, "sandbox-jumpcloud-secret\n");
        let daemon = place.daemon().await;
        Self {
            sandbox,
            clock,
            place,
            daemon,
        }
    }

    fn world(&self) -> WorldHandle {
        self.sandbox.world()
    }

    /// Until three polls would have gone by.
    async fn time_passes(&self) {
        let world = self.clock.world();
        let polls = world.count(Endpoint::TorqUsers);
        tokio::time::timeout(DEADLINE, world.seen(Endpoint::TorqUsers, polls + 8))
            .await
            .expect("the clock goes on");
    }

    /// The connector asks for a person, names this side, and asks nobody anything.
    async fn asks_to_be_reconnected(&self, side: &str, words: &[&str]) -> Value {
        let status = self.daemon.state("main", "reconnect_required").await;
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.starts_with(side), "{reason}");
        let action = status["action"].as_str().unwrap();
        for word in words.iter().chain(&[self.place.advised("reconnect main").as_str()]) {
            assert!(reason.contains(word) || action.contains(word), "{word}: {status}");
        }
        assert!(status["next_poll"].is_null(), "{status}");
        self.daemon.state("clock", "connected").await;
        let (code, ready) = self.daemon.get("/readyz").await;
        let ready_words = format!("main: reconnect_required ({})\n", side.trim_end_matches([':', ' ']));
        assert_eq!((code, body(&ready)), (503, ready_words.as_str()));
        assert_eq!(self.daemon.get("/healthz").await.0, 200);
        let asked = self.world().requests().len();
        self.time_passes().await;
        assert_eq!(self.world().requests().len(), asked, "polling has stopped");
        let ran = self.place.run(&["status"]).await.exits(0);
        ran.shows(&["reconnect required", side]);
        status
    }
}

/// Connected, then refused by one side while two people arrive; mended by new credentials in their file, it delivers what it missed.
async fn refused_and_mended(
    change: impl FnOnce(Connector) -> Connector,
    side: &str,
    words: &[&str],
    spoil: impl FnOnce(&WorldHandle),
    mend: impl FnOnce(&WorldHandle, &Place),
) {
    let life = Life::new(6, change).await;
    let world = life.world();
    life.daemon.state("main", "connected").await;
    spoil(&world);
    world.add_people(2);
    life.asks_to_be_reconnected(side, words).await;
    let accounts = world.accounts().len();
    let ran = life.place.run(&["sync", "main"]).await.exits(77);
    ran.tells(&["main: refused: ", side]);
    assert_eq!(world.accounts().len(), accounts);

    world.clear_requests();
    mend(&world, &life.place);
    let status = life.daemon.state("main", "connected").await;
    assert_eq!(
        (&status["users"], &status["accounts"]),
        (&8.into(), &8.into()),
        "{status}"
    );
    let events = life.daemon.json("/api/events?connector=main").await;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events["events"].as_array().unwrap() {
        *kinds.entry(event["kind"].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(kinds.get("user_appeared"), Some(&8), "nobody appeared twice: {kinds:?}");
    assert_eq!(kinds.get("account_created"), Some(&8), "{kinds:?}");
    assert!(!kinds.contains_key("user_disappeared"), "{kinds:?}");
    assert_eq!(life.daemon.get("/readyz").await.0, 200);
    life.daemon.stop().await;
}

fn as_it_is(connector: Connector) -> Connector {
    connector
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_torq_key_is_replaced() {
    refused_and_mended(
        as_it_is,
        "Torq: ",
        &["new API key in Torq"],
        |world| world.revoke_torq_key(),
        |world, place| {
            world.set_torq_secret("the-next-one");
            world.restore_torq_key();
            place.write(TORQ, "the-next-one\n");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torq_secret_that_is_wrong_is_corrected() {
    refused_and_mended(
        as_it_is,
        "Torq: ",
        &["new API key in Torq"],
        |world| {
            world.set_torq_secret("the-next-one");
            world.forget_tokens(torq_connector::sandbox::Peer::Torq);
        },
        |_, place| place.write(TORQ, "the-next-one"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_lost_its_scope_is_named_and_reconnect_brings_the_connector_back() {
    let life = Life::new(6, as_it_is).await;
    life.daemon.state("main", "connected").await;
    life.world().set_torq_scope(false);
    life.asks_to_be_reconnected("Torq: ", &["user.read"]).await;
    life.world().set_torq_scope(true);
    let asked = life.world().requests().len();
    life.time_passes().await;
    assert_eq!(life.world().requests().len(), asked, "nobody told it");
    life.place.run(&["reconnect", "main"]).await.exits(0);
    life.daemon.state("main", "connected").await;
    life.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_402_of_torq_is_about_the_workspace_and_not_about_jumpclouds_licence() {
    let life = Life::new(6, as_it_is).await;
    life.daemon.state("main", "connected").await;
    life.world()
        .fault(FaultRule::always(Endpoint::TorqUsers, Fault::status(402)));
    let status = life
        .asks_to_be_reconnected("Torq: ", &["(402)", "the plan of the workspace in Torq"])
        .await;
    assert!(!status.to_string().contains("licence"), "{status}");
    life.world().clear_faults();
    life.place.run(&["reconnect", "main"]).await.exits(0);
    life.daemon.state("main", "connected").await;
    life.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_that_is_gone_is_replaced() {
    refused_and_mended(
        as_it_is,
        "JumpCloud: ",
        &["JumpCloud service account"],
        |world| world.revoke_jumpcloud_key(),
        |world, place| {
            world.set_jumpcloud_secret("another");
            world.restore_jumpcloud_key();
            place.write(JUMPCLOUD, "another\n");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrators_key_that_is_gone_is_replaced() {
    let with_key = |connector: Connector| {
        connector
            .without("jumpcloud.client_id")
            .without("jumpcloud.client_secret_file")
            .with("jumpcloud.api_key_file", JUMPCLOUD)
    };
    let life = Life::in_a_world(
        6,
        // What is in the file from the beginning.
        |world| world.set_jumpcloud_api_key("sandbox-jumpcloud-secret"),
        with_key,
    )
    .await;
    let world = life.world();
    life.daemon.state("main", "connected").await;
    world.set_jumpcloud_api_key("the-next-administrators");
    let words = ["the API key was refused", JUMPCLOUD, "make a new one in JumpCloud"];
    life.asks_to_be_reconnected("JumpCloud: ", &words).await;
    life.place.run(&["sync", "main"]).await.exits(77).tells(&["JumpCloud"]);
    life.place.write(JUMPCLOUD, "the-next-administrators\n");
    life.daemon.state("main", "connected").await;
    life.daemon.stop().await;
}

/// How a person tells the daemon.
#[derive(Clone, Copy, Debug)]
enum Way {
    File,
    Hup,
    Reconnect,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_collection_that_is_refused_in_the_middle_goes_on_where_it_was() {
    for way in [Way::File, Way::Hup, Way::Reconnect] {
        let arrange = |world: &WorldHandle| {
            world.behave(|behaviour| behaviour.torq_page_cap = 10);
            world.before(Endpoint::TorqUsers, 14, |world| world.revoke_torq_key());
        };
        let life = Life::in_a_world(240, arrange, as_it_is).await;
        let world = life.world();
        let status = life.asks_to_be_reconnected("Torq: ", &["new API key"]).await;
        let known = status["users"].as_u64().unwrap();
        assert!((100..240).contains(&known), "it was in the middle: {known}");
        assert!(
            world.accounts().is_empty(),
            "nothing is delivered before everybody is known"
        );

        world.restore_torq_key();
        match way {
            Way::File => {
                world.set_torq_secret("the-next-one");
                life.place.write(TORQ, "the-next-one\n");
            }
            // Nothing in the configuration changed: the key was extended in Torq.
            Way::Hup => life.daemon.signal("HUP"),
            Way::Reconnect => {
                life.place.run(&["reconnect", "main"]).await.exits(0);
            }
        }
        let status = life.daemon.state("main", "connected").await;
        assert_eq!(
            (&status["users"], &status["accounts"]),
            (&240.into(), &240.into()),
            "{way:?}"
        );
        let first_poll: Vec<_> = world
            .requests()
            .into_iter()
            .take_while(|one| one.endpoint != Endpoint::TorqRoles)
            .filter(|one| one.endpoint == Endpoint::TorqUsers && one.status == Some(200))
            .collect();
        let mut pages: BTreeMap<_, usize> = BTreeMap::new();
        for page in &first_poll {
            let key = (page.parameter("sso_provision"), page.parameter("page_token"));
            *pages.entry(key).or_default() += 1;
        }
        assert_eq!(pages.len(), 17 + 8, "{way:?}: every page of both listings");
        assert!(
            first_poll.len() <= pages.len() + 2,
            "{way:?}: at most one of each listing twice"
        );
        life.daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_while_credentials_are_refused_tries_them_once() {
    let life = Life::new(4, as_it_is).await;
    life.daemon.state("main", "connected").await;
    life.world().revoke_torq_key();
    life.asks_to_be_reconnected("Torq: ", &[]).await;
    let Life {
        sandbox,
        place,
        daemon,
        clock,
    } = life;
    daemon.stop().await;
    sandbox.world().clear_requests();
    let daemon = place.daemon().await;
    let life = Life {
        sandbox,
        clock,
        place,
        daemon,
    };
    eventually("it tries", async || {
        (life.world().count(Endpoint::TorqToken) > 0).then_some(())
    })
    .await;
    life.asks_to_be_reconnected("Torq: ", &[]).await;
    assert_eq!(life.world().requests().len(), 1, "one request for a token, and no more");
    life.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_rotated_ahead_of_time_is_taken_up_without_a_failure() {
    let life = Life::new(4, as_it_is).await;
    let world = life.world();
    life.daemon.state("main", "connected").await;
    // Both secrets are valid for a while; the file has the new one before the old one ends.
    world.set_torq_secret("the-next-one");
    life.place.write(TORQ, "the-next-one\n");
    eventually("a token is asked for with the new secret", async || {
        (world.count(Endpoint::TorqToken) > 1).then_some(())
    })
    .await;
    life.time_passes().await;
    let tokens: Vec<_> = world
        .requests()
        .into_iter()
        .filter(|one| one.endpoint == Endpoint::TorqToken)
        .collect();
    assert!(tokens.iter().all(|one| one.status == Some(200)), "{tokens:?}");
    assert_eq!(tokens.len(), 2, "and kept");
    life.daemon.state("main", "connected").await;
    assert!(!life.daemon.said().contains("ERROR"), "{}", life.daemon.said());
    life.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_file_that_is_empty_or_half_written_for_a_moment_costs_nothing_or_a_moment() {
    let life = Life::new(4, as_it_is).await;
    let world = life.world();
    life.daemon.state("main", "connected").await;
    // Emptied, and written a moment later: what is in hand is still good, also for a configuration that is read meanwhile.
    life.place.write(TORQ, "");
    life.time_passes().await;
    life.daemon.signal("HUP");
    eventually("the configuration is read again", async || {
        life.daemon.said().contains("was read again").then_some(())
    })
    .await;
    life.time_passes().await;
    life.daemon.state("main", "connected").await;
    assert_eq!(world.count(Endpoint::TorqToken), 1);

    // The first half of it is another secret, as far as anybody can know.
    life.place.write(TORQ, "sandbox-to");
    life.daemon.state("main", "reconnect_required").await;
    life.place.write(TORQ, "sandbox-torq-secret\n");
    life.daemon.state("main", "connected").await;
    assert!(
        world.count(Endpoint::TorqToken) < 6,
        "asked with each that was there, and no more"
    );
    life.daemon.stop().await;
}

/// `key_expires`, so many days ahead.
fn in_days(days: i32) -> String {
    let today = Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
    today.checked_add(days.days()).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_key_is_told_ahead_in_log_status_and_page_and_changes_no_state() {
    let sandbox = sandbox(3).await;
    let connector = |name: &str, days| Connector::new(name, &sandbox).with("torq.key_expires", in_days(days));
    let connectors = [
        connector("far", 30),
        connector("near", 10),
        connector("next", 1),
        connector("over", -2),
    ];
    let place = Place::new(&connectors);
    let daemon = place.daemon().await;
    let told = async |name: &str| {
        let status = daemon
            .status(name, |status| {
                status["state"] == "connected" && !status["last_run"].is_null()
            })
            .await;
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("action"))
    };
    assert_eq!(told("far").await, (String::new(), String::new()));
    let (reason, action) = told("near").await;
    assert!(
        reason.contains(&in_days(10)) && reason.contains("in 10 days"),
        "{reason}"
    );
    assert!(
        action.contains("extend") && action.contains("torq.key_expires"),
        "{action}"
    );
    assert!(told("next").await.0.contains("tomorrow"));
    assert!(told("over").await.0.contains("expired on"));
    assert_eq!(daemon.get("/readyz").await.0, 200);
    assert!(daemon.get("/").await.1.contains("in 10 days"));
    place
        .run(&["status", "near"])
        .await
        .exits(0)
        .shows(&["connected", "in 10 days", "extend"]);
    let said = daemon.said();
    let warned = |name: &str| {
        let of = format!("connector={name}");
        said.lines()
            .filter(|line| line.contains("WARN") && line.contains(&of))
            .count()
    };
    assert_eq!(
        [warned("far"), warned("near"), warned("next"), warned("over")],
        [0, 1, 1, 1],
        "{said}"
    );
    daemon.stop().await;

    // Beside what else there is to say; and where the key is refused at last, the date explains it.
    let refused = sandbox.world().people()[0].email.clone();
    sandbox
        .world()
        .behave(|behaviour| behaviour.refused_emails = vec![refused.clone()]);
    let account = sandbox
        .world()
        .accounts()
        .into_iter()
        .find(|one| one.email.as_ref() == Some(&refused));
    sandbox.world().delete_account(&account.unwrap().id);
    place.run(&["sync", "next"]).await.exits(75);
    let ran = place.run(&["status", "next"]).await.exits(0);
    ran.shows(&[
        "1 user is parked",
        "tomorrow",
        "torq-connector retry next",
        "and: extend",
    ]);
    sandbox.world().revoke_torq_key();
    let ran = place.run(&["sync", "over"]).await.exits(77);
    ran.tells(&["the Torq API key expired on", &in_days(-2)]);
    let ran = place.run(&["sync", "near"]).await.exits(77);
    assert!(!ran.err.contains("expired on"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_client_id_comes_with_its_secret_though_nobody_reloads() {
    let life = Life::new(3, |connector| connector.with("torq.client_id", "a-former-client")).await;
    life.asks_to_be_reconnected("Torq: ", &[]).await;
    // First the file that is not looked at by itself, then the one that is.
    let main = Connector::new("main", &life.sandbox)
        .torq_secret_in(TORQ)
        .without("jumpcloud.client_secret")
        .with("jumpcloud.client_secret_file", JUMPCLOUD)
        .with("poll_interval", "1s");
    life.place.configure(
        "",
        &[main, Connector::new("clock", &life.clock).with("poll_interval", "1s")],
    );
    life.time_passes().await;
    life.daemon.state("main", "reconnect_required").await;
    life.world().set_torq_secret("the-new-clients");
    life.place.write(TORQ, "the-new-clients\n");
    let status = life.daemon.state("main", "connected").await;
    assert_eq!(status["accounts"], 3, "{status}");
    let said = life.daemon.said();
    assert!(said.contains("a secret changed; trying again"), "{said}");
    life.daemon.stop().await;
}
