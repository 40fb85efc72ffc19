//! Reports: answers for whoever must account for who has access. As of now or of a day that is past, and the same in a table, in
//! JSON, in CSV and on paper.
//!
//! Here are their shapes and their words. [`gather`] fills them from a state, [`fresh`] says how old that is, [`html`] puts them on
//! paper; the command line has tables and CSV. [`words`] is what their columns are and their cells say.

pub mod fresh;
pub mod gather;
pub mod html;
mod note;
pub mod words;

use jiff::Timestamp;
use serde::Serialize;

pub use note::Note;

use crate::state::Origin;
use crate::view::{AccountStanding, Directory, EventView, UserView};
use crate::wording::{counted, moment};

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Who has access to Torq.
    Access,
    /// Who of them is not in the JumpCloud directory.
    Unmatched,
    /// Who of them did not log in for long.
    Dormant,
    /// Who was invited and has not accepted.
    PendingInvitations,
    /// What is in Torq and not in JumpCloud, and the reverse.
    Drift,
    /// What changed within a time.
    Changes,
}

/// A question to the states.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// What is asked.
    pub kind: Kind,
    /// As of when, if not as of now.
    pub at: Option<Timestamp>,
    /// Changes after this moment.
    pub since: Option<Timestamp>,
    /// Changes up to this moment.
    pub until: Option<Timestamp>,
    /// Dormant is who did not log in for so many days.
    pub days: u32,
    /// When it is asked.
    pub now: Timestamp,
}

impl Question {
    /// The moment that the answer is about.
    pub fn moment(&self) -> Timestamp {
        self.at.unwrap_or(self.now)
    }
}

/// A report over one or several connectors.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Which report it is.
    pub report: Kind,
    /// When it was made.
    pub generated: Timestamp,
    /// As of which past moment; null: as of now.
    pub at: Option<Timestamp>,
    /// Changes after this moment; null for other reports.
    pub since: Option<Timestamp>,
    /// Changes up to this moment; null for other reports.
    pub until: Option<Timestamp>,
    /// For how many days somebody dormant did not log in; null for other reports.
    pub days: Option<u32>,
    /// What it says of each connector.
    pub connectors: Vec<Part>,
    /// The rows of all connectors.
    #[serde(flatten)]
    pub rows: Rows,
}

/// What a report says of one connector as a whole.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// The connector.
    pub name: String,
    /// As of when that is: the moment that was asked for, but none after the last complete poll. Null: there was none yet.
    pub as_of: Option<Timestamp>,
    /// When Torq was last read to its end, whatever became of the delivery. Null: it was not yet.
    pub last_read: Option<Timestamp>,
    /// Since when at the latest the directory's answers are, of all who were asked for. Null where the report does not speak of the
    /// directory as it is now, and where it was not asked yet.
    pub directory_asked: Option<Timestamp>,
    /// How many rows are about it.
    pub rows: u64,
    /// How many users there are, whomever the report is about; null where that is not known.
    pub users: Option<u64>,
    /// Why nothing can be said of it, and what to do; null where something can.
    pub error: Option<Note>,
    /// What whoever reads it should know.
    pub notes: Vec<Note>,
}

impl Part {
    /// Of a connector of which nothing can be said.
    pub fn failed(name: &str, error: Note) -> Self {
        Self {
            name: name.to_owned(),
            as_of: None,
            last_read: None,
            directory_asked: None,
            rows: 0,
            users: None,
            error: Some(error),
            notes: Vec::new(),
        }
    }

    /// Says something more.
    fn note(&mut self, note: impl Into<Note>) {
        self.notes.push(note.into());
    }

    fn each_note(&mut self, change: impl Fn(&mut Note)) {
        self.error.iter_mut().chain(&mut self.notes).for_each(change);
    }
}

/// The rows of a report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// People.
    Users(Vec<ReportUser>),
    /// What is on one side only.
    Differences(Vec<Difference>),
    /// What happened, oldest first, in the shape of events; roles with their names (`role`) beside their ids.
    Changes(Vec<EventView>),
}

impl Rows {
    /// None of the sort that a report has.
    pub fn none(kind: Kind) -> Self {
        match kind {
            Kind::Drift => Self::Differences(Vec::new()),
            Kind::Changes => Self::Changes(Vec::new()),
            _ => Self::Users(Vec::new()),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Users(rows) => rows.len(),
            Self::Differences(rows) => rows.len(),
            Self::Changes(rows) => rows.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds rows of the same sort.
    pub fn extend(&mut self, more: Self) {
        match (self, more) {
            (Self::Users(rows), Self::Users(more)) => rows.extend(more),
            (Self::Differences(rows), Self::Differences(more)) => rows.extend(more),
            (Self::Changes(rows), Self::Changes(more)) => rows.extend(more),
            _ => {}
        }
    }
}

/// Whether the JumpCloud directory knows somebody with a user's e-mail, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InDirectory {
    /// The account is associated with a directory user.
    Associated,
    /// A directory user has the e-mail; the account is not associated (yet).
    Known,
    /// Nobody there has the e-mail.
    Absent,
    /// The directory was not asked (yet).
    Unasked,
}

impl From<&Directory> for InDirectory {
    fn from(directory: &Directory) -> Self {
        match directory {
            Directory::Associated(_) => Self::Associated,
            Directory::Known(_) => Self::Known,
            Directory::Absent(_) => Self::Absent,
            Directory::Unasked => Self::Unasked,
        }
    }
}

/// A user in a report. As of the past, what is not known (any more) is null.
#[derive(Clone, Debug, Serialize)]
pub struct ReportUser {
    /// The connector.
    pub connector: String,
    /// Torq's id.
    pub id: String,
    /// The e-mail as Torq sent it.
    pub email: Option<String>,
    /// Torq's status.
    pub status: Option<String>,
    /// Through SSO (true), or local.
    pub sso: Option<bool>,
    /// The id of the role.
    pub role_id: Option<String>,
    /// The name that the role has now.
    pub role: Option<String>,
    /// When the user was made in Torq, as Torq sent it.
    pub created: Option<String>,
    /// The last login, as Torq sent it; null for never.
    pub last_login: Option<String>,
    /// The last login, or that the user was made, or was first seen: since when nothing was heard of them.
    pub idle_since: Option<String>,
    /// Since when a poll saw the user.
    pub first_seen: Option<Timestamp>,
    /// Where the account stands. As of the past: `created`, `found`, or null for none.
    pub account: Option<AccountStanding>,
    /// The account's id in JumpCloud.
    pub account_id: Option<String>,
    /// The directory user with whom the account is associated.
    pub directory_user_id: Option<String>,
    /// Whether the directory has somebody with the e-mail. As of the past: `associated`, or null.
    pub directory: Option<InDirectory>,
    /// Why the account stands where it does.
    pub reason: Option<String>,
}

impl ReportUser {
    /// Of somebody who is there now.
    pub fn present(user: UserView, directory: &Directory) -> Self {
        Self {
            idle_since: idle_since(
                user.last_login.as_deref(),
                user.created.as_deref(),
                Some(user.first_seen),
            ),
            directory: Some(directory.into()),
            connector: user.connector,
            id: user.id,
            email: Some(user.email),
            status: Some(user.status),
            sso: Some(user.sso),
            role_id: Some(user.role_id),
            role: user.role,
            created: user.created,
            last_login: user.last_login,
            first_seen: Some(user.first_seen),
            account: Some(user.account),
            account_id: user.account_id,
            directory_user_id: user.directory_user_id,
            reason: user.reason,
        }
    }
}

/// Since when nothing was heard of somebody.
pub(crate) fn idle_since(
    last_login: Option<&str>,
    created: Option<&str>,
    first_seen: Option<Timestamp>,
) -> Option<String> {
    let told = last_login.or(created).map(str::to_owned);
    told.or_else(|| first_seen.map(|at| at.to_string()))
}

/// On which side something is that is not on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnlyIn {
    /// An account of nobody who is in Torq.
    Jumpcloud,
    /// Somebody in Torq who has no account.
    Torq,
}

/// Something that is on one side only.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The connector.
    pub connector: String,
    /// On which side it is.
    pub only_in: OnlyIn,
    /// The e-mail; of an account without one, its user name.
    pub email: Option<String>,
    /// Torq's id of a user who is only in Torq.
    pub user_id: Option<String>,
    /// Where the account of a user stands who is only in Torq.
    pub account: Option<AccountStanding>,
    /// The id of an account that is only in JumpCloud.
    pub account_id: Option<String>,
    /// The directory user with whom that account is associated.
    pub directory_user_id: Option<String>,
    /// Who made that account; null where this connector does not know it.
    #[serde(serialize_with = "origin")]
    pub origin: Option<Origin>,
    /// When somebody with its e-mail was removed from Torq; null where nobody was.
    pub removed_at: Option<Timestamp>,
    /// Why, in words.
    pub reason: Option<String>,
}

fn origin<S: serde::Serializer>(origin: &Option<Origin>, serializer: S) -> Result<S::Ok, S::Error> {
    origin.map(Origin::as_str).serialize(serializer)
}

impl Report {
    /// An answer with nothing in it yet.
    pub fn begun(question: &Question) -> Self {
        let changes = question.kind == Kind::Changes;
        Self {
            report: question.kind,
            generated: question.now,
            at: question.at,
            since: question.since.filter(|_| changes),
            until: changes.then(|| question.until.unwrap_or(question.now)),
            days: (question.kind == Kind::Dormant).then_some(question.days),
            connectors: Vec::new(),
            rows: Rows::none(question.kind),
        }
    }

    /// Adds what was found of a connector.
    pub fn add(&mut self, mut part: Part, rows: Rows) {
        part.rows = rows.len() as u64;
        self.connectors.push(part);
        self.rows.extend(rows);
    }

    /// The same for whoever works at the machine: commands can be typed as they stand there.
    #[must_use]
    pub fn addressed(mut self) -> Self {
        self.connectors
            .iter_mut()
            .for_each(|part| part.each_note(Note::address));
        self
    }

    /// The same as it may be handed to others: nothing of it says how the machine is set up.
    #[must_use]
    pub fn printed(mut self) -> Self {
        self.connectors.iter_mut().for_each(|part| part.each_note(Note::print));
        self
    }

    /// The moment that it is about.
    pub fn moment(&self) -> Timestamp {
        self.at.unwrap_or(self.generated)
    }

    /// What it is, in words.
    pub fn title(&self) -> String {
        match self.report {
            Kind::Access => "Who has access to Torq".to_owned(),
            Kind::Unmatched => "Users of Torq who are not in the JumpCloud directory".to_owned(),
            Kind::Dormant => format!(
                "Users of Torq without a login for {}",
                counted(self.days.unwrap_or_default().into(), "day")
            ),
            Kind::PendingInvitations => "Invitations to Torq that were not accepted yet".to_owned(),
            Kind::Drift => "What differs between Torq and its accounts in JumpCloud".to_owned(),
            Kind::Changes => "What changed in Torq and its accounts in JumpCloud".to_owned(),
        }
    }

    /// The time that it is about, in words.
    pub fn span(&self) -> String {
        match (self.since, self.until) {
            (Some(since), Some(until)) => format!("after {}, up to {}", moment(since), moment(until)),
            (None, Some(until)) => format!("up to {}", moment(until)),
            _ => match &self.connectors[..] {
                [part] => self.as_of(part),
                _ => match self.at {
                    Some(at) => format!("as of {}, or of the last complete poll before", moment(at)),
                    None => "as of the last complete poll of each".to_owned(),
                },
            },
        }
    }

    /// As of when that is what it says of a connector, in words.
    fn as_of(&self, part: &Part) -> String {
        match (self.at, part.as_of) {
            (Some(at), Some(as_of)) if as_of >= at => format!("as of {}", moment(at)),
            (_, Some(as_of)) => format!("as of the last complete poll, {}", moment(as_of)),
            (Some(at), None) => format!("as of {}", moment(at)),
            (None, None) => "Torq was not read to its end yet".to_owned(),
        }
    }

    /// What was found of a connector, in one line.
    pub fn found(&self, part: &Part) -> String {
        if let Some(error) = &part.error {
            return error.words().to_owned();
        }
        let of_all = match part.users {
            Some(users) if self.report != Kind::Access => format!(" of {users}"),
            _ => String::new(),
        };
        let rows = match (self.report, part.rows) {
            (Kind::Access, rows) => counted(rows, "user"),
            (Kind::Unmatched, 0) => format!("none{of_all} users is missing in the JumpCloud directory"),
            (Kind::Unmatched, rows) => format!("{rows}{of_all} users are not in the JumpCloud directory"),
            (Kind::Dormant, rows) => format!(
                "{}{of_all} users did not log in for {}",
                none_or(rows),
                counted(self.days.unwrap_or_default().into(), "day")
            ),
            (Kind::PendingInvitations, rows) => format!("{}{of_all} users have not accepted yet", none_or(rows)),
            (Kind::Drift, 0) => "no differences".to_owned(),
            (Kind::Drift, rows) => counted(rows, "difference"),
            (Kind::Changes, 0) => "nothing changed".to_owned(),
            (Kind::Changes, rows) => counted(rows, "change"),
        };
        let when = match self.report {
            Kind::Changes => self.span(),
            Kind::Drift => format!("JumpCloud as it is now, Torq {}", self.as_of(part)),
            _ => self.as_of(part),
        };
        format!("{rows}, {when}")
    }
}

fn none_or(rows: u64) -> String {
    if rows == 0 { "none".to_owned() } else { rows.to_string() }
}
