//! The keys under which producers post: what was stored under each, so that posting again stores nothing.
//!
//! **Promise.** A key is remembered while its messages wait, and after that as long as it is one of the last [`KEPT_LEAST`], or
//! its messages were acknowledged less than [`KEPT_FOR_S`] of running time ago. No key is forgotten for any other reason: at
//! [`KEPT_MOST`] keys, new ones are refused.
//! **Kept by.** The key of a waiting message is a field of it. When the message is deleted, its key moves into a page
//! of keys (`k` + number), which is written before. The index holds 16 bytes for each key and is rebuilt at opening.
//! **Not promised.** That the time is wall time: running time is measured by a monotonic clock while the process runs. A crash
//! sets it back to when the last key was acknowledged, which only keeps keys longer.
//!
//! A page of keys is a version byte, then [`KeyPage`] as postcard.

use super::super::page::IdempotencyKey;
use super::super::{Digest, Epoch};
use super::layout::EpochIndex;
use crate::codes;
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

pub const KEPT_LEAST: u64 = 100_000;
pub const KEPT_FOR_S: u64 = 24 * 3600;
pub const KEPT_MOST: u64 = 1_000_000;

/// The longest encoding of an entry, and of a page without entries.
const ENTRY_MAX: usize = 16 + 16 + 10 + 5;
const HEADER_MAX: usize = 1 + 16 + 10 + 3;
const ENTRIES_MAX: usize = (crate::store::VALUE_MAX - HEADER_MAX) / ENTRY_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered {
    pub epoch: Epoch,
    pub first: u64,
    pub count: u32,
    pub body: Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyLocation {
    /// In the waiting message at this sequence of this epoch.
    Waiting {
        epoch_index: EpochIndex,
        sequence: u64,
    },
    Acknowledged {
        page: u64,
    },
}

/// A location in eight bytes: there may be a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PackedLocation(u64);

/// Epoch indexes above this do not fit into a [`PackedLocation`]. After it, indexes of delivered epochs are reused.
pub(super) const EPOCH_INDEX_MAX: EpochIndex = 0x7FFF;

impl PackedLocation {
    const ACKNOWLEDGED: u64 = 1 << 63;
    fn of(location: KeyLocation) -> PackedLocation {
        match location {
            KeyLocation::Waiting { epoch_index, sequence } => {
                debug_assert!(epoch_index <= EPOCH_INDEX_MAX && sequence < 1 << 48);
                PackedLocation(u64::from(epoch_index) << 48 | sequence)
            }
            KeyLocation::Acknowledged { page } => PackedLocation::acknowledged(page),
        }
    }
    fn acknowledged(page: u64) -> PackedLocation {
        PackedLocation(Self::ACKNOWLEDGED | page)
    }
    fn location(self) -> KeyLocation {
        if self.0 & Self::ACKNOWLEDGED != 0 {
            KeyLocation::Acknowledged { page: self.0 & !Self::ACKNOWLEDGED }
        } else {
            KeyLocation::Waiting { epoch_index: (self.0 >> 48) as u32, sequence: self.0 & ((1 << 48) - 1) }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyPage {
    /// The epoch of all its entries.
    epoch: Epoch,
    /// Running time when the last of them was acknowledged, in seconds.
    at_running_s: u64,
    entries: Vec<StoredKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredKey {
    key: Digest,
    body: Digest,
    first: u64,
    count: u32,
}

#[derive(Debug, Clone, Copy)]
struct KeyPageInfo {
    number: u64,
    entries: u64,
    at_running_s: u64,
}

#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Locations by the first eight bytes of the key's digest. The whole key is compared where it stands.
    index: BTreeMap<u64, PackedLocation>,
    pages: VecDeque<KeyPageInfo>,
    acknowledged: u64,
    /// The newest page of keys, which may grow.
    newest: Option<KeyPage>,
    next_page: u64,
    /// Running time before this process, in seconds.
    ran_before_s: u64,
}

impl Keys {
    /// Reads the pages of keys. Waiting messages are added with [`Keys::found_waiting`].
    ///
    /// A page that cannot be read is left where it is, and its keys are forgotten, with an error in the log.
    pub fn load(store: &Store) -> Result<Keys, StoreError> {
        let mut keys = Keys::default();
        for entry in store.range(b"k", b"l") {
            let (key, value) = entry?;
            let number = key.get(1..).and_then(|number| Some(u64::from_be_bytes(number.try_into().ok()?)));
            let (Some(number), Some(page)) = (number, decode(&value)) else {
                say_unreadable(&key);
                keys.next_page = number.map_or(keys.next_page, |number| number + 1);
                continue;
            };
            for entry in &page.entries {
                keys.index.insert(short(&entry.key), PackedLocation::acknowledged(number));
            }
            let (entries, at_running_s) = (page.entries.len() as u64, page.at_running_s);
            keys.acknowledged += entries;
            keys.ran_before_s = keys.ran_before_s.max(at_running_s);
            keys.pages.push_back(KeyPageInfo { number, entries, at_running_s });
            keys.next_page = number + 1;
            keys.newest = Some(page);
        }
        Ok(keys)
    }

    pub fn ran_before_s(&self) -> u64 {
        self.ran_before_s
    }

    pub fn len(&self) -> u64 {
        self.index.len() as u64
    }

    pub fn waits(&mut self, key: &IdempotencyKey, epoch_index: EpochIndex, sequence: u64) {
        let location = KeyLocation::Waiting { epoch_index, sequence };
        self.index.insert(short(&Digest::of(&key.text)), PackedLocation::of(location));
    }

    /// Adds the key of a message that was found at opening. When a crash came between writing the key down and deleting the
    /// message, the key is already in a page of keys, and stays there.
    pub fn found_waiting(&mut self, key: &IdempotencyKey, epoch_index: EpochIndex, sequence: u64) {
        if !self.is_written_down(key) {
            self.waits(key, epoch_index, sequence);
        }
    }

    pub fn is_written_down(&self, key: &IdempotencyKey) -> bool {
        matches!(self.location_of(&key.text), Some(KeyLocation::Acknowledged { .. }))
    }

    /// Where to look for what was stored under `text`. The record found there may belong to another key, so compare it.
    pub fn location_of(&self, text: &[u8]) -> Option<KeyLocation> {
        self.index.get(&short(&Digest::of(text))).map(|packed| packed.location())
    }

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

    /// Writes down the keys of messages that are about to be deleted. It does not flush: writes keep their order.
    pub fn acknowledged(
        &mut self,
        store: &Store,
        epoch: Epoch,
        keys: impl IntoIterator<Item = (u64, IdempotencyKey)>,
        running_s: u64,
    ) -> Result<(), StoreError> {
        let mut dirty = false;
        for (first, key) in keys {
            if self.is_written_down(&key) {
                continue;
            }
            let fits = |page: &KeyPage| page.epoch == epoch && page.entries.len() < ENTRIES_MAX;
            if !self.newest.as_ref().is_some_and(fits) {
                if std::mem::take(&mut dirty) {
                    self.write_newest(store)?;
                }
                let (number, at_running_s) = (self.next_page, running_s);
                self.newest = Some(KeyPage { epoch, at_running_s, entries: Vec::new() });
                self.pages.push_back(KeyPageInfo { number, entries: 0, at_running_s });
                self.next_page += 1;
            }
            let (Some(page), Some(info)) = (&mut self.newest, self.pages.back_mut()) else {
                unreachable!("there is a newest page now");
            };
            let digest = Digest::of(&key.text);
            page.at_running_s = running_s;
            info.at_running_s = running_s;
            info.entries += 1;
            page.entries.push(StoredKey { key: digest, body: key.body, first, count: key.count });
            self.acknowledged += 1;
            self.index.insert(short(&digest), PackedLocation::acknowledged(info.number));
            dirty = true;
        }
        if dirty { self.write_newest(store) } else { Ok(()) }
    }

    /// Forgets what need not be remembered any more. Cheap when there is nothing.
    pub fn forget_old(&mut self, store: &Store, running_s: u64) -> Result<(), StoreError> {
        while let Some(info) = self.pages.front().copied()
            && self.pages.len() > 1
            && self.acknowledged - info.entries >= KEPT_LEAST
            && running_s.saturating_sub(info.at_running_s) >= KEPT_FOR_S
        {
            let here = PackedLocation::acknowledged(info.number);
            match stored(store, info.number)? {
                Some(page) => {
                    for entry in page.entries {
                        let short = short(&entry.key);
                        if self.index.get(&short) == Some(&here) {
                            self.index.remove(&short);
                        }
                    }
                }
                // Which keys stood in it is not known any more; it takes a walk through all.
                None => self.index.retain(|_, location| *location != here),
            }
            store.remove(&page_key(info.number))?;
            self.pages.pop_front();
            self.acknowledged -= info.entries;
        }
        Ok(())
    }

    fn write_newest(&self, store: &Store) -> Result<(), StoreError> {
        let (Some(page), Some(info)) = (&self.newest, self.pages.back()) else {
            return Ok(());
        };
        let value = postcard::to_extend(page, vec![1]).expect("a page of keys always encodes");
        store.put(&page_key(info.number), &value)
    }
}

fn page_key(number: u64) -> Vec<u8> {
    [b"k", &number.to_be_bytes()[..]].concat()
}

/// A page of keys; `None`, with an error in the log, when it is not there or cannot be read.
fn stored(store: &Store, number: u64) -> Result<Option<KeyPage>, StoreError> {
    let value = match store.get(&page_key(number)) {
        Err(StoreError::Damaged { .. }) => None,
        value => value?,
    };
    let page = value.and_then(|value| decode(&value));
    if page.is_none() {
        say_unreadable(&page_key(number));
    }
    Ok(page)
}

fn say_unreadable(page_key: &[u8]) {
    tracing::error!(
        code = %codes::IDEMPOTENCY_KEYS_UNREADABLE,
        key = %page_key.escape_ascii(),
        hint = "check the disk; a producer that repeats one of these keys stores a second event",
        "a page of idempotency keys cannot be read"
    );
}

fn decode(value: &[u8]) -> Option<KeyPage> {
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

    fn key(n: u64) -> IdempotencyKey {
        IdempotencyKey { text: Bytes::from(format!("key-{n}")), body: Digest::of(&n.to_be_bytes()), count: 1 }
    }

    fn acknowledge(keys: &mut Keys, store: &Store, range: std::ops::Range<u64>, running_s: u64) {
        keys.acknowledged(store, EPOCH, range.map(|n| (n + 1, key(n))), running_s).unwrap();
    }

    fn remembered(keys: &Keys, store: &Store, n: u64) -> Option<u64> {
        match keys.location_of(&key(n).text)? {
            KeyLocation::Acknowledged { page } => {
                keys.read(store, page, &key(n).text).unwrap().map(|found| found.first)
            }
            KeyLocation::Waiting { sequence, .. } => Some(sequence),
        }
    }

    #[test]
    fn a_key_is_found_where_it_waits_and_after_it_was_acknowledged_and_after_a_restart() {
        let store = Store::on(Disk::default());
        let mut keys = Keys::load(&store).unwrap();
        keys.waits(&key(1), 3, 77);
        assert_eq!(keys.location_of(b"key-1"), Some(KeyLocation::Waiting { epoch_index: 3, sequence: 77 }));
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
        let kept: u64 = keys.pages.iter().map(|info| info.entries).sum();
        assert_eq!((keys.len(), keys.acknowledged), (kept, kept));
        assert_eq!(store.get(&page_key(0)).unwrap(), None);
        assert_eq!(remembered(&keys, &store, KEPT_LEAST), Some(KEPT_LEAST + 1));
    }

    #[test]
    fn a_location_fits_into_eight_bytes() {
        for location in [
            KeyLocation::Waiting { epoch_index: EPOCH_INDEX_MAX, sequence: (1 << 48) - 1 },
            KeyLocation::Waiting { epoch_index: 0, sequence: 1 },
            KeyLocation::Acknowledged { page: 1 << 60 },
        ] {
            assert_eq!(PackedLocation::of(location).location(), location);
        }
    }
}
