//! **Promise.** However many garages a city has, each edge shows the whole board, and the lists of garages lead from the first to
//! the last.
//!
//! Above some 3,000 garages the board did not fit into a reply: a new edge never got one, and nobody said so.

use crate::common::{Edge, Server, wait_until};
use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use fogpost::messaging::{ClockReading, Epoch, Sequence, SiteName};
use fogpost::parking::Event;
use fogpost::transport::dealer::DealerConnection;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

const GARAGES: usize = 10_000;
const SOON: Duration = Duration::from_secs(60);
const WINDOW: usize = 64;

fn name(n: usize) -> String {
    format!("{n:05} at the corner of Long Street and Longer Street")
}

/// One car enters.
fn entry(garage: &str) -> Request {
    let epoch = Epoch::random();
    let event = br#"{"kind":"entry","plate":null}"#;
    let event = Event::from_json(event, jiff::Timestamp::UNIX_EPOCH).unwrap();
    let page = SealedPage::seal(&Page {
        epoch,
        first: Sequence::FIRST,
        previous: None,
        moved_from: None,
        begun: ClockReading::at_wall_ms(0),
        content: Content::Records(vec![Message::of(event.to_bytes())]),
    });
    Request {
        id: 1,
        site: SiteName::new(garage).unwrap(),
        epoch,
        oldest: 1,
        ledger: None,
        instance: 1,
        clock_ms: 0,
        pages: vec![page],
        ask: None,
        observation: None,
    }
}

async fn deliver(server: &Server, requests: impl Iterator<Item = Request>) {
    let mut link = DealerConnection::connect(&server.address().parse().unwrap(), None).await.unwrap();
    let mut waiting = 0;
    let mut requests = requests.fuse();
    loop {
        let request = (waiting < WINDOW).then(|| requests.next()).flatten();
        match request {
            Some(request) => {
                link.send(request.encode()).await.unwrap();
                waiting += 1;
            }
            None if waiting == 0 => return,
            None => {
                let reply = Reply::decode(&link.recv().await.unwrap()).unwrap();
                assert_eq!(reply.verdict, Verdict::Accepted);
                waiting -= 1;
            }
        }
    }
}

#[test]
fn the_board_of_ten_thousand_garages_reaches_a_new_edge_and_follows() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(deliver(&server, (0..GARAGES).map(|n| entry(&name(n)))));
    let often = &["--board-interval-ms", "100"];
    let edge = Edge::start(&dir.path().join("edge"), "new", &[server.address()], often);
    let mut board = Value::Null;
    wait_until("the edge shows the board of the city", SOON, &[&edge, &server], || {
        board = edge.http().get_json("/v1/board");
        // It is whole, or there is none.
        let lines = board["garages"].as_array().unwrap().len();
        assert!(lines == 0 || lines >= GARAGES, "{lines} lines");
        lines >= GARAGES
    });
    let names = board["garages"].as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap());
    let names: BTreeSet<&str> = names.collect();
    assert!((0..GARAGES).all(|n| names.contains(name(n).as_str())));

    runtime.block_on(deliver(&server, std::iter::once(entry(&name(7)))));
    wait_until("the board follows", SOON, &[&edge, &server], || {
        let board = edge.http().get_json("/v1/board");
        let lines = board["garages"].as_array().unwrap();
        let line = lines.iter().find(|line| line["name"] == *name(7)).unwrap();
        assert!(lines.len() >= GARAGES);
        line["occupied"] == 2
    });

    let (mut found, mut path) = (Vec::new(), "/v1/garages?limit=1000".to_owned());
    loop {
        let answer = server.http().get_json(&path);
        let names =
            answer["garages"].as_array().unwrap().iter().map(|its| its["name"].as_str().unwrap().to_owned());
        found.extend(names);
        let Some(next) = answer["next"].as_str() else { break };
        path = format!("/v1/garages?limit=1000&after={}", next.replace(' ', "%20"));
    }
    let listed: BTreeSet<&String> = found.iter().collect();
    assert_eq!(listed.len(), found.len(), "each once");
    assert!((0..GARAGES).all(|n| listed.contains(&name(n))));
}
