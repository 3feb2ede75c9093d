//! The stays of the plates that the register names, by time: those of an account are listed from here, and the places of contracts
//! decided. Stays of other plates are in no history; the pages of their garages have them.
//!
//! | key | value |
//! | --- | --- |
//! | `vbp` + plate + 0 (u8) + entry in time (u64) + slot: garage (u32), page (u32), slot (u8) | a [`PastStay`] |
//!
//! A time is in milliseconds since 1970, with the highest bit inverted, so that keys are in the order of times.

use super::super::codec::{damaged, sized};
use super::super::pages::{SlotAddress, StoredPassage};
use super::super::unwritten::Unwritten;
use super::places::Place;
use crate::parking::stay::End;
use crate::store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A stay in the history of its plate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastStay {
    pub entry: StoredPassage,
    pub end: End<StoredPassage>,
    /// Of a stay that a contract names.
    pub place: Place,
    /// The next entry of its car, where the one or the other was forgotten: it holds no place beyond it.
    pub next_entry_ms: Option<i64>,
}

/// Where a stay is in the history of its plate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PastStayKey {
    pub entry_ms: i64,
    pub address: SlotAddress,
}

pub const ALL_TIMES: Range<i64> = i64::MIN..i64::MAX;

fn prefix(plate: &str) -> Vec<u8> {
    [b"vbp", plate.as_bytes(), &[0]].concat()
}

fn time_key(plate: &str, at_ms: i64) -> Vec<u8> {
    let at = (at_ms as u64) ^ (1 << 63);
    [&prefix(plate)[..], &at.to_be_bytes()].concat()
}

fn key(plate: &str, at: PastStayKey) -> Vec<u8> {
    let SlotAddress { garage, page, slot } = at.address;
    [&time_key(plate, at.entry_ms)[..], &garage.to_be_bytes(), &page.to_be_bytes(), &[slot]].concat()
}

fn read_key(key: &[u8]) -> Result<PastStayKey, StoreError> {
    let end = key.len();
    let at = end.checked_sub(17).ok_or_else(|| damaged(key))?;
    let time = u64::from_be_bytes(sized(key, at..at + 8)?);
    let [garage, page] =
        [u32::from_be_bytes(sized(key, at + 8..at + 12)?), u32::from_be_bytes(sized(key, at + 12..at + 16)?)];
    let address = SlotAddress { garage, page, slot: key[end - 1] };
    Ok(PastStayKey { entry_ms: (time ^ (1 << 63)) as i64, address })
}

#[derive(Debug)]
pub struct Histories(Unwritten<PastStay>);

impl Histories {
    pub fn on(store: &Store) -> Histories {
        Histories(Unwritten::on(store))
    }

    pub fn writes(&self) -> usize {
        self.0.writes()
    }

    /// The stays of a plate whose entries lie in these times, in order of time.
    pub fn of_plate(
        &self,
        plate: &str,
        times: Range<i64>,
    ) -> Result<Vec<(PastStayKey, PastStay)>, StoreError> {
        let found = self.0.range(&time_key(plate, times.start), &time_key(plate, times.end))?;
        found.into_iter().map(|(key, stay)| Ok((read_key(&key)?, stay))).collect()
    }

    pub fn get(&self, plate: &str, at: PastStayKey) -> Result<Option<PastStay>, StoreError> {
        self.0.get(&key(plate, at))
    }

    /// Changes a stay; `None` removes it.
    pub fn put(&mut self, plate: &str, at: PastStayKey, stay: Option<PastStay>) {
        self.0.put(key(plate, at), stay);
    }

    pub fn drain(&mut self, batch: &mut Batch) {
        self.0.drain(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::simulated::Disk;

    #[test]
    fn a_history_is_in_order_of_time_written_or_not() {
        let store = Store::on(Disk::default());
        let mut histories = Histories::on(&store);
        let stay = |entry_ms: i64| PastStay {
            entry: StoredPassage::new(1, (0, 1), (entry_ms, 0)),
            end: End::Inside,
            place: Place::Covered,
            next_entry_ms: None,
        };
        let at = |entry_ms, slot| PastStayKey { entry_ms, address: SlotAddress { garage: 1, page: 2, slot } };
        for (n, entry_ms) in [5, -7, 900, 30].into_iter().enumerate() {
            histories.put("AB1", at(entry_ms, n as u8), Some(stay(entry_ms)));
            histories.put("AB", at(entry_ms, n as u8), Some(stay(entry_ms)));
            if n == 1 {
                let mut batch = Batch::default();
                histories.drain(&mut batch);
                store.apply(&batch).unwrap();
            }
        }
        histories.put("AB1", at(5, 0), None);
        let times = |times: Range<i64>| {
            let found = histories.of_plate("AB1", times).unwrap();
            found.into_iter().map(|(at, stay)| (at.entry_ms, stay.entry.at_ms)).collect::<Vec<_>>()
        };
        assert_eq!(times(ALL_TIMES), [(-7, -7), (30, 30), (900, 900)]);
        assert_eq!(times(-7..900), [(-7, -7), (30, 30)]);
        assert_eq!(histories.get("AB1", at(5, 0)).unwrap(), None);
        assert_eq!(histories.get("AB", at(5, 0)).unwrap(), Some(stay(5)));
    }
}
