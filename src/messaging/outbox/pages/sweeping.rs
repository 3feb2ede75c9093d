//! Acknowledging, taking an acknowledgement back, and deleting what is acknowledged.

use super::super::layout::{
    self, EpochIndex, StoredEpoch, encode_acknowledged, epoch_key, first_in, page_key,
};
use super::{Pages, read_page};
use crate::messaging::Epoch;
use crate::messaging::page::IdempotencyKey;
use crate::store::StoreError;

/// How many pages, with their keys, are deleted at a time: a busy disk lets a whole backlog pile up, and 100,000 keys take 11 MB.
const DELETED_AT_ONCE: usize = 128;

/// Pages to be deleted, and the keys of their messages, by the epoch and sequence that their producers were answered with.
#[derive(Default)]
struct Doomed {
    keep_keys: bool,
    bytes: u64,
    pages: Vec<Vec<u8>>,
    keys: Vec<(Epoch, Vec<(u64, IdempotencyKey)>)>,
}

impl Doomed {
    fn add(&mut self, key: Vec<u8>, value: &[u8]) {
        if self.keep_keys
            && let Ok(page) = read_page(&key, value)
        {
            for (sequence, key) in page.keys() {
                let (epoch, first) = page.first_answer(sequence);
                match self.keys.last_mut() {
                    Some((last, keys)) if *last == epoch => keys.push((first, key)),
                    _ => self.keys.push((epoch, vec![(first, key)])),
                }
            }
        }
        self.bytes += value.len() as u64;
        self.pages.push(key);
    }
}

/// How many pages of an epoch a sweep deletes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delete {
    All,
    AllButNewest,
}

impl Pages {
    /// Deletes what is acknowledged, except the newest page, and epochs that are delivered. Called by the committer only.
    ///
    /// What it deletes need not be on disk: whatever a crash brings back is sent again, and known to the receiver as a duplicate.
    pub(in crate::messaging::outbox) fn sweep(&self) -> Result<(), StoreError> {
        while self.sweep_front()? {}
        let running_s = self.running_s();
        self.keys().forget_old(&self.store, running_s)
    }

    /// Sweeps the oldest epoch. Returns true if it was delivered whole and is gone.
    fn sweep_front(&self) -> Result<bool, StoreError> {
        let (stored, is_last) = {
            let state = self.state();
            (state.front().clone(), state.epochs.len() == 1)
        };
        let all_acknowledged = stored.acknowledged == stored.next - 1;
        let is_done = !is_last && all_acknowledged;
        if stored.oldest_first.is_some_and(|oldest| oldest <= stored.acknowledged) {
            // What is deleted can still be found in the store's file: a salvage must know that it was delivered.
            self.hint(stored.index, stored.acknowledged)?;
        }
        let mut oldest = stored.oldest_first;
        while let Some(from) = oldest.filter(|oldest| *oldest <= stored.acknowledged) {
            // Deleting must not overtake the high-water mark by which an opening knows that it was deletion.
            self.write_high_water();
            oldest = self.delete(&stored, from, if is_done { Delete::All } else { Delete::AllButNewest })?;
            if oldest.is_some() {
                // sled takes writes faster than a busy disk, and keeps them all in memory.
                self.store.flush()?;
            }
        }
        if is_done {
            self.store.remove(&epoch_key(stored.index))?;
            let mut state = self.state();
            state.epochs.retain(|other| other.index != stored.index);
            let front = state.front().position();
            drop(state);
            tracing::debug!(epoch = %stored.epoch, next_epoch = %front.epoch, "outbox: an epoch is delivered and deleted");
            self.write_high_water();
            self.hint(front.epoch_index, front.acknowledged)?;
            return Ok(true);
        }
        if all_acknowledged {
            // After a restart the newest page would look as if it still waited.
            self.hint(stored.index, stored.acknowledged)?;
        }
        Ok(false)
    }

    /// Writes down which epoch is being delivered, and up to where it is acknowledged.
    fn hint(&self, epoch_index: EpochIndex, acknowledged: u64) -> Result<(), StoreError> {
        let value = encode_acknowledged(epoch_index, acknowledged);
        if self.store.get(layout::ACKNOWLEDGED)?.as_deref() != Some(&value) {
            self.store.put(layout::ACKNOWLEDGED, &value)?;
        }
        Ok(())
    }

    /// Deletes up to [`DELETED_AT_ONCE`] acknowledged pages from the one at `oldest` on. Returns where the next begin, if any.
    fn delete(&self, stored: &StoredEpoch, oldest: u64, which: Delete) -> Result<Option<u64>, StoreError> {
        let mut oldest_left = oldest;
        let mut doomed = Doomed { keep_keys: self.keys().len() > 0, ..Doomed::default() };
        let mut more = None;
        let end = match (which, stored.newest_first) {
            (Delete::AllButNewest, Some(newest)) => newest,
            _ => u64::MAX,
        };
        let through = stored.acknowledged;
        let mut before: Option<(Vec<u8>, Vec<u8>)> = None;
        let from = page_key(stored.index, oldest);
        for entry in self.store.range(&from, &page_key(stored.index, end.min(through).saturating_add(2))) {
            let (key, value) = entry?;
            let first = first_in(&key)?;
            // A page ends before the next one begins.
            if let Some((key, value)) = before.take()
                && first - 1 <= through
            {
                doomed.add(key, &value);
                oldest_left = first;
                if doomed.pages.len() == DELETED_AT_ONCE {
                    more = Some(first);
                    break;
                }
            }
            before = Some((key, value));
        }
        if which == Delete::All
            && let Some((key, value)) = before
        {
            doomed.add(key, &value);
            oldest_left = stored.next;
        }
        {
            // From here on no reader counts on these pages.
            let mut state = self.state();
            let now = state.epoch_mut(stored.index).expect("only the committer takes epochs away");
            debug_assert!(now.acknowledged >= through, "only the committer takes an acknowledgement back");
            now.bytes -= doomed.bytes;
            now.oldest_first = (oldest_left < stored.next).then_some(oldest_left);
        }
        let running_s = self.running_s();
        for (epoch, keys) in doomed.keys {
            self.keys().acknowledged(&self.store, epoch, keys, running_s)?;
        }
        for key in doomed.pages {
            self.store.remove(&key)?;
        }
        Ok(more)
    }

    pub(in crate::messaging::outbox) fn acknowledge(&self, epoch_index: EpochIndex, through: u64) {
        let mut state = self.state();
        // A reply may speak of an epoch that was delivered or moved meanwhile.
        if let Some(stored) = state.epoch_mut(epoch_index) {
            assert!(through < stored.next, "the sender acknowledges only what it was given");
            stored.acknowledged = stored.acknowledged.max(through);
        }
    }

    /// Takes acknowledgements above `mark` back: the receiver has less than it once acknowledged. What is still here waits again,
    /// after a restart too, and is on disk as such when this returns. Called by the committer only, so that no sweep is under way.
    pub(in crate::messaging::outbox) fn unacknowledge(
        &self,
        epoch_index: EpochIndex,
        mark: u64,
    ) -> Result<(), StoreError> {
        let acknowledged = {
            let mut state = self.state();
            let Some(stored) = state.epoch_mut(epoch_index) else { return Ok(()) };
            stored.acknowledged = stored.acknowledged.min(mark.max(stored.oldest() - 1));
            stored.acknowledged
        };
        tracing::debug!(mark, acknowledged, "outbox: took acknowledgements back");
        // An opening relies on the hint and the high-water mark: neither may still contain what was taken back.
        let hint = self.store.get(layout::ACKNOWLEDGED)?;
        if hint
            .and_then(|hint| layout::decode_acknowledged(&hint))
            .is_some_and(|(of, through)| of == epoch_index && through > acknowledged)
        {
            self.store.put(layout::ACKNOWLEDGED, &encode_acknowledged(epoch_index, acknowledged))?;
            self.store.flush()?;
        }
        self.write_high_water();
        Ok(())
    }
}
