//! What a test needs of the machine that it runs on.
//!
//! A test that cannot run here returns early, and says so: as a line in the file that `FOGPOST_TEST_SKIPPED` names,
//! which `./test` shows at its end, or on stderr. On the build server (`CI=true`) it fails: there, a promise that
//! nobody checks is a broken one.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Root, and the right to mount an image with ext4 in it, each in a mount namespace of its own.
#[must_use]
pub fn root_and_loop_mounts() -> bool {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    or_left_out(FOUND.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            return Err("it needs root, to mount a disk and cut its power".into());
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (image, place) = (dir.path().join("image"), dir.path().join("mnt"));
        let made = fs::File::create(&image).and_then(|file| file.set_len(4 << 20));
        made.and_then(|()| fs::create_dir(&place)).map_err(|error| error.to_string())?;
        works(Command::new("mkfs.ext4").arg("-qF").arg(&image))?;
        let mount = ["--mount", "--propagation", "private", "mount", "-o", "loop"];
        works(Command::new("unshare").args(mount).args([&image, &place]))
    }))
}

/// Debian's package manager.
#[must_use]
pub fn apt_get() -> bool {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    or_left_out(FOUND.get_or_init(|| works(Command::new("apt-get").arg("--version"))))
}

/// `strace`, and the right to trace a child.
#[must_use]
pub fn strace() -> bool {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    or_left_out(FOUND.get_or_init(|| works(Command::new("strace").args(["-f", "-o", "/dev/null", "true"]))))
}

/// `tar` and `xz`.
#[must_use]
pub fn xz() -> bool {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    or_left_out(FOUND.get_or_init(|| works(Command::new("xz").arg("--version"))))
}

/// `hledger`, a program of plain-text accounting.
#[must_use]
pub fn hledger() -> bool {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    or_left_out(FOUND.get_or_init(|| works(Command::new("hledger").arg("--version"))))
}

/// Chromium with ChromeDriver, and axe-core, which finds faults of accessibility.
#[must_use]
pub fn chromium() -> bool {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    or_left_out(FOUND.get_or_init(|| {
        works(Command::new("chromedriver").arg("--version"))?;
        works(Command::new("chromium").arg("--version"))?;
        let axe = axe();
        if axe.exists() { Ok(()) } else { Err(format!("it needs axe-core, which ./test puts at {axe:?}")) }
    }))
}

/// The script of axe-core that `./test` downloaded.
pub fn axe() -> PathBuf {
    let given = std::env::var_os("FOGPOST_TEST_AXE").map(PathBuf::from);
    given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-axe/axe.min.js"))
}

/// A C compiler: Rust links with it.
#[must_use]
pub fn cc() -> bool {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    or_left_out(FOUND.get_or_init(|| works(Command::new("cc").arg("--version"))))
}

/// libfaketime, for programs of many threads.
pub fn faketime() -> Option<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        // Debian keeps libraries under the name of the architecture, others do not.
        let below = fs::read_dir("/usr/lib").map_err(|error| error.to_string())?;
        let places =
            below.flatten().map(|entry| entry.path()).chain(["/usr/lib".into(), "/usr/lib64".into()]);
        let library =
            places.map(|place| place.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
        let library = library.ok_or("it needs libfaketime (faketime/libfaketimeMT.so.1 below /usr/lib)")?;
        let mut date = Command::new("date");
        let output =
            date.arg("+%Y").env("LD_PRELOAD", &library).env("FAKETIME", "@2001-02-03 04:05:06").output();
        match output.map(|output| output.stdout) {
            Ok(year) if year.starts_with(b"2001") => Ok(library),
            Ok(_) => Err("libfaketime does not move the clock here".into()),
            Err(error) => Err(format!("date: {error}")),
        }
    });
    or_left_out(&found.as_ref().map(|_| ()).map_err(Clone::clone)).then(|| found.clone().unwrap())
}

/// A Python with `zmq` and `blake3`: the one that `./test` made, or the one of the machine.
pub fn pyzmq() -> Option<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let made = std::env::var_os("FOGPOST_TEST_PYTHON").map(PathBuf::from);
        let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-python/bin/python");
        let mut reason = String::new();
        for python in made.into_iter().chain([usual, "python3".into()]) {
            match works(Command::new(&python).args(["-c", "import zmq, blake3"])) {
                Ok(()) => return Ok(python),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    });
    or_left_out(&found.as_ref().map(|_| ()).map_err(Clone::clone)).then(|| found.clone().unwrap())
}

fn works(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name}: {}", said.lines().last().unwrap_or("it failed")))
}

fn or_left_out(found: &Result<(), String>) -> bool {
    let Err(reason) = found else {
        return true;
    };
    let line = format!("LEFT OUT: test {}: {reason}\n", name_of_this_test());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
    note(&line);
    false
}

/// libtest names the thread of a test after it.
pub fn name_of_this_test() -> String {
    std::thread::current().name().unwrap_or("of unknown name").to_owned()
}

/// Writes a line where `./test` looks for what was not run, or to stderr.
pub fn note(line: &str) {
    let file = std::env::var_os("FOGPOST_TEST_SKIPPED");
    let file = file.and_then(|path| OpenOptions::new().append(true).create(true).open(path).ok());
    match file {
        // One write, so that tests of several threads do not mix their lines.
        Some(mut file) => file.write_all(line.as_bytes()).unwrap(),
        // Not captured, as what a passing test prints is.
        None => std::io::stderr().write_all(line.as_bytes()).unwrap(),
    }
}
