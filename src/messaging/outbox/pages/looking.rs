//! Lists what an outbox holds, without changing it.

use super::super::layout::{EpochIndex, StoredEpoch, page_key};
use super::super::{OutboxStatus, WaitingMessage};
use super::{Pages, read_page};
use crate::messaging::page::{Content, PageView, SealedPage};
use crate::messaging::{Digest, Epoch};
use crate::store::StoreError;
use serde::Serialize;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub epochs: u64,
    pub pages: u64,
    /// Messages stored, among them acknowledged ones that are not deleted yet.
    pub messages: u64,
    pub waiting: u64,
    pub keys: u64,
    /// Number of lost messages, as recorded in pages for the receiver.
    pub lost: u64,
    pub kept_aside: u64,
    pub faults: Vec<String>,
}

/// An epoch, and a sequence in it.
type MessagePlace = (EpochIndex, u64);

impl Pages {
    /// Up to `limit` waiting messages, oldest first, after the one at `after`, and the place of the last of them if there are more.
    /// Blocks on the disk.
    pub fn peek(
        &self,
        after: Option<MessagePlace>,
        limit: usize,
    ) -> Result<(Vec<WaitingMessage>, Option<MessagePlace>), StoreError> {
        let epochs: Vec<StoredEpoch> = {
            let state = self.state();
            let first =
                after.and_then(|(index, _)| state.epochs.iter().position(|stored| stored.index == index));
            state.epochs.iter().skip(first.unwrap_or(0)).cloned().collect()
        };
        let mut found: Vec<WaitingMessage> = Vec::new();
        for StoredEpoch { index, epoch, acknowledged, next: end, .. } in epochs {
            // A cursor comes from outside: it may lie beyond everything.
            let after = after.filter(|(of, _)| *of == index).map_or(0, |(_, after)| after);
            let from = after.min(end).max(acknowledged) + 1;
            for entry in self.store.range(&self.key_of_page_with(index, from)?, &page_key(index, end)) {
                let (key, value) = entry?;
                let page = read_page(&key, &value)?;
                let Content::Records(records) = page.content else {
                    continue;
                };
                for (sequence, record) in (page.first.get()..).zip(records) {
                    if sequence < from || sequence >= end {
                        continue; // acknowledged, or not on disk yet
                    }
                    if found.len() == limit {
                        let last = found.last().map(|last| (last.epoch_index, last.sequence));
                        return Ok((found, last));
                    }
                    found.push(WaitingMessage { epoch_index: index, epoch, sequence, record });
                }
            }
        }
        Ok((found, None))
    }

    /// What the outbox holds. Blocks on the disk for a moment.
    pub fn status(&self) -> Result<OutboxStatus, StoreError> {
        let (status, oldest_waiting) = {
            let state = self.state();
            let newest = state.newest();
            let waiting = state.epochs.iter().find(|stored| stored.depth() > 0);
            let status = OutboxStatus {
                epoch: newest.epoch,
                next_sequence: newest.next,
                acknowledged: newest.acknowledged,
                depth: state.epochs.iter().map(StoredEpoch::depth).sum(),
                bytes: state.epochs.iter().map(|stored| stored.bytes).sum(),
                epochs: state.epochs.len(),
                oldest_begun: None,
            };
            (status, waiting.map(|stored| (stored.index, stored.acknowledged + 1)))
        };
        let begun = match oldest_waiting {
            Some((epoch_index, sequence)) => {
                let key = self.key_of_page_with(epoch_index, sequence)?;
                let page = self.store.get(&key)?;
                page.and_then(|value| Some(SealedPage::open_stored::<&[u8]>(&value).ok()?.1.begun))
            }
            None => None,
        };
        Ok(OutboxStatus { oldest_begun: begun, ..status })
    }

    /// Reads every page that is on disk, and says what is wrong. Changes nothing, and delays no append. Blocks on the disk.
    pub fn inspect(&self) -> Result<Inspection, StoreError> {
        let (epochs, waiting) = {
            let state = self.state();
            let mut epochs: Vec<StoredEpoch> = state.epochs.iter().cloned().collect();
            let waiting = epochs.iter().map(StoredEpoch::depth).sum();
            if let (Some(newest), Some(writing_from)) = (epochs.last_mut(), state.writing_from) {
                newest.next = writing_from; // what is stored from there on may not be on disk yet
            }
            (epochs, waiting)
        };
        let mut found = Inspection { waiting, keys: self.keys_remembered(), ..Inspection::default() };
        found.faults.extend(self.damages.iter().map(|damage| {
            format!(
                "epoch {}, sequences {} to {}: {}. They were confirmed and cannot be read; what was found is kept, and the server records them as missing",
                damage.epoch, damage.first, damage.last, damage.reason
            )
        }));
        for stored in &epochs {
            self.inspect_epoch(stored, &mut found)?;
        }
        found.kept_aside =
            self.store.range(b"d", b"e").try_fold(0, |count, entry| entry.map(|_| count + 1))?;
        Ok(found)
    }

    /// Checks that each page can be read, begins where the one before it ends, and names it. Pages missing up to what is acknowledged
    /// now are no fault: they were delivered and are being deleted.
    fn inspect_epoch(&self, stored: &StoredEpoch, found: &mut Inspection) -> Result<(), StoreError> {
        // An epoch that is gone was delivered whole.
        let acknowledged = || {
            let state = self.state();
            let now = state.epochs.iter().find(|now| now.index == stored.index);
            now.map_or(stored.next, |now| now.acknowledged)
        };
        found.epochs += 1;
        let mut before: Option<(u64, Option<Digest>)> = None;
        for entry in self.store.range(&page_key(stored.index, 0), &page_key(stored.index, stored.next)) {
            let (key, value) = entry?;
            let fault = |what: String| {
                format!("epoch {}, page {:02x?}: {what}", stored.epoch, &key[5.min(key.len())..])
            };
            let (digest, page) = match SealedPage::open_stored::<&[u8]>(&value) {
                Ok(opened) => opened,
                Err(error) => {
                    found.faults.push(fault(format!("it cannot be read: {error}. The next start of the edge keeps it aside, and tells the server that its events are lost")));
                    before = None;
                    continue;
                }
            };
            found.pages += 1;
            before =
                before.filter(|(due, _)| page.first.get() <= *due || acknowledged() + 1 < page.first.get());
            found.faults.extend(wrong(&page, stored.epoch, before).map(fault));
            // The page after one that was lost names what it was.
            let is_lost = page.is_lost();
            *(if is_lost { &mut found.lost } else { &mut found.messages }) += page.count();
            before = Some((page.last() + 1, (!is_lost).then_some(digest)));
        }
        Ok(())
    }
}

fn wrong(page: &PageView<'_>, epoch: Epoch, before: Option<(u64, Option<Digest>)>) -> Option<String> {
    if page.epoch != epoch {
        return Some(format!("it belongs to epoch {}", page.epoch));
    }
    let (due, digest) = before?;
    if page.first.get() != due {
        return Some(format!("it begins with sequence {}, and {due} is due", page.first));
    }
    match (page.previous, digest) {
        (Some(previous), Some(digest)) if previous != digest => {
            Some("it names another page as the one before it".into())
        }
        _ => None,
    }
}
