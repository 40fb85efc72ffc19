//! Exit codes, after sysexits.h where that fits, and which of several counts.

use crate::daemon::control::Answer;
use crate::sync::{Halt, RemovalOutcome};
use crate::view::RunOutcome;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Something unexpected.
    Unexpected = 1,
    /// Wrong usage.
    Usage = 64,
    /// A peer is unreachable or fails; try again.
    Unavailable = 69,
    /// A task of the daemon died; start it again.
    Died = 70,
    /// Done in part: something is pending, parked, held or report-only, or a named connector is paused or was removed.
    Partial = 75,
    /// Credentials or permission refused, or not licensed.
    Refused = 77,
    /// The configuration.
    Config = 78,
}

impl Exit {
    /// From least to most grave: over several connectors the gravest counts.
    fn gravity(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Partial => 1,
            Exit::Unavailable => 2,
            Exit::Refused => 3,
            Exit::Unexpected => 4,
            Exit::Died => 5,
            Exit::Config => 6,
            Exit::Usage => 7,
        }
    }

    /// The graver of the two.
    pub fn or(self, other: Exit) -> Exit {
        if other.gravity() > self.gravity() { other } else { self }
    }

    /// For the end of a run.
    pub fn of_outcome(outcome: RunOutcome) -> Exit {
        match outcome {
            RunOutcome::Done => Exit::Done,
            RunOutcome::Partial => Exit::Partial,
            RunOutcome::Failed => Exit::Unavailable,
            RunOutcome::Refused => Exit::Refused,
        }
    }

    /// For a run that did not come to its end.
    pub fn of_halt(halt: &Halt) -> Exit {
        match halt {
            Halt::State(_) => Exit::Unexpected,
            other => Exit::of_outcome(other.outcome()),
        }
    }

    /// For the end of a removal.
    pub fn of_removal(outcome: RemovalOutcome) -> Exit {
        match outcome {
            RemovalOutcome::Done => Exit::Done,
            RemovalOutcome::Partial => Exit::Partial,
            RemovalOutcome::Failed => Exit::Unavailable,
            RemovalOutcome::Refused => Exit::Refused,
            RemovalOutcome::Misfit => Exit::Config,
        }
    }

    /// For what a connector answered to the daemon's caller.
    pub fn of_answer(answer: &Answer) -> Exit {
        match answer {
            // What is wrong with the files of the secrets is a matter of the configuration.
            Answer::Ran(report) if !report.problems.is_empty() => Exit::Config,
            Answer::Ran(report) => Exit::of_outcome(report.outcome),
            Answer::Waits(_) | Answer::Stopping => Exit::Unavailable,
            Answer::Done(_) => Exit::Done,
            Answer::Paused | Answer::Removed | Answer::Otherwise(_) => Exit::Partial,
            Answer::Plan(plan) => plan
                .as_ref()
                .as_ref()
                .map_or_else(|obstacle| Exit::of_removal(obstacle.outcome), |_| Exit::Done),
            Answer::Removal(removal) => Exit::of_removal(removal.outcome()),
            Answer::Refused(_) => Exit::Unexpected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_counts_in_the_documented_order() {
        let order = [
            Exit::Done,
            Exit::Partial,
            Exit::Unavailable,
            Exit::Refused,
            Exit::Unexpected,
            Exit::Config,
        ];
        for pair in order.windows(2) {
            assert_eq!(pair[0].or(pair[1]), pair[1]);
            assert_eq!(pair[1].or(pair[0]), pair[1]);
        }
    }

    #[test]
    fn a_daemon_that_stops_or_waits_is_tried_again_later() {
        assert_eq!(Exit::of_answer(&Answer::Stopping), Exit::Unavailable);
        assert_eq!(Exit::of_answer(&Answer::Waits("why".to_owned())), Exit::Unavailable);
    }

    #[test]
    fn codes_are_those_of_the_interface() {
        let codes = [
            (Exit::Done, 0),
            (Exit::Unexpected, 1),
            (Exit::Usage, 64),
            (Exit::Unavailable, 69),
            (Exit::Died, 70),
            (Exit::Partial, 75),
            (Exit::Refused, 77),
            (Exit::Config, 78),
        ];
        for (exit, code) in codes {
            assert_eq!(exit as u8, code);
        }
    }
}
