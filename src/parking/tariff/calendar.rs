//! Calendars of holidays, and how long they last.
//!
//! **Promise.** No day is taken for a weekday because nobody has listed its holidays yet: a calendar is complete from one day
//! through another, and a stay that needs it on a day outside has no price.

use super::days::number_of;
use jiff::civil::Date;
use std::collections::BTreeSet;
use std::fmt;

/// The holidays of a region: all there are from `complete_from` through `complete_through`, and none outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    pub(super) name: String,
    pub(super) holidays: BTreeSet<Date>,
    complete_from: Date,
    complete_through: Date,
    /// The holidays as days since 1970, in order.
    numbers: Vec<i64>,
    /// The first and the last complete day since 1970.
    complete: (i64, i64),
}

impl Calendar {
    /// `complete` are its first and its last day; the holidays lie within.
    pub(super) fn new(name: String, holidays: BTreeSet<Date>, complete: (Date, Date)) -> Calendar {
        let numbers = holidays.iter().map(|date| number_of(*date)).collect();
        let (complete_from, complete_through) = complete;
        let complete = (number_of(complete_from), number_of(complete_through));
        Calendar { name, holidays, complete_from, complete_through, numbers, complete }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// In order.
    pub fn holidays(&self) -> impl Iterator<Item = Date> {
        self.holidays.iter().copied()
    }

    pub fn complete_from(&self) -> Date {
        self.complete_from
    }

    /// The last day whose holidays are known.
    pub fn complete_through(&self) -> Date {
        self.complete_through
    }

    /// Whether the day with this number, counted from 1970-01-01, is a holiday.
    pub(super) fn has_holiday(&self, number: i64) -> bool {
        self.numbers.binary_search(&number).is_ok()
    }

    pub(super) fn is_complete_on(&self, number: i64) -> bool {
        (self.complete.0..=self.complete.1).contains(&number)
    }
}

/// Why a stay has no price yet: a unit needs a calendar on a day that it does not cover.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the calendar {calendar:?} does not say whether {day} is a holiday: it is complete from {from} through {through}. \
     Add the holidays of that year to the calendar, and set complete_from and complete_through"
)]
pub struct CalendarIncomplete {
    pub calendar: String,
    /// The first day that a unit needs and the calendar does not cover.
    pub day: Date,
    pub from: Date,
    pub through: Date,
}

impl CalendarIncomplete {
    pub(super) fn on(calendar: &Calendar, number: i64) -> CalendarIncomplete {
        let epoch = Date::constant(1970, 1, 1);
        CalendarIncomplete {
            calendar: calendar.name.clone(),
            // Local dates of timestamps are dates.
            day: epoch.saturating_add(jiff::Span::new().days(number)),
            from: calendar.complete_from,
            through: calendar.complete_through,
        }
    }
}

/// When a calendar ends that tariffs use now or will use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CalendarEnd {
    /// Days from today to its last day: 0 on that day, negative after it.
    pub days_left: i64,
    pub calendar: String,
    pub complete_through: Date,
}

impl CalendarEnd {
    /// How many days before its end a calendar is warned about.
    pub const WARN_DAYS: i64 = 60;

    pub fn is_soon(&self) -> bool {
        self.days_left <= Self::WARN_DAYS
    }
}

impl fmt::Display for CalendarEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (calendar, through) = (&self.calendar, self.complete_through);
        match self.days_left {
            ..0 => write!(
                f,
                "the calendar {calendar:?} ended on {through}: stays with a unit on a later day wait for a price"
            ),
            0 => write!(
                f,
                "the calendar {calendar:?} ends today: stays with a unit on a later day will wait for a price"
            ),
            days => write!(
                f,
                "the calendar {calendar:?} ends on {through}, in {days} {}: stays with a unit on a later day will wait for a price",
                if days == 1 { "day" } else { "days" }
            ),
        }
    }
}
