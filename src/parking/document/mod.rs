//! Documents: invoices and credit notes as values, with all that they show, and their renderings.
//!
//! **Promise.** A document adds up: on each line, for each VAT rate and in total, net and VAT make the gross, to the minor unit, and
//! the lines make the totals. The same document gives the same bytes in each rendering, in every later release. What people
//! wrote (names, reasons, tariffs) is shown as text: it is never markup in a page, and never a formula in a spreadsheet.
//! **Kept by.** [`TotalsBuilder`] computes net once on the sum for each rate, and distributes it over the lines by the largest
//! remainder. A document records what it shows and names its [layout](DocumentHead::layout), whose code never changes.
//! [`Renderer`] adds the lines up once more, and refuses a document whose lines do not make its totals.
//! **Not promised.** That the lines are all that is due: the caller chooses them and their order, which is kept. What was paid: no
//! rendering shows it.
//!
//! A document may have hundreds of thousands of lines. So its head and its lines are separate values: lines come from an iterator,
//! are recorded as [pieces](encode_lines), and rendered one after the other.
//!
//! # How a document is made
//!
//! 1. The caller goes over its lines once, and adds each to a [`TotalsBuilder`].
//! 2. [`TotalsBuilder::finish`] gives the totals for the [`DocumentHead`], and the [`Shares`] that divide the net amounts.
//! 3. The caller goes over the lines again, in the same order, takes the [`LineAmount`] of each from the shares, and records the
//!    lines in pieces. [`Shares::finish`] completes the head.
//! 4. [`Digests::of`] goes over the lines a last time.
//!
//! What Article 226 of Directive 2006/112/EC asks for, by its numbers: date of issue (1), sequential number (2), VAT numbers of
//! operator and customer (3, 4), their names and addresses (5), what was supplied (6) and when (7: entry and exit of each stay),
//! taxable amount and unit price (8), rate (9), VAT (10), or the reason why there is none (11). A correction line refers to the document
//! that it amends (Article 219).

mod amounts;
mod bank;
mod error;
pub(in crate::parking) mod escape;
mod file;
mod keeping;
mod layout_1;
mod line;
mod number;
mod operator;
mod render;
mod rendering;
#[cfg(test)]
mod tests;
pub(in crate::parking) mod words;

pub use amounts::{
    CorrectedDocument, DocumentTotals, LineAmount, RateSum, Shares, TotalsBuilder, TotalsError,
};
pub use bank::{Bic, Iban};
pub use error::DocumentError;
pub use file::{DocumentFile, DocumentPlates, EXPORT_ENDING, FileError, ReadDocument, export_name};
pub use keeping::PlateTerm;
pub use line::{
    CorrectionReason, DocumentLine, LineCar, LineCorrection, LineReference, PriceStep, decode_lines,
    encode_lines,
};
pub use number::{NumberFormat, NumberFormatError};
pub use operator::{Issuer, OperatorSettings};
pub use render::{Digests, Renderer, render};
pub use rendering::Rendering;

use super::journal::{Debtor, SupplyTotal};
use super::money::{Amount, Currency};
use super::month::Month;
use super::receivables::DocumentSummary;
use super::register::CustomerRecord;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// The layout of the documents that this release makes.
pub const LAYOUT: u16 = 1;

/// The first byte of an encoded head and of an encoded piece.
const FORMAT: u8 = 1;

/// All of a document except its lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentHead {
    /// Which code renders it. The code of a layout never changes, so a document looks the same forever.
    pub layout: u16,
    /// `None`: a draft.
    pub issue: Option<Issue>,
    /// The month through which stays that ended are on it.
    pub month: Month,
    pub issuer: Issuer,
    pub customer: BilledCustomer,
    /// Of all amounts.
    pub currency: Currency,
    pub totals: DocumentTotals,
    /// For each VAT rate and month of supply, in the order of the rates.
    pub supplies: Vec<SupplyTotal>,
    /// The documents that its lines correct, without repetition.
    pub corrects: Vec<CorrectedDocument>,
}

/// What makes a draft a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// As it is printed: `2026-000007`.
    pub number: String,
    /// Its place in the series of all documents: 7.
    pub serial: u64,
    /// In the operator's time zone.
    pub date: Date,
}

/// Whom a document is addressed to, as the register said on the day of issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BilledCustomer {
    pub debtor: Debtor,
    pub name: Option<String>,
    pub address: Vec<String>,
    pub country: Option<String>,
    pub vat_id: Option<String>,
}

impl BilledCustomer {
    pub fn new(debtor: Debtor, record: &CustomerRecord) -> BilledCustomer {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        BilledCustomer {
            debtor,
            name: given(&record.name),
            address: record.address.clone(),
            country: given(&record.country),
            vat_id: given(&record.vat_id),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    Invoice,
    CreditNote,
}

impl DocumentKind {
    /// A document whose gross total is negative is a credit note; one of 0 is an invoice.
    pub fn of(total: Amount) -> DocumentKind {
        if total < Amount::ZERO { DocumentKind::CreditNote } else { DocumentKind::Invoice }
    }

    /// As programs read it: `invoice` or `credit_note`.
    pub const fn code(self) -> &'static str {
        match self {
            DocumentKind::Invoice => "invoice",
            DocumentKind::CreditNote => "credit_note",
        }
    }
}

impl DocumentHead {
    pub fn kind(&self) -> DocumentKind {
        DocumentKind::of(self.totals.gross)
    }

    /// When the amount has to be paid: `payment_days` after the date of issue. `None` where nothing is to be paid, and in a draft.
    pub fn due_date(&self) -> Option<Date> {
        let issue = self.issue.as_ref().filter(|_| self.totals.gross.minor() > 0)?;
        let days = jiff::Span::new().days(i64::from(self.issuer.payment_days));
        Some(issue.date.saturating_add(days))
    }

    /// The document as bookkeeping sees it. `None`: it is a draft.
    pub fn summary(&self) -> Option<DocumentSummary> {
        let Issue { number, serial, date } = self.issue.as_ref()?;
        Some(DocumentSummary {
            serial: *serial,
            number: number.clone(),
            debtor: self.customer.debtor.clone(),
            date: *date,
            due: self.due_date().unwrap_or(*date),
            month: self.month,
            currency: self.currency,
            totals: self.supplies.clone(),
        })
    }

    /// The head as the ledger and an exported file keep it.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![FORMAT]).expect("a head always encodes")
    }

    /// Err: the bytes are not a head that this program knows.
    pub fn from_bytes(bytes: &[u8]) -> Result<DocumentHead, DocumentError> {
        decode(bytes, "head")
    }
}

/// What follows the format byte, to its last byte.
fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8], part: &'static str) -> Result<T, DocumentError> {
    let damaged = |reason: String| DocumentError::Damaged(format!("its {part} {reason}"));
    match bytes.split_first() {
        Some((&FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(damaged("has bytes behind its end".into())),
            Err(error) => Err(damaged(format!("does not decode ({error})"))),
        },
        Some((format, _)) => Err(damaged(format!("has format {format}, this program knows format {FORMAT}"))),
        None => Err(damaged("is empty".into())),
    }
}
