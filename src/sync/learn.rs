//! Learning what JumpCloud has: accounts are adopted by e-mail, lost ones noticed, unanswered creates resolved, and the directory
//! is asked whom the e-mails belong to. Reads only.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::application::recently_not_offered;
use super::deliver::{CONCURRENCY, Delivery, Trouble, each};
use super::{Connector, Halt, Phase, is_younger};
use crate::http::FailureKind;
use crate::jumpcloud::{Account, SEARCH_BATCH};
use crate::model::{ApplicationId, EmailKey};
use crate::state::Lost;

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
        // Looked at by itself: a reading that was begun and failed is still due.
        if stale
            || !fresh(about.known_at, KNOWLEDGE_AGE)
            || about.known_at < about.directory_since
            || unknown > 0
            // Whoever is new in Torq may have had an account there all along, as nobody's: however short ago the list was read, it
            // was not read for them.
            || creates
        {
            self.adopt().await?;
        }
        self.match_directory().await?;
        if stale {
            self.connector.note_reconciled();
        }
        Ok(())
    }

    /// Reads all accounts of the application: adopts those of users, notices those that are gone, resolves creates that were
    /// not answered. Returns how many of these took effect.
    pub(super) async fn adopt(&self) -> Result<u64, Trouble> {
        let began = Timestamp::now();
        let mut pages = self.jumpcloud.accounts(&self.application);
        let mut others: Vec<Account> = Vec::new();
        let mut seen: HashSet<u64> = HashSet::new();
        let (mut read, mut found, mut recovered) = (0, 0, 0);
        loop {
            let page = match pages.next().await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(failure) if failure.kind == FailureKind::NotFound => return Err(Trouble::ApplicationGone),
                Err(failure) => return Err(self.halt(failure).await),
            };
            self.connector.go_on()?;
            read += page.len() as u64;
            seen.extend(page.iter().flat_map(Account::prints));
            self.connector.note_phase(Phase::Adopting { accounts: read });
            let adopted = self
                .state
                .call(move |store| store.adopt(Timestamp::now(), &page))
                .await?;
            found += adopted.found;
            recovered += adopted.recovered;
            others.extend(adopted.others);
        }
        let missing = self.state.call(move |store| store.accounts_not_in(&seen)).await?;
        let unread = pages.unread();
        let lost = AtomicU64::new(0);
        each(missing, CONCURRENCY, |account| async {
            self.connector.go_on()?;
            if unread
                .iter()
                .any(|row| row.id.as_deref() == Some(account.account.as_str()))
            {
                return Ok(());
            }
            // Not in the list is not yet gone: rows shift while a list is read. Only the account itself can say, and of what was so when it
            // was asked: an answer can be long under way.
            let asked = Timestamp::now();
            let why = match self.jumpcloud.account(&self.application, &account.account).await {
                Ok(Some(Err(_))) => return Ok(()),
                Ok(Some(Ok(there))) if there.is_of(&account.key) => return Ok(()),
                Ok(Some(Ok(_))) => Lost::Renamed,
                Ok(None) => Lost::Gone,
                Err(failure) => return Err(self.halt(failure).await),
            };
            let is_lost = self.state.call(move |store| store.account_lost(asked, &account, why));
            lost.fetch_add(is_lost.await?.into(), Ordering::Relaxed);
            Ok(())
        })
        .await?;
        let lost = lost.into_inner();
        if !unread.is_empty() {
            let texts = unread.iter().flat_map(|row| &row.texts);
            let keys: Vec<_> = texts
                .map(|text| EmailKey::fold(text))
                .filter(|key| !key.is_empty())
                .collect();
            self.state
                .call(move |store| store.park_unreadable(Timestamp::now(), &keys))
                .await?;
        }
        // Another account with the e-mail of one that is gone takes its place.
        let adopted = self
            .state
            .call(move |store| store.adopt(Timestamp::now(), &others))
            .await?;
        found += adopted.found;
        recovered += adopted.recovered;
        self.state.call(move |store| store.finish_adoption(began)).await?;
        if found + lost > 0 {
            tracing::info!(connector = %self.connector.name(), read, found, lost, "read JumpCloud's accounts");
        }
        Ok(recovered)
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
            let found = match self.jumpcloud.directory_users(&keys).await {
                Ok(found) => found,
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
                    HashMap::new()
                }
                // The directory says so itself: that has nothing to do with the licence for SaaS Management.
                Err(failure) if failure.kind == FailureKind::Permission => return Err(Halt::of(failure).into()),
                Err(failure) => return Err(self.halt(failure).await),
            };
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
                store.account_lost(now, &account, Lost::WithItsApplication)?;
            }
            store.finish_adoption(now)
        })
        .await?;
    // The directory is not the application's: no request to it names one.
    let nowhere = ApplicationId::new("");
    Delivery::new(connector, nowhere).match_directory().await
}
