//! Reads the ledger by position, by garage, and by (garage, epoch, sequence).

use super::walk::RecordOrDamage;
use super::{Ledger, Stream, Streams, damaged};
use crate::codes;
use crate::messaging::page::Page;
use crate::messaging::{Digest, Epoch, SiteName};
use crate::server::record::{Record, StreamId};
use crate::store::StoreError;
use std::collections::BTreeMap;
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

/// Pages in order, and what could not be read between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerPages {
    pub pages: Vec<PageAt>,
    /// First and last position of each unreadable stretch, and the reason. At most a hundred.
    pub damaged: Vec<(u64, u64, String)>,
    /// Continue after this position, because an answer reads a limited number of records.
    pub go_on_after: Option<u64>,
}

/// Maximum number of records that one answer looks at: any number of commands, such as a registry, may stand between two pages.
const LOOK_AT: usize = 20_000;

/// First and last position of what was found, and the page there if it is one, or why it cannot be read.
type Found = (u64, u64, Result<Option<PageAt>, String>);

impl LedgerPages {
    const DAMAGED_MAX: usize = 100;

    /// Takes what is found until `enough` returns true, or [`LOOK_AT`] records are read.
    fn take(
        found: impl Iterator<Item = Result<Found, StoreError>>,
        mut enough: impl FnMut(&PageAt) -> bool,
    ) -> Result<LedgerPages, StoreError> {
        let mut pages = LedgerPages::default();
        for (looked_at, found) in found.enumerate() {
            let (from, position, page) = found?;
            match page {
                Ok(None) => {}
                Ok(Some(page)) => {
                    let done = enough(&page);
                    pages.pages.push(page);
                    if done {
                        return Ok(pages);
                    }
                }
                Err(reason) => pages.add_damaged(from, position, reason),
            }
            if looked_at == LOOK_AT {
                pages.go_on_after = Some(position);
                break;
            }
        }
        Ok(pages)
    }

    fn add_damaged(&mut self, from: u64, to: u64, reason: String) {
        if let Some((_, last, its)) = self.damaged.last_mut()
            && (*last + 1, &*its) == (from, &reason)
        {
            *last = to;
        } else if self.damaged.len() < Self::DAMAGED_MAX {
            self.damaged.push((from, to, reason));
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAt {
    pub position: u64,
    pub site: SiteName,
    pub received_at_ms: i64,
    pub page: Page,
}

impl Ledger {
    /// The epoch of the stream with a number that the views have.
    pub fn epoch_of(&self, number: u32) -> Result<Epoch, StoreError> {
        let stream = self.read_streams().get(number).map(|stream| stream.id.epoch);
        stream.ok_or_else(|| damaged("the number of a stream"))
    }

    /// The number of a stream, under which the views keep its events.
    pub fn number_of(&self, stream: &StreamId) -> Option<u32> {
        self.read_streams().number(stream)
    }

    pub fn numbered_streams(&self) -> Vec<StreamId> {
        self.read_streams().iter().map(|stream| stream.id.clone()).collect()
    }

    /// The streams of a garage, under all names that it had.
    pub fn streams_of(&self, sites: &[SiteName]) -> Vec<Stream> {
        let streams = self.read_streams();
        let numbers = sites.iter().flat_map(|site| streams.of_site(site));
        numbers.filter_map(|number| streams.get(number).cloned()).collect()
    }

    /// The names of at most `at_most` sites after `after`, in order.
    pub fn sites_after(&self, after: Option<&SiteName>, at_most: usize) -> Vec<SiteName> {
        self.read_streams().sites_after(after, at_most)
    }

    /// The pages of all garages from position `from` on, oldest first, until `enough` returns true.
    pub fn pages(&self, from: u64, enough: impl FnMut(&PageAt) -> bool) -> Result<LedgerPages, StoreError> {
        let found = self.records(from).map(|entry| {
            let (position, found) = entry?;
            Ok(match found {
                RecordOrDamage::Damaged { from, reason } => (from, position, Err(reason)),
                RecordOrDamage::Record(record) => (position, position, page_of(position, record)),
            })
        });
        LedgerPages::take(found, enough)
    }

    /// The pages of one garage, under all its names and in all its epochs, from position `from` on, until `enough` returns true. Pages
    /// of other garages are not read.
    pub fn pages_of(
        &self,
        sites: &[SiteName],
        from: u64,
        enough: impl FnMut(&PageAt) -> bool,
    ) -> Result<LedgerPages, StoreError> {
        let streams = self.read_streams().clone();
        let end = self.position();
        // The next position of each stream. Positions rise with sequences within a stream.
        let mut next = BTreeMap::new();
        for number in sites.iter().flat_map(|site| streams.of_site(site)) {
            let from = self.first_sequence_from(number, from)?;
            let mut positions = self.log.pages_from(number, from).map(|page| Ok::<_, StoreError>(page?.1));
            if let Some(position) = positions.next().transpose()? {
                next.insert((position, number), positions);
            }
        }
        let mut step = || -> Result<Option<Found>, StoreError> {
            let Some(((position, number), mut positions)) = next.pop_first() else { return Ok(None) };
            if position > end {
                return Ok(None);
            }
            if let Some(position) = positions.next().transpose()? {
                next.insert((position, number), positions);
            }
            let page = match self.record_at(position) {
                Ok(Some(record)) => page_of(position, record),
                Ok(None) => Err("there is no record".into()),
                Err(StoreError::Damaged { reason, .. }) => Err(reason),
                Err(error) => return Err(error),
            };
            // The index may be damaged, so the page itself says whose it is.
            let page = match page {
                Ok(Some(page)) if !sites.contains(&page.site) => {
                    Err("another garage's page stands there".into())
                }
                page => page,
            };
            Ok(Some((position, position, page)))
        };
        LedgerPages::take(std::iter::from_fn(|| step().transpose()), enough)
    }

    /// The page that was applied under this first sequence of a stream, also while the stream is just being begun.
    pub(super) fn page_beginning(&self, stream: u32, first: u64) -> Result<Option<Page>, StoreError> {
        let found = self.log.page_before(stream, first)?;
        let Some((_, position)) = found.filter(|(begins, _)| *begins == first) else { return Ok(None) };
        // What cannot be read is not known to be the same.
        Ok(self.page_at(position)?.map(|at| at.page))
    }

    /// The page at a position; `None` when the position holds something else, nothing, or nothing that can be read.
    pub fn page_at(&self, position: u64) -> Result<Option<PageAt>, StoreError> {
        let record = self.readable_at(position)?;
        Ok(record.and_then(|record| page_of(position, record).ok().flatten()))
    }

    /// The page of a site that holds a sequence of an epoch, with the number of its stream; `None` when none can be read.
    pub fn page_with(
        &self,
        site: &SiteName,
        epoch: Epoch,
        sequence: u64,
    ) -> Result<Option<(u32, PageAt)>, StoreError> {
        let stream = StreamId { site: site.clone(), epoch };
        let Some(number) = self.read_streams().meant_by(&stream) else { return Ok(None) };
        let Some((_, position)) = self.log.page_before(number, sequence)? else { return Ok(None) };
        let page = self.page_at(position)?;
        // The index may be damaged, so the page itself says what it holds.
        let page = page.filter(|PageAt { site, page, .. }| {
            let its = StreamId { site: site.clone(), epoch: page.epoch };
            self.number_of(&its) == Some(number) && (page.first.get()..=page.last()).contains(&sequence)
        });
        Ok(page.map(|page| (number, page)))
    }

    /// The digest of the page that begins with `first` in a stream. When its record cannot be read any more, returns `offered`:
    /// the page was applied, its loss is reported elsewhere, and its sender must not wait forever.
    pub(super) fn digest_at(
        &self,
        stream: u32,
        first: u64,
        offered: Digest,
    ) -> Result<Option<Digest>, StoreError> {
        // Of several pages that are lost in a row the index knows where the first began.
        let Some((begins, position)) = self.log.page_before(stream, first)? else { return Ok(None) };
        let begins_there = begins == first;
        match self.record_at(position) {
            Ok(Some(Record::Page { page, .. })) if begins_there => Ok(Some(page.digest)),
            Ok(Some(Record::MissingRange { told_by, .. })) if begins_there => Ok(told_by),
            Ok(Some(_)) => Ok(None),
            Ok(None) | Err(StoreError::Damaged { .. }) => {
                tracing::error!(
                    code = %codes::RESENT_PAGE_NOT_COMPARED,
                    position, stream, first,
                    hint = "run: server verify",
                    "a page was sent again, and the record of it can no longer be read; it is assumed to be the page that was applied"
                );
                Ok(Some(offered))
            }
            Err(error) => Err(error),
        }
    }

    /// The mark of a site's stream, 0 for none.
    pub fn mark(&self, site: &SiteName, epoch: Epoch) -> u64 {
        let streams = self.read_streams();
        let number = streams.meant_by(&StreamId { site: site.clone(), epoch });
        number.and_then(|number| streams.get(number)).map_or(0, |stream| stream.mark.sequence)
    }

    pub(super) fn read_streams(&self) -> RwLockReadGuard<'_, Streams> {
        let streams = self.shared.streams.read();
        streams.expect("no thread panics while it changes the streams")
    }

    pub(super) fn write_streams(&self) -> RwLockWriteGuard<'_, Streams> {
        let streams = self.shared.streams.write();
        streams.expect("no thread panics while it changes the streams")
    }

    pub fn record_at(&self, position: u64) -> Result<Option<Record>, StoreError> {
        let value = self.log.read(position)?;
        value.map(|value| Record::decode(position, &value)).transpose()
    }

    pub(super) fn readable_at(&self, position: u64) -> Result<Option<Record>, StoreError> {
        match self.record_at(position) {
            Err(StoreError::Damaged { .. }) => Ok(None),
            record => record,
        }
    }

    pub fn has_record(&self, position: u64) -> Result<bool, StoreError> {
        match self.log.read(position) {
            Err(StoreError::Damaged { .. }) => Ok(true),
            found => Ok(found?.is_some()),
        }
    }

    /// The first sequence of the first page of a stream that is at position `from` or later. Positions rise with
    /// sequences within a stream, so a binary search finds it.
    fn first_sequence_from(&self, stream: u32, from: u64) -> Result<u64, StoreError> {
        let mark = self.read_streams().get(stream).map_or(0, |stream| stream.mark.sequence);
        let (mut low, mut high) = (0, mark + 1);
        // Every page that begins at or before `low` is before `from`; none that begins after `high` does.
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            match self.log.page_before(stream, middle)? {
                Some((_, position)) if position >= from => high = middle,
                _ => low = middle,
            }
        }
        Ok(low + 1)
    }
}

/// The page in a record if it is one, or why it cannot be read.
fn page_of(position: u64, record: Record) -> Result<Option<PageAt>, String> {
    let Record::Page { stream, received_at_ms, page } = record else { return Ok(None) };
    let page = page.read().map_err(|error| error.to_string())?;
    Ok(Some(PageAt { position, site: stream.site, received_at_ms, page }))
}
