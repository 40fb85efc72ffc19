//! Delivering: bringing JumpCloud's accounts to what the snapshot says. What remains is asked of the state at every step.
//!
//! ```text
//! application ─▶ adopt what is there ─▶ ask the directory ─▶ create ⇄ look again ─▶ associate ─▶ delete
//! ```
//!
//! Nothing is created before the accounts that are there were read to the end of the list, and nothing is created again before
//! the list was looked into: that is what makes a second account for an e-mail impossible on our side.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use super::{Connector, Halt, Phase};
use crate::http::{Failure, FailureKind};
use crate::jumpcloud::{Account, JumpCloud, SEARCH_BATCH};
use crate::model::{ApplicationId, DirectoryUserId, EmailKey};
use crate::state::{About, Association, Creation, Deletion, Offered, State};

/// How old knowledge of JumpCloud's accounts and directory may grow.
const KNOWLEDGE_AGE: SignedDuration = SignedDuration::from_hours(24);
/// How old it may be when something is to be created: another source may have created the account since.
const KNOWLEDGE_AGE_TO_CREATE: SignedDuration = SignedDuration::from_mins(15);
/// How long an operation that is not offered is not tried again.
const NOT_OFFERED_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Requests in flight at a time.
const CONCURRENCY: usize = 8;
/// Rows read from the state at a time.
const CHUNK: usize = 256;
/// Creates sent for one e-mail in one run whose outcome stayed unknown; then the row waits for the next run, and stops nobody.
const MAX_ATTEMPTS: u32 = 5;
/// Failures in a row after which no further create is sent before the list was looked into.
const PEER_FALTERS: u32 = 3;
/// How often a delivery starts again because the application disappeared under it.
const MAX_APPLICATIONS: u32 = 3;

/// Why account writes are not offered, when the last try says so; `None` when they are, or were not tried.
pub(super) fn report_only(about: &About) -> Option<String> {
    matches!(about.accounts, Offered::No(_)).then(|| {
        "JumpCloud does not offer writing accounts to this organisation: users are reported, and stay pending"
            .to_owned()
    })
}

/// Brings JumpCloud to what the snapshot says.
pub(super) async fn deliver(connector: &Connector) -> Result<(), Halt> {
    for _ in 0..MAX_APPLICATIONS {
        let Some(application) = find_application(connector, true).await? else {
            return Ok(());
        };
        let delivery = Delivery::new(connector, application);
        match delivery.deliver().await {
            Err(Trouble::ApplicationGone) => {
                tracing::warn!(connector = %connector.name(), "the application disappeared from JumpCloud; looking for it again");
            }
            Err(Trouble::Halt(halt)) => return Err(halt),
            Ok(()) => return Ok(()),
        }
    }
    Err(Halt::Unavailable(Failure::new(
        crate::model::Peer::JumpCloud,
        "deliver",
        FailureKind::Unintelligible,
        "the application disappears again and again",
    )))
}

/// Why a delivery did not come to its end.
pub(super) enum Trouble {
    /// The application is not there any more.
    ApplicationGone,
    /// The run ends here.
    Halt(Halt),
}

impl<E: Into<Halt>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Halt(error.into())
    }
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
    for _ in 0..MAX_ATTEMPTS {
        connector.go_on()?;
        match search_application(jumpcloud, catalog_app_id).await {
            Ok(Some(id)) => {
                let found = id.clone();
                connector
                    .state
                    .call(move |store| store.note_application(&found))
                    .await?;
                return Ok(Some(id));
            }
            Ok(None) if !may_create || recently_not_offered(&about) => return Ok(None),
            Ok(None) => {}
            Err(failure) => return Err(refusal(jumpcloud, failure, false).await),
        }
        match jumpcloud.create_application(catalog_app_id).await {
            Ok(application) => {
                tracing::info!(connector = %connector.name(), application = %application.id, "created the application in JumpCloud");
                let id = application.id.clone();
                connector.state.call(move |store| store.note_application(&id)).await?;
                return Ok(Some(application.id));
            }
            // It may be there now, or somebody else was faster: the list will say.
            Err(failure) if failure.is_temporary() || failure.kind == FailureKind::Conflict => {
                if connector.jumpcloud.session().lane().is_down() {
                    return Err(Halt::Unavailable(failure));
                }
            }
            Err(failure) if matches!(failure.kind, FailureKind::NotOffered | FailureKind::NotFound) => {
                tracing::warn!(connector = %connector.name(), "{failure}: the application cannot be created");
                connector
                    .state
                    .call(|store| store.note_accounts_offered(Timestamp::now(), false))
                    .await?;
                return Ok(None);
            }
            Err(failure) => return Err(refusal(jumpcloud, failure, true).await),
        }
    }
    Err(Halt::Unavailable(Failure::new(
        crate::model::Peer::JumpCloud,
        "create application",
        FailureKind::Unintelligible,
        format!("the application {catalog_app_id} was created, and is not in the list of applications"),
    )))
}

async fn search_application(jumpcloud: &JumpCloud, catalog_app_id: &str) -> Result<Option<ApplicationId>, Failure> {
    let mut pages = jumpcloud.applications();
    while let Some(page) = pages.next().await? {
        let found = page
            .into_iter()
            .find(|application| application.catalog_app_id.as_deref() == Some(catalog_app_id));
        if let Some(application) = found {
            return Ok(Some(application.id));
        }
    }
    Ok(None)
}

fn recently_not_offered(about: &About) -> bool {
    match about.accounts {
        Offered::No(since) => Timestamp::now().duration_since(since) < NOT_OFFERED_AGE,
        Offered::Untried | Offered::Yes => false,
    }
}

/// What a refusal by SaaS Management means for the connector. A 403 alone does not say whether permission or licence is
/// missing, so the directory is asked: if it answers the same credentials, it is the licence.
async fn refusal(jumpcloud: &JumpCloud, failure: Failure, reads_work: bool) -> Halt {
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

/// What there is to learn where the application is not there (any more) and must not be created, as in a dry run: its accounts
/// are gone with it, and the directory answers all the same.
pub(super) async fn learn_without_application(connector: &Connector) -> Result<(), Trouble> {
    let now = Timestamp::now();
    connector
        .state
        .call(move |store| {
            store.begin_reconciliation(now)?;
            for account in store.accounts_not_in(&HashSet::new())? {
                store.account_lost(now, &account)?;
            }
            store.finish_adoption(now)
        })
        .await?;
    // The directory is not the application's: no request to it names one.
    let nowhere = ApplicationId::new("");
    Delivery::new(connector, nowhere).match_directory().await
}

/// One delivery to one application.
pub(super) struct Delivery<'a> {
    connector: &'a Connector,
    jumpcloud: &'a JumpCloud,
    state: &'a State,
    application: ApplicationId,
    /// Creates without a known outcome in this run, by e-mail.
    attempts: Mutex<HashMap<EmailKey, u32>>,
    /// Account writes turned out not to be offered.
    not_offered: AtomicBool,
    writes: AtomicU64,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(connector: &'a Connector, application: ApplicationId) -> Self {
        Self {
            connector,
            jumpcloud: &connector.jumpcloud,
            state: &connector.state,
            application,
            attempts: Mutex::new(HashMap::new()),
            not_offered: AtomicBool::new(false),
            writes: AtomicU64::new(0),
        }
    }

    async fn deliver(&self) -> Result<(), Trouble> {
        self.learn().await?;
        let about = self.state.call(|store| store.about()).await?;
        if !recently_not_offered(&about) {
            self.create().await?;
        }
        let about = self.state.call(|store| store.about()).await?;
        let associations_offered = match about.associations {
            Offered::No(since) => Timestamp::now().duration_since(since) >= NOT_OFFERED_AGE,
            Offered::Untried | Offered::Yes => true,
        };
        if associations_offered {
            self.associate().await?;
        }
        if self.connector.config.removals == crate::config::Removals::Delete {
            self.delete().await?;
        }
        Ok(())
    }

    /// Reads what JumpCloud has, where that is not known or not fresh enough for what is to be done.
    pub(super) async fn learn(&self) -> Result<(), Trouble> {
        let (about, unknown, creates) = self
            .state
            .call(|store| {
                let creates = !store.to_create(&EmailKey::fold(""), 1)?.is_empty();
                Ok((store.about()?, store.to_look_for()?, creates))
            })
            .await?;
        let now = Timestamp::now();
        let older_than = |age| about.known_at.is_none_or(|at| now.duration_since(at) > age || at > now);
        let stale = !self.connector.is_reconciled() || older_than(KNOWLEDGE_AGE);
        if stale {
            self.state.call(move |store| store.begin_reconciliation(now)).await?;
        }
        if stale || unknown > 0 || (creates && older_than(KNOWLEDGE_AGE_TO_CREATE)) {
            self.adopt().await?;
        }
        self.match_directory().await?;
        if stale {
            self.connector.note_reconciled();
        }
        Ok(())
    }

    /// Reads all accounts of the application: adopts those of users, notices those that are gone, resolves creates that were
    /// not answered.
    async fn adopt(&self) -> Result<(), Trouble> {
        let mut pages = self.jumpcloud.accounts(&self.application);
        let mut others: Vec<Account> = Vec::new();
        let (mut read, mut found) = (0, 0);
        while let Some(page) = pages.next().await.map_err(|failure| self.gone_or(failure))? {
            self.connector.go_on()?;
            read += page.len() as u64;
            self.connector.note_phase(Phase::Adopting { accounts: read });
            let adopted = self
                .state
                .call(move |store| store.adopt(Timestamp::now(), &page))
                .await?;
            found += adopted.found;
            others.extend(adopted.others);
        }
        let seen = pages.into_seen();
        let missing = self.state.call(move |store| store.accounts_not_in(&seen)).await?;
        let lost = AtomicU64::new(0);
        each(missing, CONCURRENCY, |account| async {
            self.connector.go_on()?;
            // Not in the list is not yet gone: rows shift while a list is read. Only the account itself can say.
            match self.jumpcloud.account(&self.application, &account.account).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => {
                    lost.fetch_add(1, Ordering::Relaxed);
                    let lost = self
                        .state
                        .call(move |store| store.account_lost(Timestamp::now(), &account));
                    Ok(lost.await?)
                }
                Err(failure) => Err(self.halt(failure).await),
            }
        })
        .await?;
        let lost = lost.into_inner();
        // Another account with the e-mail of one that is gone takes its place.
        let adopted = self
            .state
            .call(move |store| store.adopt(Timestamp::now(), &others))
            .await?;
        found += adopted.found;
        self.state.call(|store| store.finish_adoption(Timestamp::now())).await?;
        if found + lost > 0 {
            tracing::info!(connector = %self.connector.name(), read, found, lost, "read JumpCloud's accounts");
        }
        Ok(())
    }

    /// Asks the directory for everybody whom it has not been asked for (lately).
    async fn match_directory(&self) -> Result<(), Trouble> {
        const BATCHES: usize = CONCURRENCY / 2;
        let mut users = 0;
        let mut after = EmailKey::fold("");
        loop {
            let from = after.clone();
            let keys = self
                .state
                .call(move |store| store.to_match(&from, SEARCH_BATCH * BATCHES))
                .await?;
            let Some(last) = keys.last() else { return Ok(()) };
            after = last.clone();
            users += keys.len() as u64;
            let batches: Vec<_> = keys.chunks(SEARCH_BATCH).map(<[EmailKey]>::to_vec).collect();
            each(batches, BATCHES, |batch| self.match_batch(batch)).await?;
            self.connector.note_phase(Phase::Matching { users });
        }
    }

    /// Asks for one batch; a batch that is refused is halved, until the one address that is to blame stands alone.
    async fn match_batch(&self, keys: Vec<EmailKey>) -> Result<(), Trouble> {
        let mut batches = vec![keys];
        while let Some(keys) = batches.pop() {
            self.connector.go_on()?;
            let users = match self.jumpcloud.directory_users(&keys).await {
                Ok(users) => users,
                Err(failure) if failure.kind == FailureKind::Refused && keys.len() > 1 => {
                    let (front, back) = keys.split_at(keys.len() / 2);
                    batches.push(back.to_vec());
                    batches.push(front.to_vec());
                    continue;
                }
                Err(failure) if failure.kind == FailureKind::Refused => {
                    // Is it the address, or would the directory refuse anything (no organisation named)?
                    if let Err(other) = self.jumpcloud.directory_answers().await {
                        return Err(self.halt(other).await);
                    }
                    tracing::debug!("the directory refuses an address; it counts as unmatched: {failure}");
                    Vec::new()
                }
                Err(failure) => return Err(self.halt(failure).await),
            };
            let found: HashMap<EmailKey, DirectoryUserId> = users
                .into_iter()
                .filter_map(|user| Some((EmailKey::fold(user.email.as_deref()?), user.id)))
                .collect();
            let matches: Vec<_> = keys
                .into_iter()
                .map(|key| {
                    let user = found.get(&key).cloned();
                    (key, user)
                })
                .collect();
            self.state
                .call(move |store| store.matched(Timestamp::now(), &matches))
                .await?;
        }
        Ok(())
    }

    /// Creates what is missing, in passes: what was not answered in one is looked for before it is sent in the next.
    async fn create(&self) -> Result<(), Trouble> {
        loop {
            let sent = self.create_pass().await?;
            let unknown = self.state.call(|store| store.to_look_for()).await?;
            if unknown > 0 {
                self.adopt().await?;
            }
            if sent == 0 || self.not_offered.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// Sends one create for each account that is missing. Returns how many were sent.
    async fn create_pass(&self) -> Result<u64, Trouble> {
        let sent = AtomicU64::new(0);
        let mut after = EmailKey::fold("");
        while !self.no_more_creates() {
            let from = after.clone();
            let rows = self.state.call(move |store| store.to_create(&from, CHUNK)).await?;
            let Some(last) = rows.last() else { break };
            after = last.key.clone();
            each(rows, CONCURRENCY, |creation| async {
                self.connector.go_on()?;
                // Users without an e-mail are parked by that alone.
                let exhausted = creation.key.is_empty() || self.attempts_of(&creation.key) >= MAX_ATTEMPTS;
                if exhausted || self.no_more_creates() {
                    return Ok(());
                }
                sent.fetch_add(1, Ordering::Relaxed);
                self.create_one(creation).await
            })
            .await?;
        }
        Ok(sent.into_inner())
    }

    /// Whether creates had better wait: they are not offered, or the peer falters and the list is to be looked into first.
    fn no_more_creates(&self) -> bool {
        self.not_offered.load(Ordering::Relaxed) || self.jumpcloud.session().lane().failures() >= PEER_FALTERS
    }

    /// Sends one create, and notes what came of it. The intent is in the state before the request is on the wire.
    async fn create_one(&self, creation: Creation) -> Result<(), Trouble> {
        let mut directory_user = creation.directory_user.clone();
        loop {
            let key = creation.key.clone();
            let unanswered = self
                .state
                .call(move |store| store.creating(Timestamp::now(), &key))
                .await?;
            let result = self
                .jumpcloud
                .create_account(&self.application, &creation.email, directory_user.as_ref())
                .await;
            let failure = match result {
                Ok(account) => {
                    let vanished = directory_user.is_none() && creation.directory_user.is_some();
                    self.note_created(creation, account, vanished).await?;
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let key = creation.key.clone();
            match failure.kind {
                _ if failure.effect_unknown() => {
                    // Nothing more for this e-mail before the list was looked into.
                    self.count_attempt(&creation.key);
                    return self.unless_down(failure);
                }
                FailureKind::Later { .. } => {
                    self.state
                        .call(move |store| store.not_created(&key, unanswered))
                        .await?;
                    return self.unless_down(failure);
                }
                FailureKind::Conflict => {
                    self.state
                        .call(move |store| store.create_conflicted(&key, unanswered))
                        .await?;
                    return Ok(());
                }
                FailureKind::Refused if directory_user.is_some() => {
                    // The directory user may have vanished since it was matched.
                    self.state
                        .call(move |store| store.not_created(&key, unanswered))
                        .await?;
                    directory_user = None;
                }
                FailureKind::Refused => {
                    let reason = words(&failure);
                    self.state
                        .call(move |store| store.create_refused(Timestamp::now(), &key, &reason))
                        .await?;
                    return Ok(());
                }
                FailureKind::NotFound | FailureKind::NotOffered => {
                    self.state
                        .call(move |store| store.not_created(&key, unanswered))
                        .await?;
                    return self.not_offered(&failure).await;
                }
                _ => {
                    self.state
                        .call(move |store| store.not_created(&key, unanswered))
                        .await?;
                    return Err(self.halt_write(failure).await);
                }
            }
        }
    }

    async fn note_created(&self, creation: Creation, account: Account, vanished: bool) -> Result<(), Trouble> {
        let writes = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        self.connector.note_phase(Phase::Delivering { writes });
        self.state
            .call(move |store| {
                let now = Timestamp::now();
                store.created(now, &creation, &account)?;
                store.note_accounts_offered(now, true)?;
                if vanished {
                    store.match_vanished(now, &creation.key)?;
                }
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// 404, 405 or 501 on a create: either the application is gone, or this organisation is not offered account writes.
    async fn not_offered(&self, failure: &Failure) -> Result<(), Trouble> {
        match self.jumpcloud.application(&self.application).await {
            Ok(None) => Err(Trouble::ApplicationGone),
            Ok(Some(_)) => {
                if !self.not_offered.swap(true, Ordering::Relaxed) {
                    tracing::warn!(connector = %self.connector.name(), "{failure}: account writes are not offered; going on in report-only");
                }
                self.state
                    .call(|store| store.note_accounts_offered(Timestamp::now(), false))
                    .await?;
                Ok(())
            }
            Err(other) => Err(self.halt(other).await),
        }
    }

    /// Associates accounts with the directory users whom they belong to by e-mail.
    async fn associate(&self) -> Result<(), Trouble> {
        let unavailable = AtomicBool::new(false);
        let mut after = EmailKey::fold("");
        loop {
            let from = after.clone();
            let rows = self.state.call(move |store| store.to_associate(&from, CHUNK)).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.key.clone();
            each(rows, CONCURRENCY, |association| async {
                self.connector.go_on()?;
                if !unavailable.load(Ordering::Relaxed) && !self.associate_one(association).await? {
                    unavailable.store(true, Ordering::Relaxed);
                }
                Ok(())
            })
            .await?;
        }
    }

    /// Associates one account. `false` when associating is not offered.
    async fn associate_one(&self, association: Association) -> Result<bool, Trouble> {
        let result = self
            .jumpcloud
            .associate(&self.application, &association.account, &association.directory_user)
            .await;
        let now = Timestamp::now();
        let failure = match result {
            Ok(()) => {
                let writes = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
                self.connector.note_phase(Phase::Delivering { writes });
                self.state
                    .call(move |store| {
                        store.associated(now, &association)?;
                        store.note_associations_offered(now, true)
                    })
                    .await?;
                return Ok(true);
            }
            Err(failure) => failure,
        };
        match failure.kind {
            _ if failure.is_temporary() => self.unless_down(failure).map(|()| true),
            FailureKind::Refused | FailureKind::Conflict => {
                let reason = words(&failure);
                self.state
                    .call(move |store| store.association_refused(now, &association, &reason))
                    .await?;
                Ok(true)
            }
            FailureKind::NotFound => match self.jumpcloud.account(&self.application, &association.account).await {
                Ok(Some(_)) => self.associations_not_offered(&failure).await,
                // Gone since the list was read; the next run will notice, and look before it creates.
                Ok(None) => {
                    let lost = crate::state::Unresolved {
                        key: association.key,
                        account: association.account,
                    };
                    self.state.call(move |store| store.account_lost(now, &lost)).await?;
                    Ok(true)
                }
                Err(other) => Err(self.halt(other).await),
            },
            FailureKind::NotOffered => self.associations_not_offered(&failure).await,
            _ => Err(self.halt_write(failure).await),
        }
    }

    async fn associations_not_offered(&self, failure: &Failure) -> Result<bool, Trouble> {
        tracing::warn!(connector = %self.connector.name(), "{failure}: associating is not offered; creates go on");
        self.state
            .call(|store| store.note_associations_offered(Timestamp::now(), false))
            .await?;
        Ok(false)
    }

    /// Deletes accounts of ours whose users were removed.
    async fn delete(&self) -> Result<(), Trouble> {
        let mut after = EmailKey::fold("");
        loop {
            let from = after.clone();
            let rows = self.state.call(move |store| store.to_delete(&from, CHUNK)).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.key.clone();
            each(rows, CONCURRENCY, |deletion| self.delete_one(deletion)).await?;
        }
    }

    async fn delete_one(&self, deletion: Deletion) -> Result<(), Trouble> {
        self.connector.go_on()?;
        let result = self
            .jumpcloud
            .delete_account(&self.application, &deletion.account)
            .await;
        let now = Timestamp::now();
        match result {
            Ok(()) => {
                let writes = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
                self.connector.note_phase(Phase::Delivering { writes });
                self.state.call(move |store| store.deleted(now, &deletion)).await?;
                Ok(())
            }
            Err(failure) if failure.is_temporary() => self.unless_down(failure),
            Err(failure)
                if matches!(
                    failure.kind,
                    FailureKind::Refused | FailureKind::NotOffered | FailureKind::Conflict
                ) =>
            {
                let reason = words(&failure);
                self.state
                    .call(move |store| store.delete_refused(now, &deletion, &reason))
                    .await?;
                Ok(())
            }
            Err(failure) => Err(self.halt_write(failure).await),
        }
    }

    fn attempts_of(&self, key: &EmailKey) -> u32 {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.get(key).copied().unwrap_or_default()
    }

    fn count_attempt(&self, key: &EmailKey) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        *attempts.entry(key.clone()).or_default() += 1;
    }

    /// A temporary failure is the row's, which waits, as long as the peer answers others; otherwise the run ends here.
    fn unless_down(&self, failure: Failure) -> Result<(), Trouble> {
        if self.jumpcloud.session().lane().is_down() {
            return Err(Halt::Unavailable(failure).into());
        }
        Ok(())
    }

    fn gone_or(&self, failure: Failure) -> Trouble {
        match failure.kind {
            FailureKind::NotFound => Trouble::ApplicationGone,
            _ => Trouble::Halt(Halt::of(failure)),
        }
    }

    async fn halt(&self, failure: Failure) -> Trouble {
        refusal(self.jumpcloud, failure, false).await.into()
    }

    /// For a refused write: reading has worked in this very delivery, so a 403 is about writing.
    async fn halt_write(&self, failure: Failure) -> Trouble {
        refusal(self.jumpcloud, failure, true).await.into()
    }
}

/// Does something with each row, several at a time. The first that ends the delivery ends it: no other row is begun, and what
/// is on the wire is waited for, because an answer that nobody reads must be looked for later.
async fn each<T, F: Future<Output = Result<(), Trouble>>>(
    rows: Vec<T>,
    side_by_side: usize,
    work: impl Fn(T) -> F,
) -> Result<(), Trouble> {
    let ended: Mutex<Option<Trouble>> = Mutex::new(None);
    stream::iter(rows)
        .for_each_concurrent(side_by_side, async |row| {
            if lock(&ended).is_none()
                && let Err(trouble) = work(row).await
            {
                lock(&ended).get_or_insert(trouble);
            }
        })
        .await;
    match ended.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(trouble) => Err(trouble),
        None => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The peer's words about a refused item.
fn words(failure: &Failure) -> String {
    let status = failure.status.map_or(0, |status| status.as_u16());
    if failure.detail.is_empty() {
        format!("JumpCloud answered {status} without a reason")
    } else {
        format!("{} ({status})", failure.detail)
    }
}
