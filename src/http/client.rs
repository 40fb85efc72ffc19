//! The connections: TLS, trust, proxies, time-outs, no redirects.

use std::path::Path;
use std::time::Duration;

use url::Url;

use super::clean;
use crate::config::Network;

/// Sent with every request.
pub const USER_AGENT: &str = concat!("torq-connector/", env!("CARGO_PKG_VERSION"));

/// A client could not be made: what the system lacks, for a person.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The extra certificate authorities cannot be read.
    #[error("cannot use the certificate authorities in {path}: {message}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// The environment names a proxy that is none.
    #[error(
        "the environment variable {variable} does not name a proxy that can be used: give http://HOST:PORT or https://HOST:PORT, or unset it"
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
    if let Some(path) = &network.ca_file {
        builder = builder.tls_certs_merge(authorities(path)?);
    }
    built(builder)
}

fn plain(network: &Network) -> Result<reqwest::Client, ClientError> {
    built(builder(network).no_proxy().tls_certs_only([]))
}

fn built(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, ClientError> {
    builder.build().map_err(|error| ClientError::Tls {
        message: clean(&format!("{error:?}")),
    })
}

fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, ClientError> {
    let problem = |message: String| ClientError::CaFile {
        path: path.display().to_string(),
        message,
    };
    let pem = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| problem(error.to_string()))?;
    if found.is_empty() {
        return Err(problem("there is no certificate in it".to_owned()));
    }
    Ok(found)
}
