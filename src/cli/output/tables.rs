//! Tables for people. Whatever came from a peer goes through [`printable`] before it reaches a terminal.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::ops::Range;

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table};
use jiff::Timestamp;

use super::Look;
use crate::invocation::addressed;
use crate::view::{ConnectorState, ConnectorStatus, EventView, EventsReport, StatusReport, UserView, UsersReport};
use crate::wording::{self, Weight, named, printable};

/// The width of the window that standard output goes to; `None` when it goes elsewhere.
pub(super) fn terminal_width() -> Option<u16> {
    // A window that says it has no width, or none that a table could be in, has not said anything.
    Table::new().width().filter(|width| *width >= NARROWEST)
}

/// The narrowest window whose width is kept to.
const NARROWEST: u16 = 40;

/// A first column up to this width is not broken: it holds names and times.
const WHOLE: usize = 32;

/// A table without lines, as wide as allowed. `numbers` are the columns that are aligned to the right.
pub(super) struct Sheet {
    pub(super) table: Table,
    numbers: Range<usize>,
}

impl Sheet {
    pub(super) fn new(look: Look, numbers: Range<usize>, header: impl IntoIterator<Item = &'static str>) -> Self {
        let mut table = Table::new();
        // Width and colour are decided by the look alone.
        table.force_no_tty().load_style(NOTHING);
        if look.colour {
            table.enforce_styling();
        }
        if let Some(width) = look.width {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width);
        }
        table.set_header(header.into_iter().map(|name| {
            let cell = Cell::new(name);
            if look.colour {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        }));
        Self { table, numbers }
    }

    pub(super) fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        let widths = self.table.column_max_content_widths();
        for (number, column) in self.table.column_iter_mut().enumerate() {
            let last = number + 1 == widths.len();
            column.set_padding((0, if last { 0 } else { 2 }));
            if number == 0 && usize::from(widths[0]) <= WHOLE {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
            if self.numbers.contains(&number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(out, "{}", self.table.trim_fmt())
    }
}

fn coloured(state: ConnectorState, look: Look) -> Cell {
    let cell = Cell::new(wording::state(state));
    if !look.colour {
        return cell;
    }
    match wording::weight(state) {
        Weight::Good => cell.fg(Color::Green),
        Weight::Neutral => cell,
        Weight::Warning => cell.fg(Color::Yellow),
        Weight::Bad => cell.fg(Color::Red),
    }
}

fn when(at: Option<Timestamp>, look: Look, never: &str) -> String {
    at.map_or_else(|| never.to_owned(), |at| wording::relative(look.now, at))
}

/// A column for what is left to do, and how much of it a connector has.
type LeftOver = (&'static str, fn(&ConnectorStatus) -> u64);

/// One line for each connector; below, what there is to say about any of them.
pub(super) fn status(out: &mut dyn Write, report: &StatusReport, look: Look) -> io::Result<()> {
    if report.connectors.is_empty() {
        return writeln!(out, "no connectors");
    }
    // What is left to do has a column only where there is something, so that the table of a calm day fits into 80 columns.
    let left: [LeftOver; 4] = [
        ("PENDING", |status| status.pending),
        ("PARKED", |status| status.parked),
        ("HELD", |status| status.held),
        ("FILTERED", |status| status.filtered),
    ];
    let left: Vec<_> = left
        .into_iter()
        .filter(|(_, count)| report.connectors.iter().any(|status| count(status) > 0))
        .collect();
    let header = ["CONNECTOR", "STATE", "USERS", "ACCOUNTS"]
        .into_iter()
        .chain(left.iter().map(|(name, _)| *name))
        .chain(["LAST SUCCESS", "NEXT POLL"]);
    let mut sheet = Sheet::new(look, 2..4 + left.len(), header);
    for status in &report.connectors {
        let mut row = vec![
            Cell::new(printable(&status.name)),
            coloured(status.state, look),
            Cell::new(status.users),
            Cell::new(status.accounts),
        ];
        row.extend(left.iter().map(|(_, count)| Cell::new(count(status))));
        row.push(Cell::new(when(status.last_success, look, "never")));
        row.push(Cell::new(when(status.next_poll, look, "–")));
        sheet.table.add_row(row);
    }
    sheet.write(out)?;
    let mut apart = false;
    for status in &report.connectors {
        let progress = status.progress.as_ref().map(|progress| {
            format!(
                "{} on {} so far, since {}",
                wording::counted(progress.users, "user"),
                wording::counted(progress.pages, "page"),
                wording::moment(progress.started)
            )
        });
        let associations = (status.associations_pending > 0)
            .then(|| wording::counted(status.associations_pending, "association") + " still to be made");
        let leftover = (status.leftover > 0).then(|| {
            let accounts = wording::counted(status.leftover, "account");
            let drift = format!("torq-connector report drift {}", status.name);
            let stay = if status.leftover == 1 { "stays" } else { "stay" };
            format!("{accounts} of users who left {stay}: {}", addressed(&drift))
        });
        let action = status.action.as_ref().map(|action| format!("to do: {action}"));
        let (parked, settled) = match wording::leaves_out_parked(status, status.action.as_deref()) {
            true => {
                let what = match status.deletions_parked == status.parked {
                    true => "not deleted",
                    false => "parked",
                };
                let why = format!("{what}, and why: {}", wording::why_parked(status));
                let then = format!("when that is settled: torq-connector retry {}", status.name);
                (Some(addressed(&why).into_owned()), Some(addressed(&then).into_owned()))
            }
            false => (None, None),
        };
        let said = [
            status.reason.clone(),
            progress,
            associations,
            action,
            parked,
            settled,
            leftover,
        ];
        for (number, words) in said.iter().flatten().enumerate() {
            if !apart {
                writeln!(out)?;
                apart = true;
            }
            if number == 0 {
                writeln!(out, "{}: {}", printable(&status.name), printable(words))?;
            } else {
                writeln!(out, "  {}", printable(words))?;
            }
        }
    }
    Ok(())
}

/// Whether rows must say which connector they belong to.
pub(super) fn several<'a>(connectors: impl Iterator<Item = &'a str>) -> bool {
    connectors.collect::<BTreeSet<_>>().len() > 1
}

/// The connector's column only where it tells something.
pub(super) fn with_connector<T>(several: bool, connector: T, rest: impl IntoIterator<Item = T>) -> Vec<T> {
    several.then_some(connector).into_iter().chain(rest).collect()
}

/// A table of people or of what belongs to them: its header, and its rows with as many cells.
pub(super) struct Rows {
    pub(super) header: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Rows {
    /// Leaves out, one by one, columns without which the answer is one still, until the table fits. Returns their names.
    pub(super) fn fit(&mut self, look: Look, dispensable: &[&'static str]) -> Vec<&'static str> {
        let mut left_out = Vec::new();
        let Some(width) = look.width else { return left_out };
        for name in dispensable {
            if self.width() <= usize::from(width) {
                break;
            }
            if let Some(number) = self.header.iter().position(|header| header == name) {
                self.header.remove(number);
                for row in &mut self.rows {
                    row.remove(number);
                }
                left_out.push(*name);
            }
        }
        left_out
    }

    /// How wide the table would be unbroken.
    fn width(&self) -> usize {
        let widest = |number: usize| {
            let cells = self.rows.iter().map(|row| row[number].chars().count());
            cells.max().unwrap_or_default().max(self.header[number].chars().count())
        };
        (0..self.header.len())
            .map(|number| widest(number) + 2)
            .sum::<usize>()
            .saturating_sub(2)
    }

    /// Writes it, as wide as allowed, and what was left out for that, which it returns. `numbers` is the column that is aligned to the
    /// right.
    pub(super) fn write(
        mut self,
        out: &mut dyn Write,
        look: Look,
        numbers: Option<&'static str>,
        dispensable: &[&'static str],
    ) -> io::Result<Vec<&'static str>> {
        let left_out = self.fit(look, dispensable);
        let right = self.header.iter().position(|name| Some(*name) == numbers);
        let right = right.map_or(0..0, |number| number..number + 1);
        let mut sheet = Sheet::new(look, right, self.header);
        for row in self.rows {
            sheet.table.add_row(row);
        }
        sheet.write(out)?;
        if !left_out.is_empty() {
            let names = left_out.join(", ").to_lowercase();
            writeln!(out, "The window is too narrow for: {names} (--format csv has all)")?;
        }
        Ok(left_out)
    }
}

/// One line for each user.
pub(super) fn users(out: &mut dyn Write, report: &UsersReport, look: Look) -> io::Result<()> {
    if report.users.is_empty() {
        return writeln!(out, "no users");
    }
    let several = several(report.users.iter().map(|user| user.connector.as_str()));
    let header = ["USER", "STATUS", "ROLE", "SSO", "ACCOUNT", "ASSOCIATED", "REASON"];
    let rows = report
        .users
        .iter()
        .map(|user| with_connector(several, printable(&user.connector), user_row(user)));
    let mut rows = Rows {
        header: with_connector(several, "CONNECTOR", header),
        rows: rows.collect(),
    };
    // Where there is nothing to explain, a column for it would only be in the way.
    if look.width.is_some() && report.users.iter().all(|user| user.reason.is_none()) {
        rows.header.pop();
        for row in &mut rows.rows {
            row.pop();
        }
    }
    rows.write(out, look, None, &["SSO", "ROLE"]).map(drop)
}

fn user_row(user: &UserView) -> [String; 7] {
    [
        named(Some(&user.email), Some(&user.id)),
        printable(&user.status),
        printable(user.role.as_deref().unwrap_or(&user.role_id)),
        if user.sso { "yes" } else { "no" }.to_owned(),
        user.account.as_str().to_owned(),
        if user.directory_user_id.is_some() { "yes" } else { "–" }.to_owned(),
        printable(user.reason.as_deref().unwrap_or_default()),
    ]
}

/// One line for each event, oldest first.
pub(super) fn events(out: &mut dyn Write, report: &EventsReport, look: Look) -> io::Result<()> {
    if report.events.is_empty() {
        return writeln!(out, "no events");
    }
    events_of(out, &report.events, look)
}

/// The same of a list that is not empty.
pub(super) fn events_of(out: &mut dyn Write, events: &[EventView], look: Look) -> io::Result<()> {
    let several = several(events.iter().map(|event| event.connector.as_str()));
    let header = ["TIME", "EVENT", "USER", "DETAILS"];
    let mut sheet = Sheet::new(look, 0..0, with_connector(several, "CONNECTOR", header));
    for event in events {
        let row = [
            event.at.map(wording::moment).unwrap_or_default(),
            wording::event(event.kind).to_owned(),
            named(event.email.as_deref(), event.user_id.as_deref()),
            wording::details(event),
        ];
        sheet
            .table
            .add_row(with_connector(several, printable(&event.connector), row));
    }
    sheet.write(out)
}
