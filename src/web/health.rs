//! `/healthz`, `/readyz`, `/metrics`: for machines that anybody may look at, so nobody is named, and no peer is quoted.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};

use super::{BoardError, Seat, Site};
use crate::model::Peer;
use crate::view::{ConnectorState, ConnectorStatus};
use crate::{config, metrics as meters, wording};

/// `GET /healthz`: the process works. It asks nothing of the state, which may be busy.
pub(super) async fn alive(State(site): State<Site>) -> Response {
    let ailing = site
        .board
        .seats()
        .iter()
        .filter_map(|seat| seat.ailment().map(|ailment| format!("{}: {ailment}", seat.name)))
        .collect();
    verdict(ailing, "ok")
}

/// `GET /readyz`: every connector that is not paused did lately what it is for.
pub(super) async fn ready(State(site): State<Site>) -> Response {
    let now = Timestamp::now();
    let seats = site.board.seats();
    let mut waiting = Vec::new();
    if seats.is_empty() {
        waiting.push("no connector is running".to_owned());
    }
    for seat in &seats {
        let obstacle = match seat.status().await {
            Ok(status) => obstacle(seat, &status, now),
            Err(BoardError::Closed { .. }) => Some("its state is not open".to_owned()),
            Err(BoardError::State(_) | BoardError::Unknown { .. }) => Some("its state cannot be read".to_owned()),
        };
        waiting.extend(obstacle.map(|obstacle| format!("{}: {obstacle}", seat.name)));
    }
    verdict(waiting, "ready")
}

/// Why a connector is not ready, in words of ours; `None` when it is.
fn obstacle(seat: &Seat, status: &ConnectorStatus, now: Timestamp) -> Option<String> {
    let state = status.state.as_str();
    match status.state {
        ConnectorState::Paused => return None,
        ConnectorState::Removed => {
            // As long as it is being removed, there is nothing to be done.
            let action = status.action.as_deref().filter(|_| !seat.is_removed());
            let halfway = action.is_some_and(|action| !wording::asks_nothing(action));
            return halfway.then(|| format!("{state}, and not to the end"));
        }
        ConnectorState::ReconnectRequired | ConnectorState::NotLicensed => {
            return Some(match side(status) {
                Some(peer) => format!("{state} ({peer})"),
                None => state.to_owned(),
            });
        }
        _ => {}
    }
    let Some(success) = status.last_success else {
        return Some(format!("{state}, no success yet"));
    };
    let patience = SignedDuration::try_from(config::patience(seat.poll_interval)).unwrap_or(SignedDuration::MAX);
    let by_wall = now.duration_since(success);
    // The wall clock may have been set back since, and the other one stands still while the machine sleeps.
    let by_process = seat.live.borrow().succeeded.map(|at| at.elapsed());
    let by_process = by_process.and_then(|age| SignedDuration::try_from(age).ok());
    if by_process.is_none() && by_wall < -patience {
        return Some(format!(
            "{state}, last success {}, says a clock that was set back",
            wording::relative(now, success)
        ));
    }
    let age = by_process.map_or(by_wall, |age| age.max(by_wall));
    (age > patience).then(|| {
        format!(
            "{state}, last success {} ago, more than {} poll intervals of {}",
            wording::span(age.unsigned_abs()),
            config::PATIENCE,
            wording::span(seat.poll_interval)
        )
    })
}

/// Which of the two is to be looked at: the reason begins with its name. No more of it is told here.
fn side(status: &ConnectorStatus) -> Option<Peer> {
    let reason = status.reason.as_deref()?;
    let begins = |peer: &Peer| reason.starts_with(&format!("{peer}:"));
    [Peer::Torq, Peer::JumpCloud].into_iter().find(begins)
}

fn verdict(problems: Vec<String>, good: &str) -> Response {
    if problems.is_empty() {
        return format!("{good}\n").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n").into_response()
}

/// `GET /metrics`
pub(super) async fn metrics(State(site): State<Site>) -> Response {
    let Some(handle) = site.metrics else {
        return (StatusCode::NOT_FOUND, "no metrics are recorded\n").into_response();
    };
    meters::note_process();
    for seat in site.board.seats() {
        // Nobody is to be warned of the end of a key of a connector that was removed.
        let key_expires = seat.key_expires.filter(|_| !seat.is_removed());
        meters::configured(seat.name.as_str(), seat.poll_interval, key_expires);
        if let Some(bytes) = seat.state_size().await {
            meters::state_size(seat.name.as_str(), bytes);
        }
        // A state that cannot be read shows in the age of the last success; the other connectors are told all the same.
        match seat.status().await {
            Ok(status) => meters::status(&status),
            Err(BoardError::Closed { .. }) => {}
            Err(error) => tracing::warn!(connector = %seat.name, %error, "no metrics of this connector's state"),
        }
    }
    let kind = (CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([kind], handle.render()).into_response()
}
