//! What every page has around it, the pages that say why there is nothing to show, and the three files that pages load.

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use serde_json::json;

use super::{BoardError, access, address};
use crate::wording;

/// How often a page that lives asks again, in seconds.
pub(super) const RENEWAL: u32 = 10;

/// Where pages find their style and script: their own policy forbids anything inline.
pub(super) const STYLE_PATH: &str = "/style.css";
pub(super) const SCRIPT_PATH: &str = "/script.js";
pub(super) const ICON_PATH: &str = "/icon.svg";

/// `GET /style.css`
pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("style.css"))
}

/// `GET /script.js`
pub(super) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("script.js"))
}

/// `GET /icon.svg`
pub(super) async fn icon() -> Response {
    file("image/svg+xml", include_str!("icon.svg"))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// How a page is kept up to date.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// It stays as it is.
    Never,
    /// By the script alone, which renews the living part and leaves forms alone.
    ByScript,
    /// By the script, or without one by loading it again: there is nothing on it that a person could be typing into.
    Always,
}

/// A page without its frame.
pub(super) struct Page {
    /// What the browser calls it.
    pub title: String,
    /// The way back: addresses and names from the first page on, this one excluded.
    pub way: Vec<(String, String)>,
    /// The same as JSON.
    pub json: Option<String>,
    /// How it is kept up to date.
    pub renewal: Renewal,
    /// What it says.
    pub main: Markup,
}

impl Page {
    /// The whole document.
    pub(super) fn framed(self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    @if self.renewal == Renewal::Always {
                        noscript { meta http-equiv="refresh" content=(RENEWAL); }
                    }
                    title { (wording::printable(&self.title)) }
                    link rel="icon" href=(ICON_PATH) type="image/svg+xml";
                    link rel="stylesheet" href=(STYLE_PATH);
                    script src=(SCRIPT_PATH) defer {}
                }
                body {
                    a class="skip" href="#main" { "Skip to the content" }
                    header {
                        nav aria-label="Where you are" {
                            ol {
                                li { a class="brand" href="/" { "torq-connector" } }
                                @for (href, name) in &self.way {
                                    li { a href=(href) { (wording::printable(name)) } }
                                }
                            }
                        }
                        p { "as of " (moment(Timestamp::now())) }
                    }
                    main id="main" tabindex="-1" data-renewal=[(self.renewal != Renewal::Never).then_some(RENEWAL)] {
                        (self.main)
                    }
                    footer {
                        p {
                            @if let Some(json) = &self.json { a href=(json) { "This page as JSON" } " · " }
                            "Read-only; commands act · version " (env!("CARGO_PKG_VERSION"))
                        }
                    }
                }
            }
        }
    }
}

fn moment(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (wording::moment(at)) } }
}

/// The way to a page of a connector.
pub(super) fn way_to(name: &str, further: Option<(String, &str)>) -> Vec<(String, String)> {
    let mut way = vec![(address::connector(name), name.to_owned())];
    way.extend(further.map(|(href, name)| (href, name.to_owned())));
    way
}

/// There is no page, for a reason that a person can read.
pub(super) enum NoPage {
    /// Nothing is there.
    NotFound(String),
    /// The board could not tell.
    Board(BoardError),
}

impl From<BoardError> for NoPage {
    fn from(error: BoardError) -> Self {
        Self::Board(error)
    }
}

impl From<crate::state::StateError> for NoPage {
    fn from(error: crate::state::StateError) -> Self {
        Self::Board(BoardError::State(error))
    }
}

impl IntoResponse for NoPage {
    fn into_response(self) -> Response {
        let (status, title, words, hint) = match self {
            Self::NotFound(words) => (StatusCode::NOT_FOUND, "Not found", words, ""),
            Self::Board(error @ BoardError::Unknown { .. }) => (
                StatusCode::NOT_FOUND,
                "No such connector",
                error.to_string(),
                "It may have been removed or renamed in the configuration.",
            ),
            Self::Board(error @ BoardError::Closed { removed: true, .. }) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Removed",
                error.to_string(),
                "Nothing is known of it any more. The first page says which command sets it up again.",
            ),
            Self::Board(error @ BoardError::Closed { .. }) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Not open",
                error.to_string(),
                "It is opened by itself as soon as that is possible; other connectors go on meanwhile.",
            ),
            Self::Board(BoardError::State(error)) => {
                tracing::warn!(%error, "a page cannot read a state");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "The state cannot be read",
                    error.to_string(),
                    "Other connectors go on meanwhile.",
                )
            }
        };
        let page = Page {
            title: format!("{title} – torq-connector"),
            way: Vec::new(),
            json: None,
            renewal: if status == StatusCode::SERVICE_UNAVAILABLE {
                Renewal::Always
            } else {
                Renewal::Never
            },
            main: html! {
                h1 { (title) }
                p { (super::parts::said(&words)) }
                @if !hint.is_empty() { p { (hint) } }
                p { a href="/" { "All connectors" } }
            },
        };
        (status, page.framed()).into_response()
    }
}

/// The answer to every other path.
pub(super) async fn nothing_here(uri: Uri) -> Response {
    let words = "There is nothing at this address. Machines find /api/status, /api/users, /api/events, /healthz, /readyz and \
                 /metrics.";
    if access::is_api(uri.path()) {
        return (StatusCode::NOT_FOUND, Json(json!({ "error": words }))).into_response();
    }
    NoPage::NotFound(words.to_owned()).into_response()
}
