//! **Promise.** Whatever a peer on the server's ZeroMQ port says, it gets a reply that tells what is wrong, or none; the
//! books keep every page as it was applied, and edges are served as before.
//!
//! The peers here speak ZeroMQ. Those who do not are held off by the gateway, which is to come.

use crate::common::peers::Caller;
use crate::common::{Edge, Journal, Server, assert_exactly_once, events_of, seeded, wait_until};
use bytes::Bytes;
use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::{REQUEST_MAX, Reply, Request, Verdict, WireError};
use fogpost::messaging::{Epoch, Sequence, SiteName};
use fogpost::parking::Event;
use rand::RngExt;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tempfile::TempDir;

/// The garage of an honest edge, beside which all of this happens.
const HONEST: &str = "Bull Ring";
/// The garage whose requests are made here, by hand.
const BY_HAND: &str = "by hand";

struct World {
    server: Server,
    edge: Edge,
    journal: Journal,
    _dir: TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("server"), &[]);
        let edge = Edge::start(&dir.path().join("edge"), HONEST, &[server.address()], &[]);
        let mut world = World { server, edge, journal: Journal::default(), _dir: dir };
        world.honest_events_arrive();
        world
    }

    fn honest_events_arrive(&mut self) {
        let before = self.journal.confirmed_events();
        let plates = (before..before + 20).map(|n| format!("GOOD{n}")).collect();
        self.journal.post_entries(&self.edge.http(), plates);
        let (edge, server) = (&self.edge, &self.server);
        wait_until("honest events arrive", Duration::from_secs(20), &[edge, server], || {
            edge.depth() == 0 && server.applied_of(HONEST) == before + 20
        });
    }

    /// Also after a restart, which reads everything from the disk again.
    fn the_books_are_exact(mut self) {
        self.honest_events_arrive();
        let books = events_of(&self.server, HONEST);
        assert_exactly_once(&books, &[self.journal]);
        self.server.kill();
        self.server.restart();
        assert_eq!(events_of(&self.server, HONEST), books);
    }
}

/// A page of ten cars, in a chain of such.
fn page(epoch: Epoch, first: u64) -> SealedPage {
    let record = |n: u64| {
        let event = json!({"kind": "entry", "plate": format!("HAND{n}"), "at": "2026-11-23T08:15:00Z"});
        let event = Event::from_json(event.to_string().as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap();
        Message::of(event.to_bytes())
    };
    SealedPage::seal(&Page {
        epoch,
        first: Sequence::new(first).unwrap(),
        previous: (first > 10).then(|| page(epoch, first - 10).digest),
        moved_from: None,
        begun: fogpost::messaging::ClockReading::at_wall_ms(1_764_000_000_000),
        content: Content::Records((first..first + 10).map(record).collect()),
    })
}

/// The request that brings this page.
fn request(epoch: Epoch, first: u64) -> Request {
    Request {
        id: first,
        site: SiteName::new(BY_HAND).unwrap(),
        epoch,
        oldest: 1,
        ledger: None,
        instance: 1,
        clock_ms: 0,
        pages: vec![page(epoch, first)],
        ask: None,
        observation: None,
    }
}

fn refusal(reply: &[u8]) -> String {
    match Reply::decode(reply) {
        Ok(Reply { verdict: Verdict::Refused { reason }, .. }) => reason,
        other => panic!("a refusal was expected: {other:?}"),
    }
}

#[test]
fn a_body_that_is_no_request_is_refused_with_the_reason() {
    let world = World::new();
    let mut dealer = Caller::dealer(&world.server.address());
    let mut req = Caller::req(&world.server.address());
    let epoch = Epoch::random();
    let good = request(epoch, 1).encode();
    let mut rng = seeded();
    let random = |length: usize| (0..length).map(|_| rng.random()).collect::<Vec<u8>>();
    let mut bodies: Vec<(Vec<u8>, &str)> =
        [0, 1, 3, 100, REQUEST_MAX].map(random).map(|b| (b, "fogp")).into();
    bodies.push((b"GET / HTTP/1.1\r\n\r\n".to_vec(), "fogp"));
    bodies.push((b"fogp".to_vec(), "fogp"));
    // Cut off anywhere.
    bodies.extend((5..good.len()).map(|length| (good[..length].to_vec(), "does not decode")));
    bodies.push(([&good[..], &[0]].concat(), "bytes follow its end"));
    // Lengths that promise more than there is: names, pages and bytes of any size.
    for huge in [
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F][..],
        &[0xFF; 9],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
    ] {
        let header = b"fogp\x02\x01";
        bodies.push(([&header[..], huge].concat(), "does not decode"));
        bodies.push(([&header[..], b"\x01g", &[7; 16], &[1, 0, 1, 0], huge].concat(), "does not decode"));
        bodies.push((
            [&header[..], b"\x01g", &[7; 16], &[1, 0, 1, 0, 1], &[9; 16], huge].concat(),
            "does not decode",
        ));
    }
    // What is much longer does not come through the gateway: `hostile_peers_bring_nothing_down`.
    for too_long in [REQUEST_MAX + 1, REQUEST_MAX + 8 * 1024] {
        let mut body = good.clone();
        body.resize(too_long, 0);
        bodies.push((body, "more than the protocol allows"));
    }
    for (body, reason) in &bodies {
        let shown = body[..body.len().min(60)].escape_ascii().to_string();
        for reply in [dealer.ask(body.clone()), req.ask(body.clone())] {
            let said = refusal(&reply);
            assert!(said.contains(reason), "{shown} ({} bytes): {said:?} lacks {reason:?}", body.len());
        }
    }
    assert_eq!(events_of(&world.server, BY_HAND), []);
    world.the_books_are_exact();
}

#[test]
fn a_version_that_the_server_does_not_know_is_answered_with_those_that_it_knows() {
    let world = World::new();
    let mut dealer = Caller::dealer(&world.server.address());
    let mut body = request(Epoch::random(), 1).encode();
    for version in [0, 1, 3, 255] {
        body[4] = version;
        let reply = dealer.ask(body.clone());
        assert_eq!(&reply[..], b"fogp\x00\x02\x02");
        assert!(matches!(Reply::decode(&reply), Err(WireError::PeerSpeaks { lowest: 2, highest: 2 })));
    }
    assert_eq!(events_of(&world.server, BY_HAND), []);
    world.the_books_are_exact();
}

#[test]
fn messages_of_any_number_of_frames_do_no_harm() {
    let world = World::new();
    let good = Bytes::from(request(Epoch::random(), 1).encode());
    let none = Bytes::new();
    for frames in [
        vec![good.clone()],
        vec![none.clone()],
        vec![none.clone(), none.clone()],
        vec![none.clone(), none.clone(), none.clone()],
        vec![Bytes::from_static(b"not empty"), good.clone()],
        vec![good.clone(), none.clone()],
        vec![none.clone(), Bytes::from_static(b"a"), Bytes::from_static(b"b"), Bytes::from_static(b"c")],
        vec![Bytes::from_static(b"x"); 64],
    ] {
        let mut dealer = Caller::dealer(&world.server.address());
        dealer.say(frames);
        let reply = dealer.hear(Duration::from_secs(20)).expect("every message is answered");
        refusal(reply.last().unwrap());
        // The next on the same socket is served.
        let reply =
            Reply::decode(&dealer.ask(Request { pages: vec![], ..request(Epoch::random(), 1) }.encode()));
        assert!(matches!(reply, Ok(Reply { mark: 0, verdict: Verdict::Accepted, .. })), "{reply:?}");
    }
    assert_eq!(events_of(&world.server, BY_HAND), []);
    world.the_books_are_exact();
}

/// A flip in a page is seen by its digest. One in the site's name or the epoch makes another stream, or none: of the stream
/// that was meant, each page is applied as it was made or not at all.
#[test]
fn a_request_with_flipped_bits_never_changes_what_a_page_says() {
    let world = World::new();
    let mut rng = seeded();
    let mut dealer = Caller::dealer(&world.server.address());
    let epoch = Epoch::random();
    let reply = Reply::decode(&dealer.ask(request(epoch, 1).encode())).unwrap();
    assert_eq!((reply.mark, &reply.verdict), (10, &Verdict::Accepted));
    let (mut refused, mut accepted, mut others) = (0, 0, 0);
    for round in 0..3_000 {
        // Of a page that is applied, and of the next one.
        let mut body = request(epoch, if round % 2 == 0 { 1 } else { 11 }).encode();
        for _ in 0..rng.random_range(1..=3) {
            let place = rng.random_range(5..body.len());
            body[place] ^= 1 << rng.random_range(0..8);
        }
        match Reply::decode(&dealer.ask(body)).unwrap().verdict {
            Verdict::Refused { .. } => refused += 1,
            Verdict::Accepted => accepted += 1,
            Verdict::Gap | Verdict::Conflict { .. } | Verdict::OtherLedger | Verdict::Move { .. } => {
                others += 1
            }
        }
    }
    println!(
        "of 3000 requests with flipped bits {refused} were refused, {accepted} accepted, {others} out of place"
    );
    let reply = Reply::decode(&dealer.ask(request(epoch, 11).encode())).unwrap();
    assert_eq!((reply.mark, &reply.verdict), (20, &Verdict::Accepted));
    let books = events_of(&world.server, BY_HAND);
    let of_epoch = books.iter().filter(|event| event.epoch == epoch.to_string());
    let shown: Vec<_> = of_epoch.map(|event| (event.sequence, event.plate.clone().unwrap())).collect();
    let made: Vec<_> = (1..=20).map(|n| (n, format!("HAND{n}"))).collect();
    assert_eq!(shown, made);
    world.the_books_are_exact();
}

#[test]
fn a_page_in_the_wrong_place_is_not_applied() {
    let world = World::new();
    let mut dealer = Caller::dealer(&world.server.address());
    let epoch = Epoch::random();
    let mut ask = |request: &Request| Reply::decode(&dealer.ask(request.encode())).unwrap();
    // Too early.
    assert_eq!(ask(&request(epoch, 11)).verdict, Verdict::Gap);
    assert_eq!(ask(&request(epoch, 1)).mark, 10);
    assert_eq!(ask(&request(epoch, 21)).verdict, Verdict::Gap);
    // Again, and then with another content.
    assert_eq!((ask(&request(epoch, 1)).mark, ask(&request(epoch, 1)).verdict), (10, Verdict::Accepted));
    assert_eq!(ask(&request(epoch, 5)).verdict, Verdict::Conflict { first: 5 });
    let elsewhere = Page { previous: Some(page(epoch, 11).digest), ..page(epoch, 11).open().unwrap() };
    let elsewhere = Request { pages: vec![SealedPage::seal(&elsewhere)], ..request(epoch, 11) };
    assert_eq!(ask(&elsewhere).verdict, Verdict::Conflict { first: 11 }, "it continues another page");
    let other_epoch = Request { epoch: Epoch::random(), ..request(epoch, 11) };
    let Verdict::Refused { reason } = ask(&other_epoch).verdict else { panic!("a refusal was expected") };
    assert!(reason.contains("another epoch"), "{reason:?}");
    let shown: Vec<_> = events_of(&world.server, BY_HAND).iter().map(|event| event.sequence).collect();
    assert_eq!(shown, (1..=10).collect::<Vec<u64>>());
    world.the_books_are_exact();
}

/// A browser, a port scanner, a peer that gives up: all of them happen on an open port.
#[test]
fn a_connection_that_is_no_zeromq_is_not_noticed_by_the_others() {
    let world = World::new();
    for bytes in
        [&b""[..], b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\xff\0\0\0\0\0\0\0\x01\x7f\x03", &[0; 64]]
    {
        let mut stream = TcpStream::connect(world.server.listen()).unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let _ = stream.read(&mut [0; 256]);
    }
    world.the_books_are_exact();
}
