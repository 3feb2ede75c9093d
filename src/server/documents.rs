//! Reads documents that were issued: their bytes from the ledger, and their renderings.
//!
//! **Promise.** What is shown is what was issued, byte for byte; what is not is refused.
//! **Kept by.** The digest of each rendering was recorded with the document.

use super::hex::{hex, unhex};
use super::issuing::make::lines_of;
use super::ledger::Ledger;
use super::view::billing::documents::{row, serial_of};
use crate::daemon::admin::Outcome;
use crate::parking::document::{DocumentError, DocumentHead, FileError, ReadDocument, Rendering, render};
use crate::store::StoreError;
use serde_json::{Value, json};

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

/// A document in one of its renderings. `Err(Damaged)`: it is not what was issued.
pub fn rendered(file: &[u8], rendering: Rendering) -> Result<(DocumentHead, Vec<u8>), ShowDocumentError> {
    let ReadDocument { head, digests, pieces, .. } = ReadDocument::from_bytes(file)?;
    let rendered = render(rendering, &head, lines_of(&pieces), Vec::new())?;
    if *blake3::hash(&rendered).as_bytes() != digests.get(rendering) {
        let what = "its rendering is not the one that was issued".to_owned();
        return Err(DocumentError::Damaged(what).into());
    }
    Ok((head, rendered))
}
