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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::model::ConnectorName;
    use crate::state::State;

    fn store(users: u32, runs: &[(&str, u32, u32)]) -> Store {
        let name = ConnectorName::parse("main").unwrap();
        let state = State::scratch(Path::new("/nonexistent"), &name).unwrap();
        let store = Arc::into_inner(state.shared).unwrap().store.into_inner().unwrap();
        for number in 0..users {
            let sql = "INSERT INTO users (id, email, email_key, status, sso, role_id, fingerprint, first_seen)
                 VALUES (?1, ?1, ?1, '', 0, '', 0, '')";
            store.db.execute(sql, [format!("u{number}")]).unwrap();
        }
        for (started, appeared, disappeared) in runs {
            let sql =
                "INSERT INTO runs (started, finished, outcome, appeared, disappeared) VALUES (?1, ?1, 'done', ?2, ?3)";
            store.db.execute(sql, params![started, appeared, disappeared]).unwrap();
        }
        store
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn days_are_told_backwards_from_now() {
        let mut store = store(
            57,
            &[
                ("2026-11-20T09:00:00.000Z", 50, 0),
                ("2026-11-20T10:00:00.000Z", 3, 1),
                ("2026-11-21T10:00:00.000Z", 0, 0),
                ("2026-11-22T23:59:59.999Z", 0, 5),
                ("2026-11-24T08:00:00.000Z", 10, 0),
                // The clock was ahead for a while.
                ("2026-12-24T08:00:00.000Z", 1, 1),
            ],
        );
        let course = store.course(at("2026-11-24T12:00:00Z")).unwrap();
        assert_eq!(course.step, Step::Day);
        let told: Vec<_> = course
            .points
            .iter()
            .map(|point| {
                (
                    point.at.strftime("%d").to_string(),
                    point.users,
                    point.arrived,
                    point.left,
                )
            })
            .collect();
        let told: Vec<_> = told
            .iter()
            .map(|(day, users, came, went)| (day.as_str(), *users, *came, *went))
            .collect();
        assert_eq!(
            told,
            [
                ("20", 52, 53, 1),
                ("21", 52, 0, 0),
                ("22", 47, 0, 5),
                ("23", 47, 0, 0),
                ("24", 57, 11, 1)
            ]
        );
    }

    #[test]
    fn the_younger_the_finer_and_never_too_many_points() {
        let now = at("2026-11-24T12:00:00Z");
        for (first, step) in [
            ("2026-11-24T11:59:59.000Z", Step::Minute),
            ("2026-11-24T10:10:00.000Z", Step::Minute),
            ("2026-11-24T10:00:00.000Z", Step::Hour),
            ("2026-11-21T15:00:00.000Z", Step::Hour),
            ("2026-11-21T11:00:00.000Z", Step::Day),
            ("2020-01-01T00:00:00.000Z", Step::Day),
            ("2030-01-01T00:00:00.000Z", Step::Minute),
        ] {
            let course = store(3, &[(first, 3, 0)]).course(now).unwrap();
            assert_eq!(course.step, step, "{first}");
            assert!((1..=120).contains(&course.points.len()), "{first}");
            assert_eq!(course.points.last().map(|point| point.users), Some(3));
        }
        assert!(store(0, &[]).course(now).unwrap().points.is_empty());
    }

    #[test]
    fn runs_come_newest_first() {
        let store = store(
            0,
            &[("2026-11-20T09:00:00.000Z", 1, 0), ("2026-11-21T09:00:00.000Z", 2, 0)],
        );
        let runs = store.last_runs(1).unwrap();
        assert_eq!(runs.iter().map(|run| run.counts.appeared).collect::<Vec<_>>(), [2]);
        assert_eq!(runs[0].outcome, Some(RunOutcome::Done));
    }
}
