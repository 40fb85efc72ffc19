//! A person is told, by the real binary: webhooks and programs, what arrives there and what is left out, once and not twice,
//! whatever becomes of the process and of the endpoint.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod schema;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Sandbox};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use crate::binary::{Connector, Place, eventually, sandbox};
use schema::assert_fits;

/// Whoever is told: an endpoint that answers as it is told to.
struct Ear {
    server: MockServer,
    answer: Arc<AtomicU16>,
}

impl Ear {
    async fn new() -> Self {
        let server = MockServer::start().await;
        let answer = Arc::new(AtomicU16::new(204));
        let says = Arc::clone(&answer);
        let respond = move |_: &Request| {
            let status = says.load(Ordering::SeqCst);
            ResponseTemplate::new(status)
                .insert_header("location", "http://127.0.0.1:1/elsewhere")
                .set_body_string("heard by t0ken-in-the-path")
        };
        Mock::given(wiremock::matchers::any())
            .respond_with(respond)
            .mount(&server)
            .await;
        Self { server, answer }
    }

    fn url(&self) -> String {
        format!("{}/hook/t0ken-in-the-path?key=qu3ry", self.server.uri())
    }

    fn answers(&self, status: u16) {
        self.answer.store(status, Ordering::SeqCst);
    }

    async fn requests(&self) -> Vec<Request> {
        self.server.received_requests().await.unwrap()
    }

    /// What it heard so far.
    async fn heard(&self) -> Vec<Value> {
        let requests = self.requests().await;
        let messages: Vec<Value> = requests
            .iter()
            .map(|request| serde_json::from_slice(&request.body).unwrap())
            .collect();
        messages.iter().for_each(assert_fits);
        messages
    }

    /// The events it heard of, each with how often.
    async fn events(&self) -> Vec<String> {
        let heard = self.heard().await;
        heard
            .iter()
            .map(|one| one["event"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn hears(&self, event: &str) -> Value {
        eventually(&format!("{event} is told"), async || {
            self.heard().await.into_iter().find(|one| one["event"] == event)
        })
        .await
    }
}

fn telling(sandbox: &Sandbox, ear: &Ear) -> Connector {
    Connector::new("main", sandbox)
        .with("poll_interval", "1s")
        .with("notify.url", ear.url())
        .with("notify.secret", "s1gning")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_and_its_end_are_told_once_across_restarts() {
    let (sandbox, ear) = (sandbox(7).await, Ear::new().await);
    let place = Place::new(&[telling(&sandbox, &ear)]);
    let mut daemon = place.daemon().await;
    let first = ear.hears("first_collection").await;
    assert_eq!(first["title"], "main: the first collection is finished: 7 users");
    assert_eq!(first["status"]["users"], 7);
    sandbox.world().revoke_torq_key();
    let told = ear.hears("reconnect_required").await;
    assert_eq!(
        (&told["severity"], &told["connector"]),
        (&"critical".into(), &"main".into())
    );
    assert_eq!(told["status"]["state"], "reconnect_required");
    assert!(told["reason"].as_str().unwrap().contains("Torq"), "{told}");

    for _ in 0..2 {
        daemon.signal("TERM");
        assert_eq!(daemon.ended().await.0, 0);
        daemon = place.daemon().await;
        daemon.state("main", "reconnect_required").await;
    }
    sandbox.world().restore_torq_key();
    place.run(&["reconnect", "main"]).await.exits(0);
    let back = ear.hears("back_to_normal").await;
    assert_eq!(back["ended"], serde_json::json!(["reconnect_required"]));
    assert_eq!(
        ear.events().await,
        ["first_collection", "reconnect_required", "back_to_normal"]
    );
    let (_, metrics) = daemon.get("/metrics").await;
    let counted = "torq_connector_notifications_total{connector=\"main\",outcome=\"delivered\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    let said = daemon.said();
    for secret in ["s1gning", "t0ken-in-the-path", "qu3ry"] {
        assert!(!said.contains(secret), "{said}");
        let files = place.files();
        let holds = |bytes: &Vec<u8>| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!files.values().any(holds), "{secret} is in the state");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_says_who_it_is_from_and_names_nobody() {
    let (sandbox, ear) = (sandbox(5).await, Ear::new().await);
    let world = sandbox.world();
    let refused = FaultRule::always(Endpoint::AccountCreate, Fault::status(422));
    world.fault(refused);
    let place = Place::new(&[telling(&sandbox, &ear)]);
    // A command's run tells, too.
    place.run(&["sync"]).await.exits(75);
    let events = ear.events().await;
    assert!(events.contains(&"parked".to_owned()), "{events:?}");
    let requests = ear.requests().await;
    for request in &requests {
        let header = |name: &str| request.headers.get(name).unwrap().to_str().unwrap().to_owned();
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(header("webhook-id"), body["id"].as_str().unwrap());
        assert_eq!(header("content-type"), "application/json");
        let signed = format!(
            "{}.{}.{}",
            header("webhook-id"),
            header("webhook-timestamp"),
            String::from_utf8_lossy(&request.body)
        );
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s1gning");
        let tag = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            ring::hmac::sign(&key, signed.as_bytes()),
        );
        assert_eq!(header("webhook-signature"), format!("v1,{tag}"));
        let text = String::from_utf8_lossy(&request.body).to_lowercase();
        for person in world.people() {
            assert!(!text.contains(&person.email.to_lowercase()) && !text.contains(&person.id));
        }
    }
    place.run(&["sync"]).await.exits(75);
    assert_eq!(ear.requests().await.len(), requests.len(), "nothing is told twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_tried_again_and_stops_nothing() {
    let (sandbox, ear) = (sandbox(4).await, Ear::new().await);
    ear.answers(503);
    let place = Place::new(&[telling(&sandbox, &ear)]);
    let mut daemon = place.daemon().await;
    ear.hears("first_collection").await;
    let before = daemon.status("main", |status| !status["last_success"].is_null()).await;
    daemon
        .status("main", |status| status["last_success"] != before["last_success"])
        .await;
    eventually("it is counted", async || {
        let (_, metrics) = daemon.get("/metrics").await;
        let counted = |line: &str| line.starts_with("torq_connector_notifications_total") && line.contains("failed");
        let line = metrics.lines().find(|line| counted(line))?.to_owned();
        (!line.ends_with(" 0")).then_some(())
    })
    .await;
    daemon.signal("TERM");
    let (code, took) = daemon.ended().await;
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(8), "{took:?}");
    let said = daemon.said();
    assert_eq!(said.matches("nobody could be told").count(), 1, "{said}");
    assert!(said.contains("503"), "{said}");

    let attempts = ear.heard().await;
    ear.answers(200);
    let daemon = place.daemon().await;
    let again = eventually("it is sent after the restart", async || {
        let heard = ear.heard().await;
        (heard.len() > attempts.len()).then(|| heard.last().unwrap().clone())
    })
    .await;
    assert_eq!(again, attempts[0], "the same message, with the same id");
    eventually("it has arrived", async || {
        daemon.said().contains("a person was told").then_some(())
    })
    .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_told_whatever_its_reason() {
    let (sandbox, ear) = (sandbox(3).await, Ear::new().await);
    // The last good run had something else to say.
    let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let tomorrow = tomorrow.to_string()[..10].to_owned();
    // Long enough for the failure to be noted first, also on a busy machine.
    let connector = telling(&sandbox, &ear).with("poll_interval", "3s");
    let place = Place::new(&[connector.with("torq.key_expires", tomorrow)]);
    let daemon = place.daemon().await;
    ear.hears("first_collection").await;
    let rule = FaultRule::always(Endpoint::TorqUsers, Fault::status(503));
    sandbox.world().fault(rule);
    let told = ear.hears("silent").await;
    assert!(
        told["title"].as_str().unwrap().starts_with("main: no success for"),
        "{told}"
    );
    assert!(told["reason"].as_str().unwrap().contains("503"), "{told}");
    assert!(!told["action"].as_str().unwrap().contains("key"), "{told}");
    assert_eq!(told["status"]["users"], 3, "{told}");
    sandbox.world().clear_faults();
    let back = ear.hears("back_to_normal").await;
    assert_eq!(back["ended"], serde_json::json!(["silent"]));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_and_a_changed_section_is_gone_by_at_once() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[Connector::new("main", &sandbox).with("poll_interval", "1s")]);
    let heard = place.path("heard");
    let program = place.path("hear");
    fs::write(&program, format!("#!/bin/sh\ncat >> {}\n", heard.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = place.daemon().await;
    daemon.state("main", "connected").await;
    let base = fs::read_to_string(place.path("config.toml")).unwrap();
    let section = format!("\n[connectors.main.notify]\ncommand = [\"{}\"]\n", program.display());
    place.write("config.toml", &format!("{base}{section}"));
    daemon.signal("HUP");
    let message: Value = eventually("the program is told", async || {
        let text = fs::read_to_string(&heard).ok()?;
        serde_json::from_str(text.lines().next()?).ok()
    })
    .await;
    assert_fits(&message);
    assert_eq!(message["event"], "first_collection");
    let (_, page) = daemon.get("/connectors/main").await;
    assert!(
        page.contains("a program, of everything that concerns a person"),
        "{page}"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trying_it_out_says_what_came_back() {
    let (sandbox, ear) = (sandbox(1).await, Ear::new().await);
    let place = Place::new(&[telling(&sandbox, &ear)]);
    for (status, code, words) in [
        (204, 0, "127.0.0.1 answered 204 No Content"),
        (
            403,
            77,
            "NOT told: 127.0.0.1 answered 403 Forbidden: heard by [redacted]",
        ),
        (302, 77, "a redirect, which is not followed"),
        (500, 69, "NOT told: 127.0.0.1 answered 500"),
        (429, 69, "answered 429"),
    ] {
        ear.answers(status);
        let ran = place.run(&["notify", "main", "--test"]).await.exits(code);
        let ran = ran.tells(&["main: webhook at 127.0.0.1: ", words]);
        assert!(
            !ran.err.contains("t0ken") && !ran.err.contains("s1gning"),
            "{}",
            ran.err
        );
    }
    assert_eq!(ear.events().await, ["test"; 5]);
    assert!(place.files().is_empty(), "nothing is noted of it");

    let nobody = telling(&sandbox, &ear).with("notify.url", "http://127.0.0.1:1/hook");
    place.configure("", &[nobody]);
    let ran = place.run(&["notify", "--test"]).await.exits(69);
    ran.tells(&["cannot connect"]);
    place.configure("", &[Connector::new("main", &sandbox)]);
    let ran = place.run(&["notify", "main", "--test"]).await.exits(78);
    ran.tells(&["nobody is to be told", "[connectors.main.notify]"]);
    place.run(&["notify", "main"]).await.exits(64);
}

#[tokio::test(flavor = "multi_thread")]
async fn slack_gets_its_text() {
    let (sandbox, ear) = (sandbox(1).await, Ear::new().await);
    let place = Place::new(&[telling(&sandbox, &ear).with("notify.format", "slack")]);
    place.run(&["notify", "main", "--test"]).await.exits(0);
    let requests = ear.requests().await;
    let body: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "text": "*main: this is a test*\nsomebody tries out whether messages arrive\nWhat to do: nothing"
        })
    );
}
