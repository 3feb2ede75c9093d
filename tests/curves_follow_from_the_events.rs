//! **Promise.** How full a garage was, over time, follows from its events and their times: it is the same after a kill and after a
//! rebuild. What a garage delivers late fills the time in which it happened; of a time of which nothing is known nothing is shown.

use crate::common::{Edge, Operator, Server, wait_until};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

struct World {
    server: Server,
    edge: Edge,
    posted: u64,
    /// The full hour before this test began.
    now: Timestamp,
    _dir: TempDir,
}

impl World {
    fn new(garage: &str) -> World {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("server"), &[]);
        let edge = Edge::start(&dir.path().join("edge"), garage, &[server.address()], &["--capacity", "40"]);
        let second = Timestamp::now().as_second();
        let now = Timestamp::from_second(second - second.rem_euclid(3_600)).unwrap();
        World { server, edge, posted: 0, now, _dir: dir }
    }

    fn hours_ago(&self, hours: i64) -> Timestamp {
        self.now - hours.hours()
    }

    fn post(&mut self, kind: &str, at: Timestamp) {
        let mut event = json!({"kind": kind, "at": at.to_string()});
        if kind == "count" {
            event["occupied"] = 20.into();
            event["reason"] = "rounds".into();
        } else {
            event["plate"] = Value::Null;
        }
        assert_eq!(self.edge.http().post_event(&event).unwrap().status, 201);
        self.posted += 1;
    }

    /// Waits until the written views show everything that was posted.
    fn wait_until_written(&self) {
        let server = &self.server;
        wait_until("the views are written", SOON, &[server], || {
            server.applied_of(self.edge.name()) == self.posted
                && server.http().get_json("/v1/stays?limit=1")["position"] == server.position()
        });
    }

    fn get(&self, what: &str) -> Value {
        self.server.http().get_json(&format!("/v1/garages/a%20%26%20b/{what}"))
    }

    /// The counts at the ends of the hours that began this long ago.
    fn counts(&self, hours_ago: &[i64]) -> Vec<Option<i64>> {
        let answer = self.get("history?span=7d");
        let points = answer["points"].as_array().unwrap();
        let count = |hours: &i64| {
            let at = json!(self.hours_ago(*hours).to_string());
            points.iter().find(|point| point["at"] == at)?["occupied"].as_i64()
        };
        hours_ago.iter().map(count).collect()
    }
}

#[test]
fn a_curve_is_the_same_after_kills_and_rebuilds() {
    let mut world = World::new("a & b");
    for (kind, hours) in
        [("entry", 50), ("entry", 49), ("entry", 30), ("exit", 29), ("count", 10), ("exit", 2)]
    {
        let at = world.hours_ago(hours);
        world.post(kind, at + 10.minutes());
    }
    world.wait_until_written();
    let hours = [51, 50, 49, 40, 30, 29, 11, 10, 3, 2];
    let counts = [None, Some(1), Some(2), Some(2), Some(3), Some(2), Some(2), Some(20), Some(20), Some(19)];
    assert_eq!(world.counts(&hours), counts);

    let answer = world.get("history?span=7d");
    assert_eq!(
        (&answer["garage"], &answer["unit"], &answer["capacity"]),
        (&json!("a & b"), &json!("hour"), &json!(40))
    );
    let at = json!(world.hours_ago(10).to_string());
    let counted = answer["points"].as_array().unwrap().iter().find(|point| point["at"] == at).unwrap();
    assert_eq!((&counted["min"], &counted["max"]), (&json!(2), &json!(20)));
    let minutes = world.get("history")["points"].as_array().unwrap().clone();
    let ten_past = json!((world.hours_ago(10) + 10.minutes()).to_string());
    let at = minutes.iter().position(|point| point["at"] == ten_past).unwrap();
    assert_eq!([&minutes[at - 1]["occupied"], &minutes[at]["occupied"]], [2, 20]);
    let days = world.get("history?span=1y");
    assert!((2..=4).contains(&days["points"].as_array().unwrap().len()), "{days}");

    // Later hours are known only while the edge says that nothing waits.
    let before = world.get("history?span=7d")["points"].as_array().unwrap()[..49].to_vec();
    let same = |world: &World| world.get("history?span=7d")["points"].as_array().unwrap()[..49] == before;
    world.server.kill();
    world.server.restart();
    world.wait_until_written();
    assert!(same(&world), "after a kill: {}", world.get("history?span=7d"));
    world.server.verifies();
    world.server.stop();
    Operator::of(world.server.dir()).says(&["rebuild-views"]).done();
    world.server.restart();
    world.wait_until_written();
    assert!(same(&world), "after a rebuild: {}", world.get("history?span=7d"));
    world.server.verifies();
}

#[test]
fn a_backlog_that_comes_late_fills_the_time_in_which_it_happened() {
    let mut world = World::new("a & b");
    let at = world.hours_ago(60);
    world.post("entry", at);
    world.wait_until_written();
    world.server.kill();
    // Two days without the server, and a clock that was years off for one event each way.
    for hours in (5..50).rev() {
        let at = world.hours_ago(hours);
        world.post("entry", at);
    }
    world.post("exit", "2061-01-01T00:00:00Z".parse().unwrap());
    world.post("exit", "1970-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(world.edge.depth(), 47);
    world.server.restart();
    world.wait_until_written();
    let counts = [Some(1), Some(1), Some(2), Some(32), Some(46)];
    assert_eq!(world.counts(&[60, 51, 49, 19, 5]), counts, "each car when it came");
    let last = world.get("history")["points"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["occupied"], 44, "what no clock can have seen counts when it was received");

    // An edge that has nothing to deliver is heard, so nothing happened: the curve goes on. One that is gone leaves a gap.
    let goes_on = |world: &World| {
        let answer = world.get("history");
        answer["points"].as_array().unwrap().last().unwrap()["at"].as_str().unwrap().to_owned()
    };
    let began = Timestamp::now();
    wait_until("the curve reaches a later minute", Duration::from_secs(90), &[&world.server], || {
        goes_on(&world).parse::<Timestamp>().unwrap() > began
    });
}

#[test]
fn the_city_gets_its_curves_at_once_and_a_chart_for_each_garage() {
    let mut world = World::new("a & b");
    for hours in [8, 6, 4] {
        let at = world.hours_ago(hours);
        world.post("entry", at);
    }
    world.wait_until_written();
    let http = world.server.http();
    for span in ["24h", "7d"] {
        let answer = http.get_json(&format!("/v1/curves?span={span}"));
        assert_eq!((answer["garages"].as_array().unwrap().len(), &answer["next"]), (1, &Value::Null));
        let curve = &answer["garages"][0];
        assert_eq!(
            (&curve["name"], &curve["peak"], &curve["capacity"]),
            (&json!("a & b"), &json!(3), &json!(40))
        );
        let path = curve["path"].as_str().unwrap();
        assert!(path.starts_with('M') && path.len() < 200, "{path}");
        assert_eq!(path.matches('M').count(), 1, "no gap after the first car: {path}");
    }
    for span in ["24h", "7d", "1y"] {
        let chart =
            http.get(&format!("/v1/garages/a%20%26%20b/chart.svg?span={span}&tz=Europe/Berlin")).unwrap();
        assert_eq!((chart.status, chart.header("content-type").as_str()), (200, "image/svg+xml"));
        for text in [
            "<title>Occupancy of a &amp; b, last ",
            "(Europe/Berlin): at most 3 of 40 spaces taken",
            "--chart-line",
        ] {
            assert!(chart.body.contains(text), "{text}: {}", chart.body);
        }
    }
    http.get("/v1/curves?span=1w").unwrap().problem_with(400, "invalid_query");
    http.get("/v1/garages/a%20%26%20b/chart.svg?tz=Atlantis").unwrap().problem_with(400, "invalid_query");
    http.get("/v1/garages/b/history").unwrap().problem_with(404, "no_such_garage");
    http.get("/v1/garages/b/chart.svg").unwrap().problem_with(404, "no_such_garage");
}
