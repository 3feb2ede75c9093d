//! **Promise.** Plates and amounts are for the user alone that a daemon runs as: everything that a program writes, a backup and an
//! export too, has mode 0700 or 0600. What an earlier version left open is narrowed by the next start, and reported.
//!
//! Data directories once had 0755 and their files 0644: any local user read every plate.

use crate::common::daemon::{EDGE, SERVER, command};
use crate::common::{Edge, Program, Server, wait_until};
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most systems start programs with this mask, whatever the one of this test is.
const USUAL_MASK: [&str; 4] = ["sh", "-c", "umask 022; exec \"$@\"", "sh"];
const WITHIN: Duration = Duration::from_secs(20);

/// What others may read, write or enter, of `path` and all below it.
fn open_to_others(path: &Path) -> Vec<(PathBuf, String)> {
    let found = fs::symlink_metadata(path).unwrap();
    let mut open = Vec::new();
    if found.mode() & 0o077 != 0 {
        open.push((path.to_owned(), format!("{:o}", found.mode() & 0o7777)));
    }
    if found.is_dir() {
        open.extend(fs::read_dir(path).unwrap().flat_map(|entry| open_to_others(&entry.unwrap().path())));
    }
    open
}

fn assert_private(path: &Path) {
    assert_eq!(open_to_others(path), [], "others may use these");
}

/// As an earlier version left it.
fn open_up(path: &Path) {
    let found = fs::symlink_metadata(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(if found.is_dir() { 0o755 } else { 0o644 })).unwrap();
    if found.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| open_up(&entry.unwrap().path()));
    }
}

fn run(program: &str, args: &[&str]) {
    let args: Vec<String> =
        USUAL_MASK[1..].iter().chain(&[program]).chain(args).map(ToString::to_string).collect();
    let output = command(USUAL_MASK[0], &args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

#[test]
fn what_the_daemons_and_commands_write_is_for_their_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let bills = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bills.toml");
    let server = Server::start_under(&USUAL_MASK, &dir.path().join("srv"), &["--config", bills]);
    let mut edge = Edge::start_under(&USUAL_MASK, &dir.path().join("g1"), "1", &[server.address()], &[]);
    for (kind, at) in [("entry", "2026-11-02T08:00:00+01:00"), ("exit", "2026-11-02T10:30:00+01:00")] {
        edge.http().post_event(&json!({"kind": kind, "plate": "KA1", "at": at})).unwrap();
    }
    wait_until("the stay is charged", WITHIN, &[&edge, &server], || {
        !server.http().get_json("/v1/charges")["charges"].as_array().unwrap().is_empty()
    });
    // It is written every second.
    wait_until("the board is kept", WITHIN, &[&edge], || edge.dir().join("board").exists());
    assert_private(edge.dir());
    assert_private(server.dir());

    let of = ["--data-dir", &at("srv")];
    run(SERVER, &[&of[..], &["backup", &at("backup")]].concat());
    run(SERVER, &[&of[..], &["journal", "export", "--out", &at("journal.csv")]].concat());
    ["backup", "journal.csv"].iter().for_each(|name| assert_private(&dir.path().join(name)));

    drop(server);
    run(SERVER, &[&of[..], &["compact", &at("compacted")]].concat());
    assert_private(&dir.path().join("compacted"));
    edge.kill();
    let adopt = ["ledger", "adopt", "5f2c6c8e-3c5a-4a3e-9d5e-0d7a3f0a9b11"];
    run(EDGE, &[&["--data-dir", &at("g1")], &adopt[..]].concat());
    assert_private(edge.dir());
}

#[test]
fn what_an_earlier_version_left_open_is_narrowed_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("srv"), &[]);
    let mut edge = Edge::start(&dir.path().join("g1"), "1", &[server.address()], &[]);
    edge.http().post_event(&json!({"kind": "entry", "plate": "KA1"})).unwrap();
    wait_until("the event is delivered", WITHIN, &[&edge, &server], || edge.depth() == 0);
    server.kill();
    edge.kill();
    open_up(server.dir());
    open_up(edge.dir());
    server.restart();
    edge.restart();
    assert_private(server.dir());
    assert_private(edge.dir());
    for log in [server.log(), edge.log()] {
        assert!(log.contains("other users of this machine could read what is stored here"), "{log}");
    }
}

/// Root may give commands to any daemon's directory. What it writes there must not keep the daemon's own user out.
#[test]
fn what_root_writes_belongs_to_the_user_of_the_directory() {
    if !rustix::process::geteuid().is_root() {
        return; // others cannot give files away
    }
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("srv"), &[]);
    server.stop();
    let daemons_user = 4711;
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(daemons_user), Some(daemons_user)).unwrap();
    give(server.dir());
    let data_dir = server.dir().to_str().unwrap();
    run(SERVER, &["--data-dir", data_dir, "plates", "add", "KA1", "miller"]);
    let mut below = vec![server.dir().to_owned()];
    while let Some(path) = below.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!(found.uid(), daemons_user, "{path:?}");
        if found.is_dir() {
            below.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}
