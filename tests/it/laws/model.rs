//! What is known to have happened, kept apart from the connector: whom each poll can have seen, what was made by whom, what a
//! person approved. It never asks the connector what it thinks, only whether a poll is still under way.
//!
//! A poll takes time, and the world changes meanwhile. So of each poll two things are kept: who was there *throughout*, just as
//! they were, and must have been seen; and who was there at *some* time, and may have been.

use std::collections::{BTreeMap, BTreeSet};

use torq_connector::sandbox::Person;

use super::history::Door;
use crate::world::fold;

/// How a person can be seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// The folded e-mail; `None` where the record does not say it.
    pub email: Option<String>,
    pub status: String,
    sso: bool,
}

/// A workspace at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub people: BTreeMap<String, Sight>,
    /// Whose records have no readable id, and in which listing they are.
    nameless: BTreeSet<(String, bool)>,
}

impl View {
    pub fn of(people: &[Person]) -> Self {
        let mut view = Self::default();
        for person in people {
            let email = Some(fold(&person.email)).filter(|email| !email.is_empty());
            let email = match &person.raw {
                Some(raw) if raw.get("id").is_none_or(|id| !id.is_string()) => {
                    view.nameless.insert((person.id.clone(), person.sso_provision));
                    continue;
                }
                Some(_) => None,
                None => email,
            };
            let sight = Sight {
                email,
                status: person.status.clone(),
                sso: person.sso_provision,
            };
            view.people.insert(person.id.clone(), sight);
        }
        view
    }
}

/// The workspace from a poll's beginning until now.
#[derive(Clone, Debug)]
pub struct Span {
    pub throughout: BTreeMap<String, Sight>,
    pub sometime: BTreeSet<String>,
    /// Records without a readable id that are sure to be seen: like anybody else's, one that moves between the listings can be missed.
    nameless: BTreeSet<(String, bool)>,
}

impl Span {
    pub fn begin(view: View) -> Self {
        Self {
            sometime: view.people.keys().cloned().collect(),
            nameless: view.nameless,
            throughout: view.people,
        }
    }

    /// The workspace is like this now.
    pub fn goes_on(&mut self, view: &View) {
        self.throughout.retain(|id, sight| view.people.get(id) == Some(sight));
        self.sometime.extend(view.people.keys().cloned());
        self.nameless.retain(|record| view.nameless.contains(record));
    }

    /// Whether somebody who was seen for sure had this e-mail.
    pub fn carried(&self, email: &str) -> bool {
        self.throughout
            .values()
            .any(|sight| sight.email.as_deref() == Some(email))
    }
}

/// A poll that came to its end.
#[derive(Clone, Debug)]
pub struct Poll {
    pub span: Span,
    /// Whether it is certain that it did: its process may have been killed a moment too early.
    pub sure: bool,
}

/// Who made an account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum By {
    Us,
    Others,
    /// Others, while a create of ours for the same e-mail was not answered: it counts as ours, for nothing tells the difference.
    OthersInTheDark,
}

/// An account in one of the organisations.
#[derive(Clone, Debug)]
pub struct Made {
    pub email: Option<String>,
    pub by: By,
    /// In which step.
    pub step: usize,
}

/// What happened so far.
#[derive(Default)]
pub struct Past {
    pub step: usize,
    /// The poll that is under way.
    pub span: Option<Span>,
    /// Those that came to their end, oldest first.
    pub polls: Vec<Poll>,
    /// By organisation and account id.
    pub made: BTreeMap<(usize, String), Made>,
    /// Creates of ours that were not answered: organisation, application, e-mail.
    pub unanswered: BTreeSet<(usize, String, String)>,
    /// A run was killed, or told to stop.
    pub killed: bool,
    /// The latest step in which an organisation's accounts were listed to the end.
    pub listed: [usize; 2],
    /// Whose removal a person approved, since they were last seen; and the e-mails that go with them.
    pub approved: BTreeSet<String>,
    pub approved_emails: BTreeSet<String>,
    /// Users removed although nobody had approved it, and the accounts deleted likewise that belonged to none of them.
    pub unasked: Vec<String>,
    pub unasked_emails: BTreeSet<String>,
    pub unasked_accounts: BTreeSet<String>,
    /// The highest limit so far.
    pub highest_limit: u64,
    /// The way to Torq, as a run last found it.
    pub door: Option<Door>,
    /// The Torq side changed, and since then nobody approved anything, nor was everybody seen by a poll.
    pub doubt: bool,
}

impl Past {
    /// The workspace is like this now.
    pub fn goes_on(&mut self, view: &View) {
        if let Some(span) = &mut self.span {
            span.goes_on(view);
        }
    }

    /// The poll that was under way came to its end.
    pub fn polled(&mut self, sure: bool) {
        let Some(span) = self.span.take() else { return };
        if sure {
            // Whoever is back has nothing approved against them.
            self.approved.retain(|id| !span.throughout.contains_key(id));
            self.approved_emails.retain(|email| !span.carried(email));
        }
        self.polls.push(Poll { span, sure });
    }

    /// The latest poll, where it is certain that it came to its end and nothing is under way.
    pub fn latest(&self) -> Option<&Span> {
        let poll = self.polls.last().filter(|poll| poll.sure && self.span.is_none())?;
        Some(&poll.span)
    }

    /// Whether two complete and clean polls in a row, the last ones, can have missed what `seen` says was seen.
    pub fn missed_twice(&self, seen: impl Fn(&Span) -> bool) -> bool {
        let mut missed = 0;
        for poll in self.polls.iter().rev() {
            match seen(&poll.span) {
                true if poll.sure => return false,
                true => {}
                // A poll with a record that has no readable id misses nobody.
                false if !poll.span.nameless.is_empty() => {}
                false => missed += 1,
            }
            if missed == 2 {
                return true;
            }
        }
        false
    }

    /// The state is gone, and with it all that it knew. What was made stays made.
    pub fn forget(&mut self) {
        let made = std::mem::take(&mut self.made);
        let unanswered = std::mem::take(&mut self.unanswered);
        *self = Self {
            step: self.step,
            made,
            unanswered,
            listed: self.listed,
            ..Self::default()
        };
    }
}
