//! Looking at the daemons while they work.

use super::client::{DaemonClient, GarageAtServer, OutboxAnswer};
use super::console::{Picture, Row};
use super::fleet::{Berth, Fleet};
use super::plan::{Plan, Site};
use super::producer::{Clock, Tally};
use super::settings::Pace;
use fogpost::http::client::HttpCallError;
use fogpost::traffic::LocalInstant;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the run knows about itself, apart from its daemons.
#[derive(Debug)]
pub struct Stage {
    /// `None`: the cars drive as fast as they can.
    pub clock: Option<Clock>,
    zone: TimeZone,
    total: Option<u64>,
    opened: Instant,
    /// How long it took until all was applied, once it is.
    took: Option<Duration>,
}

impl Stage {
    /// The clocks of the city begin to go.
    pub fn open(pace: Pace, plan: &Plan) -> Stage {
        let clock = match pace {
            Pace::Times(times) => Some(Clock::starting(plan.starts_unix_ms, times)),
            Pace::AsFastAsItCan => None,
        };
        Stage { clock, zone: plan.zone.clone(), total: plan.total, opened: Instant::now(), took: None }
    }

    /// All is applied: rates are reckoned until now.
    pub fn stop_the_watch(&mut self) {
        self.took = Some(self.opened.elapsed());
    }

    fn seconds(&self) -> f64 {
        self.took.unwrap_or_else(|| self.opened.elapsed()).as_secs_f64()
    }

    /// What a clock in the city shows.
    fn time(&self) -> Option<String> {
        let unix_ms = self.clock?.now_unix_ms();
        let local = LocalInstant::in_zone(&self.zone, unix_ms).local_time();
        Some(local.strftime("%a %Y-%m-%d %H:%M").to_string())
    }
}

/// What each edge says of its outbox.
pub async fn outboxes(http: &DaemonClient, fleet: &Fleet) -> Vec<Result<OutboxAnswer, HttpCallError>> {
    let ask = |edge: &Berth| {
        let (http, url) = (http.clone(), edge.http.clone());
        async move { http.outbox(&url).await }
    };
    futures_util::future::join_all(fleet.edges.iter().map(ask)).await
}

/// How many events wait at each edge.
pub async fn depths(http: &DaemonClient, fleet: &Fleet) -> Result<Vec<u64>, HttpCallError> {
    let outboxes = outboxes(http, fleet).await;
    outboxes.into_iter().map(|outbox| Ok(outbox?.depth)).collect()
}

/// What the centre counts in each garage that it knows.
pub async fn occupied(http: &DaemonClient, server: &str) -> Result<BTreeMap<String, i64>, HttpCallError> {
    let garages = http.garages(server).await?;
    Ok(garages.into_iter().map(|(name, garage)| (name, garage.occupied)).collect())
}

/// How many events of this run the centre has applied.
pub async fn applied(
    http: &DaemonClient,
    fleet: &Fleet,
    sites: &[Site],
    tallies: &[Arc<Tally>],
) -> Result<u64, HttpCallError> {
    let garages = http.garages(&fleet.server.http).await?;
    let of = |(site, tally): (&Site, &Arc<Tally>)| applied_of(garages.get(&site.name), tally);
    Ok(sites.iter().zip(tallies).map(of).sum())
}

fn applied_of(garage: Option<&GarageAtServer>, tally: &Tally) -> u64 {
    let applied = garage.map_or(0, GarageAtServer::applied);
    applied.saturating_sub(tally.applied_before.load(Ordering::Relaxed))
}

/// The city as it is now. A daemon that does not answer is shown as such.
pub async fn look(
    http: &DaemonClient,
    fleet: &Fleet,
    sites: &[Site],
    tallies: &[Arc<Tally>],
    stage: &Stage,
) -> Picture {
    let (garages, outboxes) = tokio::join!(http.garages(&fleet.server.http), outboxes(http, fleet));
    let garages = garages.unwrap_or_default();
    let mut picture =
        Picture { clock: stage.time(), planned: stage.total, seconds: stage.seconds(), ..Picture::default() };
    for ((site, tally), outbox) in sites.iter().zip(tallies).zip(outboxes) {
        let garage = garages.get(&site.name);
        picture.confirmed += tally.confirmed.load(Ordering::Relaxed);
        picture.applied += applied_of(garage, tally);
        let outbox = outbox.ok();
        picture.rows.push(Row {
            name: site.name.clone(),
            occupied: garage.map(|garage| garage.occupied),
            capacity: site.capacity,
            taken: garage.map(GarageAtServer::taken).unwrap_or_default(),
            backlog: outbox.as_ref().map(|outbox| outbox.depth),
            resends: outbox.as_ref().map(|outbox| outbox.resends),
            state: state(outbox.as_ref()),
        });
    }
    picture
}

fn state(outbox: Option<&OutboxAnswer>) -> &'static str {
    match outbox {
        None => "edge silent",
        Some(outbox) if !outbox.connected => "no server",
        Some(outbox) if outbox.depth > 0 => "delivering",
        Some(_) => "up to date",
    }
}
