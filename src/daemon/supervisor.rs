//! What the service manager (systemd, `Type=notify`) is told: ready, reloading, stopping, one line about what the connectors do,
//! and the signs of life that its watchdog waits for.
//!
//! The protocol is a datagram for each message to the socket that `NOTIFY_SOCKET` names, so it is spoken here and not by a crate.
//!
//! **The watchdog is fed by the work.** A sign of life is sent only while every connector's task shows one of its own, which is
//! what `/healthz` tells, too; and it is sent from a task of the runtime that does the work. So a runtime that hangs feeds
//! nobody within the watchdog's time, and one task that hangs keeps the others from feeding it after [`SILENCE`].
//!
//! [`SILENCE`]: crate::web::SILENCE

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::crew::InForce;
use crate::view::{ConnectorState, ConnectorStatus};
use crate::web::{Board, Seat};
use crate::wording::{self, Weight};

/// Who is not ready after this time is not waited for: one state that cannot be opened keeps the others from nothing.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked whether everybody is ready. Only until then.
const READY_LOOK: Duration = Duration::from_millis(2);
/// How often the line about the connectors is made anew. It is sent when it is another one.
const STATUS_LOOK: Duration = Duration::from_secs(5);
/// How many connectors are named in that line, of those that want attention in one way.
const NAMED: usize = 3;

/// What it is told of besides what stands on the board.
#[derive(Debug)]
pub(super) enum News {
    /// The configuration is about to be read again.
    Reloading,
    /// It was. `taken`: nothing is wrong with it, and this is who goes by it.
    Reloaded { taken: bool, in_force: InForce },
}

/// What the status line begins with as long as the last configuration that was read had problems.
const REFUSED: &str = "the configuration has problems and is as before, see the log; ";

/// The service manager that started this process.
pub(super) struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    /// The time within which a sign of life is expected again and again, if one is.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The service manager that this environment tells of, if it tells of one.
    pub(super) fn of(env: &BTreeMap<String, String>) -> Option<Self> {
        let name = env.get("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        match Self::at(name) {
            Ok((socket, address)) => Some(Self {
                socket,
                address,
                watchdog: watchdog(env, std::process::id()),
            }),
            Err(error) => {
                tracing::warn!(socket = name, %error, "the service manager cannot be told anything");
                None
            }
        }
    }

    fn at(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
        let address = address(name)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok((socket, address))
    }

    /// Keeps the service manager informed until `stop` is cancelled.
    pub(super) async fn attend(self, board: Board, news: mpsc::UnboundedReceiver<News>, stop: CancellationToken) {
        let informing = async {
            self.ready(&board, "").await;
            tokio::join!(self.feed(&board), self.inform(&board, news));
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = informing => {}
        }
        self.tell("STOPPING=1\nSTATUS=stopping; letting what is in flight finish")
            .await;
    }

    /// Says that the daemon is ready, once every connector's state is open, or has said why it is not.
    async fn ready(&self, board: &Board, before: &str) {
        let settling = async {
            while !board.seats().iter().all(is_settled) {
                tokio::time::sleep(READY_LOOK).await;
            }
        };
        let _ = tokio::time::timeout(READY_WITHIN, settling).await;
        let line = line(board).await;
        self.tell(&format!("READY=1\nSTATUS={before}{line}")).await;
    }

    /// Feeds the watchdog as long as everybody lives.
    async fn feed(&self, board: &Board) {
        let Some(patience) = self.watchdog else {
            return std::future::pending().await;
        };
        let mut beat = tokio::time::interval(patience / 3);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut said = false;
        loop {
            beat.tick().await;
            match ailment(board) {
                None => {
                    said = false;
                    self.tell("WATCHDOG=1").await;
                }
                Some(ailment) if !said => {
                    said = true;
                    tracing::error!("{ailment}; unless that passes, the service manager starts this process again");
                    self.tell(&format!("STATUS={ailment}")).await;
                }
                Some(_) => {}
            }
        }
    }

    /// Says what the connectors do, and when the configuration is read again.
    async fn inform(&self, board: &Board, mut news: mpsc::UnboundedReceiver<News>) {
        let mut said = String::new();
        let mut before = "";
        // Never more than a fiftieth of the time: a thousand states take a moment to be asked.
        let mut wait = STATUS_LOOK;
        loop {
            tokio::select! {
                biased;
                Some(news) = news.recv() => match news {
                    // Without MONOTONIC_USEC, which only Type=notify-reload (systemd 253) waits for.
                    News::Reloading => self.tell("RELOADING=1\nSTATUS=reading the configuration again").await,
                    News::Reloaded { taken, in_force } => {
                        // Whoever is in the middle of something takes it between two steps.
                        let _ = tokio::time::timeout(READY_WITHIN, in_force.everywhere()).await;
                        before = if taken { "" } else { REFUSED };
                        said.clear();
                        self.ready(board, before).await;
                    }
                },
                () = tokio::time::sleep(wait) => {
                    let began = Instant::now();
                    let line = format!("{before}{}", line(board).await);
                    wait = STATUS_LOOK.max(began.elapsed() * 50);
                    if ailment(board).is_some() {
                        // What the watchdog says stands there, until it has passed.
                        said.clear();
                    } else if line != said {
                        self.tell(&format!("STATUS={line}")).await;
                        said = line;
                    }
                }
            }
        }
    }

    /// Sends a message. A full socket is waited for, but not for long; one that is gone is nobody's to mend here.
    async fn tell(&self, message: &str) {
        for _ in 0..100 {
            match self.socket.send_to_addr(message.as_bytes(), &self.address) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "the service manager was not told: {message}");
                    return;
                }
                Ok(_) => return,
            }
        }
    }
}

/// The address of a socket: a path, or behind `@` a name in Linux' abstract namespace.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => SocketAddr::from_pathname(name),
    }
}

/// Within which time this process must show signs of life, if it must.
fn watchdog(env: &BTreeMap<String, String>, own_pid: u32) -> Option<Duration> {
    let number = |name| env.get(name).map(|text| text.parse::<u64>());
    if let Some(pid) = number("WATCHDOG_PID")
        && pid != Ok(own_pid.into())
    {
        return None;
    }
    match number("WATCHDOG_USEC")? {
        Ok(micros) if micros > 0 => Some(Duration::from_micros(micros)),
        _ => None,
    }
}

fn is_settled(seat: &Seat) -> bool {
    seat.state.is_some() || seat.live.borrow().overlay.is_some()
}

/// Who shows no sign of life, if somebody does not.
fn ailment(board: &Board) -> Option<String> {
    board
        .seats()
        .iter()
        .find_map(|seat| Some(format!("connector {}: {}", seat.name, seat.ailment()?)))
}

async fn line(board: &Board) -> String {
    match board.statuses().await {
        Ok(report) => summary(&report.connectors),
        Err(error) => error.to_string(),
    }
}

/// What the connectors do, in one line: `3 connectors: 2 connected, 1 reconnect_required (acme)`.
fn summary(connectors: &[ConnectorStatus]) -> String {
    let mut states: Vec<(ConnectorState, Vec<&ConnectorStatus>)> = Vec::new();
    for connector in connectors {
        match states.iter_mut().find(|(state, _)| *state == connector.state) {
            Some((_, same)) => same.push(connector),
            None => states.push((connector.state, vec![connector])),
        }
    }
    if states.is_empty() {
        return "no connectors".to_owned();
    }
    // What is well comes first, as most of it is; what asks for somebody stands last.
    states.sort_by_key(|(state, _)| match wording::weight(*state) {
        Weight::Good => 0,
        Weight::Neutral => 1,
        Weight::Warning => 2,
        Weight::Bad => 3,
    });
    let parts: Vec<_> = states.iter().map(|(state, same)| part(*state, same)).collect();
    let count = wording::counted(connectors.len() as u64, "connector");
    format!("{count}: {}", parts.join(", "))
}

fn part(state: ConnectorState, same: &[&ConnectorStatus]) -> String {
    let part = format!("{} {}", same.len(), state.as_str());
    let named: Vec<String> = match (state, wording::weight(state)) {
        (ConnectorState::Collecting, _) => same
            .iter()
            .filter_map(|one| Some((one, one.progress.as_ref()?)))
            .map(|(one, progress)| format!("{}: {} so far", one.name, wording::counted(progress.users, "user")))
            .collect(),
        (_, Weight::Warning | Weight::Bad) => same.iter().map(|one| one.name.clone()).collect(),
        _ => Vec::new(),
    };
    match named.len() {
        0 => part,
        few if few <= NAMED => format!("{part} ({})", named.join(", ")),
        many => format!("{part} ({} and {} more)", named[..NAMED].join(", "), many - NAMED),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use tokio::sync::watch;

    use super::*;
    use crate::model::ConnectorName;
    use crate::view::Progress;
    use crate::web::{Live, Overlay, SILENCE, Settings};

    const MINUTE: Duration = Duration::from_secs(60);

    /// A board, a service manager that listens, and what is to tell it.
    struct World {
        _dir: tempfile::TempDir,
        manager: tokio::net::UnixDatagram,
        board: Board,
        supervisor: Supervisor,
    }

    fn world(watchdog: Duration) -> World {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let env = [
            ("NOTIFY_SOCKET", path.display().to_string()),
            ("WATCHDOG_USEC", watchdog.as_micros().to_string()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).into();
        World {
            manager: tokio::net::UnixDatagram::bind(&path).unwrap(),
            board: Board::new(),
            supervisor: Supervisor::of(&env).unwrap(),
            _dir: dir,
        }
    }

    async fn heard(manager: &tokio::net::UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let received = tokio::time::timeout(MINUTE, manager.recv(&mut buffer)).await;
        let length = received.expect("the service manager is told something").unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The first thing that is no sign of life. A few of those may have been sent before.
    async fn other_than_fed(manager: &tokio::net::UnixDatagram) -> String {
        for _ in 0..100 {
            let message = heard(manager).await;
            if message != "WATCHDOG=1" {
                return message;
            }
        }
        panic!("the watchdog is fed on and on");
    }

    /// A seat whose task said so much, and the end that it says it with.
    fn seat(name: &str, overlay: Option<ConnectorState>) -> (Seat, watch::Sender<Live>) {
        let overlay = overlay.map(|state| Overlay {
            state,
            reason: None,
            action: None,
        });
        let (say, live) = watch::channel(Live { overlay, ..Live::new() });
        let seat = Seat {
            name: ConnectorName::parse(name).unwrap(),
            state: None,
            poll_interval: MINUTE,
            key_expires: None,
            settings: Arc::new(Settings::by_default()),
            live,
        };
        (seat, say)
    }

    fn silent_for(silence: Duration) -> Live {
        Live {
            beat: Instant::now().checked_sub(silence).unwrap(),
            ..Live::new()
        }
    }

    #[tokio::test]
    async fn it_is_ready_when_every_connector_has_its_state_or_has_said_why_not() {
        let World {
            manager,
            board,
            supervisor,
            _dir,
        } = world(MINUTE);
        let (seat, say) = seat("main", None);
        assert!(!is_settled(&seat));
        board.seat(seat);
        let stop = CancellationToken::new();
        let (news, heard_of) = mpsc::unbounded_channel();
        let attending = tokio::spawn(supervisor.attend(board.clone(), heard_of, stop.clone()));
        // Nothing was told before this, or it would be heard first.
        say.send_modify(|live| {
            live.overlay = Some(Overlay {
                state: ConnectorState::Retrying,
                reason: Some("disk full".to_owned()),
                action: None,
            });
        });
        assert_eq!(heard(&manager).await, "READY=1\nSTATUS=1 connector: 1 retrying (main)");
        assert_eq!(heard(&manager).await, "WATCHDOG=1");
        news.send(News::Reloading).unwrap();
        assert_eq!(
            heard(&manager).await,
            "RELOADING=1\nSTATUS=reading the configuration again"
        );
        // It is in force when everybody goes by it, and not when it was read.
        let (take, in_force) = InForce::for_one(7);
        news.send(News::Reloaded { taken: true, in_force }).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), heard(&manager)).await;
        assert_eq!(early.ok(), None);
        take.send_replace(7);
        assert_eq!(heard(&manager).await, "READY=1\nSTATUS=1 connector: 1 retrying (main)");
        let (_take, in_force) = InForce::for_one(0);
        news.send(News::Reloaded { taken: false, in_force }).unwrap();
        let line = heard(&manager).await;
        assert!(
            line.starts_with("READY=1\nSTATUS=the configuration has problems"),
            "{line}"
        );
        stop.cancel();
        attending.await.unwrap();
        assert!(heard(&manager).await.starts_with("STOPPING=1\n"));
    }

    #[tokio::test]
    async fn the_watchdog_is_fed_only_while_every_connector_shows_signs_of_life() {
        let World {
            manager,
            board,
            supervisor,
            _dir,
        } = world(Duration::from_millis(30));
        let (well, _well) = seat("well", None);
        let (ill, say) = seat("ill", None);
        board.seat(well);
        board.seat(ill);
        let feeding = supervisor.feed(&board);
        let watching = async {
            for _ in 0..3 {
                assert_eq!(heard(&manager).await, "WATCHDOG=1");
            }
            say.send_replace(silent_for(SILENCE));
            assert_eq!(
                other_than_fed(&manager).await,
                "STATUS=connector ill: no sign of life for 5 min"
            );
            // Several times the watchdog's: whatever it is fed meanwhile would be heard.
            let fed = tokio::time::timeout(Duration::from_millis(150), heard(&manager)).await;
            assert_eq!(fed.ok(), None);
            say.send_replace(Live::new());
            assert_eq!(heard(&manager).await, "WATCHDOG=1");
            drop(say);
            assert_eq!(
                other_than_fed(&manager).await,
                "STATUS=connector ill: its task has ended"
            );
        };
        tokio::select! {
            () = feeding => {}
            () = watching => {}
        }
    }

    #[test]
    fn the_environment_says_whether_and_how_soon_it_is_watched() {
        let told = |pairs: &[(&str, &str)]| {
            let env = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            watchdog(&env.collect(), 42)
        };
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[("WATCHDOG_USEC", "60000000")]), Some(MINUTE));
        assert_eq!(
            told(&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "42")]),
            Some(MINUTE)
        );
        // Meant for the process that started this one.
        assert_eq!(told(&[("WATCHDOG_USEC", "60000000"), ("WATCHDOG_PID", "41")]), None);
        assert_eq!(told(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(told(&[("WATCHDOG_USEC", "soon")]), None);
        assert!(Supervisor::of(&BTreeMap::new()).is_none());
    }

    #[test]
    fn an_abstract_socket_is_one() {
        use std::os::linux::net::SocketAddrExt;
        let address = address("@torq-connector-test").unwrap();
        assert_eq!(address.as_abstract_name(), Some(&b"torq-connector-test"[..]));
    }

    #[test]
    fn one_line_says_what_all_connectors_do() {
        let of = |name: &str, state| ConnectorStatus::unknown(name, state, None);
        assert_eq!(summary(&[]), "no connectors");
        assert_eq!(
            summary(&[of("main", ConnectorState::Connected)]),
            "1 connector: 1 connected"
        );
        assert_eq!(
            summary(&[
                of("acme", ConnectorState::ReconnectRequired),
                of("beta", ConnectorState::Connected),
                of("gamma", ConnectorState::Connected),
            ]),
            "3 connectors: 2 connected, 1 reconnect_required (acme)"
        );
        let mut first = of("main", ConnectorState::Collecting);
        first.progress = Some(Progress {
            users: 1200,
            pages: 12,
            started: Timestamp::UNIX_EPOCH,
        });
        assert_eq!(summary(&[first]), "1 connector: 1 collecting (main: 1200 users so far)");
        let names = ["a", "b", "c", "d", "e"];
        assert_eq!(
            summary(&names.map(|name| of(name, ConnectorState::Retrying))),
            "5 connectors: 5 retrying (a, b, c and 2 more)"
        );
    }
}
