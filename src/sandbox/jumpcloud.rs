//! JumpCloud's console API: who may ask, and the directory users of v1. SaaS Management is in [`super::saas`].

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::behaviour::TotalCount;
use super::exchange::{Asked, Reply};
use super::journal::Peer;
use super::people::DirectoryUser;
use super::saas;
use super::tokens::Standing;
use super::world::World;

/// Answers a request below `/jumpcloud`.
pub(super) fn answer(world: &mut World, asked: &Asked) -> Reply {
    let segments = asked.segments();
    let path = segments.get(1..).unwrap_or_default();
    if path == ["oauth2", "token"] {
        let advertised = world.behaviour.advertised_lifetime;
        return world.jumpcloud_tokens.answer(asked, advertised);
    }
    if let Err(refusal) = admit(world, asked) {
        return refusal;
    }
    match (asked.method.as_str(), path) {
        ("GET", ["api", "systemusers"]) => list_directory(world, asked),
        ("POST", ["api", "search", "systemusers"]) => search_directory(world, asked),
        (_, ["api", "systemusers"] | ["api", "search", "systemusers"]) => error(405, "Method Not Allowed"),
        (_, ["api", "v2", "saas-management", rest @ ..]) => saas::answer(world, asked, rest),
        _ => error(404, "Not Found"),
    }
}

pub(super) fn error(status: u16, message: &str) -> Reply {
    Reply::error(Peer::JumpCloud, status, message)
}

/// Rate, credentials, permission, organisation: what stands before every request of the console.
fn admit(world: &mut World, asked: &Asked) -> Result<(), Reply> {
    let now = Instant::now();
    if world.jumpcloud_meter.refuses(now, world.jumpcloud_rate) {
        let reply = error(429, "Too Many Requests");
        return Err(match &world.behaviour.retry_after {
            Some(pause) => reply.with_header("retry-after", pause.clone()),
            None => reply,
        });
    }
    let known = match (asked.bearer(), asked.header("x-api-key")) {
        (Some(token), _) => world.jumpcloud_tokens.standing(token, now) == Standing::Valid,
        (None, Some(key)) => key == world.api_key,
        (None, None) => false,
    };
    if !known {
        return Err(error(401, "Unauthorized"));
    }
    if world.behaviour.jumpcloud_forbidden {
        return Err(error(403, "Forbidden"));
    }
    // Documented: credentials that manage several organisations must name one.
    if let Some(org_id) = &world.org_id {
        match asked.header("x-org-id") {
            Some(named) if named == org_id => {}
            Some(_) => return Err(error(400, "invalid x-org-id: no such organization")),
            None => {
                return Err(error(
                    400,
                    "x-org-id header is required: the credentials manage several organizations",
                ));
            }
        }
    }
    Ok(())
}

/// The bounds of a page: v1 pages with `skip`, ten rows unless asked for more, a hundred at most.
fn page(total: usize, skip: usize, limit: usize, cap: usize) -> std::ops::Range<usize> {
    let start = skip.min(total);
    start..total.min(start.saturating_add(limit.min(cap)))
}

fn list_directory(world: &World, asked: &Asked) -> Reply {
    let (Some(limit), Some(skip)) = (asked.number("limit", 10), asked.number("skip", 0)) else {
        return error(400, "limit and skip must be numbers");
    };
    let users = world.directory.users();
    // Documented: any other order than by _id loses and repeats rows while the collection changes.
    let shift = match asked.parameter("sort") {
        Some("_id") => 0,
        _ => (world.directory.changes + 1).wrapping_mul(7919),
    };
    let rows: Vec<_> = page(users.len(), skip, limit, world.behaviour.directory_cap)
        .filter_map(|index| users.get(index.wrapping_add(shift) % users.len()))
        .collect();
    let fields = asked.parameter("fields");
    found(world, users.len(), &rows, fields)
}

fn search_directory(world: &World, asked: &Asked) -> Reply {
    let Some(body) = asked.json() else {
        return error(400, "the body must be JSON");
    };
    let number = |name: &str, default: usize| match body.get(name) {
        None => Some(default),
        Some(value) => value.as_u64().and_then(|number| usize::try_from(number).ok()),
    };
    let (Some(limit), Some(skip)) = (number("limit", 10), number("skip", 0)) else {
        return error(400, "limit and skip must be numbers");
    };
    let Some(wanted) = body.get("filter").and_then(emails_of) else {
        return error(400, "filter must be {\"or\": [{\"email\": …}, …]}");
    };
    if world.behaviour.search_batch_cap.is_some_and(|cap| wanted.len() > cap) {
        return error(400, "too many alternatives in the filter");
    }
    let mut ids: Vec<String> = wanted
        .iter()
        .filter(|email| world.behaviour.search_ignores_case || **email == email.to_lowercase())
        .filter_map(|email| world.directory.id_of(email))
        .collect();
    if world.behaviour.search_ignores_filter {
        ids = world.directory.users().iter().map(|user| user.id.clone()).collect();
    }
    ids.sort();
    ids.dedup();
    let rows: Vec<_> = page(ids.len(), skip, limit, world.behaviour.directory_cap)
        .filter_map(|index| ids.get(index).and_then(|id| world.directory.get(id)))
        .collect();
    let fields = body.get("fields").and_then(Value::as_str);
    found(world, ids.len(), &rows, fields)
}

/// The e-mails of `{"or": [{"email": …}, …]}`, or of one condition alone.
fn emails_of(filter: &Value) -> Option<Vec<&str>> {
    let conditions = match filter.get("or") {
        Some(conditions) => conditions.as_array()?.as_slice(),
        None => std::slice::from_ref(filter),
    };
    conditions
        .iter()
        .map(|condition| {
            let condition = condition.as_object().filter(|fields| fields.len() == 1)?;
            condition.get("email")?.as_str()
        })
        .collect()
}

/// The v1 shape, with the fields that were asked for and `_id`, which is always there.
fn found(world: &World, total: usize, rows: &[&DirectoryUser], fields: Option<&str>) -> Reply {
    let wanted: Option<Vec<&str>> = fields
        .filter(|fields| !fields.trim().is_empty())
        .map(|fields| fields.split([' ', ',']).collect());
    let rows: Vec<Value> = rows
        .iter()
        .map(|user| {
            let (first, last) = user.name.split_once(' ').unwrap_or((&user.name, ""));
            let local = user.email.split('@').next().unwrap_or_default();
            let mut row = Map::new();
            for (name, value) in [
                ("email", json!(user.email)),
                ("username", json!(local)),
                ("firstname", json!(first)),
                ("lastname", json!(last)),
                ("activated", json!(true)),
                ("suspended", json!(false)),
            ] {
                if wanted.as_ref().is_none_or(|wanted| wanted.contains(&name)) {
                    row.insert(name.to_owned(), value);
                }
            }
            row.insert("_id".to_owned(), json!(user.id));
            Value::Object(row)
        })
        .collect();
    envelope(world, total, rows)
}

/// `{"results": [ … ], "totalCount": n}`, where the count is what the behaviour makes of it.
pub(super) fn envelope(world: &World, total: usize, rows: Vec<Value>) -> Reply {
    let count = match world.behaviour.total_count {
        TotalCount::Honest => Some(total),
        TotalCount::Page => Some(rows.len()),
        TotalCount::Zero => Some(0),
        TotalCount::Absent => None,
    };
    let mut answer = json!({"results": rows});
    if let (Some(count), Some(answer)) = (count, answer.as_object_mut()) {
        answer.insert("totalCount".to_owned(), count.into());
    }
    Reply::json(200, &answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_filters_by_email_are_understood() {
        let emails =
            |filter: Value| emails_of(&filter).map(|emails| emails.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            emails(json!({"or": [{"email": "a@example.com"}, {"email": "b@example.com"}]})),
            Some(vec!["a@example.com".to_owned(), "b@example.com".to_owned()])
        );
        assert_eq!(
            emails(json!({"email": "a@example.com"})),
            Some(vec!["a@example.com".to_owned()])
        );
        assert_eq!(emails(json!({"or": [{"username": "a"}]})), None);
        assert_eq!(emails(json!({"or": "a"})), None);
    }

    #[test]
    fn a_page_stays_within_the_list() {
        assert_eq!(page(5, 0, 100, 3), 0..3);
        assert_eq!(page(5, 3, 100, 100), 3..5);
        assert_eq!(page(5, 9, 100, 100), 5..5);
        assert_eq!(page(5, 1, usize::MAX, usize::MAX), 1..5);
    }
}
