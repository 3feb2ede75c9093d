//! **Promise.** A stay costs what a person with the sign, a calendar and a clock finds.
//!
//! The examples were computed by hand: `tests/tariffs/worked_examples.csv` for each rule and its edges, `published.csv` for
//! tariffs that operators publish (`examples/tariffs.toml`). Each line says why it costs what it costs.

use crate::common::daemon::{SERVER, command};
use fogpost::parking::Plate;
use fogpost::parking::tariff::TariffSet;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::process::Output;

const TARIFFS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tariffs/tariffs.toml");
const WORKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tariffs/worked_examples.csv");
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tariffs.toml");
const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tariffs/published.csv");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Worked {
    tariff: String,
    plate: String,
    entry: String,
    exit: String,
    amount: i64,
    currency: String,
    reason: String,
}

impl Worked {
    fn times(&self) -> (Timestamp, Timestamp) {
        (self.entry.parse().unwrap(), self.exit.parse().unwrap())
    }
}

fn examples(file: &str) -> Vec<Worked> {
    csv::Reader::from_path(file).unwrap().deserialize().map(Result::unwrap).collect()
}

fn tariffs(file: &str) -> TariffSet {
    let text = std::fs::read_to_string(file).unwrap();
    TariffSet::parse(&text).unwrap_or_else(|errors| panic!("{file}: {errors:#?}"))
}

/// The garage that pays by a tariff of this name.
fn garage_of<'a>(set: &'a TariffSet, name: &str) -> &'a str {
    let tariff = set.tariffs().iter().find(|tariff| tariff.name == name);
    &tariff.unwrap_or_else(|| panic!("there is no tariff {name:?}")).garages[0]
}

/// What is wrong, all of it: a rule that is understood differently shows in several examples.
fn wrong(set: &TariffSet, examples: &[Worked]) -> Vec<String> {
    let judge = |example: &Worked| {
        let (entry, exit) = example.times();
        Plate::new(&example.plate).unwrap();
        assert!(!example.reason.is_empty(), "{example:?}");
        let tariff = set.for_stay(garage_of(set, &example.tariff), entry).unwrap();
        assert_eq!(tariff.name, example.tariff);
        let priced = tariff.price(entry, exit).unwrap();
        let of_lines: i64 = priced.breakdown().iter().map(|line| line.total.minor()).sum();
        assert_eq!(of_lines, priced.amount.minor(), "the breakdown adds up: {example:?}");
        let right =
            (priced.amount.minor(), priced.tariff.currency.code()) == (example.amount, &example.currency);
        (!right).then(|| format!("{} and not {:#?}: {:#?}", priced.money(), example, priced.breakdown()))
    };
    examples.iter().filter_map(judge).collect()
}

#[test]
fn every_worked_example_costs_what_was_computed_by_hand() {
    let (set, examples) = (tariffs(TARIFFS), examples(WORKED));
    assert!(examples.len() >= 100);
    let wrong = wrong(&set, &examples);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_published_tariff_is_expressible_and_has_three_priced_stays() {
    let (set, examples) = (tariffs(EXAMPLE), examples(PUBLISHED));
    assert_eq!(set.tariffs().len(), 13, "12 lines of the source, one of which is two tariffs");
    for tariff in set.tariffs() {
        let stays = examples.iter().filter(|example| example.tariff == tariff.name).count();
        assert!(stays >= 3, "{}", tariff.name);
    }
    let wrong = wrong(&set, &examples);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rules_of_the_files_are_the_same_after_printing() {
    for file in [TARIFFS, EXAMPLE] {
        let set = tariffs(file);
        assert_eq!(TariffSet::parse(&set.to_toml()), Ok(set), "{file}");
    }
}

fn server(args: &[&str]) -> Output {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    command(SERVER, &args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_program_says_the_same() {
    for (file, examples) in [(TARIFFS, examples(WORKED)), (EXAMPLE, examples(PUBLISHED))] {
        let set = tariffs(file);
        for example in examples.iter().step_by(9) {
            let garage = garage_of(&set, &example.tariff);
            let times = ["--entry", &example.entry, "--exit", &example.exit];
            let args = ["tariffs", "price", "--config", file, "--garage", garage, "--json"];
            let output = server(&[&args[..], &times].concat());
            assert!(output.status.success(), "{example:?}: {}", text(&output.stderr));
            let said: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(said["amount"], example.amount, "{example:?}: {said}");
            assert_eq!(said["currency"], example.currency.as_str());
            assert_eq!(said["tariff"], example.tariff.as_str());
            let lines = said["breakdown"].as_array().unwrap();
            let total: i64 = lines.iter().map(|line| line["total"].as_i64().unwrap()).sum();
            assert_eq!(total, example.amount, "{said}");
        }
    }
}

#[test]
fn people_see_the_breakdown_unit_by_unit() {
    let stay = ["--entry", "2026-03-06T17:00:00+01:00", "--exit", "2026-03-07T12:00:00+01:00"];
    let args = ["tariffs", "price", "--config", TARIFFS, "--garage", "centre"];
    let output = server(&[&args[..], &stay].concat());
    assert_eq!(
        text(&output.stdout),
        "\
7.00 EUR by the tariff \"centre\" of 2026-01-01, 19 % VAT included
UNIT  FROM                       EACH  TOTAL  REASON
1     2026-03-06T17:00:00+01:00  3.00  3.00   first units
2     2026-03-06T18:00:00+01:00  2.50  2.50   mon-fri 07:00-19:00
3     2026-03-06T19:00:00+01:00  1.00  1.00   all 00:00-24:00
4     2026-03-06T20:00:00+01:00  0.50  0.50   all 00:00-24:00, held by the cap of 4.00 EUR for mon-sat 18:00-06:00
5-7   2026-03-06T21:00:00+01:00  0.00  0.00   all 00:00-24:00, held by the cap of 4.00 EUR for mon-sat 18:00-06:00
8     2026-03-07T00:00:00+01:00  0.00  0.00   flat for sat 00:00-24:00, held by the cap of 4.00 EUR for mon-sat 18:00-06:00
9-19  2026-03-07T01:00:00+01:00  0.00  0.00   flat for sat 00:00-24:00, paid
7.00 EUR in all
"
    );
    let stay = ["--entry", "2026-03-06T17:00:00+01:00", "--exit", "2026-03-06T17:10:00+01:00"];
    let output = server(&[&args[..], &stay].concat());
    assert!(text(&output.stdout).contains("a stay of at most 10 minutes costs nothing"));
}

#[test]
fn what_cannot_be_priced_is_refused_with_the_reason() {
    let entry = ["--entry", "2026-03-02T08:00:00+01:00"];
    let exit = ["--exit", "2026-03-02T09:00:00+01:00"];
    let (of, garage) = (["tariffs", "price"], ["--garage", "centre"]);
    let config = ["--config", TARIFFS];
    let cases: [(&[&[&str]], i32, &str); 7] = [
        (&[&of, &config, &["--garage", "nowhere"], &entry, &exit], 1, "\"nowhere\" has no tariff"),
        (
            &[&of, &config, &garage, &["--entry", "2025-12-31T23:59:59+01:00"], &exit],
            1,
            "\"centre\" has no tariff",
        ),
        (&[&of, &garage, &entry, &exit], 64, "--config"),
        (&[&of, &config, &garage, &["--entry", "2026-03-02T08:00:00"], &exit], 64, "an offset"),
        (&[&of, &config, &garage, &["--entry", "yesterday"], &exit], 64, "--entry"),
        (&[&of, &config, &garage, &entry, &["--exit", "2026-03-02T07:59:59+01:00"]], 64, "--exit"),
        (&[&of, &config, &entry, &exit], 64, "--garage"),
    ];
    for (args, code, says) in cases {
        let output = server(&args.concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}

#[test]
fn a_file_is_checked_by_itself() {
    let output = server(&["tariffs", "check", EXAMPLE]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("is valid: 13 tariffs, 1 calendar") && said.contains("Keplerstraße P1"), "{said}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tariffs.toml");
    let good = std::fs::read_to_string(EXAMPLE).unwrap();
    let line = 1 + good.lines().position(|line| line.contains("per_unit = 120")).unwrap();
    std::fs::write(&file, good.replace("to = \"24:00\", per_unit = 120", "to = \"23:00\", per_unit = 120"))
        .unwrap();
    let output = server(&["tariffs", "check", file.to_str().unwrap()]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    let expected = format!("line {line}: tariff \"landesbibliothek\": no band covers mon 23:00-24:00");
    assert!(said.contains(&expected), "{said}");

    std::fs::write(&file, "[server]\n").unwrap();
    let output = server(&["tariffs", "check", file.to_str().unwrap()]);
    assert!(output.status.success() && text(&output.stdout).contains("0 tariffs"));
    let output = server(&["tariffs", "check", dir.path().join("none").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64));

    let sundays = "unit_minutes = 60\nbands = [{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 1 }]\n\
                   caps = [{ days = \"sun,holiday\", from = \"06:00\", to = \"06:00\", amount = 1 }]\n";
    let head = "[[tariff]]\nname = \"t\"\ngarages = [\"*\"]\ncurrency = \"EUR\"\ntime_zone = \"Europe/Berlin\"\nvalid_from = 2026-01-01\nvat_percent = 19\n";
    std::fs::write(&file, format!("{head}{sundays}")).unwrap();
    let output = server(&["tariffs", "check", file.to_str().unwrap()]);
    assert!(
        text(&output.stdout)
            .contains("note: the tariff \"t\" of 2026-01-01 uses holiday but has no calendar")
    );
}
