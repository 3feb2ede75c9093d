//! What the rules give in boundary cases.

use super::*;
use crate::parking::tariff::{Amount, Free};

const HOURLY: &str =
    "unit_minutes = 60\nbands = [{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 200 }]\n";

#[test]
fn a_unit_is_charged_when_it_starts_before_the_exit() {
    let set = with(HOURLY);
    let entry = "2026-03-02T08:00:00+01:00";
    for (exit, expected) in [
        ("2026-03-02T08:00:00+01:00", 0),
        ("2026-03-02T08:00:00.001+01:00", 200),
        ("2026-03-02T09:00:00+01:00", 200),
        ("2026-03-02T09:00:00.001+01:00", 400),
        ("2026-03-02T07:00:00+01:00", 0),
    ] {
        assert_eq!(cents(&set, entry, exit), expected, "{exit}");
    }
}

/// `tariffs price` once priced to the nanosecond and the server to the millisecond: 0.2 ms over a unit were 200 here and 100 there.
#[test]
fn a_part_of_a_millisecond_costs_nothing() {
    let set = with(HOURLY);
    for (entry, exit, expected) in [
        ("2026-03-02T08:00:00Z", "2026-03-02T09:00:00.0002Z", 200),
        ("2026-03-02T08:00:00Z", "2026-03-02T08:00:00.000999999Z", 0),
        ("2026-03-02T08:00:00.0009Z", "2026-03-02T09:00:00.001Z", 400),
        ("1969-12-31T23:00:00Z", "1969-12-31T23:59:59.9999Z", 200),
    ] {
        assert_eq!(cents(&set, entry, exit), expected, "{entry} to {exit}");
    }
}

#[test]
fn grace_is_exact_and_what_is_longer_pays_from_the_entry() {
    let set = with(&format!("grace_minutes = 10\n{HOURLY}"));
    let priced = price(&set, "2026-03-02T08:00:00.5+01:00", "2026-03-02T08:10:00.5+01:00");
    assert_eq!((priced.amount, priced.free), (Amount::ZERO, Some(Free::Grace { minutes: 10 })));
    assert!(priced.breakdown().is_empty());
    assert_eq!(cents(&set, "2026-03-02T08:00:00.5+01:00", "2026-03-02T08:10:00.501+01:00"), 200);
    let zero = price(&set, "2026-03-02T08:00:00+01:00", "2026-03-02T08:00:00+01:00");
    assert_eq!((zero.amount, zero.free), (Amount::ZERO, Some(Free::NoTime)));
}

#[test]
fn a_flat_price_stays_due_behind_the_first_units_and_a_cap_holds_it_once() {
    let flat = "unit_minutes = 60\nfirst = [{ units = 1, per_unit = 50 }]\n\
                bands = [{ days = \"all\", from = \"18:00\", to = \"06:00\", flat = 400 },\n\
                { days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 100 }]\n";
    let set = with(flat);
    assert_eq!(cents(&set, "2026-03-02T19:00:00+01:00", "2026-03-02T22:00:00+01:00"), 450);
    // 4 h by day, the flat evening over midnight, one unit from 06:00, and the next evening.
    assert_eq!(cents(&set, "2026-03-02T14:00:00+01:00", "2026-03-03T07:00:00+01:00"), 50 + 300 + 400 + 100);
    let set = with(&format!("{flat}stay_cap = 300\n"));
    let priced = price(&set, "2026-03-02T19:00:00+01:00", "2026-03-02T23:00:00+01:00");
    let told: Vec<_> =
        priced.breakdown().into_iter().map(|line| (line.unit, line.units, line.total.minor())).collect();
    assert_eq!(told, [(1, 1, 50), (2, 1, 250), (3, 2, 0)]);
    let reasons: Vec<_> = priced.breakdown().into_iter().map(|line| line.reason).collect();
    assert_eq!(
        reasons,
        [
            "first units",
            "flat for all 18:00-06:00, held by the cap of 3.00 EUR for the stay",
            "flat for all 18:00-06:00, paid",
        ]
    );
}

#[test]
fn a_holiday_is_a_sunday_unless_the_tariff_names_it() {
    let bands = |last: &str| {
        with(&format!(
            "calendar = \"bw\"\nunit_minutes = 60\nbands = [{{ days = \"mon-sat\", from = \"00:00\", to = \"24:00\", per_unit = 200 }},\n\
             {{ days = \"sun\", from = \"00:00\", to = \"24:00\", per_unit = 100 }},\n{last}]\n"
        ))
    };
    // 2026-01-06 is a Tuesday, 2026-01-04 a Sunday.
    let hour = |set: &TariffSet, day: &str| {
        cents(set, &format!("{day}T10:00:00+01:00"), &format!("{day}T11:00:00+01:00"))
    };
    let without = bands("");
    assert_eq!(
        [hour(&without, "2026-01-04"), hour(&without, "2026-01-06"), hour(&without, "2026-01-07")],
        [100, 100, 200]
    );
    let named = bands("{ days = \"holiday\", from = \"00:00\", to = \"24:00\", per_unit = 50 }");
    assert_eq!(
        [hour(&named, "2026-01-04"), hour(&named, "2026-01-06"), hour(&named, "2026-01-07")],
        [100, 50, 200]
    );
}

#[test]
fn the_version_is_that_of_the_local_date_of_entry() {
    let version = |date: &str, garages: &str, price: u32| {
        format!(
            "[[tariff]]\nname = \"t\"\ngarages = [{garages}]\ncurrency = \"EUR\"\ntime_zone = \"Europe/Berlin\"\nvalid_from = {date}\n\
             vat_percent = 19\nunit_minutes = 60\nbands = [{{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = {price} }}]\n"
        )
    };
    let fallback = version("2020-01-01", "\"*\"", 9).replace("\"t\"", "\"else\"");
    let text =
        [version("2026-04-01", "\"1\"", 2), version("2026-01-01", "\"1\", \"2\"", 1), fallback].concat();
    let set = TariffSet::parse(&text).unwrap();
    let found = |garage: &str, entry: &str| {
        set.for_stay(garage, at(entry)).map(|tariff| tariff.valid_from.to_string())
    };
    // Midnight in Berlin is 22:00 UTC in summer.
    assert_eq!(found("1", "2026-03-31T21:59:59Z").unwrap(), "2026-01-01");
    assert_eq!(found("1", "2026-03-31T22:00:00Z").unwrap(), "2026-04-01");
    // A garage that the later version leaves out pays by the fallback, as one does that nobody names.
    assert_eq!(found("2", "2026-03-31T21:59:59Z").unwrap(), "2026-01-01");
    assert_eq!(found("2", "2026-03-31T22:00:00Z").unwrap(), "2020-01-01");
    assert_eq!(found("3", "2026-03-31T22:00:00Z").unwrap(), "2020-01-01");
    assert_eq!(found("1", "2019-12-31T12:00:00Z"), None);
}

#[test]
fn a_repeated_evening_counts_for_the_caps_of_its_day() {
    // In Santiago the clock goes back from 24:00 to 23:00 on 2026-04-04: a new day begins, and the old one goes on for an hour.
    let text = "[[tariff]]\nname = \"t\"\ngarages = [\"*\"]\ncurrency = \"CLP\"\ntime_zone = \"America/Santiago\"\nvalid_from = 2020-01-01\n\
                vat_percent = 19\nunit_minutes = 30\ndaily_cap = 250\nbands = [{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 100 }]\n";
    let set = TariffSet::parse(text).unwrap();
    // 22:00 summer time to 01:00: four units until the clock goes back, two more of the same day, two of the next.
    assert_eq!(cents(&set, "2026-04-05T01:00:00Z", "2026-04-05T05:00:00Z"), 250 + 200);
}

#[test]
fn a_long_stay_has_a_short_breakdown_that_still_adds_up() {
    let set = with(
        "calendar = \"bw\"\nunit_minutes = 1\nfirst = [{ units = 7, per_unit = 99999999 }]\ndaily_cap = 99999999\n\
         bands = [{ days = \"mon,wed,fri\", from = \"08:01\", to = \"17:59\", per_unit = 7654321 },\n\
         { days = \"all\", from = \"18:00\", to = \"06:00\", flat = 98765432 },\n\
         { days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 1234567 }]\n\
         caps = [{ days = \"sat,sun,holiday\", from = \"12:00\", to = \"11:59\", amount = 98765432 }]\n",
    );
    for exit in ["2026-02-01T00:00:00Z", "2027-01-01T00:00:00Z", "2126-01-01T00:00:00Z"] {
        let priced = price(&set, "2026-01-01T00:00:00Z", exit);
        let breakdown = priced.breakdown();
        assert!(breakdown.len() <= Priced::LINES_MAX);
        assert_eq!(breakdown.iter().map(|line| line.total.minor()).sum::<i64>(), priced.amount.minor());
        let minutes = (at(exit).as_second() - at("2026-01-01T00:00:00Z").as_second()) / 60;
        assert_eq!(priced.units(), minutes as u64);
    }
}

#[test]
fn a_price_is_shown_as_the_contract_says() {
    let set = with(&format!("vat_percent = 8.1\n{HOURLY}"));
    let priced = price(&set, "2026-03-02T08:00:00+01:00", "2026-03-02T09:30:00+01:00");
    let shown = priced.to_json();
    assert_eq!(
        shown,
        serde_json::json!({
            "amount": 400, "currency": "EUR", "tariff": "t", "valid_from": "2020-01-01", "vat_percent": 8.1, "units": 2, "free": null,
            "breakdown": [{
                "unit": 1, "units": 2, "from": "2026-03-02T08:00:00+01:00", "each": 200, "total": 400, "reason": "all 00:00-24:00",
            }],
        })
    );
}

/// The database renamed Europe/Kiev in 2022: a version of a tariff that said so was refused as one of another zone.
#[test]
fn a_zone_may_be_called_by_any_of_its_names() {
    let version = |zone: &str, from: &str| {
        format!(
            "[[tariff]]\nname = \"t\"\ngarages = [\"g\"]\ncurrency = \"UAH\"\ntime_zone = \"{zone}\"\nvalid_from = {from}\nvat_percent = 20\n{HOURLY}"
        )
    };
    let set = |zone: &str, other: &str| {
        TariffSet::parse(&[version(zone, "2020-01-01"), version(other, "2026-01-01")].concat())
    };
    for (zone, other) in
        [("Europe/Kiev", "Europe/Kyiv"), ("Asia/Calcutta", "Asia/Kolkata"), ("UTC", "Etc/UTC")]
    {
        assert!(set(zone, other).is_ok(), "{zone} and {other}");
    }
    for (zone, other) in [("Europe/Kyiv", "Europe/Berlin"), ("Europe/London", "UTC"), ("Etc/GMT", "Etc/UTC")]
    {
        let errors = set(zone, other).unwrap_err();
        let reason = format!("is in {other} here, but in {zone} in line 1");
        assert!(errors.len() == 1 && errors[0].to_string().contains(&reason), "{errors:?}");
    }
}

#[test]
fn zones_come_from_the_program_whatever_the_machine_has() {
    use crate::parking::tariff::time_zone;
    assert_eq!(time_zone("europe/berlin").unwrap().iana_name(), Some("Europe/Berlin"));
    // The bundled database is of 2026 and knows that Cuba kept its summer time; older machines do not.
    let havana = time_zone("America/Havana").unwrap();
    assert_eq!(havana.to_offset(at("2026-12-01T12:00:00Z")).to_string(), "-04");
    for none in ["", "Berlin", "Etc/Unknown", "CET+1", "/etc/localtime", "posix/Europe/Berlin"] {
        assert_eq!(time_zone(none), None, "{none}");
    }
}
