//! **Promise.** However long the server is away, what an edge has confirmed is delivered in order when it is back, and the
//! edge stays small.

use crate::common::daemon::optimised;
use crate::common::{Edge, Journal, Server, assert_exactly_once, events_of, wait_until};
use std::time::{Duration, Instant};

const EVENTS: u64 = 200_000;
const BATCH: u64 = 10_000;
const EDGE_MEMORY_MAX_KB: u64 = 64 * 1024;
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn a_backlog_of_200000_events_is_delivered_in_order_by_an_edge_of_64_mb() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    server.kill();
    let mut journal = Journal::default();
    let accepting = Instant::now();
    let mut post = |edge: &Edge, batches: std::ops::Range<u64>| {
        for batch in batches {
            let plates = (batch * BATCH..(batch + 1) * BATCH).map(|car| format!("KA{car}")).collect();
            journal.post_entries(&edge.http(), plates);
        }
    };
    post(&edge, 0..EVENTS / BATCH / 2);
    assert_is_small(&edge);
    edge.kill();
    let restarting = Instant::now();
    edge.restart();
    let restart_took = restarting.elapsed();
    post(&edge, EVENTS / BATCH / 2..EVENTS / BATCH);
    assert_eq!(journal.confirmed_events(), EVENTS);
    let accepted_in = accepting.elapsed();
    let waiting = edge.http().get_json("/v1/outbox");
    assert_eq!(waiting["depth"], EVENTS);

    server.restart();
    let back = Instant::now();
    wait_until("the backlog is delivered", DELIVERED_WITHIN, &[&edge, &server], || edge.depth() == 0);
    let delivered_in = back.elapsed();
    assert_exactly_once(&events_of(&server, "a"), &[journal]);
    wait_until("the view counts all", DELIVERED_WITHIN, &[&server], || {
        server.occupied("a") == Some(EVENTS as i64)
    });
    println!(
        "{EVENTS} events: accepted in {accepted_in:.1?} with a restart of {restart_took:.1?}, delivered in \
         {delivered_in:.1?} ({:.0} a second); {} bytes waited; edge {} KB at most, server {} KB",
        EVENTS as f64 / delivered_in.as_secs_f64(),
        waiting["bytes"],
        edge.memory().most_kb,
        server.memory().most_kb,
    );
    assert_is_small(&edge);
}

fn assert_is_small(edge: &Edge) {
    let memory = edge.memory();
    // A program that was built without optimisation is so large that its own pages are not counted.
    let program = if optimised() { 0 } else { memory.program_kb };
    assert!(memory.most_kb - program < EDGE_MEMORY_MAX_KB, "the edge took {memory:?}");
}
