//! What examples and random histories begin with.

mod examples;
mod histories;

use super::*;
use crate::parking::journal::samples::{debtor, euro, rate, total};
use crate::parking::journal::{Booking, JournalAccount};
use crate::parking::money::{Money, VatRate};
use crate::parking::name::Account;
use crate::parking::plate::Plate;
use jiff::civil::date;
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
        self.issue(&document(serial, debtor(account), day, euro(), minor), &[]);
    }
    /// Each correction is the serial of an earlier document, and the sum of the lines that correct it.
    fn issue(&mut self, document: &DocumentSummary, corrections: &[(u64, i64)]) {
        self.books().apply_document(document, &self::corrections(corrections)).unwrap();
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
fn corrections(sums: &[(u64, i64)]) -> Corrections {
    sums.iter().map(|(serial, minor)| (number(*serial), Amount::of_minor(*minor))).collect()
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
