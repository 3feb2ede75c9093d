//! **Promise.** An edge or a server that is started on a store with a flipped byte serves the rest and says what is missing, or ends
//! with a reason. In the end the books hold every confirmed event once, or in a hole of its garage, and nothing else.

use crate::common::scale::by_scale;
use crate::common::{Applied, Edge, Journal, Program, Server, events_of, seeded, wait_until};
use crate::flips::{copy, damaged_copy};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const NAME: &str = "Bull Ring";
const WITHIN: Duration = Duration::from_secs(30);

/// How many damaged stores of each kind are tried.
fn places() -> usize {
    by_scale(4, 12, 60)
}

fn plates(from: usize, count: usize) -> Vec<String> {
    (from..from + count).map(|n| format!("AQ{n}")).collect()
}

/// A garage that has delivered the most of what it confirmed, when both daemons are killed.
struct World {
    dir: TempDir,
    journal: Journal,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(&dir.path().join("server"), &[]);
        let mut edge =
            Edge::start(&dir.path().join("edge"), NAME, &[server.address()], &["--board-interval-ms", "100"]);
        let mut journal = Journal::default();
        for n in 0..30 {
            journal.post_entries(&edge.http(), plates(n * 10, 10));
        }
        wait_until("everything is delivered", WITHIN, &[&edge, &server], || {
            edge.depth() == 0 && server.occupied(NAME) == Some(300)
        });
        server.kill();
        for n in 30..50 {
            journal.post_entries(&edge.http(), plates(n * 10, 10));
        }
        edge.kill();
        assert_eq!(journal.confirmed_events(), 500);
        World { dir, journal }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// A daemon started on a damaged store: how it refused, if it did.
fn refused(program: &str, dir: &Path) -> Option<String> {
    // A start as any other; whether it becomes ready is found out with a process of its own, which is then killed.
    let args = match program {
        crate::common::daemon::EDGE => vec!["--garage-name", NAME],
        _ => vec!["--listen", "tcp://127.0.0.1:0"],
    };
    let mut all: Vec<String> = args.iter().map(ToString::to_string).collect();
    all.extend(["--http".into(), "127.0.0.1:0".into(), "--data-dir".into(), dir.to_str().unwrap().into()]);
    let mut child = crate::common::daemon::command(program, &all)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let ready = line.starts_with("ready ");
    if ready {
        child.kill().unwrap();
    }
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!said.contains("panicked") || ready || ended.status.code() == Some(1), "{said}");
    (!ready).then(|| {
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("Nothing was"), "it says what it means for the data: {said}");
        said
    })
}

/// Every confirmed event stands in the books once or in one hole, and nothing else does. Returns how many are in holes.
fn assert_once_or_in_a_hole(server: &Server, journals: &[&Journal]) -> usize {
    let answer = server.http().get_json("/v1/garages/Bull%20Ring");
    let mut holes: BTreeMap<(String, u64), String> = BTreeMap::new();
    for hole in answer["missing_ranges"].as_array().unwrap() {
        let number = |name: &str| hole[name].as_u64().unwrap();
        for sequence in number("first")..=number("last") {
            let place = (hole["epoch"].as_str().unwrap().to_owned(), sequence);
            let before = holes.insert(place, hole["reason"].as_str().unwrap().to_owned());
            assert_eq!(before, None, "{hole} and another one");
        }
    }
    let applied: Vec<Applied> = events_of(server, NAME);
    let mut by_place: BTreeMap<(String, u64), &str> = BTreeMap::new();
    for event in &applied {
        let place = (event.epoch.clone(), event.sequence);
        assert!(!holes.contains_key(&place), "{place:?} is applied and in a hole");
        let before = by_place.insert(place, event.plate.as_deref().unwrap());
        assert_eq!(before, None, "{event:?} and another one");
    }
    let mut missing = 0;
    for confirmed in journals.iter().flat_map(|journal| &journal.confirmed) {
        for (sequence, plate) in (confirmed.first..).zip(&confirmed.plates) {
            let place = (confirmed.epoch.clone(), sequence);
            match by_place.remove(&place) {
                Some(its) => assert_eq!(its, plate, "at {place:?}"),
                None => {
                    assert!(holes.contains_key(&place), "{place:?} is neither applied nor missing: {answer}");
                    missing += 1;
                }
            }
        }
    }
    assert_eq!(by_place, BTreeMap::new(), "nothing else is applied");
    missing
}

/// Delivers everything of an edge, and five events more, to a server, and compares the books.
fn settle(edge: &Edge, server: &Server, before: &Journal, n: usize) -> usize {
    // An edge that meets damage while it sends starts itself again: a producer that posts in between has to repeat it.
    wait_until("everything is delivered", WITHIN, &[edge, server], || edge.is_drained());
    let mut news = Journal::default();
    news.post_entries(&edge.http_now().unwrap(), plates(10_000 + n * 10, 5));
    assert_eq!(news.confirmed_events(), 5);
    wait_until("everything is delivered and applied", WITHIN, &[edge, server], || {
        edge.is_drained() && server.http().get_json("/v1/occupancy")["version"] == server.position()
    });
    assert_once_or_in_a_hole(server, &[before, &news])
}

#[test]
fn an_edge() {
    let world = World::new();
    let mut random = seeded();
    let (mut refusals, mut holes) = (0, 0);
    for n in 0..places() {
        let (edge, server) = (world.path(&format!("edge-{n}")), world.path(&format!("server-{n}")));
        let place = damaged_copy(&world.path("edge"), &edge, n, &mut random);
        println!("{place}");
        if refused(crate::common::daemon::EDGE, &edge).is_some() {
            refusals += 1;
            continue;
        }
        copy(&world.path("server"), &server);
        let server = Server::start(&server, &[]);
        let edge = Edge::start(&edge, NAME, &[server.address()], &["--board-interval-ms", "100"]);
        holes += usize::from(settle(&edge, &server, &world.journal, n) > 0);
    }
    println!("an edge: {} places, {refusals} refused, {holes} with holes", places());
}

#[test]
fn a_server() {
    let world = World::new();
    let mut random = seeded();
    let (mut refusals, mut holes) = (0, 0);
    for n in 0..places() {
        let (edge, server) = (world.path(&format!("edge-{n}")), world.path(&format!("server-{n}")));
        let place = damaged_copy(&world.path("server"), &server, n, &mut random);
        println!("{place}");
        if refused(crate::common::daemon::SERVER, &server).is_some() {
            refusals += 1;
            continue;
        }
        copy(&world.path("edge"), &edge);
        let mut server = Server::start(&server, &[]);
        let edge = Edge::start(&edge, NAME, &[server.address()], &["--board-interval-ms", "100"]);
        let missing = settle(&edge, &server, &world.journal, n);
        holes += usize::from(missing > 0);
        let damages = server.http().get_json("/v1/damages")["damages"].as_array().unwrap().len();
        assert!(missing == 0 || damages > 0, "what is missing is reported: {}", server.log_tail());
        assert_eq!(server.stop().0, Some(0));
    }
    println!("a server: {} places, {refusals} refused, {holes} with holes", places());
}
