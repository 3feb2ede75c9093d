//! Plans the cars of each garage from what the user requested and what the server already has.
//!
//! **Promise.** One seed, one request and one state of the server give one plan.

use super::books::Baseline;
use super::settings::{Cars, Settings};
use fogpost::traffic::plates::{PlateMixture, PlateRegistry};
use fogpost::traffic::recorded::RecordedTraffic;
use fogpost::traffic::recording::{self, Recording};
use fogpost::traffic::simulated::{self, Demand, NOON_UNIX_MS, PLAN_STARTS_UNIX_MS, SimulatedTraffic};
use fogpost::traffic::{Drivers, GarageTraffic, shares_of_the_first};
use jiff::tz::TimeZone;
use std::collections::HashSet;
use std::sync::Arc;

/// A garage of the city, simulated or recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GarageSite {
    pub name: String,
    pub capacity: u32,
}

/// The garages that were asked for.
pub fn sites(cars: &Cars) -> Vec<GarageSite> {
    match cars {
        Cars::Simulated { garages } => (0..*garages)
            .map(|index| {
                let (name, capacity, _) = simulated::simulated_garage(index);
                GarageSite { name, capacity }
            })
            .collect(),
        Cars::Recorded(recording) => recording
            .garages
            .iter()
            .map(|garage| GarageSite { name: garage.name.as_str().to_owned(), capacity: garage.capacity })
            .collect(),
    }
}

/// The cars of a city, by garage in the order of [`sites`].
#[derive(Debug)]
pub struct CarPlan {
    pub registry: Arc<PlateRegistry>,
    pub traffic: Vec<GarageTraffic>,
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
    match &settings.cars {
        Cars::Simulated { .. } => plan_simulated(settings, baselines),
        Cars::Recorded(recording) => plan_recorded(settings, recording, baselines),
    }
}

fn bundled(zone: &str) -> TimeZone {
    TimeZone::get(zone).expect("the time zones are part of the program")
}

/// The plates that are inside some garage.
fn taken(baselines: &[Baseline]) -> Arc<HashSet<Arc<str>>> {
    Arc::new(baselines.iter().flat_map(|baseline| baseline.state.inside.iter().cloned()).collect())
}

fn plan_simulated(settings: &Settings, baselines: &[Baseline]) -> CarPlan {
    let registry = Arc::new(simulated_plates(settings.flags.seed, baselines.len()));
    let zone = bundled(simulated::ZONE);
    let latest = baselines.iter().filter_map(|baseline| baseline.state.latest_unix_ms).max();
    let starts_unix_ms = latest.map_or(PLAN_STARTS_UNIX_MS, |latest| latest + 1);
    let taken = taken(baselines);
    let mut traffic = Vec::with_capacity(baselines.len());
    for (index, baseline) in baselines.iter().enumerate() {
        let (_, capacity, usage) = simulated::simulated_garage(index);
        let drivers = Drivers::new(registry.clone(), index, capacity, taken.clone());
        let (demand, zone) = (Demand::Usual(usage), zone.clone());
        let cars = SimulatedTraffic::new(
            demand,
            starts_unix_ms,
            &baseline.state,
            drivers,
            settings.flags.seed,
            zone,
        );
        traffic.push(GarageTraffic::Simulated(Box::new(cars)));
    }
    let limits = match settings.flags.limit {
        Some(limit) => shares_of_the_first(limit, &traffic),
        None => vec![u64::MAX; traffic.len()],
    };
    // A new city opens at noon with the cars of its morning.
    let clock_starts_unix_ms = starts_unix_ms.max(NOON_UNIX_MS);
    CarPlan { registry, traffic, limits, total: settings.flags.limit, clock_starts_unix_ms, zone }
}

/// The plates of the simulated city.
pub fn simulated_plates(seed: u64, garages: usize) -> PlateRegistry {
    PlateRegistry::new(PlateMixture::Continental, seed, garages)
}

fn plan_recorded(settings: &Settings, recording: &Recording, baselines: &[Baseline]) -> CarPlan {
    let registry = Arc::new(PlateRegistry::new(PlateMixture::British, settings.flags.seed, baselines.len()));
    let zone = bundled(recording::ZONE);
    let taken = taken(baselines);
    let mut traffic = Vec::with_capacity(baselines.len());
    for (index, (garage, baseline)) in recording.garages.iter().zip(baselines).enumerate() {
        let drivers = Drivers::new(registry.clone(), index, garage.capacity, taken.clone());
        let (rows, zone) = (garage.rows.clone(), zone.clone());
        let cars = RecordedTraffic::new(rows, &baseline.state, drivers, settings.flags.seed, zone);
        traffic.push(GarageTraffic::Recorded(Box::new(cars)));
    }
    let starting: Vec<i64> = baselines.iter().map(|baseline| baseline.state.occupied).collect();
    let limits = recording.shares(&starting, settings.flags.limit.unwrap_or(u64::MAX));
    let total = Some(limits.iter().sum());
    let clock_starts_unix_ms = recording.starts_unix_ms();
    CarPlan { registry, traffic, limits, total, clock_starts_unix_ms, zone }
}
