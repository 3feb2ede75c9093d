//! The pages of an outbox, in a store: what is appended, given to the sender, acknowledged and deleted.
//!
//! What stands under which key: see [`super::life`].

use super::super::page::{self, Content, Key, Page, Record, SealedPage};
use super::super::{ClockReading, Digest, Epoch, LedgerId, Sequence};
use super::inspect::{self, Inspection, Stretch};
use super::keys::{Keys, LIFE_MAX, Place, Remembered};
use super::life::{self, Entry, Life, encode_acknowledged, entry_key, first_in, page_key};
use super::opening::{self, Damage, Moving};
use super::witness::{self, Note, Witness};
use super::{Appended, OpenError, Progress, Status};
use crate::store::{Batch, Store, StoreError};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// How far a wall clock may drift from a monotonic one within a page. When it was set by more, a new page begins.
const WALL_DRIFT_MS: u64 = 1000;

/// How many pages one step of a move takes: each is a removal and a new page in one batch.
const MOVED_AT_ONCE: usize = 400;

/// How many pages are deleted at a time, with the keys in them: a busy disk lets acknowledgements of a whole backlog pile up, and
/// 100,000 keys take 11 MB.
const DELETED_AT_ONCE: usize = 128;

/// What the outbox holds of the epoch that is being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Which of the epochs it is: a number that this outbox never gives again.
    pub life: u32,
    pub epoch: Epoch,
    /// The oldest sequence stored, or the next one.
    pub oldest: u64,
    /// The highest acknowledged sequence that is known, 0 for none.
    pub acknowledged: u64,
    /// The last sequence on disk, 0 for none.
    pub durable: u64,
}

/// Pages to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    pub pages: Vec<SealedPage>,
    /// The last sequence in them.
    pub last: Option<u64>,
    /// The oldest sequence that the outbox had when they were read, or its next one.
    pub oldest: u64,
}

/// Messages of one producer's post, to be stored together.
#[derive(Debug, Clone)]
pub(super) struct Post {
    pub records: Vec<Record>,
    /// When they were taken.
    pub at: ClockReading,
}

pub(super) struct Pages {
    store: Store,
    state: Mutex<State>,
    /// Used by the committer only.
    keys: Mutex<Keys>,
    ledger: Mutex<Option<LedgerId>>,
    witness: Option<Witness>,
    boot: super::super::clock::BootId,
    opened: Instant,
    damages: Vec<Damage>,
}

struct State {
    /// Oldest first. New messages belong to the last one; there always is one.
    lives: VecDeque<Life>,
    next_number: u32,
    /// The newest page while it may still grow. Its content is on disk.
    growing: Option<Growing>,
    /// While a group is being written: the first sequence of the first page that it changes. What the store shows
    /// from there on may not be on disk yet.
    writing_from: Option<u64>,
    /// The sender wants what is being written: the page is not to grow further.
    seal_wanted: bool,
}

impl State {
    fn front(&self) -> &Life {
        self.lives.front().expect("there always is an epoch")
    }
    fn newest(&self) -> &Life {
        self.lives.back().expect("there always is an epoch")
    }
    fn newest_mut(&mut self) -> &mut Life {
        self.lives.back_mut().expect("there always is an epoch")
    }
    fn life_mut(&mut self, number: u32) -> Option<&mut Life> {
        self.lives.iter_mut().find(|life| life.number == number)
    }
}

#[derive(Clone)]
struct Growing {
    page: Page,
    /// At most the length of its encoding.
    len_max: usize,
    /// The length of what is stored, 0 while it is not.
    stored_len: usize,
    /// Whether it holds more than what is stored.
    grew: bool,
}

/// A page to be written.
struct Writing {
    key: Vec<u8>,
    stored: Vec<u8>,
    first: u64,
}

/// Pages to be deleted, and the keys of their messages, by the epoch and sequence that their producers were told.
#[derive(Default)]
struct Doomed {
    keep_keys: bool,
    bytes: u64,
    pages: Vec<Vec<u8>>,
    keys: Vec<(Epoch, Vec<(u64, Key)>)>,
}

impl Doomed {
    fn add(&mut self, key: Vec<u8>, value: &[u8]) {
        if self.keep_keys
            && let Ok(page) = read_page(&key, value)
        {
            let told = keys_of(&page).into_iter().map(|(place, key)| (first_told(&page, place), key));
            for ((epoch, first), key) in told {
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
    fn records(&mut self) -> &mut Vec<Record> {
        match &mut self.page.content {
            Content::Records(records) => records,
            Content::Lost { .. } => unreachable!("a growing page was begun with records"),
        }
    }
    /// Whether the record still fits, taken at `at`; the first always does.
    fn fits(&self, record: &Record, at: &ClockReading) -> bool {
        if self.page.begun.wall_was_set_by(at).unsigned_abs() > WALL_DRIFT_MS {
            return false; // the times in a page follow from when it was begun
        }
        let held = match &self.page.content {
            Content::Records(records) => records.len(),
            Content::Lost { .. } => page::RECORDS_MAX,
        };
        held < page::RECORDS_MAX && self.len_max + record.encoded_len_max() <= page::BYTES_MAX
    }
    fn push(&mut self, mut record: Record, at: &ClockReading) {
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
    /// Reads what `store` holds, or begins a first epoch in it. `witness` is a file beside it.
    ///
    /// `machine` is who this is: when another machine wrote last, this directory is a copy, and new messages get a new epoch.
    pub(super) fn open(
        store: Store,
        witness: Option<&Path>,
        machine: Option<[u8; 16]>,
        now: ClockReading,
    ) -> Result<Pages, OpenError> {
        let witness = witness.map(Witness::open).transpose().map_err(OpenError::Witness)?;
        let (witness, note) = witness.map_or((None, None), |(witness, note)| (Some(witness), note));
        let same_boot = note.as_ref().is_some_and(|note| note.boot == now.boot && now.boot != [0; 16]);
        let found = opening::read(&store, note.as_ref(), same_boot, now)?;
        let ledger = match store.get(life::LEDGER)? {
            Some(id) => Some(LedgerId::from_bytes(id[..].try_into().map_err(|_| OpenError::Ledger)?)),
            None => None,
        };
        let pages = Pages {
            state: Mutex::new(State {
                lives: found.lives,
                next_number: found.next_number,
                growing: None,
                writing_from: None,
                seal_wanted: false,
            }),
            keys: Mutex::new(found.keys),
            ledger: Mutex::new(ledger),
            witness,
            boot: now.boot,
            opened: Instant::now(),
            damages: found.damages,
            store,
        };
        if let Some(moving) = found.moving {
            pages.go_on_moving(moving)?;
        }
        if pages.state().lives.is_empty() {
            pages.begin_epoch()?;
        } else if found.tail_in_doubt {
            let epoch = pages.begin_epoch()?;
            tracing::error!(%epoch, "the newest events are damaged, so that the next sequence is not certain; new events get a new epoch");
        }
        if let Some(machine) = machine {
            let wrote_last = pages.store.get(life::MACHINE)?;
            if wrote_last.as_deref() != Some(&machine[..]) {
                if wrote_last.is_some() {
                    let epoch = pages.begin_epoch()?;
                    tracing::error!(%epoch, "this data directory was written on another machine, so it is a copy: new events get a new epoch, and what waits is delivered under the old one. Make sure that the other machine does not go on under this garage's name");
                }
                pages.store.put(life::MACHINE, &machine)?;
                pages.store.flush()?;
            }
        }
        pages.note();
        Ok(pages)
    }

    /// What was found to be damaged at opening.
    pub(super) fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// New messages belong to a new epoch from now on, which is on disk when this returns. Called by the committer only.
    pub(super) fn begin_epoch(&self) -> Result<Epoch, StoreError> {
        let (number, rank) = {
            let state = self.state();
            (state.next_number, state.lives.back().map_or(0, |life| life.rank + 1))
        };
        let life = Life::begin(self.checked(number)?, rank, Epoch::random());
        self.store.put(&entry_key(number), &life.entry().encode())?;
        self.store.flush()?;
        let epoch = life.epoch;
        let mut state = self.state();
        state.next_number = number + 1;
        state.growing = None;
        state.lives.push_back(life);
        Ok(epoch)
    }

    fn checked(&self, number: u32) -> Result<u32, StoreError> {
        if number <= LIFE_MAX {
            return Ok(number);
        }
        Err(StoreError::Damaged {
            place: "the epochs of the outbox".into(),
            reason: format!("there were more than {LIFE_MAX}"),
        })
    }

    /// Moves what is not acknowledged of the epoch that is being delivered to a new one, in its place in the order. Each page
    /// remembers where it stood. Called by the committer only; a crash in between goes on at the next opening.
    pub(super) fn move_oldest(&self, first: u64) -> Result<(Epoch, u64), StoreError> {
        let life = self.position().life;
        self.acknowledge(life, first.saturating_sub(1));
        // Keys of what is delivered are written down, and its pages are gone before the move is begun.
        self.sweep()?;
        let (from, to) = {
            let mut state = self.state();
            let from = state.front().number;
            let to = Life::begin(self.checked(state.next_number)?, state.front().rank, Epoch::random());
            state.next_number += 1;
            (from, to)
        };
        let entry = Entry { takes_over: Some((from, first)), ..to.entry() };
        self.store.put(&entry_key(to.number), &entry.encode())?;
        self.store.flush()?;
        let number = to.number;
        {
            let mut state = self.state();
            state.growing = None;
            let place = state.lives.iter().position(|life| life.number == from).expect("it was the first");
            state.lives.insert(place + 1, to);
        }
        self.go_on_moving(Moving { from, first, to: number })
    }

    fn go_on_moving(&self, moving: Moving) -> Result<(Epoch, u64), StoreError> {
        let Moving { from, first: first_moved, to } = moving;
        loop {
            let (acknowledged, mut next, mut digest, epoch) = {
                let mut state = self.state();
                let acknowledged = state.life_mut(from).map_or(0, |life| life.acknowledged);
                let acknowledged = acknowledged.max(first_moved.saturating_sub(1));
                let to = state.life_mut(to).expect("the life that takes over is there");
                (acknowledged, to.next, to.newest_digest, to.epoch)
            };
            let mut batch = Batch::default();
            let mut moved = Vec::new();
            let entries = self.store.range(&page_key(from, 0), &page_key(from, u64::MAX));
            for entry in entries.take(MOVED_AT_ONCE) {
                let (key, value) = entry?;
                let page = read_page(&key, &value)?;
                batch.remove(key);
                if page.last() <= acknowledged {
                    continue;
                }
                // The beginning of the first page may be delivered, in a page that was cut differently.
                let delivered = (acknowledged + 1).saturating_sub(page.first.get());
                let later = |first: Sequence| {
                    Sequence::new(first.get() + delivered).expect("it lies between two sequences of a page")
                };
                let count = page.count() - delivered;
                if delivered > 0 {
                    let keys = keys_of(&page).into_iter().filter(|(place, _)| *place <= acknowledged);
                    let told = keys.map(|(place, key)| (first_told(&page, place), key));
                    for ((epoch, first), key) in told.collect::<Vec<_>>() {
                        let running_s = self.running_s();
                        self.keys().acknowledged(&self.store, epoch, [(first, key)], running_s)?;
                    }
                }
                let (former_epoch, former_first) = page.moved_from.unwrap_or((page.epoch, page.first));
                let first = Sequence::new(next).expect("sequences begin at 1");
                let last = Sequence::new(next + count - 1).expect("it is not before the first");
                let page = Page {
                    epoch,
                    first,
                    previous: digest,
                    moved_from: Some((former_epoch, later(former_first))),
                    begun: page.begun,
                    content: match page.content {
                        Content::Lost { reason, .. } => Content::Lost { last, reason },
                        Content::Records(mut records) => {
                            Content::Records(records.split_off(delivered as usize))
                        }
                    },
                };
                let sealed = SealedPage::seal(&page);
                let stored = sealed.to_stored();
                digest = Some(sealed.digest);
                next += count;
                moved.push((first.get(), stored.len() as u64, keys_of(&page)));
                batch.put(page_key(to, first.get()), stored);
            }
            if batch.is_empty() {
                break;
            }
            self.store.apply(&batch)?;
            let mut keys = self.keys();
            let mut state = self.state();
            let life = state.life_mut(to).expect("the life that takes over is there");
            for (first, length, its_keys) in moved {
                life.oldest_first.get_or_insert(first);
                life.newest_first = Some(first);
                life.bytes += length;
                for (sequence, key) in its_keys {
                    keys.waits(&key, to, sequence);
                }
            }
            life.next = next;
            life.newest_digest = digest;
        }
        let entry = {
            let mut state = self.state();
            state.lives.retain(|life| life.number != from);
            state.life_mut(to).expect("the life that takes over is there").entry()
        };
        // An opening must not take what is moved for lost: the note forgets the former epoch before the store does, and only
        // when the new one is on disk.
        self.store.flush()?;
        self.note();
        let mut batch = Batch::default();
        batch.remove(entry_key(from));
        batch.put(entry_key(to), entry.encode());
        self.store.apply(&batch)?;
        self.store.flush()?;
        self.note();
        let moved = self.state().life_mut(to).map_or(0, |life| life.next - 1);
        Ok((entry.epoch, moved))
    }

    pub(super) fn ledger(&self) -> Option<LedgerId> {
        *self.ledger.lock().expect("no thread panics while it holds the ledger's id")
    }

    /// Delivers to this ledger from now on; on disk when this returns. Called by the committer only.
    pub(super) fn bind(&self, ledger: LedgerId) -> Result<(), StoreError> {
        if self.ledger() != Some(ledger) {
            self.store.put(life::LEDGER, &ledger.to_bytes())?;
            self.store.flush()?;
            *self.ledger.lock().expect("no thread panics while it holds the ledger's id") = Some(ledger);
        }
        Ok(())
    }

    /// What was stored under this key. Called by the committer only.
    pub(super) fn remembered(&self, key: &Key) -> Result<Option<Remembered>, StoreError> {
        let keys = self.keys();
        match keys.place_of(&key.text) {
            None => Ok(None),
            Some(Place::Acknowledged { page }) => keys.read(&self.store, page, &key.text),
            Some(Place::Waiting { life, sequence }) => {
                let Some((stored_key, value)) =
                    self.store.last(&page_key(life, 0), &page_key(life, sequence + 1))?
                else {
                    return Ok(None);
                };
                let page = read_page(&stored_key, &value)?;
                let found = keys_of(&page).into_iter().find(|(_, found)| found.text == key.text);
                Ok(found.map(|(place, found)| {
                    let (epoch, first) = first_told(&page, place);
                    Remembered { epoch, first, count: found.count, body: found.body }
                }))
            }
        }
    }

    /// How many keys are remembered.
    pub(super) fn keys_remembered(&self) -> u64 {
        self.keys().len()
    }

    /// Writes a group of posts and flushes once. Called by the committer only.
    ///
    /// On `Ok` all of the group is on disk. On `Err` the store is poisoned.
    pub(super) fn commit(&self, group: &[Post]) -> Result<Vec<Appended>, StoreError> {
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

    /// Deletes what is acknowledged, except the newest page, and epochs that are delivered. Called by the committer only.
    ///
    /// What it deletes need not be on disk: whatever a crash brings back is sent again, and known to the receiver as a duplicate.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        while self.sweep_front()? {}
        let running_s = self.running_s();
        self.keys().forget_old(&self.store, running_s)
    }

    /// Returns whether the front epoch was delivered whole and is gone.
    fn sweep_front(&self) -> Result<bool, StoreError> {
        let (life, is_last) = {
            let state = self.state();
            (state.front().clone(), state.lives.len() == 1)
        };
        let done = !is_last && life.acknowledged == life.next - 1;
        let everything = is_last && life.acknowledged == life.next - 1;
        if let Some(newest) = life.newest_first {
            let mut oldest = life.oldest_first;
            while let Some(from) = oldest.filter(|oldest| *oldest <= life.acknowledged) {
                // Deleting must not overtake the note by which an opening knows that it was deletion.
                self.note();
                oldest = self.delete(&life, from, newest, done)?;
                if oldest.is_some() {
                    // sled takes writes faster than a busy disk, and keeps them all in memory.
                    self.store.flush()?;
                }
            }
        }
        if done {
            self.store.remove(&entry_key(life.number))?;
            let mut state = self.state();
            state.lives.retain(|other| other.number != life.number);
            drop(state);
            self.note();
            return Ok(true);
        }
        if everything {
            // After a restart the newest page would look as if it still waited.
            let value = encode_acknowledged(life.number, life.acknowledged);
            if self.store.get(life::ACKNOWLEDGED)?.as_deref() != Some(&value) {
                self.store.put(life::ACKNOWLEDGED, &value)?;
            }
        }
        Ok(false)
    }

    /// Deletes acknowledged pages of a life, `all` of them or all but the newest: up to [`DELETED_AT_ONCE`], beginning with
    /// `oldest`. Returns where the next ones begin, if there are more.
    fn delete(&self, life: &Life, oldest: u64, newest: u64, all: bool) -> Result<Option<u64>, StoreError> {
        let mut oldest_left = oldest;
        let mut doomed = Doomed { keep_keys: !self.keys().is_empty(), ..Doomed::default() };
        let mut more = None;
        let end = if all { u64::MAX } else { newest };
        let through = life.acknowledged;
        let mut former: Option<(Vec<u8>, Vec<u8>)> = None;
        let from = page_key(life.number, oldest);
        for entry in self.store.range(&from, &page_key(life.number, end.min(through).saturating_add(2))) {
            let (key, value) = entry?;
            let first = first_in(&key)?;
            // A page ends before the next one begins.
            if let Some((key, value)) = former.take()
                && first - 1 <= through
            {
                doomed.add(key, &value);
                oldest_left = first;
                if doomed.pages.len() == DELETED_AT_ONCE {
                    more = Some(first);
                    break;
                }
            }
            former = Some((key, value));
        }
        if all && let Some((key, value)) = former {
            doomed.add(key, &value);
            oldest_left = life.next;
        }
        {
            // From here on nobody is told that these are still here.
            let mut state = self.state();
            let now = state.life_mut(life.number).expect("only the committer takes epochs away");
            debug_assert!(now.acknowledged >= through, "only the committer takes an acknowledgement back");
            now.bytes -= doomed.bytes;
            now.oldest_first = (oldest_left < life.next).then_some(oldest_left);
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

    pub(super) fn acknowledge(&self, life: u32, through: u64) {
        let mut state = self.state();
        // A reply may speak of an epoch that was delivered or moved meanwhile.
        if let Some(life) = state.life_mut(life) {
            assert!(through < life.next, "the sender settles only what it was given");
            life.acknowledged = life.acknowledged.max(through);
        }
    }

    /// The receiver has less than it once acknowledged: what is still here waits again, after a restart too, and is on disk
    /// as such when this returns. Called by the committer only, so that no sweep is under way.
    pub(super) fn unacknowledge(&self, life: u32, mark: u64) -> Result<(), StoreError> {
        let acknowledged = {
            let mut state = self.state();
            let Some(life) = state.life_mut(life) else { return Ok(()) };
            life.acknowledged = life.acknowledged.min(mark.max(life.oldest() - 1));
            life.acknowledged
        };
        // An opening believes the hint and the note: neither may go on telling what was taken back.
        let hint = self.store.get(life::ACKNOWLEDGED)?;
        if hint
            .and_then(|hint| life::decode_acknowledged(&hint))
            .is_some_and(|(number, through)| number == life && through > acknowledged)
        {
            self.store.put(life::ACKNOWLEDGED, &encode_acknowledged(life, acknowledged))?;
            self.store.flush()?;
        }
        self.note();
        Ok(())
    }

    /// The state is not held while pages are read, so that a disk that does not answer holds up the sender alone. What is read
    /// cannot change meanwhile: it lies before the page that grows or is being written, and was flushed. The growing page is
    /// sealed first, when everything before it is taken; what is appended from then on begins a page behind it.
    pub(super) fn take(&self, life: u32, from: u64, max_bytes: usize) -> Result<Taken, StoreError> {
        let mut read: Vec<(u64, SealedPage)> = Vec::new();
        let mut bytes = 0;
        let mut next = None;
        'reading: loop {
            let room = if read.is_empty() { usize::MAX } else { max_bytes.saturating_sub(bytes) };
            let Some((after, end)) = self.unchanging(life, next.unwrap_or(from), room) else { break };
            let begin = match next {
                None => self.key_of_page_with(life, after)?,
                Some(_) => page_key(life, after),
            };
            for entry in self.store.range(&begin, &page_key(life, end)) {
                let (key, value) = entry?;
                bytes += value.len();
                if !read.is_empty() && bytes > max_bytes {
                    break 'reading;
                }
                let sealed = SealedPage::from_stored(&value)
                    .and_then(|sealed| sealed.open().map(|page| (page.last(), sealed)));
                read.push(sealed.map_err(|error| unreadable(&key, &error))?);
            }
            next = Some(end);
        }
        let mut state = self.state();
        let Some(its) = state.life_mut(life) else {
            return Ok(Taken { oldest: from, ..Taken::default() }); // it is delivered or moved: nothing of it is left
        };
        // A sweep says first what it deletes: from its oldest on, everything was there while we read.
        let oldest = its.oldest();
        let pages = read.into_iter().skip_while(|(last, _)| *last < oldest);
        let (lasts, pages): (Vec<u64>, Vec<SealedPage>) = pages.unzip();
        Ok(Taken { pages, last: lasts.last().copied(), oldest })
    }

    /// Where reading begins, and up to where pages never change again, when something is there from `from` on. Up to `room`
    /// bytes are wanted: when they reach beyond the sealed pages, the growing page is sealed, or will be once it is written.
    fn unchanging(&self, life: u32, from: u64, room: usize) -> Option<(u64, u64)> {
        let mut state = self.state();
        let is_newest = state.newest().number == life;
        let its = state.life_mut(life)?;
        let (from, next) = (from.max(its.oldest()), its.next);
        let end = match (state.writing_from, &state.growing) {
            (Some(writing), _) if is_newest => {
                state.seal_wanted |= from >= writing;
                writing
            }
            (None, Some(growing)) if is_newest => {
                let first = growing.page.first.get();
                if (first..next).contains(&from) && growing.stored_len <= room {
                    state.growing = None;
                    next
                } else {
                    first
                }
            }
            _ => next,
        };
        (from < end).then_some((from, end))
    }

    /// Waiting messages after a place, with the epoch and sequence that they have now.
    pub(super) fn peek(
        &self,
        after: Option<(u32, u64)>,
        limit: usize,
    ) -> Result<Vec<super::Waiting>, StoreError> {
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
                    found.push(super::Waiting { life: number, epoch, sequence, record });
                }
            }
        }
        Ok(found)
    }

    pub(super) fn status(&self) -> Result<Status, StoreError> {
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

    pub(super) fn inspect(&self) -> Result<Inspection, StoreError> {
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
            inspect::look_over(&self.store, stretch, &mut found)?;
        }
        found.kept_aside = inspect::kept_aside(&self.store)?;
        Ok(found)
    }

    /// How many messages wait, and how many bytes their pages take.
    pub(super) fn size(&self) -> (u64, u64) {
        let state = self.state();
        let lives = state.lives.iter();
        lives.fold((0, 0), |(depth, bytes), life| (depth + life.depth(), bytes + life.bytes))
    }

    pub(super) fn progress(&self) -> Progress {
        let position = self.position();
        let Position { life, oldest, durable, .. } = position;
        Progress { life, oldest, durable, failed: false }
    }

    pub(super) fn position(&self) -> Position {
        self.state().front().position()
    }

    /// Every epoch that is held, oldest first.
    pub(super) fn positions(&self) -> Vec<Position> {
        self.state().lives.iter().map(Life::position).collect()
    }

    /// The epoch that new messages get.
    pub(super) fn epoch(&self) -> Epoch {
        self.state().newest().epoch
    }

    /// Running time of this outbox over all its processes, in seconds.
    fn running_s(&self) -> u64 {
        self.keys().ran_before_s() + self.opened.elapsed().as_secs()
    }

    /// Writes down beside the store how far we are. Called by the committer only: an older note must not follow a newer one.
    fn note(&self) {
        let Some(witness) = &self.witness else { return };
        let note = {
            let state = self.state();
            let front = state.front();
            let skipped = state.lives.len().saturating_sub(witness::ENDS_MAX);
            Note {
                ends: state.lives.iter().skip(skipped).map(|life| (life.epoch, life.next)).collect(),
                oldest: front.epoch,
                acknowledged: front.acknowledged,
                boot: self.boot,
            }
        };
        witness.write(&note);
    }

    /// The key of the stored page that `sequence` stands in, or of the place where it would begin.
    fn key_of_page_with(&self, life: u32, sequence: u64) -> Result<Vec<u8>, StoreError> {
        let page = self.store.last(&page_key(life, 0), &page_key(life, sequence + 1))?;
        match page {
            Some((key, value)) => {
                let covers = read_page(&key, &value).is_ok_and(|page| page.last() >= sequence);
                Ok(if covers { key } else { page_key(life, sequence) })
            }
            None => Ok(page_key(life, sequence)),
        }
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().expect("no thread panics while it holds the keys")
    }

    /// Never held while the disk is asked for anything: those who serve producers and people look here.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the outbox's state")
    }
}

/// The keys in a page, with the places of the messages that carry them.
pub(super) fn keys_of(page: &Page) -> Vec<(u64, Key)> {
    match &page.content {
        Content::Records(records) => (page.first.get()..)
            .zip(records)
            .filter_map(|(place, record)| Some((place, record.key.clone()?)))
            .collect(),
        Content::Lost { .. } => Vec::new(),
    }
}

/// Where the message at `place` was when its producer was answered.
fn first_told(page: &Page, place: u64) -> (Epoch, u64) {
    match page.moved_from {
        Some((epoch, first)) => (epoch, first.get() + (place - page.first.get())),
        None => (page.epoch, place),
    }
}

fn read_page(key: &[u8], value: &[u8]) -> Result<Page, StoreError> {
    let page = SealedPage::from_stored(value).and_then(|sealed| sealed.open());
    page.map_err(|error| unreadable(key, &error))
}

fn unreadable(key: &[u8], error: &page::PageError) -> StoreError {
    StoreError::Damaged { place: format!("page {key:02x?} of the outbox"), reason: error.to_string() }
}
