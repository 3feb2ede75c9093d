//! **Promise.** A month of three customers is issued, corrected, credited and paid while edges and the server are killed in the middle of
//! each step, and the documents, the open items and the journal are as an auditor wants them. What a garage delivers after the issue is
//! on the next documents, exactly and once, and nothing that was issued changes.

use crate::common::daemon::own_loopback_address;
use crate::common::money::{TARIFFS, Town};
use crate::common::{Edge, Operator, Program, requires, wait_until};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// An event on a day of January 2024.
fn event(kind: &str, plate: &str, day: u32, time: &str) -> Value {
    json!({"kind": kind, "plate": plate, "at": format!("2024-01-{day:02}T{time}:00+01:00")})
}

fn stay(plate: &str, day: u32, from: &str, to: &str) -> [Value; 2] {
    [event("entry", plate, day, from), event("exit", plate, day, to)]
}

/// Posts events, and kills the edge while it may store them; with its key each is posted again until it is confirmed.
fn post_through_kills(edge: &mut Edge, events: &[Value]) {
    for (at, event) in events.iter().enumerate() {
        let key = format!("{}-{at}", edge.name());
        let post = |edge: &Edge| {
            let (http, key, body) = (edge.http(), key.clone(), event.to_string());
            move || http.post_with_key("/v1/events", "application/json", &key, body.as_bytes())
        };
        if at % 2 == 0 {
            let posted = std::thread::spawn(post(edge));
            std::thread::sleep(Duration::from_millis(at as u64));
            edge.kill();
            _ = posted.join().unwrap();
            edge.restart();
        }
        let answer = post(edge)().unwrap();
        assert_eq!(answer.status, 201, "{event}: {answer:?}");
    }
}

fn accounts(town: &Town) {
    let accounts = "account,name,address,country,vat_id,email\nmiller,Miller Logistics Ltd,Hafenstraße 7|20457 Hamburg,DE,,\nadams,Adams & Sons,Marktplatz 2|70173 Stuttgart,DE,,\nyoung,Young,Bahnhofstraße 1|10115 Berlin,DE,,\n";
    let plates = "plate,account,valid_from\nMM 1,miller,2024-01-01\nMM 2,miller,2024-01-01\nMM 3,miller,2024-01-01\nAD 1,adams,2024-01-01\nYO 1,young,2024-01-01\n";
    let contract = "contract,account,plate,garage,valid_from,valid_to,cars\nseason,miller,MM 1,*,2024-01-01,2024-12-31,1\nseason,miller,MM 2,*,2024-01-01,2024-12-31,1\n";
    for (list, csv) in [("accounts", accounts), ("plates", plates), ("contracts", contract)] {
        let file = town.file(&format!("{list}.csv"), csv);
        town.operator().says(&[list, "import", &file]).done();
    }
}

/// All documents, in all forms, by the names of their files.
fn exported(town: &Town, name: &str) -> BTreeMap<String, Vec<u8>> {
    let out = town.dir.path().join(name);
    town.operator().says(&["documents", "export", "--out", out.to_str().unwrap()]).done();
    let file =
        |path: &Path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap());
    std::fs::read_dir(out).unwrap().map(|entry| file(&entry.unwrap().path())).collect()
}

/// The documents as programs read them, in order.
fn documents(files: &BTreeMap<String, Vec<u8>>) -> Vec<Value> {
    let json = files.iter().filter(|(name, _)| name.ends_with(".json"));
    json.map(|(_, bytes)| serde_json::from_slice(bytes).unwrap()).collect()
}

/// `account total`, and the lines: `plate garage gross`, and `before > now` where it is a correction.
fn in_short(document: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |line: &Value| {
        let (plate, garage) = (text(&line["plate"]), text(&line["garage"]));
        match &line["correction"] {
            Value::Null => format!("{plate} {garage} {}", line["gross"]),
            its => {
                let number = text(&its["number"]);
                format!("{plate} {garage} {}: {number} {} > {}", line["gross"], its["before"], its["now"])
            }
        }
    };
    let head = format!("{} {}", text(&document["customer"]["account"]), document["totals"]["gross"]);
    let lines = document["lines"].as_array().unwrap();
    std::iter::once(head).chain(lines.iter().map(line)).collect()
}

/// What an auditor looks at: numbers without a gap, sums that add up, nothing changed, and a copy of each document on disk.
fn audit(town: &Town, name: &str, earlier: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let files = exported(town, name);
    for (name, bytes) in earlier {
        assert_eq!(files.get(name), Some(bytes), "{name} changed");
    }
    // M14. A customer's bill once said who had given the credit: "by root (uid 0)".
    for (name, bytes) in &files {
        assert!(!String::from_utf8_lossy(bytes).contains("(uid "), "{name} names a user of the machine");
    }
    let minor = |value: &Value| value.as_i64().unwrap();
    let documents = documents(&files);
    for (at, document) in documents.iter().enumerate() {
        assert_eq!(document["serial"], at + 1, "numbers have no gap");
        let number = document["number"].as_str().unwrap();
        assert_eq!(number, format!("2024-{:06}", at + 1));
        let copy = town.dir.path().join(format!("server-documents/{number}.fogpost"));
        assert_eq!(std::fs::read(copy).unwrap(), files[&format!("{number}.fogpost")]);
        let (totals, lines) = (&document["totals"], document["lines"].as_array().unwrap());
        for column in ["gross", "net", "vat"] {
            let rates =
                totals["rates"].as_array().unwrap().iter().map(|rate| minor(&rate[column])).sum::<i64>();
            let of_lines: i64 = lines.iter().map(|line| minor(&line[column])).sum();
            assert_eq!((minor(&totals[column]), minor(&totals[column])), (of_lines, rates), "{document}");
        }
        for sums in lines.iter().chain([totals]) {
            assert_eq!(minor(&sums["net"]) + minor(&sums["vat"]), minor(&sums["gross"]), "{document}");
        }
        // 19 % of the net sum, rounded half away from zero.
        let gross = minor(&totals["gross"]);
        assert_eq!(minor(&totals["vat"]), (gross * 19 * 2 + gross.signum() * 119) / (119 * 2), "{document}");
    }
    // What was issued for each charge is what all lines about it add up to, and nothing else is due.
    let mut lines: BTreeMap<(String, String), i64> = BTreeMap::new();
    for document in &documents {
        for line in document["lines"].as_array().unwrap() {
            let account = document["customer"]["account"].as_str().unwrap().to_owned();
            let charge = line["reference"].as_str().unwrap().to_owned();
            *lines.entry((charge, account)).or_default() += minor(&line["gross"]);
        }
    }
    for charge in town.charges("") {
        let text = |field: &str| charge[field].as_str().unwrap().to_owned();
        let issued = lines.remove(&(text("id"), text("account"))).unwrap_or_default();
        assert_eq!((minor(&charge["issued"]), &charge["due"]), (issued, &json!(0)), "{charge}");
        assert_eq!(charge["amount"].as_i64().unwrap_or_default(), issued, "{charge}");
    }
    assert_eq!(lines, BTreeMap::new(), "lines without a charge");
    files
}

/// Balances of the journal by account, in cents; each booking balances, and the bookings are numbered without a gap.
fn journal(town: &Town) -> BTreeMap<String, i64> {
    let file = town.dir.path().join("journal.csv");
    town.operator().says(&["journal", "export", "--out", file.to_str().unwrap()]).done();
    let cents = |text: &str| text.replace('.', "").parse::<i64>().unwrap_or(0);
    let (mut balances, mut bookings) = (BTreeMap::new(), BTreeMap::<u64, i64>::new());
    for row in csv::Reader::from_path(file).unwrap().records().map(Result::unwrap) {
        let amount = cents(&row[4]) - cents(&row[5]);
        *balances.entry(row[3].to_owned()).or_default() += amount;
        *bookings.entry(row[0].parse().unwrap()).or_default() += amount;
    }
    assert!(bookings.values().all(|sum| *sum == 0), "{bookings:?}");
    assert!(bookings.keys().copied().eq(1..=bookings.len() as u64), "{bookings:?}");
    balances
}

/// The receivables of hledger are the open items of the server.
fn hledger_agrees(town: &Town) {
    let open = town.operator().says(&["documents", "list", "--open", "--json"]).json();
    let mut by_account = BTreeMap::<String, i64>::new();
    for document in open["documents"].as_array().unwrap() {
        let account = document["account"].as_str().unwrap();
        *by_account.entry(account.to_owned()).or_default() += document["open"].as_i64().unwrap();
    }
    let receivable = |(account, cents): (&String, &i64)| {
        Some((account.strip_prefix("assets:receivable:")?.to_owned(), *cents))
            .filter(|(_, cents)| *cents != 0)
    };
    let booked: BTreeMap<String, i64> = journal(town).iter().filter_map(receivable).collect();
    by_account.retain(|_, open| *open != 0);
    assert_eq!(booked, by_account);
    if !requires::hledger() {
        return;
    }
    let file = town.dir.path().join("hledger.journal");
    let out = file.to_str().unwrap();
    town.operator().says(&["journal", "export", "--format", "hledger", "--out", out]).done();
    let arguments = ["-f", out, "balance", "assets:receivable", "--flat", "--no-total", "-O", "csv"];
    let output = Command::new("hledger").args(arguments).env("LC_ALL", "C.UTF-8").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let cents = |text: &str| text.trim_end_matches(" EUR").replace('.', "").parse::<i64>().unwrap();
    let rows = csv::Reader::from_reader(&output.stdout[..]).records().map(Result::unwrap).collect::<Vec<_>>();
    let shown =
        rows.iter().map(|row| (row[0].trim_start_matches("assets:receivable:").to_owned(), cents(&row[1])));
    assert_eq!(shown.collect::<BTreeMap<_, _>>(), by_account);
}

#[test]
fn documents_open_items_and_journal_are_those_of_an_auditor() {
    let operator = "[operator]\ncountry = \"DE\"\ntime_zone = \"Europe/Berlin\"\n";
    let mut town = Town::new(&TARIFFS.replace("[operator]\n", operator), &["a"]);
    accounts(&town);
    // Garage b is offline: nobody listens at the address that it has.
    let nowhere = format!("tcp://{}", own_loopback_address().replace(":0", ":1"));
    let mut b = Edge::start(&town.dir.path().join("edge-b"), "b", &[nowhere], &[]);
    let late: Vec<Value> = [
        stay("AD 1", 11, "08:00", "10:00"),
        // While it is here, the other car of the contract is one too many.
        stay("MM 1", 12, "08:00", "12:00"),
        stay("YO 1", 13, "08:00", "08:05"),
    ]
    .concat();
    post_through_kills(&mut b, &late);
    let at_a: Vec<Value> = [
        stay("MM 1", 10, "08:00", "12:00"),
        stay("AD 1", 10, "08:00", "10:00"),
        stay("YO 1", 10, "08:00", "11:00"),
        stay("MM 2", 12, "09:00", "11:00"),
        stay("MM 3", 12, "09:00", "11:00"),
        stay("YO 1", 14, "08:00", "10:00"),
    ]
    .concat();
    let mut edge = town.edges.remove("a").unwrap();
    post_through_kills(&mut edge, &at_a);
    town.edges.insert("a".into(), edge);
    delivered(&town, "a", at_a.len());

    let issue = ["statements", "issue", "--month", "2024-01", "--date"];
    let shown = town.operator().says(&[&issue[..], &["2024-02-01", "--dry-run"]].concat()).done();
    assert!(shown.contains("DRAFT") && shown.contains("adams, 5.00 EUR:\n"), "{shown}");
    assert!(shown.contains("2024-01-10T10:00:00+01:00 a AD1: 5.00\n"), "{shown}");
    let draft = town.operator().says(&["statements", "show", "young", "--month", "2024-01"]).done();
    assert!(draft.contains("INVOICE DRAFT"), "{draft}");
    town.through_kills(&[&issue[..], &["2024-02-01"]].concat(), "");
    let first = audit(&town, "first", &BTreeMap::new());
    let issued: Vec<Vec<String>> = documents(&first).iter().map(in_short).collect();
    assert_eq!(
        issued.concat(),
        [
            "adams 500",
            "AD1 a 500",
            "miller 500",
            "MM1 a 0",
            "MM2 a 0",
            "MM3 a 500",
            "young 1250",
            "YO1 a 750",
            "YO1 a 500"
        ]
    );

    // Paid, paid in part, and corrected.
    let payments = "number,account,amount,currency,date,reference\n2024-000001,,5.00,EUR,2024-02-05,\n2024-000003,,7.00,EUR,2024-02-06,part\n";
    let payments = town.file("payments.csv", payments);
    town.through_kills(&["payments", "import", &payments], "");
    let of_young = town.charges("&plate=YO1");
    let id = |nth: usize| of_young[nth]["id"].as_str().unwrap().to_owned();
    town.operator().says(&["charges", "credit", &id(0), "--amount", "150", "--reason", "waited"]).done();
    town.operator().says(&["charges", "void", &id(1), "--reason", "barrier open"]).done();
    town.through_kills(&[&issue[..], &["2024-02-10"]].concat(), "");
    let second = audit(&town, "second", &first);
    let credit_note = in_short(&documents(&second)[3]);
    assert_eq!(
        credit_note,
        ["young -650", "YO1 a -150: 2024-000003 750 > 600", "YO1 a -500: 2024-000003 500 > 0"]
    );
    hledger_agrees(&town);

    // A week later garage b is online. It is killed while it delivers, and so is the server.
    assert_eq!(b.stop().0, Some(0));
    let mut b = Edge::start(&town.dir.path().join("edge-b"), "b", &[town.server.address()], &[]);
    for delay_ms in [0, 15] {
        std::thread::sleep(Duration::from_millis(delay_ms));
        b.kill();
        town.server.kill();
        town.server.restart();
        b.restart();
    }
    delivered(&town, "b", late.len());
    town.edges.insert("b".into(), b);
    let shown = town.operator().says(&[&issue[..], &["2024-02-17", "--dry-run"]].concat()).done();
    assert!(shown.contains("a MM2: 5.00, corrects 2024-000002: 0.00 until now, 5.00 now\n"), "{shown}");
    town.through_kills(&[&issue[..], &["2024-02-17"]].concat(), "");
    let third = audit(&town, "third", &second);
    let missing: Vec<String> = documents(&third)[4..].iter().flat_map(in_short).collect();
    assert_eq!(
        missing,
        [
            "adams 500",
            "AD1 b 500",
            "miller 500",
            "MM2 a 500: 2024-000002 0 > 500",
            "MM1 b 0",
            // Within the ten minutes that are free.
            "young 0",
            "YO1 b 0",
        ],
        "exactly what was missing"
    );
    let nothing = town.operator().says(&[&issue[..], &["2024-02-18"]].concat()).done();
    assert!(!nothing.contains("2024-00000"), "{nothing}");
    hledger_agrees(&town);
    assert_eq!(journal(&town)["assets:bank"], 1_200);

    // The statement of the month is its documents, in every form, byte for byte.
    let text = |number: u32| String::from_utf8(third[&format!("2024-{number:06}.txt")].clone()).unwrap();
    let over_http = |format: &str| {
        let path = format!("/v1/statements/young?month=2024-01&format={format}");
        town.server.http().get(&path).unwrap().body
    };
    assert_eq!(over_http("text"), [text(3), text(4), text(7)].join("\n"));
    // The command printed a table with three headers, and three objects in JSON.
    for format in ["text", "json", "csv"] {
        let show = ["statements", "show", "young", "--month", "2024-01", "--format", format];
        assert_eq!(town.operator().says(&show).done(), over_http(format));
    }
    let json: Value = serde_json::from_str(&over_http("json")).unwrap();
    let numbers: Vec<&str> =
        json["documents"].as_array().unwrap().iter().map(|its| its["number"].as_str().unwrap()).collect();
    assert_eq!(numbers, ["2024-000003", "2024-000004", "2024-000007"]);
    let table = over_http("csv");
    let mut rows = csv::Reader::from_reader(table.as_bytes());
    let of_rows: BTreeSet<String> = rows.records().map(|row| row.unwrap()[0].to_owned()).collect();
    assert!(of_rows.iter().eq(numbers.iter()), "one header and all rows: {table}");
    assert!(over_http("html").contains("/v1/documents/2024-000004?format=html"));
    town.verify();

    // Without a server, and after a rebuild, all of it is the same.
    assert_eq!(town.server.stop().0, Some(0));
    let offline = Operator::of(town.server.dir());
    offline.says(&["rebuild-views"]).done();
    let out = town.dir.path().join("offline");
    offline.says(&["documents", "export", "--out", out.to_str().unwrap()]).done();
    for (name, bytes) in &third {
        assert_eq!(&std::fs::read(out.join(name)).unwrap(), bytes, "{name}");
    }
}

/// Nobody issued January: its stays are on the invoice for March, so January is no draft any more.
#[test]
fn the_statement_of_a_month_is_the_document_that_charged_its_stays() {
    let operator = "[operator]\ncountry = \"DE\"\ntime_zone = \"Europe/Berlin\"\n";
    let mut town = Town::new(&TARIFFS.replace("[operator]\n", operator), &["a"]);
    accounts(&town);
    for event in stay("YO 1", 10, "08:00", "11:00") {
        town.tell("a", &event);
    }
    let of_month =
        |town: &Town, month: &str| town.operator().says(&["statements", "show", "young", "--month", month]);
    assert!(of_month(&town, "2024-01").done().contains("DRAFT"));
    let date = ["--date", "2024-04-01"];
    town.operator().says(&[&["statements", "issue", "--month", "2024-03"][..], &date].concat()).done();
    let invoice = town.operator().says(&["documents", "show", "2024-000001"]).done();
    assert_eq!(of_month(&town, "2024-01").done(), invoice);
    assert_eq!(of_month(&town, "2024-03").done(), invoice);
    assert!(of_month(&town, "2024-02").refused().contains("there is no statement"));
    let answer = town.server.http().get("/v1/statements/young?month=2024-01&format=text").unwrap();
    assert_eq!((answer.status, answer.body), (200, invoice));
}

fn delivered(town: &Town, garage: &str, events: usize) {
    let daemons: Vec<&dyn Program> = vec![&town.server];
    wait_until("everything is delivered", Duration::from_secs(30), &daemons, || {
        town.server.applied_of(garage) == events as u64
    });
}
