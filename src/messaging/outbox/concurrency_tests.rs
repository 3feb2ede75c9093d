//! Producers, the sender and the committer at the same time.

use super::committer::AppendGroup;
use super::tests::{NOW, open, open_outbox, pages, post, record, records};
use super::*;
use crate::store::simulated::Disk;

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
async fn after_a_failed_flush_every_producer_is_answered_and_nothing_more_is_accepted() {
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
    let mut committer = Committer::new(Arc::new(pages), progress);
    let (queue, mut waiting) = mpsc::channel(3 * QUEUE);
    let (done, mut answer) = oneshot::channel();
    (0..3 * QUEUE).for_each(|_| queue.try_send(CommitterCommand::Sweep).unwrap());
    let append = CommitterCommand::Append { post: post(records(1)), done };
    committer.serve(append, &mut waiting, &mut AppendGroup::default()).unwrap();
    assert_eq!(answer.try_recv().unwrap().unwrap().first.get(), 1);
    assert_eq!(waiting.len(), 2 * QUEUE + 1);
}

/// A disk on which reads wait while it hangs.
#[derive(Clone, Default)]
struct Slow {
    disk: Disk,
    /// True while reads wait, and the number of reads that came.
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
    fn apply(&self, writes: &[crate::store::Write<'_>]) -> std::io::Result<()> {
        self.disk.apply(writes)
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
