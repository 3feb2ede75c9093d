//! The order in which garages deliver does not matter, however their events are batched, and through restarts and rebuilds.

use super::super::rules::Decided;
use super::super::totals::{self, Totals};
use super::super::{ShownBooks, UNREGISTERED};
use super::oracle::{
    self, BookedStay, Books, EventPlace, GarageHistory, Happened, History, HistoryEvent, OFFSET_MINUTES,
    Order, Repair,
};
use super::{TARIFFS, scaled, written};
use crate::messaging::page::{Content, Message, Page, SealedPage};
use crate::messaging::wire::Request;
use crate::messaging::{ClockReading, Digest, Epoch, Sequence, SiteName};
use crate::parking::event::{Moment, Sighting};
use crate::parking::money::Amount;
use crate::parking::register::{Account, ContractName, DateRange, Register};
use crate::parking::stay::Way;
use crate::parking::tariff::TariffSet;
use crate::parking::{ChargeId, Event, EventId, EventKind, Month, Plate};
use crate::server::ledger::Ledger;
use crate::server::record::Command;
use crate::server::view::anomaly_list::{self, AnomalyFilter};
use crate::server::view::charges::{self, ChargeFilter};
use crate::server::view::codec::read_range;
use crate::server::view::tests::world;
use crate::server::view::{View, ViewChanges, catch_up};
use crate::store::Store;
use crate::store::simulated::Disk;
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
enum Act {
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

fn acts() -> impl Strategy<Value = (usize, Vec<Act>)> {
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
enum Need {
    Events { garage: usize, count: usize },
    Orders(usize),
}

/// A history, and for each event and order what must have come before it.
struct Planned {
    history: History,
    event_needs: Vec<Vec<Option<Need>>>,
    order_needs: Vec<Option<Need>>,
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

fn plan(garages: usize, acts: &[Act]) -> Planned {
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

/// Random numbers: splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// A ledger that takes the streams of a history in some order.
struct Town<'a> {
    planned: &'a Planned,
    dice: Dice,
    disk: Disk,
    store: Store,
    ledger: Ledger,
    view: View,
    changes: ViewChanges,
    /// How many events of each garage have come.
    come: Vec<usize>,
    /// What is committed together with the next.
    waiting: Vec<Request>,
    /// Of the orders that have come: the positions in the ledger.
    orders: Vec<u64>,
}

impl<'a> Town<'a> {
    fn live(planned: &'a Planned, seed: u64) -> Town<'a> {
        let (disk, store, ledger) = world();
        let (come, changes) = (vec![0; planned.history.garages.len()], ViewChanges::on(&store));
        let (view, dice) = (View::default(), Dice(seed));
        let mut town = Town {
            planned,
            dice,
            disk,
            store,
            ledger,
            view,
            changes,
            come,
            waiting: Vec::new(),
            orders: Vec::new(),
        };
        loop {
            let is_left = |garage: &usize| town.come[*garage] < planned.history.garages[*garage].events.len();
            let garages: Vec<usize> = (0..town.come.len()).filter(is_left).collect();
            let orders_left = town.orders.len() < planned.history.orders.len();
            match town.dice.below(
                garages.len() + usize::from(orders_left) + usize::from(garages.is_empty() && !orders_left),
            ) {
                n if n < garages.len() => {
                    let count = town.come[garages[n]] + 1 + town.dice.below(6);
                    town.deliver(garages[n], count);
                }
                _ if orders_left => town.give(town.orders.len() + 1),
                _ => break,
            }
            match town.dice.below(12) {
                0 => town.save(),
                1 => town.restart(),
                2 => town.rebuild(),
                _ => {}
            }
        }
        town.save();
        town
    }

    fn meet(&mut self, need: Option<Need>) {
        match need {
            Some(Need::Events { garage, count }) => self.deliver(garage, count),
            Some(Need::Orders(count)) => self.give(count),
            None => {}
        }
    }

    /// The events of a garage come, up to this number of them.
    fn deliver(&mut self, garage: usize, count: usize) {
        let events = &self.planned.history.garages[garage].events;
        let count = count.min(events.len());
        while self.come[garage] < count {
            let from = self.come[garage];
            let HistoryEvent { site, epoch, sequence: first, .. } = &events[from];
            self.meet(self.planned.event_needs[garage][from]);
            let most = from + 1 + self.dice.below(3);
            let of_page = events[from..count.min(most)].iter().take_while(|event| event.epoch == *epoch);
            let messages: Vec<Message> =
                of_page.map(|event| Message::of(self.bytes(garage, event))).collect();
            self.come[garage] += messages.len();
            let begun = ClockReading { set: true, ..ClockReading::at_wall_ms(0) };
            let (first, previous, moved_from) = (Sequence::new(*first).unwrap(), None, None);
            let page = Page {
                epoch: *epoch,
                first,
                previous,
                moved_from,
                begun,
                content: Content::Records(messages),
            };
            self.waiting.push(Request {
                id: 1,
                site: SiteName::new(site).unwrap(),
                epoch: *epoch,
                oldest: 1,
                ledger: None,
                instance: 1,
                clock_ms: 0,
                pages: vec![SealedPage::seal(&page)],
                ask: None,
                observation: None,
            });
            // Sometimes the edge does not hear the answer, and sends the page again.
            if self.dice.below(8) == 0 {
                self.waiting.push(self.waiting.last().unwrap().clone());
            }
            if self.dice.below(2) == 0 {
                self.commit();
            }
        }
    }

    fn bytes(&self, garage: usize, event: &HistoryEvent) -> Vec<u8> {
        let (kind, at_ms, minutes) = match &event.what {
            Happened::Passed { way: Way::In, plate, at_ms, offset_minutes } => {
                (EventKind::Entry { plate: plate.clone() }, *at_ms, *offset_minutes)
            }
            Happened::Passed { way: Way::Out, plate, at_ms, offset_minutes } => {
                (EventKind::Exit { plate: plate.clone() }, *at_ms, *offset_minutes)
            }
            Happened::Corrected { event, plate } => {
                let HistoryEvent { epoch, sequence, .. } =
                    self.planned.history.garages[garage].events[*event];
                (
                    EventKind::PlateCorrection { epoch: epoch.to_string(), sequence, plate: plate.clone() },
                    0,
                    0,
                )
            }
        };
        Event { kind, at: Moment::from_ms(at_ms, minutes), seen: Sighting::default() }.to_bytes()
    }

    fn commit(&mut self) {
        if !self.waiting.is_empty() {
            let applied = self.ledger.commit(&std::mem::take(&mut self.waiting), 77).unwrap();
            assert!(applied.iter().all(|its| its.verdict == crate::messaging::wire::Verdict::Accepted));
            self.apply_ledger();
        }
    }

    fn apply_ledger(&mut self) {
        catch_up(&mut self.view, &self.ledger, u64::MAX, &mut self.changes, |_| {}).unwrap();
    }

    /// Operators give their orders, up to this number of them.
    fn give(&mut self, count: usize) {
        while self.orders.len() < count {
            let place = self.orders.len();
            self.meet(self.planned.order_needs[place]);
            self.commit();
            let garage_name = |garage: usize| self.planned.history.garages[garage].name.clone();
            let position = match &self.planned.history.orders[place] {
                Order::Tariffs(set) => self
                    .list(set.to_toml().into_bytes(), |pieces, digest| Command::Tariffs { pieces, digest }),
                Order::Register(facts) => self.list(postcard::to_stdvec(facts).unwrap(), |pieces, digest| {
                    Command::Register { pieces, digest }
                }),
                Order::Rename { garage, to } => {
                    let (garage, to) =
                        (SiteName::new(&garage_name(*garage)).unwrap(), SiteName::new(to).unwrap());
                    self.record(Command::Rename { garage, to })
                }
                Order::Decide { exit, made_at_ms, what } => {
                    let EventId { garage, epoch, sequence } = self.id(*exit);
                    let charge = ChargeId { garage, epoch, sequence, made_at_ms: *made_at_ms };
                    let reason = "r".to_owned();
                    self.record(match what {
                        Decided::Void => Command::Void { charge, reason },
                        Decided::Credit(amount) => Command::Credit { charge, amount: amount.minor(), reason },
                        Decided::Bill => Command::BillStay { charge, reason },
                    })
                }
                Order::Repair { event, what } => {
                    let (event, reason, offset_minutes) = (self.id(*event), "r".to_owned(), OFFSET_MINUTES);
                    self.record(match *what {
                        Repair::Plate(ref plate) => {
                            let (entry, plate) = (event.clone(), Some(plate.to_string()));
                            Command::JoinStay { entry, exit: event, plate, reason }
                        }
                        Repair::Closed { left_at_ms } => {
                            Command::CloseStay { entry: event, left_at_ms, offset_minutes, reason }
                        }
                        Repair::Split { left_at_ms, entered_at_ms } => Command::SplitStay {
                            entry: event,
                            left_at_ms,
                            entered_at_ms,
                            offset_minutes,
                            reason,
                        },
                    })
                }
                Order::Undo(of) => self.record(Command::Undo { decision: self.orders[*of] }),
            };
            self.orders.push(position);
            self.apply_ledger();
        }
    }

    fn id(&self, (garage, event): EventPlace) -> EventId {
        let garage = &self.planned.history.garages[garage];
        let HistoryEvent { epoch, sequence, .. } = garage.events[event];
        EventId { garage: garage.name.clone(), epoch: epoch.to_bytes(), sequence }
    }

    fn list(&self, bytes: Vec<u8>, command: impl Fn(u32, Digest) -> Command) -> u64 {
        let digest = Digest::of(&bytes);
        self.ledger.record_order("me", vec![bytes], command(1, digest), 5).unwrap()
    }

    fn record(&self, command: Command) -> u64 {
        self.ledger.record_command("me", command, 5).unwrap()
    }

    fn save(&mut self) {
        self.commit();
        self.view.save(&mut self.changes).unwrap();
    }

    /// The server stops and starts again, or ends before it has saved.
    fn restart(&mut self) {
        if self.dice.below(2) == 0 {
            self.save();
            assert_eq!(View::load(&self.store, &self.ledger).unwrap(), self.view);
        }
        if self.dice.below(4) == 0 {
            self.disk.power_on(self.dice.below(3));
            self.store = Store::on(self.disk.clone());
            self.ledger = Ledger::open(self.store.clone()).unwrap();
        }
        self.view = View::open(&self.store, &self.ledger).unwrap();
        self.changes = ViewChanges::on(&self.store);
        self.apply_ledger();
    }

    /// The views are the same as if they had seen the ledger from its beginning.
    fn rebuild(&mut self) {
        self.save();
        let other = Store::on(Disk::default());
        let (mut rebuilt, mut changes) = (View::default(), ViewChanges::on(&other));
        catch_up(&mut rebuilt, &self.ledger, u64::MAX, &mut changes, |_| {}).unwrap();
        rebuilt.save(&mut changes).unwrap();
        assert_eq!(rebuilt, self.view);
        assert_eq!(written(&other), written(&self.store));
    }

    /// What people see.
    fn books(&self) -> Books {
        let view = self.view.snapshot();
        let billing: &ShownBooks = &view.billing;
        let name = |garage: u32| view.key_of_number(garage).unwrap().to_string();
        let mut books = Books::default();
        for listed in self.charges(None) {
            let (garage, epoch) =
                (name(listed.address.garage), self.ledger.epoch_of(listed.exit.stream()).unwrap().to_bytes());
            let made_at_ms = listed.exit.is_made().then_some(listed.exit.at_ms);
            let id = ChargeId { garage, epoch, sequence: listed.exit.sequence, made_at_ms };
            let (plate, entry_ms, exit_ms) =
                (listed.plate.to_string(), listed.entry.at_ms, listed.exit.at_ms);
            let before = books
                .drafts
                .insert(id.to_string(), BookedStay { plate, entry_ms, exit_ms, draft: listed.draft });
            assert_eq!(before, None, "an id is of one charge");
        }
        for entry in read_range::<Totals>(&self.store, b"vbm", b"vbn") {
            let (key, of_month) = entry.unwrap();
            let (account, month): (u32, Month) = totals::of_month_key(&key).unwrap();
            books.totals.insert((billing.account_name(account).unwrap().to_owned(), month), of_month);
        }
        for garage in view.garages.values() {
            let number = garage.stays.number;
            books.taken.extend(billing.taken(number).map(|taken| (name(number), taken.clone())));
        }
        let everything = AnomalyFilter { limit: 10_000, ..AnomalyFilter::default() };
        let (_, list) = anomaly_list::list((&view, &self.ledger), None, &everything).unwrap();
        assert_eq!(list.next, None);
        for noted in list.anomalies {
            let key = (noted.code.told().0.as_str(), name(noted.garage), noted.plate.unwrap_or_default());
            books.anomalies.insert(key, (noted.count, noted.first_at_ms, noted.last_at_ms));
        }
        books
    }

    fn charges(&self, account: Option<String>) -> Vec<charges::ListedDraft> {
        let view = self.view.snapshot();
        let mut wanted = ChargeFilter { account, limit: 7, ..ChargeFilter::default() };
        let mut found = Vec::new();
        loop {
            let (_, list) = charges::list((&view, &self.ledger), None, &wanted).unwrap();
            found.extend(list.charges);
            if list.next.is_none() {
                return found;
            }
            wanted.after = list.next;
        }
    }

    /// Every way to ask for the books gives the same.
    fn check(&self, books: &Books) {
        let view = self.view.snapshot();
        charges::check_totals((&view, &self.ledger), &mut |place, what| panic!("{place}: {what}")).unwrap();
        for account in ["acme", "beta", "city", UNREGISTERED] {
            let of_account = books.drafts.values().filter(|stay| stay.draft.account == account).count();
            assert_eq!(self.charges(Some(account.to_owned())).len(), of_account, "{account}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(scaled(200, 2_000, 50_000)))]

    #[test]
    fn drafts_totals_and_anomalies_do_not_depend_on_the_order_between_garages(
        (garages, acts) in acts(),
        seeds in any::<[u64; 2]>(),
    ) {
        let planned = plan(garages, &acts);
        let expected = oracle::books(&planned.history);
        for seed in seeds {
            let town = Town::live(&planned, seed);
            let books = town.books();
            prop_assert_eq!(&books.drafts, &expected.drafts);
            prop_assert_eq!(&books.totals, &expected.totals);
            prop_assert_eq!(&books.taken, &expected.taken);
            prop_assert_eq!(&books.anomalies, &expected.anomalies);
            town.check(&books);
        }
    }
}
