//! **Promise.** What a command prints with `--json` has the shape that the table at the head of `server::commands::answers` and
//! the head of `edge::commands` document: these names, of these types, and no others.

use crate::common::daemon::{EDGE, command};
use crate::common::money::{TARIFFS, Town};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The shapes of a module's table, by command.
fn documented(module: &str) -> BTreeMap<String, Value> {
    let rows = module.lines().filter_map(|line| line.strip_prefix("//! | `")?.split_once("` | `"));
    let shape = |(command, rest): (&str, &str)| {
        let (shape, _) = rest.split_once('`').unwrap();
        (command.to_owned(), serde_json::from_str(shape).unwrap_or_else(|error| panic!("{command}: {error}")))
    };
    rows.map(shape).collect()
}

/// What of `answer` does not have the shape, each with its place.
fn differences(place: &str, shape: &Value, answer: &Value) -> Vec<String> {
    let wrong = |what: &str| vec![format!("{place}: {what} in {answer}")];
    match (shape, answer) {
        (Value::String(kind), answer) => match (kind.as_str(), answer) {
            (kind, Value::Null) if kind.ends_with('?') => Vec::new(),
            ("text" | "text?", Value::String(_))
            | ("number" | "number?", Value::Number(_))
            | ("boolean", Value::Bool(_))
            | ("object?", Value::Object(_)) => Vec::new(),
            _ => wrong(&format!("no {kind}")),
        },
        (Value::Array(shape), Value::Array(elements)) => {
            elements.iter().flat_map(|element| differences(place, &shape[0], element)).collect()
        }
        (Value::Object(shape), Value::Object(fields)) => {
            let mut found = Vec::new();
            for (name, shape) in shape {
                let known = name.strip_suffix('?').unwrap_or(name);
                match fields.get(known) {
                    Some(field) => found.extend(differences(&format!("{place}.{known}"), shape, field)),
                    None if known != name => {}
                    None => found.extend(wrong(&format!("no {known:?}"))),
                }
            }
            let is_known =
                |name: &&String| shape.contains_key(*name) || shape.contains_key(&format!("{name}?"));
            found.extend(
                fields
                    .keys()
                    .filter(|name| !is_known(name))
                    .map(|name| format!("{place}: {name:?} is not documented")),
            );
            found
        }
        _ => wrong("another kind of value"),
    }
}

#[test]
fn a_wrong_name_and_a_wrong_type_are_found() {
    let shape = json!({"a": "text?", "b?": ["number"], "c": {"d": "boolean"}});
    let holds = |answer: Value| differences("it", &shape, &answer).is_empty();
    assert!(
        holds(json!({"a": null, "c": {"d": true}}))
            && holds(json!({"a": "x", "b": [1, 2], "c": {"d": true}}))
    );
    for wrong in [
        json!({"a": 1, "c": {"d": true}}),
        json!({"c": {"d": true}}),
        json!({"a": "x", "b": ["y"], "c": {"d": true}}),
        json!({"a": "x", "c": {"d": null}}),
        json!({"a": "x", "c": {"d": true, "e": 1}}),
    ] {
        assert!(!holds(wrong.clone()), "{wrong}");
    }
}

/// A town in which each list has something: a renamed garage, a car that is inside, an event in quarantine, a look-alike pair, a
/// long stay, a void.
fn town() -> Town {
    let mut town = Town::new(TARIFFS, &["a", "b"]);
    let day = |day: u8| format!("2026-11-{day:02}T08:00:00+01:00");
    for (garage, kind, plate, at) in [
        ("a", "entry", "B-OO 1", day(3)),
        ("a", "exit", "B-O0 1", day(4)),
        ("a", "entry", "AA 1", day(3)),
        ("b", "entry", "AA 1", day(5)),
        ("b", "exit", "AA 1", day(6)),
    ] {
        town.tell(garage, &json!({"kind": kind, "plate": plate, "at": at}));
        town.settle();
    }
    town.stay("a", "CC 1", 5, "08:00", "10:00");
    town.stay("a", "CC 1", 6, "08:00", "10:00");
    town.correct("a", 1_000, "AA 2");
    town.settle();
    let void = town.charges("&plate=CC1")[0]["id"].as_str().unwrap().to_owned();
    town.operator().says(&["charges", "void", &void, "--reason", "barrier open"]).done();
    town.operator().says(&["garages", "rename", "b", "bravo"]).done();
    town.operator().says(&["garages", "capacity", "bravo", "577"]).done();
    town.operator().says(&["garages", "decommission", "bravo"]).done();
    town
}

#[test]
fn every_command_of_the_server_prints_the_documented_json() {
    let town = town();
    let plates = town.file("plates.csv", "plate,account,name\nAA-1,acme,Acme Ltd\n");
    let contracts = "contract,account,plate,garage,valid_from,valid_to,cars\nseason,acme,AA-1,*,2026-01-01,2026-12-31,1\n";
    let contracts = town.file("contracts.csv", contracts);
    let payments = "number,account,amount,currency,date,reference\n,acme,5.00,EUR,2026-11-09,r\n";
    let payments = town.file("payments.csv", payments);
    let config = town.dir.path().join("fogpost.toml").to_str().unwrap().to_owned();
    let new = |name: &str| town.dir.path().join(name).to_str().unwrap().to_owned();
    let backup = new("backup");
    let (entry, exit) = ("2026-11-23T08:15:00+01:00", "2026-11-23T11:20:00+01:00");
    let charge = town.charges("&plate=CC1")[0]["id"].as_str().unwrap().to_owned();
    let commands: [(&str, &[&str], &str); 18] = [
        ("plates import", &[&plates], "changes"),
        ("contracts import", &[&contracts], "changes"),
        ("plates list", &[], "plates"),
        ("accounts list", &[], "accounts"),
        ("payments import", &[&payments], "waiting"),
        ("payments list", &[], "payments"),
        ("payments list --unallocated", &[], "unallocated"),
        ("contracts list", &[], "contracts"),
        ("garages list", &[], "garages"),
        ("quarantine list", &[], "quarantine"),
        ("stays review", &[], "long"),
        ("charges list", &[], "charges"),
        ("charges show", &[&charge], "events"),
        ("decisions list", &[], "decisions"),
        (
            "tariffs price",
            &["--config", &config, "--garage", "a", "--entry", entry, "--exit", exit],
            "breakdown",
        ),
        ("documents resume", &["--last", "0", "--reason", "r", "--dry-run"], ""),
        ("verify", &[], ""),
        ("backup", &[&backup], ""),
    ];
    let mut shapes = documented(include_str!("../src/server/commands/answers.rs"));
    for (name, args, list) in commands {
        let words: Vec<&str> = name.split(' ').chain(args.iter().copied()).chain(["--json"]).collect();
        let answer = town.operator().says(&words).json();
        let shape = shapes.remove(name).unwrap_or_else(|| panic!("{name} is not documented"));
        assert_eq!(differences(name, &shape, &answer), Vec::<String>::new());
        let is_filled = list.is_empty() || answer[list].as_array().is_some_and(|list| !list.is_empty());
        assert!(is_filled, "{name} is to show something: {answer}");
    }
    assert_eq!(shapes, BTreeMap::new(), "documented, and not tested");
}

#[test]
fn every_command_of_the_edge_prints_the_documented_json() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.server.kill();
    town.edges["a"].http().post_event(&json!({"kind": "entry", "plate": "AA 1"})).unwrap();
    let mut shapes = documented(include_str!("../src/edge/commands.rs"));
    let dir = town.edges["a"].dir().to_str().unwrap().to_owned();
    for name in ["outbox status", "outbox verify"] {
        let words = name.split(' ').chain(["--json", "--data-dir", &dir]).map(str::to_owned);
        let output = command(EDGE, &words.collect::<Vec<String>>()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(differences(name, &shapes.remove(name).unwrap(), &answer), Vec::<String>::new());
    }
    assert_eq!(shapes, BTreeMap::new(), "documented, and not tested");
}
