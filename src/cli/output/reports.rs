//! Reports as tables.

use std::io::{self, Write};

use super::Look;
use super::tables::{Sheet, events_of, named, several, with_connector};
use crate::report::words::{day, directory, idle_days, made_by, only_in, role, sign_in};
use crate::report::{Difference, Kind, Report, ReportUser, Rows};
use crate::wording::printable;

pub(super) fn write(out: &mut dyn Write, report: &Report, look: Look) -> io::Result<()> {
    match &report.rows {
        rows if rows.is_empty() => writeln!(out, "{}: none", report.title()),
        Rows::Users(users) => people(out, report, users, look),
        Rows::Differences(rows) => differences(out, rows, look),
        Rows::Changes(changes) => events_of(out, changes, look),
    }
}

/// A column of a table of people.
type Column = (&'static str, fn(&ReportUser) -> String);

fn since(user: &ReportUser) -> String {
    user.first_seen
        .map_or_else(|| "–".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

fn login(user: &ReportUser) -> String {
    user.last_login.as_deref().map_or_else(|| "never".to_owned(), day)
}

fn invited(user: &ReportUser) -> String {
    user.created.as_deref().map_or_else(|| since(user), day)
}

fn account(user: &ReportUser) -> String {
    user.account.map_or("–", |account| account.as_str()).to_owned()
}

/// Which columns answer the question. What all of them have in common needs none.
fn columns(report: &Report) -> Vec<Column> {
    let user: Column = ("USER", |user| named(user.email.as_deref(), Some(&user.id)));
    let status: Column = ("STATUS", |user| printable(user.status.as_deref().unwrap_or("–")));
    let sso: Column = ("SIGN-IN", |user| sign_in(user.sso).to_owned());
    let known: Column = ("DIRECTORY", |user| directory(user).to_owned());
    let mut columns: Vec<Column> = vec![user, ("ROLE", role), sso];
    match report.report {
        Kind::PendingInvitations => columns.extend([("INVITED", invited as fn(&ReportUser) -> String), known]),
        Kind::Unmatched => columns.extend([status, ("LAST LOGIN", login), ("SINCE", since), ("ACCOUNT", account)]),
        _ => columns.extend([
            status,
            ("LAST LOGIN", login),
            known,
            ("SINCE", since),
            ("ACCOUNT", account),
        ]),
    }
    columns
}

fn people(out: &mut dyn Write, report: &Report, users: &[ReportUser], look: Look) -> io::Result<()> {
    let at = report.at.unwrap_or(report.generated);
    let waiting = matches!(report.report, Kind::Dormant | Kind::PendingInvitations);
    let several = several(users.iter().map(|user| user.connector.as_str()));
    let columns = columns(report);
    let header = columns.iter().map(|(name, _)| *name).chain(waiting.then_some("DAYS"));
    let days = |user| idle_days(user, at).map_or_else(|| "–".to_owned(), |days| days.to_string());
    let rows = users.iter().map(|user| {
        let cells = columns.iter().map(|(_, cell)| cell(user));
        let cells = cells.chain(waiting.then(|| days(user)));
        with_connector(several, printable(&user.connector), cells)
    });
    let rows = super::tables::Rows {
        header: with_connector(several, "CONNECTOR", header),
        rows: rows.collect(),
    };
    rows.write(out, look, Some("DAYS"), &["ACCOUNT", "SINCE", "SIGN-IN", "DIRECTORY"])
}

fn differences(out: &mut dyn Write, rows: &[Difference], look: Look) -> io::Result<()> {
    let several = several(rows.iter().map(|row| row.connector.as_str()));
    let header = with_connector(several, "CONNECTOR", ["ONLY IN", "E-MAIL", "ACCOUNT", "MADE BY", "WHY"]);
    let mut sheet = Sheet::new(look, 0..0, header);
    for row in rows {
        let account = row.account.map(|account| account.as_str());
        let cells = [
            only_in(row.only_in).to_owned(),
            named(row.email.as_deref(), row.user_id.as_deref()),
            printable(account.or(row.account_id.as_deref()).unwrap_or("–")),
            made_by(row).to_owned(),
            printable(row.reason.as_deref().unwrap_or_default()),
        ];
        sheet
            .table
            .add_row(with_connector(several, printable(&row.connector), cells));
    }
    sheet.write(out)
}
