//! **Promise.** `server verify` says of sound books that everything agrees, and of others what is wrong, where, what it means
//! and what to do; its exit code tells the two apart. It changes nothing in the directory that it looks at. So does `edge outbox
//! verify` of an outbox.

use crate::common::daemon::{EDGE, SERVER, command};
use crate::common::{Edge, Server, copy, wait_until};
use fogpost::store::{Purpose, Store};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

struct Verified {
    code: Option<i32>,
    said: String,
    error: String,
}

fn verify(dir: &Path, extra: &[&str]) -> Verified {
    ran(SERVER, dir, &[&["verify"], extra].concat())
}

fn ran(program: &str, dir: &Path, args: &[&str]) -> Verified {
    let dir = ["--data-dir", dir.to_str().unwrap()];
    let args: Vec<String> = args.iter().chain(&dir).map(ToString::to_string).collect();
    let output = command(program, &args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Verified { code: output.status.code(), said: text(&output.stdout), error: text(&output.stderr) }
}

/// Every file below a directory with its content and when it was changed.
fn files(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            let changed = entry.metadata().unwrap().modified().unwrap();
            found.insert(entry.path(), (fs::read(entry.path()).unwrap(), changed));
        }
    }
    found
}

/// The directory of a server that has served three hundred entries and exits.
struct World {
    server: Server,
    dir: TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("server"), &[]);
        let edge = Edge::start(&dir.path().join("edge"), "Bull Ring", &[server.address()], &[]);
        for round in 0..3 {
            let line = |n: u32| {
                let kind = if n.is_multiple_of(2) { "entry" } else { "exit" };
                json!({"kind": kind, "plate": format!("AA {}", n / 2 + round)}).to_string()
            };
            let lines: Vec<String> = (0..100).map(line).collect();
            assert_eq!(edge.http().post_batch(&lines.join("\n")).unwrap().status, 201);
        }
        wait_until("everything is delivered and applied", Duration::from_secs(20), &[&edge, &server], || {
            server.applied_of("Bull Ring") == 300
                && server.http().get_json("/v1/stays?limit=1")["position"] == server.position()
        });
        World { server, dir }
    }

    fn stopped(mut self) -> World {
        assert_eq!(self.server.stop().0, Some(0));
        self
    }

    /// A copy in which `damage` was done to the store.
    fn damaged(&self, name: &str, damage: impl FnOnce(&Store)) -> PathBuf {
        let copy = self.dir.path().join(name);
        fs::create_dir_all(copy.join("store")).unwrap();
        for (path, (bytes, _)) in files(&self.server.dir().join("store")) {
            let to = copy.join("store").join(path.file_name().unwrap());
            fs::write(to, bytes).unwrap();
        }
        let store = Store::open(&copy.join("store"), Purpose::Server).unwrap();
        damage(&store);
        store.flush().unwrap();
        copy
    }
}

fn key(prefix: &[u8], number: u64) -> Vec<u8> {
    [prefix, &number.to_be_bytes()[..]].concat()
}

/// Changes one byte in the middle of a value.
fn flip(store: &Store, key: &[u8]) {
    let mut value = store.get(key).unwrap().unwrap();
    let middle = value.len() / 2;
    value[middle] ^= 0x20;
    store.put(key, &value).unwrap();
}

#[test]
fn sound_books_agree_and_the_directory_stays_as_it_is() {
    let world = World::new().stopped();
    let dir = world.server.dir();
    let before = files(dir);
    let verified = verify(dir, &[]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.said, verified.error);
    assert!(verified.said.contains("300 events, 0 missing ranges"), "{}", verified.said);
    assert!(verified.said.contains("150 stays closed, 0 open"), "{}", verified.said);
    assert!(verified.said.contains("everything agrees"), "{}", verified.said);
    let report: Value = serde_json::from_str(&verify(dir, &["--json"]).said).unwrap();
    assert_eq!(
        (&report["clean"], &report["events"], &report["findings"]),
        (&json!(true), &json!(300), &json!([]))
    );
    assert_eq!(files(dir), before);
}

#[test]
fn after_a_kill_the_books_agree() {
    let mut world = World::new();
    world.server.kill();
    let before = files(world.server.dir());
    let verified = verify(world.server.dir(), &[]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.said, verified.error);
    assert_eq!(files(world.server.dir()), before);
}

/// What is damaged, how, and words of the report.
type Case<'a> = (&'a str, &'a dyn Fn(&Store), &'a [&'a str]);

#[test]
fn damage_is_told_with_its_place_its_meaning_and_what_to_do() {
    let world = World::new().stopped();
    let cases: [Case; 8] = [
        (
            "a page",
            &|store| {
                // Where the index says that the second page of events is.
                let (_, position) = store.range(b"x", b"y").nth(1).unwrap().unwrap();
                flip(store, &[b"r", &position[..]].concat());
            },
            &[
                "garage \"Bull Ring\", epoch",
                "events 65 to 1",
                "its checksum does not match",
                "not compared",
                "do not run `server rebuild-views`",
                "a backup is sound",
            ],
        ),
        ("no record", &|store| store.remove(&key(b"r", 2)).unwrap(), &["position 2", "there is no record"]),
        (
            "the index",
            &|store| {
                let last = store.last(b"x", b"y").unwrap().unwrap();
                store.put(&last.0, &1u64.to_be_bytes()).unwrap();
            },
            &["the index says that sequence", "stands at position 1"],
        ),
        (
            "a mark",
            &|store| {
                let (key, mut mark) = store.last(b"m", b"n").unwrap().unwrap();
                mark[..8].copy_from_slice(&299u64.to_be_bytes());
                store.put(&key, &mark).unwrap();
            },
            &["the mark of garage \"Bull Ring\"", "it is 299, and the records reach 300"],
        ),
        (
            "the count of a garage",
            &|store| {
                let garage = store.last(b"vg", b"vh").unwrap().unwrap();
                let mut value = garage.1;
                value[1] += 1;
                store.put(&garage.0, &value).unwrap();
            },
            &[
                "the view of garage \"Bull Ring\"",
                "differs from what follows from the ledger",
                "server rebuild-views",
            ],
        ),
        (
            "a page of stays",
            &|store| {
                let page = store.last(b"vs", b"vt").unwrap().unwrap();
                store.remove(&page.0).unwrap();
            },
            &["page 1 of the stays of garage number 0: it is missing", "server rebuild-views"],
        ),
        (
            "a curve",
            &|store| {
                let curve = store.range(b"vl", b"vm").next().unwrap().unwrap();
                store.put(&curve.0, &[&curve.1[..], &[0]].concat()).unwrap();
            },
            &["the occupancy over time of garage number 0", "server rebuild-views"],
        ),
        (
            "the position of the views",
            &|store| {
                let mut value = store.get(b"vp").unwrap().unwrap();
                value[1..].copy_from_slice(&999u64.to_be_bytes());
                store.put(b"vp", &value).unwrap();
            },
            &["they say that they reached position 999", "server rebuild-views"],
        ),
    ];
    for (name, damage, words) in cases {
        let dir = world.damaged(name, damage);
        let before = files(&dir);
        let verified = verify(&dir, &[]);
        assert_eq!(verified.code, Some(1), "{name}: {}{}", verified.said, verified.error);
        for word in words.iter().chain(&["It means: ", "What to do: "]) {
            assert!(verified.said.contains(word), "{name}: {word:?} is missing in\n{}", verified.said);
        }
        assert_eq!(files(&dir), before, "{name}");
    }
}

#[test]
fn after_rebuilding_damaged_views_agree_again() {
    let world = World::new().stopped();
    let dir = world.damaged("views", |store| {
        let garage = store.last(b"vg", b"vh").unwrap().unwrap();
        store.put(&garage.0, &[&garage.1[..], &[0]].concat()).unwrap();
    });
    assert_eq!(verify(&dir, &[]).code, Some(1));
    let args = ["rebuild-views".to_owned(), "--data-dir".to_owned(), dir.to_str().unwrap().to_owned()];
    assert!(command(SERVER, &args).status().unwrap().success());
    let mut server = Server::start(&dir, &[]);
    wait_until("the views are rebuilt", Duration::from_secs(20), &[&server], || {
        server.http().get_json("/v1/stays?limit=1")["position"] == server.position()
    });
    server.stop();
    let verified = verify(&dir, &[]);
    assert_eq!(verified.code, Some(0), "{}", verified.said);
}

#[test]
fn a_directory_that_cannot_be_verified_is_refused_with_the_reason() {
    let world = World::new();
    // A running server verifies its own.
    let running = verify(world.server.dir(), &[]);
    assert_eq!(running.code, Some(0), "{}", running.error);
    let missing = world.dir.path().join("nowhere");
    let nobody = verify(&missing, &[]);
    assert_eq!(nobody.code, Some(64));
    assert!(nobody.error.contains("no data directory of a server"), "{}", nobody.error);
    assert!(!missing.exists());
    let foreign = verify(&world.dir.path().join("edge"), &[]);
    assert_eq!(foreign.code, Some(64), "{}", foreign.error);
    assert!(foreign.error.contains("belongs to \"edge\""), "{}", foreign.error);
}

/// Nothing inside a log that lost its end shows it; the note beside it does. Only a start of the edge once looked there.
#[test]
fn an_outbox_that_lost_its_end_is_not_called_sound() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    let (store, older) = (edge.dir().join("store"), dir.path().join("older"));
    let enter = |edge: &Edge| {
        let event = json!({"kind": "entry", "plate": "B-AB 123"});
        assert_eq!(edge.http().post_event(&event).unwrap().status, 201);
    };
    enter(&edge);
    wait_until("it is delivered", Duration::from_secs(20), &[&edge, &server], || edge.depth() == 0);
    let ledger = server.http().get_json("/v1/occupancy")["ledger"].as_str().unwrap().to_owned();
    server.stop();
    (0..2).for_each(|_| enter(&edge));
    edge.stop();
    let sound = ran(EDGE, edge.dir(), &["outbox", "verify"]);
    assert_eq!(sound.code, Some(0), "{}{}", sound.said, sound.error);
    copy(&store, &older);
    edge.restart();
    (0..3).for_each(|_| enter(&edge));
    edge.kill();
    fs::remove_dir_all(&store).unwrap();
    copy(&older, &store);

    let before = files(edge.dir());
    let verified = ran(EDGE, edge.dir(), &["outbox", "verify"]);
    assert_eq!(verified.code, Some(1), "{}{}", verified.said, verified.error);
    assert!(verified.said.contains("sequences 4 to 6: their pages are missing"), "{}", verified.said);
    let status = ran(EDGE, edge.dir(), &["outbox", "status", "--json"]);
    let status: Value = serde_json::from_str(&status.said).unwrap();
    assert_eq!((&status["depth"], &status["damaged"]), (&5.into(), &3.into()));
    assert_eq!(files(edge.dir()), before);

    // What is decided in the directory itself takes the loss down as a start does.
    let adopted = ran(EDGE, edge.dir(), &["ledger", "adopt", &ledger]);
    assert_eq!(adopted.code, Some(0), "{}", adopted.error);
    fs::remove_file(edge.dir().join("witness")).unwrap();
    server.restart();
    edge.restart();
    wait_until("the rest is delivered", Duration::from_secs(20), &[&edge, &server], || edge.depth() == 0);
    let garage = server.http().get_json("/v1/garages/a");
    assert_eq!(
        (&garage["missing_ranges"][0]["first"], &garage["missing_ranges"][0]["last"]),
        (&4.into(), &6.into())
    );
    assert_eq!(garage["occupied"], 3);
}
