//! **Promise.** The protocol is what its documentation says, and a plain REQ socket of libzmq is served: a client with
//! neither our code nor our sockets can deliver events.
//!
//! The client is `wire/pyzmq_client.py`, written from the documentation alone. It checks every reply; here is checked
//! what the server made of it.

use crate::common::{Applied, Server, events_of, requires};
use std::process::{Command, Stdio};

#[test]
fn a_python_client_written_from_the_documentation_delivers_its_events_once() {
    let Some(python) = requires::pyzmq() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/pyzmq_client.py");
    let client = Command::new(python)
        .args(["-B", client, &server.address(), "Parkhaus Süd"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    let epoch = String::from_utf8(client.stdout).unwrap().trim().to_owned();

    let applied = events_of(&server, "Parkhaus Süd");
    let seen = |event: &Applied| (event.sequence, event.plate.clone().unwrap_or_default(), event.at.clone());
    let seen: Vec<_> = applied.iter().map(seen).collect();
    let wanted = [
        (1, "PY1", "2026-11-23T08:15:00+01:00"),
        (2, "PY2", "2026-11-23T03:45:01.5-03:30"),
        (3, "PY3", "2026-11-23T08:15:02+01:00"),
        (4, "PY4", "2026-11-23T08:15:03+01:00"),
    ];
    assert_eq!(seen, wanted.map(|(sequence, plate, at)| (sequence, plate.to_owned(), at.to_owned())));
    assert!(applied.iter().all(|event| event.epoch == epoch && event.kind == "entry"), "{applied:?}");
    let garage = server.http().get_json("/v1/garages/Parkhaus%20S%C3%BCd");
    assert_eq!(garage["duplicates_refused"], 2, "{garage}");
    assert_eq!(garage["conflicts"], 2, "{garage}");
}
