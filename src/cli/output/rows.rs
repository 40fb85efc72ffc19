//! CSV: the fields of the JSON shapes, one line each.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::Look;
use crate::model::steers;
use crate::wording::printable_lines;

/// The columns of `status`; a name with a `/` is a field of a nested object, and is written with `_`.
pub(super) const STATUS: [&str; 33] = [
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
    // Last, for whoever counts columns.
    "leftover",
    "deletions_parked",
    "accounts_held",
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

/// The columns of `check`.
pub(super) const CHECKS: [&str; 5] = ["connector", "check", "verdict", "reason", "action"];

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
    look: Look,
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
            .write_record(
                columns
                    .iter()
                    .map(|column| cell(item.pointer(&format!("/{column}")), look)),
            )
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
fn cell(value: Option<&Value>, look: Look) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => harmless(text, look),
        Some(other) => escaped(&other.to_string()),
    }
}

/// A text that no spreadsheet takes for a formula, and no terminal for a command: people choose their own e-mails and names. CSV
/// knows no escapes, so that a file has such a text as it is.
fn harmless(text: &str, look: Look) -> String {
    let text = match look.terminal {
        true => printable_lines(text),
        false => Cow::Borrowed(text),
    };
    if is_formula(&text) {
        format!("'{text}")
    } else {
        text.into_owned()
    }
}

/// Whether a spreadsheet could take a cell for a formula: by how it begins, as it is or without the white space in front, which some
/// take away; in any of the widths that the signs have.
fn is_formula(text: &str) -> bool {
    let unseen = |c: char| {
        c.is_whitespace()
            || steers(c)
            || matches!(
                c,
                '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{fffd}'
            )
    };
    let sign = |c: char| {
        matches!(
            c,
            '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠' | '﹦' | '﹢' | '﹣' | '﹫' | '−'
        )
    };
    text.starts_with(['\t', '\r', '\n']) || text.trim_start_matches(unseen).starts_with(sign)
}

/// JSON in which what could steer a terminal is escaped. That of ASCII is already, but for one; and it can be in texts only.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match u32::from(c) {
            code if code >= 0x7f && steers(c) => out += &format!("\\u{code:04x}"),
            _ => out.push(c),
        }
    }
    out
}

/// Writes such JSON.
pub(super) struct Escaping<W>(pub(super) W);

impl<W: Write> Write for Escaping<W> {
    /// Texts come in pieces of whole characters.
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(piece) {
            Ok(text) if !text.is_ascii() || text.contains('\u{7f}') => self.0.write_all(escaped(text).as_bytes())?,
            _ => self.0.write_all(piece)?,
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
