//! A garage under test: its edge, and the cameras that post to it.

use super::books::{assert_exactly_once, events_of};
use super::daemon::{Edge, Server};
use super::producer::{Journal, Producer};
use super::wait_until;
use std::path::Path;
use std::time::Duration;

/// How long delivering what is left may take, once nothing is killed any more: an edge that was refused again and again, or was not
/// answered, waits for up to a minute before it sends again.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(150);

/// How fast each camera posts at most.
const EVENTS_PER_S: f64 = 500.0;

pub struct Garage {
    pub edge: Edge,
    cameras: Vec<Producer>,
    journals: Vec<Journal>,
}

/// What a garage has come to in the end.
#[derive(Debug, Clone, Copy, Default)]
#[allow(dead_code, reason = "a failure shows it whole")]
pub struct Settled {
    pub confirmed: u64,
    /// Posts whose answer never came, and how many of their events are applied nevertheless.
    pub unanswered_posts: u64,
    pub applied: u64,
}

impl Garage {
    /// One camera for each of `cameras`, which are walked round as the sizes of its posts.
    pub fn start(dir: &Path, name: &str, servers: &[String], cameras: &[&[usize]]) -> Garage {
        Garage::start_under(&[], dir, name, servers, cameras)
    }

    /// The same with an edge under another program, such as a tracer, which must leave the pid to the edge.
    pub fn start_under(
        tracer: &[&str],
        dir: &Path,
        name: &str,
        servers: &[String],
        cameras: &[&[usize]],
    ) -> Garage {
        let often = ["--board-interval-ms", "100"];
        let edge = Edge::start_under(tracer, &dir.join(format!("edge-{name}")), name, servers, &often);
        let prefixes = (b'A'..=b'Z').map(|letter| format!("{}{}", char::from(letter), "Q"));
        let cameras = cameras.iter().zip(prefixes);
        let cameras = cameras
            .map(|(sizes, prefix)| Producer::start_paced(edge.address(), &prefix, sizes, 0, EVENTS_PER_S))
            .collect();
        Garage { edge, cameras, journals: Vec::new() }
    }

    /// How many events were answered 201 so far.
    pub fn confirmed(&self) -> u64 {
        self.cameras.iter().map(Producer::confirmed_events).sum()
    }

    /// Counts what a camera of the caller's own posted here, too.
    pub fn posted(&mut self, journal: Journal) {
        self.journals.push(journal);
    }

    /// No more cars.
    pub fn stop_cameras(&mut self) {
        self.journals.extend(self.cameras.drain(..).map(Producer::finish));
    }

    /// Stops the cameras, waits until everything is delivered, compares the books with what was confirmed, looks the outbox
    /// over, and lets the server's `verify` agree.
    pub fn settle(&mut self, server: &Server) -> Settled {
        self.stop_cameras();
        let name = self.edge.name().to_owned();
        let edge = &self.edge;
        wait_until("everything is delivered", SETTLE_WITHIN, &[edge, server], || edge.depth() == 0);
        let applied = events_of(server, &name);
        assert_exactly_once(&applied, &self.journals);
        let inside = applied.len() as u64;
        wait_until("the view counts every applied entry", SETTLE_WITHIN, &[server], || {
            server.occupied(&name) == Some(inside as i64)
        });
        wait_until("the garage shows the same count", SETTLE_WITHIN, &[edge, server], || {
            edge.http().get_json("/v1/board")["own"]["occupied"] == inside
        });
        server.verifies();
        edge.assert_sound();
        Settled {
            confirmed: self.journals.iter().map(Journal::confirmed_events).sum(),
            unanswered_posts: self.journals.iter().map(|journal| journal.unknown.len() as u64).sum(),
            applied: inside,
        }
    }
}
