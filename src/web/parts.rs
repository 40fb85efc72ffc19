//! What pages are made of: times, states, numbers, commands, tables that scroll, headers that sort, ways through many pages.

use jiff::Timestamp;
use maud::{Markup, html};

use super::address::{self, Query};
use crate::invocation::addressed;
use crate::view::ConnectorState;
use crate::wording::{self, Weight, printable};

/// A time as people tell it, with the exact one behind it.
pub(super) fn when(at: Option<Timestamp>, now: Timestamp, never: &str) -> Markup {
    html! {
        @match at {
            Some(at) => time datetime=(at) title=(wording::moment(at)) { (wording::relative(now, at)) },
            None => span class="faint" { (never) },
        }
    }
}

/// A time as Torq sent it: told like the others where it can be read, and shown as it is where not.
pub(super) fn when_told(at: Option<&str>, now: Timestamp, never: &str) -> Markup {
    match at {
        Some(text) => match text.parse() {
            Ok(at) => when(Some(at), now, never),
            Err(_) => html! { (printable(text)) },
        },
        None => when(None, now, never),
    }
}

/// The same with the exact time beside it.
pub(super) fn exactly(at: Option<Timestamp>, now: Timestamp, never: &str) -> Markup {
    html! {
        @match at {
            Some(at) => { time datetime=(at) { (wording::moment(at)) } " " span class="faint" { "(" (wording::relative(now, at)) ")" } },
            None => span class="faint" { (never) },
        }
    }
}

/// How much something asks of a person, as a class; what it means is always said in words, too.
pub(super) fn weight_class(weight: Weight) -> &'static str {
    match weight {
        Weight::Good => "good",
        Weight::Neutral => "neutral",
        Weight::Warning => "warning",
        Weight::Bad => "bad",
    }
}

/// A connector's state, in its colour.
pub(super) fn badge(state: ConnectorState) -> Markup {
    html! { span class={ "state " (weight_class(wording::weight(state))) } { (wording::state(state)) } }
}

/// A number with its thousands apart.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number and its noun, with thousands apart.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(count), if count == 1 { "" } else { "s" })
}

/// A number that says something only when there is something: nothing is faint.
pub(super) fn quiet(count: u64) -> Markup {
    html! { @if count == 0 { span class="faint" { "0" } } @else { (number(count)) } }
}

/// A command to be copied. The script puts a button beside it.
pub(super) fn command(text: &str) -> Markup {
    html! { code class="command" { (addressed(text)) } }
}

/// What is said of a connector: foreign text, in which commands can be.
pub(super) fn said(text: &str) -> Markup {
    foreign(&addressed(text))
}

/// Foreign text of any length, on one line, that may break anywhere.
pub(super) fn foreign(text: &str) -> Markup {
    html! { bdi { (printable(text)) } }
}

/// An e-mail, which breaks before its `@` rather than anywhere.
pub(super) fn email(text: &str) -> Markup {
    let shown = printable(text);
    html! {
        bdi {
            @match shown.rsplit_once('@') {
                Some((local, domain)) => { (local) wbr; "@" (domain) },
                None => (shown),
            }
        }
    }
}

/// When something comes next.
pub(super) fn coming(at: Timestamp, now: Timestamp) -> String {
    if at <= now {
        "due".to_owned()
    } else {
        wording::relative(now, at)
    }
}

/// The way between the pages of one connector.
pub(super) fn sections(name: &str, here: &str) -> Markup {
    let sections = [
        ("Overview", address::connector(name)),
        ("Users", address::users(name)),
        ("Events", address::events(name)),
    ];
    html! {
        nav class="sections" aria-label={ "Connector " (name) } {
            ul {
                @for (words, href) in sections {
                    li { a href=(href) aria-current=[(words == here).then_some("page")] { (words) } }
                }
            }
        }
    }
}

/// A table that scrolls sideways where it does not fit, also by keyboard.
pub(super) fn table(id: &str, caption: &str, class: &str, content: Markup) -> Markup {
    let label = format!("{id}-caption");
    html! {
        div class="scroll" id=(id) role="region" aria-labelledby=(label) tabindex="0" {
            table class=(class) {
                caption id=(label) { (caption) }
                (content)
            }
        }
    }
}

/// How a list is sorted, and where it is: what its headers link to.
pub(super) struct Sorting<'a> {
    /// The address without a query.
    pub path: &'a str,
    /// The query, with everything that sorting keeps.
    pub query: &'a Query,
    /// By what it is sorted.
    pub by: &'a str,
    /// The greatest first.
    pub descending: bool,
}

impl Sorting<'_> {
    /// A header that sorts by its column; by the same again, the other way round.
    pub(super) fn header(&self, key: &str, words: &str, class: &str, descending_first: bool) -> Markup {
        let here = self.by == key;
        let descending = if here { !self.descending } else { descending_first };
        let href = self
            .query
            .clone()
            .with("sort", Some(key))
            .with("order", descending.then_some("desc"))
            .with("page", None::<u64>)
            .at(self.path);
        let sorted = match (here, self.descending) {
            (false, _) => None,
            (true, false) => Some("ascending"),
            (true, true) => Some("descending"),
        };
        html! {
            th scope="col" class=(class) aria-sort=[sorted] { a href=(href) { (words) } }
        }
    }
}

/// The way through pages of a list that was counted. Pages are numbered from 1.
pub(super) fn pager(path: &str, query: &Query, page: u64, pages: u64) -> Markup {
    let to = |page: u64| query.clone().with("page", (page > 1).then_some(page)).at(path);
    html! {
        @if pages > 1 {
            nav class="pager" aria-label="Pages" {
                ul {
                    @if page > 1 {
                        li { a href=(to(1)) { "First" } }
                        li { a href=(to(page - 1)) rel="prev" { "Previous" } }
                    }
                    li { span aria-current="page" { "Page " (number(page)) " of " (number(pages)) } }
                    @if page < pages {
                        li { a href=(to(page + 1)) rel="next" { "Next" } }
                        li { a href=(to(pages)) { "Last" } }
                    }
                }
            }
        }
    }
}

/// What of the query could not be read.
pub(super) fn problems(problems: &[String]) -> Markup {
    html! {
        @if !problems.is_empty() {
            div class="notice warning" role="alert" {
                @for problem in problems { p { (printable(problem)) "; it is not taken into account." } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (count, told) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (50_000, "50,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(number(count), told);
        }
        assert_eq!(counted(1, "user"), "1 user");
        assert_eq!(counted(12_000, "user"), "12,000 users");
    }
}
