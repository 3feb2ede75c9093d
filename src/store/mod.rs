//! sled, made safe enough to be trusted with money.
//!
//! **Promise.** Once [`Store::flush`] returns `Ok`, everything written before survives `kill -9` and a power cut. Writes that were
//! not flushed survive as a prefix of the order in which they were made, or not at all; a [`Batch`] survives whole or not at all.
//! **Kept by.** The measures below, each with the measurement that asked for it in `ARCHITECTURE.md`, "What sled needs":
//!
//! * sled's flush is made a real barrier ([`barrier`]), and opening checks that it is in use;
//! * no value is longer than [`VALUE_MAX`], no batch than [`BATCH_MAX`];
//! * left-overs of a crash during opening are removed before sled sees them;
//! * after opening, every file, the directory and its parent are synced before anything is confirmed;
//! * an operation that does not return, and a failure that no operation noticed, end the process (`watchdog`);
//! * room is kept for deleting and for opening ([`room`]);
//! * a failed write or flush poisons the store: nothing is accepted until the process starts again;
//! * a flush fails once the store's files have no name on disk, or another store has it ([`presence`]);
//! * panics of sled's open become errors; sizes are set explicitly; the format has a version.
//!
//! **Not promised.** Protection against a disk that lies; that the file shrinks while it is open.
//!
//! Tests own the disk: below a [`Store`] stands a [`Backend`], which is sled in every program, and in tests a simulated disk with
//! power cuts between any two steps.

pub mod barrier;
pub mod copy;
pub mod directory;
mod frame;
mod framed;
pub mod high_water;
mod marker;
mod on_sled;
mod opening;
mod presence;
pub mod private;
pub mod room;
mod runway;
pub mod salvage;
pub mod scratch;
#[cfg(test)]
#[path = "tests/simulated.rs"]
pub mod simulated;
mod sled_log;
mod unframed;
mod watchdog;

use crate::codes::{self, Code, Coded};
use presence::Presence;
use room::DiskRoom;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;
use watchdog::Watchdog;

/// The longest value that is stored, in bytes.
///
/// sled 0.34 writes a leaf above a quarter of its segment into a file of its own under `blobs/`, and never syncs that file; a lost
/// one makes opening panic.
pub const VALUE_MAX: usize = 6 * 1024;

/// Maximum number of writes in one [`Batch`]. sled frees nothing that a batch replaces before its end.
pub const BATCH_MAX: usize = 1_800;

const PUT_AT_ONCE: usize = 256;

/// The version of the layout of keys and values that this program writes.
pub const FORMAT: u32 = 3;

pub type Entry = (Vec<u8>, Vec<u8>);

/// In ascending order of their keys.
pub type Entries<'a> = Box<dyn Iterator<Item = io::Result<Entry>> + 'a>;

/// The program that a store belongs to. A store of one program is refused by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Edge,
    Server,
    /// For users of `messaging` alone, such as `examples/meter.rs`.
    Other(&'static str),
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Edge => "edge",
            Purpose::Server => "server",
            Purpose::Other(name) => name,
        })
    }
}

/// Why a store did not open. In no case was confirmed data on the disk changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    #[error(
        "cannot use {path:?}: {source}. Nothing stored was changed. Check that the disk is there and has room, and that this user may write to it, then start again"
    )]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the store in {path:?} cannot be read: {reason}. Nothing was deleted. Keep a copy of the directory before anything else; then start again, or restore a backup"
    )]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "the store in {path:?} has format {found}, this program knows formats up to {FORMAT}. Nothing was changed. Run the newer version of fogpost that wrote it"
    )]
    NewerFormat { path: PathBuf, found: u32 },
    #[error(
        "the store in {path:?} has format {found}, which was never released; this program knows format {FORMAT}. Nothing was changed. Deliver what it holds with the program that wrote it"
    )]
    OlderFormat { path: PathBuf, found: u32 },
    #[error(
        "the store in {path:?} belongs to {found:?}, not to {wanted:?}. Nothing was changed. Give this program a --data-dir of its own"
    )]
    OtherPurpose { path: PathBuf, found: String, wanted: String },
    #[error(
        "the store in {path:?} is damaged, and building a new one from what can be read of it failed: {source}. The damaged one was not changed. Make room on the disk, then start again"
    )]
    Salvage { path: PathBuf, source: Box<StoreError> },
    #[error(
        "this build's flushes do not pass through the write barrier, so they would not survive a power cut. Nothing was accepted. Build fogpost as its README says"
    )]
    NoBarrier,
}

impl Coded for StoreOpenError {
    fn code(&self) -> Code {
        match self {
            StoreOpenError::Io { .. } => codes::STORE_UNUSABLE,
            StoreOpenError::Damaged { .. } => codes::STORE_DAMAGED,
            StoreOpenError::NewerFormat { .. } => codes::STORE_FORMAT_NEWER,
            StoreOpenError::OlderFormat { .. } => codes::STORE_FORMAT_UNRELEASED,
            StoreOpenError::OtherPurpose { .. } => codes::STORE_OF_OTHER_PROGRAM,
            StoreOpenError::Salvage { .. } => codes::SALVAGE_FAILED,
            StoreOpenError::NoBarrier => codes::NO_WRITE_BARRIER,
        }
    }
}

/// Why a read or write did not happen. After `Disk`, `Removed` and `Replaced` the store is poisoned.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("a value of {bytes} bytes is above the store's limit of {VALUE_MAX}; nothing was written")]
    ValueTooLong { bytes: usize },
    #[error("a batch of {writes} writes is above the store's limit of {BATCH_MAX}; nothing was written")]
    BatchTooLong { writes: usize },
    /// An earlier write or flush failed, so what the disk holds is unknown until the store is opened again.
    #[error("{failure} That happened earlier; nothing more is written until the process is started again")]
    Poisoned { failure: Arc<str> },
    #[error(
        "the disk failed: {0}. What was confirmed is kept; what was being written may or may not be. Free some room or replace the disk, then start the process again"
    )]
    Disk(#[source] io::Error),
    #[error(
        "the store {path:?} was removed from the disk while this process used it. Nothing is confirmed any more, and what was confirmed before is lost with the removed files. Find out what removes them, put a backup there if there is one, then start the process again; without a backup it begins an empty store"
    )]
    Removed { path: PathBuf },
    #[error(
        "another directory or file has taken the place of the store {path:?} while this process used it. Nothing is confirmed any more; what was confirmed before is in {now_at:?}. Put the right one of the two there, then start the process again"
    )]
    Replaced { path: PathBuf, now_at: PathBuf },
    /// What was read is not what was written, or cannot be read for that reason. Other parts may be sound.
    #[error(
        "the store holds something unreadable at {place}: {reason}. Nothing was deleted; keep a copy of the directory"
    )]
    Damaged { place: String, reason: String },
}

impl Coded for StoreError {
    fn code(&self) -> Code {
        match self {
            StoreError::ValueTooLong { .. } | StoreError::BatchTooLong { .. } => codes::STORE_LIMIT_EXCEEDED,
            StoreError::Poisoned { .. } | StoreError::Disk(_) => codes::DISK_FAILED,
            StoreError::Removed { .. } => codes::DATA_DIRECTORY_REMOVED,
            StoreError::Replaced { .. } => codes::DATA_DIRECTORY_REPLACED,
            StoreError::Damaged { .. } => codes::STORE_PARTLY_UNREADABLE,
        }
    }
}

/// The storage below a [`Store`]: an ordered map of bytes whose writes become durable in order. Errors are those of the disk.
pub trait Backend: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;
    /// Makes all writes or none, also through a power cut.
    fn apply(&self, writes: &[Write<'_>]) -> io::Result<()>;
    /// Returns once every write made before is durable.
    fn flush(&self) -> io::Result<()>;
    /// Ascending, from `from` (inclusive) to `to` (exclusive).
    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> Entries<'a>;
    /// The last entry from `from` (inclusive) to `to` (exclusive).
    fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<Entry>>;
}

/// A key and its new value, or `None` for a removal.
pub type Write<'a> = (&'a [u8], Option<&'a [u8]>);

/// Writes that survive together or not at all. At most [`BATCH_MAX`].
#[derive(Debug, Default, Clone)]
pub struct Batch {
    writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push((key.into(), Some(value.into())));
    }
    pub fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.writes.push((key.into(), None));
    }
    pub fn len(&self) -> usize {
        self.writes.len()
    }
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
    /// In the order in which they were added.
    pub fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        self.writes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }
}

/// A durable ordered map of bytes. Cloning shares it. Its calls block: keep them off async threads.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    /// The reason for the failure, once something failed.
    poisoned: Arc<OnceLock<Arc<str>>>,
    /// Whether a part of it could not be read.
    unreadable: Arc<watch::Sender<bool>>,
    /// Present for stores of sled. The last field: it is dropped after sled is closed.
    files: Option<Arc<StoreFiles>>,
}

/// What a store on a real disk needs: a simulated disk always answers, and has no name.
struct StoreFiles {
    path: PathBuf,
    watchdog: Arc<Watchdog>,
    presence: Arc<Presence>,
    poisoned: Arc<OnceLock<Arc<str>>>,
}

impl Drop for StoreFiles {
    fn drop(&mut self) {
        if self.poisoned.get().is_none() && self.path.exists() {
            // Without it the next opening is only less certain of what it sees.
            let _ = marker::closed(&self.path);
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store {{ poisoned: {:?} }}", self.poisoned.get())
    }
}

impl Store {
    /// Opens or creates the store in `path`. When this returns `Ok`, all that the store shows is durable.
    ///
    /// The caller must hold the directory ([`directory::DataDir`]). Daemons use [`salvage::open_store`], which succeeds on a full disk
    /// and with a damaged store too.
    pub fn open(path: &Path, purpose: Purpose) -> Result<Store, StoreOpenError> {
        Store::open_after(path, purpose, &DiskRoom::of(path, None), 0)
    }

    pub fn on(backend: impl Backend) -> Store {
        Store {
            backend: Arc::new(backend),
            poisoned: Arc::default(),
            unreadable: Arc::new(watch::Sender::new(false)),
            files: None,
        }
    }

    /// The value under `key`, flushed or not.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let _watched = self.watch();
        self.backend.get(key).map_err(|error| self.failed(error))
    }

    /// Writes one value. Durable after the next [`Store::flush`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.apply_writes(&[(key, Some(value))])
    }

    /// Removes one key. Durable after the next [`Store::flush`].
    pub fn remove(&self, key: &[u8]) -> Result<(), StoreError> {
        self.apply_writes(&[(key, None)])
    }

    /// Makes all writes of `batch`, or none. Durable after the next [`Store::flush`].
    pub fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.apply_writes(&batch.writes().collect::<Vec<_>>())
    }

    fn apply_writes(&self, writes: &[Write<'_>]) -> Result<(), StoreError> {
        if writes.len() > BATCH_MAX {
            return Err(StoreError::BatchTooLong { writes: writes.len() });
        }
        let longest = writes.iter().filter_map(|(_, value)| *value).map(<[u8]>::len).max();
        if let Some(bytes) = longest.filter(|bytes| *bytes > VALUE_MAX) {
            return Err(StoreError::ValueTooLong { bytes });
        }
        self.write(|| self.backend.apply(writes))
    }

    /// Writes many values in batches. Each but the last is flushed: sled is faster than a busy disk, and keeps writes in memory.
    pub fn put_all(
        &self,
        entries: impl Iterator<Item = Result<Entry, StoreError>>,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for entry in entries {
            let (key, value) = entry?;
            batch.put(key, value);
            if batch.len() == PUT_AT_ONCE {
                self.apply(&std::mem::take(&mut batch))?;
                self.flush()?;
            }
        }
        if batch.is_empty() { Ok(()) } else { self.apply(&batch) }
    }

    /// Returns once every write made before this call is on the disk, in files that still have their name.
    ///
    /// On `Err` the content of the disk is unknown, and the store accepts nothing more: the process should end.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.write(|| self.backend.flush())?;
        self.check_in_place()
    }

    /// Fails once the store's files have lost their name. Call it before confirming something that is on the disk already and
    /// needs no flush. It costs two system calls.
    pub fn check_in_place(&self) -> Result<(), StoreError> {
        let Some(files) = &self.files else { return Ok(()) };
        files.presence.check().inspect_err(|error| self.poison(error))
    }

    /// Where the store's directory is now, if it was renamed since it was opened. The store continues to work.
    pub fn moved_to(&self) -> Option<PathBuf> {
        self.files.as_ref()?.presence.moved_to()
    }

    /// All entries from `from` (inclusive) to `to` (exclusive), ascending.
    pub fn range<'a>(
        &'a self,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = Result<Entry, StoreError>> + use<'a> {
        let mut entries = self.backend.range(from, to);
        std::iter::from_fn(move || {
            let _watched = self.watch();
            entries.next().map(|entry| entry.map_err(|error| self.failed(error)))
        })
    }

    /// The last entry from `from` (inclusive) to `to` (exclusive).
    pub fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<Entry>, StoreError> {
        let _watched = self.watch();
        self.backend.last(from, to).map_err(|error| self.failed(error))
    }

    /// Starts a disk operation that the watchdog times until the returned value is dropped.
    fn watch(&self) -> Option<watchdog::RunningOperation<'_>> {
        self.files.as_ref().map(|files| files.watchdog.begin())
    }

    fn write<T>(&self, action: impl FnOnce() -> io::Result<T>) -> Result<T, StoreError> {
        if let Some(failure) = self.poisoned.get() {
            return Err(StoreError::Poisoned { failure: Arc::clone(failure) });
        }
        let _watched = self.watch();
        action().map_err(|error| {
            if let Some(files) = &self.files {
                marker::a_write_failed(&files.path);
            }
            let error = self.failed(error);
            self.poison(&error);
            error
        })
    }

    fn poison(&self, error: &StoreError) {
        self.poisoned.get_or_init(|| format!("{error}.").into());
    }

    /// Turns true permanently when a part of the store could not be read. It can be salvaged then ([`salvage::request`]).
    pub fn unreadable(&self) -> watch::Receiver<bool> {
        self.unreadable.subscribe()
    }

    /// What is read contradicts itself, although each value is sound: the index of the store is damaged.
    pub fn contradicts_itself(&self) {
        self.unreadable.send_replace(true);
    }

    /// Distinguishes a damaged part of the store, where everything else can still be read, from a disk that fails.
    fn failed(&self, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::InvalidData => {
                self.unreadable.send_replace(true);
                StoreError::Damaged { place: "a part of its log".into(), reason: error.to_string() }
            }
            _ => StoreError::Disk(error),
        }
    }
}

/// What was found under a path; `None` when there is nothing.
pub fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

pub fn remove_if_there(path: &Path) -> io::Result<()> {
    if_there(std::fs::remove_file(path)).map(drop)
}

#[cfg(test)]
mod tests;
