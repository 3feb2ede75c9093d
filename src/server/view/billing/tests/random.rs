//! The order in which garages deliver does not matter, however their events are batched, and through restarts and rebuilds.

use super::super::rules::Decided;
use super::super::totals::{self, Totals};
use super::super::{ShownBooks, UNREGISTERED};
use super::oracle::{
    self, BookedStay, Books, EventPlace, Happened, HistoryEvent, OFFSET_MINUTES, Order, Repair,
};
use super::plan::{Need, Planned, acts, plan};
use super::{page_by_set_clock, scaled, written};
use crate::messaging::wire::Request;
use crate::messaging::{Digest, SiteName};
use crate::parking::event::{Moment, Sighting};
use crate::parking::stay::Way;
use crate::parking::{ChargeId, Event, EventId, EventKind, Month};
use crate::server::ledger::Ledger;
use crate::server::record::Command;
use crate::server::view::anomaly_list::{self, AnomalyFilter};
use crate::server::view::charges::{self, ChargeFilter};
use crate::server::view::codec::read_range;
use crate::server::view::tests::{request, world};
use crate::server::view::{View, ViewChanges, catch_up};
use crate::store::Store;
use crate::store::simulated::Disk;
use proptest::prelude::*;

/// Random numbers: splitmix64.
pub struct Dice(u64);

impl Dice {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// A ledger that takes the streams of a history in some order.
pub struct Town<'a> {
    planned: &'a Planned,
    pub dice: Dice,
    disk: Disk,
    store: Store,
    pub ledger: Ledger,
    pub view: View,
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
        Town::live_with(planned, seed, &mut |_| {})
    }

    /// The same, with what else happens between any two of its steps.
    pub fn live_with(planned: &'a Planned, seed: u64, between: &mut dyn FnMut(&mut Town<'a>)) -> Town<'a> {
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
            between(&mut town);
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
            let payloads: Vec<Vec<u8>> = of_page.map(|event| self.bytes(garage, event)).collect();
            self.come[garage] += payloads.len();
            self.waiting.push(request(site, *epoch, vec![page_by_set_clock(*epoch, *first, &payloads)]));
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

    pub fn apply_ledger(&mut self) {
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

    pub fn save(&mut self) {
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
    pub fn rebuild(&mut self) {
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
            let made_at_ms = listed.exit.made_at_ms();
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
