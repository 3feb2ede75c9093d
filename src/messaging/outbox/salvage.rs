//! An outbox from what could be found in a damaged store.
//!
//! **Promise.** Every page that waits and can be found is in the new store, once. What was acknowledged and is known to be stays
//! delivered. Nothing is delivered under two epochs.
//! **Kept by.** Sealed pages never change, so an old copy of one is as good as the newest; of a page that was growing the copy
//! with the greatest stamp counts. Removed pages are found too: those of epochs that were delivered or moved are left out by what the
//! entries, the hint of the last acknowledgement and the [`witness`](super::witness) say; a page that the receiver has nevertheless is a
//! duplicate to it.
//! **Not promised.** That an append of several pages that was not confirmed is found whole or not at all.
//!
//! What is missing between the pages shows when the outbox is opened; see [`super::opening`].

use super::super::Epoch;
use super::super::page::{Page, SealedPage};
use super::life::{self, Entry, decode_acknowledged, entry_key, page_key, parse_page_key};
use super::witness::{ENDS_MAX, Note, Witness};
use crate::store::salvage::{Salvaged, SalvagedValue, Stamp};
use crate::store::{Batch, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// So many pages are written at once.
const WRITTEN_AT_ONCE: usize = 256;

/// Puts the outbox that was found into `new`. `witness` is the file beside the damaged store.
pub fn rebuild(witness: &Path, found: &Salvaged, new: &Store) -> Result<(), StoreError> {
    let note = Witness::read(witness);
    let lives = Lives::of(found, note.as_ref())?;
    // Whose outbox it is, where it delivers to, keys of what was delivered, and what was kept aside.
    let mut rest = Writer::of(new);
    for entry in found.range(&[1], &[u8::MAX]) {
        let SalvagedValue { key, value, .. } = entry?;
        if !matches!(key[0], b'p' | b'e') {
            rest.put(key, value)?;
        }
    }
    for (number, entry) in &lives.live {
        rest.put(entry_key(*number), entry.encode())?;
    }
    rest.finish()?;
    for (number, entry) in &lives.live {
        let pages = lives.pages_of(*number, entry, found)?;
        let mut writer = Writer::of(new);
        for page in pages {
            match page.older {
                Some(value) => writer.put(page_key(*number, page.first), value)?,
                None => {
                    let key = page_key(*number, page.first);
                    if let Some(SalvagedValue { value, .. }) = found.get(&key)? {
                        writer.put(key, value)?;
                    }
                }
            }
        }
        writer.finish()?;
    }
    Ok(())
}

/// Writes in batches.
struct Writer<'a> {
    store: &'a Store,
    batch: Batch,
}

impl Writer<'_> {
    fn of(store: &Store) -> Writer<'_> {
        Writer { store, batch: Batch::default() }
    }
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.batch.put(key, value);
        if self.batch.len() == WRITTEN_AT_ONCE {
            self.store.apply(&std::mem::take(&mut self.batch))?;
            // sled takes writes faster than a busy disk, and keeps them all in memory.
            self.store.flush()?;
        }
        Ok(())
    }
    fn finish(self) -> Result<(), StoreError> {
        if self.batch.is_empty() { Ok(()) } else { self.store.apply(&self.batch) }
    }
}

/// The epochs that were found, and what is known of them.
struct Lives<'a> {
    /// Those that were not delivered or moved.
    live: BTreeMap<u32, Entry>,
    /// The life that was delivered last, and up to where.
    hint: Option<(u32, u64)>,
    note: Option<&'a Note>,
    newest: Option<u32>,
    /// The note is the last one that was written.
    note_is_exact: bool,
}

/// A page that was found, without its content.
struct PageFound {
    first: u64,
    last: u64,
    stamp: Stamp,
    /// The value of an older copy, when the newest does not count.
    older: Option<Vec<u8>>,
}

impl<'a> Lives<'a> {
    fn of(found: &Salvaged, note: Option<&'a Note>) -> Result<Lives<'a>, StoreError> {
        let mut entries: BTreeMap<u32, Entry> = BTreeMap::new();
        for entry in found.range(b"e", b"f") {
            let SalvagedValue { key, value, .. } = entry?;
            let number = key.get(1..).and_then(|number| Some(u32::from_be_bytes(number.try_into().ok()?)));
            if let (Some(number), Some(entry)) = (number, Entry::decode(&value)) {
                entries.insert(number, entry);
            }
        }
        let hint = found.get(life::ACKNOWLEDGED)?.and_then(|hint| decode_acknowledged(&hint.value));
        let note_is_exact = found.is_of_this_boot() && note.is_some();
        // Pages name their epoch, should its entry be lost.
        for (number, epoch) in epochs_in_pages(found)? {
            let entry = Entry { epoch, rank: u64::from(number), takes_over: None, took_over: None };
            let known = hint.is_none_or(|(delivering, _)| number >= delivering)
                || note.is_some_and(|note| note.next_of(epoch).is_some());
            if known {
                entries.entry(number).or_insert(entry);
            }
        }
        let delivering = hint.and_then(|(number, _)| Some((entries.get(&number)?.rank, number)));
        let took_over: BTreeSet<u32> = entries.values().filter_map(|entry| entry.took_over).collect();
        let mut live = entries;
        live.retain(|number, entry| {
            let delivered = delivering.is_some_and(|front| (entry.rank, *number) < front);
            let is_noted = note.is_none_or(|note| {
                !note_is_exact || note.ends.len() >= ENDS_MAX || note.next_of(entry.epoch).is_some()
            });
            // The note forgets an epoch that is moved before the last of it is moved on the disk.
            !took_over.contains(number) && !delivered && (is_noted || entry.takes_over.is_some())
        });
        let newest = live.iter().max_by_key(|(number, entry)| (entry.rank, **number));
        let newest = newest.map(|(number, _)| *number);
        Ok(Lives { live, hint, note, newest, note_is_exact })
    }

    /// The highest sequence of a life that is known to be acknowledged.
    fn acknowledged(&self, number: u32, epoch: Epoch) -> u64 {
        let hinted = self.hint.filter(|(its, _)| *its == number).map_or(0, |(_, through)| through);
        hinted.max(self.note.map_or(0, |note| note.acknowledged_of(epoch)))
    }

    /// The pages of a life that are to be in the new store, in order.
    fn pages_of(&self, number: u32, entry: &Entry, found: &Salvaged) -> Result<Vec<PageFound>, StoreError> {
        let mut pages = read_pages(number, entry.epoch, found)?;
        resolve_overlaps(number, entry.epoch, &mut pages, found)?;
        if let Some(moved_through) = self.moved_through(number, found)? {
            pages.retain(|page| page.last > moved_through);
        }
        let acknowledged = self.acknowledged(number, entry.epoch);
        let newest = pages.last().map(|page| page.first).filter(|_| self.newest == Some(number));
        // The newest page remembers the next sequence.
        pages.retain(|page| page.last > acknowledged || Some(page.first) == newest);
        if self.note_is_exact
            && let Some(next) = self.note.and_then(|note| note.next_of(entry.epoch))
        {
            // Nothing from there on was confirmed: what is not complete is none of ours.
            let mut due = next;
            pages.retain(|page| {
                let joins = page.first < next || page.first == due;
                due = if joins { due.max(page.last + 1) } else { due };
                joins
            });
        }
        Ok(pages)
    }

    /// Up to where the messages of a life stand in another one that takes over; they have the same order there.
    fn moved_through(&self, number: u32, found: &Salvaged) -> Result<Option<u64>, StoreError> {
        let mover = self.live.iter().find_map(|(to, entry)| {
            let (from, first) = entry.takes_over?;
            (from == number).then_some((*to, entry.epoch, first))
        });
        let Some((to, epoch, first)) = mover else { return Ok(None) };
        let last = read_pages(to, epoch, found)?.last().map_or(0, |page| page.last);
        let noted = self.note.and_then(|note| note.next_of(epoch)).map_or(0, |next| next - 1);
        let arrived = last.max(noted).max(self.acknowledged(to, epoch));
        Ok(Some((first - 1).saturating_add(arrived)))
    }
}

/// The lives that pages were found of, and their epochs.
fn epochs_in_pages(found: &Salvaged) -> Result<BTreeMap<u32, Epoch>, StoreError> {
    let mut epochs = BTreeMap::new();
    let mut from = b"p".to_vec();
    while let Some(first) = found.range(&from, b"q").next() {
        let Some((number, _)) = parse_page_key(&first?.key) else { break };
        for entry in found.range(&page_key(number, 0), &page_key(number, u64::MAX)) {
            if let Some(page) = open(&entry?.value) {
                epochs.insert(number, page.epoch);
                break;
            }
        }
        let Some(next) = number.checked_add(1) else { break };
        from = page_key(next, 0);
    }
    Ok(epochs)
}

fn read_pages(number: u32, epoch: Epoch, found: &Salvaged) -> Result<Vec<PageFound>, StoreError> {
    let mut pages = Vec::new();
    for entry in found.range(&page_key(number, 0), &page_key(number, u64::MAX)) {
        let SalvagedValue { key, value, stamp } = entry?;
        if let (Some((_, first)), Some(page)) = (parse_page_key(&key), open(&value))
            && page.first.get() == first
            && page.epoch == epoch
        {
            pages.push(PageFound { first, last: page.last(), stamp, older: None });
        }
    }
    Ok(pages)
}

/// Two pages claim the same sequences when a crash undid a write that was under way, and other events got the sequences: the
/// page that was written later counts, and of the other one an older copy that ends before it.
fn resolve_overlaps(
    number: u32,
    epoch: Epoch,
    pages: &mut Vec<PageFound>,
    found: &Salvaged,
) -> Result<(), StoreError> {
    let mut kept: Vec<PageFound> = Vec::with_capacity(pages.len());
    let mut undone: Vec<PageFound> = Vec::new();
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
    let keys: Vec<Vec<u8>> = undone.iter().map(|page| page_key(number, page.first)).collect();
    let mut versions = found.versions(&keys)?;
    versions.sort_by_key(|version| std::cmp::Reverse(version.stamp));
    for SalvagedValue { value, stamp, .. } in versions {
        let Some(page) = open(&value).filter(|page| page.epoch == epoch) else { continue };
        let (first, last) = (page.first.get(), page.last());
        let place = pages.partition_point(|other| other.first < first);
        let free_before = place == 0 || pages[place - 1].last < first;
        if free_before && pages.get(place).is_none_or(|next| last < next.first) {
            pages.insert(place, PageFound { first, last, stamp, older: Some(value) });
        }
    }
    Ok(())
}

fn open(value: &[u8]) -> Option<Page> {
    SealedPage::from_stored(value).and_then(|sealed| sealed.open()).ok()
}
