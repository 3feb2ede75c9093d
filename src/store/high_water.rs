//! A file beside a store that records the store's progress: when a log has lost its end, sled recovers a shorter log that is
//! consistent in itself, and nothing inside the store shows the loss.
//!
//! **Promise.** The store did once reach the position in the file. The file may be out of date.
//! **Kept by.** It is written after the flush, over itself, with a checksum, and never synced: a kill leaves the last mark, and a
//! power cut may leave an older one. A file that cannot be read is treated as absent.
//! **Not promised.** That the file exists: a backup has none.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The length of the file: a block, so that overwriting it never needs room.
const LENGTH: usize = 512;
/// The length of the checksum: the first bytes of a BLAKE3 hash.
const CHECKSUM: usize = 16;

/// What a high-water file holds: a checksum, the length of what follows, the mark as postcard, and zeros.
pub trait HighWaterMark: Serialize + DeserializeOwned {
    /// How many bytes the length takes. Files that exist depend on it.
    const LENGTH_BYTES: usize;
}

#[derive(Debug)]
pub struct HighWaterFile {
    file: File,
}

impl HighWaterFile {
    /// Opens the file, and gives the mark in it if it has one that can be read.
    pub fn open<M: HighWaterMark>(path: &Path) -> io::Result<(HighWaterFile, Option<M>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mark = read(path)?;
        if file.metadata()?.len() < LENGTH as u64 {
            file.write_all_at(&[0; LENGTH], 0)?;
        }
        Ok((HighWaterFile { file }, mark))
    }

    /// Replaces the mark. A failure is no reason to stop.
    pub fn write<M: HighWaterMark>(&self, mark: &M) {
        if let Err(error) = self.file.write_all_at(&encode(mark), 0) {
            tracing::debug!(%error, "the high-water mark was not written; stored data is not affected");
        }
    }
}

/// Reads the mark in a file, without changing it. `None` if it has none that can be read.
pub fn read<M: HighWaterMark>(path: &Path) -> io::Result<Option<M>> {
    let mut bytes = [0; LENGTH];
    let length = File::open(path)?.read_at(&mut bytes, 0)?;
    Ok(decode(&bytes[..length]))
}

fn encode<M: HighWaterMark>(mark: &M) -> Vec<u8> {
    let body = postcard::to_stdvec(mark).expect("a mark always encodes");
    let length = (body.len() as u64).to_be_bytes();
    let mut bytes = [&checksum(&body)[..], &length[8 - M::LENGTH_BYTES..], &body].concat();
    assert!(bytes.len() <= LENGTH, "a mark fits into its file");
    bytes.resize(LENGTH, 0);
    bytes
}

fn decode<M: HighWaterMark>(bytes: &[u8]) -> Option<M> {
    let (sum, rest) = bytes.split_first_chunk::<CHECKSUM>()?;
    let (length, rest) = rest.split_at_checked(M::LENGTH_BYTES)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let body = rest.get(..length)?;
    (*sum == checksum(body)).then(|| postcard::from_bytes(body).ok()).flatten()
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash is longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
    struct Mark {
        of: [u8; 16],
        position: u64,
    }
    impl HighWaterMark for Mark {
        const LENGTH_BYTES: usize = 1;
    }

    #[test]
    fn the_last_mark_is_read_and_a_damaged_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness");
        assert!(read::<Mark>(&path).is_err(), "there is no file");
        let (file, mark) = HighWaterFile::open::<Mark>(&path).unwrap();
        assert_eq!((mark, read::<Mark>(&path).unwrap()), (None, None));
        let mut mark = Mark { of: [7; 16], position: u64::MAX };
        file.write(&mark);
        mark.position = 7;
        file.write(&mark);
        assert_eq!(read(&path).unwrap(), Some(mark));
        assert_eq!(HighWaterFile::open(&path).unwrap().1, Some(mark));
        let sound = std::fs::read(&path).unwrap();
        assert_eq!(sound.len(), LENGTH);
        for place in 0..40 {
            let mut bytes = sound.clone();
            bytes[place] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let read = read::<Mark>(&path).unwrap();
            assert!(matches!(read, None | Some(Mark { position: 7, .. })), "at byte {place}");
        }
    }
}
