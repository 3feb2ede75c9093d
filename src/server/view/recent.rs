//! The garages in which cars were seen lately: a car that was seen in one garage only cannot have been in two at once, and its other
//! visits need not be looked for.

use super::pages::Slot;
use super::plate_filter::{PlateFilter, hash_of};

/// How many cars a generation has at most: each takes 4 MB.
const CARS_MAX: usize = 380_000;
/// The places of the table of a generation: enough for a short way to a free one.
const PLACES: usize = 1 << 19;
/// The part of a hash that stands for a car. The garage of the car is above it.
const CAR: u64 = (1 << GARAGE_AT) - 1;
const GARAGE_AT: u32 = 48;
/// Stands for several garages.
const SEVERAL: u64 = u16::MAX as u64;

/// Cars by a hash of their plates, in two generations: when the newer one is full, the garages of the older one are forgotten, and only
/// that its cars were seen at all is kept (8 MB for two million cars; with ten million, one new car of 15 is looked for in vain).
#[derive(Debug, Clone, Default)]
pub struct RecentCars {
    cars: [GaragesOfCars; 2],
    /// The newest event of each generation.
    newest_ms: [Option<i64>; 2],
    forgotten: ForgottenCars,
    /// The newest event whose garage is not remembered any more.
    forgotten_ms: Option<i64>,
}

/// A hash table of fixed size: each car with its garage takes eight bytes.
#[derive(Debug, Clone, Default)]
struct GaragesOfCars {
    /// The number of a garage plus one, and a car below it; zero for a free place. Taken with the first car.
    places: Vec<u64>,
    count: usize,
}

impl GaragesOfCars {
    /// The place of a car, or the free one that it would get.
    fn place_of(&self, car: u64) -> usize {
        let mut place = car as usize % PLACES;
        while self.places[place] != 0 && self.places[place] & CAR != car {
            place = (place + 1) % PLACES;
        }
        place
    }

    fn get(&self, car: u64) -> Option<u64> {
        if self.places.is_empty() {
            return None;
        }
        let garage = self.places[self.place_of(car)] >> GARAGE_AT;
        (garage != 0).then_some(garage)
    }

    fn put(&mut self, car: u64, garage: u64) {
        if self.places.is_empty() {
            self.places = vec![0; PLACES];
        }
        let place = self.place_of(car);
        self.count += usize::from(self.places[place] == 0);
        self.places[place] = garage << GARAGE_AT | car;
    }

    fn cars(&self) -> impl Iterator<Item = u64> {
        self.places.iter().filter(|place| **place != 0).map(|place| place & CAR)
    }
}

/// The cars whose garages are not remembered.
#[derive(Debug, Clone)]
enum ForgottenCars {
    These(PlateFilter<{ 1 << 26 }>),
    /// There are visits that were not read.
    AnyCar,
}

impl Default for ForgottenCars {
    fn default() -> ForgottenCars {
        ForgottenCars::These(PlateFilter::default())
    }
}

/// It only saves work: what follows from the visits is the same with and without it.
impl PartialEq for RecentCars {
    fn eq(&self, _: &RecentCars) -> bool {
        true
    }
}
impl Eq for RecentCars {}

impl RecentCars {
    /// Notes that a car was seen, and returns whether it may have been in another garage at that time or later.
    pub fn seen(&mut self, plate: &str, garage: u32, at_ms: i64) -> bool {
        if self.cars[0].count >= CARS_MAX {
            self.begin_generation();
        }
        self.newest_ms[0] = self.newest_ms[0].max(Some(at_ms));
        let (car, garage) = (hash_of(plate) & CAR, (u64::from(garage) + 1).min(SEVERAL));
        let [newer, older] = &mut self.cars;
        let newest = newer.get(car);
        let known = match newest.or_else(|| older.get(car)) {
            Some(known) if known != garage => SEVERAL,
            _ => garage,
        };
        if newest != Some(known) {
            newer.put(car, known);
        }
        known == SEVERAL || self.was_forgotten(car, at_ms)
    }

    fn begin_generation(&mut self) {
        self.forgotten_ms = self.forgotten_ms.max(self.newest_ms[1]);
        let older = std::mem::take(&mut self.cars[0]);
        let oldest = std::mem::replace(&mut self.cars[1], older);
        if let ForgottenCars::These(cars) = &mut self.forgotten {
            oldest.cars().for_each(|car| cars.add(car));
        }
        self.newest_ms[1] = self.newest_ms[0].take();
    }

    /// Whether an event that is forgotten may have been one of this car, at that time or later.
    fn was_forgotten(&self, car: u64, at_ms: i64) -> bool {
        self.forgotten_ms.is_some_and(|forgotten| at_ms <= forgotten)
            && match &self.forgotten {
                ForgottenCars::These(cars) => cars.may_hold(car),
                ForgottenCars::AnyCar => true,
            }
    }

    /// Notes what stands in a page of visits.
    pub fn saw_page(&mut self, garage: u32, slots: &[Slot]) {
        for (plate, visit) in slots.iter().filter_map(|slot| slot.visit.as_ref()) {
            self.seen(plate, garage, visit.last().at_ms);
        }
    }

    /// There are visits that are not noted, none of them after the newest one that is.
    pub fn forget_others(&mut self) {
        self.forgotten_ms = self.forgotten_ms.max(self.newest_ms[0]).max(self.newest_ms[1]);
        self.forgotten = ForgottenCars::AnyCar;
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
    fn many_cars_take_little_memory_and_one_that_was_never_seen_is_looked_for_nowhere() {
        let mut recent = RecentCars::default();
        let cars = 5 * CARS_MAX;
        for car in 0..cars {
            assert!(!recent.seen(&format!("AB{car}"), 1, car as i64));
        }
        assert!(recent.cars.iter().all(|cars| cars.count <= CARS_MAX && cars.cars().count() == cars.count));
        // The newest generation is full: this begins the next.
        recent.seen("CD1", 2, cars as i64);
        let forgotten = recent.forgotten_ms.unwrap();
        assert!((CARS_MAX as i64..cars as i64).contains(&forgotten));
        assert!(recent.seen("AB7", 2, forgotten), "it was in some garage");
        assert!(!recent.seen("AB8", 2, forgotten + 1), "what is forgotten is older");
        let in_vain = (0..1_000).filter(|car| recent.seen(&format!("EF{car}"), 2, 0)).count();
        assert!(in_vain < 20, "{in_vain}");
    }
}
