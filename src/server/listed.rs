//! Garages and events in quarantine as JSON: the same over HTTP and for operators.

use super::states::{GaragesNow, StateNow};
use super::view::{GarageState, Snapshot};
use crate::messaging::SiteName;
use crate::parking::Moment;
use crate::parking::board::OccupancyLine;
use crate::parking::garage::{ConfiguredGarage, GeoPoint, GeoPointJson, HoursText, ShownState};
use jiff::Timestamp;
use serde::Serialize;

/// How full a garage is, under the name that it has now, and whether it is open; and when it opens or closes next.
pub fn occupancy(
    garages: &GaragesNow<'_>,
    key: &SiteName,
    garage: &GarageState,
) -> (OccupancyLine, Option<Timestamp>) {
    let StateNow { state, changes_at, .. } = garages.state(key, garage);
    (occupancy_in(garages, key, garage, state), changes_at)
}

fn occupancy_in(
    garages: &GaragesNow<'_>,
    key: &SiteName,
    garage: &GarageState,
    state: Option<ShownState>,
) -> OccupancyLine {
    let counts = (garages.capacity(key, garage), garage.known_occupied());
    OccupancyLine::new(garages.view.name_of(key).to_string(), counts, garage.as_of_ms, state)
}

#[derive(Serialize)]
pub struct GarageLine {
    #[serde(flatten)]
    occupancy: OccupancyLine,
    /// Since when it is full or closed, or was opened against its hours, as far as that is known.
    state_since: Option<String>,
    /// Why it was opened or closed, if a reason was given.
    state_reason: Option<String>,
    /// When it opens or closes next, if nothing more is said.
    state_changes_at: Option<String>,
    /// Its table of the configuration.
    #[serde(flatten)]
    table: GarageTableLine,
    /// The capacity that the edge reports, where an operator set another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity_told: Option<u32>,
    /// The name under which it came first, where it was renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    formerly: Option<String>,
    decommissioned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    events_since_decommissioned: Option<u64>,
    position: u64,
    events: u64,
}

/// What its table of the configuration says of a garage; null, what it does not.
#[derive(Default, Serialize)]
struct GarageTableLine {
    address: Vec<String>,
    #[serde(rename = "location")]
    position: Option<GeoPointJson>,
    group: Option<String>,
    opening_hours: Option<HoursText>,
    configured_capacity: Option<u32>,
}

impl GarageTableLine {
    fn of(garage: &ConfiguredGarage) -> GarageTableLine {
        GarageTableLine {
            address: garage.address.clone(),
            position: garage.position.map(GeoPoint::degrees),
            group: garage.group.clone(),
            opening_hours: garage.hours.clone().into(),
            configured_capacity: garage.capacity,
        }
    }
}

impl GarageLine {
    /// The garage of a key, as far as the views and the configuration know it.
    pub fn of(garages: &GaragesNow<'_>, key: &SiteName) -> GarageLine {
        let view = garages.view;
        let name = view.name_of(key);
        let unknown = GarageState::default();
        let garage = view.garages.get(key).unwrap_or(&unknown);
        let retired = garage.decisions.decommissioned.as_ref();
        let StateNow { state, since, reason, changes_at } = garages.state(key, garage);
        let text = |at: Option<Timestamp>| at.map(|at| Moment::utc_text(at.as_millisecond()));
        GarageLine {
            occupancy: occupancy_in(garages, key, garage, state),
            state_since: text(since),
            state_reason: reason,
            state_changes_at: text(changes_at),
            table: garages.configured(key).map(GarageTableLine::of).unwrap_or_default(),
            capacity_told: (garage.told_capacity != garage.capacity).then_some(garage.told_capacity),
            formerly: (name != key).then(|| key.to_string()),
            decommissioned: retired.is_some(),
            events_since_decommissioned: retired.map(|since| since.events_since),
            position: view.position,
            events: garage.events,
        }
    }
}

#[derive(Serialize)]
pub struct QuarantineLine {
    /// The position and the index in the page, by which commands name it.
    place: String,
    garage: String,
    epoch: String,
    sequence: u64,
    position: u64,
    reason: String,
    received_at: String,
}

/// The events that wait after a (position, index in the page), oldest first, each with its place; and where to continue.
pub fn quarantine(
    view: &Snapshot,
    after: Option<(u64, usize)>,
    limit: usize,
) -> (Vec<(String, QuarantineLine)>, Option<String>) {
    let mut waiting = view.waiting_events(after);
    let line = |(position, index, page): (u64, usize, &super::view::QuarantinedPage)| {
        let place = format!("{position}.{index}");
        let line = QuarantineLine {
            place: place.clone(),
            garage: view.name_of(view.key_of(&page.garage)).to_string(),
            epoch: page.epoch.to_string(),
            sequence: page.first + index as u64,
            position,
            reason: page.reason.clone(),
            received_at: Moment::utc_text(page.received_at_ms),
        };
        (place, line)
    };
    let shown: Vec<_> = waiting.by_ref().take(limit).map(line).collect();
    let next = waiting.next().and(shown.last()).map(|(place, _)| place.clone());
    (shown, next)
}
