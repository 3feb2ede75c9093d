//! What the daemons report while the city runs, and how it is shown.

use super::CityRun;
use crate::client::{GarageAtServer, OutboxAtEdge};
use crate::lists;
use crate::money::{Takings, grouped};
use crate::plan::GarageSite;
use crate::producer::CityClock;
use fogpost::http::client::HttpCallError;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

impl CityRun<'_> {
    pub(super) fn confirmed(&self) -> u64 {
        self.counts.iter().map(|counts| counts.confirmed.load(Ordering::Relaxed)).sum()
    }

    pub(super) async fn outboxes(&self) -> Vec<Result<OutboxAtEdge, HttpCallError>> {
        let outboxes = self.fleet.edges.iter().map(|edge| self.client.outbox(&edge.http));
        futures_util::future::join_all(outboxes).await
    }

    pub(super) async fn waiting(&self) -> Result<u64, HttpCallError> {
        let outboxes = self.outboxes().await;
        outboxes.into_iter().map(|outbox| Ok(outbox?.depth)).sum()
    }

    pub(super) async fn garages(&self) -> Result<BTreeMap<String, GarageAtServer>, HttpCallError> {
        self.client.garages(self.server()).await
    }

    pub(super) async fn applied(&self) -> Result<u64, HttpCallError> {
        Ok(self.applied_of(&self.garages().await?))
    }

    fn applied_of(&self, garages: &BTreeMap<String, GarageAtServer>) -> u64 {
        let applied: u64 = garages.values().map(GarageAtServer::applied).sum();
        applied.saturating_sub(self.applied_before)
    }

    pub(super) async fn show(&mut self) {
        // A run that goes as fast as it can is measured: it names a statement at the end.
        if self.clock.is_some() && self.statement.is_none() {
            self.offer_statement().await;
        }
        let lines = self.picture().await;
        self.display.show(&lines);
    }

    /// The city as it is now. A daemon that does not answer is shown as such.
    async fn picture(&self) -> Vec<String> {
        let (garages, outboxes) = tokio::join!(self.garages(), self.outboxes());
        let garages = garages.unwrap_or_default();
        let applied = self.applied_of(&garages);
        let (mut taken, mut lines) = (Takings::default(), vec![String::new()]);
        if self.settings.flags.chaos {
            lines.push(format!("  {}", *self.fault_counts.lock()));
        }
        for (site, outbox) in self.sites.iter().zip(outboxes) {
            let garage = garages.get(&site.name);
            garage.iter().for_each(|garage| taken.add_all(&garage.taken));
            lines.push(garage_line(site, garage, outbox.ok().as_ref()));
        }
        let of = self.planned.map_or_else(String::new, |planned| format!(" of {}", grouped(planned)));
        let taken = if taken.is_nothing() { String::new() } else { format!(", {taken} taken") };
        lines[0] = format!(
            "{}{} confirmed, {} applied{of} events, {}/s{taken}",
            self.clock.as_ref().map(CityClock::local).unwrap_or_default(),
            grouped(self.confirmed()),
            grouped(applied),
            grouped((applied as f64 / self.report.phases.seconds_of_cars().max(0.001)) as u64)
        );
        lines
    }

    /// Says where a statement can be opened, as soon as there is one.
    async fn offer_statement(&mut self) {
        // Under chaos the server may be dead. The next picture asks again.
        if let Ok(Some(link)) = lists::newest_statement(&self.client, self.server()).await {
            self.display.say(&format!("open a statement in a browser: {}{}", self.server(), link.path()));
            self.statement = Some(link);
        }
    }
}

fn garage_line(site: &GarageSite, garage: Option<&GarageAtServer>, outbox: Option<&OutboxAtEdge>) -> String {
    let occupied = garage.map_or_else(|| "–".to_owned(), |garage| garage.occupied.to_string());
    let taken = garage.map(|garage| garage.taken.clone()).unwrap_or_default();
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
