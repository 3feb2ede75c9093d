//! What the accept loop of `src/http` costs beside `axum::serve`: the same router in the same process, taken in turns.
//! `cargo bench --bench http`
//!
//! Each client has one connection and sends the next `POST` of an event's size when the one before is answered.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement is not a daemon")]

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use fogpost::http::{ConnectionLimits, Connections, Rules, metrics::ConnectionMetrics, serve};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(1500);
const REQUEST: &[u8] = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 75\r\n\r\n{\"kind\":\"entry\",\"plate\":\"B-AB 123\",\"at\":\"2026-11-23T08:15:00+01:00\",\"l\":11}";

fn router() -> Router {
    let answer = |body: Bytes| async move { (StatusCode::CREATED, format!("{{\"bytes\":{}}}", body.len())) };
    Router::new().route("/v1/events", post(answer))
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let [ours, axums] = runtime.block_on(async {
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let [ours, axums] = listeners;
        let connections = Connections::new(ConnectionLimits::default(), ConnectionMetrics::default());
        tokio::spawn(serve(Rules::default(), ours, router(), CancellationToken::new(), connections));
        tokio::spawn(async { axum::serve(axums, router()).await });
        addresses
    });
    for clients in [1, 16, 64] {
        let mut measured = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            for turn in 0..2 {
                let which = (round + turn) % 2;
                measured[which].push(run([ours, axums][which], clients));
            }
        }
        let [ours, axums] = measured.map(median);
        println!(
            "{clients:3} clients: ours {:6.0}/s, p50 {:4.0} µs, p99 {:5.0} µs; axum::serve {:6.0}/s, p50 {:4.0} µs, p99 {:5.0} µs; ratio {:.3}",
            ours.rate,
            ours.p50,
            ours.p99,
            axums.rate,
            axums.p50,
            axums.p99,
            ours.rate / axums.rate
        );
    }
}

#[derive(Clone, Copy)]
struct Measured {
    rate: f64,
    p50: f64,
    p99: f64,
}

/// The round in the middle, by its rate.
fn median(mut rounds: Vec<Measured>) -> Measured {
    rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    rounds[rounds.len() / 2]
}

fn run(address: SocketAddr, clients: usize) -> Measured {
    let began = Instant::now();
    let clients: Vec<_> =
        (0..clients).map(|_| std::thread::spawn(move || client(address, began + ROUND))).collect();
    let mut all: Vec<Duration> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let seconds = began.elapsed().as_secs_f64();
    all.sort_unstable();
    let micros = |part: f64| all[(all.len() as f64 * part) as usize].as_secs_f64() * 1e6;
    Measured { rate: all.len() as f64 / seconds, p50: micros(0.5), p99: micros(0.99) }
}

fn client(address: SocketAddr, until: Instant) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = [0; 1024];
    let mut took = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        stream.write_all(REQUEST).unwrap();
        let mut length = 0;
        while !answer[..length].ends_with(b"{\"bytes\":75}") {
            let more = stream.read(&mut answer[length..]).unwrap();
            assert!(more > 0, "{}", String::from_utf8_lossy(&answer[..length]));
            length += more;
        }
        took.push(began.elapsed());
    }
    took
}
