//! Artificial cars: simulated ones, and ones derived from a recorded occupancy.
//!
//! **Promise.** One seed, one list of garages and one starting state give one plan: the same cars at the same instants,
//! whatever the machine's speed and in whatever order the garages are asked. Within a garage time never goes back. A car is
//! inside at most one garage, and enters only while it is outside.
//! **Kept by.** Each garage has a stream of random numbers and a range of plates of its own ([`plates`]), and produces its
//! events one by one when they are asked for. Nothing here reads a clock.
//! **Not promised.** That a car visits more than one garage.
//!
//! [`simulated`] invents cars, [`recording`] derives them from a file. `edge --simulate` takes its cars from [`steady`].

pub mod plates;
pub mod recording;
pub mod simulated;
pub mod steady;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::TimeZone;
use plates::{PlateRegistry, letters_and_digits};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;
use std::sync::Arc;

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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarPassage {
    pub direction: Direction,
    /// As it is painted, `B-AB 123`; that of a car that was inside before this run began as the server has it. `None`: the camera
    /// could not read it.
    pub plate: Option<Arc<str>>,
    pub unix_ms: i64,
}

impl CarPassage {
    /// The letters and digits of its plate.
    pub fn key(&self) -> Option<String> {
        self.plate.as_deref().map(letters_and_digits)
    }

    /// Appends the event as an edge accepts it, in one line of JSON, with local time in `zone`. `key` is its [`CarPassage::key`].
    ///
    /// The camera at the entry reports the plate as it is painted, the one at the exit only letters and digits, as two makers do.
    pub fn write_event(&self, key: Option<&str>, zone: &TimeZone, out: &mut String) {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
        let plate = if self.direction == Direction::Entry { self.plate.as_deref() } else { key };
        // No plate has a letter that JSON would want escaped: they are letters, digits, spaces and dashes.
        let (plate, quote) = plate.map_or(("null", ""), |plate| (plate, "\""));
        let kind = self.direction.kind();
        for part in [r#"{"kind":""#, kind, r#"","plate":"#, quote, plate, quote, r#","at":""#] {
            out.push_str(part);
        }
        let at = instant(self.unix_ms);
        let printed = PRINTER.print_timestamp_with_offset(&at, zone.to_offset(at), &mut *out);
        printed.expect("a String takes all that is written");
        out.push_str("\"}\n");
    }
}

fn instant(unix_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(unix_ms)
        .expect("the plan's instants lie in the years that the calendar knows")
}

/// What a garage holds before its first event of this run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartingState {
    /// As the server counts it; cars without a readable plate are included.
    pub occupied: i64,
    /// The letters and digits of the plates of cars that entered and did not leave.
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
    regulars: Vec<Arc<str>>,
    /// Cars that were inside some garage when the run began, by the letters and digits of their plates. No new car gets one of
    /// them, and they do not return.
    found: Arc<HashSet<Arc<str>>>,
    rng: ChaCha8Rng,
}

impl Drivers {
    /// The share of cars at the entry that were here before, once there are some.
    const RETURNING: f64 = 0.6;

    pub fn new(
        registry: Arc<PlateRegistry>,
        garage: usize,
        capacity: u32,
        found: Arc<HashSet<Arc<str>>>,
    ) -> Drivers {
        let mut rng = ChaCha8Rng::seed_from_u64(registry.seed);
        rng.set_stream(garage as u64);
        Drivers { registry, garage, capacity, next_new: 0, regulars: Vec::new(), found, rng }
    }

    fn new_car(&mut self) -> Arc<str> {
        loop {
            let plate = self.registry.plate(self.garage, self.next_new);
            self.next_new += 1;
            if self.found.is_empty() || !self.found.contains(letters_and_digits(&plate).as_str()) {
                return plate;
            }
        }
    }

    /// The next car at the entry. It is not inside any garage.
    fn arrive(&mut self) -> Arc<str> {
        if !self.regulars.is_empty() && self.rng.random_bool(Self::RETURNING) {
            let which = self.rng.random_range(0..self.regulars.len());
            return self.regulars.swap_remove(which);
        }
        self.new_car()
    }

    /// `car` is outside again, and may return.
    fn leave(&mut self, car: &Arc<str>) {
        if self.regulars.len() < 3 * self.capacity as usize && !self.found.contains(car) {
            self.regulars.push(car.clone());
        }
    }
}

pub type CarStream = Box<dyn Iterator<Item = CarPassage> + Send>;

/// How many of the first `limit` events of a city happen in each garage. Of two at the same instant, that of the garage that
/// comes first in the list is first.
pub fn shares_of_the_first(limit: u64, mut garages: Vec<CarStream>) -> Vec<u64> {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    let mut shares = vec![0; garages.len()];
    let mut heads = BinaryHeap::new();
    for (index, traffic) in garages.iter_mut().enumerate() {
        heads.extend(traffic.next().map(|passage| Reverse((passage.unix_ms, index))));
    }
    for _ in 0..limit {
        let Some(Reverse((_, index))) = heads.pop() else {
            break;
        };
        shares[index] += 1;
        heads.extend(garages[index].next().map(|passage| Reverse((passage.unix_ms, index))));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plate_that_is_inside_somewhere_is_given_to_no_new_car() {
        let registry = Arc::new(PlateRegistry::new(9, 1));
        let inside = letters_and_digits(&registry.plate(0, 1));
        let mut drivers = Drivers::new(registry.clone(), 0, 10, Arc::new(HashSet::from([inside.into()])));
        assert_eq!(drivers.new_car(), registry.plate(0, 0));
        assert_eq!(drivers.new_car(), registry.plate(0, 2));
    }

    fn event(passage: &CarPassage, zone: &TimeZone) -> serde_json::Value {
        let mut line = String::new();
        passage.write_event(passage.key().as_deref(), zone, &mut line);
        assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
        serde_json::from_str(&line).expect("a line is JSON")
    }

    #[test]
    fn instants_are_written_as_the_calendar_says() {
        for zone in ["Europe/London", "America/St_Johns", "Asia/Kolkata", "UTC"] {
            let zone = TimeZone::get(zone).expect("the zone is bundled");
            for step in 0..5_000_i64 {
                let unix_ms = 1_400_000_000_000 + step * 77_777_777 + step;
                let passage = CarPassage { direction: Direction::Entry, plate: None, unix_ms };
                let zoned = instant(unix_ms).to_zoned_datetime(zone.clone());
                let expected = zoned.strftime("%Y-%m-%dT%H:%M:%S.%3f%:z").to_string();
                assert_eq!(event(&passage, &zone)["at"], expected);
            }
        }
    }

    #[test]
    fn a_line_is_the_event_that_it_describes() {
        let zone = TimeZone::get("Europe/Berlin").expect("the zone is bundled");
        for (plate, direction, written) in [
            (Some("B-AB 123"), Direction::Entry, Some("B-AB 123")),
            (Some("B-AB 123"), Direction::Exit, Some("BAB123")),
            (Some("СА1234АВ"), Direction::Exit, Some("СА1234АВ")),
            (None, Direction::Entry, None),
        ] {
            let passage = CarPassage { direction, plate: plate.map(Arc::from), unix_ms: 1_480_000_000_007 };
            let event = event(&passage, &zone);
            assert_eq!((&event["kind"], event["plate"].as_str()), (&direction.kind().into(), written));
            assert_eq!(event["at"], "2016-11-24T16:06:40.007+01:00");
            assert_eq!(passage.key(), plate.map(letters_and_digits));
        }
    }
}
