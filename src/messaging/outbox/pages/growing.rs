//! The page that grows, and the group of appends that is written into it.

use super::super::Appended;
use super::super::life::page_key;
use super::{Pages, Post};
use crate::messaging::page::{self, Content, Page, Record, SealedPage};
use crate::messaging::{ClockReading, Digest, Epoch, Sequence};
use crate::store::{Batch, StoreError};

/// How far a wall clock may drift from a monotonic one within a page. When it was set by more, a new page begins.
const WALL_DRIFT_MS: u64 = 1000;

#[derive(Clone)]
pub(super) struct Growing {
    pub(super) page: Page,
    /// At most the length of its encoding.
    pub(super) len_max: usize,
    /// The length of what is stored, 0 while it is not.
    pub(super) stored_len: usize,
    /// Whether it holds more than what is stored.
    pub(super) grew: bool,
}

/// A page to be written.
struct Writing {
    key: Vec<u8>,
    stored: Vec<u8>,
    first: u64,
}

impl Growing {
    pub(super) fn begin(epoch: Epoch, first: u64, previous: Option<Digest>, begun: ClockReading) -> Growing {
        Growing {
            page: Page {
                epoch,
                first: Sequence::new(first).expect("sequences begin at 1"),
                previous,
                moved_from: None,
                begun,
                content: Content::Records(Vec::new()),
            },
            len_max: Page::HEADER_MAX,
            stored_len: 0,
            grew: false,
        }
    }
    pub(super) fn records(&mut self) -> &mut Vec<Record> {
        match &mut self.page.content {
            Content::Records(records) => records,
            Content::Lost { .. } => unreachable!("a growing page was begun with records"),
        }
    }
    /// Whether the record still fits, taken at `at`; the first always does.
    pub(super) fn fits(&self, record: &Record, at: &ClockReading) -> bool {
        if self.page.begun.wall_was_set_by(at).unsigned_abs() > WALL_DRIFT_MS {
            return false; // the times in a page follow from when it was begun
        }
        let held = match &self.page.content {
            Content::Records(records) => records.len(),
            Content::Lost { .. } => page::RECORDS_MAX,
        };
        held < page::RECORDS_MAX && self.len_max + record.encoded_len_max() <= page::BYTES_MAX
    }
    pub(super) fn push(&mut self, mut record: Record, at: &ClockReading) {
        let after = at.monotonic_ms.saturating_sub(self.page.begun.monotonic_ms);
        record.after_ms = u32::try_from(after).unwrap_or(u32::MAX);
        self.len_max += record.encoded_len_max();
        self.records().push(record);
        self.grew = true;
    }

    /// Queues the page for writing when it holds more than what is stored. Returns its digest.
    fn write_out(&mut self, life: u32, writing: &mut Vec<Writing>, bytes_added: &mut u64) -> Option<Digest> {
        let sealed = SealedPage::seal(&self.page);
        // A page that only made room for the next one is stored as it is.
        if std::mem::take(&mut self.grew) {
            let stored = sealed.to_stored();
            *bytes_added += stored.len() as u64 - self.stored_len as u64;
            self.stored_len = stored.len();
            let first = self.page.first.get();
            writing.push(Writing { key: page_key(life, first), stored, first });
        }
        Some(sealed.digest)
    }
}

impl Pages {
    /// Writes a group of posts and flushes once. Called by the committer only.
    ///
    /// On `Ok` all of the group is on disk. On `Err` the store is poisoned.
    pub(in crate::messaging::outbox) fn commit(&self, group: &[Post]) -> Result<Vec<Appended>, StoreError> {
        let (mut current, mut next, mut newest_digest, epoch, life) = {
            let mut state = self.state();
            let growing = state.growing.take();
            let newest = state.newest();
            let (next, digest, epoch, life) =
                (newest.next, newest.newest_digest, newest.epoch, newest.number);
            state.writing_from = Some(growing.as_ref().map_or(next, |growing| growing.page.first.get()));
            (growing, next, digest, epoch, life)
        };
        let mut writing: Vec<Writing> = Vec::new();
        let mut bytes_added = 0;
        let mut places = Vec::with_capacity(group.len());
        // An append whose messages stand in several pages must survive whole or not at all. Appends within one page do
        // by themselves, and writing pages one by one saves a sync: a batch costs two in sled.
        let mut needs_batch = false;
        for Post { records, at } in group {
            let first = next;
            let mut pages = 0;
            for record in records {
                let page = match &mut current {
                    Some(page) if page.fits(record, at) => page,
                    _ => {
                        if let Some(mut full) = current.take() {
                            newest_digest = full.write_out(life, &mut writing, &mut bytes_added);
                            pages += usize::from(full.page.last() >= first);
                        }
                        current.insert(Growing::begin(epoch, next, newest_digest, *at))
                    }
                };
                page.push(record.clone(), at);
                next += 1;
            }
            needs_batch |= pages > 0;
            places.push(Appended {
                epoch,
                first: Sequence::new(first).expect("sequences begin at 1"),
                last: Sequence::new(next - 1).expect("an append holds a message"),
                repeated: false,
            });
        }
        let mut newest = current.expect("a group holds a message");
        newest_digest = newest.write_out(life, &mut writing, &mut bytes_added);
        let first_written = writing.first().map_or(next, |page| page.first);
        if needs_batch {
            let mut batch = Batch::default();
            for page in writing {
                batch.put(page.key, page.stored);
            }
            self.store.apply(&batch)?;
        } else {
            for page in &writing {
                self.store.put(&page.key, &page.stored)?;
            }
        }
        self.store.flush()?;
        {
            let mut keys = self.keys();
            for (post, place) in group.iter().zip(&places) {
                if let Some(key) = post.records.first().and_then(|record| record.key.as_ref()) {
                    keys.waits(key, life, place.first.get());
                }
            }
        }
        {
            let mut state = self.state();
            let newest_first = newest.page.first.get();
            let life = state.newest_mut();
            life.next = next;
            life.bytes += bytes_added;
            life.newest_digest = newest_digest;
            life.oldest_first.get_or_insert(first_written);
            life.newest_first = Some(newest_first);
            state.writing_from = None;
            state.growing = (!std::mem::take(&mut state.seal_wanted)).then_some(newest);
        }
        self.note();
        Ok(places)
    }
}
