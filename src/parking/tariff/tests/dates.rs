//! What acts by date: VAT rates and calendars.

use super::*;
use crate::parking::tariff::{CalendarEnd, VatRate};
use jiff::civil::date;

const HOURLY: &str =
    "unit_minutes = 60\nbands = [{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 100 }]\n";
/// German rates: the lower one was for half a year.
const GERMAN: &str = "vat = [{ from = 2007-01-01, percent = 19 }, { from = 2020-07-01, percent = 16 }, { from = 2021-01-01, percent = 19 }]\n";

fn percent(rate: Option<VatRate>) -> Option<u16> {
    rate.map(|rate| rate.hundredths() / 100)
}

/// It was once the rate of the entry.
#[test]
fn the_vat_rate_is_that_of_the_local_date_of_the_exit() {
    let set = with(&format!("{GERMAN}{HOURLY}"));
    for (entry, exit, expected) in [
        ("2020-06-30T20:00:00+02:00", "2020-07-01T08:00:00+02:00", 16),
        ("2020-06-30T20:00:00+02:00", "2020-06-30T23:59:59.999+02:00", 19),
        ("2020-06-30T20:00:00+02:00", "2020-06-30T22:00:00Z", 16),
        ("2020-12-31T20:00:00+01:00", "2021-01-01T00:00:00+01:00", 19),
        ("2020-12-31T20:00:00+01:00", "2020-12-31T23:00:00+01:00", 16),
        // An exit that a clock puts before the entry.
        ("2020-07-01T00:01:00+02:00", "2020-06-30T23:59:00+02:00", 16),
    ] {
        let priced = price(&set, entry, exit);
        assert_eq!(percent(priced.vat), Some(expected), "{entry} to {exit}");
        assert_eq!(priced.to_json()["vat_percent"], expected);
    }
    assert_eq!(percent(only(&set).vat_at(at("2020-07-01T08:00:00+02:00"))), Some(16));
}

#[test]
fn a_tariff_without_vat_says_why() {
    let set = with(&format!("vat_reason = \"Article 284 of Directive 2006/112/EC\"\n{HOURLY}"));
    let priced = price(&set, "2026-03-02T08:00:00+01:00", "2026-03-02T09:00:00+01:00");
    assert_eq!((priced.vat, &priced.to_json()["vat_percent"]), (None, &serde_json::Value::Null));
    assert!(set.to_toml().contains("\nvat_reason = \"Article 284 of Directive 2006/112/EC\"\n"));
}

#[test]
fn rates_are_printed_from_the_first_day_of_the_tariff_on() {
    let printed = |vat: &str| {
        let set = with(&format!("{vat}\n{HOURLY}"));
        assert_eq!(TariffSet::parse(&set.to_toml()), Ok(set.clone()), "{vat}");
        set.to_toml().lines().find(|line| line.starts_with("vat")).unwrap().to_owned()
    };
    for (vat, expected) in [
        (
            GERMAN,
            "vat = [{ percent = 19 }, { from = 2020-07-01, percent = 16 }, { from = 2021-01-01, percent = 19 }]",
        ),
        (
            "vat = [{ percent = 19 }, { from = 2020-07-01, percent = 16 }]",
            "vat = [{ percent = 19 }, { from = 2020-07-01, percent = 16 }]",
        ),
        (
            "vat = [{ from = 2007-01-01, percent = 19 }, { from = 2020-01-01, percent = 8.1 }]",
            "vat_percent = 8.1",
        ),
        ("vat = [{ percent = 7 }]", "vat_percent = 7"),
        ("vat_percent = 19", "vat_percent = 19"),
    ] {
        assert_eq!(printed(vat), expected);
    }
}

/// Weekdays cost 200 an hour, Sundays and holidays 100; holidays are listed for 2026 alone.
fn weekdays(calendar: &str, rest: &str) -> TariffSet {
    let text = format!(
        "[[calendar]]\nname = \"bw\"\n{calendar}\n[[tariff]]\nname = \"t\"\ngarages = [\"*\"]\ncurrency = \"EUR\"\n\
         time_zone = \"Europe/Berlin\"\nvalid_from = 2020-01-01\ncalendar = \"bw\"\nvat_percent = 19\ngrace_minutes = 10\n\
         unit_minutes = 60\n{rest}"
    );
    TariffSet::parse(&text).unwrap_or_else(|errors| panic!("{text}\n{errors:?}"))
}

const BY_DAYS: &str = "bands = [{ days = \"mon-sat\", from = \"00:00\", to = \"24:00\", per_unit = 200 },\n\
                       { days = \"sun,holiday\", from = \"00:00\", to = \"24:00\", per_unit = 100 }]\n";
const OF_2026: &str = "holidays = [2026-05-01, 2026-01-01]";

/// 2027-01-01 was once priced as a weekday, without a word, because holidays were listed for 2026 only.
#[test]
fn a_stay_waits_when_a_unit_is_outside_of_the_calendar() {
    let set = weekdays(OF_2026, BY_DAYS);
    let stay = |entry: &str, exit: &str| {
        let priced = only(&set).price(at(entry), at(exit));
        priced.map(|priced| priced.amount.minor()).map_err(|waits| (waits.calendar.clone(), waits.day))
    };
    let waits = |day| Err(("bw".to_owned(), day));
    let new_year = "2026-12-31T23:00:00+01:00";
    assert_eq!(stay("2026-12-31T22:00:00+01:00", "2027-01-01T00:00:00+01:00"), Ok(400));
    assert_eq!(stay(new_year, "2027-01-01T00:00:00.001+01:00"), waits(date(2027, 1, 1)));
    assert_eq!(stay("2027-03-01T08:00:00+01:00", "2027-03-01T08:20:00+01:00"), waits(date(2027, 3, 1)));
    assert_eq!(stay("2025-12-31T23:00:00+01:00", "2026-01-01T01:00:00+01:00"), waits(date(2025, 12, 31)));
    assert_eq!(stay("2026-01-01T00:00:00+01:00", "2026-01-01T01:00:00+01:00"), Ok(100));
    // Without a unit nothing depends on the day.
    assert_eq!(stay("2027-03-01T08:00:00+01:00", "2027-03-01T08:10:00+01:00"), Ok(0));
    let said = only(&set).price(at(new_year), at("2027-01-02T00:00:00+01:00")).unwrap_err().to_string();
    assert!(said.contains("\"bw\"") && said.contains("2027-01-01") && said.contains("2026-12-31"), "{said}");
}

#[test]
fn a_calendar_covers_the_years_of_its_holidays_unless_it_says_otherwise() {
    let covers = |calendar: &str| {
        let set = weekdays(calendar, BY_DAYS);
        let calendar = set.calendars().next().unwrap();
        (calendar.complete_from().to_string(), calendar.complete_through().to_string())
    };
    let dates = |from: &str, through: &str| (from.to_owned(), through.to_owned());
    assert_eq!(covers(OF_2026), dates("2026-01-01", "2026-12-31"));
    assert_eq!(covers("holidays = [2028-05-01, 2026-05-01]"), dates("2026-01-01", "2028-12-31"));
    let stated = format!("{OF_2026}\ncomplete_from = 2025-07-01\ncomplete_through = 2026-06-30");
    assert_eq!(covers(&stated), dates("2025-07-01", "2026-06-30"));
    let empty = "holidays = []\ncomplete_from = 2026-01-01\ncomplete_through = 2026-12-31";
    assert_eq!(covers(empty), dates("2026-01-01", "2026-12-31"));
    let from_alone = format!("{OF_2026}\ncomplete_from = 2020-01-01");
    assert_eq!(covers(&from_alone), dates("2020-01-01", "2026-12-31"));
}

#[test]
fn a_tariff_that_does_not_go_by_days_needs_no_calendar() {
    let all = "bands = [{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 100 }]\n";
    for set in [weekdays(OF_2026, all), with(&format!("vat_percent = 19\n{HOURLY}"))] {
        assert_eq!(cents(&set, "2130-03-01T08:00:00+01:00", "2130-03-01T10:00:00+01:00"), 200);
        assert_eq!(set.calendar_ends(at("2126-12-31T00:00:00Z")), []);
    }
}

/// The night of 31 December belongs to that day: the first hours of the calendar's first day need the day before.
#[test]
fn a_window_over_midnight_needs_the_day_on_which_it_begins() {
    let nights = "bands = [{ days = \"mon-sat\", from = \"18:00\", to = \"06:00\", per_unit = 50 },\n\
                  { days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 100 }]\n";
    let set = weekdays(OF_2026, nights);
    let hour = |from: &str| {
        let entry = at(&format!("2026-01-01T{from}:00+01:00"));
        only(&set)
            .price(entry, entry + jiff::SignedDuration::from_hours(1))
            .map(|priced| priced.amount.minor())
    };
    assert_eq!(hour("05:00").unwrap_err().day, date(2025, 12, 31));
    assert_eq!(hour("06:00"), Ok(100));
    assert_eq!(hour("19:00"), Ok(100), "1 January is a holiday, and so a Sunday");
}

#[test]
fn people_are_warned_60_days_before_a_calendar_ends() {
    let set = weekdays(OF_2026, BY_DAYS);
    let ends = |now: &str| set.calendar_ends(at(now)).remove(0);
    for (now, days_left, is_soon) in [
        ("2026-10-31T22:59:59Z", 61, false),
        ("2026-10-31T23:00:00Z", 60, true),
        ("2026-12-31T22:59:59Z", 0, true),
        ("2026-12-31T23:00:00Z", -1, true),
    ] {
        let end = ends(now);
        assert_eq!((end.days_left, end.is_soon(), &*end.calendar), (days_left, is_soon, "bw"), "{now}");
        assert_eq!(end.complete_through, date(2026, 12, 31));
    }
    assert!(ends("2026-12-30T12:00:00Z").to_string().contains("in 1 day:"));
    assert!(ends("2027-12-30T12:00:00Z").to_string().contains("ended on 2026-12-31"));
}

#[test]
fn a_calendar_that_only_replaced_tariffs_used_is_no_matter_of_concern() {
    let calendar =
        |name: &str, year: i16| format!("[[calendar]]\nname = \"{name}\"\nholidays = [{year}-05-01]\n");
    let version = |calendar: &str, from: &str| {
        format!(
            "[[tariff]]\nname = \"t\"\ngarages = [\"*\"]\ncurrency = \"EUR\"\ntime_zone = \"Europe/Berlin\"\n\
             valid_from = {from}\ncalendar = \"{calendar}\"\nvat_percent = 19\nunit_minutes = 60\n{BY_DAYS}"
        )
    };
    let text = [
        calendar("old", 2026),
        calendar("new", 2027),
        version("old", "2026-01-01"),
        version("new", "2027-01-01"),
    ];
    let set = TariffSet::parse(&text.concat()).unwrap();
    let ends = |now: &str| -> Vec<String> {
        set.calendar_ends(at(now)).into_iter().map(|end: CalendarEnd| end.calendar).collect()
    };
    assert_eq!(ends("2026-12-31T12:00:00Z"), ["old", "new"]);
    assert_eq!(ends("2027-01-01T12:00:00Z"), ["new"]);
}

#[test]
fn local_dates_are_those_of_the_zone_in_any_year() {
    for zone in
        ["Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Apia", "Africa/Casablanca", "UTC"]
    {
        let text = with(HOURLY).to_toml().replace("Europe/Berlin", zone);
        let set = TariffSet::parse(&text).unwrap();
        let zone = crate::parking::tariff::time_zone(zone).unwrap();
        let change_of_2011 = at("2011-12-30T10:00:00Z").as_millisecond();
        let years = (0..4_000).map(|step| -1_000_000_000_000 + step * 1_234_567_891);
        for at_ms in years.chain((-90..90).map(|step| change_of_2011 + step * 3_600_000 - 1)) {
            let at = Timestamp::from_millisecond(at_ms).unwrap();
            assert_eq!(only(&set).date_of(at), zone.to_datetime(at).date(), "{at} {zone:?}");
        }
    }
}
