//! Reading the ledger: by position, by garage, by (garage, epoch, sequence).

use super::record::{index_key, record_key, trailing_u64};
use super::{Ledger, Record, Stream, Streams, damaged};
use crate::messaging::page::Page;
use crate::messaging::receiver::Mark;
use crate::messaging::{Digest, Epoch, SiteName};
use crate::store::StoreError;
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

/// A page at its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAt {
    pub position: u64,
    pub site: SiteName,
    pub received_at_ms: i64,
    pub page: Page,
}

impl Ledger {
    /// All records from `from` up to the last position on disk when this was called.
    pub fn records(&self, from: u64) -> impl Iterator<Item = Result<(u64, Record), StoreError>> + '_ {
        let end = record_key(self.position() + 1);
        self.store.range(&record_key(from), &end).map(|entry| {
            let (key, value) = entry?;
            let position = trailing_u64(&key)?;
            Ok((position, Record::decode(position, &value)?))
        })
    }

    /// The site and epoch of a stream that a record names.
    pub fn stream(&self, number: u32) -> Result<Stream, StoreError> {
        let streams = self.read_streams();
        let stream = streams.all.get(number as usize);
        stream.cloned().ok_or_else(|| damaged("the number of a stream"))
    }

    /// The pages of all garages from position `from` on, oldest first, until `enough` says so.
    pub fn pages(
        &self,
        from: u64,
        mut enough: impl FnMut(&PageAt) -> bool,
    ) -> Result<Vec<PageAt>, StoreError> {
        let mut found = Vec::new();
        for entry in self.records(from) {
            let (position, record) = entry?;
            if let Some(page) = self.page_of(position, record)? {
                let done = enough(&page);
                found.push(page);
                if done {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// The pages of one garage, over all its epochs, from position `from` on, until `enough` says so. It does not read
    /// those of other garages.
    pub fn pages_of(
        &self,
        site: &SiteName,
        from: u64,
        mut enough: impl FnMut(&PageAt) -> bool,
    ) -> Result<Vec<PageAt>, StoreError> {
        let numbers = match self.read_streams().by_site.get(site) {
            Some(numbers) => numbers.clone(),
            None => return Ok(Vec::new()),
        };
        let end = self.position();
        let mut streams = Vec::new();
        for number in numbers {
            let first = self.first_sequence_from(number, from)?;
            let from_key = index_key(number, first);
            let positions = self.store.range(&from_key, &index_key(number, u64::MAX));
            let positions = positions.map(|entry| trailing_u64(&entry?.1));
            streams.push(positions.peekable());
        }
        let mut found = Vec::new();
        loop {
            // Few streams: an outbox begins an epoch once in its life.
            let mut next: Option<(usize, u64)> = None;
            for (index, positions) in streams.iter_mut().enumerate() {
                let position = match positions.peek() {
                    None => continue,
                    Some(Ok(position)) => *position,
                    Some(Err(_)) => return positions.next().expect("it was peeked").map(|_| found),
                };
                if position <= end && next.is_none_or(|(_, least)| position < least) {
                    next = Some((index, position));
                }
            }
            let Some((index, position)) = next else {
                return Ok(found);
            };
            streams[index].next();
            if let Some(record) = self.record_at(position)?
                && let Some(page) = self.page_of(position, record)?
            {
                let done = enough(&page);
                found.push(page);
                if done {
                    return Ok(found);
                }
            }
        }
    }

    /// The digest of the page that begins with `first` in a stream.
    pub(super) fn digest_at(&self, stream: u32, first: u64) -> Result<Option<Digest>, StoreError> {
        let Some(position) = self.store.get(&index_key(stream, first))? else {
            return Ok(None);
        };
        let record = self.record_at(trailing_u64(&position)?)?;
        Ok(match record {
            Some(Record::Page { page, .. }) => Some(page.digest),
            Some(Record::Hole { told_by, .. }) => told_by,
            _ => None,
        })
    }

    pub(super) fn stream_number(&self, site: &SiteName, epoch: Epoch) -> Option<u32> {
        let streams = self.read_streams();
        streams.numbers.get(&(site.clone(), epoch)).copied()
    }

    pub(super) fn mark(&self, stream: u32) -> Mark {
        self.read_streams().all[stream as usize].mark
    }

    pub(super) fn read_streams(&self) -> RwLockReadGuard<'_, Streams> {
        let streams = self.shared.streams.read();
        streams.expect("no thread panics while it changes the streams")
    }

    pub(super) fn write_streams(&self) -> RwLockWriteGuard<'_, Streams> {
        let streams = self.shared.streams.write();
        streams.expect("no thread panics while it changes the streams")
    }

    fn record_at(&self, position: u64) -> Result<Option<Record>, StoreError> {
        let value = self.store.get(&record_key(position))?;
        value.map(|value| Record::decode(position, &value)).transpose()
    }

    fn page_of(&self, position: u64, record: Record) -> Result<Option<PageAt>, StoreError> {
        let Record::Page { stream, received_at_ms, page } = record else {
            return Ok(None);
        };
        let page = page.open().map_err(|error| StoreError::Damaged {
            place: format!("ledger position {position}"),
            reason: error.to_string(),
        })?;
        Ok(Some(PageAt { position, site: self.stream(stream)?.site, received_at_ms, page }))
    }

    /// The first sequence of the first page of a stream that stands at position `from` or later. Positions rise with
    /// sequences within a stream, so that halving finds it.
    fn first_sequence_from(&self, stream: u32, from: u64) -> Result<u64, StoreError> {
        let start = index_key(stream, 0);
        let (mut low, mut high) = (0, self.mark(stream).sequence + 1);
        // Every page that begins at or before `low` stands before `from`; none that begins after `high` does.
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            let page = self.store.last(&start, &index_key(stream, middle + 1))?;
            match page {
                Some((_, position)) if trailing_u64(&position)? >= from => high = middle,
                _ => low = middle,
            }
        }
        Ok(low + 1)
    }
}
