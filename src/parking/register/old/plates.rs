//! Registrations: to which account a plate is charged.

use crate::parking::Plate;
use crate::parking::name::{Account, printable};
use crate::parking::table::{BadLine, Column, CsvFile, ImportError, whole};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub plate: Plate,
    pub account: Account,
    /// Who holds the account or drives the car, as statements show it; may be empty.
    pub name: String,
}

const NAME_MAX: usize = 256;

impl Registration {
    /// Whether a file could have given it: what was kept of one is checked when it is read again.
    pub fn check(&self) -> Result<(), String> {
        match printable(&self.name, NAME_MAX) {
            Ok(name) if name == self.name => Ok(()),
            Ok(_) => Err(format!("the name of {} is not as it is written", self.plate)),
            Err(error) => Err(format!("the name of {}: {error}", self.plate)),
        }
    }
}

/// Reads `plate,account,name`. Each plate comes out once, in the order of the file; a line that repeats another adds nothing.
pub fn read_plates(text: &str) -> Result<Vec<Registration>, ImportError> {
    let mut registrations = Vec::new();
    let mut known: BTreeMap<Plate, (usize, usize)> = BTreeMap::new(); // line, place in `registrations`
    let table = CsvFile::open(text, ["plate", "account", "name"].map(Column::Required))?;
    let bad = table.each_row(|row, bad| {
        let [plate, account, name] = row.cells;
        let plate = row.check("plate", Plate::new(plate), bad);
        let account = row.check("account", Account::new(account), bad);
        let name = row.check("name", printable(name, NAME_MAX), bad);
        let (Some(plate), Some(account), Some(name)) = (plate, account, name) else { return };
        let registration = Registration { plate, account, name };
        match known.entry(registration.plate.clone()) {
            Entry::Vacant(place) => {
                place.insert((row.line, registrations.len()));
                registrations.push(registration);
            }
            Entry::Occupied(place) => {
                let (line, place) = *place.get();
                let first: &Registration = &registrations[place];
                if *first != registration {
                    let (plate, account, name) = (&first.plate, first.account.as_str(), &first.name);
                    let reason = format!(
                        "{plate} stands in line {line} too, with account {account:?} and name {name:?}"
                    );
                    bad.push(BadLine::new(row.line, "plate", reason));
                }
            }
        }
    });
    whole(registrations, bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registration(plate: &str, account: &str, name: &str) -> Registration {
        Registration {
            plate: Plate::new(plate).unwrap(),
            account: Account::new(account).unwrap(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn plates_are_read_in_their_normal_form() {
        let text = "plate,account,name\nB-AB 123,miller,\"Miller, Jo\"\nа 123 вс 77,4711,\nbab123 , miller ,\"Miller, Jo\"\n";
        let expected = [registration("BAB123", "miller", "Miller, Jo"), registration("А123ВС77", "4711", "")];
        assert_eq!(read_plates(text).unwrap(), expected);
        assert_eq!(read_plates("plate,account,name\n").unwrap(), []);
    }

    #[test]
    fn every_bad_line_is_named_and_nothing_is_taken() {
        let text = "plate,account,name\nAB1,miller,Jo\nA?,,Jo\nAB2\nAB3,unregistered,Jo\nab-1,smith,Jo\nAB4,miller,a\u{7}b\nAB1,miller,Joe\n";
        let expected = "\
line 3, account: it is empty
line 3, plate: a plate is made of letters and digits, '?' is neither
line 4: it has 1 fields, the header has 3
line 5, account: \"unregistered\" is reserved for the stays of unregistered plates
line 6, plate: AB1 stands in line 2 too, with account \"miller\" and name \"Jo\"
line 7, name: it contains '\\u{7}', which is not a printable character
line 8, plate: AB1 stands in line 2 too, with account \"miller\" and name \"Jo\"";
        assert_eq!(read_plates(text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_quote_that_nobody_closes_swallows_no_line_in_silence() {
        let error = read_plates("plate,account,name\nAB1,miller,\"Jo\nAB2,miller,Jim\n").unwrap_err();
        assert!(error.to_string().starts_with("line 2, name: "), "{error}");
    }

    #[test]
    fn a_registration_travels_in_postcard() {
        let all = vec![registration("ab 1", "miller", "Jo"), registration("京A12345", "x", "")];
        let bytes = postcard::to_allocvec(&all).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(all));
    }

    proptest! {
        /// The oracle is the writer: what a spreadsheet writes comes back, in order, first mention of each plate.
        #[test]
        fn what_was_written_is_read(
            cars in prop::collection::btree_map("[A-Z]{2}[0-9]{1,4}", ("[a-z ;,\"]{0,8}x", "[ -~]{0,12}"), 0..12),
            semicolons in any::<bool>(),
        ) {
            let separator = if semicolons { b';' } else { b',' };
            let mut writer = csv::WriterBuilder::new().delimiter(separator).from_writer(Vec::new());
            writer.write_record(["plate", "account", "name"]).unwrap();
            for (plate, (account, name)) in &cars {
                writer.write_record([plate, account, name]).unwrap();
            }
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let expected: Vec<Registration> =
                cars.iter().map(|(plate, (account, name))| registration(plate, account, name.trim())).collect();
            prop_assert_eq!(read_plates(&text), Ok(expected));
        }
    }
}
