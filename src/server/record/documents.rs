//! The bytes of documents in the ledger: those of an exported file, in pieces of one record each.
//!
//! The lines of a document are compressed by DEFLATE, some hundred lines at a time, so that one can be read without the others.
//! A note of each document has records of its own: whose it is, and what it books, is known although a piece of it is damaged.

use crate::parking::document::{DocumentError, DocumentHead, DocumentLine, decode_lines, encode_lines};
use crate::parking::receivables::DocumentSummary;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use serde::{Deserialize, Serialize};

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

/// The first byte of an encoded note.
const NOTE_FORMAT: u8 = 1;

/// What is known of a document without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentNote {
    pub summary: DocumentSummary,
    /// BLAKE3 of its file.
    pub digest: [u8; 32],
}

impl DocumentNote {
    /// `None`: it is a draft.
    pub fn of(head: &DocumentHead, file: &[u8]) -> Option<DocumentNote> {
        let digest = *blake3::hash(file).as_bytes();
        head.summary().map(|summary| DocumentNote { summary, digest })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![NOTE_FORMAT]).expect("a note always encodes")
    }

    /// `None`: a part of it is missing, or it has a format that this program does not know.
    pub fn from_bytes(bytes: &[u8]) -> Option<DocumentNote> {
        let (note, rest) = postcard::take_from_bytes(bytes.strip_prefix(&[NOTE_FORMAT])?).ok()?;
        rest.is_empty().then_some(note)
    }
}
