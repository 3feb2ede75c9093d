//! Posts one garage's events to its edge.
//!
//! **Promise.** Events are posted in order, each until it is confirmed, and are in the [`CityBooks`] from then on and not before.
//! **Kept by.** One request at a time. Without chaos, an edge that disconnects without an answer ends the run. Under chaos edges are
//! killed, so each request has an idempotency key, and is made again with the same key and body until it is answered 201.

use super::books::{CityBooks, PostedEvent};
use super::chaos::gate::GatePass;
use super::client::DaemonClient;
use bytes::Bytes;
use fogpost::http::client::{HttpCallError, PostAnswer};
use fogpost::traffic::{CarPassage, CarStream};
use hyper::StatusCode;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The maximum number of lines in one request that an edge takes.
const BATCH_EVENTS: u64 = 10_000;

/// The maximum number of bytes in one request. An edge takes 1 MiB; the last line may go beyond this.
const BATCH_BYTES: usize = (1 << 20) - 1_024;

/// The maximum number of lines in one request under chaos: few, so that there is always a request for a fault to hit.
const CHAOS_BATCH_EVENTS: u64 = 64;

/// How long a producer waits before it repeats a request that had no answer: the first time, and at most. It doubles.
const FIRST_RETRY_AFTER: Duration = Duration::from_millis(10);
const MAX_RETRY_AFTER: Duration = Duration::from_millis(500);

/// A request that an edge did not confirm for this long will not be confirmed: an edge is dead for some seconds at most, and
/// full until it has delivered.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);

/// The time in the city, which goes faster than ours.
#[derive(Debug, Clone)]
pub struct CityClock {
    started: Instant,
    started_unix_ms: i64,
    speed: f64,
    zone: TimeZone,
}

impl CityClock {
    /// A clock that shows `unix_ms` now and goes this many times faster than ours.
    pub fn starting(unix_ms: i64, speed: f64, zone: TimeZone) -> CityClock {
        CityClock { started: Instant::now(), started_unix_ms: unix_ms, speed, zone }
    }

    pub fn now_unix_ms(&self) -> i64 {
        let passed_ms = self.started.elapsed().as_secs_f64() * 1_000.0 * self.speed;
        self.started_unix_ms.saturating_add(passed_ms as i64)
    }

    /// What it shows.
    pub fn local(&self) -> String {
        let now = Timestamp::from_millisecond(self.now_unix_ms()).unwrap_or(Timestamp::MAX);
        self.zone.to_datetime(now).strftime("%a %Y-%m-%d %H:%M   ").to_string()
    }

    /// Our instant at which it is `unix_ms` there. For an instant years ahead it is an earlier one.
    fn when(&self, unix_ms: i64) -> Instant {
        const FAR: f64 = 1e7;
        let wait_s = (unix_ms - self.started_unix_ms) as f64 / 1_000.0 / self.speed;
        self.started + Duration::from_secs_f64(wait_s.clamp(0.0, FAR))
    }
}

/// How far a producer is, for others to look at.
#[derive(Debug, Default)]
pub struct ProducerCounts {
    pub confirmed: AtomicU64,
    /// How often the edge asked to come back later.
    pub held_back: AtomicU64,
    /// How often a request was made again, for this reason or since it had no answer.
    pub repeated: AtomicU64,
}

pub struct CityProducer {
    pub client: DaemonClient,
    /// The edge's address: `http://127.0.0.1:5581`.
    pub edge: String,
    pub traffic: CarStream,
    pub limit: u64,
    pub zone: TimeZone,
    pub books: CityBooks,
    pub counts: Arc<ProducerCounts>,
    /// `None`: as fast as it can.
    pub clock: Option<CityClock>,
    /// `None`: there is no chaos.
    pub chaos: Option<GatePass>,
}

/// What a producer leaves: the books of what was confirmed, and why it ended early, if it did.
pub type ProducerResult = (CityBooks, Result<(), HttpCallError>);

impl CityProducer {
    /// Runs until the traffic or the limit ends, `stop` is cancelled, or the edge fails. A request that was begun when `stop`
    /// is cancelled is still brought to an end.
    pub async fn run(mut self, stop: CancellationToken) -> ProducerResult {
        let result = self.feed(&stop).await;
        (self.books, result)
    }

    async fn feed(&mut self, stop: &CancellationToken) -> Result<(), HttpCallError> {
        let mut batch = Vec::new();
        let mut next = self.next_passage();
        while let Some(first) = next {
            let room = async {
                if let Some(clock) = &self.clock {
                    tokio::time::sleep_until(clock.when(first.unix_ms)).await;
                }
                match &mut self.chaos {
                    None => BATCH_EVENTS,
                    // One event at a time has another route.
                    Some(pass) if rand::random_bool(0.2) => pass.room().await.min(1),
                    Some(pass) => pass.room().await.min(rand::random_range(1..=CHAOS_BATCH_EVENTS)),
                }
            };
            let Some(most) = stop.run_until_cancelled(room).await else {
                return Ok(());
            };
            let mut lines = String::new();
            next = self.gather(first, most, &mut batch, &mut lines);
            self.deliver(&batch, Bytes::from(lines), stop).await?;
        }
        Ok(())
    }

    fn next_passage(&mut self) -> Option<CarPassage> {
        self.limit = self.limit.checked_sub(1)?;
        self.traffic.next()
    }

    /// Fills `batch` and `lines` with `first` and the events after it that are due, at most `most`. Returns the one after them.
    fn gather(
        &mut self,
        first: CarPassage,
        most: u64,
        batch: &mut Vec<PostedEvent>,
        lines: &mut String,
    ) -> Option<CarPassage> {
        let now_unix_ms = self.clock.as_ref().map_or(i64::MAX, CityClock::now_unix_ms);
        let mut passage = first;
        batch.clear();
        loop {
            let key = passage.key();
            passage.write_event(key.as_deref(), &self.zone, lines);
            batch.push(PostedEvent { direction: passage.direction, unix_ms: passage.unix_ms, key });
            passage = self.next_passage()?;
            let due = passage.unix_ms <= now_unix_ms;
            if !due || batch.len() as u64 >= most || lines.len() > BATCH_BYTES {
                return Some(passage);
            }
        }
    }

    /// Posts the batch until it is confirmed, or `stop` comes while it is certain that nothing was stored.
    async fn deliver(
        &mut self,
        batch: &[PostedEvent],
        lines: Bytes,
        stop: &CancellationToken,
    ) -> Result<(), HttpCallError> {
        let mut key = None;
        if let Some(pass) = &mut self.chaos {
            key = Some(uuid::Uuid::new_v4().to_string());
            if stop.run_until_cancelled(pass.request(batch.len() as u64)).await.is_none() {
                return Ok(());
            }
        }
        let begun = Instant::now();
        let mut retry_after = FIRST_RETRY_AFTER;
        let mut maybe_stored = false;
        loop {
            let posted =
                self.client.post_events(&self.edge, batch.len() as u64, lines.clone(), key.as_deref());
            let pause = match posted.await {
                Ok(PostAnswer::Created(receipt)) => {
                    self.books.confirm(batch, receipt);
                    self.counts.confirmed.store(self.books.confirmed(), Ordering::Relaxed);
                    return Ok(());
                }
                Ok(PostAnswer::RetryAfter(pause)) => {
                    self.counts.held_back.fetch_add(1, Ordering::Relaxed);
                    if self.chaos.is_some() { pause.min(MAX_RETRY_AFTER) } else { pause }
                }
                Err(error)
                    if self.chaos.is_none() || !is_passing(&error) || begun.elapsed() > GIVE_UP_AFTER =>
                {
                    return Err(error);
                }
                Err(error) => {
                    maybe_stored |= !matches!(error, HttpCallError::Refused { .. });
                    let doubled = (retry_after * 2).min(MAX_RETRY_AFTER);
                    std::mem::replace(&mut retry_after, doubled)
                }
            };
            let pause = tokio::time::sleep(pause);
            if maybe_stored {
                pause.await;
            } else if stop.run_until_cancelled(pause).await.is_none() {
                return Ok(());
            }
            self.counts.repeated.fetch_add(1, Ordering::Relaxed);
            if let Some(pass) = &self.chaos {
                pass.notify_request();
            }
        }
    }
}

/// Whether the same request may be confirmed later. A full edge is one that could not deliver.
fn is_passing(error: &HttpCallError) -> bool {
    match error {
        HttpCallError::NoAnswer { .. } | HttpCallError::TooSlow { .. } => true,
        HttpCallError::Refused { status, .. } => *status == StatusCode::INSUFFICIENT_STORAGE,
        HttpCallError::Malformed { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::books::{Baseline, ServerAccount};
    use super::*;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use fogpost::traffic::plates::PlateRegistry;
    use fogpost::traffic::recording::{OccupancyRow, recorded_cars};
    use fogpost::traffic::{Drivers, StartingState};
    use std::collections::HashMap;
    use std::sync::Mutex;

    #[test]
    fn an_hour_of_the_city_passes_in_a_minute() {
        let clock = CityClock::starting(1_000_000, 60.0, TimeZone::UTC);
        assert_eq!(clock.when(1_000_000 + 3_600_000) - clock.started, Duration::from_secs(60));
        assert_eq!(clock.when(5), clock.started, "what is past is due");
        let (before, city, after) = (Instant::now(), clock.now_unix_ms(), Instant::now());
        let ms = Duration::from_millis(1);
        assert!((before - ms..=after + ms).contains(&clock.when(city)));
    }

    /// What an edge does with one request.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum EdgeMood {
        Accept,
        /// 503, with `Retry-After: 0`.
        Busy,
        Full,
        /// It ends before it stores the events.
        DieBefore,
        /// It stores the events, and ends before it has said so.
        DieAfter,
    }

    /// An edge with moods, the next one last; when there are none left it accepts.
    #[derive(Debug, Default)]
    struct TestEdge {
        moods: Vec<EdgeMood>,
        lines: Vec<String>,
        largest: usize,
        /// The answer and the body of each key.
        keys: HashMap<String, (String, String)>,
    }

    type SharedEdge = Arc<Mutex<TestEdge>>;

    impl TestEdge {
        /// Stores the events, unless they are there under this key; returns the answer.
        fn store(&mut self, key: Option<&str>, path: &str, body: String) -> String {
            if let Some((answer, earlier)) = key.and_then(|key| self.keys.get(key)) {
                assert_eq!(*earlier, body, "the body under a key is always the same");
                return answer.clone();
            }
            let first = self.lines.len() + 1;
            self.lines.extend(body.lines().map(str::to_owned));
            let last = self.lines.len();
            self.largest = self.largest.max(last + 1 - first);
            let answer = if path.ends_with("batch") {
                format!(r#"{{"first":{first},"last":{last},"epoch":"e"}}"#)
            } else {
                format!(r#"{{"sequence":{last},"epoch":"e"}}"#)
            };
            if let Some(key) = key {
                self.keys.insert(key.to_owned(), (answer.clone(), body));
            }
            answer
        }
    }

    /// What is left of a connection whose other end was killed.
    fn broken_off() -> Response {
        let end: Result<Bytes, _> = Err(std::io::ErrorKind::ConnectionReset);
        let end = end.map_err(std::io::Error::from);
        axum::body::Body::from_stream(futures_util::stream::once(async { end })).into_response()
    }

    async fn post(
        State(edge): State<SharedEdge>,
        path: axum::http::Uri,
        headers: axum::http::HeaderMap,
        body: String,
    ) -> Response {
        let key = headers.get("idempotency-key").map(|key| key.to_str().expect("visible ASCII"));
        let mut edge = edge.lock().expect("no test panics with it");
        match edge.moods.pop().unwrap_or(EdgeMood::Accept) {
            EdgeMood::Busy => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response(),
            EdgeMood::Full => StatusCode::INSUFFICIENT_STORAGE.into_response(),
            EdgeMood::DieBefore => broken_off(),
            EdgeMood::DieAfter => {
                edge.store(key, path.path(), body);
                broken_off()
            }
            EdgeMood::Accept => {
                let answer = edge.store(key, path.path(), body);
                (StatusCode::CREATED, answer).into_response()
            }
        }
    }

    /// Lets a producer give `cars` entries to an edge with these moods.
    async fn produce(cars: i64, moods: &[EdgeMood]) -> (TestEdge, CityBooks, Result<(), HttpCallError>) {
        produce_with(None, Arc::default(), cars, moods).await
    }

    async fn produce_with(
        chaos: Option<GatePass>,
        counts: Arc<ProducerCounts>,
        cars: i64,
        moods: &[EdgeMood],
    ) -> (TestEdge, CityBooks, Result<(), HttpCallError>) {
        let moods = moods.iter().rev().copied().collect();
        let edge: SharedEdge = Arc::new(Mutex::new(TestEdge { moods, ..TestEdge::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = axum::Router::new()
            .fallback(post)
            .layer(axum::extract::DefaultBodyLimit::max(1 << 20))
            .with_state(edge.clone());
        let serving = tokio::spawn(async { axum::serve(listener, router).await });
        let registry = Arc::new(PlateRegistry::new(1, 1));
        let rows = [OccupancyRow { unix_ms: 1_475_000_000_000, occupancy: cars }];
        let drivers = Drivers::new(registry, 0, 100, Arc::default());
        let producer = CityProducer {
            client: DaemonClient::default(),
            edge: format!("http://{address}"),
            traffic: recorded_cars(rows.into(), &StartingState::default(), drivers),
            limit: u64::MAX,
            zone: TimeZone::UTC,
            books: CityBooks::new("1".to_owned(), Baseline::default()),
            counts,
            clock: None,
            chaos,
        };
        let (books, result) = producer.run(CancellationToken::new()).await;
        serving.abort();
        let edge = std::mem::take(&mut *edge.lock().expect("no test panics with it"));
        (edge, books, result)
    }

    #[tokio::test]
    async fn all_events_reach_the_edge_in_requests_that_it_takes() {
        let (edge, books, result) = produce(25_001, &[]).await;
        result.expect("the edge accepts all");
        assert_eq!(edge.lines.len(), 25_001);
        assert_eq!(edge.largest, 10_000);
        let server =
            ServerAccount { applied: 25_001, occupied: 25_001, depth: Some(0), ..ServerAccount::default() };
        assert_eq!(books.compare(&server), []);
    }

    #[tokio::test]
    async fn a_single_event_goes_to_the_route_for_single_events() {
        let (edge, books, result) = produce(10_001, &[]).await;
        result.expect("the edge accepts all");
        assert_eq!((edge.lines.len(), books.confirmed()), (10_001, 10_001));
    }

    #[tokio::test]
    async fn what_the_edge_refused_for_now_is_posted_again_and_booked_once() {
        use EdgeMood::{Accept, Busy};
        let (edge, books, result) = produce(15_000, &[Busy, Accept, Busy, Busy]).await;
        result.expect("the edge accepts all in the end");
        assert_eq!((edge.lines.len(), books.confirmed()), (15_000, 15_000));
    }

    #[tokio::test]
    async fn an_edge_that_is_full_ends_the_run_and_nothing_it_refused_is_booked() {
        let (edge, books, result) = produce(15_000, &[EdgeMood::Accept, EdgeMood::Full]).await;
        let said = result.expect_err("the edge is full").to_string();
        assert!(said.contains("507"), "{said}");
        assert_eq!((edge.lines.len(), books.confirmed()), (10_000, 10_000));
    }

    #[tokio::test]
    async fn under_chaos_what_had_no_answer_is_posted_again_under_its_key_and_booked_once() {
        use EdgeMood::{Accept, Busy, DieAfter, DieBefore, Full};
        let counts = Arc::<ProducerCounts>::default();
        let (_, mut passes) = super::super::chaos::gate::by_time(1);
        let moods = [Accept, DieAfter, DieBefore, DieAfter, Accept, DieBefore, Busy, Full, DieAfter, Busy];
        let (edge, books, result) = produce_with(passes.pop(), counts.clone(), 2_000, &moods).await;
        result.expect("the edge accepts all in the end");
        assert_eq!((edge.lines.len(), books.confirmed()), (2_000, 2_000));
        let server =
            ServerAccount { applied: 2_000, occupied: 2_000, depth: Some(0), ..ServerAccount::default() };
        assert_eq!(books.compare(&server), []);
        assert_eq!(counts.repeated.load(Ordering::Relaxed), 8);
        assert!(edge.largest <= CHAOS_BATCH_EVENTS as usize && edge.keys.len() > 2_000 / 64);
    }
}
