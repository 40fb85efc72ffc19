//! `/api/…`: the shapes of [`crate::view`] as JSON, and errors as `{"error": "…"}`.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::json;
use url::form_urlencoded;

use super::{BoardError, Site};
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
        (status, Json(json!({ "error": words }))).into_response()
    }
}

/// The parameters of a query string: each at most once, and only those that mean something.
struct Parameters {
    given: Vec<(String, String)>,
    problems: Vec<String>,
}

impl Parameters {
    fn read(query: Option<String>, known: &[&str]) -> Self {
        let mut parameters = Self {
            given: Vec::new(),
            problems: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let problem = format!("{name}: no such parameter; there are {}", known.join(", "));
                parameters.problems.push(problem);
            } else if parameters.given.iter().any(|(other, _)| *other == name) {
                parameters.problems.push(format!("{name}: given more than once"));
            } else {
                parameters.given.push((name.into_owned(), value.into_owned()));
            }
        }
        parameters
    }

    fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.given.iter().find(|(given, _)| given == name)?;
        Some(value)
    }

    fn parsed<T>(&mut self, name: &str, allowed: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.text(name)?;
        let parsed = parse(value);
        if parsed.is_none() {
            let problem = format!("{name}: {value:?} is not {allowed}");
            self.problems.push(problem);
        }
        parsed
    }

    fn checked(self) -> Result<Self, ApiError> {
        if self.problems.is_empty() {
            Ok(self)
        } else {
            Err(ApiError::Parameters(self.problems))
        }
    }
}

/// RFC 3339. A `+` that was not encoded arrives as a space, and an offset is what most people use it for.
fn instant(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| {
        let (before, after) = text.rsplit_once(' ')?;
        format!("{before}+{after}").parse().ok()
    })
}

fn kinds(text: &str) -> Option<Vec<EventKind>> {
    text.split(',').map(|kind| EventKind::parse(kind.trim())).collect()
}

/// `GET /api/status?connector=NAME`
pub(super) async fn status(
    State(site): State<Site>,
    RawQuery(query): RawQuery,
) -> Result<Json<StatusReport>, ApiError> {
    let parameters = Parameters::read(query, &["connector"]).checked()?;
    let mut report = site.board.statuses().await?;
    if let Some(name) = parameters.text("connector") {
        let known: Vec<_> = report.connectors.iter().map(|status| status.name.clone()).collect();
        report.connectors.retain(|status| status.name == name);
        if report.connectors.is_empty() {
            let name = name.to_owned();
            return Err(BoardError::Unknown { name, known }.into());
        }
    }
    Ok(Json(report))
}

/// `GET /api/users?connector=NAME`
pub(super) async fn users(State(site): State<Site>, RawQuery(query): RawQuery) -> Result<Json<UsersReport>, ApiError> {
    let parameters = Parameters::read(query, &["connector"]).checked()?;
    Ok(Json(site.board.users(parameters.text("connector")).await?))
}

/// `GET /api/events?connector=NAME&since=…&limit=…&user=…&kind=…`
pub(super) async fn events(
    State(site): State<Site>,
    RawQuery(query): RawQuery,
) -> Result<Json<EventsReport>, ApiError> {
    let mut parameters = Parameters::read(query, &["connector", "since", "limit", "user", "kind"]);
    let since = parameters.parsed("since", "a time like 2026-11-24T10:00:00Z", instant);
    let limit = parameters.parsed("limit", &format!("a number from 1 to {MOST_EVENTS}"), |text| {
        text.parse().ok().filter(|limit| (1..=MOST_EVENTS).contains(limit))
    });
    let all = EventKind::ALL.map(EventKind::as_str).join(", ");
    let kinds = parameters.parsed("kind", &format!("one or more, with commas between, of {all}"), kinds);
    let parameters = parameters.checked()?;
    let query = EventQuery {
        since,
        user: parameters.text("user").map(str::to_owned),
        kinds: kinds.unwrap_or_default(),
        run: None,
        limit: Some(limit.unwrap_or(EVENTS)),
    };
    Ok(Json(site.board.events(parameters.text("connector"), query).await?))
}
