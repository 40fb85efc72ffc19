//! A report on paper: one HTML file with everything in it, no script, nothing from elsewhere, and a line to sign.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::words::{self, Breaks, Column, role};
use super::{Kind, Part, Report, ReportUser, Rows};
use crate::view::EventView;
use crate::wording::{self, moment, printable};

const STYLE: &str = "
:root { color: #1b1f24; background: #fff; font: 14px/1.4 system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; }
body { margin: 2em auto; max-width: 75em; padding: 0 1.5em; overflow-wrap: break-word; }
h1 { font-size: 1.6em; margin: 0 0 .2em; }
h2 { font-size: 1.2em; margin: 2em 0 .4em; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15em 1.2em; margin: 1em 0; }
dt { color: #57606a; } dd { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: .9em; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3em .8em .3em 0; border-bottom: 1px solid #d0d7de; }
th:last-child, td:last-child { padding-right: 0; }
/* Whatever came from a peer may be broken anywhere, but not into columns of a few letters. */
td.words, td.long { overflow-wrap: anywhere; min-width: 9.5em; }
td.long { min-width: 15.5em; }
td.fixed, thead th { white-space: nowrap; }
thead th { border-bottom: 2px solid #57606a; }
tr { break-inside: avoid; }
thead { display: table-header-group; }
h2, .note, .error { break-after: avoid; }
.faint { color: #57606a; } .note { margin: .3em 0; } .error { font-weight: 600; }
.signature { display: grid; grid-template-columns: 2fr 2fr 1fr; gap: 2em; margin-top: 4em; break-inside: avoid; }
.signature div { border-top: 1px solid #1b1f24; padding-top: .3em; }
@page { size: A4 landscape; margin: 15mm; @bottom-right { content: counter(page) ' / ' counter(pages); } }
@media screen { section.connector { overflow-x: auto; } }
@media print { body { margin: 0; max-width: none; padding: 0; font-size: 9pt; } section.connector + section.connector { break-before: page; } }
";

/// The whole file.
pub fn page(report: &Report) -> String {
    let report = &report.clone().printed();
    let several = report.connectors.len() > 1;
    let names: Vec<&str> = report.connectors.iter().map(|part| part.name.as_str()).collect();
    let title = format!("{} – {}", report.title(), names.join(", "));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content={ "torq-connector " (env!("CARGO_PKG_VERSION")) };
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (report.title()) }
                    dl {
                        dt { @if several { "Connectors" } @else { "Connector" } } dd { (names.join(", ")) }
                        dt { "Time" } dd { (report.span()) }
                        dt { "Generated" } dd { (moment(report.generated)) " by torq-connector " (env!("CARGO_PKG_VERSION")) }
                        dt { (rows_word(report.report)) } dd { (report.rows.len()) }
                    }
                }
                @for part in &report.connectors { (connector(report, part)) }
                section class="signature" aria-label="Review" {
                    div { "Reviewed by" } div { "Signature" } div { "Date" }
                }
            }
        }
    }
    .into_string()
}

fn rows_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Drift => "Differences",
        Kind::Changes => "Changes",
        _ => "Users listed",
    }
}

fn connector(report: &Report, part: &Part) -> Markup {
    let own = |name: &str| name == part.name;
    html! {
        section class="connector" {
            h2 { (part.name) }
            p class={ @if part.error.is_some() { "error" } } { (printable(&report.found(part))) }
            @for note in &part.notes { p class="note faint" { "Note: " (printable(note.words())) } }
            @if part.rows > 0 {
                table {
                    @match &report.rows {
                        Rows::Users(rows) => (table(&words::columns(report.report), rows.iter().filter(|row| own(&row.connector)), report.moment())),
                        Rows::Differences(rows) => (table(&words::differences(), rows.iter().filter(|row| own(&row.connector)), report.moment())),
                        Rows::Changes(rows) => (changes(rows.iter().filter(|row| own(&row.connector)))),
                    }
                }
            }
            @if part.rows > 0 && let Rows::Users(_) = &report.rows {
                @for footnote in words::footnotes(&words::columns(report.report), &[]) { p class="note faint" { (footnote) } }
            }
            @if part.rows > 0 && let Rows::Users(rows) = &report.rows { (counts(rows.iter().filter(|row| own(&row.connector)))) }
        }
    }
}

/// How many of each role and status: what a reviewer looks at first.
fn counts<'a>(rows: impl Iterator<Item = &'a ReportUser>) -> Markup {
    let mut roles = BTreeMap::<String, u64>::new();
    let mut statuses = BTreeMap::<String, u64>::new();
    for row in rows {
        *roles.entry(role(row)).or_default() += 1;
        *statuses.entry(row.status.clone().unwrap_or_default()).or_default() += 1;
    }
    let told = |counts: BTreeMap<String, u64>| {
        let told: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("{} {count}", if name.is_empty() { "–" } else { name }))
            .collect();
        printable(&told.join(", "))
    };
    html! {
        dl {
            dt { "By role" } dd { (told(roles)) }
            dt { "By status" } dd { (told(statuses)) }
        }
    }
}

/// A table with these columns.
fn table<'a, Row: 'a>(columns: &[Column<Row>], rows: impl Iterator<Item = &'a Row>, at: Timestamp) -> Markup {
    html! {
        thead { tr { @for column in columns { th class=(class(column.breaks)) { (column.name) } } } }
        tbody {
            @for row in rows {
                tr { @for column in columns { td class=(class(column.breaks)) { (breakable(&(column.cell)(row, at))) } } }
            }
        }
    }
}

fn class(breaks: Breaks) -> &'static str {
    match breaks {
        Breaks::Never => "fixed",
        Breaks::Words => "words",
        Breaks::Anywhere => "long",
    }
}

/// Text that may be broken before the host of an e-mail: whatever must be broken somewhere is read best so.
fn breakable(text: &str) -> Markup {
    html! {
        @match text.split_once('@') {
            Some((before, after)) => { (before) wbr; "@" (after) },
            None => (text),
        }
    }
}

fn changes<'a>(rows: impl Iterator<Item = &'a EventView>) -> Markup {
    html! {
        thead { tr { th class="fixed" { "Time" } th class="fixed" { "What" } th class="long" { "Who" } th class="words" { "Details" } } }
        tbody {
            @for row in rows {
                tr {
                    td class="fixed" { (row.at.map(moment).unwrap_or_default()) }
                    td class="fixed" { (wording::event(row.kind)) }
                    td class="long" { (breakable(&wording::named(row.email.as_deref(), row.user_id.as_deref()))) }
                    td class="words" { (wording::details(row)) }
                }
            }
        }
    }
}
