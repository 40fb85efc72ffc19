use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use torq_connector::config;
use torq_connector::http::Patience;
use torq_connector::sandbox::{Options, Sandbox};
use torq_connector::state::State;
use torq_connector::sync::{Connector, RunEnd};
use torq_connector::view::RunOutcome;

async fn run(sandbox: &Sandbox, dir: &Path) -> RunEnd {
    let text = sandbox.config_toml(dir.to_str().unwrap(), "1m");
    let config = config::parse(&text, dir, Some(0o600), &BTreeMap::new()).unwrap();
    let connector = Arc::new(config.connectors[0].clone());
    let state = State::open(&config.state_dir, &connector.name).unwrap();
    let connector = Connector::new(
        connector,
        &config.network,
        state,
        Patience::COMMAND,
        CancellationToken::new(),
    )
    .unwrap();
    connector.run().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_users() {
    let dir = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options {
        people: 1000,
        ..Options::default()
    })
    .await
    .unwrap();
    let end = run(&sandbox, dir.path()).await;
    println!("{end:?}");
    assert_eq!(end.outcome, RunOutcome::Done);
    assert_eq!(sandbox.world().accounts().len(), 1000);
    sandbox.world().clear_requests();
    let t = std::time::Instant::now();
    let end = run(&sandbox, dir.path()).await;
    println!(
        "{end:?} {:?} requests {}",
        t.elapsed(),
        sandbox.world().requests().len()
    );
    assert!(sandbox.world().writes().is_empty());
}
