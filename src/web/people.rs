//! `/connectors/NAME/users`: who has access to Torq, searched, filtered, sorted, a page at a time. `/connectors/NAME/users/ID`: one of them.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};

use super::address::{self, Query};
use super::connector::seat_of;
use super::frame::{NoPage, Page, Renewal, way_to};
use super::parameters::Parameters;
use super::parts::{self, Sorting, counted, exactly, foreign, number, when, when_told};
use super::{Site, story};
use crate::report::{Note, fresh};
use crate::state::{EventPageQuery, Survey, UserOrder, UserPage, UserPageQuery, UserSelection};
use crate::view::{AccountStanding, Directory, UserDetail, UserView};

/// Users on a page.
const ROWS: u32 = 50;
/// Events of a user that are shown; the events page has all.
const HISTORY: u32 = 100;

const ORDERS: [(&str, UserOrder); 7] = [
    ("email", UserOrder::Email),
    ("status", UserOrder::Status),
    ("sso", UserOrder::Sso),
    ("role", UserOrder::Role),
    ("account", UserOrder::Account),
    ("login", UserOrder::LastLogin),
    ("since", UserOrder::FirstSeen),
];

/// How the list is asked for, as it is put into its links.
struct Asked {
    selection: UserSelection,
    dormant: Option<String>,
    sort: &'static str,
    order: UserOrder,
    descending: bool,
    page: u64,
    problems: Vec<String>,
}

impl Asked {
    fn read(query: Option<String>, now: Timestamp) -> Self {
        let mut parameters = Parameters::of_form(query);
        let names = ORDERS.map(|(name, _)| name).join(", ");
        let sort = parameters.parsed("sort", &format!("one of {names}"), |text| {
            ORDERS.into_iter().find(|(name, _)| *name == text)
        });
        let page = parameters.parsed("page", "a number from 1", |text| {
            text.parse().ok().filter(|page| *page > 0)
        });
        let selection = parameters.selection(now);
        let (sort, order) = sort.unwrap_or(ORDERS[0]);
        Self {
            dormant: parameters
                .owned("dormant")
                .filter(|_| selection.dormant_since.is_some()),
            selection,
            sort,
            order,
            descending: parameters.text("order") == Some("desc"),
            page: page.unwrap_or(1),
            problems: parameters.into_problems(),
        }
    }

    /// The selection alone: what the API takes, too.
    fn selected(&self) -> Query {
        let selection = &self.selection;
        Query::default()
            .with("search", selection.search.as_ref())
            .with("account", selection.account.map(AccountStanding::as_str))
            .with("status", selection.status.as_ref())
            .with("sso", selection.sso)
            .with("unmatched", selection.unmatched.then_some(true))
            .with("dormant", self.dormant.as_ref())
    }

    fn query(&self) -> Query {
        self.selected()
            .with("sort", (self.order != UserOrder::Email).then_some(self.sort))
            .with("order", self.descending.then_some("desc"))
    }
}

/// `GET /connectors/NAME/users`
pub(super) async fn list(
    State(site): State<Site>,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, NoPage> {
    let now = Timestamp::now();
    let seat = seat_of(&site, path)?;
    let asked = Asked::read(query, now);
    let wanted = UserPageQuery {
        selection: asked.selection.clone(),
        order: asked.order,
        descending: asked.descending,
        offset: (asked.page - 1).saturating_mul(ROWS.into()),
        limit: ROWS,
    };
    let (found, survey, note) = seat
        .state()?
        .call(move |store| {
            let note = match wanted.selection.unmatched {
                true => fresh::of_directory(store, true)?,
                false => None,
            };
            Ok((store.user_page(&wanted)?, store.survey()?, note))
        })
        .await
        .map_err(super::BoardError::from)?;
    let status = if asked.problems.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    let page = list_page(seat.name.as_str(), &asked, &found, &survey, note, now);
    Ok((status, page.framed()).into_response())
}

fn list_page(name: &str, asked: &Asked, found: &UserPage, survey: &Survey, note: Option<Note>, now: Timestamp) -> Page {
    let path = address::users(name);
    let query = asked.query();
    let pages = found.total.div_ceil(ROWS.into()).max(1);
    let first = (asked.page - 1).saturating_mul(ROWS.into());
    Page {
        title: format!("Users of {name} – torq-connector"),
        way: way_to(name, None),
        json: Some(asked.selected().with("connector", Some(name)).at("/api/users")),
        renewal: Renewal::Never,
        main: html! {
            h1 { "Users of " (name) }
            (parts::sections(name, "Users"))
            (parts::problems(&asked.problems))
            (filters(&path, asked, survey))
            p class="found" role="status" {
                @if found.users.is_empty() {
                    @if found.total == 0 { "Nobody is like that." } @else { "There are " (number(found.total)) ", but not so many pages of them." }
                } @else {
                    (number(first + 1)) "–" (number(first + found.users.len() as u64)) " of " (counted(found.total, "user"))
                }
            }
            @if let Some(note) = note { p class="faint" { "Note: " (parts::said(note.words())) } }
            @if !found.users.is_empty() { (table(name, &path, &query, asked, found, now)) }
            (parts::pager(&path, &query, asked.page.min(pages), pages))
        },
    }
}

fn filters(path: &str, asked: &Asked, survey: &Survey) -> Markup {
    let selection = &asked.selection;
    let filtered = *selection != UserSelection::default();
    let all: u64 = survey.statuses.values().sum();
    html! {
        form class="filters" action=(path) method="get" role="search" {
            label { "E-mail or id" input type="search" name="search" value=[selection.search.as_deref()] autocomplete="off" spellcheck="false"; }
            label { "Account"
                select name="account" {
                    option value="" { "any" }
                    @for standing in AccountStanding::ALL {
                        option value=(standing.as_str()) selected[selection.account == Some(standing)] { (standing.as_str()) }
                    }
                }
            }
            label { "Status"
                select name="status" {
                    option value="" { "any" }
                    @for (status, count) in survey.statuses.iter().filter(|(status, _)| !status.is_empty()) {
                        option value=(status) selected[selection.status.as_ref() == Some(status)] { (crate::wording::printable(status)) " (" (number(*count)) ")" }
                    }
                }
            }
            label { "Provisioned"
                select name="sso" {
                    option value="" { "any" }
                    option value="true" selected[selection.sso == Some(true)] { "SSO (" (number(survey.sso)) ")" }
                    option value="false" selected[selection.sso == Some(false)] { "local (" (number(all.saturating_sub(survey.sso))) ")" }
                }
            }
            label { "No login for"
                select name="dormant" {
                    option value="" { "any time" }
                    @for days in ["30", "90", "180", "365"] {
                        option value=(days) selected[asked.dormant.as_deref() == Some(days)] { (days) " days" }
                    }
                    @if let Some(other) = asked.dormant.as_deref().filter(|days| !["30", "90", "180", "365"].contains(days)) {
                        option value=(other) selected { (other) " days" }
                    }
                }
            }
            label class="check" { input type="checkbox" name="unmatched" value="true" checked[selection.unmatched]; "Not in the directory (" (number(survey.unmatched)) ")" }
            @for (name, value) in asked.query().hidden(&["sort", "order"]) { input type="hidden" name=(name) value=(value); }
            button type="submit" { "Show" }
            @if filtered { a href=(path) { "Show all" } }
        }
    }
}

fn table(name: &str, path: &str, query: &Query, asked: &Asked, found: &UserPage, now: Timestamp) -> Markup {
    let sorting = Sorting {
        path,
        query,
        by: asked.sort,
        descending: asked.descending,
    };
    parts::table(
        "users",
        "Users of the Torq workspace",
        "users",
        html! {
            thead { tr {
                (sorting.header("email", "E-mail", "", false))
                (sorting.header("role", "Role", "wide", false))
                (sorting.header("sso", "Provisioned", "wide wider", false))
                (sorting.header("status", "Status", "wide", false))
                (sorting.header("login", "Last login", "", false))
                (sorting.header("since", "Known since", "wide wider", false))
                (sorting.header("account", "Account", "", false))
                th scope="col" { "Directory" }
            } }
            tbody {
                @for row in &found.users {
                    @let user = &row.user;
                    tr {
                        th scope="row" class="long" { (linked(name, user)) }
                        td class="wide" { (foreign(user.role.as_deref().unwrap_or(&user.role_id))) }
                        td class="wide wider" { (provisioned(user.sso)) }
                        td class="wide" { (foreign(&user.status)) }
                        td { (when_told(user.last_login.as_deref(), now, "never")) }
                        td class="wide wider" { (when(Some(user.first_seen), now, "")) }
                        td { (standing(user.account)) @if let Some(reason) = user.reason.as_ref().filter(|_| user.account != AccountStanding::Held) { br; span class="faint why" { (foreign(reason)) } } }
                        td { (directory(&row.directory)) }
                    }
                }
            }
        },
    )
}

fn linked(name: &str, user: &UserView) -> Markup {
    let words = if user.email.is_empty() {
        foreign(&user.id)
    } else {
        parts::email(&user.email)
    };
    html! {
        @match address::user(name, &user.id) {
            Some(href) => a href=(href) { (words) },
            None => (words),
        }
    }
}

fn provisioned(sso: bool) -> &'static str {
    if sso { "SSO" } else { "local" }
}

fn standing(account: AccountStanding) -> Markup {
    let class = match account {
        // As it should be, which needs no mark in a long list.
        AccountStanding::Created | AccountStanding::Found => return html! { (account.as_str()) },
        AccountStanding::Pending | AccountStanding::Filtered => "neutral",
        AccountStanding::Parked | AccountStanding::Held => "warning",
    };
    html! { span class={ "state " (class) } { (account.as_str()) } }
}

fn directory(directory: &Directory) -> Markup {
    html! {
        @match directory {
            Directory::Associated(_) => "associated",
            Directory::Known(_) => "known",
            Directory::Absent(_) => span class="state warning" { "not there" },
            Directory::Unasked => span class="faint" { "not asked yet" },
        }
    }
}

/// `GET /connectors/NAME/users/ID`
pub(super) async fn one(
    State(site): State<Site>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Markup, NoPage> {
    let now = Timestamp::now();
    let Ok(Path((name, id))) = path else {
        return Err(NoPage::NotFound("The address names no user.".to_owned()));
    };
    let seat = site.board.seated(&name)?;
    let wanted = id.clone();
    let found = seat
        .state()?
        .call(move |store| {
            let Some(detail) = store.user(&wanted)? else {
                return Ok(None);
            };
            let history = EventPageQuery {
                user_id: Some(wanted),
                limit: HISTORY,
                ..EventPageQuery::default()
            };
            Ok(Some((detail, store.event_page(&history)?, store.roles()?)))
        })
        .await
        .map_err(super::BoardError::from)?;
    let Some((detail, history, roles)) = found else {
        return Err(NoPage::NotFound(format!(
            "No user with the id {id:?} was ever seen by the connector {name}."
        )));
    };
    let user = &detail.user;
    let title = if user.email.is_empty() { &user.id } else { &user.email };
    let page = Page {
        title: format!("{title} – {name} – torq-connector"),
        way: way_to(&name, Some((address::users(&name), "Users"))),
        json: Some(
            Query::default()
                .with("connector", Some(&name))
                .with("user", Some(&id))
                .at("/api/events"),
        ),
        renewal: Renewal::Never,
        main: html! {
            h1 class="long" { (foreign(title)) }
            p class="lead" { (sentence(&detail, now)) }
            (about(&name, &detail, now))
            h2 { "What happened" }
            @if history.events.is_empty() {
                p class="faint" { "Nothing is recorded." }
            } @else {
                (parts::table("history", "What happened to this user, the newest first", "events", story::rows(&history.events, &roles, now, false)))
                @if history.next.is_some() {
                    p { a href=(Query::default().with("user", Some(&id)).at(&address::events(&name))) { "Everything that happened" } }
                }
            }
        },
    };
    Ok(page.framed())
}

/// Whether the user has access, since when, and who it is in JumpCloud.
fn sentence(detail: &UserDetail, now: Timestamp) -> String {
    let since = crate::wording::relative(now, detail.user.first_seen);
    if let Some(removed) = detail.removed_at {
        return format!("Gone from Torq: removed {}.", crate::wording::relative(now, removed));
    }
    let who = match &detail.directory {
        Directory::Associated(_) => "the account belongs to a JumpCloud user",
        Directory::Known(_) => "JumpCloud has a user with this e-mail, and the account is not associated yet",
        Directory::Absent(_) => "JumpCloud has no user with this e-mail",
        Directory::Unasked => "the JumpCloud directory was not asked yet",
    };
    format!("In Torq, first seen {since}; {who}.")
}

fn about(name: &str, detail: &UserDetail, now: Timestamp) -> Markup {
    let user = &detail.user;
    html! {
        dl class="settings" {
            div { dt { "E-mail" } dd class="long" { @if user.email.is_empty() { span class="faint" { "none" } } @else { (foreign(&user.email)) } } }
            div { dt { "Torq id" } dd class="long" { code { (foreign(&user.id)) } } }
            div { dt { "Role" } dd { (foreign(user.role.as_deref().unwrap_or(&user.role_id))) @if user.role.is_none() { span class="faint" { " (the id; the name is not known)" } } } }
            div { dt { "Status" } dd { (foreign(&user.status)) } }
            div { dt { "Provisioned" } dd { (provisioned(user.sso)) } }
            div { dt { "Created in Torq" } dd { (exactly_told(user.created.as_deref(), now, "unknown")) } }
            div { dt { "Last login" } dd { (exactly_told(user.last_login.as_deref(), now, "never")) } }
            div { dt { "First seen" } dd { (exactly(Some(user.first_seen), now, "")) } }
            @if detail.removed_at.is_some() {
                div { dt { "Removed" } dd { (exactly(detail.removed_at, now, "")) } }
            } @else {
                div { dt { "Account" } dd class="long" {
                    (standing(user.account))
                    @if let Some(id) = &user.account_id { " " code { (foreign(id)) } }
                    @if let Some(reason) = &user.reason { " " (foreign(reason)) }
                } }
                div { dt { "JumpCloud user" } dd class="long" {
                    @match &detail.directory {
                        Directory::Associated(id) => code { (foreign(id)) },
                        Directory::Known(id) => { code { (foreign(id)) } " – not associated yet" },
                        Directory::Absent(asked) => { "nobody with this e-mail; asked " (when(Some(*asked), now, "")) },
                        Directory::Unasked => span class="faint" { "not asked yet" },
                    }
                } }
                @if !detail.sharing.is_empty() {
                    div { dt { "Same e-mail" } dd class="long" {
                        @for id in &detail.sharing {
                            @if let Some(href) = address::user(name, id) { a href=(href) { (foreign(id)) } " " } @else { (foreign(id)) " " }
                        }
                    } }
                }
            }
        }
    }
}

fn exactly_told(at: Option<&str>, now: Timestamp, never: &str) -> Markup {
    match at {
        Some(text) => match text.parse() {
            Ok(at) => exactly(Some(at), now, never),
            Err(_) => foreign(text),
        },
        None => exactly(None, now, never),
    }
}
