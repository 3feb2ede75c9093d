//! Reads open items, payments and the journal for programs and people: lists as JSON, and the journal in parts.
//!
//! **Promise.** A list shows one position of the ledger in each of its parts. The parts of the journal are its bookings in order, each
//! once.
//! **Kept by.** [`at_one_position`]; a booking never changes once it has its number.
//! **Not promised.** That a list of several parts shows one position as a whole: payments may come between two of them.

use super::books::not_read;
use super::hex::{hex, packed, unhex, unpacked};
use super::view::at_one_position;
use super::view::billing::documents::{self, DocumentState};
use super::view::billing::receivables::ReceivablesRows;
use crate::daemon::admin::{NotDone, Outcome};
use crate::parking::document::{DocumentKind, PlateTerm};
use crate::parking::journal::{Booking, Debtor};
use crate::parking::money::{Amount, Currency, Money};
use crate::parking::name::Account;
use crate::parking::payment::PaymentId;
use crate::parking::receivables::{
    DocumentBalance, ListedPayment, OwnedUnallocated, PaymentState, Receivables, UnallocatedSource, Waits,
};
use crate::parking::{Month, Plate};
use crate::store::{Store, StoreError};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Mutex;

/// Maximum number of lines in one answer.
const LISTED_MAX: usize = 2_000;
/// Maximum number of rows that one answer looks at, whether they match or not.
const LOOKED_AT_MAX: usize = 20_000;
/// Maximum number of bookings in one part of the journal. Each has less than 4 KB.
const BOOKINGS_MAX: usize = 2_000;
/// What parts of the journal look like; another form is of another version of this program.
const FORM: u32 = 1;

/// What can be asked over `admin.sock`. Each answer is a part, and `after` is the `next` of the part before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ReceivablesQuestion {
    /// Payments, of one account or of all, oldest first.
    Payments { account: Option<Account>, after: Option<PaymentId> },
    /// Money that pays no document, of one account or of all.
    Unallocated { account: Option<Account>, after: Option<String> },
    /// Bookings after this number.
    Bookings { after: u64 },
    /// Documents, of one account or of all.
    Documents { account: Option<Account>, month: Option<Month>, shown: DocumentsShown, after: Option<String> },
}

impl ReceivablesQuestion {
    /// Whether the answer must show everything recorded so far. Parts of the journal continue with what is there.
    pub fn is_a_beginning(&self) -> bool {
        match self {
            ReceivablesQuestion::Payments { after, .. } => after.is_none(),
            ReceivablesQuestion::Unallocated { after, .. } => after.is_none(),
            ReceivablesQuestion::Bookings { .. } => true,
            ReceivablesQuestion::Documents { after, .. } => after.is_none(),
        }
    }
}

/// Which documents a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentsShown {
    All,
    /// Those that are not paid, and due since at least this many days; `None`: whenever they are due.
    Open {
        days: Option<i32>,
    },
}

/// What of the documents is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentFilter {
    pub debtor: Option<Debtor>,
    /// The month that they were issued for.
    pub month: Option<Month>,
    pub shown: DocumentsShown,
    pub after: Option<DocumentCursor>,
    pub limit: usize,
}

/// A place in a list of documents: all are listed by serial, open ones by debtor and currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentCursor(Vec<u8>);

impl DocumentCursor {
    /// `None`: the text is no cursor.
    pub fn parse(text: &str) -> Option<DocumentCursor> {
        unhex(text).filter(|bytes| !bytes.is_empty()).map(DocumentCursor)
    }
}

/// A document in a list, and what of it is paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedDocument {
    pub number: String,
    pub kind: DocumentKind,
    /// `null`: it is of an unregistered car.
    pub account: Option<Account>,
    /// Of an unregistered car, while documents keep plates.
    pub plate: Option<Plate>,
    pub date: Date,
    /// Such as 2026-11.
    pub month: String,
    /// Negative: the customer gets money back.
    pub total: Amount,
    pub currency: Currency,
    /// By payments, and by documents of the opposite sign. It and `open` have the sign of the total.
    pub paid: Amount,
    pub open: Amount,
    /// The last day on which it is paid in time.
    pub due: Date,
    /// Negative: it is due later.
    pub days_past_due: i32,
}

impl ListedDocument {
    fn of(balance: DocumentBalance, term: PlateTerm) -> ListedDocument {
        ListedDocument {
            kind: DocumentKind::of(balance.total),
            account: balance.debtor.account().cloned(),
            plate: match &balance.debtor {
                Debtor::Plate(plate) if !term.is_over(balance.date) => Some(plate.clone()),
                _ => None,
            },
            date: balance.date,
            month: balance.month.to_string(),
            total: balance.total,
            currency: balance.currency,
            paid: balance.paid(),
            open: balance.open(),
            due: balance.due,
            days_past_due: balance.days_past_due(term.today),
            number: balance.number,
        }
    }
}

/// A list of documents. `position` is what the views show: later commands are not shown yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DocumentsAnswer {
    pub position: u64,
    pub documents: Vec<ListedDocument>,
    /// Numbers that no document has, in the last part of a list of all documents.
    pub missing: Vec<MissingNumbers>,
    pub next: Option<String>,
}

/// Numbers of the series that no document has, or whose document is not known because it is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingNumbers {
    pub first: u64,
    pub last: u64,
    /// `lost` or `damaged`.
    pub state: &'static str,
    /// On which they were recorded as lost.
    pub date: Date,
    pub reason: Option<String>,
}

impl MissingNumbers {
    fn all(store: &Store) -> Result<Vec<MissingNumbers>, StoreError> {
        let mut all: Vec<MissingNumbers> = Vec::new();
        for row in documents::unsound(store) {
            let row = row?;
            let (state, reason) = match row.state {
                DocumentState::Lost { reason } => ("lost", Some(reason)),
                DocumentState::Damaged if row.facts.is_none() => ("damaged", None),
                DocumentState::Damaged | DocumentState::Issued => continue,
            };
            let (serial, date) = (row.serial, row.date);
            match all.last_mut() {
                Some(its)
                    if (its.last + 1, its.state, its.date, &its.reason) == (serial, state, date, &reason) =>
                {
                    its.last = serial;
                }
                _ => all.push(MissingNumbers { first: serial, last: serial, state, date, reason }),
            }
        }
        Ok(all)
    }
}

/// Some bookings of the journal, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPart {
    pub bookings: Vec<Booking>,
    /// The number of the last booking that there was.
    pub last: u64,
}

/// Why a part of the journal cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal that the server sent cannot be read: {0}. Nothing was changed. Does the running server have another version than this program?"
)]
pub struct BadJournalPart(String);

impl JournalPart {
    /// Reads an answer to [`ReceivablesQuestion::Bookings`].
    pub fn read(answer: &Value) -> Result<JournalPart, BadJournalPart> {
        unpacked(FORM, answer).map_err(BadJournalPart)
    }
}

#[derive(Serialize)]
struct UnallocatedLine {
    account: Option<String>,
    #[serde(flatten)]
    money: Money,
    /// The payment that waits.
    payment: Option<PaymentId>,
    /// The number that it names; or that of the document for which too much was received.
    document: Option<String>,
    date: Date,
    reference: Option<String>,
    waits: Option<Waits>,
}

/// Reads what was written of open items, payments and the journal.
pub struct ReceivablesReader<'a> {
    pub store: &'a Store,
    /// While it is held the views are not written, where a server runs.
    pub saving: Option<&'a Mutex<()>>,
    pub term: PlateTerm,
}

type Rows<'r> = Receivables<'r, ReceivablesRows>;

impl ReceivablesReader<'_> {
    fn at_one_position<T>(
        &self,
        mut read: impl FnMut(&Rows<'_>) -> Result<T, StoreError>,
    ) -> Result<(u64, T), StoreError> {
        let rows = ReceivablesRows::on(self.store);
        at_one_position(self.store, self.saving, || rows.read(&mut read))
    }

    /// Lists documents: all by serial, or the open ones by debtor and currency, invoices before credit notes.
    pub fn documents(&self, wanted: &DocumentFilter) -> Result<DocumentsAnswer, StoreError> {
        let DocumentFilter { debtor, month, shown, .. } = wanted;
        let is_all = debtor.is_none() && month.is_none() && *shown == DocumentsShown::All;
        let (position, (documents, next, missing)) = self.at_one_position(|rows| {
            let (documents, next) = self.documents_in(rows, wanted)?;
            let is_end = is_all && next.is_none();
            let missing = if is_end { MissingNumbers::all(self.store)? } else { Vec::new() };
            Ok((documents, next, missing))
        })?;
        Ok(DocumentsAnswer { position, documents, missing, next: next.map(|cursor| hex(&cursor)) })
    }

    fn documents_in(
        &self,
        rows: &Rows<'_>,
        wanted: &DocumentFilter,
    ) -> Result<(Vec<ListedDocument>, Option<Vec<u8>>), StoreError> {
        let DocumentFilter { debtor, month, shown, after, limit } = wanted;
        let after = after.as_ref().map(|cursor| &cursor.0[..]);
        let matches = |balance: &DocumentBalance| {
            let is_late = match shown {
                DocumentsShown::Open { days: Some(days) } => balance.days_past_due(self.term.today) >= *days,
                DocumentsShown::Open { days: None } | DocumentsShown::All => true,
            };
            let is_of = match debtor {
                // Whose it was is not shown any more, and cannot be asked either.
                Some(Debtor::Plate(_)) if self.term.is_over(balance.date) => false,
                debtor => debtor.as_ref().is_none_or(|debtor| *debtor == balance.debtor),
            };
            is_late && is_of && month.is_none_or(|month| month == balance.month)
        };
        let list =
            |balance: DocumentBalance| Ok(matches(&balance).then(|| ListedDocument::of(balance, self.term)));
        match shown {
            DocumentsShown::Open { .. } => {
                let open = rows.open_documents(debtor.as_ref(), after);
                let open = open.map(|row| row.map(|its| (its.cursor, its.balance)));
                part(open, (*limit).min(LISTED_MAX), list)
            }
            DocumentsShown::All => {
                // A cursor of another list is before all documents.
                let after = after.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
                let all = rows.documents(after);
                let all = all.map(|row| row.map(|(serial, its)| (serial.to_be_bytes().to_vec(), its)));
                part(all, (*limit).min(LISTED_MAX), list)
            }
        }
    }

    pub fn answer(&self, question: &ReceivablesQuestion) -> Outcome {
        match question {
            ReceivablesQuestion::Payments { account, after } => {
                self.payments(account.as_ref(), *after).map_err(not_read)
            }
            ReceivablesQuestion::Unallocated { account, after } => {
                self.unallocated(account.as_ref(), after.as_deref()).map_err(not_read)
            }
            ReceivablesQuestion::Documents { account, month, shown, after } => {
                let debtor = account.clone().map(Debtor::Account);
                let after = after.as_deref().and_then(DocumentCursor::parse);
                let (month, shown, limit) = (*month, *shown, LISTED_MAX);
                let found = self.documents(&DocumentFilter { debtor, month, shown, after, limit });
                Ok(json!(found.map_err(not_read)?))
            }
            ReceivablesQuestion::Bookings { after } => {
                let part = self.bookings(*after).map_err(not_read)?;
                if *after > part.last {
                    return Err(NotDone::Refused(format!(
                        "the journal has bookings 1 to {}: there is no booking {after}. Nothing was exported. If the server was restored from a backup that is older than the last export, import the documents and payments that it lacks first, and compare the journal with what was exported",
                        part.last
                    )));
                }
                Ok(packed(FORM, &part))
            }
        }
    }

    fn payments(&self, account: Option<&Account>, after: Option<PaymentId>) -> Result<Value, StoreError> {
        let debtor = account.cloned().map(Debtor::Account);
        let (position, (payments, next)) = self.at_one_position(|rows| {
            let all = rows.payments(after.unwrap_or(PaymentId(0)));
            let all = all.map(|row| row.map(|(id, its)| (id, (id, its))));
            part(all, LISTED_MAX, |(id, row)| {
                let owner = rows.owner_of(&row)?;
                let is_wanted = debtor.is_none() || owner == debtor;
                Ok(is_wanted.then(|| json!(ListedPayment::of(id, &row, owner.as_ref()))))
            })
        })?;
        let next = next.map(|id| id.to_string());
        Ok(json!({ "payments": payments, "next": next, "position": position }))
    }

    fn unallocated(&self, account: Option<&Account>, after: Option<&str>) -> Result<Value, StoreError> {
        let debtor = account.cloned().map(Debtor::Account);
        let after = after.and_then(unhex);
        let (position, (lines, next)) = self.at_one_position(|rows| {
            let all = rows.all_unallocated(debtor.as_ref(), after.as_deref());
            let all = all.map(|row| row.map(|its| (its.cursor.clone(), its)));
            part(all, LISTED_MAX, |its| Ok(unallocated_line(rows, its)?.map(|line| json!(line))))
        })?;
        Ok(json!({ "unallocated": lines, "next": next.map(|cursor| hex(&cursor)), "position": position }))
    }

    fn bookings(&self, after: u64) -> Result<JournalPart, StoreError> {
        let (_, part) = self.at_one_position(|rows| {
            let bookings = rows.bookings(after).take(BOOKINGS_MAX).collect::<Result<_, StoreError>>()?;
            Ok(JournalPart { bookings, last: rows.counters()?.bookings })
        })?;
        Ok(part)
    }
}

fn unallocated_line(rows: &Rows<'_>, its: OwnedUnallocated) -> Result<Option<UnallocatedLine>, StoreError> {
    let OwnedUnallocated { source, owner, money, payment, .. } = its;
    let account = owner.map(|debtor| debtor.name().to_owned());
    Ok(match (source, payment) {
        (UnallocatedSource::Payment(id), Some(row)) => {
            let waits = match row.state {
                PaymentState::Waiting(why) => Some(why),
                PaymentState::Received(_) => None,
            };
            let (document, date) = (row.payment.number, row.payment.date);
            let (payment, reference) = (Some(id), Some(row.payment.reference));
            Some(UnallocatedLine { account, money, payment, document, date, reference, waits })
        }
        (UnallocatedSource::Document(serial), _) => rows.document(serial)?.map(|document| {
            let (number, date) = (Some(document.number), document.date);
            let (payment, reference, waits) = (None, None, None);
            UnallocatedLine { account, money, payment, document: number, date, reference, waits }
        }),
        (UnallocatedSource::Payment(_), None) => None,
    })
}

/// The next part of a list: what `show` takes of the rows, and the cursor behind the last row that was looked at, if there may be more.
fn part<C, R, T>(
    rows: impl Iterator<Item = Result<(C, R), StoreError>>,
    limit: usize,
    mut show: impl FnMut(R) -> Result<Option<T>, StoreError>,
) -> Result<(Vec<T>, Option<C>), StoreError> {
    let (mut shown, mut last) = (Vec::new(), None);
    for (looked_at, row) in rows.enumerate() {
        let (cursor, row) = row?;
        if shown.len() == limit || looked_at == LOOKED_AT_MAX {
            return Ok((shown, last));
        }
        last = Some(cursor);
        shown.extend(show(row)?);
    }
    Ok((shown, None))
}
