//! `accounts import`: customer records.

use super::RegisterImport;
use crate::parking::name::Account;
use crate::parking::register::customer::address_lines;
use crate::parking::register::{CustomerPatch, CustomerRecord, Register, RegisterFact};
use crate::parking::table::{BadLine, Column, CsvFile, ImportError, whole};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

const COLUMNS: [Column; 6] = [
    Column::Required("account"),
    Column::Optional("name"),
    Column::Optional("address"),
    Column::Optional("country"),
    Column::Optional("vat_id"),
    Column::Optional("email"),
];

impl Register {
    /// Reads `account,name,address,country,vat_id,email`, the lines of an address separated by `|`. A line is the whole record of its
    /// account, but what a column that the file lacks would say stays as it is. Accounts that it does not name stay.
    pub fn import_accounts(&self, text: &str) -> Result<RegisterImport, ImportError> {
        let file = CsvFile::open(text, COLUMNS)?;
        let warnings = file.warnings().to_vec();
        let mut customers: BTreeMap<Account, (usize, CustomerRecord)> = BTreeMap::new();
        let has: [bool; 6] = std::array::from_fn(|column| file.has(column));
        let bad = file.each_row(|row, bad| {
            let given = |column: usize| has[column].then(|| row.cells[column].to_owned());
            let patch = CustomerPatch {
                name: given(1),
                address: given(2).map(|lines| address_lines(&lines)),
                country: given(3),
                vat_id: given(4),
                email: given(5),
            };
            let account = row.check("account", Account::new(row.cells[0]), bad);
            let before = account.as_ref().and_then(|account| self.customer(account)).cloned();
            let customer = patch.apply_to(&before.unwrap_or_default()).map_err(|errors| {
                bad.extend(errors.into_iter().map(|error| BadLine::new(row.line, error.field, error.reason)));
            });
            let (Some(account), Ok(customer)) = (account, customer) else { return };
            match customers.entry(account) {
                Entry::Vacant(place) => _ = place.insert((row.line, customer)),
                Entry::Occupied(place) if place.get().1 == customer => {}
                Entry::Occupied(place) => {
                    let reason = format!(
                        "{:?} stands in line {} too, with another record",
                        place.key(),
                        place.get().0
                    );
                    bad.push(BadLine::new(row.line, "account", reason));
                }
            }
        });
        let change = |(account, (_, customer)): (Account, (usize, CustomerRecord))| {
            let before = self.customer(&account);
            let is_new = before.map_or(!customer.is_empty(), |before| *before != customer);
            is_new.then(|| RegisterFact::Customer { account, customer: Box::new(customer) })
        };
        let facts = customers.into_iter().filter_map(change).collect();
        whole(RegisterImport { facts, warnings, ..RegisterImport::default() }, bad)
    }
}
