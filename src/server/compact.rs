//! `server compact DIR`: the ledger once more, without the plates that were forgotten.
//!
//! **Promise.** The new directory is the same ledger: same id, same positions, same amounts, dates and garages, and edges go on with it.
//! Plates that were forgotten, what the commands said that forgot them, and registrations that were taken out are not in it.
//! Pages keep the digests that they were received with. The old directory is not changed.
//! **Kept by.** Each record is copied, changed where it names what is forgotten. The first records do not give the views any
//! more, so the views at the end become the base of the new ledger (`view::base`), from which they are folded on.
//! **Not promised.** What an event that was never understood holds (quarantine), what people wrote as reasons, and what stands in
//! backups and logs.

use super::backup;
use super::commands::{Offline, Request};
use super::ledger::{Copy, Ledger};
use super::record::{Command, Record};
use super::view::{View, base};
use crate::daemon::admin::{self, Reached};
use crate::messaging::page::{Content, Page, SealedPage};
use crate::messaging::{Digest, Epoch};
use crate::parking::register::{Contract, Registration};
use crate::parking::{Event, EventKind, Plate};
use crate::store::{Purpose, Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What stands for the plate of a correction that was forgotten.
const FORGOTTEN: &str = "FORGOTTEN";

/// What was written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Changed {
    events: u64,
    commands: u64,
}

/// Writes the ledger of `data_dir`, on which no server runs, into `to` without what was forgotten.
pub fn run(data_dir: &Path, to: &Path) -> Result<String, String> {
    let books = match admin::reach(data_dir, &Request::Garages, |_| {}).map_err(|error| error.to_string())? {
        Reached::Daemon(_) => {
            return Err("the server runs. Nothing was changed. Stop it first: what it would take meanwhile would be missing in the new directory".into());
        }
        Reached::Directory(dir) => Offline::open(dir, None).map_err(|error| error.to_string())?,
    };
    let said = |changed: Changed| {
        format!(
            "The ledger is written to {}, up to position {}: {} events and {} commands lost what was forgotten. Start the server on it (server --data-dir {}), and when it works remove the old directory {}: until then that still holds all",
            to.display(),
            books.ledger().position(),
            changed.events,
            changed.commands,
            to.display(),
            data_dir.display()
        )
    };
    backup::into_new(
        to,
        "compacted ledger",
        |unfinished| write(&books, unfinished),
        |changed| Ok(said(changed)),
    )
}

fn write(books: &Offline, unfinished: &Path) -> Result<Changed, String> {
    let wrong = |error: StoreError| error.to_string();
    let (ledger, view) = (books.ledger(), books.view());
    let target = Store::open(unfinished, Purpose::Server).map_err(|error| error.to_string())?;
    let streams = ledger.numbered_streams().into_iter().map(|stream| (stream.site, stream.epoch));
    let mut copy = Copy::begin(&target, ledger.id(), streams.collect()).map_err(wrong)?;
    let forgotten = Forgotten::read(ledger, view).map_err(wrong)?;
    let mut changed = Changed::default();
    let end = ledger.position();
    let mut position = 1;
    // Pieces wait for the command that says what they are.
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    while position <= end {
        for raw in ledger.raw_records(position, end, 1 << 20).map_err(wrong)? {
            let at = position;
            position += 1;
            let record = match Record::decode(at, &raw) {
                Ok(record) => record,
                // What cannot be read is copied as it is: nobody knows what it holds.
                Err(_) => {
                    for raw in pieces.drain(..).chain([raw]) {
                        copy.add(raw).map_err(wrong)?;
                    }
                    continue;
                }
            };
            match record {
                Record::Command { command: Command::Piece { .. }, .. } => pieces.push(raw),
                Record::Command { received_at_ms, by, command } => {
                    let of = |command| Record::Command { received_at_ms, by: by.clone(), command }.encode();
                    let before = command.clone();
                    let (command, written) = forgotten.command(&pieces, command)?;
                    changed.commands += u64::from(command != before);
                    match written {
                        Written::AsTheyAre => {
                            for piece in pieces.drain(..) {
                                copy.add(piece).map_err(wrong)?;
                            }
                        }
                        // Positions stay what they are.
                        Written::Others(others) => {
                            let stray = pieces.len().saturating_sub(others.len());
                            pieces.clear();
                            for bytes in std::iter::repeat_n(Vec::new(), stray).chain(others) {
                                copy.add(of(Command::Piece { bytes })).map_err(wrong)?;
                            }
                        }
                    }
                    copy.add(of(command)).map_err(wrong)?;
                }
                other => {
                    for piece in pieces.drain(..) {
                        copy.add(piece).map_err(wrong)?;
                    }
                    let raw = match other {
                        Record::Page { stream, received_at_ms, page } => {
                            match forgotten.page(stream, &page).map_err(wrong)? {
                                Some((page, events)) => {
                                    changed.events += events;
                                    Record::Page { stream, received_at_ms, page }.encode()
                                }
                                None => raw,
                            }
                        }
                        _ => raw,
                    };
                    copy.add(raw).map_err(wrong)?;
                }
            }
        }
    }
    for piece in pieces {
        copy.add(piece).map_err(wrong)?;
    }
    copy.finish().map_err(wrong)?;
    base::found(ledger.store(), &target, |key, value| forgotten.without_readings(key, value))
        .map_err(wrong)?;
    target.flush().map_err(wrong)?;
    Ok(changed)
}

/// What becomes of the pieces before a command.
enum Written {
    AsTheyAre,
    /// These take their places, the last ones; those before are emptied.
    Others(Vec<Vec<u8>>),
}

/// What is forgotten.
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

    /// A page without the plates that are forgotten, and of how many events; none when it has no such.
    fn page(&self, stream: u32, sealed: &SealedPage) -> Result<Option<(SealedPage, u64)>, StoreError> {
        let Ok(page) = sealed.read() else { return Ok(None) };
        let Content::Records(records) = &page.content else { return Ok(None) };
        let site = self.ledger.stream(stream)?.site;
        let (mut kept, mut changed) = (records.clone(), 0);
        for (sequence, record) in (page.first.get()..).zip(&mut kept) {
            let Ok(event) = Event::from_bytes(&record.payload) else { continue };
            let kind = match &event.kind {
                EventKind::Entry { .. } if self.holds(stream, sequence) => EventKind::Entry { plate: None },
                EventKind::Exit { .. } if self.holds(stream, sequence) => EventKind::Exit { plate: None },
                EventKind::PlateCorrection { epoch, sequence: of, .. } => {
                    let Ok(of_epoch) = epoch.parse::<Epoch>() else { continue };
                    let found = self.ledger.page_with(&site, of_epoch, *of)?;
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

    /// A command without what is forgotten, and what becomes of the pieces before it.
    fn command(&self, pieces: &[Vec<u8>], command: Command) -> Result<(Command, Written), String> {
        let in_force = &self.view.billing.in_force;
        let (count, digest) = match &command {
            Command::Tariffs { pieces, digest }
            | Command::Plates { pieces, digest }
            | Command::Contracts { pieces, digest } => (*pieces, *digest),
            Command::Forget { .. } | Command::RemovePlate { .. } => {
                return Ok((Command::Erased, Written::Others(Vec::new())));
            }
            _ => return Ok((command, Written::Others(Vec::new()))),
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
            // It had no effect: nobody knows what it was about.
            return Ok((command, Written::Others(vec![Vec::new(); count as usize])));
        }
        let kept = match &command {
            Command::Plates { .. } => {
                let plates: Vec<Registration> =
                    postcard::from_bytes(&bytes).map_err(|error| error.to_string())?;
                let is_still = |its: &Registration| in_force.registration(&its.plate) == Some(its);
                postcard::to_stdvec(&plates.into_iter().filter(is_still).collect::<Vec<_>>())
            }
            Command::Contracts { .. } => {
                let mut contracts: Vec<Contract> =
                    postcard::from_bytes(&bytes).map_err(|error| error.to_string())?;
                for contract in &mut contracts {
                    // Its name stays: stays that it covered say it, and its number is its place.
                    let now = in_force.contracts().find(|its| its.name == contract.name);
                    contract.plates.retain(|plate| now.is_some_and(|its| its.plates.contains(plate)));
                }
                postcard::to_stdvec(&contracts)
            }
            _ => return Ok((command, Written::AsTheyAre)),
        };
        let kept = kept.expect("it always encodes");
        if kept == bytes {
            return Ok((command, Written::AsTheyAre));
        }
        let (digest, written) = (Digest::of(&kept), Written::Others(cut(&kept, count)));
        Ok(match command {
            Command::Plates { .. } => (Command::Plates { pieces: count, digest }, written),
            _ => (Command::Contracts { pieces: count, digest }, written),
        })
    }

    /// A value of the views without the better readings of events that are forgotten.
    fn without_readings(&self, key: &[u8], value: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
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
