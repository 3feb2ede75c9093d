//! The log below the ledger, as a narrow trait. [`Store`] is the log of every server: sled is behind it.
//!
//! The ledger judges what is appended, and derives streams, marks and index from the records ([`super::streams`]); a log makes that
//! durable and gives it back. A replicated log will implement this trait around a local one: `append` sends the batch to the
//! followers too, and `flush` returns once enough of them have it on disk. Opening, checks, copies and salvages are about
//! what one disk holds, and use the store itself.

use super::damaged;
use super::keys::{decode_mark, index_key, index_place, mark_key, record_key, trailing_u64};
use crate::messaging::receiver::Mark;
use crate::store::{Batch, Store, StoreError};
use std::ops::RangeInclusive;

/// Positions in ascending order, each with its value.
pub type LogEntries<'a> = Box<dyn Iterator<Item = Result<(u64, Vec<u8>), StoreError>> + 'a>;

/// Pages of a stream in ascending order: the first sequence and the position of each.
pub type IndexEntries<'a> = Box<dyn Iterator<Item = Result<(u64, u64), StoreError>> + 'a>;

/// Values at positions 1, 2, 3, … that never change, and what follows from them. One thread appends; any thread reads.
///
/// [`StoreError::Damaged`] says that something is there and cannot be read; any other error says that the disk failed.
pub trait Log: Send + Sync + 'static {
    /// Appends records with the entries of streams, marks and index that follow from them, under the keys of [`super::keys`]. The
    /// batch survives a crash whole or not at all, and no batch survives without those before it.
    fn append(&self, batch: &Batch) -> Result<(), StoreError>;
    /// Returns once everything that was appended is on disk. After an error nothing more can be appended.
    fn flush(&self) -> Result<(), StoreError>;
    /// The last position that has a value, 0 for none.
    fn tail(&self) -> Result<u64, StoreError>;
    fn read(&self, position: u64) -> Result<Option<Vec<u8>>, StoreError>;
    fn read_range(&self, positions: RangeInclusive<u64>) -> LogEntries<'_>;
    /// The mark of a stream; `None` before its first page.
    fn mark(&self, stream: u32) -> Result<Option<Mark>, StoreError>;
    /// The last page of a stream that begins at `sequence` or before it: its first sequence and its position.
    fn page_before(&self, stream: u32, sequence: u64) -> Result<Option<(u64, u64)>, StoreError>;
    /// The pages of a stream that begin at `sequence` or after it.
    fn pages_from(&self, stream: u32, sequence: u64) -> IndexEntries<'_>;
}

impl Log for Store {
    fn append(&self, batch: &Batch) -> Result<(), StoreError> {
        self.apply(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        Store::flush(self)
    }

    fn tail(&self) -> Result<u64, StoreError> {
        self.last(b"r", b"s")?.map_or(Ok(0), |(key, _)| trailing_u64(&key))
    }

    fn read(&self, position: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(&record_key(position))
    }

    fn read_range(&self, positions: RangeInclusive<u64>) -> LogEntries<'_> {
        let entries =
            self.range(&record_key(*positions.start()), &record_key(positions.end().saturating_add(1)));
        Box::new(entries.map(|entry| entry.and_then(|(key, value)| Ok((trailing_u64(&key)?, value)))))
    }

    fn mark(&self, stream: u32) -> Result<Option<Mark>, StoreError> {
        self.get(&mark_key(stream))?.map(|mark| Ok(decode_mark(&mark)?.0)).transpose()
    }

    fn page_before(&self, stream: u32, sequence: u64) -> Result<Option<(u64, u64)>, StoreError> {
        self.last(&index_key(stream, 0), &index_key(stream, sequence.saturating_add(1)))?
            .map(index_entry)
            .transpose()
    }

    fn pages_from(&self, stream: u32, sequence: u64) -> IndexEntries<'_> {
        let entries = self.range(&index_key(stream, sequence), &index_key(stream, u64::MAX));
        Box::new(entries.map(|entry| entry.and_then(index_entry)))
    }
}

fn index_entry((key, position): (Vec<u8>, Vec<u8>)) -> Result<(u64, u64), StoreError> {
    let (_, first) = index_place(&key).ok_or_else(|| damaged("a key of the index"))?;
    Ok((first, trailing_u64(&position)?))
}
