//! How the writes of a delivery go: what was answered, what was not, where the next pass goes on, and whose fault it is.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use jiff::Timestamp;

use super::Phase;
use super::deliver::{CONCURRENCY, Delivery, FEW, MAX_ATTEMPTS, Trouble, words};
use crate::http::{Failure, FailureKind};
use crate::model::EmailKey;
use crate::state::Association;

/// Writes in a row without an answer, while reads are answered, after which a pass ends.
const MAX_SILENT: u32 = 2 * CONCURRENCY as u32;

/// What can be written about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Write {
    Create,
    Associate,
    Delete,
}

/// A write that these credentials may not do, or that finds nothing: be it this one or any.
pub(super) struct Denied {
    row: DeniedRow,
    failure: Failure,
}

/// What it was about.
pub(super) enum DeniedRow {
    Create(EmailKey),
    Associate(Association),
}

/// A create that is answered so often in a run with the account of another e-mail is not sent again.
const MAX_ASTRAY: u32 = 3;

/// How the writes of this delivery go.
#[derive(Default)]
pub(super) struct Tally {
    /// Rows that failed for now, and how often.
    pub(super) attempts: HashMap<(Write, EmailKey), u32>,
    /// Creates that were answered with the account of another e-mail, and how often.
    astray: HashMap<EmailKey, u32>,
    /// Writes that were answered.
    pub(super) answered: u64,
    /// Writes that were done.
    accepted: HashMap<Write, u64>,
    /// Writes that were answered with 403, or associations with 404: is it these, or all?
    denied: Vec<Denied>,
    /// Writes that were not.
    pub(super) failures: u64,
    /// Those of them that were told to come later, for being too many.
    pub(super) throttled: u64,
    /// Those of them in a row, in this pass.
    silent: u32,
    /// Passes over the creates in a row without any progress.
    pub(super) barren: u32,
    /// Creates whose answers were lost turned out to have taken effect.
    pub(super) recovered: bool,
    /// Behind which row the next pass goes on: not at the front, where the rows stand that nobody answers for.
    resume: HashMap<Write, EmailKey>,
    /// What the last of those said.
    pub(super) last_failure: Option<Failure>,
}

/// A walk over rows in the order of their e-mails, a chunk at a time; one that begins in between goes over all of them afterwards.
pub(super) struct Walk {
    after: EmailKey,
    whole: bool,
}

impl Walk {
    /// Behind which row the next chunk begins.
    pub(super) fn after(&self) -> EmailKey {
        self.after.clone()
    }

    /// Whether there is more to come after a chunk that ended with this row; `None`: it was empty.
    pub(super) fn goes_on(&mut self, last: Option<&EmailKey>) -> bool {
        match last {
            Some(last) => self.after = last.clone(),
            None if self.whole => return false,
            None => {
                *self = Self {
                    after: EmailKey::fold(""),
                    whole: true,
                };
            }
        }
        true
    }
}

impl Delivery<'_> {
    /// What a 403 on some writes of a kind means, or a 404 on some associations: where others were done, it is about those rows (a
    /// 404: about a directory user who is not there any more), and they are parked. Where none was, these credentials may not write
    /// that at all, or associating is not offered; unless it is known to work, and it is about no more than a few.
    pub(super) async fn judge_denied(&self, write: Write) -> Result<(), Trouble> {
        let works = self.works(write);
        let (denied, accepted) = {
            let mut tally = self.tally();
            let accepted = tally.accepted.get(&write).copied().unwrap_or_default();
            (std::mem::take(&mut tally.denied), accepted)
        };
        let about_rows = accepted > 0 || (works && denied.len() <= FEW);
        for Denied { row, failure } in denied {
            if failure.kind == FailureKind::NotFound {
                if !works {
                    return self.associations_not_offered(&failure).await;
                }
            } else if !about_rows {
                return Err(self.halt_write(failure).await);
            }
            self.answered();
            let reason = words(&failure);
            self.state
                .call(move |store| match row {
                    DeniedRow::Create(key) => store.create_refused(Timestamp::now(), &key, &reason),
                    DeniedRow::Associate(association) => {
                        store.association_refused(Timestamp::now(), &association, &reason)
                    }
                })
                .await?;
        }
        Ok(())
    }

    /// Whether a kind of write is known to work.
    fn works(&self, write: Write) -> bool {
        match write {
            Write::Associate => self.associating_works.load(Ordering::Relaxed),
            Write::Create | Write::Delete => self.creating_works.load(Ordering::Relaxed),
        }
    }

    /// Whether it looks as if this cannot be written at all: enough to ask no further.
    pub(super) fn may_not_write(&self, write: Write) -> bool {
        let tally = self.tally();
        !tally.accepted.contains_key(&write) && tally.denied.len() >= CONCURRENCY
    }

    pub(super) fn denied(&self, row: DeniedRow, failure: Failure) {
        self.tally().denied.push(Denied { row, failure });
    }

    /// What the last write said that was not answered, and whether any other was.
    pub(super) fn unanswered_write(&self) -> Option<(Failure, bool)> {
        let tally = self.tally();
        Some((tally.last_failure.clone()?, tally.answered > 0))
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A create was answered with the account of another e-mail. Whether that was so often enough that it is no accident: each may
    /// have made an account.
    pub(super) fn went_astray(&self, key: &EmailKey) -> bool {
        let mut tally = self.tally();
        let times = tally.astray.entry(key.clone()).or_default();
        *times += 1;
        *times >= MAX_ASTRAY
    }

    /// Begins a pass over what remains. Returns how many writes went unanswered before it.
    pub(super) fn begin_pass(&self) -> u64 {
        let mut tally = self.tally();
        tally.silent = 0;
        tally.failures
    }

    /// A row is begun: a pass that ends early is gone on with behind it.
    pub(super) fn began(&self, write: Write, key: &EmailKey) {
        let mut tally = self.tally();
        let furthest = tally.resume.entry(write).or_insert_with(|| EmailKey::fold(""));
        if key > furthest {
            *furthest = key.clone();
        }
    }

    /// The walk of a pass: from behind where the last one stopped.
    pub(super) fn walk(&self, write: Write) -> Walk {
        let last = self.tally().resume.remove(&write);
        Walk {
            whole: last.is_none(),
            after: last.unwrap_or_else(|| EmailKey::fold("")),
        }
    }

    /// Whether a pass goes on: not after so many writes in a row without an answer.
    pub(super) fn may_write(&self) -> bool {
        self.tally().silent < MAX_SILENT
    }

    pub(super) fn is_exhausted(&self, write: Write, key: &EmailKey) -> bool {
        let tally = self.tally();
        tally
            .attempts
            .get(&(write, key.clone()))
            .is_some_and(|attempts| *attempts >= MAX_ATTEMPTS)
    }

    /// A write was answered, be it with a refusal: JumpCloud takes writes.
    pub(super) fn answered(&self) {
        let mut tally = self.tally();
        tally.answered += 1;
        tally.silent = 0;
    }

    pub(super) fn wrote(&self, write: Write) {
        self.answered();
        *self.tally().accepted.entry(write).or_default() += 1;
        let writes = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        self.connector.note_phase(Phase::Delivering { writes });
    }

    /// A write was not answered. Is it the peer, or only this row? Something harmless is asked, with all the patience there is: if
    /// that is answered, the row waits and the others go on.
    pub(super) async fn unanswered(&self, write: Write, key: &EmailKey, failure: Failure) -> Result<(), Trouble> {
        let too_fast = failure.status == Some(http::StatusCode::TOO_MANY_REQUESTS);
        {
            let mut tally = self.tally();
            tally.failures += 1;
            tally.silent += 1;
            tally.last_failure = Some(failure);
            if too_fast {
                // Nobody's fault in particular.
                tally.throttled += 1;
            } else {
                *tally.attempts.entry((write, key.clone())).or_default() += 1;
            }
        }
        match self.jumpcloud.application(&self.application).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Trouble::ApplicationGone),
            Err(failure) => Err(self.halt(failure).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_begins_in_between_goes_over_everything_afterwards_and_one_from_the_front_does_not() {
        let key = EmailKey::fold;
        let visited = |mut walk: Walk| {
            let rows = ["a", "b", "c", "d"].map(key);
            let mut visited = Vec::new();
            loop {
                let after = walk.after();
                let chunk: Vec<_> = rows.iter().filter(|row| **row > after).take(2).collect();
                visited.extend(chunk.iter().map(|row| row.as_str().to_owned()));
                if !walk.goes_on(chunk.last().copied()) {
                    return visited.concat();
                }
            }
        };
        let walk = |after: &str, whole| Walk {
            after: key(after),
            whole,
        };
        assert_eq!(visited(walk("", true)), "abcd");
        assert_eq!(visited(walk("b", false)), "cdabcd");
        assert_eq!(visited(walk("d", false)), "abcd");
    }
}
