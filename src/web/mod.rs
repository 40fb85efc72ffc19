//! The status page, the read-only API, health and metrics, over HTTP.
//!
//! | room | about |
//! | --- | --- |
//! | `board` | which connectors run, and what each says of itself |
//! | `access` | who may look: the `Host` header and the password; headers of every answer |
//! | `api` | `/api/…`: the shapes of [`crate::view`] as JSON |
//! | `overview` | `/` |
//! | `connector` | `/connectors/NAME` |
//! | `people` | `/connectors/NAME/users` and `…/users/ID` |
//! | `happenings` | `/connectors/NAME/events` |
//! | `frame`, `parts` | what every page has around it, and what pages are made of |
//! | `todo`, `story`, `chart` | what needs a person; events in words; users over time as a drawing |
//! | `settings` | what of the configuration is shown |
//! | `parameters`, `address` | what was asked, and where a link leads |
//! | `health` | `/healthz`, `/readyz`, `/metrics` |
//! | `serving` | connections: how many, how long |
//!
//! Nothing here changes anything: acting on a connector goes through the control socket.

mod access;
mod address;
mod api;
mod board;
mod chart;
mod connector;
mod frame;
mod happenings;
mod health;
mod overview;
mod parameters;
mod parts;
mod people;
mod serving;
mod settings;
mod story;
#[cfg(test)]
mod tests;
pub(crate) mod todo;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

pub use access::Access;
pub use board::{Board, BoardError, Live, Overlay, SILENCE, Seat};
pub use settings::Settings;

/// What the handlers know.
#[derive(Clone)]
struct Site {
    board: Board,
    metrics: Option<PrometheusHandle>,
}

/// Serves until `shutdown` is done; requests under way may then finish, but not for long.
///
/// Ends with an error only when the listener is of no use any more.
pub async fn serve(
    listener: TcpListener,
    board: Board,
    access: Access,
    metrics: Option<PrometheusHandle>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    serving::run(listener, router(board, access, metrics), shutdown).await
}

fn router(board: Board, access: Access, metrics: Option<PrometheusHandle>) -> Router {
    let personal = Router::new()
        .route("/", get(overview::show))
        .route("/connectors/{name}", get(connector::show))
        .route("/connectors/{name}/users", get(people::list))
        .route("/connectors/{name}/users/{id}", get(people::one))
        .route("/connectors/{name}/events", get(happenings::list))
        .route(frame::STYLE_PATH, get(frame::style))
        .route(frame::SCRIPT_PATH, get(frame::script))
        .route(frame::ICON_PATH, get(frame::icon))
        .route("/api/status", get(api::status))
        .route("/api/users", get(api::users))
        .route("/api/events", get(api::events))
        .fallback(frame::nothing_here)
        .layer(middleware::from_fn_with_state(access.shared(), access::guard));
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback_service(personal.with_state(Site {
            board: board.clone(),
            metrics: None,
        }))
        .layer(middleware::from_fn(serving::in_time))
        .layer(middleware::map_response(access::headers))
        .with_state(Site { board, metrics })
}
