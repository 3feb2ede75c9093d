//! Reads documents that were issued: their bytes from the ledger, and their renderings.
//!
//! **Promise.** What is shown is what was issued, byte for byte; what is not is refused. Once the [term](PlateTerm) of a document is over, it
//! is shown without plates, and is the same otherwise.
//! **Kept by.** The digest of each rendering was recorded with the document, and is checked before plates are removed.

use super::hex::{hex, unhex};
use super::ledger::Ledger;
use super::record::documents::{lines_of, pack_lines, unpack_lines};
use super::view::billing::documents::{row, serial_of};
use crate::daemon::admin::Outcome;
use crate::parking::document::{
    Digests, DocumentError, DocumentFile, DocumentLine, DocumentPlates, FileError, PlateTerm, ReadDocument,
    Rendering, render,
};
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

/// The bytes of the document with this number, as an export has them: without plates where the term is over.
pub fn document_file(ledger: &Ledger, number: &str, term: PlateTerm) -> Result<Vec<u8>, ShowDocumentError> {
    let unknown = || ShowDocumentError::Unknown(number.to_owned());
    let serial = serial_of(ledger.store(), number)?.ok_or_else(unknown)?;
    let row = row(ledger.store(), serial)?.ok_or_else(unknown)?;
    let file = row.bytes(ledger)?;
    if term.is_over(row.date) { without_plates(&file) } else { Ok(file) }
}

/// The file of a document without plates.
///
/// # Errors
/// The document cannot be read, or its renderings are not those that were issued.
pub fn without_plates(file: &[u8]) -> Result<Vec<u8>, ShowDocumentError> {
    let document = ReadDocument::from_bytes(file)?;
    if Digests::of(&document.head, lines_of(&document.pieces))? != document.digests {
        return Err(not_as_issued());
    }
    if document.plates == DocumentPlates::Removed {
        return Ok(file.to_vec());
    }
    let without = |piece: &&[u8]| {
        let lines = unpack_lines(piece)?;
        Ok(pack_lines(lines.into_iter().map(DocumentLine::without_plate)))
    };
    let pieces = document.pieces.iter().map(without).collect::<Result<Vec<_>, DocumentError>>()?;
    let head = document.head.without_plate();
    let digests = Digests::of(&head, lines_of(&pieces))?;
    let new = DocumentFile::begin(Vec::new(), DocumentPlates::Removed, &head, &digests);
    let written = new.and_then(|mut new| {
        pieces.iter().try_for_each(|piece| new.piece(piece))?;
        new.finish()
    });
    Ok(written.map_err(DocumentError::from)?)
}

/// Whether two files are of one document, each with its plates or without them.
///
/// # Errors
/// The lines of one cannot be read.
pub fn are_one_but_for_plates(
    one: &ReadDocument<'_>,
    other: &ReadDocument<'_>,
) -> Result<bool, DocumentError> {
    if [one.plates, other.plates] == [DocumentPlates::AsIssued; 2] {
        return Ok(one == other);
    }
    if one.head.clone().without_plate() != other.head.clone().without_plate() {
        return Ok(false);
    }
    let [mut of_one, mut of_other] =
        [one, other].map(|its| lines_of(&its.pieces).map(|line| line.map(DocumentLine::without_plate)));
    loop {
        match (of_one.next().transpose()?, of_other.next().transpose()?) {
            (None, None) => return Ok(true),
            (line, other) if line == other => {}
            _ => return Ok(false),
        }
    }
}

fn not_as_issued() -> ShowDocumentError {
    DocumentError::Damaged("its rendering is not the one that was issued".to_owned()).into()
}

/// A part of these bytes, for `admin.sock`.
pub fn document_part(ledger: &Ledger, (number, from): (&str, usize), term: PlateTerm) -> Outcome {
    let file = document_file(ledger, number, term).map_err(|error| error.to_string())?;
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
        return Err(not_as_issued());
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
