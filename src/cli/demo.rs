//! `demo`: sandbox, a connector and the status page from one command. It says what to open and what is happening, and leaves
//! nothing behind.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::logging::{self, Who};
use super::sandbox::{live, parse_duration};
use super::{CommandError, Context, Exit, serve, tell};
use crate::config::{self, Log, LogFormat};
use crate::daemon::control::Control;
use crate::daemon::{self, Setup};
use crate::invocation::Reader;
use crate::sandbox::{Options, Sandbox};
use crate::state;
use crate::view::{ConnectorState, EventKind, EventView};
use crate::wording;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many people there are in Torq at the beginning.
    #[arg(long, default_value_t = 60)]
    people: usize,
    /// Where the status page listens; another port is taken when this one is in use.
    #[arg(long, default_value = "127.0.0.1:8686")]
    listen: SocketAddr,
    /// How often the connector polls.
    #[arg(long, default_value = "5s", value_parser = parse_duration, allow_hyphen_values = true)]
    interval: Duration,
    /// How often somebody comes, goes, logs in or changes role.
    #[arg(long, default_value = "3s", value_parser = parse_duration, allow_hyphen_values = true)]
    every: Duration,
    /// End by itself after this time; without it, Ctrl-C ends the demo.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    lasts: Option<Duration>,
}

pub(super) async fn run(context: Context, args: DemoArgs) -> Result<Exit, CommandError> {
    let log = Log {
        level: "warn".to_owned(),
        format: LogFormat::Text,
    };
    logging::start(&log, Who::Daemon, context.verbose);
    // Removed when this function ends, however it ends.
    let folder = tempfile::Builder::new()
        .prefix("torq-connector-demo-")
        .tempdir()
        .map_err(CommandError::unexpected)?;
    let options = Options {
        people: args.people,
        existing_share: 0.2,
        ..Options::default()
    };
    let sandbox = Sandbox::start(options).await.map_err(CommandError::unexpected)?;
    let listener = listen(args.listen).await?;
    let address = listener.local_addr().map_err(CommandError::unexpected)?;
    let mut text = sandbox.config_toml(
        &folder.path().display().to_string(),
        &format!("{}ms", args.interval.as_millis()),
    );
    text.push_str(&format!("\n[http]\nlisten = \"{address}\"\n"));
    let config = config::parse(&text, folder.path(), Some(0o600), &Default::default())
        .map_err(|problems| CommandError::unexpected(format!("the demo's own configuration: {problems}")))?;
    // For commands in another terminal. It goes with the folder, which nobody else can enter.
    let file = folder.path().join("config.toml");
    write_private(&file, &text).map_err(CommandError::unexpected)?;
    context.is_called(Some(&file), Reader::Anywhere, Some(&file));

    let world = sandbox.world();
    tell(&format!(
        "An invented Torq workspace with {} people, and an invented JumpCloud organisation that knows {} of them and has {} accounts.",
        world.people().len(),
        world.directory().len(),
        world.accounts().len()
    ));
    tell(&format!("Status page:  http://{address}/"));
    tell(&format!(
        "As JSON:      http://{address}/api/status  /api/users  /api/events   Prometheus: /metrics"
    ));
    tell(&format!(
        "Sandbox:      {}  (make people come and go, and things fail)",
        sandbox.control_url()
    ));
    tell("In another terminal:");
    for command in ["status", "users", "approve demo"] {
        tell(&format!("              torq-connector {command}"));
    }
    tell("Ctrl-C ends the demo and removes everything it made.\n");

    let stop = CancellationToken::new();
    let made = folder.path().to_path_buf();
    serve::stop_on_signals_and(stop.clone(), Some(serve::STOPPING), move || {
        // What still works there may make a file while the others are deleted.
        (0..3).find(|_| std::fs::remove_dir_all(&made).is_ok());
    })?;
    // Whoever closes the terminal is done with it, too.
    let mut hangup = signal(SignalKind::hangup()).map_err(CommandError::unexpected)?;
    let closed = stop.clone();
    tokio::spawn(async move {
        if hangup.recv().await.is_some() {
            closed.cancel();
        }
    });
    let setup = Setup {
        config: config.clone(),
        origin: None,
        reload: tokio::sync::watch::channel(0).1,
        relog: None,
        metrics: Some(serve::recorder()?),
    };
    let control = Control::bind(&config.state_dir).map_err(CommandError::unexpected)?;
    let daemon = daemon::run(setup, control, Some(listener), stop.clone());
    let lasts = async {
        match args.lasts {
            Some(lasts) => tokio::time::sleep(lasts).await,
            None => std::future::pending().await,
        }
    };
    let result = {
        let telling = tell_events(&config);
        let living = live(&sandbox, Some(args.every));
        tokio::pin!(daemon, telling, living, lasts);
        tokio::select! {
            result = &mut daemon => result,
            () = &mut telling => Ok(()),
            () = &mut living => Ok(()),
            () = &mut lasts => {
                stop.cancel();
                daemon.await
            }
        }
    };
    tell(&format!(
        "\nAt the end: {} people in Torq, {} accounts in JumpCloud.",
        world.people().len(),
        world.accounts().len()
    ));
    sandbox.stop().await;
    result.map_err(CommandError::unexpected)?;
    folder.close().map_err(CommandError::unexpected)?;
    Ok(Exit::Done)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

async fn listen(wanted: SocketAddr) -> Result<TcpListener, CommandError> {
    match TcpListener::bind(wanted).await {
        Ok(listener) => return Ok(listener),
        Err(error) => tell(&format!("cannot listen on {wanted} ({error}): another port is taken")),
    }
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    TcpListener::bind(any).await.map_err(CommandError::unexpected)
}

/// Says what happens, for ever: one line an event, a first collection summed up.
async fn tell_events(config: &config::Config) {
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for connector in &config.connectors {
            let (dir, name) = (config.state_dir.clone(), connector.name.clone());
            let read = tokio::task::spawn_blocking(move || read_events(&dir, &name, last)).await;
            let Ok(Some((events, newest))) = read else { continue };
            last = newest;
            tell_batch(&events);
        }
    }
}

fn read_events(dir: &Path, name: &crate::model::ConnectorName, after: i64) -> Option<(Vec<EventView>, i64)> {
    let store = state::read(dir, name).ok()??;
    store.events_after(after).ok()
}

/// In the order in which it happened; of what happened to many, when it began.
fn tell_batch(events: &[EventView]) {
    const MANY: usize = 8;
    let at = |event: &EventView| event.at.unwrap_or_else(Timestamp::now);
    let mut lines: Vec<(Timestamp, String)> = Vec::new();
    for kind in EventKind::ALL {
        let of_kind: Vec<_> = events.iter().filter(|event| event.kind == kind).collect();
        match of_kind.first() {
            Some(first) if of_kind.len() > MANY => {
                lines.push((at(first), format!("{} {}", of_kind.len(), many_words(kind))));
            }
            _ => lines.extend(of_kind.into_iter().map(|event| {
                let who = event.email.as_deref().or(event.user_id.as_deref()).unwrap_or("");
                let line = format!("{who} {}", one_words(event));
                (at(event), line.trim().to_owned())
            })),
        }
    }
    lines.sort_by_key(|(at, _)| *at);
    for (at, line) in lines {
        tell(&format!("{}  {line}", clock(at)));
    }
}

fn clock(at: Timestamp) -> String {
    at.to_zoned_datetime(jiff::tz::TimeZone::system())
        .strftime("%H:%M:%S")
        .to_string()
}

fn many_words(kind: EventKind) -> String {
    let words = match kind {
        EventKind::UserAppeared => "people are new in Torq",
        EventKind::UserChanged => "people changed in Torq",
        EventKind::UserDisappeared => "people are gone from Torq",
        EventKind::AccountCreated => "accounts created in JumpCloud",
        EventKind::AccountFound => "accounts found in JumpCloud and adopted",
        EventKind::AccountAssociated => "accounts associated with people in the JumpCloud directory",
        EventKind::AccountDeleted => "accounts deleted in JumpCloud",
        EventKind::AccountLost => "accounts are gone from JumpCloud",
        EventKind::AccountRefused => "people refused by JumpCloud, and parked",
        EventKind::RemovalHeld => "removals held until they are approved, or the people are back",
        EventKind::RemovalApproved => "removals approved",
        EventKind::RemovalDropped => "removals dropped: the people are back",
        EventKind::StateChanged => "changes of the connector's state",
        EventKind::RecordUnreadable => "records of Torq that cannot be read",
    };
    words.to_owned()
}

fn one_words(event: &EventView) -> String {
    let reason = event.reason.as_deref().unwrap_or("");
    match event.kind {
        EventKind::UserAppeared => "is new in Torq".to_owned(),
        EventKind::UserChanged => {
            let fields = event.after.as_ref().and_then(|after| after.as_object());
            let fields: Vec<_> = fields.into_iter().flat_map(|fields| fields.keys().cloned()).collect();
            format!("changed in Torq: {}", fields.join(", "))
        }
        EventKind::UserDisappeared => "is gone from Torq (absent from two polls)".to_owned(),
        EventKind::AccountCreated => "has a new account in JumpCloud".to_owned(),
        EventKind::AccountFound => "had an account in JumpCloud already; adopted".to_owned(),
        EventKind::AccountAssociated => "is associated with the person in the JumpCloud directory".to_owned(),
        EventKind::StateChanged => {
            let after = event.after.as_ref();
            let state = after.and_then(|after| ConnectorState::parse(after.get("state")?.as_str()?));
            match state {
                Some(state) => format!("connector is now {}{}", wording::state(state), because(reason)),
                None => reason.to_owned(),
            }
        }
        other => format!("{}{}", wording::event(other), because(reason)),
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}
