//! `/`: the status of every connector on one page. Rendered here, renewed by the browser, and without any script.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use super::Site;
use super::api::ApiError;
use crate::state::EventQuery;
use crate::view::{ConnectorState, ConnectorStatus, EventView, StatusReport};
use crate::wording::{self, Weight, printable};

/// Where the page finds its style: its own policy forbids anything inline.
pub(super) const STYLE_PATH: &str = "/style.css";

/// How often a browser asks again, in seconds.
const REFRESH: u32 = 10;

/// How many events the page shows.
const LATEST: u32 = 15;

/// `GET /style.css`
pub(super) async fn style() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css")).into_response()
}

/// `GET /`
pub(super) async fn show(State(site): State<Site>) -> Result<Markup, ApiError> {
    let query = EventQuery {
        limit: Some(LATEST),
        ..EventQuery::default()
    };
    // A connector whose state cannot be read says so in its row; the others' events are not worth an error page.
    let latest = site.board.events(None, query).await.map(|report| report.events);
    let report = site.board.statuses().await?;
    Ok(page(&report, &latest.unwrap_or_default(), Timestamp::now()))
}

fn page(report: &StatusReport, latest: &[EventView], now: Timestamp) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH);
                title { "torq-connector" }
                link rel="stylesheet" href=(STYLE_PATH);
            }
            body {
                header {
                    h1 { "torq-connector" }
                    p { "as of " (moment(now)) }
                }
                main {
                    @if report.connectors.is_empty() {
                        p { "No connector is running." }
                    } @else {
                        (table(report, now))
                        (happened(latest, now))
                    }
                }
                footer {
                    "Version " (env!("CARGO_PKG_VERSION")) " · "
                    a href="/api/status" { "status" } " · "
                    a href="/api/users" { "users" } " · "
                    a href="/api/events" { "events" } " as JSON · renewed every " (REFRESH) " seconds"
                }
            }
        }
    }
}

fn table(report: &StatusReport, now: Timestamp) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead { tr {
                    th scope="col" { "Connector" }
                    th scope="col" { "State" }
                    th scope="col" { "Last success" }
                    th scope="col" { "Next poll" }
                    @for name in ["Users", "Accounts", "Associated", "Pending", "Parked", "Held", "Removed", "Filtered"] {
                        th scope="col" class="number" { (name) }
                    }
                } }
                @for status in &report.connectors {
                    tbody { (row(status, now)) }
                }
            }
        }
    }
}

/// What happened last, the newest first.
fn happened(latest: &[EventView], now: Timestamp) -> Markup {
    html! {
        @if !latest.is_empty() {
            h2 { "Latest events" }
            div class="scroll" {
                table class="events" {
                    thead { tr {
                        @for name in ["When", "Connector", "What", "Who", "Why"] {
                            th scope="col" { (name) }
                        }
                    } }
                    tbody {
                        @for event in latest.iter().rev() {
                            tr {
                                td { (when(event.at, now, "")) }
                                td { (event.connector) }
                                td { (wording::event(event.kind)) }
                                td { (printable(event.email.as_deref().or(event.user_id.as_deref()).unwrap_or_default())) }
                                td class="faint" { (printable(&why(event))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The reason of an event; of a change of state, which one.
fn why(event: &EventView) -> String {
    let state = |value: &Option<serde_json::Value>| {
        let name = value.as_ref()?.get("state")?.as_str()?;
        Some(wording::state(ConnectorState::parse(name)?))
    };
    let change = match (state(&event.before), state(&event.after)) {
        (Some(before), Some(after)) => format!("{before} → {after}"),
        _ => String::new(),
    };
    let reason = event.reason.as_deref().unwrap_or_default();
    let separator = if change.is_empty() || reason.is_empty() {
        ""
    } else {
        ": "
    };
    format!("{change}{separator}{reason}")
}

fn row(status: &ConnectorStatus, now: Timestamp) -> Markup {
    let class = match wording::weight(status.state) {
        Weight::Good => "state good",
        Weight::Neutral => "state neutral",
        Weight::Warning => "state warning",
        Weight::Bad => "state bad",
    };
    let counts = [
        status.users,
        status.accounts,
        status.associated,
        status.pending,
        status.parked,
        status.held,
        status.removed,
        status.filtered,
    ];
    html! {
        tr {
            th scope="row" { (status.name) }
            td {
                span class=(class) { (wording::state(status.state)) }
                @if let Some(progress) = &status.progress {
                    br;
                    span class="faint" {
                        (wording::counted(progress.users, "user")) ", " (wording::counted(progress.pages, "page")) " so far"
                    }
                }
            }
            td { (when(status.last_success, now, "never")) }
            td { (when(status.next_poll, now, "–")) }
            @for count in counts {
                td class="number" { (count) }
            }
        }
        (said(status.reason.as_deref(), status.action.as_deref()))
    }
}

/// A second row for what is to be said about a connector.
fn said(reason: Option<&str>, action: Option<&str>) -> Markup {
    html! {
        @if reason.is_some() || action.is_some() {
            tr {
                td {}
                td class="said" colspan="11" {
                    @if let Some(reason) = reason { p { (printable(reason)) } }
                    @if let Some(action) = action { p { strong { "To do: " } (printable(action)) } }
                }
            }
        }
    }
}

fn when(at: Option<Timestamp>, now: Timestamp, never: &str) -> Markup {
    html! {
        @match at {
            Some(at) => time datetime=(at) title=(wording::moment(at)) { (wording::relative(now, at)) },
            None => span class="faint" { (never) },
        }
    }
}

fn moment(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (wording::moment(at)) } }
}
