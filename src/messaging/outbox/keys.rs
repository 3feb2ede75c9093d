//! The keys under which producers post: what was stored under each, so that posting again stores nothing.
//!
//! **Promise.** A key is remembered while its messages wait, and after that as long as it is one of the last
//! [`KEPT_LEAST`], or its messages were acknowledged less than [`KEPT_FOR_S`] of running time ago. Nothing else forgets one:
//! at [`KEPT_MOST`] new keys are refused.
//! **Kept by.** The key of a waiting message is a field of its record. When the record is deleted, the key moves into a page
//! of keys (`k` + number), which is written before. This index holds 16 bytes for each key and is rebuilt at opening.
//! **Not promised.** Wall time: running time is that of a monotonic clock while the process runs. A crash sets it back
//! to when the last key was acknowledged, which only keeps keys for longer.
//!
//! A page of keys is a version byte, then [`Page`] as postcard.

use super::super::page::Key;
use super::super::{Digest, Epoch};
use crate::codes;
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// So many of the last acknowledged keys are kept, however old.
pub const KEPT_LEAST: u64 = 100_000;
/// All are kept for so long after they were acknowledged, in seconds of running time.
pub const KEPT_FOR_S: u64 = 24 * 3600;
/// No more than so many are remembered, waiting or acknowledged.
pub const KEPT_MOST: u64 = 1_000_000;

/// The most that an entry takes, and what a page of them takes without.
const ENTRY_MAX: usize = 16 + 16 + 10 + 5;
const HEADER_MAX: usize = 1 + 16 + 10 + 3;
const ENTRIES_MAX: usize = (crate::store::VALUE_MAX - HEADER_MAX) / ENTRY_MAX;

const UNREADABLE: &str = "a page of idempotency keys cannot be read";
const UNREADABLE_HINT: &str =
    "check the disk; a producer that repeats one of these keys stores a second event";

/// What was stored under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered {
    pub epoch: Epoch,
    pub first: u64,
    pub count: u32,
    /// Of what was posted.
    pub body: Digest,
}

/// Where a key's record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the waiting message at this sequence of this life.
    Waiting { life: u32, sequence: u64 },
    /// In this page of keys.
    Acknowledged { page: u64 },
}

/// A place in eight bytes: there may be a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed(u64);

/// Lives above this cannot be told apart in the index. After it, numbers of epochs that were delivered are given again.
pub(super) const LIFE_MAX: u32 = 0x7FFF;

impl Packed {
    const ACKNOWLEDGED: u64 = 1 << 63;
    fn of(place: Place) -> Packed {
        match place {
            Place::Waiting { life, sequence } => {
                debug_assert!(life <= LIFE_MAX && sequence < 1 << 48);
                Packed(u64::from(life) << 48 | sequence)
            }
            Place::Acknowledged { page } => Packed(Self::ACKNOWLEDGED | page),
        }
    }
    fn place(self) -> Place {
        if self.0 & Self::ACKNOWLEDGED != 0 {
            Place::Acknowledged { page: self.0 & !Self::ACKNOWLEDGED }
        } else {
            Place::Waiting { life: (self.0 >> 48) as u32, sequence: self.0 & ((1 << 48) - 1) }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    /// Of all its entries.
    epoch: Epoch,
    /// Running time when the last of them was acknowledged, in seconds.
    at_running_s: u64,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    key: Digest,
    body: Digest,
    first: u64,
    count: u32,
}

/// How many entries a page of keys has, and how old it is.
#[derive(Debug, Clone, Copy)]
struct Shelf {
    number: u64,
    entries: u64,
    at_running_s: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Keys {
    /// By the first eight bytes of the key's digest. What is found is compared whole, in the record.
    index: BTreeMap<u64, Packed>,
    /// The pages of keys, oldest first.
    shelves: VecDeque<Shelf>,
    acknowledged: u64,
    /// The newest page of keys, which may grow.
    newest: Option<Page>,
    next_page: u64,
    /// Running time before this process, in seconds.
    ran_before_s: u64,
}

impl Keys {
    /// Reads the pages of keys. What waits is told with [`Keys::found_waiting`].
    ///
    /// A page that cannot be read is left where it is, and its keys are forgotten, loudly.
    pub fn load(store: &Store) -> Result<Keys, StoreError> {
        let mut keys = Keys {
            index: BTreeMap::new(),
            shelves: VecDeque::new(),
            acknowledged: 0,
            newest: None,
            next_page: 0,
            ran_before_s: 0,
        };
        for entry in store.range(b"k", b"l") {
            let (key, value) = entry?;
            let number = key.get(1..).and_then(|number| Some(u64::from_be_bytes(number.try_into().ok()?)));
            let (Some(number), Some(page)) = (number, decode(&value)) else {
                tracing::error!(
                    code = %codes::IDEMPOTENCY_KEYS_UNREADABLE,
                    key = %key.escape_ascii(),
                    hint = UNREADABLE_HINT,
                    "{UNREADABLE}"
                );
                keys.next_page = number.map_or(keys.next_page, |number| number + 1);
                continue;
            };
            for entry in &page.entries {
                keys.index.insert(short(&entry.key), Packed::of(Place::Acknowledged { page: number }));
            }
            keys.acknowledged += page.entries.len() as u64;
            keys.ran_before_s = keys.ran_before_s.max(page.at_running_s);
            keys.shelves.push_back(Shelf {
                number,
                entries: page.entries.len() as u64,
                at_running_s: page.at_running_s,
            });
            keys.next_page = number + 1;
            keys.newest = Some(page);
        }
        Ok(keys)
    }

    /// Running time before this process began.
    pub fn ran_before_s(&self) -> u64 {
        self.ran_before_s
    }

    pub fn len(&self) -> u64 {
        self.index.len() as u64
    }

    /// Whether any key is remembered, so that a message that is deleted may have one.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// A message with this key waits here.
    pub fn waits(&mut self, key: &Key, life: u32, sequence: u64) {
        let place = Place::Waiting { life, sequence };
        self.index.insert(short(&Digest::of(&key.text)), Packed::of(place));
    }

    /// A message with this key was found at opening. When a crash came between writing the key down and deleting the message,
    /// it stands in a page of keys already, and stays there.
    pub fn found_waiting(&mut self, key: &Key, life: u32, sequence: u64) {
        if !self.is_written_down(key) {
            self.waits(key, life, sequence);
        }
    }

    /// Whether the key stands in a page of keys.
    pub fn is_written_down(&self, key: &Key) -> bool {
        matches!(self.place_of(&key.text), Some(Place::Acknowledged { .. }))
    }

    /// Where to look for what was stored under `text`. Another key may stand there: compare.
    pub fn place_of(&self, text: &[u8]) -> Option<Place> {
        self.index.get(&short(&Digest::of(text))).map(|packed| packed.place())
    }

    /// What stands under `text` in a page of keys.
    pub fn read(&self, store: &Store, page: u64, text: &[u8]) -> Result<Option<Remembered>, StoreError> {
        let Some(page) = stored(store, page)? else {
            return Ok(None);
        };
        let key = Digest::of(text);
        let entry = page.entries.iter().find(|entry| entry.key == key);
        Ok(entry.map(|entry| Remembered {
            epoch: page.epoch,
            first: entry.first,
            count: entry.count,
            body: entry.body,
        }))
    }

    /// The messages with these keys are about to be deleted: writes the keys down, before. No flush: writes keep their order.
    pub fn acknowledged(
        &mut self,
        store: &Store,
        epoch: Epoch,
        keys: impl IntoIterator<Item = (u64, Key)>,
        running_s: u64,
    ) -> Result<(), StoreError> {
        let mut dirty = false;
        for (first, key) in keys {
            if self.is_written_down(&key) {
                continue;
            }
            let fits = |page: &Page| page.epoch == epoch && page.entries.len() < ENTRIES_MAX;
            if !self.newest.as_ref().is_some_and(fits) {
                if std::mem::take(&mut dirty) {
                    self.write_newest(store)?;
                }
                self.newest = Some(Page { epoch, at_running_s: running_s, entries: Vec::new() });
                self.shelves.push_back(Shelf { number: self.next_page, entries: 0, at_running_s: running_s });
                self.next_page += 1;
            }
            let (page, shelf) = match (&mut self.newest, self.shelves.back_mut()) {
                (Some(page), Some(shelf)) => (page, shelf),
                _ => unreachable!("there is a newest page now"),
            };
            let digest = Digest::of(&key.text);
            page.at_running_s = running_s;
            shelf.at_running_s = running_s;
            shelf.entries += 1;
            page.entries.push(Entry { key: digest, body: key.body, first, count: key.count });
            self.acknowledged += 1;
            self.index.insert(short(&digest), Packed::of(Place::Acknowledged { page: shelf.number }));
            dirty = true;
        }
        if dirty { self.write_newest(store) } else { Ok(()) }
    }

    /// Forgets what need not be remembered any more. Cheap when there is nothing.
    pub fn forget_old(&mut self, store: &Store, running_s: u64) -> Result<(), StoreError> {
        while let Some(shelf) = self.shelves.front().copied()
            && self.shelves.len() > 1
            && self.acknowledged - shelf.entries >= KEPT_LEAST
            && running_s.saturating_sub(shelf.at_running_s) >= KEPT_FOR_S
        {
            let here = Packed::of(Place::Acknowledged { page: shelf.number });
            match stored(store, shelf.number)? {
                Some(page) => {
                    for entry in page.entries {
                        let short = short(&entry.key);
                        if self.index.get(&short) == Some(&here) {
                            self.index.remove(&short);
                        }
                    }
                }
                // Which keys stood in it is not known any more; it takes a walk through all.
                None => self.index.retain(|_, place| *place != here),
            }
            store.remove(&page_key(shelf.number))?;
            self.shelves.pop_front();
            self.acknowledged -= shelf.entries;
        }
        Ok(())
    }

    fn write_newest(&self, store: &Store) -> Result<(), StoreError> {
        let (Some(page), Some(shelf)) = (&self.newest, self.shelves.back()) else {
            return Ok(());
        };
        let value = postcard::to_extend(page, vec![1]).expect("a page of keys always encodes");
        store.put(&page_key(shelf.number), &value)
    }
}

fn page_key(number: u64) -> Vec<u8> {
    [b"k", &number.to_be_bytes()[..]].concat()
}

/// A page of keys; `None`, loudly, when it is not there or cannot be read.
fn stored(store: &Store, number: u64) -> Result<Option<Page>, StoreError> {
    let value = match store.get(&page_key(number)) {
        Err(StoreError::Damaged { .. }) => None,
        value => value?,
    };
    let page = value.and_then(|value| decode(&value));
    if page.is_none() {
        tracing::error!(
            code = %codes::IDEMPOTENCY_KEYS_UNREADABLE,
            number,
            hint = UNREADABLE_HINT,
            "{UNREADABLE}"
        );
    }
    Ok(page)
}

fn decode(value: &[u8]) -> Option<Page> {
    match value.split_first() {
        Some((1, body)) => postcard::from_bytes(body).ok(),
        _ => None,
    }
}

fn short(digest: &Digest) -> u64 {
    let bytes = digest.as_bytes().first_chunk().expect("a digest has sixteen bytes");
    u64::from_be_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::simulated::Disk;
    use bytes::Bytes;

    const EPOCH: Epoch = Epoch::from_bytes([4; 16]);

    fn key(n: u64) -> Key {
        Key { text: Bytes::from(format!("key-{n}")), body: Digest::of(&n.to_be_bytes()), count: 1 }
    }

    fn acknowledge(keys: &mut Keys, store: &Store, range: std::ops::Range<u64>, running_s: u64) {
        keys.acknowledged(store, EPOCH, range.map(|n| (n + 1, key(n))), running_s).unwrap();
    }

    fn remembered(keys: &Keys, store: &Store, n: u64) -> Option<u64> {
        match keys.place_of(&key(n).text)? {
            Place::Acknowledged { page } => {
                keys.read(store, page, &key(n).text).unwrap().map(|found| found.first)
            }
            Place::Waiting { sequence, .. } => Some(sequence),
        }
    }

    #[test]
    fn a_key_is_found_where_it_waits_and_after_it_was_acknowledged_and_after_a_restart() {
        let store = Store::on(Disk::default());
        let mut keys = Keys::load(&store).unwrap();
        keys.waits(&key(1), 3, 77);
        assert_eq!(keys.place_of(b"key-1"), Some(Place::Waiting { life: 3, sequence: 77 }));
        acknowledge(&mut keys, &store, 0..500, 9);
        for keys in [keys, Keys::load(&store).unwrap()] {
            assert_eq!(remembered(&keys, &store, 1), Some(2));
            assert_eq!(remembered(&keys, &store, 499), Some(500));
            assert_eq!(remembered(&keys, &store, 500), None);
            assert_eq!(keys.len(), 500);
        }
        assert_eq!(Keys::load(&store).unwrap().ran_before_s(), 9);
    }

    /// A crash between writing keys down and deleting their messages once made the index forget both.
    #[test]
    fn a_key_that_is_written_down_stays_so_when_its_message_is_found_again() {
        let store = Store::on(Disk::default());
        let mut keys = Keys::load(&store).unwrap();
        acknowledge(&mut keys, &store, 0..5, 1);
        let mut keys = Keys::load(&store).unwrap();
        (0..5).for_each(|n| keys.found_waiting(&key(n), 0, n + 1));
        acknowledge(&mut keys, &store, 0..5, 2);
        assert_eq!((keys.len(), keys.acknowledged), (5, 5));
        assert_eq!(remembered(&keys, &store, 3), Some(4));
        assert_eq!(Keys::load(&store).unwrap().acknowledged, 5);
    }

    #[test]
    fn a_key_is_forgotten_only_when_it_is_old_and_many_came_after_it() {
        let store = Store::on(Disk::default());
        let mut keys = Keys::load(&store).unwrap();
        acknowledge(&mut keys, &store, 0..1000, 0);
        keys.forget_old(&store, 10 * KEPT_FOR_S).unwrap();
        assert_eq!(keys.len(), 1000, "old, but among the last");
        acknowledge(&mut keys, &store, 1000..KEPT_LEAST + 1000, KEPT_FOR_S - 1);
        keys.forget_old(&store, KEPT_FOR_S - 1).unwrap();
        assert_eq!(remembered(&keys, &store, 0), Some(1), "many came after it, but it is young");
        keys.forget_old(&store, KEPT_FOR_S).unwrap();
        assert_eq!(remembered(&keys, &store, 0), None);
        assert_eq!(remembered(&keys, &store, 1000), Some(1001));
        assert!(keys.len() >= KEPT_LEAST);
        let reloaded = Keys::load(&store).unwrap();
        assert_eq!(reloaded.len(), keys.len());
    }

    /// A page that could be read at opening, and not any more when its keys were to be forgotten, once left them in the index for
    /// good, where they counted towards the most that are remembered.
    #[test]
    fn keys_of_a_page_that_became_unreadable_are_forgotten_in_their_time() {
        let store = Store::on(Disk::default());
        let mut keys = Keys::load(&store).unwrap();
        acknowledge(&mut keys, &store, 0..KEPT_LEAST + 1000, 0);
        store.put(&page_key(0), b"nonsense").unwrap();
        assert_eq!(remembered(&keys, &store, 0), None);
        keys.forget_old(&store, KEPT_FOR_S).unwrap();
        let kept: u64 = keys.shelves.iter().map(|shelf| shelf.entries).sum();
        assert_eq!((keys.len(), keys.acknowledged), (kept, kept));
        assert_eq!(store.get(&page_key(0)).unwrap(), None);
        assert_eq!(remembered(&keys, &store, KEPT_LEAST), Some(KEPT_LEAST + 1));
    }

    #[test]
    fn a_place_fits_into_eight_bytes() {
        for place in [
            Place::Waiting { life: LIFE_MAX, sequence: (1 << 48) - 1 },
            Place::Waiting { life: 0, sequence: 1 },
            Place::Acknowledged { page: 1 << 60 },
        ] {
            assert_eq!(Packed::of(place).place(), place);
        }
    }
}
