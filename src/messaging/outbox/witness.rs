//! A note beside the store of how far the outbox had come: by it, an outbox that lost its newest or oldest pages to
//! damage knows that it did.
//!
//! **Promise.** What a note says was true: so many messages had been confirmed, so many acknowledged. It may be old.
//! **Kept by.** It is written after the flush that confirms, over itself, with a checksum, and never synced: a kill leaves the last
//! one, a power cut an older one. One that cannot be read says nothing.
//! **Not promised.** That it is there.

use super::super::clock::BootId;
use super::super::{Digest, Epoch};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The length of the file: a block, so that overwriting it never needs room.
const LENGTH: usize = 512;

/// The ends of so many epochs are noted, of the newest ones.
pub(super) const ENDS_MAX: usize = 14;

/// What had happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The epochs that were held, oldest first, each with the sequence that its next message would have got. New messages got
    /// the last one.
    pub ends: Vec<(Epoch, u64)>,
    /// The epoch that was being delivered, and the highest sequence acknowledged. Whatever was deleted lies at or below it.
    pub oldest: Epoch,
    pub acknowledged: u64,
    /// A note of this boot is the last one. One of an earlier boot may be older than what the disk holds.
    pub boot: BootId,
}

impl Note {
    /// The sequence that the next message of an epoch would have got.
    pub fn next_of(&self, epoch: Epoch) -> Option<u64> {
        self.ends.iter().find(|(its, _)| *its == epoch).map(|(_, next)| *next)
    }

    /// Up to which sequence an epoch is known to have been acknowledged.
    pub fn acknowledged_of(&self, epoch: Epoch) -> u64 {
        if self.oldest == epoch { self.acknowledged } else { 0 }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
}

impl Witness {
    /// Opens the file, and gives the note in it if there is one.
    pub fn open(path: &Path) -> io::Result<(Witness, Option<Note>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; LENGTH];
        let length = file.read_at(&mut bytes, 0)?;
        let note = decode(&bytes[..length]);
        if length < LENGTH {
            file.write_all_at(&[0; LENGTH], 0)?;
        }
        Ok((Witness { file }, note))
    }

    /// The note in a file, without changing it. `None` when there is none that can be read.
    pub fn read(path: &Path) -> Option<Note> {
        let mut bytes = [0; LENGTH];
        let length = File::open(path).ok()?.read_at(&mut bytes, 0).ok()?;
        decode(&bytes[..length])
    }

    /// Replaces the note. It is no reason to stop when that fails.
    pub fn write(&self, note: &Note) {
        let body = postcard::to_stdvec(note).expect("a note always encodes");
        let length = u16::try_from(body.len()).expect("a note is shorter than its file").to_be_bytes();
        let mut bytes = [&Digest::of(&body).as_bytes()[..], &length, &body].concat();
        bytes.resize(LENGTH, 0);
        if let Err(error) = self.file.write_all_at(&bytes, 0) {
            tracing::debug!(%error, "the note of how far the outbox came was not written; events are not concerned");
        }
    }
}

fn decode(bytes: &[u8]) -> Option<Note> {
    let (digest, rest) = bytes.split_first_chunk::<{ Digest::LEN }>()?;
    let (length, rest) = rest.split_first_chunk()?;
    let body = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    (Digest::of(body) == Digest::from_bytes(*digest)).then(|| postcard::from_bytes(body).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_note_is_read_and_a_damaged_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        let (witness, note) = Witness::open(&path).unwrap();
        assert_eq!(note, None);
        let mut note = Note {
            ends: vec![(Epoch::from_bytes([1; 16]), u64::MAX); ENDS_MAX],
            oldest: Epoch::from_bytes([2; 16]),
            acknowledged: u64::MAX,
            boot: [3; 16],
        };
        witness.write(&note);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), LENGTH as u64, "the longest note fits");
        assert_eq!(Witness::open(&path).unwrap().1.as_ref(), Some(&note));
        note.ends.truncate(2);
        witness.write(&note);
        assert_eq!(Witness::open(&path).unwrap().1, Some(note));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Witness::open(&path).unwrap().1, None);
    }
}
