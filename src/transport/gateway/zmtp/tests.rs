use super::*;
use proptest::prelude::*;

/// A greeting with this version and mechanism.
fn greeting_with(version: [u8; 2], mechanism: &[u8]) -> Vec<u8> {
    let mut bytes = greeting();
    bytes[10..12].copy_from_slice(&version);
    bytes[12..32].fill(0);
    bytes[12..12 + mechanism.len()].copy_from_slice(mechanism);
    bytes.to_vec()
}

fn command(body: &[u8]) -> Vec<u8> {
    [&[COMMAND | LONG], &(body.len() as u64).to_be_bytes()[..], body].concat()
}

/// An event, of which a body is kept as its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Event(ZmtpEvent<'static>),
    Body(Vec<u8>),
}

/// The events in `bytes` that come in pieces of these lengths, and then at once; bodies in parts are joined.
fn events(mut parser: ZmtpParser, bytes: &[u8], pieces: &[usize]) -> (Vec<Found>, Option<CloseReason>) {
    let mut found: Vec<Found> = Vec::new();
    let mut rest = bytes;
    for length in pieces.iter().copied().chain([usize::MAX]) {
        let (mut piece, later) = rest.split_at(length.min(rest.len()));
        rest = later;
        loop {
            let event = match parser.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(event)) => event,
                Err(reason) => return (found, Some(reason)),
            };
            match (event, found.last_mut()) {
                (ZmtpEvent::Body(part), Some(Found::Body(body))) => body.extend(part),
                (ZmtpEvent::Body(part), _) => found.push(Found::Body(part.to_vec())),
                (ZmtpEvent::Greeting, _) => found.push(Found::Event(ZmtpEvent::Greeting)),
                (ZmtpEvent::Frame(header), _) => found.push(Found::Event(ZmtpEvent::Frame(header))),
                (ZmtpEvent::End { more }, _) => found.push(Found::Event(ZmtpEvent::End { more })),
                (ZmtpEvent::Command(command), _) => found.push(Found::Event(ZmtpEvent::Command(command))),
            }
        }
        assert!(piece.is_empty(), "what is not an event yet was taken");
        assert!(parser.kept.capacity() <= COMMAND_MAX.next_power_of_two(), "{}", parser.kept.capacity());
    }
    (found, None)
}

fn refused(parser: ZmtpParser, bytes: &[u8]) -> Option<CloseReason> {
    events(parser, bytes, &[]).1
}

#[test]
fn peers_of_other_protocols_and_versions_are_told_apart() {
    use CloseReason::{MechanismUnsupported, NotZmtp, OldZmtp};
    let zmtp_2 = b"\xFF\0\0\0\0\0\0\0\x01\x7F\x01\x05";
    let zmtp_1_of_long_identity = b"\xFF\0\0\0\0\0\0\x01\x01\0";
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], Some(NotZmtp)),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03", Some(NotZmtp)),
        (b"SSH-2.0-OpenSSH", Some(NotZmtp)),
        (&[0; 64], Some(NotZmtp)),
        (&[0xFF; 64], Some(NotZmtp)),
        (b"\x01\0", Some(OldZmtp)),
        (b"\x06\0hello", Some(OldZmtp)),
        (zmtp_1_of_long_identity, Some(OldZmtp)),
        (zmtp_2, Some(OldZmtp)),
        (&greeting_with([2, 1], b"NULL"), Some(OldZmtp)),
        (&greeting_with([3, 0], b"PLAIN"), Some(MechanismUnsupported)),
        (&greeting_with([3, 1], b"CURVE"), Some(MechanismUnsupported)),
        (&greeting_with([3, 1], b"NULLX"), Some(MechanismUnsupported)),
        (&greeting_with([3, 1], b""), Some(MechanismUnsupported)),
        (&greeting_with([3, 0], b"NULL"), None),
        (&greeting_with([3, 1], b"NULL"), None),
        (&greeting_with([9, 9], b"NULL"), None),
        (b"", None),
    ] {
        assert_eq!(refused(ZmtpParser::default(), bytes), reason, "{}", bytes.escape_ascii());
        // As soon as it is clear, and not before: no beginning is refused for another reason.
        for length in 0..bytes.len() {
            let early = refused(ZmtpParser::default(), &bytes[..length]);
            assert!(early.is_none() || early == reason, "{}", bytes[..length].escape_ascii());
        }
    }
}

#[test]
fn a_header_is_judged_before_anything_is_kept_for_it() {
    use CloseReason::{FrameInvalid, TooLarge};
    let long = |flags, length: u64| [&[flags], &length.to_be_bytes()[..]].concat();
    for (bytes, reason) in [
        (long(LONG, 1 << 47), None),
        (long(LONG | MORE, i64::MAX as u64), None),
        (long(LONG, 1 << 63), Some(FrameInvalid)),
        (long(LONG, u64::MAX), Some(FrameInvalid)),
        (long(LONG | COMMAND, 1 << 47), Some(TooLarge)),
        (long(LONG | COMMAND, i64::MAX as u64), Some(TooLarge)),
        (long(LONG | COMMAND, u64::MAX), Some(FrameInvalid)),
        (long(LONG | COMMAND, COMMAND_MAX as u64 + 1), Some(TooLarge)),
        (long(LONG | COMMAND, 60_000), Some(TooLarge)),
        (vec![COMMAND | MORE, 0], Some(FrameInvalid)),
        (vec![8, 0], Some(FrameInvalid)),
        (vec![0x80], Some(FrameInvalid)),
    ] {
        assert_eq!(refused(ZmtpParser::after_greeting(), &bytes), reason, "{}", bytes.escape_ascii());
    }
    // An empty frame; a long header may announce what a short one could.
    let (found, _) =
        events(ZmtpParser::after_greeting(), &[MORE, 0, LONG, 0, 0, 0, 0, 0, 0, 0, 1, b'x'], &[]);
    let [.., Found::Body(body), Found::Event(ZmtpEvent::End { more: false })] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((body.as_slice(), found.len()), (&b"x"[..], 5));
}

#[test]
fn commands_are_read_as_the_rfc_has_them() {
    let read = |body: &[u8]| match events(ZmtpParser::after_greeting(), &command(body), &[]) {
        (found, None) => match found[..] {
            [Found::Event(ZmtpEvent::Command(command))] => Ok(command),
            _ => panic!("{found:?}"),
        },
        (_, Some(reason)) => Err(reason),
    };
    let ready = |properties: &[Vec<u8>]| read(&[b"\x05READY", &properties.concat()[..]].concat());
    let socket = |name: &[u8]| property(b"Socket-Type", name);
    assert_eq!(ready(&[socket(b"DEALER")]), Ok(ZmtpCommand::Ready(Some(ClientType::Dealer))));
    assert_eq!(ready(&[socket(b"REQ")]), Ok(ZmtpCommand::Ready(Some(ClientType::Req))));
    assert_eq!(
        ready(&[
            property(b"identity", &[7; 255]),
            property(b"socket-TYPE", b"ROUTER"),
            property(b"X-a", b"")
        ]),
        Ok(ZmtpCommand::Ready(Some(ClientType::Router))),
        "names of properties have no case"
    );
    for unfit in [&[socket(b"SUB")][..], &[socket(b"dealer")], &[]] {
        assert_eq!(ready(unfit), Ok(ZmtpCommand::Ready(None)));
    }
    let too_long = property(b"Identity", &[7; 256]);
    for invalid in [&[too_long][..], &[property(b"", b"x")], &[property(b"a b", b"x")], &[b"\x01".to_vec()]] {
        assert_eq!(ready(invalid), Err(CloseReason::FrameInvalid), "{invalid:?}");
    }
    // Every READY that is cut short.
    let whole = [&b"\x05READY"[..], &socket(b"DEALER"), &property(b"Identity", b"me")].concat();
    for length in 0..whole.len() {
        let expected = match length {
            6 => Ok(ZmtpCommand::Ready(None)),
            28 => Ok(ZmtpCommand::Ready(Some(ClientType::Dealer))),
            _ => Err(CloseReason::FrameInvalid),
        };
        assert_eq!(read(&whole[..length]), expected, "{length}");
    }
    let context = |bytes: &[u8]| {
        let mut context = PingContext { bytes: [0; CONTEXT_MAX], length: bytes.len() as u8 };
        context.bytes[..bytes.len()].copy_from_slice(bytes);
        context
    };
    let ping = |ttl_tenths, bytes: &[u8]| Ok(ZmtpCommand::Ping { ttl_tenths, context: context(bytes) });
    assert_eq!(read(b"\x04PING\x01\x02"), ping(258, b""));
    assert_eq!(read(b"\x04PING\0\0sixteen octets.."), ping(0, b"sixteen octets.."));
    assert_eq!(read(b"\x04PING\0\0seventeen octets."), Err(CloseReason::FrameInvalid));
    assert_eq!(read(b"\x04PING\0"), Err(CloseReason::FrameInvalid));
    assert_eq!(read(b"\x04PONG"), Ok(ZmtpCommand::Pong));
    assert_eq!(read(b"\x05ERROR\x03bad"), Ok(ZmtpCommand::Error));
    assert_eq!(read(b"\x09SUBSCRIBEtopic"), Ok(ZmtpCommand::Other));
    assert_eq!(read(b"\x06FUTURE\0\0"), Ok(ZmtpCommand::Other));
    for invalid in [&b""[..], b"\0", b"\x05PING", b"\x04P NG", b"\x04PIN\0"] {
        assert_eq!(read(invalid), Err(CloseReason::FrameInvalid), "{}", invalid.escape_ascii());
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    let mut bytes = BytesMut::from(&greeting()[..]);
    put_ready_of_router(&mut bytes);
    put_ready_of_dealer(&[b'7'; 250], &mut bytes);
    put_error("why", &mut bytes);
    let context = PingContext { bytes: *b"sixteen octets..", length: 16 };
    put_pong(&context, &mut bytes);
    let headers = [(0, true), (255, false), (256, true), (i64::MAX as u64, false)];
    let headers = headers.map(|(length, more)| FrameHeader { more, length });
    for header in headers {
        put_header(header, &mut bytes);
        if header.length < 1000 {
            bytes.put_bytes(9, header.length as usize);
        }
    }
    let (found, reason) = events(ZmtpParser::default(), &bytes, &[]);
    let [greeting, router, dealer, error, pong, frames @ ..] = &found[..] else { panic!("{found:?}") };
    let commands =
        [ZmtpCommand::Ready(Some(ClientType::Router)), ZmtpCommand::Ready(Some(ClientType::Dealer))]
            .into_iter()
            .chain([ZmtpCommand::Error, ZmtpCommand::Pong]);
    let commands: Vec<Found> = commands.map(|command| Found::Event(ZmtpEvent::Command(command))).collect();
    assert_eq!([router, dealer, error, pong], [&commands[0], &commands[1], &commands[2], &commands[3]]);
    assert_eq!((greeting, reason), (&Found::Event(ZmtpEvent::Greeting), None));
    let read = frames.iter().filter_map(|found| match found {
        Found::Event(ZmtpEvent::Frame(header)) => Some(*header),
        _ => None,
    });
    assert_eq!(read.collect::<Vec<_>>(), headers);
}

/// Bytes that come near what a peer may send.
fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let frame = (any::<bool>(), any::<bool>(), 0..600usize).prop_map(|(more, long, length)| {
        let mut bytes = BytesMut::new();
        let flags = if more { MORE } else { 0 };
        match long {
            true => put_flags_and_length(flags | LONG, length as u64, &mut bytes),
            false => put_flags_and_length(flags, (length % 200) as u64, &mut bytes),
        }
        let length = if long { length } else { length % 200 };
        bytes.put_bytes(5, length);
        bytes.to_vec()
    });
    let known = prop_oneof![
        Just(command(b"\x04PING\0\x05abc")),
        Just(command(b"\x04PONG")),
        Just(command(b"\x09SUBSCRIBEx")),
        Just(command(b"\x05READY")),
    ];
    let header = (any::<u8>(), any::<u64>()).prop_map(|(flags, length)| {
        let mut bytes = BytesMut::new();
        put_flags_and_length(flags % 16, length, &mut bytes);
        bytes.to_vec()
    });
    let noise = prop::collection::vec(any::<u8>(), 0..40);
    let part = prop_oneof![6 => frame, 3 => known, 1 => header, 1 => noise];
    let beginning =
        prop_oneof![8 => Just(greeting().to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..70)];
    (beginning, prop::collection::vec(part, 0..12))
        .prop_map(|(beginning, parts)| [beginning, parts.concat()].concat())
}

proptest! {
    #[test]
    fn the_events_are_the_same_however_the_bytes_are_split(
        bytes in traffic(),
        pieces in prop::collection::vec(prop_oneof![0..3usize, 0..100usize, 0..2000usize], 0..60),
    ) {
        let whole = events(ZmtpParser::default(), &bytes, &[]);
        prop_assert_eq!(&events(ZmtpParser::default(), &bytes, &pieces), &whole);
        prop_assert_eq!(&events(ZmtpParser::default(), &bytes, &vec![1; bytes.len()]), &whole);
    }
}
