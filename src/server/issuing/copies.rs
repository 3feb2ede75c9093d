//! Copies of the documents as files, outside of the ledger: what was issued survives the loss of the ledger.
//!
//! **Promise.** Once a document is issued, its copy is complete and on disk. A file with a final name is of a document that was issued.
//! **Kept by.** Copies are written into a folder of their own and synced before the issue is recorded, and get their names after that. If
//! the program ends in between, [`CopiesDir::complete`] finishes it.

use crate::parking::document::{EXPORT_ENDING, ReadDocument, export_name};
use crate::server::documents::are_one_but_for_plates;
use crate::server::ledger::Ledger;
use crate::server::view::billing::documents;
use crate::store::{Store, StoreError, if_there};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The folder of copies whose documents are not recorded yet.
const UNFINISHED: &str = "unfinished";

pub struct CopiesDir<'a>(pub &'a Path);

/// The copies are not on disk.
#[derive(Debug, thiserror::Error)]
pub enum DocumentCopyError {
    #[error("cannot write the copies of documents in {dir:?}: {error}")]
    Directory { dir: PathBuf, error: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CopiesDir<'_> {
    fn failed(&self) -> impl Fn(io::Error) -> DocumentCopyError {
        |error| DocumentCopyError::Directory { dir: self.0.to_owned(), error }
    }

    fn unfinished(&self) -> PathBuf {
        self.0.join(UNFINISHED)
    }

    /// Makes the directory. Only this user may read what is in it.
    pub fn begin(&self) -> Result<(), DocumentCopyError> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.unfinished()).map_err(self.failed())
    }

    /// Whether a document with this number was issued, as far as the directory knows.
    pub fn has(&self, number: &str) -> Result<bool, DocumentCopyError> {
        self.0.join(export_name(number)).try_exists().map_err(self.failed())
    }

    /// The number of a copy that is of a later document than `last`, the last of the series that the ledger knows.
    pub fn later_than(&self, last: u64, store: &Store) -> Result<Option<String>, DocumentCopyError> {
        let entries = if_there(fs::read_dir(self.0)).map_err(self.failed())?;
        for entry in entries.into_iter().flatten() {
            let path = entry.map_err(self.failed())?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_suffix(EXPORT_ENDING)?.strip_suffix('.'));
            let Some(number) = name else { continue };
            if documents::serial_of(store, number)?.is_some() {
                continue;
            }
            let file = if_there(fs::read(&path)).map_err(self.failed())?.unwrap_or_default();
            let issue = ReadDocument::from_bytes(&file).ok().and_then(|read| read.head.issue);
            if issue.is_some_and(|issue| issue.serial > last) {
                return Ok(Some(number.to_owned()));
            }
        }
        Ok(None)
    }

    /// Whether the copy of a document with this number is of this document, with its plates or without them.
    pub fn holds(&self, number: &str, document: &ReadDocument<'_>) -> Result<bool, DocumentCopyError> {
        let copy = if_there(fs::read(self.0.join(export_name(number)))).map_err(self.failed())?;
        let copy = copy.unwrap_or_default();
        let copy = ReadDocument::from_bytes(&copy).ok();
        Ok(copy.is_some_and(|copy| are_one_but_for_plates(&copy, document).unwrap_or(false)))
    }

    /// Writes the copy of a document that is not recorded yet.
    pub fn write(&self, number: &str, file: &[u8]) -> Result<(), DocumentCopyError> {
        let write = || File::create(self.unfinished().join(export_name(number)))?.write_all(file);
        write().map_err(self.failed())
    }

    /// Returns once all that was written is on disk.
    pub fn sync(&self) -> Result<(), DocumentCopyError> {
        let sync = || rustix::fs::syncfs(File::open(self.unfinished())?).map_err(io::Error::from);
        sync().map_err(self.failed())
    }

    /// Gives the copies of documents that are recorded their names, and removes those of documents that are not. Then writes copies of
    /// the latest issue that are missing.
    pub fn complete(&self, ledger: &Ledger) -> Result<(), DocumentCopyError> {
        let store = ledger.store();
        let last = documents::last(store)?;
        if last.serial > 0 {
            self.begin()?;
        }
        let entries = if_there(fs::read_dir(self.unfinished())).map_err(self.failed())?;
        for entry in entries.into_iter().flatten() {
            let path = entry.map_err(self.failed())?.path();
            let file = fs::read(&path).map_err(self.failed())?;
            let is_recorded = match ReadDocument::from_bytes(&file) {
                Ok(read) => {
                    let serial = read.head.issue.map_or(0, |issue| issue.serial);
                    let facts = documents::row(store, serial)?.and_then(|row| row.facts);
                    facts.is_some_and(|facts| facts.digest == Some(*blake3::hash(&file).as_bytes()))
                }
                Err(_) => false,
            };
            let done = match (is_recorded, path.file_name()) {
                (true, Some(name)) => fs::rename(&path, self.0.join(name)),
                _ => fs::remove_file(&path),
            };
            done.map_err(self.failed())?;
        }
        for serial in (1..=last.serial).rev() {
            let row = documents::row(store, serial)?.filter(|row| row.position == last.position);
            let Some(row) = row else { break };
            let Some(facts) = row.facts.as_ref().filter(|_| row.is_issued()) else { continue };
            let path = self.0.join(export_name(&facts.number));
            if !path.try_exists().map_err(self.failed())? {
                let bytes = row.bytes(ledger)?;
                if Some(*blake3::hash(&bytes).as_bytes()) != facts.digest {
                    continue; // it is damaged, or has no plates any more
                }
                let new = self.unfinished().join(export_name(&facts.number));
                let write = || {
                    let mut file = File::create(&new)?;
                    file.write_all(&bytes)?;
                    file.sync_all()?;
                    fs::rename(&new, &path)
                };
                write().map_err(self.failed())?;
            }
        }
        if last.serial > 0 { self.sync() } else { Ok(()) }
    }
}
