//! A TCP proxy whose connections can be disturbed, for the city's chaos and for tests.
//!
//! **Promise.** Whatever fault is set, what arrives on a connection is what was sent on it, from the first byte on and without
//! a gap, as TCP promises on the worst network. A healed proxy takes new connections.
//! **Kept by.** A connection that lost bytes is reset when the proxy heals, as a gateway resets one that it forgot.
//! **Not promised.** That a fault disturbs anything: [`FaultProxy::affected`] says whether it did.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkDirection {
    ToServer,
    ToEdge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFault {
    Delay,
    /// Nothing arrives for a while, and then all of it: what packet loss looks like over TCP.
    Stall,
    /// Connections are reset, in the middle of whatever they carry.
    Reset,
    /// Everything is accepted, nothing arrives, nothing is answered.
    BlackHole,
    /// What goes in this direction is lost, the other direction works.
    HalfOpen(LinkDirection),
    /// Connections break, and new ones are refused.
    Refuse,
}

impl LinkFault {
    pub const ALL: [LinkFault; 7] = [
        LinkFault::Delay,
        LinkFault::Stall,
        LinkFault::Reset,
        LinkFault::BlackHole,
        LinkFault::HalfOpen(LinkDirection::ToServer),
        LinkFault::HalfOpen(LinkDirection::ToEdge),
        LinkFault::Refuse,
    ];
}

/// The maximum number of bytes that are carried at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// How late a piece arrives under [`LinkFault::Delay`], in milliseconds.
const DELAY_MS: RangeInclusive<u64> = 1..=120;

/// How many bytes a connection carries that is made under [`LinkFault::Reset`]: less than a handshake, or some events.
const BYTES_BEFORE_RESET: RangeInclusive<usize> = 0..=2_000;

/// How long to wait when the machine has no more sockets, or an address is not free yet.
const RETRY_ACCEPT_AFTER: Duration = Duration::from_millis(50);

/// What a proxy does at the moment to what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LinkState {
    number: u64,
    fault: Option<LinkFault>,
}

/// A listener that carries what comes to a server. It works while this exists.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<ProxyShared>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct ProxyShared {
    to: SocketAddr,
    state: watch::Sender<LinkState>,
    /// The number of the last state that did something to a connection.
    affected: watch::Sender<u64>,
    /// Notified of each piece that arrived at the server.
    carried: Notify,
    bytes_to_server: AtomicU64,
    bytes_per_s: AtomicU64,
}

impl ProxyShared {
    fn note_affected(&self, state: LinkState) {
        self.affected.send_if_modified(|affected| std::mem::replace(affected, state.number) != state.number);
    }

    /// Counts a piece that arrived, and returns once the limit of speed allows the next one.
    async fn note_carried(&self, direction: LinkDirection, length: usize) {
        if direction == LinkDirection::ToServer {
            self.bytes_to_server.fetch_add(length as u64, Ordering::Relaxed);
            self.carried.notify_waiters();
        }
        let bytes_per_s = self.bytes_per_s.load(Ordering::Relaxed);
        if bytes_per_s < u64::MAX {
            tokio::time::sleep(Duration::from_secs_f64(length as f64 / bytes_per_s as f64)).await;
        }
    }
}

impl FaultProxy {
    /// Listens at `at` (port 0 picks one) and carries what comes to `to`, even while nobody listens there.
    pub async fn open(at: SocketAddr, to: SocketAddr) -> io::Result<FaultProxy> {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(ProxyShared {
            to,
            state: watch::Sender::new(LinkState { number: 0, fault: None }),
            affected: watch::Sender::new(0),
            carried: Notify::new(),
            bytes_to_server: AtomicU64::new(0),
            bytes_per_s: AtomicU64::new(u64::MAX),
        });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, address, shared.clone()));
        Ok(FaultProxy { address, shared, _serving: serving })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Disturbs connections from now on, until [`FaultProxy::heal`] or another fault. Returns the number of this fault.
    pub fn set(&self, fault: impl Into<Option<LinkFault>>) -> u64 {
        let mut number = 0;
        self.shared.state.send_modify(|state| {
            number = state.number + 1;
            *state = LinkState { number, fault: fault.into() };
        });
        number
    }

    pub fn heal(&self) {
        self.set(None);
    }

    /// Limits the speed in each direction of each connection.
    pub fn limit_speed(&self, bytes_per_s: u64) {
        self.shared.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    pub fn bytes_to_server(&self) -> u64 {
        self.shared.bytes_to_server.load(Ordering::Relaxed)
    }

    /// Returns when the next piece has arrived at the server: then there is a connection, and more to come.
    pub async fn carried(&self) {
        self.shared.carried.notified().await;
    }

    /// Returns once the fault with this number has done something to a connection.
    pub async fn affected(&self, number: u64) {
        let mut affected = self.shared.affected.subscribe();
        // It fails only when the proxy is gone, and we hold a reference to it.
        let _ = affected.wait_for(|affected| *affected >= number).await;
    }
}

/// Accepts connections as long as the proxy exists; ends with all of them.
async fn serve(listener: TcpListener, address: SocketAddr, shared: Arc<ProxyShared>) {
    let mut state = shared.state.subscribe();
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        if state.borrow_and_update().fault == Some(LinkFault::Refuse) {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                // It refuses, or the address is not free yet.
                None => Err(io::ErrorKind::AddrInUse.into()),
            }
        };
        tokio::select! {
            biased;
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = accept => match accepted {
                Ok((near, _)) => _ = connections.spawn(carry(near, shared.clone())),
                Err(_) => tokio::time::sleep(RETRY_ACCEPT_AFTER).await,
            }
        }
    }
}

async fn carry(mut near: TcpStream, shared: Arc<ProxyShared>) {
    let born = *shared.state.borrow();
    let connection = ProxyConnection { shared: &shared, born, lost_in: AtomicU64::new(0) };
    let _ = near.set_nodelay(true);
    let mut far = match TcpStream::connect(shared.to).await {
        Ok(far) => far,
        // The server is dead. The connection that was accepted on its behalf ends.
        Err(_) => return reset(&near),
    };
    let _ = far.set_nodelay(true);
    let carried = {
        let (from_edge, to_edge) = near.split();
        let (from_server, to_server) = far.split();
        let there = connection.carry(LinkDirection::ToServer, from_edge, to_server);
        let back = connection.carry(LinkDirection::ToEdge, from_server, to_edge);
        tokio::select! {
            biased;
            () = connection.ended_by_fault() => is_reset(),
            carried = async { tokio::try_join!(there, back) } => carried.map(|_| ()),
        }
    };
    if carried.is_err() {
        reset(&near);
        reset(&far);
    }
}

/// Makes the end of this stream a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

fn is_reset() -> io::Result<()> {
    Err(io::ErrorKind::ConnectionReset.into())
}

struct ProxyConnection<'a> {
    shared: &'a ProxyShared,
    /// The state in which it was made.
    born: LinkState,
    /// The number of the state in which it lost bytes, or 0.
    lost_in: AtomicU64,
}

impl ProxyConnection<'_> {
    /// Whether bytes were lost in a state that is over: then nothing may follow.
    fn has_a_gap(&self, now: LinkState) -> bool {
        let lost_in = self.lost_in.load(Ordering::Relaxed);
        lost_in != 0 && lost_in != now.number
    }

    /// Returns when a fault ends the connection.
    async fn ended_by_fault(&self) {
        let mut state = self.shared.state.subscribe();
        loop {
            let now = *state.borrow_and_update();
            match now.fault {
                Some(LinkFault::Reset) if now.number != self.born.number => {
                    return self.shared.note_affected(now);
                }
                Some(LinkFault::Refuse) => return self.shared.note_affected(now),
                _ if self.has_a_gap(now) => return,
                _ => {}
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    /// Carries one direction until its sender ends it; an error ends the connection.
    async fn carry(
        &self,
        direction: LinkDirection,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
    ) -> io::Result<()> {
        let mut state = self.shared.state.subscribe();
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = rand::random_range(BYTES_BEFORE_RESET);
        loop {
            let length = from.read(&mut piece).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            let mut now = *state.borrow_and_update();
            while now.fault == Some(LinkFault::Stall) {
                self.shared.note_affected(now);
                state.changed().await.map_err(io::Error::other)?;
                now = *state.borrow_and_update();
            }
            if self.has_a_gap(now) {
                return is_reset();
            }
            match now.fault {
                Some(LinkFault::BlackHole) => self.lose(now),
                Some(LinkFault::HalfOpen(dead)) if dead == direction => self.lose(now),
                // A connection that was made before this fault ends at once.
                Some(LinkFault::Reset) if now.number == self.born.number && length >= left => {
                    self.shared.note_affected(now);
                    to.write_all(&piece[..left]).await?;
                    return is_reset();
                }
                fault => {
                    if fault == Some(LinkFault::Delay) {
                        self.shared.note_affected(now);
                        tokio::time::sleep(Duration::from_millis(rand::random_range(DELAY_MS))).await;
                    } else if fault == Some(LinkFault::Reset) {
                        left -= length.min(left);
                    }
                    to.write_all(&piece[..length]).await?;
                    self.shared.note_carried(direction, length).await;
                }
            }
        }
    }

    fn lose(&self, now: LinkState) {
        self.lost_in.store(now.number, Ordering::Relaxed);
        self.shared.note_affected(now);
    }
}

#[cfg(test)]
mod tests;
