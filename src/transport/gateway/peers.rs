//! All connections of the gateway: which is taken, and which is closed for another.
//!
//! **Promise.** A peer that only holds connections cannot keep others out: a new connection is taken as long as any other has not sent
//! a valid request yet, is idle, has sent only a part of a message, or does not read. All unfinished messages together take at most
//! [`PeerLimits::unfinished_bytes`], all unread replies [`PeerLimits::unread_bytes`], give or take one message.
//! **Kept by.** At a limit the least useful connection gives way ([`PeerStanding`]); among equals one of the address with the most
//! connections, and of those the one that has been so for the longest. For memory, it is the one with the largest product of bytes and
//! time.
//! **Not promised.** That a new connection is taken while all others wait for the server.

use super::close_reason::{CloseReason, ClosedPeers};
use super::limits::{ConnectRates, PeerLimits};
use super::session::Session;
use crate::messaging::SiteName;
use crate::transport::address::client_of;
use futures_util::task::AtomicWaker;
use prometheus_client::metrics::gauge::Gauge;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

/// For how long a peer must not have read before its connection can be closed for another.
const STALLED: Duration = Duration::from_secs(1);

/// How useful a connection is, the least useful first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PeerStanding {
    /// It has not sent a valid request.
    Unproven,
    Idle,
    /// It has sent a part of a message.
    Receiving,
    NotReading,
}

/// What is known of a connection that is open.
#[derive(Debug)]
pub struct OpenPeer {
    /// Unique in the life of the process.
    pub serial: u64,
    pub address: SocketAddr,
    /// The garages that its certificate names. Not set: it showed none.
    pub garages: OnceLock<Vec<SiteName>>,
    progress: Mutex<PeerProgress>,
    closed: Mutex<Option<CloseReason>>,
    waker: AtomicWaker,
}

#[derive(Debug)]
struct PeerProgress {
    is_proven: bool,
    waits_for_server: bool,
    /// When the peer was last heard.
    heard_at: Instant,
    /// Bytes of a message that is not complete, and since when.
    unfinished: Option<(usize, Instant)>,
    /// Bytes of replies that were not passed on to the connection yet.
    queued: usize,
    /// Bytes of replies that the peer has not taken.
    unsent: usize,
    unread_since: Option<Instant>,
    /// The connection has ended; its bytes are not counted any more.
    is_over: bool,
}

impl PeerProgress {
    /// How useful the connection is, and since when. `None`: the server owes it an answer, so it must not be closed.
    fn standing(&self, now: Instant) -> Option<(PeerStanding, Instant)> {
        if !self.is_proven {
            return Some((PeerStanding::Unproven, self.heard_at));
        }
        if let Some(since) = self.unread_since {
            let is_stalled = now.saturating_duration_since(since) >= STALLED;
            return is_stalled.then_some((PeerStanding::NotReading, since));
        }
        if self.waits_for_server {
            return None;
        }
        match self.unfinished {
            Some((_, since)) => Some((PeerStanding::Receiving, since)),
            None => Some((PeerStanding::Idle, self.heard_at)),
        }
    }

    fn unfinished_bytes(&self) -> usize {
        self.unfinished.map_or(0, |(bytes, _)| bytes)
    }

    fn unread_bytes(&self) -> usize {
        self.queued + self.unsent
    }
}

impl OpenPeer {
    fn progress(&self) -> MutexGuard<'_, PeerProgress> {
        self.progress.lock().expect("no thread panics while it holds a peer's progress")
    }

    /// Ends the connection soon. The first reason counts.
    pub fn close(&self, reason: CloseReason) {
        self.closed.lock().expect("no thread panics while it holds a reason").get_or_insert(reason);
        self.waker.wake();
    }

    /// Why the connection has to end; otherwise `waker` is woken when it has to.
    pub fn poll_closed(&self, waker: &Waker) -> Option<CloseReason> {
        self.waker.register(waker);
        *self.closed.lock().expect("no thread panics while it holds a reason")
    }

    /// Notes that it has sent a valid request.
    pub fn note_valid_request(&self) {
        self.progress().is_proven = true;
    }

    pub fn is_proven(&self) -> bool {
        self.progress().is_proven
    }
}

pub struct Peers {
    pub limits: PeerLimits,
    pub closed: ClosedPeers,
    table: Mutex<PeerTable>,
    unfinished: AtomicUsize,
    unread: AtomicUsize,
    open: Gauge,
}

struct PeerTable {
    next_serial: u64,
    rates: ConnectRates,
    /// Those that were not asked to give way.
    open: BTreeMap<u64, Arc<OpenPeer>>,
}

impl PeerTable {
    /// Removes the connection that gives way for another, of `client` if one is given.
    fn least_useful(&mut self, client: Option<IpAddr>, now: Instant) -> Option<Arc<OpenPeer>> {
        let mut of_client: HashMap<IpAddr, usize> = HashMap::new();
        for peer in self.open.values() {
            *of_client.entry(client_of(peer.address.ip())).or_default() += 1;
        }
        let candidates = self.open.values().filter_map(|peer| {
            let its_client = client_of(peer.address.ip());
            if client.is_some_and(|client| client != its_client) {
                return None;
            }
            let (standing, since) = peer.progress().standing(now)?;
            Some((standing, Reverse(of_client.get(&its_client).copied()), since, peer.serial))
        });
        let (.., serial) = candidates.min()?;
        self.open.remove(&serial)
    }

    /// Removes the connection that takes the most memory for the longest, with how much that is.
    fn largest(
        &mut self,
        taken: impl Fn(&PeerProgress) -> Option<(usize, Instant)>,
        now: Instant,
    ) -> Option<(usize, Arc<OpenPeer>)> {
        let candidates = self.open.values().filter_map(|peer| {
            let (bytes, since) = taken(&peer.progress())?;
            let micros = now.saturating_duration_since(since).as_micros() + 1;
            Some((bytes as u128 * micros, bytes, peer.serial))
        });
        let (_, bytes, serial) = candidates.max()?;
        Some((bytes, self.open.remove(&serial)?))
    }
}

impl Peers {
    pub fn new(limits: PeerLimits, closed: ClosedPeers, open: Gauge) -> Arc<Peers> {
        let rates = ConnectRates::new(limits.connects);
        let table = Mutex::new(PeerTable { next_serial: 1, rates, open: BTreeMap::new() });
        Arc::new(Peers { limits, closed, table, unfinished: 0.into(), unread: 0.into(), open })
    }

    fn table(&self) -> MutexGuard<'_, PeerTable> {
        self.table.lock().expect("no thread panics while it holds the peers")
    }

    /// The connection with this serial, unless it has ended or was asked to.
    pub fn get(&self, serial: u64) -> Option<Arc<OpenPeer>> {
        self.table().open.get(&serial).cloned()
    }

    /// Takes a connection from `address`, if necessary for another one. On `Err` there is no place for it.
    pub fn admit(self: &Arc<Self>, address: SocketAddr, now: Instant) -> Result<PeerSlot, CloseReason> {
        let client = client_of(address.ip());
        let mut table = self.table();
        if !table.rates.take(client, now) {
            return Err(CloseReason::ConnectsTooOften);
        }
        let of_client = || table.open.values().filter(|peer| client_of(peer.address.ip()) == client).count();
        let too_many_of_client = !client.is_loopback() && of_client() >= self.limits.per_address;
        if too_many_of_client || table.open.len() >= self.limits.all {
            let leaving = table.least_useful(too_many_of_client.then_some(client), now);
            leaving.ok_or(CloseReason::TooMany)?.close(CloseReason::GaveWay);
        }
        let serial = table.next_serial;
        table.next_serial += 1;
        let peer = Arc::new(OpenPeer {
            serial,
            address,
            garages: OnceLock::new(),
            progress: Mutex::new(PeerProgress {
                is_proven: false,
                waits_for_server: false,
                heard_at: now,
                unfinished: None,
                queued: 0,
                unsent: 0,
                unread_since: None,
                is_over: false,
            }),
            closed: Mutex::default(),
            waker: AtomicWaker::new(),
        });
        table.open.insert(serial, Arc::clone(&peer));
        drop(table);
        self.open.inc();
        Ok(PeerSlot { peers: Arc::clone(self), peer })
    }

    /// Closes a connection, as the process has no file descriptor left. False when all wait for the server.
    pub fn free_a_descriptor(&self, now: Instant) -> bool {
        let leaving = self.table().least_useful(None, now);
        leaving.inspect(|peer| peer.close(CloseReason::NoDescriptor)).is_some()
    }

    /// Counts a reply that is about to be given to the ROUTER for `peer`. False: its connection has ended. Peers that do not read are
    /// closed when all replies together take too much.
    pub fn reply_is_queued(&self, peer: &OpenPeer, bytes: usize, now: Instant) -> bool {
        let mut progress = peer.progress();
        if progress.is_over {
            return false;
        }
        progress.queued += bytes;
        let all = self.unread.fetch_add(bytes, Ordering::Relaxed) + bytes;
        drop(progress);
        let unread = |progress: &PeerProgress| Some((progress.unread_bytes(), progress.unread_since?));
        self.close_the_largest(all, self.limits.unread_bytes, unread, CloseReason::NotReading, now);
        true
    }

    fn close_the_largest(
        &self,
        mut all: usize,
        limit: usize,
        taken: impl Fn(&PeerProgress) -> Option<(usize, Instant)>,
        reason: CloseReason,
        now: Instant,
    ) {
        while all > limit {
            let Some((bytes, peer)) = self.table().largest(&taken, now) else { return };
            peer.close(reason);
            all = all.saturating_sub(bytes);
        }
    }
}

/// The place of a connection among all, released when this is dropped.
pub struct PeerSlot {
    peers: Arc<Peers>,
    pub peer: Arc<OpenPeer>,
}

impl PeerSlot {
    /// Notes where the connection stands, of whose replies `answered` bytes were taken from the ROUTER since the last time.
    pub fn note(&self, session: &Session, answered: usize, now: Instant) {
        let (unfinished, unsent) = (session.unfinished_bytes(), session.to_peer.len());
        let mut progress = self.peer.progress();
        let before = (progress.unfinished_bytes(), progress.unread_bytes());
        progress.waits_for_server = session.has_requests_in_flight() || !session.to_router.is_empty();
        progress.heard_at = session.heard_at();
        progress.unfinished = (unfinished > 0).then(|| (unfinished, session.message_since()));
        progress.queued = progress.queued.saturating_sub(answered);
        progress.unsent = unsent;
        progress.unread_since = session.unread_since();
        let after = (progress.unfinished_bytes(), progress.unread_bytes());
        drop(progress);
        change(&self.peers.unread, before.1, after.1);
        let all = change(&self.peers.unfinished, before.0, after.0);
        if after.0 > before.0 {
            let limit = self.peers.limits.unfinished_bytes;
            let taken = |progress: &PeerProgress| progress.unfinished;
            self.peers.close_the_largest(all, limit, taken, CloseReason::Unfinished, now);
        }
    }
}

/// Moves a total by the difference, and returns it.
fn change(total: &AtomicUsize, before: usize, after: usize) -> usize {
    match after.checked_sub(before) {
        Some(more) => total.fetch_add(more, Ordering::Relaxed) + more,
        None => total.fetch_sub(before - after, Ordering::Relaxed) - (before - after),
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        self.peers.table().open.remove(&self.peer.serial);
        let mut progress = self.peer.progress();
        progress.is_over = true;
        change(&self.peers.unfinished, progress.unfinished_bytes(), 0);
        change(&self.peers.unread, progress.unread_bytes(), 0);
        self.peers.open.dec();
    }
}

#[cfg(test)]
mod tests;
