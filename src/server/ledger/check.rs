//! Reading the whole ledger and comparing what it says twice.

use super::keys::{decode_mark, index_key, mark_key, trailing_u64};
use super::walk::index_place;
use super::{Found, Ledger, Stream};
use crate::messaging::page::Content;
use crate::messaging::receiver::Mark;
use crate::server::record::Record;
use crate::store::StoreError;

/// Something that does not agree: where, and what.
pub type Tell<'a> = &'a mut dyn FnMut(String, String);

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// The last position that was looked at.
    pub through: u64,
    pub pages: u64,
    pub events: u64,
    pub holes: u64,
    /// Events that will never come, by the holes.
    pub missing: u64,
    /// Positions that are recorded as lost.
    pub truncated: u64,
}

/// How far a stream was followed; `None` after something unreadable.
type Followed = Option<Mark>;

struct Check<'a> {
    ledger: &'a Ledger,
    found: Tell<'a>,
    read: Read,
    streams: Vec<(Stream, Followed)>,
    /// Index entries that there should be.
    indexed: u64,
}

impl Ledger {
    /// Reads every record up to the last position on disk, and tells `found` where positions, sequences, digests, index
    /// and marks do not agree. With `growing` somebody commits meanwhile: what is beyond is let be.
    ///
    /// Nothing is written. An error is one of the disk.
    pub fn check(&self, growing: bool, found: Tell<'_>) -> Result<Read, StoreError> {
        let through = self.position();
        let streams = self.read_streams().all.clone();
        let streams = streams.into_iter().map(|stream| (stream, Some(Mark::default()))).collect();
        let read = Read { through, ..Read::default() };
        let mut check = Check { ledger: self, found, read, streams, indexed: 0 };
        check.stream_numbers()?;
        check.records()?;
        check.index(growing)?;
        check.marks(growing)?;
        Ok(check.read)
    }
}

impl Check<'_> {
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
            if position > self.read.through {
                break;
            }
            match found {
                Found::Record(record) => self.record(position, record)?,
                Found::Damaged { from, reason } => self.unreadable(from, position, &reason)?,
            }
        }
        Ok(())
    }

    fn record(&mut self, position: u64, record: Record) -> Result<(), StoreError> {
        match record {
            Record::Page { stream, page, .. } => match page.read() {
                Err(error) => {
                    self.unreadable(position, position, &format!("the page cannot be trusted: {error}"))?
                }
                Ok(open) => {
                    let first = open.first.get();
                    let place = self.place(position, stream);
                    if self.stream(stream).is_some_and(|stream| stream.epoch != open.epoch) {
                        self.say(&place, format!("the page says that it is of epoch {}", open.epoch));
                    }
                    if matches!(open.content, Content::Lost { .. }) {
                        self.say(&place, "a page without events stands where events were applied");
                    }
                    if let Some(Some(mark)) = self.followed(stream)
                        && let (Some(previous), Some(digest)) = (open.previous, mark.digest)
                        && previous != digest
                    {
                        self.say(&place, "the page continues another page than the one before it");
                    }
                    self.read.pages += 1;
                    self.read.events += open.count();
                    self.follow(position, stream, first, open.last());
                    self.indexed_at(position, stream, first)?;
                    self.set(stream, Mark::after(&open, page.digest));
                }
            },
            Record::MissingRange { stream, first, last, told_by, .. } => {
                self.read.holes += 1;
                let missing = last.saturating_sub(first).saturating_add(1);
                self.read.missing = self.read.missing.saturating_add(missing);
                self.follow(position, stream, first, last);
                if told_by.is_some() {
                    self.indexed_at(position, stream, first)?;
                }
                // The next page names the one that was lost.
                self.set(stream, Mark { sequence: last, digest: None });
            }
            Record::Truncated { from, to, .. } => {
                self.read.truncated += (to + 1).saturating_sub(from);
                if to + 1 != position || from > to {
                    let what = format!(
                        "it says that positions {from} to {to} are lost, which is not what it follows"
                    );
                    self.say(format!("position {position}"), what);
                }
            }
            // What belongs to no stream has a position and nothing else to agree with.
            _ => {}
        }
        Ok(())
    }

    /// The index still says whose page it was.
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

    /// Whether the index has entries beside those that were found.
    fn index(&mut self, growing: bool) -> Result<(), StoreError> {
        let ledger = self.ledger;
        let through = self.read.through;
        let mut entries = 0;
        for entry in ledger.store.range(b"x", b"y") {
            let position = trailing_u64(&entry?.1)?;
            entries += u64::from(position <= through || !growing);
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
            if growing && position > through {
                continue;
            }
            let agrees = match ledger.record_at(position) {
                Ok(Some(Record::Page { stream: its, page, .. })) => {
                    its == stream && page.read().is_ok_and(|page| page.first.get() == first)
                }
                Ok(Some(Record::MissingRange { stream: its, first: begins, .. })) => {
                    its == stream && begins == first
                }
                Ok(_) => false,
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

    fn marks(&mut self, growing: bool) -> Result<(), StoreError> {
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
            let ahead = growing && stored.sequence > followed.sequence;
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

    fn set(&mut self, stream: u32, mark: Mark) {
        if let Some((_, followed)) = self.streams.get_mut(stream as usize) {
            *followed = Some(mark);
        }
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
