//! The high-water file beside the store notes how far the ledger had come. By it, a ledger that lost its end knows that it did.
//!
//! When sled's log is damaged, it may recover a shorter ledger that agrees with itself in everything. Nothing inside the store shows
//! the loss.
//!
//! **Promise.** What a note says was on disk: this ledger had a record at that position. The note may be old.
//! **Kept by.** It is written after the flush, over itself, with a checksum, and never synced: a kill leaves the last one, a
//! power cut an older one. A note that cannot be read says nothing.
//! **Not promised.** That it is there: a backup has none.

use crate::messaging::{Digest, LedgerId};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The length of the file: a block, so that overwriting it never needs room.
const LENGTH: usize = 512;

/// The position that a ledger had reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHighWater {
    pub ledger: LedgerId,
    /// The last position that was on disk, with all before it.
    pub position: u64,
}

impl LedgerHighWater {
    /// Reads the note in a file without changing the file. `None`: there is none that can be read.
    pub fn read(path: &Path) -> Option<LedgerHighWater> {
        note_in(&File::open(path).ok()?).ok()?
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct LedgerHighWaterFile {
    file: File,
}

impl LedgerHighWaterFile {
    /// Opens the file, and returns the note in it if there is one.
    pub fn open(path: &Path) -> io::Result<(LedgerHighWaterFile, Option<LedgerHighWater>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let note = note_in(&file)?;
        if file.metadata()?.len() < LENGTH as u64 {
            file.write_all_at(&[0; LENGTH], 0)?;
        }
        Ok((LedgerHighWaterFile { file }, note))
    }

    /// Replaces the note. A failure is logged only: the ledger itself is not affected.
    pub fn write(&self, note: LedgerHighWater) {
        let body = postcard::to_stdvec(&note).expect("a note always encodes");
        let bytes = [&Digest::of(&body).as_bytes()[..], &[body.len() as u8], &body].concat();
        if let Err(error) = self.file.write_all_at(&bytes, 0) {
            tracing::debug!(%error, "the note of how far the ledger came was not written; the ledger is not concerned");
        }
    }
}

fn note_in(file: &File) -> io::Result<Option<LedgerHighWater>> {
    let mut bytes = [0; LENGTH];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(decode(&bytes[..length]))
}

fn decode(bytes: &[u8]) -> Option<LedgerHighWater> {
    let (digest, rest) = bytes.split_first_chunk::<{ Digest::LEN }>()?;
    let (length, rest) = rest.split_first()?;
    let body = rest.get(..usize::from(*length))?;
    (Digest::of(body) == Digest::from_bytes(*digest)).then(|| postcard::from_bytes(body).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_note_is_read_and_a_damaged_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        assert_eq!(LedgerHighWater::read(&path), None);
        let (file, note) = LedgerHighWaterFile::open(&path).unwrap();
        assert_eq!((note, LedgerHighWater::read(&path)), (None, None));
        let mut note = LedgerHighWater { ledger: LedgerId::random(), position: u64::MAX };
        file.write(note);
        note.position = 7;
        file.write(note);
        assert_eq!(LedgerHighWater::read(&path), Some(note));
        assert_eq!(LedgerHighWaterFile::open(&path).unwrap().1, Some(note));
        let sound = std::fs::read(&path).unwrap();
        assert_eq!(sound.len(), LENGTH);
        for place in 0..40 {
            let mut bytes = sound.clone();
            bytes[place] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert!(
                matches!(LedgerHighWater::read(&path), None | Some(LedgerHighWater { position: 7, .. })),
                "at byte {place}"
            );
        }
    }
}
