//! **Promise.** A producer gets its answer, also when it closes its own direction early, and whatever other clients do with half a
//! request. What is not complete in time is answered 408. Neither program waits for such clients when it stops.
//!
//! What clients do that mean harm is in `hostile_clients_bring_nothing_down.rs`.

use crate::common::{Edge, Program, Server, events_of, send_half_a_request, wait_until};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// Longer than a request may take to be complete, which is 30 s.
const TIMED_OUT: Duration = Duration::from_secs(60);

fn address(dir: &Path) -> SocketAddr {
    std::fs::read_to_string(dir.join("http.addr")).unwrap().trim().parse().unwrap()
}

fn start_edge(dir: &Path) -> Edge {
    Edge::start(&dir.join("edge"), "a", &["tcp://127.0.0.1:1".to_owned()], &[])
}

fn stored(edge: &Edge) -> u64 {
    edge.http().get_json("/v1/outbox")["next_sequence"].as_u64().unwrap() - 1
}

/// A connection on which this was sent.
fn sent(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMED_OUT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// All that comes until the connection is closed.
fn rest(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap_or_else(|error| panic!("{error} after {text:?}"));
    text
}

fn post(path: &str, content_type: &str, length: usize, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

const EVENT: &str = r#"{"kind":"entry","plate":"B-AB 123"}"#;

/// `nc -N` and the HTTP of small controllers do it. Of ten events nine were stored, and none was answered.
#[test]
fn a_client_that_closes_its_own_direction_after_a_whole_request_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    let batch = format!("{EVENT}\n{EVENT}\n");
    for n in 1..=40 {
        let whole = match n % 2 {
            0 => post("/v1/events", "application/json", EVENT.len(), EVENT),
            _ => post("/v1/events/batch", "application/x-ndjson", batch.len(), &batch),
        };
        let stream = sent(address(edge.dir()), &whole);
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = rest(&stream);
        assert!(answer.starts_with("HTTP/1.1 201 "), "{n}: {answer:?}");
    }
    assert_eq!(stored(&edge), 60);
    for path in ["/v1/occupancy", "/v1/garages", "/v1/events?garage=a"] {
        let stream =
            sent(address(server.dir()), format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = rest(&stream);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('}'), "{answer:?}");
    }
    wait_until("all arrive", SOON, &[&edge, &server], || edge.depth() == 0);
    assert_eq!(events_of(&server, "a").len(), 60);
}

/// Six batches that stalled took all that could be read at a time: everybody else's batch was answered 503, for 30 s.
#[test]
fn what_is_not_complete_within_30_s_gets_408_and_meanwhile_everybody_else_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let edge = start_edge(dir.path());
    let line = format!("{EVENT}\n");
    // More than all batches together may take while they come in: 20 times 600 KB of 1 MiB.
    let long = line.repeat(600 * 1024 / line.len());
    let mut hanging = Vec::new();
    for _ in 0..20 {
        let half = post("/v1/events/batch", "application/x-ndjson", 1024 * 1024, &long);
        hanging.push(("a long batch", sent(address(edge.dir()), &half)));
        let half = post("/v1/events/batch", "application/x-ndjson", 200, &line);
        hanging.push(("a batch", sent(address(edge.dir()), &half)));
        let half = post("/v1/events", "application/json", EVENT.len() + 1, EVENT);
        hanging.push(("an event", sent(address(edge.dir()), &half)));
    }
    for dir in [edge.dir(), server.dir()] {
        hanging.push(("a header", sent(address(dir), b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")));
        hanging.push(("nothing", sent(address(dir), b"")));
    }
    let batch = [EVENT; 100].join("\n");
    for _ in 0..10 {
        for answer in
            [edge.http().post_batch(&batch), edge.http().post_event(&serde_json::from_str(EVENT).unwrap())]
        {
            let answer = answer.unwrap();
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    }
    let largest = line.repeat(1024 * 1024 / line.len() / 4);
    let answer = edge.http().post_batch(&largest).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    let confirmed = 10 * 101 + largest.lines().count() as u64;

    let mut gave_way = 0;
    for (what, stream) in &hanging {
        let answer = rest(stream);
        assert!(answer.contains("application/problem+json"), "{what}: {answer:?}");
        assert!(answer.contains("Nothing was stored"), "{what}: {answer:?}");
        // Long ones give way to each other when they are more than fits into memory.
        match answer.starts_with("HTTP/1.1 503 ") && *what == "a long batch" {
            true => gave_way += 1,
            false => assert!(answer.starts_with("HTTP/1.1 408 "), "{what}: {answer:?}"),
        }
    }
    assert!((1..20).contains(&gave_way), "{gave_way} long batches gave way");
    assert_eq!(stored(&edge), confirmed, "nothing of what was not complete");
    let metrics = edge.http().get("/metrics").unwrap().body;
    let timed_out = format!("fogpost_edge_http_requests_timed_out_total {}\n", hanging.len() - gave_way - 2);
    assert!(metrics.contains(&timed_out), "{timed_out:?} is not in {metrics}");
}

/// One request whose second half never came made each stop take 4 s.
#[test]
fn a_stop_does_not_wait_for_half_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = start_edge(dir.path());
    let half = [edge.dir(), server.dir()].map(|dir| {
        let stream = send_half_a_request(dir);
        stream.set_read_timeout(Some(TIMED_OUT)).unwrap();
        stream
    });
    // Until it has been read it is not known to be a request.
    wait_until("both are read", SOON, &[&edge, &server], || {
        let open = |text: String, name: &str| {
            text.lines().any(|line| line.starts_with(name) && !line.ends_with(" 0"))
        };
        open(edge.http().get("/metrics").unwrap().body, "fogpost_edge_http_connections_open")
            && open(server.http().get("/metrics").unwrap().body, "fogpost_server_http_connections_open")
    });
    for (name, (code, took)) in [("edge", edge.stop()), ("server", server.stop())] {
        println!("stopping {name} beside half a request: {took:?}");
        assert_eq!(code, Some(0), "{name}");
        assert!(took < Duration::from_secs(4), "{name} took {took:?}");
    }
    for (stream, log) in half.iter().zip([edge.log(), server.log()]) {
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Nothing was stored"), "{answer:?}");
        assert!(!log.contains("not answered in time") && !log.contains("kept its connection open"), "{log}");
    }
}
