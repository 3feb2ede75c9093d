//! The server's HTTP interface. It is read-only.

mod charges;
mod curves;
mod documents;
mod events;
mod garages;
mod pages;
mod quarantine;
mod statements;
mod stays;

use self::garages::OccupancyAnswer;
use super::SharedSeen;
use super::alarms::Alarms;
use super::applying::LiveViews;
use super::books::BooksReader;
use super::calendars;
use super::ledger::Ledger;
use super::record::QuarantinePlace;
use super::serving::Seen;
use super::states;
use super::view::Snapshot;
use crate::codes;
use crate::config::LiveGarages;
use crate::daemon::certificates;
use crate::daemon::doors::Doors;
use crate::http::metrics::{LabelledGauges, Metrics};
use crate::http::tokens::Role;
use crate::http::{self, Problem};
use crate::messaging::SiteName;
use crate::parking::document::{OperatorSettings, PlateTerm};
use crate::parking::tariff::TariffSet;
use crate::server::commands::today;
use crate::store::room::DiskRoom;
use crate::transport::tls::Acceptor;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How many requests read the store at a time: many slow ones must not take its threads, and the disk, from all others.
const READERS: usize = 4;
const RENDERERS: usize = 2;
/// How many documents are rendered at a time. A long one takes as long as its reader.
const DOCUMENTS_AT_ONCE: usize = 4;
/// A review reads all stays.
const REVIEWS_AT_ONCE: usize = 1;
/// How long the disk may take to say how much room there is.
const DISK_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// What the handlers read. None of them waits for records to be applied, or blocks a thread that serves others.
pub struct ServerWeb {
    /// Its store has the stays, too: they are too many to be kept in memory.
    ledger: Ledger,
    live: Arc<LiveViews>,
    seen: SharedSeen,
    alarms: Arc<Alarms>,
    room: DiskRoom,
    operator: OperatorSettings,
    /// Those of the configuration.
    tariffs: TariffSet,
    garages_configured: LiveGarages,
    /// One statement is made at a time: it may be long.
    statements: tokio::sync::Mutex<()>,
    readers: Arc<Semaphore>,
    renderers: Arc<Semaphore>,
    reviews: Arc<Semaphore>,
    /// Held while a document is rendered and sent.
    documents: Arc<Semaphore>,
    /// The last answer about occupancy.
    occupancy: Mutex<Option<OccupancyAnswer>>,
    inside_over_a_day: tokio::sync::Mutex<Option<(Instant, garages::LongInside)>>,
    metrics: Metrics,
    position: Gauge,
    view_position: Gauge,
    garages: Gauge,
    /// Held while they are filled and rendered, so that an answer has each calendar once.
    calendar_days: Mutex<LabelledGauges>,
    /// `None`: edges connect without TLS.
    tls: Option<Acceptor>,
    doors: Arc<Doors>,
    certificate_days: LabelledGauges,
}

type SharedWeb = State<Arc<ServerWeb>>;
type SharedRouter = Router<Arc<ServerWeb>>;

/// What a handler of a request answers.
type HttpAnswer = Result<Response, Problem>;

impl ServerWeb {
    pub fn new(
        ledger: Ledger,
        live: Arc<LiveViews>,
        (seen, alarms): (SharedSeen, Arc<Alarms>),
        room: DiskRoom,
        (operator, tariffs, garages_configured): (OperatorSettings, TariffSet, LiveGarages),
        (tls, doors): (Option<Acceptor>, Arc<Doors>),
        mut metrics: Metrics,
    ) -> ServerWeb {
        ServerWeb {
            tls,
            doors,
            certificate_days: certificates::days_left_gauges(&mut metrics),
            position: metrics.gauge("ledger_position", "The last position of the ledger on disk"),
            view_position: metrics.gauge("view_position", "The position that the view has reached"),
            garages: metrics.gauge("garages", "Garages known"),
            calendar_days: Mutex::new(metrics.gauges(
                "calendar_days_left",
                "Days until the last day of each calendar that the tariffs in force use",
            )),
            ledger,
            live,
            seen,
            alarms,
            room,
            operator,
            tariffs,
            garages_configured,
            statements: tokio::sync::Mutex::new(()),
            readers: Arc::new(Semaphore::new(READERS)),
            renderers: Arc::new(Semaphore::new(RENDERERS)),
            reviews: Arc::new(Semaphore::new(REVIEWS_AT_ONCE)),
            documents: Arc::new(Semaphore::new(DOCUMENTS_AT_ONCE)),
            occupancy: Mutex::new(None),
            inside_over_a_day: tokio::sync::Mutex::new(None),
            metrics,
        }
    }

    pub fn router(self) -> Router {
        let open = Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(readyz));
        let of_displays = Router::new().route("/v1/occupancy", get(garages::occupancy));
        let of_readers = Router::new()
            .merge(pages::routes())
            .route("/metrics", get(show_metrics))
            .route("/v1/alarms", get(alarms))
            .route("/v1/garages", get(garages::garages))
            .route("/v1/garages/{name}", get(garages::garage))
            .route("/v1/garages/{name}/history", get(curves::history))
            .route("/v1/garages/{name}/chart.svg", get(curves::chart))
            .route("/v1/curves", get(curves::curves))
            .route("/v1/events", get(events::events))
            .route("/v1/stays", get(stays::stays))
            .route("/v1/anomalies", get(charges::anomalies))
            .route("/v1/quarantine", get(quarantine::quarantine))
            .route("/v1/review", get(stays::review))
            .route("/v1/damages", get(quarantine::damages));
        let of_money = Router::new()
            .route("/v1/charges", get(charges::charges))
            .route("/v1/statements/{whose}", get(statements::statement))
            .route("/v1/documents", get(documents::documents))
            .route("/v1/documents/{number}", get(documents::document));
        let access = self.doors.access.clone();
        let router = open
            .merge(access.guarded(Role::Board, of_displays))
            .merge(access.guarded(Role::Read, of_readers))
            .merge(access.guarded(Role::Money, of_money));
        http::with_fallbacks(http::with_sign_in(&access, router.with_state(Arc::new(self))))
    }

    fn view(&self) -> Arc<Snapshot> {
        self.live.snapshot()
    }

    fn books(&self) -> BooksReader<'_, impl Fn() -> Arc<Snapshot>> {
        BooksReader { ledger: &self.ledger, saving: Some(self.live.saving()), view: || self.view() }
    }

    /// The term for which documents are shown with plates, as of now.
    fn plate_term(&self) -> PlateTerm {
        self.operator.plate_term(today(&self.operator))
    }

    /// Waits until it is this request's turn.
    async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
        match timeout(TURN_WITHIN, Arc::clone(turns).acquire_owned()).await {
            Ok(turn) => Ok(turn.expect("it is never closed")),
            Err(_) => {
                let text = "the server is busy with longer answers; nothing was changed, and edges are served meanwhile. Ask again in a moment";
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(1))
            }
        }
    }

    /// Reads or computes on a thread that nobody else waits for, when it is this request's turn.
    async fn in_turn<T: Send + 'static, E: fmt::Display + Send + 'static>(
        self: &Arc<Self>,
        turns: &Arc<Semaphore>,
        read: impl FnOnce(&ServerWeb) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = Self::turn(turns).await?;
        let web = Arc::clone(self);
        http::blocking(move || {
            let _turn = turn;
            read(&web)
        })
        .await
    }

    /// Reads in turn, and makes the answer into JSON on the same thread.
    async fn answer_in_turn<T: Serialize + 'static, E: fmt::Display + Send + 'static>(
        self: &Arc<Self>,
        turns: &Arc<Semaphore>,
        read: impl FnOnce(&ServerWeb) -> Result<T, E> + Send + 'static,
    ) -> HttpAnswer {
        let encode = |answer: T| Bytes::from(serde_json::to_vec(&answer).expect("an answer always encodes"));
        let body = self.in_turn(turns, move |web| read(web).map(encode)).await?;
        Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
    }

    /// What the tariffs of the configuration would change for stays that have ended: they are not in force then.
    fn tariffs_differ(&self) -> Vec<String> {
        let view = self.view();
        let in_force = view.billing.rules.tariffs().map(|(_, known)| known);
        let known = in_force.filter(|known| !self.tariffs.is_empty() && **known != self.tariffs);
        known.map(|known| known.differences(&self.tariffs, today(&self.operator))).unwrap_or_default()
    }

    fn seen(&self, name: &SiteName) -> Seen {
        let seen = self.seen.lock().expect("no thread panics while it holds what was seen");
        seen.get(name).cloned().unwrap_or_default()
    }
}

/// `ready`, and a line for each thing that needs attention soon.
async fn readyz(State(web): SharedWeb) -> Result<String, Problem> {
    // A disk that does not answer must not take a thread from those who serve.
    let looked = tokio::task::spawn_blocking(move || {
        let not_ready =
            |code, text: String| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, text).code(code));
        if let Some(now_at) = web.ledger.store().moved_to() {
            return not_ready(codes::DATA_DIRECTORY_RENAMED, http::renamed(&now_at));
        }
        match web.room.check(0) {
            Ok(()) => {
                let ending = calendars::ending(&web.view());
                let ending = ending.iter().map(|end| format!("{}: {end}\n", codes::CALENDAR_ENDS));
                let differing = web.tariffs_differ();
                let differing = differing.iter().map(|its| format!("{}: {its}\n", codes::TARIFFS_DIFFER));
                let certificates = certificates::ready_lines(web.tls.as_ref()) + &web.doors.ready_lines();
                let garages = states::ready_line(&web.garages_configured);
                Ok(format!("ready\n{}{garages}{certificates}", ending.chain(differing).collect::<String>()))
            }
            Err(what) => not_ready(
                codes::DISK_FULL,
                format!("{what}; edges keep their events until there is room, and what was applied is kept"),
            ),
        }
    });
    match timeout(DISK_ANSWERS_WITHIN, looked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(Problem::internal(&error)),
        Err(_) => {
            let text = "the disk does not answer; edges keep their events until it does. Check the disk";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, text).code(codes::DISK_NOT_ANSWERING))
        }
    }
}

async fn show_metrics(State(web): SharedWeb) -> impl IntoResponse {
    let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    web.position.set(gauge(web.ledger.position()));
    let view = web.view();
    web.view_position.set(gauge(view.position));
    web.garages.set(gauge(view.garages.size() as u64));
    let calendar_days = web.calendar_days.lock().expect("no thread panics while it sets a gauge");
    calendar_days.clear();
    for end in calendars::ends(&view) {
        calendar_days.get_or_create(&vec![("calendar", end.calendar)]).set(end.days_left);
    }
    certificates::show_days_left(&web.certificate_days, web.tls.as_ref());
    certificates::show_days_left(&web.certificate_days, web.doors.tls.as_ref());
    web.alarms.with_metrics(|| web.metrics.render())
}

async fn alarms(State(web): SharedWeb) -> Response {
    Json(web.alarms.list()).into_response()
}

#[derive(Serialize)]
struct StreamMark {
    epoch: String,
    sequence: u64,
}

/// Reads a place between two events of the ledger, such as `17.3`: it is after the event with index 3 of the page at position 17.
fn event_cursor(text: &str) -> Option<(u64, usize)> {
    let place: QuarantinePlace = text.parse().ok()?;
    Some((place.position, place.index?.into()))
}
