//! A configuration file's text, and the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use toml::de::{DeTable, DeValue};
use torq_connector::config::{Config, JumpCloudCredentials, Problems, Secret, SecretSource, parse};
use torq_connector::model::ConnectorName;
use url::Url;

use super::Gauge;
use super::foreign::{Allowance, SECRET, assert_hides, assert_readable, within};

/// Where there is nothing: files that the configuration names are not to be found.
const FOLDER: &str = "/nonexistent/torq-connector";

/// A connector's section costs its defaults, its messages and their copies, however short it is written.
const ALLOWANCE: Allowance = Allowance {
    fixed: 256 * 1024,
    each: 8 * 1024,
};

/// Keys whose values may be shown, because nobody has a secret there: what was found helps to see what is wrong.
const SHOWN: &[&str] = &[
    "credentials_directory",
    "state_directory",
    "state_dir",
    "level",
    "format",
    "listen",
    "password_file",
    "hosts",
    "ca_file",
    "connect_timeout",
    "timeout",
    "poll_interval",
    "removals",
    "max_removals",
    "region",
    "client_id",
    "client_secret_file",
    "key_expires",
    "api_url",
    "token_url",
    "api_key_file",
    "org_id",
    "application",
    "console_url",
    "include_domains",
    "exclude_emails",
    "statuses",
];

/// Text as it stands in the file, and what is around it, which corpora write above it: lines of `#env NAME=VALUE` for variables,
/// `#mode 644` for the mode of the file.
struct Given<'a> {
    text: &'a str,
    env: BTreeMap<String, String>,
    mode: Option<u32>,
}

impl<'a> Given<'a> {
    fn of(mut text: &'a str) -> Self {
        let (mut env, mut mode) = (BTreeMap::new(), None);
        while let Some((line, rest)) = text.split_once('\n') {
            if let Some((name, value)) = line.strip_prefix("#env ").and_then(|line| line.split_once('=')) {
                env.insert(name.to_owned(), value.to_owned());
            } else if let Some(octal) = line.strip_prefix("#mode ") {
                mode = u32::from_str_radix(octal.trim(), 8).ok();
            } else {
                break;
            }
            text = rest;
        }
        Self { text, env, mode }
    }
}

/// A configuration that is good in every part, or everything that is wrong with it in words that hide its secrets.
pub fn configuration(data: &[u8], gauge: Gauge) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let given = Given::of(text);
    let folder = Path::new(FOLDER);
    let result = within(ALLOWANCE, gauge, data.len(), || {
        parse(given.text, folder, given.mode, &given.env)
    });
    match &result {
        Ok(config) => assert_good(config, &given),
        Err(problems) => assert_told(problems, &given),
    }
    match (result, parse(given.text, folder, given.mode, &given.env)) {
        (Ok(_), Ok(_)) => {}
        (Err(problems), Err(again)) => assert_eq!(problems, again, "told in the same order every time"),
        _ => panic!("good and bad at once"),
    }
}

fn assert_told(problems: &Problems, given: &Given<'_>) {
    assert!(!problems.0.is_empty(), "refused, and nothing is wrong with it");
    for problem in &problems.0 {
        let text = problem.to_string();
        assert_readable(&text, 2000);
        assert!(!problem.message.is_empty());
        let of_the_file = problem.message.starts_with("this is not TOML");
        let variable = problem
            .origin
            .as_deref()
            .is_some_and(|origin| origin.contains("environment variable"));
        assert!(
            !problem.key.is_empty() || of_the_file || variable,
            "about which key? {text}"
        );
        if !may_show(given) {
            assert_hides(problem, &[SECRET]);
        }
    }
    // Names that differ only in what is not shown of them look the same.
    let told = problems.0.iter().map(ToString::to_string);
    let told: Vec<String> = told.filter(|text| !text.contains(['\u{fffd}', '…'])).collect();
    let different: BTreeSet<&String> = told.iter().collect();
    assert_eq!(different.len(), told.len(), "told twice: {problems}");
}

/// Whether the secret stands where no secret belongs, so that what is told of that place may show it.
fn may_show(given: &Given<'_>) -> bool {
    let somewhere_else = given.env.iter().any(|(name, value)| {
        let last = name.rsplit("__").next().unwrap_or_default().to_lowercase();
        name.contains(SECRET) || (value.contains(SECRET) && SHOWN.contains(&last.as_str()))
    });
    // Of text that is no TOML, nothing at all is quoted.
    let table = DeTable::parse(given.text).ok();
    somewhere_else || table.is_some_and(|table| table_shows(table.get_ref(), ""))
}

fn table_shows(table: &DeTable<'_>, within: &str) -> bool {
    table.iter().any(|(name, value)| {
        let name = name.get_ref().as_ref();
        let key = if SHOWN.contains(&within) { within } else { name };
        name.contains(SECRET) || shows(value.get_ref(), key)
    })
}

fn shows(value: &DeValue<'_>, key: &str) -> bool {
    match value {
        DeValue::String(text) => text.contains(SECRET) && SHOWN.contains(&key),
        DeValue::Array(items) => items.iter().any(|item| shows(item.get_ref(), key)),
        DeValue::Table(table) => table_shows(table, key),
        _ => false,
    }
}

fn assert_good(config: &Config, given: &Given<'_>) {
    assert!(config.state_dir.is_absolute());
    assert!(!config.connectors.is_empty());
    let names: BTreeSet<String> = config
        .connectors
        .iter()
        .map(|c| c.name.as_str().to_lowercase())
        .collect();
    assert_eq!(
        names.len(),
        config.connectors.len(),
        "two connectors would share a file"
    );
    for within in [config.network.connect_timeout, config.network.timeout] {
        assert!(
            within > Duration::ZERO && within <= Duration::from_secs(24 * 3600),
            "{within:?}"
        );
    }
    for connector in &config.connectors {
        assert!(ConnectorName::parse(connector.name.as_str()).is_some());
        let month = Duration::from_secs(31 * 24 * 3600);
        assert!(connector.poll_interval >= Duration::from_secs(1) && connector.poll_interval <= month);
        let mut urls = vec![
            &connector.torq.api_url,
            &connector.torq.token_url,
            &connector.jumpcloud.console_url,
        ];
        assert_header(&connector.torq.client_id);
        assert_secret(&connector.torq.client_secret, given);
        match &connector.jumpcloud.credentials {
            JumpCloudCredentials::ServiceAccount {
                client_id,
                client_secret,
            } => {
                urls.push(&connector.jumpcloud.token_url);
                assert_header(client_id);
                assert_secret(client_secret, given);
            }
            JumpCloudCredentials::ApiKey(key) => {
                assert_header(key.expose());
                assert_secret(key, given);
            }
        }
        if let Some(id) = &connector.jumpcloud.org_id {
            assert_header(id);
        }
        for url in urls {
            assert_safe(url);
        }
    }
    if !may_show(given) {
        assert!(!format!("{config:?}").contains(SECRET), "{config:?}");
    }
}

/// Secrets go over TLS, or nowhere but to this machine.
fn assert_safe(url: &Url) {
    let local = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => panic!("{url} leads nowhere"),
    };
    assert!(url.scheme() == "https" || (url.scheme() == "http" && local), "{url}");
    assert!(url.username().is_empty() && url.password().is_none(), "{url}");
    assert!(url.query().is_none() && url.fragment().is_none(), "{url}");
}

/// What goes into a header as it is.
fn assert_header(text: &str) {
    assert!(
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()),
        "{text:?}"
    );
}

fn assert_secret(secret: &Secret, given: &Given<'_>) {
    let text = secret.expose();
    assert!(!text.is_empty() && text.len() <= 64 * 1024 && !text.chars().any(char::is_control));
    match secret.source {
        // As it was written: a secret that was guessed at is another one.
        SecretSource::Environment => assert!(given.env.values().any(|value| value == text)),
        SecretSource::Literal => {
            assert!(
                given.mode.is_none_or(|mode| mode & 0o004 == 0),
                "in a file that everybody can read"
            );
        }
        SecretSource::File(_) => {}
        SecretSource::Given => panic!("that is in no configuration"),
    }
}
