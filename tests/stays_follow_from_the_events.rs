//! **Promise.** A stay is an entry and the exit that ended it, of one plate in one garage. The list of stays follows from the
//! events alone: it is the same after a restart, a kill, and a rebuild; a corrected plate
//! changes it from its place on.

use crate::common::daemon::{SERVER, command};
use crate::common::{Edge, Operator, Server, wait_until};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

struct World {
    server: Server,
    edges: Vec<Edge>,
    epochs: Vec<String>,
    told: u64,
    _dir: TempDir,
}

impl World {
    fn new(garages: &[&str]) -> World {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("server"), &[]);
        let edges = garages.iter().map(|name| {
            let of = dir.path().join(format!("edge {name}"));
            Edge::start(&of, name, &[server.address()], &["--board-interval-ms", "100"])
        });
        let edges: Vec<Edge> = edges.collect();
        World { server, epochs: vec![String::new(); edges.len()], edges, told: 0, _dir: dir }
    }

    /// Posts one event; its sequence.
    fn tell(&mut self, garage: usize, event: Value) -> u64 {
        let answer = self.edges[garage].http().post_event(&event).unwrap();
        assert_eq!(answer.status, 201, "{event}: {answer:?}");
        self.told += 1;
        let answer = answer.json();
        self.epochs[garage] = answer["epoch"].as_str().unwrap().to_owned();
        answer["sequence"].as_u64().unwrap()
    }

    fn enter(&mut self, garage: usize, plate: &str, hour: u8) -> u64 {
        self.tell(garage, json!({"kind": "entry", "plate": plate, "at": at(hour)}))
    }

    fn leave(&mut self, garage: usize, plate: &str, hour: u8) -> u64 {
        self.tell(garage, json!({"kind": "exit", "plate": plate, "at": at(hour)}))
    }

    fn correct(&mut self, garage: usize, sequence: u64, plate: &str) {
        let epoch = self.epochs[garage].clone();
        self.tell(
            garage,
            json!({"kind": "plate_correction", "epoch": epoch, "sequence": sequence, "plate": plate}),
        );
    }

    /// Waits until the stays show everything that was told; the server's `verify` agrees.
    fn settle(&self) {
        let server = &self.server;
        wait_until("the stays show every event", Duration::from_secs(20), &[server], || {
            let applied: u64 = self.edges.iter().map(|edge| server.applied_of(edge.name())).sum();
            applied == self.told
                && server.http().get_json("/v1/stays?limit=1")["position"] == server.position()
        });
        server.verifies();
    }

    /// All that a filter finds, in pieces of two.
    fn stays(&self, filter: &str) -> Vec<Value> {
        let mut stays = Vec::new();
        let mut after = String::new();
        loop {
            let answer = self.server.http().get_json(&format!("/v1/stays?limit=2{filter}{after}"));
            stays.extend(answer["stays"].as_array().unwrap().iter().cloned());
            match answer["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return stays,
            }
        }
    }

    /// The same in short: plate, sequences of entry and exit, state.
    fn short(&self, filter: &str) -> Vec<String> {
        let short = |stay: &Value| {
            let exit = stay["exit"].get("sequence").map_or("-".to_owned(), Value::to_string);
            let (plate, state) = (stay["plate"].as_str().unwrap(), stay["state"].as_str().unwrap());
            assert_eq!(stay["left_at"].is_null(), stay["exit"].is_null(), "{stay}");
            format!("{plate} {}..{exit} {state}", stay["entry"]["sequence"])
        };
        self.stays(filter).iter().map(short).collect()
    }

    fn counts(&self, garage: &str) -> Value {
        self.server.http().get_json(&format!("/v1/garages/{garage}"))["stays"].clone()
    }
}

fn at(hour: u8) -> String {
    format!("2026-11-23T{hour:02}:15:00+01:00")
}

#[test]
fn an_entry_is_matched_with_the_exit_of_its_plate_in_its_garage() {
    let mut world = World::new(&["a", "b"]);
    let entry = world.enter(0, "B-AB 123", 8);
    world.enter(1, "B-AB 123", 9);
    world.tell(0, json!({"kind": "entry", "plate": null}));
    world.leave(0, "ZZ 9", 9);
    let exit = world.leave(0, "b ab 123", 10);
    world.settle();
    let stays = world.stays("&garage=a&plate=b·ab·123");
    let events = world.server.http().get_json("/v1/events?garage=a");
    let position = |sequence: u64| events["events"][sequence as usize - 1]["position"].clone();
    let expected = json!({
        "garage": "a", "plate": "BAB123", "entered_at": at(8), "left_at": at(10),
        "entry": {"epoch": world.epochs[0], "sequence": entry, "position": position(entry)},
        "exit": {"epoch": world.epochs[0], "sequence": exit, "position": position(exit)},
        "state": "closed",
    });
    assert_eq!(stays, [expected]);
    assert_eq!(world.short("&garage=b"), ["BAB123 1..- open"]);
    assert_eq!(world.counts("a"), json!({"open": 0, "closed": 1, "exits_missed": 0, "exits_unmatched": 1}));
    assert_eq!(world.server.occupied("a"), Some(0), "who has no plate counts");
}

#[test]
fn filters_find_what_they_say_and_unknown_ones_nothing() {
    let mut world = World::new(&["a", "b"]);
    for car in 1..=5 {
        world.enter(0, &format!("AA {car}"), 7);
        world.enter(1, &format!("AA {car}"), 8);
    }
    for car in 1..=3 {
        world.leave(0, &format!("AA {car}"), 9);
    }
    world.settle();
    assert_eq!(world.short("").len(), 10);
    assert_eq!(
        world.short("&garage=a"),
        ["AA5 5..- open", "AA4 4..- open", "AA3 3..8 closed", "AA2 2..7 closed", "AA1 1..6 closed"],
        "newest first"
    );
    assert_eq!(world.short("&state=open").len(), 7);
    assert_eq!(world.short("&state=open&garage=a"), ["AA5 5..- open", "AA4 4..- open"]);
    assert_eq!(world.short("&state=closed"), ["AA3 3..8 closed", "AA2 2..7 closed", "AA1 1..6 closed"]);
    assert_eq!(world.short("&plate=aa-1").len(), 2);
    assert_eq!(world.short("&plate=aa-1&garage=a"), ["AA1 1..6 closed"]);
    assert_eq!(world.short("&plate=aa-1&state=open"), ["AA1 1..- open"]);
    for nothing in
        ["&garage=c", "&garage=%00", "&plate=AA9", "&plate=%3F", "&state=left", "&plate=AA1&state="]
    {
        assert_eq!(world.short(nothing), Vec::<String>::new(), "{nothing}");
    }
    let http = world.server.http();
    let detail = http.get("/v1/stays?after=here").unwrap().problem(400);
    assert!(detail.contains("\"here\" is not a cursor"), "{detail}");
    http.get("/v1/stays?limit=0").unwrap().problem(400);
}

/// The list once knew garages by their first names only: under the new one there was nothing, and each line bore the old one.
#[test]
fn the_stays_of_a_renamed_garage_are_found_by_both_names_and_bear_the_new_one() {
    let mut world = World::new(&["a", "b"]);
    world.enter(0, "AA 1", 7);
    world.enter(1, "BB 2", 7);
    world.settle();
    Operator::of(world.server.dir()).says(&["garages", "rename", "a", "Bull Ring"]).done();
    world.leave(0, "AA 1", 8);
    world.settle();
    for filter in ["&garage=Bull%20Ring", "&garage=a", "&plate=AA1"] {
        assert_eq!(world.short(filter), ["AA1 1..2 closed"], "{filter}");
        assert_eq!(world.stays(filter)[0]["garage"], "Bull Ring", "{filter}");
    }
    assert_eq!(world.stays("&garage=b")[0]["garage"], "b");
}

#[test]
fn a_car_that_enters_twice_left_unseen() {
    let mut world = World::new(&["a"]);
    world.enter(0, "AA 1", 7);
    world.enter(0, "AA 1", 8);
    world.leave(0, "AA 1", 9);
    world.leave(0, "AA 1", 10);
    world.settle();
    assert_eq!(world.short(""), ["AA1 2..3 closed", "AA1 1..- closed"]);
    assert_eq!(world.counts("a"), json!({"open": 0, "closed": 1, "exits_missed": 1, "exits_unmatched": 1}));
}

#[test]
fn a_corrected_plate_changes_the_stays_and_what_cannot_be_corrected_is_kept_with_the_reason() {
    let mut world = World::new(&["a"]);
    let entry = world.enter(0, "AA 1", 7);
    let exit = world.leave(0, "AA I", 9);
    world.settle();
    assert_eq!(world.short(""), ["AA1 1..- open"]);
    world.correct(0, exit, "AA 1");
    world.settle();
    assert_eq!(world.short(""), ["AA1 1..2 closed"]);
    world.correct(0, entry, "CC 3");
    world.settle();
    assert_eq!(world.short("&plate=AA1"), Vec::<String>::new());
    assert_eq!(world.short(""), ["CC3 1..- open"]);
    assert_eq!(world.counts("a"), json!({"open": 1, "closed": 0, "exits_missed": 0, "exits_unmatched": 1}));
    let unread = world.tell(0, json!({"kind": "exit", "plate": null}));
    world.correct(0, unread, "CC 3");
    world.settle();
    assert_eq!(world.short(""), ["CC3 1..6 closed".replace('6', &unread.to_string())]);

    let before = world.counts("a");
    // Quarantine keeps one reason for a page, that of its first event: each of these has a page of its own.
    world.correct(0, 100, "DD 4");
    world.settle();
    world.correct(0, 3, "DD 4");
    world.settle();
    let count = world.tell(0, json!({"kind": "count", "occupied": 3, "reason": "rounds"}));
    world.correct(0, count, "DD 4");
    world.settle();
    let foreign = "6b8cd2f8-0c38-4f0e-9a5a-5fd6b1d4c9b0";
    world.tell(0, json!({"kind": "plate_correction", "epoch": foreign, "sequence": 1, "plate": "DD 4"}));
    world.settle();
    assert_eq!(world.counts("a"), before);
    let quarantine = world.server.http().get_json("/v1/quarantine");
    let reasons = quarantine["quarantine"].as_array().unwrap().iter();
    let reasons: Vec<&str> = reasons.map(|line| line["reason"].as_str().unwrap()).collect();
    let expected = [
        "no such event of this garage came before it",
        "of an event of kind \"plate_correction\"",
        "of an event of kind \"count\"",
        "sequence 1 of epoch 6b8cd2f8-0c38-4f0e-9a5a-5fd6b1d4c9b0, but no such event",
    ];
    assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
    for (reason, expected) in reasons.iter().zip(expected) {
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn stays_are_the_same_after_a_kill_and_after_a_rebuild() {
    let mut world = World::new(&["a"]);
    let mut sequences = Vec::new();
    for n in 0..300u32 {
        let plate = format!("AA {}", n * 7 % 41);
        sequences.push(if n % 3 < 2 { world.enter(0, &plate, 7) } else { world.leave(0, &plate, 8) });
        if n % 10 == 9 {
            world.correct(0, sequences[n as usize * 3 / 4], &format!("AA {}", n % 41));
        }
    }
    world.settle();
    let stays = world.stays("");
    let counts = world.counts("a");
    assert!(stays.len() > 150 && world.stays("&state=open").len() > 5);
    world.server.kill();
    world.server.restart();
    world.settle();
    assert_eq!(world.stays(""), stays);
    world.server.stop();
    let dir = world.server.dir().to_str().unwrap().to_owned();
    let rebuild = command(SERVER, &["rebuild-views".into(), "--data-dir".into(), dir]).output().unwrap();
    assert!(rebuild.status.success(), "{rebuild:?}");
    world.server.restart();
    world.settle();
    assert_eq!(world.stays(""), stays);
    assert_eq!(world.counts("a"), counts);
}
