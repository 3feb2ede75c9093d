//! Open items: what is not paid yet of each document, and which money pays no document.
//!
//! **Promise.** For each debtor and currency, what is open minus what is unallocated is the sum of the documents minus the sum of the
//! payments, to the minor unit. The result depends on the order of the facts in the ledger alone, never on how payments are grouped
//! into imports, nor on when the rows are saved. A fact costs work in proportion to the open items that it touches.
//! **Kept by.** A document's row has the sum of the payments that name it, and every other amount follows from that sum. Bookings are
//! made of the differences that a fact makes to these rows.
//! **Not promised.** Guesses: money that names no document, or one that it does not fit, waits until a person undoes it and imports
//! it with the right number.
//!
//! # The rules
//!
//! 1. A payment is *received for* the document whose number it names, if the currency is the same, the account too (where the payment
//!    has one), and it is not older than the document. Otherwise it *waits*, with the reason ([`Waits`]), as unallocated money of the
//!    account that it names, or of nobody.
//! 2. What was received for a document is *allocated* to it as far as it is open. The rest is unallocated money of its debtor: after an
//!    overpayment, or a payment in the wrong direction. Money that was paid back counts as negative: it takes back an overpayment first,
//!    then opens the invoice again; it pays a credit note.
//! 3. Open credit notes *offset* open invoices of the same debtor and currency, at once, whichever came first. When a credit note comes, it
//!    offsets the invoices that its lines correct, the oldest first, each up to what the lines take back from it. What is left, and what
//!    becomes open later, is offset by number: the oldest credit note the oldest invoice. An offset stays. A line that corrects a credit
//!    note takes back from the invoices which that one corrected. An invoice offsets nothing, although it may have lines that take back.
//! 4. A document whose number is known only later (after a restore, the payments may be imported first) receives what waits for it.
//! 5. Unallocated money pays nothing by itself. When that of an account comes to zero, its entries are not listed any more.
//! 6. A payment that is undone has a reversal of that day; the payment itself stays listed.
//! 7. A payment with the same (number, amount, date, reference) as an earlier one, undone or not, is the same payment.

mod apply;
mod listing;
mod plan;
mod rows;
#[cfg(test)]
mod tests;

pub use listing::{ListedPayment, OpenDocument, OwnedUnallocated, UnallocatedSource};
pub use plan::{ImportPlan, SkipReason, SkippedPayment};
pub use rows::{RowChanges, SavedRows, StoredRow};

use super::journal::{Debtor, SupplyTotal};
use super::money::{Amount, Currency};
use super::month::Month;
use super::payment::{Payment, PaymentId};
use jiff::civil::Date;
use rows::Rows;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What the correction lines of a credit note come to, by the number of the document that they correct. Negative: they take back.
pub type Corrections = BTreeMap<String, Amount>;

/// A document as bookkeeping sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentSummary {
    /// Its place in the series of all documents. Later documents have larger ones.
    pub serial: u64,
    /// As printed, and as payments name it.
    pub number: String,
    pub debtor: Debtor,
    pub date: Date,
    /// The last day on which it is paid in time. Its own date, where it grants no time.
    pub due: Date,
    /// The month that it was issued for.
    pub month: Month,
    pub currency: Currency,
    /// Their gross amounts are the document's total.
    pub totals: Vec<SupplyTotal>,
}

impl DocumentSummary {
    /// Gross.
    pub fn total(&self) -> Amount {
        let amounts = self.totals.iter().flat_map(|total| [total.net, total.vat]);
        amounts.fold(Amount::ZERO, Amount::saturating_add)
    }
}

/// A document and what it was paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentBalance {
    pub number: String,
    pub debtor: Debtor,
    pub date: Date,
    pub due: Date,
    pub month: Month,
    pub currency: Currency,
    /// Negative: the debtor gets money back.
    pub total: Amount,
    /// What documents of the opposite sign took off the total. Has the sign of the total.
    offset: Amount,
    /// The sum of the payments that were received for it.
    received: Amount,
}

impl DocumentBalance {
    fn of(document: &DocumentSummary) -> DocumentBalance {
        DocumentBalance {
            number: document.number.clone(),
            debtor: document.debtor.clone(),
            date: document.date,
            due: document.due,
            month: document.month,
            currency: document.currency,
            total: document.total(),
            offset: Amount::ZERO,
            received: Amount::ZERO,
        }
    }

    /// The part of what was received that pays it.
    fn allocated(&self) -> Amount {
        let unpaid = self.total.saturating_sub(self.offset);
        self.received.clamp(unpaid.min(Amount::ZERO), unpaid.max(Amount::ZERO))
    }

    /// By payments and offsets. Between zero and the total.
    pub fn paid(&self) -> Amount {
        self.offset.saturating_add(self.allocated())
    }

    /// What is not paid. Negative: it is to be paid back.
    pub fn open(&self) -> Amount {
        self.total.saturating_sub(self.paid())
    }

    /// What was received for it and does not pay it: above zero after an overpayment.
    pub fn unallocated(&self) -> Amount {
        self.received.saturating_sub(self.allocated())
    }

    /// Whole days since it was due. Negative: it is due later.
    pub fn days_past_due(&self, today: Date) -> i32 {
        (today - self.due).get_days()
    }
}

/// Why a payment pays no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waits {
    NoNumber,
    UnknownNumber,
    OtherAccount,
    OtherCurrency,
    BeforeDocument,
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waits::NoNumber => "it names no document",
            Waits::UnknownNumber => "no document has this number",
            Waits::OtherAccount => "the document of this number belongs to another account",
            Waits::OtherCurrency => "the document of this number has another currency",
            Waits::BeforeDocument => "the document of this number was issued after the payment",
        })
    }
}

/// What became of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// Received for the document with this serial.
    Received(u64),
    Waiting(Waits),
}

/// A payment and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRow {
    pub payment: Payment,
    pub state: PaymentState,
    /// The date of its reversal.
    pub undone: Option<Date>,
}

/// What a debtor has in one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountBalance {
    /// The sum of what its documents have open.
    pub open: Amount,
    /// Received from it, and paying no document.
    pub unallocated: Amount,
}

/// The numbers given so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookCounters {
    pub payments: u64,
    pub bookings: u64,
}

/// Why a payment cannot be undone. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UndoError {
    #[error("there is no payment {0}; `server payments list` shows the payments and their numbers")]
    Unknown(PaymentId),
    #[error("payment {0} was already undone on {1}")]
    Undone(PaymentId, Date),
    #[error("payment {0} is of {1}; it cannot be undone on an earlier day")]
    Earlier(PaymentId, Date),
}

/// Open items, payments and the journal, on rows as they were saved and as they were changed since.
pub struct Receivables<'a, S> {
    rows: Rows<'a, S>,
}

impl<'a, S: SavedRows> Receivables<'a, S> {
    /// `changes` collects what the caller saves later. To read what was saved only, pass an empty one.
    pub fn new(saved: &'a S, changes: &'a mut RowChanges) -> Receivables<'a, S> {
        Receivables { rows: Rows { saved, changes } }
    }
}
