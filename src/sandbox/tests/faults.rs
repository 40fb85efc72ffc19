//! Faults: what reaches the client, and what took effect.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Guest, client, read};
use crate::sandbox::{Endpoint, Fault, FaultRule, Options, Sandbox};

async fn guest_with(endpoint: Endpoint, fault: Fault) -> Guest {
    let guest = Guest::new(Options {
        application_exists: Some(true),
        ..Options::default()
    })
    .await;
    guest.world().fault(FaultRule::once(endpoint, fault));
    guest
}

/// Sends a create over a plain connection and returns every byte that comes back.
async fn raw_create(guest: &Guest) -> Vec<u8> {
    let body = r#"{"email":"a@example.com"}"#;
    let request = format!(
        "POST /jumpcloud/api/v2/saas-management{} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        guest.accounts_path(),
        guest.sandbox.addr(),
        guest.jumpcloud_token,
        body.len()
    );
    let mut stream = TcpStream::connect(guest.sandbox.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an error here, and fine: what matters is what came before it.
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
        .await
        .expect("the connection was left open");
    answer
}

#[tokio::test]
async fn a_reset_has_neither_answer_nor_effect() {
    let guest = guest_with(Endpoint::AccountCreate, Fault::Reset).await;
    assert_eq!(raw_create(&guest).await, b"");
    assert!(guest.world().accounts().is_empty());
    let entry = &guest.world().writes()[0];
    assert_eq!((entry.status, entry.handled, entry.fault), (None, None, Some("reset")));
    assert_eq!(guest.create(json!({"email": "a@example.com"})).await.status(), 201);
}

#[tokio::test]
async fn a_lost_answer_has_an_effect() {
    let guest = guest_with(Endpoint::AccountCreate, Fault::LostAnswer).await;
    assert_eq!(raw_create(&guest).await, b"");
    assert_eq!(guest.world().accounts().len(), 1);
    let entry = &guest.world().writes()[0];
    assert_eq!((entry.status, entry.handled), (None, Some(201)));
    assert_eq!(guest.create(json!({"email": "a@example.com"})).await.status(), 409);
}

#[tokio::test]
async fn a_client_sees_an_error_and_no_status() {
    for fault in [Fault::Reset, Fault::LostAnswer] {
        let guest = guest_with(Endpoint::TorqUsers, fault).await;
        // The first one warms the connection up: it is cut while it is kept alive.
        assert_eq!(read(guest.torq("/roles")).await.0, 200);
        let error = guest.torq("/users").send().await.unwrap_err();
        assert_eq!(error.status(), None);
        assert_eq!(
            guest.world().count(Endpoint::TorqUsers),
            1,
            "no client repeats it unasked"
        );
        assert_eq!(read(guest.torq("/users")).await.0, 200);
    }
}

#[tokio::test]
async fn an_answer_cut_short_promises_more_than_it_holds() {
    let guest = guest_with(Endpoint::AccountCreate, Fault::CutShort).await;
    let answer = String::from_utf8(raw_create(&guest).await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap() / 2);
    assert_eq!(guest.world().accounts().len(), 1);

    let guest = guest_with(Endpoint::TorqUsers, Fault::CutShort).await;
    let answer = guest.torq("/users").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err());
}

#[tokio::test]
async fn a_status_comes_with_its_pause_and_without_effect() {
    let fault = FaultRule::parse("503/7").unwrap().fault;
    let guest = guest_with(Endpoint::AccountCreate, fault).await;
    let answer = guest.create(json!({"email": "a@example.com"})).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "7");
    assert!(answer.json::<Value>().await.unwrap()["message"].is_string());
    assert!(guest.world().accounts().is_empty());

    let abuse = Fault::Status {
        status: 403,
        retry_after: None,
        body: r#"{"message": "suspected abuse"}"#.to_owned(),
    };
    guest.world().fault(FaultRule::once(Endpoint::AccountCreate, abuse));
    let answer = guest.create(json!({"email": "a@example.com"})).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.json::<Value>().await.unwrap()["message"], "suspected abuse");
}

#[tokio::test]
async fn bodies_can_be_of_no_use() {
    let guest = guest_with(Endpoint::TorqUsers, Fault::Html).await;
    let answer = guest.torq("/users").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(answer.status(), 200);

    guest
        .world()
        .fault(FaultRule::once(Endpoint::TorqUsers, Fault::NotUtf8));
    let bytes = guest.torq("/users").send().await.unwrap().bytes().await.unwrap();
    assert!(std::str::from_utf8(&bytes).is_err());
    assert!(bytes.starts_with(b"{"));

    guest
        .world()
        .fault(FaultRule::once(Endpoint::TorqUsers, Fault::WrongType));
    let (status, answer) = read(guest.torq("/users")).await;
    assert_eq!((status, answer["users"].is_string()), (200, true));
}

#[tokio::test]
async fn tokens_can_expire_in_the_middle() {
    let rule = FaultRule::once(Endpoint::TorqUsers, Fault::ExpireTokensFirst).after(1);
    let guest = Guest::with_people(5).await;
    guest.world().fault(rule);
    assert_eq!(guest.users(&[]).await.0, 200);
    assert_eq!(guest.users(&[]).await.0, 302);
}

#[tokio::test]
async fn a_delay_passes_and_takes_effect_though_the_client_gave_up() {
    let pause = Duration::from_millis(300);
    let guest = guest_with(Endpoint::AccountCreate, Fault::Delay(pause)).await;
    let begun = Instant::now();
    assert_eq!(guest.create(json!({"email": "a@example.com"})).await.status(), 201);
    assert!(begun.elapsed() >= pause);

    guest
        .world()
        .fault(FaultRule::once(Endpoint::AccountCreate, Fault::Delay(pause)));
    let hasty = guest
        .saas(Method::POST, &guest.accounts_path())
        .json(&json!({"email": "b@example.com"}))
        .timeout(Duration::from_millis(100));
    assert!(hasty.send().await.unwrap_err().is_timeout());
    let effect = guest.world();
    let landed = effect.until(|world| world.accounts().len() == 2);
    tokio::time::timeout(Duration::from_secs(10), landed).await.unwrap();
}

#[tokio::test]
async fn a_hanging_request_is_seen_and_ends_with_the_sandbox() {
    let guest = guest_with(Endpoint::TorqUsers, Fault::Hang).await;
    let world = guest.world();
    let request = tokio::spawn(guest.torq("/users").send());
    let seen = world.seen(Endpoint::TorqUsers, 1);
    tokio::time::timeout(Duration::from_secs(10), seen).await.unwrap();
    assert!(!request.is_finished());
    let begun = Instant::now();
    guest.sandbox.stop().await;
    assert!(request.await.unwrap().is_err());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_slow_body_arrives_in_the_end() {
    let guest = guest_with(Endpoint::Applications, Fault::SlowBody).await;
    guest.world().delete_application();
    let begun = Instant::now();
    let (status, answer) = read(guest.saas(Method::GET, "/applications?limit=1")).await;
    assert_eq!((status, answer["totalCount"].as_u64()), (200, Some(2)));
    assert!(begun.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn a_peer_can_be_away_and_come_back_with_its_world() {
    let guest = Guest::with_people(10).await;
    let (address, world) = (guest.sandbox.addr(), guest.world());
    let url = guest.sandbox.torq_api_url() + "/users";
    guest.sandbox.stop().await;
    let gone = client().get(&url).send().await.unwrap_err();
    assert!(gone.is_connect());
    let back = Sandbox::resume(address, world).await.unwrap();
    let (status, answer) = read(client().get(&url).bearer_auth(&guest.torq_token)).await;
    assert_eq!((status, answer["users"].as_array().unwrap().len()), (200, 3));
    drop(back);
}

#[tokio::test]
async fn an_effect_can_be_denied_and_a_redirect_has_none() {
    let guest = guest_with(Endpoint::AccountCreate, Fault::EffectThen(503)).await;
    assert_eq!(guest.create(json!({"email": "a@example.com"})).await.status(), 503);
    assert_eq!(guest.world().accounts().len(), 1);
    let entry = &guest.world().writes()[0];
    assert_eq!((entry.status, entry.handled), (Some(503), Some(201)));

    let elsewhere = Fault::Redirect("http://elsewhere.invalid/".to_owned());
    guest.world().fault(FaultRule::once(Endpoint::AccountCreate, elsewhere));
    let answer = guest.create(json!({"email": "b@example.com"})).await;
    assert_eq!(answer.status(), 307);
    assert_eq!(answer.headers()["location"], "http://elsewhere.invalid/");
    assert_eq!(guest.world().accounts().len(), 1);
}

#[tokio::test]
async fn something_can_happen_right_before_an_answer() {
    let guest = Guest::with_people(3).await;
    guest
        .world()
        .before(Endpoint::TorqUsers, 1, |world| drop(world.add_people(2)));
    let count = async || {
        let mut people = 0;
        for sso in ["true", "false"] {
            people += guest.listing(sso, "100").await.0.len();
        }
        people
    };
    // Two requests: it happens before the second.
    count().await;
    assert_eq!(guest.world().people().len(), 5);
    assert_eq!(count().await, 5);
}
