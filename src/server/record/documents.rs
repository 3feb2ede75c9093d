//! The bytes of documents in the ledger: those of an exported file, in pieces of one record each.
//!
//! The lines of a document are compressed by DEFLATE, some hundred lines at a time, so that one can be read without the others.

use crate::parking::document::{DocumentError, DocumentLine, decode_lines, encode_lines};
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

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
