//! The service manager, as the real binary tells it: readiness, the status line, signs of life, reload and stop.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Stdio;

use tokio::net::UnixDatagram;
use torq_connector::sandbox::{Endpoint, Fault, FaultRule};

use crate::binary::{Connector, DEADLINE, Place, sandbox};

/// Who started the daemon, and listens to it.
struct Manager {
    socket: UnixDatagram,
    daemon: tokio::process::Child,
}

impl Manager {
    fn start(place: &Place, watchdog: &str) -> Self {
        let path = place.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut command = place.command(&["run"]);
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", watchdog);
        command
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(place.path("log")).unwrap());
        let daemon = command.spawn().unwrap();
        Self { socket, daemon }
    }

    async fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let received = tokio::time::timeout(DEADLINE, self.socket.recv(&mut buffer)).await;
        let length = received.expect("the service manager is told something").unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Listens until it is told this.
    async fn told(&self, what: &str) -> String {
        loop {
            let message = self.hears().await;
            if message.contains(what) {
                return message;
            }
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.daemon.id().unwrap().to_string();
        let sent = std::process::Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_when_the_daemon_is_ready_what_it_does_and_that_it_stops() {
    let sandbox = sandbox(6).await;
    let place = Place::new(&[Connector::new("main", &sandbox).with("poll_interval", "1s")]);
    let mut manager = Manager::start(&place, "60000000");
    // The first thing that is said; and then it listens and takes orders.
    let ready = manager.hears().await;
    assert!(ready.starts_with("READY=1\nSTATUS=1 connector: 1 "), "{ready}");
    assert!(
        std::fs::read_to_string(place.path("log"))
            .unwrap()
            .contains("status page")
    );
    place.run(&["status"]).await.exits(0).shows(&["main"]);
    assert_eq!(manager.told("WATCHDOG").await, "WATCHDOG=1");
    manager.told("STATUS=1 connector: 1 connected").await;

    sandbox
        .world()
        .fault(FaultRule::always(Endpoint::TorqUsers, Fault::status(503)));
    manager.told("STATUS=1 connector: 1 retrying (main)").await;
    sandbox.world().clear_faults();

    manager.signal("HUP");
    manager.told("RELOADING=1").await;
    manager.told("READY=1").await;
    manager.signal("TERM");
    assert!(manager.told("STOPPING=1").await.contains("STATUS=stopping"));
    let ended = tokio::time::timeout(DEADLINE, manager.daemon.wait()).await;
    assert!(ended.expect("it ends").unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_cannot_be_opened_keeps_the_daemon_from_nothing() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[Connector::new("good", &sandbox), Connector::new("broken", &sandbox)]);
    std::fs::create_dir_all(place.state_dir().join("broken.db")).unwrap();
    let manager = Manager::start(&place, "60000000");
    let ready = manager.hears().await;
    assert!(
        ready.starts_with("READY=1\n") && ready.contains("1 retrying (broken)"),
        "{ready}"
    );
    manager
        .told("STATUS=2 connectors: 1 connected, 1 retrying (broken)")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_run_feeds_no_watchdog() {
    let sandbox = sandbox(3).await;
    let place = Place::new(&[Connector::new("main", &sandbox)]);
    let manager = Manager::start(&place, "300000");
    manager.told("WATCHDOG=1").await;
    manager.told("WATCHDOG=1").await;
    manager.signal("STOP");
    // What was sent before it stopped; then there is silence for several times as long as a watchdog waits.
    let silent = std::time::Duration::from_millis(1500);
    while tokio::time::timeout(silent, manager.hears()).await.is_ok() {}
    manager.signal("CONT");
    manager.told("WATCHDOG=1").await;
}
