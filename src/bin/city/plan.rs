//! From what was asked for and what is there already, to the cars of each garage.
//!
//! **Promise.** One seed, one request and one state of the centre give one plan.

use super::books::Baseline;
use super::settings::{Cars, Settings};
use fogpost::traffic::plates::{PlateMixture, PlateRegistry};
use fogpost::traffic::recorded::RecordedTraffic;
use fogpost::traffic::recording;
use fogpost::traffic::simulated::{self, Demand, PLAN_STARTS_UNIX_MS, SimulatedTraffic};
use fogpost::traffic::{Drivers, GarageTraffic, shares_of_the_first};
use jiff::tz::TimeZone;
use std::collections::HashSet;
use std::sync::Arc;

/// A garage of the city, whoever invented it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    pub name: String,
    pub capacity: u32,
}

/// The garages that were asked for.
pub fn sites(cars: &Cars) -> Vec<Site> {
    match cars {
        Cars::Simulated { garages } => (0..*garages)
            .map(|index| {
                let (name, capacity, _) = simulated::simulated_garage(index);
                Site { name, capacity }
            })
            .collect(),
        Cars::Recorded(recording) => recording
            .garages
            .iter()
            .map(|garage| Site { name: garage.name.as_str().to_owned(), capacity: garage.capacity })
            .collect(),
    }
}

/// The cars of a city, by garage in the order of [`sites`].
#[derive(Debug)]
pub struct Plan {
    pub registry: Arc<PlateRegistry>,
    pub traffic: Vec<GarageTraffic>,
    /// How many events of each garage are to happen.
    pub limits: Vec<u64>,
    /// All of them; `None` if they have no end.
    pub total: Option<u64>,
    /// The time in the city when it begins.
    pub starts_unix_ms: i64,
    pub zone: TimeZone,
}

/// Plans the cars, given what each garage holds.
pub fn plan(settings: &Settings, baselines: &[Baseline]) -> Plan {
    let taken: HashSet<Arc<str>> =
        baselines.iter().flat_map(|baseline| baseline.state.inside.iter().cloned()).collect();
    let taken = Arc::new(taken);
    let bundled = |zone| TimeZone::get(zone).expect("the time zones are part of the program");
    match &settings.cars {
        Cars::Simulated { garages } => {
            let registry = Arc::new(PlateRegistry::new(PlateMixture::Continental, settings.seed, *garages));
            let zone = bundled(simulated::ZONE);
            let latest = baselines.iter().filter_map(|baseline| baseline.state.latest_unix_ms).max();
            let starts_unix_ms = latest.map_or(PLAN_STARTS_UNIX_MS, |latest| latest + 1);
            let traffic: Vec<GarageTraffic> = baselines
                .iter()
                .enumerate()
                .map(|(index, baseline)| {
                    let (_, capacity, usage) = simulated::simulated_garage(index);
                    let drivers = Drivers::new(registry.clone(), index, capacity, taken.clone());
                    GarageTraffic::Simulated(Box::new(SimulatedTraffic::new(
                        Demand::Usual(usage),
                        starts_unix_ms,
                        &baseline.state,
                        drivers,
                        settings.seed,
                        zone.clone(),
                    )))
                })
                .collect();
            let limits = match settings.limit {
                Some(limit) => shares_of_the_first(limit, &traffic),
                None => vec![u64::MAX; traffic.len()],
            };
            Plan { registry, traffic, limits, total: settings.limit, starts_unix_ms, zone }
        }
        Cars::Recorded(recording) => {
            let garages = recording.garages.len();
            let registry = Arc::new(PlateRegistry::new(PlateMixture::British, settings.seed, garages));
            let zone = bundled(recording::ZONE);
            let traffic = recording
                .garages
                .iter()
                .zip(baselines)
                .enumerate()
                .map(|(index, (garage, baseline))| {
                    let drivers = Drivers::new(registry.clone(), index, garage.capacity, taken.clone());
                    let rows = garage.rows.clone();
                    let (seed, zone) = (settings.seed, zone.clone());
                    let traffic = RecordedTraffic::new(rows, &baseline.state, drivers, seed, zone);
                    GarageTraffic::Recorded(Box::new(traffic))
                })
                .collect();
            let starting: Vec<i64> = baselines.iter().map(|baseline| baseline.state.occupied).collect();
            let limits = recording.shares(&starting, settings.limit.unwrap_or(u64::MAX));
            let total = Some(limits.iter().sum());
            let starts_unix_ms = recording.starts_unix_ms();
            Plan { registry, traffic, limits, total, starts_unix_ms, zone }
        }
    }
}
