//! The day within which removals count, by a clock that nobody sets: a wall clock that jumps ahead by a day would begin a new one.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// How long the machine has been up, sleep included. A test whose time is its own passes what that says.
pub(super) type Uptime = fn(Timestamp) -> Duration;

/// What this process remembers of the removals that it believed unasked. With the process it is gone, and the stamps of the state,
/// which are the wall clock's, say alone what lies within a day.
pub(super) struct Day {
    uptime: Uptime,
    /// When a poll removed somebody: by both clocks.
    believed: VecDeque<(Duration, Timestamp)>,
}

impl Default for Day {
    fn default() -> Self {
        Self::by(|_| machine_uptime())
    }
}

impl Day {
    pub(super) fn by(uptime: Uptime) -> Self {
        Self {
            uptime,
            believed: VecDeque::new(),
        }
    }

    /// What is stamped later than this lies within the last 24 hours, by the wall clock, which says `now`, or by the machine's.
    pub(super) fn begin(&mut self, now: Timestamp) -> Timestamp {
        let up = (self.uptime)(now);
        self.believed
            .retain(|(at, _)| up.checked_sub(*at).is_some_and(|age| age < DAY.unsigned_abs()));
        for (_, stamp) in &mut self.believed {
            // What the state has from the future is brought back to now as well.
            *stamp = (*stamp).min(now);
        }
        let first = self.believed.iter().map(|(_, stamp)| *stamp).min();
        let before = first.and_then(|first| first.checked_sub(SignedDuration::from_millis(1)).ok());
        let day_ago = now - DAY;
        before.map_or(day_ago, |before| before.min(day_ago))
    }

    /// Removals were believed unasked and are stamped `now`.
    pub(super) fn note(&mut self, now: Timestamp) {
        self.believed.push_back(((self.uptime)(now), now));
    }
}

#[cfg(target_os = "linux")]
fn machine_uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn machine_uptime() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_up_for_longer_and_longer() {
        let before = machine_uptime();
        std::thread::sleep(Duration::from_millis(2));
        assert!(machine_uptime() > before);
    }

    #[test]
    fn a_day_is_over_only_when_both_clocks_say_so() {
        let t = |seconds| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        const HOUR: i64 = 3600;
        // A machine on which no time passes, whatever the wall clock says.
        let mut day = Day::by(|_| Duration::from_secs(5));
        assert_eq!(day.begin(t(0)), t(-24 * HOUR), "nothing is remembered");
        day.note(t(0));
        assert!(day.begin(t(25 * HOUR)) < t(0), "ahead");
        assert_eq!(day.begin(t(HOUR)), t(-23 * HOUR), "and back: the longer of the two");
        assert!(day.begin(t(-HOUR)) <= t(-25 * HOUR));
        assert!(
            day.begin(t(24 * HOUR)) < t(-HOUR),
            "and it was brought back with what the state has"
        );

        // One on which it passes as on the wall.
        let mut day = Day::by(|now| Duration::from_secs(now.as_second().unsigned_abs()));
        day.note(t(0));
        assert!(day.begin(t(24 * HOUR - 1)) < t(0));
        assert_eq!(day.begin(t(24 * HOUR)), t(0), "over");
    }
}
