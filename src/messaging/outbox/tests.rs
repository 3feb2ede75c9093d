use super::pages::Pages;
use super::*;
use crate::messaging::page::{Content, SealedPage};
use crate::store::simulated::Disk;
use bytes::Bytes;
use proptest::prelude::*;

fn record(n: u64, length: usize) -> Record {
    let mut payload = n.to_be_bytes().to_vec();
    payload.resize(length.max(8), 0xEE);
    Record::of(payload)
}

fn records(count: u64) -> Vec<Record> {
    (0..count).map(|n| record(n, 20)).collect()
}

const NOW: ClockReading = ClockReading { wall_ms: 0, monotonic_ms: 0, boot: [1; 16], set: true };

fn beside(witness: &std::path::Path) -> Options {
    Options { witness: Some(witness.to_owned()), ..Options::default() }
}

fn open(store: Store) -> Result<Pages, OpenError> {
    Pages::open(store, &Options::default(), NOW)
}

fn post(records: Vec<Record>) -> Post {
    Post { records, at: NOW }
}

fn pages() -> (Disk, Pages) {
    let disk = Disk::default();
    let pages = open(Store::on(disk.clone())).unwrap();
    (disk, pages)
}

fn payloads(pages: &[SealedPage]) -> Vec<Bytes> {
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

/// Looking over an edge that was deleting what a server had acknowledged told of gaps between pages.
#[test]
fn what_is_just_being_deleted_is_no_fault_and_what_waits_is_missed() {
    for (acknowledged, faults) in [(128, 0), (127, 1)] {
        let (disk, pages) = pages();
        (0..3).for_each(|_| drop(pages.commit(&[post(records(64))]).unwrap()));
        pages.take(0, 1, usize::MAX).unwrap();
        pages.acknowledge(0, acknowledged);
        assert_eq!(pages.inspect().unwrap().faults, [""; 0]);
        Store::on(disk).remove(&life::page_key(0, 65)).unwrap();
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
        let witness = dir.path().join("witness");
        let disk = Disk::default();
        let open = || {
            let pages = Pages::open(Store::on(disk.clone()), &beside(&witness), NOW).unwrap();
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
            let life = pages.position().life;
            pages.unacknowledge(life, 4).unwrap(); // the receiver says it again
        }
        pages.commit(&[post(vec![record(10, 20)])]).unwrap();
        pages.sweep().unwrap();
        drop(pages);
        let waiting = open().peek(None, 100).unwrap();
        let mut waiting: Vec<_> = waiting.into_iter().map(|waiting| waiting.record.payload).collect();
        if !confirmed {
            waiting.retain(|payload| *payload != record(9, 20).payload); // it may be there
        }
        let owed = [8, 9, 10].into_iter().filter(|n| *n != 9 || confirmed);
        assert_eq!(waiting, owed.map(|n| record(n, 20).payload).collect::<Vec<_>>(), "{case}");
    }
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
fn damage(disk: &Disk, first: u64) -> Vec<u8> {
    let store = Store::on(disk.clone());
    let key = life::page_key(0, first);
    let mut value = store.get(&key).unwrap().unwrap();
    value[20] ^= 1;
    store.put(&key, &value).unwrap();
    store.flush().unwrap();
    value
}

fn lost(page: &SealedPage) -> Option<(u64, u64)> {
    let page = page.open().unwrap();
    matches!(page.content, Content::Lost { .. }).then(|| (page.first.get(), page.last()))
}

#[test]
fn a_damaged_page_is_told_as_lost_and_kept_and_the_rest_is_delivered() {
    let (disk, pages) = pages();
    pages.commit(&[post(records(200))]).unwrap();
    let before = pages.take(0, 1, usize::MAX).unwrap().pages;
    let found = damage(&disk, 65);
    assert!(matches!(pages.take(0, 1, usize::MAX), Err(StoreError::Damaged { .. })));
    for _ in 0..2 {
        let pages = open(Store::on(disk.clone())).unwrap();
        let after = pages.take(0, 1, usize::MAX).unwrap().pages;
        assert_eq!(after.len(), before.len());
        assert_eq!((&after[0], &after[2..]), (&before[0], &before[2..]));
        assert_eq!(lost(&after[1]), Some((65, 128)));
        let kept = Store::on(disk.clone()).get(&life::aside_key(&life::page_key(0, 65))).unwrap();
        assert_eq!(kept, Some(found.clone()));
        assert_eq!(pages.position().durable, 200);
        assert_eq!(pages.positions().len(), 1, "the end is certain: no new epoch");
    }
}

#[test]
fn pages_that_are_not_there_are_told_as_lost() {
    let (disk, pages) = pages();
    pages.commit(&[post(records(300))]).unwrap();
    let store = Store::on(disk.clone());
    store.remove(&life::page_key(0, 65)).unwrap();
    store.remove(&life::page_key(0, 129)).unwrap();
    store.flush().unwrap();
    let pages = open(store).unwrap();
    let taken = pages.take(0, 1, usize::MAX).unwrap().pages;
    assert_eq!(taken.iter().filter_map(lost).collect::<Vec<_>>(), [(65, 192)]);
    assert_eq!(pages.damages().len(), 1);
}

/// Where the newest page ended is not known, and a sequence that was given out must not be given again.
#[test]
fn when_the_newest_page_is_damaged_new_messages_get_a_new_epoch() {
    let (disk, pages) = pages();
    pages.commit(&[post(records(70))]).unwrap();
    let epoch = pages.epoch();
    damage(&disk, 65);
    let pages = open(Store::on(disk)).unwrap();
    let place = pages.commit(&[post(records(1))]).unwrap()[0];
    assert_ne!(place.epoch, epoch);
    assert_eq!(place.first.get(), 1);
    let taken = pages.take(0, 1, usize::MAX).unwrap();
    assert_eq!(taken.pages.iter().filter_map(lost).collect::<Vec<_>>(), [(65, 128)], "at most");
}

#[test]
fn a_tail_and_a_beginning_that_vanished_are_noticed_by_the_witness() {
    let dir = tempfile::tempdir().unwrap();
    let witness = dir.path().join("witness");
    let disk = Disk::default();
    let open = || Pages::open(Store::on(disk.clone()), &beside(&witness), NOW).unwrap();
    let pages = open();
    pages.commit(&[post(records(300))]).unwrap();
    pages.acknowledge(0, 64);
    pages.sweep().unwrap();
    let store = Store::on(disk.clone());
    for first in [65, 257] {
        store.remove(&life::page_key(0, first)).unwrap();
    }
    store.flush().unwrap();
    let pages = open();
    let taken = pages.take(0, 1, usize::MAX).unwrap().pages;
    assert_eq!(taken.iter().filter_map(lost).collect::<Vec<_>>(), [(65, 128), (257, 300)]);
    assert_eq!(pages.positions().len(), 2);
    assert_eq!(pages.status().unwrap().depth, 300 - 64);
}

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
    assert_eq!(pages.peek(None, 1000).unwrap().len(), 110);
    let last = pages.peek(Some((0, 99)), 5).unwrap();
    assert_eq!((last[0].epoch, last[0].sequence), (old, 100));
    assert_eq!((last[1].epoch, last[1].sequence), (new, 1));
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
            let taken = pages.take(position.life, 1, usize::MAX).unwrap().pages;
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

fn keyed(n: u64, key: &str, count: u64) -> Vec<Record> {
    let mut records: Vec<_> = (0..count).map(|more| record(n + more, 20)).collect();
    let count = u32::try_from(count).unwrap();
    let text = Bytes::copy_from_slice(key.as_bytes());
    records[0].key = Some(page::Key { text, body: crate::messaging::Digest::of(&n.to_be_bytes()), count });
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
    // Moved to another epoch: the producer is told where it was first.
    let (epoch, _) = outbox.move_oldest(0, 1).await.unwrap().unwrap();
    assert_ne!(epoch, first.epoch);
    same(&outbox).await;
    drop(outbox);
    let outbox = open();
    same(&outbox).await;
    // Acknowledged and deleted.
    outbox.append(records(100), NOW).await.unwrap();
    outbox.settle(outbox.position().life, outbox.position().durable);
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
    outbox.settle(0, 10);
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

fn open_outbox(disk: &Disk) -> Outbox {
    Outbox::open(Store::on(disk.clone()), Options::default(), NOW).unwrap()
}

#[tokio::test]
async fn appends_that_come_at_the_same_time_share_a_flush() {
    let disk = Disk::default();
    let outbox = open_outbox(&disk);
    let appends: Vec<_> = (0..500)
        .map(|n| {
            let outbox = outbox.clone();
            tokio::spawn(async move { outbox.append(vec![record(n, 20)], NOW).await.unwrap() })
        })
        .collect();
    let mut places = Vec::new();
    for append in appends {
        places.push(append.await.unwrap().first.get());
    }
    places.sort_unstable();
    assert_eq!(places, (1..=500).collect::<Vec<_>>());
}

/// Batches of long events that wait together once made a batch of 910 writes, which the store refuses: the edge took
/// that for a broken disk and ended.
#[tokio::test]
async fn large_appends_that_wait_together_stay_within_what_the_store_takes() {
    let outbox = open_outbox(&Disk::default());
    let append = |length: usize, count: u64| {
        let outbox = outbox.clone();
        let records = (0..count).map(|n| record(n, length)).collect();
        tokio::spawn(async move { outbox.append(records, NOW).await })
    };
    let appends: Vec<_> =
        (0..12).map(|n| if n % 2 == 0 { append(552, 1814) } else { append(3000, 650) }).collect();
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert_eq!(outbox.position().durable, 6 * (1814 + 650));
}

#[tokio::test]
async fn after_a_failed_flush_every_producer_is_told_and_nothing_more_is_accepted() {
    let disk = Disk::default();
    let outbox = open_outbox(&disk);
    outbox.append(records(1), NOW).await.unwrap();
    disk.cut_power_after(1); // the write goes through, its flush does not
    assert!(matches!(outbox.append(records(1), NOW).await, Err(AppendError::Failed)));
    assert!(outbox.progress().borrow().failed);
    disk.power_on(0);
    assert!(matches!(outbox.append(records(1), NOW).await, Err(AppendError::Failed)));
}

/// Those who are answered at once and come again, such as producers of a full outbox, once kept a group open as long as they
/// kept coming, and those who had been taken into it waited.
#[test]
fn a_group_ends_although_more_keeps_coming() {
    let (_, pages) = pages();
    let (progress, _) = watch::channel(pages.progress());
    let mut committer = Committer {
        pages: Arc::new(pages),
        limits: Limits::NONE,
        room: None,
        progress,
        failure: Arc::default(),
        carried: None,
    };
    let (queue, mut waiting) = mpsc::channel(3 * QUEUE);
    let (done, mut answer) = oneshot::channel();
    (0..3 * QUEUE).for_each(|_| queue.try_send(Command::Sweep).unwrap());
    committer.serve(Command::Append { post: post(records(1)), done }, &mut waiting).unwrap();
    assert_eq!(answer.try_recv().unwrap().unwrap().first.get(), 1);
    assert_eq!(waiting.len(), 2 * QUEUE + 1);
}

/// A disk on which reads wait while it is told to.
#[derive(Clone, Default)]
struct Slow {
    disk: Disk,
    /// Whether reads wait, and how many do.
    reads: Arc<(std::sync::Mutex<(bool, usize)>, std::sync::Condvar)>,
}

impl Slow {
    fn hang(&self, hangs: bool) {
        self.reads.0.lock().unwrap().0 = hangs;
        self.reads.1.notify_all();
    }
    fn read(&self) {
        let mut reads = self.reads.0.lock().unwrap();
        reads.1 += 1;
        self.reads.1.notify_all();
        reads = self.reads.1.wait_while(reads, |(hang, _)| *hang).unwrap();
        reads.1 -= 1;
    }
    fn until_a_read_waits(&self) {
        let reads = self.reads.0.lock().unwrap();
        drop(self.reads.1.wait_while(reads, |(_, waiting)| *waiting == 0).unwrap());
    }
}

impl crate::store::Backend for Slow {
    fn get(&self, key: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        self.read();
        self.disk.get(key)
    }
    fn put(&self, key: &[u8], value: &[u8]) -> std::io::Result<()> {
        self.disk.put(key, value)
    }
    fn remove(&self, key: &[u8]) -> std::io::Result<()> {
        self.disk.remove(key)
    }
    fn apply(&self, batch: &crate::store::Batch) -> std::io::Result<()> {
        self.disk.apply(batch)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.disk.flush()
    }
    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> crate::store::Entries<'a> {
        self.read();
        self.disk.range(from, to)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> std::io::Result<Option<crate::store::Entry>> {
        self.read();
        self.disk.last(from, to)
    }
}

/// The sender once held the outbox's state while it read: when the disk did not answer, neither did anything that looks at the
/// state, HTTP among it.
#[test]
fn a_read_that_hangs_holds_up_the_sender_alone() {
    let disk = Slow::default();
    let pages = open(Store::on(disk.clone())).unwrap();
    pages.commit(&[post(records(3))]).unwrap();
    disk.hang(true);
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| pages.take(0, 1, usize::MAX).unwrap());
        disk.until_a_read_waits();
        assert_eq!(pages.positions()[0].durable, 3);
        pages.commit(&[post(records(2))]).unwrap();
        assert_eq!(pages.size().0, 5);
        disk.hang(false);
        let taken = taking.join().unwrap();
        assert_eq!(
            (taken.pages.len(), taken.last),
            (2, Some(5)),
            "the first page was sealed before it was read"
        );
        assert_eq!(pages.take(0, 1, usize::MAX).unwrap(), taken);
    });
}

/// A producer, the sender and the deletion of what it delivered, all at the same time.
#[test]
fn what_is_taken_while_others_write_is_on_disk_and_never_changes() {
    const COMMITS: u64 = 4000;
    let (_, pages) = pages();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..COMMITS {
                pages.commit(&[post(records(n % 3 + 1))]).unwrap();
                pages.sweep().unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        let (mut next, mut previous) = (1, None);
        let mut given = std::collections::VecDeque::new();
        loop {
            let was_done = done.load(std::sync::atomic::Ordering::Acquire);
            let taken = pages.take(0, next, 3000).unwrap();
            for sealed in taken.pages {
                let page = sealed.open().unwrap();
                assert_eq!((page.first.get(), page.previous), (next, previous));
                (next, previous) = (page.last() + 1, Some(sealed.digest));
                assert!(page.last() <= pages.position().durable, "it is not on disk yet");
                given.push_back((page.last(), sealed));
            }
            while given.len() > 4 {
                let (last, sealed) = given.pop_front().unwrap();
                let again = pages.take(0, sealed.open().unwrap().first.get(), 1).unwrap();
                assert_eq!(again.pages, [sealed], "one place, two contents");
                pages.acknowledge(0, last);
            }
            if was_done && taken.last.is_none() {
                break;
            }
        }
        assert_eq!(next - 1, pages.position().durable);
    });
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

#[derive(Debug, Clone)]
enum Step {
    /// A group of appends, each of so many messages of so many bytes.
    Commit(Vec<(u8, u16)>),
    Take {
        skip: u8,
        max_bytes: u16,
    },
    /// Acknowledge so many of the pages that were taken.
    Acknowledge {
        pages: u8,
    },
    /// The receiver has so many fewer than it acknowledged.
    Unacknowledge {
        messages: u8,
    },
    /// The power goes after so many more writes of the steps to come; of what is in doubt, a part survives.
    CutPower {
        after_steps: u8,
        survivors: u8,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => proptest::collection::vec((1u8..150, 8u16..300), 1..5).prop_map(Step::Commit),
        1 => proptest::collection::vec((1u8..20, 3000u16..4096), 1..3).prop_map(Step::Commit),
        4 => (0u8..4, 1u16..20_000).prop_map(|(skip, max_bytes)| Step::Take { skip, max_bytes }),
        3 => (0u8..10).prop_map(|pages| Step::Acknowledge { pages }),
        1 => (1u8..200).prop_map(|messages| Step::Unacknowledge { messages }),
        3 => (0u8..8, 0u8..8).prop_map(|(after_steps, survivors)| Step::CutPower { after_steps, survivors }),
        1 => Just(Step::Reopen),
    ]
}

/// What must be true of an outbox, kept too simply to be wrong.
#[derive(Default)]
struct Model {
    /// By sequence - 1: the message, and whether it was confirmed.
    messages: Vec<Bytes>,
    acknowledged: u64,
    /// Every page ever given out, by its first sequence.
    given: std::collections::BTreeMap<u64, SealedPage>,
    written: u64,
}

impl Model {
    fn group(&mut self, sizes: &[(u8, u16)]) -> Vec<Vec<Record>> {
        let mut append = |(count, length): &(u8, u16)| -> Vec<Record> {
            (0..*count)
                .map(|_| {
                    self.written += 1;
                    record(self.written, usize::from(*length))
                })
                .collect()
        };
        sizes.iter().map(&mut append).collect()
    }

    /// After a crash during a commit: a prefix of the group's appends may be there, each whole. Returns what is.
    fn after_crash(&mut self, pages: &Pages, interrupted: Option<Vec<Vec<Record>>>) {
        let found = pages.position();
        let confirmed = self.messages.len() as u64;
        assert!(found.durable >= confirmed, "a confirmed message was lost");
        let mut allowed = vec![confirmed];
        for append in interrupted.into_iter().flatten() {
            self.messages.extend(append.into_iter().map(|r| r.payload));
            allowed.push(self.messages.len() as u64);
        }
        assert!(
            allowed.contains(&found.durable),
            "half an append is there: {} of {allowed:?}",
            found.durable
        );
        self.messages.truncate(found.durable as usize);
        assert!(found.acknowledged <= self.acknowledged);
        assert!(found.oldest <= self.acknowledged.max(1) + 1);
    }

    fn check_pages(&mut self, from: u64, taken: &Taken) {
        let mut next = from;
        for sealed in &taken.pages {
            let page = sealed.open().unwrap();
            assert!(page.first.get() <= next);
            for (sequence, payload) in (page.first.get()..).zip(payloads(std::slice::from_ref(sealed))) {
                assert_eq!(self.messages[sequence as usize - 1], payload, "at {sequence}");
            }
            next = page.last() + 1;
            let given = self.given.entry(page.first.get()).or_insert_with(|| sealed.clone());
            assert_eq!(given, sealed, "one place, two contents");
        }
        assert!(next - 1 <= self.messages.len() as u64, "gave out what is not on disk");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Crashes between any two writes: what was confirmed is there, in order, in pages that never change; an append is
    /// there whole or not at all; nothing that was not acknowledged is deleted.
    #[test]
    fn the_outbox_keeps_what_a_simple_model_keeps(steps in proptest::collection::vec(step(), 1..40)) {
        let disk = Disk::default();
        let mut pages = open(Store::on(disk.clone())).unwrap();
        let mut model = Model::default();
        let mut taken = Taken::default();
        let mut survivors = 0;
        let mut interrupted = None;
        for step in steps {
            match &step {
                Step::Commit(sizes) => {
                    let group = model.group(sizes);
                    let posts: Vec<_> = group.iter().cloned().map(post).collect();
                    match pages.commit(&posts) {
                        Ok(places) => {
                            for (append, place) in group.into_iter().zip(places) {
                                prop_assert_eq!(place.first.get(), model.messages.len() as u64 + 1);
                                model.messages.extend(append.into_iter().map(|r| r.payload));
                                prop_assert_eq!(place.last.get(), model.messages.len() as u64);
                            }
                        }
                        Err(_) => interrupted = Some(group),
                    }
                }
                Step::Take { skip, max_bytes } => {
                    let oldest = pages.position().acknowledged + 1;
                    taken = pages.take(0, oldest, (*max_bytes).into()).unwrap();
                    model.check_pages(oldest, &taken);
                    if let Some(last) = taken.last && *skip > 0 {
                        let more = pages.take(0, last + 1, (*max_bytes).into()).unwrap();
                        model.check_pages(last + 1, &more);
                    }
                }
                Step::Acknowledge { pages: count } => {
                    let last = taken.pages.iter().take((*count).into()).next_back();
                    if let Some(last) = last {
                        let through = last.open().unwrap().last();
                        pages.acknowledge(0, through);
                        model.acknowledged = model.acknowledged.max(through);
                        let _ = pages.sweep(); // the power may be off
                    }
                }
                Step::Unacknowledge { messages } => {
                    let mark = model.acknowledged.saturating_sub((*messages).into());
                    let oldest = pages.position().oldest;
                    if pages.unacknowledge(0, mark).is_ok() {
                        model.acknowledged = model.acknowledged.min(mark.max(oldest - 1));
                        prop_assert!(pages.position().acknowledged <= model.acknowledged);
                    }
                }
                Step::CutPower { after_steps, survivors: some } => {
                    disk.cut_power_after((*after_steps).into());
                    survivors = usize::from(*some);
                }
                Step::Reopen => {}
            }
            if disk.is_off() || matches!(step, Step::Reopen) {
                let survivors = if disk.is_off() { survivors } else { disk.in_doubt() };
                disk.power_on(survivors);
                pages = open(Store::on(disk.clone())).unwrap();
                model.after_crash(&pages, interrupted.take());
                taken = Taken::default();
            }
        }
        // Everything that is not acknowledged can still be read.
        let oldest = pages.position().acknowledged + 1;
        let mut next = oldest;
        while next <= pages.position().durable {
            let some = pages.take(0, next, 10_000).unwrap();
            model.check_pages(next, &some);
            next = some.last.expect("there is more") + 1;
        }
        let waiting = pages.peek(None, usize::MAX).unwrap();
        prop_assert_eq!(waiting.len() as u64, pages.position().durable + 1 - oldest);
    }
}
