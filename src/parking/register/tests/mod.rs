//! The register against its promises, in words and against an oracle that keeps a map of days.

mod decisions;
mod memory;
mod random;

use super::*;
use crate::parking::Plate;
use jiff::civil::{Date, date};

fn plate(text: &str) -> Plate {
    Plate::new(text).unwrap()
}
fn account(text: &str) -> Account {
    Account::new(text).unwrap()
}
fn contract(text: &str) -> ContractName {
    text.parse().unwrap()
}
/// A day of 2026.
fn day(month: i8, day: i8) -> Date {
    date(2026, month, day)
}
fn dates(first: Date, last: Date) -> DateRange {
    DateRange::new(Some(first), Some(last)).unwrap()
}

/// Applies facts as the ledger gives them back.
fn apply(register: &mut Register, facts: &[RegisterFact]) -> Vec<Affected> {
    let through_bytes = |fact: &RegisterFact| {
        let bytes = postcard::to_allocvec(fact).unwrap();
        assert!(bytes.len() <= RegisterFact::MAX_BYTES, "{} bytes", bytes.len());
        postcard::from_bytes::<RegisterFact>(&bytes).unwrap()
    };
    facts.iter().map(|fact| register.apply(&through_bytes(fact))).collect()
}

/// The register as it is put together from what was stored of its parts.
fn stored_and_loaded(register: &Register) -> Register {
    fn again<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
        let bytes = postcard::to_allocvec(value).unwrap();
        assert!(bytes.len() <= PlateEntry::MAX_BYTES, "{} bytes", bytes.len());
        postcard::from_bytes(&bytes).unwrap()
    }
    let mut loaded = Register::default();
    for (plate, entry) in register.plates() {
        loaded.load_plate(again(plate), again(entry));
    }
    for (contract, history) in register.contracts() {
        let versions: Vec<ContractVersion> = again(&history.versions().to_vec());
        loaded.load_contract(again(contract), versions.into());
    }
    for (account, customer) in register.customers() {
        loaded.load_customer(again(account), again(customer));
    }
    loaded
}

fn no_renames(_: &str, _: &str) -> bool {
    false
}

/// A register after these files of plates and contracts.
fn register(plates: &str, contracts: &str) -> Register {
    let mut register = Register::default();
    let import =
        register.import_plates(&format!("plate,account,name,valid_from,valid_to\n{plates}")).unwrap();
    apply(&mut register, &import.facts);
    let text = format!("{CONTRACTS}{contracts}");
    let import = register.import_contracts(&text, no_renames).unwrap();
    apply(&mut register, &import.facts);
    register
}

const CONTRACTS: &str = "contract,account,plate,garage,valid_from,valid_to,cars\n";
