//! **Promise.** Who looks into the outbox of a stopped edge keeps nobody from starting the edge, however long he looks. The status of a
//! large outbox takes no copy of it.
//!
//! `edge outbox export | less` once held the data directory until `less` was closed, so that a supervisor could not start the edge
//! again; the message named a process that had ended. `outbox status` copied the whole store to TMPDIR.

use crate::common::daemon::{EDGE, command};
use crate::common::{Edge, Journal};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// More than a pipe holds, so that the command waits for its reader.
const EVENTS: usize = 3000;
/// Above the size up to which a status is read from a copy.
const LARGE: u64 = 70 << 20;

fn at(dir: &Path, args: &[&str]) -> Command {
    let args = [args, &["--data-dir", dir.to_str().unwrap()]].concat();
    command(EDGE, &args.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn edge_with_events(dir: &Path) -> Edge {
    let edge = Edge::start(dir, "a", &["tcp://127.0.0.1:1".to_owned()], &[]);
    let plates = (0..EVENTS).map(|n| format!("KA{n}")).collect();
    let mut journal = Journal::default();
    journal.post_entries(&edge.http(), plates);
    assert_eq!(journal.confirmed_events(), EVENTS as u64);
    edge
}

#[test]
fn an_export_that_is_read_slowly_does_not_keep_the_edge_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = edge_with_events(&dir.path().join("edge"));
    assert_eq!(edge.stop().0, Some(0));
    let mut export = at(edge.dir(), &["outbox", "export"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(export.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["sequence"], 1);
    edge.restart();
    assert_eq!(edge.depth(), EVENTS as u64);
    assert_eq!(lines.map(Result::unwrap).count(), EVENTS - 1, "what was begun is shown to its end");
    assert!(export.wait().unwrap().success());
}

#[test]
fn the_status_of_a_large_outbox_needs_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = edge_with_events(&dir.path().join("edge"));
    assert_eq!(edge.stop().0, Some(0));
    let log = OpenOptions::new().write(true).open(edge.dir().join("store/db")).unwrap();
    let length = log.metadata().unwrap().len();
    log.set_len(LARGE).unwrap();
    let status = |args: &[&str]| {
        let nowhere = dir.path().join("nowhere");
        let output = at(edge.dir(), args).env("TMPDIR", nowhere).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said: Value = serde_json::from_str(&status(&["outbox", "status", "--json"])).unwrap();
    assert_eq!((&said["depth"], &said["next_sequence"]), (&EVENTS.into(), &(EVENTS + 1).into()));
    assert_eq!(said["bytes"], Value::Null, "what was not looked at is not known");
    assert!(status(&["outbox", "status"]).contains("--"));
    log.set_len(length).unwrap();
    edge.restart();
    assert_eq!(edge.depth(), EVENTS as u64);
}
