//! Payments from a file to the ledger, the views, the lists and the journal. Documents are issued to the views alone.

use super::commands::payments::{PreparedPayments, prepare};
use super::ledger::Ledger;
use super::receivables::*;
use super::record::Command;
use super::view::tests::{apply_ledger, issue_to_views, world};
use super::view::{View, ViewChanges, compare};
use crate::messaging::Digest;
use crate::parking::document::PlateTerm;
use crate::parking::journal::samples::{debtor, euro, rate, total};
use crate::parking::journal::{Booking, Debtor};
use crate::parking::payment::{self, Payment, PaymentId};
use crate::parking::receivables::DocumentSummary;
use crate::store::Store;
use crate::store::simulated::Disk;
use jiff::civil::{Date, date};
use serde_json::{Value, json};

const ISSUED: Date = date(2026, 12, 1);
const DUE: Date = date(2026, 12, 15);
const TODAY: Date = date(2026, 12, 20);
const HEADER: &str = "number,account,amount,currency,date,reference\n";

/// A document over `net` and 19 % VAT for November.
fn document(serial: u64, debtor: Debtor, net: i64) -> DocumentSummary {
    DocumentSummary {
        serial,
        number: format!("2026-{serial:06}"),
        debtor,
        date: ISSUED,
        due: if net > 0 { DUE } else { ISSUED },
        month: "2026-11".parse().unwrap(),
        currency: euro(),
        totals: vec![total(rate(1900), "2026-11", net, net / 100 * 19)],
    }
}

struct PaymentsWorld {
    disk: Disk,
    store: Store,
    ledger: Ledger,
    view: View,
    changes: ViewChanges,
}

impl PaymentsWorld {
    fn new() -> PaymentsWorld {
        let (disk, store, ledger) = world();
        PaymentsWorld { disk, changes: ViewChanges::on(&store), store, ledger, view: View::default() }
    }

    fn issue(&mut self, document: &DocumentSummary) {
        issue_to_views(&self.view, &mut self.changes, document);
    }

    fn prepare(&self, lines: &str) -> Result<PreparedPayments, String> {
        prepare((&self.store, None), &format!("{HEADER}{lines}"), TODAY)
    }

    /// Records an import without a look at what it says.
    fn record(&mut self, pieces: Vec<Vec<u8>>, command: Command) -> u64 {
        let position = self.ledger.record_order("ada (uid 7)", pieces, command, 5).unwrap();
        let mut changes = apply_ledger(&mut self.view, &self.ledger, &self.store);
        self.view.save(&mut changes).unwrap();
        position
    }

    fn import(&mut self, lines: &str) -> PreparedPayments {
        let mut prepared = self.prepare(lines).unwrap();
        if prepared.payments > 0 {
            let pieces = std::mem::take(&mut prepared.pieces);
            self.record(pieces, prepared.command.clone());
        }
        prepared
    }

    fn undo(&mut self, id: u64) -> Result<u64, String> {
        let command = Command::UndoPayment { payment: PaymentId(id), date: TODAY };
        self.view.judge(&self.ledger, &command).map_err(|error| error.to_string())?;
        Ok(self.record(Vec::new(), command))
    }

    fn reader(&self) -> ReceivablesReader<'_> {
        ReceivablesReader { store: &self.store, saving: None, term: PlateTerm { years: 10, today: TODAY } }
    }

    fn answer(&self, question: &ReceivablesQuestion) -> Value {
        self.reader().answer(question).unwrap()
    }

    fn open(&self, days: Option<i32>) -> Vec<String> {
        let filter = DocumentFilter {
            debtor: None,
            month: None,
            shown: DocumentsShown::Open { days },
            after: None,
            limit: 100,
        };
        let documents = self.reader().documents(&filter).unwrap().documents;
        let show = |its: &ListedDocument| {
            format!("{} {} {} {}", its.number, its.paid.minor(), its.open.minor(), its.days_past_due)
        };
        documents.iter().map(show).collect()
    }

    fn bookings(&self, after: u64) -> Vec<Booking> {
        let answer = self.answer(&ReceivablesQuestion::Bookings { after });
        JournalPart::read(&answer).unwrap().bookings
    }
}

#[test]
fn only_what_is_new_of_a_file_is_recorded() {
    let mut world = PaymentsWorld::new();
    world.issue(&document(1, debtor("miller"), 10_000));
    let first = "2026-000001,,50.00,EUR,2026-12-10,part\n,adams,3.00,EUR,2026-12-11,whatever\n";
    let prepared = world.import(first);
    assert_eq!(
        (prepared.payments, prepared.first, prepared.last),
        (2, Some(PaymentId(1)), Some(PaymentId(2)))
    );
    assert_eq!(prepared.waiting, ["line 3: it names no document"]);
    assert_eq!(world.open(None), ["2026-000001 5000 6900 5"]);
    let before = world.ledger.position();
    let again = world.import(first);
    assert_eq!((again.payments, again.first, again.skipped_total), (0, None, 2));
    assert_eq!(world.ledger.position(), before, "a file that says nothing new leaves no trace");
    let longer = format!("{first}2026-000001,,69.00,EUR,2026-12-12,rest\n");
    let third = world.import(&longer);
    assert_eq!((third.payments, third.first, third.skipped_total), (1, Some(PaymentId(3)), 2));
    assert!(third.skipped[0].contains("imported as payment 1"), "{:?}", third.skipped);
    assert_eq!(world.open(None), [""; 0]);
    let bad = world.prepare("2026-000001,,0,EUR,2026-12-10,\n,x,1,EUR,2026-12-21,\n").unwrap_err();
    assert!(bad.contains("line 2") && bad.contains("line 3") && bad.contains("future"), "{bad}");
}

/// Saved often or once, through a crash or rebuilt from the ledger: the same bytes.
#[test]
fn the_rows_are_what_a_rebuild_from_the_ledger_gives() {
    let mut world = PaymentsWorld::new();
    world.import("2026-000001,miller,50.00,EUR,2026-12-10,part\n2026-000002,,7.00,EUR,2026-12-10,\n");
    world.import(",miller,-3.00,EUR,2026-12-11,back\n,,1.00,EUR,2026-12-11,of a stranger\n");
    world.undo(2).unwrap();
    world.store.flush().unwrap();
    world.disk.power_on(0);
    let store = Store::on(world.disk.clone());
    let ledger = Ledger::open(store.clone()).unwrap();
    let scratch = Store::on(Disk::default());
    let mut rebuilt = View::default();
    let mut changes = apply_ledger(&mut rebuilt, &ledger, &scratch);
    rebuilt.save(&mut changes).unwrap();
    let mut differences = Vec::new();
    compare(&store, &scratch, &mut |place, what| differences.push((place, what))).unwrap();
    assert_eq!(differences, []);
    assert!(scratch.range(b"vbk", b"vbl").count() > 10, "there is something to compare");
}

#[test]
fn a_reversal_has_its_own_day_and_makes_an_open_item_again() {
    let mut world = PaymentsWorld::new();
    world.issue(&document(1, debtor("miller"), 10_000));
    world.import("2026-000001,,120.00,EUR,2026-12-10,too much\n");
    let unallocated = |world: &PaymentsWorld| {
        let account = None;
        world.answer(&ReceivablesQuestion::Unallocated { account, after: None })["unallocated"].clone()
    };
    let expected = json!([{
        "account": "miller", "amount": 100, "currency": "EUR", "payment": null, "document": "2026-000001",
        "date": "2026-12-01", "reference": null, "waits": null,
    }]);
    assert_eq!(unallocated(&world), expected);
    world.undo(1).unwrap();
    assert_eq!((world.open(None), unallocated(&world)), (vec!["2026-000001 0 11900 5".into()], json!([])));
    assert_eq!(world.undo(1).unwrap_err(), "payment 1 was already undone on 2026-12-20");
    assert!(world.undo(9).unwrap_err().contains("there is no payment 9"));
    let vouchers: Vec<String> =
        world.bookings(0).iter().map(|its| format!("{} {} {}", its.number, its.date, its.voucher)).collect();
    let expected = ["1 2026-12-01 Document", "2 2026-12-10 Payment 1", "3 2026-12-20 Reversal of payment 1"];
    assert_eq!(vouchers, expected);
    let listed = world.answer(&ReceivablesQuestion::Payments { account: None, after: None });
    assert_eq!(listed["payments"][0]["state"], "undone");
    assert_eq!(listed["payments"][0]["account"], "miller");
}

#[test]
fn lists_of_documents_say_what_is_open_and_since_when() {
    let mut world = PaymentsWorld::new();
    world.issue(&document(1, debtor("miller"), 10_000));
    world.issue(&document(2, debtor("adams"), 5_000));
    world.issue(&document(3, debtor("young"), -1_000));
    assert_eq!(world.open(None), ["2026-000002 0 5950 5", "2026-000001 0 11900 5", "2026-000003 0 -1190 19"]);
    assert_eq!(world.open(Some(6)), ["2026-000003 0 -1190 19"]);
    let mut filter =
        DocumentFilter { debtor: None, month: None, shown: DocumentsShown::All, after: None, limit: 2 };
    let mut numbers = Vec::new();
    loop {
        let answer = world.reader().documents(&filter).unwrap();
        numbers.extend(answer.documents.iter().map(|its| its.number.clone()));
        let Some(next) = answer.next else { break };
        filter.after = DocumentCursor::parse(&next);
    }
    assert_eq!(numbers, ["2026-000001", "2026-000002", "2026-000003"]);
    let of_adams = DocumentFilter { debtor: Some(debtor("adams")), after: None, limit: 9, ..filter };
    let answer = serde_json::to_value(world.reader().documents(&of_adams).unwrap()).unwrap();
    let expected = json!([{
        "number": "2026-000002", "kind": "invoice", "account": "adams", "plate": null, "date": "2026-12-01",
        "month": "2026-11",
        "total": 5950, "currency": "EUR", "paid": 0, "open": 5950, "due": "2026-12-15", "days_past_due": 5,
    }]);
    assert_eq!(answer["documents"], expected);
    let other = DocumentFilter { month: Some("2026-10".parse().unwrap()), ..of_adams };
    assert_eq!(world.reader().documents(&other).unwrap().documents, []);
}

#[test]
fn the_journal_comes_in_parts_and_each_booking_once() {
    let mut world = PaymentsWorld::new();
    let line = |n: usize| format!("2026-000009,miller,{n}.00,EUR,2026-12-10,{n}\n");
    world.import(&(1..=2_100).map(line).collect::<String>());
    world.issue(&document(9, debtor("miller"), 10_000));
    let (mut numbers, mut after) = (Vec::new(), 0);
    loop {
        let part = world.bookings(after);
        let Some(last) = part.last() else { break };
        after = last.number;
        numbers.extend(part.iter().map(|booking| booking.number));
    }
    // Each payment is booked when it comes; the document; and those payments again that pay it: 1 + 2 + … + 15 is 119 or more.
    assert!(numbers.iter().copied().eq(1..=2_116), "{} bookings", numbers.len());
    let beyond =
        world.reader().answer(&ReceivablesQuestion::Bookings { after: 2_117 }).unwrap_err().to_string();
    assert!(beyond.contains("bookings 1 to 2116") && beyond.contains("restored"), "{beyond}");
    // A list goes on where it ended.
    let account = Some("miller".parse().unwrap());
    let part = |after| world.answer(&ReceivablesQuestion::Payments { account: account.clone(), after });
    let (first, second) = (part(None), part(Some(PaymentId(2_000))));
    assert_eq!((&first["next"], &second["payments"][0]["id"]), (&json!("2000"), &json!(2_001)));
}

/// Whatever stands in a ledger: it is applied or not, and the views say why not.
#[test]
fn records_of_payments_that_no_import_makes_have_no_effect() {
    let mut world = PaymentsWorld::new();
    world.import("2026-000001,miller,50.00,EUR,2026-12-10,part\n");
    let sound = |reference: &str| Payment {
        number: None,
        account: None,
        money: crate::parking::money::Money::of_minor(1, euro()),
        date: ISSUED,
        reference: reference.into(),
    };
    let command = |bytes: &[u8]| Command::Payments { pieces: 1, digest: Digest::of(bytes) };
    let bad = payment::to_bytes(&[sound("good"), sound("")]);
    let cases = [
        (vec![], Command::Payments { pieces: u32::MAX, digest: Digest::of(b"") }),
        (vec![b"other".to_vec()], command(b"bytes")),
        (vec![b"\x01\xff\xff".to_vec()], command(b"\x01\xff\xff")),
        (vec![bad.clone()], command(&bad)),
        (vec![], Command::UndoPayment { payment: PaymentId(u64::MAX), date: Date::MAX }),
        (vec![], Command::UndoPayment { payment: PaymentId(1), date: Date::MIN }),
    ];
    let before: Vec<_> = world.store.range(b"vbk", b"vbl").map(Result::unwrap).collect();
    for (pieces, command) in cases {
        let position = world.record(pieces, command.clone());
        assert!(world.view.decisions.without_effect(position).is_some(), "{command:?}");
    }
    let after: Vec<_> = world.store.range(b"vbk", b"vbl").map(Result::unwrap).collect();
    assert_eq!(before, after);
}
