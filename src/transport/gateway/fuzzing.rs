//! A connection of a peer, for the fuzz targets: its bytes, split in every way, pass the gateway in the same way.

use super::close_reason::CloseReason;
use super::limits::{MESSAGE_MAX, PARTS_MAX, PeerLimits};
use super::session::Session;
use super::zmtp::{ZmtpEvent, ZmtpParser};
use std::time::Instant;

/// What the server answers each message with.
const REPLY: &[u8] = b"\x01\x00\x00\x02ok";

/// What became of a connection's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Passage {
    to_router: Vec<u8>,
    to_peer: Vec<u8>,
    closed: Option<CloseReason>,
}

/// The first byte says how many lengths of pieces follow; the rest is what the peer sends. Returns whether a message came through.
pub fn connection(input: &[u8]) -> bool {
    let Some((count, rest)) = input.split_first() else { return false };
    let (lengths, bytes) = rest.split_at(usize::from(count % 16).min(rest.len()));
    let lengths: Vec<usize> = lengths.iter().copied().map(usize::from).collect();
    let ones = vec![1; bytes.len()];
    let events = events(bytes, &[]);
    let passage = passage(bytes, &[]);
    for lengths in [&lengths, &ones] {
        assert_eq!(self::events(bytes, lengths), events, "in pieces of {lengths:?}");
        assert_eq!(self::passage(bytes, lengths), passage, "in pieces of {lengths:?}");
    }
    messages_in(&passage.to_router) > 0
}

/// The bytes in pieces of these lengths, and the rest.
fn pieces<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut piece = |length: usize| {
        let (piece, later) = rest.split_at(length.min(rest.len()));
        rest = later;
        piece
    };
    lengths.iter().copied().chain([usize::MAX]).map(&mut piece).collect()
}

/// The events in the bytes, with where in the bodies each stands, and the bodies.
fn events(bytes: &[u8], lengths: &[usize]) -> (Vec<(usize, String)>, Vec<u8>, Option<CloseReason>) {
    let (mut parser, mut found, mut bodies) = (ZmtpParser::default(), Vec::new(), Vec::new());
    for mut piece in pieces(bytes, lengths) {
        loop {
            match parser.next(&mut piece) {
                Ok(Some(ZmtpEvent::Body(part))) => bodies.extend_from_slice(part),
                Ok(Some(event)) => found.push((bodies.len(), format!("{event:?}"))),
                Ok(None) => break,
                Err(reason) => return (found, bodies, Some(reason)),
            }
        }
        assert!(piece.is_empty(), "what is no event yet was left");
    }
    (found, bodies, None)
}

/// Sends the bytes in pieces of these lengths. The server answers a message when the peer may send no other one.
fn passage(bytes: &[u8], lengths: &[usize]) -> Passage {
    let (now, limits) = (Instant::now(), PeerLimits::default());
    let (mut session, mut passage) = (Session::new(&limits, now), Passage::default());
    for mut left in pieces(bytes, lengths) {
        loop {
            let taken = session.received(&mut left, &limits, now);
            passage.to_router.extend(session.to_router.split());
            passage.to_peer.extend(session.to_peer.split());
            passage.closed = taken.err();
            if passage.closed.is_some() {
                return passage;
            }
            assert!(session.unfinished_bytes() as u64 <= MESSAGE_MAX);
            assert!(session.deadline(&limits, false).is_none_or(|(at, _)| at >= now));
            if left.is_empty() {
                break;
            }
            assert!(session.has_requests_in_flight(), "input was left, and the peer owes nothing");
            assert_eq!(session.replied(REPLY), Ok(2));
        }
    }
    passage
}

/// How many messages are in what was passed on: whole headers within the limits, and no command.
fn messages_in(mut passed_on: &[u8]) -> usize {
    let (mut parser, mut parts, mut length, mut messages) = (ZmtpParser::after_greeting(), 0, 0, 0);
    while let Some(event) = parser.next(&mut passed_on).expect("what is passed on is valid") {
        match event {
            ZmtpEvent::Frame(header) => {
                (parts, length) = (parts + 1, length + header.length);
                assert!(parts <= PARTS_MAX && length <= MESSAGE_MAX);
            }
            ZmtpEvent::End { more: false } => (parts, length, messages) = (0, 0, messages + 1),
            ZmtpEvent::End { more: true } | ZmtpEvent::Body(_) => {}
            ZmtpEvent::Greeting | ZmtpEvent::Command(_) => panic!("{event:?} was passed on"),
        }
    }
    messages
}
