//! What the commands answer with, as a table for people, as JSON or as CSV for programs.
//!
//! JSON is the shape of [`crate::view`] as it is, the same that the web API tells. CSV has the same fields, flattened. Tables
//! may change with any version.

mod preview;
mod reports;
mod rows;
mod tables;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use super::check::{CheckReport, Finding};
use crate::report::{Report, Rows};
use crate::view::{DryRunReport, EventsReport, StatusReport, UsersReport};

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON object.
    Json,
    /// One header line, then one line for each connector, user, event or change.
    Csv,
}

/// How an answer is to look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// As what it is written.
    pub format: Format,
    /// Whether tables are coloured.
    pub colour: bool,
    /// Whether it goes to a terminal, which foreign text must not steer.
    pub terminal: bool,
    /// How many columns a table may take; `None`: as many as it needs.
    pub width: Option<u16>,
    /// What "3 min ago" counts from.
    pub now: Timestamp,
}

impl Look {
    /// As fits a file: no colours, and tables as wide as they need.
    pub fn of_file(format: Format) -> Self {
        Self {
            format,
            colour: false,
            terminal: false,
            width: None,
            now: Timestamp::now(),
        }
    }

    /// As fits standard output: colours and the window's width on a terminal, neither elsewhere.
    pub fn of_stdout(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            format,
            colour: terminal && !dumb && unset("NO_COLOR"),
            terminal,
            width: tables::terminal_width(),
            now: Timestamp::now(),
        }
    }
}

/// Writes what `status` tells.
pub fn status(out: &mut dyn Write, report: &StatusReport, look: Look) -> io::Result<()> {
    match look.format {
        Format::Table => tables::status(out, report, look),
        Format::Json => json(out, report),
        Format::Csv => rows::write(out, look, &rows::STATUS, &report.connectors),
    }
}

/// Writes what `users` tells.
pub fn users(out: &mut dyn Write, report: &UsersReport, look: Look) -> io::Result<()> {
    match look.format {
        Format::Table => tables::users(out, report, look),
        Format::Json => json(out, report),
        Format::Csv => rows::write(out, look, &rows::USERS, &report.users),
    }
}

/// Writes what `events` tells.
pub fn events(out: &mut dyn Write, report: &EventsReport, look: Look) -> io::Result<()> {
    match look.format {
        Format::Table => tables::events(out, report, look),
        Format::Json => json(out, report),
        Format::Csv => rows::write(out, look, &rows::EVENTS, &report.events),
    }
}

/// Writes what `check` tells, as a whole or a part of it.
pub(super) fn checks(out: &mut dyn Write, report: &CheckReport, look: Look) -> io::Result<()> {
    match look.format {
        Format::Table => {
            let mut lines = report.checks.iter().flat_map(Finding::lines);
            lines.try_for_each(|line| writeln!(out, "{line}"))
        }
        Format::Json => json(out, report),
        Format::Csv => rows::write(out, look, &rows::CHECKS, &report.checks),
    }
}

/// Writes a report. As CSV: its rows.
pub fn report(out: &mut dyn Write, report: &Report, look: Look) -> io::Result<()> {
    match (look.format, &report.rows) {
        (Format::Table, _) => reports::write(out, report, look),
        (Format::Json, _) => json(out, report),
        (Format::Csv, Rows::Users(users)) => rows::write(out, look, &rows::REPORT_USERS, users),
        (Format::Csv, Rows::Differences(differences)) => rows::write(out, look, &rows::DIFFERENCES, differences),
        (Format::Csv, Rows::Changes(changes)) => rows::write(out, look, &rows::EVENTS, changes),
    }
}

/// Writes what `sync --dry-run` tells. As CSV: the changes of all connectors, without counts, guard and notes.
pub fn dry_run(out: &mut dyn Write, report: &DryRunReport, look: Look) -> io::Result<()> {
    match look.format {
        Format::Table => preview::write(out, report),
        Format::Json => json(out, report),
        Format::Csv => {
            let changes = report.connectors.iter().flat_map(|run| &run.changes);
            rows::write(out, look, &rows::EVENTS, changes)
        }
    }
}

/// Writes any of the shapes as JSON, with an end of line. What could steer a terminal is escaped, which means the same.
pub fn json(out: &mut dyn Write, report: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(rows::Escaping(&mut *out), report)?;
    writeln!(out)
}
