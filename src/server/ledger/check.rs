//! Reads the whole ledger and compares its records with the index and the marks.

use super::keys::{decode_mark, index_key, index_place, mark_key, trailing_u64};
use super::streams::{Advance, Streams};
use super::{Ledger, RecordOrDamage};
use crate::messaging::page::{Content, Page};
use crate::messaging::receiver::Mark;
use crate::server::record::{PAGE_OF_LOST_EVENTS, Record, StreamId};
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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CheckedLedger {
    pub position: u64,
    pub pages: u64,
    pub events: u64,
    /// Fields of `verify --json` keep their names.
    #[serde(rename = "holes")]
    pub missing_ranges: u64,
    #[serde(rename = "missing")]
    pub missing_events: u64,
    pub truncated: u64,
}

struct LedgerCheck<'a> {
    ledger: &'a Ledger,
    found: Tell<'a>,
    read: CheckedLedger,
    streams: Streams,
    /// The mark of each stream by the records so far; `None` after something unreadable.
    followed: Vec<Option<Mark>>,
    indexed: u64,
}

impl Ledger {
    /// Reads every record up to the last position on disk, and reports to `found` where positions, sequences, digests, index
    /// and marks do not agree.
    ///
    /// Nothing is written. An error means that the disk failed.
    pub fn check(&self, meanwhile: Meanwhile, found: Tell<'_>) -> Result<CheckedLedger, StoreError> {
        let read = CheckedLedger { position: self.position(), ..CheckedLedger::default() };
        let streams = self.read_streams().clone();
        let followed = vec![Some(Mark::default()); streams.count() as usize];
        let mut check = LedgerCheck { ledger: self, found, read, streams, followed, indexed: 0 };
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

    fn records(&mut self) -> Result<(), StoreError> {
        let ledger = self.ledger;
        for entry in ledger.records(1) {
            let (position, found) = entry?;
            if position > self.read.position {
                break;
            }
            match found {
                RecordOrDamage::Damaged { from, reason } => self.unreadable(from, position, &reason)?,
                // What belongs to no stream has a position and nothing else to agree with.
                RecordOrDamage::Record(Record::Truncated { from, to, .. }) => {
                    self.read.truncated += to + 1 - from;
                }
                RecordOrDamage::Record(record) => match Advance::of(&record) {
                    Ok(advance) => advance.map_or(Ok(()), |advance| self.advance(position, &advance))?,
                    Err(error) => {
                        let what = format!("the page cannot be trusted: {error}");
                        self.unreadable(position, position, &what)?;
                    }
                },
            }
        }
        Ok(())
    }

    fn advance(&mut self, position: u64, advance: &Advance) -> Result<(), StoreError> {
        let Advance { first, last, .. } = *advance;
        let place = format!("position {position}, {}", advance.stream);
        let Some(number) = self.streams.number(&advance.stream) else {
            self.say(place, "its stream is not in the list of streams");
            return Ok(());
        };
        match &advance.page {
            Some(page) => {
                self.page(&place, number, &advance.stream, page);
                self.read.pages += 1;
                self.read.events += page.count();
            }
            None => {
                self.read.missing_ranges += 1;
                let missing = last.saturating_sub(first).saturating_add(1);
                self.read.missing_events = self.read.missing_events.saturating_add(missing);
            }
        }
        match self.followed[number as usize].replace(advance.mark) {
            Some(mark) if first != mark.sequence + 1 => {
                let after = mark.sequence;
                self.say(&place, format!("sequences {first} to {last} follow sequence {after}"));
            }
            _ if last < first => self.say(&place, format!("it ends with {last} and begins with {first}")),
            _ => {}
        }
        if advance.is_indexed {
            self.indexed_at(&place, position, index_key(number, first), first)?;
        }
        Ok(())
    }

    fn page(&mut self, place: &str, number: u32, stream: &StreamId, page: &Page) {
        if stream.epoch != page.epoch {
            self.say(place, format!("the page says that it is of epoch {}", page.epoch));
        }
        if matches!(page.content, Content::Lost { .. }) {
            self.say(place, PAGE_OF_LOST_EVENTS);
        }
        if let Some(mark) = self.followed[number as usize]
            && let (Some(previous), Some(digest)) = (page.previous, mark.digest)
            && previous != digest
        {
            self.say(place, "the page continues another page than the one before it");
        }
    }

    /// Reports positions that cannot be read; the index still says whose page stood there.
    fn unreadable(&mut self, from: u64, to: u64, what: &str) -> Result<(), StoreError> {
        let losses = self.ledger.losses(from, to)?;
        for loss in &losses {
            if let Some(number) = self.streams.number(&loss.stream) {
                self.followed[number as usize] = None;
            }
            self.indexed += 1;
            let place = format!("position {}, {}", loss.position, loss.stream);
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

    fn indexed_at(&mut self, place: &str, position: u64, key: Vec<u8>, first: u64) -> Result<(), StoreError> {
        let found = self.ledger.store.get(&key)?;
        self.indexed += u64::from(found.is_some());
        match found.map(|value| trailing_u64(&value)).transpose()? {
            Some(found) if found == position => {}
            Some(found) => {
                self.say(place, format!("the index says that sequence {first} stands at position {found}"));
            }
            None => self.say(place, format!("the index does not know sequence {first}")),
        }
        Ok(())
    }

    /// Reports index entries to which no record belongs.
    fn index(&mut self, meanwhile: Meanwhile) -> Result<(), StoreError> {
        let (ledger, through) = (self.ledger, self.read.position);
        let is_checked = |position| position <= through || meanwhile == Meanwhile::Unchanged;
        let mut entries = 0;
        for entry in ledger.store.range(b"x", b"y") {
            entries += u64::from(is_checked(trailing_u64(&entry?.1)?));
        }
        if entries <= self.indexed {
            return Ok(());
        }
        for entry in ledger.store.range(b"x", b"y") {
            let (key, value) = entry?;
            let position = trailing_u64(&value)?;
            let Some((number, first)) = index_place(&key) else {
                self.say("the index", format!("the key {key:02x?} has the wrong form"));
                continue;
            };
            if !is_checked(position) {
                continue;
            }
            let stream = self.streams.get(number).map(|stream| &stream.id);
            let is_its = |its: Advance| (Some(&its.stream), its.first) == (stream, first);
            let agrees = match ledger.record_at(position) {
                Ok(Some(record)) => Advance::of(&record).ok().flatten().is_some_and(is_its),
                Ok(None) => false,
                Err(_) => true, // said already
            };
            if !agrees {
                let what =
                    format!("it says that sequence {first} stands at position {position}, which it does not");
                self.say(format!("the index of {}", self.name(number)), what);
            }
        }
        Ok(())
    }

    fn marks(&mut self, meanwhile: Meanwhile) -> Result<(), StoreError> {
        for number in 0..self.streams.count() {
            let Some(followed) = self.followed[number as usize] else { continue };
            let stored = self.ledger.store.get(&mark_key(number))?;
            let place = format!("the mark of {}", self.name(number));
            let stored =
                stored.map_or(Ok(Mark::default()), |mark| Ok::<_, StoreError>(decode_mark(&mark)?.0));
            let Ok(stored) = stored else {
                self.say(place, "it has the wrong form");
                continue;
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

    fn name(&self, number: u32) -> String {
        self.streams.get(number).map_or(format!("stream {number}"), |stream| stream.id.to_string())
    }
}
