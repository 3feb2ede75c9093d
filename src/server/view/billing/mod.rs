//! What stays cost: a draft for each closed stay, and what drafts add up to.
//!
//! **Promise.** The drafts, their totals and the anomalies are a function of the stays and of the [`BillingRules`]: they are the same in
//! whatever order garages delivered, and however the ledger was applied.
//! **Kept by.** No draft is stored. [`Assessor`] computes it from the stay; whenever a stay or a rule changes, the drafts that it
//! touches are subtracted from the totals as they were and added as they are ([`Billing::visit_changed`], [`Billing::put_register`],
//! [`Billing::put_tariffs`], [`Billing::decide`]).
//! **Not promised.** That a draft stays as it is: a later fact changes it. What is sent to a customer is a document.
//!
//! | key | value |
//! | --- | --- |
//! | `vbo` `vbh` `vbc` `vbu` `vbd` | what stays cost by: see [`rules`] |
//! | `vba` `vbm` `vbg` `vbr` | what they add up to: see [`totals`] |
//! | `vbp` | the stays of registered plates by time: see [`histories`] |
//! | `vbx` `vbq` `vbw` | what documents charged, and what is due: see [`issued`] |
//! | `vbk` | open items, payments and the journal: see [`receivables`] |
//! | `vbi` `vbj` | the documents: see [`documents`] |
//! | `vbs` | what is forgotten: see [`forgettings`] |
//! | `vbz` `vby` `vbt` | visits whose plates were forgotten: see [`frozen`] |
//! | `vbn` `vbf` | what did not add up: see [`anomalies`] |

pub mod anomalies;
mod changes;
pub mod contracts;
pub mod documents;
pub mod draft;
mod exits;
pub mod forgetting;
pub mod forgettings;
pub mod frozen;
mod garages;
pub mod histories;
pub mod issued;
pub mod overlaps;
pub mod places;
pub mod receivables;
pub mod recorder;
pub mod rules;
mod shown;
#[cfg(test)]
pub mod tests;
pub mod totals;

pub use changes::BillingChanges;
pub use draft::{Assessor, CLOCKS_DIFFER_MS, ClosedStay, Draft, UNREGISTERED};
pub use garages::BilledGarage;
pub use shown::ShownBooks;

use super::codec::{damaged, encode, read_range, u32_from};
use super::pages::{FoundStay, SlotAddress, StoredPassage, ended_on, is_token};
use crate::messaging::SiteName;
use crate::parking::Plate;
use crate::parking::stay::{End, Visit};
use crate::server::ledger::Ledger;
use crate::store::{Batch, Store, StoreError};
use anomalies::{AnomalyCode, AnomalyFact, AnomalyKey};
use forgettings::Forgettings;
use histories::{PastStay, PastStayKey};
use issued::{IssuedExit, WithdrawnStay, is_due};
use places::Place;
use rules::{BillingRules, ChargeDecision, ChargeKey};
use smol_str::SmolStr;
use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;
use totals::{Sign, Totals};

/// How many writes a change of a visit adds, as a rule at most: the mark of its page, its history, an anomaly. Totals and counts are
/// shared by many.
pub const WRITES_OF_A_STAY: usize = 3;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Billing {
    shown: ShownBooks,
    /// The cars that were in two garages at once.
    overlapping: HashSet<SmolStr>,
    pub(super) forgettings: Forgettings,
}

impl Deref for Billing {
    type Target = ShownBooks;
    fn deref(&self) -> &ShownBooks {
        &self.shown
    }
}

/// A change of what was decided about a charge.
#[derive(Debug, Clone)]
pub enum DecisionChange {
    Decide(ChargeDecision),
    /// Takes back the decision that the command at this position made.
    Undo(u64),
}

/// A visit that changes, and where it is.
#[derive(Debug, Clone, Copy)]
pub struct BilledVisit<'a> {
    pub plate: &'a Plate,
    pub address: SlotAddress,
}

impl Billing {
    /// Reads what was written. `garages` are the number, the key and the other names of each.
    pub fn load(
        store: &Store,
        ledger: &Ledger,
        garages: impl Iterator<Item = (u32, SiteName, Vec<SiteName>)>,
    ) -> Result<Billing, StoreError> {
        let mut billing = Billing::default();
        billing.shown.rules = BillingRules::load(store, ledger)?;
        billing.shown.last_document = documents::last(store)?;
        billing.shown.numbers_resumed_at = documents::resumed_at(store)?;
        billing.forgettings = Forgettings::load(store)?;
        garages.for_each(|(number, key, others)| billing.shown.garages.add(number, key, others));
        for (expected, entry) in (0u32..).zip(read_range::<SmolStr>(store, b"vba", b"vbb")) {
            let (key, account) = entry?;
            if u32_from(&key, 3)? != expected {
                return Err(damaged(&key));
            }
            billing.shown.add_account(account);
        }
        for entry in read_range::<Totals>(store, b"vbg", b"vbh") {
            let (key, taken) = entry?;
            billing.shown.put_taken(u32_from(&key, 3)?, taken);
        }
        billing.overlapping = anomalies::plates_of(store, AnomalyCode::OpenInTwoGarages)?;
        Ok(billing)
    }

    /// Puts everything that changed into `batch`.
    pub fn save(&self, changes: &mut BillingChanges, batch: &mut Batch) {
        for account in std::mem::take(&mut changes.accounts) {
            let name = self.account_name(account).expect("an account that was added is known");
            batch.put(totals::account_key(account), encode(&name));
        }
        for garage in std::mem::take(&mut changes.garages) {
            match self.taken(garage) {
                Some(taken) => batch.put(totals::garage_key(garage), encode(taken)),
                None => batch.remove(totals::garage_key(garage)),
            }
        }
        self.rules.save(std::mem::take(&mut changes.rules), batch);
        changes.drain(batch);
    }

    pub(in crate::server::view) fn shown_mut(&mut self) -> &mut ShownBooks {
        &mut self.shown
    }

    /// A garage was seen for the first time. What was decided about its charges has no effect yet.
    pub fn add_garage(
        &mut self,
        number: u32,
        key: SiteName,
        others: Vec<SiteName>,
        changes: &mut BillingChanges,
    ) {
        let decisions = self.rules.decisions.iter().filter(|(of, _)| of.garage == key);
        changes.wait_for_facts(number, decisions.map(|(_, its)| (its.position, its.at_ms)));
        self.shown.garages.add(number, key, others);
    }

    pub(super) fn garage(&self, number: u32) -> Result<Arc<BilledGarage>, StoreError> {
        self.garages.get(number).cloned().ok_or_else(|| damaged(b"vg"))
    }

    /// A visit is added, removed, or ends in another way: the drafts and anomalies that follow from it change.
    pub fn visit_changed(
        &mut self,
        ledger: &Ledger,
        at: BilledVisit<'_>,
        (before, after): (Option<&Visit<StoredPassage>>, Option<&Visit<StoredPassage>>),
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let BilledVisit { plate, address } = at;
        let has_history = self.rules.register.plate(plate).is_some();
        let key = |visit: &Visit<StoredPassage>| match visit {
            Visit::Stay { entry, .. } => Some(PastStayKey { entry_ms: entry.at_ms, address }),
            Visit::Exit(_) => None,
        };
        let (key_before, key_after) = (before.and_then(key), after.and_then(key));
        let mut next_entry_ms = None;
        if let Some(before) = before {
            let mut place = Place::default();
            if let Some(at) = key_before.filter(|_| has_history)
                && let Some(past) = changes.histories.get(plate.as_str(), at)?
            {
                place = past.place;
                next_entry_ms = past.next_entry_ms.filter(|_| key_after == key_before);
            }
            self.count(ledger, Sign::Subtract, at, (before, place), changes)?;
        }
        let mut place = Place::default();
        if has_history {
            if let Some(at) = key_before {
                changes.histories.put(plate.as_str(), at, None);
            }
            if let (Some(at), Some(Visit::Stay { entry, end })) = (key_after, after) {
                let stay = PastStay { entry: *entry, end: end.clone(), place, next_entry_ms };
                changes.histories.put(plate.as_str(), at, Some(stay));
            }
            self.places_around(ledger, plate, [key_before, key_after], (before, after), changes)?;
            if let Some(at) = key_after {
                place =
                    changes.histories.get(plate.as_str(), at)?.map_or_else(Place::default, |its| its.place);
            }
        }
        if let Some(after) = after {
            self.count(ledger, Sign::Add, at, (after, place), changes)?;
        }
        self.withdraw_or_restore(ledger, (address.garage, plate.as_str()), (before, after), changes)
    }

    /// A stay that documents charged stops to exist, or exists again.
    pub(super) fn withdraw_or_restore(
        &self,
        ledger: &Ledger,
        (garage, plate): (u32, &str),
        (before, after): (Option<&Visit<StoredPassage>>, Option<&Visit<StoredPassage>>),
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        if !self.has_documents() {
            return Ok(());
        }
        let (before, after) = (before.and_then(Visit::closed), after.and_then(Visit::closed));
        if let Some((entry, exit)) = before.filter(|(_, exit)| after.is_none_or(|(_, its)| its != *exit)) {
            let id = IssuedExit::of(ledger, exit)?;
            if !changes.issued.of(id)?.is_empty() {
                let plate = plate.into();
                changes.issued.withdraw(id, WithdrawnStay { garage, plate, entry, exit });
            }
        }
        match after {
            Some((_, exit)) => changes.issued.restore(IssuedExit::of(ledger, exit)?),
            None => Ok(()),
        }
    }

    /// Changes what was decided about a charge. `stay` is its stay, where the ledger has it.
    pub fn decide(
        &mut self,
        ledger: &Ledger,
        key: ChargeKey,
        change: DecisionChange,
        stay: Option<&FoundStay>,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        match stay {
            None => self.change_rules(key, change, changes),
            Some(FoundStay { plate, address, visit }) if is_token(plate) => {
                let Some(ends) = visit.closed() else { return Ok(()) };
                let place = (*address, plate.as_str());
                if let Some(before) = changes.frozen.get(*address)? {
                    self.count_frozen(ledger, Sign::Subtract, place, ends, &before.draft, changes)?;
                }
                self.change_rules(key, change, changes)?;
                let Some(draft) = self.freeze_again(ledger, *address, ends, changes)? else { return Ok(()) };
                self.count_frozen(ledger, Sign::Add, place, ends, &draft, changes)?;
                match &draft.contract {
                    Some(contract) => self.places_around_forgotten(ledger, contract, ends, changes),
                    None => Ok(()),
                }
            }
            Some(FoundStay { plate, address, visit }) => {
                let plate = &Plate::stored(plate).map_err(|_| damaged(b"vs"))?;
                let place = BilledVisit { plate, address: *address };
                self.visit_changed(ledger, place, (Some(visit), None), changes)?;
                self.change_rules(key, change, changes)?;
                self.visit_changed(ledger, place, (None, Some(visit)), changes)
            }
        }
    }

    /// Changes what was decided, while there is no stay.
    fn change_rules(
        &mut self,
        key: ChargeKey,
        change: DecisionChange,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let garage = self.garages.of_key(&key.garage).map(|garage| garage.number);
        match change {
            DecisionChange::Decide(decision) => {
                note_waiting(Sign::Add, garage, (decision.position, decision.at_ms), changes)?;
                self.shown.rules.decide(key, decision, &mut changes.rules);
            }
            DecisionChange::Undo(position) => {
                for its in self.rules.decisions.of(&key).iter().filter(|its| its.position == position) {
                    note_waiting(Sign::Subtract, garage, (position, its.at_ms), changes)?;
                }
                self.shown.rules.undo(key, position, &mut changes.rules);
            }
        }
        Ok(())
    }

    /// Adds what follows from a visit, or subtracts it.
    pub(in crate::server::view) fn count(
        &mut self,
        ledger: &Ledger,
        sign: Sign,
        BilledVisit { plate, address }: BilledVisit<'_>,
        (visit, place): (&Visit<StoredPassage>, Place),
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let garage = &self.garage(address.garage)?;
        if sign == Sign::Add {
            self.may_be_forgotten(ledger, (plate, address, visit), changes);
        }
        match visit {
            Visit::Exit(exit) if !exit.is_made() => {
                let anomaly = AnomalyKey::of(AnomalyCode::ExitWithoutEntry, garage.number, plate);
                changes.note_passage(sign, anomaly, *exit)
            }
            Visit::Stay { entry, end: End::Unseen } => {
                let anomaly = AnomalyKey::of(AnomalyCode::EntryWhileOpen, garage.number, plate);
                changes.note_passage(sign, anomaly, *entry)
            }
            Visit::Stay { entry, end: End::Left(exit) } => {
                let stay = ClosedStay { garage, plate, entry: *entry, exit: *exit, place };
                let assessor = self.shown.assessor(ledger);
                let draft = assessor.draft(stay)?;
                let codes = assessor.anomalies(stay, &draft);
                for code in codes {
                    changes.note_passage(sign, AnomalyKey::of(code, garage.number, plate), *exit)?;
                }
                let lasted_ms = exit.at_ms.saturating_sub(entry.at_ms);
                let decisions = assessor.decisions(garage, *exit)?;
                let key = AnomalyKey::of(AnomalyCode::DecisionWithoutEffect, garage.number, plate);
                note_decisions(sign, key, (&draft, lasted_ms, decisions), changes)?;
                self.count_draft(ledger, sign, (address, *exit), &draft, changes)
            }
            _ => Ok(()),
        }
    }

    /// Notes a visit that is over and may have to be forgotten.
    fn may_be_forgotten(
        &self,
        ledger: &Ledger,
        (plate, address, visit): (&Plate, SlotAddress, &Visit<StoredPassage>),
        changes: &mut BillingChanges,
    ) {
        if !self.forgettings.is_empty()
            && let Some(last) = ended_on(visit)
            && self.forgettings.may_mean(ledger.id(), plate.as_str(), last)
        {
            changes.to_forget.insert(address, plate.clone());
        }
    }

    fn count_draft(
        &mut self,
        ledger: &Ledger,
        sign: Sign,
        (address, exit): (SlotAddress, StoredPassage),
        draft: &Draft,
        changes: &mut BillingChanges,
    ) -> Result<(), StoreError> {
        let SlotAddress { garage, page, .. } = address;
        if let Some(recorder) = &mut changes.recorder {
            recorder.note(sign, address, draft);
        }
        let account = match self.account(&draft.account) {
            Some(number) => number,
            None => {
                let number = self.shown.add_account(draft.account.clone());
                changes.accounts.insert(number);
                number
            }
        };
        changes.count_in_month(sign, account, draft)?;
        changes.count_in_day(sign, (garage, exit.date()), draft)?;
        self.shown.take(sign, garage, draft);
        changes.garages.insert(garage);
        let issued = match self.has_documents() {
            true => changes.issued.of(IssuedExit::of(ledger, exit)?)?,
            false => Vec::new(),
        };
        match is_due(Some(draft), &issued) {
            true => changes.issued.mark(sign, garage, page),
            false => Ok(()),
        }
    }

    /// Whether a document was ever issued.
    fn has_documents(&self) -> bool {
        self.last_document.serial > 0
    }
}

/// Notes which decisions about the charge of a stay have no effect. A decision without a stay has none: while there is one, that is
/// taken back.
fn note_decisions(
    sign: Sign,
    anomaly: AnomalyKey,
    (draft, lasted_ms, decisions): (&Draft, i64, &[ChargeDecision]),
    changes: &mut BillingChanges,
) -> Result<(), StoreError> {
    let without_stay = match sign {
        Sign::Add => Sign::Subtract,
        Sign::Subtract => Sign::Add,
    };
    for decision in decisions {
        let its = (decision.position, decision.at_ms);
        note_waiting(without_stay, Some(anomaly.garage), its, changes)?;
    }
    for ChargeDecision { position, at_ms, .. } in draft.without_effect(lasted_ms, decisions) {
        changes.note(sign, &anomaly, AnomalyFact::of_decision(*position, *at_ms), *position)?;
    }
    Ok(())
}

/// Notes that a decision, of a command at a position and a time, waits for what it is about, or takes that back. Nothing is noted of
/// a garage that was never seen ([`Billing::add_garage`] does it).
pub(super) fn note_waiting(
    sign: Sign,
    garage: Option<u32>,
    (position, at_ms): (u64, i64),
    changes: &mut BillingChanges,
) -> Result<(), StoreError> {
    let Some(garage) = garage else { return Ok(()) };
    let anomaly = AnomalyKey::of_garage(AnomalyCode::DecisionWithoutEffect, garage);
    changes.note(sign, &anomaly, AnomalyFact::of_decision(position, at_ms), position)
}
