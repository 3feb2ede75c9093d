//! A disk whose power can be cut, and one that is soon full.
//!
//! An image of 512 MB, or of 64 MB, with ext4 in it, in its default options, loop-mounted. [`Disk::cut_power`] is ext4's own
//! simulation of a power cut, made for the filesystem tests of the Linux kernel: from that moment on nothing
//! reaches the image, neither data in the page cache nor the journal in memory, and every call on the mount
//! fails. [`Disk::power_on`] unmounts it, which drops what was not written, and mounts it again, which
//! replays the journal.
//!
//! That alone keeps what was handed to the image without a flush, as a drive does that writes through. So a
//! program that overwrites blocks that it has loses nothing without a sync; only files that grow show what they are worth. Most drives have
//! a cache that a power cut empties. [`Drive::WithCache`] is one: its image stands on another ext4 of the same kind,
//! whose page cache is the drive's cache, and whose power is cut with that of the first. Drives write what they have in
//! an order of their own; so some of the cache, drawn by lot, is written before that.

use rand::{Rng, RngExt};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A fast machine writes more than 256 MB between ten cuts, and then the server refuses events for want of room.
const DISK_BYTES: u64 = 512 << 20;
const SMALL_DISK_BYTES: u64 = 64 << 20;
/// Besides the disk's image, for a filesystem's own needs.
const DRIVE_MORE_BYTES: u64 = 64 << 20;
/// Where images stand: on a real disk, and with names by which those of a killed test are found.
const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");
const PREFIX: &str = "disk-";
const LOCK: &str = "lock";
/// `EXT4_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)` of `fs/ext4/ext4.h`.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587D;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is flushed.
static NO_LOG_FLUSH: u32 = 2;

/// What a disk does with what was handed to it and not flushed, when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drive {
    /// It keeps it.
    WritesThrough,
    /// It loses it, or some of it.
    WithCache,
}

/// See the module. Dropping it unmounts it.
pub struct Disk {
    // In this order they are dropped: the disk stands on the drive, and both in the directory.
    disk: Image,
    drive: Option<Image>,
    _dir: TempDir,
    _lock: File,
}

/// From now on this thread and the programs that it starts have a view of mounts of their own, which ends with them: a
/// test that is killed leaves no mount behind. To be called before the first [`Disk`], by a test that
/// [`super::requires::root_and_loop_mounts`] let pass.
pub fn with_own_mounts() {
    // SAFETY: it takes no pointer, and changes only what paths mean to this thread.
    #[allow(unsafe_code, reason = "the call has no safe wrapper")]
    let left = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(left, 0, "cannot have mounts of our own: {}", io::Error::last_os_error());
    run(Command::new("mount").args(["--make-rprivate", "/"])).unwrap();
}

/// A test that was killed had no time to remove its images.
fn remove_left_overs() {
    for entry in fs::read_dir(FOLDER).unwrap().flatten() {
        let in_use = || File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_err());
        // Without a lock it is being made at this moment.
        let held = !entry.path().join(LOCK).exists() || in_use();
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && !held {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Disk {
    /// An empty disk, mounted.
    pub fn new(drive: Drive) -> Disk {
        Disk::of(DISK_BYTES, drive)
    }

    /// An empty disk that is soon full, mounted.
    pub fn small() -> Disk {
        Disk::of(SMALL_DISK_BYTES, Drive::WritesThrough)
    }

    fn of(bytes: u64, drive: Drive) -> Disk {
        remove_left_overs();
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(FOLDER).unwrap();
        let lock = File::create(dir.path().join(LOCK)).unwrap();
        lock.lock().unwrap();
        let drive = match drive {
            Drive::WritesThrough => None,
            Drive::WithCache => Some(Image::new(dir.path(), dir.path(), "drive", bytes + DRIVE_MORE_BYTES)),
        };
        let on = drive.as_ref().map_or(dir.path(), |drive| &drive.place);
        let disk = Image::new(on, dir.path(), "disk", bytes);
        Disk { disk, drive, _dir: dir, _lock: lock }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.disk.place
    }

    /// Somebody else takes so much of it.
    pub fn take(&self, name: &str, bytes: u64) {
        let mut file = File::create_new(self.path().join(name)).unwrap();
        let zeros = vec![0; 1 << 20];
        (0..bytes >> 20).for_each(|_| file.write_all(&zeros).unwrap());
        file.sync_all().unwrap();
    }

    /// Somebody else takes all that is left, to the last byte.
    pub fn fill(&self, name: &str) {
        let mut file = File::create_new(self.path().join(name)).unwrap();
        for step in [256 * 1024, 4096, 1] {
            let zeros = vec![0; step];
            while let Ok(1..) = file.write(&zeros) {}
        }
        // What could be written is there; that there is no more room is what was wanted.
        let _ = file.sync_all();
    }

    /// Gives back what somebody else took.
    pub fn give_back(&self, name: &str) {
        fs::remove_file(self.path().join(name)).unwrap();
    }

    /// How many bytes are left.
    pub fn left(&self) -> u64 {
        let told = rustix::fs::statvfs(self.path()).unwrap();
        told.f_bavail * told.f_frsize
    }

    /// Cuts the power. Every use of the disk fails from now on.
    pub fn cut_power(&self, rng: &mut impl Rng) {
        // The drive first: an ext4 that is shut down still writes its journal's end, with a flush that would save
        // everything in the drive's cache.
        if let Some(drive) = &self.drive {
            self.disk.write_some(rng);
            drive.shut_down();
        }
        self.disk.shut_down();
    }

    /// Gives the disk back as it is after the cut. Nobody may use it any more.
    pub fn power_on(&mut self) {
        self.disk.unmount();
        if let Some(drive) = &mut self.drive {
            drive.unmount();
            drive.mount();
        }
        self.disk.mount();
    }
}

/// An image with ext4 in it.
struct Image {
    file: PathBuf,
    place: PathBuf,
    mounted: bool,
}

impl Image {
    /// A new one, `on` something, mounted in `below`.
    fn new(on: &Path, below: &Path, name: &str, bytes: u64) -> Image {
        let (file, place) = (on.join(format!("{name}.image")), below.join(name));
        // With its blocks written, so that keeping what is written into it later is a matter of data alone.
        let mut image = File::create_new(&file).unwrap();
        let zeros = vec![0; 1 << 20];
        (0..bytes >> 20).for_each(|_| image.write_all(&zeros).unwrap());
        fs::create_dir(&place).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file)).unwrap();
        image.sync_all().unwrap();
        let mut image = Image { file, place, mounted: false };
        image.mount();
        image
    }

    fn mount(&mut self) {
        let mount = ["-t", "ext4", "-o", "loop"];
        run(Command::new("mount").args(mount).args([&self.file, &self.place])).unwrap();
        self.mounted = true;
    }

    /// Writes none, half or most of what the image's cache holds to what it stands on.
    fn write_some(&self, rng: &mut impl Rng) {
        const CHUNK: u64 = 64 * 1024;
        let image = File::open(&self.file).unwrap();
        let length = image.metadata().unwrap().len();
        // Not by the C library's name for it: in this program that is our barrier.
        let sync = |from: u64, bytes: u64, flags: libc::c_uint| {
            // SAFETY: the kernel checks the arguments of a system call.
            #[allow(unsafe_code, reason = "the call has no safe wrapper")]
            let done =
                unsafe { libc::syscall(libc::SYS_sync_file_range, image.as_raw_fd(), from, bytes, flags) };
            assert_eq!(done, 0, "cannot write the cache: {}", io::Error::last_os_error());
        };
        let part = [0.0, 0.5, 0.9][rng.random_range(0..3)];
        let chunks = (0..length).step_by(CHUNK as usize).filter(|_| rng.random_bool(part));
        chunks.for_each(|chunk| sync(chunk, CHUNK, libc::SYNC_FILE_RANGE_WRITE));
        sync(0, length, libc::SYNC_FILE_RANGE_WAIT_BEFORE);
    }

    fn shut_down(&self) {
        let root = File::open(&self.place).unwrap();
        let flags = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open, and this request reads one u32, which lives to the end of the call.
        #[allow(unsafe_code, reason = "the call has no safe wrapper")]
        let cut = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const flags) };
        assert_eq!(cut, 0, "cannot cut the power: {}", io::Error::last_os_error());
    }

    fn unmount(&mut self) {
        // The kernel lets go of an image, or of a killed process's files, a moment after it said so.
        let began = Instant::now();
        while let Err(error) = run(Command::new("umount").arg(&self.place)) {
            assert!(began.elapsed() < Duration::from_secs(10), "{error}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.mounted = false;
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a test that failed may still run a daemon there.
            let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}
