//! Associating accounts with the directory users whom they belong to by e-mail.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::deliver::{CHUNK, CONCURRENCY, Delivery, MAX_ATTEMPTS, Trouble, each, words};
use super::tally::{DeniedRow, Write};
use crate::http::{Failure, FailureKind};
use crate::state::{Association, Lost, Unresolved};

impl Delivery<'_> {
    /// Associates accounts with the directory users whom they belong to by e-mail.
    pub(super) async fn associate(&self) -> Result<(), Trouble> {
        for _ in 0..MAX_ATTEMPTS {
            let failures = self.begin_pass();
            let mut walk = self.walk(Write::Associate);
            while self.may_write() && !self.associating_not_offered.load(Ordering::Relaxed) {
                let after = walk.after();
                let rows = self.state.call(move |store| store.to_associate(&after, CHUNK)).await?;
                if !walk.goes_on(rows.last().map(|last| &last.key)) {
                    break;
                }
                each(rows, CONCURRENCY, |association| async {
                    self.connector.go_on()?;
                    let exhausted = self.is_exhausted(Write::Associate, &association.key);
                    let denied = self.may_not_write(Write::Associate);
                    if exhausted || denied || !self.may_write() || self.associating_not_offered.load(Ordering::Relaxed)
                    {
                        return Ok(());
                    }
                    self.began(Write::Associate, &association.key);
                    self.associate_one(association).await
                })
                .await?;
                self.judge_denied(Write::Associate).await?;
            }
            if self.tally().failures == failures {
                break;
            }
        }
        Ok(())
    }

    async fn associate_one(&self, association: Association) -> Result<(), Trouble> {
        let result = self
            .jumpcloud
            .associate(&self.application, &association.account, &association.directory_user)
            .await;
        let now = Timestamp::now();
        let failure = match result {
            Ok(()) => {
                self.wrote(Write::Associate);
                self.associating_works.store(true, Ordering::Relaxed);
                self.state
                    .call(move |store| {
                        store.associated(now, &association)?;
                        store.note_associations_offered(now, true)
                    })
                    .await?;
                return Ok(());
            }
            Err(failure) => failure,
        };
        match failure.kind {
            _ if failure.is_temporary() => self.unanswered(Write::Associate, &association.key, failure).await,
            FailureKind::Refused | FailureKind::Conflict => {
                self.answered();
                let reason = words(&failure);
                self.state
                    .call(move |store| store.association_refused(now, &association, &reason))
                    .await?;
                Ok(())
            }
            FailureKind::NotFound => match self.jumpcloud.account(&self.application, &association.account).await {
                Ok(Some(_)) => {
                    self.denied(DeniedRow::Associate(association), failure);
                    Ok(())
                }
                // Gone since the list was read: the next run makes it again.
                Ok(None) => {
                    self.answered();
                    let lost = Unresolved {
                        key: association.key,
                        account: association.account,
                    };
                    self.state
                        .call(move |store| store.account_lost(now, &lost, Lost::Gone))
                        .await?;
                    Ok(())
                }
                Err(other) => Err(self.halt(other).await),
            },
            FailureKind::NotOffered => self.associations_not_offered(&failure).await,
            FailureKind::Permission => {
                self.denied(DeniedRow::Associate(association), failure);
                Ok(())
            }
            _ => Err(self.halt_write(failure).await),
        }
    }

    pub(super) async fn associations_not_offered(&self, failure: &Failure) -> Result<(), Trouble> {
        if !self.associating_not_offered.swap(true, Ordering::Relaxed) {
            tracing::warn!(connector = %self.connector.name(), "{failure}: associating is not offered; creates go on");
        }
        self.answered();
        self.state
            .call(|store| store.note_associations_offered(Timestamp::now(), false))
            .await?;
        Ok(())
    }
}
