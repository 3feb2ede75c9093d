//! Reads open items, payments and bookings.

use super::rows::{COUNTERS, last_number, numbered, of_account, of_debtor};
use super::*;
use crate::parking::journal::Booking;
use crate::parking::money::Money;
use serde::de::DeserializeOwned;

/// An open document in a list. `cursor` continues the list after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenDocument {
    pub cursor: Vec<u8>,
    pub serial: u64,
    pub balance: DocumentBalance,
}

/// A payment in a list, as JSON.
#[derive(Debug, Serialize)]
pub struct ListedPayment<'a> {
    id: PaymentId,
    number: Option<&'a str>,
    /// Whose money it is: that of the document that it was received for, or that it names.
    account: Option<&'a str>,
    #[serde(flatten)]
    money: Money,
    date: Date,
    reference: &'a str,
    /// `received`, `waiting` or `undone`.
    state: &'static str,
    waits: Option<Waits>,
    undone_on: Option<Date>,
}

impl<'a> ListedPayment<'a> {
    /// `owner` is what [`Receivables::owner_of`] says of the row.
    pub fn of(id: PaymentId, row: &'a PaymentRow, owner: Option<&'a Debtor>) -> ListedPayment<'a> {
        let Payment { number, money, date, reference, .. } = &row.payment;
        let (state, waits) = match row.state {
            PaymentState::Received(_) => ("received", None),
            PaymentState::Waiting(why) => ("waiting", Some(why)),
        };
        ListedPayment {
            id,
            number: number.as_deref(),
            account: owner.map(Debtor::name),
            money: *money,
            date: *date,
            reference,
            state: if row.undone.is_some() { "undone" } else { state },
            waits,
            undone_on: row.undone,
        }
    }
}

/// Where unallocated money comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnallocatedSource {
    /// A payment that waits.
    Payment(PaymentId),
    /// What was received for the document with this serial and does not pay it.
    Document(u64),
}

impl UnallocatedSource {
    pub(super) fn to_key(self) -> [u8; 9] {
        let (kind, number) = match self {
            UnallocatedSource::Payment(PaymentId(id)) => (0, id),
            UnallocatedSource::Document(serial) => (1, serial),
        };
        let mut key = [kind; 9];
        key[1..].copy_from_slice(&number.to_be_bytes());
        key
    }

    fn from_key(key: &[u8]) -> UnallocatedSource {
        let number = last_number(key);
        match key.len().checked_sub(9).map(|at| key[at]) {
            Some(0) => UnallocatedSource::Payment(PaymentId(number)),
            _ => UnallocatedSource::Document(number),
        }
    }
}

/// Money that pays no document in a list. `cursor` continues the list after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedUnallocated {
    pub cursor: Vec<u8>,
    pub source: UnallocatedSource,
    /// `None`: nobody knows whose it is.
    pub owner: Option<Debtor>,
    /// Negative: more was paid back than there was.
    pub money: Money,
    /// The payment that waits, where it comes from one.
    pub payment: Option<PaymentRow>,
}

impl<S: SavedRows> Receivables<'_, S> {
    pub fn counters(&self) -> Result<BookCounters, S::Error> {
        Ok(self.rows.get(COUNTERS)?.unwrap_or_default())
    }

    pub fn document(&self, serial: u64) -> Result<Option<DocumentBalance>, S::Error> {
        self.rows.get(&numbered(b'd', serial))
    }

    /// The serial of the document with this printed number.
    pub(super) fn serial_of(&self, number: &str) -> Result<Option<u64>, S::Error> {
        self.rows.get(&rows::named(b'n', number.as_bytes()))
    }

    pub fn payment(&self, id: PaymentId) -> Result<Option<PaymentRow>, S::Error> {
        self.rows.get(&numbered(b'p', id.0))
    }

    pub(super) fn balance(
        &self,
        debtor: Option<&Debtor>,
        currency: Currency,
    ) -> Result<AccountBalance, S::Error> {
        Ok(self.rows.get(&of_account(b'a', debtor, currency))?.unwrap_or_default())
    }

    /// Documents after the serial `after`, oldest first.
    pub fn documents(&self, after: u64) -> impl Iterator<Item = Result<(u64, DocumentBalance), S::Error>> {
        self.numbered_rows(b'd', after)
    }

    /// Payments after `after`, oldest first.
    pub fn payments(
        &self,
        after: PaymentId,
    ) -> impl Iterator<Item = Result<(PaymentId, PaymentRow), S::Error>> {
        self.numbered_rows(b'p', after.0).map(|row| row.map(|(id, row)| (PaymentId(id), row)))
    }

    /// Whose money a payment is. `None`: nobody knows.
    pub fn owner_of(&self, row: &PaymentRow) -> Result<Option<Debtor>, S::Error> {
        match row.state {
            PaymentState::Received(serial) => Ok(self.document(serial)?.map(|document| document.debtor)),
            PaymentState::Waiting(_) => Ok(row.payment.account.clone().map(Debtor::Account)),
        }
    }

    /// Bookings after the number `after`, in their order.
    pub fn bookings(&self, after: u64) -> impl Iterator<Item = Result<Booking, S::Error>> {
        self.numbered_rows(b'b', after).map(|row| row.map(|(_, booking)| booking))
    }

    /// Open documents, of one debtor or of all, behind a cursor: by debtor, currency, invoices before credit notes, oldest first.
    pub fn open_documents(
        &self,
        debtor: Option<&Debtor>,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<OpenDocument, S::Error>> {
        let prefix = debtor.map_or_else(|| b"o".to_vec(), |debtor| of_debtor(b'o', Some(debtor)));
        let from = after.map_or_else(|| prefix.clone(), |after| after_key(after).max(prefix.clone()));
        self.rows_from(from, prefix).map(|row: Result<(Vec<u8>, Amount), _>| {
            let (cursor, _) = row?;
            let serial = last_number(&cursor);
            let balance = self.document(serial)?.ok_or_else(|| self.rows.saved.damaged(&cursor))?;
            Ok(OpenDocument { cursor, serial, balance })
        })
    }

    /// Money that pays no document, of one debtor or of all, behind a cursor: first what is of nobody knows whom. For each owner and
    /// currency its sum is the balance's.
    pub fn all_unallocated(
        &self,
        debtor: Option<&Debtor>,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<OwnedUnallocated, S::Error>> {
        let prefix = debtor.map_or_else(|| b"u".to_vec(), |debtor| of_debtor(b'u', Some(debtor)));
        let from = after.map_or_else(|| prefix.clone(), |after| after_key(after).max(prefix.clone()));
        self.rows_from(from, prefix).map(|row: Result<(Vec<u8>, Amount), _>| {
            let (cursor, amount) = row?;
            let damaged = || self.rows.saved.damaged(&cursor);
            let source = UnallocatedSource::from_key(&cursor);
            let (owner, currency, payment) = match source {
                UnallocatedSource::Payment(id) => {
                    let row = self.payment(id)?.ok_or_else(damaged)?;
                    (row.payment.account.clone().map(Debtor::Account), row.payment.money.currency, Some(row))
                }
                UnallocatedSource::Document(serial) => {
                    let document = self.document(serial)?.ok_or_else(damaged)?;
                    (Some(document.debtor), document.currency, None)
                }
            };
            let money = Money { amount, currency };
            Ok(OwnedUnallocated { cursor, source, owner, money, payment })
        })
    }

    fn numbered_rows<T: DeserializeOwned>(
        &self,
        table: u8,
        after: u64,
    ) -> impl Iterator<Item = Result<(u64, T), S::Error>> {
        let from = after_key(&numbered(table, after));
        self.rows_from(from, vec![table]).map(|row| row.map(|(key, row)| (last_number(&key), row)))
    }

    fn rows_from<T: DeserializeOwned>(
        &self,
        from: Vec<u8>,
        prefix: Vec<u8>,
    ) -> impl Iterator<Item = Result<(Vec<u8>, T), S::Error>> {
        let mut from = Some(from);
        std::iter::from_fn(move || {
            let row = self.rows.first(&from.take()?, &prefix).transpose()?;
            if let Ok((key, _)) = &row {
                from = Some(after_key(key));
            }
            Some(row)
        })
    }
}

fn after_key(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
