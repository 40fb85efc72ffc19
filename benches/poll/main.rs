//! What a poll costs: users per second of CPU, allocations, bytes written, peak memory. See `benches/README.md`.
//!
//! ```text
//! cargo bench --bench poll               the table
//! cargo bench --bench poll -- --quick    small sizes; that everything is counted right
//! ```
//!
//! Each case runs in a process of its own, so that peaks do not mix, and so does the server that stands for both peers: what
//! it costs does not count. Every case checks what it did, so a figure is never that of work left undone.

#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod cases;
mod measure;
mod peers;
mod world;

use std::path::Path;
use std::process::{Command, Stdio};

use measure::Figures;

/// What is aimed at for a run over so many unchanged users.
const TARGET_USERS: usize = 100_000;
const TARGET_CPU_MS: f64 = 250.0;
const TARGET_PEAK_MB: f64 = 25.0;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["case", name, users, dir, address, rate] => {
            let case = cases::Case {
                users: users.parse().unwrap(),
                dir: Path::new(dir),
                address,
                rate: rate.parse().unwrap(),
            };
            for figures in case.run(name) {
                println!("{}", figures.to_line());
            }
        }
        ["serve", users] => peers::serve(users.parse().unwrap()),
        // A test runner asks for names: this is none of its tests.
        _ if has("--list") => {}
        // `cargo bench` says `--bench`; whoever else starts this wants to know that it works.
        _ => table(has("--quick") || !has("--bench"), has("--paced")),
    }
}

/// Runs all cases and prints their figures.
fn table(quick: bool, paced: bool) {
    let sizes: &[usize] = if quick {
        &[300, 2000]
    } else {
        &[10_000, 100_000, 200_000]
    };
    let in_state = if quick { 2000 } else { TARGET_USERS };
    let rate = if paced { torq_connector::torq::RATE } else { 1e6 };
    println!("{}", Figures::header());
    let dir = tempfile::tempdir().unwrap();
    for case in ["decode", "fingerprint", "collect-first", "plan-first", "compare"] {
        run(case, in_state, dir.path(), "-", rate);
    }
    let mut unchanged = Vec::new();
    for users in sizes {
        let dir = tempfile::tempdir().unwrap();
        let peers = peers::Peers::start(*users);
        run("run-first", *users, dir.path(), &peers.address, 1e6);
        // A run after a start, and two more in the same process: the second knows that there was nothing to do.
        let figures = run("run-again", *users, dir.path(), &peers.address, rate);
        unchanged.extend(figures.into_iter().next_back());
        run("plan-again", *users, dir.path(), "-", rate);
    }
    for pair in unchanged.windows(2) {
        let bytes = (pair[1].peak as f64 - pair[0].peak as f64) / (pair[1].users - pair[0].users) as f64;
        println!(
            "peak of a run, unchanged, from {} to {} users: {bytes:.1} bytes for each more",
            pair[0].users, pair[1].users
        );
    }
    if let Some(figures) = unchanged.iter().find(|figures| figures.users == TARGET_USERS) {
        let verdict = |met| if met { "met" } else { "MISSED" };
        println!(
            "target for {TARGET_USERS} unchanged users: under {TARGET_CPU_MS} ms of CPU ({}), under {TARGET_PEAK_MB} MB ({})",
            verdict(figures.cpu_ms() < TARGET_CPU_MS),
            verdict(figures.peak_mb() < TARGET_PEAK_MB)
        );
    }
}

/// Runs one case in a process of its own, and prints what it measured.
fn run(case: &str, users: usize, dir: &Path, address: &str, rate: f64) -> Vec<Figures> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "case",
            case,
            &users.to_string(),
            dir.to_str().unwrap(),
            address,
            &rate.to_string(),
        ])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{case} with {users} users failed");
    let lines = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<Figures> = lines.lines().map(Figures::of_line).collect();
    for figures in &figures {
        println!("{figures}");
    }
    figures
}
