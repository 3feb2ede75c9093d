//! Plans the cars of each garage from what the user requested and what the server already has.
//!
//! **Promise.** One seed, one request and one state of the server give one plan.

use super::books::Baseline;
use super::settings::Settings;
use fogpost::traffic::plates::PlateRegistry;
use fogpost::traffic::recording::{self, recorded_cars};
use fogpost::traffic::simulated::{self, Demand, NOON_UNIX_MS, PLAN_STARTS_UNIX_MS, SimulatedTraffic};
use fogpost::traffic::{CarStream, Drivers, shares_of_the_first};
use jiff::tz::TimeZone;
use std::collections::HashSet;
use std::sync::Arc;

/// A garage of the city, simulated or recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GarageSite {
    pub name: String,
    pub capacity: u32,
}

pub fn sites(settings: &Settings) -> Vec<GarageSite> {
    let simulated = |index| {
        let (name, capacity, _) = simulated::simulated_garage(index);
        GarageSite { name, capacity }
    };
    let recorded = |garage: &recording::RecordedGarage| GarageSite {
        name: garage.name.as_str().to_owned(),
        capacity: garage.capacity,
    };
    match &settings.recording {
        None => (0..usize::from(settings.flags.garages)).map(simulated).collect(),
        Some(recording) => recording.garages.iter().map(recorded).collect(),
    }
}

/// The cars of a city, by garage in the order of [`sites`].
pub struct CarPlan {
    pub traffic: Vec<CarStream>,
    /// How many events of each garage are to happen.
    pub limits: Vec<u64>,
    /// All of them; `None` if they have no end.
    pub total: Option<u64>,
    /// The time that the city's clock shows first. What was to happen before it happens at once.
    pub clock_starts_unix_ms: i64,
    pub zone: TimeZone,
}

/// Plans the cars, given what each garage holds.
pub fn plan(settings: &Settings, baselines: &[Baseline]) -> CarPlan {
    let latest = baselines.iter().filter_map(|baseline| baseline.state.latest_unix_ms).max();
    let simulated_from_unix_ms = latest.map_or(PLAN_STARTS_UNIX_MS, |latest| latest + 1);
    let (zone, clock_starts_unix_ms) = match &settings.recording {
        // A new city opens at noon with the cars of its morning.
        None => (simulated::ZONE, simulated_from_unix_ms.max(NOON_UNIX_MS)),
        Some(recording) => (recording::ZONE, recording.starts_unix_ms()),
    };
    let zone = TimeZone::get(zone).expect("the time zones are part of the program");
    let registry = Arc::new(PlateRegistry::new(settings.flags.seed, baselines.len()));
    let inside = baselines.iter().flat_map(|baseline| baseline.state.inside.iter().cloned());
    let inside: Arc<HashSet<Arc<str>>> = Arc::new(inside.collect());
    let cars = |(index, baseline): (usize, &Baseline)| -> CarStream {
        let drivers = |capacity| Drivers::new(registry.clone(), index, capacity, inside.clone());
        match &settings.recording {
            None => {
                let (_, capacity, usage) = simulated::simulated_garage(index);
                let (demand, start) = (Demand::Usual(usage), &baseline.state);
                let from = simulated_from_unix_ms;
                Box::new(SimulatedTraffic::new(demand, from, start, drivers(capacity), zone.clone()))
            }
            Some(recording) => {
                let garage = &recording.garages[index];
                recorded_cars(garage.rows.clone(), &baseline.state, drivers(garage.capacity))
            }
        }
    };
    let traffic = || baselines.iter().enumerate().map(cars).collect();
    let limits = match (settings.flags.limit, &settings.recording) {
        (Some(limit), _) => shares_of_the_first(limit, traffic()),
        (None, None) => vec![u64::MAX; baselines.len()],
        (None, Some(recording)) => {
            let garages = recording.garages.iter().zip(baselines);
            garages.map(|(garage, baseline)| garage.events_from(baseline.state.occupied)).collect()
        }
    };
    let total = (!limits.contains(&u64::MAX)).then(|| limits.iter().sum());
    CarPlan { traffic: traffic(), limits, total, clock_starts_unix_ms, zone }
}
