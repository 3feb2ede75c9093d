//! A rule changes: drafts that it touches are subtracted as they were and added as they are.

use super::billing::contracts::contracts_of;
use super::billing::histories::{ALL_TIMES, PastStay, PastStayKey};
use super::billing::places::Place;
use super::billing::rules::BillingRules;
use super::billing::totals::Sign;
use super::billing::{BilledVisit, Billing, BillingChanges};
use super::changes::ViewChanges;
use super::codec::damaged;
use super::pages::{SlotAddress, StoredPassage, is_token, page_key};
use super::stays::StayIndex;
use crate::messaging::SiteName;
use crate::parking::Plate;
use crate::parking::register::RegisterFact;
use crate::parking::stay::Visit;
use crate::parking::tariff::TariffSet;
use crate::server::ledger::Ledger;
use crate::store::StoreError;
use std::collections::BTreeSet;

/// The stays of more plates are found in one pass over all pages instead of by their chains.
const PLATES_BY_CHAIN: usize = 1_000;

/// The pages of all garages: the number of each, and its newest page.
pub type AllPages = Vec<(u32, u32)>;

impl Billing {
    /// Applies facts to the register. Only the cars and contracts that they name are rated again.
    pub fn put_register(
        &mut self,
        ledger: &Ledger,
        facts: &[RegisterFact],
        (stays, pages): (&StayIndex, &AllPages),
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let mut after = self.rules.clone();
        let (mut plates, mut contracts) = (BTreeSet::new(), BTreeSet::new());
        for fact in facts {
            let affected = after.apply(fact, &mut changes.billing.rules);
            plates.extend(affected.plates.into_iter().map(|(plate, _)| plate));
            contracts.extend(affected.contract.map(|(contract, _)| contract));
        }
        let is_known = |rules: &BillingRules, plate: &Plate| rules.register.plate(plate).is_some();
        let begun: BTreeSet<Plate> = plates
            .iter()
            .filter(|plate| !is_known(&self.rules, plate) && is_known(&after, plate))
            .cloned()
            .collect();
        self.begin_histories(&begun, (stays, pages), changes)?;
        for plate in &plates {
            contracts.extend(contracts_of(self.rules.register.plate(plate)));
            contracts.extend(contracts_of(after.register.plate(plate)));
        }
        // The other cars of these contracts may get or lose a place.
        for rules in [&self.rules, &after] {
            let histories = contracts.iter().filter_map(|contract| rules.register.contract(contract));
            plates.extend(histories.flat_map(|history| history.plates()).cloned());
        }
        let changes = &mut changes.billing;
        plates.iter().try_for_each(|plate| self.count_history(ledger, Sign::Subtract, plate, changes))?;
        self.shown_mut().rules = after;
        self.decide_all_places(ledger, contracts, changes)?;
        for plate in &plates {
            self.count_history(ledger, Sign::Add, plate, changes)?;
            if !is_known(&self.rules, plate) {
                for (at, _) in changes.histories.of_plate(plate.as_str(), ALL_TIMES)? {
                    changes.histories.put(plate.as_str(), at, None);
                }
            }
        }
        Ok(())
    }

    /// Puts a set of tariffs in force. All stays are rated again.
    pub fn put_tariffs(
        &mut self,
        ledger: &Ledger,
        (position, set): (u64, TariffSet),
        pages: &AllPages,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        self.rate_again(ledger, pages, changes, |billing, changes| {
            billing.shown_mut().rules.put_tariffs(position, set, &mut changes.rules);
        })
    }

    /// A garage has one more name. All stays are rated again if a tariff or a contract means it.
    pub fn add_name(
        &mut self,
        ledger: &Ledger,
        (number, name): (u32, SiteName),
        pages: &AllPages,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let is_meant = self.rules.mean(name.as_str());
        let add = |billing: &mut Billing| billing.shown_mut().garages.add_name(number, name);
        match is_meant {
            true => self.rate_again(ledger, pages, changes, |billing, _| add(billing)),
            false => {
                add(self);
                Ok(())
            }
        }
    }

    /// Subtracts all drafts, makes a change, and adds all drafts as they are then.
    fn rate_again(
        &mut self,
        ledger: &Ledger,
        pages: &AllPages,
        changes: &mut ViewChanges,
        change: impl FnOnce(&mut Billing, &mut BillingChanges),
    ) -> Result<(), StoreError> {
        self.count_all(ledger, Sign::Subtract, pages, changes)?;
        change(self, &mut changes.billing);
        let contracts = self.rules.register.contracts().keys().cloned().collect();
        self.decide_all_places(ledger, contracts, &mut changes.billing)?;
        self.count_all(ledger, Sign::Add, pages, changes)
    }

    fn count_all(
        &mut self,
        ledger: &Ledger,
        sign: Sign,
        pages: &AllPages,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        for (garage, newest) in pages {
            for page in 0..=*newest {
                self.count_waiting(ledger, sign, (*garage, page), changes)?;
                for (address, plate, visit) in closed_stays(changes, *garage, page)? {
                    let at = PastStayKey { entry_ms: visit.first().at_ms, address };
                    let place = self.place_of(&plate, at, &changes.billing)?;
                    let its = BilledVisit { plate: &plate, address };
                    self.count(ledger, sign, its, (&visit, place), &mut changes.billing)?;
                }
            }
        }
        Ok(())
    }

    /// Counts the forgotten stays in a page that have no price yet: they may have one now.
    fn count_waiting(
        &mut self,
        ledger: &Ledger,
        sign: Sign,
        (garage, page): (u32, u32),
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let mut found = Vec::new();
        for (slot, its) in (0u8..).zip(changes.slots(garage, page)?) {
            if let Some((token, visit)) = its.visit.as_ref().filter(|(plate, _)| is_token(plate))
                && let Some(ends) = visit.closed()
            {
                found.push((SlotAddress { garage, page, slot }, token.clone(), ends));
            }
        }
        for (address, token, ends) in found {
            let changes = &mut changes.billing;
            let Some(before) = changes.frozen.get(address)?.filter(|stay| stay.draft.price.is_none()) else {
                continue;
            };
            let draft = match sign {
                Sign::Subtract => Some(before.draft),
                // It is subtracted and added once: what has a price now was added before.
                Sign::Add => self.freeze_again(ledger, address, ends, changes)?,
            };
            if let Some(draft) = draft {
                self.count_frozen(ledger, sign, (address, token.as_str()), ends, &draft, changes)?;
            }
        }
        Ok(())
    }

    /// Puts the stays of plates that become known to the register into their histories.
    fn begin_histories(
        &self,
        plates: &BTreeSet<Plate>,
        (stays, pages): (&StayIndex, &AllPages),
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let begin = |changes: &mut ViewChanges, plate: &Plate, address, visit: Visit<StoredPassage>| {
            if let Visit::Stay { entry, end } = visit {
                let at = PastStayKey { entry_ms: entry.at_ms, address };
                let past = PastStay { entry, end, place: Place::default(), next_entry_ms: None };
                changes.billing.histories.put(plate.as_str(), at, Some(past));
            }
        };
        if plates.len() <= PLATES_BY_CHAIN {
            for plate in plates {
                for (address, visit) in stays.of_plate(plate, changes)? {
                    begin(changes, plate, address, visit);
                }
            }
            return Ok(());
        }
        for (garage, newest) in pages {
            for page in 0..=*newest {
                for (address, plate, visit) in visits(changes, *garage, page)? {
                    if plates.contains(&plate) {
                        begin(changes, &plate, address, visit);
                    }
                }
            }
        }
        Ok(())
    }
}

type Placed = (SlotAddress, Plate, Visit<StoredPassage>);

/// The visits in a page whose plates are not forgotten.
pub fn visits(changes: &mut ViewChanges, garage: u32, page: u32) -> Result<Vec<Placed>, StoreError> {
    let mut found = Vec::new();
    for (slot, its) in (0u8..).zip(changes.slots(garage, page)?) {
        if let Some((plate, visit)) = its.visit.as_ref().filter(|(plate, _)| !is_token(plate)) {
            let plate = Plate::stored(plate).map_err(|_| damaged(&page_key(garage, page)))?;
            found.push((SlotAddress { garage, page, slot }, plate, visit.clone()));
        }
    }
    Ok(found)
}

fn closed_stays(
    changes: &mut ViewChanges,
    garage: u32,
    page: u32,
) -> Result<impl Iterator<Item = Placed> + use<>, StoreError> {
    Ok(visits(changes, garage, page)?.into_iter().filter(|(_, _, visit)| visit.closed().is_some()))
}
