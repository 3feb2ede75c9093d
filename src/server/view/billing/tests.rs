//! Money follows from the ledger alone.

use super::entries::{BillingEntry, EntryKind, HeldBecause, Terms};
use super::list::{EntryFilter, EntryList, ListedEntry, list};
use super::*;
use crate::messaging::{Digest, SiteName};
use crate::parking::statement::{Operator, Statement};
use crate::server::applying::{LiveViews, apply_until_stopped, open_view};
use crate::server::books::{AnswerRoom, BooksReader, StatementAssembler, Whose};
use crate::server::ledger::Ledger;
use crate::server::reckoning::{ChargeLine, Reckoner};
use crate::server::record::{Command, ToForget};
use crate::server::view::tests::{apply, event, page_after, world};
use crate::server::view::{JudgeError, View, ViewChanges, catch_up};
use crate::store::simulated::Disk;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const TARIFFS: &str = r#"
    [[tariff]]
    name = "centre"
    garages = ["*"]
    currency = "EUR"
    time_zone = "Europe/Berlin"
    valid_from = 2020-01-01
    vat_percent = 19
    grace_minutes = 10
    unit_minutes = 60
    bands = [{ days = "all", from = "00:00", to = "24:00", per_unit = 250 }]
"#;

struct BillingWorld {
    disk: Disk,
    store: Store,
    ledger: Ledger,
    view: View,
    changes: ViewChanges,
    sequences: BTreeMap<String, u64>,
}

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
        let bytes = tariffs.as_bytes().to_vec();
        let digest = Digest::of(&bytes);
        let pieces: Vec<Vec<u8>> = bytes.chunks(100).map(<[u8]>::to_vec).collect();
        let command = Command::Tariffs { pieces: pieces.len() as u32, digest };
        self.ledger.record_order("me", pieces, command, 5).unwrap();
        self.apply_ledger();
    }

    fn import(&mut self, command: impl Fn(u32, Digest) -> Command, bytes: Vec<u8>) {
        let digest = Digest::of(&bytes);
        self.ledger.record_order("me", vec![bytes], command(1, digest), 5).unwrap();
        self.apply_ledger();
    }

    fn register(&mut self, csv: &str) {
        let plates = crate::parking::register::read_plates(csv).unwrap();
        let bytes = postcard::to_stdvec(&plates).unwrap();
        self.import(|pieces, digest| Command::Plates { pieces, digest }, bytes);
    }

    fn contracts(&mut self, csv: &str) {
        let contracts = crate::parking::register::read_contracts(csv).unwrap();
        let bytes = postcard::to_stdvec(&contracts).unwrap();
        self.import(|pieces, digest| Command::Contracts { pieces, digest }, bytes);
    }

    fn apply_ledger(&mut self) {
        catch_up(&mut self.view, &self.ledger, u64::MAX, &mut self.changes, |_| {}).unwrap();
    }

    fn save(&mut self) {
        self.view.save(&mut self.changes).unwrap();
    }

    /// The statement of an account, put together from its pieces.
    fn statement(&self, account: &str, month: &str) -> Option<Statement> {
        let books = BooksReader {
            ledger: &self.ledger,
            store: &self.store,
            saving: None,
            view: || Arc::new(self.view.snapshot()),
        };
        let whose = Whose::Account(account.to_owned());
        books.statement(&Operator::default(), month.parse().unwrap(), &whose, u64::MAX).unwrap()
    }

    /// Events of a garage, as one page. Gives the sequence of the first.
    fn events(&mut self, garage: &str, events: &[(&str, &str, &str)]) -> u64 {
        let next = self.sequences.entry(garage.to_owned()).or_insert(1);
        let first = *next;
        *next += events.len() as u64;
        let written = events
            .iter()
            .map(|(kind, plate, at)| event(&format!(r#"{{"kind":"{kind}","plate":"{plate}","at":"{at}"}}"#)));
        let page = page_after(first, &written.collect::<Vec<_>>());
        apply(&self.ledger, garage, vec![page]);
        self.apply_ledger();
        first
    }

    fn correct(&mut self, garage: &str, sequence: u64, plate: &str) {
        let next = self.sequences.get_mut(garage).unwrap();
        let first = *next;
        *next += 1;
        let epoch = crate::server::view::tests::EPOCH;
        let correction = event(&format!(
            r#"{{"kind":"plate_correction","epoch":"{epoch}","sequence":{sequence},"plate":"{plate}"}}"#
        ));
        apply(&self.ledger, garage, vec![page_after(first, &[correction])]);
        self.apply_ledger();
    }

    /// What a command comes to, as an operator's desk does it.
    fn order(&mut self, command: Command) -> Result<(), String> {
        self.save();
        match self.view.judge(&self.ledger, &command) {
            Ok(()) => {}
            Err(JudgeError::Refused(refusal)) => return Err(refusal.to_string()),
            Err(JudgeError::Store(error)) => panic!("{error}"),
        }
        let position = self.ledger.record_command("me", command, 5).unwrap();
        self.apply_ledger();
        assert_eq!(self.view.decisions.without_effect(position), None);
        Ok(())
    }

    fn listed(&mut self) -> Vec<ListedEntry> {
        self.save();
        let (_, EntryList { mut entries, next }) =
            list(&self.store, None, &EntryFilter { limit: 10_000, ..EntryFilter::default() }).unwrap();
        assert_eq!(next, None);
        entries.reverse();
        entries
    }

    /// Plate, kind or state, minor units; oldest first.
    fn books(&mut self) -> Vec<(String, &'static str, Option<i64>)> {
        let lines = self.lines();
        lines
            .into_iter()
            .map(|line| {
                let amount = line.money.map(|money| money.amount.minor());
                (line.plate, line.state.unwrap_or(line.kind), amount)
            })
            .collect()
    }

    fn lines(&mut self) -> Vec<ChargeLine> {
        let listed = self.listed();
        let view = self.view.snapshot();
        let reckoner = Reckoner::new(&view, &self.ledger);
        listed.iter().map(|listed| reckoner.line(listed).unwrap()).collect()
    }

    fn sum(&mut self) -> i64 {
        let entries = self.listed().into_iter().map(|listed| listed.entry);
        entries.filter_map(|entry: BillingEntry| Some(entry.money()?.0.amount.minor())).sum()
    }

    /// A crash now and applying the rest, and rebuilding everything, come to the same.
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

const NINE: &str = "2026-11-23T09:00:00+01:00";
const TEN: &str = "2026-11-23T10:00:00+01:00";
const TEN_PAST: &str = "2026-11-23T10:00:01+01:00";

#[test]
fn a_stay_is_charged_by_the_tariff_in_force_when_it_ends() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TEN_PAST)]);
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(500))]));
    let dearer = TARIFFS.replace("per_unit = 250", "per_unit = 300");
    world.events("a", &[("entry", "AB2", NINE)]);
    world.put(&dearer);
    world.events("a", &[("exit", "AB2", TEN)]);
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(500)), ("AB2", "charged", Some(300))]));
    let line = &world.lines()[0];
    assert_eq!((line.account.as_str(), line.tariff.as_deref()), (UNREGISTERED, Some("centre")));
    assert_eq!((line.breakdown.len(), line.breakdown[0].units), (1, 2));
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_without_a_tariff_waits_and_is_priced_when_there_is_one() {
    let mut world = BillingWorld::new();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TEN), ("entry", "AB1", TEN)]);
    assert_eq!(world.books(), books(&[("AB1", "pending", None)]));
    let refused = world.order(Command::Price { from: 1, to: 100 }).unwrap_err();
    assert!(refused.contains("no tariffs are in force"), "{refused}");
    world.put(TARIFFS);
    let id = world.lines()[0].id.clone();
    world.order(Command::Price { from: 1, to: 100 }).unwrap();
    world.order(Command::Price { from: 1, to: 100 }).unwrap();
    assert_eq!(world.books(), books(&[("AB1", "pending", None), ("AB1", "charged", Some(250))]));
    assert_eq!(world.lines()[1].id, id);
    assert_eq!(list::pending(&world.store, 1).unwrap(), None);
    world.follows_from_the_ledger();
}

#[test]
fn corrections_are_further_entries() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TEN_PAST)]);
    let id: crate::parking::ChargeId = world.lines()[0].id.parse().unwrap();
    let credit = |amount| Command::Credit { charge: id.clone(), amount, reason: "a lift was broken".into() };
    world.order(credit(200)).unwrap();
    let refused = world.order(credit(301)).unwrap_err();
    assert!(refused.contains("3.00 EUR of the charge"), "{refused}");
    assert!(world.order(credit(0)).is_err());
    let void = |reason: &str| Command::Void { charge: id.clone(), reason: reason.into() };
    assert!(world.order(void(" ")).unwrap_err().contains("a reason needs"));
    world.order(void("wrong car")).unwrap();
    let refused = world.order(void("again")).unwrap_err();
    assert!(refused.contains("was already voided"), "{refused}");
    assert!(world.order(credit(1)).unwrap_err().contains("was already voided"));
    assert_eq!(
        world.books(),
        books(&[("AB1", "voided", Some(500)), ("AB1", "credit", Some(-200)), ("AB1", "void", Some(-300))])
    );
    assert_eq!(world.sum(), 0);
    let void = &world.lines()[2];
    assert_eq!((void.reason.as_deref(), void.by.as_deref()), (Some("wrong car"), Some("me")));
    assert_eq!(void.charge.as_deref(), Some(id.to_string().as_str()));
    world.follows_from_the_ledger();
}

#[test]
fn a_charge_that_is_not_there_cannot_be_corrected() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TEN)]);
    let line = world.lines()[0].id.clone();
    for id in
        [line.replace("/2", "/1"), line.replace("/2", "/7"), line.replace("a/", "b/"), format!("{line}@3")]
    {
        let void = Command::Void { charge: id.parse().unwrap(), reason: "x".into() };
        let refused = world.order(void).unwrap_err();
        assert!(refused.contains("there is no charge"), "{refused}");
    }
}

#[test]
fn a_corrected_plate_rerates_by_void_and_new_charge() {
    let mut world = BillingWorld::with_tariffs();
    world.register("plate,account,name\nAB1,one,One\nAB8,eight,Eight\n");
    let first = world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TEN)]);
    let id = world.lines()[0].id.clone();
    world.correct("a", first, "AB8");
    assert_eq!(world.books(), books(&[("AB1", "voided", Some(250)), ("AB1", "void", Some(-250))]));
    world.correct("a", first + 1, "AB8");
    let books_now = world.books();
    assert_eq!(books_now[2], ("AB8".to_owned(), "charged", Some(250)));
    let line = &world.lines()[2];
    assert_eq!(line.account, "eight");
    assert!(line.id.starts_with(&id) && line.id.contains('@'), "the id is another one: {}", line.id);
    let void = Command::Void { charge: line.id.parse().unwrap(), reason: "x".into() };
    world.order(void).unwrap();
    assert_eq!(world.sum(), 0);
    world.follows_from_the_ledger();
}

#[test]
fn a_contract_covers_as_many_cars_as_it_says_and_one_too_many_pays() {
    let mut world = BillingWorld::with_tariffs();
    world.contracts(
        "contract,account,plate,garage,valid_from,valid_to,cars\n\
         Fleet,acme,AB1,*,2026-01-01,2026-12-31,1\nFleet,acme,AB2,*,2026-01-01,2026-12-31,1\n\
         Other,beta,AB3,b,2026-01-01,2026-12-31,1\nOld,beta,AB4,*,2025-01-01,2026-11-22,1\n",
    );
    let all =
        [("entry", "AB1", NINE), ("entry", "AB2", NINE), ("entry", "AB3", NINE), ("entry", "AB4", NINE)];
    world.events("a", &all);
    world.events("a", &[("exit", "AB1", TEN), ("entry", "AB1", TEN)]);
    world.events(
        "a",
        &[("exit", "AB2", TEN), ("exit", "AB3", TEN), ("exit", "AB4", TEN), ("exit", "AB1", TEN)],
    );
    assert_eq!(
        world.books(),
        books(&[
            ("AB1", "charged", Some(0)),
            ("AB2", "charged", Some(250)),
            ("AB3", "charged", Some(250)),
            ("AB4", "charged", Some(250)),
            ("AB1", "charged", Some(0)),
        ])
    );
    let lines = world.lines();
    assert_eq!(lines[0].note.as_deref(), Some("covered by the contract Fleet"));
    assert!(lines[1].note.as_deref().unwrap().starts_with("one car too many for the contract Fleet"));
    assert_eq!((lines[1].account.as_str(), lines[2].account.as_str()), ("acme", UNREGISTERED));
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_that_does_not_add_up_is_not_billed_by_guess() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", TEN), ("exit", "AB1", "2026-11-23T09:55:00+01:00")]);
    world.events("a", &[("entry", "AB2", TEN), ("exit", "AB2", "2026-11-23T09:54:59+01:00")]);
    world.events("a", &[("entry", "AB3", TEN), ("exit", "AB3", "2026-12-23T10:00:00+01:00")]);
    world.events("a", &[("entry", "AB4", TEN), ("exit", "AB4", "2026-12-23T10:00:01+01:00")]);
    let states: Vec<_> = world.books().into_iter().map(|(_, state, amount)| (state, amount)).collect();
    assert_eq!(states[0], ("charged", Some(0)));
    assert_eq!(states[1], ("held", None));
    assert_eq!(states[2], ("charged", Some(30 * 24 * 250)));
    assert_eq!(states[3], ("held", None));
    let held = |entry: &ListedEntry, why| matches!(&entry.entry.what, EntryKind::Stay(stay) if stay.terms == Terms::Held(why));
    let listed = world.listed();
    assert!(held(&listed[1], HeldBecause::EndsBeforeItBegins) && held(&listed[3], HeldBecause::TooLong));
    world.follows_from_the_ledger();
}

#[test]
fn what_did_not_add_up_is_told_once_for_each_code_garage_and_plate() {
    let mut world = BillingWorld::with_tariffs();
    world.register("plate,account,name\nAB1,one,One\n");
    world.events(
        "a",
        &[("exit", "AB1", NINE), ("exit", "AB1", TEN), ("entry", "AB1", NINE), ("entry", "AB1", TEN)],
    );
    world.events("b", &[("entry", "AB1", TEN), ("entry", "AB2", NINE), ("exit", "AB2", TEN)]);
    world.events("b", &[("entry", "AB2", NINE), ("exit", "AB2", TEN)]);
    world.save();
    let unregistered = world.view.billing.account(UNREGISTERED);
    let tell = |wanted: &anomalies::AnomalyFilter, look_at| {
        let (mut wanted, mut told) = (wanted.clone(), Vec::new());
        loop {
            let list = anomalies::list_now(&world.store, unregistered, &wanted, look_at).unwrap();
            told.extend(list.anomalies.into_iter().map(|noted| {
                (
                    noted.code.told().0.as_str(),
                    noted.garage,
                    noted.plate.unwrap_or_default(),
                    noted.anomaly.count,
                )
            }));
            let Some(next) = list.next else { return told };
            assert_ne!(wanted.after.as_ref(), Some(&next), "each answer goes on");
            wanted.after = Some(anomalies::AnomalyCursor::parse(&next.to_string()).unwrap());
        }
    };
    let told = tell(&anomalies::AnomalyFilter { limit: 2, ..Default::default() }, usize::MAX);
    // A filter read everything there was in one answer.
    let codes = told.iter().map(|its| anomalies::AnomalyCode::parse(its.0)).chain([None]);
    for code in codes {
        for garage in [None, Some(0), Some(1), Some(2)] {
            for plate in [None, Some("AB1"), Some("AB2"), Some("CD1")] {
                for (look_at, limit) in [(1, 2), (3, 2), (usize::MAX, 1), (usize::MAX, 100)] {
                    let wanted = anomalies::AnomalyFilter {
                        code,
                        garage,
                        plate: plate.map(|plate| Plate::new(plate).unwrap()),
                        limit,
                        after: None,
                    };
                    let expected = told.iter().filter(|its| {
                        code.is_none_or(|code| code.told().0.as_str() == its.0)
                            && garage.is_none_or(|garage| garage == its.1)
                            && plate.is_none_or(|plate| plate == its.2)
                    });
                    let expected: Vec<_> = expected.cloned().collect();
                    assert_eq!(tell(&wanted, look_at), expected, "{wanted:?} {look_at}");
                }
            }
        }
    }
    let told: Vec<_> =
        told.iter().map(|(code, garage, plate, count)| (*code, *garage, plate.as_str(), *count)).collect();
    assert_eq!(
        told,
        [
            ("exit_without_entry", 0, "AB1", 2),
            ("entry_while_open", 0, "AB1", 1),
            ("open_in_two_garages", 1, "AB1", 1),
            ("clock_not_set", 0, "", 1),
            ("clock_not_set", 1, "", 2),
            ("unregistered", 1, "AB2", 2),
        ]
    );
    world.follows_from_the_ledger();
}

#[test]
fn the_statement_of_a_month_is_the_sum_of_its_charges() {
    let mut world = BillingWorld::with_tariffs();
    world.register("plate,account,name\nAB1,one,One Ltd\nAB2,one,One Ltd\n");
    // In Berlin the first hour of December.
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", "2026-11-30T23:30:00Z")]);
    world.events(
        "a",
        &[("entry", "AB2", NINE), ("exit", "AB2", TEN), ("entry", "AB2", NINE), ("exit", "AB2", TEN)],
    );
    world.save();
    let of = |month: &str| {
        let statement = world.statement("one", month);
        statement.map(|statement| {
            (statement.head().number, statement.lines().len(), statement.totals()[0].gross.minor())
        })
    };
    assert_eq!(of("2026-12"), Some((Some(1), 1, 46_000)));
    assert_eq!(of("2026-11"), Some((Some(2), 2, 500)));
    assert_eq!(of("2026-10"), None);
}

fn id(garage: &str, sequence: u64) -> crate::parking::EventId {
    let epoch = crate::server::view::tests::EPOCH.to_bytes();
    crate::parking::EventId { garage: garage.into(), epoch, sequence }
}

fn ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

fn close(sequence: u64, at: &str) -> Command {
    Command::CloseStay {
        entry: id("a", sequence),
        left_at_ms: ms(at),
        offset_minutes: 60,
        reason: "seen".into(),
    }
}

fn split(sequence: u64, left: &str, entered: &str) -> Command {
    Command::SplitStay {
        entry: id("a", sequence),
        left_at_ms: ms(left),
        entered_at_ms: ms(entered),
        offset_minutes: 60,
        reason: "seen elsewhere".into(),
    }
}

const ELEVEN: &str = "2026-11-23T11:00:00+01:00";
const TWELVE: &str = "2026-11-23T12:00:00+01:00";

#[test]
fn a_misread_exit_is_joined_to_its_entry_and_the_stay_is_charged() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB0", NINE), ("exit", "ABO", TEN), ("exit", "AB0", ELEVEN)]);
    let join = |entry, exit| Command::JoinStay {
        entry: id("a", entry),
        exit: id("a", exit),
        reason: "O is 0".into(),
    };
    let refused = world.order(join(1, 1)).unwrap_err();
    assert!(refused.contains("is not an exit"), "{refused}");
    let refused = world.order(join(2, 3)).unwrap_err();
    assert!(refused.contains("is not an entry"), "{refused}");
    let refused = world.order(join(1, 9)).unwrap_err();
    assert!(refused.contains("there is no event"), "{refused}");
    let refused = world.order(join(1, 3)).unwrap_err();
    assert!(refused.contains("the two would not become one stay"), "it is one already: {refused}");
    world.order(join(1, 2)).unwrap();
    assert_eq!(
        world.books(),
        books(&[("AB0", "voided", Some(500)), ("AB0", "void", Some(-500)), ("AB0", "charged", Some(250))])
    );
    assert_eq!(world.lines()[1].reason.as_deref(), Some("O is 0"));
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_whose_exit_nobody_saw_is_closed_at_a_time() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("entry", "AB1", TWELVE), ("entry", "AB2", NINE)]);
    let refused = world.order(close(1, "2026-11-23T08:59:59+01:00")).unwrap_err();
    assert!(refused.contains("it begins later"), "{refused}");
    world.order(close(1, TEN_PAST)).unwrap();
    world.order(close(3, TEN)).unwrap();
    assert!(world.order(close(1, TEN)).unwrap_err().contains("has already ended"));
    assert_eq!(world.books(), books(&[("AB1", "charged", Some(500)), ("AB2", "charged", Some(250))]));
    let garage = &world.view.garages[&SiteName::new("a").unwrap()];
    assert_eq!(
        (garage.stays.counts.open, garage.stays.counts.closed, garage.stays.counts.exits_missed),
        (1, 2, 0)
    );
    let line = &world.lines()[0];
    assert_eq!(line.left_at, TEN_PAST);
    let void = Command::Void { charge: line.id.parse().unwrap(), reason: "x".into() };
    world.order(void).unwrap();
    assert_eq!(world.sum(), 250);
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_that_was_two_visits_is_split_and_each_is_charged() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TWELVE), ("entry", "AB2", NINE)]);
    assert!(world.order(split(1, ELEVEN, TEN)).unwrap_err().contains("the time at which the car left"));
    assert!(world.order(split(1, TEN, "2026-11-23T12:00:01+01:00")).unwrap_err().contains("had ended"));
    world.order(split(1, TEN, ELEVEN)).unwrap();
    // One of a car that is inside: the second part ends with its exit.
    world.order(split(3, TEN, ELEVEN)).unwrap();
    world.events("a", &[("exit", "AB2", "2026-11-23T12:30:00+01:00")]);
    assert_eq!(
        world.books(),
        books(&[
            ("AB1", "voided", Some(750)),
            ("AB1", "void", Some(-750)),
            ("AB1", "charged", Some(250)),
            ("AB1", "charged", Some(250)),
            ("AB2", "charged", Some(250)),
            ("AB2", "charged", Some(500)),
        ])
    );
    let ids: std::collections::BTreeSet<String> =
        world.lines().into_iter().filter(|line| line.kind == "charge").map(|line| line.id).collect();
    assert_eq!(ids.len(), 5, "each charge has an id of its own: {ids:?}");
    world.follows_from_the_ledger();
}

#[test]
fn a_stay_that_is_held_is_charged_as_it_is_or_made_another() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", TEN), ("exit", "AB1", "2026-12-23T10:00:01+01:00")]);
    world.events("a", &[("entry", "AB2", TEN), ("exit", "AB2", NINE)]);
    let held = world.lines();
    let bill =
        |line: &ChargeLine| Command::BillStay { charge: line.id.parse().unwrap(), reason: "seen".into() };
    assert!(
        world.order(bill(&held[1])).unwrap_err().contains("is not held"),
        "its times contradict each other"
    );
    world.order(bill(&held[0])).unwrap();
    assert!(world.order(bill(&held[0])).unwrap_err().contains("is not held"));
    world.order(close(3, ELEVEN)).unwrap();
    let books_now: Vec<_> = world.books().into_iter().map(|(_, state, amount)| (state, amount)).collect();
    let charged: Vec<_> = books_now.iter().filter(|(state, _)| *state == "charged").collect();
    assert_eq!(charged, [&("charged", Some(721 * 250)), &("charged", Some(250))]);
    world.follows_from_the_ledger();
}

fn forget(whose: ToForget) -> Command {
    Command::Forget { whose, seed: [7; 16] }
}

#[test]
fn a_forgotten_plate_is_a_token_in_stays_charges_and_anomalies_and_every_sum_stays() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("exit", "AB1", NINE), ("entry", "AB1", NINE), ("exit", "AB1", TEN)]);
    world.events(
        "b",
        &[("entry", "AB1", "2026-12-01T10:00:00+01:00"), ("exit", "AB1", "2026-12-01T11:00:00+01:00")],
    );
    world.events("a", &[("entry", "AB2", NINE), ("exit", "AB2", TEN), ("entry", "AB3", TEN)]);
    let of = |plate: &str| forget(ToForget::Plate(plate.into()));
    assert!(world.order(of("AB3")).unwrap_err().contains("is inside"));
    assert!(world.order(of("AB9")).unwrap_err().contains("there is nothing to forget"));
    let before = world.sum();
    world.order(of("AB1")).unwrap();
    assert!(world.order(of("AB1")).unwrap_err().contains("there is nothing to forget"));
    assert_eq!(world.sum(), before);
    let plates: Vec<String> = world.lines().into_iter().map(|line| line.plate).collect();
    assert!(plates[0].starts_with('~') && plates[1].starts_with('~') && plates[2] == "AB2", "{plates:?}");
    assert_ne!(plates[0], plates[1], "two months, two tokens");
    for (key, value) in world.store.range(b"v", b"w").map(Result::unwrap) {
        let holds = |bytes: &[u8]| bytes.windows(3).any(|part| part == b"AB1");
        assert!(!holds(&key) && !holds(&value), "the views hold the plate under {key:02x?}");
    }
    let registered = world.events("a", &[("entry", "AB4", NINE), ("exit", "AB4", TEN)]);
    world.register("plate,account,name\nAB4,four,\n");
    assert!(world.order(of("AB4")).unwrap_err().contains("is registered"));
    // A later reading of a forgotten event finds no stay.
    world.correct("a", registered - 6, "AB7");
    assert_eq!(world.view.quarantine.size(), 1);
    assert_eq!(world.sum(), before + 250);
    world.follows_from_the_ledger();
}

#[test]
fn charged_stays_of_old_months_lose_their_plates_and_what_is_open_keeps_them() {
    let mut world = BillingWorld::new();
    world.events("a", &[("entry", "AB0", NINE), ("exit", "AB0", TEN)]);
    world.put(TARIFFS);
    world.events(
        "a",
        &[("entry", "AB1", NINE), ("exit", "AB1", TEN), ("entry", "AB1", TEN), ("exit", "AB1", ELEVEN)],
    );
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", "2026-12-01T10:00:00+01:00")]);
    let end = world.view.billing.end();
    let before = "2026-12".parse().unwrap();
    world.order(forget(ToForget::Charged { from: 1, to: end, before })).unwrap();
    let plates: Vec<String> = world.lines().into_iter().map(|line| line.plate).collect();
    assert_eq!((plates[0].as_str(), plates[3].as_str()), ("AB0", "AB1"), "it waits, or is of a later month");
    assert!(plates[1].starts_with('~') && plates[1] == plates[2], "one month, one token: {plates:?}");
    world.follows_from_the_ledger();
}

#[test]
fn a_statement_in_pieces_shows_one_state_of_the_books_whatever_is_charged_meanwhile() {
    let mut world = BillingWorld::with_tariffs();
    world.register("plate,account,name\nAB1,one,\nAB2,one,One Ltd\nCD1,two,Two Ltd\n");
    let visits = |plate, from: &mut BillingWorld, n| {
        for _ in 0..n {
            from.events("a", &[("entry", plate, NINE), ("exit", plate, TEN)]);
        }
    };
    visits("AB1", &mut world, 300);
    visits("CD1", &mut world, 200);
    visits("ZZ9", &mut world, 1);
    world.save();
    let (month, whose) = ("2026-11".parse().unwrap(), &Whose::All);
    for (lines, bytes) in [(1, usize::MAX), (usize::MAX, 1), (250, usize::MAX), (usize::MAX, usize::MAX)] {
        let whole: Vec<Statement> =
            ["one", "two", UNREGISTERED].iter().filter_map(|its| world.statement(its, "2026-11")).collect();
        let mut together = StatementAssembler::new(u64::MAX);
        let (mut from, mut found) = (None, Vec::new());
        loop {
            let books = BooksReader {
                ledger: &world.ledger,
                store: &world.store,
                saving: None,
                view: || Arc::new(world.view.snapshot()),
            };
            let (pieces, next) = books
                .pieces(&Operator::default(), (month, whose), from, AnswerRoom { lines, bytes })
                .unwrap();
            for piece in pieces {
                found.extend(together.add(piece).unwrap());
            }
            from = next;
            if from.is_none() {
                break;
            }
            // The account "one" is begun: what is charged now is not in its statement, nor in a sum of it.
            visits("AB2", &mut world, 1);
            world.save();
        }
        assert_eq!(found[0], whole[0]);
        assert_eq!(found.len(), 3);
        for (found, whole) in found.iter().zip(&whole).skip(1) {
            assert_eq!((&found.head().customer, found.lines()), (&whole.head().customer, whole.lines()));
        }
    }
    assert!(world.statement("one", "2026-11").unwrap().lines().len() > 302, "there was a second piece");
}

#[derive(Debug, Clone)]
enum Act {
    Entry(u8),
    Exit(u8),
    Correct(u8, u8),
    Void(u8),
    Credit(u8),
    Tariffs(u8),
    Price,
    Close(u8, u8),
    Split(u8, u8),
    Join(u8, u8),
    Bill(u8),
    Forget(u8),
    Save,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0u8..4).prop_map(Act::Entry),
        4 => (0u8..4).prop_map(Act::Exit),
        2 => (any::<u8>(), 0u8..4).prop_map(|(event, plate)| Act::Correct(event, plate)),
        1 => any::<u8>().prop_map(Act::Void),
        1 => any::<u8>().prop_map(Act::Credit),
        1 => (0u8..3).prop_map(Act::Tariffs),
        1 => Just(Act::Price),
        1 => (any::<u8>(), 0u8..60).prop_map(|(event, hour)| Act::Close(event, hour)),
        1 => (any::<u8>(), 0u8..60).prop_map(|(event, hour)| Act::Split(event, hour)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(entry, exit)| Act::Join(entry, exit)),
        1 => any::<u8>().prop_map(Act::Bill),
        1 => (0u8..4).prop_map(Act::Forget),
        2 => Just(Act::Save),
    ];
    prop::collection::vec(act, 0..60)
}

/// What a split of the same events into pages must not change: what each charge costs, by its id.
fn costs(world: &mut BillingWorld) -> BTreeMap<String, (Option<i64>, &'static str)> {
    let lines = world.lines().into_iter();
    lines
        .map(|line| {
            (line.id, (line.money.map(|money| money.amount.minor()), line.state.unwrap_or(line.kind)))
        })
        .collect()
}

/// A page of money was damaged on the disk. A server that met it ended, and met it again at each start.
#[test]
fn what_cannot_be_read_of_the_views_is_dropped_and_rebuilt_at_the_next_start() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TEN), ("entry", "AB1", TEN)]);
    world.save();
    let expected = costs(&mut world);
    let (key, _) = world.store.last(b"vbm", b"vbn").unwrap().unwrap();
    world.store.put(&key, &[1, 0xff]).unwrap();
    let next = page_after(4, &[event(&format!(r#"{{"kind":"exit","plate":"AB1","at":"{ELEVEN}"}}"#))]);
    apply(&world.ledger, "a", vec![next]);
    let (live, view) = (LiveViews::default(), View::open(&world.store, &world.ledger).unwrap());
    live.grown_to(world.ledger.position());
    let applied = apply_until_stopped(&world.ledger, &world.store, view, &live);
    assert!(applied.unwrap_err().to_string().contains("unreadable"));
    world.view = open_view(&world.ledger).unwrap();
    assert_eq!(world.view.position, 0, "they are rebuilt");
    world.changes = ViewChanges::on(&world.store);
    world.apply_ledger();
    let after = costs(&mut world);
    assert!(after.len() == 2 && expected.iter().all(|(id, cost)| after.get(id) == Some(cost)), "{after:?}");
    world.follows_from_the_ledger();
}

#[test]
fn sums_that_do_not_agree_with_their_entries_are_found() {
    let mut world = BillingWorld::with_tariffs();
    world.events("a", &[("entry", "AB1", NINE), ("exit", "AB1", TEN)]);
    world.save();
    for prefix in [&b"vbm"[..], b"vbg"] {
        let (key, value) = world.store.last(prefix, &[prefix, &[255]].concat()).unwrap().unwrap();
        let mut wrong = value.clone();
        let amount = wrong.windows(2).position(|part| part == [0xf4, 0x03]).unwrap(); // 250, as postcard writes it
        wrong[amount] ^= 2;
        world.store.put(&key, &wrong).unwrap();
        let mut found = Vec::new();
        list::check_sums(&world.store, &mut |place, _| found.push(place)).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!crate::server::verify::verify(&world.ledger, None).unwrap().clean);
        world.store.put(&key, &value).unwrap();
    }
    world.follows_from_the_ledger();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However events are split over pages, whenever the views are written, whatever is sent twice, and through a crash: the same
    /// charges to the cent.
    #[test]
    fn splitting_events_over_batches_resends_and_crashes_never_change_a_cent(
        events in prop::collection::vec((any::<bool>(), 0u8..4, 0u8..3), 1..60),
        cuts in prop::collection::vec((1usize..8, any::<bool>(), any::<bool>()), 60),
    ) {
        let written: Vec<(&str, String, String)> = events.iter().enumerate().map(|(n, (enters, plate, hours))| {
            let hour = n + usize::from(*hours);
            let at = format!("2026-11-{:02}T{:02}:{:02}:00Z", hour / 24 + 1, hour % 24, n % 60);
            (if *enters { "entry" } else { "exit" }, format!("AB{plate}"), at)
        }).collect();
        let of = |n: std::ops::Range<usize>| -> Vec<(&str, &str, &str)> {
            written[n].iter().map(|(kind, plate, at)| (*kind, plate.as_str(), at.as_str())).collect()
        };
        let mut whole = BillingWorld::with_tariffs();
        for n in 0..written.len() {
            whole.events("a", &of(n..n + 1));
        }
        let mut split = BillingWorld::with_tariffs();
        let mut from = 0;
        for (size, save, again) in &cuts {
            let to = (from + size).min(written.len());
            if from == to {
                break;
            }
            split.events("a", &of(from..to));
            if *save {
                split.save();
            }
            if *again {
                // The edge did not hear the answer, and what was not written is applied again.
                *split.sequences.get_mut("a").unwrap() -= (to - from) as u64;
                split.events("a", &of(from..to));
                split.view = View::open(&split.store, &split.ledger).unwrap();
                split.changes = ViewChanges::on(&split.store);
                split.apply_ledger();
            }
            from = to;
        }
        prop_assert_eq!(from, written.len());
        prop_assert_eq!(costs(&mut split), costs(&mut whole));
        prop_assert_eq!(split.sum(), whole.sum());
        split.follows_from_the_ledger();
    }

    /// Whatever happens: each closed stay has one entry that nothing settled, an account's month is the sum of its entries, what is
    /// voided comes to nothing, and a rebuild gives the same bytes.
    #[test]
    fn every_closed_stay_is_charged_once_and_every_sum_is_that_of_its_entries(acts in acts()) {
        let mut world = BillingWorld::new();
        let mut events = 0u64;
        for (n, act) in acts.iter().enumerate() {
            let at = format!("2026-11-{:02}T{:02}:00:00Z", n / 24 + 1, n % 24);
            match act {
                Act::Entry(plate) => { world.events("a", &[("entry", &format!("AB{plate}"), &at)]); events += 1; }
                Act::Exit(plate) => { world.events("a", &[("exit", &format!("AB{plate}"), &at)]); events += 1; }
                Act::Correct(event, plate) if events > 0 => {
                    world.correct("a", u64::from(*event) % events + 1, &format!("AB{plate}"));
                    events += 1;
                }
                Act::Void(which) | Act::Credit(which) => {
                    let lines = world.lines();
                    let Some(line) = lines.get(usize::from(*which) % lines.len().max(1)) else { continue };
                    let Ok(charge) = line.id.parse() else { continue };
                    let reason = "x".to_owned();
                    let _ = world.order(match act {
                        Act::Void(_) => Command::Void { charge, reason },
                        _ => Command::Credit { charge, amount: 100, reason },
                    });
                }
                Act::Tariffs(price) => {
                    world.put(&TARIFFS.replace("per_unit = 250", &format!("per_unit = {price}00")));
                }
                Act::Price => { let _ = world.order(Command::Price { from: 1, to: 1000 }); }
                Act::Close(event, hour) if events > 0 => {
                    let at = format!("2026-11-{:02}T{:02}:30:00Z", hour / 24 + 1, hour % 24);
                    let _ = world.order(close(u64::from(*event) % events + 1, &at));
                }
                Act::Split(event, hour) if events > 0 => {
                    let at = |minute| format!("2026-11-{:02}T{:02}:{minute}:00Z", hour / 24 + 1, hour % 24);
                    let _ = world.order(split(u64::from(*event) % events + 1, &at(20), &at(40)));
                }
                Act::Join(entry, exit) if events > 0 => {
                    let of = |event: &u8| id("a", u64::from(*event) % events + 1);
                    let _ = world.order(Command::JoinStay { entry: of(entry), exit: of(exit), reason: "x".into() });
                }
                Act::Bill(which) => {
                    let lines = world.lines();
                    let Some(line) = lines.get(usize::from(*which) % lines.len().max(1)) else { continue };
                    let Ok(charge) = line.id.parse() else { continue };
                    let _ = world.order(Command::BillStay { charge, reason: "x".into() });
                }
                Act::Forget(plate) => {
                    let _ = world.order(forget(ToForget::Plate(format!("AB{plate}"))));
                }
                Act::Save => world.save(),
                Act::Correct(..) | Act::Close(..) | Act::Split(..) | Act::Join(..) => {}
            }
        }
        let listed = world.listed();
        let unsettled = |listed: &&ListedEntry| {
            matches!(listed.entry.what, EntryKind::Stay(_)) && listed.entry.settled_by == 0
        };
        let voided_by_command = listed.iter().filter(|listed| {
            matches!(listed.entry.what, EntryKind::Void { why: VoidedBecause::Command, .. })
        }).count() as u64;
        let closed = world.view.garages.get(&SiteName::new("a").unwrap()).map_or(0, |garage| garage.stays.counts.closed);
        let open_entries = listed.iter().filter(unsettled).count() as u64;
        prop_assert!(open_entries <= closed && closed <= open_entries + voided_by_command,
            "{open_entries} entries of {closed} stays, {voided_by_command} voided");
        let mut by_charge: BTreeMap<EntryNumber, i64> = BTreeMap::new();
        for its in &listed {
            let Some((money, _)) = its.entry.money() else { continue };
            let of = match its.entry.what {
                EntryKind::Stay(_) => its.number,
                EntryKind::Void { of, .. } | EntryKind::Credit { of, .. } => of,
            };
            *by_charge.entry(of).or_default() += money.amount.minor();
        }
        for its in &listed {
            if matches!(its.entry.what, EntryKind::Void { .. }) {
                let EntryKind::Void { of, .. } = its.entry.what else { unreachable!() };
                prop_assert_eq!(by_charge.get(&of).copied().unwrap_or_default(), 0);
            }
        }
        prop_assert!(by_charge.values().all(|sum| *sum >= 0));
        let mut sum = 0;
        for account in (0..world.view.billing.accounts_end()).filter_map(|n| world.view.billing.account_book(n)) {
            for month in ["2026-11", "2026-12"] {
                let statement = world.statement(&account.name, month);
                sum += statement.iter().flat_map(|its| its.totals()).map(|total| total.gross.minor()).sum::<i64>();
            }
        }
        prop_assert_eq!(sum, by_charge.values().sum::<i64>());
        world.follows_from_the_ledger();
    }
}
