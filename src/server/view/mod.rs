//! The views of the garages: folds over the ledger, in order of position.
//!
//! **Promise.** At any position the views are what folding the ledger from its beginning gives, byte for byte.
//! **Kept by.** [`View::apply`] sees records only. What it changed is written in one batch together with the position it
//! has reached; after a crash folding goes on from there. A view never holds up the ledger: it follows behind. A view of
//! another version, or one that does not read, is dropped and folded anew.
//! **Not promised.** That it is at the ledger's end: every answer says the position that it shows.
//!
//! Occupancy, holes and quarantine are kept in memory. Stays are too many: they are in [`pages`], and only the cars that
//! are inside are in memory ([`stays`]). What is in pages is read as it was written last, at most a second behind.
//!
//! | key | value |
//! | --- | --- |
//! | `vp` | the version of the fold (u8), the position reached (u64) |
//! | `vg` + name | a [`Garage`] |
//! | `vh` + position (u64) | a [`Hole`] |
//! | `vd` + position (u64) | a [`Damage`], under the last of its positions |
//! | `vq` + position (u64) | a [`Quarantined`] |
//! | `vs` `vi` `vo` `vr` | the stays: see [`pages`] |
//! | `vc` + … | what commands changed: see [`commands`] |
//! | `vb` + … | the books of money: see [`billing`] |

pub mod base;
pub mod billing;
mod changes;
mod commands;
pub mod list;
mod pages;
mod repairs;
pub mod review;
mod stays;
#[cfg(test)]
mod stays_tests;
#[cfg(test)]
pub mod tests;

pub use changes::Changes;
pub use commands::{JudgeError, Refusal};
pub use pages::{Address, Passage, is_token};
pub use repairs::NoRepair;
pub use stays::{Book, NotApplied};

use super::commands::Command;
use super::ledger::{Found, Ledger, Loss, Record};
use crate::messaging::page::{Content, RECORDS_MAX};
use crate::messaging::{Epoch, LedgerId, SiteName};
use crate::parking::board::{BoardLine, BoardVersion};
use crate::parking::stored::StoredError;
use crate::parking::{Board, BoardAnswer, BoardQuestion, Event, EventKind, Occupancy};
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use billing::{Billing, anomalies::Code};
use serde::{Deserialize, Serialize};
use stays::{Stays, Teller};
use std::collections::BTreeMap;

/// What the events of one garage add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garage {
    /// What an operator set, else what the edge told.
    pub capacity: u32,
    pub told_capacity: u32,
    pub occupancy: Occupancy,
    /// How many events were applied.
    pub events: u64,
    /// When the last of them was received.
    pub as_of_ms: Option<i64>,
    /// The position that changed it last.
    pub changed_at: u64,
    /// The last event applied.
    pub through: Option<(Epoch, u64)>,
    pub stays: Book,
    pub orders: commands::Orders,
}

/// Events that will never come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    pub garage: SiteName,
    pub epoch: Epoch,
    pub first: u64,
    pub last: u64,
    pub reason: String,
    /// None for events that came, and cannot be read any more.
    pub received_at_ms: Option<i64>,
}

/// Positions of the ledger that cannot be read any more, or are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The first of them.
    pub from: u64,
    pub last: u64,
    pub reason: String,
    /// When it was recorded, where that is known.
    pub found_at_ms: Option<i64>,
}

/// Events of one page that were accepted and cannot be applied. Their bytes are in the ledger. Kept by page, because a
/// garage with a newer program may send very many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub garage: SiteName,
    pub epoch: Epoch,
    /// The first sequence of the page.
    pub first: u64,
    /// Bit n: the n-th event of the page.
    events: u64,
    /// Of the first of them.
    pub reason: String,
    pub received_at_ms: i64,
}

const _: () = assert!(crate::messaging::page::RECORDS_MAX <= 64, "a bit for each event of a page");

impl Quarantined {
    pub fn count(&self) -> u32 {
        self.events.count_ones()
    }

    /// The places in the page, from 0.
    pub fn places(&self) -> impl Iterator<Item = usize> + use<> {
        let events = self.events;
        (0..64).filter(move |place| events >> place & 1 == 1)
    }
}

/// The state of the fold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    pub position: u64,
    pub garages: BTreeMap<SiteName, Garage>,
    pub holes: BTreeMap<u64, Hole>,
    /// By the last position.
    pub damages: BTreeMap<u64, Damage>,
    /// By position.
    pub quarantine: BTreeMap<u64, Quarantined>,
    pub commands: commands::CommandsView,
    pub billing: Billing,
    stays: Stays,
}

/// Where an event is applied. One that is released from quarantine is applied at the position of its release.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub site: &'a SiteName,
    /// The ledger's number of the event's (garage, epoch).
    pub stream: u32,
    pub sequence: u64,
    pub position: u64,
}

/// A record that is ready to be folded: what needs no view was done before anybody has to wait for it.
#[derive(Debug)]
pub struct Step {
    /// It is about one position, or about a stretch that cannot be read, or that is lost and the position that says so.
    from: u64,
    position: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Page {
        stream: u32,
        received_at_ms: i64,
        first: u64,
        /// Whether the edge's clock was known to be set when the page was begun.
        clock_set: bool,
        events: Vec<Result<Event, StoredError>>,
    },
    Hole(HoleIn),
    Capacity {
        site: SiteName,
        capacity: u32,
    },
    Command(Command),
    Damaged {
        damage: Damage,
        losses: Vec<Loss>,
    },
    /// It changes no view.
    Nothing,
}

/// A [`Hole`] that names its stream.
#[derive(Debug)]
struct HoleIn {
    stream: u32,
    received_at_ms: i64,
    first: u64,
    last: u64,
    reason: String,
}

impl Step {
    /// Checks what stands at `position` and reads its events. What cannot be read becomes a hole of whom the index names.
    pub fn read(ledger: &Ledger, position: u64, found: Found) -> Result<Step, StoreError> {
        let (from, told) = match found {
            Found::Damaged { from, reason } => (from, Err(reason)),
            Found::Record(Record::Truncated { received_at_ms, from, to }) => {
                let reason = format!("positions {from} to {to} were on disk and are lost");
                let damage = Damage { from, last: to, reason, found_at_ms: Some(received_at_ms) };
                return Ok(Step { from, position, what: What::Damaged { damage, losses: Vec::new() } });
            }
            Found::Record(record) => (position, Self::what(ledger, record)),
        };
        let what = match told {
            Ok(what) => what,
            Err(reason) => {
                let damage = Damage { from, last: position, reason, found_at_ms: None };
                What::Damaged { damage, losses: ledger.losses(from, position)? }
            }
        };
        Ok(Step { from, position, what })
    }

    fn what(ledger: &Ledger, record: Record) -> Result<What, String> {
        let known = |stream| ledger.stream(stream).map(drop).map_err(|error| error.to_string());
        Ok(match record {
            Record::Page { stream, received_at_ms, page } => {
                known(stream)?;
                let page = page.read().map_err(|error| error.to_string())?;
                let Content::Records(records) = page.content else {
                    return Err("a page without events stands where events were applied".into());
                };
                let events = records.iter().map(|record| Event::from_bytes(&record.payload)).collect();
                let (first, clock_set) = (page.first.get(), page.begun.set);
                What::Page { stream, received_at_ms, first, clock_set, events }
            }
            Record::Hole { stream, received_at_ms, first, last, reason, .. } => {
                known(stream)?;
                What::Hole(HoleIn { stream, received_at_ms, first, last, reason })
            }
            Record::Capacity { site, capacity, .. } => What::Capacity { site, capacity },
            Record::Command { command, .. } => What::Command(command),
            Record::Moved { .. } => What::Nothing,
            Record::Truncated { .. } => unreachable!("it is about more positions than its own"),
        })
    }

    /// What it says of positions that cannot be read, and whose events are known to be among them.
    pub fn damage(&self) -> Option<(&Damage, &[Loss])> {
        match &self.what {
            What::Damaged { damage, losses } => Some((damage, losses)),
            _ => None,
        }
    }

    /// The most writes that folding it may add to the changes.
    pub fn writes_at_most(&self) -> usize {
        match &self.what {
            What::Page { events, .. } => {
                let of = |event: &Result<Event, StoredError>| match event {
                    Ok(Event { kind: EventKind::PlateCorrection { .. }, .. }) => {
                        stays::WRITES_OF_A_CORRECTION
                    }
                    _ => stays::WRITES_OF_A_PASSAGE,
                };
                let garage_and_quarantine = 2;
                events.iter().map(of).sum::<usize>() + stays::WRITES_OF_A_PAGE + garage_and_quarantine
            }
            What::Command(Command::Release { .. }) => {
                RECORDS_MAX * stays::WRITES_OF_A_CORRECTION + stays::WRITES_OF_A_PAGE + 4
            }
            What::Command(_) => 4,
            What::Hole(_) | What::Capacity { .. } => 1,
            What::Damaged { losses, .. } => 1 + losses.len(),
            What::Nothing => 0,
        }
    }
}

const POSITION: &[u8] = b"vp";
/// Of what the fold makes of a ledger. A program that folds otherwise has another one.
const VERSION: u8 = 3;
/// All keys of the views: from here on, and to the second (exclusive).
pub const KEYS: (&[u8], &[u8]) = (b"v", b"w");

/// The position that the written views have reached; `None` when there are none of this version.
pub fn written_position(store: &Store) -> Result<Option<u64>, StoreError> {
    match store.get(POSITION)?.as_deref() {
        Some([VERSION, position @ ..]) => Ok(Some(u64::from_be_bytes(sized(position)?))),
        _ => Ok(None),
    }
}

/// The damages that the written views know, by their last positions.
pub fn written_damages(store: &Store) -> Result<BTreeMap<u64, Damage>, StoreError> {
    let damages = store.range(b"vd", b"ve").map(|entry| {
        let (key, value) = entry?;
        Ok((u64::from_be_bytes(sized(&key[2..])?), decode(&key, &value)?))
    });
    damages.collect()
}

/// Drops the written views: they are folded anew at the next start. The ledger is not touched.
pub fn discard(store: &Store) -> Result<(), StoreError> {
    // First what says that they are whole: a crash in between must not leave a part that counts.
    store.remove(POSITION)?;
    loop {
        let mut batch = Batch::default();
        for entry in store.range(KEYS.0, KEYS.1).take(BATCH_MAX) {
            batch.remove(entry?.0);
        }
        if batch.is_empty() {
            return Ok(());
        }
        store.apply(&batch)?;
    }
}

/// Compares all keys of the views in two stores, and tells `found` the place and what is wrong with the written one.
pub fn compare(
    written: &Store,
    anew: &Store,
    found: &mut dyn FnMut(String, String),
) -> Result<(), StoreError> {
    let mut written = written.range(KEYS.0, KEYS.1).peekable();
    for entry in anew.range(KEYS.0, KEYS.1) {
        let (key, value) = entry?;
        let beside = |entry: &Result<(Vec<u8>, Vec<u8>), StoreError>| match entry {
            Ok((its, _)) => *its < key,
            Err(_) => true,
        };
        while let Some(entry) = written.next_if(beside) {
            found(describe(&entry?.0), "it is there, and folding the ledger does not give it".into());
        }
        let its = |entry: &Result<(Vec<u8>, Vec<u8>), StoreError>| match entry {
            Ok((its, _)) => *its == key,
            Err(_) => true,
        };
        match written.next_if(its).transpose()? {
            None => found(describe(&key), "it is missing".into()),
            Some((_, its)) if its != value => {
                found(describe(&key), "it is not what folding the ledger gives".into());
            }
            Some(_) => {}
        }
    }
    for entry in written {
        found(describe(&entry?.0), "it is there, and folding the ledger does not give it".into());
    }
    Ok(())
}

/// What stands under a key, for people.
fn describe(key: &[u8]) -> String {
    let number = |range: std::ops::Range<usize>| {
        let bytes = key.get(range).unwrap_or_default();
        bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    match key.get(..2) {
        Some(b"vp") => "the position of the views".into(),
        Some(b"vg") => format!("the view of garage {:?}", String::from_utf8_lossy(&key[2..])),
        Some(b"vh") => format!("the view of the hole at position {}", number(2..10)),
        Some(b"vd") => format!("the view of the damage that ends at position {}", number(2..10)),
        Some(b"vq") => format!("the quarantine of position {}", number(2..10)),
        Some(b"vs") => format!("page {} of the stays of garage number {}", number(6..10), number(2..6)),
        Some(b"vi") => format!("page {} of the index of plates", number(2..4)),
        Some(b"vc") => "what operators' commands changed".into(),
        Some(b"vo") => format!("the map of the cars inside garage number {}", number(2..6)),
        Some(b"vb") => describe_billing(key),
        Some(b"vr") => format!("the corrected plates of position {}", number(2..10)),
        _ => format!("the view's key {key:02x?}"),
    }
}

fn describe_billing(key: &[u8]) -> String {
    match key.get(2) {
        Some(b'e') => "a page of charges".into(),
        Some(b'm') => "an account's month".into(),
        Some(b'a') => "an account".into(),
        Some(b'n') => "an anomaly".into(),
        _ => format!("the books of money, key {key:02x?}"),
    }
}

impl View {
    /// What was written last; the rest follows by folding. Views of another version, and such that do not read, are
    /// dropped, to be folded anew.
    pub fn open(store: &Store, ledger: &Ledger) -> Result<View, StoreError> {
        let why = match written_position(store)? {
            Some(_) => match View::load(store, ledger) {
                Err(error @ StoreError::Damaged { .. }) => error.to_string(),
                loaded => return loaded,
            },
            None if store.range(KEYS.0, KEYS.1).next().is_none() => return base::begin(ledger, store),
            None => "they are of another version of this program, or were being dropped".to_owned(),
        };
        tracing::warn!(
            why,
            "the views are dropped and folded anew from the ledger, which holds everything; this takes a moment for each million events, until then answers are behind"
        );
        discard(store)?;
        base::begin(ledger, store)
    }

    /// What was written last.
    pub fn load(store: &Store, ledger: &Ledger) -> Result<View, StoreError> {
        let mut view = View { position: written_position(store)?.unwrap_or_default(), ..View::default() };
        for entry in store.range(b"vg", b"vh") {
            let (key, value) = entry?;
            let name = std::str::from_utf8(&key[2..]).ok();
            let name = name.and_then(|name| SiteName::new(name).ok());
            let name = name.ok_or_else(|| damaged(&key))?;
            view.garages.insert(name, decode(&key, &value)?);
        }
        for entry in store.range(b"vh", b"vi") {
            let (key, value) = entry?;
            view.holes.insert(u64::from_be_bytes(sized(&key[2..])?), decode(&key, &value)?);
        }
        view.damages = written_damages(store)?;
        for entry in store.range(b"vq", b"vr") {
            let (key, value) = entry?;
            view.quarantine.insert(u64::from_be_bytes(sized(&key[2..])?), decode(&key, &value)?);
        }
        view.commands = commands::CommandsView::load(store)?;
        let garages = view.garages.values().map(|garage| garage.stays.number as usize + 1);
        view.billing = Billing::load(store, ledger)?;
        view.stays = Stays::load(store, garages.max().unwrap_or_default(), &mut view.billing)?;
        Ok(view)
    }

    /// Folds the next record.
    ///
    /// The caller has seen to it that the changes have room for the step. The answer is what went to quarantine.
    pub fn apply(
        &mut self,
        ledger: &Ledger,
        step: Step,
        changes: &mut Changes,
    ) -> Result<Option<&Quarantined>, StoreError> {
        let Step { from, position, what } = step;
        assert!(
            from <= self.position + 1 && self.position < position,
            "the ledger accounts for every position, in order"
        );
        match what {
            What::Damaged { damage, losses } => {
                for Loss { position, stream, first, last } in losses {
                    let Ok(stream) = ledger.stream(stream) else { continue };
                    let garage = self.key_of(&stream.site).clone();
                    let reason = format!(
                        "the ledger's record of them, at position {position}, cannot be read any more: {}",
                        damage.reason
                    );
                    let epoch = stream.epoch;
                    let hole = Hole { garage, epoch, first, last, reason, received_at_ms: None };
                    self.holes.insert(position, hole);
                    changes.holes.insert(position);
                }
                changes.damages.insert(damage.last);
                self.damages.insert(damage.last, damage);
            }
            What::Page { stream: number, received_at_ms, first, clock_set, events } => {
                let stream = ledger.stream(number)?;
                let last = first + events.len() as u64 - 1;
                let mut set_aside = 0u64;
                let mut reason = None;
                let key = self.key_of(&stream.site).clone();
                let (garage, stays, billing) = self.garage_mut(&key, changes);
                garage.counted(&key, events.len() as u64);
                if !clock_set {
                    let number = garage.stays.number;
                    changes.billing.note(Code::ClockNotSet, number, None, received_at_ms, position)?;
                }
                for (index, event) in events.into_iter().enumerate() {
                    let sequence = first + index as u64;
                    let place = Place { site: &stream.site, stream: number, sequence, position };
                    let applied = match event {
                        Ok(event) => {
                            let books = (&mut *stays, &mut *billing);
                            let applied = apply_to(&key, garage, books, ledger, place, &event, changes)?;
                            applied.map_err(|error| error.to_string())
                        }
                        Err(error) => Err(error.to_string()),
                    };
                    if let Err(error) = applied {
                        set_aside |= 1 << index;
                        reason.get_or_insert(error);
                    }
                }
                garage.events += last - first + 1;
                garage.as_of_ms = Some(received_at_ms);
                garage.changed_at = position;
                garage.through = Some((stream.epoch, last));
                if let Some(reason) = reason {
                    let quarantined = Quarantined {
                        garage: key,
                        epoch: stream.epoch,
                        first,
                        events: set_aside,
                        reason,
                        received_at_ms,
                    };
                    self.quarantine.insert(position, quarantined);
                    changes.quarantine.insert(position);
                }
            }
            What::Hole(HoleIn { stream, received_at_ms, first, last, reason }) => {
                let stream = ledger.stream(stream)?;
                let garage = self.key_of(&stream.site).clone();
                let hole = Hole {
                    garage,
                    epoch: stream.epoch,
                    first,
                    last,
                    reason,
                    received_at_ms: Some(received_at_ms),
                };
                self.holes.insert(position, hole);
                changes.holes.insert(position);
            }
            What::Capacity { site, capacity } => {
                let key = self.key_of(&site).clone();
                let (garage, ..) = self.garage_mut(&key, changes);
                garage.was_told(&key, capacity);
                garage.changed_at = position;
            }
            What::Command(command) => self.apply_command(ledger, position, &command, changes)?,
            What::Nothing => {}
        }
        self.position = position;
        Ok(self.quarantine.get(&position))
    }

    /// Applies one event: the one door to occupancy and stays, for a page as for what is released from quarantine.
    /// `Err` inside: it changed nothing, and belongs into quarantine with that reason.
    pub fn apply_event(
        &mut self,
        ledger: &Ledger,
        place: Place<'_>,
        received_at_ms: i64,
        event: &Event,
        changes: &mut Changes,
    ) -> Result<Result<(), NotApplied>, StoreError> {
        let key = self.key_of(place.site).clone();
        let (garage, stays, billing) = self.garage_mut(&key, changes);
        let applied = apply_to(&key, garage, (stays, billing), ledger, place, event, changes)?;
        if applied.is_ok() {
            garage.as_of_ms = Some(received_at_ms);
            garage.changed_at = place.position;
        }
        Ok(applied)
    }

    /// A garage that is about to change, and the stays and the books of money of all.
    fn garage_mut(
        &mut self,
        site: &SiteName,
        changes: &mut Changes,
    ) -> (&mut Garage, &mut Stays, &mut Billing) {
        if !changes.garages.contains(site) {
            changes.garages.insert(site.clone());
        }
        let View { garages, stays, billing, .. } = self;
        if !garages.contains_key(site) {
            let garage = Garage { stays: stays.begin_garage(), ..Garage::default() };
            garages.insert(site.clone(), garage);
        }
        (garages.get_mut(site).expect("it is there"), stays, billing)
    }

    /// Writes what changed together with the position reached. Durable with the next flush; a crash before folds again.
    pub fn save(&self, changes: &mut Changes) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for name in std::mem::take(&mut changes.garages) {
            let key = [b"vg", name.as_str().as_bytes()].concat();
            batch.put(key, encode(&self.garages[&name]));
        }
        for position in std::mem::take(&mut changes.holes) {
            let key = [b"vh", &position.to_be_bytes()[..]].concat();
            batch.put(key, encode(&self.holes[&position]));
        }
        for position in std::mem::take(&mut changes.damages) {
            let key = [b"vd", &position.to_be_bytes()[..]].concat();
            batch.put(key, encode(&self.damages[&position]));
        }
        for position in std::mem::take(&mut changes.quarantine) {
            let key = [b"vq", &position.to_be_bytes()[..]].concat();
            match self.quarantine.get(&position) {
                Some(waiting) => batch.put(key, encode(waiting)),
                None => batch.remove(key),
            }
        }
        self.commands.save(&std::mem::take(&mut changes.commands), &mut batch);
        self.stays.drain(changes, &mut batch)?;
        changes.billing.drain(&self.billing, &mut batch);
        let reached = [&[VERSION], &self.position.to_be_bytes()[..]].concat();
        let store = changes.store();
        if batch.len() < BATCH_MAX {
            batch.put(POSITION, reached);
            return store.apply(&batch);
        }
        // One step may change more than a batch holds: a page of corrections that re-rate, the pricing of what waited. Until the
        // last batch is written the views have no position: a crash in between drops them, and they are folded anew.
        store.remove(POSITION)?;
        let mut writes = batch.writes().peekable();
        while writes.peek().is_some() {
            let mut part = Batch::default();
            for (key, value) in writes.by_ref().take(BATCH_MAX) {
                match value {
                    Some(value) => part.put(key, value),
                    None => part.remove(key),
                }
            }
            store.apply(&part)?;
        }
        store.put(POSITION, &reached)
    }

    /// The board, as a change since the version that the asker has where that is possible. The asker's own line is there in
    /// any case, and under the name that it knows itself by: it adds to it what it has not delivered yet.
    pub fn answer(
        &self,
        (ledger, run): (LedgerId, u64),
        asker: &SiteName,
        question: &BoardQuestion,
    ) -> BoardAnswer {
        let version = BoardVersion { ledger: ledger.to_bytes(), position: self.position, run };
        let since = question.have.filter(|have| {
            (have.ledger, have.run) == (version.ledger, run)
                && have.position <= version.position
                && self.is_same_board_since(have.position)
        });
        let own = self.key_of(asker);
        let newer = |garage: &Garage| since.is_none_or(|have| garage.changed_at > have.position);
        let shown = |key: &SiteName, garage: &Garage| garage.is_shown() || key == own;
        let lines = self.garages.iter().filter(|(key, garage)| newer(garage) && shown(key, garage));
        let board = Board {
            version,
            garages: lines
                .map(|(key, garage)| {
                    let name = if key == own { asker } else { self.name_of(key) };
                    let line = BoardLine {
                        capacity: garage.capacity,
                        occupied: garage.occupancy.occupied,
                        as_of_ms: garage.as_of_ms,
                        through: garage.through.map(|(epoch, last)| (epoch.to_bytes(), last)),
                    };
                    (name.to_string(), line)
                })
                .collect(),
        };
        match since {
            Some(from) => BoardAnswer::Changed { from, now: board },
            None => BoardAnswer::Whole(board),
        }
    }
}

/// What an event changes, in one place for all ways by which it may come.
fn apply_to(
    key: &SiteName,
    garage: &mut Garage,
    (stays, billing): (&mut Stays, &mut Billing),
    ledger: &Ledger,
    place: Place<'_>,
    event: &Event,
    changes: &mut Changes,
) -> Result<Result<(), NotApplied>, StoreError> {
    let called = garage.orders.called.as_ref().unwrap_or(key);
    let teller = Teller { billing, called: called.as_str() };
    let applied = stays.apply(ledger, &mut garage.stays, place, event, teller, changes)?;
    if applied.is_ok() {
        garage.occupancy.apply(&event.kind);
    }
    Ok(applied)
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, vec![1]).expect("it always encodes")
}

fn decode<'a, T: Deserialize<'a>>(key: &[u8], value: &'a [u8]) -> Result<T, StoreError> {
    match value.split_first() {
        Some((1, body)) => postcard::from_bytes(body).map_err(|_| damaged(key)),
        _ => Err(damaged(key)),
    }
}

fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| damaged(bytes))
}

fn damaged(key: &[u8]) -> StoreError {
    StoreError::Damaged {
        place: format!("the view's key {key:02x?}"),
        reason: "it has the wrong form".into(),
    }
}
