//! A data directory, held by one process.
//!
//! **Promise.** While a [`DataDir`] lives, no other process that uses [`DataDir`] holds the directory.
//! **Kept by.** An advisory lock of the kernel on `DIR/lock`, which ends with the process however it ends.
//! **Not promised.** Protection against programs that do not ask, or against filesystems without locks.

use super::{if_there, private, remove_if_there};
use crate::codes::{self, Code, Coded};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

pub const STORE: &str = "store";
const LOCK: &str = "lock";
/// How long to wait for the lock: longer than a process takes that only checks whether a directory is held.
const HELD_BY_A_LOOK: Duration = Duration::from_secs(1);

/// Why a data directory could not be held. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("the data directory {path:?} is in use by another process{}. Nothing was changed. Stop that process, or give this one a --data-dir of its own", .holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held { path: PathBuf, holder: Option<u32> },
    #[error(
        "cannot use the data directory {path:?}: {source}. Nothing stored was changed. It must be a directory that this user may write to, on a disk with room"
    )]
    Unusable { path: PathBuf, source: io::Error },
}

impl Coded for DirectoryError {
    fn code(&self) -> Code {
        match self {
            DirectoryError::Held { .. } => codes::DATA_DIRECTORY_IN_USE,
            DirectoryError::Unusable { .. } => codes::DATA_DIRECTORY_UNUSABLE,
        }
    }
}

/// A directory that this process holds for itself until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl Drop for DataDir {
    fn drop(&mut self) {
        private::hand_over(&self.path);
    }
}

impl DataDir {
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
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // A process that only checks holds the lock for a moment.
                Err(TryLockError::WouldBlock) if began.elapsed() < HELD_BY_A_LOOK => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => return Err(held(path, &lock)),
                Err(TryLockError::Error(source)) => return Err(unusable(source)),
            }
        }
        private::tighten(path);
        // Over what is there and as long as ever: on a full disk a file that was cut could not grow again.
        lock.rewind()
            .and_then(|()| lock.write_all(format!("{:<15}\n", std::process::id()).as_bytes()))
            .map_err(unusable)?;
        // The addresses of an earlier process are no longer valid.
        for stale in ["http.addr", "camera-http.addr", "listen.addr"] {
            remove_if_there(&path.join(stale)).map_err(unusable)?;
        }
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

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

/// A data directory that no process held when it was checked. The check blocks nobody: a daemon may start at any moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Idle {
    path: PathBuf,
    /// What the last holder wrote, and when; the next holder changes it. `None` for a directory that was never held: a backup.
    written: Option<(String, SystemTime)>,
}

impl Idle {
    pub fn look(path: &Path) -> Result<Idle, DirectoryError> {
        let unusable = |source| DirectoryError::Unusable { path: path.to_owned(), source };
        let Some(mut lock) = if_there(File::open(path.join(LOCK))).map_err(unusable)? else {
            return Ok(Idle { path: path.to_owned(), written: None });
        };
        match lock.try_lock_shared() {
            Ok(()) => lock.unlock().map_err(unusable)?,
            Err(TryLockError::WouldBlock) => return Err(held(path, &lock)),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let mut text = String::new();
        lock.read_to_string(&mut text).map_err(unusable)?;
        let changed = lock.metadata().and_then(|found| found.modified()).map_err(unusable)?;
        Ok(Idle { path: path.to_owned(), written: Some((text, changed)) })
    }

    /// Whether no process has held the directory since: if so, everything that was read meanwhile belongs to one state.
    pub fn is_still(&self) -> bool {
        Idle::look(&self.path).is_ok_and(|now| now == *self)
    }
}

fn held(path: &Path, lock: &File) -> DirectoryError {
    DirectoryError::Held { path: path.to_owned(), holder: holder_of(lock) }
}

/// Which process holds the lock, as the kernel reports it: the file may contain the id of a process that has ended. `None` where
/// the kernel does not say, as in some containers.
fn holder_of(lock: &File) -> Option<u32> {
    let inode = lock.metadata().ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // "1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF"; one who waits has "->" after the number.
    locks.lines().find_map(|line| {
        let [_, "FLOCK", _, _, pid, file, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let (_, its_inode) = file.rsplit_once(':')?;
        (its_inode == inode).then(|| pid.parse().ok()).flatten().filter(|pid| *pid > 0)
    })
}

/// The directory that names `path`.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Creates what is missing of a path, and syncs the parents: a power cut must not remove the directory of confirmed data.
fn create_and_sync(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    create_and_sync(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created?,
    }
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `edge outbox export | less` of a stopped edge once kept the edge from starting, and the message named a process that had ended.
    #[test]
    fn the_holder_that_is_named_is_the_one_that_holds() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::hold(dir.path()).unwrap();
        fs::write(dir.path().join(LOCK), "4000000000\n").unwrap();
        let Err(DirectoryError::Held { holder, .. }) = Idle::look(dir.path()) else { panic!("it is held") };
        assert_eq!(holder, Some(std::process::id()));
        drop(held);
        Idle::look(dir.path()).unwrap();
    }

    #[test]
    fn who_looks_keeps_nobody_out_and_knows_when_somebody_came() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::hold(dir.path()).unwrap());
        let idle = Idle::look(dir.path()).unwrap();
        assert!(idle.is_still());
        let held = DataDir::hold(dir.path()).unwrap();
        assert!(!idle.is_still(), "it is held");
        drop(held);
        assert!(!idle.is_still(), "it was held meanwhile");
        assert!(Idle::look(dir.path()).unwrap().is_still());
    }
}
