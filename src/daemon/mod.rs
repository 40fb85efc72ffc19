//! The daemon: one task for each connector, the web server, the control socket, and an orderly end.
//!
//! | room | about |
//! | --- | --- |
//! | `crew` | who is attended, and how a new configuration changes that |
//! | `attend` | attending one connector: it runs on schedule, and does what a person asks of it |
//! | `schedule` | what it does by itself, and when; `due` is when that comes, by two clocks |
//! | `orders` | what is asked of a connector, and how that waits for its turn |
//! | `open` | opening a connector's state, and what is done while that cannot be |
//! | `obstacle` | what keeps a connector from its work, as it is shown |
//! | `said` | what the log was told of it, so that what lasts is said once |
//! | `removal` | a connector that a person removes, and one that was removed |
//! | `control` | the control socket |
//! | `deeds` | what people ask of a connector's state, with or without a daemon |
//!
//! A connector that fails, waits for a person or cannot even open its state stops nobody else. A *task* that ends although
//! nobody asked it to is a fault of this program: the process ends, and a supervisor starts it again.

mod attend;
mod carry_out;
pub mod control;
mod crew;
pub mod deeds;
mod due;
mod obstacle;
mod open;
mod orders;
mod removal;
mod said;
mod schedule;
mod supervisor;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::web::{self, Access, Board};

use control::{Control, Desks, Reload};
pub use crew::Relog;
use crew::{Crew, Ended};
use supervisor::{News, Supervisor};

/// How long what is in flight may take after the daemon was told to stop. `docker stop` kills after 10 s.
pub const GRACE: Duration = Duration::from_secs(8);

/// Why the daemon could not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The address of the status page.
    #[error("cannot listen on {address}: {source}; {}", listen_hint(.source))]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The control socket.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// A task ended although nobody asked it to.
    #[error("the task of {task} ended unexpectedly ({how}); the process ends, so that a supervisor starts it again")]
    TaskEnded {
        /// Whose.
        task: String,
        /// How.
        how: String,
    },
}

fn listen_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrNotAvailable => "this machine has no such address. It is http.listen in the configuration",
        ErrorKind::AddrInUse => "is another daemon running? The address is http.listen in the configuration",
        _ => "the address is http.listen in the configuration",
    }
}

/// Where the configuration came from, so that it can be read again.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// The environment.
    pub env: BTreeMap<String, String>,
}

/// What the daemon needs.
pub struct Setup {
    /// The checked configuration.
    pub config: Config,
    /// Where it came from; `None` for one that is not in a file.
    pub origin: Option<Origin>,
    /// Changes when the operator asks to read the configuration again.
    pub reload: watch::Receiver<u64>,
    /// Sets the log's level, when the configuration that is read again has another one.
    pub relog: Option<Relog>,
    /// Renders the metrics, when a recorder is installed.
    pub metrics: Option<PrometheusHandle>,
}

/// Binds the address of the status page.
pub async fn listen(config: &Config) -> Result<Option<TcpListener>, DaemonError> {
    let Some(address) = config.http.listen else {
        return Ok(None);
    };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) => Err(DaemonError::Listen { address, source }),
    }
}

/// Runs until `stop` is cancelled, then lets what is in flight finish, within [`GRACE`].
pub async fn run(
    setup: Setup,
    control: Control,
    listener: Option<TcpListener>,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let Setup {
        config,
        origin,
        reload,
        relog,
        metrics,
    } = setup;
    let board = Board::new();
    let desks = Desks::default();
    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    if let Some(listener) = listener {
        let address = listener.local_addr().ok();
        let access = Access {
            local: address.is_some_and(|address| address.ip().is_loopback()),
            password: config.http.password.clone().map(|password| password.value),
            hosts: config.http.hosts.clone(),
        };
        if let Some(address) = address {
            board.is_shown_at(address);
            tracing::info!(%address, "status page, health and metrics");
            if !access.local && access.password.is_none() {
                tracing::warn!(%address, "the status page names people, so it is not served on this address without http.password_file; health and metrics are");
            }
        }
        let board = board.clone();
        let until = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            if let Err(error) = web::serve(listener, board, access, metrics, until).await {
                tracing::error!(%error, "the web server ended");
            }
            "the web server"
        });
    }
    let supervisor = origin.as_ref().and_then(|origin| Supervisor::of(&origin.env));
    let (reloads, asked) = mpsc::channel(16);
    let crew = Crew::start(
        config,
        origin,
        relog,
        board.clone(),
        desks.clone(),
        reloads.clone(),
        stop.clone(),
    );
    let (news, heard) = mpsc::unbounded_channel();
    // Everybody has a seat by now, or the process would count as ready without those who have none.
    if let Some(supervisor) = supervisor {
        let attending = supervisor.attend(board.clone(), heard, stop.clone());
        tasks.spawn(async move {
            attending.await;
            "the service manager"
        });
    }
    let until = stop.clone();
    tasks.spawn(async move {
        control.serve(desks, board, reloads, until).await;
        "the control socket"
    });
    tracing::info!(connectors = crew.len(), version = env!("CARGO_PKG_VERSION"), "started");
    supervise(tasks, crew, reload, asked, news, stop).await
}

/// Reads the configuration again for everybody who waits for it: a thousand secrets that change together are no thousand readings.
async fn reload_for_all(crew: &mut Crew, first: Reload, asked: &mut mpsc::Receiver<Reload>) {
    let more = std::iter::from_fn(|| asked.try_recv().ok());
    let all = std::iter::once(first).chain(more);
    let (these, whole): (Vec<_>, Vec<_>) = all.partition(|one| one.only_these);
    for (some, only_these) in [(whole, false), (these, true)] {
        if some.is_empty() {
            continue;
        }
        let asked_for: Vec<String> = some.iter().flat_map(|one| one.asked_for.clone()).collect();
        let problems = crew.reload(&asked_for, only_these).await.err();
        for one in some {
            let _ = one.done.send(problems.clone());
        }
    }
}

/// Watches over the tasks, and reads the configuration again when asked to, until the process is to end or a task ends unasked.
async fn supervise(
    mut tasks: JoinSet<&'static str>,
    mut crew: Crew,
    mut reload: watch::Receiver<u64>,
    mut asked: mpsc::Receiver<Reload>,
    news: mpsc::UnboundedSender<News>,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let fault = loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break None,
            Some(ended) = tasks.join_next() => {
                let (task, how) = match ended {
                    Ok(task) => (task.to_owned(), "it returned".to_owned()),
                    Err(error) if error.is_panic() => ("a server".to_owned(), "it panicked".to_owned()),
                    Err(error) => ("a server".to_owned(), error.to_string()),
                };
                break Some((task, how));
            }
            Some(ended) = crew.next_ended() => match ended {
                Ended::Left(name) => crew.left(&name),
                Ended::Fault(name, how) => break Some((format!("connector {name}"), how)),
            },
            Ok(()) = reload.changed() => {
                // Without a service manager nobody listens.
                let _ = news.send(News::Reloading);
                // What is wrong with it was logged.
                let taken = crew.reload(&[], false).await.is_ok();
                let _ = news.send(News::Reloaded { taken, in_force: crew.in_force() });
            }
            Some(first) = asked.recv() => reload_for_all(&mut crew, first, &mut asked).await,
        }
    };
    // Two things may be true at once: a task that ends because it was told to is no fault.
    if let Some((task, how)) = fault.filter(|_| !stop.is_cancelled()) {
        return Err(DaemonError::TaskEnded { task, how });
    }
    tracing::info!("stopping; letting what is in flight finish");
    // Nobody reads these any more: whoever waits for an answer hears so.
    drop(asked);
    let drained = tokio::time::timeout(GRACE, async {
        while tasks.join_next().await.is_some() {}
        while crew.next_ended().await.is_some() {}
    })
    .await;
    if drained.is_err() {
        tracing::warn!(
            unfinished = tasks.len() + crew.unfinished(),
            "not everything finished in time; the next start goes on there"
        );
    }
    tracing::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A daemon without connectors whose one server does this, until `stop`.
    async fn supervised(server: fn(), stop: CancellationToken) -> Result<(), DaemonError> {
        let text = "[connectors.main]
            torq = { region = \"us\", client_id = \"a\", client_secret = \"bbbb\" }
            jumpcloud = { region = \"us\", client_id = \"c\", client_secret = \"dddd\" }\n";
        let mut config = crate::config::parse(text, Path::new("/"), Some(0o600), &BTreeMap::new()).unwrap();
        config.connectors.clear();
        let (reloads, asked) = mpsc::channel(1);
        let (_reload, reloaded) = watch::channel(0);
        let crew = Crew::start(
            config,
            None,
            None,
            Board::new(),
            Desks::default(),
            reloads,
            stop.clone(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            server();
            "a server"
        });
        supervise(tasks, crew, reloaded, asked, mpsc::unbounded_channel().0, stop).await
    }

    #[tokio::test]
    async fn a_task_that_dies_takes_the_process_down_unless_it_is_stopping_anyway() {
        let ends: [(fn(), &str); 2] = [
            (|| {}, "it returned"),
            (
                || std::panic::resume_unwind(Box::new("a fault in a test")),
                "it panicked",
            ),
        ];
        for (server, how) in ends {
            let error = supervised(server, CancellationToken::new()).await.unwrap_err();
            assert!(matches!(&error, DaemonError::TaskEnded { .. }), "{error}");
            assert!(error.to_string().contains(how), "{error}");
            let stopping = CancellationToken::new();
            stopping.cancel();
            supervised(server, stopping).await.unwrap();
        }
    }
}
