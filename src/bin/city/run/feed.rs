//! Posting the events of the cars, under chaos or without.

use super::{CityRun, RunError, ticks};
use crate::books::{Baseline, CityBooks};
use crate::chaos::gate::GatePass;
use crate::chaos::{Chaos, FaultLog};
use crate::plan::CarPlan;
use crate::producer::{CityProducer, ProducerResult};
use std::collections::BTreeMap;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const STOPPING: &str =
    "the cars stop; the city ends when all is delivered and checked (once more to end it at once)";

impl CityRun<'_> {
    /// Lets the cars drive until they end or the user stops them; returns what was confirmed.
    pub(super) async fn feed(
        &mut self,
        plan: CarPlan,
        baselines: Vec<Baseline>,
    ) -> Result<Vec<CityBooks>, RunError> {
        let chaos_over = CancellationToken::new();
        let mut chaos_runs = JoinSet::new();
        let mut passes = Vec::new();
        if self.settings.flags.chaos {
            let chaos;
            let (seed, speed) = (self.settings.flags.seed, self.settings.speed);
            (chaos, passes) = Chaos::plan(seed, speed, &plan.limits, self.fault_counts.clone());
            let log = FaultLog::begin(&self.dir.join("logs"))
                .map_err(|source| RunError::Directory { path: self.dir.to_owned(), source })?;
            chaos_runs.spawn(chaos.run(self.fleet.clone(), log, chaos_over.clone()));
        }
        let mut producers = self.start_producers(plan, baselines, passes);

        let mut done = BTreeMap::new();
        let mut stopping = false;
        let mut show = ticks(self.display.show_every());
        loop {
            tokio::select! {
                biased;
                () = self.signals.stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.display.say(STOPPING);
                    chaos_over.cancel();
                }
                ended = producers.join_next() => match ended {
                    None => break,
                    Some(ended) => {
                        let (index, (books, result)) = ended.expect("a producer does not panic");
                        let garage = || self.sites[index].name.clone();
                        result.map_err(|source| RunError::Feed { garage: garage(), source })?;
                        done.insert(index, books);
                    }
                },
                _ = show.tick() => self.show().await,
            }
        }
        // Before the books are checked all daemons are up again, and every link works.
        chaos_over.cancel();
        while let Some(ended) = chaos_runs.join_next().await {
            ended.expect("chaos does not panic");
        }
        Ok(done.into_values().collect())
    }

    fn start_producers(
        &self,
        plan: CarPlan,
        baselines: Vec<Baseline>,
        passes: Vec<GatePass>,
    ) -> JoinSet<(usize, ProducerResult)> {
        let mut producers = JoinSet::new();
        let mut passes = passes.into_iter();
        let garages = plan.traffic.into_iter().zip(plan.limits).zip(baselines).enumerate();
        for (index, ((traffic, limit), baseline)) in garages {
            let producer = CityProducer {
                client: self.client.clone(),
                edge: self.fleet.edges[index].http.clone(),
                traffic,
                limit,
                zone: plan.zone.clone(),
                books: CityBooks::new(self.sites[index].name.clone(), baseline),
                counts: self.counts[index].clone(),
                clock: self.clock.clone(),
                chaos: passes.next(),
            };
            let stop = self.signals.stop.clone();
            producers.spawn(async move { (index, producer.run(stop).await) });
        }
        producers
    }
}
