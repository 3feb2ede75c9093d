//! **Promise.** With TLS an edge speaks for the garages that its certificate names. A request for another garage is refused and
//! reported; nothing of it is taken, and the garage itself goes on undisturbed.

use crate::common::{Certs, Journal, Program, assert_exactly_once, events_of, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// The key of garage "thief" was copied from a computer that anybody in that garage may open.
#[test]
fn a_stolen_name_under_a_valid_certificate_is_refused_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::new(dir.path());
    certs.issue("Bull Ring");
    certs.issue("thief");
    let server = certs.server();
    let honest = certs.edge("Bull Ring", "Bull Ring", &server);
    let mut journal = Journal::default();
    journal.post_entries(&honest.http(), vec!["KA1".into(), "KA2".into()]);
    wait_until("the garage is served", SOON, &[&server, &honest], || server.applied_of("Bull Ring") == 2);

    // The name must be free on this machine: the thief is on another one.
    let elsewhere = tempfile::tempdir().unwrap();
    let stolen = certs.of_garage("thief");
    let thief = crate::common::Edge::start(
        &elsewhere.path().join("edge"),
        "Bull Ring",
        &[server.address()],
        &["--tls-dir", stolen.to_str().unwrap(), "--board-interval-ms", "100"],
    );
    let mut stolen = Journal::default();
    stolen.post_entries(&thief.http(), vec!["XX1".into()]);
    wait_until("the thief is refused", SOON, &[&server, &thief], || thief.alarm().0 == "refused_by_server");
    assert!(thief.alarm().1.contains("does not name"), "{:?}", thief.alarm());
    assert!(server.metric("fogpost_server_garages_not_certified_total") >= 1);
    let log = server.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("garage_not_certified")).collect();
    assert_eq!(lines.len(), 1, "it is logged once: {lines:#?}");
    assert!(lines[0].contains("Bull Ring") && lines[0].contains("thief"), "{}", lines[0]);

    journal.post_entries(&honest.http(), vec!["KA3".into()]);
    wait_until("the garage is still served", SOON, &[&server, &honest], || {
        server.applied_of("Bull Ring") == 3
    });
    assert_eq!(thief.depth(), 1);
    assert_eq!(honest.alarm().0, "");
    let garage = server.http().get_json("/v1/garages/Bull%20Ring");
    assert_eq!(
        (&garage["refused"], &garage["two_edges"]),
        (&serde_json::Value::Null, &false.into()),
        "{garage}"
    );
    assert_exactly_once(&events_of(&server, "Bull Ring"), &[journal]);
}
