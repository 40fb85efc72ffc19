//! Two hundred connectors in one daemon, to one JumpCloud address, every fifth of them broken in another way: the others finish
//! their first collection and stay on time, the broken ones say what is wrong with them, and the process stays within bounds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod ailments;
mod wild;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use torq_connector::sandbox::{Endpoint, Options, Tenants, WorldHandle};

use ailments::{AILMENTS, Ailment, Patient};
use wild::Wild;

use crate::binary::{Connector, Daemon, Place, account_emails, body, eventually_or, people_emails};

const CONNECTORS: usize = 200;
/// How often each polls, in seconds.
const INTERVAL: u64 = 10;
/// After this long nothing is waited for any more.
const DEADLINE: Duration = Duration::from_secs(300);

fn name(number: usize) -> String {
    format!("c{number:03}")
}

/// The ailment of a connector, if it has one.
fn ailment_of(number: usize) -> Option<&'static Ailment> {
    (number % 5 == 4).then(|| &AILMENTS[number / 5])
}

fn connector(tenants: &Tenants, name: &str) -> Connector {
    let settings = [
        ("poll_interval", format!("{INTERVAL}s")),
        ("torq.api_url", tenants.torq_api_url(name)),
        ("torq.token_url", tenants.torq_token_url(name)),
        ("torq.client_id", "sandbox-torq-id".to_owned()),
        ("torq.client_secret", "sandbox-torq-secret".to_owned()),
        ("jumpcloud.console_url", tenants.console_url(name)),
        ("jumpcloud.token_url", tenants.jumpcloud_token_url(name)),
        ("jumpcloud.client_id", "sandbox-jumpcloud-id".to_owned()),
        ("jumpcloud.client_secret", "sandbox-jumpcloud-secret".to_owned()),
    ];
    Connector {
        name: name.to_owned(),
        settings: settings.to_vec(),
    }
}

async fn wait_for(what: &str, daemon: &Daemon, mut done: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    let look = async || match done().await {
        true => Ok(()),
        false => Err(daemon.said()),
    };
    eventually_or(DEADLINE, what, look).await;
    began.elapsed()
}

/// How many runs these connectors have begun to deliver: each asks once for its application.
fn runs(worlds: &BTreeMap<usize, WorldHandle>) -> BTreeMap<usize, usize> {
    let count = |world: &WorldHandle| world.count(Endpoint::Application);
    worlds.iter().map(|(number, world)| (*number, count(world))).collect()
}

/// How long the healthy connectors need for so many runs, all of them together; and how many the slowest of them made.
async fn pace(daemon: &Daemon, healthy: &BTreeMap<usize, WorldHandle>, wanted: usize) -> (Duration, usize) {
    let before = runs(healthy);
    let made = || {
        let now = runs(healthy);
        now.iter()
            .map(|(number, count)| count - before[number])
            .collect::<Vec<_>>()
    };
    let took = wait_for("the healthy ones run", daemon, async || {
        made().iter().sum::<usize>() >= wanted
    })
    .await;
    (took, made().into_iter().min().unwrap())
}

/// Two runs each take the healthy ones two intervals. On a machine that is too busy for that, they take no longer beside the broken
/// ones than without them: what comes and goes on the machine may spoil one such comparison, and a broken one that stops the
/// others spoils all three.
async fn on_time(
    place: &Place,
    daemon: &Daemon,
    healthy: &BTreeMap<usize, WorldHandle>,
    broken: &BTreeMap<String, &Ailment>,
) {
    let all_broken = |command: &'static str| {
        let names = broken.keys().map(String::as_str);
        std::iter::once(command).chain(names).collect::<Vec<_>>()
    };
    let wanted = 2 * healthy.len();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (beside, least) = pace(daemon, healthy, wanted).await;
        println!("two runs each: {beside:?} beside the broken ones, {least} of the slowest");
        if least >= 1 && beside < Duration::from_secs(2 * INTERVAL).mul_f64(1.2) {
            return;
        }
        place.run(&all_broken("pause")).await;
        let (alone, _) = pace(daemon, healthy, wanted).await;
        println!("two runs each: {alone:?} without them");
        if least >= 1 && beside < alone.mul_f64(1.5) + Duration::from_secs(2) {
            return;
        }
        seen.push((beside, least, alone));
        place.run(&all_broken("resume")).await;
    }
    panic!("beside the broken ones, runs of the slowest, without the broken ones: {seen:?}");
}

async fn statuses(daemon: &Daemon) -> BTreeMap<String, Value> {
    let report = daemon.json("/api/status").await;
    let all = report["connectors"].as_array().unwrap().clone();
    all.into_iter()
        .map(|one| (one["name"].as_str().unwrap().to_owned(), one))
        .collect()
}

/// Whether a status says what is wrong.
fn tells(status: &Value, ailment: &Ailment) -> bool {
    let reason = status["reason"].as_str().unwrap_or_default();
    status["state"] == ailment.state && ailment.says.iter().all(|word| reason.contains(word))
}

/// Who is broken in a way that lets no run succeed has no success to show.
fn assert_no_success(all: &BTreeMap<String, Value>, broken: &BTreeMap<String, &Ailment>) {
    for (name, ailment) in broken.iter().filter(|(_, ailment)| ailment.unready) {
        let status = &all[name];
        assert!(
            status["last_success"].is_null() && status["state"] != "connected",
            "{}: {status}",
            ailment.name
        );
    }
}

/// What the process takes: resident memory in MiB, threads, file descriptors.
fn resources(daemon: &Daemon) -> (u64, u64, u64) {
    let proc = std::path::PathBuf::from(format!("/proc/{}", daemon.pid()));
    let status = std::fs::read_to_string(proc.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let files = std::fs::read_dir(proc.join("fd")).unwrap().count() as u64;
    (field("VmRSS") / 1024, field("Threads"), files)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_connectors_of_which_every_fifth_is_broken_in_another_way() {
    let worlds = (0..CONNECTORS).map(|number| {
        let options = Options {
            seed: number as u64 + 1,
            people: 3,
            existing_share: if ailment_of(number).is_some() { 0.0 } else { 0.7 },
            application_exists: Some(true),
            torq_rate: 0,
            jumpcloud_rate: 0,
            ..Options::default()
        };
        (name(number), options)
    });
    let tenants = Tenants::start(worlds).await.unwrap();
    let wild = Wild::start().await;
    let place = Place::with("[network]\ntimeout = \"4s\"\n", &[]);
    std::fs::create_dir(place.state_dir()).unwrap();
    let state_dir = place.state_dir();
    let mut kept = Vec::new();
    let mut healthy = BTreeMap::new();
    let mut connectors = Vec::new();
    for number in 0..CONNECTORS {
        let world = tenants.world(&name(number)).unwrap();
        let mut patient = Patient {
            connector: connector(&tenants, &name(number)),
            world: world.clone(),
            wild: &wild,
            state_dir: &state_dir,
            kept: Vec::new(),
        };
        match ailment_of(number) {
            Some(ailment) => (ailment.strike)(&mut patient),
            None => drop(healthy.insert(number, world)),
        }
        kept.extend(patient.kept);
        connectors.push(patient.connector);
    }
    place.configure("[network]\ntimeout = \"4s\"\n", &connectors);
    // The limit that most systems set, and that a connector can raise.
    let daemon = place.daemon_after("ulimit -Sn 1024").await;

    // The 160 finish their first collection, while the 40 do what they can.
    wait_for("all healthy ones have delivered", &daemon, async || {
        healthy
            .values()
            .all(|world| account_emails(world) == people_emails(world))
    })
    .await;
    wait_for("all healthy ones are connected", &daemon, async || {
        let all = statuses(&daemon).await;
        // Who has just begun may not be on the board yet.
        all.len() == CONNECTORS
            && healthy.keys().all(|number| {
                let state = &all[&name(*number)]["state"];
                state == "connected" || state == "syncing"
            })
    })
    .await;

    // Each broken one says what is wrong with it, sooner or later, and none ever looks as if it had done what it is for.
    let broken: BTreeMap<String, &Ailment> = (0..CONNECTORS)
        .filter_map(|number| Some((name(number), ailment_of(number)?)))
        .collect();
    let mut silent = broken.clone();
    eventually_or(DEADLINE, "each broken one says what is wrong", async || {
        let all = statuses(&daemon).await;
        assert_no_success(&all, &broken);
        silent.retain(|name, ailment| !tells(&all[name], ailment));
        let shown = silent
            .iter()
            .map(|(name, ailment)| format!("{}: {}", ailment.name, all[name]));
        match silent.is_empty() {
            true => Ok(()),
            false => Err(shown.collect::<Vec<_>>().join("\n")),
        }
    })
    .await;
    // Somebody healthy may be late, and named, while this machine is busy with other things.
    let unready = broken.iter().filter(|(_, ailment)| ailment.unready);
    let unready: BTreeSet<String> = unready.map(|(name, _)| name.clone()).collect();
    wait_for("the broken ones are not ready, and nobody else", &daemon, async || {
        let (code, answer) = daemon.get("/readyz").await;
        let named = body(&answer)
            .lines()
            .map(|line| line.split(':').next().unwrap().to_owned());
        let named: BTreeSet<String> = named.collect();
        assert!(code == 503 && named.is_superset(&unready), "{answer}");
        named == unready
    })
    .await;
    assert_eq!(daemon.get("/healthz").await.0, 200);

    let (memory, threads, files) = resources(&daemon);
    println!("{memory} MiB, {threads} threads, {files} files");
    on_time(&place, &daemon, &healthy, &broken).await;
    assert_no_success(&statuses(&daemon).await, &broken);

    for (number, world) in &healthy {
        assert_eq!(account_emails(world), people_emails(world), "{}", name(*number));
    }
    assert!(
        !daemon.said().contains("os error 24"),
        "too few file descriptors:\n{}",
        daemon.said()
    );
    // A database, its two companions and its lock each, and the sockets of whoever is running.
    assert!(files < 4 * CONNECTORS as u64 + 1000, "{files} file descriptors");
    // At most 64 for blocking work, the runtime's, and the main one.
    assert!(threads < 64 + 32, "{threads} threads");
    assert!(memory < 400, "{memory} MiB");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_file_descriptors_are_told_before_they_are_missed() {
    let sandbox = crate::binary::sandbox(2).await;
    let connectors: Vec<_> = (0..40).map(|number| Connector::new(&name(number), &sandbox)).collect();
    let place = Place::new(&connectors);
    let daemon = place.daemon_after("ulimit -n 300").await;
    assert!(daemon.said().contains("raise the limit"), "{}", daemon.said());
    daemon.stop().await;
}
