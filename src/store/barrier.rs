//! The write barrier: makes sled's flush reach the disk.
//!
//! **Promise.** When sled's `flush` returns `Ok`, the bytes survive a power cut.
//! **Kept by.** sled 0.34 ends every write of its log in `sync_file_range(2)`, which starts the writing of pages, but flushes
//! neither the metadata that makes them reachable nor the cache of the drive. A call of `fdatasync` *after* sled's flush is not
//! enough, because sled reuses segments of its file before that call. So this module defines the symbol `sync_file_range` itself.
//! Our definition comes before that of the C library when the program is linked; sled's own call then is a real barrier, at the
//! place where sled relies on it.
//! sled's own ticker calls `fsync` on the same file every 500 ms, and only logs an error. The kernel reports a failed write-back
//! once for each open file; if the ticker takes the report, the next flush would succeed over bytes that are not on the disk. So
//! `fsync` is defined here too: both calls take turns, and after one failed, all later ones fail.
//! **Checked by.** [`calls`]: a store that opens counts that its first flush came through here, and refuses to run otherwise;
//! `tests/confirming_ends_in_a_sync.rs` sees it in a trace of system calls.
//! **Not promised.** Anything against a disk that lies about having written.
#![allow(unsafe_code, reason = "a symbol that sled calls has to be defined for the linker")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

static CALLS: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicBool = AtomicBool::new(false);
/// Allows one sync at a time: no flush may succeed after another sync failed and before that failure is recorded.
static TURN: Mutex<()> = Mutex::new(());

/// The number of calls of the barrier since the process began.
pub fn calls() -> u64 {
    CALLS.load(Ordering::Acquire)
}

/// True once a sync has failed: all later ones fail too.
pub fn has_failed() -> bool {
    FAILED.load(Ordering::Acquire)
}

/// Takes the place of the C library's `sync_file_range`: waits until the data of the whole file, and the metadata needed to read
/// it, are on the disk. Returns 0, or -1 with `errno` set, as sled expects.
#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(
    fd: libc::c_int,
    _offset: libc::off64_t,
    _nbytes: libc::off64_t,
    _flags: libc::c_uint,
) -> libc::c_int {
    CALLS.fetch_add(1, Ordering::AcqRel);
    // The power-cut tests must be able to fail: with this feature, which no release has, flushes are what sled 0.34 ships.
    #[cfg(feature = "test-without-barrier")]
    // SAFETY: the kernel checks the arguments of a system call.
    return unsafe { libc::syscall(libc::SYS_sync_file_range, fd, _offset, _nbytes, _flags) } as libc::c_int;
    // SAFETY: `fdatasync` takes any integer; a bad descriptor is answered with EBADF.
    #[cfg(not(feature = "test-without-barrier"))]
    in_turn(|| unsafe { libc::fdatasync(fd) })
}

/// Takes the place of the C library's `fsync`, for sled's ticker; see the module.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: libc::c_int) -> libc::c_int {
    // SAFETY: the kernel checks the descriptor.
    in_turn(|| unsafe { libc::syscall(libc::SYS_fsync, fd) } as libc::c_int)
}

fn in_turn(sync: impl FnOnce() -> libc::c_int) -> libc::c_int {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if FAILED.load(Ordering::Acquire) {
        // SAFETY: the C library gives each thread a place for it that is valid while the thread lives.
        unsafe { *libc::__errno_location() = libc::EIO };
        return -1;
    }
    let result = sync();
    // Other errors are about the descriptor (a pipe cannot be synced) and lose nothing.
    let of_the_disk = [libc::EIO, libc::ENOSPC, libc::EDQUOT];
    let error = std::io::Error::last_os_error().raw_os_error();
    if result != 0 && error.is_some_and(|error| of_the_disk.contains(&error)) {
        FAILED.store(true, Ordering::Release);
    }
    result
}
