//! The board as JSON.

use super::alarm;
use crate::daemon::clock;
use crate::edge::EdgeShared;
use crate::messaging::LedgerId;
use crate::parking::Moment;
use crate::parking::board::{BoardLine, OccupancyLine};
use crate::parking::garage::{GeoPoint, GeoPointJson, ShownState};
use crate::parking::occupancy::free_spaces;
use jiff::Timestamp;
use serde::Serialize;
use std::time::Instant;

/// `GET /v1/board`.
#[derive(Serialize)]
pub(super) struct BoardPage {
    version: Option<ShownVersion>,
    age_seconds: Option<f64>,
    received_at: Option<String>,
    connected: bool,
    /// The alarm of `GET /v1/outbox`.
    alarm: Option<String>,
    own: OwnGarage,
    garages: Vec<BoardGarage>,
    /// When the first of them opens or closes by time alone.
    #[serde(skip)]
    pub changes_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct ShownVersion {
    ledger: String,
    position: u64,
}

/// The garage of this edge; its count and its state include the events that are not delivered yet.
#[derive(Serialize)]
struct OwnGarage {
    name: String,
    capacity: u32,
    occupied: Option<i64>,
    free: Option<u32>,
    pending: u64,
    state: Option<ShownState>,
    /// When it opens or closes next, as far as is known.
    state_changes_at: Option<String>,
    group: Option<String>,
    position: Option<GeoPointJson>,
}

#[derive(Serialize)]
struct BoardGarage {
    #[serde(flatten)]
    occupancy: OccupancyLine,
    state_changes_at: Option<String>,
    group: Option<String>,
    position: Option<GeoPointJson>,
    /// From the garage of this edge, where the positions of both are known, as the crow flies.
    distance_m: Option<u32>,
    /// In which direction it is from there, clockwise from north.
    bearing_degrees: Option<u32>,
}

impl BoardGarage {
    /// The garage, and when it opens or closes next.
    fn new(
        name: &str,
        line: &BoardLine,
        here: Option<GeoPoint>,
        now: Timestamp,
    ) -> (BoardGarage, Option<Timestamp>) {
        let facts = &line.facts;
        let both = here.zip(facts.position);
        let (counts, state) = ((line.known_capacity(), line.known_occupied()), line.state(now));
        let changes_at = facts.openness().next_change(now);
        let garage = BoardGarage {
            occupancy: OccupancyLine::new(name.to_owned(), counts, line.as_of_ms, state),
            state_changes_at: changes_at.map(text),
            group: facts.group.clone(),
            position: facts.position.map(GeoPoint::degrees),
            distance_m: both.map(|(here, there)| here.distance_m(there)),
            bearing_degrees: both.and_then(|(here, there)| here.bearing_degrees(there)),
        };
        (garage, changes_at)
    }
}

fn text(at: Timestamp) -> String {
    Moment::utc_text(at.as_millisecond())
}

impl BoardPage {
    /// The board at this moment.
    pub fn of(shared: &EdgeShared) -> BoardPage {
        let connected = shared.sending().connected;
        let (capacity, now) = (shared.config.capacity, clock::now());
        let display = shared.display();
        let age = display.age(Instant::now());
        let occupied = display.own_occupied();
        let facts = display.own_facts();
        let here = facts.and_then(|facts| facts.position);
        let board = display.board();
        let lines = board.iter().flat_map(|board| &board.garages);
        let lines = lines.map(|(name, line)| BoardGarage::new(name, line, here, now));
        let (garages, changes): (Vec<_>, Vec<_>) = lines.unzip();
        let own_changes_at = display.own_openness().and_then(|its| its.next_change(now));
        BoardPage {
            version: board.map(|board| ShownVersion {
                ledger: LedgerId::from_bytes(board.version.ledger).to_string(),
                position: board.version.position,
            }),
            age_seconds: age.map(|(age, _)| age.as_secs_f64()),
            received_at: age.map(|(_, at_ms)| Moment::utc_text(at_ms)),
            connected,
            alarm: alarm(shared).map(|alarm| alarm.text),
            own: OwnGarage {
                name: shared.config.garage_name.to_string(),
                capacity,
                occupied,
                free: occupied.map(|occupied| free_spaces(capacity, occupied)),
                pending: shared.outbox.waiting(),
                state: display.own_state(now),
                state_changes_at: own_changes_at.map(text),
                group: facts.and_then(|facts| facts.group.clone()),
                position: here.map(GeoPoint::degrees),
            },
            garages,
            changes_at: changes.into_iter().chain([own_changes_at]).flatten().min(),
        }
    }
}
