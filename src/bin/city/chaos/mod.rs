//! Bad weather: daemons are killed and links are cut while the cars drive, and the books must still be right.
//!
//! **Promise.** Each fault of the plan ([`faults`]) is carried out, in its order, one after the other: the next one comes
//! when this one is in force. What was killed is started again, what was cut heals, and all of that is over when
//! [`Weather::rage`] returns. Of a run by progress (`city --replay` without `--speed`), one seed and one list of events
//! give the same faults, victims, order, and numbers of events at which they strike; of any other run the same
//! faults, victims, order and waits, for as long as it is let.
//! **Kept by.** A gate ([`gate`]) between producers and faults: each fault strikes while a certain request is on its way.
//! **Not promised.** What is found on the way by the same fault in another run. That a cut meets something, when its
//! edge is dead or holds its events back by itself just then: after [`MEETS_WITHIN`] it heals without. The [`Toll`] tells how
//! many met something.
//!
//! Victims recover while the next faults come. A fault for a victim that still suffers from a former one waits for it.

pub mod faults;
pub mod gate;

use super::client::DaemonClient;
use super::fleet::{Berth, Fleet};
use faults::{Blow, ByProgress, ByTime, Fault};
use fogpost::fault_proxy::LinkFault;
use gate::{Gate, Pass};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, io};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a cut waits for something that it can spoil.
pub const MEETS_WITHIN: Duration = Duration::from_secs(10);

/// How long the server's death waits for events on their way to it, and a cut for anything on its link. An edge that was
/// cut off sends its next after 2 s.
const STRIKE_WITHIN: Duration = Duration::from_secs(5);

/// How long a fault by time waits for a request that it can meet.
const REQUEST_WITHIN: Duration = Duration::from_secs(2);

/// A counter that takes longer to read is lost.
const COUNT_WITHIN: Duration = Duration::from_secs(1);

/// What the weather has done so far.
#[derive(Debug, Default)]
pub struct Toll {
    edges: AtomicU64,
    server: AtomicU64,
    delays: AtomicU64,
    stalls: AtomicU64,
    resets: AtomicU64,
    black_holes: AtomicU64,
    half_open: AtomicU64,
    refusals: AtomicU64,
    met: AtomicU64,
    /// Requests of producers that brought no answer and were made again.
    pub repeated: AtomicU64,
}

impl Toll {
    fn cut(&self, cut: LinkFault) -> &AtomicU64 {
        match cut {
            LinkFault::Delay => &self.delays,
            LinkFault::Stall => &self.stalls,
            LinkFault::Reset => &self.resets,
            LinkFault::BlackHole => &self.black_holes,
            LinkFault::HalfOpen(_) => &self.half_open,
            LinkFault::Refuse => &self.refusals,
        }
    }

    pub fn count(&self) -> Count {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut cuts = Cuts {
            total: 0,
            met_traffic: read(&self.met),
            delay: read(&self.delays),
            stall: read(&self.stalls),
            reset: read(&self.resets),
            black_hole: read(&self.black_holes),
            half_open: read(&self.half_open),
            refused: read(&self.refusals),
        };
        cuts.total = cuts.delay + cuts.stall + cuts.reset + cuts.black_hole + cuts.half_open + cuts.refused;
        Count {
            planned: None,
            edges_killed: read(&self.edges),
            server_killed: read(&self.server),
            cuts,
            posts_repeated: read(&self.repeated),
        }
    }
}

/// Cuts of links, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cuts {
    pub total: u64,
    /// So many of them did something to a connection.
    pub met_traffic: u64,
    pub delay: u64,
    pub stall: u64,
    pub reset: u64,
    pub black_hole: u64,
    pub half_open: u64,
    pub refused: u64,
}

/// What the weather did in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many faults there were to be; `None` in a run by time.
    pub planned: Option<u64>,
    pub edges_killed: u64,
    pub server_killed: u64,
    pub cuts: Cuts,
    /// How often a post was made again, since it brought no answer or the edge refused it for now.
    pub posts_repeated: u64,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cuts { total, delay, stall, reset, black_hole, half_open, refused, .. } = self.cuts;
        write!(
            f,
            "{} edges and {} servers killed, {total} links cut ({delay} delayed, {stall} stalled, {reset} reset, \
             {black_hole} black holes, {half_open} half open, {refused} refused)",
            self.edges_killed, self.server_killed
        )
    }
}

/// The faults of one run.
#[derive(Debug)]
enum Plan {
    /// Each with the number of events at which it strikes.
    ByProgress(Vec<(u64, Fault)>),
    ByTime(Box<ByTime>),
}

/// The weather of one run, before it begins.
#[derive(Debug)]
pub struct Weather {
    plan: Plan,
    gate: Gate,
    toll: Arc<Toll>,
}

impl Weather {
    /// Faults for garages with so many events each; for each garage the pass that its producer needs.
    pub fn by_progress(seed: u64, shares: &[u64], toll: Arc<Toll>) -> (Weather, Vec<Pass>) {
        let plan = ByProgress::plan(seed, shares);
        let heralds: Vec<usize> = plan.faults.iter().map(|fault| fault.herald).collect();
        let (gate, passes) = gate::by_progress(&heralds, plan.quotas);
        let faults = plan.points.into_iter().zip(plan.faults).collect();
        (Weather { plan: Plan::ByProgress(faults), gate, toll }, passes)
    }

    /// Faults every few seconds, for as long as it is let.
    pub fn by_time(seed: u64, garages: usize, toll: Arc<Toll>) -> (Weather, Vec<Pass>) {
        let (gate, passes) = gate::by_time(garages);
        (Weather { plan: Plan::ByTime(Box::new(ByTime::plan(seed, garages))), gate, toll }, passes)
    }

    /// How many faults there will be, if that is known.
    pub fn planned(&self) -> Option<u64> {
        match &self.plan {
            Plan::ByProgress(faults) => Some(faults.len() as u64),
            Plan::ByTime(_) => None,
        }
    }

    /// Carries the plan out, until it ends or `over` comes. Then it waits until everyone is up and every link works.
    ///
    /// A daemon that does not come back, or had ended by itself, is told to the city as a death. If the future is
    /// dropped, daemons may stay dead and links cut.
    ///
    /// Each fault is written to `diary` when it has struck, for those who look for the reason of something.
    pub async fn rage(self, fleet: Arc<Fleet>, http: DaemonClient, diary: Diary, over: CancellationToken) {
        let links = fleet.links.iter().map(|_| Arc::default()).collect();
        let dense = matches!(self.plan, Plan::ByProgress(_));
        let recoveries = JoinSet::new();
        let mut storm = Storm { fleet, http, toll: self.toll, diary, recoveries, links, dense };
        match self.plan {
            Plan::ByProgress(faults) => {
                for (number, (point, fault)) in faults.iter().enumerate() {
                    let herald = self.gate.meet(number);
                    let Some(counted) = storm.await_moment(fault.blow, herald, &over).await else {
                        break;
                    };
                    storm.strike(fault, counted).await;
                    storm.diary.note(fault, Some(*point));
                    self.gate.open();
                }
            }
            Plan::ByTime(faults) => {
                for (wait, fault) in faults {
                    let pause = tokio::time::sleep(wait);
                    let herald = async {
                        pause.await;
                        // Without any request, in the small hours, it strikes all the same.
                        let _ = timeout(REQUEST_WITHIN, self.gate.request_of(fault.herald)).await;
                    };
                    let Some(counted) = storm.await_moment(fault.blow, herald, &over).await else {
                        break;
                    };
                    storm.strike(&fault, counted).await;
                    storm.diary.note(&fault, None);
                }
            }
        }
        while let Some(recovered) = storm.recoveries.join_next().await {
            recovered.expect("a recovery does not panic");
        }
    }
}

/// Where it is written which fault struck when.
#[derive(Debug)]
pub struct Diary {
    begun: Instant,
    file: File,
}

impl Diary {
    /// A new one in the folder of the logs.
    pub fn begin(logs: &Path) -> io::Result<Diary> {
        Ok(Diary { begun: Instant::now(), file: File::create(logs.join("weather.log"))? })
    }

    /// A diary that cannot be written is no reason to spare anybody.
    fn note(&mut self, fault: &Fault, point: Option<u64>) {
        let Fault { blow, herald, hesitation, lasts } = fault;
        let seconds = self.begun.elapsed().as_secs_f64();
        let whom = match blow {
            Blow::KillServer => "the server is killed".to_owned(),
            Blow::KillEdge(edge) => format!("edge-{} is killed", edge + 1),
            Blow::CutLink(link, cut) => format!("the link of edge-{} is cut: {cut}", link + 1),
        };
        let at = point.map_or_else(String::new, |point| format!(" at event {point}:"));
        let _ = writeln!(
            self.file,
            "{seconds:9.3} s:{at} {whom}, {:.6} s after a post to edge-{}, for {:.3} s",
            hesitation.as_secs_f64(),
            herald + 1,
            lasts.as_secs_f64()
        );
    }
}

/// The weather while it rages.
struct Storm {
    fleet: Arc<Fleet>,
    http: DaemonClient,
    toll: Arc<Toll>,
    diary: Diary,
    recoveries: JoinSet<()>,
    /// For each link: locked while it is cut.
    links: Vec<Arc<Mutex<()>>>,
    /// Whether so much goes on that the server's death can wait for a big delivery. Otherwise the herald's event will do,
    /// which leaves its edge as soon as it is on its disk.
    dense: bool,
}

impl Storm {
    /// Returns once the victim has recovered from former blows and the herald has come, with what the victim has counted
    /// in the life that is about to end. `None`: the weather is over.
    async fn await_moment(
        &self,
        blow: Blow,
        herald: impl Future<Output = ()>,
        over: &CancellationToken,
    ) -> Option<u64> {
        let moment = async {
            let counted = match blow {
                Blow::KillServer => self.duplicates_at_server().await,
                Blow::KillEdge(edge) => self.resends_of(&self.fleet.edges[edge]).await,
                Blow::CutLink(link, _) => {
                    drop(self.links[link].lock().await);
                    0
                }
            };
            herald.await;
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
        let garages = timeout(COUNT_WITHIN, self.http.garages(&self.fleet.server.http)).await;
        let garages = garages.ok().and_then(Result::ok).unwrap_or_default();
        garages.values().map(|garage| garage.duplicates_refused).sum()
    }

    async fn resends_of(&self, edge: &Berth) -> u64 {
        edge.up().await;
        let outbox = timeout(COUNT_WITHIN, self.http.outbox(&edge.http)).await;
        outbox.ok().and_then(Result::ok).map_or(0, |outbox| outbox.resends)
    }

    /// Returns once the fault is in force. Not to be dropped before: a victim could stay dead.
    async fn strike(&mut self, fault: &Fault, counted: u64) {
        // It must not strike where nothing goes on. The request that it came with soon leads to something.
        let _ = match fault.blow {
            Blow::KillServer if self.dense => timeout(STRIKE_WITHIN, self.fleet.deliveries.notified()).await,
            Blow::KillServer => timeout(STRIKE_WITHIN, self.fleet.links[fault.herald].carried()).await,
            Blow::CutLink(link, _) => timeout(STRIKE_WITHIN, self.fleet.links[link].carried()).await,
            Blow::KillEdge(_) => Ok(()), // The request itself is what it meets.
        };
        tokio::time::sleep(fault.hesitation).await;
        match fault.blow {
            Blow::KillServer => {
                if self.kill(|fleet| &fleet.server, counted, fault.lasts).await {
                    self.toll.server.fetch_add(1, Ordering::Relaxed);
                }
            }
            Blow::KillEdge(edge) => {
                if self.kill(move |fleet| &fleet.edges[edge], counted, fault.lasts).await {
                    self.toll.edges.fetch_add(1, Ordering::Relaxed);
                }
            }
            Blow::CutLink(link, cut) => {
                self.cut(link, cut, fault.lasts).await;
                self.toll.cut(cut).fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns whether it was killed: `false` if it had ended by itself, which the city is told.
    async fn kill(
        &mut self,
        whom: impl Fn(&Fleet) -> &Berth + Send + 'static,
        counted: u64,
        dead_for: Duration,
    ) -> bool {
        let victim = whom(&self.fleet);
        let vacancy = match victim.kill().await {
            Ok(vacancy) => vacancy,
            Err(error) => {
                victim.mourn(error);
                return false;
            }
        };
        victim.add_former_count(counted);
        let fleet = self.fleet.clone();
        self.recoveries.spawn(async move {
            tokio::time::sleep(dead_for).await;
            let victim = whom(&fleet);
            if let Err(error) = victim.revive(vacancy).await {
                victim.mourn(error);
            }
        });
        true
    }

    async fn cut(&mut self, link: usize, cut: LinkFault, lasts: Duration) {
        let turn = self.links[link].clone().lock_owned().await;
        let number = self.fleet.links[link].set(cut);
        let (fleet, toll) = (self.fleet.clone(), self.toll.clone());
        self.recoveries.spawn(async move {
            let link = &fleet.links[link];
            if timeout(MEETS_WITHIN, link.affected(number)).await.is_ok() {
                toll.met.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(lasts).await;
            link.heal();
            drop(turn);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_cut_is_counted_as_its_own_and_all_together() {
        let toll = Toll::default();
        for (nth, cut) in LinkFault::ALL.into_iter().enumerate() {
            toll.cut(cut).fetch_add(1 + nth as u64, Ordering::Relaxed);
        }
        let cuts = toll.count().cuts;
        assert_eq!((cuts.delay, cuts.stall, cuts.reset, cuts.black_hole), (1, 2, 3, 4));
        assert_eq!((cuts.half_open, cuts.refused, cuts.total), (5 + 6, 7, 28));
    }

    #[test]
    fn the_toll_is_told_in_one_line() {
        let toll = Toll::default();
        toll.edges.store(26, Ordering::Relaxed);
        toll.server.store(13, Ordering::Relaxed);
        toll.stalls.store(4, Ordering::Relaxed);
        let said = toll.count().to_string();
        assert!(
            said.starts_with("26 edges and 13 servers killed, 4 links cut (0 delayed, 4 stalled,"),
            "{said}"
        );
    }
}
