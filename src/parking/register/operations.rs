//! What a command about one plate, account or contract records.

use super::{
    ContractName, CustomerError, CustomerPatch, DateRange, Held, PlateEntry, Register, RegisterFact,
};
use crate::parking::Plate;
use crate::parking::name::Account;
use jiff::civil::Date;

/// Nothing is recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterRefusal {
    #[error(
        "the plate {plate} is not registered on {on} or later; \"server plates list\" shows what is registered"
    )]
    NotRegistered { plate: Plate, on: Date },
    #[error("there is no contract {contract:?}; \"server contracts list\" shows those that there are", contract = .0.as_str())]
    NoContract(ContractName),
    #[error("the contract {contract:?} ends before {on}: on that day it has no version to end", contract = .contract.as_str())]
    ContractEnded { contract: ContractName, on: Date },
    #[error("the plate {0} has so long a list of registrations and contracts that no more can be added; the limit is {max} bytes", max = PlateEntry::MAX_BYTES)]
    PlateFull(Plate),
}

/// A plate is to be registered in some dates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlateAddition {
    /// `None`: it is registered so already.
    pub fact: Option<RegisterFact>,
    /// The registrations of other accounts in these dates, cut to them: they end, or are interrupted.
    pub replaced: Vec<Held>,
}

impl Register {
    /// Registers a plate to an account in these dates. Registrations of other accounts end the day before; where one of them goes on
    /// behind the last of these dates, it holds again from there.
    pub fn add_plate(
        &self,
        plate: &Plate,
        account: &Account,
        dates: DateRange,
    ) -> Result<PlateAddition, RegisterRefusal> {
        let entry = self.plate(plate).cloned().unwrap_or_default();
        let others = entry.holders.overlapping(dates).filter(|held| held.account != *account);
        let cut =
            |held: &Held| Some(Held { dates: held.dates.overlap(dates)?, account: held.account.clone() });
        let replaced = others.filter_map(cut).collect();
        if entry.holders.differing(dates, Some(account)).is_empty() {
            return Ok(PlateAddition { fact: None, replaced });
        }
        let holders = entry.holders.set(dates, Some(account));
        let after = entry.with_holders(holders);
        if !after.fits() {
            return Err(RegisterRefusal::PlateFull(plate.clone()));
        }
        let fact = RegisterFact::Holder { plate: plate.clone(), dates, account: Some(account.clone()) };
        Ok(PlateAddition { fact: Some(fact), replaced })
    }

    /// Ends the registrations of a plate: `on` is the first day without, and later ones are removed too.
    pub fn remove_plate(&self, plate: &Plate, on: Date) -> Result<RegisterFact, RegisterRefusal> {
        let dates = DateRange::starting(on);
        let is_held =
            self.plate(plate).is_some_and(|entry| entry.holders.overlapping(dates).next().is_some());
        match is_held {
            true => Ok(RegisterFact::Holder { plate: plate.clone(), dates, account: None }),
            false => Err(RegisterRefusal::NotRegistered { plate: plate.clone(), on }),
        }
    }

    /// Ends a contract: `on` is the first day without, and later versions are removed.
    pub fn remove_contract(
        &self,
        contract: &ContractName,
        on: Date,
    ) -> Result<RegisterFact, RegisterRefusal> {
        let Some(history) = self.contract(contract) else {
            return Err(RegisterRefusal::NoContract(contract.clone()));
        };
        let contract = contract.clone();
        match history.versions().iter().any(|version| version.dates.since(on).is_some()) {
            true => Ok(RegisterFact::ContractEnd { contract, on }),
            false => Err(RegisterRefusal::ContractEnded { contract, on }),
        }
    }

    /// Changes the customer record of an account; `None`: it is like that already.
    pub fn set_customer(
        &self,
        account: &Account,
        patch: CustomerPatch,
    ) -> Result<Option<RegisterFact>, Vec<CustomerError>> {
        let before = self.customer(account).cloned().unwrap_or_default();
        let customer = patch.apply_to(&before)?;
        let is_new = customer != before;
        Ok(is_new.then(|| RegisterFact::Customer { account: account.clone(), customer: Box::new(customer) }))
    }
}
