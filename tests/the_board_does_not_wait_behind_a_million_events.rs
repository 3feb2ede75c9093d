//! **Promise.** When the link returns after a long absence, the server knows the garage's live count and the edge shows the
//! board of the city within 3 s, however much waits to be delivered: both ride on the first exchange, before the backlog.
//!
//! A million events wait, and the link that returns carries 1 MB/s, so that delivering them takes much longer than that.
//! `./test --quick` takes a quarter of both.

use crate::common::peers::Detour;
use crate::common::scale::by_scale;
use crate::common::turns::alone;
use crate::common::{Edge, Server, crowd, wait_until};
use serde_json::Value;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
/// The promise is 3 s, and holds: below 2 s on a busy machine, not optimised. Asserted generously, since what matters is that the
/// backlog is still there; the figures are printed.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
const DELIVERED_WITHIN: Duration = Duration::from_secs(300);

#[test]
fn the_count_and_the_board_are_known_before_a_million_events_are_delivered() {
    let _alone = alone();
    let events: u64 = by_scale(250_000, 1_000_000, 1_000_000);
    let link_bytes_per_s: u64 = events;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let way = Detour::start(server.listen());
    let north = Edge::start(&dir.path().join("north"), "north", &[way.address()], &["--capacity", "2000000"]);
    let south = Edge::start(&dir.path().join("south"), "south", &[server.address()], &["--capacity", "50"]);
    let board = || north.http().get_json("/v1/board");
    wait_until("the edge has a board", SOON, &[&north, &server], || board()["version"].is_object());
    server.kill();
    crowd::post_batches(&north, 0..events);
    crowd::post_numbered(&south.http(), 1);
    assert_eq!(north.depth(), events);
    let old = board();
    assert_eq!(old["connected"], false);

    way.slow_down_to(link_bytes_per_s);
    server.restart();
    let back = Instant::now();
    let seen = || -> Value {
        let answer = server.http().get("/v1/garages/north").unwrap();
        if answer.status == 200 { answer.json() } else { Value::Null }
    };
    let mut known = Value::Null;
    wait_until("the server knows the live count", KNOWN_WITHIN, &[&north, &server], || {
        known = seen();
        known["live_occupied"] == events
    });
    println!("the server knows the live count {:.2?} after the link's return", back.elapsed());
    // It was told by the edge, not counted from what was delivered.
    assert!(known["occupied"].as_u64().is_none_or(|occupied| occupied < events / 2), "{known}");
    assert!(known["backlog"].as_u64().unwrap() > events / 2, "{known}");
    assert!(known["oldest_age_seconds"].as_f64().unwrap() > 0.0, "{known}");
    let mut shown = Value::Null;
    wait_until("the board is fresh", KNOWN_WITHIN, &[&north, &server], || {
        shown = board();
        // Younger than the link's return, and with what came to the other garage meanwhile.
        let age = shown["age_seconds"].as_f64().unwrap();
        let lines = shown["garages"].as_array().unwrap().clone();
        age < back.elapsed().as_secs_f64()
            && lines.iter().any(|line| line["name"] == "south" && line["occupied"] == 1)
    });
    println!(
        "the board is fresh {:.2?} after the link's return: {} waiting",
        back.elapsed(),
        shown["own"]["pending"]
    );
    assert!(shown["version"]["position"].as_u64() > old["version"]["position"].as_u64(), "{shown}");
    assert_eq!(shown["own"]["occupied"], events);
    assert!(shown["own"]["pending"].as_u64().unwrap() > events / 2, "{shown}");
    // It stays fresh, exchange by exchange, while the backlog goes on.
    let mut oldest: f64 = 0.0;
    wait_until("a third is delivered", DELIVERED_WITHIN, &[&north, &server], || {
        oldest = oldest.max(board()["age_seconds"].as_f64().unwrap());
        north.depth() < events * 2 / 3
    });
    println!("while a third was delivered the board was never older than {oldest:.1} s");
    assert!(oldest < KNOWN_WITHIN.as_secs_f64());
    way.slow_down_to(u64::MAX);
    wait_until("all is delivered", DELIVERED_WITHIN, &[&north, &server], || north.depth() == 0);
    wait_until("and counted", DELIVERED_WITHIN, &[&server], || {
        server.occupied("north") == Some(events as i64)
    });
    let known = seen();
    assert_eq!((&known["marks"][0]["sequence"], &known["live_occupied"]), (&events.into(), &events.into()));
    [&north, &south].into_iter().for_each(Edge::assert_sound);
    println!("all is delivered and counted {:.1?} after the link's return", back.elapsed());
    server.verifies();
    println!("verified by {:.1?}", back.elapsed());
}
