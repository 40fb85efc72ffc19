//! Settling: how long a write that was not answered may still take effect. Until then, not to be in JumpCloud's list is not yet not
//! to be there: it is looked for again before it is sent again.
//!
//! There is no end that anybody guarantees. These are the lengths after which a server that has not done it does not do it any more:
//! whoever answered is done (its list may lag behind), a connection that broke may have left somebody at work, and where nobody
//! answered in all the time that we gave, somebody may be at it for as long again, and longer.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Connector, Halt};
use crate::http::Failure;

/// How far what is read may lag behind an answer: replicas hear of a write a moment later.
const LAG: Duration = Duration::from_secs(2);
/// How long somebody may be at work on a request whose connection broke, or whose sender died.
const BROKEN: Duration = Duration::from_secs(10);

/// The lengths, for one connector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    /// After so long we give up waiting for an answer.
    pub(super) timeout: Duration,
    /// No longer than this, whatever happens: for peers that are known to act at once or not at all, as in tests.
    pub(super) most: Duration,
}

impl Settling {
    /// After a request is sent, if its sender dies before it learns anything.
    pub(super) fn of_request(self) -> Duration {
        BROKEN.min(self.timeout).min(self.most)
    }

    /// After an answer that says that it is there.
    pub(super) fn of_answer(self) -> Duration {
        LAG.min(self.timeout).min(self.most)
    }

    /// After a failure that leaves the effect unknown.
    pub(super) fn after(self, failure: &Failure) -> Duration {
        let status = failure.status.map(|status| status.as_u16());
        match status {
            // Somebody in between gave up, and not who does the work (522 and 524 are a well-known network's own).
            Some(408 | 504 | 522 | 524) => self.timeout * 2,
            Some(_) => LAG.min(self.timeout),
            None if failure.gave_up => self.timeout * 2,
            None => BROKEN.min(self.timeout),
        }
        .min(self.most)
    }
}

/// The moment that is so far ahead.
pub(super) fn ahead(wait: Duration) -> Timestamp {
    Timestamp::now() + SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO)
}

/// Waits until a moment, if that is within what remains of the time there is. Whether it was waited for.
pub(super) async fn wait_until(connector: &Connector, at: Timestamp, left: &mut Duration) -> Result<bool, Halt> {
    // A moment more: the list must begin to be read after it.
    let wait = at.duration_since(Timestamp::now()) + SignedDuration::from_millis(2);
    let wait = Duration::try_from(wait).unwrap_or_default();
    let Some(rest) = left.checked_sub(wait) else {
        return Ok(false);
    };
    *left = rest;
    tokio::select! {
        biased;
        () = connector.stop.cancelled() => Err(Halt::Stopped),
        () = tokio::time::sleep(wait) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::FailureKind;
    use crate::model::Peer;

    #[test]
    fn whoever_did_not_answer_may_be_at_work_for_longer_than_whoever_did() {
        let settling = Settling {
            timeout: Duration::from_secs(30),
            most: Duration::MAX,
        };
        let failure = |status: Option<u16>, gave_up| Failure {
            status: status.map(|status| http::StatusCode::from_u16(status).unwrap()),
            gave_up,
            ..Failure::new(Peer::JumpCloud, "create account", FailureKind::Unreachable, "")
        };
        let seconds = |status, gave_up| settling.after(&failure(status, gave_up)).as_secs();
        assert_eq!(seconds(Some(500), false), 2);
        assert_eq!(seconds(Some(504), false), 60);
        assert_eq!(seconds(None, false), 10);
        assert_eq!(seconds(None, true), 60);
        // Who gives a peer little time gives its echo little time.
        let hasty = Settling {
            timeout: Duration::from_secs(1),
            ..settling
        };
        assert_eq!(hasty.of_request(), Duration::from_secs(1));
        assert_eq!(hasty.after(&failure(None, true)), Duration::from_secs(2));
    }
}
