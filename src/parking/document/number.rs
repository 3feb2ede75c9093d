//! How the numbers of documents are written: `{year}-{number:06}`.
//!
//! **Promise.** A number is one serial's only, and tells it. It can be the name of a file on every system.
//! **Kept by.** A format has one place for the serial, and all else in it has a fixed length. The characters are those that all file
//! systems and mail programs take.

use std::fmt;
use std::str::FromStr;

/// A text with `{number}` or `{number:0N}` (at least N digits) once, and `{year}`, the year of the date of issue, at most once. The serial
/// never restarts, so the year only informs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberFormat {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Year,
    Number { digits: usize },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberFormatError {
    #[error("it contains {0:?}; known are {{year}}, {{number}} and {{number:0N}} with N from 1 to 12")]
    Placeholder(String),
    #[error(
        "it contains {0:?}; besides {{year}} and {{number}} it may have ASCII letters, digits, \"-\", \"_\" and \".\""
    )]
    Character(char),
    #[error("it has {0} times {{number}}; it must be there once")]
    Numbers(usize),
    #[error("it has {{year}} more than once")]
    Years,
    #[error("it begins with {0:?}; files with such names are hidden, or taken for options")]
    Beginning(char),
    #[error("it has {0} characters beside its placeholders, the limit is {TEXT_MAX}")]
    Long(usize),
}

const TEXT_MAX: usize = 24;

impl NumberFormat {
    /// The number of the document with this serial, issued in this year.
    pub fn number(&self, year: i16, serial: u64) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Year => format!("{year:04}"),
            Part::Number { digits } => format!("{serial:0digits$}"),
        };
        self.parts.iter().map(part).collect()
    }
}

impl Default for NumberFormat {
    fn default() -> NumberFormat {
        NumberFormat { parts: vec![Part::Year, Part::Text("-".into()), Part::Number { digits: 6 }] }
    }
}

impl FromStr for NumberFormat {
    type Err = NumberFormatError;
    fn from_str(format: &str) -> Result<NumberFormat, NumberFormatError> {
        let mut parts = Vec::new();
        let mut rest = format;
        while let Some(c) = rest.chars().next() {
            let length = match c {
                '{' => rest.find('}').map_or(rest.len(), |end| end + 1),
                _ => rest.find('{').unwrap_or(rest.len()),
            };
            let (part, behind) = rest.split_at(length);
            parts.push(if c == '{' { placeholder(part)? } else { text(part)? });
            rest = behind;
        }
        let numbers = parts.iter().filter(|part| matches!(part, Part::Number { .. })).count();
        let texts: usize =
            parts.iter().map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum();
        match format.chars().next() {
            _ if numbers != 1 => Err(NumberFormatError::Numbers(numbers)),
            _ if parts.iter().filter(|part| **part == Part::Year).count() > 1 => {
                Err(NumberFormatError::Years)
            }
            Some(first @ ('-' | '.')) => Err(NumberFormatError::Beginning(first)),
            _ if texts > TEXT_MAX => Err(NumberFormatError::Long(texts)),
            _ => Ok(NumberFormat { parts }),
        }
    }
}

fn placeholder(part: &str) -> Result<Part, NumberFormatError> {
    let unknown = || NumberFormatError::Placeholder(part.to_owned());
    match part {
        "{year}" => Ok(Part::Year),
        "{number}" => Ok(Part::Number { digits: 1 }),
        _ => {
            let digits =
                part.strip_prefix("{number:0").and_then(|rest| rest.strip_suffix('}')).ok_or_else(unknown)?;
            let count = digits
                .parse()
                .ok()
                .filter(|count| (1..=12).contains(count) && !digits.starts_with(['+', '0']));
            count.map(|digits| Part::Number { digits }).ok_or_else(unknown)
        }
    }
}

fn text(part: &str) -> Result<Part, NumberFormatError> {
    match part.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')) {
        Some(odd) => Err(NumberFormatError::Character(odd)),
        None => Ok(Part::Text(part.to_owned())),
    }
}

/// As it is written in a configuration.
impl fmt::Display for NumberFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Year => f.write_str("{year}"),
            Part::Number { digits: 1 } => f.write_str("{number}"),
            Part::Number { digits } => write!(f, "{{number:0{digits}}}"),
        })
    }
}

serialize_as_text!(NumberFormat);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_number_has_the_year_of_issue_and_the_serial() {
        assert_eq!(NumberFormat::default(), "{year}-{number:06}".parse().unwrap());
        assert_eq!(NumberFormat::default().number(2026, 7), "2026-000007");
        for (format, number) in [
            ("{number}", "42"),
            ("RE-{number:04}", "RE-0042"),
            ("P{year}.{number}_A", "P2026.42_A"),
            ("{number:03}{year}", "0422026"),
            ("{number:01}7", "427"),
        ] {
            let read: NumberFormat = format.parse().unwrap();
            assert_eq!(read.number(2026, 42), number);
        }
        assert_eq!(
            NumberFormat::default().number(2026, 12_345_678),
            "2026-12345678",
            "it grows, and never restarts"
        );
    }

    #[test]
    fn a_format_that_could_repeat_a_number_or_break_a_path_is_refused() {
        use NumberFormatError as E;
        for (format, error) in [
            ("", E::Numbers(0)),
            ("{year}", E::Numbers(0)),
            ("{number}-{number}", E::Numbers(2)),
            ("{year}{year}{number}", E::Years),
            ("{year}/{number}", E::Character('/')),
            ("№{number}", E::Character('№')),
            ("{number}}", E::Character('}')),
            ("{number", E::Placeholder("{number".into())),
            ("{number:6}", E::Placeholder("{number:6}".into())),
            ("{number:00}", E::Placeholder("{number:00}".into())),
            ("{number:013}", E::Placeholder("{number:013}".into())),
            ("{month}{number}", E::Placeholder("{month}".into())),
            (".{number}", E::Beginning('.')),
            ("-{number}", E::Beginning('-')),
            ("a-very-long-prefix-of-a-number-{number}", E::Long(31)),
        ] {
            assert_eq!(format.parse::<NumberFormat>(), Err(error), "{format}");
        }
    }

    proptest! {
        #[test]
        fn no_two_serials_have_one_number(
            before in "[A-Za-z0-9_]{0,6}", between in "[A-Za-z0-9._-]{0,6}", behind in "[A-Za-z0-9._-]{0,6}",
            digits in 1usize..=12, years in any::<[u16; 2]>(), serial in any::<u64>(), form in 0..3,
        ) {
            let format = match form {
                0 => format!("{before}{{year}}{between}{{number:0{digits}}}{behind}"),
                1 => format!("{before}{{number:0{digits}}}{between}{{year}}{behind}"),
                _ => format!("{before}{{number}}{between}"),
            };
            let read: NumberFormat = format.parse().unwrap();
            let mut serials = HashMap::new();
            for serial in (0..500).chain((0..64).map(|shift| serial >> shift)) {
                for year in years {
                    let number = read.number((year % 10_000) as i16, serial);
                    prop_assert!(number.len() <= 64);
                    prop_assert_eq!(*serials.entry(number).or_insert(serial), serial);
                }
            }
            prop_assert_eq!(read.to_string().parse(), Ok(read));
        }
    }
}
