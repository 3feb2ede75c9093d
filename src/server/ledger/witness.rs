//! A note beside the store of how far the ledger had come: by it, a ledger that lost its end knows that it did.
//!
//! When sled's log is damaged, what it recovers may be a shorter ledger that agrees with itself in everything. Nothing
//! inside the store tells.
//!
//! **Promise.** What a note says was on disk: this ledger had a record at that position. It may be old.
//! **Kept by.** It is written after the flush, over itself, with a checksum, and never synced: a kill leaves the last one, a
//! power cut an older one. One that cannot be read says nothing.
//! **Not promised.** That it is there: a backup has none.

use crate::messaging::{Digest, LedgerId};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The length of the file: a block, so that overwriting it never needs room.
const LENGTH: usize = 512;

/// How far a ledger had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub ledger: LedgerId,
    /// A position that was on disk, and every one before it.
    pub position: u64,
}

impl Note {
    /// The note in a file, without changing it. `None` when there is none that can be read.
    pub fn read(path: &Path) -> Option<Note> {
        note_in(&File::open(path).ok()?).ok()?
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
        let note = note_in(&file)?;
        if file.metadata()?.len() < LENGTH as u64 {
            file.write_all_at(&[0; LENGTH], 0)?;
        }
        Ok((Witness { file }, note))
    }

    /// Replaces the note. It is no reason to stop when that fails.
    pub fn write(&self, note: Note) {
        let body = postcard::to_stdvec(&note).expect("a note always encodes");
        let bytes = [&Digest::of(&body).as_bytes()[..], &[body.len() as u8], &body].concat();
        if let Err(error) = self.file.write_all_at(&bytes, 0) {
            tracing::debug!(%error, "the note of how far the ledger came was not written; the ledger is not concerned");
        }
    }
}

fn note_in(file: &File) -> io::Result<Option<Note>> {
    let mut bytes = [0; LENGTH];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(decode(&bytes[..length]))
}

fn decode(bytes: &[u8]) -> Option<Note> {
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
        assert_eq!(Note::read(&path), None);
        let (witness, note) = Witness::open(&path).unwrap();
        assert_eq!((note, Note::read(&path)), (None, None));
        let mut note = Note { ledger: LedgerId::random(), position: u64::MAX };
        witness.write(note);
        note.position = 7;
        witness.write(note);
        assert_eq!(Note::read(&path), Some(note));
        assert_eq!(Witness::open(&path).unwrap().1, Some(note));
        let sound = std::fs::read(&path).unwrap();
        assert_eq!(sound.len(), LENGTH);
        for place in 0..40 {
            let mut bytes = sound.clone();
            bytes[place] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(Note::read(&path), None | Some(Note { position: 7, .. })), "at byte {place}");
        }
    }
}
