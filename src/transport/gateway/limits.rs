//! How much of everything a peer gets, as numbers and arithmetic.

use crate::messaging::wire::REQUEST_MAX;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The maximum length of all frames of a message together: a request and the envelope around it.
pub const MESSAGE_MAX: u64 = REQUEST_MAX as u64 + 16 * 1024;
/// The maximum number of frames of a message. Each proxy on the way adds one.
pub const PARTS_MAX: usize = 64;
/// How much the ROUTER reads at a time, and how much of a message it makes room for before it has come. A connection keeps the buffer of
/// its longest message, and room for one more read.
pub const ROUTER_CHUNK: usize = 4 * 1024;

#[derive(Debug, Clone)]
pub struct PeerLimits {
    /// Maximum number of all connections.
    pub all: usize,
    /// Maximum number of connections of one address. Loopback has no such limit: there, a proxy speaks for many.
    pub per_address: usize,
    /// From the accept to a valid READY.
    pub handshake: Duration,
    /// From the first byte of a message to its last, without the time for which the server did not read.
    pub message: Duration,
    /// For how long a connection may be silent before its first valid request.
    pub first_request: Duration,
    /// For how long it may be silent between requests. An edge asks for the board at least once an hour.
    pub idle: Duration,
    /// For how long a peer may not read, while something waits to be sent to it.
    pub stalled: Duration,
    /// Requests of one connection that were not answered. No more are read until one is.
    pub in_flight: usize,
    /// Bytes of all messages that are not complete.
    pub unfinished_bytes: usize,
    /// Bytes of all replies that their peers have not read.
    pub unread_bytes: usize,
    /// After this many connections a new ROUTER takes over, and the one before the last ends: the crate keeps about 250 bytes of each
    /// past connection.
    pub ways_per_router: usize,
    pub commands: Rate,
    /// Of connections from one address. Loopback has no such limit either.
    pub connects: Rate,
}

impl Default for PeerLimits {
    fn default() -> PeerLimits {
        PeerLimits {
            all: 2048,
            per_address: 256,
            handshake: Duration::from_secs(10),
            message: Duration::from_secs(60),
            first_request: Duration::from_secs(60),
            idle: Duration::from_secs(2 * 60 * 60),
            stalled: Duration::from_secs(30),
            in_flight: 16,
            unfinished_bytes: 32 * 1024 * 1024,
            unread_bytes: 16 * 1024 * 1024,
            ways_per_router: 20_000,
            commands: Rate { burst: 100, per_second: 10 },
            connects: Rate { burst: 512, per_second: 20 },
        }
    }
}

/// A number at once, and then a number per second.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    pub burst: u32,
    pub per_second: u32,
}

/// What is left of a [`Rate`] (token bucket).
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    pub fn full(rate: Rate, now: Instant) -> Allowance {
        Allowance { left: f64::from(rate.burst), at: now }
    }

    /// Takes one, if one is left.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.refill(rate, now);
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        let more = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate.per_second);
        self.left = (self.left + more).min(f64::from(rate.burst));
        self.at = now;
    }

    fn is_full(&self, rate: Rate) -> bool {
        self.left >= f64::from(rate.burst)
    }
}

/// How often each address may connect.
#[derive(Debug)]
pub struct ConnectRates {
    rate: Rate,
    of_address: HashMap<IpAddr, Allowance>,
}

impl ConnectRates {
    /// The maximum number of addresses that are remembered.
    const ADDRESSES: usize = 4096;

    pub fn new(rate: Rate) -> ConnectRates {
        ConnectRates { rate, of_address: HashMap::new() }
    }

    /// Whether `client` may connect now. When very many addresses connect at the same time, others may.
    pub fn take(&mut self, client: IpAddr, now: Instant) -> bool {
        if client.is_loopback() {
            return true;
        }
        let rate = self.rate;
        if self.of_address.len() >= ConnectRates::ADDRESSES && !self.of_address.contains_key(&client) {
            self.of_address.retain(|_, allowance| {
                allowance.refill(rate, now);
                !allowance.is_full(rate)
            });
            if self.of_address.len() >= ConnectRates::ADDRESSES {
                return true;
            }
        }
        self.of_address.entry(client).or_insert_with(|| Allowance::full(rate, now)).take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, per_second: 2 };

    #[test]
    fn an_address_may_connect_in_a_burst_and_then_at_its_rate() {
        let begun = Instant::now();
        let mut rates = ConnectRates::new(RATE);
        let mut taken = |address: &str, after_ms| {
            rates.take(address.parse().unwrap(), begun + Duration::from_millis(after_ms))
        };
        assert_eq!([0; 5].map(|at| taken("10.0.0.1", at)), [true, true, true, false, false]);
        assert!(taken("10.0.0.2", 0), "others may");
        assert!([0; 10].iter().all(|at| taken("127.0.0.1", *at)), "loopback has no limit");
        assert_eq!([500, 500, 1000].map(|at| taken("10.0.0.1", at)), [true, false, true]);
        assert_eq!([60_000; 4].map(|at| taken("10.0.0.1", at)), [true, true, true, false]);
    }

    #[test]
    fn addresses_that_no_longer_connect_are_forgotten() {
        let begun = Instant::now();
        let mut rates = ConnectRates::new(RATE);
        for n in 0..10_000u32 {
            assert!(rates.take(IpAddr::from(n.to_be_bytes().map(|byte| byte | 0x80)), begun));
            assert!(rates.of_address.len() <= ConnectRates::ADDRESSES);
        }
        assert!(rates.take("10.0.0.1".parse().unwrap(), begun + Duration::from_secs(60)));
        assert_eq!(rates.of_address.len(), 1);
    }
}
