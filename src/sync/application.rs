//! Torq's application in JumpCloud: found or created, before anything is delivered; and what it means when SaaS Management says no.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::neighbours::Neighbour;
use super::{Connector, Halt, NOT_OFFERED_AGE, is_younger, settle};
use crate::config::{self, Config, Removals};
use crate::http::{Failure, FailureKind};
use crate::jumpcloud::JumpCloud;
use crate::model::{ApplicationId, ConnectorName, Peer};
use crate::state::{self, About, Offered, Origin};

/// How often the application is looked for and created in one run, where the answers are lost.
const MAX_ATTEMPTS: u32 = 5;

/// Why account writes are not offered, when the last try says so; `None` when they are, or were not tried.
pub(super) fn report_only(about: &About) -> Option<String> {
    matches!(about.accounts, Offered::No(_)).then(|| {
        "JumpCloud does not offer writing accounts to this organisation: users are reported, and stay pending"
            .to_owned()
    })
}

/// Which connectors of this process deliver to which application, as far as that is known.
struct Tenants {
    known: BTreeMap<String, BTreeSet<ConnectorName>>,
    /// Those whose states could not be read: any application that their configurations allow may be theirs, too.
    unread: Vec<Neighbour>,
}

static TENANTS: Mutex<Tenants> = Mutex::new(Tenants {
    known: BTreeMap::new(),
    unread: Vec::new(),
});

/// Who else delivers to an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tenancy {
    /// Nobody.
    Alone,
    /// Another connector of this process: its accounts are then not one workspace's alone, and nobody who is gone from one of them
    /// is gone from all.
    Shared,
    /// This one may: its state cannot be read.
    Unknown(ConnectorName),
}

/// Notes to which applications the configured connectors deliver, as far as their states know it: before any of them runs, so
/// that none deletes what another one needs. Only of interest where one deletes.
pub fn note_tenants(config: &Config) {
    let deletes = config
        .connectors
        .iter()
        .any(|connector| connector.removals == Removals::Delete);
    if !deletes || config.connectors.len() < 2 {
        return;
    }
    for connector in &config.connectors {
        let about =
            state::read(&config.state_dir, &connector.name).map(|store| store.map(|store| store.about()).transpose());
        match about {
            Ok(Ok(about)) => {
                // Whoever is being removed delivers nothing any more.
                let application = about
                    .filter(|about| about.removing.is_none())
                    .and_then(|about| about.application);
                if let Some(application) = application {
                    note_tenant(connector, &application);
                }
            }
            Ok(Err(_)) | Err(_) => note_unread(connector),
        }
    }
}

/// Notes that the state of a connector cannot be read, unless it is known from before where it delivers.
fn note_unread(connector: &config::Connector) {
    let mut tenants = TENANTS.lock().unwrap_or_else(PoisonError::into_inner);
    let this = Neighbour::of(connector);
    // As it is configured now, and not as it was.
    tenants.unread.retain(|other| other.name != this.name);
    let console = format!("{} ", this.console);
    let mut here = tenants.known.iter().filter(|(known, _)| known.starts_with(&console));
    if !here.any(|(_, names)| names.contains(&this.name)) {
        tenants.unread.push(this);
    }
}

/// Notes that a connector delivers to an application. Who else does.
fn note_tenant(connector: &config::Connector, application: &ApplicationId) -> Tenancy {
    let this = Neighbour::of(connector);
    let here = format!("{} {application}", this.console);
    let mut tenants = TENANTS.lock().unwrap_or_else(PoisonError::into_inner);
    tenants.unread.retain(|other| other.name != this.name);
    // It delivers to one at a time: whom it delivered to before has that to themselves again.
    tenants.known.retain(|known, names| {
        if *known != here {
            names.remove(&connector.name);
        }
        !names.is_empty()
    });
    let all = tenants.known.entry(here).or_default();
    all.insert(connector.name.clone());
    if all.len() > 1 {
        return Tenancy::Shared;
    }
    match tenants.unread.iter().find(|other| other.may_share(&this)) {
        Some(other) => Tenancy::Unknown(other.name.clone()),
        None => Tenancy::Alone,
    }
}

/// A connector delivers nowhere any more: it was removed, or is not in the configuration.
pub fn forget_tenant(name: &ConnectorName) {
    let mut tenants = TENANTS.lock().unwrap_or_else(PoisonError::into_inner);
    tenants.unread.retain(|other| other.name != *name);
    tenants.known.retain(|_, names| {
        names.remove(name);
        !names.is_empty()
    });
}

/// Who else delivers to the application of this connector.
pub(super) fn tenancy(connector: &Connector, application: &ApplicationId) -> Tenancy {
    note_tenant(&connector.config, application)
}

/// The same of what is known about a connector.
pub(super) fn tenancy_of(config: &config::Connector, about: &About) -> Tenancy {
    match &about.application {
        Some(application) if about.removing.is_none() => note_tenant(config, application),
        _ => Tenancy::Alone,
    }
}

/// The state of a connector can be read: it is known where it delivers, whatever becomes of its runs.
pub fn note_readable(config: &config::Connector, about: &About) {
    let _ = tenancy_of(config, about);
}

/// Finds Torq's application, or creates it when `may_create`. `None` when it is not there and cannot be created.
pub(super) async fn find_application(connector: &Connector, may_create: bool) -> Result<Option<ApplicationId>, Halt> {
    let jumpcloud = &connector.jumpcloud;
    let catalog_app_id = connector.config.jumpcloud.application.as_str();
    let about = connector.state.call(|store| store.about()).await?;
    if let Some(known) = &about.application {
        // Asked at every run: it also tells whether credentials, organisation and licence are still good.
        match jumpcloud.application(known).await {
            Ok(Some(_)) => return Ok(Some(known.clone())),
            Ok(None) => {
                tracing::warn!(connector = %connector.name(), application = %known, "the application is not in JumpCloud any more");
            }
            Err(failure) => return Err(refusal(jumpcloud, failure, false).await),
        }
    }
    let mut left = jumpcloud.session().lane().patience().within;
    for _ in 0..MAX_ATTEMPTS {
        connector.go_on()?;
        match search_application(jumpcloud, catalog_app_id).await {
            Ok(Some(id)) => {
                let found = id.clone();
                connector
                    .state
                    .call(move |store| store.note_application(Timestamp::now(), &found, Origin::Found))
                    .await?;
                return Ok(Some(id));
            }
            Ok(None) if !may_create || recently_not_offered(&about) => return Ok(None),
            Ok(None) => {}
            Err(failure) => return Err(refusal(jumpcloud, failure, false).await),
        }
        let under_way = connector.state.call(|store| store.application_settles_at()).await?;
        if let Some(settles) = under_way.filter(|settles| *settles > Timestamp::now()) {
            // Asked for and not answered for: it may still come, and a second one must not be asked for.
            if settle::wait_until(connector, settles, &mut left).await? {
                continue;
            }
            return Err(Halt::Unavailable(Failure::new(
                Peer::JumpCloud,
                "create application",
                FailureKind::Unreachable,
                "the create was not answered; whether it took effect is looked at again before it is repeated",
            )));
        }
        let settling = connector.settling;
        // Both noted before it is sent: what is there after a create whose answer was lost is ours, and until then none is sent
        // beside it.
        note_under_way(connector, Some(settling.of_request())).await?;
        let unanswered = connector
            .state
            .call(|store| store.creating_application(Timestamp::now()))
            .await?;
        let result = jumpcloud.create_application(catalog_app_id).await;
        if result.as_ref().is_err_and(|failure| !failure.effect_unknown()) {
            connector
                .state
                .call(move |store| store.application_not_created(unanswered))
                .await?;
        }
        match result {
            Ok(application) => {
                tracing::info!(connector = %connector.name(), application = %application.id, "created the application in JumpCloud");
                let id = application.id.clone();
                connector
                    .state
                    .call(move |store| store.note_application(Timestamp::now(), &id, Origin::Created))
                    .await?;
                return Ok(Some(application.id));
            }
            // It may be there now, or somebody else was faster: the list will say.
            Err(failure) if failure.is_temporary() || failure.kind == FailureKind::Conflict => {
                let unknown = failure.effect_unknown() || failure.kind == FailureKind::Conflict;
                note_under_way(connector, unknown.then(|| settling.after(&failure))).await?;
                if connector.jumpcloud.session().lane().is_down() {
                    return Err(Halt::Unavailable(failure));
                }
            }
            Err(failure) if matches!(failure.kind, FailureKind::NotOffered | FailureKind::NotFound) => {
                tracing::warn!(connector = %connector.name(), "{failure}: the application cannot be created");
                note_under_way(connector, None).await?;
                connector
                    .state
                    .call(|store| store.note_accounts_offered(Timestamp::now(), false))
                    .await?;
                return Ok(None);
            }
            Err(failure) => {
                note_under_way(connector, None).await?;
                return Err(refusal(jumpcloud, failure, true).await);
            }
        }
    }
    Err(Halt::Unavailable(Failure::new(
        Peer::JumpCloud,
        "create application",
        FailureKind::Unintelligible,
        format!("the application {catalog_app_id} was created, and is not in the list of applications"),
    )))
}

/// Notes until when a create of the application may take effect; `None`: it is known what became of it.
async fn note_under_way(connector: &Connector, settling: Option<Duration>) -> Result<(), Halt> {
    let until = settling.map(settle::ahead);
    let noted = connector
        .state
        .call(move |store| store.note_application_under_way(until));
    Ok(noted.await?)
}

pub(super) async fn search_application(
    jumpcloud: &JumpCloud,
    catalog_app_id: &str,
) -> Result<Option<ApplicationId>, Failure> {
    let mut pages = jumpcloud.applications();
    while let Some(page) = pages.next().await? {
        let found = page
            .into_iter()
            .find(|application| application.catalog_app_id.as_deref() == Some(catalog_app_id));
        if let Some(application) = found {
            return Ok(Some(application.id));
        }
    }
    let mut unread = pages.unread().iter();
    if unread.any(|row| row.texts.iter().any(|text| text == catalog_app_id)) {
        // It is there: none must be made beside it.
        let detail = format!("the application {catalog_app_id} is in the list, and its id cannot be read");
        let kind = FailureKind::Unintelligible;
        return Err(Failure::new(Peer::JumpCloud, "list applications", kind, detail));
    }
    Ok(None)
}

pub(super) fn recently_not_offered(about: &About) -> bool {
    match about.accounts {
        Offered::No(since) => is_younger(since, Timestamp::now(), NOT_OFFERED_AGE),
        Offered::Untried | Offered::Yes => false,
    }
}

/// What a refusal by SaaS Management means for the connector. A 403 alone does not say whether permission or licence is
/// missing, so the directory is asked: if it answers the same credentials, it is the licence.
pub(super) async fn refusal(jumpcloud: &JumpCloud, failure: Failure, reads_work: bool) -> Halt {
    if failure.kind != FailureKind::Permission {
        return Halt::of(failure);
    }
    if reads_work {
        let mut failure = failure;
        failure.detail = format!(
            "these credentials may read SaaS Management and not change it ({})",
            failure.detail
        );
        return Halt::of(failure);
    }
    match jumpcloud.directory_answers().await {
        Ok(()) => Halt::NotLicensed(failure),
        Err(other) if other.is_temporary() => Halt::Unavailable(other),
        Err(other) if other.kind == FailureKind::Stopped => Halt::Stopped,
        Err(_) => Halt::of(failure),
    }
}
