//! Data that is too long for one record: tariffs, registrations, contracts. It is read and compared before anything is recorded.

use crate::messaging::Digest;
use crate::parking::Plate;
use crate::parking::register::{self, Contract, Registration};
use crate::parking::tariff::{Tariff, TariffSet};
use crate::server::record::Command;
use crate::server::view::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt::Display;

/// How many bytes one record holds, beside its name.
const PIECE: usize = 5 * 1024;
/// How many of the registered plates that are missing in a file are listed.
const UNNAMED_SHOWN: usize = 20;
/// How many changes are shown one by one.
const CHANGES_SHOWN: usize = 10_000;

/// The operator's input, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Put {
    /// TOML.
    Tariffs(String),
    /// CSV.
    Plates(String),
    /// CSV.
    Contracts(String),
}

/// What is to be recorded, and what it changes, as operators read it.
#[derive(Debug, Serialize)]
pub struct Prepared {
    /// Line by line: the first [`CHANGES_SHOWN`] of them, because those of a whole city's registry would fill the memory.
    pub changes: Vec<String>,
    pub changes_total: usize,
    /// The first of the registered plates that a file of plates does not name: they stay.
    pub unnamed: Vec<String>,
    pub unnamed_total: usize,
    #[serde(skip)]
    pub pieces: Vec<Vec<u8>>,
    #[serde(skip)]
    pub command: Command,
}

/// Reads what was given, and says what it changes. `Err`: every fault that it has; nothing was recorded.
pub fn prepare(view: &Snapshot, put: &Put) -> Result<Prepared, String> {
    let in_force = &view.billing.in_force;
    let (mut unnamed, mut changes, mut changes_total) = (Vec::new(), Vec::new(), 0);
    let mut add = |change: String| {
        changes_total += 1;
        if changes_total <= CHANGES_SHOWN {
            changes.push(change);
        }
    };
    let bytes = match put {
        Put::Tariffs(text) => {
            let set = TariffSet::parse(text).map_err(|errors| all(&errors))?;
            if in_force.tariffs().is_none_or(|(_, known)| *known != set) {
                let name = |its: &Tariff| format!("tariff {:?} from {} on", its.name, its.valid_from);
                set.tariffs().iter().for_each(|tariff| add(name(tariff)));
            }
            set.to_toml().into_bytes()
        }
        Put::Plates(text) => {
            let plates = register::read_plates(text).map_err(|error| error.to_string())?;
            unnamed = register::unnamed(in_force.plates().values(), &plates);
            // Only what is new is recorded: a city's registry is given again whole for one change.
            let mut news: Vec<Registration> = Vec::new();
            for change in register::changes(|plate| in_force.registration(plate), &plates) {
                add(change.to_string());
                news.push(change.after);
            }
            postcard::to_stdvec(&news).expect("registrations always encode")
        }
        Put::Contracts(text) => {
            let mut news = register::read_contracts(text).map_err(|error| error.to_string())?;
            let known: HashMap<&str, &Contract> =
                in_force.contracts().map(|contract| (contract.name.as_str(), contract)).collect();
            news.retain(|contract| known.get(contract.name.as_str()) != Some(&contract));
            news.iter().for_each(|contract| add(shown(contract)));
            postcard::to_stdvec(&news).expect("contracts always encode")
        }
    };
    let (pieces, digest) = in_pieces(bytes);
    let count = u32::try_from(pieces.len()).map_err(|_| "it is too long".to_owned())?;
    let command = match put {
        Put::Tariffs(_) => Command::Tariffs { pieces: count, digest },
        Put::Plates(_) => Command::Plates { pieces: count, digest },
        Put::Contracts(_) => Command::Contracts { pieces: count, digest },
    };
    let unnamed_total = unnamed.len();
    let unnamed = unnamed.into_iter().take(UNNAMED_SHOWN).map(|its| its.plate.to_string()).collect();
    Ok(Prepared { changes, changes_total, unnamed, unnamed_total, pieces, command })
}

/// What is to stand in records right before the command that is about it, and its digest.
pub fn in_pieces(bytes: Vec<u8>) -> (Vec<Vec<u8>>, Digest) {
    (bytes.chunks(PIECE).map(<[u8]>::to_vec).collect(), Digest::of(&bytes))
}

fn all(errors: &[impl Display]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn shown(contract: &Contract) -> String {
    let plates: Vec<&str> = contract.plates.iter().map(Plate::as_str).collect();
    let Contract { name, account, valid_from, valid_to, cars, .. } = contract;
    format!(
        "contract {name:?} of {}: {}, {valid_from} to {valid_to}, {cars} at once",
        account.as_str(),
        plates.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::view::View;
    use crate::server::view::tests::{apply_ledger, world};

    /// An import recorded the whole file for one change, and each start read all imports that there ever were.
    #[test]
    fn of_a_registry_that_is_given_again_only_what_changes_is_recorded() {
        let (_, store, ledger) = world();
        let mut view = View::default();
        let mut put = |what: fn(String) -> Put, text: &str| {
            let prepared = prepare(&view.snapshot(), &what(text.to_owned())).unwrap();
            let bytes = prepared.pieces.concat();
            ledger.record_order("me", prepared.pieces, prepared.command, 5).unwrap();
            let mut changes = apply_ledger(&mut view, &ledger, &store);
            view.save(&mut changes).unwrap();
            (prepared.changes_total, bytes)
        };
        let plates = "plate,account,name\nAB1,a,x\nAB2,a,x\nAB3,a,x\n";
        assert_eq!(put(Put::Plates, plates).0, 3);
        let (changes, bytes) = put(Put::Plates, &plates.replace("AB2,a", "AB2,b"));
        let recorded: Vec<Registration> = postcard::from_bytes(&bytes).unwrap();
        let shown: Vec<_> = recorded.iter().map(|its| (its.plate.as_str(), its.account.as_str())).collect();
        assert_eq!((changes, shown), (1, vec![("AB2", "b")]));
        let contracts = "contract,account,plate,garage,valid_from,valid_to,cars\n\
                         c1,a,AB1,*,2026-01-01,2026-12-31,1\nc2,a,AB2,*,2026-01-01,2026-12-31,1\n";
        assert_eq!(put(Put::Contracts, contracts).0, 2);
        let (changes, bytes) = put(Put::Contracts, &contracts.replace("c1,a,AB1", "c1,a,AB9"));
        let recorded: Vec<Contract> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!((changes, recorded.len(), recorded[0].name.as_str()), (1, 1, "c1"));
        let in_force = &view.billing.in_force;
        assert_eq!((in_force.plates().size(), in_force.contracts().count()), (3, 2));
        let account =
            |plate: &str| in_force.registration(&Plate::new(plate).unwrap()).map(|its| its.account.as_str());
        assert_eq!((account("AB1"), account("AB2")), (Some("a"), Some("b")));
    }
}
