//! Killed at random, by step or by time, while people come, go and change and the peers are faulty: hundreds of times in the full
//! stories.

use std::time::{Duration, Instant};

use torq_connector::sandbox::{Endpoint, Fault, FaultRule};

use super::wanted;
use crate::binary::{DEADLINE, Ran};
use crate::interpose::{Death, kind};
use crate::life::Life;

/// Deaths after which the weather clears and everything must come in step.
const DEATHS_IN_A_ROW: u64 = 6;
/// How many lives are lived side by side.
const LIVES: u64 = 4;

/// Which process is killed.
#[derive(Clone, Copy, Debug)]
enum Process {
    Command,
    Daemon,
}

/// Something happens among people.
fn happen(life: &Life, random: &mut fastrand::Rng, round: u64) {
    let world = life.world();
    for change in 0..random.usize(0..3) {
        let people = world.people();
        let who = &people[random.usize(..people.len())];
        match random.u32(..7) {
            0 | 1 => drop(world.add_people(random.usize(1..3))),
            // Somebody is left, or the workspace would rightly be held.
            2 if people.len() > 4 => drop(world.remove_person(&life.somebody_of_ours().id)),
            3 => {
                let email = format!("changed.{round}.{change}@example.com");
                world.update_person(&who.id, |one| one.email = email);
            }
            4 => drop(world.update_person(&who.id, |one| one.sso_provision = !one.sso_provision)),
            5 => drop(world.add_to_directory(&who.email)),
            _ => world.remove_from_directory(&who.email),
        }
    }
}

/// The peers are faulty, most of the time.
fn cloud_over(life: &Life, random: &mut fastrand::Rng) {
    let world = life.world();
    let skip = random.u64(..3);
    let rule = |endpoint: Option<Endpoint>, fault, probability, times| {
        world.fault(FaultRule {
            endpoint,
            skip,
            times: Some(times),
            probability,
            fault,
        });
    };
    match random.u32(..6) {
        0 => rule(None, Fault::status(503), 0.5, 6),
        1 => rule(None, Fault::Reset, 0.3, 4),
        2 => rule(Some(Endpoint::AccountCreate), Fault::LostAnswer, 0.7, 4),
        3 => rule(Some(Endpoint::AccountDelete), Fault::LostAnswer, 1.0, 2),
        4 => {
            rule(Some(Endpoint::AccountAssociate), Fault::LostAnswer, 0.5, 2);
            rule(Some(Endpoint::AccountCreate), Fault::CutShort, 0.5, 2);
        }
        _ => {}
    }
}

/// Runs a process until it dies; a command that comes to its end first was not killed. Returns whether it died.
async fn live_and_die(life: &mut Life, process: Process, random: &mut fastrand::Rng) -> bool {
    let log = life.place.path("dying.log");
    let mut command = life.command(match process {
        Process::Command => &["sync"],
        Process::Daemon => &["run"],
    });
    command.stdout(std::process::Stdio::null());
    command.stderr(std::fs::File::create(&log).unwrap());
    life.interpose.begin();
    life.interpose.count(kind::DISK | kind::SEND);
    let by_step = random.bool();
    if by_step {
        let how = [Death::Before, Death::After, Death::Torn, Death::Power(random.u64(1..))];
        life.interpose
            .kill_at(random.u64(1..250), how[random.usize(..how.len())]);
    }
    let mut child = command.spawn().unwrap();
    let patience = match (by_step, process) {
        // A daemon that has nothing to write does not come to its step.
        (true, Process::Daemon) => Duration::from_secs(3),
        (true, Process::Command) => DEADLINE,
        (false, _) => Duration::from_millis(random.u64(1..900)),
    };
    let status = match tokio::time::timeout(patience, child.wait()).await {
        Ok(status) => status.unwrap(),
        Err(_) => {
            child.start_kill().unwrap();
            child.wait().await.unwrap()
        }
    };
    let ran = Ran {
        code: status.code().unwrap_or(-1),
        out: String::new(),
        err: std::fs::read_to_string(&log).unwrap(),
        took: patience,
    };
    let died = ran.code == -1;
    assert!(
        died || matches!(process, Process::Command),
        "the daemon ended by itself: {}",
        ran.err
    );
    life.judge(&ran);
    died
}

/// Deaths in a row, and what comes after them, until there were enough.
async fn die_again_and_again(process: Process, seed: u64, wanted: u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut life = Life::new(8, |connector| connector.with("poll_interval", "1s")).await;
    let world = life.world();
    world.behave(|behaviour| behaviour.torq_page_cap = 3);
    let (mut deaths, mut round) = (0, 0);
    while deaths < wanted {
        let enough = deaths + DEATHS_IN_A_ROW;
        while deaths < enough {
            round += 1;
            happen(&life, &mut random, round);
            world.clear_faults();
            cloud_over(&life, &mut random);
            deaths += u64::from(live_and_die(&mut life, process, &mut random).await);
        }
        world.clear_faults();
        life.interpose.begin();
        // An account whose user left before anybody knew that it was made is found with the first, and goes with the second poll
        // after that.
        for _ in 0..3 {
            // Whom the first of these misses for the first time is pending: done in part.
            let ran = life.sync().await;
            assert!([0, 75].contains(&ran.code), "{}", ran.err);
        }
        life.assert_in_step();
        let writes = world.writes().len();
        life.sync().await.exits(0);
        assert_eq!(world.writes().len(), writes, "in step, and still writing");
    }
    deaths
}

async fn at_random(process: Process) {
    let began = Instant::now();
    let wanted = wanted().unwrap_or(24).div_ceil(LIVES);
    let seed = fastrand::u64(..);
    println!("deaths: {process:?} at random, seed {seed}");
    let lives = (0..LIVES).map(|life| tokio::spawn(die_again_and_again(process, seed.wrapping_add(life), wanted)));
    let deaths: u64 = futures_util::future::join_all(lives)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    let took = began.elapsed().as_secs_f64();
    println!("deaths: {process:?} at random: {deaths} deaths in {took:.1} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_can_die_at_any_moment() {
    at_random(Process::Command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_can_die_at_any_moment() {
    at_random(Process::Daemon).await;
}
