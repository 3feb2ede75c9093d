//! A disk whose power can be cut.
//!
//! An image of 256 MB with ext4 in it, in its default options, loop-mounted. [`Disk::cut_power`] is ext4's own
//! simulation of a power cut, made for the filesystem tests of the Linux kernel: from that moment on nothing
//! reaches the image, neither data in the page cache nor the journal in memory, and every call on the mount
//! fails. [`Disk::power_on`] unmounts it, which drops what was not written, and mounts it anew, which
//! replays the journal.
//!
//! **Not simulated.** A drive that has a cache of its own and loses it: what was once handed to the image stays. So a
//! program that never syncs may get away with overwriting blocks that it has; it does not with files that grow.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const BYTES: u64 = 256 * 1024 * 1024;
/// `EXT4_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)` of `fs/ext4/ext4.h`.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587D;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is flushed.
static NO_LOG_FLUSH: u32 = 2;

/// See the module. Dropping it unmounts it.
pub struct Disk {
    image: PathBuf,
    place: PathBuf,
    mounted: bool,
    _dir: TempDir,
}

/// From now on this thread and the programs that it starts have a view of mounts of their own, which ends with them: a
/// test that is killed leaves no mount behind. To be called before the first [`Disk`], by a test that
/// [`super::requires::root_and_loop_mounts`] let pass.
pub fn with_own_mounts() {
    // SAFETY: it takes no pointer, and changes only what paths mean to this thread.
    #[allow(unsafe_code)]
    let left = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(left, 0, "cannot have mounts of our own: {}", io::Error::last_os_error());
    run(Command::new("mount").args(["--make-rprivate", "/"]));
}

impl Disk {
    /// An empty disk, mounted.
    pub fn new() -> Disk {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (image, place) = (dir.path().join("image"), dir.path().join("mnt"));
        File::create(&image).and_then(|file| file.set_len(BYTES)).unwrap();
        fs::create_dir(&place).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let mut disk = Disk { image, place, mounted: false, _dir: dir };
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// Cuts the power. Whoever uses the disk gets errors from now on.
    pub fn cut_power(&self) {
        let root = File::open(&self.place).unwrap();
        // SAFETY: the descriptor is open, and this request reads one u32, which lives to the end of the call.
        #[allow(unsafe_code)]
        let cut = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const NO_LOG_FLUSH) };
        assert_eq!(cut, 0, "cannot cut the power: {}", io::Error::last_os_error());
    }

    /// Gives the disk back as it is after the cut. Nobody may use it any more.
    pub fn power_on(&mut self) {
        run(Command::new("umount").arg(&self.place));
        self.mounted = false;
        self.mount();
    }

    fn mount(&mut self) {
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).args([&self.image, &self.place]));
        self.mounted = true;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a test that failed may still run a daemon there.
            let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
