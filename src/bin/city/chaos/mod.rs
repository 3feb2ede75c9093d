//! Chaos: daemons are killed and links are cut while the cars drive, and the books must still be right.
//!
//! **Promise.** Each fault of the plan ([`faults`]) is carried out, in its order, one after another: the next one comes when
//! this one is in force. What was killed is started again, what was cut heals, and all of that is over when [`Chaos::run`]
//! returns. In a run by progress (`city --replay` without `--speed`), one seed and one list of events give the same faults,
//! victims, order, and numbers of events at which they strike. In any other run they give the same faults, victims, order and
//! waits, for as long as the run goes on.
//! **Kept by.** A gate ([`gate`]) between producers and faults: each fault strikes while a certain request is on its way.
//! **Not promised.** That the same fault hits the same bytes in another run. That a cut has an effect: if its edge is dead or is
//! holding its events back at that time, the cut heals after [`EFFECT_WITHIN`] without one. [`FaultCounts`] says how many had an
//! effect.
//!
//! Victims recover while the next faults come. A fault waits for a victim that still suffers from an earlier one.

pub mod faults;
pub mod gate;

use super::client::DaemonClient;
use super::fleet::{DaemonSlot, Fleet};
use faults::{Fault, FaultAction, FaultsByProgress, FaultsByTime};
use fogpost::fault_proxy::LinkFault;
use gate::{FaultGate, GatePass};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};
use std::{fmt, io};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a cut waits for something that it can spoil.
const EFFECT_WITHIN: Duration = Duration::from_secs(10);

/// How long the server's death waits for events on their way to it, and a cut for anything on its link. An edge that was cut
/// off sends again after 2 s.
const STRIKE_WITHIN: Duration = Duration::from_secs(5);

/// How long a fault by time waits for a request that it can hit. Without any, at night, it strikes all the same.
const REQUEST_WITHIN: Duration = Duration::from_secs(2);

/// A counter that takes longer to read is not read.
const COUNT_WITHIN: Duration = Duration::from_secs(1);

/// Cuts of links, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CutCounts {
    pub total: u64,
    /// How many of them did something to a connection.
    pub met_traffic: u64,
    pub delay: u64,
    pub stall: u64,
    pub reset: u64,
    pub black_hole: u64,
    pub half_open: u64,
    pub refused: u64,
}

/// The faults of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FaultCounts {
    /// How many faults were planned; `None` in a run by time.
    pub planned: Option<u64>,
    pub edges_killed: u64,
    pub server_killed: u64,
    pub cuts: CutCounts,
    /// How often a request was repeated, since it had no answer, or the edge asked for it later.
    pub posts_repeated: u64,
}

impl FaultCounts {
    fn add_cut(&mut self, fault: LinkFault) {
        let cuts = &mut self.cuts;
        cuts.total += 1;
        *match fault {
            LinkFault::Delay => &mut cuts.delay,
            LinkFault::Stall => &mut cuts.stall,
            LinkFault::Reset => &mut cuts.reset,
            LinkFault::BlackHole => &mut cuts.black_hole,
            LinkFault::HalfOpen(_) => &mut cuts.half_open,
            LinkFault::Refuse => &mut cuts.refused,
        } += 1;
    }
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CutCounts { total, delay, stall, reset, black_hole, half_open, refused, .. } = self.cuts;
        write!(
            f,
            "{} edges and {} servers killed, {total} links cut ({delay} delayed, {stall} stalled, {reset} reset, \
             {black_hole} black holes, {half_open} half open, {refused} refused)",
            self.edges_killed, self.server_killed
        )
    }
}

/// The counts of a run that goes on.
#[derive(Debug, Clone, Default)]
pub struct SharedFaultCounts(Arc<std::sync::Mutex<FaultCounts>>);

impl SharedFaultCounts {
    pub fn lock(&self) -> MutexGuard<'_, FaultCounts> {
        self.0.lock().expect("no thread panics while it holds this")
    }
}

#[derive(Debug)]
enum FaultPlan {
    /// Each fault with the number of events at which it strikes.
    ByProgress(Vec<(u64, Fault)>),
    ByTime(Box<FaultsByTime>),
}

/// The chaos of one run, before it begins.
#[derive(Debug)]
pub struct Chaos {
    plan: FaultPlan,
    gate: FaultGate,
    counts: SharedFaultCounts,
}

impl Chaos {
    /// Faults for garages with these numbers of events. Also returns, for each garage, the pass that its producer needs.
    pub fn by_progress(seed: u64, shares: &[u64], counts: SharedFaultCounts) -> (Chaos, Vec<GatePass>) {
        let plan = FaultsByProgress::plan(seed, shares);
        let triggers: Vec<usize> = plan.faults.iter().map(|fault| fault.trigger).collect();
        let (gate, passes) = gate::by_progress(&triggers, plan.quotas);
        let faults: Vec<(u64, Fault)> = plan.points.into_iter().zip(plan.faults).collect();
        counts.lock().planned = Some(faults.len() as u64);
        (Chaos { plan: FaultPlan::ByProgress(faults), gate, counts }, passes)
    }

    /// Faults every few seconds, without an end.
    pub fn by_time(seed: u64, garages: usize, counts: SharedFaultCounts) -> (Chaos, Vec<GatePass>) {
        let (gate, passes) = gate::by_time(garages);
        let plan = FaultPlan::ByTime(Box::new(FaultsByTime::plan(seed, garages)));
        (Chaos { plan, gate, counts }, passes)
    }

    /// Carries the plan out, until it ends or `over` comes. Then it waits until all daemons are up and every link works.
    ///
    /// A daemon that does not come back, or had ended by itself, is reported to the city as a death. If the future is
    /// dropped, daemons may stay dead and links cut. Each fault is written to `log` when it has struck.
    pub async fn run(self, fleet: Arc<Fleet>, client: DaemonClient, log: FaultLog, over: CancellationToken) {
        let links = fleet.links.iter().map(|_| Arc::default()).collect();
        let deliveries = match self.plan {
            FaultPlan::ByProgress(_) => Deliveries::Frequent,
            FaultPlan::ByTime(_) => Deliveries::Rare,
        };
        let recoveries = JoinSet::new();
        let mut run = ChaosRun { fleet, client, counts: self.counts, log, recoveries, links, deliveries };
        match self.plan {
            FaultPlan::ByProgress(faults) => {
                for (number, (point, fault)) in faults.iter().enumerate() {
                    let trigger = self.gate.meet(number);
                    let Some(counted) = run.await_moment(fault.action, trigger, &over).await else {
                        break;
                    };
                    run.strike(fault, counted).await;
                    run.log.note(fault, Some(*point));
                    self.gate.open();
                }
            }
            FaultPlan::ByTime(faults) => {
                for (wait, fault) in faults {
                    let pause = tokio::time::sleep(wait);
                    let trigger = async {
                        pause.await;
                        let _ = timeout(REQUEST_WITHIN, self.gate.request_of(fault.trigger)).await;
                    };
                    let Some(counted) = run.await_moment(fault.action, trigger, &over).await else {
                        break;
                    };
                    run.strike(&fault, counted).await;
                    run.log.note(&fault, None);
                }
            }
        }
        while let Some(recovered) = run.recoveries.join_next().await {
            recovered.expect("a recovery does not panic");
        }
    }
}

/// The file that says which fault struck when.
#[derive(Debug)]
pub struct FaultLog {
    begun: Instant,
    file: File,
}

impl FaultLog {
    /// A new one in the folder of the logs.
    pub fn begin(logs: &Path) -> io::Result<FaultLog> {
        Ok(FaultLog { begun: Instant::now(), file: File::create(logs.join("weather.log"))? })
    }

    /// Errors are ignored: a log that cannot be written does not end the chaos.
    fn note(&mut self, fault: &Fault, point: Option<u64>) {
        let Fault { action, trigger, delay, lasts } = fault;
        let seconds = self.begun.elapsed().as_secs_f64();
        let what = match action {
            FaultAction::KillServer => "the server is killed".to_owned(),
            FaultAction::KillEdge(edge) => format!("edge-{} is killed", edge + 1),
            FaultAction::CutLink(link, cut) => format!("the link of edge-{} is cut: {cut}", link + 1),
        };
        let at = point.map_or_else(String::new, |point| format!(" at event {point}:"));
        let _ = writeln!(
            self.file,
            "{seconds:9.3} s:{at} {what}, {:.6} s after a post to edge-{}, for {:.3} s",
            delay.as_secs_f64(),
            trigger + 1,
            lasts.as_secs_f64()
        );
    }
}

/// How often events go to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deliveries {
    /// All the time: the server's death can wait for a big delivery.
    Frequent,
    /// Now and then: the trigger garage's event must do, which leaves its edge as soon as it is on its disk.
    Rare,
}

/// Chaos while it goes on.
struct ChaosRun {
    fleet: Arc<Fleet>,
    client: DaemonClient,
    counts: SharedFaultCounts,
    log: FaultLog,
    recoveries: JoinSet<()>,
    /// For each link: locked while it is cut.
    links: Vec<Arc<Mutex<()>>>,
    deliveries: Deliveries,
}

impl ChaosRun {
    /// Returns once the victim has recovered from earlier faults and the trigger has come. What it returns is the counter of
    /// the process that is about to end. `None`: the chaos is over.
    async fn await_moment(
        &self,
        action: FaultAction,
        trigger: impl Future<Output = ()>,
        over: &CancellationToken,
    ) -> Option<u64> {
        let moment = async {
            let counted = match action {
                FaultAction::KillServer => self.duplicates_at_server().await,
                FaultAction::KillEdge(edge) => self.resends_of(&self.fleet.edges[edge]).await,
                FaultAction::CutLink(link, _) => {
                    drop(self.links[link].lock().await);
                    0
                }
            };
            trigger.await;
            counted
        };
        tokio::select! {
            biased;
            () = over.cancelled() => None,
            counted = moment => Some(counted),
        }
    }

    async fn duplicates_at_server(&self) -> u64 {
        self.fleet.server.up().await;
        let garages = timeout(COUNT_WITHIN, self.client.garages(&self.fleet.server.http)).await;
        let garages = garages.ok().and_then(Result::ok).unwrap_or_default();
        garages.values().map(|garage| garage.duplicates_refused).sum()
    }

    async fn resends_of(&self, edge: &DaemonSlot) -> u64 {
        edge.up().await;
        let outbox = timeout(COUNT_WITHIN, self.client.outbox(&edge.http)).await;
        outbox.ok().and_then(Result::ok).map_or(0, |outbox| outbox.resends)
    }

    /// Returns once the fault is in force. Not to be dropped before: a victim could stay dead.
    async fn strike(&mut self, fault: &Fault, counted: u64) {
        let links = &self.fleet.links;
        // It must not strike where nothing goes on. The request that it came with soon leads to something.
        let _ = match (fault.action, self.deliveries) {
            (FaultAction::KillServer, Deliveries::Frequent) => {
                timeout(STRIKE_WITHIN, self.fleet.deliveries.notified()).await
            }
            (FaultAction::KillServer, Deliveries::Rare) => {
                timeout(STRIKE_WITHIN, links[fault.trigger].carried()).await
            }
            (FaultAction::CutLink(link, _), _) => timeout(STRIKE_WITHIN, links[link].carried()).await,
            (FaultAction::KillEdge(_), _) => Ok(()), // It hits the request itself.
        };
        tokio::time::sleep(fault.delay).await;
        match fault.action {
            FaultAction::KillServer => {
                if self.kill(|fleet| &fleet.server, counted, fault.lasts).await {
                    self.counts.lock().server_killed += 1;
                }
            }
            FaultAction::KillEdge(edge) => {
                if self.kill(move |fleet| &fleet.edges[edge], counted, fault.lasts).await {
                    self.counts.lock().edges_killed += 1;
                }
            }
            FaultAction::CutLink(link, cut) => {
                self.cut(link, cut, fault.lasts).await;
                self.counts.lock().add_cut(cut);
            }
        }
    }

    /// Returns whether it was killed: `false` if it had ended by itself, which is reported to the city.
    async fn kill(
        &mut self,
        victim: impl Fn(&Fleet) -> &DaemonSlot + Send + 'static,
        counted: u64,
        dead_for: Duration,
    ) -> bool {
        let slot = victim(&self.fleet);
        let killed = match slot.kill().await {
            Ok(killed) => killed,
            Err(error) => {
                slot.report_death(error);
                return false;
            }
        };
        slot.add_earlier_count(counted);
        let fleet = self.fleet.clone();
        self.recoveries.spawn(async move {
            tokio::time::sleep(dead_for).await;
            let slot = victim(&fleet);
            if let Err(error) = slot.revive(killed).await {
                slot.report_death(error);
            }
        });
        true
    }

    async fn cut(&mut self, link: usize, cut: LinkFault, lasts: Duration) {
        let lock = self.links[link].clone().lock_owned().await;
        let number = self.fleet.links[link].set(cut);
        let (fleet, counts) = (self.fleet.clone(), self.counts.clone());
        self.recoveries.spawn(async move {
            let link = &fleet.links[link];
            if timeout(EFFECT_WITHIN, link.affected(number)).await.is_ok() {
                counts.lock().cuts.met_traffic += 1;
            }
            tokio::time::sleep(lasts).await;
            link.heal();
            drop(lock);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_cut_is_counted_as_its_own_and_all_together() {
        let mut counts = FaultCounts { edges_killed: 26, server_killed: 13, ..FaultCounts::default() };
        for (nth, cut) in LinkFault::ALL.into_iter().enumerate() {
            (0..=nth).for_each(|_| counts.add_cut(cut));
        }
        let cuts = &counts.cuts;
        assert_eq!((cuts.delay, cuts.stall, cuts.reset, cuts.black_hole), (1, 2, 3, 4));
        assert_eq!((cuts.half_open, cuts.refused, cuts.total), (5 + 6, 7, 28));
        let said = counts.to_string();
        assert!(
            said.starts_with("26 edges and 13 servers killed, 28 links cut (1 delayed, 2 stalled,"),
            "{said}"
        );
    }
}
