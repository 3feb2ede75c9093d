//! The stays: what entries and exits do to the visits in the pages, and which cars are inside.
//!
//! **Promise.** At any position the visits are what `parking::stay::pair` says of all entries and exits applied until
//! there, each under its garage and the best plate known there.
//! **Kept by.** An entry or exit follows the cars inside, which are in memory, or in the store when they are inside for more than 30
//! days ([`aged`](super::aged)). What corrected plates change is in [`corrections`](super::corrections).

use super::aged::{self, Age, AgedPlates, OpenStay};
use super::billing::anomalies::{AnomalyCode, AnomalyFact, AnomalyKey};
use super::billing::overlaps::INSIDE_MS;
use super::billing::totals::Sign;
use super::billing::{BilledVisit, Billing, WRITES_OF_A_STAY, note_waiting};
use super::chains::{ChainHeads, PlateChain};
use super::changes::ViewChanges;
use super::codec::{damaged, read, u32_from};
use super::decisions::Decisions;
use super::event_decisions::{DecidedEvent, EventDecision, decided_plate, made_by};
use super::garages::GarageStays;
use super::page_maps::{OCCUPIED, Occupied, mapped_pages};
use super::pages::{Slot, SlotAddress, SlotChange, StoredPassage, page_key, read_page};
use super::plate_filter::hash_of;
use super::recent::RecentCars;
use crate::messaging::{Epoch, SiteName};
use crate::parking::stay::{End, Inside, Visit, Way};
use crate::parking::{Event, EventKind, Plate};
use crate::server::ledger::Ledger;
use crate::store::{Batch, Store, StoreError};
use std::borrow::Cow;
use std::collections::HashMap;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StayIndex {
    heads: ChainHeads<Option<SlotAddress>>,
    garages: Vec<CarsInside>,
    garages_of: HashMap<Plate, u32>,
    /// Which of the cars inside are not in memory.
    age: Age,
    aged_plates: AgedPlates,
    pub(super) recent: RecentCars,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct CarsInside {
    inside: Inside<OpenStay>,
    occupied: Occupied,
}

#[derive(Debug, Clone, Copy)]
pub struct EventPosition<'a> {
    pub site: &'a SiteName,
    pub stream: u32,
    pub epoch: Epoch,
    pub sequence: u64,
    pub position: u64,
}

impl EventPosition<'_> {
    pub fn passage(self, event: &Event) -> StoredPassage {
        let minutes = event.at.offset.seconds() / 60;
        let minutes = i16::try_from(minutes).expect("an offset is below 26 hours");
        let at = (event.at.timestamp.as_millisecond(), minutes);
        StoredPassage::new(self.position, (self.stream, self.sequence), at)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppendOrder {
    /// When its first event is applied.
    InOrder,
    /// When a later event changes what its first event belongs to.
    Later,
}

/// A change of the visits of one garage.
pub struct StayUpdate<'a> {
    pub book: &'a mut GarageStays,
    pub billing: &'a mut Billing,
    pub decisions: &'a Decisions,
    pub ledger: &'a Ledger,
    pub changes: &'a mut ViewChanges,
}

impl StayUpdate<'_> {
    /// What a visit costs, and what of it does not add up, follows from what it was and what it is now.
    pub(super) fn visit_changed(
        &mut self,
        plate: &Plate,
        address: SlotAddress,
        before: Option<&Visit<StoredPassage>>,
        after: Option<&Visit<StoredPassage>>,
    ) -> Result<(), StoreError> {
        let visit = BilledVisit { plate, address };
        self.billing.visit_changed(self.ledger, visit, (before, after), &mut self.changes.billing)?;
        match (before, after) {
            (Some(before), None) => self.billing.is_no_stay(visit, before, &mut self.changes.billing),
            _ => Ok(()),
        }
    }

    /// An entry or exit has another plate from now on, or none that could be read.
    pub(super) fn read_as(
        &mut self,
        passage: StoredPassage,
        from: Option<&Plate>,
        to: Option<&Plate>,
    ) -> Result<(), StoreError> {
        self.plate_changed(passage, (from.is_some(), to.is_some()))
    }

    /// The same, where a plate may be forgotten.
    pub(super) fn plate_changed(
        &mut self,
        passage: StoredPassage,
        (had_plate, has_plate): (bool, bool),
    ) -> Result<(), StoreError> {
        let unreadable = AnomalyKey::of_garage(AnomalyCode::UnreadablePlate, self.book.number);
        let anomalies = &mut self.changes.billing;
        match (had_plate, has_plate) {
            (false, true) => anomalies.note_passage(Sign::Subtract, unreadable, passage),
            (true, false) => anomalies.note_passage(Sign::Add, unreadable, passage),
            _ => Ok(()),
        }
    }

    /// The plate by which an entry or exit is matched: the one that was decided, else the one that was read.
    pub(super) fn plate_of<'p>(
        &mut self,
        place: EventPosition<'_>,
        event: &Event,
        read: Option<&'p Plate>,
    ) -> Result<Option<Cow<'p, Plate>>, StoreError> {
        let way = if matches!(event.kind, EventKind::Entry { .. }) { Way::In } else { Way::Out };
        let decided = self.decisions.of_event(place.site, (place.epoch, place.sequence));
        for EventDecision { position, at_ms, what } in decided {
            // It waited for this event.
            if what.is_about() == way {
                note_waiting(
                    Sign::Subtract,
                    Some(self.book.number),
                    (*position, *at_ms),
                    &mut self.changes.billing,
                )?;
                if let DecidedEvent::Joined { .. } = what {
                    let anomaly = AnomalyKey::of_garage(AnomalyCode::ForgottenStayChanged, self.book.number);
                    let fact = AnomalyFact::of_decision(*position, *at_ms);
                    self.changes.billing.note(Sign::Add, &anomaly, fact, place.position)?;
                }
            }
        }
        let plate = decided_plate(decided).map(Cow::Owned).or(read.map(Cow::Borrowed));
        if plate.is_none() {
            let anomaly = AnomalyKey::of_garage(AnomalyCode::UnreadablePlate, self.book.number);
            self.changes.billing.note_passage(Sign::Add, anomaly, place.passage(event))?;
        }
        Ok(plate)
    }

    /// A stay ends in another way than before.
    pub(super) fn end_changed(
        &mut self,
        plate: &Plate,
        open: OpenStay,
        end: End<StoredPassage>,
    ) -> Result<(), StoreError> {
        self.changes.change(open.address, SlotChange::End(end.clone()))?;
        let stay = |end| Visit::Stay { entry: open.entry, end };
        self.visit_changed(plate, open.address, Some(&stay(End::Inside)), Some(&stay(end)))
    }
}

/// A visit in the chain of its plate, and whether it was appended in order: see [`Slot::in_order`].
pub(super) type ChainedVisit = (Visit<StoredPassage>, bool);

impl StayIndex {
    pub fn load(store: &Store, garages: usize) -> Result<StayIndex, StoreError> {
        let garages_count = u32::try_from(garages).expect("there are fewer garages than people");
        let garages = vec![CarsInside::default(); garages];
        let (heads, age) = (ChainHeads::load(store)?, read(store, aged::AGE)?.unwrap_or_default());
        let mut stays = StayIndex { heads, garages, age, ..StayIndex::default() };
        for (garage, page) in mapped_pages(store, OCCUPIED, 0, u32::MAX)? {
            let misfit = || damaged(&page_key(garage, page));
            let of_garage = stays.garages.get_mut(garage as usize).ok_or_else(misfit)?;
            for (slot, its) in read_page(store, garage, page)?.into_iter().enumerate() {
                if let Some((plate, Visit::Stay { entry, end: End::Inside })) = its.visit
                    && entry.position >= stays.age.before
                {
                    let plate = Plate::stored(&plate).map_err(|_| misfit())?;
                    let slot = u8::try_from(slot).map_err(|_| misfit())?;
                    let address = SlotAddress { garage, page, slot };
                    of_garage.inside.enter(&plate, OpenStay { address, entry });
                    of_garage.occupied.enter(page);
                    *stays.garages_of.entry(plate).or_default() += 1;
                }
            }
        }
        for found in aged::all(store) {
            stays.aged_plates.add(hash_of(&found?.0));
        }
        stays.remember_recent(store, garages_count)?;
        Ok(stays)
    }

    /// Reads which cars were seen lately: all of them, or those in the newest pages.
    fn remember_recent(&mut self, store: &Store, garages: u32) -> Result<(), StoreError> {
        const PAGES_READ: u32 = 20_000;
        let mut pages = PAGES_READ;
        for garage in 0..garages {
            let newest = store.last(&page_key(garage, 0), &page_key(garage + 1, 0))?;
            let Some((key, _)) = newest else { continue };
            let newest = u32_from(&key, 6)?;
            // Each garage has its share of what may still be read.
            let first = (newest + 1).saturating_sub(pages / (garages - garage));
            for page in first..=newest {
                self.recent.saw_page(garage, &read_page(store, garage, page)?);
            }
            pages -= newest + 1 - first;
            if first > 0 {
                self.recent.forget_others();
            }
        }
        Ok(())
    }

    /// A page was received: cars that have been inside for long by then leave memory.
    pub fn received(
        &mut self,
        at_ms: i64,
        position: u64,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
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

    pub fn begin_garage(&mut self) -> GarageStays {
        self.garages.push(CarsInside::default());
        let number = u32::try_from(self.garages.len() - 1).expect("there are fewer garages than people");
        GarageStays::of_garage(number)
    }

    pub fn enter(
        &mut self,
        plate: &Plate,
        place: EventPosition<'_>,
        event: &Event,
        mut update: StayUpdate<'_>,
    ) -> Result<(), StoreError> {
        let entry = place.passage(event);
        if let Some(former) = self.take(plate, &mut update)? {
            update.book.counts.open -= 1;
            update.book.counts.exits_missed += 1;
            update.end_changed(plate, former, End::Unseen)?;
        }
        let was_elsewhere = self.recent.seen(plate.as_str(), update.book.number, entry.at_ms);
        let may_overlap = was_elsewhere || self.is_inside_anywhere(plate, update.changes)?;
        let address =
            self.append(AppendOrder::InOrder, plate, Visit::Stay { entry, end: End::Inside }, &mut update)?;
        self.is_inside(plate, OpenStay { address, entry }, update.changes)?;
        let decided = update.decisions.of_event(place.site, (place.epoch, place.sequence));
        self.put_made(plate, &made_by(decided, entry), &mut update)?;
        self.note_overlaps(plate, may_overlap, &mut update)
    }

    pub fn leave(
        &mut self,
        plate: &Plate,
        exit: StoredPassage,
        mut update: StayUpdate<'_>,
    ) -> Result<(), StoreError> {
        match self.take(plate, &mut update)? {
            Some(stay) => {
                update.book.counts.open -= 1;
                update.book.counts.closed += 1;
                update.end_changed(plate, stay, End::Left(exit))?;
                self.recent.seen(plate.as_str(), update.book.number, exit.at_ms);
                // Until then the car counted as inside: what lies within the stay was found already, unless it was not looked for.
                let is_long = exit.at_ms.saturating_sub(stay.entry.at_ms) > INSIDE_MS;
                self.note_overlaps(plate, is_long, &mut update)
            }
            None => self.append(AppendOrder::InOrder, plate, Visit::Exit(exit), &mut update).map(drop),
        }
    }

    /// Looks for stays of a car in two garages at once, if it may have some or had some.
    pub(super) fn note_overlaps(
        &self,
        plate: &Plate,
        may_overlap: bool,
        update: &mut StayUpdate<'_>,
    ) -> Result<(), StoreError> {
        if !may_overlap && !update.billing.is_overlapping(plate) {
            return Ok(());
        }
        let visits = self.of_plate(plate, update.changes)?;
        update.billing.note_overlaps(plate, &visits, &mut update.changes.billing)
    }

    pub(super) fn is_inside(
        &mut self,
        plate: &Plate,
        open: OpenStay,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
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
    pub(super) fn take(
        &mut self,
        plate: &Plate,
        update: &mut StayUpdate<'_>,
    ) -> Result<Option<OpenStay>, StoreError> {
        let garage = update.book.number;
        let mut found = self.garages[garage as usize].inside.leave(plate);
        if let Some(open) = found {
            self.forget_inside(plate, open, update.changes);
        } else if self.aged_plates.may_hold(hash_of(plate.as_str())) {
            found = update.changes.aged.get(plate, garage)?;
            if let Some(open) = found {
                self.take_aged(plate, open, update.changes)?;
            }
        }
        Ok(found)
    }

    fn keep_aged(
        &mut self,
        plate: &Plate,
        open: OpenStay,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        self.aged_plates.add(hash_of(plate.as_str()));
        changes.aged.put(plate, open)
    }

    fn take_aged(
        &mut self,
        plate: &Plate,
        open: OpenStay,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let (place, oldest) = (open.address, self.age.before);
        let slots = changes.slots(place.garage, place.page)?;
        let others = slots.iter().enumerate().filter(|(slot, _)| *slot != usize::from(place.slot));
        let is_aged = |slot: &Slot| match &slot.visit {
            Some((_, Visit::Stay { entry, end: End::Inside })) => entry.position < oldest,
            _ => false,
        };
        let is_last = !others.map(|(_, slot)| slot).any(is_aged);
        changes.aged.take(plate, open, is_last)
    }

    /// A car that was taken from those in memory leaves the counts there, too.
    fn forget_inside(&mut self, plate: &Plate, open: OpenStay, changes: &mut ViewChanges) {
        let map = self.garages[open.address.garage as usize].occupied.leave(open.address.page);
        changes.maps.extend(map.map(|map| (open.address.garage, map)));
        if let Some(garages) = self.garages_of.get_mut(plate) {
            *garages -= 1;
            if *garages == 0 {
                self.garages_of.remove(plate);
            }
        }
    }

    /// Appends a visit to the pages of its garage and to the chain of its plate, and counts it.
    pub(super) fn append(
        &mut self,
        appended: AppendOrder,
        plate: &Plate,
        visit: Visit<StoredPassage>,
        update: &mut StayUpdate<'_>,
    ) -> Result<SlotAddress, StoreError> {
        *update.book.count(&visit) += 1;
        let chain = PlateChain::of(plate);
        let slot = Slot {
            previous: self.heads.get(chain),
            in_order: appended == AppendOrder::InOrder,
            visit: Some((plate.as_str().into(), visit.clone())),
        };
        let address = update.book.next_address(slot.reserve());
        self.heads.set(chain, Some(address));
        update.changes.heads.insert(chain.head_page());
        update.changes.change(address, SlotChange::Append(slot))?;
        update.visit_changed(plate, address, None, Some(&visit))?;
        Ok(address)
    }

    /// How many cars of each garage, by its number, are inside and came before this time. `open` is how many are inside it.
    pub fn inside_since_before(&self, ms: i64, open: impl Iterator<Item = (u32, u64)>) -> HashMap<u32, u64> {
        let of_garage = |(number, open): (u32, u64)| {
            let inside = self.garages.get(number as usize).map(|garage| &garage.inside.by_plate);
            let lately =
                inside.map_or(0, |inside| inside.values().filter(|its| its.entry.at_ms >= ms).count());
            (number, open.saturating_sub(lately as u64))
        };
        open.map(of_garage).collect()
    }

    pub fn is_inside_anywhere(&self, plate: &Plate, changes: &ViewChanges) -> Result<bool, StoreError> {
        Ok(self.garages_of.contains_key(plate)
            || self.aged_plates.may_hold(hash_of(plate.as_str())) && changes.aged.is_anywhere(plate)?)
    }

    #[cfg(test)]
    pub fn in_memory(&self) -> usize {
        self.garages.iter().map(|garage| garage.inside.by_plate.len()).sum()
    }

    /// The newest member of the chain that a plate shares with others.
    pub fn newest_of(&self, plate: &Plate) -> Option<SlotAddress> {
        self.heads.get(PlateChain::of(plate))
    }

    /// The chain of a plate, newest first: each visit and whether it was appended in order; none where the slot is of another plate.
    pub(super) fn chain<'a>(
        &self,
        plate: &'a Plate,
        changes: &'a mut ViewChanges,
    ) -> impl Iterator<Item = Result<(SlotAddress, Option<ChainedVisit>), StoreError>> + use<'a> {
        changes.chain(self.heads.get(PlateChain::of(plate)), |slot| {
            let visit = slot.visit.as_ref().filter(|(text, _)| **text == *plate.as_str());
            visit.map(|(_, visit)| (visit.clone(), slot.in_order))
        })
    }

    pub fn of_plate(
        &self,
        plate: &Plate,
        changes: &mut ViewChanges,
    ) -> Result<Vec<(SlotAddress, Visit<StoredPassage>)>, StoreError> {
        let chain = self.chain(plate, changes);
        let found = chain.filter_map(|found| found.map(|(at, its)| Some((at, its?.0))).transpose());
        found.collect()
    }

    pub fn drain(&self, changes: &mut ViewChanges, batch: &mut Batch) -> Result<(), StoreError> {
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

/// How many writes one entry or exit adds, as a rule at most: a page in which a stay ends, and what follows for the books of money.
/// Appended visits share pages.
pub const WRITES_OF_A_PASSAGE: usize = 1 + WRITES_OF_A_STAY;
/// How many writes one correction adds, as a rule at most: visits under both plates, their charges, and its readings.
pub const WRITES_OF_A_CORRECTION: usize = 4 + 2 * WRITES_OF_A_STAY;

/// How many writes the events of one ledger page add beside those, as a rule at most: pages for what is appended, the maps of a
/// garage of ten million visits, pages of charges.
pub const WRITES_OF_A_PAGE: usize = 14 + 14 + 8;
