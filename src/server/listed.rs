//! Garages and events in quarantine as JSON: the same over HTTP and for operators.

use super::view::{GarageState, Snapshot};
use crate::messaging::SiteName;
use crate::parking::Moment;
use crate::parking::board::OccupancyLine;
use serde::Serialize;

/// How full a garage is, under the name that it has now.
pub fn occupancy(name: &SiteName, garage: &GarageState) -> OccupancyLine {
    let (capacity, occupied) = (garage.known_capacity(), garage.known_occupied());
    OccupancyLine::new(name.to_string(), capacity, occupied, garage.as_of_ms)
}

#[derive(Serialize)]
pub struct GarageLine {
    #[serde(flatten)]
    occupancy: OccupancyLine,
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

impl GarageLine {
    /// The garage of a key, as far as the views know it.
    pub fn of(view: &Snapshot, key: &SiteName) -> GarageLine {
        let name = view.name_of(key);
        let unknown = GarageState::default();
        let garage = view.garages.get(key).unwrap_or(&unknown);
        let retired = garage.decisions.decommissioned.as_ref();
        GarageLine {
            occupancy: occupancy(name, garage),
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
        let line = QuarantineLine {
            garage: view.name_of(view.key_of(&page.garage)).to_string(),
            epoch: page.epoch.to_string(),
            sequence: page.first + index as u64,
            position,
            reason: page.reason.clone(),
            received_at: Moment::utc_text(page.received_at_ms),
        };
        (format!("{position}.{index}"), line)
    };
    let shown: Vec<_> = waiting.by_ref().take(limit).map(line).collect();
    let next = waiting.next().and(shown.last()).map(|(place, _)| place.clone());
    (shown, next)
}
