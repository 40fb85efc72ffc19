//! The connections: TLS, trust, proxies, time-outs, no redirects.

use std::time::Duration;

use url::Url;

use super::{clean, trust};
use crate::config::Network;

/// A connection over which nothing has come for so long while something is awaited is asked whether it is alive, and given up when
/// the answer takes as long again: sooner than a request times out. HTTP/2 sends everything over one connection, and something in
/// between (a firewall, NAT, a router that was restarted) can forget it without a word. Otherwise each further request would go
/// into the same silence.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What an HTTP/2 peer may send of one answer before it is read. Answers that wait for their turn ([`super::MAX_BODY`]) wait at the
/// peer, and not in memory here.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of all answers of a connection together: more than a connector has requests under way at once, or those that wait
/// could hold up the one that is read.
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;

/// Sent with every request.
pub const USER_AGENT: &str = concat!("torq-connector/", env!("CARGO_PKG_VERSION"));

/// A client could not be made: what the system lacks, for a person.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The environment names a proxy that is none.
    #[error(
        "the environment variable {variable} does not name a proxy that can be used: give http://HOST:PORT or http://USER:PASSWORD@HOST:PORT (or \
         https://), with anything but letters and digits in user and password encoded, such as %40 for @; or unset it"
    )]
    Proxy {
        /// Which variable. Its value may have a password in it.
        variable: String,
    },
    /// The TLS client cannot be set up.
    #[error("cannot set up TLS: {message}; is a set of certificate authorities installed (Debian: ca-certificates)?")]
    Tls {
        /// What the library said.
        message: String,
    },
}

/// What sends the requests of a connector. Plain HTTP, which is for loopback only, never goes through a proxy: it carries
/// credentials. HTTPS goes through the one that the environment names, if it names one.
#[derive(Clone)]
pub struct Client {
    secure: Option<reqwest::Client>,
    plain: Option<reqwest::Client>,
}

impl Client {
    /// A client for these addresses. Without HTTPS among them the system's trust store is not asked for, which a bare machine
    /// may not have.
    pub fn new(network: &Network, addresses: &[&Url]) -> Result<Self, ClientError> {
        // A second installation is refused, which is fine: the first one is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let has = |scheme| addresses.iter().any(|address| address.scheme() == scheme);
        Ok(Self {
            secure: has("https").then(|| secure(network)).transpose()?,
            plain: has("http").then(|| plain(network)).transpose()?,
        })
    }

    /// The one for this address. Its scheme is that of an address the client was made for.
    pub(super) fn to(&self, address: &Url) -> Option<&reqwest::Client> {
        if address.scheme() == "https" {
            self.secure.as_ref()
        } else {
            self.plain.as_ref()
        }
    }
}

fn builder(network: &Network) -> reqwest::ClientBuilder {
    let keep_alive = KEEP_ALIVE.min(network.timeout / 3);
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(network.connect_timeout)
        .timeout(network.timeout)
        .pool_max_idle_per_host(8)
        .pool_idle_timeout(Duration::from_secs(30))
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(keep_alive)
        .http2_keep_alive_timeout(keep_alive)
}

fn secure(network: &Network) -> Result<reqwest::Client, ClientError> {
    super::check_environment()?;
    let tls = trust::tls(network.ca_file.as_ref())?;
    built(builder(network).https_only(true).tls_backend_preconfigured(tls))
}

fn plain(network: &Network) -> Result<reqwest::Client, ClientError> {
    built(builder(network).no_proxy().tls_certs_only([]))
}

fn built(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, ClientError> {
    builder.build().map_err(unusable)
}

fn unusable(error: reqwest::Error) -> ClientError {
    ClientError::Tls {
        message: clean(&format!("{error:?}")),
    }
}
