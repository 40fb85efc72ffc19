//! `check`: the configuration; then each thing that can be wrong, tested apart, so that the answer names the one that is.
//! It writes nothing, anywhere.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::Access;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::logging::{self, Who};
use super::sync::{chosen, client_error, is_removed, removed_words};
use super::{CheckArgs, CommandError, Context, Exit, tell, write_out};
use crate::config::{self, Config, JumpCloud as JumpCloudConfig, JumpCloudCredentials};
use crate::http::{self, Failure, FailureKind, Patience};
use crate::invocation::addressed;
use crate::jumpcloud::JumpCloud;
use crate::model::{ApplicationId, ConnectorName, EmailKey, Listing, Peer};
use crate::state::{self, Offered, Room};
use crate::sync::{Again, Halt, peers};
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
        context.config_for(&args.names)?
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
    let folder = state_folder(&config.state_dir);
    write_out(|out| match &folder {
        Ok(Folder { words, notes }) => {
            writeln!(out, "ok      {:24} {words}", "state folder")?;
            let mut notes = notes.iter();
            notes.try_for_each(|note| writeln!(out, "note    {:24} {note}", "state folder"))
        }
        Err(Unusable { words, action }) => writeln!(
            out,
            "FAILED  {:24} {words}\n{:32} what to do: {action}",
            "state folder", ""
        ),
    })?;
    if folder.is_err() {
        tell("failed: state folder");
        gravest = Exit::Unexpected;
    }
    for connector in config
        .connectors
        .iter()
        .filter(|connector| names.contains(&connector.name))
    {
        let mut checked = Checked::new(connector, Again::Command("check"));
        key(connector, &mut checked);
        if folder.is_ok() {
            known(&config, connector, &mut checked);
        }
        if args.offline {
            checked.ok("Torq", connector.torq.api_url.as_str());
            checked.ok("JumpCloud", connector.jumpcloud.console_url.as_str());
        } else {
            online(&config, connector, &mut checked).await?;
        }
        write_out(|out| {
            writeln!(out, "\n{}", connector.name)?;
            let mut lines = checked.lines.iter();
            lines.try_for_each(|line| writeln!(out, "{}", addressed(line)))
        })?;
        if !checked.failed.is_empty() {
            tell(&format!("{}: failed: {}", connector.name, checked.failed.join(", ")));
        }
        gravest = gravest.or(checked.exit);
    }
    Ok(gravest)
}

/// What came of a test of the connection.
pub(super) struct Connected {
    pub(super) exit: Exit,
    /// On whose side something failed.
    pub(super) failed: Vec<Peer>,
    /// Torq's entry in SaaS Management, where there is one.
    pub(super) application: Option<ApplicationId>,
}

/// *Connect*: tests one connector, and tells what comes of it. Its configuration was judged already.
pub(super) async fn connect(config: &Config, name: &ConnectorName) -> Result<Connected, CommandError> {
    let Some(connector) = config.connectors.iter().find(|connector| connector.name == *name) else {
        return Err(CommandError::unexpected(format!("{name} is not configured")));
    };
    let mut checked = Checked::new(connector, Again::SettingUp);
    key(connector, &mut checked);
    online(config, connector, &mut checked).await?;
    for line in &checked.lines {
        tell(line);
    }
    if !checked.failed.is_empty() {
        tell(&format!("{name}: failed: {}", checked.failed.join(", ")));
    }
    let on_side = |peer: &Peer| checked.failed.iter().any(|what| what.starts_with(&peer.to_string()));
    Ok(Connected {
        failed: [Peer::Torq, Peer::JumpCloud].into_iter().filter(on_side).collect(),
        exit: checked.exit,
        application: checked.application,
    })
}

/// What was found about one connector.
struct Checked<'a> {
    connector: &'a config::Connector,
    /// How it is tried again.
    again: Again,
    lines: Vec<String>,
    failed: Vec<String>,
    exit: Exit,
    application: Option<ApplicationId>,
}

impl<'a> Checked<'a> {
    fn new(connector: &'a config::Connector, again: Again) -> Self {
        Self {
            connector,
            again,
            lines: Vec::new(),
            failed: Vec::new(),
            exit: Exit::Done,
            application: None,
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
        let action = halt.action(self.connector, self.again);
        self.failed(what, &halt.to_string(), action.as_deref(), Exit::of_halt(halt));
    }

    fn failed(&mut self, what: &str, words: &str, action: Option<&str>, exit: Exit) {
        self.line("FAILED", what, words);
        if let Some(action) = action {
            self.lines.push(format!("{:32} what to do: {action}", ""));
        }
        self.failed.push(what.to_owned());
        self.exit = self.exit.or(exit);
    }
}

/// Less than this, and not even a small state can be kept.
const NO_ROOM: u64 = 4 << 20;
/// Less than this is soon too little: a state of 50,000 users, its log and a copy of it.
const LITTLE_ROOM: u64 = 256 << 20;

/// A folder in which states can be kept.
struct Folder {
    words: String,
    notes: Vec<String>,
}

/// One in which they cannot.
#[derive(Debug)]
struct Unusable {
    words: String,
    action: &'static str,
}

/// Whether states can be kept in this folder, as far as that can be said without writing anything.
fn state_folder(dir: &Path) -> Result<Folder, Unusable> {
    let shown = dir.display();
    // Those that are not there yet are made by the first run.
    let there = dir.ancestors().find(|one| !matches!(one.try_exists(), Ok(false)));
    let there = there.unwrap_or(dir);
    // Relative to nothing is where we are.
    let place = if there.as_os_str().is_empty() {
        Path::new(".")
    } else {
        there
    };
    let unusable = |words: String| Unusable {
        words,
        action: "run as root or as the user of the service, or set state_dir",
    };
    let usable = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::access(place, usable).map_err(std::io::Error::from) {
        Err(error) if place == dir => return Err(unusable(format!("{shown} cannot be used: {error}"))),
        Err(error) => {
            let words = format!("{shown} is not there and cannot be made: {}: {error}", place.display());
            return Err(unusable(words));
        }
        Ok(()) if !place.is_dir() => return Err(unusable(format!("{} is not a folder", place.display()))),
        Ok(()) => {}
    }
    let mut notes = Vec::from_iter(about_room(dir, state::room(place))?);
    let words = if place == dir {
        notes.extend(open_folder(dir));
        shown.to_string()
    } else {
        format!("{shown} (the first run makes it)")
    };
    Ok(Folder { words, notes })
}

/// What there is to say about so much room; where it is too little, that it is.
fn about_room(dir: &Path, room: Option<Room>) -> Result<Option<String>, Unusable> {
    let dir = dir.display();
    match room {
        Some(Room { no_files: true, .. }) => Err(Unusable {
            words: format!("{dir}: no further file can be made, the file system has no free inodes (`df -i`)"),
            action: "delete files there, or set state_dir",
        }),
        Some(Room { bytes, .. }) if bytes < NO_ROOM => Err(Unusable {
            words: format!("{dir}: the disk is full, {} kB are free", bytes >> 10),
            action: "make room on the disk, or set state_dir",
        }),
        Some(Room { bytes, .. }) if bytes < LITTLE_ROOM => {
            Ok(Some(format!("little room on the disk: {} MB are free", bytes >> 20)))
        }
        _ => Ok(None),
    }
}

/// That everybody on this machine could replace what is known, where they could.
pub(super) fn open_folder(dir: &Path) -> Option<String> {
    let mode = state::open_to_everybody(dir)?;
    let dir = dir.display();
    Some(format!(
        "other users of this machine may delete and replace what is in {dir} (mode {mode:04o}); run `chmod 700 {dir}`"
    ))
}

/// Whether what is known of the connector can be read.
fn known(config: &Config, connector: &config::Connector, checked: &mut Checked<'_>) {
    if let Err(error) = state::read(&config.state_dir, &connector.name) {
        checked.failed(
            "state",
            &error.to_string(),
            Some(wording::about_state(&error)),
            Exit::Unexpected,
        );
    }
}

fn key(connector: &config::Connector, checked: &mut Checked<'_>) {
    let left = connector.torq.key_days_left(Timestamp::now());
    let Some((expires, days)) = connector.torq.key_expires.zip(left) else {
        return;
    };
    let (source, then) = match checked.again {
        Again::SettingUp => ("as you said", "give its day"),
        Again::ByItself | Again::Command(_) => ("says the configuration", "set key_expires"),
    };
    match days {
        ..0 => checked.note(
            "Torq API key",
            &format!("expired on {expires}, {source}: make a new one or extend it, and {then}"),
        ),
        0..=config::KEY_SOON => checked.note(
            "Torq API key",
            &format!(
                "expires on {expires}, {source}, in {}: extend it in Torq, or make a new one",
                wording::counted(days.unsigned_abs().into(), "day")
            ),
        ),
        _ => checked.ok("Torq API key", &format!("expires on {expires}, {source}")),
    }
}

async fn online(config: &Config, connector: &config::Connector, checked: &mut Checked<'_>) -> Result<(), CommandError> {
    let (torq, jumpcloud) =
        peers(connector, &config.network, PATIENCE, &CancellationToken::new()).map_err(client_error)?;
    check_torq(connector, &torq, checked).await;
    check_jumpcloud(config, connector, &jumpcloud, checked).await;
    Ok(())
}

async fn check_torq(connector: &config::Connector, torq: &Torq, checked: &mut Checked<'_>) {
    let addresses = [&connector.torq.token_url];
    if !credentials(torq.session().authenticate().await, Peer::Torq, &addresses, checked) {
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
fn credentials(result: Result<(), Failure>, peer: Peer, asked: &[&Url], checked: &mut Checked<'_>) -> bool {
    let answered = reached(asked);
    match result {
        Ok(()) => {
            checked.ok(&format!("{peer} connection"), &answered);
            checked.ok(&format!("{peer} credentials"), "");
            true
        }
        Err(failure) if failure.kind == FailureKind::Credentials => {
            checked.ok(&format!("{peer} connection"), &answered);
            checked.fail(&format!("{peer} credentials"), &Halt::of(failure));
            false
        }
        Err(failure) => {
            checked.fail(&format!("{peer} connection"), &Halt::of(failure));
            false
        }
    }
}

/// What is said of addresses that answered.
fn reached(asked: &[&Url]) -> String {
    let mut addresses: Vec<_> = asked.iter().map(|url| http::road(url)).collect();
    addresses.dedup();
    let secure = asked.iter().all(|url| url.scheme() == "https");
    let what = if secure { "name, TLS and answer" } else { "answers" };
    format!("{}: {what}", addresses.join(", "))
}

async fn check_jumpcloud(
    config: &Config,
    connector: &config::Connector,
    jumpcloud: &JumpCloud,
    checked: &mut Checked<'_>,
) {
    let JumpCloudConfig {
        console_url, token_url, ..
    } = &connector.jumpcloud;
    let asked = match &connector.jumpcloud.credentials {
        JumpCloudCredentials::ServiceAccount { .. } => vec![token_url, console_url],
        JumpCloudCredentials::ApiKey(_) => vec![console_url],
    };
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
            credentials(Ok(()), Peer::JumpCloud, &asked, checked);
            checked.fail("JumpCloud directory", &Halt::of(failure));
            return;
        }
        other => {
            if !credentials(other, Peer::JumpCloud, &asked, checked) {
                return;
            }
        }
    }
    checked.ok("JumpCloud directory", &organisation);
    // What a run asks the directory, of an address that nobody can have.
    match jumpcloud
        .directory_users(&[EmailKey::fold("nobody@torq-connector.invalid")])
        .await
    {
        Ok(_) => checked.ok("JumpCloud search", "people can be found by their e-mails"),
        Err(failure) => checked.fail("JumpCloud search", &Halt::of(failure)),
    }
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
        // A page instead of JSON, a time-out, 400 or 404 say nothing of a licence.
        Err(failure) => return checked.fail("JumpCloud applications", &Halt::of(failure)),
    }
    match found {
        Some(application) => {
            let words = format!("{wanted} is there ({})", application.id);
            checked.ok("JumpCloud application", &words);
            checked.application = Some(application.id.clone());
            match jumpcloud.accounts(&application.id).next().await {
                Ok(_) => checked.ok("JumpCloud accounts", "they can be listed"),
                Err(failure) => checked.fail("JumpCloud accounts", &Halt::of(failure)),
            }
        }
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
    if is_removed(config, &connector.name) {
        checked.note("removed", &removed_words(&connector.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_found_before_a_run_finds_it() {
        let about = |room| about_room(Path::new("/srv/state"), room);
        let free = |bytes| Some(Room { bytes, no_files: false });
        let full = about(free(64 << 10)).unwrap_err();
        assert_eq!(full.words, "/srv/state: the disk is full, 64 kB are free");
        assert!(full.action.contains("make room"));
        assert_eq!(
            about(free(5 << 20)).unwrap().as_deref(),
            Some("little room on the disk: 5 MB are free")
        );
        for enough in [free(1 << 30), None] {
            assert_eq!(about(enough).unwrap(), None);
        }
        let no_files = Room {
            bytes: 1 << 30,
            no_files: true,
        };
        let full = about(Some(no_files)).unwrap_err();
        assert!(full.words.contains("no free inodes"), "{}", full.words);
    }
}
