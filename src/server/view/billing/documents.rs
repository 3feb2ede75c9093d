//! The documents that were issued: a row for each, and where the ledger has its bytes.
//!
//! **Promise.** Each serial up to the last is a document, or a recorded loss. A document that cannot be read keeps its row, which says so.
//!
//! | key | value |
//! | --- | --- |
//! | `vbi` + serial (u64) | a [`DocumentRow`] |
//! | `vbj` + number | the serial (u64) |

use super::super::codec::{damaged, encode, key_u64, read, read_range, u64_from};
use super::draft::UNREGISTERED;
use crate::parking::Month;
use crate::parking::document::{DocumentHead, DocumentKind};
use crate::parking::journal::Debtor;
use crate::parking::money::{Amount, Currency, VatBasis};
use crate::server::ledger::{Ledger, RecordOrDamage};
use crate::server::record::{Command, Record};
use crate::store::{Batch, Store, StoreError};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What became of a number of the series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRow {
    pub serial: u64,
    /// Of the command that issued it.
    pub position: u64,
    pub date: Date,
    /// `None`: its bytes cannot be read.
    pub facts: Option<DocumentFacts>,
    /// Where its bytes stand in the ledger.
    pub pieces: PieceRanges,
}

/// What lists show of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentFacts {
    pub number: String,
    pub kind: DocumentKind,
    pub debtor: Debtor,
    pub name: Option<String>,
    pub month: Month,
    pub currency: Currency,
    pub total: Amount,
    pub lines: u64,
    /// In the order in which its lines name them.
    pub rates: Vec<VatBasis>,
}

impl DocumentFacts {
    /// `None`: it is a draft.
    pub fn of(head: &DocumentHead) -> Option<DocumentFacts> {
        Some(DocumentFacts {
            number: head.issue.as_ref()?.number.clone(),
            kind: head.kind(),
            debtor: head.customer.debtor.clone(),
            name: head.customer.name.clone(),
            month: head.month,
            currency: head.currency,
            total: head.totals.gross,
            lines: head.totals.lines,
            rates: head.totals.rates.iter().map(|sum| sum.rate.clone()).collect(),
        })
    }

    /// As drafts name it.
    pub fn account(&self) -> &str {
        match &self.debtor {
            Debtor::Account(account) => account.as_str(),
            Debtor::Plate(_) | Debtor::PlateRemoved { .. } => UNREGISTERED,
        }
    }

    /// The VAT rate of a line.
    pub fn rate(&self, place: Option<u16>) -> Option<&VatBasis> {
        self.rates.get(usize::from(place?))
    }
}

/// Positions of pieces: the first of some that stand right after each other, and how many they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceRanges(Vec<(u64, u32)>);

impl PieceRanges {
    fn add(&mut self, position: u64) {
        match self.0.last_mut() {
            Some((first, count)) if *first + u64::from(*count) == position => *count += 1,
            _ => self.0.push((position, 1)),
        }
    }

    /// In the order of the document's bytes.
    pub fn positions(&self) -> impl Iterator<Item = u64> {
        self.0.iter().flat_map(|(first, count)| *first..*first + u64::from(*count))
    }
}

/// How far numbers were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastDocument {
    /// 0: none was.
    pub serial: u64,
    pub date: Option<Date>,
    /// Of the command that issued it.
    pub position: u64,
}

fn row_key(serial: u64) -> Vec<u8> {
    key_u64(b"vbi", serial)
}

fn number_key(number: &str) -> Vec<u8> {
    [b"vbj", number.as_bytes()].concat()
}

pub fn last(store: &Store) -> Result<LastDocument, StoreError> {
    let Some((key, _)) = store.last(b"vbi", b"vbj")? else { return Ok(LastDocument::default()) };
    let row = row(store, u64_from(&key, 3)?)?;
    Ok(row.map(|row| row.as_last()).unwrap_or_default())
}

/// A line was charged by a document whose row is missing, or says nothing of it.
pub(super) fn damaged_row(serial: u64) -> StoreError {
    damaged(&row_key(serial))
}

pub fn row(store: &Store, serial: u64) -> Result<Option<DocumentRow>, StoreError> {
    read(store, &row_key(serial))
}

pub fn serial_of(store: &Store, number: &str) -> Result<Option<u64>, StoreError> {
    read(store, &number_key(number))
}

/// The rows from a serial on, in order.
pub fn rows(store: &Store, from: u64) -> impl Iterator<Item = Result<DocumentRow, StoreError>> {
    read_range(store, &row_key(from), b"vbj").map(|entry| Ok(entry?.1))
}

/// The key and the value of a row without the plate that its document is addressed to.
pub fn row_without_plate(mut row: DocumentRow) -> (Vec<u8>, Vec<u8>) {
    row.facts = row.facts.map(|facts| {
        let debtor = facts.debtor.without_plate(row.serial);
        DocumentFacts { debtor, ..facts }
    });
    (row_key(row.serial), encode(&row))
}

impl DocumentRow {
    pub fn as_last(&self) -> LastDocument {
        LastDocument { serial: self.serial, date: Some(self.date), position: self.position }
    }

    /// The bytes of the document, as an export has them. What cannot be read is missing in them, which their checksum shows.
    pub fn bytes(&self, ledger: &Ledger) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        for position in self.pieces.positions() {
            match ledger.record_at(position) {
                Ok(Some(Record::Command {
                    command: Command::DocumentPiece { serial, bytes: piece, .. },
                    ..
                })) if serial == self.serial => bytes.extend(piece),
                Ok(_) | Err(StoreError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }
}

/// The bytes of a document of an issue.
#[derive(Debug)]
pub struct IssuedBytes {
    pub serial: u64,
    pub pieces: PieceRanges,
    pub bytes: Vec<u8>,
}

/// Gives the documents of an issue that is recorded at `to`, one after the other, as far as their pieces can be read.
pub fn read_issue(
    ledger: &Ledger,
    (issue, from, to): ([u8; 16], u64, u64),
    each: &mut dyn FnMut(IssuedBytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut current: Option<IssuedBytes> = None;
    for found in ledger.records(from) {
        let (position, found) = found?;
        if position >= to {
            break;
        }
        let RecordOrDamage::Record(Record::Command {
            command: Command::DocumentPiece { issue: its, serial, bytes },
            ..
        }) = found
        else {
            continue;
        };
        if its != issue {
            continue;
        }
        if current.as_ref().is_some_and(|current| current.serial != serial)
            && let Some(complete) = current.take()
        {
            each(complete)?;
        }
        let begin = || IssuedBytes { serial, pieces: PieceRanges::default(), bytes: Vec::new() };
        let current = current.get_or_insert_with(begin);
        current.pieces.add(position);
        current.bytes.extend(bytes);
    }
    current.map_or(Ok(()), each)
}

/// Rows that are not written yet.
#[derive(Debug, Default)]
pub struct DocumentChanges(BTreeMap<u64, DocumentRow>);

impl DocumentChanges {
    pub fn put(&mut self, row: DocumentRow) {
        self.0.insert(row.serial, row);
    }

    pub fn writes(&self) -> usize {
        2 * self.0.len()
    }

    pub fn drain(&mut self, batch: &mut Batch) {
        for (serial, row) in std::mem::take(&mut self.0) {
            if let Some(facts) = &row.facts {
                batch.put(number_key(&facts.number), encode(&serial));
            }
            batch.put(row_key(serial), encode(&row));
        }
    }
}
