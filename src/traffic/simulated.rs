//! Simulated cars: they arrive at rates typical of the hour, stay for realistic times, and leave.
//!
//! **Promise.** Arrivals follow the curve of the garage's usage (a Poisson process whose rate changes with the hour) or a given
//! rate, stays are log-normal, and a full garage turns cars away. About one plate in a hundred is unreadable.

use super::{CarPassage, Direction, Drivers, StartingState, instant};
use jiff::tz::TimeZone;
use rand::RngExt;
use rand_distr::{Distribution, Exp1, LogNormal};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// The plan of a new city begins here, with empty garages: Monday, 1 June 2026, 00:00 in the city. It is a fixed instant, since
/// one seed is to give one plan, and a past one, since no event should claim to be of tomorrow.
pub const PLAN_STARTS_UNIX_MS: i64 = 1_780_264_800_000;

/// The noon of that day, when garages are busy.
pub const NOON_UNIX_MS: i64 = PLAN_STARTS_UNIX_MS + 12 * 3_600_000;

/// The time zone of the simulated city.
pub const ZONE: &str = "Europe/Berlin";

const HOUR_MS: f64 = 3_600_000.0;
const LONGEST_STAY_MS: f64 = 4.0 * 24.0 * HOUR_MS;
const UNREADABLE: f64 = 0.01;

#[derive(Debug)]
pub struct GarageUsage {
    median_stay_hours: f64,
    /// The deviation of the stay's logarithm.
    stay_spread: f64,
    /// Arrivals in each hour of a day in percent of the capacity.
    hours: [u8; 24],
}

const SHOPPING: GarageUsage = GarageUsage {
    median_stay_hours: 1.4,
    stay_spread: 0.6,
    hours: [0, 0, 0, 0, 0, 1, 3, 8, 16, 28, 40, 46, 48, 46, 45, 44, 42, 34, 20, 9, 4, 2, 1, 0],
};

const OFFICES: GarageUsage = GarageUsage {
    median_stay_hours: 8.2,
    stay_spread: 0.25,
    hours: [0, 0, 0, 0, 1, 3, 10, 26, 30, 13, 4, 3, 4, 6, 3, 2, 1, 1, 1, 0, 0, 0, 0, 0],
};

const STATION: GarageUsage = GarageUsage {
    median_stay_hours: 6.5,
    stay_spread: 0.9,
    hours: [1, 0, 0, 1, 4, 9, 14, 15, 11, 7, 5, 4, 4, 4, 4, 4, 5, 6, 5, 3, 2, 2, 1, 1],
};

impl GarageUsage {
    /// Cars an hour for each space, at this hour of the day.
    fn arrivals(&self, hour: i8) -> f64 {
        f64::from(self.hours[usize::from(hour.unsigned_abs())]) / 100.0
    }

    /// No hour has more.
    fn most_arrivals(&self) -> f64 {
        f64::from(self.hours.iter().copied().max().unwrap_or(0)) / 100.0
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Demand {
    /// As the hour lets one expect.
    Usual(&'static GarageUsage),
    /// The same number every hour, above zero and finite.
    Steady { cars_per_hour: f64 },
}

/// Cars that come at a steady rate fill no more of the garage than this on average: the more there are, the shorter they stay.
const STEADY_FILLS: f64 = 0.7;

impl Demand {
    /// The median of a stay in hours, and the deviation of its logarithm. Cars that come at a steady rate stay as long as
    /// people do who go shopping, but not so long that the garage would be full all the time.
    fn stay(self, capacity: u32) -> (f64, f64) {
        match self {
            Demand::Usual(usage) => (usage.median_stay_hours, usage.stay_spread),
            Demand::Steady { cars_per_hour } => {
                let GarageUsage { median_stay_hours, stay_spread, .. } = SHOPPING;
                // The mean of a log-normal divided by its median.
                let skew = (stay_spread * stay_spread / 2.0).exp();
                let most_hours = STEADY_FILLS * f64::from(capacity.max(1)) / cars_per_hour / skew;
                (median_stay_hours.min(most_hours), stay_spread)
            }
        }
    }
}

/// The garages that a simulated city has, in the order in which they are opened: name, capacity, usage.
const SIMULATED_GARAGES: &[(&str, u32, &GarageUsage)] = &[
    ("Bull Ring", 420, &SHOPPING),
    ("Hauptbahnhof", 560, &STATION),
    ("Altstadt Süd", 310, &SHOPPING),
    ("Klinikum", 380, &SHOPPING),
    ("Theater am Markt", 240, &SHOPPING),
    ("Technologiepark", 640, &OFFICES),
    ("Λιμάνι", 150, &STATION),
    ("Универмаг", 290, &SHOPPING),
];

/// The name, capacity and usage of garage `index`. After the named ones come numbered ones of the same kinds.
pub fn simulated_garage(index: usize) -> (String, u32, &'static GarageUsage) {
    let (name, capacity, usage) = SIMULATED_GARAGES[index % SIMULATED_GARAGES.len()];
    match index / SIMULATED_GARAGES.len() {
        0 => (name.to_owned(), capacity, usage),
        round => (format!("{name} {}", round + 1), capacity, usage),
    }
}

/// When which car leaves. The number keeps cars that leave at the same instant in the order in which they came. No car: it was
/// inside from the start, and nobody knows its plate.
type Departure = (i64, u64, Option<Arc<str>>);

#[derive(Debug, Clone)]
pub struct SimulatedTraffic {
    demand: Demand,
    occupied: i64,
    next_arrival_ms: f64,
    leaving: BinaryHeap<Reverse<Departure>>,
    came: u64,
    drivers: Drivers,
    stay_hours: LogNormal<f64>,
    zone: TimeZone,
}

impl SimulatedTraffic {
    /// The cars of a garage from `from_unix_ms` on. Those that are inside already leave in time.
    pub fn new(
        demand: Demand,
        from_unix_ms: i64,
        start: &StartingState,
        drivers: Drivers,
        zone: TimeZone,
    ) -> SimulatedTraffic {
        let (median_hours, spread) = demand.stay(drivers.capacity);
        let stay_hours = LogNormal::new(median_hours.ln(), spread)
            .expect("the spread of each usage is finite and positive");
        let mut simulated = SimulatedTraffic {
            demand,
            occupied: start.occupied,
            next_arrival_ms: from_unix_ms as f64,
            leaving: BinaryHeap::new(),
            came: 0,
            drivers,
            stay_hours,
            zone,
        };
        let unknown = usize::try_from(start.occupied).unwrap_or(0).saturating_sub(start.inside.len());
        let known = start.inside.iter().cloned().map(Some);
        for car in known.chain(std::iter::repeat_n(None, unknown)) {
            simulated.stay(from_unix_ms, car);
        }
        simulated.next_arrival_ms = simulated.arrival_after(from_unix_ms as f64);
        simulated
    }

    fn stay(&mut self, from_unix_ms: i64, car: Option<Arc<str>>) {
        let stay_ms = self.stay_hours.sample(&mut self.drivers.rng) * HOUR_MS;
        let until = from_unix_ms + stay_ms.min(LONGEST_STAY_MS) as i64;
        self.leaving.push(Reverse((until, self.came, car)));
        self.came += 1;
    }

    /// By thinning: candidates come at the rate of the busiest hour, and each is kept with a probability that is the rate of
    /// its own hour divided by that of the busiest.
    fn arrival_after(&mut self, mut unix_ms: f64) -> f64 {
        let rng = &mut self.drivers.rng;
        let usage = match self.demand {
            Demand::Usual(usage) => usage,
            Demand::Steady { cars_per_hour } => {
                let wait: f64 = Exp1.sample(rng);
                return unix_ms + wait * HOUR_MS / cars_per_hour;
            }
        };
        let most = usage.most_arrivals();
        let most_per_ms = most * f64::from(self.drivers.capacity) / HOUR_MS;
        loop {
            let wait: f64 = Exp1.sample(rng);
            unix_ms += wait / most_per_ms;
            let now = usage.arrivals(self.zone.to_datetime(instant(unix_ms as i64)).hour());
            if rng.random::<f64>() * most < now {
                return unix_ms;
            }
        }
    }

    /// The camera reads most plates.
    fn passage(&mut self, direction: Direction, car: Option<Arc<str>>, unix_ms: i64) -> CarPassage {
        let unreadable = self.drivers.rng.random_bool(UNREADABLE);
        CarPassage { direction, plate: car.filter(|_| !unreadable), unix_ms }
    }
}

impl Iterator for SimulatedTraffic {
    type Item = CarPassage;

    /// There is always a next one, unless the garage has no spaces and no cars.
    fn next(&mut self) -> Option<CarPassage> {
        let capacity = i64::from(self.drivers.capacity);
        loop {
            let arrival_ms = self.next_arrival_ms as i64;
            if let Some(Reverse((leaves_ms, ..))) = self.leaving.peek()
                && *leaves_ms <= arrival_ms
            {
                let Reverse((leaves_ms, _, car)) = self.leaving.pop()?;
                self.occupied -= 1;
                car.iter().for_each(|car| self.drivers.leave(car));
                return Some(self.passage(Direction::Exit, car, leaves_ms));
            }
            // Nobody can enter, and nobody is inside: looking further would never end.
            if capacity == 0 && self.leaving.is_empty() {
                return None;
            }
            self.next_arrival_ms = self.arrival_after(self.next_arrival_ms);
            if self.occupied >= capacity {
                continue; // The sign at the entrance says "full", and the driver goes on.
            }
            let car = self.drivers.arrive();
            self.occupied += 1;
            self.stay(arrival_ms, Some(car.clone()));
            return Some(self.passage(Direction::Entry, Some(car), arrival_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plates::PlateRegistry;
    use super::super::{CarStream, shares_of_the_first};
    use super::*;
    use jiff::Timestamp;
    use std::collections::HashSet;

    fn traffic(garage: usize, seed: u64, start: StartingState) -> SimulatedTraffic {
        let registry = Arc::new(PlateRegistry::new(seed, 5));
        let (_, capacity, usage) = simulated_garage(garage);
        let found = Arc::new(start.inside.iter().cloned().collect());
        let drivers = Drivers::new(registry, garage, capacity, found);
        let zone = TimeZone::get(ZONE).expect("bundled");
        SimulatedTraffic::new(Demand::Usual(usage), PLAN_STARTS_UNIX_MS, &start, drivers, zone)
    }

    fn week(garage: usize, seed: u64) -> Vec<CarPassage> {
        let end = PLAN_STARTS_UNIX_MS + 7 * 24 * 3_600_000;
        traffic(garage, seed, StartingState::default()).take_while(|passage| passage.unix_ms < end).collect()
    }

    #[test]
    fn the_plan_begins_on_a_monday() {
        let zone = TimeZone::get(ZONE).expect("bundled");
        let start = Timestamp::from_millisecond(PLAN_STARTS_UNIX_MS).expect("in range");
        assert_eq!(start.to_zoned_datetime(zone).to_string(), "2026-06-01T00:00:00+02:00[Europe/Berlin]");
    }

    #[test]
    fn one_seed_gives_one_plan_and_another_seed_another() {
        assert_eq!(week(1, 4), week(1, 4));
        assert_ne!(week(1, 4), week(1, 5));
        assert_ne!(week(0, 4), week(2, 4), "garages of one kind have cars of their own");
    }

    #[test]
    fn garages_fill_by_day_are_never_overfull_and_empty_by_night() {
        for garage in 0..SIMULATED_GARAGES.len() {
            let (name, capacity, _) = simulated_garage(garage);
            let (mut occupied, mut most, mut least) = (0_i64, 0, i64::MAX);
            let events = week(garage, 11);
            assert!(events.is_sorted_by_key(|passage| passage.unix_ms));
            for passage in &events {
                occupied += passage.direction.change();
                most = most.max(occupied);
                let hours = (passage.unix_ms - PLAN_STARTS_UNIX_MS) / 3_600_000;
                if hours > 24 {
                    least = least.min(occupied);
                }
                assert!((0..=i64::from(capacity)).contains(&occupied), "{name}: {occupied}");
            }
            assert!(most * 100 > i64::from(capacity) * 55, "{name}: at most {most} of {capacity}");
            assert!(least * 100 < i64::from(capacity) * 40, "{name}: at least {least} of {capacity}");
        }
    }

    #[test]
    fn a_car_leaves_after_it_came_and_some_plates_cannot_be_read() {
        let mut inside = HashSet::new();
        let events = week(3, 2);
        let mut unreadable = 0;
        let mut unmatched = 0;
        for passage in &events {
            let Some(car) = &passage.plate else {
                unreadable += 1;
                continue;
            };
            match passage.direction {
                Direction::Entry => _ = inside.insert(car.clone()),
                Direction::Exit => unmatched += usize::from(!inside.remove(car)),
            }
        }
        assert!((events.len() / 200..events.len() / 50).contains(&unreadable), "{unreadable}");
        assert!(unmatched <= unreadable, "only a car read badly at the entry leaves unmatched");
    }

    #[test]
    fn cars_that_were_inside_leave_in_time() {
        let start = StartingState {
            occupied: 3,
            inside: vec!["BAB123".into(), "СА1234АВ".into()],
            latest_unix_ms: None,
        };
        let was_inside =
            |passage: &CarPassage| passage.plate.as_ref().is_some_and(|plate| start.inside.contains(plate));
        let found: Vec<CarPassage> = traffic(3, 1, start.clone()).take(20_000).filter(was_inside).collect();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|passage| passage.direction == Direction::Exit));
    }

    #[test]
    fn the_first_events_of_a_city_are_shared_out_in_order_of_time() {
        let garage = |garage| traffic(garage, 6, StartingState::default());
        let garages = (0..3).map(|index| Box::new(garage(index)) as CarStream).collect();
        let shares = shares_of_the_first(1_000, garages);
        assert_eq!(shares.iter().sum::<u64>(), 1_000);
        let last = |index: usize, nth: u64| garage(index).nth(nth as usize).expect("no end").unix_ms;
        let latest_in = (0..3).map(|g| last(g, shares[g] - 1)).max();
        let first_out = (0..3).map(|g| last(g, shares[g])).min();
        assert!(latest_in <= first_out);
    }
}
