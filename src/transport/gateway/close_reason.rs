//! Why the gateway closes a connection, or does not take it: counted, and said in the log without filling it.

use crate::codes::{self, Code};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Minimum interval between two log lines with one code.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Each has a code, which is the label `reason` of the metric as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// What came is not a greeting of ZMTP: HTTP, TLS, a port scanner.
    NotZmtp,
    /// It does not speak TLS 1.3, or its certificate is not accepted.
    TlsRefused,
    /// Its certificate was revoked while it was connected.
    Revoked,
    /// Its certificate expired while it was connected.
    Expired,
    /// ZMTP 1 or 2.
    OldZmtp,
    MechanismUnsupported,
    /// READY is not valid, too long, or of a socket type that does not talk to a ROUTER.
    HandshakeInvalid,
    HandshakeTooSlow,
    /// A frame or a command against the rules of ZMTP.
    FrameInvalid,
    /// A frame or message that is longer than any request, or has too many parts.
    TooLarge,
    TooManyCommands,
    /// A message was not complete in time, or took memory that others needed.
    Unfinished,
    /// Nothing came for too long.
    Silent,
    NotReading,
    /// It was the one to close for another.
    GaveWay,
    /// No other connection could be closed for it.
    TooMany,
    ConnectsTooOften,
    /// The process has no file descriptor left for it.
    NoDescriptor,
}

impl CloseReason {
    pub fn code(self) -> Code {
        match self {
            CloseReason::NotZmtp => codes::PEER_NOT_ZMTP,
            CloseReason::TlsRefused => codes::PEER_TLS_REFUSED,
            CloseReason::Revoked => codes::PEER_CERTIFICATE_REVOKED,
            CloseReason::Expired => codes::PEER_CERTIFICATE_EXPIRED,
            CloseReason::OldZmtp => codes::PEER_ZMTP_TOO_OLD,
            CloseReason::MechanismUnsupported => codes::PEER_MECHANISM_UNSUPPORTED,
            CloseReason::HandshakeInvalid => codes::PEER_HANDSHAKE_INVALID,
            CloseReason::HandshakeTooSlow => codes::PEER_HANDSHAKE_TOO_SLOW,
            CloseReason::FrameInvalid => codes::PEER_FRAME_INVALID,
            CloseReason::TooLarge => codes::PEER_MESSAGE_TOO_LARGE,
            CloseReason::TooManyCommands => codes::PEER_COMMANDS_TOO_MANY,
            CloseReason::Unfinished => codes::PEER_MESSAGE_UNFINISHED,
            CloseReason::Silent => codes::PEER_SILENT,
            CloseReason::NotReading => codes::PEER_NOT_READING,
            CloseReason::GaveWay => codes::PEER_GAVE_WAY,
            CloseReason::TooMany => codes::PEERS_TOO_MANY,
            CloseReason::ConnectsTooOften => codes::PEER_CONNECTS_TOO_OFTEN,
            CloseReason::NoDescriptor => codes::PEER_WITHOUT_DESCRIPTOR,
        }
    }

    /// What an operator may do about it.
    fn hint(self) -> &'static str {
        match self {
            CloseReason::NotZmtp => {
                "this port is for edges only; if an edge speaks TLS to a port without it, make both settings agree"
            }
            CloseReason::TlsRefused => {
                "if the address is that of an edge, its alarm says what to do; certificates: server certs list"
            }
            CloseReason::Revoked | CloseReason::Expired => {
                "the edge keeps its events; give it another certificate: server certs issue"
            }
            CloseReason::OldZmtp => "a client needs ZMTP 3, which libzmq has since version 4",
            CloseReason::MechanismUnsupported => "a client must not set PLAIN or CURVE",
            CloseReason::HandshakeInvalid => "a client must be a DEALER or REQ socket",
            CloseReason::FrameInvalid | CloseReason::TooLarge | CloseReason::TooManyCommands => {
                "no edge sends this; if the address is that of an edge, report this with both logs"
            }
            CloseReason::HandshakeTooSlow | CloseReason::Unfinished | CloseReason::NotReading => {
                "if the address is that of an edge, check its network; it connects again by itself"
            }
            CloseReason::Silent => "an edge connects again as soon as it has something to say",
            CloseReason::GaveWay | CloseReason::TooMany => {
                "if these are edges, raise max_connections or max_connections_per_address; else keep the address out"
            }
            CloseReason::ConnectsTooOften => "keep the address out, if it is not that of edges",
            CloseReason::NoDescriptor => "raise the limit of open files (ulimit -n, LimitNOFILE)",
        }
    }
}

/// Connections closed by the gateway, by `reason`.
pub type ClosedCounters = Family<Vec<(&'static str, String)>, Counter>;

/// Counts what was closed, and logs it: for each code the first time at once, then at most once a minute.
#[derive(Debug)]
pub struct ClosedPeers {
    counters: ClosedCounters,
    logged: Mutex<BTreeMap<Code, LogState>>,
}

#[derive(Debug, Default)]
struct LogState {
    at: Option<Instant>,
    since_then: u64,
}

impl LogState {
    /// How often it happened since the last line, this time included, if a line is due now.
    fn happened(&mut self, now: Instant) -> Option<u64> {
        self.since_then += 1;
        if self.at.is_some_and(|at| now.saturating_duration_since(at) < LOG_EVERY) {
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.since_then))
    }
}

impl ClosedPeers {
    pub fn new(counters: ClosedCounters) -> ClosedPeers {
        ClosedPeers { counters, logged: Mutex::default() }
    }

    pub fn add(&self, reason: CloseReason, peer: SocketAddr, detail: &dyn Display, now: Instant) {
        let code = reason.code();
        self.counters.get_or_create(&vec![("reason", code.as_str().to_owned())]).inc();
        let mut logged = self.logged.lock().expect("no thread panics while it holds what was logged");
        let count = logged.entry(code).or_default().happened(now);
        drop(logged);
        match count {
            Some(count) => tracing::warn!(
                %code, %peer, %detail, count,
                hint = reason.hint(),
                "the gateway closed a connection; count says how many since the last such line"
            ),
            None => tracing::debug!(%code, %peer, %detail, "the gateway closed a connection"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_and_one_a_minute_is_logged() {
        let mut state = LogState::default();
        let begun = Instant::now();
        let lines: Vec<(u64, u64)> = (0..150)
            .filter_map(|second| Some((second, state.happened(begun + Duration::from_secs(second))?)))
            .collect();
        assert_eq!(lines, [(0, 1), (60, 60), (120, 60)]);
        let counters = ClosedCounters::default();
        let closed = ClosedPeers::new(counters.clone());
        let peer = "10.0.0.1:5".parse().unwrap();
        (0..3).for_each(|_| closed.add(CloseReason::OldZmtp, peer, &"", begun));
        let label = vec![("reason", "peer_zmtp_too_old".to_owned())];
        assert_eq!(counters.get_or_create(&label).get(), 3);
    }
}
