//! The fold of the stays: what entries, exits and corrected plates do to the visits in the pages.
//!
//! **Promise.** At any position the visits are what `parking::stay::pair` says of all entries and exits applied until
//! there, each under its garage and the best plate known there.
//! **Kept by.** An entry or exit follows the cars inside, which are in memory, or in the store when they are inside for more than 30
//! days ([`aged`](super::aged)). A correction takes the event out of the
//! visits beside it under its former plate, and puts it into those under the new one, which it finds through the chains
//! of their plates.
//! **Not promised.** A correction that would have to look through more than [`LOOK_BACK`] visits: it goes to quarantine.

use super::Place;
use super::aged::{self, Age, Filter, Open};
use super::billing::anomalies::AnomalyCode;
use super::billing::{self, Billing, Closed, Cover};
use super::changes::Changes;
use super::pages::{
    self, Address, Head, Heads, Occupied, PAGE_MAX, Passage, ReadingsOf, SLOTS_MAX, Slot, read_page,
};
use crate::messaging::page::Content;
use crate::messaging::{Epoch, SiteName};
use crate::parking::stay::{self, End, Inside, Visit, Way};
use crate::parking::{Event, EventKind, Plate};
use crate::server::ledger::Ledger;
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// How many visits a correction may look through, back from the newest: a tenth of a second.
pub const LOOK_BACK: usize = 10_000;

/// What one garage's visits come to, and where the next one is put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Of the garage: in the order in which they were first seen.
    pub number: u32,
    page: u32,
    slots: u8,
    /// What the slots of the page reserve.
    bytes: u32,
    /// Stays of cars that are inside.
    pub open: u64,
    /// Stays with an exit.
    pub closed: u64,
    /// Stays whose exit nobody saw.
    pub exits_missed: u64,
    /// Exits without an entry.
    pub exits_unmatched: u64,
}

impl Book {
    fn count(&mut self, visit: &Visit<Passage>) -> &mut u64 {
        match visit {
            Visit::Stay { end: End::Inside, .. } => &mut self.open,
            Visit::Stay { end: End::Left(_), .. } => &mut self.closed,
            Visit::Stay { end: End::Unseen, .. } => &mut self.exits_missed,
            Visit::Exit(_) => &mut self.exits_unmatched,
        }
    }
}

/// Why an event could not be applied. It goes to quarantine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    #[error("it corrects an event of epoch {0:?}, which is no epoch: a UUID is expected")]
    NoEpoch(String),
    #[error(
        "it corrects sequence {sequence} of epoch {epoch}, and no such event of this garage came before it"
    )]
    NoSuchEvent { epoch: Epoch, sequence: u64 },
    #[error("it corrects the plate of an event of kind {0:?}, which belongs to no car that came or went")]
    NoPassage(&'static str),
    #[error("it corrects an event that is itself in quarantine")]
    InQuarantine,
    #[error(
        "it corrects an event that was released from quarantine, so it stands at another place of the order"
    )]
    AtAnotherPlace,
    #[error("it corrects an event that lies more than {LOOK_BACK} visits back")]
    TooFarBack,
}

/// The state of the fold that is kept in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stays {
    heads: Heads,
    /// By the number of the garage.
    garages: Vec<OfGarage>,
    /// In how many garages each car is inside.
    garages_of: HashMap<Plate, u32>,
    /// Which of the cars inside are not in memory.
    age: Age,
    filter: Filter,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfGarage {
    inside: Inside<Open>,
    occupied: Occupied,
}

/// Whose stays change, and who is told of it: the books of money.
pub struct Teller<'a> {
    pub billing: &'a mut Billing,
    /// What the garage is called.
    pub called: &'a str,
}

impl<'a> Teller<'a> {
    fn garage(&self, book: &Book) -> billing::Garage<'a> {
        billing::Garage { number: book.number, called: self.called }
    }
}

/// A run of visits of one car, ascending, each at its address.
pub(super) type Run = Vec<(Address, Visit<Passage>)>;

impl Stays {
    /// What was written last, for as many garages.
    pub fn load(store: &Store, garages: usize, billing: &mut Billing) -> Result<Stays, StoreError> {
        let garages = vec![OfGarage::default(); garages];
        let (heads, age) = (Heads::load(store)?, Age::load(store)?);
        let mut stays = Stays { heads, garages, age, ..Stays::default() };
        for (garage, page) in pages::occupied_pages(store, 0, u32::MAX)? {
            let damaged = || super::damaged(&pages::page_key(garage, page));
            let of_garage = stays.garages.get_mut(garage as usize).ok_or_else(damaged)?;
            for (slot, its) in read_page(store, garage, page)?.into_iter().enumerate() {
                if let Some((plate, Visit::Stay { entry, end: End::Inside })) = its.visit
                    && entry.position >= stays.age.before
                {
                    let plate = Plate::stored(&plate).map_err(|_| damaged())?;
                    let slot = u8::try_from(slot).map_err(|_| damaged())?;
                    let address = Address { garage, page, slot };
                    of_garage.inside.enter(&plate, Open { address, entry, cover: its.cover });
                    of_garage.occupied.enter(page);
                    billing.was_inside(its.cover);
                    *stays.garages_of.entry(plate).or_default() += 1;
                }
            }
        }
        for found in aged::all(store) {
            let (plate, open) = found?;
            stays.filter.add(&plate);
            billing.was_inside(open.cover);
        }
        Ok(stays)
    }

    /// A page was received: cars that have been inside for long by then leave memory.
    pub fn received(&mut self, at_ms: i64, position: u64, changes: &mut Changes) -> Result<(), StoreError> {
        let before = self.age.clone();
        let others = self.age.received(at_ms, position);
        changes.aged.age |= self.age != before;
        if !others {
            return Ok(());
        }
        let oldest = self.age.before;
        for garage in 0..self.garages.len() {
            for (plate, open) in self.garages[garage].inside.take_all(|open| open.entry.position < oldest) {
                self.forget_inside(&plate, open, changes);
                self.keep_aged(&plate, open, changes)?;
            }
        }
        Ok(())
    }

    /// A garage that was never seen gets the next number.
    pub fn begin_garage(&mut self) -> Book {
        self.garages.push(OfGarage::default());
        let number = u32::try_from(self.garages.len() - 1).expect("there are fewer garages than people");
        Book { number, ..Book::default() }
    }

    /// Applies what an event says of one car. `Err` inside: the event changed nothing.
    pub fn apply(
        &mut self,
        ledger: &Ledger,
        book: &mut Book,
        place: Place<'_>,
        event: &Event,
        teller: Teller<'_>,
        changes: &mut Changes,
    ) -> Result<Result<(), NotApplied>, StoreError> {
        match &event.kind {
            EventKind::Entry { plate: Some(plate) } => {
                self.enter(book, plate, passage(place, event), teller, changes)?;
            }
            EventKind::Exit { plate: Some(plate) } => {
                self.leave(book, plate, passage(place, event), teller, changes)?;
            }
            EventKind::PlateCorrection { epoch, sequence, plate } => {
                let Ok(epoch) = epoch.parse::<Epoch>() else {
                    return Ok(Err(NotApplied::NoEpoch(epoch.clone())));
                };
                let reading = ((epoch, *sequence), plate);
                return self.correct(ledger, book, place, reading, teller, changes);
            }
            EventKind::Entry { plate: None } | EventKind::Exit { plate: None } => {
                let at_ms = event.at.timestamp.as_millisecond();
                changes.billing.note(
                    AnomalyCode::UnreadablePlate,
                    book.number,
                    None,
                    at_ms,
                    place.position,
                )?;
            }
            EventKind::Count { .. } => {}
        }
        Ok(Ok(()))
    }

    fn enter(
        &mut self,
        book: &mut Book,
        plate: &Plate,
        entry: Passage,
        teller: Teller<'_>,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        if let Some(former) = self.take(book, plate, teller.billing, changes)? {
            changes.billing.note(
                AnomalyCode::EntryWhileOpen,
                book.number,
                Some(plate),
                entry.at_ms,
                entry.position,
            )?;
            changes.end(former.address, End::Unseen)?;
            book.open -= 1;
            book.exits_missed += 1;
        }
        if self.is_inside_anywhere(plate, changes)? {
            changes.billing.note(
                AnomalyCode::OpenInTwoGarages,
                book.number,
                Some(plate),
                entry.at_ms,
                entry.position,
            )?;
        }
        let garage = teller.garage(book);
        let cover = teller.billing.entered(garage, plate, entry);
        let visit = Visit::Stay { entry, end: End::Inside };
        let address = self.append(book, true, plate, cover, visit, changes)?;
        self.is_inside(plate, Open { address, entry, cover }, changes)
    }

    fn leave(
        &mut self,
        book: &mut Book,
        plate: &Plate,
        exit: Passage,
        teller: Teller<'_>,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        match self.take(book, plate, teller.billing, changes)? {
            Some(stay) => {
                changes.end(stay.address, End::Left(exit))?;
                book.open -= 1;
                book.closed += 1;
                let garage = teller.garage(book);
                let closed = Closed { garage, plate, entry: stay.entry, exit, cover: stay.cover };
                teller.billing.closed(exit.position, closed, &mut changes.billing)?;
            }
            None => {
                self.append(book, true, plate, Cover::None, Visit::Exit(exit), changes)?;
                changes.billing.note(
                    AnomalyCode::ExitWithoutEntry,
                    book.number,
                    Some(plate),
                    exit.at_ms,
                    exit.position,
                )?;
            }
        }
        Ok(())
    }

    /// A car is inside from now on; its stay stands at its address already.
    fn is_inside(&mut self, plate: &Plate, open: Open, changes: &mut Changes) -> Result<(), StoreError> {
        if open.entry.position < self.age.before {
            return self.keep_aged(plate, open, changes);
        }
        let of_garage = &mut self.garages[open.address.garage as usize];
        of_garage.inside.enter(plate, open);
        let map = of_garage.occupied.enter(open.address.page);
        changes.maps.extend(map.map(|map| (open.address.garage, map)));
        *self.garages_of.entry(plate.clone()).or_default() += 1;
        Ok(())
    }

    /// Takes a car from those inside a garage, wherever it is kept. It is counted nowhere any more.
    fn take(
        &mut self,
        book: &Book,
        plate: &Plate,
        billing: &mut Billing,
        changes: &mut Changes,
    ) -> Result<Option<Open>, StoreError> {
        let mut found = self.garages[book.number as usize].inside.leave(plate);
        if let Some(open) = found {
            self.forget_inside(plate, open, changes);
        } else if self.filter.may_hold(plate.as_str()) {
            found = changes.aged.get(changes.store(), plate, book.number)?;
            if let Some(open) = found {
                self.take_aged(plate, open, changes)?;
            }
        }
        if let Some(open) = found {
            billing.left(open.cover);
        }
        Ok(found)
    }

    /// Puts a car beside memory.
    fn keep_aged(&mut self, plate: &Plate, open: Open, changes: &mut Changes) -> Result<(), StoreError> {
        self.filter.add(plate.as_str());
        let store = changes.store().clone();
        changes.aged.put(&store, plate, open)
    }

    fn take_aged(&mut self, plate: &Plate, open: Open, changes: &mut Changes) -> Result<(), StoreError> {
        let (place, oldest) = (open.address, self.age.before);
        let slots = changes.slots(place.garage, place.page)?;
        let others = slots.iter().enumerate().filter(|(slot, _)| *slot != usize::from(place.slot));
        let is_aged = |slot: &Slot| match &slot.visit {
            Some((_, Visit::Stay { entry, end: End::Inside })) => entry.position < oldest,
            _ => false,
        };
        let is_last = !others.map(|(_, slot)| slot).any(is_aged);
        let store = changes.store().clone();
        changes.aged.take(&store, plate, open, is_last)
    }

    /// A car that was taken from those in memory leaves the counts there, too.
    fn forget_inside(&mut self, plate: &Plate, open: Open, changes: &mut Changes) {
        self.nobody_more_in(open.address, changes);
        if let Some(garages) = self.garages_of.get_mut(plate) {
            *garages -= 1;
            if *garages == 0 {
                self.garages_of.remove(plate);
            }
        }
    }

    /// Reads an earlier event with another plate from here on.
    pub(super) fn correct(
        &mut self,
        ledger: &Ledger,
        book: &mut Book,
        place: Place<'_>,
        ((epoch, sequence), plate): ((Epoch, u64), &Plate),
        mut teller: Teller<'_>,
        changes: &mut Changes,
    ) -> Result<Result<(), NotApplied>, StoreError> {
        let before = (place.position, place.sequence);
        let known = match known_event(ledger, place.site, (epoch, sequence), before, changes)? {
            Ok(known) => known,
            Err(why) => return Ok(Err(why)),
        };
        let KnownEvent { way, passage, plate: former, readings, index } = known;
        if former.as_ref() == Some(plate) {
            return Ok(Ok(()));
        }
        // Both are looked at before anything is changed: a correction is applied whole or not at all.
        let old = match &former {
            Some(former) => match self.beside(book.number, former, passage, changes)? {
                Some(run) => Some((former, run)),
                None => return Ok(Err(NotApplied::TooFarBack)),
            },
            None => None,
        };
        let Some(new) = self.beside(book.number, plate, passage, changes)? else {
            return Ok(Err(NotApplied::TooFarBack));
        };
        if let Some((_, run)) = &old
            && !run.iter().any(|(_, visit)| visit.holds(&passage))
        {
            return Ok(Err(NotApplied::AtAnotherPlace));
        }
        if let Some((former, run)) = old {
            let visits: Vec<_> = run.iter().map(|(_, visit)| visit.clone()).collect();
            let after = stay::without(&visits, &passage);
            self.replace(book, former, (&run, after), place.position, &mut teller, changes)?;
        }
        let visits: Vec<_> = new.iter().map(|(_, visit)| visit.clone()).collect();
        let after = stay::with(&visits, way, passage);
        self.replace(book, plate, (&new, after), place.position, &mut teller, changes)?;
        changes.readings_mut(readings)?.insert(index, plate.as_str().into());
        Ok(Ok(()))
    }

    /// The visits of a car beside an event: the last two that begin at or before it, and the first after it, as far
    /// as there are such. `None`: that is too far back.
    pub(super) fn beside(
        &self,
        garage: u32,
        plate: &Plate,
        event: Passage,
        changes: &mut Changes,
    ) -> Result<Option<Run>, StoreError> {
        let mut before: Run = Vec::new();
        let mut after: Option<(Address, Visit<Passage>)> = None;
        let mut in_order = 0;
        let mut next = self.heads.get(Head::of(plate));
        for _ in 0..LOOK_BACK {
            let Some(address) = next else {
                break;
            };
            let slot = changes.slot(address)?;
            next = slot.previous;
            let Some((text, visit)) = &slot.visit else {
                continue;
            };
            if address.garage != garage || **text != *plate.as_str() {
                continue;
            }
            if *visit.first() <= event {
                before.push((address, visit.clone()));
                // Everything below a visit that was appended in order began before it: after two, nothing nearer comes.
                in_order += usize::from(slot.in_order);
                if in_order == 2 {
                    next = None;
                }
            } else if after.as_ref().is_none_or(|(_, nearest)| visit.first() < nearest.first()) {
                after = Some((address, visit.clone()));
            }
        }
        if next.is_some() {
            return Ok(None);
        }
        before.sort_by_key(|(_, visit)| *visit.first());
        let mut run = before.split_off(before.len().saturating_sub(2));
        run.extend(after);
        Ok(Some(run))
    }

    /// Puts `new` in the place of a run of visits of one car: what begins with the same event keeps its slot. The books of
    /// money are told of every stay that is another one now.
    pub(super) fn replace(
        &mut self,
        book: &mut Book,
        plate: &Plate,
        (old, new): (&Run, Vec<Visit<Passage>>),
        position: u64,
        teller: &mut Teller<'_>,
        changes: &mut Changes,
    ) -> Result<(), StoreError> {
        let same = |one: &Visit<Passage>, other: &Visit<Passage>| {
            std::mem::discriminant(one) == std::mem::discriminant(other) && one.first() == other.first()
        };
        for (address, visit) in old {
            *book.count(visit) -= 1;
            if visit.is_inside() {
                self.take(book, plate, teller.billing, changes)?;
            }
            if let Visit::Stay { end: End::Left(exit), .. } = visit
                && !new.contains(visit)
            {
                teller.billing.undone(position, book.number, plate, *exit, &mut changes.billing)?;
            }
            if !new.iter().any(|new| same(new, visit)) {
                changes.empty(*address)?;
            }
        }
        for visit in new {
            let kept = old.iter().find(|(_, old)| same(old, &visit)).map(|(address, old)| (*address, old));
            let is_new = kept.is_none_or(|(_, old)| *old != visit);
            // A stay that was there keeps what its contract said.
            let cover = match (&visit, kept) {
                (_, Some((address, _))) => changes.slot(address)?.cover,
                (Visit::Stay { entry, .. }, None) => {
                    let garage = teller.garage(book);
                    let cover = teller.billing.entered(garage, plate, *entry);
                    teller.billing.left(cover);
                    cover
                }
                (Visit::Exit(_), None) => Cover::None,
            };
            let address = match kept {
                None => self.append(book, false, plate, cover, visit.clone(), changes)?,
                Some((address, _)) => {
                    *book.count(&visit) += 1;
                    if let (true, Visit::Stay { end, .. }) = (is_new, &visit) {
                        changes.end(address, end.clone())?;
                    }
                    address
                }
            };
            match visit {
                Visit::Stay { entry, end: End::Inside } => {
                    teller.billing.was_inside(cover);
                    self.is_inside(plate, Open { address, entry, cover }, changes)?;
                }
                Visit::Stay { entry, end: End::Left(exit) } if is_new => {
                    let garage = teller.garage(book);
                    let closed = Closed { garage, plate, entry, exit, cover };
                    teller.billing.closed(position, closed, &mut changes.billing)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends a visit to the pages of its garage and to the chain of its plate, and counts it.
    fn append(
        &mut self,
        book: &mut Book,
        in_order: bool,
        plate: &Plate,
        cover: Cover,
        visit: Visit<Passage>,
        changes: &mut Changes,
    ) -> Result<Address, StoreError> {
        *book.count(&visit) += 1;
        let head = Head::of(plate);
        let visit = Some((plate.as_str().into(), visit));
        let slot = Slot { previous: self.heads.get(head), in_order, cover, visit };
        let reserve = u32::try_from(slot.reserve()).expect("a plate is short");
        if book.bytes as usize + reserve as usize > PAGE_MAX || book.slots == SLOTS_MAX {
            (book.page, book.slots, book.bytes) = (book.page + 1, 0, 0);
        }
        let address = Address { garage: book.number, page: book.page, slot: book.slots };
        book.bytes += reserve;
        book.slots += 1;
        self.heads.set(head, address);
        changes.heads.insert(head.page());
        changes.append(address, slot)?;
        Ok(address)
    }

    fn nobody_more_in(&mut self, address: Address, changes: &mut Changes) {
        let map = self.garages[address.garage as usize].occupied.leave(address.page);
        changes.maps.extend(map.map(|map| (address.garage, map)));
    }

    pub fn is_inside_anywhere(&self, plate: &Plate, changes: &Changes) -> Result<bool, StoreError> {
        if self.garages_of.contains_key(plate) {
            return Ok(true);
        }
        match self.filter.may_hold(plate.as_str()) {
            true => changes.aged.is_anywhere(changes.store(), plate),
            false => Ok(false),
        }
    }

    /// How many of the cars inside are in memory.
    #[cfg(test)]
    pub fn in_memory(&self) -> usize {
        self.garages.iter().map(|garage| garage.inside.len()).sum()
    }

    /// All visits of a plate that are told under it, newest first.
    pub fn of_plate(
        &self,
        plate: &Plate,
        changes: &mut Changes,
    ) -> Result<Vec<(Address, Visit<Passage>)>, StoreError> {
        let mut found = Vec::new();
        let mut next = self.heads.get(Head::of(plate));
        while let Some(address) = next {
            let slot = changes.slot(address)?;
            next = slot.previous;
            if let Some((text, visit)) = &slot.visit
                && **text == *plate.as_str()
            {
                found.push((address, visit.clone()));
            }
        }
        Ok(found)
    }

    /// Puts everything that changed into `batch`.
    pub fn drain(&self, changes: &mut Changes, batch: &mut crate::store::Batch) -> Result<(), StoreError> {
        for page in std::mem::take(&mut changes.heads) {
            let (key, value) = self.heads.entry(page);
            batch.put(key, value);
        }
        for (garage, map) in std::mem::take(&mut changes.maps) {
            match self.garages[garage as usize].occupied.entry(garage, map) {
                (key, Some(value)) => batch.put(key, value),
                (key, None) => batch.remove(key),
            }
        }
        changes.aged.drain(&self.age, batch);
        changes.drain_pages(batch)
    }
}

/// An entry or exit that was applied.
pub(super) struct KnownEvent {
    pub way: Way,
    pub passage: Passage,
    /// By the best reading.
    pub plate: Option<Plate>,
    /// Where a better one is kept.
    readings: ReadingsOf,
    index: u8,
}

/// Finds an event by its sequence, among those before a (position, sequence): the ledger may know later ones. `Err` inside: why
/// it is none that a stay is made of.
pub(super) fn known_event(
    ledger: &Ledger,
    site: &SiteName,
    (epoch, sequence): (Epoch, u64),
    before: (u64, u64),
    changes: &Changes,
) -> Result<Result<KnownEvent, NotApplied>, StoreError> {
    let none = || Ok(Err(NotApplied::NoSuchEvent { epoch, sequence }));
    let Some((stream, page)) = ledger.page_with(site, epoch, sequence)? else { return none() };
    if (page.position, sequence) >= before {
        return none();
    }
    let index = usize::try_from(sequence - page.page.first.get()).expect("it is within the page");
    let Content::Records(records) = &page.page.content else { return none() };
    let Ok(event) = Event::from_bytes(&records[index].payload) else {
        return Ok(Err(NotApplied::InQuarantine));
    };
    let (way, read_first) = match &event.kind {
        EventKind::Entry { plate } => (Way::In, plate),
        EventKind::Exit { plate } => (Way::Out, plate),
        other => return Ok(Err(NotApplied::NoPassage(other.name()))),
    };
    let passage = passage(Place { site, stream, sequence, position: page.position }, &event);
    let index = u8::try_from(index).expect("a page holds at most 64 events");
    let readings: ReadingsOf = (page.position, index / 16);
    let plate = match changes.reading(readings, index)? {
        Some(corrected) => {
            Some(Plate::stored(&corrected).map_err(|_| super::damaged(&pages::readings_key(readings)))?)
        }
        None => read_first.clone(),
    };
    Ok(Ok(KnownEvent { way, passage, plate, readings, index }))
}

fn passage(place: Place<'_>, event: &Event) -> Passage {
    let minutes = event.at.offset.seconds() / 60;
    let minutes = i16::try_from(minutes).expect("an offset is below 26 hours");
    let at = (event.at.timestamp.as_millisecond(), minutes);
    Passage::new(place.position, (place.stream, place.sequence), at)
}

/// How many writes one entry or exit adds at most: a page in which a stay ends, and what is said of it in the books of money.
/// Appended visits share pages.
pub const WRITES_OF_A_PASSAGE: usize = 1 + billing::WRITES_OF_A_STAY;
/// How many writes one correction adds, as a rule at most: visits under both plates, their charges, and its readings.
pub const WRITES_OF_A_CORRECTION: usize = 10;

/// How many writes the events of one ledger page add beside those, as a rule at most: pages for what is appended, the maps of a
/// garage of ten million visits, pages of charges.
pub const WRITES_OF_A_PAGE: usize = 14 + 14 + 8;
