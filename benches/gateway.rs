//! What the gateway costs beside the bare ROUTER socket, in one run: requests per second through each as messages alone, events per
//! second through whole servers without and with TLS, memory per idle connection, and the time of many connections with TLS.
//!
//! `cargo bench --bench gateway [-- [--bare PROGRAM] [--server PROGRAM] [DIRECTORY]]`: `--bare` is a program `server` without a gateway
//! (of a commit before it), without which whole servers are not compared. The directory chooses the disk, default the package's target
//! directory.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement is not a daemon")]

use bytes::Bytes;
use fogpost::daemon::clock;
use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::{Reply, Request, Verdict};
use fogpost::messaging::{ClockReading, Epoch, Sequence, SiteName};
use fogpost::parking::Event;
use fogpost::transport::ServerAddress;
use fogpost::transport::dealer::DealerConnection;
use fogpost::transport::gateway::{self, GatewayMetrics, Incoming, PeerLimits};
use fogpost::transport::tls::{Connector, TlsFiles};
use futures_util::FutureExt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use zeromq::{RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

const SERVER: &str = env!("CARGO_BIN_EXE_server");
/// Peers that ask at the same time, and how many requests each has on the way, as an edge has.
const DEALERS: usize = 10;
const WINDOW: usize = 4;
/// Comparisons, of which the median is shown.
const ROUNDS: usize = 5;
const REPLY: usize = 100;
/// Garages that deliver at the same time; requests of each; pages and events in them, as an edge with a backlog sends them.
const GARAGES: usize = 10;
const REQUESTS: usize = 60;
const PAGES: usize = 8;
const RECORDS: usize = 64;
const IDLE: usize = 1000;

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut bare, mut server, mut directory) = (None, PathBuf::from(SERVER), None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bare" => bare = Some(PathBuf::from(args.next().ok_or("--bare lacks its value")?)),
            "--server" => server = args.next().ok_or("--server lacks its value")?.into(),
            _ => directory = Some(arg),
        }
    }
    let directory = directory.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/target").into());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for (size, requests) in [(200, 10_000), (32 * 1024, 2_000)] {
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let rates = [false, true].map(|gateway| {
                let address = runtime.block_on(echo(gateway))?;
                let began = Instant::now();
                runtime.block_on(ask(&address, size, requests))?;
                Ok::<_, Failed>((DEALERS * requests) as f64 / began.elapsed().as_secs_f64())
            });
            let [bare, gateway] = rates;
            ratios.push((bare?, gateway?));
        }
        report(&format!("requests of {size} bytes per second, messages alone"), ratios);
    }
    if let Some(bare) = bare {
        let (mut plain_ratios, mut tls_ratios) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let rate = |program, way| deliver(&runtime, &Running::start(program, &directory, way)?);
            let (bare, plain, tls) =
                (rate(&bare, Way::Plain)?, rate(&server, Way::Plain)?, rate(&server, Way::Tls)?);
            plain_ratios.push((bare, plain));
            tls_ratios.push((bare, tls));
        }
        report("events per second, whole servers", plain_ratios);
        report("events per second, whole servers, the gateway with TLS", tls_ratios);
    }
    idle(&Running::start(&server, &directory, Way::Plain)?)?;
    connect(&runtime, &Running::start(&server, &directory, Way::Tls)?)
}

fn report(what: &str, mut rates: Vec<(f64, f64)>) {
    rates.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let (bare, gateway) = rates[rates.len() / 2];
    println!("{what}: bare {bare:.0}, gateway {gateway:.0}, ratio {:.2}", gateway / bare);
}

/// Answers every request with a few bytes.
async fn echo(gateway: bool) -> Result<ServerAddress, Failed> {
    if gateway {
        let (metrics, stop) = (GatewayMetrics::default(), CancellationToken::new());
        let address = "tcp://127.0.0.1:0".parse()?;
        let (mut waiting, local) =
            gateway::listen(&address, None, PeerLimits::default(), metrics, stop).await?;
        tokio::spawn(async move {
            while let Some(Incoming { peer, .. }) = waiting.recv().await {
                peer.reply(vec![7; REPLY]);
            }
        });
        return Ok(format!("tcp://{local}").parse()?);
    }
    let mut socket = RouterSocket::new();
    let bound = socket.bind("tcp://127.0.0.1:0").await?.to_string();
    let (mut send, mut recv) = socket.split();
    tokio::spawn(async move {
        while let Ok(message) = recv.recv().await {
            let mut frames = message.into_vec();
            *frames.last_mut().unwrap() = Bytes::from(vec![7; REPLY]);
            let _ = send.send(ZmqMessage::try_from(frames).unwrap()).now_or_never();
        }
    });
    Ok(bound.parse()?)
}

async fn ask(address: &ServerAddress, size: usize, requests: usize) -> Result<(), Failed> {
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..DEALERS {
        let mut dealer = DealerConnection::connect(address, None).await?;
        asking.spawn(async move {
            for n in 0..requests + WINDOW {
                if n >= WINDOW {
                    dealer.recv().await?;
                }
                if n < requests {
                    dealer.send(vec![7; size]).await?;
                }
            }
            Ok::<_, Failed>(())
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked??;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
}

/// A server that runs until it is dropped, with a new data directory.
struct Running {
    child: std::process::Child,
    listen: ServerAddress,
    /// What an edge shows that may speak for all garages.
    tls: Option<Connector>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(program: &PathBuf, directory: &str, way: Way) -> Result<Running, Failed> {
        let dir = tempfile::tempdir_in(directory)?;
        let (data, certs) = (dir.path().join("server"), dir.path().join("edge-certs"));
        let command = || {
            let mut command = Command::new(program);
            command.arg("--data-dir").arg(&data).stderr(Stdio::null());
            command
        };
        let scheme = if way == Way::Tls { "tls" } else { "tcp" };
        let mut tls = None;
        if way == Way::Tls {
            let init = command().args(["certs", "init", "--host", "127.0.0.1"]).output()?;
            let mut issue = command();
            issue.args(["certs", "issue", "--out"]).arg(&certs);
            (0..GARAGES).for_each(|garage| _ = issue.args(["--garage", &name(garage)]));
            assert!(init.status.success() && issue.output()?.status.success(), "certificates are made");
            tls = Some(Connector::open(TlsFiles::in_dir(&certs), clock::now)?);
        }
        let mut serve = command();
        serve.args(["--listen", &format!("{scheme}://127.0.0.1:0"), "--http", "127.0.0.1:0"]);
        let mut child = serve.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)?;
        let listen = line.split("listen=").nth(1).and_then(|rest| rest.split(' ').next());
        Ok(Running { child, listen: listen.ok_or("no ready line")?.parse()?, tls, _dir: dir })
    }

    async fn dealer(&self) -> Result<DealerConnection, Failed> {
        Ok(DealerConnection::connect(&self.listen, self.tls.as_ref()).await?)
    }

    fn resident_kb(&self) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rate at which garages deliver their backlogs to a new server.
fn deliver(runtime: &Runtime, running: &Running) -> Result<f64, Failed> {
    let backlogs: Vec<Vec<Vec<u8>>> = (0..GARAGES).map(backlog).collect();
    let began = Instant::now();
    runtime.block_on(async {
        let mut delivering = tokio::task::JoinSet::new();
        for backlog in backlogs {
            let mut dealer = running.dealer().await?;
            delivering.spawn(async move {
                let count = backlog.len();
                let mut requests = backlog.into_iter();
                for n in 0..count + WINDOW {
                    if n >= WINDOW {
                        let reply = Reply::decode(&dealer.recv().await?)?;
                        assert_eq!(reply.verdict, Verdict::Accepted);
                    }
                    if let Some(request) = requests.next() {
                        dealer.send(request).await?;
                    }
                }
                Ok::<_, Failed>(())
            });
        }
        while let Some(delivered) = delivering.join_next().await {
            delivered??;
        }
        Ok::<_, Failed>(())
    })?;
    Ok((GARAGES * REQUESTS * PAGES * RECORDS) as f64 / began.elapsed().as_secs_f64())
}

fn name(garage: usize) -> String {
    format!("garage {garage}")
}

/// The requests of one garage.
fn backlog(garage: usize) -> Vec<Vec<u8>> {
    let epoch = Epoch::random();
    let (mut next, mut previous) = (1, None);
    let mut page = || {
        let record = |n: usize| {
            let json = format!(
                "{{\"kind\":\"entry\",\"plate\":\"B{garage:02}{n:07}\",\"at\":\"2026-10-01T06:00:00Z\"}}"
            );
            let event = Event::from_json(json.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap();
            Message::of(event.to_bytes())
        };
        let sealed = SealedPage::seal(&Page {
            epoch,
            first: Sequence::new(next as u64).unwrap(),
            previous,
            moved_from: None,
            begun: ClockReading::at_wall_ms(0),
            content: Content::Records((next..next + RECORDS).map(record).collect()),
        });
        previous = Some(sealed.digest);
        next += RECORDS;
        sealed
    };
    let request = |id| {
        let site = SiteName::new(&name(garage)).unwrap();
        let pages = (0..PAGES).map(|_| page()).collect();
        let (oldest, ledger, instance, clock_ms) = (1, None, 1, 0);
        Request { id, site, epoch, oldest, ledger, instance, clock_ms, pages, ask: None, observation: None }
            .encode()
    };
    (1..=REQUESTS as u64).map(request).collect()
}

/// Connections that do nothing: after the handshake, and after one request each.
fn idle(running: &Running) -> Result<(), Failed> {
    let address = running.listen.host_and_port();
    let before = running.resident_kb()?;
    let mut peers = Vec::new();
    let mut greeting = [0; 64];
    (greeting[0], greeting[9], greeting[10]) = (0xFF, 0x7F, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    for _ in 0..IDLE {
        let mut peer = TcpStream::connect(&address)?;
        peer.set_read_timeout(Some(Duration::from_secs(10)))?;
        peer.write_all(&greeting)?;
        peer.write_all(b"\x04\x1C\x05READY\x0BSocket-Type\0\0\0\x06DEALER")?;
        peer.read_exact(&mut [0; 94])?;
        peers.push(peer);
    }
    let ready = running.resident_kb()?;
    let request = backlog(0).remove(0);
    for peer in &mut peers {
        peer.write_all(&[1, 0, 2])?;
        peer.write_all(&(request.len() as u64).to_be_bytes())?;
        peer.write_all(&request)?;
        let _ = peer.read(&mut [0; 4096])?;
    }
    let asked = running.resident_kb()?;
    let each = |kb: u64| (kb - before) as f64 / IDLE as f64;
    println!("{IDLE} idle connections: {:.1} KB each after the handshake", each(ready));
    println!("and {:.1} KB each after a request of {} bytes", each(asked), request.len());
    Ok(())
}

/// Connections that all begin at once, each with a handshake in which both ends show certificates.
fn connect(runtime: &Runtime, running: &Running) -> Result<(), Failed> {
    let began = Instant::now();
    let connections = runtime.block_on(async {
        let connecting = futures_util::future::join_all((0..IDLE).map(|_| running.dealer()));
        connecting.await.into_iter().collect::<Result<Vec<_>, _>>()
    })?;
    println!(
        "{} connections with TLS on both ends: {:.1} s",
        connections.len(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
