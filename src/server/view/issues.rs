//! Documents are issued: what they charge is noted, and their stays are no longer due.
//!
//! **Promise.** A charge that a document names counts as charged, whether the ledger has its stay now, gets it later, or has lost it.
//! It is to be given back only if the ledger shows that the stay is no more, never because events are missing.
//! **Kept by.** A stay is withdrawn when one that documents charged is changed, or when the ledger has its exit, nothing of its garage is
//! missing, and no stay ends with it.

use super::billing::documents::DocumentState::{Damaged, Issued, Lost};
use super::billing::documents::{DocumentFacts, DocumentRow, IssuedBytes, PieceRanges, read_issue};
use super::billing::issued::{IssuedExit, LineOfCharge, WithdrawnStay, dues, is_due};
use super::billing::rules::ChargeKey;
use super::changes::ViewChanges;
use super::pages::{SlotAddress, StoredPassage, is_token};
use super::state::View;
use crate::codes;
use crate::messaging::{Epoch, SiteName};
use crate::parking::document::{DocumentHead, DocumentLine, LineCar, ReadDocument};
use crate::parking::{Moment, Plate};
use crate::server::ledger::Ledger;
use crate::server::record::documents::{DocumentNote, unpack_lines};
use crate::store::StoreError;
use jiff::civil::Date;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A command that issues documents, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordedIssue {
    pub position: u64,
    pub issue: [u8; 16],
    pub from: u64,
    pub first: u64,
    pub last: u64,
    pub date: Date,
}

/// What is known of a document that was read.
type ReadFacts = (DocumentFacts, DocumentNote);

/// Pages of stays, by the number of their garage and their own.
type PageSet = BTreeSet<(u32, u32)>;

impl View {
    /// Puts documents in force, or brings back some that were damaged or lost.
    pub(super) fn issue(
        &mut self,
        ledger: &Ledger,
        recorded: RecordedIssue,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let RecordedIssue { position, first, last, date, .. } = recorded;
        let mut found: BTreeMap<u64, (PieceRanges, Option<ReadFacts>)> = BTreeMap::new();
        let mut charged = 0;
        let notes = read_issue(ledger, recorded.pieces(), &mut |IssuedBytes { serial, pieces, bytes }| {
            let mut lines = Vec::new();
            let head = read_lines(serial, &bytes, &mut |line| {
                lines.extend(IssuedExit::of_line(&line.reference).map(|charge| {
                    let (amount, rate, month) = (line.amount.gross, line.amount.rate, line.month);
                    LineOfCharge { charge, amount, rate, month }
                }));
                Ok(())
            })?;
            if let Err(reason) = &head {
                tracing::error!(
                    code = %codes::DOCUMENT_DAMAGED,
                    serial, reason,
                    hint = "nothing is issued for its account until it was imported again: server documents import DIR",
                    "a document that was issued cannot be read"
                );
            }
            let read = head.ok().and_then(|head| {
                let note = DocumentNote::of(&head, &bytes)?;
                Some((DocumentFacts::of(&head, &note), note))
            });
            if let Some((facts, note)) = &read {
                // What a known document charges is known, and only its bytes are needed.
                let is_new = changes.billing.document(serial)?.is_none_or(|row| row.becomes(&note.digest));
                if is_new {
                    charged += lines.len() as u64;
                    changes.billing.issued.add(serial, facts.clone(), lines)?;
                }
            }
            found.insert(serial, (pieces, read));
            Ok(())
        })?;
        self.skip_to(first, (position, date), changes);
        for serial in first..=last {
            let (pieces, read) = found.remove(&serial).unwrap_or_default();
            let state = if read.is_some() { Issued } else { Damaged };
            let noted = || notes.get(&serial).map(|note| (DocumentFacts::of_note(note), note.clone()));
            let (facts, note) = read.or_else(noted).unzip();
            let row = DocumentRow { serial, position, date, state, facts, pieces };
            if let Some(row) = after_issue(changes.billing.document(serial)?, row) {
                if let Some(note) = note {
                    changes.billing.receivables().apply_document(&note.summary, &note.corrections)?;
                }
                changes.billing.documents.put(row);
            }
        }
        self.given_through(last, changes)?;
        self.recount(ledger, recorded, charged, changes)
    }

    /// Records numbers as lost, and goes on after them.
    pub(super) fn resume_numbers(
        &mut self,
        (first, last): (u64, u64),
        (position, date, reason): (u64, Date, &str),
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        self.skip_to(first, (position, date), changes);
        for serial in first..=last {
            let state = Lost { reason: reason.to_owned() };
            changes.billing.documents.put(DocumentRow::unknown(serial, position, date, state));
        }
        changes.billing.documents.resume(position);
        self.billing.shown_mut().numbers_resumed_at = position;
        self.given_through(last, changes)
    }

    /// Notes the numbers before `first` that nothing is known of: the record that issued them cannot be read.
    fn skip_to(&self, first: u64, (position, date): (u64, Date), changes: &mut ViewChanges) {
        for serial in self.billing.last_document.serial + 1..first {
            changes.billing.documents.put(DocumentRow::unknown(serial, position, date, Damaged));
        }
    }

    fn given_through(&mut self, last: u64, changes: &ViewChanges) -> Result<(), StoreError> {
        let serial = self.billing.last_document.serial.max(last);
        if let Some(row) = changes.billing.document(serial)? {
            self.billing.shown_mut().last_document = row.as_last();
        }
        Ok(())
    }

    /// Marks the pages whose stays still have something due, after documents with this number of lines. A stay that they charge and
    /// that is gone by now is withdrawn.
    fn recount(
        &mut self,
        ledger: &Ledger,
        recorded: RecordedIssue,
        charged: u64,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let mut found = 0;
        let mut recounted = PageSet::new();
        for page in changes.billing.issued.marked()? {
            found += self.recount_page(ledger, page, recorded.serials(), changes)?;
            recounted.insert(page);
        }
        for (charge, _) in changes.billing.issued.all_withdrawn()? {
            found += changes.billing.issued.lines_of(charge, recorded.serials())?;
        }
        if found < charged {
            // The pages of some are not marked: they changed since the documents were made, or the ledger does not have their events.
            let sites = sites_by_epoch(ledger);
            read_issue(ledger, recorded.pieces(), &mut |IssuedBytes { serial, bytes, .. }| {
                let read = read_lines(serial, &bytes, &mut |line| {
                    self.look_for(ledger, line, &sites, &mut recounted, changes)
                })?;
                drop(read); // what cannot be read was reported
                Ok(())
            })?;
        }
        for (charge, _) in changes.billing.issued.all_withdrawn()? {
            let amounts = changes.billing.issued.of(charge)?;
            if dues(None, &amounts).is_some_and(|dues| dues.is_empty()) {
                changes.billing.issued.is_settled(charge);
            }
        }
        Ok(())
    }

    /// Finds the stay that a line charges: its page is recounted. One that is no more is withdrawn.
    fn look_for(
        &self,
        ledger: &Ledger,
        line: &DocumentLine,
        sites: &HashMap<Epoch, SiteName>,
        recounted: &mut PageSet,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let Some(charge) = IssuedExit::of_line(&line.reference) else { return Ok(()) };
        let Some(site) = sites.get(&charge.epoch) else { return Ok(()) };
        let key = self.key_of(site);
        let wanted = ChargeKey { garage: key.clone(), exit: charge };
        let newest = |plate: &Plate| Ok(self.stays.newest_of(plate));
        if let Some(found) = self.stay_of(ledger, &wanted, newest, changes)? {
            let SlotAddress { garage, page, .. } = found.address;
            if recounted.insert((garage, page)) {
                self.recount_page(ledger, (garage, page), (0, 0), changes)?;
            }
            return Ok(());
        }
        let known = ledger.page_with(site, charge.epoch, charge.sequence)?;
        let (Some((stream, page)), Some(garage)) = (known, self.garages.get(key)) else { return Ok(()) };
        let is_whole = self.missing_ranges_of(key, 0).0 == 0;
        let (LineCar::Plate(plate) | LineCar::Token(plate)) = &line.car;
        // What was forgotten has no plate by which it could be found.
        if !is_whole || is_token(plate) || changes.billing.issued.is_withdrawn(&charge)? {
            return Ok(());
        }
        let at = |moment: Moment| {
            let minutes = i16::try_from(moment.offset.seconds() / 60).unwrap_or_default();
            let when = (moment.timestamp.as_millisecond(), minutes);
            StoredPassage::new(page.position, (stream, charge.sequence), when)
        };
        let (entry, mut exit) = (at(line.entry), at(line.exit));
        if charge.made_at_ms.is_some() {
            exit = exit.made(exit.at_ms, exit.offset_minutes);
        }
        let (garage, plate) = (garage.stays.number, plate.clone());
        changes.billing.issued.withdraw(charge, WithdrawnStay { garage, plate, entry, exit });
        Ok(())
    }

    /// Counts the stays of a page that have something due. Returns how many lines of these documents are about its stays.
    fn recount_page(
        &self,
        ledger: &Ledger,
        (garage, page): (u32, u32),
        documents: (u64, u64),
        changes: &mut ViewChanges,
    ) -> Result<u64, StoreError> {
        let slots = changes.slots(garage, page)?.to_vec();
        let (mut count, mut lines) = (0, 0);
        for (slot, its) in (0u8..).zip(&slots) {
            let Some((plate, visit)) = &its.visit else { continue };
            let Some(ends) = visit.closed() else { continue };
            let charge = IssuedExit::of(ledger, ends.1)?;
            lines += changes.billing.issued.lines_of(charge, documents)?;
            let address = SlotAddress { garage, page, slot };
            let draft = self.billing.draft_in(ledger, address, plate, ends, &changes.billing)?;
            let issued = changes.billing.issued.of(charge)?;
            count += u32::from(draft.is_some_and(|draft| is_due(Some(&draft), &issued)));
        }
        changes.billing.issued.set_marks(garage, page, count);
        Ok(lines)
    }
}

impl RecordedIssue {
    fn serials(&self) -> (u64, u64) {
        (self.first, self.last)
    }

    fn pieces(&self) -> ([u8; 16], u64, u64) {
        (self.issue, self.from, self.position)
    }
}

/// The row of a number after a document with it was recorded. `None`: it stays as it is.
fn after_issue(before: Option<DocumentRow>, now: DocumentRow) -> Option<DocumentRow> {
    let Some(before) = before else { return Some(now) };
    let digest = now.facts.as_ref().filter(|_| now.is_issued())?.digest?;
    before.may_be(&digest).then_some(match before.state {
        Lost { .. } => now,
        Issued | Damaged => DocumentRow { position: before.position, date: before.date, ..now },
    })
}

/// The garages to which epochs belong.
fn sites_by_epoch(ledger: &Ledger) -> HashMap<Epoch, SiteName> {
    ledger.numbered_streams().into_iter().map(|stream| (stream.epoch, stream.site)).collect()
}

/// Reads a document line by line, and gives its head. `Ok(Err)`: why it cannot be read.
fn read_lines(
    serial: u64,
    bytes: &[u8],
    each: &mut dyn FnMut(&DocumentLine) -> Result<(), StoreError>,
) -> Result<Result<DocumentHead, String>, StoreError> {
    let read = match ReadDocument::from_bytes(bytes) {
        Ok(read) => read,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if read.head.issue.as_ref().is_none_or(|issue| issue.serial != serial) {
        return Ok(Err("it has another number than the ledger gave it".to_owned()));
    }
    for piece in &read.pieces {
        match unpack_lines(piece) {
            Ok(lines) => lines.iter().try_for_each(&mut *each)?,
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    Ok(Ok(read.head))
}
