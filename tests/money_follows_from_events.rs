//! **Promise.** What a stay costs follows from its events and from what operators put in force: once, through a kill of everything, and
//! whatever came first. What people decide about a charge survives corrections, and can be taken back. What makes no sense is refused
//! and leaves no trace, and HTTP changes nothing.

use crate::common::Program;
use crate::common::money::{TARIFFS, Town};
use serde_json::{Value, json};

#[test]
fn a_stay_is_charged_once_and_stands_in_the_statement_through_a_kill_of_everything() {
    let mut town = Town::new(TARIFFS, &["a", "b"]);
    town.operator().says(&["plates", "add", "B-AB 1", "acme", "--from", "2026-11-01"]).done();
    town.operator().says(&["accounts", "set", "acme", "--name", "Acme, \"Parts\" Ltd"]).done();
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
        ("state", json!("charged")),
        ("garage", json!("a")),
        ("entered_at", json!("2026-11-03T08:00:00+01:00")),
        ("left_at", json!("2026-11-03T10:30:00+01:00")),
        ("price", json!(750)),
        ("amount", json!(750)),
        ("issued", json!(0)),
        ("due", json!(750)),
        ("currency", json!("EUR")),
        ("vat_percent", json!(19)),
        ("tariff", json!("centre")),
        ("month", json!("2026-11")),
    ];
    for (field, value) in expected {
        assert_eq!(charge[field], value, "{charge}");
    }
    let statement = town.server.http().get_json("/v1/statements/acme?month=2026-11");
    assert_eq!(statement["customer"]["name"], "Acme, \"Parts\" Ltd");
    assert_eq!(statement["operator"]["name"], "Stadtwerke <Musterstadt> & Söhne");
    assert_eq!((&statement["draft"], &statement["number"]), (&json!(true), &Value::Null));
    assert_eq!(statement["lines"][0]["reference"], charge["id"]);
    assert_eq!(statement["lines"][0]["gross"], 750);
    assert_eq!(statement["totals"]["vat"], 120);
    // A car by itself, for any payer.
    let of_car = town.server.http().get_json("/v1/statements/b-ab%201?month=2026-11");
    let customer = &of_car["customer"];
    assert_eq!((&customer["plate"], &customer["account"]), (&json!("BAB1"), &Value::Null));
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
fn decisions_survive_corrections_and_can_be_taken_back() {
    let mut town = Town::new(TARIFFS, &["a"]);
    for plate in ["AA 1", "AA 2", "AA 3"] {
        town.stay("a", plate, 3, "08:00", "10:30");
    }
    town.stay("a", "AA 2", 4, "08:00", "08:30");
    let november_3 = |plate: &str| {
        let found = town.charges(&format!("&plate={plate}"));
        found[0]["id"].as_str().unwrap().to_owned()
    };
    let [first, second, third] = ["AA1", "AA2", "AA3"].map(november_3);
    let decide = |town: &Town, args: &[&str]| {
        let said = town.operator().says(&[&["charges"], args].concat()).done();
        let (_, position) = said.split_once("decisions undo ").unwrap_or_else(|| panic!("{said}"));
        position.split('"').next().unwrap().to_owned()
    };
    let void = decide(&town, &["void", &first, "--reason", "barrier stuck"]);
    decide(&town, &["credit", &second, "--amount", "150", "--reason", "waited"]);
    let longer = decide(&town, &["credit", &second, "--amount", "100", "--reason", "waited longer"]);
    decide(&town, &["credit", &third, "--amount", "50", "--reason", "rude"]);
    assert_eq!(town.short("&plate=AA1"), ["AA1 unregistered 0 void"]);
    assert_eq!(town.charges("&plate=AA1")[0]["price"], 750);
    let after_credits = ["AA2 unregistered 500 charged", "AA2 unregistered 250 charged"];
    assert_eq!(town.short("&plate=AA2"), after_credits);
    assert_eq!(town.charges("&plate=AA2")[0]["price"], 750);
    let shown = town.operator().says(&["statements", "show", "AA2", "--month", "2026-11"]).done();
    assert!(shown.contains("1.50 EUR given back: waited\n") && shown.contains("waited longer"), "{shown}");
    let decisions = town.operator().says(&["decisions", "list", "--json"]).json();
    let [its, ..] = decisions["decisions"].as_array().unwrap().as_slice() else { panic!("{decisions}") };
    assert_eq!((&its["reason"], &its["charge"]), (&json!("barrier stuck"), &json!(first)));
    assert!(
        its["decision"].as_u64() == void.parse().ok() && its["by"].as_str().unwrap().contains("uid"),
        "{its}"
    );
    assert_eq!(decisions["decisions"].as_array().unwrap().len(), 4);
    let listed = town.operator().says(&["decisions", "list"]).done();
    assert!(listed.contains("  1.50 EUR  waited") && listed.contains("  0.50 EUR  rude"), "{listed}");

    // A better reading of the exit: no car of that plate was inside, so that the stay has no end.
    let sequence: u64 = third.rsplit('/').next().unwrap().parse().unwrap();
    town.correct("a", sequence, "AA 8");
    assert_eq!(town.short("&plate=AA3"), Vec::<String>::new());
    // And of the entry. It is the same charge, and what was decided about it holds.
    town.correct("a", sequence - 1, "AA 8");
    assert_eq!(town.short("&plate=AA8"), ["AA8 unregistered 700 charged"]);
    assert_eq!(town.id("&plate=AA8"), third);
    let before = town.charges("");
    town.kill_all();
    assert_eq!(town.charges(""), before);
    town.verify();

    // A decision is taken back.
    let undone = town.operator().says(&["decisions", "undo", &longer]).done();
    assert!(undone.contains(&format!("The decision of position {longer} is taken back")), "{undone}");
    assert_eq!(town.short("&plate=AA2")[0], "AA2 unregistered 600 charged");
    let refused = town.operator().says(&["decisions", "undo", &longer]).refused();
    assert!(
        refused.contains("or it was taken back") && refused.contains("Nothing was recorded"),
        "{refused}"
    );
    town.operator().says(&["decisions", "undo", &void]).done();
    assert_eq!(town.short("&plate=AA1"), ["AA1 unregistered 750 charged"]);
    let decisions = town.operator().says(&["decisions", "list"]).done();
    assert!(decisions.contains("rude") && !decisions.contains("waited longer"), "{decisions}");

    let list = town.operator().says(&["charges", "list", "--plate", "aa-2"]).done();
    for part in ["6.00 EUR", "2.50 EUR", "charged", second.as_str()] {
        assert!(list.contains(part), "{part}: {list}");
    }
    let json = town.operator().says(&["charges", "list", "--plate", "aa-2", "--limit", "1", "--json"]).json();
    assert_eq!(json["charges"].as_array().unwrap().len(), 1);
    assert_eq!(json["charges"][0]["amount"], 250, "the newest is first");
    let next = json["next"].as_str().unwrap();
    let more =
        town.operator().says(&["charges", "list", "--plate", "aa-2", "--after", next, "--json"]).json();
    assert_eq!(more["charges"].as_array().unwrap().len(), 1);
    assert_eq!(more["charges"][0]["amount"], 600);
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
    let edited = town.file("edited.toml", &TARIFFS.replace("per_unit = 250", "per_unit = 300"));
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
        (&["charges", "credit", &id, "--amount", "1.50", "--reason", "x"], "150 is 1.50 EUR"),
        (
            &["statements", "issue", "--month", "2026-10", "--date", "2.11.2026"],
            "a date looks like 2026-11-30",
        ),
        (&["charges", "list", "--month", "november"], "is not a month"),
        (&["charges", "list", "--plate", "?"], "a plate"),
        (&["statements", "show", "acme"], "--month"),
        (&["statements", "show", "acme", "--month", "2026-13"], "is not a month"),
        (&["plates", "add", "ABCDEFGH123456789", "acme"], "a plate has 1 to 16"),
        (&["plates", "add", "AA1", "unregistered"], "reserved for the stays of unregistered plates"),
        (&["plates", "add", "AA1", "acme", "--from", "yesterday"], "\"yesterday\" is not a date"),
        (&["plates", "import"], "FILE"),
        (&["decisions", "undo", "first"], "DECISION"),
        (&["forget"], "PLATE"),
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
        (&["statements", "show", "unregistered", "--month", "2026-10"], "give the plate of one"),
        (&["plates", "remove", "QQ 1"], "is not registered"),
        (&["contracts", "remove", "none"], "there is no contract"),
        (&["plates", "import", "/nonexistent.csv"], "cannot read"),
        (&["plates", "add", "AA 1", "acme", "--from", "2026-11-02", "--to", "2026-11-01"], "2026-11-01"),
        (&["accounts", "set", "acme", "--name", "a\u{7}b"], "not a printable character"),
        (&["accounts", "set", "acme", "--country", "Germany"], "country"),
        (&["accounts", "show", "nobody"], "nothing is known of the account"),
        (&["decisions", "undo", "1"], "no decision was made at position 1"),
        (&["tariffs", "put", &edited], "would change prices of stays that have ended"),
    ] {
        let refused = town.operator().says(args).refused();
        assert!(refused.contains(says) && refused.contains("Nothing was"), "{args:?}: {refused}");
    }
    assert_eq!(town.server.position(), position);
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
    for part in
        ["+ contract Day from 2026-11-01 to 2026-11-30", "+ AA1 in a, + AA2 in a", "nothing was recorded"]
    {
        assert!(dry.contains(part), "{part}: {dry}");
    }
    assert_eq!(town.operator().says(&["contracts", "list", "--json"]).json()["contracts"], json!([]));
    let said = town.operator().says(&["contracts", "import", &file]).done();
    assert!(said.starts_with("+ contract Day") && said.contains("1 change, recorded at position"), "{said}");
    let at = |kind: &str, plate: &str, time: &str| json!({"kind": kind, "plate": plate, "at": format!("2026-11-03T{time}:00+01:00")});
    for (kind, plate, time) in [
        ("entry", "AA 1", "08:00"),
        ("entry", "AA 2", "08:10"),
        ("exit", "AA 1", "09:30"),
        ("exit", "AA 2", "09:30"),
    ] {
        town.tell("a", &at(kind, plate, time));
    }
    assert_eq!(town.short(""), ["AA1 acme 0 covered", "AA2 acme 500 charged"]);
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
    // It ends on a date: what came before stays covered, whenever the command was given.
    town.stay("a", "AA 1", 4, "08:00", "09:30");
    assert_eq!(town.short("")[2], "AA1 acme 0 covered");
    let said = town.operator().says(&["contracts", "remove", "Day", "--on", "2026-11-04"]).done();
    assert!(said.contains("1 draft changes by 5.00 EUR"), "{said}");
    let after = ["AA1 acme 0 covered", "AA2 acme 500 charged", "AA1 unregistered 500 charged"];
    assert_eq!(town.short(""), after);
    let list = town.operator().says(&["contracts", "list", "--json"]).json();
    assert_eq!(list["contracts"][0]["valid_to"], "2026-11-03");
    town.kill_all();
    assert_eq!(town.short(""), after);
    town.verify();
}

#[test]
fn a_stay_without_a_tariff_waits_until_one_is_in_force() {
    let mut town = Town::new("", &["a"]);
    town.stay("a", "AA 1", 3, "08:00", "10:30");
    assert_eq!(town.short(""), ["AA1 unregistered null waiting"]);
    assert_eq!(town.charges("")[0]["due"], Value::Null);
    assert_eq!(town.anomalies(), ["no_tariff -", "unregistered AA1"]);
    assert!(town.operator().says(&["tariffs", "show"]).done().contains("No tariffs are in force"));
    town.server.http().get("/v1/statements/AA1?month=2026-11").unwrap().problem(404);

    town.configure(TARIFFS);
    let position = town.server.position();
    town.restart_server();
    let in_force = town.server.position();
    assert!(in_force > position, "the tariffs are a command of their own");
    assert_eq!(town.short(""), ["AA1 unregistered 750 charged"]);
    assert_eq!(town.owes("AA1"), (750, 1));
    assert_eq!(town.anomalies(), ["unregistered AA1"]);
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
    town.verify();
}

#[test]
fn tariffs_change_prices_that_exist_only_when_somebody_says_so() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.stay("a", "AA 1", 3, "08:00", "10:30");
    town.stay("a", "AA 2", 20, "08:00", "10:30");
    town.settle();
    let put = |town: &Town, name: &str, toml: &str, more: &[&str]| {
        let file = town.file(name, toml);
        town.operator().says(&[&["tariffs", "put", &file], more].concat())
    };
    let edited = TARIFFS.replace("per_unit = 250", "per_unit = 300");
    let refused = put(&town, "edited.toml", &edited, &[]).refused();
    for part in ["would change prices of stays that have ended", "\"centre\"", "Nothing was recorded"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let dry = put(&town, "edited.toml", &edited, &["--retroactive", "--dry-run"]).done();
    assert!(dry.contains("2 drafts change by 3.00 EUR") && dry.contains("nothing was recorded"), "{dry}");
    // All tariffs were listed as changes.
    assert!(
        dry.starts_with("~ tariff \"centre\" from 2020-01-01 on\n") && dry.contains("\n1 change;"),
        "{dry}"
    );
    assert!(!dry.contains("tokyo"), "{dry}");
    let before = ["AA1 unregistered 750 charged", "AA2 unregistered 750 charged"];
    assert_eq!(town.short(""), before);
    // A start takes them no more than a person who did not say so.
    let position = town.server.position();
    town.configure(&edited);
    town.restart_server();
    assert_eq!((town.server.position(), town.short("")), (position, before.map(str::to_owned).to_vec()));
    assert!(town.server.log().contains("tariffs_differ"), "{}", town.server.log());
    let ready = town.server.http().get("/readyz").unwrap();
    assert!(ready.status == 200 && ready.body.starts_with("ready\ntariffs_differ: "), "{}", ready.body);
    assert!(ready.body.contains("\"centre\""), "{}", ready.body);
    // A version that begins in a year to come changes no price.
    let (_, centre) = TARIFFS.split_once("[[tariff]]").unwrap();
    let (centre, _) = centre.split_once("[[tariff]]").unwrap();
    let later = centre.replace("2020-01-01", "2199-01-01").replace("per_unit = 250", "per_unit = 300");
    let said = put(&town, "later.toml", &format!("{TARIFFS}\n[[tariff]]{later}"), &[]).done();
    assert!(said.contains("no draft changes"), "{said}");
    assert_eq!(town.short(""), before);
    let said = put(&town, "edited.toml", &edited, &["--retroactive"]).done();
    assert!(said.contains("2 drafts change by 3.00 EUR"), "{said}");
    let after = ["AA1 unregistered 900 charged", "AA2 unregistered 900 charged"];
    assert_eq!(town.short(""), after);
    assert_eq!(town.server.http().get("/readyz").unwrap().body, "ready\n");
    town.kill_all();
    assert_eq!(town.short(""), after);
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
    let file =
        town.file("plates.csv", "plate,account,name\nAA-1,acme,Acme Ltd\nAA 2,acme,Acme Ltd\nBB 1,bolt,\n");
    let dry = town.operator().says(&["plates", "import", &file, "--dry-run"]).done();
    assert!(dry.contains("+ AA1") && dry.contains("account acme"), "{dry}");
    assert!(dry.contains("no draft changes; nothing was recorded"), "{dry}");
    assert_eq!(list(&town), json!([]));
    let said = town.operator().says(&["plates", "import", &file]).done();
    assert!(said.contains("+ BB1") && said.contains("account bolt"), "{said}");
    assert!(said.contains("recorded at position"), "{said}");
    let registered = list(&town);
    let line = |plate: &str, account: &str, name: &str, from: Option<&str>, to: Option<&str>| json!({"plate": plate, "account": account, "name": name, "valid_from": from, "valid_to": to});
    assert_eq!(registered[1], line("AA2", "acme", "Acme Ltd", None, None));
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
            "line 5: it has 1 field, the header has 3",
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
    let some = town.file("some.csv", "plate;account;name\nAA 2;acme;Acme Ltd\n");
    let said = town.operator().says(&["plates", "import", &some]).done();
    assert!(said.contains("2 registered plates not named here are kept: AA1 BB1"), "{said}");
    // Nor does it end a registration: a plate has one account on a day.
    let other = town.file("other.csv", "plate,account,valid_from\nAA 1,bolt,2026-11-04\n");
    let refused = town.operator().says(&["plates", "import", &other]).refused();
    assert!(refused.contains("line 2, plate: AA1 is registered to \"acme\" always"), "{refused}");
    town.operator().says(&["plates", "add", "AA 1", "bolt", "--from", "2026-11-04"]).done();
    let both =
        town.file("both.csv", "plate,account,valid_from\nDD 1,acme,2026-11-04\nDD 1,bolt,2026-11-09\n");
    let refused = town.operator().says(&["plates", "import", &both]).refused();
    assert!(refused.contains("line 3") && refused.contains("Nothing was recorded"), "{refused}");
    // Each stay goes to the account that had the plate on the date of its entry, whichever came first.
    for day in [3, 4, 5, 6] {
        town.stay("a", "AA 1", day, "08:00", "08:30");
    }
    let said = town.operator().says(&["plates", "remove", "aa·1", "--on", "2026-11-05"]).done();
    assert!(said.ends_with("2 drafts change\n"), "{said}");
    let add = ["plates", "add", "AA 1", "=cmd|' /C calc'!A0", "--from", "2026-11-06"];
    town.operator().says(&add).done();
    let expected = [
        "AA1 acme 250 charged",
        "AA1 bolt 250 charged",
        "AA1 unregistered 250 charged",
        "AA1 =cmd|' /C calc'!A0 250 charged",
    ];
    assert_eq!(town.short(""), expected);
    assert_eq!(
        list(&town).as_array().unwrap()[..3],
        [
            line("AA1", "acme", "Acme Ltd", None, Some("2026-11-03")),
            line("AA1", "bolt", "", Some("2026-11-04"), Some("2026-11-04")),
            line("AA1", "=cmd|' /C calc'!A0", "", Some("2026-11-06"), None),
        ]
    );
    // Another account's registration ends the day before.
    let said = town.operator().says(&["plates", "add", "AA 1", "bolt", "--from", "2026-11-09"]).done();
    assert!(said.contains("no draft changes"), "{said}");
    assert_eq!(list(&town)[2]["valid_to"], "2026-11-08");
    let back = ["plates", "add", "AA 1", "acme", "--from", "2026-11-04", "--dry-run", "--json"];
    let json = town.operator().says(&back).json();
    assert_eq!(json["drafts"]["drafts"], 3, "{json}");
    town.kill_all();
    assert_eq!(town.short(""), expected);
    town.verify();
    // The same without a server.
    town.server.stop();
    town.operator().says(&["plates", "add", "DD 4", "late", "--from", "2026-11-01"]).done();
    assert!(town.operator().says(&["plates", "list"]).done().contains("DD4"));
    town.server.restart();
    assert!(town.operator().says(&["plates", "list"]).done().contains("late"));
    town.verify();
}

#[test]
fn http_never_changes_money() {
    let mut town = Town::new(TARIFFS, &["a"]);
    town.stay("a", "AA 1", 3, "08:00", "10:30");
    let before = town.charges("");
    let http = town.server.http();
    for path in ["/v1/charges", "/v1/statements/AA1?month=2026-11", "/v1/anomalies", "/v1/stays"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            http.request(method, path, "application/json", b"{}").unwrap().problem(405);
        }
    }
    for (path, status, says) in [
        ("/v1/statements/AA1", 400, "month: it is missing"),
        ("/v1/statements/AA1?month=2026", 400, "is not a month"),
        ("/v1/statements/AA1?month=2026-11&of=car", 400, "of: \"car\" is not valid"),
        ("/v1/statements/AA1?month=2026-11&format=pdf", 400, "format: \"pdf\" is not a format"),
        ("/v1/statements/AA1?month=2026-10", 404, "neither an account nor a plate"),
        ("/v1/statements/unregistered?month=2026-11", 404, "neither an account nor a plate"),
        ("/v1/statements/AA1?month=2026-11&of=account", 404, "neither an account nor a plate"),
        ("/v1/statements/%00?month=2026-11", 404, "neither an account nor a plate"),
        ("/v1/statements/", 404, "this path does not exist"),
    ] {
        let detail = http.get(path).unwrap().problem(status);
        assert!(detail.contains(says), "{path}: {detail}");
    }
    for (format, media_type, part) in [
        ("json", "application/json", "\"gross\":750"),
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
