//! Decides which fault comes when, from values alone; it reads no clock.
//!
//! **Promise.** One seed and one list of garages give one plan. Of any five faults in a row that begin at a multiple of five, two
//! kill edges, one kills the server and two cut links. Each way to cut a link is used before any is used again. Garages take
//! turns.

use fogpost::fault_proxy::LinkFault;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1};
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultAction {
    KillServer,
    KillEdge,
    CutLink(LinkFault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub action: FaultAction,
    /// The garage that triggers it, and whose edge or link is the victim: the fault strikes when the producer of this garage
    /// makes a request.
    pub garage: usize,
    pub delay: Duration,
    /// How long the victim is dead, or the link is cut after the cut first had an effect.
    pub lasts: Duration,
}

/// How late faults strike, and how long they last. Some cuts outlast the first resend times.
const DELAY_US: RangeInclusive<u64> = 0..=6_000;
const DEAD_MS: RangeInclusive<u64> = 0..=1_500;
const CUT_MS: RangeInclusive<u64> = 200..=4_000;

#[derive(Debug)]
struct FaultDealer {
    rng: ChaCha8Rng,
    deck: Vec<FaultAction>,
    cuts: Vec<LinkFault>,
    /// The garage that was a victim longest ago is first.
    garages: VecDeque<usize>,
}

impl FaultDealer {
    fn new(seed: u64, garages: usize) -> FaultDealer {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Garages have the streams from 0 on, plates the last.
        rng.set_stream(u64::MAX - 1);
        let mut order: Vec<usize> = (0..garages).collect();
        order.shuffle(&mut rng);
        FaultDealer { rng, deck: Vec::new(), cuts: Vec::new(), garages: order.into() }
    }

    /// The next fault, for a garage that `has_traffic`. `None`: there is no such garage.
    fn deal(&mut self, has_traffic: impl Fn(usize) -> bool) -> Option<Fault> {
        let able: Vec<usize> =
            (0..self.garages.len()).filter(|place| has_traffic(self.garages[*place])).collect();
        if able.is_empty() {
            return None;
        }
        // Any of those whose turn is near, so that the order is not the same in every round.
        let place = able[self.rng.random_range(0..able.len().div_ceil(2))];
        let garage = self.garages.remove(place).expect("it was just found");
        self.garages.push_back(garage);
        if self.deck.is_empty() {
            let [first_cut, second_cut] = [(); 2].map(|()| FaultAction::CutLink(self.next_cut()));
            let (edge, server) = (FaultAction::KillEdge, FaultAction::KillServer);
            self.deck = vec![edge, edge, server, first_cut, second_cut];
            self.deck.shuffle(&mut self.rng);
        }
        let action = self.deck.pop().expect("the deck was just filled");
        let delay = Duration::from_micros(self.rng.random_range(DELAY_US));
        let lasts_ms = match action {
            FaultAction::CutLink(_) => CUT_MS,
            FaultAction::KillServer | FaultAction::KillEdge => DEAD_MS,
        };
        let lasts = Duration::from_millis(self.rng.random_range(lasts_ms));
        Some(Fault { action, garage, delay, lasts })
    }

    fn next_cut(&mut self) -> LinkFault {
        if self.cuts.is_empty() {
            self.cuts = LinkFault::ALL.to_vec();
            self.cuts.shuffle(&mut self.rng);
        }
        self.cuts.pop().expect("the deck was just filled")
    }
}

/// A run by progress has a fault for this number of events, but at least and at most these numbers of faults.
const EVENTS_PER_FAULT: u64 = 3_000;
const MIN_FAULTS: u64 = 20;
const MAX_FAULTS: u64 = 200;

/// Faults of a run whose events are counted beforehand.
///
/// The run is cut into stages of about the same number of events, one for each fault and a last one. In each stage each
/// garage has the same part of its own events as all have of theirs. A fault strikes while its garage posts its last
/// events of the stage, and the next stage begins when it has struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultsByProgress {
    /// Each fault with the number of events, of all garages together, at which it strikes.
    pub faults: Vec<(u64, Fault)>,
    /// For each garage: how many events it may have posted at the end of each stage.
    pub quotas: Vec<Vec<u64>>,
}

impl FaultsByProgress {
    /// Plans for garages that have these numbers of events.
    pub fn plan(seed: u64, shares: &[u64]) -> FaultsByProgress {
        let total: u64 = shares.iter().sum();
        // A whole number of decks, so that each kind has exactly its share.
        let wanted = ((total / EVENTS_PER_FAULT).clamp(MIN_FAULTS, MAX_FAULTS) / 5 * 5).min(total);
        let mut dealer = FaultDealer::new(seed, shares.len());
        let mut plan = FaultsByProgress { faults: Vec::new(), quotas: vec![Vec::new(); shares.len()] };
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
            plan.faults.push((point, fault));
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

/// How long a run by time waits on average after a fault. The next one strikes at the next request of its garage.
const BETWEEN_FAULTS: Duration = Duration::from_secs(3);

/// Faults without an end, each with the time to wait after the previous one has struck.
pub fn faults_by_time(seed: u64, garages: usize) -> impl Iterator<Item = (Duration, Fault)> {
    let mut dealer = FaultDealer::new(seed, garages);
    std::iter::from_fn(move || {
        let waits: f64 = Exp1.sample(&mut dealer.rng);
        Some((BETWEEN_FAULTS.mul_f64(waits), dealer.deal(|_| true)?))
    })
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

    fn faults_of(plan: &FaultsByProgress) -> Vec<Fault> {
        plan.faults.iter().map(|(_, fault)| *fault).collect()
    }

    fn kills_and_cuts(faults: &[Fault]) -> (usize, usize, usize) {
        let count = |of: fn(&FaultAction) -> bool| faults.iter().filter(|fault| of(&fault.action)).count();
        (
            count(|action| matches!(action, FaultAction::KillEdge)),
            count(|action| *action == FaultAction::KillServer),
            count(|action| matches!(action, FaultAction::CutLink(..))),
        )
    }

    #[test]
    fn one_seed_gives_one_plan_and_another_seed_another() {
        assert_eq!(FaultsByProgress::plan(7, &shares()), FaultsByProgress::plan(7, &shares()));
        assert_ne!(FaultsByProgress::plan(7, &shares()).faults, FaultsByProgress::plan(8, &shares()).faults);
        let by_time = |seed| faults_by_time(seed, 5).take(300).collect::<Vec<_>>();
        assert_eq!(by_time(7), by_time(7));
        assert_ne!(by_time(7), by_time(8));
    }

    #[test]
    fn the_replay_of_the_contract_has_as_many_faults_as_it_asks_for() {
        for seed in 0..100 {
            let (edges, server, cuts) = kills_and_cuts(&faults_of(&FaultsByProgress::plan(seed, &shares())));
            assert!(edges >= 20 && server >= 10 && cuts >= 20, "{edges} {server} {cuts}");
        }
    }

    #[test]
    fn each_fifth_of_a_run_has_its_share_of_each_kind() {
        for seed in 0..100 {
            let plan = FaultsByProgress::plan(seed, &shares());
            assert!(plan.faults.is_sorted_by_key(|(point, _)| *point));
            for fifth in 0..5 {
                let inside = |point: u64| (fifth * 40_000..(fifth + 1) * 40_000).contains(&point);
                let inside = plan.faults.iter().filter(|(point, _)| inside(*point));
                let faults: Vec<Fault> = inside.map(|(_, fault)| *fault).collect();
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
            for (stage, (_, fault)) in plan.faults.iter().enumerate() {
                let quotas = &plan.quotas[fault.garage];
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
        let faults: Vec<Fault> = faults_by_time(3, 5).map(|(_, fault)| fault).take(350).collect();
        let cuts: Vec<(usize, LinkFault)> = faults
            .iter()
            .filter_map(|fault| match fault.action {
                FaultAction::CutLink(cut) => Some((fault.garage, cut)),
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
        let waits: Duration = faults_by_time(1, 5).take(1_000).map(|(waits, _)| waits).sum();
        assert!((2_700..3_300).contains(&waits.as_secs()), "{waits:?} for 1,000 faults");
    }
}
