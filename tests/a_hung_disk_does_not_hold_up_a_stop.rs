//! **Promise.** A daemon that is asked to stop ends with 0 within 5 s, also when its disk does not answer. What was confirmed is there
//! at the next start, as after a kill.
//!
//! A stop once waited for the disk: the last board was written by the thread that was to end, and the committer was waited for.
//!
//! The disk hangs at the border to the C library: a small library that is loaded before it waits in each sync while a file is there.

use crate::common::{Edge, Program, Server, requires, wait_until};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(20);
const STOPS_WITHIN: Duration = Duration::from_secs(5);

const SHIM: &str = r#"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int fd) {
    while (access(getenv("DISK_HANGS"), F_OK) == 0) {
        close(open(getenv("DISK_WAITED_FOR"), O_CREAT | O_WRONLY, 0600));
        usleep(10000);
    }
    return syscall(SYS_fdatasync, fd);
}
"#;

/// A disk that can be made to hang.
struct Disk {
    hangs: PathBuf,
    waited_for: PathBuf,
    library: PathBuf,
}

impl Disk {
    fn new(dir: &Path) -> Disk {
        let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
        fs::write(&source, SHIM).unwrap();
        let mut cc = Command::new("cc");
        let output = cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Disk { hangs: dir.join("hangs"), waited_for: dir.join("waited-for"), library }
    }

    /// What a daemon is started under.
    fn env(&self) -> [String; 4] {
        let set = |name: &str, path: &Path| format!("{name}={}", path.display());
        let (hangs, waited_for) = (set("DISK_HANGS", &self.hangs), set("DISK_WAITED_FOR", &self.waited_for));
        ["env".into(), set("LD_PRELOAD", &self.library), hangs, waited_for]
    }

    fn hang(&self) {
        fs::write(&self.hangs, "").unwrap();
    }

    fn wait_until_it_is_waited_for(&self, daemon: &dyn Program) {
        wait_until("somebody waits for the disk", WITHIN, &[daemon], || self.waited_for.exists());
    }

    fn work_again(&self) {
        fs::remove_file(&self.hangs).unwrap();
    }
}

#[test]
fn an_edge_is_told_to_stop_while_its_disk_hangs() {
    if !requires::cc() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path());
    let env = disk.env();
    let nowhere = ["tcp://127.0.0.1:1".to_owned()];
    let at = dir.path().join("edge");
    let mut edge = Edge::start_under(&env.each_ref().map(String::as_str), &at, "a", &nowhere, &[]);
    assert_eq!(edge.http().post_event(&json!({"kind": "entry", "plate": "KA1"})).unwrap().status, 201);
    disk.hang();
    let http = edge.http();
    let unanswered = std::thread::spawn(move || http.post_event(&json!({"kind": "entry", "plate": "KA2"})));
    disk.wait_until_it_is_waited_for(&edge);
    let (code, took) = edge.stop();
    assert_eq!(code, Some(0), "{}", edge.log_tail());
    assert!(took < STOPS_WITHIN, "it took {took:?}\n{}", edge.log_tail());
    let answer = unanswered.join().unwrap();
    assert!(answer.is_err(), "an event was answered that is on no disk: {answer:?}");
    disk.work_again();
    edge.restart();
    assert!((1..=2).contains(&edge.depth()), "the first was confirmed, the second may be there");
}

#[test]
fn a_server_is_told_to_stop_while_its_disk_hangs() {
    if !requires::cc() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path());
    let env = disk.env();
    let at = dir.path().join("server");
    let mut server = Server::start_under(&env.each_ref().map(String::as_str), &at, &[]);
    let edge = Edge::start(&dir.path().join("edge"), "a", &[server.address()], &[]);
    let post = |plate: &str| edge.http().post_event(&json!({"kind": "entry", "plate": plate})).unwrap();
    assert_eq!(post("KA1").status, 201);
    wait_until("the first is applied", WITHIN, &[&edge, &server], || edge.depth() == 0);
    disk.hang();
    assert_eq!(post("KA2").status, 201);
    disk.wait_until_it_is_waited_for(&server);
    let (code, took) = server.stop();
    assert_eq!(code, Some(0), "{}", server.log_tail());
    assert!(took < STOPS_WITHIN, "it took {took:?}\n{}", server.log_tail());
    assert_eq!(edge.depth(), 1, "it was not acknowledged");
    disk.work_again();
    server.restart();
    wait_until("both are applied", WITHIN, &[&edge, &server], || server.applied_of("a") == 2);
}
