//! CSV: the fields of the JSON shapes, one line each.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

/// The columns of `status`; a name with a `/` is a field of a nested object, and is written with `_`.
pub(super) const STATUS: [&str; 30] = [
    "name",
    "state",
    "reason",
    "action",
    "last_success",
    "next_poll",
    "users",
    "accounts",
    "associated",
    "pending",
    "parked",
    "held",
    "removed",
    "filtered",
    "associations_pending",
    "deletions_pending",
    "progress/users",
    "progress/pages",
    "progress/started",
    "last_run/started",
    "last_run/finished",
    "last_run/outcome",
    "last_run/appeared",
    "last_run/changed",
    "last_run/disappeared",
    "last_run/created",
    "last_run/found",
    "last_run/associated",
    "last_run/deleted",
    "last_run/refused",
];

/// The columns of `users`.
pub(super) const USERS: [&str; 14] = [
    "connector",
    "id",
    "email",
    "status",
    "sso",
    "role_id",
    "role",
    "created",
    "last_login",
    "first_seen",
    "account",
    "account_id",
    "directory_user_id",
    "reason",
];

/// The columns of `events` and of a dry run's changes.
pub(super) const EVENTS: [&str; 9] = [
    "at",
    "connector",
    "run",
    "kind",
    "user_id",
    "email",
    "before",
    "after",
    "reason",
];

/// The columns of reports about people.
pub(super) const REPORT_USERS: [&str; 16] = [
    "connector",
    "id",
    "email",
    "status",
    "sso",
    "role_id",
    "role",
    "created",
    "last_login",
    "idle_since",
    "first_seen",
    "account",
    "account_id",
    "directory_user_id",
    "directory",
    "reason",
];

/// The columns of `report drift`.
pub(super) const DIFFERENCES: [&str; 10] = [
    "connector",
    "only_in",
    "email",
    "user_id",
    "account",
    "account_id",
    "directory_user_id",
    "origin",
    "removed_at",
    "reason",
];

/// Writes the header line, also when nothing follows it, and a line for each item.
pub(super) fn write<'a, T: Serialize + 'a>(
    out: &mut dyn Write,
    columns: &[&str],
    items: impl IntoIterator<Item = &'a T>,
) -> io::Result<()> {
    let mut lines = csv::Writer::from_writer(out);
    lines
        .write_record(columns.iter().map(|column| column.replace('/', "_")))
        .map_err(as_io)?;
    for item in items {
        let item = serde_json::to_value(item)?;
        lines
            .write_record(columns.iter().map(|column| cell(item.pointer(&format!("/{column}")))))
            .map_err(as_io)?;
    }
    lines.flush()
}

/// The error of the writer itself: csv's own conversion forgets its kind, and with it that a reader went away.
fn as_io(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// Null is an empty cell, an object its compact JSON.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => harmless(text),
        Some(other) => other.to_string(),
    }
}

/// A spreadsheet takes a cell that begins like this for a formula, and people choose their own e-mails and names.
fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}
