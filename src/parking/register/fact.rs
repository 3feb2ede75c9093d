//! What the ledger records about the register, and what a fact changes.

use super::{ContractCar, ContractName, ContractVersion, CustomerRecord, DateRange};
use crate::parking::Plate;
use crate::parking::name::Account;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A change of the register, as small as the change is. Encoded, it has at most [`RegisterFact::MAX_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterFact {
    /// In these dates the plate is registered to this account, or to none. What holds outside of them stays.
    Holder { plate: Plate, dates: DateRange, account: Option<Account> },
    /// The whole customer record of an account. An empty one removes it.
    Customer { account: Account, customer: Box<CustomerRecord> },
    /// A version of a contract is added, or the one of the same dates is changed.
    Contract(Box<ContractChange>),
    /// All versions of the contract end the day before this one; those that begin later are removed.
    ContractEnd { contract: ContractName, on: Date },
}

/// A long change is recorded in several of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractChange {
    pub contract: ContractName,
    pub version: ContractVersion,
    pub removed: Vec<ContractCar>,
    pub added: Vec<ContractCar>,
}

impl RegisterFact {
    pub const MAX_BYTES: usize = 4096;
}

/// What a fact has changed. Stays that began on other dates, and those of other plates, have the account and contract that they had;
/// whether a place of the contract is free for them may have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affected {
    /// The local dates of entry at which the account or the contract of a plate may be another one. A plate may be listed several
    /// times.
    pub plates: Vec<(Plate, DateRange)>,
    /// The contract whose versions or cars have changed, and in which dates.
    pub contract: Option<(ContractName, DateRange)>,
    pub account: Option<Account>,
}

/// A plate is registered to another account than that of a contract that names it. The account of the contract pays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disagreement {
    pub plate: Plate,
    pub dates: DateRange,
    pub holder: Account,
    pub contract: ContractName,
    /// The account of the contract.
    pub payer: Account,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Disagreement { plate, dates, holder, contract, payer } = self;
        write!(
            f,
            "{plate} is registered to {holder:?} {dates}, but contract {:?} of {payer:?} names it: {payer:?} pays",
            contract.as_str()
        )
    }
}
