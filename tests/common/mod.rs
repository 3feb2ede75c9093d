//! The machinery of the tests that run the real programs and look at them from outside.
//!
//! * [`daemon`]: `server` and `edge` that can be killed, stopped and started again; [`process`]: what is common to child processes;
//! * [`browser`]: Chromium, for the pages;
//! * [`http`]: a client that tells "refused" from "the answer never came";
//! * [`producer`]: a camera that posts as fast as it can and writes down what was confirmed;
//! * [`crowd`]: many producers at once;
//! * [`disk`]: a disk whose power can be cut;
//! * [`requires`]: what a test needs of the machine, and the loud way to be left out;
//! * [`scale`]: how much a run tries, and the loud way to be left to a larger one;
//! * [`turns`]: which tests run side by side, and which alone;
//! * [`faketime`]: a wall clock that can be set;
//! * [`garage`]: an edge with its cameras, from the first event to the comparison of the books;
//! * [`peers`]: servers that are none, and ways to a server that break;
//! * [`certs`]: an authority, and what it issues;
//! * [`receivers`]: those who are notified of alarms, by webhook and e-mail;
//! * [`raw_http`]: clients that write HTTP by hand, right or wrong;
//! * [`raw_zmtp`]: peers that write ZMTP by hand, right or wrong;
//! * [`operator`]: somebody who gives commands;
//! * [`books`]: what the server has applied, and the oracle that compares it with what was confirmed.
//!
//! Every daemon listens on a loopback address of its own (127.x.y.z) instead of 127.0.0.1: outgoing connections come from
//! 127.0.0.1, so that none of them can take the port that a killed daemon will come back to, or connect to itself
//! there while nobody listens.

pub mod books;
pub mod browser;
pub mod certs;
pub mod crowd;
pub mod daemon;
pub mod disk;
pub mod faketime;
pub mod garage;
pub mod http;
pub mod money;
pub mod operator;
pub mod peers;
pub mod process;
pub mod producer;
pub mod raw_http;
pub mod raw_zmtp;
pub mod receivers;
pub mod requires;
pub mod scale;
pub mod turns;

pub use books::{Applied, assert_exactly_once, events_of};
pub use browser::{Browser, ColorScheme};
pub use certs::Certs;
pub use daemon::{Edge, EdgeAddress, Program, Server};
pub use disk::{Disk, Drive};
pub use faketime::FakeClock;
pub use garage::{Garage, SETTLE_WITHIN};
pub use http::{Answer, Http, NoAnswer, send_half_a_request};
pub use operator::Operator;
pub use producer::{Journal, Producer};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The shortest interval at which something is asked again that nobody tells us about.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Asks until `happened` says so. Only for what cannot be awaited. Panics with `what` and the logs of `daemons`.
pub fn wait_until(
    what: &str,
    deadline: Duration,
    daemons: &[&dyn Program],
    mut happened: impl FnMut() -> bool,
) {
    let began = Instant::now();
    while !happened() {
        if began.elapsed() > deadline {
            let logs: Vec<String> = daemons.iter().map(|daemon| daemon.log_tail()).collect();
            panic!("within {} s it never came true that {what}\n{}", deadline.as_secs(), logs.join("\n"));
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// Raises the soft limit of file descriptors of the tests themselves to the hard one.
pub fn with_room_for_many_connections() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Starts a hostile client or peer, which comes from another machine: at the scale `long`, where time counts and nothing else runs, it
/// takes of this one what the daemons and the honest leave.
pub fn spawn_hostile<'scope, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    attack: impl FnOnce() -> T + Send + 'scope,
) -> std::thread::ScopedJoinHandle<'scope, T> {
    scope.spawn(|| {
        if scale::scale() == scale::Scale::Long {
            // Of this thread alone, and of those that it starts.
            rustix::process::nice(19).unwrap();
        }
        attack()
    })
}

/// Copies a directory with all files in it and their rights; sockets stay behind.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Draws random numbers from the seed in `FOGPOST_TEST_SEED`, or from a new one, and prints it: a failure is repeated with
/// the seed that it shows.
pub fn seeded() -> ChaCha8Rng {
    let given = std::env::var("FOGPOST_TEST_SEED").ok();
    let seed = given.map_or_else(rand::random, |seed| seed.parse().expect("FOGPOST_TEST_SEED is a number"));
    println!("seed {seed}: repeat with FOGPOST_TEST_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}
