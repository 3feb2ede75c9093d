//! Windows: times of day on some days, perhaps over midnight.

use super::days::{DayKind, Days, number_of, weekday_of};
use jiff::civil::Date;
use std::fmt;
use std::str::FromStr;

/// A time of day in whole minutes, 00:00 to 24:00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockTime(pub(super) u16);

impl ClockTime {
    pub const START_OF_DAY: ClockTime = ClockTime(0);
    pub const END_OF_DAY: ClockTime = ClockTime(24 * 60);

    /// Reads `07:30`; two digits each. `None` for anything else, and after 24:00.
    pub fn new(text: &str) -> Option<ClockTime> {
        let (hour, minute) = text.split_once(':')?;
        let (hour, minute): (u8, u8) = (hour.parse().ok()?, minute.parse().ok()?);
        let time = ClockTime(60 * u16::from(hour) + u16::from(minute));
        (time <= ClockTime::END_OF_DAY && time.to_string() == text).then_some(time)
    }
}

impl fmt::Display for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// From a time of day to another, on some days; [`super`] says what holds when it runs over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    pub days: Days,
    pub from: ClockTime,
    pub to: ClockTime,
}

impl TimeWindow {
    pub const ALWAYS: TimeWindow =
        TimeWindow { days: Days::ALL, from: ClockTime::START_OF_DAY, to: ClockTime::END_OF_DAY };

    /// How many days before `today` its occurrence began that holds this time of today: 0 or 1. `None`: it is outside.
    pub(super) fn occurrence(self, yesterday: DayKind, today: DayKind, minute: u16) -> Option<i64> {
        let (from, to) = (self.from.0, self.to.0);
        let over_midnight = to <= from;
        if minute >= from && (over_midnight || minute < to) {
            return self.days.holds(today).then_some(0);
        }
        (over_midnight && minute < to && self.days.holds(yesterday)).then_some(1)
    }

    /// Whether it holds this minute of a date, which is a weekday and no holiday.
    pub fn holds(self, date: Date, minute: u16) -> bool {
        let number = number_of(date);
        self.occurrence(weekday_of(number - 1), weekday_of(number), minute).is_some()
    }

    /// The minutes of the day, from 0 to 1440, at which it begins and ends.
    pub fn ends(self) -> [u16; 2] {
        [self.from.0, self.to.0]
    }
}

/// Reads what is displayed, such as `mon-fri 07:00-22:00`.
impl FromStr for TimeWindow {
    type Err = String;

    fn from_str(text: &str) -> Result<TimeWindow, String> {
        let parts = text.split_once(' ').and_then(|(days, times)| Some((days, times.split_once('-')?)));
        let (days, (from, to)) = parts.ok_or_else(|| format!("{text:?} is not a window"))?;
        let time = |text| ClockTime::new(text).ok_or_else(|| format!("{text:?} is not a time"));
        Ok(TimeWindow { days: days.parse()?, from: time(from)?, to: time(to)? })
    }
}

impl fmt::Display for TimeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-{}", self.days, self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DayKind::{Holiday, Mon, Sat, Sun, Tue};

    fn window(days: &str, from: &str, to: &str) -> TimeWindow {
        let time = |text| ClockTime::new(text).unwrap();
        TimeWindow { days: days.parse().unwrap(), from: time(from), to: time(to) }
    }

    fn minute(text: &str) -> u16 {
        ClockTime::new(text).unwrap().0
    }

    #[test]
    fn times_are_hours_and_minutes() {
        assert_eq!(ClockTime::new("00:00"), Some(ClockTime::START_OF_DAY));
        assert_eq!(ClockTime::new("24:00"), Some(ClockTime::END_OF_DAY));
        for bad in ["", "7:00", "07:60", "24:01", "25:00", "07:00:00", "0700", "-1:00", "٠٧:٠٠", "+7:00"]
        {
            assert_eq!(ClockTime::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_window_holds_its_start_and_not_its_end() {
        let day = window("mon", "07:00", "19:00");
        assert_eq!(day.occurrence(Sun, Mon, minute("06:59")), None);
        assert_eq!(day.occurrence(Sun, Mon, minute("07:00")), Some(0));
        assert_eq!(day.occurrence(Sun, Mon, minute("18:59")), Some(0));
        assert_eq!(day.occurrence(Sun, Mon, minute("19:00")), None);
        assert_eq!(day.occurrence(Mon, Tue, minute("12:00")), None);
    }

    #[test]
    fn over_midnight_it_belongs_to_the_day_on_which_it_begins() {
        let evening = window("mon-sat", "18:00", "06:00");
        assert_eq!(evening.occurrence(Sat, Sun, minute("05:59")), Some(1));
        assert_eq!(evening.occurrence(Sat, Sun, minute("06:00")), None);
        assert_eq!(evening.occurrence(Sat, Sun, minute("18:00")), None);
        assert_eq!(evening.occurrence(Sun, Mon, minute("05:59")), None);
        assert_eq!(evening.occurrence(Sun, Mon, minute("18:00")), Some(0));
    }

    #[test]
    fn equal_times_are_a_whole_day_from_there() {
        let sunday = window("sun,holiday", "06:00", "06:00");
        assert_eq!(sunday.occurrence(Sat, Sun, minute("05:59")), None);
        assert_eq!(sunday.occurrence(Sat, Sun, minute("06:00")), Some(0));
        assert_eq!(sunday.occurrence(Sun, Mon, minute("05:59")), Some(1));
        assert_eq!(sunday.occurrence(Holiday, Sun, minute("05:59")), Some(1));
        assert_eq!(sunday.occurrence(Holiday, Sun, minute("06:00")), Some(0));
        let midnight = window("mon", "00:00", "00:00");
        assert_eq!(midnight.occurrence(Sun, Mon, 0), Some(0));
        assert_eq!(midnight.occurrence(Sun, Mon, minute("23:59")), Some(0));
        assert_eq!(midnight.occurrence(Mon, Tue, 0), None);
    }
}
