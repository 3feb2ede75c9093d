//! **Promise.** Whatever clients announce, send, withhold or do not read at the HTTP of both daemons, honest producers and readers are
//! answered rightly meanwhile, nothing is taken that nobody asked for, the daemons stay small, each refusal is counted, and afterwards
//! nothing of those clients is left.
//!
//! What single requests do that are framed wrongly is in `misframed_requests_are_taken_once_or_not_at_all.rs`.

use crate::common::daemon::{optimised, own_loopback_address};
use crate::common::raw_http::{
    Door, Honest, Manner, POST_HEAD, RawClient, answers, client_hello, flood, new_plate, own_address, post,
    tls_client, write_down,
};
use crate::common::scale::{Scale, by_scale, scale};
use crate::common::{
    Certs, Edge, Journal, Program, Server, assert_exactly_once, events_of, spawn_hostile, turns, wait_until,
    with_room_for_many_connections,
};
use crate::misframed_requests_are_taken_once_or_not_at_all as misframed;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// Longer than an honest client waits unless something hangs, on a machine that does a lot besides.
const WITHOUT_HANGING: Duration = Duration::from_secs(10);
/// Within which each honest producer is answered on a machine that does nothing else.
const IN_TIME: Duration = Duration::from_secs(1);
const EDGE_MEMORY_MAX_KB: u64 = 64 * 1024;
const SERVER_MEMORY_MAX_KB: u64 = 128 * 1024;
/// How many connections a daemon has at most.
const CONNECTIONS_MAX: u64 = 512;

/// What must have been counted after something hostile, at least, and what was confirmed to those who did it.
#[derive(Default)]
struct Outcome {
    counted: Vec<(&'static str, u64)>,
    journal: Journal,
}

impl Outcome {
    fn counted(name: &'static str, count: u64) -> Outcome {
        Outcome { counted: vec![(name, count)], ..Outcome::default() }
    }
}

type Attack = fn(&Door) -> Outcome;

const TIMED_OUT: &str = "http_requests_timed_out";
const NOT_READ: &str = "http_answers_timed_out";
const EVICTED: &str = "http_connections_evicted";
const INVALID: &str = "http_requests_invalid";

/// The numbers of `GET /metrics`, without the name of the program before and `_total` behind.
fn metrics(door: &Door) -> BTreeMap<String, u64> {
    let text = door.get("/metrics").body;
    let lines = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("fogpost_")?.split_once(' ')?;
        let (_, name) = name.split_once('_')?;
        Some((name.trim_end_matches("_total").to_owned(), value.parse().ok()?))
    });
    lines.collect()
}

/// Each dies after 30 s, when it is counted; the server refuses what is posted there at once.
fn send_a_byte_per_second(door: &Door) -> Outcome {
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: {}", "x".repeat(200));
    let sized = format!("{POST_HEAD}Content-Length: 500\r\n\r\n{}", " ".repeat(400));
    let chunked = format!("{POST_HEAD}Transfer-Encoding: chunked\r\n\r\n{}", "1\r\n \r\n".repeat(100));
    std::thread::scope(|scope| {
        let slow = [(&head, 0), (&sized, sized.len() - 400), (&chunked, chunked.len() - 600)];
        let slow = slow.map(|(text, at_once)| {
            scope.spawn(move || {
                let mut client = RawClient::connect_from(own_address(), door.to);
                client.say(&text[..at_once]);
                answers(&client.drip(&text.as_bytes()[at_once..]))
                    .iter()
                    .map(|answer| answer.status)
                    .collect()
            })
        });
        let statuses: Vec<Vec<u16>> = slow.into_iter().map(|slow| slow.join().unwrap()).collect();
        let of_bodies = if door.takes_events { 408 } else { 405 };
        assert_eq!(statuses, [[408], [of_bodies], [of_bodies]], "{}", door.name);
    });
    Outcome::counted(TIMED_OUT, if door.takes_events { 3 } else { 1 })
}

/// Beginnings of requests whose ends never come.
fn stop_in_the_middle(door: &Door) -> Outcome {
    let whole = post(&new_plate(), "");
    let asks = whole.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let chunked = format!("{POST_HEAD}Transfer-Encoding: chunked\r\n\r\n20\r\n{{");
    let halves = [
        "",
        "G",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
        &whole[..whole.len() - 1],
        &chunked,
        &asks[..asks.find('{').unwrap()],
    ];
    let clients = halves.map(|half| {
        let mut client = RawClient::connect_from(own_address(), door.to);
        client.say(half);
        client
    });
    for (client, half) in clients.into_iter().zip(halves) {
        let answers = answers(&client.hear_the_end());
        let expected = if door.takes_events || !half.starts_with("POST") { 408 } else { 405 };
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [expected], "{} after {half:?}", door.name);
    }
    Outcome::counted(TIMED_OUT, if door.takes_events { 6 } else { 3 })
}

/// Half of them from one address, the others from 50; without a byte, with half a request, or after a whole one.
fn stay_silent(door: &Door) -> Outcome {
    let count: u64 = by_scale(400, 2000, 3000);
    let mut with_request = Vec::new();
    let mut others = Vec::new();
    for n in 0..count {
        let own = if n % 2 == 0 { 0 } else { 1 + (n % 50) as u8 };
        let mut client = RawClient::connect_from(Ipv4Addr::new(127, 251, own, 1), door.to);
        match n % 40 {
            0 | 1 => {
                client.say("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n");
                with_request.push(client);
            }
            2..20 => {
                client.say("POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Le");
                others.push(client);
            }
            _ => others.push(client),
        }
    }
    for client in others {
        let answers = answers(&client.hear_the_end());
        assert!(
            answers.iter().all(|answer| matches!(answer.status, 408 | 503)),
            "{}: {answers:?}",
            door.name
        );
    }
    drop(with_request);
    Outcome::counted(EVICTED, count.saturating_sub(CONNECTIONS_MAX))
}

/// Thousands of requests one after the other, with no answer read.
fn ask_without_reading(door: &Door) -> Outcome {
    let requests = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let stream = RawClient::connect_narrow(door.to).0;
                flood(&stream, &stream, &requests);
            });
        }
    });
    Outcome::counted(NOT_READ, 8)
}

/// The largest lists of the server, which nobody reads. Some give way to others when all are too much.
fn leave_large_answers_unread(door: &Door) -> Outcome {
    if door.takes_events {
        return Outcome::default();
    }
    let requests = b"GET /v1/events?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
    let clients: Vec<RawClient> = (0..by_scale(20, 150, 400))
        .map(|_| {
            let mut client = RawClient::connect_narrow(door.to);
            client.say(&requests);
            client
        })
        .collect();
    // Until they are gone: nothing more can be written.
    for mut client in clients {
        let began = Instant::now();
        client.0.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        while client.0.write(b"\r\n").map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |_| true) {
            assert!(began.elapsed() < Duration::from_secs(90), "a connection stays");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Outcome::default()
}

fn close_one_half(door: &Door) -> Outcome {
    let plate = new_plate();
    let whole = post(&plate, "");
    let mut journal = Journal::default();
    for (length, status) in
        [(0, 0), (10, 400), (whole.find("\r\n\r\n").unwrap() + 4, 400), (whole.len() - 1, 400)]
    {
        let mut client = RawClient::connect_from(own_address(), door.to);
        client.say(&whole[..length]);
        client.stop_sending();
        let answers = answers(&client.hear_the_end());
        let expected = if !door.takes_events && length > 10 { 405 } else { status };
        assert_eq!(answers.first().map_or(0, |answer| answer.status), expected, "{} {length}", door.name);
    }
    let mut client = RawClient::connect_from(own_address(), door.to);
    client.say(&whole);
    client.stop_sending();
    let answers = answers(&client.hear_the_end());
    assert_eq!(answers.len(), 1, "{answers:?}");
    write_down(&mut journal, plate, &answers[0]);
    assert_eq!(journal.confirmed.len(), usize::from(door.takes_events), "{answers:?}");
    Outcome { counted: vec![(INVALID, 1)], journal }
}

fn come_and_go(door: &Door) -> Outcome {
    for n in 0..by_scale(100, 1000, 3000) {
        let mut client = RawClient::connect(door.to);
        match n % 4 {
            0 => client.say("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            1 => client.say("GET /nothing HTTP/1.1\r\nHost"),
            2 => client.say(format!("{POST_HEAD}Content-Length: 50\r\n\r\n{{")),
            _ => {}
        }
    }
    Outcome::default()
}

fn send_what_is_misframed(door: &Door) -> Outcome {
    let (invalid, journal) = misframed::send_all(door);
    Outcome { counted: vec![(INVALID, invalid)], journal }
}

/// These hold few connections, so that none of them gives way to another.
const OF_A_FEW: [Attack; 5] =
    [send_a_byte_per_second, stop_in_the_middle, ask_without_reading, close_one_half, send_what_is_misframed];
const OF_CROWDS: [Attack; 3] = [stay_silent, leave_large_answers_unread, come_and_go];

/// Runs `attacks` against all doors at the same time, while honest clients ask at each, on fresh connections and on kept ones. What
/// was confirmed at each door, and what must have been counted there.
fn besiege(doors: &[Door], attacks: &[Attack]) -> (Vec<Journal>, Vec<BTreeMap<&'static str, u64>>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let honest: Vec<_> = doors
            .iter()
            .flat_map(|door| [Manner::Afresh, Manner::Once, Manner::FromAfar].map(|manner| (door, manner)))
            .map(|(door, manner)| {
                let over = &over;
                scope.spawn(move || ask_until(door, manner, over))
            })
            .collect();
        let hostile: Vec<Vec<_>> = doors
            .iter()
            .map(|door| attacks.iter().map(|attack| spawn_hostile(scope, move || attack(door))).collect())
            .collect();
        let mut journals = Vec::new();
        let mut expected = Vec::new();
        let mut failures = Vec::new();
        for attacks in hostile {
            let mut of_door = BTreeMap::new();
            for attack in attacks {
                match attack.join() {
                    Ok(outcome) => {
                        journals.push(outcome.journal);
                        outcome
                            .counted
                            .iter()
                            .for_each(|(name, count)| *of_door.entry(*name).or_default() += count);
                    }
                    Err(failure) => failures.push(failure),
                }
            }
            expected.push(of_door);
        }
        over.store(true, Ordering::Relaxed);
        journals.extend(honest.into_iter().map(|honest| honest.join().unwrap()));
        if let Some(failure) = failures.into_iter().next() {
            std::panic::resume_unwind(failure);
        }
        (journals, expected)
    })
}

/// Asks again and again; every answer is right, and comes in time.
fn ask_until(door: &Door, manner: Manner, over: &AtomicBool) -> Journal {
    let mut honest = Honest::new(door, manner);
    // On a slow machine a small siege is over before one from afar was answered often.
    while !over.load(Ordering::Relaxed) || honest.answered < 10 {
        honest.ask();
        std::thread::sleep(Duration::from_millis(10));
    }
    let Honest { longest, longest_with_connecting: whole, answered, again, .. } = honest;
    let who = format!("{}, {manner:?}: {answered} answers, {again} asked for again", door.name);
    println!("{who}, the longest after {longest:?}, with connecting {whole:?}");
    // A reader shares the server with hundreds who ask for its largest lists.
    let in_time = scale() == Scale::Long && door.takes_events;
    assert!(longest < if in_time { IN_TIME } else { WITHOUT_HANGING }, "{who}: {longest:?}");
    honest.journal
}

/// Both daemons, and their doors: first that of the edge, last that of the server.
struct Besieged {
    server: Server,
    edge: Edge,
    doors: Vec<Door>,
}

impl Besieged {
    fn plain(dir: &Path, tracer: &[&str]) -> Besieged {
        let server = Server::start_under(tracer, &dir.join("server"), &[]);
        let extra = ["--camera-http", &own_loopback_address()];
        let edge = Edge::start_under(tracer, &dir.join("edge"), "a", &[server.address()], &extra);
        let of_edge = Door::plain("the edge", edge.dir(), true);
        let cameras = std::fs::read_to_string(edge.dir().join("camera-http.addr")).unwrap();
        let of_cameras = Door { name: "the cameras", to: cameras.trim().parse().unwrap(), ..of_edge.clone() };
        let of_server = Door::plain("the server", server.dir(), false);
        Besieged { server, edge, doors: vec![of_edge, of_cameras, of_server] }
    }

    fn with_tls(dir: &Path) -> Besieged {
        let certs = Certs::new(dir);
        let issue = |own: &str, to: &str| {
            let (to, (host, _)) = (dir.join(to).to_str().unwrap().to_owned(), own.rsplit_once(':').unwrap());
            certs.run(&["issue", "--host", host, "--out", &to]);
            to
        };
        let own = own_loopback_address();
        let extra = ["--http-tls-dir", &issue(&own, "of-server")];
        let server = Server::start_at(&own, &[], &dir.join("server"), &extra);
        let own = own_loopback_address();
        let extra = ["--http", &own, "--http-tls-dir", &issue(&own, "of-edge")];
        let edge = Edge::start(&dir.join("edge"), "a", &[server.address()], &extra);
        let tls = Some(tls_client(&certs));
        let of_edge = Door { tls: tls.clone(), ..Door::plain("the edge with TLS", edge.dir(), true) };
        let of_server = Door { tls, ..Door::plain("the server with TLS", server.dir(), false) };
        Besieged { server, edge, doors: vec![of_edge, of_server] }
    }

    /// The doors whose daemons tell what they count.
    fn telling(&self) -> [&Door; 2] {
        [&self.doors[0], self.doors.last().unwrap()]
    }

    /// How many descriptors both have when edge and server are connected, and what was confirmed until then.
    fn calm(&self) -> ([usize; 2], Journal) {
        let mut honest = Honest::new(&self.doors[0], Manner::Afresh);
        honest.ask();
        wait_until("it is delivered", SOON, &[&self.edge, &self.server], || {
            self.doors[0].get("/v1/outbox").json()["depth"] == 0
        });
        (self.descriptors(), honest.journal)
    }

    fn descriptors(&self) -> [usize; 2] {
        [self.edge.descriptors(), self.server.descriptors()]
    }

    /// Each daemon has counted at least what its doors expect. What gave way to other connections is not counted as what it would have
    /// been: one in a crowd that does not read its answers gives way before they time out, or not, as the machine is slow or fast.
    fn assert_counted(&self, expected: &[BTreeMap<&'static str, u64>]) {
        let (of_server, of_edge) = expected.split_last().unwrap();
        let mut at_edge: BTreeMap<&str, u64> = BTreeMap::new();
        of_edge.iter().flatten().for_each(|(name, count)| *at_edge.entry(name).or_default() += count);
        for (door, expected) in self.telling().into_iter().zip([&at_edge, of_server]) {
            let counted = metrics(door);
            let shown: Vec<_> = counted.iter().filter(|(name, _)| name.starts_with("http_")).collect();
            println!("{}: {shown:?}", door.name);
            for (name, count) in expected {
                let gave_way = if matches!(*name, TIMED_OUT | NOT_READ) { counted[EVICTED] } else { 0 };
                assert!(
                    counted[*name] + gave_way >= *count,
                    "{}: {name} is at least {count}: {shown:?}",
                    door.name
                );
            }
        }
    }

    fn assert_none_gave_way(&self) {
        for door in self.telling() {
            assert_eq!(metrics(door)[EVICTED], 0, "{}", door.name);
        }
    }

    fn assert_small(&self) {
        let (edge, server) = (self.edge.memory(), self.server.memory());
        println!("the edge had at most {} KB, the server {} KB", edge.most_kb, server.most_kb);
        assert!(!optimised() || edge.most_kb < EDGE_MEMORY_MAX_KB, "{edge:?}");
        assert!(!optimised() || server.most_kb < SERVER_MEMORY_MAX_KB, "{server:?}");
    }

    /// Connections and descriptors are back where they were in the `calm`, what was confirmed is stored and nothing else, and clients
    /// that hang hold up no stop.
    fn end(mut self, calm: [usize; 2], journals: &[Journal]) {
        let daemons: [&dyn Program; 2] = [&self.edge, &self.server];
        wait_until("only the connection that asks is open", SOON, &daemons, || {
            self.telling().iter().all(|door| metrics(door)["http_connections_open"] == 1)
        });
        wait_until("their descriptors are back", SOON, &daemons, || {
            self.descriptors().iter().zip(calm).all(|(now, calm)| *now <= calm)
        });
        let outbox = || self.doors[0].get("/v1/outbox").json();
        wait_until("all is delivered", SOON, &daemons, || outbox()["depth"] == 0);
        let confirmed: u64 = journals.iter().map(Journal::confirmed_events).sum();
        assert_eq!(outbox()["next_sequence"], confirmed + 1);
        if self.doors[0].tls.is_none() {
            assert_exactly_once(&events_of(&self.server, "a"), journals);
        }
        let halves =
            self.doors.iter().flat_map(|door| ["", "GET /heal", POST_HEAD].map(|half| (door.to, half)));
        let held = halves.map(|(to, half)| {
            let mut client = RawClient::connect(to);
            client.say(half);
            client
        });
        let held: Vec<RawClient> = held.collect();
        for (name, (code, took)) in [("edge", self.edge.stop()), ("server", self.server.stop())] {
            println!("the {name} stopped after {took:?}");
            assert_eq!(code, Some(0), "{name}");
            assert!(took < WITHOUT_HANGING, "{name} took {took:?}");
        }
        drop(held);
        self.edge.assert_sound();
        self.server.verifies();
    }
}

#[test]
fn honest_clients_are_answered_beside_all_kinds_of_hostile_ones() {
    let _alone = turns::alone_when_long();
    with_room_for_many_connections();
    let dir = tempfile::tempdir().unwrap();
    let besieged = Besieged::plain(dir.path(), &[]);
    let mut backlog = Journal::default();
    let plates = (0..2000).map(|n| format!("BACK{n}")).collect();
    backlog.post_entries(&besieged.edge.http(), plates);
    wait_until("it is applied", SOON, &[&besieged.server], || besieged.server.applied_of("a") == 2000);
    let (calm, first) = besieged.calm();
    let attacks = [&OF_A_FEW[..], &OF_CROWDS].concat();
    let (mut journals, expected) = besiege(&besieged.doors, &attacks);
    journals.extend([backlog, first]);
    besieged.assert_counted(&expected);
    besieged.assert_small();
    besieged.end(calm, &journals);
}

#[test]
fn what_a_few_hostile_clients_do_is_counted_as_what_it_is() {
    let _alone = turns::alone_when_long();
    let dir = tempfile::tempdir().unwrap();
    let besieged = Besieged::plain(dir.path(), &[]);
    let (calm, first) = besieged.calm();
    let (mut journals, expected) = besiege(&besieged.doors, &OF_A_FEW);
    journals.push(first);
    besieged.assert_none_gave_way();
    besieged.assert_counted(&expected);
    besieged.end(calm, &journals);
}

/// The last of them has said all that it has to say first.
fn never_finish_a_handshake(door: &Door) -> Outcome {
    let hello = client_hello(door);
    let halves = [&[][..], &hello[..1], &hello[..5], &hello[..hello.len() - 1], &hello];
    let count = by_scale(2, 20, 100);
    let clients: Vec<RawClient> = (0..count * halves.len())
        .map(|n| {
            let mut client = RawClient::connect(door.to);
            client.say(halves[n % halves.len()]);
            client
        })
        .collect();
    clients.into_iter().for_each(|client| assert_eq!(answers(&client.hear_the_end()).len(), 0));
    Outcome::counted(TIMED_OUT, (count * halves.len()) as u64)
}

fn speak_something_else_than_tls(door: &Door) -> Outcome {
    let answer_to = |bytes: &[u8]| {
        let mut client = RawClient::connect(door.to);
        client.say(bytes);
        answers(&client.hear_the_end())
    };
    for plain in [post(&new_plate(), ""), "GET / HTTP/1.0\r\n\r\n".to_owned(), "\0".repeat(100)] {
        let answers = answer_to(plain.as_bytes());
        assert!(answers[0].problem(400).contains("https://"), "{answers:?}");
    }
    let hello = client_hello(door);
    let with_garbage = [&hello[..40], &[0xFF; 400]].concat();
    let records: [&[u8]; 5] = [
        b"\x16\x03\x01\xFF\xFF",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        &with_garbage,
        &hello.repeat(2),
    ];
    for record in records {
        assert_eq!(answer_to(record).len(), 0);
    }
    Outcome::counted(INVALID, 3 + records.len() as u64)
}

/// A second handshake, alerts, and records that were changed on their way.
fn send_garbage_after_the_handshake(door: &Door) -> Outcome {
    let hello = client_hello(door);
    let change = b"\x14\x03\x03\x00\x01\x01".repeat(1000);
    let garbage = [
        &hello[..],
        b"\x15\x03\x03\x00\x02\x02\x28",
        &[&b"\x17\x03\x03\x00\x20"[..], &[7; 32]].concat(),
        &change,
    ];
    for garbage in garbage {
        let mut client = door.secured().sock;
        client.write_all(garbage).unwrap();
        RawClient(client).hear_the_end();
    }
    Outcome::default()
}

/// What nobody reads stays in the buffers of TLS: it was taken for sent.
fn ask_by_tls_without_reading(door: &Door) -> Outcome {
    let requests = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let stream = door.secured();
                let socket = stream.sock.try_clone().unwrap();
                flood(stream, &socket, &requests);
            });
        }
    });
    Outcome::counted(NOT_READ, 4)
}

#[test]
fn honest_clients_with_tls_are_answered_beside_hostile_ones() {
    let _alone = turns::alone_when_long();
    let dir = tempfile::tempdir().unwrap();
    let besieged = Besieged::with_tls(dir.path());
    let (calm, first) = besieged.calm();
    let attacks: [Attack; 5] = [
        never_finish_a_handshake,
        speak_something_else_than_tls,
        send_garbage_after_the_handshake,
        ask_by_tls_without_reading,
        come_and_go,
    ];
    let (mut journals, expected) = besiege(&besieged.doors, &attacks);
    journals.push(first);
    besieged.assert_counted(&expected);
    besieged.assert_small();
    besieged.end(calm, &journals);
}

/// As many connections as anybody likes, and more of them all the time.
fn take_all_descriptors(door: &Door) -> Outcome {
    let connect = |n: usize| {
        let mut client = RawClient::connect(door.to);
        client.say(
            ["", "GET /nothing HTTP/1.1\r\nHost", "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"][n % 3],
        );
        client
    };
    let (began, mut rounds) = (Instant::now(), 0);
    let held: Vec<RawClient> = (0..150).map(connect).collect();
    while began.elapsed() < Duration::from_secs(by_scale(2, 5, 30)) {
        let more: Vec<RawClient> = (0..50).map(connect).collect();
        drop(more);
        rounds += 1;
    }
    drop(held);
    println!("{}: {rounds} times 50 connections", door.name);
    Outcome::counted(EVICTED, 100)
}

/// Connections of HTTP took the descriptors that a link to the server needs, and those of cameras the ones of all others.
#[test]
fn with_64_file_descriptors_honest_clients_are_answered_and_events_are_delivered() {
    let _alone = turns::alone_when_long();
    let dir = tempfile::tempdir().unwrap();
    let besieged = Besieged::plain(dir.path(), &["prlimit", "--nofile=64"]);
    let (calm, first) = besieged.calm();
    let (mut journals, expected) = besiege(&besieged.doors, &[take_all_descriptors]);
    journals.push(first);
    let confirmed: u64 = journals.iter().map(Journal::confirmed_events).sum();
    let applied = besieged.server.applied_of("a");
    println!("of {confirmed} events {applied} were applied meanwhile");
    assert!(applied > confirmed / 2, "{}", besieged.edge.log_tail());
    besieged.assert_counted(&expected);
    besieged.end(calm, &journals);
}
