//! Waiting for what is on its way: before the cars drive, and after.

use super::{ASK_EVERY, CityRun, ProgressWatch, RunError, ticks};
use crate::books::{Baseline, CityBooks};
use crate::client::GarageAtServer;
use crate::event_list;
use crate::money::grouped;
use crate::status::CityTime;
use std::time::{Duration, Instant};

/// After this long without any progress, more waiting is no use.
pub(super) const NO_PROGRESS: Duration = Duration::from_secs(120);

/// Under chaos an edge may have begun to wait for 60 s right before the last fault was over, and twice in a row.
const NO_PROGRESS_AFTER_CHAOS: Duration = Duration::from_secs(240);

/// When all events are applied, the views follow at once, or they are wrong.
pub(super) const VIEWS_CATCH_UP: Duration = Duration::from_secs(10);

/// How long an interrupted run may wait for confirmed events to arrive.
const SETTLE_WHEN_INTERRUPTED: Duration = Duration::from_secs(30);

/// Occupancies that did not change for this long after a backlog have caught up with it.
const VIEWS_REST: Duration = Duration::from_secs(1);

/// What the server has before this run.
pub(super) struct BeforeRun {
    pub baselines: Vec<Baseline>,
    /// For each garage, the cursor from which the events of this run are listed.
    pub cursors: Vec<Option<String>>,
    /// The server's position in its ledger.
    pub position: u64,
}

impl CityRun<'_> {
    /// What the server has of each garage, once everything that earlier runs had left is delivered.
    pub(super) async fn before(&mut self) -> Result<BeforeRun, RunError> {
        self.deliver_left_overs().await?;
        let garages = self.status.garages().await?;
        let position = garages.values().map(|garage| garage.position).max().unwrap_or(0);
        let mut before = BeforeRun { baselines: Vec::new(), cursors: Vec::new(), position };
        for site in self.sites {
            let (baseline, cursor) = match garages.get(&site.name) {
                Some(garage) if garage.applied() > 0 => {
                    event_list::baseline(&self.status.client, self.server(), garage).await?
                }
                _ => Default::default(),
            };
            before.baselines.push(baseline);
            before.cursors.push(cursor);
        }
        let found: u64 = before.baselines.iter().map(Baseline::applied).sum();
        if found > 0 {
            self.display.say(&format!("going on from {} events of earlier runs\n", grouped(found)));
        }
        Ok(before)
    }

    async fn deliver_left_overs(&mut self) -> Result<(), RunError> {
        let mut progress = ProgressWatch::new();
        let mut backlog_seen = false;
        loop {
            let depth = self.status.waiting().await?;
            // The views follow the ledger: they have caught up when nothing changes any more.
            let occupied: Vec<i64> =
                self.status.garages().await?.values().map(|garage| garage.occupied).collect();
            progress.observe((depth, occupied));
            if depth == 0 && (!backlog_seen || progress.still_for(VIEWS_REST)) {
                return Ok(());
            }
            if progress.still_for(NO_PROGRESS) {
                return Err(RunError::LeftOvers { depth });
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
    pub(super) async fn settle(&mut self, books: &[CityBooks], time: &CityTime) -> Result<(), RunError> {
        let mut progress = ProgressWatch::new();
        let mut show = ticks(self.display.show_every());
        let mut ask = ticks(ASK_EVERY);
        let mut interrupted_since = None;
        let (no_progress, when_interrupted) = if self.settings.flags.chaos {
            (NO_PROGRESS_AFTER_CHAOS, NO_PROGRESS_AFTER_CHAOS)
        } else {
            (NO_PROGRESS, SETTLE_WHEN_INTERRUPTED)
        };
        let owed: u64 = books.iter().map(CityBooks::applied_when_settled).sum();
        loop {
            tokio::select! {
                biased;
                _ = show.tick() => {
                    self.show(time).await;
                    continue;
                }
                _ = ask.tick() => {}
            }
            let garages = self.status.garages().await?;
            let at_server = |books: &CityBooks| garages.get(&books.garage);
            let applied: u64 = books.iter().filter_map(at_server).map(GarageAtServer::applied).sum();
            let depth = self.status.waiting().await?;
            let occupied = |books: &CityBooks| at_server(books).map_or(0, |garage| garage.occupied);
            let all_applied = applied >= owed && depth == 0;
            if all_applied && books.iter().all(|books| occupied(books) == books.occupied()) {
                return Ok(());
            }
            progress.observe((applied, depth, books.iter().map(occupied).collect::<Vec<_>>()));
            if self.signals.stop.is_cancelled() {
                interrupted_since.get_or_insert_with(Instant::now);
            }
            let late = interrupted_since.is_some_and(|since| since.elapsed() > when_interrupted);
            if late || progress.still_for(if all_applied { VIEWS_CATCH_UP } else { no_progress }) {
                self.display.say(&format!(
                    "not settled: {} of {} events are applied, {} wait at the edges; comparing the books as they are",
                    grouped(applied),
                    grouped(owed),
                    grouped(depth)
                ));
                return Ok(());
            }
        }
    }
}
