//! What the commands of operators put in force: tariffs, registered plates, contracts.
//!
//! All of it is in memory. The views keep only the positions of the commands, and read them from the ledger again when they are
//! opened, so nothing is stored twice.
//!
//! | key | value |
//! | --- | --- |
//! | `vbo` + n (u32) | the positions (u64) of commands `500 n` to `500 n + 499` of these, in order |

use super::super::SharedMap;
use super::super::codec::{damaged, encode, key_u32, read_range};
use super::entries::TariffRef;
use crate::messaging::Digest;
use crate::parking::Plate;
use crate::parking::register::{Contract, Registration};
use crate::parking::tariff::{Tariff, TariffSet};
use crate::server::ledger::Ledger;
use crate::server::record::{Command, Record};
use crate::store::{Batch, Store, StoreError};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub enum InForceChange {
    Tariffs(TariffSet),
    Plates(Vec<Registration>),
    RemovePlate(Plate),
    Contracts(Vec<Contract>),
    RemoveContract(String),
    /// A command that was removed when the ledger was compacted. It puts nothing in force.
    Erased,
}

impl InForceChange {
    /// What the command at `position` puts in force; `None` for one that is about something else. `Err`: its pieces are missing,
    /// or do not match it.
    pub fn read(
        ledger: &Ledger,
        position: u64,
        command: &Command,
    ) -> Result<Option<Result<InForceChange, String>>, StoreError> {
        let (pieces, digest) = match command {
            Command::Tariffs { pieces, digest }
            | Command::Plates { pieces, digest }
            | Command::Contracts { pieces, digest } => (*pieces, *digest),
            Command::RemovePlate { plate } => {
                let plate = Plate::stored(plate).map_err(|error| error.to_string());
                return Ok(Some(plate.map(InForceChange::RemovePlate)));
            }
            Command::RemoveContract { contract } => {
                return Ok(Some(Ok(InForceChange::RemoveContract(contract.clone()))));
            }
            Command::Erased => return Ok(Some(Ok(InForceChange::Erased))),
            _ => return Ok(None),
        };
        let Some(bytes) = gather(ledger, position, pieces, digest)? else {
            let reason = "the pieces before it cannot be read, or are not those that it names";
            return Ok(Some(Err(reason.to_owned())));
        };
        let said = |error: String| format!("what it puts in force is not understood: {error}");
        Ok(Some(match command {
            Command::Tariffs { .. } => String::from_utf8(bytes)
                .map_err(|error| error.to_string())
                .and_then(|text| TariffSet::parse(&text).map_err(|errors| first(&errors)))
                .map(InForceChange::Tariffs)
                .map_err(said),
            Command::Plates { .. } => {
                read_list(&bytes, Registration::check).map(InForceChange::Plates).map_err(said)
            }
            _ => read_list(&bytes, Contract::check).map(InForceChange::Contracts).map_err(said),
        }))
    }
}

/// Reads a recorded list. It is refused for the same reasons as a file: entries of charges repeat parts of it, and their size is
/// limited.
fn read_list<T: DeserializeOwned>(
    bytes: &[u8],
    check: impl Fn(&T) -> Result<(), String>,
) -> Result<Vec<T>, String> {
    let list: Vec<T> = postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
    list.iter().try_for_each(check)?;
    Ok(list)
}

fn first(errors: &[impl ToString]) -> String {
    errors.first().map(ToString::to_string).unwrap_or_default()
}

/// The most pieces of one command: more than the longest request of an operator comes to.
const PIECES_MAX: u32 = 8192;

/// What stands in the `pieces` records before `position`, if it has that digest.
fn gather(
    ledger: &Ledger,
    position: u64,
    pieces: u32,
    digest: Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(from) = position.checked_sub(pieces.into()).filter(|_| pieces <= PIECES_MAX) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    for position in from..position {
        match ledger.record_at(position) {
            Ok(Some(Record::Command { command: Command::Piece { bytes: piece }, .. })) => bytes.extend(piece),
            Ok(_) | Err(StoreError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok((Digest::of(&bytes) == digest).then_some(bytes))
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct InForce {
    positions: Vec<u64>,
    /// All sets that were ever in force, by the position from which on they were.
    sets: BTreeMap<u64, Arc<TariffSet>>,
    plates: SharedMap<Plate, Registration>,
    /// By number, in the order in which their names were first seen; without those that were removed.
    contracts: SharedMap<u32, Contract>,
    contract_numbers: SharedMap<String, u32>,
    contracts_of: SharedMap<Plate, BTreeSet<u32>>,
}

const POSITIONS_IN_A_PAGE: usize = 500;

impl InForce {
    pub fn put(&mut self, position: u64, order: InForceChange) {
        self.positions.push(position);
        match order {
            InForceChange::Tariffs(set) => {
                self.sets.insert(position, Arc::new(set));
            }
            InForceChange::Plates(plates) => {
                plates.into_iter().for_each(|its| self.plates.insert_mut(its.plate.clone(), its));
            }
            InForceChange::RemovePlate(plate) => {
                self.plates.remove_mut(&plate);
            }
            InForceChange::Contracts(contracts) => {
                contracts.into_iter().for_each(|contract| self.put_contract(contract))
            }
            InForceChange::Erased => {}
            InForceChange::RemoveContract(name) => {
                if let Some(number) = self.contract_numbers.get(&name).copied() {
                    self.replace_contract(number, None);
                }
            }
        }
    }

    fn put_contract(&mut self, contract: Contract) {
        let number = self.contract_numbers.get(&contract.name).copied().unwrap_or_else(|| {
            let next = self.contract_numbers.size();
            let next = u32::try_from(next).expect("there are fewer contracts than people");
            self.contract_numbers.insert_mut(contract.name.clone(), next);
            next
        });
        self.replace_contract(number, Some(contract));
    }

    fn replace_contract(&mut self, number: u32, contract: Option<Contract>) {
        for plate in self.contracts.get(&number).iter().flat_map(|former| &former.plates) {
            if let Some(numbers) = self.contracts_of.get_mut(plate) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.contracts_of.remove_mut(plate);
                }
            }
        }
        for plate in contract.iter().flat_map(|contract| &contract.plates) {
            let mut numbers = self.contracts_of.get(plate).cloned().unwrap_or_default();
            numbers.insert(number);
            self.contracts_of.insert_mut(plate.clone(), numbers);
        }
        match contract {
            Some(contract) => self.contracts.insert_mut(number, contract),
            None => drop(self.contracts.remove_mut(&number)),
        }
    }

    pub fn registration(&self, plate: &Plate) -> Option<&Registration> {
        self.plates.get(plate)
    }

    pub fn names(&self, plate: &Plate) -> bool {
        self.plates.contains_key(plate) || self.contracts_of.contains_key(plate)
    }

    pub fn plates(&self) -> &SharedMap<Plate, Registration> {
        &self.plates
    }

    pub fn contracts(&self) -> impl Iterator<Item = &Contract> {
        self.contracts.values()
    }

    pub fn contract(&self, number: u32) -> Option<&Contract> {
        self.contracts.get(&number)
    }

    /// The contracts of a plate that hold on a day in a garage, in the order in which they came.
    pub fn contracts_for(
        &self,
        plate: &Plate,
        garage: &str,
        day: Date,
    ) -> impl Iterator<Item = (u32, &Contract)> {
        let numbers = self.contracts_of.get(plate).into_iter().flatten();
        numbers.filter_map(move |number| {
            let contract = self.contract(*number)?;
            contract.covers(plate, garage, day).then_some((*number, contract))
        })
    }

    /// The set in force, and since which position.
    pub fn tariffs(&self) -> Option<(u64, &TariffSet)> {
        self.sets.last_key_value().map(|(position, set)| (*position, &**set))
    }

    /// The tariff of a garage for a stay that begins at `entry`, and where it stands.
    pub fn tariff_for(&self, garage: &str, entry: Timestamp) -> Option<(TariffRef, &Tariff)> {
        let (set, tariffs) = self.tariffs()?;
        let tariff = tariffs.for_stay(garage, entry)?;
        let place = tariffs.tariffs().iter().position(|its| std::ptr::eq(its, tariff))?;
        Some((TariffRef { set, tariff: u16::try_from(place).ok()? }, tariff))
    }

    pub fn tariff(&self, by: TariffRef) -> Option<&Tariff> {
        self.sets.get(&by.set)?.tariffs().get(usize::from(by.tariff))
    }

    pub fn load(store: &Store, ledger: &Ledger) -> Result<InForce, StoreError> {
        let mut in_force = InForce::default();
        for entry in read_range::<Vec<u64>>(store, b"vbo", b"vbp") {
            let (key, positions) = entry?;
            for position in positions {
                let command = match ledger.record_at(position)? {
                    Some(Record::Command { command, .. }) => command,
                    _ => return Err(damaged(&key)),
                };
                match InForceChange::read(ledger, position, &command)? {
                    Some(Ok(order)) => in_force.put(position, order),
                    _ => return Err(damaged(&key)),
                }
            }
        }
        Ok(in_force)
    }

    pub fn last_page(&self) -> u32 {
        let page = self.positions.len().saturating_sub(1) / POSITIONS_IN_A_PAGE;
        u32::try_from(page).expect("there are fewer commands")
    }

    pub fn save(&self, page: u32, batch: &mut Batch) {
        let from = page as usize * POSITIONS_IN_A_PAGE;
        let to = self.positions.len().min(from + POSITIONS_IN_A_PAGE);
        batch.put(key_u32(b"vbo", page), encode(&&self.positions[from..to]));
    }
}
