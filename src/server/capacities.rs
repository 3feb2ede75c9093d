//! The capacities that edges report, on their way into the ledger.
//!
//! **Promise.** The capacity that an edge reported last is recorded in the ledger once events of its garage were applied, at
//! most once in [`RECORD_EVERY`] for each garage. A garage that delivers no events leaves no record.
//! **Kept by.** A capacity that is reported sooner waits, and one that is reported after it replaces it. A first capacity goes
//! into the commit of the garage's first events, so that no board shows the garage without its capacity.

use crate::messaging::SiteName;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Minimum time between two records of a garage's capacity.
pub const RECORD_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Capacities {
    /// The capacity that the ledger has, and when this process recorded it; `None`: an earlier process did.
    recorded: BTreeMap<SiteName, (u32, Option<Instant>)>,
    /// The capacity that was reported last and is not recorded.
    waiting: BTreeMap<SiteName, u32>,
}

impl Capacities {
    pub fn of_ledger(recorded: impl IntoIterator<Item = (SiteName, u32)>) -> Capacities {
        let recorded = recorded.into_iter().map(|(site, capacity)| (site, (capacity, None)));
        Capacities { recorded: recorded.collect(), waiting: BTreeMap::new() }
    }

    /// Whether a capacity of this garage stands in the ledger, so that events of it were applied.
    pub fn knows(&self, site: &SiteName) -> bool {
        self.recorded.contains_key(site)
    }

    /// The edge of a garage whose events were applied reports its capacity.
    pub fn told(&mut self, site: &SiteName, capacity: u32) {
        match self.recorded.get(site) {
            Some((known, _)) if *known == capacity => {
                self.waiting.remove(site);
            }
            _ => {
                self.waiting.insert(site.clone(), capacity);
            }
        }
    }

    /// Two edges send under this name, and may report two capacities by turns: nothing is recorded until only one sends.
    pub fn is_in_doubt(&mut self, site: &SiteName) {
        self.waiting.remove(site);
    }

    pub fn due(&self, now: Instant) -> Vec<(SiteName, u32)> {
        let due = self.waiting.iter().filter(|(site, _)| self.due_at(site).is_none_or(|at| at <= now));
        due.map(|(site, capacity)| (site.clone(), *capacity)).collect()
    }

    /// When the next capacity that waits is to be recorded; `None` when none waits.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        self.waiting.keys().map(|site| self.due_at(site).unwrap_or(now)).min()
    }

    pub fn are_recorded(&mut self, recorded: Vec<(SiteName, u32)>, now: Instant) {
        for (site, capacity) in recorded {
            self.waiting.remove(&site);
            self.recorded.insert(site, (capacity, Some(now)));
        }
    }

    /// When a garage's capacity may be recorded again; `None`: at once.
    fn due_at(&self, site: &SiteName) -> Option<Instant> {
        let (_, at) = self.recorded.get(site)?;
        at.map(|at| at + RECORD_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(n: u32) -> SiteName {
        SiteName::new(&format!("garage {n}")).unwrap()
    }

    /// Records what is due.
    fn record(capacities: &mut Capacities, now: Instant) -> Vec<u32> {
        let due = capacities.due(now);
        capacities.are_recorded(due.clone(), now);
        due.into_iter().map(|(_, capacity)| capacity).collect()
    }

    /// Each change wrote a record and flushed: an edge that reported two capacities alternately filled the ledger.
    #[test]
    fn a_capacity_that_changes_all_the_time_is_recorded_once_a_minute_as_it_was_told_last() {
        let began = Instant::now();
        let mut capacities = Capacities::default();
        let mut recorded = Vec::new();
        for second in 0..600 {
            capacities.told(&site(1), second);
            recorded.extend(record(&mut capacities, began + Duration::from_secs(second.into())));
        }
        assert_eq!(recorded, (0..10).map(|minute| minute * 60).collect::<Vec<u32>>());
        let last = began + Duration::from_secs(540);
        assert_eq!(capacities.next_due(last), Some(last + RECORD_EVERY));
        assert_eq!(record(&mut capacities, last + RECORD_EVERY), [599], "though it tells nothing any more");
        assert_eq!(capacities.next_due(last + RECORD_EVERY), None);
    }

    #[test]
    fn what_was_told_and_taken_back_meanwhile_is_not_recorded() {
        let began = Instant::now();
        let mut capacities = Capacities::of_ledger([(site(1), 7)]);
        capacities.told(&site(1), 7);
        assert_eq!(record(&mut capacities, began), [] as [u32; 0]);
        capacities.told(&site(1), 8);
        assert_eq!(record(&mut capacities, began), [8], "another process recorded the one before");
        capacities.told(&site(1), 9);
        capacities.told(&site(1), 8);
        assert_eq!(record(&mut capacities, began + RECORD_EVERY), [] as [u32; 0]);
    }

    /// After 10,000 names the capacity of a new garage was never recorded, and nothing reported it.
    #[test]
    fn however_many_garages_there_are_the_capacity_of_each_is_recorded() {
        let now = Instant::now();
        let mut capacities = Capacities::default();
        (0..20_000).for_each(|n| capacities.told(&site(n), n));
        let mut recorded = record(&mut capacities, now);
        recorded.sort_unstable();
        assert_eq!(recorded, (0..20_000).collect::<Vec<u32>>());
        assert_eq!(capacities.due(now + RECORD_EVERY), []);
    }
}
