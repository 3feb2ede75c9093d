use super::*;
use crate::messaging::Epoch;
use crate::messaging::page::{Content, Message, Page, SealedPage};
use crate::messaging::{Digest, Sequence};
use crate::server::record::StreamId;
use crate::store::Batch;
use crate::store::simulated::Disk;
use check::Meanwhile;

impl Ledger {
    pub fn record_capacity(&self, site: &SiteName, capacity: u32, now_ms: i64) -> Result<(), StoreError> {
        self.commit_with_capacities(&[], now_ms, |_| vec![(site.clone(), capacity)]).map(drop)
    }

    pub fn record_command(&self, by: &str, command: Command, now_ms: i64) -> Result<u64, StoreError> {
        self.record_order(by, Vec::new(), command, now_ms)
    }
}

pub const EPOCH: Epoch = Epoch::from_bytes([3; 16]);

pub fn page(first: u64, count: usize) -> SealedPage {
    marked_page(first, count, 0)
}

pub fn marked_page(first: u64, count: usize, mark: u8) -> SealedPage {
    let message = Message::of(vec![mark; 10]);
    SealedPage::seal(&Page {
        epoch: EPOCH,
        first: Sequence::new(first).unwrap(),
        previous: None,
        moved_from: None,
        begun: crate::messaging::ClockReading::at_wall_ms(0),
        content: Content::Records(vec![message; count]),
    })
}

pub fn request(site: &str, oldest: u64, pages: Vec<SealedPage>) -> Request {
    Request {
        id: 1,
        site: SiteName::new(site).unwrap(),
        epoch: EPOCH,
        oldest,
        ledger: None,
        instance: 1,
        clock_ms: 0,
        pages,
        ask: None,
        observation: None,
    }
}

fn ledger() -> (Disk, Ledger) {
    let disk = Disk::default();
    let ledger = Ledger::open(Store::on(disk.clone())).unwrap();
    (disk, ledger)
}

pub fn commit(ledger: &Ledger, request: Request) -> Applied {
    ledger.commit(&[request], 5).unwrap().remove(0)
}

fn places(pages: LedgerPages) -> Vec<(u64, u64)> {
    let place = |page: PageAt| (page.position, page.page.first.get());
    pages.pages.into_iter().map(place).collect()
}

#[test]
fn pages_are_applied_once_and_found_by_position_and_by_garage() {
    let (_, ledger) = ledger();
    let requests = [
        request("a", 1, vec![page(1, 10), page(11, 5)]),
        request("b", 1, vec![page(1, 3)]),
        request("a", 1, vec![page(11, 5), page(16, 1)]),
    ];
    let answers = ledger.commit(&requests, 5).unwrap();
    let summary: Vec<_> = answers.iter().map(|a| (a.mark, a.applied, a.duplicates, a.new_epoch)).collect();
    assert_eq!(summary, [(15, 15, 0, true), (3, 3, 0, true), (16, 1, 5, false)]);
    assert_eq!(ledger.position(), 4);
    let site = [SiteName::new("a").unwrap()];
    let all = |from| places(ledger.pages_of(&site, from, |_| false).unwrap());
    assert_eq!(all(0), [(1, 1), (2, 11), (4, 16)]);
    assert_eq!(all(2), [(2, 11), (4, 16)]);
    assert_eq!(all(3), [(4, 16)]);
    assert_eq!(all(5), []);
    let everything = places(ledger.pages(0, |_| false).unwrap());
    assert_eq!(everything, [(1, 1), (2, 11), (3, 1), (4, 16)]);
}

#[test]
fn a_restart_finds_marks_and_pages_again() {
    let (disk, ledger) = ledger();
    commit(&ledger, request("a", 1, vec![page(1, 10)]));
    let id = ledger.id();
    disk.power_on(0); // a power cut
    let ledger = Ledger::open(Store::on(disk)).unwrap();
    assert_eq!((ledger.id(), ledger.position()), (id, 1));
    let again = commit(&ledger, request("a", 1, vec![page(1, 10), page(11, 1)]));
    assert_eq!((again.duplicates, again.applied, again.mark), (10, 1, 11));
}

#[test]
fn a_gap_applies_nothing_and_says_what_is_expected() {
    let (_, ledger) = ledger();
    commit(&ledger, request("a", 1, vec![page(1, 10)]));
    let answer = commit(&ledger, request("a", 11, vec![page(21, 10)]));
    assert_eq!((answer.verdict, answer.mark), (Verdict::Gap, 10));
    assert_eq!(ledger.position(), 1);
}

#[test]
fn another_content_at_an_applied_place_is_a_conflict_and_changes_nothing() {
    let (_, ledger) = ledger();
    commit(&ledger, request("a", 1, vec![page(1, 10)]));
    let answer = commit(&ledger, request("a", 1, vec![marked_page(1, 10, 7), page(11, 1)]));
    assert_eq!((answer.verdict, answer.mark), (Verdict::Conflict { first: 1 }, 10));
    // Also within one commit.
    let both = [request("b", 1, vec![page(1, 4)]), request("b", 1, vec![marked_page(1, 4, 7)])];
    let answers = ledger.commit(&both, 5).unwrap();
    assert_eq!(answers[1].verdict, Verdict::Conflict { first: 1 });
}

/// A copy of an edge's directory was delivered first: its last page had not grown yet.
#[test]
fn of_a_page_that_grew_only_what_is_new_is_applied() {
    let (disk, ledger) = ledger();
    commit(&ledger, request("a", 1, vec![page(1, 10), page(11, 5)]));
    let chained = |first, count, previous: &SealedPage| {
        let mut page = page(first, count).open().unwrap();
        page.previous = Some(previous.digest);
        SealedPage::seal(&page)
    };
    let grown = chained(11, 9, &page(1, 10));
    let next = chained(20, 3, &grown);
    for (duplicates, applied) in [(5, 7), (12, 0)] {
        let answer = commit(&ledger, request("a", 11, vec![grown.clone(), next.clone()]));
        assert_eq!((answer.verdict, answer.mark), (Verdict::Accepted, 22));
        assert_eq!((answer.duplicates, answer.applied), (duplicates, applied));
    }
    let site = [SiteName::new("a").unwrap()];
    let found = places(ledger.pages_of(&site, 0, |_| false).unwrap());
    assert_eq!(found, [(1, 1), (2, 11), (3, 16), (4, 20)]);
    let mut faults = Vec::new();
    ledger.check(Meanwhile::Unchanged, &mut |place, what| faults.push(format!("{place}: {what}"))).unwrap();
    assert_eq!(faults, [] as [String; 0]);
    // The other one goes on, too: what it has now is its own.
    let theirs = marked_page(16, 2, 7);
    let answer = commit(&ledger, request("a", 16, vec![theirs]));
    assert_eq!(answer.verdict, Verdict::Conflict { first: 16 });
    drop(disk);
}

#[test]
fn what_an_edge_no_longer_has_is_recorded_as_missing() {
    let (_, ledger) = ledger();
    commit(&ledger, request("a", 1, vec![page(1, 10)]));
    let answer = commit(&ledger, request("a", 21, vec![page(21, 10)]));
    assert_eq!((answer.missing, answer.applied, answer.mark), (10, 10, 30));
    let records: Vec<_> = ledger.records(2).map(|record| record.unwrap().1).collect();
    let [RecordOrDamage::Record(missing), RecordOrDamage::Record(page)] = &records[..] else {
        panic!("{records:?}")
    };
    assert!(matches!(missing, Record::MissingRange { first: 11, last: 20, .. }));
    assert!(matches!(page, Record::Page { .. }));
}

#[test]
fn a_page_that_an_edge_lost_is_counted_as_applied_and_recorded() {
    let (_, ledger) = ledger();
    let lost = SealedPage::seal(&Page {
        epoch: EPOCH,
        first: Sequence::FIRST,
        previous: None,
        moved_from: None,
        begun: crate::messaging::ClockReading::at_wall_ms(0),
        content: Content::Lost {
            last: Sequence::new(64).unwrap(),
            reason: "its digest does not match".into(),
        },
    });
    let answer = commit(&ledger, request("a", 1, vec![lost.clone(), page(65, 1)]));
    assert_eq!((answer.missing, answer.applied, answer.mark), (64, 1, 65));
    let again = commit(&ledger, request("a", 1, vec![lost]));
    assert_eq!((again.duplicates, again.verdict), (64, Verdict::Accepted));
}

#[test]
fn damaged_and_foreign_pages_are_refused_with_what_came_before_kept() {
    let (_, ledger) = ledger();
    let mut damaged = page(11, 1);
    damaged.digest = Digest::of(b"something else");
    let answer = commit(&ledger, request("a", 1, vec![page(1, 10), damaged]));
    assert!(matches!(answer.verdict, Verdict::Refused { .. }));
    assert_eq!(answer.mark, 10);
    let mut foreign = request("a", 1, vec![page(11, 1)]);
    foreign.epoch = Epoch::from_bytes([4; 16]);
    assert!(matches!(commit(&ledger, foreign).verdict, Verdict::Refused { .. }));
    assert_eq!(ledger.streams().len(), 1, "nothing refused begins a stream");
}

#[test]
fn a_question_without_pages_leaves_no_trace() {
    let (_, ledger) = ledger();
    let answer = commit(&ledger, request("a", 1, vec![]));
    assert_eq!((answer.mark, answer.verdict), (0, Verdict::Accepted));
    assert!(ledger.streams().is_empty());
}

#[test]
fn large_commits_stay_within_the_batches_that_the_store_takes() {
    let (disk, ledger) = ledger();
    let pages: Vec<_> = (0..2000).map(|n| page(n * 2 + 1, 2)).collect();
    let answer = commit(&ledger, request("a", 1, pages));
    assert_eq!(answer.mark, 4000);
    disk.power_on(0);
    assert_eq!(Ledger::open(Store::on(disk)).unwrap().position(), 2000);
}

/// A directory was copied: both edges go on under one name and epoch from the same place. Judged by sequences alone, the
/// one that learns of a conflict at 51 could go on with 52 behind the 51 of the other.
#[test]
fn an_edge_that_goes_on_from_a_copied_directory_does_not_slip_in_between() {
    let (_, ledger) = ledger();
    let chained = |first, mark, previous: &SealedPage| {
        let mut page = marked_page(first, 1, mark).open().unwrap();
        page.previous = Some(previous.digest);
        SealedPage::seal(&page)
    };
    let shared = page(1, 50);
    let (ours, theirs) = (chained(51, 1, &shared), chained(51, 2, &shared));
    commit(&ledger, request("a", 1, vec![shared, ours]));
    let answer = commit(&ledger, request("a", 51, vec![theirs.clone()]));
    assert_eq!(answer.verdict, Verdict::Conflict { first: 51 });
    let answer = commit(&ledger, request("a", 52, vec![chained(52, 2, &theirs)]));
    assert_eq!((answer.verdict, answer.mark), (Verdict::Conflict { first: 52 }, 51));
}

/// Whatever part of an interrupted commit survives: pages, index and mark agree, and the edge's resend completes it.
#[test]
fn a_power_cut_anywhere_in_a_commit_costs_a_resend_and_no_event() {
    let pages: Vec<_> = (0..1000).map(|n| page(n * 2 + 1, 2)).collect();
    for steps in 0..6 {
        for survivors in 0..6 {
            let (disk, ledger) = ledger();
            disk.cut_power_after(steps);
            let result = ledger.commit(&[request("a", 1, pages.clone())], 5);
            let confirmed = result.is_ok();
            disk.power_on(survivors);
            let ledger = Ledger::open(Store::on(disk)).unwrap();
            assert!(!confirmed || ledger.position() == 1000);
            let again = commit(&ledger, request("a", 1, pages.clone()));
            assert_eq!(again.mark, 2000);
            assert_eq!(again.applied + again.duplicates, 2000);
            assert_eq!(ledger.position(), 1000);
            let site = [SiteName::new("a").unwrap()];
            let found = places(ledger.pages_of(&site, 0, |_| false).unwrap());
            let expected: Vec<_> = (0..1000).map(|n| (n + 1, n * 2 + 1)).collect();
            assert_eq!(found, expected);
        }
    }
}

/// Two edges on copies of one directory were asked to move, one after the other. A late page of the first edge's move made the
/// server forget that it had asked the second edge, whose reply was lost: a second decision was needed.
#[test]
fn a_late_page_of_an_earlier_move_does_not_undo_a_later_decision() {
    let (_, ledger) = ledger();
    let site = SiteName::new("a").unwrap();
    commit(&ledger, request("a", 1, vec![page(1, 10)]));
    let in_conflict = |mark| commit(&ledger, request("a", 1, vec![marked_page(1, 10, mark)])).verdict;
    let decide = || ledger.record_command("me", Command::Adopt { garage: site.clone() }, 5).unwrap();
    let moved = |first: u64, epoch: u8| {
        let mut moved = page(first, 1).open().unwrap();
        moved.epoch = Epoch::from_bytes([epoch; 16]);
        moved.moved_from = Some((EPOCH, moved.first));
        let request = request("a", 1, vec![SealedPage::seal(&moved)]);
        commit(&ledger, Request { epoch: moved.epoch, ..request }).verdict
    };
    let told = Verdict::Move { from: 1 };
    decide();
    assert_eq!(in_conflict(1), told);
    assert_eq!(moved(1, 5), Verdict::Accepted);
    assert_eq!(in_conflict(2), Verdict::Conflict { first: 1 }, "another one needs another decision");
    decide();
    assert_eq!(in_conflict(2), told);
    assert_eq!(moved(2, 5), Verdict::Accepted);
    assert_eq!(in_conflict(2), told, "its reply may be lost");
    // A backup knows as much.
    let copied = Store::on(Disk::default());
    let mut copy = LedgerCopy::begin(&copied, ledger.id(), ledger.numbered_streams()).unwrap();
    let records = ledger.raw_records(1, ledger.position(), usize::MAX).unwrap();
    records.into_iter().for_each(|record| copy.add(record).unwrap());
    copy.finish().unwrap();
    assert_eq!(Ledger::open(copied).unwrap().streams(), ledger.streams());
    assert_eq!(moved(1, 6), Verdict::Accepted);
    assert_eq!(in_conflict(3), Verdict::Conflict { first: 1 });
}

#[test]
fn a_move_of_nothing_but_lost_events_ends_too() {
    let (_, ledger) = ledger();
    let site = SiteName::new("a").unwrap();
    commit(&ledger, request("a", 1, vec![page(1, 10)]));
    let in_conflict = || commit(&ledger, request("a", 1, vec![marked_page(1, 10, 1)])).verdict;
    ledger.record_command("me", Command::Adopt { garage: site }, 5).unwrap();
    assert_eq!(in_conflict(), Verdict::Move { from: 1 });
    let mut moved = page(1, 1).open().unwrap();
    let lost = Content::Lost { last: Sequence::new(10).unwrap(), reason: "damage".into() };
    (moved.epoch, moved.moved_from, moved.content) =
        (Epoch::from_bytes([5; 16]), Some((EPOCH, moved.first)), lost);
    let request = request("a", 1, vec![SealedPage::seal(&moved)]);
    let answer = commit(&ledger, Request { epoch: moved.epoch, ..request });
    assert_eq!((answer.verdict, answer.missing), (Verdict::Accepted, 10));
    assert_eq!(in_conflict(), Verdict::Conflict { first: 1 });
}

/// A piece of 7,000 bytes, given over admin.sock, was refused by the store after the ledger had begun to write, and the server
/// ended.
#[test]
fn a_command_that_is_too_long_for_a_record_is_refused_before_anything_is_written() {
    let (_, ledger) = ledger();
    let garage = SiteName::new("a").unwrap();
    let command = Command::Adopt { garage };
    let pieces = (0..2000).map(|_| vec![1; 10]).chain([vec![7; 7000]]).collect();
    let refused = ledger.record_order("me", pieces, command.clone(), 5);
    assert!(matches!(refused, Err(StoreError::ValueTooLong { .. })), "{refused:?}");
    assert_eq!((ledger.position(), ledger.store().last(b"r", b"s").unwrap()), (0, None));
    assert_eq!(ledger.record_order("me", vec![vec![7; 5000]], command, 5).unwrap(), 2);
}

/// Of "What it costs" in ARCHITECTURE.md.
#[test]
#[ignore = "a measure, to be run alone: cargo test --lib what_an_epoch_takes -- --ignored --nocapture"]
fn what_an_epoch_takes_in_memory() {
    const COUNT: usize = 200_000;
    let resident = || {
        let told = std::fs::read_to_string("/proc/self/statm").unwrap();
        told.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    let mut streams = Streams::default();
    for n in 0..COUNT {
        let site = SiteName::new(&format!("garage {}", n % 200)).unwrap();
        streams.begin(StreamId { site, epoch: Epoch::random() }, &mut Batch::default());
    }
    println!("an epoch: {} bytes", (resident() - before) / COUNT);
    drop(streams);
}
