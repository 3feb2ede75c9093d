//! Facts as lines that people read.

use super::{ContractChange, CustomerRecord, Register, RegisterFact};
use crate::parking::name::Account;
use std::fmt;

/// A fact as a line of a list of changes, compared with the register before it.
pub struct ShownFact<'a> {
    pub fact: &'a RegisterFact,
    pub before: &'a Register,
}

impl fmt::Display for ShownFact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fact {
            RegisterFact::Holder { plate, dates, account: Some(account) } => {
                write!(f, "+ {plate}  account {account} {dates}")
            }
            RegisterFact::Holder { plate, dates, account: None } => write!(f, "- {plate}  {dates}"),
            RegisterFact::Customer { account, customer } => self.customer(f, account, customer),
            RegisterFact::Contract(change) => self.contract(f, change),
            RegisterFact::ContractEnd { contract, on } => write!(f, "- contract {contract}  from {on} on"),
        }
    }
}

impl ShownFact<'_> {
    fn customer(&self, f: &mut fmt::Formatter<'_>, account: &Account, after: &CustomerRecord) -> fmt::Result {
        let none = CustomerRecord::default();
        let before = self.before.customer(account).unwrap_or(&none);
        write!(f, "{} account {account}", if before.is_empty() { '+' } else { '~' })?;
        let (lines_before, lines) = (before.address.join(" | "), after.address.join(" | "));
        let fields = [
            ("name", &before.name, &after.name),
            ("address", &lines_before, &lines),
            ("country", &before.country, &after.country),
            ("vat_id", &before.vat_id, &after.vat_id),
            ("email", &before.email, &after.email),
        ];
        for (number, (name, before, after)) in fields.iter().filter(|its| its.1 != its.2).enumerate() {
            let separator = if number == 0 { "  " } else { ", " };
            match before.is_empty() {
                true => write!(f, "{separator}{name} {after:?}")?,
                false => write!(f, "{separator}{name} {before:?} -> {after:?}")?,
            }
        }
        Ok(())
    }

    fn contract(&self, f: &mut fmt::Formatter<'_>, change: &ContractChange) -> fmt::Result {
        let ContractChange { contract, version, removed, added } = change;
        let before = self.before.contract(contract).and_then(|its| its.version(version.dates));
        let sign = if before.is_none() { '+' } else { '~' };
        write!(f, "{sign} contract {contract} {}  account ", version.dates)?;
        if let Some(before) = before.filter(|before| before.account != version.account) {
            write!(f, "{} -> ", before.account)?;
        }
        write!(f, "{}, cars ", version.account)?;
        if let Some(before) = before.filter(|before| before.cars != version.cars) {
            write!(f, "{} -> ", before.cars)?;
        }
        write!(f, "{}", version.cars)?;
        for (sign, cars) in [('-', removed), ('+', added)] {
            cars.iter().try_for_each(|car| write!(f, ", {sign} {} in {}", car.plate, car.garage))?;
        }
        Ok(())
    }
}
