//! Where producers post, and what the garage shows.

use super::{Shared, now_ms};
use crate::http::{self, Paging, Problem, bad_cursor, metrics::Metrics, query};
use crate::messaging::outbox::{APPEND_MAX, AppendError, Appended};
use crate::messaging::page::Record;
use crate::parking::Event;
use crate::parking::event::Shown;
use crate::parking::occupancy::Effect;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The longest event in JSON.
const EVENT_MAX: usize = 4 * 1024;
/// The longest batch.
const BATCH_MAX: usize = 1024 * 1024;
/// Up to this length a body that is too long is read to its end, and dropped.
const DROPPED_MAX: usize = 64 * 1024 * 1024;
/// How many batches are read at the same time: they are what could fill the memory.
const BATCHES_AT_ONCE: usize = 6;
/// How long a batch waits for others before it is told to come back.
const BATCH_WAITS: Duration = Duration::from_secs(5);
/// How long a producer may take to send its body.
const BODY_WITHIN: Duration = Duration::from_secs(30);

struct Web {
    shared: Arc<Shared>,
    batches: Semaphore,
    metrics: Metrics,
    confirmed: Counter,
    refused: Counter,
    depth: Gauge,
    resends: Gauge,
    connected: Gauge,
}

type SharedWeb = State<Arc<Web>>;

pub fn router(shared: Arc<Shared>) -> Router {
    let mut metrics = Metrics::new("fogpost_edge");
    let web = Web {
        batches: Semaphore::new(BATCHES_AT_ONCE),
        confirmed: metrics
            .counter("events_confirmed", "Events on this disk and confirmed to their producers"),
        refused: metrics.counter("posts_refused", "Posts that were refused"),
        depth: metrics.gauge("outbox_depth", "Events that wait to be delivered"),
        resends: metrics.gauge("resends", "Events sent again since the start"),
        connected: metrics.gauge("connected", "1 while a server answers"),
        metrics,
        shared,
    };
    let router = Router::new()
        .route("/", get(|| async { http::page(include_str!("page.html")) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .route("/v1/events", post(post_event))
        .route("/v1/events/batch", post(post_batch))
        .route("/v1/outbox", get(outbox))
        .route("/v1/outbox/events", get(outbox_events))
        .route("/v1/board", get(board));
    http::with_fallbacks(router.with_state(Arc::new(web)))
}

async fn readyz(State(web): SharedWeb) -> Result<&'static str, Problem> {
    if web.shared.outbox.progress().borrow().failed {
        let text = "the disk failed; events are refused until a restart finds out what it holds";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    Ok("ready\n")
}

async fn show_metrics(State(web): SharedWeb) -> Result<impl IntoResponse, Problem> {
    let outbox = web.shared.outbox.clone();
    let status = http::blocking(move || outbox.status()).await?;
    let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    web.depth.set(gauge(status.depth));
    {
        let sending = web.shared.sending();
        web.resends.set(gauge(sending.resends));
        web.connected.set(i64::from(sending.connected));
    }
    Ok(web.metrics.render())
}

async fn post_event(
    State(web): SharedWeb,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Answer {
        sequence: u64,
        epoch: String,
    }
    let appended = web.counted(web.take_event(&headers, body).await, 1)?;
    let answer = Answer { sequence: appended.first.get(), epoch: appended.epoch.to_string() };
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn post_batch(
    State(web): SharedWeb,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Answer {
        first: u64,
        last: u64,
        epoch: String,
    }
    let appended = web.take_batch(&headers, body).await;
    let count = appended.as_ref().map_or(0, |a| a.last.get() - a.first.get() + 1);
    let appended = web.counted(appended, count)?;
    let answer =
        Answer { first: appended.first.get(), last: appended.last.get(), epoch: appended.epoch.to_string() };
    Ok((StatusCode::CREATED, Json(answer)))
}

impl Web {
    fn counted(&self, result: Result<Appended, Problem>, events: u64) -> Result<Appended, Problem> {
        match &result {
            Ok(_) => self.confirmed.inc_by(events),
            Err(_) => self.refused.inc(),
        };
        result
    }

    async fn take_event(&self, headers: &HeaderMap, body: Body) -> Result<Appended, Problem> {
        let body = read(body, EVENT_MAX, "an event").await;
        check_headers(headers, &["application/json"])?;
        let body = body?;
        let event = Event::from_json(&body, now()).map_err(|error| bad(error.to_string()))?;
        self.append(&[event]).await
    }

    async fn take_batch(&self, headers: &HeaderMap, body: Body) -> Result<Appended, Problem> {
        let Ok(Ok(_permit)) = timeout(BATCH_WAITS, self.batches.acquire()).await else {
            let detail = "other batches are still coming in. Nothing was stored; send it again in a moment";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1));
        };
        let body = read(body, BATCH_MAX, "a batch").await;
        check_headers(headers, &["application/x-ndjson", "application/jsonl", "application/json"])?;
        let body = body?;
        let events = read_lines(&body, now())?;
        self.append(&events).await
    }

    async fn append(&self, events: &[Event]) -> Result<Appended, Problem> {
        let record = |event: &Event| Record { key: None, payload: Bytes::from(event.to_bytes()) };
        let records = events.iter().map(record).collect();
        let effects = events.iter().map(|event| Effect::of(&event.kind));
        let effect = effects.fold(Effect::default(), Effect::then);
        let shared = Arc::clone(&self.shared);
        // A task of its own: it counts what it stores, also when the producer hangs up meanwhile.
        let appending = tokio::spawn(async move {
            let appended = shared.outbox.append(records, now_ms()).await?;
            let events = appended.last.get() - appended.first.get() + 1;
            shared.display().appended(appended.last.get(), events, effect);
            Ok(appended)
        });
        match appending.await {
            Ok(appended) => appended.map_err(|error: AppendError| refused(&error)),
            Err(error) => Err(Problem::internal(&error)),
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_millisecond(now_ms()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn bad(detail: impl Into<String>) -> Problem {
    let detail = detail.into();
    Problem::new(StatusCode::BAD_REQUEST, format!("{detail}. Nothing was stored"))
}

fn check_headers(headers: &HeaderMap, types: &[&str]) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.map(|given| given.split(';').next().unwrap_or(given).trim().to_ascii_lowercase());
    if !essence.is_some_and(|essence| types.contains(&essence.as_str())) {
        let detail = format!("send it with \"Content-Type: {}\". Nothing was stored", types[0]);
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    if headers.contains_key("idempotency-key") {
        // Taking it and not keeping it would be a promise that is not kept.
        let detail = "Idempotency-Key: this version does not remember keys yet. Nothing was stored; post without it, and count on one event for each answer 201";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, detail));
    }
    Ok(())
}

/// Reads a body of at most `limit` bytes. One that is longer is read and dropped for a while: a producer that is cut off
/// while it sends would see a broken pipe instead of the reason, and send the same again.
async fn read(mut body: Body, limit: usize, what: &str) -> Result<Bytes, Problem> {
    let reading = async {
        let mut bytes = BytesMut::new();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| bad(format!("the body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            length += data.len();
            if length <= limit {
                bytes.extend_from_slice(&data);
            } else if length > DROPPED_MAX {
                break;
            }
        }
        if length > limit { Err(too_large(what, limit)) } else { Ok(bytes.freeze()) }
    };
    timeout(BODY_WITHIN, reading).await.unwrap_or_else(|_| {
        let detail =
            format!("the body did not arrive within {} s. Nothing was stored", BODY_WITHIN.as_secs());
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
    })
}

fn too_large(what: &str, limit: usize) -> Problem {
    let detail = format!("{what} has at most {limit} bytes. Nothing was stored; send less at a time");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// NDJSON: an event a line; the last line end may be missing, and so may what stands on an empty line.
fn read_lines(body: &[u8], now: Timestamp) -> Result<Vec<Event>, Problem> {
    let mut events = Vec::new();
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if events.len() == APPEND_MAX {
            let detail =
                format!("a batch has at most {APPEND_MAX} lines. Nothing was stored; send less at a time");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        if line.len() > EVENT_MAX {
            return Err(bad(format!("line {number}: an event has at most {EVENT_MAX} bytes")));
        }
        let event = Event::from_json(line, now);
        events.push(event.map_err(|error| bad(format!("line {number}: {error}")))?);
    }
    if events.is_empty() {
        return Err(bad("the body holds no event"));
    }
    Ok(events)
}

fn refused(error: &AppendError) -> Problem {
    let status = match error {
        AppendError::Count(_) => StatusCode::BAD_REQUEST,
        AppendError::TooLong { .. } | AppendError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        AppendError::Busy | AppendError::Failed => StatusCode::SERVICE_UNAVAILABLE,
    };
    let problem = Problem::new(status, error.to_string());
    match error {
        AppendError::Busy => problem.retry_after(1),
        AppendError::Failed => problem.retry_after(5),
        _ => problem,
    }
}

async fn outbox(State(web): SharedWeb) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Answer {
        garage: String,
        epoch: String,
        next_sequence: u64,
        acknowledged: u64,
        depth: u64,
        bytes: u64,
        oldest_age_seconds: Option<f64>,
        in_flight: u64,
        resends: u64,
        connected: bool,
        last_acknowledged_at: Option<String>,
        server: Option<String>,
        ledger: Option<String>,
        alarm: Option<String>,
    }
    let outbox = web.shared.outbox.clone();
    let status = http::blocking(move || outbox.status()).await?;
    let sending = web.shared.sending().clone();
    let age = |begun: i64| (now_ms() - begun).max(0) as f64 / 1000.0;
    Ok(Json(Answer {
        garage: web.shared.config.garage_name.to_string(),
        epoch: web.shared.outbox.epoch().to_string(),
        next_sequence: status.next_sequence,
        acknowledged: status.acknowledged,
        depth: status.depth,
        bytes: status.bytes,
        oldest_age_seconds: status.oldest_begun_at_ms.map(age),
        in_flight: sending.in_flight.min(status.depth),
        resends: sending.resends,
        connected: sending.connected,
        last_acknowledged_at: sending.last_acknowledged_at_ms.map(time),
        server: sending.server.map(|server| server.to_string()),
        ledger: sending.ledger,
        alarm: sending.alarm,
    }))
}

async fn outbox_events(
    State(web): SharedWeb,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Line {
        sequence: u64,
        #[serde(flatten)]
        event: Option<Shown>,
    }
    #[derive(Serialize)]
    struct Answer {
        epoch: String,
        events: Vec<Line>,
        next: Option<String>,
    }
    let paging = query(paging)?;
    let limit = paging.limit()?;
    let after = match &paging.after {
        None => 0,
        Some(text) => text.parse().map_err(|_| bad_cursor(text))?,
    };
    let outbox = web.shared.outbox.clone();
    let mut found = http::blocking(move || outbox.peek(after, limit + 1)).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(sequence, _)| sequence.to_string());
    let lines = found.into_iter().map(|(sequence, record)| Line {
        sequence,
        event: Event::from_bytes(&record.payload).ok().map(Shown::from),
    });
    Ok(Json(Answer { epoch: web.shared.outbox.epoch().to_string(), events: lines.collect(), next }))
}

async fn board(State(web): SharedWeb) -> Result<impl IntoResponse, Problem> {
    #[derive(Serialize)]
    struct Version {
        ledger: String,
        position: u64,
    }
    #[derive(Serialize)]
    struct Own {
        name: String,
        capacity: u32,
        occupied: Option<i64>,
        free: Option<i64>,
        pending: u64,
    }
    #[derive(Serialize)]
    struct Line {
        name: String,
        capacity: u32,
        occupied: i64,
        free: i64,
        as_of: Option<String>,
    }
    #[derive(Serialize)]
    struct Answer {
        version: Option<Version>,
        age_seconds: Option<f64>,
        received_at: Option<String>,
        connected: bool,
        own: Own,
        garages: Vec<Line>,
    }
    let position = web.shared.outbox.position();
    let connected = web.shared.sending().connected;
    let capacity = web.shared.config.capacity;
    let display = web.shared.display();
    let age = display.age(Instant::now());
    let free = |capacity: u32, occupied: i64| (i64::from(capacity) - occupied).max(0);
    let occupied = display.own_occupied();
    let lines = display.board().map(|board| {
        let line = |(name, line): (&String, &crate::parking::board::BoardLine)| Line {
            name: name.clone(),
            capacity: line.capacity,
            occupied: line.occupied,
            free: free(line.capacity, line.occupied),
            as_of: line.as_of_ms.map(time),
        };
        board.garages.iter().map(line).collect()
    });
    Ok(Json(Answer {
        version: display.board().map(|board| Version {
            ledger: crate::messaging::LedgerId::from_bytes(board.version.ledger).to_string(),
            position: board.version.position,
        }),
        age_seconds: age.map(|(age, _)| age.as_secs_f64()),
        received_at: age.map(|(_, at_ms)| time(at_ms)),
        connected,
        own: Own {
            name: web.shared.config.garage_name.to_string(),
            capacity,
            occupied,
            free: occupied.map(|occupied| free(capacity, occupied)),
            pending: position.durable - position.acknowledged,
        },
        garages: lines.unwrap_or_default(),
    }))
}

/// RFC 3339 in UTC.
fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}
