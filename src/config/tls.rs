//! What both daemons decide about TLS.

use super::ConfigError;
use crate::codes;
use crate::transport::ServerAddress;
use crate::transport::tls::TlsFiles;
use std::path::{Path, PathBuf};

/// The files of `dir`, unless others are given.
pub fn files(
    dir: &Path,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> TlsFiles {
    let within = TlsFiles::in_dir(dir);
    TlsFiles {
        ca: ca.unwrap_or(within.ca),
        certificate: certificate.unwrap_or(within.certificate),
        key: key.unwrap_or(within.key),
        revoked: within.revoked,
    }
}

/// `data/server-certs` for `data/server`: a data directory that is restored from a backup must not lose them.
pub fn beside(data_dir: &Path, suffix: &str) -> PathBuf {
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    data_dir.with_file_name(name)
}

/// The addresses whose traffic others could read or change. They are refused, unless `allowed`.
pub fn check_plaintext(flag: &str, addresses: &[ServerAddress], allowed: bool) -> Result<(), ConfigError> {
    match plaintext(addresses).next() {
        Some(open) if !allowed => {
            let tls = open.to_string().replace("tcp://", "tls://");
            let reason = format!(
                "the setting {flag} is not valid: without TLS, everybody on the way to {open} can read plates and send events of any garage. Use {tls} (\"server certs init\" makes the certificates), or an address of this machine. In a network that is safe by other means: --insecure-plaintext"
            );
            Err(ConfigError::Refused(codes::PLAINTEXT_REFUSED, reason))
        }
        _ => Ok(()),
    }
}

/// Those that are neither encrypted nor of this machine.
pub fn plaintext(addresses: &[ServerAddress]) -> impl Iterator<Item = &ServerAddress> {
    addresses.iter().filter(|address| !address.is_tls() && !address.is_loopback())
}

/// Warns at every start that addresses are used which only `--insecure-plaintext` allows.
pub fn warn_of_plaintext(addresses: &[ServerAddress]) {
    for address in plaintext(addresses) {
        tracing::warn!(
            code = %codes::PLAINTEXT_ALLOWED,
            %address,
            hint = "use a tls:// address, which \"server certs init\" makes the certificates for",
            "--insecure-plaintext: everybody on the way can read plates and send events of any garage"
        );
    }
}
