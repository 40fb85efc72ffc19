//! `run`: the daemon, its signals and its end.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::logging::{self, Who};
use super::sync::state_words;
use super::{CommandError, Context, Exit, check, limits, tell};
use crate::config;
use crate::daemon::control::{Control, ControlError};
use crate::daemon::{self, DaemonError, Origin, Relog, Setup};
use crate::metrics;

/// What a command says that lets what is in flight finish.
pub(super) const STOPPING: &str = "stopping; once more to quit at once";

pub(super) async fn run(context: Context) -> Result<Exit, CommandError> {
    // First of all: by its default it ends the process, without a word, and systemd takes that for a clean end.
    let reload = reload_on_hangup()?;
    let config = context.config_to_run()?;
    crate::http::check_environment().map_err(|error| CommandError::new(Exit::Config, error))?;
    let level = logging::start(&config.log, Who::Daemon, context.verbose);
    limits::warn_of_files(config.connectors.len());
    if let Some(words) = check::open_folder(&config.state_dir) {
        tracing::warn!("{words}");
    }
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone(), None)?;
    let setup = Setup {
        config,
        origin: Some(Origin {
            path: context.path,
            env: context.env,
        }),
        reload,
        relog: level.map(|level| Box::new(move |log: &config::Log| level.set(log)) as Relog),
        metrics: Some(recorder()?),
    };
    serve(setup, stop).await
}

/// Runs the daemon until `stop`; what it may end with becomes an exit code.
pub(super) async fn serve(setup: Setup, stop: CancellationToken) -> Result<Exit, CommandError> {
    let failed = |error: DaemonError| match &error {
        DaemonError::TaskEnded { .. } => CommandError::new(Exit::Died, error),
        DaemonError::Control(ControlError::State(cause)) => CommandError::unexpected(state_words(cause)),
        DaemonError::Listen { .. } | DaemonError::Control(_) => CommandError::unexpected(error),
    };
    // First, so that a second daemon hears of the first, and not of an address in use.
    let control = Control::bind(&setup.config.state_dir).map_err(|error| failed(error.into()))?;
    let listener = daemon::listen(&setup.config).await.map_err(failed)?;
    daemon::run(setup, control, listener, stop).await.map_err(failed)?;
    Ok(Exit::Done)
}

/// Installs the recorder of metrics.
pub(super) fn recorder() -> Result<metrics_exporter_prometheus::PrometheusHandle, CommandError> {
    let handle = metrics::builder()
        .and_then(|builder| builder.install_recorder())
        .map_err(CommandError::unexpected)?;
    metrics::describe();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        // Where nobody scrapes, samples would pile up for ever.
        let mut minute = tokio::time::interval(Duration::from_secs(60));
        loop {
            minute.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// SIGHUP lets the daemon read the configuration and the secrets again. Without this it would end by it.
fn reload_on_hangup() -> Result<watch::Receiver<u64>, CommandError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(CommandError::unexpected)?;
    let (reload, reloaded) = watch::channel(0);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("reading the configuration again");
            reload.send_modify(|times| *times += 1);
        }
    });
    Ok(reloaded)
}

/// The first SIGTERM or SIGINT lets what is in flight finish, the second quits at once. `says`: what is said at the first one, where
/// nothing else would show that it was heard.
pub(super) fn stop_on_signals(stop: CancellationToken, says: Option<&'static str>) -> Result<(), CommandError> {
    stop_on_signals_and(stop, says, || {})
}

/// The same. `last`: what is done also by whoever quits at once.
pub(super) fn stop_on_signals_and(
    stop: CancellationToken,
    says: Option<&'static str>,
    last: impl Fn() + Send + 'static,
) -> Result<(), CommandError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::unexpected)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::unexpected)?;
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                _ = terminate.recv() => 15,
                _ = interrupt.recv() => 2,
            };
            if stop.is_cancelled() {
                tell("quitting at once");
                last();
                std::process::exit(128 + number);
            }
            stop.cancel();
            if let Some(words) = says {
                tell(words);
            }
        }
    });
    Ok(())
}
