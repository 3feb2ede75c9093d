//! Numbers with a valid range, and texts that may not be empty.
//!
//! **Promise.** A value is checked in the same way wherever it comes from: a flag, the environment, or the file.
//! **Kept by.** The check is part of parsing the type: clap and serde have no other way to create a value.

use serde::Deserialize;
use serde::de::Error as _;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

fn out_of_range(value: u64, least: u64, most: u64) -> String {
    format!("{value} is not from {least} to {most}")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Within<const LEAST: u64, const MOST: u64>(u64);

impl<const LEAST: u64, const MOST: u64> Within<LEAST, MOST> {
    pub fn get(self) -> u64 {
        self.0
    }
}

impl<const LEAST: u64, const MOST: u64> TryFrom<u64> for Within<LEAST, MOST> {
    type Error = String;
    fn try_from(value: u64) -> Result<Self, String> {
        match (LEAST..=MOST).contains(&value) {
            true => Ok(Within(value)),
            false => Err(out_of_range(value, LEAST, MOST)),
        }
    }
}

impl<const LEAST: u64, const MOST: u64> FromStr for Within<LEAST, MOST> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<u64>().map_err(|_| format!("{text:?} is not a whole number"))?.try_into()
    }
}

/// Between a tenth of a second and an hour.
pub type BoardIntervalMs = Within<100, 3_600_000>;
/// Connections of edges; a process has at most some ten thousand descriptors.
pub type MaxConnections = Within<1, 65_536>;
/// 0 would refuse every event.
pub type AtLeastOne = Within<1, { u64::MAX }>;

/// How many days after the end of the month of the exit stays that were charged lose their plates. `None`: never, which a flag says
/// to switch off what the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "DaysOrWord")]
pub struct Retention(pub Option<u32>);

/// A hundred years.
const DAYS_MAX: u64 = 36_500;

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a whole number of days from 1 to 36500, or \"never\"")]
enum DaysOrWord {
    Days(u64),
    Word(String),
}

impl TryFrom<DaysOrWord> for Retention {
    type Error = String;
    fn try_from(value: DaysOrWord) -> Result<Retention, String> {
        match value {
            DaysOrWord::Days(days @ 1..=DAYS_MAX) => Ok(Retention(Some(days as u32))),
            DaysOrWord::Days(value) => Err(out_of_range(value, 1, DAYS_MAX)),
            DaysOrWord::Word(word) if word == "never" => Ok(Retention(None)),
            DaysOrWord::Word(word) => {
                Err(format!("{word:?} is neither a whole number of days nor \"never\""))
            }
        }
    }
}

impl FromStr for Retention {
    type Err = String;
    fn from_str(text: &str) -> Result<Retention, String> {
        text.parse().map_or_else(|_| DaysOrWord::Word(text.to_owned()), DaysOrWord::Days).try_into()
    }
}

/// The rate of `edge --simulate`: a rate above zero that a machine can sustain.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct CarsPerHour(f64);

impl CarsPerHour {
    /// One car in six weeks: the time between cars must fit into the types that count it.
    pub const MIN: f64 = 0.001;
    /// One thousand cars per second.
    pub const MAX: f64 = 3_600_000.0;

    pub fn get(self) -> f64 {
        self.0
    }

    fn refusal(of: &dyn Display) -> String {
        let (min, max) = (CarsPerHour::MIN, CarsPerHour::MAX);
        format!("{of} is not a number of cars per hour from {min} to {max}, such as 120")
    }
}

impl TryFrom<f64> for CarsPerHour {
    type Error = String;
    fn try_from(cars: f64) -> Result<CarsPerHour, String> {
        let possible = (CarsPerHour::MIN..=CarsPerHour::MAX).contains(&cars);
        if possible { Ok(CarsPerHour(cars)) } else { Err(CarsPerHour::refusal(&cars)) }
    }
}

impl FromStr for CarsPerHour {
    type Err = String;
    fn from_str(text: &str) -> Result<CarsPerHour, String> {
        text.parse::<f64>().map_err(|_| CarsPerHour::refusal(&format_args!("{text:?}")))?.try_into()
    }
}

const EMPTY: &str = "it is empty";

/// A text with something visible in it.
pub fn not_empty(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err(EMPTY) } else { Ok(text.to_owned()) }
}

/// The same in the file.
pub fn text<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Option<String>, D::Error> {
    not_empty(&String::deserialize(text)?).map(Some).map_err(D::Error::custom)
}

/// A path in the file. It must not be empty, as clap requires on the command line.
pub fn path<'de, D: serde::Deserializer<'de>>(path: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(path)?;
    if path.as_os_str().is_empty() { Err(D::Error::custom(EMPTY)) } else { Ok(Some(path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_rate_is_refused() {
        for text in ["0", "-1", "inf", "NaN", "many", "3600001", "1e-300"] {
            assert!(text.parse::<CarsPerHour>().is_err(), "{text}");
        }
        let said = "0".parse::<CarsPerHour>().expect_err("it is no rate").to_string();
        assert_eq!(said, "0 is not a number of cars per hour from 0.001 to 3600000, such as 120");
    }
}
