//! What stays cost by: the register, the tariffs, and what operators decided about charges. All of it is in memory.
//!
//! | key | value |
//! | --- | --- |
//! | `vbo` | the position (u64) of the command whose tariffs are in force |
//! | `vbh` + plate | a [`PlateEntry`] of the register |
//! | `vbc` + contract | its [`ContractVersion`]s |
//! | `vbu` + account | a [`CustomerRecord`] |
//! | `vbd` + garage + 0 (u8) + epoch (16 bytes) + sequence (u64), and time (u64) of an exit that was made | [`ChargeDecision`]s |

use super::super::codec::{damaged, encode, name_in, read_range, u64_from};
use super::super::decision_map::{Decision, DecisionMap};
use super::super::pages::StoredPassage;
use super::exits::IssuedExit;
use super::garages::BilledGarage;
use crate::messaging::{Digest, SiteName};
use crate::parking::Plate;
use crate::parking::money::Amount;
use crate::parking::payment::{self, Payment};
use crate::parking::register::{
    Account, Affected, ContractName, ContractVersion, CustomerRecord, PlateEntry, Register, RegisterFact,
};
use crate::parking::tariff::{Tariff, TariffSet};
use crate::server::ledger::Ledger;
use crate::server::record::{Command, Record};
use crate::store::{Batch, Store, StoreError};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The charge of a stay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChargeKey {
    /// The key of its garage: an id that names another garage than that of the epoch is of no charge.
    pub garage: SiteName,
    pub exit: IssuedExit,
}

/// What a person decided about a charge.
pub type ChargeDecision = Decision<Decided>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decided {
    /// Nothing of the charge is due.
    Void,
    /// This much less is due.
    Credit(Amount),
    /// The stay is charged although it is longer than 30 days.
    Bill,
}

/// A list that a command puts in force.
#[derive(Debug, Clone, PartialEq)]
pub enum PutInForce {
    Tariffs(TariffSet),
    Register(Vec<RegisterFact>),
    Payments(Vec<Payment>),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct BillingRules {
    pub register: Register,
    /// The set in force, and the position of the command that put it there.
    tariffs: Option<(u64, Arc<TariffSet>)>,
    pub decisions: DecisionMap<ChargeKey, Decided>,
}

/// The parts of the rules that changed and are not written yet.
#[derive(Debug, Default)]
pub struct RulesChanges {
    tariffs: bool,
    plates: BTreeSet<Plate>,
    contracts: BTreeSet<ContractName>,
    customers: BTreeSet<Account>,
    decisions: BTreeSet<ChargeKey>,
}

impl RulesChanges {
    pub fn writes(&self) -> usize {
        let register = self.plates.len() + self.contracts.len() + self.customers.len();
        register + self.decisions.len() + usize::from(self.tariffs)
    }
}

const TARIFFS: &[u8] = b"vbo";

impl BillingRules {
    pub fn load(store: &Store, ledger: &Ledger) -> Result<BillingRules, StoreError> {
        let mut rules = BillingRules::default();
        if let Some(value) = store.get(TARIFFS)? {
            let position = u64_from(&value, 0)?;
            let command = match ledger.record_at(position)? {
                Some(Record::Command { command, .. }) => command,
                _ => return Err(damaged(TARIFFS)),
            };
            let Some(Ok(PutInForce::Tariffs(set))) = PutInForce::read(ledger, position, &command)? else {
                return Err(damaged(TARIFFS));
            };
            rules.tariffs = Some((position, Arc::new(set)));
        }
        let text = |key: &[u8]| String::from_utf8(key[3..].to_vec()).map_err(|_| damaged(key));
        for entry in read_range::<PlateEntry>(store, b"vbh", b"vbi") {
            let (key, its) = entry?;
            let plate = Plate::stored(&text(&key)?).map_err(|_| damaged(&key))?;
            rules.register.load_plate(plate, its);
        }
        for entry in read_range::<Box<[ContractVersion]>>(store, b"vbc", b"vbd") {
            let (key, versions) = entry?;
            let name = text(&key)?.parse().map_err(|_| damaged(&key))?;
            rules.register.load_contract(name, versions);
        }
        for entry in read_range::<CustomerRecord>(store, b"vbu", b"vbv") {
            let (key, customer) = entry?;
            let account = Account::new(&text(&key)?).map_err(|_| damaged(&key))?;
            rules.register.load_customer(account, customer);
        }
        rules.decisions = DecisionMap::load(store, (b"vbd", b"vbe"), read_charge_key)?;
        Ok(rules)
    }

    pub fn save(&self, changes: RulesChanges, batch: &mut Batch) {
        if changes.tariffs
            && let Some((position, _)) = &self.tariffs
        {
            batch.put(TARIFFS, position.to_be_bytes());
        }
        let mut put = |key: Vec<u8>, value: Option<Vec<u8>>| match value {
            Some(value) => batch.put(key, value),
            None => batch.remove(key),
        };
        for plate in changes.plates {
            put([b"vbh", plate.as_str().as_bytes()].concat(), self.register.plate(&plate).map(encode));
        }
        for name in changes.contracts {
            let versions = self.register.contract(&name).map(|history| encode(&history.versions()));
            put([b"vbc", name.as_str().as_bytes()].concat(), versions);
        }
        for account in changes.customers {
            put([b"vbu", account.as_str().as_bytes()].concat(), self.register.customer(&account).map(encode));
        }
        for key in changes.decisions {
            self.decisions.save(&key, charge_key(&key), batch);
        }
    }

    /// The set in force, and the position of the command that put it there.
    pub fn tariffs(&self) -> Option<(u64, &TariffSet)> {
        self.tariffs.as_ref().map(|(position, set)| (*position, &**set))
    }

    pub fn tariff_for(&self, garage: &BilledGarage, entry: Timestamp) -> Option<&Tariff> {
        self.tariffs.as_ref()?.1.for_stay_in(garage.names(), entry)
    }

    /// Whether a tariff or a contract means a garage of this name.
    pub fn mean(&self, name: &str) -> bool {
        let tariffs = self.tariffs.as_ref().is_some_and(|(_, set)| set.names(name));
        let mut entries = self.register.plates().values();
        tariffs
            || entries
                .any(|entry| entry.contracts().iter().any(|line| line.garage.contains(|its| its == name)))
    }

    /// The local date of a passage: in the zone of the tariff of its stay, else as its source wrote it.
    pub fn date(&self, tariff: Option<&Tariff>, passage: StoredPassage) -> Date {
        match (tariff, passage.timestamp()) {
            (Some(tariff), Some(timestamp)) => tariff.date_of(timestamp),
            _ => passage.date(),
        }
    }

    pub fn put_tariffs(&mut self, position: u64, set: TariffSet, changes: &mut RulesChanges) {
        self.tariffs = Some((position, Arc::new(set)));
        changes.tariffs = true;
    }

    pub fn apply(&mut self, fact: &RegisterFact, changes: &mut RulesChanges) -> Affected {
        let affected = self.register.apply(fact);
        changes.plates.extend(affected.plates.iter().map(|(plate, _)| plate.clone()));
        changes.contracts.extend(affected.contract.iter().map(|(name, _)| name.clone()));
        changes.customers.extend(affected.account.iter().cloned());
        affected
    }

    pub fn decide(&mut self, key: ChargeKey, decision: ChargeDecision, changes: &mut RulesChanges) {
        self.decisions.add(key.clone(), decision);
        changes.decisions.insert(key);
    }

    /// Takes a decision back.
    pub fn undo(&mut self, key: ChargeKey, position: u64, changes: &mut RulesChanges) {
        self.decisions.undo(&key, position);
        changes.decisions.insert(key);
    }
}

fn charge_key(key: &ChargeKey) -> Vec<u8> {
    key.exit.key(&[b"vbd", key.garage.as_str().as_bytes(), &[0]].concat())
}

fn read_charge_key(key: &[u8]) -> Result<ChargeKey, StoreError> {
    // No name has a 0 in it.
    let end = key.iter().position(|byte| *byte == 0).ok_or_else(|| damaged(key))?;
    Ok(ChargeKey { garage: name_in(&key[..end], 3)?, exit: IssuedExit::read(key, end + 1)? })
}

impl PutInForce {
    /// What the command at `position` puts in force; `None` for one that is about something else. `Err`: its pieces are missing,
    /// or do not match it.
    pub fn read(
        ledger: &Ledger,
        position: u64,
        command: &Command,
    ) -> Result<Option<Result<PutInForce, String>>, StoreError> {
        let (Command::Tariffs { pieces, digest }
        | Command::Register { pieces, digest }
        | Command::Payments { pieces, digest }) = command
        else {
            return Ok(None);
        };
        let Some(bytes) = gather(ledger, position, *pieces, *digest)? else {
            let reason = "the pieces before it cannot be read, or are not those that it names";
            return Ok(Some(Err(reason.to_owned())));
        };
        let put = match command {
            Command::Tariffs { .. } => String::from_utf8(bytes)
                .map_err(|error| error.to_string())
                .and_then(|text| TariffSet::parse(&text).map_err(|errors| first(&errors)))
                .map(PutInForce::Tariffs),
            Command::Payments { .. } => {
                payment::from_bytes(&bytes).map(PutInForce::Payments).map_err(|error| error.to_string())
            }
            _ => postcard::from_bytes(&bytes).map(PutInForce::Register).map_err(|error| error.to_string()),
        };
        Ok(Some(put.map_err(|error| format!("what it puts in force is not understood: {error}"))))
    }
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
