//! Random tariffs and stays against an oracle that prices in one way only: unit by unit, date by date.

use super::*;
use crate::parking::tariff::{Amount, time_zone};
use jiff::ToSpan;
use jiff::civil::{Date, DateTime, date};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use std::collections::HashMap;

/// Texts of `days`, and the days that they mean; 0 is Monday, 7 a holiday.
const DAYS: [(&str, &[usize]); 9] = [
    ("all", &[0, 1, 2, 3, 4, 5, 6, 7]),
    ("mon-fri", &[0, 1, 2, 3, 4]),
    ("mon-sat", &[0, 1, 2, 3, 4, 5]),
    ("sat", &[5]),
    ("sun", &[6]),
    ("sun,holiday", &[6, 7]),
    ("holiday", &[7]),
    ("fri-mon", &[4, 5, 6, 0]),
    ("tue,thu", &[1, 3]),
];
const ZONES: [&str; 6] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "America/Havana",
    "Asia/Kathmandu",
];
/// Changes of the clocks somewhere, and days around holidays.
const DAYS_OF_NOTE: [Date; 8] = [
    date(2026, 3, 8),
    date(2026, 3, 29),
    date(2026, 4, 4),
    date(2026, 9, 6),
    date(2026, 10, 25),
    date(2026, 11, 1),
    date(2026, 5, 1),
    date(2024, 2, 29),
];

#[derive(Debug, Clone)]
struct RandomWindow {
    days: usize,
    from: u32,
    to: u32,
}

#[derive(Debug, Clone)]
struct TariffPlan {
    zone: usize,
    holidays: Vec<Date>,
    /// The first and the last day of the calendar.
    complete: (Date, Date),
    grace: u32,
    unit: u32,
    first: Vec<(u32, i64)>,
    /// A window, its price, and whether it is flat.
    bands: Vec<(RandomWindow, i64, bool)>,
    caps: Vec<(RandomWindow, i64)>,
    hours: Option<(u32, i64)>,
    daily: Option<i64>,
    stay: Option<i64>,
}

fn window() -> impl Strategy<Value = RandomWindow> {
    let time = prop_oneof![(0..24u32).prop_map(|hour| 60 * hour), 0..1440u32];
    (0..DAYS.len(), time.clone(), time).prop_map(|(days, from, to)| RandomWindow { days, from, to })
}

fn plan() -> impl Strategy<Value = TariffPlan> {
    let holiday = (0..DAYS_OF_NOTE.len(), -1..3i64)
        .prop_map(|(day, after)| DAYS_OF_NOTE[day].checked_add(after.days()).unwrap());
    let unit = prop_oneof![Just(15u32), Just(20), Just(60), Just(1440), 1..300u32];
    let some = |most: i64| proptest::option::of(0..most);
    (
        (
            0..ZONES.len(),
            proptest::collection::btree_set(holiday, 0..4),
            prop_oneof![Just(0u32), 0..90u32],
            unit,
        ),
        proptest::collection::vec((1..5u32, 0..500i64), 0..3),
        proptest::collection::vec((window(), 0..500i64, any::<bool>()), 0..4),
        proptest::collection::vec((window(), 0..3000i64), 0..4),
        (proptest::option::of((1..50u32, 0..4000i64)), some(4000), some(9000)),
    )
        .prop_map(|((zone, holidays, grace, unit), first, mut bands, caps, (hours, daily, stay))| {
            bands.push((RandomWindow { days: 0, from: 0, to: 1440 }, 120, false));
            TariffPlan {
                zone,
                holidays: holidays.into_iter().collect(),
                complete: (date(2000, 1, 1), date(2100, 12, 31)),
                grace,
                unit,
                first,
                bands,
                caps,
                hours,
                daily,
                stay,
            }
        })
}

/// An entry near a day of note, and how long the stay lasts, in milliseconds.
fn stay() -> impl Strategy<Value = (Timestamp, i64)> {
    let lasts =
        prop_oneof![0..7_200_000i64, 0..3 * 86_400_000i64, (0..72i64).prop_map(|hours| hours * 3_600_000)];
    let start = prop_oneof![-200_000_000..200_000_000i64, (-48..48i64).prop_map(|hours| hours * 3_600_000)];
    (0..DAYS_OF_NOTE.len(), start, lasts).prop_map(|(day, start, lasts)| {
        let noon = DAYS_OF_NOTE[day].at(12, 0, 0, 0);
        let noon = TimeZone::UTC.to_timestamp(noon).unwrap().as_millisecond();
        (Timestamp::from_millisecond(noon + start).unwrap(), lasts)
    })
}

impl RandomWindow {
    fn text(&self) -> String {
        let time = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        format!(
            "days = \"{}\", from = \"{}\", to = \"{}\"",
            DAYS[self.days].0,
            time(self.from),
            time(self.to)
        )
    }
}

impl TariffPlan {
    fn text(&self) -> String {
        let holidays: Vec<_> = self.holidays.iter().map(Date::to_string).collect();
        let first: Vec<_> = self
            .first
            .iter()
            .map(|(units, price)| format!("{{ units = {units}, per_unit = {price} }}"))
            .collect();
        let band = |(window, price, flat): &(RandomWindow, i64, bool)| {
            format!("{{ {}, {} = {price} }}", window.text(), if *flat { "flat" } else { "per_unit" })
        };
        let caps =
            self.caps.iter().map(|(window, amount)| format!("{{ {}, amount = {amount} }}", window.text()));
        let hours =
            self.hours.map(|(hours, amount)| format!("{{ every_hours = {hours}, amount = {amount} }}"));
        let caps: Vec<_> = caps.chain(hours).collect();
        let cap = |key: &str, amount: Option<i64>| {
            amount.map(|amount| format!("{key} = {amount}\n")).unwrap_or_default()
        };
        format!(
            "[[calendar]]\nname = \"c\"\nholidays = [{}]\ncomplete_from = {}\ncomplete_through = {}\n[[tariff]]\nname = \"t\"\ngarages = [\"1\"]\ncurrency = \"EUR\"\ntime_zone = \"{}\"\n\
             valid_from = 2020-01-01\ncalendar = \"c\"\nvat_percent = 19\ngrace_minutes = {}\nunit_minutes = {}\nfirst = [{}]\nbands = [{}]\ncaps = [{}]\n{}{}",
            holidays.join(", "),
            self.complete.0,
            self.complete.1,
            ZONES[self.zone],
            self.grace,
            self.unit,
            first.join(", "),
            self.bands.iter().map(band).collect::<Vec<_>>().join(", "),
            caps.join(", "),
            cap("daily_cap", self.daily),
            cap("stay_cap", self.stay),
        )
    }

    fn day(&self, of: Date) -> usize {
        let windows =
            self.bands.iter().map(|(window, ..)| window).chain(self.caps.iter().map(|(window, _)| window));
        let named = windows.into_iter().any(|window| DAYS[window.days].0.contains("holiday"));
        match self.holidays.contains(&of) {
            true if named => 7,
            true => 6,
            false => of.weekday().to_monday_zero_offset() as usize,
        }
    }

    /// The date of the occurrence of a window that holds a local time.
    fn occurrence(&self, window: &RandomWindow, local: DateTime) -> Option<Date> {
        [local.date().yesterday().unwrap(), local.date()].into_iter().find(|began| {
            let midnight = began.at(0, 0, 0, 0);
            let from = midnight + i64::from(window.from).minutes();
            let to = if window.to > window.from { window.to } else { window.to + 1440 };
            let to = midnight + i64::from(to).minutes();
            DAYS[window.days].1.contains(&self.day(*began)) && from <= local && local < to
        })
    }

    /// Which caps a unit counts under, each with its occurrence and its amount. `nth` is the unit's start in minutes from the entry.
    fn caps_of(&self, local: DateTime, minutes: i64) -> Vec<((usize, String), i64)> {
        let mut caps = Vec::new();
        for (place, (window, amount)) in self.caps.iter().enumerate() {
            caps.extend(self.occurrence(window, local).map(|began| ((place, began.to_string()), *amount)));
        }
        caps.extend(
            self.hours.map(|(hours, amount)| ((90, (minutes / (60 * i64::from(hours))).to_string()), amount)),
        );
        caps.extend(self.daily.map(|amount| ((91, local.date().to_string()), amount)));
        caps.extend(self.stay.map(|amount| ((92, String::new()), amount)));
        caps
    }

    /// The first day that a unit needs and the calendar does not cover.
    fn uncovered(&self, entry: Timestamp, lasted_ms: i64) -> Option<Date> {
        let zone = time_zone(ZONES[self.zone]).unwrap();
        let windows =
            self.bands.iter().map(|(window, ..)| window).chain(self.caps.iter().map(|(window, _)| window));
        let by_days: Vec<_> = windows.filter(|window| DAYS[window.days].0 != "all").collect();
        if by_days.is_empty() || lasted_ms <= i64::from(self.grace) * 60_000 {
            return None;
        }
        let minutes =
            (0..).map(|k| k * i64::from(self.unit)).take_while(|minutes| minutes * 60_000 < lasted_ms);
        let days = minutes.flat_map(|minutes| {
            let local = zone.to_datetime(entry + minutes.minutes());
            let minute = i64::from(local.hour()) * 60 + i64::from(local.minute());
            let runs_on = |window: &&RandomWindow| window.to <= window.from && minute < i64::from(window.to);
            let before = by_days.iter().any(runs_on).then(|| local.date().yesterday().unwrap());
            before.into_iter().chain([local.date()])
        });
        let (from, through) = self.complete;
        days.into_iter().find(|day| *day < from || *day > through)
    }

    /// The price of each unit.
    fn prices(&self, entry: Timestamp, lasted_ms: i64) -> Vec<i64> {
        let zone = time_zone(ZONES[self.zone]).unwrap();
        let mut spent: HashMap<(usize, String), i64> = HashMap::new();
        let mut paid = std::collections::HashSet::new();
        let mut prices = Vec::new();
        if lasted_ms <= i64::from(self.grace) * 60_000 {
            return prices;
        }
        let firsts: Vec<i64> = self
            .first
            .iter()
            .flat_map(|(units, price)| std::iter::repeat_n(*price, *units as usize))
            .collect();
        for k in 0.. {
            let minutes = k as i64 * i64::from(self.unit);
            if minutes * 60_000 >= lasted_ms {
                break;
            }
            let local = zone.to_datetime(entry + minutes.minutes());
            let mut price = firsts.get(k).copied();
            if price.is_none() {
                let mut bands = self.bands.iter().enumerate();
                price = bands.find_map(|(place, (window, price, flat))| {
                    let began = self.occurrence(window, local)?;
                    Some(if *flat && !paid.insert((place, began)) { 0 } else { *price })
                });
            }
            let caps = self.caps_of(local, minutes);
            let left = caps
                .iter()
                .map(|(cap, amount)| amount - spent.get(cap).unwrap_or(&0))
                .min()
                .unwrap_or(i64::MAX);
            let price = price.unwrap().min(left);
            for (cap, _) in caps {
                *spent.entry(cap).or_default() += price;
            }
            prices.push(price);
        }
        prices
    }
}

/// The price of each unit according to the breakdown.
fn told(priced: &Priced<'_>) -> Vec<i64> {
    let breakdown = priced.breakdown();
    breakdown
        .iter()
        .flat_map(|line| std::iter::repeat_n(line.each.unwrap().minor(), line.units as usize))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// The pass in spans gives what one unit after the other gives, and no cap is exceeded.
    #[test]
    fn units_cost_what_the_rules_say_and_no_cap_is_exceeded(plan in plan(), (entry, lasts) in stay()) {
        let set = TariffSet::parse(&plan.text()).unwrap();
        let tariff = set.for_stay("1", entry).unwrap();
        let exit = Timestamp::from_millisecond(entry.as_millisecond() + lasts).unwrap();
        let priced = tariff.price(entry, exit).unwrap();
        prop_assert_eq!(tariff.amount(entry, exit).unwrap(), priced.amount);
        if priced.breakdown().iter().any(|line| line.each.is_none()) {
            return Ok(()); // too many lines to tell units apart
        }
        let told = told(&priced);
        prop_assert_eq!(&told, &plan.prices(entry, lasts));
        prop_assert_eq!(told.iter().sum::<i64>(), priced.amount.minor());

        let zone = time_zone(ZONES[plan.zone]).unwrap();
        let mut taken: HashMap<(usize, String), i64> = HashMap::new();
        for (k, price) in told.iter().enumerate() {
            let minutes = k as i64 * i64::from(plan.unit);
            for (cap, amount) in plan.caps_of(zone.to_datetime(entry + minutes.minutes()), minutes) {
                let taken = taken.entry(cap).or_default();
                *taken += price;
                prop_assert!(*taken <= amount);
            }
        }
    }

    /// A day that is not covered is never taken for a weekday, and one that is not needed keeps no stay from its price.
    #[test]
    fn a_stay_waits_just_when_a_unit_needs_a_day_outside_of_the_calendar(
        (mut plan, (entry, lasts)) in (plan(), stay()),
        first in -3..4i64,
        days in 0..5i64,
    ) {
        let near = time_zone(ZONES[plan.zone]).unwrap().to_datetime(entry).date();
        let from = near.checked_add(first.days()).unwrap();
        plan.complete = (from, from.checked_add(days.days()).unwrap());
        let (from, through) = plan.complete;
        plan.holidays.retain(|day| (from..=through).contains(day));
        let set = TariffSet::parse(&plan.text()).unwrap();
        let exit = Timestamp::from_millisecond(entry.as_millisecond() + lasts).unwrap();
        match (set.tariffs()[0].price(entry, exit), plan.uncovered(entry, lasts)) {
            (Ok(priced), None) => prop_assert_eq!(priced.amount.minor(), plan.prices(entry, lasts).iter().sum::<i64>()),
            (Err(waits), Some(day)) => prop_assert_eq!((&*waits.calendar, waits.day), ("c", day)),
            (priced, day) => prop_assert!(false, "{:?}, {:?}", priced.map(|priced| priced.amount), day),
        }
    }

    #[test]
    fn a_longer_stay_never_costs_less(plan in plan(), (entry, lasts) in stay(), more in 0..200_000_000i64) {
        let set = TariffSet::parse(&plan.text()).unwrap();
        let after = |ms: i64| {
            let exit = Timestamp::from_millisecond(entry.as_millisecond() + ms).unwrap();
            set.tariffs()[0].price(entry, exit).unwrap().amount
        };
        prop_assert!(after(lasts) <= after(lasts + more));
        prop_assert!(after(lasts) >= Amount::ZERO);
    }

    #[test]
    fn parsing_a_tariff_and_printing_it_again_is_stable(plan in plan(), name in "[\\p{L}\\p{N}\\p{P} ]{1,9}", vat in 0..=10_000u16) {
        let text = plan.text().replace("vat_percent = 19", &format!("vat_percent = {}.{:02}", vat / 100, vat % 100));
        let name = toml::Value::String(format!("x{name}x")).to_string();
        let text = text.replace("name = \"t\"", &format!("name = {name}"));
        let set = TariffSet::parse(&text).map_err(|errors| TestCaseError::fail(format!("{errors:?}")))?;
        let printed = set.to_toml();
        let again = TariffSet::parse(&printed).unwrap();
        prop_assert_eq!(&again, &set);
        prop_assert_eq!(again.to_toml(), printed);
    }

    /// Nothing that stands in a file makes the reader panic.
    #[test]
    fn nonsense_is_refused_and_nothing_worse(plan in plan(), at in any::<prop::sample::Index>(), put in "\\PC{0,3}", cut in 0..40usize) {
        let text: Vec<char> = plan.text().chars().collect();
        let at = at.index(text.len());
        let rest = text[(at + cut).min(text.len())..].iter();
        let text: String = text[..at].iter().copied().chain(put.chars()).chain(rest.copied()).collect();
        if let Ok(set) = TariffSet::parse(&text) {
            prop_assert_eq!(TariffSet::parse(&set.to_toml()), Ok(set));
        }
    }
}

proptest! {
    /// A set is refused just when somebody who looks at each garage on each date finds two tariffs, and else finds the one that
    /// a stay pays by.
    #[test]
    fn a_garage_has_one_tariff_on_every_date_or_the_set_is_refused(
        versions in proptest::collection::btree_map((0..3usize, 1..7i8), proptest::collection::btree_set(1..4u8, 1..3), 1..6),
    ) {
        let one = |((name, day), garages): (&(usize, i8), &std::collections::BTreeSet<u8>)| {
            let garages: Vec<_> = garages.iter().map(|garage| format!("\"{garage}\"")).collect();
            format!(
                "[[tariff]]\nname = \"t{name}\"\ngarages = [{}]\ncurrency = \"EUR\"\ntime_zone = \"Europe/Berlin\"\n\
                 valid_from = 2026-01-0{day}\nvat_percent = 19\nunit_minutes = 60\n\
                 bands = [{{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 1 }}]\n",
                garages.join(", ")
            )
        };
        let text: String = versions.iter().map(one).collect();
        let found = |garage: u8, on: i8| -> Vec<(usize, i8)> {
            let latest = (0..3usize).filter_map(|name| {
                versions.iter().rfind(|((of, from), _)| *of == name && *from <= on)
            });
            latest.filter(|(_, garages)| garages.contains(&garage)).map(|(version, _)| *version).collect()
        };
        let places = (1..4u8).flat_map(|garage| (0..9i8).map(move |on| (garage, on)));
        let twice = places.clone().any(|(garage, on)| found(garage, on).len() > 1);
        match TariffSet::parse(&text) {
            Err(errors) => prop_assert!(twice, "{errors:?}"),
            Ok(set) => {
                prop_assert!(!twice);
                for (garage, on) in places {
                    let entry = date(2026, 1, 1).at(23, 30, 0, 0) + i64::from(on - 1).days();
                    let entry = time_zone("Europe/Berlin").unwrap().to_timestamp(entry).unwrap();
                    let tariff = set.for_stay(&garage.to_string(), entry);
                    let tariff = tariff.map(|tariff| (tariff.name.clone(), tariff.valid_from));
                    let expected = found(garage, on).pop().map(|(name, day)| (format!("t{name}"), date(2026, 1, day)));
                    prop_assert_eq!(tariff, expected);
                }
            }
        }
    }
}
