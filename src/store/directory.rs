//! A data directory, held by one process.
//!
//! **Promise.** While a [`DataDir`] lives, no other process that asks through it has the directory.
//! **Kept by.** An advisory lock of the kernel on `DIR/lock`, which ends with the process however it ends.
//! **Not promised.** Protection against programs that do not ask, or against filesystems without locks.

use super::private;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Where the store stands in a data directory.
pub const STORE: &str = "store";
/// What is locked in a data directory.
pub(super) const LOCK: &str = "lock";

/// Why a data directory is not ours. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("the data directory {path:?} is in use by another process{}. Nothing was changed. Stop that process, or give this one a --data-dir of its own", .holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held { path: PathBuf, holder: Option<u32> },
    #[error(
        "cannot use the data directory {path:?}: {source}. Nothing stored was changed. It must be a directory that this user may write to, on a disk with room"
    )]
    Unusable { path: PathBuf, source: io::Error },
}

/// A directory that this process holds for itself until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
    may_write: bool,
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.may_write {
            private::hand_over(&self.path);
        }
    }
}

impl DataDir {
    /// Creates the directory when it is missing, and holds it.
    pub fn hold(path: &Path) -> Result<DataDir, DirectoryError> {
        let unusable = |source| DirectoryError::Unusable { path: path.to_owned(), source };
        create_and_sync(path).map_err(unusable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The number is for the reader of the message only; the lock is what counts.
                let _ = lock.read_to_string(&mut holder);
                return Err(DirectoryError::Held {
                    path: path.to_owned(),
                    holder: holder.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        private::tighten(path);
        // Over what is there and as long as ever: on a full disk a file that was cut could not grow again.
        lock.rewind()
            .and_then(|()| lock.write_all(format!("{:<15}\n", std::process::id()).as_bytes()))
            .map_err(unusable)?;
        // What an earlier life told is not true any more.
        for stale in ["http.addr", "listen.addr"] {
            match fs::remove_file(path.join(stale)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
                _ => {}
            }
        }
        Ok(DataDir { path: path.to_owned(), _lock: lock, may_write: true })
    }

    /// Holds the directory against every daemon, and changes nothing in it: several may read at once.
    pub fn hold_to_read(path: &Path) -> Result<DataDir, DirectoryError> {
        let unusable = |source| DirectoryError::Unusable { path: path.to_owned(), source };
        let mut lock = match File::open(path.join(LOCK)) {
            // Every daemon makes one: a directory without is a backup, or of nobody.
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(path).map_err(unusable)?,
            opened => opened.map_err(unusable)?,
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(DataDir { path: path.to_owned(), _lock: lock, may_write: false }),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                Err(DirectoryError::Held { path: path.to_owned(), holder: holder.trim().parse().ok() })
            }
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store stands in a data directory.
    pub fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Writes a small file that other programs read, whole or not at all.
    pub fn publish(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), DirectoryError> {
        let written = || -> io::Result<()> {
            // One name for all tries: what a crash leaves behind is written over.
            let new = self.path.join(format!("{name}.new"));
            fs::write(&new, content.as_ref())?;
            fs::rename(&new, self.path.join(name))
        };
        written().map_err(|source| DirectoryError::Unusable { path: self.path.join(name), source })
    }
}

/// Creates what is missing of a path, and syncs the directories that got a new entry: a power cut must not take away the
/// directory under what was confirmed.
fn create_and_sync(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_and_sync(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created?,
    }
    File::open(parent)?.sync_all()
}
