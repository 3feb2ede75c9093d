//! Open items, payments and the journal: what [`parking::receivables`](crate::parking::receivables) keeps, as rows of the views.
//!
//! **Promise.** The rows follow from issued documents, payments and reversals in the order of the ledger, like all views.
//! **Kept by.** Only [`BillingChanges::receivables`](super::BillingChanges::receivables) changes them, and they are saved with the other views in one batch.
//! **Not promised.** That the order of documents and payments does not matter: a payment that waits for its document is booked twice,
//! one that comes after it once. It is the order in which people recorded them.
//!
//! | key | value |
//! | --- | --- |
//! | `vbk` + key of a row | the row, with a version of its own: see `parking::receivables` |

use super::super::codec::damaged;
use crate::parking::receivables::{Receivables, RowChanges, SavedRows, StoredRow};
use crate::store::{Batch, Store, StoreError};

const PREFIX: &[u8] = b"vbk";

/// The rows of open items, payments and the journal, as they were written last.
#[derive(Debug, Clone)]
pub struct ReceivablesRows(Store);

impl ReceivablesRows {
    pub fn on(store: &Store) -> ReceivablesRows {
        ReceivablesRows(store.clone())
    }

    /// Reads what was written. A reader of a running server does so within [`at_one_position`](super::super::at_one_position).
    pub fn read<T>(
        &self,
        read: impl FnOnce(&Receivables<'_, ReceivablesRows>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        read(&Receivables::new(self, &mut RowChanges::new()))
    }

    /// The rows of the store that are others once the plates are removed from the documents with these serials; `None`: they are gone.
    pub fn without_plates(&self, serials: &[u64]) -> Result<RowChanges, StoreError> {
        let mut changes = RowChanges::new();
        let mut books = Receivables::new(self, &mut changes);
        serials.iter().try_for_each(|serial| books.remove_plate(*serial))?;
        Ok(changes.into_iter().map(|(key, row)| (stored_key(&key), row)).collect())
    }
}

impl SavedRows for ReceivablesRows {
    type Error = StoreError;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(&stored_key(key))
    }

    fn first(&self, from: &[u8], to: &[u8]) -> Result<Option<StoredRow>, StoreError> {
        let Some((key, row)) = self.0.range(&stored_key(from), &stored_key(to)).next().transpose()? else {
            return Ok(None);
        };
        let own = key.strip_prefix(PREFIX).ok_or_else(|| damaged(&key))?;
        Ok(Some((own.to_vec(), row)))
    }

    fn damaged(&self, key: &[u8]) -> StoreError {
        damaged(&stored_key(key))
    }
}

fn stored_key(key: &[u8]) -> Vec<u8> {
    [PREFIX, key].concat()
}

/// Puts the rows that changed into `batch`.
pub(super) fn drain(changes: &mut RowChanges, batch: &mut Batch) {
    for (key, row) in std::mem::take(changes) {
        match row {
            Some(row) => batch.put(stored_key(&key), row),
            None => batch.remove(stored_key(&key)),
        }
    }
}
