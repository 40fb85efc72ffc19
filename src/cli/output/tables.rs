//! Tables for people. Whatever came from a peer goes through [`printable`] before it reaches a terminal.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::ops::Range;

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table};
use jiff::Timestamp;
use serde_json::Value;

use super::Look;
use crate::cli::addressed;
use crate::view::{ConnectorState, ConnectorStatus, EventView, EventsReport, StatusReport, UserView, UsersReport};
use crate::wording::{self, Weight, printable};

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
struct Sheet {
    table: Table,
    numbers: Range<usize>,
}

impl Sheet {
    fn new(look: Look, numbers: Range<usize>, header: impl IntoIterator<Item = &'static str>) -> Self {
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

    fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
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
        let action = status.action.as_ref().map(|action| format!("to do: {action}"));
        // Unless what is to be done is that already.
        let told = status.action.as_ref().is_some_and(|action| action.contains("retry"));
        let parked = (status.parked > 0 && !told)
            .then(|| format!("parked: {}", addressed(&wording::about_parked(&status.name))));
        let said = [status.reason.clone(), progress, associations, action, parked];
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
fn several<'a>(connectors: impl Iterator<Item = &'a str>) -> bool {
    connectors.collect::<BTreeSet<_>>().len() > 1
}

/// The connector's column only where it tells something.
fn with_connector<T>(several: bool, connector: T, rest: impl IntoIterator<Item = T>) -> Vec<T> {
    several.then_some(connector).into_iter().chain(rest).collect()
}

/// One line for each user.
pub(super) fn users(out: &mut dyn Write, report: &UsersReport, look: Look) -> io::Result<()> {
    if report.users.is_empty() {
        return writeln!(out, "no users");
    }
    let several = several(report.users.iter().map(|user| user.connector.as_str()));
    let header = ["USER", "STATUS", "ROLE", "SSO", "ACCOUNT", "DIRECTORY", "REASON"];
    let mut sheet = Sheet::new(look, 0..0, with_connector(several, "CONNECTOR", header));
    for user in &report.users {
        let row = user_row(user);
        sheet
            .table
            .add_row(with_connector(several, printable(&user.connector), row));
    }
    sheet.write(out)
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

/// The e-mail, or the id of someone who has none.
pub(super) fn named(email: Option<&str>, id: Option<&str>) -> String {
    let name = email.filter(|email| !email.is_empty()).or(id);
    name.map_or_else(|| "–".to_owned(), printable)
}

/// One line for each event, oldest first.
pub(super) fn events(out: &mut dyn Write, report: &EventsReport, look: Look) -> io::Result<()> {
    if report.events.is_empty() {
        return writeln!(out, "no events");
    }
    let several = several(report.events.iter().map(|event| event.connector.as_str()));
    let header = ["TIME", "EVENT", "USER", "DETAILS"];
    let mut sheet = Sheet::new(look, 0..0, with_connector(several, "CONNECTOR", header));
    for event in &report.events {
        let row = [
            event.at.map(wording::moment).unwrap_or_default(),
            wording::event(event.kind).to_owned(),
            named(event.email.as_deref(), event.user_id.as_deref()),
            details(event),
        ];
        sheet
            .table
            .add_row(with_connector(several, printable(&event.connector), row));
    }
    sheet.write(out)
}

/// What changed, and why: `status: INVITED → VERIFIED; reason`.
pub(super) fn details(event: &EventView) -> String {
    let field = |side: &Option<Value>, name: &str| {
        side.as_ref()
            .and_then(|side| side.get(name))
            .filter(|value| !value.is_null())
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let names: BTreeSet<&String> = [&event.before, &event.after]
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .flat_map(|side| side.keys())
        .collect();
    let names_role = names.iter().any(|name| *name == "role");
    let changes = names.into_iter().filter_map(|name| {
        let before = field(&event.before, name);
        let after = field(&event.after, name);
        match (before, after) {
            (None, None) => None,
            // People know roles by their names.
            _ if name == "role_id" && names_role => None,
            // The line says already whom it is about.
            (None, after) if name == "email" && after == event.email => None,
            (Some(before), Some(after)) => Some(format!("{name}: {before} → {after}")),
            (Some(before), None) => Some(format!("{name}: was {before}")),
            (None, Some(after)) => Some(format!("{name}: {after}")),
        }
    });
    let words: Vec<String> = changes.chain(event.reason.clone()).collect();
    printable(&words.join("; "))
}
