//! **Promise.** What a peer only reports leaves no record, whatever it says and under how many names; what a garage tells of its
//! capacity is recorded once events of it were applied, and at most once a minute.
//!
//! Requests with nothing but an observation under 300 names once made 300 garages on every board and 300 permanent records; a
//! capacity that was told in two ways by turns made a record, and a flush, each time.

use crate::common::peers::Caller;
use crate::common::{Server, wait_until};
use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use fogpost::messaging::{ClockReading, Epoch, Sequence, SiteName};
use fogpost::parking::{EdgeMachine, Event, Observation};
use serde_json::json;
use std::time::{Duration, Instant};

const EPOCH: Epoch = Epoch::from_bytes([5; 16]);

/// A request that brings no event, and an observation.
fn reports(garage: &str, capacity: u32) -> Request {
    let observation = Observation {
        capacity,
        occupied: Some(i64::MIN),
        backlog: u64::MAX,
        oldest_age_ms: Some(u64::MAX),
        clock_set: true,
        damaged: u64::MAX,
        shortage: None,
        machine: EdgeMachine::default(),
    };
    Request {
        id: 1,
        site: SiteName::new(garage).unwrap(),
        epoch: EPOCH,
        oldest: 1,
        ledger: None,
        instance: 1,
        clock_ms: 0,
        pages: Vec::new(),
        ask: None,
        observation: Some(observation.to_bytes().into()),
    }
}

fn entry() -> SealedPage {
    let event = json!({"kind": "entry", "plate": "AB1"}).to_string();
    let event = Event::from_json(event.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap();
    SealedPage::seal(&Page {
        epoch: EPOCH,
        first: Sequence::FIRST,
        previous: None,
        moved_from: None,
        begun: ClockReading::at_wall_ms(1_764_000_000_000),
        content: Content::Records(vec![Message::of(event.to_bytes())]),
    })
}

#[test]
fn reports_under_thousands_of_names_make_no_record_and_no_garage() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut dealer = Caller::dealer(&server.address());
    for n in 0..3_000 {
        let reply = Reply::decode(&dealer.ask(reports(&format!("stranger {n}"), n).encode())).unwrap();
        assert_eq!((reply.mark, reply.verdict), (0, Verdict::Accepted));
    }
    assert_eq!(server.position(), 0);
    assert_eq!(server.http().get_json("/v1/occupancy")["garages"], json!([]));
    assert_eq!(server.http().get_json("/v1/garages")["garages"], json!([]));
    // The last ones are remembered, so that a person sees that a new garage speaks.
    let of = |n: u32| server.http().get(&format!("/v1/garages/stranger%20{n}")).unwrap().status;
    assert_eq!((of(2_999), of(2_000), of(1_000), of(0)), (200, 200, 404, 404));
}

#[test]
fn a_capacity_is_recorded_with_the_first_events_and_then_at_most_once_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut dealer = Caller::dealer(&server.address());
    let began = Instant::now();
    dealer.ask(reports("a", 7).encode());
    assert_eq!(server.position(), 0);
    // It told its capacity before, and does not tell it now.
    let first = Request { pages: vec![entry()], observation: None, ..reports("a", 0) };
    assert_eq!(Reply::decode(&dealer.ask(first.encode())).unwrap().mark, 1);
    assert_eq!(server.position(), 2, "the event and the capacity");
    wait_until("the capacity counts", Duration::from_secs(20), &[&server], || {
        server.http().get_json("/v1/garages/a")["capacity"] == 7
    });
    for n in 0..200 {
        dealer.ask(reports("a", 8 + n % 2).encode());
    }
    let recorded = server.position() - 2;
    assert!(recorded <= began.elapsed().as_secs() / 60, "{recorded} records in {:?}", began.elapsed());
}
