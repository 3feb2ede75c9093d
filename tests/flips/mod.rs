//! Damaged stores.

pub mod edge;
pub mod server;

pub use crate::common::copy;
use rand::{Rng, RngExt};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What happens to a file of a sound data directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// The sound directory.
    pub of: PathBuf,
    pub file: PathBuf,
    pub at: u64,
    pub harm: Harm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// A byte is flipped by this one.
    Flip(u8),
    /// A block reads as zeros.
    Zero,
    /// The file ends here.
    Cut,
}

/// What a disk loses at once.
pub const BLOCK: u64 = 4096;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let harm = match self.harm {
            Harm::Flip(by) => by.to_string(),
            Harm::Zero => "zero".into(),
            Harm::Cut => "cut".into(),
        };
        write!(f, "{}\t{}\t{}\t{harm}", self.of.display(), self.file.display(), self.at)
    }
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Place, String> {
        let mut parts = text.split('\t');
        let mut part = || parts.next().ok_or_else(|| text.to_owned());
        let (of, file) = (part()?.into(), part()?.into());
        let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
        let at = number(part()?)?;
        let harm = match part()? {
            "zero" => Harm::Zero,
            "cut" => Harm::Cut,
            by => Harm::Flip(number(by)? as u8),
        };
        Ok(Place { of, file, at, harm })
    }
}

/// Every block of the log that holds anything, harmed.
pub fn blocks_of(dir: &Path, harm: Harm) -> Vec<Place> {
    let file = PathBuf::from("store/db");
    let bytes = fs::read(dir.join(&file)).unwrap();
    let blocks = (0u64..).step_by(BLOCK as usize).zip(bytes.chunks(BLOCK as usize));
    let used = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
    used.map(|(at, _)| Place { of: dir.to_owned(), file: file.clone(), at, harm }).collect()
}

/// Places all over the files of a directory: each file that is not long gets its share, the log most.
pub fn places_in(dir: &Path, count: usize, random: &mut impl Rng) -> Vec<Place> {
    let mut files = Vec::new();
    for part in ["", "store"] {
        for entry in fs::read_dir(dir.join(part)).unwrap().map(Result::unwrap) {
            let file = Path::new(part).join(entry.file_name());
            // The lock holds a number for people, the ballast nothing, the content is what the oracle has.
            if entry.file_type().unwrap().is_file()
                && entry.metadata().unwrap().len() > 0
                && !["lock", "ballast", "ballast.new", "content"].iter().any(|no| file.ends_with(no))
            {
                files.push(file);
            }
        }
    }
    let (logs, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.ends_with("db"));
    assert!(logs.len() == 1 && others.len() >= 3, "{logs:?} {others:?}");
    (0..count)
        .map(|n| {
            let file = if n % 6 == 0 { &others[n / 6 % others.len()] } else { &logs[0] };
            let bytes = fs::read(dir.join(file)).unwrap();
            // Most of a log is zeros, which sled cuts off: a few places there will do.
            let used: Vec<u64> = match n % 40 {
                1 => (0..bytes.len() as u64).collect(),
                _ => (0u64..).zip(&bytes).filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect(),
            };
            let used = if used.is_empty() { vec![0] } else { used };
            let at = used[random.random_range(0..used.len())];
            let by = if n % 3 == 0 { random.random_range(1..=255) } else { 1 << random.random_range(0..8) };
            Place { of: dir.to_owned(), file: file.clone(), at, harm: Harm::Flip(by) }
        })
        .collect()
}

/// A damaged data directory, and the sound one beside it.
pub struct Store {
    pub dir: PathBuf,
    pub sound: PathBuf,
}

impl Store {
    pub fn damaged(dir: &Path, place: &Place) -> Store {
        let _ = fs::remove_dir_all(dir);
        copy(&place.of, dir);
        let file = dir.join(&place.file);
        let mut bytes = fs::read(&file).unwrap();
        let at = place.at as usize;
        match place.harm {
            Harm::Flip(by) => bytes[at] ^= by,
            Harm::Zero => bytes.iter_mut().skip(at).take(BLOCK as usize).for_each(|byte| *byte = 0),
            Harm::Cut => bytes.truncate(at),
        }
        fs::write(file, bytes).unwrap();
        Store { dir: dir.to_owned(), sound: place.of.clone() }
    }
}

/// Draws a place and flips its byte in a copy of the directory.
pub fn damaged_copy(of: &Path, to: &Path, n: usize, random: &mut impl Rng) -> Place {
    let place = places_in(of, n + 1, random).pop().expect("there is one");
    Store::damaged(to, &place);
    place
}
