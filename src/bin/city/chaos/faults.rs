//! Decides which fault comes when, from values alone; it reads no clock.
//!
//! **Promise.** One seed and one list of shares give one plan by progress; one seed and one number of garages give one plan by
//! time. Of any five faults in a row that begin at a multiple of five, two kill edges, one kills the server and two cut links,
//! so that each part of a run has its share of each kind. Each way to cut a link is used before any is used again. Garages
//! take turns.
//! **Not promised.** What exactly a fault hits: the same plan finds other bytes on the way each time.

use fogpost::fault_proxy::LinkFault;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1};
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultAction {
    KillServer,
    /// The edge of this garage.
    KillEdge(usize),
    /// The link of this garage's edge.
    CutLink(usize, LinkFault),
}

/// One fault of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub action: FaultAction,
    /// The garage that triggers it: the fault strikes when the producer of this garage makes a request.
    pub trigger: usize,
    /// How long after the request was made.
    pub delay: Duration,
    /// How long the victim is dead, or the link is cut after the cut first had an effect.
    pub lasts: Duration,
}

/// How late faults strike, and how long they last.
#[derive(Debug)]
struct FaultTimes {
    delay_us: RangeInclusive<u64>,
    dead_ms: RangeInclusive<u64>,
    cut_ms: RangeInclusive<u64>,
}

/// For a run of seconds: faults are short, so that there is time for many.
const SHORT: FaultTimes = FaultTimes { delay_us: 0..=6_000, dead_ms: 0..=600, cut_ms: 200..=2_500 };

/// For a run of hours: some cuts outlast the first resend times.
const LONG: FaultTimes = FaultTimes { delay_us: 0..=6_000, dead_ms: 0..=4_000, cut_ms: 500..=9_000 };

/// The kind of a fault, as a card of a deck.
#[derive(Debug, Clone, Copy)]
enum FaultCard {
    Edge,
    Server,
    Link,
}

/// Deals faults, one after another.
#[derive(Debug)]
struct FaultDealer {
    rng: ChaCha8Rng,
    times: &'static FaultTimes,
    kinds: Vec<FaultCard>,
    cuts: Vec<LinkFault>,
    /// The garage that was a victim longest ago is first.
    garages: VecDeque<usize>,
}

impl FaultDealer {
    fn new(seed: u64, garages: usize, times: &'static FaultTimes) -> FaultDealer {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Garages have the streams from 0 on, plates the last.
        rng.set_stream(u64::MAX - 1);
        let mut order: Vec<usize> = (0..garages).collect();
        order.shuffle(&mut rng);
        FaultDealer { rng, times, kinds: Vec::new(), cuts: Vec::new(), garages: order.into() }
    }

    /// The next fault; its trigger and victim is a garage that `has_traffic`. `None`: there is no such garage.
    fn deal(&mut self, has_traffic: impl Fn(usize) -> bool) -> Option<Fault> {
        let able: Vec<usize> =
            (0..self.garages.len()).filter(|place| has_traffic(self.garages[*place])).collect();
        if able.is_empty() {
            return None;
        }
        // Any of those whose turn is near, so that the order is not the same in every round.
        let place = able[self.rng.random_range(0..able.len().div_ceil(2))];
        let trigger = self.garages.remove(place).expect("it was just found");
        self.garages.push_back(trigger);
        if self.kinds.is_empty() {
            self.kinds =
                vec![FaultCard::Edge, FaultCard::Edge, FaultCard::Server, FaultCard::Link, FaultCard::Link];
            self.kinds.shuffle(&mut self.rng);
        }
        let kind = self.kinds.pop().expect("the deck was just filled");
        let action = match kind {
            FaultCard::Edge => FaultAction::KillEdge(trigger),
            FaultCard::Server => FaultAction::KillServer,
            FaultCard::Link => {
                if self.cuts.is_empty() {
                    self.cuts = LinkFault::ALL.to_vec();
                    self.cuts.shuffle(&mut self.rng);
                }
                FaultAction::CutLink(trigger, self.cuts.pop().expect("the deck was just filled"))
            }
        };
        let delay = Duration::from_micros(self.rng.random_range(self.times.delay_us.clone()));
        let lasts_ms = match kind {
            FaultCard::Link => self.times.cut_ms.clone(),
            FaultCard::Edge | FaultCard::Server => self.times.dead_ms.clone(),
        };
        let lasts = Duration::from_millis(self.rng.random_range(lasts_ms));
        Some(Fault { action, trigger, delay, lasts })
    }
}

/// A run by progress has a fault for this number of events, but at least and at most these numbers of faults.
const EVENTS_PER_FAULT: u64 = 3_000;
const MIN_FAULTS: u64 = 20;
const MAX_FAULTS: u64 = 200;

/// Faults of a run whose events are counted beforehand.
///
/// The run is cut into stages of about the same number of events, one for each fault and a last one. In each stage each
/// garage has the same part of its own events as all have of theirs. A fault strikes while its trigger garage posts its last
/// events of the stage, and the next stage begins when it has struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultsByProgress {
    pub faults: Vec<Fault>,
    /// Of all garages together: how many events there are when each fault strikes.
    pub points: Vec<u64>,
    /// For each garage: how many events it may have posted at the end of each stage.
    pub quotas: Vec<Vec<u64>>,
}

impl FaultsByProgress {
    /// Plans for garages that have these numbers of events.
    pub fn plan(seed: u64, shares: &[u64]) -> FaultsByProgress {
        let total: u64 = shares.iter().sum();
        // A whole number of decks, so that each kind has exactly its share.
        let wanted = ((total / EVENTS_PER_FAULT).clamp(MIN_FAULTS, MAX_FAULTS) / 5 * 5).min(total);
        let mut dealer = FaultDealer::new(seed, shares.len(), &SHORT);
        let mut plan = FaultsByProgress { faults: Vec::new(), points: Vec::new(), quotas: Vec::new() };
        plan.quotas = vec![Vec::new(); shares.len()];
        // What remains of a division falls to the garages at different points, so that of many with one event each not
        // all are to wait for the last stage.
        let share_until = |garage: usize, point: u64| {
            let (total, garages) = (u128::from(total), shares.len() as u128);
            let head_start = total * (2 * garage as u128 + 1) / (2 * garages);
            ((u128::from(shares[garage]) * u128::from(point) + head_start) / total) as u64
        };
        let mut previous_point = 0;
        for nth in 0..wanted {
            let jitter = dealer.rng.random_range(0.1..0.9);
            let point = (total as f64 * (nth as f64 + jitter) / wanted as f64).ceil() as u64;
            let has_traffic = |garage| share_until(garage, point) > share_until(garage, previous_point);
            let Some(fault) = dealer.deal(has_traffic) else {
                continue; // So few events that nobody has one between these points.
            };
            plan.faults.push(fault);
            plan.points.push(point);
            for (garage, quotas) in plan.quotas.iter_mut().enumerate() {
                quotas.push(share_until(garage, point));
            }
            previous_point = point;
        }
        for (quotas, share) in plan.quotas.iter_mut().zip(shares) {
            quotas.push(*share);
        }
        plan
    }
}

/// How long a run by time waits on average after a fault. The next one strikes at the next request of its trigger garage.
const BETWEEN_FAULTS: Duration = Duration::from_secs(3);

/// Faults without an end, each with the time to wait after the previous one has struck.
#[derive(Debug)]
pub struct FaultsByTime(FaultDealer);

impl FaultsByTime {
    pub fn plan(seed: u64, garages: usize) -> FaultsByTime {
        FaultsByTime(FaultDealer::new(seed, garages, &LONG))
    }
}

impl Iterator for FaultsByTime {
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
        let count = |of: fn(&FaultAction) -> bool| faults.iter().filter(|fault| of(&fault.action)).count();
        (
            count(|action| matches!(action, FaultAction::KillEdge(_))),
            count(|action| *action == FaultAction::KillServer),
            count(|action| matches!(action, FaultAction::CutLink(..))),
        )
    }

    #[test]
    fn one_seed_gives_one_plan_and_another_seed_another() {
        assert_eq!(FaultsByProgress::plan(7, &shares()), FaultsByProgress::plan(7, &shares()));
        assert_ne!(FaultsByProgress::plan(7, &shares()).faults, FaultsByProgress::plan(8, &shares()).faults);
        let by_time = |seed| FaultsByTime::plan(seed, 5).take(300).collect::<Vec<_>>();
        assert_eq!(by_time(7), by_time(7));
        assert_ne!(by_time(7), by_time(8));
    }

    #[test]
    fn the_replay_of_the_contract_has_as_many_faults_as_it_asks_for() {
        for seed in 0..100 {
            let (edges, server, cuts) = kills_and_cuts(&FaultsByProgress::plan(seed, &shares()).faults);
            assert!(edges >= 20 && server >= 10 && cuts >= 20, "{edges} {server} {cuts}");
        }
    }

    #[test]
    fn each_fifth_of_a_run_has_its_share_of_each_kind() {
        for seed in 0..100 {
            let plan = FaultsByProgress::plan(seed, &shares());
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
    fn a_fault_by_progress_always_finds_its_trigger_with_events_to_post() {
        for (seed, shares) in [
            (1, shares()),
            (2, vec![1, 0, 3]),
            (3, vec![20_000]),
            (4, vec![0, 7]),
            (5, vec![1; 30]),
            (6, vec![1]),
        ] {
            let plan = FaultsByProgress::plan(seed, &shares);
            assert!(!plan.faults.is_empty());
            for (stage, fault) in plan.faults.iter().enumerate() {
                let quotas = &plan.quotas[fault.trigger];
                let before = stage.checked_sub(1).map_or(0, |previous| quotas[previous]);
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
        assert_eq!(FaultsByProgress::plan(1, &[0, 0]).faults, []);
    }

    #[test]
    fn each_way_to_cut_a_link_and_each_garage_has_its_turn() {
        let faults: Vec<Fault> = FaultsByTime::plan(3, 5).map(|(_, fault)| fault).take(350).collect();
        let cuts: Vec<(usize, LinkFault)> = faults
            .iter()
            .filter_map(|fault| match fault.action {
                FaultAction::CutLink(garage, cut) => Some((garage, cut)),
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
        let waits: Duration = FaultsByTime::plan(1, 5).take(1_000).map(|(waits, _)| waits).sum();
        assert!((2_700..3_300).contains(&waits.as_secs()), "{waits:?} for 1,000 faults");
    }
}
