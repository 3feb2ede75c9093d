//! Gives one garage's events to its edge.
//!
//! **Promise.** Events are offered in order, each until it is confirmed, and are in the [`Books`] from then on
//! and not before. What the edge refused for now is offered again when it asks for it.
//! **Kept by.** One request at a time, and nothing offered twice of which it is unknown what became.
//! **Not promised.** To go on after an edge broke off without an answer: whether it stored the events cannot be
//! told without an idempotency key, so that ends the run.

use super::books::{Books, Draft};
use super::client::{CallError, Http, Offer};
use super::traffic::{LineWriter, Passage, Traffic};
use bytes::Bytes;
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

/// One garage's producer.
#[derive(Debug)]
pub struct Producer {
    pub http: Http,
    /// The edge's address: `http://127.0.0.1:5581`.
    pub edge: String,
    pub traffic: Traffic,
    /// How many events to give at most.
    pub limit: u64,
    pub writer: LineWriter,
    pub books: Books,
    pub tally: Arc<Tally>,
    /// `None`: as fast as it can.
    pub clock: Option<Clock>,
}

impl Producer {
    /// Runs until the traffic or the limit ends, `stop` is cancelled, or the edge fails. What was offered when `stop`
    /// is cancelled is still brought to an end.
    pub async fn run(mut self, stop: CancellationToken) -> (Books, Result<(), CallError>) {
        let result = self.feed(&stop).await;
        (self.books, result)
    }

    async fn feed(&mut self, stop: &CancellationToken) -> Result<(), CallError> {
        let mut draft = Draft::default();
        let mut size = 0;
        let mut next = self.next_passage();
        while let Some(first) = &next {
            let due = self.clock.map(|clock| clock.when(first.at.unix_ms));
            if !wait_until(due, stop).await {
                return Ok(());
            }
            // As long as the last one, so that it does not grow by doubling.
            let mut lines = String::with_capacity(size);
            next = self.gather(next, &mut draft, &mut lines);
            size = lines.len();
            if !self.deliver(&draft, Bytes::from(lines), stop).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn next_passage(&mut self) -> Option<Passage> {
        self.limit = self.limit.checked_sub(1)?;
        self.traffic.next()
    }

    /// Fills `draft` and `lines` with the events that are due, `first` at any rate; returns the one after them.
    fn gather(&mut self, first: Option<Passage>, draft: &mut Draft, lines: &mut String) -> Option<Passage> {
        let now_unix_ms = self.clock.map_or(i64::MAX, |clock| clock.now_unix_ms());
        let mut key = String::new();
        let mut next = first;
        draft.clear();
        while let Some(passage) = &next {
            let due = draft.events() == 0 || passage.at.unix_ms <= now_unix_ms;
            if !due || draft.events() == BATCH_EVENTS || lines.len() > BATCH_BYTES {
                break;
            }
            let readable = self.writer.write(passage, &mut key, lines);
            draft.push(passage, readable.then_some(key.as_str()));
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
    ) -> Result<bool, CallError> {
        loop {
            match self.http.offer(&self.edge, draft.events(), lines.clone()).await? {
                Offer::Confirmed(receipt) => {
                    self.books.confirm(draft, receipt);
                    self.tally.confirmed.store(self.books.confirmed(), Ordering::Relaxed);
                    return Ok(true);
                }
                Offer::NotNow(pause) => {
                    self.tally.held_back.fetch_add(1, Ordering::Relaxed);
                    if !wait_until(Some(Instant::now() + pause), stop).await {
                        return Ok(false);
                    }
                }
            }
        }
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
    use super::super::plates::{Mixture, Registry};
    use super::super::traffic::recorded::{Recorded, Row};
    use super::super::traffic::{Drivers, StartingState};
    use super::*;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
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
    }

    /// An edge with moods, the next one last; when there are none left it accepts.
    #[derive(Debug, Default)]
    struct Edge {
        moods: Vec<Mood>,
        lines: Vec<String>,
        largest: usize,
    }

    type SharedEdge = Arc<Mutex<Edge>>;

    async fn post(State(edge): State<SharedEdge>, path: axum::http::Uri, body: String) -> Response {
        let mut edge = edge.lock().expect("no test panics with it");
        match edge.moods.pop().unwrap_or(Mood::Accept) {
            Mood::Busy => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response(),
            Mood::Full => StatusCode::INSUFFICIENT_STORAGE.into_response(),
            Mood::Accept => {
                let first = edge.lines.len() + 1;
                edge.lines.extend(body.lines().map(str::to_owned));
                let last = edge.lines.len();
                edge.largest = edge.largest.max(last + 1 - first);
                let answer = if path.path().ends_with("batch") {
                    format!(r#"{{"first":{first},"last":{last},"epoch":"e"}}"#)
                } else {
                    format!(r#"{{"sequence":{last},"epoch":"e"}}"#)
                };
                (StatusCode::CREATED, answer).into_response()
            }
        }
    }

    /// Lets a producer give `cars` entries to an edge with these moods.
    async fn produce(cars: i64, moods: &[Mood]) -> (Edge, Books, Result<(), CallError>) {
        let moods = moods.iter().rev().copied().collect();
        let edge: SharedEdge = Arc::new(Mutex::new(Edge { moods, ..Edge::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = axum::Router::new()
            .fallback(post)
            .layer(axum::extract::DefaultBodyLimit::max(1 << 20))
            .with_state(edge.clone());
        let serving = tokio::spawn(async { axum::serve(listener, router).await });
        let registry = Arc::new(Registry::new(Mixture::British, 1, 1));
        let rows = [Row { unix_ms: 1_475_000_000_000, occupancy: cars }];
        let drivers = Drivers::new(registry.clone(), 0, 100, Arc::default());
        let zone = jiff::tz::TimeZone::UTC;
        let start = StartingState::default();
        let recorded = Recorded::new(rows.into(), &start, drivers, 1, zone);
        let producer = Producer {
            http: Http::new(),
            edge: format!("http://{address}"),
            traffic: Traffic::Recorded(Box::new(recorded)),
            limit: u64::MAX,
            writer: LineWriter::new(registry, 0),
            books: Books::new("1".to_owned(), Baseline::default()),
            tally: Arc::default(),
            clock: None,
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
        let centre = AtCentre { applied: 25_001, occupied: 25_001, depth: Some(0), read_back: None };
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
}
