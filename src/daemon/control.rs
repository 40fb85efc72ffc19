//! The control socket: how commands reach a running daemon. `<state_dir>/control.sock`, mode 0600; one JSON line asks, one
//! JSON line answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::orders::Desk;
use crate::http::clean;
use crate::http::foreign::complaint;
use crate::model::ConnectorName;
use crate::state::{Erasure, Lock, StateError};
use crate::sync::{Obstacle, Removal, RemovalPlan, RemovalTerms, RunEnd};
use crate::view::{ConnectorStatus, RunCounts, RunOutcome, StatusReport};
use crate::web::{Board, BoardError};

/// How often it is looked whether the socket is still there.
const LOOK: Duration = Duration::from_secs(10);
/// A connector whose peer has not answered for so long is not waited for any more by a command; the daemon goes on trying.
const PATIENCE: Duration = Duration::from_secs(60);
/// A daemon that works answers a command within so long that it is there.
const ANSWERS: Duration = Duration::from_secs(5);
/// The longest request that is read, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;

/// The control socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another daemon has it.
    #[error(
        "another daemon is at work in the state_dir {dir} ({holder}): stop that one first, or give this one a state_dir of its own"
    )]
    Taken {
        /// The folder.
        dir: PathBuf,
        /// Which process, as far as known.
        holder: String,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    State(StateError),
    /// The file system said no.
    #[error("cannot open the control socket {path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What somebody who approves has seen, and wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalTerms {
    /// How many removals were shown as held; `None`: whatever is held by now.
    pub count: Option<u64>,
    /// What was approved and is not carried out yet is held again.
    pub withdraw: bool,
}

/// What can be asked of a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// One run now.
    Sync,
    /// Read the configuration and the secrets again, and try.
    Reconnect,
    /// Stop polling and delivering.
    Pause,
    /// Go on.
    Resume,
    /// Believe the removals that are held.
    Approve(ApprovalTerms),
    /// Deliver again what was refused.
    Retry,
    /// Look what a removal would take away.
    PlanRemoval,
    /// Take away what the connector made, and forget it.
    Remove(RemovalTerms),
}

/// A request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Request {
    /// Nothing: whether somebody answers.
    Ping,
    /// The status of all connectors.
    Status,
    /// Where the status page, health and metrics are served.
    Address,
    /// An action on some connectors, side by side.
    Act {
        /// Which.
        action: Action,
        /// On whom.
        connectors: Vec<String>,
    },
    /// Forgetting somebody who left, or what that would take away.
    Forget {
        /// Of which connector.
        connector: String,
        /// Who: a Torq id or an e-mail.
        person: String,
        /// Whether it is to be done.
        really: bool,
    },
}

/// What a connector answers to an action.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It ran.
    Ran(Box<RunReport>),
    /// Done; what that means.
    Done(String),
    /// It is paused.
    Paused,
    /// It was removed.
    Removed,
    /// A peer does not answer, and the daemon goes on trying; what is wrong.
    Waits(String),
    /// The daemon is stopping, or does not attend the connector any more.
    Stopping,
    /// What a removal would take away, or why that cannot be said.
    Plan(Box<Result<RemovalPlan, Obstacle>>),
    /// What a removal did.
    Removal(Box<Removal>),
    /// It is otherwise than whoever asks believes, and nothing was done; how it is.
    Otherwise(String),
    /// It cannot; why.
    Refused(String),
}

/// A run's end, as a command tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunReport {
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why it did not come to its end.
    pub reason: Option<String>,
    /// What a person should do about it.
    pub action: Option<String>,
    /// What it changed.
    pub counts: RunCounts,
    /// The status afterwards.
    pub status: ConnectorStatus,
    /// What is wrong with the files of its secrets, where they were to be read again; it ran with what it had.
    #[serde(default)]
    pub problems: Vec<String>,
}

impl RunReport {
    /// From a run's end.
    pub fn of(end: RunEnd) -> Self {
        Self {
            outcome: end.outcome,
            reason: end.halt.as_ref().map(ToString::to_string),
            action: end.action,
            counts: end.counts,
            status: end.status,
            problems: Vec::new(),
        }
    }

    /// A run that could not begin.
    pub(super) fn failed(status: ConnectorStatus, reason: String) -> Self {
        Self {
            outcome: RunOutcome::Failed,
            reason: Some(reason),
            action: None,
            counts: RunCounts::default(),
            status,
            problems: Vec::new(),
        }
    }
}

/// A response.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// To [`Request::Ping`].
    Here,
    /// To [`Request::Status`].
    Status(StatusReport),
    /// To [`Request::Address`]; `None`: nowhere.
    Address(Option<SocketAddr>),
    /// To [`Request::Act`].
    Answers {
        /// By connector.
        answers: BTreeMap<String, Answer>,
        /// Why the configuration was not read again, where it was to be.
        problems: Option<String>,
    },
    /// To [`Request::Forget`].
    Erasure(Erasure),
    /// The request makes no sense.
    Error(String),
}

/// Somebody asks for the configuration to be read again.
pub(super) struct Reload {
    /// The connectors that are told by an order of their own.
    pub(super) asked_for: Vec<String>,
    /// What else is new in it does not matter now.
    pub(super) only_these: bool,
    /// Told what is wrong with the configuration, if something is, when it was read.
    pub(super) done: oneshot::Sender<Option<String>>,
}

/// Where the connectors take orders, by name. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Desks(Arc<RwLock<BTreeMap<String, Desk>>>);

impl Desks {
    pub(super) fn add(&self, name: &str, desk: Desk) {
        let mut desks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        desks.insert(name.to_owned(), desk);
    }

    pub(super) fn remove(&self, name: &str) {
        let mut desks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        desks.remove(name);
    }

    fn find(&self, name: &str) -> Option<Desk> {
        let desks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        desks.get(name).cloned()
    }
}

/// The listening end.
pub struct Control {
    listener: UnixListener,
    state_dir: PathBuf,
    lock: Lock,
}

fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// Listens at the socket's path. The daemon's lock must be held.
fn listen(state_dir: &Path) -> Result<UnixListener, ControlError> {
    let path = socket(state_dir);
    let failed = |source| ControlError::Socket {
        path: path.clone(),
        source,
    };
    // Left by a daemon that was killed: we hold the lock, so nobody listens there.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

impl Control {
    /// Takes the control socket of a state folder. One daemon at a time has it.
    pub fn bind(state_dir: &Path) -> Result<Self, ControlError> {
        let lock = Lock::take_daemon(state_dir).map_err(|error| match error {
            StateError::InUse { holder, .. } => ControlError::Taken {
                dir: state_dir.to_owned(),
                holder,
            },
            other => ControlError::State(other),
        })?;
        Ok(Self {
            listener: listen(state_dir)?,
            state_dir: state_dir.to_owned(),
            lock,
        })
    }

    /// Puts the socket back when somebody deleted it: without it, commands believe that no daemon is running.
    fn put_back(&mut self) {
        let path = socket(&self.state_dir);
        if self.lock.is_in_place() && path.symlink_metadata().is_ok() {
            return;
        }
        let again = || {
            let lock = match self.lock.is_in_place() {
                true => None,
                false => Some(Lock::take_daemon(&self.state_dir).map_err(ControlError::State)?),
            };
            Ok::<_, ControlError>((lock, listen(&self.state_dir)?))
        };
        match again() {
            Ok((lock, listener)) => {
                tracing::warn!(socket = %path.display(), "the control socket was deleted; it is there again");
                self.listener = listener;
                if let Some(lock) = lock {
                    self.lock = lock;
                }
            }
            Err(error) => tracing::warn!(%error, "the control socket was deleted, and cannot be put back"),
        }
    }

    /// Answers until `stop` is cancelled.
    pub(super) async fn serve(
        mut self,
        desks: Desks,
        board: Board,
        reloads: mpsc::Sender<Reload>,
        stop: CancellationToken,
    ) {
        let tracker = TaskTracker::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stream = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = look.tick() => {
                    self.put_back();
                    continue;
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "the control socket could not accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (desks, board, reloads) = (desks.clone(), board.clone(), reloads.clone());
            tracker.spawn(async move {
                if let Err(error) = converse(stream, &desks, &board, &reloads).await {
                    tracing::debug!(%error, "a command went away before its answer");
                }
            });
        }
        drop(self);
        tracker.close();
        tracker.wait().await;
    }
}

impl Drop for Control {
    /// Nobody listens there any more.
    fn drop(&mut self) {
        if self.lock.is_in_place() {
            let _ = std::fs::remove_file(socket(&self.state_dir));
        }
    }
}

async fn converse(stream: UnixStream, desks: &Desks, board: &Board, reloads: &mpsc::Sender<Reload>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    BufReader::new(read.take(MAX_REQUEST))
        .read_until(b'\n', &mut line)
        .await?;
    let response = match read_request(&line) {
        Ok(request) => respond(request, desks, board, reloads).await,
        Err(words) => Response::Error(words),
    };
    let mut text = serde_json::to_vec(&response)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Reads the line that asks, or says what is wrong with it. A connector that is named twice is asked once.
pub(crate) fn read_request(line: &[u8]) -> Result<Request, String> {
    let mut request = serde_json::from_slice(line).map_err(|error| format!("not a request: {}", complaint(&error)))?;
    if let Request::Act { connectors, .. } = &mut request {
        let mut known = BTreeSet::new();
        connectors.retain(|name| known.insert(name.clone()));
    }
    Ok(request)
}

async fn respond(request: Request, desks: &Desks, board: &Board, reloads: &mpsc::Sender<Reload>) -> Response {
    match request {
        Request::Ping => Response::Here,
        Request::Address => Response::Address(board.address()),
        Request::Status => match board.statuses().await {
            Ok(report) => Response::Status(report),
            Err(error) => Response::Error(error.to_string()),
        },
        // Beside whatever is going on: it is one transaction, and concerns nobody who is polled or delivered.
        Request::Forget {
            connector,
            person,
            really,
        } => match forget(board, &connector, person, really).await {
            Ok(erasure) => Response::Erasure(erasure),
            Err(error) => Response::Error(error.to_string()),
        },
        Request::Act { action, connectors } => {
            let problems = match action {
                // First, for the connector may be new.
                Action::Reconnect => reload(reloads, &connectors, false).await,
                // Its credentials may be. But who only looks what a removal would do starts no connector.
                Action::PlanRemoval | Action::Remove(_) => reload(reloads, &connectors, true).await,
                _ => None,
            };
            if let Some(unknown) = connectors.iter().find(|name| desks.find(name).is_none()) {
                let because = problems.map_or_else(
                    || "let it read its configuration again (SIGHUP, or torq-connector reconnect)".to_owned(),
                    |problems| format!("it could not read its configuration again:\n{problems}"),
                );
                return Response::Error(format!(
                    "the running daemon has no connector {}; {because}",
                    clean(unknown)
                ));
            }
            let asked = connectors.into_iter().map(|name| async {
                let Some(desk) = desks.find(&name) else {
                    return (name, Answer::Stopping);
                };
                let runs = matches!(action, Action::Sync | Action::Reconnect);
                let answer = tokio::select! {
                    biased;
                    answer = desk.ask(action) => answer.unwrap_or(Answer::Stopping),
                    reason = trouble_lasts(board, &name, PATIENCE), if runs => Answer::Waits(reason),
                };
                (name, answer)
            });
            let answers = futures_util::future::join_all(asked).await.into_iter().collect();
            Response::Answers { answers, problems }
        }
    }
}

async fn forget(board: &Board, connector: &str, person: String, really: bool) -> Result<Erasure, BoardError> {
    let state = board.state_of(connector)?;
    Ok(state.erase(Timestamp::now(), person, really).await?)
}

/// Ends when a connector's peer has been in trouble for so long, all the time; says what the trouble is.
async fn trouble_lasts(board: &Board, name: &str, patience: Duration) -> String {
    let mut since = None;
    let mut look = tokio::time::interval(patience / 60);
    loop {
        let now = look.tick().await;
        let Some(reason) = board.trouble(name) else {
            since = None;
            continue;
        };
        if now.duration_since(*since.get_or_insert(now)) >= patience {
            return reason;
        }
    }
}

/// Lets the configuration be read again. Returns what is wrong with it.
async fn reload(reloads: &mpsc::Sender<Reload>, asked_for: &[String], only_these: bool) -> Option<String> {
    let (done, told) = oneshot::channel();
    let reload = Reload {
        asked_for: asked_for.to_vec(),
        only_these,
        done,
    };
    reloads.send(reload).await.ok()?;
    told.await.ok()?
}

/// Asks the running daemon of a state folder; `None` when none runs. Nothing is asked of one that does not answer at all, or it
/// would do so whenever it comes to itself.
pub async fn ask(state_dir: &Path, request: &Request) -> io::Result<Option<Response>> {
    match tokio::time::timeout(ANSWERS, converse_once(state_dir, &Request::Ping)).await {
        Ok(Ok(Some(_))) => converse_once(state_dir, request).await,
        Ok(none) => none,
        Err(_) => {
            let holder = Lock::daemon_holder(state_dir).map_or_else(String::new, |holder| format!(" ({holder})"));
            let words =
                format!("it does not answer{holder}, though it is there; is it stopped, or the machine overloaded?");
            Err(io::Error::new(io::ErrorKind::TimedOut, words))
        }
    }
}

async fn converse_once(state_dir: &Path, request: &Request) -> io::Result<Option<Response>> {
    let stream = match UnixStream::connect(socket(state_dir)).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let (read, mut write) = stream.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    let mut answer = String::new();
    BufReader::new(read).read_line(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::Error::other("the daemon stopped before it answered"));
    }
    Ok(Some(serde_json::from_str(&answer)?))
}

/// The connectors that are meant: all of them, or those that are named.
pub fn named(all: &[ConnectorName], wanted: &[String]) -> Result<Vec<ConnectorName>, String> {
    if wanted.is_empty() {
        return Ok(all.to_vec());
    }
    let mut found = Vec::new();
    for name in wanted {
        match all.iter().find(|known| known.as_str() == name) {
            Some(known) if found.contains(known) => {}
            Some(known) => found.push(known.clone()),
            None => {
                let known: Vec<_> = all.iter().map(ConnectorName::as_str).collect();
                return Err(format!(
                    "there is no connector {name} in the configuration; there is {}",
                    known.join(", ")
                ));
            }
        }
    }
    Ok(found)
}
