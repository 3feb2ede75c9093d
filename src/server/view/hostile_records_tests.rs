//! Tests that a rebuild of the views completes and gives views that load, whatever the ledger contains and however it got there.

use super::View;
use super::tests::{EPOCH, apply, event, page_after, world};
use crate::messaging::page::SealedPage;
use crate::messaging::{Digest, SiteName};
use crate::parking::garage::Opening;
use crate::parking::register::{
    Account, ContractCar, ContractChange, ContractGarage, ContractVersion, CustomerRecord, DateRange,
    PlateEntry, RegisterFact,
};
use crate::parking::{ChargeId, EventId, Plate};
use crate::server::applying::catch_up;
use crate::server::ledger::Ledger;
use crate::server::record::{Command, QuarantinePlace, Record, StreamId, ToForget};
use crate::store::{Store, VALUE_MAX};
use jiff::civil::{Date, date};
use proptest::prelude::*;

const TARIFFS: &str = r#"
    [[tariff]]
    name = "centre"
    garages = ["*"]
    currency = "EUR"
    time_zone = "Europe/Berlin"
    valid_from = 1900-01-01
    vat_percent = 19
    unit_minutes = 60
    bands = [{ days = "all", from = "00:00", to = "24:00", per_unit = 250 }]
"#;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..12u64, 1 => 0..100_000u64, 2 => u64::MAX - 3..=u64::MAX, 1 => any::<u64>()]
}

fn milliseconds() -> impl Strategy<Value = i64> {
    prop_oneof![2 => 1_764_000_000_000..1_765_000_000_000i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX), 1 => any::<i64>()]
}

fn site() -> impl Strategy<Value = SiteName> {
    prop_oneof![3 => Just("a"), 1 => Just("b"), 1 => Just("nobody")]
        .prop_map(|name| SiteName::new(name).unwrap())
}

/// Two of them, and a long reason, fit into a record.
fn event_id() -> impl Strategy<Value = EventId> {
    let garage = prop_oneof![4 => Just("a".to_owned()), 1 => Just("x".repeat(1500))];
    (garage, number()).prop_map(|(garage, sequence)| EventId { garage, epoch: EPOCH.to_bytes(), sequence })
}

fn charge_id() -> impl Strategy<Value = ChargeId> {
    (event_id(), prop::option::weighted(0.3, milliseconds())).prop_map(|(event, made_at_ms)| ChargeId {
        garage: event.garage,
        epoch: event.epoch,
        sequence: event.sequence,
        made_at_ms,
    })
}

fn reason() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just("r".to_owned()), 1 => Just(String::new()), 1 => Just("r".repeat(1_200))]
}

fn repair() -> impl Strategy<Value = Command> {
    let ids = (event_id(), event_id(), charge_id());
    let times = (milliseconds(), milliseconds(), any::<i16>());
    (0..6u8, ids, times, any::<i64>(), reason()).prop_map(
        |(kind, (entry, exit, charge), (left_at_ms, entered_at_ms, offset_minutes), amount, reason)| {
            match kind {
                0 => Command::JoinStay {
                    entry,
                    exit,
                    plate: (amount % 2 == 0).then(|| reason.clone()),
                    reason,
                },
                1 => Command::CloseStay { entry, left_at_ms, offset_minutes, reason },
                2 => Command::SplitStay { entry, left_at_ms, entered_at_ms, offset_minutes, reason },
                3 => Command::BillStay { charge, reason },
                4 => Command::Void { charge, reason },
                _ => Command::Credit { charge, amount, reason },
            }
        },
    )
}

fn day() -> impl Strategy<Value = Date> {
    prop_oneof![
        4 => (1i8..28).prop_map(|day| date(2026, 11, day)),
        1 => Just(Date::MIN),
        1 => Just(Date::MAX),
        1 => Just(date(9999, 12, 31)),
    ]
}

fn dates() -> impl Strategy<Value = DateRange> {
    let range =
        |(one, other): (Date, Date)| DateRange::new(Some(one.min(other)), Some(one.max(other))).unwrap();
    prop_oneof![1 => Just(DateRange::ALWAYS), 2 => (day(), day()).prop_map(range)]
}

fn plate() -> impl Strategy<Value = Plate> {
    prop_oneof![4 => Just("AA1"), 1 => Just("BB2"), 1 => Just("ZZ9")]
        .prop_map(|text| Plate::new(text).unwrap())
}

/// A fact as commands make it, and as none does: contracts that overlap, of no cars, with names of garages that nothing has.
fn fact() -> impl Strategy<Value = RegisterFact> {
    let account = || prop_oneof![Just("one"), Just("two")].prop_map(|name| Account::new(name).unwrap());
    let contract = || prop_oneof![Just("c"), Just("d")].prop_map(|name| name.parse().unwrap());
    let car = || {
        let garage = prop_oneof![
            2 => Just(ContractGarage::All),
            1 => Just(ContractGarage::Named("a".into())),
            1 => Just(ContractGarage::Named("x".repeat(64).into())),
        ];
        (plate(), garage).prop_map(|(plate, garage)| ContractCar { plate, garage })
    };
    let cars = prop_oneof![4 => 1..4u32, 1 => Just(0), 1 => Just(u32::MAX)];
    let version = (dates(), account(), cars).prop_map(|(dates, account, cars)| ContractVersion {
        dates,
        account,
        cars,
    });
    let some_cars = || prop::collection::vec(car(), 0..4);
    prop_oneof![
        3 => (plate(), dates(), prop::option::of(account()))
            .prop_map(|(plate, dates, account)| RegisterFact::Holder { plate, dates, account }),
        4 => (contract(), version, some_cars(), some_cars()).prop_map(|(contract, version, removed, added)| {
            RegisterFact::Contract(Box::new(ContractChange { contract, version, removed, added }))
        }),
        1 => (contract(), day()).prop_map(|(contract, on)| RegisterFact::ContractEnd { contract, on }),
        1 => account().prop_map(|account| RegisterFact::Customer {
            account,
            customer: Box::new(CustomerRecord::default()),
        }),
    ]
}

/// A list as it stands in pieces: sound ones, and no list at all.
fn list_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(fact(), 0..6).prop_map(|facts| postcard::to_stdvec(&facts).unwrap()),
        1 => Just(TARIFFS.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

/// A list's command with pieces, perhaps of another kind, another number, or another digest than they are.
fn list() -> impl Strategy<Value = Vec<Command>> {
    let pieces = prop_oneof![6 => Just(1u32), 1 => Just(0), 1 => Just(u32::MAX), 1 => 2..5u32];
    (list_bytes(), 0..4u8, pieces, prop::bool::weighted(0.9)).prop_map(|(bytes, kind, pieces, is_right)| {
        let digest = if is_right { Digest::of(&bytes) } else { Digest::of(b"other") };
        let command = match kind {
            0 => Command::Tariffs { pieces, digest },
            _ => Command::Register { pieces, digest },
        };
        vec![Command::Piece { bytes }, command]
    })
}

fn command() -> impl Strategy<Value = Command> {
    let place = || {
        (number(), prop::option::of(any::<u8>()))
            .prop_map(|(position, index)| QuarantinePlace { position, index })
    };
    let forget = prop_oneof![
        Just(ToForget::Plate("AA1".into())),
        Just(ToForget::Plate("*".repeat(4000))),
        Just(ToForget::Account("one".into())),
        Just(ToForget::Account("*".repeat(4000))),
        Just(ToForget::All),
    ];
    prop_oneof![
        (site(), site()).prop_map(|(garage, to)| Command::Rename { garage, to }),
        (site(), any::<bool>()).prop_map(|(garage, undo)| Command::Decommission { garage, undo }),
        (site(), any::<Option<u32>>()).prop_map(|(garage, spaces)| Command::Capacity { garage, spaces }),
        place().prop_map(|place| Command::Release { place }),
        (place(), reason()).prop_map(|(place, reason)| Command::Discard { place, reason }),
        site().prop_map(|garage| Command::Adopt { garage }),
        (site(), any::<(Option<bool>, Option<i64>)>(), prop::option::of(reason())).prop_map(
            |(garage, (opening, until_ms), reason)| {
                let opening = opening.map(|open| if open { Opening::Open } else { Opening::Closed });
                Command::ShowAs { garage, opening, until_ms, reason }
            }
        ),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Command::Piece { bytes }),
        number().prop_map(|decision| Command::Undo { decision }),
        (forget, day()).prop_map(|(whose, before)| Command::Forget { whose, before, seed: [7; 16] }),
        Just(Command::Erased),
        (number(), number(), number(), day()).prop_map(|(from, first, last, date)| Command::Issue {
            issue: [0; 16],
            from,
            first,
            last,
            date
        }),
        (number(), number(), reason(), day())
            .prop_map(|(first, last, reason, date)| Command::ResumeNumbers { first, last, reason, date }),
        (number(), prop::collection::vec(any::<u8>(), 0..50))
            .prop_map(|(serial, bytes)| Command::DocumentNote { issue: [0; 16], serial, bytes }),
        repair(),
        repair(),
    ]
}

fn record() -> impl Strategy<Value = Vec<Record>> {
    let of = |command| Record::Command { received_at_ms: 5, by: "me".into(), command };
    let known = |site: &str| StreamId { site: SiteName::new(site).unwrap(), epoch: EPOCH };
    let stream = prop_oneof![4 => Just(known("a")), 1 => Just(known("b")), 1 => Just(known("never begun"))];
    let hole = (stream.clone(), number(), number(), any::<i64>()).prop_map(
        |(stream, first, last, received_at_ms)| {
            vec![Record::MissingRange {
                stream,
                received_at_ms,
                first,
                last,
                reason: "r".into(),
                told_by: None,
            }]
        },
    );
    let page = (stream.clone(), number(), any::<i64>(), any::<i64>()).prop_map(
        |(stream, first, received_at_ms, wall_ms)| {
            let entry = event(r#"{"kind":"entry","plate":"AA1","at":"1000-01-02T00:00:00Z"}"#);
            let exit = event(r#"{"kind":"exit","plate":"AA1","at":"9000-12-30T00:00:00Z"}"#);
            let mut page = page_after(first.max(1), &[entry, exit, vec![9]]).bytes.to_vec();
            if wall_ms % 3 == 0 {
                page.truncate(20);
            }
            let page = SealedPage { digest: Digest::of(&page), bytes: page.into() };
            vec![Record::Page { stream, received_at_ms, page }]
        },
    );
    prop_oneof![
        10 => command().prop_map(move |command| vec![of(command)]),
        4 => list().prop_map(move |commands| commands.into_iter().map(of).collect()),
        2 => page,
        1 => hole,
        1 => (site(), any::<u32>()).prop_map(|(site, capacity)| vec![Record::Capacity { site, received_at_ms: 5, capacity }]),
        1 => stream.prop_map(|stream| vec![Record::Moved { stream, received_at_ms: 5 }]),
        1 => (number(), number()).prop_map(|(from, to)| vec![Record::Truncated { received_at_ms: 5, from, to }]),
    ]
    .prop_filter("it fits into a value of the store", |records: &Vec<Record>| {
        records.iter().all(|record| record.encode().len() <= VALUE_MAX)
    })
}

/// Puts a record at the ledger's end, behind the back of everything that checks.
fn put(store: &Store, position: u64, record: &Record) {
    store.put(&[b"r", &position.to_be_bytes()[..]].concat(), &record.encode()).unwrap();
}

/// A garage with stays that are charged, one that waits for a price, and one that is held; and tariffs at position 2.
fn town() -> (Store, Ledger) {
    let (_, store, ledger) = world();
    let passed = |kind: &str, plate: &str, at: &str| {
        event(&format!(r#"{{"kind":"{kind}","plate":"{plate}","at":"{at}"}}"#))
    };
    let pages = [
        vec![passed("entry", "AA1", "2026-11-02T08:00:00Z"), passed("exit", "AA1", "2026-11-02T10:00:00Z")],
        vec![
            passed("entry", "AA1", "2026-11-03T08:00:00Z"),
            passed("exit", "AA1", "2026-11-03T10:00:00Z"),
            passed("entry", "BB2", "1926-11-03T08:00:00Z"),
            passed("exit", "BB2", "2026-11-03T10:00:00Z"),
            passed("entry", "CC3", "2026-11-03T08:00:00Z"),
        ],
    ];
    apply(&ledger, "a", vec![page_after(1, &pages[0])]);
    let bytes = TARIFFS.as_bytes().to_vec();
    let digest = Digest::of(&bytes);
    ledger.record_order("me", vec![bytes], Command::Tariffs { pieces: 1, digest }, 5).unwrap();
    apply(&ledger, "a", vec![page_after(3, &pages[1])]);
    apply(&ledger, "b", vec![page_after(1, &pages[0])]);
    (store, ledger)
}

/// The views of a ledger with these records at its end, and the position of the first of them.
fn view_of(records: &[Record]) -> (View, u64) {
    let (store, ledger) = town();
    let first = ledger.position() + 1;
    for (position, record) in (first..).zip(records) {
        put(&store, position, record);
    }
    let ledger = Ledger::open(store.clone()).unwrap();
    let mut view = View::open(&store, &ledger).unwrap();
    catch_up(&ledger, &mut view).unwrap();
    assert_eq!(view.position, ledger.position());
    assert_eq!(View::load(&store, &ledger).unwrap(), view);
    (view, first)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_record_hangs_a_rebuild_or_ends_it(records in prop::collection::vec(record(), 1..12)) {
        view_of(&records.concat());
    }
}

fn ordered(command: Command) -> Record {
    Record::Command { received_at_ms: 5, by: "me".into(), command }
}

/// A plate in more contracts than fit into a value of the store: the last ones are left out.
#[test]
fn a_plate_that_more_is_said_of_than_can_be_kept_has_no_more() {
    let plate = Plate::new("AA1").unwrap();
    let fact = |n: u32| {
        let garage = ContractGarage::Named("x".repeat(60).into());
        let version =
            ContractVersion { dates: DateRange::ALWAYS, account: Account::new("one").unwrap(), cars: 1 };
        RegisterFact::Contract(Box::new(ContractChange {
            contract: format!("c{n}").parse().unwrap(),
            version,
            removed: Vec::new(),
            added: vec![ContractCar { plate: plate.clone(), garage }],
        }))
    };
    let records = (0..120).flat_map(|n| {
        let bytes = postcard::to_stdvec(&vec![fact(n)]).unwrap();
        let digest = Digest::of(&bytes);
        [Command::Piece { bytes }, Command::Register { pieces: 1, digest }].map(ordered)
    });
    let (view, _) = view_of(&records.collect::<Vec<_>>());
    let contracts = view.billing.rules.register.plate(&plate).map_or(0, |entry| entry.contracts().len());
    assert!(0 < contracts && contracts * 60 <= PlateEntry::MAX_BYTES, "{contracts} contracts");
}

#[test]
fn a_stay_of_a_hundred_years_is_not_billed_by_its_length() {
    let charge = ChargeId { garage: "a".into(), epoch: EPOCH.to_bytes(), sequence: 6, made_at_ms: None };
    let (view, _) = view_of(&[ordered(Command::BillStay { charge, reason: "r".into() })]);
    let taken = view.billing.taken(0).unwrap();
    let amounts: Vec<i64> = taken.by_currency().iter().map(|money| money.minor()).collect();
    assert_eq!(
        (taken.stays, amounts),
        (3, vec![1_000]),
        "two stays of two hours, and the long one at no price"
    );
}

#[test]
fn a_stay_that_is_said_to_have_ended_at_no_time_at_all_goes_on() {
    for left_at_ms in [i64::MIN, i64::MAX] {
        let entry = EventId { garage: "a".into(), epoch: EPOCH.to_bytes(), sequence: 7 };
        let close = Command::CloseStay { entry, left_at_ms, offset_minutes: 0, reason: "r".into() };
        let (view, position) = view_of(&[ordered(close)]);
        assert!(view.decisions.without_effect(position).unwrap().contains("is not a time"));
    }
}
