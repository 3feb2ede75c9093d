//! Opening hours: the windows of local time in which a garage is open.

use crate::parking::tariff::{TimeWindow, time_zone};
use jiff::civil::{Date, DateTime, time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Hours change within a day or two, as a rule: that far is looked at first.
const NEAR: SignedDuration = SignedDuration::from_hours(48);
/// A week repeats, but the clock change can swallow a window of it.
const FAR: SignedDuration = SignedDuration::from_hours(16 * 24);

/// The windows in which a garage is open, in its local time. A window whose end is not after its begin runs into the next day, and
/// belongs to the day on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpeningHours {
    time_zone: TimeZone,
    windows: Vec<TimeWindow>,
}

/// Hours as they are configured and as they travel: windows such as `mon-fri 07:00-22:00`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoursText {
    pub time_zone: String,
    pub windows: Vec<String>,
}

/// What is known of the hours of a garage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<HoursText>", into = "Option<HoursText>")]
pub enum KnownHours {
    /// It has none.
    #[default]
    Always,
    Are(OpeningHours),
    /// It has some, which this program does not understand.
    NotUnderstood(HoursText),
}

impl From<Option<HoursText>> for KnownHours {
    fn from(text: Option<HoursText>) -> KnownHours {
        let Some(text) = text else { return KnownHours::Always };
        let windows: Option<Vec<TimeWindow>> =
            text.windows.iter().map(|window| window.parse().ok()).collect();
        match OpeningHours::new(&text.time_zone, windows.unwrap_or_default()) {
            Some(hours) => KnownHours::Are(hours),
            None => KnownHours::NotUnderstood(text),
        }
    }
}

impl From<KnownHours> for Option<HoursText> {
    fn from(hours: KnownHours) -> Option<HoursText> {
        match hours {
            KnownHours::Always => None,
            KnownHours::Are(hours) => Some(hours.to_text()),
            KnownHours::NotUnderstood(text) => Some(text),
        }
    }
}

impl KnownHours {
    /// Nobody knows whether the garage has hours.
    pub fn unknown() -> KnownHours {
        KnownHours::NotUnderstood(HoursText { time_zone: String::new(), windows: Vec::new() })
    }

    /// Upper bound of the size of their text, encoded.
    pub fn size_at_most(&self) -> usize {
        match self {
            KnownHours::Always => 1,
            // The longest window names all days singly and a holiday.
            KnownHours::Are(hours) => 1 + 64 + 5 + 48 * hours.windows.len(),
            KnownHours::NotUnderstood(text) => {
                1 + text.time_zone.len()
                    + 10
                    + text.windows.iter().map(|window| window.len() + 5).sum::<usize>()
            }
        }
    }

    pub fn is_open(&self, at: Timestamp) -> Option<bool> {
        match self {
            KnownHours::Always => Some(true),
            KnownHours::Are(hours) => Some(hours.is_open(at)),
            KnownHours::NotUnderstood(_) => None,
        }
    }

    pub fn next_change(&self, at: Timestamp) -> Option<Timestamp> {
        match self {
            KnownHours::Are(hours) => hours.next_change(at),
            KnownHours::Always | KnownHours::NotUnderstood(_) => None,
        }
    }
}

impl OpeningHours {
    /// `None` when the zone is not in the IANA database, when there is no window, or when one names `holiday`: hours have no calendar.
    pub fn new(zone: &str, windows: Vec<TimeWindow>) -> Option<OpeningHours> {
        let is_valid = !windows.is_empty() && !windows.iter().any(|window| window.days.name_holiday());
        time_zone(zone).filter(|_| is_valid).map(|time_zone| OpeningHours { time_zone, windows })
    }

    pub fn to_text(&self) -> HoursText {
        HoursText {
            time_zone: self.time_zone.iana_name().unwrap_or_default().to_owned(),
            windows: self.windows.iter().map(ToString::to_string).collect(),
        }
    }

    pub fn windows(&self) -> &[TimeWindow] {
        &self.windows
    }

    pub fn is_open(&self, at: Timestamp) -> bool {
        let local = self.time_zone.to_datetime(at);
        let minute = local.hour().unsigned_abs() as u16 * 60 + local.minute().unsigned_abs() as u16;
        self.windows.iter().any(|window| window.holds(local.date(), minute))
    }

    /// The first moment after `at` from which it is open where it was closed, or closed where it was open; `None` when it never
    /// changes.
    pub fn next_change(&self, at: Timestamp) -> Option<Timestamp> {
        let open = self.is_open(at);
        let changed = |(from, to)| self.boundaries(from, to).into_iter().find(|at| self.is_open(*at) != open);
        let (near, far) = (at.saturating_add(NEAR).ok()?, at.saturating_add(FAR).ok()?);
        changed((at, near)).or_else(|| changed((near, far)))
    }

    /// The last moment up to `at` from which it was open where it was closed before, or closed where it was open.
    pub fn last_change(&self, at: Timestamp) -> Option<Timestamp> {
        let before = |at: Timestamp| at.checked_sub(1.nanosecond()).is_ok_and(|before| self.is_open(before));
        let changed = |(from, to)| {
            self.boundaries(from, to).into_iter().rev().find(|at| self.is_open(*at) != before(*at))
        };
        let (near, far) = (at.saturating_sub(NEAR).ok()?, at.saturating_sub(FAR).ok()?);
        changed((near, at)).or_else(|| changed((far, near)))
    }

    /// All moments after `from` and up to `to` at which it can change, in order. Whether it is open follows from the local time: so it
    /// changes at the ends of windows, each of which comes twice when the clock is set back, and when the clock is set.
    fn boundaries(&self, from: Timestamp, to: Timestamp) -> BTreeSet<Timestamp> {
        let ends: BTreeSet<u16> = self.windows.iter().flat_map(|window| window.ends()).collect();
        let date = |at: Timestamp| self.time_zone.to_datetime(at).date();
        let first = date(from).yesterday().unwrap_or(Date::MIN);
        let last = date(to).tomorrow().unwrap_or(Date::MAX);
        let days = first.series(1.day()).take_while(|day| *day <= last);
        let of_windows = days.flat_map(|day| ends.iter().map(move |minute| at_minute(day, *minute)));
        let of_windows = of_windows.flat_map(|local| {
            let found = self.time_zone.to_ambiguous_timestamp(local);
            [found.earlier(), found.later()].into_iter().flatten()
        });
        let set = self.time_zone.following(from).map(|set| set.timestamp()).take_while(|at| *at <= to);
        of_windows.chain(set).filter(|at| *at > from && *at <= to).collect()
    }
}

/// A minute of a day, 0 to 1440.
fn at_minute(day: Date, minute: u16) -> DateTime {
    let midnight = day.to_datetime(time(0, 0, 0, 0));
    midnight.saturating_add(i64::from(minute).minutes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::Weekday;
    use proptest::prelude::*;

    fn hours(zone: &str, windows: &[&str]) -> OpeningHours {
        OpeningHours::new(zone, windows.iter().map(|window| window.parse().unwrap()).collect()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_garage_is_open_in_its_windows_by_its_own_clock() {
        let hours = hours("Europe/Berlin", &["mon-fri 07:00-22:00", "sat 08:00-24:00"]);
        for (moment, open) in [
            ("2026-11-23T06:59:59+01:00", false), // a Monday
            ("2026-11-23T07:00:00+01:00", true),
            ("2026-11-23T20:59:59Z", true),
            ("2026-11-23T21:00:00Z", false),
            ("2026-11-28T23:59:59+01:00", true),
            ("2026-11-29T00:00:00+01:00", false),
            ("2026-11-29T12:00:00+01:00", false),
        ] {
            assert_eq!(hours.is_open(at(moment)), open, "{moment}");
        }
        let sunday = at("2026-11-29T12:00:00+01:00");
        assert_eq!(hours.next_change(sunday), Some(at("2026-11-30T07:00:00+01:00")));
        assert_eq!(hours.last_change(sunday), Some(at("2026-11-29T00:00:00+01:00")));
        assert_eq!(hours.next_change(at("2026-11-27T22:00:00+01:00")), Some(at("2026-11-28T08:00:00+01:00")));
    }

    #[test]
    fn hours_cross_midnight_and_the_change_of_the_clock() {
        let bar = hours("Europe/Berlin", &["fri-sat 20:00-02:30"]);
        assert!(
            bar.is_open(at("2026-11-29T02:29:00+01:00")) && !bar.is_open(at("2026-11-30T01:00:00+01:00"))
        );
        // The clock is set back from 3 to 2 on 25 October 2026: half past two comes twice, and after the first it is two again.
        let night = at("2026-10-24T23:00:00+02:00");
        let closed = bar.next_change(night).unwrap();
        assert_eq!(closed, at("2026-10-25T02:30:00+02:00"));
        let opened = bar.next_change(closed).unwrap();
        assert_eq!(opened, at("2026-10-25T02:00:00+01:00"));
        assert_eq!(bar.next_change(opened), Some(at("2026-10-25T02:30:00+01:00")));
        // On 29 March 2026 there is no half past two.
        let spring = hours("Europe/Berlin", &["sun 02:15-02:45"]);
        assert_eq!(spring.next_change(at("2026-03-23T00:00:00Z")), Some(at("2026-04-05T02:15:00+02:00")));
    }

    #[test]
    fn what_never_changes_says_so() {
        for windows in [
            &["all 00:00-24:00"][..],
            &["mon-sun 06:00-06:00"],
            &["sat-sun 00:00-24:00", "mon-fri 00:00-00:00"],
        ] {
            let always = hours("Europe/Berlin", windows);
            let now = at("2026-11-29T12:00:00+01:00");
            assert!(always.is_open(now));
            assert_eq!((always.next_change(now), always.last_change(now)), (None, None), "{windows:?}");
        }
    }

    #[test]
    fn hours_travel_as_text_and_what_is_not_understood_is_not_guessed() {
        let known = KnownHours::Are(hours("Europe/Berlin", &["mon-fri 07:00-22:00", "sun 22:00-24:00"]));
        let bytes = postcard::to_stdvec(&known).unwrap();
        assert_eq!(postcard::from_bytes::<KnownHours>(&bytes), Ok(known));
        for (zone, window) in [
            ("Mars/Olympus", "mon 07:00-22:00"),
            ("UTC", "someday 07:00-22:00"),
            ("UTC", "holiday 07:00-22:00"),
        ] {
            let text = HoursText { time_zone: zone.into(), windows: vec![window.into()] };
            let read = KnownHours::from(Some(text.clone()));
            assert_eq!(read.is_open(at("2026-11-23T08:00:00Z")), None, "{zone} {window}");
            assert_eq!(Option::<HoursText>::from(read), Some(text), "and is passed on as it came");
        }
    }

    /// Whether a window is open, said as simply as can be: by walking back, minute by minute, to where it began.
    fn is_open_simply(windows: &[(Weekday, u16, u16)], zone: &TimeZone, at: Timestamp) -> bool {
        let local = zone.to_datetime(at);
        let (day, minute) = (local.date().weekday(), local.hour() as u16 * 60 + local.minute() as u16);
        windows.iter().any(|(begins_on, from, to)| {
            let length = if to > from { to - from } else { to + 1440 - from };
            let on_its_day = *begins_on == day && (*from..from + length).contains(&minute);
            let on_the_next = begins_on.next() == day && (*from..from + length).contains(&(minute + 1440));
            on_its_day || on_the_next
        })
    }

    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// Minute by minute for ten days, over changes of the clock by an hour and by half an hour.
        #[test]
        fn the_next_change_is_where_a_walk_by_the_minute_finds_it(
            picked in prop::collection::vec((0usize..7, 0u16..1440, 0u16..=1440), 1..4),
            zone in prop::sample::select(vec!["Europe/Berlin", "Australia/Lord_Howe", "America/New_York", "UTC"]),
            start in prop::sample::select(vec!["2026-03-22T13:07:00Z", "2026-10-19T22:59:00Z", "2026-04-01T05:00:00Z", "2026-10-30T00:00:00Z", "2026-07-01T00:01:00Z"]),
        ) {
            let text: Vec<String> = picked.iter().map(|(day, from, to)| {
                let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
                format!("{} {}-{}", DAYS[*day], clock(*from), clock(*to))
            }).collect();
            let hours = hours(zone, &text.iter().map(String::as_str).collect::<Vec<_>>());
            let simple: Vec<_> = picked.iter().map(|(day, from, to)| {
                (Weekday::from_monday_zero_offset(*day as i8).unwrap(), *from, *to)
            }).collect();
            let zone = TimeZone::get(zone).unwrap();
            let mut now: Timestamp = start.parse().unwrap();
            let end = now + SignedDuration::from_hours(10 * 24);
            let mut next = hours.next_change(now);
            let mut open = is_open_simply(&simple, &zone, now);
            while now < end {
                now += SignedDuration::from_mins(1);
                let is = is_open_simply(&simple, &zone, now);
                prop_assert_eq!(hours.is_open(now), is, "{} at {}", text.join(", "), now);
                prop_assert_eq!(next == Some(now), is != open, "{:?} at {}", next, now);
                if is != open {
                    prop_assert_eq!(hours.last_change(now + SignedDuration::from_secs(30)), Some(now));
                    (open, next) = (is, hours.next_change(now));
                }
            }
        }
    }
}
