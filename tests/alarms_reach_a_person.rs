//! **Promise.** Each alarm is raised once, shown in the list and in the metric, reaches a webhook and a mailbox, and is resolved everywhere when its reason
//! is gone; over kills of the server, and however long a receiver is away. Nothing secret is shown.

use crate::common::receivers::{MailSink, Webhook};
use crate::common::{Certs, Edge, FakeClock, Operator, Program, Server, copy, wait_until};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const GARAGE: &str = "Bull Ring";
const SOON: Duration = Duration::from_secs(90);
const ASKS_OFTEN: [&str; 4] = ["--board-interval-ms", "100", "--machine-id", "this"];
/// Minutes are seconds here.
const THRESHOLDS: &str = "silent_after = \"4s\"
backlog_after = \"1s\"
backlog_events = 3
still_after = \"1s\"
occupancy_after = \"1s\"
drift_cars = 5
resolve_after = \"1s\"
";

/// A server that notifies a webhook and a mailbox.
struct City {
    server: Server,
    hook: Webhook,
    mail: MailSink,
    dir: TempDir,
}

impl City {
    fn new() -> City {
        City::with("", "")
    }

    /// With more settings in `[server]` and in `[alarms]`.
    fn with(in_server: &str, in_alarms: &str) -> City {
        let dir = tempfile::tempdir().unwrap();
        let (hook, mail) = (Webhook::start(dir.path()), MailSink::start());
        let file = dir.path().join("city.toml");
        configure(&file, (&hook, &mail), in_server, in_alarms);
        let server = Server::start(&dir.path().join("server"), &["--config", file.to_str().unwrap()]);
        City { server, hook, mail, dir }
    }

    /// Other settings, from the next start on.
    fn configure(&self, in_server: &str, in_alarms: &str) {
        configure(&self.path("city.toml"), (&self.hook, &self.mail), in_server, in_alarms);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn edge(&self, more: &[&str]) -> Edge {
        let extra = [&ASKS_OFTEN[..], more].concat();
        Edge::start(&self.path("edge"), GARAGE, &[self.server.address()], &extra)
    }

    fn operator(&self) -> Operator {
        Operator::of(self.server.dir())
    }

    /// The alarm of a code, as the list has it.
    fn listed(&self, code: &str, garage: Option<&str>) -> Option<Value> {
        let answer = self.server.http().get_json("/v1/alarms");
        let mut all = answer["alarms"].as_array().unwrap().iter();
        all.find(|line| line["code"] == code && line["garage"].as_str() == garage).cloned()
    }

    fn in_metrics(&self, code: &str, garage: Option<&str>) -> bool {
        let metrics = self.server.http().get("/metrics").unwrap().body;
        let garage = garage.unwrap_or_default();
        metrics.contains(&format!("fogpost_server_alarm{{code=\"{code}\",garage=\"{garage}\"}} 1\n"))
    }

    fn mails(&self, what: &str, code: &str, garage: Option<&str>) -> usize {
        self.mail.with_subject(&format!("] {what}: {} {code}", garage.unwrap_or("server")))
    }

    /// Waits until the alarm is raised wherever people and programs look, and gives its line of the list.
    fn reaches(&self, code: &str, garage: Option<&str>) -> Value {
        wait_until(&format!("{code} is raised"), SOON, &[&self.server], || {
            self.listed(code, garage).is_some()
        });
        let line = self.listed(code, garage).unwrap();
        assert!(self.in_metrics(code, garage));
        wait_until(&format!("{code} reaches both"), SOON, &[&self.server], || {
            self.hook.events_of(code, garage) == ["raised"] && self.mails("alarm", code, garage) == 1
        });
        let explained = self.operator().says(&["explain", code]).done();
        assert!(explained.starts_with(&format!("{code} (")) && explained.contains("alarm"), "{explained}");
        line
    }

    /// Waits until it is resolved everywhere; it was raised once.
    fn is_over(&self, code: &str, garage: Option<&str>) {
        wait_until(&format!("{code} is resolved"), SOON, &[&self.server], || {
            self.listed(code, garage).is_none()
                && self.hook.events_of(code, garage) == ["raised", "resolved"]
                && self.mails("resolved", code, garage) == 1
        });
        assert!(!self.in_metrics(code, garage));
        assert_eq!(self.mails("alarm", code, garage), 1);
    }
}

fn configure(file: &Path, (hook, mail): (&Webhook, &MailSink), in_server: &str, in_alarms: &str) {
    let receivers = hook.table("hook") + &mail.table("mail", "");
    std::fs::write(file, format!("[server]\n{in_server}\n[alarms]\n{THRESHOLDS}{in_alarms}\n{receivers}"))
        .unwrap();
}

fn post(edge: &Edge, events: &[Value]) {
    for event in events {
        assert_eq!(edge.http().post_event(event).unwrap().status, 201);
    }
}

fn enter(edge: &Edge, cars: std::ops::Range<usize>) {
    let entries: Vec<Value> = cars.map(|n| json!({"kind": "entry", "plate": format!("CAR{n}")})).collect();
    post(edge, &entries);
}

fn delivered(edge: &Edge, server: &Server) {
    wait_until("everything is delivered", SOON, &[edge, server], || edge.depth() == 0);
}

#[test]
fn a_silent_edge_and_a_decommissioned_garage_is_not_missed() {
    let city = City::new();
    let mut edge = city.edge(&[]);
    enter(&edge, 0..2);
    delivered(&edge, &city.server);
    edge.kill();
    let line = city.reaches("edge_silent", Some(GARAGE));
    assert!(
        line["facts"]["silent_seconds"].as_u64().unwrap() >= 4 && line["notified_at"].is_string(),
        "{line}"
    );
    assert!(
        line["summary"].as_str().unwrap().contains("nothing was heard")
            && !line["hint"].as_str().unwrap().is_empty()
    );
    edge.restart();
    city.is_over("edge_silent", Some(GARAGE));
    edge.kill();
    wait_until("it is silent again", SOON, &[&city.server], || {
        city.listed("edge_silent", Some(GARAGE)).is_some()
    });
    city.operator().says(&["garages", "decommission", GARAGE]).done();
    wait_until("nobody misses it", SOON, &[&city.server], || {
        city.hook.events_of("edge_silent", Some(GARAGE)) == ["raised", "resolved", "raised", "resolved"]
    });
}

/// An old copy of a garage's directory confirms events, and meets the server.
#[test]
fn a_conflict_with_a_backlog_that_grows_in_a_full_outbox() {
    let mut city = City::new();
    let mut edge = city.edge(&[]);
    enter(&edge, 0..5);
    delivered(&edge, &city.server);
    edge.stop();
    copy(edge.dir(), &city.path("old"));
    edge.restart();
    enter(&edge, 5..9);
    delivered(&edge, &city.server);
    edge.stop();
    city.server.stop();
    let extra = [&ASKS_OFTEN[..], &["--max-events", "4"]].concat();
    let old = Edge::start(&city.path("old"), GARAGE, &[city.server.address()], &extra);
    enter(&old, 10..14);
    city.server.restart();
    let line = city.reaches("conflict", Some(GARAGE));
    assert_eq!(line["facts"]["sequence"], 6, "{line}");
    let line = city.reaches("backlog_grows", Some(GARAGE));
    assert_eq!(line["facts"]["backlog"], 4, "{line}");
    let line = city.reaches("outbox_full", Some(GARAGE));
    assert!(line["summary"].as_str().unwrap().contains("its limit is 4"), "{line}");
    assert!(city.listed("queue_stands_still", Some(GARAGE)).is_none(), "its reason is an alarm of its own");
    city.operator().says(&["garages", "adopt", GARAGE]).done();
    for code in ["conflict", "backlog_grows", "outbox_full"] {
        city.is_over(code, Some(GARAGE));
    }
}

/// A server without room refuses events, so the queue of the garage does not move. It is restarted with room: what it raised before is resolved.
#[test]
fn a_queue_that_stands_still_and_disks_that_are_nearly_full() {
    let mut city = City::with("reserve_bytes = 0", "disk_free_bytes = 0");
    let edge = city.edge(&[]);
    enter(&edge, 0..2);
    delivered(&edge, &city.server);
    city.configure("reserve_bytes = 1_000_000_000_000_000", "disk_free_bytes = 1_000_000_000_000_000");
    city.server.kill();
    enter(&edge, 2..4);
    city.server.restart();
    let line = city.reaches("queue_stands_still", Some(GARAGE));
    assert!(line["facts"]["refused"].as_str().unwrap().contains("disk is full"), "{line}");
    for garage in [None, Some(GARAGE)] {
        let line = city.reaches("disk_nearly_full", garage);
        assert!(line["facts"]["left_bytes"].as_u64() < line["facts"]["least_bytes"].as_u64(), "{line}");
    }
    city.configure("reserve_bytes = 0", "disk_free_bytes = 0");
    city.server.kill();
    city.server.restart();
    city.is_over("queue_stands_still", Some(GARAGE));
    city.is_over("disk_nearly_full", None);
    city.is_over("disk_nearly_full", Some(GARAGE));
}

#[test]
fn an_impossible_occupancy_and_a_count_that_drifts() {
    let city = City::new();
    let edge = city.edge(&["--capacity", "20"]);
    enter(&edge, 0..2);
    delivered(&edge, &city.server);
    wait_until("the server has looked", SOON, &[&city.server], || {
        std::fs::read_to_string(city.path("server/alarms.json"))
            .is_ok_and(|kept| kept.contains("\"apart\":0"))
    });
    post(&edge, &[json!({"kind": "count", "occupied": 21, "reason": "counted"})]);
    let line = city.reaches("occupancy_impossible", Some(GARAGE));
    assert_eq!((&line["facts"]["occupied"], &line["facts"]["capacity"]), (&json!(21), &json!(20)), "{line}");
    let line = city.reaches("count_drifts", Some(GARAGE));
    assert_eq!((&line["facts"]["apart"], &line["facts"]["open_stays"]), (&json!(19), &json!(2)), "{line}");
    post(&edge, &[json!({"kind": "count", "occupied": 2, "reason": "counted again"})]);
    city.is_over("occupancy_impossible", Some(GARAGE));
    city.is_over("count_drifts", Some(GARAGE));
    post(
        &edge,
        &[json!({"kind": "count", "occupied": 0, "reason": "x"}), json!({"kind": "exit", "plate": "CAR9"})],
    );
    wait_until("fewer than none are inside", SOON, &[&city.server], || {
        city.listed("occupancy_impossible", Some(GARAGE)).is_some_and(|line| line["facts"]["occupied"] == -1)
    });
}

/// The server is put back from a backup, and misses what it had acknowledged.
#[test]
fn a_missing_range() {
    let mut city = City::with("", "missing_for = \"20s\"");
    let edge = city.edge(&[]);
    enter(&edge, 0..4);
    delivered(&edge, &city.server);
    city.operator().says(&["backup", city.path("backup").to_str().unwrap()]).done();
    for n in 4..8 {
        enter(&edge, n..n + 1);
        delivered(&edge, &city.server);
    }
    city.server.kill();
    city.server = city.server.start_in_its_place(&city.path("backup"));
    enter(&edge, 8..10);
    let line = city.reaches("events_missing", Some(GARAGE));
    assert!(line["facts"]["events"].as_u64().unwrap() >= 1, "{line}");
    city.is_over("events_missing", Some(GARAGE));
}

/// A server whose clock is more than a year ahead: the certificates, the calendar and the clock of the garage are wrong by it.
#[test]
fn certificates_and_a_calendar_that_end_and_clocks_that_differ() {
    let dir = tempfile::tempdir().unwrap();
    let Some(clock) = FakeClock::new(&dir.path().join("clock")) else { return };
    let certs = Certs::new(dir.path());
    certs.issue(GARAGE);
    clock.set_days_ahead(380);
    let (hook, mail) = (Webhook::start(dir.path()), MailSink::start());
    let through = TimeZone::UTC.to_datetime(Timestamp::now()).date().saturating_add(420.days());
    let tariff = format!(
        "[[calendar]]\nname = \"bw\"\ncomplete_from = 2026-01-01\ncomplete_through = {through}\nholidays = [2026-01-01]\n
[[tariff]]\nname = \"all\"\ngarages = [\"*\"]\ncurrency = \"EUR\"\ntime_zone = \"Europe/Berlin\"\nvalid_from = 2020-01-01\nvat_reason = \"none\"\ncalendar = \"bw\"\nunit_minutes = 60
bands = [{{ days = \"holiday\", from = \"00:00\", to = \"24:00\", per_unit = 100 }}, {{ days = \"all\", from = \"00:00\", to = \"24:00\", per_unit = 200 }}]\n"
    );
    let file = dir.path().join("city.toml");
    configure(&file, (&hook, &mail), "", "");
    let settings = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, settings + &tariff).unwrap();
    let server = certs.server_with(&clock.tracer(), &["--config", file.to_str().unwrap()]);
    let edge = certs.edge(GARAGE, GARAGE, &server);
    enter(&edge, 0..1);
    let city = City { server, hook, mail, dir };
    let line = city.reaches("certificate_expires", None);
    assert_eq!(line["facts"]["days_left"]["own"], 19, "{line}");
    let line = city.reaches("certificate_expires", Some(GARAGE));
    assert_eq!(line["facts"]["days_left"]["edge"], 19, "{line}");
    let line = city.reaches("calendar_ends", None);
    assert!(line["summary"].as_str().unwrap().contains(&through.to_string()), "{line}");
    let line = city.reaches("clocks_differ", Some(GARAGE));
    assert!(line["summary"].as_str().unwrap().contains("behind"), "{line}");
    clock.set_days_ahead(0);
    for (code, garage) in [
        ("certificate_expires", None),
        ("certificate_expires", Some(GARAGE)),
        ("calendar_ends", None),
        ("clocks_differ", Some(GARAGE)),
    ] {
        city.is_over(code, garage);
    }
}

/// The server is killed while nobody takes its notifications.
#[test]
fn what_was_raised_before_a_kill_arrives_after_it_once_and_in_order() {
    let mut city = City::new();
    let mut edge = city.edge(&[]);
    enter(&edge, 0..1);
    delivered(&edge, &city.server);
    city.hook.answers(500);
    edge.kill();
    wait_until("it was tried", SOON, &[&city.server], || city.hook.refused() > 1);
    city.server.kill();
    let kept = std::fs::read(city.path("server/alarms.json")).unwrap();
    city.server.restart();
    edge.restart();
    wait_until("it is resolved", SOON, &[&city.server], || {
        city.listed("edge_silent", Some(GARAGE)).is_none()
    });
    assert!(city.hook.accepted().is_empty());
    let undelivered = city.server.http().get("/metrics").unwrap().body;
    assert!(
        undelivered.contains("fogpost_server_notifications_undelivered{receiver=\"hook\"} 2\n"),
        "{undelivered}"
    );
    assert_eq!(
        city.server.log().matches("\"notification_not_delivered\"").count(),
        2,
        "once for each process"
    );
    city.hook.answers(302);
    city.server.kill();
    city.server.restart();
    let before = city.hook.refused();
    wait_until("a redirect is no success, and is not followed", SOON, &[&city.server], || {
        city.hook.refused() > before
    });
    city.hook.answers(200);
    wait_until("both arrive", SOON, &[&city.server], || city.hook.accepted().len() >= 2);
    assert_eq!(city.hook.events_of("edge_silent", Some(GARAGE)), ["raised", "resolved"]);
    let raised = &city.hook.accepted()[0];
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(kept["lines"]["hook"]["waiting"][0]["id"], raised["id"], "the id is that of the first try");
    assert_eq!(raised["server"], city.server.http().get_json("/v1/occupancy")["ledger"]);
    wait_until("nothing waits", SOON, &[&city.server], || {
        city.server.metric("fogpost_server_notifications_undelivered{receiver=\"hook\"}") == 0
    });
}

#[test]
fn what_is_silenced_is_shown_and_not_announced_and_a_file_that_is_damaged_begins_empty() {
    let mut city = City::new();
    let mut edge = city.edge(&[]);
    enter(&edge, 0..1);
    delivered(&edge, &city.server);
    let operator = city.operator();
    let said = operator.says(&["alarms", "silence", "edge_silent", GARAGE, "--until", "1d"]).done();
    assert!(said.contains("Nobody is notified of edge_silent in \"Bull Ring\" until"), "{said}");
    assert!(
        operator
            .says(&["alarms", "silence", "outbox-full", "--until", "1d"])
            .refused()
            .contains("is no alarm of a server")
    );
    assert!(
        operator
            .says(&["alarms", "silence", "conflict", "x", "--until", "1d"])
            .refused()
            .contains("no garage named")
    );
    edge.kill();
    wait_until("it is shown", SOON, &[&city.server], || city.listed("edge_silent", Some(GARAGE)).is_some());
    city.server.kill();
    city.server.restart();
    let list = operator.says(&["alarms", "list"]).done();
    assert!(list.contains("edge_silent") && list.contains("silenced until"), "{list}");
    let listed = operator.says(&["alarms", "list", "--json"]).json();
    assert_eq!(listed["alarms"][0]["notified_at"], Value::Null, "{listed}");
    assert!(city.in_metrics("edge_silent", Some(GARAGE)) && city.hook.accepted().is_empty());
    operator.says(&["alarms", "unsilence", "edge_silent", GARAGE]).done();
    city.reaches("edge_silent", Some(GARAGE));
    let audit = operator.says(&["audit", "--json"]).json().to_string();
    assert_eq!(audit.matches("alarms_silence").count(), 4, "{audit}");

    city.server.kill();
    std::fs::write(city.path("server/alarms.json"), "{").unwrap();
    city.server.restart();
    wait_until("it is raised again", SOON, &[&city.server], || {
        city.hook.events_of("edge_silent", Some(GARAGE)) == ["raised", "raised"]
    });
    assert!(
        city.server.log().contains("\"alarms_unreadable\"")
            && city.path("server/alarms.json.unreadable").exists()
    );
    city.server.stop();
    let refused = operator.says(&["alarms", "list"]).refused();
    assert!(refused.contains("only a running one knows alarms"), "{refused}");
}

#[test]
fn a_test_reaches_a_mailbox_through_tls_and_no_secret_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::new(dir.path());
    let of_mail = dir.path().join("mail-certs");
    certs.run(&["issue", "--host", "127.0.0.1", "--out", of_mail.to_str().unwrap()]);
    let (hook, mail) = (Webhook::start(dir.path()), MailSink::start_tls(&of_mail));
    std::fs::write(dir.path().join("password"), "p\n").unwrap();
    std::fs::write(dir.path().join("wrong"), "wr0ng-pass\n").unwrap();
    let login = |file: &str| format!("user = \"u\"\npassword_file = {:?}", dir.path().join(file));
    let file = dir.path().join("city.toml");
    let tables = [
        hook.table("hook"),
        mail.table("mail", &login("password")),
        mail.table("locked-out", &login("wrong")),
    ];
    std::fs::write(&file, tables.concat()).unwrap();
    let authorities = format!("SSL_CERT_FILE={}", certs.of_server().join("ca.pem").display());
    let config = ["--config", file.to_str().unwrap()];
    let server = Server::start_under(&["env", &authorities], &dir.path().join("server"), &config);
    let operator = Operator::of(server.dir());
    let said = operator.says(&["alarms", "test"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[1].starts_with("hook") && lines[1].contains("it arrived"), "{said:?}");
    assert!(lines[2].starts_with("mail") && lines[2].contains("it arrived"), "{said:?}");
    assert!(lines[3].starts_with("locked-out") && lines[3].contains("failed: "), "{said:?}");
    assert_eq!(
        (mail.with_subject("[fogpost] test"), hook.accepted()[0]["event"].as_str()),
        (1, Some("test"))
    );
    assert!(mail.mails()[0].contains("To: ada@city.example, bob@city.example"), "{:?}", mail.mails());
    let shown =
        [server.log(), server.http().get("/metrics").unwrap().body, said.stdout, said.stderr].concat();
    let kept = std::fs::read_to_string(dir.path().join("server/alarms.json")).unwrap_or_default();
    for secret in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "wr0ng-pass"] {
        assert!(!shown.contains(secret) && !kept.contains(secret), "{shown}");
    }

    // Without this authority the certificate of the mail server is not accepted.
    drop(server);
    let server = Server::start(&dir.path().join("server"), &config);
    let said = operator.says(&["alarms", "test", "--json"]);
    assert_eq!((said.code, mail.mails().len()), (Some(1), 1), "{said:?}");
    drop(server);
}
