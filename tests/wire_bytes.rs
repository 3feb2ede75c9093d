//! The protocol, byte by byte.
//!
//! Edges and servers of different ages talk to each other, and a ledger keeps its pages for good. The files under
//! `tests/wire/` fix what they say: a change that breaks a peer fails here. Such a change needs a new version (see
//! `src/messaging/wire.rs`), and never an edit of these bytes.

use bytes::Bytes;
use fogpost::messaging::page::{Content, IdempotencyKey, Message, Page, SealedPage};
use fogpost::messaging::wire::{self, REPLY_MAX, REQUEST_MAX, Reply, Request, Verdict, WireError};
use fogpost::messaging::{ClockReading, Digest, Epoch, LedgerId, Sequence, SiteName};
use fogpost::parking::Event;
use fogpost::parking::board::earlier::{
    EarlierAnswer, EarlierBoard, EarlierPart, EarlierQuestion, WholeBoardAnswer,
};
use fogpost::parking::board::{
    BoardAnswer, BoardLine, BoardPart, BoardQuestion, BoardVersion, Extensible, GarageFacts, OwnLine,
    PartLine, Since,
};
use fogpost::parking::garage::{GarageSays, GeoPoint, HoursText, KnownHours, Opening, OperatorSays};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn a_page_of_events_is_these_bytes() {
    let bytes = example("page");
    assert_eq!(events_300_and_301().encode(), bytes);
    assert_eq!(Page::decode(&bytes), Ok(events_300_and_301()));
}

#[test]
fn a_page_of_lost_events_is_these_bytes() {
    let bytes = example("page_lost");
    assert_eq!(lost_302_to_320().encode(), bytes);
    assert_eq!(Page::decode(&bytes), Ok(lost_302_to_320()));
}

/// The board rides along, opaque to messaging. Its forms for older edges are frozen, and a line of form 4 only grows at its end.
#[test]
fn the_board_is_these_bytes_in_each_form() {
    let version = BoardVersion { ledger: [1; 16], position: 300, run: 7 };
    let since = Some(Since { version, begun: 299 });
    let question = BoardQuestion { since };
    same_board("board_question_4", question.to_bytes(), BoardQuestion::from_bytes, &question);
    let earlier = EarlierQuestion(question);
    same_board("board_question_3", earlier.to_bytes(), EarlierQuestion::from_bytes, &earlier);

    let windows = vec!["mon-fri 07:00-22:00".into(), "sat,sun 08:00-24:00".into()];
    let facts = GarageFacts {
        is_full: true,
        operator: Some(OperatorSays { opening: Opening::Closed, since_ms: 1000, until_ms: Some(2000) }),
        garage: Some(GarageSays { opening: Opening::Open, at_ms: -1 }),
        position: GeoPoint::new(48.7758, 9.1829),
        group: Some("Centre".into()),
        hours: KnownHours::from(Some(HoursText { time_zone: "Europe/Berlin".into(), windows })),
    };
    let (capacity, occupied, as_of_ms) = (500, 501, Some(1_795_418_100_004));
    let part = BoardPart {
        since: Some(version),
        upto: BoardVersion { position: 301, ..version },
        board_at: 301,
        is_last: true,
        garages: vec![Extensible(PartLine {
            name: "1".into(),
            capacity,
            occupied,
            as_of_ms,
            facts: facts.clone(),
        })],
    };
    same_board("board_part_4", part.to_bytes(), BoardPart::from_bytes, &part);
    let earlier = EarlierPart::from(part);
    same_board("board_part_3", earlier.to_bytes(), EarlierPart::from_bytes, &earlier);

    let line = BoardLine { capacity, occupied, as_of_ms, through: Some(([0xE1; 16], 300)), facts };
    let own = Some(OwnLine { called: "one".into(), line: Extensible(line.clone()) });
    let answer = BoardAnswer { own, part: Bytes::from_static(b"part") };
    same_board("board_answer_4", answer.to_bytes(), BoardAnswer::from_bytes, &answer);
    let own = Some(("one".into(), line.clone().into()));
    let earlier = EarlierAnswer { own, part: Bytes::from_static(b"part") };
    same_board("board_answer_3", earlier.to_bytes(), EarlierAnswer::from_bytes, &earlier);
    let garages = [("1".to_owned(), line.into())].into();
    let whole = WholeBoardAnswer::Whole(EarlierBoard { version, garages });
    same_board("board_answer_2", whole.to_bytes(), WholeBoardAnswer::from_bytes, &whole);
}

fn same_board<T: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    name: &str,
    encoded: Vec<u8>,
    read: fn(&[u8]) -> Result<T, E>,
    value: &T,
) {
    assert_eq!(
        encoded,
        example(name),
        "{name}: {}",
        encoded.iter().map(|byte| format!("{byte:02x} ")).collect::<String>()
    );
    assert_eq!(&read(&example(name)).unwrap(), value, "{name}");
}

/// Messaging does not look into payloads; parking's form has examples of its own, and this is one more.
#[test]
fn the_payloads_of_the_example_are_events() {
    let read = |json: &str| Event::from_json(json.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap();
    let entry = read(r#"{"kind":"entry","plate":"B-AB 123","at":"2026-11-23T08:15:00+01:00"}"#);
    let exit = read(
        r#"{"kind":"exit","plate":null,"at":"2026-11-23T08:16:30.25+01:00","lane":"2","confidence":0.5}"#,
    );
    let Content::Records(records) = events_300_and_301().content else { unreachable!() };
    assert_eq!(records[0].payload, entry.to_bytes());
    assert_eq!(records[1].payload, exit.to_bytes());
}

#[test]
fn a_digest_is_the_beginning_of_the_hash_of_a_pages_bytes() {
    let digest = |page: &Page| format!("{:?}", SealedPage::seal(page).digest);
    assert_eq!(digest(&events_300_and_301()), "621287845221912a51d41e49ab7295b7");
    assert_eq!(digest(&lost_302_to_320()), "ac68d4d9d84e53fdf5c57e2286d4b57c");
}

#[test]
fn a_request_that_only_shows_itself_is_these_bytes() {
    let request = Request {
        id: 1,
        site: site("1"),
        epoch: epoch(),
        oldest: 1,
        ledger: None,
        instance: 1,
        clock_ms: 0,
        pages: vec![],
        ask: None,
        observation: None,
    };
    same_request("request_bare", &request);
}

#[test]
fn a_request_with_pages_a_question_and_an_observation_is_these_bytes() {
    let request = Request {
        id: 4711,
        site: site("Parkhaus Süd"),
        epoch: epoch(),
        oldest: 300,
        ledger: Some(ledger()),
        instance: u64::MAX,
        clock_ms: -1,
        pages: vec![SealedPage::seal(&events_300_and_301()), SealedPage::seal(&lost_302_to_320())],
        ask: Some(Bytes::from_static(b"ask")),
        observation: Some(Bytes::from_static(b"seen")),
    };
    same_request("request_with_pages", &request);
    let read = Request::decode(&example("request_with_pages")).unwrap();
    assert_eq!(read.pages[0].open(), Ok(events_300_and_301()));
    assert_eq!(read.pages[1].open(), Ok(lost_302_to_320()));
}

#[test]
fn a_reply_of_each_verdict_is_these_bytes() {
    let reply = |id, mark, verdict, pause_ms| {
        let (clock_ms, notice, answer) = (1_795_418_100_004, None, None);
        Reply { id, ledger: ledger(), mark, verdict, pause_ms, clock_ms, notice, answer }
    };
    let accepted = Reply {
        notice: Some("two".into()),
        answer: Some(Bytes::from_static(b"board")),
        ..reply(4711, 320, Verdict::Accepted, 0)
    };
    same_reply("reply_accepted", &accepted);
    same_reply("reply_gap", &reply(2, 0, Verdict::Gap, 0));
    same_reply("reply_conflict", &reply(u64::MAX, 320, Verdict::Conflict { first: 300 }, u32::MAX));
    same_reply("reply_refused", &reply(0, 0, Verdict::Refused { reason: "busy".into() }, 60_000));
    same_reply("reply_other_ledger", &reply(3, 0, Verdict::OtherLedger, 0));
    same_reply("reply_move", &reply(3, 50, Verdict::Move { from: 51 }, 0));
}

/// An edge that does not know what a pause beside a gap means decodes a gap, which is no error and no loss, and waits.
#[test]
fn a_busy_receiver_says_these_bytes() {
    let (clock_ms, notice, answer) = (1_795_418_100_004, None, None);
    let reply = Reply {
        id: 5,
        ledger: ledger(),
        mark: 320,
        verdict: Verdict::Accepted,
        pause_ms: 0,
        clock_ms,
        notice,
        answer,
    };
    assert_eq!(reply.busy_ms(), None);
    let busy = reply.clone().busy(2500);
    same_reply("reply_busy", &busy);
    assert_eq!((&busy.verdict, busy.pause_ms, busy.busy_ms()), (&Verdict::Gap, 2500, Some(2500)));
    assert_eq!(reply.busy(0).busy_ms(), Some(1), "it is never taken for another gap");
    for other in
        ["reply_accepted", "reply_gap", "reply_conflict", "reply_refused", "reply_other_ledger", "reply_move"]
    {
        assert_eq!(Reply::decode(&example(other)).unwrap().busy_ms(), None, "{other}");
    }
}

#[test]
fn an_unknown_version_is_answered_with_these_bytes() {
    assert_eq!(wire::versions_known(), example("versions"));
    let unknown = Request::decode(&example("request_of_another_version"));
    assert_eq!(unknown, Err(WireError::Version(3)));
    let told = Reply::decode(&example("versions"));
    assert_eq!(told, Err(WireError::PeerSpeaks { lowest: 2, highest: 2 }));
}

#[test]
fn a_message_that_breaks_off_is_refused_wherever_it_does() {
    let request = example("request_with_pages");
    let page = example("page");
    let reply = example("reply_refused");
    (0..request.len()).for_each(|end| assert!(Request::decode(&request[..end]).is_err(), "at {end}"));
    (0..page.len()).for_each(|end| assert!(Page::decode(&page[..end]).is_err(), "at {end}"));
    (0..reply.len()).for_each(|end| assert!(Reply::decode(&reply[..end]).is_err(), "at {end}"));
}

#[test]
fn what_is_no_message_of_ours_is_refused_for_what_it_is() {
    let bare = example("request_bare");
    let longer = [&bare[..], b"\0"].concat();
    assert_eq!(Request::decode(&longer), Err(WireError::Trailing));
    let other = [b"GET ", &bare[4..]].concat();
    assert_eq!(Request::decode(&other), Err(WireError::NotOurs));
    assert_eq!(Request::decode(&vec![b'f'; REQUEST_MAX + 1]), Err(WireError::TooLong(REQUEST_MAX + 1)));
    assert_eq!(Reply::decode(&vec![b'f'; REPLY_MAX + 1]), Err(WireError::TooLong(REPLY_MAX + 1)));
    // A count of pages that no request can hold must not be believed, and no memory be reserved for it.
    let place = bare.len() - 3;
    let endless = [&bare[..place], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]].concat();
    assert!(matches!(Request::decode(&endless), Err(WireError::Malformed(_))));
}

/// A file that nothing reads would be a promise that nothing keeps.
#[test]
fn every_example_is_checked_by_a_test_of_this_file() {
    let here = fs::read_to_string(file!()).unwrap();
    let there: BTreeSet<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let hex = there.iter().filter(|path| path.extension().is_some_and(|extension| extension == "hex"));
    for path in hex {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(here.contains(&format!("\"{name}\"")), "{name}.hex is read by no test");
    }
}

fn events_300_and_301() -> Page {
    let record = |key: Option<&'static [u8]>, after_ms: u32, payload: &'static [u8]| Message {
        key: key.map(|text| IdempotencyKey {
            text: Bytes::from_static(text),
            body: Digest::from_bytes([0xB0; 16]),
            count: 1,
        }),
        after_ms,
        payload: Bytes::from_static(payload),
    };
    let entry = b"\x01\x00\x01\x06BAB123\xc0\xc4\x90\xf4\xc0\x68\x78\x00";
    let exit = b"\x01\x01\x00\xd4\xc6\x9b\xf4\xc0\x68\x78\x01\x01\x012\x00\x01\0\0\0\0\0\0\xe0\x3f\x00";
    Page {
        epoch: epoch(),
        first: Sequence::new(300).unwrap(),
        previous: Some(Digest::from_bytes(std::array::from_fn(|n| 0x11 * n as u8))),
        moved_from: None,
        begun: begun(),
        content: Content::Records(vec![record(None, 0, entry), record(Some(b"gate-7/4711"), 250, exit)]),
    }
}

fn lost_302_to_320() -> Page {
    Page {
        epoch: epoch(),
        first: Sequence::new(302).unwrap(),
        previous: None,
        moved_from: Some((Epoch::from_bytes([0xE0; 16]), Sequence::new(7).unwrap())),
        begun: begun(),
        content: Content::Lost { last: Sequence::new(320).unwrap(), reason: "Sektor unlesbar".into() },
    }
}

fn begun() -> ClockReading {
    let boot = [0xB7; 16];
    ClockReading { wall_ms: 1_795_418_100_003, monotonic_ms: 86_400_000, boot, set: true }
}

fn epoch() -> Epoch {
    "6b8cd2f8-0c38-4f0e-9a5a-5fd6b1d4c9b0".parse().unwrap()
}

fn ledger() -> LedgerId {
    "0d9c1f3a-52e7-4b6d-8f10-a3c4e5f60718".parse().unwrap()
}

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

#[track_caller]
fn same_request(name: &str, request: &Request) {
    assert_eq!(request.encode(), example(name), "{name}.hex");
    assert_eq!(Request::decode(&example(name)).as_ref(), Ok(request), "{name}.hex");
}

#[track_caller]
fn same_reply(name: &str, reply: &Reply) {
    assert_eq!(reply.encode(), example(name), "{name}.hex");
    assert_eq!(Reply::decode(&example(name)).as_ref(), Ok(reply), "{name}.hex");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire")
}

/// The bytes of `tests/wire/NAME.hex`: pairs of hexadecimal digits; what follows a `#` is for people.
fn example(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(folder().join(format!("{name}.hex"))).unwrap();
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let pairs = lines.flat_map(str::split_whitespace);
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}
