//! What a run came to, for people and for programs.
//!
//! **Promise.** `books_right` is true only if everything that was confirmed is at the centre once, in order, no
//! process ended before its time except those that bad weather killed, and each daemon ended well when told to.

use super::books::Discrepancy;
use super::chaos::Count;
use super::console::grouped;
use super::money::Takings;
use super::settings::Verify;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// One garage at the end, as the centre tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GarageTotal {
    pub name: String,
    pub capacity: u32,
    pub occupied: i64,
    /// The money, that of earlier runs too.
    pub taken: Takings,
    /// Events confirmed in this run.
    pub events: u64,
}

/// The most memory that processes held, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Peaks {
    pub server: Option<u64>,
    /// Of the edge that held most.
    pub edges_max: Option<u64>,
    pub city: Option<u64>,
}

/// How long each part took, in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Phases {
    /// Starting the daemons, until all were ready and what earlier runs had left was delivered.
    pub start: f64,
    /// From the first car to the last confirmation.
    pub feed: f64,
    /// From there until all was applied.
    pub settle: f64,
    /// Comparing the books.
    pub check: f64,
    /// Stopping the daemons.
    pub stop: f64,
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Confirmed by the edges in this run.
    pub events: u64,
    /// Applied by the server since the run began.
    pub applied: u64,
    /// Resent events that the server had already, since it was started. In bad weather at least so many: what a daemon
    /// counted between the last look at it and its death is lost.
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
    /// How they were compared: `full` or `counts`.
    pub verified: &'static str,
    /// What `server verify` said of the ledger after the run; `None` if it was not asked, or this server cannot be.
    pub ledger_verified: Option<bool>,
    pub discrepancies: Vec<Discrepancy>,
    /// Why the run could not be brought to an end.
    pub error: Option<String>,
    /// A signal ended it before the cars did.
    pub interrupted: bool,
    /// Events that edges sent again; in bad weather at least so many.
    pub resends: u64,
    /// How often an edge asked its producer to come back later.
    pub held_back: u64,
    /// What the bad weather did; absent in good weather.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chaos: Option<Count>,
    pub peak_rss_bytes: Peaks,
    pub phases: Phases,
    pub seed: u64,
    /// Where data and logs are; `None` if they were removed.
    pub data_dir: Option<PathBuf>,
    /// What shows a statement when the city has ended.
    pub statement_command: Option<String>,
}

impl Report {
    pub fn empty(seed: u64, verify: Verify) -> Report {
        Report {
            events: 0,
            applied: 0,
            duplicates_refused: 0,
            seconds: 0.0,
            events_per_second: 0.0,
            garages: Vec::new(),
            taken: Takings::default(),
            stays: 0,
            statement: None,
            books_right: false,
            verified: match verify {
                Verify::Full => "full",
                Verify::Counts => "counts",
            },
            ledger_verified: None,
            discrepancies: Vec::new(),
            error: None,
            interrupted: false,
            resends: 0,
            held_back: 0,
            chaos: None,
            peak_rss_bytes: Peaks::default(),
            phases: Phases::default(),
            seed,
            data_dir: None,
            statement_command: None,
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Phases { start, feed, settle, check, stop } = self.phases;
        if self.error.is_some() && self.applied == 0 {
            writeln!(f, "{} events confirmed; how many are applied is not known", grouped(self.events))?;
        } else {
            writeln!(
                f,
                "{} events confirmed, {} applied, {} duplicates refused, {} resends",
                grouped(self.events),
                grouped(self.applied),
                grouped(self.duplicates_refused),
                grouped(self.resends)
            )?;
        }
        if let Some(chaos) = &self.chaos {
            writeln!(f, "{chaos}; {} posts repeated", grouped(chaos.posts_repeated))?;
        }
        writeln!(
            f,
            "{:.1} s ({:.0} events/s): start {start:.1}, feed {feed:.1}, settle {settle:.1}, check {check:.1}, stop {stop:.1}",
            self.seconds, self.events_per_second
        )?;
        if !self.taken.is_nothing() {
            writeln!(f, "{} taken for {} stays", self.taken, grouped(self.stays))?;
        }
        let Peaks { server, edges_max, city } = self.peak_rss_bytes;
        writeln!(
            f,
            "memory at most: server {}, edges {}, city {}",
            megabytes(server),
            megabytes(edges_max),
            megabytes(city)
        )?;
        for Discrepancy { garage, what } in &self.discrepancies {
            match garage {
                Some(garage) => writeln!(f, "{garage}: {what}")?,
                None => writeln!(f, "{what}")?,
            }
        }
        if let Some(error) = &self.error {
            writeln!(f, "{error}")?;
        }
        if let Some(data_dir) = &self.data_dir {
            writeln!(f, "data and logs are kept in {}", data_dir.display())?;
        }
        if let Some(command) = &self.statement_command {
            writeln!(f, "a statement: {command}")?;
        }
        match (self.books_right, self.verified) {
            (true, "full") => {
                write!(f, "The books are right: each confirmed event is at the centre once, in order.")
            }
            (true, _) => write!(f, "The books are right, as far as numbers and occupancies tell."),
            (false, _) => write!(f, "THE BOOKS ARE NOT RIGHT, or could not be checked."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_fields_of_the_contract() {
        let mut report = Report::empty(1, Verify::Full);
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
        let mut report = Report::empty(1, Verify::Full);
        assert!(report.to_string().contains("NOT RIGHT"));
        report.books_right = true;
        assert!(report.to_string().ends_with("once, in order."));
    }
}
