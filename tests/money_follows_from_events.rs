//! **Promise.** What a stay costs follows from its events and from what operators put in force: once, through a kill of everything.
//! What was charged is never edited; each correction is a further entry. What makes no sense is refused and leaves no trace,
//! and HTTP changes nothing.

use crate::common::money::{TARIFFS, Town};
use serde_json::{Value, json};

#[test]
fn a_stay_is_charged_once_and_stands_in_the_statement_through_a_kill_of_everything() {
    let mut town = Town::new(TARIFFS, &["a", "b"]);
    town.operator().says(&["plates", "add", "B-AB 1", "acme", "Acme, \"Parts\" Ltd"]).done();
    town.stay("a", "b ab 1", 3, "08:00", "10:30");
    town.stay("a", "B-AB 1", 4, "08:00", "08:09");
    town.stay("b", "ZZ 9", 4, "08:00", "08:30");
    town.tell("b", &json!({"kind": "entry", "plate": "B-AB 1", "at": "2026-11-30T23:30:00+01:00"}));
    let before = ["BAB1 acme 750 charged", "BAB1 acme 0 charged", "ZZ9 unregistered 250 charged"];
    assert_eq!(sorted(town.short("")), sorted(before.map(str::to_owned).to_vec()));
    town.kill_all();
    assert_eq!(sorted(town.short("")), sorted(before.map(str::to_owned).to_vec()));
    // It ends in the next month, by the clock on the wall of the garage.
    town.tell("b", &json!({"kind": "exit", "plate": "B-AB 1", "at": "2026-11-30T23:30:01Z"}));
    assert_eq!(town.short("&month=2026-12"), ["BAB1 acme 500 charged"]);
    assert_eq!(town.owes("acme"), (750, 2));

    let charge = &town.charges("&plate=BAB1")[0];
    let expected = [
        ("kind", json!("charge")),
        ("state", json!("charged")),
        ("garage", json!("a")),
        ("entered_at", json!("2026-11-03T08:00:00+01:00")),
        ("left_at", json!("2026-11-03T10:30:00+01:00")),
        ("currency", json!("EUR")),
        ("vat_percent", json!(19)),
        ("tariff", json!("centre")),
        ("month", json!("2026-11")),
    ];
    for (field, value) in expected {
        assert_eq!(charge[field], value, "{charge}");
    }
    let statement = town.server.http().get_json("/v1/statements/acme?month=2026-11");
    assert_eq!(statement["account_name"], "Acme, \"Parts\" Ltd");
    assert_eq!(statement["operator"]["name"], "Stadtwerke <Musterstadt> & Söhne");
    assert_eq!(statement["number"], 1);
    assert_eq!(statement["lines"][0]["id"], charge["id"]);
    assert_eq!(statement["lines"][0]["amount"], 750);
    assert_eq!(statement["totals"][0]["vat"]["amount"], 120);
    // A car by itself, for any payer.
    let of_car = town.server.http().get_json("/v1/statements/b-ab%201?month=2026-11");
    assert_eq!((&of_car["plate"], &of_car["account"]), (&json!("BAB1"), &Value::Null));
    assert_eq!(of_car["lines"], statement["lines"]);
    assert!(town.anomalies().contains(&"unregistered ZZ9".to_owned()));
    town.verify();
    // The same without a server.
    let shown = |town: &Town| {
        town.operator().says(&["statements", "show", "acme", "--month", "2026-11", "--format", "json"]).json()
    };
    let running = shown(&town);
    assert_eq!(town.server.stop().0, Some(0));
    let mut stopped = shown(&town);
    // A directory has no configuration that names the operator.
    assert_eq!(stopped["operator"]["name"], "");
    stopped["operator"] = running["operator"].clone();
    assert_eq!(stopped, running);
    town.server.restart();
    town.verify();
}

#[test]
fn corrections_are_further_entries() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.stay("a", "AA 1", 3, "08:00", "10:30");
    town.stay("a", "AA 2", 3, "08:00", "10:30");
    let exit = town.stay("a", "AA 3", 3, "08:00", "10:30");
    let (first, second) = (town.id("&plate=AA1"), town.id("&plate=AA2"));
    let said = town.operator().says(&["charges", "void", &first, "--reason", "barrier stuck"]).done();
    assert!(said.contains("voided at position"), "{said}");
    town.operator().says(&["charges", "credit", &second, "--amount", "150", "--reason", "waited"]).done();
    town.operator()
        .says(&["charges", "credit", &second, "--amount", "100", "--reason", "waited longer"])
        .done();
    let corrected = ["AA1 unregistered 750 voided", "AA1 unregistered -750 void"];
    assert_eq!(town.short("&plate=AA1"), corrected);
    assert_eq!(
        town.short("&plate=AA2"),
        ["AA2 unregistered 750 charged", "AA2 unregistered -150 credit", "AA2 unregistered -100 credit"]
    );
    let void = &town.charges("&plate=AA1")[1];
    assert_eq!((&void["reason"], &void["charge"]), (&json!("barrier stuck"), &json!(first)));
    assert!(void["by"].as_str().unwrap().contains("uid"), "{void}");
    assert_eq!(town.owes("unregistered"), (1_250, 6));

    // A better reading of the exit: nobody of that name was inside, so the stay is none any more.
    town.correct("a", exit, "AA 8");
    assert_eq!(town.short("&plate=AA3"), ["AA3 unregistered 750 voided", "AA3 unregistered -750 void"]);
    // And of the entry.
    town.correct("a", exit - 1, "AA 8");
    assert_eq!(town.short("&plate=AA8"), ["AA8 unregistered 750 charged"]);
    assert_ne!(town.id("&plate=AA8"), town.charges("&plate=AA3")[0]["id"], "it came to be otherwise");
    let before = town.charges("");
    town.kill_all();
    assert_eq!(town.charges(""), before);
    // What is left of a charge is taken back with it.
    town.operator().says(&["charges", "void", &second, "--reason", "all of it"]).done();
    assert_eq!(town.short("&plate=AA2")[3], "AA2 unregistered -500 void");
    assert_eq!(town.owes("unregistered"), (750, 9));
    let list = town.operator().says(&["charges", "list", "--plate", "aa-2"]).done();
    for part in ["7.50 EUR", "-1.50 EUR", "-5.00 EUR", "waited longer", "all of it", second.as_str()] {
        assert!(list.contains(part), "{part}: {list}");
    }
    let json = town.operator().says(&["charges", "list", "--plate", "aa-2", "--limit", "1", "--json"]).json();
    assert_eq!(
        (json["charges"].as_array().unwrap().len(), json["charges"][0]["kind"].as_str()),
        (1, Some("void"))
    );
    let next = json["next"].as_str().unwrap();
    let more =
        town.operator().says(&["charges", "list", "--plate", "aa-2", "--after", next, "--json"]).json();
    assert_eq!(more["charges"].as_array().unwrap().len(), 3);
    town.verify();
}

#[test]
fn corrections_that_make_no_sense_are_refused_and_leave_no_trace() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.stay("a", "AA 1", 3, "08:00", "10:30");
    town.stay("a", "AA 2", 3, "08:00", "10:30");
    let id = town.id("&plate=AA1");
    let other = town.id("&plate=AA2");
    town.operator().says(&["charges", "void", &other, "--reason", "once"]).done();
    let unknown = id.replace("/2", "/9");
    let position = town.server.position();
    for (args, says) in [
        (vec!["void", &unknown, "--reason", "x"], "there is no charge"),
        (vec!["void", &id, "--reason", " "], "reason"),
        (vec!["void", &other, "--reason", "twice"], "was already voided"),
        (vec!["credit", &id, "--amount", "751", "--reason", "x"], "7.50 EUR of the charge"),
        (vec!["credit", &id, "--amount", "0", "--reason", "x"], "more than 0"),
        (vec!["credit", &id, "--amount=-1", "--reason", "x"], "more than 0"),
        (vec!["credit", &other, "--amount", "1", "--reason", "x"], "was already voided"),
        (vec!["credit", &id, "--amount", "9223372036854775807", "--reason", "x"], "7.50 EUR of the charge"),
    ] {
        let args: Vec<&str> = ["charges"].into_iter().chain(args).collect();
        let refused = town.operator().says(&args).refused();
        assert!(refused.contains(says) && refused.contains("Nothing was recorded"), "{args:?}: {refused}");
    }
    for (args, says) in [
        (&["charges", "void", "7", "--reason", "x"][..], "is not the id of a charge"),
        (&["charges", "void", "a/b/c", "--reason", "x"], "is not the id of a charge"),
        (&["charges", "void", &id], "--reason"),
        (&["charges", "credit", &id, "--reason", "x"], "--amount"),
        (&["charges", "credit", &id, "--amount", "1.50", "--reason", "x"], "--amount"),
        (&["charges", "list", "--month", "november"], "is not a month"),
        (&["charges", "list", "--plate", "?"], "a plate"),
        (&["statements", "show", "acme"], "--month"),
        (&["statements", "show", "acme", "--month", "2026-13"], "is not a month"),
        (&["statements", "export", "--month", "2026-11"], "--out"),
        (&["plates", "add", "ABCDEFGH123456789", "acme"], "a plate has 1 to 16"),
        (&["plates", "add", "AA1", "unregistered"], "reserved for the stays of unregistered plates"),
        (&["plates", "import"], "FILE"),
    ] {
        let said = town.operator().says(args);
        assert_eq!((said.code, said.stdout.as_str()), (Some(64), ""), "{args:?}: {said:?}");
        assert!(said.stderr.contains(says), "{args:?}: {said:?}");
    }
    for (args, says) in [
        (
            &["statements", "show", "nobody", "--month", "2026-11"][..],
            "there is no statement of \"nobody\" for 2026-11",
        ),
        (&["statements", "show", "unregistered", "--month", "2026-10"], "for 2026-10"),
        (
            &["statements", "export", "--month", "2026-10", "--out", "/tmp/never"],
            "nothing was charged in 2026-10",
        ),
        (&["journal", "export", "--month", "2026-10"], "nothing was charged in 2026-10"),
        (&["plates", "remove", "QQ 1"], "is not registered"),
        (&["contracts", "remove", "none"], "there is no contract"),
        (&["plates", "import", "/nonexistent.csv"], "cannot read"),
        (&["plates", "add", "AA 1", "acme", "a\u{7}b"], "which is not a printable character"),
    ] {
        let refused = town.operator().says(args).refused();
        assert!(refused.contains(says) && refused.contains("Nothing was"), "{args:?}: {refused}");
    }
    assert_eq!(town.server.position(), position);
    assert!(!std::path::Path::new("/tmp/never").exists());
    town.verify();
}

#[test]
fn contracts_cover_as_many_cars_as_they_name() {
    let mut town = Town::new(TARIFFS, &["a"]);
    let header = "contract,account,plate,garage,valid_from,valid_to,cars\n";
    let file = town.file(
        "contracts.csv",
        &format!(
            "{header}Day,acme,AA 1,a,2026-11-01,2026-11-30,1\nDay,acme,AA 2,a,2026-11-01,2026-11-30,1\n"
        ),
    );
    let dry = town.operator().says(&["contracts", "import", &file, "--dry-run"]).done();
    assert!(dry.contains("\"Day\" of acme: AA1 AA2") && dry.contains("nothing was recorded"), "{dry}");
    assert_eq!(town.operator().says(&["contracts", "list", "--json"]).json()["contracts"], json!([]));
    let said = town.operator().says(&["contracts", "import", &file]).done();
    assert!(said.starts_with("contract \"Day\"") && said.contains("1 change, from position"), "{said}");
    let at = |kind: &str, plate: &str, time: &str| json!({"kind": kind, "plate": plate, "at": format!("2026-11-03T{time}:00+01:00")});
    for (kind, plate, time) in [
        ("entry", "AA 1", "08:00"),
        ("entry", "AA 2", "08:10"),
        ("exit", "AA 1", "09:30"),
        ("exit", "AA 2", "09:30"),
    ] {
        town.tell("a", &at(kind, plate, time));
    }
    assert_eq!(town.short(""), ["AA1 acme 0 charged", "AA2 acme 500 charged"]);
    let notes: Vec<Value> = town.charges("").iter().map(|line| line["note"].clone()).collect();
    assert_eq!(notes[0], "covered by the contract Day");
    assert!(notes[1].as_str().unwrap().starts_with("one car too many for the contract Day"), "{notes:?}");
    let bad = town.file(
        "bad.csv",
        &format!("{header}Day,acme,AA 1,a,2026-11-01,2026-11-30,1\nNight,acme,-,a,2026-11-01,2026-10-30,0\n"),
    );
    let refused = town.operator().says(&["contracts", "import", &bad]).refused();
    for part in ["line 3, plate:", "line 3, valid_to:", "line 3, cars:", "Nothing was recorded"] {
        assert!(refused.contains(part), "{refused}");
    }
    let list = town.operator().says(&["contracts", "list"]).done();
    assert!(list.contains("Day") && list.contains("AA1, AA2") && !list.contains("Night"), "{list}");
    town.operator().says(&["contracts", "remove", "Day"]).done();
    town.stay("a", "AA 1", 4, "08:00", "09:30");
    assert_eq!(town.short("")[2], "AA1 unregistered 500 charged");
    town.kill_all();
    assert_eq!(town.short("").len(), 3);
    town.verify();
}

#[test]
fn a_stay_without_a_tariff_waits_until_one_is_in_force_and_applied() {
    let mut town = Town::new("", &["a"]);
    town.stay("a", "AA 1", 3, "08:00", "10:30");
    assert_eq!(town.short(""), ["AA1 unregistered null pending"]);
    assert_eq!(town.anomalies(), ["no_tariff -", "unregistered AA1"]);
    let refused = town.operator().says(&["tariffs", "apply"]).refused();
    assert!(refused.contains("no tariffs are in force"), "{refused}");
    assert!(town.operator().says(&["tariffs", "show"]).done().contains("No tariffs are in force"));
    let statement = town.server.http().get_json("/v1/statements/unregistered?month=2026-11");
    assert_eq!((&statement["lines"], &statement["totals"]), (&json!([]), &json!([])));

    town.configure(TARIFFS);
    let position = town.server.position();
    town.restart_server();
    let in_force = town.server.position();
    assert!(in_force > position, "the tariffs are a command of their own");
    assert_eq!(town.short(""), ["AA1 unregistered null pending"], "what came before waits for the word");
    let said = town.operator().says(&["tariffs", "apply"]).done();
    assert!(said.contains("charged now"), "{said}");
    assert_eq!(town.short(""), ["AA1 unregistered 750 charged"]);
    assert_eq!(town.owes("unregistered"), (750, 1));
    assert!(town.operator().says(&["tariffs", "apply"]).done().contains("No stay was waiting"));
    let shown = town.operator().says(&["tariffs", "show"]).done();
    assert!(shown.starts_with(&format!("# In force since position {in_force}")), "{shown}");

    // The same again is no news, also when it is written otherwise; nor is a configuration without tariffs.
    let position = town.server.position();
    town.configure(&format!("# the same\n{}", TARIFFS.replace("per_unit = 250", "per_unit=250")));
    town.restart_server();
    assert_eq!(town.server.position(), position);
    town.configure("");
    town.restart_server();
    assert_eq!(town.server.position(), position);
    town.stay("a", "AA 2", 3, "08:00", "10:30");
    assert_eq!(town.short("&plate=AA2"), ["AA2 unregistered 750 charged"]);
    // Another price acts from its position on; what was charged stays.
    town.configure(&TARIFFS.replace("per_unit = 250", "per_unit = 300"));
    town.restart_server();
    town.stay("a", "AA 3", 3, "08:00", "10:30");
    assert_eq!(
        town.short(""),
        ["AA1 unregistered 750 charged", "AA2 unregistered 750 charged", "AA3 unregistered 900 charged"]
    );
    town.verify();
}

#[test]
fn what_an_edge_delivers_right_after_a_start_is_charged_by_the_tariffs_of_that_start() {
    let mut town = Town::new("", &["a"]);
    town.settle();
    town.server.kill();
    for car in 1..=20 {
        town.stay("a", &format!("AA {car}"), 3, "08:00", "08:30");
    }
    town.configure(TARIFFS);
    town.server.restart();
    let short = town.short("");
    assert_eq!(short.len(), 20);
    assert!(short.iter().all(|line| line.ends_with("250 charged")), "{short:?}");
    town.verify();
}

#[test]
fn the_registry_takes_a_file_whole_or_not_at_all() {
    let mut town = Town::new(TARIFFS, &["a"]);
    let list = |town: &Town| town.operator().says(&["plates", "list", "--json"]).json()["plates"].clone();
    let file = town
        .file("plates.csv", "plate,account,name\nAA-1,acme,Acme Ltd\nAA 2,acme,\"Acme, Ltd\"\nBB 1,bolt,\n");
    let dry = town.operator().says(&["plates", "import", &file, "--dry-run"]).done();
    assert!(dry.contains("+ AA1  account acme") && dry.contains("3 changes; nothing was recorded"), "{dry}");
    assert_eq!(list(&town), json!([]));
    let said = town.operator().says(&["plates", "import", &file]).done();
    assert!(said.contains("+ BB1  account bolt") && said.contains("3 changes, from position"), "{said}");
    let registered = list(&town);
    assert_eq!(registered[1], json!({"plate": "AA2", "account": "acme", "name": "Acme, Ltd"}));
    let position = town.server.position();
    let again = town.operator().says(&["plates", "import", &file]).done();
    assert!(again.contains("Nothing changes"), "{again}");

    let bad = town.file("bad.csv", "plate,account,name\nCC 1,acme,x\n?,acme,x\nCC 2,,x\nCC 3\nCC-1,bolt,x\n");
    for args in [
        &["plates", "import", &bad][..],
        &["plates", "import", &bad, "--dry-run"],
        &["plates", "import", &bad, "--json"],
    ] {
        let refused = town.operator().says(args).refused();
        for part in [
            "line 3, plate:",
            "line 4, account:",
            "line 5: it has 1 fields",
            "line 6, plate:",
            "Nothing was recorded",
        ] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
    let latin = town.dir.path().join("latin.csv");
    std::fs::write(&latin, b"plate,account,name\nAA 1,acme,M\xfcller\n").unwrap();
    let refused = town.operator().says(&["plates", "import", latin.to_str().unwrap()]).refused();
    assert!(refused.contains("line 2: it is not UTF-8"), "{refused}");
    assert_eq!((list(&town), town.server.position()), (registered, position));

    // A file is no whole registry: what it does not name stays, and that is said.
    let some = town.file("some.csv", "plate;account;name\nAA 1;bolt;Bolt\n");
    let said = town.operator().says(&["plates", "import", &some]).done();
    assert!(said.contains("~ AA1  account acme -> bolt"), "{said}");
    assert!(said.contains("2 registered plates not named here are kept: AA2 BB1"), "{said}");
    town.stay("a", "AA 1", 3, "08:00", "08:30");
    town.operator().says(&["plates", "remove", "aa·1"]).done();
    town.stay("a", "AA 1", 3, "09:00", "09:30");
    town.operator().says(&["plates", "add", "AA 1", "=cmd|' /C calc'!A0", "x, \"y\""]).done();
    town.stay("a", "AA 1", 3, "10:00", "10:30");
    let expected =
        ["AA1 bolt 250 charged", "AA1 unregistered 250 charged", "AA1 =cmd|' /C calc'!A0 250 charged"];
    assert_eq!(town.short(""), expected);
    let json = town.operator().says(&["plates", "import", &file, "--json"]).json();
    assert_eq!(
        json["changes"],
        json!(["~ AA1  account =cmd|' /C calc'!A0 -> acme, name \"x, \\\"y\\\"\" -> \"Acme Ltd\""])
    );
    town.kill_all();
    assert_eq!(town.short(""), expected);
    assert_eq!(list(&town)[0]["account"], "acme");
    town.verify();
    // The same without a server.
    town.server.stop();
    town.operator().says(&["plates", "add", "DD 4", "late"]).done();
    assert!(town.operator().says(&["plates", "list"]).done().contains("DD4"));
    town.server.restart();
    assert!(town.operator().says(&["plates", "list"]).done().contains("DD4    late"));
    town.verify();
}

#[test]
fn http_never_changes_money() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.stay("a", "AA 1", 3, "08:00", "10:30");
    let before = town.charges("");
    let http = town.server.http();
    for path in ["/v1/charges", "/v1/statements/unregistered?month=2026-11", "/v1/anomalies", "/v1/stays"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            http.request(method, path, "application/json", b"{}").unwrap().problem(405);
        }
    }
    for (path, status, says) in [
        ("/v1/statements/unregistered", 400, "month: it is missing"),
        ("/v1/statements/unregistered?month=2026", 400, "is not a month"),
        ("/v1/statements/unregistered?month=2026-11&of=car", 400, "of: \"car\" is not valid"),
        ("/v1/statements/unregistered?month=2026-11&format=pdf", 400, "format: \"pdf\" is not a format"),
        ("/v1/statements/unregistered?month=2026-10", 404, "neither an account nor a plate"),
        ("/v1/statements/AA1?month=2026-11&of=account", 404, "neither an account nor a plate"),
        ("/v1/statements/%00?month=2026-11", 404, "neither an account nor a plate"),
        ("/v1/statements/", 404, "this path does not exist"),
    ] {
        let detail = http.get(path).unwrap().problem(status);
        assert!(detail.contains(says), "{path}: {detail}");
    }
    for (format, media_type, part) in [
        ("json", "application/json", "\"amount\":750"),
        ("html", "text/html; charset=utf-8", "Stadtwerke &lt;Musterstadt&gt; &amp; Söhne"),
        ("csv", "text/csv; charset=utf-8", "7.50"),
        ("text", "text/plain; charset=utf-8", "7.50"),
    ] {
        let answer = http.get(&format!("/v1/statements/AA1?month=2026-11&format={format}")).unwrap();
        assert_eq!((answer.status, answer.content_type.as_str()), (200, media_type));
        assert!(answer.body.contains(part), "{}", answer.body);
    }
    assert_eq!(town.charges(""), before);
}

/// Garages are heard in no order.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}
