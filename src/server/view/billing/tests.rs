//! What stays cost follows from facts alone.

mod decided;
mod drafts;
mod findings;
mod forgotten;
pub mod oracle;
mod places;
pub mod plan;
pub mod random;
mod repairs;

use super::UNREGISTERED;
use crate::messaging::page::{Page, SealedPage};
use crate::messaging::{ClockReading, Digest, Epoch};
use crate::parking::register::{Account, DateRange, RegisterFact};
use crate::parking::{ChargeId, EventId, Plate};
use crate::server::ledger::Ledger;
use crate::server::reckoning::{ChargeLine, Reckoner};
use crate::server::record::Command;
use crate::server::view::anomaly_list::{self, AnomalyFilter};
use crate::server::view::billing::issued::IssuedBooks;
use crate::server::view::charges::{self, ChargeFilter};
use crate::server::view::tests::{EPOCH, apply, event, page_of, world};
use crate::server::view::written::KEYS;
use crate::server::view::{JudgeError, View, ViewChanges, catch_up};
use crate::store::Store;
use crate::store::simulated::Disk;
use jiff::civil::Date;
use std::collections::BTreeMap;

const TARIFFS: &str = r#"
    [[tariff]]
    name = "centre"
    garages = ["*"]
    currency = "EUR"
    time_zone = "Europe/Berlin"
    valid_from = 2020-01-01
    vat = [{ percent = 19 }, { from = 2020-07-01, percent = 16 }, { from = 2021-01-01, percent = 19 }, { from = 2027-01-01, percent = 20 }]
    grace_minutes = 10
    unit_minutes = 60
    bands = [{ days = "all", from = "00:00", to = "24:00", per_unit = 250 }]
"#;

const NINE: &str = "2026-11-23T09:00:00+01:00";
const TEN: &str = "2026-11-23T10:00:00+01:00";
const TEN_PAST: &str = "2026-11-23T10:00:01+01:00";
const ELEVEN: &str = "2026-11-23T11:00:00+01:00";
const TWELVE: &str = "2026-11-23T12:00:00+01:00";

/// How many cases a random test tries: by `FOGPOST_TEST_SCALE`, as in tests/common/scale.rs.
pub fn scaled(quick: u32, default: u32, long: u32) -> u32 {
    match std::env::var("FOGPOST_TEST_SCALE").as_deref() {
        Ok("quick") => quick,
        Ok("long") => long,
        _ => default,
    }
}

/// All that the views keep on the disk.
fn written(store: &Store) -> Vec<crate::store::Entry> {
    store.range(KEYS.0, KEYS.1).map(|entry| entry.unwrap()).collect()
}

fn page_by_set_clock(epoch: Epoch, first: u64, events: &[Vec<u8>]) -> SealedPage {
    let page = page_of(epoch, first, events).open().unwrap();
    let begun = ClockReading { set: true, ..page.begun };
    SealedPage::seal(&Page { begun, ..page })
}

/// A ledger and the views that follow it.
struct BillingWorld {
    disk: Disk,
    store: Store,
    ledger: Ledger,
    view: View,
    changes: ViewChanges,
    sequences: BTreeMap<String, u64>,
}

/// Kind, plate, time.
type Passed<'a> = (&'a str, &'a str, &'a str);

impl BillingWorld {
    fn new() -> BillingWorld {
        let (disk, store, ledger) = world();
        let changes = ViewChanges::on(&store);
        BillingWorld { disk, store, ledger, view: View::default(), changes, sequences: BTreeMap::new() }
    }

    fn with_tariffs() -> BillingWorld {
        let mut world = BillingWorld::new();
        world.put(TARIFFS);
        world
    }

    fn put(&mut self, tariffs: &str) {
        self.list(tariffs.as_bytes().to_vec(), |pieces, digest| Command::Tariffs { pieces, digest });
    }

    fn list(&mut self, bytes: Vec<u8>, command: impl Fn(u32, Digest) -> Command) {
        let digest = Digest::of(&bytes);
        let pieces: Vec<Vec<u8>> = bytes.chunks(100).map(<[u8]>::to_vec).collect();
        let command = command(pieces.len() as u32, digest);
        self.ledger.record_order("me", pieces, command, 5).unwrap();
        self.apply_ledger();
    }

    fn facts(&mut self, facts: &[RegisterFact]) {
        self.list(postcard::to_stdvec(facts).unwrap(), |pieces, digest| Command::Register { pieces, digest });
    }

    fn plates(&mut self, csv: &str) {
        let import = self.view.billing.rules.register.import_plates(csv).unwrap();
        self.facts(&import.facts);
    }

    fn accounts(&mut self, csv: &str) {
        let import = self.view.billing.rules.register.import_accounts(csv).unwrap();
        self.facts(&import.facts);
    }

    fn contracts(&mut self, lines: &str) {
        let csv = format!("contract,account,plate,garage,valid_from,valid_to,cars\n{lines}");
        let import =
            self.view.billing.rules.register.import_contracts(&csv, |one, other| one == other).unwrap();
        self.facts(&import.facts);
    }

    /// `server plates add`.
    fn add_plate(&mut self, plate: &str, account: &str, from: Date) {
        let (plate, account) = (Plate::new(plate).unwrap(), Account::new(account).unwrap());
        let addition =
            self.view.billing.rules.register.add_plate(&plate, &account, DateRange::starting(from));
        self.facts(&addition.unwrap().fact.into_iter().collect::<Vec<_>>());
    }

    /// `server contracts remove`.
    fn end_contract(&mut self, contract: &str, on: Date) {
        let fact = self.view.billing.rules.register.remove_contract(&contract.parse().unwrap(), on).unwrap();
        self.facts(&[fact]);
    }

    fn apply_ledger(&mut self) {
        catch_up(&mut self.view, &self.ledger, u64::MAX, &mut self.changes, |_| {}).unwrap();
    }

    fn save(&mut self) {
        self.view.save(&mut self.changes).unwrap();
    }

    /// Events of a garage, as one page. Gives the sequence of the first.
    fn events(&mut self, garage: &str, events: &[Passed<'_>]) -> u64 {
        let events = events
            .iter()
            .map(|(kind, plate, at)| event(&format!(r#"{{"kind":"{kind}","plate":"{plate}","at":"{at}"}}"#)));
        self.page(garage, events.collect())
    }

    /// The entry and the exit of a stay. Gives the sequence of the entry.
    fn stay(&mut self, garage: &str, plate: &str, entered: &str, left: &str) -> u64 {
        self.events(garage, &[("entry", plate, entered), ("exit", plate, left)])
    }

    fn correct(&mut self, garage: &str, sequence: u64, plate: &str) -> u64 {
        let correction = format!(
            r#"{{"kind":"plate_correction","epoch":"{EPOCH}","sequence":{sequence},"plate":"{plate}"}}"#
        );
        self.page(garage, vec![event(&correction)])
    }

    fn page(&mut self, garage: &str, events: Vec<Vec<u8>>) -> u64 {
        let next = self.sequences.entry(garage.to_owned()).or_insert(1);
        let first = *next;
        *next += events.len() as u64;
        apply(&self.ledger, garage, vec![page_by_set_clock(EPOCH, first, &events)]);
        self.apply_ledger();
        first
    }

    /// What a command comes to, as an operator's desk does it.
    fn order(&mut self, command: Command) -> Result<u64, String> {
        self.save();
        let command = match self.view.judge(&self.ledger, &command) {
            Ok(command) => command,
            Err(JudgeError::Refused(refusal)) => return Err(refusal.to_string()),
            Err(JudgeError::Store(error)) => panic!("{error}"),
        };
        let position = self.ledger.record_command("me", command, 5).unwrap();
        self.apply_ledger();
        assert_eq!(self.view.decisions.without_effect(position), None);
        Ok(position)
    }

    /// The drafts in the order of their entries.
    fn drafts(&mut self) -> Vec<charges::ListedDraft> {
        self.save();
        let wanted = ChargeFilter { limit: 10_000, ..ChargeFilter::default() };
        let (_, list) = charges::list((&self.view.snapshot(), &self.ledger), None, &wanted).unwrap();
        assert!(list.next.is_none());
        let mut drafts = list.charges;
        drafts.sort_by_key(|its| (its.entry.at_ms, its.entry.position, its.entry.sequence));
        drafts
    }

    fn lines(&mut self) -> Vec<ChargeLine> {
        let drafts = self.drafts();
        let view = self.view.snapshot();
        let (reckoner, issued) = (Reckoner::new(&view, &self.ledger), IssuedBooks::on(&self.store));
        drafts.iter().map(|listed| reckoner.line(listed, &issued).unwrap()).collect()
    }

    fn line(&mut self, plate: &str) -> ChargeLine {
        let mut lines = self.lines();
        lines.retain(|line| line.plate == plate);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    /// Plate, state and amount of each draft, in the order of their entries.
    fn books(&mut self) -> Vec<(String, &'static str, Option<i64>)> {
        let lines = self.lines().into_iter();
        lines.map(|line| (line.plate, line.state, line.amount.map(|amount| amount.minor()))).collect()
    }

    fn sum(&mut self) -> i64 {
        self.books().iter().filter_map(|(_, _, amount)| *amount).sum()
    }

    /// Code, garage, plate, and how often.
    fn anomalies(&mut self) -> Vec<(&'static str, String, String, u64)> {
        self.save();
        let view = self.view.snapshot();
        let everything = AnomalyFilter { limit: 10_000, ..AnomalyFilter::default() };
        let (_, list) = anomaly_list::list((&view, &self.ledger), None, &everything).unwrap();
        let told = list.anomalies.into_iter().map(|its| {
            let garage = view.key_of_number(its.garage).unwrap().to_string();
            (its.code.told().0.as_str(), garage, its.plate.unwrap_or_default(), its.count)
        });
        told.collect()
    }

    fn charge(&mut self, plate: &str) -> ChargeId {
        self.line(plate).id.parse().unwrap()
    }

    /// A crash now and a start, a rebuild, and the sums of the drafts all give the same.
    fn follows_from_the_ledger(mut self) {
        self.save();
        self.store.flush().unwrap();
        self.disk.power_on(0);
        let store = Store::on(self.disk);
        let ledger = Ledger::open(store.clone()).unwrap();
        assert_eq!(View::load(&store, &ledger).unwrap(), self.view);
        let report = crate::server::verify::verify(&ledger, None).unwrap();
        assert!(report.clean, "{report}");
    }
}

fn books(expected: &[(&str, &'static str, Option<i64>)]) -> Vec<(String, &'static str, Option<i64>)> {
    expected.iter().map(|(plate, what, amount)| ((*plate).to_owned(), *what, *amount)).collect()
}

fn told(expected: &[(&'static str, &str, &str, u64)]) -> Vec<(&'static str, String, String, u64)> {
    expected
        .iter()
        .map(|(code, garage, plate, count)| (*code, (*garage).into(), (*plate).into(), *count))
        .collect()
}

fn void(charge: &ChargeId) -> Command {
    Command::Void { charge: charge.clone(), reason: "a gift".into() }
}

fn credit(charge: &ChargeId, amount: i64) -> Command {
    Command::Credit { charge: charge.clone(), amount, reason: "waited".into() }
}

fn bill(charge: &ChargeId) -> Command {
    Command::BillStay { charge: charge.clone(), reason: "seen".into() }
}

fn close(entry: EventId, left: &str) -> Command {
    Command::CloseStay { entry, left_at_ms: ms(left), offset_minutes: 60, reason: "seen".into() }
}

fn split(entry: EventId, left: &str, entered: &str) -> Command {
    let (left_at_ms, entered_at_ms) = (ms(left), ms(entered));
    Command::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes: 60, reason: "seen".into() }
}

fn id(garage: &str, sequence: u64) -> EventId {
    EventId { garage: garage.into(), epoch: EPOCH.to_bytes(), sequence }
}

fn ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}
