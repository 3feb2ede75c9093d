//! A document as one file, from which another ledger can take it over byte for byte.
//!
//! ```text
//! "fogpost document 1\n"
//! length, head            the head as `DocumentHead::to_bytes` gives it
//! length, digests         of the renderings, in postcard
//! length, piece           each as the ledger has it, in order; there may be none
//! BLAKE3, 32 bytes        of all bytes before
//! ```
//!
//! A document whose plates were removed begins with "fogpost document 1 without plates\n" instead, and has the digests of its renderings
//! without them.
//!
//! A length has four bytes, the lowest first. Pieces are opaque here: the ledger may have compressed them.

use super::DocumentHead;
use super::error::DocumentError;
use super::render::Digests;
use std::io::{self, Write};

/// The ending of such a file, without a dot.
pub const EXPORT_ENDING: &str = "fogpost";

/// With what each file of a document begins, whatever its form.
const NAME: &[u8] = b"fogpost document ";
const FORM: &[u8] = b"1\n";
const FORM_WITHOUT_PLATES: &[u8] = b"1 without plates\n";
const DIGEST_BYTES: usize = 32;

/// The name of the file with the document of this number: `2026-000007.fogpost`.
pub fn export_name(number: &str) -> String {
    format!("{number}.{EXPORT_ENDING}")
}

/// Whether a document is as it was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentPlates {
    AsIssued,
    /// The term for which documents keep plates was over, see [`PlateTerm`](super::PlateTerm).
    Removed,
}

/// Writes the file of a document.
pub struct DocumentFile<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> DocumentFile<W> {
    pub fn begin(
        out: W,
        plates: DocumentPlates,
        head: &DocumentHead,
        digests: &Digests,
    ) -> io::Result<DocumentFile<W>> {
        let mut file = DocumentFile { out, hasher: blake3::Hasher::new() };
        file.write(NAME)?;
        file.write(match plates {
            DocumentPlates::AsIssued => FORM,
            DocumentPlates::Removed => FORM_WITHOUT_PLATES,
        })?;
        file.piece(&head.to_bytes())?;
        file.piece(&postcard::to_stdvec(digests).expect("digests always encode"))?;
        Ok(file)
    }

    /// Writes the checksum, without which the file is worth nothing.
    pub fn finish(mut self) -> io::Result<W> {
        let digest = self.hasher.finalize();
        self.out.write_all(digest.as_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }

    pub fn piece(&mut self, piece: &[u8]) -> io::Result<()> {
        let length = u32::try_from(piece.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.write(&length.to_le_bytes())?;
        self.write(piece)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadDocument<'f> {
    pub plates: DocumentPlates,
    pub head: DocumentHead,
    pub digests: Digests,
    pub pieces: Vec<&'f [u8]>,
}

/// The file is not a sound document. Nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("it is not a document of this program: it does not begin with \"fogpost document\"")]
    Foreign,
    #[error("it is a document of a later release: import it with that")]
    Later,
    #[error("its checksum is wrong: the file is incomplete or damaged, take another copy")]
    Damaged,
    /// The checksum is right, so it was written like this.
    #[error("its checksum is right, but its content cannot be read")]
    Content(#[source] DocumentError),
}

impl<'f> ReadDocument<'f> {
    pub fn from_bytes(file: &'f [u8]) -> Result<ReadDocument<'f>, FileError> {
        let rest = file.strip_prefix(NAME).ok_or(FileError::Foreign)?;
        let (plates, rest) = match (rest.strip_prefix(FORM), rest.strip_prefix(FORM_WITHOUT_PLATES)) {
            (Some(rest), _) => (DocumentPlates::AsIssued, rest),
            (None, Some(rest)) => (DocumentPlates::Removed, rest),
            (None, None) => return Err(FileError::Later),
        };
        let (body, digest) = rest.split_last_chunk::<DIGEST_BYTES>().ok_or(FileError::Damaged)?;
        if blake3::hash(&file[..file.len() - DIGEST_BYTES]) != *digest {
            return Err(FileError::Damaged);
        }
        let content = |what: &str| FileError::Content(DocumentError::Damaged(what.to_owned()));
        let mut sections =
            sections(body).ok_or_else(|| content("a part of it has a wrong length"))?.into_iter();
        let (head, digests) =
            sections.next().zip(sections.next()).ok_or_else(|| content("it has no head"))?;
        Ok(ReadDocument {
            plates,
            head: DocumentHead::from_bytes(head).map_err(FileError::Content)?,
            digests: postcard::from_bytes(digests).map_err(|_| content("its digests do not decode"))?,
            pieces: sections.collect(),
        })
    }
}

fn sections(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut sections = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (section, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        sections.push(section);
        bytes = rest;
    }
    Some(sections)
}
