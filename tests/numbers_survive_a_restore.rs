//! **Promise.** Numbers of documents are one series without gaps, also after a restore: a server on a backup issues nothing until the
//! documents that were issued since are brought back, or recorded as lost; nor does one whose ledger lost its end. Nothing is billed twice,
//! also where two people issue at once, and a damaged document locks its own account alone.

use crate::common::money::{TARIFFS, Town};
use crate::common::operator::Said;
use crate::common::scale::by_scale;
use crate::common::{Operator, Program};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

const ISSUE: [&str; 5] = ["statements", "issue", "--month", "2024-12", "--json"];

/// Customers miller and adams, and a documents directory that does not move with the data directory.
fn town() -> Town {
    let operator = "[operator]\ncountry = \"DE\"\ntime_zone = \"Europe/Berlin\"\n";
    let config = TARIFFS.replace("[operator]\n", operator);
    let mut town = Town::new(&config, &["a", "b"]);
    town.configure(&format!("[server]\ndocuments_dir = {:?}\n{config}", copies(&town)));
    town.restart_server();
    for (plate, account) in [("MM 1", "miller"), ("AD 1", "adams")] {
        let operator = town.operator();
        operator.says(&["plates", "add", plate, account, "--from", "2024-01-01"]).done();
        operator.says(&["accounts", "set", account, "--name", account, "--address", "Hafen 7"]).done();
    }
    town
}

fn copies(town: &Town) -> PathBuf {
    town.dir.path().join("documents")
}

/// Stays of some hours in 2024, delivered as one page.
fn stays(town: &mut Town, garage: &str, stays: &[(&str, &str, u32)]) {
    let passage = |kind: &str, plate: &str, date: &str, hour: u32| {
        json!({"kind": kind, "plate": plate, "at": format!("2024-{date}T{hour:02}:00:00+01:00")}).to_string()
    };
    let of = |(plate, date, hours): &(&str, &str, u32)| {
        [passage("entry", plate, date, 8), passage("exit", plate, date, 8 + hours)]
    };
    let events: Vec<String> = stays.iter().flat_map(of).collect();
    town.tell_batch(garage, &events.iter().map(String::as_str).collect::<Vec<_>>());
    town.settle();
}

/// `NUMBER ACCOUNT TOTAL` of each document that is issued now.
fn issue(town: &Town) -> Vec<String> {
    let answer = town.operator().says(&ISSUE).json();
    answer["documents"].as_array().unwrap().iter().map(line).collect()
}

fn line(document: &Value) -> String {
    let number = document["number"].as_str().unwrap().split_once('-').unwrap().1;
    format!("{number} {} {}", document["account"].as_str().unwrap(), document["total"])
}

fn list(operator: &Operator) -> Value {
    operator.says(&["documents", "list", "--json"]).json()
}

/// Issues documents 1 and 2, makes a backup, issues 3 and 4, and starts a server on the backup. Edges are silent until they are thawed.
fn restored() -> (Town, Value) {
    let mut town = town();
    stays(&mut town, "a", &[("MM 1", "01-10", 4), ("AD 1", "01-10", 2)]);
    assert_eq!(issue(&town), ["000001 adams 500", "000002 miller 1000"]);
    let copy = town.dir.path().join("copy");
    town.operator().says(&["backup", copy.to_str().unwrap()]).done();
    // Garage b has delivered nothing before the backup.
    stays(&mut town, "a", &[("MM 1", "02-10", 1), ("AD 1", "02-10", 3)]);
    stays(&mut town, "b", &[("MM 1", "02-11", 2)]);
    assert_eq!(issue(&town), ["000003 adams 750", "000004 miller 750"]);
    let documents = list(town.operator());
    assert_eq!(town.server.stop().0, Some(0));
    town.edges.values().for_each(|edge| edge.freeze());
    let file = town.dir.path().join("fogpost.toml");
    let offline = [&ISSUE[..], &["--config", file.to_str().unwrap()]].concat();
    is_locked(&Operator::of(&copy), &offline);
    town.server = town.server.start_in_its_place(&copy);
    town.operate(&copy);
    is_locked(&Operator::of(&copy), &ISSUE);
    (town, documents)
}

fn is_locked(operator: &Operator, issue: &[&str]) {
    let refused = operator.says(issue).refused();
    let what =
        ["error[document_numbers_unknown]", "Nothing was issued", "documents import", "documents resume"];
    assert!(what.iter().all(|part| refused.contains(part)), "{refused}");
}

#[test]
fn documents_that_a_backup_lacks_are_brought_back_and_numbers_go_on() {
    let (mut town, documents) = restored();
    let operator = Operator::of(&town.dir.path().join("copy"));
    let directory = copies(&town);
    let import = ["documents", "import", directory.to_str().unwrap()];
    let shown = operator.says(&[&import[..], &["--dry-run"]].concat()).done();
    assert!(
        shown.contains("2 documents are brought back") && shown.contains("nothing was recorded"),
        "{shown}"
    );
    is_locked(&operator, &ISSUE);
    let said = operator.says(&import).done();
    assert!(said.contains("documents are issued again, from number 5"), "{said}");
    assert_eq!(list(&operator)["documents"], documents["documents"]);
    // Nothing is given back before the events arrive again, and nothing is billed again after.
    assert_eq!(operator.says(&ISSUE).json()["documents"], json!([]));
    town.edges.values().for_each(|edge| edge.thaw());
    town.settle();
    assert_eq!(issue(&town), [""; 0]);
    stays(&mut town, "b", &[("MM 1", "03-10", 1)]);
    assert_eq!(issue(&town), ["000005 miller 250"]);
    town.operator().verifies();
    // The lock has ended in the ledger: neither a restart nor a rebuild brings it back.
    assert_eq!(town.server.stop().0, Some(0));
    operator.says(&["rebuild-views"]).done();
    town.server.restart();
    stays(&mut town, "b", &[("MM 1", "03-11", 1)]);
    assert_eq!(issue(&town), ["000006 miller 250"]);
    assert!(operator.says(&import).done().contains("6 were known"));
}

#[test]
fn numbers_whose_documents_are_lost_are_recorded_and_never_given_again() {
    let (town, _) = restored();
    let operator = Operator::of(&town.dir.path().join("copy"));
    fs::remove_dir_all(copies(&town)).unwrap();
    fs::create_dir(copies(&town)).unwrap();
    let refused = operator.says(&["documents", "import", copies(&town).to_str().unwrap()]).refused();
    assert!(refused.contains("has no documents"), "{refused}");
    let resume = |last: &'static str| ["documents", "resume", "--last", last, "--reason", "burnt"];
    assert!(operator.says(&resume("1")).refused().contains("the last number that is known is 2"));
    operator.says(&[&resume("4")[..], &["--dry-run"]].concat()).done();
    is_locked(&operator, &ISSUE);
    operator.says(&resume("4")).done();
    town.edges.values().for_each(|edge| edge.thaw());
    town.settle();
    assert_eq!(issue(&town), ["000005 adams 750", "000006 miller 750"]);
    let lines = town.operator().says(&["documents", "list"]).done();
    assert!(lines.contains("number 3 to 4 of the series: lost since") && lines.contains("burnt"), "{lines}");
    town.operator().verifies();
}

/// The disk lost the end of the ledger, and with it the last documents. The server starts by itself with what is left; it would give their
/// numbers again.
#[test]
fn a_ledger_that_lost_its_end_issues_nothing_until_it_knows_the_numbers() {
    for is_imported in [true, false] {
        let mut town = town();
        stays(&mut town, "a", &[("MM 1", "01-10", 4), ("AD 1", "01-10", 2)]);
        assert_eq!(issue(&town), ["000001 adams 500", "000002 miller 1000"]);
        stays(&mut town, "a", &[("MM 1", "02-10", 1), ("AD 1", "02-10", 3)]);
        assert_eq!(issue(&town), ["000003 adams 750", "000004 miller 250"]);
        let documents = list(town.operator());
        assert_eq!(town.server.stop().0, Some(0));
        cut(&town.server.dir().join("store/db"), b"-000003");
        town.server.restart();
        town.settle();
        let log = town.server.log();
        let is_said =
            ["ledger_end_lost", "ledger_positions_unreadable"].iter().any(|code| log.contains(code));
        assert!(is_said, "{log}");
        assert_eq!(list(town.operator())["documents"].as_array().unwrap().len(), 2);
        for dry_run in [&["--dry-run"][..], &[]] {
            let refused = town.operator().says(&[&ISSUE[..], dry_run].concat()).refused();
            assert!(refused.contains("which this ledger does not know"), "{refused}");
            assert!(
                refused.contains("Nothing was issued") && refused.contains("documents import"),
                "{refused}"
            );
        }
        let directory = copies(&town);
        if is_imported {
            town.operator().says(&["documents", "import", directory.to_str().unwrap()]).done();
            assert_eq!(list(town.operator())["documents"], documents["documents"]);
            assert_eq!(issue(&town), [""; 0]);
        } else {
            town.operator().says(&["documents", "resume", "--last", "4", "--reason", "the disk"]).done();
            assert_eq!(issue(&town), ["000005 adams 750", "000006 miller 250"]);
        }
        stays(&mut town, "a", &[("MM 1", "03-10", 1)]);
        let next = if is_imported { "000005 miller 250" } else { "000007 miller 250" };
        assert_eq!(issue(&town), [next]);
        // Nothing is wrong but the positions that are lost.
        let said = town.operator().says(&["verify"]).stdout;
        let mut wrong = said.lines().filter(|line| line.starts_with("WRONG"));
        assert!(wrong.all(|line| line.starts_with("WRONG position")), "{said}");
    }
}

#[test]
fn of_two_issues_at_once_one_issues_and_the_other_says_that_nothing_is_due() {
    let mut town = town();
    let file = town.dir.path().join("fogpost.toml");
    let offline = [&ISSUE[..], &["--config", file.to_str().unwrap()]].concat();
    let (mut serial, mut refusals) = (0, 0);
    for day in 1..=by_scale(4, 8, 28) {
        let date = format!("03-{day:02}");
        stays(&mut town, "a", &[("MM 1", &date, 1), ("AD 1", &date, 3)]);
        // Through a running server, and in the directory of a stopped one.
        let args = if day % 4 == 0 { &offline[..] } else { &ISSUE[..] };
        if day % 4 == 0 {
            assert_eq!(town.server.stop().0, Some(0));
        }
        let dir = town.server.dir().to_owned();
        let start = Barrier::new(3);
        let said: Vec<Said> = std::thread::scope(|scope| {
            let give = || {
                start.wait();
                Operator::of(&dir).says(args)
            };
            let given = [(); 3].map(|()| scope.spawn(give));
            given.into_iter().map(|its| its.join().unwrap()).collect()
        });
        if day % 4 == 0 {
            town.server.restart();
        }
        let mut issued = Vec::new();
        for its in said {
            match its.code {
                Some(0) => issued
                    .push(its.json()["documents"].as_array().unwrap().iter().map(line).collect::<Vec<_>>()),
                _ => {
                    let why = its.refused();
                    assert!(day % 4 == 0 && why.contains("is in use by another process"), "{why}");
                    refusals += 1;
                }
            }
        }
        issued.retain(|its| !its.is_empty());
        let expected = [format!("{:06} adams 750", serial + 1), format!("{:06} miller 250", serial + 2)];
        assert_eq!(issued, [expected]);
        serial += 2;
    }
    println!("{refusals} found the directory in use");
    let numbers: Vec<String> =
        list(town.operator())["documents"].as_array().unwrap().iter().map(line).collect();
    assert_eq!(numbers.len(), serial);
    town.operator().verifies();
}

#[test]
fn a_damaged_document_locks_its_account_alone_until_it_is_imported() {
    let mut town = town();
    stays(&mut town, "a", &[("MM 1", "01-10", 4), ("AD 1", "01-10", 2)]);
    assert_eq!(issue(&town), ["000001 adams 500", "000002 miller 1000"]);
    let show = |town: &Town, number: &str| {
        let documents = list(town.operator());
        let documents = documents["documents"].as_array().unwrap().clone();
        let found = documents.iter().find(|its| its["number"].as_str().unwrap().ends_with(number)).unwrap();
        town.operator().says(&["documents", "show", found["number"].as_str().unwrap()])
    };
    let before = show(&town, "1").done();
    assert_eq!(town.server.stop().0, Some(0));
    damage(&town.server.dir().join("store/db"), b"fogpost document 1\n", b"adams");
    town.server.restart();
    town.operator().says(&["verify"]);
    stays(&mut town, "a", &[("MM 1", "02-10", 1), ("AD 1", "02-10", 3)]);
    assert_eq!(town.server.stop().0, Some(0));
    town.operator().says(&["rebuild-views"]).done();
    town.server.restart();
    assert!(show(&town, "1").refused().contains("the document cannot be read"));
    let answer = town.operator().says(&ISSUE).json();
    assert_eq!(
        answer["documents"].as_array().unwrap().iter().map(line).collect::<Vec<_>>(),
        ["000003 miller 250"]
    );
    assert!(answer["open"].to_string().contains("adams"), "{answer}");
    town.operator().says(&["documents", "import", copies(&town).to_str().unwrap()]).done();
    assert_eq!(show(&town, "1").done(), before);
    assert_eq!(issue(&town), ["000004 adams 750"]);
}

/// Cuts a file where some bytes stand first.
fn cut(file: &Path, at: &[u8]) {
    let bytes = fs::read(file).unwrap();
    let place = bytes.windows(at.len()).position(|part| part == at).expect("the file has these bytes");
    fs::File::options().write(true).open(file).unwrap().set_len(place as u64).unwrap();
}

/// Flips a byte in each value of a store that begins with `head` and has `part` behind it.
fn damage(file: &Path, head: &[u8], part: &[u8]) {
    let mut bytes = fs::read(file).unwrap();
    let heads: Vec<usize> = (0..bytes.len() - 600).filter(|at| bytes[*at..].starts_with(head)).collect();
    let of_it = |at: &&usize| bytes[**at..**at + 600].windows(part.len()).any(|window| window == part);
    let places: Vec<usize> = heads.iter().filter(of_it).copied().collect();
    assert!(!places.is_empty() && places.len() < heads.len(), "{places:?} of {heads:?}");
    places.iter().for_each(|at| bytes[*at] ^= 0x10);
    fs::write(file, bytes).unwrap();
}
