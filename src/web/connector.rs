//! `/connectors/NAME`: one connector. How it is, what to do, who it knows, how that came about, and the settings that matter.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::address::{self, Query};
use super::frame::{NoPage, Page, Renewal};
use super::parts::{self, counted, foreign, number, said, when};
use super::settings::Settings;
use super::todo::{self, Todo};
use super::{BoardError, Seat, Site, chart, story};
use crate::config::{MaxRemovals, Removals};
use crate::state::{Course, EventPageQuery, Survey};
use crate::view::{ConnectorState, ConnectorStatus, EventView, RunCounts, RunOutcome, RunView};
use crate::wording;

/// Runs that are shown.
const RUNS: u32 = 8;
/// Events that are shown.
const LATEST: u32 = 10;

/// The connector that an address names.
pub(super) fn seat_of(site: &Site, path: Result<Path<String>, PathRejection>) -> Result<Seat, NoPage> {
    match path {
        Ok(Path(name)) => Ok(site.board.seated(&name)?),
        Err(_) => Err(NoPage::NotFound("The address names no connector.".to_owned())),
    }
}

/// What the state knows for this page.
struct Known {
    course: Course,
    survey: Survey,
    runs: Vec<RunView>,
    latest: Vec<EventView>,
    roles: story::Roles,
}

/// `GET /connectors/NAME`
pub(super) async fn show(
    State(site): State<Site>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Markup, NoPage> {
    let now = Timestamp::now();
    let seat = seat_of(&site, path)?;
    let status = seat.status().await?;
    let known = known(&seat, now).await?;
    Ok(page(&status, &seat.settings, &known, now).framed())
}

async fn known(seat: &Seat, now: Timestamp) -> Result<Known, BoardError> {
    let latest = EventPageQuery {
        limit: LATEST,
        ..EventPageQuery::default()
    };
    let known = seat
        .state()?
        .call(move |store| {
            Ok(Known {
                course: store.course(now)?,
                survey: store.survey()?,
                runs: store.last_runs(RUNS)?,
                latest: store.event_page(&latest)?.events,
                roles: store.roles()?,
            })
        })
        .await?;
    Ok(known)
}

fn page(status: &ConnectorStatus, settings: &Settings, known: &Known, now: Timestamp) -> Page {
    let name = &status.name;
    let todos = todo::of(status, settings, now);
    Page {
        title: format!("{name} – torq-connector"),
        way: Vec::new(),
        json: Some(Query::default().with("connector", Some(name)).at("/api/status")),
        renewal: Renewal::Always,
        main: html! {
            div id="now" data-living {
                h1 { (name) " " (parts::badge(status.state)) }
                (parts::sections(name, "Overview"))
                p class="lead" { (sentence(status, now)) }
                @if let Some(reason) = status.reason.as_deref().filter(|_| todos.is_empty()) {
                    p { (said(reason)) @if let Some(action) = &status.action { " – " (said(action)) } }
                }
                (progress(status, now))
                (todo_part(&todos))
                h2 { "People" }
                (figures(status, &known.survey))
                h2 { "Users over time" }
                (chart::drawn(&known.course))
                h2 { "Last runs" }
                (runs(&known.runs, now))
                h2 { "Latest events" }
                (events(name, known, now))
                h2 { "Settings" }
                (settings_part(settings, now))
            }
        },
    }
}

/// The state in one sentence.
fn sentence(status: &ConnectorStatus, now: Timestamp) -> String {
    let last = match status.last_success {
        Some(at) => format!("the last success was {}", wording::relative(now, at)),
        None => "there was no success yet".to_owned(),
    };
    let next = match status.next_poll {
        Some(at) => format!("the next poll is {}", parts::coming(at, now)),
        None => "no poll is scheduled".to_owned(),
    };
    match status.state {
        ConnectorState::Starting if status.last_success.is_some() => format!("No run has begun yet; {last}."),
        ConnectorState::Starting => "Starting: nothing is known yet.".to_owned(),
        ConnectorState::Collecting => {
            "The first collection is under way. It survives restarts and needs nobody to watch it.".to_owned()
        }
        ConnectorState::Connected => format!("It works: {last}, {next}."),
        ConnectorState::Syncing => format!("It works: a run is going on; {last}."),
        ConnectorState::Retrying => {
            format!("A peer does not answer as it should, and is asked again by itself; {last}.")
        }
        ConnectorState::ReconnectRequired => format!("Stopped until it is reconnected; {last}. What is known stays."),
        ConnectorState::NotLicensed => format!("Torq is read, JumpCloud takes nothing; {last}, {next}."),
        ConnectorState::ReportOnly => {
            format!("Torq is read and everything is shown, but JumpCloud takes no accounts; {last}, {next}.")
        }
        ConnectorState::Held if status.held == 0 => {
            format!("Approved removals wait for the next run, everything else goes on; {last}, {next}.")
        }
        ConnectorState::Held => format!("Removals wait for a decision, everything else goes on; {last}, {next}."),
        ConnectorState::Paused => format!("Paused; {last}."),
        ConnectorState::Removed => "Being removed.".to_owned(),
    }
}

/// How far a first collection is: pages first, then accounts.
fn progress(status: &ConnectorStatus, now: Timestamp) -> Markup {
    let delivered = status.users.saturating_sub(status.pending);
    html! {
        @if let Some(progress) = &status.progress {
            div class="progress" {
                p { "Reading Torq: " strong { (counted(progress.users, "user")) } " on " (counted(progress.pages, "page"))
                    " so far, since " (wording::span(length(progress.started, now))) "." }
                @if status.state == ConnectorState::Collecting { progress aria-label="Reading Torq; how many there are is not known before the end" {} }
            }
        } @else if status.pending > 0 && matches!(status.state, ConnectorState::Collecting | ConnectorState::Syncing) {
            div class="progress" {
                p { "Delivering to JumpCloud: " strong { (number(delivered)) " of " (number(status.users)) } " users are settled." }
                progress value=(delivered) max=(status.users) aria-label="Delivery" {}
            }
        }
    }
}

fn length(from: Timestamp, to: Timestamp) -> std::time::Duration {
    to.duration_since(from).max(SignedDuration::ZERO).unsigned_abs()
}

fn todo_part(todos: &[Todo]) -> Markup {
    html! {
        @if !todos.is_empty() {
            section aria-labelledby="todo" {
                h2 id="todo" { "To do" }
                (todo::list(todos, false))
            }
        }
    }
}

/// The counts, each leading to those who are counted.
fn figures(status: &ConnectorStatus, survey: &Survey) -> Markup {
    let path = address::users(&status.name);
    let account = |standing: &str| Some(Query::default().with("account", Some(standing)).at(&path));
    let unmatched = Query::default().with("unmatched", Some(true)).at(&path);
    let gone = Query::default()
        .with("kind", Some("user_disappeared"))
        .at(&address::events(&status.name));
    html! {
        dl class="figures" {
            (figure(status.users, "users in Torq", Some(path.clone()), "", true))
            (figure(survey.unmatched, "not in the JumpCloud directory", Some(unmatched), if survey.unmatched > 0 { "warning" } else { "" }, true))
            (figure(status.accounts, "accounts in JumpCloud", None, "", true))
            (figure(status.associated, "associated with a directory user", None, "", true))
            (figure(status.pending, "pending", account("pending"), "", false))
            (figure(status.parked, "parked", account("parked"), "warning", false))
            (figure(status.held, "held", account("held"), "warning", false))
            (figure(status.associations_pending, "associations to be made", None, "", false))
            (figure(status.filtered, "left out by the filters", account("filtered"), "", false))
            (figure(status.removed, "removed so far", Some(gone.clone()), "", false))
            (figure(status.leftover, "accounts of users who left", Some(gone.clone()), "", false))
        }
    }
}

/// A count; some are shown only when there is something to count.
fn figure(count: u64, words: &str, href: Option<String>, class: &str, always: bool) -> Markup {
    html! {
        @if always || count > 0 {
            div class=(class) {
                dt { @if let Some(href) = &href { a href=(href) { (words) } } @else { (words) } }
                dd { (number(count)) }
            }
        }
    }
}

fn runs(runs: &[RunView], now: Timestamp) -> Markup {
    html! {
        @if runs.is_empty() {
            p class="faint" { "None yet." }
        } @else {
            (parts::table("runs", "The last runs, the newest first", "plain", html! {
                thead { tr {
                    th scope="col" { "Began" }
                    th scope="col" { "Took" }
                    th scope="col" { "Outcome" }
                    th scope="col" { "What changed" }
                } }
                tbody {
                    @for run in runs {
                        tr {
                            td { (when(Some(run.started), now, "")) }
                            td { @match run.finished { Some(finished) => (took(run.started, finished)), None => "going on" } }
                            td { (outcome(run)) }
                            td class="long" {
                                @match &run.reason {
                                    Some(reason) if run.counts == RunCounts::default() => (foreign(reason)),
                                    Some(reason) => { (changes(&run.counts)) "; " (foreign(reason)) },
                                    None => (changes(&run.counts)),
                                }
                            }
                        }
                    }
                }
            }))
        }
    }
}

fn took(started: Timestamp, finished: Timestamp) -> String {
    let length = length(started, finished);
    match length.as_secs() {
        0 => "under 1 s".to_owned(),
        _ => wording::span(length),
    }
}

fn outcome(run: &RunView) -> Markup {
    let class = match run.outcome {
        Some(RunOutcome::Done) => "good",
        Some(RunOutcome::Partial) => "warning",
        Some(RunOutcome::Failed | RunOutcome::Refused) => "bad",
        None => "neutral",
    };
    html! { span class={ "state " (class) } { (run.outcome.map_or("going on", wording::outcome)) } }
}

/// What a run changed, without what it did not.
fn changes(counts: &RunCounts) -> String {
    let told: Vec<String> = [
        (counts.appeared, "new in Torq"),
        (counts.changed, "changed"),
        (counts.disappeared, "removed"),
        (
            counts.created,
            if counts.created == 1 {
                "account created"
            } else {
                "accounts created"
            },
        ),
        (counts.found, "found"),
        (counts.associated, "associated"),
        (counts.deleted, "deleted"),
        (counts.refused, "refused"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, words)| format!("{} {words}", number(count)))
    .collect();
    if told.is_empty() {
        "nothing".to_owned()
    } else {
        told.join(", ")
    }
}

fn events(name: &str, known: &Known, now: Timestamp) -> Markup {
    html! {
        @if known.latest.is_empty() {
            p class="faint" { "None yet." }
        } @else {
            (parts::table("latest", "What happened last, the newest first", "events", story::rows(&known.latest, &known.roles, now, true)))
            p { a href=(address::events(name)) { "All events" } }
        }
    }
}

fn settings_part(settings: &Settings, now: Timestamp) -> Markup {
    let removals = match settings.removals {
        Removals::Report => "recorded and shown; accounts stay (removals = \"report\")",
        Removals::Delete => "accounts that this connector created are deleted (removals = \"delete\")",
    };
    let guard = match settings.max_removals {
        MaxRemovals::Percent(percent) => {
            format!("{percent} % of the users, at least 5, within 24 hours; more are held")
        }
        MaxRemovals::Users(users) => format!("{} within 24 hours; more are held", counted(users, "user")),
    };
    let users = &settings.users;
    let filters = [
        ("include_domains", &users.include_domains),
        ("exclude_emails", &users.exclude_emails),
        ("statuses", &users.statuses),
    ];
    let filtered = filters.iter().any(|(_, list)| !list.is_empty());
    html! {
        dl class="settings" {
            div { dt { "Polls" } dd { "every " (wording::span(settings.poll_interval)) } }
            div { dt { "Torq" } dd { (foreign(&settings.torq)) } }
            @if let Some(expires) = settings.key_expires {
                div { dt { "API key expires" } dd { (expires) @if let Some(days) = settings.key_days(now) { " (in " (days) " days)" } } }
            }
            div { dt { "JumpCloud" } dd { (foreign(&settings.jumpcloud)) @if let Some(id) = &settings.org_id { ", organisation " (foreign(id)) } ", application " (foreign(&settings.application)) } }
            div { dt { "Who is gone from Torq" } dd { (removals) } }
            div { dt { "Removals believed" } dd { (guard) } }
            div { dt { "Kept" } dd { "events, runs and users who left, " @match settings.retention {
                Some(length) => { "for " (wording::span(length)) },
                None => "for ever",
            } } }
            div { dt { "Who is told" } dd { (foreign(settings.told.as_deref().unwrap_or("nobody"))) } }
            div { dt { "Who is delivered" } dd {
                @if filtered {
                    @for (key, list) in filters.iter().filter(|(_, list)| !list.is_empty()) { (key) " = " (foreign(&list.join(", "))) " " }
                } @else { "everybody" }
            } }
        }
    }
}
