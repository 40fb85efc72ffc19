//! When the next run is due, by two clocks that may disagree: the wall clock can be set, and the monotonic clock stands still while
//! a machine sleeps.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// However the wall clock jumps, polls that it calls for are at least so far apart.
const APART: Duration = Duration::from_secs(30);
/// Clocks that differ by less agree.
const AGREE: SignedDuration = SignedDuration::from_secs(5);

/// When the next run is due: by the monotonic clock, or by the wall clock where that comes first, as on a machine that slept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// By the monotonic clock.
    pub(super) at: Instant,
    /// By the wall clock.
    wall: Timestamp,
    /// By the wall clock alone, not before this.
    no_sooner: Instant,
}

impl Due {
    pub(super) fn after(wait: Duration) -> Self {
        Self::counted_from(Instant::now(), Timestamp::now(), wait)
    }

    fn counted_from(now: Instant, wall: Timestamp, wait: Duration) -> Self {
        let ahead = SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO);
        Self {
            at: now + wait,
            wall: wall + ahead,
            no_sooner: now + wait.min(APART),
        }
    }

    /// Whichever comes first.
    pub(super) fn or_sooner(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }

    /// Whichever comes last.
    pub(super) fn or_later(self, other: Self) -> Self {
        if other.at > self.at { other } else { self }
    }

    pub(super) fn is_now(self) -> bool {
        self.has_come(Instant::now(), Timestamp::now())
    }

    fn has_come(self, now: Instant, wall: Timestamp) -> bool {
        now >= self.at || (wall >= self.wall && now >= self.no_sooner)
    }

    /// The moment to tell people, by the wall clock as it is now, to the second.
    pub(super) fn told(self) -> Timestamp {
        self.seen_from(Instant::now(), Timestamp::now())
    }

    fn seen_from(self, now: Instant, wall: Timestamp) -> Timestamp {
        let left = SignedDuration::try_from(self.at.saturating_duration_since(now)).unwrap_or(SignedDuration::ZERO);
        let by_monotonic = wall + left;
        // A wall clock that was set back says nothing about when the poll comes.
        let at = match self.wall.duration_since(by_monotonic) > AGREE {
            true => by_monotonic,
            false => self.wall,
        };
        Timestamp::from_second(at.as_second()).unwrap_or(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER: Duration = Duration::from_secs(15 * 60);

    fn wall(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn due() -> (Due, Instant) {
        let now = Instant::now();
        (Due::counted_from(now, wall("2026-11-24T10:00:00Z"), QUARTER), now)
    }

    #[test]
    fn a_poll_comes_after_its_interval_whatever_becomes_of_the_wall_clock() {
        let (due, now) = due();
        let later = now + QUARTER;
        for wall_then in ["2026-11-24T10:15:00Z", "2016-01-01T00:00:00Z", "2076-01-01T00:00:00Z"] {
            assert!(due.has_come(later, wall(wall_then)), "{wall_then}");
        }
        let sooner = now + QUARTER / 2;
        for wall_then in ["2026-11-24T10:07:30Z", "2016-01-01T00:00:00Z"] {
            assert!(!due.has_come(sooner, wall(wall_then)), "{wall_then}");
        }
    }

    #[test]
    fn a_machine_that_slept_polls_soon_after_and_a_clock_that_jumps_about_makes_no_storm() {
        let (due, now) = due();
        let after = wall("2026-11-24T18:00:00Z");
        assert!(
            !due.has_come(now + Duration::from_secs(1), after),
            "it polled a second ago"
        );
        assert!(due.has_come(now + APART, after));
        let at_once = Due::counted_from(now, after, Duration::ZERO);
        assert!(at_once.has_come(now, after));
    }

    #[test]
    fn what_is_told_is_when_the_poll_comes() {
        let (due, now) = due();
        let told = |seconds, wall_then| {
            due.seen_from(now + Duration::from_secs(seconds), wall(wall_then))
                .to_string()
        };
        assert_eq!(told(60, "2026-11-24T10:01:00.4Z"), "2026-11-24T10:15:00Z");
        // Set back by an hour, or by years.
        assert_eq!(told(60, "2026-11-24T09:01:00Z"), "2026-11-24T09:15:00Z");
        assert_eq!(told(60, "2016-11-24T10:01:00Z"), "2016-11-24T10:15:00Z");
        // Set ahead: it was due, and comes with the next look.
        assert_eq!(told(60, "2026-11-25T10:01:00Z"), "2026-11-24T10:15:00Z");
    }
}
