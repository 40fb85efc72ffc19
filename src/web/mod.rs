//! The status page, the read-only API, health and metrics, over HTTP.
//!
//! | room | about |
//! | --- | --- |
//! | `board` | which connectors run, and what each says of itself |
//! | `access` | who may look: the `Host` header and the password; headers of every answer |
//! | `api` | `/api/…`: the shapes of [`crate::view`] as JSON |
//! | `page` | `/` |
//! | `health` | `/healthz`, `/readyz`, `/metrics` |
//! | `serving` | connections: how many, how long |
//!
//! Nothing here changes anything: acting on a connector goes through the control socket.

mod access;
mod api;
mod board;
mod health;
mod page;
mod serving;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

pub use access::Access;
pub use board::{Board, BoardError, Live, Overlay, SILENCE, Seat};

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
        .route("/", get(page::show))
        .route(page::STYLE_PATH, get(page::style))
        .route("/api/status", get(api::status))
        .route("/api/users", get(api::users))
        .route("/api/events", get(api::events))
        .fallback(access::nothing_here)
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
