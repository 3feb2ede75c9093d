//! Keeps the memory that a daemon occupies close to the memory that it uses.
//!
//! glibc gives each thread an arena of its own and keeps freed pieces below 32 MB in them. Pages are allocated and freed in sizes
//! that do not fit the freed pieces. When replaying 2.24 million events, the server peaked at 92 to 126 MB; with these settings
//! it peaked at 66 to 80 MB. A piece above the threshold is given back when it is freed: of 1,000 connections that sent 33 KB each, 50 to
//! 62 MB were left with a threshold of 64 KB after they had ended, and 24 MB are with 32 KB.
#![allow(unsafe_code, reason = "mallopt has no safe wrapper")]

/// To be called before the first thread starts. Does nothing with other C libraries.
pub fn keep_small() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes any values; it is called before other threads use the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 * 1024);
    }
}
