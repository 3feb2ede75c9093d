//! Whether readers wait: how long HTTP and a question about the board take while the views are rebuilt, a registry of plates is
//! imported, and stays are priced; and what a question about the board costs in small and in large cities.
//!
//! `cargo bench --bench readers [-- [--server PROGRAM] [--events N] [--garages N,N,…] [DIRECTORY]]`: another program `server` can be
//! measured for comparison, and the directory chooses the disk, default the package's target directory.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement is not a daemon")]

use bytes::Bytes;
use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use fogpost::messaging::{ClockReading, Epoch, Sequence, SiteName};
use fogpost::parking::board::{BoardPart, BoardVersion, GatheredBoard, earlier};
use fogpost::parking::{BoardAnswer, Event};
use fogpost::transport::ServerAddress;
use fogpost::transport::dealer::DealerConnection;
use jiff::Timestamp;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Barrier;

const SERVER: &str = env!("CARGO_BIN_EXE_server");
/// Garages whose events are folded.
const GARAGES: usize = 200;
const RECORDS: usize = 64;
/// How many pages one request carries.
const PAGES: usize = 60;
/// Requests on their way at a time.
const WINDOW: usize = 4;
/// Plates in the file that is imported: together with the request around it almost 32 MB.
const PLATES: usize = 780_000;
/// What all stays are priced by.
const TARIFF: &str = r#"
[[tariff]]
name = "centre"
garages = ["*"]
currency = "EUR"
time_zone = "Europe/Berlin"
valid_from = 2020-01-01
vat_percent = 19
grace_minutes = 10
unit_minutes = 60
first = [{ units = 1, per_unit = 300 }]
bands = [{ days = "all", from = "00:00", to = "24:00", per_unit = 100 }]
daily_cap = 2000
"#;
/// Edges that ask for the board at a time.
const EDGES: usize = 400;
const QUESTIONS: usize = 20_000;
/// How long a probe waits between two questions.
const PAUSE: Duration = Duration::from_millis(10);

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut server, mut events, mut directory) = (PathBuf::from(SERVER), 2_000_000, None);
    let mut cities = vec![10, 1_000, 10_000];
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} lacks its value"));
        match arg.as_str() {
            "--server" => server = value()?.into(),
            "--events" => events = value()?.parse()?,
            "--garages" => cities = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            _ => directory = Some(arg),
        }
    }
    let directory = directory.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/target").into());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for garages in cities {
        let dir = tempfile::tempdir_in(&directory)?;
        let running = Running::start(&server, dir.path())?;
        ask_for_boards(&runtime, &running, garages)?;
        ask_once_a_second(&runtime, &running)?;
    }
    let dir = tempfile::tempdir_in(&directory)?;
    {
        let running = Running::start(&server, dir.path())?;
        let began = Instant::now();
        runtime.block_on(fill(&running, events))?;
        running.wait_until_folded()?;
        println!("{events} events applied and folded in {:.1} s", began.elapsed().as_secs_f64());
        running.stop()?;
    }
    let rebuilt = Command::new(&server).args(["rebuild-views", "--data-dir"]).arg(dir.path()).output()?;
    if !rebuilt.status.success() {
        return Err(String::from_utf8_lossy(&rebuilt.stderr).into());
    }
    let running = Running::start(&server, dir.path())?;
    probe(&runtime, &running, "while the views are rebuilt", || running.wait_until_folded())?;

    let file = dir.path().join("plates.csv");
    let lines = (0..PLATES).map(|n| format!("P{n:07},customer {n:06},Name {n:07}\n"));
    std::fs::write(&file, format!("plate,account,name\n{}", lines.collect::<String>()))?;
    let megabytes = std::fs::metadata(&file)?.len() >> 20;
    probe(&runtime, &running, &format!("while {megabytes} MB of plates are imported"), || {
        let mut import = Command::new(&server);
        import.args(["plates", "import"]).arg(&file).arg("--data-dir").arg(dir.path());
        let said = import.stdin(Stdio::null()).output()?;
        match said.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&said.stderr).into()),
        }
    })?;
    running.stop()?;

    // All stays wait for a price.
    let config = dir.path().join("tariff.toml");
    std::fs::write(&config, TARIFF)?;
    let running = Running::start_with(&server, dir.path(), Some(&config))?;
    running.wait_until_folded()?;
    probe(&runtime, &running, "while all stays are priced", || {
        let mut apply = Command::new(&server);
        apply.args(["tariffs", "apply", "--data-dir"]).arg(dir.path());
        let said = apply.stdin(Stdio::null()).output()?;
        match said.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&said.stderr).into()),
        }
    })?;
    probe(&runtime, &running, "while nothing happens", || {
        std::thread::sleep(Duration::from_secs(5));
        Ok(())
    })
}

/// A garage that delivers.
struct Garage {
    site: SiteName,
    epoch: Epoch,
    next: u64,
    previous: Option<fogpost::messaging::Digest>,
}

impl Garage {
    fn new(number: usize) -> Garage {
        let site = SiteName::new(&format!("garage {number:05}")).expect("it is a name");
        Garage { site, epoch: Epoch::random(), next: 1, previous: None }
    }

    fn request(&self, id: u64, pages: Vec<SealedPage>, ask: Option<Bytes>) -> Request {
        Request {
            id,
            site: self.site.clone(),
            epoch: self.epoch,
            oldest: 1,
            ledger: None,
            instance: 1,
            clock_ms: Timestamp::now().as_millisecond(),
            pages,
            ask,
            observation: None,
        }
    }

    fn page(&mut self, records: Vec<Message>) -> SealedPage {
        let count = records.len() as u64;
        let page = SealedPage::seal(&Page {
            epoch: self.epoch,
            first: Sequence::new(self.next).expect("it is above 0"),
            previous: self.previous,
            moved_from: None,
            begun: ClockReading::at_wall_ms(0),
            content: Content::Records(records),
        });
        self.previous = Some(page.digest);
        self.next += count;
        page
    }
}

fn event(kind: &str, plate: &str, at: Timestamp) -> Result<Message, Failed> {
    let json = serde_json::json!({ "kind": kind, "plate": plate, "at": at.to_string() }).to_string();
    Ok(Message::of(Event::from_json(json.as_bytes(), at)?.to_bytes()))
}

/// Sends requests, some at a time, and waits for their replies.
struct Sender {
    link: DealerConnection,
    waiting: usize,
}

impl Sender {
    async fn connect(server: &Running) -> Result<Sender, Failed> {
        Ok(Sender { link: DealerConnection::connect(&server.listen, None).await?, waiting: 0 })
    }

    async fn send(&mut self, request: &Request, window: usize) -> Result<(), Failed> {
        while self.waiting >= window {
            self.receive().await?;
        }
        self.waiting += 1;
        Ok(self.link.send(request.encode()).await?)
    }

    async fn receive(&mut self) -> Result<Reply, Failed> {
        let reply = Reply::decode(&self.link.recv().await?)?;
        self.waiting -= 1;
        match reply.verdict {
            Verdict::Accepted => Ok(reply),
            other => Err(format!("it was not applied: {other:?}").into()),
        }
    }

    async fn exchange(&mut self, request: &Request) -> Result<Reply, Failed> {
        self.send(request, 1).await?;
        self.receive().await
    }
}

/// Cars that enter and leave all garages in rotation.
async fn fill(server: &Running, events: u64) -> Result<(), Failed> {
    let mut sender = Sender::connect(server).await?;
    let mut garages: Vec<Garage> = (0..GARAGES).map(Garage::new).collect();
    let start: Timestamp = "2026-10-01T06:00:00Z".parse()?;
    let (mut sent, mut n) = (0, 0);
    while sent < events {
        let garage = &mut garages[n % GARAGES];
        let mut pages = Vec::with_capacity(PAGES);
        for page in 0..PAGES {
            let mut records = Vec::with_capacity(RECORDS);
            for car in 0..RECORDS / 2 {
                let number = n * PAGES * RECORDS / 2 + page * RECORDS / 2 + car;
                let plate = format!("B{:06}", number.wrapping_mul(7919) % 900_000);
                let at =
                    start + jiff::SignedDuration::from_secs((n / GARAGES * 7200 + page * 60 + car) as i64);
                records.push(event("entry", &plate, at)?);
                records.push(event("exit", &plate, at + jiff::SignedDuration::from_mins(47))?);
            }
            sent += records.len() as u64;
            pages.push(garage.page(records));
        }
        let request = garage.request(n as u64, pages, None);
        sender.send(&request, WINDOW).await?;
        n += 1;
    }
    while sender.waiting > 0 {
        sender.receive().await?;
    }
    Ok(())
}

/// What an edge knows of the board, in the form of the server that is measured.
enum Board {
    Parts(GatheredBoard),
    Whole(Option<BoardVersion>),
}

impl Board {
    fn question(&self) -> Bytes {
        match self {
            Board::Parts(gathered) => gathered.question().to_bytes().into(),
            Board::Whole(have) => earlier::WholeBoardQuestion { have: *have }.to_bytes().into(),
        }
    }

    /// Takes an answer; gives how many garages the board has, once it is whole.
    fn take(&mut self, answer: &[u8], name: &str) -> Result<Option<usize>, Failed> {
        match self {
            Board::Parts(gathered) => {
                let answer = BoardAnswer::from_bytes(answer)?;
                gathered.take(BoardPart::from_bytes(&answer.part)?, answer.own.as_ref(), name);
                Ok(gathered.whole().map(|board| board.garages.len()))
            }
            Board::Whole(have) => {
                let (earlier::WholeBoardAnswer::Whole(now) | earlier::WholeBoardAnswer::Changed { now, .. }) =
                    earlier::WholeBoardAnswer::from_bytes(answer)?;
                *have = Some(now.version);
                Ok(Some(now.garages.len()))
            }
        }
    }
}

/// Makes a city, has a new edge get the board, then asks for what changed since.
fn ask_for_boards(runtime: &Runtime, server: &Running, count: usize) -> Result<(), Failed> {
    let mut garages: Vec<Garage> = (0..count).map(Garage::new).collect();
    let at = Timestamp::now();
    runtime.block_on(async {
        let mut sender = Sender::connect(server).await?;
        for (n, garage) in garages.iter_mut().enumerate() {
            let page = garage.page(vec![event("entry", &format!("B{n:05}"), at)?]);
            let request = garage.request(n as u64, vec![page], None);
            sender.send(&request, 64).await?;
        }
        while sender.waiting > 0 {
            sender.receive().await?;
        }
        Ok::<_, Failed>(())
    })?;
    server.wait_until_folded()?;
    runtime.block_on(async {
        let mut sender = Sender::connect(server).await?;
        let newcomer = Garage::new(count);
        let mut board = Board::Parts(GatheredBoard::default());
        let (mut questions, began) = (0, Instant::now());
        let found = loop {
            let reply = sender.exchange(&newcomer.request(1, Vec::new(), Some(board.question()))).await?;
            questions += 1;
            match (reply.answer, &board) {
                (None, Board::Parts(_)) if questions == 1 => board = Board::Whole(None),
                (None, _) => break None,
                (Some(answer), _) => {
                    if let Some(garages) = board.take(&answer, newcomer.site.as_str())? {
                        break Some(garages);
                    }
                }
            }
        };
        let first = began.elapsed();
        let question = board.question();
        let before = server.cpu_seconds()?;
        for n in 0..QUESTIONS {
            let garage = &garages[n % count];
            sender.send(&garage.request(n as u64, Vec::new(), Some(question.clone())), 16).await?;
        }
        while sender.waiting > 0 {
            sender.receive().await?;
        }
        let each = (server.cpu_seconds()? - before) / QUESTIONS as f64 * 1e6;
        let got = match found {
            Some(garages) => {
                format!("a new edge has it with {garages} lines after {questions} questions, {first:.0?}")
            }
            None => "a new edge gets no board".to_owned(),
        };
        println!("{count:>6} garages: {each:>6.1} µs of the server's CPU for each question; {got}");
        Ok(())
    })
}

/// Many edges that deliver nothing and ask for the board once a second, each over a connection of its own.
fn ask_once_a_second(runtime: &Runtime, server: &Running) -> Result<(), Failed> {
    const SECONDS: u32 = 10;
    let connected = Arc::new(Barrier::new(EDGES + 1));
    let edges = (0..EDGES).map(|n| {
        let (connected, listen) = (Arc::clone(&connected), server.listen.clone());
        runtime.spawn(async move {
            let mut sender = Sender { link: DealerConnection::connect(&listen, None).await?, waiting: 0 };
            let garage = Garage::new(n);
            let mut board = Board::Parts(GatheredBoard::default());
            connected.wait().await;
            for _ in 0..SECONDS {
                let reply = sender.exchange(&garage.request(1, Vec::new(), Some(board.question()))).await?;
                match (reply.answer, &board) {
                    (Some(answer), _) => drop(board.take(&answer, garage.site.as_str())?),
                    (None, Board::Parts(_)) => board = Board::Whole(None),
                    (None, _) => {}
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok::<_, Failed>(())
        })
    });
    let edges: Vec<_> = edges.collect();
    runtime.block_on(async {
        connected.wait().await;
        let before = server.cpu_seconds()?;
        for edge in edges {
            edge.await??;
        }
        let share = (server.cpu_seconds()? - before) / f64::from(SECONDS) * 100.0;
        println!("        {EDGES} edges that ask once a second take {share:.1} % of a core");
        Ok(())
    })
}

/// One thing that is asked again and again.
struct Probe {
    name: &'static str,
    took: Vec<Duration>,
}

impl Probe {
    fn print(mut self) {
        self.took.sort();
        let at = |share: f64| {
            let index = ((self.took.len() as f64 * share).ceil() as usize).clamp(1, self.took.len()) - 1;
            self.took[index].as_secs_f64() * 1e3
        };
        println!(
            "  {:<22} {:>6} answers, p50 {:>8.1} ms, p99 {:>8.1} ms, longest {:>8.1} ms",
            self.name,
            self.took.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// Asks for everything until `work` is done.
fn probe(
    runtime: &Runtime,
    server: &Running,
    what: &str,
    work: impl FnOnce() -> Result<(), Failed>,
) -> Result<(), Failed> {
    let done = Arc::new(AtomicBool::new(false));
    let http = ["/healthz", "/v1/occupancy", "/v1/garages?limit=100"].map(|path| {
        let (done, url) = (Arc::clone(&done), format!("{}{path}", server.http));
        std::thread::spawn(move || {
            let agent: ureq::Agent =
                ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(120))).build().into();
            let mut took = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                agent.get(&url).call()?.body_mut().read_to_vec()?;
                took.push(began.elapsed());
                std::thread::sleep(PAUSE);
            }
            Ok::<_, Failed>(Probe { name: path, took })
        })
    });
    let board = {
        let (done, listen) = (Arc::clone(&done), server.listen.clone());
        runtime.spawn(async move {
            let mut sender = Sender { link: DealerConnection::connect(&listen, None).await?, waiting: 0 };
            let asker = Garage::new(GARAGES + 1);
            let mut board = Board::Parts(GatheredBoard::default());
            let mut took = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                let reply = sender.exchange(&asker.request(1, Vec::new(), Some(board.question()))).await?;
                took.push(began.elapsed());
                match (reply.answer, &board) {
                    (Some(answer), _) => drop(board.take(&answer, asker.site.as_str())?),
                    (None, Board::Parts(_)) => board = Board::Whole(None),
                    (None, _) => {}
                }
                tokio::time::sleep(PAUSE).await;
            }
            Ok::<_, Failed>(Probe { name: "the board", took })
        })
    };
    let began = Instant::now();
    let worked = work();
    let seconds = began.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    println!("{what} ({seconds:.1} s):");
    for probe in http {
        probe.join().map_err(|_| "a probe panicked")??.print();
    }
    runtime.block_on(board)??.print();
    worked
}

/// A server that is killed at the end.
struct Running {
    child: Child,
    listen: ServerAddress,
    http: String,
}

impl Running {
    fn start(program: &Path, data: &Path) -> Result<Running, Failed> {
        Running::start_with(program, data, None)
    }

    fn start_with(program: &Path, data: &Path, config: Option<&Path>) -> Result<Running, Failed> {
        let mut child = Command::new(program)
            .args(["--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(config.map(|config| [Path::new("--config"), config]).into_iter().flatten())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut ready = String::new();
        BufReader::new(child.stdout.take().ok_or("it has a stdout")?).read_line(&mut ready)?;
        let of = |name: &str| {
            let value = ready.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.map(str::to_owned).ok_or_else(|| format!("the server did not start: {ready:?}"))
        };
        Ok(Running { listen: of("listen")?.parse()?, http: of("http")?, child })
    }

    fn metric(&self, name: &str) -> Result<u64, Failed> {
        let text = ureq::get(&format!("{}/metrics", self.http)).call()?.body_mut().read_to_string()?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or_else(|| format!("there is no {name}"))?.parse()?)
    }

    fn wait_until_folded(&self) -> Result<(), Failed> {
        while self.metric("fogpost_server_view_position")? < self.metric("fogpost_server_ledger_position")? {
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn cpu_seconds(&self) -> Result<f64, Failed> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit(')').next().ok_or("it has a name")?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    fn stop(mut self) -> Result<(), Failed> {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
