//! The rows in which open items, payments and bookings are kept, and what was changed since they were saved.
//!
//! | key | row |
//! | --- | --- |
//! | `c` | [`BookCounters`](super::BookCounters) |
//! | `d` + serial | [`DocumentBalance`](super::DocumentBalance) |
//! | `n` + printed number | the serial of the document |
//! | `i` + serial | the serials of the invoices that a credit note corrects, in order |
//! | `p` + payment | [`PaymentRow`](super::PaymentRow) |
//! | `k` + key of a payment | the payment that was imported under it first |
//! | `x` + printed number + 0 + payment | nothing: the payment waits for a document of this number |
//! | `a` + account key | [`AccountBalance`](super::AccountBalance), while it is not zero |
//! | `o` + account key + sign + serial | the open amount of an open document |
//! | `u` + account key + kind + number | the part of a payment, or of what was received for a document, that pays no document |
//! | `b` + number | [`Booking`](crate::parking::journal::Booking) |
//!
//! Numbers are big-endian `u64`. An account key is a kind (0: nobody knows whose, 1: an account, 2: an unregistered plate, 3: a document
//! whose plate was removed), the name or the serial in digits, 0, and the currency's code; neither a name nor a number contains a zero byte.

use crate::parking::journal::Debtor;
use crate::parking::money::Currency;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A key and its row, as they lie in the store.
pub type StoredRow = (Vec<u8>, Vec<u8>);

/// The rows as they were saved. Keys of other owners of the store never mix with these: the implementation adds a prefix.
pub trait SavedRows {
    type Error;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;

    /// The first row whose key is at least `from` and less than `to`.
    fn first(&self, from: &[u8], to: &[u8]) -> Result<Option<StoredRow>, Self::Error>;

    /// The error for a row that does not decode.
    fn damaged(&self, key: &[u8]) -> Self::Error;
}

/// Rows to be saved, all in one batch; `None`: to be deleted. Empty again afterwards.
pub type RowChanges = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Version of the form of a row.
const VERSION: u8 = 1;

/// The rows as they are now: what was saved, under what was changed since.
pub(super) struct Rows<'a, S> {
    pub(super) saved: &'a S,
    pub(super) changes: &'a mut RowChanges,
}

impl<S: SavedRows> Rows<'_, S> {
    fn decode<T: DeserializeOwned>(&self, key: &[u8], row: &[u8]) -> Result<T, S::Error> {
        let body = row.split_first().filter(|(version, _)| **version == VERSION);
        body.and_then(|(_, body)| postcard::from_bytes(body).ok()).ok_or_else(|| self.saved.damaged(key))
    }

    pub(super) fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, S::Error> {
        let row = match self.changes.get(key) {
            Some(changed) => changed.clone(),
            None => self.saved.get(key)?,
        };
        row.map(|row| self.decode(key, &row)).transpose()
    }

    /// The first row whose key is at least `from` and begins with `prefix`.
    pub(super) fn first<T: DeserializeOwned>(
        &self,
        from: &[u8],
        prefix: &[u8],
    ) -> Result<Option<(Vec<u8>, T)>, S::Error> {
        // No key continues a prefix with 255: names are UTF-8, and no number gets that large.
        let to = [prefix, &[u8::MAX]].concat();
        let mut from = from.to_vec();
        while from < to {
            let saved = self.saved.first(&from, &to)?;
            let changed = self.changes.range(from.clone()..to.clone()).next();
            let (key, row) = match (changed, saved) {
                (Some((key, row)), saved) if saved.as_ref().is_none_or(|(saved, _)| key <= saved) => {
                    match row {
                        Some(row) => (key.clone(), row.clone()),
                        None => {
                            from = [key, &[0][..]].concat();
                            continue;
                        }
                    }
                }
                (_, Some(saved)) => saved,
                (_, None) => return Ok(None),
            };
            let row = self.decode(&key, &row)?;
            return Ok(Some((key, row)));
        }
        Ok(None)
    }

    pub(super) fn put(&mut self, key: Vec<u8>, row: &impl Serialize) {
        let row = postcard::to_extend(row, vec![VERSION]).expect("a row always encodes");
        self.changes.insert(key, Some(row));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }
}

pub(super) const COUNTERS: &[u8] = b"c";

pub(super) fn numbered(table: u8, number: u64) -> Vec<u8> {
    [&[table][..], &number.to_be_bytes()].concat()
}

pub(super) fn named(table: u8, name: &[u8]) -> Vec<u8> {
    [&[table], name].concat()
}

/// Begins the keys of all rows about one debtor, in all currencies.
pub(super) fn of_debtor(table: u8, debtor: Option<&Debtor>) -> Vec<u8> {
    let (kind, name) = match debtor {
        None => (0, Cow::Borrowed("")),
        Some(Debtor::Account(account)) => (1, account.as_str().into()),
        Some(Debtor::Plate(plate)) => (2, plate.as_str().into()),
        Some(Debtor::PlateRemoved { document }) => (3, document.to_string().into()),
    };
    [&[table, kind], name.as_bytes(), &[0]].concat()
}

/// Begins the keys of all rows about one debtor and currency.
pub(super) fn of_account(table: u8, debtor: Option<&Debtor>, currency: Currency) -> Vec<u8> {
    [of_debtor(table, debtor), currency.code().as_bytes().to_vec()].concat()
}

/// The number with which a key ends.
pub(super) fn last_number(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}
