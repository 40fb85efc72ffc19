//! JumpCloud SaaS Management: applications, their accounts, and the little else of it that the reference lists.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::behaviour::{Licence, ListShape};
use super::exchange::{Asked, Reply};
use super::jumpcloud::{envelope, error};
use super::people::{Account, Application};
use super::world::{TORQ_APP, World};

/// Answers a request below `saas-management`.
pub(super) fn answer(world: &mut World, asked: &Asked, path: &[&str]) -> Reply {
    // Documented: an organisation without the licence answers one or the other.
    match world.behaviour.licence {
        Licence::Valid => {}
        Licence::PaymentRequired => return error(402, "SaaS Management requires a license"),
        Licence::Forbidden => return error(403, "SaaS Management is not enabled"),
    }
    match (asked.method.as_str(), path) {
        ("GET", ["applications"]) => list_applications(world, asked),
        ("POST", ["applications"]) => create_application(world, asked),
        (_, ["applications"]) => error(405, "Method Not Allowed"),
        (method, ["applications", id, rest @ ..]) => {
            let found = world
                .applications
                .iter()
                .position(|(application, _)| application.id == *id);
            match found {
                Some(index) => application(world, asked, index, method, rest),
                None => error(404, "application not found"),
            }
        }
        ("GET", ["application-licenses"]) => page(world, asked, ListShape::Envelope, 0, |_| None),
        ("GET", ["application-licenses", id]) => {
            let known = world.applications.iter().any(|(one, _)| one.id == *id);
            if known {
                Reply::json(200, &json!({"results": [], "contract": null}))
            } else {
                error(404, "application not found")
            }
        }
        ("GET", ["application-catalog", id]) => match catalogue_name(id) {
            Some(name) => Reply::json(
                200,
                &json!({"id": id, "name": name, "description": "Invented for the sandbox",
                    "domains": [format!("{id}.example")], "logo_url": ""}),
            ),
            None => error(404, "catalog entry not found"),
        },
        _ => error(404, "Not Found"),
    }
}

/// The catalogue: Torq, and `other-1`, `other-2`, … for company.
fn catalogue_name(catalog_app_id: &str) -> Option<String> {
    if catalog_app_id == TORQ_APP {
        return Some("Torq".to_owned());
    }
    let number: u32 = catalog_app_id.strip_prefix("other-")?.parse().ok()?;
    Some(format!("Other application {number}"))
}

/// A v2 list: at most `list_cap` rows, by `offset` or by the word that this server takes for it.
fn page(world: &World, asked: &Asked, shape: ListShape, total: usize, row: impl Fn(usize) -> Option<Value>) -> Reply {
    let word = if world.behaviour.skip_instead_of_offset {
        "skip"
    } else {
        "offset"
    };
    let (Some(limit), Some(offset)) = (asked.number("limit", 10), asked.number(word, 0)) else {
        return error(400, "limit and offset must be numbers");
    };
    let offset = if world.behaviour.first_page_only { 0 } else { offset };
    let end = offset.saturating_add(limit.min(world.behaviour.list_cap)).min(total);
    let rows: Vec<Value> = (offset..end).filter_map(row).collect();
    let reply = match shape {
        ListShape::Bare => Reply::json(200, &Value::Array(rows)),
        ListShape::Envelope => envelope(world, total, rows),
    };
    match &world.behaviour.next_link {
        Some(link) => reply.with_header("link", format!("<{link}>; rel=\"next\"")),
        None => reply,
    }
}

fn list_applications(world: &World, asked: &Asked) -> Reply {
    let shape = world.behaviour.applications_shape;
    page(world, asked, shape, world.applications.len(), |index| {
        let (application, _) = world.applications.get(index)?;
        Some(application_row(application, asked, false))
    })
}

/// `name` comes with a single application only; the expansions only when asked for.
fn application_row(application: &Application, asked: &Asked, single: bool) -> Value {
    let mut row = json!({
        "id": application.id,
        "catalog_app_id": application.catalog_app_id,
        "status": application.status,
        "access_restriction": application.access_restriction,
        "discovered_at": application.discovered_at,
    });
    let Some(fields) = row.as_object_mut() else {
        return row;
    };
    if let Some(owner) = &application.owner_user_id {
        fields.insert("owner_user_id".to_owned(), owner.as_str().into());
    }
    if single {
        let name = catalogue_name(&application.catalog_app_id);
        fields.insert("name".to_owned(), name.into());
    }
    let expand = asked.parameter("expand").unwrap_or_default();
    if expand.contains("discovery_source_types") {
        fields.insert("discovery_source_types".to_owned(), json!(["API"]));
    }
    if expand.contains("sso_apps") {
        fields.insert("sso_apps".to_owned(), json!([]));
    }
    row
}

fn create_application(world: &mut World, asked: &Asked) -> Reply {
    let body = match object(asked) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Some(catalog_app_id) = body.get("catalog_app_id").and_then(Value::as_str) else {
        return error(400, "catalog_app_id is required");
    };
    if catalogue_name(catalog_app_id).is_none() {
        return error(400, "catalog_app_id is not in the catalog");
    }
    let exists = world
        .applications
        .iter()
        .any(|(application, _)| application.catalog_app_id == catalog_app_id);
    if exists && !world.behaviour.accept_duplicate_applications {
        return error(409, "the application exists already");
    }
    let application = world.create_application(catalog_app_id);
    let row = application_row(&application, asked, true);
    Reply::json(world.behaviour.create_status, &row)
}

/// Answers for one application that exists.
fn application(world: &mut World, asked: &Asked, index: usize, method: &str, path: &[&str]) -> Reply {
    match (method, path) {
        ("GET", []) => match world.applications.get(index) {
            Some((application, _)) => Reply::json(200, &application_row(application, asked, true)),
            None => error(404, "application not found"),
        },
        ("PUT", []) => update_application(world, asked, index),
        ("DELETE", []) => {
            let (application, _) = world.applications.remove(index);
            deleted(world, &application_row(&application, asked, true))
        }
        ("GET", ["accounts"]) => {
            let Some((application, accounts)) = world.applications.get(index) else {
                return error(404, "application not found");
            };
            let (shape, rows) = (world.behaviour.accounts_shape, accounts.rows());
            page(world, asked, shape, rows.len(), |index| {
                rows.get(index).map(|row| account_row(row, &application.id))
            })
        }
        ("POST", ["accounts"]) => create_account(world, asked, index),
        ("GET", ["accounts", id]) => match world.applications.get(index) {
            Some((application, accounts)) => match accounts.get(id) {
                Some(account) => Reply::json(200, &account_row(account, &application.id)),
                None => error(404, "account not found"),
            },
            None => error(404, "application not found"),
        },
        ("PUT", ["accounts", id]) => associate(world, asked, index, id),
        ("DELETE", ["accounts", id]) => {
            let Some((application, accounts)) = world.applications.get_mut(index) else {
                return error(404, "application not found");
            };
            match accounts.remove(id) {
                Some(account) => {
                    let row = account_row(&account, &application.id);
                    deleted(world, &row)
                }
                None => error(404, "account not found"),
            }
        }
        ("GET", ["usage"]) => usage(world, asked, index),
        (_, [] | ["accounts"] | ["accounts", _] | ["usage"]) => error(405, "Method Not Allowed"),
        _ => error(404, "Not Found"),
    }
}

fn update_application(world: &mut World, asked: &Asked, index: usize) -> Reply {
    let body = match object(asked) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Some((application, _)) = world.applications.get_mut(index) else {
        return error(404, "application not found");
    };
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    if let Some(status) = text("status") {
        application.status = status;
    }
    if let Some(restriction) = text("access_restriction") {
        application.access_restriction = restriction;
    }
    if let Some(owner) = text("owner_user_id") {
        application.owner_user_id = Some(owner);
    }
    Reply::json(200, &application_row(application, asked, true))
}

/// An account has only the fields that it has: there are some with neither e-mail nor user name.
fn account_row(account: &Account, application_id: &str) -> Value {
    let mut row = json!({"id": account.id, "parent_app_id": application_id});
    if let Some(fields) = row.as_object_mut() {
        for (name, value) in [
            ("email", &account.email),
            ("username", &account.username),
            ("user_id", &account.user_id),
        ] {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value.as_str().into());
            }
        }
    }
    row
}

fn create_account(world: &mut World, asked: &Asked, index: usize) -> Reply {
    if let Some(status) = world.behaviour.account_create_refused {
        return error(status, "creating accounts is not supported");
    }
    let body = match object(asked) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Some(email) = body
        .get("email")
        .and_then(Value::as_str)
        .filter(|email| email.contains('@'))
    else {
        return error(400, "email is required and must be an e-mail address");
    };
    let user_id = match directory_user(world, &body) {
        Ok(user_id) => user_id,
        Err(refusal) => return refusal,
    };
    let failing = &world.behaviour.failing_emails;
    if failing.iter().any(|other| other.eq_ignore_ascii_case(email)) {
        return error(500, "something went wrong");
    }
    let refused = &world.behaviour.refused_emails;
    if refused.iter().any(|other| other.eq_ignore_ascii_case(email)) {
        return error(422, "the e-mail address is not acceptable");
    }
    let exists = world
        .applications
        .get(index)
        .is_some_and(|(_, accounts)| accounts.has_email(email));
    if exists && !world.behaviour.accept_duplicates {
        return error(409, "an account with this e-mail exists already");
    }
    let account = Account {
        id: world.next_id(),
        email: Some(email.to_owned()),
        username: body.get("username").and_then(Value::as_str).map(str::to_owned),
        user_id,
    };
    let status = world.behaviour.create_status;
    let Some((application, accounts)) = world.applications.get_mut(index) else {
        return error(404, "application not found");
    };
    let row = account_row(&account, &application.id);
    accounts.insert(account);
    Reply::json(status, &row)
}

fn associate(world: &mut World, asked: &Asked, index: usize, id: &str) -> Reply {
    if let Some(status) = world.behaviour.account_associate_refused {
        return error(status, "updating accounts is not supported");
    }
    let body = match object(asked) {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let known = world
        .applications
        .get(index)
        .is_some_and(|(_, accounts)| accounts.get(id).is_some());
    if !known {
        return error(404, "account not found");
    }
    let failing = &world.behaviour.failing_emails;
    let email = world
        .applications
        .get(index)
        .and_then(|(_, accounts)| accounts.get(id)?.email.as_deref());
    if failing
        .iter()
        .any(|other| email.is_some_and(|email| other.eq_ignore_ascii_case(email)))
    {
        return error(500, "something went wrong");
    }
    let user_id = match directory_user(world, &body) {
        Ok(Some(user_id)) => user_id,
        Ok(None) => return error(400, "user_id is required"),
        Err(refusal) => return refusal,
    };
    let Some((application, accounts)) = world.applications.get_mut(index) else {
        return error(404, "application not found");
    };
    match accounts.get_mut(id) {
        Some(account) => {
            account.user_id = Some(user_id);
            Reply::json(200, &account_row(account, &application.id))
        }
        None => error(404, "account not found"),
    }
}

/// The `user_id` of a body, where there is one: it must be in the directory.
fn directory_user(world: &World, body: &Map<String, Value>) -> Result<Option<String>, Reply> {
    match body.get("user_id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if world.directory.get(id).is_some() => Ok(Some(id.clone())),
        Some(_) => Err(error(400, "user_id is not a user of this organization")),
    }
}

/// When the people behind the accounts last logged in to Torq.
fn usage(world: &World, asked: &Asked, index: usize) -> Reply {
    if !matches!(asked.number("day_count", 30), Some(1..=90)) {
        return error(400, "day_count must be from 1 to 90");
    }
    let Some((_, accounts)) = world.applications.get(index) else {
        return error(404, "application not found");
    };
    let logins: HashMap<String, &String> = world
        .people
        .values()
        .filter_map(|person| Some((person.email.to_lowercase(), person.last_login_time.as_ref()?)))
        .collect();
    let rows: Vec<Value> = accounts
        .rows()
        .iter()
        .filter_map(|account| {
            let at = logins.get(&account.email.as_ref()?.to_lowercase())?;
            Some(json!({"account_id": account.id, "latest_used_at": at}))
        })
        .collect();
    page(world, asked, world.behaviour.accounts_shape, rows.len(), |index| {
        rows.get(index).cloned()
    })
}

/// A deletion answers with the object or with nothing.
fn deleted(world: &World, row: &Value) -> Reply {
    if world.behaviour.delete_returns_object {
        Reply::json(200, row)
    } else {
        Reply::empty(204)
    }
}

fn object(asked: &Asked) -> Result<Map<String, Value>, Reply> {
    if !asked.says_json() {
        return Err(error(415, "the body must be application/json"));
    }
    match asked.json() {
        Some(Value::Object(fields)) => Ok(fields),
        _ => Err(error(400, "the body must be a JSON object")),
    }
}
