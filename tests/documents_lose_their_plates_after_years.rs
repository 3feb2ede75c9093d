//! **Promise.** Once the years are over for which documents keep plates, documents are shown and exported without them, and `server compact`
//! writes a ledger that does not have them. Amounts, numbers and open items stay, numbers go on, and a copy of a document is that document,
//! whether the copy or the ledger has lost the plates.

use crate::common::Operator;
use crate::common::money::{TARIFFS, Town};
use serde_json::{Value, json};
use std::fs;

const NUMBERS: [&str; 2] = ["2022-000001", "2022-000002"];
const PLATES: [&str; 2] = ["QXQ77", "ZZ9"];

fn configuration(town_dir: &str, years: u32) -> String {
    let operator = format!(
        "[operator]\ncountry = \"DE\"\ntime_zone = \"Europe/Berlin\"\nkeep_documents_years = {years}\n"
    );
    format!("[server]\ndocuments_dir = \"{town_dir}/copies\"\n{}", TARIFFS.replace("[operator]\n", &operator))
}

/// A stay of two hours in March 2022.
fn stay(town: &mut Town, plate: &str, day: u32) {
    for (kind, hour) in [("entry", 8), ("exit", 10)] {
        let at = format!("2022-03-{day:02}T{hour:02}:00:00+01:00");
        town.tell("a", &json!({"kind": kind, "plate": plate, "at": at}));
    }
}

/// A document in all its forms, on the command line and over HTTP.
fn shown(town: &Town, number: &str) -> String {
    let mut all = String::new();
    for format in ["text", "json", "csv", "html"] {
        all += &town.operator().says(&["documents", "show", number, "--format", format]).done();
        let answer = town.server.http().get(&format!("/v1/documents/{number}?format={format}")).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        all += &answer.body;
    }
    all
}

fn list(town: &Town) -> Value {
    town.operator().says(&["documents", "list", "--json"]).json()["documents"].clone()
}

#[test]
fn after_their_years_documents_have_no_plates_and_their_copies_are_still_theirs() {
    let mut town = Town::new(TARIFFS, &["a"]);
    let at = |name: &str| town.dir.path().join(name).to_str().unwrap().to_owned();
    let (root, config, copies, exported, new) =
        (at("."), at("fogpost.toml"), at("copies"), at("out"), at("new"));
    town.configure(&configuration(&root, 100));
    town.restart_server();
    town.operator().says(&["plates", "add", PLATES[0], "miller", "--from", "2022-01-01"]).done();
    town.operator().says(&["accounts", "set", "miller", "--name", "Miller", "--address", "Hafen 7"]).done();
    stay(&mut town, PLATES[0], 10);
    stay(&mut town, PLATES[1], 11);
    let issue = ["statements", "issue", "--month", "2022-03", "--date", "2022-04-01"];
    town.operator().says(&issue).done();
    town.operator().says(&[&issue[..], &["--plate", PLATES[1]]].concat()).done();
    for (number, plate) in NUMBERS.iter().zip(PLATES) {
        assert!(shown(&town, number).contains(plate), "{number}");
    }
    let mut documents = list(&town);
    assert_eq!([&documents[0]["plate"], &documents[1]["plate"]], [&json!(null), &json!(PLATES[1])]);
    let listed = |town: &Town| town.operator().says(&["documents", "list"]).done();
    assert!(listed(&town).contains(PLATES[1]), "{}", listed(&town));

    // Two years after the year of issue.
    town.configure(&configuration(&root, 1));
    town.restart_server();
    let has_plates = |text: &str| PLATES.iter().any(|plate| text.contains(plate));
    assert!(NUMBERS.iter().all(|number| !has_plates(&shown(&town, number))));
    documents[1]["plate"] = Value::Null;
    assert_eq!(list(&town), documents);
    assert!(!has_plates(&listed(&town)));
    town.operator().says(&["documents", "export", "--out", &exported]).done();
    let known = |operator: &Operator, dir: &str| {
        let said = operator.says(&["documents", "import", dir]).done();
        assert!(
            said.contains("No document is missing in the ledger; 2 were known; nothing was recorded"),
            "{said}"
        );
    };
    for dir in [&copies, &exported] {
        known(town.operator(), dir);
    }
    assert_eq!(town.server.stop().0, Some(0));
    let said = town.operator().says(&["compact", &new, "--config", &config]).done();
    assert!(said.contains("2 documents issued in") && said.contains("no longer contain plates"), "{said}");
    assert!(
        said.contains("copies (NUMBER.fogpost)") && said.contains("Nothing removes them but you"),
        "{said}"
    );

    // The plates are gone from the ledger: a longer term does not bring them back.
    town.configure(&configuration(&root, 100));
    town.server = town.server.start_in_its_place(new.as_ref());
    town.operate(new.as_ref());
    town.settle();
    assert!(NUMBERS.iter().all(|number| !has_plates(&shown(&town, number))));
    assert_eq!(list(&town), documents);
    let old = fs::read(format!("{copies}/{}.fogpost", NUMBERS[0])).unwrap();
    for dir in [&copies, &exported] {
        known(town.operator(), dir);
    }
    assert_eq!(
        fs::read(format!("{copies}/{}.fogpost", NUMBERS[0])).unwrap(),
        old,
        "copies are the operator's"
    );
    let charge = town.id(&format!("&plate={}", PLATES[0]));
    town.operator().says(&["charges", "void", &charge, "--reason", "barrier open"]).done();
    let answer = town.operator().says(&["statements", "issue", "--month", "2022-03", "--json"]).json();
    assert_eq!(
        (&answer["documents"][0]["kind"], &answer["documents"][0]["total"]),
        (&json!("credit_note"), &json!(-500))
    );
    let number = answer["documents"][0]["number"].as_str().unwrap();
    assert!(number.ends_with("-000003") && shown(&town, number).contains(NUMBERS[0]), "{number}");
    let said = town.operator().verifies();
    assert!(said.contains("; 3 documents: 5.00 EUR; due: nothing\n"), "{said}");
}
