//! The documents that were issued: a row for each, and where the ledger has its bytes.
//!
//! **Promise.** Each serial up to the last is a document, or a recorded loss. A document that cannot be read keeps its row, which says so.
//!
//! | key | value |
//! | --- | --- |
//! | `vbi` + serial (u64) | a [`DocumentRow`] |
//! | `vbj` + number | the serial (u64) |
//! | `vbe` + serial (u64) | nothing; the document is damaged, or its number lost |
//! | `vbl` | the position of the last command by which numbers were resumed (u64) |

use super::super::codec::{damaged, encode, key_u64, read, read_range, u64_from};
use crate::parking::Month;
use crate::parking::document::{DocumentHead, DocumentKind};
use crate::parking::journal::Debtor;
use crate::parking::money::{Currency, VatBasis};
use crate::parking::receivables::DocumentSummary;
use crate::server::ledger::{Ledger, RecordOrDamage};
use crate::server::record::documents::DocumentNote;
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
    pub state: DocumentState,
    /// `None`: nothing is known of it.
    pub facts: Option<DocumentFacts>,
    /// Where its bytes stand in the ledger.
    pub pieces: PieceRanges,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DocumentState {
    Issued,
    /// Its bytes could not be read when it was applied, so what it charged is not known.
    Damaged,
    /// An operator recorded the number as lost.
    Lost {
        reason: String,
    },
}

/// What is known of a document without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentFacts {
    pub number: String,
    pub kind: DocumentKind,
    pub debtor: Debtor,
    pub month: Month,
    pub currency: Currency,
    /// In the order in which its lines name them. None, where its bytes cannot be read.
    pub rates: Vec<VatBasis>,
    /// BLAKE3 of its file. `None`: its plates were removed.
    pub digest: Option<[u8; 32]>,
}

impl DocumentFacts {
    /// What is known of a document whose bytes cannot be read.
    pub fn of_note(note: &DocumentNote) -> DocumentFacts {
        let kind = DocumentKind::of(note.summary.total());
        let DocumentSummary { number, debtor, month, currency, .. } = note.summary.clone();
        let (rates, digest) = (Vec::new(), Some(note.digest));
        DocumentFacts { number, kind, debtor, month, currency, rates, digest }
    }

    pub fn of(head: &DocumentHead, note: &DocumentNote) -> DocumentFacts {
        let rates = head.totals.rates.iter().map(|sum| sum.rate.clone()).collect();
        DocumentFacts { rates, ..DocumentFacts::of_note(note) }
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

fn unsound_key(serial: u64) -> Vec<u8> {
    key_u64(b"vbe", serial)
}

const RESUMED_AT: &[u8] = b"vbl";

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

/// The rows of documents that are damaged, and of numbers that are lost, in order.
pub fn unsound(store: &Store) -> impl Iterator<Item = Result<DocumentRow, StoreError>> {
    store.range(b"vbe", b"vbf").filter_map(|entry| {
        let serial = entry.and_then(|(key, _)| u64_from(&key, 3));
        serial.and_then(|serial| row(store, serial)).transpose()
    })
}

/// The position of the last command by which numbers were resumed; 0: there is none.
pub fn resumed_at(store: &Store) -> Result<u64, StoreError> {
    Ok(read(store, RESUMED_AT)?.unwrap_or_default())
}

/// The key and the value of a row without the plate that its document is addressed to, and without the digest of a file that has plates:
/// a person could try all plates against it.
pub fn row_without_plate(mut row: DocumentRow) -> (Vec<u8>, Vec<u8>) {
    row.facts = row.facts.map(|facts| {
        let debtor = facts.debtor.without_plate(row.serial);
        let digest = facts.digest.filter(|_| row.state == DocumentState::Damaged);
        DocumentFacts { debtor, digest, ..facts }
    });
    (row_key(row.serial), encode(&row))
}

impl DocumentRow {
    /// The row of a number of which nothing is known.
    pub fn unknown(serial: u64, position: u64, date: Date, state: DocumentState) -> DocumentRow {
        DocumentRow { serial, position, date, state, facts: None, pieces: PieceRanges::default() }
    }

    pub fn is_issued(&self) -> bool {
        self.state == DocumentState::Issued
    }

    /// Whether it may be the document with this digest, as far as that is known.
    pub fn may_be(&self, digest: &[u8; 32]) -> bool {
        self.facts.as_ref().and_then(|facts| facts.digest.as_ref()).is_none_or(|its| its == digest)
    }

    /// Whether the document with this digest is in force from now on, and was not before.
    pub fn becomes(&self, digest: &[u8; 32]) -> bool {
        !self.is_issued() && self.may_be(digest)
    }

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

/// Gives the documents of an issue that is recorded at `to`, one after the other, as far as their pieces can be read. Returns the notes of
/// documents that can be read.
pub fn read_issue(
    ledger: &Ledger,
    (issue, from, to): ([u8; 16], u64, u64),
    each: &mut dyn FnMut(IssuedBytes) -> Result<(), StoreError>,
) -> Result<BTreeMap<u64, DocumentNote>, StoreError> {
    let mut current: Option<IssuedBytes> = None;
    let mut notes: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for found in ledger.records(from) {
        let (position, found) = found?;
        if position >= to {
            break;
        }
        let (serial, bytes) = match found {
            RecordOrDamage::Record(Record::Command {
                command: Command::DocumentPiece { issue: its, serial, bytes },
                ..
            }) if its == issue => (serial, bytes),
            RecordOrDamage::Record(Record::Command {
                command: Command::DocumentNote { issue: its, serial, bytes },
                ..
            }) if its == issue => {
                notes.entry(serial).or_default().extend(bytes);
                continue;
            }
            _ => continue,
        };
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
    current.map_or(Ok(()), each)?;
    let notes = notes.into_iter().filter_map(|(serial, its)| Some((serial, DocumentNote::from_bytes(&its)?)));
    Ok(notes.filter(|(serial, note)| note.summary.serial == *serial).collect())
}

/// What is not written yet.
#[derive(Debug, Default)]
pub struct DocumentChanges {
    rows: BTreeMap<u64, DocumentRow>,
    resumed_at: Option<u64>,
}

impl DocumentChanges {
    pub fn put(&mut self, row: DocumentRow) {
        self.rows.insert(row.serial, row);
    }

    pub fn resume(&mut self, position: u64) {
        self.resumed_at = Some(position);
    }

    /// The row as it is now, written or not.
    pub fn row(&self, store: &Store, serial: u64) -> Result<Option<DocumentRow>, StoreError> {
        self.rows.get(&serial).map_or_else(|| row(store, serial), |changed| Ok(Some(changed.clone())))
    }

    pub fn writes(&self) -> usize {
        3 * self.rows.len() + 1
    }

    pub fn drain(&mut self, batch: &mut Batch) {
        if let Some(position) = self.resumed_at.take() {
            batch.put(RESUMED_AT, encode(&position));
        }
        for (serial, row) in std::mem::take(&mut self.rows) {
            if let Some(facts) = &row.facts {
                batch.put(number_key(&facts.number), encode(&serial));
            }
            match row.is_issued() {
                true => batch.remove(unsound_key(serial)),
                false => batch.put(unsound_key(serial), Vec::new()),
            }
            batch.put(row_key(serial), encode(&row));
        }
    }
}
