//! An oracle of drafts that is too simple to be wrong: it takes a whole history at once, and says of each stay what it costs.
//!
//! It is written from the rules in words, and shares with the views only values that have oracles of their own: the register
//! (`parking::register::tests`), prices (`parking::tariff::tests`), and the pairing of entries with exits (`parking::stay`). It looks
//! at everything again for each stay, and nothing in it depends on an order between garages.

use super::super::anomalies::AnomalyCode;
use super::super::draft::{Draft, DraftState, HeldBecause, WaitsFor};
use super::super::rules::Decided;
use super::super::totals::{Sign, Totals};
use crate::messaging::Epoch;
use crate::parking::money::{Amount, Money};
use crate::parking::register::{ContractName, NamedBy, Register, RegisterFact};
use crate::parking::stay::{End, Visit, Way, pair};
use crate::parking::tariff::{Tariff, TariffSet};
use crate::parking::{ChargeId, Month, Plate};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use std::collections::{BTreeMap, BTreeSet};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

#[derive(Debug, Clone, Default)]
pub struct History {
    pub garages: Vec<GarageHistory>,
    /// What operators did, in their order.
    pub orders: Vec<Order>,
}

#[derive(Debug, Clone)]
pub struct GarageHistory {
    /// The name under which its events came first.
    pub name: String,
    /// In their order.
    pub events: Vec<HistoryEvent>,
}

#[derive(Debug, Clone)]
pub struct HistoryEvent {
    /// The name under which it came.
    pub site: String,
    pub epoch: Epoch,
    pub sequence: u64,
    pub what: Happened,
}

#[derive(Debug, Clone)]
pub enum Happened {
    Passed {
        way: Way,
        plate: Option<Plate>,
        at_ms: i64,
        offset_minutes: i16,
    },
    /// The plate of the event at this place in the garage's history was misread.
    Corrected {
        event: usize,
        plate: Plate,
    },
}

/// An event: the place of its garage, and its own in the history of that.
pub type EventPlace = (usize, usize);

#[derive(Debug, Clone)]
pub enum Order {
    Tariffs(Box<TariffSet>),
    Register(Vec<RegisterFact>),
    Rename {
        garage: usize,
        to: String,
    },
    /// About the charge of the stay that ends with this event, or with what an operator made of this entry, at that time.
    Decide {
        exit: EventPlace,
        made_at_ms: Option<i64>,
        what: Decided,
    },
    /// About an entry or exit.
    Repair {
        event: EventPlace,
        what: Repair,
    },
    /// Takes back the order at this place.
    Undo(usize),
}

#[derive(Debug, Clone)]
pub enum Repair {
    Plate(Plate),
    Closed { left_at_ms: i64 },
    Split { left_at_ms: i64, entered_at_ms: i64 },
}

/// When every command is recorded.
pub const RECORDED_AT_MS: i64 = 5;

/// The offset of what operators say.
pub const OFFSET_MINUTES: i16 = 60;

/// What is compared: everything that people see of money, by ids that are the same in every ledger.
#[derive(Debug, Default, PartialEq)]
pub struct Books {
    pub drafts: BTreeMap<String, BookedStay>,
    pub totals: BTreeMap<(String, Month), Totals>,
    pub taken: BTreeMap<String, Totals>,
    /// How often, and the times of the first and the last.
    pub anomalies: BTreeMap<AnomalyName, (u64, i64, i64)>,
}

/// Code, garage, plate.
pub type AnomalyName = (&'static str, String, String);

#[derive(Debug, Clone, PartialEq)]
pub struct BookedStay {
    pub plate: String,
    pub entry_ms: i64,
    pub exit_ms: i64,
    pub draft: Draft,
}

/// An entry or exit: its place in its garage's history, and when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Passage {
    event: usize,
    is_made: bool,
    at_ms: i64,
    offset_minutes: i16,
}

#[derive(Debug, Clone)]
struct OracleStay {
    garage: usize,
    plate: Plate,
    entry: Passage,
    end: End<Passage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Covered {
    Yes,
    No,
    Undecided,
}

pub fn books(history: &History) -> Books {
    let mut oracle = DraftOracle::of(history);
    oracle.visits();
    for stay in oracle.stays.clone() {
        oracle.book(&stay);
        oracle.look_elsewhere(&stay);
    }
    let exits = oracle.stays.iter().filter_map(|stay| match stay.end {
        End::Left(exit) => Some(((stay.garage, exit.event), exit.is_made.then_some(exit.at_ms))),
        _ => None,
    });
    let exits: BTreeSet<_> = exits.collect();
    for ((event, made_at_ms), decisions) in oracle.decisions.clone() {
        for _ in decisions.iter().filter(|_| !exits.contains(&(event, made_at_ms))) {
            oracle.note(AnomalyCode::DecisionWithoutEffect, event.0, None, RECORDED_AT_MS);
        }
    }
    oracle.books
}

struct DraftOracle<'a> {
    history: &'a History,
    register: Register,
    tariffs: Option<&'a TariffSet>,
    /// Of each garage: its first name, then the others in their order.
    names: Vec<Vec<String>>,
    decisions: BTreeMap<(EventPlace, Option<i64>), Vec<Decided>>,
    repairs: BTreeMap<EventPlace, Vec<&'a Repair>>,
    stays: Vec<OracleStay>,
    books: Books,
}

impl<'a> DraftOracle<'a> {
    fn of(history: &'a History) -> DraftOracle<'a> {
        let undone: BTreeSet<usize> = history
            .orders
            .iter()
            .filter_map(|order| if let Order::Undo(of) = order { Some(*of) } else { None })
            .collect();
        let mut oracle = DraftOracle {
            history,
            register: Register::default(),
            tariffs: None,
            names: history.garages.iter().map(|garage| vec![garage.name.clone()]).collect(),
            decisions: BTreeMap::new(),
            repairs: BTreeMap::new(),
            stays: Vec::new(),
            books: Books::default(),
        };
        for (place, order) in history.orders.iter().enumerate() {
            match order {
                Order::Tariffs(set) => oracle.tariffs = Some(set),
                Order::Register(facts) => facts.iter().for_each(|fact| drop(oracle.register.apply(fact))),
                Order::Rename { garage, to } if !oracle.names[*garage].contains(to) => {
                    oracle.names[*garage].push(to.clone());
                    oracle.names[*garage][1..].sort();
                }
                Order::Decide { exit, made_at_ms, what } if !undone.contains(&place) => {
                    oracle.decisions.entry((*exit, *made_at_ms)).or_default().push(*what);
                }
                Order::Repair { event, what } if !undone.contains(&place) => {
                    oracle.repairs.entry(*event).or_default().push(what);
                }
                _ => {}
            }
        }
        oracle
    }

    /// Each garage by itself: its events with the best plates known, and which exit belongs to which entry.
    fn visits(&mut self) {
        for (garage, its) in self.history.garages.iter().enumerate() {
            let mut plates: BTreeMap<usize, Option<&Plate>> = BTreeMap::new();
            for (place, event) in its.events.iter().enumerate() {
                match &event.what {
                    Happened::Passed { plate, .. } => _ = plates.insert(place, plate.as_ref()),
                    Happened::Corrected { event, plate } => _ = plates.insert(*event, Some(plate)),
                }
            }
            // What an operator decided wins over what the garage read.
            let repairs: BTreeMap<usize, Vec<&'a Repair>> = plates
                .keys()
                .map(|place| (*place, self.repairs.get(&(garage, *place)).cloned().unwrap_or_default()))
                .collect();
            for (place, plate) in &mut plates {
                let decided = repairs[place].iter().rev().find_map(|repair| match repair {
                    Repair::Plate(plate) => Some(plate),
                    _ => None,
                });
                *plate = decided.or(*plate);
            }
            let mut by_plate: BTreeMap<&Plate, Vec<(Way, Passage)>> = BTreeMap::new();
            for (place, event) in its.events.iter().enumerate() {
                let Happened::Passed { way, at_ms, offset_minutes, .. } = event.what else { continue };
                let Some(plate) = plates[&place] else {
                    self.note(AnomalyCode::UnreadablePlate, garage, None, at_ms);
                    continue;
                };
                let of_plate = by_plate.entry(plate).or_default();
                of_plate.push((way, Passage { event: place, is_made: false, at_ms, offset_minutes }));
                if way == Way::In {
                    of_plate.extend(made(place, &repairs[&place]));
                }
            }
            for (plate, passages) in by_plate {
                for visit in pair(passages) {
                    match visit {
                        Visit::Exit(exit) if exit.is_made => {}
                        Visit::Exit(exit) => {
                            self.note(AnomalyCode::ExitWithoutEntry, garage, Some(plate), exit.at_ms)
                        }
                        Visit::Stay { entry, end } => {
                            if end == End::Unseen {
                                self.note(AnomalyCode::EntryWhileOpen, garage, Some(plate), entry.at_ms);
                            }
                            self.stays.push(OracleStay { garage, plate: plate.clone(), entry, end });
                        }
                    }
                }
            }
        }
    }

    fn note(&mut self, code: AnomalyCode, garage: usize, plate: Option<&Plate>, at_ms: i64) {
        let plate = plate.map(ToString::to_string).unwrap_or_default();
        let name = (code.told().0.as_str(), self.history.garages[garage].name.clone(), plate);
        let (count, first, last) = self.books.anomalies.entry(name).or_insert((0, at_ms, at_ms));
        (*count, *first, *last) = (*count + 1, at_ms.min(*first), at_ms.max(*last));
    }

    fn tariff(&self, stay: &OracleStay) -> Option<&'a Tariff> {
        let names = self.names[stay.garage].iter().map(String::as_str);
        self.tariffs?.for_stay_in(names, Timestamp::from_millisecond(stay.entry.at_ms).unwrap())
    }

    /// The local date: by the tariff's zone, or as the garage wrote it.
    fn date(&self, stay: &OracleStay, passage: Passage) -> Date {
        let at = Timestamp::from_millisecond(passage.at_ms).unwrap();
        match self.tariff(stay) {
            Some(tariff) => tariff.date_of(at),
            None => {
                Offset::from_seconds(60 * i32::from(passage.offset_minutes)).unwrap().to_datetime(at).date()
            }
        }
    }

    fn contract(&self, stay: &OracleStay) -> Option<NamedBy<'_>> {
        let is_meant = |name: &str| self.names[stay.garage].iter().any(|its| its == name);
        self.register.contract_of(&stay.plate, is_meant, self.date(stay, stay.entry))
    }

    fn decided(&self, stay: &OracleStay) -> &[Decided] {
        let Some(exit) = stay.end.exit() else { return &[] };
        self.decisions
            .get(&((stay.garage, exit.event), exit.is_made.then_some(exit.at_ms)))
            .map_or(&[], Vec::as_slice)
    }

    fn is_too_long(&self, stay: &OracleStay, lasted_ms: i64) -> bool {
        let is_billed = self.decided(stay).contains(&Decided::Bill) && lasted_ms <= 3_660 * DAY_MS;
        lasted_ms > 30 * DAY_MS && !is_billed
    }

    /// Stays of one contract, or of one car, are in the order of their entries, then of their garages, epochs and sequences.
    fn order(&self, stay: &OracleStay) -> (i64, &'a str, Epoch, u64, bool) {
        let garage = &self.history.garages[stay.garage];
        let event = &garage.events[stay.entry.event];
        (stay.entry.at_ms, &garage.name, event.epoch, event.sequence, stay.entry.is_made)
    }

    /// Until when a stay holds a place, if it has one; and whether that is sure. Nothing: it holds none in any case.
    fn holds_until(&self, stay: &OracleStay) -> Option<(i64, bool)> {
        let later = self
            .stays
            .iter()
            .filter(|other| other.plate == stay.plate && self.order(other) > self.order(stay));
        let next = later.map(|other| other.entry.at_ms).min().unwrap_or(i64::MAX);
        let limit = next.min(stay.entry.at_ms + 30 * DAY_MS);
        match stay.end {
            End::Unseen => None,
            End::Inside => Some((limit, false)),
            End::Left(exit) => {
                let lasted_ms = exit.at_ms - stay.entry.at_ms;
                (lasted_ms > 0 && !self.is_too_long(stay, lasted_ms)).then(|| (limit.min(exit.at_ms), true))
            }
        }
    }

    /// Whether a stay has one of the places of its contract: all stays of the contract up to it are decided one after the other.
    fn is_covered(&self, stay: &OracleStay, contract: &ContractName) -> Covered {
        let named = |other: &&OracleStay| self.contract(other).is_some_and(|by| by.contract == contract);
        let mut stays: Vec<&OracleStay> = self.stays.iter().filter(named).collect();
        stays.sort_by_key(|other| self.order(other));
        let mut holding: Vec<(i64, bool)> = Vec::new();
        for other in stays {
            let at = other.entry.at_ms;
            let held = holding.iter().filter(|(until, is_sure)| *until > at && *is_sure).count();
            let perhaps = holding.iter().filter(|(until, is_sure)| *until > at && !is_sure).count();
            let cars = self.contract(other).map_or(0, |by| by.version.cars as usize);
            let covered = match () {
                () if held >= cars => Covered::No,
                () if held + perhaps >= cars => Covered::Undecided,
                () => Covered::Yes,
            };
            if self.order(other) == self.order(stay) {
                return covered;
            }
            if let Some((until, is_sure)) = self.holds_until(other).filter(|_| covered != Covered::No) {
                holding.push((until, is_sure && covered == Covered::Yes));
            }
        }
        unreachable!("the stay is one of its contract's")
    }

    fn draft(&self, stay: &OracleStay, exit: Passage) -> Draft {
        let tariff = self.tariff(stay);
        let [entered, left] =
            [stay.entry, exit].map(|passage| Timestamp::from_millisecond(passage.at_ms).unwrap());
        let lasted_ms = exit.at_ms - stay.entry.at_ms;
        let contract = self.contract(stay);
        let holder = self.register.holder(&stay.plate, self.date(stay, stay.entry));
        let account = contract
            .map(|by| &by.version.account)
            .or(holder)
            .map_or("unregistered", |account| account.as_str());
        let covered = contract.map(|by| self.is_covered(stay, by.contract));
        let price =
            tariff.map(|tariff| tariff.price(entered, left.max(entered)).ok().map(|priced| priced.amount));
        let (state, price) = match (price, covered) {
            _ if lasted_ms < -5 * MINUTE_MS => (DraftState::Held(HeldBecause::EndsBeforeItBegins), None),
            _ if self.is_too_long(stay, lasted_ms) => (DraftState::Held(HeldBecause::TooLong), None),
            (None, _) => (DraftState::Waiting(WaitsFor::Tariff), None),
            (_, Some(Covered::Undecided)) => (DraftState::Held(HeldBecause::PlaceUndecided), None),
            (_, Some(Covered::Yes)) => (DraftState::Covered, Some(Amount::ZERO)),
            (Some(None), _) => (DraftState::Waiting(WaitsFor::Calendar), None),
            (Some(price), _) => (DraftState::Charged, price),
        };
        let is_void = self.decided(stay).contains(&Decided::Void);
        let credits = self.decided(stay).iter().map(|what| match what {
            Decided::Credit(amount) => amount.minor(),
            _ => 0,
        });
        let credits: i64 = credits.sum();
        let due = price.map(|price| match is_void {
            true => Amount::ZERO,
            false => Amount::of_minor((price.minor() - credits).max(0)),
        });
        let money = |amount: Amount| Money { amount, currency: tariff.unwrap().currency };
        Draft {
            account: account.into(),
            contract: contract.map(|by| by.contract.clone()),
            month: Month::of(self.date(stay, exit)).unwrap(),
            state: if is_void && state == DraftState::Charged { DraftState::Void } else { state },
            price: price.map(money),
            amount: due.map(money),
            vat: price.and(tariff).map(|tariff| tariff.vat_basis(left)),
        }
    }

    fn book(&mut self, stay: &OracleStay) {
        let End::Left(exit) = stay.end else { return };
        let draft = self.draft(stay, exit);
        let garage = &self.history.garages[stay.garage];
        let event = &garage.events[exit.event];
        let id = ChargeId {
            garage: garage.name.clone(),
            epoch: event.epoch.to_bytes(),
            sequence: event.sequence,
            made_at_ms: exit.is_made.then_some(exit.at_ms),
        };
        let of_month = self.books.totals.entry((draft.account.to_string(), draft.month)).or_default();
        of_month.count(Sign::Add, &draft);
        self.books.taken.entry(garage.name.clone()).or_default().count(Sign::Add, &draft);
        for code in self.codes(stay, exit, &draft) {
            self.note(code, stay.garage, Some(&stay.plate).filter(|_| !is_of_garage(code)), exit.at_ms);
        }
        let decisions = self.decided(stay).to_vec();
        for _ in 0..without_effect(&draft, exit.at_ms - stay.entry.at_ms, &decisions) {
            self.note(AnomalyCode::DecisionWithoutEffect, stay.garage, Some(&stay.plate), RECORDED_AT_MS);
        }
        let (plate, entry_ms, exit_ms) = (stay.plate.to_string(), stay.entry.at_ms, exit.at_ms);
        let before = self.books.drafts.insert(id.to_string(), BookedStay { plate, entry_ms, exit_ms, draft });
        assert_eq!(before, None, "an id is of one charge");
    }

    /// What does not add up about a closed stay.
    fn codes(&self, stay: &OracleStay, exit: Passage, draft: &Draft) -> Vec<AnomalyCode> {
        let mut codes = Vec::new();
        codes.extend(match draft.state {
            DraftState::Held(HeldBecause::EndsBeforeItBegins) => Some(AnomalyCode::ExitBeforeEntry),
            DraftState::Held(HeldBecause::TooLong) => Some(AnomalyCode::StayOver30Days),
            DraftState::Held(HeldBecause::PlaceUndecided) => Some(AnomalyCode::PlaceUndecided),
            DraftState::Waiting(WaitsFor::Tariff) => Some(AnomalyCode::NoTariff),
            DraftState::Waiting(WaitsFor::Calendar) => Some(AnomalyCode::CalendarIncomplete),
            _ => None,
        });
        if (-5 * MINUTE_MS..0).contains(&(exit.at_ms - stay.entry.at_ms)) {
            codes.push(AnomalyCode::ClockSkew);
        }
        let holder = self.register.holder(&stay.plate, self.date(stay, stay.entry));
        if self.contract(stay).zip(holder).is_some_and(|(by, holder)| by.version.account != *holder) {
            codes.push(AnomalyCode::OtherAccountInContract);
        }
        if draft.account == "unregistered" {
            codes.push(AnomalyCode::Unregistered);
        }
        codes
    }

    /// Whether the car was inside another garage when it entered.
    fn look_elsewhere(&mut self, stay: &OracleStay) {
        let at = stay.entry.at_ms;
        let is_there = |other: &&OracleStay| {
            let (there, here) =
                (&self.history.garages[other.garage].name, &self.history.garages[stay.garage].name);
            let came_before = (other.entry.at_ms, there) < (at, here);
            let is_still_there = match other.end {
                End::Left(exit) => exit.at_ms > at,
                End::Inside => at - other.entry.at_ms <= 30 * DAY_MS,
                End::Unseen => false,
            };
            other.plate == stay.plate && other.garage != stay.garage && came_before && is_still_there
        };
        if self.stays.iter().any(|other| is_there(&other)) {
            self.note(AnomalyCode::OpenInTwoGarages, stay.garage, Some(&stay.plate), at);
        }
    }
}

/// How many of the decisions about a stay change nothing.
fn without_effect(draft: &Draft, lasted_ms: i64, decisions: &[Decided]) -> usize {
    let is_priced =
        !matches!(draft.state, DraftState::Waiting(_) | DraftState::Held(_) | DraftState::Covered);
    let is_billable = (30 * DAY_MS + 1..=3_660 * DAY_MS).contains(&lasted_ms);
    let has_effect = |n: &usize| {
        let earlier = &decisions[..*n];
        let given_back: i64 = earlier.iter().filter_map(credited).sum();
        match decisions[*n] {
            Decided::Bill => is_billable && !earlier.contains(&Decided::Bill),
            Decided::Void => is_priced && !earlier.contains(&Decided::Void),
            Decided::Credit(credit) => {
                let price = draft.price.map_or(0, |price| price.amount.minor());
                is_priced
                    && !earlier.contains(&Decided::Void)
                    && given_back.saturating_add(credit.minor()) <= price
            }
        }
    };
    decisions.len() - (0..decisions.len()).filter(has_effect).count()
}

fn credited(decision: &Decided) -> Option<i64> {
    match decision {
        Decided::Credit(credit) => Some(credit.minor()),
        _ => None,
    }
}

fn is_of_garage(code: AnomalyCode) -> bool {
    matches!(code, AnomalyCode::NoTariff | AnomalyCode::CalendarIncomplete)
}

/// What operators say happened right after an entry: all times at which its car left and came back, and the last of those at which it
/// left for good.
fn made(event: usize, repairs: &[&Repair]) -> Vec<(Way, Passage)> {
    let made = |way, at_ms| (way, Passage { event, is_made: true, at_ms, offset_minutes: OFFSET_MINUTES });
    let (mut all, mut closed) = (Vec::new(), None);
    for repair in repairs {
        match repair {
            Repair::Plate(_) => {}
            Repair::Closed { left_at_ms } => closed = Some(made(Way::Out, *left_at_ms)),
            Repair::Split { left_at_ms, entered_at_ms } => {
                all.extend([made(Way::Out, *left_at_ms), made(Way::In, *entered_at_ms)]);
            }
        }
    }
    all.extend(closed);
    all.sort_by_key(|(_, passage)| passage.at_ms);
    all.dedup_by_key(|(_, passage)| passage.at_ms);
    all
}
