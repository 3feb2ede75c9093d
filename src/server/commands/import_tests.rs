//! Numbers and documents after a restore, and where documents are damaged.

use super::ServerRequest;
use super::issue_tests::IssuingTown;
use super::operate::Backend;
use crate::codes;
use crate::daemon::admin::NotDone;
use crate::parking::document::{EXPORT_ENDING, ReadDocument};
use crate::server::documents::without_plates;
use crate::server::issuing::{IssueOrder, IssueScope};
use crate::server::ledger::{Ledger, LedgerCopy};
use crate::server::receivables::{DocumentsShown, ReceivablesQuestion};
use crate::server::record::{Command, Record};
use crate::server::view;
use crate::store::Store;
use crate::store::simulated::Disk;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// How a ledger was copied.
#[derive(PartialEq)]
enum Copied {
    ByBackup,
    /// Together with its directory, by other means: nothing in it says that it is a copy.
    ByHand,
}

impl IssuingTown {
    /// A server on a backup of this one that was made at a position. It has the same documents directory.
    fn restored_at(&self, position: u64) -> IssuingTown {
        self.copied_at(position, Copied::ByBackup)
    }

    fn copied_at(&self, position: u64, copied: Copied) -> IssuingTown {
        let disk = Disk::default();
        let store = Store::on(disk.clone());
        let mut copy = LedgerCopy::begin(&store, self.ledger.id(), self.ledger.numbered_streams()).unwrap();
        let records = self.ledger.raw_records(1, position, usize::MAX).unwrap();
        records.into_iter().for_each(|record| copy.add(record).unwrap());
        if copied == Copied::ByBackup {
            copy.mark_as_copied_at(position).unwrap();
        }
        copy.finish().unwrap();
        let ledger = Ledger::open(store).unwrap();
        let (operator, dir) = (self.operator.clone(), Arc::clone(&self.dir));
        let mut town = IssuingTown::of(disk, ledger, operator, dir);
        town.sent = self.sent.clone();
        town.shows(0);
        town
    }

    /// A copy of this one, with a documents directory of its own.
    pub(super) fn in_a_place_of_its_own(&self) -> IssuingTown {
        let copy = self.copied_at(self.ledger.position(), Copied::ByHand);
        IssuingTown { dir: Arc::new(tempfile::tempdir().unwrap()), ..copy }
    }

    /// The garages deliver everything that they ever had.
    fn redeliver(&mut self) {
        self.ledger.commit(&self.sent.borrow(), 78).unwrap();
        self.shows(0);
    }

    fn import(&mut self, path: &Path, dry_run: bool) -> Result<Value, NotDone> {
        let path = path.to_str().unwrap().to_owned();
        self.ask(ServerRequest::ImportDocuments { path, dry_run })
    }

    fn import_copies(&mut self) -> Value {
        let dir = Arc::clone(&self.dir);
        self.import(dir.path(), false).unwrap()
    }

    fn resume(&mut self, last: u64, dry_run: bool) -> Result<Value, NotDone> {
        self.ask(ServerRequest::ResumeNumbers { last, reason: "lost with the disk".into(), dry_run })
    }

    /// Why nothing is issued for October 2020 and before.
    fn is_locked(&mut self) -> NotDone {
        let order = Self::order("2020-12", IssueScope::AllAccounts);
        let dry_run = IssueOrder { dry_run: true, ..order.clone() };
        let refused = self.ask(ServerRequest::Issue(order)).unwrap_err();
        assert_eq!(self.ask(ServerRequest::Issue(dry_run)).unwrap_err(), refused);
        assert!(refused.to_string().contains("Nothing was issued"), "{refused}");
        refused
    }

    fn missing(&mut self) -> Value {
        let (account, month, shown, after) = (None, None, DocumentsShown::All, None);
        let question = ReceivablesQuestion::Documents { account, month, shown, after };
        self.ask(ServerRequest::Receivables(question)).unwrap()["missing"].take()
    }

    /// The disk loses the records of commands of which `is_lost` says so. The views are rebuilt.
    fn lose(&mut self, is_lost: impl Fn(&Command) -> bool) {
        let store = self.ledger.store().clone();
        for position in 1..=self.ledger.position() {
            if let Ok(Some(Record::Command { command, .. })) = self.ledger.record_at(position)
                && is_lost(&command)
            {
                store.put(&[b"r", &position.to_be_bytes()[..]].concat(), b"damaged").unwrap();
            }
        }
        view::discard(&store).unwrap();
        store.flush().unwrap();
        self.restart();
    }

    fn all_files(&self) -> Vec<Vec<u8>> {
        self.documents().into_iter().map(|its| its.file).collect()
    }
}

/// Documents 1 and 2, a backup there, then documents 3 and 4 for what garages delivered after it; and the town on the backup.
fn town_and_backup() -> (IssuingTown, IssuingTown) {
    let mut town = IssuingTown::new();
    town.stay("a", "MM1", (9, 5), 1);
    town.stay("a", "SS1", (9, 5), 2);
    town.issue("2020-09");
    let backup = town.ledger.position();
    town.stay("a", "MM1", (10, 6), 3);
    town.stay("a", "SS1", (10, 6), 4);
    // A garage that the backup has never heard of.
    town.stay("new", "MM2", (10, 7), 5);
    town.issue("2020-10");
    assert_eq!(town.documents().len(), 4);
    let restored = town.restored_at(backup);
    (town, restored)
}

#[test]
fn a_backup_issues_nothing_until_the_documents_are_brought_back_and_nothing_is_billed_twice() {
    let (town, mut restored) = town_and_backup();
    assert_eq!(restored.is_locked().code(), codes::DOCUMENT_NUMBERS_UNKNOWN);
    let dir = Arc::clone(&town.dir);
    let position = restored.ledger.position();
    let shown = restored.import(dir.path(), true).unwrap();
    assert_eq!(
        (&shown["documents"], &shown["known"], &shown["position"]),
        (&2.into(), &2.into(), &Value::Null)
    );
    // One file does not show that there are no others.
    let third = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let third = third.filter(|path| path.to_str().unwrap().contains("000003")).last().unwrap();
    assert_eq!(restored.import(&third, true).unwrap()["unlocks"], false);
    assert_eq!(restored.ledger.position(), position);
    let said = restored.import_copies();
    assert!(said["said"].as_str().unwrap().contains("Payments and decisions"), "{said}");
    assert_eq!(restored.all_files(), town.all_files());
    // Before the events arrive again, and after: nothing of them is due, and nothing is given back.
    for _ in 0..2 {
        assert_eq!(restored.issue("2020-12")["documents"].as_array().unwrap().len(), 0);
        restored.redeliver();
    }
    restored.compare();
    restored.stay("a", "MM1", (11, 8), 1);
    restored.issue("2020-12");
    assert_eq!(restored.issued()[4], ("000005".into(), "miller".into(), 250, 1));
    restored.compare();
    restored.verify();
    restored.check_copies();
    restored.restart();
    assert_eq!(
        restored.issue("2020-12")["documents"].as_array().unwrap().len(),
        0,
        "the lock has ended for good"
    );
    // A backup of it is locked again. The original never was; where both share a directory, its number is given already.
    let mut again = restored.restored_at(restored.ledger.position());
    again.is_locked();
    let mut town = town;
    town.stay("a", "MM1", (11, 8), 1);
    let order = IssuingTown::order("2020-12", IssueScope::AllAccounts);
    let refused = town.ask(ServerRequest::Issue(order)).unwrap_err().to_string();
    assert!(refused.contains("which this ledger does not know"), "{refused}");
    town.dir = Arc::new(tempfile::tempdir().unwrap());
    assert_eq!(town.issue("2020-12")["documents"].as_array().unwrap().len(), 1);
}

#[test]
fn numbers_that_are_lost_are_recorded_and_never_given_again() {
    let (_, mut restored) = town_and_backup();
    for (last, reason) in [(1, "the last number that is known is 2"), (10_003, "more than 10,000")] {
        let refused = restored.resume(last, false).unwrap_err().to_string();
        assert!(refused.contains(reason) && refused.contains("Nothing was recorded"), "{refused}");
    }
    restored.resume(7, true).unwrap();
    restored.is_locked();
    restored.resume(7, false).unwrap();
    // The copies that are lost.
    let lost: Vec<_> =
        fs::read_dir(restored.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let kept = tempfile::tempdir().unwrap();
    for path in lost.iter().filter(|path| path.to_str().unwrap().contains("00000")) {
        let serial: u64 =
            path.file_stem().unwrap().to_str().unwrap().rsplit('0').next().unwrap().parse().unwrap();
        if serial > 2 {
            fs::rename(path, kept.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    restored.redeliver();
    restored.issue("2020-12");
    let of = |number: &str, whose: &str, total, lines| (number.to_owned(), whose.to_owned(), total, lines);
    let issued: Vec<_> = restored.ledger.store().range(b"vbi", b"vbj").collect();
    assert_eq!(issued.len(), 9);
    let missing = restored.missing();
    assert_eq!((&missing[0]["first"], &missing[0]["last"]), (&3.into(), &7.into()), "{missing}");
    assert_eq!((&missing[0]["state"], &missing[0]["reason"]), (&"lost".into(), &"lost with the disk".into()));
    restored.verify();
    // They are found: what was billed a second time is given back.
    let said = restored.import(kept.path(), false).unwrap();
    assert_eq!(said["documents"], 2, "{said}");
    assert_eq!(restored.missing()[0]["first"], 5);
    restored.issue("2020-12");
    let totals: Vec<_> = restored.readable().into_iter().filter(|its| its.2 < 0).collect();
    assert_eq!(totals, [of("000010", "miller", -2000, 2), of("000011", "smith", -1000, 1)]);
    restored.restart();
    let sum = restored.readable().iter().map(|its| its.2).sum();
    assert_eq!(restored.verify(), (8, sum), "numbers that are lost are no documents");
}

impl IssuingTown {
    /// As [`IssuingTown::issued`], without numbers that are lost.
    fn readable(&self) -> Vec<(String, String, i64, u64)> {
        let rows = view::billing::documents::rows(self.ledger.store(), 1).map(Result::unwrap);
        let read = rows.filter(|row| row.is_issued()).map(|row| {
            let file = row.bytes(&self.ledger).unwrap();
            let head = ReadDocument::from_bytes(&file).unwrap().head;
            let number = head.issue.as_ref().unwrap().number.split_once('-').unwrap().1.to_owned();
            (number, head.customer.debtor.name().to_owned(), head.totals.gross.minor(), head.totals.lines)
        });
        read.collect()
    }
}

#[test]
fn a_damaged_document_locks_its_account_alone_until_it_is_imported() {
    let mut town = IssuingTown::new();
    town.stay("a", "MM1", (9, 5), 1);
    town.stay("a", "SS1", (9, 5), 2);
    town.issue("2020-09");
    let files = town.all_files();
    let payments = town.ask(ServerRequest::Receivables(ReceivablesQuestion::Bookings { after: 0 })).unwrap();
    town.lose(|command| matches!(command, Command::DocumentPiece { serial: 1, .. }));
    let rebuilt = town.ask(ServerRequest::Receivables(ReceivablesQuestion::Bookings { after: 0 })).unwrap();
    assert_eq!(rebuilt, payments, "the journal does not change");
    town.stay("a", "MM1", (10, 6), 3);
    town.stay("a", "SS1", (10, 6), 4);
    let report = town.issue("2020-10");
    assert_eq!(report["documents"].as_array().unwrap().len(), 1);
    assert_eq!(report["documents"][0]["account"], "smith");
    assert!(
        report["open"].to_string().contains("\\\"miller\\\" gets no document, because document 2"),
        "{report}"
    );
    assert_eq!(town.import_copies()["documents"], 1);
    assert_eq!(town.all_files()[..2], files);
    town.issue("2020-10");
    assert_eq!(town.issued()[3], ("000004".into(), "miller".into(), 750, 1));
    town.compare();
    town.check_copies();
    let files = town.all_files();
    // The views know what it charged while its bytes are damaged: they are brought back, and nothing is charged again.
    let store = town.ledger.store().clone();
    for position in 1..=town.ledger.position() {
        if let Ok(Some(Record::Command { command: Command::DocumentPiece { serial: 2, .. }, .. })) =
            town.ledger.record_at(position)
        {
            store.put(&[b"r", &position.to_be_bytes()[..]].concat(), b"damaged").unwrap();
        }
    }
    assert_eq!(town.import_copies()["documents"], 1);
    assert_eq!(town.all_files(), files);
    assert_eq!(town.issue("2020-12")["documents"].as_array().unwrap().len(), 0);
    town.compare();
}

#[test]
fn what_says_nothing_of_whose_it_was_locks_everybody_and_numbers_go_on_behind_it() {
    type IsLost = fn(&Command) -> bool;
    let cases: [IsLost; 2] = [
        |command| {
            matches!(
                command,
                Command::DocumentPiece { serial: 1, .. } | Command::DocumentNote { serial: 1, .. }
            )
        },
        |command| matches!(command, Command::Issue { first: 1, .. }),
    ];
    for is_lost in cases {
        let mut town = IssuingTown::new();
        town.stay("a", "MM1", (9, 5), 1);
        town.stay("a", "SS1", (9, 5), 2);
        town.issue("2020-09");
        town.stay("a", "MM1", (10, 6), 3);
        town.issue("2020-10");
        let files = town.all_files();
        town.lose(is_lost);
        assert_eq!(town.is_locked().code(), codes::DOCUMENT_DAMAGED);
        assert_eq!(town.missing()[0]["state"], "damaged");
        town.import_copies();
        assert_eq!(town.all_files(), files);
        assert_eq!(town.missing(), Value::Array(Vec::new()));
        assert_eq!(town.issue("2020-12")["documents"].as_array().unwrap().len(), 0);
        town.compare();
        town.check_copies();
    }
}

#[test]
fn files_that_are_not_the_documents_of_this_series_are_refused_and_named() {
    let (town, mut restored) = town_and_backup();
    let files = town.all_files();
    let dir = tempfile::tempdir().unwrap();
    let name = |n: usize| dir.path().join(format!("{n}.{EXPORT_ENDING}"));
    let position = restored.ledger.position();
    let refuses = |restored: &mut IssuingTown, reasons: &[&str]| {
        for dry_run in [true, false] {
            let refused = restored.import(dir.path(), dry_run).unwrap_err().to_string();
            assert!(refused.ends_with("Nothing was recorded"), "{refused}");
            assert!(reasons.iter().all(|reason| refused.contains(reason)), "{refused}");
        }
        assert_eq!(restored.ledger.position(), position);
    };
    refuses(&mut restored, &["has no documents"]);
    fs::write(name(4), &files[3]).unwrap();
    refuses(&mut restored, &["document 3 is missing", "resume --last 3"]);
    let mut damaged = files[2].clone();
    damaged[40] ^= 1;
    fs::write(name(3), &damaged).unwrap();
    fs::write(name(5), "no document").unwrap();
    refuses(&mut restored, &["3.fogpost: its checksum is wrong", "5.fogpost: it is not a document"]);
    fs::remove_file(name(5)).unwrap();
    fs::write(name(3), &files[2]).unwrap();
    // Another server issued documents with the same numbers.
    let mut other = IssuingTown::new();
    other.stay("a", "SS1", (9, 5), 7);
    other.issue("2020-09");
    fs::write(name(1), &other.all_files()[0]).unwrap();
    refuses(&mut restored, &["was issued with another content"]);
    fs::remove_file(name(1)).unwrap();
    restored.operator.issuer.name = "Somebody else".into();
    restored.operator.issuer.vat_id = None;
    refuses(&mut restored, &["Stadtwerke Musterstadt", "[operator]"]);
    restored.operator = town.operator.clone();
    assert_eq!(restored.import(dir.path(), false).unwrap()["documents"], 2);
    assert_eq!(restored.all_files(), files);
}

#[test]
fn an_import_that_breaks_off_is_completed_by_the_next_one() {
    let (town, first) = town_and_backup();
    drop(first);
    for records in 0.. {
        let (_, mut restored) = town_and_backup();
        restored.records_left = records;
        let dir = Arc::clone(&restored.dir);
        let imported = restored.import(dir.path(), false);
        restored.restart();
        if imported.is_err() {
            restored.is_locked();
            restored.import_copies();
        }
        assert_eq!(restored.documents().len(), town.documents().len());
        restored.redeliver();
        assert_eq!(restored.issue("2020-12")["documents"].as_array().unwrap().len(), 0);
        restored.compare();
        restored.check_copies();
        restored.verify();
        if imported.is_ok() {
            assert!(records > 2, "it takes several records");
            return;
        }
    }
}

/// A data directory was copied by other means than `server backup`, and put back in the next year: its numbers looked new, because they
/// begin with the year, and what was on the documents of the old year was charged again.
#[test]
fn a_directory_that_was_copied_by_hand_gives_no_number_again_whatever_the_year() {
    let dated = |date: &str| IssueOrder {
        date: Some(date.parse().unwrap()),
        ..IssuingTown::order("2020-10", IssueScope::AllAccounts)
    };
    let mut town = IssuingTown::new();
    town.stay("a", "MM1", (9, 5), 1);
    town.ask(ServerRequest::Issue(dated("2020-12-01"))).unwrap();
    let position = town.ledger.position();
    town.stay("a", "MM1", (10, 6), 3);
    town.ask(ServerRequest::Issue(dated("2020-12-31"))).unwrap();
    let mut copied = town.copied_at(position, Copied::ByHand);
    copied.redeliver();
    let dry_run = IssueOrder { dry_run: true, ..dated("2021-01-04") };
    for order in [dry_run, dated("2021-01-04")] {
        let refused = copied.ask(ServerRequest::Issue(order)).unwrap_err().to_string();
        assert!(refused.contains("2020-000002, which this ledger does not know"), "{refused}");
        assert!(refused.contains("Nothing was issued"), "{refused}");
    }
    assert_eq!(copied.import_copies()["documents"], 1);
    let nothing = copied.ask(ServerRequest::Issue(dated("2021-01-04"))).unwrap();
    assert_eq!(nothing["documents"].as_array().unwrap().len(), 0);
    copied.stay("a", "SS1", (10, 7), 1);
    copied.ask(ServerRequest::Issue(dated("2021-01-04"))).unwrap();
    assert_eq!(copied.issued()[2], ("000003".into(), "smith".into(), 250, 1));
    copied.compare();
    copied.verify();
    copied.check_copies();
}

/// Only files that have lost their plates are left: what they charge is known from them all the same.
#[test]
fn a_document_without_plates_is_brought_back_like_any_other() {
    let (town, mut restored) = town_and_backup();
    let exported = tempfile::tempdir().unwrap();
    for (place, file) in town.all_files().iter().enumerate() {
        fs::write(exported.path().join(format!("{place}.{EXPORT_ENDING}")), without_plates(file).unwrap())
            .unwrap();
    }
    let said = restored.import(exported.path(), false).unwrap();
    assert_eq!((&said["documents"], &said["known"]), (&2.into(), &2.into()), "{said}");
    for _ in 0..2 {
        assert_eq!(restored.issue("2020-12")["documents"].as_array().unwrap().len(), 0);
        restored.redeliver();
    }
    let known = |town: &mut IssuingTown| town.import_copies()["known"].clone();
    assert_eq!(known(&mut restored), 4, "the copies with plates are of these documents");
    let copies = fs::read_dir(town.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let copies: Vec<_> = copies.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap()).collect();
    assert!(town.all_files().iter().all(|file| copies.contains(file)), "a copy with plates is not replaced");
    restored.compare();
    let sum = town.issued().iter().map(|its| its.2).sum();
    assert_eq!(restored.verify(), (4, sum));
}
