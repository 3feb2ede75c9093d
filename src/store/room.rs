//! Disk space: what is left, what is kept free, and the ballast.
//!
//! **Promise.** A daemon that asks [`DiskRoom::check`] before it takes something new never fills the disk by itself: what is
//! needed to deliver, to delete and to open again stays free. When something else fills the disk to the last byte, the
//! next opening still finds room: it gives up the ballast.
//! **Kept by.** The reserve: 5 % of the filesystem, between 4 and 64 MB, or what the operator set. And the ballast: a file of
//! [`BALLAST_BYTES`] in the data directory, really written, created when there is room and deleted first.
//! **Not promised.** Protection against a program that uses the space freed by the ballast before we can: then opening
//! fails and says so, and the next try may succeed.
//!
//! A store never gives room back while it is open, but uses again what was deleted in it. So a full disk that only holds a
//! large, empty store takes new values again: see [`DiskRoom::check_inside`].

use crate::codes;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::directory::STORE;
use super::{sled_log, watchdog};

pub const BALLAST_BYTES: u64 = 4 << 20;
/// The maximum that is kept free by default.
const RESERVE_MOST: u64 = 64 << 20;
/// The part of a small filesystem that is kept free.
const RESERVE_PART: u64 = 20;
/// With less than this left, the ballast is deleted before opening begins: opening writes a snapshot (sled) and a note (ours).
pub(super) const OPENING_NEEDS: u64 = 2 << 20;
/// The minimum that is kept free by default: what is written after the last check must leave what the next opening needs, or it
/// gives up the ballast though nothing else filled the disk.
const RESERVE_LEAST: u64 = 2 * OPENING_NEEDS;
/// For how long a reading of the free space is reused: little is written meanwhile, and a reading costs a system call.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What is written for a value, at most and for a while: it comes with the nodes of the tree that it changes.
pub const WRITTEN_FOR_VALUES: u64 = 2;
/// How often it is checked whether the ballast can be created again.
const LAY_AGAIN_EVERY: Duration = Duration::from_secs(1);
/// Room beyond the ballast before it is created, so that two daemons on one disk do not take it from each other.
const LAY_WITH: u64 = 1 << 20;
/// sled begins to rewrite a segment when less than half of it is in use, and some are always on the way.
const STORE_TO_VALUES: u64 = 3;
const STORE_ON_THE_WAY: u64 = 8 << 20;
/// A store that uses its own free segments may be misjudged and grow a little. When less than this part of the reserve is there
/// for that, it must be twice as empty.
const INSIDE_PART: u64 = 4;

const BALLAST: &str = "ballast";
const BALLAST_NEW: &str = "ballast.new";

/// What is left on the disk of a data directory. Cloning shares it. It costs next to nothing to ask.
#[derive(Debug, Clone)]
pub struct DiskRoom(Arc<RoomState>);

#[derive(Debug)]
struct RoomState {
    dir: PathBuf,
    reserve: Option<u64>,
    has_ballast: AtomicBool,
    recent: Mutex<Option<(Instant, Look)>>,
}

/// What is left on the disk, its size, and the length of the store's file, in bytes.
#[derive(Debug, Clone, Copy)]
struct Look {
    left: u64,
    total: u64,
    store: u64,
}

impl DiskRoom {
    pub(super) fn has_left(&self, bytes: u64) -> bool {
        self.look().left >= bytes
    }

    pub(super) fn of(dir: &Path, reserve: Option<u64>) -> DiskRoom {
        // Left by a crash.
        let _ = fs::remove_file(dir.join(BALLAST_NEW));
        DiskRoom(Arc::new(RoomState {
            dir: dir.to_owned(),
            reserve,
            has_ballast: AtomicBool::new(dir.join(BALLAST).exists()),
            recent: Mutex::default(),
        }))
    }

    /// What is kept free: below it nothing new is taken.
    pub fn reserve(&self) -> u64 {
        self.reserve_of(self.recent().total)
    }

    fn reserve_of(&self, total: u64) -> u64 {
        self.0.reserve.unwrap_or_else(|| (total / RESERVE_PART).clamp(RESERVE_LEAST, RESERVE_MOST))
    }

    pub fn store_bytes(&self) -> u64 {
        self.recent().store
    }

    /// Whether `bytes` more may be written ([`WRITTEN_FOR_VALUES`]); if not, why, in words for people.
    pub fn check(&self, bytes: u64) -> Result<(), String> {
        self.check_values(bytes, None)
    }

    /// Whether values of `coming` bytes may be added to a store that deletes, and whose values take `stored` bytes now: what was
    /// deleted in it is used again, though its file does not get shorter.
    pub fn check_inside(&self, stored: u64, coming: u64) -> Result<(), String> {
        self.check_values(coming.saturating_mul(WRITTEN_FOR_VALUES), Some(stored.saturating_add(coming)))
    }

    fn check_values(&self, bytes: u64, values: Option<u64>) -> Result<(), String> {
        let look = self.recent();
        let reserve = self.reserve_of(look.total);
        let missing_ballast = if self.0.has_ballast.load(Ordering::Relaxed) { 0 } else { BALLAST_BYTES };
        judge(look, reserve, missing_ballast, bytes, values)
    }

    fn recent(&self) -> Look {
        let recent = || self.0.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let last = *recent();
        match last {
            Some((at, look)) if at.elapsed() < LOOK_EVERY => look,
            _ => {
                let look = self.look();
                *recent() = Some((Instant::now(), look));
                look
            }
        }
    }

    fn look(&self) -> Look {
        let dir = &self.0.dir;
        // One that does not say counts as a disk with room: a write will show the truth.
        let (left, total) = space(dir).unwrap_or((u64::MAX, u64::MAX));
        let store = fs::metadata(dir.join(STORE).join(sled_log::LOG_FILE)).map_or(0, |file| file.len());
        Look { left, total, store }
    }

    /// Deletes the ballast. Returns whether there was one.
    pub(super) fn give_up_ballast(&self) -> bool {
        if !self.0.has_ballast.swap(false, Ordering::Relaxed) {
            return false;
        }
        match fs::remove_file(self.0.dir.join(BALLAST)) {
            Ok(()) => {
                tracing::warn!(
                    code = %codes::BALLAST_GIVEN_UP,
                    data_dir = %self.0.dir.display(),
                    hint = "make room on the disk; the ballast is then created again",
                    "the disk is full: the ballast is given up, so that what is stored can be opened and delivered"
                );
                true
            }
            Err(error) => {
                tracing::warn!(
                    code = %codes::BALLAST_STUCK,
                    %error,
                    hint = "make room on the disk",
                    "the disk is full, and the ballast cannot be given up"
                );
                false
            }
        }
    }

    /// Starts a thread that creates the ballast whenever it is missing, until the last user of the room is gone.
    pub(super) fn keep_ballast(&self) -> io::Result<()> {
        let room = Arc::downgrade(&self.0);
        watchdog::start_thread("ballast", move || {
            while let Some(shared) = room.upgrade() {
                DiskRoom(shared).lay_ballast();
                std::thread::sleep(LAY_AGAIN_EVERY);
            }
        })
    }

    fn lay_ballast(&self) {
        if self.0.has_ballast.load(Ordering::Relaxed) || self.check(LAY_WITH).is_err() {
            return;
        }
        let (new, path) = (self.0.dir.join(BALLAST_NEW), self.0.dir.join(BALLAST));
        let laid = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&vec![0; BALLAST_BYTES as usize])?;
            // Not by the C library's name for it, which is our barrier: what becomes of zeros says nothing about events.
            rustix::fs::fdatasync(&file)?;
            fs::rename(&new, &path)
        };
        match laid() {
            Ok(()) => self.0.has_ballast.store(true, Ordering::Relaxed),
            Err(error) => {
                let _ = fs::remove_file(&new);
                tracing::debug!(%error, "the ballast file was not created; the daemon tries again later");
            }
        }
    }
}

/// The free bytes of the disk of a directory, and all of them; `None` when it does not say.
pub fn space(dir: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some((found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize))
}

/// `values`: the bytes that the values of a store that deletes will take.
fn judge(
    look: Look,
    reserve: u64,
    missing_ballast: u64,
    bytes: u64,
    values: Option<u64>,
) -> Result<(), String> {
    let kept = reserve.saturating_add(missing_ballast);
    if look.left.saturating_sub(bytes) >= kept {
        return Ok(());
    }
    if let Some(values) = values {
        let sure = if look.left >= reserve / INSIDE_PART { 1 } else { 2 };
        let taken = values.saturating_mul(STORE_TO_VALUES).saturating_add(STORE_ON_THE_WAY);
        if taken.saturating_mul(sure) <= look.store {
            return Ok(());
        }
    }
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let takes = match look.left >= kept {
        true => format!(", this takes up to {}", megabytes(bytes)),
        false => String::new(),
    };
    Err(format!(
        "the disk has {} left{takes}, and {} are kept free for delivering and for starting again",
        megabytes(look.left),
        megabytes(kept)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn short(left: u64, store: u64, ballast: u64, bytes: u64, values: Option<u64>) -> bool {
        let look = Look { left, total: 64 * MB, store };
        judge(look, 3 * MB, ballast, bytes, values).is_err()
    }

    #[test]
    fn the_reserve_is_kept_and_the_ballast_that_is_missing() {
        assert!(!short(3 * MB, 0, 0, 0, None));
        assert!(short(3 * MB - 1, 0, 0, 0, None));
        assert!(short(4 * MB, 0, 0, MB + 1, None), "what comes is counted");
        assert!(short(6 * MB, 0, 4 * MB, 0, None));
        assert!(!short(7 * MB, 0, 4 * MB, 0, None));
    }

    #[test]
    fn a_large_and_empty_store_has_room_inside() {
        assert!(!short(MB, 50 * MB, 0, 0, Some(10 * MB)));
        assert!(short(MB, 50 * MB, 0, 0, Some(20 * MB)), "what is stored leaves nothing");
        assert!(short(0, 50 * MB, 0, 0, Some(10 * MB)), "nothing is left for what was misjudged");
        assert!(!short(0, 50 * MB, 0, 0, Some(MB)), "it is almost empty");
        assert!(short(MB, 50 * MB, 0, 0, None), "this store never deletes");
        assert!(!short(MB, 50 * MB, 4 * MB, 0, Some(MB)), "the ballast is laid when others make room");
    }

    #[test]
    fn opening_lays_the_ballast_and_a_full_disk_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = dir.path().join(BALLAST);
        std::fs::write(dir.path().join(BALLAST_NEW), b"left by a crash").unwrap();
        let room = DiskRoom::of(dir.path(), None);
        assert!(!dir.path().join(BALLAST_NEW).exists());
        assert!(!room.give_up_ballast(), "there is none");
        room.lay_ballast();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&ballast).unwrap());
        assert!(blocks * 512 >= BALLAST_BYTES, "its blocks are really taken");
        assert!(DiskRoom::of(dir.path(), None).give_up_ballast());
        assert!(!ballast.exists());
    }

    #[test]
    fn a_reserve_that_was_set_is_kept_and_the_refusal_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let why = DiskRoom::of(dir.path(), Some(u64::MAX / 4)).check(0).unwrap_err();
        assert!(why.contains("MB left") && why.contains("kept free"), "{why}");
        DiskRoom::of(dir.path(), Some(0)).check(0).unwrap();
    }
}
