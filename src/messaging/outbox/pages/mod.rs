//! The pages of an outbox, in a store: what is appended, given to the sender, acknowledged and deleted.
//!
//! The keys of the store are listed in [`super::layout`]. Each operation on pages has a file: [`growing`], [`taking`],
//! [`sweeping`], [`moving`], [`looking`].

mod growing;
mod looking;
mod moving;
mod sweeping;
mod taking;

pub use looking::Inspection;
pub use taking::Taken;

use super::high_water::{ENDS_MAX, OutboxHighWater};
use super::keys::{EPOCH_INDEX_MAX, KeyLocation, Keys, Remembered};
use super::layout::{self, EpochIndex, Position, StoredEpoch, epoch_key, page_key, page_keys};
use super::opening::{self, OutboxDamage};
use super::{Limits, Options, OutboxOpenError, OutboxProgress, Room};
use crate::codes;
use crate::messaging::clock::BootId;
use crate::messaging::page::{IdempotencyKey, Message, PAYLOAD_MAX, Page, PageError, SealedPage};
use crate::messaging::{ClockReading, Epoch, LedgerId};
use crate::store::high_water::HighWaterFile;
use crate::store::{Entry, Store, StoreError};
use growing::Growing;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Instant;
use tokio::sync::watch;

#[derive(Debug, Clone)]
pub(super) struct Post {
    pub records: Vec<Message>,
    pub at: ClockReading,
}

/// The pages of an outbox. What changes them is called by its committer only.
pub struct Pages {
    store: Store,
    limits: Limits,
    room: Option<Room>,
    /// Why nothing more is written, once writing failed.
    failure: OnceLock<String>,
    state: Mutex<PagesState>,
    /// Used by the committer only.
    keys: Mutex<Keys>,
    ledger: Mutex<Option<LedgerId>>,
    high_water_file: Option<HighWaterFile>,
    boot: BootId,
    opened: Instant,
    damages: Vec<OutboxDamage>,
}

#[derive(Default)]
struct PagesState {
    /// Oldest first. New messages belong to the last one; there always is one.
    epochs: VecDeque<StoredEpoch>,
    next_index: u32,
    /// The newest page while it may still grow. Its content is on disk.
    growing: Option<Growing>,
    /// While a group is written: the first sequence of its first page. What the store shows from there on may not be on disk yet.
    writing_from: Option<u64>,
    /// True when the sender wants what is being written, so the page must not grow further.
    seal_wanted: bool,
}

impl PagesState {
    fn front(&self) -> &StoredEpoch {
        self.epochs.front().expect("there always is an epoch")
    }
    fn newest(&self) -> &StoredEpoch {
        self.epochs.back().expect("there always is an epoch")
    }
    fn newest_mut(&mut self) -> &mut StoredEpoch {
        self.epochs.back_mut().expect("there always is an epoch")
    }
    fn epoch_mut(&mut self, index: EpochIndex) -> Option<&mut StoredEpoch> {
        self.epochs.iter_mut().find(|stored| stored.index == index)
    }
}

impl Pages {
    pub(super) fn open(store: Store, options: &Options, now: ClockReading) -> Result<Pages, OutboxOpenError> {
        let opened = options.high_water_file.as_deref().map(HighWaterFile::open::<OutboxHighWater>);
        let opened = opened.transpose().map_err(OutboxOpenError::HighWaterFile)?;
        let (high_water_file, mark) = opened.map_or((None, None), |(file, mark)| (Some(file), mark));
        let found = opening::read(&store, mark.as_ref(), options.on_loss, now)?;
        let ledger = match store.get(layout::LEDGER)? {
            Some(id) => Some(LedgerId::from_bytes(id[..].try_into().map_err(|_| OutboxOpenError::Ledger)?)),
            None => None,
        };
        let pages = Pages {
            limits: options.limits,
            room: options.room.clone(),
            failure: OnceLock::new(),
            state: Mutex::new(PagesState {
                epochs: found.epochs,
                next_index: found.next_index,
                ..Default::default()
            }),
            keys: Mutex::new(found.keys),
            ledger: Mutex::new(ledger),
            high_water_file,
            boot: now.boot,
            opened: Instant::now(),
            damages: found.damages,
            store,
        };
        if let Some(moving) = found.moving {
            pages.continue_move(moving)?;
        }
        if pages.state().epochs.is_empty() {
            pages.begin_epoch()?;
        } else if found.tail_in_doubt {
            let epoch = pages.begin_epoch()?;
            tracing::error!(
                code = %codes::NEWEST_PAGE_DAMAGED,
                %epoch,
                hint = "check the disk",
                "the newest events are damaged, so that the next sequence is not certain; new events get a new epoch"
            );
        }
        if let Some(machine) = options.machine {
            pages.compare_machine(machine)?;
        }
        pages.write_high_water();
        Ok(pages)
    }

    /// Begins a new epoch if another machine wrote last: this directory is a copy.
    fn compare_machine(&self, machine: [u8; 16]) -> Result<(), StoreError> {
        let wrote_last = self.store.get(layout::MACHINE)?;
        if wrote_last.as_deref() == Some(&machine[..]) {
            return Ok(());
        }
        if wrote_last.is_some() {
            let epoch = self.begin_epoch()?;
            tracing::error!(
                code = %codes::MACHINE_CHANGED,
                %epoch,
                hint = "make sure that the other machine no longer uses this garage's name",
                "this data directory was written on another machine, so it is a copy: new events get a new epoch"
            );
        }
        self.store.put(layout::MACHINE, &machine)?;
        self.store.flush()
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The present path of the store's directory, if it was renamed since it was opened; see [`Store::moved_to`].
    pub fn moved_to(&self) -> Option<PathBuf> {
        self.store.moved_to()
    }

    /// A flag that turns true when a part of the store could not be read; see [`Store::unreadable`].
    pub fn unreadable(&self) -> watch::Receiver<bool> {
        self.store.unreadable()
    }

    pub fn damages(&self) -> &[OutboxDamage] {
        &self.damages
    }

    /// The reason why nothing more is accepted until a restart, if writing failed: what happened, what it means, what to do.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    pub(super) fn failed(&self, error: &StoreError) {
        let _ = self.failure.set(error.to_string()); // the first one is the cause
    }

    /// Why nothing more is taken at the moment, if so: a limit is reached, or the disk is short of room. Blocks on the disk.
    pub fn shortage(&self) -> Option<String> {
        self.room_for(1, PAYLOAD_MAX as u64).err()
    }

    /// Checks that more messages of this number and size are taken. The error says why they are not.
    pub(super) fn room_for(&self, messages: u64, bytes: u64) -> Result<(), String> {
        let (waiting, stored) = self.size();
        let Limits { messages: messages_max, bytes: bytes_max } = self.limits;
        if waiting.saturating_add(messages) > messages_max {
            return Err(format!("the outbox is full: {waiting} events wait, its limit is {messages_max}"));
        }
        if stored > bytes_max {
            return Err(format!("the outbox is full: it takes {stored} bytes, its limit is {bytes_max}"));
        }
        self.room_on_disk(|_| bytes)
    }

    /// Checks that the disk has room for more, given the size of what is stored.
    pub(super) fn room_on_disk(&self, more: impl FnOnce(u64) -> u64) -> Result<(), String> {
        let Some(room) = &self.room else { return Ok(()) };
        let (_, stored) = self.size();
        room(stored, more(stored))
    }

    /// Gives new messages a new epoch, which is on disk when this returns.
    pub(super) fn begin_epoch(&self) -> Result<Epoch, StoreError> {
        let index = self.new_index()?;
        let rank = self.state().epochs.back().map_or(0, |stored| stored.rank + 1);
        let stored = StoredEpoch::begin(index, rank, Epoch::random());
        self.store.put(&epoch_key(index), &stored.record().encode())?;
        self.store.flush()?;
        let epoch = stored.epoch;
        let mut state = self.state();
        state.next_index = index + 1;
        state.growing = None;
        state.epochs.push_back(stored);
        Ok(epoch)
    }

    /// The index of a new epoch: the one after the last assigned index or, after the greatest index, the first free one. Nothing
    /// is stored under it when this returns. Called by the committer only.
    fn new_index(&self) -> Result<EpochIndex, StoreError> {
        let (next, held) = {
            let state = self.state();
            (state.next_index, state.epochs.iter().map(|stored| stored.index).collect::<Vec<_>>())
        };
        let indexes = (next..=EPOCH_INDEX_MAX).chain(0..next.min(EPOCH_INDEX_MAX + 1));
        for index in indexes.filter(|index| !held.contains(index)) {
            if self.is_stored(index)? {
                continue;
            }
            // The hint of what was acknowledged of an epoch that had the index before must not be taken for this one's.
            let hint = self.store.get(layout::ACKNOWLEDGED)?;
            let hint = hint.and_then(|hint| layout::decode_acknowledged(&hint));
            if hint.is_some_and(|(of, _)| of == index) {
                self.store.remove(layout::ACKNOWLEDGED)?;
            }
            return Ok(index);
        }
        Err(StoreError::Damaged {
            place: "the epochs of the outbox".into(),
            reason: format!("{EPOCH_INDEX_MAX} of them wait to be delivered, and no more can be told apart"),
        })
    }

    /// Returns true if anything is stored of the epoch with this index, including pages that were kept aside.
    fn is_stored(&self, index: EpochIndex) -> Result<bool, StoreError> {
        if self.store.get(&epoch_key(index))?.is_some() {
            return Ok(true);
        }
        let (first, last) = page_keys(index);
        let aside =
            self.store.range(&layout::aside_key(&first), &layout::aside_key(&last)).next().transpose()?;
        Ok(aside.is_some() || self.store.range(&first, &last).next().transpose()?.is_some())
    }

    /// The ledger that this outbox delivers to, once it is known.
    pub fn ledger(&self) -> Option<LedgerId> {
        *self.ledger.lock().expect("no thread panics while it holds the ledger's id")
    }

    /// Delivers to this ledger from now on; on disk when this returns.
    pub(super) fn bind(&self, ledger: LedgerId) -> Result<(), StoreError> {
        if self.ledger() != Some(ledger) {
            self.store.put(layout::LEDGER, &ledger.to_bytes())?;
            self.store.flush()?;
            *self.ledger.lock().expect("no thread panics while it holds the ledger's id") = Some(ledger);
        }
        Ok(())
    }

    pub(super) fn remembered(&self, key: &IdempotencyKey) -> Result<Option<Remembered>, StoreError> {
        let keys = self.keys();
        match keys.location_of(&key.text) {
            None => Ok(None),
            Some(KeyLocation::Acknowledged { page }) => keys.read(&self.store, page, &key.text),
            Some(KeyLocation::Waiting { epoch_index, sequence }) => {
                let Some((stored_key, value)) = self.last_page_up_to(epoch_index, sequence)? else {
                    return Ok(None);
                };
                let page = read_page(&stored_key, &value)?;
                let found = page.keys().into_iter().find(|(_, found)| found.text == key.text);
                Ok(found.map(|(sequence, found)| {
                    let (epoch, first) = page.first_answer(sequence);
                    Remembered { epoch, first, count: found.count, body: found.body }
                }))
            }
        }
    }

    /// The number of idempotency keys that are remembered. Blocks on the disk: the committer reads keys there.
    pub fn keys_remembered(&self) -> u64 {
        self.keys().len()
    }

    pub fn waiting(&self) -> u64 {
        self.size().0
    }

    /// The number of messages that wait, and the bytes of their pages.
    pub(super) fn size(&self) -> (u64, u64) {
        let state = self.state();
        let epochs = state.epochs.iter();
        epochs.fold((0, 0), |(depth, bytes), stored| (depth + stored.depth(), bytes + stored.bytes))
    }

    pub(super) fn progress(&self) -> OutboxProgress {
        OutboxProgress { position: self.position(), failed: false }
    }

    /// The range of the epoch that is being delivered.
    pub fn position(&self) -> Position {
        self.state().front().position()
    }

    /// The ranges of all epochs that are held, oldest first.
    pub fn positions(&self) -> Vec<Position> {
        self.state().epochs.iter().map(StoredEpoch::position).collect()
    }

    /// The epoch of new messages.
    pub fn epoch(&self) -> Epoch {
        self.state().newest().epoch
    }

    /// Running time of this outbox over all its processes, in seconds.
    fn running_s(&self) -> u64 {
        self.keys().ran_before_s() + self.opened.elapsed().as_secs()
    }

    /// Writes our progress into the file beside the store. By the committer only: an older mark must not overwrite a newer one.
    fn write_high_water(&self) {
        let Some(file) = &self.high_water_file else { return };
        let mark = {
            let state = self.state();
            let front = state.front();
            let skipped = state.epochs.len().saturating_sub(ENDS_MAX);
            OutboxHighWater {
                ends: state.epochs.iter().skip(skipped).map(|stored| (stored.epoch, stored.next)).collect(),
                oldest: front.epoch,
                acknowledged: front.acknowledged,
                boot: self.boot,
            }
        };
        file.write(&mark);
    }

    /// The last page that begins at or before `sequence`.
    fn last_page_up_to(&self, epoch_index: EpochIndex, sequence: u64) -> Result<Option<Entry>, StoreError> {
        self.store.last(&page_key(epoch_index, 0), &page_key(epoch_index, sequence + 1))
    }

    /// The key of the stored page that contains `sequence`, or of the place where it would begin.
    fn key_of_page_with(&self, epoch_index: EpochIndex, sequence: u64) -> Result<Vec<u8>, StoreError> {
        let page = self.last_page_up_to(epoch_index, sequence)?;
        let covers =
            page.filter(|(key, value)| read_page(key, value).is_ok_and(|page| page.last() >= sequence));
        Ok(covers.map_or_else(|| page_key(epoch_index, sequence), |(key, _)| key))
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().expect("no thread panics while it holds the keys")
    }

    /// Locks the state. It is never held while the disk is read or written, because HTTP looks here.
    fn state(&self) -> MutexGuard<'_, PagesState> {
        self.state.lock().expect("no thread panics while it holds the outbox's state")
    }
}

fn read_page(key: &[u8], value: &[u8]) -> Result<Page, StoreError> {
    let page = SealedPage::open_stored(value).map_err(|error| unreadable(key, &error))?;
    Ok(page.1)
}

fn unreadable(key: &[u8], error: &PageError) -> StoreError {
    StoreError::Damaged { place: format!("page {key:02x?} of the outbox"), reason: error.to_string() }
}
