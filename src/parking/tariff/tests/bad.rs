//! Tariffs that are refused: each with the line and the reason.

use super::*;

/// Seventeen lines: the calendar in 1 to 3, the tariff from 5 on.
const GOOD: &str = r#"[[calendar]]
name = "bw"
holidays = [2026-01-01, 2026-01-06]

[[tariff]]
name = "centre"
garages = ["1", "Bull Ring"]
currency = "EUR"
time_zone = "Europe/Berlin"
valid_from = 2026-01-01
calendar = "bw"
unit_minutes = 60
bands = [
    { days = "mon-fri", from = "07:00", to = "19:00", per_unit = 250 },
    { days = "all", from = "00:00", to = "24:00", per_unit = 100 },
]
vat_percent = 19
"#;

#[test]
fn the_good_one_is_good() {
    assert_eq!(wrong(GOOD), [""; 0]);
}

/// What is replaced by what, and what is said then.
#[test]
fn each_mistake_is_named_with_its_line() {
    let of_centre: &[(&str, &str, u32, &str)] = &[
        ("garages = [\"1\", \"Bull Ring\"]\n", "", 5, "garages is missing"),
        ("[\"1\", \"Bull Ring\"]", "[]", 7, "garages is empty"),
        ("[\"1\", \"Bull Ring\"]", "\"1\"", 7, "garages must be a list in brackets, not a text"),
        ("\"Bull Ring\"", "2", 7, "garages must be a list of texts in quotes"),
        ("\"Bull Ring\"", "\"1\"", 7, "the garage \"1\" is listed twice"),
        ("\"Bull Ring\"", "\"*\"", 7, "\"*\" stands for every garage"),
        ("\"Bull Ring\"", "\" 2\"", 7, "garages \" 2\" is not a valid name: it begins"),
        (
            "Bull Ring",
            "Bull\\u200bRing",
            7,
            "garages \"Bull\\u{200b}Ring\" is not a valid name: it has characters that cannot be seen",
        ),
        ("\"EUR\"", "\"EURO\"", 8, "currency \"EURO\" is not known"),
        ("\"EUR\"", "\"XAU\"", 8, "currency \"XAU\" is not known"),
        ("Europe/Berlin", "Europe/Bonn", 9, "time_zone \"Europe/Bonn\" is not in the IANA"),
        ("time_zone = \"Europe/Berlin\"\n", "", 5, "time_zone is missing"),
        ("from = 2026-01-01\n", "from = \"2026-01-01\"\n", 10, "valid_from must be a date"),
        ("from = 2026-01-01\n", "from = 2026-01-01T00:00:00Z\n", 10, "valid_from must be a date"),
        ("calendar = \"bw\"\nunit", "calendar = \"by\"\nunit", 11, "calendar \"by\" is not there"),
        ("= 60", "= 0", 12, "unit_minutes is 0, but must be from 1 to 527040"),
        ("= 60", "= 1.5", 12, "unit_minutes must be a whole number, not a number with decimals"),
        ("unit_minutes = 60\n", "", 5, "unit_minutes is missing"),
        ("unit_minutes", "unit_minuts", 12, "the key \"unit_minuts\" is not known here"),
        ("= 60\n", "= 60\ngrace_minutes = -1\n", 13, "grace_minutes is -1, but must be from 0"),
        ("vat_percent = 19", "vat_percent = 101", 17, "vat_percent is 101"),
        ("vat_percent = 19", "vat_percent = 8.125", 17, "vat_percent is 8.125"),
        ("vat_percent = 19", "vat_percent = -1", 17, "vat_percent is -1"),
        ("vat_percent = 19", "vat_percent = nan", 17, "vat_percent is nan"),
        ("= 60\n", "= 60\ndaily_cap = -1\n", 13, "daily_cap is -1"),
        ("= 60\n", "= 60\nstay_cap = 1e3\n", 13, "stay_cap must be a whole number"),
        ("= 60\n", "= 60\nfirst = [{ units = 0, per_unit = 1 }]\n", 13, "units is 0"),
        ("= 60\n", "= 60\nfirst = [{ units = 1 }]\n", 13, "per_unit is missing"),
        ("= 60\n", "= 60\nfirst = 3\n", 13, "first must be a list in brackets"),
        ("= 60\n", "= 60\nfirst = [3]\n", 13, "first must be a list of tables in braces"),
        ("= 60\n", "= 60\ncaps = [{ amount = 1 }]\n", 13, "a cap needs"),
        ("= 60\n", "= 60\ncaps = [{ every_hours = 24, days = \"all\", amount = 1 }]\n", 13, "a cap needs"),
        ("= 60\n", "= 60\ncaps = [{ every_hours = 0, amount = 1 }]\n", 13, "every_hours is 0"),
        ("= 60\n", "= 60\ncaps = [{ every_hours = 24 }]\n", 13, "amount is missing"),
        ("= 60\n", "= 60\ncaps = [{ days = \"all\", from = \"18:00\", amount = 1 }]\n", 13, "to is missing"),
        ("mon-fri", "mon-fry", 14, "\"mon-fry\" is not a day"),
        ("mon-fri", "mon-fri,tue", 14, "\"tue\" is named twice"),
        ("07:00", "7:00", 14, "from \"7:00\" is not a time"),
        ("19:00", "24:01", 14, "to \"24:01\" is not a time"),
        ("07:00", "24:00", 14, "from \"24:00\" is the next day"),
        ("per_unit = 250", "per_unit = -250", 14, "per_unit is -250, but must be from 0 to 100000000"),
        ("per_unit = 250", "per_unit = 2.5", 14, "per_unit must be a whole number"),
        ("per_unit = 250", "per_unit = 99999999999999999999", 14, "per_unit is 99999999999999999999"),
        ("per_unit = 250", "per_unit = 250, flat = 1", 14, "a band needs one of"),
        (", per_unit = 250", "", 14, "a band needs one of"),
        ("per_unit = 250", "price = 250", 14, "the key \"price\" is not known"),
        ("days = \"mon-fri\", ", "", 14, "days is missing"),
        (
            "    { days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 100 },\n",
            "",
            13,
            "no band covers mon 00:00-07:00",
        ),
        ("vat_percent = 19\n", "", 5, "a tariff needs one of vat_percent, vat, and vat_reason"),
        (
            "vat_percent = 19",
            "vat_percent = 19\nvat_reason = \"x\"",
            5,
            "a tariff needs one of vat_percent, vat, and vat_reason",
        ),
        ("vat_percent = 19", "vat = []", 17, "vat is empty"),
        ("vat_percent = 19", "vat = [{ from = 2026-01-01 }]", 17, "percent is missing"),
        ("vat_percent = 19", "vat = [{ percent = 200 }]", 17, "percent is 200"),
        ("vat_percent = 19", "vat = [{ from = 7, percent = 19 }]", 17, "from must be a date"),
        ("vat_percent = 19", "vat = [{ rate = 19 }]", 17, "the key \"rate\" is not known"),
        (
            "vat_percent = 19",
            "vat = [{ from = 2026-01-02, percent = 19 }]",
            17,
            "vat has no rate from 2026-01-01, the tariff's first day, until 2026-01-02",
        ),
        (
            "vat_percent = 19",
            "vat = [{ percent = 19 },\n{ percent = 16 }]",
            18,
            "from is missing: only the first",
        ),
        (
            "vat_percent = 19",
            "vat = [{ from = 2020-07-01, percent = 19 },\n{ from = 2020-07-01, percent = 16 }]",
            18,
            "from is 2020-07-01, but the rate before it is from 2020-07-01: dates ascend",
        ),
        ("vat_percent = 19", "vat_reason = \"\"", 17, "vat_reason \"\" is not a valid text: it is empty"),
    ];
    let others: &[(&str, &str, &str)] = &[
        ("unit_minutes = 60", "unit_minutes = 60 60", "line 12: not TOML"),
        ("name = \"centre\"\n", "", "line 5: tariff: name is missing"),
        ("\"centre\"", "\"\"", "line 6: tariff \"\": name \"\" is not a valid name: it is empty"),
        ("\"centre\"", "7", "line 6: tariff: name must be a text in quotes, not a whole number"),
        ("from = 2026-01-01\n", "from = 2026-02-30\n", "line 10: "),
        ("[[tariff]]", "[tariff]", "line 5: tariff must be tables under [[tariff]], not a table"),
        ("[[calendar]]", "[calendar]", "line 1: calendar must be tables under [[calendar]], not a table"),
        ("[[calendar]]", "[[calender]]", "line 1: the key \"calender\" is not known here"),
        ("name = \"bw\"\n", "", "line 1: calendar: name is missing"),
        ("2026-01-06", "\"2026-01-06\"", "line 3: calendar \"bw\": holidays must be a date"),
        ("2026-01-06", "2026-01-01", "line 3: calendar \"bw\": the holiday 2026-01-01 is listed twice"),
        ("holidays", "days", "line 1: calendar \"bw\": holidays is missing"),
        (
            "2026-01-06]",
            "2026-01-06]\ncomplete_from = 2026-01-02",
            "line 3: calendar \"bw\": the holiday 2026-01-01 is not within the days that it covers, 2026-01-02 to 2026-12-31",
        ),
        (
            "2026-01-06]",
            "2026-01-06]\ncomplete_through = 2025-12-31",
            "line 4: calendar \"bw\": complete_through is 2025-12-31, before complete_from, 2026-01-01",
        ),
        (
            "2026-01-06]",
            "2026-01-06]\ncomplete_through = \"ever\"",
            "line 4: calendar \"bw\": complete_through must be a date",
        ),
        (
            "[2026-01-01, 2026-01-06]",
            "[]\ncomplete_through = 2026-12-31",
            "line 1: calendar \"bw\": complete_from is missing: it lists no holidays",
        ),
        (
            "[2026-01-01, 2026-01-06]",
            "[]\ncomplete_from = 2026-01-01",
            "line 1: calendar \"bw\": complete_through is missing: it lists no holidays",
        ),
        (
            "[[tariff]]",
            "[[calendar]]\nname = \"bw\"\nholidays = [2026-01-01]\n[[tariff]]",
            "line 5: calendar \"bw\": a calendar of this name stands in line 1, too",
        ),
    ];
    let of_centre = of_centre
        .iter()
        .map(|(good, bad, line, reason)| (*good, *bad, format!("line {line}: tariff \"centre\": {reason}")));
    let others = others.iter().map(|(good, bad, expected)| (*good, *bad, (*expected).to_owned()));
    for (good, bad, expected) in of_centre.chain(others) {
        assert!(GOOD.contains(good), "{good}");
        let text = GOOD.replacen(good, bad, 1);
        let errors = wrong(&text);
        assert!(
            errors.iter().any(|error| error.starts_with(&expected)),
            "{bad:?}: {expected:?} is not in {errors:#?}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_their_lines() {
    let text = GOOD.replace("EUR", "Euro").replace("07:00", "7").replace("= 60", "= 0").replace("\"1\"", "1");
    let lines: Vec<_> = wrong(&text).iter().map(|error| error[..8].to_owned()).collect();
    assert_eq!(lines, ["line 7: ", "line 8: ", "line 12:", "line 14:"]);
}

/// A tariff of nine lines.
fn tariff(name: &str, garages: &str, date: &str, zone: &str) -> String {
    format!(
        "[[tariff]]\nname = \"{name}\"\ngarages = [{garages}]\ncurrency = \"EUR\"\ntime_zone = \"{zone}\"\nvat_percent = 19\nvalid_from = {date}\nunit_minutes = 60\n\
         bands = [{{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 1 }}]\n"
    )
}

#[test]
fn a_garage_has_one_tariff_on_a_date() {
    let berlin = |name: &str, garages: &str, date: &str| tariff(name, garages, date, "Europe/Berlin");
    let two = [berlin("a", "\"1\"", "2026-01-01"), berlin("b", "\"2\", \"1\"", "2026-03-01")].concat();
    assert_eq!(
        wrong(&two),
        [
            "line 10: tariff \"b\": the garage \"1\" has two tariffs on 2026-03-01: this one, and \"a\" of line 1"
        ]
    );
    let fallbacks = [berlin("b", "\"*\"", "2026-03-01"), berlin("a", "\"*\"", "2026-01-01")].concat();
    assert_eq!(
        wrong(&fallbacks),
        [
            "line 10: tariff \"a\": the fallback \"*\" has two tariffs on 2026-03-01: this one, and \"b\" of line 1"
        ]
    );
    let again = [berlin("a", "\"1\"", "2026-01-01"), berlin("a", "\"2\"", "2026-01-01")].concat();
    assert_eq!(
        wrong(&again),
        ["line 10: tariff \"a\": a version of this tariff from 2026-01-01 on stands in line 1, too"]
    );
    // The later version leaves the garage to the other tariff.
    let handed = [
        berlin("a", "\"1\"", "2026-01-01"),
        berlin("a", "\"2\"", "2026-03-01"),
        berlin("b", "\"1\"", "2026-03-01"),
    ];
    assert_eq!(wrong(&handed.concat()), [""; 0]);
    let late = handed.concat().replace("2026-03-01\nunit_minutes = 60\nbands = [{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 1 }]\n[[tariff]]\nname = \"b\"", "2026-03-02\nunit_minutes = 60\nbands = [{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 1 }]\n[[tariff]]\nname = \"b\"");
    assert_eq!(wrong(&late).len(), 1, "{:?}", wrong(&late));
    let beside = [berlin("a", "\"1\"", "2026-01-01"), berlin("b", "\"*\"", "2026-01-01")].concat();
    assert_eq!(wrong(&beside), [""; 0]);
}

#[test]
fn a_garage_stays_in_its_zone() {
    let moved = [
        tariff("a", "\"1\"", "2026-01-01", "Europe/Berlin"),
        tariff("a", "\"1\"", "2026-03-01", "Asia/Tokyo"),
    ]
    .concat();
    assert_eq!(
        wrong(&moved),
        ["line 10: tariff \"a\": the garage \"1\" is in Asia/Tokyo here, but in Europe/Berlin in line 1"]
    );
}

#[test]
fn every_hour_has_a_price_also_around_holidays() {
    let bands = |bands: &str| {
        let (head, _) = GOOD.split_once("bands = ").unwrap();
        wrong(&format!("{head}bands = [{bands}]\nvat_percent = 19\n")).join("; ")
    };
    let night = "{ days = \"mon-sun\", from = \"20:00\", to = \"08:00\", per_unit = 1 }";
    let day = "{ days = \"mon-sat\", from = \"08:00\", to = \"20:00\", per_unit = 1 }";
    assert_eq!(bands(&[night, day].join(",")), "line 13: tariff \"centre\": no band covers sun 08:00-20:00");
    let sunday = "{ days = \"sun\", from = \"08:00\", to = \"20:00\", per_unit = 1 }";
    assert_eq!(bands(&[night, day, sunday].join(",")), "");
    // As soon as a band names holidays, they are no Sundays any more.
    let noon = "{ days = \"holiday\", from = \"12:00\", to = \"13:00\", per_unit = 1 }";
    assert_eq!(
        bands(&[night, day, sunday, noon].join(",")),
        "line 13: tariff \"centre\": no band covers holiday 08:00-12:00 such as on 2026-01-01, holiday 13:00-24:00 such as on 2026-01-01, \
         fri 00:00-08:00 after the holiday 2026-01-01, wed 00:00-08:00 after the holiday 2026-01-06"
    );
    let from_six = "{ days = \"sun,holiday\", from = \"06:00\", to = \"06:00\", per_unit = 1 }";
    let weekdays = "{ days = \"mon-sat\", from = \"06:00\", to = \"06:00\", per_unit = 1 }";
    assert_eq!(bands(&[from_six, weekdays].join(",")), "");
    // Saturday's night ends at 06:00, Sunday's day begins at 07:00; a holiday on a Thursday has the same gap.
    let from_seven = from_six.replace("from = \"06:00\"", "from = \"07:00\"");
    assert_eq!(
        bands(&[&from_seven, weekdays].join(",")),
        "line 13: tariff \"centre\": no band covers sun 06:00-07:00, holiday 06:00-07:00 such as on 2026-01-01"
    );
    // Two holidays in a row.
    let (head, _) = GOOD.split_once("bands = ").unwrap();
    let head = head.replace("2026-01-06", "2026-01-02");
    let short = from_six.replace("to = \"06:00\"", "to = \"05:00\"");
    let errors = wrong(&format!("{head}bands = [{short},\n{weekdays}]\nvat_percent = 19\n")).join("; ");
    assert!(errors.contains("holiday 05:00-06:00 after the holiday 2026-01-01"), "{errors}");
}

#[test]
fn beside_tariffs_a_configuration_may_hold_anything() {
    let text = format!("[edge]\ngarage_name = 7\n[server]\n{GOOD}");
    assert!(TariffSet::parse_config(&text).is_ok());
    assert_eq!(wrong(&text).len(), 2);
    assert!(TariffSet::parse_config("").unwrap().is_empty());
    let error = TariffSet::parse_config("[edge\n").unwrap_err();
    assert_eq!(error[0].line, 1);
}
