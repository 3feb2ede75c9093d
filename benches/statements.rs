//! How long a month's statements take: 100,000 stays of 1,000 accounts, in all four formats, by the real program. And what it
//! costs a running server: its memory.
//!
//! `cargo bench --bench statements [-- STAYS ACCOUNTS [DIRECTORY]]`; the directory chooses the disk, default the package's target
//! directory. With 1 account all stays are of cars that nobody registered.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement is not a daemon")]

use fogpost::config::{ServerConfig, ServerSettings};
use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::Request as WireRequest;
use fogpost::messaging::{ClockReading, Digest, Epoch, Sequence, SiteName};
use fogpost::parking::Event;
use fogpost::server::HIGH_WATER_FILE;
use fogpost::server::applying::{catch_up, open_view};
use fogpost::server::commands::{Put, ServerRequest, ServerSession};
use fogpost::server::ledger::Ledger;
use fogpost::store::directory::DataDir;
use fogpost::store::salvage::OnLoss;
use fogpost::store::{Purpose, Store};
use jiff::{SignedDuration, Timestamp};
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const SERVER: &str = env!("CARGO_BIN_EXE_server");
const GARAGES: u64 = 30;
const RECORDS: usize = 64;
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
bands = [
    { days = "mon-fri", from = "07:00", to = "19:00", per_unit = 250 },
    { days = "all", from = "00:00", to = "24:00", per_unit = 100 },
]
daily_cap = 2000
"#;

type Failed = Box<dyn Error>;

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let number = |n: usize, default: u64| args.get(n).map_or(Ok(default), |text| text.parse());
    let (stays, accounts) = (number(0, 100_000)?, number(1, 1_000)?);
    let directory =
        args.get(2).cloned().unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/target").into());
    let dir = tempfile::tempdir_in(&directory)?;
    let data = dir.path().join("server");
    let began = Instant::now();
    fill(&data, stays, accounts)?;
    println!(
        "{stays} stays of {accounts} accounts: recorded and folded in {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let export = |out: &str, what: &[&str]| -> Result<f64, Failed> {
        let out = dir.path().join(out);
        let began = Instant::now();
        let said = Command::new(SERVER)
            .args(what)
            .args(["--month", "2026-11", "--data-dir"])
            .arg(&data)
            .arg("--out")
            .arg(&out)
            .output()?;
        let seconds = began.elapsed().as_secs_f64();
        match said.status.success() {
            true => print!("{seconds:>8.2} s  {}: {}", what.join(" "), String::from_utf8_lossy(&said.stdout)),
            false => return Err(String::from_utf8_lossy(&said.stderr).into()),
        }
        Ok(seconds)
    };
    println!("no server runs:");
    export("offline", &["statements", "export"])?;
    export("journal.csv", &["journal", "export"])?;
    let server = Running::start(&data)?;
    let before = server.memory_mb()?;
    println!("a server runs:");
    export("running", &["statements", "export"])?;
    export("csv", &["statements", "export", "--format", "csv"])?;
    export("running.csv", &["journal", "export"])?;
    println!("the server had {before:.0} MB before, and at most {:.0} MB", server.memory_mb()?);
    Ok(())
}

/// A server's directory with tariffs, registered plates, and stays all over a month.
fn fill(data: &Path, stays: u64, accounts: u64) -> Result<(), Failed> {
    let settings = ServerSettings { data_dir: Some(data.to_owned()), ..ServerSettings::default() };
    let config = ServerConfig::new(settings, None)?;
    let mut books = ServerSession::of(&config);
    let mut puts = vec![Put::Tariffs(TARIFF.to_owned())];
    if accounts > 1 {
        let lines = (0..cars(accounts))
            .map(|car| format!("{},customer {},Customer {0} Ltd\n", plate(car), car % accounts));
        puts.push(Put::Plates(format!("plate,account,name\n{}", lines.collect::<String>())));
    }
    for put in puts {
        books.ask(ServerRequest::Put { put, dry_run: false })?;
    }
    drop(books);

    let dir = DataDir::hold(data)?;
    let store = Store::open(&dir.store(), Purpose::Server)?;
    let ledger = Ledger::open_beside(store.clone(), &dir.path().join(HIGH_WATER_FILE), OnLoss::Record, 0)?;
    let month: Timestamp = "2026-11-01T00:00:00+01:00".parse()?;
    let mut garages: Vec<Garage> = (0..GARAGES).map(Garage::new).collect();
    // Each car has left before it comes again.
    let round = cars(accounts);
    let rounds = stays.div_ceil(round);
    let every = SignedDuration::from_secs(29 * 24 * 3600 / i64::try_from(rounds)?.max(1));
    for stay in 0..stays {
        let (n, car) = (i64::try_from(stay / round)?, stay % round);
        let entry =
            month + every * i32::try_from(n)? + SignedDuration::from_secs(i64::try_from(car * 7919 % 600)?);
        let length =
            SignedDuration::from_mins(i64::try_from(30 + (stay * 104_729) % 700)?).min(every * 9 / 10);
        let garage = &mut garages[usize::try_from((car + stay / round) % GARAGES)?];
        for (kind, at) in [("entry", entry), ("exit", entry + length)] {
            let json =
                serde_json::json!({"kind": kind, "plate": plate(car), "at": format!("{at}")}).to_string();
            garage.tell(&ledger, Message::of(Event::from_json(json.as_bytes(), at)?.to_bytes()))?;
        }
    }
    for garage in &mut garages {
        garage.deliver(&ledger)?;
    }
    let mut view = open_view(&ledger)?;
    catch_up(&ledger, &mut view)?;
    store.flush()?;
    Ok(())
}

fn cars(accounts: u64) -> u64 {
    (accounts * 3).max(3_000)
}

fn plate(car: u64) -> String {
    format!("F{:06}", car)
}

/// What an edge would send.
struct Garage {
    site: SiteName,
    epoch: Epoch,
    next: u64,
    previous: Option<Digest>,
    waiting: Vec<Message>,
    pages: Vec<SealedPage>,
}

impl Garage {
    fn new(number: u64) -> Garage {
        let site = SiteName::new(&format!("garage {number}")).expect("it is a name");
        Garage {
            site,
            epoch: Epoch::random(),
            next: 1,
            previous: None,
            waiting: Vec::new(),
            pages: Vec::new(),
        }
    }

    fn tell(&mut self, ledger: &Ledger, event: Message) -> Result<(), Failed> {
        self.waiting.push(event);
        if self.waiting.len() == RECORDS {
            self.seal();
        }
        if self.pages.len() == 32 { self.deliver(ledger) } else { Ok(()) }
    }

    fn seal(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let records = std::mem::take(&mut self.waiting);
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
        self.pages.push(page);
    }

    fn deliver(&mut self, ledger: &Ledger) -> Result<(), Failed> {
        self.seal();
        let request = WireRequest {
            id: 1,
            site: self.site.clone(),
            epoch: self.epoch,
            oldest: 1,
            ledger: None,
            instance: 1,
            clock_ms: 0,
            pages: std::mem::take(&mut self.pages),
            ask: None,
            observation: None,
        };
        ledger.commit(&[request], 0)?;
        Ok(())
    }
}

/// A server that is killed at the end.
struct Running(Child);

impl Running {
    fn start(data: &Path) -> Result<Running, Failed> {
        let mut child = Command::new(SERVER)
            .args(["--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("it has a stdout")?;
        let running = Running(child);
        BufReader::new(stdout).read_line(&mut String::new())?;
        Ok(running)
    }

    /// The most that it ever had.
    fn memory_mb(&self) -> Result<f64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
