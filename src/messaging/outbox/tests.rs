use super::pages::Pages;
use super::*;
use crate::messaging::page::{Content, SealedPage};
use crate::store::simulated::Disk;
use bytes::Bytes;
use proptest::prelude::*;

fn record(n: u64, length: usize) -> Record {
    let mut payload = n.to_be_bytes().to_vec();
    payload.resize(length.max(8), 0xEE);
    Record { key: None, payload: Bytes::from(payload) }
}

fn records(count: u64) -> Vec<Record> {
    (0..count).map(|n| record(n, 20)).collect()
}

fn pages() -> (Disk, Pages) {
    let disk = Disk::default();
    let pages = Pages::open(Store::on(disk.clone())).unwrap();
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
    let places = pages.commit(&[records(3), records(100), records(1)], 0);
    let places: Vec<_> = places.unwrap().iter().map(|place| (place.first.get(), place.last.get())).collect();
    assert_eq!(places, [(1, 3), (4, 103), (104, 104)]);
}

#[test]
fn a_page_that_was_given_out_never_changes_again() {
    let (_, pages) = pages();
    pages.commit(&[records(3)], 0).unwrap();
    let sent = pages.take(1, usize::MAX).unwrap();
    pages.commit(&[records(2)], 0).unwrap();
    let again = pages.take(1, usize::MAX).unwrap();
    assert_eq!(again.pages[0], sent.pages[0]);
    assert_eq!((sent.last, again.last), (Some(3), Some(5)));
    assert_eq!(again.pages.len(), 2);
}

#[test]
fn each_page_names_the_one_before_it_also_after_a_restart() {
    let (disk, pages) = pages();
    pages.commit(&[records(100)], 0).unwrap();
    pages.commit(&[records(100)], 0).unwrap();
    let pages = Pages::open(Store::on(disk)).unwrap();
    pages.commit(&[records(100)], 0).unwrap();
    let taken = pages.take(1, usize::MAX).unwrap().pages;
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
    pages.commit(&[records(200)], 0).unwrap();
    pages.acknowledge(200);
    pages.sweep().unwrap();
    pages.unacknowledge(10);
    assert_eq!(pages.status().unwrap().depth, 8, "the newest page, 193 to 200");
    pages.commit(&[records(100)], 0).unwrap();
    pages.sweep().unwrap();
    let taken = pages.take(11, usize::MAX).unwrap();
    assert_eq!((taken.oldest, taken.last), (193, Some(300)));
}

#[test]
fn a_page_that_was_not_given_out_grows() {
    let (_, pages) = pages();
    for _ in 0..64 {
        pages.commit(&[records(1)], 0).unwrap();
    }
    pages.commit(&[records(1)], 0).unwrap();
    assert_eq!(pages.take(1, usize::MAX).unwrap().pages.len(), 2);
}

#[test]
fn every_page_found_at_open_is_sealed() {
    let (disk, pages) = pages();
    pages.commit(&[records(3)], 0).unwrap();
    let pages = Pages::open(Store::on(disk)).unwrap();
    pages.commit(&[records(2)], 0).unwrap();
    assert_eq!(pages.take(1, usize::MAX).unwrap().pages.len(), 2);
}

#[test]
fn the_newest_page_stays_and_remembers_the_next_sequence() {
    let (disk, pages) = pages();
    pages.commit(&[records(200)], 0).unwrap();
    pages.acknowledge(200);
    pages.sweep().unwrap();
    assert_eq!(pages.status().unwrap().depth, 0);
    let stored = pages.take(1, usize::MAX).unwrap();
    assert_eq!((stored.pages.len(), stored.last), (1, Some(200)));

    disk.power_on(disk.in_doubt()); // what was written since the flush has survived
    let pages = Pages::open(Store::on(disk.clone())).unwrap();
    assert_eq!(pages.status().unwrap().depth, 0, "it does not look as if it waited");
    let place = pages.commit(&[records(1)], 0).unwrap()[0];
    assert_eq!(place.first.get(), 201);
    pages.acknowledge(201);
    pages.sweep().unwrap();
    assert_eq!(pages.take(1, usize::MAX).unwrap().last, Some(201));
    assert_eq!(pages.position().oldest, 201);
}

#[test]
fn long_messages_are_cut_into_pages_that_the_store_takes() {
    let (_, pages) = pages();
    let long: Vec<_> = (0..20).map(|n| record(n, page::PAYLOAD_MAX)).collect();
    pages.commit(std::slice::from_ref(&long), 0).unwrap();
    let taken = pages.take(1, usize::MAX).unwrap();
    assert_eq!(taken.pages.len(), 20);
    assert_eq!(payloads(&taken.pages).len(), 20);
    let some = pages.take(3, 9_000).unwrap();
    assert_eq!((some.pages.len(), some.last), (2, Some(4)));
}

#[test]
fn bytes_count_what_is_stored() {
    let (_, pages) = pages();
    for _ in 0..10 {
        pages.commit(&[records(30)], 0).unwrap();
    }
    let stored: u64 =
        pages.take(1, usize::MAX).unwrap().pages.iter().map(|page| page.to_stored().len() as u64).sum();
    assert_eq!(pages.status().unwrap().bytes, stored);
    pages.acknowledge(300);
    pages.sweep().unwrap();
    let left = pages.take(1, usize::MAX).unwrap().pages[0].to_stored().len();
    assert_eq!(pages.status().unwrap().bytes, left as u64);
}

#[test]
fn a_damaged_page_is_said_and_not_deleted() {
    let (disk, pages) = pages();
    pages.commit(&[records(3)], 0).unwrap();
    let store = Store::on(disk.clone());
    let (key, mut value) = store.last(b"p", b"q").unwrap().unwrap();
    value[20] ^= 1;
    store.put(&key, &value).unwrap();
    store.flush().unwrap();
    assert!(matches!(pages.take(1, 1000), Err(StoreError::Damaged { .. })));
    assert!(matches!(Pages::open(Store::on(disk.clone())), Err(OpenError::Damaged { .. })));
    assert_eq!(store.get(&key).unwrap(), Some(value));
}

#[tokio::test]
async fn appends_that_come_at_the_same_time_share_a_flush() {
    let disk = Disk::default();
    let outbox = Outbox::open(Store::on(disk)).unwrap();
    let appends: Vec<_> = (0..500)
        .map(|n| {
            let outbox = outbox.clone();
            tokio::spawn(async move { outbox.append(vec![record(n, 20)], 0).await.unwrap() })
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
    let outbox = Outbox::open(Store::on(Disk::default())).unwrap();
    let append = |length: usize, count: u64| {
        let outbox = outbox.clone();
        let records = (0..count).map(|n| record(n, length)).collect();
        tokio::spawn(async move { outbox.append(records, 0).await })
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
    let outbox = Outbox::open(Store::on(disk.clone())).unwrap();
    outbox.append(records(1), 0).await.unwrap();
    disk.cut_power_after(1); // the write goes through, its flush does not
    assert!(matches!(outbox.append(records(1), 0).await, Err(AppendError::Failed)));
    assert!(outbox.progress().borrow().failed);
    disk.power_on(0);
    assert!(matches!(outbox.append(records(1), 0).await, Err(AppendError::Failed)));
}

#[tokio::test]
async fn what_is_no_append_is_refused() {
    let outbox = Outbox::open(Store::on(Disk::default())).unwrap();
    let refused = |records| outbox.append(records, 0);
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
        let mut pages = Pages::open(Store::on(disk.clone())).unwrap();
        let mut model = Model::default();
        let mut taken = Taken::default();
        let mut survivors = 0;
        let mut interrupted = None;
        for step in steps {
            match &step {
                Step::Commit(sizes) => {
                    let group = model.group(sizes);
                    match pages.commit(&group, 0) {
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
                    taken = pages.take(oldest, (*max_bytes).into()).unwrap();
                    model.check_pages(oldest, &taken);
                    if let Some(last) = taken.last && *skip > 0 {
                        let more = pages.take(last + 1, (*max_bytes).into()).unwrap();
                        model.check_pages(last + 1, &more);
                    }
                }
                Step::Acknowledge { pages: count } => {
                    let last = taken.pages.iter().take((*count).into()).next_back();
                    if let Some(last) = last {
                        let through = last.open().unwrap().last();
                        pages.acknowledge(through);
                        model.acknowledged = model.acknowledged.max(through);
                        let _ = pages.sweep(); // the power may be off
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
                pages = Pages::open(Store::on(disk.clone())).unwrap();
                model.after_crash(&pages, interrupted.take());
                taken = Taken::default();
            }
        }
        // Everything that is not acknowledged can still be read.
        let oldest = pages.position().acknowledged + 1;
        let mut next = oldest;
        while next <= pages.position().durable {
            let some = pages.take(next, 10_000).unwrap();
            model.check_pages(next, &some);
            next = some.last.expect("there is more") + 1;
        }
        let waiting = pages.peek(0, usize::MAX).unwrap();
        prop_assert_eq!(waiting.len() as u64, pages.position().durable + 1 - oldest);
    }
}
