//! The control API, the ready configuration, and where the sandbox listens.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{Guest, read};
use crate::sandbox::{Endpoint, Options, Peer, Sandbox};

#[tokio::test]
async fn people_come_and_go_on_request() {
    let guest = Guest::with_people(10).await;
    let url = guest.sandbox.control_url();
    let post = async |what: &str, body: Value| read(guest.client.post(format!("{url}/{what}")).json(&body)).await;
    let get = async |what: &str| read(guest.client.get(format!("{url}/{what}"))).await.1;
    let (status, arrived) = post("arrive", json!({"count": 3})).await;
    assert_eq!((status, arrived["arrived"].as_array().unwrap().len()), (200, 3));
    let email = &arrived["arrived"][0]["email"];
    assert_eq!(post("login", json!({"email": email})).await.0, 200);
    assert_eq!(post("leave", json!({"email": email})).await.0, 200);
    assert_eq!(post("leave", json!({"email": email})).await.0, 400, "gone already");
    assert_eq!(post("leave", json!({"count": 2})).await.0, 200);
    assert_eq!(get("world").await["people"], 10);
    assert_eq!(get("people").await["people"].as_array().unwrap().len(), 10);
    assert_eq!(post("tick", json!({"count": 5})).await.0, 200);
    assert_eq!(post("arrive", json!({"count": -1})).await.0, 400);
}

#[tokio::test]
async fn faults_are_ordered_and_requests_counted() {
    let guest = Guest::with_people(1).await;
    let url = guest.sandbox.control_url();
    let rule = |text: &str| guest.client.post(format!("{url}/faults")).json(&json!({"rule": text}));
    assert_eq!(read(rule("500:users")).await.1, json!({"faults": 1}));
    assert_eq!(guest.users(&[]).await.0, 500);
    assert_eq!(read(guest.client.delete(format!("{url}/faults"))).await.0, 200);
    assert_eq!(guest.users(&[]).await.0, 200);
    let (status, answer) = read(rule("boom")).await;
    assert_eq!(status, 400);
    assert!(answer["message"].as_str().unwrap().contains("lost-answer"));

    let (_, counts) = read(guest.client.get(format!("{url}/requests"))).await;
    assert_eq!(
        counts["requests"],
        json!([{"method": "GET", "endpoint": "users", "count": 2}])
    );
}

#[tokio::test]
async fn every_command_of_the_help_page_works_as_it_stands_there() {
    let guest = Guest::with_people(60).await;
    let url = guest.sandbox.control_url();
    let help = guest.client.get(&url).send().await.unwrap().text().await.unwrap();
    assert!(
        help.contains("account-create") && help.contains("lost-answer"),
        "{help}"
    );
    let mut done = 0;
    for line in help.lines().filter_map(|line| line.trim().strip_prefix("curl ")) {
        let (before, rest) = line.split_once("http://").unwrap();
        let address = format!("http://{}", rest.split_whitespace().next().unwrap());
        let email = &guest.world().people()[0].email;
        let request = match before.trim() {
            "" => guest.client.get(&address),
            "-X POST" => guest.client.post(&address),
            "-X DELETE" => guest.client.delete(&address),
            json => {
                let body = json
                    .strip_prefix("--json '")
                    .and_then(|body| body.strip_suffix('\''))
                    .unwrap();
                let body: Value = serde_json::from_str(&body.replace("EMAIL", email)).unwrap();
                guest.client.post(&address).json(&body)
            }
        };
        let (status, answer) = read(request).await;
        assert_eq!(status, 200, "{line}: {answer}");
        // Each does what it says.
        let about = |what: &str| line.contains(&format!("/sandbox/{what} "));
        if about("revoke") && line.contains("\"torq\"") {
            assert_eq!(guest.users(&[]).await.0, 401);
        } else if about("restore") && line.contains("\"torq\"") {
            guest.world().forget_tokens(Peer::Torq);
        } else if about("arrive") || about("leave") {
            let count = line
                .split_once("\"count\": ")
                .and_then(|(_, rest)| rest.split('}').next());
            let count: usize = count.map_or(1, |count| count.parse().unwrap());
            let who = answer.get("arrived").or(answer.get("left")).unwrap();
            assert_eq!(who.as_array().unwrap().len(), count, "{line}");
        } else if about("faults") && line.contains("no more") {
            assert_eq!(answer["faults"], 0);
        }
        done += 1;
    }
    assert_eq!(done, 19, "{help}");
    for (what, body) in [("revoke", json!({})), ("scope", json!({"granted": 1}))] {
        assert_eq!(
            read(guest.client.post(format!("{url}/{what}")).json(&body)).await.0,
            400
        );
    }
}

#[tokio::test]
async fn a_page_elsewhere_cannot_control_it() {
    let guest = Guest::with_people(1).await;
    let url = format!("{}/people", guest.sandbox.control_url());
    let rebound = guest.client.get(&url).header("host", "evil.example");
    assert_eq!(read(rebound).await.0, 403);
    let foreign = guest.client.get(&url).header("origin", "https://evil.example");
    assert_eq!(read(foreign).await.0, 403);
    assert_eq!(read(guest.client.get(&url)).await.0, 200);
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let error = Sandbox::start(Options {
        listen: ([0, 0, 0, 0], 0).into(),
        ..Options::default()
    })
    .await
    .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn dropping_it_ends_it() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let address = sandbox.addr();
    let mut open = TcpStream::connect(address).await.unwrap();
    drop(sandbox);
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        // An open connection ends, whether orderly or not, and no new one is accepted.
        let _ = open.read(&mut [0; 1]).await;
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    assert!(ended.await.is_ok());
}

#[tokio::test]
async fn the_ready_configuration_points_at_it() {
    let guest = Guest::new(Options {
        org_id: Some("5f0e6a1b2c3d4e5f6a7b8c9d".to_owned()),
        ..Options::default()
    })
    .await;
    let text = guest.sandbox.config_toml("/tmp/a \"quoted\" folder", "1m");
    let parsed: Value = config::Config::builder()
        .add_source(config::File::from_str(&text, config::FileFormat::Toml))
        .build()
        .unwrap()
        .try_deserialize()
        .unwrap();
    assert_eq!(parsed["state_dir"], "/tmp/a \"quoted\" folder");
    let demo = &parsed["connectors"]["demo"];
    assert_eq!(demo["poll_interval"], "1m");
    assert_eq!(demo["torq"]["api_url"], guest.sandbox.torq_api_url());
    assert_eq!(demo["torq"]["client_secret"], "sandbox-torq-secret");
    assert_eq!(demo["jumpcloud"]["console_url"], guest.sandbox.console_url());
    assert_eq!(demo["jumpcloud"]["token_url"], guest.sandbox.jumpcloud_token_url());
    assert_eq!(demo["jumpcloud"]["org_id"], "5f0e6a1b2c3d4e5f6a7b8c9d");
}

#[tokio::test]
async fn the_world_lives_by_itself() {
    let guest = Guest::with_people(20).await;
    let world = guest.world();
    let before = world.people();
    tokio::select! {
        () = guest.sandbox.live(Duration::from_millis(1)) => {}
        () = async {
            while world.people() == before {
                tokio::task::yield_now().await;
            }
        } => {}
        () = tokio::time::sleep(Duration::from_secs(10)) => panic!("nothing happened"),
    }
    assert_eq!(world.count(Endpoint::TorqUsers), 0);
}
