//! Between the network and the world: reads a request, notes it, lets a fault have its way, answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;

use super::control;
use super::exchange::{Asked, Reply};
use super::fault::Fault;
use super::handle::WorldHandle;
use super::journal::{Endpoint, Peer, RequestLog};
use super::wire::Line;

const LARGEST_BODY: usize = 1 << 20;

pub(super) fn router(served: Served) -> Router {
    Router::new().fallback(serve).with_state(served)
}

/// What is served at an address.
#[derive(Clone)]
pub(super) enum Served {
    /// One world.
    One(WorldHandle),
    /// Several, each below a path of its own.
    Many(Arc<BTreeMap<String, WorldHandle>>),
}

impl Served {
    /// Whose this path is, and what it is there.
    fn find<'a>(&self, path: &'a str) -> Option<(WorldHandle, &'a str)> {
        match self {
            Self::One(world) => Some((world.clone(), path)),
            Self::Many(worlds) => {
                let (name, _) = path.strip_prefix('/')?.split_once('/')?;
                let rest = path.get(name.len() + 1..)?;
                Some((worlds.get(name)?.clone(), rest))
            }
        }
    }
}

async fn serve(State(served): State<Served>, ConnectInfo(line): ConnectInfo<Line>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some((world, path)) = served.find(parts.uri.path()) else {
        return plain(Reply::text(404, "nobody lives here"));
    };
    let Ok(body) = to_bytes(body, LARGEST_BODY).await else {
        return plain(Reply::text(413, "the body is too large or was cut short"));
    };
    let query = parts.uri.query().unwrap_or_default();
    let asked = Asked {
        method: parts.method.to_string(),
        path: path.to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes())
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect(),
        headers: parts.headers,
        body: body.to_vec(),
    };
    match asked.endpoint() {
        Some((peer, endpoint)) => exchange(&world, &line, peer, endpoint, asked).await,
        None => plain(control::answer(&world, &asked)),
    }
}

/// One request to one of the two APIs.
async fn exchange(world: &WorldHandle, line: &Line, peer: Peer, endpoint: Endpoint, asked: Asked) -> Response {
    let received = world.receive(entry(peer, endpoint, &asked), &asked);
    match (received.fault, received.reply) {
        (Some(Fault::Reset), _) => {
            line.reset();
            never(line).await
        }
        (Some(Fault::LostAnswer), _) => {
            line.cut();
            never(line).await
        }
        (Some(Fault::Delay(pause)), _) => {
            // A task of its own: a client that gives up does not take its request back.
            let (world, number) = (world.clone(), received.number);
            let late = tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                world.handle_late(number, peer, &asked)
            });
            match late.await {
                Ok(reply) => plain(reply),
                Err(_) => never(line).await,
            }
        }
        (Some(Fault::LateStatus(_, pause)), Some(reply)) => {
            tokio::time::sleep(pause).await;
            plain(reply)
        }
        (Some(Fault::CutShort), Some(reply)) => cut_short(reply),
        (Some(Fault::SlowBody), Some(reply)) => slowly(reply),
        (_, Some(reply)) => plain(reply),
        (_, None) => never(line).await,
    }
}

fn entry(peer: Peer, endpoint: Endpoint, asked: &Asked) -> RequestLog {
    RequestLog {
        at: Timestamp::now(),
        peer,
        method: asked.method.clone(),
        path: asked.path.clone(),
        query: asked.query.clone(),
        endpoint,
        status: None,
        handled: None,
        fault: None,
        body: asked.json(),
        authorization: asked.authorization(),
        org_id: asked.header("x-org-id").map(str::to_owned),
    }
}

/// Waits until the connection is gone: what is returned then reaches nobody.
async fn never(line: &Line) -> Response {
    line.gone().await;
    Response::new(Body::empty())
}

fn plain(reply: Reply) -> Response {
    let body = Body::from(reply.body.clone());
    response(&reply, body)
}

/// Half of the body under the `Content-Length` of all of it, then the end of the connection.
fn cut_short(reply: Reply) -> Response {
    let length = reply.body.len();
    let half = Bytes::copy_from_slice(reply.body.get(..length / 2).unwrap_or_default());
    let reply = reply.with_header("content-length", length.max(1).to_string());
    let parts = stream::unfold(Some(half), |half| async move {
        match half {
            Some(half) => Some((Ok(half), None)),
            None => {
                // Lets the first half out before the error tears the connection down.
                tokio::task::yield_now().await;
                let error = std::io::Error::other("cut short by a fault rule");
                Some((Err(error), None))
            }
        }
    });
    response(&reply, Body::from_stream(parts))
}

/// The body in pieces, with pauses, under the `Content-Length` of all of it.
fn slowly(reply: Reply) -> Response {
    let whole = Bytes::from(reply.body.clone());
    let reply = reply.with_header("content-length", whole.len().to_string());
    let parts = stream::unfold(whole, |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let piece = rest.split_to(rest.len().min(16));
        Some((Ok::<_, Infallible>(piece), rest))
    });
    response(&reply, Body::from_stream(parts))
}

fn response(reply: &Reply, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &reply.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}
