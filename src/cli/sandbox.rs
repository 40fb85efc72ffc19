//! `sandbox`: both APIs on loopback, for trying things out.

use std::fs::Permissions;
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use super::logging::{self, Who};
use super::{CommandError, Context, Exit, serve, tell};
use crate::config::{Log, LogFormat};
use crate::sandbox::{CONFIG_HEADING, FaultRule, Options, Sandbox};

#[derive(Debug, Args)]
pub(super) struct SandboxArgs {
    /// Where to listen; loopback only.
    #[arg(long, default_value = "127.0.0.1:9400")]
    listen: SocketAddr,
    /// How many people there are in Torq at the beginning.
    #[arg(long, default_value_t = 200)]
    people: usize,
    /// Which share of them is in the JumpCloud directory.
    #[arg(long, default_value_t = 0.8)]
    directory_share: f64,
    /// Which share of them has an account in JumpCloud already.
    #[arg(long, default_value_t = 0.0)]
    existing_share: f64,
    /// Somebody comes, goes, logs in or changes role this often; "off" for never.
    #[arg(long, default_value = "10s", value_parser = parse_every, allow_hyphen_values = true)]
    every: Every,
    /// Seed of the invented people: the same seed makes the same people.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A fault, e.g. 503:accounts:0.1 or lost-answer:account-create; may be given more than once.
    #[arg(long = "fault", value_name = "FAULT", value_parser = FaultRule::parse)]
    faults: Vec<FaultRule>,
    /// Write a configuration for it to this file (mode 0600), ready for `torq-connector --config FILE sync`.
    #[arg(long, value_name = "FILE")]
    write_config: Option<PathBuf>,
}

/// How often something happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Every(Option<Duration>);

fn parse_every(text: &str) -> Result<Every, String> {
    if text == "off" {
        return Ok(Every(None));
    }
    let duration = parse_duration(text)?;
    Ok(Every(Some(duration)))
}

/// Reads a duration such as `10s`, at least a tenth of a second.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text
        .parse()
        .map_err(|_| "give a duration such as 10s or 1m".to_owned())?;
    let duration = Duration::try_from(duration).map_err(|_| "give a duration that is not negative".to_owned())?;
    if duration < Duration::from_millis(100) {
        return Err("give at least 100ms".to_owned());
    }
    Ok(duration)
}

pub(super) async fn run(context: Context, args: SandboxArgs) -> Result<Exit, CommandError> {
    let log = Log {
        level: "info".to_owned(),
        format: LogFormat::Text,
    };
    logging::start(&log, Who::Daemon, context.verbose);
    let options = Options {
        listen: args.listen,
        seed: args.seed,
        people: args.people,
        directory_share: args.directory_share,
        existing_share: args.existing_share,
        ..Options::default()
    };
    let listen = args.listen;
    let sandbox = Sandbox::start(options).await.map_err(|error| {
        let message = format!("cannot serve the sandbox on {listen}: {error}");
        match error.kind() {
            ErrorKind::InvalidInput => CommandError::new(Exit::Usage, message),
            ErrorKind::AddrInUse => CommandError::unexpected(format!(
                "{message}; is another sandbox running? Another address: --listen 127.0.0.1:PORT (0 for any)"
            )),
            ErrorKind::AddrNotAvailable => CommandError::unexpected(format!(
                "{message}; this machine has no such address. Another one: --listen 127.0.0.1:PORT"
            )),
            _ => CommandError::unexpected(message),
        }
    })?;
    for fault in args.faults {
        sandbox.world().fault(fault);
    }
    tell(&format!("Torq API         {}", sandbox.torq_api_url()));
    tell(&format!("Torq token       {}", sandbox.torq_token_url()));
    tell(&format!("JumpCloud        {}", sandbox.console_url()));
    tell(&format!("JumpCloud token  {}", sandbox.jumpcloud_token_url()));
    tell(&format!(
        "control          {} (how to make people come and go, and things fail)",
        sandbox.control_url()
    ));
    if let Some(path) = &args.write_config {
        write_config(&sandbox, path)?;
        tell(&format!("configuration    {}", path.display()));
    }
    let stop = CancellationToken::new();
    serve::stop_on_signals(stop.clone(), None)?;
    tokio::select! {
        () = stop.cancelled() => {}
        () = live(&sandbox, args.every.0) => {}
    }
    sandbox.stop().await;
    Ok(Exit::Done)
}

/// Lets people come and go, or nothing happen, for ever.
pub(super) async fn live(sandbox: &Sandbox, every: Option<Duration>) {
    match every {
        Some(every) => sandbox.live(every).await,
        None => std::future::pending().await,
    }
}

/// A configuration without the ports, which are others each time.
fn anywhere(config: &str) -> String {
    const LOOPBACK: &str = "127.0.0.1:";
    let mut parts = config.split(LOOPBACK);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        all + LOOPBACK + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

/// Writes a configuration, over one that a sandbox wrote before and over no other file.
fn write_config(sandbox: &Sandbox, path: &Path) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| CommandError::unexpected(format!("cannot write {}: {error}", path.display()));
    let state = path.with_extension("state");
    let state_dir = std::path::absolute(&state).map_err(failed)?;
    let text = sandbox.config_toml(&state_dir.display().to_string(), "10s");
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let mut before = String::new();
    // What is no text was not written by a sandbox either.
    let readable = file.read_to_string(&mut before).is_ok();
    if !readable || !(before.is_empty() || before.lines().next() == Some(CONFIG_HEADING)) {
        let path = path.display();
        let message = format!("{path} is there already, and no sandbox wrote it: it stays as it is; give another file");
        return Err(CommandError::new(Exit::Usage, message));
    }
    if !before.is_empty() && anywhere(&before) != anywhere(&text) {
        let path = path.display();
        let message =
            format!("{path} was changed since a sandbox wrote it: it stays as it is; give another file, or delete it");
        return Err(CommandError::new(Exit::Usage, message));
    }
    // There are secrets in it, if only invented ones.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
