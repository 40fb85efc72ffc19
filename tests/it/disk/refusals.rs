//! Disks that do not write: at any moment, in a command and under the daemon.

use std::time::Duration;

use torq_connector::sandbox::{Endpoint, Fault, FaultRule};

use crate::binary::{Connector, DEADLINE, body, finish};
use crate::interpose::{Refusal, kind};
use crate::life::Life;
use crate::world::assert_world_in_step;

const REFUSALS: [Refusal; 5] = [
    Refusal::Full,
    Refusal::Short,
    Refusal::ReadOnly,
    Refusal::Broken,
    Refusal::Unreadable,
];

/// In the ordinary suite one write of so many is refused, beginning anywhere.
fn stride() -> usize {
    if std::env::var_os("DEATHS").is_some() { 1 } else { 23 }
}

/// What a person reads when the disk refuses: which file, what the system says, what to do.
fn assert_shows_the_way_out(refusal: Refusal, said: &str, life: &Life) {
    assert!(
        said.contains(life.place.state_dir().to_str().unwrap()),
        "which file: {said}"
    );
    let way_out = match refusal {
        Refusal::Full | Refusal::Short => "make room",
        Refusal::ReadOnly => "the file system is read-only: make it writable",
        // Nobody can tell a file that is damaged from one that is read wrongly.
        Refusal::Unreadable if said.contains("is damaged") => "restore a copy",
        Refusal::Broken | Refusal::Unreadable => "the system's log",
    };
    assert!(said.contains(way_out), "{refusal:?}: {said}");
    for wrong in ["panicked", "owner and permissions"] {
        assert!(!said.contains(wrong), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_from_any_write_on_costs_nothing() {
    let began = std::time::Instant::now();
    let stories = REFUSALS.map(|refusal| {
        tokio::spawn(async move {
            let (mut refused, mut ended) = (0, 0);
            let first = fastrand::usize(0..stride()) + 1;
            for step in (first as u64..).step_by(stride()) {
                let mut life = Life::new(4, |connector| connector).await;
                life.interpose.refuse_from(step, refusal);
                let ran = life.sync().await;
                if life.interpose.refusals() == 0 {
                    ran.exits(0);
                    break;
                }
                refused += 1;
                life.assert_intents_are_known();
                // What is refused when all is done (SQLite tidies up) is nobody's loss.
                if ran.code != 0 {
                    ended += 1;
                    let ran = ran.exits(1);
                    assert_shows_the_way_out(refusal, &ran.err, &life);
                }
                life.interpose.relent();
                life.recover().await;
            }
            assert!(ended > 0, "{refusal:?} ended nothing");
            (refused, ended)
        })
    });
    for (refusal, story) in REFUSALS.into_iter().zip(stories) {
        let (refused, ended) = story.await.unwrap();
        println!("disk: {refusal:?}: refused in {refused} runs, of which {ended} ended early");
    }
    println!("disk: all refusals in {:.1} s", began.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_write_that_fails_costs_nothing() {
    let refusals = [Refusal::Full, Refusal::Short, Refusal::Broken];
    futures_util::future::join_all(refusals.map(fail_single_writes)).await;
}

async fn fail_single_writes(refusal: Refusal) {
    let first = fastrand::usize(0..stride()) + 1;
    for step in (first as u64..).step_by(stride()) {
        let mut life = Life::new(4, |connector| connector).await;
        life.interpose.refuse_once(step, refusal);
        let ran = life.sync().await;
        if life.interpose.steps() < step {
            assert!(step > 100, "{step}");
            break;
        }
        if life.interpose.refusals() == 0 {
            // A full disk can be synced all the same.
            continue;
        }
        assert!([0, 1].contains(&ran.code), "{ran:?}");
        life.assert_intents_are_known();
        life.recover().await;
    }
}

/// Two connectors of which only `main`'s disk refuses.
async fn two_connectors() -> Life {
    let life = Life::new(6, |connector| connector).await;
    let other = Connector::new("other", &life.sandbox);
    let main = Connector::new("main", &life.sandbox);
    life.place.configure("", &[main, other]);
    life.interpose.only("/main.");
    life
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_during_the_first_collection_is_waited_for() {
    let life = two_connectors().await;
    let world = life.world();
    world.behave(|behaviour| {
        behaviour.accept_duplicates = false;
        behaviour.torq_page_cap = 2;
    });
    world.fault(FaultRule::always(
        Endpoint::TorqUsers,
        Fault::Delay(Duration::from_millis(150)),
    ));
    let daemon = life.daemon().await;
    daemon.status("main", |status| status["users"].as_u64() > Some(0)).await;
    life.interpose.refuse_from(1, Refusal::Full);
    world.clear_faults();
    let full = daemon
        .status("main", |status| {
            status["reason"].as_str().is_some_and(|reason| reason.contains("full"))
        })
        .await;
    assert_eq!(full["state"], "retrying");
    assert!(
        full["users"].as_u64() > Some(0),
        "what is known is shown all the same: {full}"
    );
    assert_shows_the_way_out(Refusal::Full, full["reason"].as_str().unwrap(), &life);
    daemon.state("other", "connected").await;
    let (status, answer) = daemon.get("/readyz").await;
    assert_eq!((status, body(&answer)), (503, "main: retrying, no success yet\n"));
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert!(life.interpose.refusals() > 0);
    // Room again; a minute passes.
    life.interpose.relent();
    life.interpose.pass(Duration::from_secs(90));
    daemon.state("main", "connected").await;
    assert_eq!(daemon.get("/readyz").await.0, 200);
    assert_eq!(world.accounts().len(), 7);
    daemon.stop().await;
    assert_world_in_step(&world, life.users());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_during_a_delivery_lets_nothing_be_sent_that_it_does_not_know_of() {
    let refusals = [Refusal::Full, Refusal::ReadOnly, Refusal::Broken];
    futures_util::future::join_all(refusals.map(refuse_during_a_delivery)).await;
}

async fn refuse_during_a_delivery(refusal: Refusal) {
    let mut life = Life::new(40, |connector| connector).await;
    let world = life.world();
    let daemon = life.daemon().await;
    tokio::time::timeout(DEADLINE, world.seen(Endpoint::AccountCreate, 5))
        .await
        .unwrap();
    life.interpose.refuse_from(1, refusal);
    daemon.state("main", "retrying").await;
    let sent = world.count(Endpoint::AccountCreate);
    assert!(sent < 39, "it was in the middle: {sent}");
    life.assert_intents_are_known();
    // Whoever asks meanwhile hears why not.
    let ran = finish(life.place.command(&["sync", "main"])).await.exits(1);
    assert_shows_the_way_out(refusal, &ran.err, &life);
    let ran = finish(life.place.command(&["pause", "main"])).await.exits(1);
    assert_shows_the_way_out(refusal, &ran.err, &life);
    assert_eq!(world.count(Endpoint::AccountCreate), sent, "nothing more was sent");
    // It is tried again, in vain. That need not be said again.
    let refused = life.interpose.refusals();
    life.time_passes_until(&daemon, |_| life.interpose.refusals() > refused)
        .await;
    life.time_passes_until(&daemon, |status| status["state"] == "retrying")
        .await;
    let said = daemon.said();
    let way_out = ["make room", "make it writable", "system's log"];
    let times: usize = way_out.iter().map(|words| said.matches(words).count()).sum();
    assert_eq!(times, 1, "once is enough:\n{said}");
    life.interpose.relent();
    life.time_passes_until(&daemon, |status| status["state"] == "connected")
        .await;
    assert_eq!(world.count(Endpoint::AccountCreate), 39);
    daemon.stop().await;
    life.sync().await.exits(0);
    life.assert_in_step();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_written_at_all_the_daemon_says_so_and_ends() {
    for refusal in [Refusal::Full, Refusal::ReadOnly] {
        let life = Life::new(3, |connector| connector).await;
        life.interpose.count(kind::DISK);
        life.interpose.refuse_from(1, refusal);
        let ran = finish(life.command(&["run"])).await.exits(1);
        assert_shows_the_way_out(refusal, &ran.err, &life);
        assert!(life.world().requests().is_empty());
        // A state that could never be made is not missed later.
        life.interpose.begin();
        life.interpose.refuse_from(3, refusal);
        finish(life.command(&["sync"])).await.exits(1);
        life.interpose.relent();
        let ran = finish(life.command(&["sync"])).await.exits(0);
        assert!(!ran.err.contains("is gone"), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_on_a_read_only_disk_can_be_looked_at() {
    let mut life = Life::new(3, |connector| connector).await;
    life.recover().await;
    life.interpose.refuse_from(1, Refusal::ReadOnly);
    for (command, shown) in [
        ("users", "created"),
        ("events", "account created"),
        ("status", "connected"),
    ] {
        let ran = finish(life.command(&[command])).await.exits(0);
        let _ = ran.shows(&[shown]);
    }
    let ran = life.sync().await.exits(1);
    assert_shows_the_way_out(Refusal::ReadOnly, &ran.err, &life);
}
