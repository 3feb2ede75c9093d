//! Copying the beginning of a ledger into another store.
//!
//! **Promise.** The copy is the ledger as it stood at the position through which it was copied: same id, same records, and
//! what follows from them. Opened, it goes on from there.
//! **Kept by.** A ledger is append-only: its records up to a position on disk never change, whatever is added meanwhile.
//! Streams, index and marks of the copy are derived from the records, so that they fit to that position; each page is
//! compared with its digest on the way.

use super::keys::{
    LEDGER_ID, adoption_key, index_key, ledger_id_value, mark_key, mark_value, moved_key, record_key,
    stream_key, stream_value,
};
use super::{Ledger, Stream};
use crate::messaging::page::Content;
use crate::messaging::receiver::Mark;
use crate::messaging::{Epoch, LedgerId, SiteName};
use crate::server::record::{Command, Record};
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use std::collections::BTreeMap;

/// What a copy holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub events: u64,
    pub pages: u64,
    pub holes: u64,
    pub commands: u64,
    pub streams: u64,
    /// Positions whose record is missing, or cannot be read and was copied as it is.
    pub damaged: u64,
    /// Positions that were lost at an earlier time, as the ledger says itself.
    pub truncated: u64,
}

impl Ledger {
    /// The records from position `from` to `through` as they are stored, the first of them and then as many as stay within
    /// `bytes`. Empty ones stand where there is none, or none that can be read.
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

/// A copy in the making, in an empty store.
pub struct Copy<'a> {
    store: &'a Store,
    /// What the numbers of streams in the records mean.
    streams: Vec<(SiteName, Epoch)>,
    marks: BTreeMap<u32, Mark>,
    /// At which positions streams began, and at which they were told to move and have not yet.
    began: BTreeMap<u32, u64>,
    told_to_move: BTreeMap<u32, u64>,
    /// Of each stream the hole whose page has not come: its first and last sequence, and its position.
    open_holes: BTreeMap<u32, (u64, u64, u64)>,
    batch: Batch,
    position: u64,
    /// So many positions in a row, up to the last one, have no record.
    missing: u64,
    counts: Counts,
}

impl<'a> Copy<'a> {
    pub fn begin(
        store: &'a Store,
        ledger: LedgerId,
        streams: Vec<(SiteName, Epoch)>,
    ) -> Result<Copy<'a>, StoreError> {
        store.put(LEDGER_ID, &ledger_id_value(ledger))?;
        Ok(Copy {
            store,
            streams,
            marks: BTreeMap::new(),
            began: BTreeMap::new(),
            told_to_move: BTreeMap::new(),
            open_holes: BTreeMap::new(),
            batch: Batch::default(),
            position: 0,
            missing: 0,
            counts: Counts::default(),
        })
    }

    /// The position of the last record that was added.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Adds the record of the next position, an empty one where there is none. A damaged one is copied as it is, and counted:
    /// the rest is worth a backup, now more than ever. What it was, the index of the copy does not know.
    pub fn add(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        let position = self.position + 1;
        let damaged =
            |reason: String| StoreError::Damaged { place: format!("ledger position {position}"), reason };
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
            Some(record) => self.follow(position, record).map_err(damaged)?,
        }
        self.batch.put(record_key(position), bytes);
        self.missing = 0;
        self.position = position;
        Ok(())
    }

    /// Derives what follows from a record.
    fn follow(&mut self, position: u64, record: Record) -> Result<(), String> {
        match record {
            Record::Page { stream, page, .. } => {
                let opened = page.read().map_err(|error| error.to_string())?;
                let Content::Records(records) = &opened.content else {
                    return Err("a page of it tells of a loss".into());
                };
                self.counts.pages += 1;
                self.counts.events += records.len() as u64;
                let mark = Mark::after(&opened, page.digest);
                if let Some((former, _)) = opened.moved_from
                    && let Some((site, _)) = self.streams.get(stream as usize)
                    && let Some(former) =
                        self.streams.iter().position(|other| *other == (site.clone(), former))
                {
                    let former = u32::try_from(former).map_err(|error| error.to_string())?;
                    // One that began before is of an earlier move.
                    let began = self.began.get(&stream).copied().unwrap_or(position);
                    if self.told_to_move.get(&former).is_some_and(|told| began > *told) {
                        self.told_to_move.remove(&former);
                        self.batch.remove(moved_key(former));
                    }
                }
                self.mark(stream, opened.first.get(), mark, position)?;
            }
            Record::MissingRange { stream, first, last, told_by, .. } => {
                self.counts.holes += 1;
                match told_by {
                    Some(_) => {
                        // The next page names the one that was lost.
                        let mark = Mark { sequence: last, digest: None };
                        self.mark(stream, first, mark, position)?;
                    }
                    None => {
                        // The page behind it moves the mark, and is in the index; it may be lost.
                        self.know(stream)?;
                        self.stand_for_itself(stream);
                        self.open_holes.insert(stream, (first, last, position));
                    }
                }
            }
            Record::Capacity { .. } => {}
            Record::Truncated { from, to, .. } => {
                // Nothing stands there by right.
                if to + 1 == position {
                    let known = self.missing.min((to + 1).saturating_sub(from));
                    self.counts.damaged -= known;
                    self.counts.truncated += known;
                }
            }
            Record::Command { command, .. } => {
                self.counts.commands += 1;
                if let Command::Adopt { garage } = command {
                    self.batch.put(adoption_key(&garage), position.to_be_bytes());
                }
            }
            Record::Moved { stream, .. } => {
                self.know(stream)?;
                self.told_to_move.insert(stream, position);
                self.batch.put(moved_key(stream), position.to_be_bytes());
                // The decision is used up.
                self.batch.remove(adoption_key(&self.streams[stream as usize].0));
            }
        }
        Ok(())
    }

    fn know(&mut self, stream: u32) -> Result<(), String> {
        if stream as usize >= self.streams.len() {
            return Err(format!("it names stream {stream}, which there is not"));
        }
        self.marks.entry(stream).or_default();
        Ok(())
    }

    fn mark(&mut self, stream: u32, first: u64, mark: Mark, position: u64) -> Result<(), String> {
        self.know(stream)?;
        if self.open_holes.get(&stream).is_some_and(|(_, last, _)| first == last + 1) {
            self.open_holes.remove(&stream);
        }
        self.stand_for_itself(stream);
        self.marks.insert(stream, mark);
        self.began.entry(stream).or_insert(position);
        self.batch.put(index_key(stream, first), position.to_be_bytes());
        Ok(())
    }

    /// A hole whose page is not there moves the mark, and is in the index: nothing else tells that its sequences are known to be
    /// missing.
    fn stand_for_itself(&mut self, stream: u32) {
        if let Some((first, last, position)) = self.open_holes.remove(&stream) {
            self.marks.insert(stream, Mark { sequence: last, digest: None });
            self.batch.put(index_key(stream, first), position.to_be_bytes());
        }
    }

    /// Writes what is left, and flushes: the copy is on disk.
    pub fn finish(mut self) -> Result<Counts, StoreError> {
        if self.missing > 0 {
            // The last position keeps its number even if nothing of it can be read: it must never mean something else.
            self.store.apply(&std::mem::take(&mut self.batch))?;
            self.batch.put(record_key(self.position), Vec::new());
        }
        for stream in self.open_holes.keys().copied().collect::<Vec<_>>() {
            if self.batch.len() + 1 > BATCH_MAX {
                self.store.apply(&std::mem::take(&mut self.batch))?;
            }
            self.stand_for_itself(stream);
        }
        // A stream is known by its place: one of which nothing can be read any more keeps its own before those that follow.
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
