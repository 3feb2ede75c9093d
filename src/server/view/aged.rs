//! The cars that are inside for more than 30 days: most are misread plates, whose exits never come. They leave memory, and are found
//! in the store when their exit comes after all, or when they are listed.
//!
//! **Promise.** The result of applying events does not depend on whether a car is in memory or here. Memory holds the cars that
//! entered within [`KEEP_DAYS`] days, however long a server has run.
//! **Kept by.** A car is here exactly when the event of its entry stands before [`Age::before`], a position that follows from the
//! days on which pages were received. Looking for one costs a read only for plates that [`AgedPlates`] does not rule out.
//!
//! | key | value |
//! | --- | --- |
//! | `vj` + plate + 0 (u8) + garage (u32) | an [`OpenStay`] stay |
//! | `vk` + garage (u32) + n (u32) | a bit for each of 8,192 pages of the garage: one of these stays is in it |
//! | `vt` | an [`Age`] |

use super::codec::{damaged, encode, key_u32, read_range, sized};
use super::page_maps::{AGED, OCCUPIED, place_in_map};
use super::pages::{SlotAddress, StoredPassage};
use super::plate_filter::PlateFilter;
use super::unwritten::Unwritten;
use crate::parking::Plate;
use crate::store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

pub const KEEP_DAYS: i64 = 30;
/// The key of the [`Age`].
pub const AGE: &[u8] = b"vt";
const DAY_MS: i64 = 24 * 3_600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenStay {
    pub address: SlotAddress,
    pub entry: StoredPassage,
}

/// The days on which positions were received, as far back as they are needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age {
    /// Entries that stand before this position are more than [`KEEP_DAYS`] days old.
    pub before: u64,
    /// The days since 1970 on which pages were received, of the last [`KEEP_DAYS`] and the one before, each with its first position.
    days: VecDeque<(i64, u64)>,
}

impl Age {
    /// Notes that a page was received. Returns true if more entries are old now.
    pub fn received(&mut self, at_ms: i64, position: u64) -> bool {
        let day = at_ms.div_euclid(DAY_MS);
        // The clock was set back: what was received on later days counts as received on this day.
        let mut from = position;
        while let Some((_, earlier)) = self.days.back().copied().filter(|(last, _)| *last > day) {
            from = earlier;
            self.days.pop_back();
        }
        if self.days.back().is_some_and(|(last, _)| *last == day) {
            return false;
        }
        self.days.push_back((day, from));
        while self.days.front().is_some_and(|(first, _)| *first < day - KEEP_DAYS) {
            self.days.pop_front();
        }
        let first = self.days.front().map_or(from, |(_, first)| *first);
        let others = first > self.before;
        self.before = self.before.max(first);
        others
    }
}

/// Says which plates are certainly not here: 2 MB of memory, for a million of them.
pub type AgedPlates = PlateFilter<{ 1 << 24 }>;

fn prefix(plate: &str) -> Vec<u8> {
    [b"vj", plate.as_bytes(), &[0]].concat()
}

fn key(plate: &str, garage: u32) -> Vec<u8> {
    [&prefix(plate)[..], &garage.to_be_bytes()].concat()
}

fn map_key(garage: u32, map: u32) -> Vec<u8> {
    [AGED, &garage.to_be_bytes(), &map.to_be_bytes()].concat()
}

pub fn all(store: &Store) -> impl Iterator<Item = Result<(String, OpenStay), StoreError>> {
    read_range(store, b"vj", b"vk").map(|entry| {
        let (key, open) = entry?;
        let plate = key.get(2..key.len().saturating_sub(5)).and_then(|plate| std::str::from_utf8(plate).ok());
        Ok((plate.ok_or_else(|| damaged(&key))?.to_owned(), open))
    })
}

#[derive(Debug)]
pub struct AgedChanges {
    store: Store,
    stays: Unwritten<OpenStay>,
    maps: BTreeMap<(u32, u32), Vec<u8>>,
    pub age: bool,
}

impl AgedChanges {
    pub fn on(store: &Store) -> AgedChanges {
        let stays = Unwritten::on(store);
        AgedChanges { store: store.clone(), stays, maps: BTreeMap::new(), age: false }
    }

    pub fn writes(&self) -> usize {
        self.stays.writes() + self.maps.len() + usize::from(self.age)
    }

    pub fn get(&self, plate: &Plate, garage: u32) -> Result<Option<OpenStay>, StoreError> {
        self.stays.get(&key(plate.as_str(), garage))
    }

    pub fn is_anywhere(&self, plate: &Plate) -> Result<bool, StoreError> {
        let from = prefix(plate.as_str());
        let to = [&from[..from.len() - 1], &[1]].concat();
        Ok(!self.stays.range(&from, &to)?.is_empty())
    }

    pub fn put(&mut self, plate: &Plate, open: OpenStay) -> Result<(), StoreError> {
        self.stays.put(key(plate.as_str(), open.address.garage), Some(open));
        let (map, byte, bit) = place_in_map(open.address.page);
        let bits = self.map(open.address.garage, map)?;
        bits.resize(bits.len().max(byte + 1), 0);
        bits[byte] |= bit;
        Ok(())
    }

    /// Takes out a stay; `is_last`: its page contains no other stay that is here.
    pub fn take(&mut self, plate: &Plate, open: OpenStay, is_last: bool) -> Result<(), StoreError> {
        self.stays.put(key(plate.as_str(), open.address.garage), None);
        if is_last {
            let (map, byte, bit) = place_in_map(open.address.page);
            if let Some(bits) = self.map(open.address.garage, map)?.get_mut(byte) {
                *bits &= !bit;
            }
        }
        Ok(())
    }

    fn map(&mut self, garage: u32, map: u32) -> Result<&mut Vec<u8>, StoreError> {
        Ok(match self.maps.entry((garage, map)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.store.get(&map_key(garage, map))?.unwrap_or_default()),
        })
    }

    pub fn drain(&mut self, age: &Age, batch: &mut Batch) {
        self.stays.drain(batch);
        for ((garage, map), mut bits) in std::mem::take(&mut self.maps) {
            while bits.pop_if(|byte| *byte == 0).is_some() {}
            let key = map_key(garage, map);
            if bits.is_empty() { batch.remove(key) } else { batch.put(key, bits) }
        }
        if std::mem::take(&mut self.age) {
            batch.put(AGE, encode(age));
        }
    }
}

/// The next garage, from number `from` to `to` (exclusive), in which a car is inside.
pub fn next_garage(store: &Store, from: u32, to: u32) -> Result<Option<u32>, StoreError> {
    let mut next = None;
    for prefix in [AGED, OCCUPIED] {
        if let Some(entry) = store.range(&key_u32(prefix, from), &key_u32(prefix, to)).next() {
            let (key, _) = entry?;
            let garage = u32::from_be_bytes(sized(&key, 2..6)?);
            next = Some(next.map_or(garage, |its: u32| its.min(garage)));
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_noon_of(day: i64) -> i64 {
        day * DAY_MS + DAY_MS / 2
    }

    #[test]
    fn entries_are_old_that_were_received_more_than_thirty_days_ago() {
        let mut age = Age::default();
        for (day, position, before) in [
            (100, 1, 1),
            (100, 5, 1),
            (101, 9, 1),
            (130, 20, 1),
            (131, 30, 9),
            (131, 40, 9),
            (132, 50, 20),
            (500, 60, 60),
        ] {
            age.received(at_noon_of(day), position);
            assert_eq!(age.before, before, "on day {day}");
        }
    }

    #[test]
    fn a_clock_that_was_years_ahead_and_is_set_back_lets_days_count_again() {
        let mut age = Age::default();
        for (day, position) in [(100, 1), (50_000, 10), (101, 20), (110, 30)] {
            age.received(at_noon_of(day), position);
        }
        assert_eq!(age.before, 10, "what came before the jump is old for good");
        age.received(at_noon_of(135), 40);
        assert_eq!(age.before, 30);
    }

    /// How much memory `made` takes for each of `count` items.
    fn bytes_each<T>(count: usize, make: impl FnOnce() -> T) -> usize {
        let resident = || {
            let told = std::fs::read_to_string("/proc/self/statm").unwrap();
            told.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let before = resident();
        let made = make();
        let after = resident();
        std::mem::forget(made); // what was freed would be used again by the next
        (after - before) / count
    }

    /// The figures of "What it costs" in ARCHITECTURE.md.
    #[test]
    #[ignore = "a measure, to be run alone: cargo test --lib what_each_item_takes -- --ignored --nocapture --test-threads 1"]
    fn what_each_item_takes_in_memory() {
        use super::super::SharedMap;
        use super::super::garages::{MissingRange, QuarantinedPage};
        use crate::messaging::{Epoch, SiteName};
        use crate::parking::register::{Account, DateRange, Register, RegisterFact};
        use crate::parking::stay::Inside;
        use std::collections::HashMap;
        const COUNT: usize = 400_000;
        let plate = |n: usize| Plate::new(&format!("BAB{n:06}")).unwrap();
        let open = |n: usize| OpenStay {
            address: SlotAddress { garage: 1, page: n as u32, slot: 3 },
            entry: StoredPassage::new(n as u64, (1, 7), (0, 60)),
        };
        let cars = bytes_each(COUNT, || {
            let mut garages: Vec<Inside<OpenStay>> = (0..200).map(|_| Inside::default()).collect();
            let mut garages_of: HashMap<Plate, u32> = HashMap::new();
            for n in 0..COUNT {
                garages[n % 200].enter(&plate(n), open(n));
                *garages_of.entry(plate(n)).or_default() += 1;
            }
            (garages, garages_of)
        });
        println!("a car inside: {cars} bytes");
        let registered = bytes_each(COUNT, || {
            let mut register = Register::default();
            for n in 0..COUNT {
                let account = Some(Account::new(&format!("account {n}")).unwrap());
                let (plate, dates) = (plate(n), DateRange::ALWAYS);
                register.apply(&RegisterFact::Holder { plate, dates, account });
            }
            register
        });
        println!("a registered plate: {registered} bytes");
        let site = SiteName::new("Bull Ring").unwrap();
        let epoch = Epoch::from_bytes([7; 16]);
        let holes = bytes_each(COUNT, || {
            let mut holes: SharedMap<u64, MissingRange> = SharedMap::default();
            for n in 0..COUNT as u64 {
                let reason = "they were acknowledged to the site, but this ledger does not have them".into();
                holes.insert_mut(
                    n,
                    MissingRange {
                        garage: site.clone(),
                        epoch,
                        first: n,
                        last: n,
                        reason,
                        received_at_ms: None,
                    },
                );
            }
            holes
        });
        println!("a missing range: {holes} bytes");
        let quarantined = bytes_each(COUNT, || {
            let mut pages: SharedMap<u64, QuarantinedPage> = SharedMap::default();
            for n in 0..COUNT as u64 {
                let reason = "it corrects an event that is itself in quarantine".into();
                let garage = site.clone();
                pages.insert_mut(
                    n,
                    QuarantinedPage { garage, epoch, first: n, events: 1, reason, received_at_ms: 0 },
                );
            }
            pages
        });
        println!("a page in quarantine: {quarantined} bytes");
    }
}
