//! The trait is enough for a log on two machines: nothing of the ledger reaches around it while it serves.

use super::check::Meanwhile;
use super::log::{IndexEntries, LogEntries};
use super::tests::{commit, marked_page, page, request};
use super::*;
use crate::messaging::receiver::Mark;
use crate::store::Batch;
use crate::store::simulated::Disk;
use std::ops::RangeInclusive;

/// A log whose batches go to a follower first, and that is read from the follower.
struct Followed {
    leader: Store,
    follower: Store,
}

impl Log for Followed {
    fn append(&self, batch: &Batch) -> Result<(), StoreError> {
        self.follower.append(batch)?;
        self.leader.append(batch)
    }
    fn flush(&self) -> Result<(), StoreError> {
        Log::flush(&self.follower)?;
        Log::flush(&self.leader)
    }
    fn tail(&self) -> Result<u64, StoreError> {
        self.follower.tail()
    }
    fn read(&self, position: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.follower.read(position)
    }
    fn read_range(&self, positions: RangeInclusive<u64>) -> LogEntries<'_> {
        self.follower.read_range(positions)
    }
    fn mark(&self, stream: u32) -> Result<Option<Mark>, StoreError> {
        self.follower.mark(stream)
    }
    fn page_before(&self, stream: u32, sequence: u64) -> Result<Option<(u64, u64)>, StoreError> {
        self.follower.page_before(stream, sequence)
    }
    fn pages_from(&self, stream: u32, sequence: u64) -> IndexEntries<'_> {
        self.follower.pages_from(stream, sequence)
    }
}

fn followed(leader: &Store, follower: &Store) -> Ledger {
    let log = Followed { leader: leader.clone(), follower: follower.clone() };
    Ledger::open_on(Arc::new(log), leader.clone()).unwrap()
}

#[test]
fn a_follower_that_gets_every_batch_has_the_same_ledger() {
    let [leader, follower] = [(); 2].map(|()| Store::on(Disk::default()));
    let ledger = followed(&leader, &follower);
    follower.put(keys::LEDGER_ID, &keys::ledger_id_value(ledger.id())).unwrap();
    commit(&ledger, request("a", 1, vec![page(1, 10), page(11, 5)]));
    // A missing range, a duplicate, a decided conflict, a capacity: everything that a commit writes.
    assert_eq!(commit(&ledger, request("a", 20, vec![page(20, 3)])).missing, 4);
    assert_eq!(commit(&ledger, request("a", 1, vec![page(1, 10)])).duplicates, 10);
    let site = SiteName::new("a").unwrap();
    ledger.record_command("me", Command::Adopt { garage: site.clone() }, 5).unwrap();
    assert_eq!(
        commit(&ledger, request("a", 1, vec![marked_page(1, 10, 1)])).verdict,
        Verdict::Move { from: 1 }
    );
    ledger.record_capacity(&site, 300, 6).unwrap();

    let copied = Ledger::open(follower).unwrap();
    assert_eq!((copied.id(), copied.position()), (ledger.id(), ledger.position()));
    assert_eq!(copied.streams(), ledger.streams());
    let records = |ledger: &Ledger| ledger.raw_records(1, ledger.position(), usize::MAX).unwrap();
    assert_eq!(records(&copied), records(&Ledger::open(leader).unwrap()));
    let mut found = Vec::new();
    copied.check(Meanwhile::Unchanged, &mut |place, what| found.push(format!("{place}: {what}"))).unwrap();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn what_a_follower_cannot_write_is_not_answered_and_not_shown() {
    let leader = Store::on(Disk::default());
    let disk = Disk::default();
    let ledger = followed(&leader, &Store::on(disk.clone()));
    commit(&ledger, request("a", 1, vec![page(1, 10)]));
    disk.cut_power_after(0);
    assert!(ledger.commit(&[request("a", 11, vec![page(11, 5)])], 5).is_err());
    assert_eq!(ledger.position(), 1);
    assert_eq!(ledger.streams()[&SiteName::new("a").unwrap()][0].mark.sequence, 10);
}
