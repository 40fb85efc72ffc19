//! How long the past is kept, by the real binary: what is old goes with a run, and nothing goes by a clock that is ahead.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;

use crate::binary::{Connector, Place, finish, sandbox};
use crate::life::Life;

async fn events(place: &Place, args: &[&str]) -> Vec<Value> {
    let args = [&["events", "main", "--format", "json"], args].concat();
    let report = place.run(&args).await.exits(0).json();
    report["events"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_it_is_to_be_kept_goes_with_a_run() {
    let sandbox = sandbox(8).await;
    let world = sandbox.world();
    let place = Place::new(&[Connector::new("main", &sandbox).with("retention", "30d")]);
    place.run(&["sync"]).await.exits(0);
    let left = world.people().remove(2);
    world.remove_person(&left.id).unwrap();
    place.run(&["sync"]).await.exits(0);
    place.run(&["sync"]).await.exits(0);
    assert!(!events(&place, &["--user", &left.id]).await.is_empty());

    // Forty days later.
    let state = rusqlite::Connection::open(place.path("state/main.db")).unwrap();
    let forty = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-40 days')";
    state
        .execute_batch(&format!(
            "UPDATE events SET at = {forty};
             UPDATE users SET removed_at = {forty} WHERE removed_at IS NOT NULL;
             UPDATE runs SET started = {forty}, finished = {forty};"
        ))
        .unwrap();
    drop(state);
    world.add_people(1);
    let before = place.run(&["status", "--format", "json"]).await.exits(0).json();
    assert_eq!(before["connectors"][0]["removed"], 1);
    let ran = place.run(&["-v", "sync"]).await.exits(0);
    ran.tells(&["1 new", "was pruned"]);
    assert_eq!(events(&place, &["--user", &left.id]).await, Vec::<Value>::new());
    let young: Vec<_> = events(&place, &[]).await;
    assert!(
        young.iter().all(|event| event["kind"] != "user_disappeared"),
        "{young:?}"
    );
    assert!(!young.is_empty(), "what happened lately stays");
    let after = place.run(&["status", "--format", "json"]).await.exits(0).json();
    let status = &after["connectors"][0];
    assert_eq!((&status["users"], &status["removed"]), (&8.into(), &0.into()));
    assert_eq!(world.accounts().len(), 9, "what JumpCloud has is another matter");
    let ran = place.run(&["-v", "sync"]).await.exits(0);
    assert!(!ran.err.contains("pruned"), "once: {}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_clock_that_is_years_ahead_nothing_goes() {
    let life = Life::new(5, |connector| connector.with("retention", "30d")).await;
    finish(life.command(&["sync"])).await.exits(0);
    let before = events(&life.place, &[]).await.len();
    life.interpose.set_wall(3 * 365 * 24 * 3600);
    let ran = finish(life.command(&["-v", "sync"]))
        .await
        .exits(0)
        .tells(&["clock is"]);
    assert!(!ran.err.contains("pruned"), "{}", ran.err);
    assert!(events(&life.place, &[]).await.len() >= before);
}
