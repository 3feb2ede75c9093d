//! Chaos: daemons are killed and links are cut while the cars drive, and the books must still be right.
//!
//! **Promise.** Each fault of the plan ([`faults`]) is carried out, one after another: the next one comes when this one is in
//! force. What was killed is started again, what was cut heals, and all of that is over when [`Chaos::run`] returns. In a run by
//! progress (`city --replay` without `--speed`) the plan says at which numbers of events faults strike, in any other run how long
//! to wait between them.
//! **Kept by.** A gate ([`gate`]) between producers and faults: each fault strikes while a certain request is on its way.
//! Victims recover while the next faults come; a fault waits for a victim that still suffers from an earlier one.
//! **Not promised.** That the same fault hits the same bytes in another run. That a cut has an effect: if its edge sends nothing,
//! the cut heals after [`EFFECT_WITHIN`].

pub mod faults;
pub mod gate;

use super::fleet::{DaemonSlot, Fleet};
use faults::{Fault, FaultAction, FaultsByProgress, faults_by_time};
use fogpost::fault_proxy::{FaultProxy, LinkFault};
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

/// How long a fault waits for what its garage's edge sends. An edge that was cut off sends again after 2 s.
const STRIKE_WITHIN: Duration = Duration::from_secs(5);

/// How long a fault by time waits for a request that it can hit. Without any, at night, it strikes all the same.
const REQUEST_WITHIN: Duration = Duration::from_secs(2);
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
    fn add(&mut self, action: FaultAction) {
        let cuts = &mut self.cuts;
        cuts.total += u64::from(matches!(action, FaultAction::CutLink(_)));
        *match action {
            FaultAction::KillServer => &mut self.server_killed,
            FaultAction::KillEdge => &mut self.edges_killed,
            FaultAction::CutLink(LinkFault::Delay) => &mut cuts.delay,
            FaultAction::CutLink(LinkFault::Stall) => &mut cuts.stall,
            FaultAction::CutLink(LinkFault::Reset) => &mut cuts.reset,
            FaultAction::CutLink(LinkFault::BlackHole) => &mut cuts.black_hole,
            FaultAction::CutLink(LinkFault::HalfOpen(_)) => &mut cuts.half_open,
            FaultAction::CutLink(LinkFault::Refuse) => &mut cuts.refused,
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

#[derive(Debug, Clone, Default)]
pub struct SharedFaultCounts(Arc<std::sync::Mutex<FaultCounts>>);

impl SharedFaultCounts {
    pub fn lock(&self) -> MutexGuard<'_, FaultCounts> {
        self.0.lock().expect("no thread panics while it holds this")
    }
}

#[derive(Debug, Clone, Copy)]
enum FaultMoment {
    AtEvent(u64),
    After(Duration),
}

pub struct Chaos {
    faults: Box<dyn Iterator<Item = (FaultMoment, Fault)> + Send>,
    gate: FaultGate,
    counts: SharedFaultCounts,
}

impl Chaos {
    /// The faults of a run with this speed, whose garages have these numbers of events. Also returns, for each garage, the pass
    /// that its producer needs.
    pub fn plan(
        seed: u64,
        speed: Option<f64>,
        shares: &[u64],
        counts: SharedFaultCounts,
    ) -> (Chaos, Vec<GatePass>) {
        if speed.is_some() {
            let (gate, passes) = gate::by_time(shares.len());
            let faults = faults_by_time(seed, shares.len());
            let faults = faults.map(|(waits, fault)| (FaultMoment::After(waits), fault));
            return (Chaos { faults: Box::new(faults), gate, counts }, passes);
        }
        let plan = FaultsByProgress::plan(seed, shares);
        let garages: Vec<usize> = plan.faults.iter().map(|(_, fault)| fault.garage).collect();
        let (gate, passes) = gate::by_progress(&garages, plan.quotas);
        counts.lock().planned = Some(plan.faults.len() as u64);
        let faults = plan.faults.into_iter().map(|(point, fault)| (FaultMoment::AtEvent(point), fault));
        (Chaos { faults: Box::new(faults), gate, counts }, passes)
    }

    /// Carries the plan out, until it ends or `over` comes. Then it waits until all daemons are up and every link works.
    ///
    /// If the future is dropped, daemons may stay dead and links cut. Each fault is written to `log` when it has struck.
    pub async fn run(self, fleet: Arc<Fleet>, mut log: FaultLog, over: CancellationToken) {
        let cuts = fleet.links.iter().map(|_| Arc::default()).collect();
        let mut run = ChaosRun { fleet, counts: self.counts, recoveries: JoinSet::new(), cuts };
        for (number, (moment, fault)) in self.faults.enumerate() {
            let trigger = async {
                run.victim_recovered(&fault).await;
                match moment {
                    FaultMoment::AtEvent(_) => self.gate.meet(number).await,
                    FaultMoment::After(pause) => {
                        tokio::time::sleep(pause).await;
                        let _ = timeout(REQUEST_WITHIN, self.gate.request_of(fault.garage)).await;
                    }
                }
            };
            tokio::select! {
                biased;
                () = over.cancelled() => break,
                () = trigger => {}
            }
            run.strike(&fault).await;
            log.note(&fault, moment);
            self.gate.open();
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
    pub fn begin(logs: &Path) -> io::Result<FaultLog> {
        Ok(FaultLog { begun: Instant::now(), file: File::create(logs.join("weather.log"))? })
    }

    /// Errors are ignored: a log that cannot be written does not end the chaos.
    fn note(&mut self, fault: &Fault, moment: FaultMoment) {
        let Fault { action, garage, delay, lasts } = fault;
        let seconds = self.begun.elapsed().as_secs_f64();
        let edge = format!("edge-{}", garage + 1);
        let what = match action {
            FaultAction::KillServer => "the server is killed".to_owned(),
            FaultAction::KillEdge => format!("{edge} is killed"),
            FaultAction::CutLink(cut) => format!("the link of {edge} is cut: {cut:?}"),
        };
        let at = match moment {
            FaultMoment::AtEvent(number) => format!(" at event {number}:"),
            FaultMoment::After(_) => String::new(),
        };
        let (delay, lasts) = (delay.as_secs_f64(), lasts.as_secs_f64());
        let _ = writeln!(
            self.file,
            "{seconds:9.3} s:{at} {what}, {delay:.6} s after a post to {edge}, for {lasts:.3} s"
        );
    }
}

struct ChaosRun {
    fleet: Arc<Fleet>,
    counts: SharedFaultCounts,
    recoveries: JoinSet<()>,
    /// For each link: locked while it is cut.
    cuts: Vec<Arc<Mutex<()>>>,
}

impl ChaosRun {
    /// Returns once the victim has recovered from earlier faults.
    async fn victim_recovered(&self, fault: &Fault) {
        match self.victim(fault) {
            Some(daemon) => daemon.up().await,
            None => drop(self.cuts[fault.garage].lock().await),
        }
    }

    /// The daemon that the fault kills, if it kills one.
    fn victim(&self, fault: &Fault) -> Option<Arc<DaemonSlot>> {
        match fault.action {
            FaultAction::KillServer => Some(self.fleet.server.clone()),
            FaultAction::KillEdge => Some(self.fleet.edges[fault.garage].clone()),
            FaultAction::CutLink(_) => None,
        }
    }

    /// Returns once the fault is in force. Not to be dropped before: a victim could stay dead.
    async fn strike(&mut self, fault: &Fault) {
        let Fault { action, garage, delay, lasts } = *fault;
        let link = self.fleet.links[garage].clone();
        // A fault that does not hit the request itself hits what it leads to.
        if action != FaultAction::KillEdge {
            let _ = timeout(STRIKE_WITHIN, link.carried()).await;
        }
        tokio::time::sleep(delay).await;
        if let FaultAction::CutLink(cut) = action {
            let locked = self.cuts[garage].clone().lock_owned().await;
            self.counts.lock().add(action);
            self.cut(link, cut, lasts, locked);
        } else if let Some(victim) = self.victim(fault)
            // Without effect if it had ended by itself.
            && let Some(killed) = victim.kill().await
        {
            self.counts.lock().add(action);
            self.recoveries.spawn(async move {
                tokio::time::sleep(lasts).await;
                victim.revive(killed).await;
            });
        }
    }

    /// Cuts a link, and heals it some time after the cut had an effect. `locked` is held until then.
    fn cut(&mut self, link: Arc<FaultProxy>, cut: LinkFault, lasts: Duration, locked: impl Send + 'static) {
        let number = link.set(cut);
        let counts = self.counts.clone();
        self.recoveries.spawn(async move {
            if timeout(EFFECT_WITHIN, link.affected(number)).await.is_ok() {
                counts.lock().cuts.met_traffic += 1;
            }
            tokio::time::sleep(lasts).await;
            link.heal();
            drop(locked);
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
            (0..=nth).for_each(|_| counts.add(FaultAction::CutLink(cut)));
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
