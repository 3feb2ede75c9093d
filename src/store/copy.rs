//! A temporary copy of a store, to read it without changing the original: sled writes whenever it opens.
//!
//! **Promise.** The original is only read and stays usable: a daemon may start at any moment. The copy is one state of the original.
//! It is removed when it is dropped.
//! **Kept by.** Checking, before and after copying, whether a process holds the directory or held it meanwhile.

use super::directory::{DirectoryError, Idle, STORE};
use crate::codes::{self, Code, Coded};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Why no copy was made. The original was not touched.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(
        "{path:?} is read through a copy, so that nothing in it changes; the copy takes up to {needed_mb} MB in {in_dir:?}, where {free_mb} MB are free. Nothing was changed. Set TMPDIR to a directory with more room"
    )]
    NoRoom { path: PathBuf, in_dir: PathBuf, needed_mb: u64, free_mb: u64 },
    #[error("cannot copy {path:?} to {to:?}: {source}. Nothing was changed in it")]
    Io { path: PathBuf, to: PathBuf, source: io::Error },
    #[error(
        "a daemon started in {path:?} while its store was copied. Nothing was changed. Run the command again"
    )]
    Used { path: PathBuf },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl Coded for CopyError {
    fn code(&self) -> Code {
        match self {
            CopyError::NoRoom { .. } | CopyError::Io { .. } => codes::COPY_FAILED,
            CopyError::Used { .. } => codes::COMMAND_NOT_TAKEN,
            CopyError::Directory(error) => error.code(),
        }
    }
}

/// How much room must stay free beside a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spare {
    ForOpening,
    /// The size of the copy once more, to rebuild its content.
    AsMuchAgain,
}

/// The most that opening a store writes: a snapshot of the index, and a segment or two.
const OPENING_WRITES: u64 = 64 << 20;

/// Copies the store of a data directory on which no daemon runs, and the files `beside` it, to a directory of their own under
/// TMPDIR, where they have the same names. If a daemon starts meanwhile, no copy is made ([`CopyError::Used`]).
pub fn of_idle(data_dir: &Path, beside: &[&str], spare: Spare) -> Result<TempDir, CopyError> {
    let idle = Idle::look(data_dir)?;
    let store = data_dir.join(STORE);
    let in_dir = std::env::temp_dir();
    let failed = |to: &Path, source| match idle.is_still() {
        true => CopyError::Io { path: store.clone(), to: to.to_owned(), source },
        false => CopyError::Used { path: data_dir.to_owned() }, // it may have removed what we copied
    };
    let size = size_of(&store).map_err(|error| failed(&in_dir, error))?;
    let needed = size + if spare == Spare::AsMuchAgain { size } else { OPENING_WRITES };
    let room = rustix::fs::statvfs(&in_dir).map_err(|error| failed(&in_dir, error.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free < needed {
        let mb = |bytes: u64| bytes / 1_000_000;
        let (needed_mb, free_mb) = (mb(needed) + 1, mb(free));
        return Err(CopyError::NoRoom { path: store, in_dir, needed_mb, free_mb });
    }
    let copy =
        tempfile::Builder::new().prefix("fogpost-").tempdir().map_err(|error| failed(&in_dir, error))?;
    let to = copy.path().join(STORE);
    let copied = fs::create_dir(&to).and_then(|()| copy_files(&store, &to)).and_then(|()| {
        let mut there = beside.iter().filter(|name| data_dir.join(name).exists());
        there.try_for_each(|name| fs::copy(data_dir.join(name), copy.path().join(name)).map(drop))
    });
    copied.map_err(|error| failed(copy.path(), error))?;
    if idle.is_still() { Ok(copy) } else { Err(CopyError::Used { path: data_dir.to_owned() }) }
}

/// The bytes of all files in a directory.
pub fn size_of(path: &Path) -> io::Result<u64> {
    fs::read_dir(path)?.try_fold(0, |bytes, entry| {
        let (entry, found) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        Ok(bytes + if found.is_dir() { size_of(&entry)? } else { found.len() })
    })
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&to)?;
            copy_files(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}
