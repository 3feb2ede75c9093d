//! Comparing the city's books with the server's lists.

use super::delivery::VIEWS_CATCH_UP;
use super::{ASK_EVERY, CityRun, RunError};
use crate::books::{CityBooks, GarageCharges, ListedEvents, ServerAccount};
use crate::client::GarageAtServer;
use crate::lists::{self, StatementLink};
use crate::money::grouped;
use crate::report::GarageTotal;
use crate::settings::Verify;
use futures_util::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// How many garages are read back at a time. The server's processors are the limit: more readers make nothing faster.
const READERS: usize = 4;

impl CityRun<'_> {
    /// Compares the books with the server, and notes what differs.
    pub(super) async fn check(&mut self, books: &[CityBooks]) -> Result<(), RunError> {
        let mut events: Vec<Option<ListedEvents>> = books.iter().map(|_| None).collect();
        let mut charges = None;
        if self.settings.flags.verify == Verify::Full {
            let confirmed: u64 = books.iter().map(CityBooks::confirmed).sum();
            self.display
                .say(&format!("reading {} events back from the server, and all charges", grouped(confirmed)));
            let (read_events, read_charges) = tokio::join!(self.read_events(books), self.read_charges());
            (events, charges) = (read_events?, Some(read_charges?));
        }
        let statement = lists::newest_statement(&self.client, self.server()).await?;
        let garages = self.garages().await?;
        let occupancy = self.client.occupancy(self.server()).await?;
        let outboxes = self.outboxes().await;
        let (report, unknown) = (&mut *self.report, GarageAtServer::default());
        for (index, books) in books.iter().enumerate() {
            let garage = garages.get(&books.garage).unwrap_or(&unknown);
            let occupied = occupancy.get(&books.garage).copied().unwrap_or(0);
            let outbox = outboxes[index].as_ref().ok();
            let account = ServerAccount {
                applied: garage.applied(),
                occupied,
                depth: outbox.map(|outbox| outbox.depth),
                closed: garage.stays.closed,
                taken: garage.taken.clone(),
                charges: charges
                    .as_ref()
                    .map(|charges| charges.get(&books.garage).cloned().unwrap_or_default()),
                events: events[index].take(),
            };
            report.discrepancies.extend(books.compare(&account));
            report.applied += account.applied.saturating_sub(books.baseline.applied());
            report.duplicates_refused += garage.duplicates_refused;
            report.resends += outbox.map_or(0, |outbox| outbox.resends);
            report.held_back += self.counts[index].held_back.load(Ordering::Relaxed);
            report.taken.add_all(&account.taken);
            report.stays += account.closed;
            report.garages.push(GarageTotal {
                name: books.garage.clone(),
                capacity: self.sites[index].capacity,
                occupied,
                taken: account.taken,
                events: books.confirmed(),
            });
        }
        report.statement = statement.as_ref().map(StatementLink::path);
        self.statement = statement.or(self.statement.take());
        Ok(())
    }

    /// All charges by garage, once the list has come as far as the counts.
    async fn read_charges(&self) -> Result<BTreeMap<String, GarageCharges>, RunError> {
        let (client, server) = (&self.client, self.server());
        let garages = self.garages().await?;
        let counted = garages.values().map(|garage| garage.position).max().unwrap_or(0);
        let began = Instant::now();
        // A list that stays behind is compared as it is.
        while lists::charges_position(client, server).await? < counted && began.elapsed() < VIEWS_CATCH_UP {
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(lists::charges(client, server, self.begins).await?)
    }

    /// The events of this run as the server lists them, by garage.
    async fn read_events(&self, books: &[CityBooks]) -> Result<Vec<Option<ListedEvents>>, RunError> {
        let reading = books
            .iter()
            .map(|books| lists::events_after(&self.client, self.server(), &books.garage, &books.baseline));
        let reading = futures_util::stream::iter(reading).buffered(READERS);
        Ok(reading.map_ok(Some).try_collect().await?)
    }
}
