//! The course of things: users over time, and the last runs. Both are told by the runs, each of which counted who came and went.

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

use super::{Sql, Store, events, instant, stored};
use crate::view::{RunOutcome, RunView};

/// How finely a course is told: the younger it is, the finer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Minute by minute, up to two hours.
    Minute,
    /// Hour by hour, up to three days.
    Hour,
    /// Day by day (UTC), up to 120 days.
    Day,
}

impl Step {
    /// The finest that reaches so far back.
    fn reaching(age: SignedDuration) -> Self {
        match age.as_mins() {
            ..115 => Self::Minute,
            115..4200 => Self::Hour,
            _ => Self::Day,
        }
    }

    fn length(self) -> SignedDuration {
        match self {
            Self::Minute => SignedDuration::from_mins(1),
            Self::Hour => SignedDuration::from_hours(1),
            Self::Day => SignedDuration::from_hours(24),
        }
    }

    /// The most points of a course.
    fn most(self) -> i64 {
        match self {
            Self::Minute => 120,
            Self::Hour => 72,
            Self::Day => 120,
        }
    }

    /// The number of the step in which a moment is.
    fn number(self, at: Timestamp) -> i64 {
        at.as_second().div_euclid(self.length().as_secs())
    }

    /// When a step begins.
    fn begin(self, number: i64) -> Timestamp {
        Timestamp::from_second(number.saturating_mul(self.length().as_secs())).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Users over time.
#[derive(Clone, Debug)]
pub struct Course {
    /// How finely it is told.
    pub step: Step,
    /// One for each step, oldest first, the last one under way; empty before anybody was seen.
    pub points: Vec<Point>,
}

/// One step of a course.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When it begins.
    pub at: Timestamp,
    /// Users at its end.
    pub users: u64,
    /// Users who came.
    pub arrived: u64,
    /// Users who went.
    pub left: u64,
}

impl Store {
    /// Users over time: as many as there are now, and backwards from there by what each run counted.
    pub fn course(&mut self, now: Timestamp) -> Sql<Course> {
        let first: Option<String> = self.db.query_row(
            "SELECT min(started) FROM runs WHERE appeared + disappeared > 0",
            [],
            |row| row.get(0),
        )?;
        let Some(first) = instant(first) else {
            let step = Step::Minute;
            return Ok(Course {
                step,
                points: Vec::new(),
            });
        };
        let step = Step::reaching(now.duration_since(first));
        let last = step.number(now);
        let begin = step.number(first).clamp(last - step.most() + 1, last);
        let mut points: Vec<Point> = (begin..=last)
            .map(|number| Point {
                at: step.begin(number),
                users: 0,
                arrived: 0,
                left: 0,
            })
            .collect();
        {
            let mut statement = self.db.prepare_cached(
                "SELECT started, appeared, disappeared FROM runs WHERE started >= ?1 AND appeared + disappeared > 0",
            )?;
            let mut rows = statement.query([stored(step.begin(begin))])?;
            while let Some(row) = rows.next()? {
                let Some(started) = instant(row.get(0)?) else { continue };
                // A clock that was ahead for a while dates runs into the future: they belong to now.
                let index = usize::try_from(step.number(started).min(last) - begin).unwrap_or(0);
                if let Some(point) = points.get_mut(index) {
                    point.arrived += row.get::<_, u64>(1)?;
                    point.left += row.get::<_, u64>(2)?;
                }
            }
        }
        let mut users = self.counts()?.users;
        for point in points.iter_mut().rev() {
            point.users = users;
            users = (users + point.left).saturating_sub(point.arrived);
        }
        Ok(Course { step, points })
    }

    /// The last runs, newest first; the one that is going on has no end.
    pub fn last_runs(&self, limit: u32) -> Sql<Vec<RunView>> {
        self.db
            .prepare_cached(
                "SELECT no, started, finished, outcome, reason, appeared, changed, disappeared, created, found, associated,
                        deleted, refused
                 FROM runs ORDER BY no DESC LIMIT ?1",
            )?
            .query_map(params![limit], |row| {
                let outcome: Option<String> = row.get(3)?;
                Ok(RunView {
                    run: row.get(0)?,
                    started: instant(row.get(1)?).unwrap_or(Timestamp::UNIX_EPOCH),
                    finished: instant(row.get(2)?),
                    outcome: outcome.and_then(|text| RunOutcome::parse(&text)),
                    reason: row.get(4)?,
                    counts: events::read_counts(row, 5)?,
                })
            })?
            .collect()
    }
}
