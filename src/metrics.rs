//! Every metric, declared in one place with unit and help, and the functions that count. No label names a person.
//!
//! Counters go through the `metrics` facade: without a recorder (commands, tests) they cost next to nothing. What each one is for
//! stands in `docs/monitor.md`, which a test keeps in step.

use std::time::Duration;

use jiff::Timestamp;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use metrics_util::MetricKindMask;

use crate::model::Peer;
use crate::view::{ConnectorState, ConnectorStatus, RunCounts, RunOutcome};

const REQUESTS: &str = "torq_connector_requests_total";
const REQUEST_SECONDS: &str = "torq_connector_request_duration_seconds";
const WAIT_SECONDS: &str = "torq_connector_rate_limit_wait_seconds";
const RETRIES: &str = "torq_connector_retries_total";
const TOKENS: &str = "torq_connector_token_requests_total";
const RUNS: &str = "torq_connector_runs_total";
const RUN_SECONDS: &str = "torq_connector_run_duration_seconds";
const CHANGES: &str = "torq_connector_changes_total";
const LAST_SUCCESS: &str = "torq_connector_last_success_timestamp_seconds";
const STATE: &str = "torq_connector_state";
const USERS: &str = "torq_connector_users";
const POLL_INTERVAL: &str = "torq_connector_poll_interval_seconds";
const KEY_EXPIRY: &str = "torq_connector_key_expiry_timestamp_seconds";
const STATE_SIZE: &str = "torq_connector_state_size_bytes";
const NOTIFICATIONS: &str = "torq_connector_notifications_total";
const BUILD: &str = "torq_connector_build_info";
// The process itself, by the names that every Prometheus client uses.
const CPU: &str = "process_cpu_seconds_total";
const MEMORY: &str = "process_resident_memory_bytes";
const DESCRIPTORS: &str = "process_open_fds";
const MAX_DESCRIPTORS: &str = "process_max_fds";
const THREADS: &str = "process_threads";
const STARTED: &str = "process_start_time_seconds";

/// Upper bounds of the run duration's buckets, in seconds: from an idle poll to a first collection.
const RUN_BUCKETS: [f64; 9] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0];
/// Those of a request's duration: up to the time-out.
const REQUEST_BUCKETS: [f64; 8] = [0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Those of what a request waits for its turn: from the pace itself to the pause after a block.
const WAIT_BUCKETS: [f64; 7] = [0.05, 0.25, 1.0, 5.0, 30.0, 120.0, 900.0];

/// A gauge that nobody set for so long belongs to a connector that is gone. All of them are set before they are rendered.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// How a recorder for these metrics is built.
///
/// # Errors
/// Only if the buckets above were wrong.
pub fn builder() -> Result<PrometheusBuilder, BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(full(RUN_SECONDS), &RUN_BUCKETS)?
        .set_buckets_for_metric(full(REQUEST_SECONDS), &REQUEST_BUCKETS)?
        .set_buckets_for_metric(full(WAIT_SECONDS), &WAIT_BUCKETS)?
        .idle_timeout(MetricKindMask::GAUGE, Some(FORGET_AFTER)))
}

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests sent, by peer and by what the answer meant.");
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "Time from sending a request to its whole answer, or to its failure, in seconds, by peer."
    );
    describe_histogram!(
        WAIT_SECONDS,
        Unit::Seconds,
        "Time that a request waited for its turn, in seconds, by peer: for the pace, or for a pause that the peer asked for."
    );
    describe_counter!(RETRIES, "Requests that failed for now and were put off, by peer.");
    describe_counter!(TOKENS, "Requests to token endpoints, by peer and outcome.");
    describe_counter!(
        RUNS,
        "Runs (a poll and the delivery that follows it), by connector and outcome."
    );
    describe_histogram!(RUN_SECONDS, Unit::Seconds, "Duration of runs in seconds, by connector.");
    describe_counter!(CHANGES, "Changes made or noticed, by connector and kind.");
    describe_gauge!(
        LAST_SUCCESS,
        Unit::Seconds,
        "When a poll and its delivery last finished, in seconds since the epoch; 0 before the first."
    );
    describe_gauge!(STATE, "1 for the state the connector is in, 0 for the others.");
    describe_gauge!(
        USERS,
        "Users of the snapshot, by connector and by where their account stands."
    );
    describe_gauge!(
        POLL_INTERVAL,
        Unit::Seconds,
        "Time from one poll to the next, as configured, in seconds."
    );
    describe_gauge!(
        KEY_EXPIRY,
        Unit::Seconds,
        "When the Torq API key expires, as configured, in seconds since the epoch; missing where it is not configured."
    );
    describe_gauge!(
        STATE_SIZE,
        Unit::Bytes,
        "Size of the state's files in bytes, the write-ahead log included."
    );
    describe_counter!(
        NOTIFICATIONS,
        "Messages that tell a person what concerns them, by connector and by what became of an attempt."
    );
    describe_gauge!(BUILD, "Always 1; the label says which version runs.");
    describe_counter!(
        CPU,
        Unit::Seconds,
        "Processor time that the process has used, in whole seconds."
    );
    describe_gauge!(MEMORY, Unit::Bytes, "Resident memory of the process in bytes.");
    describe_gauge!(DESCRIPTORS, "Open file descriptors of the process.");
    describe_gauge!(MAX_DESCRIPTORS, "How many file descriptors the process may have open.");
    describe_gauge!(THREADS, "Threads of the process.");
    describe_gauge!(
        STARTED,
        Unit::Seconds,
        "When the process started, in seconds since the epoch."
    );
}

/// What the process says of itself. Called before the metrics are rendered.
pub fn note_process() {
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    #[cfg(target_os = "linux")]
    if let Err(error) = note_proc() {
        tracing::debug!(%error, "/proc does not tell how the process is doing");
    }
}

#[cfg(target_os = "linux")]
fn note_proc() -> procfs::ProcResult<()> {
    use procfs::{CurrentSI, WithCurrentSystemInfo};

    let process = procfs::process::Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second();
    counter!(CPU).absolute((stat.utime + stat.stime) / ticks);
    gauge!(MEMORY).set(stat.rss_bytes().get() as f64);
    gauge!(THREADS).set(stat.num_threads as f64);
    let booted = procfs::KernelStats::current()?.btime;
    gauge!(STARTED).set(booted as f64 + stat.starttime as f64 / ticks as f64);
    gauge!(DESCRIPTORS).set(process.fd_count()? as f64);
    if let procfs::process::LimitValue::Value(most) = process.limits()?.max_open_files.soft_limit {
        gauge!(MAX_DESCRIPTORS).set(most as f64);
    }
    Ok(())
}

/// A request was answered, or was not.
pub fn request(peer: Peer, outcome: &'static str, took: Duration) {
    counter!(REQUESTS, "peer" => peer.as_str(), "outcome" => outcome).increment(1);
    histogram!(REQUEST_SECONDS, "peer" => peer.as_str()).record(took);
}

/// A request waited for its turn.
pub fn waited(peer: Peer, wait: Duration) {
    histogram!(WAIT_SECONDS, "peer" => peer.as_str()).record(wait);
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

/// What is configured for a connector, as gauges.
pub fn configured(connector: &str, poll_interval: Duration, key_expires: Option<Timestamp>) {
    gauge!(POLL_INTERVAL, "connector" => connector.to_owned()).set(poll_interval.as_secs_f64());
    if let Some(at) = key_expires {
        gauge!(KEY_EXPIRY, "connector" => connector.to_owned()).set(at.as_second() as f64);
    }
    // An outcome that never was is 0, and not missing: its first occurrence is an increase.
    for outcome in RunOutcome::ALL {
        counter!(RUNS, "connector" => connector.to_owned(), "outcome" => outcome.as_str()).increment(0);
    }
}

/// What becomes of an attempt to tell a person something. `given_up`: it was tried for a day.
const NOTIFICATION_OUTCOMES: [&str; 3] = ["delivered", "failed", "given_up"];

/// A person is told about a connector from now on.
pub fn notifications_begin(connector: &str) {
    for outcome in NOTIFICATION_OUTCOMES {
        counter!(NOTIFICATIONS, "connector" => connector.to_owned(), "outcome" => outcome).increment(0);
    }
}

/// A person was told something, or was not: `delivered`, `failed` or `given_up`.
pub fn notification(connector: &str, outcome: &'static str) {
    counter!(NOTIFICATIONS, "connector" => connector.to_owned(), "outcome" => outcome).increment(1);
}

/// How large the state of a connector is, in bytes.
pub fn state_size(connector: &str, bytes: u64) {
    gauge!(STATE_SIZE, "connector" => connector.to_owned()).set(bytes as f64);
}

/// The name of every metric of ours.
#[cfg(test)]
pub(crate) const ALL: [&str; 16] = [
    REQUESTS,
    REQUEST_SECONDS,
    WAIT_SECONDS,
    RETRIES,
    TOKENS,
    RUNS,
    RUN_SECONDS,
    CHANGES,
    LAST_SUCCESS,
    STATE,
    USERS,
    POLL_INTERVAL,
    KEY_EXPIRY,
    STATE_SIZE,
    NOTIFICATIONS,
    BUILD,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCS: &str = include_str!("../docs/monitor.md");
    const ALERTS: &str = include_str!("../deploy/prometheus/alerts.yml");
    const DASHBOARD: &str = include_str!("../deploy/grafana/dashboard.json");

    /// Every word in a text that looks like a metric.
    fn mentioned(text: &str) -> BTreeSet<&str> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("torq_connector_") || word.starts_with("process_"))
            .map(|word| {
                let series = ["_bucket", "_sum", "_count"]
                    .into_iter()
                    .find_map(|end| word.strip_suffix(end));
                series.unwrap_or(word)
            })
            .collect()
    }

    /// What a scrape shows once everything was counted at least once.
    fn rendered() -> String {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&recorder, || {
            describe();
            note_process();
            request(Peer::Torq, "success", Duration::from_millis(80));
            waited(Peer::Torq, Duration::from_millis(25));
            retry(Peer::Torq);
            token_renewed(Peer::Torq, true);
            run_ended("main", RunOutcome::Done, 1.5, &RunCounts::default());
            status(&ConnectorStatus::unknown("main", ConnectorState::Starting, None));
            configured("main", Duration::from_secs(900), Some(Timestamp::UNIX_EPOCH));
            state_size("main", 4096);
            notifications_begin("main");
            notification("main", "delivered");
        });
        handle.render()
    }

    #[test]
    fn every_metric_has_help_and_type_and_its_row_in_the_docs_and_no_other_has() {
        let rendered = rendered();
        for name in ALL {
            assert!(rendered.contains(&format!("# HELP {name} ")), "{name}");
            assert!(rendered.contains(&format!("# TYPE {name} ")), "{name}");
            assert!(
                DOCS.contains(&format!("| `{name}` |")),
                "{name} has no row in docs/monitor.md"
            );
        }
        let families: BTreeSet<&str> = rendered
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        for name in mentioned(DOCS) {
            assert!(
                families.contains(name),
                "docs/monitor.md speaks of {name}, which is not there"
            );
        }
        for name in families.iter().filter(|name| name.starts_with("torq_connector_")) {
            assert!(ALL.contains(name), "{name} is not in ALL");
        }
    }

    #[test]
    fn an_outcome_that_never_was_is_zero_and_not_missing() {
        let rendered = rendered();
        for (outcome, count) in [("done", 1), ("partial", 0), ("failed", 0), ("refused", 0)] {
            let line = format!("{RUNS}{{connector=\"main\",outcome=\"{outcome}\"}} {count}");
            assert!(rendered.contains(&line), "{line} is not in:\n{rendered}");
        }
    }

    #[test]
    fn alerts_and_dashboard_use_metrics_and_words_that_there_are() {
        let rendered = rendered();
        for (file, text) in [("alerts.yml", ALERTS), ("dashboard.json", DASHBOARD)] {
            for name in mentioned(text) {
                assert!(
                    rendered.contains(&format!("# TYPE {name} ")),
                    "{file} uses {name}, which is not there"
                );
            }
            for state in text.split("state=").skip(1) {
                let words = state
                    .trim_start_matches(['~', '\\', '"'])
                    .split(['"', '\\'])
                    .next()
                    .unwrap_or_default();
                for word in words.split('|') {
                    assert!(
                        ConnectorState::parse(word).is_some(),
                        "{file}: there is no state {word}"
                    );
                }
            }
        }
        let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(panels.len() > 10);
        let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
        assert!(panels.iter().all(|panel| panel["targets"][0]["expr"].is_string()));
    }

    #[test]
    fn every_alert_has_its_row_in_the_docs() {
        let alerts: Vec<&str> = ALERTS
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- alert: "))
            .collect();
        assert_eq!(alerts.len(), 11);
        for alert in alerts {
            assert!(DOCS.contains(&format!("| `{alert}` |")), "{alert}");
        }
    }
}
