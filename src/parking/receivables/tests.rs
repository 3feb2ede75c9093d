//! Worked examples in words, and random histories against an oracle.

use super::*;
use crate::parking::journal::samples::{debtor, euro, rate, total};
use crate::parking::journal::{Booking, JournalAccount, VatBasis, Voucher};
use crate::parking::money::{Money, VatRate};
use crate::parking::name::Account;
use crate::parking::payment::read_payments;
use crate::parking::plate::Plate;
use jiff::civil::date;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Default, Clone, PartialEq)]
struct SavedMap(BTreeMap<Vec<u8>, Vec<u8>>);

impl SavedRows for SavedMap {
    type Error = String;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.get(key).cloned())
    }
    fn first(&self, from: &[u8], to: &[u8]) -> Result<Option<StoredRow>, String> {
        let first = self.0.range(from.to_vec()..to.to_vec()).next();
        Ok(first.map(|(key, row)| (key.clone(), row.clone())))
    }
    fn damaged(&self, key: &[u8]) -> String {
        format!("damaged: {key:02x?}")
    }
}

#[derive(Default)]
struct World {
    saved: SavedMap,
    changes: RowChanges,
}

impl World {
    fn books(&mut self) -> Receivables<'_, SavedMap> {
        Receivables::new(&self.saved, &mut self.changes)
    }
    fn save(&mut self) {
        for (key, row) in std::mem::take(&mut self.changes) {
            match row {
                Some(row) => _ = self.saved.0.insert(key, row),
                None => _ = self.saved.0.remove(&key),
            }
        }
    }
    /// A document over `minor` with 19 % VAT.
    fn document(&mut self, serial: u64, account: &str, day: Date, minor: i64) {
        self.books().apply_document(&document(serial, debtor(account), day, euro(), minor)).unwrap();
    }
    fn pay(&mut self, number: &str, account: &str, day: Date, minor: i64) -> PaymentId {
        self.books()
            .apply_payments(&[payment(number, account, day, Money::of_minor(minor, euro()))])
            .unwrap();
        PaymentId(self.books().counters().unwrap().payments)
    }
    fn undo(&mut self, id: PaymentId, day: Date) {
        self.books().apply_undo(id, day).unwrap().unwrap();
    }
    fn of(&mut self, serial: u64) -> DocumentBalance {
        self.books().document(serial).unwrap().unwrap()
    }
    /// (paid, open) of a document.
    fn paid_open(&mut self, serial: u64) -> (i64, i64) {
        let balance = self.of(serial);
        (balance.paid().minor(), balance.open().minor())
    }
    /// (open, unallocated) of an account.
    fn balance(&mut self, account: &str) -> (i64, i64) {
        let balance = self.books().balance(Some(&debtor(account)), euro()).unwrap();
        (balance.open.minor(), balance.unallocated.minor())
    }
    fn state(&mut self, id: PaymentId) -> PaymentState {
        self.books().payment(id).unwrap().unwrap().state
    }
    /// The money of an owner in a currency that pays no document.
    fn unallocated(&mut self, owner: Option<&Debtor>, currency: Currency) -> Vec<(UnallocatedSource, i64)> {
        let all: Vec<_> = self.books().all_unallocated(owner, None).map(Result::unwrap).collect();
        let its = all.iter().filter(|its| its.owner.as_ref() == owner && its.money.currency == currency);
        its.map(|its| (its.source, its.money.minor())).collect()
    }
    fn bookings(&mut self) -> Vec<Booking> {
        self.books().bookings(0).map(Result::unwrap).collect()
    }
    /// `3 2026-12-05 Payment 1: bank 100, …`.
    fn journal(&mut self) -> Vec<String> {
        let name = |account: &JournalAccount| match account {
            JournalAccount::Bank => "bank".to_owned(),
            JournalAccount::Receivable(debtor) => debtor.clone(),
            JournalAccount::Unallocated(None) => "unallocated".into(),
            JournalAccount::Unallocated(Some(debtor)) => format!("unallocated {debtor}"),
            JournalAccount::VatOwed(rate) => format!("VAT {rate}"),
            JournalAccount::Revenue(_) => "revenue".into(),
        };
        let show = |booking: &Booking| {
            let lines: Vec<_> = booking
                .lines
                .iter()
                .map(|line| format!("{} {}", name(&line.account), line.amount.minor()))
                .collect();
            let about = booking.document.as_deref().unwrap_or("-");
            format!("{} {} {} {about}: {}", booking.number, booking.date, booking.voucher, lines.join(", "))
        };
        self.bookings().iter().map(show).collect()
    }
}

fn document(serial: u64, debtor: Debtor, day: Date, currency: Currency, minor: i64) -> DocumentSummary {
    let vat = minor - VatRate::of_hundredths(1900).unwrap().net_of(Amount::of_minor(minor)).minor();
    DocumentSummary {
        serial,
        number: number(serial),
        debtor,
        date: day,
        due: day,
        month: "2026-11".parse().unwrap(),
        currency,
        totals: vec![total(rate(1900), "2026-11", minor - vat, vat)],
    }
}
fn number(serial: u64) -> String {
    format!("R-{serial}")
}
fn payment(number: &str, account: &str, date: Date, money: Money) -> Payment {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Payment {
        number: some(number),
        account: some(account).map(|its| Account::new(&its).unwrap()),
        money,
        date,
        reference: "r".into(),
    }
}

const ISSUED: Date = date(2026, 12, 1);
const PAID: Date = date(2026, 12, 5);
const LATER: Date = date(2026, 12, 20);

/// An invoice of 119.00 is paid in two parts.
#[test]
fn an_invoice_is_open_until_payments_reach_its_total() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 11_900);
    assert_eq!(world.paid_open(1), (0, 11_900));
    world.pay("R-1", "", PAID, 6_000);
    assert_eq!((world.paid_open(1), world.balance("miller")), ((6_000, 5_900), (5_900, 0)));
    world.pay("R-1", "miller", LATER, 5_900);
    assert_eq!((world.paid_open(1), world.balance("miller")), ((11_900, 0), (0, 0)));
    let expected = [
        "1 2026-12-01 Document R-1: miller 11900, revenue -10000, VAT 19 -1900",
        "2 2026-12-05 Payment 1 R-1: bank 6000, miller -6000",
        "3 2026-12-20 Payment 2 R-1: bank 5900, miller -5900",
    ];
    assert_eq!(world.journal(), expected);
}

/// 150.00 came for an invoice of 119.00: 31.00 stay visible until they are paid back.
#[test]
fn what_was_paid_too_much_stays_visible_until_it_is_paid_back() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 11_900);
    world.pay("R-1", "", PAID, 15_000);
    assert_eq!((world.paid_open(1), world.balance("miller")), ((11_900, 0), (0, 3_100)));
    let entry = (UnallocatedSource::Document(1), 3_100);
    assert_eq!(world.unallocated(Some(&debtor("miller")), euro()), [entry]);
    world.document(2, "miller", LATER, 11_900);
    assert_eq!(world.paid_open(2), (0, 11_900), "nobody said that it pays the next invoice");
    world.pay("R-1", "", LATER, -3_100);
    assert_eq!((world.paid_open(1), world.balance("miller")), ((11_900, 0), (11_900, 0)));
    assert_eq!(world.unallocated(Some(&debtor("miller")), euro()), []);
    assert_eq!(
        world.journal()[1],
        "2 2026-12-05 Payment 1 R-1: bank 15000, miller -11900, unallocated miller -3100"
    );
    assert_eq!(world.journal()[3], "4 2026-12-20 Payment 2 R-1: bank -3100, unallocated miller 3100");
}

/// The bank takes a direct debit of 50.00 back: the invoice is open again.
#[test]
fn money_paid_back_opens_a_paid_invoice_again() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 11_900);
    world.pay("R-1", "", PAID, 11_900);
    world.pay("R-1", "", LATER, -5_000);
    assert_eq!((world.paid_open(1), world.balance("miller")), ((6_900, 5_000), (5_000, 0)));
}

/// Four stays of November are credited in December: the credit note of 31.00 offsets the older of two invoices first, also where it
/// comes first. Nothing is booked for the offset, since both are receivables of one account. November's documents and bookings stay.
#[test]
fn a_credit_note_offsets_the_oldest_open_invoice() {
    for order in [[1, 2, 3], [3, 1, 2], [1, 3, 2]] {
        let mut world = World::default();
        for serial in order {
            world.document(serial, "miller", ISSUED, [2_000, 5_000, -3_100][serial as usize - 1]);
        }
        assert_eq!(
            [1, 2, 3].map(|serial| world.paid_open(serial)),
            [(2_000, 0), (1_100, 3_900), (-3_100, 0)],
            "{order:?}"
        );
        assert_eq!(world.balance("miller"), (3_900, 0));
        assert_eq!(world.bookings().len(), 3);
    }
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 2_000);
    let (before, row) = (world.journal(), world.of(1));
    world.document(2, "miller", LATER, -500);
    assert_eq!(world.journal()[..1], before, "what was booked stays");
    assert_eq!((row.total, row.date), (world.of(1).total, world.of(1).date));
    assert_eq!(world.journal()[1], "2 2026-12-20 Document R-2: miller -500, revenue 420, VAT 19 80");
}

/// An invoice is paid before a credit note corrects it: the credit note is open, and is paid back.
#[test]
fn a_credit_note_for_a_paid_invoice_is_open_until_it_is_paid_back() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 11_900);
    world.pay("R-1", "", PAID, 11_900);
    world.document(2, "miller", LATER, -3_100);
    assert_eq!((world.paid_open(2), world.balance("miller")), ((0, -3_100), (-3_100, 0)));
    world.pay("R-2", "", LATER, -3_100);
    assert_eq!((world.paid_open(2), world.balance("miller")), ((-3_100, 0), (0, 0)));
}

/// The customer did not see the credit note and pays the whole invoice: 31.00 are too much. Paying them back may name either document.
#[test]
fn a_payment_of_an_offset_amount_is_too_much() {
    for refund in ["R-1", "R-2"] {
        let mut world = World::default();
        world.document(1, "miller", ISSUED, 11_900);
        world.document(2, "miller", ISSUED, -3_100);
        world.pay("R-1", "", PAID, 11_900);
        assert_eq!((world.paid_open(1), world.balance("miller")), ((11_900, 0), (0, 3_100)));
        world.pay(refund, "", LATER, -3_100);
        assert_eq!(world.balance("miller"), (0, 0));
        assert_eq!(world.unallocated(Some(&debtor("miller")), euro()), []);
        world.save();
        let begins = |table: &u8| world.saved.0.keys().filter(|key| key[0] == *table).count();
        assert_eq!(b"aou".iter().map(begins).sum::<usize>(), 0, "an account without open items has no rows");
    }
}

/// 50.00 came with a mistyped number. It is undone, and imported again with the right one.
#[test]
fn a_payment_of_an_unknown_number_waits_until_a_person_corrects_it() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 5_000);
    let wrong = world.pay("R-9", "", PAID, 5_000);
    assert_eq!(world.state(wrong), PaymentState::Waiting(Waits::UnknownNumber));
    assert_eq!(world.unallocated(None, euro()).len(), 1);
    world.undo(wrong, LATER);
    world.pay("R-1", "", PAID, 5_000);
    assert_eq!((world.paid_open(1), world.unallocated(None, euro())), ((5_000, 0), vec![]));
    let expected = [
        "2 2026-12-05 Payment 1 -: bank 5000, unallocated -5000",
        "3 2026-12-20 Reversal of payment 1 -: bank -5000, unallocated 5000",
        "4 2026-12-05 Payment 2 R-1: bank 5000, miller -5000",
    ];
    assert_eq!(world.journal()[1..], expected);
}

/// A restored server gets the payments before the documents: what names a document is allocated when it comes, except a payment that
/// is older than the document, which must have meant another.
#[test]
fn a_document_that_comes_later_receives_what_waits_for_it() {
    let mut world = World::default();
    let older = world.pay("R-1", "", date(2026, 11, 30), 100);
    let undone = world.pay("R-1", "", PAID, 200);
    world.undo(undone, LATER);
    let of_smith = world.pay("R-1", "smith", PAID, 300);
    let fits = world.pay("R-1", "miller", PAID, 6_000);
    let stranger = world.pay("R-1", "", PAID, 7_000);
    assert_eq!((world.balance("miller"), world.balance("smith")), ((0, 6_000), (0, 300)));
    world.document(1, "miller", ISSUED, 11_900);
    assert_eq!(
        (world.paid_open(1), world.balance("miller"), world.balance("smith")),
        ((11_900, 0), (0, 1_100), (0, 300))
    );
    let states = [older, of_smith, fits, stranger].map(|id| world.state(id));
    assert_eq!(
        states,
        [
            PaymentState::Waiting(Waits::BeforeDocument),
            PaymentState::Waiting(Waits::OtherAccount),
            PaymentState::Received(1),
            PaymentState::Received(1),
        ]
    );
    let expected = [
        "8 2026-12-05 Allocation of payment 4 R-1: unallocated miller 6000, miller -6000",
        "9 2026-12-05 Allocation of payment 5 R-1: unallocated 7000, miller -5900, unallocated miller -1100",
    ];
    assert_eq!(world.journal()[7..], expected);
    let before = world.changes.clone();
    world.document(1, "miller", LATER, 99);
    assert_eq!(world.changes, before, "a document that is known changes nothing");
}

#[test]
fn money_of_another_currency_waits() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 5_000);
    let dollar = Money::of_minor(5_000, Currency::new("USD").unwrap());
    world.books().apply_payments(&[payment("R-1", "", PAID, dollar)]).unwrap();
    assert_eq!(world.state(PaymentId(1)), PaymentState::Waiting(Waits::OtherCurrency));
    assert_eq!(world.paid_open(1), (0, 5_000));
}

#[test]
fn a_payment_of_only_an_account_waits_on_it() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 5_000);
    let id = world.pay("", "miller", PAID, 2_000);
    assert_eq!(world.state(id), PaymentState::Waiting(Waits::NoNumber));
    assert_eq!((world.paid_open(1), world.balance("miller")), ((0, 5_000), (5_000, 2_000)));
    let entry = (UnallocatedSource::Payment(id), 2_000);
    assert_eq!(world.unallocated(Some(&debtor("miller")), euro()), [entry]);
}

/// Of two payments of one invoice, the first turns out to be wrong: the second, which was too much until then, pays the invoice.
#[test]
fn an_undone_payment_is_reversed_on_its_day_and_stays_listed() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 5_000);
    let first = world.pay("R-1", "", PAID, 5_000);
    world.pay("R-1", "", PAID, 4_000);
    assert_eq!(
        world.books().apply_undo(first, date(2026, 12, 4)).unwrap(),
        Err(UndoError::Earlier(first, PAID))
    );
    world.undo(first, LATER);
    assert_eq!((world.paid_open(1), world.balance("miller")), ((4_000, 1_000), (1_000, 0)));
    assert_eq!(
        world.journal()[3],
        "4 2026-12-20 Reversal of payment 1 R-1: bank -5000, miller 1000, unallocated miller 4000"
    );
    let listed: Vec<_> = world.books().payments(PaymentId(0)).map(Result::unwrap).collect();
    assert_eq!(
        listed.iter().map(|(id, row)| (id.0, row.undone)).collect::<Vec<_>>(),
        [(1, Some(LATER)), (2, None)]
    );
    let before = world.changes.clone();
    assert_eq!(world.books().apply_undo(first, LATER).unwrap(), Err(UndoError::Undone(first, LATER)));
    assert_eq!(world.books().apply_undo(PaymentId(3), LATER).unwrap(), Err(UndoError::Unknown(PaymentId(3))));
    assert_eq!(world.changes, before);
}

/// Two unregistered cars are two debtors, and share the journal's account "unregistered".
#[test]
fn a_credit_note_of_one_unregistered_car_does_not_offset_anothers_invoice() {
    let mut world = World::default();
    let car = |plate| Debtor::Plate(Plate::new(plate).unwrap());
    for (serial, plate, minor) in [(1, "AB1", 700), (2, "AB2", -300), (3, "AB1", -200)] {
        world.books().apply_document(&document(serial, car(plate), ISSUED, euro(), minor)).unwrap();
    }
    assert_eq!([1, 2, 3].map(|serial| world.paid_open(serial)), [(200, 500), (0, -300), (-200, 0)]);
    assert!(world.journal()[0].contains("unregistered 700"));
}

/// What each of its documents has open stays, with the amount that was paid too much, and becomes that document's own.
#[test]
fn a_document_without_its_plate_has_balances_of_its_own() {
    let mut world = World::default();
    let car = Debtor::Plate(Plate::new("AB1").unwrap());
    for (serial, debtor, minor) in [(1, &car, 700), (2, &car, 500), (3, &car, 300)] {
        world.books().apply_document(&document(serial, debtor.clone(), ISSUED, euro(), minor)).unwrap();
    }
    world.pay("R-1", "", LATER, 100);
    world.pay("R-2", "", LATER, 540);
    world.save();
    let journal = world.journal();
    let of = |world: &mut World, debtor: &Debtor| {
        let balance = world.books().balance(Some(debtor), euro()).unwrap();
        let listed = world.unallocated(Some(debtor), euro()).iter().map(|its| its.1).sum::<i64>();
        assert_eq!(balance.unallocated.minor(), listed);
        (balance.open.minor(), listed)
    };
    assert_eq!(of(&mut world, &car), (900, 40));
    for serial in [1, 2] {
        world.books().remove_plate(serial).unwrap();
    }
    let own = |document| Debtor::PlateRemoved { document };
    let balances = [car.clone(), own(1), own(2)].map(|debtor| of(&mut world, &debtor));
    assert_eq!(balances, [(300, 0), (600, 0), (0, 40)]);
    assert_eq!([1, 2, 3].map(|serial| world.paid_open(serial)), [(100, 600), (500, 0), (0, 300)]);
    assert_eq!(world.journal(), journal);
    world.books().remove_plate(3).unwrap();
    world.save();
    let names_it = |bytes: &[u8]| bytes.windows(3).any(|part| part == b"AB1");
    assert!(!world.saved.0.iter().any(|(key, row)| names_it(key) || names_it(row)));
    let saved = world.saved.0.clone();
    (1..=4).for_each(|serial| world.books().remove_plate(serial).unwrap());
    world.save();
    assert_eq!(world.saved.0, saved, "there is nothing left to remove");
    world.pay("R-1", "", LATER, 600);
    assert_eq!((of(&mut world, &own(1)), world.paid_open(1)), ((0, 0), (700, 0)));
}

#[test]
fn what_was_imported_already_is_skipped_and_said() {
    let mut world = World::default();
    world.document(17, "miller", ISSUED, 5_000);
    let header = "number,account,amount,currency,date,reference\n";
    let plan = |world: &mut World, lines: &str| {
        let file = read_payments(&format!("{header}{lines}"), LATER).unwrap();
        world.books().plan_import(&file).unwrap()
    };
    let first = plan(&mut world, "R-17,,5.00,EUR,2026-12-05,\nR-18,,5.00,EUR,2026-12-05,\n");
    assert_eq!((first.payments.len(), &first.waiting[..]), (2, &[(3, Waits::UnknownNumber)][..]));
    world.books().apply_payments(&first.payments).unwrap();
    world.undo(PaymentId(2), LATER);
    let again = plan(
        &mut world,
        "R-17,miller,5,EUR,2026-12-05,\n\
         R-18,,5.00,EUR,2026-12-05,\n\
         R-17,,5.00,EUR,2026-12-05,second\n\
         R-17,,5.00,EUR,2026-12-05,second\n\
         ,miller,7.00,EUR,2026-12-05,\n",
    );
    let said: Vec<_> = again.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "line 2: skipped: it was imported as payment 1; if it is another payment of the same number, amount and date, give it a \
         reference of its own",
            "line 3: skipped: it was imported as payment 2, which was undone on 2026-12-20; to import it again, give it another reference",
            "line 5: skipped: it says the same as line 4; if there were two payments, give them different references",
        ]
    );
    assert_eq!(again.payments.len(), 2);
    assert_eq!(again.waiting, [(6, Waits::NoNumber)]);
}

#[test]
fn open_documents_are_listed_by_account_with_their_age() {
    let mut world = World::default();
    for (serial, account, minor) in
        [(1, "smith", 100), (2, "miller", 200), (3, "miller", 300), (4, "miller", 400), (5, "a", 0)]
    {
        world.document(serial, account, ISSUED, minor);
    }
    world.pay("R-3", "", PAID, 300);
    world.save();
    let all: Vec<_> = world.books().open_documents(None, None).map(Result::unwrap).collect();
    assert_eq!(all.iter().map(|its| its.serial).collect::<Vec<_>>(), [2, 4, 1]);
    let behind = |world: &mut World, debtor: Option<&Debtor>| -> Vec<u64> {
        world.books().open_documents(debtor, Some(&all[0].cursor)).map(|its| its.unwrap().serial).collect()
    };
    assert_eq!(behind(&mut world, None), [4, 1]);
    assert_eq!(behind(&mut world, Some(&debtor("miller"))), [4]);
    assert_eq!(behind(&mut world, Some(&debtor("a"))), [0; 0]);
    assert_eq!(world.books().open_documents(None, Some(&[255; 40])).count(), 0, "a cursor of somebody else");
    assert_eq!([ISSUED, PAID, date(2027, 1, 1)].map(|today| all[0].balance.days_past_due(today)), [0, 4, 31]);
    assert_eq!(world.books().serial_of("R-4").unwrap(), Some(4));
    assert_eq!(world.books().documents(3).map(|its| its.unwrap().0).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn a_listed_payment_says_what_became_of_it() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 5_000);
    world.pay("R-1", "", PAID, 100);
    let waiting = world.pay("R-9", "miller", PAID, -200);
    world.undo(waiting, LATER);
    let rows: Vec<_> = world.books().payments(PaymentId(0)).map(Result::unwrap).collect();
    let mut json = |n: usize| {
        let (id, row) = &rows[n];
        let owner = world.books().owner_of(row).unwrap();
        serde_json::to_string(&ListedPayment::of(*id, row, owner.as_ref())).unwrap()
    };
    assert_eq!(
        json(0),
        r#"{"id":1,"number":"R-1","account":"miller","amount":100,"currency":"EUR","date":"2026-12-05","reference":"r","state":"received","waits":null,"undone_on":null}"#
    );
    assert_eq!(
        json(1),
        r#"{"id":2,"number":"R-9","account":"miller","amount":-200,"currency":"EUR","date":"2026-12-05","reference":"r","state":"undone","waits":"unknown_number","undone_on":"2026-12-20"}"#
    );
}

/// Of nobody, of two accounts, and after an overpayment.
#[test]
fn all_unallocated_money_is_listed_with_its_owner() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 5_000);
    world.pay("R-9", "", PAID, 300);
    world.pay("R-1", "", PAID, 5_100);
    world.pay("", "adams", PAID, 700);
    let (nobody, miller, adams) = (None, Some(debtor("miller")), Some(debtor("adams")));
    let mut list = |debtor: Option<&Debtor>, after: Option<&[u8]>| -> Vec<OwnedUnallocated> {
        world.books().all_unallocated(debtor, after).map(Result::unwrap).collect()
    };
    let all = list(None, None);
    let shown: Vec<_> =
        all.iter().map(|its| (its.owner.clone(), its.money.amount.minor(), its.source)).collect();
    let of_payment = |id| UnallocatedSource::Payment(PaymentId(id));
    let expected = [
        (nobody, 300, of_payment(1)),
        (adams, 700, of_payment(3)),
        (miller.clone(), 100, UnallocatedSource::Document(1)),
    ];
    assert_eq!(shown, expected);
    assert_eq!(all[1].payment.as_ref().map(|row| row.state), Some(PaymentState::Waiting(Waits::NoNumber)));
    assert_eq!(list(None, Some(&all[0].cursor)), all[1..]);
    assert_eq!(list(miller.as_ref(), Some(&all[0].cursor)), all[2..]);
}

/// Two payments of nobody knows whom cancelled out, and one of them turned out to be miller's: what is left was listed as miller's.
#[test]
fn what_is_left_of_payments_that_cancelled_out_has_the_owner_that_it_had() {
    let mut world = World::default();
    world.pay("R-1", "", PAID, 300);
    world.pay("R-2", "", PAID, -300);
    assert_eq!(world.unallocated(None, euro()), []);
    world.document(2, "miller", ISSUED, -300);
    assert_eq!((world.paid_open(2), world.balance("miller")), ((-300, 0), (0, 0)));
    let left: Vec<i64> = world.unallocated(None, euro()).iter().map(|its| its.1).collect();
    assert_eq!(left, [300]);
    assert_eq!(world.unallocated(Some(&debtor("miller")), euro()), []);
}

#[test]
fn a_damaged_row_is_an_error() {
    let mut world = World::default();
    world.document(1, "miller", ISSUED, 100);
    world.save();
    for row in world.saved.0.values_mut() {
        row[0] = 9;
    }
    assert!(world.books().document(1).is_err());
    assert!(world.books().bookings(0).next().unwrap().is_err());
    assert_eq!(world.books().bookings(0).count(), 1, "a reader stops there");
}

#[derive(Debug, Clone)]
enum Fact {
    Document(DocumentSummary),
    Payment(Payment),
    Undo(PaymentId, Date),
}

fn day(n: i64) -> Date {
    ISSUED.checked_add(jiff::Span::new().days(n)).unwrap()
}

fn debtors() -> [Debtor; 4] {
    let plate = |text| Debtor::Plate(Plate::new(text).unwrap());
    [debtor("miller"), debtor("smith"), plate("AB1"), plate("AB2")]
}

fn currencies() -> [Currency; 2] {
    [euro(), Currency::new("JPY").unwrap()]
}

/// Facts of a ledger in its order: serials ascend, and so do the dates of documents.
fn histories() -> impl Strategy<Value = Vec<Fact>> {
    let documents = (0..4usize, 0..10u8, -40..100i64);
    let money = (0..10u8, (-30..60i64).prop_filter("a payment", |minor| *minor != 0));
    // Number: up to 12 serials, of which some never come; 0: none. Account: 0: none.
    let payments = (0..14u64, 0..4usize, money, -2..12i64);
    let fact = prop_oneof![
        3 => documents.prop_map(|its| (Some(its), None, None)),
        6 => payments.prop_map(|its| (None, Some(its), None)),
        2 => (1..20u64, 0..9i64).prop_map(|its| (None, None, Some(its))),
    ];
    prop::collection::vec(fact, 0..40).prop_map(|facts| {
        let mut serial = 0;
        let currency = |n: u8| currencies()[usize::from(n == 0)];
        let facts = facts.into_iter().enumerate().map(|(at, fact)| match fact {
            (Some((whose, money, minor)), _, _) => {
                serial += 1;
                let its =
                    document(serial, debtors()[whose].clone(), day(at as i64 / 5), currency(money), minor);
                Fact::Document(its)
            }
            (_, Some((number_of, account, (money, minor), paid)), _) => {
                let mut its = payment(
                    "",
                    ["", "miller", "smith", ""][account],
                    day(paid),
                    Money::of_minor(minor, currency(money)),
                );
                its.number = (number_of > 0).then(|| number(number_of));
                its.reference = format!("r{at}");
                Fact::Payment(its)
            }
            (_, _, undo) => {
                undo.map(|(id, on)| Fact::Undo(PaymentId(id), day(on))).expect("one of the three")
            }
        });
        facts.collect()
    })
}

/// What the facts mean, said in the simplest way: sums over lists.
#[derive(Default)]
struct Oracle {
    documents: Vec<DocumentSummary>,
    payments: Vec<(Payment, Option<Date>)>,
}

impl Oracle {
    fn take(&mut self, fact: &Fact) {
        match fact {
            Fact::Document(its) => self.documents.push(its.clone()),
            Fact::Payment(its) => self.payments.push((its.clone(), None)),
            Fact::Undo(id, on) => {
                if let Some((its, undone @ None)) = self.payments.get_mut(id.0 as usize - 1)
                    && *on >= its.date
                {
                    *undone = Some(*on);
                }
            }
        }
    }
    /// The debtor whose money the payment is.
    fn owner(&self, payment: &Payment) -> Option<Debtor> {
        let account = payment.account.clone().map(Debtor::Account);
        let fits = |document: &&DocumentSummary| {
            Some(&document.number) == payment.number.as_ref()
                && document.currency == payment.money.currency
                && account.as_ref().is_none_or(|account| *account == document.debtor)
                && document.date <= payment.date
        };
        self.documents.iter().find(fits).map(|its| its.debtor.clone()).or(account)
    }
    fn total(document: &DocumentSummary) -> i64 {
        document.totals.iter().map(|its| its.net.minor() + its.vat.minor()).sum()
    }
    fn owed(&self, owner: Option<&Debtor>, currency: Currency) -> i64 {
        let documents =
            self.documents.iter().filter(|its| Some(&its.debtor) == owner && its.currency == currency);
        let paid = self.payments.iter().filter(|(its, undone)| {
            undone.is_none() && its.money.currency == currency && self.owner(its).as_ref() == owner
        });
        documents.map(Oracle::total).sum::<i64>() - paid.map(|(its, _)| its.money.minor()).sum::<i64>()
    }
}

fn check(world: &mut World, oracle: &Oracle) -> Result<(), TestCaseError> {
    let owners: Vec<Option<Debtor>> = debtors().into_iter().map(Some).chain([None]).collect();
    let mut expected = BTreeMap::<(Currency, JournalAccount), i64>::new();
    for currency in currencies() {
        for owner in &owners {
            let balance = world.books().balance(owner.as_ref(), currency).unwrap();
            let (open, unallocated) = (balance.open.minor(), balance.unallocated.minor());
            prop_assert_eq!(
                open - unallocated,
                oracle.owed(owner.as_ref(), currency),
                "{:?} {}",
                owner,
                currency
            );
            let entries: i64 = world.unallocated(owner.as_ref(), currency).iter().map(|its| its.1).sum();
            prop_assert_eq!(entries, unallocated);
            let listed: Vec<i64> = match owner {
                None => Vec::new(),
                Some(_) => {
                    let all = world
                        .books()
                        .open_documents(owner.as_ref(), None)
                        .map(Result::unwrap)
                        .collect::<Vec<_>>();
                    all.iter()
                        .filter(|its| its.balance.currency == currency)
                        .map(|its| its.balance.open().minor())
                        .collect()
                }
            };
            prop_assert_eq!(listed.iter().sum::<i64>(), open);
            prop_assert!(
                listed.iter().all(|its| its.signum() == open.signum()),
                "credit notes were offset: {:?}",
                listed
            );
            let name = owner.as_ref().map(|its| its.name().to_owned());
            if let Some(name) = &name {
                *expected.entry((currency, JournalAccount::Receivable(name.clone()))).or_default() += open;
            }
            *expected.entry((currency, JournalAccount::Unallocated(name))).or_default() -= unallocated;
        }
        let of_currency =
            oracle.payments.iter().filter(|(its, undone)| undone.is_none() && its.money.currency == currency);
        expected
            .insert((currency, JournalAccount::Bank), of_currency.map(|(its, _)| its.money.minor()).sum());
        let totals =
            oracle.documents.iter().filter(|its| its.currency == currency).flat_map(|its| &its.totals);
        for its in totals {
            *expected.entry((currency, JournalAccount::Revenue(its.basis.clone()))).or_default() -=
                its.net.minor();
            let VatBasis::Rate(rate) = its.basis else { continue };
            *expected.entry((currency, JournalAccount::VatOwed(rate))).or_default() -= its.vat.minor();
        }
    }
    let mut held = BTreeMap::<(Currency, JournalAccount), i64>::new();
    for (n, booking) in world.bookings().iter().enumerate() {
        prop_assert_eq!(booking.number, n as u64 + 1);
        prop_assert!(booking.lines.len() > 1 && booking.lines.iter().all(|line| line.amount != Amount::ZERO));
        prop_assert_eq!(booking.lines.iter().map(|line| line.amount.minor()).sum::<i64>(), 0);
        prop_assert!(
            booking.lines.iter().all(|line| line.month.is_some() == (booking.voucher == Voucher::Document))
        );
        for line in &booking.lines {
            *held.entry((booking.currency, line.account.clone())).or_default() += line.amount.minor();
        }
    }
    held.retain(|_, sum| *sum != 0);
    expected.retain(|_, sum| *sum != 0);
    prop_assert_eq!(held, expected);
    for its in &oracle.documents {
        let balance = world.of(its.serial);
        let (paid, total) = (balance.paid().minor(), Oracle::total(its));
        prop_assert!((total.min(0)..=total.max(0)).contains(&paid), "paid {} of {}", paid, total);
        prop_assert_eq!(
            (&balance.number, balance.date, balance.total.minor()),
            (&its.number, its.date, total)
        );
    }
    Ok(())
}

/// Applies facts, payments that follow each other in groups of at most `batch`.
fn apply(world: &mut World, facts: &[Fact], batch: usize) {
    let mut payments = Vec::new();
    for (n, fact) in facts.iter().enumerate() {
        if let Fact::Payment(its) = fact {
            payments.push(its.clone());
        }
        if payments.len() >= batch || !matches!(facts.get(n + 1), Some(Fact::Payment(_))) {
            world.books().apply_payments(&std::mem::take(&mut payments)).unwrap();
        }
        match fact {
            Fact::Document(its) => world.books().apply_document(its).unwrap(),
            Fact::Undo(id, on) => _ = world.books().apply_undo(*id, *on).unwrap(),
            Fact::Payment(_) => (),
        }
    }
}

proptest! {
    #[test]
    fn open_items_and_journal_are_what_the_facts_add_up_to(facts in histories()) {
        let (mut world, mut oracle) = (World::default(), Oracle::default());
        let mut booked: Vec<Booking> = Vec::new();
        for fact in &facts {
            apply(&mut world, std::slice::from_ref(fact), 1);
            oracle.take(fact);
            check(&mut world, &oracle)?;
            let now = world.bookings();
            prop_assert_eq!(&now[..booked.len()], &booked[..], "what was booked stays");
            booked = now;
        }
    }

    #[test]
    fn nothing_depends_on_how_payments_are_imported_or_when_rows_are_saved(
        facts in histories(), batch in 1..9usize, saves in prop::collection::vec(any::<bool>(), 40),
    ) {
        let (mut one, mut other) = (World::default(), World::default());
        apply(&mut one, &facts, 1);
        one.save();
        let mut from = 0;
        for (n, _) in facts.iter().enumerate().filter(|(n, _)| saves[*n]) {
            apply(&mut other, &facts[from..n], batch);
            other.save();
            from = n;
        }
        apply(&mut other, &facts[from..], batch);
        other.save();
        prop_assert_eq!(one.saved, other.saved);
    }

    /// Where nothing is offset, the order of payments and documents does not matter either.
    #[test]
    fn without_credit_notes_the_order_of_payments_does_not_matter(facts in histories(), seed in any::<u64>()) {
        let mut facts: Vec<Fact> = facts.into_iter().filter(|fact| match fact {
            Fact::Document(its) => Oracle::total(its) > 0,
            Fact::Payment(_) => true,
            Fact::Undo(..) => false,
        }).collect();
        let result = |facts: &[Fact]| {
            let mut world = World::default();
            apply(&mut world, facts, 3);
            let documents: Vec<_> = world.books().documents(0).map(Result::unwrap).collect();
            let owners = debtors().into_iter().map(Some).chain([None]).collect::<Vec<_>>();
            let balances: Vec<_> =
                owners.iter().flat_map(|owner| currencies().map(|its| (owner.clone(), its))).map(|(owner, currency)| {
                    world.books().balance(owner.as_ref(), currency).unwrap()
                }).collect();
            (documents, balances)
        };
        let before = result(&facts);
        let mut state = seed;
        for n in (1..facts.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            facts.swap(n, (state >> 33) as usize % (n + 1));
        }
        prop_assert_eq!(before, result(&facts));
    }
}
