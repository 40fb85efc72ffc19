//! Connections: how many at a time, how long a client may take, how they end. No client can keep others from being served.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 256;
/// A request's head must be there within this time. It also ends connections on which nothing is asked.
const HEAD: Duration = Duration::from_secs(15);
/// An answer must be ready to be sent within this time.
const ANSWER: Duration = Duration::from_secs(30);
/// A connection on which requests keep coming is closed after this time, in between two of them.
const CONNECTION: Duration = Duration::from_secs(5 * 60);
/// A closing connection may take so long, e.g. to take in an answer, before it is cut off.
const CLOSING: Duration = Duration::from_secs(30);
/// The same when the process ends.
const ENDING: Duration = Duration::from_secs(3);

/// Accepts connections and serves them, until `shutdown` is done.
pub(super) async fn run(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let closing = CancellationToken::new();
    let cut = CancellationToken::new();
    let _cut_at_last = cut.clone().drop_guard();
    let connections = TaskTracker::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        let stream = match accepted {
            (Ok(place), Ok((stream, _))) => (stream, place),
            (Err(_closed), _) => break,
            (_, Err(error)) if of_one_connection(&error) => continue,
            (_, Err(error)) => {
                tracing::warn!(%error, "cannot accept HTTP connections for now");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = sleep(Duration::from_secs(1)) => continue,
                }
            }
        };
        let (stream, place) = stream;
        let (router, closing, cut) = (router.clone(), closing.clone(), cut.clone());
        connections.spawn(async move {
            tokio::select! {
                () = connection(stream, router, closing) => {}
                () = cut.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    closing.cancel();
    connections.close();
    let _ = timeout(ENDING, connections.wait()).await;
    Ok(())
}

/// Whether an error of `accept` is about the connection that was to be accepted, and says nothing about the next.
fn of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

async fn connection(stream: TcpStream, router: Router, closing: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(32 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // How a connection fails is the client's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(CONNECTION) => {}
        () = closing.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(CLOSING, connection).await;
}

/// Gives up on an answer that takes too long.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    match timeout(ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let words = "This takes longer than it should; try again later.\n";
            (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
        }
    }
}
