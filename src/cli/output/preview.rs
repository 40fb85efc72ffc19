//! What a run would do, for people to read before they let it.

use std::io::{self, Write};

use crate::cli::sync::counts_words;
use crate::invocation::addressed;
use crate::view::{DryRun, DryRunReport, EventKind, EventView};
use crate::wording::{counted, details, named, printable};

/// Of each kind of change, so many are listed. A first synchronisation creates thousands of accounts.
const LISTED: usize = 100;

/// Writes the changes of each connector, by kind.
pub(super) fn write(out: &mut dyn Write, report: &DryRunReport) -> io::Result<()> {
    // Why something cannot be said was told where errors are told.
    let told = report.connectors.iter().filter(|run| run.error.is_none());
    for (number, run) in told.enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        connector(out, run)?;
    }
    Ok(())
}

fn connector(out: &mut dyn Write, run: &DryRun) -> io::Result<()> {
    let name = printable(&run.name);
    if run.changes.is_empty() {
        writeln!(out, "{name}: nothing would change")?;
    } else {
        writeln!(out, "{name}: a run would make changes{}", summary(run))?;
    }
    for (kind, changes) in by_kind(&run.changes) {
        writeln!(out, "\n  {}:", heading(kind, changes.len()))?;
        for change in changes.iter().take(LISTED) {
            let who = named(change.email.as_deref(), change.user_id.as_deref());
            match details(change) {
                more if more.is_empty() => writeln!(out, "    {who}")?,
                more => writeln!(out, "    {who} ({more})")?,
            }
        }
        if let Some(more) = changes.len().checked_sub(LISTED).filter(|more| *more > 0) {
            writeln!(out, "    … and {more} more; --format json or csv lists all of them")?;
        }
    }
    let left = left_over(run);
    if left.is_some() || run.guard.candidates > 0 || run.guard.held || !run.notes.is_empty() {
        writeln!(out)?;
    }
    if let Some(left) = left {
        writeln!(out, "  afterwards: {left}")?;
    }
    if let Some(guard) = guard(run) {
        writeln!(out, "  removal guard: {guard}")?;
    }
    for note in &run.notes {
        writeln!(out, "  note: {}", printable(note))?;
    }
    Ok(())
}

/// The same in the words in which `sync` will tell what it did.
fn summary(run: &DryRun) -> String {
    match counts_words(&run.counts.run) {
        Some(words) => format!(": {words}"),
        None => String::new(),
    }
}

/// The changes by their kind, in the order in which the first of each would happen.
fn by_kind(changes: &[EventView]) -> Vec<(EventKind, Vec<&EventView>)> {
    let mut groups: Vec<(EventKind, Vec<&EventView>)> = Vec::new();
    for change in changes {
        match groups.iter_mut().find(|(kind, _)| *kind == change.kind) {
            Some((_, group)) => group.push(change),
            None => groups.push((change.kind, vec![change])),
        }
    }
    groups
}

fn heading(kind: EventKind, number: usize) -> String {
    let of = |noun| counted(number as u64, noun);
    match kind {
        EventKind::UserAppeared => of("new user") + " in Torq",
        EventKind::UserChanged => of("changed user") + " in Torq",
        EventKind::UserDisappeared => of("user") + " gone from Torq, to be recorded as removed",
        EventKind::AccountCreated => of("account") + " to create",
        EventKind::AccountFound => of("account") + " found in JumpCloud, to adopt",
        EventKind::AccountAssociated => of("account") + " to associate with a directory user",
        EventKind::AccountDeleted => of("account") + " to delete",
        EventKind::AccountLost => of("account") + " gone from JumpCloud",
        EventKind::AccountRefused => of("user") + " to park",
        EventKind::RemovalHeld => of("removal") + " to hold until approved",
        EventKind::RemovalApproved => of("approved removal"),
        EventKind::RemovalDropped => of("held removal") + " to drop: the user is back",
        EventKind::StateChanged => of("change") + " of state",
        EventKind::RecordUnreadable => of("record") + " that cannot be read",
    }
}

fn left_over(run: &DryRun) -> Option<String> {
    let left: Vec<String> = [
        (run.counts.pending, "pending"),
        (run.counts.parked, "parked"),
        (run.counts.held, "held"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{number} {what}"))
    .collect();
    (!left.is_empty()).then(|| left.join(", "))
}

fn guard(run: &DryRun) -> Option<String> {
    let guard = &run.guard;
    if guard.candidates == 0 && !guard.held {
        return None;
    }
    let waiting = match guard.held_already {
        0 => String::new(),
        waiting => format!("{waiting} held already, "),
    };
    let mut words = format!(
        "{} to come, {waiting}{} in the last 24 hours, up to {} believed",
        counted(guard.candidates, "removal"),
        guard.removals_24h,
        guard.limit
    );
    if guard.held {
        words += &format!(
            "; they would be held until the users are back or: {}",
            addressed(&format!("torq-connector approve {}", printable(&run.name)))
        );
    }
    Some(words)
}
