//! What is news: what is the case, compared with what was told.
//!
//! An occasion is told when it begins, and its end with the next *back to normal*. One that comes back soon is told again after an hour
//! at the earliest, then after two, four, up to a day; one that ends before its turn comes is not told at all.

use std::time::Duration;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

use super::message::Message;
use crate::config::{Occasion, patience};
use crate::state::{Bearing, Stage, Told};
use crate::view::ConnectorState;
use crate::wording;

/// Between two messages about the same occasion, at first.
const APART: SignedDuration = SignedDuration::from_hours(1);
/// At most, and between two messages that something has grown.
const FAR_APART: SignedDuration = SignedDuration::from_hours(24);
/// After so long, an occasion that comes back comes as the first time.
const CALM: SignedDuration = SignedDuration::from_hours(48);
/// A first collection that was finished longer ago is no news to whoever sets up that they are told.
const FRESH: SignedDuration = SignedDuration::from_hours(24);
/// How long a first collection may take before it counts as silence.
const FIRST_PATIENCE: Duration = Duration::from_secs(2 * 60 * 60);
/// Days before the end of the API key at which a person is told.
const KEY_STEPS: [i32; 4] = [14, 7, 3, 1];

/// What is decided upon.
pub(super) struct Ground<'a> {
    pub(super) now: Timestamp,
    pub(super) name: &'a str,
    /// What is to be told at all.
    pub(super) occasions: &'a [Occasion],
    pub(super) bearing: &'a Bearing,
    /// The end of the API key, and how many days are left.
    pub(super) key: Option<(Date, i32)>,
    /// For how long nothing has succeeded, where that is too long.
    pub(super) silence: Silence,
}

/// Whether nothing has succeeded for too long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Silence {
    No,
    /// Too long by the wall clock, and not by the one that stands still while the machine sleeps: it slept, or the process is young.
    Unsure,
    /// For so long.
    For(Duration),
}

/// The step that so many days before the end of a key belong to; `None` when there is time.
pub fn key_step(days: i32) -> Option<i32> {
    if days < 0 {
        return Some(-1);
    }
    KEY_STEPS.into_iter().rev().find(|step| days <= *step)
}

/// Whether nothing has succeeded for more than three intervals. `quiet`: for how long by a clock that nobody sets and that stands still
/// while the machine sleeps.
pub(super) fn silence(bearing: &Bearing, now: Timestamp, interval: Duration, quiet: Duration) -> Silence {
    let about = &bearing.about;
    let waits = matches!(
        about.state,
        ConnectorState::ReconnectRequired | ConnectorState::NotLicensed | ConnectorState::Removed
    );
    if waits || about.paused || about.removing.is_some() {
        return Silence::No;
    }
    let limit = match about.last_success {
        Some(_) => patience(interval),
        None => FIRST_PATIENCE.max(patience(interval)),
    };
    let since = about.last_success.or(bearing.first_run);
    let age = since.and_then(|since| Duration::try_from(now.duration_since(since)).ok());
    match age.filter(|age| *age > limit) {
        None => Silence::No,
        Some(age) if quiet > limit => Silence::For(age),
        Some(_) => Silence::Unsure,
    }
}

/// Whether an occasion is the case.
enum Case {
    /// It cannot be said now.
    Unknown,
    No,
    /// It is, and has come so far.
    Yes(String),
}

/// What is told from now on, and the messages that tell it. `None` when everything stays as it is.
pub(super) fn decide(ground: &Ground<'_>, told: &[Told]) -> Option<(Vec<Told>, Vec<Message>)> {
    let about = &ground.bearing.about;
    if about.paused || about.removing.is_some() {
        return None;
    }
    let wanted = |row: &&Told| Occasion::parse(&row.occasion).is_some_and(|one| ground.occasions.contains(&one));
    let mut rows: Vec<Told> = told.iter().filter(wanted).cloned().collect();
    let mut messages = Vec::new();
    for occasion in ground.occasions.iter().copied() {
        if occasion == Occasion::BackToNormal {
            continue;
        }
        let at = rows.iter().position(|row| row.occasion == occasion.as_str());
        match (ground.case(occasion), at) {
            (Case::Unknown, _) | (Case::No, None) => {}
            (Case::No, Some(at)) => {
                if rows[at].stage == Stage::On {
                    rows[at].stage = match occasion {
                        Occasion::KeyExpiresSoon | Occasion::FirstCollection => Stage::Closed,
                        _ => Stage::Over,
                    };
                }
            }
            (Case::Yes(mark), None) => {
                let stale = occasion == Occasion::FirstCollection && !ground.is_fresh();
                if !stale {
                    messages.push(ground.message(occasion));
                }
                rows.push(fresh(occasion, mark, ground.now, None));
            }
            (Case::Yes(mark), Some(at)) => {
                let row = &mut rows[at];
                let tells = match row.stage {
                    // Nobody was told that it was over.
                    Stage::Over => false,
                    Stage::Closed => has_rested(row, ground.now),
                    Stage::On => has_grown(occasion, &row.mark, &mark) && may_grow(occasion, row, ground.now),
                };
                match (tells, row.stage) {
                    (true, _) => {
                        messages.push(ground.message(occasion));
                        *row = fresh(occasion, mark, ground.now, Some(row));
                    }
                    (false, Stage::Over) => {
                        row.stage = Stage::On;
                    }
                    // What has shrunk may grow again.
                    (false, Stage::On) if !has_grown(occasion, &row.mark, &mark) => row.mark = mark,
                    (false, _) => {}
                }
            }
        }
    }
    ground.back_to_normal(&mut rows, &mut messages);
    rows.sort_by(|one, other| one.occasion.cmp(&other.occasion));
    (rows != told || !messages.is_empty()).then_some((rows, messages))
}

/// A row that says that it was told now.
fn fresh(occasion: Occasion, mark: String, now: Timestamp, before: Option<&Told>) -> Told {
    let soon = before.filter(|row| (SignedDuration::ZERO..CALM).contains(&now.duration_since(row.at)));
    Told {
        occasion: occasion.as_str().to_owned(),
        mark,
        stage: Stage::On,
        at: now,
        streak: soon.map_or(0, |row| row.streak.saturating_add(1)),
    }
}

/// Whether it may be told again. What was told by a clock that was ahead does not silence anybody.
fn has_rested(row: &Told, now: Timestamp) -> bool {
    let pause = (APART * 2_i32.pow(row.streak.min(5))).min(FAR_APART);
    let age = now.duration_since(row.at);
    age >= pause || age.is_negative()
}

fn may_grow(occasion: Occasion, row: &Told, now: Timestamp) -> bool {
    let age = now.duration_since(row.at);
    occasion == Occasion::KeyExpiresSoon || age >= FAR_APART || age.is_negative()
}

/// Whether something has come further than was told.
fn has_grown(occasion: Occasion, told: &str, mark: &str) -> bool {
    let number = |text: &str| text.parse::<i64>().unwrap_or_default();
    match occasion {
        Occasion::Held | Occasion::Parked => number(mark) > number(told),
        Occasion::KeyExpiresSoon => {
            let parts = |text: &str| text.split_once('/').map(|(day, step)| (day.to_owned(), number(step)));
            match (parts(told), parts(mark)) {
                (Some((old_day, old)), Some((day, step))) => old_day != day || step < old,
                _ => false,
            }
        }
        _ => false,
    }
}

impl Ground<'_> {
    fn case(&self, occasion: Occasion) -> Case {
        let about = &self.bearing.about;
        let Bearing { status, running, .. } = self.bearing;
        let state = |state| match about.state == state {
            _ if *running => Case::Unknown,
            true => Case::Yes(String::new()),
            false => Case::No,
        };
        let count = |count: u64| match count {
            _ if *running => Case::Unknown,
            0 => Case::No,
            count => Case::Yes(count.to_string()),
        };
        match occasion {
            Occasion::ReconnectRequired => state(ConnectorState::ReconnectRequired),
            Occasion::NotLicensed => state(ConnectorState::NotLicensed),
            Occasion::ReportOnly => state(ConnectorState::ReportOnly),
            Occasion::Held => count(status.held),
            Occasion::Parked => count(status.parked),
            Occasion::KeyExpiresSoon => match self.key.and_then(|(day, days)| Some((day, key_step(days)?))) {
                Some((day, step)) => Case::Yes(format!("{day}/{step}")),
                None => Case::No,
            },
            Occasion::Silent => match self.silence {
                Silence::For(_) => Case::Yes(String::new()),
                Silence::Unsure => Case::Unknown,
                Silence::No => Case::No,
            },
            Occasion::FirstCollection => match self.bearing.collected_at {
                Some(_) if *running || about.last_success.is_none() => Case::Unknown,
                Some(_) => Case::Yes(String::new()),
                None => Case::No,
            },
            Occasion::BackToNormal | Occasion::Test => Case::Unknown,
        }
    }

    /// Whether the first collection was finished a short while ago.
    fn is_fresh(&self) -> bool {
        let age = self.bearing.collected_at.map(|at| self.now.duration_since(at));
        age.is_some_and(|age| age < FRESH)
    }

    /// Tells what is over, once everything is well again.
    fn back_to_normal(&self, rows: &mut Vec<Told>, messages: &mut Vec<Message>) {
        let serious = |row: &Told| {
            let occasion = Occasion::parse(&row.occasion);
            row.stage == Stage::On
                && !matches!(
                    occasion,
                    None | Some(
                        Occasion::Parked
                            | Occasion::KeyExpiresSoon
                            | Occasion::FirstCollection
                            | Occasion::BackToNormal
                    )
                )
        };
        let well = !self.bearing.running && self.bearing.about.state == ConnectorState::Connected;
        let ended: Vec<Occasion> = rows
            .iter()
            .filter(|row| row.stage == Stage::Over)
            .filter_map(|row| Occasion::parse(&row.occasion))
            .collect();
        if ended.is_empty() || !well || rows.iter().any(serious) {
            return;
        }
        let back = Occasion::BackToNormal;
        if self.occasions.contains(&back) {
            let at = rows.iter().position(|row| row.occasion == back.as_str());
            // As often as something was told to begin, and that is rare enough.
            let row = fresh(back, String::new(), self.now, at.map(|at| &rows[at]));
            match at {
                Some(at) => rows[at] = row,
                None => rows.push(row),
            }
            let mut message = self.message(back);
            message.ended = ended;
            messages.push(message);
        }
        for row in rows.iter_mut().filter(|row| row.stage == Stage::Over) {
            row.stage = Stage::Closed;
        }
    }

    fn message(&self, occasion: Occasion) -> Message {
        let Self { name, now, bearing, .. } = *self;
        let about = &bearing.about;
        let status = &bearing.status;
        let say = |title: &str| Message::new(name, occasion, now, title).standing(Some(status));
        let as_noted = |title: &str| {
            let message = say(title).because(about.reason.as_deref());
            message.advising(about.action.as_deref())
        };
        match occasion {
            Occasion::ReconnectRequired => as_noted("reconnect required"),
            Occasion::NotLicensed => as_noted("no licence for SaaS Management"),
            Occasion::ReportOnly => as_noted("report only: JumpCloud offers no account writes"),
            Occasion::Held => {
                let held = status.held;
                let action = wording::about_held(status);
                let are = if held == 1 { "waits" } else { "wait" };
                say(&format!("{} {are} for approval", wording::counted(held, "removal")))
                    .because(about.hold_reason.as_deref())
                    .advising(Some(&action))
            }
            Occasion::Parked => {
                // What, and then why.
                let said = wording::parked(status);
                let (title, reason) = said.split_once(": ").unwrap_or((&said, ""));
                say(title)
                    .because(Some(reason).filter(|reason| !reason.is_empty()))
                    .advising(Some(&wording::about_parked(status)))
            }
            Occasion::BackToNormal => say("back to normal"),
            Occasion::KeyExpiresSoon => {
                let (title, day) = match self.key {
                    Some((day, ..0)) => (
                        format!("the Torq API key expired on {day}, says the configuration"),
                        Some(day),
                    ),
                    Some((day, 0)) => ("the Torq API key expires today".to_owned(), Some(day)),
                    Some((day, 1)) => ("the Torq API key expires tomorrow".to_owned(), Some(day)),
                    Some((day, days)) => (format!("the Torq API key expires on {day}, in {days} days"), Some(day)),
                    None => ("the Torq API key expires soon".to_owned(), None),
                };
                let action = "extend the API key in Torq, or make a new one and put it into the configuration; then set \
                              torq.key_expires to its new date";
                let mut message = say(&title).advising(Some(action));
                message.key_expires = day;
                message
            }
            Occasion::Silent => {
                let since = match self.silence {
                    Silence::For(since) => since,
                    Silence::No | Silence::Unsure => Duration::ZERO,
                };
                let since = wording::span(since);
                // Of any other state the reason is of the last run that came to its end, which has nothing to do with it.
                let retrying = about.state == ConnectorState::Retrying;
                let noted = |words: &'_ Option<String>| words.clone().filter(|_| retrying);
                let reason = noted(&about.reason).unwrap_or_else(|| "no run has come to its end".to_owned());
                let action =
                    noted(&about.action).unwrap_or_else(|| format!("see torq-connector status {name}, and the log"));
                let message = say(&format!("no success for {since}")).because(Some(&reason));
                message.advising(Some(&action))
            }
            Occasion::FirstCollection => say(&format!(
                "the first collection is finished: {}",
                wording::counted(status.users, "user")
            )),
            Occasion::Test => say("this is a test"),
        }
    }
}

#[cfg(test)]
mod tests;
