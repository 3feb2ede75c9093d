//! What becomes of a ledger that lost a part of itself.

use super::tests::{commit, marked_page, page, request};
use super::*;
use crate::messaging::Epoch;
use crate::messaging::page::SealedPage;
use crate::messaging::receiver::Mark;
use crate::server::applying::{catch_up, open_view};
use crate::server::record::StreamId;
use crate::server::verify::verify;
use crate::server::view::View;
use crate::store::salvage::{Boot, OnLoss, Salvaged};
use crate::store::simulated::Disk;
use keys::{mark_key, record_key};
use std::path::PathBuf;
use tempfile::TempDir;

struct World {
    store: Store,
    dir: TempDir,
}

impl World {
    fn new() -> World {
        World { store: Store::on(Disk::default()), dir: tempfile::tempdir().unwrap() }
    }
    fn witness(&self) -> PathBuf {
        self.dir.path().join("witness")
    }
    fn open(&self) -> Ledger {
        Ledger::open_beside(self.store.clone(), &self.witness(), OnLoss::Record, 9).unwrap()
    }
    fn flip(&self, position: u64) {
        let mut value = self.store.get(&record_key(position)).unwrap().unwrap();
        let middle = value.len() / 2;
        value[middle] ^= 4;
        self.store.put(&record_key(position), &value).unwrap();
    }
    fn views_of(&self, ledger: &Ledger) -> View {
        let mut view = open_view(ledger).unwrap();
        catch_up(ledger, &mut view).unwrap();
        view
    }
}

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn missing_ranges(view: &View) -> Vec<(&str, u64, u64)> {
    view.missing_ranges().values().map(|range| (range.garage.as_str(), range.first, range.last)).collect()
}

/// Six positions: pages of two garages, a capacity, a command.
fn fill(ledger: &Ledger) {
    commit(ledger, request("a", 1, vec![page(1, 10), page(11, 5)]));
    ledger.record_capacity(&site("a"), 50, 5).unwrap();
    commit(ledger, request("b", 1, vec![page(1, 3)]));
    let command = Command::Capacity { garage: site("a"), spaces: Some(9) };
    ledger.record_command("me", command, 5).unwrap();
    commit(ledger, request("a", 1, vec![page(16, 4)]));
}

#[test]
fn a_damaged_page_becomes_a_missing_range_of_its_garage_and_the_rest_is_applied() {
    for (position, range) in [(1, ("a", 1, 10)), (2, ("a", 11, 15)), (4, ("b", 1, 3)), (6, ("a", 16, 19))] {
        let world = World::new();
        let ledger = world.open();
        fill(&ledger);
        world.flip(position);
        let ledger = world.open();
        let view = world.views_of(&ledger);
        assert_eq!((view.position, missing_ranges(&view)), (6, vec![range]), "position {position}");
        assert_eq!(view.damages.keys().copied().collect::<Vec<_>>(), [position]);
        let events: u64 = view.garages.values().map(|garage| garage.events).sum();
        assert_eq!(events, 22 - (range.2 - range.1 + 1));
        let pages = ledger.pages(0, |_| false).unwrap();
        assert_eq!((pages.pages.len(), pages.damaged[0].0), (3, position));
        let of_garage = ledger.pages_of(&[site(range.0)], 0, |_| false).unwrap();
        assert_eq!(of_garage.damaged.len(), 1);
        // What comes later does not change what was reported.
        commit(&ledger, request("a", 31, vec![page(31, 1)]));
        assert_eq!(
            world.views_of(&ledger).missing_ranges().values().next(),
            view.missing_ranges().values().next()
        );
        crate::server::view::discard(&world.store).unwrap();
        assert_eq!(
            world.views_of(&ledger).missing_ranges().values().next(),
            view.missing_ranges().values().next()
        );
        let report = verify(&ledger, None).unwrap();
        let told = format!("events {} to {}", range.1, range.2);
        assert!(!report.clean && report.to_string().contains(&told), "{report}");
        assert_eq!(report.findings.len(), 1, "{report}");
    }
}

#[test]
fn damage_of_what_belongs_to_no_garage_is_told_by_its_position() {
    let world = World::new();
    fill(&world.open());
    world.flip(3);
    world.flip(5);
    let ledger = world.open();
    let view = world.views_of(&ledger);
    assert_eq!((missing_ranges(&view), view.damages.size()), (vec![], 2));
    assert_eq!(
        view.garages[&site("a")].capacity,
        0,
        "neither the edge's nor the operator's number is made up"
    );
    assert_eq!(verify(&ledger, None).unwrap().findings.len(), 2);
}

#[test]
fn a_page_that_comes_again_while_its_record_is_damaged_holds_nobody_up() {
    let world = World::new();
    fill(&world.open());
    world.flip(2);
    let ledger = world.open();
    let answer = commit(&ledger, request("a", 1, vec![page(1, 10), page(11, 5), page(16, 4), page(20, 1)]));
    assert_eq!((answer.verdict, answer.mark, answer.applied), (Verdict::Accepted, 20, 1));
    // Cut differently it cannot be compared: a person must look.
    let answer = commit(&ledger, request("a", 1, vec![page(11, 2)]));
    assert_eq!(answer.mark, 20);
}

/// sled's log was damaged, and what it recovers is a shorter ledger that agrees with itself: once 3,200 of 4,000 events, and
/// verify called it clean.
#[test]
fn a_ledger_that_lost_its_end_says_so_and_no_position_means_two_things() {
    let world = World::new();
    let short = {
        let ledger = world.open();
        commit(&ledger, request("a", 1, vec![page(1, 10)]));
        let short = World { store: Store::on(Disk::default()), dir: tempfile::tempdir().unwrap() };
        for entry in world.store.range(b"", b"\xff") {
            let (key, value) = entry.unwrap();
            short.store.put(&key, &value).unwrap();
        }
        fill(&world.open());
        std::fs::copy(world.witness(), short.witness()).unwrap();
        short
    };
    assert_eq!(LedgerHighWater::read(&short.witness()).unwrap().position, 6);
    for _ in 0..2 {
        let ledger = short.open();
        assert_eq!((ledger.position(), ledger.streams()[&site("a")][0].mark.sequence), (7, 10));
        let view = short.views_of(&ledger);
        let damage = &view.damages[&6];
        assert_eq!((view.position, damage.from, damage.last, damage.found_at_ms), (7, 2, 6, Some(9)));
        let report = verify(&ledger, None).unwrap();
        assert!(report.clean && report.counts.truncated == 5, "what is recorded is known: {report}");
        assert_eq!(ledger.pages(0, |_| false).unwrap().pages.len(), 1);
    }
    let ledger = short.open();
    // One edge has everything still, the other only what is new.
    let answer = commit(&ledger, request("a", 1, vec![page(1, 10), page(11, 5), page(16, 4)]));
    assert_eq!((answer.mark, answer.duplicates, answer.missing), (19, 10, 0));
    let answer = commit(&ledger, request("b", 4, vec![page(4, 1)]));
    assert_eq!((answer.mark, answer.missing), (4, 3));
    assert_eq!(ledger.position(), 11);
    assert_eq!(missing_ranges(&short.views_of(&ledger)), [("b", 1, 3)]);
    // A backup has the same gap.
    let copied = Store::on(Disk::default());
    let mut copy = LedgerCopy::begin(&copied, ledger.id(), ledger.numbered_streams()).unwrap();
    ledger.raw_records(1, 11, usize::MAX).unwrap().into_iter().for_each(|record| copy.add(record).unwrap());
    let counts = copy.finish().unwrap();
    assert_eq!((counts.damaged, counts.truncated), (0, 5));
    let copied = Ledger::open(copied.clone()).unwrap();
    let all = |ledger: &Ledger| ledger.records(1).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(all(&copied), all(&ledger));
}

/// Salvages a store of which these keys are lost.
fn salvaged(world: &World, is_lost: fn(&[u8]) -> bool) -> (World, Ledger) {
    let found = Salvaged::of_readable(&world.store, Boot::Same, |key| !is_lost(key)).unwrap();
    let salvaged = World::new();
    std::fs::copy(world.witness(), salvaged.witness()).unwrap();
    salvage::rebuild(&world.witness(), &found, &salvaged.store).unwrap();
    let ledger = salvaged.open();
    (salvaged, ledger)
}

/// The end of a log was cut off, and with it the list of the garages: what the edges delivered again was applied again, under
/// their names.
#[test]
fn a_garage_whose_name_is_lost_from_list_and_mark_is_named_by_its_records() {
    let world = World::new();
    commit(&world.open(), request("a", 1, vec![page(1, 10), page(11, 5)]));
    let (salvaged, ledger) = salvaged(&world, |key| key.starts_with(b"s") || key.starts_with(b"m"));
    assert_eq!(ledger.position(), 2);
    let answer = commit(&ledger, request("a", 1, vec![page(1, 10), page(11, 5), page(16, 5)]));
    assert_eq!((answer.mark, answer.duplicates, answer.applied), (20, 15, 5));
    let again = salvaged.open();
    assert_eq!(again.streams().into_keys().collect::<Vec<_>>(), [site("a")]);
    let report = verify(&again, None).unwrap();
    assert!(report.clean, "{report}");
}

/// The list of streams was lost with a mark and a position of each garage.
#[test]
fn a_salvaged_ledger_knows_its_streams_by_a_mark_or_the_index() {
    let world = World::new();
    commit(&world.open(), request("a", 1, vec![page(1, 10)]));
    commit(&world.open(), request("b", 1, vec![page(1, 3)]));
    commit(&world.open(), request("a", 1, vec![page(11, 5)]));
    commit(&world.open(), request("c", 1, vec![page(1, 2), page(3, 2)]));
    let is_lost = |key: &[u8]| key.starts_with(b"s") || key == mark_key(1) || key == record_key(5);
    let (salvaged, ledger) = salvaged(&world, is_lost);
    let marks = ledger.streams().into_iter().map(|(site, its)| (site.to_string(), its[0].mark.sequence));
    assert_eq!(marks.collect::<Vec<_>>(), [("a".into(), 15), ("b".into(), 3), ("c".into(), 4)]);
    let view = salvaged.views_of(&ledger);
    assert_eq!(missing_ranges(&view), [("c", 3, 4)], "its mark says how far it had come");
}

/// The list of streams and the index, which lie side by side, were lost together: the marks seemed to be those of other garages.
#[test]
fn a_mark_without_list_and_index_belongs_to_the_stream_of_its_page() {
    let world = World::new();
    commit(&world.open(), request("a", 1, vec![page(1, 10)]));
    commit(&world.open(), request("b", 1, vec![page(1, 3)]));
    let (salvaged, ledger) = salvaged(&world, |key| key.starts_with(b"s") || key.starts_with(b"x"));
    let marks = ledger.streams().into_iter().map(|(site, its)| (site.to_string(), its[0].mark.sequence));
    assert_eq!(marks.collect::<Vec<_>>(), [("a".into(), 10), ("b".into(), 3)]);
    assert_eq!(missing_ranges(&salvaged.views_of(&ledger)), []);
}

/// All that was left of a garage was its mark: the rebuilt list of streams lacked it, and the ledger did not open.
#[test]
fn a_garage_of_which_only_the_mark_is_left_has_a_missing_range() {
    let world = World::new();
    commit(&world.open(), request("a", 1, vec![page(1, 10)]));
    commit(&world.open(), request("b", 1, vec![page(1, 3)]));
    let (salvaged, ledger) = salvaged(&world, |key| key == record_key(2));
    assert_eq!(missing_ranges(&salvaged.views_of(&ledger)), [("b", 1, 3)]);
}

/// The page behind a missing range was lost with the end of the log: the mark stayed before the range, and the next page reported
/// the same sequences as missing again.
#[test]
fn a_missing_range_whose_page_is_lost_is_reported_once() {
    let world = World::new();
    let ledger = world.open();
    commit(&ledger, request("a", 1, vec![page(1, 10)]));
    commit(&ledger, request("a", 16, vec![page(16, 4)]));
    assert_eq!(missing_ranges(&world.views_of(&ledger)), [("a", 11, 15)]);
    let copied = World::new();
    let mut copy = LedgerCopy::begin(&copied.store, ledger.id(), ledger.numbered_streams()).unwrap();
    ledger.raw_records(1, 2, usize::MAX).unwrap().into_iter().for_each(|record| copy.add(record).unwrap());
    copy.add(Vec::new()).unwrap();
    copy.finish().unwrap();
    for _ in 0..2 {
        let ledger = copied.open();
        assert_eq!(ledger.streams()[&site("a")][0].mark.sequence, 15);
    }
    let ledger = copied.open();
    let answer = commit(&ledger, request("a", 20, vec![page(20, 1)]));
    assert_eq!((answer.mark, answer.missing), (20, 4));
    assert_eq!(missing_ranges(&copied.views_of(&ledger)), [("a", 11, 15), ("a", 16, 19)]);
}

/// A stream of which no record could be read was left out of the list of streams, and the copy was certified, and refused when
/// a server was started on it.
#[test]
fn a_copy_of_a_damaged_ledger_opens_whatever_is_damaged() {
    for damaged in 0..1u32 << 6 {
        let world = World::new();
        let original = world.open();
        fill(&original);
        let is_damaged = |position: u64| damaged >> (position - 1) & 1 == 1;
        let mut records = original.raw_records(1, 6, usize::MAX).unwrap();
        for (position, record) in (1..).zip(&mut records) {
            match is_damaged(position) {
                true if position % 2 == 0 => record.clear(), // the store cannot even read it
                true => record[5] ^= 1,
                false => {}
            }
        }
        let copied = World::new();
        let streams = original.numbered_streams();
        let mut copy = LedgerCopy::begin(&copied.store, original.id(), streams).unwrap();
        records.into_iter().for_each(|record| copy.add(record).unwrap());
        assert_eq!(copy.finish().unwrap().damaged, u64::from(damaged.count_ones()));
        let ledger = copied.open();
        assert_eq!((ledger.id(), ledger.position()), (original.id(), 6), "damaged: {damaged:06b}");
        let read = ledger.records(1).map(Result::unwrap);
        let sound = read.filter(|(_, found)| matches!(found, RecordOrDamage::Record(_))).map(|(at, _)| at);
        assert!(sound.eq((1..=6).filter(|position| !is_damaged(*position))), "damaged: {damaged:06b}");
        // Its garages go on, under their own streams.
        let answer = commit(&ledger, request("b", 4, vec![page(4, 1)]));
        assert_eq!((answer.verdict, answer.mark), (Verdict::Accepted, 4));
        copied.views_of(&ledger);
    }
}

#[test]
fn a_mark_is_what_the_records_say() {
    fn mark(sequence: u64) -> Vec<u8> {
        let stream = StreamId { site: SiteName::new("a").unwrap(), epoch: Epoch::from_bytes([1; 16]) };
        keys::mark_value(Mark { sequence, digest: None }, &stream)
    }
    type Damage = fn(&Store);
    let damages: [(Damage, u64); 4] = [
        (|store| store.put(&mark_key(0), &mark(99)).unwrap(), 19),
        (|store| store.put(&mark_key(0), &mark(4)).unwrap(), 19),
        (|store| store.remove(&mark_key(0)).unwrap(), 19),
        // The last record is gone: the index knows it still.
        (|store| store.remove(&record_key(6)).unwrap(), 15),
    ];
    for (damage, mark) in damages {
        let world = World::new();
        fill(&world.open());
        damage(&world.store);
        let ledger = world.open();
        assert_eq!(ledger.streams()[&site("a")][0].mark.sequence, mark);
        let again: Vec<SealedPage> = vec![page(11, 5), page(16, 4)];
        let answer = commit(&ledger, request("a", 1, again));
        assert_eq!((answer.verdict, answer.mark, answer.applied), (Verdict::Accepted, 19, 19 - mark));
        world.views_of(&ledger);
        assert!(verify(&ledger, None).unwrap().clean, "after {mark}");
    }
}

/// A copy of an edge's directory delivered [1..5], the original [1..10], of which the rest was applied. The server was started
/// again, took the rest for the whole page, and refused what the original sent next: it names the whole one.
#[test]
fn a_restart_between_the_rest_of_a_page_and_the_next_one_makes_no_conflict() {
    let world = World::new();
    let whole = page(1, 10);
    let mut next = page(11, 3).open().unwrap();
    next.previous = Some(whole.digest);
    let next = SealedPage::seal(&next);
    let ledger = world.open();
    commit(&ledger, request("a", 1, vec![page(1, 5)]));
    let answer = commit(&ledger, request("a", 1, vec![whole]));
    assert_eq!((answer.verdict, answer.duplicates, answer.applied), (Verdict::Accepted, 5, 5));
    let before = ledger.streams();
    let ledger = world.open();
    assert_eq!(ledger.streams(), before, "a sound mark is left as it is");
    let answer = commit(&ledger, request("a", 11, vec![next]));
    assert_eq!((answer.verdict, answer.mark), (Verdict::Accepted, 13));
    world.views_of(&ledger);
    assert!(verify(&ledger, None).unwrap().clean);
}

#[test]
fn a_list_of_streams_that_lacks_one_is_refused() {
    for number in [0, 1] {
        let world = World::new();
        fill(&world.open());
        world.store.remove(&keys::stream_key(number)).unwrap();
        let opened = Ledger::open_beside(world.store.clone(), &world.witness(), OnLoss::Record, 9);
        let error = opened.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("the list of streams") && error.contains("Nothing was deleted"), "{error}");
    }
}

#[test]
fn the_note_of_another_ledger_says_nothing() {
    let (old, new) = (World::new(), World::new());
    fill(&old.open());
    let id = new.open().id();
    std::fs::copy(old.witness(), new.witness()).unwrap();
    let ledger = new.open();
    assert_eq!((ledger.id(), ledger.position()), (id, 0));
    commit(&ledger, request("a", 1, vec![marked_page(1, 1, 7)]));
    assert_eq!(LedgerHighWater::read(&new.witness()), Some(LedgerHighWater { ledger: id, position: 1 }));
}

/// Nothing at all is left of the store. Its edges know no other ledger, so it is still that one, with a loss.
#[test]
fn a_store_that_lost_everything_is_still_the_ledger_of_its_note() {
    let (old, new) = (World::new(), World::new());
    let lost = old.open();
    fill(&lost);
    std::fs::copy(old.witness(), new.witness()).unwrap();
    let ledger = new.open();
    assert_eq!((ledger.id(), ledger.position()), (lost.id(), 7));
    let damage = &new.views_of(&ledger).damages[&6];
    assert_eq!((damage.from, damage.last), (1, 6));
}
