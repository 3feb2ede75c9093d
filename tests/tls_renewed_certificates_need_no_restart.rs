//! **Promise.** Certificates that are renewed are taken up without a restart, on both ends: when their files change, and at once on
//! SIGHUP. Files that cannot be used change nothing.

use crate::common::{Certs, Journal, Program, assert_exactly_once, events_of, wait_until};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const TAKEN_UP: &str = "changed certificates are in force";

#[test]
fn both_ends_show_their_renewed_certificates_in_the_next_connection() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::new(dir.path());
    let first = certs.issue("1");
    let mut server = certs.server();
    let edge = certs.edge("1", "1", &server);
    let mut journal = Journal::default();
    journal.post_entries(&edge.http(), vec!["KA1".into()]);
    wait_until("it is served", SOON, &[&server, &edge], || edge.is_drained());

    // A key that does not belong to the certificate: its copying was interrupted.
    let key = certs.of_server().join("key.pem");
    let right = fs::read(&key).unwrap();
    fs::copy(certs.of_garage("1").join("key.pem"), &key).unwrap();
    server.hang_up();
    wait_until("it is said", SOON, &[&server], || server.log().contains("certificates_unusable"));
    fs::write(&key, right).unwrap();
    certs.renew_of_server();
    certs.issue("1");
    wait_until("the server takes its own up", SOON, &[&server], || server.log().contains(TAKEN_UP));
    edge.hang_up();
    wait_until("the edge takes its own up", SOON, &[&edge], || edge.log().contains(TAKEN_UP));
    // Only who shows the second certificate is served now.
    certs.run(&["revoke", &first]);
    journal.post_entries(&edge.http(), vec!["KA2".into()]);
    let served = || server.applied_of("1") == 2;
    wait_until("the edge shows the second certificate", Duration::from_secs(60), &[&server, &edge], served);
    assert_eq!(edge.alarm().0, "");
    assert_exactly_once(&events_of(&server, "1"), &[journal]);
    assert_eq!(server.stop().0, Some(0), "SIGHUP did not end it, and SIGTERM does");
}
