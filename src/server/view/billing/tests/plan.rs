//! Random histories, and what must have come before what in them.

use super::super::rules::Decided;
use super::TARIFFS;
use super::oracle::{GarageHistory, Happened, History, HistoryEvent, Order, Repair};
use crate::messaging::Epoch;
use crate::parking::Plate;
use crate::parking::money::Amount;
use crate::parking::register::{Account, ContractName, DateRange, Register};
use crate::parking::stay::Way;
use crate::parking::tariff::TariffSet;
use jiff::civil::{Date, date};
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const PLATES: usize = 5;
/// The VAT rate changes on 1 January, and the calendar of the second tariff ends on 6 January.
const START: &str = "2026-12-29T06:00:00Z";
const DAY_ONE: Date = date(2026, 12, 27);

/// One thing that happens, in the order in which all of them do.
#[derive(Debug, Clone)]
pub enum Act {
    /// A car that is inside a garage leaves it, one that is not enters `garage`; an odd one does as it likes.
    Move {
        plate: usize,
        garage: usize,
        gap: Gap,
        is_odd: bool,
    },
    Correct {
        garage: usize,
        back: usize,
        plate: usize,
    },
    Register {
        plate: usize,
        account: usize,
        from: u8,
        days: Option<u8>,
    },
    Remove {
        plate: usize,
        on: u8,
    },
    Contract {
        contract: usize,
        account: usize,
        plates: u8,
        garage: Option<usize>,
        from: u8,
        days: u8,
        cars: u8,
    },
    EndContract {
        contract: usize,
        on: u8,
    },
    Tariffs(usize),
    Rename {
        garage: usize,
    },
    Decide {
        garage: usize,
        back: usize,
        what: Decided,
    },
    /// The same about an exit that an operator made.
    DecideMade {
        back: usize,
        what: Decided,
    },
    /// The exit was of this car.
    Join {
        garage: usize,
        back: usize,
        plate: usize,
    },
    /// The car left that many minutes after it entered, and came back so much later, or did not.
    Part {
        garage: usize,
        back: usize,
        minutes: i64,
        away: Option<i64>,
    },
    Undo {
        back: usize,
    },
}

/// How much later it happens than what was before, and how wrong the garage's clock is, in minutes.
type Gap = (i64, i64);

fn act(garages: usize) -> impl Strategy<Value = Act> {
    let gap = (
        prop_oneof![3 => Just(0i64), 8 => Just(30), 6 => Just(150), 2 => Just(1_200), 1 => Just(9 * 1_440), 1 => Just(31 * 1_440)],
        prop_oneof![20 => Just(0i64), 1 => Just(-4), 1 => Just(-34)],
    );
    let plate = 0..PLATES;
    let day = 0u8..16;
    let what = prop_oneof![
        Just(Decided::Void),
        Just(Decided::Bill),
        (1i64..900).prop_map(|minor| Decided::Credit(Amount::of_minor(minor)))
    ];
    prop_oneof![
        40 => (0..=PLATES, 0..garages, gap, prop::bool::weighted(0.1))
            .prop_map(|(plate, garage, gap, is_odd)| Act::Move { plate, garage, gap, is_odd }),
        5 => (0..garages, 0usize..12, plate.clone()).prop_map(|(garage, back, plate)| Act::Correct { garage, back, plate }),
        3 => (plate.clone(), 0usize..3, day.clone(), prop::option::of(0u8..6))
            .prop_map(|(plate, account, from, days)| Act::Register { plate, account, from, days }),
        1 => (plate, day.clone()).prop_map(|(plate, on)| Act::Remove { plate, on }),
        4 => (0usize..2, 0usize..3, 1u8..32, prop::option::weighted(0.4, 0..garages), day.clone(), 0u8..16, 1u8..4).prop_map(
            |(contract, account, plates, garage, from, days, cars)|
                Act::Contract { contract, account, plates, garage, from, days, cars }),
        1 => (0usize..2, day).prop_map(|(contract, on)| Act::EndContract { contract, on }),
        2 => (0usize..4).prop_map(Act::Tariffs),
        1 => (0..garages).prop_map(|garage| Act::Rename { garage }),
        4 => (0..garages, 0usize..12, what.clone()).prop_map(|(garage, back, what)| Act::Decide { garage, back, what }),
        1 => (0usize..4, what).prop_map(|(back, what)| Act::DecideMade { back, what }),
        2 => (0..garages, 0usize..12, 0..PLATES).prop_map(|(garage, back, plate)| Act::Join { garage, back, plate }),
        3 => (0..garages, 0usize..12, prop_oneof![6 => 1i64..2_000, 1 => -200i64..1], prop::option::of(1i64..300))
            .prop_map(|(garage, back, minutes, away)| Act::Part { garage, back, minutes, away }),
        1 => (0usize..4).prop_map(|back| Act::Undo { back }),
    ]
}

pub fn acts() -> impl Strategy<Value = (usize, Vec<Act>)> {
    (2usize..=5).prop_flat_map(|garages| (Just(garages), prop::collection::vec(act(garages), 1..50)))
}

fn plate(number: usize) -> Plate {
    Plate::new(["AA1", "BB2", "CC3", "ΙΒΝ1234", "EE5"][number]).unwrap()
}

fn account(number: usize) -> Account {
    Account::new(["acme", "beta", "city"][number]).unwrap()
}

fn day(number: u8) -> Date {
    DAY_ONE + i64::from(number).days()
}

fn tariffs(number: usize) -> TariffSet {
    let by_days = r#"
        [[calendar]]
        name = "land"
        holidays = [2027-01-01, 2027-01-06]
        complete_from = 2026-01-01
        complete_through = 2027-01-06
        [[tariff]]
        name = "station"
        garages = ["g0", "new1"]
        currency = "EUR"
        time_zone = "Europe/Berlin"
        valid_from = 2020-01-01
        calendar = "land"
        vat_percent = 7
        unit_minutes = 30
        bands = [
            { days = "mon-fri", from = "00:00", to = "24:00", per_unit = 100 },
            { days = "sat-sun,holiday", from = "00:00", to = "24:00", per_unit = 40 },
        ]
    "#;
    let abroad = r#"
        [[tariff]]
        name = "quay"
        garages = ["g1", "new0"]
        currency = "GBP"
        time_zone = "America/New_York"
        valid_from = 2026-12-30
        vat_reason = "outside the scope of VAT"
        unit_minutes = 1440
        bands = [{ days = "all", from = "00:00", to = "24:00", per_unit = 600 }]
    "#;
    let text = match number {
        0 => TARIFFS.to_owned(),
        1 => format!("{TARIFFS}{by_days}"),
        2 => format!("{abroad}{by_days}"),
        _ => abroad.to_owned(),
    };
    TariffSet::parse(&text).unwrap()
}

/// What must be in the ledger before an event or an order comes.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    Events { garage: usize, count: usize },
    Orders(usize),
}

/// A history, and for each event and order what must have come before it.
pub struct Planned {
    pub history: History,
    pub event_needs: Vec<Vec<Option<Need>>>,
    pub order_needs: Vec<Option<Need>>,
}

/// Makes a history of acts. What makes no sense is left out.
struct Planner {
    planned: Planned,
    now_ms: i64,
    register: Register,
    /// Where each car is as far as it was read.
    inside: BTreeMap<usize, usize>,
    /// Of each garage: the name and the epoch of its edge, its last sequence in it, and the order that gave the name.
    edges: Vec<(String, Epoch, u64, Option<Need>)>,
    undone: BTreeSet<usize>,
}

pub fn plan(garages: usize, acts: &[Act]) -> Planned {
    let history = History {
        garages: (0..garages).map(|n| GarageHistory { name: format!("g{n}"), events: Vec::new() }).collect(),
        orders: Vec::new(),
    };
    let edge = |n: usize| (format!("g{n}"), Epoch::from_bytes([n as u8; 16]), 0, None);
    let mut planner = Planner {
        planned: Planned { history, event_needs: vec![Vec::new(); garages], order_needs: Vec::new() },
        now_ms: START.parse::<Timestamp>().unwrap().as_millisecond(),
        register: Register::default(),
        inside: BTreeMap::new(),
        edges: (0..garages).map(edge).collect(),
        undone: BTreeSet::new(),
    };
    acts.iter().for_each(|act| planner.take(act));
    planner.planned
}

impl Planner {
    fn take(&mut self, act: &Act) {
        match act {
            Act::Move { plate: number, garage, gap: (minutes, wrong), is_odd } => {
                self.now_ms += minutes * 60_000;
                let there = self.inside.get(number).copied().filter(|_| !is_odd);
                let way = if there.is_some() { Way::Out } else { Way::In };
                let garage = there.unwrap_or(*garage);
                let plate = (*number < PLATES).then(|| plate(*number));
                match way {
                    Way::In if plate.is_some() => _ = self.inside.insert(*number, garage),
                    _ => _ = self.inside.remove(number),
                }
                let at_ms = self.now_ms + wrong * 60_000;
                self.event(garage, Happened::Passed { way, plate, at_ms, offset_minutes: 60 });
            }
            Act::Correct { garage, back, plate: number } => {
                if let Some((event, _)) = self.passage(*garage, *back, |_| true) {
                    self.event(*garage, Happened::Corrected { event, plate: plate(*number) });
                }
            }
            Act::Rename { garage } => {
                let to = format!("new{garage}");
                let is_known = !self.planned.history.garages[*garage].events.is_empty();
                if !is_known || self.edges[*garage].0 == to {
                    return;
                }
                self.order(
                    Order::Rename { garage: *garage, to: to.clone() },
                    Some(Need::Events { garage: *garage, count: 1 }),
                );
                let epoch = Epoch::from_bytes([100 + *garage as u8; 16]);
                self.edges[*garage] = (to, epoch, 0, Some(Need::Orders(self.planned.history.orders.len())));
            }
            Act::Tariffs(number) => self.order(Order::Tariffs(Box::new(tariffs(*number))), None),
            Act::Decide { garage, back, what } => {
                if let Some((event, _)) = self.passage(*garage, *back, |way| way == Way::Out) {
                    self.order(Order::Decide { exit: (*garage, event), made_at_ms: None, what: *what }, None);
                }
            }
            Act::DecideMade { back, what } => {
                let made = self.planned.history.orders.iter().rev().filter_map(|order| match order {
                    Order::Repair {
                        event,
                        what: Repair::Closed { left_at_ms } | Repair::Split { left_at_ms, .. },
                    } => Some((*event, *left_at_ms)),
                    _ => None,
                });
                if let Some((exit, left_at_ms)) = made.into_iter().nth(*back) {
                    self.order(Order::Decide { exit, made_at_ms: Some(left_at_ms), what: *what }, None);
                }
            }
            Act::Join { garage, back, plate: number } => {
                if let Some((event, _)) = self.passage(*garage, *back, |way| way == Way::Out) {
                    self.order(
                        Order::Repair { event: (*garage, event), what: Repair::Plate(plate(*number)) },
                        None,
                    );
                }
            }
            Act::Part { garage, back, minutes, away } => {
                if let Some((event, at_ms)) = self.passage(*garage, *back, |way| way == Way::In) {
                    let left_at_ms = at_ms + minutes * 60_000;
                    let what = match away {
                        Some(away) => Repair::Split { left_at_ms, entered_at_ms: left_at_ms + away * 60_000 },
                        None => Repair::Closed { left_at_ms },
                    };
                    self.order(Order::Repair { event: (*garage, event), what }, None);
                }
            }
            Act::Undo { back } => {
                let orders = self.planned.history.orders.iter().enumerate().rev();
                let decided =
                    orders.filter(|(_, order)| matches!(order, Order::Decide { .. } | Order::Repair { .. }));
                let place =
                    decided.map(|(place, _)| place).filter(|place| !self.undone.contains(place)).nth(*back);
                if let Some(place) = place {
                    self.undone.insert(place);
                    self.order(Order::Undo(place), None);
                }
            }
            Act::Register { .. } | Act::Remove { .. } | Act::Contract { .. } | Act::EndContract { .. } => {
                self.register(act)
            }
        }
    }

    fn register(&mut self, act: &Act) {
        let facts = match act {
            Act::Register { plate: number, account: of, from, days } => {
                let last = days.map(|days| day(from + days));
                let dates = DateRange::new(Some(day(*from)), last).unwrap();
                self.register
                    .add_plate(&plate(*number), &account(*of), dates)
                    .unwrap()
                    .fact
                    .into_iter()
                    .collect()
            }
            Act::Remove { plate: number, on } => {
                self.register.remove_plate(&plate(*number), day(*on)).into_iter().collect()
            }
            Act::Contract { contract, account: of, plates, garage, from, days, cars } => {
                let mut csv = "contract,account,plate,garage,valid_from,valid_to,cars\n".to_owned();
                let garage = garage.map_or("*".to_owned(), |garage| self.edges[garage].0.clone());
                for number in (0..PLATES).filter(|number| plates >> number & 1 == 1) {
                    let (from, to) = (day(*from), day(from + days));
                    csv += &format!(
                        "C{contract},{},{},{garage},{from},{to},{cars}\n",
                        account(*of),
                        plate(number)
                    );
                }
                let is_same = |one: &str, other: &str| {
                    one.trim_start_matches(char::is_alphabetic)
                        == other.trim_start_matches(char::is_alphabetic)
                };
                self.register.import_contracts(&csv, is_same).map(|import| import.facts).unwrap_or_default()
            }
            Act::EndContract { contract, on } => {
                let name: ContractName = format!("C{contract}").parse().unwrap();
                self.register.remove_contract(&name, day(*on)).into_iter().collect()
            }
            _ => Vec::new(),
        };
        if !facts.is_empty() {
            facts.iter().for_each(|fact| drop(self.register.apply(fact)));
            self.order(Order::Register(facts), None);
        }
    }

    /// The entry or exit that many back, among those wanted, and when it was.
    fn passage(&self, garage: usize, back: usize, is_wanted: impl Fn(Way) -> bool) -> Option<(usize, i64)> {
        let events = self.planned.history.garages[garage].events.iter().enumerate().rev();
        let passed = events.filter_map(|(place, event)| match event.what {
            Happened::Passed { way, at_ms, .. } if is_wanted(way) => Some((place, at_ms)),
            _ => None,
        });
        passed.into_iter().nth(back)
    }

    fn event(&mut self, garage: usize, what: Happened) {
        let (site, epoch, sequence, need) = &mut self.edges[garage];
        // An edge corrects events of its own epoch only.
        if let Happened::Corrected { event, .. } = what
            && self.planned.history.garages[garage].events[event].epoch != *epoch
        {
            return;
        }
        *sequence += 1;
        let event = HistoryEvent { site: site.clone(), epoch: *epoch, sequence: *sequence, what };
        self.planned.history.garages[garage].events.push(event);
        self.planned.event_needs[garage].push(*need);
    }

    fn order(&mut self, order: Order, need: Option<Need>) {
        self.planned.history.orders.push(order);
        self.planned.order_needs.push(need);
    }
}
