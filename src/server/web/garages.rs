//! `GET /v1/occupancy`, `GET /v1/garages`, `GET /v1/garages/{name}`: each answer comes from memory and shows one position of the
//! views.

use super::{ServerWeb, SharedWeb, StreamMark, parse_cursor, time};
use crate::codes;
use crate::daemon::clock;
use crate::http::{Paging, Problem, query};
use crate::messaging::SiteName;
use crate::parking::tariff::Money;
use crate::server::ledger::Stream;
use crate::server::serving::SKEW_ALARM_MS;
use crate::server::view::{GarageState, GarageStays, MissingRange, Snapshot};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ops::Bound;

#[derive(Serialize)]
struct OccupancyLine {
    name: String,
    /// What is not known yet is null, never 0: a garage that has reported nothing is not necessarily empty.
    capacity: Option<u32>,
    occupied: Option<i64>,
    free: Option<u32>,
    as_of: Option<String>,
}

impl OccupancyLine {
    fn new(name: &SiteName, garage: &GarageState) -> OccupancyLine {
        OccupancyLine {
            name: name.to_string(),
            capacity: garage.known_capacity(),
            occupied: garage.known_occupied(),
            free: garage.known_free(),
            as_of: garage.as_of_ms.map(time),
        }
    }
}

/// All garages that boards show. It is made once for each position, and on no thread that others wait for.
pub(super) async fn occupancy(State(web): SharedWeb) -> Result<Response, Problem> {
    let position = web.view().position;
    let body = match web.occupancy_at(position) {
        Some(body) => body,
        None => web.in_turn(&web.renderers, |web| Ok::<_, Infallible>(render_occupancy(web))).await?,
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn render_occupancy(web: &ServerWeb) -> Bytes {
    #[derive(Serialize)]
    struct Answer {
        version: u64,
        ledger: String,
        garages: Vec<OccupancyLine>,
    }
    let view = web.view();
    // Another request may have made it while this one waited for its turn.
    if let Some(body) = web.occupancy_at(view.position) {
        return body;
    }
    let lines = view.garages.iter().filter(|(_, garage)| garage.is_shown());
    let answer = Answer {
        version: view.position,
        ledger: web.ledger.id().to_string(),
        garages: lines.map(|(key, garage)| OccupancyLine::new(view.name_of(key), garage)).collect(),
    };
    let body = Bytes::from(serde_json::to_vec(&answer).expect("it always encodes"));
    web.keep_occupancy(view.position, body.clone());
    body
}

#[derive(Serialize)]
struct GarageAnswer {
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
    stays: StayCounts,
    /// What was charged, less what was taken back; once for each currency.
    taken: Vec<Money>,
    marks: Vec<StreamMark>,
    last_heard_at: Option<String>,
    last_heard_seconds_ago: Option<f64>,
    backlog: Option<u64>,
    oldest_age_seconds: Option<f64>,
    duplicates_refused: u64,
    conflicts: u64,
    conflict_at: Option<StreamMark>,
    refused: Option<String>,
    /// Two live edges speak under this name.
    two_edges: bool,
    clock_set: Option<bool>,
    clock_ahead_seconds: Option<f64>,
    clock_alarm: bool,
    /// The garage's own count, with what it has not delivered.
    live_occupied: Option<i64>,
    /// Why the garage takes no events, if so.
    full: Option<String>,
    /// Confirmed events that the garage could not read any more when it started.
    damaged: Option<u64>,
    /// The first hundred; the two counts are of all.
    missing_ranges: Vec<MissingRangeLine>,
    missing_ranges_total: usize,
    /// The sum of the events in all missing ranges.
    missing_events: u64,
}

/// How many there are.
#[derive(Serialize)]
struct StayCounts {
    open: u64,
    closed: u64,
    exits_missed: u64,
    exits_unmatched: u64,
}

impl From<GarageStays> for StayCounts {
    fn from(book: GarageStays) -> StayCounts {
        StayCounts {
            open: book.open,
            closed: book.closed,
            exits_missed: book.exits_missed,
            exits_unmatched: book.exits_unmatched,
        }
    }
}

#[derive(Serialize)]
struct MissingRangeLine {
    epoch: String,
    first: u64,
    last: u64,
    reason: String,
    received_at: Option<String>,
}

impl From<&MissingRange> for MissingRangeLine {
    fn from(hole: &MissingRange) -> MissingRangeLine {
        MissingRangeLine {
            epoch: hole.epoch.to_string(),
            first: hole.first,
            last: hole.last,
            reason: hole.reason.clone(),
            received_at: hole.received_at_ms.map(time),
        }
    }
}

fn mark(stream: &Stream) -> StreamMark {
    StreamMark { epoch: stream.id.epoch.to_string(), sequence: stream.mark.sequence }
}

/// The answer for the garage of this key.
fn garage_answer(web: &ServerWeb, view: &Snapshot, key: &SiteName) -> GarageAnswer {
    let sites = view.sites_of(key);
    let name = view.name_of(key);
    let streams = web.ledger.streams_of(&sites);
    // An edge that was set up again may have another name than before.
    let seen =
        sites.iter().map(|site| web.seen(site)).max_by_key(|seen| seen.heard_at_ms).unwrap_or_default();
    let heard = (seen.heard_at_ms > 0).then_some(seen.heard_at_ms);
    let observed = seen.observation.as_ref();
    let unknown = GarageState::default();
    let garage = view.garages.get(key).unwrap_or(&unknown);
    let retired = garage.decisions.decommissioned.as_ref();
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let (missing_ranges_total, missing_events, missing_ranges) = view.missing_ranges_of(key, 100);
    GarageAnswer {
        occupancy: OccupancyLine::new(name, garage),
        capacity_told: (garage.told_capacity != garage.capacity).then_some(garage.told_capacity),
        formerly: (name != key).then(|| key.to_string()),
        decommissioned: retired.is_some(),
        events_since_decommissioned: retired.map(|since| since.events_since),
        position: view.position,
        events: garage.events,
        stays: garage.stays.into(),
        taken: view
            .garages
            .get(key)
            .map_or_else(Vec::new, |its| view.billing.taken(its.stays.number).to_vec()),
        marks: streams.iter().map(mark).collect(),
        last_heard_at: heard.map(time),
        last_heard_seconds_ago: heard.map(|at| seconds(clock::wall_ms().saturating_sub(at).max(0) as u64)),
        backlog: observed.map(|observed| observed.backlog),
        oldest_age_seconds: observed.and_then(|observed| observed.oldest_age_ms).map(seconds),
        duplicates_refused: seen.duplicates_refused,
        conflicts: seen.conflicts,
        conflict_at: seen
            .in_conflict_at
            .map(|(epoch, sequence)| StreamMark { epoch: epoch.to_string(), sequence }),
        two_edges: seen.two_edges(),
        clock_set: observed.map(|observed| observed.clock_set),
        clock_ahead_seconds: seen.clock_ahead_ms.map(|ahead_ms| ahead_ms as f64 / 1000.0),
        clock_alarm: seen.clock_ahead_ms.is_some_and(|ahead_ms| ahead_ms.saturating_abs() > SKEW_ALARM_MS),
        live_occupied: observed.and_then(|observed| observed.occupied),
        full: observed.and_then(|observed| observed.shortage.clone()),
        damaged: observed.map(|observed| observed.damaged),
        refused: seen.refused.clone(),
        missing_ranges: missing_ranges.into_iter().map(MissingRangeLine::from).collect(),
        missing_ranges_total,
        missing_events,
    }
}

pub(super) async fn garages(
    State(web): SharedWeb,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        garages: Vec<GarageAnswer>,
        next: Option<String>,
    }
    let paging = query(paging)?;
    let limit = paging.limit()?;
    let after = parse_cursor(paging.after.as_deref(), |name| SiteName::new(name).ok())?;
    let list = move |web: &ServerWeb| {
        let view = web.view();
        let mut keys = keys_after(web, &view, after, limit + 1);
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = keys.last().filter(|_| more).map(ToString::to_string);
        let garages = keys.iter().map(|key| garage_answer(web, &view, key)).collect();
        Ok::<_, Infallible>(Answer { garages, next })
    };
    web.answer_in_turn(&web.renderers, list).await
}

/// The keys of garages behind `after`, in their order, at most `at_most`. A garage that only reported its capacity has no stream yet;
/// one whose first page is not applied yet has no view.
fn keys_after(web: &ServerWeb, view: &Snapshot, after: Option<SiteName>, at_most: usize) -> Vec<SiteName> {
    let behind = |after: &Option<SiteName>| after.clone().map_or(Bound::Unbounded, Bound::Excluded);
    let seen = view.garages.range::<SiteName, _>((behind(&after), Bound::Unbounded));
    let mut keys: BTreeSet<SiteName> = seen.take(at_most).map(|(key, _)| key.clone()).collect();
    let mut from = after;
    loop {
        let sites = web.ledger.sites_after(from.as_ref(), at_most);
        let is_the_end = sites.len() < at_most;
        from = sites.last().cloned();
        // Another name of a garage is none of its own.
        keys.extend(sites.into_iter().filter(|site| view.key_of(site) == site));
        while keys.len() > at_most {
            keys.pop_last();
        }
        let last = keys.last().filter(|_| keys.len() == at_most);
        if is_the_end || last.is_some_and(|last| from.as_ref().is_some_and(|from| last <= from)) {
            return keys.into_iter().collect();
        }
    }
}

pub(super) async fn garage(
    State(web): SharedWeb,
    name: Result<Path<String>, PathRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Path(name) = name.map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, error.body_text()).code(codes::INVALID_PATH)
    })?;
    let unknown = || {
        Problem::new(StatusCode::NOT_FOUND, format!("no garage named {name:?} was ever heard of"))
            .code(codes::NO_SUCH_GARAGE)
    };
    let site = SiteName::new(&name).map_err(|_| unknown())?;
    let view = web.view();
    let key = view.key_of(&site);
    // A garage that has reported something but delivered nothing yet is shown while it is remembered.
    let is_heard = web.seen(key).heard_at_ms > 0;
    let has_delivered = || !web.ledger.streams_of(std::slice::from_ref(key)).is_empty();
    if !is_heard && !view.garages.contains_key(key) && !has_delivered() {
        return Err(unknown());
    }
    Ok(Json(garage_answer(&web, &view, key)))
}
