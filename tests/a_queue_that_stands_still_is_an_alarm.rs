//! **Promise.** When events wait, the server answers and none of them is acknowledged, the garage says so within half a minute,
//! everywhere where people and programs look, until the queue moves. Nothing is lost, whatever the reason was.

use crate::common::peers::StandIn;
use crate::common::{Edge, Journal, Program, Server, assert_exactly_once, events_of, wait_until};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use serde_json::Value;
use std::time::Duration;

const GARAGE: &str = "Bull Ring";
/// The queue stands for 30 s first.
const WITHIN: Duration = Duration::from_secs(120);

fn alarm(edge: &Edge) -> Option<String> {
    let shown = edge.http().get_json("/v1/outbox")["alarm"].as_str().map(str::to_owned);
    shown.filter(|alarm| alarm.starts_with("queue_stands_still"))
}

fn metric(edge: &Edge) -> String {
    let metrics = edge.http().get("/metrics").unwrap().body;
    let value = metrics.lines().find_map(|line| line.strip_prefix("fogpost_edge_queue_stands_still "));
    value.unwrap_or_else(|| panic!("{metrics}")).to_owned()
}

/// A garage stood still for ever after one flipped byte: it was connected, its pages were answered, 15,208 events waited, and
/// neither the garage nor the server said a word.
#[test]
fn in_the_outbox_on_the_page_in_the_log_and_in_the_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let often = ["--board-interval-ms", "200"];
    let edge = Edge::start(&dir.path().join("edge"), GARAGE, &[server.address()], &often);
    let mut journal = Journal::default();
    journal.post_entries(&edge.http(), vec!["KA0".into()]);
    wait_until("the first event is delivered", WITHIN, &[&edge, &server], || edge.depth() == 0);
    assert_eq!((alarm(&edge), metric(&edge).as_str()), (None, "0"));
    let ledger = server.http().get_json("/v1/occupancy")["ledger"].as_str().unwrap().parse().unwrap();
    server.kill();
    // It misses something that was never sent, whatever it gets.
    let deaf = StandIn::start(server.listen(), move |request: &Request| Reply {
        id: request.id,
        ledger,
        mark: 1,
        verdict: if request.pages.is_empty() { Verdict::Accepted } else { Verdict::Gap },
        pause_ms: 0,
        clock_ms: 0,
        notice: None,
        answer: None,
    });
    (1..4).for_each(|n| journal.post_entries(&edge.http(), vec![format!("KA{n}")]));
    wait_until("the queue stands still", WITHIN, &[&edge], || alarm(&edge).is_some());
    let shown = alarm(&edge).unwrap();
    assert!(shown.contains("after sequence 1 of epoch") && shown.contains("edge outbox verify"), "{shown}");
    assert_eq!(edge.http().get_json("/v1/board")["alarm"], Value::String(shown));
    assert_eq!(metric(&edge), "1");
    assert_eq!(edge.log().matches("\"queue_stands_still\"").count(), 1, "{}", edge.log_tail());
    assert_eq!(edge.depth(), 3, "nothing is deleted");

    drop(deaf);
    server.restart();
    wait_until("the queue moves", WITHIN, &[&edge, &server], || edge.depth() == 0 && alarm(&edge).is_none());
    assert_eq!(metric(&edge), "0");
    assert!(edge.log().contains("the queue moves again"), "{}", edge.log_tail());
    assert_exactly_once(&events_of(&server, GARAGE), &[journal]);
}
