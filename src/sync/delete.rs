//! Deleting accounts of ours whose users were removed, each after a last look at whose it is.

use jiff::Timestamp;

use super::deliver::{CHUNK, CONCURRENCY, Delivery, MAX_ATTEMPTS, Trouble, each, words};
use super::settle::{self, Settling};
use super::tally::Write;
use crate::http::{Failure, FailureKind};
use crate::oauth::Gate;
use crate::state::{Deletion, Lost, State, StateError, Store, Unresolved};

/// Whose an account is that is to be deleted.
enum Standing {
    /// Still that of the e-mail that it was made for.
    Ours,
    /// It is not there any more.
    Gone,
    /// It has another e-mail now.
    Renamed,
    /// It is there, and who knows whose it is.
    Unreadable,
}

/// Open as long as an account is to be deleted: somebody may think better of it until it is sent. That it is being sent is in the state
/// before it is on the wire, so that it is looked for whatever happens then.
struct StillDue<'a> {
    state: &'a State,
    deletion: &'a Deletion,
    settling: Settling,
    /// Whether an earlier one may still take effect, before this one was sent for the first time.
    earlier: Option<bool>,
    /// Whether it is to be sent, when that was asked last.
    due: Option<Result<bool, StateError>>,
}

impl Gate for StillDue<'_> {
    async fn is_open(&mut self) -> bool {
        let (deletion, settles) = (self.deletion.clone(), settle::ahead(self.settling.of_request()));
        let deleting = move |store: &mut Store| store.deleting(Timestamp::now(), &deletion, settles);
        let noted = self.state.call(deleting).await;
        if let Ok(Some(earlier)) = noted {
            self.earlier.get_or_insert(earlier);
        }
        matches!(self.due.insert(noted.map(|noted| noted.is_some())), Ok(true))
    }
}

impl Delivery<'_> {
    /// Deletes accounts of ours whose users were removed.
    pub(super) async fn delete(&self) -> Result<(), Trouble> {
        for _ in 0..MAX_ATTEMPTS {
            let failures = self.begin_pass();
            let mut walk = self.walk(Write::Delete);
            while self.may_write() {
                let after = walk.after();
                let rows = self.state.call(move |store| store.to_delete(&after, CHUNK)).await?;
                if !walk.goes_on(rows.last().map(|last| &last.key)) {
                    break;
                }
                each(rows, CONCURRENCY, |deletion| async {
                    self.connector.go_on()?;
                    if self.is_exhausted(Write::Delete, &deletion.key) || !self.may_write() {
                        return Ok(());
                    }
                    self.began(Write::Delete, &deletion.key);
                    self.delete_one(deletion).await
                })
                .await?;
            }
            if self.tally().failures == failures {
                break;
            }
        }
        Ok(())
    }

    /// Deletes one account, after a last look at whose it is: it is a day since the list was read, and somebody may have given it to
    /// somebody else.
    async fn delete_one(&self, deletion: Deletion) -> Result<(), Trouble> {
        match self.standing(&deletion).await? {
            Standing::Ours => {}
            // An earlier deletion whose answer was lost, or somebody else's.
            Standing::Gone => return self.note_deleted(deletion).await,
            Standing::Renamed => {
                let lost = Unresolved {
                    key: deletion.key,
                    account: deletion.account,
                };
                self.state
                    .call(move |store| store.account_lost(Timestamp::now(), &lost, Lost::Renamed))
                    .await?;
                return Ok(());
            }
            Standing::Unreadable => {
                let reason = "the account cannot be read, so it may be somebody else's";
                return self.note_delete_refused(deletion, reason.to_owned()).await;
            }
        }
        let mut still = StillDue {
            state: self.state,
            deletion: &deletion,
            settling: self.connector.settling,
            earlier: None,
            due: None,
        };
        let result = self
            .jumpcloud
            .delete_account(&self.application, &deletion.account, &mut still)
            .await;
        if still.due.transpose()? == Some(false) {
            return Ok(());
        }
        if let (Err(failure), Some(earlier)) = (&result, still.earlier) {
            self.note_unsettled(&deletion, failure, earlier).await?;
        }
        match result {
            Ok(()) => {
                self.wrote(Write::Delete);
                self.note_deleted(deletion).await
            }
            Err(failure) if failure.is_temporary() => self.unanswered(Write::Delete, &deletion.key, failure).await,
            Err(failure) => match failure.kind {
                FailureKind::NotFound => {
                    self.answered();
                    match self.standing(&deletion).await? {
                        Standing::Gone => self.note_deleted(deletion).await,
                        // There it still is: deleting is what is not there.
                        _ => {
                            let reason = format!("{}, and has the account all the same", words(&failure));
                            self.note_delete_refused(deletion, reason).await
                        }
                    }
                }
                FailureKind::Refused | FailureKind::NotOffered | FailureKind::Conflict => {
                    self.answered();
                    self.note_delete_refused(deletion, words(&failure)).await
                }
                _ => Err(self.halt_write(failure).await),
            },
        }
    }

    /// A deletion failed that was sent: it did not take effect, or may do so still; and so may an `earlier` one.
    async fn note_unsettled(&self, deletion: &Deletion, failure: &Failure, earlier: bool) -> Result<(), Trouble> {
        let settles = settle::ahead(self.connector.settling.after(failure));
        let (deletion, unknown) = (deletion.clone(), failure.effect_unknown());
        let noted = self.state.call(move |store| match unknown {
            true => store.deletion_settles(&deletion, settles, earlier),
            false if earlier => Ok(()),
            false => store.not_deleted(&deletion),
        });
        Ok(noted.await?)
    }

    /// Whose an account is that is to be deleted.
    async fn standing(&self, deletion: &Deletion) -> Result<Standing, Trouble> {
        match self.jumpcloud.account(&self.application, &deletion.account).await {
            Ok(Some(Ok(account))) if account.is_of(&deletion.key) => Ok(Standing::Ours),
            Ok(Some(Ok(_))) => Ok(Standing::Renamed),
            Ok(Some(Err(_))) => Ok(Standing::Unreadable),
            Ok(None) => Ok(Standing::Gone),
            Err(failure) => Err(self.halt(failure).await),
        }
    }

    async fn note_deleted(&self, deletion: Deletion) -> Result<(), Trouble> {
        let noted = self.state.call(move |store| store.deleted(Timestamp::now(), &deletion));
        Ok(noted.await?)
    }

    async fn note_delete_refused(&self, deletion: Deletion, reason: String) -> Result<(), Trouble> {
        let noted = self
            .state
            .call(move |store| store.delete_refused(Timestamp::now(), &deletion, &reason));
        Ok(noted.await?)
    }
}
