//! **Promise.** What an edge has answered 201, and what a server has acknowledged, survives a power cut at any moment.
//!
//! The data directory stands on a disk of its own whose power is cut while events flow (`common/disk.rs`). After each
//! cut the program starts on what the disk kept, and that is compared with what was confirmed; in the end all of it
//! must be in the books exactly once. Needs root. `FOGPOST_CUTS` says how often each test cuts; without it the scale of the run does.
//!
//! **This test is able to fail.** With the feature `test-without-barrier` flushes are what sled ships; then what is lost
//! is counted, and there must be some.

use crate::common::daemon::{EDGE, SERVER, command, own_loopback_address};
use crate::common::scale::by_scale;
use crate::common::{Disk, Drive, Edge, Garage, Journal, Producer, Server};
use crate::common::{assert_exactly_once, events_of, requires, seeded, wait_until};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A disk is replaced after this number of cuts, so that new stores are met as well as old ones, on both kinds of drives.
const CUTS_PER_DISK: u32 = 10;
const WITHOUT_BARRIER: bool = cfg!(feature = "test-without-barrier");
/// How long delivering what is left may take, once the power stays.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn what_an_edge_confirmed_survives_power_cuts() {
    if !requires::root_and_loop_mounts() {
        return;
    }
    crate::common::disk::with_own_mounts();
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    Campaign::new("edge").run(|campaign| edge_on_one_disk(campaign, &mut server));
}

#[test]
fn what_a_server_acknowledged_survives_power_cuts() {
    if !requires::root_and_loop_mounts() {
        return;
    }
    crate::common::disk::with_own_mounts();
    Campaign::new("server").run(server_on_one_disk);
}

/// When the power goes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Any moment while events come in and go out.
    InTheFlow,
    /// Right after a start.
    AfterAStart,
    /// Right after a start that followed a kill: nobody has synced what the killed process wrote last.
    AfterAKill,
    /// While a backlog is delivered.
    InADrain,
    /// While the store's file grows beyond what was laid out for it at the start.
    WhileTheFileGrows,
}

const MOMENTS: [Moment; 5] =
    [Moment::InTheFlow, Moment::AfterAStart, Moment::AfterAKill, Moment::InADrain, Moment::WhileTheFileGrows];

fn edge_on_one_disk(campaign: &mut Campaign, server: &mut Server) {
    let name = format!("Disk {}", campaign.disks);
    let mut disk = Disk::new(campaign.drive());
    let place = disk.path().to_str().unwrap().to_owned();
    let (http, to) = (own_loopback_address(), server.address());
    let again = ["--data-dir", &place, "--garage-name", &name, "--http", &http, "--server", &to];
    campaign.cut_power_in_a_start(&mut disk, EDGE, &again);
    let mut edge = Edge::start(disk.path(), &name, &[server.address()], &["--board-interval-ms", "100"]);
    let mut journals: Vec<Journal> = Vec::new();
    let mut confirmed_before = 0;
    while let Some(moment) = campaign.next_cut() {
        let cut = campaign.cuts;
        let mut cameras = cameras_of(&edge, cut);
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
                cameras.push(Producer::start(edge.address(), &format!("D{cut}X"), &[5000]));
                sleep(Duration::from_millis(200));
                server.restart();
                // One that has just started sends at once; one that saw the server go waits for its resend time.
                edge.kill();
                edge.restart();
                campaign.sleep_up_to(100);
            }
            Moment::WhileTheFileGrows => {
                server.kill(); // nothing is delivered, so nothing is deleted and nothing reused
                cameras.push(Producer::start_long(edge.address(), &format!("L{cut}X"), &[1000], 256));
                wait_until_the_file_grows(disk.path());
                campaign.sleep_up_to(100);
                server.restart();
            }
        }
        campaign.cut_power(&disk);
        edge.kill();
        journals.extend(cameras.into_iter().map(Producer::finish));
        disk.power_on();
        campaign.cut_power_in_a_start(&mut disk, EDGE, &again);
        edge.restart();
        let outbox = edge.http().get_json("/v1/outbox");
        let kept = outbox["next_sequence"].as_u64().unwrap() - 1;
        let confirmed = last_confirmed(&journals);
        campaign.busy += u32::from(confirmed > confirmed_before);
        confirmed_before = confirmed;
        assert!(kept >= confirmed, "the edge confirmed {confirmed} events and kept {kept}");
        let applied = server.applied_of(&name);
        assert!(kept >= applied, "the server has {applied} events, of which the edge kept {kept}");
    }
    wait_until("everything is delivered", SETTLE_WITHIN, &[&edge, server], || edge.depth() == 0);
    assert_exactly_once(&events_of(server, &name), &journals);
    campaign.confirmed += journals.iter().map(Journal::confirmed_events).sum::<u64>();
}

fn server_on_one_disk(campaign: &mut Campaign) {
    let mut disk = Disk::new(campaign.drive());
    let place = disk.path().to_str().unwrap().to_owned();
    let (http, listen) = (own_loopback_address(), format!("tcp://{}", own_loopback_address()));
    let again = ["--data-dir", &place, "--http", &http, "--listen", &listen];
    campaign.cut_power_in_a_start(&mut disk, SERVER, &again);
    let mut server = Server::start(disk.path(), &[]);
    let dir = tempfile::tempdir().unwrap();
    let servers = [server.address()];
    let start = |n: usize| Garage::start(dir.path(), &n.to_string(), &servers, &[&[1], &[1, 5, 70]]);
    let mut garages: Vec<Garage> = (1..=3).map(start).collect();
    let mut acknowledged_before = 0;
    while let Some(moment) = campaign.next_cut() {
        let cut = campaign.cuts;
        let mut more = None;
        match moment {
            Moment::InTheFlow => campaign.sleep_up_to(400),
            Moment::AfterAStart => campaign.sleep_up_to(40),
            Moment::AfterAKill => {
                campaign.sleep_up_to(200);
                server.kill();
                server.restart();
                restart_edges(&mut garages[1..]);
                campaign.sleep_up_to(40);
            }
            Moment::InADrain => {
                server.kill();
                more = Some(Producer::start(garages[1].edge.address(), &format!("D{cut}X"), &[5000]));
                sleep(Duration::from_millis(200));
                server.restart();
                restart_edges(&mut garages[1..]);
                campaign.sleep_up_to(100);
            }
            Moment::WhileTheFileGrows => {
                more =
                    Some(Producer::start_long(garages[1].edge.address(), &format!("L{cut}X"), &[1000], 256));
                wait_until_the_file_grows(disk.path());
                campaign.sleep_up_to(100);
            }
        }
        campaign.cut_power(&disk);
        server.kill();
        if let Some(more) = more {
            garages[1].posted(more.finish());
        }
        // While nobody can tell the server anything, it must know what it acknowledged.
        let acknowledged =
            |garage: &Garage| garage.edge.http().get_json("/v1/outbox")["acknowledged"].as_u64().unwrap();
        let acknowledged: Vec<u64> = garages.iter().map(acknowledged).collect();
        garages.iter().for_each(|garage| garage.edge.freeze());
        let acknowledged_now = acknowledged.iter().sum();
        campaign.busy += u32::from(acknowledged_now > acknowledged_before);
        acknowledged_before = acknowledged_now;
        disk.power_on();
        campaign.cut_power_in_a_start(&mut disk, SERVER, &again);
        server.restart();
        for (garage, acknowledged) in garages.iter().zip(acknowledged) {
            let kept = server.applied_of(garage.edge.name());
            assert!(kept >= acknowledged, "the server acknowledged {acknowledged} events and kept {kept}");
        }
        garages.iter().for_each(|garage| garage.edge.thaw());
        // These deliver at once, the first one after its resend time.
        restart_edges(&mut garages[1..]);
    }
    garages.iter_mut().for_each(Garage::stop_cameras);
    for garage in &mut garages {
        campaign.confirmed += garage.settle(&server).confirmed;
    }
}

fn restart_edges(garages: &mut [Garage]) {
    for garage in garages {
        garage.edge.kill();
        garage.edge.restart();
    }
}

/// Cameras at the gates of an edge, with plates that no other cut has.
fn cameras_of(edge: &Edge, cut: u32) -> Vec<Producer> {
    let sizes: [&[usize]; 5] = [&[1], &[1], &[1], &[1, 5, 70], &[300]];
    let camera =
        |(n, sizes): (usize, &&[usize])| Producer::start(edge.address(), &format!("C{cut}G{n}X"), sizes);
    sizes.iter().enumerate().map(camera).collect()
}

fn last_confirmed(journals: &[Journal]) -> u64 {
    let confirmed = journals.iter().flat_map(|journal| &journal.confirmed);
    confirmed.map(|confirmed| confirmed.first + confirmed.plates.len() as u64 - 1).max().unwrap_or(0)
}

/// Waits until the store's file in `data_dir` gets more room, or for a while.
fn wait_until_the_file_grows(data_dir: &Path) {
    let length = || std::fs::metadata(data_dir.join("store/db")).unwrap().len();
    let (began, mut before) = (Instant::now(), length());
    while began.elapsed() < Duration::from_secs(3) {
        sleep(Duration::from_millis(2));
        let now = length();
        // sled shortens it as well, in between.
        if now >= before + (1 << 20) {
            return;
        }
        before = now;
    }
}

/// Cuts power again and again, on one disk after the other.
struct Campaign {
    what: &'static str,
    rng: ChaCha8Rng,
    wanted: u32,
    /// How often the power was cut.
    cuts: u32,
    /// Before how many of them something was confirmed.
    busy: u32,
    on_this_disk: u32,
    disks: u32,
    confirmed: u64,
    began: Instant,
}

impl Campaign {
    fn new(what: &'static str) -> Campaign {
        let wanted = std::env::var("FOGPOST_CUTS").ok();
        let wanted =
            wanted.map_or(by_scale(4, 20, 200), |cuts| cuts.parse().expect("FOGPOST_CUTS is a number"));
        let (rng, began) = (seeded(), Instant::now());
        Campaign { what, rng, wanted, cuts: 0, busy: 0, on_this_disk: 0, disks: 0, confirmed: 0, began }
    }

    /// Calls `on_one_disk`, which panics when something confirmed was lost, until there were enough cuts.
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
                let why = why.lines().rfind(|line| line.starts_with("error[")).or(why.lines().next());
                losses.push(format!("cut {}, {:?}: {}", self.cuts, self.drive(), why.unwrap_or_default()));
            }
        }
        let Campaign { what, cuts, busy, disks, confirmed, began, .. } = self;
        let seconds = began.elapsed().as_secs();
        println!(
            "{what}: {cuts} cuts on {disks} disks in {seconds} s, {busy} of them busy, {confirmed} confirmed events checked"
        );
        // An edge that was started again resends after 2 s at the earliest: a server that is cut sooner has nothing to do.
        assert!(10 * busy >= cuts, "most cuts met a program that had nothing to do: this test proves little");
        if WITHOUT_BARRIER {
            println!("{} of {cuts} cuts lost something:\n{}", losses.len(), losses.join("\n"));
            assert!(!losses.is_empty(), "without the barrier nothing was lost: this test proves nothing");
        }
    }

    /// What this disk stands on.
    fn drive(&self) -> Drive {
        if self.disks % 2 == 1 { Drive::WithCache } else { Drive::WritesThrough }
    }

    /// The moment of the next cut, `None` when this disk has seen enough of them.
    fn next_cut(&mut self) -> Option<Moment> {
        if self.on_this_disk == CUTS_PER_DISK || self.cuts == self.wanted {
            return None;
        }
        let moment = MOMENTS[self.rng.random_range(0..MOMENTS.len())];
        self.on_this_disk += 1;
        self.cuts += 1;
        println!("{} {}, disk {} ({:?}): {moment:?}", self.what, self.cuts, self.disks, self.drive());
        Some(moment)
    }

    fn sleep_up_to(&mut self, ms: u64) {
        sleep(Duration::from_millis(self.rng.random_range(0..=ms)));
    }

    /// Cuts the power, and leaves the program a moment in which it could confirm what it cannot keep any more.
    fn cut_power(&mut self, disk: &Disk) {
        disk.cut_power(&mut self.rng);
        self.sleep_up_to(15);
    }

    /// One time in three the power goes again while the program starts.
    fn cut_power_in_a_start(&mut self, disk: &mut Disk, program: &str, args: &[&str]) {
        if self.rng.random_ratio(2, 3) {
            return;
        }
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let mut command = command(program, &args);
        let mut started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.sleep_up_to(100);
        disk.cut_power(&mut self.rng);
        started.kill().unwrap();
        started.wait().unwrap();
        disk.power_on();
    }
}
