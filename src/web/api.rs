//! `/api/…`: the shapes of [`crate::view`] as JSON, and errors as `{"error": "…"}`.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;

use super::parameters::{Parameters, instant};
use super::{BoardError, Site};
use crate::invocation::{address, addressed};
use crate::state::{EventQuery, StateError};
use crate::view::{EventKind, EventsReport, StatusReport, UsersReport};

/// Events without a `limit`.
const EVENTS: u32 = 1000;
/// The largest `limit`.
const MOST_EVENTS: u32 = 10_000;

/// An answer that is none.
pub(super) enum ApiError {
    Parameters(Vec<String>),
    Board(BoardError),
}

impl From<BoardError> for ApiError {
    fn from(error: BoardError) -> Self {
        Self::Board(error)
    }
}

impl From<StateError> for ApiError {
    fn from(error: StateError) -> Self {
        Self::Board(BoardError::State(error))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::Parameters(problems) => (StatusCode::BAD_REQUEST, problems.join("; ")),
            Self::Board(error @ BoardError::Unknown { .. }) => (StatusCode::NOT_FOUND, error.to_string()),
            Self::Board(error @ BoardError::Closed { .. }) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            Self::Board(BoardError::State(error)) => {
                tracing::warn!(%error, "the API cannot read a state");
                (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        };
        (status, Json(json!({ "error": addressed(&words) }))).into_response()
    }
}

fn kinds(text: &str) -> Option<Vec<EventKind>> {
    text.split(',').map(|kind| EventKind::parse(kind.trim())).collect()
}

fn checked(parameters: Parameters) -> Result<Parameters, ApiError> {
    if parameters.problems().is_empty() {
        Ok(parameters)
    } else {
        Err(ApiError::Parameters(parameters.into_problems()))
    }
}

/// `GET /api/status?connector=NAME`
pub(super) async fn status(
    State(site): State<Site>,
    RawQuery(query): RawQuery,
) -> Result<Json<StatusReport>, ApiError> {
    let parameters = checked(Parameters::strict(query, &["connector"]))?;
    let connectors = match parameters.text("connector") {
        Some(name) => vec![site.board.seated(name)?.status().await?],
        None => site.board.statuses().await?.connectors,
    };
    Ok(Json(StatusReport {
        connectors: connectors.into_iter().map(address).collect(),
        daemon: true,
    }))
}

/// `GET /api/users?connector=NAME&search=…&account=…&status=…&sso=…&unmatched=…&dormant=…`
pub(super) async fn users(State(site): State<Site>, RawQuery(query): RawQuery) -> Result<Json<UsersReport>, ApiError> {
    let known = [
        "connector",
        "search",
        "account",
        "status",
        "sso",
        "unmatched",
        "dormant",
    ];
    let mut parameters = Parameters::strict(query, &known);
    let selection = parameters.selection(Timestamp::now());
    let parameters = checked(parameters)?;
    Ok(Json(site.board.users(parameters.text("connector"), selection).await?))
}

/// `GET /api/events?connector=NAME&since=…&limit=…&user=…&kind=…`
pub(super) async fn events(
    State(site): State<Site>,
    RawQuery(query): RawQuery,
) -> Result<Json<EventsReport>, ApiError> {
    let mut parameters = Parameters::strict(query, &["connector", "since", "limit", "user", "kind"]);
    let since = parameters.parsed("since", "a time like 2026-11-24T10:00:00Z", instant);
    let limit = parameters.parsed("limit", &format!("a number from 1 to {MOST_EVENTS}"), |text| {
        text.parse().ok().filter(|limit| (1..=MOST_EVENTS).contains(limit))
    });
    let all = EventKind::ALL.map(EventKind::as_str).join(", ");
    let kinds = parameters.parsed("kind", &format!("one or more, with commas between, of {all}"), kinds);
    let parameters = checked(parameters)?;
    let query = EventQuery {
        since,
        until: None,
        user: parameters.text("user").map(str::to_owned),
        kinds: kinds.unwrap_or_default(),
        run: None,
        limit: Some(limit.unwrap_or(EVENTS)),
    };
    Ok(Json(site.board.events(parameters.text("connector"), query).await?))
}
