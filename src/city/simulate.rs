//! Cars for one garage that is no part of a simulated city, such as an edge that is tried out.
//!
//! **Promise.** Cars want to come at the rate that was asked for, at random instants (a Poisson process), whatever the
//! hour; they stay as long as people do, and leave; about one plate in a hundred is unreadable; the garage is never
//! overfull, and on average at most 70 % full, however many cars come. One [`Garage`] gives one list of passings.
//! **Kept by.** The machinery of the city's own traffic. Waits are relative: nothing here reads a clock.
//! **Not promised.** That garages of other names never see the same plate, only that it is unlikely while they have the
//! same seed. After a restart the same seed begins with the same cars, of which some may be inside still: who goes
//! on with a garage gives a new seed.
//!
//! ```
//! use fogpost::city::simulate::{Garage, cars};
//!
//! let cars_per_hour = "120".parse().expect("above 0");
//! let garage = Garage { name: "Bull Ring", capacity: 500, cars_per_hour, seed: 7, occupied: 20 };
//! for passing in cars(&garage).take(3) {
//!     // Sleep for passing.wait, then post it.
//!     println!("{:?}: {} {:?}", passing.wait, passing.kind, passing.plate);
//! }
//! ```

use super::plates::{Mixture, Reading, Registry};
use super::traffic::simulated::Simulated;
use super::traffic::{Car, Direction, Drivers, StartingState};
use crate::config::ranges::CarsPerHour;
use std::sync::Arc;
use std::time::Duration;

/// The garage that cars are wanted for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Garage<'a> {
    pub name: &'a str,
    pub capacity: u32,
    pub cars_per_hour: CarsPerHour,
    /// What all randomness derives from.
    pub seed: u64,
    /// Cars that are inside at the beginning; below zero counts as none. They leave like the others, but with plates that
    /// the camera cannot read, since nobody knows them here.
    pub occupied: i64,
}

/// One car passes the barrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passing {
    /// How long after the former one, or after the beginning.
    pub wait: Duration,
    /// As in an event: `entry` or `exit`.
    pub kind: &'static str,
    /// As the camera reads it: at the entry as it is painted, `B-AB 123`, at the exit its letters and digits only,
    /// `BAB123`. `None`: it cannot be read.
    pub plate: Option<String>,
}

/// The cars of one garage, without end.
#[derive(Debug, Clone)]
pub struct Cars {
    traffic: Simulated,
    registry: Arc<Registry>,
    place: usize,
    former_ms: i64,
}

/// Garages of the same seed share the plates of a city with so many places, each at that of its name.
const PLACES: usize = 4_096;

/// The cars of `garage`, from now on.
pub fn cars(garage: &Garage) -> Cars {
    let Garage { name, capacity, cars_per_hour, seed, occupied } = *garage;
    let cars_per_hour = cars_per_hour.get();
    let hash = blake3::hash(name.as_bytes());
    let place = usize::from(u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])) % PLACES;
    let registry = Arc::new(Registry::new(Mixture::Continental, seed, PLACES));
    let drivers = Drivers::new(registry.clone(), place, capacity, Arc::default());
    let start = StartingState { occupied: occupied.max(0), ..StartingState::default() };
    let traffic = Simulated::steady(cars_per_hour, capacity, &start, drivers, seed);
    Cars { traffic, registry, place, former_ms: 0 }
}

impl Iterator for Cars {
    type Item = Passing;

    /// There is always a next one, unless the garage is full of nobody: a capacity of 0 takes no cars.
    fn next(&mut self) -> Option<Passing> {
        if self.traffic.is_closed() {
            return None;
        }
        let passage = self.traffic.next()?;
        let wait_ms = u64::try_from(passage.at.unix_ms - self.former_ms).unwrap_or(0);
        self.former_ms = passage.at.unix_ms;
        let reading = match passage.direction {
            Direction::Entry => Reading::Separated,
            Direction::Exit => Reading::Bare,
        };
        let plate = passage.car.map(|car| match car {
            Car::Planned(number) => {
                let mut plate = String::new();
                self.registry.write(self.place, number, reading, &mut plate);
                plate
            }
            Car::Found(plate) => plate.to_string(),
        });
        Some(Passing { wait: Duration::from_millis(wait_ms), kind: passage.direction.kind(), plate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn garage(cars_per_hour: &str) -> Garage<'static> {
        let cars_per_hour = cars_per_hour.parse().expect("a rate");
        Garage { name: "Bull Ring", capacity: 500, cars_per_hour, seed: 7, occupied: 40 }
    }

    #[test]
    fn as_many_cars_come_as_were_asked_for_and_the_garage_is_never_overfull() {
        for rate in ["0.5", "12", "120", "3600", "360000"] {
            let (mut passed, mut entries, mut inside, mut most) = (Duration::ZERO, 0_u32, 40_i64, 0);
            for passing in cars(&garage(rate)).take(20_000) {
                passed += passing.wait;
                let entry = passing.kind == "entry";
                entries += u32::from(entry);
                inside += if entry { 1 } else { -1 };
                most = most.max(inside);
                assert!((0..=500).contains(&inside), "{rate}: {inside}");
            }
            let per_hour = f64::from(entries) / (passed.as_secs_f64() / 3_600.0);
            let wanted: f64 = rate.parse().expect("a number");
            assert!((0.93..1.07).contains(&(per_hour / wanted)), "{rate}: {per_hour} an hour");
            assert!(most < 480, "{rate}: {most} inside");
        }
    }

    #[test]
    fn whoever_leaves_came_before_or_was_inside_from_the_start() {
        let mut inside = HashSet::new();
        let mut unreadable = [0, 0];
        let (mut twice, mut unmatched) = (0, 0);
        let key = |plate: String| plate.chars().filter(|letter| letter.is_alphanumeric()).collect::<String>();
        for passing in cars(&garage("600")).take(10_000) {
            let entry = passing.kind == "entry";
            match passing.plate.map(key) {
                Some(plate) if entry => twice += u32::from(!inside.insert(plate)),
                Some(plate) => unmatched += u32::from(!inside.remove(&plate)),
                None => unreadable[usize::from(entry)] += 1,
            }
        }
        let [exits, entries] = unreadable;
        assert!((20..100).contains(&entries), "{entries}");
        assert!(exits >= 40 + 20, "those that were inside at the beginning leave, too: {exits}");
        assert!(unmatched <= entries, "only a car read badly at the entry leaves unmatched: {unmatched}");
        assert!(twice <= exits, "only a car read badly at the exit seems to come twice: {twice}");
    }

    #[test]
    fn one_garage_has_one_list_and_another_name_or_seed_another() {
        let list = |garage: &Garage| cars(garage).take(500).collect::<Vec<_>>();
        let garage = garage("120");
        assert_eq!(list(&garage), list(&garage));
        assert_ne!(list(&garage), list(&Garage { seed: 8, ..garage }));
        assert_ne!(list(&garage), list(&Garage { name: "Klinikum", ..garage }));
    }

    #[test]
    fn a_garage_without_spaces_has_no_cars_and_does_not_wait_for_them_for_ever() {
        let closed = Garage { capacity: 0, occupied: 0, ..garage("120") };
        assert_eq!(cars(&closed).next(), None);
        let emptying = Garage { occupied: 3, ..closed };
        assert_eq!(cars(&emptying).map(|passing| passing.kind).collect::<Vec<_>>(), ["exit"; 3]);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["0", "-1", "inf", "NaN", "many", "3600001", "1e-300"] {
            assert!(text.parse::<CarsPerHour>().is_err(), "{text}");
        }
        let said = "0".parse::<CarsPerHour>().expect_err("it is no rate").to_string();
        assert_eq!(said, "0 is not a number of cars per hour from 0.001 to 3600000, such as 120");
    }
}
