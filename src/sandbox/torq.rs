//! Torq's API: users and roles, by the facts of its public reference.

use std::ops::Bound;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::behaviour::PageTokens;
use super::exchange::{Asked, Reply};
use super::journal::Peer;
use super::people::{Person, roles};
use super::tokens::Standing;
use super::world::World;

/// Answers a request below `/torq`.
pub(super) fn answer(world: &mut World, asked: &Asked) -> Reply {
    let segments = asked.segments();
    let path = segments.get(1..).unwrap_or_default();
    match path {
        ["v1", "auth", "token"] => {
            let advertised = world.behaviour.advertised_lifetime;
            return world.torq_tokens.answer(asked, advertised);
        }
        ["login"] => {
            return Reply::html(200, "<!doctype html><title>Log in</title><form>…</form>");
        }
        _ => {}
    }
    let rest = match (path, world.behaviour.torq_without_public) {
        (["public", "v1alpha", rest @ ..], false) | (["v1alpha", rest @ ..], true) => rest,
        _ => return error(404, "Not Found"),
    };
    let now = Instant::now();
    if world.torq_meter.refuses(now, world.torq_rate) {
        let reply = error(429, "too many requests");
        return match &world.behaviour.retry_after {
            Some(pause) => reply.with_header("retry-after", pause.clone()),
            None => reply,
        };
    }
    let standing = asked
        .bearer()
        .map_or(Standing::Unknown, |token| world.torq_tokens.standing(token, now));
    match standing {
        Standing::Valid => {}
        // Documented: an expired token is a redirect. It leads to a login page, which is HTML and 200.
        Standing::Expired => {
            let host = asked.header("host").unwrap_or("127.0.0.1");
            let login = world.behaviour.login_url.clone();
            let login = login.unwrap_or_else(|| format!("http://{host}/torq/login"));
            return Reply::html(302, "<!doctype html><title>Found</title>").with_header("location", login);
        }
        Standing::Unknown => return error(401, "the token is not valid"),
    }
    if asked.method != "GET" {
        return error(405, "Method Not Allowed");
    }
    match rest {
        ["users"] if !world.torq_scope => error(403, "the role lacks the permission user.read"),
        ["users"] => users(world, asked),
        // Older clients use the second path.
        ["roles"] | ["users", "roles"] => list_roles(world),
        _ => error(404, "Not Found"),
    }
}

fn error(status: u16, message: &str) -> Reply {
    Reply::error(Peer::Torq, status, message)
}

/// Where a page token leads. Only the sandbox reads it; to a client it is opaque.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    /// Tokens of an earlier generation are stale.
    generation: u64,
    /// `sso_provision` as it was asked: a token belongs to one listing.
    filter: Option<String>,
    /// The rows after this id.
    after: String,
    /// The same of the page before.
    before: String,
    /// How many pages came before.
    number: u64,
    /// Whether this page is an empty one between two others.
    empty: bool,
    /// Makes a token different from all others.
    fresh: u64,
}

impl Cursor {
    /// The token: it contains `+`, `/` and `=`, so that a client which does not percent-encode it fails.
    fn token(&self, secret: u64) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        let seal = seal(&text, secret);
        format!("Tq+/{}=", STANDARD.encode(format!("{seal:016x}{text}")))
    }

    fn read(token: &str, secret: u64) -> Option<Self> {
        let encoded = token.strip_prefix("Tq+/")?.strip_suffix('=')?;
        let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (sealed, text) = text.split_at_checked(16)?;
        (sealed == format!("{:016x}", seal(text, secret)))
            .then(|| serde_json::from_str(text).ok())
            .flatten()
    }
}

/// FNV-1a: enough to tell tokens that this sandbox made from others.
fn seal(text: &str, secret: u64) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325 ^ secret, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn users(world: &mut World, asked: &Asked) -> Reply {
    let camel = world.behaviour.torq_camel_case;
    let parameter = |snake: &str, spelled: &str| {
        let found = asked.parameter(snake);
        if camel {
            found.or(asked.parameter(spelled))
        } else {
            found
        }
    };
    let filter = asked.parameter("sso_provision");
    let wanted = match filter {
        // Observed: without the filter there are the locally provisioned users only.
        None | Some("") | Some("false") => false,
        Some("true") => true,
        Some(_) => return error(400, "sso_provision must be true or false"),
    };
    let size = match parameter("page_size", "pageSize").map(str::parse) {
        None | Some(Ok(0)) => 50,
        Some(Ok(size @ 1..=100)) => size,
        Some(_) => return error(400, "the page size must be at most 100"),
    };
    let size = size.min(world.behaviour.torq_page_cap.max(1));
    let cursor = match parameter("page_token", "pageToken") {
        None | Some("") => Cursor {
            generation: world.page_generation,
            filter: filter.map(str::to_owned),
            ..Cursor::default()
        },
        Some(token) => match Cursor::read(token, world.seed) {
            Some(cursor) if cursor.generation == world.page_generation && cursor.filter.as_deref() == filter => cursor,
            _ => return error(world.behaviour.stale_token_status, "invalid page token"),
        },
    };

    let start = if cursor.after.is_empty() {
        Bound::Unbounded
    } else {
        Bound::Excluded(cursor.after.as_str())
    };
    let everyone = world.behaviour.ignore_sso_filter;
    let mut rows: Vec<&Person> = world
        .people
        .range::<str, _>((start, Bound::Unbounded))
        .map(|(_, person)| person)
        .filter(|person| everyone || person.sso_provision == wanted)
        .take(if cursor.empty { 0 } else { size + 1 })
        .collect();
    let more = rows.len() > size;
    rows.truncate(size);
    let last = rows.last().map_or(&cursor.after, |person| &person.id).clone();

    let defaults = world.behaviour.emit_defaults;
    let mut answer = Map::new();
    // proto3 JSON leaves empty lists out, too.
    if defaults || !rows.is_empty() {
        let rows = rows.into_iter().map(|person| record(person, defaults));
        answer.insert("users".to_owned(), rows.collect());
    }
    if let Some(next) = next_cursor(world, &cursor, last, more) {
        let name = if camel { "nextPageToken" } else { "next_page_token" };
        answer.insert(name.to_owned(), next.token(world.seed).into());
    } else if defaults {
        answer.insert("next_page_token".to_owned(), "".into());
    }
    Reply::json(200, &Value::Object(answer))
}

fn next_cursor(world: &mut World, cursor: &Cursor, last: String, more: bool) -> Option<Cursor> {
    let onward = Cursor {
        after: last,
        before: cursor.after.clone(),
        number: cursor.number + 1,
        empty: false,
        ..cursor.clone()
    };
    match world.behaviour.page_tokens {
        PageTokens::Repeat if cursor.number > 0 => Some(cursor.clone()),
        PageTokens::Alternate if cursor.number > 1 => Some(Cursor {
            after: cursor.before.clone(),
            before: String::new(),
            number: 1,
            ..cursor.clone()
        }),
        PageTokens::Repeat | PageTokens::Alternate => Some(onward),
        PageTokens::FreshForSamePage => {
            world.fresh_tokens += 1;
            Some(Cursor {
                fresh: world.fresh_tokens,
                ..cursor.clone()
            })
        }
        PageTokens::Honest if cursor.empty => Some(onward),
        PageTokens::Honest if more => Some(Cursor {
            empty: world.behaviour.empty_pages,
            ..onward
        }),
        PageTokens::Honest => {
            // The page that the trailing token leads to starts where this one ended, and is not followed by another.
            let trailing = world.behaviour.trailing_page_token && onward.after != cursor.after;
            trailing.then_some(onward)
        }
    }
}

/// A user in proto3 JSON: a field with its default value is left out, and so is the zero of an enumeration.
fn record(person: &Person, defaults: bool) -> Value {
    if let Some(raw) = &person.raw {
        return raw.clone();
    }
    let mut record = Map::new();
    for (name, value) in [
        ("id", &person.id),
        ("email", &person.email),
        ("role_id", &person.role_id),
        ("status", &person.status),
        ("created_time", &person.created_time),
    ] {
        let default = value.is_empty() || (name == "status" && value == "STATUS_UNSPECIFIED");
        if defaults || !default {
            record.insert(name.to_owned(), value.as_str().into());
        }
    }
    if defaults || person.sso_provision {
        record.insert("sso_provision".to_owned(), person.sso_provision.into());
    }
    // A message field that is not set has no default to send.
    if let Some(at) = &person.last_login_time {
        record.insert("last_login_time".to_owned(), at.as_str().into());
    }
    Value::Object(record)
}

fn list_roles(world: &World) -> Reply {
    let defaults = world.behaviour.emit_defaults;
    let rows: Vec<Value> = roles()
        .iter()
        .map(|role| {
            let mut row = json!({"id": role.id, "name": role.name, "scope_names": role.scope_names});
            if let Some(row) = row.as_object_mut() {
                if defaults || !role.description.is_empty() {
                    row.insert("description".to_owned(), role.description.into());
                }
                if defaults || role.is_custom {
                    row.insert("is_custom".to_owned(), role.is_custom.into());
                }
            }
            row
        })
        .collect();
    Reply::json(200, &json!({"roles": rows}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_needs_percent_encoding_and_cannot_be_forged() {
        let cursor = Cursor {
            after: "x".to_owned(),
            ..Cursor::default()
        };
        let token = cursor.token(1);
        assert!(["+", "/", "="].iter().all(|sign| token.contains(sign)), "{token}");
        assert_eq!(Cursor::read(&token, 1), Some(cursor));
        assert_eq!(Cursor::read(&token, 2), None);
        assert_eq!(Cursor::read(&token.replace('+', " "), 1), None);
        assert_eq!(Cursor::read("Tq+/=", 1), None);
    }

    #[test]
    fn default_values_are_left_out() {
        let mut person = Person::with_email("");
        person.status = "STATUS_UNSPECIFIED".to_owned();
        let sent = record(&person, false);
        for absent in ["email", "status", "sso_provision", "last_login_time"] {
            assert_eq!(sent.get(absent), None, "{absent}");
        }
        assert_eq!(sent["id"], person.id);
        assert_eq!(record(&person, true)["sso_provision"], false);
    }
}
