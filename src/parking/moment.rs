//! Moments: RFC 3339 in, RFC 3339 out, milliseconds in between.
//!
//! **Promise.** What [`Moment::parse`] accepts is kept to the millisecond and shown as RFC 3339. What it refuses, it refuses with
//! the true reason. The order of two moments is never reversed.
//! **Kept by.** Fractions are cut, never rounded. A leap second is read as the first instant of the second after it.
//! **Not promised.** That two moments within one millisecond keep their order.

use jiff::Timestamp;
use jiff::fmt::temporal::{DateTimeParser, PiecesOffset};
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// A moment with the offset from UTC that its source wrote. Stored as milliseconds since 1970 and minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(i64, i16)", try_from = "(i64, i16)")]
pub struct Moment {
    pub timestamp: Timestamp,
    pub offset: Offset,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    #[error("it is not RFC 3339 ({0}); {EXAMPLE}")]
    Form(String),
    #[error("it lacks the time of day; {EXAMPLE}")]
    NoTime,
    #[error("it lacks the offset from UTC; {EXAMPLE}")]
    NoOffset,
    #[error("it ends with {0}, which RFC 3339 does not allow: send only the offset; {EXAMPLE}")]
    Brackets(String),
    #[error("its offset is not valid: RFC 3339 allows hours and minutes from -23:59 to +23:59; {EXAMPLE}")]
    Offset,
    #[error("its year is not valid: RFC 3339 allows 0000 to 9999, in four digits; {EXAMPLE}")]
    Year,
    #[error("it is not between 0000-01-02 and 9999-12-30 in UTC, the range that can be stored")]
    Range,
    #[error(
        "its second 60 is not a leap second: a leap second is the last second of a month in UTC, 23:59:60Z; {EXAMPLE}"
    )]
    LeapSecond,
}

const EXAMPLE: &str = "a time has a date, a time of day and an offset, such as \"2026-11-23T08:15:00+01:00\"";

/// From here to [`LATEST`] a moment has a year of four digits in every offset.
const EARLIEST: Timestamp = Timestamp::constant(-62_167_132_800, 0);
/// The last millisecond that `jiff` can show in every offset.
const LATEST: Timestamp = Timestamp::constant(253_402_207_200, 999_000_000);

/// Whole milliseconds since 1970, rounded down on both sides of it.
pub fn millisecond_of(timestamp: Timestamp) -> i64 {
    // jiff rounds towards 1970.
    let is_between = timestamp.subsec_nanosecond() % 1_000_000 < 0;
    timestamp.as_millisecond() - i64::from(is_between)
}

impl Moment {
    pub fn utc(timestamp: Timestamp) -> Moment {
        Moment { timestamp, offset: Offset::UTC }
    }

    /// Milliseconds since 1970 as RFC 3339 in UTC.
    pub fn utc_text(at_ms: i64) -> String {
        Moment::from_ms(at_ms, 0).to_string()
    }

    /// What a record or a peer says, which may be nonsense: the nearest moment that can be shown, and UTC for an offset that is none.
    pub fn from_ms(at_ms: i64, offset_minutes: i16) -> Moment {
        let beyond = if at_ms < 0 { EARLIEST } else { LATEST };
        Moment {
            timestamp: Timestamp::from_millisecond(at_ms).unwrap_or(beyond),
            offset: Offset::from_seconds(i32::from(offset_minutes) * 60).unwrap_or(Offset::UTC),
        }
    }

    /// Reads RFC 3339, to the millisecond. Without an offset it could be any hour of the day, and is refused.
    pub fn parse(text: &str) -> Result<Moment, MomentError> {
        if let Some(at) = text.find('[') {
            return Err(MomentError::Brackets(text[at..].to_owned()));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        if text.starts_with(['+', '-']) || (digits > 4 && text[digits..].starts_with('-')) {
            return Err(MomentError::Year);
        }
        let (cut, is_second_60) = cut(text);
        let pieces = DateTimeParser::new().parse_pieces(cut.as_ref()).map_err(|error| {
            if has_large_offset(&cut) { MomentError::Offset } else { MomentError::Form(error.to_string()) }
        })?;
        let time = pieces.time().ok_or(MomentError::NoTime)?;
        let offset = match pieces.offset().ok_or(MomentError::NoOffset)? {
            PiecesOffset::Zulu => Offset::UTC,
            PiecesOffset::Numeric(numeric) => numeric.offset(),
            _ => return Err(MomentError::Offset),
        };
        if !is_of_rfc_3339(offset) {
            return Err(MomentError::Offset);
        }
        let timestamp = offset
            .to_timestamp(pieces.date().to_datetime(time))
            .ok()
            .filter(|timestamp| (EARLIEST..=LATEST).contains(timestamp))
            .ok_or(MomentError::Range)?;
        let timestamp = if is_second_60 { after_leap_second(timestamp)? } else { timestamp };
        Ok(Moment { timestamp, offset })
    }
}

impl From<Moment> for (i64, i16) {
    fn from(moment: Moment) -> (i64, i16) {
        let minutes = moment.offset.seconds() / 60; // RFC 3339 knows no seconds of offset
        (moment.timestamp.as_millisecond(), i16::try_from(minutes).expect("an offset is below 26 hours"))
    }
}

impl TryFrom<(i64, i16)> for Moment {
    type Error = jiff::Error;
    fn try_from((at_ms, minutes): (i64, i16)) -> Result<Moment, jiff::Error> {
        let offset = Offset::from_seconds(i32::from(minutes) * 60)?;
        Ok(Moment { timestamp: Timestamp::from_millisecond(at_ms)?, offset })
    }
}

/// The text with milliseconds at most and with second 59 for second 60, and whether it had that: the parser knows nine digits of a
/// fraction, and takes a second 60 anywhere, as 59.
fn cut(text: &str) -> (Cow<'_, str>, bool) {
    let time = text.find(['T', 't', ' ']).map_or(text.len(), |at| at + 1);
    let (date, time) = text.split_at(time);
    // "hh:mm:ss" or "hhmmss".
    let second = if time.as_bytes().get(2) == Some(&b':') { 6 } else { 4 };
    let is_second_60 = time.get(second..second + 2) == Some("60");
    let fraction = time.find(['.', ',']).map_or(time.len(), |at| at + 1);
    let digits = time[fraction..].bytes().take_while(u8::is_ascii_digit).count();
    if !is_second_60 && digits <= 3 {
        return (text.into(), false);
    }
    let (kept, rest) = (fraction + digits.min(3), fraction + digits);
    let mut cut = format!("{date}{}{}", &time[..kept], &time[rest..]);
    if is_second_60 {
        cut.replace_range(date.len() + second..date.len() + second + 2, "59");
    }
    (cut.into(), is_second_60)
}

/// The parser knows no hours of an offset above 25, nor minutes above 59.
fn has_large_offset(text: &str) -> bool {
    let Some((_, offset)) = text.rsplit_once(['+', '-']) else { return false };
    let is_offset = text.contains(['T', 't', ' ']) && !offset.contains(['T', 't', ' ']);
    let mut parts = offset.split(':').map(|part| part.parse::<u32>().ok());
    let (hours, minutes) = (parts.next().flatten(), parts.next().flatten());
    is_offset && (hours.is_some_and(|hours| (24..=99).contains(&hours)) || minutes.is_some_and(|m| m > 59))
}

fn is_of_rfc_3339(offset: Offset) -> bool {
    let seconds = offset.seconds();
    seconds % 60 == 0 && seconds.abs() < 24 * 3600
}

/// The instant after a leap second; `last` is within the second before it. Fractions are dropped, so that the order is kept.
fn after_leap_second(last: Timestamp) -> Result<Timestamp, MomentError> {
    let next = Timestamp::from_second(last.as_nanosecond().div_euclid(1_000_000_000) as i64 + 1)
        .map_err(|_| MomentError::Range)?;
    let utc = Offset::UTC.to_datetime(next);
    let begins_a_month = utc.day() == 1 && (utc.hour(), utc.minute(), utc.second()) == (0, 0, 0);
    if begins_a_month { Ok(next) } else { Err(MomentError::LeapSecond) }
}

impl fmt::Display for Moment {
    /// RFC 3339. Earlier releases stored years and offsets that it does not have: those are shown in UTC, within its years.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timestamp = self.timestamp.clamp(EARLIEST, LATEST);
        if self.offset.is_zero() || !is_of_rfc_3339(self.offset) {
            timestamp.fmt(f)
        } else {
            timestamp.display_with_offset(self.offset).fmt(f)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        Moment::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    /// `2026-11-02T08:15:60+01:00` was once stored as 08:15:59, as if somebody had seen that.
    #[test]
    fn a_leap_second_is_the_last_of_a_month_in_utc_and_nothing_else() {
        for (written, read) in [
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            ("2016-12-31T23:59:60.999Z", "2017-01-01T00:00:00Z"),
            ("2017-01-01T00:59:60+01:00", "2017-01-01T01:00:00+01:00"),
            ("2015-06-30T18:29:60.5-05:30", "2015-06-30T18:30:00-05:30"),
            ("2028-02-29T23:59:60Z", "2028-03-01T00:00:00Z"),
            ("20161231T235960Z", "2017-01-01T00:00:00Z"),
        ] {
            assert_eq!(shown(written), read, "{written}");
        }
        for written in [
            "2026-11-02T08:15:60+01:00",
            "2016-12-31T23:59:60+01:00",
            "2016-12-30T23:59:60Z",
            "2016-12-31T22:59:60Z",
            "2028-02-28T23:59:60Z",
            "20261102T081560Z",
        ] {
            assert_eq!(Moment::parse(written), Err(MomentError::LeapSecond), "{written}");
        }
        assert!(matches!(Moment::parse("2016-12-31T23:59:61Z"), Err(MomentError::Form(_))));
        assert!(matches!(Moment::parse("2016-12-31T23:60:00Z"), Err(MomentError::Form(_))));
    }

    /// `+01:00[Europe/Berlin]` was refused because "it lacks the offset", +25:00 and the year -1 were stored, and
    /// 9999-12-31 "overflowed".
    #[test]
    fn what_is_not_rfc_3339_is_refused_with_the_true_reason() {
        for (written, error) in [
            ("2026-11-02T08:15:00+01:00[Europe/Berlin]", MomentError::Brackets("[Europe/Berlin]".into())),
            ("2026-11-02T08:15:00Z[u-ca=hebrew]", MomentError::Brackets("[u-ca=hebrew]".into())),
            ("2026-11-02T08:15:00+24:00", MomentError::Offset),
            ("2026-11-02T08:15:00+25:00", MomentError::Offset),
            ("2026-11-02T08:15:00-99:00", MomentError::Offset),
            ("2026-11-02T08:15:00+01:60", MomentError::Offset),
            ("2026-11-02T08:15:00+01:00:30", MomentError::Offset),
            ("-000001-11-02T08:15:00Z", MomentError::Year),
            ("-0001-11-02T08:15:00Z", MomentError::Year),
            ("+002026-11-02T08:15:00Z", MomentError::Year),
            ("10000-01-01T00:00:00Z", MomentError::Year),
            ("9999-12-31T00:00:00Z", MomentError::Range),
            ("0000-01-01T23:59:59Z", MomentError::Range),
            ("0000-01-02T00:00:00+00:01", MomentError::Range),
            ("2026-11-02T08:15:00", MomentError::NoOffset),
            ("2026-11-02", MomentError::NoTime),
        ] {
            assert_eq!(Moment::parse(written), Err(error), "{written}");
        }
        for written in ["", "yesterday", "2026-02-30T08:15:00Z", "2026-11-02T24:00:00Z", "1793000000"] {
            assert!(matches!(Moment::parse(written), Err(MomentError::Form(_))), "{written}");
        }
    }

    /// Fractions of a microsecond once made a stay longer for one program than for another.
    #[test]
    fn moments_are_cut_to_milliseconds_so_that_order_is_kept() {
        for (written, read) in [
            ("2026-11-02T08:15:00.0002Z", "2026-11-02T08:15:00Z"),
            ("2026-11-02T08:15:00.2509999999999999+01:00", "2026-11-02T08:15:00.25+01:00"),
            ("1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z"),
            ("2026-11-02 08:15:00,5z", "2026-11-02T08:15:00.5Z"),
            ("2026-11-02T08:15+01", "2026-11-02T08:15:00+01:00"),
            ("2026-11-02T08:15:00-00:00", "2026-11-02T08:15:00Z"),
            ("9999-12-30T22:00:00.9999+23:59", "9999-12-30T22:00:00.999+23:59"),
        ] {
            assert_eq!(shown(written), read, "{written}");
        }
    }

    #[test]
    fn what_earlier_releases_stored_is_shown_as_rfc_3339() {
        for (at_ms, offset_minutes, read) in [
            (1_793_000_000_000, 25 * 60, "2026-10-26T07:33:20Z"),
            (-62_170_000_000_000, 0, "0000-01-02T00:00:00Z"),
            (i64::MIN, i16::MIN, "0000-01-02T00:00:00Z"),
            (i64::MAX, i16::MAX, "9999-12-30T22:00:00.999Z"),
        ] {
            assert_eq!(Moment::from_ms(at_ms, offset_minutes).to_string(), read);
        }
        let local_mean_time = Offset::from_seconds(3_208).unwrap();
        let moment = Moment { timestamp: Timestamp::UNIX_EPOCH, offset: local_mean_time };
        assert_eq!(moment.to_string(), "1970-01-01T00:00:00Z");
    }

    proptest! {
        /// The form is checked by hand, apart from the parser.
        #[test]
        fn what_is_shown_is_rfc_3339_and_comes_back(at_ms in any::<i64>(), near in -100_000_000_000_000i64..300_000_000_000_000, offset in any::<i16>()) {
            for moment in [Moment::from_ms(at_ms, offset), Moment::from_ms(near, offset % 1440)] {
                let text = moment.to_string();
                let bytes = text.as_bytes();
                prop_assert!(bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-' && bytes[10] == b'T', "{text}");
                let zone = &text[text.rfind(['Z', '+', '-']).unwrap()..];
                prop_assert!(zone == "Z" || (zone.len() == 6 && zone[1..3].parse::<u8>().unwrap() < 24), "{text}");
                let read = Moment::parse(&text).unwrap();
                prop_assert_eq!(read.to_string(), text);
                if (EARLIEST..=LATEST).contains(&moment.timestamp) {
                    prop_assert_eq!(read.timestamp, moment.timestamp);
                }
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}", digits in "[0-9T:.+\\-Z ,60]{0,40}") {
            let _ = (Moment::parse(&text), Moment::parse(&digits));
        }
    }
}
