//! The environment's layer: `TORQ_CONNECTOR__SECTION__KEY` to a key of the configuration.
//!
//! Variables with a single underscore behind `TORQ_CONNECTOR` (such as `TORQ_CONNECTOR_CONFIG`, or those that
//! Kubernetes makes for a service of that name) are none of ours. Values stay text, exactly as given: a secret
//! `0123456` or `1e5` would not survive being guessed at.

use std::collections::{BTreeMap, BTreeSet};

use ::config::Value;

use super::Problem;
use super::keys::{self, CONNECTOR, GENERAL};
use super::read::{Table, insert};
use crate::model::ConnectorName;

/// What our variables begin with.
pub(super) const PREFIX: &str = "TORQ_CONNECTOR__";

/// How an origin in the environment begins; the name of the variable follows.
const ORIGIN: &str = "the environment variable ";

/// Whether a value came from the environment.
pub(super) fn is_origin_of(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with(ORIGIN))
}

/// The layer of the environment. `connectors` are the names in the file, to which variables refer.
pub(super) fn layer(
    env: &BTreeMap<String, String>,
    connectors: &BTreeSet<String>,
    problems: &mut Vec<Problem>,
) -> Table {
    let mut table = Table::new();
    let mut taken: BTreeMap<Vec<String>, &str> = BTreeMap::new();
    for (variable, text) in env {
        let Some(rest) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let origin = format!("{ORIGIN}{variable}");
        match resolve(&rest.to_lowercase(), connectors) {
            Err(problem) => problems.push(problem.at(Some(&origin))),
            Ok(path) => match taken.get(&path) {
                Some(other) => problems.push(
                    Problem::new(
                        path.join("."),
                        format!("the variable {other} sets the same key; keep one of them"),
                    )
                    .at(Some(&origin)),
                ),
                None => {
                    let steps: Vec<&str> = path.iter().map(String::as_str).collect();
                    insert(&mut table, &steps, Value::new(Some(&origin), text.as_str()));
                    taken.insert(path, variable);
                }
            },
        }
    }
    table
}

/// The variable that sets a key: `connectors`, `acme-eu`, `torq`, `client_id` to `…ACME_EU__TORQ__CLIENT_ID`.
pub(super) fn variable(section: &str, name: &str) -> String {
    let part = name.to_uppercase().replace(['-', '.'], "_");
    if section.is_empty() {
        format!("{PREFIX}{part}")
    } else {
        format!("{section}__{part}")
    }
}

/// The variable that sets a key of a connector, such as `TORQ__CLIENT_SECRET`.
pub fn variable_of(connector: &ConnectorName, key: &str) -> String {
    let section = variable(&variable("", "connectors"), connector.as_str());
    format!("{section}__{key}")
}

/// The path of the key that the rest of a variable's name (in lower case) stands for.
fn resolve(rest: &str, connectors: &BTreeSet<String>) -> Result<Vec<String>, Problem> {
    if let Some(inner) = rest.strip_prefix("connectors__") {
        return resolve_connector(inner, connectors);
    }
    if let Some((key, _)) = GENERAL.iter().find(|(key, _)| flat(key) == rest) {
        return Ok(key.split('.').map(str::to_owned).collect());
    }
    let path = rest.replace("__", ".");
    if rest == "connectors" || keys::kind(GENERAL, &path) == keys::Kind::Section {
        return Err(section(&path));
    }
    if let Some(problem) = below_a_value(GENERAL, &path, "") {
        return Err(problem);
    }
    let (within, name) = path.rsplit_once('.').unwrap_or(("", &path));
    let message = if within.is_empty() || !keys::names(GENERAL, within).is_empty() {
        keys::advice(GENERAL, within, name, "")
    } else {
        let (first, _) = path.split_once('.').unwrap_or((&path, ""));
        keys::advice(GENERAL, "", first, "")
    };
    Err(Problem::new(path.as_str(), message))
}

/// The same behind `connectors__`. Names may contain `__` themselves, so the key is looked for from the end.
fn resolve_connector(inner: &str, connectors: &BTreeSet<String>) -> Result<Vec<String>, Problem> {
    let known = CONNECTOR.iter().find_map(|(key, _)| {
        let name = inner.strip_suffix(&flat(key))?.strip_suffix("__")?;
        (!name.is_empty()).then_some((name, *key))
    });
    if let Some((name, key)) = known {
        let name = named(name, connectors)?;
        let path = ["connectors", name.as_str()].into_iter().chain(key.split('.'));
        return Ok(path.map(str::to_owned).collect());
    }
    let Some((name, key)) = inner.split_once("__") else {
        return Err(section(&keys::join("connectors", &keys::quoted(inner))));
    };
    let name = named(name, connectors)?;
    let place = keys::join("connectors", &keys::quoted(&name));
    let path = key.replace("__", ".");
    let shown = keys::join(&place, &path);
    if keys::kind(CONNECTOR, &path) == keys::Kind::Section {
        return Err(section(&shown));
    }
    if let Some(problem) = below_a_value(CONNECTOR, &path, &place) {
        return Err(problem);
    }
    let (within, last) = path.rsplit_once('.').unwrap_or(("", &path));
    let message = if within.is_empty() || !keys::names(CONNECTOR, within).is_empty() {
        keys::advice(CONNECTOR, within, last, &place)
    } else {
        let (first, _) = path.split_once('.').unwrap_or((&path, ""));
        keys::advice(CONNECTOR, "", first, &place)
    };
    Err(Problem::new(shown, message))
}

/// The connector of the file that `segment` means, or the name of a new one.
fn named(segment: &str, connectors: &BTreeSet<String>) -> Result<String, Problem> {
    let meant: Vec<&String> = connectors
        .iter()
        .filter(|name| name.to_lowercase().replace(['-', '.'], "_") == segment)
        .collect();
    match meant.as_slice() {
        [] => Ok(segment.to_owned()),
        [only] => Ok((*only).clone()),
        [first, second, ..] => Err(Problem::new(
            keys::join("connectors", segment),
            format!(
                "this may mean {first} or {second}: a variable cannot tell them apart; set it in the file, \
                 or rename one of them"
            ),
        )),
    }
}

/// What there is to say about a path that goes on behind a key with a value.
fn below_a_value(known: &[(&str, Option<&str>)], path: &str, place: &str) -> Option<Problem> {
    let value = known.iter().map(|(key, _)| *key).find(|key| {
        let rest = path.strip_prefix(key);
        rest.is_some_and(|rest| rest.starts_with('.'))
    })?;
    let value = keys::join(place, value);
    Some(Problem::new(
        keys::join(place, path),
        format!("{value} is a key with a value, which has no further keys"),
    ))
}

fn section(key: &str) -> Problem {
    Problem::new(
        key,
        "this is a section, not a key with a value; go on with __ and a key",
    )
}

/// A dotted key as variables write it, in lower case.
fn flat(key: &str) -> String {
    key.replace('.', "__")
}
