//! The two peers: connection, credentials, permission, organisation, licence, application, each for itself.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use url::Url;

use super::Checked;
use crate::cli::CommandError;
use crate::cli::sync::{client_error, is_removed, removed_words};
use crate::config::{self, Config, JumpCloud as JumpCloudConfig, JumpCloudCredentials};
use crate::http::{self, Failure, FailureKind, Patience};
use crate::jumpcloud::JumpCloud;
use crate::model::{EmailKey, Listing, Peer};
use crate::state::{self, Offered};
use crate::sync::{Halt, peers};
use crate::torq::Torq;

/// A check is for somebody who waits: two attempts, and not for long.
const PATIENCE: Patience = Patience {
    attempts: Some(2),
    within: Duration::from_secs(30),
};

/// Tests both.
pub(super) async fn online(
    config: &Config,
    connector: &config::Connector,
    checked: &mut Checked<'_>,
) -> Result<(), CommandError> {
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
