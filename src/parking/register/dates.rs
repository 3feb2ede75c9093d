//! Ranges of civil dates.

use jiff::SignedDuration;
use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// Dates from the first through the last, at least one. Either end may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateRange {
    /// [`Date::MIN`]: open.
    first: Date,
    /// [`Date::MAX`]: open.
    last: Date,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the last day, {last}, comes before the first, {first}")]
pub struct DatesReversed {
    pub first: Date,
    pub last: Date,
}

impl DateRange {
    pub const ALWAYS: DateRange = DateRange { first: Date::MIN, last: Date::MAX };

    /// `None`: open at that end. The last day is included.
    pub fn new(first: Option<Date>, last: Option<Date>) -> Result<DateRange, DatesReversed> {
        let (first, last) = (first.unwrap_or(Date::MIN), last.unwrap_or(Date::MAX));
        if first <= last { Ok(DateRange { first, last }) } else { Err(DatesReversed { first, last }) }
    }

    pub fn starting(first: Date) -> DateRange {
        DateRange { first, last: Date::MAX }
    }

    /// `None`: open.
    pub fn first(self) -> Option<Date> {
        (self.first > Date::MIN).then_some(self.first)
    }

    /// `None`: open.
    pub fn last(self) -> Option<Date> {
        (self.last < Date::MAX).then_some(self.last)
    }

    pub fn contains(self, day: Date) -> bool {
        (self.first..=self.last).contains(&day)
    }

    /// The days that are in both.
    pub fn overlap(self, other: DateRange) -> Option<DateRange> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(DateRange { first, last })
    }

    /// The days before `day`.
    pub fn before(self, day: Date) -> Option<DateRange> {
        let last = day.yesterday().ok()?;
        self.overlap(DateRange { first: Date::MIN, last })
    }

    /// `day` and the days after it.
    pub fn since(self, day: Date) -> Option<DateRange> {
        self.overlap(DateRange::starting(day))
    }

    fn after(self, day: Date) -> Option<DateRange> {
        self.since(day.tomorrow().ok()?)
    }

    /// The shortest range with both.
    pub fn around(self, other: DateRange) -> DateRange {
        DateRange { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// The days that are not in `other`.
    pub fn without(self, other: DateRange) -> impl Iterator<Item = DateRange> {
        [self.before(other.first), self.after(other.last)].into_iter().flatten()
    }

    /// Both as one range, where `next` begins on the day after this one's last, or they overlap.
    pub(super) fn joined(self, next: DateRange) -> Option<DateRange> {
        let touches = next.first <= self.last || self.last.tomorrow().is_ok_and(|day| day == next.first);
        touches.then_some(DateRange { first: self.first, last: self.last.max(next.last) })
    }
}

/// As in `from 2026-01-01 to 2026-12-31`.
impl fmt::Display for DateRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first(), self.last()) {
            (Some(first), Some(last)) => write!(f, "from {first} to {last}"),
            (Some(first), None) => write!(f, "from {first} on"),
            (None, Some(last)) => write!(f, "until {last}"),
            (None, None) => f.write_str("always"),
        }
    }
}

const EPOCH: Date = jiff::civil::date(1970, 1, 1);

/// Days since 1970-01-01 of the ends that are not open: registers hold hundreds of thousands of dates.
impl Serialize for DateRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let days = |date: Date| date.duration_since(EPOCH).as_hours() / 24;
        (self.first().map(days), self.last().map(days)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DateRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DateRange, D::Error> {
        let date = |days: i64| {
            let length = days.checked_mul(24).and_then(SignedDuration::try_from_hours);
            let length = length.ok_or_else(|| de::Error::custom("a date is out of range"))?;
            EPOCH.checked_add(length).map_err(de::Error::custom)
        };
        let (first, last) = <(Option<i64>, Option<i64>)>::deserialize(deserializer)?;
        DateRange::new(first.map(date).transpose()?, last.map(date).transpose()?).map_err(de::Error::custom)
    }
}
