//! **Promise.** However far and whenever a wall clock is set, at the edge, at the server or at both, no event is lost, none
//! expires, what is due to be sent again is sent again in its time, and both sides say that a clock is wrong. Old events
//! that arrive late are no wrong clock.
//!
//! In the middle of traffic the clock that the real programs see is set 10 years forth and back.

use crate::common::peers::Detour;
use crate::common::scale::{Scale, runs_from};
use crate::common::{
    Edge, FakeClock, Garage, Journal, Program, Server, assert_exactly_once, events_of, wait_until,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const YEARS: i32 = 10;
const YEARS_S: f64 = 10.0 * 365.0 * 86_400.0;
/// A clock may be this far from where it was set to, in seconds, while the machine is busy.
const ABOUT_S: f64 = 60.0;
const SOON: Duration = Duration::from_secs(30);

struct World {
    edge_clock: FakeClock,
    server_clock: FakeClock,
    server: Server,
    way: Detour,
    garage: Garage,
}

impl World {
    /// `None` when this machine cannot fake a clock.
    fn start(dir: &std::path::Path) -> Option<World> {
        let edge_clock = FakeClock::new(&dir.join("edge-clock"))?;
        let server_clock = FakeClock::new(&dir.join("server-clock"))?;
        let server = Server::start_under(&server_clock.tracer(), &dir.join("server"), &[]);
        let way = Detour::start(server.listen());
        let cameras: [&[usize]; 3] = [&[1], &[1], &[1, 20]];
        let garage = Garage::start_under(&edge_clock.tracer(), dir, "a", &[way.address()], &cameras);
        Some(World { edge_clock, server_clock, server, way, garage })
    }

    fn outbox(&self) -> Value {
        self.garage.edge.http().get_json("/v1/outbox")
    }

    /// What the server says of the garage.
    fn seen(&self) -> Value {
        self.server.http().get_json("/v1/garages/a")
    }

    fn wait(&self, what: &str, happened: impl FnMut() -> bool) {
        wait_until(what, SOON, &[&self.garage.edge, &self.server], happened);
    }

    /// Events are confirmed, and those reach the server.
    fn traffic_flows(&self) {
        let confirmed = self.garage.confirmed();
        self.wait("events are confirmed", || self.garage.confirmed() > confirmed + 50);
        let confirmed = self.garage.confirmed();
        self.wait("what was confirmed arrives", || self.server.applied_of("a") >= confirmed);
    }

    /// What is sent while nothing comes back is sent again when the resend time is over, whatever the wall clock says.
    fn what_is_not_answered_is_sent_again(&self) {
        let given_up = || self.garage.edge.log().matches("no usable reply in time").count();
        let (resends, before) = (self.outbox()["resends"].as_u64().unwrap(), given_up());
        self.way.fall_silent();
        let silent = Instant::now();
        self.wait("the edge gives the silent way up", || given_up() > before);
        self.way.speak_again();
        self.wait("what was not answered is sent again", || {
            self.outbox()["resends"].as_u64().unwrap() > resends
        });
        println!("  sent again {:.1?} after the silence began", silent.elapsed());
        self.traffic_flows();
    }

    /// Kills one after the other, which come back to a clock that shows what it shows.
    fn both_start_again(&mut self) {
        self.garage.edge.kill();
        self.garage.edge.restart_under(&self.edge_clock.tracer());
        self.traffic_flows();
        self.server.kill();
        self.server.restart_under(&self.server_clock.tracer());
        self.traffic_flows();
    }

    /// Both sides say how far the edge's clock is before the server's.
    fn both_say(&self, edge_ahead_s: f64) {
        let about =
            |value: &Value, wanted: f64| value.as_f64().is_some_and(|is| (is - wanted).abs() < ABOUT_S);
        self.wait("the edge says how the clocks differ", || {
            about(&self.outbox()["clock"]["server_ahead_seconds"], -edge_ahead_s)
        });
        self.wait("the server says how the clocks differ", || {
            let seen = self.seen();
            about(&seen["clock_ahead_seconds"], edge_ahead_s)
                && seen["clock_alarm"] == (edge_ahead_s.abs() > ABOUT_S)
        });
    }

    /// Of the clocks, at both.
    fn alarms(&self) -> (usize, usize) {
        let count = |program: &dyn Program, words: &str| program.log().matches(words).count();
        (
            count(&self.garage.edge, "the clock of this machine and that of the server differ"),
            count(&self.server, "the clocks of this garage and of this server differ"),
        )
    }
}

fn jump(edge_jumps: bool, server_jumps: bool) {
    let smallest = if edge_jumps && server_jumps { Scale::Quick } else { Scale::Default };
    if !runs_from(smallest) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(mut world) = World::start(dir.path()) else { return };
    world.traffic_flows();
    world.both_say(0.0);
    assert_eq!(world.alarms(), (0, 0), "{}", world.garage.edge.log());
    // Forth; from there back, 20 years at once; and to the right time again.
    for (step, years) in [YEARS, -YEARS, 0].into_iter().enumerate() {
        let began = Instant::now();
        if edge_jumps {
            world.edge_clock.set_years_ahead(years);
        }
        if server_jumps {
            world.server_clock.set_years_ahead(years);
        }
        world.traffic_flows();
        let ahead = YEARS_S * f64::from(years.signum());
        world.both_say(ahead * (f64::from(i8::from(edge_jumps)) - f64::from(i8::from(server_jumps))));
        println!("{years:+} years: known after {:.1?}", began.elapsed());
        for (jumps, program) in
            [(edge_jumps, &world.garage.edge as &dyn Program), (server_jumps, &world.server)]
        {
            let said = || program.log().matches("the clock of this machine was set").count();
            world.wait("whose clock was set says so", || said() >= if jumps { step + 1 } else { 0 });
            assert!(jumps || said() == 0, "{}", program.log_tail());
        }
        world.what_is_not_answered_is_sent_again();
        world.both_start_again();
        let oldest = world.outbox()["oldest_age_seconds"].as_f64().unwrap_or(0.0);
        assert!(oldest < SOON.as_secs_f64(), "what waits is not {oldest} s old");
    }
    if edge_jumps != server_jumps {
        let (edge_said, server_said) = world.alarms();
        assert!(edge_said > 0 && server_said > 0, "{edge_said} and {server_said} alarms");
    }
    println!("{:?}", world.garage.settle(&world.server));
    if !server_jumps {
        return;
    }
    // What the events arrived at is what the server's clock showed.
    let received = events_of(&world.server, "a").into_iter().map(|event| event.received_at[..4].to_owned());
    let years: std::collections::BTreeSet<String> = received.collect();
    assert!(years.len() >= 3, "{years:?}");
}

#[test]
fn the_clock_of_the_edge_is_set_ten_years_forth_and_back() {
    jump(true, false);
}

#[test]
fn the_clock_of_the_server_is_set_ten_years_forth_and_back() {
    jump(false, true);
}

#[test]
fn the_clocks_of_both_are_set_ten_years_forth_and_back() {
    jump(true, true);
}

/// What happened years ago and comes today says nothing about a clock; nor does a backlog that waited.
#[test]
fn old_events_that_arrive_late_are_no_wrong_clock() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let edge =
        Edge::start(&dir.path().join("edge"), "a", &[server.address()], &["--board-interval-ms", "100"]);
    wait_until("they know each other", SOON, &[&edge, &server], || {
        server.http().get("/v1/garages/a").unwrap().status == 200
    });
    server.kill();
    let mut journal = Journal::default();
    for (year, at) in
        ["2009-01-01T00:00:00Z", "2016-07-01T12:00:00+02:00", "2041-01-01T00:00:00Z"].iter().enumerate()
    {
        let plates: Vec<String> = (0..500).map(|car| format!("KA{year}X{car}")).collect();
        let event = |plate: &String| json!({"kind": "entry", "plate": plate, "at": at}).to_string();
        let lines: Vec<String> = plates.iter().map(event).collect();
        let answer = edge.http().post_batch(&lines.join("\n")).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        let answer = answer.json();
        journal.confirmed.push(crate::common::producer::Confirmed {
            epoch: answer["epoch"].as_str().unwrap().into(),
            first: answer["first"].as_u64().unwrap(),
            plates,
        });
    }
    server.restart();
    // A server that was just started has not heard of it.
    let alarmed = || {
        let told = server.http().get("/v1/garages/a").unwrap();
        told.status == 200 && told.json()["clock_alarm"] == true
    };
    wait_until("they are delivered", SOON, &[&edge, &server], || {
        assert!(!alarmed());
        edge.depth() == 0
    });
    assert_exactly_once(&events_of(&server, "a"), &[journal]);
    server.verifies();
    edge.assert_sound();
    assert!(!alarmed());
    for log in [edge.log(), server.log()] {
        assert!(!log.contains("clock"), "{log}");
    }
}
