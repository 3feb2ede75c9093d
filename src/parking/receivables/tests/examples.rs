//! Worked examples in words.

use super::*;
use crate::parking::payment::read_payments;

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

/// Miller has two open invoices, and a stay on the younger is credited. The older was reduced, although nothing on it was wrong: miller was
/// reminded of too much for the one month, and of too little for the other.
#[test]
fn a_credit_note_offsets_the_invoice_that_it_corrects() {
    let invoices = || {
        let mut world = World::default();
        world.document(1, "miller", ISSUED, 2_000);
        world.document(2, "miller", ISSUED, 5_000);
        world
    };
    let credit_note = |serial, minor| document(serial, debtor("miller"), LATER, euro(), minor);
    let open = |world: &mut World| [1, 2, 3].map(|serial| world.of(serial).open().minor());

    let mut world = invoices();
    world.issue(&credit_note(3, -3_100), &[(2, -3_100)]);
    assert_eq!(open(&mut world), [2_000, 1_900, 0]);
    assert_eq!(world.bookings().len(), 3, "nothing is booked for the offset");
    world.pay("R-2", "", LATER, 1_900);
    world.pay("R-1", "", LATER, 2_000);
    assert_eq!((open(&mut world), world.balance("miller")), ([0; 3], (0, 0)));

    // Of the younger 4.00 were still open, so the older is offset by the rest. Money that is taken back later changes no offset.
    let mut world = invoices();
    let payment = world.pay("R-2", "", PAID, 4_600);
    world.issue(&credit_note(3, -1_000), &[(2, -1_000)]);
    assert_eq!(open(&mut world), [1_400, 0, 0]);
    world.undo(payment, LATER);
    assert_eq!((open(&mut world), world.balance("miller")), ([1_400, 4_600, 0], (6_000, 0)));

    // It takes 10.00 back from each, and another stay is new on it; what is nobody's, or another's, takes no part.
    let mut world = invoices();
    world.document(4, "smith", ISSUED, 500);
    world.issue(&credit_note(5, -1_500), &[(1, -1_000), (2, -1_000), (4, -100), (9, -100)]);
    assert_eq!([1, 2, 4].map(|serial| world.of(serial).open().minor()), [1_000, 4_500, 500]);

    // The same stay is corrected once more: the lines name the credit note, and mean the invoice.
    let mut world = invoices();
    world.issue(&credit_note(3, -1_000), &[(2, -1_000)]);
    world.save();
    world.issue(&credit_note(4, -2_000), &[(3, -2_000)]);
    world.issue(&credit_note(5, -500), &[(4, -500)]);
    assert_eq!(open(&mut world), [2_000, 1_500, 0]);

    // What an invoice takes back stands on the invoice itself.
    let mut world = invoices();
    world.issue(&credit_note(3, 700), &[(2, -300)]);
    assert_eq!(open(&mut world), [2_000, 5_000, 700]);
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
        world.issue(&document(serial, car(plate), ISSUED, euro(), minor), &[]);
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
        world.issue(&document(serial, debtor.clone(), ISSUED, euro(), minor), &[]);
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
