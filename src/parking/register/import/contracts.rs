//! `contracts import`: adds and changes versions of contracts.

use super::RegisterImport;
use super::plates::read_dates;
use crate::parking::Plate;
use crate::parking::name::Account;
use crate::parking::register::contracts::versions_bytes;
use crate::parking::register::state::disagreements;
use crate::parking::register::{
    ContractCar, ContractChange, ContractHistory, ContractName, ContractVersion, DateRange, PlateContract,
    PlateEntry, Register, RegisterFact,
};
use crate::parking::table::{BadLine, Column, CsvFile, CsvRow, ImportError, whole};
use std::collections::{BTreeMap, BTreeSet};

/// A line of the file. They are sorted by contract, then by dates, then as in the file.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ContractLine {
    contract: ContractName,
    dates: DateRange,
    line: usize,
    account: Account,
    cars: u32,
    car: ContractCar,
}

/// A version of the file, with the line that begins it.
struct FileVersion {
    line: usize,
    version: ContractVersion,
    cars: BTreeSet<ContractCar>,
}

type FileVersions = BTreeMap<(ContractName, DateRange), FileVersion>;

const COLUMNS: [Column; 7] = [
    Column::Required("contract"),
    Column::Required("account"),
    Column::Required("plate"),
    Column::Required("garage"),
    Column::Optional("valid_from"),
    Column::Optional("valid_to"),
    Column::Required("cars"),
];

impl Register {
    /// Reads `contract,account,plate,garage,valid_from,valid_to,cars`; the garage may be `*`, an empty date is open, the last day is
    /// included. The lines of one contract with the same dates are a version: it takes the place of the registered version with these
    /// dates, and is added where there is none. Versions and contracts that the file does not name stay.
    ///
    /// Refused is what names one plate in one garage on one day twice, and what makes versions of one contract overlap that differ in
    /// account or cars. `is_same` says whether two names are or were names of one garage.
    pub fn import_contracts(
        &self,
        text: &str,
        is_same: impl Fn(&str, &str) -> bool,
    ) -> Result<RegisterImport, ImportError> {
        let file = CsvFile::open(text, COLUMNS)?;
        let warnings = file.warnings().to_vec();
        let mut lines: Vec<ContractLine> = Vec::new();
        let mut bad = file.each_row(|row, bad| lines.extend(read_line(&row, bad)));
        lines.sort_unstable();
        let mut versions = FileVersions::new();
        let mut named: Vec<(Plate, PlateContract, usize)> = Vec::with_capacity(lines.len());
        for line in lines {
            let ContractLine { contract, dates, line: number, car, .. } = &line;
            let in_plate =
                PlateContract { contract: contract.clone(), dates: *dates, garage: car.garage.clone() };
            named.push((car.plate.clone(), in_plate, *number));
            add_line(&mut versions, line, &mut bad);
        }
        self.check_versions(&versions, &mut bad);
        // A line that repeats another adds nothing.
        named.sort_unstable();
        named.dedup_by(|line, first| (&line.0, &line.1) == (&first.0, &first.1));
        let mut found = Vec::new();
        for lines in named.chunk_by(|line, next| line.0 == next.0) {
            let after = self.check_named(lines, &versions, &is_same, &mut bad);
            found.extend(disagreements(&lines[0].0, &after, |line| self.account_of(&versions, line)));
        }
        let facts = self.contract_facts(versions);
        whole(RegisterImport { facts, warnings, disagreements: found, unnamed: Vec::new() }, bad)
    }

    /// The account that a line's version has after the import.
    fn account_of<'a>(&'a self, versions: &'a FileVersions, line: &PlateContract) -> Option<&'a Account> {
        match versions.get(&(line.contract.clone(), line.dates)) {
            Some(its) => Some(&its.version.account),
            None => self.account_of_line(line),
        }
    }

    /// Checks that versions of one contract that overlap agree in account and cars.
    fn check_versions(&self, versions: &FileVersions, bad: &mut Vec<BadLine>) {
        let all: Vec<(&ContractName, &FileVersion)> =
            versions.iter().map(|((contract, _), its)| (contract, its)).collect();
        for its in all.chunk_by(|version, next| version.0 == next.0) {
            let contract = its[0].0;
            let is_kept =
                |version: &&ContractVersion| !versions.contains_key(&(contract.clone(), version.dates));
            let registered = self.contract(contract).map_or(&[][..], ContractHistory::versions);
            let kept: Vec<&ContractVersion> = registered.iter().filter(is_kept).collect();
            let after: Vec<ContractVersion> =
                kept.iter().copied().chain(its.iter().map(|(_, its)| &its.version)).cloned().collect();
            if versions_bytes(&after) > PlateEntry::MAX_BYTES {
                let reason =
                    format!("contract {contract} has {} versions, more than can be kept", after.len());
                bad.push(BadLine::new(its[0].1.line, "contract", reason));
                continue;
            }
            for (number, (_, FileVersion { line, version, .. })) in its.iter().enumerate() {
                let clash = |other: &&ContractVersion| {
                    let is_same = (&other.account, other.cars) == (&version.account, version.cars);
                    other.dates.overlap(version.dates).is_some() && !is_same
                };
                let before = its[..number].iter().map(|(_, its)| (&its.version, Some(its.line)));
                let others = before.chain(kept.iter().map(|version| (*version, None)));
                for (other, other_line) in others.filter(|(other, _)| clash(other)) {
                    let place = other_line.map_or("as registered".into(), |line| format!("in line {line}"));
                    let reason = format!(
                        "{} cars of {} {} here, but {} of {} {} {place}: versions of one contract that overlap have the same account and cars",
                        version.cars, version.account, version.dates, other.cars, other.account, other.dates
                    );
                    bad.push(BadLine::new(*line, "contract", reason));
                }
            }
        }
    }

    /// Checks that the lines of one plate name it once in a garage on a day, also with what is registered and stays. Returns its entry
    /// after the import.
    fn check_named(
        &self,
        lines: &[(Plate, PlateContract, usize)],
        versions: &FileVersions,
        is_same: &impl Fn(&str, &str) -> bool,
        bad: &mut Vec<BadLine>,
    ) -> PlateEntry {
        let plate = &lines[0].0;
        let entry = self.plate(plate).cloned().unwrap_or_default();
        let is_replaced = |line: &&PlateContract| versions.contains_key(&(line.contract.clone(), line.dates));
        let replaced: Vec<PlateContract> = entry.contracts().iter().filter(is_replaced).cloned().collect();
        let added: Vec<PlateContract> = lines.iter().map(|(_, line, _)| line.clone()).collect();
        let kept = entry.with(&replaced, &[]);
        let after = kept.with(&[], &added);
        if !after.fits() {
            let reason =
                format!("{plate} is in more contracts than can be kept, {} bytes", PlateEntry::MAX_BYTES);
            bad.push(BadLine::new(lines[0].2, "plate", reason));
            return after;
        }
        for (number, (_, line, at)) in lines.iter().enumerate() {
            let clash = |other: &PlateContract| {
                other.dates.overlap(line.dates).is_some() && other.garage.overlaps(&line.garage, is_same)
            };
            let before = lines[..number].iter().map(|(_, other, at)| (other, Some(*at)));
            let others = before.chain(kept.contracts().iter().map(|other| (other, None)));
            for (other, other_line) in others.filter(|(other, _)| clash(other)) {
                let (line_of_both, place) = match other_line {
                    // The later of two lines is refused.
                    Some(other_line) => (*at.max(&other_line), format!("in line {}", other_line.min(*at))),
                    None => (*at, "as registered; to end that first, use \"server contracts remove\"".into()),
                };
                let (first, second) = if line_of_both == *at { (other, line) } else { (line, other) };
                let reason = format!(
                    "{plate} in garage {} {} is in contract {:?} already, in garage {} {}, {place}",
                    second.garage,
                    second.dates,
                    first.contract.as_str(),
                    first.garage,
                    first.dates
                );
                bad.push(BadLine::new(line_of_both, "plate", reason));
            }
        }
        after
    }

    /// What the versions of the file change. Cars are removed before others are added, so that no plate has more lines in between.
    fn contract_facts(&self, versions: FileVersions) -> Vec<RegisterFact> {
        let (mut removals, mut additions) = (Vec::new(), Vec::new());
        let mut registered: (Option<ContractName>, BTreeMap<DateRange, BTreeSet<ContractCar>>) =
            Default::default();
        for ((contract, dates), FileVersion { version, cars, .. }) in versions {
            if registered.0.as_ref() != Some(&contract) {
                registered = (Some(contract.clone()), self.registered_cars(&contract));
            }
            let before = registered.1.remove(&dates).unwrap_or_default();
            let fact = |removed, added| {
                let (contract, version) = (contract.clone(), version.clone());
                RegisterFact::Contract(Box::new(ContractChange { contract, version, removed, added }))
            };
            let removed = pieces(before.difference(&cars));
            let added = pieces(cars.difference(&before));
            let is_other = self.contract(&contract).and_then(|its| its.version(dates)) != Some(&version);
            if is_other && removed.is_empty() && added.is_empty() {
                additions.push(fact(Vec::new(), Vec::new()));
            }
            removals.extend(removed.into_iter().map(|cars| fact(cars, Vec::new())));
            additions.extend(added.into_iter().map(|cars| fact(Vec::new(), cars)));
        }
        removals.append(&mut additions);
        removals
    }

    /// The cars of each version of a contract.
    fn registered_cars(&self, contract: &ContractName) -> BTreeMap<DateRange, BTreeSet<ContractCar>> {
        let mut cars: BTreeMap<DateRange, BTreeSet<ContractCar>> = BTreeMap::new();
        for plate in self.contract(contract).into_iter().flat_map(ContractHistory::plates) {
            let lines = self.plate(plate).into_iter().flat_map(PlateEntry::contracts);
            for line in lines.filter(|line| line.contract == *contract) {
                let car = ContractCar { plate: plate.clone(), garage: line.garage.clone() };
                cars.entry(line.dates).or_default().insert(car);
            }
        }
        cars
    }
}

/// Adds a line to its version. Lines of one version agree in account and cars.
fn add_line(versions: &mut FileVersions, line: ContractLine, bad: &mut Vec<BadLine>) {
    let ContractLine { contract, dates, line: number, account, cars, car } = line;
    let its = versions.entry((contract, dates)).or_insert_with(|| {
        let version = ContractVersion { dates, account: account.clone(), cars };
        FileVersion { line: number, version, cars: BTreeSet::new() }
    });
    let of = its.line;
    if its.version.account != account {
        let reason = format!("{account} here, but {} in line {of} of the same contract", its.version.account);
        bad.push(BadLine::new(number, "account", reason));
    }
    if its.version.cars != cars {
        let reason = format!("{cars} here, but {} in line {of} of the same contract", its.version.cars);
        bad.push(BadLine::new(number, "cars", reason));
    }
    its.cars.insert(car);
}

/// The cars in pieces, each small enough for one fact.
fn pieces<'a>(cars: impl Iterator<Item = &'a ContractCar>) -> Vec<Vec<ContractCar>> {
    const PIECE: usize = RegisterFact::MAX_BYTES - 600;
    let mut pieces: Vec<Vec<ContractCar>> = Vec::new();
    let mut bytes = PIECE;
    for car in cars {
        let size = car.bytes();
        match pieces.last_mut().filter(|_| bytes + size <= PIECE) {
            Some(piece) => piece.push(car.clone()),
            None => {
                pieces.push(vec![car.clone()]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    pieces
}

fn read_line(row: &CsvRow<'_, 7>, bad: &mut Vec<BadLine>) -> Option<ContractLine> {
    let [contract, account, plate, garage, from, to, cars] = row.cells;
    let contract = row.check("contract", contract.parse::<ContractName>(), bad);
    let account = row.check("account", Account::new(account), bad);
    let plate = row.check("plate", Plate::new(plate), bad);
    let garage = row.check("garage", garage.parse(), bad);
    let dates = read_dates(row, from, to, bad);
    let number = match cars.parse() {
        Ok(number @ 1u32..) if cars.bytes().all(|c| c.is_ascii_digit()) => Ok(number),
        _ => Err(format!("{cars:?} is not a number of cars; the minimum is 1")),
    };
    let cars = row.check("cars", number, bad);
    Some(ContractLine {
        contract: contract?,
        dates: dates?,
        line: row.line,
        account: account?,
        cars: cars?,
        car: ContractCar { plate: plate?, garage: garage? },
    })
}
