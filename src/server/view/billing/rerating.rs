//! A rule changes: drafts that it touches are subtracted as they were and added as they are.

use super::super::changes::ViewChanges;
use super::super::codec::damaged;
use super::super::pages::{SlotAddress, StoredPassage, is_token, page_key};
use super::super::stays::StayIndex;
use super::changes::BillingChanges;
use super::contracts::contracts_of;
use super::histories::{ALL_TIMES, PastStay, PastStayKey};
use super::places::Place;
use super::rules::{ChargeDecision, ChargeKey};
use super::totals::Sign;
use super::{BilledVisit, Billing, Draft};
use crate::messaging::SiteName;
use crate::parking::Plate;
use crate::parking::money::{Amount, Currency, Money};
use crate::parking::register::{ContractName, RegisterFact};
use crate::parking::stay::{End, Visit};
use crate::parking::tariff::TariffSet;
use crate::server::ledger::Ledger;
use crate::store::StoreError;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The stays of more plates are found in one pass over all pages instead of by their chains.
const PLATES_BY_CHAIN: usize = 1_000;

/// A change of what was decided about a charge.
#[derive(Debug, Clone)]
pub enum DecisionChange {
    Decide(ChargeDecision),
    /// Takes back the decision that the command at this position made.
    Undo(u64),
}

/// What a change would do to drafts, or did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RatingEffect {
    /// How many drafts change: their account, amount, state or month.
    pub drafts: u64,
    /// By how much all drafts together change, for each currency.
    pub amounts: Vec<Money>,
}

/// Follows which drafts change.
#[derive(Debug, Default)]
pub struct DraftRecorder(HashMap<SlotAddress, (Option<DraftMark>, Option<DraftMark>)>);

type DraftMark = (u64, Option<Money>);

impl DraftRecorder {
    pub(super) fn note(&mut self, sign: Sign, address: SlotAddress, draft: &Draft) {
        let mut hasher = DefaultHasher::new();
        postcard::to_stdvec(draft).expect("a draft always encodes").hash(&mut hasher);
        let mark = (hasher.finish(), draft.amount);
        let (before, after) = self.0.entry(address).or_default();
        match sign {
            // A draft that was added on the way is none of those before.
            Sign::Subtract if after.take().is_some() => {}
            Sign::Subtract => *before = Some(mark),
            Sign::Add => *after = Some(mark),
        }
    }

    pub fn effect(&self) -> RatingEffect {
        let mut effect = RatingEffect::default();
        let mut amounts: BTreeMap<Currency, Amount> = BTreeMap::new();
        for (before, after) in self.0.values().filter(|(before, after)| before != after) {
            effect.drafts += 1;
            let before = before.and_then(|(_, money)| money).map(|money| Money { amount: money.amount.negated(), ..money });
            let after = after.and_then(|(_, money)| money);
            for money in [before, after].into_iter().flatten() {
                let sum = amounts.entry(money.currency).or_insert(Amount::ZERO);
                *sum = sum.saturating_add(money.amount);
            }
        }
        let amounts = amounts.into_iter().map(|(currency, amount)| Money { amount, currency });
        effect.amounts = amounts.filter(|money| money.amount != Amount::ZERO).collect();
        effect
    }
}

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
        let is_known = |rules: &super::Rules, plate: &Plate| rules.register.plate(plate).is_some();
        let begun: BTreeSet<Plate> =
            plates.iter().filter(|plate| !is_known(&self.rules, plate) && is_known(&after, plate)).cloned().collect();
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
        self.shown.rules = after;
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
            billing.shown.rules.put_tariffs(position, set, &mut changes.rules);
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
        let add = |billing: &mut Billing| billing.shown.garages.add_name(number, name);
        match is_meant {
            true => self.rate_again(ledger, pages, changes, |billing, _| add(billing)),
            false => {
                add(self);
                Ok(())
            }
        }
    }

    /// Changes what was decided about a charge. `visit` is its stay, where the ledger has it.
    pub fn decide(
        &mut self,
        ledger: &Ledger,
        key: ChargeKey,
        change: DecisionChange,
        visit: Option<(BilledVisit<'_>, &Visit<StoredPassage>)>,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        if let Some((place, visit)) = visit {
            self.visit_changed(ledger, place, (Some(visit), None), changes)?;
        }
        match change {
            DecisionChange::Decide(decision) => self.shown.rules.decide(key, decision, &mut changes.rules),
            DecisionChange::Undo(position) => self.shown.rules.undo(key, position, &mut changes.rules),
        }
        match visit {
            Some((place, visit)) => self.visit_changed(ledger, place, (None, Some(visit)), changes),
            None => Ok(()),
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
            let its = self.garage(*garage)?;
            for page in 0..=*newest {
                for (address, plate, visit) in closed_stays(changes, *garage, page)? {
                    let place = self.place_of(&plate, address, &visit, &changes.billing)?;
                    self.count(ledger, sign, (&its, &plate, address), (&visit, place), &mut changes.billing)?;
                }
            }
        }
        Ok(())
    }

    /// The place that a stay has in its contract.
    pub(super) fn place_of(
        &self,
        plate: &Plate,
        address: SlotAddress,
        visit: &Visit<StoredPassage>,
        changes: &BillingChanges,
    ) -> Result<Place, StoreError> {
        let Visit::Stay { entry, .. } = visit else { return Ok(Place::default()) };
        if self.rules.register.plate(plate).is_none_or(|its| its.contracts().is_empty()) {
            return Ok(Place::default());
        }
        let at = PastStayKey { entry_ms: entry.at_ms, address };
        Ok(changes.histories.get(plate.as_str(), at)?.map_or_else(Place::default, |past| past.place))
    }

    fn count_history(
        &mut self,
        ledger: &Ledger,
        sign: Sign,
        plate: &Plate,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        for (at, PastStay { entry, end, place }) in changes.histories.of_plate(plate.as_str(), ALL_TIMES)? {
            if matches!(end, End::Left(_)) {
                let garage = self.garage(at.address.garage)?;
                let visit = Visit::Stay { entry, end };
                self.count(ledger, sign, (&garage, plate, at.address), (&visit, place), changes)?;
            }
        }
        Ok(())
    }

    fn decide_all_places(
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
                let past = PastStay { entry, end, place: Place::default() };
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
    let is_closed = |(_, _, visit): &Placed| matches!(visit, Visit::Stay { end: End::Left(_), .. });
    Ok(visits(changes, garage, page)?.into_iter().filter(is_closed))
}
