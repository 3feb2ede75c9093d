mod bad;
mod dates;
mod decisions;
mod differences;
mod random;

use super::{Priced, Tariff, TariffSet};
use jiff::Timestamp;

/// A tariff in Berlin from 2020 on, with these lines behind what every tariff needs; without VAT unless they say otherwise.
fn with(rest: &str) -> TariffSet {
    let vat = if rest.contains("vat") { "" } else { "vat_reason = \"a test\"\n" };
    let text = format!(
        "[[calendar]]\nname = \"bw\"\nholidays = [2026-01-06, 2026-05-01]\ncomplete_from = 2020-01-01\n\
         complete_through = 2126-12-31\n\n[[tariff]]\nname = \"t\"\ngarages = [\"*\"]\n\
         currency = \"EUR\"\ntime_zone = \"Europe/Berlin\"\nvalid_from = 2020-01-01\n{vat}{rest}\n"
    );
    TariffSet::parse(&text).unwrap_or_else(|errors| panic!("{text}\n{errors:?}"))
}

fn only(set: &TariffSet) -> &Tariff {
    &set.tariffs()[0]
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn price<'t>(set: &'t TariffSet, entry: &str, exit: &str) -> Priced<'t> {
    only(set).price(at(entry), at(exit)).unwrap()
}

fn cents(set: &TariffSet, entry: &str, exit: &str) -> i64 {
    price(set, entry, exit).amount.minor()
}

/// What is wrong with `text`, a line each.
fn wrong(text: &str) -> Vec<String> {
    TariffSet::parse(text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}
