use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;
use wiremock::matchers::{body_string, header, method, path};
use wiremock::{Mock, MockServer, Request as Seen, ResponseTemplate};

use super::*;
use crate::http::Patience;

fn lane(peer: Peer) -> Lane {
    let network = crate::config::Network {
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
    };
    let base: Url = "http://127.0.0.1:1".parse().unwrap();
    let client = crate::http::Client::new(&network, &[&base]).unwrap();
    Lane::new(
        "main",
        (peer, &base),
        client,
        network.timeout,
        1000.0,
        Patience::COMMAND,
        CancellationToken::new(),
    )
}

fn url(server: &MockServer, path: &str) -> Url {
    format!("{}{path}", server.uri()).parse().unwrap()
}

fn torq(server: &MockServer) -> Session {
    let lane = lane(Peer::Torq);
    let tokens = TokenManager::torq(lane.clone(), url(server, "/token"), "id", "s3cret".to_owned().into());
    Session::torq(lane, url(server, "/api"), tokens)
}

fn jumpcloud(server: &MockServer, org_id: Option<&str>) -> Session {
    let lane = lane(Peer::JumpCloud);
    let tokens = TokenManager::jumpcloud(lane.clone(), url(server, "/token"), "id", "s3cret".to_owned().into());
    Session::jumpcloud(lane, url(server, "/api"), Auth::Token(Box::new(tokens)), org_id)
}

fn grant(token: &str) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .set_body_json(serde_json::json!({"access_token": token, "expires_in": 3600, "token_type": "bearer"}))
}

fn get(session: &Session) -> Request {
    Request {
        operation: "list users",
        method: Method::GET,
        url: session.url(["users"]),
        query: Vec::new(),
        body: Body::Empty,
    }
}

/// A token endpoint that hands out `token-1`, `token-2`, …
async fn counting_endpoint(server: &MockServer) {
    let count = AtomicUsize::new(0);
    Mock::given(method("POST"))
        .and(path("/token"))
        .respond_with(move |_: &Seen| grant(&format!("token-{}", count.fetch_add(1, Ordering::SeqCst) + 1)))
        .mount(server)
        .await;
}

async fn tokens_asked(server: &MockServer) -> usize {
    let requests = server.received_requests().await.unwrap();
    requests.iter().filter(|r| r.url.path() == "/token").count()
}

#[tokio::test]
async fn the_exchange_is_basic_form_and_bearer() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/token"))
        .and(header("authorization", "Basic aWQ6czNjcmV0"))
        .and(header("content-type", "application/x-www-form-urlencoded"))
        .and(body_string("grant_type=client_credentials"))
        .respond_with(grant("abc"))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path("/api/users"))
        .and(header("authorization", "Bearer abc"))
        .and(header("user-agent", crate::http::USER_AGENT))
        .respond_with(ResponseTemplate::new(200).set_body_string("{}"))
        .expect(2)
        .mount(&server)
        .await;
    let session = torq(&server);
    session.attempt(&get(&session)).await.unwrap();
    session.attempt(&get(&session)).await.unwrap();
}

#[tokio::test]
async fn a_request_that_somebody_thinks_better_of_is_not_sent_a_second_time() {
    /// Open once.
    struct Once(u32);
    impl Gate for Once {
        async fn is_open(&mut self) -> bool {
            self.0 += 1;
            self.0 == 1
        }
    }
    let server = MockServer::start().await;
    counting_endpoint(&server).await;
    // The token is no good: with a new one it would be sent again.
    Mock::given(path("/api/users"))
        .respond_with(ResponseTemplate::new(401))
        .expect(1)
        .mount(&server)
        .await;
    let session = torq(&server);
    let mut gate = Once(0);
    let failure = session.attempt_if(&get(&session), &mut gate).await.unwrap_err();
    assert_eq!((failure.kind, gate.0), (FailureKind::Stopped, 2));
    assert_eq!(tokens_asked(&server).await, 2);
}

#[tokio::test]
async fn a_jumpcloud_service_account_asks_for_the_api_scope_and_names_its_organisation() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(body_string("grant_type=client_credentials&scope=api"))
        .respond_with(grant("abc"))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(header("x-org-id", "org-7"))
        .and(header("authorization", "Bearer abc"))
        .respond_with(ResponseTemplate::new(200))
        .expect(1)
        .mount(&server)
        .await;
    let session = jumpcloud(&server, Some("org-7"));
    session.attempt(&get(&session)).await.unwrap();
}

#[tokio::test]
async fn many_askers_make_one_refresh_and_share_its_failure() {
    let server = MockServer::start().await;
    Mock::given(path("/token"))
        .respond_with(ResponseTemplate::new(401).set_body_json(serde_json::json!({"error": "invalid_client"})))
        .mount(&server)
        .await;
    let session = torq(&server);
    let request = get(&session);
    let asked = futures_util::future::join_all((0..100).map(|_| session.attempt(&request))).await;
    assert!(
        asked
            .iter()
            .all(|r| matches!(r, Err(f) if f.kind == FailureKind::Credentials))
    );
    assert_eq!(tokens_asked(&server).await, 1);

    let server = MockServer::start().await;
    counting_endpoint(&server).await;
    Mock::given(path("/api/users"))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    let session = torq(&server);
    let request = get(&session);
    let asked = futures_util::future::join_all((0..100).map(|_| session.attempt(&request))).await;
    assert!(asked.iter().all(Result::is_ok));
    assert_eq!(tokens_asked(&server).await, 1);
}

#[tokio::test]
async fn a_302_and_a_401_are_answered_with_one_new_token_however_many_were_refused() {
    for status in [302, 401] {
        let server = MockServer::start().await;
        counting_endpoint(&server).await;
        Mock::given(path("/api/users"))
            .and(header("authorization", "Bearer token-1"))
            .respond_with(ResponseTemplate::new(status).insert_header("location", "https://login.example/"))
            .mount(&server)
            .await;
        Mock::given(path("/api/users"))
            .and(header("authorization", "Bearer token-2"))
            .respond_with(ResponseTemplate::new(200))
            .mount(&server)
            .await;
        let session = torq(&server);
        let request = get(&session);
        let asked = futures_util::future::join_all((0..20).map(|_| session.attempt(&request))).await;
        assert!(asked.iter().all(Result::is_ok), "{status}");
        assert_eq!(tokens_asked(&server).await, 2, "{status}");
    }
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_needs_a_person() {
    let server = MockServer::start().await;
    counting_endpoint(&server).await;
    Mock::given(path("/api/users"))
        .respond_with(ResponseTemplate::new(401).set_body_json(serde_json::json!({"message": "token token-2 is bad"})))
        .mount(&server)
        .await;
    let session = torq(&server);
    let failure = session.attempt(&get(&session)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Credentials);
    assert!(failure.to_string().contains("revoked or expired"), "{failure}");
    assert!(
        !format!("{failure} {failure:?}").contains("token-2"),
        "a peer's words may repeat the token"
    );
    assert_eq!(tokens_asked(&server).await, 2);
}

#[tokio::test]
async fn a_peer_that_refuses_every_token_is_asked_twice_and_no_more() {
    for peer in [Peer::Torq, Peer::JumpCloud] {
        let server = MockServer::start().await;
        counting_endpoint(&server).await;
        // At some time it accepts one, so that whoever goes on asking does not do so for ever, but is noticed.
        Mock::given(path("/api/users"))
            .respond_with(ResponseTemplate::new(401))
            .up_to_n_times(50)
            .mount(&server)
            .await;
        Mock::given(path("/api/users"))
            .respond_with(ResponseTemplate::new(200))
            .mount(&server)
            .await;
        let session = match peer {
            Peer::Torq => torq(&server),
            Peer::JumpCloud => jumpcloud(&server, None),
        };
        let request = get(&session);
        let failure = session.ask(&request, |_| Ok(())).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Credentials, "{peer}");
        let requests = server.received_requests().await.unwrap().len();
        assert_eq!(
            (tokens_asked(&server).await, requests),
            (2, 4),
            "{peer}: a token and a request, twice"
        );
    }
}

#[tokio::test]
async fn a_redirect_or_a_page_of_html_for_a_fresh_token_is_somebody_in_between() {
    let page = "<html>sign in to the network</html>";
    for answer in [
        ResponseTemplate::new(302).insert_header("location", "https://login.example/"),
        ResponseTemplate::new(401).set_body_string(page),
        ResponseTemplate::new(403).set_body_string(page),
        ResponseTemplate::new(402).set_body_string(page),
    ] {
        let server = MockServer::start().await;
        counting_endpoint(&server).await;
        Mock::given(path("/api/users"))
            .respond_with(answer)
            .mount(&server)
            .await;
        let session = torq(&server);
        let failure = session.attempt(&get(&session)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unintelligible, "{failure}");
        assert!(tokens_asked(&server).await <= 2);
    }
}

#[tokio::test]
async fn a_short_lived_token_is_renewed_ahead_of_its_end() {
    let server = MockServer::start().await;
    let count = AtomicUsize::new(0);
    Mock::given(path("/token"))
        .respond_with(move |_: &Seen| {
            let n = count.fetch_add(1, Ordering::SeqCst) + 1;
            // A hundredth of a second: half of it is over before the next request goes out at 40 a second.
            ResponseTemplate::new(200)
                .set_body_json(serde_json::json!({"access_token": format!("t{n}"), "expires_in": 0.01}))
        })
        .mount(&server)
        .await;
    let session = torq(&server);
    let Auth::Token(tokens) = &session.auth else {
        unreachable!()
    };
    let first = tokens.token().await.unwrap();
    while Instant::now() < first.renew_at {
        tokio::task::yield_now().await;
    }
    let second = tokens.token().await.unwrap();
    assert_eq!((first.generation, second.generation), (1, 2));
}

#[tokio::test]
async fn refused_and_unreachable_are_never_confused_at_the_token_endpoint() {
    let error = |error: &str| serde_json::json!({ "error": error });
    let html = "<html>sign in to the network</html>";
    let json = |status, body| ResponseTemplate::new(status).set_body_json(body);
    let cases = [
        (json(400, error("invalid_client")), FailureKind::Credentials),
        (json(401, error("invalid_client")), FailureKind::Credentials),
        (ResponseTemplate::new(401), FailureKind::Credentials),
        (
            json(400, error("temporarily_unavailable")),
            FailureKind::Later { after: None },
        ),
        (ResponseTemplate::new(503), FailureKind::Later { after: None }),
        (
            ResponseTemplate::new(401).set_body_string(html),
            FailureKind::Unintelligible,
        ),
        (
            ResponseTemplate::new(200).set_body_string(html),
            FailureKind::Unintelligible,
        ),
        (
            ResponseTemplate::new(403).set_body_string(html),
            FailureKind::Unintelligible,
        ),
        (
            ResponseTemplate::new(511).set_body_string(html),
            FailureKind::Later { after: None },
        ),
        (ResponseTemplate::new(302), FailureKind::Unintelligible),
        (ResponseTemplate::new(404), FailureKind::Unreachable),
        (ResponseTemplate::new(407), FailureKind::Unreachable),
        // JSON without the words of the RFC is the peer's all the same; anything else need not be.
        (
            json(400, serde_json::json!({"code": 16, "message": "bad client"})),
            FailureKind::Credentials,
        ),
        (json(403, error("access_denied")), FailureKind::Credentials),
        (ResponseTemplate::new(400), FailureKind::Unintelligible),
        (
            ResponseTemplate::new(403).set_body_string("Blocked"),
            FailureKind::Unintelligible,
        ),
        (
            json(200, serde_json::json!({"access_token": "x".repeat(20_000)})),
            FailureKind::Unintelligible,
        ),
        (
            json(200, serde_json::json!({"access_token": ""})),
            FailureKind::Unintelligible,
        ),
        (
            json(200, serde_json::json!({"access_token": "x", "token_type": "mac"})),
            FailureKind::Unintelligible,
        ),
    ];
    for (number, (answer, expected)) in cases.into_iter().enumerate() {
        let server = MockServer::start().await;
        Mock::given(path("/token")).respond_with(answer).mount(&server).await;
        let session = torq(&server);
        let failure = session.attempt(&get(&session)).await.unwrap_err();
        assert_eq!(failure.kind, expected, "case {number}: {failure}");
    }
}

#[tokio::test]
async fn no_secret_and_no_token_in_debug_or_errors() {
    let server = MockServer::start().await;
    Mock::given(path("/token"))
        .respond_with(ResponseTemplate::new(200).set_body_string(r#"{"access_token": 5, "x": "tok-abcdef"}"#))
        .mount(&server)
        .await;
    let session = torq(&server);
    let failure = session.attempt(&get(&session)).await.unwrap_err();
    let shown = format!("{session:?} {failure:?} {failure}");
    for secret in ["s3cret", "tok-abcdef", "czNjcmV0"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let server = MockServer::start().await;
    counting_endpoint(&server).await;
    let session = torq(&server);
    let Auth::Token(tokens) = &session.auth else {
        unreachable!()
    };
    let token = tokens.token().await.unwrap();
    assert!(!format!("{token:?} {:?}", session.bearer(&token)).contains("token-1"));
}

#[test]
fn lifetimes_and_margins() {
    let of = |text: &str| lifetime(&serde_json::from_str(text).unwrap());
    assert_eq!(of("3599"), Duration::from_secs(3599));
    assert_eq!(of("\"3600\""), Duration::from_secs(3600));
    for silly in ["0", "-1", "null", "\"soon\"", "1e300"] {
        assert_eq!(of(silly), UNSTATED_LIFETIME, "{silly}");
    }
    assert_eq!(lifetime(&Field::Absent), UNSTATED_LIFETIME);
    assert_eq!(margin(Duration::from_secs(3600)), Duration::from_secs(300));
    assert_eq!(margin(Duration::from_secs(60)), Duration::from_secs(6));
    assert_eq!(margin(Duration::from_secs(4)), Duration::from_secs(2));
}
