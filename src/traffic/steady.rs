//! Cars for one garage that is not part of a simulated city, such as an edge that somebody tries out.
//!
//! **Promise.** As [`super::simulated`], at the given rate whatever the hour. The garage is on average at most 70 % full, however
//! many cars come. One [`SteadyGarage`] gives one list of passages.
//! **Not promised.** That two garages never see the same plate, only that it is unlikely. After a restart the same seed begins with
//! the same cars, of which some may still be inside: give a new seed when a garage goes on.

use super::plates::PlateRegistry;
use super::simulated::{Demand, SimulatedTraffic};
use super::{Drivers, StartingState};
use crate::config::CarsPerHour;
use jiff::tz::TimeZone;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SteadyGarage<'a> {
    pub name: &'a str,
    pub capacity: u32,
    pub cars_per_hour: CarsPerHour,
    pub seed: u64,
    /// Cars that are inside at the beginning; below zero counts as none. They leave like the others, but with unreadable
    /// plates, since their plates are not known here.
    pub occupied: i64,
}

/// The cars of `garage` from the instant 0 on, without end.
pub fn cars(garage: &SteadyGarage) -> SimulatedTraffic {
    let SteadyGarage { name, capacity, cars_per_hour, seed, occupied } = *garage;
    let hash = blake3::hash(name.as_bytes());
    let of_name = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
    let registry = Arc::new(PlateRegistry::new(seed ^ of_name, 1));
    let drivers = Drivers::new(registry, 0, capacity, Arc::default());
    let start = StartingState { occupied: occupied.max(0), ..StartingState::default() };
    let demand = Demand::Steady { cars_per_hour: cars_per_hour.get() };
    SimulatedTraffic::new(demand, 0, &start, drivers, TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::super::Direction;
    use super::*;
    use std::collections::HashSet;

    fn garage(cars_per_hour: &str) -> SteadyGarage<'static> {
        let cars_per_hour = cars_per_hour.parse().expect("a rate");
        SteadyGarage { name: "Bull Ring", capacity: 500, cars_per_hour, seed: 7, occupied: 40 }
    }

    #[test]
    fn as_many_cars_come_as_were_asked_for_and_the_garage_is_never_overfull() {
        for rate in ["0.5", "12", "120", "3600", "360000"] {
            let (mut passed_ms, mut entries, mut inside, mut most) = (0, 0_u32, 40_i64, 0);
            for passage in cars(&garage(rate)).take(20_000) {
                assert!(passage.unix_ms >= passed_ms, "{rate}: time goes back");
                passed_ms = passage.unix_ms;
                entries += u32::from(passage.direction == Direction::Entry);
                inside += passage.direction.change();
                most = most.max(inside);
                assert!((0..=500).contains(&inside), "{rate}: {inside}");
            }
            let per_hour = f64::from(entries) / (passed_ms as f64 / 3_600_000.0);
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
        for passage in cars(&garage("600")).take(10_000) {
            let entry = passage.direction == Direction::Entry;
            match passage.key() {
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
        assert_eq!(cars(&emptying).map(|passage| passage.direction.kind()).collect::<Vec<_>>(), ["exit"; 3]);
    }
}
