//! Waiting for what is on its way: before the cars drive, and after.

use super::{ASK_EVERY, CityRun, RunError, ticks};
use crate::books::{Baseline, CityBooks};
use crate::client::GarageAtServer;
use crate::lists;
use crate::money::grouped;
use crate::plan::GarageSite;
use std::time::{Duration, Instant};

/// After this long without any progress, more waiting is no use.
const NO_PROGRESS: Duration = Duration::from_secs(120);

/// Under chaos an edge may have begun to wait for 60 s right before the last fault was over, and twice in a row.
const NO_PROGRESS_AFTER_CHAOS: Duration = Duration::from_secs(240);

/// When all events are applied, the views follow at once, or they are wrong.
pub(super) const VIEWS_CATCH_UP: Duration = Duration::from_secs(10);

/// Occupancies that did not change for this long after a backlog have caught up with it.
const VIEWS_REST: Duration = Duration::from_secs(1);

#[derive(Debug, PartialEq)]
struct DeliveryState {
    applied: u64,
    /// How many wait at the edges.
    depth: u64,
    /// By the server's views, in the order of the garages.
    occupied: Vec<i64>,
}

impl CityRun<'_> {
    /// What the server has of each garage, once everything that earlier runs had left is delivered.
    pub(super) async fn baselines(&mut self) -> Result<Vec<Baseline>, RunError> {
        self.deliver_left_overs().await?;
        let garages = self.garages().await?;
        self.begins = garages.values().map(|garage| garage.position).max().unwrap_or(0);
        let mut baselines = Vec::new();
        for site in self.sites {
            baselines.push(match garages.get(&site.name) {
                Some(garage) if garage.applied() > 0 => {
                    lists::baseline(&self.client, self.server(), garage).await?
                }
                _ => Baseline::default(),
            });
        }
        self.applied_before = baselines.iter().map(Baseline::applied).sum();
        if self.applied_before > 0 {
            self.display
                .say(&format!("going on from {} events of earlier runs\n", grouped(self.applied_before)));
        }
        Ok(baselines)
    }

    async fn delivery_state(&self) -> Result<DeliveryState, RunError> {
        let mut garages = self.garages().await?;
        let depth = self.waiting().await?;
        let garage = |site: &GarageSite| garages.remove(&site.name).unwrap_or_default();
        let found: Vec<GarageAtServer> = self.sites.iter().map(garage).collect();
        let applied = found.iter().map(GarageAtServer::applied).sum();
        Ok(DeliveryState { applied, depth, occupied: found.iter().map(|garage| garage.occupied).collect() })
    }

    async fn deliver_left_overs(&mut self) -> Result<(), RunError> {
        let depth = self.waiting().await?;
        if depth == 0 {
            return Ok(());
        }
        self.display.say(&format!("the edges deliver {} events first", grouped(depth)));
        // The views follow the ledger: they have caught up when nothing changes any more.
        let arrived = |state: &DeliveryState, still| state.depth == 0 && still >= VIEWS_REST;
        match self.wait_until(arrived, NO_PROGRESS).await? {
            None => Ok(()),
            Some(DeliveryState { depth, .. }) => Err(RunError::Unfinished(format!(
                "what earlier runs had left was not delivered: nothing moved for {} s, {depth} events wait at the edges. They \
                 stay on disk",
                NO_PROGRESS.as_secs()
            ))),
        }
    }

    /// Waits until the server has all that was confirmed, as long as there is progress.
    ///
    /// Does not judge: what is missing then is found by [`CityRun::check`].
    pub(super) async fn deliver(&mut self, books: &[CityBooks]) -> Result<(), RunError> {
        let owed: u64 = books.iter().map(CityBooks::applied_when_settled).sum();
        let expected: Vec<i64> = books.iter().map(CityBooks::occupied).collect();
        let arrived = |DeliveryState { applied, depth, occupied }: &DeliveryState, still| {
            *applied >= owed && *depth == 0 && (*occupied == expected || still >= VIEWS_CATCH_UP)
        };
        let patience = if self.settings.flags.chaos { NO_PROGRESS_AFTER_CHAOS } else { NO_PROGRESS };
        if let Some(DeliveryState { applied, depth, .. }) = self.wait_until(arrived, patience).await? {
            let [applied, owed, depth] = [applied, owed, depth].map(grouped);
            self.display.say(&format!(
                "not all is delivered: {applied} of {owed} events are applied, {depth} wait at the edges; comparing the books \
                 as they are"
            ));
        }
        Ok(())
    }

    /// Asks until the state has `arrived`, which also gets for how long nothing has moved. Returns the state if that is longer than
    /// `patience`.
    async fn wait_until(
        &mut self,
        arrived: impl Fn(&DeliveryState, Duration) -> bool,
        patience: Duration,
    ) -> Result<Option<DeliveryState>, RunError> {
        let (mut last, mut since) = (None, Instant::now());
        let mut show = ticks(self.display.show_every());
        let mut ask = ticks(ASK_EVERY);
        loop {
            tokio::select! {
                biased;
                // What earlier runs had left is no progress of this one.
                _ = show.tick(), if self.confirmed() > 0 => {
                    self.show().await;
                    continue;
                }
                _ = ask.tick() => {}
            }
            let state = self.delivery_state().await?;
            if last.as_ref() != Some(&state) {
                since = Instant::now();
            }
            if arrived(&state, since.elapsed()) {
                return Ok(None);
            }
            if since.elapsed() >= patience {
                return Ok(Some(state));
            }
            last = Some(state);
        }
    }
}
