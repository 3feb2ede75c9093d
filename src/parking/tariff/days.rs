//! Days: which kind a date is, and which kinds a rule means.

use jiff::civil::Date;
use std::fmt;
use std::str::FromStr;

/// What a date is to a tariff: a weekday, or a holiday and then no weekday.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum DayKind {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
    Holiday,
}

const NAMES: [&str; 8] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"];

impl DayKind {
    pub(super) const WEEK: [DayKind; 7] = {
        use DayKind::*;
        [Mon, Tue, Wed, Thu, Fri, Sat, Sun]
    };

    pub(super) fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// As `days` says it: names, ranges and `holiday`, joined by commas, or `all`. The range `sun-fri` is every day but Saturday.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(
    // A bit for each kind; none for `all`, which is more than naming each: it does not name `holiday`.
    u8,
);

impl Days {
    pub const ALL: Days = Days(0);

    const HOLIDAY: u8 = 1 << DayKind::Holiday as u8;

    pub(super) fn holds(self, kind: DayKind) -> bool {
        self == Days::ALL || self.0 & (1 << kind as u8) != 0
    }

    /// Whether it contains the word `holiday`; `all` does not.
    pub fn name_holiday(self) -> bool {
        self.0 & Days::HOLIDAY != 0
    }
}

impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Days, String> {
        if text.trim() == "all" {
            return Ok(Days::ALL);
        }
        let mut days = 0u8;
        for part in text.split(',').map(str::trim) {
            let unknown = || {
                format!(
                    "{part:?} is not a day. Days are mon, tue, wed, thu, fri, sat, sun, ranges of them such as mon-fri, holiday, or all"
                )
            };
            let place = |name: &str| NAMES.iter().position(|known| *known == name.trim()).ok_or_else(unknown);
            let kinds: Vec<usize> = match part.split_once('-') {
                None => vec![place(part)?],
                Some((first, last)) => {
                    let (first, last) = (place(first)?, place(last)?);
                    if first > 6 || last > 6 {
                        return Err(unknown());
                    }
                    (0..7).map(|step| (first + step) % 7).take((last + 7 - first) % 7 + 1).collect()
                }
            };
            for kind in kinds {
                if days & (1 << kind) != 0 {
                    return Err(format!("{:?} is named twice", NAMES[kind]));
                }
                days |= 1 << kind;
            }
        }
        Ok(Days(days))
    }
}

/// The shortest way to write it: `mon-sat`, `sun,holiday`, `all`.
impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Days::ALL {
            return f.write_str("all");
        }
        let mut parts: Vec<String> = Vec::new();
        let mut first = 0;
        while first < 7 {
            let last = (first..7).take_while(|day| self.0 & (1 << day) != 0).last();
            let Some(last) = last else {
                first += 1;
                continue;
            };
            parts.push(match last - first {
                0 => NAMES[first].to_owned(),
                1 => format!("{},{}", NAMES[first], NAMES[last]),
                _ => format!("{}-{}", NAMES[first], NAMES[last]),
            });
            first = last + 1;
        }
        if self.0 & Days::HOLIDAY != 0 {
            parts.push(NAMES[7].to_owned());
        }
        f.write_str(&parts.join(","))
    }
}

/// The day as a count since 1970-01-01.
pub(super) fn number_of(date: Date) -> i64 {
    i64::from((date - Date::constant(1970, 1, 1)).get_days())
}

/// The weekday of a day counted since 1970-01-01, a Thursday.
pub(super) fn weekday_of(number: i64) -> DayKind {
    DayKind::WEEK[(number + 3).rem_euclid(7) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        text.parse::<Days>().unwrap().to_string()
    }

    #[test]
    fn names_ranges_and_holidays_are_joined_by_commas() {
        assert_eq!(shown("mon-sat"), "mon-sat");
        assert_eq!(shown("holiday, sun"), "sun,holiday");
        assert_eq!(shown("tue,mon"), "mon,tue");
        assert_eq!(shown("mon,tue,wed,sat"), "mon-wed,sat");
        assert_eq!(shown("all"), "all");
        assert_eq!(shown("mon-sun"), "mon-sun");
        assert_eq!(shown("mon-sun,holiday"), "mon-sun,holiday");
    }

    #[test]
    fn a_range_may_run_over_the_weeks_end() {
        assert_eq!(shown("sun-fri"), "mon-fri,sun");
        assert_eq!(shown("fri-mon"), "mon,fri-sun");
        assert_eq!(shown("wed-tue"), "mon-sun");
        assert_eq!(shown("sat-sat"), "sat");
    }

    #[test]
    fn what_is_no_day_is_named() {
        for (text, reason) in [
            ("", "\"\" is not a day"),
            ("monday", "\"monday\""),
            ("Mon", "\"Mon\""),
            ("mon-", "\"mon-\""),
            ("mon-holiday", "\"mon-holiday\""),
            ("mon,,tue", "\"\""),
            ("all,mon", "\"all\""),
            ("mon-wed,tue", "\"tue\" is named twice"),
        ] {
            let error = text.parse::<Days>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn weekdays_follow_the_calendar() {
        for (date, kind) in [
            (date(1970, 1, 1), DayKind::Thu),
            (date(2024, 2, 29), DayKind::Thu),
            (date(2026, 11, 25), DayKind::Wed),
            (date(1969, 12, 28), DayKind::Sun),
        ] {
            assert_eq!(weekday_of(number_of(date)), kind, "{date}");
        }
    }

    proptest! {
        #[test]
        fn days_are_read_as_they_are_shown(set in any::<u8>()) {
            let days = Days(set);
            prop_assert_eq!(days.to_string().parse::<Days>(), Ok(days));
        }
    }
}
