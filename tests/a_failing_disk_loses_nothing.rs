//! **Promise.** When writes or syncs of the store fail, nothing that was confirmed is lost: the daemon takes nothing more, says
//! what happened, and ends with code 1 soon; started again on a disk that works it goes on, and everything confirmed is
//! applied once.
//!
//! strace gives the answers of the failing disk, in calls on the store's file alone. From the N-th of them on, counted in each
//! thread and drawn by lot, all fail, as on a disk that broke or ran full; or just one, as on a disk that recovers while
//! nobody can say what it kept.

use crate::common::daemon::{EDGE, SERVER, refused};
use crate::common::scale::by_scale;
use crate::common::{Edge, Garage, Journal, Producer, Program, Server};
use crate::common::{assert_exactly_once, events_of, requires, seeded, wait_until};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How soon a daemon ends after its disk failed: far below the minute after which the watchdog would end it.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
/// How long events flow until the call comes whose turn it is.
const FAILS_WITHIN: Duration = Duration::from_secs(60);
const SETTLE_WITHIN: Duration = Duration::from_secs(90);

/// What fails.
#[derive(Debug, Clone, Copy)]
struct Fault {
    calls: &'static str,
    error: &'static str,
    from: u32,
    /// That call alone.
    once: bool,
}

const WRITES: &str = "pwrite64,write";
const SYNCS: &str = "fdatasync,fsync";
const CHANGES: &str = "pwrite64,write,ftruncate,fallocate,fdatasync,fsync";

impl Fault {
    /// Each kind once, from calls on that are drawn by lot; `./test --quick` draws two of the kinds.
    fn draw(rng: &mut ChaCha8Rng) -> Vec<Fault> {
        let mut kinds = vec![
            (WRITES, "ENOSPC", false),
            (WRITES, "ENOSPC", true),
            (WRITES, "EIO", true),
            (SYNCS, "EIO", true),
            (SYNCS, "ENOSPC", false),
            (CHANGES, "EIO", false),
        ];
        kinds.shuffle(rng);
        // As a rule opening makes fewer of them in any one thread.
        let fault = |(calls, error, once)| Fault { calls, error, from: rng.random_range(12..80), once };
        kinds.into_iter().take(by_scale(2, 6, 6)).map(fault).collect()
    }

    /// The tracer, which writes into `trace` what it does.
    fn tracer(&self, dir: &Path, trace: &Path) -> Vec<String> {
        let Fault { calls, error, from, once } = self;
        let from_then_on = if *once { "" } else { "+" };
        let file = dir.join("store").join("db");
        let words = ["strace", "-D", "-f", "-qq", "-e", "signal=none", "-o", trace.to_str().unwrap(), "-P"];
        let words = words.into_iter().chain([file.to_str().unwrap(), "-e"]).map(str::to_owned);
        let trace = [format!("trace={calls}"), "-e".into()];
        let inject = format!("inject={calls}:error={error}:when={from}{from_then_on}");
        words.chain(trace).chain([inject]).collect()
    }
}

impl Fault {
    /// Starts a daemon under the fault. One that strikes while the store is opened, which the last test is about, ends the
    /// daemon with a reason; then it strikes later. Seen when a ledger had grown to 677,607 events.
    fn meets_traffic(
        mut self,
        dir: &Path,
        trace: &Path,
        mut start: impl FnMut(&[&str]) -> Result<(), String>,
    ) -> Fault {
        while let Err(why) = start(&words(&self.tracer(dir, trace))) {
            assert!(why.contains("error[") && !why.contains("panicked"), "{self:?}: {why}");
            println!("{self:?} met the start");
            self.from += 40;
            assert!(self.from < 1000, "it never starts: {why}");
            take_log(dir);
            let _ = std::fs::remove_file(trace);
        }
        self
    }
}

/// Takes the log that a daemon has written so far.
fn take_log(dir: &Path) -> String {
    let path = dir.with_extension("log");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    text
}

/// How a daemon is to end after its disk failed.
fn assert_ended_well(fault: Fault, code: Option<i32>, log: &str) {
    assert_eq!(code, Some(1), "it did not end with 1 within {ENDS_WITHIN:?} after {fault:?}\n{log}");
    assert!(!log.contains("panicked"), "{fault:?}\n{log}");
    let why = if fault.error == "EIO" { "error" } else { "No space left on device" };
    assert!(log.contains("the disk failed") && log.contains(why), "{fault:?}\n{log}");
    assert!(log.contains("onfirmed is kept") && log.contains("again"), "{fault:?}\n{log}");
    assert!(log.len() < 64 * 1024, "it wrote {} bytes of log after {fault:?}", log.len());
}

fn wait_for(trace: &Path, daemon: &dyn Program) {
    wait_until("the disk fails", FAILS_WITHIN, &[daemon], || {
        std::fs::read_to_string(trace).is_ok_and(|trace| trace.contains("(INJECTED)"))
    });
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn what_an_edge_confirmed_survives_failing_writes_and_syncs() {
    if !requires::strace() {
        return;
    }
    let mut rng = seeded();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let mut edge = Edge::start(&dir.path().join("edge"), "1", &[server.address()], &[]);
    let mut journals = Vec::new();
    for (round, fault) in Fault::draw(&mut rng).into_iter().enumerate() {
        edge.kill();
        take_log(edge.dir());
        let trace = dir.path().join(format!("trace-{round}"));
        let place = edge.dir().to_owned();
        let fault = fault.meets_traffic(&place, &trace, |tracer| edge.try_restart_under(tracer));
        let cameras = [("S", &[1][..]), ("B", &[90, 1, 400])].map(|(kind, sizes)| {
            Producer::start_long(edge.address(), &format!("R{round}{kind}"), sizes, 100)
        });
        wait_for(&trace, &edge);
        let code = edge.ended_within(ENDS_WITHIN);
        assert_ended_well(fault, code, &take_log(edge.dir()));
        edge.restart();
        let before: u64 = cameras.iter().map(Producer::confirmed_events).sum();
        wait_until("events are taken again", SETTLE_WITHIN, &[&edge], || {
            cameras.iter().map(Producer::confirmed_events).sum::<u64>() > before + 500
        });
        journals.extend(cameras.map(Producer::finish));
        wait_until("all is delivered", SETTLE_WITHIN, &[&edge, &server], || edge.depth() == 0);
        let applied = events_of(&server, "1");
        assert_exactly_once(&applied, &journals);
        let confirmed: u64 = journals.iter().map(Journal::confirmed_events).sum();
        println!("{fault:?}: {confirmed} confirmed so far, {} applied", applied.len());
    }
    edge.assert_sound();
    assert_eq!(edge.stop().0, Some(0));
    edge.assert_sound();
}

#[test]
fn what_a_server_acknowledged_survives_failing_writes_and_syncs() {
    if !requires::strace() {
        return;
    }
    let mut rng = seeded();
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut garage = Garage::start(dir.path(), "1", &[server.address()], &[&[1], &[90, 1, 400]]);
    for (round, fault) in Fault::draw(&mut rng).into_iter().enumerate() {
        server.kill();
        take_log(server.dir());
        let trace = dir.path().join(format!("trace-{round}"));
        let place = server.dir().to_owned();
        let fault = fault.meets_traffic(&place, &trace, |tracer| server.try_restart_under(tracer));
        wait_for(&trace, &server);
        let code = server.ended_within(ENDS_WITHIN);
        assert_ended_well(fault, code, &take_log(server.dir()));
        server.restart();
        let before = server.applied_of("1");
        wait_until("events are applied again", SETTLE_WITHIN, &[&server, &garage.edge], || {
            server.applied_of("1") > before + 100
        });
        println!("{fault:?}: {} confirmed so far", garage.confirmed());
    }
    let settled = garage.settle(&server);
    println!("{settled:?}");
    assert_eq!(server.stop().0, Some(0));
}

/// On a disk that fails while the store is opened, a daemon says so and changes nothing that was confirmed.
#[test]
fn a_daemon_that_cannot_write_while_it_starts_says_so_and_starts_later() {
    if !requires::strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut garage = Garage::start(dir.path(), "1", &[server.address()], &[&[1, 90]]);
    wait_until("some events are applied", SETTLE_WITHIN, &[&server, &garage.edge], || {
        server.applied_of("1") > 500
    });
    garage.stop_cameras();
    let places: [(&str, PathBuf, Vec<&str>); 2] = [
        (EDGE, garage.edge.dir().to_owned(), vec!["--garage-name", "1", "--http", "127.0.0.1:0"]),
        (SERVER, server.dir().to_owned(), vec!["--http", "127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"]),
    ];
    garage.edge.kill();
    server.kill();
    for (calls, error) in [(WRITES, "ENOSPC"), (WRITES, "EIO"), (SYNCS, "EIO"), (CHANGES, "EIO")] {
        for (program, place, settings) in &places {
            let fault = Fault { calls, error, from: 1, once: false };
            let mut args = fault.tracer(place, &dir.path().join("trace"));
            args.extend([(*program).to_owned(), "--data-dir".into(), place.to_str().unwrap().into()]);
            args.extend(settings.iter().map(ToString::to_string));
            let said = refused(&args[0], &words(&args[1..]));
            assert_eq!(said.code, Some(1), "{program} after {fault:?}: {}", said.stderr);
            assert!(said.stderr.contains("error["), "{program} after {fault:?}: {}", said.stderr);
            assert!(!said.stderr.contains("panicked"), "{program} after {fault:?}: {}", said.stderr);
            println!("{fault:?}: {}", said.stderr.lines().last().unwrap());
        }
    }
    server.restart();
    garage.edge.restart();
    garage.settle(&server);
}
