//! Writes tariffs as their canonical text.

use super::{Band, BandPrice, Cap, First, Span, Tariff, TariffSet, TimeWindow, Vat};
use std::fmt::Display;

impl TariffSet {
    /// The canonical text: equal sets have the same, and [`TariffSet::parse`] gives the set again.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for calendar in self.calendars() {
            let holidays: Vec<String> = calendar.holidays.iter().map(ToString::to_string).collect();
            let (name, holidays) = (quoted(&calendar.name), holidays.join(", "));
            let (from, through) = (calendar.complete_from(), calendar.complete_through());
            text += &format!("[[calendar]]\nname = {name}\nholidays = [{holidays}]\n");
            text += &format!("complete_from = {from}\ncomplete_through = {through}\n\n");
        }
        self.tariffs().iter().for_each(|tariff| print_tariff(&mut text, tariff));
        text
    }
}

fn print_tariff(text: &mut String, tariff: &Tariff) {
    let mut line = |key: &str, value: &dyn Display| *text += &format!("{key} = {value}\n");
    let garages: Vec<String> = tariff.garages.iter().map(|garage| quoted(garage)).collect();
    line("[[tariff]]\nname", &quoted(&tariff.name));
    line("garages", &format_args!("[{}]", garages.join(", ")));
    line("currency", &quoted(tariff.currency.code()));
    line("time_zone", &quoted(tariff.time_zone.iana_name().unwrap_or_default()));
    line("valid_from", &tariff.valid_from);
    if let Some(calendar) = &tariff.calendar {
        line("calendar", &quoted(&calendar.name));
    }
    let (key, value) = vat(&tariff.vat);
    line(key, &value);
    if tariff.grace_minutes > 0 {
        line("grace_minutes", &tariff.grace_minutes);
    }
    line("unit_minutes", &tariff.unit_minutes);
    for (key, rules) in [
        ("first", tariff.first.iter().map(first).collect::<Vec<_>>()),
        ("bands", tariff.bands.iter().map(band).collect()),
        ("caps", tariff.caps.iter().map(cap).collect()),
    ] {
        if !rules.is_empty() {
            line(key, &format_args!("[\n    {{ {} }},\n]", rules.join(" },\n    { ")));
        }
    }
    if let Some(amount) = tariff.daily_cap {
        line("daily_cap", &amount.minor());
    }
    if let Some(amount) = tariff.stay_cap {
        line("stay_cap", &amount.minor());
    }
    text.push('\n');
}

fn vat(vat: &Vat) -> (&'static str, String) {
    match vat {
        Vat::Rates { first, changes } if changes.is_empty() => ("vat_percent", first.to_string()),
        Vat::Rates { first, changes } => {
            let changes =
                changes.iter().map(|(from, rate)| format!(", {{ from = {from}, percent = {rate} }}"));
            ("vat", format!("[{{ percent = {first} }}{}]", changes.collect::<String>()))
        }
        Vat::Exempt { reason } => ("vat_reason", quoted(reason)),
    }
}

fn first(first: &First) -> String {
    format!("units = {}, per_unit = {}", first.units, first.per_unit.minor())
}

fn band(band: &Band) -> String {
    match band.price {
        BandPrice::PerUnit(amount) => format!("{}, per_unit = {}", window(band.window), amount.minor()),
        BandPrice::Flat(amount) => format!("{}, flat = {}", window(band.window), amount.minor()),
    }
}

fn cap(cap: &Cap) -> String {
    let span = match cap.span {
        Span::TimeWindow(of) => window(of),
        Span::Hours(hours) => format!("every_hours = {hours}"),
        Span::Stay => unreachable!("the cap of the stay is no rule of the list"),
    };
    format!("{span}, amount = {}", cap.amount.minor())
}

fn window(TimeWindow { days, from, to }: TimeWindow) -> String {
    format!("days = \"{days}\", from = \"{from}\", to = \"{to}\"")
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
