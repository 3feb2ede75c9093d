//! What both daemons decide about HTTP.

use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

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
