//! What a damaged store loses, and what is delivered nevertheless.

use super::tests::{NOW, beside, open, pages, post, records};
use super::*;
use crate::messaging::page::{Content, SealedPage};
use crate::store::simulated::Disk;

fn damage(disk: &Disk, first: u64) -> Vec<u8> {
    let store = Store::on(disk.clone());
    let key = layout::page_key(0, first);
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
fn a_damaged_page_is_reported_as_lost_and_kept_and_the_rest_is_delivered() {
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
        let kept = Store::on(disk.clone()).get(&layout::aside_key(&layout::page_key(0, 65))).unwrap();
        assert_eq!(kept, Some(found.clone()));
        assert_eq!(pages.position().durable, 200);
        assert_eq!(pages.positions().len(), 1, "the end is certain: no new epoch");
    }
}

#[test]
fn pages_that_are_not_there_are_reported_as_lost() {
    let (disk, pages) = pages();
    pages.commit(&[post(records(300))]).unwrap();
    let store = Store::on(disk.clone());
    store.remove(&layout::page_key(0, 65)).unwrap();
    store.remove(&layout::page_key(0, 129)).unwrap();
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
fn a_tail_and_a_beginning_that_vanished_are_noticed_by_the_high_water_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("witness");
    let disk = Disk::default();
    let open = || Pages::open(Store::on(disk.clone()), &beside(&file), NOW).unwrap();
    let pages = open();
    pages.commit(&[post(records(300))]).unwrap();
    pages.acknowledge(0, 64);
    pages.sweep().unwrap();
    let store = Store::on(disk.clone());
    for first in [65, 257] {
        store.remove(&layout::page_key(0, first)).unwrap();
    }
    store.flush().unwrap();
    let pages = open();
    let taken = pages.take(0, 1, usize::MAX).unwrap().pages;
    assert_eq!(taken.iter().filter_map(lost).collect::<Vec<_>>(), [(65, 128), (257, 300)]);
    assert_eq!(pages.positions().len(), 2);
    assert_eq!(pages.status().unwrap().depth, 300 - 64);
}
