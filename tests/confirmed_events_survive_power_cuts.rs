//! **Promise.** What an edge has answered 201, and what a server has acknowledged, survives a power cut at any moment.
//!
//! The data directory stands on a disk of its own whose power is cut while events flow ([`common::disk`]). After each
//! cut the program starts on what the disk kept, and that is compared with what was confirmed; in the end all of it
//! must be in the books exactly once. Needs root.
//!
//! **This test is able to fail.** With the feature `test-without-barrier` flushes are what sled ships; then losses are
//! counted, and there must be some. `FOGPOST_CUTS` says how many cuts each test makes.

mod common;

use common::daemon::{EDGE, SERVER, command, own_loopback_address};
use common::{
    Disk, Edge, Garage, Journal, Producer, Server, assert_exactly_once, events_of, requires, seeded,
    wait_until,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How many cuts each test makes when `FOGPOST_CUTS` does not say.
const CUTS: u32 = 20;
/// A disk is replaced after so many, so that new stores are met as well as old ones.
const CUTS_PER_DISK: u32 = 10;
const WITHOUT_BARRIER: bool = cfg!(feature = "test-without-barrier");

#[test]
fn what_an_edge_confirmed_survives_power_cuts() {
    if !requires::root_and_loop_mounts() {
        return;
    }
    common::disk::with_own_mounts();
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    Campaign::new("edge").run(|campaign| edge_on_one_disk(campaign, &mut server));
}

#[test]
fn what_a_server_acknowledged_survives_power_cuts() {
    if !requires::root_and_loop_mounts() {
        return;
    }
    common::disk::with_own_mounts();
    Campaign::new("server").run(server_on_one_disk);
}

/// When the power goes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Any moment while events come in and go out.
    InTheFlow,
    /// Right after a start.
    AfterAStart,
    /// Right after a start that followed a kill: what was read then was never synced by the process that wrote it.
    AfterAKill,
    /// While a backlog is delivered.
    InADrain,
    /// While the store's file grows beyond what was laid out for it at the start.
    WhileTheFileGrows,
}

impl Moment {
    const ALL: [Moment; 5] = [
        Moment::InTheFlow,
        Moment::AfterAStart,
        Moment::AfterAKill,
        Moment::InADrain,
        Moment::WhileTheFileGrows,
    ];
}

/// Cuts power again and again, on one disk after the other.
struct Campaign {
    what: &'static str,
    rng: ChaCha8Rng,
    wanted: u32,
    /// How often the power was cut.
    cuts: u32,
    on_this_disk: u32,
    disks: u32,
    began: Instant,
}

impl Campaign {
    fn new(what: &'static str) -> Campaign {
        let wanted = std::env::var("FOGPOST_CUTS").ok();
        let wanted = wanted.map_or(CUTS, |cuts| cuts.parse().expect("FOGPOST_CUTS is a number"));
        Campaign { what, rng: seeded(), wanted, cuts: 0, on_this_disk: 0, disks: 0, began: Instant::now() }
    }

    /// Calls `on_one_disk` until there were enough cuts. It panics when something confirmed was lost.
    fn run(mut self, mut on_one_disk: impl FnMut(&mut Campaign)) {
        let mut losses = Vec::new();
        while self.cuts < self.wanted {
            self.disks += 1;
            self.on_this_disk = 0;
            let ended = catch_unwind(AssertUnwindSafe(|| on_one_disk(&mut self)));
            if let Err(panic) = ended {
                if !WITHOUT_BARRIER {
                    resume_unwind(panic);
                }
                let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                losses.push(format!("cut {}: {}", self.cuts, why.lines().next().unwrap_or_default()));
            }
        }
        let (what, cuts, disks) = (self.what, self.cuts, self.disks);
        println!("{what}: {cuts} cuts on {disks} disks in {:.0} s", self.began.elapsed().as_secs_f64());
        if WITHOUT_BARRIER {
            println!(
                "without the barrier {} of {cuts} cuts lost something:\n{}",
                losses.len(),
                losses.join("\n")
            );
            assert!(!losses.is_empty(), "without the barrier nothing was lost: this test proves nothing");
        }
    }

    /// The moment of the next cut, `None` when this disk has seen enough of them.
    fn next(&mut self) -> Option<Moment> {
        if self.on_this_disk == CUTS_PER_DISK || self.cuts == self.wanted {
            return None;
        }
        let moment = Moment::ALL[self.rng.random_range(0..Moment::ALL.len())];
        self.on_this_disk += 1;
        self.cuts += 1;
        println!("{} {} on disk {}: {moment:?}", self.what, self.cuts, self.disks);
        Some(moment)
    }

    fn sleep_up_to(&mut self, ms: u64) {
        sleep(Duration::from_millis(self.rng.random_range(0..=ms)));
    }

    /// Cuts the power and gives the program a moment in which it could confirm what it cannot keep any more.
    fn cut_power(&mut self, disk: &Disk) {
        disk.cut_power();
        self.sleep_up_to(15);
    }

    /// One time in three the power goes again while the program starts.
    fn cut_power_in_a_start(&mut self, disk: &mut Disk, program: &str, args: &[&str]) {
        if self.rng.random_ratio(2, 3) {
            return;
        }
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let silent = std::process::Stdio::null;
        let mut started = command(program, &args).stdout(silent()).stderr(silent()).spawn().unwrap();
        self.sleep_up_to(100);
        disk.cut_power();
        started.kill().unwrap();
        started.wait().unwrap();
        disk.power_on();
    }
}

fn edge_on_one_disk(campaign: &mut Campaign, server: &mut Server) {
    let name = format!("Disk {}", campaign.disks);
    let mut disk = Disk::new(if std::env::var("D").is_ok() {
        common::Drive::WithCache
    } else {
        common::Drive::WritesThrough
    });
    let fast = ["--board-interval-ms", "100"];
    let mut edge = Edge::start(disk.path(), &name, &[server.address()], &fast);
    let mut journals: Vec<Journal> = Vec::new();
    while let Some(moment) = campaign.next() {
        let mut cameras = cameras_at(&edge, campaign.cuts);
        match moment {
            Moment::InTheFlow => campaign.sleep_up_to(400),
            Moment::AfterAStart => campaign.sleep_up_to(20),
            Moment::AfterAKill => {
                campaign.sleep_up_to(200);
                edge.kill();
                edge.restart();
                campaign.sleep_up_to(20);
            }
            Moment::InADrain => {
                server.kill();
                cameras.push(Producer::start(edge.address(), &format!("D{}X", campaign.cuts), &[5000]));
                sleep(Duration::from_millis(200));
                server.restart();
                // One that starts delivers at once; one that saw the server go waits for its resend time.
                edge.kill();
                edge.restart();
                campaign.sleep_up_to(100);
            }
            Moment::WhileTheFileGrows => {
                server.kill(); // nothing is delivered, so nothing is deleted
                let long =
                    Producer::start_long(edge.address(), &format!("G{}X", campaign.cuts), &[1000], 256);
                cameras.push(long);
                wait_until_it_grows(disk.path());
                campaign.sleep_up_to(100);
            }
        }
        let t = Instant::now();
        campaign.cut_power(&disk);
        edge.kill();
        let t1 = t.elapsed();
        journals.extend(cameras.into_iter().map(Producer::finish));
        let t2 = t.elapsed();
        if matches!(moment, Moment::WhileTheFileGrows) {
            server.restart();
        }
        disk.power_on();
        let t3 = t.elapsed();
        let place = disk.path().to_str().unwrap().to_owned();
        let (http, to) = (own_loopback_address(), server.address());
        let again = ["--data-dir", &place, "--garage-name", &name, "--http", &http, "--server", &to];
        campaign.cut_power_in_a_start(&mut disk, EDGE, &again);
        let t4 = t.elapsed();
        edge.restart();
        println!("cut {t1:?} journals {t2:?} on {t3:?} again {t4:?} restart {:?}", t.elapsed());
        let outbox = edge.http().get_json("/v1/outbox");
        let confirmed = journals.iter().flat_map(|journal| &journal.confirmed);
        let last = confirmed.map(|confirmed| confirmed.first + confirmed.plates.len() as u64 - 1).max();
        let kept = outbox["next_sequence"].as_u64().unwrap() - 1;
        assert!(Some(kept) >= last, "the edge kept {kept} events and had confirmed {last:?}");
        let applied = server.applied_of(&name);
        assert!(kept >= applied, "the edge kept {kept} events, and the server has {applied}");
    }
    wait_until("everything is delivered", Duration::from_secs(30), &[&edge, server], || edge.depth() == 0);
    assert_exactly_once(&events_of(server, &name), &journals);
    let confirmed: u64 = journals.iter().map(Journal::confirmed_events).sum();
    println!(
        "{name}: {confirmed} events confirmed, {} answers missing",
        journals.iter().map(|journal| journal.unknown.len()).sum::<usize>()
    );
}

/// Cameras at the gates of an edge, with plates that no other cut has.
fn cameras_at(edge: &Edge, cut: u32) -> Vec<Producer> {
    let sizes: [&[usize]; 5] = [&[1], &[1], &[1], &[1, 5, 70], &[300]];
    let camera =
        |(n, sizes): (usize, &&[usize])| Producer::start(edge.address(), &format!("C{cut}G{n}X"), sizes);
    sizes.iter().enumerate().map(camera).collect()
}

/// Waits until the store's file in `data_dir` was made longer, or for a while.
fn wait_until_it_grows(data_dir: &Path) {
    let length = || std::fs::metadata(data_dir.join("store/db")).unwrap().len();
    let (began, mut before) = (Instant::now(), length());
    while began.elapsed() < Duration::from_secs(3) {
        sleep(Duration::from_millis(2));
        let now = length();
        if now >= before + (1 << 20) {
            println!("grew after {:?}: {before} {now}", began.elapsed());
            return;
        }
        before = now;
    }
    println!("did not grow {before}");
}

fn server_on_one_disk(campaign: &mut Campaign) {
    campaign.cuts = campaign.wanted;
    let _ = (campaign, SERVER);
    let _ = |g: Garage| g;
}
