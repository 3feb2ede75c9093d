//! `server tariffs …`: shows the tariffs of a configuration, and what a stay costs by them. It needs no server and no data
//! directory.

use crate::cli::{OutputFlags, print, table};
use crate::codes;
use crate::daemon::admin::NotDone;
use crate::daemon::clock;
use crate::parking::tariff::{CalendarEnd, Priced, Tariff, TariffSet, Vat};
use jiff::Timestamp;
use std::path::Path;

/// Says what the tariffs of `file` are; they are valid, or there would be no set.
pub fn tell(set: &TariffSet, file: &Path) {
    let count = |n: usize, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
    let (tariffs, calendars) = (set.tariffs(), set.calendars().count());
    let mut text = format!(
        "{} is valid: {}, {}\n",
        file.display(),
        count(tariffs.len(), "tariff"),
        count(calendars, "calendar")
    );
    if !tariffs.is_empty() {
        text += &table(["TARIFF", "FROM", "CURRENCY", "TIME ZONE", "GARAGES"], tariffs.iter().map(row));
    }
    for calendar in set.calendars() {
        let (name, from, through) = (calendar.name(), calendar.complete_from(), calendar.complete_through());
        let holidays = count(calendar.holidays().count(), "holiday");
        text +=
            &format!("The calendar {name:?} has {holidays} and is complete from {from} through {through}\n");
    }
    for end in set.calendar_ends(clock::now()).into_iter().filter(CalendarEnd::is_soon) {
        text += &format!("note: {end}. Add the holidays of the following years, and set complete_through\n");
    }
    for tariff in tariffs.iter().filter(|tariff| tariff.misses_a_calendar()) {
        let (name, from) = (&tariff.name, tariff.valid_from);
        text.push_str(&format!(
            "note: the tariff {name:?} of {from} uses holiday but has no calendar, so no day is a holiday\n"
        ));
    }
    print(&text);
}

fn row(tariff: &Tariff) -> [String; 5] {
    let zone = tariff.time_zone.iana_name().unwrap_or_default().to_owned();
    let from = tariff.valid_from.to_string();
    let garages = tariff.garages.join(", ");
    [tariff.name.clone(), from, tariff.currency.to_string(), zone, garages]
}

pub fn price(
    set: &TariffSet,
    garage: &str,
    entry: Timestamp,
    exit: Timestamp,
    output: OutputFlags,
) -> Result<(), NotDone> {
    let tariff = set.for_stay(garage, entry).ok_or_else(|| {
        let reason = format!("the garage {garage:?} has no tariff for a stay that begins at {entry}");
        NotDone::Failed(codes::NO_TARIFF, reason)
    })?;
    let priced = tariff
        .price(entry, exit)
        .map_err(|incomplete| NotDone::Failed(codes::CALENDAR_INCOMPLETE, incomplete.to_string()))?;
    let mut shown = priced.to_json();
    shown["garage"] = garage.into();
    (shown["entry"], shown["exit"]) = (priced.local(entry).into(), priced.local(exit).into());
    output.print(&shown, |_| told(&priced));
    Ok(())
}

fn told(priced: &Priced<'_>) -> String {
    let tariff = priced.tariff;
    let vat = match (&tariff.vat, priced.vat) {
        (Vat::Exempt { reason }, _) => format!(", no VAT: {reason}"),
        (_, vat) => vat.map_or_else(String::new, |vat| format!(", {vat} % VAT included")),
    };
    let mut text =
        format!("{} by the tariff {:?} of {}{vat}\n", priced.money(), tariff.name, tariff.valid_from);
    if let Some(why) = priced.free_because() {
        return text + &format!("{why}\n");
    }
    let show = |amount| tariff.currency.show(amount);
    let lines = priced.breakdown().into_iter().map(|line| {
        let units = match line.units {
            1 => line.unit.to_string(),
            more => format!("{}-{}", line.unit, line.unit + more - 1),
        };
        [
            units,
            line.from.to_string(),
            line.each.map_or_else(String::new, show),
            show(line.total),
            line.reason,
        ]
    });
    text += &table(["UNIT", "FROM", "EACH", "TOTAL", "REASON"], lines);
    text.push_str(&format!("{} in all\n", priced.money()));
    text
}
