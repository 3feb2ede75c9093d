//! **Promise.** Every later version reads a ledger of today: its documents are the same bytes, its drafts the same amounts, its journal the
//! same bookings, and `verify` agrees.
//!
//! The ledger in `tests/stores/ledger-2026-11.tar.xz` was made by the ignored test below, with what it said at that time beside it. It
//! stays as it is; a later form of records gets another archive beside it:
//! `cargo test --test promises -- --ignored freeze_a_ledger`.

use crate::common::money::{TARIFFS, Town};
use crate::common::{Operator, Server, requires};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ARCHIVE: &str = "tests/stores/ledger-2026-11.tar.xz";

fn archive() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(ARCHIVE)
}

fn config() -> String {
    let operator = "[operator]\ncountry = \"DE\"\ntime_zone = \"Europe/Berlin\"\niban = \"DE89 3704 0044 0532 0130 00\"\nfooter = \"HRB 12345\"\n";
    TARIFFS.replace("[operator]\n", operator)
}

/// What a server says of its money, as files.
fn said(operator: &Operator, out: &Path) -> BTreeMap<String, Vec<u8>> {
    let exported = out.join("documents");
    operator.says(&["documents", "export", "--out", exported.to_str().unwrap()]).done();
    let journal = out.join("journal.csv");
    operator.says(&["journal", "export", "--out", journal.to_str().unwrap()]).done();
    let list = |args: &[&str], name: &str, fields: &[&str]| {
        let answer = operator.says(&[args, &["--json"]].concat()).json();
        let line =
            |line: &Value| fields.iter().map(|field| line[field].to_string()).collect::<Vec<_>>().join(" ");
        let mut lines: Vec<String> = answer[args[0]].as_array().unwrap().iter().map(line).collect();
        lines.sort();
        assert!(!lines.is_empty(), "{args:?}: {answer}");
        fs::write(out.join(name), lines.join("\n") + "\n").unwrap();
    };
    let of_charge =
        ["id", "account", "month", "state", "price", "amount", "currency", "issued", "due", "vat_percent"];
    list(&["charges", "list", "--limit", "1000"], "charges.txt", &of_charge);
    list(&["documents", "list"], "open.txt", &["number", "account", "total", "paid", "open", "due"]);
    list(&["payments", "list"], "payments.txt", &["id", "number", "account", "amount", "date", "state"]);
    list(&["plates", "list"], "plates.txt", &["plate", "account", "valid_from", "valid_to"]);
    list(&["decisions", "list"], "decisions.txt", &["id"]);
    let mut files = BTreeMap::new();
    for folder in [out, &exported] {
        for path in
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
        {
            let name = path.strip_prefix(out).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

fn tar(args: &[&str]) {
    let output = Command::new("tar").args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn it_says_what_it_said() {
    if !requires::xz() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    tar(&["-xJf", archive().to_str().unwrap(), "-C", dir.path().to_str().unwrap()]);
    let expected = files_of(&dir.path().join("expected"));
    assert!(expected.len() > 20, "{:?}", expected.keys());
    // By default the plates of its documents would be gone in 2035.
    let years = "[operator]\nkeep_documents_years = 100\n";
    let settings = fs::read_to_string(at("fogpost.toml")).unwrap().replace("[operator]\n", years);
    fs::write(at("fogpost.toml"), settings).unwrap();
    let mut server = Server::start(Path::new(&at("server")), &["--config", &at("fogpost.toml")]);
    for name in ["as it is", "rebuilt"] {
        let now = dir.path().join(name);
        fs::create_dir(&now).unwrap();
        let operator = Operator::of(server.dir());
        operator.verifies();
        let said = said(&operator, &now);
        assert!(said.keys().eq(expected.keys()), "{:?}", said.keys());
        for (file, bytes) in &expected {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(text(&said[file]), text(bytes), "{file}, {name}");
            assert_eq!(&said[file], bytes, "{file}, {name}");
        }
        assert_eq!(server.stop().0, Some(0));
        operator.says(&["rebuild-views"]).done();
        server.restart();
    }
}

fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => files
                .extend(files_of(&path).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes))),
            false => _ = files.insert(name, fs::read(path).unwrap()),
        }
    }
    files
}

/// Makes the archive: all kinds of facts about money, issued twice, paid, corrected and partly forgotten.
#[test]
#[ignore = "makes the frozen ledger; run it only for another form of records"]
fn freeze_a_ledger() {
    let mut town = Town::new(&config(), &["a", "b", "tokyo"]);
    for (list, csv) in [
        (
            "accounts",
            "account,name,address,country,vat_id,email\nmiller,Miller Logistics Ltd,Hafenstraße 7|20457 Hamburg,DE,DE 999999999,\nadams,Adams & Sons,Marktplatz 2|70173 Stuttgart,DE,,a@example.org\nyoung,\"Young, Anna\",Bahnhofstraße 1|10115 Berlin,DE,,\n",
        ),
        (
            "plates",
            "plate,account,valid_from,valid_to\nMM 1,miller,2024-01-01,\nMM 2,miller,2024-01-01,\nMM 3,miller,2024-01-01,\nAD 1,adams,2024-01-01,2024-01-15\nAD 1,young,2024-01-16,\nYO 1,young,2024-01-01,\n",
        ),
        (
            "contracts",
            "contract,account,plate,garage,valid_from,valid_to,cars\nseason,miller,MM 1,*,2024-01-01,2024-12-31,1\nseason,miller,MM 2,*,2024-01-01,2024-12-31,1\n",
        ),
    ] {
        let file = town.file(&format!("{list}.csv"), csv);
        town.operator().says(&[list, "import", &file]).done();
    }
    let stay = |town: &mut Town, garage: &str, plate: &str, entry: &str, exit: &str| {
        let at =
            |time: &str| format!("2024-{time}:00{}", if garage == "tokyo" { "+09:00" } else { "+01:00" });
        town.tell(garage, &json!({"kind": "entry", "plate": plate, "at": at(entry)}));
        town.tell(garage, &json!({"kind": "exit", "plate": plate, "at": at(exit)}))
    };
    stay(&mut town, "a", "MM 1", "01-10T08:00", "01-10T12:00");
    stay(&mut town, "a", "AD 1", "01-10T08:00", "01-10T10:30");
    stay(&mut town, "a", "YO 1", "01-11T08:00", "01-11T11:00");
    stay(&mut town, "a", "MM 2", "01-12T09:00", "01-12T11:00");
    stay(&mut town, "a", "MM 3", "01-12T09:00", "01-12T11:00");
    stay(&mut town, "tokyo", "MM 3", "01-13T09:00", "01-13T11:10");
    stay(&mut town, "a", "YO 1", "01-14T08:00", "01-14T10:00");
    stay(&mut town, "a", "AD 1", "01-20T08:00", "01-20T09:00");
    stay(&mut town, "a", "ZZ 9", "01-21T08:00", "01-21T09:00");
    let misread = stay(&mut town, "a", "A0 1", "01-22T08:00", "01-22T09:30");
    town.correct("a", misread - 1, "AO 1");
    let issue = |town: &Town, date: &str| {
        town.operator().says(&["statements", "issue", "--month", "2024-01", "--date", date]).done();
    };
    issue(&town, "2024-02-01");
    // What b delivers late makes a car of the contract one too many.
    stay(&mut town, "b", "MM 1", "01-12T08:00", "01-12T12:00");
    stay(&mut town, "b", "AD 1", "01-15T22:00", "01-16T03:00");
    let payments = "number,account,amount,currency,date,reference\n2024-000001,,7.50,EUR,2024-02-05,transfer\n2024-000004,young,5.00,EUR,2024-02-06,part\n,miller,3.00,EUR,2024-02-07,\n2024-900000,,1.00,EUR,2024-02-07,\n";
    let payments = town.file("payments.csv", payments);
    town.operator().says(&["payments", "import", &payments]).done();
    town.operator().says(&["payments", "undo", "3"]).done();
    let of_young = town.charges("&plate=YO1");
    let id = |nth: usize| of_young[nth]["id"].as_str().unwrap();
    town.operator().says(&["charges", "credit", id(0), "--amount", "150", "--reason", "waited"]).done();
    town.operator().says(&["charges", "void", id(1), "--reason", "barrier open"]).done();
    issue(&town, "2024-02-15");
    town.operator().says(&["forget", "ZZ 9"]).done();
    // Drafts, an open stay, and one that is on hold.
    stay(&mut town, "a", "YO 1", "02-20T08:00", "02-20T10:00");
    stay(&mut town, "a", "AD 1", "02-01T08:00", "03-20T10:00");
    town.tell("b", &json!({"kind": "entry", "plate": "MM 1", "at": "2024-03-01T08:00:00+01:00"}));
    town.verify();

    let frozen = tempfile::tempdir().unwrap();
    let expected = frozen.path().join("expected");
    fs::create_dir(&expected).unwrap();
    said(town.operator(), &expected);
    let backup = frozen.path().join("server");
    town.operator().says(&["backup", backup.to_str().unwrap()]).done();
    fs::write(frozen.path().join("fogpost.toml"), config()).unwrap();
    let (out, folder) = (archive(), frozen.path().to_str().unwrap().to_owned());
    tar(&[
        "-cJf",
        out.to_str().unwrap(),
        "-C",
        &folder,
        "--owner=0",
        "--group=0",
        "server",
        "expected",
        "fogpost.toml",
    ]);
    assert!(fs::metadata(out).unwrap().len() < 100_000);
}
