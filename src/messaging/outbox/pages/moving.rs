//! Moving what is not acknowledged from the oldest epoch to the newest.

use super::super::layout::{EpochRecord, StoredEpoch, epoch_key, page_key, page_keys};
use super::super::opening::Moving;
use super::{Pages, read_page};
use crate::messaging::page::{Content, Page, SealedPage};
use crate::messaging::{Digest, Epoch, Sequence};
use crate::store::{Batch, StoreError};

/// How many pages one step of a move takes: each is a removal and a new page in one batch.
const MOVED_AT_ONCE: usize = 400;

impl Pages {
    /// Moves the unacknowledged messages of the epoch that is being delivered to a new epoch, which takes its place in the order.
    /// Each page records its old place. Returns the new epoch and its number of messages. Called by the committer only; the
    /// next opening continues a move that a crash interrupted.
    pub(in crate::messaging::outbox) fn move_oldest(&self, first: u64) -> Result<(Epoch, u64), StoreError> {
        let from = self.position().epoch_index;
        self.acknowledge(from, first.saturating_sub(1));
        // Keys of what is delivered are written down, and its pages are gone before the move is begun.
        self.sweep()?;
        let to = self.new_index()?;
        let (from, stored) = {
            let mut state = self.state();
            state.next_index = to + 1;
            let front = state.front();
            (front.index, StoredEpoch::begin(to, front.rank, Epoch::random()))
        };
        let record = EpochRecord { takes_over: Some((from, first)), ..stored.record() };
        self.store.put(&epoch_key(to), &record.encode())?;
        self.store.flush()?;
        {
            let mut state = self.state();
            state.growing = None;
            let place =
                state.epochs.iter().position(|stored| stored.index == from).expect("it was the first");
            state.epochs.insert(place + 1, stored);
        }
        self.continue_move(Moving { from, first, to })
    }

    pub(super) fn continue_move(&self, moving: Moving) -> Result<(Epoch, u64), StoreError> {
        while self.move_some(moving)? {
            // sled takes writes faster than a busy disk, and keeps them all in memory; and only what is on the disk frees room.
            self.store.flush()?;
        }
        let Moving { from, to, .. } = moving;
        let (record, moved) = {
            let mut state = self.state();
            state.epochs.retain(|stored| stored.index != from);
            let to = state.epoch_mut(to).expect("the epoch that takes over is there");
            to.took_over = Some(from);
            (to.record(), to.next - 1)
        };
        // An opening must not take what is moved for lost: the high-water mark forgets the epoch before the store does, and
        // only when the new one is on disk.
        self.store.flush()?;
        self.write_high_water();
        let mut batch = Batch::default();
        batch.remove(epoch_key(from));
        batch.put(epoch_key(to), record.encode());
        self.store.apply(&batch)?;
        self.store.flush()?;
        self.write_high_water();
        tracing::debug!(epoch = %record.epoch, moved, "outbox: moved the waiting events to a new epoch");
        Ok((record.epoch, moved))
    }

    /// Moves up to [`MOVED_AT_ONCE`] pages in one batch. Returns false if there are none.
    fn move_some(&self, Moving { from, first, to }: Moving) -> Result<bool, StoreError> {
        let (acknowledged, epoch, mut next, mut digest) = {
            let mut state = self.state();
            let acknowledged = state.epoch_mut(from).map_or(0, |stored| stored.acknowledged);
            let to = state.epoch_mut(to).expect("the epoch that takes over is there");
            (acknowledged.max(first.saturating_sub(1)), to.epoch, to.next, to.newest_digest)
        };
        let mut batch = Batch::default();
        let mut moved = Vec::new();
        let (begin, end) = page_keys(from);
        for entry in self.store.range(&begin, &end).take(MOVED_AT_ONCE) {
            let (key, value) = entry?;
            let page = read_page(&key, &value)?;
            batch.remove(key);
            if page.last() <= acknowledged {
                continue;
            }
            // The beginning of the first page may be delivered, in a page that was cut differently.
            let delivered = (acknowledged + 1).saturating_sub(page.first.get());
            if delivered > 0 {
                self.write_keys_down(&page, acknowledged)?;
            }
            let page = moved_to(page, delivered, epoch, next, digest);
            let sealed = SealedPage::seal(&page);
            let stored = sealed.to_stored();
            (next, digest) = (page.last() + 1, Some(sealed.digest));
            let key = page_key(to, page.first.get());
            moved.push((page, sealed.digest, stored.len() as u64));
            batch.put(key, stored);
        }
        if batch.is_empty() {
            return Ok(false);
        }
        self.store.apply(&batch)?;
        let mut keys = self.keys();
        let mut state = self.state();
        let stored = state.epoch_mut(to).expect("the epoch that takes over is there");
        for (page, digest, length) in moved {
            stored.push_page(page.first.get(), page.last(), digest, length);
            for (sequence, key) in page.keys() {
                keys.waits(&key, to, sequence);
            }
        }
        Ok(true)
    }

    /// Writes down the keys of a page's messages that are acknowledged.
    fn write_keys_down(&self, page: &Page, acknowledged: u64) -> Result<(), StoreError> {
        for (sequence, key) in page.keys().into_iter().filter(|(sequence, _)| *sequence <= acknowledged) {
            let (epoch, first) = page.first_answer(sequence);
            let running_s = self.running_s();
            self.keys().acknowledged(&self.store, epoch, [(first, key)], running_s)?;
        }
        Ok(())
    }
}

/// The page from its message `delivered` on, at the sequence `first` of another epoch.
fn moved_to(page: Page, delivered: u64, epoch: Epoch, first: u64, previous: Option<Digest>) -> Page {
    let stood_at = page.moved_from.unwrap_or((page.epoch, page.first));
    let page = Page { moved_from: Some(stood_at), ..page }.without_first(delivered, previous);
    let last = Sequence::new(first + page.count() - 1).expect("it is not before the first");
    let first = Sequence::new(first).expect("sequences begin at 1");
    let content = match page.content {
        Content::Lost { reason, .. } => Content::Lost { last, reason },
        records => records,
    };
    Page { epoch, first, content, ..page }
}
