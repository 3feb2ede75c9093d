//! **Promise.** An edge whose certificate has expired goes on taking events, says what to do, and delivers everything once the
//! certificate is accepted. Both ends warn 30 days ahead.

use crate::common::{Certs, FakeClock, Journal, Program, assert_exactly_once, events_of, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn events_are_kept_and_delivered_when_the_certificate_is_accepted_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(clock) = FakeClock::new(&dir.path().join("clock")) else { return };
    let certs = Certs::new(dir.path());
    certs.issue("1");
    clock.set_years_ahead(2);
    let server = certs.server_under(&clock.tracer());
    let edge = certs.edge("1", "1", &server);
    let mut journal = Journal::default();
    journal.post_entries(&edge.http(), vec!["KA1".into()]);
    let alarm = || edge.alarm();
    wait_until("the edge says why nothing is delivered", SOON, &[&server, &edge], || {
        alarm().0 == "certificate_refused"
    });
    let (_, text) = alarm();
    assert!(
        text.contains("expired") && text.contains("server certs issue") && text.contains("stay here"),
        "{text}"
    );
    journal.post_entries(&edge.http(), vec!["KA2".into()]);
    assert_eq!(edge.depth(), 2);
    assert_eq!(edge.http().get("/readyz").unwrap().status, 200, "an edge is ready without a server");

    // By the server's clock its own certificate has expired, too.
    let ready = server.http().get("/readyz").unwrap();
    assert!(ready.status == 200 && ready.body.contains("certificate_expires"), "{ready:?}");
    assert!(server.log().contains("certificate_expires"));
    let metrics = server.http().get("/metrics").unwrap().body;
    let days = metrics.lines().find(|line| line.contains("certificate_days_left{certificate=\"own\"} -"));
    assert!(days.is_some(), "{metrics}");

    clock.set_years_ahead(0);
    let again = Duration::from_secs(90); // it was refused several times, and waits between its tries
    wait_until("everything is delivered", again, &[&server, &edge], || {
        edge.is_drained() && alarm().0.is_empty()
    });
    assert_exactly_once(&events_of(&server, "1"), &[journal]);
    let metrics = edge.http().get("/metrics").unwrap().body;
    assert!(metrics.contains("fogpost_edge_certificate_days_left{certificate=\"own\"} 399"), "{metrics}");
    assert_eq!(edge.http().get("/readyz").unwrap().body, "ready\n");
}
