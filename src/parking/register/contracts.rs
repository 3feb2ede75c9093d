//! Season tickets: which cars of an account have places in which garages, in which dates, and how many of them at once.
//!
//! A contract has *versions*: dates, an account, a number of cars, and a set of (plate, garage). Versions of one contract may overlap
//! where account and number of cars agree, so that a car may join a contract later than others.

use super::DateRange;
use crate::parking::Plate;
use crate::parking::name::{Account, LabelError, label};
use jiff::civil::Date;
use rpds::RedBlackTreeSetSync;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::fmt;
use std::str::FromStr;

/// 1 to 64 bytes of printable UTF-8 in normal form C, without spaces at the ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContractName(SmolStr);

impl ContractName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContractName {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<ContractName, LabelError> {
        Ok(ContractName(label(text)?.into()))
    }
}
impl fmt::Display for ContractName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
serialize_as_text!(ContractName);

/// A garage, by any name that it has or had, or all of them. As a text: the name, or `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContractGarage {
    All,
    Named(SmolStr),
}

impl ContractGarage {
    fn len(&self) -> usize {
        match self {
            ContractGarage::All => 1,
            ContractGarage::Named(name) => name.len(),
        }
    }

    /// True for the garage of which `is_meant` says that it is or was called by a name.
    pub fn contains(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        match self {
            ContractGarage::All => true,
            ContractGarage::Named(name) => is_meant(name),
        }
    }

    /// True where one garage may be in both. `is_same`: whether two names are or were names of one garage.
    pub fn overlaps(&self, other: &ContractGarage, is_same: impl Fn(&str, &str) -> bool) -> bool {
        match (self, other) {
            (ContractGarage::Named(its), ContractGarage::Named(name)) => its == name || is_same(its, name),
            _ => true,
        }
    }
}

impl FromStr for ContractGarage {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<ContractGarage, LabelError> {
        match text.trim() {
            "*" => Ok(ContractGarage::All),
            name => Ok(ContractGarage::Named(label(name)?.into())),
        }
    }
}
impl fmt::Display for ContractGarage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContractGarage::All => f.write_str("*"),
            ContractGarage::Named(name) => f.write_str(name),
        }
    }
}
serialize_as_text!(ContractGarage);

/// A version without its cars.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContractVersion {
    pub dates: DateRange,
    pub account: Account,
    /// How many of its cars hold a place at once; at least 1.
    pub cars: u32,
}

/// A car that a version names, in a garage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContractCar {
    pub plate: Plate,
    pub garage: ContractGarage,
}

/// A contract names the plate in these dates, in this garage. The version is the one with the same dates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlateContract {
    pub contract: ContractName,
    pub dates: DateRange,
    pub garage: ContractGarage,
}

impl ContractCar {
    /// An upper bound of the encoded size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.plate.as_str().len() + self.garage.len() + 4
    }
}

impl PlateContract {
    /// An upper bound of the encoded size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.contract.as_str().len() + self.garage.len() + 14
    }
}

/// The versions of a contract in the order of their dates, each of other dates, and the plates that any of them names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContractHistory {
    versions: Box<[ContractVersion]>,
    pub(super) plates: RedBlackTreeSetSync<Plate>,
}

impl ContractHistory {
    pub fn versions(&self) -> &[ContractVersion] {
        &self.versions
    }

    /// The plates that any version names.
    pub fn plates(&self) -> impl Iterator<Item = &Plate> {
        self.plates.iter()
    }

    pub fn version(&self, dates: DateRange) -> Option<&ContractVersion> {
        let place = self.versions.binary_search_by_key(&dates, |version| version.dates).ok()?;
        Some(&self.versions[place])
    }

    /// The versions with `version` in the place of that of the same dates.
    pub(super) fn with(&self, version: ContractVersion) -> Box<[ContractVersion]> {
        let mut versions = self.versions.to_vec();
        match versions.binary_search_by_key(&version.dates, |its| its.dates) {
            Ok(place) => versions[place] = version,
            Err(place) => versions.insert(place, version),
        }
        versions.into()
    }

    /// The versions without `day` and what is after it. Versions that then have the same dates overlapped before, and are one.
    pub(super) fn ended(&self, day: Date) -> Box<[ContractVersion]> {
        let before = |version: &ContractVersion| {
            Some(ContractVersion { dates: version.dates.before(day)?, ..version.clone() })
        };
        let mut versions: Vec<ContractVersion> = self.versions.iter().filter_map(before).collect();
        versions.sort();
        versions.dedup_by_key(|version| version.dates);
        versions.into()
    }

    pub(super) fn set_versions(&mut self, versions: Box<[ContractVersion]>) {
        self.versions = versions;
    }
}

/// The encoded size of versions in bytes, from above.
pub(super) fn versions_bytes(versions: &[ContractVersion]) -> usize {
    versions.iter().map(|version| version.account.as_str().len() + 17).sum()
}
