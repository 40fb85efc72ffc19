//! The model: a few numbers about each person and each e-mail, and the rules as one would say them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::EMAILS;

/// What a person or the guard said about somebody who is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Verdict {
    #[default]
    None,
    Held,
    Approved,
}

/// A user, as the snapshot should have them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) email: u8,
    /// Complete, clean polls in a row that did not see them.
    pub(super) absent: u32,
    pub(super) verdict: Verdict,
    pub(super) removed: bool,
}

/// What becomes of an account that nobody has the e-mail of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Fate {
    #[default]
    Kept,
    Held,
    Approved,
    Reported,
    Due,
}

/// An account that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) ours: bool,
    /// Complete, clean polls in a row in which nobody who was seen had the e-mail.
    pub(super) absent: u32,
    pub(super) fate: Fate,
}

/// Why nobody is believed to be gone unasked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Doubt {
    None,
    /// The Torq side is another one; so many whole polls must be complete before anything can end the doubt.
    Side(u8),
    /// A poll saw nobody who was known.
    Strangers,
}

/// What the state should say.
pub(super) struct Model {
    pub(super) members: BTreeMap<u8, Member>,
    pub(super) accounts: BTreeMap<u8, Known>,
    /// When somebody was removed, or an account released, that nobody had approved.
    pub(super) unasked: Vec<Timestamp>,
    pub(super) doubt: Doubt,
    pub(super) delete: bool,
    pub(super) max: u64,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            members: BTreeMap::new(),
            accounts: BTreeMap::new(),
            unasked: Vec::new(),
            doubt: Doubt::None,
            delete: false,
            max: 2,
        }
    }

    /// Whether somebody who counts as a user has this e-mail.
    pub(super) fn carried(&self, email: u8) -> bool {
        self.members.values().any(|one| !one.removed && one.email == email)
    }

    /// Our accounts that nobody has the e-mail of and about which nothing is decided.
    pub(super) fn orphans(&self) -> Vec<u8> {
        let alone = |(email, account): (&u8, &Known)| {
            let undecided = account.ours && account.absent >= 2 && account.fate == Fate::Kept;
            (undecided && !self.carried(*email)).then_some(*email)
        };
        self.accounts.iter().filter_map(alone).collect()
    }

    pub(super) fn fate(&self) -> Fate {
        if self.delete { Fate::Due } else { Fate::Reported }
    }

    /// A poll was given up: whoever it saw is known, and it says nothing about anybody's absence.
    pub(super) fn glimpsed(&mut self, seen: &BTreeMap<u8, u8>) {
        for (id, email) in seen {
            let fresh = Member {
                email: *email,
                absent: 0,
                verdict: Verdict::None,
                removed: false,
            };
            match self.members.get_mut(id) {
                Some(one) if !one.removed => one.email = *email,
                _ => drop(self.members.insert(*id, fresh)),
            }
        }
    }

    /// A poll was complete. `seen`: who was there, by which e-mail.
    pub(super) fn polled(&mut self, now: Timestamp, seen: &BTreeMap<u8, u8>, clean: bool) {
        let known: BTreeSet<u8> = self.members.keys().copied().collect();
        let back = seen
            .keys()
            .any(|id| self.members.get(id).is_some_and(|one| !one.removed && one.absent > 0));
        if back && self.doubt == Doubt::Strangers {
            self.doubt = Doubt::None;
        }
        for (id, email) in seen {
            let here = Member {
                email: *email,
                absent: 0,
                verdict: Verdict::None,
                removed: false,
            };
            self.members.insert(*id, here);
        }
        let mut newly_missing = false;
        for (id, one) in self.members.iter_mut().filter(|_| clean) {
            if !one.removed && !seen.contains_key(id) {
                newly_missing |= one.absent == 0;
                one.absent += 1;
            }
        }
        let there = self.members.values().filter(|one| !one.removed && one.absent == 0);
        let carried: BTreeSet<u8> = there.map(|one| one.email).collect();
        for (email, account) in &mut self.accounts {
            if carried.contains(email) {
                (account.absent, account.fate) = (0, Fate::Kept);
            } else if clean && account.ours && account.fate == Fate::Kept {
                account.absent += 1;
            }
        }
        if clean {
            self.judge(now, seen, &known, newly_missing);
        }
    }

    pub(super) fn judge(&mut self, now: Timestamp, seen: &BTreeMap<u8, u8>, known: &BTreeSet<u8>, newly_missing: bool) {
        let users = self.members.values().filter(|one| !one.removed).count() as u64;
        if newly_missing && self.doubt == Doubt::None && !seen.keys().any(|id| known.contains(id)) {
            self.doubt = Doubt::Strangers;
        }
        let gone = |one: &Member, verdict| !one.removed && one.absent >= 2 && one.verdict == verdict;
        let with = |model: &Self, verdict| -> Vec<u8> {
            let members = model.members.iter();
            members
                .filter(|(_, one)| gone(one, verdict))
                .map(|(id, _)| *id)
                .collect()
        };
        let (leavers, approved) = (with(self, Verdict::None), with(self, Verdict::Approved));
        let orphans = self.orphans();
        let more = (leavers.len() + orphans.len()) as u64;
        let believed_today = self
            .unasked
            .iter()
            .filter(|at| **at > now - jiff::SignedDuration::from_hours(24));
        let waiting = self.held();
        let too_many = believed_today.count() as u64 + waiting + more > self.max;
        let nobody_there = seen.is_empty() && users > 0;
        if too_many || nobody_there || self.doubt != Doubt::None {
            for id in leavers {
                self.members.get_mut(&id).unwrap().verdict = Verdict::Held;
            }
            for email in orphans {
                self.accounts.get_mut(&email).unwrap().fate = Fate::Held;
            }
        } else {
            self.unasked
                .extend(std::iter::repeat_n(now, leavers.len() + orphans.len()));
            for id in leavers {
                self.members.get_mut(&id).unwrap().removed = true;
            }
            let fate = self.fate();
            // Those of the leavers go with them.
            for email in self.orphans() {
                self.accounts.get_mut(&email).unwrap().fate = fate;
            }
        }
        let mut theirs = BTreeSet::new();
        for id in approved {
            let one = self.members.get_mut(&id).unwrap();
            one.removed = true;
            theirs.insert(one.email);
        }
        let fate = self.fate();
        let orphans = self.orphans();
        let free: BTreeSet<u8> = (0..EMAILS).filter(|email| !self.carried(*email)).collect();
        for (email, account) in &mut self.accounts {
            let approved = account.fate == Fate::Approved && free.contains(email);
            if approved || theirs.contains(email) && orphans.contains(email) {
                account.fate = fate;
            }
        }
        self.doubt = match self.doubt {
            Doubt::Side(polls) if polls > 0 => Doubt::Side(polls - 1),
            other => other,
        };
        let missing = self.members.values().any(|one| !one.removed && one.absent > 0);
        if !missing && matches!(self.doubt, Doubt::Side(0) | Doubt::Strangers) {
            self.doubt = Doubt::None;
        }
    }

    pub(super) fn held(&self) -> u64 {
        let users = self
            .members
            .values()
            .filter(|one| !one.removed && one.verdict == Verdict::Held);
        let accounts = self.accounts.values().filter(|one| one.fate == Fate::Held);
        (users.count() + accounts.count()) as u64
    }

    /// Approves what is shown.
    pub(super) fn approved(&mut self) -> u64 {
        let approved = self.held();
        for one in self
            .members
            .values_mut()
            .filter(|one| !one.removed && one.verdict == Verdict::Held)
        {
            one.verdict = Verdict::Approved;
        }
        for one in self.accounts.values_mut().filter(|one| one.fate == Fate::Held) {
            one.fate = Fate::Approved;
        }
        // Somebody who is missing and was not shown is still in doubt.
        let unseen = |one: &Member| !one.removed && one.absent > 0 && one.verdict == Verdict::None;
        if approved > 0 && !self.members.values().any(unseen) && matches!(self.doubt, Doubt::Side(0) | Doubt::Strangers)
        {
            self.doubt = Doubt::None;
        }
        approved
    }
}
