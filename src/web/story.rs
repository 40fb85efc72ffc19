//! Events put into words: what changed from what to what, roles by their names.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::Value;

use super::address;
use super::parts::{email, foreign, when};
use crate::view::{ConnectorState, EventKind, EventView};
use crate::wording;

/// The names of roles by their ids.
pub(super) type Roles = BTreeMap<String, String>;

/// What an event says beyond its kind: what changed, and why.
pub(super) fn told(event: &EventView, roles: &Roles) -> String {
    let mut parts = match event.kind {
        EventKind::UserAppeared => arrival(event, roles),
        EventKind::UserChanged => changes(event, roles),
        EventKind::StateChanged => change_of_state(event).into_iter().collect(),
        EventKind::AccountCreated | EventKind::AccountFound | EventKind::AccountAssociated => {
            match field(&event.after, "directory_user_id") {
                Some(id) => vec![format!("with directory user {id}")],
                None => vec!["without a directory user".to_owned()],
            }
        }
        _ => Vec::new(),
    };
    if let Some(reason) = &event.reason {
        parts.push(reason.clone());
    }
    parts.join("; ")
}

fn field<'a>(value: &'a Option<Value>, name: &str) -> Option<&'a str> {
    value.as_ref()?.get(name)?.as_str()
}

fn arrival(event: &EventView, roles: &Roles) -> Vec<String> {
    let Some(after) = &event.after else {
        return Vec::new();
    };
    ["role_id", "sso", "status"]
        .into_iter()
        .filter_map(|name| {
            let given = after.get(name)?;
            // The id of a role whose name is not known (yet) tells a person nothing.
            let nameless = name == "role_id" && given.as_str().is_none_or(|id| !roles.contains_key(id));
            let told = value(name, given, roles);
            (!nameless && !told.is_empty()).then_some(told)
        })
        .collect()
}

fn changes(event: &EventView, roles: &Roles) -> Vec<String> {
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (&event.before, &event.after) else {
        return Vec::new();
    };
    after
        .iter()
        .map(|(name, now)| {
            let was = value(name, before.get(name).unwrap_or(&Value::Null), roles);
            format!("{}: {was} → {}", name_of(name), value(name, now, roles))
        })
        .collect()
}

fn name_of(field: &str) -> &str {
    match field {
        "email" => "e-mail",
        "role_id" => "role",
        "last_login" => "last login",
        "sso" => "provisioned",
        other => other,
    }
}

/// The value of a field of a user, in words.
fn value(field: &str, value: &Value, roles: &Roles) -> String {
    match (field, value) {
        ("last_login", Value::Null) => "never".to_owned(),
        (_, Value::Null) => "none".to_owned(),
        ("sso", Value::Bool(true)) => "SSO".to_owned(),
        ("sso", Value::Bool(false)) => "local".to_owned(),
        ("role_id", Value::String(id)) => role(id, roles).to_owned(),
        ("created" | "last_login", Value::String(text)) => text
            .parse::<Timestamp>()
            .map_or_else(|_| text.clone(), |at| at.strftime("%Y-%m-%d %H:%M").to_string()),
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    }
}

/// A role's name; its id where the name is not known.
fn role<'a>(id: &'a str, roles: &'a Roles) -> &'a str {
    roles.get(id).map_or(id, String::as_str)
}

fn change_of_state(event: &EventView) -> Option<String> {
    let state = |value| ConnectorState::parse(field(value, "state")?);
    let (before, after) = (state(&event.before)?, state(&event.after)?);
    Some(format!("{} → {}", wording::state(before), wording::state(after)))
}

/// Rows of events, newest first.
pub(super) fn rows(events: &[EventView], roles: &Roles, now: Timestamp, who: bool) -> Markup {
    html! {
        thead { tr {
            th scope="col" { "When" }
            th scope="col" { "What" }
            @if who { th scope="col" { "Who" } }
            th scope="col" { "Details" }
        } }
        tbody {
            @for event in events {
                tr {
                    td { (when(event.at, now, "")) }
                    td { (wording::event(event.kind)) }
                    @if who { td class="long" { (whom(event)) } }
                    td class="long details" { (foreign(&told(event, roles))) }
                }
            }
        }
    }
}

/// Whom an event concerns, linked to their page.
pub(super) fn whom(event: &EventView) -> Markup {
    let words = event
        .email
        .as_deref()
        .filter(|email| !email.is_empty())
        .or(event.user_id.as_deref());
    let href = event
        .user_id
        .as_deref()
        .and_then(|id| address::user(&event.connector, id));
    html! {
        @match (href, words) {
            (Some(href), Some(words)) => a href=(href) { (email(words)) },
            (_, Some(words)) => (email(words)),
            _ => span class="faint" { "–" },
        }
    }
}
