//! **Promise.** The VAT rate of a stay is that of the local date of its exit. A stay that needs a calendar on a day that the calendar
//! does not cover waits for a price, with an anomaly, and people are warned before the calendar ends.

use crate::common::Program;
use crate::common::daemon::{SERVER, command};
use crate::common::money::Town;
use serde_json::json;

/// By these, a weekday's hour is 2.00 EUR, that of a Sunday or holiday 1.00. The calendar ended long ago.
const TARIFF: &str = r#"
[[calendar]]
name = "bw"
holidays = [2020-01-01, 2024-12-25]

[[tariff]]
name = "centre"
garages = ["*"]
currency = "EUR"
time_zone = "Europe/Berlin"
valid_from = 2020-01-01
calendar = "bw"
vat = [{ from = 2007-01-01, percent = 19 }, { from = 2020-07-01, percent = 16 }, { from = 2021-01-01, percent = 19 }]
unit_minutes = 60
bands = [
    { days = "mon-sat", from = "00:00", to = "24:00", per_unit = 200 },
    { days = "sun,holiday", from = "00:00", to = "24:00", per_unit = 100 },
]
"#;

fn parked(town: &mut Town, plate: &str, from: &str, to: &str) {
    town.tell("a", &json!({"kind": "entry", "plate": plate, "at": from}));
    town.tell("a", &json!({"kind": "exit", "plate": plate, "at": to}));
}

/// 1 January 2027 was once priced as a weekday, without a word, because the calendar had the holidays of 2026 only.
#[test]
fn a_stay_on_a_day_that_the_calendar_does_not_cover_waits_until_it_does() {
    let mut town = Town::new(TARIFF, &["a"]);
    parked(&mut town, "AA 1", "2024-12-31T21:00:00+01:00", "2024-12-31T23:00:00+01:00");
    parked(&mut town, "AA 2", "2024-12-31T22:00:00+01:00", "2025-01-01T01:00:00+01:00");
    let before = town.charges("&plate=AA1");
    assert_eq!((&before[0]["amount"], &before[0]["state"]), (&json!(400), &json!("charged")));
    let waits = &town.charges("&plate=AA2")[0];
    assert_eq!((&waits["state"], &waits["amount"]), (&json!("waiting"), &json!(null)));
    let note = waits["note"].as_str().unwrap();
    assert!(note.contains("the calendar \"bw\"") && note.contains("2025-01-01"), "{note}");
    assert!(town.anomalies().contains(&"calendar_incomplete -".to_owned()));

    // People are warned wherever they look.
    let ready = town.server.http().get("/readyz").unwrap();
    assert_eq!(ready.status, 200);
    let warning = "calendar_ends: the calendar \"bw\" ended on 2024-12-31";
    assert!(ready.body.starts_with(&format!("ready\n{warning}")), "{}", ready.body);
    let metrics = town.server.http().get("/metrics").unwrap().body;
    assert!(metrics.contains("fogpost_server_calendar_days_left{calendar=\"bw\"} -"), "{metrics}");
    assert!(town.server.log().contains("calendar_ends"), "{}", town.server.log());
    let file = town.file("fogpost.toml", TARIFF);
    let tariffs = |args: &[&str]| {
        let args: Vec<String> = ["tariffs"].iter().chain(args).map(ToString::to_string).collect();
        let output = command(SERVER, &args).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said, _) = tariffs(&["check", &file]);
    assert!(said.contains("note: the calendar \"bw\" ended on 2024-12-31"), "{said}");
    assert_eq!(code, Some(0));
    let stay = ["--entry", "2024-12-31T22:00:00+01:00", "--exit", "2025-01-01T01:00:00+01:00"];
    let (code, _, said) = tariffs(&[&["price", "--config", &file, "--garage", "a"], &stay[..]].concat());
    assert_eq!(code, Some(1));
    assert!(said.contains("error[calendar_incomplete]: the calendar \"bw\""), "{said}");

    // A longer calendar changes no price that there is, and gives those that wait theirs.
    town.configure(&TARIFF.replace("2024-12-25]", "2024-12-25, 2025-01-01]\ncomplete_through = 2199-12-31"));
    town.restart_server();
    let now = town.charges("&plate=AA2").pop().unwrap();
    assert_eq!((&now["state"], &now["amount"]), (&json!("charged"), &json!(200 + 200 + 100)));
    assert_eq!(town.charges("&plate=AA1"), before);
    assert_eq!(town.server.http().get("/readyz").unwrap().body, "ready\n");
    town.verify();
}

/// The rate was once that of the entry.
#[test]
fn the_vat_rate_is_that_of_the_date_of_the_exit() {
    let mut town = Town::new(TARIFF, &["a"]);
    parked(&mut town, "AA 1", "2020-06-30T20:00:00+02:00", "2020-07-01T08:00:00+02:00");
    parked(&mut town, "AA 2", "2020-06-30T20:00:00+02:00", "2020-06-30T23:00:00+02:00");
    let rate = |plate: &str| town.charges(&format!("&plate={plate}"))[0]["vat_percent"].clone();
    assert_eq!([rate("AA1"), rate("AA2")], [json!(16), json!(19)]);
    let statement = town.server.http().get_json("/v1/statements/AA1?month=2020-07");
    assert_eq!(statement["lines"][0]["vat_percent"], json!(16), "{statement}");
    // 16 % within 24.00 EUR.
    assert_eq!(statement["totals"]["vat"], json!(331), "{statement}");
    town.verify();
}

/// A corrected price once applied to whatever was delivered after the restart, and to nothing before it.
#[test]
fn tariffs_that_would_change_a_price_are_not_taken_and_say_so() {
    let mut town = Town::new(TARIFF, &["a"]);
    parked(&mut town, "AA 1", "2024-12-30T21:00:00+01:00", "2024-12-30T23:00:00+01:00");
    let amount = |town: &Town| town.charges("&plate=AA1")[0]["amount"].clone();
    assert_eq!(amount(&town), json!(400));

    let dearer = TARIFF.replace("per_unit = 200", "per_unit = 300");
    town.configure(&dearer);
    town.restart_server();
    assert!(town.server.log().contains("tariffs_differ"), "{}", town.server.log());
    let ready = town.server.http().get("/readyz").unwrap();
    assert!(
        ready.status == 200 && ready.body.contains("tariffs_differ: the tariff \"centre\""),
        "{}",
        ready.body
    );
    assert_eq!(amount(&town), json!(400), "the ledger's tariffs stay in force");

    let file = town.file("dearer.toml", &dearer);
    let said = town.operator().says(&["tariffs", "put", &file]).refused();
    assert!(said.contains("--retroactive"), "{said}");
    let said = town.operator().says(&["tariffs", "put", &file, "--retroactive", "--dry-run"]).done();
    assert!(said.contains("1 draft changes by 2.00 EUR"), "{said}");
    assert_eq!(amount(&town), json!(400));
    town.operator().says(&["tariffs", "put", &file, "--retroactive"]).done();
    assert_eq!(amount(&town), json!(600));
    assert!(!town.server.http().get("/readyz").unwrap().body.contains("tariffs_differ"));

    // A version from a later day on changes nothing that there is, and is taken.
    let version = &dearer[dearer.find("[[tariff]]").unwrap()..];
    let later = format!("{dearer}{}", version.replace("valid_from = 2020-01-01", "valid_from = 2199-01-01"));
    town.configure(&later);
    town.restart_server();
    assert!(
        town.server.log().contains("the tariffs of the configuration are in force"),
        "{}",
        town.server.log()
    );
    assert_eq!(amount(&town), json!(600));
    town.verify();
}
