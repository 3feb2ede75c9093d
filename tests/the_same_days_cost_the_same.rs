//! **Promise.** The same cars at the same times cost the same: in every run, and whatever is killed and cut meanwhile. What was
//! taken is the sum of the charges, each stay that ended has one, and the ledger gives the same books again.
//!
//! `city` compares the charges with its own books before it calls them right; here whole runs are compared.

use crate::common::daemon::command;
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// The first day and most of the second: on the first morning cars only come.
const EVENTS: &str = "40000";

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/birmingham/birmingham.csv");

fn run(program: &str, arguments: &[&str]) -> Output {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let output = command(program, &arguments).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The result of a city that ended well.
fn city(data: &Path, more: &[&str]) -> Value {
    let replay = ["--replay", RECORDING, "--limit", EVENTS, "--seed", "11", "--exit-when-settled", "--json"];
    let kept = ["--data-dir", data.to_str().unwrap()];
    let output = run(env!("CARGO_BIN_EXE_city"), &[&replay[..], &kept, more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn server(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_server"), arguments)
}

/// The books of a server that is stopped are sound, and a rebuild gives the same.
fn verify(data: &Path) {
    let verified = server(&["verify", "--data-dir", data.join("server").to_str().unwrap()]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{said}");
}

/// The names of the garages, and what was taken in each.
fn taken(result: &Value) -> Vec<(String, Value)> {
    let garages = result["garages"].as_array().unwrap();
    let of = |garage: &Value| (garage["name"].as_str().unwrap().to_owned(), garage["taken"].clone());
    garages.iter().map(of).collect()
}

/// Pence in a list of sums, which are all in pounds.
fn pence(sums: &Value) -> i64 {
    let pence = |sum: &Value| {
        assert_eq!(sum["currency"], "GBP");
        sum["amount"].as_i64().unwrap()
    };
    sums.as_array().unwrap().iter().map(pence).sum()
}

#[test]
fn in_good_weather_twice_and_in_bad_weather() {
    let dir = tempfile::tempdir().unwrap();
    let places = ["first", "second", "stormy"].map(|name| dir.path().join(name));
    let [first, second, stormy] = &places;
    let results = [city(first, &[]), city(second, &[]), city(stormy, &["--chaos"])];
    for (result, place) in results.iter().zip(&places) {
        assert_eq!(result["books_right"], true, "{result}");
        verify(place);
    }

    let [calm, again, bad] = &results;
    assert_eq!(taken(calm), taken(again));
    assert_eq!(taken(calm), taken(bad));
    assert_eq!((&calm["taken"], &calm["stays"]), (&bad["taken"], &bad["stays"]));
    let garages = taken(calm);
    assert_eq!(garages.len(), 30);
    assert_eq!(garages.iter().map(|(_, sums)| pence(sums)).sum::<i64>(), pence(&calm["taken"]));
    let (total, stays) = (pence(&calm["taken"]), calm["stays"].as_i64().unwrap());
    assert!(stays > 5_000, "{stays} stays");
    // The first hour costs 1.50, and two days no more than 28.00.
    assert!((150 * stays..2_800 * stays).contains(&total), "{total} pence for {stays} stays");
    let chaos = &bad["chaos"];
    assert!(chaos["server_killed"].as_u64() > Some(0) && chaos["edges_killed"].as_u64() > Some(0), "{chaos}");
}

#[test]
fn without_a_tariff_stays_wait_for_their_price() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("plain.toml");
    std::fs::write(&config, "[server]\n").unwrap();
    let place = dir.path().join("city");
    let limit = ["--limit", EVENTS, "--config", config.to_str().unwrap()];
    let result = {
        let replay = ["--replay", RECORDING, "--exit-when-settled", "--json"];
        let kept = ["--data-dir", place.to_str().unwrap()];
        let output = run(env!("CARGO_BIN_EXE_city"), &[&replay[..], &kept, &limit].concat());
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!((&result["books_right"], &result["taken"]), (&true.into(), &Value::Array(Vec::new())));
    assert!(result["stays"].as_u64() > Some(100) && result["statement"].is_null(), "{result}");
    assert!(!place.join("city.toml").exists(), "who gives a configuration gets no example");
    verify(&place);
}
