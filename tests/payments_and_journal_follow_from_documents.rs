//! **Promise.** Open items and the journal follow from documents and payments: what is paid, paid in part, paid too much, paid back or
//! offset is said to the cent, whatever is killed in the middle. A payment that is imported twice counts once, each booking is exported
//! once, and hledger adds up what the server says.

use crate::common::money::{TARIFFS, Town};
use crate::common::{Operator, requires};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

/// A month of three customers: miller parked for 10.00, adams and young for 5.00 each. The month has long ended, so that its documents
/// and payments have dates of their own in the past.
fn town() -> Town {
    let operator = "[operator]\ncountry = \"DE\"\ntime_zone = \"Europe/Berlin\"\npayment_days = 14\n";
    let mut town = Town::new(&TARIFFS.replace("[operator]\n", operator), &["a"]);
    for (plate, account) in [("MM 1", "miller"), ("AD 1", "adams"), ("YO 1", "young")] {
        let operator = town.operator();
        operator.says(&["plates", "add", plate, account, "--from", "2024-01-01"]).done();
        let customer = ["--name", account, "--address", "Hafenstraße 7|20457 Hamburg", "--country", "DE"];
        operator.says(&[&["accounts", "set", account][..], &customer].concat()).done();
    }
    for (plate, hours) in [("MM 1", 4), ("AD 1", 2), ("YO 1", 2)] {
        let at = |hour: u32| format!("2024-01-10T{hour:02}:00:00+01:00");
        town.tell("a", &json!({"kind": "entry", "plate": plate, "at": at(8)}));
        town.tell("a", &json!({"kind": "exit", "plate": plate, "at": at(8 + hours)}));
    }
    town.settle();
    town
}

/// `account total paid open` of each document, by number.
fn documents(town: &Town, filter: &[&str]) -> BTreeMap<String, String> {
    let answer = town.operator().says(&[&["documents", "list", "--json"], filter].concat()).json();
    let line = |line: &Value| {
        let amount = |field: &str| line[field].as_i64().unwrap();
        let shown = format!(
            "{} {} {} {}",
            line["account"].as_str().unwrap(),
            amount("total"),
            amount("paid"),
            amount("open")
        );
        (line["number"].as_str().unwrap().to_owned(), shown)
    };
    answer["documents"].as_array().unwrap().iter().map(line).collect()
}

/// `account amount` of money that pays no document.
fn unallocated(town: &Town) -> Vec<String> {
    let answer = town.operator().says(&["payments", "list", "--unallocated", "--json"]).json();
    let line = |line: &Value| format!("{} {}", line["account"].as_str().unwrap_or("-"), line["amount"]);
    answer["unallocated"].as_array().unwrap().iter().map(line).collect()
}

/// The rows of an export of the bookings after a number, and the number of the last booking that it names.
fn export(town: &Town, after: u64, name: &str) -> (Vec<Vec<String>>, u64) {
    let file = town.dir.path().join(name);
    let (after_text, out) = (after.to_string(), file.to_str().unwrap());
    let said = town.operator().says(&["journal", "export", "--after", &after_text, "--out", out]).done();
    let last = said.trim().rsplit_once(' ').unwrap().1.parse().unwrap();
    let mut rows = csv::Reader::from_path(&file).unwrap();
    let rows = rows.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
    (rows.collect(), last)
}

/// The balance of each account by the rows of an export, in cents: debits less credits.
fn balances(rows: &[Vec<String>]) -> BTreeMap<String, i64> {
    let cents = |text: &str| text.replace('.', "").parse::<i64>().unwrap_or(0);
    let mut balances = BTreeMap::new();
    for row in rows {
        *balances.entry(row[3].clone()).or_default() += cents(&row[4]) - cents(&row[5]);
    }
    balances.retain(|_, balance| *balance != 0);
    balances
}

fn hledger_balances(town: &Town) -> BTreeMap<String, i64> {
    let file = town.dir.path().join("all.journal");
    let out = file.to_str().unwrap();
    town.operator().says(&["journal", "export", "--format", "hledger", "--out", out]).done();
    let arguments = ["-f", out, "balance", "--flat", "--no-total", "-O", "csv"];
    let output = Command::new("hledger").args(arguments).env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let cents = |text: &str| text.trim_end_matches(" EUR").replace('.', "").parse::<i64>().unwrap();
    let rows = csv::Reader::from_reader(&output.stdout[..]).records().map(Result::unwrap).collect::<Vec<_>>();
    rows.iter().map(|row| (row[0].to_owned(), cents(&row[1]))).filter(|(_, cents)| *cents != 0).collect()
}

#[test]
fn a_month_is_issued_paid_and_corrected_through_kills() {
    let mut town = town();
    town.through_kills(&["statements", "issue", "--month", "2024-01", "--date", "2024-02-01"], "");
    let issued = documents(&town, &[]);
    let [adams, miller, young] = ["adams", "miller", "young"].map(|account| {
        let found: Vec<_> = issued.iter().filter(|(_, line)| line.starts_with(account)).collect();
        assert_eq!(found.len(), 1, "one document for each account: {issued:?}");
        found[0].0.clone()
    });
    assert_eq!(issued[&miller], "miller 1000 0 1000");

    // Miller pays, adams in part, young too much, and somebody a document that nobody knows.
    let csv = format!(
        "number,account,amount,currency,date,reference\n{miller},,10.00,EUR,2024-02-05,\n{adams},adams,2.00,EUR,2024-02-06,first part\n{young},,7.00,EUR,2024-02-07,\n2024-900001,,4.00,EUR,2024-02-08,typing error\n"
    );
    let file = town.file("payments.csv", &csv);
    let shown = town.operator().says(&["payments", "import", &file, "--dry-run"]).done();
    assert!(shown.contains("4 new payments, 23.00 EUR") && shown.contains("nothing was recorded"), "{shown}");
    town.through_kills(&["payments", "import", &file], "");
    let position = town.server.position();
    let again = town.operator().says(&["payments", "import", &file]).done();
    assert!(again.contains("No payment is new") && again.contains("4 lines were skipped"), "{again}");
    assert_eq!(town.server.position(), position);
    let payments = town.operator().says(&["payments", "list", "--json"]).json();
    assert_eq!(payments["payments"].as_array().unwrap().len(), 4, "{payments}");
    let open = |town: &Town| documents(town, &["--open"]);
    assert_eq!(open(&town), BTreeMap::from([(adams.clone(), "adams 500 200 300".to_owned())]));
    assert_eq!(documents(&town, &["--open", "--days", "100000"]), BTreeMap::new());
    assert_eq!(unallocated(&town), ["- 400", "young 200"]);
    let (first_rows, first_last) = export(&town, 0, "first.csv");

    // What was typed wrong is corrected; the stay of young is voided, and a part of adams' given back.
    let wrong = payments["payments"].as_array().unwrap().iter().find(|its| its["amount"] == 400).unwrap();
    let wrong = wrong["id"].to_string();
    town.through_kills(&["payments", "undo", &wrong], "already undone");
    let charge = |plate: &str| town.charges(&format!("&plate={plate}"))[0]["id"].as_str().unwrap().to_owned();
    let (of_young, of_adams) = (charge("YO1"), charge("AD1"));
    town.operator().says(&["charges", "void", &of_young, "--reason", "barrier open"]).done();
    town.operator().says(&["charges", "credit", &of_adams, "--amount", "100", "--reason", "wet"]).done();
    town.through_kills(&["statements", "issue", "--month", "2024-01", "--date", "2024-03-01"], "");
    let mut all = documents(&town, &[]);
    assert_eq!(all.len(), 5, "two credit notes: {all:?}");
    assert_eq!(all.remove(&adams).unwrap(), "adams 500 300 200", "the credit note offsets a part");
    assert_eq!(all.remove(&miller).unwrap(), "miller 1000 1000 0");
    assert_eq!(all.remove(&young).unwrap(), "young 500 500 0");
    let credits: Vec<String> = all.values().cloned().collect();
    assert_eq!(credits, ["adams -100 -100 0", "young -500 0 -500"]);
    assert_eq!(unallocated(&town), ["young 200"]);
    let over_http = town.server.http().get_json("/v1/documents?open=true");
    assert_eq!(over_http["documents"].as_array().unwrap().len(), open(&town).len(), "{over_http}");

    // Each booking is exported once, and what is exported later continues what was exported before.
    let (second_rows, last) = export(&town, first_last, "second.csv");
    let (whole, whole_last) = export(&town, 0, "whole.csv");
    assert_eq!(
        (first_rows.iter().chain(&second_rows).cloned().collect::<Vec<_>>(), last),
        (whole.clone(), whole_last)
    );
    let mut numbers: Vec<u64> = whole.iter().map(|row| row[0].parse().unwrap()).collect();
    numbers.dedup();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
    assert_eq!(export(&town, last, "nothing.csv"), (vec![], last));
    let refused = town.operator().says(&["journal", "export", "--after", "1000", "--out", "x.csv"]).refused();
    assert!(
        refused.contains("there is no booking 1000") && refused.contains("Nothing was exported"),
        "{refused}"
    );
    let sums = balances(&whole);
    assert_eq!(sums["assets:bank"], 1_900);
    assert_eq!(sums["assets:receivable:adams"], 200);
    assert_eq!(sums["assets:receivable:young"], -500);
    assert_eq!(sums["liabilities:unallocated:young"], -200);
    assert!(!sums.contains_key("assets:receivable:miller") && !sums.contains_key("liabilities:unallocated"));
    assert_eq!(sums.values().sum::<i64>(), 0);
    if requires::hledger() {
        assert_eq!(hledger_balances(&town), sums);
    }
    town.verify();

    // The same from a directory on which no server runs, and after a rebuild of the views.
    assert_eq!(town.server.stop().0, Some(0));
    let offline = Operator::of(town.server.dir());
    let out = town.dir.path().join("offline.csv");
    offline.says(&["rebuild-views"]).done();
    offline.says(&["journal", "export", "--out", out.to_str().unwrap()]).done();
    let [offline, online] =
        ["offline.csv", "whole.csv"].map(|name| std::fs::read(town.dir.path().join(name)).unwrap());
    assert_eq!(offline, online);
}

/// Adams owes two months, and a stay of the younger is credited: what is open of the older stays, and so does its reminder.
#[test]
fn a_credit_note_reduces_the_invoice_that_it_corrects() {
    let mut town = town();
    for (kind, hour) in [("entry", 8), ("exit", 10)] {
        let at = format!("2024-02-10T{hour:02}:00:00+01:00");
        town.tell("a", &json!({"kind": kind, "plate": "AD 1", "at": at}));
    }
    let issue = |town: &Town, month: &str, date: &str| {
        town.operator().says(&["statements", "issue", "--month", month, "--date", date]).done();
    };
    issue(&town, "2024-01", "2024-02-01");
    issue(&town, "2024-02", "2024-03-01");
    let of_february = town.charges("&plate=AD1&month=2024-02");
    for (amount, date, open) in [("100", "2024-03-02", 400), ("150", "2024-03-03", 250)] {
        let id = of_february[0]["id"].as_str().unwrap();
        town.operator().says(&["charges", "credit", id, "--amount", amount, "--reason", "wet"]).done();
        issue(&town, "2024-02", date);
        let shown: Vec<String> = documents(&town, &["--open", "--account", "adams"]).into_values().collect();
        assert_eq!(shown, ["adams 500 0 500".to_owned(), format!("adams 500 {} {open}", 500 - open)]);
    }
    town.verify();
}

/// The journal goes to stdout, the number of the last booking to stderr.
#[test]
fn a_journal_without_a_file_goes_to_stdout() {
    let town = Town::new(TARIFFS, &[]);
    let file = town.file("payments.csv", "account,amount,currency,date\nmiller,3.00,EUR,2024-02-01\n");
    town.operator().says(&["payments", "import", &file]).done();
    let said = town.operator().says(&["journal", "export"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.stdout.lines().count(), 3, "a header and two lines: {said:?}");
    assert!(said.stderr.contains("--after 1"), "{said:?}");
    let undone = town.operator().says(&["payments", "undo", "7"]).refused();
    assert!(undone.contains("there is no payment 7") && undone.contains("Nothing was recorded"), "{undone}");
    let bad =
        town.file("bad.csv", "number,amount,currency,date\n1,\"1,50\",EUR,2024-02-01\n2,1,EUR,2999-01-01\n");
    let refused = town.operator().says(&["payments", "import", &bad]).refused();
    for words in ["line 2", "line 3", "Nothing was recorded"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    assert_eq!(
        town.operator().says(&["payments", "list", "--json"]).json()["payments"][0]["state"],
        "waiting"
    );
    let listed = town.operator().says(&["payments", "list"]).done();
    assert!(listed.contains("waiting: it names no document"), "{listed}");
}
