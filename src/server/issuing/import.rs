//! Brings documents back from their copies: those that were issued after a backup, and those whose bytes in the ledger are damaged.
//!
//! **Promise.** A document that was brought back is what was issued, byte for byte. It charges what it charged, and its number is not given
//! again. Every file is looked at before anything is recorded, and each bad one is named.
//! **Kept by.** The checksum of the file, and the digests of its renderings; a known number is another document's unless the file is the
//! same, plates aside: the ledger, or the file, may have [lost](crate::parking::document::PlateTerm) them. What was recorded of the document, where it is damaged, says what its file must be.
//! **Not promised.** All or none: if the program ends meanwhile, some documents are recorded. The next import skips them.

use super::{CopiesDir, Issuing, PieceRecorder, RecordCommands};
use crate::daemon::admin::NotDone;
use crate::parking::document::{
    Digests, DocumentPlates, EXPORT_ENDING, FileError, Issue, Issuer, ReadDocument,
};
use crate::server::documents::are_one_but_for_plates;
use crate::server::record::Command;
use crate::server::record::documents::lines_of;
use crate::server::view::billing::documents::{self, DocumentRow};
use crate::store::StoreError;
use jiff::civil::Date;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How many bad files are named.
const BAD_SHOWN: usize = 20;

/// What an import does.
#[derive(Debug, Serialize)]
pub struct DocumentImportReport {
    /// How many documents are brought back.
    pub documents: usize,
    /// The numbers of the first and the last of them.
    pub first: Option<String>,
    pub last: Option<String>,
    /// How many files are documents that the ledger has.
    pub known: u64,
    /// The last number of the series after it.
    pub last_serial: u64,
    /// Whether the ledger is a backup that may issue documents from then on.
    pub unlocks: bool,
    /// Of the last record. `None`: nothing was recorded.
    pub position: Option<u64>,
}

/// A document to be recorded.
struct FoundDocument {
    path: PathBuf,
    number: String,
    date: Date,
    digest: [u8; 32],
}

#[derive(Default)]
struct DocumentsToImport {
    /// By serial.
    documents: BTreeMap<u64, FoundDocument>,
    known: u64,
    bad: Vec<String>,
}

impl Issuing<'_> {
    /// Brings the documents of a directory back, or that of one file. The views show all that is recorded, and are written.
    pub fn import(
        &self,
        path: &Path,
        dry_run: bool,
        record: RecordCommands<'_>,
    ) -> Result<DocumentImportReport, NotDone> {
        let refused = |what: String| NotDone::Refused(format!("{what}\nNothing was recorded"));
        let DocumentsToImport { documents, known, .. } = self.plan(path).map_err(refused)?;
        let given = self.view.billing.last_document.serial;
        let is_backup = self.lacks_numbers().map_err(|error| refused(error.to_string()))?.is_some();
        let number = |found: Option<(&u64, &FoundDocument)>| found.map(|(_, its)| its.number.clone());
        let mut report = DocumentImportReport {
            documents: documents.len(),
            first: number(documents.first_key_value()),
            last: number(documents.last_key_value()),
            known,
            last_serial: documents.last_key_value().map_or(given, |(serial, _)| given.max(*serial)),
            // A single file does not show that there are no others.
            unlocks: is_backup && path.is_dir(),
            position: None,
        };
        if dry_run {
            return Ok(report);
        }
        let documents: Vec<(u64, FoundDocument)> = documents.into_iter().collect();
        let belong_together = |one: &(u64, FoundDocument), next: &(u64, FoundDocument)| {
            one.0 + 1 == next.0 && one.1.date == next.1.date
        };
        for issue in documents.chunk_by(belong_together) {
            report.position = Some(self.bring_back(issue, record)?);
        }
        if report.unlocks {
            let (last, date) = (report.last_serial, self.operator.time_zone.to_datetime(self.now).date());
            let reason = "documents were imported".to_owned();
            let command = Command::ResumeNumbers { first: last + 1, last, reason, date };
            report.position = Some(record(vec![command])?);
        }
        Ok(report)
    }

    /// Looks at all files. `Err`: why nothing can be recorded.
    fn plan(&self, path: &Path) -> Result<DocumentsToImport, String> {
        let unreadable = |error: io::Error| {
            format!("the server cannot read {path:?}: {error}. Give a directory that its user may read")
        };
        let mut plan = DocumentsToImport::default();
        let files = match path.is_dir() {
            true => copies_in(path).map_err(unreadable)?,
            false => vec![path.to_owned()],
        };
        if files.is_empty() {
            return Err(format!(
                "{path:?} has no documents (files ending in .{EXPORT_ENDING}). If none was issued after the last that is known, say so: \"server documents resume\""
            ));
        }
        for path in files {
            let file =
                fs::read(&path).map_err(|error| format!("the server cannot read {path:?}: {error}"))?;
            if let Err(reason) = self.look_at(&path, &file, &mut plan) {
                plan.bad.push(format!("{}: {reason}", path.display()));
            }
        }
        let first = self.view.billing.last_document.serial + 1;
        for (next, (serial, found)) in (first..).zip(plan.documents.range(first..)) {
            if *serial != next {
                let number = &found.number;
                plan.bad.push(format!(
                    "{number} is document {serial} of the series, and document {next} is missing. Add its copy, or record the numbers before {number} as lost: \"server documents resume --last {} --reason TEXT\"",
                    serial - 1
                ));
                break;
            }
        }
        if plan.bad.is_empty() {
            return Ok(plan);
        }
        let more = plan.bad.len().saturating_sub(BAD_SHOWN);
        plan.bad.truncate(BAD_SHOWN);
        plan.bad.extend((more > 0).then(|| format!("and {more} more")));
        Err(plan.bad.join("\n"))
    }

    /// Adds a document to what is to be recorded, unless the ledger has it. `Err`: why it cannot be recorded.
    fn look_at(&self, path: &Path, file: &[u8], plan: &mut DocumentsToImport) -> Result<(), String> {
        let text = |error: StoreError| error.to_string();
        let read = ReadDocument::from_bytes(file).map_err(|error| match error {
            FileError::Content(content) => content.to_string(),
            error => error.to_string(),
        })?;
        let Some(Issue { number, serial, date }) = read.head.issue.clone() else {
            return Err("it is a draft, which has no number".to_owned());
        };
        if !is_file_name(&number) || serial == 0 {
            return Err(format!("{number:?} is not the number of a document"));
        }
        if !is_same_issuer(&read.head.issuer, &self.operator.issuer) {
            return Err(format!(
                "it was issued by {:?}, and [operator] of the configuration is another one",
                read.head.issuer.name
            ));
        }
        let (store, digest) = (self.ledger.store(), *blake3::hash(file).as_bytes());
        if let Some(row) = documents::row(store, serial).map_err(text)? {
            match self.is_in_ledger(&row, &read, file).map_err(text)? {
                Some(true) => {
                    plan.known += 1;
                    return Ok(());
                }
                None if row.may_be(&digest) => {}
                None if read.plates == DocumentPlates::Removed => {
                    return Err(format!(
                        "the ledger cannot read {number}, and this file has lost its plates, so it cannot be compared with what was issued. Give a copy with plates"
                    ));
                }
                _ => {
                    return Err(format!(
                        "{number} was issued with another content: document {serial} of the series is another file"
                    ));
                }
            }
        }
        if documents::serial_of(store, &number).map_err(text)?.is_some_and(|known| known != serial) {
            return Err(format!("another document has the number {number}"));
        }
        let digests = Digests::of(&read.head, lines_of(&read.pieces)).map_err(|error| error.to_string())?;
        if digests != read.digests {
            return Err("its renderings are not those that were issued".to_owned());
        }
        match plan.documents.entry(serial) {
            Entry::Vacant(place) => {
                _ = place.insert(FoundDocument { path: path.to_owned(), number, date, digest });
            }
            Entry::Occupied(known) if known.get().digest == digest => {}
            Entry::Occupied(known) => {
                return Err(format!("{} has another document of this number", known.get().path.display()));
            }
        }
        Ok(())
    }

    /// Whether the ledger has this document, with its plates or without them: a copy that has them does not replace one that lost them,
    /// nor the other way round. `None`: what it has under this number is not known.
    fn is_in_ledger(
        &self,
        row: &DocumentRow,
        read: &ReadDocument<'_>,
        file: &[u8],
    ) -> Result<Option<bool>, StoreError> {
        let number = read.head.issue.as_ref().map(|issue| &issue.number);
        if row.facts.as_ref().is_some_and(|facts| Some(&facts.number) != number) {
            return Ok(Some(false));
        }
        if !row.is_issued() {
            return Ok(None);
        }
        let known = row.bytes(self.ledger)?;
        if known == file {
            return Ok(Some(true));
        }
        let known = ReadDocument::from_bytes(&known).ok();
        Ok(known.map(|known| are_one_but_for_plates(&known, read).unwrap_or(false)))
    }

    /// Records documents whose serials follow each other, and gives the position of the command that puts them in force.
    fn bring_back(
        &self,
        documents: &[(u64, FoundDocument)],
        record: RecordCommands<'_>,
    ) -> Result<u64, NotDone> {
        let refused = |what: String| {
            NotDone::Refused(format!(
                "{what}. Documents before it were recorded. Run the command again; it skips them"
            ))
        };
        let copies = CopiesDir(self.documents_dir);
        copies.begin().map_err(|error| refused(error.to_string()))?;
        let issue = rand::random();
        let mut pieces = PieceRecorder::new(record);
        for (_, FoundDocument { path, number, digest, .. }) in documents {
            let file = fs::read(path).map_err(|error| refused(format!("cannot read {path:?}: {error}")))?;
            let read = ReadDocument::from_bytes(&file).ok();
            let Some(read) = read.filter(|_| blake3::hash(&file).as_bytes() == digest) else {
                return Err(refused(format!("{path:?} was changed while it was imported")));
            };
            if !copies.holds(number, &read).map_err(|error| refused(error.to_string()))? {
                copies.write(number, &file).map_err(|error| refused(error.to_string()))?;
            }
            pieces.add(issue, &read.head, &file)?;
        }
        let from = pieces.finish()?;
        copies.sync().map_err(|error| refused(error.to_string()))?;
        let (Some((first, its)), Some((last, _))) = (documents.first(), documents.last()) else {
            unreachable!("documents that belong together are one at least")
        };
        let (first, last, date) = (*first, *last, its.date);
        (pieces.record)(vec![Command::Issue { issue, from, first, last, date }])
    }
}

/// The files in a directory that are copies of documents, by name.
fn copies_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == EXPORT_ENDING));
    paths.sort();
    Ok(paths)
}

/// What an operator has changed since may differ, but not all that names it. Where the configuration names none, nothing is compared.
fn is_same_issuer(issuer: &Issuer, configured: &Issuer) -> bool {
    let same = |one: &Option<String>, other: &Option<String>| one.is_some() && one == other;
    configured.name.is_empty()
        || issuer.name == configured.name
        || same(&issuer.vat_id, &configured.vat_id)
        || same(&issuer.tax_number, &configured.tax_number)
}

/// A copy is named after its number.
fn is_file_name(number: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&number.len()) && number.bytes().all(is_known) && !number.starts_with(['.', '-'])
}
