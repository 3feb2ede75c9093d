//! Season tickets: which cars of an account may stand in which garages without paying, and how many at once.

use crate::parking::Plate;
use crate::parking::name::{Account, label};
use crate::parking::table::{BadLine, Column, CsvFile, CsvRow, ImportError, date, whole};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A contract covers each of its plates in each of its garages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    pub name: String,
    pub account: Account,
    pub plates: BTreeSet<Plate>,
    pub garages: Garages,
    /// Local dates, both included.
    pub valid_from: Date,
    pub valid_to: Date,
    /// How many of its cars may be inside at once; at least 1.
    pub cars: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Garages {
    All,
    Named(BTreeSet<String>),
}

/// As a file writes it: the garages, or `*`.
impl fmt::Display for Garages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Garages::All => f.write_str("*"),
            Garages::Named(names) => {
                f.write_str(&Vec::from_iter(names.iter().map(String::as_str)).join(", "))
            }
        }
    }
}

impl Contract {
    /// Whether a file could have given it, or what is left of it when its plates are forgotten: what was kept of one is
    /// checked when it is read again.
    pub fn check(&self) -> Result<(), String> {
        let is_label = |text: &String| label(text).is_ok_and(|name| name == *text);
        let garages = match &self.garages {
            Garages::All => true,
            Garages::Named(names) => names.iter().all(is_label),
        };
        match is_label(&self.name) && garages && self.cars > 0 {
            true => Ok(()),
            false => Err("a contract has a name, garages or a number of cars that no file can have".into()),
        }
    }

    /// Whether a stay of `plate` in `garage` from the local date `on` is within it, however many cars are inside.
    pub fn covers(&self, plate: &Plate, garage: &str, on: Date) -> bool {
        let there = match &self.garages {
            Garages::All => true,
            Garages::Named(names) => names.contains(garage),
        };
        there && self.plates.contains(plate) && (self.valid_from..=self.valid_to).contains(&on)
    }
}

/// Reads a file of contracts: `contract,account,plate,garage or *,valid_from,valid_to,cars`; the column of the garage is
/// called `garage`. Lines of one contract add plates and garages to it, and agree in all else. The contracts come out in the
/// order of their names.
pub fn read_contracts(text: &str) -> Result<Vec<Contract>, ImportError> {
    let columns = ["contract", "account", "plate", "garage", "valid_from", "valid_to", "cars"];
    let table = CsvFile::open(text, columns.map(Column::Required))?;
    // By name: the line with which it begins, what that line says, and the whole.
    let mut contracts: BTreeMap<String, (usize, Contract, Contract)> = BTreeMap::new();
    let bad = table.each_row(|row, bad| {
        let Some(part) = check(&row, bad) else { return };
        match contracts.get_mut(&part.name) {
            Some((line, first, contract)) => join(contract, (*line, first), (row.line, part), bad),
            None => _ = contracts.insert(part.name.clone(), (row.line, part.clone(), part)),
        }
    });
    whole(contracts.into_values().map(|(_, _, contract)| contract).collect(), bad)
}

/// The line by itself: a contract of one plate and of one garage or all.
fn check(row: &CsvRow<'_, 7>, bad: &mut Vec<BadLine>) -> Option<Contract> {
    let [name, account, plate, garage, valid_from, valid_to, cars] = row.cells;
    let before = bad.len();
    let mut refuse = |field, reason: String| bad.push(BadLine::new(row.line, field, reason));
    let name = label(name).map_err(|error| refuse("contract", error.to_string()));
    let account = Account::new(account).map_err(|error| refuse("account", error.to_string()));
    let plate = Plate::new(plate).map_err(|error| refuse("plate", error.to_string()));
    let garages = match garage {
        "*" => Ok(Garages::All),
        garage => label(garage)
            .map(|garage| Garages::Named(BTreeSet::from([garage])))
            .map_err(|error| refuse("garage", error.to_string())),
    };
    let valid_from = date(valid_from).map_err(|error| refuse("valid_from", error));
    let valid_to = date(valid_to).map_err(|error| refuse("valid_to", error));
    if let (Ok(from), Ok(to)) = (valid_from, valid_to)
        && to < from
    {
        refuse("valid_to", format!("{to} comes before valid_from, {from}"));
    }
    let cars = match cars.parse() {
        Ok(number @ 1u32..) if cars.bytes().all(|c| c.is_ascii_digit()) => Ok(number),
        _ => Err(format!("{cars:?} is not a number of cars; the minimum is 1")),
    }
    .map_err(|error| refuse("cars", error));
    if bad.len() > before {
        return None;
    }
    Some(Contract {
        name: name.ok()?,
        account: account.ok()?,
        plates: BTreeSet::from([plate.ok()?]),
        garages: garages.ok()?,
        valid_from: valid_from.ok()?,
        valid_to: valid_to.ok()?,
        cars: cars.ok()?,
    })
}

fn join(
    contract: &mut Contract,
    (first_line, first): (usize, &Contract),
    (line, part): (usize, Contract),
    bad: &mut Vec<BadLine>,
) {
    let mut agree = |field, its: &dyn fmt::Display, other: &dyn fmt::Display| {
        let (its, other) = (its.to_string(), other.to_string());
        if its != other {
            let reason = format!("{its} here, but {other} in line {first_line} of the same contract");
            bad.push(BadLine::new(line, field, reason));
        }
    };
    agree("account", &part.account, &first.account);
    agree("valid_from", &part.valid_from, &first.valid_from);
    agree("valid_to", &part.valid_to, &first.valid_to);
    agree("cars", &part.cars, &first.cars);
    match (&mut contract.garages, part.garages) {
        (Garages::Named(names), Garages::Named(more)) => names.extend(more),
        // A garage beside "all of them" is a mistake in one of the two lines, and which one is not ours to guess.
        (_, garages) => agree("garage", &garages, &first.garages),
    }
    contract.plates.extend(part.plates);
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    const HEADER: &str = "contract,account,plate,garage,valid_from,valid_to,cars\n";

    fn contracts(lines: &str) -> Vec<Contract> {
        read_contracts(&format!("{HEADER}{lines}")).unwrap()
    }
    fn refused(lines: &str) -> String {
        read_contracts(&format!("{HEADER}{lines}")).unwrap_err().to_string()
    }
    fn plates(texts: &[&str]) -> BTreeSet<Plate> {
        texts.iter().map(|text| Plate::new(text).unwrap()).collect()
    }

    #[test]
    fn lines_of_one_contract_add_plates_and_garages() {
        let read = contracts(
            "day,miller,B-AB 1,Bull Ring,2026-01-01,2026-12-31,2\n\
             all,smith,XY9,*,2026-01-01,2026-01-01,1\n\
             day,miller,B-AB 2,Bull Ring,2026-01-01,2026-12-31,2\n\
             day,miller,B-AB 2,Su\u{308}d,2026-01-01,2026-12-31,2\n",
        );
        let day = Contract {
            name: "day".into(),
            account: Account::new("miller").unwrap(),
            plates: plates(&["BAB1", "BAB2"]),
            garages: Garages::Named(["Bull Ring".to_owned(), "Süd".to_owned()].into()),
            valid_from: date(2026, 1, 1),
            valid_to: date(2026, 12, 31),
            cars: 2,
        };
        assert_eq!(read.len(), 2);
        assert_eq!((&read[0].garages, read[0].cars), (&Garages::All, 1));
        assert_eq!(read[1], day);
        let bytes = postcard::to_allocvec(&read).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(read));
    }

    #[test]
    fn a_contract_covers_its_plates_in_its_garages_on_its_days() {
        let read =
            contracts("day,miller,AB1,1,2026-02-01,2026-02-28,1\nday,miller,AB2,2,2026-02-01,2026-02-28,1\n");
        let covers = |plate: &str, garage, on| read[0].covers(&Plate::new(plate).unwrap(), garage, on);
        for (plate, garage, on, covered) in [
            ("AB1", "1", date(2026, 2, 1), true),
            ("AB1", "2", date(2026, 2, 28), true),
            ("AB1", "1", date(2026, 1, 31), false),
            ("AB1", "1", date(2026, 3, 1), false),
            ("AB1", "3", date(2026, 2, 2), false),
            ("AB3", "1", date(2026, 2, 2), false),
        ] {
            assert_eq!(covers(plate, garage, on), covered, "{plate} {garage} {on}");
        }
        assert!(contracts("c,a,AB1,*,2026-02-01,2026-02-01,1")[0].covers(
            &Plate::new("AB1").unwrap(),
            "whatever",
            date(2026, 2, 1)
        ));
    }

    #[test]
    fn every_field_is_checked() {
        for (line, reason) in [
            (",a,AB1,*,2026-01-01,2026-01-02,1", "line 2, contract: it is empty"),
            ("c,Unregistered,AB1,*,2026-01-01,2026-01-02,1", "line 2, account: \"Unregistered\" is reserved"),
            ("c,a,-,*,2026-01-01,2026-01-02,1", "line 2, plate: a plate has 1 to 16"),
            ("c,a,AB1,,2026-01-01,2026-01-02,1", "line 2, garage: it is empty"),
            ("c,a,AB1,*,1.2.2026,2026-01-02,1", "line 2, valid_from: \"1.2.2026\" is not a date"),
            ("c,a,AB1,*,2026-01-01,2026-02-29,1", "line 2, valid_to: \"2026-02-29\" is not a date"),
            ("c,a,AB1,*,2026-01-01,2026-01-02T00:00,1", "line 2, valid_to: "),
            (
                "c,a,AB1,*,2026-01-02,2026-01-01,1",
                "line 2, valid_to: 2026-01-01 comes before valid_from, 2026-01-02",
            ),
            ("c,a,AB1,*,2026-01-01,2026-01-02,0", "line 2, cars: \"0\" is not a number of cars"),
            ("c,a,AB1,*,2026-01-01,2026-01-02,+2", "line 2, cars: "),
            ("c,a,AB1,*,2026-01-01,2026-01-02,1.5", "line 2, cars: "),
            ("c,a,AB1,*,2026-01-01,2026-01-02,4294967296", "line 2, cars: "),
        ] {
            let error = refused(line);
            assert!(error.starts_with(reason) && error.lines().count() == 1, "{line}: {error}");
        }
        assert_eq!(refused(",,,,,,x").lines().count(), 7);
    }

    #[test]
    fn lines_of_one_contract_that_disagree_are_both_named() {
        let error = refused(
            "c,a,AB1,*,2026-01-01,2026-01-31,1\n\
             d,z,AB1,*,2026-01-01,2026-01-31,1\n\
             c,b,AB2,North,2026-01-02,2026-01-30,2\n",
        );
        let expected = "\
line 4, account: b here, but a in line 2 of the same contract
line 4, cars: 2 here, but 1 in line 2 of the same contract
line 4, garage: North here, but * in line 2 of the same contract
line 4, valid_from: 2026-01-02 here, but 2026-01-01 in line 2 of the same contract
line 4, valid_to: 2026-01-30 here, but 2026-01-31 in line 2 of the same contract";
        assert_eq!(error, expected);
        let error = refused("c,a,AB1,North,2026-01-01,2026-01-31,1\nc,a,AB1,*,2026-01-01,2026-01-31,1\n");
        assert_eq!(error, "line 3, garage: * here, but North in line 2 of the same contract");
    }
}
