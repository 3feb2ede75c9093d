//! The garages in which cars were seen lately: a car that was seen in one garage only cannot have been in two at once, and its other
//! visits need not be looked for.

use super::pages::{Slot, StoredPassage};
use crate::parking::stay::{End, Visit};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How many cars a generation has at most: both together take 18 MB.
const CARS_MAX: usize = 400_000;
/// Stands for several garages.
const SEVERAL: u32 = u32::MAX;

/// Cars by a hash of their plates, in two generations: the older one is forgotten when the newer one is full.
#[derive(Debug, Clone, Default)]
pub struct RecentCars {
    cars: [HashMap<u64, u32>; 2],
    /// The newest event of each generation.
    newest_ms: [Option<i64>; 2],
    /// The newest event of which nothing is remembered any more.
    forgotten_ms: Option<i64>,
}

/// It only saves work: what follows from the visits is the same with and without it.
impl PartialEq for RecentCars {
    fn eq(&self, _: &RecentCars) -> bool {
        true
    }
}
impl Eq for RecentCars {}

impl RecentCars {
    /// Notes that a car was seen, and returns whether it may have been in another garage around that time. An event that is not newer
    /// than all that was forgotten always may.
    pub fn seen(&mut self, plate: &str, garage: u32, at_ms: i64) -> bool {
        if self.cars[0].len() >= CARS_MAX {
            self.forgotten_ms = self.forgotten_ms.max(self.newest_ms[1]);
            self.cars[1] = std::mem::take(&mut self.cars[0]);
            self.newest_ms[1] = self.newest_ms[0].take();
        }
        self.newest_ms[0] = self.newest_ms[0].max(Some(at_ms));
        let mut hasher = DefaultHasher::new();
        plate.hash(&mut hasher);
        let car = hasher.finish();
        let [newer, older] = &mut self.cars;
        let known = newer.entry(car).or_insert_with(|| older.get(&car).copied().unwrap_or(garage));
        if *known != garage {
            *known = SEVERAL;
        }
        *known == SEVERAL || self.forgotten_ms.is_some_and(|forgotten| at_ms <= forgotten)
    }

    /// Notes what stands in a page of visits.
    pub fn saw_page(&mut self, garage: u32, slots: &[Slot]) {
        for (plate, visit) in slots.iter().filter_map(|slot| slot.visit.as_ref()) {
            self.seen(plate, garage, last_of(visit).at_ms);
        }
    }

    /// There are visits that are not noted, none of them after the newest one that is.
    pub fn forget_others(&mut self) {
        self.forgotten_ms = self.forgotten_ms.max(self.newest_ms[0]).max(self.newest_ms[1]);
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
    fn what_is_older_than_something_forgotten_is_always_looked_for() {
        let mut recent = RecentCars::default();
        recent.seen("AB1", 1, 5 * DAY_MS);
        recent.forget_others();
        assert!(recent.seen("CD1", 2, 4 * DAY_MS));
        assert!(!recent.seen("CD2", 2, 6 * DAY_MS));
        assert!(recent.seen("AB1", 2, 6 * DAY_MS), "it was in garage 1");
    }

    #[test]
    fn many_cars_take_little_memory() {
        let mut recent = RecentCars::default();
        for car in 0..3 * CARS_MAX {
            recent.seen(&format!("AB{car}"), 1, car as i64);
        }
        assert!(recent.cars.iter().all(|cars| cars.len() <= CARS_MAX));
        // The newest generation is full: this begins the next.
        recent.seen("EF0", 1, 3 * CARS_MAX as i64);
        let forgotten = recent.forgotten_ms.unwrap();
        assert!(recent.seen("EF1", 2, forgotten) && !recent.seen("EF2", 2, forgotten + 1));
    }
}
