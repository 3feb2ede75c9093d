//! **Promise.** A store with a flipped byte, a block of zeros, or without its end opens by itself. What is given out is what was
//! written, what was confirmed and is missing is reported with its place, no place is ever used twice, nothing is acknowledged that is
//! not there, and no more is missing than what stood at the damaged place.
//!
//! Each place is a small store with one damage, opened by a process of its own kind: what aborts or hangs there is seen
//! here. `FOGPOST_FLIPS` says how many bytes of each store are flipped; without it the scale of the run does.

use crate::common::scale::by_scale;
use crate::common::seeded;
use crate::common::turns::together;
use crate::flips::{Harm, Place, Store, blocks_of, edge, places_in, server};
use rand::seq::SliceRandom;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long looking into one store may take. It takes 0.05 s.
const EACH_WITHIN: Duration = Duration::from_secs(60);
/// How many processes look at once.
const AT_ONCE: usize = 4;

/// In memory: two thousand stores are opened, and each opening syncs.
fn scratch_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

fn how_many() -> usize {
    std::env::var("FOGPOST_FLIPS")
        .map_or_else(|_| by_scale(60, 400, 2000), |n| n.parse().expect("FOGPOST_FLIPS is a number"))
}

/// The most events in a page, and the most pages that a block touches.
const PAGE_EVENTS: usize = 64;
const BLOCK_PAGES: usize = 5;
/// What a framed value begins with, and more than the longest one takes.
const MAGIC: [u8; 4] = [0xF0, 0x97, 0x05, 0x7A];
const FRAME_BYTES: usize = 8 * 1024;

#[test]
fn of_an_edge_store() {
    let dir = scratch_dir();
    let states = edge::make(dir.path());
    let counts = damage_everywhere("edge", dir.path(), &states);
    assert!(counts["reported"] > 0 && counts["intact"] > 0, "{counts:?}");
}

#[test]
fn of_a_server_store() {
    let dir = scratch_dir();
    let states = server::make(dir.path());
    let counts = damage_everywhere("server", dir.path(), &states);
    assert!(counts["reported"] > 0 && counts["intact"] > 0, "{counts:?}");
}

/// Whether a value stands whole in what a cut leaves of a log. The first segments may be free.
fn holds_values(place: &Place) -> bool {
    let left = fs::read(place.of.join(&place.file)).unwrap();
    let left = &left[..(place.at as usize).saturating_sub(FRAME_BYTES)];
    left.windows(MAGIC.len()).any(|bytes| bytes == MAGIC)
}

/// Looks into many damaged stores. What the test came to, by kind.
fn damage_everywhere(kind: &str, dir: &Path, states: &[PathBuf]) -> BTreeMap<String, usize> {
    together();
    let began = Instant::now();
    let mut random = seeded();
    let mut places: Vec<Place> = Vec::new();
    for state in states {
        places.extend(places_in(state, how_many() / states.len(), &mut random));
        // Every block of both in the largest run.
        let blocks = [Harm::Zero, Harm::Cut].into_iter().flat_map(|harm| blocks_of(state, harm));
        places.extend(blocks.step_by(by_scale(40, 8, 1)));
    }
    places.shuffle(&mut random);
    let each = places.len().div_ceil(AT_ONCE).max(1);
    let said: Vec<(Place, String)> = std::thread::scope(|scope| {
        let looking = places.chunks(each).enumerate().map(|(n, places)| {
            let work = dir.join(format!("work-{n}"));
            scope.spawn(move || look_into_all(kind, &work, places))
        });
        let looking: Vec<_> = looking.collect();
        looking.into_iter().flat_map(|looking| looking.join().unwrap()).collect()
    });
    assert_eq!(said.len(), places.len());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    let mut worst: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (place, said) in said {
        let (outcome, detail) = said.split_once(' ').unwrap_or((&said, ""));
        *counts.entry(outcome.to_owned()).or_default() += 1;
        match outcome {
            "intact" => {}
            "refused" if place.harm == Harm::Cut && !holds_values(&place) => {}
            // A log without its first segment reads as a new one.
            "refused" if place.harm == Harm::Zero && place.at == 0 => {}
            "reported" => {
                let (missing, detail) = detail.split_once(' ').unwrap_or((detail, ""));
                let missing: usize = missing.parse().expect("it says how many events are missing");
                let (kind, most) = match place.harm {
                    Harm::Flip(_) => ("a flipped byte", PAGE_EVENTS),
                    Harm::Zero => ("a block of zeros", BLOCK_PAGES * PAGE_EVENTS),
                    Harm::Cut => ("a cut", usize::MAX),
                };
                let worst = worst.entry(kind).or_default();
                *worst = missing.max(*worst);
                if missing > most {
                    wrong.push(format!("{place}: {said}"));
                }
                let letters = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "#");
                let file = place.file.file_name().unwrap().to_string_lossy();
                *words.entry(letters(&format!("{outcome} ({file}): {detail}"))).or_default() += 1;
            }
            _ => wrong.push(format!("{place}: {said}")),
        }
    }
    println!("{kind}: {counts:?} of {} places in {:.1} s", places.len(), began.elapsed().as_secs_f64());
    println!("events lost at most: {worst:?}");
    for (words, count) in words {
        println!("{count:6} {}", words.chars().take(200).collect::<String>());
    }
    let shown: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), places.len(), shown.join("\n"));
    counts
}

/// What was said of each place. A process that dies or hangs over one is replaced, and that is said.
fn look_into_all(kind: &str, work: &Path, places: &[Place]) -> Vec<(Place, String)> {
    fs::create_dir(work).unwrap();
    let mut said: Vec<(Place, String)> = Vec::new();
    while said.len() < places.len() {
        let list: Vec<String> = places[said.len()..].iter().map(ToString::to_string).collect();
        fs::write(work.join("places"), list.join("\n")).unwrap();
        fs::write(work.join("said"), "").unwrap();
        let mut child = start_child(kind, work);
        let mut told = 0;
        let mut told_at = Instant::now();
        let ended = loop {
            let now = lines(&work.join("said"));
            if now.len() > told {
                (told, told_at) = (now.len(), Instant::now());
            }
            if let Some(status) = child.try_wait().unwrap() {
                break format!("{status}");
            }
            if told_at.elapsed() > EACH_WITHIN {
                child.kill().unwrap();
                child.wait().unwrap();
                break format!("still at it after {} s", EACH_WITHIN.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20)); // nobody tells us that a file grew
        };
        for line in lines(&work.join("said")) {
            said.push((places[said.len()].clone(), line));
        }
        if said.len() < places.len() {
            let log = fs::read_to_string(work.join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            said.push((places[said.len()].clone(), format!("died {ended}: {}", tail.join(" | "))));
        }
    }
    said
}

/// Whole lines only: the last one may be in the making.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

fn start_child(kind: &str, work: &Path) -> Child {
    let log = fs::File::create(work.join("log")).unwrap();
    let (_, module) = module_path!().split_once("::").expect("it is a module of the test binary");
    let child_test = format!("{module}::look_into_stores");
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &child_test, "--ignored", "--nocapture", "--test-threads=1"])
        .env("FOGPOST_FLIPS_OF", kind)
        .env("FOGPOST_FLIPS_IN", work)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The other side of [`look_into_all`].
#[test]
#[ignore = "the tests above run it, in processes of its own"]
fn look_into_stores() {
    use std::io::Write;
    let Some(work) = std::env::var_os("FOGPOST_FLIPS_IN").map(PathBuf::from) else { return };
    let look: fn(&Store) -> String = match std::env::var("FOGPOST_FLIPS_OF").as_deref() {
        Ok("edge") => edge::look_into,
        _ => server::look_into,
    };
    let mut said = fs::OpenOptions::new().append(true).open(work.join("said")).unwrap();
    for place in fs::read_to_string(work.join("places")).unwrap().lines() {
        let store = Store::damaged(&work.join("copy"), &place.parse().unwrap());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&store)));
        let outcome = outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("panicked {}", text.unwrap_or_default())
        });
        writeln!(said, "{}", outcome.replace('\n', " ")).unwrap();
    }
}
