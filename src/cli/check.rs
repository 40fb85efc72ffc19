//! `check`: the configuration; then each thing that can be wrong, tested apart, so that the answer names the one that is.
//! It writes nothing, anywhere.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::logging::{self, Who};
use super::sync::chosen;
use super::{CheckArgs, CommandError, Context, Exit, tell, write_out};
use crate::config::{self, Config};
use crate::http::{Failure, FailureKind, Patience};
use crate::jumpcloud::JumpCloud;
use crate::model::{Listing, Peer};
use crate::state::{self, Offered};
use crate::sync::{Halt, peers};
use crate::torq::Torq;
use crate::wording;

/// A check is for somebody who waits: two attempts, and not for long.
const PATIENCE: Patience = Patience {
    attempts: Some(2),
    within: Duration::from_secs(30),
};

pub(super) async fn run(context: Context, args: CheckArgs) -> Result<Exit, CommandError> {
    let config = if args.without_secrets {
        context.config_without_secrets()?
    } else {
        context.config()?
    };
    logging::start(&config.log, Who::Command, context.verbose);
    let names = chosen(&config, &args.names)?;
    let mut gravest = Exit::Done;
    let path = context.path.display();
    write_out(|out| {
        writeln!(
            out,
            "ok      {:24} {path}: {}",
            "configuration",
            wording::counted(config.connectors.len() as u64, "connector")
        )
    })?;
    for connector in config
        .connectors
        .iter()
        .filter(|connector| names.contains(&connector.name))
    {
        let checked = if args.offline {
            offline(connector)
        } else {
            online(&config, connector).await?
        };
        write_out(|out| {
            writeln!(out, "\n{}", connector.name)?;
            checked.lines.iter().try_for_each(|line| writeln!(out, "{line}"))
        })?;
        if !checked.failed.is_empty() {
            tell(&format!("{}: failed: {}", connector.name, checked.failed.join(", ")));
        }
        gravest = gravest.or(checked.exit);
    }
    Ok(gravest)
}

/// What was found about one connector.
struct Checked {
    lines: Vec<String>,
    failed: Vec<String>,
    exit: Exit,
}

impl Checked {
    fn new() -> Self {
        Self {
            lines: Vec::new(),
            failed: Vec::new(),
            exit: Exit::Done,
        }
    }

    fn line(&mut self, verdict: &str, what: &str, words: &str) {
        self.lines
            .push(format!("{verdict:7} {what:24} {words}").trim_end().to_owned());
    }

    fn ok(&mut self, what: &str, words: &str) {
        self.line("ok", what, words);
    }

    fn note(&mut self, what: &str, words: &str) {
        self.line("note", what, words);
    }

    fn fail(&mut self, what: &str, halt: &Halt) {
        let words = halt.to_string();
        self.line("FAILED", what, &words);
        if let Some(action) = halt.action() {
            self.lines.push(format!("{:32} what to do: {action}", ""));
        }
        self.failed.push(what.to_owned());
        self.exit = self.exit.or(Exit::of_halt(halt));
    }
}

fn offline(connector: &config::Connector) -> Checked {
    let mut checked = Checked::new();
    checked.ok("Torq", connector.torq.api_url.as_str());
    checked.ok("JumpCloud", connector.jumpcloud.console_url.as_str());
    key(connector, &mut checked);
    checked
}

fn key(connector: &config::Connector, checked: &mut Checked) {
    if let Some(expires) = connector.torq.key_expires {
        let today = Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
        if expires < today {
            checked.note("Torq API key", &format!("expired on {expires}, says the configuration"));
        } else {
            checked.ok("Torq API key", &format!("expires on {expires}, says the configuration"));
        }
    }
}

async fn online(config: &Config, connector: &config::Connector) -> Result<Checked, CommandError> {
    let (torq, jumpcloud) =
        peers(connector, &config.network, PATIENCE, &CancellationToken::new()).map_err(CommandError::unexpected)?;
    let mut checked = Checked::new();
    key(connector, &mut checked);
    check_torq(connector, &torq, &mut checked).await;
    check_jumpcloud(config, connector, &jumpcloud, &mut checked).await;
    Ok(checked)
}

async fn check_torq(connector: &config::Connector, torq: &Torq, checked: &mut Checked) {
    if !credentials(torq.session().authenticate().await, Peer::Torq, checked) {
        return;
    }
    match torq.users_page(Listing::Sso, None).await {
        Ok(page) => {
            let more = if page.next.is_some() { ", and more" } else { "" };
            checked.ok(
                "Torq user.read",
                &format!("users can be listed ({} with SSO{more})", page.users.len()),
            );
        }
        Err(failure) if failure.kind == FailureKind::NotFound => {
            let other = other_base(connector, torq).await;
            let mut failure = failure;
            failure.detail = match other {
                Some(url) => format!(
                    "there is no users list below {}, but there is one below {url}: set torq.api_url to it",
                    connector.torq.api_url
                ),
                None => format!(
                    "there is no users list below {}, with or without /public",
                    connector.torq.api_url
                ),
            };
            checked.fail("Torq user.read", &Halt::of(failure));
        }
        Err(failure) => checked.fail("Torq user.read", &Halt::of(failure)),
    }
}

/// The reference prints paths without `/public`, working clients put it before them: which of the two answers.
async fn other_base(connector: &config::Connector, torq: &Torq) -> Option<url::Url> {
    let mut other = connector.torq.api_url.clone();
    let path = other.path().to_owned();
    let swapped = match path.strip_suffix("/public/v1alpha") {
        Some(front) => format!("{front}/v1alpha"),
        None => format!("{}/public/v1alpha", path.strip_suffix("/v1alpha")?),
    };
    other.set_path(&swapped);
    torq.has_users_at(&other).await.then_some(other)
}

/// Whether the peer was reached and gave a token.
fn credentials(result: Result<(), Failure>, peer: Peer, checked: &mut Checked) -> bool {
    match result {
        Ok(()) => {
            checked.ok(&format!("{peer} connection"), "name, TLS and answer");
            checked.ok(&format!("{peer} credentials"), "");
            true
        }
        Err(failure) if failure.kind == FailureKind::Credentials => {
            checked.ok(&format!("{peer} connection"), "name, TLS and answer");
            checked.fail(&format!("{peer} credentials"), &Halt::of(failure));
            false
        }
        Err(failure) => {
            checked.fail(&format!("{peer} connection"), &Halt::of(failure));
            false
        }
    }
}

async fn check_jumpcloud(config: &Config, connector: &config::Connector, jumpcloud: &JumpCloud, checked: &mut Checked) {
    // An API key has no token to get: the first request tells.
    let result = match jumpcloud.session().authenticate().await {
        Ok(()) => jumpcloud.directory_answers().await,
        failed => failed,
    };
    let organisation = match &connector.jumpcloud.org_id {
        Some(id) => format!("organisation {id}"),
        None => "the organisation of these credentials".to_owned(),
    };
    match result {
        Err(failure)
            if matches!(
                failure.kind,
                FailureKind::Refused | FailureKind::Permission | FailureKind::NotFound
            ) =>
        {
            credentials(Ok(()), Peer::JumpCloud, checked);
            checked.fail("JumpCloud directory", &Halt::of(failure));
            return;
        }
        other => {
            if !credentials(other, Peer::JumpCloud, checked) {
                return;
            }
        }
    }
    checked.ok("JumpCloud directory", &organisation);
    let wanted = connector.jumpcloud.application.as_str();
    let mut pages = jumpcloud.applications();
    let mut found = None;
    let answer = loop {
        match pages.next().await {
            Ok(Some(page)) => {
                found = page
                    .into_iter()
                    .find(|application| application.catalog_app_id.as_deref() == Some(wanted));
                if found.is_some() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    match answer {
        Ok(()) => checked.ok("JumpCloud licence", "SaaS Management answers"),
        // The directory has just answered these credentials, so what is missing is the licence.
        Err(failure) if matches!(failure.kind, FailureKind::Permission | FailureKind::License) => {
            return checked.fail("JumpCloud licence", &Halt::NotLicensed(failure));
        }
        Err(failure) => return checked.fail("JumpCloud licence", &Halt::of(failure)),
    }
    match found {
        Some(application) => checked.ok(
            "JumpCloud application",
            &format!("{wanted} is there ({})", application.id),
        ),
        None => checked.note(
            "JumpCloud application",
            &format!("{wanted} is not there yet; the first delivery creates it"),
        ),
    }
    let seen = state::read(&config.state_dir, &connector.name)
        .ok()
        .flatten()
        .and_then(|store| store.about().ok());
    let words = match seen.map(|about| about.accounts) {
        None | Some(Offered::Untried) => "not tried yet",
        Some(Offered::Yes) => "the last delivery created accounts",
        Some(Offered::No(_)) => "the last delivery found them not offered to this organisation (report-only)",
    };
    checked.note("JumpCloud account writes", words);
}
