//! What issuing takes, and what a late stay takes.

use super::Put;
use super::issue_tests::IssuingTown;
use super::operate::Backend;
use crate::messaging::Epoch;
use crate::messaging::page::{Page, SealedPage};
use crate::server::view::tests::{event, page_of, request};
use crate::store::Store;
use crate::store::simulated::Disk;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Peak resident memory of this process in MB, and begins to count again.
fn peak_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    fs::write("/proc/self/clear_refs", "5").unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

const CARS: usize = 1_000;
const GARAGES: usize = 10;

/// A town in which each of [`CARS`] cars, one to an account, stays so often for an hour in the same garage, every other hour from
/// 2020-10-01 on.
fn filled_town(dir: &Path, stays: i64) -> IssuingTown {
    let store = Store::open(&dir.join("store"), crate::store::Purpose::Server).unwrap();
    let mut town = IssuingTown::on(store, Disk::default());
    let mut accounts = "account,name,address\n".to_owned();
    let mut plates = "plate,account\n".to_owned();
    for n in 0..CARS {
        accounts += &format!("account{n},Customer {n},Street {n}|12345 Town\n");
        plates += &format!("P{n},account{n}\n");
    }
    town.put(Put::Accounts(accounts));
    town.put(Put::Plates(plates));
    for garage in 0..GARAGES {
        let (mut events, mut first, mut previous, epoch) = (Vec::new(), 1, None, Epoch::random());
        let mut pages = Vec::new();
        for stay in 0..stays {
            for plate in (garage..CARS).step_by(GARAGES) {
                events.extend(hour_from(plate, 2 * stay));
                if events.len() >= 62 {
                    let page = page_of(epoch, first, &events).open().unwrap();
                    let page = SealedPage::seal(&Page { previous, ..page });
                    (first, previous) = (first + events.len() as u64, Some(page.digest));
                    pages.push(page);
                    events.clear();
                }
            }
        }
        for some in pages.chunks(16) {
            let request = request(&format!("garage {garage}"), epoch, some.to_vec());
            town.ledger.commit(&[request], 77).unwrap();
        }
        town.shows(0);
    }
    town
}

/// The entry and the exit of a stay of an hour that begins this number of hours after 2020-10-01.
fn hour_from(plate: usize, hours: i64) -> [Vec<u8>; 2] {
    let entered = jiff::civil::date(2020, 10, 1).at(0, 0, 0, 0) + jiff::Span::new().hours(hours);
    [("entry", entered), ("exit", entered + jiff::Span::new().hours(1))]
        .map(|(kind, at)| event(&format!(r#"{{"kind":"{kind}","plate":"P{plate}","at":"{at}+02:00"}}"#)))
}

/// The bar of issue 10: below 20 s and 128 MB. `cargo test --release --lib -- --ignored --nocapture 300_000`.
#[test]
#[ignore = "it measures, and takes a minute"]
fn issuing_300_000_stays_of_1_000_accounts() {
    let dir = tempfile::tempdir().unwrap();
    let mut town = filled_town(dir.path(), 300);
    town.longest = Default::default();
    let (before, began) = (peak_mb(), Instant::now());
    let report = town.issue("2020-10");
    let (took, peak) = (began.elapsed(), peak_mb());
    let lines: u64 =
        report["documents"].as_array().unwrap().iter().map(|its| its["lines"].as_u64().unwrap()).sum();
    let [commit, apply] = town.longest;
    println!(
        "{lines} lines of {} documents: {took:?}, peak {peak} MB (before: {before} MB), longest commit {commit:?}, applied in {apply:?}",
        report["documents"].as_array().unwrap().len()
    );
}

/// The bar of issue 10: below 50 ms. `cargo test --release --lib -- --ignored --nocapture late_stay`. Three cars, of which two have
/// 1,000 stays, share a contract for two.
#[test]
#[ignore = "it measures, and takes some minutes"]
fn a_late_stay_of_one_car_in_a_history_of_a_million_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut town = filled_town(dir.path(), 1_000);
    let lines = [10, 11, 2_000].map(|n| format!("fleet,account10,P{n},*,2020-10-01,2021-12-31,2\n")).concat();
    let columns = "contract,account,plate,garage,valid_from,valid_to,cars\n";
    town.put(Put::Contracts(format!("{columns}{lines}")));
    for (plate, hours) in [(2_000, 0), (2_000, 2), (10, 1), (10, 3), (500, 1), (500, 3)] {
        town.longest = Default::default();
        let began = Instant::now();
        town.deliver("late garage", &hour_from(plate, hours));
        let (took, [_, apply]) = (began.elapsed(), town.longest);
        println!(
            "a late stay of the car P{plate}: {took:?}, of which applying and writing the views {apply:?}"
        );
    }
}
