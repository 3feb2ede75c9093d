//! Which car passes which barrier, and when.
//!
//! **Promise.** One seed, one list of garages and one starting state give one plan: the same cars at
//! the same instants, whatever the machine's speed and in whatever order the garages are asked. Within a garage
//! the instants never go back. A car is inside at most one garage, and enters only while it is outside.
//! **Kept by.** Each garage has a stream of random numbers and a range of plates of its own
//! ([`super::plates`]), and produces its events one by one when they are asked for: a plan of any
//! length takes no more room than the cars that are inside.
//! **Not promised.** That a car visits more than one garage: each has one that it returns to.

pub mod recorded;
pub mod simulated;

use super::plates::{Reading, Registry, write_key};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;
use std::fmt::Write;
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
pub enum Car {
    /// The so-manieth car of this garage; the registry knows its plate.
    Planned(u64),
    /// A car that was inside before this run began, by the plate that the server has for it.
    Found(Arc<str>),
}

/// A passage of time: an instant, and the offset from UTC that clocks in the city showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub unix_ms: i64,
    pub offset_seconds: i32,
}

/// One car passes the barrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    pub direction: Direction,
    /// `None`: the camera could not read the plate.
    pub car: Option<Car>,
    pub at: Moment,
}

/// What a garage holds before its first event of this run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartingState {
    /// As the server counts it; cars without a readable plate are part of it.
    pub occupied: i64,
    /// The plates of cars that entered and did not leave.
    pub inside: Vec<Arc<str>>,
    /// The instant of the latest event, in milliseconds since 1970.
    pub latest_unix_ms: Option<i64>,
}

/// The cars of one garage: those that have come before, and those that may come new.
#[derive(Debug, Clone)]
pub struct Drivers {
    registry: Arc<Registry>,
    garage: usize,
    next_new: u64,
    /// Cars that are outside and know the way.
    regulars: Vec<u64>,
    most_regulars: usize,
    /// Plates that were inside some garage when the run began. No new car carries one of them.
    taken: Arc<HashSet<Arc<str>>>,
}

impl Drivers {
    /// The share of cars at the entry that were here before, once there are some.
    const RETURNING: f64 = 0.6;

    pub fn new(
        registry: Arc<Registry>,
        garage: usize,
        capacity: u32,
        taken: Arc<HashSet<Arc<str>>>,
    ) -> Drivers {
        Drivers {
            registry,
            garage,
            next_new: 0,
            regulars: Vec::new(),
            most_regulars: 3 * capacity as usize,
            taken,
        }
    }

    /// A car that was never here.
    pub fn new_car(&mut self) -> Car {
        let (mut plate, mut key) = (String::new(), String::new());
        loop {
            let number = self.next_new;
            self.next_new += 1;
            if self.taken.is_empty() {
                return Car::Planned(number);
            }
            plate.clear();
            key.clear();
            self.registry.write(self.garage, number, Reading::Bare, &mut plate);
            write_key(&plate, &mut key);
            if !self.taken.contains(key.as_str()) {
                return Car::Planned(number);
            }
        }
    }

    /// The next car at the entry. It is not inside any garage.
    pub fn arrive(&mut self, rng: &mut ChaCha8Rng) -> Car {
        if !self.regulars.is_empty() && rng.random_bool(Self::RETURNING) {
            let which = rng.random_range(0..self.regulars.len());
            return Car::Planned(self.regulars.swap_remove(which));
        }
        self.new_car()
    }

    /// `car` is outside again, and may return.
    pub fn went_home(&mut self, car: &Car) {
        if let Car::Planned(number) = car
            && self.regulars.len() < self.most_regulars
        {
            self.regulars.push(*number);
        }
    }
}

/// What clocks in `zone` differed from UTC by at this instant.
pub fn offset_seconds(zone: &TimeZone, unix_ms: i64) -> i32 {
    let instant = Timestamp::from_millisecond(unix_ms)
        .expect("the plan's instants lie in the years that the calendar knows");
    zone.to_offset(instant).seconds()
}

/// What clocks in the city showed.
pub fn local_time(at: Moment) -> DateTime {
    Offset::from_seconds(at.offset_seconds)
        .and_then(|offset| Ok(offset.to_datetime(Timestamp::from_millisecond(at.unix_ms)?)))
        .expect("the plan's instants lie in the years that the calendar knows")
}

/// The random numbers of one garage.
fn garage_rng(seed: u64, garage: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(garage as u64);
    rng
}

/// The events of one garage, in order.
#[derive(Debug, Clone)]
pub enum Traffic {
    Recorded(Box<recorded::Recorded>),
    Simulated(Box<simulated::Simulated>),
}

impl Iterator for Traffic {
    type Item = Passage;

    fn next(&mut self) -> Option<Passage> {
        match self {
            Traffic::Recorded(traffic) => traffic.next(),
            Traffic::Simulated(traffic) => traffic.next(),
        }
    }
}

/// How many of the first `limit` events of a city happen in each garage. Of two at the same instant,
/// the garage that comes first in the list is first.
pub fn shares_of_the_first(limit: u64, garages: &[Traffic]) -> Vec<u64> {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    let mut garages = garages.to_vec();
    let mut shares = vec![0; garages.len()];
    let mut heads = BinaryHeap::new();
    for (index, traffic) in garages.iter_mut().enumerate() {
        heads.extend(traffic.next().map(|p| Reverse((p.at.unix_ms, index))));
    }
    for _ in 0..limit {
        let Some(Reverse((_, index))) = heads.pop() else {
            break;
        };
        shares[index] += 1;
        heads.extend(garages[index].next().map(|p| Reverse((p.at.unix_ms, index))));
    }
    shares
}

/// Writes events as the edge takes them, one JSON object a line, without an allocation per event.
#[derive(Debug)]
pub struct LineWriter {
    registry: Arc<Registry>,
    garage: usize,
    plate: String,
}

impl LineWriter {
    pub fn new(registry: Arc<Registry>, garage: usize) -> LineWriter {
        LineWriter { registry, garage, plate: String::new() }
    }

    /// Appends `passage` and a line break to `out`; returns the plate's key, if the camera could read it.
    ///
    /// The camera at the entry reports the plate as it is painted, the one at the exit its letters and digits
    /// only, as cameras of two makers do.
    pub fn write(&mut self, passage: &Passage, key: &mut String, out: &mut String) -> bool {
        out.push_str(r#"{"kind":""#);
        out.push_str(passage.direction.kind());
        out.push_str(r#"","plate":"#);
        key.clear();
        if let Some(car) = &passage.car {
            self.plate.clear();
            match car {
                Car::Planned(number) => {
                    let reading = match passage.direction {
                        Direction::Entry => Reading::Separated,
                        Direction::Exit => Reading::Bare,
                    };
                    self.registry.write(self.garage, *number, reading, &mut self.plate);
                }
                Car::Found(plate) => self.plate.push_str(plate),
            }
            write_key(&self.plate, key);
            write_json_text(&self.plate, out);
        } else {
            out.push_str("null");
        }
        out.push_str(r#","at":""#);
        write_rfc3339(passage.at, out);
        out.push_str("\"}\n");
        passage.car.is_some()
    }
}

/// Appends `text` as a JSON string.
fn write_json_text(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                write!(out, "\\u{:04x}", u32::from(control)).expect("a String takes all");
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Appends the instant with milliseconds and offset: `2016-10-04T07:59:42.125+01:00`.
///
/// Laid out by hand since it is done millions of times.
fn write_rfc3339(at: Moment, out: &mut String) {
    let local = local_time(at);
    let mut text = *b"0000-00-00T00:00:00.000+00:00";
    let mut put = |place: usize, digits: usize, number: i32| {
        let mut rest = number.unsigned_abs();
        for slot in text[place..place + digits].iter_mut().rev() {
            *slot = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    };
    put(0, 4, i32::from(local.year()));
    put(5, 2, i32::from(local.month()));
    put(8, 2, i32::from(local.day()));
    put(11, 2, i32::from(local.hour()));
    put(14, 2, i32::from(local.minute()));
    put(17, 2, i32::from(local.second()));
    put(20, 3, i32::from(local.millisecond()));
    put(24, 2, at.offset_seconds / 3_600);
    put(27, 2, at.offset_seconds / 60 % 60);
    if at.offset_seconds < 0 {
        text[23] = b'-';
    }
    out.push_str(std::str::from_utf8(&text).expect("digits and marks are ASCII"));
}

#[cfg(test)]
mod tests {
    use super::super::plates::Mixture;
    use super::*;

    #[test]
    fn instants_are_written_as_the_calendar_says() {
        for zone in ["Europe/London", "America/St_Johns", "Asia/Kolkata", "UTC"] {
            let zone = jiff::tz::TimeZone::get(zone).expect("the zone is bundled");
            for step in 0..5_000_i64 {
                let unix_ms = 1_400_000_000_000 + step * 77_777_777 + step;
                let instant = Timestamp::from_millisecond(unix_ms).expect("in range");
                let offset = zone.to_offset(instant);
                let mut text = String::new();
                let offset_seconds = offset.seconds();
                write_rfc3339(Moment { unix_ms, offset_seconds }, &mut text);
                let zoned = instant.to_zoned_datetime(zone.clone());
                assert_eq!(text, zoned.strftime("%Y-%m-%dT%H:%M:%S.%3f%:z").to_string());
            }
        }
    }

    #[test]
    fn a_line_is_the_event_it_tells_of() {
        let registry = Arc::new(Registry::new(Mixture::Continental, 1, 2));
        let mut writer = LineWriter::new(registry, 1);
        let at = Moment { unix_ms: 1_480_000_000_007, offset_seconds: 3_600 };
        for (car, direction) in [
            (Some(Car::Planned(3)), Direction::Entry),
            (Some(Car::Planned(3)), Direction::Exit),
            (Some(Car::Found("A\"B\\\u{1}".into())), Direction::Exit),
            (None, Direction::Entry),
        ] {
            let (mut key, mut line) = (String::new(), String::new());
            let readable = writer.write(&Passage { direction, car, at }, &mut key, &mut line);
            let event: serde_json::Value = serde_json::from_str(&line).expect("a line is JSON");
            assert_eq!(event["kind"], direction.kind());
            assert_eq!(event["at"], "2016-11-24T16:06:40.007+01:00");
            let plate = event["plate"].as_str();
            assert_eq!(plate.is_some(), readable);
            let mut expected = String::new();
            write_key(plate.unwrap_or_default(), &mut expected);
            assert_eq!(key, expected);
        }
    }

    #[test]
    fn a_plate_that_is_inside_somewhere_is_given_to_no_new_car() {
        let registry = Arc::new(Registry::new(Mixture::British, 9, 1));
        let mut plate = String::new();
        registry.write(0, 1, Reading::Bare, &mut plate);
        let taken = Arc::new(HashSet::from([Arc::from(plate)]));
        let mut drivers = Drivers::new(registry, 0, 10, taken);
        assert_eq!(drivers.new_car(), Car::Planned(0));
        assert_eq!(drivers.new_car(), Car::Planned(2));
    }
}
