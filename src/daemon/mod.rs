//! The daemon: one task for each connector, the web server, the control socket, and an orderly end.
//!
//! A connector that fails, waits for a person or cannot even open its state stops nobody else. A *task* that ends although
//! nobody asked it to is a fault of this program: the process ends, and a supervisor starts it again.

mod attend;
pub mod control;
mod supervisor;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::web::{self, Access, Board};

use attend::Attendant;
use control::Control;
use supervisor::Supervisor;

/// How long what is in flight may take after the daemon was told to stop. `docker stop` kills after 10 s.
pub const GRACE: Duration = Duration::from_secs(8);

/// Why the daemon could not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The address of the status page.
    #[error(
        "cannot listen on {address}: {source}; is another daemon running? The address is http.listen in the configuration"
    )]
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

/// Where the configuration came from, so that a connector's part of it can be read again.
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
        metrics,
    } = setup;
    crate::sync::note_tenants(&config);
    let board = Board::new();
    let mut tasks: JoinSet<String> = JoinSet::new();
    let mut desks = BTreeMap::new();

    // So that a thousand connectors do not start together: they spread over as much time as that many need.
    let count = config.connectors.len() as u32;
    let spread = Duration::from_millis(50) * count.saturating_sub(1);
    let network = Arc::new(config.network.clone());
    for connector in config.connectors {
        let delay = spread.min(connector.poll_interval / 2).mul_f64(fastrand::f64());
        let name = connector.name.clone();
        let (attendant, desk) = Attendant::new(
            connector,
            config.state_dir.clone(),
            Arc::clone(&network),
            origin.clone(),
            board.clone(),
            reload.clone(),
            stop.child_token(),
        );
        desks.insert(name.to_string(), desk);
        tasks.spawn(async move {
            attendant.attend(delay).await;
            format!("connector {name}")
        });
    }
    if let Some(listener) = listener {
        let address = listener.local_addr().ok();
        let access = Access {
            local: address.is_some_and(|address| address.ip().is_loopback()),
            password: config.http.password.map(|password| password.value),
            hosts: config.http.hosts,
        };
        if let Some(address) = address {
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
            "the web server".to_owned()
        });
    }
    if let Some(supervisor) = origin.as_ref().and_then(|origin| Supervisor::of(&origin.env)) {
        let attending = supervisor.attend(board.clone(), reload, stop.clone());
        tasks.spawn(async move {
            attending.await;
            "the service manager".to_owned()
        });
    }
    let until = stop.clone();
    tasks.spawn(async move {
        control.serve(desks, board, until).await;
        "the control socket".to_owned()
    });
    tracing::info!(connectors = count, version = env!("CARGO_PKG_VERSION"), "started");
    supervise(tasks, stop).await
}

async fn supervise(mut tasks: JoinSet<String>, stop: CancellationToken) -> Result<(), DaemonError> {
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        ended = tasks.join_next() => ended,
    };
    match ended {
        // Two things may be true at once: a task that ends because it was told to is no fault.
        Some(ended) if !stop.is_cancelled() => {
            let (task, how) = match ended {
                Ok(task) => (task, "it returned".to_owned()),
                Err(error) if error.is_panic() => ("a connector".to_owned(), "it panicked".to_owned()),
                Err(error) => ("a connector".to_owned(), error.to_string()),
            };
            return Err(DaemonError::TaskEnded { task, how });
        }
        _ => {}
    }
    tracing::info!("stopping; letting what is in flight finish");
    let drained = tokio::time::timeout(GRACE, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            unfinished = tasks.len(),
            "not everything finished in time; the next start goes on there"
        );
    }
    tracing::info!("stopped");
    Ok(())
}
