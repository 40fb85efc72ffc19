//! The board: which connectors are running, and what each says of itself. The daemon writes it; the web and the control socket
//! read it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use super::Settings;
use crate::model::ConnectorName;
use crate::state::{EventQuery, State, StateError, UserPageQuery, UserSelection};
use crate::view::{ConnectorState, ConnectorStatus, EventsReport, StatusReport, UsersReport};
use crate::wording;

/// A connector may be silent for so long before it counts as stuck.
pub const SILENCE: Duration = Duration::from_secs(5 * 60);

/// Every running connector, in the order of their names. Clones share it.
#[derive(Clone, Default)]
pub struct Board {
    seats: Arc<RwLock<BTreeMap<ConnectorName, Seat>>>,
    /// Where it is shown, if it is.
    address: Arc<OnceLock<SocketAddr>>,
}

/// One running connector. It holds the state, and with it the state's lock, until it is replaced or removed.
#[derive(Clone)]
pub struct Seat {
    /// The connector.
    pub name: ConnectorName,
    /// What is known about it; `None` as long as its state could not be opened.
    pub state: Option<State>,
    /// Time from one poll's start to the next.
    pub poll_interval: Duration,
    /// When its Torq API key expires, as configured.
    pub key_expires: Option<Timestamp>,
    /// The settings that are shown.
    pub settings: Arc<Settings>,
    /// What its task last said. The task holds the other end, and must drop it only when it ends.
    pub live: watch::Receiver<Live>,
}

/// What a connector's task says of this moment, which is nothing that the state would keep.
#[derive(Clone, Debug)]
pub struct Live {
    /// What it is doing; shown instead of the state that was last noted.
    pub overlay: Option<Overlay>,
    /// When it polls next.
    pub next_poll: Option<Timestamp>,
    /// When a run of this process last came to its end.
    pub succeeded: Option<Instant>,
    /// When it last showed a sign of life. To be renewed more often than every [`SILENCE`], whatever it waits for.
    pub beat: Instant,
}

/// A state of this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The state.
    pub state: ConnectorState,
    /// Why, for a person.
    pub reason: Option<String>,
    /// What a person should do.
    pub action: Option<String>,
}

impl Live {
    /// A first sign of life.
    pub fn new() -> Self {
        Self {
            overlay: None,
            next_poll: None,
            succeeded: None,
            beat: Instant::now(),
        }
    }
}

impl Live {
    fn laid_over(self, mut status: ConnectorStatus) -> ConnectorStatus {
        // What a person decided, or must decide, is not covered up by what the task is just doing.
        let decided = matches!(
            status.state,
            ConnectorState::Paused
                | ConnectorState::ReconnectRequired
                | ConnectorState::NotLicensed
                | ConnectorState::Removed
        );
        if let Some(overlay) = self.overlay.filter(|_| !decided) {
            status.state = overlay.state;
            status.reason = overlay.reason;
            status.action = overlay.action;
        }
        let stopped = matches!(
            status.state,
            ConnectorState::Paused | ConnectorState::ReconnectRequired | ConnectorState::Removed
        );
        status.next_poll = self.next_poll.filter(|_| !stopped);
        status
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

/// What was asked of the board could not be told.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// There is no such connector.
    #[error("there is no connector {name:?} here; running: {}", running(.known))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// Its state is not open.
    #[error("the state of connector {name} is not open{}", because(.reason))]
    Closed {
        /// The connector.
        name: String,
        /// Why, as far as its task said.
        reason: Option<String>,
        /// It was removed: then that is how it should be.
        removed: bool,
    },
    /// Its state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
}

fn running(known: &[String]) -> String {
    if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    }
}

fn because(reason: &Option<String>) -> String {
    reason
        .as_ref()
        .map_or_else(|| " yet".to_owned(), |reason| format!(": {reason}"))
}

impl Seat {
    /// What is known.
    pub(super) fn state(&self) -> Result<&State, BoardError> {
        self.state.as_ref().ok_or_else(|| BoardError::Closed {
            name: self.name.to_string(),
            reason: self.live.borrow().overlay.clone().and_then(|overlay| overlay.reason),
            removed: self.is_removed(),
        })
    }

    /// Whether the connector was removed: then it has no state, and that is how it should be.
    pub(super) fn is_removed(&self) -> bool {
        let live = self.live.borrow();
        let removed = |overlay: &Overlay| overlay.state == ConnectorState::Removed;
        self.state.is_none() && live.overlay.as_ref().is_some_and(removed)
    }

    /// The status: what the state knows, and over it what the task says of this moment.
    pub async fn status(&self) -> Result<ConnectorStatus, BoardError> {
        if self.is_removed() {
            let nothing = ConnectorStatus::unknown(self.name.as_str(), ConnectorState::Starting, None);
            return Ok(self.live.borrow().clone().laid_over(nothing));
        }
        // Taken before the state is read: what the task notes in the state meanwhile is newer than what it said.
        let live = self.live.borrow().clone();
        let status = self.state()?.call(|store| store.status()).await?;
        Ok(live.laid_over(status))
    }

    /// How large its state is, in bytes; `None` where that cannot be told.
    pub(super) async fn state_size(&self) -> Option<u64> {
        self.state().ok()?.size().await.ok()
    }

    /// The status of a connector whose state cannot be read: nothing is known but what its task says.
    fn blank(&self, error: &BoardError) -> ConnectorStatus {
        let live = self.live.borrow().clone();
        let (state, reason) = match (error, live.overlay.is_some()) {
            // Not open yet, or the task says itself why not.
            (BoardError::Closed { .. }, _) | (_, true) => (ConnectorState::Starting, None),
            (error, false) => (ConnectorState::Retrying, Some(error.to_string())),
        };
        live.laid_over(ConnectorStatus::unknown(self.name.as_str(), state, reason))
    }

    /// Why the connector's task does not work, in a few words; `None` when it does.
    pub fn ailment(&self) -> Option<String> {
        // The task holds the sending end.
        if self.live.has_changed().is_err() {
            return Some("its task has ended".to_owned());
        }
        let silence = self.live.borrow().beat.elapsed();
        (silence >= SILENCE).then(|| format!("no sign of life for {}", wording::span(silence)))
    }
}

impl Board {
    /// An empty board.
    pub fn new() -> Self {
        Self::default()
    }

    /// It is shown at this address from now on.
    pub fn is_shown_at(&self, address: SocketAddr) {
        let _ = self.address.set(address);
    }

    /// Where it is shown; `None`: nowhere.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    /// Adds a connector, or replaces the one of the same name.
    pub fn seat(&self, seat: Seat) {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        seats.insert(seat.name.clone(), seat);
    }

    /// Takes a connector away; it says what it was.
    pub fn remove(&self, name: &ConnectorName) -> Option<Seat> {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        seats.remove(name)
    }

    /// Every connector, in the order of their names.
    pub fn seats(&self) -> Vec<Seat> {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        seats.values().cloned().collect()
    }

    /// What a connector's task says is wrong with a peer at this moment.
    pub fn trouble(&self, name: &str) -> Option<String> {
        let seats = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        let seat = seats.values().find(|seat| seat.name.as_str() == name)?;
        let live = seat.live.borrow();
        let overlay = live.overlay.as_ref()?;
        let reason = overlay.reason.as_ref()?;
        (overlay.state == ConnectorState::Retrying).then(|| reason.clone())
    }

    /// The connector of this name, or all of them.
    fn chosen(&self, name: Option<&str>) -> Result<Vec<Seat>, BoardError> {
        let mut seats = self.seats();
        let Some(name) = name else {
            return Ok(seats);
        };
        let known = seats.iter().map(|seat| seat.name.to_string()).collect();
        seats.retain(|seat| seat.name.as_str() == name);
        if seats.is_empty() {
            let name = name.to_owned();
            return Err(BoardError::Unknown { name, known });
        }
        Ok(seats)
    }

    /// The connector of this name.
    pub(super) fn seated(&self, name: &str) -> Result<Seat, BoardError> {
        let seats = self.chosen(Some(name))?;
        seats.into_iter().next().ok_or_else(|| BoardError::Unknown {
            name: name.to_owned(),
            known: Vec::new(),
        })
    }

    /// The state of the connector of this name, for whoever acts on it beside its task.
    ///
    /// # Errors
    /// There is no such connector, or its state is not open.
    pub fn state_of(&self, name: &str) -> Result<State, BoardError> {
        self.seated(name)?.state().cloned()
    }

    /// The status of every connector. One whose state cannot be read is shown as that, with nothing counted; an error means
    /// that the process is ending.
    pub async fn statuses(&self) -> Result<StatusReport, StateError> {
        let mut connectors = Vec::new();
        for seat in self.seats() {
            connectors.push(match seat.status().await {
                Ok(status) => status,
                Err(BoardError::State(error @ StateError::Ending)) => return Err(error),
                Err(error) => seat.blank(&error),
            });
        }
        Ok(StatusReport {
            connectors,
            daemon: true,
        })
    }

    /// The selected users of one connector, or of all.
    pub async fn users(&self, name: Option<&str>, selection: UserSelection) -> Result<UsersReport, BoardError> {
        let everyone = selection == UserSelection::default();
        let query = UserPageQuery {
            selection,
            limit: u32::MAX,
            ..UserPageQuery::default()
        };
        let mut users = Vec::new();
        for seat in self.chosen(name)?.iter().filter(|seat| !seat.is_removed()) {
            let query = query.clone();
            let found = seat.state()?.call(move |store| {
                if everyone {
                    return store.users();
                }
                let page = store.user_page(&query)?;
                Ok(page.users.into_iter().map(|row| row.user).collect())
            });
            users.extend(found.await?);
        }
        Ok(UsersReport { users })
    }

    /// The events of one connector, or of all, with the names of roles: oldest first, and with a limit, the latest of them all.
    pub async fn events(&self, name: Option<&str>, query: EventQuery) -> Result<EventsReport, BoardError> {
        let mut histories = Vec::new();
        for seat in self.chosen(name)?.iter().filter(|seat| !seat.is_removed()) {
            let query = query.clone();
            let history = seat.state()?.call(move |store| {
                let mut history = store.events(&query)?;
                wording::name_roles(&mut history, &store.roles()?);
                Ok(history)
            });
            histories.push(history.await?);
        }
        Ok(EventsReport::merged(histories, query.limit))
    }
}
