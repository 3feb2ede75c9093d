//! `config.example.toml` shows every setting there is, and the values that hold without it; the calendars of all examples have
//! every holiday of their years.

use fogpost::cli::edge::EdgeCall;
use fogpost::cli::server::ServerCall;
use fogpost::config::ConfigError;
use fogpost::parking::document::OperatorSettings;
use fogpost::parking::garage::{KnownHours, parse_config};
use fogpost::parking::tariff::TariffSet;
use jiff::ToSpan;
use jiff::civil::{Date, Weekday, date};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::Command;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.toml");

fn args(args: &[&str]) -> Vec<OsString> {
    args.iter().map(OsString::from).collect()
}

#[test]
fn its_values_are_the_defaults() {
    let with = EdgeCall::from_args(args(&["edge", "--config", EXAMPLE])).unwrap();
    let without = EdgeCall::from_args(args(&["edge", "--garage-name", "1"])).unwrap();
    assert_eq!(format!("{with:?}"), format!("{without:?}"));
    let with = ServerCall::from_args(args(&["server", "--config", EXAMPLE])).unwrap();
    let without = ServerCall::from_args(args(&["server"])).unwrap();
    assert_eq!(format!("{with:?}"), format!("{without:?}"));
}

/// The keys of a table, also those that stand commented out as `# key = value`.
fn keys(table: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let lines = text.lines().skip_while(|line| *line != format!("[{table}]")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let key = |line: &str| -> Option<String> {
        let (key, _) = line.trim_start_matches("# ").split_once(" = ")?;
        key.chars().all(|c| c.is_ascii_lowercase() || c == '_').then(|| key.to_owned())
    };
    lines.filter_map(key).collect()
}

/// The long flags of a program, as keys of the file.
fn flags(program: &str) -> BTreeSet<String> {
    let help = Command::new(program).arg("--help").output().unwrap();
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    let words = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
    // An optional value follows in brackets.
    let names = words.filter_map(|word| word.split('[').next());
    let flags = names.map(|flag| flag.trim_matches(|c: char| !c.is_alphanumeric()).replace('-', "_"));
    flags.filter(|flag| !matches!(flag.as_str(), "help" | "version" | "config")).collect()
}

#[test]
fn it_shows_every_flag_and_nothing_else() {
    assert_eq!(keys("edge"), flags(env!("CARGO_BIN_EXE_edge")));
    assert_eq!(keys("server"), flags(env!("CARGO_BIN_EXE_server")));
}

/// The configuration of a server with this table `[operator]`.
fn with_operator(lines: &str) -> Result<ServerCall, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("[operator]\n{lines}")).unwrap();
    ServerCall::from_args(args(&["server", "--config", file.path().to_str().unwrap()]))
}

#[test]
fn it_shows_every_key_of_the_alarms() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[alarms]\nnonsense = 1\n").unwrap();
    let refused = ServerCall::from_args(args(&["server", "--config", file.path().to_str().unwrap()]));
    let refused = refused.unwrap_err().to_string();
    let (_, known) = refused.split_once("expected one of").unwrap_or_else(|| panic!("{refused}"));
    let known: BTreeSet<String> = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(keys("alarms"), known);
}

/// The receivers that stand there commented out are read when the "#" is removed.
#[test]
fn its_receivers_are_valid() {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let lines = text.lines().skip_while(|line| *line != "#     [[notify]]");
    let lines = lines.take_while(|line| line.starts_with('#')).filter_map(|line| line.strip_prefix("#     "));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.collect::<Vec<_>>().join("\n")).unwrap();
    let call = ServerCall::from_args(args(&["server", "--config", file.path().to_str().unwrap()])).unwrap();
    assert_eq!(call.config.notify.len(), 2);
}

#[test]
fn it_shows_every_key_of_the_operator_and_its_default() {
    let refused = with_operator("nonsense = 1\n").unwrap_err().to_string();
    let (_, known) = refused.split_once("expected one of").unwrap_or_else(|| panic!("{refused}"));
    let known: BTreeSet<String> = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(keys("operator"), known);

    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let lines = text.lines().skip_while(|line| *line != "[operator]").take_while(|line| !line.is_empty());
    let lines: Vec<&str> = lines.filter_map(|line| line.strip_prefix("# ")).collect();
    let of = |key: &str| *lines.iter().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
    let all: Vec<&str> = known.iter().map(|key| of(key)).collect();
    let issuer = with_operator(&all.join("\n")).unwrap().config.operator.issuer;
    assert_eq!((issuer.missing(), issuer.footer.len()), (Vec::new(), 2));
    let defaults = ["payment_days", "time_zone", "number_format", "keep_documents_years"].map(of).join("\n");
    assert_eq!(with_operator(&defaults).unwrap().config.operator, OperatorSettings::default());
}

#[test]
fn its_tariff_is_valid_without_the_hashes() {
    let tariffs = tariff_of_the_example();
    let entry = "2026-03-02T08:00:00+01:00".parse().unwrap();
    for garage in ["1", "Bull Ring"] {
        assert_eq!(tariffs.for_stay(garage, entry).map(|tariff| tariff.name.as_str()), Some("centre"));
    }
}

#[test]
fn its_garage_is_valid_without_the_hashes_and_shows_every_key() {
    let text = tables_of_the_example();
    let [garage] = &parse_config(&text).unwrap()[..] else { panic!("it has one garage") };
    let KnownHours::Are(hours) = &garage.hours else { panic!("it has hours") };
    assert_eq!((garage.name.as_str(), hours.windows().len()), ("1", 2));
    let refused = format!("{:?}", parse_config("[[garage]]\nnonsense = 1").unwrap_err());
    let (_, known) = refused.split_once("The known keys are ").unwrap();
    for key in known.split('"').next().unwrap().split(", ") {
        assert!(text.contains(&format!("\n{key} = ")), "{key}");
    }
}

fn tables_of_the_example() -> String {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("#     "));
    lines.collect::<Vec<_>>().join("\n")
}

fn tariff_of_the_example() -> TariffSet {
    TariffSet::parse_config(&tables_of_the_example()).unwrap()
}

fn tariffs(file: &str) -> TariffSet {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    TariffSet::parse_config(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Easter Sunday in the Gregorian calendar ("Anonymous Gregorian algorithm", Nature, 20 April 1876).
fn easter(year: i16) -> Date {
    let (a, b, c) = (year % 19, year / 100, year % 100);
    let g = (8 * b + 13) / 25;
    let h = (19 * a + b - b / 4 - g + 15) % 30;
    let l = (32 + 2 * (b % 4) + 2 * (c / 4) - h - c % 4) % 7;
    let m = (a + 11 * h + 19 * l) / 433;
    let month = (h + l - 7 * m + 90) / 25;
    let day = (h + l - 7 * m + 33 * month + 19) % 32;
    date(year, month as i8, day as i8)
}

/// The public holidays of North Rhine-Westphalia, all of which Baden-Württemberg has, too.
fn german(year: i16) -> BTreeSet<Date> {
    let fixed =
        [(1, 1), (5, 1), (10, 3), (11, 1), (12, 25), (12, 26)].map(|(month, day)| date(year, month, day));
    // Good Friday, Easter Monday, Ascension, Whit Monday, Corpus Christi.
    let movable = [-2i64, 1, 39, 50, 60].map(|days| easter(year).checked_add(days.days()).unwrap());
    fixed.into_iter().chain(movable).collect()
}

/// With Epiphany.
fn of_baden(year: i16) -> BTreeSet<Date> {
    &german(year) | &BTreeSet::from([date(year, 1, 6)])
}

/// The bank holidays of England and Wales: <https://www.gov.uk/bank-holidays>.
fn english(year: i16) -> BTreeSet<Date> {
    let monday =
        |month: i8, nth: i8| date(year, month, 1).nth_weekday_of_month(nth, Weekday::Monday).unwrap();
    let mut days = BTreeSet::from([-2i64, 1].map(|days| easter(year).checked_add(days.days()).unwrap()));
    days.insert(monday(8, -1));
    days.insert(if year == 2020 { date(2020, 5, 8) } else { monday(5, 1) });
    days.insert(if year == 2022 { date(2022, 6, 2) } else { monday(5, -1) });
    let of_kings = [date(2022, 6, 3), date(2022, 9, 19), date(2023, 5, 8)];
    days.extend(of_kings.into_iter().filter(|day| day.year() == year));
    // On a weekend the next weekday that is none yet takes the place.
    for (month, day) in [(1, 1), (12, 25), (12, 26)] {
        let mut day = date(year, month, day);
        while matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday) || days.contains(&day) {
            day = day.tomorrow().unwrap();
        }
        days.insert(day);
    }
    days
}

#[test]
fn easter_is_when_it_was() {
    for (year, month, day) in [
        (2016, 3, 27),
        (2019, 4, 21),
        (2024, 3, 31),
        (2025, 4, 20),
        (2026, 4, 5),
        (2035, 3, 25),
        (2038, 4, 25),
    ] {
        assert_eq!(easter(year), date(year, month, day));
    }
}

#[test]
fn the_calendars_of_the_examples_have_all_holidays_of_ten_years() {
    type HolidaysOfYear = fn(i16) -> BTreeSet<Date>;
    let examples: [(&str, TariffSet, i16, HolidaysOfYear); 4] = [
        ("bw", tariff_of_the_example(), 2026, of_baden),
        ("bw", tariffs("examples/tariffs.toml"), 2026, of_baden),
        ("nrw", tariffs("src/bin/city/tariffs/simulated.toml"), 2026, german),
        ("england-and-wales", tariffs("src/bin/city/tariffs/recorded.toml"), 2016, english),
    ];
    for (name, set, first, holidays) in examples {
        let calendars: Vec<_> = set.calendars().collect();
        assert_eq!((calendars.len(), calendars[0].name()), (1, name));
        let (from, through) = (calendars[0].complete_from(), calendars[0].complete_through());
        assert_eq!((from, (through.month(), through.day())), (date(first, 1, 1), (12, 31)), "{name}");
        assert!(through.year() >= first + 9 && through.year() >= 2030, "{name}: {through}");
        let expected: BTreeSet<Date> = (first..=through.year()).flat_map(holidays).collect();
        assert_eq!(calendars[0].holidays().collect::<BTreeSet<_>>(), expected, "{name}");
    }
}
