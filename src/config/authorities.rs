//! `network.ca_file`: certificate authorities to trust besides the system's, read once and judged whole, so that whoever sends
//! requests has nothing left to find wrong with them.

use std::fmt;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::file;

/// All authorities of a system together are a quarter of a megabyte.
const LARGEST: u64 = 8 * 1024 * 1024;

/// Certificate authorities from a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    /// The file.
    pub path: PathBuf,
    /// Their certificates; none in a configuration that nothing will be sent with.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Where they are from and how many they are.
impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("path", &self.path)
            .field("certificates", &self.certificates.len())
            .finish()
    }
}

impl Authorities {
    /// Stands for those in a file that was not asked for.
    pub(super) fn unread(path: PathBuf) -> Self {
        let certificates = Vec::new();
        Self { path, certificates }
    }

    /// Reads a PEM file with one or more certificates.
    ///
    /// # Errors
    /// What is wrong with the file, for a person.
    pub(super) fn read(path: PathBuf) -> Result<Self, String> {
        let shown = path.display();
        let bytes = file::read(&path, LARGEST).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        let mut certificates = Vec::new();
        let mut store = RootCertStore::empty();
        for found in CertificateDer::pem_slice_iter(&bytes) {
            let number = certificates.len() + 1;
            let damaged = |why: String| format!("certificate {number} in {shown} is damaged: {why}");
            let certificate = found.map_err(|error| damaged(error.to_string()))?;
            store
                .add(certificate.clone())
                .map_err(|error| damaged(error.to_string()))?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(format!(
                "{shown} has no certificate in it; it must be a PEM file (-----BEGIN CERTIFICATE-----), and `openssl x509 -inform der` \
                 makes one of a binary file"
            ));
        }
        Ok(Self { path, certificates })
    }
}
