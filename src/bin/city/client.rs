//! The daemons' HTTP contracts, as far as the city uses them.

use super::books::Receipt;
use super::money::Takings;
use bytes::Bytes;
use fogpost::http::client::{HttpCallError, HttpClient, PostAnswer, percent_encoded};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Deserialize)]
pub struct OutboxAtEdge {
    pub depth: u64,
    pub resends: u64,
    pub connected: bool,
}

/// A garage in `GET /v1/garages` of the server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GarageAtServer {
    pub name: String,
    #[serde(deserialize_with = "zero_when_unknown")]
    pub occupied: i64,
    pub marks: Vec<MarkAtServer>,
    pub duplicates_refused: u64,
    /// The position in the ledger up to which these numbers count.
    pub position: u64,
    pub stays: StaysAtServer,
    pub taken: Takings,
}

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
    /// How many of its events are applied: every epoch begins at 1 and has no gaps.
    pub fn applied(&self) -> u64 {
        self.marks.iter().map(|mark| mark.sequence).sum()
    }
}

/// The server does not know an occupancy before the first event; by the city's books it is 0 then.
fn zero_when_unknown<'de, D: serde::Deserializer<'de>>(value: D) -> Result<i64, D::Error> {
    Option::<i64>::deserialize(value).map(Option::unwrap_or_default)
}

#[derive(Debug, Deserialize)]
pub struct ListPage<T> {
    #[serde(alias = "garages", alias = "events", alias = "charges")]
    pub items: Vec<T>,
    next: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct DaemonClient(HttpClient);

impl DaemonClient {
    pub async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, HttpCallError> {
        self.0.get(url).await
    }

    /// Visits what `list`, a URL with a query, has from the cursor `after` on, and leaves `after` at the last page.
    pub async fn each<T: DeserializeOwned>(
        &self,
        list: &str,
        after: &mut Option<String>,
        mut visit: impl FnMut(T),
    ) -> Result<(), HttpCallError> {
        loop {
            let cursor = after.as_deref().map(|after| format!("&after={}", percent_encoded(after)));
            let page: ListPage<T> = self.get(&format!("{list}{}", cursor.unwrap_or_default())).await?;
            page.items.into_iter().for_each(&mut visit);
            match page.next {
                Some(next) => *after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// `GET /v1/outbox` of the edge at `edge`, such as `http://127.0.0.1:5581`.
    pub async fn outbox(&self, edge: &str) -> Result<OutboxAtEdge, HttpCallError> {
        self.get(&format!("{edge}/v1/outbox")).await
    }

    pub async fn garages(&self, server: &str) -> Result<BTreeMap<String, GarageAtServer>, HttpCallError> {
        let mut all = BTreeMap::new();
        let visit = |garage: GarageAtServer| _ = all.insert(garage.name.clone(), garage);
        self.each(&format!("{server}/v1/garages?limit=1000"), &mut None, visit).await?;
        Ok(all)
    }

    /// What `GET /v1/occupancy` of the server counts in each garage, by name.
    pub async fn occupancy(&self, server: &str) -> Result<BTreeMap<String, i64>, HttpCallError> {
        let city: ListPage<GarageAtServer> = self.get(&format!("{server}/v1/occupancy")).await?;
        Ok(city.items.into_iter().map(|garage| (garage.name, garage.occupied)).collect())
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
        let (route, content_type) = match events {
            1 => ("", "application/json"),
            _ => ("/batch", "application/x-ndjson"),
        };
        self.0.post(&format!("{edge}/v1/events{route}"), content_type, key, lines).await
    }
}
