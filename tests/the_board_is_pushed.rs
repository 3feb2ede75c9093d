//! **Promise.** Who watches the board of a garage gets it at once, and then each change, a few times a second at the most; the stream ends
//! when the edge stops.

use crate::common::{Edge, Server, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// One who watches.
struct Watcher {
    lines: BufReader<TcpStream>,
    head: String,
}

impl Watcher {
    fn of(edge: &Edge) -> Watcher {
        let address = edge.address().get().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET /v1/board/stream HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut watcher = Watcher { lines: BufReader::new(stream), head: String::new() };
        while let Some(line) = watcher.line().filter(|line| !line.is_empty()) {
            watcher.head += &(line + "\n");
        }
        watcher
    }

    /// `None`: the stream has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).unwrap();
        (length > 0).then(|| line.trim_end().to_owned())
    }

    /// The data of the next event; `None` when the stream ends first, as it should.
    fn next(&mut self) -> Option<Value> {
        let mut name = String::new();
        loop {
            let line = self.line()?;
            if let Some(its) = line.strip_prefix("event: ") {
                name = its.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                assert_eq!(name, "board");
                return Some(serde_json::from_str(data).unwrap());
            } else if line == "0" {
                return None; // the last chunk
            }
        }
    }

    /// The next board of which this holds.
    fn until(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let board = self.next().expect("the stream goes on");
            if holds(&board) {
                return board;
            }
        }
    }
}

fn state(board: &Value, name: &str) -> Value {
    let lines = board["garages"].as_array().unwrap();
    lines.iter().find(|line| line["name"] == name).map(|line| line["state"].clone()).unwrap_or_default()
}

fn entry() -> Value {
    json!({"kind": "entry", "plate": null})
}

#[test]
fn who_watches_the_board_sees_each_change_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let start = |name: &str| {
        Edge::start(&dir.path().join(name), name, &[server.address()], &["--board-interval-ms", "100"])
    };
    let (mut a, b) = (start("a"), start("b"));
    let mut watcher = Watcher::of(&a);
    assert!(watcher.head.contains("content-type: text/event-stream"), "{}", watcher.head);
    let first = watcher.next().unwrap();
    assert_eq!(first["own"]["name"], "a");
    if first["connected"] == false {
        watcher.until(|board| board["connected"] == true);
    }
    a.http().post_event(&json!({"kind": "count", "occupied": 7, "reason": "rounds"})).unwrap();
    watcher.until(|board| {
        let own = &board["own"];
        own["occupied"] == 7 && own["pending"] == 0 && own["state"] == "open"
    });

    b.http().post_event(&json!({"kind": "closed"})).unwrap();
    watcher.until(|board| state(board, "b") == "closed");
    b.http().post_event(&json!({"kind": "opened"})).unwrap();
    b.http().post_event(&json!({"kind": "count", "occupied": 500, "reason": "rounds"})).unwrap();
    watcher.until(|board| state(board, "b") == "full");

    // Many at once are a few events.
    let began = Instant::now();
    (0..100).for_each(|_| assert_eq!(a.http().post_event(&entry()).unwrap().status, 201));
    let mut events = 1;
    while watcher.next().unwrap()["own"]["occupied"] != 107 {
        events += 1;
    }
    let most = began.elapsed().as_millis() / 200 + 2;
    assert!(events <= most, "{events} of {most}");

    server.kill();
    watcher.until(|board| board["connected"] == false);
    let began = Instant::now();
    let (code, _) = a.stop();
    assert_eq!((code, watcher.next()), (Some(0), None));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// A stream that is not idle gives way when there is no other room, and a browser that was sent away comes again.
#[test]
fn many_who_watch_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(&dir.path().join("a"), "a", &["tcp://127.0.0.1:1".into()], &[]);
    let mut watchers: Vec<Watcher> = Vec::new();
    for _ in 0..520 {
        watchers.push(Watcher::of(&edge));
    }
    assert_eq!(edge.http().post_event(&entry()).unwrap().status, 201);
    let newest = watchers.last_mut().unwrap();
    newest.until(|board| board["own"]["pending"] == 1);
    drop(watchers);
    wait_until("what is written to them shows that they are gone", SOON, &[&edge], || {
        edge.http().post_event(&entry()).unwrap();
        edge.descriptors() < 200
    });
}
