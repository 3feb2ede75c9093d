//! **Promise.** `./test` explains itself, refuses what it does not know, and waits while another program holds the package
//! manager's lock.
//!
//! It once installed nothing while another apt-get was at work, and went on: three tests failed for what was missing.

use crate::common::process::lines_of;
use crate::common::requires;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test")
}

fn test(argument: &str) -> Output {
    Command::new(script()).arg(argument).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn it_explains_itself() {
    let help = test("--help");
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    for part in ["--quick", "--long", "minutes", "installs", "FOGPOST_CUTS", "N passed, N failed"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn it_refuses_what_it_does_not_know() {
    let refused = test("--quickly");
    assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(64), &b""[..]));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("--quickly") && said.contains("nothing was run") && said.contains("--quick "),
        "{said}"
    );
}

/// The part of `./test` that calls apt-get, on lists of packages of its own: there are no sources, so that nothing is fetched.
#[test]
fn it_waits_while_another_program_holds_the_lock_of_the_package_lists() {
    if !requires::apt_get() {
        return;
    }
    let text = fs::read_to_string(script()).unwrap();
    let begin = text.find("patient_apt() {").unwrap();
    let end = begin + text[begin..].find("\n}\n").unwrap() + 3;
    let dir = tempfile::tempdir().unwrap();
    let lists = dir.path().join("lists");
    fs::create_dir_all(lists.join("partial")).unwrap();
    let lock = File::create(lists.join("lock")).unwrap();
    rustix::fs::fcntl_lock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let call = format!(
        "{}\npatient_apt update -qq -o Dir::State::Lists={} -o Dir::Cache={} -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=/dev/null",
        &text[begin..end],
        lists.display(),
        dir.path().display()
    );
    let mut child =
        Command::new("bash").args(["-c", &call]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let said = lines_of(child.stdout.take().unwrap());
    let waits = said.recv_timeout(SOON).unwrap();
    assert!(waits.contains("waiting until another program releases"), "{waits}");
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    drop(lock);
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(0), "{:?}", said.iter().collect::<Vec<_>>());
}
