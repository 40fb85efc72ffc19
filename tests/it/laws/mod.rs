//! The six laws of "What may never happen" against arbitrary histories: of a workspace, of JumpCloud, of what people do with the
//! connector, of everything that can fail, and of kills at any moment. After every step each law is looked at; when the weather
//! clears, a bounded number of runs brings everything in step, and then nothing is written any more.
//!
//! `history` says what can happen, `trial` (with `deeds`) makes it happen, `model` keeps what is known to have happened, `law` (with
//! `secrets` and `weather`) judges.
//! `LAWS_CASES=5000` tries more of it; `.ci/laws` does so for a long time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod deeds;
mod filters;
mod history;
mod law;
mod model;
mod secrets;
mod trial;
mod weather;

use proptest::test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use history::{History, Step};
use law::{Look, Verdict};
use trial::Trial;

/// One case, from its first step to fine weather.
async fn live(history: &History) -> Verdict {
    let mut trial = Trial::new(history).await;
    let mut bystander = weather::Bystander::new(history.bystander).await;
    let mut readiness = weather::Readiness::new().await;
    for (number, step) in history.steps.iter().enumerate() {
        let named = |wrong: String| format!("step {number}, {step:?}: {wrong}");
        let beside = matches!(step, Step::Run(_));
        let ((), beside) = tokio::join!(trial.happen(step), bystander.run(beside));
        beside.map_err(named)?;
        Look::at(&mut trial).judge().map_err(named)?;
        readiness
            .law_6_ready_means_a_success_and_no_refusal(&mut trial)
            .await
            .map_err(named)?;
    }
    weather::clears(&mut trial).await?;
    secrets::law_4_no_secret_is_anywhere(&mut trial)
}

/// Many cases: the same ones each time, for a change that has nothing to do with them must not meet a new one; with `LAWS_CASES`,
/// so many new ones.
fn try_out(cases: u32, seed: u8) {
    let wanted = std::env::var("LAWS_CASES").ok().and_then(|number| number.parse().ok());
    let config = Config {
        cases: wanted.unwrap_or(cases),
        max_shrink_iters: 400,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/laws/regressions"
        )))),
        ..Config::default()
    };
    let mut runner = match wanted {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32])),
    };
    let result = runner.run(&history::history(), |history| {
        secrets::listening(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(live(&history)).map_err(TestCaseError::fail)
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn the_six_laws_hold_in_arbitrary_histories() {
    try_out(60, 1);
}

#[test]
fn the_six_laws_hold_in_further_arbitrary_histories() {
    try_out(60, 2);
}
