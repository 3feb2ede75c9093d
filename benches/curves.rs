//! What the curves of a city cost: how long the answers take and how large they are, for 300 garages of which each delivered 7 days of
//! events, and how fast these events are applied.
//!
//! `cargo bench --bench curves [-- [--server PROGRAM] [--garages N] [--cars-per-hour N] [DIRECTORY]]`
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement is not a daemon")]

use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use fogpost::messaging::{ClockReading, Digest, Epoch, Sequence, SiteName};
use fogpost::parking::Event;
use fogpost::transport::ServerAddress;
use fogpost::transport::dealer::DealerConnection;
use jiff::{SignedDuration, Timestamp};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SERVER: &str = env!("CARGO_BIN_EXE_server");
const DAYS: i64 = 7;
const RECORDS: usize = 64;
const ROUNDS: usize = 7;

fn main() {
    let (mut server, mut garages, mut cars, mut directory) = (PathBuf::from(SERVER), 300, 10, None);
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap();
        match arg.as_str() {
            "--server" => server = value().into(),
            "--garages" => garages = value().parse().unwrap(),
            "--cars-per-hour" => cars = value().parse().unwrap(),
            _ => directory = Some(arg),
        }
    }
    let directory = directory.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/target").into());
    let dir = tempfile::tempdir_in(directory).unwrap();
    let running = Running::start(&server, dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    let events = runtime.block_on(fill(&running, garages, cars));
    while running.metric("fogpost_server_view_position") < running.metric("fogpost_server_ledger_position") {
        std::thread::sleep(Duration::from_millis(50));
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{events} events of {garages} garages made, applied and in the views in {seconds:.1} s, {:.0}/s",
        events as f64 / seconds
    );
    // The views are written once a second.
    std::thread::sleep(Duration::from_secs(2));
    for path in [
        "/v1/curves?span=24h&limit=1000",
        "/v1/curves?span=7d&limit=1000",
        "/v1/curves?span=1y&limit=1000",
        "/v1/garages/garage%20007/history?span=24h",
        "/v1/garages/garage%20007/history?span=7d",
        "/v1/garages/garage%20007/chart.svg?span=24h",
        "/v1/garages/garage%20007/chart.svg?span=7d",
    ] {
        let mut took: Vec<(Duration, usize)> = (0..ROUNDS).map(|_| running.get(path)).collect();
        took.sort_unstable();
        let (least, bytes) = took[0];
        let (median, most) = (took[ROUNDS / 2].0, took[ROUNDS - 1].0);
        println!("{path}: {bytes} bytes, {median:.1?} (from {least:.1?} to {most:.1?})");
    }
}

struct Garage {
    site: SiteName,
    epoch: Epoch,
    next: u64,
    previous: Option<Digest>,
}

impl Garage {
    fn page(&mut self, records: &[Event]) -> SealedPage {
        let message = |event: &Event| Message::of(event.to_bytes());
        let page = SealedPage::seal(&Page {
            epoch: self.epoch,
            first: Sequence::new(self.next).unwrap(),
            previous: self.previous,
            moved_from: None,
            begun: ClockReading::at_wall_ms(0),
            content: Content::Records(records.iter().map(message).collect()),
        });
        self.next += records.len() as u64;
        self.previous = Some(page.digest);
        page
    }
}

/// The events of a garage in 7 days until now: full in the day, empty in the night, a little different each hour.
fn events_of(garage: usize, cars: i64) -> Vec<Event> {
    let now = Timestamp::now();
    let mut seed = garage as u64 + 1;
    let mut random = move |below: i64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as i64 % below
    };
    let mut events = Vec::new();
    for car in 0..DAYS * 24 * cars {
        let hour = car / cars;
        // More enter in the morning and around noon.
        if random(10) > if (6..15).contains(&(hour % 24)) { 9 } else { 3 } {
            continue;
        }
        let came = hour * 3_600 + random(3_600);
        let stayed = 1_200 + random(6 * 3_600);
        for (kind, second) in [("entry", came), ("exit", came + stayed)] {
            if second < DAYS * 86_400 {
                let at = now - SignedDuration::from_secs(DAYS * 86_400 - second);
                let json = format!(r#"{{"kind":"{kind}","plate":"G{garage}X{car}","at":"{at}"}}"#);
                events.push(Event::from_json(json.as_bytes(), at).unwrap());
            }
        }
    }
    events.sort_by_key(|event| event.at.timestamp);
    events
}

async fn fill(server: &Running, garages: usize, cars: i64) -> usize {
    let mut link = DealerConnection::connect(&server.listen, None).await.unwrap();
    let mut sent = 0;
    for number in 0..garages {
        let site = SiteName::new(&format!("garage {number:03}")).unwrap();
        let mut garage = Garage { site, epoch: Epoch::random(), next: 1, previous: None };
        let events = events_of(number, cars);
        sent += events.len();
        let pages: Vec<SealedPage> = events.chunks(RECORDS).map(|records| garage.page(records)).collect();
        for (id, pages) in pages.chunks(40).enumerate() {
            let request = Request {
                id: id as u64,
                site: garage.site.clone(),
                epoch: garage.epoch,
                oldest: 1,
                ledger: None,
                instance: 1,
                clock_ms: Timestamp::now().as_millisecond(),
                pages: pages.to_vec(),
                ask: None,
                observation: None,
            };
            link.send(request.encode()).await.unwrap();
            let reply = Reply::decode(&link.recv().await.unwrap()).unwrap();
            assert!(matches!(reply.verdict, Verdict::Accepted), "{:?}", reply.verdict);
        }
    }
    sent
}

struct Running {
    child: Child,
    listen: ServerAddress,
    http: String,
}

impl Running {
    fn start(program: &Path, data: &Path) -> Running {
        let mut command = Command::new(program);
        command.args(["--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"]).arg(data);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let of = |name: &str| {
            let value = ready.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("the server did not start: {ready:?}")).to_owned()
        };
        Running { listen: of("listen").parse().unwrap(), http: of("http"), child }
    }

    /// How long an answer takes, and its size.
    fn get(&self, path: &str) -> (Duration, usize) {
        let began = Instant::now();
        let text = ureq::get(&format!("{}{path}", self.http)).call().unwrap().body_mut().read_to_string();
        (began.elapsed(), text.unwrap().len())
    }

    fn metric(&self, name: &str) -> u64 {
        let mut answer = ureq::get(&format!("{}/metrics", self.http)).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
