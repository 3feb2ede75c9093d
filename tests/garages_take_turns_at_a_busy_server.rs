//! **Promise.** A server to which more comes than it serves stays small and says so: it answers "busy, come back in n ms" to those who
//! have the most waiting. A garage with any backlog delays a fresh one by a few requests at most, peers that do not read delay nobody, and
//! garages that return all at once are all served.

use crate::common::daemon::optimised;
use crate::common::peers::StandIn;
use crate::common::raw_zmtp::{RawPeer, message};
use crate::common::scale::by_scale;
use crate::common::with_room_for_many_connections;
use crate::common::{Edge, Journal, Program, Server, assert_exactly_once, events_of, wait_until};
use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use fogpost::messaging::{ClockReading, Epoch, Sequence, SiteName};
use fogpost::parking::Event;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const MEMORY_MAX_KB: u64 = 128 * 1024;
/// Pages in a request of the flood, about as many as it may have, and how many of these requests the server takes for one commit.
const FLOOD: u64 = 72;
const COMMIT: u64 = 9;

/// Events of a page, which has 3 KB.
const EVENTS: u64 = 12;

/// A request with this number of pages, in an epoch of its own: whatever became of others, it can be applied.
fn delivery(garage: &str, pages: u64) -> Vec<u8> {
    let epoch = Epoch::random();
    let mut previous = None;
    let event = json!({"kind": "count", "occupied": 1, "reason": "r".repeat(240)}).to_string();
    let event = Event::from_json(event.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap().to_bytes();
    let mut page = |n: u64| {
        let page = SealedPage::seal(&Page {
            epoch,
            first: Sequence::new(n * EVENTS + 1).unwrap(),
            previous,
            moved_from: None,
            begun: ClockReading::at_wall_ms(1_764_000_000_000),
            content: Content::Records((0..EVENTS).map(|_| Message::of(event.clone())).collect()),
        });
        previous = Some(page.digest);
        page
    };
    let (id, oldest, ledger, instance, pages) = (pages, 1, None, 1, (0..pages).map(&mut page).collect());
    let site = SiteName::new(garage).unwrap();
    let request = Request {
        id,
        site,
        epoch,
        oldest,
        ledger,
        instance,
        clock_ms: 0,
        pages,
        ask: None,
        observation: None,
    };
    message(&request.encode())
}

/// Whether the request was served. Otherwise it was sent away, and nothing else.
fn is_served(peer: &mut RawPeer, pages: u64) -> bool {
    let reply = Reply::decode(&peer.hear()).unwrap();
    match reply.busy_ms() {
        Some(ms) => assert!(reply.mark == 0 && (100..=10_000).contains(&ms), "{reply:?}"),
        None => {
            assert_eq!((reply.id, reply.mark, &reply.verdict), (pages, pages * EVENTS, &Verdict::Accepted));
        }
    }
    reply.busy_ms().is_none()
}

/// Sends as fast as the server takes it, and ignores that it is asked to wait.
fn flood(to: SocketAddr, served: &AtomicU64, stop: &AtomicBool) {
    const WINDOW: u32 = 8;
    let mut peer = RawPeer::dealer(to, b"");
    let mut waiting = 0;
    while !stop.load(Relaxed) || waiting > 0 {
        while waiting < WINDOW && !stop.load(Relaxed) {
            peer.say(&delivery("flood", FLOOD));
            waiting += 1;
        }
        served.fetch_add(is_served(&mut peer, FLOOD).into(), Relaxed);
        waiting -= 1;
    }
}

#[test]
fn a_garage_with_a_flood_of_events_delays_a_fresh_one_by_a_few_requests() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let to = server.listen();
    let (served, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let busy = || server.metric("fogpost_server_busy_replies_total");
    // They ask, and never read: neither what is answered nor what is not can hold up others.
    let silent: Vec<RawPeer> = (0..20)
        .map(|_| {
            let mut peer = RawPeer::dealer(to, b"");
            (0..15).for_each(|_| peer.say(&delivery("silent", 1)));
            peer.say(&delivery("silent", 1)[..2000]);
            peer
        })
        .collect();
    std::thread::scope(|scope| {
        (0..20).for_each(|_| drop(scope.spawn(|| flood(to, &served, &stop))));
        wait_until("more comes than is served", SOON, &[&server], || busy() > 20);
        for n in 0..by_scale(3, 5, 50) {
            let mut fresh = RawPeer::dealer(to, b"");
            let delivery = delivery(&format!("fresh {n}"), 1);
            let before = served.load(Relaxed);
            fresh.say(&delivery);
            assert!(is_served(&mut fresh, 1), "a fresh garage is not sent away");
            let meanwhile = served.load(Relaxed) - before;
            println!("{meanwhile} requests of the flood were served before that of the fresh garage");
            // The commit that runs, its own, and replies that were on their way.
            assert!(meanwhile <= 4 * COMMIT, "{meanwhile} requests of the flood came first");
            assert!(server.metric("fogpost_server_requests_waiting_bytes") <= 16 << 20);
        }
        stop.store(true, Relaxed);
    });
    let log = server.log();
    assert_eq!(log.matches("\"code\":\"server_busy\"").count(), 1, "it is said once, and not each time");
    println!("{} served, {} sent away, {:?}", served.into_inner(), busy(), server.memory());
    assert!(!optimised() || server.memory().most_kb < MEMORY_MAX_KB, "{:?}", server.memory());
    drop(silent);
}

/// As after a power cut of the server's data centre.
#[test]
fn garages_that_return_all_at_once_are_all_served() {
    with_room_for_many_connections();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let open = || server.metric("fogpost_server_gateway_connections_open");
    let calm = server.descriptors();
    let count = by_scale(200, 1000, 1000);
    let mut peers: Vec<RawPeer> = (0..count).map(|_| RawPeer::dealer(server.listen(), b"")).collect();
    // First each has a page, then a backlog: together more than may wait.
    for pages in [1, 10] {
        let mut tries = 0;
        let mut waiting: Vec<(usize, &mut RawPeer)> = peers.iter_mut().enumerate().collect();
        while !waiting.is_empty() {
            tries += 1;
            for (n, peer) in &mut waiting {
                peer.say(&delivery(&format!("g{n}"), pages));
            }
            waiting.retain_mut(|(_, peer)| !is_served(peer, pages));
            println!("{} of {count} were sent away at try {tries}", waiting.len());
        }
        assert!(tries <= if pages == 1 { 1 } else { 20 }, "{tries} tries");
    }
    assert_eq!(server.metric("fogpost_server_events_applied_total"), count as u64 * 11 * EVENTS);
    let metrics = server.http().get("/metrics").unwrap().body;
    assert!(!metrics.contains("gateway_refused_total{"), "no connection was closed\n{metrics}");
    let full = server.memory().now_kb;
    drop(peers);
    wait_until("nothing of them is left", SOON, &[&server], || open() == 0);
    wait_until("their descriptors are back", SOON, &[&server], || server.descriptors() <= calm);
    println!("{full} KB before that, {:?}", server.memory());
    // Each had sent a request of 33 KB, whose buffer the ROUTER keeps.
    let back = || server.memory().now_kb + 15 * count as u64 <= full;
    wait_until("their memory is back", SOON, &[&server], back);
    assert!(!optimised() || server.memory().most_kb < MEMORY_MAX_KB, "{:?}", server.memory());
}

/// A server that is busy is not unreachable, silent or wrong, and what it did not look at stays in the outbox.
#[test]
fn an_edge_comes_back_to_a_busy_server_by_itself_and_keeps_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let often = ["--board-interval-ms", "100"];
    let edge = Edge::start(&dir.path().join("edge"), "edge", &[server.address()], &often);
    let mut journal = Journal::default();
    journal.post_entries(&edge.http(), vec!["KA0".into()]);
    wait_until("the first event is delivered", SOON, &[&edge, &server], || edge.depth() == 0);
    let ledger = server.http().get_json("/v1/occupancy")["ledger"].as_str().unwrap().parse().unwrap();
    server.kill();
    let asked: Arc<Mutex<Vec<(Instant, usize)>>> = Arc::default();
    let asking = Arc::clone(&asked);
    let busy = StandIn::start(server.listen(), move |request: &Request| {
        asking.lock().unwrap().push((Instant::now(), request.pages.len()));
        let (id, mark, verdict, clock_ms) = (request.id, 1, Verdict::Gap, request.clock_ms);
        Reply { id, ledger, mark, verdict, pause_ms: 0, clock_ms, notice: None, answer: None }.busy(100)
    });
    (1..4).for_each(|n| journal.post_entries(&edge.http(), vec![format!("KA{n}")]));
    let times = by_scale(3, 4, 20);
    let patience = Duration::from_secs(5 * times);
    let with_pages = || asked.lock().unwrap().iter().filter(|(_, pages)| *pages > 0).count() as u64;
    wait_until("it was sent away a few times", patience, &[&edge], || with_pages() >= times);
    let outbox = edge.http().get_json("/v1/outbox");
    assert_eq!((&outbox["connected"], &outbox["depth"]), (&true.into(), &3.into()), "{outbox}");
    assert!(outbox["alarm"].is_null(), "{outbox}");
    let metrics = edge.http().get("/metrics").unwrap().body;
    let counted = metrics.lines().find_map(|line| line.strip_prefix("fogpost_edge_server_busy_replies "));
    assert!(counted.unwrap().parse::<u64>().unwrap() >= times, "{metrics}");
    let moments: Vec<Instant> = asked.lock().unwrap().iter().map(|(at, _)| *at).collect();
    let pauses: Vec<Duration> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // A question and the first pages may have left before the first answer came.
    assert!(pauses.iter().skip(2).all(|pause| *pause >= Duration::from_millis(1900)), "{pauses:?}");
    assert_eq!(edge.log().matches("\"code\":\"server_busy\"").count(), 1, "{}", edge.log_tail());

    drop(busy);
    server.restart();
    wait_until("all is delivered", SOON, &[&edge, &server], || edge.depth() == 0);
    assert!(edge.log().contains("no longer busy"), "{}", edge.log_tail());
    assert_exactly_once(&events_of(&server, "edge"), &[journal]);
}
