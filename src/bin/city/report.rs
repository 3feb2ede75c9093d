//! The result of a run, for people and for programs.
//!
//! **Promise.** `books_right` is true only if everything that was confirmed is at the server once, in order, no process ended
//! early except those that chaos killed, and each daemon exited with success when it was asked to stop.

use super::books::Discrepancy;
use super::chaos::FaultCounts;
use super::money::{Takings, grouped};
use super::settings::Verify;
use fogpost::codes::{self, Code, Coded};
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// One garage at the end, as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GarageTotal {
    pub name: String,
    pub capacity: u32,
    pub occupied: i64,
    /// Money, including earlier runs.
    pub taken: Takings,
    /// Events confirmed in this run.
    pub events: u64,
}

/// The most memory that processes held, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PeakMemory {
    pub server: Option<u64>,
    /// Of the edge that held most.
    pub edges_max: Option<u64>,
    pub city: Option<u64>,
}

/// A part of a run, in the order of [`PHASES`]. Each moment of a run belongs to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Starting the daemons, until all are ready and what earlier runs had left is delivered.
    Start,
    /// From the first car to the last confirmation.
    Feed,
    /// From there until all is applied.
    Settle,
    /// Comparing the books.
    Check,
    /// Staying up to be looked at.
    Linger,
    /// Stopping the daemons.
    Stop,
    /// `server verify`.
    Verify,
}

const PHASES: [&str; 7] = ["start", "feed", "settle", "check", "linger", "stop", "verify"];

/// How long each phase took. They add up to the total.
#[derive(Debug, Clone)]
pub struct PhaseTimes {
    current: Phase,
    since: Instant,
    hundredths: [u64; PHASES.len()],
}

impl Default for PhaseTimes {
    /// The first phase begins now.
    fn default() -> PhaseTimes {
        PhaseTimes { current: Phase::Start, since: Instant::now(), hundredths: Default::default() }
    }
}

impl PhaseTimes {
    /// The current phase ends, and another one begins.
    pub fn begin(&mut self, phase: Phase) {
        self.begin_at(phase, Instant::now());
    }

    fn begin_at(&mut self, phase: Phase, now: Instant) {
        // Counted in hundredths of a second, what remains in the next phase, so that what is shown adds up, too.
        let hundredths = now.duration_since(self.since).as_millis() as u64 / 10;
        self.since += Duration::from_millis(hundredths * 10);
        self.hundredths[self.current as usize] += hundredths;
        self.current = phase;
    }

    /// How long the cars have driven and their events been delivered, until now.
    pub fn seconds_of_cars(&self) -> f64 {
        let cars = [Phase::Feed, Phase::Settle];
        let ended = cars.map(|phase| self.hundredths[phase as usize]).iter().sum::<u64>() as f64 / 100.0;
        let now = if cars.contains(&self.current) { self.since.elapsed() } else { Duration::ZERO };
        ended + now.as_secs_f64()
    }

    /// Of all phases that have ended.
    pub fn total_seconds(&self) -> f64 {
        self.hundredths.iter().sum::<u64>() as f64 / 100.0
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, f64)> {
        PHASES.into_iter().zip(self.hundredths).map(|(name, hundredths)| (name, hundredths as f64 / 100.0))
    }
}

/// `{"start":0.31,"feed":2.07,…}`
impl Serialize for PhaseTimes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.each())
    }
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct CityReport {
    /// Confirmed by the edges in this run.
    pub events: u64,
    /// Applied by the server since the run began.
    pub applied: u64,
    /// Resent events that the server had already. Under chaos only what it counted since it was last started.
    pub duplicates_refused: u64,
    /// Everything, from the first process to the last.
    pub seconds: f64,
    pub events_per_second: f64,
    pub garages: Vec<GarageTotal>,
    /// The money of all garages.
    pub taken: Takings,
    /// Stays that have ended, each with one charge.
    pub stays: u64,
    /// Where the server shows a statement, such as `/v1/statements/AB1?month=2026-11&format=html`.
    pub statement: Option<String>,
    pub books_right: bool,
    /// How they were compared.
    pub verified: Verify,
    /// The result of `server verify` after the run; `None` if it was not run.
    pub ledger_verified: Option<bool>,
    pub discrepancies: Vec<Discrepancy>,
    /// Why the run could not be brought to an end.
    pub error: Option<String>,
    #[serde(skip)]
    error_code: Option<Code>,
    /// A signal ended it before the cars did.
    pub interrupted: bool,
    /// Events that edges sent again. Under chaos only what they counted since they were last started.
    pub resends: u64,
    /// How often an edge asked its producer to come back later.
    pub held_back: u64,
    /// The faults, if there was chaos.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chaos: Option<FaultCounts>,
    pub peak_rss_bytes: PeakMemory,
    pub phases: PhaseTimes,
    pub seed: u64,
    /// Where data and logs are; `None` if they were removed.
    pub data_dir: Option<PathBuf>,
    /// The command that shows a statement when the city has ended.
    pub statement_command: Option<String>,
}

impl CityReport {
    pub fn empty(seed: u64, verify: Verify) -> CityReport {
        CityReport { seed, verified: verify, ..CityReport::default() }
    }

    /// The run could not be brought to an end.
    pub fn failed(&mut self, error: &(impl Coded + ?Sized)) {
        (self.error, self.error_code) = (Some(error.to_string()), Some(error.code()));
    }

    /// What the error exit says, if the books are not known to be right.
    pub fn complaint(&self) -> Option<(Code, String)> {
        let differences = self.discrepancies.len();
        let not_right =
            || format!("the books are not right: {differences} differences, which the report names");
        match (self.books_right, self.error_code, &self.error) {
            (true, ..) => None,
            (false, Some(code), Some(error)) => Some((code, error.clone())),
            (false, ..) => Some((codes::BOOKS_NOT_RIGHT, not_right())),
        }
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a report has nothing that JSON cannot say")
    }
}

fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), |bytes| format!("{} MB", bytes.div_ceil(1 << 20)))
}

impl fmt::Display for CityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = grouped(self.events);
        if self.error.is_some() && self.applied == 0 {
            writeln!(f, "{events} events confirmed; how many are applied is not known")?;
        } else {
            writeln!(
                f,
                "{events} events confirmed, {} applied, {} duplicates refused, {} resends",
                grouped(self.applied),
                grouped(self.duplicates_refused),
                grouped(self.resends)
            )?;
        }
        if let Some(chaos) = &self.chaos {
            writeln!(f, "{chaos}; {} posts repeated", grouped(chaos.posts_repeated))?;
        }
        let phases = self.phases.each().filter(|(_, seconds)| *seconds > 0.0);
        let phases: Vec<String> = phases.map(|(name, seconds)| format!("{name} {seconds:.2}")).collect();
        writeln!(f, "{:.2} s ({:.0} events/s): {}", self.seconds, self.events_per_second, phases.join(", "))?;
        if !self.taken.is_nothing() {
            writeln!(f, "{} taken for {} stays", self.taken, grouped(self.stays))?;
        }
        let PeakMemory { server, edges_max, city } = self.peak_rss_bytes;
        let [server, edges, city] = [server, edges_max, city].map(megabytes);
        writeln!(f, "memory at most: server {server}, edges {edges}, city {city}")?;
        for discrepancy in &self.discrepancies {
            writeln!(f, "{discrepancy}")?;
        }
        if let Some(data_dir) = &self.data_dir {
            writeln!(f, "data and logs are kept in {}", data_dir.display())?;
        }
        if let Some(command) = &self.statement_command {
            writeln!(f, "a statement: {command}")?;
        }
        f.write_str(match (self.books_right, self.verified) {
            (true, Verify::Full) => {
                "The books are right: each confirmed event is at the server once, in order."
            }
            (true, _) => "The books are right, as far as numbers and occupancies tell.",
            (false, _) => "THE BOOKS ARE NOT RIGHT, or could not be checked.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_fields_of_the_contract() {
        let mut report = CityReport::empty(1, Verify::Full);
        report.garages.push(GarageTotal {
            name: "NIA North".to_owned(),
            capacity: 480,
            occupied: -8,
            taken: Takings::default(),
            events: 5,
        });
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");
        for field in ["events", "applied", "duplicates_refused", "seconds", "events_per_second"] {
            assert!(json[field].is_number(), "{field}");
        }
        let garage = &json["garages"][0];
        assert_eq!((&garage["name"], &garage["capacity"]), (&"NIA North".into(), &480.into()));
        assert_eq!(garage["occupied"], -8);
        assert_eq!((&garage["taken"], &json["taken"]), (&serde_json::json!([]), &serde_json::json!([])));
        assert!(!report.to_json().contains('\n'));
    }

    #[test]
    fn only_right_books_are_called_right() {
        let mut report = CityReport::empty(1, Verify::Full);
        assert!(report.to_string().contains("NOT RIGHT"));
        report.books_right = true;
        assert!(report.to_string().ends_with("once, in order."));
    }

    #[test]
    fn the_phases_add_up_to_the_total() {
        let mut phases = PhaseTimes::default();
        let began = phases.since;
        for (next, at_ms) in
            [(Phase::Feed, 1_234), (Phase::Settle, 1_801), (Phase::Check, 1_809), (Phase::Stop, 4_001)]
        {
            phases.begin_at(next, began + Duration::from_millis(at_ms));
        }
        let mut report = CityReport::empty(1, Verify::Full);
        (report.seconds, report.phases) = (phases.total_seconds(), phases);
        let said = report.to_string();
        assert!(said.contains("\n4.00 s (0 events/s): start 1.23, feed 0.57, check 2.20\n"), "{said}");
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");
        let parts: f64 = json["phases"].as_object().expect("a map").values().filter_map(|v| v.as_f64()).sum();
        assert!((parts - report.seconds).abs() < 1e-9, "{json}");
    }
}
