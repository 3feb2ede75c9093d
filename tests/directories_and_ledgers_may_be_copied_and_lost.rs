//! **Promise.** Whatever people do to the directories of edges and servers (lose them, put old copies back, copy them to other
//! machines, run two edges under one name, put another server in a server's place), no confirmed event is lost without
//! being reported, none counts twice, and both sides say what is wrong and what to do.

use crate::common::operator::at_the_edge;
use crate::common::peers::StandIn;
use crate::common::{
    Applied, Edge, Journal, Operator, Program, Server, assert_exactly_once, copy, events_of, wait_until,
};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use rand::RngExt;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

const GARAGE: &str = "Bull Ring";
const SOON: Duration = Duration::from_secs(40);
const ASKS_OFTEN: [&str; 2] = ["--board-interval-ms", "100"];

struct World {
    server: Server,
    journals: Vec<Journal>,
    cars: usize,
    dir: TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("server"), &[]);
        World { server, journals: vec![Journal::default()], cars: 0, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn edge(&self, name: &str) -> Edge {
        self.edge_on(name, "this")
    }

    fn edge_on(&self, name: &str, machine: &str) -> Edge {
        let extra = [&ASKS_OFTEN[..], &["--machine-id", machine]].concat();
        Edge::start(&self.path(name), GARAGE, &[self.server.address()], &extra)
    }

    /// Cars enter, one after the other.
    fn enter(&mut self, edge: &Edge, cars: usize) {
        for _ in 0..cars {
            self.cars += 1;
            self.journals[0].post_entries(&edge.http(), vec![format!("CAR{}", self.cars)]);
        }
        assert_eq!(self.journals[0].confirmed_events(), self.cars as u64);
    }

    fn enter_together(&mut self, edge: &Edge, cars: usize) {
        let plates = (1..=cars).map(|n| format!("CAR{}", self.cars + n)).collect();
        self.cars += cars;
        self.journals[0].post_entries(&edge.http(), plates);
        assert_eq!(self.journals[0].confirmed_events(), self.cars as u64);
    }

    fn delivered(&self, edge: &Edge) {
        wait_until("everything is delivered", SOON, &[edge, &self.server], || edge.depth() == 0);
    }

    fn operator(&self) -> Operator {
        Operator::of(self.server.dir())
    }

    fn garage(&self) -> Value {
        self.server.http().get_json("/v1/garages/Bull%20Ring")
    }

    fn applied(&self) -> Vec<Applied> {
        events_of(&self.server, GARAGE)
    }

    /// Every car that entered is in the books once, and inside; everybody's `verify` is content.
    fn the_books_are_exact(mut self, mut edges: Vec<Edge>) {
        edges.iter().for_each(|edge| self.delivered(edge));
        assert_exactly_once(&self.applied(), &self.journals);
        let all = Some(self.cars as i64);
        wait_until("the view counts every car", SOON, &[&self.server], || {
            self.server.occupied(GARAGE) == all
        });
        for edge in &mut edges {
            edge.stop();
        }
        self.everybody_verifies(&edges);
    }

    fn everybody_verifies(&mut self, edges: &[Edge]) {
        self.server.stop();
        let said = self.operator().says(&["verify"]).done();
        assert!(said.contains("everything agrees"), "{said}");
        for edge in edges {
            edge.assert_sound();
        }
    }
}

fn outbox(edge: &Edge) -> Value {
    edge.http().get_json("/v1/outbox")
}

/// Waits for the alarm of an edge, and compares its words.
fn alarm(edge: &Edge, server: &Server, words: &[&str]) {
    wait_until("the edge raises the alarm", SOON, &[edge, server], || outbox(edge)["alarm"].is_string());
    let alarm = outbox(edge)["alarm"].as_str().unwrap().to_owned();
    words.iter().for_each(|words| assert!(alarm.contains(words), "{alarm:?} lacks {words:?}"));
}

fn logged(program: &dyn Program, words: &str) {
    wait_until(&format!("the log says {words:?}"), SOON, &[program], || program.log().contains(words));
}

#[test]
fn a_new_directory_under_a_known_name_goes_on_with_the_garage() {
    let mut world = World::new();
    let mut first = world.edge("first");
    world.enter(&first, 5);
    world.delivered(&first);
    first.stop();
    let second = world.edge("second");
    world.enter(&second, 4);
    world.delivered(&second);
    logged(&world.server, "a garage or epoch never seen before was accepted");
    assert_eq!(world.garage()["marks"].as_array().unwrap().len(), 2);
    world.the_books_are_exact(vec![second]);
}

/// What was confirmed before the copy is known at the server, in a page that has grown since: it is recognised event by event.
#[test]
fn an_old_copy_that_has_nothing_new_needs_nobody() {
    let mut world = World::new();
    let mut edge = world.edge("edge");
    world.server.stop();
    world.enter(&edge, 5);
    edge.freeze();
    copy(edge.dir(), &world.path("old"));
    edge.thaw();
    world.enter(&edge, 5);
    world.server.restart();
    world.delivered(&edge);
    edge.stop();
    let former = outbox_epoch(&world);
    let old = world.edge("old");
    wait_until("new events get a new epoch", SOON, &[&old, &world.server], || {
        outbox(&old)["epoch"] != former
    });
    world.enter(&old, 3);
    world.delivered(&old);
    logged(&old, "this directory is an older copy, or another edge goes on from a copy of it");
    assert_eq!((&world.garage()["conflicts"], &outbox(&old)["alarm"]), (&0.into(), &Value::Null));
    world.the_books_are_exact(vec![old]);
}

/// The epoch of the garage's only stream.
fn outbox_epoch(world: &World) -> Value {
    world.garage()["marks"][0]["epoch"].clone()
}

/// An edge delivers, an old copy of its directory confirms `offline` events, and meets the server.
fn conflict(world: &mut World, since: usize, offline: usize) -> Edge {
    let mut edge = world.edge("edge");
    world.enter(&edge, 5);
    world.delivered(&edge);
    edge.stop();
    copy(edge.dir(), &world.path("old"));
    edge.restart();
    world.enter(&edge, since);
    world.delivered(&edge);
    edge.stop();
    world.server.stop();
    let old = world.edge("old");
    world.enter_together(&old, offline);
    world.server.restart();
    old
}

#[test]
fn what_an_old_copy_confirmed_waits_for_a_decision_and_then_counts_once() {
    for (since, offline) in [(8, 2), (2, 9)] {
        let mut world = World::new();
        let old = conflict(&mut world, since, offline);
        alarm(
            &old,
            &world.server,
            &[
                "the server has another page at sequence 6 of epoch",
                "nothing is deleted, the queue waits",
                "server garages adopt \"Bull Ring\"",
            ],
        );
        logged(
            &world.server,
            "the ledger has another page at this sequence; nothing was applied, and the garage's queue waits",
        );
        assert_eq!(world.garage()["conflict_at"]["sequence"], 6);
        assert_eq!(world.applied().len(), 5 + since);
        assert_eq!(old.depth(), offline as u64);
        let said = world.operator().says(&["garages", "adopt", GARAGE]).done();
        assert!(said.contains("moves its undelivered events to a new epoch"), "{said}");
        world.delivered(&old);
        logged(&old, "events that were not acknowledged were moved to a new epoch");
        assert!(outbox(&old)["alarm"].is_null());
        let moved = world.applied().into_iter().filter(|event| event.moved_from.is_some()).count();
        assert_eq!(moved, offline);
        world.enter(&old, 2);
        world.the_books_are_exact(vec![old]);
    }
}

/// Both sides have events that neither had delivered when the copy was made, some of them in a page that grew afterwards.
/// What they have in common once moved along with what is in conflict, and counted twice.
#[test]
fn what_both_sides_of_a_conflict_have_in_common_counts_once() {
    for original_first in [true, false] {
        let mut world = World::new();
        let mut edge = world.edge("edge");
        world.server.stop();
        world.enter(&edge, 70);
        edge.freeze();
        copy(edge.dir(), &world.path("old"));
        edge.thaw();
        world.enter(&edge, 3);
        if original_first {
            world.server.restart();
            world.delivered(&edge);
            // An edge that hears how far the server is before it has confirmed more begins an epoch for what it confirms then, and
            // nothing is in conflict.
            world.server.stop();
        }
        edge.stop();
        let mut old = world.edge("old");
        world.enter(&old, 2);
        world.server.restart();
        if !original_first {
            world.delivered(&old);
            old.stop();
            edge.restart();
        }
        let late = if original_first { &old } else { &edge };
        alarm(late, &world.server, &["the server has another page at sequence 71 of epoch"]);
        world.operator().says(&["garages", "adopt", GARAGE]).done();
        world.delivered(late);
        world.the_books_are_exact(vec![if original_first { old } else { edge }]);
    }
}

#[test]
fn a_decision_may_come_early_and_twice_and_survives_restarts_of_both() {
    let mut world = World::new();
    let mut first = world.edge("edge");
    world.enter(&first, 1);
    world.delivered(&first);
    first.stop();
    world.operator().says(&["garages", "adopt", GARAGE]).done();
    world.operator().says(&["garages", "adopt", GARAGE]).done();
    let mut old = conflict(&mut world, 3, 2);
    old.kill();
    world.server.kill();
    world.server.restart();
    old.restart();
    world.delivered(&old);
    let unknown = world.operator().says(&["garages", "adopt", "nobody"]).refused();
    assert!(unknown.contains("no garage named") && unknown.contains("Nothing was recorded"), "{unknown}");
    world.the_books_are_exact(vec![old]);
}

#[test]
fn kills_in_the_middle_of_a_move_lose_nothing_and_double_nothing() {
    let mut rng = crate::common::seeded();
    let mut world = World::new();
    let mut old = conflict(&mut world, 3, 1);
    for _ in 0..8 {
        world.enter_together(&old, 5000);
    }
    alarm(&old, &world.server, &["server garages adopt"]);
    world.operator().says(&["garages", "adopt", GARAGE]).done();
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(rng.random_range(0..120)));
        old.kill();
        old.restart();
    }
    world.the_books_are_exact(vec![old]);
}

#[test]
fn a_directory_copied_to_a_second_machine_begins_an_epoch_of_its_own() {
    let mut world = World::new();
    let mut first = world.edge_on("first", "one machine");
    world.enter(&first, 3);
    world.delivered(&first);
    first.stop();
    copy(first.dir(), &world.path("second"));
    first.restart();
    let second = world.edge_on("second", "another machine");
    logged(
        &second,
        "this data directory was written on another machine, so it is a copy: new events get a new epoch",
    );
    for _ in 0..5 {
        world.enter(&first, 2);
        world.enter(&second, 2);
    }
    both_are_seen(&world, &first, &second);
    world.the_books_are_exact(vec![first, second]);
}

fn both_are_seen(world: &World, first: &Edge, second: &Edge) {
    let server = &world.server;
    wait_until("both edges are seen", SOON, &[first, second, server], || world.garage()["two_edges"] == true);
    logged(server, "two edges use this name at the same time");
    for edge in [first, second] {
        wait_until("the edge shows it", SOON, &[edge, server], || outbox(edge)["notice"].is_string());
        let notice = outbox(edge)["notice"].as_str().unwrap().to_owned();
        assert!(notice.contains("another edge uses this garage's name at the same time"), "{notice}");
    }
}

#[test]
fn two_live_edges_under_one_name_are_served_and_told() {
    let mut world = World::new();
    let (first, second) = (world.edge("first"), world.edge("second"));
    world.enter(&first, 4);
    world.enter(&second, 4);
    both_are_seen(&world, &first, &second);
    world.the_books_are_exact(vec![first, second]);
}

#[test]
fn two_live_edges_on_copies_of_one_directory_lose_nothing() {
    let mut world = World::new();
    let mut first = world.edge("first");
    world.enter(&first, 3);
    world.delivered(&first);
    first.stop();
    copy(first.dir(), &world.path("second"));
    first.restart();
    let second = world.edge("second");
    for _ in 0..5 {
        world.enter(&first, 3);
        world.enter(&second, 3);
    }
    let waits = || [&first, &second].into_iter().find(|edge| outbox(edge)["alarm"].is_string());
    wait_until("one of them is in conflict, or neither is", SOON, &[&first, &second, &world.server], || {
        waits().is_some() || first.depth() + second.depth() == 0
    });
    if waits().is_some() {
        world.operator().says(&["garages", "adopt", GARAGE]).done();
    }
    world.the_books_are_exact(vec![first, second]);
}

#[test]
fn another_ledger_behind_the_address_gets_nothing() {
    let mut world = World::new();
    let edge = world.edge("edge");
    world.enter(&edge, 3);
    world.delivered(&edge);
    world.server.stop();
    let mut other = world.server.start_in_its_place(&world.path("other"));
    world.enter(&edge, 4);
    alarm(
        &edge,
        &other,
        &[
            "the server that answers keeps the ledger",
            "nothing is sent to it, nothing is deleted, the queue waits",
            "edge ledger adopt",
        ],
    );
    logged(&other, "a garage that delivers to another ledger reached this server; nothing was taken from it");
    assert_eq!(events_of(&other, GARAGE), []);
    assert_eq!(edge.depth(), 4);
    other.stop();
    world.server.restart();
    world.the_books_are_exact(vec![edge]);
}

#[test]
fn with_addresses_of_two_ledgers_an_edge_stays_with_its_own() {
    let mut world = World::new();
    let other = Server::start(&world.path("other"), &[]);
    let servers = [world.server.address(), other.address()];
    let edge = Edge::start(&world.path("edge"), GARAGE, &servers, &ASKS_OFTEN);
    world.enter(&edge, 3);
    world.delivered(&edge);
    world.server.stop();
    world.enter(&edge, 4);
    alarm(&edge, &other, &["the server that answers keeps the ledger"]);
    world.server.restart();
    world.delivered(&edge);
    assert_eq!(events_of(&other, GARAGE), []);
    world.the_books_are_exact(vec![edge]);
}

/// Sequences that are applied and those that are reported as missing: all of an epoch, each once.
fn applied_and_missing(server: &Server) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let events = events_of(server, GARAGE);
    let applied: BTreeSet<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(applied.len(), events.len(), "one sequence, two events");
    let garage = server.http().get_json("/v1/garages/Bull%20Ring");
    let mut missing = BTreeSet::new();
    for hole in garage["missing_ranges"].as_array().unwrap() {
        for sequence in hole["first"].as_u64().unwrap()..=hole["last"].as_u64().unwrap() {
            assert!(missing.insert(sequence) && !applied.contains(&sequence), "{hole}");
        }
    }
    (applied, missing)
}

#[test]
fn a_lost_server_is_replaced_when_an_operator_says_so_and_what_it_had_is_a_hole() {
    for running in [true, false] {
        let mut world = World::new();
        let mut edge = world.edge("edge");
        world.enter(&edge, 6);
        world.delivered(&edge);
        world.server.kill();
        std::fs::remove_dir_all(world.server.dir()).unwrap();
        let mut empty = world.server.start_in_its_place(&world.path("empty"));
        world.enter(&edge, 5);
        alarm(&edge, &empty, &["is lost for good and the new one is to take its place: edge ledger adopt"]);
        let list = std::fs::read_to_string(empty.dir().join("listen.addr")).unwrap();
        assert!(!list.is_empty());
        let ledger = empty.http().get_json("/v1/occupancy")["ledger"].as_str().unwrap().to_owned();
        if !running {
            edge.stop();
        }
        let said = at_the_edge(edge.dir(), &["ledger", "adopt", &ledger]);
        assert!(
            said.contains("delivers to the ledger") && said.contains("records them as missing"),
            "{said}"
        );
        if !running {
            edge.restart();
        }
        wait_until("the rest is delivered", SOON, &[&edge, &empty], || edge.depth() == 0);
        let (applied, missing) = applied_and_missing(&empty);
        assert_eq!(applied.union(&missing).copied().collect::<Vec<_>>(), (1..=11).collect::<Vec<_>>());
        assert!((7..=11).all(|sequence| applied.contains(&sequence)), "what was not delivered is not lost");
        assert!(missing.contains(&1));
        logged(&empty, "events are missing for good and recorded as a missing range");
        edge.stop();
        empty.stop();
        let said = Operator::of(empty.dir()).says(&["verify"]).done();
        assert!(said.contains("everything agrees"), "{said}");
    }
}

#[test]
fn a_server_put_back_from_a_backup_goes_on_and_reports_what_it_misses() {
    let mut world = World::new();
    let mut edge = world.edge("edge");
    world.enter(&edge, 4);
    world.delivered(&edge);
    world.operator().says(&["backup", world.path("backup").to_str().unwrap()]).done();
    for _ in 0..4 {
        world.enter(&edge, 1);
        world.delivered(&edge);
    }
    world.server.kill();
    let mut restored = world.server.start_in_its_place(&world.path("backup"));
    let words = "the server has events of this garage only up to 4, though it acknowledged 8: was it restored from a copy?";
    wait_until("the edge says it", SOON, &[&edge, &restored], || edge.log().contains(words));
    world.enter(&edge, 3);
    wait_until("the rest is delivered", SOON, &[&edge, &restored], || edge.depth() == 0);
    let (applied, missing) = applied_and_missing(&restored);
    assert_eq!(applied.union(&missing).copied().collect::<Vec<_>>(), (1..=11).collect::<Vec<_>>());
    assert!((1..=4).chain(9..=11).all(|sequence| applied.contains(&sequence)));
    assert!(missing.contains(&5), "it was acknowledged and deleted");
    logged(&restored, "events are missing for good and recorded as a missing range");
    edge.stop();
    restored.stop();
    let said = Operator::of(restored.dir()).says(&["verify"]).done();
    assert!(said.contains("everything agrees"), "{said}");
}

/// The newest page stays at the edge although it is acknowledged, so that a server which lost it gets it again. It once got
/// lost at the edge when the server could not take it at once, another event came, and the edge was killed.
#[test]
fn what_a_restored_server_cannot_take_yet_survives_a_kill_of_the_edge() {
    let mut world = World::new();
    let mut edge = world.edge("edge");
    world.enter(&edge, 4);
    world.delivered(&edge);
    world.operator().says(&["backup", world.path("backup").to_str().unwrap()]).done();
    for _ in 0..4 {
        world.enter(&edge, 1);
        world.delivered(&edge);
    }
    let ledger = world.server.http().get_json("/v1/occupancy")["ledger"].as_str().unwrap().parse().unwrap();
    world.server.kill();
    let busy = StandIn::start(world.server.listen(), move |request: &Request| Reply {
        id: request.id,
        ledger,
        mark: 4,
        verdict: match request.pages.is_empty() {
            true => Verdict::Accepted,
            false => Verdict::Refused { reason: "there is no room".into() },
        },
        pause_ms: 0,
        clock_ms: 0,
        notice: None,
        answer: None,
    });
    wait_until("the edge hears of it", SOON, &[&edge], || {
        edge.log().contains("the server has events of this garage only up to 4, though it acknowledged 8")
    });
    world.enter(&edge, 1);
    edge.kill();
    drop(busy);
    edge.restart();
    let mut restored = world.server.start_in_its_place(&world.path("backup"));
    wait_until("the rest is delivered", SOON, &[&edge, &restored], || edge.depth() == 0);
    let (applied, missing) = applied_and_missing(&restored);
    assert_eq!(applied, BTreeSet::from([1, 2, 3, 4, 8, 9]));
    assert_eq!(missing, BTreeSet::from([5, 6, 7]), "these were acknowledged and deleted");
    edge.stop();
    restored.stop();
    let said = Operator::of(restored.dir()).says(&["verify"]).done();
    assert!(said.contains("everything agrees"), "{said}");
    edge.assert_sound();
}
