//! The daemons' HTTP contracts, as far as the city uses them.

use super::books::Receipt;
use super::money::{AmountAtServer, Takings};
use bytes::Bytes;
use fogpost::http::client::{HttpCallError, HttpClient, PostAnswer, percent_encoded, read_json};
use serde::Deserialize;
use std::collections::BTreeMap;

/// `GET /v1/outbox` of an edge.
#[derive(Debug, Clone, Deserialize)]
pub struct OutboxAnswer {
    pub depth: u64,
    #[serde(default)]
    pub resends: u64,
    #[serde(default)]
    pub connected: bool,
}

/// A garage in `GET /v1/garages` of the server.
#[derive(Debug, Clone, Deserialize)]
pub struct GarageAtServer {
    pub name: String,
    /// The server does not know it before the first event; by the city's books it is 0 then.
    #[serde(deserialize_with = "zero_when_unknown")]
    pub occupied: i64,
    #[serde(default)]
    pub marks: Vec<MarkAtServer>,
    #[serde(default)]
    pub duplicates_refused: u64,
    /// The position in the ledger up to which these numbers count.
    #[serde(default)]
    pub position: u64,
    #[serde(default)]
    pub stays: StaysAtServer,
    #[serde(default)]
    taken: Vec<AmountAtServer>,
}

/// How many stays of a garage have ended.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct StaysAtServer {
    pub closed: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct MarkAtServer {
    pub epoch: String,
    pub sequence: u64,
}

impl GarageAtServer {
    /// The money that was taken.
    pub fn taken(&self) -> Takings {
        Takings::from(&self.taken[..])
    }

    /// How many of its events are applied: every epoch begins at 1 and has no gaps.
    pub fn applied(&self) -> u64 {
        self.marks.iter().map(|mark| mark.sequence).sum()
    }
}

fn zero_when_unknown<'de, D: serde::Deserializer<'de>>(value: D) -> Result<i64, D::Error> {
    Option::<i64>::deserialize(value).map(Option::unwrap_or_default)
}

/// Talks to the server and the edges.
#[derive(Debug, Clone, Default)]
pub struct DaemonClient(HttpClient);

impl DaemonClient {
    /// `GET /v1/outbox` of the edge at `edge`, such as `http://127.0.0.1:5581`.
    pub async fn outbox(&self, edge: &str) -> Result<OutboxAnswer, HttpCallError> {
        self.0.get_json(&format!("{edge}/v1/outbox")).await
    }

    /// All garages that the server knows, by name.
    pub async fn garages(&self, server: &str) -> Result<BTreeMap<String, GarageAtServer>, HttpCallError> {
        #[derive(Deserialize)]
        struct GaragesPage {
            garages: Vec<GarageAtServer>,
            next: Option<String>,
        }
        let mut all = BTreeMap::new();
        let list = format!("{server}/v1/garages?limit=1000");
        self.each_page(&list, &mut None, |url, body| {
            let page: GaragesPage = read_json(url, body)?;
            all.extend(page.garages.into_iter().map(|garage| (garage.name.clone(), garage)));
            Ok(page.next)
        })
        .await?;
        Ok(all)
    }

    /// What `GET /v1/occupancy` of the server counts in each garage, by name.
    pub async fn occupancy(&self, server: &str) -> Result<BTreeMap<String, i64>, HttpCallError> {
        #[derive(Deserialize)]
        struct OccupancyAnswer {
            garages: Vec<OccupancyLine>,
        }
        #[derive(Deserialize)]
        struct OccupancyLine {
            name: String,
            #[serde(deserialize_with = "zero_when_unknown")]
            occupied: i64,
        }
        let city: OccupancyAnswer = self.0.get_json(&format!("{server}/v1/occupancy")).await?;
        Ok(city.garages.into_iter().map(|garage| (garage.name, garage.occupied)).collect())
    }

    /// The body of a successful `GET`.
    pub async fn get(&self, url: &str) -> Result<Bytes, HttpCallError> {
        self.0.get(url).await
    }

    /// Gets the pages of `list`, a URL with a query, from the cursor `after` on, and leaves `after` at the last page. `read`
    /// reads a page and returns the cursor of the next one.
    pub async fn each_page(
        &self,
        list: &str,
        after: &mut Option<String>,
        mut read: impl FnMut(&str, &[u8]) -> Result<Option<String>, HttpCallError>,
    ) -> Result<(), HttpCallError> {
        loop {
            let url = match after {
                Some(after) => format!("{list}&after={}", percent_encoded(after)),
                None => list.to_owned(),
            };
            let body = self.0.get(&url).await?;
            match read(&url, &body)? {
                Some(next) => *after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Posts events, one JSON object a line, to the edge at `edge`. Either all are stored or none, and with a `key` once,
    /// however often they are posted with it.
    pub async fn post_events(
        &self,
        edge: &str,
        events: u64,
        lines: Bytes,
        key: Option<&str>,
    ) -> Result<PostAnswer<Receipt>, HttpCallError> {
        #[derive(Deserialize)]
        struct SingleAnswer {
            sequence: u64,
            epoch: String,
        }
        if events > 1 {
            let url = format!("{edge}/v1/events/batch");
            return self.0.post(&url, "application/x-ndjson", key, lines).await;
        }
        let url = format!("{edge}/v1/events");
        Ok(match self.0.post(&url, "application/json", key, lines).await? {
            PostAnswer::Created(SingleAnswer { sequence, epoch }) => {
                PostAnswer::Created(Receipt { epoch, first: sequence, last: sequence })
            }
            PostAnswer::RetryAfter(pause) => PostAnswer::RetryAfter(pause),
        })
    }
}
