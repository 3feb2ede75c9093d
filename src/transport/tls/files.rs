//! The files of one end: its certificate with its key, the authority that it trusts, and what is revoked.

use super::certificate::{CertificateFacts, Serial};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// Where the files of one end are. A daemon never writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted, in PEM.
    pub ca: PathBuf,
    /// Our certificate, followed by those of intermediate authorities, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// Serials of revoked certificates, one at the beginning of each line. It may be missing.
    pub revoked: PathBuf,
}

/// Why the files cannot be used. Nothing was changed, and no secret is in the text.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path:?}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path:?} does not hold {what} in PEM")]
    NotPem { path: PathBuf, what: &'static str },
    #[error("line {line} of {path:?} does not begin with the serial of a certificate (hexadecimal digits)")]
    NoSerial { path: PathBuf, line: usize },
    #[error("certificate, key and authority cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("the certificates of the authorities cannot be used: {0}")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

impl TlsError {
    /// A file is not there, rather than there and of no use.
    pub fn is_missing_file(&self) -> bool {
        matches!(self, TlsError::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What tells whether the files changed: modification time, length and number of each.
pub(super) type Stamp = [Option<(i64, i64, u64, u64)>; 4];

/// What the files hold, before rustls has judged it.
pub(super) struct Loaded {
    pub roots: RootCertStore,
    /// Our certificate with its key.
    pub shown: Arc<CertifiedKey>,
    pub revoked: BTreeSet<Serial>,
    pub own: CertificateFacts,
    /// The authority that ends first.
    pub authority: CertificateFacts,
}

impl TlsFiles {
    pub fn in_dir(dir: &Path) -> TlsFiles {
        TlsFiles {
            ca: dir.join("ca.pem"),
            certificate: dir.join("certificate.pem"),
            key: dir.join("key.pem"),
            revoked: dir.join("revoked"),
        }
    }

    pub(super) fn stamp(&self) -> Stamp {
        let stamp = |found: Metadata| (found.mtime(), found.mtime_nsec(), found.len(), found.ino());
        [&self.ca, &self.certificate, &self.key, &self.revoked].map(|path| fs::metadata(path).ok().map(stamp))
    }

    pub(super) fn load(&self) -> Result<Loaded, TlsError> {
        let (cas, chain) = (certificates(&self.ca)?, certificates(&self.certificate)?);
        let facts = |path: &Path, certificate: &CertificateDer<'_>| {
            CertificateFacts::read(certificate).ok_or_else(|| not_pem(path, "an X.509 certificate"))
        };
        let own = facts(&self.certificate, &chain[0])?;
        let mut authority = facts(&self.ca, &cas[0])?;
        let mut roots = RootCertStore::empty();
        for ca in cas {
            let its = facts(&self.ca, &ca)?;
            if its.not_after < authority.not_after {
                authority = its;
            }
            roots.add(ca)?;
        }
        let pem = Zeroizing::new(read(&self.key)?);
        let mut key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| not_pem(&self.key, "a private key"))?;
        let signing = any_supported_type(&key);
        key.zeroize();
        let shown = CertifiedKey::new(chain, signing?);
        match shown.keys_match() {
            // What some kinds of keys cannot say shows in the handshake.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Loaded { roots, shown: Arc::new(shown), revoked: read_revoked(&self.revoked)?, own, authority })
    }
}

fn not_pem(path: &Path, what: &'static str) -> TlsError {
    TlsError::NotPem { path: path.to_owned(), what }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

/// At least one certificate.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| not_pem(path, "a certificate"))
}

/// The serials of revoked certificates. A line that cannot be read is an error: it may be the one that matters.
pub fn read_revoked(path: &Path) -> Result<BTreeSet<Serial>, TlsError> {
    let text = match read(path) {
        Err(error) if error.is_missing_file() => return Ok(BTreeSet::new()),
        read => read?,
    };
    let text = String::from_utf8_lossy(&text);
    let mut serials = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some(serial) = line.split_whitespace().next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        let serial =
            serial.parse().map_err(|_| TlsError::NoSerial { path: path.to_owned(), line: number })?;
        serials.insert(serial);
    }
    Ok(serials)
}
