//! How long pricing takes, with the working: a stay of an hour, of a day and of a month, by a tariff with everything in it.
//!
//! `cargo bench --bench tariff`
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement is not a daemon")]

use fogpost::parking::tariff::{Priced, TariffSet};
use jiff::{SignedDuration, Timestamp};
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUND: Duration = Duration::from_millis(500);
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tariffs/tariffs.toml"))?;
    let set = TariffSet::parse(&text).map_err(|errors| format!("{errors:?}"))?;
    let summer: Timestamp = "2026-10-24T08:15:00+02:00".parse()?;
    for (what, garage, hours) in [
        ("an hour, centre (units of 60 min)", "centre", 1),
        ("a day, centre, over a change of the clocks", "centre", 24),
        ("a day, library (units of 30 min)", "library", 24),
        ("a day, quarter (units of 15 min)", "quarter", 24),
        ("30 days, library", "library", 30 * 24),
    ] {
        let took = median((0..ROUNDS).map(|_| round(&set, garage, summer, hours)).collect());
        let priced = price(&set, garage, summer, hours);
        println!("{what:<44} {took:>8.2} µs, {} units", priced.units());
    }
    Ok(())
}

fn price<'t>(set: &'t TariffSet, garage: &str, entry: Timestamp, hours: i64) -> Priced<'t> {
    let tariff = set.for_stay(garage, entry).expect("each garage has a tariff");
    tariff.price(entry, entry + SignedDuration::from_hours(hours)).expect("the calendar covers it")
}

/// Microseconds for a stay, the choice of the tariff included.
fn round(set: &TariffSet, garage: &str, entry: Timestamp, hours: i64) -> f64 {
    let (began, mut stays) = (Instant::now(), 0u32);
    while began.elapsed() < ROUND {
        for second in 0..100 {
            let entry = entry + SignedDuration::from_secs(second);
            black_box(price(set, garage, black_box(entry), hours));
        }
        stays += 100;
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(stays)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
