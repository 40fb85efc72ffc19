//! A real listener, a real state: what is told, and what health says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use metrics_exporter_prometheus::PrometheusBuilder;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::*;

mod access;
mod pages;
mod people;

use crate::config::{MaxRemovals, Removals, UserFilter};
use crate::model::{ConnectorName, Listing};
use crate::state::State;
use crate::torq::{User, UsersPage};
use crate::view::{ConnectorState, RunOutcome, StatusReport};

const MINUTE: Duration = Duration::from_secs(60);

/// A board with connectors, and what serves it.
struct World {
    dir: tempfile::TempDir,
    board: Board,
    address: String,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    /// The connector of a world that has one from the beginning.
    desk: Option<Desk>,
    server: JoinHandle<std::io::Result<()>>,
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings::by_default())
}

/// A connector as its task sees it.
struct Desk {
    state: State,
    live: watch::Sender<Live>,
}

fn open() -> Access {
    Access {
        local: true,
        ..Access::default()
    }
}

fn guarded() -> Access {
    Access {
        local: false,
        password: Some("pa:ss wörd".into()),
        hosts: vec!["status.example.com".to_owned()],
    }
}

async fn world(access: Access) -> World {
    world_with(access, None).await
}

async fn world_with(access: Access, metrics: Option<PrometheusHandle>) -> World {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let board = Board::new();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        let _ = stopped.await;
    };
    let server = tokio::spawn(serve(listener, board.clone(), access, metrics, shutdown));
    let client = reqwest::Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .build()
        .unwrap();
    World {
        dir: tempfile::tempdir().unwrap(),
        board,
        address,
        client,
        stop: Some(stop),
        desk: None,
        server,
    }
}

/// A world with a connector `main`, which knows Ada.
async fn peopled(access: Access) -> World {
    let mut world = world(access).await;
    let main = world.connector("main");
    main.ran(ago(1), &["ada@example.com"]).await;
    world.desk = Some(main);
    world
}

impl World {
    fn connector(&self, name: &str) -> Desk {
        let name = ConnectorName::parse(name).unwrap();
        let state = State::open(self.dir.path(), &name).unwrap();
        let (live, receiver) = watch::channel(Live::new());
        self.board.seat(Seat {
            name,
            state: Some(state.clone()),
            poll_interval: MINUTE,
            key_expires: None,
            settings: settings(),
            live: receiver,
        });
        Desk { state, live }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    async fn get(&self, path: &str) -> (u16, String) {
        told(self.request(Method::GET, path)).await
    }

    async fn json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

async fn told(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

impl Desk {
    /// A run that saw these people and ended well, at that time.
    async fn ran(&self, at: Timestamp, emails: &[&str]) {
        let users = emails
            .iter()
            .map(|email| User {
                id: format!("id-{email}"),
                email: (*email).to_owned(),
                role_id: "role".to_owned(),
                status: "VERIFIED".to_owned(),
                sso: false,
                created: None,
                last_login: None,
                unreadable: Vec::new(),
            })
            .collect();
        let page = UsersPage {
            users,
            ..UsersPage::default()
        };
        self.state
            .call(move |store| {
                store.begin_run(at)?;
                store.begin_poll(at, &UserFilter::default())?;
                store.apply_page(at, Listing::Local, &page, &UserFilter::default())?;
                store.end_run(at, RunOutcome::Done, None)
            })
            .await
            .unwrap();
    }

    async fn notes(&self, state: ConnectorState, reason: &'static str, action: &'static str) {
        self.state
            .call(move |store| store.note_state(Timestamp::now(), state, Some(reason), Some(action)))
            .await
            .unwrap();
    }

    fn overlays(&self, state: ConnectorState, reason: &str) {
        self.live.send_modify(|live| {
            live.overlay = Some(Overlay {
                state,
                reason: Some(reason.to_owned()),
                action: None,
            });
        });
    }
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_secs(seconds)
}

const PERSONAL: [&str; 11] = [
    "/",
    "/connectors/main",
    "/connectors/main/users",
    "/connectors/main/users/id-ada%40example.com",
    "/connectors/main/events",
    "/style.css",
    "/script.js",
    "/icon.svg",
    "/api/status",
    "/api/users",
    "/api/events",
];
const ANYBODYS: [&str; 2] = ["/healthz", "/readyz"];

#[tokio::test]
async fn the_status_is_the_states_and_over_it_what_the_task_says_of_this_moment() {
    let world = world(open()).await;
    let (zoo, ant) = (world.connector("zoo"), world.connector("ant"));
    ant.ran(ago(5), &["ada@example.com", "bob@example.com"]).await;
    let next: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    ant.live.send_modify(|live| live.next_poll = Some(next));
    ant.overlays(ConnectorState::Syncing, "reading");
    zoo.notes(
        ConnectorState::ReconnectRequired,
        "Torq refused the key",
        "make another key",
    )
    .await;
    zoo.live.send_modify(|live| live.next_poll = Some(next));
    zoo.overlays(ConnectorState::Retrying, "not this");

    let (status, body) = world.json("/api/status").await;
    assert_eq!(status, 200);
    let report: StatusReport = serde_json::from_value(body).unwrap();
    let [ant_status, zoo_status] = &report.connectors[..] else {
        panic!("{report:?}");
    };
    assert_eq!((ant_status.name.as_str(), zoo_status.name.as_str()), ("ant", "zoo"));
    assert_eq!(ant_status.state, ConnectorState::Syncing);
    assert_eq!(ant_status.reason.as_deref(), Some("reading"));
    assert_eq!(ant_status.next_poll, Some(next));
    assert_eq!((ant_status.users, ant_status.pending), (2, 2));
    assert_eq!(zoo_status.state, ConnectorState::ReconnectRequired);
    assert_eq!(zoo_status.reason.as_deref(), Some("Torq refused the key"));
    assert_eq!(zoo_status.next_poll, None);

    ant.state
        .call(|store| store.pause(Timestamp::now(), true))
        .await
        .unwrap();
    let report = world.board.statuses().await.unwrap();
    assert_eq!(report.connectors[0].state, ConnectorState::Paused);
    assert_eq!(report.connectors[0].next_poll, None);
}

#[tokio::test]
async fn users_and_events_are_told_of_all_connectors_or_of_one() {
    let world = world(open()).await;
    let (a, b) = (world.connector("a"), world.connector("b"));
    a.ran(ago(50), &["ada@example.com"]).await;
    b.ran(ago(40), &["bob@example.com", "cyd@example.com"]).await;

    let emails = |body: &Value, list: &str| {
        let list = body[list].as_array().unwrap().iter();
        list.map(|item| item["email"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (_, everyone) = world.json("/api/users").await;
    assert_eq!(
        emails(&everyone, "users"),
        ["ada@example.com", "bob@example.com", "cyd@example.com"]
    );
    let (_, of_b) = world.json("/api/users?connector=b").await;
    assert_eq!(emails(&of_b, "users"), ["bob@example.com", "cyd@example.com"]);

    let (_, events) = world.json("/api/events").await;
    assert_eq!(
        emails(&events, "events"),
        ["ada@example.com", "bob@example.com", "cyd@example.com"]
    );
    let (_, latest) = world.json("/api/events?limit=1").await;
    assert_eq!(emails(&latest, "events"), ["cyd@example.com"]);
    let (_, bobs) = world.json("/api/events?user=BOB&kind=user_changed,user_appeared").await;
    assert_eq!(emails(&bobs, "events"), ["bob@example.com"]);
    let (_, none) = world.json("/api/events?kind=account_created").await;
    assert_eq!(none["events"], serde_json::json!([]));
    let since = ago(45);
    let (_, later) = world.json(&format!("/api/events?since={since}")).await;
    assert_eq!(emails(&later, "events"), ["bob@example.com", "cyd@example.com"]);
    // An offset whose plus was not encoded.
    let offset = since.strftime("%Y-%m-%dT%H:%M:%S+00:00");
    let (_, later) = world.json(&format!("/api/events?since={offset}")).await;
    assert_eq!(emails(&later, "events"), ["bob@example.com", "cyd@example.com"]);

    for path in ["/api/users?connector=c", "/api/events?connector=c"] {
        let (status, body) = world.json(path).await;
        assert_eq!(status, 404);
        assert_eq!(body["error"], "there is no connector \"c\" here; running: a, b");
    }
}

#[tokio::test]
async fn wrong_parameters_are_all_named() {
    let world = world(open()).await;
    let (status, body) = world
        .json("/api/events?since=yesterday&limit=10001&kind=user_appeared,nonsense&colour=red&user=a&user=b")
        .await;
    assert_eq!(status, 400);
    let words = body["error"].as_str().unwrap();
    for named in [
        "since: \"yesterday\" is not a time like",
        "limit: \"10001\" is not a number from 1 to 10000",
        "kind: \"user_appeared,nonsense\" is not one or more",
        "colour: no such parameter",
        "user: given more than once",
    ] {
        assert!(words.contains(named), "{named}: {words}");
    }
    assert_eq!(world.get("/api/events?limit=0").await.0, 400);
    assert_eq!(world.get("/api/events?limit=10000").await.0, 200);
    assert_eq!(world.get("/api/users?connectors=a").await.0, 400);
}

#[tokio::test]
async fn the_page_shows_what_people_need_and_escapes_it() {
    let world = world(open()).await;
    assert!(world.get("/").await.1.contains("No connector is running"));
    let main = world.connector("main");
    main.ran(ago(200), &["ada@example.com"]).await;
    main.notes(
        ConnectorState::Held,
        "<script>alert(1)</script>",
        "look at them, then: torq-connector approve main",
    )
    .await;
    let response = world.request(Method::GET, "/").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let page = response.text().await.unwrap();
    for shown in [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "torq-connector approve main",
        ">held<",
        "3 min ago",
        "http-equiv=\"refresh\" content=\"10\"",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    // Nothing inline: the one script is a file of ours.
    let scripts: Vec<_> = page.matches("<script").collect();
    assert!(page.contains("<script src=\"/script.js\" defer></script>") && scripts.len() == 1);
    assert!(!page.contains("<style") && !page.contains("style="));
    let style = world.request(Method::GET, "/style.css").send().await.unwrap();
    assert_eq!(style.headers()["content-type"], "text/css; charset=utf-8");
}

#[tokio::test]
async fn health_speaks_of_tasks() {
    let world = world(open()).await;
    let (a, b) = (world.connector("a"), world.connector("b"));
    assert_eq!(world.get("/healthz").await, (200, "ok\n".to_owned()));
    let long_ago = Instant::now().checked_sub(6 * MINUTE).unwrap();
    b.live.send_modify(|live| live.beat = long_ago);
    assert_eq!(
        world.get("/healthz").await,
        (503, "b: no sign of life for 6 min\n".to_owned())
    );
    drop(a);
    assert_eq!(
        world.get("/healthz").await,
        (503, "a: its task has ended\nb: no sign of life for 6 min\n".to_owned())
    );
    for name in ["a", "b"] {
        assert!(world.board.remove(&ConnectorName::parse(name).unwrap()).is_some());
    }
    assert_eq!(world.get("/healthz").await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn readiness_speaks_of_the_last_success() {
    let world = world(open()).await;
    assert_eq!(
        world.get("/readyz").await,
        (503, "no connector is running\n".to_owned())
    );
    let (a, b) = (world.connector("a"), world.connector("b"));
    assert_eq!(
        world.get("/readyz").await,
        (
            503,
            "a: starting, no success yet\nb: starting, no success yet\n".to_owned()
        )
    );
    a.ran(ago(170), &["ada@example.com"]).await;
    b.ran(ago(400), &[]).await;
    b.overlays(ConnectorState::Retrying, "ada@example.com is in a reason");
    assert_eq!(
        world.get("/readyz").await,
        (
            503,
            "b: retrying, last success 6 min ago, more than 3 poll intervals of 1 min\n".to_owned()
        )
    );
    b.ran(ago(1), &[]).await;
    assert_eq!(world.get("/readyz").await, (200, "ready\n".to_owned()));
    for (state, line) in [
        (ConnectorState::ReconnectRequired, "b: reconnect_required\n"),
        (ConnectorState::NotLicensed, "b: not_licensed\n"),
    ] {
        b.notes(state, "JumpCloud says: ada@example.com", "act").await;
        assert_eq!(world.get("/readyz").await, (503, line.to_owned()));
    }
    // Which side it is, and no more of what is said there.
    let refused = ConnectorState::ReconnectRequired;
    b.notes(refused, "Torq: get a token: ada@example.com (401)", "act")
        .await;
    assert_eq!(
        world.get("/readyz").await,
        (503, "b: reconnect_required (Torq)\n".to_owned())
    );
    b.state.call(|store| store.pause(Timestamp::now(), true)).await.unwrap();
    assert_eq!(world.get("/readyz").await, (200, "ready\n".to_owned()));
}

#[tokio::test]
async fn the_api_answers_programs_in_json_whatever_is_wrong() {
    let world = world(open()).await;
    let (_a, _b) = (world.connector("a"), world.connector("b"));
    let (status, all) = world.json("/api/status").await;
    assert_eq!((status, all["connectors"].as_array().unwrap().len()), (200, 2));
    let (status, one) = world.json("/api/status?connector=b").await;
    assert_eq!((status, &one["connectors"][0]["name"]), (200, &"b".into()));
    assert_eq!(one["connectors"].as_array().unwrap().len(), 1);
    for (path, wanted) in [
        ("/api/status?connector=c", 404),
        ("/api/status?conector=b", 400),
        ("/api/nothing", 404),
        ("/api", 404),
    ] {
        let (status, answer) = world.json(path).await;
        assert_eq!(status, wanted, "{path}");
        assert!(answer["error"].is_string(), "{path}: {answer}");
    }
    let request = "GET /api/users HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let told = access::raw(&world.address, request).await;
    assert!(
        told.starts_with("HTTP/1.1 421") && told.contains("application/json") && told.contains("{\"error\":"),
        "{told}"
    );
    // People are told in words.
    let page = world.get("/nothing").await.1;
    assert!(page.contains("There is nothing at this address."), "{page}");
}

#[tokio::test]
async fn metrics_tell_of_every_connector_and_name_nobody() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // The test's only thread serves, too.
    let _guard = ::metrics::set_default_local_recorder(&recorder);
    crate::metrics::describe();
    let world = world_with(guarded(), Some(handle)).await;
    let main = world.connector("main");
    main.ran(ago(1), &["ada@example.com"]).await;
    main.notes(ConnectorState::Held, "ada@example.com", "act").await;
    let response = world.request(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = response.text().await.unwrap();
    for line in [
        "torq_connector_state{connector=\"main\",state=\"held\"} 1",
        "torq_connector_users{connector=\"main\",standing=\"pending\"} 1",
        "# TYPE torq_connector_users gauge",
        "# HELP torq_connector_users ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("ada"));
}

#[tokio::test]
async fn without_a_recorder_there_are_no_metrics() {
    let world = world(open()).await;
    assert_eq!(world.get("/metrics").await.0, 404);
}

#[tokio::test]
async fn a_state_that_cannot_be_read_hides_no_other() {
    let world = world(open()).await;
    let (bad, good) = (world.connector("bad"), world.connector("good"));
    good.ran(ago(1), &[]).await;
    bad.ran(ago(1), &[]).await;
    let file = world.dir.path().join("bad.db");
    rusqlite::Connection::open(file)
        .unwrap()
        .execute_batch("DROP VIEW standing; DROP TABLE runs")
        .unwrap();
    let (status, page) = world.get("/").await;
    assert_eq!(status, 200);
    assert!(page.contains("bad.db") && page.contains(">good<"), "{page}");
    assert_eq!(
        world.get("/readyz").await,
        (503, "bad: its state cannot be read\n".to_owned())
    );
    let (status, body) = world.json("/api/status").await;
    assert_eq!(status, 200);
    assert_eq!(body["connectors"][0]["state"], "retrying");
    assert!(body["connectors"][0]["reason"].as_str().unwrap().contains("bad.db"));
    assert_eq!(body["connectors"][1]["reason"], Value::Null);
    let (status, body) = world.json("/api/users").await;
    assert_eq!(status, 500);
    assert!(body["error"].as_str().unwrap().contains("bad.db"), "{body}");
    assert_eq!(world.get("/api/users?connector=good").await.0, 200);
}

#[tokio::test]
async fn a_state_that_is_not_open_is_told_in_the_words_of_the_task() {
    let world = world(open()).await;
    let (live, receiver) = watch::channel(Live::new());
    world.board.seat(Seat {
        name: ConnectorName::parse("main").unwrap(),
        state: None,
        poll_interval: MINUTE,
        key_expires: None,
        settings: settings(),
        live: receiver,
    });
    let (_, body) = world.json("/api/status").await;
    assert_eq!(body["connectors"][0]["state"], "starting");
    live.send_modify(|live| {
        live.overlay = Some(Overlay {
            state: ConnectorState::Retrying,
            reason: Some("the disk is full".to_owned()),
            action: None,
        });
    });
    let (status, body) = world.json("/api/status").await;
    assert_eq!(status, 200);
    assert_eq!(body["connectors"][0]["state"], "retrying");
    assert_eq!(body["connectors"][0]["reason"], "the disk is full");
    let (status, body) = world.json("/api/users").await;
    assert_eq!(status, 503);
    assert_eq!(
        body["error"],
        "the state of connector main is not open: the disk is full"
    );
    assert_eq!(
        world.get("/readyz").await,
        (503, "main: its state is not open\n".to_owned())
    );
    assert_eq!(world.get("/healthz").await.0, 200);
}
