//! Promise: a confirmation comes after the disk. What `edge` answers 201 and what `server` acknowledges was written
//! into the store's file, and then a sync of that file ended, before the answer left.
//!
//! This is read from a trace of system calls, because nothing within the program can prove it: sled calls
//! `sync_file_range`, which survives no power cut, and only the linker makes our barrier out of it (see
//! `src/store/barrier.rs`). So the raw call must not occur at all. A build with the feature `test-without-barrier`
//! fails here.

use crate::common::{Edge, Http, Server, requires, wait_until};
use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use fogpost::messaging::{Epoch, Sequence};
use fogpost::parking::Event;
use fogpost::transport::dealer::DealerConnection;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// An address where nobody listens.
const NOWHERE: &str = "tcp://127.0.0.1:1";

#[test]
fn an_edge_answers_201_after_a_sync_that_follows_the_write() {
    if !requires::strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let servers = [NOWHERE.to_owned()];
    let mut edge = Edge::start_under(&tracer(&trace), &dir.path().join("edge"), "1", &servers, &[]);
    // Several at once, so that some are committed together.
    let mut confirmed: Vec<(u64, String)> = std::thread::scope(|scope| {
        let http = edge.http();
        let post = |camera| {
            let http = http.clone();
            scope.spawn(move || post_ten(&http, camera))
        };
        let posts: Vec<_> = (0..4).map(post).collect();
        posts.into_iter().flat_map(|post| post.join().unwrap()).collect()
    });
    let batch: Vec<String> = (0..90).map(|n| format!("BATCH{n:02}")).collect();
    let lines: Vec<String> =
        batch.iter().map(|plate| json!({"kind": "exit", "plate": plate}).to_string()).collect();
    let answer = edge.http().post_batch(&lines.join("\n")).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    edge.stop();

    let calls = Calls::read(&trace);
    calls.assert_no_raw_sync_file_range();
    confirmed.sort();
    assert_eq!(confirmed.len(), 40);
    for (sequence, plate) in confirmed {
        let answer = calls.sending(format!("{{\"sequence\":{sequence},").as_bytes());
        calls.assert_synced_before(answer, plate.as_bytes());
    }
    let answer = calls.sending(b"{\"first\":41,");
    batch.iter().for_each(|plate| calls.assert_synced_before(answer, plate.as_bytes()));
}

fn post_ten(http: &Http, camera: u8) -> Vec<(u64, String)> {
    let post = |n| {
        let plate = format!("TRACED{camera}{n}");
        let answer = http.post_event(&json!({"kind": "entry", "plate": plate})).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        (answer.json()["sequence"].as_u64().unwrap(), plate)
    };
    (0..10).map(post).collect()
}

#[test]
fn a_server_acknowledges_after_a_sync_that_follows_the_write() {
    if !requires::strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let mut server = Server::start_under(&tracer(&trace), &dir.path().join("server"), &[]);
    let epoch = Epoch::random();
    let mut replies = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut link = DealerConnection::connect(&server.address().parse().unwrap(), None).await.unwrap();
        for n in 1..=10 {
            link.send(request(epoch, n, &format!("TRACED{n:02}")).encode()).await.unwrap();
            let body = tokio::time::timeout(Duration::from_secs(20), link.recv()).await.unwrap().unwrap();
            let reply = Reply::decode(&body).unwrap();
            assert_eq!((reply.id, reply.mark, &reply.verdict), (n, n, &Verdict::Accepted));
            replies.push(body);
        }
    });
    server.stop();

    let calls = Calls::read(&trace);
    calls.assert_no_raw_sync_file_range();
    for (n, reply) in (1..).zip(replies) {
        calls.assert_synced_before(calls.sending(&reply), format!("TRACED{n:02}").as_bytes());
    }
}

/// An entry of `plate` at sequence `n`, in a page of its own.
fn request(epoch: Epoch, n: u64, plate: &str) -> Request {
    let event = json!({"kind": "entry", "plate": plate}).to_string();
    let event = Event::from_json(event.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap();
    let page = Page {
        epoch,
        first: Sequence::new(n).unwrap(),
        previous: None,
        moved_from: None,
        begun: fogpost::messaging::ClockReading::at_wall_ms(0),
        content: Content::Records(vec![Message::of(event.to_bytes())]),
    };
    Request {
        id: n,
        site: "1".parse().unwrap(),
        epoch,
        oldest: n,
        ledger: None,
        instance: 1,
        clock_ms: 0,
        pages: vec![SealedPage::seal(&page)],
        ask: None,
        observation: None,
    }
}

/// Traces what writes, sends and syncs, in all threads, with paths, and with whole buffers (a segment of sled has
/// 512 KB) in hexadecimal. `-D` leaves the pid to the traced program.
fn tracer(trace: &Path) -> Vec<&str> {
    let calls = "trace=fsync,fdatasync,sync_file_range,pwrite64,pwritev,write,writev,sendto,sendmsg";
    let shape = ["-f", "-y", "-xx", "-s", "600000", "-e", "signal=none", "-e", calls];
    let output = ["-o", trace.to_str().unwrap()];
    ["strace", "-D"].into_iter().chain(shape).chain(output).collect()
}

/// One system call, as the trace tells it.
#[derive(Debug, Default)]
struct Call {
    name: String,
    /// What its first argument, a descriptor, stands for: a path, or `socket:[…]`.
    file: Vec<u8>,
    /// What it was given to write.
    bytes: Vec<u8>,
    succeeded: bool,
    /// The lines of the trace in which it began and ended.
    began: usize,
    ended: usize,
}

impl Call {
    fn is_on_the_store(&self) -> bool {
        self.file.ends_with(b"/store/db")
    }
    fn carries(&self, bytes: &[u8]) -> bool {
        self.bytes.windows(bytes.len()).any(|part| part == bytes)
    }
}

/// What a traced program did, in the order of time.
struct Calls(Vec<Call>);

impl Calls {
    /// Reads a trace once its program has ended.
    fn read(trace: &Path) -> Calls {
        let text = || std::fs::read_to_string(trace).unwrap();
        wait_until("the tracer has written everything", Duration::from_secs(30), &[], || {
            let text = text();
            let (Some(first), Some(last)) = (text.lines().next(), text.lines().last()) else { return false };
            let main_thread = first.split(' ').next().unwrap();
            last.starts_with(main_thread) && last.contains("+++ exited with")
        });
        let mut calls = Vec::new();
        let mut unfinished: HashMap<String, Call> = HashMap::new();
        for (place, line) in text().lines().enumerate() {
            let (thread, said) = line.split_once(' ').unwrap();
            let said = said.trim_start();
            let call = if said.starts_with("<... ") {
                unfinished.remove(thread).expect("what is resumed was begun")
            } else if let Some((name, arguments)) = said.split_once('(') {
                let file = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
                Call {
                    name: name.to_owned(),
                    file: file.map(|(file, _)| in_hexadecimal(file)).unwrap_or_default(),
                    // Every second part between quotes is a buffer.
                    bytes: arguments.split('"').skip(1).step_by(2).flat_map(in_hexadecimal).collect(),
                    began: place,
                    ..Call::default()
                }
            } else {
                continue; // the end of a thread
            };
            if said.ends_with("<unfinished ...>") {
                unfinished.insert(thread.to_owned(), call);
            } else {
                let result = said.rsplit_once(" = ").map_or("-", |(_, result)| result);
                calls.push(Call { succeeded: !result.starts_with(['-', '?']), ended: place, ..call });
            }
        }
        Calls(calls)
    }

    fn assert_no_raw_sync_file_range(&self) {
        let raw: Vec<_> = self.0.iter().filter(|call| call.name == "sync_file_range").collect();
        assert!(raw.is_empty(), "sync_file_range was called {} times", raw.len());
        assert!(self.0.iter().any(|call| call.name == "fdatasync"), "the trace shows no sync at all");
    }

    /// The first call that sent `bytes`: to a peer, or to the server's gateway, which passes them on.
    fn sending(&self, bytes: &[u8]) -> &Call {
        let sent = self.0.iter().filter(|call| call.file.starts_with(b"socket:") && call.carries(bytes));
        let text = String::from_utf8_lossy(bytes);
        sent.min_by_key(|call| call.began).unwrap_or_else(|| panic!("{text:?} was never sent"))
    }

    /// `bytes` were written into the store, a sync of the store began after that, and it had ended when `answer` left.
    fn assert_synced_before(&self, answer: &Call, bytes: &[u8]) {
        let on_store = || self.0.iter().filter(|call| call.is_on_the_store() && call.succeeded);
        let text = String::from_utf8_lossy(bytes);
        let written = on_store().filter(|call| call.name.starts_with("pwrite") && call.carries(bytes));
        let written = written.min_by_key(|call| call.ended);
        let written = written.unwrap_or_else(|| panic!("{text} was never written into the store"));
        let synced = on_store().any(|call| {
            matches!(&*call.name, "fdatasync" | "fsync")
                && written.ended < call.began
                && call.ended < answer.began
        });
        assert!(
            synced,
            "{text} was written (lines {} to {} of the trace), and the answer left (line {}) without a sync between",
            written.began, written.ended, answer.began
        );
    }
}

/// `\x66\x6f\x67` as strace -xx writes it.
fn in_hexadecimal(text: &str) -> Vec<u8> {
    let bytes = text.split("\\x").skip(1);
    bytes.map(|byte| u8::from_str_radix(&byte[..2], 16).unwrap()).collect()
}
