//! Numbers with a valid range, and texts that may not be empty.
//!
//! **Promise.** A value is checked in the same way wherever it comes from: a flag, the environment, or the file.
//! **Kept by.** The check is part of parsing the type: clap and serde have no other way to create a value.

use serde::Deserialize;
use serde::de::Error as _;
use std::path::PathBuf;
use std::str::FromStr;

/// The error for a text that is not a number, or a number outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfRange {
    #[error("{value} is not from {least} to {most}")]
    Beyond { value: u64, least: u64, most: u64 },
    #[error("{0:?} is not a whole number")]
    NoNumber(String),
    #[error("{0:?} is neither a whole number of days nor \"never\"")]
    NoDays(String),
}

/// A whole number from `LEAST` to `MOST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Within<const LEAST: u64, const MOST: u64>(u64);

impl<const LEAST: u64, const MOST: u64> Within<LEAST, MOST> {
    pub fn get(self) -> u64 {
        self.0
    }
}

impl<const LEAST: u64, const MOST: u64> TryFrom<u64> for Within<LEAST, MOST> {
    type Error = OutOfRange;
    fn try_from(value: u64) -> Result<Self, OutOfRange> {
        match (LEAST..=MOST).contains(&value) {
            true => Ok(Within(value)),
            false => Err(OutOfRange::Beyond { value, least: LEAST, most: MOST }),
        }
    }
}

impl<const LEAST: u64, const MOST: u64> FromStr for Within<LEAST, MOST> {
    type Err = OutOfRange;
    fn from_str(text: &str) -> Result<Self, OutOfRange> {
        text.parse::<u64>().map_err(|_| OutOfRange::NoNumber(text.to_owned()))?.try_into()
    }
}

/// Between a tenth of a second and an hour.
pub type BoardIntervalMs = Within<100, 3_600_000>;
/// 0 would refuse every event.
pub type AtLeastOne = Within<1, { u64::MAX }>;
/// Up to a hundred years.
type Days = Within<1, 36_500>;

/// For how long stays that were charged keep their plates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "DaysOrWord")]
pub enum Retention {
    /// Plates are kept. A flag that says so switches off what the file says.
    Forever,
    /// This many days after the end of the month of the exit.
    Days(u32),
}

const NEVER: &str = "never";

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a whole number of days from 1 to 36500, or \"never\"")]
enum DaysOrWord {
    Days(u64),
    Word(String),
}

impl TryFrom<DaysOrWord> for Retention {
    type Error = OutOfRange;
    fn try_from(value: DaysOrWord) -> Result<Retention, OutOfRange> {
        match value {
            DaysOrWord::Days(days) => Days::try_from(days).map(Retention::from),
            DaysOrWord::Word(word) if word == NEVER => Ok(Retention::Forever),
            DaysOrWord::Word(word) => Err(OutOfRange::NoDays(word)),
        }
    }
}

impl FromStr for Retention {
    type Err = OutOfRange;
    fn from_str(text: &str) -> Result<Retention, OutOfRange> {
        match text.parse::<Days>() {
            _ if text == NEVER => Ok(Retention::Forever),
            Err(OutOfRange::NoNumber(text)) => Err(OutOfRange::NoDays(text)),
            days => days.map(Retention::from),
        }
    }
}

impl From<Days> for Retention {
    fn from(days: Days) -> Retention {
        Retention::Days(u32::try_from(days.get()).expect("it is below 36,500"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is empty")]
pub struct Empty;

/// A text with something visible in it.
pub fn not_empty(text: &str) -> Result<String, Empty> {
    if text.trim().is_empty() { Err(Empty) } else { Ok(text.to_owned()) }
}

/// The same in the file.
pub fn text<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Option<String>, D::Error> {
    not_empty(&String::deserialize(text)?).map(Some).map_err(D::Error::custom)
}

/// A path in the file. It must not be empty, as clap requires on the command line.
pub fn path<'de, D: serde::Deserializer<'de>>(path: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(path)?;
    if path.as_os_str().is_empty() { Err(D::Error::custom(Empty)) } else { Ok(Some(path)) }
}
