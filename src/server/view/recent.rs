//! The garages in which cars were seen lately: a car that was seen in one garage only cannot have been in two at once, and its other
//! visits need not be looked for.

use super::pages::{Slot, StoredPassage};
use crate::parking::stay::{End, Visit};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How long a car is remembered at least, by the times of events.
const REMEMBERED_MS: i64 = 31 * 24 * 3_600_000;
/// Stands for several garages.
const SEVERAL: u32 = u32::MAX;

/// Cars by a hash of their plates, in two generations: the older one is forgotten when the newer one spans [`REMEMBERED_MS`].
#[derive(Debug, Clone, Default)]
pub struct RecentCars {
    newest_ms: Option<i64>,
    /// When the newer generation began.
    began_ms: i64,
    cars: [HashMap<u64, u32>; 2],
}

/// It only saves work: what follows from the visits is the same with and without it.
impl PartialEq for RecentCars {
    fn eq(&self, _: &RecentCars) -> bool {
        true
    }
}
impl Eq for RecentCars {}

impl RecentCars {
    /// Notes that a car was seen, and returns whether it may have been in another garage around that time. An event that is older than
    /// what is remembered always may.
    pub fn seen(&mut self, plate: &str, garage: u32, at_ms: i64) -> bool {
        let newest_ms = self.newest_ms.map_or(at_ms, |newest| newest.max(at_ms));
        if self.newest_ms.is_none() {
            self.began_ms = at_ms;
        }
        self.newest_ms = Some(newest_ms);
        if newest_ms.saturating_sub(self.began_ms) > REMEMBERED_MS {
            self.began_ms = newest_ms;
            let [newer, older] = &mut self.cars;
            *older = std::mem::take(newer);
        }
        let mut hasher = DefaultHasher::new();
        plate.hash(&mut hasher);
        let car = hasher.finish();
        let [newer, older] = &mut self.cars;
        let known = newer.entry(car).or_insert_with(|| older.get(&car).copied().unwrap_or(garage));
        if *known != garage {
            *known = SEVERAL;
        }
        *known == SEVERAL || newest_ms.saturating_sub(at_ms) > REMEMBERED_MS
    }

    /// Notes what stands in a page of visits. Returns whether any of it is recent, compared with `newest_ms`.
    pub fn saw_page(&mut self, garage: u32, slots: &[Slot], newest_ms: i64) -> bool {
        let mut any = false;
        for (plate, visit) in slots.iter().filter_map(|slot| slot.visit.as_ref()) {
            let last = last_of(visit);
            if newest_ms.saturating_sub(last.at_ms) <= 2 * REMEMBERED_MS {
                self.seen(plate, garage, last.at_ms);
                any = true;
            }
        }
        any
    }
}

/// The last event of a visit.
pub fn last_of(visit: &Visit<StoredPassage>) -> &StoredPassage {
    match visit {
        Visit::Stay { end: End::Left(exit), .. } | Visit::Exit(exit) => exit,
        Visit::Stay { entry, .. } => entry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 3_600_000;

    #[test]
    fn a_car_of_one_garage_is_looked_for_nowhere_else() {
        let mut recent = RecentCars::default();
        assert!(!recent.seen("AB1", 1, 0));
        assert!(!recent.seen("AB1", 1, DAY_MS));
        assert!(!recent.seen("AB2", 2, DAY_MS));
        assert!(recent.seen("AB1", 2, 2 * DAY_MS), "it was in garage 1");
        assert!(recent.seen("AB1", 1, 2 * DAY_MS));
    }

    #[test]
    fn a_month_is_remembered_and_what_is_older_is_always_looked_for() {
        let mut recent = RecentCars::default();
        recent.seen("AB1", 1, 0);
        for day in 1..=60 {
            recent.seen("CD1", 1, day * DAY_MS);
        }
        assert!(recent.seen("AB1", 2, 30 * DAY_MS) || !recent.cars[1].is_empty());
        assert!(recent.seen("EF1", 2, 20 * DAY_MS), "it is older than what is remembered");
        let mut recent = RecentCars::default();
        recent.seen("AB1", 1, 0);
        recent.seen("CD1", 1, 31 * DAY_MS);
        assert!(recent.seen("AB1", 2, 31 * DAY_MS));
    }

    #[test]
    fn cars_of_long_ago_take_no_memory() {
        let mut recent = RecentCars::default();
        for day in 0..1000 {
            for car in 0..10 {
                recent.seen(&format!("AB{day}X{car}"), 1, day * DAY_MS);
            }
        }
        assert!(recent.cars.iter().map(HashMap::len).sum::<usize>() <= 10 * 64);
    }
}
