//! A copy of a store, to look into without touching the original: sled writes whenever it opens.
//!
//! **Promise.** The original is only read. The copy is gone when it is dropped.
//! **Not promised.** A consistent copy of a store that somebody writes to: hold its directory meanwhile.

use super::directory::STORE;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Why there is no copy. The original was not touched.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(
        "{path:?} is looked into by way of a copy, so that nothing in it changes; that takes up to {needed_mb} MB in {in_dir:?}, where {free_mb} MB are free. Nothing was changed. Set TMPDIR to a directory with more room"
    )]
    NoRoom { path: PathBuf, in_dir: PathBuf, needed_mb: u64, free_mb: u64 },
    #[error("cannot copy {path:?} to {to:?}: {source}. Nothing was changed in it")]
    Io { path: PathBuf, to: PathBuf, source: io::Error },
}

/// Copies the store in `path` into a data directory of its own under TMPDIR. As much room again stays free, for whoever folds its
/// content anew.
pub fn copy(path: &Path) -> Result<TempDir, CopyError> {
    let in_dir = std::env::temp_dir();
    let failed = |to: &Path, source| CopyError::Io { path: path.to_owned(), to: to.to_owned(), source };
    let needed = size(path).map_err(|error| failed(&in_dir, error))? * 2;
    let room = rustix::fs::statvfs(&in_dir).map_err(|error| failed(&in_dir, error.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free < needed {
        let mb = |bytes: u64| bytes / 1_000_000;
        let (needed_mb, free_mb) = (mb(needed) + 1, mb(free));
        return Err(CopyError::NoRoom { path: path.to_owned(), in_dir, needed_mb, free_mb });
    }
    let copy =
        tempfile::Builder::new().prefix("fogpost-").tempdir().map_err(|error| failed(&in_dir, error))?;
    let store = copy.path().join(STORE);
    fs::create_dir(&store).and_then(|()| copy_files(path, &store)).map_err(|error| failed(&store, error))?;
    Ok(copy)
}

fn size(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        bytes += if kind.is_dir() { size(&entry.path())? } else { kind.len() };
    }
    Ok(bytes)
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
