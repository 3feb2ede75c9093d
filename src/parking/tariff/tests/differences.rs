//! What other tariffs could change, and what only adds.

use super::*;
use jiff::civil::{Date, date};
use jiff::{SignedDuration, ToSpan};
use proptest::prelude::*;

const THROUGH: Date = date(2026, 11, 27);

const CALENDAR: &str =
    "[[calendar]]\nname = \"bw\"\nholidays = [2025-01-01, 2026-01-01, 2026-05-01, 2026-12-25]\n";
const CENTRE: &str = "[[tariff]]\nname = \"centre\"\ngarages = [\"1\", \"2\"]\ncurrency = \"EUR\"\ntime_zone = \"Europe/Berlin\"\n\
    valid_from = 2026-01-01\ncalendar = \"bw\"\nvat_percent = 19\nunit_minutes = 60\n\
    bands = [{ days = \"mon-sat\", from = \"00:00\", to = \"24:00\", per_unit = 200 }, { days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 100 }]\n\
    daily_cap = 900\n";
const ELSE: &str = "[[tariff]]\nname = \"else\"\ngarages = [\"*\"]\ncurrency = \"EUR\"\ntime_zone = \"Europe/Berlin\"\n\
    valid_from = 2026-06-01\nvat_percent = 19\nunit_minutes = 60\n\
    bands = [{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 100 }]\n";

fn set(texts: &[&str]) -> TariffSet {
    let text = texts.concat();
    TariffSet::parse(&text).unwrap_or_else(|errors| panic!("{text}\n{errors:?}"))
}

fn base() -> TariffSet {
    set(&[CALENDAR, CENTRE, ELSE])
}

/// What differs when `what` becomes `other`.
fn edited(what: &str, other: &str) -> Vec<String> {
    let text = [CALENDAR, CENTRE, ELSE].concat();
    assert!(text.contains(what), "{what}");
    base().differences(&set(&[&text.replacen(what, other, 1)]), THROUGH)
}

#[test]
fn an_edited_version_is_named_with_its_keys() {
    for (what, other, expected) in [
        ("per_unit = 200", "per_unit = 210", "the tariff \"centre\" of 2026-01-01 would have other bands"),
        (
            "daily_cap = 900",
            "stay_cap = 900",
            "the tariff \"centre\" of 2026-01-01 would have other daily_cap, stay_cap",
        ),
        ("EUR", "CHF", "the tariff \"centre\" of 2026-01-01 would have other currency"),
        (
            "vat_percent = 19",
            "vat_percent = 7",
            "the tariff \"centre\" of 2026-01-01 would have 7 % VAT instead of 19 % VAT on 2026-01-01",
        ),
        (
            "vat_percent = 19",
            "vat = [{ percent = 19 }, { from = 2026-11-27, percent = 7 }]",
            "the tariff \"centre\" of 2026-01-01 would have 7 % VAT instead of 19 % VAT on 2026-11-27",
        ),
        (
            "vat_percent = 19",
            "vat_reason = \"small\"",
            "the tariff \"centre\" of 2026-01-01 would have no VAT instead of 19 % VAT on 2026-01-01",
        ),
        (
            "calendar = \"bw\"\n",
            "",
            "the tariff \"centre\" of 2026-01-01 would have no calendar; it was \"bw\"",
        ),
        ("2026-05-01, ", "", "the calendar \"bw\" would remove the holidays 2026-05-01"),
        (
            "2026-05-01",
            "2026-05-02",
            "the calendar \"bw\" would add the holidays 2026-05-02 and remove the holidays 2026-05-01",
        ),
        (
            "2025-01-01, 2026-01-01, 2026-05-01, 2026-12-25]",
            "2026-01-01, 2026-05-01]\ncomplete_from = 2026-01-01\ncomplete_through = 2026-11-26",
            "the calendar \"bw\" would be complete only from 2026-01-01 through 2026-11-26",
        ),
        (
            "valid_from = 2026-01-01",
            "valid_from = 2026-02-01",
            "stays from 2026-01-01 on in the garage \"1\", the garage \"2\" would have no tariff; they cost by the tariff \"centre\" of 2026-01-01",
        ),
    ] {
        assert_eq!(edited(what, other), [expected], "{other}");
    }
}

#[test]
fn a_version_dated_in_the_past_is_named_with_its_garages_and_date() {
    let later = CENTRE.replace("2026-01-01", "2026-11-27").replace("= 200", "= 300");
    assert_eq!(
        base().differences(&set(&[CALENDAR, CENTRE, &later, ELSE]), THROUGH),
        [
            "stays from 2026-11-27 on in the garage \"1\", the garage \"2\" would cost by the tariff \"centre\" of 2026-11-27, \
             not by the tariff \"centre\" of 2026-01-01, with other bands"
        ]
    );
    let own = ELSE.replace("\"else\"", "\"three\"").replace("\"*\"", "\"3\"").replace("= 100", "= 300");
    assert_eq!(
        base().differences(&set(&[CALENDAR, CENTRE, &own, ELSE]), THROUGH),
        ["stays from 2026-06-01 on in the garage \"3\" would cost by the tariff \"three\" of 2026-06-01, \
             not by the tariff \"else\" of 2026-06-01, with other bands"]
    );
    assert_eq!(
        base().differences(&set(&[CALENDAR, CENTRE]), THROUGH),
        [
            "stays from 2026-06-01 on in every garage that no tariff names would have no tariff; they cost by the tariff \"else\" of 2026-06-01"
        ]
    );
}

#[test]
fn what_only_adds_is_no_difference() {
    let later = CENTRE.replace("2026-01-01", "2026-11-28").replace("= 200", "= 300");
    let same_again = CENTRE.replace("2026-01-01", "2026-03-01");
    let earlier = ELSE.replace("\"else\"", "\"early\"").replace("2026-06-01", "2025-01-01");
    let replaced =
        ELSE.replace("2026-06-01", "2026-11-28").replace("\"else\"", "\"early\"").replace("= 100", "= 300");
    for added in [
        [CALENDAR, CENTRE, &later, ELSE],
        [CALENDAR, CENTRE, &same_again, ELSE],
        // The fallback of before has no stays that had a price: those of "else" keep theirs.
        [CALENDAR, CENTRE, &earlier.replace("\"*\"", "\"3\"").replace("2025-01-01", "2026-11-28"), ELSE],
    ] {
        assert_eq!(base().differences(&set(&added), THROUGH), [""; 0], "{}", added[2]);
    }
    // A tariff for stays that had none, which the known one replaces from its own date on.
    let both = [CALENDAR, CENTRE, &earlier.replace("\"early\"", "\"else\""), ELSE];
    assert_eq!(base().differences(&set(&both), THROUGH), [""; 0]);
    assert_eq!(set(&[]).differences(&base(), THROUGH), [""; 0]);
    // Renamed at once, and dearer from a later date on.
    let renamed = [CALENDAR, CENTRE, &ELSE.replace("\"else\"", "\"early\""), &replaced];
    assert_eq!(base().differences(&set(&renamed), THROUGH), [""; 0]);
    for (what, other) in [
        // A longer calendar, at both ends, and a holiday that is decreed for a day to come.
        ("2026-12-25]", "2026-12-25, 2026-11-28, 2027-01-01]"),
        ("[2025-01-01", "[2024-05-01, 2025-01-01"),
        ("2026-12-25]", "2026-12-26]"),
        ("vat_percent = 19", "vat = [{ percent = 19 }, { from = 2026-11-28, percent = 7 }]"),
        ("vat_percent = 19", "vat = [{ from = 2007-01-01, percent = 19 }]"),
        ("Europe/Berlin", "europe/berlin"),
    ] {
        assert_eq!(edited(what, other), [""; 0], "{other}");
    }
}

/// A set from small numbers, so that two of them often agree in part.
#[derive(Debug, Clone, PartialEq)]
struct SmallSet {
    /// Name, day of January 2026, garage (0 for all others), price, day of a new VAT rate, whether it uses the calendar.
    versions: Vec<(u8, i8, u8, u8, i8, bool)>,
    holidays: Vec<i8>,
    complete: (i8, i8),
}

fn january(day: i8) -> Date {
    date(2026, 1, 1).checked_add(i64::from(day - 1).days()).unwrap()
}

fn version() -> impl Strategy<Value = (u8, i8, u8, u8, i8, bool)> {
    (0..2u8, 1..14i8, 0..3u8, 1..3u8, prop_oneof![Just(60i8), 1..14i8], any::<bool>())
}

fn small_set() -> impl Strategy<Value = SmallSet> {
    let holidays = proptest::collection::btree_set(1..14i8, 0..4);
    (proptest::collection::vec(version(), 1..5), holidays, -1..4i8, 8..20i8).prop_map(
        |(versions, holidays, from, through)| SmallSet {
            versions,
            holidays: holidays.into_iter().collect(),
            complete: (from, through),
        },
    )
}

impl SmallSet {
    /// `None`: it is no valid set.
    fn read(&self) -> Option<TariffSet> {
        let (from, through) = (january(self.complete.0), january(self.complete.1));
        let holidays = self.holidays.iter().map(|day| january(*day));
        let holidays: Vec<_> =
            holidays.filter(|day| (from..=through).contains(day)).map(|day| day.to_string()).collect();
        let mut text = format!(
            "[[calendar]]\nname = \"c\"\ncomplete_from = {from}\ncomplete_through = {through}\nholidays = [{}]\n",
            holidays.join(", ")
        );
        for (name, day, garage, price, vat, by_calendar) in &self.versions {
            let garage = if *garage == 0 { "*".to_owned() } else { garage.to_string() };
            let calendar = if *by_calendar { "calendar = \"c\"\n" } else { "" };
            text += &format!(
                "[[tariff]]\nname = \"t{name}\"\ngarages = [\"{garage}\"]\ncurrency = \"EUR\"\ntime_zone = \"Europe/Berlin\"\n\
                 valid_from = {}\n{calendar}vat = [{{ percent = 19 }}, {{ from = {}, percent = 16 }}]\nunit_minutes = 60\n\
                 bands = [{{ days = \"mon-sat\", from = \"07:00\", to = \"03:00\", per_unit = {price} }},\n\
                 {{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 5 }}]\n",
                january(*day),
                january(*vat)
            );
        }
        TariffSet::parse(&text).ok()
    }
}

/// One or two changes of a set.
fn changed() -> impl Strategy<Value = (SmallSet, SmallSet)> {
    let place = any::<prop::sample::Index>();
    let changes = proptest::collection::vec((0..7u8, place, version(), 1..16i8), 1..3);
    (small_set(), changes).prop_map(|(old, changes)| {
        let mut new = old.clone();
        for (kind, place, version, day) in changes {
            let place = place.index(new.versions.len().max(1));
            match (kind, new.versions.get_mut(place)) {
                (0, _) => new.versions.push(version),
                (1, Some(_)) => drop(new.versions.remove(place)),
                (2, Some(its)) => its.3 = version.3,
                (3, Some(its)) => its.4 = version.4,
                (4, _) if new.holidays.contains(&day) => new.holidays.retain(|its| *its != day),
                (4, _) => new.holidays.push(day),
                (5, _) => new.complete.1 = day + 4,
                (_, Some(its)) => its.5 = version.5,
                _ => {}
            }
        }
        (old, new)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_global_rejects: 20_000, ..ProptestConfig::default() })]

    /// The oracle prices stays by both sets.
    #[test]
    fn without_a_difference_no_price_changes((old, new) in changed(), through in 3..13i8) {
        let (Some(old), Some(new)) = (old.read(), new.read()) else { return Err(TestCaseError::reject("not valid")) };
        if !old.differences(&new, january(through)).is_empty() {
            return Ok(());
        }
        let zone = crate::parking::tariff::time_zone("Europe/Berlin").unwrap();
        for (start, lasts) in (0..14 * 24i64).step_by(5).flat_map(|hour| [1, 9, 50].map(|lasts| (hour, lasts))) {
            let entry = zone.to_timestamp(date(2026, 1, 1).at(0, 0, 0, 0)).unwrap() + SignedDuration::from_hours(start);
            let exit = entry + SignedDuration::from_hours(lasts);
            if zone.to_datetime(exit).date() > january(through) {
                continue;
            }
            for garage in ["1", "2", "3"] {
                let price = |set: &TariffSet| {
                    let priced = set.for_stay(garage, entry)?.price(entry, exit).ok()?;
                    Some((priced.amount, priced.tariff.currency, priced.vat))
                };
                if let Some(before) = price(&old) {
                    prop_assert_eq!(Some(before), price(&new), "{} {} {}", garage, entry, exit);
                }
            }
        }
    }

    #[test]
    fn a_set_does_not_differ_from_itself(old in small_set()) {
        if let Some(set) = old.read() {
            prop_assert_eq!(set.differences(&set, date(2026, 2, 1)), [""; 0]);
        }
    }
}
