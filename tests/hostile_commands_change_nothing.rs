//! **Promise.** Whatever is written to `admin.sock`, nothing is recorded that the command line would refuse; the server goes on,
//! and its books can be rebuilt. A command that the disk has no room for is refused before any of it is written, as events are.
//!
//! One line written there by hand, a price for the entries 1 to 2^64 - 1, hung the applying thread for ever, also after a restart; another,
//! a piece of 7,000 bytes, ended the server; and an import used up what is kept free for starting again.

use crate::common::money::{TARIFFS, Town};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Sends one line and gives back the last one that comes.
fn say(data_dir: &Path, request: &Value) -> Value {
    let mut stream = UnixStream::connect(data_dir.join("admin.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    writeln!(stream, "{request}").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    serde_json::from_str(said.lines().last().unwrap_or_else(|| panic!("no answer to {request}"))).unwrap()
}

/// Each kind of command with values that no command line gives.
fn hostile_commands(event: &str) -> Vec<Value> {
    let digest = vec![0u8; 16];
    let long = "x".repeat(7000);
    let far = format!("{}/18446744073709551615", event.rsplit_once('/').unwrap().0);
    let place = |index: u64| json!({"position": 1u64, "index": index});
    vec![
        // What only the program records.
        json!({"piece": {"bytes": vec![7; 7000]}}),
        json!({"tariffs": {"pieces": u32::MAX, "digest": digest}}),
        json!({"register": {"pieces": u32::MAX, "digest": digest}}),
        json!({"forget": {"whose": "all", "before": "9999-12-31", "seed": digest}}),
        json!({"payments": {"pieces": u32::MAX, "digest": digest}}),
        json!({"undo_payment": {"payment": 1, "date": "9999-12-31"}}),
        json!("erased"),
        // What an operator may ask for, with other values.
        json!({"rename": {"garage": long, "to": "b"}}),
        json!({"rename": {"garage": "nobody", "to": "b"}}),
        json!({"decommission": {"garage": "nobody", "undo": true}}),
        json!({"capacity": {"garage": "a", "spaces": -1}}),
        json!({"capacity": {"garage": "a", "spaces": u64::MAX}}),
        json!({"capacity": {"garage": "nobody", "spaces": 3}}),
        json!({"release": {"place": place(64)}}),
        json!({"release": {"place": {"position": u64::MAX, "index": null}}}),
        json!({"discard": {"place": {"position": u64::MAX, "index": 0}, "reason": "r"}}),
        json!({"discard": {"place": place(0), "reason": long}}),
        json!({"adopt": {"garage": "nobody"}}),
        json!({"undo": {"decision": u64::MAX}}),
        json!({"void": {"charge": far, "reason": "r"}}),
        json!({"void": {"charge": event, "reason": long}}),
        json!({"credit": {"charge": event, "amount": i64::MIN, "reason": "r"}}),
        json!({"credit": {"charge": event, "amount": i64::MAX, "reason": "r"}}),
        json!({"join_stay": {"entry": far, "exit": far, "reason": "r"}}),
        json!({"join_stay": {"entry": format!("{long}{event}"), "exit": event, "reason": "r"}}),
        json!({"close_stay": {"entry": event, "left_at_ms": i64::MIN, "offset_minutes": 0, "reason": "r"}}),
        json!({"close_stay": {"entry": event, "left_at_ms": 0, "offset_minutes": i16::MIN, "reason": "r"}}),
        json!({"split_stay": {
            "entry": event, "left_at_ms": i64::MIN, "entered_at_ms": i64::MAX, "offset_minutes": 0, "reason": "r"
        }}),
        json!({"bill_stay": {"charge": far, "reason": "r"}}),
    ]
}

/// The same of requests that are no commands.
fn hostile_requests() -> Vec<Value> {
    let long = "x".repeat(7000);
    let put = |put: Value| json!({"put": {"put": put, "dry_run": false}});
    vec![
        json!({"forget": {"whose": {"plate": long}, "before": "2026-12-01"}}),
        json!({"forget": {"whose": {"plate": "NOBODY1"}, "before": "2026-12-01"}}),
        json!({"forget": {"whose": {"account": long}, "before": "2026-12-01"}}),
        put(json!({"tariffs": {"toml": long, "retroactive": "allowed"}})),
        put(json!({"plates": long})),
        put(json!({"contracts": "contract,account,plate,garage\n,,,\n"})),
        put(json!({"remove_plate": {"plate": "NOBODY1", "on": "2026-12-01"}})),
        put(json!({"remove_contract": {"contract": "nobody", "on": "-009999-01-01"}})),
    ]
}

#[test]
fn hostile_commands_are_refused_and_the_server_goes_on() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.stay("a", "AB1", 23, "08:00", "10:00");
    let charge = town.id("");
    let before = town.server.position();
    let commands = hostile_commands(&charge).into_iter().map(|command| json!({ "command": command }));
    for request in commands.chain(hostile_requests()) {
        let answer = say(town.server.dir(), &request);
        let shown: String = request.to_string().chars().take(200).collect();
        let said = answer["error"].as_str().unwrap_or_else(|| panic!("{shown}: {answer}"));
        assert!(said.contains("Nothing was"), "{shown}: {said}");
    }
    assert_eq!(town.server.position(), before);
    town.stay("a", "AB2", 23, "08:00", "10:00");
    assert_eq!(town.short(""), ["AB1 unregistered 500 charged", "AB2 unregistered 500 charged"]);
    town.kill_all();
    town.verify();
}

#[test]
fn commands_and_imports_are_refused_while_the_disk_has_no_room() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.stay("a", "AB1", 23, "08:00", "10:00");
    town.settle();
    let plates = town.file("plates.csv", "plate,account,name\nAB1,miller,Jo\n");
    let config = town.file("fogpost.toml", &format!("[server]\nreserve_bytes = 1000000000000000\n{TARIFFS}"));
    town.restart_server();
    let before = town.server.position();
    let rename = ["garages", "rename", "a", "b"];
    let import = ["plates", "import", plates.as_str()];
    let add = ["plates", "add", "AB1", "miller", "--from", "2026-11-01"];
    for args in [&rename[..], &import, &add] {
        // An import shows what it would change, and is refused then.
        let said = town.operator().says(args);
        assert_eq!(said.code, Some(1), "{said:?}");
        for words in ["the disk has", "Nothing was recorded", "Make room"] {
            assert!(said.stderr.contains(words), "{args:?}: {said:?}");
        }
    }
    assert_eq!(town.server.position(), before);
    // The same without a server.
    assert_eq!(town.server.stop().0, Some(0));
    for args in [&rename[..], &import, &add] {
        let said = town.operator().says(&[args, &["--config", &config]].concat());
        assert!(said.code == Some(1) && said.stderr.contains("Make room"), "{args:?}: {said:?}");
    }
    town.configure(TARIFFS);
    town.server.restart();
    assert_eq!(town.server.position(), before);
    town.operator().says(&import).done();
    town.operator().says(&rename).done();
    town.verify();
}
