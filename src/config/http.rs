//! What both daemons decide about HTTP.

use super::tls;
use crate::transport::tls::TlsFiles;
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How a daemon serves HTTP.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Hosts by which it is known besides loopback and its own address.
    pub hosts: Vec<HostName>,
    /// Only this machine can reach the address.
    pub is_local: bool,
    /// The file of tokens.
    pub tokens: PathBuf,
    /// Certificate and key. `None`: without TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The board and the occupancy are shown without a token.
    pub public_board: bool,
}

/// What one source says about it; see the settings of the daemons.
pub(super) struct HttpSettings {
    pub hosts: Option<Vec<HostName>>,
    pub tokens: Option<PathBuf>,
    pub tls_dir: Option<PathBuf>,
    pub public_board: Option<bool>,
    pub insecure: Option<bool>,
}

impl HttpSettings {
    /// `address` is where it is served; `default_tls` has the certificate and the key where no directory for HTTP is given.
    pub fn typed(self, address: SocketAddr, data_dir: &Path, default_tls: TlsFiles) -> HttpConfig {
        let is_local = address.ip().to_canonical().is_loopback();
        let wants_tls = !is_local && self.insecure != Some(true) || self.tls_dir.is_some();
        let tls = self.tls_dir.map_or(default_tls, |dir| TlsFiles::in_dir(&dir));
        HttpConfig {
            hosts: self.hosts.unwrap_or_default(),
            is_local,
            tokens: self.tokens.unwrap_or_else(|| tokens_of(data_dir)),
            tls: wants_tls.then_some((tls.certificate, tls.key)),
            public_board: self.public_board == Some(true),
        }
    }
}

/// Beside the data directory: one that is restored from a backup must not lose them.
pub(super) fn tokens_of(data_dir: &Path) -> PathBuf {
    tls::beside(data_dir, "-tokens.toml")
}

/// The name or address of a host, as a browser has it in its address bar without the port; in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum HostName {
    Address(IpAddr),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host. A host looks like \"books.example\" or \"10.0.0.5\", without a port")]
pub struct HostNameError(String);

impl HostName {
    /// This machine, whatever the network says: loopback addresses, `localhost` and names below it (RFC 6761).
    pub fn is_loopback(&self) -> bool {
        match self {
            HostName::Address(address) => address.is_loopback(),
            HostName::Name(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }

    /// The host of `HOST:PORT` or `HOST`, as a request names it. `None`: that is neither.
    pub fn of_authority(authority: &str) -> Option<HostName> {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, ""),
        };
        let host = host.parse().ok()?;
        port.bytes().all(|byte| byte.is_ascii_digit()).then_some(host)
    }
}

impl FromStr for HostName {
    type Err = HostNameError;
    fn from_str(text: &str) -> Result<HostName, HostNameError> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
            return Ok(HostName::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_label = |label: &str| {
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            !label.is_empty() && label.bytes().all(is_letter)
        };
        match name.len() <= 253 && name.split('.').all(is_label) {
            true => Ok(HostName::Name(name)),
            false => Err(HostNameError(text.chars().take(100).collect())),
        }
    }
}

impl TryFrom<String> for HostName {
    type Error = HostNameError;
    fn try_from(text: String) -> Result<HostName, HostNameError> {
        text.parse()
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostName::Address(address) => address.fmt(f),
            HostName::Name(name) => name.fmt(f),
        }
    }
}

/// Addresses that begin with the same bits, as `10.1.0.0/16`; without a number one address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AddressRange {
    first: IpAddr,
    bits: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of addresses. A range looks like \"10.1.0.0/16\" or \"10.1.0.7\"")]
pub struct AddressRangeError(String);

impl AddressRange {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let differing = u32::from(first) ^ u32::from(address);
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let differing = u128::from(first) ^ u128::from(address);
                differing.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;
    fn from_str(text: &str) -> Result<AddressRange, AddressRangeError> {
        let parse = || {
            let (first, bits) =
                text.split_once('/').map_or((text, None), |(first, bits)| (first, Some(bits)));
            let first: IpAddr = first.parse().ok()?;
            let all = if first.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(all), |bits| bits.parse().ok())?;
            (bits <= all).then_some(AddressRange { first, bits })
        };
        parse().ok_or_else(|| AddressRangeError(text.chars().take(100).collect()))
    }
}

impl TryFrom<String> for AddressRange {
    type Error = AddressRangeError;
    fn try_from(text: String) -> Result<AddressRange, AddressRangeError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_the_addresses_that_begin_with_its_bits() {
        let contains = |range: &str, address: &str| {
            range.parse::<AddressRange>().unwrap().contains(address.parse().unwrap())
        };
        for (range, within, without) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("10.1.2.3/16", "10.1.0.0", "10.0.255.255"),
            ("10.1.0.7", "10.1.0.7", "10.1.0.6"),
            ("10.1.0.7/31", "10.1.0.6", "10.1.0.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("fd00:1::/32", "fd00:1:ffff::1", "fd00:2::"),
            ("::/0", "ffff::", "10.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.9.9.9", "::ffff:11.0.0.0"),
        ] {
            assert!(contains(range, within), "{range} {within}");
            assert!(!contains(range, without), "{range} {without}");
        }
        for bad in
            ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "garage/8", "10.0.0.0/8/8"]
        {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
    }
}
