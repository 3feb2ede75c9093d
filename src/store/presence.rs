//! Checks whether the files of an open store are still where they were opened.
//!
//! **Promise.** A flush is not confirmed once the log has no name on disk, or once another store has its name: what was written
//! then would be gone, or forgotten, at the next start. The daemon ends with 1.
//! **Kept by.** The log and its directory are held open. After each flush two system calls check whether the log still has a
//! name, and whether its path still leads to it. The watchdog makes the same check while nothing is written.
//! **A directory that was only renamed** keeps its content, so the daemon continues in it, and says in the log and in `/readyz`
//! where it is now. Ending would be worse: a supervisor would start the daemon again, on a new and empty directory.
//! **Not promised.** That events which were confirmed before the directory was removed are kept.

use super::StoreError;
use super::sled_log::LOG_FILE;
use crate::codes;
use rustix::fs::{Stat, fstat, stat};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub(super) struct Presence {
    /// The store's directory, absolute: what a relative path means may change.
    path: PathBuf,
    /// Held open, so that no new file can get the same inode.
    log: File,
    /// The store's directory, and the data directory above it.
    directories: [File; 2],
    /// Where the directory is now, while it is not where it was opened.
    moved_to: Mutex<Option<PathBuf>>,
}

impl Presence {
    pub(super) fn of(path: &Path) -> io::Result<Presence> {
        let path = std::path::absolute(path)?;
        let log = File::open(path.join(LOG_FILE))?;
        let directories = [File::open(&path)?, File::open(path.parent().unwrap_or(&path))?];
        Ok(Presence { path, log, directories, moved_to: Mutex::new(None) })
    }

    /// An error once nothing may be confirmed any more.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.find().map(|moved_to| self.set_moved_to(moved_to))
    }

    pub(super) fn moved_to(&self) -> Option<PathBuf> {
        self.moved_to.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the directory is now, if it is not where it was opened. A disk that does not tell does not write either.
    fn find(&self) -> Result<Option<PathBuf>, StoreError> {
        let replaced = || StoreError::Replaced { path: self.path.clone(), now_at: self.path_now() };
        let Ok(log) = fstat(&self.log) else { return Ok(None) };
        if log.st_nlink == 0 {
            return Err(StoreError::Removed { path: self.path.clone() });
        }
        match stat(self.path.join(LOG_FILE)) {
            Ok(named) if is_same(&named, &log) => return Ok(None),
            Ok(_) => return Err(replaced()),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
            Err(_) => return Ok(None),
        }
        // A new directory under the old name is another one, although it is empty.
        let above = self.path.parent().unwrap_or(&self.path);
        for (path, opened) in [self.path.as_path(), above].into_iter().zip(&self.directories) {
            if let Ok(named) = stat(path) {
                match fstat(opened) {
                    Ok(opened) if is_same(&named, &opened) => break,
                    Ok(_) => return Err(replaced()),
                    Err(_) => return Ok(None),
                }
            }
        }
        Ok(Some(self.path_now()))
    }

    /// The kernel knows the name that an open file has now.
    fn path_now(&self) -> PathBuf {
        let link = format!("/proc/self/fd/{}", self.log.as_raw_fd());
        let log = std::fs::read_link(link).unwrap_or_else(|_| self.path.join(LOG_FILE));
        log.parent().map_or_else(|| self.path.clone(), Path::to_path_buf)
    }

    fn set_moved_to(&self, moved_to: Option<PathBuf>) {
        let mut known = self.moved_to.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == moved_to {
            return;
        }
        match &moved_to {
            Some(now_at) => tracing::error!(
                code = %codes::DATA_DIRECTORY_RENAMED,
                opened_at = %self.path.display(), now_at = %now_at.display(),
                hint = "rename it back, or start with the new name as --data-dir: the next start would begin with an empty store",
                "the store's directory was renamed while it is in use; events are taken and delivered as before"
            ),
            None => tracing::info!(path = %self.path.display(), "the store's directory has its name back"),
        }
        *known = moved_to;
    }
}

fn is_same(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}
