//! Configuration: what a checked configuration looks like, and how to get one.
//!
//! The way of a configuration: `read` parses the file and lays `keys`' defaults, the file and the `environment`
//! over each other; `check` and `connector` walk through the result with `value` and `secret`, and tell everything
//! that is wrong at once, as [`Problems`]. `filter` answers questions about a checked configuration.

mod authorities;
mod check;
mod connector;
mod environment;
mod file;
mod filter;
mod keys;
mod notify;
mod problem;
mod read;
mod secret;
#[cfg(test)]
mod tests;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::model::ConnectorName;

pub use authorities::Authorities;
pub use connector::is_of_a_region;
pub use environment::variable_of;
pub use filter::{KEY_SOON, PATIENCE, days_left, patience};
pub use notify::{HookFormat, HookUrl, Occasion};
pub use problem::{Problem, Problems};
pub use read::{Usable, load, load_for, load_to_run, load_usable, load_without_secrets, parse, parse_for, state_dir};
pub use secret::Reread;

/// The example configuration: every key, with its default or an example.
pub const EXAMPLE: &str = include_str!("../../config/torq-connector.toml");

/// A complete, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the state files, locks and the control socket live.
    pub state_dir: PathBuf,
    /// Logging.
    pub log: Log,
    /// The status page, health and metrics.
    pub http: Http,
    /// How connections to both peers are made.
    pub network: Network,
    /// The connectors, in the order of their names.
    pub connectors: Vec<Connector>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A level, or a `tracing` filter.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[http]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// Where to listen; `None` for `"off"`.
    pub listen: Option<SocketAddr>,
    /// The password of the page and the API, when one is configured.
    pub password: Option<Secret>,
    /// Names, besides IP addresses and `localhost`, by which browsers may call the page.
    pub hosts: Vec<String>,
}

/// `[network]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Certificate authorities to trust besides the system's.
    pub ca_file: Option<Authorities>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a whole exchange may take.
    pub timeout: Duration,
}

/// `[connectors.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Connector {
    /// Its name.
    pub name: ConnectorName,
    /// Time from one poll's start to the next: 1 minute to 31 days. Where every URL of the connector is plain HTTP on
    /// loopback (sandbox, demo, tests), 1 second will do.
    pub poll_interval: Duration,
    /// What happens to accounts of removed users.
    pub removals: Removals,
    /// How many removals within 24 hours are believed.
    pub max_removals: MaxRemovals,
    /// How long events, runs and users who left are kept: at least 7 days; `None`: for ever.
    pub retention: Option<Duration>,
    /// The Torq side.
    pub torq: Torq,
    /// The JumpCloud side.
    pub jumpcloud: JumpCloud,
    /// Who is delivered.
    pub users: UserFilter,
    /// Where a person is told of what concerns them; `None`: nowhere.
    pub notify: Option<Notify>,
}

/// What happens to accounts of removed users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removals {
    /// Recorded and shown.
    Report,
    /// Accounts that this connector created are deleted, too.
    Delete,
}

/// How many removals within 24 hours are believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxRemovals {
    /// Percent of the snapshot, at least 5 users.
    Percent(f64),
    /// A number of users.
    Users(u64),
}

/// `[connectors.NAME.torq]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Torq {
    /// Base of the API, e.g. `https://api.torq.io/public/v1alpha`; no slash at the end, unless it has no path.
    pub api_url: Url,
    /// The token endpoint.
    pub token_url: Url,
    /// The API key's client id.
    pub client_id: String,
    /// The API key's client secret.
    pub client_secret: Secret,
    /// When the key expires, if the administrator said so.
    pub key_expires: Option<jiff::civil::Date>,
}

/// `[connectors.NAME.jumpcloud]`.
#[derive(Debug, Clone, PartialEq)]
pub struct JumpCloud {
    /// Base of the console, e.g. `https://console.jumpcloud.com`. A [`Url`] without a path has `/` for one: trim it
    /// before appending.
    pub console_url: Url,
    /// The token endpoint of service accounts. With an API key it is not used, and means nothing.
    pub token_url: Url,
    /// Who we are there.
    pub credentials: JumpCloudCredentials,
    /// Sent as `x-org-id`, for credentials that manage several organisations.
    pub org_id: Option<String>,
    /// Torq's `catalog_app_id`.
    pub application: String,
}

/// The two ways to authenticate to JumpCloud.
#[derive(Debug, Clone, PartialEq)]
pub enum JumpCloudCredentials {
    /// A service account: OAuth client credentials.
    ServiceAccount {
        /// Its client id.
        client_id: String,
        /// Its client secret.
        client_secret: Secret,
    },
    /// An administrator's API key.
    ApiKey(Secret),
}

/// `[connectors.NAME.notify]`: where a person is told of what concerns them. One of the two ways is there at least.
#[derive(Debug, Clone, PartialEq)]
pub struct Notify {
    /// A request to an address.
    pub webhook: Option<Webhook>,
    /// A program, by its absolute path, and its arguments.
    pub command: Option<Vec<String>>,
    /// Of what they are told.
    pub occasions: Vec<Occasion>,
}

/// Where a message is posted, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// Where to.
    pub url: HookUrl,
    /// In which shape.
    pub format: HookFormat,
    /// By which it is signed; `None`: not at all.
    pub secret: Option<Secret>,
}

/// `[connectors.NAME.users]`: who is delivered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserFilter {
    /// Only these domains (folded); empty: all.
    pub include_domains: Vec<String>,
    /// Not these addresses (folded, `*` stands for anything).
    pub exclude_emails: Vec<String>,
    /// Only these statuses; empty: all.
    pub statuses: Vec<String>,
}

/// A secret and where it came from, so that it can be read again.
#[derive(Clone)]
pub struct Secret {
    /// The secret itself. `Debug` shows nothing of it.
    pub value: SecretString,
    /// Where it came from.
    pub source: SecretSource,
    /// Whether it stays the same for as long as the process lives: it is from the environment, or from systemd's credentials.
    pub fixed: bool,
    /// Why its file could not be read; then there is no secret in it. Only in a configuration from [`load_to_run`].
    pub problem: Option<Problem>,
}

/// Where a secret came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// Written in the configuration file.
    Literal,
    /// From an environment variable.
    Environment,
    /// From this file.
    File(PathBuf),
    /// Given by a person just now, and in no place yet.
    Given,
}
