//! What can be wrong with tariffs, and where.

use super::Tariff;
use super::days::NoDays;
use jiff::civil::Date;

/// What is wrong at one place of a text. The tariffs are not taken, none of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {at}{problem}")]
pub struct TariffError {
    /// From 1.
    pub line: usize,
    /// The table that it stands in, such as `tariff "centre": `; empty outside of one.
    pub at: String,
    pub problem: TariffProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TariffProblem {
    #[error("not TOML: {0}")]
    Syntax(String),
    #[error("the key {key:?} is not known here. Known are {known}")]
    UnknownKey { key: String, known: String },
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{key} is to be {expected}, not {found}")]
    WrongType { key: &'static str, expected: &'static str, found: &'static str },
    #[error("{key} is {found}, but must be from {least} to {most}")]
    OutOfRange { key: &'static str, least: i64, most: i64, found: String },
    #[error("{key} {found:?} is no name: {reason}")]
    Name { key: &'static str, found: String, reason: &'static str },
    #[error("{0}")]
    Days(#[from] NoDays),
    #[error("{key} {found:?} is no time. Times look like \"07:30\", from \"00:00\" to \"24:00\"")]
    Time { key: &'static str, found: String },
    #[error("from \"24:00\" is the next day: say \"00:00\", and the day on which the window begins")]
    FromEndOfDay,
    #[error("currency {0:?} is not known. It is one of ISO 4217 that is paid with, such as \"EUR\"")]
    Currency(String),
    #[error("time_zone {0:?} is not in the IANA database. Zones look like \"Europe/Berlin\"")]
    Zone(String),
    #[error("calendar {0:?} is not there. Define it with [[calendar]]")]
    NoCalendar(String),
    #[error("{key} is to be a date such as 2026-01-01, without quotes")]
    Date { key: &'static str },
    #[error("vat_percent is {0}, but must be from 0 to 100 with at most two decimals")]
    Vat(String),
    #[error("a band needs one of per_unit and flat, and not both")]
    BandPrice,
    #[error("a cap needs days, from and to, or every_hours, and not both")]
    CapSpan,
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("{key} has {found} entries; at most {} are possible", Tariff::RULES_MAX)]
    TooMany { key: &'static str, found: usize },
    #[error("the garage {0:?} is listed twice")]
    GarageTwice(String),
    #[error("\"*\" stands for every garage without a tariff of its own; it is listed alone")]
    FallbackNotAlone,
    #[error("the holiday {0} is listed twice")]
    HolidayTwice(Date),
    #[error("a calendar of this name stands in line {0}, too")]
    CalendarTwice(usize),
    #[error("a version of this tariff from {date} on stands in line {line}, too")]
    VersionTwice { date: Date, line: usize },
    #[error("{} has two tariffs on {date}: this one, and {other:?} of line {line}", of_garage(.garage))]
    TwoTariffs { garage: String, date: Date, other: String, line: usize },
    #[error("{} is in {here} here, but in {there} in line {line}", of_garage(.garage))]
    TwoZones { garage: String, here: String, there: String, line: usize },
    #[error("no band covers {0}")]
    NotCovered(String),
}

fn of_garage(garage: &str) -> String {
    if garage == super::FALLBACK { "the fallback \"*\"".into() } else { format!("the garage {garage:?}") }
}
