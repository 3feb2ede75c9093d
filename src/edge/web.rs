//! The HTTP interface of an edge: producers post events, people and programs read the outbox and the board.

mod answers;
mod board;
pub mod feed;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod headers;

use self::answers::{ClockAnswer, ConfirmedBatch, ConfirmedEvent, OutboxState, WaitingEvent, WaitingEvents};
use self::board::BoardPage;
use self::feed::BoardFeed;
use super::EdgeShared;
use super::sending::Alarm;
use crate::codes;
use crate::daemon::doors::Doors;
use crate::daemon::{certificates, clock};
use crate::http::bodies::Bodies;
use crate::http::cameras::CameraGate;
use crate::http::tokens::{Role, SignedIn};
use crate::http::{
    self, Paging, Problem, Query, list_limit,
    metrics::{LabelledGauges, Metrics},
};
use crate::messaging::Digest;
use crate::messaging::outbox::{APPEND_MAX, AppendError, Appended};
use crate::messaging::page::{IdempotencyKey, Message};
use crate::parking::event::{EventError, EventJson};
use crate::parking::occupancy::CountEffect;
use crate::parking::{Event, Moment, json};
use crate::store::StoreError;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

const EVENT_MAX: usize = 4 * 1024;
const BATCH_MAX: usize = 1024 * 1024;
/// Memory for all batches together while they are received: enough for a few of maximum length, or hundreds of usual ones.
const BATCHES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The same for single events: more than one for each connection.
const EVENTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory for all batches together that are being parsed or wait for the disk. The outbox limits single events.
const APPENDS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Memory that a line of a batch takes in addition to its bytes, once it is a record.
const RECORD_BYTES: usize = 256;
/// How long a batch waits for that memory before it is answered with 503.
const BATCH_WAITS: Duration = Duration::from_secs(5);

struct EdgeWeb {
    shared: Arc<EdgeShared>,
    events: Bodies,
    batches: Bodies,
    /// A permit for each byte of [`APPENDS_BYTES_MAX`].
    appends: Arc<Semaphore>,
    metrics: Metrics,
    confirmed: Counter,
    refused: Counter,
    repeated: Counter,
    depth: Gauge,
    resends: Gauge,
    busy_replies: Gauge,
    connected: Gauge,
    stands_still: Gauge,
    certificate_days: LabelledGauges,
    doors: Arc<Doors>,
    feed: Arc<BoardFeed>,
}

type SharedWeb = State<Arc<EdgeWeb>>;

/// The routes for everybody, and those of the listener for cameras.
pub fn routers(
    shared: Arc<EdgeShared>,
    doors: Arc<Doors>,
    feed: Arc<BoardFeed>,
    mut metrics: Metrics,
) -> [Router; 2] {
    let web = EdgeWeb {
        events: Bodies::new("an event", EVENT_MAX, EVENTS_BYTES_MAX),
        batches: Bodies::new("a batch", BATCH_MAX, BATCHES_BYTES_MAX),
        appends: Arc::new(Semaphore::new(APPENDS_BYTES_MAX)),
        confirmed: metrics
            .counter("events_confirmed", "Events on this disk and confirmed to their producers"),
        refused: metrics.counter("posts_refused", "Posts that were refused"),
        repeated: metrics.counter("posts_repeated", "Posts whose key was known: nothing more was stored"),
        depth: metrics.gauge("outbox_depth", "Events that wait to be delivered"),
        resends: metrics.gauge("resends", "Events sent again since the start"),
        busy_replies: metrics.gauge(
            "server_busy_replies",
            "How often the server asked to come back later since the start, because it had too much waiting",
        ),
        connected: metrics.gauge("connected", "1 while a server answers"),
        stands_still: metrics.gauge(
            "queue_stands_still",
            "1 while the server answers and no event that waits is acknowledged",
        ),
        certificate_days: certificates::days_left_gauges(&mut metrics),
        metrics,
        shared,
        doors,
        feed,
    };
    let open = Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(readyz));
    let of_display = Router::new().route("/", get(page)).route("/v1/board", get(board));
    let of_display = of_display.route("/v1/board/stream", get(watch_board));
    let of_readers = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/v1/outbox", get(outbox))
        .route("/v1/outbox/events", get(outbox_events));
    let (access, web) = (web.doors.access.clone(), Arc::new(web));
    let config = &web.shared.config;
    let gate = CameraGate::new(config.camera_allow.clone(), config.camera_passwords, access.clone());
    let of_cameras = http::with_fallbacks(gate.guarded(ingest()).with_state(Arc::clone(&web)));
    let router = open
        .merge(access.guarded(Role::Board, of_display))
        .merge(access.guarded(Role::Read, of_readers))
        .merge(access.guarded(Role::Ingest, ingest()));
    [http::with_fallbacks(http::with_sign_in(&access, router.with_state(web))), of_cameras]
}

/// The routes for those who post events.
fn ingest() -> Router<Arc<EdgeWeb>> {
    Router::new().route("/v1/events", post(post_event)).route("/v1/events/batch", post(post_batch))
}

async fn page(signed_in: SignedIn) -> Response {
    http::page_for(include_str!("page.html"), &signed_in)
}

/// `ready`, and a line for each thing that needs attention soon.
async fn readyz(State(web): SharedWeb) -> Result<String, Problem> {
    let unready = |code, text: String| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, text).code(code));
    if let Some(failure) = web.shared.outbox.failure() {
        return unready(codes::DISK_FAILED, format!("{failure}. Events are refused until then"));
    }
    if let Some(now_at) = web.shared.outbox.moved_to() {
        return unready(codes::DATA_DIRECTORY_RENAMED, http::renamed(&now_at));
    }
    let outbox = web.shared.outbox.clone();
    if let Some(what) = http::blocking(move || Ok::<_, Infallible>(outbox.shortage())).await? {
        let text =
            format!("{what}; events are refused until there is room, and what was confirmed is delivered");
        return unready(codes::OUTBOX_FULL, text);
    }
    let [own, of_http] = [certificates::ready_lines(web.shared.tls.as_ref()), web.doors.ready_lines()];
    Ok(format!("ready\n{own}{of_http}"))
}

async fn show_metrics(State(web): SharedWeb) -> Result<impl IntoResponse, Problem> {
    let outbox = web.shared.outbox.clone();
    let status = http::blocking(move || outbox.status()).await?;
    let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    web.depth.set(gauge(status.depth));
    {
        let sending = web.shared.sending();
        web.resends.set(gauge(sending.resends));
        web.busy_replies.set(gauge(sending.busy_replies));
        web.connected.set(i64::from(sending.connected));
        web.stands_still.set(i64::from(sending.stands_still.is_some()));
    }
    certificates::show_days_left(&web.certificate_days, web.shared.tls.as_ref());
    certificates::show_days_left(&web.certificate_days, web.doors.tls.as_ref());
    Ok(web.metrics.render())
}

async fn post_event(
    State(web): SharedWeb,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let appended = web.counted(web.take_event(&headers, body).await, 1)?;
    let answer = ConfirmedEvent { sequence: appended.first.get(), epoch: appended.epoch.to_string() };
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn post_batch(
    State(web): SharedWeb,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let appended = web.take_batch(&headers, body).await;
    let count = appended.as_ref().map_or(0, |a| a.last.get() - a.first.get() + 1);
    let appended = web.counted(appended, count)?;
    let (first, last) = (appended.first.get(), appended.last.get());
    let answer = ConfirmedBatch { first, last, epoch: appended.epoch.to_string() };
    Ok((StatusCode::CREATED, Json(answer)))
}

impl EdgeWeb {
    fn counted(&self, result: Result<Appended, Problem>, events: u64) -> Result<Appended, Problem> {
        match &result {
            Ok(appended) if appended.repeated => self.repeated.inc(),
            Ok(_) => self.confirmed.inc_by(events),
            Err(_) => self.refused.inc(),
        };
        result
    }

    async fn take_event(&self, headers: &HeaderMap, body: Body) -> Result<Appended, Problem> {
        headers::check_content(headers, &["application/json"])?;
        let body = self.events.read(body).await?;
        let event = Event::from_json(&body, now()).map_err(|error| bad_event(&error, None))?;
        let mut batch = EventBatch::default();
        batch.push(&event);
        batch.set_key(read_key(headers, "event", &body, 1)?);
        drop(body);
        self.append(batch, None).await
    }

    async fn take_batch(&self, headers: &HeaderMap, body: Body) -> Result<Appended, Problem> {
        headers::check_content(headers, &["application/x-ndjson", "application/jsonl", "application/json"])?;
        let body = self.batches.read(body).await?;
        let permit = self.wait_for_others(&body).await?;
        let headers = headers.clone();
        let parsing = tokio::task::spawn_blocking(move || {
            let mut batch = read_lines(&body, now())?;
            let count = u32::try_from(batch.records.len()).expect("a batch is short");
            batch.set_key(read_key(&headers, "batch", &body, count)?);
            Ok(batch)
        });
        let batch = parsing.await.map_err(|error| Problem::internal(&error))??;
        self.append(batch, Some(permit)).await
    }

    /// Waits until the batches before this one have left enough memory, and takes what it needs until it is on disk.
    async fn wait_for_others(&self, body: &[u8]) -> Result<OwnedSemaphorePermit, Problem> {
        let lines = body.iter().filter(|byte| **byte == b'\n').count().min(APPEND_MAX) + 1;
        let bytes = u32::try_from(body.len() + lines * RECORD_BYTES).expect("a batch is short");
        match timeout(BATCH_WAITS, Arc::clone(&self.appends).acquire_many_owned(bytes)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                let detail =
                    "other batches still wait for the disk. Nothing was stored; send it again in a moment";
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).code(codes::BUSY).retry_after(1))
            }
        }
    }

    /// Stores the events. `permit` counts their memory until that is done, whether the producer waits for it or not.
    async fn append(
        &self,
        batch: EventBatch,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Appended, Problem> {
        let shared = Arc::clone(&self.shared);
        // A separate task: it counts what it stores, even when the producer disconnects meanwhile.
        let appending = tokio::spawn(async move {
            let appended = shared.outbox.append(batch.records, clock::read()).await?;
            if !appended.repeated {
                let events = appended.last.get() - appended.first.get() + 1;
                shared.display().appended(appended.epoch, appended.last.get(), events, batch.effect);
            }
            drop(permit);
            Ok(appended)
        });
        let appended = appending.await.map_err(|error| Problem::internal(&error))?;
        appended.map_err(|error: AppendError| refused(&error))
    }
}

#[derive(Default)]
struct EventBatch {
    records: Vec<Message>,
    effect: CountEffect,
}

impl EventBatch {
    fn push(&mut self, event: &Event) {
        self.effect = self.effect.then(CountEffect::of(event));
        self.records.push(Message::of(event.to_bytes()));
    }

    fn set_key(&mut self, key: Option<IdempotencyKey>) {
        if let Some(first) = self.records.first_mut() {
            first.key = key;
        }
    }
}

fn now() -> Timestamp {
    clock::now()
}

fn bad(detail: impl Into<String>) -> Problem {
    let detail = detail.into();
    Problem::new(StatusCode::BAD_REQUEST, format!("{detail}. Nothing was stored"))
}

/// An event that is refused; `line` is its line in a batch.
fn bad_event(error: &EventError, line: Option<usize>) -> Problem {
    let code = match error {
        EventError::Encoding(_) => codes::INVALID_ENCODING,
        EventError::Syntax(_) => codes::INVALID_JSON,
        EventError::Field { .. } => codes::INVALID_EVENT,
    };
    let line = line.map_or_else(String::new, |line| format!("line {line}: "));
    bad(format!("{line}{error}")).code(code)
}

/// When a key is used again, the body as sent and the endpoint are compared.
fn read_key(
    headers: &HeaderMap,
    what: &str,
    body: &[u8],
    count: u32,
) -> Result<Option<IdempotencyKey>, Problem> {
    let wrong = |reason| bad(format!("Idempotency-Key: {reason}")).code(codes::INVALID_IDEMPOTENCY_KEY);
    let text = headers::idempotency_key(headers).map_err(wrong)?;
    let body = Digest::of(&[what.as_bytes(), b"\n", body].concat());
    Ok(text.map(|text| IdempotencyKey { text, body, count }))
}

/// Reads NDJSON, one event per line. The last line end may be missing, and lines may be empty.
fn read_lines(body: &[u8], now: Timestamp) -> Result<EventBatch, Problem> {
    let body = json::without_mark(body).map_err(|error| bad_event(&error, None))?;
    let mut batch = EventBatch::default();
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if batch.records.len() == APPEND_MAX {
            let detail =
                format!("a batch has at most {APPEND_MAX} lines. Nothing was stored; send fewer at a time");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        if line.len() > EVENT_MAX {
            let detail = format!("line {number}: an event has at most {EVENT_MAX} bytes");
            return Err(bad(detail).code(codes::INVALID_EVENT));
        }
        let event = Event::from_json(line, now).map_err(|error| bad_event(&error, Some(number)))?;
        batch.push(&event);
    }
    if batch.records.is_empty() {
        return Err(bad("the body holds no event").code(codes::EMPTY_BATCH));
    }
    Ok(batch)
}

fn refused(error: &AppendError) -> Problem {
    let (status, code, retry_after) = match error {
        AppendError::Count(_) => (StatusCode::BAD_REQUEST, codes::EMPTY_BATCH, None),
        AppendError::Key { .. } => (StatusCode::BAD_REQUEST, codes::INVALID_IDEMPOTENCY_KEY, None),
        AppendError::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, codes::IDEMPOTENCY_KEY_REUSED, None),
        AppendError::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, codes::OUTBOX_FULL, Some(60)),
        AppendError::TooLong { .. } | AppendError::TooLarge { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, codes::TOO_LARGE, None)
        }
        AppendError::Busy => (StatusCode::SERVICE_UNAVAILABLE, codes::BUSY, Some(1)),
        AppendError::KeysFull => (StatusCode::SERVICE_UNAVAILABLE, codes::IDEMPOTENCY_KEYS_FULL, Some(60)),
        AppendError::Failed => (StatusCode::SERVICE_UNAVAILABLE, codes::DISK_FAILED, Some(5)),
    };
    Problem { retry_after_seconds: retry_after, ..Problem::new(status, error.to_string()).code(code) }
}

async fn outbox(State(web): SharedWeb) -> Result<Json<OutboxState>, Problem> {
    let outbox = web.shared.outbox.clone();
    let read = move || Ok::<_, StoreError>((outbox.status()?, outbox.shortage(), outbox.keys_remembered()));
    let (status, full, keys_remembered) = http::blocking(read).await?;
    let sending = web.shared.sending().clone();
    let (alarm, alarm_code) = alarm(&web.shared).map(|alarm| (alarm.text, alarm.code)).unzip();
    let now = clock::read();
    Ok(Json(OutboxState {
        garage: web.shared.config.garage_name.to_string(),
        epoch: status.epoch.to_string(),
        next_sequence: status.next_sequence,
        acknowledged: status.acknowledged,
        depth: status.depth,
        bytes: status.bytes,
        oldest_age_seconds: status.oldest_begun.map(|begun| begun.age_at(&now).as_secs_f64()),
        in_flight: sending.in_flight.min(status.depth),
        resends: sending.resends,
        connected: sending.connected,
        last_acknowledged_at: sending.last_acknowledged_at_ms.map(Moment::utc_text),
        server: sending.server.map(|server| server.to_string()),
        ledger: sending.ledger,
        alarm,
        alarm_code,
        notice: sending.notice,
        full,
        epochs: status.epochs,
        keys_remembered,
        clock: ClockAnswer {
            set: now.set,
            server_ahead_seconds: sending.skew_ms.map(|skew_ms| skew_ms as f64 / 1000.0),
        },
        damages: web.shared.outbox.damages().to_vec(),
    }))
}

async fn outbox_events(
    State(web): SharedWeb,
    Query(paging): Query<Paging>,
) -> Result<Json<WaitingEvents>, Problem> {
    let limit = list_limit(paging.limit)?;
    let after = http::cursor(paging.after.as_deref(), cursor)?;
    let outbox = web.shared.outbox.clone();
    let (found, next) = http::blocking(move || outbox.peek(after, limit)).await?;
    let next = next.map(|(epoch_index, sequence)| format!("{epoch_index}.{sequence}"));
    let events = found.into_iter().map(|waiting| WaitingEvent {
        epoch: waiting.epoch.to_string(),
        sequence: waiting.sequence,
        event: Event::from_bytes(&waiting.record.payload).ok().map(EventJson::from),
    });
    Ok(Json(WaitingEvents { epoch: web.shared.outbox.epoch().to_string(), events: events.collect(), next }))
}

/// The index of an epoch in the outbox, and a sequence in it.
fn cursor(text: &str) -> Option<(u32, u64)> {
    let (epoch_index, sequence) = text.split_once('.')?;
    Some((epoch_index.parse().ok()?, sequence.parse().ok()?))
}

async fn board(State(web): SharedWeb) -> Json<BoardPage> {
    Json(BoardPage::of(&web.shared))
}

async fn watch_board(State(web): SharedWeb) -> Response {
    web.feed.watch()
}

/// A problem that a person should look at, the most urgent one.
fn alarm(shared: &EdgeShared) -> Option<Alarm> {
    if let Some(now_at) = shared.outbox.moved_to() {
        return Some(Alarm { code: codes::DATA_DIRECTORY_RENAMED, text: http::renamed(&now_at) });
    }
    let sending = shared.sending();
    // A known reason says more than that the queue stands still.
    sending.alarm.as_ref().or(sending.stands_still.as_ref()).cloned()
}
