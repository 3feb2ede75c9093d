//! Documents are issued: what they charge is noted, and their stays are no longer due.

use super::billing::documents::DocumentState::{Damaged, Issued, Lost};
use super::billing::documents::{DocumentFacts, DocumentRow, IssuedBytes, PieceRanges, read_issue};
use super::billing::issued::{ExitId, IssuedAmount, WithdrawnStay, dues, is_due};
use super::billing::{Draft, UNREGISTERED};
use super::changes::ViewChanges;
use super::charges::find_stay;
use super::codec::damaged;
use super::pages::{SlotAddress, StoredPassage, is_token, page_key};
use super::state::View;
use crate::codes;
use crate::messaging::{Epoch, SiteName};
use crate::parking::document::{DocumentHead, DocumentLine, LineCar, ReadDocument};
use crate::parking::journal::Debtor;
use crate::parking::money::Money;
use crate::parking::stay::{End, Visit};
use crate::parking::{ChargeId, Moment, Plate};
use crate::server::ledger::Ledger;
use crate::server::record::StreamId;
use crate::server::record::documents::{DocumentNote, unpack_lines};
use crate::store::StoreError;
use jiff::civil::Date;
use smol_str::SmolStr;
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

/// What a line of a document charges.
struct ChargedStay {
    exit: ExitId,
    /// The garage's number in the views.
    garage: u32,
}

/// The ledger's number of the epoch that references of lines name, and the number of the garage.
type KnownStreams = HashMap<(SmolStr, [u8; 16]), Option<(u32, u32)>>;

impl View {
    /// Puts documents in force, or brings back some that were damaged or lost.
    pub(super) fn issue(
        &mut self,
        ledger: &Ledger,
        recorded: RecordedIssue,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let RecordedIssue { position, first, last, date, .. } = recorded;
        let mut found: BTreeMap<u64, (PieceRanges, Option<DocumentNote>)> = BTreeMap::new();
        let mut charged = BTreeSet::new();
        let mut streams = KnownStreams::new();
        let notes = read_issue(ledger, recorded.pieces(), &mut |IssuedBytes { serial, pieces, bytes }| {
            // What a known document charges is known, and only its bytes are needed.
            let before = changes.billing.document(serial)?;
            let is_known = before
                .is_some_and(|row| row.is_issued() || !row.may_be(blake3::hash(&bytes).as_bytes()));
            let read = read_lines(serial, &bytes, &mut |head, line| {
                if is_known {
                    return Ok(());
                }
                let Some(stay) = self.charged_by(ledger, line, &mut streams) else { return Ok(()) };
                charged.insert(stay.exit);
                changes.billing.issued.add(issued_amount(head, line, stay.exit, serial))
            })?;
            if let Err(reason) = &read {
                tracing::error!(
                    code = %codes::DOCUMENT_DAMAGED,
                    serial, reason,
                    hint = "nothing is issued for its account until it was imported again: server documents import DIR",
                    "a document that was issued cannot be read"
                );
            }
            let note = read.ok().and_then(|head| DocumentNote::of(&head, &bytes));
            found.insert(serial, (pieces, note));
            Ok(())
        })?;
        self.skip_to(first, (position, date), changes);
        for serial in first..=last {
            let (pieces, note) = found.remove(&serial).unwrap_or_default();
            let is_read = note.is_some();
            let note = note.or_else(|| notes.get(&serial).cloned());
            let facts = note.as_ref().map(DocumentFacts::of);
            let state = if is_read { Issued } else { Damaged };
            let row = DocumentRow { serial, position, date, state, facts, pieces };
            let before = changes.billing.document(serial)?;
            if let Some(row) = after_issue(before, row) {
                if let Some(note) = note {
                    changes.billing.receivables().apply_document(&note.summary)?;
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

    /// The stay that a line is about. `None`: this ledger does not know its garage, which has no stays then.
    fn charged_by(
        &self,
        ledger: &Ledger,
        line: &DocumentLine,
        streams: &mut KnownStreams,
    ) -> Option<ChargedStay> {
        let ChargeId { epoch, sequence, made_at_ms, .. } = line.reference.charge_id().ok()?;
        let key = (line.reference.garage.clone(), epoch);
        let found = streams.entry(key).or_insert_with_key(|(garage, epoch)| {
            let garage = SiteName::new(garage).ok()?;
            let sites = self.sites_of(&garage);
            let stream = |site| StreamId { site, epoch: Epoch::from_bytes(*epoch) };
            let number = sites.into_iter().find_map(|site| ledger.number_of(&stream(site)))?;
            Some((number, self.garages.get(&garage)?.stays.number))
        });
        let (stream, garage) = (*found)?;
        Some(ChargedStay { exit: ExitId { stream, sequence, made_at_ms }, garage })
    }

    /// Marks the pages whose stays still have something due. A stay that documents charge and that is gone by now is withdrawn.
    fn recount(
        &mut self,
        ledger: &Ledger,
        recorded: RecordedIssue,
        mut charged: BTreeSet<ExitId>,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        for page in changes.billing.issued.marked()? {
            self.recount_page(ledger, page, &mut charged, changes)?;
        }
        if !charged.is_empty() {
            // Their pages are not marked: they changed since the documents were made.
            let mut streams = KnownStreams::new();
            read_issue(ledger, recorded.pieces(), &mut |IssuedBytes { serial, bytes, .. }| {
                let read = read_lines(serial, &bytes, &mut |_, line| match self.charged_by(
                    ledger,
                    line,
                    &mut streams,
                ) {
                    Some(stay) if charged.remove(&stay.exit) => {
                        self.changed_meanwhile(ledger, (&stay, line), &mut charged, changes)
                    }
                    _ => Ok(()),
                })?;
                drop(read); // what cannot be read was reported
                Ok(())
            })?;
        }
        for (exit, _) in changes.billing.issued.all_withdrawn()? {
            let amounts = changes.billing.issued.of(exit)?;
            if dues(None, &amounts).is_some_and(|dues| dues.is_empty()) {
                changes.billing.issued.is_settled(exit);
            }
        }
        Ok(())
    }

    fn changed_meanwhile(
        &self,
        ledger: &Ledger,
        (stay, line): (&ChargedStay, &DocumentLine),
        charged: &mut BTreeSet<ExitId>,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let (LineCar::Plate(plate) | LineCar::Token(plate)) = &line.car;
        if let Ok(plate) = Plate::stored(plate) {
            let is_it = |address: SlotAddress, its: StoredPassage| {
                address.garage == stay.garage && ExitId::of(its) == stay.exit
            };
            let newest = self.stays.newest_of(&plate);
            if let Some((SlotAddress { garage, page, .. }, _)) =
                find_stay(newest, plate.as_str(), is_it, changes)?
            {
                return self.recount_page(ledger, (garage, page), charged, changes);
            }
        }
        let streams = ledger.numbered_streams();
        let Some(stream) = streams.get(stay.exit.stream as usize) else { return Ok(()) };
        let found = ledger.page_with(&stream.site, stream.epoch, stay.exit.sequence)?;
        let position = found.map_or(0, |(_, page)| page.position);
        let place = (stay.exit.stream, stay.exit.sequence);
        let at = |moment: Moment| {
            let minutes = i16::try_from(moment.offset.seconds() / 60).unwrap_or_default();
            StoredPassage::new(position, place, (moment.timestamp.as_millisecond(), minutes))
        };
        let (entry, mut exit) = (at(line.entry), at(line.exit));
        if stay.exit.made_at_ms.is_some() {
            exit = exit.made(exit.at_ms, exit.offset_minutes);
        }
        let (garage, plate) = (stay.garage, plate.clone());
        changes.billing.issued.withdraw(stay.exit, WithdrawnStay { garage, plate, entry, exit });
        Ok(())
    }

    fn recount_page(
        &self,
        ledger: &Ledger,
        (garage, page): (u32, u32),
        charged: &mut BTreeSet<ExitId>,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let slots = changes.slots(garage, page)?.to_vec();
        let mut count = 0;
        for (slot, its) in (0u8..).zip(&slots) {
            let Some((plate, visit @ Visit::Stay { end: End::Left(exit), .. })) = &its.visit else {
                continue;
            };
            charged.remove(&ExitId::of(*exit));
            let address = SlotAddress { garage, page, slot };
            let draft = self.draft_in(ledger, address, (plate, visit), changes)?;
            let issued = changes.billing.issued.of(ExitId::of(*exit))?;
            count += u32::from(draft.is_some_and(|draft| is_due(Some(&draft), &issued)));
        }
        changes.billing.issued.set_marks(garage, page, count);
        Ok(())
    }

    fn draft_in(
        &self,
        ledger: &Ledger,
        address: SlotAddress,
        (plate, visit): (&str, &Visit<StoredPassage>),
        changes: &ViewChanges,
    ) -> Result<Option<Draft>, StoreError> {
        if is_token(plate) {
            return changes.billing.frozen(address);
        }
        let plate = Plate::stored(plate).map_err(|_| damaged(&page_key(address.garage, address.page)))?;
        self.billing.draft_of(ledger, (&plate, address, visit), &changes.billing)
    }
}

impl RecordedIssue {
    fn pieces(&self) -> ([u8; 16], u64, u64) {
        (self.issue, self.from, self.position)
    }
}

/// The row of a number after a document with it was recorded. `None`: it stays as it is.
fn after_issue(before: Option<DocumentRow>, now: DocumentRow) -> Option<DocumentRow> {
    let Some(before) = before else { return Some(now) };
    let digest = now.facts.as_ref().filter(|_| now.is_issued())?.digest;
    before.may_be(&digest).then(|| match before.state {
        Lost { .. } => now,
        Issued | Damaged => DocumentRow { position: before.position, date: before.date, ..now },
    })
}

fn issued_amount(head: &DocumentHead, line: &DocumentLine, exit: ExitId, document: u64) -> IssuedAmount {
    let rate = line.amount.rate.and_then(|rate| head.totals.rates.get(usize::from(rate)));
    let account = match &head.customer.debtor {
        Debtor::Account(account) => account.as_str().into(),
        Debtor::Plate(_) => SmolStr::new_static(UNREGISTERED),
    };
    let amount = Money { amount: line.amount.gross, currency: head.currency };
    IssuedAmount { exit, account, amount, vat: rate.map(|sum| sum.rate.clone()), month: line.month, document }
}

/// Reads a document line by line, and gives its head. `Ok(Err)`: why it cannot be read.
fn read_lines(
    serial: u64,
    bytes: &[u8],
    each: &mut dyn FnMut(&DocumentHead, &DocumentLine) -> Result<(), StoreError>,
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
            Ok(lines) => lines.iter().try_for_each(|line| each(&read.head, line))?,
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    Ok(Ok(read.head))
}
