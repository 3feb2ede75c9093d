//! Waiting for what is on its way: before the cars drive, and after.

use super::{ASK_EVERY, CityRun, RunError, ticks};
use crate::books::{Baseline, CityBooks};
use crate::client::GarageAtServer;
use crate::lists;
use crate::money::grouped;
use std::time::{Duration, Instant};

/// After this long without any progress, more waiting is no use.
const NO_PROGRESS: Duration = Duration::from_secs(120);

/// Under chaos an edge may have begun to wait for 60 s right before the last fault was over, and twice in a row.
const NO_PROGRESS_AFTER_CHAOS: Duration = Duration::from_secs(240);

/// When all events are applied, the views follow at once, or they are wrong.
pub(super) const VIEWS_CATCH_UP: Duration = Duration::from_secs(10);

/// Occupancies that did not change for this long after a backlog have caught up with it.
const VIEWS_REST: Duration = Duration::from_secs(1);

/// How far the events of all garages have come.
#[derive(Debug, PartialEq)]
struct DeliveryState {
    applied: u64,
    /// How many wait at the edges.
    depth: u64,
    /// By the server's views, in the order of the garages.
    occupied: Vec<i64>,
}

/// Whether anything moves.
struct ProgressWatch {
    last: Option<DeliveryState>,
    since: Instant,
}

impl ProgressWatch {
    fn new() -> ProgressWatch {
        ProgressWatch { last: None, since: Instant::now() }
    }

    /// For how long nothing has moved.
    fn still_for(&mut self, now: DeliveryState) -> Duration {
        if self.last.as_ref() != Some(&now) {
            *self = ProgressWatch { last: Some(now), since: Instant::now() };
        }
        self.since.elapsed()
    }
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
        let garages = self.garages().await?;
        let depth = self.waiting().await?;
        let found: Vec<Option<&GarageAtServer>> =
            self.sites.iter().map(|site| garages.get(&site.name)).collect();
        Ok(DeliveryState {
            applied: found.iter().flatten().map(|garage| garage.applied()).sum(),
            depth,
            occupied: found.iter().map(|garage| garage.map_or(0, |garage| garage.occupied)).collect(),
        })
    }

    async fn deliver_left_overs(&mut self) -> Result<(), RunError> {
        let mut progress = ProgressWatch::new();
        let mut backlog_seen = false;
        loop {
            let state = self.delivery_state().await?;
            let depth = state.depth;
            // The views follow the ledger: they have caught up when nothing changes any more.
            let still_for = progress.still_for(state);
            if depth == 0 && (!backlog_seen || still_for >= VIEWS_REST) {
                return Ok(());
            }
            if still_for >= NO_PROGRESS {
                let waited = NO_PROGRESS.as_secs();
                return Err(RunError::Unfinished(format!(
                    "what earlier runs had left was not delivered: nothing moved for {waited} s, {depth} events wait at the \
                     edges. They stay on disk"
                )));
            }
            if !backlog_seen {
                backlog_seen = true;
                self.display.say(&format!("the edges deliver {} events first", grouped(depth)));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Waits until the server has all that was confirmed, as long as there is progress.
    ///
    /// Does not judge: what is missing then is found by [`CityRun::check`].
    pub(super) async fn deliver(&mut self, books: &[CityBooks]) -> Result<(), RunError> {
        let mut progress = ProgressWatch::new();
        let mut show = ticks(self.display.show_every());
        let mut ask = ticks(ASK_EVERY);
        let patience = if self.settings.flags.chaos { NO_PROGRESS_AFTER_CHAOS } else { NO_PROGRESS };
        let owed: u64 = books.iter().map(CityBooks::applied_when_settled).sum();
        let expected: Vec<i64> = books.iter().map(CityBooks::occupied).collect();
        loop {
            tokio::select! {
                biased;
                _ = show.tick() => {
                    self.show().await;
                    continue;
                }
                _ = ask.tick() => {}
            }
            let state = self.delivery_state().await?;
            let (applied, depth) = (state.applied, state.depth);
            let all_applied = applied >= owed && depth == 0;
            if all_applied && state.occupied == expected {
                return Ok(());
            }
            if progress.still_for(state) >= if all_applied { VIEWS_CATCH_UP } else { patience } {
                let [applied, owed, depth] = [applied, owed, depth].map(grouped);
                self.display.say(&format!(
                    "not all is delivered: {applied} of {owed} events are applied, {depth} wait at the edges; \
                     comparing the books as they are"
                ));
                return Ok(());
            }
        }
    }
}
