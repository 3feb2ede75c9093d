//! **Promise.** Commands, sign-ins and refused attempts are in a list, with time, name, role and address. It has no plates, no tokens and
//! no amounts, and a flood of refused attempts removes no command from it.

use crate::common::operator::at_the_edge;
use crate::common::{Edge, Operator, Server, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn list(dir: &Path) -> Vec<Value> {
    let answer = Operator::of(dir).says(&["audit", "--limit", "100000", "--json"]).json();
    answer["audit"].as_array().unwrap().clone()
}

/// The lines about a kind: what, name, role, address and outcome of each.
fn of_kind(lines: &[Value], kind: &str) -> Vec<[String; 5]> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let of_kind = lines.iter().filter(|line| line["kind"] == kind);
    of_kind
        .map(|line| ["what", "name", "role", "address", "outcome"].map(|field| text(&line[field])))
        .collect()
}

#[test]
fn commands_sign_ins_and_refused_attempts_are_listed_without_plates() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("server");
    let operator = Operator::of(&at);
    let mut server = Server::start(&at, &[]);
    operator.says(&["plates", "add", "KA1SECRET", "miller", "--from", "2026-10-01"]).done();
    operator.says(&["garages", "rename", "no such garage", "b"]).refused();
    operator.says(&["plates", "list"]).done(); // it changes nothing
    let said = operator.says(&["tokens", "add", "ada", "--role", "read"]).done();
    let token = said.lines().next().unwrap();
    let http = server.http();
    wait_until("tokens are needed", SOON, &[&server], || {
        http.get("/v1/stays?plate=KA1SECRET").unwrap().status == 401
    });
    let ada = http.with("Authorization", &format!("Bearer {token}"));
    ada.get("/v1/statements/KA1SECRET?month=2026-10").unwrap().problem(403);
    let form = "application/x-www-form-urlencoded";
    assert_eq!(http.post("/sign-in", form, b"token=fogpost_guessed").unwrap().status, 401);
    assert_eq!(http.post("/sign-in", form, format!("token={token}").as_bytes()).unwrap().status, 303);
    assert_eq!(ada.post("/sign-out", form, b"").unwrap().status, 303);
    http.with("Host", "other.example").get("/v1/garages").unwrap().problem(421);
    wait_until("all of it is listed", SOON, &[&server], || of_kind(&list(&at), "sign_out").len() == 1);
    wait_until("all of it is listed", SOON, &[&server], || {
        of_kind(&list(&at), "refused").iter().any(|line| line[4] == "unknown_host")
    });
    server.stop();
    operator.says(&["plates", "remove", "KA1SECRET", "--on", "2026-11-01"]).done(); // without a server

    let lines = list(&at);
    let commands = of_kind(&lines, "command");
    let expected = [
        ("add_plate", "admin.sock", "done"),
        ("rename", "admin.sock", "command_refused"),
        ("tokens add ada --role read", "command line", "done"),
        ("remove_plate", "command line", "done"),
    ];
    assert_eq!(commands.len(), expected.len(), "{commands:?}");
    for ([what, name, role, address, outcome], expected) in commands.iter().zip(expected) {
        assert!(what.contains(expected.0.split('_').next().unwrap()), "{what} {expected:?}");
        assert!(name.contains("uid ") && role == "operator", "{name} {role}");
        assert_eq!((address.as_str(), outcome.as_str()), (expected.1, expected.2), "{what}");
    }
    let [sign_in] = &of_kind(&lines, "sign_in")[..] else { panic!("{lines:?}") };
    assert_eq!(sign_in, &["/sign-in", "ada", "read", "127.0.0.1", "done"]);
    let refused = of_kind(&lines, "refused");
    for line in [
        ["/v1/stays", "-", "-", "127.0.0.1", "token_missing"],
        ["/v1/statements/…", "ada", "read", "127.0.0.1", "role_insufficient"],
        ["/sign-in", "-", "-", "127.0.0.1", "token_unknown"],
        ["/v1/garages", "-", "-", "127.0.0.1", "unknown_host"],
    ] {
        assert!(refused.iter().any(|its| *its == line), "{line:?} is not in {refused:?}");
    }
    let text = format!("{lines:?}");
    for secret in ["KA1SECRET", "guessed", &token["fogpost_".len()..]] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    let shown = operator.says(&["audit", "--limit", "2"]).done();
    assert!(shown.lines().count() == 3 && shown.starts_with("AT"), "{shown}");
}

#[test]
fn a_flood_of_refused_attempts_removes_no_command_and_its_size_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("edge");
    let server = Server::start(&dir.path().join("server"), &[]);
    at_the_edge(&at, &["tokens", "add", "ada", "--role", "read"]);
    let edge = Edge::start(&at, "a", &[server.address()], &[]);
    let ledger = "2f1c9a0e-8f0b-4b0e-9d5f-6a1f3c1f7f10";
    at_the_edge(&at, &["ledger", "adopt", ledger]);
    for _ in 0..400 {
        edge.http().post_event(&json!({"kind": "entry", "plate": "KA1"})).unwrap().problem(401);
    }
    at_the_edge(&at, &["ledger", "adopt", ledger]);
    let lines = || -> Vec<Value> {
        let answer: Value =
            serde_json::from_str(&at_the_edge(&at, &["audit", "--limit", "1000", "--json"])).unwrap();
        answer["audit"].as_array().unwrap().clone()
    };
    wait_until("both commands are listed", SOON, &[&edge], || of_kind(&lines(), "command").len() == 2);
    let lines = lines();
    let refused = of_kind(&lines, "refused").len() as u64;
    let not_written: u64 = lines.iter().filter_map(|line| line["not_written"].as_u64()).sum();
    assert!((1..=240).contains(&refused) && refused + not_written == 400, "{refused} and {not_written}");
}
