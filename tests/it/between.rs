//! Refused and unreachable are never confused: whatever stands between the connector and a peer, be it a proxy, a login page or the
//! wrong machine, nobody's credentials are called wrong for it, and polling goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::time::Duration;

use torq_connector::sandbox::Sandbox;

use crate::binary::{Connector, Place, eventually, eventually_within, finish, sandbox};
use crate::front::{Authority, Front, Mode};

/// Which way to which peer is intercepted.
#[derive(Clone, Copy, Debug)]
enum Road {
    TorqToken,
    TorqApi,
    JumpCloudToken,
    JumpCloudApi,
}

const ROADS: [Road; 4] = [Road::TorqToken, Road::TorqApi, Road::JumpCloudToken, Road::JumpCloudApi];

impl Road {
    /// A connector to the sandbox, but for this road, which leads through `to`.
    fn through(self, name: &str, sandbox: &Sandbox, to: &str) -> Connector {
        let (key, url) = match self {
            Road::TorqToken => ("torq.token_url", sandbox.torq_token_url()),
            Road::TorqApi => ("torq.api_url", sandbox.torq_api_url()),
            Road::JumpCloudToken => ("jumpcloud.token_url", sandbox.jumpcloud_token_url()),
            Road::JumpCloudApi => ("jumpcloud.console_url", sandbox.console_url()),
        };
        let there = format!("http://{}", sandbox.addr());
        Connector::new(name, sandbox)
            .with(key, url.replace(&there, to))
            .with("poll_interval", "1m")
    }

    fn peer(self) -> &'static str {
        match self {
            Road::TorqToken | Road::TorqApi => "Torq: ",
            Road::JumpCloudToken | Road::JumpCloudApi => "JumpCloud: ",
        }
    }
}

/// What proxies, portals and overloaded servers answer in the stead of a peer.
fn interceptions() -> Vec<(&'static str, Mode)> {
    let page = "<!DOCTYPE html><html><title>Sign in to the network</title></html>";
    let html = |status: &str| Mode::answer(status, "Content-Type: text/html\r\n", page);
    vec![
        ("html-200", html("200 OK")),
        (
            "html-302",
            Mode::answer("302 Found", "Location: http://portal.invalid/login\r\n", page),
        ),
        (
            "html-307",
            Mode::answer("307 Moved", "Location: http://portal.invalid/\r\n", ""),
        ),
        ("html-400", html("400 Bad Request")),
        ("html-401", html("401 Unauthorized")),
        ("html-402", html("402 Payment Required")),
        ("html-403", html("403 Forbidden")),
        ("html-511", html("511 Network Authentication Required")),
        (
            "proxy-407",
            Mode::answer("407 Proxy Authentication Required", "Proxy-Authenticate: Basic\r\n", ""),
        ),
        ("busy-429", Mode::answer("429 Too Many Requests", "", "")),
        ("down-503", Mode::answer("503 Service Unavailable", "", "")),
        ("empty-200", Mode::answer("200 OK", "", "")),
        ("silent", Mode::Answer(Default::default())),
        ("ssh", Mode::Answer(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec().into())),
    ]
}

/// Everything that may stand on these roads: each connector is retrying and names its peer, and comes back by itself.
async fn in_between(roads: [Road; 2]) {
    let sandbox = sandbox(3).await;
    let mut connectors = Vec::new();
    let mut fronts = Vec::new();
    for road in roads {
        for (what, mode) in interceptions() {
            let front = Front::new(mode).await;
            let name = format!("{road:?}-{what}");
            connectors.push(road.through(&name, &sandbox, &format!("http://{}", front.address)));
            fronts.push((name, road, front));
        }
    }
    let place = Place::with("[network]\ntimeout = \"5s\"\n", &connectors);
    let daemon = place.daemon().await;
    for (name, road, _) in &fronts {
        let status = daemon.state(name, "retrying").await;
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.starts_with(road.peer()), "{name}: {reason}");
        for wrong in ["user.read", "revoked", "licence", "refused"] {
            assert!(!reason.contains(wrong), "{name}: {reason}");
        }
    }
    let said = daemon.said();
    assert!(
        !said.contains("reconnect_required") && !said.contains("not_licensed"),
        "{said}"
    );
    // Each asks again by itself, and as soon as nobody is in between any more, all is well.
    for (_, _, front) in &fronts {
        front.set(Mode::Through(sandbox.addr()));
    }
    eventually_within(Duration::from_secs(240), "all are connected", async || {
        let report = daemon.json("/api/status").await;
        let connectors = report["connectors"].as_array().unwrap();
        connectors.iter().all(|one| one["state"] == "connected").then_some(())
    })
    .await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_or_a_login_page_on_the_way_to_torq_is_never_taken_for_wrong_credentials() {
    in_between([Road::TorqToken, Road::TorqApi]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_or_a_login_page_on_the_way_to_jumpcloud_is_never_taken_for_wrong_credentials() {
    in_between([Road::JumpCloudToken, Road::JumpCloudApi]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_trusted_is_never_taken_for_wrong_credentials() {
    let sandbox = sandbox(2).await;
    let (ours, theirs) = (Authority::new(), Authority::new());
    let through = Mode::Through(sandbox.addr());
    let tls = async |authority: &Authority, name: &str, until| {
        Front::tls(through.clone(), authority.acceptor(name, until)).await
    };
    let good = tls(&ours, "localhost", 2100).await;
    let inspected = tls(&theirs, "localhost", 2100).await;
    let expired = tls(&ours, "localhost", 2021).await;
    let elsewhere = tls(&ours, "somebody.else.example", 2100).await;
    let plain = Front::new(Mode::answer("400 Bad Request", "", "")).await;
    // Nobody listens there, and nobody else can.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = taken.local_addr().unwrap();
    let at = |address: SocketAddr| format!("https://localhost:{}", address.port());
    let cases = [
        (
            "inspected",
            at(inspected.address),
            vec!["not trusted"],
            vec!["network.ca_file"],
        ),
        (
            "expired",
            at(expired.address),
            vec!["not trusted", "expired"],
            vec!["clock"],
        ),
        (
            "elsewhere",
            at(elsewhere.address),
            vec!["not trusted", "somebody.else.example"],
            vec!["somebody else answers", "name server", "proxy"],
        ),
        (
            "plain",
            at(plain.address),
            vec!["no TLS is spoken"],
            vec!["proxy or a login page"],
        ),
        (
            "closed",
            at(closed),
            vec!["cannot connect", "refused"],
            vec!["firewall"],
        ),
        (
            "nowhere",
            "https://nowhere.invalid".to_owned(),
            vec!["does not resolve"],
            vec!["DNS"],
        ),
    ];
    let mut connectors = vec![
        Road::TorqToken.through("good-torq", &sandbox, &at(good.address)),
        Road::JumpCloudApi.through("good-jumpcloud", &sandbox, &at(good.address)),
    ];
    for (name, url, _, _) in &cases {
        for road in ROADS {
            connectors.push(road.through(&format!("{name}-{road:?}"), &sandbox, url));
        }
    }
    let place = Place::with("[network]\ntimeout = \"5s\"\nca_file = \"ca.pem\"\n", &connectors);
    place.write("ca.pem", &ours.pem());
    let daemon = place.daemon().await;
    daemon.state("good-torq", "connected").await;
    daemon.state("good-jumpcloud", "connected").await;
    for (name, url, words, advice) in &cases {
        let address = match url.trim_start_matches("https://") {
            host if host.contains(':') => host.to_owned(),
            host => format!("{host}:443"),
        };
        for road in ROADS {
            let status = daemon.state(&format!("{name}-{road:?}"), "retrying").await;
            let reason = status["reason"].as_str().unwrap();
            assert!(reason.starts_with(road.peer()), "{name}: {reason}");
            for word in words {
                assert!(reason.contains(word), "{name}: {word}: {reason}");
            }
            // Where to, and what to look at.
            assert!(reason.contains(&address), "{name}: {reason}");
            let action = status["action"].as_str().unwrap();
            for word in advice {
                assert!(action.contains(word), "{name}: {word}: {action}");
            }
        }
    }
    daemon.stop().await;
    // A command says the same and ends with 69: try again.
    let ran = place.run(&["check", "inspected-TorqToken"]).await.exits(69);
    ran.shows(&["FAILED  Torq connection", "not trusted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_does_not_let_us_through_is_never_taken_for_wrong_credentials() {
    let sandbox = sandbox(1).await;
    let place = Place::new(&[Road::TorqToken.through("main", &sandbox, "https://auth.torq.invalid")]);
    let page = "<html>Blocked by policy</html>";
    for (mode, words) in [
        (
            Mode::answer("407 Proxy Authentication Required", "Proxy-Authenticate: Basic\r\n", ""),
            "proxy",
        ),
        (
            Mode::answer("403 Forbidden", "Content-Type: text/html\r\n", page),
            "proxy",
        ),
        (Mode::answer("502 Bad Gateway", "", ""), "proxy"),
        (Mode::Answer(Default::default()), "Torq"),
    ] {
        let proxy = Front::new(mode).await;
        let mut command = place.command(&["check"]);
        command.env("HTTPS_PROXY", format!("http://{}", proxy.address));
        let ran = finish(command).await.exits(69);
        ran.shows(&["FAILED  Torq connection", words]);
        assert!(proxy.connections() > 0, "it was asked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interception_in_the_middle_of_everything_removes_nobody_and_loses_no_account() {
    let sandbox = sandbox(6).await;
    let world = sandbox.world();
    let front = Front::new(Mode::Through(sandbox.addr())).await;
    let url = format!("http://{}", front.address);
    let there = format!("http://{}", sandbox.addr());
    let mut connector = Connector::new("main", &sandbox).with("removals", "delete");
    for (_, value) in &mut connector.settings {
        *value = value.replace(&there, &url);
    }
    let place = Place::with("[network]\ntimeout = \"2s\"\n", &[connector]);
    place.run(&["sync"]).await.exits(0);
    let accounts = world.accounts();
    let some = ["html-200", "html-401", "html-403", "silent"];
    for (what, mode) in interceptions().into_iter().filter(|(what, _)| some.contains(what)) {
        front.set(mode);
        let ran = place.run(&["sync"]).await;
        assert_eq!(ran.code, 69, "{what}: {}", ran.err);
        assert_eq!(world.accounts(), accounts, "{what}");
    }
    front.set(Mode::Through(sandbox.addr()));
    eventually("it is let through again", async || {
        (place.run(&["sync"]).await.code == 0).then_some(())
    })
    .await;
    let events = place.run(&["events", "main", "--format", "json"]).await.exits(0).json();
    for event in events["events"].as_array().unwrap() {
        let kind = event["kind"].as_str().unwrap();
        assert!(
            !["user_disappeared", "account_lost", "removal_held"].contains(&kind),
            "{event}"
        );
    }
    assert_eq!(world.accounts(), accounts);
}
