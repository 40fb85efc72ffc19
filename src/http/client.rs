//! The connections: TLS, trust, proxies, time-outs, no redirects.

use std::time::Duration;

use url::Url;

use super::clean;
use crate::config::Network;

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
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(network.connect_timeout)
        .timeout(network.timeout)
        .pool_max_idle_per_host(8)
        .pool_idle_timeout(Duration::from_secs(30))
}

fn secure(network: &Network) -> Result<reqwest::Client, ClientError> {
    super::check_environment()?;
    let mut builder = builder(network).https_only(true);
    if let Some(authorities) = &network.ca_file {
        let certificates = authorities.certificates.iter();
        let certificates: Result<Vec<_>, _> = certificates.map(|one| reqwest::Certificate::from_der(one)).collect();
        builder = builder.tls_certs_merge(certificates.map_err(unusable)?);
    }
    built(builder)
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
