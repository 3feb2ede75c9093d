//! Data directories hold plates and amounts, so only the user of the daemon may read them.
//!
//! **Promise.** What this program creates has mode 0700 (directories) or 0600 (files). What is found with wider rights in a data
//! directory is narrowed before it is used, and the log says so.
//! **Kept by.** The file mode creation mask, set before anything is created; and a walk over our own file names when a directory
//! is locked. What root leaves behind in the directory of another user is handed to that user, who could not read it otherwise.
//! **Not promised.** Protection of a directory that belongs to another user, or that other users may write to (`/tmp`): its own
//! rights stay as they are, and only the rights of the files in it are narrowed.

use super::if_there;
use crate::codes;
use rustix::fs::Mode;
use std::fs::{self, DirEntry, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const OTHERS: u32 = 0o077;
/// The sticky bit: in a directory with it, such as `/tmp`, users may remove only their own files.
const STICKY: u32 = 0o1000;

/// Prefixes of the names that daemons give to files in a data directory.
const OURS: [&str; 12] = [
    "alarms",
    "audit",
    "store",
    "lock",
    "ballast",
    "board",
    "witness",
    "http.addr",
    "camera-http.addr",
    "listen.addr",
    "backup.json",
    "outbox",
];

/// Makes everything that this process and its children create from now on accessible to their user only.
pub fn keep_what_we_create_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Removes the rights of other users in a data directory. A failure is logged and does not stop the daemon.
pub(super) fn tighten(dir: &Path) {
    let (mut narrowed, mut holds_something) = (0, false);
    let done = narrow_root(dir, &mut narrowed).and_then(|()| {
        each_of_ours(dir, &mut |path, found| {
            holds_something |= path.parent() != Some(dir) || !path.ends_with("lock");
            if found.mode() & OTHERS != 0 {
                fs::set_permissions(path, Permissions::from_mode(found.mode() & 0o7777 & !OTHERS))?;
                narrowed += 1;
            }
            Ok(())
        })
    });
    // A new directory, in which only the lock stands, had nothing to read.
    if narrowed > 0 && holds_something {
        tracing::warn!(
            code = %codes::PERMISSIONS_NARROWED,
            data_dir = %dir.display(), narrowed,
            hint = "find out who may have read it; it contains plates",
            "other users of this machine could read what is stored here; only its owner can now"
        );
    }
    if let Err(error) = done {
        tracing::warn!(
            code = %codes::PERMISSIONS_TOO_WIDE,
            data_dir = %dir.display(), %error,
            hint = "give the directory to the user that the daemon runs as, with mode 0700",
            "other users of this machine may be able to read what is stored here"
        );
    }
}

fn narrow_root(dir: &Path, narrowed: &mut u64) -> io::Result<()> {
    let found = fs::metadata(dir)?;
    if found.mode() & OTHERS == 0 {
        return Ok(());
    }
    let user = rustix::process::geteuid();
    if found.mode() & STICKY != 0 || !(user.is_root() || user.as_raw() == found.uid()) {
        return Ok(()); // it is not ours alone, and what is in it is narrowed
    }
    fs::set_permissions(dir, Permissions::from_mode(found.mode() & 0o7777 & !OTHERS))?;
    *narrowed += 1;
    Ok(())
}

/// Gives files that root wrote in a data directory to the owner of the directory, whose daemon could not start otherwise.
pub(super) fn hand_over(dir: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let handed = fs::metadata(dir).and_then(|owner| {
        each_of_ours(dir, &mut |path, found| match found.uid() == owner.uid() {
            true => Ok(()),
            false => std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid())),
        })
    });
    if let Err(error) = handed {
        tracing::warn!(
            code = %codes::FILES_OF_ROOT,
            data_dir = %dir.display(), %error,
            hint = "give them to the user that the daemon runs as (chown)",
            "files that this command wrote may belong to root"
        );
    }
}

/// Gives a file that root created to the owner of the directory that it is in.
pub fn hand_over_file(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(dir)?;
    std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))
}

fn each_of_ours(dir: &Path, act: &mut dyn FnMut(&Path, &Metadata) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if OURS.iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
            each_below(&entry, act)?;
        }
    }
    Ok(())
}

fn each_below(entry: &DirEntry, act: &mut dyn FnMut(&Path, &Metadata) -> io::Result<()>) -> io::Result<()> {
    let Some(found) = if_there(entry.metadata())? else { return Ok(()) };
    if found.is_dir() {
        for entry in fs::read_dir(entry.path())? {
            each_below(&entry?, act)?;
        }
    }
    if found.is_dir() || found.is_file() { act(&entry.path(), &found) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_ours_keep_their_rights() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("witness"), dir.path().join("notes.txt"));
        for path in [&ours, &theirs] {
            fs::write(path, "").unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        }
        tighten(dir.path());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&ours), mode(&theirs)), (0o600, 0o644));
    }

    #[test]
    fn a_directory_that_all_users_share_stays_shared() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        tighten(dir.path());
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o7777, 0o1777);
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        tighten(dir.path());
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o7777, 0o700);
    }
}
