//! Forgetting plates: a random token replaces the plate of a stay.
//!
//! **Promise.** Stays that ended before the date are forgotten, also those that arrive later. The account, the contract, the place
//! in it, the amount, the dates and the garage of the stay remain, and so do all sums. Under one seed the same plate has the same
//! token within a month, and once the seed is erased a token does not reveal which plate it was. Anomalies of the car are removed, or
//! have the token, and its past registrations are removed.
//! **Kept by.** A token is drawn by a keyed hash; its key is the seed, which is stored in the command that ordered the
//! forgetting and in the views ([`forgettings`](super::super::billing::forgettings)), and `server compact` erases it. The draft of the
//! stay is kept as it is ([`forgetting`](super::super::billing::forgetting)).
//! **Not promised.** That the events in the ledger lose their plates before that, or that backups ever lose them.

use super::CommandJudge;
use crate::parking::register::{Account, ContractCar, ContractChange, DateRange, PlateEntry, RegisterFact};
use crate::parking::stay::{End, Visit};
use crate::parking::{Month, Plate};
use crate::server::ledger::Ledger;
use crate::server::record::ToForget;
use crate::server::view::billing::issued::WithdrawnStay;
use crate::server::view::changes::ViewChanges;
use crate::server::view::forgotten::forget_noted;
use crate::server::view::pages::is_token;
use crate::server::view::refusal::{JudgeError, Refusal};
use crate::server::view::rerating::visits;
use crate::server::view::state::View;
use crate::store::StoreError;
use jiff::civil::Date;

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
        let is_known = match whose {
            ToForget::All => true,
            ToForget::Plate(plate) => Plate::stored(plate).is_ok(),
            ToForget::Account(account) => Account::new(account).is_ok(),
        };
        if !is_known {
            return Ok(());
        }
        let (key, forgetting) = self.billing.forgettings.add(ledger.id(), whose, before, *seed);
        changes.billing.forgettings.put(key, Some(forgetting));
        self.forget_withdrawn(ledger, changes)?;
        if let ToForget::Plate(text) = whose {
            let Ok(plate) = Plate::stored(text) else { return Ok(()) };
            for (address, _) in self.stays.of_plate(&plate, changes)? {
                changes.billing.to_forget.insert(address, plate.clone());
            }
            self.forget_noted(ledger, changes)?;
            let facts = self.forgotten_registrations(&plate, before);
            let pages = self.all_pages();
            let View { billing, stays, .. } = self;
            return billing.put_register(ledger, &facts, (stays, &pages), changes);
        }
        for (garage, newest) in self.all_pages() {
            for page in 0..=newest {
                let visits = visits(changes, garage, page)?;
                changes
                    .billing
                    .to_forget
                    .extend(visits.into_iter().map(|(address, plate, _)| (address, plate)));
                self.forget_noted(ledger, changes)?;
            }
        }
        Ok(())
    }

    pub(super) fn forget_noted(
        &mut self,
        ledger: &Ledger,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        forget_noted(&self.stays, &mut self.billing, ledger, changes)
    }

    /// Forgets the plates of stays that documents charged and that exist no longer.
    fn forget_withdrawn(&self, ledger: &Ledger, changes: &mut ViewChanges) -> Result<(), StoreError> {
        for (exit, stay) in changes.billing.issued.all_withdrawn()? {
            let issued = changes.billing.issued.of(exit)?;
            let (account, last) = (issued.first().map(|its| its.account.as_str()), stay.exit.date());
            let found = self.billing.forgettings.of(ledger.id(), &stay.plate, account, last);
            if let Some(forgetting) = found.filter(|_| !is_token(&stay.plate)) {
                let visit = Visit::Stay { entry: stay.entry, end: End::Left(stay.exit) };
                let plate = forgetting.token(&stay.plate, Month::of(last).unwrap_or(Month::EPOCH), &visit);
                changes.billing.issued.withdraw(exit, WithdrawnStay { plate, ..stay });
            }
        }
        Ok(())
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
