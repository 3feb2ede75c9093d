//! The entries and exits that explain a garage's recorded occupancy.
//!
//! **Promise.** After the last event of a row, entries less exits give the row's occupancy, whatever the
//! garage held at the beginning. The events between two rows are as many as the occupancies differ by, spread
//! over the time between.
//! **Not promised.** The cars that came and went between two rows unseen: a record of occupancy does not
//! show them.

use super::{Car, Direction, Drivers, Moment, Passage, StartingState, garage_rng};
use jiff::tz::TimeZone;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// What a garage was seen to hold at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub unix_ms: i64,
    pub occupancy: i64,
}

/// The cars of the first row came in during this time before it: there is no former row to tell.
pub const BEFORE_FIRST_ROW_MS: i64 = 3_600_000;

/// The changes between two rows, of which some were told already.
#[derive(Debug, Clone, Copy)]
struct Step {
    from: Moment,
    to: Moment,
    direction: Direction,
    told: u64,
    changes: u64,
}

/// One garage's recorded traffic.
#[derive(Debug, Clone)]
pub struct Recorded {
    rows: Arc<[Row]>,
    next_row: usize,
    step: Option<Step>,
    occupancy: i64,
    inside: Vec<Car>,
    drivers: Drivers,
    rng: ChaCha8Rng,
    zone: TimeZone,
}

impl Recorded {
    /// `rows` are in order of time. The garage goes on from `start`: the first events lead from what it
    /// holds to the first row.
    pub fn new(
        rows: Arc<[Row]>,
        start: &StartingState,
        drivers: Drivers,
        seed: u64,
        zone: TimeZone,
    ) -> Recorded {
        let garage = drivers.garage;
        Recorded {
            rows,
            next_row: 0,
            step: None,
            occupancy: start.occupied,
            inside: start.inside.iter().cloned().map(Car::Found).collect(),
            drivers,
            rng: garage_rng(seed, garage),
            zone,
        }
    }

    fn moment(&self, unix_ms: i64) -> Moment {
        Moment { unix_ms, offset_seconds: super::offset_seconds(&self.zone, unix_ms) }
    }

    /// The way to the next row that differs from what the garage holds.
    fn next_step(&mut self) -> Option<Step> {
        loop {
            let row = *self.rows.get(self.next_row)?;
            let former_ms = match self.next_row.checked_sub(1) {
                Some(former) => self.rows[former].unix_ms,
                None => row.unix_ms - BEFORE_FIRST_ROW_MS,
            };
            self.next_row += 1;
            let difference = row.occupancy - self.occupancy;
            self.occupancy = row.occupancy;
            if difference != 0 {
                return Some(Step {
                    from: self.moment(former_ms),
                    to: self.moment(row.unix_ms),
                    direction: if difference > 0 { Direction::Entry } else { Direction::Exit },
                    told: 0,
                    changes: difference.unsigned_abs(),
                });
            }
        }
    }

    /// When the next change of `step` happens: somewhere in its own share of the time.
    fn when(&mut self, step: &Step) -> Moment {
        let place = (step.told as f64 + self.rng.random::<f64>()) / step.changes as f64;
        let span_ms = (step.to.unix_ms - step.from.unix_ms) as f64;
        let unix_ms = step.from.unix_ms + (span_ms * place) as i64;
        if step.from.offset_seconds == step.to.offset_seconds {
            Moment { unix_ms, ..step.from }
        } else {
            self.moment(unix_ms)
        }
    }

    fn car(&mut self, direction: Direction) -> Car {
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
                self.drivers.went_home(&car);
                car
            }
        }
    }
}

impl Iterator for Recorded {
    type Item = Passage;

    fn next(&mut self) -> Option<Passage> {
        let mut step = match self.step.take() {
            Some(step) => step,
            None => self.next_step()?,
        };
        let at = self.when(&step);
        let car = Some(self.car(step.direction));
        step.told += 1;
        if step.told < step.changes {
            self.step = Some(step);
        }
        Some(Passage { direction: step.direction, car, at })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::plates::{Mixture, Registry};
    use super::*;
    use std::collections::HashSet;

    fn traffic(rows: &[(i64, i64)], start: StartingState) -> Recorded {
        let rows: Vec<Row> = rows
            .iter()
            .map(|&(minute, occupancy)| Row { unix_ms: 1_475_000_000_000 + minute * 60_000, occupancy })
            .collect();
        let registry = Arc::new(Registry::new(Mixture::British, 1, 1));
        let drivers = Drivers::new(registry, 0, 50, Arc::default());
        let zone = TimeZone::get("Europe/London").expect("bundled");
        Recorded::new(rows.into(), &start, drivers, 1, zone)
    }

    #[test]
    fn each_row_is_explained_by_as_many_events_as_it_differs_from_the_former() {
        let rows = [(0, 5), (30, 9), (60, 9), (60, 4), (90, 12), (120, 0)];
        let events: Vec<Passage> = traffic(&rows, StartingState::default()).collect();
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
        let events: Vec<Passage> = traffic(&[(0, 1), (30, 2)], start).collect();
        let exits = events.iter().filter(|event| event.direction == Direction::Exit);
        assert_eq!(exits.clone().count(), 3);
        let found = exits.filter(|event| matches!(event.car, Some(Car::Found(_))));
        assert_eq!(found.count(), 2, "the two that are known to be inside leave first");
        assert_eq!(events.len(), 4);
    }
}
