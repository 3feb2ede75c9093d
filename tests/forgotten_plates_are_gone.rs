//! **Promise.** A forgotten plate is a token in stays, charges and anomalies; amounts, dates and garages stay, and so do all sums.
//! `server compact` writes a ledger without its bytes, with which server and edges go on, of which a backup works, and of
//! which the books agree.

use crate::common::money::{TARIFFS, Town};
use serde_json::json;
use std::path::Path;

/// Whether some file under a directory holds these bytes.
fn holds(dir: &Path, needle: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => holds(&path, needle),
            false => std::fs::read(&path)
                .is_ok_and(|bytes| bytes.windows(needle.len()).any(|part| part == needle.as_bytes())),
        }
    })
}

#[test]
fn a_forgotten_plate_is_a_token_and_after_compacting_its_bytes_are_gone() {
    let mut town = Town::new(TARIFFS, &["a", "b"]);
    let secret = "QXQXZ77";
    town.operator().says(&["plates", "add", secret, "qx", "--from", "2026-11-01"]).done();
    town.stay("a", secret, 3, "08:00", "10:30");
    town.stay("b", secret, 4, "08:00", "08:30");
    town.stay("a", "AA 1", 3, "08:00", "09:30");
    let misread = town.stay("a", "QXQXZ78", 5, "08:00", "09:30");
    town.correct("a", misread - 1, secret);
    town.correct("a", misread, secret);
    town.tell("a", &json!({"kind": "exit", "plate": secret, "at": "2026-11-06T08:00:00+01:00"}));
    // Exits that were misread: they are joined to their entries by their ids, when nothing says any more that they belong together.
    let mut misread = |read: &str, at: &str| {
        let at = |time: &str| format!("2026-11-{at}T{time}:00+01:00");
        let passed =
            [("entry", secret, at("08:00")), ("exit", read, at("08:30")), ("entry", secret, at("09:00"))];
        let sequences =
            passed.map(|(kind, plate, at)| town.tell("b", &json!({"kind": kind, "plate": plate, "at": at})));
        town.tell("b", &json!({"kind": "exit", "plate": secret, "at": at("09:05")}));
        sequences
    };
    let (before, after) = (misread("QXQXZ76", "05"), misread("QXQXZ79", "06"));
    let void = town.id("&plate=AA1");

    let refused = town.operator().says(&["forget", secret]).refused();
    assert!(refused.contains("is registered") && refused.contains("Nothing was recorded"), "{refused}");
    town.operator().says(&["plates", "remove", secret, "--on", "2026-11-08"]).done();
    town.tell("a", &json!({"kind": "entry", "plate": secret, "at": "2026-11-07T08:00:00+01:00"}));
    town.settle();
    let refused = town.operator().says(&["forget", secret]).refused();
    assert!(refused.contains("is inside a garage"), "{refused}");
    town.tell("a", &json!({"kind": "exit", "plate": secret, "at": "2026-11-07T08:05:00+01:00"}));
    town.settle();
    let (stays, owed) = (town.charges("&account=qx").len(), town.owes("qx"));
    let refused = town.operator().says(&["forget", "--account", "nobdoy"]).refused();
    assert!(
        refused.contains("\"nobdoy\" is unknown") && refused.contains("Nothing was recorded"),
        "{refused}"
    );
    let said = town.operator().says(&["forget", secret, "--before", "2026-11-08"]).done();
    assert!(said.contains("server compact"), "{said}");
    town.operator().says(&["forget", "QXQXZ79", "--before", "2026-11-08"]).done();
    assert_eq!(town.charges("&account=qx").len(), stays);
    assert_eq!(town.short(&format!("&plate={secret}")), Vec::<String>::new());
    assert_eq!(town.owes("qx"), owed);
    let tokens: std::collections::BTreeSet<String> =
        town.charges("&account=qx").iter().map(|line| line["plate"].as_str().unwrap().to_owned()).collect();
    assert!(tokens.iter().all(|token| token.starts_with('~')), "{tokens:?}");
    assert!(
        tokens.iter().any(|token| token != "~") && !town.anomalies().iter().any(|line| line.contains(secret))
    );
    let join = |town: &Town, [entry, exit, _]: [u64; 3]| {
        let charge = town.charges("&garage=b")[0]["id"].as_str().unwrap().to_owned();
        let (garage_and_epoch, _) = charge.rsplit_once('/').unwrap();
        let id = |sequence: u64| format!("{garage_and_epoch}/{sequence}");
        town.operator().says(&["stays", "join", &id(entry), &id(exit), "--reason", "misread"]).done();
        let joined = town.charges("&account=qx");
        let its = joined.iter().find(|line| line["id"] == id(exit)).expect("the stay is charged");
        assert!(its["amount"] == 250 && its["plate"].as_str().unwrap().starts_with('~'), "{its}");
        joined.len()
    };
    assert_eq!(join(&town, before), stays + 1);
    // M12. After it "stays review" once failed for good.
    let said = town.operator().says(&["stays", "review"]).done();
    assert!(!said.contains(secret), "{said}");
    town.verify();
    town.kill_all();
    town.verify();
    // Until the store is rewritten the events say it.
    let events = town.server.http().get_json("/v1/events?garage=a&limit=1000").to_string();
    assert!(events.contains(secret));
    let refused = town.operator().says(&["compact", town.dir.path().join("new").to_str().unwrap()]).refused();
    assert!(
        refused.contains("the server is running") && refused.contains("Nothing was changed"),
        "{refused}"
    );

    let all = |town: &Town| {
        let http = town.server.http();
        let mut garages = http.get_json("/v1/garages");
        for garage in garages["garages"].as_array_mut().unwrap() {
            // What is merely seen is forgotten at a restart.
            let keep = ["name", "occupied", "events", "stays", "taken", "marks", "missing_events"];
            garage.as_object_mut().unwrap().retain(|field, _| keep.contains(&field.as_str()));
        }
        (
            garages,
            http.get_json("/v1/charges?limit=1000")["charges"].clone(),
            http.get_json("/v1/stays")["stays"].clone(),
        )
    };
    let before = all(&town);
    assert_eq!(town.server.stop().0, Some(0));
    let new = town.dir.path().join("new");
    let said = town.operator().says(&["compact", new.to_str().unwrap()]).done();
    assert!(
        said.contains("no longer contain the forgotten plates") && said.contains("remove the old directory"),
        "{said}"
    );
    assert!(holds(town.server.dir(), secret), "the test cannot see the plate");
    for needle in [secret, "QXQXZ76", "QXQXZ78", "QXQXZ79"] {
        assert!(!holds(&new, needle), "the compacted store holds {needle:?}");
    }
    let compacted = town.server.start_in_its_place(&new);
    town.server = compacted;
    town.operate(&new);
    town.settle();
    assert_eq!(all(&town), before);
    town.verify();
    let events = town.server.http().get_json("/v1/events?garage=a&limit=1000").to_string();
    assert!(!events.contains(secret) && events.contains("AA1"));

    assert_eq!(join(&town, after), stays + 2);
    // Edges go on, charges are corrected, and a rebuild begins at the base.
    town.stay("a", "AA 2", 8, "08:00", "09:30");
    town.operator().says(&["charges", "void", &void, "--reason", "a gift"]).done();
    town.settle();
    let before = all(&town);
    assert_eq!(town.server.stop().0, Some(0));
    town.operator().says(&["rebuild-views"]).done();
    town.server.restart();
    town.settle();
    assert_eq!(all(&town), before);
    town.verify();
    let backup = town.dir.path().join("backup");
    town.operator().says(&["backup", backup.to_str().unwrap()]).done();
    assert_eq!(town.server.stop().0, Some(0));
    let restored = town.server.start_in_its_place(&backup);
    town.server = restored;
    town.operate(&backup);
    town.settle();
    assert_eq!(all(&town), before);
    town.verify();
}

#[test]
fn with_retention_days_charged_stays_of_old_months_lose_their_plates() {
    let mut town = Town::new(TARIFFS, &["a"]);
    let now = jiff::Timestamp::now();
    let at = |time: jiff::Timestamp| time.to_string();
    let old = now - jiff::SignedDuration::from_hours(24 * 100);
    town.tell("a", &json!({"kind": "entry", "plate": "OLD 1", "at": at(old)}));
    town.tell(
        "a",
        &json!({"kind": "exit", "plate": "OLD 1", "at": at(old + jiff::SignedDuration::from_hours(1))}),
    );
    town.tell(
        "a",
        &json!({"kind": "entry", "plate": "NEW 1", "at": at(now - jiff::SignedDuration::from_hours(1))}),
    );
    town.tell("a", &json!({"kind": "exit", "plate": "NEW 1", "at": at(now)}));
    town.tell("a", &json!({"kind": "entry", "plate": "OLD 2", "at": at(old)}));
    assert_eq!(town.short(""), ["OLD1 unregistered 250 charged", "NEW1 unregistered 250 charged"]);
    town.configure(&format!("[server]\nretention_days = 60\n{TARIFFS}"));
    town.restart_server();
    crate::common::wait_until(
        "the old plate is forgotten",
        std::time::Duration::from_secs(30),
        &[&town.server],
        || town.short("")[0].starts_with('~'),
    );
    let after = town.short("");
    assert!(
        after[0].ends_with("unregistered 250 charged") && after[1] == "NEW1 unregistered 250 charged",
        "{after:?}"
    );
    let open = town.server.http().get_json("/v1/stays?state=open");
    assert_eq!(open["stays"][0]["plate"], "OLD2");
    town.verify();
}
