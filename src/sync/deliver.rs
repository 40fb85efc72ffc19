//! Delivering: bringing JumpCloud's accounts to what the snapshot says. What remains is asked of the state at every step.
//!
//! ```text
//! application ─▶ adopt what is there ─▶ ask the directory ─▶ create ⇄ look again ─▶ associate ─▶ delete
//! ```
//!
//! Nothing is created before the accounts that are there were read to the end of the list, and nothing is created again before
//! the list was looked into: that is what makes a second account for an e-mail impossible on our side.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::application::{Tenancy, find_application, recently_not_offered, refusal, tenancy};
use super::settle::{self, Settling};
use super::tally::{DeniedRow, Tally, Write};
use super::{Connector, Halt, NOT_OFFERED_AGE, is_younger};
use crate::config::Removals;
use crate::http::{Failure, FailureKind};
use crate::jumpcloud::{Account, JumpCloud};
use crate::model::{ApplicationId, EmailKey};
use crate::oauth::Gate;
use crate::state::{Creation, Offered, State, StateError};

/// Requests in flight at a time.
pub(super) const CONCURRENCY: usize = 8;
/// Rows read from the state at a time.
pub(super) const CHUNK: usize = 256;
/// How often one row is tried in one run while the peer answers others; then it waits for the next run, and stops nobody.
pub(super) const MAX_ATTEMPTS: u32 = 5;
/// How many passes may go by without any answer to a write.
const MAX_BARREN: u32 = 3;
/// So many rows without an answer are those rows' own trouble, also where no other write was there to be answered.
pub(super) const FEW: usize = 2;
/// How often a delivery starts again because the application disappeared under it.
const MAX_APPLICATIONS: u32 = 3;

/// Brings JumpCloud to what the snapshot says.
pub(super) async fn deliver(connector: &Connector) -> Result<(), Halt> {
    for _ in 0..MAX_APPLICATIONS {
        let Some(application) = find_application(connector, true).await? else {
            return Ok(());
        };
        // Before anything is delivered: from now on the others know that this application is not theirs alone.
        let _ = tenancy(connector, &application);
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

/// One delivery to one application.
pub(super) struct Delivery<'a> {
    pub(super) connector: &'a Connector,
    pub(super) jumpcloud: &'a JumpCloud,
    pub(super) state: &'a State,
    pub(super) application: ApplicationId,
    pub(super) tally: Mutex<Tally>,
    /// Account writes turned out not to be offered.
    not_offered: AtomicBool,
    /// Associating turned out not to be offered.
    pub(super) associating_not_offered: AtomicBool,
    /// Creating is known to be offered: it worked before.
    pub(super) creating_works: AtomicBool,
    /// Associating is known to be offered: it worked in this delivery, or before.
    pub(super) associating_works: AtomicBool,
    pub(super) writes: AtomicU64,
}

/// Open once the intent of a create is in the state: it is there before the request is on the wire.
struct Intent<'a> {
    state: &'a State,
    key: &'a EmailKey,
    settling: Settling,
    /// Whether an earlier create was not answered. Asked once, for all the times that this one is sent.
    noted: Option<Result<bool, StateError>>,
}

impl Gate for Intent<'_> {
    async fn is_open(&mut self) -> bool {
        if self.noted.is_none() {
            let (key, settles) = (self.key.clone(), settle::ahead(self.settling.of_request()));
            let creating = self
                .state
                .call(move |store| store.creating(Timestamp::now(), &key, settles));
            self.noted = Some(creating.await);
        } else if let Some(Ok(_)) = self.noted {
            // The token for the second time may have been long in coming.
            let (key, settles) = (self.key.clone(), settle::ahead(self.settling.of_request()));
            let settling = self.state.call(move |store| store.create_settles(&key, settles));
            if let Err(error) = settling.await {
                self.noted = Some(Err(error));
            }
        }
        matches!(self.noted, Some(Ok(_)))
    }
}

impl<'a> Delivery<'a> {
    pub(super) fn new(connector: &'a Connector, application: ApplicationId) -> Self {
        Self {
            connector,
            jumpcloud: &connector.jumpcloud,
            state: &connector.state,
            application,
            tally: Mutex::new(Tally::default()),
            not_offered: AtomicBool::new(false),
            associating_not_offered: AtomicBool::new(false),
            creating_works: AtomicBool::new(false),
            associating_works: AtomicBool::new(false),
            writes: AtomicU64::new(0),
        }
    }

    async fn deliver(&self) -> Result<(), Trouble> {
        self.learn().await?;
        let mut left = self.jumpcloud.session().lane().patience().within;
        loop {
            self.write().await?;
            // What was not answered may still take effect. It is waited for here, where it keeps no other row waiting.
            let settles = self.state.call(|store| store.settles_at()).await?;
            let Some(settles) = settles.filter(|_| self.tally().barren < MAX_BARREN) else {
                break;
            };
            if !settle::wait_until(self.connector, settles, &mut left).await? {
                break;
            }
            self.look_again().await?;
        }
        // A row or two that nobody answers for are those rows' trouble, and they stay pending. If nothing was ever delivered, or more
        // rows failed and no write at all was answered, it is the peer's, though its reads work: then this was no success.
        let nothing_there = self.state.call(|store| store.status()).await?.accounts == 0;
        let mut tally = self.tally();
        let many = tally.attempts.len() > FEW || tally.throttled > FEW as u64;
        match tally.last_failure.take() {
            Some(failure) if tally.answered == 0 && !tally.recovered && (many || nothing_there) => {
                Err(Halt::Unavailable(failure).into())
            }
            _ => Ok(()),
        }
    }

    /// Writes whatever is to be written: creates, associations, deletions.
    async fn write(&self) -> Result<(), Trouble> {
        let about = self.state.call(|store| store.about()).await?;
        let works = about.accounts == Offered::Yes;
        self.creating_works.fetch_or(works, Ordering::Relaxed);
        if !recently_not_offered(&about) {
            self.create().await?;
        }
        let about = self.state.call(|store| store.about()).await?;
        let works = about.associations == Offered::Yes;
        self.associating_works.fetch_or(works, Ordering::Relaxed);
        let recently = |since| is_younger(since, Timestamp::now(), NOT_OFFERED_AGE);
        if !matches!(about.associations, Offered::No(since) if recently(since)) {
            self.associate().await?;
        }
        let tenancy = tenancy(self.connector, &self.application);
        if self.connector.config.removals == Removals::Delete {
            match tenancy {
                Tenancy::Alone => self.delete().await?,
                Tenancy::Shared => {
                    let kept = self.state.call(|store| store.report_due()).await?;
                    if kept > 0 {
                        tracing::warn!(
                            connector = %self.connector.name(),
                            kept,
                            "another connector delivers to the same application: no account is deleted, for it may be that one's, too"
                        );
                    }
                }
                // That shows as what waits, and why.
                Tenancy::Unknown(_) => {}
            }
        } else {
            // What was to be deleted when the setting was another one, and could not be, is shown like everything else.
            self.state.call(|store| store.report_due()).await?;
        }
        Ok(())
    }

    /// Creates what is missing, in passes: what was not answered in one is looked for before it is sent in the next.
    async fn create(&self) -> Result<(), Trouble> {
        while self.tally().barren < MAX_BARREN && !self.not_offered.load(Ordering::Relaxed) {
            let answered = self.tally().answered;
            if self.create_pass().await? == 0 {
                break;
            }
            self.tally().barren += 1;
            self.look_again().await?;
            let mut tally = self.tally();
            if tally.answered > answered {
                tally.barren = 0;
            }
        }
        Ok(())
    }

    /// Looks for the creates that were not answered.
    async fn look_again(&self) -> Result<(), Trouble> {
        if self.state.call(|store| store.to_look_for()).await? > 0 && self.adopt().await? > 0 {
            // Creates that took effect although their answers were lost are progress, too.
            let mut tally = self.tally();
            (tally.recovered, tally.barren) = (true, 0);
        }
        Ok(())
    }

    /// Sends one create for each account that is missing. Returns how many were sent.
    async fn create_pass(&self) -> Result<u64, Trouble> {
        self.begin_pass();
        let sent = AtomicU64::new(0);
        let mut walk = self.walk(Write::Create);
        while self.may_write() && !self.not_offered.load(Ordering::Relaxed) {
            let after = walk.after();
            let rows = self.state.call(move |store| store.to_create(&after, CHUNK)).await?;
            if !walk.goes_on(rows.last().map(|last| &last.key)) {
                break;
            }
            each(rows, CONCURRENCY, |creation| async {
                self.connector.go_on()?;
                let exhausted = self.is_exhausted(Write::Create, &creation.key);
                let denied = self.may_not_write(Write::Create);
                if exhausted || denied || !self.may_write() || self.not_offered.load(Ordering::Relaxed) {
                    return Ok(());
                }
                sent.fetch_add(1, Ordering::Relaxed);
                self.began(Write::Create, &creation.key);
                self.create_one(creation).await
            })
            .await?;
            self.judge_denied(Write::Create).await?;
        }
        Ok(sent.into_inner())
    }

    /// Sends one create, and notes what came of it. The intent is in the state before the request is on the wire.
    async fn create_one(&self, creation: Creation) -> Result<(), Trouble> {
        let mut directory_user = creation.directory_user.clone();
        let settling = self.connector.settling;
        loop {
            let mut intent = Intent {
                state: self.state,
                key: &creation.key,
                settling,
                noted: None,
            };
            let result = self
                .jumpcloud
                .create_account(&self.application, &creation.email, directory_user.as_ref(), &mut intent)
                .await;
            // Whether an earlier create was not answered; `None`: this one never had its turn, and nothing was noted.
            let unanswered = intent.noted.transpose()?;
            let failure = match result {
                Ok(account) => {
                    let vanished = directory_user.is_none() && creation.directory_user.is_some();
                    self.note_created(creation, account, vanished).await?;
                    return Ok(());
                }
                Err(failure) => failure,
            };
            if failure.effect_unknown() {
                // Nothing more for this e-mail before the list was looked into.
                let (key, settles) = (creation.key.clone(), settle::ahead(settling.after(&failure)));
                let astray = failure.astray && self.went_astray(&creation.key);
                self.state
                    .call(move |store| match astray {
                        true => store.create_astray(&key, settles),
                        false => store.create_settles(&key, settles),
                    })
                    .await?;
                return self.unanswered(Write::Create, &creation.key, failure).await;
            }
            let key = creation.key.clone();
            if failure.kind == FailureKind::Conflict {
                self.answered();
                let (unanswered, settles) = (unanswered.unwrap_or(false), settle::ahead(settling.of_answer()));
                self.state
                    .call(move |store| store.create_conflicted(&key, unanswered, settles))
                    .await?;
                return Ok(());
            }
            if let Some(unanswered) = unanswered {
                self.state
                    .call(move |store| store.not_created(&key, unanswered))
                    .await?;
            }
            match failure.kind {
                _ if failure.is_temporary() => {
                    return self.unanswered(Write::Create, &creation.key, failure).await;
                }
                // The directory user may have vanished since it was matched.
                FailureKind::Refused | FailureKind::NotFound if directory_user.is_some() => directory_user = None,
                FailureKind::Refused => {
                    self.answered();
                    let (key, reason) = (creation.key, words(&failure));
                    self.state
                        .call(move |store| store.create_refused(Timestamp::now(), &key, &reason))
                        .await?;
                    return Ok(());
                }
                FailureKind::NotFound | FailureKind::NotOffered => return self.not_offered(&failure).await,
                FailureKind::Permission => {
                    self.denied(DeniedRow::Create(creation.key), failure);
                    return Ok(());
                }
                _ => return Err(self.halt_write(failure).await),
            }
        }
    }

    async fn note_created(&self, creation: Creation, account: Account, vanished: bool) -> Result<(), Trouble> {
        self.wrote(Write::Create);
        let settles = settle::ahead(self.connector.settling.of_answer());
        self.state
            .call(move |store| {
                let now = Timestamp::now();
                store.create_settles(&creation.key, settles)?;
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
                self.answered();
                self.state
                    .call(|store| store.note_accounts_offered(Timestamp::now(), false))
                    .await?;
                Ok(())
            }
            Err(other) => Err(self.halt(other).await),
        }
    }

    pub(super) async fn halt(&self, failure: Failure) -> Trouble {
        refusal(self.jumpcloud, failure, false).await.into()
    }

    /// For a refused write: reading has worked in this very delivery, so a 403 is about writing.
    pub(super) async fn halt_write(&self, failure: Failure) -> Trouble {
        refusal(self.jumpcloud, failure, true).await.into()
    }
}

/// Does something with each row, several at a time. After the first that ends the delivery no further row is begun; what is under
/// way is let finish, so that its outcome is noted.
pub(super) async fn each<T, F: Future<Output = Result<(), Trouble>>>(
    rows: Vec<T>,
    side_by_side: usize,
    work: impl Fn(T) -> F,
) -> Result<(), Trouble> {
    let ended: Mutex<Option<Trouble>> = Mutex::new(None);
    let has_ended = || ended.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    stream::iter(rows)
        .for_each_concurrent(side_by_side, |row| {
            let work = (!has_ended()).then(|| work(row));
            let ended = &ended;
            async move {
                let Some(work) = work else { return };
                if let Err(trouble) = work.await {
                    ended
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(trouble);
                }
            }
        })
        .await;
    match ended.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(trouble) => Err(trouble),
        None => Ok(()),
    }
}

/// The peer's words about a refused item.
pub(super) fn words(failure: &Failure) -> String {
    let status = failure.status.map_or(0, |status| status.as_u16());
    if failure.detail.is_empty() {
        format!("JumpCloud answered {status} without a reason")
    } else {
        format!("{} ({status})", failure.detail)
    }
}
