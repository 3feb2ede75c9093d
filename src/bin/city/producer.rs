//! Gives one garage's events to its edge.
//!
//! **Promise.** Events are offered in order, each until it is confirmed, and are in the [`Books`] from then on
//! and not before. What the edge refused for now is offered again when it asks for it.
//! **Kept by.** One request at a time. In good weather nothing is offered twice of which it is unknown what became: an
//! edge that breaks off without an answer ends the run. In bad weather edges are killed, so that each request
//! carries an idempotency key, and is made again with the same key and the same body until it is answered 201.

use super::books::{Books, Draft, Receipt};
use super::chaos::Toll;
use super::chaos::gate::Pass;
use super::client::DaemonClient;
use bytes::Bytes;
use fogpost::http::client::{HttpCallError, PostAnswer};
use fogpost::traffic::{CarPassage, EventWriter, GarageTraffic};
use hyper::StatusCode;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The most lines in one request: what an edge takes at most.
const BATCH_EVENTS: u64 = 10_000;

/// The most bytes in one request, less than the 1 MiB that an edge takes by more than a line.
const BATCH_BYTES: usize = (1 << 20) - 1_024;

/// The time of the city, which goes faster than ours.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_unix_ms: i64,
    times: f64,
}

impl Clock {
    /// It is `unix_ms` in the city now.
    pub fn starting(unix_ms: i64, times: f64) -> Clock {
        Clock { started: Instant::now(), started_unix_ms: unix_ms, times }
    }

    pub fn now_unix_ms(&self) -> i64 {
        let passed_ms = self.started.elapsed().as_secs_f64() * 1_000.0 * self.times;
        self.started_unix_ms.saturating_add(passed_ms as i64)
    }

    /// Our instant at which it is `unix_ms` there; an instant years ahead comes sooner, and must be asked for again.
    fn when(&self, unix_ms: i64) -> Instant {
        const FAR: f64 = 1e7;
        let wait_s = (unix_ms - self.started_unix_ms) as f64 / 1_000.0 / self.times;
        self.started + Duration::from_secs_f64(wait_s.clamp(0.0, FAR))
    }
}

/// How far a producer is, for others to look at.
#[derive(Debug, Default)]
pub struct Tally {
    /// What the centre had applied before this run.
    pub applied_before: AtomicU64,
    pub confirmed: AtomicU64,
    /// How often the edge asked to come back later.
    pub held_back: AtomicU64,
}

/// The most lines in one request in bad weather: so few that there is always a request for a fault to meet.
const BATCH_EVENTS_IN_CHAOS: u64 = 64;

/// How long a producer waits before it makes a request again that brought no answer, the first time; then twice as
/// long each time, up to the most.
const AGAIN_LEAST: Duration = Duration::from_millis(10);
const AGAIN_MOST: Duration = Duration::from_millis(500);

/// A request that an edge did not confirm for so long will not be confirmed: it is not dead for longer than some
/// seconds, and full until it has delivered.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);

/// What a producer needs in bad weather.
#[derive(Debug)]
pub struct Endurance {
    pass: Pass,
    /// Keys begin with it. No other producer's do, whenever and wherever it runs.
    run: String,
    requests: u64,
    rng: ChaCha8Rng,
    toll: Arc<Toll>,
}

impl Endurance {
    /// `seed` decides how many events go into each request.
    pub fn new(pass: Pass, seed: u64, toll: Arc<Toll>) -> Endurance {
        let run = uuid::Uuid::new_v4().simple().to_string();
        Endurance { pass, run, requests: 0, rng: ChaCha8Rng::seed_from_u64(seed), toll }
    }

    fn key(&self) -> String {
        format!("{}-{}", self.run, self.requests)
    }

    /// How many events the next request may hold. `None`: it is not to be made.
    async fn room(&mut self, stop: &CancellationToken) -> Option<u64> {
        let most =
            if self.rng.random_bool(0.2) { 1 } else { self.rng.random_range(1..=BATCH_EVENTS_IN_CHAOS) };
        Some(self.pass.room(stop).await?.min(most))
    }
}

/// One garage's producer.
#[derive(Debug)]
pub struct Producer {
    pub http: DaemonClient,
    /// The edge's address: `http://127.0.0.1:5581`.
    pub edge: String,
    pub traffic: GarageTraffic,
    /// How many events to give at most.
    pub limit: u64,
    pub writer: EventWriter,
    pub books: Books,
    pub tally: Arc<Tally>,
    /// `None`: as fast as it can.
    pub clock: Option<Clock>,
    /// `None`: the weather is good.
    pub endurance: Option<Endurance>,
}

impl Producer {
    /// Runs until the traffic or the limit ends, `stop` is cancelled, or the edge fails. What was offered when `stop`
    /// is cancelled is still brought to an end.
    pub async fn run(mut self, stop: CancellationToken) -> (Books, Result<(), HttpCallError>) {
        let result = self.feed(&stop).await;
        (self.books, result)
    }

    async fn feed(&mut self, stop: &CancellationToken) -> Result<(), HttpCallError> {
        let mut draft = Draft::default();
        let mut size = 0;
        let mut next = self.next_passage();
        while let Some(first) = &next {
            let due = self.clock.map(|clock| clock.when(first.at.unix_ms));
            if !wait_until(due, stop).await {
                return Ok(());
            }
            let most = match &mut self.endurance {
                None => BATCH_EVENTS,
                Some(endurance) => match endurance.room(stop).await {
                    Some(room) => room,
                    None => return Ok(()),
                },
            };
            // As long as the last one, so that it does not grow by doubling.
            let mut lines = String::with_capacity(size);
            next = self.gather(next, most, &mut draft, &mut lines);
            size = lines.len();
            let lines = Bytes::from(lines);
            let delivered = match &mut self.endurance {
                None => self.deliver(&draft, lines, stop).await?,
                Some(_) => self.deliver_in_chaos(&draft, lines, stop).await?,
            };
            if !delivered {
                return Ok(());
            }
        }
        Ok(())
    }

    fn next_passage(&mut self) -> Option<CarPassage> {
        self.limit = self.limit.checked_sub(1)?;
        self.traffic.next()
    }

    /// Fills `draft` and `lines` with the events that are due, `first` at any rate, `most` at most; returns the one after
    /// them.
    fn gather(
        &mut self,
        first: Option<CarPassage>,
        most: u64,
        draft: &mut Draft,
        lines: &mut String,
    ) -> Option<CarPassage> {
        let now_unix_ms = self.clock.map_or(i64::MAX, |clock| clock.now_unix_ms());
        let mut key = String::new();
        let mut next = first;
        draft.clear();
        while let Some(passage) = &next {
            let due = draft.events() == 0 || passage.at.unix_ms <= now_unix_ms;
            if !due || draft.events() == most || lines.len() > BATCH_BYTES {
                break;
            }
            let plate = self.writer.write(passage, &mut key, lines);
            draft.push(passage, plate);
            next = self.next_passage();
        }
        next
    }

    /// Returns whether the events are on the edge's disk; `false` only if `stop` came while the edge refused them.
    async fn deliver(
        &mut self,
        draft: &Draft,
        lines: Bytes,
        stop: &CancellationToken,
    ) -> Result<bool, HttpCallError> {
        loop {
            match self.http.post_events(&self.edge, draft.events(), lines.clone(), None).await? {
                PostAnswer::Created(receipt) => {
                    self.book(draft, receipt);
                    return Ok(true);
                }
                PostAnswer::RetryAfter(pause) => {
                    self.tally.held_back.fetch_add(1, Ordering::Relaxed);
                    if !wait_until(Some(Instant::now() + pause), stop).await {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Like [`Producer::deliver`], whatever happens to the edge: the same key and the same bytes until they are
    /// confirmed. `stop` ends it only while it is certain that nothing was stored.
    async fn deliver_in_chaos(
        &mut self,
        draft: &Draft,
        lines: Bytes,
        stop: &CancellationToken,
    ) -> Result<bool, HttpCallError> {
        let Some(endurance) = &mut self.endurance else {
            unreachable!("this is called in bad weather only");
        };
        endurance.requests += 1;
        let key = endurance.key();
        if !endurance.pass.offering(draft.events(), stop).await {
            return Ok(false);
        }
        let begun = Instant::now();
        let mut again = AGAIN_LEAST;
        let mut maybe_stored = false;
        loop {
            let offer = self.http.post_events(&self.edge, draft.events(), lines.clone(), Some(&key)).await;
            let pause = match offer {
                Ok(PostAnswer::Created(receipt)) => {
                    self.book(draft, receipt);
                    return Ok(true);
                }
                Ok(PostAnswer::RetryAfter(pause)) => {
                    self.tally.held_back.fetch_add(1, Ordering::Relaxed);
                    pause.min(AGAIN_MOST)
                }
                Err(error) if !is_passing(&error) || begun.elapsed() > GIVE_UP_AFTER => return Err(error),
                Err(error) => {
                    maybe_stored |= !matches!(error, HttpCallError::Refused { .. });
                    let doubled = (again * 2).min(AGAIN_MOST);
                    std::mem::replace(&mut again, doubled)
                }
            };
            if maybe_stored {
                tokio::time::sleep(pause).await;
            } else if !wait_until(Some(Instant::now() + pause), stop).await {
                return Ok(false);
            }
            if let Some(endurance) = &self.endurance {
                endurance.toll.repeated.fetch_add(1, Ordering::Relaxed);
                endurance.pass.leaves();
            }
        }
    }

    fn book(&mut self, draft: &Draft, receipt: Receipt) {
        self.books.confirm(draft, receipt);
        self.tally.confirmed.store(self.books.confirmed(), Ordering::Relaxed);
    }
}

/// Whether an answer says that the same request may be confirmed later. A full edge is one that could not deliver.
fn is_passing(error: &HttpCallError) -> bool {
    match error {
        HttpCallError::NoAnswer { .. } | HttpCallError::TooSlow { .. } => true,
        HttpCallError::Refused { status, .. } => *status == StatusCode::INSUFFICIENT_STORAGE,
        HttpCallError::Malformed { .. } => false,
    }
}

/// Waits until `due`, if there is such an instant; `false` if `stop` comes first.
async fn wait_until(due: Option<Instant>, stop: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = async { if let Some(due) = due { tokio::time::sleep_until(due).await } } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::books::{AtCentre, Baseline};
    use super::*;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use fogpost::traffic::plates::{PlateMixture, PlateRegistry};
    use fogpost::traffic::recorded::{OccupancyRow, RecordedTraffic};
    use fogpost::traffic::{Drivers, StartingState};
    use std::collections::HashMap;
    use std::sync::Mutex;

    #[test]
    fn an_hour_of_the_city_passes_in_a_minute() {
        let clock = Clock::starting(1_000_000, 60.0);
        assert_eq!(clock.when(1_000_000 + 3_600_000) - clock.started, Duration::from_secs(60));
        assert_eq!(clock.when(5), clock.started, "what is past is due");
        let (before, city, after) = (Instant::now(), clock.now_unix_ms(), Instant::now());
        let ms = Duration::from_millis(1);
        assert!((before - ms..=after + ms).contains(&clock.when(city)));
    }

    /// What an edge does with one request.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Mood {
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
    struct Edge {
        moods: Vec<Mood>,
        lines: Vec<String>,
        largest: usize,
        /// The answer and the body of each key.
        keys: HashMap<String, (String, String)>,
    }

    type SharedEdge = Arc<Mutex<Edge>>;

    impl Edge {
        /// Stores the events, unless they are there under this key; returns the answer.
        fn store(&mut self, key: Option<&str>, path: &str, body: String) -> String {
            if let Some((answer, former)) = key.and_then(|key| self.keys.get(key)) {
                assert_eq!(*former, body, "the body under a key is always the same");
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
        match edge.moods.pop().unwrap_or(Mood::Accept) {
            Mood::Busy => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response(),
            Mood::Full => StatusCode::INSUFFICIENT_STORAGE.into_response(),
            Mood::DieBefore => broken_off(),
            Mood::DieAfter => {
                edge.store(key, path.path(), body);
                broken_off()
            }
            Mood::Accept => {
                let answer = edge.store(key, path.path(), body);
                (StatusCode::CREATED, answer).into_response()
            }
        }
    }

    /// Lets a producer give `cars` entries to an edge with these moods.
    async fn produce(cars: i64, moods: &[Mood]) -> (Edge, Books, Result<(), HttpCallError>) {
        produce_with(None, cars, moods).await
    }

    async fn produce_with(
        endurance: Option<Endurance>,
        cars: i64,
        moods: &[Mood],
    ) -> (Edge, Books, Result<(), HttpCallError>) {
        let moods = moods.iter().rev().copied().collect();
        let edge: SharedEdge = Arc::new(Mutex::new(Edge { moods, ..Edge::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = axum::Router::new()
            .fallback(post)
            .layer(axum::extract::DefaultBodyLimit::max(1 << 20))
            .with_state(edge.clone());
        let serving = tokio::spawn(async { axum::serve(listener, router).await });
        let registry = Arc::new(PlateRegistry::new(PlateMixture::British, 1, 1));
        let rows = [OccupancyRow { unix_ms: 1_475_000_000_000, occupancy: cars }];
        let drivers = Drivers::new(registry.clone(), 0, 100, Arc::default());
        let zone = jiff::tz::TimeZone::UTC;
        let start = StartingState::default();
        let recorded = RecordedTraffic::new(rows.into(), &start, drivers, 1, zone);
        let producer = Producer {
            http: DaemonClient::default(),
            edge: format!("http://{address}"),
            traffic: GarageTraffic::Recorded(Box::new(recorded)),
            limit: u64::MAX,
            writer: EventWriter::new(registry, 0),
            books: Books::new("1".to_owned(), Baseline::default()),
            tally: Arc::default(),
            clock: None,
            endurance,
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
        let centre = AtCentre { applied: 25_001, occupied: 25_001, depth: Some(0), ..AtCentre::default() };
        assert_eq!(books.compare(&centre), []);
    }

    #[tokio::test]
    async fn a_single_event_goes_to_the_door_for_single_events() {
        let (edge, books, result) = produce(10_001, &[]).await;
        result.expect("the edge accepts all");
        assert_eq!((edge.lines.len(), books.confirmed()), (10_001, 10_001));
    }

    #[tokio::test]
    async fn what_the_edge_refused_for_now_is_offered_again_and_booked_once() {
        use Mood::{Accept, Busy};
        let (edge, books, result) = produce(15_000, &[Busy, Accept, Busy, Busy]).await;
        result.expect("the edge accepts all in the end");
        assert_eq!((edge.lines.len(), books.confirmed()), (15_000, 15_000));
    }

    #[tokio::test]
    async fn an_edge_that_is_full_ends_the_run_and_nothing_it_refused_is_booked() {
        let (edge, books, result) = produce(15_000, &[Mood::Accept, Mood::Full]).await;
        let said = result.expect_err("the edge is full").to_string();
        assert!(said.contains("507"), "{said}");
        assert_eq!((edge.lines.len(), books.confirmed()), (10_000, 10_000));
    }

    fn endurance(toll: &Arc<Toll>) -> Endurance {
        let (_, mut passes) = super::super::chaos::gate::by_time(1);
        Endurance::new(passes.remove(0), 1, toll.clone())
    }

    #[tokio::test]
    async fn in_bad_weather_what_brought_no_answer_is_offered_again_under_its_key_and_booked_once() {
        use Mood::{Accept, Busy, DieAfter, DieBefore, Full};
        let toll = Arc::default();
        let moods = [Accept, DieAfter, DieBefore, DieAfter, Accept, DieBefore, Busy, Full, DieAfter, Busy];
        let (edge, books, result) = produce_with(Some(endurance(&toll)), 2_000, &moods).await;
        result.expect("the edge accepts all in the end");
        assert_eq!((edge.lines.len(), books.confirmed()), (2_000, 2_000));
        let centre = AtCentre { applied: 2_000, occupied: 2_000, depth: Some(0), ..AtCentre::default() };
        assert_eq!(books.compare(&centre), []);
        assert_eq!(toll.repeated.load(Ordering::Relaxed), 8);
        assert!(edge.largest <= BATCH_EVENTS_IN_CHAOS as usize && edge.keys.len() > 2_000 / 64);
    }

    #[tokio::test]
    async fn two_producers_never_share_a_key() {
        let toll = Arc::default();
        let (one, other) = (endurance(&toll).key(), endurance(&toll).key());
        assert_ne!(one, other);
        assert!(one.len() <= 255 && one.bytes().all(|byte| byte.is_ascii_graphic()), "{one}");
    }
}
