//! Which requests are meant for this daemon.
//!
//! **Promise.** A page of another site cannot read from this daemon, nor change anything in it, with the help of a browser that can
//! reach it.
//! **Kept by.** A request names its host, and a browser lets no page change that. Hosts that are not this daemon's are refused: a name
//! of another site that leads here for a moment (DNS rebinding) is such a host. Whatever is not a mere look also names its origin,
//! which must be this host. No answer permits another origin to read it (no CORS).
//! **Not promised.** Anything against programs that are no browsers: these name whatever host they like.

use super::Problem;
use crate::codes;
use crate::config::HostName;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use std::net::{IpAddr, SocketAddr};

/// Where a request came from, and which address of this machine it reached.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub client: IpAddr,
    pub local: SocketAddr,
}

/// The hosts by which this daemon is known besides loopback and the address that was reached: the setting `http_hosts`.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts(pub Vec<HostName>);

impl KnownHosts {
    /// Refuses a request that was meant for another host, or that a page of another site had a browser make.
    pub(super) fn check(&self, head: &Parts, arrival: &Arrival) -> Result<(), Problem> {
        let mut named = head.headers.get_all(header::HOST).iter();
        let host = named.next();
        if named.next().is_some() {
            let detail = "the request has more than one header Host. Nothing was stored";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
        // A program that names no host is no browser.
        let in_target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
        for authority in host.map(HeaderValue::as_bytes).into_iter().chain(in_target) {
            if !self.knows(authority, arrival) {
                return Err(unknown(authority));
            }
        }
        let is_mere_look = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        match head.headers.get(header::ORIGIN) {
            Some(origin) if !is_mere_look && !self.is_own(origin, host) => Err(foreign(origin)),
            _ => Ok(()),
        }
    }

    fn knows(&self, authority: &[u8], arrival: &Arrival) -> bool {
        let host = std::str::from_utf8(authority).ok().and_then(HostName::of_authority);
        host.is_some_and(|host| {
            host.is_loopback()
                || host == HostName::Address(arrival.local.ip().to_canonical())
                || self.0.contains(&host)
        })
    }

    /// An origin is this host with this port, or a host of the setting: a proxy may have put its own name into `Host`.
    fn is_own(&self, origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, authority)| {
            let is_host = host.is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
            is_host || HostName::of_authority(authority).is_some_and(|host| self.0.contains(&host))
        })
    }
}

/// What a client sent, short enough to be shown.
fn shown(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(100)]))
}

fn unknown(authority: &[u8]) -> Problem {
    let detail = format!(
        "this daemon is not known as {}, so the request may be that of a page of another site. Nothing was stored. If it is a name of this machine, give it as --http-hosts",
        shown(authority)
    );
    Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).code(codes::UNKNOWN_HOST)
}

fn foreign(origin: &HeaderValue) -> Problem {
    let detail = format!(
        "a page of {} had a browser send this, and it is none of this daemon. Nothing was stored. If it is a name of this machine, give it as --http-hosts",
        shown(origin.as_bytes())
    );
    Problem::new(StatusCode::FORBIDDEN, detail).code(codes::FOREIGN_ORIGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn answer(method: &str, headers: &[(&str, &str)]) -> u16 {
        let known = KnownHosts(vec!["Books.Example".parse().unwrap(), "10.0.0.7".parse().unwrap()]);
        let arrival =
            Arrival { client: [127, 0, 0, 1].into(), local: "[::ffff:10.0.0.5]:5580".parse().unwrap() };
        let mut request = Request::builder().method(method).uri("/v1/events");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        known.check(&head, &arrival).map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn loopback_the_address_that_was_reached_and_the_hosts_of_the_setting_are_known() {
        for host in [
            "localhost",
            "LOCALHOST:5580",
            "edge.localhost",
            "localhost.",
            "127.0.0.1:5580",
            "127.9.9.9",
            "[::1]:5580",
            "[::1]",
            "10.0.0.5:80",
            "[::ffff:10.0.0.5]:80",
            "books.example",
            "BOOKS.example.:443",
            "10.0.0.7",
        ] {
            assert_eq!(answer("GET", &[("host", host)]), 200, "{host}");
        }
        assert_eq!(answer("GET", &[]), 200, "no browser");
    }

    /// A page of a site whose name led to 127.0.0.1 for a moment could read all plates: the server answered to any name.
    #[test]
    fn a_name_of_another_site_is_not_known_wherever_it_leads() {
        for host in [
            "evil.example",
            "evil.example:5580",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.6",
            "0.0.0.0",
            "",
            "books.example@evil.example",
            "evil.example:books.example",
            "[::1",
            "localhost:x",
            "lоcalhost",
            "localhost evil",
        ] {
            assert_eq!(answer("GET", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(answer("GET", &[("host", "localhost"), ("host", "localhost")]), 400);
    }

    #[test]
    fn a_page_of_another_site_can_look_but_not_send() {
        let sent = |method, origin| answer(method, &[("host", "localhost:5581"), ("origin", origin)]);
        for own in ["http://localhost:5581", "https://LOCALHOST:5581", "https://books.example"] {
            assert_eq!(sent("POST", own), 200, "{own}");
        }
        for other in [
            "null",
            "http://localhost:3000",
            "http://localhost",
            "https://evil.example",
            "localhost:5581",
            "",
        ] {
            assert_eq!(
                (sent("POST", other), sent("DELETE", other), sent("GET", other)),
                (403, 403, 200),
                "{other}"
            );
        }
    }
}
