//! **Promise.** A certificate that is revoked while its edge is connected ends that connection within seconds, and no other. The edge
//! says what happened, keeps what it confirms, and delivers it once it has another certificate.

use crate::common::{Certs, Journal, assert_exactly_once, events_of, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn revoking_a_certificate_closes_its_connection_and_another_one_opens_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::new(dir.path());
    let serial = certs.issue("1");
    certs.issue("2");
    let server = certs.server();
    let (edge, other) = (certs.edge("1", "1", &server), certs.edge("2", "2", &server));
    let (mut journal, mut others) = (Journal::default(), Journal::default());
    journal.post_entries(&edge.http(), vec!["KA1".into()]);
    others.post_entries(&other.http(), vec!["MA1".into()]);
    let daemons: [&dyn crate::common::Program; 3] = [&server, &edge, &other];
    wait_until("both are served", SOON, &daemons, || edge.is_drained() && other.is_drained());

    let said = certs.run(&["revoke", &serial]);
    assert!(said.contains(&serial) && said.contains("garage 1"), "{said}");
    wait_until("the edge learns why", SOON, &daemons, || edge.alarm().0 == "certificate_refused");
    let (_, alarm) = edge.alarm();
    assert!(alarm.contains("revoked") && alarm.contains("server certs issue"), "{alarm}");
    journal.post_entries(&edge.http(), vec!["KA2".into()]);
    others.post_entries(&other.http(), vec!["MA2".into()]);
    wait_until("the other edge is served", SOON, &daemons, || server.applied_of("2") == 2);
    assert_eq!((edge.depth(), server.applied_of("1"), other.alarm().0.as_str()), (1, 1, ""));
    let states: Vec<_> = certs.list().iter().map(|line| line["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["valid", "revoked", "valid"]);

    certs.issue("1");
    let again = Duration::from_secs(90); // it was refused several times, and waits between its tries
    wait_until("another certificate is taken up", again, &daemons, || {
        edge.is_drained() && edge.alarm().0.is_empty()
    });
    assert_exactly_once(&events_of(&server, "1"), &[journal]);
    assert_exactly_once(&events_of(&server, "2"), &[others]);
}
