//! **Promise.** What is sent to customers adds up: the statements of a month are the charges of that month to the cent, in four
//! formats, numbered without gaps; the journal's debits are its credits and the statements' sums. What people wrote is
//! shown as text: it is never markup in a page and never a formula in a spreadsheet. What has its name is complete.

use crate::common::money::{TARIFFS, Town};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const EVIL: &str = "=cmd|' /C calc'!A0";
const MARKUP: &str = "<script>alert(1)</script>";

/// Stays of several accounts in two months, with corrections.
fn a_town() -> Town {
    let mut town = Town::new(TARIFFS, &["a", "b", "tokyo"]);
    let plates = format!(
        "plate,account,name\nAA 1,acme,Acme Ltd\nAA 2,acme,Acme Ltd\nBB 1,bolt,\"Bolt & \"\"Sons\"\"\"\nCC 1,\"{EVIL}\",\"{MARKUP}\"\nDD 1,../../etc/passwd,\nEE 1,Acme,Another Acme\nFF 1,BB1,A tricky name\n"
    );
    let file = town.file("plates.csv", &plates);
    town.operator().says(&["plates", "import", &file]).done();
    let contracts = "contract,account,plate,garage,valid_from,valid_to,cars\nSeason,bolt,BB 1,b,2026-11-01,2026-11-30,1\n";
    let file = town.file("contracts.csv", contracts);
    town.operator().says(&["contracts", "import", &file]).done();
    for day in 1..=9 {
        for (n, plate) in ["AA 1", "AA 2", "BB 1", "CC 1", "DD 1", "EE 1", "FF 1", "ZZ 9"].iter().enumerate()
        {
            let garage = if (n + usize::from(day)) % 2 == 0 { "a" } else { "b" };
            town.stay(garage, plate, day, "08:00", &format!("{:02}:{:02}", 8 + n, day * 6));
        }
    }
    town.stay("tokyo", "AA 1", 20, "08:00", "10:10");
    // Acme's stay in December is there before the last of November comes.
    let november = |time: &str| format!("2026-11-{time}+01:00");
    for (kind, at) in [("entry", november("30T23:50:00")), ("exit", "2026-12-01T02:00:00+01:00".into())] {
        town.tell("a", &serde_json::json!({"kind": kind, "plate": "AA 1", "at": at}));
    }
    let id = |town: &Town, plate: &str, n: usize| {
        town.charges(&format!("&plate={plate}"))[n]["id"].as_str().unwrap().to_owned()
    };
    let void = id(&town, "AA1", 0);
    town.operator().says(&["charges", "void", &void, "--reason", "+1 =evil"]).done();
    let credit = id(&town, "AA2", 0);
    town.operator()
        .says(&["charges", "credit", &credit, "--amount", "1", "--reason", "@\"quoted\", <b>bold</b>"])
        .done();
    town
}

/// Sums by account and currency.
type Sums = BTreeMap<(String, String), i64>;

/// What the charges of a month are, as programs read them.
fn charged(town: &Town, month: &str) -> Sums {
    let mut sums = Sums::new();
    for line in town.charges(&format!("&month={month}")) {
        if let Some(amount) = line["amount"].as_i64() {
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            *sums.entry((text("account"), text("currency"))).or_default() += amount;
        }
    }
    sums
}

fn export(town: &Town, month: &str, out: &Path) -> Value {
    town.operator()
        .says(&["statements", "export", "--month", month, "--out", out.to_str().unwrap(), "--json"])
        .json()
}

fn files(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn rows(csv: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers().unwrap().clone();
    let row = |record: csv::StringRecord| {
        header.iter().map(str::to_owned).zip(record.iter().map(str::to_owned)).collect()
    };
    reader.records().map(|record| row(record.unwrap())).collect()
}

/// Minor units of a number with two decimals or none.
fn minor(text: &str) -> i64 {
    if text.is_empty() { 0 } else { text.replace('.', "").parse().unwrap() }
}

/// An account as the cell of a table shows it.
fn cell(account: &str) -> String {
    if account.starts_with('=') { format!("'{account}") } else { account.to_owned() }
}

/// Reads all files of a month, and compares them with each other and with the charges.
fn check(town: &Town, month: &str, out: &Path) -> Sums {
    let sums = charged(town, month);
    let accounts: BTreeSet<&str> = sums.keys().map(|(account, _)| account.as_str()).collect();
    let index = rows(&fs::read_to_string(out.join("index.csv")).unwrap());
    let stems: BTreeMap<String, String> =
        index.iter().map(|row| (row["account"].clone(), row["file"].clone())).collect();
    assert_eq!(stems.len(), accounts.len());
    let mut expected: BTreeSet<String> = ["index.csv".to_owned()].into();
    for stem in stems.values() {
        expected.extend(["txt", "json", "csv", "html"].map(|ending| format!("{stem}.{ending}")));
    }
    assert_eq!(files(out), expected);
    let by_index: Sums = index
        .iter()
        .map(|row| ((row["account"].clone(), row["currency"].clone()), minor(&row["gross"])))
        .collect();
    for ((account, currency), sum) in &sums {
        assert_eq!(by_index[&(cell(account), currency.clone())], *sum, "{account}");
        let stem = &stems[&cell(account)];
        let read = |ending: &str| fs::read_to_string(out.join(format!("{stem}.{ending}"))).unwrap();
        let json: Value = serde_json::from_str(&read("json")).unwrap();
        assert_eq!(json["account"].as_str(), Some(account.as_str()));
        let total =
            json["totals"].as_array().unwrap().iter().find(|total| total["currency"] == **currency).unwrap();
        assert_eq!(total["gross"]["amount"], *sum, "{account}");
        assert_eq!(
            total["gross"]["amount"].as_i64().unwrap(),
            total["net"]["amount"].as_i64().unwrap() + total["vat"]["amount"].as_i64().unwrap()
        );
        let lines = json["lines"].as_array().unwrap();
        let of_currency = |line: &&Value| line["currency"] == **currency;
        let by_line: i64 =
            lines.iter().filter(of_currency).map(|line| line["amount"].as_i64().unwrap()).sum();
        assert_eq!(by_line, *sum);
        let table = rows(&read("csv"));
        assert_eq!(table.len(), lines.len());
        let of_currency = |row: &&BTreeMap<String, String>| row["currency"] == *currency;
        assert_eq!(table.iter().filter(of_currency).map(|row| minor(&row["amount"])).sum::<i64>(), *sum);
        for row in &table {
            for (column, cell) in row {
                let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
                assert!(column == "amount" || !is_formula, "{column}: {cell:?}");
            }
        }
        let shown = match currency.as_str() {
            "JPY" => sum.to_string(),
            _ => format!("{}.{:02}", sum / 100, sum % 100),
        };
        assert!(read("txt").contains(&format!("Sums in {currency}")), "{account}: {}", read("txt"));
        assert!(
            read("txt").lines().any(|line| line.starts_with("Total") && line.ends_with(&shown)),
            "{shown}: {}",
            read("txt")
        );
        let page = read("html");
        assert!(page.contains(&format!("{shown} {currency}")), "{account}: {page}");
        assert!(!page.contains("<script") && !page.contains("<b>bold"), "{page}");
        // The same over HTTP.
        let segment: String = account.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let http = town.server.http().get_json(&format!("/v1/statements/{segment}?month={month}"));
        assert_eq!(http, json);
        let html =
            town.server.http().get(&format!("/v1/statements/{segment}?month={month}&format=html")).unwrap();
        assert_eq!(html.body, page);
    }
    sums
}

#[test]
fn the_files_of_a_month_are_its_charges_to_the_cent() {
    let mut town = a_town();
    town.settle();
    let out = town.dir.path().join("november");
    let said = export(&town, "2026-11", &out);
    let sums = check(&town, "2026-11", &out);
    assert_eq!(said["statements"], 7);
    let lines: u64 = rows(&fs::read_to_string(out.join("index.csv")).unwrap())
        .iter()
        .map(|row| (row["file"].clone(), row["lines"].parse().unwrap()))
        .collect::<BTreeMap<String, u64>>()
        .values()
        .sum();
    assert_eq!(said["lines"], lines);
    assert_eq!(sums[&("acme".into(), "JPY".into())], 500);
    assert_eq!(sums.len(), 8);
    let text = fs::read_to_string(out.join("acme-2026-11.txt")).unwrap();
    for part in [
        "Stadtwerke <Musterstadt> & Söhne",
        "Hauptstraße 12",
        "DE 123 456 789",
        "Acme Ltd",
        "+1 =evil",
        "JPY",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let evil = fs::read_to_string(out.join("_cmd____C_calc__A0-2026-11.html")).unwrap();
    assert!(evil.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{evil}");
    // Two accounts that differ by case only have files of their own, also where case is one.
    let stems: BTreeSet<String> = files(&out).iter().map(|file| file.to_lowercase()).collect();
    assert_eq!(stems.len(), files(&out).len());

    // An account that is called like a plate: the account is meant, unless it is said.
    let show = |args: &[&str]| {
        let all = [&["statements", "show", "BB1", "--month", "2026-11", "--format", "json"], args].concat();
        town.operator().says(&all).json()
    };
    assert_eq!((&show(&[])["account"], &show(&["--of", "plate"])["plate"]), (&"BB1".into(), &"BB1".into()));
    assert!(show(&["--of", "plate"])["lines"].as_array().unwrap().iter().any(|line| line["amount"] == 0));

    // The same books without a server, after a kill, and rebuilt.
    let before = fs::read_to_string(out.join("acme-2026-11.csv")).unwrap();
    town.kill_all();
    town.settle();
    town.server.stop();
    town.operator().says(&["rebuild-views"]).done();
    let again = town.dir.path().join("again");
    export(&town, "2026-11", &again);
    assert_eq!(files(&again), files(&out));
    assert_eq!(fs::read_to_string(again.join("acme-2026-11.csv")).unwrap(), before);
    town.server.restart();
    town.verify();
}

#[test]
fn statements_are_numbered_without_gaps() {
    let mut town = a_town();
    for (month, plate) in [("2026-09", "AA 1"), ("2026-10", "AA 1"), ("2026-10", "BB 1")] {
        for (kind, hour) in [("entry", 8), ("exit", 9)] {
            let at = format!("{month}-10T{hour:02}:00:00+02:00");
            town.tell("a", &serde_json::json!({"kind": kind, "plate": plate, "at": at}));
        }
    }
    town.settle();
    let mut numbers: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let mut statements = 0;
    for month in ["2026-09", "2026-10", "2026-11", "2026-12"] {
        let out = town.dir.path().join(month);
        statements += export(&town, month, &out)["statements"].as_u64().unwrap();
        check(&town, month, &out);
        for row in rows(&fs::read_to_string(out.join("index.csv")).unwrap()) {
            numbers.entry(row["account"].clone()).or_default().insert(row["number"].parse().unwrap());
        }
    }
    assert_eq!(numbers["acme"], BTreeSet::from([1, 2, 3, 4]));
    assert_eq!(numbers["bolt"], BTreeSet::from([1, 2]));
    for (account, numbers) in &numbers {
        assert_eq!(*numbers, (1..=numbers.len() as u64).collect(), "{account}");
    }
    assert_eq!(statements, numbers.values().map(|numbers| numbers.len() as u64).sum::<u64>());
    town.verify();
}

#[test]
fn the_journal_balances_and_is_what_the_statements_say() {
    let town = a_town();
    town.settle();
    let journal = town.operator().says(&["journal", "export", "--month", "2026-11"]).done();
    let of_all_months = town.operator().says(&["journal", "export"]).done();
    assert!(journal.lines().all(|row| of_all_months.lines().any(|other| other == row)), "{of_all_months}");
    let rows = rows(&journal);
    let mut entries: BTreeMap<&str, i64> = BTreeMap::new();
    let mut owed = Sums::new();
    for row in &rows {
        let amount = minor(&row["debit"]) - minor(&row["credit"]);
        assert!(row["debit"].is_empty() != row["credit"].is_empty(), "{row:?}");
        *entries.entry(row["document"].as_str()).or_default() += amount;
        if row["account"].starts_with("receivables:") {
            *owed.entry((row["customer"].clone(), row["currency"].clone())).or_default() += amount;
        }
        assert_eq!(row["date"], "2026-11-30");
    }
    assert!(entries.values().all(|sum| *sum == 0), "{entries:?}");
    let statements: Sums = charged(&town, "2026-11")
        .into_iter()
        .filter(|(_, sum)| *sum != 0)
        .map(|((account, currency), sum)| ((cell(&account), currency), sum))
        .collect();
    assert_eq!(owed, statements);
    let file = town.dir.path().join("journal.csv");
    let to = ["journal", "export", "--month", "2026-11", "--out", file.to_str().unwrap()];
    assert!(town.operator().says(&to).done().contains(&format!("{} postings", rows.len())));
    assert_eq!(fs::read_to_string(&file).unwrap(), journal);
    let refused = town.operator().says(&to).refused();
    assert!(refused.contains("exists already. Nothing was written"), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), journal);
}

#[test]
fn a_directory_with_something_in_it_is_refused_and_not_touched() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.stay("a", "AA 1", 3, "08:00", "08:30");
    town.settle();
    let out = town.dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("theirs"), "x").unwrap();
    let to = |out: &Path, format: &str| {
        town.operator().says(&[
            "statements",
            "export",
            "--month",
            "2026-11",
            "--out",
            out.to_str().unwrap(),
            "--format",
            format,
        ])
    };
    let refused = to(&out, "csv").refused();
    assert!(refused.contains("is not empty. Nothing was written"), "{refused}");
    assert_eq!(files(&out), BTreeSet::from(["theirs".to_owned()]));
    let file = town.dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let refused = to(&file, "csv").refused();
    assert!(refused.contains("cannot write"), "{refused}");
    fs::remove_file(out.join("theirs")).unwrap();
    let said = to(&out, "csv").done();
    assert!(said.contains("1 statement for 2026-11 with 1 lines"), "{said}");
    assert_eq!(files(&out), BTreeSet::from(["index.csv".to_owned(), "unregistered-2026-11.csv".to_owned()]));
    let beside: Vec<String> =
        files(town.dir.path()).into_iter().filter(|name| name.starts_with(".fogpost")).collect();
    assert_eq!(beside, Vec::<String>::new());
}

#[test]
fn a_statement_of_very_many_lines_comes_in_pieces_and_not_over_http() {
    const STAYS: u32 = 20_001;
    let mut town = Town::new(TARIFFS, &["a"]);
    let first: jiff::Timestamp = "2026-11-01T00:00:00+01:00".parse().unwrap();
    let mut events = Vec::new();
    for stay in 0..STAYS {
        let entry = first + jiff::SignedDuration::from_secs(i64::from(stay) * 129);
        for (kind, at) in [("entry", entry), ("exit", entry + jiff::SignedDuration::from_mins(15))] {
            let plate = format!("ZZ {}", stay % 10);
            events.push((
                at,
                serde_json::json!({"kind": kind, "plate": plate, "at": at.to_string()}).to_string(),
            ));
        }
    }
    events.sort_by_key(|(at, _)| *at);
    for batch in events.chunks(10_000) {
        let lines: Vec<&str> = batch.iter().map(|(_, line)| line.as_str()).collect();
        town.tell_batch("a", &lines);
    }
    town.settle();
    let http = town.server.http();
    let detail = http.get("/v1/statements/unregistered?month=2026-11").unwrap().problem(422);
    for part in ["more than 20000 lines", "server statements export --month 2026-11", "GET /v1/charges"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    let of_car = http.get_json("/v1/statements/ZZ1?month=2026-11");
    assert_eq!(of_car["lines"].as_array().unwrap().len(), 2_000);
    let out = town.dir.path().join("out");
    assert_eq!(export(&town, "2026-11", &out)["lines"], STAYS);
    let table = rows(&fs::read_to_string(out.join("unregistered-2026-11.csv")).unwrap());
    let ids: BTreeSet<&str> = table.iter().map(|row| row["id"].as_str()).collect();
    assert_eq!(ids.len(), STAYS as usize, "each once");
    assert_eq!(table.iter().map(|row| minor(&row["amount"])).sum::<i64>(), i64::from(STAYS) * 250);
    let entries: Vec<jiff::Timestamp> = table.iter().map(|row| row["exit"].parse().unwrap()).collect();
    assert!(entries.is_sorted(), "in the order of the books");
    // A list of the account's month, followed on the command line.
    let list =
        ["charges", "list", "--account", "unregistered", "--month", "2026-11", "--json", "--limit", "3"];
    let list = town.operator().says(&list).json();
    assert_eq!(list["charges"].as_array().unwrap().len(), 3);
    assert!(list["next"].is_string());
}
