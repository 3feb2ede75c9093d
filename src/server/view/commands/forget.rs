//! Forgetting plates: a random token replaces the plate of a stay.
//!
//! **Promise.** The account, the contract, the amount, the dates and the garage of the stay remain, and so do all sums. Under one
//! seed the same plate has the same token within a month, and once the seed is erased a token does not reveal which plate it was.
//! Anomalies of the car are removed, and its past registrations.
//! **Kept by.** A token is drawn by a keyed hash; its key is the seed, which is stored in the command that ordered the
//! forgetting, and `server compact` erases it. The draft of the stay is kept as it is ([`super::super::billing`]).
//! **Not promised.** That the events in the ledger lose their plates before that, or that backups ever lose them.

use super::CommandJudge;
use crate::parking::register::{ContractCar, ContractChange, DateRange, PlateEntry, RegisterFact};
use crate::parking::stay::Visit;
use crate::parking::{Month, Plate};
use crate::server::ledger::Ledger;
use crate::server::record::ToForget;
use crate::server::view::billing::BilledVisit;
use crate::server::view::changes::ViewChanges;
use crate::server::view::forgotten::ended_before;
use crate::server::view::pages::{SlotAddress, SlotChange, StoredPassage, TOKEN_LEN};
use crate::server::view::refusal::{JudgeError, Refusal};
use crate::server::view::rerating::visits;
use crate::server::view::state::View;
use crate::store::StoreError;
use jiff::civil::Date;
use std::collections::BTreeSet;

fn token(seed: &[u8; 16], plate: &str, month: Month) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut key = [0; 32];
    key[..16].copy_from_slice(seed);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(month.to_string().as_bytes()).update(plate.as_bytes());
    let hash = hasher.finalize();
    let letters =
        hash.as_bytes()[..TOKEN_LEN - 1].iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    std::iter::once('~').chain(letters).collect()
}

impl CommandJudge<'_> {
    pub(super) fn judge_forget(&mut self, whose: &ToForget, before: Date) -> Result<(), JudgeError> {
        let ToForget::Plate(text) = whose else { return Ok(()) };
        let View { billing, stays, .. } = self.view;
        let Ok(plate) = Plate::stored(text) else {
            return Err(Refusal::NothingToForget(text.clone()).into());
        };
        let entry = billing.rules.register.plate(&plate);
        if entry.is_some_and(|entry| is_registered_from(entry, before)) {
            return Err(Refusal::Registered(text.clone()).into());
        }
        if stays.is_inside_anywhere(&plate, self.changes)? {
            return Err(Refusal::Inside(text.clone()).into());
        }
        match entry.is_none() && stays.of_plate(&plate, self.changes)?.is_empty() {
            true => Err(Refusal::NothingToForget(text.clone()).into()),
            false => Ok(()),
        }
    }
}

/// Whether a plate is registered, or in a contract, on a day or later.
fn is_registered_from(entry: &PlateEntry, day: Date) -> bool {
    let held = entry.holders.list().iter().map(|held| held.dates);
    let named = entry.contracts().iter().map(|line| line.dates);
    held.chain(named).any(|dates| dates.since(day).is_some())
}

impl View {
    pub(super) fn forget(
        &mut self,
        ledger: &Ledger,
        whose: &ToForget,
        before: Date,
        seed: &[u8; 16],
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        if let ToForget::Plate(text) = whose {
            let Ok(plate) = Plate::stored(text) else { return Ok(()) };
            for (address, visit) in self.stays.of_plate(&plate, changes)? {
                if ended_before(&visit, before) {
                    self.forget_visit(ledger, (&plate, address, &visit), seed, changes)?;
                }
            }
            self.note_overlaps(&plate, changes)?;
            let facts = self.forgotten_registrations(&plate, before);
            let pages = self.all_pages();
            let View { billing, stays, .. } = self;
            return billing.put_register(ledger, &facts, (stays, &pages), changes);
        }
        let mut overlapping = BTreeSet::new();
        for (garage, newest) in self.all_pages() {
            for page in 0..=newest {
                for (address, plate, visit) in visits(changes, garage, page)? {
                    if ended_before(&visit, before)
                        && self.is_meant(ledger, whose, (&plate, address, &visit), changes)?
                    {
                        self.forget_visit(ledger, (&plate, address, &visit), seed, changes)?;
                        if self.billing.is_overlapping(&plate) {
                            overlapping.insert(plate);
                        }
                    }
                }
            }
        }
        overlapping.iter().try_for_each(|plate| self.note_overlaps(plate, changes))
    }

    /// Some visits of a car are forgotten: those that are left may be in one garage only.
    fn note_overlaps(&mut self, plate: &Plate, changes: &mut ViewChanges) -> Result<(), StoreError> {
        if !self.billing.is_overlapping(plate) {
            return Ok(());
        }
        let visits = self.stays.of_plate(plate, changes)?;
        self.billing.note_overlaps(plate, &visits, &mut changes.billing)
    }

    fn is_meant(
        &self,
        ledger: &Ledger,
        whose: &ToForget,
        (plate, address, visit): (&Plate, SlotAddress, &Visit<StoredPassage>),
        changes: &ViewChanges,
    ) -> Result<bool, StoreError> {
        let ToForget::Account(account) = whose else { return Ok(true) };
        let draft = self.billing.draft_of(ledger, (plate, address, visit), &changes.billing)?;
        Ok(draft.is_some_and(|draft| *draft.account == **account))
    }

    /// Replaces the plate of a visit by a token.
    fn forget_visit(
        &mut self,
        ledger: &Ledger,
        (plate, address, visit): (&Plate, SlotAddress, &Visit<StoredPassage>),
        seed: &[u8; 16],
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let place = BilledVisit { garage: address.garage, plate, address };
        let draft = self.billing.forget_visit(ledger, place, visit, &mut changes.billing)?;
        let month = draft.or_else(|| Month::of(visit.first().date())).unwrap_or(Month::EPOCH);
        changes.change(address, SlotChange::Forget(token(seed, plate.as_str(), month).into()))
    }

    /// What removes the past registrations of a plate.
    fn forgotten_registrations(&self, plate: &Plate, before: Date) -> Vec<RegisterFact> {
        let register = &self.billing.rules.register;
        let Some(entry) = register.plate(plate) else { return Vec::new() };
        let past = DateRange::ALWAYS.before(before);
        let held = past.map(|dates| RegisterFact::Holder { plate: plate.clone(), dates, account: None });
        let named = entry.contracts().iter().filter_map(|line| {
            let version = register.contract(&line.contract)?.version(line.dates)?.clone();
            let removed = vec![ContractCar { plate: plate.clone(), garage: line.garage.clone() }];
            let change =
                ContractChange { contract: line.contract.clone(), version, removed, added: Vec::new() };
            Some(RegisterFact::Contract(Box::new(change)))
        });
        held.into_iter().chain(named).collect()
    }
}
