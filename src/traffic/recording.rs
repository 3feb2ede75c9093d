//! Recorded occupancy, read from a CSV file, and the entries and exits that explain it.
//!
//! **Promise.** A file is taken whole or not at all: the first line that is wrong is named with its number and the reason. After
//! the last event of a row, entries minus exits give the row's occupancy, whatever the garage held at the beginning. Between two
//! rows there are as many events as the difference of their occupancies, spread over the time between.
//! **Not promised.** That the record makes sense: negative and overfull garages are in the data of real cities, and are
//! replayed as they are. Cars that came and went between two rows: a record of occupancy does not show them.
//!
//! Columns: `SystemCodeNumber,Capacity,Occupancy,LastUpdated`, in any order; further columns are ignored. `LastUpdated` is
//! local time in Birmingham without an offset. An hour that the clocks skipped in spring is read with the offset from
//! before. An hour that they ran through twice in autumn is the first of the two, unless the garage's rows are later already.

use super::{CarPassage, CarStream, Direction, Drivers, StartingState};
use crate::messaging::SiteName;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousTimestamp, TimeZone};
use rand::RngExt;
use std::collections::HashMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The time zone of the recorded city.
pub const ZONE: &str = "Europe/London";

/// A file with more garages is a mistake rather than a city: each is a process.
pub const MAX_GARAGES: usize = 200;

/// No car park holds more, and each car more is an event.
const MAX_OCCUPANCY: i64 = 1_000_000;
#[derive(Debug)]
pub struct Recording {
    /// In the order in which the file first names them.
    pub garages: Vec<RecordedGarage>,
}

#[derive(Debug)]
pub struct RecordedGarage {
    pub name: SiteName,
    pub capacity: u32,
    /// In order of time; rows of the same instant stay in the order of the file.
    pub rows: Arc<[OccupancyRow]>,
}

impl RecordedGarage {
    /// How many events its rows stand for when it begins with this occupancy.
    pub fn events_from(&self, mut occupied: i64) -> u64 {
        let changes = self
            .rows
            .iter()
            .map(|row| row.occupancy.abs_diff(std::mem::replace(&mut occupied, row.occupancy)));
        changes.sum()
    }
}

/// Why a file was refused. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error(
        "cannot read {path:?}: {source}. Nothing was started. Check the path and that this user may read it"
    )]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path:?}, line {line}: {reason}. Nothing was started. Correct the line or take it out")]
    Line { path: PathBuf, line: u64, reason: String },
    #[error("{path:?} {reason}")]
    File { path: PathBuf, reason: String },
}

const NO_ROWS: &str = "has no rows below its header, so there is nothing to replay. Nothing was started";
const COLUMNS: [&str; 4] = ["SystemCodeNumber", "Capacity", "Occupancy", "LastUpdated"];

/// The index of each of [`COLUMNS`] in the file.
fn find_columns(header: &csv::StringRecord) -> Result<[usize; 4], String> {
    let mut found = [0; 4];
    for (index, wanted) in found.iter_mut().zip(COLUMNS) {
        *index = header
            .iter()
            .position(|column| column.trim() == wanted)
            .ok_or_else(|| format!("the header has no column {wanted:?}; it needs {}", COLUMNS.join(", ")))?;
    }
    Ok(found)
}

fn whole_number(column: &str, text: &str, range: RangeInclusive<i64>) -> Result<i64, String> {
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        format!("{column} is {text:?}, not a whole number from {} to {}", range.start(), range.end())
    })
}

struct GarageRows {
    name: SiteName,
    /// Of the latest row, and the time of that row.
    capacity: u32,
    latest_ms: i64,
    rows: Vec<OccupancyRow>,
}

impl GarageRows {
    /// Adds a row with these values of the columns after the name. `Err` says what is wrong with it.
    fn add(&mut self, [capacity, occupancy, updated]: [&str; 3], zone: &TimeZone) -> Result<(), String> {
        let capacity = whole_number("Capacity", capacity, 1..=MAX_OCCUPANCY)? as u32;
        let occupancy = whole_number("Occupancy", occupancy, -MAX_OCCUPANCY..=MAX_OCCUPANCY)?;
        let local = DateTime::strptime("%Y-%m-%d %H:%M:%S", updated).ok();
        let local = local.filter(|local| (1900..=2999).contains(&local.year())).ok_or_else(|| {
            format!("LastUpdated is {updated:?}, not a date and time such as \"2016-10-04 07:59:42\"")
        })?;
        let unix_ms = instant_after(self.latest_ms, zone.to_ambiguous_timestamp(local))
            .map_err(|error| format!("LastUpdated is not an instant: {error}"))?;
        if unix_ms >= self.latest_ms {
            (self.capacity, self.latest_ms) = (capacity, unix_ms);
        }
        self.rows.push(OccupancyRow { unix_ms, occupancy });
        Ok(())
    }
}

/// The instant that a local time names, when the latest row of its garage is of `latest_ms`.
fn instant_after(latest_ms: i64, local: AmbiguousTimestamp) -> Result<i64, jiff::Error> {
    let first = local.compatible()?.as_millisecond();
    let second = local.later()?.as_millisecond();
    // In autumn both readings are one hour apart. The second is taken only when the first would go back in time.
    Ok(if first < latest_ms && second >= latest_ms { second } else { first })
}

impl Recording {
    pub fn read(path: &Path) -> Result<Recording, RecordingError> {
        let unreadable = |source| RecordingError::Unreadable { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        Recording::parse(path, file)
    }

    fn parse(path: &Path, input: impl io::Read) -> Result<Recording, RecordingError> {
        let zone = TimeZone::get(ZONE).expect("the time zones are part of the program");
        let file = |reason| RecordingError::File { path: path.to_owned(), reason };
        let empty = || file(NO_ROWS.to_owned());
        let refuse = |line, reason| RecordingError::Line { path: path.to_owned(), line, reason };
        let mut reader = csv::Reader::from_reader(input);
        let header = reader.headers().map_err(|error| read_error(path, error))?;
        if header.is_empty() {
            return Err(empty());
        }
        let columns = find_columns(header).map_err(|reason| refuse(1, reason))?;
        let mut garages: Vec<GarageRows> = Vec::new();
        let mut by_name = HashMap::new();
        for record in reader.records() {
            let record = record.map_err(|error| read_error(path, error))?;
            let refuse = |reason| refuse(record.position().map_or(0, csv::Position::line), reason);
            let [name, values @ ..] = columns.map(|index| record.get(index).unwrap_or_default());
            let name = SiteName::new(name)
                .map_err(|reason| refuse(format!("SystemCodeNumber is {name:?}: {reason}")))?;
            let index = *by_name.entry(name.clone()).or_insert_with(|| {
                garages.push(GarageRows { name, capacity: 0, latest_ms: i64::MIN, rows: Vec::new() });
                garages.len() - 1
            });
            if garages.len() > MAX_GARAGES {
                return Err(file(format!(
                    "names more than {MAX_GARAGES} car parks, each of which would be a process. Nothing was started. Split the file"
                )));
            }
            garages[index].add(values, &zone).map_err(refuse)?;
        }
        if garages.is_empty() {
            return Err(empty());
        }
        let garage = |mut read: GarageRows| {
            read.rows.sort_by_key(|row| row.unix_ms);
            RecordedGarage { name: read.name, capacity: read.capacity, rows: read.rows.into() }
        };
        Ok(Recording { garages: garages.into_iter().map(garage).collect() })
    }

    /// When the first car of the first row may come.
    pub fn starts_unix_ms(&self) -> i64 {
        let firsts = self.garages.iter().filter_map(|garage| garage.rows.first());
        let first = firsts.map(|row| row.unix_ms).min().expect("a recording has rows");
        first - BEFORE_FIRST_ROW_MS
    }
}

fn read_error(path: &Path, error: csv::Error) -> RecordingError {
    let path = path.to_owned();
    let line = error.position().map_or(0, csv::Position::line);
    let reason = match error.into_kind() {
        csv::ErrorKind::Io(source) => return RecordingError::Unreadable { path, source },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("it has {len} fields, the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        // The reader of a file fails in no other way.
        _ => "it cannot be read".to_owned(),
    };
    RecordingError::Line { path, line, reason }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OccupancyRow {
    pub unix_ms: i64,
    pub occupancy: i64,
}

/// The cars of the first row came in during this time before it: there is no row before it.
pub const BEFORE_FIRST_ROW_MS: i64 = 3_600_000;

#[derive(Debug)]
struct RecordedTraffic {
    rows: Arc<[OccupancyRow]>,
    /// The row to which the next event leads, and how many events that lead to it were produced.
    row: usize,
    produced: u64,
    /// What the garage held before the first of them.
    occupancy: i64,
    inside: Vec<Arc<str>>,
    drivers: Drivers,
}

/// The cars that explain `rows`, which are in order of time. The garage goes on from `start`: the first events lead from what it
/// holds to the first row.
pub fn recorded_cars(rows: Arc<[OccupancyRow]>, start: &StartingState, drivers: Drivers) -> CarStream {
    let (occupancy, inside) = (start.occupied, start.inside.clone());
    Box::new(RecordedTraffic { rows, row: 0, produced: 0, occupancy, inside, drivers })
}

impl RecordedTraffic {
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
        let mut row = *self.rows.get(self.row)?;
        while row.occupancy.abs_diff(self.occupancy) == self.produced {
            (self.occupancy, self.produced) = (row.occupancy, 0);
            self.row += 1;
            row = *self.rows.get(self.row)?;
        }
        let previous = self.row.checked_sub(1).map(|previous| self.rows[previous].unix_ms);
        let from_ms = previous.unwrap_or(row.unix_ms - BEFORE_FIRST_ROW_MS);
        let change = row.occupancy - self.occupancy;
        // Each event happens somewhere in its own share of the time.
        let place = (self.produced as f64 + self.drivers.rng.random::<f64>()) / change.abs() as f64;
        let unix_ms = from_ms + ((row.unix_ms - from_ms) as f64 * place) as i64;
        let direction = if change > 0 { Direction::Entry } else { Direction::Exit };
        self.produced += 1;
        Some(CarPassage { direction, plate: Some(self.car(direction)), unix_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plates::PlateRegistry;
    use super::*;
    use std::collections::HashSet;

    const HEADER: &str = "SystemCodeNumber,Capacity,Occupancy,LastUpdated\n";

    fn parse(text: &str) -> Result<Recording, RecordingError> {
        Recording::parse(Path::new("some.csv"), text.as_bytes())
    }

    fn refusal(rows: &str) -> String {
        parse(&format!("{HEADER}{rows}")).expect_err("it is wrong").to_string()
    }

    #[test]
    fn a_wrong_line_is_named_with_its_number_and_the_reason() {
        let good = "Bull Ring,100,5,2016-10-04 07:59:42\n";
        for (bad, reason) in [
            ("Bull Ring,100,5\n", "3 fields"),
            ("Bull Ring,100,5,2016-10-04 07:59:42,x\n", "5 fields"),
            ("Bull Ring,none,5,2016-10-04 07:59:42\n", "Capacity is \"none\""),
            ("Bull Ring,0,5,2016-10-04 07:59:42\n", "Capacity is \"0\""),
            ("Bull Ring,100,5.5,2016-10-04 07:59:42\n", "Occupancy is \"5.5\""),
            ("Bull Ring,100,99999999999,2016-10-04 07:59:42\n", "Occupancy is"),
            ("Bull Ring,100,5,2016-10-32 07:59:42\n", "LastUpdated is"),
            ("Bull Ring,100,5,2016-10-04T07:59:42\n", "LastUpdated is"),
            ("Bull Ring,100,5,0016-10-04 07:59:42\n", "LastUpdated is"),
            (",100,5,2016-10-04 07:59:42\n", "SystemCodeNumber is"),
            ("Bull\tRing,100,5,2016-10-04 07:59:42\n", "SystemCodeNumber is"),
        ] {
            let said = refusal(&format!("{good}{good}{bad}{good}"));
            assert!(said.contains("line 4") && said.contains(reason), "{said}");
            assert!(said.contains("Nothing was started"), "{said}");
        }
    }

    #[test]
    fn what_is_no_table_of_occupancies_is_refused() {
        let said = parse("a,b,c\n1,2,3\n").expect_err("it is wrong").to_string();
        assert!(said.contains("line 1") && said.contains("SystemCodeNumber"), "{said}");
        let said = |text: &str| parse(text).expect_err("it is wrong").to_string();
        assert!(said(HEADER).contains("nothing to replay"));
        assert!(said("").contains("nothing to replay"));
        let many: String = (0..=MAX_GARAGES).map(|n| format!("g{n},1,1,2016-10-04 07:59:42\n")).collect();
        assert!(said(&format!("{HEADER}{many}")).contains("more than 200 car parks"));
        let latin1 = [HEADER.as_bytes(), b"Caf\xe9,1,1,2016-10-04 07:59:42\n"].concat();
        let said = Recording::parse(Path::new("x"), &latin1[..]).expect_err("not UTF-8");
        assert!(said.to_string().contains("line 2: it is not UTF-8"), "{said}");
    }

    #[test]
    fn each_change_between_two_rows_is_an_event() {
        let recording = parse(&format!(
            "{HEADER}A,10,3,2016-10-04 08:00:00\nA,12,5,2016-10-04 09:00:00\n\
             B,20,7,2016-10-04 08:00:00\nB,20,1,2016-10-04 08:30:00\nB,20,1,2016-10-04 09:30:00\n"
        ))
        .expect("it is right");
        assert_eq!(recording.garages[0].capacity, 12);
        let events =
            |starting: [i64; 2]| [0, 1].map(|garage| recording.garages[garage].events_from(starting[garage]));
        assert_eq!(events([0, 0]), [5, 13]);
        assert_eq!(events([5, 0]), [4, 13]);
    }

    #[test]
    fn the_hour_that_comes_twice_goes_forward_and_the_one_that_is_skipped_exists() {
        let recording = parse(&format!(
            "{HEADER}A,9,1,2016-10-30 01:10:00\nA,9,2,2016-10-30 01:50:00\n\
             A,9,3,2016-10-30 01:20:00\nA,9,4,2016-10-30 02:00:00\nB,9,1,2016-03-27 01:30:00\n"
        ))
        .expect("it is right");
        let minutes: Vec<i64> = recording.garages[0]
            .rows
            .windows(2)
            .map(|pair| (pair[1].unix_ms - pair[0].unix_ms) / 60_000)
            .collect();
        assert_eq!(minutes, [40, 30, 40]);
        let skipped = jiff::Timestamp::from_millisecond(recording.garages[1].rows[0].unix_ms);
        assert_eq!(skipped.expect("in range").to_string(), "2016-03-27T01:30:00Z");
    }

    #[test]
    fn the_record_of_birmingham_explains_2_239_705_events() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/birmingham/birmingham.csv");
        let recording = Recording::read(&path).expect("it is right");
        assert_eq!(recording.garages.len(), 30);
        assert_eq!(recording.garages.iter().map(|garage| garage.rows.len()).sum::<usize>(), 35_717);
        assert_eq!(recording.garages.iter().map(|garage| garage.events_from(0)).sum::<u64>(), 2_239_705);
        let lowest = |garage: &RecordedGarage| garage.rows.iter().map(|row| row.occupancy).min();
        let unmatched: i64 = recording.garages.iter().filter_map(lowest).map(|low| low.min(0)).sum();
        assert_eq!(unmatched, -8, "only \"NIA North\" shows more exits than cars that came");
    }

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
