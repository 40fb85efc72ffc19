//! Every metric, declared in one place with unit and help, and the functions that count. No label names a person.
//!
//! Counters go through the `metrics` facade: without a recorder (commands, tests) they cost next to nothing.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::model::Peer;
use crate::view::{ConnectorState, ConnectorStatus, RunCounts, RunOutcome};

const REQUESTS: &str = "torq_connector_requests_total";
const RETRIES: &str = "torq_connector_retries_total";
const TOKENS: &str = "torq_connector_token_requests_total";
const RUNS: &str = "torq_connector_runs_total";
const RUN_SECONDS: &str = "torq_connector_run_duration_seconds";
const CHANGES: &str = "torq_connector_changes_total";
const LAST_SUCCESS: &str = "torq_connector_last_success_timestamp_seconds";
const STATE: &str = "torq_connector_state";
const USERS: &str = "torq_connector_users";
const BUILD: &str = "torq_connector_build_info";

/// Upper bounds of the run duration's buckets, in seconds: from an idle poll to a first collection.
pub const RUN_BUCKETS: [f64; 9] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0];

/// The name of the histogram that [`RUN_BUCKETS`] belong to.
pub const RUN_HISTOGRAM: &str = RUN_SECONDS;

/// A gauge that was not set for so long is not shown any more: a connector that is not attended any more leaves none behind. All of
/// them are set before each look at the metrics.
pub const GAUGES_LAST: std::time::Duration = std::time::Duration::from_secs(5 * 60);

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests sent, by peer and by what the answer meant.");
    describe_counter!(RETRIES, "Requests that failed for now and were put off, by peer.");
    describe_counter!(TOKENS, "Requests to token endpoints, by peer and outcome.");
    describe_counter!(
        RUNS,
        "Runs (a poll and the delivery that follows it), by connector and outcome."
    );
    describe_histogram!(RUN_SECONDS, "Duration of runs in seconds, by connector.");
    describe_counter!(CHANGES, "Changes made or noticed, by connector and kind.");
    describe_gauge!(
        LAST_SUCCESS,
        "When a poll and its delivery last finished, in seconds since the epoch; 0 before the first."
    );
    describe_gauge!(STATE, "1 for the state the connector is in, 0 for the others.");
    describe_gauge!(
        USERS,
        "Users of the snapshot, by connector and by where their account stands."
    );
    describe_gauge!(BUILD, "Always 1; the label says which version runs.");
    build();
}

/// Which version runs.
pub fn build() {
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// A request was answered, or was not.
pub fn request(peer: Peer, outcome: &'static str) {
    counter!(REQUESTS, "peer" => peer.as_str(), "outcome" => outcome).increment(1);
}

/// A request is going to be repeated.
pub fn retry(peer: Peer) {
    counter!(RETRIES, "peer" => peer.as_str()).increment(1);
}

/// A token endpoint was asked.
pub fn token_renewed(peer: Peer, success: bool) {
    let outcome = if success { "success" } else { "failure" };
    counter!(TOKENS, "peer" => peer.as_str(), "outcome" => outcome).increment(1);
}

/// A run ended.
pub fn run_ended(connector: &str, outcome: RunOutcome, seconds: f64, counts: &RunCounts) {
    counter!(RUNS, "connector" => connector.to_owned(), "outcome" => outcome.as_str()).increment(1);
    histogram!(RUN_SECONDS, "connector" => connector.to_owned()).record(seconds);
    let kinds = [
        ("appeared", counts.appeared),
        ("changed", counts.changed),
        ("disappeared", counts.disappeared),
        ("created", counts.created),
        ("found", counts.found),
        ("associated", counts.associated),
        ("deleted", counts.deleted),
        ("refused", counts.refused),
    ];
    for (kind, count) in kinds {
        counter!(CHANGES, "connector" => connector.to_owned(), "kind" => kind).increment(count);
    }
}

/// What the status of a connector says, as gauges. Called for each connector before the metrics are rendered.
pub fn status(status: &ConnectorStatus) {
    let connector = &status.name;
    // Nobody waits for a success of a connector that was removed: an alert on its age must not go off.
    if status.state != ConnectorState::Removed {
        let success = status
            .last_success
            .map_or(0.0, |at| at.as_millisecond() as f64 / 1000.0);
        gauge!(LAST_SUCCESS, "connector" => connector.clone()).set(success);
    }
    for state in ConnectorState::ALL {
        let here = if state == status.state { 1.0 } else { 0.0 };
        gauge!(STATE, "connector" => connector.clone(), "state" => state.as_str()).set(here);
    }
    let standings = [
        ("present", status.users),
        ("accounts", status.accounts),
        ("associated", status.associated),
        ("pending", status.pending),
        ("parked", status.parked),
        ("held", status.held),
        ("filtered", status.filtered),
        ("removed", status.removed),
    ];
    for (standing, count) in standings {
        gauge!(USERS, "connector" => connector.clone(), "standing" => standing).set(count as f64);
    }
}
