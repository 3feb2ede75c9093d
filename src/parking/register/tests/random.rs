//! The oracle keeps, for every day of two weeks, who holds each plate and which lines of contracts there are. It knows no ranges.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const DAYS: i64 = 12;
/// One day on each side, for what is open.
fn days() -> impl Iterator<Item = i64> {
    -1..=DAYS
}
fn date_of(n: i64) -> Date {
    day(2, 20).saturating_add(jiff::Span::new().days(n))
}

/// The first and the last day, of those with prices; `None`: open.
type Days = (Option<i64>, Option<i64>);

fn has((first, last): Days, n: i64) -> bool {
    first.is_none_or(|first| first <= n) && last.is_none_or(|last| n <= last)
}
fn range((first, last): Days) -> DateRange {
    DateRange::new(first.map(date_of), last.map(date_of)).unwrap()
}
fn cells((first, last): Days) -> String {
    let cell = |n: Option<i64>| n.map_or_else(String::new, |n| date_of(n).to_string());
    format!("{},{}", cell(first), cell(last))
}

#[derive(Debug, Clone)]
struct HeldLine {
    plate: u8,
    account: u8,
    days: Days,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct NamedLine {
    contract: u8,
    days: Days,
    account: u8,
    cars: u32,
    plate: u8,
    /// `None`: all.
    garage: Option<u8>,
}

#[derive(Debug, Clone)]
enum Step {
    Add(HeldLine),
    Remove { plate: u8, on: i64 },
    ImportPlates(Vec<HeldLine>),
    ImportContracts(Vec<NamedLine>),
    RemoveContract { contract: u8, on: i64 },
    StoreAndLoad,
}

fn plate_of(n: u8) -> Plate {
    plate(&format!("AB{n}"))
}
fn account_of(n: u8) -> Account {
    account(&format!("account {n}"))
}
fn contract_of(n: u8) -> ContractName {
    contract(&format!("contract {n}"))
}
const GARAGES: [&str; 2] = ["North", "South"];

#[derive(Debug, Default, Clone)]
struct Oracle {
    held: BTreeMap<(u8, i64), u8>,
    named: BTreeSet<NamedLine>,
}

impl Oracle {
    /// `false`: two accounts for one plate on one day.
    fn import_plates(&mut self, lines: &[HeldLine]) -> bool {
        let mut held = self.held.clone();
        for line in lines {
            for n in days().filter(|n| has(line.days, *n)) {
                let known = held.insert((line.plate, n), line.account);
                if known.is_some_and(|account| account != line.account) {
                    return false;
                }
            }
        }
        self.held = held;
        true
    }

    fn import_contracts(&mut self, lines: &[NamedLine]) -> bool {
        let is_named =
            |its: &NamedLine| lines.iter().any(|line| (line.contract, line.days) == (its.contract, its.days));
        let mut named: BTreeSet<NamedLine> =
            self.named.iter().filter(|its| !is_named(its)).cloned().collect();
        named.extend(lines.iter().cloned());
        for one in &named {
            for other in named.iter().filter(|other| *other != one) {
                let both = days().any(|n| has(one.days, n) && has(other.days, n));
                let same_garage =
                    one.garage.is_none() || other.garage.is_none() || one.garage == other.garage;
                let twice = one.plate == other.plate && same_garage;
                let differ =
                    one.contract == other.contract && (one.account, one.cars) != (other.account, other.cars);
                if both && (twice || differ) {
                    return false;
                }
            }
        }
        self.named = named;
        true
    }

    fn end(&mut self, contract: u8, on: i64) -> bool {
        let before = std::mem::take(&mut self.named);
        let is_ended =
            |line: &NamedLine| line.contract == contract && days().any(|n| n >= on && has(line.days, n));
        let any = before.iter().any(is_ended);
        for mut line in before {
            if is_ended(&line) {
                line.days.1 = Some(on - 1);
                if days().all(|n| !has(line.days, n)) {
                    continue;
                }
            }
            self.named.insert(line);
        }
        any
    }

    fn named(&self, plate: u8, garage: u8, n: i64) -> Option<(u8, u8, u32)> {
        let named = |line: &&NamedLine| {
            line.plate == plate && line.garage.is_none_or(|its| its == garage) && has(line.days, n)
        };
        let found: Vec<&NamedLine> = self.named.iter().filter(named).collect();
        assert!(found.len() < 2, "{found:?}");
        found.first().map(|line| (line.contract, line.account, line.cars))
    }
}

/// What the register says of each plate on each day: the holder, and the contract in each garage.
type Known = BTreeMap<(u8, i64), (Option<Account>, [Option<(ContractName, Account, u32)>; 2])>;

fn known(register: &Register) -> Known {
    let each = (0..3u8).flat_map(|plate| days().map(move |n| (plate, n)));
    let known = each.map(|(plate, n)| {
        let (car, on) = (plate_of(plate), date_of(n));
        let holder = register.holder(&car, on).cloned();
        let named = GARAGES.map(|garage| {
            let named = register.contract_of(&car, |name| name == garage, on)?;
            Some((named.contract.clone(), named.version.account.clone(), named.version.cars))
        });
        ((plate, n), (holder, named))
    });
    known.collect()
}

fn expected(oracle: &Oracle) -> Known {
    let each = (0..3u8).flat_map(|plate| days().map(move |n| (plate, n)));
    let known = each.map(|(plate, n)| {
        let holder = oracle.held.get(&(plate, n)).map(|account| account_of(*account));
        let named = [0, 1].map(|garage| {
            let (contract, account, cars) = oracle.named(plate, garage, n)?;
            Some((contract_of(contract), account_of(account), cars))
        });
        ((plate, n), (holder, named))
    });
    known.collect()
}

/// Does a step in both; the facts are those that the register asks to record.
fn facts_of(register: &Register, oracle: &mut Oracle, step: &Step) -> Vec<RegisterFact> {
    match step {
        Step::Add(HeldLine { plate, account, days: of }) => {
            let added = register.add_plate(&plate_of(*plate), &account_of(*account), range(*of)).unwrap();
            let replaced: Vec<(i64, Account)> = days()
                .filter(|n| has(*of, *n))
                .filter_map(|n| Some((n, account_of(*oracle.held.get(&(*plate, n))?))))
                .filter(|(_, held)| *held != account_of(*account))
                .collect();
            let said = days().flat_map(|n| {
                let held = added.replaced.iter().filter(move |held| held.dates.contains(date_of(n)));
                held.map(move |held| (n, held.account.clone()))
            });
            assert_eq!(said.collect::<Vec<_>>(), replaced);
            oracle.held.extend(days().filter(|n| has(*of, *n)).map(|n| ((*plate, n), *account)));
            added.fact.into_iter().collect()
        }
        Step::Remove { plate, on } => {
            let before = oracle.held.len();
            oracle.held.retain(|(its, n), _| its != plate || n < on);
            let fact = register.remove_plate(&plate_of(*plate), date_of(*on));
            assert_eq!(fact.is_ok(), oracle.held.len() < before);
            fact.into_iter().collect()
        }
        Step::ImportPlates(lines) => {
            let line =
                |its: &HeldLine| format!("AB{},account {},{}\n", its.plate, its.account, cells(its.days));
            let text: String = lines.iter().map(line).collect();
            let import = register.import_plates(&format!("plate,account,valid_from,valid_to\n{text}"));
            assert_eq!(import.is_ok(), oracle.import_plates(lines), "{import:?}");
            import.map_or_else(|_| Vec::new(), |import| import.facts)
        }
        Step::ImportContracts(lines) => {
            let line = |its: &NamedLine| {
                let garage = its.garage.map_or("*", |garage| GARAGES[usize::from(garage)]);
                let NamedLine { contract, days, account, cars, plate, .. } = its;
                format!("contract {contract},account {account},AB{plate},{garage},{},{cars}\n", cells(*days))
            };
            let text: String = lines.iter().map(line).collect();
            let import = register.import_contracts(&format!("{CONTRACTS}{text}"), no_renames);
            assert_eq!(import.is_ok(), oracle.import_contracts(lines), "{import:?}");
            import.map_or_else(|_| Vec::new(), |import| import.facts)
        }
        Step::RemoveContract { contract, on } => {
            let fact = register.remove_contract(&contract_of(*contract), date_of(*on));
            assert_eq!(fact.is_ok(), oracle.end(*contract, *on));
            fact.into_iter().collect()
        }
        Step::StoreAndLoad => Vec::new(),
    }
}

/// Whatever is different on a day stands in what the facts affected.
fn check_affected(before: &Known, after: &Known, affected: &[Affected]) {
    for (key, was) in before {
        let is = &after[key];
        let (plate, on) = (plate_of(key.0), date_of(key.1));
        let is_affected =
            affected.iter().flat_map(|its| &its.plates).any(|its| its.0 == plate && its.1.contains(on));
        assert!(was == is || is_affected, "{plate} on {on}: {was:?}, then {is:?}, {affected:?}");
        assert!(
            was.0 != is.0 || was.1 != is.1 || !is_affected || affected.len() > 1,
            "{plate} on {on} is as it was"
        );
        for (was, is) in was.1.iter().zip(&is.1).filter(|(was, is)| was != is) {
            for (contract, ..) in was.iter().chain(is) {
                let is_named = |its: &Affected| {
                    its.contract.as_ref().is_some_and(|its| its.0 == *contract && its.1.contains(on))
                };
                assert!(affected.iter().any(is_named), "{contract} on {on}: {affected:?}");
            }
        }
    }
}

/// Registrations and contracts of the oracle where they disagree.
fn disagreements_of(known: &Known) -> BTreeSet<(u8, i64, Account, ContractName)> {
    let mut found = BTreeSet::new();
    for ((plate, n), (holder, named)) in known {
        for (contract, account, _) in named.iter().flatten() {
            if let Some(holder) = holder.as_ref().filter(|holder| *holder != account) {
                found.insert((*plate, *n, holder.clone(), contract.clone()));
            }
        }
    }
    found
}

fn check_register(register: &Register, oracle: &Oracle) {
    let known = known(register);
    assert_eq!(known, expected(oracle));
    let mut found = BTreeSet::new();
    for plate in 0..3u8 {
        for its in register.disagreements_of(&plate_of(plate)) {
            let on = days().filter(|n| its.dates.contains(date_of(*n)));
            found.extend(on.map(|n| (plate, n, its.holder.clone(), its.contract.clone())));
        }
    }
    assert_eq!(found, disagreements_of(&known));
    for contract in 0..3u8 {
        let lines = oracle.named.iter().filter(|line| line.contract == contract);
        let plates: BTreeSet<Plate> = lines.map(|line| plate_of(line.plate)).collect();
        let history = register.contract(&contract_of(contract));
        let kept: BTreeSet<Plate> = history.into_iter().flat_map(ContractHistory::plates).cloned().collect();
        assert_eq!(kept, plates);
    }
    for (_, entry) in register.plates() {
        let held = entry.holders.list();
        let is_one = |pair: &[Held]| {
            let next = pair[0].dates.last().and_then(|last| last.tomorrow().ok());
            pair[0].account == pair[1].account && next == pair[1].dates.first()
        };
        assert!(!held.windows(2).any(is_one), "{held:?}");
    }
}

fn some_days() -> impl Strategy<Value = Days> {
    let day = || prop_oneof![1 => Just(None), 3 => (0..DAYS).prop_map(Some)];
    (day(), day()).prop_map(|(first, last)| match (first, last) {
        (Some(first), Some(last)) => (Some(first.min(last)), Some(first.max(last))),
        open => open,
    })
}

fn held_line() -> impl Strategy<Value = HeldLine> {
    (0..3u8, 0..2u8, some_days()).prop_map(|(plate, account, days)| HeldLine { plate, account, days })
}

fn named_lines() -> impl Strategy<Value = Vec<NamedLine>> {
    let garage = prop_oneof![1 => Just(None), 2 => (0..2u8).prop_map(Some)];
    let line = (0..3u8, 0..3u8, some_days(), garage);
    // The lines of a file agree, so that not nearly all are refused; a file may change what another said.
    (prop::collection::vec(line, 0..4), 0..5u8).prop_map(|(lines, kind)| {
        let named = |(number, (contract, plate, days, garage))| {
            let is_other = kind == 0 || (kind == 1 && number == 0);
            let (account, cars) = if is_other { (2, 2) } else { (contract, 1) };
            NamedLine { contract, days, account, cars, plate, garage }
        };
        lines.into_iter().enumerate().map(named).collect()
    })
}

fn some_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => held_line().prop_map(Step::Add),
        2 => (0..3u8, 0..DAYS).prop_map(|(plate, on)| Step::Remove { plate, on }),
        3 => prop::collection::vec(held_line(), 0..4).prop_map(Step::ImportPlates),
        6 => named_lines().prop_map(Step::ImportContracts),
        2 => (0..3u8, 0..DAYS).prop_map(|(contract, on)| Step::RemoveContract { contract, on }),
        1 => Just(Step::StoreAndLoad),
    ]
}

proptest! {
    #[test]
    fn the_register_says_of_every_day_what_a_map_of_days_says(steps in prop::collection::vec(some_step(), 0..16)) {
        let (mut register, mut oracle) = (Register::default(), Oracle::default());
        let mut ledger = Vec::new();
        for step in &steps {
            let before = known(&register);
            let facts = facts_of(&register, &mut oracle, step);
            let snapshot = register.clone();
            let affected = apply(&mut register, &facts);
            check_register(&register, &oracle);
            check_affected(&before, &known(&register), &affected);
            prop_assert_eq!(known(&snapshot), before, "a snapshot changes");
            if matches!(step, Step::ImportPlates(_) | Step::ImportContracts(_)) && !facts.is_empty() {
                prop_assert_eq!(facts_of(&register, &mut oracle, step), [], "the same file again");
            }
            if matches!(step, Step::StoreAndLoad) {
                let loaded = stored_and_loaded(&register);
                prop_assert_eq!(&loaded, &register);
                register = loaded;
            }
            ledger.extend(facts);
        }
        let mut again = Register::default();
        apply(&mut again, &ledger);
        prop_assert_eq!(again, register, "a rebuild gives another register");
    }
}
