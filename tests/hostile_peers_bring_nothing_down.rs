//! **Promise.** Whatever peers announce, send, withhold or do not read at the port of edges, honest edges deliver everything meanwhile, the
//! server stays small, each refusal is counted under its reason, and afterwards nothing of them is left.

use crate::common::raw_zmtp::{RawPeer, greeting, long_frame, message, ready};
use crate::common::scale::{Scale, by_scale, runs_from, scale};
use crate::common::{Certs, Edge, Garage, Journal, Program, Server, assert_exactly_once, daemon::optimised};
use crate::common::{
    crowd, events_of, requires, spawn_hostile, turns, wait_until, with_room_for_many_connections,
};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use fogpost::messaging::{Epoch, SiteName};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// Within which an honest edge gets in.
const IN_TIME: Duration = Duration::from_secs(5);
const MEMORY_MAX_KB: u64 = 128 * 1024;
/// The garage that the peers say they are.
const STRANGER: &str = "stranger";

/// A valid request that changes nothing.
fn question(id: u64) -> Vec<u8> {
    let site = SiteName::new(STRANGER).unwrap();
    let (epoch, oldest, ledger) = (Epoch::random(), 1, None);
    let (instance, clock_ms, pages) = (1, 0, Vec::new());
    Request { id, site, epoch, oldest, ledger, instance, clock_ms, pages, ask: None, observation: None }
        .encode()
}

fn answers(reply: &[u8], id: u64) {
    let reply = Reply::decode(reply).unwrap();
    assert_eq!((reply.id, reply.verdict), (id, Verdict::Accepted));
}

/// How often the gateway closed a connection for each reason.
fn closed(server: &Server) -> BTreeMap<String, u64> {
    let metrics = server.http().get("/metrics").unwrap().body;
    let lines = metrics.lines().filter_map(|line| {
        let (reason, count) =
            line.strip_prefix("fogpost_server_gateway_refused_total{reason=\"")?.split_once("\"} ")?;
        Some((reason.to_owned(), count.parse().unwrap()))
    });
    lines.collect()
}

/// Something hostile, and for which reasons how many connections must have been closed after it.
type Attack = fn(SocketAddr) -> Vec<(&'static str, u64)>;

/// Each of them ended a server: the crate reserved what was announced.
fn announce_more_than_there_is(to: SocketAddr) -> Vec<(&'static str, u64)> {
    for flags in [0, 1, 4] {
        for length in [1 << 47, i64::MAX as u64, u64::MAX] {
            let mut peer = RawPeer::dealer(to, b"");
            peer.say(&long_frame(flags, length, &[7; 100]));
            peer.hear_the_end();
        }
    }
    vec![("peer_message_too_large", 6), ("peer_frame_invalid", 3)]
}

fn shake_hands_wrongly(to: SocketAddr) -> Vec<(&'static str, u64)> {
    let null = greeting([3, 1], b"NULL");
    let long = long_frame(4, 60_000, &[b'x'; 60_000]);
    for wrong in [ready("SUB", b""), ready("DEALER", &[7; 256]), long, message(b"no READY before it")] {
        let mut peer = RawPeer::connect(to);
        peer.say(&[null.clone(), wrong].concat());
        peer.hear_the_end();
    }
    let whole = ready("DEALER", b"");
    let mut cut_short = RawPeer::connect(to);
    cut_short.say(&[&null, &whole[..whole.len() - 1]].concat());
    cut_short.hear_the_end();
    vec![("peer_handshake_invalid", 4), ("peer_handshake_too_slow", 1)]
}

fn send_a_byte_per_second(to: SocketAddr) -> Vec<(&'static str, u64)> {
    RawPeer::connect(to).drip(&greeting([3, 1], b"NULL"));
    vec![("peer_handshake_too_slow", 1)]
}

fn speak_something_else(to: SocketAddr) -> Vec<(&'static str, u64)> {
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03";
    for bytes in [&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..], client_hello, &[0; 64], &[0xFF; 2000]] {
        let mut peer = RawPeer::connect(to);
        peer.say(bytes);
        peer.hear_the_end();
    }
    for bytes in [&b"\x01\x00"[..], b"\x06\x00hello", b"\xFF\0\0\0\0\0\0\0\x01\x7F\x01\x05\0\0"] {
        let mut peer = RawPeer::connect(to);
        peer.say(bytes);
        peer.hear_the_end();
    }
    for mechanism in [&b"PLAIN"[..], b"CURVE"] {
        let mut peer = RawPeer::connect(to);
        peer.say(&greeting([3, 0], mechanism));
        peer.hear_the_end();
    }
    vec![("peer_not_zmtp", 4), ("peer_zmtp_too_old", 3), ("peer_mechanism_unsupported", 2)]
}

fn never_come_to_an_end(to: SocketAddr) -> Vec<(&'static str, u64)> {
    let (part, command) = (&[1, 1, b'x'][..], &b"\x04\x05\x04PONG"[..]);
    for endless in [part, command] {
        let mut peer = RawPeer::dealer(to, b"");
        peer.say(&endless.repeat(100_000));
        peer.hear_the_end();
    }
    vec![("peer_message_too_large", 1), ("peer_commands_too_many", 1)]
}

/// Identities at the ROUTER are serial numbers: the first edges have the lowest ones.
fn take_the_names_of_others(to: SocketAddr) -> Vec<(&'static str, u64)> {
    let names: [&[u8]; 6] = [b"1", b"2", b"3", b"3", &[b'x'; 255], b""];
    let mut peers = names.map(|name| RawPeer::dealer(to, name));
    for round in 0..20 {
        for (n, peer) in (round * 10..).zip(&mut peers) {
            peer.say(&message(&question(n)));
        }
        for (n, peer) in (round * 10..).zip(&mut peers) {
            answers(&peer.hear(), n);
        }
    }
    Vec::new()
}

fn close_one_half(to: SocketAddr) -> Vec<(&'static str, u64)> {
    let mut whole = RawPeer::dealer(to, b"");
    whole.say(&[message(&question(1)), message(b"not a request"), message(&question(2))].concat());
    whole.stop_sending();
    // What is not a request is answered at once, and may be first.
    let replies = [0; 3].map(|_| Reply::decode(&whole.hear()).unwrap());
    let mut replies = replies.map(|reply| (reply.id, matches!(reply.verdict, Verdict::Refused { .. })));
    replies.sort();
    assert_eq!(replies, [(0, true), (1, false), (2, false)]);
    assert_eq!(whole.hear_the_end(), b"");
    let mut half = RawPeer::dealer(to, b"");
    let request = message(&question(1));
    half.say(&request[..request.len() / 2]);
    half.stop_sending();
    assert_eq!(half.hear_the_end(), b"");
    Vec::new()
}

/// As much as its receive buffer takes, and then nothing more, in each of five connections.
fn flood_without_reading(to: SocketAddr) -> Vec<(&'static str, u64)> {
    let flood = message(b"not a request").repeat(1000);
    let floods = std::array::from_fn::<_, 5, _>(|_| {
        let flood = flood.clone();
        std::thread::spawn(move || {
            let mut peer = RawPeer::dealer(to, b"");
            rustix::net::sockopt::set_socket_recv_buffer_size(&peer.0, 4096).unwrap();
            let began = Instant::now();
            peer.0.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut written = 0;
            loop {
                match peer.0.write(&flood[written..]) {
                    Ok(length) => written = (written + length) % flood.len(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
                if scale() == Scale::Quick && began.elapsed() > Duration::from_secs(2) {
                    return;
                }
                assert!(began.elapsed() < Duration::from_secs(120), "the flood still runs");
            }
        })
    });
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    Vec::new()
}

/// Half of them after a handshake.
fn stay_silent(to: SocketAddr) -> Vec<(&'static str, u64)> {
    let count = by_scale(60, 200, 2000);
    let ready: Vec<RawPeer> = (0..count / 2).map(|_| RawPeer::dealer(to, b"")).collect();
    let silent: Vec<RawPeer> = (0..count / 2).map(|_| RawPeer::connect(to)).collect();
    silent.into_iter().for_each(|peer| assert_eq!(peer.hear_the_end().len(), 64));
    drop(ready);
    vec![("peer_handshake_too_slow", count / 2)]
}

fn come_and_go(to: SocketAddr) -> Vec<(&'static str, u64)> {
    for n in 0..by_scale(100, 1000, 25_000) {
        match n % 5 {
            0 => RawPeer::connect(to).say(&greeting([3, 1], b"NULL")),
            1 => RawPeer::dealer(to, b"").say(&message(&question(n))),
            2 => RawPeer::dealer(to, b"").say(&message(&question(n))[..20]),
            _ => drop(RawPeer::connect(to)),
        }
    }
    Vec::new()
}

const ATTACKS: [Attack; 10] = [
    announce_more_than_there_is,
    shake_hands_wrongly,
    send_a_byte_per_second,
    speak_something_else,
    never_come_to_an_end,
    take_the_names_of_others,
    close_one_half,
    flood_without_reading,
    stay_silent,
    come_and_go,
];

fn open_connections(server: &Server) -> u64 {
    server.metric("fogpost_server_gateway_connections_open")
}

#[test]
fn honest_edges_deliver_everything_beside_all_kinds_of_hostile_peers() {
    let _alone = turns::alone_when_long();
    with_room_for_many_connections();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let cameras: &[&[usize]] = &[&[1, 20]];
    let mut garages: Vec<Garage> = (0..by_scale(2, 3, 10))
        .map(|n| Garage::start(dir.path(), &format!("g{n}"), &[server.address()], cameras))
        .collect();
    for garage in &garages {
        wait_until("it delivers", SOON, &[&server], || server.applied_of(garage.edge.name()) > 0);
    }
    let (calm, honest) = (server.descriptors(), open_connections(&server));
    let before: Vec<u64> = garages.iter().map(Garage::confirmed).collect();

    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    std::thread::scope(|scope| {
        let to = server.listen();
        let attacks = ATTACKS.map(|attack| spawn_hostile(scope, move || attack(to)));
        for (reason, count) in attacks.into_iter().flat_map(|attack| attack.join().unwrap()) {
            *expected.entry(reason).or_default() += count;
        }
    });
    let counted = closed(&server);
    for (reason, count) in &expected {
        assert_eq!(counted.get(*reason), Some(count), "{reason}: {counted:?}");
        // The first is logged at once, and of the others one a minute.
        let lines = server.log().matches(&format!("\"code\":\"{reason}\"")).count();
        assert!((1..=5).contains(&lines), "{reason} was logged {lines} times");
    }
    if scale() > Scale::Quick {
        assert_eq!(counted.get("peer_not_reading"), Some(&5), "{counted:?}");
    }
    println!("{counted:?}");
    let memory = server.memory();
    println!("the server had at most {} KB", memory.most_kb);
    assert!(!optimised() || memory.most_kb < MEMORY_MAX_KB, "{memory:?}");
    wait_until("nothing of them is left", SOON, &[&server], || open_connections(&server) == honest);
    wait_until("their descriptors are back", SOON, &[&server], || server.descriptors() <= calm);
    for (garage, before) in garages.iter_mut().zip(before) {
        assert!(garage.confirmed() > before + 100, "{} delivered meanwhile", garage.edge.name());
        garage.settle(&server);
        assert!(!garage.edge.log().contains("link_broke"), "{}", garage.edge.log_tail());
    }
}

/// An edge that was not there before delivers `events` events, the first of them in time.
fn a_new_edge_gets_in(server: &Server, edge: &Edge, journal: &mut Journal) {
    let began = Instant::now();
    let before = journal.confirmed_events();
    let plates = (before..before + 20).map(|n| format!("NEW{n}")).collect();
    journal.post_entries(&edge.http(), plates);
    wait_until("it is delivered", SOON, &[server, edge], || server.applied_of(edge.name()) == before + 20);
    println!("delivered after {:?}", began.elapsed());
    assert!(began.elapsed() < IN_TIME, "{:?}\n{}", began.elapsed(), edge.log_tail());
}

/// Out of descriptors, the accept loop of the crate took 61 % of a core, said nothing, and no edge got in.
#[test]
fn without_file_descriptors_an_edge_gets_in_and_nothing_spins() {
    let dir = tempfile::tempdir().unwrap();
    let few = ["prlimit", "--nofile=100"];
    let server = Server::start_under(&few, &dir.path().join("server"), &[]);
    let first = Edge::start(&dir.path().join("first"), "first", &[server.address()], &[]);
    let mut journals = [Journal::default(), Journal::default()];
    a_new_edge_gets_in(&server, &first, &mut journals[0]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let held: Vec<RawPeer> = (0..150).map(|_| RawPeer::connect(server.listen())).collect();
        let ready: Vec<RawPeer> = (0..30).map(|_| RawPeer::connect(server.listen())).collect();
        let edge = Edge::start(&dir.path().join("edge"), "edge", &[server.address()], &[]);
        a_new_edge_gets_in(&server, &edge, &mut journals[1]);
        // While more and more come.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let more: Vec<RawPeer> = (0..50).map(|_| RawPeer::connect(server.listen())).collect();
                more.into_iter().take(30).for_each(|peer| drop(peer.hear_the_end()));
            }
        });
        let (began, cpu) = (Instant::now(), server.cpu());
        while began.elapsed() < Duration::from_secs(3) {
            a_new_edge_gets_in(&server, &edge, &mut journals[1]);
            a_new_edge_gets_in(&server, &first, &mut journals[0]);
        }
        let (took, cpu) = (began.elapsed(), server.cpu() - cpu);
        println!("the server took {cpu:?} of {took:?}");
        stop.store(true, Ordering::Relaxed);
        drop((held, ready));
    });
    let counted = closed(&server);
    assert!(counted.get("peer_without_descriptor").is_some_and(|count| *count > 100), "{counted:?}");
    let lines = server.log().matches("\"code\":\"peer_without_descriptor\"").count();
    assert!((1..=3).contains(&lines), "it was logged {lines} times");
    for (name, journal) in ["first", "edge"].into_iter().zip(journals) {
        assert_exactly_once(&events_of(&server, name), &[journal]);
    }
}

#[test]
fn at_the_maximum_of_connections_an_edge_gets_in_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &["--max-connections", "20"]);
    let to = server.listen();
    let _held: Vec<RawPeer> = (0..30).map(|_| RawPeer::dealer(to, b"")).collect();
    let edge = Edge::start(&dir.path().join("edge"), "edge", &[server.address()], &[]);
    let mut journal = Journal::default();
    a_new_edge_gets_in(&server, &edge, &mut journal);
    for _ in 0..5 {
        let _more: Vec<RawPeer> = (0..30).map(|_| RawPeer::dealer(to, b"")).collect();
        a_new_edge_gets_in(&server, &edge, &mut journal);
    }
    assert!(!edge.log().contains("link_broke"), "{}", edge.log_tail());
    let counted = closed(&server);
    assert!(counted["peer_gave_way"] >= 60, "{counted:?}");
    assert_eq!(counted.len(), 1, "{counted:?}");
    assert_exactly_once(&events_of(&server, "edge"), &[journal]);
}

/// The messages of libzmq, its heartbeats and its proxy, beside those of the crate that our edges use.
#[test]
fn sockets_of_libzmq_are_served_with_and_without_heartbeats_and_through_a_proxy() {
    let Some(python) = requires::pyzmq() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    sockets_of_libzmq_are_served(&python, &server, &[]);
}

#[test]
fn sockets_of_libzmq_are_served_through_a_tunnel_with_a_certificate() {
    let Some(python) = requires::pyzmq() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::new(dir.path());
    certs.issue(STRANGER);
    sockets_of_libzmq_are_served(&python, &certs.server(), &[&certs.of_garage(STRANGER)]);
}

fn sockets_of_libzmq_are_served(python: &Path, server: &Server, certificates: &[&Path]) {
    let peers = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/pyzmq_peers.py");
    let questions: Vec<String> =
        (1..=40).map(|id| question(id).iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    let mut child = Command::new(python)
        .args(["-B", peers, &server.address()])
        .args(certificates)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(questions.join("\n").as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{text}{}", String::from_utf8_lossy(&said.stderr));
    println!("{text}");
    // One of each pair falls silent for longer than it promised in its PING.
    assert_eq!(closed(server), BTreeMap::from([("peer_silent".to_owned(), 1)]));
}

/// How many events per second come through from one edge with a backlog.
fn rate(server: &Server, edge: &Edge, numbers: std::ops::Range<u64>) -> f64 {
    let (began, end) = (Instant::now(), numbers.end);
    let events = (numbers.end - numbers.start) as f64;
    crowd::post_batches(edge, numbers);
    wait_until("all are applied", Duration::from_secs(300), &[server, edge], || {
        server.applied_of(edge.name()) == end
    });
    events / began.elapsed().as_secs_f64()
}

#[test]
fn hostile_peers_take_less_than_half_of_the_rate() {
    if !runs_from(Scale::Long) {
        return;
    }
    let _alone = turns::alone();
    with_room_for_many_connections();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let edge = Edge::start(&dir.path().join("edge"), "edge", &[server.address()], &[]);
    rate(&server, &edge, 0..50_000);
    let calm = rate(&server, &edge, 50_000..250_000);
    let to = server.listen();
    let besieged = std::thread::scope(|scope| {
        for attack in [flood_without_reading, stay_silent, come_and_go] {
            spawn_hostile(scope, move || attack(to));
        }
        rate(&server, &edge, 250_000..450_000)
    });
    println!("{calm:.0} events/s, {besieged:.0} beside hostile peers: {:.2}", besieged / calm);
    assert!(besieged > calm / 2.0, "{besieged:.0} of {calm:.0} events/s");
    let memory = server.memory();
    assert!(!optimised() || memory.most_kb < MEMORY_MAX_KB, "{memory:?}");
}
