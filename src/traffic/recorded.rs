//! The entries and exits that explain a garage's recorded occupancy.
//!
//! **Promise.** After the last event of a row, entries minus exits give the row's occupancy, whatever the garage held at the
//! beginning. Between two rows there are as many events as the difference of their occupancies, spread over the time between.
//! **Not promised.** Cars that came and went between two rows: a record of occupancy does not show them.

use super::{CarPassage, CarStream, Direction, Drivers, StartingState};
use rand::RngExt;
use std::sync::Arc;

/// What a garage was seen to hold at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OccupancyRow {
    pub unix_ms: i64,
    pub occupancy: i64,
}

/// The cars of the first row came in during this time before it: there is no row before it.
pub const BEFORE_FIRST_ROW_MS: i64 = 3_600_000;

/// The changes up to one row, of which some were produced already.
#[derive(Debug)]
struct RowChange {
    from_ms: i64,
    to_ms: i64,
    direction: Direction,
    produced: u64,
    total: u64,
}

/// One garage's recorded traffic.
#[derive(Debug)]
pub struct RecordedTraffic {
    rows: Arc<[OccupancyRow]>,
    next_row: usize,
    change: Option<RowChange>,
    occupancy: i64,
    inside: Vec<Arc<str>>,
    drivers: Drivers,
}

/// The cars that explain `rows`, which are in order of time. The garage goes on from `start`: the first events lead from what it
/// holds to the first row.
pub fn recorded_cars(rows: Arc<[OccupancyRow]>, start: &StartingState, drivers: Drivers) -> CarStream {
    let (occupancy, inside) = (start.occupied, start.inside.clone());
    Box::new(RecordedTraffic { rows, next_row: 0, change: None, occupancy, inside, drivers })
}

impl RecordedTraffic {
    /// The change to the next row that differs from what the garage holds.
    fn next_change(&mut self) -> Option<RowChange> {
        loop {
            let row = *self.rows.get(self.next_row)?;
            let from_ms = match self.next_row.checked_sub(1) {
                Some(previous) => self.rows[previous].unix_ms,
                None => row.unix_ms - BEFORE_FIRST_ROW_MS,
            };
            self.next_row += 1;
            let difference = row.occupancy - self.occupancy;
            self.occupancy = row.occupancy;
            if difference != 0 {
                let direction = if difference > 0 { Direction::Entry } else { Direction::Exit };
                let total = difference.unsigned_abs();
                return Some(RowChange { from_ms, to_ms: row.unix_ms, direction, produced: 0, total });
            }
        }
    }

    fn car(&mut self, direction: Direction) -> Arc<str> {
        match direction {
            Direction::Entry => {
                let car = self.drivers.arrive();
                self.inside.push(car.clone());
                car
            }
            // The record shows more exits than cars that it saw come: this one was never seen.
            Direction::Exit if self.inside.is_empty() => self.drivers.new_car(),
            Direction::Exit => {
                let which = self.drivers.rng.random_range(0..self.inside.len());
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
        // Each event happens somewhere in its own share of the time.
        let place = (change.produced as f64 + self.drivers.rng.random::<f64>()) / change.total as f64;
        let unix_ms = change.from_ms + ((change.to_ms - change.from_ms) as f64 * place) as i64;
        let direction = change.direction;
        let plate = Some(self.car(direction));
        change.produced += 1;
        self.change = Some(change).filter(|change| change.produced < change.total);
        Some(CarPassage { direction, plate, unix_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plates::PlateRegistry;
    use super::*;
    use std::collections::HashSet;

    fn traffic(rows: &[(i64, i64)], start: StartingState) -> CarStream {
        let rows: Vec<OccupancyRow> = rows
            .iter()
            .map(|&(minute, occupancy)| OccupancyRow {
                unix_ms: 1_475_000_000_000 + minute * 60_000,
                occupancy,
            })
            .collect();
        let registry = Arc::new(PlateRegistry::new(1, 1));
        let drivers = Drivers::new(registry, 0, 50, Arc::default());
        recorded_cars(rows.into(), &start, drivers)
    }

    #[test]
    fn each_row_is_explained_by_as_many_events_as_it_differs_from_the_one_before() {
        let rows = [(0, 5), (30, 9), (60, 9), (60, 4), (90, 12), (120, 0)];
        let events: Vec<CarPassage> = traffic(&rows, StartingState::default()).collect();
        assert_eq!(events.len(), 5 + 4 + 5 + 8 + 12);
        assert!(events.is_sorted_by_key(|event| event.unix_ms));
        let mut occupancy = 0;
        let mut events = events.iter().peekable();
        for (minute, expected) in [(0, 5), (30, 9), (90, 12), (120, 0)] {
            let until = 1_475_000_000_000 + minute * 60_000;
            while let Some(event) = events.next_if(|event| event.unix_ms <= until) {
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
            let car = event.plate.expect("recorded cars are all readable");
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
            let new = seen.insert(event.plate);
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
        let events: Vec<CarPassage> = traffic(&[(0, 1), (30, 2)], start.clone()).collect();
        let exits = events.iter().filter(|event| event.direction == Direction::Exit);
        assert_eq!(exits.clone().count(), 3);
        let found =
            exits.filter(|event| event.plate.as_ref().is_some_and(|plate| start.inside.contains(plate)));
        assert_eq!(found.count(), 2, "the two that are known to be inside leave first");
        assert_eq!(events.len(), 4);
    }
}
