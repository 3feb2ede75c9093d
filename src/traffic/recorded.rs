//! The entries and exits that explain a garage's recorded occupancy.
//!
//! **Promise.** After the last event of a row, entries minus exits give the row's occupancy, whatever the garage held at the
//! beginning. Between two rows there are as many events as the difference of their occupancies, spread over the time between.
//! **Not promised.** Cars that came and went between two rows: a record of occupancy does not show them.

use super::{CarPassage, Direction, Drivers, LocalInstant, PlannedCar, StartingState, garage_rng};
use jiff::tz::TimeZone;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// What a garage was seen to hold at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OccupancyRow {
    pub unix_ms: i64,
    pub occupancy: i64,
}

/// The cars of the first row came in during this time before it: there is no row before it.
pub const BEFORE_FIRST_ROW_MS: i64 = 3_600_000;

/// The changes between two rows, of which some were produced already.
#[derive(Debug, Clone, Copy)]
struct RowChange {
    from: LocalInstant,
    to: LocalInstant,
    direction: Direction,
    produced: u64,
    total: u64,
}

/// One garage's recorded traffic.
#[derive(Debug, Clone)]
pub struct RecordedTraffic {
    rows: Arc<[OccupancyRow]>,
    next_row: usize,
    change: Option<RowChange>,
    occupancy: i64,
    inside: Vec<PlannedCar>,
    drivers: Drivers,
    rng: ChaCha8Rng,
    zone: TimeZone,
}

impl RecordedTraffic {
    /// `rows` are in order of time. The garage goes on from `start`: the first events lead from what it
    /// holds to the first row.
    pub fn new(
        rows: Arc<[OccupancyRow]>,
        start: &StartingState,
        drivers: Drivers,
        seed: u64,
        zone: TimeZone,
    ) -> RecordedTraffic {
        let garage = drivers.garage;
        RecordedTraffic {
            rows,
            next_row: 0,
            change: None,
            occupancy: start.occupied,
            inside: start.inside.iter().cloned().map(PlannedCar::Found).collect(),
            drivers,
            rng: garage_rng(seed, garage),
            zone,
        }
    }

    /// The change to the next row that differs from what the garage holds.
    fn next_change(&mut self) -> Option<RowChange> {
        loop {
            let row = *self.rows.get(self.next_row)?;
            let previous_ms = match self.next_row.checked_sub(1) {
                Some(previous) => self.rows[previous].unix_ms,
                None => row.unix_ms - BEFORE_FIRST_ROW_MS,
            };
            self.next_row += 1;
            let difference = row.occupancy - self.occupancy;
            self.occupancy = row.occupancy;
            if difference != 0 {
                return Some(RowChange {
                    from: LocalInstant::in_zone(&self.zone, previous_ms),
                    to: LocalInstant::in_zone(&self.zone, row.unix_ms),
                    direction: if difference > 0 { Direction::Entry } else { Direction::Exit },
                    produced: 0,
                    total: difference.unsigned_abs(),
                });
            }
        }
    }

    /// When the next event of `change` happens: somewhere in its own share of the time.
    fn when(&mut self, change: &RowChange) -> LocalInstant {
        let place = (change.produced as f64 + self.rng.random::<f64>()) / change.total as f64;
        let span_ms = (change.to.unix_ms - change.from.unix_ms) as f64;
        let unix_ms = change.from.unix_ms + (span_ms * place) as i64;
        if change.from.offset_seconds == change.to.offset_seconds {
            LocalInstant { unix_ms, ..change.from }
        } else {
            LocalInstant::in_zone(&self.zone, unix_ms)
        }
    }

    fn car(&mut self, direction: Direction) -> PlannedCar {
        match direction {
            Direction::Entry => {
                let car = self.drivers.arrive(&mut self.rng);
                self.inside.push(car.clone());
                car
            }
            // The record shows more exits than cars that it saw come: this one was never seen.
            Direction::Exit if self.inside.is_empty() => self.drivers.new_car(),
            Direction::Exit => {
                let which = self.rng.random_range(0..self.inside.len());
                let car = self.inside.swap_remove(which);
                self.drivers.leave(&car);
                car
            }
        }
    }
}

impl Iterator for RecordedTraffic {
    type Item = CarPassage;

    fn next(&mut self) -> Option<CarPassage> {
        let mut change = match self.change.take() {
            Some(change) => change,
            None => self.next_change()?,
        };
        let at = self.when(&change);
        let car = Some(self.car(change.direction));
        change.produced += 1;
        if change.produced < change.total {
            self.change = Some(change);
        }
        Some(CarPassage { direction: change.direction, car, at })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plates::{PlateMixture, PlateRegistry};
    use super::*;
    use std::collections::HashSet;

    fn traffic(rows: &[(i64, i64)], start: StartingState) -> RecordedTraffic {
        let rows: Vec<OccupancyRow> = rows
            .iter()
            .map(|&(minute, occupancy)| OccupancyRow {
                unix_ms: 1_475_000_000_000 + minute * 60_000,
                occupancy,
            })
            .collect();
        let registry = Arc::new(PlateRegistry::new(PlateMixture::British, 1, 1));
        let drivers = Drivers::new(registry, 0, 50, Arc::default());
        let zone = TimeZone::get("Europe/London").expect("bundled");
        RecordedTraffic::new(rows.into(), &start, drivers, 1, zone)
    }

    #[test]
    fn each_row_is_explained_by_as_many_events_as_it_differs_from_the_one_before() {
        let rows = [(0, 5), (30, 9), (60, 9), (60, 4), (90, 12), (120, 0)];
        let events: Vec<CarPassage> = traffic(&rows, StartingState::default()).collect();
        assert_eq!(events.len(), 5 + 4 + 5 + 8 + 12);
        assert!(events.is_sorted_by_key(|event| event.at.unix_ms));
        let mut occupancy = 0;
        let mut events = events.iter().peekable();
        for (minute, expected) in [(0, 5), (30, 9), (90, 12), (120, 0)] {
            let until = 1_475_000_000_000 + minute * 60_000;
            while let Some(event) = events.next_if(|event| event.at.unix_ms <= until) {
                occupancy += event.direction.change();
            }
            assert_eq!(occupancy, expected, "at minute {minute}");
        }
    }

    #[test]
    fn a_car_leaves_only_after_it_came_and_comes_only_after_it_left() {
        let rows: Vec<(i64, i64)> = (0..200).map(|n| (n * 30, (n * 37) % 60)).collect();
        let mut inside = HashSet::new();
        for event in traffic(&rows, StartingState::default()) {
            let car = event.car.expect("recorded cars are all readable");
            match event.direction {
                Direction::Entry => assert!(inside.insert(car.clone()), "{car:?} is inside"),
                Direction::Exit => assert!(inside.remove(&car), "{car:?} is not inside"),
            }
        }
    }

    #[test]
    fn exits_beyond_the_cars_that_came_are_cars_never_seen() {
        // Below zero once by 8, as "NIA North" is; a second time it is only cars that came in between.
        let rows = [(0, 3), (30, -8), (60, -2), (90, -8), (120, 2)];
        let mut seen = HashSet::new();
        let mut unmatched = 0;
        for event in traffic(&rows, StartingState::default()) {
            let new = seen.insert(event.car);
            unmatched += usize::from(event.direction == Direction::Exit && new);
        }
        assert_eq!(unmatched, 8);
    }

    #[test]
    fn a_garage_goes_on_from_what_it_holds() {
        let start = StartingState {
            occupied: 4,
            inside: vec!["AB51DVC".into(), "СА1234АВ".into()],
            latest_unix_ms: None,
        };
        let events: Vec<CarPassage> = traffic(&[(0, 1), (30, 2)], start).collect();
        let exits = events.iter().filter(|event| event.direction == Direction::Exit);
        assert_eq!(exits.clone().count(), 3);
        let found = exits.filter(|event| matches!(event.car, Some(PlannedCar::Found(_))));
        assert_eq!(found.count(), 2, "the two that are known to be inside leave first");
        assert_eq!(events.len(), 4);
    }
}
