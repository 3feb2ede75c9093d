//! Curves against an oracle that is too simple to be wrong: it keeps all events, and looks at each of them for each bucket.

use super::read::{CurvePoint, WrittenCurve};
use super::*;
use crate::messaging::SiteName;
use crate::server::ledger::Ledger;
use crate::server::view::tests::{apply_at, apply_ledger, event, page_after, request, world};
use crate::server::view::{View, ViewChanges, catch_up, compare};
use crate::store::simulated::Disk;
use proptest::prelude::*;
use std::time::Instant;

/// Noon of a day in 2026.
const NOON: i64 = 1_795_867_200_000;

/// An event, or a loss of events before it.
#[derive(Debug, Clone, Copy)]
enum Step {
    Event { at_ms: i64, received_ms: i64, net: i64 },
    Lost,
}

/// Events whose times run on, stand still, jump, come late, or are nonsense; received in the order of the ledger.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![
        8 => 0..2 * MINUTE_MS,
        3 => 0..2 * HOUR_MS,
        1 => 0..3 * DAY_MS,
    ];
    let late = prop_oneof![
        12 => Just(0),
        3 => 0..10 * MINUTE_MS,
        2 => 0..30 * HOUR_MS,
        1 => 0..9 * DAY_MS,
        1 => 0..1_000 * DAY_MS,
        1 => -1_000 * DAY_MS..0,
    ];
    let net = prop_oneof![10 => -1i64..=1, 1 => -400i64..400];
    let step = (pause, late, net, 0..40u8);
    prop::collection::vec(step, 1..200).prop_map(|steps| {
        let mut received_ms = NOON;
        let events = steps.into_iter().flat_map(move |(pause, late, net, lost)| {
            received_ms += pause;
            let event = Step::Event { at_ms: received_ms - late, received_ms, net };
            (lost == 0).then_some(Step::Lost).into_iter().chain([event])
        });
        events.collect()
    })
}

/// The points that follow from all events at once.
fn expected(steps: &[Step], unit: CurveUnit, to_ms: i64, count: i64) -> Vec<Option<CurvePoint>> {
    let mut events: Vec<(i64, i64)> = Vec::new();
    let (mut unknown, mut lost): (Vec<(i64, i64)>, bool) = (Vec::new(), false);
    for step in steps {
        match *step {
            Step::Lost => lost = !events.is_empty(),
            Step::Event { at_ms, received_ms, net } => {
                let is_late = received_ms - at_ms > LATE_MS;
                let at_ms = if is_late || at_ms > received_ms { received_ms } else { at_ms };
                if std::mem::take(&mut lost) {
                    unknown.push((events.iter().map(|(at_ms, _)| *at_ms).max().unwrap(), at_ms));
                }
                events.push((at_ms, net));
            }
        }
    }
    unknown.retain(|(from, to)| from < to);
    while unknown.len() > UNKNOWN_MAX {
        unknown[0].1 = unknown.remove(1).1;
    }
    let Some(last_ms) = events.iter().map(|(at_ms, _)| *at_ms).max() else {
        return vec![None; count as usize];
    };
    let first_bucket = events[0].0.div_euclid(unit.ms());
    let since = events.iter().map(|(at_ms, _)| *at_ms).min().unwrap();
    let newest = to_ms.div_euclid(unit.ms());
    let point = |bucket: i64| {
        let (from, to) = (bucket * unit.ms(), (bucket + 1) * unit.ms());
        let is_lost = unknown.iter().any(|(since, until)| *since < from && to <= *until);
        if to <= since || from > last_ms || is_lost {
            return None;
        }
        let now: i64 = events.iter().map(|(_, net)| net).sum();
        let end = now - events.iter().filter(|(at_ms, _)| *at_ms >= to).map(|(_, net)| net).sum::<i64>();
        let within: Vec<i64> =
            events.iter().filter(|(at_ms, _)| (from..to).contains(at_ms)).map(|(_, net)| *net).collect();
        let mut at = end - within.iter().sum::<i64>();
        // Before the first event of all the count is not known.
        let mut counts = if bucket == first_bucket { vec![] } else { vec![at] };
        for net in within {
            at += net;
            counts.push(at);
        }
        let (min, max) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
        Some(CurvePoint { at_ms: from, occupied: end, min, max })
    };
    (newest - count + 1..=newest).map(point).collect()
}

/// Notes the steps in batches of these sizes; after each batch everything is written and read again.
fn noted(steps: &[Step], batches: &[usize]) -> Store {
    let store = Store::on(Disk::default());
    let (mut curves, mut changes) = (Curves::default(), CurveChanges::on(&store));
    let (mut count, mut sizes) = (0, batches.iter().cycle());
    let mut left = *sizes.next().unwrap();
    for step in steps {
        match *step {
            Step::Lost => curves.lost(7, &mut changes),
            Step::Event { at_ms, received_ms, net } => {
                let counted = [Counted { at_ms, before: count, after: count + net }];
                count += net;
                curves.note(7, Reception::Now(received_ms), &counted, &mut changes).unwrap();
            }
        }
        left -= 1;
        if left == 0 {
            left = *sizes.next().unwrap();
            save(&curves, &mut changes, &store);
            curves = Curves::load(&store).unwrap();
        }
    }
    save(&curves, &mut changes, &store);
    store
}

fn save(curves: &Curves, changes: &mut CurveChanges, store: &Store) {
    let mut batch = Batch::default();
    changes.drain(curves, &mut batch);
    store.apply(&batch).unwrap();
}

fn entries(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    store.range(PREFIX, END).map(Result::unwrap).collect()
}

proptest! {
    #[test]
    fn every_point_is_what_all_events_make_of_it(steps in steps(), batches in prop::collection::vec(1usize..30, 1..4)) {
        let store = noted(&steps, &batches);
        let now = steps.iter().filter_map(|step| match step {
            Step::Event { received_ms, .. } => Some(*received_ms),
            Step::Lost => None,
        }).max().unwrap();
        for (unit, count) in [(CurveUnit::Minute, 1_500), (CurveUnit::Hour, 192), (CurveUnit::Day, 730)] {
            let curve = WrittenCurve::read(&store, 7, unit).unwrap().unwrap();
            let points = curve.points(now, count, None);
            let wanted = expected(&steps, unit, now, count as i64);
            for (point, wanted) in points.iter().zip(&wanted) {
                prop_assert_eq!(point, wanted, "{:?}", unit);
            }
            prop_assert_eq!(points.len(), wanted.len());
        }
        prop_assert!(entries(&store).len() <= 1 + 26 + 9 + 24);
        prop_assert_eq!(entries(&store), entries(&noted(&steps, &[usize::MAX])), "batches change nothing");
    }
}

fn counted(at_ms: i64, before: i64, after: i64) -> Counted {
    Counted { at_ms, before, after }
}

fn occupied(store: &Store, unit: CurveUnit, to_ms: i64, count: usize) -> Vec<Option<i64>> {
    let curve = WrittenCurve::read(store, 7, unit).unwrap().unwrap();
    curve.points(to_ms, count, None).into_iter().map(|point| point.map(|its| its.occupied)).collect()
}

/// A clock that is ahead fills the ring with pages of years that never come. What is in them must neither keep later events out nor be
/// missing from the count.
#[test]
fn after_the_servers_clock_was_ahead_and_is_set_back_the_curve_goes_on() {
    let store = Store::on(Disk::default());
    let (mut curves, mut changes) = (Curves::default(), CurveChanges::on(&store));
    let years = NOON + 20_000 * DAY_MS;
    let mut count = 0;
    let mut enter = |at_ms: i64| {
        let event = counted(at_ms, count, count + 1);
        count += 1;
        curves.note(7, Reception::Now(at_ms), &[event], &mut changes).unwrap();
        save(&curves, &mut changes, &store);
    };
    (0..10).for_each(|hour| enter(NOON + hour * HOUR_MS));
    (0..9).for_each(|hour| enter(years + hour * HOUR_MS));
    let points = |unit, hour: i64, back| occupied(&store, unit, NOON + hour * HOUR_MS, back);
    enter(NOON + 10 * HOUR_MS);
    for unit in [CurveUnit::Minute, CurveUnit::Hour, CurveUnit::Day] {
        assert_eq!(points(unit, 10, 1), [Some(20)], "they are there now: {unit:?}");
    }
    assert_eq!(points(CurveUnit::Hour, 10, 4), [8, 9, 10, 20].map(Some));
    enter(NOON + 11 * HOUR_MS);
    assert_eq!(points(CurveUnit::Hour, 11, 4), [9, 10, 20, 21].map(Some));
    assert_eq!(points(CurveUnit::Minute, 11, 61)[..1], [Some(20)]);
}

#[test]
fn events_of_a_quarantine_count_when_they_happened_and_take_no_page_from_later_ones() {
    let store = Store::on(Disk::default());
    let (mut curves, mut changes) = (Curves::default(), CurveChanges::on(&store));
    let mut note = |receipt, at_ms, before| {
        curves.note(7, receipt, &[counted(at_ms, before, before + 1)], &mut changes).unwrap();
        save(&curves, &mut changes, &store);
    };
    let later = NOON + 26 * HOUR_MS;
    note(Reception::Now(NOON), NOON, 0);
    // Its minutes take the place of those of noon.
    note(Reception::Now(later), later, 1);
    note(Reception::Now(later + HOUR_MS), later + HOUR_MS, 2);
    note(Reception::Earlier(NOON), NOON, 3);
    let hour = |unit| occupied(&store, unit, later + HOUR_MS, 28);
    assert_eq!(
        hour(CurveUnit::Hour)[..27],
        vec![Some(2); 26].into_iter().chain([Some(3)]).collect::<Vec<_>>()
    );
    assert_eq!(occupied(&store, CurveUnit::Minute, later + HOUR_MS, 62)[..2], [Some(2), Some(3)]);
}

/// A ledger in which a garage delivers for some days, is away for two, and then delivers what happened meanwhile.
fn a_garage_that_was_away(ledger: &Ledger, sizes: &[usize]) {
    let days: Vec<i64> =
        (0..6).flat_map(|day| (0..24).map(move |hour| day * DAY_MS + hour * HOUR_MS)).collect();
    let event_at = |at_ms: i64, n: usize| {
        let at = jiff::Timestamp::from_millisecond(NOON + at_ms).unwrap();
        let kind = if n % 3 == 2 { "exit" } else { "entry" };
        event(&format!(r#"{{"kind":"{kind}","plate":null,"at":"{at}"}}"#))
    };
    let mut sizes = sizes.iter().cycle();
    let mut first = 0;
    while first < days.len() {
        let end = (first + sizes.next().unwrap()).min(days.len());
        let events: Vec<_> = (first..end).map(|n| event_at(days[n], n)).collect();
        let last = days[end - 1];
        let is_away = (2 * DAY_MS..4 * DAY_MS).contains(&last);
        let received_ms = NOON + if is_away { 4 * DAY_MS } else { last };
        apply_at(ledger, "a", vec![page_after(first as u64 + 1, &events)], received_ms);
        first = end;
    }
}

/// The points of the hours until the last event of [`a_garage_that_was_away`].
fn hours(store: &Store) -> Vec<Option<CurvePoint>> {
    let curve = WrittenCurve::read(store, 0, CurveUnit::Hour).unwrap().unwrap();
    curve.points(NOON + 6 * DAY_MS - HOUR_MS, 6 * 24, None)
}

#[test]
fn what_a_garage_delivers_days_late_stands_where_it_happened() {
    let mut curves = Vec::new();
    for sizes in [&[1][..], &[7, 2, 31], &[64]] {
        let (_, store, ledger) = world();
        a_garage_that_was_away(&ledger, sizes);
        let mut view = View::default();
        let mut changes = ViewChanges::on(&store);
        // Written and read again now and then.
        for through in (0..=ledger.position()).step_by(17).chain([ledger.position()]) {
            catch_up(&mut view, &ledger, through, &mut changes, |_| {}).unwrap();
            view.save(&mut changes).unwrap();
            view = View::load(&store, &ledger).unwrap();
        }
        let rebuilt = Store::on(Disk::default());
        let mut again = View::default();
        let mut changes = apply_ledger(&mut again, &ledger, &rebuilt);
        again.save(&mut changes).unwrap();
        assert_eq!(view, again);
        compare(&store, &rebuilt, &mut |place, what| panic!("{place}: {what}")).unwrap();
        curves.push(hours(&store));
    }
    let count = |n: usize| (n + 1) as i64 - 2 * ((n + 1) / 3) as i64;
    for (n, point) in curves[0].iter().enumerate() {
        assert_eq!(point.unwrap().occupied, count(n), "hour {n}");
    }
    assert!(curves.iter().all(|its| *its == curves[0]), "however it was delivered");
}

#[test]
fn while_events_are_lost_the_count_is_not_known() {
    let (_, store, ledger) = world();
    let entry = |hours: i64| {
        let at = jiff::Timestamp::from_millisecond(NOON + hours * HOUR_MS).unwrap();
        event(&format!(r#"{{"kind":"entry","plate":null,"at":"{at}"}}"#))
    };
    apply_at(&ledger, "a", vec![page_after(1, &[entry(0), entry(1)])], NOON + HOUR_MS);
    // The edge says that its oldest event is the tenth: those from the third on are lost.
    let mut after_a_loss = request("a", crate::server::view::tests::EPOCH, vec![page_after(10, &[entry(5)])]);
    after_a_loss.oldest = 10;
    ledger.commit(&[after_a_loss], NOON + 5 * HOUR_MS).unwrap();
    let mut view = View::default();
    let mut changes = apply_ledger(&mut view, &ledger, &store);
    view.save(&mut changes).unwrap();
    assert_eq!(view.missing_ranges().size(), 1);
    let number = view.garages[&SiteName::new("a").unwrap()].stays.number;
    let curve = WrittenCurve::read(&store, number, CurveUnit::Hour).unwrap().unwrap();
    let counts =
        |heard| curve.points(NOON + 7 * HOUR_MS, 8, heard).into_iter().map(|its| its.map(|its| its.occupied));
    let (one, two, three) = (Some(1), Some(2), Some(3));
    assert!(counts(None).eq([one, two, None, None, None, three, None, None]));
    assert!(
        counts(Some(NOON + 6 * HOUR_MS)).eq([one, two, None, None, None, three, three, None]),
        "it was heard"
    );
}

/// The figures of "What it costs" in ARCHITECTURE.md.
#[test]
#[ignore = "a measure, to be run alone: cargo test --lib what_a_curve_takes -- --ignored --nocapture"]
fn what_a_curve_takes() {
    let (_, _, ledger) = world();
    let (garages, pages) = (20, 400);
    // 64 events each in 77 minutes: 50 an hour, for three weeks.
    for page in 0..pages {
        for garage in 0..garages {
            let at = |n: i64| NOON + (page * 64 + n) * 72_000;
            let event_of = |n: i64| {
                let at = jiff::Timestamp::from_millisecond(at(n)).unwrap();
                let (kind, car) = if n % 2 == 0 { ("entry", n) } else { ("exit", n - 1) };
                event(&format!(r#"{{"kind":"{kind}","plate":"G{garage}X{}","at":"{at}"}}"#, page * 64 + car))
            };
            let events: Vec<_> = (0..64).map(event_of).collect();
            apply_at(&ledger, &format!("g{garage}"), vec![page_after(page as u64 * 64 + 1, &events)], at(64));
        }
    }
    let rebuilt = Store::on(Disk::default());
    let began = Instant::now();
    let mut view = View::default();
    let mut changes = apply_ledger(&mut view, &ledger, &rebuilt);
    view.save(&mut changes).unwrap();
    let whole = began.elapsed();
    let alone = Store::on(Disk::default());
    let began = Instant::now();
    let (mut curves, mut changes) = (Curves::default(), CurveChanges::on(&alone));
    for page in 0..pages {
        for garage in 0..garages as u32 {
            let at = |n: i64| NOON + (page * 64 + n) * 72_000;
            let counted: Vec<_> = (0..64).map(|n| counted(at(n), n % 2, (n + 1) % 2)).collect();
            curves.note(garage, Reception::Now(at(64)), &counted, &mut changes).unwrap();
        }
        save(&curves, &mut changes, &alone);
    }
    let own = began.elapsed();
    let events = garages * pages * 64;
    let each = |took: std::time::Duration| took.as_nanos() as f64 / events as f64;
    println!("{events} events: {:.0} ns each, of these curves {:.0} ns", each(whole), each(own));
    let stored = entries(&rebuilt);
    let bytes: usize = stored.iter().map(|(key, value)| key.len() + value.len()).sum();
    println!(
        "stored of a garage: {} values, {} bytes",
        stored.len() as i64 / garages,
        bytes as i64 / garages
    );
    // In memory: a value of the map, and its spans.
    println!(
        "in memory of a garage: {} bytes and {} at most",
        size_of::<Curve>(),
        UNKNOWN_MAX * size_of::<(i64, i64)>()
    );
}
