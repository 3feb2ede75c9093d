//! The stays against an oracle that is too simple to be wrong: it takes all events at once, each with the best plate known.

use super::list::{self, ListedStay, StayFilter};
use super::tests::{EPOCH, apply, apply_at, apply_ledger, event, page_after, world};
use super::*;
use crate::messaging::SiteName;
use crate::parking::Plate;
use crate::parking::stay::{End, Visit, Way, pair};
use crate::server::ledger::Ledger;
use crate::store::Store;
use crate::store::simulated::Disk;
use proptest::prelude::*;
use proptest::sample::Index;

const GARAGES: [&str; 2] = ["a", "b"];
const PLATES: [&str; 4] = ["AA1", "BB2", "CC3", "ΙΒΝ1234"];

#[derive(Debug, Clone)]
enum ToldEvent {
    Passed(Way, Option<usize>),
    /// Of the event that many places back; 0 and less is none that came before.
    Corrected(i64, usize),
    Counted,
    OfANewerProgram,
}

fn told() -> impl Strategy<Value = ToldEvent> {
    let plate = 0..PLATES.len();
    let passed =
        |way| prop::option::weighted(0.9, 0..PLATES.len()).prop_map(move |p| ToldEvent::Passed(way, p));
    prop_oneof![
        8 => passed(Way::In),
        8 => passed(Way::Out),
        6 => (-2i64..12, plate.clone()).prop_map(|(back, plate)| ToldEvent::Corrected(back, plate)),
        2 => (0i64..400, plate).prop_map(|(back, plate)| ToldEvent::Corrected(back, plate)),
        1 => Just(ToldEvent::Counted),
        1 => Just(ToldEvent::OfANewerProgram),
    ]
}

/// What happens at one garage, in pages of these sizes.
fn garage() -> impl Strategy<Value = Vec<Vec<ToldEvent>>> {
    prop::collection::vec(prop::collection::vec(told(), 1..=24), 0..30)
}

fn bytes(told: &ToldEvent, sequence: u64) -> Vec<u8> {
    let kind = |way| if way == Way::In { "entry" } else { "exit" };
    match told {
        ToldEvent::Passed(way, Some(plate)) => {
            event(&format!(r#"{{"kind":"{}","plate":"{}"}}"#, kind(*way), PLATES[*plate]))
        }
        ToldEvent::Passed(way, None) => event(&format!(r#"{{"kind":"{}","plate":null}}"#, kind(*way))),
        ToldEvent::Corrected(back, plate) => {
            let of = (sequence as i64 - back).max(1);
            let plate = PLATES[*plate];
            event(&format!(
                r#"{{"kind":"plate_correction","epoch":"{EPOCH}","sequence":{of},"plate":"{plate}"}}"#
            ))
        }
        ToldEvent::Counted => event(r#"{"kind":"count","occupied":5,"reason":"rounds"}"#),
        ToldEvent::OfANewerProgram => vec![9, 9],
    }
}

type StayLine = (String, String, u64, Option<u64>, &'static str);

/// The visits of one garage by plate, by sequences; and which events cannot be applied.
fn oracle(pages: &[Vec<ToldEvent>]) -> (Vec<(String, Visit<u64>)>, Vec<u64>) {
    let mut read: Vec<Option<(Way, Option<usize>)>> = Vec::new();
    let mut set_aside = Vec::new();
    for (sequence, told) in (1..).zip(pages.iter().flatten()) {
        let mut passed = None;
        match told {
            ToldEvent::Passed(way, plate) => passed = Some((*way, *plate)),
            ToldEvent::Corrected(back, plate) => {
                let of = (sequence as i64 - back).max(1) as usize;
                match read.get_mut(of - 1) {
                    Some(Some((_, its))) => *its = Some(*plate),
                    _ => set_aside.push(sequence),
                }
            }
            ToldEvent::Counted => {}
            ToldEvent::OfANewerProgram => set_aside.push(sequence),
        }
        read.push(passed);
    }
    let mut visits = Vec::new();
    for (number, plate) in PLATES.iter().enumerate() {
        let its = (1u64..).zip(&read).filter_map(|(sequence, passed)| match passed {
            Some((way, Some(plate))) if *plate == number => Some((*way, sequence)),
            _ => None,
        });
        visits.extend(pair(its).into_iter().map(|visit| ((*plate).to_owned(), visit)));
    }
    (visits, set_aside)
}

fn line(garage: &str, plate: &str, visit: &Visit<u64>) -> Option<StayLine> {
    let Visit::Stay { entry, end } = visit else {
        return None;
    };
    let (exit, state) = match end {
        End::Inside => (None, "inside"),
        End::Left(exit) => (Some(*exit), "left"),
        End::Unseen => (None, "unseen"),
    };
    Some((garage.to_owned(), plate.to_owned(), *entry, exit, state))
}

/// All that a filter finds, in pieces of three.
fn listed(store: &Store, view: &View, wanted: &StayFilter) -> Vec<StayLine> {
    let mut wanted = StayFilter { limit: 3, ..wanted.clone() };
    let mut lines = Vec::new();
    loop {
        let (position, part) = list::list(store, None, &wanted).unwrap();
        assert_eq!(position, view.position);
        for ListedStay { address, plate, entry, end } in &part.stays {
            let end = match end {
                End::Inside => End::Inside,
                End::Left(exit) => End::Left(exit.sequence),
                End::Unseen => End::Unseen,
            };
            let visit = Visit::Stay { entry: entry.sequence, end };
            lines.extend(line(&view.name_of_number(address.garage), plate, &visit));
        }
        if part.next.is_none() {
            return lines;
        }
        wanted.after = part.next;
    }
}

fn sorted(mut lines: Vec<StayLine>) -> Vec<StayLine> {
    lines.sort();
    lines
}

/// Everything that the views keep on the disk.
fn written(store: &Store) -> Vec<crate::store::Entry> {
    store.range(KEYS.0, KEYS.1).map(|entry| entry.unwrap()).collect()
}

/// The part of the store that does not depend on when pages were received (curves believe no time after that), or on which of the cars inside are in memory.
fn visits_and_money(store: &Store) -> Vec<crate::store::Entry> {
    let tells_when = |key: &[u8]| {
        [&b"vp"[..], b"vg", b"vq", b"vo", b"vj", b"vk", b"vl", b"vt"]
            .iter()
            .any(|prefix| key.starts_with(prefix))
            || key.starts_with(&[b'v', b'b', b'n', billing::anomalies::AnomalyCode::ClockNotSet as u8])
    };
    written(store).into_iter().filter(|(key, _)| !tells_when(key)).collect()
}

/// Folds what the ledger has, saving as often as `save` says, and writes what is left.
fn apply_saving(view: &mut View, ledger: &Ledger, store: &Store, mut save: impl FnMut() -> bool) {
    let mut changes = ViewChanges::on(store);
    for record in ledger.records(view.position + 1) {
        let (position, record) = record.unwrap();
        let step = PreparedRecord::read(ledger, position, record).unwrap();
        if !changes.have_room_for(step.writes_at_most()) || save() {
            view.save(&mut changes).unwrap();
        }
        view.apply(ledger, step, &mut changes).unwrap();
    }
    view.save(&mut changes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn stays_are_what_the_rule_says_of_all_events_with_their_best_readings(
        told in [garage(), garage()],
        saves in prop::collection::vec(any::<bool>(), 1..40),
        cuts in prop::collection::vec((any::<Index>(), 0usize..4), 0..4),
        // How many days pass before each page. Cars that are inside for more than 30 leave memory.
        passing in prop::collection::vec(prop_oneof![8 => Just(0i64), 2 => Just(1), 2 => Just(20), 1 => Just(31), 1 => Just(-3)], 1..40),
    ) {
        let (disk, mut store, mut ledger) = world();
        let mut last = [0u64; 2];
        let mut position = 0;
        let rounds = told.iter().map(Vec::len).max().unwrap();
        let mut records = Vec::new();
        for round in 0..rounds {
            for (garage, pages) in told.iter().enumerate() {
                if let Some(page) = pages.get(round) {
                    records.push((garage, page));
                }
            }
        }
        let mut view = View::open(&store, &ledger).unwrap();
        let cut_at: Vec<_> = cuts.iter().map(|(at, keep)| (at.index(records.len().max(1)), *keep)).collect();
        let mut saves = saves.iter().cycle();
        let (mut passing, mut now_ms) = (passing.iter().cycle(), 77);
        let (_, other_store, at_once) = world();
        for (n, (garage, page)) in records.iter().enumerate() {
            let first = last[*garage] + 1;
            last[*garage] += page.len() as u64;
            position += 1;
            let events: Vec<_> = (first..).zip(*page).map(|(sequence, told)| bytes(told, sequence)).collect();
            now_ms += passing.next().unwrap() * 24 * 3_600_000;
            apply_at(&ledger, GARAGES[*garage], vec![page_after(first, &events)], now_ms);
            apply(&at_once, GARAGES[*garage], vec![page_after(first, &events)]);
            prop_assert_eq!(ledger.position(), position);
            if *saves.next().unwrap() {
                apply_saving(&mut view, &ledger, &store, || *saves.next().unwrap());
            }
            // The power goes: of the view's writes since the ledger's last flush a part survives.
            if let Some((_, keep)) = cut_at.iter().find(|(at, _)| *at == n) {
                disk.power_on(*keep);
                store = Store::on(disk.clone());
                ledger = Ledger::open(store.clone()).unwrap();
                view = View::open(&store, &ledger).unwrap();
            }
        }
        apply_saving(&mut view, &ledger, &store, || false);
        prop_assert_eq!(&View::load(&store, &ledger).unwrap(), &view);

        // From the beginning, into another store: the same, byte for byte.
        let other = Store::on(Disk::default());
        let mut rebuilt = View::default();
        apply_saving(&mut rebuilt, &ledger, &other, || false);
        prop_assert_eq!(&rebuilt, &view);
        prop_assert_eq!(written(&other), written(&store));

        // The same events on one day: nobody leaves memory, and the visits are the same, byte for byte.
        let mut on_one_day = View::default();
        apply_saving(&mut on_one_day, &at_once, &other_store, || false);
        prop_assert_eq!(visits_and_money(&other_store), visits_and_money(&store));

        let mut all = Vec::new();
        for (name, pages) in GARAGES.iter().zip(&told) {
            let (visits, set_aside) = oracle(pages);
            let site = SiteName::new(name).unwrap();
            all.extend(visits.iter().filter_map(|(plate, visit)| line(name, plate, visit)));
            let aside = view.quarantine.values().filter(|aside| aside.garage == site);
            let aside: Vec<u64> =
                aside.flat_map(|aside| aside.places().map(|place| aside.first + place as u64)).collect();
            prop_assert_eq!(aside, set_aside);
            let book = view.garages.get(&site).map(|garage| garage.stays).unwrap_or_default();
            let count = |is: fn(&Visit<u64>) -> bool| visits.iter().filter(|(_, visit)| is(visit)).count() as u64;
            prop_assert_eq!(book.counts.open, count(Visit::is_inside));
            prop_assert_eq!(book.counts.closed, count(|v| matches!(v, Visit::Stay { end: End::Left(_), .. })));
            prop_assert_eq!(book.counts.exits_missed, count(|v| matches!(v, Visit::Stay { end: End::Unseen, .. })));
            prop_assert_eq!(book.counts.exits_unmatched, count(|v| matches!(v, Visit::Exit(_))));
        }
        let everything = StayFilter { plate: None, garage: None, open: None, after: None, limit: 3 };
        for open in [None, Some(true), Some(false)] {
            let of_state = |line: &&StayLine| open.is_none_or(|open| open == (line.4 == "inside"));
            let wanted = StayFilter { open, ..everything.clone() };
            let expected: Vec<_> = all.iter().filter(of_state).cloned().collect();
            prop_assert_eq!(sorted(listed(&store, &view, &wanted)), sorted(expected.clone()));
            for (name, garage) in view.garages.iter() {
                let wanted = StayFilter { garage: Some(garage.stays.number), ..wanted.clone() };
                let expected = expected.iter().filter(|line| line.0 == name.as_str()).cloned().collect();
                prop_assert_eq!(sorted(listed(&store, &view, &wanted)), sorted(expected));
            }
            for plate in PLATES {
                let wanted = StayFilter { plate: Some(Plate::new(plate).unwrap()), ..wanted.clone() };
                let expected = expected.iter().filter(|line| line.1 == plate).cloned().collect();
                prop_assert_eq!(sorted(listed(&store, &view, &wanted)), sorted(expected));
            }
        }
    }
}

#[test]
fn views_of_another_version_are_dropped_and_rebuilt() {
    let (_, store, ledger) = world();
    let entry = event(r#"{"kind":"entry","plate":"AB1"}"#);
    apply(&ledger, "a", vec![page_after(1, &[entry])]);
    let mut view = View::default();
    let mut changes = apply_ledger(&mut view, &ledger, &store);
    view.save(&mut changes).unwrap();
    let whole = written(&store);
    store.put(b"vp", &[written::VERSION + 1, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    assert_eq!(View::open(&store, &ledger).unwrap(), View::default());
    assert_eq!(written(&store), []);
    let mut again = View::default();
    apply_saving(&mut again, &ledger, &store, || false);
    assert_eq!(written(&store), whole);
    // A page that does not read is no reason to stay away either.
    let page = whole.iter().find(|(key, _)| key.starts_with(b"vs")).unwrap();
    store.put(&page.0, b"\x01\xff\xff").unwrap();
    assert_eq!(View::open(&store, &ledger).unwrap(), View::default());
}

const DAY_MS: i64 = 24 * 3_600_000;

fn passed(kind: &str, plate: &str) -> Vec<u8> {
    event(&format!(r#"{{"kind":"{kind}","plate":"{plate}","at":"2026-11-02T08:00:00Z"}}"#))
}

/// Each misread entry stayed in memory for good, in two maps: a city has a million of them in ten years.
#[test]
fn cars_that_are_inside_for_a_month_leave_memory_and_are_found_when_they_leave_or_are_listed() {
    let (_, store, ledger) = world();
    let everything = StayFilter { plate: None, garage: None, open: Some(true), after: None, limit: 3 };
    let mut view = View::default();
    let entered: Vec<_> = (0..300).map(|n| passed("entry", &format!("OLD{n}"))).collect();
    for (page, events) in (0u64..).zip(entered.chunks(60)) {
        apply_at(&ledger, "a", vec![page_after(60 * page + 1, events)], DAY_MS);
    }
    apply_saving(&mut view, &ledger, &store, || false);
    assert_eq!(view.stays.in_memory(), 300);
    apply_at(&ledger, "a", vec![page_after(301, &[passed("entry", "NEW1")])], 33 * DAY_MS);
    apply_saving(&mut view, &ledger, &store, || false);
    assert_eq!(view.stays.in_memory(), 1);
    assert_eq!(listed(&store, &view, &everything).len(), 301);
    let of_plate = StayFilter { plate: Some(Plate::new("OLD7").unwrap()), ..everything.clone() };
    assert_eq!(listed(&store, &view, &of_plate).len(), 1);

    // One leaves, one enters again without having left, one enters another garage.
    let events = [passed("exit", "OLD7"), passed("entry", "OLD8")];
    apply_at(&ledger, "a", vec![page_after(302, &events)], 34 * DAY_MS);
    apply_at(&ledger, "b", vec![page_after(1, &[passed("entry", "OLD9")])], 34 * DAY_MS);
    apply_saving(&mut view, &ledger, &store, || false);
    let book = view.garages[&SiteName::new("a").unwrap()].stays;
    assert_eq!(
        (book.counts.open, book.counts.closed, book.counts.exits_missed, book.counts.exits_unmatched),
        (300, 1, 1, 0)
    );
    let noted = |code: billing::anomalies::AnomalyCode| {
        let key = [&b"vbn"[..], &[code as u8]].concat();
        store.range(&key, &[&b"vbn"[..], &[code as u8 + 1]].concat()).count()
    };
    let code = billing::anomalies::AnomalyCode::EntryWhileOpen;
    assert_eq!((noted(code), noted(billing::anomalies::AnomalyCode::OpenInTwoGarages)), (1, 1));
    assert_eq!(view.stays.in_memory(), 3, "NEW1, OLD8 and OLD9");
    assert_eq!(listed(&store, &view, &everything).len(), 301);
    assert_eq!(View::load(&store, &ledger).unwrap(), view);

    // All of them leave, and nothing is left of them beside memory.
    let left: Vec<_> = (0..300).filter(|n| *n != 7).map(|n| passed("exit", &format!("OLD{n}"))).collect();
    for (page, events) in (0u64..).zip(left.chunks(60)) {
        apply_at(&ledger, "a", vec![page_after(60 * page + 304, events)], 35 * DAY_MS);
    }
    apply_saving(&mut view, &ledger, &store, || false);
    let kept = |prefix: &[u8]| written(&store).iter().filter(|(key, _)| key.starts_with(prefix)).count();
    assert_eq!((kept(b"vj"), kept(b"vk")), (0, 0));
    assert_eq!(listed(&store, &view, &everything).len(), 2, "NEW1 and OLD9");
}

#[test]
fn a_page_of_corrections_fits_into_one_batch() {
    let (_, store, ledger) = world();
    let mut first = 1;
    let mut give = |events: Vec<Vec<u8>>| {
        let count = events.len() as u64;
        apply(&ledger, "a", vec![page_after(first, &events)]);
        first += count;
        first - 1
    };
    let plate = |n: u64| format!("CAR{n}");
    // Visits of 64 cars and of 64 others, each far from the next.
    for _ in 0..3 {
        for car in 0..128 {
            let passed = |kind| event(&format!(r#"{{"kind":"{kind}","plate":"{}"}}"#, plate(car)));
            give(vec![passed("entry"), passed("exit")]);
            let others = |n: u64| event(&format!(r#"{{"kind":"exit","plate":"{}"}}"#, plate(1000 + n)));
            give((0..64).map(others).collect());
            give((0..64).map(others).collect());
        }
    }
    // The middle visits of the first become visits of the others: 66 * 128 events lie between.
    let middle = |car: u64| (128 + car) * 130 + 1;
    let correct = |car: u64| {
        let (of, plate) = (middle(car), plate(64 + car));
        event(&format!(
            r#"{{"kind":"plate_correction","epoch":"{EPOCH}","sequence":{of},"plate":"{plate}"}}"#
        ))
    };
    give((0..64).map(correct).collect());
    let mut view = View::default();
    apply_saving(&mut view, &ledger, &store, || false);
    assert!(view.quarantine.is_empty(), "{:?}", view.quarantine);
    let book = view.garages[&SiteName::new("a").unwrap()].stays;
    // Each moved entry left its exit behind, and stands before the middle visit of its new car.
    let unmatched = 3 * 128 * 128 + 64;
    assert_eq!(
        (book.counts.closed, book.counts.exits_missed, book.counts.exits_unmatched),
        (3 * 128 - 64, 64, unmatched)
    );
}
