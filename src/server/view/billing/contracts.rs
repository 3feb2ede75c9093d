//! Decides which stays have a place of their contract, again whenever a stay of one of its cars changes.
//!
//! A change reaches as far as the places that it holds or frees, and those whose decision changes with it: at most 30 days behind
//! the last of them. So a late stay costs what its contract's cars did around that time, however long the history is.

use super::super::pages::StoredPassage;
use super::changes::BillingChanges;
use super::draft::{LONGEST_MS, is_billable};
use super::forgetting::forgotten_cars;
use super::histories::{ALL_TIMES, PastStay, PastStayKey};
use super::places::{ContractStay, HELD_MS, Holding, Place, decide};
use super::rules::Decided;
use super::totals::Sign;
use super::{BilledVisit, Billing, ShownBooks};
use crate::parking::Plate;
use crate::parking::register::{ContractName, PlateEntry};
use crate::parking::stay::{End, Visit};
use crate::server::ledger::Ledger;
use crate::store::StoreError;
use std::collections::BTreeSet;
use std::ops::Range;

/// A stay of a contract, with what is needed to change its place.
#[derive(Debug, Clone)]
pub(super) struct NamedStay {
    /// `None`: it was forgotten. Its place does not change.
    pub plate: Option<Plate>,
    pub at: PastStayKey,
    pub past: PastStay,
    stay: ContractStay,
}

/// A stay whose place is another one now.
#[derive(Debug)]
pub(super) struct ChangedPlace {
    pub named: NamedStay,
    pub place: Place,
}

impl Billing {
    /// Decides the places around a forgotten stay about which something was decided, as [`Billing::places_around`] does.
    pub(super) fn places_around_forgotten(
        &mut self,
        ledger: &Ledger,
        contract: &ContractName,
        (entry, exit): (StoredPassage, StoredPassage),
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let until = reach(entry, &End::Left(exit)).saturating_add(1);
        let changed = self.decide_places(ledger, contract, entry.at_ms, until, changes)?;
        changed.into_iter().try_for_each(|changed| self.count_changed(ledger, changed, changes))
    }

    /// Counts the draft of a stay as it is with its new place.
    fn count_changed(
        &mut self,
        ledger: &Ledger,
        ChangedPlace { named, place }: ChangedPlace,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let Some(plate) = &named.plate else { return Ok(()) };
        let at = BilledVisit { plate, address: named.at.address };
        let visit = Visit::Stay { entry: named.past.entry, end: named.past.end };
        for (sign, place) in [(Sign::Subtract, named.past.place), (Sign::Add, place)] {
            self.count(ledger, sign, at, (&visit, place), changes)?;
        }
        Ok(())
    }

    /// Decides the places around a stay that changed. The drafts of others whose place changes are counted again.
    pub(super) fn places_around(
        &mut self,
        ledger: &Ledger,
        plate: &Plate,
        at: [Option<PastStayKey>; 2],
        (before, after): (Option<&Visit<StoredPassage>>, Option<&Visit<StoredPassage>>),
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let contracts = contracts_of(self.rules.register.plate(plate));
        let Some(from) = at.iter().flatten().map(|at| at.entry_ms).min().filter(|_| !contracts.is_empty())
        else {
            return Ok(());
        };
        // What the stay holds or held, and the earlier stays of its car, which end with its entry.
        let mut until = from;
        for visit in [before, after].into_iter().flatten() {
            if let Visit::Stay { entry, end } = visit {
                until = until.max(reach(*entry, end));
            }
        }
        for (_, past) in changes.histories.of_plate(plate.as_str(), from.saturating_sub(HELD_MS)..from)? {
            until = until.max(reach(past.entry, &past.end));
        }
        for contract in contracts {
            let changed = self.decide_places(ledger, &contract, from, until.saturating_add(1), changes)?;
            for changed in changed {
                let named = &changed.named;
                if named.plate.as_ref() == Some(plate) && at.contains(&Some(named.at)) {
                    continue; // the caller counts it
                }
                self.count_changed(ledger, changed, changes)?;
            }
        }
        Ok(())
    }

    pub(in crate::server::view) fn decide_all_places(
        &self,
        ledger: &Ledger,
        contracts: BTreeSet<ContractName>,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        for contract in contracts {
            self.decide_places(ledger, &contract, ALL_TIMES.start, ALL_TIMES.end, changes)?;
        }
        Ok(())
    }

    /// Counts the drafts of all stays in the history of a plate.
    pub(in crate::server::view) fn count_history(
        &mut self,
        ledger: &Ledger,
        sign: Sign,
        plate: &Plate,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        for (at, PastStay { entry, end, place, .. }) in
            changes.histories.of_plate(plate.as_str(), ALL_TIMES)?
        {
            if matches!(end, End::Left(_)) {
                let (at, visit) = (BilledVisit { plate, address: at.address }, Visit::Stay { entry, end });
                self.count(ledger, sign, at, (&visit, place), changes)?;
            }
        }
        Ok(())
    }

    /// Decides the places of a contract's stays that begin in `from..until`, and of later ones as far as the decisions reach. Their
    /// histories are changed; the drafts are not counted.
    pub(super) fn decide_places(
        &self,
        ledger: &Ledger,
        contract: &ContractName,
        from: i64,
        mut until: i64,
        changes: &mut BillingChanges,
    ) -> Result<Vec<ChangedPlace>, StoreError> {
        loop {
            let times = from.saturating_sub(HELD_MS)..until;
            let stays = self.named_stays(ledger, contract, times, changes)?;
            let first = stays.partition_point(|named| named.at.entry_ms < from);
            let decided: Vec<Place> = stays[..first].iter().map(|named| named.past.place).collect();
            let plain: Vec<ContractStay> = stays.iter().map(|named| named.stay.clone()).collect();
            let places = decide(&plain, &decided);
            let changed = stays.into_iter().zip(places).filter(|(named, place)| named.past.place != *place);
            let changed: Vec<ChangedPlace> =
                changed.map(|(named, place)| ChangedPlace { named, place }).collect();
            let reached = changed.iter().map(|changed| changed.named.stay.reaches_ms()).max();
            match reached.filter(|reached| *reached >= until) {
                // Twice as far each time, so that a long chain of decisions is not read again for each of them.
                Some(reached) => {
                    until = reached.saturating_add(reached.saturating_sub(from)).saturating_add(1)
                }
                None => {
                    for ChangedPlace { named, place } in &changed {
                        let Some(plate) = &named.plate else { continue };
                        let past = PastStay { place: *place, ..named.past.clone() };
                        changes.histories.put(plate.as_str(), named.at, Some(past));
                    }
                    return Ok(changed);
                }
            }
        }
    }

    /// The stays that a contract names and that begin in these times, in the order in which places are given.
    fn named_stays(
        &self,
        ledger: &Ledger,
        contract: &ContractName,
        times: Range<i64>,
        changes: &BillingChanges,
    ) -> Result<Vec<NamedStay>, StoreError> {
        let Some(history) = self.rules.register.contract(contract) else { return Ok(Vec::new()) };
        let mut named = Vec::new();
        for plate in history.plates() {
            let mut stays = changes.histories.of_plate(plate.as_str(), times.clone())?;
            self.sort(ledger, &mut stays, |(at, past)| (*at, past.entry))?;
            let entries: Vec<i64> = stays.iter().map(|(at, _)| at.entry_ms).collect();
            for (n, (at, past)) in stays.into_iter().enumerate() {
                let Some(cars) = self.cars(contract, plate, at, &past)? else { continue };
                let next_entry = entries.get(n + 1).copied();
                let holding = self.holding(ledger, at, &past, next_entry)?;
                let stay = ContractStay { entry_ms: at.entry_ms, holding, cars, decided: None };
                named.push(NamedStay { plate: Some(plate.clone()), at, past, stay });
            }
        }
        for (at, past) in changes.histories.of_plate(&forgotten_cars(contract), times)? {
            let holding = self.holding(ledger, at, &past, None)?;
            let stay = ContractStay { entry_ms: at.entry_ms, holding, cars: 0, decided: Some(past.place) };
            named.push(NamedStay { plate: None, at, past, stay });
        }
        self.sort(ledger, &mut named, |named| (named.at, named.past.entry))?;
        Ok(named)
    }

    /// Sorts stays by their entries in time; those that begin at the same instant by [`Billing::tie`].
    pub(super) fn sort<S>(
        &self,
        ledger: &Ledger,
        stays: &mut [S],
        entry: impl Fn(&S) -> (PastStayKey, StoredPassage),
    ) -> Result<(), StoreError> {
        let mut failed = None;
        stays.sort_by(|a, b| {
            let ((a, a_entry), (b, b_entry)) = (entry(a), entry(b));
            a.entry_ms.cmp(&b.entry_ms).then_with(|| {
                match (self.tie(ledger, a, a_entry), self.tie(ledger, b, b_entry)) {
                    (Ok(a), Ok(b)) => a.cmp(&b),
                    (Err(error), _) | (_, Err(error)) => {
                        failed = Some(error);
                        std::cmp::Ordering::Equal
                    }
                }
            })
        });
        failed.map_or(Ok(()), Err)
    }

    /// What orders stays that begin at the same instant: the garage, the epoch and the sequence of the entry; an entry that an
    /// operator made comes after its event.
    fn tie(
        &self,
        ledger: &Ledger,
        at: PastStayKey,
        entry: StoredPassage,
    ) -> Result<(String, [u8; 16], u64, bool), StoreError> {
        let garage = self.garage(at.address.garage)?;
        let epoch = ledger.epoch_of(entry.stream())?.to_bytes();
        Ok((garage.key.to_string(), epoch, entry.sequence, entry.is_made()))
    }

    /// How many cars the contract allows on the date of a stay; `None` where it does not name the car.
    fn cars(
        &self,
        contract: &ContractName,
        plate: &Plate,
        at: PastStayKey,
        past: &PastStay,
    ) -> Result<Option<u32>, StoreError> {
        let ShownBooks { rules, .. } = &**self;
        let garage = self.garage(at.address.garage)?;
        let tariff = past.entry.timestamp().and_then(|entry| rules.tariff_for(&garage, entry));
        let day = rules.date(tariff, past.entry);
        let named = rules.register.contract_of(plate, |name| garage.is_called(name), day);
        Ok(named.filter(|named| named.contract == contract).map(|named| named.version.cars))
    }

    fn holding(
        &self,
        ledger: &Ledger,
        at: PastStayKey,
        past: &PastStay,
        next_entry: Option<i64>,
    ) -> Result<Holding, StoreError> {
        let entry_ms = past.entry.at_ms;
        let longest = entry_ms.saturating_add(HELD_MS);
        let next_entry = next_entry.into_iter().chain(past.next_entry_ms).min().unwrap_or(i64::MAX);
        let until = |end: i64| end.min(longest).min(next_entry);
        Ok(match &past.end {
            End::Inside => Holding::Perhaps(until(i64::MAX)),
            End::Unseen => Holding::Nothing,
            End::Left(exit) => {
                let lasted_ms = exit.at_ms.saturating_sub(entry_ms);
                let is_billed = || {
                    let garage = self.garage(at.address.garage)?;
                    let decisions = self.assessor(ledger).decisions(&garage, *exit)?;
                    Ok::<_, StoreError>(decisions.iter().any(|its| its.what == Decided::Bill))
                };
                match lasted_ms {
                    ..=0 => Holding::Nothing,
                    _ if lasted_ms > LONGEST_MS && !(is_billable(lasted_ms) && is_billed()?) => {
                        Holding::Nothing
                    }
                    _ => Holding::Until(until(exit.at_ms)),
                }
            }
        })
    }
}

/// The contracts that name a plate on any date.
pub(in crate::server::view) fn contracts_of(entry: Option<&PlateEntry>) -> BTreeSet<ContractName> {
    let lines = entry.into_iter().flat_map(PlateEntry::contracts);
    lines.map(|line| line.contract.clone()).collect()
}

/// Until when a stay may hold a place, whatever else is known.
fn reach(entry: StoredPassage, end: &End<StoredPassage>) -> i64 {
    let longest = entry.at_ms.saturating_add(HELD_MS);
    match end {
        End::Inside => longest,
        End::Unseen => entry.at_ms,
        End::Left(exit) => exit.at_ms.clamp(entry.at_ms, longest),
    }
}
