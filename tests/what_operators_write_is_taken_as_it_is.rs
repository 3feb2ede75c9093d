//! **Promise.** Files are read as spreadsheets save them, texts may begin with a dash, answers and logs are written for people, and what
//! did not add up names the command that resolves it.

use crate::common::Program;
use crate::common::money::{TARIFFS, Town};
use serde_json::{Value, json};

/// Each was refused with a message about a column or a cell that nobody sees in the spreadsheet.
#[test]
fn a_table_is_read_as_spreadsheets_save_it() {
    let town = Town::new(TARIFFS, &["a"]);
    for (number, text) in [
        "sep=;\r\nplate;account;name\r\nAB0;acme;\"Acme; Ltd\"\r\n",
        "\u{feff}plate,account,name,,\r\nAB1,acme,\"Acme; Ltd\",,\r\n,,,,\r\n",
        "plate\taccount\tname\r\nAB2\tacme\tAcme; Ltd\r\n",
        "\"sep=,\"\nplate,account,name\nAB3,acme,Acme; Ltd,,,\n",
    ]
    .into_iter()
    .enumerate()
    {
        let file = town.file("plates.csv", text);
        town.operator().says(&["plates", "import", &file]).done();
        let list = town.operator().says(&["plates", "list", "--json"]).json();
        let line = &list["plates"][number];
        let its = [&line["plate"], &line["account"], &line["name"]];
        assert_eq!(its, [&json!(format!("AB{number}")), &json!("acme"), &json!("Acme; Ltd")], "{text:?}");
    }
    let file = town.file("plates.csv", "plate,account,name,\nAB9,acme,Acme,why\n");
    let said = town.operator().says(&["plates", "import", &file]).refused();
    assert!(said.contains("line 2: it has 4 fields, the header has 3"), "{said}");
}

/// `--reason -5` was "an unexpected argument".
#[test]
fn a_text_may_begin_with_a_dash() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.stay("a", "AA 1", 3, "08:00", "10:30");
    let id = town.id("&plate=AA1");
    let said = town.operator().says(&["charges", "credit", &id, "--amount", "-5", "--reason", "x"]).refused();
    assert!(!said.contains("unexpected argument"), "{said}");
    town.operator().says(&["charges", "credit", &id, "--amount", "5", "--reason", "-5 for the wait"]).done();
    town.operator().says(&["charges", "void", &id, "--reason", "--"]).done();
    let decisions = town.operator().says(&["decisions", "list", "--json"]).json();
    let decisions = decisions["decisions"].as_array().unwrap();
    let reasons: Vec<&Value> = decisions.iter().map(|line| &line["reason"]).collect();
    assert_eq!(reasons, ["-5 for the wait", "--"]);
    town.operator().says(&["plates", "add", "AA1", "-7", "--from", "2026-11-01"]).done();
    town.operator().says(&["accounts", "set", "-7", "--name", "- & Sons -", "--address", "-1|-2"]).done();
    town.operator().says(&["garages", "rename", "a", "-a-"]).done();
    town.operator().says(&["garages", "capacity", "-a-", "30"]).done();
    assert_eq!(town.operator().garage("-a-").unwrap()["capacity"], 30);
    let plates = town.operator().says(&["plates", "list", "--json"]).json();
    let line = &plates["plates"][0];
    assert_eq!([&line["account"], &line["name"]], [&json!("-7"), &json!("- & Sons -")]);
    // The edge's names are texts, too.
    let dir = town.dir.path().join("edge-dash");
    let server = town.server.address();
    let edge = crate::common::Edge::start(&dir, "-1", &[server], &["--machine-id", "-m"]);
    assert_eq!(edge.http().get_json("/v1/board")["own"]["name"], "-1");
}

/// `server garages adopt g` answered `SiteName("g")`.
#[test]
fn answers_and_logs_show_no_forms_of_our_language() {
    let mut town = Town::new(TARIFFS, &["a", "b"]);
    town.stay("a", "AA 1", 3, "08:00", "10:30");
    town.tell("a", &json!({"kind": "entry", "plate": "AA 2"}));
    let id = town.id("&plate=AA1");
    let edited = town.file("edited.toml", &TARIFFS.replace("per_unit = 250", "per_unit = 300"));
    let mut said = Vec::new();
    for command in [
        &["garages", "adopt", "a"][..],
        &["garages", "adopt", "nobody"],
        &["garages", "rename", "a", "b"],
        &["garages", "rename", "a", "A"],
        &["garages", "adopt", "A"],
        &["garages", "decommission", "A"],
        &["garages", "decommission", "A"],
        &["garages", "decommission", "A", "--undo"],
        &["garages", "capacity", "A", "7"],
        &["garages", "capacity", "A", "7"],
        &["garages", "capacity", "b", "--as-told"],
        &["garages", "list"],
        &["quarantine", "list"],
        &["quarantine", "release", "1"],
        &["plates", "add", "AA1", "acme", "--from", "2026-11-01"],
        &["accounts", "set", "acme", "--name", "Acme", "--address", "1 Road|Town", "--country", "GB"],
        &["accounts", "set", "acme", "--country", "Britain"],
        &["accounts", "list"],
        &["accounts", "show", "acme"],
        &["accounts", "show", "nobody"],
        &["plates", "list"],
        &["plates", "remove", "AA1", "--on", "2026-11-02"],
        &["plates", "remove", "AA1", "--on", "2026-11-02"],
        &["contracts", "remove", "c"],
        &["charges", "credit", &id, "--amount", "999999", "--reason", "r"],
        &["charges", "void", &id, "--reason", "r"],
        &["charges", "void", &id, "--reason", "r"],
        &["charges", "list"],
        &["decisions", "list"],
        &["decisions", "undo", "1"],
        &["statements", "show", "AA1", "--month", "2026-11"],
        &["stays", "bill", &id, "--reason", "r"],
        &["stays", "review"],
        &["forget", "AA2"],
        &["forget", "AA9"],
        &["forget", "--account", "acme"],
        &["tariffs", "show"],
        &["tariffs", "put", &edited],
        &["verify"],
    ] {
        let answer = town.operator().says(command);
        assert!(!answer.stdout.is_empty() || !answer.stderr.is_empty(), "{command:?}");
        said.push(format!("{command:?}: {}{}", answer.stdout, answer.stderr));
    }
    said.push(town.server.log());
    said.extend(town.edges.values().map(Program::log));
    for text in said.iter().flat_map(|text| text.lines()) {
        assert_eq!(debug_form(text), None, "{text}");
        // Lines of an address were shown as a list in JSON.
        assert!(!text.contains("[\"1 Road\""), "{text}");
    }
    // What is shown of commands in the log is not what is in them.
    assert!(!town.server.log().contains("AA1"), "a plate stands in the log");
}

/// What `{:?}` makes of a type of ours: its name, with what it holds behind it.
fn debug_form(text: &str) -> Option<&str> {
    text.match_indices(['(', '{']).find_map(|(end, _)| {
        let before = text[..end].trim_end_matches(' ');
        let name = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next()?;
        let is_type = name.len() > 3
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.contains(|c: char| c.is_ascii_lowercase());
        let is_call = is_type && (before.len() == end || text[end..].starts_with('{'));
        is_call.then_some(name)
    })
}

#[test]
fn a_debug_form_is_found_where_there_is_one() {
    for text in ["the garage SiteName(\"g\") is", "sites [Some(3)]", "Hole { first: 3 }", "Capacity {garage"]
    {
        assert!(debug_form(text).is_some(), "{text}");
    }
    for text in ["a stay (Nothing was changed)", "{\"fields\":{\"a\":1}}", "3 events (of 4)", "POST (1)"] {
        assert_eq!(debug_form(text), None, "{text}");
        // Lines of an address were shown as a list in JSON.
        assert!(!text.contains("[\"1 Road\""), "{text}");
    }
}

/// `exit_before_entry` said "check the clocks", and the stay was held for good.
#[test]
fn what_did_not_add_up_is_resolved_by_the_command_that_it_names() {
    let mut town = Town::new(TARIFFS, &["a", "b"]);
    let day = |day: u8, time: &str| format!("2026-11-{day:02}T{time}:00+01:00");
    let entry = |town: &mut Town, garage: &str, plate: &str, at: &str| {
        town.tell(garage, &json!({"kind": "entry", "plate": plate, "at": at}))
    };
    let exit = |town: &mut Town, plate: &str, at: &str| {
        town.tell("a", &json!({"kind": "exit", "plate": plate, "at": at}))
    };
    let before = entry(&mut town, "a", "AA 1", &day(3, "10:00"));
    exit(&mut town, "AA 1", &day(3, "09:00"));
    let unseen = entry(&mut town, "a", "AA 2", &day(3, "08:00"));
    entry(&mut town, "a", "AA 2", &day(3, "20:00"));
    let misread = entry(&mut town, "a", "BO 1", &day(3, "08:00"));
    let read = exit(&mut town, "B0 1", &day(3, "10:30"));
    entry(&mut town, "a", "AA 3", "2026-09-01T08:00:00+02:00");
    exit(&mut town, "AA 3", &day(3, "08:00"));
    town.settle();

    let epoch = town.edges["a"].http().get_json("/v1/outbox")["epoch"].as_str().unwrap().to_owned();
    let id = |sequence: u64| format!("a/{epoch}/{sequence}");
    let long = town.id("&plate=AA3");
    let resolve = |town: &Town, code: &str, plate: &str, words: &[(&str, &str)]| {
        let path = format!("/v1/anomalies?code={code}&plate={plate}");
        let found = town.server.http().get_json(&path)["anomalies"][0].clone();
        let command = found["command"].as_str().unwrap();
        let explained: String = command.split(' ').take(3).collect::<Vec<_>>().join(" ");
        assert!(found["explanation"].as_str().unwrap().contains(&explained), "{found}");
        let args: Vec<&str> = command
            .split(' ')
            .skip(1)
            .map(|word| words.iter().find(|(name, _)| *name == word).map_or(word, |(_, value)| *value))
            .collect();
        town.operator().says(&args).done();
    };
    let reason = ("TEXT", "somebody looked");
    let left = day(3, "12:30");
    for (code, plate, words) in [
        ("exit_before_entry", "AA1", vec![("ENTRY", id(before)), ("TIME", left.clone())]),
        ("entry_while_open", "AA2", vec![("ENTRY", id(unseen)), ("TIME", left.clone())]),
        ("exit_without_entry", "B01", vec![("ENTRY", id(misread)), ("EXIT", id(read))]),
        ("stay_over_30_days", "AA3", vec![("ID", long)]),
    ] {
        let words: Vec<(&str, &str)> =
            words.iter().map(|(name, value)| (*name, value.as_str())).chain([reason]).collect();
        resolve(&town, code, plate, &words);
    }
    assert_eq!(town.short("&plate=AA1&month=2026-11").last().unwrap(), "AA1 unregistered 750 charged");
    assert!(town.short("&plate=AA2").contains(&"AA2 unregistered 1250 charged".to_owned()));
    assert_eq!(town.short("&plate=BO1"), ["BO1 unregistered 750 charged"]);
    assert!(town.short("&plate=AA3").last().unwrap().ends_with(" charged"));
    let words = [("PLATE", "AA1"), ("ACCOUNT", "acme"), ("DATE", "2026-11-01")];
    resolve(&town, "unregistered", "AA1", &words);
    assert!(
        town.short("&plate=AA1").iter().all(|line| line.starts_with("AA1 acme ")),
        "{:?}",
        town.short("")
    );
    assert!(!town.anomalies().contains(&"unregistered AA1".to_owned()));
    town.verify();
}
