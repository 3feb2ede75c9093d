//! Reads the whole ledger and compares its records with the index and the marks.

use super::follow::Advance;
use super::keys::{decode_mark, index_key, mark_key, trailing_u64};
use super::walk::index_place;
use super::{Ledger, RecordOrDamage, Stream};
use crate::messaging::page::{Content, Page};
use crate::messaging::receiver::Mark;
use crate::server::record::Record;
use crate::store::StoreError;

/// Reports something that does not agree: where, and what.
pub type Tell<'a> = &'a mut dyn FnMut(String, String);

/// Says whether commits may happen while the ledger is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    Unchanged,
    /// What is committed after the check has begun is not checked.
    Growing,
}

/// Counts of what was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CheckedLedger {
    /// The last position that was looked at.
    pub position: u64,
    pub pages: u64,
    pub events: u64,
    /// Fields of `verify --json` keep their names.
    #[serde(rename = "holes")]
    pub missing_ranges: u64,
    /// The sum of the events in all missing ranges.
    #[serde(rename = "missing")]
    pub missing_events: u64,
    /// Positions that are recorded as lost.
    pub truncated: u64,
}

/// The mark that a stream has by the records so far; `None` after something unreadable.
type Followed = Option<Mark>;

struct LedgerCheck<'a> {
    ledger: &'a Ledger,
    found: Tell<'a>,
    read: CheckedLedger,
    streams: Vec<(Stream, Followed)>,
    /// Expected number of index entries.
    indexed: u64,
}

impl Ledger {
    /// Reads every record up to the last position on disk, and reports to `found` where positions, sequences, digests, index
    /// and marks do not agree.
    ///
    /// Nothing is written. An error means that the disk failed.
    pub fn check(&self, meanwhile: Meanwhile, found: Tell<'_>) -> Result<CheckedLedger, StoreError> {
        let through = self.position();
        let streams = self.read_streams().all.clone();
        let streams = streams.into_iter().map(|stream| (stream, Some(Mark::default()))).collect();
        let read = CheckedLedger { position: through, ..CheckedLedger::default() };
        let mut check = LedgerCheck { ledger: self, found, read, streams, indexed: 0 };
        check.stream_numbers()?;
        check.records()?;
        check.index(meanwhile)?;
        check.marks(meanwhile)?;
        Ok(check.read)
    }
}

impl LedgerCheck<'_> {
    fn say(&mut self, place: impl Into<String>, what: impl Into<String>) {
        (self.found)(place.into(), what.into());
    }

    fn stream_numbers(&mut self) -> Result<(), StoreError> {
        for (expected, entry) in (0u32..).zip(self.ledger.store.range(b"s", b"t")) {
            let (key, _) = entry?;
            if key[1..] != expected.to_be_bytes() {
                self.say("the list of streams", format!("the entry of stream {expected} is missing"));
                break;
            }
        }
        Ok(())
    }

    fn records(&mut self) -> Result<(), StoreError> {
        let ledger = self.ledger;
        for entry in ledger.records(1) {
            let (position, found) = entry?;
            if position > self.read.position {
                break;
            }
            match found {
                RecordOrDamage::Record(record) => self.record(position, &record)?,
                RecordOrDamage::Damaged { from, reason } => self.unreadable(from, position, &reason)?,
            }
        }
        Ok(())
    }

    fn record(&mut self, position: u64, record: &Record) -> Result<(), StoreError> {
        let advance = match Advance::of(record) {
            Ok(advance) => advance,
            Err(error) => {
                let what = format!("the page cannot be trusted: {error}");
                return self.unreadable(position, position, &what);
            }
        };
        if let Some(advance) = advance {
            return self.advance(position, &advance);
        }
        // What belongs to no stream has a position and nothing else to agree with.
        if let Record::Truncated { from, to, .. } = record {
            self.read.truncated += (to + 1).saturating_sub(*from);
            if to + 1 != position || from > to {
                let what =
                    format!("it says that positions {from} to {to} are lost, which is not what it follows");
                self.say(format!("position {position}"), what);
            }
        }
        Ok(())
    }

    fn advance(&mut self, position: u64, advance: &Advance) -> Result<(), StoreError> {
        let Advance { stream, first, last, mark, is_indexed, .. } = *advance;
        match &advance.page {
            Some(page) => {
                self.page(position, stream, page);
                self.read.pages += 1;
                self.read.events += page.count();
            }
            None => {
                self.read.missing_ranges += 1;
                let missing = last.saturating_sub(first).saturating_add(1);
                self.read.missing_events = self.read.missing_events.saturating_add(missing);
            }
        }
        self.follow(position, stream, first, last);
        if is_indexed {
            self.indexed_at(position, stream, first)?;
        }
        if let Some((_, followed)) = self.streams.get_mut(stream as usize) {
            *followed = Some(mark);
        }
        Ok(())
    }

    fn page(&mut self, position: u64, stream: u32, page: &Page) {
        let place = self.place(position, stream);
        if self.stream(stream).is_some_and(|stream| stream.epoch != page.epoch) {
            self.say(&place, format!("the page says that it is of epoch {}", page.epoch));
        }
        if matches!(page.content, Content::Lost { .. }) {
            self.say(&place, "a page without events stands where events were applied");
        }
        if let Some(Some(mark)) = self.followed(stream)
            && let (Some(previous), Some(digest)) = (page.previous, mark.digest)
            && previous != digest
        {
            self.say(&place, "the page continues another page than the one before it");
        }
    }

    /// Reports positions that cannot be read; the index still says whose page stood there.
    fn unreadable(&mut self, from: u64, to: u64, what: &str) -> Result<(), StoreError> {
        let losses = self.ledger.losses(from, to)?;
        for loss in &losses {
            if let Some((_, followed)) = self.streams.get_mut(loss.stream as usize) {
                *followed = None;
            }
            self.indexed += 1;
            let place = self.place(loss.position, loss.stream);
            self.say(format!("{place}, events {} to {}", loss.first, loss.last), what);
        }
        let place = match (losses.len() as u64, from == to) {
            (0, true) => format!("position {from}"),
            (named, _) if named <= to - from => format!("positions {from} to {to}"),
            _ => return Ok(()),
        };
        self.say(place, what);
        Ok(())
    }

    fn follow(&mut self, position: u64, stream: u32, first: u64, last: u64) {
        let place = self.place(position, stream);
        match self.followed(stream) {
            None => self.say(place, format!("stream {stream} is not in the list of streams")),
            Some(Some(mark)) if first != mark.sequence + 1 => {
                let after = mark.sequence;
                self.say(place, format!("sequences {first} to {last} follow sequence {after}"));
            }
            Some(_) if last < first => {
                self.say(place, format!("it ends with {last} and begins with {first}"))
            }
            Some(_) => {}
        }
    }

    fn indexed_at(&mut self, position: u64, stream: u32, first: u64) -> Result<(), StoreError> {
        let found = self.ledger.store.get(&index_key(stream, first))?;
        self.indexed += u64::from(found.is_some());
        match found.map(|value| trailing_u64(&value)).transpose()? {
            Some(found) if found == position => {}
            Some(found) => {
                let what = format!("the index says that sequence {first} stands at position {found}");
                self.say(self.place(position, stream), what);
            }
            None => {
                self.say(self.place(position, stream), format!("the index does not know sequence {first}"));
            }
        }
        Ok(())
    }

    /// Reports index entries to which no record belongs.
    fn index(&mut self, meanwhile: Meanwhile) -> Result<(), StoreError> {
        let ledger = self.ledger;
        let through = self.read.position;
        let mut entries = 0;
        for entry in ledger.store.range(b"x", b"y") {
            let position = trailing_u64(&entry?.1)?;
            entries += u64::from(position <= through || meanwhile == Meanwhile::Unchanged);
        }
        if entries <= self.indexed {
            return Ok(());
        }
        for entry in ledger.store.range(b"x", b"y") {
            let (key, value) = entry?;
            let position = trailing_u64(&value)?;
            let Some((stream, first)) = index_place(&key) else {
                self.say("the index", format!("the key {key:02x?} has the wrong form"));
                continue;
            };
            if meanwhile == Meanwhile::Growing && position > through {
                continue;
            }
            let agrees = match ledger.record_at(position) {
                Ok(Some(record)) => Advance::of(&record)
                    .is_ok_and(|its| its.is_some_and(|its| (its.stream, its.first) == (stream, first))),
                Ok(None) => false,
                Err(_) => true, // said already
            };
            if !agrees {
                let what =
                    format!("it says that sequence {first} stands at position {position}, which it does not");
                self.say(format!("the index of {}", self.name(stream)), what);
            }
        }
        Ok(())
    }

    fn marks(&mut self, meanwhile: Meanwhile) -> Result<(), StoreError> {
        for stream in 0..u32::try_from(self.streams.len()).expect("streams have numbers") {
            let Some(Some(followed)) = self.followed(stream) else {
                continue;
            };
            let stored = self.ledger.store.get(&mark_key(stream))?;
            let place = format!("the mark of {}", self.name(stream));
            let stored = match stored.map(|mark| decode_mark(&mark)) {
                None => Mark::default(),
                Some(Ok(mark)) => mark,
                Some(Err(_)) => {
                    self.say(place, "it has the wrong form");
                    continue;
                }
            };
            let ahead = meanwhile == Meanwhile::Growing && stored.sequence > followed.sequence;
            if stored.sequence != followed.sequence && !ahead {
                let what = format!("it is {}, and the records reach {}", stored.sequence, followed.sequence);
                self.say(place, what);
            } else if !ahead && followed.digest.is_some() && stored.digest != followed.digest {
                self.say(place, "it has another digest than the last page");
            }
        }
        Ok(())
    }

    fn stream(&self, number: u32) -> Option<&Stream> {
        self.streams.get(number as usize).map(|(stream, _)| stream)
    }

    fn followed(&self, stream: u32) -> Option<Followed> {
        self.streams.get(stream as usize).map(|(_, followed)| *followed)
    }

    fn name(&self, stream: u32) -> String {
        match self.stream(stream) {
            Some(stream) => format!("garage {:?}, epoch {}", stream.site.as_str(), stream.epoch),
            None => format!("stream {stream}"),
        }
    }

    fn place(&self, position: u64, stream: u32) -> String {
        format!("position {position}, {}", self.name(stream))
    }
}
