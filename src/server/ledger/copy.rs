//! Copies the beginning of a ledger into another store.
//!
//! **Promise.** The copy is the ledger as it stood at the position through which it was copied: it has the same id, the same
//! records, and what follows from them. When it is opened, it continues from that position.
//! **Kept by.** A ledger is append-only: its records up to a position on disk never change, whatever is added meanwhile. Streams,
//! index and marks of the copy are derived from the records, so that they match that position; each page is compared with its
//! digest while it is copied.

use super::Ledger;
use super::keys::{COPIED_AT, LEDGER_ID, index_key, ledger_id_value, record_key, trailing_u64};
use super::streams::{Advance, Streams};
use crate::messaging::LedgerId;
use crate::messaging::page::Content;
use crate::server::record::{Record, StreamId, unreadable};
use crate::store::{BATCH_MAX, Batch, Store, StoreError};

/// The most writes for one record: the record, what [`Streams`] adds, and an index entry less.
const TOGETHER_MAX: usize = 6;

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

    /// The position up to which this ledger was copied from another directory. The original may have more records. `None`: no backup.
    pub fn copied_at(&self) -> Result<Option<u64>, StoreError> {
        self.store.get(COPIED_AT)?.map(|position| trailing_u64(&position)).transpose()
    }
}

/// A copy that is being made in an empty store.
pub struct LedgerCopy<'a> {
    store: &'a Store,
    names: Vec<StreamId>,
    /// Those of them that have begun, as the records so far say.
    streams: Streams,
    /// The missing range right before the next position: the number of its stream, its first and its last sequence.
    range_before: Option<(u32, u64, u64)>,
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
        names: Vec<StreamId>,
    ) -> Result<LedgerCopy<'a>, StoreError> {
        store.put(LEDGER_ID, &ledger_id_value(ledger))?;
        Ok(LedgerCopy {
            store,
            names,
            streams: Streams::default(),
            range_before: None,
            batch: Batch::default(),
            position: 0,
            missing: 0,
            counts: CopyCounts::default(),
        })
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// Adds the record of the next position, an empty one where there is none. A damaged record is copied as it is and counted,
    /// because the rest needs a backup even more. The index of the copy does not name it.
    pub fn add(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        let position = self.position + 1;
        let range_before = self.range_before.take();
        if bytes.is_empty() {
            self.counts.damaged += 1;
            self.missing += 1;
            self.position = position;
            return Ok(());
        }
        match Record::decode(position, &bytes) {
            Ok(record) => self.follow(position, &record, range_before)?,
            Err(StoreError::Damaged { .. }) => self.counts.damaged += 1,
            Err(error) => return Err(error),
        }
        self.batch.put(record_key(position), bytes);
        self.missing = 0;
        self.position = position;
        Ok(())
    }

    /// Derives what follows from a record: index, marks, and decisions about conflicts.
    fn follow(
        &mut self,
        position: u64,
        record: &Record,
        range_before: Option<(u32, u64, u64)>,
    ) -> Result<(), StoreError> {
        if let Some(stream) = record.stream() {
            self.begin_stream(stream)?;
        }
        self.make_room()?;
        match Advance::of(record).map_err(|error| unreadable(position, error))? {
            Some(advance) => self.advance(position, advance, range_before)?,
            None => self.streams.decide(position, record, &mut self.batch),
        }
        match record {
            Record::Page { .. } => self.counts.pages += 1,
            Record::MissingRange { .. } => self.counts.missing_ranges += 1,
            Record::Command { .. } => self.counts.commands += 1,
            Record::Truncated { from, to, .. } => {
                // These positions are rightly empty: their loss is recorded.
                let known = self.missing.min(to + 1 - from);
                self.counts.damaged -= known;
                self.counts.truncated += known;
            }
            Record::Moved { .. } | Record::Capacity { .. } => {}
        }
        Ok(())
    }

    fn advance(
        &mut self,
        position: u64,
        advance: Advance,
        range_before: Option<(u32, u64, u64)>,
    ) -> Result<(), StoreError> {
        if let Some(page) = &advance.page {
            let Content::Records(records) = &page.content else {
                return Err(unreadable(position, "a page of it tells of a loss"));
            };
            self.counts.events += records.len() as u64;
        }
        let (is_indexed, first, last) = (advance.is_indexed, advance.first, advance.last);
        // The index names a missing range whose page is not there: nothing else says that its sequences are known to be missing.
        let advance = Advance { is_indexed: true, ..advance };
        let number = self.streams.advance(position, &advance, &mut self.batch);
        match range_before {
            _ if !is_indexed => self.range_before = Some((number, first, last)),
            Some((its, from, to)) if (its, to + 1) == (number, first) => {
                self.batch.remove(index_key(number, from));
            }
            _ => {}
        }
        Ok(())
    }

    /// Begins a stream with those before it. One that cannot be read keeps its number, or later ones would change theirs.
    pub(super) fn begin_stream(&mut self, stream: &StreamId) -> Result<(), StoreError> {
        if self.streams.number(stream).is_some() {
            return Ok(());
        }
        let number = self.names.iter().position(|its| its == stream).unwrap_or(self.names.len());
        let begun = self.streams.count() as usize;
        for before in begun..number {
            self.make_room()?;
            self.streams.begin(self.names[before].clone(), &mut self.batch);
        }
        self.make_room()?;
        self.streams.begin(stream.clone(), &mut self.batch);
        Ok(())
    }

    /// Notes that the ledger is a copy of another one up to this position; see [`Ledger::copied_at`].
    pub fn mark_as_copied_at(&mut self, position: u64) -> Result<(), StoreError> {
        self.make_room()?;
        self.batch.put(COPIED_AT, position.to_be_bytes());
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), StoreError> {
        if self.batch.len() + TOGETHER_MAX > BATCH_MAX {
            self.store.apply(&std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }

    /// Writes the rest, and flushes. The copy is on disk when this returns.
    pub fn finish(mut self) -> Result<CopyCounts, StoreError> {
        if self.missing > 0 {
            // The last position keeps its number even if nothing of it can be read: it must never mean something else.
            self.make_room()?;
            self.batch.put(record_key(self.position), Vec::new());
        }
        self.store.apply(&self.batch)?;
        self.store.flush()?;
        self.counts.streams = u64::from(self.streams.count());
        Ok(self.counts)
    }
}
