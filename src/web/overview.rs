//! `/`: every connector. First what needs a person, then the table, what is wrong first. One connector or a thousand.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};

use super::address::{self, Query};
use super::frame::{NoPage, Page, Renewal};
use super::parameters::Parameters;
use super::parts::{self, Sorting, counted, foreign, number, quiet, said, when};
use super::todo::{self, Todo, rank};
use super::{Seat, Site, story};
use crate::state::EventPageQuery;
use crate::view::{ConnectorState, ConnectorStatus, EventView};
use crate::wording::{self, Weight};

/// Rows on a page.
const ROWS: usize = 50;
/// A search is offered where there are more connectors than a glance holds.
const MANY: usize = 10;
/// What needs a person is listed up to here; the table has the rest first.
const TODOS: usize = 10;
/// How many events the page shows.
const LATEST: u32 = 8;

/// A connector with what it asks of a person.
struct Entry {
    status: ConnectorStatus,
    todos: Vec<Todo>,
    weight: Weight,
}

/// `GET /`
pub(super) async fn show(State(site): State<Site>, RawQuery(query): RawQuery) -> Result<Response, NoPage> {
    let now = Timestamp::now();
    let report = site.board.statuses().await?;
    let seats = site.board.seats();
    let (latest, roles) = latest(&seats).await;
    let settings: BTreeMap<_, _> = seats
        .into_iter()
        .map(|seat| (seat.name.to_string(), seat.settings))
        .collect();
    let entries: Vec<Entry> = report
        .connectors
        .into_iter()
        .map(|status| {
            let todos = match settings.get(&status.name) {
                Some(settings) => todo::of(&status, settings, now),
                None => Vec::new(),
            };
            let weight = todo::weight(&status, &todos);
            Entry { status, todos, weight }
        })
        .collect();
    let parameters = Parameters::of_form(query);
    let list = List::asked(parameters);
    let bad = !list.problems.is_empty();
    let page = page(entries, &list, &latest, &roles, now);
    let status = if bad { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok((status, page.framed()).into_response())
}

/// What happened last anywhere, the newest first, and the names of the roles in it. A connector whose state cannot be read says so
/// in its row; here the others speak.
async fn latest(seats: &[Seat]) -> (Vec<EventView>, BTreeMap<String, story::Roles>) {
    let (mut latest, mut roles) = (Vec::new(), BTreeMap::new());
    for seat in seats {
        let Ok(state) = seat.state() else { continue };
        let query = EventPageQuery {
            limit: LATEST,
            ..EventPageQuery::default()
        };
        if let Ok((page, names)) = state
            .call(move |store| Ok((store.event_page(&query)?, store.roles()?)))
            .await
        {
            latest.extend(page.events);
            roles.insert(seat.name.to_string(), names);
        }
    }
    latest.sort_by_key(|event| std::cmp::Reverse(event.at));
    latest.truncate(LATEST as usize);
    (latest, roles)
}

/// How the table is asked for.
struct List {
    search: Option<String>,
    sort: String,
    descending: bool,
    page: u64,
    problems: Vec<String>,
}

const SORTS: [&str; 10] = [
    "attention",
    "name",
    "users",
    "accounts",
    "associated",
    "pending",
    "parked",
    "held",
    "success",
    "next",
];

impl List {
    fn asked(mut parameters: Parameters) -> Self {
        let sort = parameters.parsed("sort", &format!("one of {}", SORTS.join(", ")), |text| {
            SORTS.contains(&text).then(|| text.to_owned())
        });
        let page = parameters.parsed("page", "a number from 1", |text| {
            text.parse().ok().filter(|page| *page > 0)
        });
        Self {
            search: parameters.owned("search"),
            sort: sort.unwrap_or_else(|| "attention".to_owned()),
            descending: parameters.text("order") == Some("desc"),
            page: page.unwrap_or(1),
            problems: parameters.into_problems(),
        }
    }

    fn query(&self) -> Query {
        Query::default()
            .with("search", self.search.as_ref())
            .with("sort", (self.sort != "attention").then_some(&self.sort))
            .with("order", self.descending.then_some("desc"))
    }

    fn admits(&self, name: &str) -> bool {
        self.search
            .as_ref()
            .is_none_or(|search| name.to_lowercase().contains(&search.to_lowercase()))
    }

    fn compare(&self, a: &Entry, b: &Entry) -> Ordering {
        let (x, y) = (&a.status, &b.status);
        let ordering = match self.sort.as_str() {
            "name" => x.name.cmp(&y.name),
            "users" => x.users.cmp(&y.users),
            "accounts" => x.accounts.cmp(&y.accounts),
            "associated" => x.associated.cmp(&y.associated),
            "pending" => x.pending.cmp(&y.pending),
            "parked" => x.parked.cmp(&y.parked),
            "held" => x.held.cmp(&y.held),
            "success" => x.last_success.cmp(&y.last_success),
            "next" => x.next_poll.cmp(&y.next_poll),
            _ => rank(a.weight).cmp(&rank(b.weight)),
        };
        let ordering = if self.descending { ordering.reverse() } else { ordering };
        ordering.then_with(|| x.name.cmp(&y.name))
    }
}

fn page(
    mut entries: Vec<Entry>,
    list: &List,
    latest: &[EventView],
    roles: &BTreeMap<String, story::Roles>,
    now: Timestamp,
) -> Page {
    let all = entries.len();
    let searchable = all > MANY || list.search.is_some();
    let mut todos: Vec<&Todo> = entries.iter().flat_map(|entry| &entry.todos).collect();
    todos.sort_by_key(|todo| rank(todo.weight));
    let asking = entries
        .iter()
        .filter(|entry| rank(entry.weight) <= rank(Weight::Warning))
        .count();
    let todo_part = todo_part(&todos, all);
    let heading = heading(&entries, asking);

    let listed: Vec<String> = todos.iter().take(TODOS).map(|todo| todo.connector.clone()).collect();
    entries.retain(|entry| list.admits(&entry.status.name));
    entries.sort_by(|a, b| list.compare(a, b));
    let found = entries.len();
    let pages = found.div_ceil(ROWS).max(1) as u64;
    let current = list.page.min(pages);
    let query = list.query();
    let rows = entries.iter().skip((current as usize - 1) * ROWS).take(ROWS);
    Page {
        title: "torq-connector".to_owned(),
        way: Vec::new(),
        json: Some("/api/status".to_owned()),
        renewal: if searchable { Renewal::ByScript } else { Renewal::Always },
        main: html! {
            div id="now" data-living {
                h1 { "Connectors" }
                (heading)
                (todo_part)
            }
            (parts::problems(&list.problems))
            @if searchable {
                form class="filters" action="/" method="get" role="search" {
                    label { "Name" input type="search" name="search" value=[list.search.as_deref()] autocomplete="off"; }
                    @for (name, value) in query.hidden(&["sort", "order"]) { input type="hidden" name=(name) value=(value); }
                    button type="submit" { "Search" }
                    @if list.search.is_some() { a href="/" { "Show all" } }
                }
            }
            div id="connectors-part" data-living {
                @if all == 0 {
                    p { "No connector is running." }
                } @else if found == 0 {
                    p { "No connector's name contains “" (foreign(list.search.as_deref().unwrap_or_default())) "”." }
                } @else {
                    @if searchable { p class="found" { (counted(found as u64, "connector")) @if found < all { " of " (number(all as u64)) } } }
                    (table(rows, &listed, &query, list, now))
                    (parts::pager("/", &query, current, pages))
                }
                @if !latest.is_empty() {
                    h2 { "Latest events" }
                    (happened(latest, roles, all > 1, now))
                }
            }
        },
    }
}

/// All in one sentence. Whoever paused a connector and forgot it is told, too.
fn heading(entries: &[Entry], asking: usize) -> Markup {
    let all = entries.len();
    let aside: Vec<(usize, &str)> = [ConnectorState::Paused, ConnectorState::Removed]
        .map(|state| {
            let such = entries.iter().filter(|entry| entry.status.state == state);
            (such.count(), wording::state(state))
        })
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .collect();
    let words = match (all, asking, &aside[..]) {
        (0, ..) => return html! {},
        (1, 0, []) => "All is well.".to_owned(),
        (1, 0, [(_, state), ..]) => format!("It is {state}: nothing is polled or delivered."),
        // Nobody has to do anything about it.
        (1, ..) if entries[0].todos.is_empty() => format!("It is {}.", wording::state(entries[0].status.state)),
        (1, ..) => "Something needs a look.".to_owned(),
        (_, 0, []) => format!("All {} are well.", number(all as u64)),
        _ => several(all, asking, &aside),
    };
    let well = asking == 0 && aside.is_empty();
    html! {
        p class={ "lead" @if well { " good" } } { (words) }
        (leftovers(entries))
    }
}

/// Whose accounts stay although they left: nothing is wrong, and somebody may want to know.
fn leftovers(entries: &[Entry]) -> Markup {
    let with: Vec<&Entry> = entries.iter().filter(|entry| entry.status.leftover > 0).collect();
    let accounts: u64 = with.iter().map(|entry| entry.status.leftover).sum();
    let command = match &with[..] {
        [] => return html! {},
        [one] if entries.len() > 1 => format!("torq-connector report drift {}", one.status.name),
        _ => "torq-connector report drift".to_owned(),
    };
    let stay = if accounts == 1 { "stays" } else { "stay" };
    html! {
        p { (counted(accounts, "account")) " of users who left " (stay) " in JumpCloud. Whose: " (parts::command(&command)) }
    }
}

fn several(all: usize, asking: usize, aside: &[(usize, &str)]) -> String {
    let number = |count: usize| number(count as u64);
    let needs = (asking > 0).then(|| format!("{} a look", if asking == 1 { "needs" } else { "need" }));
    let needs = needs.map(|needs| (asking, needs));
    let are = |count| if count == 1 { "is" } else { "are" };
    let aside = aside
        .iter()
        .map(|(count, state)| (*count, format!("{} {state}", are(*count))));
    let told: Vec<String> = needs
        .into_iter()
        .chain(aside)
        .enumerate()
        .map(|(place, (count, what))| match place {
            0 => format!("{} of {} {what}", number(count), number(all)),
            _ => format!("{} {what}", number(count)),
        })
        .collect();
    told.join(", ") + "."
}

fn todo_part(todos: &[&Todo], all: usize) -> Markup {
    html! {
        @if !todos.is_empty() {
            section aria-labelledby="todo" {
                h2 id="todo" { "To do" }
                (todo::list(todos.iter().take(TODOS).copied(), all > 1))
                @if todos.len() > TODOS {
                    p { "… and " (number((todos.len() - TODOS) as u64)) " more: the table begins with the connectors that they are about." }
                }
            }
        }
    }
}

fn table<'a>(
    rows: impl Iterator<Item = &'a Entry>,
    listed: &[String],
    query: &Query,
    list: &List,
    now: Timestamp,
) -> Markup {
    let sorting = Sorting {
        path: "/",
        query,
        by: &list.sort,
        descending: list.descending,
    };
    parts::table(
        "connectors",
        "Connectors",
        "connectors",
        html! {
            thead { tr {
                (sorting.header("name", "Connector", "", false))
                (sorting.header("attention", "State", "", false))
                @for (key, words, class) in [
                    ("users", "Users", "number"), ("accounts", "Accounts", "number wide"), ("associated", "Associated", "number wide"),
                    ("pending", "Pending", "number wide"), ("parked", "Parked", "number wide"), ("held", "Held", "number wide"),
                ] {
                    (sorting.header(key, words, class, true))
                }
                (sorting.header("success", "Last success", "", false))
                (sorting.header("next", "Next poll", "wide", false))
            } }
            @for entry in rows { tbody { (row(entry, listed.contains(&entry.status.name), now)) } }
        },
    )
}

/// A row, and below it why the connector is in its state, unless the list above says it.
fn row(entry: &Entry, listed: bool, now: Timestamp) -> Markup {
    let status = &entry.status;
    html! {
        tr {
            th scope="row" { a href=(address::connector(&status.name)) { (status.name) } }
            td {
                (parts::badge(status.state))
                @if let Some(progress) = &status.progress {
                    div class="faint" { (counted(progress.users, "user")) " so far" }
                }
            }
            td class="number" { (quiet(status.users)) }
            @for count in [status.accounts, status.associated, status.pending, status.parked, status.held] {
                td class="number wide" { (quiet(count)) }
            }
            td { (when(status.last_success, now, "never")) }
            td class="wide" {
                @match status.next_poll {
                    Some(at) => time datetime=(at) title=(wording::moment(at)) { (parts::coming(at, now)) },
                    None => span class="faint" { "–" },
                }
            }
        }
        @if !listed && let Some(first) = entry.todos.first() {
            tr class="said" { td colspan="10" { (first.what) @if let Some(command) = &first.command { ": " (parts::command(command)) } } }
        } @else if let Some(reason) = status.reason.as_deref().filter(|_| !listed) {
            tr class="said" {
                td colspan="10" {
                    (said(reason))
                    @if let Some(action) = &status.action { " – " (said(action)) }
                }
            }
        }
    }
}

/// What happened last, the newest first.
fn happened(latest: &[EventView], roles: &BTreeMap<String, story::Roles>, named: bool, now: Timestamp) -> Markup {
    let none = story::Roles::new();
    parts::table(
        "latest",
        "What happened last, the newest first",
        "events",
        html! {
            thead { tr {
                th scope="col" { "When" }
                @if named { th scope="col" { "Connector" } }
                th scope="col" { "What" }
                th scope="col" { "Who" }
                th scope="col" { "Details" }
            } }
            tbody {
                @for event in latest {
                    tr {
                        td { (when(event.at, now, "")) }
                        @if named { td { a href=(address::connector(&event.connector)) { (event.connector) } } }
                        td { (crate::wording::event(event.kind)) }
                        td class="long" { (story::whom(event)) }
                        td class="long details" { (foreign(&story::told(event, roles.get(&event.connector).unwrap_or(&none)))) }
                    }
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, leftover: u64) -> Entry {
        let mut status = ConnectorStatus::unknown(name, ConnectorState::Connected, None);
        status.leftover = leftover;
        Entry {
            status,
            todos: Vec::new(),
            weight: Weight::Good,
        }
    }

    #[test]
    fn accounts_of_people_who_left_are_spoken_of_where_all_is_well() {
        let said = |entries: &[Entry]| heading(entries, 0).into_string();
        assert!(!said(&[entry("one", 0)]).contains("report drift"));
        let one = said(&[entry("one", 1)]);
        assert!(
            one.contains("All is well") && one.contains("1 account of users who left stays"),
            "{one}"
        );
        assert!(one.contains("torq-connector report drift<"), "{one}");
        let among = said(&[entry("one", 0), entry("two", 3)]);
        assert!(among.contains("torq-connector report drift two"), "{among}");
        let both = said(&[entry("one", 4), entry("two", 3)]);
        assert!(both.contains("7 accounts of users who left stay in"), "{both}");
        assert!(both.contains("torq-connector report drift<"), "{both}");
    }
}
