//! **Promise.** No event is confirmed or acknowledged into a store whose files have no name on disk any more: the next start would
//! not find it. The daemon ends with 1 and says what happened. A directory that was only renamed keeps everything, and is reported.
//!
//! `rm -rf` of a running edge's data directory once went unnoticed: three more events were answered with 201, `/readyz` said 200, and
//! all of them were gone after the next restart.

use crate::common::{self, Edge, Program, Server, wait_until};
use serde_json::json;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(20);
/// Nobody listens there.
const NOWHERE: &str = "tcp://127.0.0.1:1";

/// What somebody does to the data directory of a running daemon, and what its log says of it.
type Harm = (&'static str, fn(&Path), &'static str);

const HARMS: [Harm; 6] = [
    ("the data directory is removed", remove, "was removed"),
    ("only store/ is removed", |dir| remove(&dir.join("store")), "was removed"),
    ("only the log is removed", |dir| fs::remove_file(dir.join("store/db")).unwrap(), "was removed"),
    ("a copy is renamed over the log", replace_log, "was removed"),
    ("the data directory is replaced by an empty one", replace_all, "has taken the place"),
    ("store/ is replaced by a copy", replace_store, "has taken the place"),
];

/// As `rm -rf` does it again and again: the daemon may write a new file meanwhile.
fn remove(dir: &Path) {
    while let Err(error) = fs::remove_dir_all(dir) {
        assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty);
    }
}

fn replace_log(dir: &Path) {
    let (log, copy) = (dir.join("store/db"), dir.join("store/db.copy"));
    fs::copy(&log, &copy).unwrap();
    fs::rename(copy, log).unwrap();
}

fn replace_all(dir: &Path) {
    fs::rename(dir, dir.with_extension("old")).unwrap();
    fs::create_dir(dir).unwrap();
}

fn replace_store(dir: &Path) {
    let (store, old) = (dir.join("store"), dir.join("store.old"));
    fs::rename(&store, &old).unwrap();
    common::copy(&old, &store);
}

fn entry(plate: &str) -> serde_json::Value {
    json!({"kind": "entry", "plate": plate})
}

/// Whether a post of this event was answered with 201.
fn is_confirmed(edge: &Edge, key: &str, plate: &str) -> bool {
    let body = entry(plate).to_string();
    let answer = edge.http().post_with_key("/v1/events", "application/json", key, body.as_bytes());
    answer.is_ok_and(|answer| answer.status == 201)
}

#[test]
fn an_edge_confirms_nothing_once_its_store_has_lost_its_name() {
    for (what, harm, says) in HARMS {
        let dir = tempfile::tempdir().unwrap();
        let mut edge = Edge::start(&dir.path().join("g1"), "1", &[NOWHERE.to_owned()], &[]);
        assert!(is_confirmed(&edge, "k1", "KA1"));
        harm(edge.dir());
        // A known key is answered from memory: no flush would have noticed.
        assert!(!is_confirmed(&edge, "k1", "KA1"), "{what}: an event was confirmed again");
        assert!(!is_confirmed(&edge, "k2", "KA2"), "{what}: an event was confirmed");
        assert_eq!(edge.ended_within(WITHIN), Some(1), "{what}\n{}", edge.log_tail());
        assert!(edge.log().contains(says), "{what}\n{}", edge.log());
    }
}

#[test]
fn an_edge_that_stands_idle_notices_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = Edge::start(&dir.path().join("g1"), "1", &[NOWHERE.to_owned()], &[]);
    remove(edge.dir());
    assert_eq!(edge.ended_within(WITHIN), Some(1), "{}", edge.log_tail());
    assert!(edge.log().contains("was removed"), "{}", edge.log());
}

#[test]
fn a_server_acknowledges_nothing_once_its_store_has_lost_its_name() {
    for (what, harm, says) in HARMS {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(&dir.path().join("srv"), &[]);
        let edge = Edge::start(&dir.path().join("g1"), "1", &[server.address()], &[]);
        assert!(is_confirmed(&edge, "k1", "KA1"));
        wait_until("the first event is delivered", WITHIN, &[&edge, &server], || edge.depth() == 0);
        harm(server.dir());
        assert!(is_confirmed(&edge, "k2", "KA2"));
        assert_eq!(server.ended_within(WITHIN), Some(1), "{what}\n{}", server.log_tail());
        assert!(server.log().contains(says), "{what}\n{}", server.log());
        assert_eq!(edge.depth(), 1, "{what}: the edge has deleted what no server has");
    }
}

/// Everything is still in it, so the garage goes on; but the next start looks under the old name.
#[test]
fn a_directory_that_was_only_renamed_is_reported_and_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (at, renamed) = (dir.path().join("g1"), dir.path().join("renamed"));
    let mut edge = Edge::start(&at, "1", &[NOWHERE.to_owned()], &[]);
    assert!(is_confirmed(&edge, "k1", "KA1"));
    fs::rename(&at, &renamed).unwrap();
    assert!(is_confirmed(&edge, "k2", "KA2"), "it has a name on disk");
    let why = edge.http().get("/readyz").unwrap().problem(503);
    assert!(why.contains(renamed.to_str().unwrap()) && why.contains("renamed"), "{why}");
    let alarm = edge.http().get_json("/v1/outbox")["alarm"].clone();
    assert!(alarm.as_str().is_some_and(|alarm| alarm.contains("renamed")), "{alarm}");
    assert!(edge.log().contains("was renamed while it is in use"), "{}", edge.log());

    fs::rename(&renamed, &at).unwrap();
    wait_until("the edge is ready again", WITHIN, &[&edge], || {
        edge.http().get("/readyz").unwrap().status == 200
    });
    edge.kill();
    edge.restart();
    assert_eq!(edge.depth(), 2);
}

#[test]
fn a_server_whose_directory_was_renamed_says_so_and_serves_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("srv"), &[]);
    let edge = Edge::start(&dir.path().join("g1"), "1", &[server.address()], &[]);
    let renamed = dir.path().join("renamed");
    fs::rename(server.dir(), &renamed).unwrap();
    assert!(is_confirmed(&edge, "k1", "KA1"));
    wait_until("the event is delivered", WITHIN, &[&edge, &server], || edge.depth() == 0);
    let why = server.http().get("/readyz").unwrap().problem(503);
    assert!(why.contains(renamed.to_str().unwrap()), "{why}");
    fs::rename(&renamed, server.dir()).unwrap();
    server.kill();
    server.restart();
    assert_eq!(server.applied_of("1"), 1);
}
