//! `server compact DIR`: writes the ledger into a new directory without the plates that were forgotten, and without those on documents
//! whose term is over.
//!
//! **Promise.** The new directory is the same ledger: it has the same id, positions, amounts, dates, documents and garages, and edges
//! continue with it. It does not hold the plates that were forgotten, the content of the commands that forgot them,
//! registrations that were removed, or plates of documents whose [term](PlateTerm) is over. Pages keep the digests that they were received with. The old directory is not changed.
//! **Kept by.** Each record is copied, changed where it names what is forgotten. The views can no longer be rebuilt from the
//! first records, so the views at the end become the base of the new ledger (`view::base`), to which later records are applied.
//! **Not promised.** That plates disappear from events that were never understood (quarantine), from reasons that people wrote,
//! from backups and logs, from documents that cannot be read, or from the copies of documents.

mod old_documents;

use super::backup::{self, Failure};
use super::commands::{OfflineServer, ServerRequest, today};
use super::ledger::{Ledger, LedgerCopy};
use super::record::{Command, Record, StreamId};
use super::view::event_decisions::{EventKey, without_plates};
use super::view::{View, base};
use crate::config::ServerConfig;
use crate::daemon::admin::{self, DaemonOrDirectory};
use crate::messaging::page::{Content, Page, SealedPage};
use crate::messaging::{Digest, Epoch, SiteName};
use crate::parking::document::{EXPORT_ENDING, PlateTerm};
use crate::parking::register::RegisterFact;
use crate::parking::{Event, EventKind, Plate};
use crate::store::{Purpose, Store, StoreError};
use old_documents::{OldDocuments, OldRows};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Stands for the plate of a correction that was forgotten.
const FORGOTTEN: &str = "FORGOTTEN";

#[derive(Debug, Default)]
pub(super) struct Changed {
    events: u64,
    commands: u64,
    /// The number of documents whose plates were removed.
    pub documents: usize,
    /// The serials of those that cannot be read.
    pub unreadable: BTreeSet<u64>,
}

/// Writes the ledger of a directory on which no server runs into `to` without what was forgotten.
pub fn run(config: &ServerConfig, to: &Path) -> Result<String, String> {
    let data_dir = &config.data_dir;
    let reached = admin::reach(data_dir, &ServerRequest::Garages);
    let books = match reached.map_err(|error| error.to_string())? {
        DaemonOrDirectory::Daemon(_) => {
            return Err("the server is running. Nothing was changed. Stop it first: events that it takes meanwhile would be missing in the new directory".into());
        }
        DaemonOrDirectory::Directory(dir) => OfflineServer::open(dir, config),
    };
    let books = books.map_err(|error| error.to_string())?;
    let term = config.operator.plate_term(today(&config.operator));
    let said = |changed: Changed| {
        let (events, commands) = (changed.events, changed.commands);
        let documents = said_of_documents(&changed, term, &config.documents_dir);
        let (to, old, position) = (to.display(), data_dir.display(), books.ledger.position());
        Ok(format!(
            "The ledger is written to {to}, up to position {position}: {events} events and {commands} commands no longer contain the forgotten plates. Start the server on it (server --data-dir {to}). When it works, remove the old directory {old}, which still contains them{documents}"
        ))
    };
    backup::into_new(
        to,
        "compacted ledger",
        |unfinished| write((&books.ledger, &books.view), unfinished, term),
        said,
    )
}

/// What became of documents whose term is over, and what is left to the operator. Empty: there are none.
fn said_of_documents(changed: &Changed, term: PlateTerm, copies: &Path) -> String {
    let Changed { documents, unreadable, .. } = changed;
    let mut said = String::new();
    if *documents > 0 {
        let last_year = i32::from(term.today.year()) - i32::from(term.years) - 1;
        said += &format!(
            ". {documents} documents issued in {last_year} or before no longer contain plates. Their copies still do: those in {} (NUMBER.{EXPORT_ENDING}), and exported ones (NUMBER.{EXPORT_ENDING}, .txt, .json, .csv, .html). Nothing removes them but you",
            copies.display()
        );
    }
    if !unreadable.is_empty() {
        said += &format!(
            ". {} documents should have lost their plates, but cannot be read, and were copied as they are. Their places in the series are {unreadable:?}",
            unreadable.len()
        );
    }
    said
}

pub(super) fn write(
    (ledger, view): (&Ledger, &View),
    unfinished: &Path,
    term: PlateTerm,
) -> Result<Changed, Failure> {
    let target = Store::open(unfinished, Purpose::Server)?;
    let copy = LedgerCopy::begin(&target, ledger.id(), ledger.numbered_streams())?;
    let forgotten = Forgotten::read(ledger, view)?;
    let old_rows = OldRows::read(ledger.store(), term)?;
    let (pieces, changed) = (Vec::new(), Changed::default());
    let documents = OldDocuments::new(ledger, term);
    let mut writer = CompactWriter { copy, forgotten: &forgotten, documents, pieces, changed };
    let end = ledger.position();
    let mut position = 1;
    while position <= end {
        for raw in ledger.raw_records(position, end, 1 << 20)? {
            writer.add(position, raw)?;
            position += 1;
        }
    }
    writer.add_pieces()?;
    if let Some(position) = ledger.copied_at()? {
        writer.copy.mark_as_copied_at(position)?;
    }
    let CompactWriter { copy, changed, documents: OldDocuments { removed, unreadable, .. }, .. } = writer;
    let changed = Changed { documents: removed.len(), unreadable, ..changed };
    copy.finish()?;
    let keep = |key: &[u8], value| match old_rows.replace(key) {
        true => Ok(None),
        false => forgotten.without_readings(key, value),
    };
    base::found(ledger.store(), &target, keep, old_rows.new_rows())?;
    target.flush()?;
    Ok(changed)
}

struct CompactWriter<'a> {
    copy: LedgerCopy<'a>,
    forgotten: &'a Forgotten<'a>,
    documents: OldDocuments<'a>,
    /// Pieces wait for the command that says what they are.
    pieces: Vec<Vec<u8>>,
    changed: Changed,
}

impl CompactWriter<'_> {
    fn add(&mut self, position: u64, raw: Vec<u8>) -> Result<(), Failure> {
        let raw = match Record::decode(position, &raw) {
            Ok(Record::Command { command: Command::Piece { .. }, .. }) => {
                self.pieces.push(raw);
                return Ok(());
            }
            Ok(Record::Command {
                received_at_ms,
                by,
                command: Command::DocumentPiece { issue, serial, bytes },
            }) => match self.documents.piece(position, serial)? {
                Some(new) if new != bytes => {
                    let command = Command::DocumentPiece { issue, serial, bytes: new };
                    Record::Command { received_at_ms, by, command }.encode()
                }
                _ => raw,
            },
            // The rows say what it said: views are not made of it any more.
            Ok(Record::Command {
                received_at_ms,
                by,
                command: Command::DocumentNote { issue, serial, .. },
            }) if self.documents.is_old(serial)? => {
                let command = Command::DocumentNote { issue, serial, bytes: Vec::new() };
                Record::Command { received_at_ms, by, command }.encode()
            }
            Ok(Record::Command { received_at_ms, by, command }) => {
                return self.add_command(received_at_ms, &by, command);
            }
            Ok(Record::Page { stream, received_at_ms, page }) => match self.forgotten.page(&stream, &page)? {
                Some((page, events)) => {
                    self.changed.events += events;
                    Record::Page { stream, received_at_ms, page }.encode()
                }
                None => raw,
            },
            // What cannot be read is copied as it is: its content is unknown.
            Ok(_) | Err(_) => raw,
        };
        self.add_pieces()?;
        Ok(self.copy.add(raw)?)
    }

    fn add_command(&mut self, received_at_ms: i64, by: &str, command: Command) -> Result<(), Failure> {
        let of = |command| Record::Command { received_at_ms, by: by.to_owned(), command }.encode();
        let before = command.clone();
        let (command, written) = self.forgotten.command(&self.pieces, command)?;
        self.changed.commands += u64::from(command != before);
        match written {
            PiecesAfter::AsTheyAre => self.add_pieces()?,
            // Positions stay what they are.
            PiecesAfter::Others(others) => {
                let stray = self.pieces.len().saturating_sub(others.len());
                self.pieces.clear();
                for bytes in std::iter::repeat_n(Vec::new(), stray).chain(others) {
                    self.copy.add(of(Command::Piece { bytes }))?;
                }
            }
        }
        Ok(self.copy.add(of(command))?)
    }

    fn add_pieces(&mut self) -> Result<(), StoreError> {
        self.pieces.drain(..).try_for_each(|piece| self.copy.add(piece))
    }
}

enum PiecesAfter {
    AsTheyAre,
    /// These take the last of their places; the places before are emptied.
    Others(Vec<Vec<u8>>),
}

struct Forgotten<'a> {
    ledger: &'a Ledger,
    view: &'a View,
    /// The sequences of the events whose plates are, by stream.
    events: BTreeMap<u32, BTreeSet<u64>>,
}

impl Forgotten<'_> {
    fn read<'a>(ledger: &'a Ledger, view: &'a View) -> Result<Forgotten<'a>, StoreError> {
        let mut events: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        base::forgotten(ledger.store(), &mut |stream, sequence| {
            events.entry(stream).or_default().insert(sequence);
        })?;
        Ok(Forgotten { ledger, view, events })
    }

    fn holds(&self, stream: u32, sequence: u64) -> bool {
        self.events.get(&stream).is_some_and(|sequences| sequences.contains(&sequence))
    }

    /// Whether the plate of an event is forgotten, by any name of its garage.
    fn is_forgotten(&self, (garage, epoch, sequence): &EventKey) -> bool {
        self.view.sites_of(garage).into_iter().any(|site| {
            let number = self.ledger.number_of(&StreamId { site, epoch: *epoch });
            number.is_some_and(|number| self.holds(number, *sequence))
        })
    }

    /// A page without the plates that are forgotten, and the number of events that lost one; `None` when there is none.
    fn page(&self, stream: &StreamId, sealed: &SealedPage) -> Result<Option<(SealedPage, u64)>, StoreError> {
        let Ok(page) = sealed.read() else { return Ok(None) };
        let Content::Records(records) = &page.content else { return Ok(None) };
        let Some(number) = self.ledger.number_of(stream) else { return Ok(None) };
        let (mut kept, mut changed) = (records.clone(), 0);
        for (sequence, record) in (page.first.get()..).zip(&mut kept) {
            let Ok(event) = Event::from_bytes(&record.payload) else { continue };
            let kind = match &event.kind {
                EventKind::Entry { .. } if self.holds(number, sequence) => EventKind::Entry { plate: None },
                EventKind::Exit { .. } if self.holds(number, sequence) => EventKind::Exit { plate: None },
                EventKind::PlateCorrection { epoch, sequence: of, .. } => {
                    let Ok(of_epoch) = epoch.parse::<Epoch>() else { continue };
                    let found = self.ledger.page_with(&stream.site, of_epoch, *of)?;
                    if !found.is_some_and(|(stream, _)| self.holds(stream, *of)) {
                        continue;
                    }
                    let plate = Plate::new(FORGOTTEN).expect("it is a plate");
                    EventKind::PlateCorrection { epoch: epoch.clone(), sequence: *of, plate }
                }
                _ => continue,
            };
            record.payload = Event { kind, ..event }.to_bytes().into();
            record.key = None; // a producer may have written the plate into it
            changed += 1;
        }
        let page = Page { content: Content::Records(kept), ..page };
        Ok((changed > 0).then(|| (sealed.replaced_by(&page), changed)))
    }

    /// A command without what is forgotten, and what replaces the pieces before it.
    fn command(&self, pieces: &[Vec<u8>], command: Command) -> Result<(Command, PiecesAfter), Failure> {
        let (count, digest) = match &command {
            Command::Tariffs { pieces, digest }
            | Command::Register { pieces, digest }
            | Command::Payments { pieces, digest } => (*pieces, *digest),
            Command::JoinStay { entry, exit, plate: Some(_), reason } => {
                let name = SiteName::new(&exit.garage).ok();
                let event = name.map(|name| {
                    (self.view.key_of(&name).clone(), Epoch::from_bytes(exit.epoch), exit.sequence)
                });
                let is_forgotten = event.is_some_and(|event| self.is_forgotten(&event));
                let (entry, exit, reason) = (entry.clone(), exit.clone(), reason.clone());
                let plate = None;
                let command =
                    if is_forgotten { Command::JoinStay { entry, exit, plate, reason } } else { command };
                return Ok((command, PiecesAfter::Others(Vec::new())));
            }
            Command::Forget { .. } => {
                return Ok((Command::Erased, PiecesAfter::Others(Vec::new())));
            }
            _ => return Ok((command, PiecesAfter::Others(Vec::new()))),
        };
        let stray = pieces.len().saturating_sub(count as usize);
        let mut bytes = Vec::new();
        for raw in &pieces[stray..] {
            if let Ok(Record::Command { command: Command::Piece { bytes: piece }, .. }) =
                Record::decode(0, raw)
            {
                bytes.extend(piece);
            }
        }
        if Digest::of(&bytes) != digest {
            // The command had no effect, and what it was about is unknown.
            return Ok((command, PiecesAfter::Others(vec![Vec::new(); count as usize])));
        }
        let Command::Register { .. } = command else { return Ok((command, PiecesAfter::AsTheyAre)) };
        let mut facts: Vec<RegisterFact> = postcard::from_bytes(&bytes)?;
        facts.retain_mut(|fact| self.without_plates(fact));
        let kept = postcard::to_stdvec(&facts).expect("facts always encode");
        if kept == bytes {
            return Ok((command, PiecesAfter::AsTheyAre));
        }
        let (digest, written) = (Digest::of(&kept), PiecesAfter::Others(cut(&kept, count)));
        Ok((Command::Register { pieces: count, digest }, written))
    }

    /// Takes the plates that the register no longer names out of a fact. `false`: nothing is left of it.
    fn without_plates(&self, fact: &mut RegisterFact) -> bool {
        let is_known = |plate: &Plate| self.view.billing.rules.register.plate(plate).is_some();
        match fact {
            RegisterFact::Holder { plate, .. } => is_known(plate),
            RegisterFact::Contract(change) => {
                change.removed.retain(|car| is_known(&car.plate));
                change.added.retain(|car| is_known(&car.plate));
                true
            }
            RegisterFact::Customer { .. } | RegisterFact::ContractEnd { .. } => true,
        }
    }

    /// A value of the views without the better readings of events that are forgotten.
    fn without_readings(&self, key: &[u8], value: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        let mut value = base::without_seeds(key, value)?;
        if key.starts_with(b"vcd") {
            value = without_plates(key, value, |event| self.is_forgotten(event))?;
        }
        base::without_readings(key, value, |position, index| {
            let Some(page) = self.ledger.page_at(position)? else { return Ok(false) };
            let sequence = page.page.first.get() + u64::from(index);
            let found = self.ledger.page_with(&page.site, page.page.epoch, sequence)?;
            Ok(found.is_some_and(|(stream, _)| self.holds(stream, sequence)))
        })
    }
}

/// Bytes in as many pieces as there were: positions stay what they are.
fn cut(bytes: &[u8], pieces: u32) -> Vec<Vec<u8>> {
    let count = (pieces as usize).max(1);
    let each = bytes.len().div_ceil(count).max(1);
    (0..pieces as usize)
        .map(|n| bytes[(n * each).min(bytes.len())..((n + 1) * each).min(bytes.len())].to_vec())
        .collect()
}
