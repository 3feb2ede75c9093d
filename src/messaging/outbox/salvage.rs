//! Rebuilds an outbox from what could be found in a damaged store.
//!
//! **Promise.** Every page that waits and can be found is in the new store, once. Messages that are known to be acknowledged stay
//! acknowledged. Nothing is delivered under two epochs.
//! **Kept by.** Sealed pages never change, so an old copy of one is as good as the newest; of a page that was growing the copy
//! with the greatest stamp counts. Removed pages are found too: those of epochs that were delivered or moved are left out by what the
//! records of epochs, the hint of the last acknowledgement and the [high-water mark](super::high_water) say; a page that the receiver has nevertheless is a
//! duplicate to it.
//! **Not promised.** That an append of several pages that was not confirmed is found whole or not at all.
//!
//! What is missing between the pages shows when the outbox is opened; see [`super::opening`].

use super::super::Epoch;
use super::super::page::{PageView, SealedPage};
use super::high_water::{ENDS_MAX, OutboxHighWater};
use super::layout::{
    self, EpochIndex, EpochRecord, decode_acknowledged, epoch_key, page_key, page_keys, parse_epoch_key,
    parse_page_key,
};
use crate::store::salvage::{Salvaged, SalvagedValue, Stamp};
use crate::store::{Store, StoreError, high_water};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Writes the outbox that was found into `new`. `high_water_file` is the file beside the damaged store.
pub fn rebuild(high_water_file: &Path, found: &Salvaged, new: &Store) -> Result<(), StoreError> {
    let mark: Option<OutboxHighWater> = high_water::read(high_water_file).ok().flatten();
    let epochs = FoundEpochs::of(found, mark.as_ref())?;
    // Whose outbox it is, where it delivers to, keys of what was delivered, and what was kept aside.
    let rest = found
        .entries(&[1], &[u8::MAX])
        .filter(|entry| !matches!(entry, Ok((key, _)) if matches!(key[0], b'p' | b'e')));
    new.put_all(rest)?;
    new.put_all(epochs.live.iter().map(|(index, record)| Ok((epoch_key(*index), record.encode()))))?;
    for (index, record) in &epochs.live {
        let pages = epochs.pages_of(*index, record, found)?.into_iter();
        new.put_all(pages.filter_map(|page| {
            let key = page_key(*index, page.first);
            let value = match page.older {
                Some(value) => Ok(Some(value)),
                None => found.get(&key).map(|newest| newest.map(|newest| newest.value)),
            };
            value.transpose().map(|value| Ok((key, value?)))
        }))?;
    }
    Ok(())
}

struct FoundEpochs<'a> {
    /// The epochs that were not delivered or moved.
    live: BTreeMap<EpochIndex, EpochRecord>,
    /// The epoch that was delivered last, and up to where.
    hint: Option<(EpochIndex, u64)>,
    mark: Option<&'a OutboxHighWater>,
    newest: Option<EpochIndex>,
    mark_is_exact: bool,
}

struct SalvagedPage {
    first: u64,
    last: u64,
    stamp: Stamp,
    /// The value of an older copy, when the newest does not count.
    older: Option<Vec<u8>>,
}

impl<'a> FoundEpochs<'a> {
    fn of(found: &Salvaged, mark: Option<&'a OutboxHighWater>) -> Result<FoundEpochs<'a>, StoreError> {
        let mut records: BTreeMap<EpochIndex, EpochRecord> = BTreeMap::new();
        for entry in found.range(b"e", b"f") {
            let SalvagedValue { key, value, .. } = entry?;
            if let (Some(index), Some(record)) = (parse_epoch_key(&key), EpochRecord::decode(&value)) {
                records.insert(index, record);
            }
        }
        let hint = found.get(layout::ACKNOWLEDGED)?.and_then(|hint| decode_acknowledged(&hint.value));
        let mark_is_exact = found.is_of_this_boot() && mark.is_some();
        // Pages name their epoch, should its record be lost.
        for (index, epoch) in epochs_in_pages(found)? {
            let is_known = hint.is_none_or(|(delivering, _)| index >= delivering)
                || mark.is_some_and(|mark| mark.next_of(epoch).is_some());
            if is_known {
                records.entry(index).or_insert(EpochRecord::new(epoch, u64::from(index)));
            }
        }
        let delivering = hint.and_then(|(index, _)| Some((records.get(&index)?.rank, index)));
        let took_over: BTreeSet<EpochIndex> =
            records.values().filter_map(|record| record.took_over).collect();
        let mut live = records;
        live.retain(|index, record| {
            let is_delivered = delivering.is_some_and(|front| (record.rank, *index) < front);
            let is_marked = mark.is_none_or(|mark| {
                !mark_is_exact || mark.ends.len() >= ENDS_MAX || mark.next_of(record.epoch).is_some()
            });
            // The mark forgets an epoch that is moved before the last of it is moved on the disk.
            !took_over.contains(index) && !is_delivered && (is_marked || record.takes_over.is_some())
        });
        let newest = live.iter().max_by_key(|(index, record)| (record.rank, **index));
        let newest = newest.map(|(index, _)| *index);
        Ok(FoundEpochs { live, hint, mark, newest, mark_is_exact })
    }

    fn acknowledged(&self, index: EpochIndex, epoch: Epoch) -> u64 {
        let hinted = self.hint.filter(|(of, _)| *of == index).map_or(0, |(_, through)| through);
        hinted.max(self.mark.map_or(0, |mark| mark.acknowledged_of(epoch)))
    }

    /// The pages of an epoch that are to be in the new store, in order.
    fn pages_of(
        &self,
        index: EpochIndex,
        record: &EpochRecord,
        found: &Salvaged,
    ) -> Result<Vec<SalvagedPage>, StoreError> {
        let mut pages = read_pages(index, record.epoch, found)?;
        resolve_overlaps(index, record.epoch, &mut pages, found)?;
        if let Some(moved_through) = self.moved_through(index, found)? {
            pages.retain(|page| page.last > moved_through);
        }
        let acknowledged = self.acknowledged(index, record.epoch);
        let newest = pages.last().map(|page| page.first).filter(|_| self.newest == Some(index));
        // The newest page remembers the next sequence.
        pages.retain(|page| page.last > acknowledged || Some(page.first) == newest);
        if self.mark_is_exact
            && let Some(next) = self.mark.and_then(|mark| mark.next_of(record.epoch))
        {
            // Nothing from there on was confirmed: what is not complete does not count.
            let mut due = next;
            pages.retain(|page| {
                let joins = page.first < next || page.first == due;
                due = if joins { due.max(page.last + 1) } else { due };
                joins
            });
        }
        Ok(pages)
    }

    /// The sequence up to which the messages of an epoch are in another epoch that takes over; they have the same order there.
    fn moved_through(&self, index: EpochIndex, found: &Salvaged) -> Result<Option<u64>, StoreError> {
        let mover = self.live.iter().find_map(|(to, record)| {
            let (from, first) = record.takes_over?;
            (from == index).then_some((*to, record.epoch, first))
        });
        let Some((to, epoch, first)) = mover else { return Ok(None) };
        let last = read_pages(to, epoch, found)?.last().map_or(0, |page| page.last);
        let marked = self.mark.and_then(|mark| mark.next_of(epoch)).map_or(0, |next| next - 1);
        let arrived = last.max(marked).max(self.acknowledged(to, epoch));
        Ok(Some((first - 1).saturating_add(arrived)))
    }
}

fn epochs_in_pages(found: &Salvaged) -> Result<BTreeMap<EpochIndex, Epoch>, StoreError> {
    let mut epochs = BTreeMap::new();
    let mut from = b"p".to_vec();
    while let Some(first) = found.range(&from, b"q").next() {
        let Some((index, _)) = parse_page_key(&first?.key) else { break };
        let (begin, end) = page_keys(index);
        for entry in found.range(&begin, &end) {
            if let Some(page) = open(&entry?.value) {
                epochs.insert(index, page.epoch);
                break;
            }
        }
        let Some(next) = index.checked_add(1) else { break };
        from = page_key(next, 0);
    }
    Ok(epochs)
}

fn read_pages(index: EpochIndex, epoch: Epoch, found: &Salvaged) -> Result<Vec<SalvagedPage>, StoreError> {
    let mut pages = Vec::new();
    let (begin, end) = page_keys(index);
    for entry in found.range(&begin, &end) {
        let SalvagedValue { key, value, stamp } = entry?;
        if let (Some((_, first)), Some(page)) = (parse_page_key(&key), open(&value))
            && page.first.get() == first
            && page.epoch == epoch
        {
            pages.push(SalvagedPage { first, last: page.last(), stamp, older: None });
        }
    }
    Ok(pages)
}

/// Two pages claim the same sequences when a crash undid a write that was under way, and other events got the sequences: the page
/// that was written later counts, and the other page is replaced by an older copy of it that ends before that page.
fn resolve_overlaps(
    index: EpochIndex,
    epoch: Epoch,
    pages: &mut Vec<SalvagedPage>,
    found: &Salvaged,
) -> Result<(), StoreError> {
    let mut kept: Vec<SalvagedPage> = Vec::with_capacity(pages.len());
    let mut undone: Vec<SalvagedPage> = Vec::new();
    for page in std::mem::take(pages) {
        while let Some(before) = kept.pop_if(|before| before.last >= page.first && before.stamp < page.stamp)
        {
            undone.push(before);
        }
        if kept.last().is_none_or(|before| before.last < page.first) {
            kept.push(page);
        }
    }
    *pages = kept;
    if undone.is_empty() {
        return Ok(());
    }
    let keys: Vec<Vec<u8>> = undone.iter().map(|page| page_key(index, page.first)).collect();
    let mut versions = found.versions(&keys)?;
    versions.sort_by_key(|version| std::cmp::Reverse(version.stamp));
    for SalvagedValue { value, stamp, .. } in versions {
        let Some(page) = open(&value).filter(|page| page.epoch == epoch) else { continue };
        let (first, last) = (page.first.get(), page.last());
        let place = pages.partition_point(|other| other.first < first);
        let free_before = place == 0 || pages[place - 1].last < first;
        if free_before && pages.get(place).is_none_or(|next| last < next.first) {
            pages.insert(place, SalvagedPage { first, last, stamp, older: Some(value) });
        }
    }
    Ok(())
}

fn open(value: &[u8]) -> Option<PageView<'_>> {
    SealedPage::open_stored(value).ok().map(|(_, page)| page)
}
