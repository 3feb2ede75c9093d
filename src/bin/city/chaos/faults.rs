//! Which fault comes when: values and arithmetic, without any clock.
//!
//! **Promise.** One seed and one list of shares give one plan by progress; one seed and one number of garages give one
//! plan by time. Of any five faults in a row that begin at a multiple of five, two kill edges, one kills the server and
//! two cut links, so that each part of a run has its share of each kind; each way to cut a link is used before any is
//! used again; garages take turns.
//! **Not promised.** What exactly a fault meets: the same plan finds other bytes on the way each time.

use fogpost::fault_proxy::LinkFault;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1};
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What is done to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    KillServer,
    /// The edge of this garage.
    KillEdge(usize),
    /// The link of this garage's edge.
    CutLink(usize, LinkFault),
}

/// One fault of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub blow: Blow,
    /// The garage whose producer the fault waits for: it strikes when this one sends a request.
    pub herald: usize,
    /// How long after the request left.
    pub hesitation: Duration,
    /// How long the victim is dead, or the link cut from the first thing on that it met.
    pub lasts: Duration,
}

/// How hard faults are.
#[derive(Debug)]
struct Climate {
    hesitation_us: RangeInclusive<u64>,
    dead_ms: RangeInclusive<u64>,
    cut_ms: RangeInclusive<u64>,
}

/// A run of seconds: faults are short, so that many have room.
const BRISK: Climate = Climate { hesitation_us: 0..=6_000, dead_ms: 0..=600, cut_ms: 200..=2_500 };

/// A run of hours: some cuts outlast the first resend times.
const LASTING: Climate = Climate { hesitation_us: 0..=6_000, dead_ms: 0..=4_000, cut_ms: 500..=9_000 };

#[derive(Debug, Clone, Copy)]
enum Kind {
    Edge,
    Server,
    Link,
}

/// Deals faults, one after another.
#[derive(Debug)]
struct Dealer {
    rng: ChaCha8Rng,
    climate: &'static Climate,
    kinds: Vec<Kind>,
    cuts: Vec<LinkFault>,
    /// Who was a victim longest ago is first.
    garages: VecDeque<usize>,
}

impl Dealer {
    fn new(seed: u64, garages: usize, climate: &'static Climate) -> Dealer {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Garages have the streams from 0 on, plates the last.
        rng.set_stream(u64::MAX - 1);
        let mut order: Vec<usize> = (0..garages).collect();
        order.shuffle(&mut rng);
        Dealer { rng, climate, kinds: Vec::new(), cuts: Vec::new(), garages: order.into() }
    }

    /// The next fault; its herald and victim is a garage that `has_traffic`. `None`: there is no such garage.
    fn deal(&mut self, has_traffic: impl Fn(usize) -> bool) -> Option<Fault> {
        let able: Vec<usize> =
            (0..self.garages.len()).filter(|place| has_traffic(self.garages[*place])).collect();
        if able.is_empty() {
            return None;
        }
        // Any of those whose turn is near, so that the order is not the same in every round.
        let place = able[self.rng.random_range(0..able.len().div_ceil(2))];
        let herald = self.garages.remove(place).expect("it was just found");
        self.garages.push_back(herald);
        if self.kinds.is_empty() {
            self.kinds = vec![Kind::Edge, Kind::Edge, Kind::Server, Kind::Link, Kind::Link];
            self.kinds.shuffle(&mut self.rng);
        }
        let kind = self.kinds.pop().expect("the deck was just filled");
        let blow = match kind {
            Kind::Edge => Blow::KillEdge(herald),
            Kind::Server => Blow::KillServer,
            Kind::Link => {
                if self.cuts.is_empty() {
                    self.cuts = LinkFault::ALL.to_vec();
                    self.cuts.shuffle(&mut self.rng);
                }
                Blow::CutLink(herald, self.cuts.pop().expect("the deck was just filled"))
            }
        };
        let hesitation = Duration::from_micros(self.rng.random_range(self.climate.hesitation_us.clone()));
        let lasts_ms = match kind {
            Kind::Link => self.climate.cut_ms.clone(),
            Kind::Edge | Kind::Server => self.climate.dead_ms.clone(),
        };
        let lasts = Duration::from_millis(self.rng.random_range(lasts_ms));
        Some(Fault { blow, herald, hesitation, lasts })
    }
}

/// A fault for each so many events; not fewer or more than this.
const EVENTS_FOR_EACH: u64 = 3_000;
const FEWEST: u64 = 20;
const MOST: u64 = 200;

/// Faults of a run whose events are counted beforehand.
///
/// The run is cut into stages of about the same number of events, one for each fault and a last one. In each stage
/// each garage has the same part of its own events as all have of theirs. A fault strikes while its herald offers its
/// last events of the stage, and the next stage begins when it has struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByProgress {
    pub faults: Vec<Fault>,
    /// Of all garages together: how many events there are when each fault strikes.
    pub points: Vec<u64>,
    /// For each garage: how many events it may have offered at the end of each stage.
    pub quotas: Vec<Vec<u64>>,
}

impl ByProgress {
    /// Plans for garages that have so many events each.
    pub fn plan(seed: u64, shares: &[u64]) -> ByProgress {
        let total: u64 = shares.iter().sum();
        // A whole number of decks, so that each kind has exactly its share.
        let wanted = ((total / EVENTS_FOR_EACH).clamp(FEWEST, MOST) / 5 * 5).min(total);
        let mut dealer = Dealer::new(seed, shares.len(), &BRISK);
        let mut plan = ByProgress { faults: Vec::new(), points: Vec::new(), quotas: Vec::new() };
        plan.quotas = vec![Vec::new(); shares.len()];
        // What remains of a division falls to the garages at different points, so that of many with one event each not
        // all are to wait for the last stage.
        let share_until = |garage: usize, point: u64| {
            let (total, garages) = (u128::from(total), shares.len() as u128);
            let head_start = total * (2 * garage as u128 + 1) / (2 * garages);
            ((u128::from(shares[garage]) * u128::from(point) + head_start) / total) as u64
        };
        let mut former_point = 0;
        for nth in 0..wanted {
            let jitter = dealer.rng.random_range(0.1..0.9);
            let point = (total as f64 * (nth as f64 + jitter) / wanted as f64).ceil() as u64;
            let has_traffic = |garage| share_until(garage, point) > share_until(garage, former_point);
            let Some(fault) = dealer.deal(has_traffic) else {
                continue; // So few events that nobody has one between these points.
            };
            plan.faults.push(fault);
            plan.points.push(point);
            for (garage, quotas) in plan.quotas.iter_mut().enumerate() {
                quotas.push(share_until(garage, point));
            }
            former_point = point;
        }
        for (quotas, share) in plan.quotas.iter_mut().zip(shares) {
            quotas.push(*share);
        }
        plan
    }
}

/// How long a run by time waits after a fault, on average, before it looks for the moment to strike again: its herald's
/// next request.
const BETWEEN_FAULTS: Duration = Duration::from_secs(3);

/// Faults of a run that goes on as long as it is let: each with the time to wait after the former has struck.
#[derive(Debug)]
pub struct ByTime(Dealer);

impl ByTime {
    pub fn plan(seed: u64, garages: usize) -> ByTime {
        ByTime(Dealer::new(seed, garages, &LASTING))
    }
}

impl Iterator for ByTime {
    type Item = (Duration, Fault);

    fn next(&mut self) -> Option<(Duration, Fault)> {
        let waits: f64 = Exp1.sample(&mut self.0.rng);
        let fault = self.0.deal(|_| true)?;
        Some((BETWEEN_FAULTS.mul_f64(waits), fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 30 garages, as different as those of Birmingham; 200,000 events.
    fn shares() -> Vec<u64> {
        let mut shares: Vec<u64> = (0..30).map(|garage| 500 + garage * 420).collect();
        let rest: u64 = 200_000 - shares.iter().sum::<u64>();
        shares[29] += rest;
        shares
    }

    fn kills_and_cuts(faults: &[Fault]) -> (usize, usize, usize) {
        let count = |of: fn(&Blow) -> bool| faults.iter().filter(|fault| of(&fault.blow)).count();
        (
            count(|blow| matches!(blow, Blow::KillEdge(_))),
            count(|blow| *blow == Blow::KillServer),
            count(|blow| matches!(blow, Blow::CutLink(..))),
        )
    }

    #[test]
    fn one_seed_gives_one_plan_and_another_seed_another() {
        assert_eq!(ByProgress::plan(7, &shares()), ByProgress::plan(7, &shares()));
        assert_ne!(ByProgress::plan(7, &shares()).faults, ByProgress::plan(8, &shares()).faults);
        let by_time = |seed| ByTime::plan(seed, 5).take(300).collect::<Vec<_>>();
        assert_eq!(by_time(7), by_time(7));
        assert_ne!(by_time(7), by_time(8));
    }

    #[test]
    fn the_replay_of_the_contract_has_as_many_faults_as_it_asks_for() {
        for seed in 0..100 {
            let (edges, server, cuts) = kills_and_cuts(&ByProgress::plan(seed, &shares()).faults);
            assert!(edges >= 20 && server >= 10 && cuts >= 20, "{edges} {server} {cuts}");
        }
    }

    #[test]
    fn each_fifth_of_a_run_has_its_share_of_each_kind() {
        for seed in 0..100 {
            let plan = ByProgress::plan(seed, &shares());
            assert!(plan.points.is_sorted());
            for fifth in 0..5 {
                let inside = |point: u64| (fifth * 40_000..(fifth + 1) * 40_000).contains(&point);
                let faults: Vec<Fault> = plan
                    .faults
                    .iter()
                    .zip(&plan.points)
                    .filter(|(_, point)| inside(**point))
                    .map(|(fault, _)| *fault)
                    .collect();
                let (edges, server, cuts) = kills_and_cuts(&faults);
                assert!(edges >= 3 && server >= 1 && cuts >= 3, "{seed} {fifth}: {edges} {server} {cuts}");
            }
        }
    }

    #[test]
    fn a_fault_by_progress_always_finds_its_herald_with_events_to_offer() {
        for (seed, shares) in [
            (1, shares()),
            (2, vec![1, 0, 3]),
            (3, vec![20_000]),
            (4, vec![0, 7]),
            (5, vec![1; 30]),
            (6, vec![1]),
        ] {
            let plan = ByProgress::plan(seed, &shares);
            assert!(!plan.faults.is_empty());
            for (stage, fault) in plan.faults.iter().enumerate() {
                let quotas = &plan.quotas[fault.herald];
                let before = stage.checked_sub(1).map_or(0, |former| quotas[former]);
                assert!(quotas[stage] > before, "{shares:?}, fault {stage}");
            }
            for (quotas, share) in plan.quotas.iter().zip(&shares) {
                assert!(quotas.is_sorted() && quotas.len() == plan.faults.len() + 1);
                assert_eq!(quotas.last(), Some(share));
            }
        }
    }

    #[test]
    fn nothing_to_replay_has_no_faults() {
        assert_eq!(ByProgress::plan(1, &[0, 0]).faults, []);
    }

    #[test]
    fn each_way_to_cut_a_link_and_each_garage_has_its_turn() {
        let faults: Vec<Fault> = ByTime::plan(3, 5).map(|(_, fault)| fault).take(350).collect();
        let cuts: Vec<(usize, LinkFault)> = faults
            .iter()
            .filter_map(|fault| match fault.blow {
                Blow::CutLink(garage, cut) => Some((garage, cut)),
                _ => None,
            })
            .collect();
        assert_eq!(cuts.len(), 140);
        for kind in LinkFault::ALL {
            assert_eq!(cuts.iter().filter(|(_, cut)| *cut == kind).count(), 20, "{kind:?}");
        }
        for garage in 0..5 {
            assert!(cuts.iter().filter(|(victim, _)| *victim == garage).count() > 10);
        }
    }

    #[test]
    fn a_live_city_has_a_fault_every_few_seconds() {
        let waits: Duration = ByTime::plan(1, 5).take(1_000).map(|(waits, _)| waits).sum();
        assert!((2_700..3_300).contains(&waits.as_secs()), "{waits:?} for 1,000 faults");
    }
}
