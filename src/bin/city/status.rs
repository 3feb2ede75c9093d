//! The status that the daemons report while the city runs.

use super::client::{DaemonClient, GarageAtServer, OutboxAtEdge};
use super::display::Picture;
use super::fleet::{DaemonSlot, Fleet};
use super::money::{Takings, grouped};
use super::plan::{CarPlan, GarageSite};
use super::producer::{CityClock, ProducerCounts};
use super::settings::Pace;
use fogpost::http::client::HttpCallError;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Asks the daemons of a city.
#[derive(Debug, Clone)]
pub struct CityStatus {
    pub client: DaemonClient,
    fleet: Arc<Fleet>,
    sites: Vec<GarageSite>,
    counts: Vec<Arc<ProducerCounts>>,
}

/// The time in the city, and how far its plan is.
#[derive(Debug)]
pub struct CityTime {
    /// `None`: the cars drive as fast as they can.
    pub clock: Option<CityClock>,
    zone: TimeZone,
    planned: Option<u64>,
    began: Instant,
    /// How long it took until all was applied, once it is.
    took: Option<Duration>,
}

impl CityTime {
    /// The city's clock starts.
    pub fn start(pace: Pace, plan: &CarPlan) -> CityTime {
        let clock = match pace {
            Pace::Times(speed) => Some(CityClock::starting(plan.clock_starts_unix_ms, speed)),
            Pace::AsFastAsPossible => None,
        };
        CityTime { clock, zone: plan.zone.clone(), planned: plan.total, began: Instant::now(), took: None }
    }

    /// All is applied: rates count until now.
    pub fn note_settled(&mut self) {
        self.took = Some(self.began.elapsed());
    }

    fn seconds(&self) -> f64 {
        self.took.unwrap_or_else(|| self.began.elapsed()).as_secs_f64()
    }

    /// What a clock in the city shows.
    fn local(&self) -> Option<String> {
        let at = Timestamp::from_millisecond(self.clock?.now_unix_ms()).ok()?;
        Some(self.zone.to_datetime(at).strftime("%a %Y-%m-%d %H:%M").to_string())
    }
}

impl CityStatus {
    pub fn of(fleet: &Arc<Fleet>, sites: &[GarageSite]) -> CityStatus {
        CityStatus {
            client: DaemonClient::default(),
            fleet: fleet.clone(),
            sites: sites.to_vec(),
            counts: sites.iter().map(|_| Arc::default()).collect(),
        }
    }

    /// What the producer of this garage counts.
    pub fn counts_of(&self, garage: usize) -> &Arc<ProducerCounts> {
        &self.counts[garage]
    }

    /// How many events were confirmed in this run.
    pub fn confirmed(&self) -> u64 {
        self.counts.iter().map(|counts| counts.confirmed.load(Ordering::Relaxed)).sum()
    }

    /// What each edge says of its outbox.
    pub async fn outboxes(&self) -> Vec<Result<OutboxAtEdge, HttpCallError>> {
        let ask = |edge: &DaemonSlot| {
            let (client, url) = (self.client.clone(), edge.http.clone());
            async move { client.outbox(&url).await }
        };
        futures_util::future::join_all(self.fleet.edges.iter().map(ask)).await
    }

    /// How many events wait at all edges.
    pub async fn waiting(&self) -> Result<u64, HttpCallError> {
        let outboxes = self.outboxes().await;
        outboxes.into_iter().map(|outbox| Ok(outbox?.depth)).sum()
    }

    /// The garages that the server knows, by name.
    pub async fn garages(&self) -> Result<BTreeMap<String, GarageAtServer>, HttpCallError> {
        self.client.garages(&self.fleet.server.http).await
    }

    /// How many events of this run the server has applied.
    pub async fn applied(&self) -> Result<u64, HttpCallError> {
        let garages = self.garages().await?;
        let of =
            |(site, counts): (&GarageSite, &Arc<ProducerCounts>)| applied_of(garages.get(&site.name), counts);
        Ok(self.sites.iter().zip(&self.counts).map(of).sum())
    }

    /// The city as it is now. A daemon that does not answer is shown as such.
    pub async fn picture(&self, time: &CityTime) -> Picture {
        let (garages, outboxes) = tokio::join!(self.garages(), self.outboxes());
        let garages = garages.unwrap_or_default();
        let (mut applied, mut taken, mut lines) = (0, Takings::default(), Vec::new());
        for ((site, counts), outbox) in self.sites.iter().zip(&self.counts).zip(outboxes) {
            let garage = garages.get(&site.name);
            applied += applied_of(garage, counts);
            taken.add_all(&garage.map(GarageAtServer::taken).unwrap_or_default());
            lines.push(garage_line(site, garage, outbox.ok().as_ref()));
        }
        let mut headline = time.local().map_or_else(String::new, |local| format!("{local}   "));
        let of = time.planned.map_or_else(String::new, |planned| format!(" of {}", grouped(planned)));
        headline += &format!(
            "{} confirmed, {} applied{of} events, {}/s",
            grouped(self.confirmed()),
            grouped(applied),
            grouped((applied as f64 / time.seconds().max(0.001)) as u64)
        );
        if !taken.is_nothing() {
            headline += &format!(", {taken} taken");
        }
        Picture { headline, garages: lines, applied, planned: time.planned }
    }
}

fn applied_of(garage: Option<&GarageAtServer>, counts: &ProducerCounts) -> u64 {
    let applied = garage.map_or(0, GarageAtServer::applied);
    applied.saturating_sub(counts.applied_before.load(Ordering::Relaxed))
}

fn garage_line(site: &GarageSite, garage: Option<&GarageAtServer>, outbox: Option<&OutboxAtEdge>) -> String {
    let occupied = garage.map_or_else(|| "–".to_owned(), |garage| garage.occupied.to_string());
    let taken = garage.map(GarageAtServer::taken).unwrap_or_default();
    let state = match outbox {
        None => "edge silent".to_owned(),
        Some(OutboxAtEdge { connected: false, depth, .. }) => {
            format!("no server, {} waiting", grouped(*depth))
        }
        Some(OutboxAtEdge { depth: 0, .. }) => "up to date".to_owned(),
        Some(OutboxAtEdge { depth, .. }) => format!("delivering, {} waiting", grouped(*depth)),
    };
    let resends = match outbox {
        Some(OutboxAtEdge { resends: resends @ 1.., .. }) => format!(", {} resends", grouped(*resends)),
        _ => String::new(),
    };
    let (name, capacity) = (&site.name, site.capacity);
    format!("  {name:<20} {occupied:>5}/{capacity:<5} {taken:>14} taken   {state}{resends}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_garage_is_a_line_with_its_cars_its_money_and_its_backlog() {
        let site = GarageSite { name: "Λιμάνι".to_owned(), capacity: 150 };
        let garage = r#"{"name":"Λιμάνι","occupied":-4,"taken":[{"amount":123450,"currency":"EUR"}]}"#;
        let garage: GarageAtServer = serde_json::from_str(garage).expect("a garage");
        let outbox = OutboxAtEdge { depth: 12_345, resends: 3, connected: true };
        let line = garage_line(&site, Some(&garage), Some(&outbox));
        assert_eq!(
            line,
            "  Λιμάνι                  -4/150     1,234.50 EUR taken   delivering, 12,345 waiting, 3 resends"
        );
        assert!(garage_line(&site, None, None).contains("–/150"), "what is not known is a dash");
    }
}
