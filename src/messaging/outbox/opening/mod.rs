//! Reading what a directory holds, damaged pages included.
//!
//! **Promise.** Every page that can be read is delivered. What was confirmed, is not acknowledged and cannot be read is
//! reported as lost, with its place and the reason, and what was found there is kept. No content is invented.
//! **Kept by.** Sequences have no gaps: a page that does not begin where the one before it ends shows what is missing. The end
//! and the beginning are checked against the [high-water mark](super::high_water) and the hint of the last acknowledgement.
//! **Not promised.** That a lost tail is noticed here when a power cut destroyed the high-water mark too; the receiver's mark
//! shows it then (`sender::ReplyEffect::ahead`).
//!
//! # The epochs
//!
//! "Loss" means: keep what was found aside, write a page of lost messages in its place, report a [`OutboxDamage`].
//!
//! | the store has | the high-water mark has | action |
//! | --- | --- | --- |
//! | a record and perhaps pages | anything | read the pages (below) |
//! | readable pages without a record | anything | write the record again from a page, read the pages |
//! | only unreadable pages, without a record | anything | set them aside: not even their epoch is known; tail in doubt |
//! | nothing | the epoch, with messages that were not acknowledged | loss of all of it; tail in doubt, if it is the newest |
//! | nothing | the epoch, acknowledged | none: it was delivered and deleted; tail in doubt, if it is the newest |
//!
//! When the tail is in doubt, so is the next sequence: new messages get a new epoch.
//!
//! # The pages of an epoch, in order
//!
//! | state | page begins at the due sequence | page begins later | page begins earlier, or is unreadable | end |
//! | --- | --- | --- | --- | --- |
//! | nothing is known of the beginning | take it / Following | take it / Following | / Damaged | mark says more: loss, tail in doubt |
//! | Following: the next page is due at a sequence | take it | loss of what lies between, take it | / Damaged | mark says more: loss, tail in doubt |
//! | Damaged: unreadable pages since then | loss up to it, take it / Following | loss up to it, take it / Following | – | loss, tail in doubt |
//!
//! Missing pages that were acknowledged are no loss. When another epoch takes over from an epoch, the first pages of the latter
//! are missing because they were moved.

mod epoch_reader;

use super::super::page::SealedPage;
use super::super::{ClockReading, Epoch};
use super::high_water::OutboxHighWater;
use super::keys::Keys;
use super::layout::{
    EpochIndex, EpochRecord, StoredEpoch, aside_key, epoch_key, page_key, page_keys, parse_epoch_key,
};
use super::{OnLoss, OutboxOpenError};
use crate::codes;
use crate::store::{Store, StoreError};
use epoch_reader::{EpochReader, EpochRole};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Messages that were confirmed and cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutboxDamage {
    #[serde(serialize_with = "as_text")]
    pub epoch: Epoch,
    pub first: u64,
    pub last: u64,
    pub reason: String,
}

fn as_text<S: Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(epoch)
}

#[derive(Default)]
pub(super) struct OutboxContents {
    /// In the order in which they are delivered. May be empty.
    pub epochs: VecDeque<StoredEpoch>,
    /// The greatest index that any epoch has or had, plus one.
    pub next_index: EpochIndex,
    pub keys: Keys,
    pub damages: Vec<OutboxDamage>,
    /// The newest messages are damaged: their number is not certain, so that new ones need a new epoch.
    pub tail_in_doubt: bool,
    pub moving: Option<Moving>,
}

/// Messages of one epoch that are on their way to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moving {
    pub from: EpochIndex,
    /// The first sequence that moves; what comes before it was delivered.
    pub first: u64,
    pub to: EpochIndex,
}

/// Reads everything, sets aside what cannot be read, and writes down what is lost. All of it is on disk when this returns.
pub(super) fn read(
    store: &Store,
    mark: Option<&OutboxHighWater>,
    on_loss: OnLoss,
    now: ClockReading,
) -> Result<OutboxContents, OutboxOpenError> {
    let contents = OutboxContents { keys: Keys::load(store)?, ..OutboxContents::default() };
    let mut opening = OutboxOpening { store, mark, on_loss, now, contents, wrote: false };
    opening.read_epochs()?;
    opening.report_vanished_epochs()?;
    if opening.wrote {
        store.flush()?;
    }
    let mut contents = opening.contents;
    contents.epochs.make_contiguous().sort_by_key(|stored| (stored.rank, stored.index));
    Ok(contents)
}

struct OutboxOpening<'a> {
    store: &'a Store,
    mark: Option<&'a OutboxHighWater>,
    on_loss: OnLoss,
    now: ClockReading,
    contents: OutboxContents,
    /// Something was written that is to be flushed.
    wrote: bool,
}

impl OutboxOpening<'_> {
    /// The mark is the last one that was written: it is of this boot.
    fn mark_is_exact(&self) -> bool {
        self.mark.is_some_and(|mark| mark.boot == self.now.boot && self.now.boot != [0; 16])
    }

    /// Returns an error, before anything is written, if this opening is not allowed to record losses.
    fn refuse_loss(&self, place: impl Into<String>, reason: &str) -> Result<(), StoreError> {
        match self.on_loss {
            OnLoss::Record => Ok(()),
            OnLoss::Refuse => Err(StoreError::Damaged { place: place.into(), reason: reason.to_owned() }),
        }
    }

    fn read_epochs(&mut self) -> Result<(), StoreError> {
        let records = self.read_records()?;
        let newest_rank = records.values().map(|record| record.rank).max();
        let mut indexes: BTreeSet<EpochIndex> = records.keys().copied().collect();
        indexes.extend(indexes_of_pages(self.store)?);
        // One epoch at a time, so that a backlog of millions stays small in memory.
        for index in indexes {
            self.contents.next_index = self.contents.next_index.max(index + 1);
            let record = match records.get(&index) {
                Some(record) => *record,
                None => match self.rebuild_record(index)? {
                    Some(record) => record,
                    None => continue,
                },
            };
            if let Some((from, first)) = record.takes_over {
                self.contents.moving = Some(Moving { from, first, to: index });
            }
            let takes_over = |other: &EpochRecord| other.takes_over.is_some_and(|(from, _)| from == index);
            let role = EpochRole {
                is_newest: newest_rank.is_none_or(|newest| record.rank >= newest),
                is_moving_away: records.values().any(takes_over),
            };
            let stored = StoredEpoch {
                took_over: record.took_over,
                ..StoredEpoch::begin(index, record.rank, record.epoch)
            };
            EpochReader::begin(self, stored, role)?.read()?;
        }
        Ok(())
    }

    fn read_records(&self) -> Result<BTreeMap<EpochIndex, EpochRecord>, StoreError> {
        let mut records = BTreeMap::new();
        for entry in self.store.range(b"e", b"f") {
            let (key, value) = entry?;
            match (parse_epoch_key(&key), EpochRecord::decode(&value)) {
                (Some(index), Some(record)) => {
                    records.insert(index, record);
                }
                // Its pages name their epoch.
                _ => {
                    self.refuse_loss("the record of an epoch", "unreadable")?;
                    tracing::error!(
                        code = %codes::EPOCH_RECORD_UNREADABLE,
                        key = %key.escape_ascii(),
                        hint = "check the disk",
                        "the record of an epoch cannot be read; it is rebuilt from its pages"
                    );
                }
            }
        }
        Ok(records)
    }

    /// Writes the record of an epoch of which only pages are left; `None` if none of them can be read.
    fn rebuild_record(&mut self, index: EpochIndex) -> Result<Option<EpochRecord>, StoreError> {
        self.refuse_loss("the record of an epoch", "missing")?;
        self.wrote = true;
        let (from, to) = page_keys(index);
        for entry in self.store.range(&from, &to) {
            let (_, value) = entry?;
            if let Ok((_, page)) = SealedPage::open_stored::<&[u8]>(&value) {
                let record = EpochRecord::new(page.epoch, u64::from(index));
                self.store.put(&epoch_key(index), &record.encode())?;
                return Ok(Some(record));
            }
        }
        self.set_all_aside(index)?;
        self.contents.tail_in_doubt = true;
        Ok(None)
    }

    /// Keeps pages aside of which not even the epoch is known.
    fn set_all_aside(&mut self, index: EpochIndex) -> Result<(), StoreError> {
        let (from, to) = page_keys(index);
        let keys: Vec<Vec<u8>> =
            self.store.range(&from, &to).map(|entry| entry.map(|(key, _)| key)).collect::<Result<_, _>>()?;
        tracing::error!(
            code = %codes::PAGES_KEPT_ASIDE,
            pages = keys.len(),
            hint = "keep a copy of the data directory, and report this with the log",
            "pages of an unknown epoch cannot be read; they are kept aside and cannot be delivered"
        );
        for key in keys {
            if let Some(value) = self.store.get(&key)? {
                self.store.put(&aside_key(&key), &value)?;
            }
            self.store.remove(&key)?;
        }
        Ok(())
    }

    /// Reports the epochs that the store does not know any more: a log that was cut short may have lost all of them.
    fn report_vanished_epochs(&mut self) -> Result<(), StoreError> {
        let Some(mark) = self.mark else { return Ok(()) };
        for (epoch, next) in &mark.ends {
            if self.contents.epochs.iter().any(|stored| stored.epoch == *epoch) {
                continue;
            }
            let acknowledged = mark.acknowledged_of(*epoch);
            // An epoch that was delivered whole is deleted, after the mark of it. The newest one never is.
            self.contents.tail_in_doubt |= mark.ends.last().is_some_and(|(newest, _)| newest == epoch);
            if *next <= acknowledged + 1 {
                continue;
            }
            self.refuse_loss(format!("epoch {epoch}"), "missing")?;
            let rank = self.contents.epochs.iter().map(|stored| stored.rank + 1).max().unwrap_or(0);
            let index = self.contents.next_index;
            self.contents.next_index += 1;
            self.store.put(&epoch_key(index), &EpochRecord::new(*epoch, rank).encode())?;
            EpochReader::vanished(self, StoredEpoch::begin(index, rank, *epoch), acknowledged)
                .lose_all_before(*next)?;
        }
        Ok(())
    }
}

/// The epochs that have a page, by looking at the first page of each.
fn indexes_of_pages(store: &Store) -> Result<Vec<EpochIndex>, StoreError> {
    let mut indexes = Vec::new();
    let mut from = b"p".to_vec();
    while let Some(entry) = store.range(&from, b"q").next() {
        let (key, _) = entry?;
        let index =
            key.get(1..5).map(|index| EpochIndex::from_be_bytes(index.try_into().expect("four bytes")));
        let Some(index) = index else {
            // Not a key of a page: what follows it may be one.
            from = [&key[..], &[0]].concat();
            continue;
        };
        indexes.push(index);
        match index.checked_add(1) {
            Some(next) => from = page_key(next, 0),
            None => break,
        }
    }
    Ok(indexes)
}
