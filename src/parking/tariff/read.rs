//! Reads TOML tables with their line numbers. Every problem is noted, so that a person sees all of them at once. The tables of
//! garages are read with it, too.

use super::days::Days;
use super::window::{ClockTime, TimeWindow};
use super::{Amount, Tariff};
use crate::text::is_unprintable;
use jiff::civil::Date;
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong at one place of a text. Nothing of it is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {at}{problem}")]
pub struct TariffError {
    /// From 1.
    pub line: usize,
    /// The table that it stands in, such as `tariff "centre": `; empty outside of one.
    at: String,
    problem: String,
}

/// The text that is read, and what was found wrong with it.
pub(in crate::parking) struct Notes {
    line_starts: Vec<usize>,
    errors: RefCell<Vec<TariffError>>,
}

impl Notes {
    pub(in crate::parking) fn new(text: &str) -> Notes {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Notes { line_starts: std::iter::once(0).chain(starts).collect(), errors: RefCell::default() }
    }

    /// The line of a byte, from 1.
    pub(in crate::parking) fn line_at(&self, byte: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= byte)
    }

    pub(in crate::parking) fn line_of(&self, value: &Spanned<DeValue<'_>>) -> usize {
        self.line_at(value.span().start)
    }

    pub(in crate::parking) fn note(&self, line: usize, at: &str, problem: impl Display) {
        let error = TariffError { line, at: at.to_owned(), problem: problem.to_string() };
        self.errors.borrow_mut().push(error);
    }

    pub(in crate::parking) fn is_empty(&self) -> bool {
        self.errors.borrow().is_empty()
    }

    /// In the order of the lines.
    pub(in crate::parking) fn into_errors(self) -> Vec<TariffError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line);
        errors
    }
}

/// One table. A method returns `None` when its key is absent or its value is wrong; a wrong value is noted.
#[derive(Clone, Copy)]
pub(in crate::parking) struct Table<'a> {
    notes: &'a Notes,
    table: &'a DeTable<'a>,
    /// Where it begins.
    pub(in crate::parking) line: usize,
    at: &'a str,
}

impl<'a> Table<'a> {
    /// `None` when `value` is no table.
    pub(in crate::parking) fn new(
        notes: &'a Notes,
        value: &'a Spanned<DeValue<'a>>,
        at: &'a str,
    ) -> Option<Table<'a>> {
        Some(Table { notes, table: value.get_ref().as_table()?, line: notes.line_of(value), at })
    }

    pub(in crate::parking) fn note(&self, line: usize, problem: impl Display) {
        self.notes.note(line, self.at, problem);
    }

    /// `value`; notes the problem when there is none.
    pub(in crate::parking) fn or_note<T>(
        &self,
        value: Option<T>,
        line: usize,
        problem: impl Display,
    ) -> Option<T> {
        if value.is_none() {
            self.note(line, problem);
        }
        value
    }

    /// Notes keys other than these, which are separated by commas.
    pub(in crate::parking) fn knows(&self, known: &str) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !known.split(", ").any(|known| known == name) {
                let problem = format_args!("the key {name:?} is not known here. The known keys are {known}");
                self.note(self.notes.line_at(key.span().start), problem);
            }
        }
    }

    pub(in crate::parking) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// The line of a key's value; that of the table when it is absent.
    pub(in crate::parking) fn line_of(&self, key: &str) -> usize {
        self.value(key).map_or(self.line, |value| self.notes.line_of(value))
    }

    /// Notes that `key` is missing, if it is.
    pub(in crate::parking) fn needs<T>(&self, key: &str, value: Option<T>) -> Option<T> {
        if !self.has(key) {
            self.note(self.line, format_args!("{key} is missing"));
        }
        value
    }

    /// What `read` gets from the value of `key`; `expected` says what that is.
    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?.get_ref();
        self.or_note(read(value), self.line_of(key), wrong_type(key, expected, value))
    }

    pub(in crate::parking) fn text(&self, key: &str) -> Option<&'a str> {
        self.typed(key, "a text in quotes", |value| value.as_str())
    }

    /// A text as a name in normal form C.
    pub(in crate::parking) fn name(&self, key: &str) -> Option<String> {
        self.as_name(key, self.text(key)?, self.line_of(key))
    }

    /// A sentence for people, in normal form C.
    pub(in crate::parking) fn sentence(&self, key: &str) -> Option<String> {
        self.label(key, ("text", 200))
    }

    /// Text for people, in normal form C: what it is, with the maximum number of its bytes.
    pub(in crate::parking) fn label(&self, key: &str, kind: (&str, usize)) -> Option<String> {
        self.as_label(key, self.text(key)?, self.line_of(key), kind)
    }

    /// A list of such texts.
    pub(in crate::parking) fn labels(&self, key: &str, kind: (&str, usize)) -> Option<Vec<String>> {
        let labels = self.texts(key)?.into_iter();
        Some(labels.filter_map(|(text, line)| self.as_label(key, text, line, kind)).collect())
    }

    fn as_name(&self, key: &str, text: &str, line: usize) -> Option<String> {
        self.as_label(key, text, line, ("name", 64))
    }

    /// `kind` of label, with the maximum number of its bytes.
    fn as_label(&self, key: &str, text: &str, line: usize, (kind, most): (&str, usize)) -> Option<String> {
        use unicode_normalization::UnicodeNormalization;
        let label: String = text.nfc().collect();
        let reason = match () {
            () if label.is_empty() => "it is empty".to_owned(),
            () if label.len() > most => format!("it has more than {most} bytes"),
            () if label.chars().any(is_unprintable) => "it has characters that cannot be seen".to_owned(),
            () if label.trim() != label => "it begins or ends with a space".to_owned(),
            () => return Some(label),
        };
        self.note(line, format_args!("{key} {text:?} is not a valid {kind}: {reason}"));
        None
    }

    fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let integer = self.typed(key, "a whole number", |value| value.as_integer())?;
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        let (least, most) = (range.start(), range.end());
        let problem = format_args!("{key} is {integer}, but must be from {least} to {most}");
        self.or_note(number, self.line_of(key), problem)
    }

    pub(in crate::parking) fn count(&self, key: &str, range: RangeInclusive<i64>) -> Option<u32> {
        self.integer(key, range).and_then(|count| u32::try_from(count).ok())
    }

    pub(in crate::parking) fn amount(&self, key: &str) -> Option<Amount> {
        self.integer(key, 0..=Tariff::PRICE_MAX).map(Amount::of_minor)
    }

    /// Hundredths of a percent, exactly as they are written.
    pub(in crate::parking) fn hundredths(&self, key: &str) -> Option<u16> {
        let written = self.typed(key, "a number", |value| match value {
            DeValue::Integer(integer) => Some(integer.to_string()),
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            _ => None,
        })?;
        let (whole, part) = written.split_once('.').unwrap_or((&written, ""));
        let part = part.trim_end_matches('0');
        let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
        let hundredths = (part.len() <= 2 && digits(whole) && digits(part)).then_some(());
        let hundredths = hundredths.and_then(|()| format!("{whole}{part:0<2}").parse::<u16>().ok());
        let hundredths = hundredths.filter(|hundredths| *hundredths <= 10_000);
        let problem = format_args!("{key} is {written}, but must be from 0 to 100 with at most two decimals");
        self.or_note(hundredths, self.line_of(key), problem)
    }

    pub(in crate::parking) fn date(&self, key: &str) -> Option<Date> {
        self.as_date(key, self.value(key)?)
    }

    fn as_date(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Date> {
        let date = match value.get_ref() {
            DeValue::Datetime(date @ toml::value::Datetime { time: None, .. }) => {
                date.to_string().parse().ok()
            }
            _ => None,
        };
        let problem = format_args!("{key} must be a date such as 2026-01-01, without quotes");
        self.or_note(date, self.notes.line_of(value), problem)
    }

    fn list(&self, key: &str) -> Option<&'a [Spanned<DeValue<'a>>]> {
        self.typed(key, "a list in brackets", |value| value.as_array().map(|list| list.as_ref()))
    }

    /// Whether the value of `key` is a list.
    pub(in crate::parking) fn is_list(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().is_array())
    }

    /// The texts of a list, each with its line.
    fn texts(&self, key: &str) -> Option<Vec<(&'a str, usize)>> {
        let texts = self.list(key)?.iter().filter_map(|value| {
            let line = self.notes.line_of(value);
            let problem = wrong_type(key, "a list of texts in quotes", value.get_ref());
            Some((self.or_note(value.get_ref().as_str(), line, problem)?, line))
        });
        Some(texts.collect())
    }

    pub(in crate::parking) fn names(&self, key: &str) -> Option<Vec<(String, usize)>> {
        let names = self.texts(key)?.into_iter();
        Some(names.filter_map(|(text, line)| Some((self.as_name(key, text, line)?, line))).collect())
    }

    /// A number of degrees from -`most` to `most`.
    pub(in crate::parking) fn degrees(&self, key: &str, most: u8) -> Option<f64> {
        let written = self.typed(key, "a number", |value| match value {
            DeValue::Integer(integer) => Some(integer.to_string()),
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            _ => None,
        })?;
        let degrees = written.parse().ok().filter(|degrees: &f64| degrees.abs() <= f64::from(most));
        let problem = format_args!("{key} is {written}, but must be from -{most} to {most}");
        self.or_note(degrees, self.line_of(key), problem)
    }

    /// The table in braces under `key`.
    pub(in crate::parking) fn table(&self, key: &str) -> Option<Table<'a>> {
        let value = self.value(key)?;
        let problem = wrong_type(key, "a table in braces", value.get_ref());
        self.or_note(Table::new(self.notes, value, self.at), self.line_of(key), problem)
    }

    /// `None` when one of them is wrong.
    pub(in crate::parking) fn dates(&self, key: &str) -> Option<Vec<(Date, usize)>> {
        let date = |value| Some((self.as_date(key, value)?, self.notes.line_of(value)));
        // All are read, so that all that is wrong is noted.
        let dates: Vec<_> = self.list(key)?.iter().map(date).collect();
        dates.into_iter().collect()
    }

    pub(in crate::parking) fn tables(&self, key: &str) -> Option<Vec<Table<'a>>> {
        let list = self.list(key)?;
        if list.len() > Tariff::RULES_MAX {
            let problem =
                format!("{key} has {} entries; at most {} are possible", list.len(), Tariff::RULES_MAX);
            self.note(self.line_of(key), problem);
            return None;
        }
        let tables = list.iter().filter_map(|value| {
            let problem = wrong_type(key, "a list of tables in braces", value.get_ref());
            self.or_note(Table::new(self.notes, value, self.at), self.notes.line_of(value), problem)
        });
        Some(tables.collect())
    }

    /// Its `days`, `from` and `to`, all of which are needed.
    pub(in crate::parking) fn window(&self) -> Option<TimeWindow> {
        let days = self.needs("days", self.text("days")).and_then(|text| {
            let days = text.parse::<Days>();
            days.map_err(|problem| self.note(self.line_of("days"), problem)).ok()
        });
        let from = self.needs("from", self.time("from")).and_then(|from| {
            let problem =
                "from \"24:00\" is the next day: say \"00:00\", and the day on which the window begins";
            let from = Some(from).filter(|from| *from != ClockTime::END_OF_DAY);
            self.or_note(from, self.line_of("from"), problem)
        });
        let to = self.needs("to", self.time("to"));
        Some(TimeWindow { days: days?, from: from?, to: to? })
    }

    fn time(&self, key: &str) -> Option<ClockTime> {
        let text = self.text(key)?;
        let problem = "is not a time. Times look like \"07:30\", from \"00:00\" to \"24:00\"";
        self.or_note(ClockTime::new(text), self.line_of(key), format_args!("{key} {text:?} {problem}"))
    }
}

/// Reads the text as TOML, or notes why it is none.
pub(in crate::parking) fn document<'a>(notes: &Notes, text: &'a str) -> Option<Spanned<DeTable<'a>>> {
    match DeTable::parse(text) {
        Ok(document) => Some(document),
        Err(error) => {
            let line = error.span().map_or(1, |span| notes.line_at(span.start));
            notes.note(line, "", format!("not TOML: {}", error.message().trim().replace('\n', ", ")));
            None
        }
    }
}

/// The tables under `[[key]]`.
pub(in crate::parking) fn elements<'a>(
    notes: &Notes,
    document: &'a DeTable<'a>,
    key: &str,
) -> Vec<&'a Spanned<DeValue<'a>>> {
    let Some(value) = document.get(key) else { return Vec::new() };
    let is_right = |value: &Spanned<DeValue<'_>>, is: fn(&DeValue<'_>) -> bool| {
        if !is(value.get_ref()) {
            let problem = wrong_type(key, &format!("tables under [[{key}]]"), value.get_ref());
            notes.note(notes.line_of(value), "", problem);
        }
        is(value.get_ref())
    };
    if !is_right(value, |value| value.is_array()) {
        return Vec::new();
    }
    let list = value.get_ref().as_array().into_iter().flat_map(|list| list.iter());
    list.filter(|value| is_right(value, |value| value.is_table())).collect()
}

/// The table as errors name it: with its own name, where it has one.
pub(in crate::parking) fn called(kind: &str, value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref().get("name").and_then(|name| name.get_ref().as_str()) {
        Some(name) => format!("{kind} {name:?}: "),
        None => format!("{kind}: "),
    }
}

pub(in crate::parking) fn wrong_type(key: &str, expected: &str, value: &DeValue<'_>) -> String {
    let found = match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with decimals",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("{key} must be {expected}, not {found}")
}
