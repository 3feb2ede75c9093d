//! What strangers, producers, operators and disks hand to the programs, as targets of a fuzzer. It is compiled for tests and for
//! `fuzz/` only (`--cfg fuzzing`).
//!
//! **Promise.** No bytes end a target. What it takes is written so that it is read as the same, and keeps the promises of its module.
//! **Kept by.** The programs in `fuzz/fuzz_targets` search for bytes that break this; the tests here replay what was found, with the
//! corpora in `fuzz/corpus`.
//! **Not promised.** That what was not found does not exist.
//!
//! The first byte of an input selects what the others are.

mod files;
mod stored;

use crate::config::{EdgeConfig, EdgeSettings, ServerConfig, ServerSettings};
use crate::edge::fuzzing::events_of_batch;
use crate::messaging::page::Page;
use crate::messaging::receiver::{Judgement, Mark, PageSpan, judge};
use crate::messaging::wire::{Reply, Request};
use crate::messaging::{Digest, SiteName};
use crate::parking::board::earlier::WholeBoardQuestion;
use crate::parking::board::{BoardAnswer, BoardPart};
use crate::parking::event::EventJson;
use crate::parking::tariff::{Tariff, TariffSet};
use crate::parking::{BoardQuestion, Event, Observation, Plate};
use crate::transport::ServerAddress;
use crate::transport::gateway::fuzzing::connection;
use jiff::{SignedDuration, Timestamp};
use std::convert::Infallible;
use std::fmt::Debug;
use std::path::Path;

/// What a fuzzer gives bytes to.
pub struct FuzzTarget {
    /// That of its program and of its corpus.
    pub name: &'static str,
    /// The number of kinds of input.
    pub kinds: u8,
    /// Takes the bytes, and returns whether they were understood. It panics if a promise is broken.
    pub run: fn(&[u8]) -> bool,
}

pub const TARGETS: [FuzzTarget; 7] = [
    FuzzTarget { name: "gateway", kinds: 1, run: connection },
    FuzzTarget { name: "wire", kinds: 7, run: wire },
    FuzzTarget { name: "bodies", kinds: 2, run: bodies },
    FuzzTarget { name: "config", kinds: 3, run: config },
    FuzzTarget { name: "plates", kinds: 3, run: plates },
    FuzzTarget { name: "csv", kinds: 4, run: files::csv },
    FuzzTarget { name: "stored", kinds: 8, run: stored::stored },
];

/// Gives bytes to the target of this name.
///
/// # Panics
/// When they break a promise.
pub fn run(name: &str, bytes: &[u8]) -> bool {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a program has the name of its target").run)(bytes)
}

/// What the first byte selects of this many kinds, and the other bytes.
fn kind(input: &[u8], kinds: u8) -> Option<(u8, &[u8])> {
    input.split_first().map(|(kind, bytes)| (kind % kinds, bytes))
}

/// Reads bytes; what was read is written so that it is read as the same. Returns whether it was read.
fn comes_back<T, E: Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<T, E>,
    write: impl Fn(&T) -> Vec<u8>,
) -> bool {
    let Ok(value) = read(bytes) else { return false };
    let written = write(&value);
    let again = read(&written).expect("what was written is read");
    assert_eq!(write(&again), written);
    true
}

/// What passes between edges and a server.
fn wire(input: &[u8]) -> bool {
    let Some((kind, bytes)) = kind(input, 7) else { return false };
    match kind {
        0 => {
            let Ok(request) = Request::decode(bytes) else { return false };
            for page in &request.pages {
                assert!(page.open().is_err() || Page::decode(&page.bytes).is_ok());
            }
            comes_back(bytes, Request::decode, Request::encode)
        }
        1 => comes_back(bytes, Reply::decode, Reply::encode),
        2 => comes_back(bytes, BoardQuestion::from_bytes, BoardQuestion::to_bytes),
        3 => comes_back(bytes, WholeBoardQuestion::from_bytes, WholeBoardQuestion::to_bytes),
        4 => comes_back(bytes, Observation::from_bytes, Observation::to_bytes),
        5 => comes_back(bytes, BoardAnswer::from_bytes, BoardAnswer::to_bytes),
        _ => comes_back(bytes, BoardPart::from_bytes, BoardPart::to_bytes),
    }
}

/// A page as a sender sends it, judged under several marks.
fn page(bytes: &[u8]) -> bool {
    let Ok(page) = Page::decode(bytes) else { return false };
    let span = PageSpan::of(&page, Digest::of(bytes));
    let mut marks = vec![0, span.first - 1, span.first, span.last, u64::MAX - 1];
    marks.extend(page.moved_from.map(|(_, first)| first.get()));
    for mark in marks {
        for oldest in [0, span.first, u64::MAX] {
            let mark = Mark { sequence: mark, digest: span.previous };
            let judged = judge::<Infallible>(span, mark, oldest, |_| Ok(None));
            let Ok(judged) = judged;
            assert!(judged != Judgement::Next || span.first == mark.sequence + 1);
        }
    }
    assert_eq!(page.count(), span.last - span.first + 1);
    if page.count() > 1 {
        assert_eq!(page.clone().without_first(1, None).last(), span.last);
    }
    comes_back(bytes, Page::decode, Page::encode)
}

/// What producers post to an edge: an event, or a batch of them.
fn bodies(input: &[u8]) -> bool {
    let Some((kind, bytes)) = kind(input, 2) else { return false };
    if kind == 1 {
        let Some(events) = events_of_batch(bytes) else { return false };
        assert!(!events.is_empty());
        return events.iter().all(|event| self::event(event));
    }
    let Ok(event) = Event::from_json(bytes, Timestamp::UNIX_EPOCH) else { return false };
    assert_eq!(Event::from_bytes(&event.to_bytes()).as_ref(), Ok(&event));
    // What a list shows of a car may be posted again.
    let shown = EventJson::from(event.clone());
    if shown.corrects.is_none() && shown.occupied.is_none() {
        let shown = serde_json::to_vec(&shown).expect("it is text and numbers");
        assert_eq!(Event::from_json(&shown, Timestamp::MAX), Ok(event));
    }
    true
}

/// An event as it is stored.
fn event(bytes: &[u8]) -> bool {
    if let Ok(event) = Event::from_bytes(bytes) {
        serde_json::to_vec(&EventJson::from(event)).expect("every stored event can be shown");
    }
    comes_back(bytes, Event::from_bytes, Event::to_bytes)
}

/// Configuration files, as both daemons read them, and tariffs.
fn config(input: &[u8]) -> bool {
    let Some((kind, bytes)) = kind(input, 3) else { return false };
    let (Ok(text), path) = (str::from_utf8(bytes), Path::new("fuzzed.toml")) else { return false };
    match kind {
        0 => EdgeSettings::default().completed_from(path, text).and_then(EdgeConfig::try_from).is_ok(),
        1 => ServerConfig::with_file(ServerSettings::default(), Some((path, text))).is_ok(),
        _ => {
            let Ok(tariffs) = TariffSet::parse(text) else { return false };
            assert_eq!(TariffSet::parse(&tariffs.to_toml()).as_ref(), Ok(&tariffs));
            tariffs.tariffs().iter().for_each(prices);
            true
        }
    }
}

/// A longer stay never costs less, and its breakdown adds up.
fn prices(tariff: &Tariff) {
    let entry =
        tariff.time_zone.to_timestamp(tariff.valid_from.at(7, 50, 0, 0)).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut before = None;
    for minutes in [0, 1, 20, 61, 600, 1500, 10_000] {
        let Ok(exit) = entry.checked_add(SignedDuration::from_mins(minutes)) else { return };
        let (Ok(priced), Ok(amount)) = (tariff.price(entry, exit), tariff.amount(entry, exit)) else {
            return;
        };
        assert_eq!(priced.amount, amount);
        assert!(before <= Some(amount), "{minutes} minutes cost less than fewer");
        before = Some(amount);
        priced.to_json();
    }
}

/// Names: plates, garages, addresses.
fn plates(input: &[u8]) -> bool {
    let Some((kind, bytes)) = kind(input, 3) else { return false };
    let Ok(text) = str::from_utf8(bytes) else { return false };
    match kind {
        0 => {
            if let Ok(stored) = Plate::stored(text) {
                assert_eq!(Plate::stored(stored.as_str()), Ok(stored));
            }
            let plate = Plate::new(text);
            assert_eq!(Plate::new(&text.to_ascii_lowercase()).ok(), plate.clone().ok());
            let Ok(plate) = plate else { return false };
            assert_eq!(Plate::new(plate.as_str()).as_ref(), Ok(&plate));
            assert_eq!(Plate::stored(plate.as_str()).as_ref(), Ok(&plate));
            assert!((Plate::MIN..=3 * Plate::MAX).contains(&plate.as_str().chars().count()));
            true
        }
        1 => comes_back(
            bytes,
            |bytes| SiteName::new(&String::from_utf8_lossy(bytes)),
            |name| name.as_str().into(),
        ),
        _ => comes_back(
            bytes,
            |bytes| String::from_utf8_lossy(bytes).parse::<ServerAddress>(),
            |address| address.to_string().into(),
        ),
    }
}

#[cfg(test)]
mod tests;
