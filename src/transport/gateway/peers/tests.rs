use super::super::close_reason::ClosedCounters;
use super::*;

fn peers(all: usize, per_address: usize) -> Arc<Peers> {
    let limits = PeerLimits { all, per_address, ..PeerLimits::default() };
    Peers::new(limits, ClosedPeers::new(ClosedCounters::default()), Gauge::default())
}

fn ago(now: Instant, seconds: u64) -> Instant {
    now.checked_sub(Duration::from_secs(seconds)).unwrap()
}

fn admit(peers: &Arc<Peers>, address: &str, now: Instant) -> Result<PeerSlot, CloseReason> {
    peers.admit(format!("{address}:7").parse().unwrap(), now)
}

fn reason(slot: &PeerSlot) -> Option<CloseReason> {
    *slot.peer.closed.lock().unwrap()
}

#[test]
fn an_honest_edge_gets_in_beside_any_number_of_peers_that_prove_nothing() {
    let (peers, begun) = (peers(10, 5), Instant::now());
    let mut slots: Vec<PeerSlot> = Vec::new();
    let edge = admit(&peers, "10.0.0.1", begun).unwrap();
    edge.peer.note_valid_request();
    for second in 1..100 {
        let now = begun + Duration::from_secs(second);
        slots.push(admit(&peers, "10.0.0.1", now).unwrap());
        slots.push(admit(&peers, "10.0.0.2", now).unwrap());
        assert!(peers.table().open.len() <= 10);
        // The oldest gives way, so a new one has some time to prove itself.
        assert_eq!(slots.iter().rev().take(6).filter_map(reason).count(), 0);
    }
    assert_eq!(reason(&edge), None);
    assert_eq!(slots.iter().filter_map(reason).count(), 198 - 9);
}

#[test]
fn the_least_useful_gives_way_first_and_who_waits_for_the_server_never() {
    let (peers, now) = (peers(8, 8), Instant::now());
    let slots: Vec<PeerSlot> = (0..8).map(|_| admit(&peers, "10.0.0.1", now).unwrap()).collect();
    let set = |n: usize, progress: fn(&mut PeerProgress, Instant)| {
        let mut its = slots[n].peer.progress();
        its.is_proven = true;
        its.heard_at = now;
        progress(&mut its, now);
    };
    set(0, |its, _| its.waits_for_server = true);
    set(1, |its, now| its.unread_since = Some(ago(now, 2)));
    set(2, |its, now| its.unread_since = Some(now));
    set(3, |its, now| its.unfinished = Some((0, ago(now, 5))));
    set(4, |its, now| its.heard_at = ago(now, 3));
    set(5, |its, now| its.heard_at = ago(now, 4));
    set(6, |its, now| (its.is_proven, its.heard_at) = (false, ago(now, 1)));
    set(7, |its, now| (its.is_proven, its.waits_for_server) = (false, now < Instant::now()));
    let mut order = Vec::new();
    while peers.free_a_descriptor(now) {
        order.extend(
            (0..8).filter(|n| reason(&slots[*n]).is_some() && !order.contains(n)).collect::<Vec<_>>(),
        );
    }
    assert_eq!(order, [6, 7, 5, 4, 3, 1]);
    let full = admit(&peers, "10.0.0.1", now).map(|slot| slot.peer.serial);
    assert!(full.is_ok(), "places are free");
}

#[test]
fn an_address_at_its_maximum_gives_way_to_itself_and_the_one_with_the_most_to_others() {
    let (peers, now) = (peers(6, 3), Instant::now());
    let other = admit(&peers, "10.0.0.1", ago(now, 60)).unwrap();
    let greedy: Vec<PeerSlot> = (0..4).map(|_| admit(&peers, "10.0.0.2", now).unwrap()).collect();
    assert_eq!(greedy.iter().map(reason).collect::<Vec<_>>(), [Some(CloseReason::GaveWay), None, None, None]);
    let local: Vec<PeerSlot> = (0..4).map(|_| admit(&peers, "127.0.0.1", now).unwrap()).collect();
    assert_eq!(reason(&other), None, "it has the fewest");
    // Loopback has no maximum of its own, but gives way when it has the most.
    let left = [&greedy, &local].map(|slots| slots.iter().filter_map(reason).count());
    assert_eq!(left, [2, 1]);
    let mut busy = Vec::new();
    let peers = self::peers(2, 2);
    for _ in 0..2 {
        let slot = admit(&peers, "10.0.0.3", now).unwrap();
        slot.peer.note_valid_request();
        slot.peer.progress().waits_for_server = true;
        busy.push(slot);
    }
    assert_eq!(admit(&peers, "10.0.0.4", now).err(), Some(CloseReason::TooMany));
}

#[test]
fn the_memory_of_all_messages_and_replies_is_bounded_by_closing_the_largest() {
    let now = Instant::now();
    let limits = PeerLimits { unfinished_bytes: 250, unread_bytes: 250, ..PeerLimits::default() };
    let peers = Peers::new(limits, ClosedPeers::new(ClosedCounters::default()), Gauge::default());
    let slots: Vec<PeerSlot> = (0..4).map(|_| admit(&peers, "127.0.0.1", now).unwrap()).collect();
    let total = |total: &AtomicUsize| total.load(Ordering::Relaxed);
    for (slot, (bytes, seconds)) in slots.iter().zip([(10, 9), (100, 2), (120, 1), (20, 0)]) {
        slot.peer.progress().unread_since = Some(ago(now, seconds));
        peers.reply_is_queued(&slot.peer, bytes, now);
    }
    assert_eq!((total(&peers.unread), slots.iter().filter_map(reason).count()), (250, 0));
    peers.reply_is_queued(&slots[3].peer, 1, now);
    let reasons: Vec<_> = slots.iter().map(reason).collect();
    assert_eq!(reasons, [None, Some(CloseReason::NotReading), None, None]);

    let mut session = Session::new(&peers.limits, now);
    let greeting_of_the_gateway = session.to_peer.len();
    slots[0].note(&session, 10, now);
    assert_eq!(total(&peers.unread), 251 - 10 + greeting_of_the_gateway);
    session.to_peer.clear();
    slots[0].note(&session, 0, now);
    // What comes after the end of a connection counts nothing.
    let last = Arc::clone(&slots[3].peer);
    drop(slots);
    peers.reply_is_queued(&last, 1000, now);
    assert_eq!((total(&peers.unread), total(&peers.unfinished)), (0, 0));
    assert!(peers.table().open.is_empty());
    assert_eq!(peers.open.get(), 0);
}
