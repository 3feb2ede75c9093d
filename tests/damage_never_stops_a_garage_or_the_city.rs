//! **Promise.** An edge with a large backlog, and a server with a large ledger, start by themselves after a flipped byte, with all that
//! can be read. What cannot is reported, to the event: delivered and reported events are the confirmed ones.

use crate::common::scale::by_scale;
use crate::common::{Edge, Journal, Program, Server, requires, seeded, wait_until};
use crate::flips::{copy, damaged_copy};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const NAME: &str = "Bull Ring";
const WITHIN: Duration = Duration::from_secs(180);
const BATCH: usize = 5_000;
/// The most events in a page.
const PAGE_EVENTS: u64 = 64;

fn fill(edge: &Edge, events: usize) {
    let mut journal = Journal::default();
    for first in (0..events).step_by(BATCH) {
        let last = events.min(first + BATCH);
        journal.post_entries(&edge.http(), (first..last).map(|n| format!("AQ{n}")).collect());
    }
    assert_eq!(journal.confirmed_events(), events as u64);
}

/// How many events of the garage the server has applied and still reads, and how many it reports as missing, once its views are
/// at the end of its ledger.
fn applied_and_missing(server: &Server) -> (u64, u64) {
    wait_until("the views are at the end of the ledger", WITHIN, &[server], || {
        server.http().get_json("/v1/occupancy")["version"] == server.position()
    });
    let garage = server.http().get_json("/v1/garages/Bull%20Ring");
    (garage["events"].as_u64().unwrap(), garage["missing_events"].as_u64().unwrap())
}

/// One flipped byte cost 14,872 of 60,000 events, or all of them, and in three of sixty places the queue stood still for ever.
#[test]
fn an_edge_with_a_backlog_delivers_all_but_a_page() {
    let events = by_scale(6_000, 60_000, 60_000);
    let dir = tempfile::tempdir().unwrap();
    let backlog = dir.path().join("backlog");
    let mut edge = Edge::start(&backlog, NAME, &["tcp://127.0.0.1:9".into()], &[]);
    fill(&edge, events);
    edge.stop();
    let mut random = seeded();
    let mut worst = 0;
    for flip in 0..by_scale(3, 8, 60) {
        let (damaged, books) = (dir.path().join("edge"), dir.path().join(format!("server-{flip}")));
        println!("{}", damaged_copy(&backlog, &damaged, flip, &mut random));
        let server = Server::start(&books, &[]);
        let edge = Edge::start(&damaged, NAME, &[server.address()], &[]);
        wait_until("everything is delivered", WITHIN, &[&edge, &server], || edge.is_drained());
        let (applied, missing) = applied_and_missing(&server);
        assert_eq!(applied + missing, events as u64);
        assert!(missing <= PAGE_EVENTS, "{missing} events are missing for one byte");
        assert_eq!(edge.http_now().unwrap().get_json("/v1/outbox")["resends"], 0);
        worst = missing.max(worst);
    }
    println!("at most {worst} of {events} events lost for a flipped byte");
}

/// The outbox in which the queue stood still for ever: its pages stand in large leaves, without frames, and sled comes to the leaf behind
/// the damaged one by key only. 14,872 of its 60,000 events were lost.
#[test]
fn an_outbox_of_an_earlier_version_with_a_flipped_byte_is_delivered() {
    if !requires::xz() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores/outbox-of-format-2.tar.xz");
    let unpacked = Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(dir.path()).status().unwrap();
    assert!(unpacked.success());
    let outbox = dir.path().join("g");
    let log = outbox.join("store/db");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[399_086] ^= 0xFF;
    std::fs::write(&log, bytes).unwrap();
    let server = Server::start(&dir.path().join("books"), &[]);
    let edge = Edge::start(&outbox, "flip", &[server.address()], &[]);
    wait_until("everything is delivered", WITHIN, &[&edge, &server], || edge.is_drained());
    wait_until("the views are at the end of the ledger", WITHIN, &[&server], || {
        server.http().get_json("/v1/occupancy")["version"] == server.position()
    });
    let garage = server.http().get_json("/v1/garages/flip");
    assert_eq!((&garage["events"], &garage["missing_events"]), (&json!(59_952), &json!(48)));
    assert_eq!(garage["missing_ranges"][0]["first"], 45_001);
    assert_eq!(edge.http_now().unwrap().get_json("/v1/outbox")["resends"], 0);
}

/// In 16 of 24 places the server ended with 1 for ever, and so did \"verify\".
#[test]
fn a_server_with_a_large_ledger_serves_all_but_a_page() {
    let events = by_scale(6_000, 60_000, 300_000);
    let dir = tempfile::tempdir().unwrap();
    let books = dir.path().join("books");
    let mut server = Server::start(&books, &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), NAME, &[server.address()], &[]);
    fill(&edge, events);
    wait_until("everything is delivered", WITHIN, &[&edge, &server], || edge.is_drained());
    assert_eq!(applied_and_missing(&server), (events as u64, 0));
    edge.stop();
    server.stop();
    let mut random = seeded();
    let mut worst = 0;
    for flip in 0..by_scale(3, 8, 40) {
        let damaged = dir.path().join("server");
        println!("{}", damaged_copy(&books, &damaged, flip, &mut random));
        let mut server = Server::start(&damaged, &[]);
        let (applied, missing) = applied_and_missing(&server);
        assert_eq!(applied + missing, events as u64);
        assert!(missing <= PAGE_EVENTS, "{missing} events are missing for one byte");
        if missing == 0 {
            server.verifies();
        }
        server.kill();
        worst = missing.max(worst);
    }
    println!("at most {worst} of {events} events lost for a flipped byte");
}

/// The damage is met while the daemon runs: it starts itself again.
#[test]
fn an_edge_that_meets_damage_while_it_runs_goes_on() {
    let events = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let (live, books) = (dir.path().join("edge"), dir.path().join("server"));
    let mut edge = Edge::start(&live, NAME, &["tcp://127.0.0.1:9".into()], &[]);
    fill(&edge, events);
    edge.stop();
    let sound = dir.path().join("sound");
    copy(&live, &sound);
    let mut server = Server::start(&books, &[]);
    let listen = server.address();
    server.kill();
    let edge = Edge::start(&live, NAME, &[listen], &[]);
    // Behind the back of the daemon, all over its log: some of it is read only when it is sent.
    let log = std::fs::OpenOptions::new().write(true).open(live.join("store/db")).unwrap();
    let bytes = std::fs::read(live.join("store/db")).unwrap();
    for at in (100_000..bytes.len()).step_by(300_000).filter(|at| bytes[*at] != 0) {
        std::os::unix::fs::FileExt::write_all_at(&log, &[bytes[at] ^ 0xFF], at as u64).unwrap();
    }
    server.restart();
    wait_until("everything is delivered", WITHIN, &[&server], || edge.is_drained());
    let (applied, missing) = applied_and_missing(&server);
    assert_eq!(applied + missing, events as u64, "{}", edge.log_tail());
}
