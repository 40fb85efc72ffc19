//! Pacing: when the next request may go out, and how a peer's complaints change that.
//!
//! One [`Pace`] serves one connector and one peer. Complaints slow down everything on it, not the row that met them.
//! Pure: `now` is a parameter.

use std::time::Duration;

use tokio::time::Instant;

/// The slowest rate, in requests a second.
const FLOOR: f64 = 0.5;
/// What each success gives back, in requests a second: from half speed to full takes about a thousand requests.
const RECOVERY: f64 = 0.02;

/// The pace of requests to one peer.
#[derive(Debug)]
pub(super) struct Pace {
    /// Requests a second now.
    rate: f64,
    /// Requests a second at most.
    ceiling: f64,
    /// When the next request may go out, by the rate.
    next: Instant,
    /// Nothing goes out before this: our own pause after a failure.
    paused_until: Instant,
    /// Nor before this: the peer asked for it.
    asked_until: Instant,
    /// Failures in a row. Requests in flight together count once.
    failures: u32,
    /// Answers so far.
    successes: u64,
    /// When the last failure was noted.
    last_failure: Option<Instant>,
}

impl Pace {
    pub(super) fn new(ceiling: f64, now: Instant) -> Self {
        Self {
            rate: ceiling,
            ceiling,
            next: now,
            paused_until: now,
            asked_until: now,
            failures: 0,
            successes: 0,
            last_failure: None,
        }
    }

    /// Reserves a place in the queue: when this request may go out.
    pub(super) fn reserve(&mut self, now: Instant) -> Instant {
        let slot = self.next.max(self.paused_until()).max(now);
        self.next = slot + Duration::from_secs_f64(1.0 / self.rate);
        slot
    }

    /// Until when nothing may go out.
    pub(super) fn paused_until(&self) -> Instant {
        self.paused_until.max(self.asked_until)
    }

    /// A request that went out at `began` was answered.
    pub(super) fn answered(&mut self, began: Instant) {
        if self.last_failure.is_none_or(|at| began >= at) {
            self.failures = 0;
        }
        self.successes += 1;
        self.rate = (self.rate + RECOVERY).min(self.ceiling);
    }

    /// A request that went out at `began` failed for now. Returns how many failures in a row that makes.
    pub(super) fn faltered(&mut self, began: Instant, now: Instant, too_fast: bool) -> u32 {
        // What was in flight together with an earlier failure says nothing new.
        let news = self.last_failure.is_none_or(|at| began >= at);
        if news {
            self.failures = self.failures.saturating_add(1);
            self.last_failure = Some(now);
            if too_fast {
                self.rate = (self.rate / 2.0).max(FLOOR);
            }
        }
        self.failures.max(1)
    }

    /// Lets nothing go out before `until`.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(until);
    }

    /// The same, as the peer asked.
    pub(super) fn pause_as_asked(&mut self, until: Instant) {
        self.asked_until = self.asked_until.max(until);
    }

    /// Whoever asks now knows more than our own pause does. What the peer asked for stays.
    /// Whether that ended a pause.
    pub(super) fn hurry(&mut self, now: Instant) -> bool {
        let paused = self.paused_until > now;
        if paused {
            self.paused_until = now;
            // What was reserved for the end of the pause is not waited for any more.
            self.next = now;
        }
        paused
    }

    /// Answers so far.
    pub(super) fn successes(&self) -> u64 {
        self.successes
    }

    /// Failures in a row so far.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_spaced_by_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(40.0, start);
        let slots: Vec<_> = (0..41).map(|_| pace.reserve(start)).collect();
        assert_eq!(slots[0], start);
        assert_eq!(slots[40] - slots[0], Duration::from_secs(1));
    }

    #[test]
    fn a_hurry_ends_our_own_pause_and_not_the_one_that_the_peer_asked_for() {
        let start = Instant::now();
        let (soon, later) = (start + Duration::from_secs(5), start + Duration::from_secs(60));
        let mut pace = Pace::new(40.0, start);
        pace.pause(later);
        assert_eq!(pace.reserve(start), later);
        assert!(pace.hurry(start));
        assert_eq!(pace.reserve(start), start);
        assert!(!pace.hurry(start));
        pace.pause(later);
        pace.pause_as_asked(soon);
        pace.hurry(start);
        assert_eq!((pace.paused_until(), pace.reserve(start)), (soon, soon));
    }

    #[test]
    fn a_429_halves_the_rate_once_however_many_were_in_flight_and_successes_bring_it_back() {
        let start = Instant::now();
        let mut pace = Pace::new(40.0, start);
        let later = start + Duration::from_secs(1);
        for _ in 0..8 {
            pace.faltered(start, later, true);
        }
        assert_eq!(pace.rate, 20.0);
        assert_eq!(pace.failures(), 1);
        for _ in 0..500 {
            pace.answered(later);
        }
        assert!(pace.rate > 29.0 && pace.rate < 31.0, "{}", pace.rate);
        for _ in 0..10_000 {
            pace.answered(later);
        }
        assert_eq!(pace.rate, 40.0);
    }

    #[test]
    fn the_rate_never_falls_to_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(40.0, start);
        for second in 0..100 {
            let at = start + Duration::from_secs(second);
            pace.faltered(at, at, true);
        }
        assert_eq!(pace.rate, FLOOR);
    }

    #[test]
    fn a_pause_holds_everything() {
        let start = Instant::now();
        let mut pace = Pace::new(40.0, start);
        pace.pause(start + Duration::from_secs(9));
        assert_eq!(pace.reserve(start), start + Duration::from_secs(9));
    }
}
