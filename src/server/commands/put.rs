//! Lists that are put in force: tariffs, and changes of the register. They are read and compared before anything is recorded.

use crate::messaging::{Digest, SiteName};
use crate::parking::Plate;
use crate::parking::register::{
    Account, ContractName, CustomerPatch, DateRange, Disagreement, Register, RegisterFact, RegisterImport,
    ShownFact,
};
use crate::parking::tariff::{Tariff, TariffSet};
use crate::server::record::Command;
use crate::server::view::Snapshot;
use crate::server::view::billing::recorder::RatingEffect;
use crate::server::view::billing::rules::PutInForce;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// How many bytes one record holds, beside its name.
const PIECE: usize = 5 * 1024;
/// How many of the registered plates that are missing in a file are listed.
const UNNAMED_SHOWN: usize = 20;
/// How many changes are shown one by one.
const CHANGES_SHOWN: usize = 10_000;

/// The operator's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Put {
    /// A configuration with `[[tariff]]` and `[[calendar]]`, as TOML. One that could change a price that exists is refused unless it is
    /// retroactive.
    Tariffs {
        toml: String,
        retroactive: Retroactive,
    },
    /// CSV.
    Plates(String),
    /// CSV.
    Accounts(String),
    /// CSV.
    Contracts(String),
    AddPlate {
        plate: Plate,
        account: Account,
        dates: DateRange,
    },
    /// `on` is the first day without it.
    RemovePlate {
        plate: Plate,
        on: Date,
    },
    SetAccount {
        account: Account,
        patch: CustomerPatch,
    },
    /// `on` is the first day without it.
    RemoveContract {
        contract: ContractName,
        on: Date,
    },
}

/// Whether tariffs may change prices that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retroactive {
    Refused,
    Allowed,
}

/// What is to be recorded, and what it changes, as operators read it.
#[derive(Debug, Serialize)]
pub struct Prepared {
    /// Line by line: the first [`CHANGES_SHOWN`] of them, because those of a whole city's register would fill the memory.
    pub changes: Vec<String>,
    pub changes_total: usize,
    /// About the input: what of it is not used, and plates whose holder is not the account of their contract.
    pub warnings: Vec<String>,
    /// The first of the registered plates that a file of plates does not name: they stay.
    pub unnamed: Vec<String>,
    pub unnamed_total: usize,
    /// What becomes of drafts.
    pub drafts: RatingEffect,
    #[serde(skip)]
    pub pieces: Vec<Vec<u8>>,
    #[serde(skip)]
    pub command: Command,
}

/// What is to be recorded, and what is in force once it is.
type News = (Prepared, PutInForce);

/// Reads what was given, and says what it changes. `Err`: every fault that it has; nothing was recorded.
pub fn prepare(view: &Snapshot, put: &Put, today: Date) -> Result<News, String> {
    match put {
        Put::Tariffs { toml, retroactive } => tariffs(view, toml, *retroactive, today),
        put => register(view, put),
    }
}

fn tariffs(view: &Snapshot, toml: &str, retroactive: Retroactive, today: Date) -> Result<News, String> {
    let set = TariffSet::parse(toml).map_err(|errors| all(&errors))?;
    let known = view.billing.rules.tariffs().map(|(_, known)| known);
    let differences = known.map(|known| known.differences(&set, today)).unwrap_or_default();
    if !differences.is_empty() && retroactive == Retroactive::Refused {
        return Err(format!(
            "these tariffs would change prices of stays that have ended:\n{}\nGive them a later valid_from, or use --retroactive, which shows what changes with --dry-run",
            differences.join("\n")
        ));
    }
    let changes = changed_tariffs(known, &set);
    let (parts, pieces, digest) = in_pieces(set.to_toml().into_bytes());
    let command = Command::Tariffs { pieces, digest };
    Ok((prepared(changes, differences, (parts, command)), PutInForce::Tariffs(set)))
}

/// A line for each tariff that is new, other or gone. Empty: nothing changes.
fn changed_tariffs(known: Option<&TariffSet>, set: &TariffSet) -> Vec<String> {
    let before = known.map(TariffSet::tariffs).unwrap_or_default();
    let is_in = |tariffs: &[Tariff], its: &Tariff| {
        tariffs.iter().any(|other| (&other.name, other.valid_from) == (&its.name, its.valid_from))
    };
    let line = |sign: &str, its: &Tariff| format!("{sign} tariff {:?} from {} on", its.name, its.valid_from);
    let new = set.tariffs().iter().filter(|its| !before.contains(its));
    let new = new.map(|its| line(if is_in(before, its) { "~" } else { "+" }, its));
    let gone = before.iter().filter(|its| !is_in(set.tariffs(), its)).map(|its| line("-", its));
    let changes: Vec<String> = new.chain(gone).collect();
    match changes.is_empty() && known != Some(set) {
        true => vec!["~ calendars".to_owned()],
        false => changes,
    }
}

fn register(view: &Snapshot, put: &Put) -> Result<News, String> {
    let register = &view.billing.rules.register;
    let text = |error: &dyn Display| error.to_string();
    let is_same = |one: &str, other: &str| match (SiteName::new(one), SiteName::new(other)) {
        (Ok(one), Ok(other)) => view.key_of(&one) == view.key_of(&other),
        _ => one == other,
    };
    let of_facts = |facts: Vec<RegisterFact>| RegisterImport { facts, ..RegisterImport::default() };
    let mut warnings = Vec::new();
    let import = match put {
        Put::Plates(csv) => register.import_plates(csv).map_err(|error| text(&error))?,
        Put::Accounts(csv) => register.import_accounts(csv).map_err(|error| text(&error))?,
        Put::Contracts(csv) => register.import_contracts(csv, is_same).map_err(|error| text(&error))?,
        Put::AddPlate { plate, account, dates } => {
            let added = register.add_plate(plate, account, *dates).map_err(|error| text(&error))?;
            warnings.extend(added.replaced.iter().map(|held| {
                format!("the registration of {plate} to {} is replaced {}", held.account, held.dates)
            }));
            let mut import = of_facts(added.fact.into_iter().collect());
            import.disagreements = disagreements(register, &import.facts, plate);
            import
        }
        Put::RemovePlate { plate, on } => {
            of_facts(vec![register.remove_plate(plate, *on).map_err(|error| text(&error))?])
        }
        Put::SetAccount { account, patch } => {
            let fact = register.set_customer(account, patch.clone()).map_err(|errors| all(&errors))?;
            of_facts(fact.into_iter().collect())
        }
        Put::RemoveContract { contract, on } => {
            of_facts(vec![register.remove_contract(contract, *on).map_err(|error| text(&error))?])
        }
        Put::Tariffs { .. } => unreachable!("tariffs are no part of the register"),
    };
    let shown = import.facts.iter().map(|fact| ShownFact { fact, before: register }.to_string()).collect();
    warnings.extend(import.warnings);
    warnings.extend(import.disagreements.iter().map(ToString::to_string));
    let bytes = postcard::to_stdvec(&import.facts).expect("facts always encode");
    let (parts, pieces, digest) = in_pieces(bytes);
    let command = Command::Register { pieces, digest };
    let unnamed_total = import.unnamed.len();
    let unnamed = import.unnamed.iter().take(UNNAMED_SHOWN).map(ToString::to_string).collect();
    let prepared = prepared(shown, warnings, (parts, command));
    Ok((Prepared { unnamed, unnamed_total, ..prepared }, PutInForce::Register(import.facts)))
}

/// Where a plate would be registered to another account than that of a contract that names it.
fn disagreements(register: &Register, facts: &[RegisterFact], plate: &Plate) -> Vec<Disagreement> {
    let mut after = register.clone();
    facts.iter().for_each(|fact| drop(after.apply(fact)));
    after.disagreements_of(plate)
}

fn prepared(
    mut changes: Vec<String>,
    warnings: Vec<String>,
    (pieces, command): (Vec<Vec<u8>>, Command),
) -> Prepared {
    let changes_total = changes.len();
    changes.truncate(CHANGES_SHOWN);
    Prepared {
        changes,
        changes_total,
        warnings,
        unnamed: Vec::new(),
        unnamed_total: 0,
        drafts: RatingEffect::default(),
        pieces,
        command,
    }
}

/// What is to stand in records right before the command that is about it, in how many, and its digest.
pub fn in_pieces(bytes: Vec<u8>) -> (Vec<Vec<u8>>, u32, Digest) {
    let pieces: Vec<Vec<u8>> = bytes.chunks(PIECE).map(<[u8]>::to_vec).collect();
    let count = u32::try_from(pieces.len()).expect("no request has twenty terabytes");
    (pieces, count, Digest::of(&bytes))
}

fn all(errors: &[impl Display]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
