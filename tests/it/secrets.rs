//! No secret and no token is ever shown or kept: neither at the chattiest log level, nor in the state, nor over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule, Options, Sandbox};

use crate::binary::{Connector, Place, Ran, files};

const TORQ_SECRET: &str = "torq-s3cret-Zk91-qqpwoei";
const JUMPCLOUD_SECRET: &str = "jc-s3cret-Vv72-mnbzxcas";
const API_KEY: &str = "jc-api-k3y-Tt55-lkjhgfdsa";
const WRONG: &str = "wr0ng-s3cret-Pp18-tyuiop";

/// Everything, also what libraries have to say.
const LEVELS: [&str; 2] = [
    "trace",
    "trace,hyper=trace,hyper_util=trace,reqwest=trace,h2=trace,rustls=trace,mio=trace",
];

async fn world() -> Sandbox {
    let options = Options {
        people: 4,
        torq_client_secret: TORQ_SECRET.to_owned(),
        jumpcloud_client_secret: JUMPCLOUD_SECRET.to_owned(),
        jumpcloud_api_key: API_KEY.to_owned(),
        torq_rate: 0,
        jumpcloud_rate: 0,
        ..Options::default()
    };
    Sandbox::start(options).await.unwrap()
}

fn good(name: &str, sandbox: &Sandbox) -> Connector {
    Connector::new(name, sandbox)
        .with("torq.client_secret", TORQ_SECRET)
        .with("jumpcloud.client_secret", JUMPCLOUD_SECRET)
}

fn with_api_key(name: &str, sandbox: &Sandbox, key: &str) -> Connector {
    good(name, sandbox)
        .without("jumpcloud.client_id")
        .without("jumpcloud.client_secret")
        .with("jumpcloud.api_key", key)
}

/// What may appear nowhere.
struct Forbidden(Vec<String>);

impl Forbidden {
    fn of(sandbox: &Sandbox) -> Self {
        let tokens = sandbox.world().issued_tokens();
        assert!(!tokens.is_empty(), "there were tokens to be kept secret");
        let ids = ["sandbox-torq-id", "sandbox-jumpcloud-id"];
        let secrets = [TORQ_SECRET, JUMPCLOUD_SECRET, API_KEY, WRONG];
        let basic = ids.iter().flat_map(|id| {
            secrets
                .iter()
                .map(move |secret| STANDARD.encode(format!("{id}:{secret}")))
        });
        let plain = secrets.iter().map(|secret| secret.to_string());
        let encoded = secrets.iter().map(|secret| STANDARD.encode(secret));
        Self(tokens.into_iter().chain(basic).chain(plain).chain(encoded).collect())
    }

    #[track_caller]
    fn is_not_in(&self, what: &str, content: &[u8]) {
        for secret in &self.0 {
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {what}:\n{}", String::from_utf8_lossy(content));
        }
    }

    fn is_not_in_files(&self, dir: &Path) {
        let files = files(dir);
        assert!(!files.is_empty());
        for (path, content) in files {
            self.is_not_in(&path.display().to_string(), &content);
        }
    }
}

fn log(level: &str, format: &str) -> String {
    format!("[log]\nlevel = \"{level}\"\nformat = \"{format}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_show_and_keep_no_secret() {
    for (format, level) in [("text", LEVELS[0]), ("json", LEVELS[1])] {
        let sandbox = world().await;
        let connectors = [
            good("good", &sandbox),
            with_api_key("key", &sandbox, API_KEY),
            good("torq", &sandbox).with("torq.client_secret", WRONG),
            good("jumpcloud", &sandbox).with("jumpcloud.client_secret", WRONG),
            with_api_key("wrong-key", &sandbox, WRONG),
        ];
        let place = Place::with(&log(level, format), &connectors);
        let mut ran: Vec<Ran> = Vec::new();
        for args in [
            ["sync", "--dry-run"].as_slice(),
            &["check"],
            &["check", "--offline"],
            &["sync"],
            &["sync"],
            &["reconnect", "torq"],
            &["status", "--format", "json"],
            &["users", "--format", "csv"],
            &["events", "--format", "json"],
        ] {
            ran.push(place.run(args).await);
        }
        assert_eq!(ran[3].code, 77);
        assert!(
            ran[3].err.lines().count() > 50,
            "there is a log to look into:\n{}",
            ran[3].err
        );
        let forbidden = Forbidden::of(&sandbox);
        for ran in ran {
            forbidden.is_not_in("standard output", ran.out.as_bytes());
            forbidden.is_not_in("standard error", ran.err.as_bytes());
        }
        forbidden.is_not_in_files(&place.state_dir());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_refused_shows_no_secret() {
    let sandbox = world().await;
    let misplaced = good("main", &sandbox)
        .with("torq.region", "mars")
        .with("jumpcloud.api_key", API_KEY)
        .with("torq.client_sekret", TORQ_SECRET)
        .with("poll_interval", "soon");
    let place = Place::new(&[misplaced]);
    for args in [["sync"].as_slice(), &["check", "--offline"], &["run"], &["status"]] {
        let ran = place.run(args).await.exits(78);
        for secret in [TORQ_SECRET, JUMPCLOUD_SECRET, API_KEY] {
            assert!(!ran.err.contains(secret) && !ran.out.contains(secret), "{}", ran.err);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_shows_and_keeps_no_secret() {
    for (format, level) in [("json", LEVELS[0]), ("text", LEVELS[1])] {
        let sandbox = world().await;
        // A peer that repeats what it was sent, and tokens that run out on the way.
        let echo = Fault::Status {
            status: 400,
            retry_after: None,
            body: format!("{{\"message\": \"{JUMPCLOUD_SECRET} is not what I expected\"}}"),
        };
        let world = sandbox.world();
        world.fault(FaultRule::once(Endpoint::TorqRoles, Fault::ExpireTokensFirst));
        let connectors = [
            good("good", &sandbox),
            with_api_key("key", &sandbox, API_KEY),
            good("torq", &sandbox).with("torq.client_secret", WRONG),
        ];
        let place = Place::with(&log(level, format), &connectors);
        let daemon = place.daemon().await;
        daemon.state("good", "connected").await;
        daemon.state("key", "connected").await;
        daemon.state("torq", "reconnect_required").await;
        world.expire_tokens(torq_connector::sandbox::Peer::Torq);
        place.run(&["sync", "good", "key"]).await.exits(0);
        world.forget_tokens(torq_connector::sandbox::Peer::JumpCloud);
        place.run(&["sync", "good"]).await.exits(0);
        world.fault(FaultRule::once(Endpoint::JumpCloudToken, echo));
        world.forget_tokens(torq_connector::sandbox::Peer::JumpCloud);
        let echoed = place.run(&["sync", "good"]).await.exits(77);

        let forbidden = Forbidden::of(&sandbox);
        forbidden.is_not_in("standard error", echoed.err.as_bytes());
        for path in [
            "/",
            "/api/status",
            "/api/users",
            "/api/events",
            "/metrics",
            "/readyz",
            "/healthz",
            "/nothing",
        ] {
            let (_, answer) = daemon.get(path).await;
            forbidden.is_not_in(path, answer.as_bytes());
        }
        daemon.stop().await;
        let logs: Vec<_> = files(&place.path("")).into_iter().collect();
        let logs = logs
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "log"));
        for (path, content) in logs {
            assert!(content.len() > 5_000, "there is a log to look into");
            forbidden.is_not_in(&path.display().to_string(), content);
        }
        forbidden.is_not_in_files(&place.state_dir());
    }
}
