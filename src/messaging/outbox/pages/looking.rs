//! Lists what an outbox holds, without changing it.

use super::super::inspect::{self, EpochPages, Inspection};
use super::super::layout::{EpochIndex, StoredEpoch, page_key};
use super::super::{OutboxStatus, WaitingMessage};
use super::{Pages, read_page};
use crate::messaging::page::{Content, SealedPage};
use crate::store::StoreError;

impl Pages {
    /// Up to `limit` waiting messages after a place, with the epoch and sequence that they have now.
    pub fn peek(
        &self,
        after: Option<(EpochIndex, u64)>,
        limit: usize,
    ) -> Result<Vec<WaitingMessage>, StoreError> {
        let epochs: Vec<StoredEpoch> = {
            let state = self.state();
            let first =
                after.and_then(|(index, _)| state.epochs.iter().position(|stored| stored.index == index));
            state.epochs.iter().skip(first.unwrap_or(0)).cloned().collect()
        };
        let mut found = Vec::new();
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
                        return Ok(found);
                    }
                    found.push(WaitingMessage { epoch_index: index, epoch, sequence, record });
                }
            }
        }
        Ok(found)
    }

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
                page.and_then(|value| SealedPage::from_stored(&value).ok()?.open().ok())
                    .map(|page| page.begun)
            }
            None => None,
        };
        Ok(OutboxStatus { oldest_begun: begun, ..status })
    }

    pub fn inspect(&self) -> Result<Inspection, StoreError> {
        let (epochs, waiting) = {
            let state = self.state();
            let newest = state.newest().index;
            let pages_of = |stored: &StoredEpoch| {
                let end = state.writing_from.filter(|_| stored.index == newest).unwrap_or(stored.next);
                EpochPages { epoch_index: stored.index, epoch: stored.epoch, end }
            };
            let epochs: Vec<_> = state.epochs.iter().map(pages_of).collect();
            (epochs, state.epochs.iter().map(StoredEpoch::depth).sum())
        };
        let mut found = Inspection { waiting, keys: self.keys_remembered(), ..Inspection::default() };
        found.faults.extend(inspect::faults_of(&self.damages));
        for pages in &epochs {
            // An epoch that is gone was delivered whole.
            let acknowledged = || {
                let state = self.state();
                let stored = state.epochs.iter().find(|stored| stored.index == pages.epoch_index);
                stored.map_or(pages.end, |stored| stored.acknowledged)
            };
            inspect::inspect_pages(&self.store, pages, acknowledged, &mut found)?;
        }
        found.kept_aside = inspect::kept_aside(&self.store)?;
        Ok(found)
    }
}
