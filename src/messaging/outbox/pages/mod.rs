//! The pages of an outbox, in a store: what is appended, given to the sender, acknowledged and deleted.
//!
//! What stands under which key: see [`super::life`]. One file for each thing that happens to them: [`growing`], [`sweeping`],
//! [`moving`], [`looking`].

mod growing;
mod looking;
mod moving;
mod sweeping;

use super::keys::{Keys, LIFE_MAX, Place, Remembered};
use super::life::{self, Life, entry_key, page_key};
use super::opening::{self, Damage};
use super::witness::{self, Note, Witness};
use super::{OpenError, Options, Progress};
use crate::codes;
use crate::messaging::page::{self, Content, Key, Page, Record, SealedPage};
use crate::messaging::{ClockReading, Epoch, LedgerId};
use crate::store::{Store, StoreError};
use growing::Growing;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;
use tokio::sync::watch;

/// What the outbox holds of the epoch that is being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Which of the epochs it is: a number that this outbox gives again at the earliest after 32,767 others.
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
pub(in crate::messaging::outbox) struct Post {
    pub records: Vec<Record>,
    /// When they were taken.
    pub at: ClockReading,
}

pub(in crate::messaging::outbox) struct Pages {
    store: Store,
    state: Mutex<State>,
    /// Used by the committer only.
    keys: Mutex<Keys>,
    ledger: Mutex<Option<LedgerId>>,
    witness: Option<Witness>,
    boot: crate::messaging::clock::BootId,
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

impl Pages {
    /// Reads what `store` holds, or begins a first epoch in it.
    pub(in crate::messaging::outbox) fn open(
        store: Store,
        options: &Options,
        now: ClockReading,
    ) -> Result<Pages, OpenError> {
        let witness =
            options.witness.as_deref().map(Witness::open).transpose().map_err(OpenError::Witness)?;
        let (witness, note) = witness.map_or((None, None), |(witness, note)| (Some(witness), note));
        let same_boot = note.as_ref().is_some_and(|note| note.boot == now.boot && now.boot != [0; 16]);
        let found = opening::read(&store, note.as_ref(), same_boot, options.on_loss, now)?;
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
            tracing::error!(
                code = %codes::NEWEST_PAGE_DAMAGED,
                %epoch,
                hint = "check the disk",
                "the newest events are damaged, so that the next sequence is not certain; new events get a new epoch"
            );
        }
        if let Some(machine) = options.machine {
            let wrote_last = pages.store.get(life::MACHINE)?;
            if wrote_last.as_deref() != Some(&machine[..]) {
                if wrote_last.is_some() {
                    let epoch = pages.begin_epoch()?;
                    tracing::error!(
                        code = %codes::MACHINE_CHANGED,
                        %epoch,
                        hint = "make sure that the other machine does not go on under this garage's name",
                        "this data directory was written on another machine, so it is a copy: new events get a new epoch"
                    );
                }
                pages.store.put(life::MACHINE, &machine)?;
                pages.store.flush()?;
            }
        }
        pages.note();
        Ok(pages)
    }

    pub(in crate::messaging::outbox) fn store(&self) -> &Store {
        &self.store
    }

    pub(in crate::messaging::outbox) fn unreadable(&self) -> watch::Receiver<bool> {
        self.store.unreadable()
    }

    /// What was found to be damaged at opening.
    pub(in crate::messaging::outbox) fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// New messages belong to a new epoch from now on, which is on disk when this returns. Called by the committer only.
    pub(in crate::messaging::outbox) fn begin_epoch(&self) -> Result<Epoch, StoreError> {
        let number = self.new_number()?;
        let rank = self.state().lives.back().map_or(0, |life| life.rank + 1);
        let life = Life::begin(number, rank, Epoch::random());
        self.store.put(&entry_key(number), &life.entry().encode())?;
        self.store.flush()?;
        let epoch = life.epoch;
        let mut state = self.state();
        state.next_number = number + 1;
        state.growing = None;
        state.lives.push_back(life);
        Ok(epoch)
    }

    /// A number for a new life: the one after the last that was given, and after the greatest one the first that is free. Nothing is
    /// stored under it when this returns. Called by the committer only.
    fn new_number(&self) -> Result<u32, StoreError> {
        let (next, held) = {
            let state = self.state();
            (state.next_number, state.lives.iter().map(|life| life.number).collect::<Vec<_>>())
        };
        let numbers = (next..=LIFE_MAX).chain(0..next.min(LIFE_MAX + 1));
        for number in numbers.filter(|number| !held.contains(number)) {
            if self.is_stored(number)? {
                continue;
            }
            // The hint of what was acknowledged of an epoch that had the number before must not be taken for this one's.
            let hint = self.store.get(life::ACKNOWLEDGED)?.and_then(|hint| life::decode_acknowledged(&hint));
            if hint.is_some_and(|(of, _)| of == number) {
                self.store.remove(life::ACKNOWLEDGED)?;
            }
            return Ok(number);
        }
        Err(StoreError::Damaged {
            place: "the epochs of the outbox".into(),
            reason: format!("{LIFE_MAX} of them wait to be delivered, and no more can be told apart"),
        })
    }

    /// Whether anything is stored of the life with this number, pages that were kept aside among it.
    fn is_stored(&self, number: u32) -> Result<bool, StoreError> {
        if self.store.get(&entry_key(number))?.is_some() {
            return Ok(true);
        }
        let (first, last) = (page_key(number, 0), page_key(number, u64::MAX));
        for (first, last) in [(life::aside_key(&first), life::aside_key(&last)), (first, last)] {
            if let Some(entry) = self.store.range(&first, &last).next() {
                return entry.map(|_| true);
            }
        }
        Ok(false)
    }

    pub(in crate::messaging::outbox) fn ledger(&self) -> Option<LedgerId> {
        *self.ledger.lock().expect("no thread panics while it holds the ledger's id")
    }

    /// Delivers to this ledger from now on; on disk when this returns. Called by the committer only.
    pub(in crate::messaging::outbox) fn bind(&self, ledger: LedgerId) -> Result<(), StoreError> {
        if self.ledger() != Some(ledger) {
            self.store.put(life::LEDGER, &ledger.to_bytes())?;
            self.store.flush()?;
            *self.ledger.lock().expect("no thread panics while it holds the ledger's id") = Some(ledger);
        }
        Ok(())
    }

    /// What was stored under this key. Called by the committer only.
    pub(in crate::messaging::outbox) fn remembered(
        &self,
        key: &Key,
    ) -> Result<Option<Remembered>, StoreError> {
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
    pub(in crate::messaging::outbox) fn keys_remembered(&self) -> u64 {
        self.keys().len()
    }

    /// The state is not held while pages are read, so that a disk that does not answer holds up the sender alone. What is read
    /// cannot change meanwhile: it lies before the page that grows or is being written, and was flushed. The growing page is
    /// sealed first, when everything before it is taken; what is appended from then on begins a page behind it.
    pub(in crate::messaging::outbox) fn take(
        &self,
        life: u32,
        from: u64,
        max_bytes: usize,
    ) -> Result<Taken, StoreError> {
        let mut read: Vec<Read> = Vec::new();
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
                let opened = SealedPage::from_stored(&value).and_then(|sealed| {
                    let page = sealed.open()?;
                    Ok(Read { first: page.first.get(), last: page.last(), sealed })
                });
                read.push(opened.map_err(|error| unreadable(&key, &error))?);
            }
            next = Some(end);
        }
        let mut state = self.state();
        let Some(its) = state.life_mut(life) else {
            return Ok(Taken { oldest: from, ..Taken::default() }); // it is delivered or moved: nothing of it is left
        };
        // A sweep says first what it deletes: from its oldest on, everything was there while we read.
        let (epoch, oldest) = (its.epoch, its.oldest());
        drop(state);
        let pages: Vec<Read> = read.into_iter().skip_while(|page| page.last < oldest).collect();
        if let Some((first, last)) = first_gap(&pages, from.max(oldest), next) {
            self.store.contradicts_itself();
            return Err(StoreError::Damaged {
                place: format!("sequences {first} to {last} of epoch {epoch} in the outbox"),
                reason: "their pages were there and cannot be found any more".into(),
            });
        }
        let last = pages.last().map(|page| page.last);
        Ok(Taken { pages: pages.into_iter().map(|page| page.sealed).collect(), last, oldest })
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

    /// How many messages wait, and how many bytes their pages take.
    pub(in crate::messaging::outbox) fn size(&self) -> (u64, u64) {
        let state = self.state();
        let lives = state.lives.iter();
        lives.fold((0, 0), |(depth, bytes), life| (depth + life.depth(), bytes + life.bytes))
    }

    pub(in crate::messaging::outbox) fn progress(&self) -> Progress {
        let position = self.position();
        let Position { life, oldest, durable, .. } = position;
        Progress { life, oldest, durable, failed: false }
    }

    pub(in crate::messaging::outbox) fn position(&self) -> Position {
        self.state().front().position()
    }

    /// Every epoch that is held, oldest first.
    pub(in crate::messaging::outbox) fn positions(&self) -> Vec<Position> {
        self.state().lives.iter().map(Life::position).collect()
    }

    /// The epoch that new messages get.
    pub(in crate::messaging::outbox) fn epoch(&self) -> Epoch {
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

/// A page that was read to be sent.
struct Read {
    first: u64,
    last: u64,
    sealed: SealedPage,
}

/// The first sequences that `pages`, which were read from `from` on, do not cover: up to the next one of them, or up to `end`,
/// when everything before it was read.
///
/// A store whose index is damaged gives out pages that do not follow each other. A receiver would ask for what is between
/// them for ever.
fn first_gap(pages: &[Read], from: u64, end: Option<u64>) -> Option<(u64, u64)> {
    let mut due = from;
    for page in pages {
        if page.first > due {
            return Some((due, page.first - 1));
        }
        due = due.max(page.last + 1);
    }
    end.filter(|end| due < *end).map(|end| (due, end - 1))
}

/// The keys in a page, with the places of the messages that carry them.
pub(in crate::messaging::outbox) fn keys_of(page: &Page) -> Vec<(u64, Key)> {
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
