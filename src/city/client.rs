//! The daemons' HTTP, as the city speaks it.
//!
//! **Promise.** Each call ends: with an answer that was understood, or with an error that says who was asked
//! for what and what was wrong.
//! **Not promised.** To repeat anything. Whoever calls knows whether that is safe.

use super::books::Receipt;
use super::money::{Sum, Takings};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

/// An answer that takes longer is none: the slowest here waits for one flush of a busy disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an edge asks for that names no time when it refuses with 429 or 503.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);

/// Under which an edge remembers a request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Whether the daemon acted is unknown.
    #[error("{url} did not answer: {source}. Its log tells more")]
    Broken {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Whether the daemon acted is unknown.
    #[error("{url} did not answer within {} s. Its log tells more", PATIENCE.as_secs())]
    TooSlow { url: String },
    /// The daemon did nothing, by its own word.
    #[error("{url} refused with {status}: {detail}")]
    Refused { url: String, status: StatusCode, detail: String },
    /// The daemon did what it was asked; what it said about it makes no sense.
    #[error("{url} answered something else than its contract says: {source}")]
    Nonsense {
        url: String,
        #[source]
        source: serde_json::Error,
    },
}

/// What became of events that were offered to an edge.
#[derive(Debug)]
pub enum Offer {
    /// They are on its disk.
    Confirmed(Receipt),
    /// None of them was stored; the edge asks to come back after this time.
    NotNow(Duration),
}

/// `GET /v1/outbox` of an edge, as far as the city looks at it.
#[derive(Debug, Clone, Deserialize)]
pub struct Outbox {
    pub depth: u64,
    #[serde(default)]
    pub resends: u64,
    #[serde(default)]
    pub connected: bool,
}

fn none_when_unknown<'de, D: serde::Deserializer<'de>>(value: D) -> Result<i64, D::Error> {
    Option::<i64>::deserialize(value).map(Option::unwrap_or_default)
}

/// A garage in `GET /v1/garages` of the server, as far as the city looks at it.
#[derive(Debug, Clone, Deserialize)]
pub struct GarageAtServer {
    pub name: String,
    /// The server does not know it before the first event; then there is none by the city's books.
    #[serde(deserialize_with = "none_when_unknown")]
    pub occupied: i64,
    #[serde(default)]
    pub marks: Vec<Mark>,
    #[serde(default)]
    pub duplicates_refused: u64,
    /// How far the events are counted that this tells of.
    #[serde(default)]
    pub position: u64,
    #[serde(default)]
    pub stays: StaysAtServer,
    #[serde(default)]
    taken: Vec<Sum>,
}

/// How many stays of a garage there are.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct StaysAtServer {
    pub closed: u64,
}

impl GarageAtServer {
    /// The money.
    pub fn taken(&self) -> Takings {
        Takings::from(&self.taken[..])
    }

    /// How many of its events are applied: every epoch begins at 1 and has no gaps.
    pub fn applied(&self) -> u64 {
        self.marks.iter().map(|mark| mark.sequence).sum()
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Mark {
    pub epoch: String,
    pub sequence: u64,
}

/// A garage in `GET /v1/occupancy`.
#[derive(Debug, Clone, Deserialize)]
pub struct Occupancy {
    pub name: String,
    /// The server does not know it before the first event; then there is none by the city's books.
    #[serde(deserialize_with = "none_when_unknown")]
    pub occupied: i64,
}

/// Speaks to all daemons, over connections that stay open.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    pub fn new() -> Http {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Http { client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    async fn call(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<(StatusCode, Option<Duration>, Bytes), CallError> {
        let broken = |source| CallError::Broken { url: url.to_owned(), source };
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|error| broken(error.into()))?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| broken(error.into()))?;
            let status = answer.status();
            let pause = answer.headers().get(RETRY_AFTER);
            let pause = pause.and_then(|pause| pause.to_str().ok()?.trim().parse().ok());
            let body = answer.into_body().collect().await;
            let body = body.map_err(|error| broken(error.into()))?.to_bytes();
            Ok((status, pause.map(Duration::from_secs), body))
        };
        let too_slow = |_| Err(CallError::TooSlow { url: url.to_owned() });
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(too_slow)
    }

    /// The body of a successful `GET`.
    pub async fn get(&self, url: &str) -> Result<Bytes, CallError> {
        let (status, _, body) = self.call(Method::GET, url, &[], Bytes::new()).await?;
        if status.is_success() { Ok(body) } else { Err(refused(url, status, &body)) }
    }

    async fn get_json<T: DeserializeOwned>(&self, url: &str) -> Result<T, CallError> {
        understand(url, &self.get(url).await?)
    }

    /// `GET /v1/outbox` of the edge at `edge`, such as `http://127.0.0.1:5581`.
    pub async fn outbox(&self, edge: &str) -> Result<Outbox, CallError> {
        self.get_json(&format!("{edge}/v1/outbox")).await
    }

    /// All garages that the server knows, by name.
    pub async fn garages(&self, server: &str) -> Result<BTreeMap<String, GarageAtServer>, CallError> {
        #[derive(Deserialize)]
        struct Page {
            garages: Vec<GarageAtServer>,
            next: Option<String>,
        }
        let mut all = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let mut url = format!("{server}/v1/garages?limit=1000");
            if let Some(after) = &after {
                url.push_str("&after=");
                url.push_str(&percent_encoded(after));
            }
            let page: Page = self.get_json(&url).await?;
            all.extend(page.garages.into_iter().map(|garage| (garage.name.clone(), garage)));
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// What the server counts in each garage, by name.
    pub async fn occupancy(&self, server: &str) -> Result<BTreeMap<String, Occupancy>, CallError> {
        #[derive(Deserialize)]
        struct City {
            garages: Vec<Occupancy>,
        }
        let city: City = self.get_json(&format!("{server}/v1/occupancy")).await?;
        Ok(city.garages.into_iter().map(|garage| (garage.name.clone(), garage)).collect())
    }

    /// Offers events, one JSON object a line, to the edge at `edge`. They are stored all or none, and with a `key` once,
    /// however often they are offered with it.
    pub async fn offer(
        &self,
        edge: &str,
        events: u64,
        lines: Bytes,
        key: Option<&str>,
    ) -> Result<Offer, CallError> {
        #[derive(Deserialize)]
        struct Single {
            sequence: u64,
            epoch: String,
        }
        #[derive(Deserialize)]
        struct Batch {
            first: u64,
            last: u64,
            epoch: String,
        }
        let posted = if events == 1 {
            let url = format!("{edge}/v1/events");
            self.post(&url, "application/json", key, lines).await?.map(|one: Single| Receipt {
                epoch: one.epoch,
                first: one.sequence,
                last: one.sequence,
            })
        } else {
            let url = format!("{edge}/v1/events/batch");
            self.post(&url, "application/x-ndjson", key, lines).await?.map(|batch: Batch| Receipt {
                epoch: batch.epoch,
                first: batch.first,
                last: batch.last,
            })
        };
        Ok(posted.map_or_else(Offer::NotNow, Offer::Confirmed))
    }

    /// `Ok(Err(pause))`: nothing was done, and the daemon asks to come back later.
    async fn post<T: DeserializeOwned>(
        &self,
        url: &str,
        content_type: &str,
        key: Option<&str>,
        body: Bytes,
    ) -> Result<Result<T, Duration>, CallError> {
        let mut headers = vec![(CONTENT_TYPE, content_type)];
        headers.extend(key.map(|key| (IDEMPOTENCY_KEY, key)));
        let (status, pause, body) = self.call(Method::POST, url, &headers, body).await?;
        match status {
            StatusCode::CREATED => understand(url, &body).map(Ok),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Ok(Err(pause.unwrap_or(DEFAULT_PAUSE)))
            }
            _ => Err(refused(url, status, &body)),
        }
    }
}

fn understand<T: DeserializeOwned>(url: &str, body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|source| CallError::Nonsense { url: url.to_owned(), source })
}

fn refused(url: &str, status: StatusCode, body: &[u8]) -> CallError {
    #[derive(Deserialize)]
    struct Problem {
        title: Option<String>,
        detail: Option<String>,
    }
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let said = problem.and_then(|problem| problem.detail.or(problem.title));
    let detail = said.unwrap_or_else(|| {
        String::from_utf8_lossy(body).chars().take(300).collect::<String>().trim().to_owned()
    });
    CallError::Refused { url: url.to_owned(), status, detail }
}

/// `text` as one value of a query.
pub fn percent_encoded(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes all that is written");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_garages_survive_a_query() {
        assert_eq!(percent_encoded("Bull Ring"), "Bull%20Ring");
        assert_eq!(percent_encoded("a&b=c+é"), "a%26b%3Dc%2B%C3%A9");
    }

    #[test]
    fn a_refusal_says_what_the_daemon_said() {
        let body = br#"{"title":"full","detail":"the outbox is full"}"#;
        let said = refused("http://x/", StatusCode::INSUFFICIENT_STORAGE, body).to_string();
        assert!(said.contains("507") && said.ends_with("the outbox is full"), "{said}");
        let said = refused("http://x/", StatusCode::BAD_GATEWAY, b"oops\n").to_string();
        assert!(said.ends_with(": oops"), "{said}");
    }
}
