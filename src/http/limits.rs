//! Limits on the number of connections, and which connection is closed for a new one.
//!
//! **Promise.** A client that holds connections without using them cannot keep others out: a new connection is taken as long as any
//! other waits for a request, has sent only a part of one, or does not read its answer.
//! **Kept by.** A limit for all and one for each address. At a limit the least useful connection gives way: first those without a
//! whole request and idle ones, then later requests that are not complete, then clients that do not read their answers; among equals
//! the ones of the address with the most connections, of those the ones that never sent a whole request, and of those the oldest.
//! Unread answers may take 64 MB together: beyond that, the connections whose unread answers have the largest product of size and
//! waiting time give way.
//! **Not promised.** That a new connection is taken when all others are being answered: then it is refused with 503. Fairness
//! among the clients behind one reverse proxy, which all have its address. Loopback has no limit of its own: clients there are
//! programs on this machine, often a proxy. A word to a client whose connection gives way while it still sends: that would take a
//! descriptor for as long as it likes.

use super::connection::{Standing, Watch};
use super::metrics::{ConnectionMetrics, Metrics};
use crate::transport::address::client_of;
use rustix::process::{Resource, getrlimit};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Descriptors that the files of a daemon take, and its links to others at the least.
const DESCRIPTORS_OF_OTHERS: usize = 32;
/// However few descriptors there are.
const CONNECTIONS_MIN: usize = 8;
/// How many may still be open that were asked to end: one of them may have a request that is worked on.
const LEAVING_MAX: usize = 8;
/// Within which a connection that was asked to end has usually ended.
const ENDS_WITHIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Maximum number of all connections. Each takes about 20 KB and a file descriptor, of which a process has 1,024 by default.
    pub all: usize,
    /// A reverse proxy needs one for each request that it forwards at the same time.
    pub per_address: usize,
    /// Maximum number of bytes of all answers that wait for their clients to read them.
    pub answer_bytes: u64,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits { all: 512, per_address: 256, answer_bytes: 64 * 1024 * 1024 }
    }
}

impl ConnectionLimits {
    /// For the number of file descriptors that this process may have.
    fn of_this_process() -> ConnectionLimits {
        let descriptors = getrlimit(Resource::Nofile).current;
        let descriptors = descriptors.and_then(|count| usize::try_from(count).ok());
        ConnectionLimits::default().within(descriptors.unwrap_or(usize::MAX))
    }

    /// Half of what is left is for the links to others.
    fn within(self, descriptors: usize) -> ConnectionLimits {
        let half = descriptors.saturating_sub(DESCRIPTORS_OF_OTHERS) / 2;
        let all = half.clamp(CONNECTIONS_MIN, self.all);
        ConnectionLimits { all, per_address: self.per_address.min(all / 2), ..self }
    }
}

/// A connection that can give way, with how many its client has open, its standing and since when.
type Candidate = (u64, usize, Standing, Instant);

/// Selects the connection that gives way.
fn first_to_give_way(candidates: impl Iterator<Item = Candidate>) -> Option<u64> {
    let key = |(id, of_client, standing, since): &Candidate| {
        // The request of a new connection may be on its way.
        let rank = (*standing).max(Standing::Idle);
        (rank, Reverse(*of_client), *standing, *since, *id)
    };
    candidates.min_by_key(key).map(|(id, ..)| id)
}

struct OpenConnection {
    client: IpAddr,
    /// How many connections of the client are open, this one included.
    of_client: Arc<AtomicUsize>,
    watch: Arc<Watch>,
    gives_way: Arc<Notify>,
}

#[derive(Default)]
struct ConnectionTable {
    next_id: u64,
    /// The connections that were not asked to give way.
    open: BTreeMap<u64, OpenConnection>,
    /// How many of `open` each client has. The connections share it: to look up the client of each at every new connection took half
    /// of a core, so that thousands of new ones waited for a second.
    of_clients: HashMap<IpAddr, Arc<AtomicUsize>>,
    /// How many were asked to give way, and have not ended yet.
    leaving: usize,
}

impl ConnectionTable {
    fn count_of(&self, client: IpAddr) -> usize {
        self.of_clients.get(&client).map_or(0, |count| count.load(Relaxed))
    }

    fn insert(&mut self, client: IpAddr, watch: Arc<Watch>, gives_way: Arc<Notify>) -> u64 {
        let of_client = Arc::clone(self.of_clients.entry(client).or_default());
        of_client.fetch_add(1, Relaxed);
        let id = self.next_id;
        self.next_id += 1;
        self.open.insert(id, OpenConnection { client, of_client, watch, gives_way });
        id
    }

    fn remove(&mut self, id: u64) -> Option<OpenConnection> {
        let entry = self.open.remove(&id)?;
        if entry.of_client.fetch_sub(1, Relaxed) == 1 {
            self.of_clients.remove(&entry.client);
        }
        Some(entry)
    }

    /// Asks one connection to end, of `client` if one is given. False when none can.
    fn make_room(&mut self, client: Option<IpAddr>, now: Instant) -> bool {
        let candidates =
            self.open.iter().filter(|(_, entry)| client.is_none_or(|client| client == entry.client));
        let candidates = candidates.filter_map(|(id, entry)| {
            let (standing, since) = entry.watch.progress().standing(now)?;
            Some((*id, entry.of_client.load(Relaxed), standing, since))
        });
        first_to_give_way(candidates).is_some_and(|id| self.ask_to_leave(id))
    }

    fn ask_to_leave(&mut self, id: u64) -> bool {
        let Some(entry) = self.remove(id) else { return false };
        entry.gives_way.notify_one();
        self.leaving += 1;
        true
    }
}

/// The connections of a daemon, of all its listeners together: otherwise those of one could take all descriptors.
pub struct Connections {
    limits: ConnectionLimits,
    table: Mutex<ConnectionTable>,
    /// Notifies who waits when a connection has ended.
    ended: Notify,
    pub(super) traffic: ConnectionMetrics,
}

impl Connections {
    pub fn new(limits: ConnectionLimits, traffic: ConnectionMetrics) -> Arc<Connections> {
        Arc::new(Connections { limits, table: Mutex::default(), ended: Notify::new(), traffic })
    }

    /// As many as this process may have, counted in `metrics`.
    pub fn of_this_process(metrics: &mut Metrics) -> Arc<Connections> {
        Connections::new(ConnectionLimits::of_this_process(), ConnectionMetrics::register(metrics))
    }

    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        self.table.lock().expect("no thread panics while it holds the connections")
    }

    /// Gives a connection from `address` a slot, if necessary that of another, which has usually ended then. `None` when all others are
    /// being answered.
    pub(super) async fn admit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        let slot = self.give_slot(address, Instant::now())?;
        self.until_few_are_leaving().await;
        Some(slot)
    }

    /// Otherwise a thousand new ones would come before a thousand have ended, and there are not that many descriptors.
    async fn until_few_are_leaving(&self) {
        let few = async {
            loop {
                let ended = self.ended.notified();
                if self.table().leaving <= LEAVING_MAX {
                    return;
                }
                ended.await;
            }
        };
        let _ = timeout(ENDS_WITHIN, few).await;
    }

    fn give_slot(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<ConnectionSlot> {
        let client = client_of(address);
        let mut table = self.table();
        let too_many_of_client = !client.is_loopback() && table.count_of(client) >= self.limits.per_address;
        if too_many_of_client || table.open.len() >= self.limits.all {
            if !table.make_room(too_many_of_client.then_some(client), now) {
                self.traffic.connections_refused.inc();
                return None;
            }
            self.traffic.connections_evicted.inc();
        }
        let (watch, gives_way) = (Watch::new(now), Arc::new(Notify::new()));
        let id = table.insert(client, Arc::clone(&watch), Arc::clone(&gives_way));
        drop(table);
        self.traffic.connections_open.inc();
        Some(ConnectionSlot { connections: Arc::clone(self), id, watch, gives_way })
    }

    /// Ends connections whose clients do not read as long as all answers together take too much, the one of `id` aside: first the one
    /// with the largest product of its answer's size and the time for which it was not read.
    pub(super) fn make_room_for_answers(&self, id: u64, now: Instant) {
        let mut table = self.table();
        let mut bytes: u64 = table.open.values().map(|entry| entry.watch.progress().answer_bytes).sum();
        while bytes > self.limits.answer_bytes {
            let unread = table.open.iter().filter(|(other, _)| **other != id).filter_map(|(other, entry)| {
                let progress = entry.watch.progress();
                let unread_for = now.saturating_duration_since(progress.stalled_since()?);
                let its_bytes = progress.answer_bytes;
                Some((u128::from(its_bytes) * (unread_for.as_micros() + 1), its_bytes, *other))
            });
            let Some((_, its_bytes, other)) = unread.max() else { return };
            if table.ask_to_leave(other) {
                self.traffic.connections_evicted.inc();
            }
            bytes -= its_bytes;
        }
    }

    /// Has a connection closed, and waits until one is. False when none can be closed.
    pub(super) async fn free_a_descriptor(&self) -> bool {
        if !self.table().make_room(None, Instant::now()) {
            return false;
        }
        self.traffic.connections_evicted.inc();
        self.until_few_are_leaving().await;
        true
    }
}

/// The slot of a connection, released when this is dropped.
pub(super) struct ConnectionSlot {
    connections: Arc<Connections>,
    pub id: u64,
    pub watch: Arc<Watch>,
    /// Notified once when the connection has to end to make room for another.
    pub gives_way: Arc<Notify>,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        if table.remove(self.id).is_none() {
            table.leaving -= 1;
        }
        drop(table);
        self.connections.traffic.connections_open.dec();
        self.connections.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(all: usize, per_address: usize) -> Arc<Connections> {
        Connections::new(
            ConnectionLimits { all, per_address, ..ConnectionLimits::default() },
            ConnectionMetrics::default(),
        )
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Whether it was asked to give way.
    fn is_leaving(place: &ConnectionSlot) -> bool {
        !place.connections.table().open.contains_key(&place.id)
    }

    #[test]
    fn an_address_with_too_many_connections_gives_way_to_itself_and_not_others_to_it() {
        let connections = connections(100, 3);
        let now = Instant::now();
        let other = connections.give_slot(address("10.0.0.1"), now).unwrap();
        let mut greedy: Vec<ConnectionSlot> =
            (0..3).map(|_| connections.give_slot(address("10.0.0.2"), now).unwrap()).collect();
        greedy.push(connections.give_slot(address("::ffff:10.0.0.2"), now).unwrap());
        let leaving: Vec<bool> = greedy.iter().map(is_leaving).collect();
        assert_eq!((leaving, is_leaving(&other)), (vec![true, false, false, false], false));
    }

    #[test]
    fn hosts_of_one_ipv6_network_count_as_one_and_loopback_has_no_limit_of_its_own() {
        let connections = connections(100, 2);
        let now = Instant::now();
        let network: Vec<ConnectionSlot> =
            (0..3).map(|n| connections.give_slot(address(&format!("2001:db8::{n}")), now).unwrap()).collect();
        assert_eq!(network.iter().filter(|place| is_leaving(place)).count(), 1);
        for loopback in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let local: Vec<ConnectionSlot> =
                (0..3).map(|_| connections.give_slot(address(loopback), now).unwrap()).collect();
            assert_eq!(local.iter().filter(|place| is_leaving(place)).count(), 0, "{loopback}");
        }
    }

    #[test]
    fn at_the_limit_the_address_with_the_most_connections_gives_way_to_a_new_one() {
        let connections = connections(4, 4);
        let now = Instant::now();
        let honest = connections.give_slot(address("10.0.0.1"), now).unwrap();
        let greedy: Vec<ConnectionSlot> =
            (0..3).map(|_| connections.give_slot(address("10.0.0.2"), now).unwrap()).collect();
        let newcomers =
            ["10.0.0.3", "10.0.0.4"].map(|text| connections.give_slot(address(text), now).unwrap());
        let leaving: Vec<bool> = greedy.iter().map(is_leaving).collect();
        assert_eq!(leaving, [true, true, false], "the oldest of them");
        assert!(!is_leaving(&honest) && !newcomers.iter().any(is_leaving));
    }

    #[test]
    fn a_process_with_few_descriptors_has_few_connections() {
        let within = |descriptors| {
            let limits = ConnectionLimits::default().within(descriptors);
            (limits.all, limits.per_address)
        };
        let expected = [(8, 4), (16, 8), (496, 248), (512, 256)];
        assert_eq!([0, 64, 1024, usize::MAX].map(within), expected);
    }

    #[test]
    fn places_are_given_back() {
        let connections = connections(2, 1);
        let now = Instant::now();
        for _ in 0..5 {
            let places =
                ["10.0.0.1", "10.0.0.2"].map(|text| connections.give_slot(address(text), now).unwrap());
            assert_eq!(connections.traffic.connections_open.get(), 2);
            drop(places);
        }
        assert!(connections.table().open.is_empty() && connections.table().of_clients.is_empty());
        assert_eq!(
            (connections.traffic.connections_open.get(), connections.traffic.connections_evicted.get()),
            (0, 0)
        );
    }

    #[test]
    fn answers_that_are_not_read_give_way_when_all_are_too_much() {
        let limits = ConnectionLimits { answer_bytes: 250, ..ConnectionLimits::default() };
        let connections = Connections::new(limits, ConnectionMetrics::default());
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(std::time::Duration::from_secs(seconds)).unwrap();
        let place = |bytes, stalled: Option<u64>| {
            let place = connections.give_slot(address("10.0.0.1"), now).unwrap();
            place.watch.progress().handler_answered(now, bytes);
            stalled.into_iter().for_each(|seconds| place.watch.progress().stalled(ago(seconds)));
            place
        };
        let places = [place(10, Some(9)), place(100, Some(2)), place(120, Some(1)), place(60, None)];
        connections.make_room_for_answers(places[3].id, now);
        assert_eq!(places.each_ref().map(is_leaving), [false, true, false, false]);
        let last = place(300, None);
        connections.make_room_for_answers(last.id, now);
        assert_eq!(places.each_ref().map(is_leaving), [true, true, true, false], "one that is read stays");
        assert!(!is_leaving(&last));
    }

    /// With 512 idle connections of one client, and more that came, no other client got in that took a while to send its request.
    #[test]
    fn a_new_connection_does_not_give_way_to_idle_ones_of_an_address_with_more() {
        let connections = connections(3, 3);
        let idle = ["10.0.0.2", "10.0.0.2"].map(|text| {
            let place = connections.give_slot(address(text), Instant::now()).unwrap();
            let now = Instant::now();
            let mut progress = place.watch.progress();
            progress.handler_called(now);
            progress.request_complete(now);
            progress.handler_answered(now, 0);
            progress.answer_taken();
            progress.flushed(now);
            drop(progress);
            place
        });
        let new = connections.give_slot(address("10.0.0.1"), Instant::now()).unwrap();
        let _newer = connections.give_slot(address("10.0.0.2"), Instant::now()).unwrap();
        assert_eq!((idle.each_ref().map(is_leaving), is_leaving(&new)), ([true, false], false));
    }

    #[test]
    fn the_least_useful_gives_way_first() {
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(std::time::Duration::from_secs(seconds)).unwrap();
        let all = [
            (1, 4, Standing::NotReading, 9),
            (2, 4, Standing::Receiving, 8),
            (3, 4, Standing::Idle, 7),
            (4, 9, Standing::Idle, 1),
            (5, 9, Standing::Idle, 2),
            (6, 4, Standing::NoRequestYet, 1),
            (7, 9, Standing::NoRequestYet, 0),
        ];
        let mut left: Vec<u64> = all.iter().map(|candidate| candidate.0).collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let candidates = all.iter().filter(|candidate| left.contains(&candidate.0));
            let candidates =
                candidates.map(|&(id, of_client, standing, seconds)| (id, of_client, standing, ago(seconds)));
            let id = first_to_give_way(candidates).unwrap();
            left.retain(|other| *other != id);
            order.push(id);
        }
        assert_eq!(order, [7, 5, 4, 6, 3, 2, 1]);
        assert_eq!(first_to_give_way(std::iter::empty()), None);
    }
}
