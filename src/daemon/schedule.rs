//! What a connector does by itself, and when: it polls on schedule, and while JumpCloud keeps a delivery waiting, it repeats that in
//! between.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::due::Due;
use crate::model::Peer;
use crate::sync::Halt;

/// How long after a run that failed the next one starts at the earliest; the schedule if that is sooner.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Added to a pause that was asked for, so that it is over when the next run begins.
const MOMENT: Duration = Duration::from_secs(1);

/// When the next run is due, and what it is.
#[derive(Debug)]
pub(super) struct Schedule {
    /// The next run.
    next: Due,
    /// The next poll, while a delivery waits for JumpCloud: until then a run only repeats that.
    poll: Option<Due>,
    /// Until then JumpCloud asked not to be asked.
    pause: Option<Due>,
}

impl Schedule {
    /// A poll after this time.
    pub(super) fn beginning(delay: Duration) -> Self {
        Self {
            next: Due::after(delay),
            poll: None,
            pause: None,
        }
    }

    /// The next run is now, and a whole one.
    pub(super) fn poll_now(&mut self) {
        *self = Self::beginning(Duration::ZERO);
    }

    /// The next run is now, whichever it is.
    pub(super) fn go_now(&mut self) {
        self.next = Due::after(Duration::ZERO);
    }

    /// The next run is a whole one, whenever it is: what only was to be repeated is part of it.
    pub(super) fn poll_next(&mut self) {
        self.poll = None;
    }

    /// There was no run: something keeps the connector from it.
    pub(super) fn try_again(&mut self, interval: Duration) {
        self.next = Due::after(interval.min(AFTER_FAILURE));
    }

    /// From now on it goes by this interval, and by whatever else changed.
    pub(super) fn follow(&mut self, interval: Duration) {
        self.poll_next();
        self.next = self.next.or_sooner(Due::after(interval));
    }

    /// Whether a run that begins now only repeats a delivery; then it says when the next poll is due.
    pub(super) fn repeats(&self) -> Option<Due> {
        self.poll.filter(|poll| !poll.is_now())
    }

    /// Takes note of a run that has ended: what [`Self::repeats`] said when it began, and what ended it early.
    pub(super) fn ended(&mut self, repeated: Option<Due>, halt: Option<&Halt>, interval: Duration) {
        // A run that only delivered is no poll, so the schedule stays.
        let mut poll = repeated.unwrap_or_else(|| Due::after(spread(interval)));
        let away = halt.and_then(Halt::peer_away);
        let pause = halt.and_then(Halt::pause).map(|pause| Due::after(pause + MOMENT));
        if let (Some(Peer::Torq), Some(pause)) = (away, pause) {
            // It would not be asked any sooner, and nobody is to be told that it is.
            poll = poll.or_later(pause);
        }
        self.next = match away {
            Some(_) => {
                let soon = Due::after(spread(interval.min(AFTER_FAILURE)));
                pause.map_or(soon, |pause| soon.or_later(pause)).or_sooner(poll)
            }
            None => poll,
        };
        // Whatever is repeated until then, Torq is polled on schedule.
        self.poll = (away == Some(Peer::JumpCloud)).then_some(poll);
        self.pause = pause.filter(|_| self.poll.is_some());
    }

    pub(super) fn is_due(&self) -> bool {
        self.next.is_now()
    }

    /// When there is something to do, by the monotonic clock.
    pub(super) fn wakes(&self) -> Instant {
        self.next.at
    }

    /// The next poll, for people.
    pub(super) fn next_poll(&self) -> Timestamp {
        self.poll.unwrap_or(self.next).told()
    }

    /// When a delivery that waits is tried again, for people.
    pub(super) fn next_attempt(&self) -> Option<Timestamp> {
        // A poll may come before JumpCloud's pause is over: then it is not asked by that.
        let attempt = self.pause.map_or(self.next, |pause| self.next.or_later(pause));
        self.poll.map(|_| attempt.told())
    }
}

/// A twentieth either way keeps a thousand connectors from falling into step.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.95 + fastrand::f64() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Failure, FailureKind};

    const QUARTER: Duration = Duration::from_secs(15 * 60);

    fn away(peer: Peer) -> Halt {
        Halt::Unavailable(Failure::new(peer, "list", FailureKind::Unreachable, "silence"))
    }

    /// In how many seconds the next run is.
    fn wait(schedule: &Schedule) -> u64 {
        schedule.wakes().saturating_duration_since(Instant::now()).as_secs()
    }

    #[test]
    fn while_jumpcloud_is_away_deliveries_are_repeated_between_polls_that_stay_on_schedule() {
        let mut schedule = Schedule::beginning(Duration::ZERO);
        assert!(schedule.is_due() && schedule.repeats().is_none());
        schedule.ended(None, Some(&away(Peer::JumpCloud)), QUARTER);
        let poll = schedule.next_poll();
        for _ in 0..5 {
            assert!((56..=63).contains(&wait(&schedule)), "{schedule:?}");
            assert!(schedule.next_attempt().is_some_and(|attempt| attempt < poll));
            let repeated = schedule.repeats();
            assert!(repeated.is_some());
            schedule.ended(repeated, Some(&away(Peer::JumpCloud)), QUARTER);
            assert_eq!(schedule.next_poll(), poll);
        }
        // Delivered, or halted for another reason: the poll comes when it would have come.
        for halt in [None, Some(Halt::Stopped)] {
            let mut schedule = Schedule { ..schedule };
            let repeated = schedule.repeats();
            schedule.ended(repeated, halt.as_ref(), QUARTER);
            assert_eq!((schedule.next_poll(), schedule.next_attempt()), (poll, None));
            assert!(schedule.repeats().is_none());
        }
        schedule.poll = Some(Due::after(Duration::ZERO));
        assert!(schedule.repeats().is_none(), "the poll is due");
    }

    #[test]
    fn a_poll_that_failed_is_repeated_soon_and_one_that_did_not_comes_with_the_interval() {
        let mut schedule = Schedule::beginning(Duration::ZERO);
        schedule.ended(None, Some(&away(Peer::Torq)), QUARTER);
        assert!((56..=63).contains(&wait(&schedule)));
        assert!(schedule.repeats().is_none() && schedule.next_attempt().is_none());
        schedule.ended(None, Some(&away(Peer::Torq)), Duration::from_secs(10));
        assert!((9..=10).contains(&wait(&schedule)), "never later than by the schedule");
        schedule.ended(None, None, QUARTER);
        assert!((854..=945).contains(&wait(&schedule)));
    }

    #[test]
    fn no_run_is_announced_for_a_time_at_which_torq_asked_not_to_be_asked() {
        let patience = |peer| {
            let after = Some(QUARTER * 4);
            Halt::Unavailable(Failure::new(peer, "list", FailureKind::Later { after }, "slow down"))
        };
        let mut schedule = Schedule::beginning(Duration::ZERO);
        schedule.ended(None, Some(&patience(Peer::Torq)), QUARTER);
        assert!((3599..=3601).contains(&wait(&schedule)), "{schedule:?}");
        assert!(schedule.next_attempt().is_none() && schedule.repeats().is_none());
        // JumpCloud's pause is none of Torq's.
        schedule.ended(None, Some(&patience(Peer::JumpCloud)), QUARTER);
        assert!((854..=945).contains(&wait(&schedule)), "{schedule:?}");
        let asked_again = schedule.next_attempt().unwrap().duration_since(Timestamp::now());
        assert!((3598..=3601).contains(&asked_again.as_secs()), "{asked_again}");
        schedule.ended(None, Some(&patience(Peer::JumpCloud)), QUARTER * 8);
        assert!((3599..=3601).contains(&wait(&schedule)), "{schedule:?}");
        assert!(
            schedule
                .next_attempt()
                .is_some_and(|attempt| attempt < schedule.next_poll())
        );
        // Somebody who knows better asks at once.
        schedule.poll_now();
        assert!(schedule.is_due());
    }

    #[test]
    fn what_a_person_or_a_new_configuration_wants_comes_sooner_and_never_later() {
        let mut schedule = Schedule::beginning(QUARTER);
        schedule.follow(QUARTER * 4);
        assert!((895..=900).contains(&wait(&schedule)));
        schedule.follow(Duration::from_secs(60));
        assert!((55..=60).contains(&wait(&schedule)));
        schedule.ended(None, Some(&away(Peer::JumpCloud)), QUARTER);
        schedule.go_now();
        assert!(schedule.is_due() && schedule.repeats().is_some());
        schedule.poll_now();
        assert!(schedule.is_due() && schedule.repeats().is_none());
    }
}
