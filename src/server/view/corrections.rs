//! Corrected plates: an event is taken out of the visits beside it under its former plate, and put into those under the new one.
//!
//! **Promise.** A correction is applied whole or not at all.
//! **Not promised.** A correction that would have to look through more than [`LOOK_BACK`] visits: it goes to quarantine.

use super::aged::OpenStay;
use super::billing::ClosedStay;
use super::changes::ViewChanges;
use super::codec::damaged;
use super::garages::GarageStays;
use super::pages::{Cover, ReadingsOf, SlotAddress, StoredPassage, readings_key};
use super::refusal::{LOOK_BACK, NotApplied};
use super::stays::{BillingContext, EventPlace, StayIndex};
use crate::messaging::page::Content;
use crate::messaging::{Epoch, SiteName};
use crate::parking::stay::{self, End, Visit, Way};
use crate::parking::{Event, EventKind, Plate};
use crate::server::ledger::Ledger;
use crate::store::StoreError;

/// A run of visits of one car, ascending, each at its address.
pub(super) type VisitRun = Vec<(SlotAddress, Visit<StoredPassage>)>;

impl StayIndex {
    /// Reads an earlier event with another plate from here on.
    pub(super) fn correct(
        &mut self,
        ledger: &Ledger,
        book: &mut GarageStays,
        place: EventPlace<'_>,
        ((epoch, sequence), plate): ((Epoch, u64), &Plate),
        mut teller: BillingContext<'_>,
        changes: &mut ViewChanges,
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
        event: StoredPassage,
        changes: &mut ViewChanges,
    ) -> Result<Option<VisitRun>, StoreError> {
        let mut before: VisitRun = Vec::new();
        let mut after: Option<(SlotAddress, Visit<StoredPassage>)> = None;
        let mut in_order = 0;
        for (looked_at, found) in self.chain(plate, changes).enumerate() {
            if looked_at == LOOK_BACK {
                return Ok(None);
            }
            let (address, Some((visit, is_in_order))) = found? else { continue };
            if address.garage != garage {
                continue;
            }
            if *visit.first() <= event {
                before.push((address, visit));
                // Everything below a visit that was appended in order began before it: after two, nothing nearer comes.
                in_order += usize::from(is_in_order);
                if in_order == 2 {
                    break;
                }
            } else if after.as_ref().is_none_or(|(_, nearest)| visit.first() < nearest.first()) {
                after = Some((address, visit));
            }
        }
        before.sort_by_key(|(_, visit)| *visit.first());
        let mut run = before.split_off(before.len().saturating_sub(2));
        run.extend(after);
        Ok(Some(run))
    }

    /// Puts `new` in the place of a run of visits of one car: what begins with the same event keeps its slot. The books of
    /// money follow every stay that is another one now.
    pub(super) fn replace(
        &mut self,
        book: &mut GarageStays,
        plate: &Plate,
        (old, new): (&VisitRun, Vec<Visit<StoredPassage>>),
        position: u64,
        teller: &mut BillingContext<'_>,
        changes: &mut ViewChanges,
    ) -> Result<(), StoreError> {
        let same = |one: &Visit<StoredPassage>, other: &Visit<StoredPassage>| {
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
                    self.is_inside(plate, OpenStay { address, entry, cover }, changes)?;
                }
                Visit::Stay { entry, end: End::Left(exit) } if is_new => {
                    let garage = teller.garage(book);
                    let closed = ClosedStay { garage, plate, entry, exit, cover };
                    teller.billing.closed(position, closed, &mut changes.billing)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// An entry or exit that was applied.
pub(super) struct KnownEvent {
    pub way: Way,
    pub passage: StoredPassage,
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
    changes: &ViewChanges,
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
    let passage = EventPlace { site, stream, sequence, position: page.position }.passage(&event);
    let index = u8::try_from(index).expect("a page holds at most 64 events");
    let readings: ReadingsOf = (page.position, index / 16);
    let plate = match changes.reading(readings, index)? {
        Some(corrected) => Some(Plate::stored(&corrected).map_err(|_| damaged(&readings_key(readings)))?),
        None => read_first.clone(),
    };
    Ok(Ok(KnownEvent { way, passage, plate, readings, index }))
}
