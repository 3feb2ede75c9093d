//! Reading what a directory holds, whatever has happened to it.
//!
//! **Promise.** Every page that can be read is delivered. What was confirmed, is not acknowledged and cannot be read is
//! told as lost, with its place and the reason, and what was found there is kept. Nothing is made up.
//! **Kept by.** Sequences have no gaps: a page that does not begin where the one before it ends shows what is missing. The end
//! and the beginning are checked against the [`witness`](super::witness) and the hint of the last acknowledgement.
//! **Not promised.** That a tail which the disk took away is noticed when a power cut took the witness with it; the receiver's
//! mark then tells (`sender::Replied::ahead`).

use super::super::page::{Content, Page, SealedPage};
use super::super::{ClockReading, Digest, Epoch, Sequence};
use super::keys::Keys;
use super::life::{self, Entry, Life, aside_key, entry_key, page_key, parse_page_key};
use super::witness::Note;
use super::{OnLoss, OpenError};
use crate::codes;
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use std::collections::{BTreeMap, VecDeque};

/// The most messages that a page of unknown content held.
const PAGE_MOST: u64 = super::super::page::RECORDS_MAX as u64;

/// Messages that were confirmed and cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub epoch: Epoch,
    pub first: u64,
    pub last: u64,
    pub reason: String,
}

/// What a directory holds.
pub(super) struct Found {
    /// In the order in which they are delivered. May be empty.
    pub lives: VecDeque<Life>,
    /// The greatest number that any life has or had, plus one.
    pub next_number: u32,
    pub keys: Keys,
    pub damages: Vec<Damage>,
    /// The newest messages are damaged: how many there were is not certain, so that new ones need a new epoch.
    pub tail_in_doubt: bool,
    /// A move between two lives that was interrupted.
    pub moving: Option<Moving>,
}

/// Messages of one life that are on their way to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moving {
    pub from: u32,
    /// The first sequence that moves; what comes before it was delivered.
    pub first: u64,
    pub to: u32,
}

/// A page as it was found.
enum Piece {
    Sound(Box<Sound>),
    Unreadable { key: Vec<u8>, first: Option<u64>, reason: String },
}

struct Sound {
    key: Vec<u8>,
    first: u64,
    last: u64,
    digest: Digest,
    length: u64,
    keys: Vec<(u64, super::super::page::Key)>,
    is_lost: bool,
}

/// What is known of a life beside its pages.
#[derive(Clone, Copy)]
struct LifeOf<'a> {
    note: Option<&'a Note>,
    /// The note is the last one that was written.
    same_boot: bool,
    /// Its oldest pages go to another life.
    is_moving_away: bool,
    is_newest: bool,
}

/// Reads everything, sets aside what cannot be read, and writes down what is lost. All of it is on disk when this returns.
///
/// `note` is the witness's, `same_boot` whether it is the last one that was written.
pub(super) fn read(
    store: &Store,
    note: Option<&Note>,
    same_boot: bool,
    on_loss: OnLoss,
    now: ClockReading,
) -> Result<Found, OpenError> {
    let mut entries: BTreeMap<u32, Entry> = BTreeMap::new();
    let (mut next_number, mut tail_in_doubt, mut moving) = (0, false, None);
    for entry in store.range(b"e", b"f") {
        let (key, value) = entry?;
        let number = key.get(1..).and_then(|number| Some(u32::from_be_bytes(number.try_into().ok()?)));
        match (number, Entry::decode(&value)) {
            (Some(number), Some(entry)) => {
                next_number = next_number.max(number + 1);
                entries.insert(number, entry);
            }
            // Its pages name their epoch.
            _ if on_loss == OnLoss::Refuse => {
                return Err(refused("the record of an epoch".into(), "unreadable").into());
            }
            _ => {
                tracing::error!(
                    code = %codes::EPOCH_RECORD_UNREADABLE,
                    key = %key.escape_ascii(),
                    hint = "check the disk",
                    "the record of an epoch cannot be read; it is rebuilt from its pages"
                )
            }
        }
    }
    let mut found = Found {
        lives: VecDeque::new(),
        next_number,
        keys: Keys::load(store)?,
        damages: Vec::new(),
        tail_in_doubt: false,
        moving: None,
    };
    // A life at a time, so that a backlog of millions stays small in memory.
    let mut lives: Vec<Life> = Vec::new();
    let mut reader = Reader { store, now, on_loss, damages: Vec::new(), keys: &mut found.keys, wrote: false };
    let newest_rank = entries.values().map(|entry| entry.rank).max();
    let mut numbers: Vec<u32> = entries.keys().copied().collect();
    numbers.extend(numbers_of_pages(store)?);
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        next_number = next_number.max(number + 1);
        let entry = match entries.get(&number) {
            Some(entry) => *entry,
            None if on_loss == OnLoss::Refuse => {
                return Err(refused("the record of an epoch".into(), "missing").into());
            }
            None => match reader.epoch_in_pages(number)? {
                Some(epoch) => {
                    let entry = Entry { epoch, rank: u64::from(number), takes_over: None, took_over: None };
                    store.put(&entry_key(number), &entry.encode())?;
                    reader.wrote = true;
                    entry
                }
                None => {
                    reader.set_all_aside(number)?;
                    tail_in_doubt = true;
                    continue;
                }
            },
        };
        let is_newest = newest_rank.is_none_or(|newest| entry.rank >= newest);
        let mut life = Life { took_over: entry.took_over, ..Life::begin(number, entry.rank, entry.epoch) };
        // A life that is being moved away loses its oldest pages to another one.
        let is_moving_away =
            entries.values().any(|entry| entry.takes_over.is_some_and(|(from, _)| from == number));
        let of = LifeOf { note, same_boot, is_moving_away, is_newest };
        tail_in_doubt |= reader.read_life(&mut life, of)? && is_newest;
        if let Some((from, first)) = entry.takes_over {
            moving = Some(Moving { from, first, to: number });
        }
        lives.push(life);
    }
    // An epoch that the store does not know any more: a log that was cut short may have lost all of it.
    let mut rank = lives.iter().map(|life| life.rank + 1).max().unwrap_or(0);
    for (epoch, next) in note.map_or(&[][..], |note| &note.ends) {
        let acknowledged = note.map_or(0, |note| note.acknowledged_of(*epoch));
        // One that was delivered whole is deleted, after the note of it. The newest one never is.
        let is_newest = note.and_then(|note| note.ends.last()).is_some_and(|(newest, _)| newest == epoch);
        if lives.iter().any(|life| life.epoch == *epoch) || (*next <= acknowledged + 1 && !is_newest) {
            continue;
        }
        tail_in_doubt |= is_newest;
        if *next <= acknowledged + 1 {
            continue;
        }
        if on_loss == OnLoss::Refuse {
            return Err(refused(format!("epoch {epoch}"), "missing").into());
        }
        let entry = Entry { epoch: *epoch, rank, takes_over: None, took_over: None };
        store.put(&entry_key(next_number), &entry.encode())?;
        let mut life = Life::begin(next_number, rank, *epoch);
        reader.lose(&mut life, 1, next - 1, acknowledged, &mut Vec::new())?;
        life.acknowledged = acknowledged;
        (rank, next_number) = (rank + 1, next_number + 1);
        lives.push(life);
    }
    let wrote = reader.wrote;
    found.damages = std::mem::take(&mut reader.damages);
    found.next_number = next_number;
    found.tail_in_doubt = tail_in_doubt;
    found.moving = moving;
    lives.sort_by_key(|life| (life.rank, life.number));
    found.lives = lives.into();
    if wrote {
        store.flush()?;
    }
    Ok(found)
}

/// The lives that have a page, by looking at the first of each.
fn numbers_of_pages(store: &Store) -> Result<Vec<u32>, StoreError> {
    let mut numbers = Vec::new();
    let mut from = b"p".to_vec();
    while let Some(entry) = store.range(&from, b"q").next() {
        let (key, _) = entry?;
        let number = key.get(1..5).map(|number| u32::from_be_bytes(number.try_into().expect("four bytes")));
        let Some(number) = number else {
            // A key that is none of ours: what follows it may be.
            from = [&key[..], &[0]].concat();
            continue;
        };
        numbers.push(number);
        match number.checked_add(1) {
            Some(next) => from = page_key(next, 0),
            None => break,
        }
    }
    Ok(numbers)
}

struct Reader<'a> {
    store: &'a Store,
    now: ClockReading,
    on_loss: OnLoss,
    damages: Vec<Damage>,
    keys: &'a mut Keys,
    wrote: bool,
}

impl Reader<'_> {
    /// Goes through the pages of a life in order. Returns whether its end is in doubt.
    fn read_life(&mut self, life: &mut Life, of: LifeOf<'_>) -> Result<bool, StoreError> {
        let LifeOf { note, same_boot, is_moving_away, is_newest } = of;
        let beginning_is_known = same_boot && !is_moving_away;
        let mut ends_in_a_loss = false;
        let store = self.store;
        let mut expected: Option<u64> = None;
        let hint = self.store.get(life::ACKNOWLEDGED)?.and_then(|value| life::decode_acknowledged(&value));
        let hinted = hint.filter(|(number, _)| *number == life.number).map_or(0, |(_, through)| through);
        let noted = note.filter(|note| beginning_is_known && note.oldest == life.epoch);
        // Below this everything was acknowledged and may be gone.
        let acknowledged = hinted.max(noted.map_or(0, |note| note.acknowledged));
        if let Some(note) = noted {
            expected = Some(note.acknowledged + 1);
        } else if beginning_is_known && note.is_some_and(|note| note.next_of(life.epoch).is_some()) {
            // It waits behind the one that was being delivered: nothing of it was acknowledged.
            expected = Some(1);
        }
        let mut unreadable: Vec<(Vec<u8>, u64, String)> = Vec::new();
        let (from, to) = (page_key(life.number, 0), page_key(life.number, u64::MAX));
        for entry in store.range(&from, &to) {
            let (key, value) = entry?;
            match piece(key, &value, life.epoch) {
                Piece::Unreadable { key, first, reason } => {
                    let first = first.unwrap_or(expected.unwrap_or(1));
                    unreadable.push((key, first, reason));
                }
                Piece::Sound(sound) if life.newest_first.is_some() && sound.first < life.next => {
                    let reason = format!("it begins with {}, where {} was due", sound.first, life.next);
                    unreadable.push((sound.key, sound.first, reason));
                }
                Piece::Sound(sound) => {
                    let due = expected.or(unreadable.first().map(|(_, first, _)| *first));
                    if due.is_some_and(|due| due < sound.first) || !unreadable.is_empty() {
                        let due = due.unwrap_or(sound.first);
                        self.lose(life, due, sound.first - 1, acknowledged, &mut unreadable)?;
                    }
                    life.oldest_first.get_or_insert(sound.first);
                    life.newest_first = Some(sound.first);
                    life.newest_digest = Some(sound.digest);
                    life.next = sound.last + 1;
                    life.bytes += sound.length;
                    expected = Some(life.next);
                    ends_in_a_loss = sound.is_lost;
                    for (sequence, key) in &sound.keys {
                        self.keys.found_waiting(key, life.number, *sequence);
                    }
                }
            }
        }
        let mut in_doubt = !unreadable.is_empty();
        let noted_next = note.and_then(|note| note.next_of(life.epoch)).unwrap_or(1);
        // At least so many had been given out. The hint speaks of the newest life only.
        let known_next = noted_next.max(if is_newest { hinted + 1 } else { 1 });
        let due = unreadable.first().map_or(life.next, |(_, first, _)| {
            // What lay before it may be missing, too.
            expected.map_or(*first, |expected| expected.min(*first)).max(life.next)
        });
        // What was here is in the life that takes over.
        let moved_away = is_moving_away && life.newest_first.is_none() && !in_doubt;
        if !moved_away && (in_doubt || known_next > life.next) {
            // A note of this boot is exact. Otherwise there may have been as much as the last page held.
            let at_most = unreadable.last().map_or(due, |(_, first, _)| (*first).max(due)) + PAGE_MOST - 1;
            let last = match known_next > due {
                true if same_boot || unreadable.is_empty() => known_next - 1,
                true => (known_next - 1).max(at_most),
                false => at_most,
            };
            self.lose(life, due, last, acknowledged, &mut unreadable)?;
            life.next = life.next.max(last + 1);
            in_doubt = true;
        }
        if let Some(oldest) = life.oldest_first {
            life.acknowledged = oldest - 1;
        }
        life.acknowledged = life.acknowledged.max(acknowledged).min(life.next - 1);
        // After an end that was lost at an earlier opening the next sequence is as uncertain as it was then.
        Ok(in_doubt || ends_in_a_loss)
    }

    /// `first..=last` cannot be read. Keeps what was found there, and writes a page that says so, unless all of it was
    /// acknowledged.
    fn lose(
        &mut self,
        life: &mut Life,
        first: u64,
        last: u64,
        acknowledged: u64,
        unreadable: &mut Vec<(Vec<u8>, u64, String)>,
    ) -> Result<(), StoreError> {
        let reason = match unreadable.first() {
            Some((_, _, reason)) => reason.clone(),
            None => "their pages are missing from the store".into(),
        };
        let first = first.max(acknowledged + 1);
        if self.on_loss == OnLoss::Refuse && first <= last {
            return Err(refused(format!("sequences {first} to {last} of epoch {}", life.epoch), &reason));
        }
        // First what was found is kept, then the loss is told, and only then the pages go: writes keep their order.
        let mut batch = Batch::default();
        let mut removed = Vec::new();
        for (key, ..) in unreadable.drain(..) {
            if let Some(value) = self.store.get(&key)? {
                batch.put(aside_key(&key), value);
            }
            if key != page_key(life.number, first) || first > last {
                removed.push(key);
            }
            if batch.len() == BATCH_MAX {
                self.store.apply(&std::mem::take(&mut batch))?;
            }
        }
        if !batch.is_empty() {
            self.store.apply(&batch)?;
            self.wrote = true;
        }
        if first > last {
            self.remove(&removed)?;
            tracing::warn!(
                code = %codes::DELIVERED_PAGES_UNREADABLE,
                epoch = %life.epoch, last, reason,
                hint = "check the disk",
                "pages that were delivered already cannot be read; nothing is lost"
            );
            return Ok(());
        }
        let page = SealedPage::seal(&Page {
            epoch: life.epoch,
            first: Sequence::new(first).expect("sequences begin at 1"),
            // What was before it may have been read back in an older form.
            previous: None,
            moved_from: None,
            begun: self.now,
            content: Content::Lost {
                last: Sequence::new(last).expect("it is not before the first"),
                reason: shortened(&reason),
            },
        });
        let stored = page.to_stored();
        self.store.put(&page_key(life.number, first), &stored)?;
        self.wrote = true;
        self.remove(&removed)?;
        tracing::error!(
            code = %codes::CONFIRMED_EVENTS_UNREADABLE,
            epoch = %life.epoch, first, last, reason,
            hint = "check the disk; what was found is kept in the store, and the rest is delivered",
            "events that were confirmed cannot be read any more; the server records them as missing"
        );
        self.damages.push(Damage { epoch: life.epoch, first, last, reason });
        life.oldest_first.get_or_insert(first);
        life.newest_first = Some(first);
        life.newest_digest = Some(page.digest);
        life.next = last + 1;
        life.bytes += stored.len() as u64;
        Ok(())
    }

    fn remove(&mut self, keys: &[Vec<u8>]) -> Result<(), StoreError> {
        for key in keys {
            self.store.remove(key)?;
            self.wrote = true;
        }
        Ok(())
    }

    fn epoch_in_pages(&self, number: u32) -> Result<Option<Epoch>, StoreError> {
        for entry in self.store.range(&page_key(number, 0), &page_key(number, u64::MAX)) {
            let (_, value) = entry?;
            if let Ok(page) = SealedPage::from_stored(&value).and_then(|sealed| sealed.open()) {
                return Ok(Some(page.epoch));
            }
        }
        Ok(None)
    }

    /// Pages of which not even the epoch is known.
    fn set_all_aside(&mut self, number: u32) -> Result<(), StoreError> {
        let keys: Vec<Vec<u8>> = {
            let entries = self.store.range(&page_key(number, 0), &page_key(number, u64::MAX));
            entries.map(|entry| entry.map(|(key, _)| key)).collect::<Result<_, _>>()?
        };
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
            self.wrote = true;
        }
        Ok(())
    }
}

/// Messages are missing, and an opening is to write nothing then.
fn refused(place: String, reason: &str) -> StoreError {
    StoreError::Damaged { place, reason: reason.to_owned() }
}

fn piece(key: Vec<u8>, value: &[u8], epoch: Epoch) -> Piece {
    let Some((_, first)) = parse_page_key(&key) else {
        return Piece::Unreadable { key, first: None, reason: "its key has the wrong length".into() };
    };
    let unreadable = |reason: String| Piece::Unreadable { key: key.clone(), first: Some(first), reason };
    let (digest, page) = match SealedPage::view_stored(value) {
        Ok(viewed) => viewed,
        Err(error) => return unreadable(error.to_string()),
    };
    if page.first.get() != first {
        return unreadable(format!("it begins with sequence {}", page.first));
    }
    if page.epoch != epoch {
        return unreadable(format!("it belongs to epoch {}", page.epoch));
    }
    Piece::Sound(Box::new(Sound {
        key,
        first,
        last: page.last(),
        digest,
        length: value.len() as u64,
        keys: page.keys(),
        is_lost: page.is_lost(),
    }))
}

/// Reasons travel, and a page is short.
fn shortened(reason: &str) -> String {
    let end = (0..=reason.len().min(512)).rev().find(|end| reason.is_char_boundary(*end));
    reason[..end.unwrap_or(0)].to_owned()
}
