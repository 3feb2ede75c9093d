//! Artificial cars: simulated ones, and ones derived from a recorded occupancy.
//!
//! **Promise.** One seed, one list of garages and one starting state give one plan: the same cars at the same instants,
//! whatever the machine's speed and in whatever order the garages are asked. Within a garage time never goes back. A car is
//! inside at most one garage, and enters only while it is outside.
//! **Kept by.** Each garage has a stream of random numbers and a range of plates of its own ([`plates`]), and produces its
//! events one by one when they are asked for: a plan of any length takes no more memory than the cars that are inside.
//! **Not promised.** That a car visits more than one garage: each returns to one garage only.
//!
//! [`simulated`] invents cars, [`recorded`] derives them from a [`recording`]. `edge --simulate` takes its cars from
//! [`steady`]. Nothing here reads a clock.

mod lines;
pub mod plates;
pub mod recorded;
pub mod recording;
pub mod simulated;
pub mod steady;

pub use lines::EventWriter;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use plates::{PlateReading, PlateRegistry, write_key};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;
use std::sync::Arc;

/// Which way a car passes the barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    Entry,
    Exit,
}

impl Direction {
    /// As it is written in an event's `kind`.
    pub fn kind(self) -> &'static str {
        match self {
            Direction::Entry => "entry",
            Direction::Exit => "exit",
        }
    }

    /// What it adds to the occupancy.
    pub fn change(self) -> i64 {
        match self {
            Direction::Entry => 1,
            Direction::Exit => -1,
        }
    }
}

/// A car, as far as the plan needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlannedCar {
    /// The car with this number in its garage; the registry knows its plate.
    New(u64),
    /// A car that was inside before this run began, by the plate that the server has for it.
    Found(Arc<str>),
}

/// An instant, and the offset from UTC that clocks in the city showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalInstant {
    pub unix_ms: i64,
    pub offset_seconds: i32,
}

impl LocalInstant {
    /// The instant as clocks in `zone` show it.
    pub fn in_zone(zone: &TimeZone, unix_ms: i64) -> LocalInstant {
        let instant = Timestamp::from_millisecond(unix_ms)
            .expect("the plan's instants lie in the years that the calendar knows");
        LocalInstant { unix_ms, offset_seconds: zone.to_offset(instant).seconds() }
    }

    /// What clocks in the city showed.
    pub fn local_time(self) -> DateTime {
        Offset::from_seconds(self.offset_seconds)
            .and_then(|offset| Ok(offset.to_datetime(Timestamp::from_millisecond(self.unix_ms)?)))
            .expect("the plan's instants lie in the years that the calendar knows")
    }
}

/// One car passes the barrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarPassage {
    pub direction: Direction,
    /// `None`: the camera could not read the plate.
    pub car: Option<PlannedCar>,
    pub at: LocalInstant,
}

/// What a garage holds before its first event of this run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartingState {
    /// As the server counts it; cars without a readable plate are included.
    pub occupied: i64,
    /// The plates of cars that entered and did not leave.
    pub inside: Vec<Arc<str>>,
    /// The instant of the latest event, in milliseconds since 1970.
    pub latest_unix_ms: Option<i64>,
}

/// The drivers of one garage: those that have come before, and those that may come for the first time.
#[derive(Debug, Clone)]
pub struct Drivers {
    registry: Arc<PlateRegistry>,
    garage: usize,
    capacity: u32,
    next_new: u64,
    /// Cars that are outside and may return.
    regulars: Vec<u64>,
    /// Plates that were inside some garage when the run began. No new car gets one of them.
    taken: Arc<HashSet<Arc<str>>>,
}

impl Drivers {
    /// The share of cars at the entry that were here before, once there are some.
    const RETURNING: f64 = 0.6;

    pub fn new(
        registry: Arc<PlateRegistry>,
        garage: usize,
        capacity: u32,
        taken: Arc<HashSet<Arc<str>>>,
    ) -> Drivers {
        Drivers { registry, garage, capacity, next_new: 0, regulars: Vec::new(), taken }
    }

    /// A car that was never here.
    fn new_car(&mut self) -> PlannedCar {
        loop {
            let number = self.next_new;
            self.next_new += 1;
            // Without cars from earlier runs, which is the rule, no plate has to be written.
            if self.taken.is_empty() {
                return PlannedCar::New(number);
            }
            let mut plate = String::new();
            self.registry.write(self.garage, number, PlateReading::Bare, &mut plate);
            if !self.taken.contains(plate.as_str()) {
                return PlannedCar::New(number);
            }
        }
    }

    /// The next car at the entry. It is not inside any garage.
    fn arrive(&mut self, rng: &mut ChaCha8Rng) -> PlannedCar {
        if !self.regulars.is_empty() && rng.random_bool(Self::RETURNING) {
            let which = rng.random_range(0..self.regulars.len());
            return PlannedCar::New(self.regulars.swap_remove(which));
        }
        self.new_car()
    }

    /// `car` is outside again, and may return.
    fn leave(&mut self, car: &PlannedCar) {
        if let PlannedCar::New(number) = car
            && self.regulars.len() < 3 * self.capacity as usize
        {
            self.regulars.push(*number);
        }
    }
}

/// Appends the plate of `car` of this garage to `out`, as the camera reports it.
///
/// The camera at the entry reports the plate as it is painted, the one at the exit its letters and digits only, as cameras
/// of two makers do.
fn write_plate_of(
    registry: &PlateRegistry,
    garage: usize,
    car: &PlannedCar,
    direction: Direction,
    out: &mut String,
) {
    let reading = match direction {
        Direction::Entry => PlateReading::Separated,
        Direction::Exit => PlateReading::Bare,
    };
    match car {
        PlannedCar::New(number) => registry.write(garage, *number, reading, out),
        PlannedCar::Found(plate) => out.push_str(plate),
    }
}

/// The random numbers of one garage.
fn garage_rng(seed: u64, garage: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(garage as u64);
    rng
}

/// The events of one garage, in order.
#[derive(Debug, Clone)]
pub enum GarageTraffic {
    Recorded(Box<recorded::RecordedTraffic>),
    Simulated(Box<simulated::SimulatedTraffic>),
}

impl Iterator for GarageTraffic {
    type Item = CarPassage;

    fn next(&mut self) -> Option<CarPassage> {
        match self {
            GarageTraffic::Recorded(traffic) => traffic.next(),
            GarageTraffic::Simulated(traffic) => traffic.next(),
        }
    }
}

/// How many of the first `limit` events of a city happen in each garage. Of two at the same instant, that of the garage that
/// comes first in the list is first.
pub fn shares_of_the_first(limit: u64, garages: &[GarageTraffic]) -> Vec<u64> {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    let mut garages = garages.to_vec();
    let mut shares = vec![0; garages.len()];
    let mut heads = BinaryHeap::new();
    for (index, traffic) in garages.iter_mut().enumerate() {
        heads.extend(traffic.next().map(|passage| Reverse((passage.at.unix_ms, index))));
    }
    for _ in 0..limit {
        let Some(Reverse((_, index))) = heads.pop() else {
            break;
        };
        shares[index] += 1;
        heads.extend(garages[index].next().map(|passage| Reverse((passage.at.unix_ms, index))));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use plates::PlateMixture;

    #[test]
    fn a_plate_that_is_inside_somewhere_is_given_to_no_new_car() {
        let registry = Arc::new(PlateRegistry::new(PlateMixture::British, 9, 1));
        let mut plate = String::new();
        registry.write(0, 1, PlateReading::Bare, &mut plate);
        let taken = Arc::new(HashSet::from([Arc::from(plate)]));
        let mut drivers = Drivers::new(registry, 0, 10, taken);
        assert_eq!(drivers.new_car(), PlannedCar::New(0));
        assert_eq!(drivers.new_car(), PlannedCar::New(2));
    }
}
