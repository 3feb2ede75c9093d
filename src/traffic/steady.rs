//! Cars for one garage that is not part of a simulated city, such as an edge that somebody tries out.
//!
//! **Promise.** Cars want to come at the given rate, at random instants (a Poisson process), whatever the hour. They stay as
//! long as people do, and leave. About one plate in a hundred is unreadable. The garage is never overfull, and on average at
//! most 70 % full, however many cars come. One [`SteadyGarage`] gives one list of passages.
//! **Kept by.** [`SimulatedTraffic`], as in the simulated city. Waits are relative: nothing here reads a clock.
//! **Not promised.** That garages of other names never see the same plate, only that it is unlikely while they have the same
//! seed. After a restart the same seed begins with the same cars, of which some may still be inside: give a new seed when a
//! garage goes on.
//!
//! ```
//! use fogpost::traffic::steady::{SteadyGarage, cars};
//!
//! let cars_per_hour = "120".parse().expect("above 0");
//! let garage = SteadyGarage { name: "Bull Ring", capacity: 500, cars_per_hour, seed: 7, occupied: 20 };
//! for car in cars(&garage).take(3) {
//!     // Sleep for car.wait, then post it.
//!     println!("{:?}: {} {:?}", car.wait, car.kind, car.plate);
//! }
//! ```

use super::plates::{PlateMixture, PlateRegistry};
use super::simulated::{Demand, SimulatedTraffic};
use super::{Drivers, StartingState, write_plate_of};
use crate::config::CarsPerHour;
use jiff::tz::TimeZone;
use std::sync::Arc;
use std::time::Duration;

/// The garage whose cars are simulated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SteadyGarage<'a> {
    pub name: &'a str,
    pub capacity: u32,
    pub cars_per_hour: CarsPerHour,
    /// The seed of all random numbers.
    pub seed: u64,
    /// Cars that are inside at the beginning; below zero counts as none. They leave like the others, but with unreadable
    /// plates, since their plates are not known here.
    pub occupied: i64,
}

/// One car passes the barrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SteadyPassage {
    /// How long after the previous one, or after the beginning.
    pub wait: Duration,
    /// As in an event: `entry` or `exit`.
    pub kind: &'static str,
    /// As the camera reads it: at the entry as it is painted, `B-AB 123`, at the exit its letters and digits only,
    /// `BAB123`. `None`: it cannot be read.
    pub plate: Option<String>,
}

/// The cars of one garage, without end.
#[derive(Debug, Clone)]
pub struct SteadyCars {
    traffic: SimulatedTraffic,
    registry: Arc<PlateRegistry>,
    plates_of: usize,
    previous_ms: i64,
}

/// Garages of one seed share the plates of a city with this many garages. A garage's name selects its part of them.
const GARAGES: usize = 4_096;

/// The cars of `garage`, from now on.
pub fn cars(garage: &SteadyGarage) -> SteadyCars {
    let SteadyGarage { name, capacity, cars_per_hour, seed, occupied } = *garage;
    let hash = blake3::hash(name.as_bytes());
    let plates_of = usize::from(u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])) % GARAGES;
    let registry = Arc::new(PlateRegistry::new(PlateMixture::Continental, seed, GARAGES));
    let drivers = Drivers::new(registry.clone(), plates_of, capacity, Arc::default());
    let start = StartingState { occupied: occupied.max(0), ..StartingState::default() };
    let demand = Demand::Steady { cars_per_hour: cars_per_hour.get() };
    let traffic = SimulatedTraffic::new(demand, 0, &start, drivers, seed, TimeZone::UTC);
    SteadyCars { traffic, registry, plates_of, previous_ms: 0 }
}

impl Iterator for SteadyCars {
    type Item = SteadyPassage;

    /// There is always a next one, unless the garage has no spaces and no cars.
    fn next(&mut self) -> Option<SteadyPassage> {
        let passage = self.traffic.next()?;
        let wait_ms = u64::try_from(passage.at.unix_ms - self.previous_ms).unwrap_or(0);
        self.previous_ms = passage.at.unix_ms;
        let plate = passage.car.map(|car| {
            let mut plate = String::new();
            write_plate_of(&self.registry, self.plates_of, &car, passage.direction, &mut plate);
            plate
        });
        Some(SteadyPassage { wait: Duration::from_millis(wait_ms), kind: passage.direction.kind(), plate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn garage(cars_per_hour: &str) -> SteadyGarage<'static> {
        let cars_per_hour = cars_per_hour.parse().expect("a rate");
        SteadyGarage { name: "Bull Ring", capacity: 500, cars_per_hour, seed: 7, occupied: 40 }
    }

    #[test]
    fn as_many_cars_come_as_were_asked_for_and_the_garage_is_never_overfull() {
        for rate in ["0.5", "12", "120", "3600", "360000"] {
            let (mut passed, mut entries, mut inside, mut most) = (Duration::ZERO, 0_u32, 40_i64, 0);
            for passage in cars(&garage(rate)).take(20_000) {
                passed += passage.wait;
                let entry = passage.kind == "entry";
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
    fn every_car_that_leaves_came_before_or_was_inside_from_the_start() {
        let mut inside = HashSet::new();
        let mut unreadable = [0, 0];
        let (mut twice, mut unmatched) = (0, 0);
        let key = |plate: String| plate.chars().filter(|letter| letter.is_alphanumeric()).collect::<String>();
        for passage in cars(&garage("600")).take(10_000) {
            let entry = passage.kind == "entry";
            match passage.plate.map(key) {
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
        let list = |garage: &SteadyGarage| cars(garage).take(500).collect::<Vec<_>>();
        let garage = garage("120");
        assert_eq!(list(&garage), list(&garage));
        assert_ne!(list(&garage), list(&SteadyGarage { seed: 8, ..garage }));
        assert_ne!(list(&garage), list(&SteadyGarage { name: "Klinikum", ..garage }));
    }

    #[test]
    fn a_garage_without_spaces_has_no_cars_and_does_not_wait_for_them_for_ever() {
        let closed = SteadyGarage { capacity: 0, occupied: 0, ..garage("120") };
        assert_eq!(cars(&closed).next(), None);
        let emptying = SteadyGarage { occupied: 3, ..closed };
        assert_eq!(cars(&emptying).map(|passage| passage.kind).collect::<Vec<_>>(), ["exit"; 3]);
    }
}
