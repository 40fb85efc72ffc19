//! Clocks that jump, ahead and back, while the daemon idles, collects and holds tokens, and between runs; and machines that sleep. The
//! sandbox keeps the true time throughout.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Peer};
use torq_connector::view::ConnectorState;

use crate::binary::{Connector, DEADLINE, Daemon, body, eventually, finish};
use crate::interpose::{Death, kind};
use crate::life::Life;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

fn every_quarter(connector: Connector) -> Connector {
    connector.with("poll_interval", "15m")
}

/// A life in step, and its daemon, which has just finished a run.
async fn idle(people: usize) -> (Life, Daemon) {
    let mut life = Life::new(people, every_quarter).await;
    life.recover().await;
    let daemon = life.daemon().await;
    settled(&daemon).await;
    (life, daemon)
}

/// Waits until the daemon idles after a success.
async fn settled(daemon: &Daemon) -> Value {
    daemon
        .status("main", |status| {
            status["state"] == "connected" && status["next_poll"].is_string()
        })
        .await
}

/// Polls so far: each reads two listings of one page.
fn polls(life: &Life) -> usize {
    let requests = life.world().requests().into_iter();
    let pages = requests
        .filter(|one| one.endpoint == Endpoint::TorqUsers && one.status == Some(200))
        .count();
    assert_eq!(pages % 2, 0, "a poll is under way");
    pages / 2
}

/// Asks the daemon again and again, so that it wakes and sees what time it is, until something holds.
async fn awake_until(daemon: &Daemon, what: &str, holds: impl Fn() -> bool) {
    eventually(what, async || {
        daemon.get("/healthz").await;
        holds().then_some(())
    })
    .await;
}

/// Waits until there was one poll more, and makes sure that it was one: an order waits its turn behind whatever is due.
async fn polls_once_more(life: &Life, daemon: &Daemon, before: usize, what: &str) {
    let asked = |count: usize| life.world().count(Endpoint::TorqUsers) >= count * 2;
    awake_until(daemon, what, || asked(before + 1)).await;
    settled(daemon).await;
    life.interpose.pass(MINUTE);
    settled(daemon).await;
    finish(life.place.command(&["sync"])).await.exits(0);
    assert_eq!(
        polls(life),
        before + 2,
        "{what}: one poll, and the one that was asked for"
    );
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn however_the_wall_clock_jumps_polls_are_neither_missed_nor_piled_up() {
    let (life, daemon) = idle(4).await;
    let mut ahead = 0;
    for jump in [
        3 * HOUR,
        -5 * HOUR,
        40 * DAY,
        -400 * DAY,
        10 * YEAR,
        -12 * YEAR,
        2 * YEAR + HOUR,
    ] {
        let before = polls(&life);
        ahead += jump;
        life.interpose.set_wall(ahead);
        // The daemon looks, if need be. What it tells is as its own clock sees it, whatever that says.
        life.interpose.pass(Duration::from_secs(11));
        ahead += 11;
        let soon = |status: &Value| {
            let wait = time(&status["next_poll"]).duration_since(Timestamp::now() + SignedDuration::from_secs(ahead));
            wait < SignedDuration::from_mins(16)
        };
        daemon
            .status("main", |status| status["next_poll"].is_string() && soon(status))
            .await;
        assert_eq!(daemon.get("/healthz").await.0, 200);
        // A quarter of an hour passes. The wall clock goes on from where it is.
        life.interpose.pass(16 * MINUTE);
        ahead += 16 * 60;
        polls_once_more(&life, &daemon, before, &format!("after a jump of {jump} s")).await;
        ahead += 60;
        assert_eq!(daemon.get("/readyz").await.0, 200, "after a jump of {jump} s");
    }
    assert!(life.interpose.looks_at_clock() > 0);
    daemon.stop().await;
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_slept_polls_once_soon_after_it_wakes() {
    let (life, daemon) = idle(4).await;
    // The monotonic clock stands still meanwhile; tokens expire.
    for (hours, slept) in [(8, true), (3 * 24, false)] {
        let before = polls(&life);
        let tokens = life.world().count(Endpoint::TorqToken);
        for peer in [Peer::Torq, Peer::JumpCloud] {
            life.world().expire_tokens(peer);
        }
        let away = Duration::from_secs(hours * 3600);
        if slept {
            life.interpose.set_wall(hours as i64 * HOUR);
            life.interpose.pass(MINUTE);
        } else {
            // A virtual machine that was stopped: all its clocks go on where the time is now.
            life.interpose.pass(away);
        }
        polls_once_more(&life, &daemon, before, "after a long sleep").await;
        assert_eq!(life.world().count(Endpoint::TorqToken), tokens + 1, "one new token");
        assert_eq!(daemon.get("/readyz").await.0, 200);
        assert_eq!(daemon.get("/healthz").await.0, 200);
    }
    assert!(!daemon.said().contains("reconnect"), "{}", daemon.said());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_thought_valid_for_ever_because_a_clock_was_set_back() {
    let (life, daemon) = idle(3).await;
    life.interpose.set_wall(-10 * YEAR);
    for _ in 0..3 {
        let tokens = life.world().count(Endpoint::TorqToken);
        // Tokens last an hour: this one is renewed by itself, before anybody refuses it.
        life.interpose.pass(Duration::from_secs(3700));
        awake_until(&daemon, "a new token", || {
            life.world().count(Endpoint::TorqToken) == tokens + 1
        })
        .await;
        settled(&daemon).await;
        assert!(
            life.world()
                .requests()
                .iter()
                .all(|one| one.status != Some(302) && one.status != Some(401))
        );
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_about_during_a_collection_loses_nothing() {
    let life = Life::new(24, every_quarter).await;
    let world = life.world();
    world.behave(|behaviour| behaviour.torq_page_cap = 2);
    world.fault(FaultRule::always(
        Endpoint::TorqUsers,
        Fault::Delay(Duration::from_millis(40)),
    ));
    let daemon = life.daemon().await;
    for (pages, ahead) in [(2, 8 * HOUR), (4, -2 * YEAR), (6, 30 * DAY), (8, 0), (10, 25 * HOUR)] {
        tokio::time::timeout(DEADLINE, world.seen(Endpoint::TorqUsers, pages))
            .await
            .unwrap();
        life.interpose.set_wall(ahead);
    }
    let status = settled(&daemon).await;
    assert_eq!((&status["users"], &status["accounts"]), (&24.into(), &24.into()));
    let asked = world.count(Endpoint::TorqUsers);
    assert!(asked <= 24 / 2 + 2, "no page twice: {asked}");
    assert_eq!(world.count(Endpoint::AccountCreate), 23);
    daemon.stop().await;
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_was_cut_short_goes_on_though_the_clock_was_corrected_by_hours_and_begins_anew_after_years() {
    let jumps = [
        (0, true),
        (-3 * HOUR, true),
        (3 * HOUR, true),
        (-3 * YEAR, false),
        (3 * YEAR, false),
    ];
    futures_util::future::join_all(jumps.map(jump_and_go_on)).await;
}

async fn jump_and_go_on((ahead, goes_on): (i64, bool)) {
    let mut life = Life::new(12, |connector| connector).await;
    let world = life.world();
    world.behave(|behaviour| behaviour.torq_page_cap = 2);
    world.fault(FaultRule::always(Endpoint::TorqUsers, Fault::Hang).after(5));
    let mut daemon = life.daemon().await;
    tokio::time::timeout(DEADLINE, world.seen(Endpoint::TorqUsers, 6))
        .await
        .unwrap();
    daemon
        .status("main", |status| status["users"].as_u64() >= Some(4))
        .await;
    daemon.signal("KILL");
    daemon.ended().await;
    world.clear_faults();
    let before = world.count(Endpoint::TorqUsers);
    life.interpose.set_wall(ahead);
    life.sync().await.exits(0);
    let after = world.count(Endpoint::TorqUsers) - before;
    let all = 12 / 2 + 1;
    assert_eq!(after < all, goes_on, "{after} pages after a jump of {ahead} s");
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_noted_by_a_clock_that_was_years_ahead_is_not_believed_for_years() {
    let mut life = Life::new(6, every_quarter).await;
    let world = life.world();
    world.behave(|behaviour| behaviour.account_create_refused = Some(404));
    life.interpose.set_wall(5 * YEAR);
    life.sync().await.exits(75);
    world.behave(|behaviour| behaviour.account_create_refused = None);
    life.interpose.set_wall(0);
    // Not offered, it was said; that would be tried again in five years.
    life.sync().await.exits(0);
    life.assert_in_step();

    life.interpose.set_wall(5 * YEAR);
    let unmatched = world.people().into_iter().find(|one| {
        !world
            .directory()
            .iter()
            .any(|user| user.email.eq_ignore_ascii_case(&one.email))
    });
    let unmatched = unmatched.expect("somebody is not in the directory");
    life.sync().await.exits(0);
    life.interpose.set_wall(0);
    world.add_to_directory(&unmatched.email);
    let lost = world
        .accounts()
        .into_iter()
        .find(|one| !life.not_ours.contains(&one.id))
        .unwrap();
    life.sync().await.exits(0);
    life.assert_in_step();
    // Under the daemon the same, without a restart.
    let daemon = life.daemon().await;
    settled(&daemon).await;
    let gone = world.directory()[0].email.clone();
    life.interpose.set_wall(5 * YEAR);
    finish(life.place.command(&["sync"])).await.exits(0);
    life.interpose.set_wall(0);
    world.remove_from_directory(&gone);
    world.delete_account(&lost.id);
    finish(life.place.command(&["sync"])).await.exits(0);
    daemon.stop().await;
    let accounts = world.accounts();
    assert!(
        accounts.iter().any(|one| one.email == lost.email),
        "made again, for the knowledge of it was old"
    );
    crate::world::assert_world_in_step(&world, life.users());
}

/// A workspace of 30, of whom five (as many as are believed in a day) were removed, with their accounts.
async fn five_removed() -> Life {
    let mut life = Life::new(30, |connector| connector.with("max_removals", "5")).await;
    life.recover().await;
    leave(&life, 5);
    for _ in 0..2 {
        life.sync().await.exits(0);
    }
    assert_eq!(life.world().count(Endpoint::AccountDelete), 5);
    life
}

fn leave(life: &Life, people: usize) {
    for _ in 0..people {
        let gone = life.somebody_of_ours();
        life.world().remove_person(&gone.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_clock_lets_nobody_be_removed_whom_the_guard_would_hold() {
    let jumps = [25 * HOUR, 3 * YEAR, -25 * HOUR, -3 * YEAR];
    futures_util::future::join_all(jumps.map(jump_and_remove)).await;
}

async fn jump_and_remove(jump: i64) {
    let mut life = five_removed().await;
    life.interpose.set_wall(jump);
    leave(&life, 5);
    for _ in 0..3 {
        let ran = life.sync().await.exits(0);
        let direction = if jump > 0 { "ahead of" } else { "behind" };
        let _ = ran.tells(&[
            "this machine's clock is ",
            direction,
            "nobody is removed until it is right",
            "NTP",
        ]);
    }
    assert_eq!(
        life.world().count(Endpoint::AccountDelete),
        5,
        "after a jump of {jump} s"
    );
    assert_eq!(life.users().len(), 25, "they count as users until then");
    let ran = finish(life.command(&["sync", "--dry-run"])).await.exits(0);
    let _ = ran.shows(&["nobody is removed until it is right"]);
    // Right again: it is still the same day, and five were believed in it.
    life.interpose.set_wall(0);
    life.sync().await;
    life.sync().await.exits(75).tells(&["5 held"]);
    assert_eq!(life.world().count(Endpoint::AccountDelete), 5);
    life.place.run(&["approve", "main"]).await.exits(0);
    life.sync().await.exits(0);
    assert_eq!(life.world().count(Endpoint::AccountDelete), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_a_little_wrong_keeps_nobody_from_being_removed() {
    let mut life = Life::new(20, |connector| connector).await;
    life.recover().await;
    leave(&life, 1);
    for ahead in [5 * 60, -5 * 60] {
        life.interpose.set_wall(ahead);
        life.sync().await.exits(0);
    }
    assert_eq!(life.world().count(Endpoint::AccountDelete), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_stay_in_the_order_in_which_they_happened() {
    let mut life = Life::new(3, |connector| connector).await;
    let world = life.world();
    let mut arrived = Vec::new();
    life.recover().await;
    for ahead in [2 * YEAR, -YEAR, 0, 3 * HOUR, -3 * HOUR] {
        life.interpose.set_wall(ahead);
        arrived.push(world.add_people(1).remove(0).id);
        life.sync().await.exits(0);
    }
    let appeared = |events: &Value| -> Vec<String> {
        let events = events["events"].as_array().unwrap().iter();
        let appeared = events.filter(|event| event["kind"] == "user_appeared");
        appeared
            .map(|event| event["user_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let told = life.place.run(&["events", "--format", "json"]).await.exits(0).json();
    assert_eq!(appeared(&told)[3..], arrived);
    let latest = life
        .place
        .run(&["events", "--format", "json", "--limit", "3"])
        .await
        .exits(0)
        .json();
    let last = &told["events"].as_array().unwrap()[told["events"].as_array().unwrap().len() - 3..];
    assert_eq!(
        latest["events"].as_array().unwrap(),
        last,
        "the latest are those that happened last"
    );
    let daemon = life.daemon().await;
    settled(&daemon).await;
    assert_eq!(appeared(&daemon.json("/api/events?connector=main").await)[3..], arrived);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_ready_because_of_a_success_in_the_future() {
    let (life, daemon) = idle(3).await;
    // A success that is noted by a clock a year ahead; then nothing succeeds any more, and the clock is right.
    life.interpose.set_wall(YEAR);
    finish(life.place.command(&["sync"])).await.exits(0);
    assert_eq!(daemon.get("/readyz").await.0, 200);
    life.interpose.set_wall(0);
    assert_eq!(daemon.get("/readyz").await.0, 200, "it was a moment ago");
    life.world()
        .fault(FaultRule::always(Endpoint::TorqUsers, Fault::status(503)));
    life.interpose.pass(50 * MINUTE);
    let (status, answer) = daemon.get("/readyz").await;
    assert_eq!(status, 503, "{answer}");
    assert!(
        body(&answer).contains("last success 50 min ago, more than 3 poll intervals of 15 min"),
        "{answer}"
    );
    drop(daemon);
    // Another process knows only what was noted.
    let daemon = life.daemon().await;
    eventually("it does not believe that success", async || {
        let (status, answer) = daemon.get("/readyz").await;
        assert_eq!(status, 503, "{answer}");
        body(&answer).contains("says a clock that was set back").then_some(())
    })
    .await;
    life.world().clear_faults();
    life.time_passes_until(&daemon, |status| status["state"] == "connected")
        .await;
    assert_eq!(daemon.get("/readyz").await.0, 200);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_to_wait_until_a_date_is_understood_by_its_own_clock() {
    for ahead in [-3 * HOUR, 3 * HOUR] {
        let mut life = Life::new(3, |connector| connector).await;
        let date = Timestamp::now() + SignedDuration::from_secs(2);
        life.world().fault(FaultRule::once(
            Endpoint::TorqUsers,
            Fault::Status {
                status: 503,
                retry_after: Some(date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()),
                body: String::new(),
            },
        ));
        life.interpose.set_wall(ahead);
        // A command waits for a minute at most.
        life.sync().await.exits(0);
        life.assert_in_step();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_stops_in_the_middle_of_a_delivery_makes_nothing_twice() {
    let life = Life::new(20, every_quarter).await;
    let world = life.world();
    // Each takes effect at once, and is answered when the machine has stopped already.
    world.fault(FaultRule::always(Endpoint::AccountCreate, Fault::SlowBody).after(3));
    let daemon = life.daemon().await;
    for hours in 1..4 {
        tokio::time::timeout(DEADLINE, world.seen(Endpoint::AccountCreate, hours * 4))
            .await
            .unwrap();
        // Every time-out is over, and every answer comes too late.
        life.interpose.pass(Duration::from_secs(hours as u64 * 3600));
        life.time_passes_until(&daemon, |status| status["state"] != "collecting")
            .await;
    }
    world.clear_faults();
    life.time_passes_until(&daemon, |status| {
        status["state"] == "connected" && status["accounts"] == 20 && status["pending"] == 0
    })
    .await;
    daemon.stop().await;
    assert_eq!(world.accounts().len(), 21);
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_and_a_jump_of_the_clock_together_are_no_worse_than_one_of_them() {
    let mut life = Life::new(8, |connector| connector).await;
    life.world().behave(|behaviour| behaviour.torq_page_cap = 3);
    let mut random = fastrand::Rng::new();
    let mut deaths = 0;
    for round in 0..12 {
        life.world().add_people(1);
        life.interpose.set_wall(random.i64(-3 * YEAR..3 * YEAR));
        life.interpose.begin();
        life.interpose.count(kind::DISK | kind::SEND);
        life.interpose.kill_at(random.u64(20..140), Death::Before);
        let ran = life.sync().await;
        deaths += u64::from(ran.code == -1);
        if round % 4 == 3 {
            life.recover().await;
        }
    }
    assert!(deaths > 0);
    life.interpose.set_wall(0);
    life.recover().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_jumpcloud_is_away_only_the_delivery_is_repeated_and_torq_is_asked_on_schedule() {
    let (life, daemon) = idle(4).await;
    let world = life.world();
    world.add_people(1);
    world.fault(FaultRule::always(
        Endpoint::Application,
        Fault::Status {
            status: 503,
            retry_after: Some("601".to_owned()),
            body: String::new(),
        },
    ));
    life.interpose.pass(16 * MINUTE);
    let another_run = async |before: &Value| {
        daemon
            .status("main", |status| {
                status["state"] == "retrying"
                    && status["last_run"]["started"] != *before
                    && !status["next_poll"].is_null()
            })
            .await
    };
    let mut status = another_run(&Value::Null).await;
    let before = polls(&life);
    let since = status["reason"].clone();
    let words = since.as_str().unwrap();
    assert!(
        words.contains("503") && words.contains("(since ") && words.contains("JumpCloud"),
        "{words}"
    );
    // While it asked not to be asked, there is no run that could only say so: the next one is after that.
    let asked = world.count(Endpoint::Application);
    let (action, finished) = (&status["action"], &status["last_run"]["finished"]);
    let again = action.as_str().unwrap().rsplit_once("asked again at ").unwrap().1;
    let again: Timestamp = again.replace(' ', "T").parse().unwrap();
    let finished: Timestamp = finished.as_str().unwrap().parse().unwrap();
    assert!(again.duration_since(finished).as_secs() >= 600, "{status}");
    life.interpose.pass(11 * MINUTE);
    status = another_run(&status["last_run"]["started"]).await;
    assert_eq!(world.count(Endpoint::Application), asked + 1);
    assert_eq!(
        status["reason"], since,
        "it lasts since then, and it is the first cause that is told"
    );
    assert_eq!(polls(&life), before, "Torq is not asked again before its time");
    let said = daemon.said();
    assert_eq!(said.lines().filter(|line| line.contains("ERROR")).count(), 1, "{said}");
    life.interpose.pass(6 * MINUTE);
    awake_until(&daemon, "the next poll", || {
        world.count(Endpoint::TorqUsers) == 2 * (before + 1)
    })
    .await;
    world.clear_faults();
    life.interpose.pass(60 * MINUTE);
    settled(&daemon).await;
    daemon.stop().await;
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_run_waits_for_no_pause_of_ours() {
    let (life, daemon) = idle(3).await;
    let world = life.world();
    world.fault(FaultRule::always(Endpoint::TorqUsers, Fault::status(503)));
    life.interpose.pass(16 * MINUTE);
    // Until our own pause between two attempts is two minutes long.
    let asked = world.count(Endpoint::TorqUsers);
    for more in 1..=9 {
        awake_until(&daemon, "another attempt", || {
            world.count(Endpoint::TorqUsers) >= asked + more
        })
        .await;
        life.interpose.pass(2 * MINUTE);
    }
    awake_until(&daemon, "the last attempt", || {
        world.count(Endpoint::TorqUsers) > asked + 9
    })
    .await;
    // Mended. No time passes for the daemon but what really does.
    world.clear_faults();
    let began = std::time::Instant::now();
    life.place.run(&["sync"]).await.exits(0);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    daemon.state("main", "connected").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_saw_is_known_after_it_was_killed() {
    let (life, mut daemon) = idle(3).await;
    life.world()
        .fault(FaultRule::always(Endpoint::TorqUsers, Fault::status(503)));
    life.interpose.pass(16 * MINUTE);
    daemon.state("main", "retrying").await;
    life.interpose.pass(2 * MINUTE);
    eventually("it is noted", async || {
        let state = crate::life::store(&life.place.state_dir()).about().unwrap().state;
        (state == ConnectorState::Retrying).then_some(())
    })
    .await;
    daemon.signal("KILL");
    daemon.ended().await;
    let ran = finish(life.place.command(&["status", "main"])).await.exits(0);
    ran.shows(&["retrying", "503", "since "])
        .tells(&["no daemon is running"]);
    life.world().clear_faults();
    let daemon = life.daemon().await;
    settled(&daemon).await;
    daemon.stop().await;
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_was_repeated_leaves_the_schedule_of_polls_as_it_was() {
    let (life, daemon) = idle(4).await;
    let world = life.world();
    world.fault(FaultRule::always(
        Endpoint::Application,
        Fault::Status {
            status: 503,
            retry_after: Some("700".to_owned()),
            body: String::new(),
        },
    ));
    life.interpose.pass(16 * MINUTE);
    let status = daemon
        .status("main", |status| {
            status["state"] == "retrying" && status["next_poll"].is_string()
        })
        .await;
    // What comes next is another attempt, and said to be one; the next poll is on schedule.
    let wait = time(&status["next_poll"]).duration_since(Timestamp::now() + SignedDuration::from_mins(16));
    assert!(wait > SignedDuration::from_mins(10), "{status}");
    let action = status["action"].as_str().unwrap();
    assert!(action.contains("JumpCloud is asked again at "), "{status}");
    let before = polls(&life);
    world.clear_faults();
    life.interpose.pass(12 * MINUTE);
    settled(&daemon).await;
    assert_eq!(polls(&life), before, "only the delivery was left to do");
    life.interpose.pass(4 * MINUTE);
    awake_until(&daemon, "the poll that was due", || {
        world.count(Endpoint::TorqUsers) == 2 * (before + 1)
    })
    .await;
    daemon.stop().await;
    life.assert_in_step();
}
