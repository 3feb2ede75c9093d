//! The journal: documents and payments as double entries, for the books of the operator.
//!
//! **Promise.** Each booking has one currency and balances to the minor unit; a month that a document supplies balances within it. What
//! receivables hold of a debtor is the sum of the debtor's open items. Bookings are numbered 1, 2, 3, … in the order of the ledger and
//! never change, so that an export of those after a number gives each exactly once.
//! **Kept by.** Bookings follow from documents and payments alone; a correction or reversal is a booking of its own date.
//! **Not promised.** That dates ascend: a payment is dated by the day on which it was received, and may be imported later.
//!
//! | account | holds |
//! | --- | --- |
//! | `assets:bank` | money received, less what was paid back |
//! | `assets:receivable:ACCOUNT` | what an account owes; `…:unregistered` for documents of unregistered cars |
//! | `liabilities:unallocated:ACCOUNT` | money of an account that pays no document; without a name: of nobody knows whom |
//! | `liabilities:vat:RATE` | VAT owed, per rate |
//! | `revenues:parking:RATE` | net revenue per rate; `…:no VAT:REASON` where none is charged |
//!
//! Each account holds amounts of several currencies side by side, as bookkeeping programs keep them.

mod csv;
mod hledger;

pub use csv::write_csv;
pub use hledger::write_hledger;

pub use super::money::VatBasis;

use super::money::{Amount, Currency, VatRate};
use super::month::Month;
use super::name::Account;
use super::plate::Plate;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Who owes. Open items are kept for each debtor and currency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Debtor {
    Account(Account),
    /// An unregistered car, which a document was issued for.
    Plate(Plate),
    /// The car of the document with this serial, whose plate was removed: see `parking::document::PlateTerm`.
    PlateRemoved {
        document: u64,
    },
}

impl Debtor {
    /// `None`: it is an unregistered car.
    pub fn account(&self) -> Option<&Account> {
        match self {
            Debtor::Account(account) => Some(account),
            Debtor::Plate(_) | Debtor::PlateRemoved { .. } => None,
        }
    }

    /// The name in the journal, and of drafts. It shows no plate: a document of an unregistered car is found by its number.
    pub fn name(&self) -> &str {
        self.account().map_or(Account::UNREGISTERED, Account::as_str)
    }
}

/// What a document charges at one rate for what was supplied in one month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupplyTotal {
    pub basis: VatBasis,
    pub month: Month,
    /// Both negative where a document gives money back.
    pub net: Amount,
    pub vat: Amount,
}

impl SupplyTotal {
    fn gross(&self) -> Amount {
        self.net.saturating_add(self.vat)
    }
}

/// A general ledger account. A debtor is shown by the name in the journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum JournalAccount {
    Bank,
    Receivable(String),
    /// `None`: nobody knows who paid.
    Unallocated(Option<String>),
    VatOwed(VatRate),
    Revenue(VatBasis),
}

impl JournalAccount {
    /// The customer, the VAT rate and the reason that the account stands for.
    fn facets(&self) -> (Option<&str>, Option<VatRate>, Option<&str>) {
        match self {
            JournalAccount::Bank => (None, None, None),
            JournalAccount::Receivable(debtor) => (Some(debtor), None, None),
            JournalAccount::Unallocated(debtor) => (debtor.as_deref(), None, None),
            JournalAccount::VatOwed(rate) | JournalAccount::Revenue(VatBasis::Rate(rate)) => {
                (None, Some(*rate), None)
            }
            JournalAccount::Revenue(VatBasis::Exempt(reason)) => (None, None, Some(reason)),
        }
    }

    /// The account's name from the top: parts that say what it is, then a name that people chose.
    fn path(&self) -> (&'static str, String) {
        match self {
            JournalAccount::Bank => ("assets:bank", String::new()),
            JournalAccount::Receivable(debtor) => ("assets:receivable", debtor.clone()),
            JournalAccount::Unallocated(debtor) => {
                ("liabilities:unallocated", debtor.clone().unwrap_or_default())
            }
            JournalAccount::VatOwed(rate) => ("liabilities:vat", rate.to_string()),
            JournalAccount::Revenue(VatBasis::Rate(rate)) => ("revenues:parking", rate.to_string()),
            JournalAccount::Revenue(VatBasis::Exempt(reason)) => ("revenues:parking:no VAT", reason.clone()),
        }
    }
}

/// An amount on an account: a debit above zero, a credit below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookingLine {
    pub account: JournalAccount,
    pub amount: Amount,
    /// The month of the supply. Money has none.
    pub month: Option<Month>,
}

/// The fact that a booking follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Voucher {
    /// The booking's document was issued.
    Document,
    /// Money was received, or paid back.
    Payment(u64),
    /// A payment that had waited for its document was allocated to it.
    Allocation(u64),
    /// A payment was undone.
    Reversal(u64),
}

/// As people read it in the books.
impl fmt::Display for Voucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Voucher::Document => f.write_str("Document"),
            Voucher::Payment(id) => write!(f, "Payment {id}"),
            Voucher::Allocation(id) => write!(f, "Allocation of payment {id}"),
            Voucher::Reversal(id) => write!(f, "Reversal of payment {id}"),
        }
    }
}

/// Lines of one currency whose amounts sum up to zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    pub number: u64,
    pub date: Date,
    pub currency: Currency,
    pub voucher: Voucher,
    /// Number of the document that the booking is about, as printed there.
    pub document: Option<String>,
    /// What the bank or the customer wrote about a payment.
    pub reference: String,
    pub lines: Vec<BookingLine>,
}

impl Booking {
    fn text(&self) -> String {
        let about = self.document.iter().map(String::as_str).chain(Some(self.reference.as_str()));
        let about = about.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
        match (self.voucher, about.is_empty()) {
            (Voucher::Document, _) => format!("Document {about}"),
            (voucher, true) => voucher.to_string(),
            (voucher, false) => format!("{voucher}: {about}"),
        }
    }
}

/// The most (rate, month) totals in one booking, so that a booking fits into a row of the store.
const BOOKING_TOTALS_MAX: usize = 40;

/// The lines that book a document: receivables to revenue and VAT, per supply month. Mostly one booking; a document about very many
/// months has several. Nothing for a document that moves no money at all.
pub fn document_lines(debtor: &Debtor, totals: &[SupplyTotal]) -> Vec<Vec<BookingLine>> {
    let mut months = BTreeMap::<Month, Vec<&SupplyTotal>>::new();
    for total in totals {
        months.entry(total.month).or_default().push(total);
    }
    let mut bookings: Vec<(usize, Vec<BookingLine>)> = Vec::new();
    for (month, totals) in months {
        let mut lines = Vec::new();
        let mut line = |account, amount| lines.push(BookingLine { account, amount, month: Some(month) });
        let gross = totals.iter().fold(Amount::ZERO, |sum, total| sum.saturating_add(total.gross()));
        line(JournalAccount::Receivable(debtor.name().to_owned()), gross);
        for total in &totals {
            line(JournalAccount::Revenue(total.basis.clone()), total.net.negated());
            if let VatBasis::Rate(rate) = total.basis {
                line(JournalAccount::VatOwed(rate), total.vat.negated());
            }
        }
        let lines = combined(lines);
        match bookings.last_mut() {
            Some((count, booking)) if *count + totals.len() <= BOOKING_TOTALS_MAX => {
                *count += totals.len();
                booking.extend(lines);
            }
            _ => bookings.push((totals.len(), lines)),
        }
    }
    bookings.into_iter().map(|(_, lines)| lines).filter(|lines| !lines.is_empty()).collect()
}

/// The same lines with one for each account and month, and without those that come to nothing. The order stays.
pub fn combined(lines: Vec<BookingLine>) -> Vec<BookingLine> {
    let mut all: Vec<BookingLine> = Vec::new();
    for line in lines {
        match all.iter_mut().find(|its| its.account == line.account && its.month == line.month) {
            Some(its) => its.amount = its.amount.saturating_add(line.amount),
            None => all.push(line),
        }
    }
    all.retain(|line| line.amount != Amount::ZERO);
    all
}

#[cfg(test)]
#[path = "tests/samples.rs"]
pub mod samples;

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;

    fn shown(lines: &[BookingLine]) -> Vec<String> {
        let show = |line: &BookingLine| {
            let (path, name) = line.account.path();
            format!(
                "{} {path}:{name} {}",
                line.month.map_or_else(String::new, |month| month.to_string()),
                line.amount.minor()
            )
        };
        lines.iter().map(show).collect()
    }

    /// 119.00 for November at 19 %, of which 19.00 are VAT, and 5.00 without VAT.
    #[test]
    fn an_invoice_is_booked_gross_to_the_customer_and_net_and_tax_apart() {
        let totals = [total(rate(1900), "2026-11", 10_000, 1_900), total(exempt(), "2026-11", 500, 0)];
        let bookings = document_lines(&debtor("miller"), &totals);
        assert_eq!(bookings.len(), 1);
        let expected = [
            "2026-11 assets:receivable:miller 12400",
            "2026-11 revenues:parking:19 -10000",
            "2026-11 liabilities:vat:19 -1900",
            "2026-11 revenues:parking:no VAT:small business -500",
        ];
        assert_eq!(shown(&bookings[0]), expected);
    }

    /// A stay of November is charged to a contract after all (11.90 back), and a stay of October came late (5.95).
    #[test]
    fn a_correction_is_booked_with_the_months_that_it_corrects() {
        let totals = [total(rate(1900), "2026-11", -1_000, -190), total(rate(1900), "2026-10", 500, 95)];
        let expected = [
            "2026-10 assets:receivable:miller 595",
            "2026-10 revenues:parking:19 -500",
            "2026-10 liabilities:vat:19 -95",
            "2026-11 assets:receivable:miller -1190",
            "2026-11 revenues:parking:19 1000",
            "2026-11 liabilities:vat:19 190",
        ];
        assert_eq!(shown(&document_lines(&debtor("miller"), &totals)[0]), expected);
    }

    #[test]
    fn what_moves_no_money_is_not_booked() {
        assert_eq!(document_lines(&debtor("miller"), &[]), Vec::<Vec<BookingLine>>::new());
        assert_eq!(
            document_lines(&debtor("miller"), &[total(rate(1900), "2026-11", 0, 0)]),
            Vec::<Vec<BookingLine>>::new()
        );
        let moved = [total(rate(1900), "2026-11", -100, 0), total(exempt(), "2026-11", 100, 0)];
        assert_eq!(document_lines(&debtor("miller"), &moved)[0].len(), 2, "revenue moves between rates");
    }

    #[test]
    fn a_document_about_very_many_months_has_several_bookings_that_balance() {
        let totals: Vec<_> = (0..120i16)
            .map(|n| {
                total(
                    rate(1900),
                    &Month::new(2020 + n / 12, (n % 12 + 1) as i8).unwrap().to_string(),
                    100,
                    19,
                )
            })
            .collect();
        let bookings = document_lines(&debtor("miller"), &totals);
        assert_eq!(bookings.len(), 3);
        for lines in &bookings {
            assert_eq!(lines.iter().map(|line| line.amount.minor()).sum::<i64>(), 0);
            assert!(
                postcard::to_allocvec(&booking(1, Voucher::Document, lines.clone())).unwrap().len() < 4096
            );
        }
        let received: i64 = bookings
            .iter()
            .flatten()
            .filter(|line| matches!(line.account, JournalAccount::Receivable(_)))
            .map(|line| line.amount.minor())
            .sum();
        assert_eq!(received, 120 * 119);
    }

    #[test]
    fn a_plate_is_never_in_the_journal() {
        let lines = document_lines(
            &Debtor::Plate(Plate::new("B-AB 123").unwrap()),
            &[total(rate(1900), "2026-11", 100, 19)],
        );
        assert_eq!(lines[0][0].account, JournalAccount::Receivable("unregistered".into()));
    }
}
