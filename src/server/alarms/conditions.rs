//! What is wrong now, by what the server knows: a pure function.
//!
//! **Promise.** A reading says that a reason for an alarm is present, absent, or that nobody knows. Unknown is what an edge reported that is not heard,
//! and what a server that has just started has not watched for long enough: so neither a silent edge nor a restart ends an alarm or raises it again.
//! **Not promised.** That an alarm does not flutter: [`state`](super::state) waits until a reason has been gone for a while.

use super::id::AlarmId;
use crate::codes::{self, Code};
use crate::config::AlarmThresholds;
use crate::messaging::{Epoch, SiteName};
use crate::parking::tariff::CalendarEnd;
use crate::parking::{DiskSpace, Moment, Observation};
use crate::server::seen::SKEW_ALARM_MS;
use crate::transport::tls::live::Expiry;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What the server knows now.
#[derive(Debug, Clone)]
pub struct CityNow {
    pub at: Instant,
    pub wall_ms: i64,
    /// When this server started.
    pub began: Instant,
    /// All that are in use.
    pub garages: Vec<GarageNow>,
    /// The server's own disk.
    pub disk: Option<DiskSpace>,
    /// What the server keeps free there.
    pub reserve: u64,
    /// All that the tariffs in force need.
    pub calendars: Vec<CalendarEnd>,
    /// Those of the server and their authorities.
    pub certificates: Vec<Expiry>,
}

#[derive(Debug, Clone)]
pub struct GarageNow {
    pub key: SiteName,
    pub heard: Option<Instant>,
    pub observation: Option<Observation>,
    pub clock_ahead_ms: Option<i64>,
    pub in_conflict_at: Option<(Epoch, u64)>,
    pub refused: Option<String>,
    /// The sum of the marks of its epochs.
    pub delivered: u64,
    pub occupied: Option<i64>,
    pub capacity: Option<u32>,
    pub open_stays: u64,
    pub missing: MissingNow,
}

/// The missing ranges of a garage.
#[derive(Debug, Clone, Default)]
pub struct MissingNow {
    pub ranges: usize,
    pub events: u64,
    pub last_at_ms: Option<i64>,
    /// Some were received, and cannot be read any more.
    pub any_unreadable: bool,
}

/// Whether there is a reason for an alarm. What is not listed is absent.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    Present(AlarmText),
    Unknown,
}

/// An alarm in words, and its facts for programs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AlarmText {
    pub summary: String,
    pub facts: Map<String, Value>,
}

pub type Readings = BTreeMap<AlarmId, Reading>;

/// What was watched of garages. Only the baselines outlive a restart.
#[derive(Debug)]
pub struct Watches {
    queues: BTreeMap<SiteName, QueueWatch>,
    pub baselines: Baselines,
}

/// The differences between count and open stays at the beginning of each garage's period.
pub type Baselines = BTreeMap<SiteName, DriftBaseline>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftBaseline {
    at_ms: i64,
    apart: i64,
}

impl Watches {
    pub fn going_on_with(baselines: Baselines) -> Watches {
        Watches { queues: BTreeMap::new(), baselines }
    }
}

/// How the queue of a garage moves.
#[derive(Debug)]
struct QueueWatch {
    delivered: u64,
    moved_at: Instant,
    /// It has moved since the server started.
    has_moved: bool,
    backlog: u64,
    backlog_at: Instant,
    grows: bool,
}

/// Reads what is wrong now. The times between two calls are those between two looks.
pub fn read(city: &CityNow, watches: &mut Watches, thresholds: &AlarmThresholds) -> Readings {
    let mut readings = Readings::new();
    let in_use: BTreeSet<&SiteName> = city.garages.iter().map(|garage| &garage.key).collect();
    watches.queues.retain(|key, _| in_use.contains(key));
    watches.baselines.retain(|key, _| in_use.contains(key));
    for garage in &city.garages {
        let mut of_garage = GarageReader { garage, city, thresholds, readings: &mut readings };
        of_garage.read_edge(&mut watches.queues);
        of_garage.read_view(&mut watches.baselines);
    }
    let of_server = |code| AlarmId { code, garage: None };
    if let Some(reading) = disk(city.disk, city.reserve, thresholds) {
        readings.insert(of_server(codes::DISK_NEARLY_FULL), reading);
    }
    let ending: Vec<_> = city.calendars.iter().filter(|end| end.is_soon()).collect();
    if !ending.is_empty() {
        let summary = ending.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let days =
            ending.iter().map(|end| (end.calendar.clone(), end.days_left.into())).collect::<Map<_, _>>();
        readings.insert(of_server(codes::CALENDAR_ENDS), present(summary, json!({ "days_left": days })));
    }
    let expiring: Vec<_> = city.certificates.iter().filter(|expiry| expiry.is_soon()).collect();
    if !expiring.is_empty() {
        let line = |expiry: &&Expiry| {
            format!(
                "the certificate ({}) expires at {}, in {} days",
                expiry.certificate, expiry.at, expiry.days_left
            )
        };
        let summary = expiring.iter().map(line).collect::<Vec<_>>().join("; ");
        let days = expiring
            .iter()
            .map(|expiry| (expiry.certificate.to_owned(), expiry.days_left.into()))
            .collect::<Map<_, _>>();
        readings
            .insert(of_server(codes::CERTIFICATE_EXPIRES), present(summary, json!({ "days_left": days })));
    }
    readings
}

fn present(summary: String, facts: Value) -> Reading {
    let Value::Object(facts) = facts else { unreachable!("facts are an object") };
    Reading::Present(AlarmText { summary, facts })
}

/// A disk with little room; between the limit and a quarter more, nothing is said.
fn disk(space: Option<DiskSpace>, reserve: u64, thresholds: &AlarmThresholds) -> Option<Reading> {
    const MOST: u64 = 2_000_000_000;
    let Some(DiskSpace { left, total }) = space else { return Some(Reading::Unknown) };
    let least = thresholds.disk_free_bytes.unwrap_or((total / 10).min(MOST)).max(reserve.saturating_mul(2));
    let megabytes = |bytes: u64| bytes / 1_000_000;
    match left {
        left if left < least => Some(present(
            format!("the disk has {} MB left, of {} MB", megabytes(left), megabytes(total)),
            json!({ "left_bytes": left, "total_bytes": total, "least_bytes": least }),
        )),
        left if left < least.saturating_add(least / 4) => Some(Reading::Unknown),
        _ => None,
    }
}

struct GarageReader<'a> {
    garage: &'a GarageNow,
    city: &'a CityNow,
    thresholds: &'a AlarmThresholds,
    readings: &'a mut Readings,
}

/// The alarms that only an edge that is heard can end.
const OF_EDGE: [Code; 7] = [
    codes::BACKLOG_GROWS,
    codes::CERTIFICATE_EXPIRES,
    codes::CLOCKS_DIFFER,
    codes::CONFLICT,
    codes::DISK_NEARLY_FULL,
    codes::OUTBOX_FULL,
    codes::QUEUE_STANDS_STILL,
];

impl GarageReader<'_> {
    fn found(&mut self, code: Code, reading: Reading) {
        self.readings.insert(AlarmId { code, garage: Some(self.garage.key.clone()) }, reading);
    }

    fn since(&self, at: Instant) -> Duration {
        self.city.at.saturating_duration_since(at)
    }

    /// What the edge reports, and what its requests show.
    fn read_edge(&mut self, queues: &mut BTreeMap<SiteName, QueueWatch>) {
        let silent_after = self.thresholds.silent_after.0;
        let silent_for = self.garage.heard.map(|at| self.since(at));
        match silent_for {
            Some(silent_for) if silent_for <= silent_after => {}
            // Edges come back to a server that was away within a minute or so.
            None if self.since(self.city.began) <= 2 * silent_after => {
                self.found(codes::EDGE_SILENT, Reading::Unknown);
            }
            _ => {
                let seconds = silent_for.map(|silent_for| silent_for.as_secs());
                let summary = match seconds {
                    Some(seconds) => format!("nothing was heard of the edge for {seconds} s"),
                    None => "nothing was heard of the edge since the server started".to_owned(),
                };
                self.found(codes::EDGE_SILENT, present(summary, json!({ "silent_seconds": seconds })));
            }
        }
        let garage = self.garage;
        let (Some(observation), true) =
            (&garage.observation, silent_for.is_some_and(|silent_for| silent_for <= silent_after))
        else {
            OF_EDGE.into_iter().for_each(|code| self.found(code, Reading::Unknown));
            return;
        };
        self.read_queue(observation, queues);
        if let Some(reading) = disk(observation.machine.disk, 0, self.thresholds) {
            self.found(codes::DISK_NEARLY_FULL, reading);
        }
        if let Some(why) = &observation.shortage {
            self.found(
                codes::OUTBOX_FULL,
                present(format!("the edge takes no events: {why}"), json!({ "reason": why })),
            );
        }
        match garage.clock_ahead_ms {
            Some(ahead) if ahead.saturating_abs() > SKEW_ALARM_MS => {
                let seconds = ahead as f64 / 1000.0;
                let way = if ahead > 0 { "ahead of" } else { "behind" };
                let summary =
                    format!("the clock of the edge is {:.0} s {way} that of the server", seconds.abs());
                self.found(codes::CLOCKS_DIFFER, present(summary, json!({ "clock_ahead_seconds": seconds })));
            }
            // Almost as much, or not compared yet.
            Some(ahead) if ahead.saturating_abs() <= SKEW_ALARM_MS / 5 * 4 => {}
            _ => self.found(codes::CLOCKS_DIFFER, Reading::Unknown),
        }
        if let Some(ends_at_ms) = observation.machine.certificate_ends_at_ms {
            let days_left = ends_at_ms.saturating_sub(self.city.wall_ms).div_euclid(24 * 3_600_000);
            let expiry = Expiry {
                certificate: "edge",
                at: jiff::Timestamp::from_millisecond(ends_at_ms).unwrap_or_default(),
                days_left,
            };
            if expiry.is_soon() {
                let summary =
                    format!("the certificate of the edge expires at {}, in {days_left} days", expiry.at);
                self.found(
                    codes::CERTIFICATE_EXPIRES,
                    present(summary, json!({ "days_left": { "edge": days_left } })),
                );
            }
        }
    }

    fn read_queue(&mut self, observation: &Observation, queues: &mut BTreeMap<SiteName, QueueWatch>) {
        let (garage, backlog) = (self.garage, observation.backlog);
        // What was reported says nothing of the time after it.
        let now = garage.heard.unwrap_or(self.city.at);
        let watch = queues.entry(garage.key.clone()).or_insert(QueueWatch {
            delivered: garage.delivered,
            moved_at: now,
            has_moved: false,
            backlog,
            backlog_at: now,
            grows: false,
        });
        if watch.delivered != garage.delivered {
            (watch.delivered, watch.moved_at, watch.has_moved) = (garage.delivered, now, true);
        }
        if backlog == 0 {
            watch.moved_at = now;
        }
        if backlog < self.thresholds.backlog_events {
            (watch.backlog, watch.backlog_at, watch.grows) = (backlog, now, false);
        } else if now.saturating_duration_since(watch.backlog_at) >= self.thresholds.backlog_after.0 {
            (watch.grows, watch.backlog, watch.backlog_at) = (backlog >= watch.backlog, backlog, now);
        }
        let still_for = now.saturating_duration_since(watch.moved_at);
        let (grows, few, has_moved) =
            (watch.grows, backlog < self.thresholds.backlog_events, watch.has_moved);
        let oldest = observation.oldest_age_ms.map(|ms| ms / 1000);
        let facts = json!({ "backlog": backlog, "oldest_age_seconds": oldest });
        match (grows, few) {
            (true, _) => {
                let summary = format!("{backlog} events wait at the edge, no fewer than before");
                self.found(codes::BACKLOG_GROWS, present(summary, facts));
            }
            (false, true) => {}
            // Not watched for long enough.
            (false, false) => self.found(codes::BACKLOG_GROWS, Reading::Unknown),
        }
        if let Some((epoch, first)) = garage.in_conflict_at {
            let summary = format!(
                "another page stands in the ledger at sequence {first} of epoch {epoch}; the queue waits for a decision"
            );
            let facts = json!({ "epoch": epoch.to_string(), "sequence": first, "backlog": backlog });
            self.found(codes::CONFLICT, present(summary, facts));
            return;
        }
        if backlog > 0 && !has_moved {
            self.found(codes::CONFLICT, Reading::Unknown);
        }
        if backlog > 0 && still_for >= self.thresholds.still_after.0 {
            let seconds = still_for.as_secs();
            let summary = match &garage.refused {
                Some(why) => format!("{backlog} events wait, and the server refuses them: {why}"),
                None => format!(
                    "{backlog} events wait, and none was acknowledged for {seconds} s, though the edge is heard"
                ),
            };
            let facts = json!({ "backlog": backlog, "still_seconds": seconds, "refused": garage.refused });
            self.found(codes::QUEUE_STANDS_STILL, present(summary, facts));
        } else if backlog > 0 && still_for > Duration::ZERO {
            self.found(codes::QUEUE_STANDS_STILL, Reading::Unknown);
        }
    }

    /// What the views show.
    fn read_view(&mut self, baselines: &mut Baselines) {
        let GarageNow { occupied, capacity, open_stays, missing, .. } = self.garage;
        let is_possible =
            |occupied: i64| occupied >= 0 && capacity.is_none_or(|most| occupied <= i64::from(most));
        if let Some(occupied) = occupied.filter(|occupied| !is_possible(*occupied)) {
            let summary = match capacity.filter(|_| occupied > 0) {
                Some(capacity) => format!("{occupied} cars are counted in {capacity} spaces"),
                None => format!("{occupied} cars are counted, fewer than none"),
            };
            self.found(
                codes::OCCUPANCY_IMPOSSIBLE,
                present(summary, json!({ "occupied": occupied, "capacity": capacity })),
            );
        }
        if let Some(occupied) = *occupied {
            let apart = occupied.saturating_sub_unsigned(*open_stays);
            let now = DriftBaseline { at_ms: self.city.wall_ms, apart };
            let baseline = baselines.entry(self.garage.key.clone()).or_insert(now);
            let within = i64::try_from(self.thresholds.drift_within.0.as_millis()).unwrap_or(i64::MAX);
            if !(0..within).contains(&now.at_ms.saturating_sub(baseline.at_ms)) {
                *baseline = now;
            }
            let before = baseline.apart;
            if apart.unsigned_abs() >= before.unsigned_abs().saturating_add(self.thresholds.drift_cars) {
                let summary = format!(
                    "{occupied} cars are counted and {open_stays} stays are open: {apart} apart, {before} when this period began"
                );
                let since = Moment::utc_text(baseline.at_ms);
                let facts = json!({ "occupied": occupied, "open_stays": open_stays, "apart": apart, "apart_before": before, "before": since });
                self.found(codes::COUNT_DRIFTS, present(summary, facts));
            }
        }
        let missing_for = i64::try_from(self.thresholds.missing_for.0.as_millis()).unwrap_or(i64::MAX);
        let is_recent = |at: i64| self.city.wall_ms.saturating_sub(at) < missing_for;
        if missing.any_unreadable || missing.last_at_ms.is_some_and(is_recent) {
            let MissingNow { ranges, events, last_at_ms, .. } = missing;
            let summary = format!("{events} events are missing for good, in {ranges} ranges");
            let facts =
                json!({ "events": events, "ranges": ranges, "last_at": last_at_ms.map(Moment::utc_text) });
            self.found(codes::EVENTS_MISSING, present(summary, facts));
        }
    }
}

#[cfg(test)]
mod tests;
