//! **Promise.** A server address that accepts and never answers is left for the next one within three resend times:
//! what an edge has confirmed arrives through another address of the same server, once.

use crate::common::peers::{Detour, SilentListener, Stranger};
use crate::common::{Edge, Journal, Server, assert_exactly_once, events_of, wait_until};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest resend times of the first three tries: 2, 4 and 8 s.
const THREE_RESEND_TIMES: Duration = Duration::from_secs(2 + 4 + 8);
const GARAGE: &str = "Bull Ring";

fn server() -> (TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    (dir, server)
}

/// Posts ten cars and waits until the server has them.
fn ten_more_arrive(edge: &Edge, server: &Server, journal: &mut Journal, within: Duration) -> Duration {
    let before = journal.confirmed_events();
    for n in before..before + 10 {
        journal.post_entries(&edge.http(), vec![format!("KA{n}")]);
    }
    let posted = Instant::now();
    wait_until("ten cars arrive through the next address", within, &[edge, server], || {
        server.applied_of(GARAGE) == before + 10
    });
    posted.elapsed()
}

#[test]
fn one_that_never_says_a_byte() {
    let (dir, server) = server();
    let silent = SilentListener::start();
    let servers = [silent.address(), server.address()];
    let edge = Edge::start(&dir.path().join("edge"), GARAGE, &servers, &[]);
    let mut journal = Journal::default();
    let took = ten_more_arrive(&edge, &server, &mut journal, THREE_RESEND_TIMES);
    println!("past a listener that never says a byte: {took:?}");
    assert!(silent.connections() > 0, "it was never tried");
    assert_exactly_once(&events_of(&server, GARAGE), &[journal]);
}

#[test]
fn one_that_shakes_hands_and_reads_and_never_replies() {
    let (dir, server) = server();
    let mute = Stranger::start(None);
    let servers = [mute.address(), server.address()];
    let edge = Edge::start(&dir.path().join("edge"), GARAGE, &servers, &[]);
    let mut journal = Journal::default();
    let took = ten_more_arrive(&edge, &server, &mut journal, THREE_RESEND_TIMES);
    println!("past a socket that reads and never replies: {took:?}");
    assert!(mute.heard() > 0, "it was never tried");
    assert_exactly_once(&events_of(&server, GARAGE), &[journal]);
}

#[test]
fn one_that_answers_what_is_no_reply() {
    let (dir, server) = server();
    let stranger = Stranger::start(Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let servers = [stranger.address(), server.address()];
    let edge = Edge::start(&dir.path().join("edge"), GARAGE, &servers, &[]);
    let mut journal = Journal::default();
    let took = ten_more_arrive(&edge, &server, &mut journal, THREE_RESEND_TIMES);
    println!("past a socket that answers nonsense: {took:?}");
    assert!(stranger.heard() > 0, "it was never tried");
    assert_exactly_once(&events_of(&server, GARAGE), &[journal]);
}

/// What the silent way carried may have been applied; it is then known as a duplicate on the other.
#[test]
fn one_that_falls_silent_after_it_worked() {
    let (dir, server) = server();
    let detour = Detour::start(server.listen());
    let servers = [detour.address(), server.address()];
    let edge = Edge::start(&dir.path().join("edge"), GARAGE, &servers, &[]);
    let mut journal = Journal::default();
    ten_more_arrive(&edge, &server, &mut journal, THREE_RESEND_TIMES);
    assert!(detour.carried() > 0, "it was never tried");
    detour.fall_silent();
    let silent_since = Instant::now();
    ten_more_arrive(&edge, &server, &mut journal, THREE_RESEND_TIMES);
    wait_until("the edge hears that they arrived", THREE_RESEND_TIMES, &[&edge, &server], || {
        edge.depth() == 0
    });
    println!("past a way that fell silent: {:?}", silent_since.elapsed());
    assert_eq!(edge.http().get_json("/v1/outbox")["server"], server.address());
    assert_exactly_once(&events_of(&server, GARAGE), &[journal]);
}

#[test]
fn several_of_them_one_after_the_other() {
    let (dir, server) = server();
    let (silent, mute) = (SilentListener::start(), Stranger::start(None));
    let servers = [silent.address(), mute.address(), server.address()];
    let edge = Edge::start(&dir.path().join("edge"), GARAGE, &servers, &[]);
    let mut journal = Journal::default();
    let took = ten_more_arrive(&edge, &server, &mut journal, 2 * THREE_RESEND_TIMES);
    println!("past two of them: {took:?}");
    assert!(silent.connections() > 0 && mute.heard() > 0, "one of them was never tried");
    assert_exactly_once(&events_of(&server, GARAGE), &[journal]);
}
