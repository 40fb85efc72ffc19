//! `/connectors/NAME/events`: everything that happened, newest first, filtered, a page at a time.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};

use super::address::{self, Query};
use super::connector::seat_of;
use super::frame::{NoPage, Page, Renewal, way_to};
use super::parameters::{Parameters, day_or_instant};
use super::{Site, parts, story};
use crate::state::{EventPage, EventPageQuery};
use crate::view::EventKind;
use crate::wording;

/// Events on a page.
const ROWS: u32 = 50;

/// `GET /connectors/NAME/events`
pub(super) async fn list(
    State(site): State<Site>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, NoPage> {
    let now = Timestamp::now();
    let seat = seat_of(&site, path)?;
    let mut parameters = Parameters::of_form(query);
    let all = EventKind::ALL.map(EventKind::as_str).join(", ");
    let wanted = EventPageQuery {
        kind: parameters.parsed("kind", &format!("one of {all}"), EventKind::parse),
        user: parameters.owned("user"),
        user_id: None,
        since: parameters.parsed(
            "since",
            "a day like 2026-11-24, or a time like 2026-11-24T10:00:00Z",
            day_or_instant,
        ),
        before: parameters.parsed("before", "the number of an event", |text| text.parse().ok()),
        limit: ROWS,
    };
    let asked = wanted.clone();
    let (found, roles) = seat
        .state()?
        .call(move |store| Ok((store.event_page(&wanted)?, store.roles()?)))
        .await
        .map_err(super::BoardError::from)?;
    let since = parameters.owned("since").filter(|_| asked.since.is_some());
    let problems = parameters.into_problems();
    let status = if problems.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    let name = seat.name.as_str();
    let path = address::events(name);
    let query = Query::default()
        .with("kind", asked.kind.map(EventKind::as_str))
        .with("user", asked.user.as_ref())
        .with("since", since.as_ref());
    let page = Page {
        title: format!("Events of {name} – torq-connector"),
        way: way_to(name, None),
        json: Some(
            query
                .clone()
                .with("since", asked.since)
                .with("connector", Some(name))
                .at("/api/events"),
        ),
        renewal: Renewal::Never,
        main: html! {
            h1 { "Events of " (name) }
            (parts::sections(name, "Events"))
            (parts::problems(&problems))
            (filters(&path, &asked, since.as_deref()))
            @if found.events.is_empty() {
                p role="status" { "Nothing like that happened." }
            } @else {
                (parts::table("events", "What happened, the newest first", "events", story::rows(&found.events, &roles, now, true)))
            }
            (pager(&path, &query, &asked, &found))
        },
    };
    Ok((status, page.framed()).into_response())
}

fn filters(path: &str, asked: &EventPageQuery, since: Option<&str>) -> Markup {
    let filtered = asked.kind.is_some() || asked.user.is_some() || asked.since.is_some();
    html! {
        form class="filters" action=(path) method="get" role="search" {
            label { "What"
                select name="kind" {
                    option value="" { "anything" }
                    @for kind in EventKind::ALL {
                        option value=(kind.as_str()) selected[asked.kind == Some(kind)] { (wording::event(kind)) }
                    }
                }
            }
            label { "E-mail or id" input type="search" name="user" value=[asked.user.as_deref()] autocomplete="off" spellcheck="false"; }
            label { "Since (UTC)" input type="date" name="since" value=[since.and_then(|text| text.get(..10))]; }
            button type="submit" { "Show" }
            @if filtered { a href=(path) { "Show all" } }
        }
    }
}

/// The way to older events and back to the newest.
fn pager(path: &str, query: &Query, asked: &EventPageQuery, found: &EventPage) -> Markup {
    html! {
        @if asked.before.is_some() || found.next.is_some() {
            nav class="pager" aria-label="Pages" {
                ul {
                    @if asked.before.is_some() { li { a href=(query.at(path)) { "Newest" } } }
                    @if let Some(next) = found.next {
                        li { a href=(query.clone().with("before", Some(next)).at(path)) rel="next" { "Older" } }
                    }
                }
            }
        }
    }
}
