//! Reads TOML tables with their line numbers. Every problem is noted, so that a person sees all of them at once.

use super::days::Days;
use super::problem::{TariffError, TariffProblem};
use super::window::{ClockTime, TimeWindow};
use super::{Amount, Tariff};
use crate::parking::register::is_unprintable;
use jiff::civil::Date;
use std::cell::RefCell;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The text that is read, and what was found wrong with it.
pub(super) struct Notes {
    line_starts: Vec<usize>,
    errors: RefCell<Vec<TariffError>>,
}

impl Notes {
    pub(super) fn new(text: &str) -> Notes {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Notes { line_starts: std::iter::once(0).chain(starts).collect(), errors: RefCell::default() }
    }

    /// The line of a byte, from 1.
    pub(super) fn line_at(&self, byte: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= byte)
    }

    pub(super) fn note(&self, line: usize, at: &str, problem: TariffProblem) {
        self.errors.borrow_mut().push(TariffError { line, at: at.to_owned(), problem });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.errors.borrow().is_empty()
    }

    /// In the order of the lines.
    pub(super) fn into_errors(self) -> Vec<TariffError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line);
        errors
    }
}

/// One table. A method returns `None` when its key is absent or its value is wrong; a wrong value is noted.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    notes: &'a Notes,
    table: &'a DeTable<'a>,
    /// Where it begins.
    pub(super) line: usize,
    at: &'a str,
}

impl<'a> Table<'a> {
    /// `None` when `value` is no table.
    pub(super) fn new(notes: &'a Notes, value: &'a Spanned<DeValue<'a>>, at: &'a str) -> Option<Table<'a>> {
        let line = notes.line_at(value.span().start);
        let table = value.get_ref().as_table()?;
        Some(Table { notes, table, line, at })
    }

    pub(super) fn note(&self, line: usize, problem: TariffProblem) {
        self.notes.note(line, self.at, problem);
    }

    pub(super) fn knows(&self, known: &[&str]) {
        for key in self.table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                let line = self.notes.line_at(key.span().start);
                let (key, known) = (key.get_ref().to_string(), known.join(", "));
                self.note(line, TariffProblem::UnknownKey { key, known });
            }
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// The line of a key's value; that of the table when it is absent.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.value(key).map_or(self.line, |value| self.notes.line_at(value.span().start))
    }

    /// Notes that `key` is missing, if it is.
    pub(super) fn needs<T>(&self, key: &'static str, value: Option<T>) -> Option<T> {
        if !self.has(key) {
            self.note(self.line, TariffProblem::Missing(key));
        }
        value
    }

    fn wrong_type(&self, key: &'static str, expected: &'static str, value: &DeValue<'_>) {
        self.note(self.line_of(key), TariffProblem::WrongType { key, expected, found: type_of(value) });
    }

    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        let value = self.value(key)?.get_ref();
        let text = value.as_str();
        if text.is_none() {
            self.wrong_type(key, "a text in quotes", value);
        }
        text
    }

    /// A text as a name in normal form C.
    pub(super) fn name(&self, key: &'static str) -> Option<String> {
        self.as_name(key, self.text(key)?, self.line_of(key))
    }

    fn as_name(&self, key: &'static str, text: &str, line: usize) -> Option<String> {
        use unicode_normalization::UnicodeNormalization;
        let name: String = text.nfc().collect();
        let reason = match () {
            () if name.is_empty() => "it is empty",
            () if name.len() > 64 => "it has more than 64 bytes",
            () if name.chars().any(is_unprintable) => "it has characters that cannot be seen",
            () if name.trim() != name => "it begins or ends with a space",
            () => return Some(name),
        };
        self.note(line, TariffProblem::Name { key, found: text.to_owned(), reason });
        None
    }

    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.value(key)?.get_ref();
        let Some(integer) = value.as_integer() else {
            self.wrong_type(key, "a whole number", value);
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most, found) = (*range.start(), *range.end(), integer.to_string());
            self.note(self.line_of(key), TariffProblem::OutOfRange { key, least, most, found });
        }
        number
    }

    pub(super) fn count(&self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let range = i64::from(*range.start())..=i64::from(*range.end());
        self.integer(key, range).and_then(|count| u32::try_from(count).ok())
    }

    pub(super) fn amount(&self, key: &'static str) -> Option<Amount> {
        self.integer(key, 0..=Tariff::PRICE_MAX).map(Amount::of_minor)
    }

    /// Hundredths of a percent, exactly as they are written.
    pub(super) fn hundredths(&self, key: &'static str) -> Option<u16> {
        let value = self.value(key)?.get_ref();
        let written = match value {
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Float(float) => float.as_str().to_owned(),
            other => {
                self.wrong_type(key, "a number", other);
                return None;
            }
        };
        let (whole, part) = written.split_once('.').unwrap_or((&written, ""));
        let part = part.trim_end_matches('0');
        let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
        let hundredths = (part.len() <= 2 && digits(whole) && digits(part)).then_some(());
        let hundredths = hundredths.and_then(|()| format!("{whole}{part:0<2}").parse::<u16>().ok());
        let hundredths = hundredths.filter(|hundredths| *hundredths <= 10_000);
        if hundredths.is_none() {
            self.note(self.line_of(key), TariffProblem::Vat(written));
        }
        hundredths
    }

    pub(super) fn date(&self, key: &'static str) -> Option<Date> {
        self.as_date(key, self.value(key)?)
    }

    fn as_date(&self, key: &'static str, value: &Spanned<DeValue<'_>>) -> Option<Date> {
        let date = match value.get_ref() {
            DeValue::Datetime(toml::value::Datetime { date: Some(date), time: None, offset: None }) => {
                let [month, day] = [date.month, date.day].map(|part| i8::try_from(part).unwrap_or(0));
                Date::new(i16::try_from(date.year).unwrap_or(0), month, day).ok()
            }
            _ => None,
        };
        if date.is_none() {
            self.note(self.notes.line_at(value.span().start), TariffProblem::Date { key });
        }
        date
    }

    /// The elements of a list with their lines; noted when there are none and when it is no list.
    pub(super) fn list(&self, key: &'static str) -> Option<Vec<&'a Spanned<DeValue<'a>>>> {
        let value = self.value(key)?.get_ref();
        match value.as_array() {
            Some(list) => Some(list.iter().collect()),
            None => {
                self.wrong_type(key, "a list in brackets", value);
                None
            }
        }
    }

    pub(super) fn names(&self, key: &'static str) -> Option<Vec<(String, usize)>> {
        let names = self.list(key)?.into_iter().filter_map(|value| {
            let line = self.notes.line_at(value.span().start);
            let Some(text) = value.get_ref().as_str() else {
                let found = type_of(value.get_ref());
                self.note(
                    line,
                    TariffProblem::WrongType { key, expected: "a list of texts in quotes", found },
                );
                return None;
            };
            self.as_name(key, text, line).map(|name| (name, line))
        });
        Some(names.collect())
    }

    pub(super) fn dates(&self, key: &'static str) -> Option<Vec<(Date, usize)>> {
        let dates = self.list(key)?.into_iter();
        let line = |value: &Spanned<DeValue<'_>>| self.notes.line_at(value.span().start);
        Some(dates.filter_map(|value| Some((self.as_date(key, value)?, line(value)))).collect())
    }

    /// The tables of a list.
    pub(super) fn tables(&self, key: &'static str) -> Option<Vec<Table<'a>>> {
        let list = self.list(key)?;
        if list.len() > Tariff::RULES_MAX {
            self.note(self.line_of(key), TariffProblem::TooMany { key, found: list.len() });
            return None;
        }
        let tables = list.into_iter().filter_map(|value| {
            let table = Table::new(self.notes, value, self.at);
            if table.is_none() {
                let (expected, found) = ("a list of tables in braces", type_of(value.get_ref()));
                let line = self.notes.line_at(value.span().start);
                self.note(line, TariffProblem::WrongType { key, expected, found });
            }
            table
        });
        Some(tables.collect())
    }

    /// Its `days`, `from` and `to`, all of which are needed.
    pub(super) fn window(&self) -> Option<TimeWindow> {
        let days = self.needs("days", self.text("days")).and_then(|text| {
            let days = text.parse::<Days>();
            days.map_err(|problem| self.note(self.line_of("days"), problem.into())).ok()
        });
        let from = self.needs("from", self.time("from")).filter(|from| {
            let end = *from == ClockTime::END_OF_DAY;
            if end {
                self.note(self.line_of("from"), TariffProblem::FromEndOfDay);
            }
            !end
        });
        let to = self.needs("to", self.time("to"));
        Some(TimeWindow { days: days?, from: from?, to: to? })
    }

    fn time(&self, key: &'static str) -> Option<ClockTime> {
        let text = self.text(key)?;
        let time = ClockTime::new(text);
        if time.is_none() {
            self.note(self.line_of(key), TariffProblem::Time { key, found: text.to_owned() });
        }
        time
    }
}

pub(super) fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with decimals",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
