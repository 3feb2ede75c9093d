//! The register: to which account a plate is charged on a day, which contracts an account has, and who is billed for it.
//!
//! **Promise.** What holds on a day follows from the facts in the order of the ledger, and from nothing else. A fact is as small as its
//! change, and says which plates it affects from which date to which. A plate is the same however it is written, and has one account and,
//! in a garage, one contract on a day.
//! **Kept by.** [`Register::apply`] is the only change. Commands and files are compared with the register first, and become facts only
//! when nothing contradicts them ([`operations`], [`import`]).
//! **Not promised.** That the accounts, plates and garages exist: a garage may open later.

pub mod contracts;
pub mod customer;
pub mod dates;
pub mod fact;
pub mod holders;
pub mod import;
pub mod operations;
pub mod shown;
pub mod state;
#[cfg(test)]
mod tests;

pub use super::name::{Account, LabelError};
pub use super::table::{BadLine, ImportError, decode};
pub use contracts::{
    ContractCar, ContractGarage, ContractHistory, ContractName, ContractVersion, PlateContract,
};
pub use customer::{CustomerError, CustomerFields, CustomerPatch, CustomerRecord, address_lines};
pub use dates::{DateRange, DatesReversed};
pub use fact::{Affected, ContractChange, Disagreement, RegisterFact};
pub use holders::{Held, Holders};
pub use import::RegisterImport;
pub use operations::{PlateAddition, RegisterRefusal};
pub use shown::ShownFact;
pub use state::{NamedBy, PlateEntry, Register};
