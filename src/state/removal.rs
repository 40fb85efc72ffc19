//! Removals: who counts as gone after a complete poll, what is believed, what is held, what becomes of accounts without a user.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::doubt::Doubt;
use super::poll::clear_poll;
use super::seen::{Bits, Memory};
use super::{NewEvent, Sql, Store, events, stored};
use crate::config::{MaxRemovals, Removals};
use crate::view::{EventKind, Guard, RunCounts};
use crate::wording::counted;

/// A time between two complete polls is noted from this length on.
const UNREAD: SignedDuration = SignedDuration::from_hours(1);

/// When removals are believed, and what they entail.
#[derive(Clone, Copy, Debug)]
pub struct RemovalRules {
    /// Whether accounts that we created go, too.
    pub removals: Removals,
    /// How many are believed within 24 hours.
    pub max: MaxRemovals,
}

impl RemovalRules {
    /// How many removals within 24 hours are believed for a snapshot of `users`.
    pub fn limit(&self, users: u64) -> u64 {
        match self.max {
            MaxRemovals::Users(users) => users,
            // At least 5, or a small workspace could never lose anybody unasked.
            MaxRemovals::Percent(percent) => ((users as f64 * percent / 100.0).floor() as u64).max(5),
        }
    }
}

/// What a complete poll meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollEnd {
    /// Users of the snapshot who were not seen.
    pub missing: u64,
    /// Users removed now.
    pub removed: u64,
    /// Removals held now.
    pub held: u64,
    /// What the guard said.
    pub guard: Guard,
}

impl Store {
    /// Ends a poll whose both listings reached their last page: decides who is missing, who is removed, what is held.
    pub fn finish_poll(&mut self, now: Timestamp, rules: &RemovalRules) -> Sql<PollEnd> {
        let memory = match self.poll.take() {
            Some(memory) => memory,
            None => Memory::load(&self.db)?,
        };
        let run = self.run;
        let version = self.version();
        let changes = self.db.total_changes();
        let settled = self.settled.releases == Some(version);
        let day_began = self.day.begin(now);
        let transaction = self.db.transaction()?;
        let db = &transaction;
        // A record without a readable id may be anybody, so such a poll says nothing about who is missing.
        let (clean, nameless): (bool, bool) = db
            .query_row("SELECT clean, nameless FROM poll", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?
            .unwrap_or((false, false));
        db.execute("UPDATE connector SET nameless = ?1 WHERE nameless <> ?1", [nameless])?;
        let returned = forgive_returned(db, now, run, &memory.seen)?;
        let missing = if clean {
            count_missing(db, &memory)?
        } else {
            Missing::default()
        };
        // No account has lost its last user since a poll found that none had, or has one again.
        let settled = settled && !returned && !missing.counted;
        if !settled {
            count_accounts(db, now, run, clean)?;
        }
        let doubt = Doubt::read(db)?.in_view_of(returned, missing.strange);
        let mut end = PollEnd::default();
        if clean {
            let poll = Judged {
                now,
                day_began,
                run,
                rules,
                present: memory.present,
                empty: memory.seen.count == 0 && memory.present > 0,
                doubt,
                settled,
            };
            end = poll.judge(db)?;
            end.missing = missing.total;
            let still: bool = db.query_row(
                "SELECT EXISTS (SELECT 1 FROM users WHERE absent_polls > 0 AND removed_at IS NULL)",
                [],
                |row| row.get(0),
            )?;
            doubt.after_poll(still).write(db)?;
            Doubt::settle(db)?;
        } else {
            doubt.write(db)?;
        }
        let nothing = db.total_changes() == changes;
        note_read(db, now)?;
        clear_poll(db)?;
        transaction.commit()?;
        if end.guard.candidates > 0 && !end.guard.held {
            self.day.note(now);
        }
        if nothing {
            self.bookkeeping += self.db.total_changes() - changes;
        }
        if nothing && clean {
            self.settled.releases = Some(version);
        }
        Ok(end)
    }
}

/// A poll is complete: Torq is known as of now, and was not before for so long.
fn note_read(db: &Connection, now: Timestamp) -> Sql<()> {
    // Noted by a clock that was ahead.
    db.execute("DELETE FROM unread WHERE until > ?1", [stored(now)])?;
    db.execute(
        "INSERT INTO unread (since, until) SELECT read_at, ?1 FROM connector WHERE read_at <= ?2",
        [stored(now), stored(now - UNREAD)],
    )?;
    db.execute(
        "UPDATE connector SET read_at = ?1, first_poll_at = coalesce(first_poll_at, ?1)",
        [stored(now)],
    )?;
    Ok(())
}

/// Whoever was absent and is seen again counts as never absent: nothing is held or approved for them any more. Whether there is
/// somebody like that.
fn forgive_returned(db: &Connection, now: Timestamp, run: Option<i64>, seen: &Bits) -> Sql<bool> {
    let returned: Vec<u32> = {
        let mut statement = db.prepare("SELECT no FROM users WHERE absent_polls > 0 AND removed_at IS NULL")?;
        let numbers = statement.query_map([], |row| row.get(0))?;
        numbers
            .filter(|no| no.as_ref().map_or(true, |no| seen.contains(*no)))
            .collect::<Sql<_>>()?
    };
    for no in &returned {
        let waited: bool = db
            .prepare_cached("SELECT removal IS NOT NULL FROM users WHERE no = ?1")?
            .query_row([no], |row| row.get(0))?;
        if waited {
            let (id, email) = named(db, *no)?;
            drop_removal(db, now, run, Some(&id), &email, "is back in Torq")?;
        }
        db.execute("UPDATE users SET absent_polls = 0, removal = NULL WHERE no = ?1", [no])?;
    }
    Ok(!returned.is_empty())
}

/// Who was not seen by a complete and clean poll.
#[derive(Default)]
struct Missing {
    /// How many.
    total: u64,
    /// Somebody's absence is not over the threshold yet, and was counted.
    counted: bool,
    /// Somebody is missing since this poll, and nobody whom it saw was known before it.
    strange: bool,
}

/// Counts the absence of whoever was not seen, up to the two polls that make a difference: somebody who is held for months must
/// not cost a write each time.
fn count_missing(db: &Connection, memory: &Memory) -> Sql<Missing> {
    let mut missing = Missing::default();
    if memory.seen.count >= memory.present {
        return Ok(missing);
    }
    let mut counted: Vec<u32> = Vec::new();
    let (mut fresh, mut familiar) = (false, false);
    let mut statement = db.prepare(
        "SELECT no, absent_polls, no <= coalesce((SELECT newest FROM poll), no) FROM users WHERE removed_at IS NULL",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let no: u32 = row.get(0)?;
        if memory.seen.contains(no) {
            familiar |= row.get::<_, bool>(2)?;
            continue;
        }
        missing.total += 1;
        let absent_polls: u32 = row.get(1)?;
        fresh |= absent_polls == 0;
        if absent_polls < 2 {
            counted.push(no);
        }
    }
    for no in &counted {
        db.prepare_cached("UPDATE users SET absent_polls = absent_polls + 1 WHERE no = ?1")?
            .execute([no])?;
    }
    missing.counted = !counted.is_empty();
    missing.strange = fresh && !familiar;
    Ok(missing)
}

/// Somebody who is not missing has the e-mail of an account.
const CARRIED: &str = "EXISTS (SELECT 1 FROM users u
    WHERE u.email_key = accounts.email_key AND u.removed_at IS NULL AND u.absent_polls = 0)";

/// Accounts that we created and that no user of the snapshot has the e-mail of (any more), undecided as yet.
const ORPHANS: &str = "origin = 'created' AND account_id IS NOT NULL AND release IS NULL
    AND NOT EXISTS (SELECT 1 FROM users u WHERE u.email_key = accounts.email_key AND u.removed_at IS NULL)";

/// Counts for each account of ours in how many polls in a row nobody who was there had its e-mail. An account whose e-mail
/// somebody has again is nobody's to release.
fn count_accounts(db: &Connection, now: Timestamp, run: Option<i64>, clean: bool) -> Sql<()> {
    let carried: Vec<String> = db
        .prepare(&format!(
            "SELECT email_key FROM accounts WHERE release IN ('held', 'approved') AND {CARRIED}"
        ))?
        .query_map([], |row| row.get(0))?
        .collect::<Sql<_>>()?;
    for email in carried {
        drop_removal(db, now, run, None, &email, "somebody in Torq has this e-mail again")?;
    }
    db.execute(
        &format!(
            "UPDATE accounts SET absent_polls = 0, release = NULL,
                refused = CASE WHEN release = 'due' THEN NULL ELSE refused END
             WHERE (absent_polls > 0 OR release IS NOT NULL) AND {CARRIED}"
        ),
        [],
    )?;
    if clean {
        db.execute(
            &format!(
                "UPDATE accounts SET absent_polls = absent_polls + 1
                 WHERE origin = 'created' AND account_id IS NOT NULL AND release IS NULL AND absent_polls < 2 AND NOT {CARRIED}"
            ),
            [],
        )?;
    }
    Ok(())
}

/// A complete and clean poll, of which is decided what its absences mean.
struct Judged<'a> {
    now: Timestamp,
    /// Removals since then use up what is believed within a day.
    day_began: Timestamp,
    run: Option<i64>,
    rules: &'a RemovalRules,
    /// Users of the snapshot, missing ones included.
    present: u64,
    /// There are users, and nobody was seen.
    empty: bool,
    doubt: Doubt,
    /// No account has lost its user since the last poll found that none had, so only users are looked at.
    settled: bool,
}

impl Judged<'_> {
    /// Decides about users who were not seen, and accounts without a user.
    fn judge(&self, db: &Connection) -> Sql<PollEnd> {
        let (now, run) = (self.now, self.run);
        bring_back_from_future(db, now)?;
        forget_past_releases(db, self.day_began)?;
        // Once is an accident: a user can change listing while a poll runs. Twice in a row is gone.
        let candidates: Vec<u32> = numbers(db, "absent_polls >= 2 AND removal IS NULL")?;
        let approved: Vec<u32> = numbers(db, "absent_polls >= 2 AND removal = 'approved'")?;
        let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, u64>(0));
        let orphans = match self.settled {
            true => 0,
            false => count(&format!(
                "SELECT count(*) FROM accounts WHERE absent_polls >= 2 AND {ORPHANS}"
            ))?,
        };
        let total = candidates.len() as u64 + orphans;
        let guard = self.guard(db, total)?;
        let mut end = PollEnd {
            guard,
            ..PollEnd::default()
        };
        if guard.held {
            let Held { these, all } = self.reason(db, &guard)?;
            for no in &candidates {
                hold_user(db, now, run, *no, &these)?;
            }
            if orphans > 0 {
                hold_orphans(db, now, run, &these)?;
            }
            db.execute(
                "UPDATE connector SET hold_reason = ?1 WHERE hold_reason IS NOT ?1",
                [&all],
            )?;
            end.held = total;
        } else {
            if orphans > 0 {
                note_releases(db, now)?;
            }
            for no in &candidates {
                remove_user(db, now, run, *no)?;
            }
            if total > 0 {
                release_orphans(db, self.rules.removals)?;
            }
            end.removed += candidates.len() as u64;
        }
        for no in &approved {
            remove_user(db, now, run, *no)?;
        }
        end.removed += approved.len() as u64;
        if !self.settled || end.removed > 0 {
            release_approved(db, now, self.rules.removals)?;
        }
        Ok(end)
    }

    /// Whether so many removals more are believed.
    fn guard(&self, db: &Connection, candidates: u64) -> Sql<Guard> {
        // What a person approved does not use up what is believed unasked.
        let removals_24h: u64 = db.query_row(
            "SELECT (SELECT count(*) FROM users WHERE removed_at > ?1 AND removal IS NULL)
                  + (SELECT count(*) FROM releases WHERE at > ?1)",
            [stored(self.day_began)],
            |row| row.get(0),
        )?;
        let limit = self.rules.limit(self.present);
        let held_already: u64 = match candidates {
            0 => 0,
            _ => db.query_row(
                "SELECT (SELECT count(*) FROM users WHERE absent_polls > 0 AND removal = 'held' AND removed_at IS NULL)
                      + (SELECT count(*) FROM accounts WHERE release = 'held')",
                [],
                |row| row.get(0),
            )?,
        };
        let too_many = removals_24h + held_already + candidates > limit;
        Ok(Guard {
            limit,
            removals_24h,
            candidates,
            held_already,
            held: candidates > 0 && (too_many || self.empty || self.doubt != Doubt::None),
        })
    }

    /// Why they are held, for a person.
    fn reason(&self, db: &Connection, guard: &Guard) -> Sql<Held> {
        let doubted = match self.empty {
            true => Some("the whole workspace came back empty"),
            false => self.doubt.reason(),
        };
        if let Some(reason) = doubted {
            return Ok(Held::all_alike(reason.to_owned()));
        }
        let before: Option<String> = db.query_row("SELECT hold_reason FROM connector", [], |row| row.get(0))?;
        let at_once = guard.removals_24h + guard.candidates;
        Ok(match before {
            // They would be believed, were there nobody else.
            Some(before) if at_once <= guard.limit => Held {
                these: format!("{} held already: later ones wait with them", are(guard.held_already)),
                all: match before.ends_with(LATER) {
                    true => before,
                    false => format!("{before}; {LATER}"),
                },
            },
            _ if guard.limit == 0 => Held::all_alike("no removal is believed unasked, as max_removals says".to_owned()),
            _ => {
                let earlier = match guard.removals_24h {
                    0 => String::new(),
                    earlier => format!(" and {earlier} carried out in the last 24 hours"),
                };
                Held::all_alike(format!(
                    "{} at once{earlier} are more than the {} a day that are believed unasked",
                    guard.candidates, guard.limit
                ))
            }
        })
    }
}

/// Added to the reason of those who were first.
const LATER: &str = "later ones wait with them";

/// Why people are held.
struct Held {
    /// Those of this poll.
    these: String,
    /// Everybody who waits by now.
    all: String,
}

impl Held {
    fn all_alike(reason: String) -> Self {
        Self {
            these: reason.clone(),
            all: reason,
        }
    }
}

pub(super) fn are(removals: u64) -> String {
    let are = if removals == 1 { "is" } else { "are" };
    format!("{} {are}", counted(removals, "removal"))
}

/// Noted by a clock that was ahead, a removal would count as one of the last 24 hours until that day has passed. It is one of now.
fn bring_back_from_future(db: &Connection, now: Timestamp) -> Sql<()> {
    db.execute("UPDATE users SET removed_at = ?1 WHERE removed_at > ?1", [stored(now)])?;
    db.execute("UPDATE releases SET at = ?1 WHERE at > ?1", [stored(now)])?;
    Ok(())
}

/// What counted for a day that is over: people who come and go for years must not leave a row each time.
fn forget_past_releases(db: &Connection, day_began: Timestamp) -> Sql<()> {
    db.execute("DELETE FROM releases WHERE at <= ?1", [stored(day_began)])?;
    Ok(())
}

/// Users who were absent from the last poll, and more. The first terms are those of the index `users_absent`.
pub(super) fn numbers(db: &Connection, which: &str) -> Sql<Vec<u32>> {
    db.prepare(&format!(
        "SELECT no FROM users WHERE absent_polls > 0 AND removed_at IS NULL AND {which}"
    ))?
    .query_map([], |row| row.get(0))?
    .collect()
}

fn named(db: &Connection, no: u32) -> Sql<(String, String)> {
    db.prepare_cached("SELECT id, email FROM users WHERE no = ?1")?
        .query_row([no], |row| Ok((row.get(0)?, row.get(1)?)))
}

pub(super) fn hold_user(db: &Connection, now: Timestamp, run: Option<i64>, no: u32, reason: &str) -> Sql<()> {
    db.execute("UPDATE users SET removal = 'held' WHERE no = ?1", [no])?;
    let (id, email) = named(db, no)?;
    let event = NewEvent {
        user_id: Some(&id),
        email: Some(&email),
        reason: Some(reason),
        ..NewEvent::default()
    };
    events::record(db, now, run, EventKind::RemovalHeld, event)
}

fn hold_orphans(db: &Connection, now: Timestamp, run: Option<i64>, reason: &str) -> Sql<()> {
    let keys: Vec<String> = db
        .prepare(&format!(
            "SELECT email_key FROM accounts WHERE absent_polls >= 2 AND {ORPHANS}"
        ))?
        .query_map([], |row| row.get(0))?
        .collect::<Sql<_>>()?;
    for key in keys {
        hold_account(db, now, run, &key, reason)?;
    }
    Ok(())
}

pub(super) fn hold_account(db: &Connection, now: Timestamp, run: Option<i64>, key: &str, reason: &str) -> Sql<()> {
    db.execute("UPDATE accounts SET release = 'held' WHERE email_key = ?1", [key])?;
    let event = NewEvent {
        email: Some(key),
        reason: Some(reason),
        ..NewEvent::default()
    };
    events::record(db, now, run, EventKind::RemovalHeld, event)
}

/// A removal that waits, for a person or for the next run, is off.
fn drop_removal(
    db: &Connection,
    now: Timestamp,
    run: Option<i64>,
    id: Option<&str>,
    email: &str,
    reason: &str,
) -> Sql<()> {
    let event = NewEvent {
        user_id: id,
        email: Some(email),
        reason: Some(reason),
        ..NewEvent::default()
    };
    events::record(db, now, run, EventKind::RemovalDropped, event)
}

fn remove_user(db: &Connection, now: Timestamp, run: Option<i64>, no: u32) -> Sql<()> {
    let (id, email) = named(db, no)?;
    db.execute(
        "UPDATE users SET removed_at = ?2 WHERE no = ?1",
        params![no, stored(now)],
    )?;
    events::count(
        db,
        run,
        RunCounts {
            disappeared: 1,
            ..RunCounts::default()
        },
    )?;
    let event = NewEvent {
        user_id: Some(&id),
        email: Some(&email),
        reason: Some("absent from two complete polls in a row"),
        ..NewEvent::default()
    };
    events::record(db, now, run, EventKind::UserDisappeared, event)
}

/// Notes the accounts whose release is believed now although nobody was removed: those that a changed e-mail left behind.
fn note_releases(db: &Connection, now: Timestamp) -> Sql<()> {
    db.execute(
        &format!("INSERT INTO releases (at, email_key) SELECT ?1, email_key FROM accounts WHERE absent_polls >= 2 AND {ORPHANS}"),
        [stored(now)],
    )?;
    Ok(())
}

/// Decides about accounts without a user: under `report` they are only shown, and stay so should the setting change later.
fn release_orphans(db: &Connection, removals: Removals) -> Sql<()> {
    db.execute(
        &format!("UPDATE accounts SET release = ?1 WHERE absent_polls >= 2 AND {ORPHANS}"),
        [released(removals)],
    )?;
    Ok(())
}

fn release_approved(db: &Connection, now: Timestamp, removals: Removals) -> Sql<()> {
    // Those whose user was removed just now because a person approved it, and those who were held by themselves.
    db.execute(
        "UPDATE accounts SET release = ?1
         WHERE (release = 'approved'
                OR (release IS NULL AND absent_polls >= 2 AND origin = 'created' AND account_id IS NOT NULL
                    AND EXISTS (SELECT 1 FROM users r WHERE r.email_key = accounts.email_key AND r.removal = 'approved'
                                AND r.removed_at = ?2)))
           AND NOT EXISTS (SELECT 1 FROM users u WHERE u.email_key = accounts.email_key AND u.removed_at IS NULL)",
        [released(removals), &stored(now)],
    )?;
    Ok(())
}

fn released(removals: Removals) -> &'static str {
    match removals {
        Removals::Report => "reported",
        Removals::Delete => "due",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_believes_a_tenth_and_at_least_five() {
        let rules = |max| RemovalRules {
            removals: Removals::Report,
            max,
        };
        assert_eq!(rules(MaxRemovals::Percent(10.0)).limit(1000), 100);
        assert_eq!(rules(MaxRemovals::Percent(10.0)).limit(3), 5);
        assert_eq!(rules(MaxRemovals::Users(0)).limit(1000), 0);
    }
}
