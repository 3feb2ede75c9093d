//! Copies the beginning of a ledger into another store.
//!
//! **Promise.** The copy is the ledger as it stood at the position through which it was copied: it has the same id, the same
//! records, and what follows from them. When it is opened, it continues from that position.
//! **Kept by.** A ledger is append-only: its records up to a position on disk never change, whatever is added meanwhile. Streams,
//! index and marks of the copy are derived from the records, so that they match that position; each page is compared with its
//! digest while it is copied.

use super::follow::Advance;
use super::keys::{
    LEDGER_ID, adoption_key, index_key, ledger_id_value, mark_key, mark_value, moved_key, record_key,
    stream_key, stream_value,
};
use super::{Ledger, Stream};
use crate::messaging::page::Content;
use crate::messaging::receiver::Mark;
use crate::messaging::{Epoch, LedgerId, SiteName};
use crate::server::record::{Command, Record, unreadable};
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use std::collections::BTreeMap;

/// What a copy holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CopyCounts {
    pub events: u64,
    pub pages: u64,
    /// Fields of `backup.json` keep their names.
    #[serde(rename = "holes")]
    pub missing_ranges: u64,
    pub commands: u64,
    pub streams: u64,
    /// Positions whose record is missing, or cannot be read and was copied as it is.
    pub damaged: u64,
    /// Positions that the ledger itself records as lost.
    pub truncated: u64,
}

impl Ledger {
    /// The stored records from position `from` to `through`: the first one, and as many more as stay within `bytes`. A record that
    /// is missing or cannot be read is empty.
    pub fn raw_records(&self, from: u64, through: u64, bytes: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut records = Vec::new();
        let mut taken = 0;
        for position in from..=through {
            let value = match self.store.get(&record_key(position)) {
                Err(StoreError::Damaged { .. }) => Vec::new(),
                value => value?.unwrap_or_default(),
            };
            taken += value.len() + 1;
            if taken > bytes && !records.is_empty() {
                break;
            }
            records.push(value);
        }
        Ok(records)
    }

    /// Every stream, by its number.
    pub fn numbered_streams(&self) -> Vec<Stream> {
        self.read_streams().all.clone()
    }
}

/// A copy that is being made in an empty store.
pub struct LedgerCopy<'a> {
    store: &'a Store,
    /// The streams to which the numbers in the records refer.
    streams: Vec<(SiteName, Epoch)>,
    marks: BTreeMap<u32, Mark>,
    /// Positions at which streams began, and positions at which streams that have not moved yet were asked to move.
    began: BTreeMap<u32, u64>,
    told_to_move: BTreeMap<u32, u64>,
    /// Missing ranges whose following page is not copied yet, by stream: first and last sequence, and position.
    open_ranges: BTreeMap<u32, (u64, u64, u64)>,
    batch: Batch,
    position: u64,
    /// Number of positions in a row, up to the last one, that have no record.
    missing: u64,
    counts: CopyCounts,
}

impl<'a> LedgerCopy<'a> {
    pub fn begin(
        store: &'a Store,
        ledger: LedgerId,
        streams: Vec<(SiteName, Epoch)>,
    ) -> Result<LedgerCopy<'a>, StoreError> {
        store.put(LEDGER_ID, &ledger_id_value(ledger))?;
        Ok(LedgerCopy {
            store,
            streams,
            marks: BTreeMap::new(),
            began: BTreeMap::new(),
            told_to_move: BTreeMap::new(),
            open_ranges: BTreeMap::new(),
            batch: Batch::default(),
            position: 0,
            missing: 0,
            counts: CopyCounts::default(),
        })
    }

    /// The position of the last record that was added.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Adds the record of the next position, an empty one where there is none. A damaged record is copied as it is and counted,
    /// because the rest needs a backup even more. The index of the copy does not name it.
    pub fn add(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        let position = self.position + 1;
        if bytes.is_empty() {
            self.counts.damaged += 1;
            self.missing += 1;
            self.position = position;
            return Ok(());
        }
        let record = match Record::decode(position, &bytes) {
            Ok(record) => Some(record),
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        if self.batch.len() + 5 > BATCH_MAX {
            self.store.apply(&std::mem::take(&mut self.batch))?;
        }
        match record {
            None => self.counts.damaged += 1,
            Some(record) => self.follow(position, &record).map_err(|reason| unreadable(position, reason))?,
        }
        self.batch.put(record_key(position), bytes);
        self.missing = 0;
        self.position = position;
        Ok(())
    }

    /// Derives what follows from a record: index, marks, and decisions about conflicts.
    fn follow(&mut self, position: u64, record: &Record) -> Result<(), String> {
        if let Some(advance) = Advance::of(record).map_err(|error| error.to_string())? {
            return self.advance(position, advance);
        }
        match record {
            Record::Truncated { from, to, .. } => {
                // These positions are rightly empty: their loss is recorded.
                if to + 1 == position {
                    let known = self.missing.min((to + 1).saturating_sub(*from));
                    self.counts.damaged -= known;
                    self.counts.truncated += known;
                }
            }
            Record::Command { command, .. } => {
                self.counts.commands += 1;
                if let Command::Adopt { garage } = command {
                    self.batch.put(adoption_key(garage), position.to_be_bytes());
                }
            }
            Record::Moved { stream, .. } => {
                self.know(*stream)?;
                self.told_to_move.insert(*stream, position);
                self.batch.put(moved_key(*stream), position.to_be_bytes());
                // The decision is used up.
                self.batch.remove(adoption_key(&self.streams[*stream as usize].0));
            }
            Record::Page { .. } | Record::MissingRange { .. } | Record::Capacity { .. } => {}
        }
        Ok(())
    }

    fn advance(&mut self, position: u64, advance: Advance) -> Result<(), String> {
        let Advance { stream, first, last, mark, is_indexed, page } = advance;
        self.know(stream)?;
        match page {
            Some(page) => {
                let Content::Records(records) = &page.content else {
                    return Err("a page of it tells of a loss".into());
                };
                self.counts.pages += 1;
                self.counts.events += records.len() as u64;
                if let Some((former, _)) = page.moved_from {
                    self.arrive(position, stream, former);
                }
            }
            None => self.counts.missing_ranges += 1,
        }
        if is_indexed && self.open_ranges.get(&stream).is_some_and(|(_, last, _)| first == last + 1) {
            self.open_ranges.remove(&stream);
        }
        self.stand_for_itself(stream);
        if is_indexed {
            self.marks.insert(stream, mark);
            self.began.entry(stream).or_insert(position);
            self.batch.put(index_key(stream, first), position.to_be_bytes());
        } else {
            // The page behind it moves the mark, and is in the index; it may be lost.
            self.open_ranges.insert(stream, (first, last, position));
        }
        Ok(())
    }

    /// Notes that a stream moved from `former`, if it began after `former` was asked to move.
    fn arrive(&mut self, position: u64, stream: u32, former: Epoch) {
        let site = &self.streams[stream as usize].0;
        let Some(former) = self.streams.iter().position(|(its, epoch)| (its, *epoch) == (site, former))
        else {
            return;
        };
        let former = u32::try_from(former).expect("streams have numbers");
        // One that began before is of an earlier move.
        let began = self.began.get(&stream).copied().unwrap_or(position);
        if self.told_to_move.get(&former).is_some_and(|told| began > *told) {
            self.told_to_move.remove(&former);
            self.batch.remove(moved_key(former));
        }
    }

    fn know(&mut self, stream: u32) -> Result<(), String> {
        if stream as usize >= self.streams.len() {
            return Err(format!("it names stream {stream}, which there is not"));
        }
        self.marks.entry(stream).or_default();
        Ok(())
    }

    /// Lets a missing range whose page is not there move the mark, and puts it into the index: nothing else says that its sequences
    /// are known to be missing.
    fn stand_for_itself(&mut self, stream: u32) {
        if let Some((first, last, position)) = self.open_ranges.remove(&stream) {
            self.marks.insert(stream, Mark { sequence: last, digest: None });
            self.batch.put(index_key(stream, first), position.to_be_bytes());
        }
    }

    /// Writes the rest, and flushes. The copy is on disk when this returns.
    pub fn finish(mut self) -> Result<CopyCounts, StoreError> {
        if self.missing > 0 {
            // The last position keeps its number even if nothing of it can be read: it must never mean something else.
            self.store.apply(&std::mem::take(&mut self.batch))?;
            self.batch.put(record_key(self.position), Vec::new());
        }
        for stream in self.open_ranges.keys().copied().collect::<Vec<_>>() {
            if self.batch.len() + 1 > BATCH_MAX {
                self.store.apply(&std::mem::take(&mut self.batch))?;
            }
            self.stand_for_itself(stream);
        }
        // A stream is known by its number: one of which nothing can be read keeps its number, or those after it would change theirs.
        let streams = self.marks.last_key_value().map_or(0, |(last, _)| last + 1);
        for number in 0..streams {
            if self.batch.len() + 2 > BATCH_MAX {
                self.store.apply(&std::mem::take(&mut self.batch))?;
            }
            let (site, epoch) = &self.streams[number as usize];
            let mark = self.marks.get(&number).copied().unwrap_or_default();
            self.batch.put(stream_key(number), stream_value(site, *epoch));
            self.batch.put(mark_key(number), mark_value(mark, site, *epoch));
        }
        self.store.apply(&self.batch)?;
        self.store.flush()?;
        self.counts.streams = u64::from(streams);
        Ok(self.counts)
    }
}
