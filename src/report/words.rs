//! What the columns of a report are and what their cells say: the same in a table and on paper.

use jiff::Timestamp;

use super::{Difference, InDirectory, Kind, OnlyIn, ReportUser};
use crate::state::Origin;
use crate::wording::{named, printable};

/// How a column may be broken where there is little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaks {
    /// Not at all: dates, single words.
    Never,
    /// Between words.
    Words,
    /// Anywhere: what a peer made as long as it liked.
    Anywhere,
}

/// A column of rows of this sort.
pub struct Column<Row> {
    /// Its name on paper.
    pub name: &'static str,
    /// Its name in a table.
    pub heading: &'static str,
    /// What is in it, in a report as of this moment.
    pub cell: fn(&Row, Timestamp) -> String,
    /// How it may be broken.
    pub breaks: Breaks,
    /// Whether only paper has room for it.
    pub on_paper: bool,
}

impl<Row> Column<Row> {
    const fn new(
        name: &'static str,
        heading: &'static str,
        breaks: Breaks,
        cell: fn(&Row, Timestamp) -> String,
    ) -> Self {
        Self {
            name,
            heading,
            cell,
            breaks,
            on_paper: false,
        }
    }

    const fn on_paper(self) -> Self {
        Self { on_paper: true, ..self }
    }
}

/// Which columns answer a question about people. What all of them have in common needs none.
pub fn columns(kind: Kind) -> Vec<Column<ReportUser>> {
    use Breaks::{Anywhere, Never, Words};
    let user = Column::new("User", "USER", Anywhere, |user: &ReportUser, _| {
        named(user.email.as_deref(), Some(&user.id))
    });
    let sso = Column::new("Sign-in", "SIGN-IN", Never, |user: &ReportUser, _| {
        sign_in(user.sso).to_owned()
    });
    let status = Column::new("Status", "STATUS", Words, |user: &ReportUser, _| {
        or_dash(user.status.as_deref())
    });
    let login = Column::new("Last login", "LAST LOGIN", Never, |user: &ReportUser, _| {
        user.last_login.as_deref().map_or_else(|| "never".to_owned(), day)
    });
    let invited = Column::new("Invited", "INVITED", Never, |user: &ReportUser, _| {
        user.created.as_deref().map_or_else(|| since(user), day)
    });
    let known = Column::new("Directory", "DIRECTORY", Never, |user: &ReportUser, _| {
        directory(user).to_owned()
    });
    let person = Column::new("JumpCloud user", "JUMPCLOUD USER", Anywhere, |user: &ReportUser, _| {
        or_dash(user.directory_user_id.as_deref())
    });
    let created = Column::new("Created", "CREATED", Never, |user: &ReportUser, _| {
        user.created.as_deref().map_or_else(|| "–".to_owned(), day)
    });
    let seen = Column::new("Known since", "KNOWN SINCE", Never, |user: &ReportUser, _| since(user));
    let account = Column::new("Account", "ACCOUNT", Never, |user: &ReportUser, _| {
        user.account.map_or("–", |account| account.as_str()).to_owned()
    });
    let days = Column::new("Days", "DAYS", Never, |user: &ReportUser, at| {
        idle_days(user, at).map_or_else(|| "–".to_owned(), |days| days.to_string())
    });
    let role = Column::new("Role", "ROLE", Words, |user: &ReportUser, _| role(user));
    let mut columns = vec![user, role, sso];
    match kind {
        Kind::PendingInvitations => columns.extend([invited, known, days]),
        Kind::Unmatched => columns.extend([status, login, created, seen, account]),
        Kind::Dormant => columns.extend([status, login, known, person.on_paper(), created, seen, account, days]),
        _ => columns.extend([status, login, known, person.on_paper(), created, seen, account]),
    }
    columns
}

/// What the dates of people mean, by their columns: nobody is to take the day on which this connector first saw somebody for the day
/// on which they got access.
const DATES: [(&str, &str); 2] = [
    ("Created", "when Torq says that the user was made"),
    (
        "Known since",
        "when this connector first saw the user, or again after they had left",
    ),
];

/// What is said of those of these columns that need it.
pub fn footnotes(columns: &[Column<ReportUser>], left_out: &[&str]) -> Vec<String> {
    let shown = columns.iter().filter(|column| !left_out.contains(&column.heading));
    shown
        .filter_map(|column| DATES.iter().find(|(name, _)| *name == column.name))
        .map(|(name, means)| format!("{name}: {means}."))
        .collect()
}

/// The columns of what is on one side only.
pub fn differences() -> Vec<Column<Difference>> {
    use Breaks::{Anywhere, Never, Words};
    vec![
        Column::new("Only in", "ONLY IN", Never, |row: &Difference, _| {
            only_in(row.only_in).to_owned()
        }),
        Column::new("E-mail", "E-MAIL", Anywhere, |row: &Difference, _| {
            named(row.email.as_deref(), row.user_id.as_deref())
        }),
        Column::new("Account", "ACCOUNT", Anywhere, |row: &Difference, _| {
            let standing = row.account.map(|account| account.as_str());
            or_dash(standing.or(row.account_id.as_deref()))
        }),
        Column::new("JumpCloud user", "JUMPCLOUD USER", Anywhere, |row: &Difference, _| {
            or_dash(row.directory_user_id.as_deref())
        })
        .on_paper(),
        Column::new("Made by", "MADE BY", Words, |row: &Difference, _| {
            made_by(row).to_owned()
        }),
        Column::new("Why", "WHY", Words, |row: &Difference, _| {
            printable(row.reason.as_deref().unwrap_or_default())
        }),
    ]
}

fn or_dash(text: Option<&str>) -> String {
    printable(text.unwrap_or("–"))
}

fn since(user: &ReportUser) -> String {
    user.first_seen
        .map_or_else(|| "–".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

/// The role's name, or its id where that is not known.
pub fn role(user: &ReportUser) -> String {
    let name = user.role.as_deref().or(user.role_id.as_deref());
    printable(name.unwrap_or_default())
}

/// The day of a time that a peer sent; what cannot be read, as it is.
fn day(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%d").to_string(),
        Err(_) => printable(text),
    }
}

/// For how many whole days nothing was heard of somebody.
fn idle_days(user: &ReportUser, at: Timestamp) -> Option<i64> {
    let since: Timestamp = user.idle_since.as_deref()?.parse().ok()?;
    Some(at.duration_since(since).as_hours() / 24)
}

/// Whether the directory knows somebody, in words.
fn directory(user: &ReportUser) -> &'static str {
    match user.directory {
        Some(InDirectory::Associated) => "yes",
        Some(InDirectory::Known) => "yes, not associated",
        Some(InDirectory::Absent) => "no",
        Some(InDirectory::Unasked) => "not asked yet",
        None => "–",
    }
}

/// How somebody signs in to Torq.
fn sign_in(sso: Option<bool>) -> &'static str {
    match sso {
        Some(true) => "SSO",
        Some(false) => "local",
        None => "–",
    }
}

/// The side that has it, in words.
fn only_in(side: OnlyIn) -> &'static str {
    match side {
        OnlyIn::Jumpcloud => "JumpCloud",
        OnlyIn::Torq => "Torq",
    }
}

/// Who made an account, in words.
fn made_by(row: &Difference) -> &'static str {
    match (row.only_in, row.origin) {
        (OnlyIn::Torq, _) => "–",
        (_, Some(Origin::Created)) => "this connector",
        (_, Some(Origin::Found)) => "somebody else",
        (_, None) => "not known",
    }
}
