//! The register as it is after some facts.

use super::contracts::versions_bytes;
use super::{
    Affected, ContractChange, ContractHistory, ContractName, ContractVersion, CustomerRecord, DateRange,
    Disagreement, Held, Holders, PlateContract, RegisterFact,
};
use crate::parking::Plate;
use crate::parking::name::Account;
use jiff::civil::Date;
use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};

/// Who holds which plate, which contracts name it, and who is billed for an account. A clone is an immutable snapshot: it costs nothing,
/// and later changes share what they leave as it is.
///
/// It is a function of the sequence of its facts. Any fact can be applied: what no command makes (more than [`PlateEntry::MAX_BYTES`]
/// hold, a car of a contract that is in two contracts) is ignored or decided by the order of the names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Register {
    plates: RedBlackTreeMapSync<Plate, PlateEntry>,
    contracts: RedBlackTreeMapSync<ContractName, ContractHistory>,
    customers: RedBlackTreeMapSync<Account, CustomerRecord>,
}

/// What the register holds about one plate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlateEntry {
    pub holders: Holders,
    /// In order, without repetitions.
    contracts: Box<[PlateContract]>,
}

impl PlateEntry {
    /// The encoded size is never above this, so that it fits a value of the store.
    pub const MAX_BYTES: usize = 5120;

    pub fn contracts(&self) -> &[PlateContract] {
        &self.contracts
    }

    pub(super) fn with_holders(self, holders: Holders) -> PlateEntry {
        PlateEntry { holders, contracts: self.contracts }
    }

    /// The entry without these lines and with those; the order is kept.
    pub(super) fn with(&self, removed: &[PlateContract], added: &[PlateContract]) -> PlateEntry {
        let kept = self.contracts.iter().filter(|its| !removed.contains(its));
        let mut contracts: Vec<PlateContract> = kept.chain(added).cloned().collect();
        contracts.sort_unstable();
        contracts.dedup();
        PlateEntry { holders: self.holders.clone(), contracts: contracts.into() }
    }

    pub(super) fn fits(&self) -> bool {
        let contracts = self.contracts.iter().map(PlateContract::bytes).sum::<usize>();
        self.holders.bytes() + contracts + 8 <= PlateEntry::MAX_BYTES
    }

    fn is_empty(&self) -> bool {
        self.holders.list().is_empty() && self.contracts.is_empty()
    }
}

/// The contract that names a car on a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedBy<'a> {
    pub contract: &'a ContractName,
    pub version: &'a ContractVersion,
}

impl Register {
    /// To whom the plate is registered on that day.
    pub fn holder(&self, plate: &Plate, day: Date) -> Option<&Account> {
        self.plates.get(plate)?.holders.on(day)
    }

    /// The contract that names the plate on that local date of entry in the garage of which `is_meant` says that it is or was called by
    /// a name.
    pub fn contract_of(
        &self,
        plate: &Plate,
        is_meant: impl Fn(&str) -> bool,
        day: Date,
    ) -> Option<NamedBy<'_>> {
        let lines = self.plates.get(plate)?.contracts.iter();
        let mut named = lines.filter(|line| line.dates.contains(day) && line.garage.contains(&is_meant));
        named.find_map(|line| {
            let version = self.contracts.get(&line.contract)?.version(line.dates)?;
            Some(NamedBy { contract: &line.contract, version })
        })
    }

    pub fn plate(&self, plate: &Plate) -> Option<&PlateEntry> {
        self.plates.get(plate)
    }

    pub fn contract(&self, contract: &ContractName) -> Option<&ContractHistory> {
        self.contracts.get(contract)
    }

    pub fn customer(&self, account: &Account) -> Option<&CustomerRecord> {
        self.customers.get(account)
    }

    /// All plates that are registered or in a contract, in any dates.
    pub fn plates(&self) -> &RedBlackTreeMapSync<Plate, PlateEntry> {
        &self.plates
    }

    pub fn contracts(&self) -> &RedBlackTreeMapSync<ContractName, ContractHistory> {
        &self.contracts
    }

    pub fn customers(&self) -> &RedBlackTreeMapSync<Account, CustomerRecord> {
        &self.customers
    }

    /// Where the plate is registered to another account than that of a contract that names it.
    pub fn disagreements_of(&self, plate: &Plate) -> Vec<Disagreement> {
        let Some(entry) = self.plates.get(plate) else { return Vec::new() };
        disagreements(plate, entry, |line| self.account_of_line(line))
    }

    /// The account of the version by which a contract names a plate.
    pub(super) fn account_of_line(&self, line: &PlateContract) -> Option<&Account> {
        Some(&self.contracts.get(&line.contract)?.version(line.dates)?.account)
    }

    /// Puts back what was stored of a plate.
    pub fn load_plate(&mut self, plate: Plate, entry: PlateEntry) {
        for line in &entry.contracts {
            self.note_in_contract(&line.contract, &plate);
        }
        self.put_plate(plate, entry);
    }

    /// Puts back what was stored of a contract: [`ContractHistory::versions`].
    pub fn load_contract(&mut self, contract: ContractName, versions: Box<[ContractVersion]>) {
        let mut history = self.contracts.get(&contract).cloned().unwrap_or_default();
        history.set_versions(versions);
        self.contracts.insert_mut(contract, history);
    }

    /// Puts back what was stored of an account.
    pub fn load_customer(&mut self, account: Account, customer: CustomerRecord) {
        self.customers.insert_mut(account, customer);
    }

    /// Applies a fact. The work is in proportion to the fact, and where a contract ends or its account or number of cars changes, to its
    /// plates. What must be stored again is that of the plates, the contract and the account that are named in the result.
    pub fn apply(&mut self, fact: &RegisterFact) -> Affected {
        match fact {
            RegisterFact::Holder { plate, dates, account } => self.hold(plate, *dates, account.as_ref()),
            RegisterFact::Customer { account, customer } => self.bill(account, customer),
            RegisterFact::Contract(change) => self.change_contract(change),
            RegisterFact::ContractEnd { contract, on } => self.end_contract(contract, *on),
        }
    }

    fn hold(&mut self, plate: &Plate, dates: DateRange, account: Option<&Account>) -> Affected {
        let before = self.plates.get(plate).cloned().unwrap_or_default();
        let changed = before.holders.differing(dates, account);
        let holders = before.holders.set(dates, account);
        let after = before.with_holders(holders);
        if changed.is_empty() || !after.fits() {
            return Affected::default();
        }
        self.put_plate(plate.clone(), after);
        let plates = changed.into_iter().map(|dates| (plate.clone(), dates)).collect();
        Affected { plates, ..Affected::default() }
    }

    fn bill(&mut self, account: &Account, customer: &CustomerRecord) -> Affected {
        let before = self.customers.get(account);
        if before.map_or(customer.is_empty(), |before| before == customer) {
            return Affected::default();
        }
        match customer.is_empty() {
            true => _ = self.customers.remove_mut(account),
            false => self.customers.insert_mut(account.clone(), customer.clone()),
        }
        Affected { account: Some(account.clone()), ..Affected::default() }
    }

    fn change_contract(&mut self, change: &ContractChange) -> Affected {
        let ContractChange { contract, version, removed, added } = change;
        let dates = version.dates;
        let mut history = self.contracts.get(contract).cloned().unwrap_or_default();
        let versions = history.with(version.clone());
        if versions_bytes(&versions) > PlateEntry::MAX_BYTES {
            return Affected::default();
        }
        let mut plates = Vec::new();
        if history.version(dates) != Some(version) {
            let is_in = |plate: &&Plate| {
                let lines = self.plates.get(*plate).into_iter().flat_map(PlateEntry::contracts);
                lines.into_iter().any(|line| line.contract == *contract && line.dates == dates)
            };
            plates.extend(history.plates().filter(is_in).map(|plate| (plate.clone(), dates)));
            history.set_versions(versions);
            self.contracts.insert_mut(contract.clone(), history);
        } else if removed.is_empty() && added.is_empty() {
            return Affected::default();
        }
        let line = |garage| PlateContract { contract: contract.clone(), dates, garage };
        for car in removed {
            plates.extend(
                self.put_lines(&car.plate, contract, &[line(car.garage.clone())], &[])
                    .then(|| (car.plate.clone(), dates)),
            );
        }
        for car in added {
            plates.extend(
                self.put_lines(&car.plate, contract, &[], &[line(car.garage.clone())])
                    .then(|| (car.plate.clone(), dates)),
            );
        }
        Affected { plates, contract: Some((contract.clone(), dates)), account: None }
    }

    fn end_contract(&mut self, contract: &ContractName, on: Date) -> Affected {
        let Some(mut history) = self.contracts.get(contract).cloned() else { return Affected::default() };
        let versions = history.ended(on);
        if *versions == *history.versions() {
            return Affected::default();
        }
        let ended = history.versions().iter().filter_map(|version| version.dates.since(on));
        let dates = ended.reduce(DateRange::around).unwrap_or(DateRange::starting(on));
        history.set_versions(versions);
        let cars: Vec<Plate> = history.plates().cloned().collect();
        self.contracts.insert_mut(contract.clone(), history);
        let mut plates = Vec::new();
        for plate in cars {
            let lines = self.plates.get(&plate).into_iter().flat_map(PlateEntry::contracts);
            let ending = |line: &&PlateContract| line.contract == *contract && line.dates.since(on).is_some();
            let removed: Vec<PlateContract> = lines.into_iter().filter(ending).cloned().collect();
            let cut =
                |line: &PlateContract| Some(PlateContract { dates: line.dates.before(on)?, ..line.clone() });
            let added: Vec<PlateContract> = removed.iter().filter_map(cut).collect();
            self.put_lines(&plate, contract, &removed, &added);
            plates.extend(removed.iter().filter_map(|line| Some((plate.clone(), line.dates.since(on)?))));
        }
        if self.contracts.get(contract).is_some_and(|history| history.versions().is_empty()) {
            self.contracts.remove_mut(contract);
        }
        Affected { plates, contract: Some((contract.clone(), dates)), account: None }
    }

    /// Changes the lines of a plate in a contract; `false`: nothing is different, or it would be too much for one plate.
    fn put_lines(
        &mut self,
        plate: &Plate,
        contract: &ContractName,
        removed: &[PlateContract],
        added: &[PlateContract],
    ) -> bool {
        let before = self.plates.get(plate).cloned().unwrap_or_default();
        let after = before.with(removed, added);
        if after == before || !after.fits() {
            return false;
        }
        let is_in = |entry: &PlateEntry| entry.contracts.iter().any(|line| line.contract == *contract);
        match (is_in(&before), is_in(&after)) {
            (false, true) => self.note_in_contract(contract, plate),
            (true, false) => {
                if let Some(history) = self.contracts.get_mut(contract) {
                    history.plates.remove_mut(plate);
                }
            }
            _ => {}
        }
        self.put_plate(plate.clone(), after);
        true
    }

    fn note_in_contract(&mut self, contract: &ContractName, plate: &Plate) {
        match self.contracts.get_mut(contract) {
            Some(history) => history.plates.insert_mut(plate.clone()),
            None => {
                let mut history = ContractHistory::default();
                history.plates.insert_mut(plate.clone());
                self.contracts.insert_mut(contract.clone(), history);
            }
        }
    }

    fn put_plate(&mut self, plate: Plate, entry: PlateEntry) {
        match entry.is_empty() {
            true => _ = self.plates.remove_mut(&plate),
            false => self.plates.insert_mut(plate, entry),
        }
    }
}

/// Where the holder of a plate is not the account of a contract that names it. `account_of` finds the account of a line's version.
pub(super) fn disagreements<'a>(
    plate: &Plate,
    entry: &PlateEntry,
    account_of: impl Fn(&PlateContract) -> Option<&'a Account>,
) -> Vec<Disagreement> {
    let mut found = Vec::new();
    for line in &entry.contracts {
        let Some(payer) = account_of(line) else { continue };
        let other = |held: &&Held| held.account != *payer;
        for held in entry.holders.overlapping(line.dates).filter(other) {
            let Some(dates) = held.dates.overlap(line.dates) else { continue };
            let (plate, contract) = (plate.clone(), line.contract.clone());
            let (holder, payer) = (held.account.clone(), payer.clone());
            found.push(Disagreement { plate, dates, holder, contract, payer });
        }
    }
    found.sort();
    found.dedup();
    found
}
