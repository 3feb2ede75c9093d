//! **Promise.** An edge remembers at most a million idempotency keys. None is forgotten before its time to make room: a new one
//! is asked to come back, while keys that are known get their answer, and events without a key are taken as ever.

use crate::common::scale::{Scale, runs_from};
use crate::common::{Edge, Http, Server, wait_until};
use fogpost::messaging::outbox::{Options, Outbox, keys::KEPT_MOST};
use fogpost::messaging::page::{IdempotencyKey, Message};
use fogpost::messaging::{ClockReading, Digest};
use fogpost::parking::Event;
use fogpost::store::directory::STORE;
use fogpost::store::{Purpose, Store};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const DELIVERED_WITHIN: Duration = Duration::from_secs(300);
/// How many appends wait for the disk together.
const TOGETHER: u64 = 1000;

fn body(n: u64) -> String {
    format!(r#"{{"kind":"entry","plate":"KA{n}"}}"#)
}

/// As the edge stores what is posted under a key; it has to know these again.
fn record(n: u64) -> Message {
    let body = body(n);
    let event = Event::from_json(body.as_bytes(), "2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
    let digest = Digest::of(format!("event\n{body}").as_bytes());
    let key = IdempotencyKey { text: format!("key-{n}").into(), body: digest, count: 1 };
    Message { key: Some(key), ..Message::of(event.to_bytes()) }
}

/// Posting a million times over HTTP would take minutes: the outbox itself takes them here.
fn fill(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Store::open(&dir.join(STORE), Purpose::Edge).unwrap();
    let at = ClockReading::at_wall_ms(1_767_225_600_000);
    let outbox = Outbox::open(store, Options::default(), at).unwrap();
    runtime.block_on(async {
        for first in (0..KEPT_MOST).step_by(TOGETHER as usize) {
            let mut appends = JoinSet::new();
            for n in first..first + TOGETHER {
                let outbox = outbox.clone();
                appends.spawn(async move { outbox.append(vec![record(n)], at).await });
            }
            while let Some(appended) = appends.join_next().await {
                assert!(!appended.unwrap().unwrap().repeated);
            }
        }
    });
    assert_eq!(outbox.keys_remembered(), KEPT_MOST);
}

fn post(http: &Http, n: u64) -> crate::common::Answer {
    let body = body(n);
    http.post_with_key("/v1/events", "application/json", &format!("key-{n}"), body.as_bytes()).unwrap()
}

#[test]
fn beyond_a_million_keys_a_new_one_is_told_to_come_back_and_nothing_else_is_refused() {
    if !runs_from(Scale::Default) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    server.kill();
    let filling = Instant::now();
    fill(&dir.path().join("edge"));
    println!("{KEPT_MOST} appends with a key each in {:.1?}", filling.elapsed());
    let opening = Instant::now();
    let mut edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    println!(
        "opened with {KEPT_MOST} events and keys waiting in {:.2?}: {:?}",
        opening.elapsed(),
        edge.memory()
    );
    let mut taken = KEPT_MOST;
    let mut holds = |edge: &Edge| {
        let http = edge.http();
        let refused = post(&http, KEPT_MOST);
        assert_eq!(refused.retry_after.as_deref(), Some("60"), "{refused:?}");
        let detail = refused.problem(503);
        assert!(detail.contains("1000000 keys are remembered"), "{detail}");
        assert!(detail.contains("nothing was stored"), "{detail}");
        for n in [0, KEPT_MOST / 2, KEPT_MOST - 1] {
            assert_eq!(post(&http, n).status, 201, "a key that is known");
        }
        let other = http.post_with_key("/v1/events", "application/json", "key-7", body(8).as_bytes());
        other.unwrap().problem(422);
        let without = http.post("/v1/events", "application/json", body(9).as_bytes()).unwrap();
        assert_eq!(without.status, 201, "an event without a key: {without:?}");
        taken += 1;
    };
    holds(&edge);
    server.restart();
    wait_until("all is delivered", DELIVERED_WITHIN, &[&edge, &server], || edge.depth() == 0);
    // They are young, though all of them were acknowledged.
    holds(&edge);
    assert_eq!(edge.stop().0, Some(0));
    let opening = Instant::now();
    edge.restart();
    println!(
        "opened with {KEPT_MOST} keys of delivered events in {:.2?}: {:?}",
        opening.elapsed(),
        edge.memory()
    );
    holds(&edge);
    wait_until("nothing more came", DELIVERED_WITHIN, &[&edge, &server], || edge.depth() == 0);
    assert_eq!(server.applied_of("a"), taken);
    server.verifies();
    edge.assert_sound();
}
