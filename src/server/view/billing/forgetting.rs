//! Visits whose plates are forgotten: how they are frozen, and what still changes their drafts.
//!
//! **Promise.** A frozen stay keeps its account, its contract, its place there and its amount, and other stays of the contract keep
//! theirs. Only a decision of a person about it changes it, and a price that it did not have yet.
//! **Kept by.** Its draft is kept as it is ([`FrozenStay`]), and what it held of its contract under the contract's name, in a history
//! that no plate has ([`forgotten_cars`]).

use super::super::pages::{SlotAddress, StoredPassage, ended_on};
use super::anomalies::{AnomalyCode, AnomalyKey};
use super::changes::BillingChanges;
use super::draft::{Draft, DraftState, HeldBecause, LONGEST_MS};
use super::forgettings::Forgetting;
use super::frozen::FrozenStay;
use super::histories::{PastStay, PastStayKey};
use super::issued::ExitId;
use super::places::{HELD_MS, Place};
use super::totals::Sign;
use super::{BilledGarage, BilledVisit, Billing, ClosedStay, note_decisions};
use crate::parking::register::ContractName;
use crate::parking::stay::{End, Visit};
use crate::parking::{Month, Plate};
use crate::server::ledger::Ledger;
use crate::store::StoreError;
use smol_str::SmolStr;

/// The history of a contract's stays whose cars were forgotten: no plate begins like this.
pub fn forgotten_cars(contract: &ContractName) -> String {
    format!("~{}", contract.as_str())
}

/// The events of a visit, as they are found by.
pub fn events_of(visit: &Visit<StoredPassage>) -> impl Iterator<Item = ExitId> {
    visit.events().map(|(_, passage)| ExitId::of(*passage))
}

impl Billing {
    /// What a visit is forgotten by as it is now. `None`: it is not meant, or not over; or the place of the stay in its contract is
    /// not decided yet: who pays is not known before.
    pub(in crate::server::view) fn forgetting_of(
        &self,
        ledger: &Ledger,
        (plate, address, visit): (&Plate, SlotAddress, &Visit<StoredPassage>),
        changes: &BillingChanges,
    ) -> Result<Option<Forgetting>, StoreError> {
        let draft = match visit.closed() {
            Some(ends) => self.draft_in(ledger, address, plate.as_str(), ends, changes)?,
            None => None,
        };
        if draft.as_ref().is_some_and(|draft| draft.state == DraftState::Held(HeldBecause::PlaceUndecided)) {
            return Ok(None);
        }
        let account = draft.as_ref().map(|draft| draft.account.as_str());
        let Some(last) = ended_on(visit) else { return Ok(None) };
        Ok(self.forgettings.of(ledger.id(), plate.as_str(), account, last).cloned())
    }

    /// The plate of a visit is forgotten: its draft is kept as it is. Returns the token that replaces the plate.
    pub(in crate::server::view) fn forget_visit(
        &mut self,
        ledger: &Ledger,
        place: BilledVisit<'_>,
        (visit, forgetting): (&Visit<StoredPassage>, &Forgetting),
        changes: &mut BillingChanges,
    ) -> Result<SmolStr, StoreError> {
        let BilledVisit { plate, address } = place;
        let garage = self.garage(address.garage)?;
        let (held, draft) = match visit {
            Visit::Exit(_) => (Place::default(), None),
            Visit::Stay { entry, .. } => {
                let (entry, exit) = (*entry, *visit.last());
                let place = self.place_of(plate, PastStayKey { entry_ms: entry.at_ms, address }, changes)?;
                let stay = ClosedStay { garage: &garage, plate, entry, exit, place };
                (place, Some(self.assessor(ledger).draft(stay)?))
            }
        };
        self.count(ledger, Sign::Subtract, place, (visit, held), changes)?;
        self.is_no_stay(place, visit, changes)?;
        events_of(visit).for_each(|event| changes.frozen.put_event(event, Some(address)));
        let of_exit = || Month::of(visit.first().date());
        let month = draft.as_ref().map(|draft| draft.month).or_else(of_exit).unwrap_or(Month::EPOCH);
        let token = forgetting.token(plate.as_str(), month, visit);
        if let (Visit::Stay { entry, end }, Some(draft)) = (visit, draft) {
            if self.rules.register.plate(plate).is_some() {
                let at = PastStayKey { entry_ms: entry.at_ms, address };
                self.freeze_history(ledger, (plate, at), draft.contract.as_ref(), changes)?;
            }
            if let End::Left(exit) = end {
                self.count_frozen(
                    ledger,
                    Sign::Add,
                    (address, token.as_str()),
                    (*entry, *exit),
                    &draft,
                    changes,
                )?;
            }
            changes.frozen.put(address, Some(FrozenStay { draft, place: held }))?;
        }
        Ok(token)
    }

    /// Moves a stay from the history of its car to that of its contract's forgotten cars. What each held of the contract stays.
    fn freeze_history(
        &self,
        ledger: &Ledger,
        (plate, at): (&Plate, PastStayKey),
        contract: Option<&ContractName>,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let around =
            at.entry_ms.saturating_sub(HELD_MS)..at.entry_ms.saturating_add(HELD_MS).saturating_add(1);
        let mut stays = changes.histories.of_plate(plate.as_str(), around)?;
        self.sort(ledger, &mut stays, |(at, past)| (*at, past.entry))?;
        let Some(n) = stays.iter().position(|(its, _)| *its == at) else { return Ok(()) };
        if let Some((before, past)) = n.checked_sub(1).map(|n| &stays[n]) {
            let next_entry_ms = Some(past.next_entry_ms.map_or(at.entry_ms, |next| next.min(at.entry_ms)));
            changes.histories.put(plate.as_str(), *before, Some(PastStay { next_entry_ms, ..past.clone() }));
        }
        let past = stays[n].1.clone();
        changes.histories.put(plate.as_str(), at, None);
        if let Some(contract) = contract {
            let next = stays.get(n + 1).map(|(next, _)| next.entry_ms);
            let next_entry_ms = past.next_entry_ms.into_iter().chain(next).min();
            let past = PastStay { next_entry_ms, ..past };
            changes.histories.put(&forgotten_cars(contract), at, Some(past));
        }
        Ok(())
    }

    /// Adds what follows from a forgotten stay that has ended, or subtracts it.
    pub(in crate::server::view) fn count_frozen(
        &mut self,
        ledger: &Ledger,
        sign: Sign,
        (address, token): (SlotAddress, &str),
        (entry, exit): (StoredPassage, StoredPassage),
        draft: &Draft,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let garage = self.garage(address.garage)?;
        if let Some(code) = draft.anomaly() {
            changes.note_passage(sign, AnomalyKey::of_text(code, garage.number, token), exit)?;
        }
        let decisions = self.shown.assessor(ledger).decisions(&garage, exit)?;
        let lasted_ms = exit.at_ms.saturating_sub(entry.at_ms);
        let key = AnomalyKey::of_text(AnomalyCode::DecisionWithoutEffect, garage.number, token);
        note_decisions(sign, key, (draft, lasted_ms, decisions), changes)?;
        self.count_draft(ledger, sign, (address, exit), draft, changes)
    }

    /// A forgotten visit changes, or stops to exist. `base` says who pays for a stay, and its place.
    pub(in crate::server::view) fn forgotten_changed(
        &mut self,
        ledger: &Ledger,
        (address, token): (SlotAddress, &str),
        (before, after): (Option<&Visit<StoredPassage>>, Option<&Visit<StoredPassage>>),
        base: Option<&FrozenStay>,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let garage = self.garage(address.garage)?;
        // The next entry of the car, which ends its place: without the plate nothing else says it.
        let mut next_entry_ms = None;
        for (sign, visit) in [(Sign::Subtract, before), (Sign::Add, after)] {
            let Some(visit) = visit else { continue };
            let slot = (sign == Sign::Add).then_some(address);
            events_of(visit).for_each(|event| changes.frozen.put_event(event, slot));
            let (Visit::Stay { entry, end }, Some(base)) = (visit, base) else { continue };
            let FrozenStay { draft: Draft { account, contract, .. }, place } = base;
            let ends = (*entry, end.exit().copied().unwrap_or(*entry));
            let draft = match (sign, changes.frozen.get(address)?) {
                (Sign::Subtract, Some(known)) => known.draft,
                _ => {
                    let payer = (account.clone(), contract.clone());
                    self.assessor(ledger).assess(payer, &garage, ends, *place)?
                }
            };
            if end.exit().is_some() {
                self.count_frozen(ledger, sign, (address, token), ends, &draft, changes)?;
            }
            if let Some(contract) = contract {
                let (at, cars) = (PastStayKey { entry_ms: entry.at_ms, address }, forgotten_cars(contract));
                if let Some(known) = changes.histories.get(&cars, at)? {
                    next_entry_ms = known.next_entry_ms;
                }
                let past = PastStay { entry: *entry, end: end.clone(), place: *place, next_entry_ms };
                changes.histories.put(&cars, at, slot.map(|_| past));
                self.places_around_forgotten(ledger, contract, ends, changes)?;
            }
            changes.frozen.put(address, slot.map(|_| FrozenStay { draft, place: *place }))?;
        }
        self.withdraw_or_restore(ledger, (address.garage, token), (before, after), changes)
    }

    /// The draft of a forgotten stay by what is decided now. An amount that it has changes by decisions only.
    pub(in crate::server::view) fn frozen_again(
        &self,
        ledger: &Ledger,
        garage: &BilledGarage,
        FrozenStay { draft, place }: &FrozenStay,
        (entry, exit): (StoredPassage, StoredPassage),
    ) -> Result<Draft, StoreError> {
        let assessor = self.assessor(ledger);
        let is_long = exit.at_ms.saturating_sub(entry.at_ms) > LONGEST_MS;
        if draft.price.is_some() && !is_long {
            return Ok(draft.decided_again(assessor.decisions(garage, exit)?));
        }
        let payer = (draft.account.clone(), draft.contract.clone());
        assessor.assess(payer, garage, (entry, exit), *place)
    }

    /// The draft of a forgotten stay changes, by a decision about its charge or since it has a price now.
    pub(in crate::server::view) fn freeze_again(
        &mut self,
        ledger: &Ledger,
        address: SlotAddress,
        ends: (StoredPassage, StoredPassage),
        changes: &mut BillingChanges,
    ) -> Result<Option<Draft>, StoreError> {
        let Some(frozen) = changes.frozen.get(address)? else { return Ok(None) };
        let garage = self.garage(address.garage)?;
        let draft = self.frozen_again(ledger, &garage, &frozen, ends)?;
        changes.frozen.put(address, Some(FrozenStay { draft: draft.clone(), ..frozen }))?;
        Ok(Some(draft))
    }
}
