//! What the server shows over HTTP. Nothing here changes anything.

mod charges;
mod statements;
mod stays;

use super::SharedSeen;
use super::books::Books;
use super::folding::Signal;
use super::ledger::{Ledger, PageAt, Pages, Stream};
use super::serving::{SKEW_ALARM_MS, Seen};
use super::view::{Book, Garage, Hole, Snapshot};
use crate::daemon::clock;
use crate::http::{self, Paging, Problem, bad_cursor, metrics::Metrics, query};
use crate::messaging::SiteName;
use crate::messaging::page::{Content, RECORDS_MAX};
use crate::parking::event::Shown;
use crate::parking::statement::Operator;
use crate::parking::tariff::Money;
use crate::parking::{Event, Moment};
use crate::store::Store;
use crate::store::room::DiskRoom;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::metrics::gauge::Gauge;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// What the handlers read.
pub struct Web {
    ledger: Ledger,
    /// The stays are read from it: they are too many to be kept in memory.
    store: Store,
    signal: Arc<Signal>,
    seen: SharedSeen,
    room: DiskRoom,
    /// Who sends statements.
    operator: Operator,
    /// One statement is made at a time: it may be long.
    statements: tokio::sync::Mutex<()>,
    metrics: Metrics,
    position: Gauge,
    folded: Gauge,
    garages: Gauge,
}

type Shared = State<Arc<Web>>;
type Streams = BTreeMap<SiteName, Vec<Stream>>;

impl Web {
    pub fn new(
        ledger: Ledger,
        store: Store,
        signal: Arc<Signal>,
        seen: SharedSeen,
        room: DiskRoom,
        operator: Operator,
        mut metrics: Metrics,
    ) -> Web {
        Web {
            position: metrics.gauge("ledger_position", "The last position of the ledger on disk"),
            folded: metrics.gauge("view_position", "The position that the view has reached"),
            garages: metrics.gauge("garages", "Garages known"),
            ledger,
            store,
            signal,
            seen,
            room,
            operator,
            statements: tokio::sync::Mutex::new(()),
            metrics,
        }
    }

    pub fn router(self) -> Router {
        let router = Router::new()
            .route("/", get(|| async { http::page(include_str!("page.html")) }))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(show_metrics))
            .route("/v1/occupancy", get(occupancy))
            .route("/v1/garages", get(garages))
            .route("/v1/garages/{name}", get(garage))
            .route("/v1/events", get(events))
            .route("/v1/stays", get(stays::stays))
            .route("/v1/charges", get(charges::charges))
            .route("/v1/statements/{whose}", get(statements::statement))
            .route("/v1/anomalies", get(charges::anomalies))
            .route("/v1/quarantine", get(quarantine))
            .route("/v1/damages", get(damages));
        http::with_fallbacks(router.with_state(Arc::new(self)))
    }

    /// The views as they are now.
    fn view(&self) -> Arc<Snapshot> {
        self.signal.snapshot()
    }

    fn books(&self) -> Books<'_, impl Fn() -> Arc<Snapshot>> {
        Books { ledger: &self.ledger, store: &self.store, view: || self.view() }
    }

    fn seen(&self, name: &SiteName) -> Seen {
        let seen = self.seen.lock().expect("no thread panics while it holds what was seen");
        seen.get(name).cloned().unwrap_or_default()
    }
}

async fn readyz(State(web): Shared) -> Result<&'static str, Problem> {
    if let Some(now_at) = web.store.moved_to() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, http::renamed(&now_at)));
    }
    web.room.check(0).map(|()| "ready\n").map_err(|what| {
        let text =
            format!("{what}; edges keep their events until there is room, and what was applied is kept");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })
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
    let lines = view.garages.iter().filter(|(_, garage)| garage.is_shown());
    Json(Answer {
        version: view.position,
        ledger: web.ledger.id().to_string(),
        garages: lines.map(|(key, garage)| OccupancyLine::new(view.name_of(key), garage)).collect(),
    })
}

#[derive(Serialize)]
struct GarageAnswer {
    #[serde(flatten)]
    occupancy: OccupancyLine,
    /// What the edge tells, where an operator set another capacity.
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
    stays: Stays,
    /// What was charged, less what was taken back; once for each currency.
    taken: Vec<Money>,
    marks: Vec<Mark>,
    last_heard_at: Option<String>,
    last_heard_seconds_ago: Option<f64>,
    backlog: Option<u64>,
    oldest_age_seconds: Option<f64>,
    duplicates_refused: u64,
    conflicts: u64,
    conflict_at: Option<Mark>,
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
    damaged: u64,
    /// The first hundred; the two counts are of all.
    missing_ranges: Vec<HoleLine>,
    missing_ranges_total: usize,
    /// The sum of the events in all missing ranges.
    missing_events: u64,
}

/// How many there are.
#[derive(Serialize)]
struct Stays {
    open: u64,
    closed: u64,
    exits_missed: u64,
    exits_unmatched: u64,
}

impl From<Book> for Stays {
    fn from(book: Book) -> Stays {
        Stays {
            open: book.open,
            closed: book.closed,
            exits_missed: book.exits_missed,
            exits_unmatched: book.exits_unmatched,
        }
    }
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
    received_at: Option<String>,
}

impl From<&Hole> for HoleLine {
    fn from(hole: &Hole) -> HoleLine {
        HoleLine {
            epoch: hole.epoch.to_string(),
            first: hole.first,
            last: hole.last,
            reason: hole.reason.clone(),
            received_at: hole.received_at_ms.map(time),
        }
    }
}

/// The answer for the garage of this key; `streams` are those of all its names.
fn garage_answer(web: &Web, view: &Snapshot, key: &SiteName, streams: &Streams) -> GarageAnswer {
    let sites = view.sites_of(key);
    let name = view.name_of(key);
    let streams = sites.iter().filter_map(|site| streams.get(site)).flatten();
    // An edge that was set up anew has another name than before.
    let seen =
        sites.iter().map(|site| web.seen(site)).max_by_key(|seen| seen.heard_at_ms).unwrap_or_default();
    let heard = (seen.heard_at_ms > 0).then_some(seen.heard_at_ms);
    let observed = seen.observation.as_ref();
    let unknown = Garage::default();
    let garage = view.garages.get(key).unwrap_or(&unknown);
    let retired = garage.orders.decommissioned.as_ref();
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let (missing_ranges_total, missing_events, missing_ranges) = view.holes_of(key, 100);
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
        marks: streams
            .map(|stream| Mark { epoch: stream.epoch.to_string(), sequence: stream.mark.sequence })
            .collect(),
        last_heard_at: heard.map(time),
        last_heard_seconds_ago: heard.map(|at| seconds(clock::wall_ms().saturating_sub(at).max(0) as u64)),
        backlog: observed.map(|observed| observed.backlog),
        oldest_age_seconds: observed.and_then(|observed| observed.oldest_age_ms).map(seconds),
        duplicates_refused: seen.duplicates_refused,
        conflicts: seen.conflicts,
        conflict_at: seen.in_conflict_at.map(|(epoch, sequence)| Mark { epoch: epoch.to_string(), sequence }),
        two_edges: seen.two_edges(),
        clock_set: observed.map(|observed| observed.clock_set),
        clock_ahead_seconds: seen.clock_ahead_ms.map(|ahead_ms| ahead_ms as f64 / 1000.0),
        clock_alarm: seen.clock_ahead_ms.is_some_and(|ahead_ms| ahead_ms.saturating_abs() > SKEW_ALARM_MS),
        live_occupied: observed.and_then(|observed| observed.occupied),
        full: observed.and_then(|observed| observed.shortage.clone()),
        damaged: observed.map_or(0, |observed| observed.damaged),
        refused: seen.refused.clone(),
        missing_ranges: missing_ranges.into_iter().map(HoleLine::from).collect(),
        missing_ranges_total,
        missing_events,
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
    let sites = streams.keys().map(|site| view.key_of(site));
    let mut names: Vec<&SiteName> = sites.chain(view.garages.keys()).collect();
    names.sort();
    names.dedup();
    let mut wanted = names.into_iter().filter(|name| match &from {
        Bound::Excluded(after) => *name > after,
        _ => true,
    });
    let answered: Vec<_> = wanted.by_ref().take(limit).collect();
    let next = wanted.next().and(answered.last()).map(ToString::to_string);
    let answers = answered.into_iter().map(|key| garage_answer(&web, &view, key, &streams));
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
    let key = view.key_of(&site);
    // One that has told something and delivered nothing yet is shown while it is remembered.
    let is_heard = web.seen(key).heard_at_ms > 0;
    if !streams.contains_key(key) && !view.garages.contains_key(key) && !is_heard {
        return Err(unknown());
    }
    Ok(Json(garage_answer(&web, &view, key, &streams)))
}

#[derive(Deserialize)]
struct EventsQuery {
    garage: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    /// Whether to tell what the garage's clocks showed.
    #[serde(default)]
    evidence: bool,
}

/// What the clocks of the garage showed when the event was taken: evidence, not truth.
#[derive(Serialize)]
struct Evidence {
    taken_at: String,
    monotonic_ms: u64,
    boot: String,
    clock_set: bool,
}

impl Evidence {
    fn of(page: &crate::messaging::page::Page, after_ms: u32) -> Evidence {
        let begun = &page.begun;
        Evidence {
            taken_at: time(begun.wall_ms.saturating_add(after_ms.into())),
            monotonic_ms: begun.monotonic_ms.saturating_add(after_ms.into()),
            boot: uuid::Uuid::from_bytes(begun.boot).to_string(),
            clock_set: begun.set,
        }
    }
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
    /// Where it was confirmed, when a decided conflict moved it to another epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_from: Option<Mark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
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
    /// Positions between the events that cannot be read any more.
    #[derive(Serialize)]
    struct Damaged {
        from: u64,
        last: u64,
        reason: String,
    }
    #[derive(Serialize)]
    struct Answer {
        events: Vec<EventLine>,
        next: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        damaged: Vec<Damaged>,
    }
    let asked = query(asked)?;
    let evidence = asked.evidence;
    let paging = Paging { after: asked.after, limit: asked.limit };
    let limit = paging.limit()?;
    let after = match &paging.after {
        Some(text) => Some(Cursor::parse(text).ok_or_else(|| bad_cursor(text))?),
        None => None,
    };
    let garage = asked.garage.as_deref().map(|name| SiteName::new(name).ok());
    let garage = garage.map(|site| {
        let view = web.view();
        site.map_or_else(Vec::new, |site| view.sites_of(view.key_of(&site)))
    });
    let shared = Arc::clone(&web);
    let Pages { pages, damaged } = http::blocking(move || {
        let web = shared;
        let from = after.map_or(0, |cursor| cursor.position);
        // One event more than asked for tells whether there is a next page. The first page may be read already.
        let mut wanted = limit + 1 + after.map_or(0, |cursor| cursor.index + 1);
        let enough = |page: &PageAt| {
            wanted = wanted.saturating_sub(page.page.count() as usize);
            wanted == 0
        };
        match &garage {
            None => web.ledger.pages(from, enough),
            Some(sites) => web.ledger.pages_of(sites, from, enough),
        }
    })
    .await?;
    let view = web.view();
    let mut lines = Vec::with_capacity(limit);
    let mut last = None;
    let mut more = false;
    'pages: for page in pages {
        let Content::Records(records) = &page.page.content else {
            continue;
        };
        for (index, record) in records.iter().enumerate() {
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
                garage: view.name_of(view.key_of(&page.site)).to_string(),
                epoch: page.page.epoch.to_string(),
                sequence: page.page.first.get() + index as u64,
                position: page.position,
                not_understood: event.as_ref().err().map(ToString::to_string),
                event: event.ok().map(Shown::from),
                received_at: time(page.received_at_ms),
                moved_from: page.page.moved_from.map(|(epoch, first)| Mark {
                    epoch: epoch.to_string(),
                    sequence: first.get() + index as u64,
                }),
                evidence: evidence.then(|| Evidence::of(&page.page, record.after_ms)),
            });
        }
    }
    let damaged = damaged.into_iter().map(|(from, last, reason)| Damaged { from, last, reason }).collect();
    Ok(Json(Answer { events: lines, next: last.filter(|_| more), damaged }))
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
        garage: view.name_of(view.key_of(&page.garage)).to_string(),
        epoch: page.epoch.to_string(),
        sequence: page.first + index as u64,
        position,
        reason: page.reason.clone(),
        received_at: time(page.received_at_ms),
    });
    Ok(Json(Answer { quarantine: lines.collect(), next }))
}

/// What the ledger cannot give any more, oldest first.
async fn damages(
    State(web): Shared,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Line {
        from: u64,
        last: u64,
        reason: String,
        found_at: Option<String>,
    }
    #[derive(Serialize)]
    struct Answer {
        damages: Vec<Line>,
        next: Option<String>,
    }
    let paging = query(paging)?;
    let limit = paging.limit()?;
    let from = match &paging.after {
        None => 0,
        Some(text) => text.parse::<u64>().map_err(|_| bad_cursor(text))?.saturating_add(1),
    };
    let view = web.view();
    let mut wanted = view.damages.range(from..).map(|(_, damage)| damage);
    let damages: Vec<Line> = wanted
        .by_ref()
        .take(limit)
        .map(|damage| Line {
            from: damage.from,
            last: damage.last,
            reason: damage.reason.clone(),
            found_at: damage.found_at_ms.map(time),
        })
        .collect();
    let next = wanted.next().and(damages.last()).map(|line| line.last.to_string());
    Ok(Json(Answer { damages, next }))
}

/// RFC 3339 in UTC.
fn time(ms: i64) -> String {
    Moment::from_ms(ms, 0).to_string()
}
