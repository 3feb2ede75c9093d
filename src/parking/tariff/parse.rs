//! Reads tariffs from a text, or reports everything that is wrong with it.

use super::coverage;
use super::read::{Notes, Table, TariffError, called, document, elements};
use super::set::check_together;
use super::{
    Amount, Band, BandPrice, Calendar, Cap, Currency, FALLBACK, First, Span, Tariff, TariffSet, Vat, VatRate,
};
use jiff::civil::{Date, date};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use toml::Spanned;
use toml::de::DeValue;

/// A year of minutes: what is longer is a slip of the pen.
const MINUTES_MAX: i64 = 366 * 24 * 60;
const HOURS_MAX: i64 = 366 * 24;

const CALENDAR: &str = "calendar";
const TARIFF: &str = "tariff";

const TARIFF_KEYS: &str = "name, garages, currency, time_zone, valid_from, calendar, vat_percent, vat, vat_reason, \
                           grace_minutes, unit_minutes, first, bands, caps, daily_cap, stay_cap";

/// What is done with tables of other kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OtherTables {
    Refuse,
    PassOver,
}

impl TariffSet {
    /// Reads a text that is tariffs and calendars, such as [`TariffSet::to_toml`] writes; all that is wrong in it, by line.
    pub fn parse(text: &str) -> Result<TariffSet, Vec<TariffError>> {
        parse(text, OtherTables::Refuse)
    }

    /// Reads the tariffs and calendars of a whole configuration file. Other tables are passed over.
    pub fn parse_config(text: &str) -> Result<TariffSet, Vec<TariffError>> {
        parse(text, OtherTables::PassOver)
    }
}

fn parse(text: &str, others: OtherTables) -> Result<TariffSet, Vec<TariffError>> {
    let notes = Notes::new(text);
    let Some(document) = document(&notes, text) else { return Err(notes.into_errors()) };
    let document = document.get_ref();
    for key in document.keys().filter(|_| others == OtherTables::Refuse) {
        let name = key.get_ref().as_ref();
        if ![CALENDAR, TARIFF].contains(&name) {
            let problem =
                format!("the key {name:?} is not known here. The known keys are {CALENDAR}, {TARIFF}");
            notes.note(notes.line_at(key.span().start), "", problem);
        }
    }
    let mut calendars = BTreeMap::new();
    for value in elements(&notes, document, CALENDAR) {
        read_calendar(&notes, value, &mut calendars);
    }
    let mut tariffs = Vec::new();
    for value in elements(&notes, document, TARIFF) {
        tariffs.extend(read_tariff(&notes, value, &calendars));
    }
    // By name, then by date: the order of the text means nothing.
    tariffs.sort_by(|(a, _), (b, _)| (&a.name, a.valid_from).cmp(&(&b.name, b.valid_from)));
    check_together(&tariffs, &notes);
    if !notes.is_empty() {
        return Err(notes.into_errors());
    }
    let calendars = calendars.into_values().map(|(calendar, _)| calendar).collect();
    Ok(TariffSet::new(calendars, tariffs.into_iter().map(|(tariff, _)| tariff).collect()))
}

/// By name, each with its line.
type Calendars = BTreeMap<String, (Arc<Calendar>, usize)>;

fn read_calendar(notes: &Notes, value: &Spanned<DeValue<'_>>, calendars: &mut Calendars) {
    let at = called(CALENDAR, value);
    let Some(table) = Table::new(notes, value, &at) else { return };
    table.knows("name, holidays, complete_from, complete_through");
    let name = table.needs("name", table.name("name"));
    let holidays = table.needs("holidays", table.dates("holidays"));
    let mut seen = BTreeSet::new();
    for (date, line) in holidays.iter().flatten() {
        if !seen.insert(*date) {
            table.note(*line, format_args!("the holiday {date} is listed twice"));
        }
    }
    let complete = holidays.and_then(|_| read_completeness(&table, &seen));
    let Some(name) = name else { return };
    if let Some((_, line)) = calendars.get(&name) {
        return table.note(table.line, format_args!("a calendar of this name stands in line {line}, too"));
    }
    // A wrong calendar is refused with all else; that tariffs name it is no second mistake.
    let complete = complete.unwrap_or((Date::MIN, Date::MAX));
    let calendar = Calendar::new(name.clone(), seen, complete);
    calendars.insert(name, (Arc::new(calendar), table.line));
}

/// From which day through which a calendar has all holidays: as it says, else the whole years of its first and of its last.
fn read_completeness(table: &Table<'_>, holidays: &BTreeSet<Date>) -> Option<(Date, Date)> {
    let or_default = |key: &str, default: Option<Date>| {
        if table.has(key) {
            return table.date(key);
        }
        let problem = format!("{key} is missing: it lists no holidays, so it must say which days it covers");
        table.or_note(default, table.line, problem)
    };
    let from = or_default("complete_from", holidays.first().map(|day| date(day.year(), 1, 1)));
    let through = or_default("complete_through", holidays.last().map(|day| date(day.year(), 12, 31)));
    let (from, through) = (from?, through?);
    if through < from {
        let problem = format_args!("complete_through is {through}, before complete_from, {from}");
        table.note(table.line_of("complete_through"), problem);
        return None;
    }
    if let Some(day) = holidays.iter().find(|day| !(from..=through).contains(day)) {
        let problem =
            format_args!("the holiday {day} is not within the days that it covers, {from} to {through}");
        table.note(table.line_of("holidays"), problem);
        return None;
    }
    Some((from, through))
}

/// The tariff and its line. `None` when something in it is wrong.
fn read_tariff(
    notes: &Notes,
    value: &Spanned<DeValue<'_>>,
    calendars: &Calendars,
) -> Option<(Tariff, usize)> {
    let at = called(TARIFF, value);
    let table = Table::new(notes, value, &at)?;
    table.knows(TARIFF_KEYS);
    let name = table.needs("name", table.name("name"));
    let garages =
        table.needs("garages", table.names("garages")).and_then(|garages| read_garages(&table, garages));
    let currency = table.needs("currency", table.text("currency")).and_then(|code| {
        let problem = format!(
            "currency {code:?} is not known. Give the ISO 4217 code of a currency used for payments, such as \"EUR\""
        );
        table.or_note(Currency::new(code).ok(), table.line_of("currency"), problem)
    });
    let time_zone = table.needs("time_zone", table.text("time_zone")).and_then(|name| {
        let problem =
            format!("time_zone {name:?} is not in the IANA database. Zones look like \"Europe/Berlin\"");
        table.or_note(super::time_zone(name), table.line_of("time_zone"), problem)
    });
    let valid_from = table.needs("valid_from", table.date("valid_from"));
    let calendar = table.name("calendar").and_then(|name| {
        let calendar = calendars.get(&name).map(|(calendar, _)| Arc::clone(calendar));
        let problem = format!("calendar {name:?} is not there. Define it with [[calendar]]");
        table.or_note(calendar, table.line_of("calendar"), problem)
    });
    let unit_minutes = table.needs("unit_minutes", table.count("unit_minutes", 1..=MINUTES_MAX));
    let bands = table.needs("bands", table.tables("bands")).and_then(|bands| {
        if bands.is_empty() {
            table.note(table.line_of("bands"), "bands is empty");
        }
        all(bands, read_band)
    });
    let caps = all(table.tables("caps").unwrap_or_default(), read_cap);
    let first = all(table.tables("first").unwrap_or_default(), read_first);
    let vat = read_vat(&table, valid_from);
    let grace_minutes = table.count("grace_minutes", 0..=MINUTES_MAX).unwrap_or(0);
    let [daily_cap, stay_cap] = ["daily_cap", "stay_cap"].map(|key| table.amount(key));
    let tariff = Tariff {
        name: name?,
        garages: garages?,
        currency: currency?,
        time_zone: time_zone?,
        valid_from: valid_from?,
        calendar,
        vat: vat?,
        grace_minutes,
        unit_minutes: unit_minutes?,
        first: first?,
        bands: bands?,
        caps: caps?,
        daily_cap,
        stay_cap,
        ready: Default::default(),
    }
    .ready();
    if let Some(hours) = coverage::uncovered(&tariff) {
        table.note(table.line_of("bands"), format_args!("no band covers {hours}"));
    }
    Some((tariff, table.line))
}

/// The VAT: exactly one of the three ways to say it.
fn read_vat(table: &Table<'_>, valid_from: Option<Date>) -> Option<Vat> {
    match ["vat_percent", "vat", "vat_reason"].map(|key| table.has(key)) {
        [true, false, false] => {
            let first = table.hundredths("vat_percent").and_then(VatRate::of_hundredths)?;
            Some(Vat::Rates { first, changes: Vec::new() })
        }
        [false, true, false] => read_rates(table, valid_from?, all(table.tables("vat")?, read_rate)?),
        [false, false, true] => table.sentence("vat_reason").map(|reason| Vat::Exempt { reason }),
        _ => {
            let problem = "a tariff needs one of vat_percent, vat, and vat_reason, which says why there is no VAT, and not more";
            table.note(table.line, problem);
            None
        }
    }
}

/// A rate with its date and its line.
type DatedRate = (Option<Date>, VatRate, usize);

fn read_rate(table: Table<'_>) -> Option<DatedRate> {
    table.knows("from, percent");
    let percent = table.needs("percent", table.hundredths("percent"));
    let from = table.date("from");
    if table.has("from") && from.is_none() {
        return None;
    }
    Some((from, VatRate::of_hundredths(percent?)?, table.line_of("from")))
}

/// Only the first may lack its date: it holds from the tariff's first day on.
fn read_rates(table: &Table<'_>, valid_from: Date, rates: Vec<DatedRate>) -> Option<Vat> {
    let Some(&(first_from, first, first_line)) = rates.first() else {
        table.note(table.line_of("vat"), "vat is empty");
        return None;
    };
    if let Some(from) = first_from.filter(|from| *from > valid_from) {
        let problem = format_args!("vat has no rate from {valid_from}, the tariff's first day, until {from}");
        table.note(first_line, problem);
        return None;
    }
    let mut dated: Vec<(Date, VatRate)> = first_from.map(|from| (from, first)).into_iter().collect();
    for (from, rate, line) in rates.into_iter().skip(1) {
        let from = table.or_note(from, line, "from is missing: only the first rate of vat may lack it")?;
        if let Some((before, _)) = dated.last().filter(|(before, _)| from <= *before) {
            table.note(
                line,
                format_args!("from is {from}, but the rate before it is from {before}: dates ascend"),
            );
            return None;
        }
        dated.push((from, rate));
    }
    Some(Vat::of_dated(valid_from, first, dated))
}

fn read_garages(table: &Table<'_>, mut garages: Vec<(String, usize)>) -> Option<Vec<String>> {
    garages.sort();
    if garages.is_empty() {
        table.note(table.line_of("garages"), "garages is empty");
        return None;
    }
    for pair in garages.windows(2) {
        let (garage, line) = &pair[1];
        if pair[0].0 == *garage {
            table.note(*line, format_args!("the garage {garage:?} is listed twice"));
        }
    }
    let fallback = garages.iter().find(|(name, _)| name == FALLBACK);
    if let Some((_, line)) = fallback.filter(|_| garages.len() > 1) {
        let problem = "\"*\" stands for every garage without a tariff of its own; it must be listed alone";
        table.note(*line, problem);
    }
    Some(garages.into_iter().map(|(name, _)| name).collect())
}

/// `None` when one of them is wrong. All are read, so that all that is wrong is noted.
fn all<T>(tables: Vec<Table<'_>>, read: fn(Table<'_>) -> Option<T>) -> Option<Vec<T>> {
    let read: Vec<Option<T>> = tables.into_iter().map(read).collect();
    read.into_iter().collect()
}

fn read_band(table: Table<'_>) -> Option<Band> {
    table.knows("days, from, to, per_unit, flat");
    let window = table.window();
    let price = match (table.has("per_unit"), table.has("flat")) {
        (true, false) => table.amount("per_unit").map(BandPrice::PerUnit),
        (false, true) => table.amount("flat").map(BandPrice::Flat),
        _ => {
            table.note(table.line, "a band needs one of per_unit and flat, and not both");
            None
        }
    };
    Some(Band { window: window?, price: price? })
}

fn read_cap(table: Table<'_>) -> Option<Cap> {
    table.knows("days, from, to, every_hours, amount");
    let amount: Option<Amount> = table.needs("amount", table.amount("amount"));
    let span = match (table.has("every_hours"), ["days", "from", "to"].iter().any(|key| table.has(key))) {
        (true, false) => table.count("every_hours", 1..=HOURS_MAX).map(Span::Hours),
        (false, true) => table.window().map(Span::TimeWindow),
        _ => {
            table.note(table.line, "a cap needs either days, from and to, or every_hours, not both");
            None
        }
    };
    Some(Cap { span: span?, amount: amount? })
}

fn read_first(table: Table<'_>) -> Option<First> {
    table.knows("units, per_unit");
    let units = table.needs("units", table.count("units", 1..=MINUTES_MAX));
    let per_unit = table.needs("per_unit", table.amount("per_unit"));
    Some(First { units: units?, per_unit: per_unit? })
}
