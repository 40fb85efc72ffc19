//! Whom TLS trusts: the authorities of the system, and those of `network.ca_file` besides.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls_platform_verifier::Verifier;

use super::client::ClientError;
use super::lane::lock;
use crate::config::Authorities;

/// Connectors that begin within so long of each other share what was read: the system's authorities take 3 ms to read and 50 to 100 KB to
/// keep, for each of a thousand connectors that start together. Whoever begins later, e.g. by `reconnect` after the system got
/// another authority, reads them anew; and whoever is told to reconnect does at any rate.
const SHARED_FOR: Duration = Duration::from_secs(60);

/// What was read last.
static SHARED: Mutex<Option<Shared>> = Mutex::new(None);

struct Shared {
    read: Instant,
    besides: Option<Authorities>,
    config: ClientConfig,
}

impl Shared {
    /// Whether it is what a connector with these authorities besides would read now.
    fn serves(&self, besides: Option<&Authorities>, now: Instant) -> bool {
        now.duration_since(self.read) < SHARED_FOR && self.besides.as_ref() == besides
    }
}

/// Whoever begins next reads the system's authorities anew: somebody may just have changed them.
pub fn read_authorities_anew() {
    *lock(&SHARED) = None;
}

/// TLS as a client that trusts the system's authorities and these. HTTP/2 where the peer offers it.
///
/// # Errors
/// When the system has no authorities, and there are none besides.
pub(super) fn tls(besides: Option<&Authorities>) -> Result<ClientConfig, ClientError> {
    let mut shared = lock(&SHARED);
    let now = Instant::now();
    if let Some(shared) = shared.as_ref().filter(|shared| shared.serves(besides, now)) {
        return Ok(shared.config.clone());
    }
    let config = read(besides).map_err(|error| ClientError::Tls {
        message: super::clean(&error.to_string()),
    })?;
    let besides = besides.cloned();
    *shared = Some(Shared {
        read: now,
        besides,
        config: config.clone(),
    });
    Ok(config)
}

fn read(besides: Option<&Authorities>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::clone(CryptoProvider::get_default().unwrap_or(&Arc::new(ring::default_provider())));
    let verifier = match besides {
        None => Verifier::new(Arc::clone(&provider)),
        Some(besides) => Verifier::new_with_extra_roots(besides.certificates.iter().cloned(), Arc::clone(&provider)),
    }?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // "Dangerous" is to bring a verifier of one's own: this is the library's, which reads the system's trust store.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;

    use super::*;

    #[test]
    fn what_was_read_serves_whoever_trusts_the_same_and_not_for_ever() {
        let authorities = |path: &str| Authorities {
            path: path.into(),
            certificates: Vec::new(),
        };
        let read = Instant::now();
        let shared = |besides| Shared {
            read,
            besides,
            config: ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth(),
        };
        let (one, other) = (authorities("one.pem"), authorities("other.pem"));
        assert!(shared(None).serves(None, read));
        assert!(shared(Some(one.clone())).serves(Some(&one), read + SHARED_FOR / 2));
        assert!(!shared(Some(one.clone())).serves(Some(&other), read));
        assert!(!shared(Some(one.clone())).serves(None, read));
        assert!(!shared(None).serves(Some(&one), read));
        assert!(!shared(None).serves(None, read + SHARED_FOR));
    }
}
