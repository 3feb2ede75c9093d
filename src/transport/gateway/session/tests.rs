use super::super::zmtp::{FrameHeader, greeting, put_header};
use super::*;
use bytes::BufMut;
use proptest::prelude::*;

fn limits() -> PeerLimits {
    PeerLimits::default()
}

const READY: &[u8] = b"\x04\x1C\x05READY\x0BSocket-Type\0\0\0\x06DEALER";

/// A session whose handshake is done, of which nothing waits to be written.
fn ready(now: Instant) -> Session {
    let mut session = Session::new(&limits(), now);
    receive(&mut session, &[&greeting()[..], READY].concat(), now).unwrap();
    session.to_peer.clear();
    session
}

/// How many bytes were left, all being offered at once.
fn receive(session: &mut Session, bytes: &[u8], now: Instant) -> Result<usize, CloseReason> {
    let mut rest = bytes;
    session.received(&mut rest, &limits(), now)?;
    Ok(rest.len())
}

fn frame(more: bool, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    put_header(FrameHeader { more, length: body.len() as u64 }, &mut bytes);
    bytes.put_slice(body);
    bytes.to_vec()
}

/// A message of a delimiter and this body.
fn message(body: &[u8]) -> Vec<u8> {
    [frame(true, b""), frame(false, body)].concat()
}

fn header(more: bool, length: u64) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    put_header(FrameHeader { more, length }, &mut bytes);
    bytes.to_vec()
}

fn ping(ttl_tenths: u16, context: &[u8]) -> Vec<u8> {
    [&[4, 7 + context.len() as u8], &b"\x04PING"[..], &ttl_tenths.to_be_bytes(), context].concat()
}

fn pong(context: &[u8]) -> Vec<u8> {
    [&[4, 5 + context.len() as u8], &b"\x04PONG"[..], context].concat()
}

#[test]
fn the_handshake_is_that_of_a_router() {
    let now = Instant::now();
    let mut session = Session::new(&limits(), now);
    assert_eq!(session.to_peer[..], greeting(), "at once: a peer may wait for it");
    session.to_peer.clear();
    receive(&mut session, &greeting(), now).unwrap();
    assert_eq!(&session.to_peer[..], b"\x04\x1C\x05READY\x0BSocket-Type\0\0\0\x06ROUTER");
    assert_eq!(receive(&mut session, READY, now), Ok(0));
    assert!(session.to_router.is_empty(), "the ROUTER hears nothing of it");
}

#[test]
fn what_is_not_ready_of_a_client_ends_the_handshake_with_an_error() {
    let now = Instant::now();
    let of_sub = b"\x04\x19\x05READY\x0BSocket-Type\0\0\0\x03SUB";
    let of_60_kb = [&[6, 0, 0, 0, 0, 0, 0, 0xEA, 0x60], &[b'x'; 60_000][..]].concat();
    for wrong in
        [&of_sub[..], &of_60_kb, &message(b"x"), &ping(0, b""), b"\x04\x09\x05ERROR\x02no", b"\x06\xFF"]
    {
        let mut session = Session::new(&limits(), now);
        session.to_peer.clear();
        let mut bytes = greeting().to_vec();
        bytes.extend(wrong);
        bytes.extend([0; 8]);
        assert_eq!(receive(&mut session, &bytes, now), Err(CloseReason::HandshakeInvalid));
        let said = String::from_utf8_lossy(&session.to_peer);
        assert!(said.contains("\u{5}ERROR") && said.ends_with("was expected"), "{said:?}");
    }
}

#[test]
fn a_message_reaches_the_router_as_it_was_and_its_reply_the_peer() {
    let now = Instant::now();
    let mut session = ready(now);
    let question = [frame(true, b"way"), message(&[7; 300])].concat();
    for byte in &question {
        receive(&mut session, &[*byte], now).unwrap();
    }
    assert_eq!(session.to_router[..], question);
    assert!(session.has_requests_in_flight() && session.is_between_messages());
    assert_eq!(session.replied(&question), Ok(303));
    assert_eq!(session.to_peer[..], question);
    assert!(!session.has_requests_in_flight());
}

#[test]
fn no_more_is_announced_than_a_message_may_have() {
    let now = Instant::now();
    let endless_parts = frame(true, b"").repeat(PARTS_MAX + 1);
    let of_half = [header(true, MESSAGE_MAX / 2), vec![1; MESSAGE_MAX as usize / 2]].concat();
    for (bytes, reason) in [
        (header(false, MESSAGE_MAX), Ok(0)),
        (header(false, MESSAGE_MAX + 1), Err(CloseReason::TooLarge)),
        (header(true, 1 << 47), Err(CloseReason::TooLarge)),
        (header(true, i64::MAX as u64), Err(CloseReason::TooLarge)),
        (vec![2, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], Err(CloseReason::FrameInvalid)),
        (vec![6, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], Err(CloseReason::FrameInvalid)),
        (vec![6, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], Err(CloseReason::TooLarge)),
        ([of_half.clone(), of_half, header(false, 2)].concat(), Err(CloseReason::TooLarge)),
        (endless_parts[2..].to_vec(), Ok(0)),
        (endless_parts, Err(CloseReason::TooLarge)),
        (READY.to_vec(), Err(CloseReason::FrameInvalid)),
    ] {
        assert_eq!(receive(&mut ready(now), &bytes, now), reason);
    }
    // The next message has a count of its own.
    let mut session = ready(now);
    let parts = [frame(true, b"").repeat(PARTS_MAX - 1), frame(false, b"")].concat();
    assert_eq!(receive(&mut session, &parts.repeat(2), now), Ok(0));
}

#[test]
fn a_peer_with_too_many_requests_in_flight_waits_for_a_reply() {
    let now = Instant::now();
    let (limits, one) = (limits(), message(b"x"));
    let mut session = ready(now);
    assert_eq!(receive(&mut session, &one.repeat(limits.in_flight + 5), now), Ok(one.len() * 5));
    assert_eq!(session.to_router[..], one.repeat(limits.in_flight));
    session.to_router.clear();
    assert!(!session.takes_input(&limits));
    assert_eq!(receive(&mut session, &one, now), Ok(one.len()), "not even a header");
    session.replied(&one.repeat(2)).unwrap();
    assert!(session.takes_input(&limits));
    assert_eq!(receive(&mut session, &one.repeat(5), now), Ok(one.len() * 3));
    // Nor while the ROUTER does not take what came.
    session.replied(&one).unwrap();
    assert!(!session.takes_input(&limits));
}

#[test]
fn a_ping_is_answered_between_replies_and_never_within_one() {
    let now = Instant::now();
    let mut session = ready(now);
    receive(&mut session, &ping(0, b"first"), now).unwrap();
    assert_eq!(session.to_peer[..], pong(b"first"));
    session.to_peer.clear();
    // libzmq sends one between two frames of a message, too.
    let question = [frame(true, b""), ping(0, b"within"), frame(false, b"question")].concat();
    receive(&mut session, &question, now).unwrap();
    assert_eq!(session.to_router[..], message(b"question"));
    assert_eq!(session.to_peer[..], pong(b"within"));
    session.to_peer.clear();
    let reply = message(b"reply");
    session.replied(&reply[..5]).unwrap();
    receive(&mut session, &[ping(0, b"second"), ping(0, b"third")].concat(), now).unwrap();
    session.replied(&reply[5..]).unwrap();
    assert_eq!(session.to_peer[..], [reply, pong(b"third")].concat(), "the last one stands for both");
}

#[test]
fn commands_without_end_are_too_many() {
    let now = Instant::now();
    let (pings, limits) = (ping(0, b"").repeat(1000), limits());
    assert_eq!(receive(&mut ready(now), &pings, now), Err(CloseReason::TooManyCommands));
    // A heartbeat each second is never too much, nor what the RFC does not know.
    let mut session = ready(now);
    for second in 0..1000 {
        let later = now + Duration::from_secs(second);
        receive(&mut session, &ping(50, b""), later).unwrap();
        receive(&mut session, b"\x04\x07\x06FUTURE", later).unwrap();
        assert_eq!(
            session.deadline(&limits, true),
            Some((later + Duration::from_secs(5), CloseReason::Silent))
        );
        session.to_peer.clear();
    }
}

#[test]
fn each_stage_has_its_time() {
    let (limits, begun) = (limits(), Instant::now());
    let after = |seconds| begun + Duration::from_secs(seconds);
    let mut session = Session::new(&limits, begun);
    session.to_peer.clear();
    let by_then = |since: Instant, time, reason| Some((since + time, reason));
    let too_slow = by_then(begun, limits.handshake, CloseReason::HandshakeTooSlow);
    // A byte per second moves no deadline.
    for (second, byte) in (0..64).zip(greeting()) {
        receive(&mut session, &[byte], after(second)).unwrap();
        assert_eq!(session.deadline(&limits, false), too_slow);
    }
    receive(&mut session, READY, after(9)).unwrap();
    session.to_peer.clear();
    let silent = |since, time| by_then(since, time, CloseReason::Silent);
    assert_eq!(session.deadline(&limits, false), silent(after(9), limits.first_request));
    assert_eq!(session.deadline(&limits, true), silent(after(9), limits.idle));
    let request = message(&[1; 100]);
    // Two bytes are the first header.
    receive(&mut session, &request[..2], after(20)).unwrap();
    for (second, byte) in (21..).zip(&request[2..50]) {
        receive(&mut session, &[*byte], after(second)).unwrap();
        session.to_router.clear();
        assert_eq!(
            session.deadline(&limits, true),
            by_then(after(20), limits.message, CloseReason::Unfinished)
        );
    }
    // While the ROUTER takes nothing, the peer cannot go on.
    session.to_router.put_u8(1);
    assert_eq!(session.deadline(&limits, true), None);
    session.router_is_full(after(500));
    session.to_router.clear();
    assert_eq!(session.deadline(&limits, true), by_then(after(500), limits.message, CloseReason::Unfinished));
    receive(&mut session, &request[50..], after(501)).unwrap();
    session.to_router.clear();
    assert_eq!(session.deadline(&limits, true), None, "the server owes it a reply");
    session.replied(&request).unwrap();
    session.wrote_to_peer(false, after(600));
    session.wrote_to_peer(false, after(610));
    let not_reading = |since| by_then(since, limits.stalled, CloseReason::NotReading);
    assert_eq!(session.deadline(&limits, true), not_reading(after(600)));
    session.wrote_to_peer(true, after(620));
    assert_eq!(session.deadline(&limits, true), not_reading(after(620)));
    session.to_peer.clear();
    session.wrote_to_peer(true, after(621));
    assert_eq!(session.deadline(&limits, true), silent(after(501), limits.idle));
}

#[test]
fn unfinished_messages_are_counted_as_what_the_router_makes_room_for() {
    let now = Instant::now();
    let mut session = ready(now);
    let chunk = ROUTER_CHUNK;
    receive(&mut session, &header(true, 100_000), now).unwrap();
    assert_eq!(session.unfinished_bytes(), chunk);
    receive(&mut session, &vec![1; 99_000], now).unwrap();
    assert_eq!(session.unfinished_bytes(), 100_000);
    receive(&mut session, &vec![1; 1_000], now).unwrap();
    receive(&mut session, &header(false, 50), now).unwrap();
    assert_eq!(session.unfinished_bytes(), 100_050);
    receive(&mut session, &[1; 50], now).unwrap();
    assert_eq!(session.unfinished_bytes(), 0);
}

proptest! {
    /// Whatever comes, what is passed on are whole frames within the limits, and input that is not taken is not lost.
    #[test]
    fn what_is_passed_on_is_valid(
        parts in prop::collection::vec(
            prop_oneof![
                (any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(more, body)| frame(more, &body)),
                Just(ping(0, b"x")),
                prop::collection::vec(any::<u8>(), 0..10),
            ],
            0..40,
        ),
        pieces in prop::collection::vec(1..400usize, 0..60),
    ) {
        let (now, limits) = (Instant::now(), limits());
        let mut session = ready(now);
        let bytes = parts.concat();
        let mut rest = &bytes[..];
        let mut passed_on = Vec::new();
        for length in pieces.into_iter().chain([usize::MAX]) {
            let (piece, later) = rest.split_at(length.min(rest.len()));
            let mut left = piece;
            let ended = session.received(&mut left, &limits, now).is_err();
            passed_on.extend(session.to_router.split());
            rest = &rest[piece.len() - left.len()..];
            if ended || !left.is_empty() && !session.has_requests_in_flight() {
                break;
            }
            prop_assert!(left.is_empty() || session.in_flight == limits.in_flight);
            let _ = later;
        }
        let (mut parser, mut input) = (ZmtpParser::after_greeting(), &passed_on[..]);
        let (mut parts, mut messages) = (0, 0);
        while let Some(event) = parser.next(&mut input).unwrap() {
            match event {
                ZmtpEvent::Frame(header) => {
                    parts += 1;
                    prop_assert!(header.length <= MESSAGE_MAX && parts <= PARTS_MAX);
                }
                ZmtpEvent::End { more: false } => (parts, messages) = (0, messages + 1),
                ZmtpEvent::Command(command) => prop_assert!(false, "{:?}", command),
                _ => {}
            }
        }
        prop_assert_eq!(messages, session.in_flight);
        prop_assert!(messages <= limits.in_flight);
    }
}
