//! How people read times: the local wall time of the garage, and how long a stay was.

use crate::parking::Moment;
use crate::parking::moment::millisecond_of;
use jiff::Timestamp;
use jiff::civil::DateTime;
use std::fmt::Write;

pub(in crate::parking) fn local(moment: Moment) -> DateTime {
    moment.offset.to_datetime(moment.timestamp)
}

/// `+01:00`.
pub(in crate::parking) fn offset(moment: Moment) -> String {
    let seconds = moment.offset.seconds();
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// How long it was from one moment to the other: `3 h 5 min`; `None` when the second comes first.
pub(in crate::parking) fn duration(from: Moment, to: Moment) -> Option<String> {
    let elapsed = to.timestamp.duration_since(from.timestamp);
    if elapsed.is_negative() {
        return None;
    }
    let seconds = elapsed.as_secs();
    let mut text = String::new();
    for (count, unit) in [(seconds / 3600, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")] {
        if count > 0 {
            let space = if text.is_empty() { "" } else { " " };
            write!(text, "{space}{count} {unit}").expect("memory takes text");
        }
    }
    Some(if text.is_empty() { "0 min".to_owned() } else { text })
}

/// The text without the characters that a terminal would interpret instead of showing: controls, and those that turn the
/// direction of the text behind them.
pub(in crate::parking) fn visible(text: &str) -> String {
    let is_obeyed =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if is_obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// Without the part of a second: a customer reads seconds.
pub(super) fn to_second(moment: Moment) -> Moment {
    let second = millisecond_of(moment.timestamp).div_euclid(1_000);
    Moment { timestamp: Timestamp::from_second(second).unwrap_or(moment.timestamp), ..moment }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Moment {
        Moment::parse(text).unwrap()
    }

    #[test]
    fn a_stay_is_as_long_as_it_lasted_whatever_the_clock_on_the_wall_did() {
        for (from, to, shown) in [
            ("2026-11-23T08:15:00+01:00", "2026-11-23T11:20:00+01:00", Some("3 h 5 min")),
            ("2026-10-25T01:30:00+02:00", "2026-10-25T03:30:00+01:00", Some("3 h")),
            ("2026-11-23T08:15:00+01:00", "2026-11-25T08:15:10+01:00", Some("48 h 10 s")),
            ("2026-11-23T08:15:00Z", "2026-11-23T08:15:00Z", Some("0 min")),
            ("2026-11-23T08:15:00Z", "2026-11-23T08:14:59Z", None),
        ] {
            assert_eq!(duration(at(from), at(to)).as_deref(), shown, "{from} {to}");
        }
    }

    #[test]
    fn offsets_have_hours_and_minutes() {
        for text in ["+01:00", "-03:30", "+00:00", "+05:45"] {
            assert_eq!(offset(at(&format!("2026-11-23T08:15:00{text}"))), text);
        }
        assert_eq!(local(at("2026-11-23T08:15:00-03:30")).to_string(), "2026-11-23T08:15:00");
    }
}
