//! The control API below `/sandbox`: what a person or a script does to the world from outside.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::exchange::{Asked, Reply};
use super::fault::{Fault, FaultRule};
use super::handle::WorldHandle;
use super::journal::Endpoint;
use super::life;

/// More than this at once is a mistake.
const MOST: usize = 100_000;

/// The help page, without the names that follow it. `URL` is where it was asked for.
const HELP: &str = r#"Torq and JumpCloud, for demonstration and tests. Everything here is invented.
What can be done, each with its command (before curl 7.82: -H 'Content-Type: application/json' -d, in place of --json):

Look
  curl URL/world                                      counts
  curl URL/people                                     the people of the workspace
  curl URL/requests                                   counts of requests by method and endpoint
People come and go
  curl -X POST URL/arrive                             somebody joins
  curl --json '{"count": 3}' URL/arrive               three join
  curl -X POST URL/leave                              somebody leaves
  curl --json '{"email": "EMAIL"}' URL/leave          this one leaves
  curl --json '{"count": 30}' URL/leave               thirty at once: held until they are approved
  curl -X POST URL/login                              somebody logs in; also with count, or an email
  curl --json '{"count": 3}' URL/tick                 three small things happen
Credentials and permission
  curl --json '{"peer": "torq"}' URL/revoke           Torq's API key is revoked: reconnect required
  curl --json '{"peer": "torq"}' URL/restore          it is good again; then: torq-connector reconnect
  curl --json '{"peer": "jumpcloud"}' URL/revoke      JumpCloud's service account is revoked
  curl --json '{"peer": "jumpcloud"}' URL/restore     it is good again
  curl --json '{"granted": false}' URL/scope          the role of Torq's key loses user.read; true: it has it again
Faults
  curl --json '{"rule": "503:accounts:0.1"}' URL/faults   every tenth look at the accounts fails
  curl --json '{"rule": "402:accounts"}' URL/faults       no licence
  curl --json '{"rule": "404:account-create"}' URL/faults   account writes are not offered
  curl -X DELETE URL/faults                           no more faults
"#;

/// Answers a request that is for neither of the two APIs.
pub(super) fn answer(handle: &WorldHandle, asked: &Asked) -> Reply {
    // A page elsewhere must not reach this through somebody's browser: neither by a name that it points here, nor by
    // a form that it submits.
    let host = asked.header("host").is_some_and(is_loopback);
    let origin = asked
        .header("origin")
        .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host)));
    if !host || !origin {
        return Reply::text(403, "The sandbox answers to loopback addresses only.\n");
    }
    let body = if asked.body.is_empty() {
        Map::new()
    } else {
        match asked.json() {
            Some(Value::Object(fields)) => fields,
            _ => {
                return refuse("the body must be a JSON object, with Content-Type: application/json");
            }
        }
    };
    let result = match (asked.method.as_str(), asked.segments().as_slice()) {
        ("GET", ["sandbox"] | ["sandbox", ""]) => return help(asked.header("host").unwrap_or_default()),
        ("GET", ["sandbox", "world"]) => Ok(counts(handle)),
        ("GET", ["sandbox", "people"]) => Ok(json!({"people": handle.people()})),
        ("GET", ["sandbox", "requests"]) => Ok(requests(handle)),
        ("POST", ["sandbox", "arrive"]) => arrive(handle, &body),
        ("POST", ["sandbox", "leave"]) => leave(handle, &body),
        ("POST", ["sandbox", "login"]) => login(handle, &body),
        ("POST", ["sandbox", "tick"]) => count(&body)
            .map(|count| (0..count).filter_map(|_| handle.tick()).collect::<Vec<_>>())
            .map(|lines| json!({"happened": lines})),
        ("POST", ["sandbox", "revoke"]) => revoke(handle, &body, true),
        ("POST", ["sandbox", "restore"]) => revoke(handle, &body, false),
        ("POST", ["sandbox", "scope"]) => scope(handle, &body),
        ("POST", ["sandbox", "faults"]) => add_fault(handle, &body),
        ("DELETE", ["sandbox", "faults"]) => {
            handle.clear_faults();
            Ok(json!({"faults": 0}))
        }
        _ => return Reply::text(404, "Not found. GET /sandbox says what there is.\n"),
    };
    match result {
        Ok(value) => Reply::json(200, &value),
        Err(message) => refuse(&message),
    }
}

fn refuse(message: &str) -> Reply {
    Reply::json(400, &json!({"message": message}))
}

/// Whether a `Host` names this machine itself.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn help(host: &str) -> Reply {
    let commands = HELP.replace("URL", &format!("http://{host}/sandbox"));
    let endpoints: Vec<_> = Endpoint::ALL.iter().map(|one| one.as_str()).collect();
    Reply::text(
        200,
        &format!(
            "{commands}\nA rule is {}.\nFAULT is one of: {}.\nENDPOINT is one of: any, {}.\n",
            FaultRule::SYNTAX,
            Fault::NAMES.join(", "),
            endpoints.join(", ")
        ),
    )
}

/// `count` of a body: 1 where it is absent.
fn count(body: &Map<String, Value>) -> Result<usize, String> {
    match body.get("count") {
        None => Ok(1),
        Some(value) => value
            .as_u64()
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count <= MOST)
            .ok_or_else(|| format!("count must be a number from 0 to {MOST}")),
    }
}

fn email(body: &Map<String, Value>) -> Option<&str> {
    body.get("email").and_then(Value::as_str)
}

fn counts(handle: &WorldHandle) -> Value {
    let accounts = handle.accounts();
    let world = handle.lock();
    let sso = world.people.values().filter(|person| person.sso_provision).count();
    let owned = accounts.iter().filter(|one| one.user_id.is_some()).count();
    json!({
        "people": world.people.len(),
        "sso": sso,
        "local": world.people.len() - sso,
        "directory": world.directory.users().len(),
        "applications": world.applications.len(),
        "accounts": accounts.len(),
        "associated": owned,
        "faults": world.faults.len(),
    })
}

fn requests(handle: &WorldHandle) -> Value {
    let counts: Vec<Value> = handle
        .lock()
        .journal
        .counts()
        .into_iter()
        .map(|(method, endpoint, count)| json!({"method": method, "endpoint": endpoint.as_str(), "count": count}))
        .collect();
    json!({"requests": counts})
}

fn arrive(handle: &WorldHandle, body: &Map<String, Value>) -> Result<Value, String> {
    let count = count(body)?;
    let mut world = handle.lock();
    let now = Timestamp::now();
    let arrived: Vec<_> = (0..count).map(|_| world.arrive(now)).collect();
    Ok(json!({"arrived": arrived}))
}

fn leave(handle: &WorldHandle, body: &Map<String, Value>) -> Result<Value, String> {
    let mut world = handle.lock();
    let left: Vec<_> = match email(body) {
        Some(email) => {
            vec![life::leave(&mut world, Some(email)).ok_or_else(|| format!("nobody here has the e-mail {email}"))?]
        }
        None => (0..count(body)?).map_while(|_| life::leave(&mut world, None)).collect(),
    };
    Ok(json!({"left": left}))
}

fn login(handle: &WorldHandle, body: &Map<String, Value>) -> Result<Value, String> {
    let mut world = handle.lock();
    let lines: Vec<_> = match email(body) {
        Some(email) => {
            vec![life::login(&mut world, Some(email)).ok_or_else(|| format!("nobody here has the e-mail {email}"))?]
        }
        None => (0..count(body)?).map_while(|_| life::login(&mut world, None)).collect(),
    };
    Ok(json!({"happened": lines}))
}

fn revoke(handle: &WorldHandle, body: &Map<String, Value>, revoked: bool) -> Result<Value, String> {
    let peer = body.get("peer").and_then(Value::as_str);
    match (peer, revoked) {
        (Some("torq"), true) => handle.revoke_torq_key(),
        (Some("torq"), false) => handle.restore_torq_key(),
        (Some("jumpcloud"), true) => handle.revoke_jumpcloud_key(),
        (Some("jumpcloud"), false) => handle.restore_jumpcloud_key(),
        _ => return Err("write {\"peer\": \"torq\"} or {\"peer\": \"jumpcloud\"}".to_owned()),
    }
    Ok(json!({"peer": peer, "revoked": revoked}))
}

fn scope(handle: &WorldHandle, body: &Map<String, Value>) -> Result<Value, String> {
    let granted = body.get("granted").and_then(Value::as_bool);
    let granted = granted.ok_or("write {\"granted\": true} or {\"granted\": false}")?;
    handle.set_torq_scope(granted);
    Ok(json!({"granted": granted}))
}

fn add_fault(handle: &WorldHandle, body: &Map<String, Value>) -> Result<Value, String> {
    let text = body
        .get("rule")
        .and_then(Value::as_str)
        .ok_or_else(|| format!("write {{\"rule\": \"{}\"}}", FaultRule::SYNTAX))?;
    let rule = FaultRule::parse(text)?;
    let skip = match body.get("skip") {
        None => 0,
        Some(skip) => skip.as_u64().ok_or("skip must be a number")?,
    };
    let mut world = handle.lock();
    world.faults.add(rule.after(skip));
    Ok(json!({"faults": world.faults.len()}))
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_loopback_hosts_are_let_in() {
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:80", "127.9.9.9"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.com",
            "127.0.0.1.example.com",
            "localhost.example",
            "10.0.0.1:80",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
