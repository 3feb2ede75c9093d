//! The durable, append-only log of everything that was applied.
//!
//! This is all that others use. Below it is a [`Log`], which makes durable what the ledger decides to append.
//!
//! | others need | from |
//! | --- | --- |
//! | to append | [`Ledger::commit`], [`Ledger::commit_with_capacities`], [`Ledger::record_order`] |
//! | its end | [`Ledger::position`] |
//! | to read by position | [`Ledger::records`], [`Ledger::record_at`], [`Ledger::page_at`], [`Ledger::losses`], [`Ledger::pages`] |
//! | to read by site, epoch and sequence | [`Ledger::page_with`], [`Ledger::pages_of`] |
//! | streams and their marks | [`Ledger::streams`], [`Ledger::streams_of`], [`Ledger::sites_after`] |
//! | the numbers of streams, for views | [`Ledger::number_of`], [`Ledger::epoch_of`], [`Ledger::numbered_streams`] |
//! | to copy and to verify it | [`Ledger::raw_records`], [`LedgerCopy`], [`Ledger::check`] |
//!
//! **Promise.** A page is in the ledger once, at one position, after all earlier pages of its stream. What
//! [`Ledger::commit`] reports is on disk.
//! **Kept by.** `receiver::judge` decides about every page; a page, its place in the index and the mark of its stream are
//! written in one atomic batch; one flush covers all requests that were waiting; only then are requests answered.
//! One thread commits; any thread reads, and reads only what was flushed.
//! **Not promised.** That no record is ever damaged. A record that cannot be read is reported by the reader that finds it
//! ([`RecordOrDamage::Damaged`]), stays where it is, and blocks nothing; [`Ledger::check`] finds all of them.

pub mod check;
mod commit;
mod copy;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod delivery_tests;
mod keys;
mod log;
#[cfg(test)]
mod log_tests;
mod opening;
mod read;
pub mod salvage;
mod streams;
#[cfg(test)]
mod tests;
mod walk;

pub use copy::{CopyCounts, LedgerCopy};
pub use log::Log;
pub use opening::LedgerHighWater;
pub use read::{LedgerPages, PageAt};
pub use streams::Stream;
pub use walk::{Loss, RecordOrDamage};

use crate::messaging::wire::{Request, Verdict};
use crate::messaging::{LedgerId, SiteName};
use crate::server::record::{Command, Record};
use crate::store::high_water::HighWaterFile;
use crate::store::{Store, StoreError, VALUE_MAX};
use commit::Commit;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use streams::Streams;

/// The outcome of one request. Its sender may learn it only after [`Ledger::commit`] has returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub mark: u64,
    pub verdict: Verdict,
    /// Number of messages applied, and of those that were known already.
    pub applied: u64,
    pub duplicates: u64,
    pub missing: u64,
    /// This was the first page of a (site, epoch) never seen.
    pub new_epoch: bool,
}

pub type CapacityReports = Vec<(SiteName, u32)>;

/// See the module. Cloning shares it.
#[derive(Clone)]
pub struct Ledger {
    log: Arc<dyn Log>,
    store: Store,
    id: LedgerId,
    shared: Arc<LedgerState>,
    high_water: Option<Arc<HighWaterFile>>,
}

struct LedgerState {
    streams: RwLock<Streams>,
    durable: AtomicU64,
}

impl Ledger {
    /// Opens the ledger in `store` as it is, or begins a new one. A server uses [`Ledger::open_beside`].
    pub fn open(store: Store) -> Result<Ledger, StoreError> {
        Ledger::open_on(Arc::new(store.clone()), store)
    }

    /// Opens the ledger of a log. `store` is what this machine holds of it, with the views.
    fn open_on(log: Arc<dyn Log>, store: Store) -> Result<Ledger, StoreError> {
        let id = match store.get(keys::LEDGER_ID)? {
            Some(bytes) => keys::decode_ledger_id(&bytes).ok_or_else(|| damaged("the ledger's id"))?,
            // A ledger that lost its id must not continue under another one: its edges would be refused.
            None if store.range(b"m", b"t").next().is_some() => return Err(damaged("the ledger's id")),
            None => {
                let id = LedgerId::random();
                store.put(keys::LEDGER_ID, &keys::ledger_id_value(id))?;
                store.flush()?;
                id
            }
        };
        let streams = Streams::load(&*log, &store)?;
        let durable = log.tail()?;
        Ok(Ledger {
            log,
            store,
            id,
            shared: Arc::new(LedgerState { streams: RwLock::new(streams), durable: AtomicU64::new(durable) }),
            high_water: None,
        })
    }

    fn note(&self) {
        if let Some(file) = &self.high_water {
            file.write(&LedgerHighWater { ledger: self.id, position: self.position() });
        }
    }

    pub fn id(&self) -> LedgerId {
        self.id
    }

    /// The store, which holds the views of this ledger as well.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The last position that is on disk, 0 for none.
    pub fn position(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// All sites, each with its streams in the order in which they began.
    pub fn streams(&self) -> BTreeMap<SiteName, Vec<Stream>> {
        self.read_streams().by_site()
    }

    /// Applies the pages of all `requests`, each as far as it can be applied, and flushes once. Called by one thread.
    ///
    /// On `Ok` everything that the answers say is on disk. On `Err` the store is poisoned and no request may be answered.
    pub fn commit(&self, requests: &[Request], now_ms: i64) -> Result<Vec<Applied>, StoreError> {
        Ok(self.commit_with_capacities(requests, now_ms, |_| Vec::new())?.0)
    }

    /// Does the same as [`Ledger::commit`], and records the capacities that `told` returns for the applied pages. Returns these
    /// capacities too.
    pub fn commit_with_capacities(
        &self,
        requests: &[Request],
        now_ms: i64,
        told: impl FnOnce(&[Applied]) -> CapacityReports,
    ) -> Result<(Vec<Applied>, CapacityReports), StoreError> {
        let mut commit = Commit::begin(self, now_ms);
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(commit.apply(request)?);
        }
        let capacities = told(&answers);
        for (site, capacity) in &capacities {
            let (site, capacity) = (site.clone(), *capacity);
            commit.add(&Record::Capacity { site, received_at_ms: now_ms, capacity })?;
        }
        commit.finish()?;
        Ok((answers, capacities))
    }

    /// Records a command, right after the `pieces` that it is about, and returns its position. For the committing thread.
    ///
    /// [`StoreError::ValueTooLong`]: a record would be longer than the store takes. Nothing was written; the ledger goes on.
    pub fn record_order(
        &self,
        by: &str,
        pieces: Vec<Vec<u8>>,
        command: Command,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let pieces = pieces.into_iter().map(|bytes| Command::Piece { bytes });
        self.record_all(by, pieces.chain([command]), now_ms)
    }

    /// Records commands right after each other, all or none, and returns the position of the last. As [`Ledger::record_order`].
    pub fn record_all(
        &self,
        by: &str,
        commands: impl IntoIterator<Item = Command>,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let record = |command| Record::Command { received_at_ms: now_ms, by: by.to_owned(), command };
        let records: Vec<Record> = commands.into_iter().map(record).collect();
        // A record that is too long is found before anything is written: the store would refuse it, and a refused write poisons it.
        if let Some(bytes) =
            records.iter().map(|record| record.encode().len()).find(|bytes| *bytes > VALUE_MAX)
        {
            return Err(StoreError::ValueTooLong { bytes });
        }
        let mut commit = Commit::begin(self, now_ms);
        records.iter().try_for_each(|record| commit.add(record))?;
        commit.finish()?;
        Ok(self.position())
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged { place: what.to_owned(), reason: "it has the wrong form".into() }
}
