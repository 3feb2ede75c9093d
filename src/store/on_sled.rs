//! [`Backend`] on sled 0.34.7, with what we measured about it.

use super::room::DiskRoom;
use super::runway::Runway;
use super::sled_log::{LOG_FILE, SEGMENT_BYTES};
use super::{Backend, Entries, Entry, StoreOpenError, Write, barrier};
use crate::codes;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// How much of the store sled keeps in memory. Its default is 1 GB.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// sled looks whether its cache is too large only when 64 accesses have gathered in one of 256 shards, and a walk counts one
/// access for a whole leaf. Walking through 263 MB thus kept 16,384 leaves, 200 MB, whatever the cache's size. So a walk
/// accesses what it reads once more after a number of bytes, which keeps at most 16 MB beyond the cache.
const BYTES_FOR_AN_ACCESS: usize = 1024;
/// After a batch of as many writes the operations that come anyway free what it replaced.
const FREED_BY_LATER_OPERATIONS: usize = 500;
/// A store that this process closed a moment ago is locked until sled's last thread has released it, which nothing signals.
const UNLOCKED_WITHIN: Duration = Duration::from_secs(5);
/// sled's collector of free segments runs only on this tick.
const TICK_MS: u64 = 500;

pub(super) struct OnSled {
    db: sled::Db,
    /// Shares with `db` what went wrong in sled's threads.
    config: sled::Config,
    runway: Runway,
}

impl OnSled {
    pub(super) fn open(path: &Path, room: &DiskRoom) -> Result<OnSled, StoreOpenError> {
        let io_error = |source| StoreOpenError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(io_error)?;
        remove_half_made_snapshots(path).map_err(io_error)?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(Some(TICK_MS));
        let damaged = |reason| StoreOpenError::Damaged { path: path.to_owned(), reason };
        let began = Instant::now();
        let db = loop {
            // sled panics on some kinds of damage. Nothing of ours is shared with it yet, so nothing is left half changed.
            match catch_unwind(AssertUnwindSafe(|| config.open())) {
                Ok(Ok(db)) => break db,
                Ok(Err(sled::Error::Io(error)))
                    if error.to_string().starts_with("could not acquire lock")
                        && began.elapsed() < UNLOCKED_WITHIN =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(Err(sled::Error::Io(source))) => return Err(io_error(in_words(source))),
                Ok(Err(error)) => return Err(damaged(error.to_string())),
                Err(panic) => return Err(damaged(panic_text(&*panic))),
            }
        };
        let runway = Runway::ahead_of(&path.join(LOG_FILE), room.clone()).map_err(io_error)?;
        // What recovery read may sit in the page cache only: a crash of the process before had not
        // synced it. Nothing may be confirmed on top of bytes that a power cut would take away.
        sync_tree(path).map_err(io_error)?;
        Ok(OnSled { db, config, runway })
    }

    /// Tells what went wrong in sled's threads, if something did. This reference does not keep the store open.
    pub(super) fn failures(&self) -> impl Fn() -> Option<String> + Send + 'static {
        let config = self.config.clone();
        move || match config.global_error() {
            Err(error) => Some(disk(error).to_string()),
            Ok(()) => barrier::has_failed().then(|| "a sync failed".to_owned()),
        }
    }
}

impl OnSled {
    /// sled frees what its operations replace a few pieces at a time, while later operations begin, and a batch counts as one: batches
    /// of more than 1,000 writes replaced more than was ever freed. So some operations follow a large one.
    fn free_what_was_replaced(&self, writes: &[Write<'_>]) {
        let Some((key, _)) = writes.first() else { return };
        for _ in FREED_BY_LATER_OPERATIONS..writes.len() {
            // Only that an operation begins counts: one key stays in the processor's cache.
            let _ = guarded(|| self.db.contains_key(key).map_err(disk));
        }
    }
}

impl Backend for OnSled {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let value = guarded(|| self.db.get(key).map_err(disk))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn apply(&self, writes: &[Write<'_>]) -> io::Result<()> {
        // A flush after a single write is one sync, after a batch it is two.
        if let [(key, value)] = writes {
            return match *value {
                Some(value) => self.db.insert(key, value).map(drop).map_err(disk),
                None => self.db.remove(key).map(drop).map_err(disk),
            };
        }
        let mut sled_batch = sled::Batch::default();
        for (key, value) in writes {
            match *value {
                Some(value) => sled_batch.insert(*key, value),
                None => sled_batch.remove(*key),
            }
        }
        self.db.apply_batch(sled_batch).map_err(disk)?;
        self.free_what_was_replaced(writes);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let written = self.db.flush().map_err(disk)?;
        self.runway.used(written)
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Entries<'a> {
        if from >= to {
            return Box::new(std::iter::empty()); // sled panics on an inverted range
        }
        let (mut entries, mut read) = (self.db.range(from..to), 0);
        Box::new(std::iter::from_fn(move || {
            let entry = guarded(|| {
                let entry = entries.next().transpose().map_err(disk)?;
                if let Some((key, value)) = &entry {
                    read += value.len();
                    while read >= BYTES_FOR_AN_ACCESS {
                        read -= BYTES_FOR_AN_ACCESS;
                        // Only that it is accessed counts; whether it can be read was found out above.
                        let _ = self.db.contains_key(key);
                    }
                }
                Ok(entry)
            });
            Some(entry.transpose()?.map(|(key, value)| (key.to_vec(), value.to_vec())))
        }))
    }

    fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Entry>> {
        if from >= to {
            return Ok(None);
        }
        let entry = guarded(|| self.db.range(from..to).next_back().transpose().map_err(disk))?;
        Ok(entry.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }
}

/// sled panics on some kinds of damage that it meets while it reads. What it reads through is shared, and stays as it is.
fn guarded<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|panic| Err(io::Error::new(io::ErrorKind::InvalidData, panic_text(&*panic))))
}

pub(super) fn disk(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => in_words(error),
        // A part of the log, with all keys in it; the rest can be read.
        damaged @ sled::Error::Corruption { .. } => io::Error::new(io::ErrorKind::InvalidData, damaged),
        other => io::Error::other(other),
    }
}

/// sled keeps the error of its threads as its debug text, `Os { code: 28, …`, which is no text for people.
fn in_words(error: io::Error) -> io::Error {
    let text = error.to_string();
    let code = text.strip_prefix("Os { code: ").and_then(|rest| rest.split(',').next()?.parse().ok());
    code.map_or(error, io::Error::from_raw_os_error)
}

/// A crash while sled writes its snapshot leaves `snap.*.generating`, and every later open fails on it. It
/// is not needed: a snapshot is a shortcut for recovery and counts only under its final name.
fn remove_half_made_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(
                code = %codes::SNAPSHOT_REMOVED,
                file = %entry.path().display(),
                hint = "nothing to do: nothing was lost",
                "removed an unfinished snapshot that a crash left"
            );
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Syncs every file below `path`, every directory, and the parent that names `path`.
pub(super) fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(path)?.sync_all()?;
    if let Some(parent) = path.canonicalize()?.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("sled panicked without a reason").to_owned()
}
