//! Looking at what an outbox holds, without changing it.

use super::super::Status;
use super::super::inspect::{self, Inspection, Stretch};
use super::super::life::{Life, page_key};
use super::{Pages, read_page};
use crate::messaging::Epoch;
use crate::messaging::page::{Content, SealedPage};
use crate::store::StoreError;

impl Pages {
    /// Waiting messages after a place, with the epoch and sequence that they have now.
    pub(in crate::messaging::outbox) fn peek(
        &self,
        after: Option<(u32, u64)>,
        limit: usize,
    ) -> Result<Vec<crate::messaging::outbox::Waiting>, StoreError> {
        let lives: Vec<(u32, Epoch, u64, u64)> = {
            let state = self.state();
            let skipped =
                after.and_then(|(number, _)| state.lives.iter().position(|life| life.number == number));
            let lives = state.lives.iter().skip(skipped.unwrap_or(0));
            lives.map(|life| (life.number, life.epoch, life.acknowledged, life.next)).collect()
        };
        let mut found = Vec::new();
        for (number, epoch, acknowledged, end) in lives {
            // A cursor is what somebody sent us: it may lie beyond everything.
            let after = after.filter(|(life, _)| *life == number).map_or(0, |(_, after)| after);
            let from = after.min(end).max(acknowledged) + 1;
            for entry in self.store.range(&self.key_of_page_with(number, from)?, &page_key(number, end)) {
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
                    found.push(crate::messaging::outbox::Waiting { life: number, epoch, sequence, record });
                }
            }
        }
        Ok(found)
    }

    pub(in crate::messaging::outbox) fn status(&self) -> Result<Status, StoreError> {
        let (status, oldest_waiting) = {
            let state = self.state();
            let newest = state.newest();
            let waiting = state.lives.iter().find(|life| life.depth() > 0);
            let status = Status {
                epoch: newest.epoch,
                next_sequence: newest.next,
                acknowledged: newest.acknowledged,
                depth: state.lives.iter().map(Life::depth).sum(),
                bytes: state.lives.iter().map(|life| life.bytes).sum(),
                epochs: state.lives.len(),
                oldest_begun: None,
            };
            (status, waiting.map(|life| (life.number, life.acknowledged + 1)))
        };
        let begun = match oldest_waiting {
            Some((life, sequence)) => {
                let key = self.key_of_page_with(life, sequence)?;
                let page = self.store.get(&key)?;
                page.and_then(|value| SealedPage::from_stored(&value).ok()?.open().ok())
                    .map(|page| page.begun)
            }
            None => None,
        };
        Ok(Status { oldest_begun: begun, ..status })
    }

    pub(in crate::messaging::outbox) fn inspect(&self) -> Result<Inspection, StoreError> {
        let (stretches, waiting) = {
            let state = self.state();
            let newest = state.newest().number;
            let stretch = |life: &Life| {
                let end = state.writing_from.filter(|_| life.number == newest).unwrap_or(life.next);
                Stretch { life: life.number, epoch: life.epoch, end }
            };
            let stretches: Vec<_> = state.lives.iter().map(stretch).collect();
            (stretches, state.lives.iter().map(Life::depth).sum())
        };
        let mut found = Inspection { waiting, keys: self.keys_remembered(), ..Inspection::default() };
        found.faults.extend(inspect::faults_of(&self.damages));
        for stretch in &stretches {
            // One that is gone was delivered whole.
            let acknowledged = || {
                let state = self.state();
                let life = state.lives.iter().find(|life| life.number == stretch.life);
                life.map_or(stretch.end, |life| life.acknowledged)
            };
            inspect::look_over(&self.store, stretch, acknowledged, &mut found)?;
        }
        found.kept_aside = inspect::kept_aside(&self.store)?;
        Ok(found)
    }
}
