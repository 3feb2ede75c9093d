//! **Promise.** What an edge has answered 201 is in the server's books exactly once and in sequence, however often
//! and whenever edge and server are killed.
//!
//! While cameras post single events and batches over HTTP, the programs get SIGKILL and are started again, 50 times
//! each unless `./test --quick` or `--long` says otherwise. Then nothing is killed any more, and all that is owed must have arrived.

use crate::common::scale::by_scale;
use crate::common::{Garage, SETTLE_WITHIN, Server, seeded, wait_until};
use rand::RngExt;
use std::thread::sleep;
use std::time::Duration;

fn kills() -> usize {
    by_scale(10, 50, 300)
}

/// When a program is killed, in milliseconds after it was ready.
const LIVES_FOR_MS: std::ops::RangeInclusive<u64> = 20..=250;

#[test]
fn kills_of_the_edge_lose_nothing_and_double_nothing() {
    let (mut rng, dir) = (seeded(), tempfile::tempdir().unwrap());
    let server = Server::start(&dir.path().join("server"), &[]);
    let cameras: [&[usize]; 3] = [&[1], &[1], &[1, 8, 200]];
    let mut garage = Garage::start(dir.path(), "Bull Ring", &[server.address()], &cameras);
    for _ in 0..kills() {
        sleep(Duration::from_millis(rng.random_range(LIVES_FOR_MS)));
        garage.edge.kill();
        garage.edge.restart();
    }
    println!("edge killed {} times: {:?}", kills(), garage.settle(&server));
}

#[test]
fn kills_of_the_server_lose_nothing_and_double_nothing() {
    let (mut rng, dir) = (seeded(), tempfile::tempdir().unwrap());
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let servers = [server.address()];
    // Several garages, so that some of them is sending when the server dies: after a kill each waits for its resend time.
    let start = |n: usize| Garage::start(dir.path(), &n.to_string(), &servers, &[&[1], &[1, 20]]);
    let mut garages: Vec<Garage> = (1..=6).map(start).collect();
    for n in 0..kills() {
        let position = server.position();
        // Each third kill meets a server that has just applied something, however slow the machine is.
        if n % 3 == 0 {
            wait_until("something is applied", SETTLE_WITHIN, &[&server], || server.position() > position);
        }
        sleep(Duration::from_millis(rng.random_range(LIVES_FOR_MS)));
        server.kill();
        server.restart();
    }
    garages.iter_mut().for_each(Garage::stop_cameras);
    for garage in &mut garages {
        println!("server killed {} times: {:?}", kills(), garage.settle(&server));
    }
}

#[test]
fn kills_of_both_lose_nothing_and_double_nothing() {
    let (mut rng, dir) = (seeded(), tempfile::tempdir().unwrap());
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut garage = Garage::start(dir.path(), "both", &[server.address()], &[&[1], &[1, 8, 200]]);
    for _ in 0..kills() {
        sleep(Duration::from_millis(rng.random_range(LIVES_FOR_MS)));
        let server_first = rng.random();
        if server_first {
            server.kill();
        } else {
            garage.edge.kill();
        }
        sleep(Duration::from_millis(rng.random_range(0..=60)));
        if server_first {
            garage.edge.kill();
        } else {
            server.kill();
        }
        if rng.random() {
            server.restart();
            garage.edge.restart();
        } else {
            garage.edge.restart();
            server.restart();
        }
    }
    println!("both killed {} times: {:?}", kills(), garage.settle(&server));
}

/// A crash while recovering from a crash: what is half recovered must be recovered again.
#[test]
fn kills_while_starting_lose_nothing_and_double_nothing() {
    let (mut rng, dir) = (seeded(), tempfile::tempdir().unwrap());
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let mut garage = Garage::start(dir.path(), "both", &[server.address()], &[&[1], &[1, 8, 200]]);
    for _ in 0..kills() / 5 {
        sleep(Duration::from_millis(rng.random_range(LIVES_FOR_MS)));
        let mut lives = || Vec::from_iter((0..5).map(|_| Duration::from_millis(rng.random_range(1..=120))));
        garage.edge.kill_while_starting(&lives());
        server.kill_while_starting(&lives());
        server.restart();
        garage.edge.restart();
    }
    println!("both killed {} times while starting: {:?}", kills(), garage.settle(&server));
}
