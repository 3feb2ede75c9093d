//! Documents whose term is over, as `server compact` writes them: without plates.
//!
//! A document that cannot be read is copied as it is: a copy of it may replace it later. So is one that is younger.

use super::cut;
use crate::parking::document::PlateTerm;
use crate::parking::journal::Debtor;
use crate::server::documents::{ShowDocumentError, without_plates};
use crate::server::ledger::Ledger;
use crate::server::view::billing::documents::{row, row_without_plate, rows};
use crate::server::view::billing::receivables::ReceivablesRows;
use crate::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};

/// The pieces of documents without plates, for a reader that goes over the records in their order.
pub(super) struct OldDocuments<'a> {
    ledger: &'a Ledger,
    term: PlateTerm,
    /// The serial of the document whose pieces came last, and what takes their places.
    current: Option<(u64, NewPieces)>,
    /// The serials of those whose plates were removed.
    pub removed: BTreeSet<u64>,
    /// The serials of those that cannot be read.
    pub unreadable: BTreeSet<u64>,
}

enum NewPieces {
    AsTheyAre,
    /// By position. All others that name the document are of an attempt to issue it that ended early.
    At(BTreeMap<u64, Vec<u8>>),
}

impl<'a> OldDocuments<'a> {
    pub fn new(ledger: &'a Ledger, term: PlateTerm) -> OldDocuments<'a> {
        OldDocuments { ledger, term, current: None, removed: BTreeSet::new(), unreadable: BTreeSet::new() }
    }

    /// What takes the place of the piece at this position. `None`: it stays as it is.
    pub fn piece(&mut self, position: u64, serial: u64) -> Result<Option<Vec<u8>>, StoreError> {
        if self.current.as_ref().is_none_or(|(current, _)| *current != serial) {
            self.current = Some((serial, self.new_pieces(serial)?));
        }
        Ok(match &self.current {
            Some((_, NewPieces::At(pieces))) => Some(pieces.get(&position).cloned().unwrap_or_default()),
            _ => None,
        })
    }

    /// Whether the term of a document is over, and what it charged is known.
    pub fn is_old(&self, serial: u64) -> Result<bool, StoreError> {
        let row = row(self.ledger.store(), serial)?;
        Ok(row.is_some_and(|row| row.is_issued() && self.term.is_over(row.date)))
    }

    fn new_pieces(&mut self, serial: u64) -> Result<NewPieces, StoreError> {
        let row = row(self.ledger.store(), serial)?.filter(|row| self.term.is_over(row.date));
        let Some(row) = row else { return Ok(NewPieces::AsTheyAre) };
        let positions: Vec<u64> = row.pieces.positions().collect();
        let issued = row.bytes(self.ledger)?;
        match without_plates(&issued) {
            Ok(file) if file == issued => Ok(NewPieces::AsTheyAre),
            Ok(file) => {
                self.removed.insert(serial);
                let pieces = cut(&file, u32::try_from(positions.len()).unwrap_or(u32::MAX));
                Ok(NewPieces::At(positions.into_iter().zip(pieces).collect()))
            }
            Err(ShowDocumentError::Store(error)) => Err(error),
            Err(_) => {
                self.unreadable.insert(serial);
                Ok(NewPieces::AsTheyAre)
            }
        }
    }
}

/// The rows of the views about documents whose term is over, without plates and what tells them.
pub(super) struct OldRows(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl OldRows {
    pub fn read(views: &Store, term: PlateTerm) -> Result<OldRows, StoreError> {
        let (mut changed, mut serials) = (BTreeMap::new(), Vec::new());
        for row in rows(views, 1) {
            let row = row?;
            if term.is_over(row.date) {
                let is_of_a_plate =
                    row.facts.as_ref().is_some_and(|facts| matches!(facts.debtor, Debtor::Plate(_)));
                serials.extend(is_of_a_plate.then_some(row.serial));
                let (key, value) = row_without_plate(row);
                changed.insert(key, Some(value));
            }
        }
        changed.extend(ReceivablesRows::on(views).without_plates(&serials)?);
        Ok(OldRows(changed))
    }

    /// Whether the row with this key is another one now, or gone.
    pub fn replace(&self, key: &[u8]) -> bool {
        self.0.contains_key(key)
    }

    /// The rows that take their places.
    pub fn new_rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().filter_map(|(key, value)| Some((&key[..], value.as_deref()?)))
    }
}
