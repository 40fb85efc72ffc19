//! Size and slowness: answers without an end, of absurd shape, or that never come. Bounded memory, bounded time, a clear error; and
//! the other connectors of the same daemon stay on time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use torq_connector::sandbox::{Endpoint, Sandbox};

use crate::binary::{Connector, DEADLINE, Daemon, Place, sandbox};
use crate::front::{Front, Mode};

/// What one daemon may take at most, in MiB: it takes about 20 when nothing is wrong, unoptimised as it is in tests.
const MOST: u64 = 240;
/// The largest body that is read.
const LARGEST: usize = 16 * 1024 * 1024;

/// The most memory that a process ever had resident, in MiB.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// `head`, then `again` as often as fits into `size` with `tail`.
fn filled(head: &str, again: &str, tail: &str, size: usize) -> Vec<u8> {
    let times = (size - head.len() - tail.len()) / again.len();
    // Lists end without a comma; what goes on begins with one.
    let middle = again.repeat(times);
    format!("{head}{}{tail}", middle.trim_end_matches(',')).into_bytes()
}

fn chunked(chunk: &str) -> (Arc<Vec<u8>>, Arc<Vec<u8>>) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{chunk}\r\n", chunk.len());
    (Arc::new(head.into()), Arc::new(chunk.into()))
}

fn gzipped(length: usize) -> Mode {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&vec![b' '; length]).unwrap();
    let body = encoder.finish().unwrap();
    assert!(body.len() * 100 < length);
    Mode::answer(
        "200 OK",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
        body,
    )
}

fn endless(head: &str, again: &str) -> Mode {
    Mode::Endless(Arc::new(head.into()), Arc::new(again.repeat(2000).into()))
}

/// Answers that nobody should send, and what is said about them.
fn absurdities() -> Vec<(&'static str, Mode, &'static str)> {
    let (head, chunk) = chunked(&" ".repeat(8192));
    let gigabytes = "HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n";
    let announced = Mode::Silent(Arc::new(gigabytes.into()));
    let slow = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"users\":[]}".to_vec();
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec();
    vec![
        ("endless", Mode::Endless(head, chunk), "larger than 16 MiB"),
        ("gigabytes", endless(gigabytes, " "), "larger than 16 MiB"),
        ("announced", announced, "no complete answer within"),
        ("bomb", gzipped(32 * 1024 * 1024), "larger than 16 MiB"),
        (
            "headers",
            endless("HTTP/1.1 200 OK\r\n", "X-More: of the same\r\n"),
            "connection broke",
        ),
        (
            "header",
            endless("HTTP/1.1 200 OK\r\nX-Long: ", "xxxx"),
            "connection broke",
        ),
        (
            "slow",
            Mode::Trickle(slow.into(), Duration::from_millis(200)),
            "no complete answer within",
        ),
        ("mute", Mode::Silent(Default::default()), "no complete answer within"),
        ("half", Mode::Silent(Arc::new(half)), "no complete answer within"),
    ]
}

/// A connector whose `road` leads through a front.
fn through(name: &str, sandbox: &Sandbox, key: &'static str, front: &Front) -> Connector {
    let connector = Connector::new(name, sandbox);
    let there = format!("http://{}", sandbox.addr());
    let url = connector
        .settings
        .iter()
        .find(|(known, _)| *known == key)
        .unwrap()
        .1
        .clone();
    connector.with(key, url.replace(&there, &format!("http://{}", front.address)))
}

/// The clock of the stories: a connector to a sandbox of its own, which polls every second, whatever the others do.
async fn on_time(clock: &Sandbox, polls: usize) {
    let world = clock.world();
    let seen = world.count(Endpoint::TorqUsers);
    tokio::time::timeout(DEADLINE, world.seen(Endpoint::TorqUsers, seen + 2 * polls))
        .await
        .expect("the others are on time");
}

/// A daemon with a connector through each of these fronts, and the clock. Waits until each of them says what is wrong.
async fn survive(fronts: Vec<(&'static str, &'static str, Mode, &'static str)>) {
    let (sandbox, clock) = (sandbox(2).await, crate::binary::sandbox(2).await);
    let mut connectors = vec![Connector::new("clock", &clock).with("poll_interval", "1s")];
    let mut open = Vec::new();
    for (key, what, mode, words) in fronts {
        let front = Front::new(mode).await;
        let name = format!("{what}-{}", key.replace('.', "-"));
        connectors.push(through(&name, &sandbox, key, &front));
        open.push((name, words, front));
    }
    let place = Place::with("[network]\ntimeout = \"5s\"\n", &connectors);
    let daemon = place.daemon().await;
    for (name, words, _) in &open {
        let status = daemon
            .status(name, |status| {
                let reason = status["reason"].as_str().unwrap_or_default();
                status["state"] == "retrying" && reason.contains(words)
            })
            .await;
        assert!(status["reason"].as_str().unwrap().len() < 600, "{status}");
    }
    on_time(&clock, 3).await;
    daemon.state("clock", "connected").await;
    assert!(peak(&daemon) < MOST, "{} MiB", peak(&daemon));
    daemon.stop().await;
}

const ROADS: [&str; 3] = ["torq.token_url", "torq.api_url", "jumpcloud.console_url"];

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_an_end_or_that_never_come_cost_little_and_no_other_connector_its_time() {
    let of = |key| {
        absurdities()
            .into_iter()
            .map(move |(what, mode, words)| (key, what, mode, words))
    };
    survive(ROADS.into_iter().flat_map(of).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_absurd_depth_and_bodies_of_junk_are_told_in_a_few_words() {
    let megabyte = 1024 * 1024;
    let mut fronts = Vec::new();
    for key in ROADS {
        // The token endpoint's answer is described without a word of it: it might be the token.
        let of = |words| if key == "torq.token_url" { "" } else { words };
        let deep = |open| Mode::json(filled("{\"users\":", open, "", megabyte));
        fronts.push((key, "lists", deep("["), of("recursion limit")));
        fronts.push((key, "objects", deep("{\"a\":"), of("recursion limit")));
        fronts.push((key, "junk", Mode::json(vec![0xff; megabyte]), of("not UTF-8")));
    }
    survive(fronts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_made_to_blow_up_when_they_are_read_do_not() {
    let (torq, jumpcloud) = ("torq.api_url", "jumpcloud.console_url");
    let full = |head: &str, again: &str, tail: &str| Mode::json(filled(head, again, tail, LARGEST - 1));
    // Small pieces of JSON that take a hundred times their room as a tree of values. What is said of them is not the point.
    let fronts = vec![
        (
            torq,
            "empty",
            full("{\"users\":[", "{},", "]}"),
            "more than 100000 records",
        ),
        (
            torq,
            "small",
            full("{\"users\":[", "{\"\":0},", "]}"),
            "more than 100000 records",
        ),
        (
            torq,
            "users",
            full("{\"users\":[", "{\"id\":\"a\"},", "]}"),
            "more than 100000 records",
        ),
        (
            jumpcloud,
            "small",
            full("[", "{\"\":0},", "]"),
            "more than 100000 records",
        ),
        (
            jumpcloud,
            "rows",
            full("{\"results\":[", "{\"id\":\"a\",\"catalog_app_id\":\"x\"},", "]}"),
            "more than 100000 records",
        ),
        (jumpcloud, "numbers", full("[", "0,", "]"), "more than 100000 records"),
        (
            jumpcloud,
            "fields",
            full("{", "\"x\":{\"y\":[]},", ",\"results\":0}"),
            "without a list of results",
        ),
        (
            jumpcloud,
            "error",
            Mode::answer("503 Down", "", filled("{\"message\":[", "{\"\":0},", "]}", LARGEST - 1)),
            "answered 503",
        ),
    ];
    survive(fronts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_unknown_fields_and_a_text_of_15_megabytes_hide_nobody() {
    let sandbox = sandbox(0).await;
    let fields = filled(
        "{\"users\":[{\"id\":\"u\",\"email\":\"a@example.com\",",
        "\"x\":0,",
        ",\"y\":1}]}",
        LARGEST / 2,
    );
    let text = filled(
        "{\"users\":[{\"id\":\"u\",\"email\":\"a@example.com\"},{\"id\":\"v\",\"email\":\"",
        "x",
        "\"}]}",
        LARGEST - 1,
    );
    for (body, users, parked) in [(fields, 1, 0), (text, 2, 1)] {
        let front = Front::new(Mode::json(body)).await;
        let place = Place::new(&[through("main", &sandbox, "torq.api_url", &front)]);
        let daemon = place.daemon().await;
        let status = daemon.status("main", |status| !status["last_run"].is_null()).await;
        assert_eq!(
            (&status["users"], &status["parked"]),
            (&users.into(), &parked.into()),
            "{status}"
        );
        assert!(peak(&daemon) < MOST, "{} MiB", peak(&daemon));
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_connectors_that_hang_in_the_middle_of_large_answers_do_not_exhaust_the_process() {
    let (sandbox, clock) = (sandbox(2).await, crate::binary::sandbox(2).await);
    // 15 MB of a page each, and then nothing more.
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGEST}\r\n\r\n");
    let most = filled(&head, "{\"x\":0},", "", 15 * 1024 * 1024);
    let front = Front::new(Mode::Silent(Arc::new(most))).await;
    let mut connectors = vec![Connector::new("clock", &clock).with("poll_interval", "1s")];
    for number in 0..60 {
        connectors.push(through(&format!("hangs{number}"), &sandbox, "torq.api_url", &front));
    }
    let place = Place::with("[network]\ntimeout = \"10s\"\n", &connectors);
    let daemon = place.daemon().await;
    on_time(&clock, 2).await;
    crate::binary::eventually("all of them ask, with both listings", async || {
        (front.connections() >= 120).then_some(())
    })
    .await;
    for number in 0..60 {
        let name = format!("hangs{number}");
        let status = daemon.state(&name, "retrying").await;
        assert!(
            status["reason"].as_str().unwrap().starts_with("Torq: list users: "),
            "{status}"
        );
    }
    on_time(&clock, 2).await;
    // Half of it is what sixty connectors take that do nothing; the answers themselves would be 1,800.
    assert!(peak(&daemon) < 2 * MOST, "{} MiB", peak(&daemon));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_accepts_is_given_up_after_the_connect_time_out() {
    let sandbox = sandbox(1).await;
    // A queue of one that is full: whoever comes next is not even refused.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address)).await
    {
        held.push(stream);
    }
    let url = |path: &str| format!("http://{address}{path}");
    let connector = Connector::new("main", &sandbox)
        .with("torq.token_url", url("/token"))
        .with("torq.api_url", url("/api"));
    let place = Place::with("[network]\nconnect_timeout = \"1s\"\n", &[connector]);
    let daemon = place.daemon().await;
    let status = daemon.state("main", "retrying").await;
    assert!(
        status["reason"].as_str().unwrap().contains("connect time-out"),
        "{status}"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_ten_thousand_users_is_a_page() {
    let sandbox = sandbox(0).await;
    let users: Vec<_> = (0..10_000)
        .map(|number| {
            serde_json::json!({
                "id": format!("00000000-0000-4000-8000-{number:012}"), "email": format!("user{number}@example.com"),
                "role_id": "3c8b5e7d-9a14-4f02-b6d3-2e7f1a8c4b11", "status": "VERIFIED", "sso_provision": number % 2 == 0,
                "created_time": "2022-03-09T08:40:18.490771179Z", "last_login_time": "2022-03-09T08:40:18.490771179Z",
            })
        })
        .collect();
    let body = serde_json::json!({ "users": users }).to_string();
    assert!(body.len() > 2_000_000);
    let front = Front::new(Mode::json(body)).await;
    let place = Place::new(&[through("main", &sandbox, "torq.api_url", &front)]);
    sandbox
        .world()
        .behave(|behaviour| behaviour.account_create_refused = Some(501));
    let daemon = place.daemon().await;
    let status = daemon.state("main", "report_only").await;
    assert_eq!((&status["users"], &status["pending"]), (&10_000.into(), &10_000.into()));
    assert!(peak(&daemon) < MOST, "{} MiB", peak(&daemon));
    daemon.stop().await;
}
