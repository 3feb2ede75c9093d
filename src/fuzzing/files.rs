//! Files that operators import.

use super::kind;
use crate::parking::payment;
use crate::parking::register::{Register, RegisterImport, decode};
use jiff::civil::{Date, date};

const TODAY: Date = date(2026, 11, 27);

/// Files of plates, accounts, contracts and payments.
pub fn csv(input: &[u8]) -> bool {
    let Some((kind, bytes)) = kind(input, 4) else { return false };
    let Ok(text) = decode(bytes) else { return false };
    let is_same = |one: &str, other: &str| one == other;
    match kind {
        0 => records_once(|register| register.import_plates(text).ok()),
        1 => records_once(|register| register.import_accounts(text).ok()),
        2 => records_once(|register| register.import_contracts(text, is_same).ok()),
        _ => {
            let Ok(file) = payment::read_payments(text, TODAY) else { return false };
            let payments: Vec<_> = file.lines.into_iter().map(|line| line.payment).collect();
            assert_eq!(payment::from_bytes(&payment::to_bytes(&payments)).as_ref(), Ok(&payments));
            true
        }
    }
}

/// A file that is imported again records nothing.
fn records_once(import: impl Fn(&Register) -> Option<RegisterImport>) -> bool {
    let mut register = Register::default();
    let Some(RegisterImport { facts, .. }) = import(&register) else { return false };
    facts.iter().for_each(|fact| _ = register.apply(fact));
    let again = import(&register).expect("a file that was imported is imported again");
    assert_eq!(again.facts, [], "after {facts:?}");
    true
}
