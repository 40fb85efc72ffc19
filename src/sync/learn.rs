//! Learning what JumpCloud has: accounts are adopted by e-mail, lost ones noticed, unanswered creates resolved, and the directory
//! is asked whom the e-mails belong to. Reads only.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::application::recently_not_offered;
use super::deliver::{CONCURRENCY, Delivery, Trouble, each};
use super::{Connector, Phase, is_younger};
use crate::http::FailureKind;
use crate::jumpcloud::{Account, SEARCH_BATCH};
use crate::model::{ApplicationId, DirectoryUserId, EmailKey};

/// How old knowledge of JumpCloud's accounts and directory may grow.
const KNOWLEDGE_AGE: SignedDuration = SignedDuration::from_hours(24);

impl Delivery<'_> {
    /// Reads what JumpCloud has, where that is not known or not fresh enough for what is to be done.
    pub(super) async fn learn(&self) -> Result<(), Trouble> {
        let (about, unknown, creates) = self
            .state
            .call(|store| {
                let about = store.about()?;
                let creates = !recently_not_offered(&about) && !store.to_create(&EmailKey::fold(""), 1)?.is_empty();
                Ok((about, store.to_look_for()?, creates))
            })
            .await?;
        let now = Timestamp::now();
        let fresh = |at: Option<Timestamp>, age| at.is_some_and(|at| is_younger(at, now, age));
        let stale = !self.connector.is_reconciled() || !fresh(about.directory_since, KNOWLEDGE_AGE);
        if stale {
            self.state.call(move |store| store.begin_reconciliation(now)).await?;
        }
        // Whenever something is to be created: an account of somebody who was in Torq only now was left alone the last time, and
        // another source may have made one since.
        if stale || about.known_at.is_none() || unknown > 0 || creates {
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
    pub(super) async fn adopt(&self) -> Result<(), Trouble> {
        let mut pages = self.jumpcloud.accounts(&self.application);
        let mut others: Vec<Account> = Vec::new();
        let (mut read, mut found) = (0, 0);
        loop {
            let page = match pages.next().await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(failure) if failure.kind == FailureKind::NotFound => return Err(Trouble::ApplicationGone),
                Err(failure) => return Err(self.halt(failure).await),
            };
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
