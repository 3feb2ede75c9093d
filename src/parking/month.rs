//! A month of the civil calendar.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A month as bills mean it: 2026-11. Ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(i16, i8)", into = "(i16, i8)")]
pub struct Month {
    year: i16,
    month: i8,
}

/// A text or a pair of numbers that names no month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a month; a month looks like \"2026-11\"")]
pub struct MonthError(String);

impl Month {
    pub const EPOCH: Month = Month { year: 1970, month: 1 };

    /// Years 0 to 9999: what a text of this form can say.
    pub fn new(year: i16, month: i8) -> Result<Month, MonthError> {
        match (year, month) {
            (0..=9999, 1..=12) => Ok(Month { year, month }),
            _ => Err(MonthError(format!("{year}-{month}"))),
        }
    }

    /// The month of a local date; `None` for a year before 0.
    pub fn of(date: Date) -> Option<Month> {
        Month::new(date.year(), date.month()).ok()
    }

    pub fn first_day(self) -> Date {
        Date::new(self.year, self.month, 1).expect("every month has a first day")
    }
    pub fn last_day(self) -> Date {
        self.first_day().last_of_month()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = MonthError;
    fn from_str(text: &str) -> Result<Month, MonthError> {
        let read = || {
            let (year, month) = text.split_once('-')?;
            let month = Month::new(year.parse().ok()?, month.parse().ok()?).ok()?;
            (month.to_string() == text).then_some(month)
        };
        read().ok_or_else(|| MonthError(text.to_owned()))
    }
}

impl TryFrom<(i16, i8)> for Month {
    type Error = MonthError;
    fn try_from((year, month): (i16, i8)) -> Result<Month, MonthError> {
        Month::new(year, month)
    }
}
impl From<Month> for (i16, i8) {
    fn from(month: Month) -> (i16, i8) {
        (month.year, month.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn a_month_is_written_and_read_alike() {
        for text in ["2026-11", "2024-02", "0000-01", "9999-12"] {
            assert_eq!(text.parse::<Month>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "2026",
            "2026-13",
            "2026-00",
            "2026-1",
            "26-11",
            "2026-11-01",
            "+026-11",
            "2026-+1",
            "２０２６-11",
        ] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_month_knows_its_days() {
        let february = "2024-02".parse::<Month>().unwrap();
        assert_eq!(february.first_day(), date(2024, 2, 1));
        assert_eq!(february.last_day(), date(2024, 2, 29));
        assert_eq!(Month::of(date(2024, 2, 29)), Some(february));
    }

    #[test]
    fn months_travel_in_postcard() {
        let month = "2026-11".parse::<Month>().unwrap();
        let bytes = postcard::to_allocvec(&month).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(month));
        let thirteenth = postcard::to_allocvec(&(2026i16, 13i8)).unwrap();
        assert!(postcard::from_bytes::<Month>(&thirteenth).is_err());
    }
}
