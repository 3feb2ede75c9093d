//! Promise: what `edge` answered 201 is in the server's books exactly once and in sequence, however often the
//! programs are killed.

mod common;

use common::{Edge, Producer, Server, assert_exactly_once, events_of, wait_until};
use std::time::Duration;

#[test]
fn smoke() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), "Bull Ring", &[server.address()], &[]);
    let producer = Producer::start(edge.address(), "A", &[1, 100]);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(200));
        edge.kill();
        edge.restart();
    }
    wait_until("confirms", Duration::from_secs(5), &[&edge], || producer.confirmed_events() > 100);
    let journal = producer.finish();
    wait_until("delivered", Duration::from_secs(20), &[&edge, &server], || edge.depth() == 0);
    println!("{} confirmed, {} unknown", journal.confirmed_events(), journal.unknown.len());
    assert_exactly_once(&events_of(&server, "Bull Ring"), &[journal]);
}
