use super::pages::Pages;
use super::*;
use crate::messaging::page::{Content, SealedPage};
use crate::store::simulated::Disk;
use bytes::Bytes;
use std::collections::BTreeSet;

pub(super) fn record(n: u64, length: usize) -> Message {
    let mut payload = n.to_be_bytes().to_vec();
    payload.resize(length.max(8), 0xEE);
    Message::of(payload)
}

pub(super) fn records(count: u64) -> Vec<Message> {
    (0..count).map(|n| record(n, 20)).collect()
}

pub(super) const NOW: ClockReading = ClockReading { wall_ms: 0, monotonic_ms: 0, boot: [1; 16], set: true };

pub(super) fn beside(file: &std::path::Path) -> Options {
    Options { high_water_file: Some(file.to_owned()), ..Options::default() }
}

pub(super) fn open(store: Store) -> Result<Pages, OutboxOpenError> {
    Pages::open(store, &Options::default(), NOW)
}

pub(super) fn post(records: Vec<Message>) -> Post {
    Post { records, at: NOW }
}

pub(super) fn pages() -> (Disk, Pages) {
    let disk = Disk::default();
    let pages = open(Store::on(disk.clone())).unwrap();
    (disk, pages)
}

pub(super) fn open_outbox(disk: &Disk) -> Outbox {
    Outbox::open(Store::on(disk.clone()), Options::default(), NOW).unwrap()
}

pub(super) fn payloads(pages: &[SealedPage]) -> Vec<Bytes> {
    let contents = pages.iter().map(|page| page.open().unwrap().content);
    contents
        .flat_map(|content| match content {
            Content::Records(records) => records,
            Content::Lost { .. } => panic!("nothing was lost"),
        })
        .map(|record| record.payload)
        .collect()
}

#[test]
fn sequences_begin_at_one_and_have_no_gaps() {
    let (_, pages) = pages();
    let places = pages.commit(&[post(records(3)), post(records(100)), post(records(1))]);
    let places: Vec<_> = places.unwrap().iter().map(|place| (place.first.get(), place.last.get())).collect();
    assert_eq!(places, [(1, 3), (4, 103), (104, 104)]);
}

/// An inspection of an edge that was deleting what a server had acknowledged reported gaps between pages.
#[test]
fn what_is_just_being_deleted_is_no_fault_and_what_waits_is_missed() {
    for (acknowledged, faults) in [(128, 0), (127, 1)] {
        let (disk, pages) = pages();
        (0..3).for_each(|_| drop(pages.commit(&[post(records(64))]).unwrap()));
        pages.take(0, 1, usize::MAX).unwrap();
        pages.acknowledge(0, acknowledged);
        assert_eq!(pages.inspect().unwrap().faults, [""; 0]);
        Store::on(disk).remove(&layout::page_key(0, 65)).unwrap();
        assert_eq!(pages.inspect().unwrap().faults.len(), faults, "acknowledged through {acknowledged}");
    }
}

#[test]
fn a_page_that_was_given_out_never_changes_again() {
    let (_, pages) = pages();
    pages.commit(&[post(records(3))]).unwrap();
    let sent = pages.take(0, 1, usize::MAX).unwrap();
    pages.commit(&[post(records(2))]).unwrap();
    let again = pages.take(0, 1, usize::MAX).unwrap();
    assert_eq!(again.pages[0], sent.pages[0]);
    assert_eq!((sent.last, again.last), (Some(3), Some(5)));
    assert_eq!(again.pages.len(), 2);
}

#[test]
fn each_page_names_the_one_before_it_also_after_a_restart() {
    let (disk, pages) = pages();
    pages.commit(&[post(records(100))]).unwrap();
    pages.commit(&[post(records(100))]).unwrap();
    let pages = open(Store::on(disk)).unwrap();
    pages.commit(&[post(records(100))]).unwrap();
    let taken = pages.take(0, 1, usize::MAX).unwrap().pages;
    assert!(taken.len() > 4);
    let mut previous = None;
    for page in taken {
        assert_eq!(page.open().unwrap().previous, previous);
        previous = Some(page.digest);
    }
}

#[test]
fn what_a_receiver_lost_waits_again_as_far_as_it_is_here() {
    let (_, pages) = pages();
    pages.commit(&[post(records(200))]).unwrap();
    pages.acknowledge(0, 200);
    pages.sweep().unwrap();
    pages.unacknowledge(0, 10).unwrap();
    assert_eq!(pages.status().unwrap().depth, 8, "the newest page, 193 to 200");
    pages.commit(&[post(records(100))]).unwrap();
    pages.sweep().unwrap();
    let taken = pages.take(0, 11, usize::MAX).unwrap();
    assert_eq!((taken.oldest, taken.last), (193, Some(300)));
}

/// A server was put back from a backup, and could not take again at once what it had lost. The hint of the last acknowledgement
/// still said that it had all of it: an edge that was killed meanwhile deleted it unsent, by its first sweep or by a move that
/// it went on with. The power goes between any two writes.
#[test]
fn what_a_receiver_lost_waits_after_a_restart_too() {
    for (moves, steps, survivors) in [false, true]
        .into_iter()
        .flat_map(|moves| (0..16).flat_map(move |n| [0, 1, 99].map(|s| (moves, n, s))))
    {
        let case = format!("moves: {moves}, cut after {steps}, {survivors} survive");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("witness");
        let disk = Disk::default();
        let open = || {
            let pages = Pages::open(Store::on(disk.clone()), &beside(&file), NOW).unwrap();
            pages.sweep().unwrap();
            pages
        };
        let pages = open();
        for n in 1..=8 {
            pages.commit(&[post(vec![record(n, 20)])]).unwrap();
            pages.take(0, n, usize::MAX).unwrap();
            pages.acknowledge(0, n);
            pages.sweep().unwrap();
        }
        assert_eq!(pages.position().oldest, 8);
        disk.cut_power_after(steps);
        let taken_back = pages.unacknowledge(0, 4).is_ok();
        let confirmed = pages.commit(&[post(vec![record(9, 20)])]).is_ok();
        let _ = pages.sweep();
        if moves {
            let _ = pages.move_oldest(8);
        }
        disk.power_on(if disk.is_off() { survivors } else { 99 });

        let pages = open();
        if !taken_back {
            let epoch_index = pages.position().epoch_index;
            pages.unacknowledge(epoch_index, 4).unwrap(); // the receiver says it again
        }
        pages.commit(&[post(vec![record(10, 20)])]).unwrap();
        pages.sweep().unwrap();
        drop(pages);
        let waiting = open().peek(None, 100).unwrap().0;
        let mut waiting: Vec<_> = waiting.into_iter().map(|waiting| waiting.record.payload).collect();
        if !confirmed {
            waiting.retain(|payload| *payload != record(9, 20).payload); // it may be there
        }
        let owed = [8, 9, 10].into_iter().filter(|n| *n != 9 || confirmed);
        assert_eq!(waiting, owed.map(|n| record(n, 20).payload).collect::<Vec<_>>(), "{case}");
    }
}

/// After 32,767 epochs each new one once failed as "damaged", and with it the edge.
#[test]
fn numbers_of_delivered_epochs_are_given_again_when_all_were_given() {
    let (disk, pages) = pages();
    let mut numbers = BTreeSet::from([pages.position().epoch_index]);
    for _ in 0..keys::EPOCH_INDEX_MAX {
        pages.begin_epoch().unwrap();
        pages.sweep().unwrap(); // the one before it holds nothing
        numbers.insert(pages.position().epoch_index);
    }
    assert_eq!(numbers.len(), 1 + keys::EPOCH_INDEX_MAX as usize, "each was given once");
    // What was acknowledged of the first epoch under this number is not so of the next.
    Store::on(disk.clone()).put(layout::ACKNOWLEDGED, &layout::encode_acknowledged(0, 99)).unwrap();
    pages.begin_epoch().unwrap();
    let epoch = pages.epoch();
    pages.commit(&[post(records(3))]).unwrap();
    pages.sweep().unwrap();
    assert_eq!(pages.position().epoch_index, 0);
    let pages = open(Store::on(disk)).unwrap();
    assert_eq!((pages.epoch(), pages.status().unwrap().depth), (epoch, 3));
    pages.begin_epoch().unwrap();
    assert_eq!(pages.positions().iter().map(|position| position.epoch_index).collect::<Vec<_>>(), [0, 1]);
}

/// Sled keeps what was not flushed in memory: a move of a large backlog once was one unflushed whole.
#[test]
fn a_move_is_on_the_disk_step_by_step() {
    let (disk, pages) = pages();
    (0..30).for_each(|_| drop(pages.commit(&[post(records(64 * 64))]).unwrap()));
    let pages_before = pages.take(0, 1, usize::MAX).unwrap().pages.len();
    assert!(pages_before > 1600, "{pages_before} pages are more than one step takes");
    pages.sweep().unwrap();
    disk.cut_power_after(6);
    pages.move_oldest(1).unwrap_err();
    assert!(disk.in_doubt() <= 1, "{} steps are in doubt", disk.in_doubt());
    disk.power_on(0);
    let pages = open(Store::on(disk)).unwrap();
    assert_eq!(pages.status().unwrap().depth, 30 * 64 * 64, "the move went on and lost nothing");
    assert_eq!(pages.positions().len(), 1);
}

#[tokio::test]
async fn a_move_that_has_no_room_is_not_begun_and_goes_on_when_there_is() {
    let room: Arc<std::sync::Mutex<Result<(), String>>> = Arc::new(std::sync::Mutex::new(Ok(())));
    let asked = Arc::clone(&room);
    let options =
        Options { room: Some(Arc::new(move |_, _| asked.lock().unwrap().clone())), ..Options::default() };
    let outbox = Outbox::open(Store::on(Disk::default()), options, NOW).unwrap();
    outbox.append(records(3), NOW).await.unwrap();
    let (epoch_index, epoch) = (outbox.position().epoch_index, outbox.epoch());
    *room.lock().unwrap() = Err("the disk is short".to_owned());
    let refused = outbox.move_oldest(epoch_index, 1).await.unwrap_err();
    assert!(refused.to_string().contains("the disk is short"), "{refused}");
    assert_eq!((outbox.epoch(), outbox.status().unwrap().depth), (epoch, 3));
    *room.lock().unwrap() = Ok(());
    let (moved_to, events) = outbox.move_oldest(epoch_index, 1).await.unwrap().unwrap();
    assert_eq!((moved_to, events), (outbox.epoch(), 3));
    assert_ne!(moved_to, epoch);
}

#[test]
fn a_page_that_was_not_given_out_grows() {
    let (_, pages) = pages();
    for _ in 0..64 {
        pages.commit(&[post(records(1))]).unwrap();
    }
    pages.commit(&[post(records(1))]).unwrap();
    assert_eq!(pages.take(0, 1, usize::MAX).unwrap().pages.len(), 2);
}

#[test]
fn every_page_found_at_open_is_sealed() {
    let (disk, pages) = pages();
    pages.commit(&[post(records(3))]).unwrap();
    let pages = open(Store::on(disk)).unwrap();
    pages.commit(&[post(records(2))]).unwrap();
    assert_eq!(pages.take(0, 1, usize::MAX).unwrap().pages.len(), 2);
}

#[test]
fn the_newest_page_stays_and_remembers_the_next_sequence() {
    let (disk, pages) = pages();
    pages.commit(&[post(records(200))]).unwrap();
    pages.acknowledge(0, 200);
    pages.sweep().unwrap();
    assert_eq!(pages.status().unwrap().depth, 0);
    let stored = pages.take(0, 1, usize::MAX).unwrap();
    assert_eq!((stored.pages.len(), stored.last), (1, Some(200)));

    disk.power_on(disk.in_doubt()); // what was written since the flush has survived
    let pages = open(Store::on(disk.clone())).unwrap();
    assert_eq!(pages.status().unwrap().depth, 0, "it does not look as if it waited");
    let place = pages.commit(&[post(records(1))]).unwrap()[0];
    assert_eq!(place.first.get(), 201);
    pages.acknowledge(0, 201);
    pages.sweep().unwrap();
    assert_eq!(pages.take(0, 1, usize::MAX).unwrap().last, Some(201));
    assert_eq!(pages.position().oldest, 201);
}

#[test]
fn long_messages_are_cut_into_pages_that_the_store_takes() {
    let (_, pages) = pages();
    let long: Vec<_> = (0..20).map(|n| record(n, page::PAYLOAD_MAX)).collect();
    pages.commit(&[post(long)]).unwrap();
    let taken = pages.take(0, 1, usize::MAX).unwrap();
    assert_eq!(taken.pages.len(), 20);
    assert_eq!(payloads(&taken.pages).len(), 20);
    let some = pages.take(0, 3, 9_000).unwrap();
    assert_eq!((some.pages.len(), some.last), (2, Some(4)));
}

#[test]
fn bytes_count_what_is_stored() {
    let (_, pages) = pages();
    for _ in 0..10 {
        pages.commit(&[post(records(30))]).unwrap();
    }
    let stored: u64 =
        pages.take(0, 1, usize::MAX).unwrap().pages.iter().map(|page| page.to_stored().len() as u64).sum();
    assert_eq!(pages.status().unwrap().bytes, stored);
    pages.acknowledge(0, 300);
    pages.sweep().unwrap();
    let left = pages.take(0, 1, usize::MAX).unwrap().pages[0].to_stored().len();
    assert_eq!(pages.status().unwrap().bytes, left as u64);
}

/// Changes a byte of the stored page that begins with `first`.
#[test]
fn an_epoch_is_delivered_before_the_next_and_then_forgotten() {
    let (disk, pages) = pages();
    pages.commit(&[post(records(100))]).unwrap();
    let old = pages.epoch();
    let new = pages.begin_epoch().unwrap();
    pages.commit(&[post(records(10))]).unwrap();
    let pages = open(Store::on(disk.clone())).unwrap();
    assert_eq!((pages.epoch(), pages.position().epoch), (new, old));
    assert_eq!(pages.status().unwrap().depth, 110);
    assert_eq!(pages.peek(None, 1000).unwrap().0.len(), 110);
    let (last, next) = pages.peek(Some((0, 99)), 5).unwrap();
    assert_eq!((last[0].epoch, last[0].sequence), (old, 100));
    assert_eq!((last[1].epoch, last[1].sequence), (new, 1));
    assert_eq!(next, Some((1, 4)), "there are more");
    pages.acknowledge(0, 100);
    pages.sweep().unwrap();
    disk.power_on(disk.in_doubt());
    let pages = open(Store::on(disk)).unwrap();
    assert_eq!((pages.positions().len(), pages.position().epoch), (1, new));
    assert_eq!(payloads(&pages.take(1, 1, usize::MAX).unwrap().pages).len(), 10);
}

#[test]
fn a_directory_from_another_machine_begins_a_new_epoch() {
    let disk = Disk::default();
    let open = |machine| {
        let options = Options { machine, ..Options::default() };
        Pages::open(Store::on(disk.clone()), &options, NOW).unwrap()
    };
    let first = open(Some([1; 16]));
    first.commit(&[post(records(3))]).unwrap();
    assert_eq!(open(Some([1; 16])).epoch(), first.epoch());
    assert_eq!(open(None).epoch(), first.epoch(), "not to know is no reason");
    let second = open(Some([2; 16]));
    assert_ne!(second.epoch(), first.epoch());
    assert_eq!(second.position().epoch, first.epoch(), "what waits keeps its epoch");
    assert_eq!(open(Some([2; 16])).epoch(), second.epoch());
}

/// The power goes between any two writes of a move: each message is in exactly one epoch, in order, and remembers where it
/// was first.
#[test]
fn a_move_survives_a_power_cut_at_any_step() {
    for steps in 0..12 {
        for survivors in [0, 1, 99] {
            let (disk, pages) = pages();
            for hundreds in 0..10 {
                let some = (0..200).map(|n| record(hundreds * 200 + n, 3000)).collect();
                pages.commit(&[post(some)]).unwrap();
            }
            pages.acknowledge(0, 10);
            let old = pages.epoch();
            disk.cut_power_after(steps);
            let moved = pages.move_oldest(1);
            let off = disk.is_off();
            disk.power_on(if off { survivors } else { 99 });
            let pages = open(Store::on(disk.clone())).unwrap();
            if let Ok((epoch, _)) = moved {
                assert_eq!(pages.position().epoch, epoch);
            }
            let position = pages.position();
            let taken = pages.take(position.epoch_index, 1, usize::MAX).unwrap().pages;
            // Of what was acknowledged some may be deleted; nothing of it moves.
            let skipped = match position.epoch == old {
                true => position.oldest - 1,
                false => 2000 - position.durable,
            };
            assert!(skipped == 10 || (position.epoch == old && skipped < 10), "cut after {steps}: {skipped}");
            let expected: Vec<_> = (skipped..2000).map(|n| record(n, 3000).payload).collect();
            assert_eq!(payloads(&taken), expected, "cut after {steps}");
            let mut previous = taken[0].open().unwrap().previous.filter(|_| position.epoch == old);
            for sealed in &taken {
                let page = sealed.open().unwrap();
                assert_eq!(page.previous, previous);
                previous = Some(sealed.digest);
                if position.epoch != old {
                    let (epoch, first) = page.moved_from.unwrap();
                    assert_eq!((epoch, first.get()), (old, page.first.get() + skipped));
                }
            }
        }
    }
}

fn keyed(n: u64, key: &str, count: u64) -> Vec<Message> {
    let mut records: Vec<_> = (0..count).map(|more| record(n + more, 20)).collect();
    let count = u32::try_from(count).unwrap();
    let text = Bytes::copy_from_slice(key.as_bytes());
    records[0].key =
        Some(page::IdempotencyKey { text, body: crate::messaging::Digest::of(&n.to_be_bytes()), count });
    records
}

#[tokio::test]
async fn a_key_gives_the_first_answer_whatever_happened_since() {
    let disk = Disk::default();
    let open = || open_outbox(&disk);
    let outbox = open();
    let first = outbox.append(keyed(1, "a", 1), NOW).await.unwrap();
    let batch = outbox.append(keyed(2, "batch", 150), NOW).await.unwrap();
    assert!(!first.repeated);
    assert_eq!((batch.first.get(), batch.last.get()), (2, 151));
    let again = Appended { repeated: true, ..first };
    let batch_again = Appended { repeated: true, ..batch };
    let same = async |outbox: &Outbox| {
        assert_eq!(outbox.append(keyed(1, "a", 1), NOW).await.unwrap(), again);
        assert_eq!(outbox.append(keyed(2, "batch", 150), NOW).await.unwrap(), batch_again);
        let other = outbox.append(keyed(7, "a", 1), NOW).await;
        assert!(matches!(other, Err(AppendError::KeyReused)));
    };
    same(&outbox).await;
    drop(outbox);
    let outbox = open();
    same(&outbox).await;
    // Moved to another epoch: the producer is answered with its first place.
    let (epoch, _) = outbox.move_oldest(0, 1).await.unwrap().unwrap();
    assert_ne!(epoch, first.epoch);
    same(&outbox).await;
    drop(outbox);
    let outbox = open();
    same(&outbox).await;
    // Acknowledged and deleted.
    outbox.append(records(100), NOW).await.unwrap();
    outbox.acknowledge(outbox.position().epoch_index, outbox.position().durable);
    let more = outbox.append(records(1), NOW).await.unwrap();
    assert_eq!(more.first.get(), 252);
    same(&outbox).await;
    assert!(outbox.position().oldest > 151);
    drop(outbox);
    disk.power_on(disk.in_doubt());
    same(&open()).await;
    assert_eq!(open().status().unwrap().next_sequence, 253, "nothing was stored twice");
}

#[tokio::test]
async fn posts_of_one_key_that_come_at_the_same_time_are_stored_once() {
    let outbox = open_outbox(&Disk::default());
    let appends: Vec<_> = (0..300)
        .map(|n| {
            let outbox = outbox.clone();
            let key = format!("key-{}", n % 10);
            tokio::spawn(async move { outbox.append(keyed(n % 10, &key, 3), NOW).await.unwrap() })
        })
        .collect();
    let mut stored = 0;
    for append in appends {
        stored += u32::from(!append.await.unwrap().repeated);
    }
    assert_eq!(stored, 10);
    assert_eq!(outbox.status().unwrap().next_sequence, 31);
}

#[tokio::test]
async fn a_full_outbox_refuses_what_is_new_and_knows_what_it_has() {
    let limits = Limits { messages: 10, bytes: u64::MAX };
    let room = Arc::new(std::sync::Mutex::new(Ok(())));
    let asked = Arc::clone(&room);
    let room_now: Room = Arc::new(move |_, _| asked.lock().unwrap().clone());
    let options = Options { limits, room: Some(room_now), ..Options::default() };
    let outbox = Outbox::open(Store::on(Disk::default()), options, NOW).unwrap();
    outbox.append(keyed(1, "a", 9), NOW).await.unwrap();
    assert!(matches!(outbox.append(records(2), NOW).await, Err(AppendError::Full(_))));
    assert_eq!(outbox.shortage(), None, "one more fits");
    outbox.append(records(1), NOW).await.unwrap();
    assert!(outbox.shortage().is_some());
    assert!(outbox.append(keyed(1, "a", 9), NOW).await.unwrap().repeated);
    outbox.acknowledge(0, 10);
    outbox.append(records(2), NOW).await.unwrap();
    *room.lock().unwrap() = Err("the disk is short".to_owned());
    let refused = outbox.append(records(1), NOW).await.unwrap_err();
    assert!(refused.to_string().contains("the disk is short"));
    *room.lock().unwrap() = Ok(());
    outbox.append(records(1), NOW).await.unwrap();
}

/// The times of a page follow from when it was begun: one page must not span a clock that is set.
#[test]
fn when_the_wall_clock_is_set_a_new_page_begins() {
    let (_, pages) = pages();
    let at = |wall_ms, monotonic_ms| ClockReading { wall_ms, monotonic_ms, ..NOW };
    let ten_years = 315_360_000_000;
    for (n, at) in [at(0, 0), at(500, 480), at(ten_years, 900), at(1000, 1000)].into_iter().enumerate() {
        pages.commit(&[Post { records: vec![record(n as u64, 20)], at }]).unwrap();
    }
    let taken = pages.take(0, 1, usize::MAX).unwrap().pages;
    let begun: Vec<_> = taken.iter().map(|page| page.open().unwrap().begun.wall_ms).collect();
    assert_eq!(begun, [0, ten_years, 1000]);
}

#[tokio::test]
async fn what_is_no_append_is_refused() {
    let outbox = open_outbox(&Disk::default());
    let refused = |records| outbox.append(records, NOW);
    assert!(matches!(refused(vec![]).await, Err(AppendError::Count(0))));
    assert!(matches!(refused(records(APPEND_MAX as u64 + 1)).await, Err(AppendError::Count(_))));
    let long = record(0, page::PAYLOAD_MAX + 1);
    assert!(matches!(refused(vec![record(0, 9), long]).await, Err(AppendError::TooLong { index: 1, .. })));
    let large = vec![record(0, page::PAYLOAD_MAX); 600];
    assert!(matches!(refused(large).await, Err(AppendError::TooLarge { .. })));
    assert_eq!(outbox.status().unwrap().next_sequence, 1);
}
