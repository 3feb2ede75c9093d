//! Reads documents that were issued: their bytes from the ledger, and their renderings.
//!
//! **Promise.** What is shown is what was issued, byte for byte; what is not is refused.
//! **Kept by.** The digest of each rendering was recorded with the document.

use super::hex::{hex, unhex};
use super::issuing::make::lines_of;
use super::ledger::Ledger;
use super::view::billing::documents::{row, serial_of};
use crate::daemon::admin::Outcome;
use crate::parking::document::{DocumentError, FileError, ReadDocument, Rendering, render};
use crate::store::StoreError;
use serde_json::{Value, json};
use std::io::Write;

/// How many bytes of a document one answer over `admin.sock` has.
const BYTES_IN_AN_ANSWER: usize = 4 << 20;

/// Why a document is not shown. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ShowDocumentError {
    #[error("there is no document {0:?}; \"server documents list\" shows all documents")]
    Unknown(String),
    #[error("the document cannot be read: {0}. Its copy is in the documents directory")]
    Damaged(#[from] FileError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the answer of the server is not a part of a document. Has it another version than this program?"
    )]
    Answer,
}

/// The bytes of the document with this number, as an export has them.
pub fn document_file(ledger: &Ledger, number: &str) -> Result<Vec<u8>, ShowDocumentError> {
    let unknown = || ShowDocumentError::Unknown(number.to_owned());
    let serial = serial_of(ledger.store(), number)?.ok_or_else(unknown)?;
    let row = row(ledger.store(), serial)?.ok_or_else(unknown)?;
    Ok(row.bytes(ledger)?)
}

/// A part of these bytes, for `admin.sock`.
pub fn document_part(ledger: &Ledger, number: &str, from: usize) -> Outcome {
    let file = document_file(ledger, number).map_err(|error| error.to_string())?;
    let end = (from + BYTES_IN_AN_ANSWER).min(file.len());
    let part = file.get(from..end).unwrap_or_default();
    Ok(json!({ "part": hex(part), "next": (end < file.len()).then_some(end) }))
}

/// Adds the part in an answer to `file`, and gives where the next begins.
pub fn add_part(file: &mut Vec<u8>, answer: &Value) -> Result<Option<usize>, ShowDocumentError> {
    let part = answer["part"].as_str().and_then(unhex).ok_or(ShowDocumentError::Answer)?;
    file.extend(part);
    Ok(answer["next"].as_u64().and_then(|next| usize::try_from(next).ok()))
}

/// A document whose rendering is the one that was issued. `Err(Damaged)`: it is not.
pub fn checked(file: &[u8], rendering: Rendering) -> Result<ReadDocument<'_>, ShowDocumentError> {
    let document = ReadDocument::from_bytes(file)?;
    let digest = write_rendering(&document, rendering, blake3::Hasher::new())?.finalize();
    if *digest.as_bytes() != document.digests.get(rendering) {
        let what = "its rendering is not the one that was issued".to_owned();
        return Err(DocumentError::Damaged(what).into());
    }
    Ok(document)
}

/// Renders a document, line by line.
pub fn write_rendering<W: Write>(
    document: &ReadDocument<'_>,
    rendering: Rendering,
    out: W,
) -> Result<W, DocumentError> {
    render(rendering, &document.head, lines_of(&document.pieces), out)
}
