//! The bytes of documents in the ledger: those of an exported file, in pieces of one record each.
//!
//! The lines of a document are compressed by DEFLATE, some hundred lines at a time, so that one can be read without the others.
//! A note of each document has records of its own: whose it is, and what it books, is known although a piece of it is damaged.

use crate::parking::document::{
    DocumentError, DocumentHead, DocumentKind, DocumentLine, ReadDocument, decode_lines, encode_lines,
};
use crate::parking::receivables::{Corrections, DocumentSummary};
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use serde::Serialize;

/// How many lines are compressed together.
pub const LINES_TOGETHER: usize = 256;
/// How many bytes of a document one record holds.
pub const BYTES_IN_A_RECORD: usize = 5 * 1024;

/// Fast, and three quarters of what the best level saves.
const LEVEL: u8 = 3;
/// The longest that lines which are compressed together may be: far more than any that were written.
const UNPACKED_MAX: usize = 64 << 20;

/// Some lines of a document, compressed.
pub fn pack_lines(lines: impl IntoIterator<Item = DocumentLine>) -> Vec<u8> {
    compress_to_vec(&encode_lines(lines), LEVEL)
}

/// Err: the bytes are not lines.
pub fn unpack_lines(bytes: &[u8]) -> Result<Vec<DocumentLine>, DocumentError> {
    let lines = decompress_to_vec_with_limit(bytes, UNPACKED_MAX)
        .map_err(|error| DocumentError::Damaged(format!("some of its lines cannot be unpacked ({error})")))?;
    decode_lines(&lines)
}

/// The lines of pieces that were packed.
pub fn lines_of(pieces: &[impl AsRef<[u8]>]) -> impl Iterator<Item = Result<DocumentLine, DocumentError>> {
    pieces.iter().flat_map(|piece| match unpack_lines(piece.as_ref()) {
        Ok(lines) => lines.into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    })
}

/// The first byte of an encoded note. Format 1 ends before the corrections.
const NOTE_FORMAT: u8 = 2;

/// What is known of a document without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DocumentNote {
    pub summary: DocumentSummary,
    /// BLAKE3 of its file.
    pub digest: [u8; 32],
    /// None, where it is no credit note.
    pub corrections: Corrections,
}

impl DocumentNote {
    /// `None`: it is a draft.
    pub fn of(head: &DocumentHead, file: &[u8]) -> Option<DocumentNote> {
        let summary = head.summary()?;
        let digest = *blake3::hash(file).as_bytes();
        let corrections = match head.kind() {
            DocumentKind::Invoice => Corrections::new(),
            DocumentKind::CreditNote => corrections_of(file),
        };
        Some(DocumentNote { summary, digest, corrections })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![NOTE_FORMAT]).expect("a note always encodes")
    }

    /// `None`: a part of it is missing, or it has a format that this program does not know. A note of format 1 has no corrections: a credit
    /// note of which nothing else can be read offsets the oldest invoices.
    pub fn from_bytes(bytes: &[u8]) -> Option<DocumentNote> {
        let (format, body) = bytes.split_first()?;
        let ((summary, digest), rest) = postcard::take_from_bytes(body).ok()?;
        let (corrections, rest) = match *format {
            1 => (Corrections::new(), rest),
            NOTE_FORMAT => postcard::take_from_bytes(rest).ok()?,
            _ => return None,
        };
        rest.is_empty().then_some(DocumentNote { summary, digest, corrections })
    }
}

/// What the lines of a document correct, as far as they can be read.
fn corrections_of(file: &[u8]) -> Corrections {
    let mut corrections = Corrections::new();
    let read = ReadDocument::from_bytes(file).ok();
    for line in read.iter().flat_map(|read| lines_of(&read.pieces)).filter_map(Result::ok) {
        if let Some(correction) = line.correction {
            let sum = corrections.entry(correction.document.number.into()).or_default();
            *sum = sum.saturating_add(line.amount.gross);
        }
    }
    corrections
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parking::journal::samples::{debtor, euro, rate, total};
    use crate::parking::money::Amount;
    use jiff::civil::date;

    #[test]
    fn notes_of_both_formats_are_read() {
        let issued = date(2026, 12, 1);
        let summary = DocumentSummary {
            serial: 7,
            number: "2026-000007".into(),
            debtor: debtor("miller"),
            date: issued,
            due: issued,
            month: "2026-11".parse().unwrap(),
            currency: euro(),
            totals: vec![total(rate(1900), "2026-11", -100, -19)],
        };
        let corrections = Corrections::from([("2026-000003".to_owned(), Amount::of_minor(-119))]);
        let note = DocumentNote { summary, digest: [9; 32], corrections };
        let bytes = note.to_bytes();
        assert_eq!(DocumentNote::from_bytes(&bytes).as_ref(), Some(&note));
        let old = postcard::to_extend(&(&note.summary, note.digest), vec![1]).unwrap();
        let without = DocumentNote { corrections: Corrections::new(), ..note };
        assert_eq!(DocumentNote::from_bytes(&old), Some(without));
        for other in
            [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat(), &[&[3], &bytes[1..]].concat(), &[]]
        {
            assert_eq!(DocumentNote::from_bytes(other), None);
        }
    }
}
