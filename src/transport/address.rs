//! `tcp://HOST:PORT`, or `tls://HOST:PORT` with TLS, and which addresses are one client.

use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The address where a server listens, or is reached. The host may be a name, an IPv4 address, or an IPv6 one in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerAddress {
    is_tls: bool,
    host: String,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: {reason}. An address looks like \"tcp://127.0.0.1:5555\"")]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl ServerAddress {
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The name or address, an IPv6 one without its brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// What is sent there is encrypted, and both ends show certificates.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// What is sent there stays on this machine. Of names only `localhost` is known to (RFC 6761).
    pub fn is_loopback(&self) -> bool {
        match self.host().parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// The same kind of address, at which a listener turned out to be.
    pub fn at(&self, local: std::net::SocketAddr) -> String {
        format!("{}{local}", self.scheme())
    }

    fn scheme(&self) -> &'static str {
        if self.is_tls { TLS } else { TCP }
    }
}

const TCP: &str = "tcp://";
const TLS: &str = "tls://";

impl FromStr for ServerAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<ServerAddress, AddressError> {
        let error = |reason| AddressError { text: text.to_owned(), reason };
        let (is_tls, rest) = match (text.strip_prefix(TCP), text.strip_prefix(TLS)) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => return Err(error("it begins neither with \"tcp://\" nor with \"tls://\"")),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| error("it lacks the port"))?;
        let in_brackets = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (host.contains(':') && !in_brackets) {
            return Err(error("its host is missing, or an IPv6 address lacks its brackets"));
        }
        if host.chars().any(|c| c.is_whitespace() || c.is_control() || "/?#@*".contains(c)) {
            return Err(error("its host contains a character that is not allowed in host names"));
        }
        Ok(ServerAddress {
            is_tls,
            host: host.to_owned(),
            port: port.parse().map_err(|_| error("its port is not a number from 0 to 65535"))?,
        })
    }
}

/// The address by which connections are counted as one client: of IPv6 the first half, as the rest is the client's own choice.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

impl TryFrom<String> for ServerAddress {
    type Error = AddressError;
    fn try_from(text: String) -> Result<ServerAddress, AddressError> {
        text.parse()
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:{}", self.scheme(), self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["tcp://127.0.0.1:5555", "tcp://[::1]:1", "tcp://books.example:65535", "tls://a:1"] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for text in [
            "127.0.0.1:5555",
            "tcp://",
            "tcp://a",
            "tcp://:1",
            "tcp://a:x",
            "tcp://a:70000",
            "tcp://::1:5",
            "tcp://a b:1",
            "udp://a:1",
        ] {
            let error = text.parse::<ServerAddress>().unwrap_err().to_string();
            assert!(error.contains("An address looks like"), "{error}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        let is_loopback = |text: &str| text.parse::<ServerAddress>().unwrap().is_loopback();
        for text in [
            "tcp://127.0.0.1:1",
            "tcp://127.255.3.4:1",
            "tcp://[::1]:1",
            "tcp://[::ffff:127.0.0.1]:1",
            "tls://LOCALHOST:1",
        ] {
            assert!(is_loopback(text), "{text}");
        }
        for text in [
            "tcp://0.0.0.0:1",
            "tcp://[::]:1",
            "tcp://10.0.0.5:1",
            "tcp://127.0.0.1.example:1",
            "tcp://localhost.example:1",
        ] {
            assert!(!is_loopback(text), "{text}");
        }
    }
}
