//! **Promise.** What is shown to customers adds up: the drafts of a month's statements are the charges of that month to the cent, in four
//! formats, with VAT. What people wrote is shown as text: it is never markup in a page and never a formula in a spreadsheet.

use crate::common::money::{TARIFFS, Town};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

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
    text.replace('.', "").parse().unwrap()
}

/// Reads the statement of an account in all formats, and compares them with each other and with what was charged.
fn check(town: &Town, (account, currency): (&str, &str), month: &str, sum: i64) {
    let segment: String = account.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let read = |format: &str| {
        let path = format!("/v1/statements/{segment}?month={month}&currency={currency}&format={format}");
        let answer = town.server.http().get(&path).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let json: Value = serde_json::from_str(&read("json")).unwrap();
    assert_eq!((&json["customer"]["account"], &json["draft"]), (&account.into(), &true.into()));
    let totals = &json["totals"];
    assert_eq!(totals["gross"], sum, "{account}");
    assert_eq!(sum, totals["net"].as_i64().unwrap() + totals["vat"].as_i64().unwrap());
    let lines = json["lines"].as_array().unwrap();
    for column in ["gross", "net", "vat"] {
        let by_line: i64 = lines.iter().map(|line| line[column].as_i64().unwrap()).sum();
        assert_eq!(totals[column], by_line, "{account}, {column}");
    }
    let table = rows(&read("csv"));
    assert_eq!(table.len(), lines.len());
    assert_eq!(table.iter().map(|row| minor(&row["gross"])).sum::<i64>(), sum);
    for row in &table {
        for (column, cell) in row {
            let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
            assert!(!is_formula, "{column}: {cell:?}");
        }
    }
    let shown = match currency {
        "JPY" => sum.to_string(),
        _ => format!("{}.{:02}", sum / 100, sum % 100),
    };
    let text = read("text");
    assert!(text.contains(&format!("Sums in {currency}")), "{account}: {text}");
    assert!(text.lines().any(|line| line.starts_with("Total") && line.ends_with(&shown)), "{shown}: {text}");
    let page = read("html");
    assert!(page.contains(&format!("{shown} {currency}")), "{account}: {page}");
    assert!(!page.contains("<script") && !page.contains("<b>bold"), "{page}");
    // The same on the command line, which prints all currencies.
    let printed = town.operator().says(&["statements", "show", account, "--month", month, "--of", "account"]);
    assert!(printed.done().contains(&text), "{account}");
}

#[test]
fn the_statements_of_a_month_are_its_charges_to_the_cent() {
    let mut town = a_town();
    town.settle();
    for month in ["2026-11", "2026-12"] {
        let sums = charged(&town, month);
        for ((account, currency), sum) in sums.iter().filter(|((account, _), _)| account != "unregistered") {
            check(&town, (account, currency), month, *sum);
        }
        if month == "2026-11" {
            assert_eq!(sums[&("acme".into(), "JPY".into())], 500);
            assert_eq!(sums.len(), 8);
        }
    }
    let text = town.operator().says(&["statements", "show", "acme", "--month", "2026-11"]).done();
    for part in ["Stadtwerke <Musterstadt> & Söhne", "Hauptstraße 12", "DE 123 456 789", "Acme Ltd", "JPY"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let segment: String = EVIL.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let evil = format!("/v1/statements/{segment}?month=2026-11&format=html");
    let evil = town.server.http().get(&evil).unwrap().body;
    assert!(evil.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{evil}");

    // An account that is called like a plate: the account is meant, unless it is said.
    let show = |args: &[&str]| {
        let all = [&["statements", "show", "BB1", "--month", "2026-11", "--format", "json"], args].concat();
        town.operator().says(&all).json()
    };
    let (account, plate) = (show(&[]), show(&["--of", "plate"]));
    assert_eq!(
        (&account["customer"]["account"], &plate["customer"]["plate"]),
        (&"BB1".into(), &"BB1".into())
    );
    assert!(
        plate["lines"].as_array().unwrap().iter().any(|line| line["gross"] == 0),
        "covered stays are listed"
    );

    // The same books without a server, after a kill, and rebuilt.
    let config = town.dir.path().join("fogpost.toml").to_str().unwrap().to_owned();
    let shown = |town: &Town| {
        let show =
            ["statements", "show", "acme", "--month", "2026-11", "--format", "csv", "--config", &config];
        town.operator().says(&show).done()
    };
    let before = shown(&town);
    town.kill_all();
    town.settle();
    town.server.stop();
    town.operator().says(&["rebuild-views"]).done();
    assert_eq!(shown(&town), before);
    town.server.restart();
    town.verify();
}

/// The cars that nobody registered have no statement together: each has its own.
#[test]
fn verify_says_what_all_drafts_add_up_to() {
    let town = a_town();
    town.settle();
    let said = town.operator().says(&["verify", "--json"]).json();
    let charges = town.charges("");
    let priced = charges.iter().filter(|line| !line["amount"].is_null());
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for line in priced.clone() {
        *sums.entry(line["currency"].as_str().unwrap()).or_default() += line["amount"].as_i64().unwrap();
    }
    let amounts: Vec<Value> = sums
        .iter()
        .map(|(currency, amount)| serde_json::json!({"amount": amount, "currency": currency}))
        .collect();
    assert_eq!(said["drafts"], priced.count());
    assert_eq!((&said["amounts"], &said["due"]), (&Value::from(amounts.clone()), &amounts.into()));
    assert_eq!((&said["documents"], &said["issued"]), (&0.into(), &serde_json::json!([])));
    let text = town.operator().verifies();
    let eur = format!("{}.{:02} EUR", sums["EUR"] / 100, sums["EUR"] % 100);
    let expected = format!("drafts of charges: {eur}, {} JPY; 0 documents: nothing; due: {eur}", sums["JPY"]);
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn a_statement_of_very_many_lines_comes_in_pieces_and_not_over_http() {
    const STAYS: u32 = 20_001;
    let mut town = Town::new(TARIFFS, &["a"]);
    let plates: String = (0..10).map(|car| format!("ZZ {car},metro\n")).collect();
    let plates = town.file("plates.csv", &format!("plate,account\n{plates}"));
    town.operator().says(&["plates", "import", &plates]).done();
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
    let detail = http.get("/v1/statements/metro?month=2026-11").unwrap().problem(422);
    for part in ["more than 20000 lines", "server statements show", "GET /v1/charges"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    let of_car = http.get_json("/v1/statements/ZZ1?month=2026-11");
    assert_eq!(of_car["lines"].as_array().unwrap().len(), 2_000);
    let show = ["statements", "show", "metro", "--month", "2026-11", "--format", "csv"];
    let table = rows(&town.operator().says(&show).done());
    let ids: BTreeSet<&str> = table.iter().map(|row| row["reference"].as_str()).collect();
    assert_eq!((table.len(), ids.len()), (STAYS as usize, STAYS as usize), "each once");
    assert_eq!(table.iter().map(|row| minor(&row["gross"])).sum::<i64>(), i64::from(STAYS) * 250);
    let exits: Vec<jiff::Timestamp> = table.iter().map(|row| row["left_at"].parse().unwrap()).collect();
    assert!(exits.is_sorted(), "in the order of the exits");
    // A list of the account's month, followed on the command line.
    let list = ["charges", "list", "--account", "metro", "--month", "2026-11", "--json", "--limit", "3"];
    let list = town.operator().says(&list).json();
    assert_eq!(list["charges"].as_array().unwrap().len(), 3);
    assert!(list["next"].is_string());
}
