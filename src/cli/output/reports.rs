//! Reports as tables.

use std::io::{self, Write};

use super::Look;
use super::tables::{Sheet, events_of, several, with_connector};
use crate::report::words::{self, Column};
use crate::report::{Difference, Report, ReportUser, Rows};
use crate::wording::printable;

pub(super) fn write(out: &mut dyn Write, report: &Report, look: Look) -> io::Result<()> {
    match &report.rows {
        rows if rows.is_empty() => writeln!(out, "{}: none", report.title()),
        Rows::Users(users) => people(out, report, users, look),
        Rows::Differences(rows) => differences(out, report, rows, look),
        Rows::Changes(changes) => events_of(out, changes, look),
    }
}

fn people(out: &mut dyn Write, report: &Report, users: &[ReportUser], look: Look) -> io::Result<()> {
    let several = several(users.iter().map(|user| user.connector.as_str()));
    let columns: Vec<_> = in_tables(words::columns(report.report)).collect();
    let rows = users.iter().map(|user| {
        let cells = columns.iter().map(|column| (column.cell)(user, report.moment()));
        with_connector(several, printable(&user.connector), cells)
    });
    let rows = super::tables::Rows {
        header: with_connector(several, "CONNECTOR", columns.iter().map(|column| column.heading)),
        rows: rows.collect(),
    };
    let dispensable = ["ACCOUNT", "KNOWN SINCE", "CREATED", "SIGN-IN", "DIRECTORY"];
    let left_out = rows.write(out, look, Some("DAYS"), &dispensable)?;
    for footnote in words::footnotes(&columns, &left_out) {
        writeln!(out, "{footnote}")?;
    }
    Ok(())
}

fn differences(out: &mut dyn Write, report: &Report, rows: &[Difference], look: Look) -> io::Result<()> {
    let several = several(rows.iter().map(|row| row.connector.as_str()));
    let columns: Vec<_> = in_tables(words::differences()).collect();
    let header = with_connector(several, "CONNECTOR", columns.iter().map(|column| column.heading));
    let mut sheet = Sheet::new(look, 0..0, header);
    for row in rows {
        let cells = columns.iter().map(|column| (column.cell)(row, report.moment()));
        sheet
            .table
            .add_row(with_connector(several, printable(&row.connector), cells));
    }
    sheet.write(out)
}

fn in_tables<Row>(columns: Vec<Column<Row>>) -> impl Iterator<Item = Column<Row>> {
    columns.into_iter().filter(|column| !column.on_paper)
}
