//! **Promise.** On a full disk nothing that was confirmed is lost: new events are refused and told why, what waits is
//! delivered, what was applied stays applied, and with room again everything is well by itself. It does not matter who filled
//! the disk, nor whether the daemon is started on a disk that is full to the last byte.
//!
//! Each data directory stands on a disk of 64 MB of its own. Needs root.

use crate::common::{Disk, Edge, Garage, Journal, Producer, Server};
use crate::common::{assert_exactly_once, events_of, requires, wait_until};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// How long filling or emptying the disk may take, and becoming well again: an edge that was refused again and again asks once a minute.
const WITHIN: Duration = Duration::from_secs(150);
/// How long a slow machine takes to fill a disk with events for good.
const FILLED_WITHIN: Duration = Duration::from_secs(400);
const BALLAST: &str = "ballast";
const MB: u64 = 1 << 20;

/// An edge on a small disk, and a server elsewhere that does not run yet.
struct Site {
    disk: Disk,
    edge: Edge,
    server: Server,
    journals: Vec<Journal>,
    _dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        crate::common::disk::with_own_mounts();
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::small();
        let mut server = Server::start(&dir.path().join("server"), &[]);
        server.kill();
        let edge = Edge::start(disk.path(), "1", &[server.address()], &["--board-interval-ms", "100"]);
        Site { disk, edge, server, journals: Vec::new(), _dir: dir }
    }

    /// Cameras that post events of all lengths, alone and together.
    fn cameras(&self, prefix: &str) -> [Producer; 2] {
        let start = |letter: char, sizes: &[usize]| {
            Producer::start_long(self.edge.address(), &format!("{prefix}{letter}"), sizes, 256)
        };
        [start('S', &[1]), start('B', &[400, 1, 90])]
    }

    fn stop(&mut self, cameras: [Producer; 2]) {
        self.journals.extend(cameras.map(Producer::finish));
    }

    fn is_ready(&self) -> bool {
        self.edge.http().get("/readyz").unwrap().status == 200
    }

    /// What a producer and a supervisor are told on a full disk.
    fn assert_refuses(&self) {
        let depth = self.edge.depth();
        let answer = self.edge.http().post_event(&json!({"kind": "entry", "plate": "REFUSED1"})).unwrap();
        let why = answer.problem(507);
        assert!(why.contains("the disk has") && why.contains("nothing was stored"), "{why}");
        let why = self.edge.http().get("/readyz").unwrap().problem(503);
        assert!(why.contains("the disk has") && why.contains("what was confirmed is delivered"), "{why}");
        assert_eq!(self.edge.depth(), depth);
    }

    fn drain(&self) {
        wait_until("everything is delivered", WITHIN, &[&self.edge, &self.server], || self.edge.depth() == 0);
    }

    /// Compares what is applied with what was confirmed, and ends.
    fn settle(mut self) {
        self.drain();
        let applied = events_of(&self.server, "1");
        assert_exactly_once(&applied, &self.journals);
        let inside = i64::try_from(applied.len()).unwrap();
        wait_until("the view counts every entry", WITHIN, &[&self.server], || {
            self.server.occupied("1") == Some(inside)
        });
        self.server.verifies();
        self.edge.assert_sound();
        assert_eq!(self.edge.stop().0, Some(0));
        assert_eq!(self.server.stop().0, Some(0));
    }
}

#[test]
fn an_edge_refuses_when_it_has_filled_its_disk_and_takes_events_again_when_they_were_delivered() {
    if !requires::root_and_loop_mounts() {
        return;
    }
    let mut site = Site::new();
    let cameras = site.cameras("A");
    wait_until("the disk is full", WITHIN, &[&site.edge], || !site.is_ready());
    site.stop(cameras);
    site.assert_refuses();
    assert!(site.disk.left() > MB, "a reserve is kept: {} bytes", site.disk.left());
    let depth = site.edge.depth();
    assert!(depth > 40_000, "{depth} events fill a disk of 64 MB");
    site.edge.kill();
    site.edge.restart();
    assert_eq!(site.edge.depth(), depth, "what was confirmed waits");

    site.server.restart();
    site.drain();
    wait_until("it takes events again by itself", WITHIN, &[&site.edge], || site.is_ready());
    // What was delivered has made room within the store: as much goes in once more, and is delivered at the same time.
    let cameras = site.cameras("C");
    wait_until("as many events were taken again", WITHIN, &[&site.edge], || {
        cameras.iter().map(Producer::confirmed_events).sum::<u64>() > depth
    });
    site.stop(cameras);
    site.settle();
}

#[test]
fn an_edge_whose_disk_something_else_fills_delivers_what_it_has() {
    if !requires::root_and_loop_mounts() {
        return;
    }
    let mut site = Site::new();
    let ballast = site.disk.path().join(BALLAST);
    let some_wait = |site: &mut Site, prefix| {
        let depth = site.edge.depth();
        let cameras = site.cameras(prefix);
        wait_until("some events wait", WITHIN, &[&site.edge], || site.edge.depth() > depth + 10_000);
        wait_until("there is a ballast", WITHIN, &[&site.edge], || ballast.exists());
        cameras
    };
    // While it runs, and events come in.
    let cameras = some_wait(&mut site, "A");
    site.disk.fill("others");
    wait_until("the edge says so", WITHIN, &[&site.edge], || !site.is_ready());
    site.stop(cameras);
    site.assert_refuses();
    site.server.restart();
    site.drain();
    site.server.kill();
    site.disk.give_back("others");
    wait_until("it takes events again by itself", WITHIN, &[&site.edge], || site.is_ready());

    // While it does not run.
    let cameras = some_wait(&mut site, "C");
    site.edge.kill();
    site.stop(cameras);
    site.disk.fill("others");
    site.edge.restart();
    assert!(!ballast.exists(), "the ballast was given up");
    site.assert_refuses();
    assert!(site.edge.depth() >= 10_000);

    // Nor any ballast is left: it can only say so, and come back when there is room.
    site.edge.kill();
    site.disk.fill("others, again");
    if let Err(why) = site.edge.try_restart() {
        assert!(why.contains("unix_wait_status(256)") && why.contains("No space left"), "{why}");
        assert!(why.contains("Nothing stored was changed") && !why.contains("panicked"), "{why}");
        site.disk.give_back("others, again");
        site.edge.restart();
    } else {
        site.assert_refuses();
        site.disk.give_back("others, again");
    }
    site.server.restart();
    site.drain();
    site.disk.give_back("others");
    wait_until("the ballast is back", WITHIN, &[&site.edge], || ballast.exists());
    wait_until("it takes events again by itself", WITHIN, &[&site.edge], || site.is_ready());
    let cameras = site.cameras("E");
    wait_until("events are taken", WITHIN, &[&site.edge], || cameras[0].confirmed_events() > 100);
    site.stop(cameras);
    site.settle();
}

/// A garage elsewhere, and a server on a small disk of which something else has a part.
fn city(dir: &Path, disk: &Disk, extra: &[&str]) -> (Server, Garage, Producer) {
    disk.take("others", 24 * MB);
    let server = Server::start(disk.path(), extra);
    let garage = Garage::start(dir, "1", &[server.address()], &[]);
    // Not faster than the server: what waits at the edge must have room once the others have given theirs back.
    let camera = Producer::start_paced(garage.edge.address(), "A", &[400, 1, 90], 256, 5_000.0);
    (server, garage, camera)
}

#[test]
fn a_server_whose_disk_is_full_leaves_events_with_the_edges_and_goes_on_by_itself() {
    if !requires::root_and_loop_mounts() {
        return;
    }
    crate::common::disk::with_own_mounts();
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::small());
    let (mut server, mut garage, camera) = city(dir.path(), &disk, &[]);
    let is_ready = |server: &Server| server.http().get("/readyz").unwrap().status == 200;
    // Near the end of the disk sled still finds room in its own file, and the server takes events for a while again.
    let assert_refuses = |server: &Server, garage: &Garage| {
        wait_until(
            "the server refuses, and the edge says why",
            FILLED_WITHIN,
            &[server, &garage.edge],
            || {
                let ready = server.http().get("/readyz").unwrap();
                let alarm = garage.edge.http().get_json("/v1/outbox")["alarm"].to_string();
                ready.status == 503 && alarm.contains("the server's disk is full") && {
                    let why = ready.problem(503);
                    assert!(why.contains("the disk has") && why.contains("edges keep their events"), "{why}");
                    true
                }
            },
        );
        let board = garage.edge.http().get_json("/v1/board");
        assert!(board["age_seconds"].as_f64().is_none_or(|age| age < 30.0), "boards are answered: {board}");
    };
    assert_refuses(&server, &garage);
    let position = server.position();
    assert!(disk.left() > MB, "a reserve is kept: {} bytes", disk.left());
    let before = garage.edge.depth();
    wait_until("the edge goes on to confirm", WITHIN, &[&garage.edge], || {
        garage.edge.depth() > before + 1000
    });
    garage.posted(camera.finish());

    // Started on a disk that is full, even to the last byte.
    server.kill();
    server.restart();
    assert_refuses(&server, &garage);
    disk.fill("the rest");
    server.kill();
    server.restart();
    assert!(!disk.path().join(BALLAST).exists(), "the ballast was given up");
    assert_refuses(&server, &garage);
    assert!(server.position() >= position, "what was applied is there");

    disk.give_back("the rest");
    disk.give_back("others");
    wait_until("it is well again", WITHIN, &[&server], || is_ready(&server));
    wait_until("the edge delivers", WITHIN, &[&server, &garage.edge], || garage.edge.depth() == 0);
    wait_until("the ballast is back", WITHIN, &[&server], || disk.path().join(BALLAST).exists());

    // On a full disk a command is refused as events are, also when no server runs: it must not use up what is kept free. It is
    // taken when there is room.
    server.kill();
    disk.fill("the rest");
    let set_capacity = || crate::common::Operator::of(disk.path()).says(&["garages", "capacity", "1", "77"]);
    let said = set_capacity();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(!disk.path().join(BALLAST).exists(), "the ballast was given up");
    disk.give_back("the rest");
    let said = set_capacity();
    assert_eq!(said.code, Some(0), "{said:?}");
    server.restart();
    assert_eq!(server.http().get_json("/v1/garages/1")["capacity"], 77);
    garage.settle(&server);
}

/// Each answer to a question for the board once asked for another pause of a minute. So an edge that had not been refused before its
/// server's disk was full sent none while it was, and did not say why they waited.
#[test]
fn an_edge_that_asks_for_boards_all_the_time_says_that_the_server_is_full() {
    if !requires::root_and_loop_mounts() {
        return;
    }
    crate::common::disk::with_own_mounts();
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::small());
    let server = Server::start(disk.path(), &[]);
    let garage = Garage::start(dir.path(), "1", &[server.address()], &[]);
    let post = || {
        let answer = garage.edge.http().post_event(&json!({"kind": "entry", "plate": "AB 1"})).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
    };
    post();
    wait_until("it is delivered", WITHIN, &[&server, &garage.edge], || garage.edge.depth() == 0);
    disk.fill("others");
    wait_until("the server is full", WITHIN, &[&server], || {
        server.http().get("/readyz").unwrap().status == 503
    });
    post();
    wait_until("the edge says why", WITHIN, &[&server, &garage.edge], || {
        let alarm = garage.edge.http().get_json("/v1/outbox")["alarm"].to_string();
        alarm.contains("the server's disk is full")
    });
    disk.give_back("others");
    wait_until("the edge delivers", WITHIN, &[&server, &garage.edge], || garage.edge.depth() == 0);
    assert_eq!(garage.edge.http().get_json("/v1/outbox")["alarm"], serde_json::Value::Null);
}

/// Without a reserve it meets the end of the disk in the middle of a write.
#[test]
fn a_server_that_met_the_end_of_its_disk_ends_and_a_restart_goes_on() {
    if !requires::root_and_loop_mounts() {
        return;
    }
    crate::common::disk::with_own_mounts();
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::small());
    let (mut server, mut garage, camera) = city(dir.path(), &disk, &["--reserve-bytes", "0"]);
    let code = server.ended_within(WITHIN);
    assert_eq!(code, Some(1), "it ended by itself\n{}", crate::common::Program::log_tail(&server));
    let log = std::fs::read_to_string(disk.path().with_extension("log")).unwrap();
    assert!(log.contains("the disk failed: No space left on device"), "{log}");
    assert!(log.contains("What was confirmed is kept") && !log.contains("panicked"), "{log}");
    garage.posted(camera.finish());

    // No room for the ballast: it would be missing at the next start.
    server.restart();
    let why = server.http().get("/readyz").unwrap().problem(503);
    assert!(why.contains("the disk has"), "{why}");
    disk.give_back("others");
    wait_until("the edge delivers", WITHIN, &[&server, &garage.edge], || garage.edge.depth() == 0);
    wait_until("the ballast is back", WITHIN, &[&server], || disk.path().join(BALLAST).exists());
    garage.settle(&server);
}
