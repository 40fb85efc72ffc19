//! What the cells of a report say: the same words in a table and on paper.

use jiff::Timestamp;

use super::{Difference, InDirectory, OnlyIn, ReportUser};
use crate::state::Origin;
use crate::wording::printable;

/// The role's name, or its id where that is not known.
pub fn role(user: &ReportUser) -> String {
    let name = user.role.as_deref().or(user.role_id.as_deref());
    printable(name.unwrap_or_default())
}

/// The day of a time that a peer sent; what cannot be read, as it is.
pub fn day(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%d").to_string(),
        Err(_) => printable(text),
    }
}

/// For how many whole days nothing was heard of somebody.
pub fn idle_days(user: &ReportUser, at: Timestamp) -> Option<i64> {
    let since: Timestamp = user.idle_since.as_deref()?.parse().ok()?;
    Some(at.duration_since(since).as_hours() / 24)
}

/// Whether the directory knows somebody, in words.
pub fn directory(user: &ReportUser) -> &'static str {
    match user.directory {
        Some(InDirectory::Associated) => "yes",
        Some(InDirectory::Known) => "yes, not associated",
        Some(InDirectory::Absent) => "no",
        Some(InDirectory::Unasked) => "not asked yet",
        None => "–",
    }
}

/// How somebody signs in to Torq.
pub fn sign_in(sso: Option<bool>) -> &'static str {
    match sso {
        Some(true) => "SSO",
        Some(false) => "local",
        None => "–",
    }
}

/// The side that has it, in words.
pub fn only_in(side: OnlyIn) -> &'static str {
    match side {
        OnlyIn::Jumpcloud => "JumpCloud",
        OnlyIn::Torq => "Torq",
    }
}

/// Who made an account, in words.
pub fn made_by(row: &Difference) -> &'static str {
    match (row.only_in, row.origin) {
        (OnlyIn::Torq, _) => "–",
        (_, Some(Origin::Created)) => "this connector",
        (_, Some(Origin::Found)) => "somebody else",
        (_, None) => "not known",
    }
}
