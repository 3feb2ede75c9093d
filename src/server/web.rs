//! What the server shows over HTTP. Nothing here changes anything.

use super::SharedSeen;
use super::ledger::{Ledger, PageAt, Stream};
use super::serving::{Seen, now_ms};
use super::view::{Garage, Hole, View};
use crate::http::{self, Paging, Problem, bad_cursor, metrics::Metrics, query};
use crate::messaging::SiteName;
use crate::messaging::page::{Content, RECORDS_MAX};
use crate::parking::Event;
use crate::parking::event::Shown;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Serialize};
use std::ops::Bound;
use std::sync::{Arc, RwLock, RwLockReadGuard};

/// What the handlers read.
pub struct Web {
    ledger: Ledger,
    view: Arc<RwLock<View>>,
    seen: SharedSeen,
    metrics: Metrics,
    position: Gauge,
    folded: Gauge,
    garages: Gauge,
}

type Shared = State<Arc<Web>>;

impl Web {
    pub fn new(ledger: Ledger, view: Arc<RwLock<View>>, seen: SharedSeen, mut metrics: Metrics) -> Web {
        Web {
            position: metrics.gauge("ledger_position", "The last position of the ledger on disk"),
            folded: metrics.gauge("view_position", "The position that the view has reached"),
            garages: metrics.gauge("garages", "Garages known"),
            ledger,
            view,
            seen,
            metrics,
        }
    }

    pub fn router(self) -> Router {
        let router = Router::new()
            .route("/", get(|| async { http::page(include_str!("page.html")) }))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(|| async { "ready\n" }))
            .route("/metrics", get(show_metrics))
            .route("/v1/occupancy", get(occupancy))
            .route("/v1/garages", get(garages))
            .route("/v1/garages/{name}", get(garage))
            .route("/v1/events", get(events))
            .route("/v1/quarantine", get(quarantine));
        http::with_fallbacks(router.with_state(Arc::new(self)))
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().expect("the fold does not panic while it holds the view")
    }

    fn seen(&self, name: &SiteName) -> Seen {
        let seen = self.seen.lock().expect("no thread panics while it holds what was seen");
        seen.get(name).cloned().unwrap_or_default()
    }
}

async fn show_metrics(State(web): Shared) -> impl IntoResponse {
    let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    web.position.set(gauge(web.ledger.position()));
    {
        let view = web.view();
        web.folded.set(gauge(view.position));
        web.garages.set(gauge(view.garages.len() as u64));
    }
    web.metrics.render()
}

#[derive(Serialize)]
struct OccupancyLine {
    name: String,
    capacity: u32,
    occupied: i64,
    free: i64,
    as_of: Option<String>,
}

impl OccupancyLine {
    fn new(name: &SiteName, garage: &Garage) -> OccupancyLine {
        OccupancyLine {
            name: name.to_string(),
            capacity: garage.capacity,
            occupied: garage.occupancy.occupied,
            free: garage.occupancy.free(garage.capacity),
            as_of: garage.as_of_ms.map(time),
        }
    }
}

async fn occupancy(State(web): Shared) -> impl IntoResponse {
    #[derive(Serialize)]
    struct Answer {
        version: u64,
        ledger: String,
        garages: Vec<OccupancyLine>,
    }
    let view = web.view();
    let lines = view.garages.iter();
    Json(Answer {
        version: view.position,
        ledger: web.ledger.id().to_string(),
        garages: lines.map(|(name, garage)| OccupancyLine::new(name, garage)).collect(),
    })
}

#[derive(Serialize)]
struct GarageAnswer {
    #[serde(flatten)]
    occupancy: OccupancyLine,
    position: u64,
    events: u64,
    marks: Vec<Mark>,
    last_heard_at: Option<String>,
    last_heard_seconds_ago: Option<f64>,
    backlog: Option<u64>,
    oldest_age_seconds: Option<f64>,
    duplicates_refused: u64,
    conflicts: u64,
    conflict_at: Option<u64>,
    refused: Option<String>,
    /// The first hundred; `holes_total` counts all.
    holes: Vec<HoleLine>,
    holes_total: usize,
}

#[derive(Serialize)]
struct Mark {
    epoch: String,
    sequence: u64,
}

#[derive(Serialize)]
struct HoleLine {
    epoch: String,
    first: u64,
    last: u64,
    reason: String,
    received_at: String,
}

impl From<&Hole> for HoleLine {
    fn from(hole: &Hole) -> HoleLine {
        HoleLine {
            epoch: hole.epoch.to_string(),
            first: hole.first,
            last: hole.last,
            reason: hole.reason.clone(),
            received_at: time(hole.received_at_ms),
        }
    }
}

fn garage_answer(web: &Web, view: &View, name: &SiteName, streams: &[Stream]) -> GarageAnswer {
    let seen = web.seen(name);
    let heard = (seen.heard_at_ms > 0).then_some(seen.heard_at_ms);
    let observed = seen.observation.as_ref();
    let unknown = Garage::default();
    let garage = view.garages.get(name).unwrap_or(&unknown);
    let seconds = |ms: u64| ms as f64 / 1000.0;
    GarageAnswer {
        occupancy: OccupancyLine::new(name, garage),
        position: view.position,
        events: garage.events,
        marks: streams
            .iter()
            .map(|stream| Mark { epoch: stream.epoch.to_string(), sequence: stream.mark.sequence })
            .collect(),
        last_heard_at: heard.map(time),
        last_heard_seconds_ago: heard.map(|at| seconds(now_ms().saturating_sub(at).max(0) as u64)),
        backlog: observed.map(|observed| observed.backlog),
        oldest_age_seconds: observed.and_then(|observed| observed.oldest_age_ms).map(seconds),
        duplicates_refused: seen.duplicates_refused,
        conflicts: seen.conflicts,
        conflict_at: seen.in_conflict_at,
        refused: seen.refused,
        holes_total: view.holes.values().filter(|hole| hole.garage == *name).count(),
        holes: view
            .holes
            .values()
            .filter(|hole| hole.garage == *name)
            .take(100)
            .map(HoleLine::from)
            .collect(),
    }
}

async fn garages(
    State(web): Shared,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Answer {
        garages: Vec<GarageAnswer>,
        next: Option<String>,
    }
    let paging = query(paging)?;
    let limit = paging.limit()?;
    let from = match &paging.after {
        Some(after) => Bound::Excluded(SiteName::new(after).map_err(|_| bad_cursor(after))?),
        None => Bound::Unbounded,
    };
    let streams = web.ledger.streams();
    let view = web.view();
    // A garage that only told its capacity has no stream yet; one whose first page is not folded yet has no view.
    let mut names: Vec<&SiteName> = streams.keys().chain(view.garages.keys()).collect();
    names.sort();
    names.dedup();
    let mut wanted = names.into_iter().filter(|name| match &from {
        Bound::Excluded(after) => *name > after,
        _ => true,
    });
    let answered: Vec<_> = wanted.by_ref().take(limit).collect();
    let next = wanted.next().and(answered.last()).map(ToString::to_string);
    let of = |name| streams.get(name).map_or(&[][..], Vec::as_slice);
    let answers = answered.into_iter().map(|name| garage_answer(&web, &view, name, of(name)));
    Ok(Json(Answer { garages: answers.collect(), next }))
}

async fn garage(
    State(web): Shared,
    name: Result<Path<String>, PathRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Path(name) = name.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let unknown =
        || Problem::new(StatusCode::NOT_FOUND, format!("no garage named {name:?} was ever heard of"));
    let site = SiteName::new(&name).map_err(|_| unknown())?;
    let streams = web.ledger.streams();
    let view = web.view();
    let of = streams.get(&site).map_or(&[][..], Vec::as_slice);
    if of.is_empty() && !view.garages.contains_key(&site) {
        return Err(unknown());
    }
    Ok(Json(garage_answer(&web, &view, &site, of)))
}

#[derive(Deserialize)]
struct EventsQuery {
    garage: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct EventLine {
    garage: String,
    epoch: String,
    sequence: u64,
    position: u64,
    #[serde(flatten)]
    event: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_understood: Option<String>,
    received_at: String,
}

/// A place between two events of the ledger: after the event of this page at this index.
#[derive(Clone, Copy)]
struct Cursor {
    position: u64,
    index: usize,
}

impl Cursor {
    fn parse(text: &str) -> Option<Cursor> {
        let (position, index) = text.split_once('.')?;
        let index = index.parse().ok().filter(|index| *index < RECORDS_MAX)?;
        Some(Cursor { position: position.parse().ok()?, index })
    }
}

async fn events(
    State(web): Shared,
    asked: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Answer {
        events: Vec<EventLine>,
        next: Option<String>,
    }
    let asked = query(asked)?;
    let paging = Paging { after: asked.after, limit: asked.limit };
    let limit = paging.limit()?;
    let after = match &paging.after {
        Some(text) => Some(Cursor::parse(text).ok_or_else(|| bad_cursor(text))?),
        None => None,
    };
    let pages = http::blocking(move || {
        let from = after.map_or(0, |cursor| cursor.position);
        // One event more than asked for tells whether there is a next page. The first page may be read already.
        let mut wanted = limit + 1 + after.map_or(0, |cursor| cursor.index + 1);
        let enough = |page: &PageAt| {
            wanted = wanted.saturating_sub(page.page.count() as usize);
            wanted == 0
        };
        match &asked.garage {
            None => web.ledger.pages(from, enough),
            Some(name) => match SiteName::new(name) {
                Ok(site) => web.ledger.pages_of(&site, from, enough),
                Err(_) => Ok(Vec::new()),
            },
        }
    })
    .await?;
    let mut lines = Vec::with_capacity(limit);
    let mut last = None;
    let mut more = false;
    'pages: for page in pages {
        let Content::Records(records) = page.page.content else {
            continue;
        };
        for (index, record) in records.into_iter().enumerate() {
            let known = |cursor: Cursor| page.position == cursor.position && index <= cursor.index;
            if after.is_some_and(known) {
                continue;
            }
            if lines.len() == limit {
                more = true;
                break 'pages;
            }
            last = Some(format!("{}.{index}", page.position));
            let event = Event::from_bytes(&record.payload);
            lines.push(EventLine {
                garage: page.site.to_string(),
                epoch: page.page.epoch.to_string(),
                sequence: page.page.first.get() + index as u64,
                position: page.position,
                not_understood: event.as_ref().err().map(ToString::to_string),
                event: event.ok().map(Shown::from),
                received_at: time(page.received_at_ms),
            });
        }
    }
    Ok(Json(Answer { events: lines, next: last.filter(|_| more) }))
}

async fn quarantine(
    State(web): Shared,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Line {
        garage: String,
        epoch: String,
        sequence: u64,
        position: u64,
        reason: String,
        received_at: String,
    }
    #[derive(Serialize)]
    struct Answer {
        quarantine: Vec<Line>,
        next: Option<String>,
    }
    let paging = query(paging)?;
    let limit = paging.limit()?;
    let after = match &paging.after {
        None => None,
        Some(text) => Some(Cursor::parse(text).ok_or_else(|| bad_cursor(text))?),
    };
    let view = web.view();
    let known = |position: u64, index: usize| {
        after.is_some_and(|after| (position, index) <= (after.position, after.index))
    };
    let pages = view.quarantine.range(after.map_or(0, |after| after.position)..);
    let events = pages.flat_map(|(position, page)| page.places().map(move |index| (*position, index, page)));
    let mut waiting = events.filter(|(position, index, _)| !known(*position, *index));
    let shown: Vec<_> = waiting.by_ref().take(limit).collect();
    let last = shown.last().map(|(position, index, _)| format!("{position}.{index}"));
    let next = waiting.next().and(last);
    let lines = shown.into_iter().map(|(position, index, page)| Line {
        garage: page.garage.to_string(),
        epoch: page.epoch.to_string(),
        sequence: page.first + index as u64,
        position,
        reason: page.reason.clone(),
        received_at: time(page.received_at_ms),
    });
    Ok(Json(Answer { quarantine: lines.collect(), next }))
}

/// RFC 3339 in UTC.
fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}
