//! The page that grows, and the group of appends that is written into it.

use super::super::Appended;
use super::super::layout::{EpochIndex, page_key};
use super::{Pages, Post};
use crate::messaging::page::{self, Content, Message, Page, SealedPage};
use crate::messaging::{ClockReading, Digest, Epoch, Sequence};
use crate::store::{Batch, StoreError};

/// How far a wall clock may drift from a monotonic one within a page. When it was set by more, a new page begins.
const WALL_DRIFT_MS: u64 = 1000;

#[derive(Clone)]
pub(super) struct Growing {
    pub(super) page: Page,
    /// An upper bound of the length of its encoding.
    len_max: usize,
    /// The length of what is stored, 0 while nothing is.
    pub(super) stored_len: usize,
    grew: bool,
}

impl Growing {
    fn begin(epoch: Epoch, first: u64, previous: Option<Digest>, begun: ClockReading) -> Growing {
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
    /// Returns true if a message that was taken at `at` still fits; the first one always does.
    fn fits(&self, record: &Message, at: &ClockReading) -> bool {
        if self.page.begun.wall_was_set_by(at).unsigned_abs() > WALL_DRIFT_MS {
            return false; // the times in a page follow from when it was begun
        }
        let held = self.page.last() + 1 - self.page.first.get();
        held < page::RECORDS_MAX as u64 && self.len_max + record.encoded_len_max() <= page::BYTES_MAX
    }
    fn push(&mut self, mut record: Message, at: &ClockReading) {
        let after = at.monotonic_ms.saturating_sub(self.page.begun.monotonic_ms);
        record.after_ms = u32::try_from(after).unwrap_or(u32::MAX);
        self.len_max += record.encoded_len_max();
        if let Content::Records(records) = &mut self.page.content {
            records.push(record);
        }
        self.grew = true;
    }
}

/// Fills the growing page and those that follow it with a group of posts.
struct PageWriter {
    epoch: Epoch,
    epoch_index: EpochIndex,
    growing: Option<Growing>,
    next: u64,
    newest_digest: Option<Digest>,
    batch: Batch,
    bytes_added: u64,
}

impl PageWriter {
    /// Adds the messages of one post. Returns where they stand, and whether pages before the growing one hold some of them.
    fn add(&mut self, post: &Post) -> (Appended, bool) {
        let first = self.next;
        let mut fills_a_page = false;
        for record in &post.records {
            if !self.growing.as_ref().is_some_and(|page| page.fits(record, &post.at)) {
                fills_a_page |= self.write_out().is_some_and(|last| last >= first);
                self.growing = Some(Growing::begin(self.epoch, self.next, self.newest_digest, post.at));
            }
            self.growing.as_mut().expect("it was just begun").push(record.clone(), &post.at);
            self.next += 1;
        }
        let appended = Appended {
            epoch: self.epoch,
            first: Sequence::new(first).expect("sequences begin at 1"),
            last: Sequence::new(self.next - 1).expect("an append holds a message"),
            repeated: false,
        };
        (appended, fills_a_page)
    }

    /// Queues the growing page for writing when it holds more than what is stored. Returns its last sequence.
    fn write_out(&mut self) -> Option<u64> {
        let growing = self.growing.as_mut()?;
        let sealed = SealedPage::seal(&growing.page);
        self.newest_digest = Some(sealed.digest);
        // A page that only made room for the next one is stored as it is.
        if std::mem::take(&mut growing.grew) {
            let stored = sealed.to_stored();
            self.bytes_added += stored.len() as u64 - growing.stored_len as u64;
            growing.stored_len = stored.len();
            self.batch.put(page_key(self.epoch_index, growing.page.first.get()), stored);
        }
        Some(growing.page.last())
    }
}

impl Pages {
    /// Writes a group of posts and flushes once. Called by the committer only.
    ///
    /// On `Ok` all of the group is on disk. On `Err` the store is poisoned.
    pub(in crate::messaging::outbox) fn commit(&self, group: &[Post]) -> Result<Vec<Appended>, StoreError> {
        let mut writer = self.begin_writing();
        // An append whose messages are in several pages must survive whole or not at all. Appends within one page do
        // by themselves, and writing pages one by one saves a sync: a batch costs two in sled.
        let mut needs_batch = false;
        let mut places = Vec::with_capacity(group.len());
        for post in group {
            let (appended, fills_a_page) = writer.add(post);
            needs_batch |= fills_a_page;
            places.push(appended);
        }
        writer.write_out();
        if needs_batch {
            self.store.apply(&writer.batch)?;
        } else {
            for (key, page) in writer.batch.writes() {
                self.store.put(key, page.expect("pages are not removed here"))?;
            }
        }
        self.store.flush()?;
        let mut keys = self.keys();
        for (post, place) in group.iter().zip(&places) {
            if let Some(key) = post.records.first().and_then(|record| record.key.as_ref()) {
                keys.waits(key, writer.epoch_index, place.first.get());
            }
        }
        drop(keys);
        self.end_writing(writer);
        self.write_high_water();
        Ok(places)
    }

    fn begin_writing(&self) -> PageWriter {
        let mut state = self.state();
        let growing = state.growing.take();
        let newest = state.newest();
        let writer = PageWriter {
            epoch: newest.epoch,
            epoch_index: newest.index,
            next: newest.next,
            newest_digest: newest.newest_digest,
            growing,
            batch: Batch::default(),
            bytes_added: 0,
        };
        let first_written = writer.growing.as_ref().map_or(writer.next, |growing| growing.page.first.get());
        state.writing_from = Some(first_written);
        writer
    }

    /// Makes visible what was written; it is on disk.
    fn end_writing(&self, writer: PageWriter) {
        let growing = writer.growing.expect("a group holds a message");
        let mut state = self.state();
        let first_written = state.writing_from.take();
        let newest = state.newest_mut();
        newest.oldest_first = newest.oldest_first.or(first_written);
        newest.newest_first = Some(growing.page.first.get());
        newest.newest_digest = writer.newest_digest;
        newest.next = writer.next;
        newest.bytes += writer.bytes_added;
        state.growing = (!std::mem::take(&mut state.seal_wanted)).then_some(growing);
    }
}
