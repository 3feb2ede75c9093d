//! **Promise.** `edge --simulate CARS_PER_HOUR` makes cars up that go the way of every other event: confirmed, delivered once and
//! in order, and counted. It says that it makes them up, and takes what cameras post beside them.

use crate::common::{Edge, Journal, Program, Server, events_of, wait_until};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
/// Ten cars a second.
const CARS_PER_HOUR: &str = "36000";
const ENOUGH: u64 = 30;

#[test]
fn made_up_cars_arrive_at_the_server_beside_real_ones() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let settings = ["--simulate", CARS_PER_HOUR, "--board-interval-ms", "100"];
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &settings);
    let began = Instant::now();
    let mut journal = Journal::default();
    journal.post_entries(&edge.http(), (0..20).map(|n| format!("REAL{n}")).collect());
    assert_eq!(journal.confirmed_events(), 20);
    wait_until("cars arrive", SOON, &[&edge, &server], || server.applied_of("a") > ENOUGH + 20);
    println!("{} events in {:.1?}", server.applied_of("a"), began.elapsed());
    assert!(edge.log().contains("--simulate"), "it says that it makes cars up: {}", edge.log());

    // What it made up outlives it as everything else does.
    edge.kill();
    edge.restart();
    let before = server.applied_of("a");
    wait_until("cars come again", SOON, &[&edge, &server], || server.applied_of("a") > before + ENOUGH);
    assert_eq!(edge.stop().0, Some(0));
    let events = events_of(&server, "a");
    let mut inside: i64 = 0;
    for (event, sequence) in events.iter().zip(1..) {
        assert_eq!(event.sequence, sequence, "{event:?}");
        inside += match event.kind.as_str() {
            "entry" => 1,
            "exit" => -1,
            other => panic!("a made-up car enters or leaves: {other}"),
        };
    }
    let real = |plate: &Option<String>| plate.as_ref().is_some_and(|plate| plate.starts_with("REAL"));
    assert_eq!(events.iter().filter(|event| real(&event.plate)).count(), 20);
    wait_until("they are counted", SOON, &[&server], || server.occupied("a") == Some(inside));
}
