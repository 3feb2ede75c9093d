//! The loop with short time limits, over loopback.

use super::bodies::Bodies;
use super::metrics::ConnectionMetrics;
use super::{ConnectionLimits, Connections, Rules, TimeLimits, events, serve, with_fallbacks};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A limit that a test is to see at work.
const SHORT: Duration = Duration::from_millis(100);
/// A limit that it is not to see.
const LONG: Duration = Duration::from_secs(3600);
/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const GET_LONG: &str = "GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";

fn long_times() -> TimeLimits {
    TimeLimits {
        request: LONG,
        idle: LONG,
        stalled: LONG,
        answer: LONG,
        unwanted_body: LONG,
        linger: SHORT,
        rest_at_stop: SHORT,
        grace: LONG,
    }
}

struct TestDaemon {
    address: SocketAddr,
    stop: CancellationToken,
    traffic: ConnectionMetrics,
    /// Each permit lets one `GET /gate` be answered.
    gate: Arc<Semaphore>,
    /// What `GET /stream` shows.
    show: watch::Sender<Bytes>,
    serving: JoinHandle<()>,
}

async fn start(times: TimeLimits) -> TestDaemon {
    start_with(times, ConnectionLimits::default()).await
}

async fn start_with(times: TimeLimits, limits: ConnectionLimits) -> TestDaemon {
    let rules = Rules { times, ..Rules::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let bodies = Bodies::new("a body", 1024, 1024 * 1024);
    let stop = CancellationToken::new();
    let (show, streams_stop) = (watch::Sender::new(Bytes::new()), stop.clone());
    let subscribed = show.clone();
    let router = Router::new()
        .route(
            "/",
            get(|| async { "HERE" }).post(move |body: Body| async move {
                let body = bodies.read(body).await?;
                Ok::<_, super::Problem>((StatusCode::CREATED, body.len().to_string()))
            }),
        )
        .route(
            "/gate",
            get(async |State(gate): State<Arc<Semaphore>>| gate.acquire().await.unwrap().forget()),
        )
        .route("/long", get(|| async { vec![b'x'; 64 * 1024 * 1024] }))
        .route(
            "/stream",
            get(async move || {
                events::answer(Bytes::from_static(b"first\n"), subscribed.subscribe(), streams_stop.clone())
            }),
        )
        .route("/mistake", post(async || -> &'static str { panic!("a mistake for the test") }));
    let router = with_fallbacks(router.with_state(Arc::clone(&gate)));
    let traffic = ConnectionMetrics::default();
    let connections = Connections::new(limits, traffic.clone());
    let serving = tokio::spawn(serve(rules, listener, router, stop.clone(), connections));
    TestDaemon { address, stop, traffic, gate, show, serving }
}

impl TestDaemon {
    /// A connection that has sent `text`.
    async fn send(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn until_open(&self, connections: i64) {
        self.until(|traffic| traffic.connections_open.get() == connections).await;
    }

    async fn until(&self, happened: impl Fn(&ConnectionMetrics) -> bool) {
        let waiting = async {
            while !happened(&self.traffic) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("it never happened: {:?}", self.traffic));
    }
}

/// All that comes until the connection is closed.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("it is closed in time").unwrap();
    String::from_utf8(bytes).unwrap()
}

/// One answer that is not the last on its connection; `end` is how it ends.
async fn answer(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("it is answered in time");
        bytes
            .push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&bytes))));
    }
    String::from_utf8(bytes).unwrap()
}

fn assert_problem(answer: &str, status: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?} is no {status}");
    assert!(answer.to_lowercase().contains("content-type: application/problem+json\r\n"), "{answer:?}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["status"].to_string(), status, "{answer:?}");
}

/// Small controllers and `nc -N` close their own direction when they have sent their request. hyper's default took that for a
/// client that had left: of ten events nine were stored and none was answered.
#[tokio::test]
async fn a_client_that_closed_its_own_direction_is_answered() {
    let daemon = start(long_times()).await;
    for _ in 0..100 {
        let mut stream = daemon.send(POST).await;
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 201 ") && answer.ends_with("\r\n\r\n5"), "{answer:?}");
    }
    let mut stream = daemon.send("GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    daemon.until_open(1).await;
    daemon.gate.add_permits(1);
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "));
    daemon.until_open(0).await;
}

#[tokio::test]
async fn a_request_that_ends_before_it_is_complete_is_refused() {
    let daemon = start(long_times()).await;
    for half in [&GET[..20], &POST[..POST.len() - 1]] {
        let mut stream = daemon.send(half).await;
        stream.shutdown().await.unwrap();
        assert_problem(&rest(&mut stream).await, "400");
    }
    daemon.until_open(0).await;
}

#[tokio::test]
async fn a_first_request_that_is_not_complete_in_time_gets_408() {
    let daemon = start(TimeLimits { request: SHORT, ..long_times() }).await;
    for half in ["", "G", &POST[..30], &POST[..POST.len() - 1]] {
        let mut stream = daemon.send(half).await;
        assert_problem(&rest(&mut stream).await, "408");
    }
    assert_eq!(daemon.traffic.requests_timed_out.get(), 4);
    daemon.until_open(0).await;
}

/// A byte now and then does not prolong the time of a request.
#[tokio::test]
async fn a_request_that_comes_in_drops_gets_408() {
    let daemon = start(TimeLimits { request: SHORT, linger: PATIENCE, ..long_times() }).await;
    let (mut reader, mut writer) = daemon.send(&POST[..POST.len() - 5]).await.into_split();
    let dripping = tokio::spawn(async move {
        // A chunked body would never end; this one is cut off at its fourth byte.
        for byte in b"hell" {
            tokio::time::sleep(SHORT / 2).await;
            writer.write_all(&[*byte]).await.unwrap();
        }
        writer
    });
    let mut bytes = Vec::new();
    timeout(PATIENCE, reader.read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert_problem(&String::from_utf8(bytes).unwrap(), "408");
    drop(dripping.await.unwrap());
}

#[tokio::test]
async fn a_later_request_has_as_much_time_as_the_first_and_an_idle_connection_has_more() {
    let daemon = start(TimeLimits { request: SHORT, ..long_times() }).await;
    let mut stream = daemon.send(GET).await;
    answer(&mut stream, "HERE").await;
    tokio::time::sleep(2 * SHORT).await; // longer than a request may take
    stream.write_all(GET.as_bytes()).await.unwrap();
    answer(&mut stream, "HERE").await;
    stream.write_all(&POST.as_bytes()[..POST.len() - 1]).await.unwrap();
    assert_problem(&rest(&mut stream).await, "408");
    assert_eq!(daemon.traffic.requests_timed_out.get(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let daemon = start(TimeLimits { idle: SHORT, ..long_times() }).await;
    let mut stream = daemon.send(GET).await;
    assert!(rest(&mut stream).await.ends_with("\r\n\r\nHERE"), "nothing comes after the answer");
    assert_eq!(daemon.traffic.requests_timed_out.get(), 0);
    daemon.until_open(0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    for times in [TimeLimits { stalled: SHORT, ..long_times() }, TimeLimits { answer: SHORT, ..long_times() }]
    {
        let daemon = start(times).await;
        let stream = daemon.send(GET_LONG).await;
        daemon.until(|traffic| traffic.answers_timed_out.get() == 1).await;
        daemon.until_open(0).await;
        drop(stream);
    }
}

/// 512 clients that ask for the longest statement and read nothing would take the memory of the server.
#[tokio::test]
async fn answers_that_nobody_reads_take_no_more_than_their_limit() {
    let connections = ConnectionLimits { answer_bytes: 150 * 1024 * 1024, ..ConnectionLimits::default() };
    let daemon = start_with(long_times(), connections).await;
    let mut streams = Vec::new();
    for n in 1..=6 {
        let requests = if n % 2 == 0 { 1 } else { 2 };
        let mut stream = daemon.send(&GET_LONG.repeat(requests)).await;
        stream.read_u8().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await; // until nothing more fits into the sockets
        streams.push(stream);
        // Each takes 64 MB: from the third on one gives way for each.
        daemon.until(|traffic| traffic.connections_evicted.get() == (n - 2_u64.min(n))).await;
    }
    daemon.until_open(2).await;
    let mut stream = daemon.send(GET).await;
    answer(&mut stream, "HERE").await;
}

#[tokio::test]
async fn a_download_that_its_client_breaks_off_ends() {
    let daemon = start(long_times()).await;
    let mut stream = daemon.send(GET_LONG).await;
    stream.read_u8().await.unwrap();
    drop(stream);
    daemon.until_open(0).await;
}

/// hyper answers what it cannot parse with an empty body.
#[tokio::test]
async fn what_is_no_request_is_refused_with_a_problem() {
    let daemon = start(long_times()).await;
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    let long_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(70_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(200));
    for (text, statuses) in [
        ("nonsense\r\n\r\n", ["400"].as_slice()),
        ("\x16\x03\x01\x02\x00\x01", &["400"]),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", &["400"]),
        ("GET / HTTP/9.9\r\n\r\n", &["400"]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["505"]),
        (&long_path, &["414", "431"]),
        (&long_header, &["431"]),
        (&many_headers, &["431"]),
    ] {
        for before in ["", GET] {
            let mut stream = TcpStream::connect(daemon.address).await.unwrap();
            if !before.is_empty() {
                stream.write_all(before.as_bytes()).await.unwrap();
                answer(&mut stream, "HERE").await;
            }
            stream.write_all(text.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(statuses.contains(&status), "{text:.60?}: {answer:?}");
            assert_problem(&answer, status);
        }
    }
    daemon.until_open(0).await;
}

/// The handler refuses a body that has not come yet; the next request on the connection is heard.
#[tokio::test]
async fn a_refused_body_does_not_cost_the_next_request() {
    let daemon = start(long_times()).await;
    let (head, body) = POST.split_at(POST.len() - 5);
    for path in ["POST /nothing ", "POST /gate "] {
        let mut stream = daemon.send(&head.replace("POST / ", path)).await;
        tokio::time::sleep(Duration::from_millis(20)).await; // the handler has refused it by now, most of the time
        stream.write_all(body.as_bytes()).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        let answers = answer(&mut stream, "HERE").await;
        assert!(answers.starts_with("HTTP/1.1 40") && answers.contains("HTTP/1.1 200 "), "{answers:?}");
    }
}

#[tokio::test]
async fn a_refused_body_that_does_not_come_does_not_delay_the_reason() {
    let daemon = start(TimeLimits { unwanted_body: SHORT, ..long_times() }).await;
    let mut stream =
        daemon.send("POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n").await;
    assert_problem(&rest(&mut stream).await, "404");
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_its_body_is_answered_at_once() {
    let daemon = start(long_times()).await;
    let asks = "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut stream = daemon.send(asks).await;
    answer(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(b"hello").await.unwrap();
    assert!(answer(&mut stream, "\r\n\r\n5").await.starts_with("HTTP/1.1 201 "));
    let too_long = asks.replace("Length: 5", "Length: 5000");
    assert_problem(&rest(&mut daemon.send(&too_long).await).await, "413");
}

#[tokio::test]
async fn a_mistake_in_a_handler_is_a_problem_and_costs_nobody_else_anything() {
    let daemon = start(long_times()).await;
    let mut stream =
        daemon.send("POST /mistake HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_problem(&rest(&mut stream).await, "500");
    let mut stream = daemon.send(GET).await;
    answer(&mut stream, "HERE").await;
}

#[tokio::test]
async fn connections_without_a_request_give_way_and_those_that_are_answered_do_not() {
    let connections = ConnectionLimits { all: 3, per_address: 3, ..ConnectionLimits::default() };
    let daemon = start_with(long_times(), connections).await;
    let mut answered = daemon.send("GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut idle = daemon.send(GET).await;
    answer(&mut idle, "HERE").await;
    let mut silent = daemon.send("").await;
    daemon.until_open(3).await;

    let mut fourth = daemon.send(GET).await;
    answer(&mut fourth, "HERE").await;
    assert_eq!(rest(&mut silent).await, "", "the silent one gave way");
    let mut fifth = daemon.send(&POST[..POST.len() - 1]).await;
    assert_eq!(rest(&mut idle).await, "", "then the one that was idle for the longest time");
    daemon.until(|traffic| traffic.connections_evicted.get() == 2).await;
    let mut sixth = daemon.send(GET).await;
    answer(&mut sixth, "HERE").await;
    let said = rest(&mut fifth).await;
    assert_problem(&said, "503");
    assert!(said.contains("Nothing was stored"), "{said:?}");

    daemon.gate.add_permits(1);
    answer(&mut answered, "\r\n\r\n").await;
    assert_eq!((daemon.traffic.connections_evicted.get(), daemon.traffic.connections_refused.get()), (3, 0));
}

/// It held its descriptor for 2 s, when the process had none left.
#[tokio::test]
async fn a_connection_that_gives_way_does_not_wait_for_its_client() {
    let limits = ConnectionLimits { all: 1, ..ConnectionLimits::default() };
    let daemon = start_with(TimeLimits { linger: LONG, ..long_times() }, limits).await;
    let half = daemon.send(&POST[..20]).await;
    daemon.until_open(1).await;
    let mut next = daemon.send(GET).await;
    answer(&mut next, "HERE").await;
    daemon.until_open(1).await;
    drop(half);
}

#[tokio::test]
async fn a_connection_beyond_all_that_are_being_answered_is_refused_with_a_problem() {
    let connections = ConnectionLimits { all: 2, per_address: 2, ..ConnectionLimits::default() };
    let daemon = start_with(long_times(), connections).await;
    let gate = "GET /gate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut answered = [daemon.send(gate).await, daemon.send(gate).await];
    // Until both are with their handlers they may give way.
    daemon.until_open(2).await;
    let refused = async {
        loop {
            let mut third = TcpStream::connect(daemon.address).await.unwrap();
            let said = rest(&mut third).await;
            if !said.is_empty() {
                return said;
            }
        }
    };
    assert_problem(&timeout(PATIENCE, refused).await.unwrap(), "503");
    daemon.gate.add_permits(2);
    for stream in &mut answered {
        assert!(rest(stream).await.starts_with("HTTP/1.1 200 "));
    }
}

/// A half-sent request once made each stop take the whole grace. What was sent right before the stop counts.
#[tokio::test]
async fn a_stop_answers_whole_requests_and_waits_for_nobody_else() {
    let daemon = start(long_times()).await; // with a grace of an hour
    let mut idle = daemon.send(GET).await;
    answer(&mut idle, "HERE").await;
    let mut silent = daemon.send("").await;
    let mut half_header = daemon.send(&GET[..10]).await;
    let mut half_body = daemon.send(&POST[..POST.len() - 1]).await;
    let mut gate = daemon.send("GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    daemon.until_open(5).await;
    daemon.stop.cancel();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut silent).await, "");
    for half in [&mut half_header, &mut half_body] {
        let said = rest(half).await;
        // What had not been read when the stop came is not known to be a request.
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 503 "), "{said:?}");
    }
    daemon.until_open(1).await;
    assert!(!daemon.serving.is_finished());
    daemon.gate.add_permits(1);
    assert!(rest(&mut gate).await.starts_with("HTTP/1.1 200 "));
    timeout(PATIENCE, daemon.serving).await.expect("it ends when all are answered").unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_longer_than_the_grace() {
    let daemon = start(TimeLimits { grace: SHORT, ..long_times() }).await;
    let mut gate = daemon.send("GET /gate HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    daemon.until_open(1).await;
    daemon.stop.cancel();
    timeout(PATIENCE, daemon.serving).await.expect("it ends").unwrap();
    assert_eq!(rest(&mut gate).await, "");
}

/// A client that sends the rest of its request while the daemon stops is still answered.
#[tokio::test]
async fn a_request_that_is_complete_just_after_the_stop_is_answered() {
    let daemon = start(TimeLimits { rest_at_stop: PATIENCE, ..long_times() }).await;
    let mut stream = daemon.send(&POST[..POST.len() - 1]).await;
    daemon.until_open(1).await;
    // It must have been read as the beginning of a request.
    tokio::time::sleep(SHORT).await;
    daemon.stop.cancel();
    stream.write_all(b"o").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 201 "));
    drop(stream);
    timeout(PATIENCE, daemon.serving).await.expect("it ends").unwrap();
}

const GET_STREAM: &str = "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The limits of an answer would have ended each stream after ten minutes, and those of an idle connection after two.
#[tokio::test]
async fn a_stream_goes_on_beyond_all_limits_as_long_as_it_is_read_and_ends_with_the_daemon() {
    let times = TimeLimits { idle: SHORT, answer: SHORT, request: SHORT, stalled: SHORT, ..long_times() };
    let daemon = start(times).await;
    let mut reader = daemon.send(GET_STREAM).await;
    answer(&mut reader, "first\n\r\n").await;
    tokio::time::sleep(5 * SHORT).await; // it is the limits themselves that are passed
    daemon.show.send_replace(Bytes::from_static(b"second\n"));
    answer(&mut reader, "second\n\r\n").await;
    assert_eq!(daemon.traffic.connections_open.get(), 1);
    daemon.stop.cancel();
    let end = rest(&mut reader).await;
    assert!(end.ends_with("0\r\n\r\n"), "{end:?}");
    timeout(PATIENCE, daemon.serving).await.expect("it stops in time").unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_its_stream_is_closed() {
    let daemon = start(TimeLimits { stalled: SHORT, ..long_times() }).await;
    let reader = daemon.send(GET_STREAM).await;
    daemon.until_open(1).await;
    daemon
        .until(|traffic| {
            traffic.requests_timed_out.get() > 0 || {
                daemon.show.send_replace(Bytes::from(vec![b'x'; 1024 * 1024]));
                traffic.connections_open.get() == 0
            }
        })
        .await;
    drop(reader);
}

#[tokio::test]
async fn a_stream_gives_way_to_a_new_client_after_all_that_are_of_less_use() {
    let limits = ConnectionLimits { all: 2, per_address: 2, ..ConnectionLimits::default() };
    let daemon = start_with(long_times(), limits).await;
    let mut stream = daemon.send(GET_STREAM).await;
    answer(&mut stream, "first\n\r\n").await;
    let mut idle = daemon.send(GET).await;
    answer(&mut idle, "HERE").await;
    let mut new = daemon.send(GET_STREAM).await;
    answer(&mut new, "first\n\r\n").await;
    assert_eq!(rest(&mut idle).await, "", "the idle one gave way");
    let mut newest = daemon.send(GET).await;
    answer(&mut newest, "HERE").await;
    assert_eq!(rest(&mut stream).await, "", "and then the oldest stream");
    daemon.show.send_replace(Bytes::from_static(b"second\n"));
    answer(&mut new, "second\n\r\n").await;
}
